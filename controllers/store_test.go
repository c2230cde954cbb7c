package controllers

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	v3 "margay/api/v3"
	"margay/store"
)

// A memoryStore keeps its whole history in memory and obeys the rules of all stores about writing. Tests cut it off,
// compact it and spoil its values at will.
type memoryStore struct {
	store.Store // nil: a method that the controllers have no business to call panics

	mu      sync.Mutex
	changed chan struct{} // closed and replaced at every change
	history []store.Event // index i has revision i+1
	current map[v3.Key]store.Event
	first   int // revisions before it are compacted
	down    error
	hasty   func() // called within every write, before it is done
	writes  int    // that came through WriteAll, Create and Update
}

func newMemoryStore(resources ...v3.Resource) *memoryStore {
	s := &memoryStore{changed: make(chan struct{}), current: map[v3.Key]store.Event{}}
	for _, r := range resources {
		s.put(r)
	}
	return s
}

// add appends a version.
func (s *memoryStore) add(e store.Event) store.Event {
	e.Revision = store.Revision(strconv.Itoa(len(s.history) + 1))
	if e.Resource != nil {
		e.Resource = clone(e.Resource)
		e.Resource.SetResourceVersion(string(e.Revision))
	}
	if e.Fault != nil {
		e.Fault = &store.Fault{Key: e.Key, Revision: e.Revision, Err: e.Fault.Err}
	}
	s.history = append(s.history, e)
	if s.current[e.Key] = e; e.Resource == nil && e.Fault == nil {
		delete(s.current, e.Key)
	}
	s.wake()
	return e
}

func (s *memoryStore) wake() {
	close(s.changed)
	s.changed = make(chan struct{})
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
func (s *memoryStore) put(r v3.Resource) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.add(store.Event{Key: v3.KeyOf(r), Resource: r})
}

func (s *memoryStore) spoil(key v3.Key) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.add(store.Event{Key: key, Fault: &store.Fault{Err: errors.New("does not decode")}})
}

func (s *memoryStore) remove(key v3.Key) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, ok := s.current[key]; ok {
		s.add(store.Event{Key: key})
	}
}

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

// contents returns what is stored, as text by key: what people see and decide, without revisions and identities.
func (s *memoryStore) contents() map[v3.Key]string {
	s.mu.Lock()
	defer s.mu.Unlock()
	all := map[v3.Key]string{}
	for key, e := range s.current {
		if e.Fault != nil {
			all[key] = "unreadable"
			continue
		}
		data, _ := json.Marshal(content(e.Resource))
		all[key] = string(data)
	}
	return all
}

func (s *memoryStore) Get(_ context.Context, key v3.Key) (v3.Resource, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	e, ok := s.current[key]
	switch {
	case s.down != nil:
		return nil, s.down
	case !ok:
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
	list := &store.List{Revision: store.Revision(strconv.Itoa(len(s.history)))}
	for _, key := range slices.SortedFunc(maps.Keys(s.current), func(a, b v3.Key) int {
		return cmp.Or(cmp.Compare(slices.Index(kinds, a.Kind), slices.Index(kinds, b.Kind)), compareKeys(a, b))
	}) {
		switch e := s.current[key]; {
		case !slices.Contains(kinds, key.Kind):
		case e.Fault != nil:
			list.Faults = append(list.Faults, *e.Fault)
		default:
			list.Items = append(list.Items, clone(e.Resource))
		}
	}
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
		if down == nil && w.at < w.s.first-1 {
			down = store.ErrCompacted
		}
		if down == nil && w.at < len(w.s.history) {
			e := w.s.history[w.at]
			w.at++
			w.s.mu.Unlock()
			if !slices.Contains(w.kinds, e.Key.Kind) {
				return nil, nil
			}
			return []store.Event{e}, nil
		}
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

func (s *memoryStore) WriteAll(ctx context.Context, _ store.Mode, writes []store.Write) []store.Result {
	results := make([]store.Result, len(writes))
	for i, w := range writes {
		if s.hasty != nil {
			s.hasty()
		}
		s.mu.Lock()
		s.writes++
		if results[i].Err = cmp.Or(s.down, ctx.Err()); results[i].Err == nil {
			var e store.Event
			e, results[i].Err = s.write(w)
			results[i].Resource, results[i].Revision = e.Resource, e.Revision
		}
		s.mu.Unlock()
	}
	return results
}

func (s *memoryStore) write(w store.Write) (store.Event, error) {
	key := v3.KeyOf(w.Resource)
	have, exists := s.current[key]
	given := store.Revision(w.Resource.GetResourceVersion())
	switch {
	case w.Op == store.Create && exists:
		return store.Event{}, &store.Error{Key: key, Err: store.ErrExists}
	case w.Op != store.Create && !exists:
		return store.Event{}, &store.Error{Key: key, Err: store.ErrNotFound}
	case w.Op != store.Create && given != have.Revision:
		return store.Event{}, &store.Error{Key: key, Err: store.ErrConflict}
	}
	var r v3.Resource
	var err error
	switch w.Op {
	case store.Create:
		r, err = store.PrepareCreate(w.Resource, time.Now())
	case store.Update:
		var data []byte
		if have.Resource != nil {
			data, _ = v3.Encode(have.Resource)
		}
		r, err = store.PrepareUpdate(w.Resource, data, time.Now())
	case store.Delete:
		s.cascade(key)
		return s.add(store.Event{Key: key}), nil
	}
	if err != nil {
		return store.Event{}, err
	}
	return s.add(store.Event{Key: key, Resource: r}), nil
}

// cascade deletes what goes with a Node.
func (s *memoryStore) cascade(node v3.Key) {
	if node.Kind != v3.KindNode {
		return
	}
	for key, e := range s.current {
		if e.Resource != nil && slices.Contains(store.NodeKinds(), key.Kind) {
			if data, _ := v3.Encode(e.Resource); store.OfNode(node.Name, key, data) {
				s.add(store.Event{Key: key})
			}
		}
	}
}

func (s *memoryStore) one(ctx context.Context, w store.Write) (v3.Resource, error) {
	r := s.WriteAll(ctx, store.Commit, []store.Write{w})[0]
	if r.Err != nil {
		return nil, r.Err
	}
	return clone(r.Resource), nil
}

func (s *memoryStore) Create(ctx context.Context, r v3.Resource) (v3.Resource, error) {
	return s.one(ctx, store.Write{Op: store.Create, Resource: r})
}

func (s *memoryStore) Update(ctx context.Context, r v3.Resource) (v3.Resource, error) {
	return s.one(ctx, store.Write{Op: store.Update, Resource: r})
}

func (s *memoryStore) Initialise(context.Context) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.down
}

func (s *memoryStore) Close() error { return nil }

func (s *memoryStore) Reached(r, goal store.Revision) bool {
	a, _ := strconv.Atoi(string(r))
	b, _ := strconv.Atoi(string(goal))
	return a >= b
}

// get returns a stored object, nil if there is none.
func get[T any](s *memoryStore, key v3.Key) *T {
	s.mu.Lock()
	defer s.mu.Unlock()
	var r any = s.current[key].Resource
	have, _ := r.(*T)
	return have
}

var errDown = fmt.Errorf("%w: cut off", store.ErrUnavailable)

// denies is a store that hides some kinds from lists, and answers when asked for one object.
type denies struct {
	*memoryStore
	kinds []v3.Kind
	hide  atomic.Bool
	asked atomic.Int32
}

func (s *denies) List(ctx context.Context, namespace string, kinds ...v3.Kind) (*store.List, error) {
	list, err := s.memoryStore.List(ctx, namespace, kinds...)
	if err == nil && s.hide.Load() {
		list.Items = slices.DeleteFunc(list.Items, func(r v3.Resource) bool { return slices.Contains(s.kinds, v3.KeyOf(r).Kind) })
	}
	return list, err
}

func (s *denies) Get(ctx context.Context, key v3.Key) (v3.Resource, error) {
	s.asked.Add(1)
	return s.memoryStore.Get(ctx, key)
}
