package typha

import (
	"context"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
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

// TestStore runs the suite of all stores with everything that a client reads, and what agents write, going through
// typha, which follows every kind for this. Other writes go to the store itself; before a read the test waits until typha
// has seen them.
func TestStore(t *testing.T) {
	storetest.Run(t, func(t *testing.T) storetest.Backend {
		server, err := embed.Start(t.Context(), embed.Config{Dir: filepath.Join(t.TempDir(), "store"), Listen: []string{"127.0.0.1:0"}})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { server.Close() })
		endpoint := "http://" + server.Addrs()[0].String()
		raw, err := clientv3.New(clientv3.Config{Endpoints: []string{endpoint}, Logger: zap.NewNop()})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { raw.Close() })
		direct := func(t testing.TB) store.Store {
			s, err := etcd.Open(context.Background(), etcd.Config{Endpoints: []string{endpoint}})
			if err != nil {
				t.Fatal(err)
			}
			return s
		}
		own := direct(t)
		t.Cleanup(func() { own.Close() })
		fan := startServer(t, own, ServerConfig{Kinds: allKinds()})
		var clients []*Client
		return storetest.Backend{
			Open: func(t testing.TB) store.Store {
				c := fan.client(t, "n")
				clients = append(clients, c)
				return &through{c, direct(t), fan}
			},
			Put: func(t testing.TB, key v3.Key, value []byte) {
				if _, err := raw.Put(context.Background(), etcdPath(key), string(value)); err != nil {
					t.Fatal(err)
				}
			},
			Compact: func(t testing.TB, at store.Revision) {
				revision, err := strconv.ParseInt(string(at), 10, 64)
				if err != nil {
					t.Fatal(err)
				}
				if _, err := raw.Compact(context.Background(), revision, clientv3.WithCompactPhysical()); err != nil {
					t.Fatal(err)
				}
				fan.forget(t, at)
				for _, c := range clients {
					c.breakParked() // what has arrived there is not gone
				}
			},
		}
	})
}

func allKinds() []v3.Kind {
	var kinds []v3.Kind
	for _, info := range v3.Kinds() {
		kinds = append(kinds, info.Kind)
	}
	return kinds
}

func etcdPath(key v3.Key) string {
	info, _ := v3.Lookup(key.Kind)
	parts := []string{"/calico/resources/v3/projectcalico.org", info.Plural}
	if key.Namespace != "" {
		parts = append(parts, key.Namespace)
	}
	return strings.Join(append(parts, key.Name), "/")
}

// forget drops the history before a revision, as if that many changes had come since.
func (f *running) forget(t testing.TB, at store.Revision) {
	c := f.server.cache
	eventually(t, "typha is at revision "+string(at), func() bool {
		c.mu.Lock()
		defer c.mu.Unlock()
		return c.store.Reached(c.trail.tip.revision, at)
	})
	c.mu.Lock()
	defer c.mu.Unlock()
	for len(c.trail.held) > 1 && !c.store.Reached(c.trail.held[0].revision, at) {
		c.trail.drop()
	}
	c.oldest.Store(c.trail.held[0].seq)
}

// breakParked breaks the connection that waits for the watch after a list.
func (c *Client) breakParked() {
	c.mu.Lock()
	defer c.mu.Unlock()
	for s := range c.sessions {
		if s.unpark() != nil {
			_ = s.conn.Close()
		}
	}
}

// through is a client of typha for what agents do, and the store itself for the rest.
type through struct {
	*Client
	direct store.Store
	fan    *running
}

// await waits until typha has seen what is written.
func (s *through) await(ctx context.Context) error {
	goal, err := s.direct.LastChange(ctx, s.fan.server.cfg.Kinds...)
	if err != nil {
		return err
	}
	for {
		c := s.fan.server.cache
		c.mu.Lock()
		tip := c.trail.tip
		c.mu.Unlock()
		if s.direct.Reached(tip.revision, goal) {
			return nil
		}
		select {
		case <-tip.ready:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

func (s *through) Get(ctx context.Context, key v3.Key) (v3.Resource, error) {
	if ctx.Err() == nil {
		if err := s.await(ctx); err != nil {
			return nil, err
		}
	}
	return s.Client.Get(ctx, key)
}

func (s *through) List(ctx context.Context, namespace string, kinds ...v3.Kind) (*store.List, error) {
	if ctx.Err() == nil {
		if err := s.await(ctx); err != nil {
			return nil, err
		}
	}
	return s.Client.List(ctx, namespace, kinds...)
}

func (s *through) Create(ctx context.Context, r v3.Resource) (v3.Resource, error) {
	if v3.KeyOf(r) == (v3.Key{Kind: v3.KindNode, Name: "n"}) && r.GetResourceVersion() == "" {
		return s.Client.Create(ctx, r)
	}
	return s.direct.Create(ctx, r)
}

func (s *through) Update(ctx context.Context, r v3.Resource) (v3.Resource, error) {
	return s.direct.Update(ctx, r)
}

func (s *through) Delete(ctx context.Context, key v3.Key, revision store.Revision) (v3.Resource, error) {
	return s.direct.Delete(ctx, key, revision)
}

func (s *through) Inspect(ctx context.Context, key v3.Key) (v3.Resource, v3.Unknown, error) {
	return s.direct.Inspect(ctx, key)
}

func (s *through) WriteAll(ctx context.Context, mode store.Mode, writes []store.Write) []store.Result {
	return s.direct.WriteAll(ctx, mode, writes)
}

func (s *through) LastChange(ctx context.Context, kinds ...v3.Kind) (store.Revision, error) {
	return s.direct.LastChange(ctx, kinds...)
}

func (s *through) ReportStatus(ctx context.Context, status store.NodeStatus) error {
	if status.Node == "n" {
		return s.Client.ReportStatus(ctx, status)
	}
	return s.direct.ReportStatus(ctx, status)
}

func (s *through) ReportEndpoints(ctx context.Context, node string, states map[v3.Key]store.EndpointState) error {
	return s.direct.(store.EndpointReporter).ReportEndpoints(ctx, node, states)
}

func (s *through) EndpointStatuses(ctx context.Context) ([]store.EndpointStatus, error) {
	return s.direct.(store.EndpointReporter).EndpointStatuses(ctx)
}

func (s *through) Statuses(ctx context.Context) ([]store.NodeStatus, error) {
	return s.direct.Statuses(ctx)
}

func (s *through) Close() error {
	if err := s.direct.Close(); err != nil {
		return err
	}
	return s.Client.Close()
}

// A memory is a store in memory. It keeps its whole history; tests break it, compact it and take it back.
type memory struct {
	store.Store // nil: what typha has no business to call panics

	mu       sync.Mutex
	changed  chan struct{} // closed and replaced at every change
	base     int           // revision before the first of the history
	history  []store.Event
	first    int // revisions up to it are compacted
	down     error
	created  []v3.Key
	statuses []store.NodeStatus
	states   map[v3.Key]store.EndpointState
	lists    int
	watches  int
}

func newMemory() *memory { return &memory{changed: make(chan struct{})} }

func (m *memory) wake() {
	close(m.changed)
	m.changed = make(chan struct{})
}

// add appends a change and returns its revision.
func (m *memory) add(e store.Event) store.Revision {
	m.mu.Lock()
	defer m.mu.Unlock()
	e.Revision = store.Revision(strconv.Itoa(m.base + len(m.history) + 1))
	if e.Resource != nil {
		e.Resource.SetResourceVersion(string(e.Revision))
	}
	if e.Fault != nil {
		e.Fault.Key, e.Fault.Revision = e.Key, e.Revision
	}
	m.history = append(m.history, e)
	m.wake()
	return e.Revision
}

func (m *memory) put(r v3.Resource) store.Revision {
	return m.add(store.Event{Key: v3.KeyOf(r), Resource: r})
}

func (m *memory) remove(key v3.Key) store.Revision { return m.add(store.Event{Key: key}) }

func (m *memory) setDown(err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.down = err
	m.wake()
}

func (m *memory) now() store.Revision { return store.Revision(strconv.Itoa(m.base + len(m.history))) }

// state returns the last event of every object that exists, and the revision.
func (m *memory) state() (map[v3.Key]store.Event, store.Revision) {
	m.mu.Lock()
	defer m.mu.Unlock()
	state := map[v3.Key]store.Event{}
	for _, e := range m.history {
		if e.Resource == nil && e.Fault == nil {
			delete(state, e.Key)
		} else {
			state[e.Key] = e
		}
	}
	return state, m.now()
}

func (m *memory) List(ctx context.Context, _ string, _ ...v3.Kind) (*store.List, error) {
	m.mu.Lock()
	down := m.down
	m.lists++
	m.mu.Unlock()
	if down != nil {
		return nil, down
	}
	state, at := m.state()
	list := &store.List{Revision: at}
	for _, e := range state {
		if e.Fault != nil {
			list.Faults = append(list.Faults, *e.Fault)
		} else {
			list.Items = append(list.Items, e.Resource)
		}
	}
	sortList(list, v3.AgentKinds())
	return list, nil
}

func (m *memory) Watch(_ context.Context, from store.Revision, _ ...v3.Kind) store.Watcher {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.watches++
	n, _ := strconv.Atoi(string(from))
	return &memoryWatch{m, n}
}

type memoryWatch struct {
	m  *memory
	at int
}

func (w *memoryWatch) Next(ctx context.Context) ([]store.Event, error) {
	for {
		w.m.mu.Lock()
		changed, down := w.m.changed, w.m.down
		skip := w.at - w.m.base
		var events []store.Event
		gone := skip < w.m.first || skip > len(w.m.history)
		if !gone {
			events = slices.Clone(w.m.history[skip:])
		}
		w.m.mu.Unlock()
		switch {
		case down != nil:
			return nil, down
		case gone:
			return nil, &store.Error{Err: store.ErrCompacted}
		case len(events) > 0:
			w.at += len(events)
			return events, nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

func (w *memoryWatch) Revision() store.Revision { return store.Revision(strconv.Itoa(w.at)) }

func (w *memoryWatch) Close() {}

func (m *memory) Reached(r, goal store.Revision) bool {
	n, _ := strconv.Atoi(string(r))
	g, _ := strconv.Atoi(string(goal))
	return n >= g
}

func (m *memory) Initialise(context.Context) error { return nil }

func (m *memory) Create(_ context.Context, r v3.Resource) (v3.Resource, error) {
	m.put(r)
	m.mu.Lock()
	defer m.mu.Unlock()
	m.created = append(m.created, v3.KeyOf(r))
	return r, nil
}

func (m *memory) ReportStatus(_ context.Context, s store.NodeStatus) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.statuses = append(m.statuses, s)
	return nil
}

func (m *memory) ReportEndpoints(_ context.Context, _ string, states map[v3.Key]store.EndpointState) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.states = states
	return nil
}

func (m *memory) EndpointStatuses(context.Context) ([]store.EndpointStatus, error) { return nil, nil }

// HostPods answers with one pod of the node.
func (m *memory) HostPods(_ context.Context, node string) ([]v3.HostPod, error) {
	return []v3.HostPod{{Namespace: "kube-system", Name: "proxy", Node: node, Labels: map[string]string{"app": "proxy"}}}, nil
}

// set returns a GlobalNetworkSet, the simplest object there is.
func set(name string, nets ...string) *v3.GlobalNetworkSet {
	info, _ := v3.Lookup(v3.KindGlobalNetworkSet)
	s := info.New().(*v3.GlobalNetworkSet)
	s.Name = name
	s.Spec.Nets = nets
	return s
}

func eventually(t testing.TB, what string, holds func() bool) {
	t.Helper()
	for deadline := time.Now().Add(20 * time.Second); !holds(); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("waited in vain: %s", what)
		}
	}
}
