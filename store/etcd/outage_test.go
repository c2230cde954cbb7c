package etcd_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	v3 "margay/api/v3"
	"margay/store"
	"margay/store/embed"
	"margay/store/etcd"
)

// impatient are times that let a test see an outage soon.
func impatient(endpoints ...string) etcd.Config {
	return etcd.Config{Endpoints: endpoints, Heartbeat: 300 * time.Millisecond, RequestTimeout: time.Second}
}

// patient are times for requests that must succeed, on a loaded machine as well.
func patient(endpoints ...string) etcd.Config {
	return etcd.Config{Endpoints: endpoints, RequestTimeout: time.Minute}
}

// A follower follows network sets and keeps what it is told.
type follower struct {
	mu        sync.Mutex
	state     map[v3.Key]v3.Resource
	revisions []store.Revision // of all events but those of the first snapshot
	at        store.Revision
	err       error // the last batch's
	outages   int   // from a batch without error to one with
}

func follow(t *testing.T, s store.Store) *follower {
	t.Helper()
	f := &follower{state: map[v3.Key]v3.Resource{}}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- store.Follow(ctx, s, []v3.Kind{v3.KindGlobalNetworkSet}, f.deliver) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; !errors.Is(err, context.Canceled) {
			t.Errorf("follow ended with %v", err)
		}
	})
	return f
}

func (f *follower) deliver(b store.Batch) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if b.Err != nil && f.err == nil {
		f.outages++
	}
	first := f.at == ""
	f.err, f.at = b.Err, b.Revision
	for _, e := range b.Events {
		if !first {
			f.revisions = append(f.revisions, e.Revision)
		}
		if e.Resource != nil {
			f.state[e.Key] = e.Resource
		} else {
			delete(f.state, e.Key)
		}
	}
	return nil
}

// holds waits until a condition on the follower holds.
func (f *follower) holds(t *testing.T, what string, holds func() bool) {
	t.Helper()
	for deadline := time.Now().Add(2 * time.Minute); ; time.Sleep(10 * time.Millisecond) {
		f.mu.Lock()
		ok, err := holds(), f.err
		f.mu.Unlock()
		if ok {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("waited in vain: %s (last error: %v)", what, err)
		}
	}
}

// same waits until the follower has what the store has. A change that was given up may still be made.
func (f *follower) same(t *testing.T, s store.Store) {
	t.Helper()
	f.holds(t, "the follower has what the store has", func() bool {
		list, err := s.List(t.Context(), "", v3.KindGlobalNetworkSet)
		if err != nil {
			return false
		}
		want := map[v3.Key]v3.Resource{}
		for _, r := range list.Items {
			want[v3.KeyOf(r)] = r
		}
		return f.err == nil && reflect.DeepEqual(f.state, want)
	})
}

// churn changes network sets until it is stopped, whatever becomes of the server.
func churn(t *testing.T, s store.Store) (stop func()) {
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		for i := 0; ctx.Err() == nil; i++ {
			if err := change(ctx, s, i); err != nil && ctx.Err() == nil && !isPassing(err) {
				t.Error(err)
			}
		}
	}()
	return func() {
		cancel()
		<-done
	}
}

func change(ctx context.Context, s store.Store, i int) error {
	key := v3.Key{Kind: v3.KindGlobalNetworkSet, Name: "churn-" + strconv.Itoa(i%5)}
	r, err := s.Get(ctx, key)
	switch {
	case errors.Is(err, store.ErrNotFound):
		_, err = s.Create(ctx, networkSet(key.Name, i))
	case err == nil && i%7 == 0:
		_, err = s.Delete(ctx, key, "")
	case err == nil:
		r.SetLabels(map[string]string{"n": strconv.Itoa(i)})
		_, err = s.Update(ctx, r)
	}
	return err
}

// isPassing reports whether an error is one that an outage explains: a change may be made without being confirmed.
func isPassing(err error) bool {
	return errors.Is(err, store.ErrUnavailable) || errors.Is(err, store.ErrExists) || errors.Is(err, store.ErrConflict) ||
		errors.Is(err, store.ErrNotFound)
}

func networkSet(name string, n int) v3.Resource {
	info, _ := v3.Lookup(v3.KindGlobalNetworkSet)
	r := info.New()
	r.SetName(name)
	r.SetLabels(map[string]string{"n": strconv.Itoa(n)})
	return r
}

// seesAll compares the revisions that the follower was told of with the history that etcd has.
func (f *follower) seesAll(t *testing.T, endpoint string) {
	t.Helper()
	f.mu.Lock()
	defer f.mu.Unlock()
	first, err := strconv.ParseInt(string(f.revisions[0]), 10, 64)
	if err != nil {
		t.Fatal(err)
	}
	last := f.revisions[len(f.revisions)-1]
	client := rawClient(t, endpoint)
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	var history []store.Revision
	for resp := range client.Watch(ctx, prefix, clientv3.WithPrefix(), clientv3.WithRev(first)) {
		if err := resp.Err(); err != nil {
			t.Fatal(err)
		}
		for _, e := range resp.Events {
			history = append(history, store.Revision(strconv.FormatInt(e.Kv.ModRevision, 10)))
		}
		if slices.Contains(history, last) {
			break
		}
	}
	if history = history[:slices.Index(history, last)+1]; !slices.Equal(history, f.revisions) {
		t.Errorf("the follower was told of %d changes of %d:\n%v\n%v", len(f.revisions), len(history), f.revisions, history)
	}
}

// TestOutages kills, stops and freezes the server while others write. The follower must be told of each change once, in
// order, and of each outage that lasts.
func TestOutages(t *testing.T) {
	server := startProcess(t)
	s := openStore(t, impatient(server.endpoint()))
	defer s.Close()
	writer := openStore(t, impatient(server.endpoint()))
	defer writer.Close()
	f := follow(t, s)
	stop := churn(t, writer)
	progress := func() {
		t.Helper()
		f.mu.Lock()
		before := len(f.revisions)
		f.mu.Unlock()
		f.holds(t, "further changes", func() bool { return f.err == nil && len(f.revisions) > before+10 })
	}
	progress()
	server.kill(t)
	server.start(t)
	progress()
	server.stop(t)
	f.holds(t, "the follower says that the server is gone", func() bool { return f.err != nil })
	server.start(t)
	progress()
	for range 2 {
		server.freeze(t)
		f.holds(t, "the follower says that the server is frozen", func() bool { return f.err != nil })
		server.thaw(t)
		progress()
	}
	f.mu.Lock()
	if f.outages < 3 {
		t.Errorf("the follower says there were %d outages", f.outages)
	}
	f.mu.Unlock()
	stop()
	f.same(t, writer)
	f.seesAll(t, server.endpoint())
}

// TestAnotherStore replaces the store behind an address by one of another history: a watch that went on where it was
// would see nothing, or half.
func TestAnotherStore(t *testing.T) {
	fill := func(endpoint string, from, to int) {
		t.Helper()
		s := openStore(t, patient(endpoint))
		defer s.Close()
		for i := from; i < to; i++ {
			if _, err := s.Create(t.Context(), networkSet(fmt.Sprintf("s%d", i), i)); err != nil {
				t.Fatal(err)
			}
		}
	}
	for _, test := range []struct {
		name    string
		prepare func(t *testing.T, p *process) (replacement string) // a directory
	}{
		{"empty", func(t *testing.T, p *process) string { return t.TempDir() }},
		{"younger, with more changes", func(t *testing.T, p *process) string {
			other := startProcess(t)
			fill(other.endpoint(), 5, 30)
			other.stop(t)
			return other.args.Dir
		}},
		{"older, from a backup", func(t *testing.T, p *process) string {
			p.stop(t)
			backup := t.TempDir()
			if err := os.CopyFS(backup, os.DirFS(p.args.Dir)); err != nil {
				t.Fatal(err)
			}
			p.start(t)
			fill(p.endpoint(), 20, 30)
			return backup
		}},
	} {
		t.Run(test.name, func(t *testing.T) {
			server := startProcess(t)
			fill(server.endpoint(), 0, 10)
			s := openStore(t, impatient(server.endpoint()))
			defer s.Close()
			f := follow(t, s)
			replacement := test.prepare(t, server)
			f.same(t, s)
			server.kill(t)
			server.args.Dir = replacement
			server.start(t)
			fill(server.endpoint(), 40, 42)
			f.same(t, s)
			fill(server.endpoint(), 50, 51)
			f.same(t, s)
		})
	}
}

// TestCluster kills the leader of three members, freezes the next, and then takes away the majority.
func TestCluster(t *testing.T) {
	members, endpoints := startCluster(t)
	s := openStore(t, impatient(endpoints...))
	defer s.Close()
	writer := openStore(t, impatient(endpoints...))
	defer writer.Close()
	ask := rawClient(t, endpoints[0])
	f := follow(t, s)
	stop := churn(t, writer)
	progress := func(what string, changes int) {
		t.Helper()
		f.mu.Lock()
		before := len(f.revisions)
		f.mu.Unlock()
		f.holds(t, what, func() bool { return f.err == nil && len(f.revisions) >= before+changes })
	}
	progress("three members", 10)
	first := leader(t, members, ask)
	first.kill(t)
	progress("the leader was killed", 10)
	first.start(t)
	progress("it is back", 10)
	second := leader(t, members, ask)
	second.freeze(t) // until gRPC gives up its connection, each third request hangs
	progress("the leader is frozen", 2)
	for _, p := range members {
		if p != second {
			p.freeze(t)
			break
		}
	}
	f.holds(t, "the follower says that no majority is there", func() bool { return f.err != nil })
	for _, p := range members {
		p.thaw(t)
	}
	progress("all are back", 10)
	stop()
	f.same(t, writer)
	f.seesAll(t, endpoints[0])
	// One of its members is no store of its own.
	members[0].kill(t)
	if _, err := embed.Start(t.Context(), embed.Config{Dir: members[0].args.Dir, Listen: []string{}}); err == nil ||
		!strings.Contains(err.Error(), "one of 3 members of an etcd cluster") {
		t.Errorf("embedded a member of a cluster: %v", err)
	}
}

// long is what no operation here takes that ends when it should, on a loaded machine either.
const long = 20 * time.Second

// TestUnreachable: every operation ends by its deadline and says who did not answer.
func TestUnreachable(t *testing.T) {
	nobody := "http://" + freeAddress(t)
	frozen := startProcess(t)
	frozen.freeze(t)
	t.Cleanup(func() { frozen.thaw(t) })
	missing := "unix://" + t.TempDir() + "/none.sock"
	for endpoint, why := range map[string]string{
		nobody: "connect: connection refused", frozen.endpoint(): "gave no answer in time", missing: "connect: no such file or directory",
	} {
		for _, password := range []string{"", "secret"} {
			t.Run(endpoint+password, func(t *testing.T) {
				t.Parallel()
				cfg := etcd.Config{Endpoints: []string{endpoint}, RequestTimeout: 10 * long}
				if password != "" {
					cfg.Username, cfg.Password = "user", password
				}
				checkUnreachable(t, cfg, why)
			})
		}
	}
}

func checkUnreachable(t *testing.T, cfg etcd.Config, why string) {
	s := openStore(t, cfg)
	defer s.Close()
	key := v3.Key{Kind: v3.KindTier, Name: "default"}
	w := s.Watch(t.Context(), "", v3.KindTier)
	defer w.Close()
	for name, do := range map[string]func(context.Context) error{
		"get":    func(ctx context.Context) error { _, err := s.Get(ctx, key); return err },
		"list":   func(ctx context.Context) error { _, err := s.List(ctx, "", v3.KindTier); return err },
		"create": func(ctx context.Context) error { _, err := s.Create(ctx, networkSet("a", 1)); return err },
		"init":   func(ctx context.Context) error { return s.Initialise(ctx) },
		"report": func(ctx context.Context) error { return s.ReportStatus(ctx, store.NodeStatus{Node: "n"}) },
		"next":   func(ctx context.Context) error { _, err := w.Next(ctx); return err },
	} {
		begin := time.Now()
		ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
		err := do(ctx)
		cancel()
		late := name == "next" && errors.Is(err, context.DeadlineExceeded) // the caller's own
		if !late && (!errors.Is(err, store.ErrUnavailable) || !strings.Contains(err.Error(), cfg.Endpoints[0])) {
			t.Errorf("%s: %v", name, err)
		}
		if took := time.Since(begin); took > long {
			t.Errorf("%s took %v", name, took)
		}
		if strings.Contains(fmt.Sprint(err), "secret") {
			t.Errorf("%s: the error tells the password: %v", name, err)
		}
	}
	cfg.RequestTimeout = time.Second
	s = openStore(t, cfg)
	defer s.Close()
	begin := time.Now()
	_, err := s.Get(context.Background(), key)
	if !errors.Is(err, store.ErrUnavailable) || time.Since(begin) > long {
		t.Errorf("get without a deadline: after %v: %v", time.Since(begin), err)
	}
	if cfg.Password == "" && !strings.HasSuffix(err.Error(), why) {
		t.Errorf("get: %v, want %s", err, why)
	}
}
