package etcd

import (
	"context"
	"errors"
	"fmt"
	"time"

	"go.etcd.io/etcd/api/v3/mvccpb"
	clientv3 "go.etcd.io/etcd/client/v3"

	v3 "margay/api/v3"
	"margay/store"
)

// Create implements store.Store.
func (s *Store) Create(ctx context.Context, r v3.Resource) (v3.Resource, error) {
	key := v3.KeyOf(r)
	prepared, err := store.PrepareCreate(r, time.Now())
	if err != nil {
		return nil, err
	}
	path, err := pathOf(key)
	if err != nil {
		return nil, err
	}
	w, err := newWrite(prepared, path)
	if err != nil {
		return nil, err
	}
	absent := clientv3.Compare(clientv3.Version(path), "=", 0)
	for range maxAttempts {
		guards, err := s.guards(ctx, prepared)
		if err != nil {
			return nil, err
		}
		current, err := s.put(ctx, w, append(guards, absent))
		switch {
		case err != nil:
			return nil, s.fail(ctx, "create", key, err)
		case w.revision != 0:
			return w.stored, nil
		case len(w.missing) > 0:
			return nil, w.refused()
		case current != nil || len(guards) == 0:
			return nil, &store.Error{Key: key, Err: store.ErrExists, Cause: errHasKey}
		}
	}
	return nil, &store.Error{Key: key, Err: store.ErrConflict, Cause: errors.New("what it depends on keeps changing")}
}

// guards returns what must still hold when an object is created. For an IPPool, that no other has come or changed: it is
// refused if it has addresses in common with one.
func (s *Store) guards(ctx context.Context, r v3.Resource) ([]clientv3.Cmp, error) {
	pool, ok := r.(*v3.IPPool)
	if !ok {
		return nil, nil
	}
	info, _ := v3.Lookup(v3.KindIPPool)
	prefix := prefixOf(info, "")
	ranges, revision, err := s.rangeAll(ctx, []string{prefix})
	if err != nil {
		return nil, s.fail(ctx, "create", v3.KeyOf(r), err)
	}
	for _, kv := range ranges[0] {
		// One that cannot be read has no range that is known.
		other, err := v3.DecodeStored(v3.KindIPPool, kv.Value)
		if err == nil && other.GetName() != pool.Name && pool.Overlaps(other.(*v3.IPPool)) {
			return nil, store.PoolOverlap(pool, other.(*v3.IPPool))
		}
	}
	return []clientv3.Cmp{clientv3.Compare(clientv3.ModRevision(prefix), "<", revision+1).WithPrefix()}, nil
}

// Update implements store.Store.
func (s *Store) Update(ctx context.Context, r v3.Resource) (v3.Resource, error) {
	key := v3.KeyOf(r)
	if err := store.CheckUpdate(r); err != nil {
		return nil, err
	}
	path, err := pathOf(key)
	if err != nil {
		return nil, err
	}
	conflict := &store.Error{Key: key, Err: store.ErrConflict}
	revision, err := parseRevision(store.Revision(r.GetResourceVersion()))
	if err != nil {
		return nil, conflict
	}
	old, err := s.getKV(ctx, path, 0)
	switch {
	case err != nil:
		return nil, s.fail(ctx, "update", key, err)
	case old == nil:
		return nil, &store.Error{Key: key, Err: store.ErrNotFound, Cause: errNoKey}
	case old.ModRevision != revision:
		return nil, conflict
	}
	prepared, err := store.PrepareUpdate(r, old.Value, time.Now())
	if err != nil {
		return nil, err
	}
	w, err := newWrite(prepared, path)
	if err != nil {
		return nil, err
	}
	unchanged := clientv3.Compare(clientv3.ModRevision(path), "=", revision)
	current, err := s.put(ctx, w, []clientv3.Cmp{unchanged})
	switch {
	case err != nil:
		return nil, s.fail(ctx, "update", key, err)
	case w.revision != 0:
		return w.stored, nil
	case len(w.missing) > 0:
		return nil, w.refused()
	case current == nil:
		return nil, &store.Error{Key: key, Err: store.ErrNotFound, Cause: errNoKey}
	}
	return nil, conflict
}

// A write is one object on its way into the store.
type write struct {
	path   string
	value  []byte
	stored v3.Resource // as a reader of value gets it

	needs     []v3.Key // that must exist
	needPaths []string

	revision int64    // of the write; 0: refused
	missing  []v3.Key // of needs, when it was refused
}

// newWrite encodes an object, and makes sure that what is going to be stored can be read.
func newWrite(r v3.Resource, path string) (*write, error) {
	key := v3.KeyOf(r)
	value, err := v3.Encode(r)
	if err != nil {
		return nil, fmt.Errorf("encode %s: %w", key, err)
	}
	stored, fault := decode(key, value, 0)
	if fault != nil {
		return nil, fmt.Errorf("encode %s: what would be stored cannot be read: %w", key, fault.Err)
	}
	w := &write{path: path, value: value, stored: stored, needs: store.Needs(r)}
	for _, need := range w.needs {
		needPath, err := pathOf(need)
		if err != nil {
			return nil, err
		}
		w.needPaths = append(w.needPaths, needPath)
	}
	return w, nil
}

// put stores the value if the conditions hold and what it needs exists. When it does not it returns what is there instead.
func (s *Store) put(ctx context.Context, w *write, conds []clientv3.Cmp) (current *mvccpb.KeyValue, err error) {
	otherwise := []clientv3.Op{clientv3.OpGet(w.path)}
	for _, path := range w.needPaths {
		conds = append(conds, clientv3.Compare(clientv3.Version(path), ">", 0))
		otherwise = append(otherwise, clientv3.OpGet(path, clientv3.WithCountOnly()))
	}
	resp, err := s.commit(ctx, conds, []clientv3.Op{clientv3.OpPut(w.path, string(w.value))}, otherwise)
	if err != nil {
		return nil, err
	}
	if resp.Succeeded {
		w.revision = resp.Header.Revision
		w.stored.SetResourceVersion(string(formatRevision(w.revision)))
		return nil, nil
	}
	w.missing = nil
	for i, need := range w.needs {
		if resp.Responses[i+1].GetResponseRange().Count == 0 {
			w.missing = append(w.missing, need)
		}
	}
	if kvs := resp.Responses[0].GetResponseRange().Kvs; len(kvs) > 0 {
		current = kvs[0]
	}
	return current, nil
}

// refused names what is missing first.
func (w *write) refused() error {
	return &store.Error{Key: w.missing[0], Err: store.ErrNotFound, Cause: errNoKey}
}

// Initialise implements store.Store.
func (s *Store) Initialise(ctx context.Context) error {
	resources, err := store.Initial()
	if err != nil {
		return err
	}
	ops := make([]clientv3.Op, len(resources))
	for i, r := range resources {
		path, err := pathOf(v3.KeyOf(r))
		if err != nil {
			return err
		}
		ops[i] = clientv3.OpGet(path, clientv3.WithCountOnly())
	}
	resp, err := s.commit(ctx, nil, ops, nil)
	if err != nil {
		return s.fail(ctx, "initialise", v3.Key{}, err)
	}
	for i, r := range resources {
		if resp.Responses[i].GetResponseRange().Count > 0 {
			continue
		}
		// Somebody else may initialise at the same time.
		if _, err := s.Create(ctx, r); err != nil && !errors.Is(err, store.ErrExists) {
			return fmt.Errorf("initialise datastore: %w", err)
		}
	}
	return nil
}
