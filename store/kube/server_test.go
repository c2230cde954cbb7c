package kube

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	v3 "margay/api/v3"
	"margay/store"
)

// answers are what a server says, by path; other paths are not found. The real one is asked in test/kubernetes: here is what
// it does not do on demand.
type answers map[string]http.HandlerFunc

func (a answers) open(t *testing.T, cfg Config) *Store {
	t.Helper()
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if f := a[r.URL.Path]; f != nil {
			f(w, r)
			return
		}
		says(http.StatusNotFound, "NotFound")(w, r)
	}))
	t.Cleanup(server.Close)
	cfg.Server = server.URL
	s, err := Open(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func says(code int, reason string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(code)
		fmt.Fprintf(w, `{"kind":"Status","apiVersion":"v1","message":"it says %s","reason":%q,"code":%d}`, reason, reason, code)
	}
}

func text(body string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, body) }
}

// group is the answer about a group that has these resource types.
func group(plurals ...string) http.HandlerFunc {
	var list []string
	for _, p := range plurals {
		list = append(list, `{"name":"`+p+`"},{"name":"`+p+`/status"}`)
	}
	return text(`{"kind":"APIResourceList","resources":[` + strings.Join(list, ",") + `]}`)
}

// TestGroups: which form of the resources counts.
func TestGroups(t *testing.T) {
	for _, c := range []struct {
		name   string
		server answers
		force  string
		want   string
	}{
		{"v3", answers{"/apis/projectcalico.org/v3": group("tiers")}, "", GroupV3},
		{"v1", answers{"/apis/crd.projectcalico.org/v1": group("tiers")}, "", GroupV1},
		{"both", answers{"/apis/projectcalico.org/v3": group("tiers"), "/apis/crd.projectcalico.org/v1": group("tiers")}, "", GroupV1},
		{"both, v3 forced", answers{"/apis/projectcalico.org/v3": group("tiers"), "/apis/crd.projectcalico.org/v1": group("tiers")}, GroupV3, GroupV3},
		{"v3, v1 forced", answers{"/apis/projectcalico.org/v3": group("tiers")}, GroupV1, ""},
		{"none", answers{}, "", ""},
	} {
		sources, err := c.server.open(t, Config{Group: c.force}).sources(t.Context(), []v3.Kind{v3.KindTier})
		switch {
		case c.want == "":
			if !errors.Is(err, store.ErrUnavailable) || !strings.Contains(err.Error(), "kubectl apply --server-side -f install/crds") {
				t.Errorf("%s: %v", c.name, err)
			}
		case err != nil || len(sources) != 1 || sources[0].group != c.want || !sources[0].served:
			t.Errorf("%s: %+v, %v", c.name, sources, err)
		}
	}
	// Without custom resources what Kubernetes has itself can be read.
	sources, err := answers{}.open(t, Config{}).sources(t.Context(), []v3.Kind{v3.KindNode, v3.KindNetworkPolicy})
	if err != nil || len(sources) != 3 || sources[1].served || !sources[2].served {
		t.Errorf("%+v, %v", sources, err)
	}
}

// TestErrors: what becomes of answers that say no.
func TestErrors(t *testing.T) {
	key := v3.Key{Kind: v3.KindTier, Name: "t"}
	for _, c := range []struct {
		answer http.HandlerFunc
		want   error
		text   string
	}{
		{says(404, "NotFound"), store.ErrNotFound, "resource does not exist: Tier(t) with error: key not found"},
		{says(403, "Forbidden"), store.ErrForbidden, "connection is unauthorized: it says Forbidden (the cluster's RBAC rules or the credentials do not allow it)"},
		{says(401, "Unauthorized"), store.ErrForbidden, ""},
		{says(500, "InternalError"), store.ErrUnavailable, ""},
		{says(503, "ServiceUnavailable"), store.ErrUnavailable, ""},
		{says(504, "Timeout"), store.ErrUnavailable, ""},
		{text(`<html>`), nil, ""},
		{func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(502) }, store.ErrUnavailable, ""},
		{func(w http.ResponseWriter, _ *http.Request) { panic(http.ErrAbortHandler) }, store.ErrUnavailable, ""},
	} {
		s := answers{"/apis/projectcalico.org/v3": group("tiers"), "/apis/projectcalico.org/v3/tiers/t": c.answer}.open(t, Config{})
		r, err := s.Get(t.Context(), key)
		if c.want == nil {
			if !errors.Is(err, store.ErrNotFound) {
				t.Errorf("what is no object gives %v, %v", r, err)
			}
			continue
		}
		if r != nil || !errors.Is(err, c.want) || c.text != "" && err.Error() != c.text {
			t.Errorf("got %v, %v, want %v", r, err, c.want)
		}
	}
}

// TestBusy: a server that is too busy is asked again.
func TestBusy(t *testing.T) {
	var asked atomic.Int32
	s := answers{"/apis/projectcalico.org/v3": group("tiers"), "/apis/projectcalico.org/v3/tiers/t": func(w http.ResponseWriter, r *http.Request) {
		if asked.Add(1) < 3 {
			says(http.StatusTooManyRequests, "TooManyRequests")(w, r)
			return
		}
		fmt.Fprint(w, `{"kind":"Tier","metadata":{"name":"t","resourceVersion":"1"},"spec":{"order":1,"defaultAction":"Deny"}}`)
	}}.open(t, Config{})
	if r, err := s.Get(t.Context(), v3.Key{Kind: v3.KindTier, Name: "t"}); err != nil || r.GetName() != "t" || asked.Load() != 3 {
		t.Errorf("%v, %v after %d requests", r, err, asked.Load())
	}
}

// TestVanished: a resource type that was there and is not found is no empty list.
func TestVanished(t *testing.T) {
	s := answers{"/apis/projectcalico.org/v3": group("tiers")}.open(t, Config{})
	if list, err := s.List(t.Context(), "", v3.KindTier); !errors.Is(err, store.ErrUnavailable) {
		t.Errorf("%+v, %v", list, err)
	}
}

// TestFrozenServer: a server that accepts and says nothing is given up.
func TestFrozenServer(t *testing.T) {
	frozen := make(chan struct{})
	wait := func(http.ResponseWriter, *http.Request) { <-frozen }
	s := answers{"/apis/projectcalico.org/v3": group("tiers"), "/apis/projectcalico.org/v3/tiers": wait}.open(t, Config{RequestTimeout: 100 * time.Millisecond})
	t.Cleanup(func() { close(frozen) }) // before the server is closed, which waits for it
	if _, err := s.List(t.Context(), "", v3.KindTier); !errors.Is(err, store.ErrUnavailable) {
		t.Errorf("list: %v", err)
	}
	w := s.Watch(t.Context(), "5", v3.KindTier)
	defer w.Close()
	if _, err := w.Next(t.Context()); !errors.Is(err, store.ErrUnavailable) {
		t.Errorf("watch: %v", err)
	}
}

// TestClosedStore: a watch ends with its store.
func TestClosedStore(t *testing.T) {
	ended := make(chan struct{})
	silent := func(w http.ResponseWriter, r *http.Request) {
		w.(http.Flusher).Flush()
		<-r.Context().Done()
		close(ended)
	}
	s := answers{"/apis/projectcalico.org/v3": group("tiers"), "/apis/projectcalico.org/v3/tiers": silent}.open(t, Config{})
	w := s.Watch(t.Context(), "5", v3.KindTier)
	defer w.Close()
	if events, err := w.Next(t.Context()); len(events) > 0 || err != nil {
		t.Fatalf("the watch is established: %v, %v", events, err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := w.Next(t.Context()); !errors.Is(err, errClosed) {
		t.Errorf("next: %v", err)
	}
	if _, err := s.Get(t.Context(), v3.Key{Kind: v3.KindTier, Name: "t"}); !errors.Is(err, store.ErrUnavailable) {
		t.Errorf("get: %v", err)
	}
	<-ended
}

// TestWatchNews: bookmarks move the revision, errors that are no end do not end the watch, 410 does.
func TestWatchNews(t *testing.T) {
	var streams atomic.Int32
	tiers := func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Query().Get("watch") == "" {
			t.Errorf("request %s", r.URL)
		}
		switch n := streams.Add(1); n {
		case 1:
			if from := r.URL.Query().Get("resourceVersion"); from != "5" {
				t.Errorf("it begins at %s", from)
			}
			fmt.Fprint(w, `{"type":"BOOKMARK","object":{"kind":"Tier","metadata":{"resourceVersion":"8"}}}`,
				`{"type":"ADDED","object":{"kind":"Tier","metadata":{"name":"t","resourceVersion":"9"},"spec":{"order":1,"defaultAction":"Deny"}}}`,
				`{"type":"ERROR","object":{"kind":"Status","message":"not now","code":500}}`)
		case 2:
			if from := r.URL.Query().Get("resourceVersion"); from != "9" {
				t.Errorf("it goes on at %s", from)
			}
			fmt.Fprint(w, `{"type":"DELETED","object":{"kind":"Tier","metadata":{"name":"t","resourceVersion":"10"},"spec":{"order":1,"defaultAction":"Deny"}}}`,
				`{"type":"ERROR","object":{"kind":"Status","message":"too old","code":410}}`)
		default:
			t.Error("a watch that is over goes on")
		}
	}
	s := answers{"/apis/projectcalico.org/v3": group("tiers"), "/apis/projectcalico.org/v3/tiers": tiers}.open(t, Config{})
	w := s.Watch(t.Context(), "5", v3.KindTier)
	defer w.Close()
	var events []string
	outages := 0
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	for {
		got, err := w.Next(ctx)
		for _, e := range got {
			events = append(events, fmt.Sprint(e.Key, e.Revision, e.Resource != nil))
		}
		if errors.Is(err, store.ErrCompacted) {
			break
		}
		if errors.Is(err, store.ErrUnavailable) {
			outages++
		} else if err != nil {
			t.Fatal(err)
		}
	}
	if got := strings.Join(events, " "); got != "Tier(t)9true Tier(t)10false" || w.Revision() != "10" || outages > 1 {
		t.Errorf("events %s up to %s, %d outages", got, w.Revision(), outages)
	}
}
