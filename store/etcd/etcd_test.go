package etcd_test

import (
	"context"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"

	v3 "margay/api/v3"
	"margay/store"
	"margay/store/embed"
	"margay/store/etcd"
	"margay/store/storetest"
)

const prefix = "/calico/resources/v3/projectcalico.org/"

// path returns the etcd key of an object, from what the tests know of the layout.
func path(key v3.Key) string {
	info, _ := v3.Lookup(key.Kind)
	if key.Namespace != "" {
		return prefix + info.Plural + "/" + key.Namespace + "/" + key.Name
	}
	return prefix + info.Plural + "/" + key.Name
}

func startServer(t testing.TB) (endpoint string) {
	t.Helper()
	server, err := embed.Start(t.Context(), embed.Config{Dir: filepath.Join(t.TempDir(), "store"), Listen: []string{"127.0.0.1:0"}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { server.Close() })
	return "http://" + server.Addrs()[0].String()
}

func rawClient(t testing.TB, endpoint string) *clientv3.Client {
	t.Helper()
	client, err := clientv3.New(clientv3.Config{Endpoints: []string{endpoint}, Logger: zap.NewNop()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { client.Close() })
	return client
}

func openStore(t testing.TB, cfg etcd.Config) *etcd.Store {
	t.Helper()
	s, err := etcd.Open(context.Background(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func backend(endpoint string, client *clientv3.Client) storetest.Backend {
	return storetest.Backend{
		Open: func(t testing.TB) store.Store { return openStore(t, etcd.Config{Endpoints: []string{endpoint}}) },
		Put: func(t testing.TB, key v3.Key, value []byte) {
			if _, err := client.Put(context.Background(), path(key), string(value)); err != nil {
				t.Fatal(err)
			}
		},
		Compact: func(t testing.TB, at store.Revision) {
			revision, err := strconv.ParseInt(string(at), 10, 64)
			if err != nil {
				t.Fatal(err)
			}
			if _, err := client.Compact(context.Background(), revision, clientv3.WithCompactPhysical()); err != nil {
				t.Fatal(err)
			}
		},
	}
}

func TestStore(t *testing.T) {
	storetest.Run(t, func(t *testing.T) storetest.Backend {
		endpoint := startServer(t)
		return backend(endpoint, rawClient(t, endpoint))
	})
}

// TestForeignKeys: what is not of a kind that is asked for is not told, but moves the revision on.
func TestForeignKeys(t *testing.T) {
	endpoint := startServer(t)
	client := rawClient(t, endpoint)
	s := openStore(t, etcd.Config{Endpoints: []string{endpoint}})
	defer s.Close()
	ctx := t.Context()
	w := s.Watch(ctx, "1", v3.KindTier, v3.KindNetworkSet)
	defer w.Close()
	if events, err := w.Next(ctx); len(events) > 0 || err != nil {
		t.Fatal(events, err)
	}
	for _, key := range []string{
		prefix + "unknowns/a", prefix + "tiers", prefix + "tiers/a/b", prefix + "networksets/a", prefix + "nodes/n",
		"/calico/ipam/v2/config", "/registry/x",
	} {
		resp, err := client.Put(ctx, key, "x")
		if err != nil {
			t.Fatal(err)
		}
		for under := len(key) > len(prefix) && key[:len(prefix)] == prefix; under; {
			events, err := w.Next(ctx)
			if len(events) > 0 || err != nil {
				t.Fatalf("%s: %v, %v", key, events, err)
			}
			if w.Revision() == store.Revision(strconv.FormatInt(resp.Header.Revision, 10)) {
				break
			}
		}
	}
	list, err := s.List(ctx, "", v3.KindTier, v3.KindNetworkSet)
	if err != nil || len(list.Items)+len(list.Faults) > 0 {
		t.Errorf("list: %+v, %v", list, err)
	}
}

// TestFragments catches up on more than fits into one message of the server.
func TestFragments(t *testing.T) {
	endpoint := startServer(t)
	client := rawClient(t, endpoint)
	s := openStore(t, etcd.Config{Endpoints: []string{endpoint}})
	defer s.Close()
	const n = 12
	filler := strings.Repeat("x", 1<<20)
	var last int64
	for range n {
		value := `{"kind":"Tier","apiVersion":"projectcalico.org/v3","metadata":{"name":"t","annotations":{"a":"` + filler + `"}},"spec":{"order":1}}`
		resp, err := client.Put(t.Context(), prefix+"tiers/t", value)
		if err != nil {
			t.Fatal(err)
		}
		last = resp.Header.Revision
	}
	w := s.Watch(t.Context(), "1", v3.KindTier)
	defer w.Close()
	var seen int
	for seen < n {
		events, err := w.Next(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range events {
			if e.Resource == nil || len(e.Resource.GetAnnotations()["a"]) != len(filler) {
				t.Fatalf("event %d: %v", seen, e.Fault)
			}
			seen++
		}
	}
	if want := strconv.FormatInt(last, 10); seen != n || string(w.Revision()) != want {
		t.Errorf("%d events up to revision %s, want %d up to %s", seen, w.Revision(), n, want)
	}
}

// TestProgress: a watch keeps up with a store in which only other things change, so that its revision is not compacted
// away.
func TestProgress(t *testing.T) {
	t.Parallel()
	endpoint := startServer(t)
	s := openStore(t, etcd.Config{Endpoints: []string{endpoint}})
	defer s.Close()
	w := s.Watch(t.Context(), "1", v3.KindTier)
	defer w.Close()
	if _, err := w.Next(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := s.ReportStatus(t.Context(), store.NodeStatus{Node: "n"}); err != nil {
		t.Fatal(err)
	}
	list, err := s.List(t.Context(), "", v3.KindTier)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	for w.Revision() != list.Revision {
		if events, err := w.Next(ctx); err != nil || len(events) > 0 {
			t.Fatalf("at %s of %s: %v, %v", w.Revision(), list.Revision, events, err)
		}
	}
}
