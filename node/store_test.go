package node

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"slices"
	"strconv"
	"sync"
	"testing"

	v3 "margay/api/v3"
	"margay/store"
)

// A memoryStore keeps its whole history in memory. Tests break, compact and cut it off at will.
type memoryStore struct {
	store.Store // nil: a method that the agent has no business to call panics

	mu       sync.Mutex
	changed  chan struct{} // closed and replaced at every change
	history  []store.Event // index i has revision i+1
	first    int           // revisions before it are compacted
	down     error         // nil: reachable
	statuses []store.NodeStatus
	closed   bool
	caughtUp int // events that the last watcher to wait has taken in
}

func newMemoryStore() *memoryStore { return &memoryStore{changed: make(chan struct{})} }

func (s *memoryStore) wake() {
	close(s.changed)
	s.changed = make(chan struct{})
}

// add appends a version; the event's revision and the resource's are set.
func (s *memoryStore) add(e store.Event) store.Revision {
	e.Revision = store.Revision(strconv.Itoa(len(s.history) + 1))
	if e.Resource != nil {
		e.Resource = clone(e.Resource)
		e.Resource.SetResourceVersion(string(e.Revision))
	}
	if e.Fault != nil {
		e.Fault.Key, e.Fault.Revision = e.Key, e.Revision
	}
	s.history = append(s.history, e)
	s.wake()
	return e.Revision
}

func clone(r v3.Resource) v3.Resource {
	data, err := json.Marshal(r)
	if err != nil {
		panic(err)
	}
	info, _ := v3.Lookup(v3.KeyOf(r).Kind)
	c := info.New()
	if err := json.Unmarshal(data, c); err != nil {
		panic(err)
	}
	return c
}

// put stores a resource, whatever was there before.
func (s *memoryStore) put(r v3.Resource) store.Revision {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.add(store.Event{Key: v3.KeyOf(r), Resource: r})
}

// spoil stores a value that does not decode.
func (s *memoryStore) spoil(key v3.Key, value string) store.Revision {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.add(store.Event{Key: key, Fault: &store.Fault{Value: []byte(value), Err: errors.New("does not decode")}})
}

func (s *memoryStore) remove(key v3.Key) store.Revision {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.add(store.Event{Key: key})
}

// compact forgets everything before the current state.
func (s *memoryStore) compact() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.first = len(s.history)
	s.wake()
}

// cut makes every operation fail with err, nil undoes it.
func (s *memoryStore) cut(err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.down = err
	s.wake()
}

// followed reports whether a watcher has taken in everything and waits for more.
func (s *memoryStore) followed() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.caughtUp == len(s.history)
}

func (s *memoryStore) latest(key v3.Key, before int) (store.Event, bool) {
	for i := min(before-1, len(s.history)) - 1; i >= 0; i-- {
		if s.history[i].Key == key {
			return s.history[i], true
		}
	}
	return store.Event{}, false
}

func (s *memoryStore) Get(_ context.Context, key v3.Key) (v3.Resource, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	e, ok := s.latest(key, len(s.history)+1)
	switch {
	case s.down != nil:
		return nil, s.down
	case !ok || e.Resource == nil && e.Fault == nil:
		return nil, &store.Error{Key: key, Err: store.ErrNotFound}
	case e.Fault != nil:
		return nil, e.Fault
	}
	return clone(e.Resource), nil
}

func (s *memoryStore) List(_ context.Context, _ string, kinds ...v3.Kind) (*store.List, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.down != nil {
		return nil, s.down
	}
	last := map[v3.Key]store.Event{}
	for _, e := range s.history {
		last[e.Key] = e
	}
	list := &store.List{Revision: store.Revision(strconv.Itoa(len(s.history)))}
	for _, e := range last {
		switch {
		case !slices.Contains(kinds, e.Key.Kind):
		case e.Fault != nil:
			list.Faults = append(list.Faults, *e.Fault)
		case e.Resource != nil:
			list.Items = append(list.Items, clone(e.Resource))
		}
	}
	slices.SortFunc(list.Items, func(a, b v3.Resource) int {
		ka, kb := v3.KeyOf(a), v3.KeyOf(b)
		return cmp.Or(cmp.Compare(slices.Index(kinds, ka.Kind), slices.Index(kinds, kb.Kind)), cmp.Compare(ka.String(), kb.String()))
	})
	return list, nil
}

func (s *memoryStore) Watch(_ context.Context, from store.Revision, kinds ...v3.Kind) store.Watcher {
	at, err := strconv.Atoi(string(from))
	if err != nil {
		panic(err)
	}
	return &memoryWatcher{s: s, at: at, kinds: kinds}
}

type memoryWatcher struct {
	s     *memoryStore
	at    int
	kinds []v3.Kind
}

func (w *memoryWatcher) Revision() store.Revision { return store.Revision(strconv.Itoa(w.at)) }
func (w *memoryWatcher) Close()                   {}

func (w *memoryWatcher) Next(ctx context.Context) ([]store.Event, error) {
	for {
		w.s.mu.Lock()
		changed, down := w.s.changed, w.s.down
		var events []store.Event
		if down == nil && w.at < w.s.first-1 {
			down = store.ErrCompacted
		}
		if down == nil && w.at < len(w.s.history) {
			e := w.s.history[w.at]
			w.at++
			if slices.Contains(w.kinds, e.Key.Kind) {
				events = append(events, e)
			}
			w.s.mu.Unlock()
			return events, nil
		}
		w.s.caughtUp = w.at
		w.s.mu.Unlock()
		if down != nil {
			return nil, down
		}
		select {
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-changed:
		}
	}
}

func (s *memoryStore) Create(_ context.Context, r v3.Resource) (v3.Resource, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.down != nil {
		return nil, s.down
	}
	if e, ok := s.latest(v3.KeyOf(r), len(s.history)+1); ok && (e.Resource != nil || e.Fault != nil) {
		return nil, &store.Error{Key: v3.KeyOf(r), Err: store.ErrExists}
	}
	s.add(store.Event{Key: v3.KeyOf(r), Resource: r})
	return r, nil
}

func (s *memoryStore) Previous(_ context.Context, key v3.Key, before store.Revision) (v3.Resource, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.down != nil {
		return nil, s.down
	}
	at, err := strconv.Atoi(string(before))
	if err != nil {
		panic(err)
	}
	for {
		e, ok := s.latest(key, at)
		if !ok || e.Resource == nil && e.Fault == nil {
			return nil, &store.Error{Key: key, Err: store.ErrNotFound}
		}
		at, _ = strconv.Atoi(string(e.Revision))
		// Compaction at a revision keeps the version of every object that was current then.
		if last, _ := s.latest(key, s.first+1); at < s.first && last.Revision != e.Revision {
			return nil, &store.Error{Key: key, Err: store.ErrCompacted}
		}
		if e.Resource != nil {
			return clone(e.Resource), nil
		}
	}
}

func (s *memoryStore) Initialise(context.Context) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.down
}

func (s *memoryStore) ReportStatus(_ context.Context, status store.NodeStatus) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.down != nil {
		return s.down
	}
	s.statuses = append(s.statuses, status)
	s.wake()
	return nil
}

func (s *memoryStore) Statuses(context.Context) ([]store.NodeStatus, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.statuses), nil
}

func (s *memoryStore) Close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.closed = true
	return nil
}

// key names a global network policy.
func gnp(name string) v3.Key { return v3.Key{Kind: v3.KindGlobalNetworkPolicy, Name: name} }

// object returns a resource from JSON without kind and apiVersion.
func object(t *testing.T, kind v3.Kind, text string) v3.Resource {
	t.Helper()
	info, ok := v3.Lookup(kind)
	if !ok {
		t.Fatalf("kind %s is unknown", kind)
	}
	r := info.New()
	if err := json.Unmarshal([]byte(text), r); err != nil {
		t.Fatalf("%s %s: %v", kind, text, err)
	}
	return r
}
