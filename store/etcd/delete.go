package etcd

import (
	"context"
	"errors"
	"fmt"
	"slices"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/mvccpb"
	clientv3 "go.etcd.io/etcd/client/v3"

	v3 "margay/api/v3"
	"margay/store"
)

// maxDeletes is how many objects one transaction deletes at most: etcd's own limit for the operations in it is 128.
const maxDeletes = 100

// maxAttempts is how often a deletion is tried again because what it depends on has changed meanwhile.
const maxAttempts = 10

// Delete implements store.Store.
func (s *Store) Delete(ctx context.Context, key v3.Key, revision store.Revision) (v3.Resource, error) {
	d, err := deletionOf(key, revision)
	if err != nil {
		return nil, err
	}
	return s.delete(ctx, d)
}

// deletionOf prepares the deletion of an object.
func deletionOf(key v3.Key, revision store.Revision) (*deletion, error) {
	if err := store.CheckDelete(key); err != nil {
		return nil, err
	}
	path, err := pathOf(key)
	if err != nil {
		return nil, err
	}
	d := &deletion{key: key, path: path}
	if revision != "" {
		if d.revision, err = parseRevision(revision); err != nil || d.revision == 0 {
			return nil, &store.Error{Key: key, Err: store.ErrConflict}
		}
	}
	return d, nil
}

func (s *Store) delete(ctx context.Context, d *deletion) (v3.Resource, error) {
	for range maxAttempts {
		if err := s.plan(ctx, d); err != nil {
			return nil, err
		}
		r, err := s.remove(ctx, d)
		if r != nil || err != nil {
			return r, err
		}
	}
	return nil, &store.Error{Key: d.key, Err: store.ErrConflict, Cause: errors.New("what depends on it keeps changing")}
}

// A deletion is one object on its way out.
type deletion struct {
	key      v3.Key
	path     string
	revision int64              // that it must have; 0: any
	conds    []clientv3.Cmp     // what must still hold
	along    []*mvccpb.KeyValue // what goes with it
	mode     store.Mode
	done     int64 // revision at which it was deleted
}

// exists is the condition that what is to be deleted is there.
func (d *deletion) exists() clientv3.Cmp {
	if d.revision != 0 {
		return clientv3.Compare(clientv3.ModRevision(d.path), "=", d.revision)
	}
	return clientv3.Compare(clientv3.Version(d.path), ">", 0)
}

// op deletes the object, or only reads it, and returns what it was.
func (d *deletion) op() clientv3.Op {
	if d.mode == store.DryRun {
		return clientv3.OpGet(d.path)
	}
	return clientv3.OpDelete(d.path, clientv3.WithPrevKV())
}

// answered takes what the server said to op.
func (d *deletion) answered(response *pb.ResponseOp, revision int64) (v3.Resource, error) {
	if d.mode == store.DryRun {
		return d.deleted(response.GetResponseRange().Kvs)
	}
	d.done = revision
	return d.deleted(response.GetResponseDeleteRange().PrevKvs)
}

// plan reads what the deletion depends on.
func (s *Store) plan(ctx context.Context, d *deletion) error {
	d.conds, d.along = nil, nil
	switch d.key.Kind {
	case v3.KindTier:
		return s.planTier(ctx, d)
	case v3.KindNode:
		return s.planNode(ctx, d)
	}
	return nil
}

// planTier makes sure that no policy is in the tier, and that none comes into it meanwhile.
func (s *Store) planTier(ctx context.Context, d *deletion) error {
	var prefixes []string
	for _, plural := range store.PolicyPlurals() {
		prefixes = append(prefixes, root+plural+"/")
	}
	ranges, revision, err := s.rangeAll(ctx, prefixes)
	if err != nil {
		return s.fail(ctx, "delete", d.key, err)
	}
	for i, kvs := range ranges {
		for _, kv := range kvs {
			if store.InTier(d.key.Name, kv.Value) {
				return store.TierNotEmpty(d.key, string(kv.Key[len(root):]))
			}
		}
		d.conds = append(d.conds, clientv3.Compare(clientv3.ModRevision(prefixes[i]), "<", revision+1).WithPrefix())
	}
	return nil
}

// planNode finds what goes with the node.
func (s *Store) planNode(ctx context.Context, d *deletion) error {
	space, err := newKeyspace(store.NodeKinds())
	if err != nil {
		return err
	}
	var prefixes []string
	for _, kind := range store.NodeKinds() {
		info, _ := v3.Lookup(kind)
		prefixes = append(prefixes, prefixOf(info, ""))
	}
	ranges, _, err := s.rangeAll(ctx, prefixes)
	if err != nil {
		return s.fail(ctx, "delete", d.key, err)
	}
	for _, kvs := range ranges {
		for _, kv := range kvs {
			if key, ok := space.find(string(kv.Key)); ok && store.OfNode(d.key.Name, key, kv.Value) {
				d.along = append(d.along, kv)
			}
		}
	}
	return nil
}

// remove deletes the object and what goes with it, in one transaction if that is at most maxDeletes, else the rest
// before. It returns nothing if the plan is out of date.
func (s *Store) remove(ctx context.Context, d *deletion) (v3.Resource, error) {
	chunks := slices.Collect(slices.Chunk(d.along, maxDeletes-1))
	if d.mode == store.DryRun {
		chunks = nil
	}
	last := max(len(chunks)-1, 0)
	for i := range last + 1 {
		conds, then := append([]clientv3.Cmp{d.exists()}, d.conds...), []clientv3.Op{}
		if i == last {
			then = append(then, d.op())
		}
		if i < len(chunks) {
			for _, kv := range chunks[i] {
				conds = append(conds, clientv3.Compare(clientv3.ModRevision(string(kv.Key)), "=", kv.ModRevision))
				then = append(then, clientv3.OpDelete(string(kv.Key)))
			}
		}
		resp, err := s.commit(ctx, conds, then, []clientv3.Op{clientv3.OpGet(d.path)})
		switch {
		case err != nil:
			return nil, s.fail(ctx, "delete", d.key, err)
		case !resp.Succeeded:
			return nil, d.refused(resp.Responses[0].GetResponseRange().Kvs)
		case i == last:
			return d.answered(resp.Responses[0], resp.Header.Revision)
		}
	}
	panic("unreachable: the last chunk returns")
}

// refused says why the transaction did nothing; nil if the plan is out of date.
func (d *deletion) refused(current []*mvccpb.KeyValue) error {
	switch {
	case len(current) == 0:
		return store.NotFound(d.key)
	case d.revision != 0 && current[0].ModRevision != d.revision:
		return &store.Error{Key: d.key, Err: store.ErrConflict}
	}
	return nil
}

// deleted returns what the object was.
func (d *deletion) deleted(previous []*mvccpb.KeyValue) (v3.Resource, error) {
	if len(previous) != 1 {
		panic(fmt.Sprintf("deleting %s returned %d values", d.path, len(previous)))
	}
	r, fault := decodeKV(d.key, previous[0])
	if fault == nil {
		return r, nil
	}
	info, _ := v3.Lookup(d.key.Kind)
	r = info.New()
	r.SetNamespace(d.key.Namespace)
	r.SetName(d.key.Name)
	r.SetResourceVersion(string(fault.Revision))
	return r, nil
}
