package ctl

import (
	"bytes"
	"context"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	v3 "margay/api/v3"
	"margay/store"
	"margay/store/embed"
)

// A screen is what a command prints, as somebody else reads it.
type screen struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (s *screen) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.text.Write(p)
}

func (s *screen) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.text.String()
}

// shows waits until the screen shows exactly that, and clears it.
func (s *screen) shows(t *testing.T, want string) {
	t.Helper()
	for deadline := time.Now().Add(10 * time.Second); s.String() != want; time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("screen shows\n%swant\n%s", s, want)
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.text.Reset()
}

// watching runs get --watch until the test ends.
func watching(t *testing.T, s store.Store, args ...string) (out, errs *screen) {
	t.Helper()
	out, errs = &screen{}, &screen{}
	root := NewCommand(Env{
		Name: "calicoctl", Stdout: out, Stderr: errs, Getenv: func(name string) string {
			return map[string]string{"ETCD_ENDPOINTS": "http://127.0.0.1:1"}[name]
		},
		OpenStore: func(context.Context, StoreConfig) (store.Store, error) { return unclosed{s}, nil },
	})
	root.SetArgs(append([]string{"get", "--watch"}, args...))
	ctx, stop := context.WithCancel(t.Context())
	ended := make(chan int, 1)
	go func() { ended <- Execute(ctx, root) }()
	t.Cleanup(func() {
		stop()
		if code := <-ended; code != 0 {
			t.Errorf("exit code %d: %s", code, errs)
		}
	})
	return out, errs
}

// An unclosed store belongs to the test.
type unclosed struct{ store.Store }

func (unclosed) Close() error { return nil }

func TestGetWatch(t *testing.T) {
	server, err := embed.Start(t.Context(), embed.Config{Dir: filepath.Join(t.TempDir(), "store"), Listen: []string{}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = server.Close() })
	s := server.Store()
	ctx := t.Context()
	write := func(writes ...store.Write) store.Result {
		t.Helper()
		results := s.WriteAll(ctx, store.Commit, writes)
		for _, r := range results {
			if r.Err != nil {
				t.Fatal(r.Err)
			}
		}
		return results[len(results)-1]
	}
	sets := decoded(t, `
- {apiVersion: projectcalico.org/v3, kind: GlobalNetworkSet, metadata: {name: b}, spec: {nets: [10.0.0.0/8]}}
- {apiVersion: projectcalico.org/v3, kind: GlobalNetworkSet, metadata: {name: a}}
- {apiVersion: projectcalico.org/v3, kind: GlobalNetworkSet, metadata: {name: a-longer-name}}
- {apiVersion: projectcalico.org/v3, kind: NetworkSet, metadata: {name: ns, namespace: blue}}
`)
	write(store.Write{Resource: sets[0]}, store.Write{Resource: sets[1]}, store.Write{Resource: sets[3]})

	table, _ := watching(t, s, "gns", "-o", "wide")
	one, _ := watching(t, s, "gns", "b", "-o", "json")
	blue, _ := watching(t, s, "netsets", "-n", "blue")
	red, _ := watching(t, s, "netsets", "-n", "red", "-o", "yaml")
	table.shows(t, "EVENT   NAME   NETS         \nADDED   a                   \nADDED   b      10.0.0.0/8   \n")
	blue.shows(t, "EVENT   NAMESPACE   NAME   \nADDED   blue        ns     \n")
	for one.String() == "" {
		time.Sleep(time.Millisecond)
	}
	if got := one.String(); !strings.HasPrefix(got, `{"type":"ADDED","object":{"kind":"GlobalNetworkSet"`) || strings.Count(got, "\n") != 1 {
		t.Errorf("one event in JSON is %s", got)
	}

	write(store.Write{Resource: sets[2]})
	table.shows(t, "ADDED   a-longer-name                \n")
	b, err := s.Get(ctx, v3.KeyOf(sets[0]))
	if err != nil {
		t.Fatal(err)
	}
	b.SetLabels(map[string]string{"x": "y"})
	write(store.Write{Op: store.Update, Resource: b})
	table.shows(t, "MODIFIED   b               10.0.0.0/8   \n")
	write(store.Write{Op: store.Delete, Resource: sets[1]})
	table.shows(t, "DELETED    a                            \n")
	write(store.Write{Op: store.Delete, Resource: sets[3]})
	blue.shows(t, "DELETED   blue        ns     \n")
	if got := red.String(); got != "" {
		t.Errorf("another namespace's watch shows %s", got)
	}
	if got := strings.Count(one.String(), "\n"); got != 2 {
		t.Errorf("the watch of one object shows\n%s", one)
	}
}

// TestGetWatchAway ends when there is no store from the beginning.
func TestGetWatchAway(t *testing.T) {
	var out, errs bytes.Buffer
	root := NewCommand(Env{
		Name: "calicoctl", Stdout: &out, Stderr: &errs, Getenv: func(string) string { return "" }, ConfigFile: "none", Socket: "none",
	})
	root.SetArgs([]string{"get", "gns", "--watch", "--export"})
	if code := Execute(t.Context(), root); code != 1 || !strings.Contains(errs.String(), "both --watch and --export") {
		t.Errorf("exit %d: %s%s", code, &out, &errs)
	}
}
