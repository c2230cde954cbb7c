package etcd

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/mvccpb"
	clientv3 "go.etcd.io/etcd/client/v3"

	v3 "margay/api/v3"
	"margay/store"
)

// Create implements store.Store.
func (s *Store) Create(ctx context.Context, r v3.Resource) (v3.Resource, error) {
	w, err := createOf(r)
	if err != nil {
		return nil, err
	}
	return s.create(ctx, w)
}

// createOf prepares the creation of an object.
func createOf(r v3.Resource) (*write, error) {
	prepared, err := store.PrepareCreate(r, time.Now())
	if err != nil {
		return nil, err
	}
	w, err := newWrite(prepared, nil)
	if err != nil {
		return nil, err
	}
	w.conds = []clientv3.Cmp{clientv3.Compare(clientv3.Version(w.path), "=", 0)}
	return w, nil
}

func (s *Store) create(ctx context.Context, w *write) (v3.Resource, error) {
	for range maxAttempts {
		guards, err := s.guards(ctx, w.stored)
		if err != nil {
			return nil, err
		}
		if err := s.put(ctx, w, guards); err != nil {
			return nil, s.fail(ctx, "create", w.key, err)
		}
		if w.done || len(w.missing) > 0 || w.current != nil || len(guards) == 0 {
			return w.result(store.Create)
		}
	}
	return nil, &store.Error{Key: w.key, Err: store.ErrConflict, Cause: errors.New("what it depends on keeps changing")}
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
	w, err := s.update(ctx, store.Commit, store.Write{Op: store.Update, Resource: r})
	if err != nil {
		return nil, err
	}
	return w.stored, nil
}

func (s *Store) update(ctx context.Context, mode store.Mode, u store.Write) (*write, error) {
	key := v3.KeyOf(u.Resource)
	path, err := checkUpdate(u.Resource)
	if err != nil {
		return nil, err
	}
	old, err := s.getKV(ctx, path, 0)
	if err != nil {
		return nil, s.fail(ctx, "update", key, err)
	}
	w, err := updateOf(u, old)
	if err != nil {
		return nil, err
	}
	w.mode = mode
	if err := s.put(ctx, w, nil); err != nil {
		return nil, s.fail(ctx, "update", key, err)
	}
	_, err = w.result(store.Update)
	return w, err
}

// checkUpdate refuses what needs no look at the stored value, and returns where that is.
func checkUpdate(r v3.Resource) (path string, err error) {
	if err := store.CheckUpdate(r); err != nil {
		return "", err
	}
	if path, err = pathOf(v3.KeyOf(r)); err != nil {
		return "", err
	}
	if _, err := parseRevision(store.Revision(r.GetResourceVersion())); err != nil {
		return "", &store.Error{Key: v3.KeyOf(r), Err: store.ErrConflict}
	}
	return path, nil
}

// updateOf prepares the update of an object, of which old is stored.
func updateOf(u store.Write, old *mvccpb.KeyValue) (*write, error) {
	key := v3.KeyOf(u.Resource)
	switch revision := store.Revision(u.Resource.GetResourceVersion()); {
	case old == nil:
		return nil, store.NotFound(key)
	case formatRevision(old.ModRevision) != revision:
		return nil, &store.Error{Key: key, Err: store.ErrConflict}
	}
	prepared, err := store.PrepareUpdate(u.Resource, old.Value, time.Now())
	if err != nil {
		return nil, err
	}
	var dropped v3.Unknown
	if u.Unknown == nil {
		if u.Unknown, dropped, err = unknown(key, old); err != nil {
			return nil, err
		}
	}
	w, err := newWrite(prepared, u.Unknown)
	if err == nil {
		w.value, err = keepName(key, old.Value, w.value)
	}
	if err != nil {
		return nil, err
	}
	w.dropped = dropped
	w.stored.SetResourceVersion(u.Resource.GetResourceVersion())
	w.conds = []clientv3.Cmp{clientv3.Compare(clientv3.ModRevision(w.path), "=", old.ModRevision)}
	return w, nil
}

// unknown returns the unknown fields that an update leaves as they are, and those that it removes; of a value that cannot
// be read none are known.
func unknown(key v3.Key, old *mvccpb.KeyValue) (kept, dropped v3.Unknown, err error) {
	r, fault := decodeKV(key, old)
	if fault != nil {
		return nil, nil, nil
	}
	all, err := v3.UnknownOf(r, old.Value)
	kept, dropped = all.Split("spec")
	return kept, dropped, err
}

// A write is one object on its way into the store.
type write struct {
	key    v3.Key
	path   string
	value  []byte
	stored v3.Resource    // as a reader of value gets it
	conds  []clientv3.Cmp // that must hold
	mode   store.Mode

	needs     []v3.Key // that must exist
	needPaths []string

	dropped v3.Unknown // see store.Result

	done     bool
	revision int64            // of the write
	missing  []v3.Key         // of needs, when it was refused
	current  *mvccpb.KeyValue // what is there instead, when it was refused
}

// newWrite encodes an object, and makes sure that what is going to be stored can be read.
func newWrite(r v3.Resource, unknown v3.Unknown) (*write, error) {
	w := &write{key: v3.KeyOf(r), needs: store.Needs(r)}
	var err error
	if w.path, err = pathOf(w.key); err != nil {
		return nil, err
	}
	for _, need := range w.needs {
		needPath, err := pathOf(need)
		if err != nil {
			return nil, err
		}
		w.needPaths = append(w.needPaths, needPath)
	}
	if w.value, err = v3.Encode(r); err != nil {
		return nil, fmt.Errorf("encode %s: %w", w.key, err)
	}
	if w.value, err = unknown.Graft(w.value); err != nil {
		return nil, fmt.Errorf("encode %s: %w", w.key, err)
	}
	stored, fault := decode(w.key, w.value, 0)
	if fault != nil {
		return nil, fmt.Errorf("encode %s: what would be stored cannot be read: %w", w.key, fault.Err)
	}
	stored.SetResourceVersion("")
	w.stored = stored
	return w, nil
}

// txn returns the transaction of the write: it does nothing if a condition does not hold or something needed is missing,
// and then returns what is there.
func (w *write) txn() (conds []clientv3.Cmp, then, otherwise []clientv3.Op) {
	conds = slices.Clone(w.conds)
	otherwise = []clientv3.Op{clientv3.OpGet(w.path)}
	for _, path := range w.needPaths {
		conds = append(conds, clientv3.Compare(clientv3.Version(path), ">", 0))
		otherwise = append(otherwise, clientv3.OpGet(path, clientv3.WithCountOnly()))
	}
	if w.mode == store.Commit {
		then = []clientv3.Op{clientv3.OpPut(w.path, string(w.value))}
	}
	return conds, then, otherwise
}

// answered takes what the server said to the transaction.
func (w *write) answered(succeeded bool, responses []*pb.ResponseOp, revision int64) {
	w.done, w.missing, w.current = succeeded, nil, nil
	if succeeded {
		if w.mode == store.Commit {
			w.revision = revision
			w.stored.SetResourceVersion(string(formatRevision(revision)))
		}
		return
	}
	for i, need := range w.needs {
		if responses[i+1].GetResponseRange().Count == 0 {
			w.missing = append(w.missing, need)
		}
	}
	if kvs := responses[0].GetResponseRange().Kvs; len(kvs) > 0 {
		w.current = kvs[0]
	}
}

// put runs the transaction of the write under further conditions.
func (s *Store) put(ctx context.Context, w *write, guards []clientv3.Cmp) error {
	conds, then, otherwise := w.txn()
	resp, err := s.commit(ctx, append(conds, guards...), then, otherwise)
	if err == nil {
		w.answered(resp.Succeeded, resp.Responses, resp.Header.Revision)
	}
	return err
}

// result returns what the write has come to.
func (w *write) result(op store.Op) (v3.Resource, error) {
	switch {
	case w.done:
		return w.stored, nil
	case len(w.missing) > 0:
		return nil, store.NotFound(w.missing[0])
	case op == store.Create:
		return nil, store.Exists(w.key)
	case w.current == nil:
		return nil, store.NotFound(w.key)
	}
	return nil, &store.Error{Key: w.key, Err: store.ErrConflict}
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
