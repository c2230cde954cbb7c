package etcd

import (
	"context"
	"errors"
	"fmt"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/mvccpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"

	v3 "margay/api/v3"
	"margay/store"
)

// Bounds of one transaction, well below etcd's own for the operations (128, with those of the largest inner transaction)
// and the bytes (1.5 MiB) of a request.
const (
	maxWrites     = 100
	maxWriteBytes = 1 << 20
	maxWriteNeeds = 10
)

// WriteAll implements store.Store. Writes go in their order, many in one transaction that holds one transaction for each,
// so that one that is refused leaves the others alone:
//
//	writes -> cut where one depends on another -> read what is to be updated -> one transaction
//
// etcd looks at all conditions before it does the first write. So a transaction is cut where a write needs an object, or
// concerns one, that a write before it in the same transaction makes or changes.
func (s *Store) WriteAll(ctx context.Context, mode store.Mode, writes []store.Write) []store.Result {
	b := &batch{store: s, mode: mode, results: make([]store.Result, len(writes))}
	for start := 0; start < len(writes); {
		end := b.cut(writes, start)
		err := b.run(ctx, writes[start:end], b.results[start:end])
		start = end
		if err == nil {
			continue
		}
		for i, w := range writes[start:] {
			b.results[start+i].Err = notTried(w, err)
		}
		break
	}
	return b.results
}

// A batch is the work of one WriteAll.
type batch struct {
	store   *Store
	mode    store.Mode
	results []store.Result
}

// alone reports whether a write takes more than one transaction, or one that does not go into another.
func alone(w store.Write) bool {
	kind := v3.KeyOf(w.Resource).Kind
	switch w.Op {
	case store.Create:
		return kind == v3.KindIPPool || len(store.Needs(w.Resource)) > maxWriteNeeds
	case store.Delete:
		return kind == v3.KindTier || kind == v3.KindNode
	}
	return len(store.Needs(w.Resource)) > maxWriteNeeds
}

// cut returns where the transaction that begins at start ends.
func (b *batch) cut(writes []store.Write, start int) int {
	seen := map[v3.Key]bool{}
	for i := start; i < len(writes) && i-start < maxWrites; i++ {
		w := writes[i]
		key := v3.KeyOf(w.Resource)
		if seen[key] || alone(w) && i > start {
			return i
		}
		for _, need := range store.Needs(w.Resource) {
			if seen[need] {
				return i
			}
		}
		if alone(w) {
			return i + 1
		}
		seen[key] = true
	}
	return min(len(writes), start+maxWrites)
}

// run does the writes of one transaction. An error says that the store does not answer; it is in the results, too.
func (b *batch) run(ctx context.Context, writes []store.Write, results []store.Result) error {
	if len(writes) == 1 {
		results[0] = b.single(ctx, writes[0])
		return noAnswer(ctx, results[0].Err)
	}
	steps := make([]*step, len(writes))
	for i, w := range writes {
		steps[i] = &step{write: w, result: &results[i]}
	}
	old, err := b.read(ctx, writes)
	if errors.Is(err, store.ErrForbidden) {
		return b.oneByOne(ctx, steps) // not all of it may be
	}
	if err != nil {
		return b.failed(ctx, steps, err)
	}
	size, good := 0, []*step(nil)
	for i, st := range steps {
		if st.result.Err = b.prepare(st, old); st.result.Err != nil {
			continue
		}
		if size += st.size(); size > maxWriteBytes && len(good) > 0 {
			if err := b.commit(ctx, good); err != nil {
				leave(steps[i:], err)
				return err
			}
			size, good = st.size(), nil
		}
		good = append(good, st)
	}
	return b.commit(ctx, good)
}

// failed is what becomes of all writes of a request that failed.
func (b *batch) failed(ctx context.Context, steps []*step, err error) error {
	for _, st := range steps {
		st.result.Err = err
	}
	return noAnswer(ctx, err)
}

// leave notes that steps were not tried.
func leave(steps []*step, cause error) {
	for _, st := range steps {
		st.result.Err = notTried(st.write, cause)
	}
}

// notTried is the error of a write that was not sent.
func notTried(w store.Write, cause error) error {
	return &store.Error{Key: v3.KeyOf(w.Resource), Err: store.ErrNotTried, Cause: cause}
}

// noAnswer returns an error after which it is of no use to ask the store for more.
func noAnswer(ctx context.Context, err error) error {
	if errors.Is(err, store.ErrUnavailable) || err != nil && ctx.Err() != nil {
		return err
	}
	return nil
}

// single does one write in the way of Create, Update or Delete.
func (b *batch) single(ctx context.Context, w store.Write) (result store.Result) {
	st := &step{write: w, result: &result}
	switch w.Op {
	case store.Create:
		if st.put, result.Err = createOf(w.Resource); result.Err == nil {
			st.put.mode = b.mode
			result.Resource, result.Err = b.store.create(ctx, st.put)
		}
	case store.Update:
		if st.put, result.Err = b.store.update(ctx, b.mode, w); result.Err == nil {
			result.Resource, result.Dropped = st.put.stored, st.put.dropped
		}
	case store.Delete:
		if st.delete, result.Err = deletionOf(v3.KeyOf(w.Resource), store.Revision(w.Resource.GetResourceVersion())); result.Err == nil {
			st.delete.mode = b.mode
			result.Resource, result.Err = b.store.delete(ctx, st.delete)
		}
	}
	if result.Err == nil {
		result.Revision = st.revision()
	}
	return result
}

// read returns the stored values of everything that is to be updated, by key.
func (b *batch) read(ctx context.Context, writes []store.Write) (map[v3.Key]*mvccpb.KeyValue, error) {
	var keys []v3.Key
	var ops []clientv3.Op
	for _, w := range writes {
		if w.Op != store.Update {
			continue
		}
		// What is wrong with the write itself is found later.
		if path, err := checkUpdate(w.Resource); err == nil {
			keys, ops = append(keys, v3.KeyOf(w.Resource)), append(ops, clientv3.OpGet(path))
		}
	}
	old := map[v3.Key]*mvccpb.KeyValue{}
	if len(ops) == 0 {
		return old, nil
	}
	resp, err := b.store.commit(ctx, nil, ops, nil)
	if err != nil {
		return nil, b.store.fail(ctx, "update", v3.Key{}, err)
	}
	for i, key := range keys {
		if kvs := resp.Responses[i].GetResponseRange().Kvs; len(kvs) > 0 {
			old[key] = kvs[0]
		}
	}
	return old, nil
}

// A step is one write of a transaction: either put or delete.
type step struct {
	write  store.Write
	put    *write
	delete *deletion
	result *store.Result
}

// prepare checks and encodes what is to be written.
func (b *batch) prepare(st *step, old map[v3.Key]*mvccpb.KeyValue) (err error) {
	switch key := v3.KeyOf(st.write.Resource); st.write.Op {
	case store.Create:
		st.put, err = createOf(st.write.Resource)
	case store.Update:
		if _, err = checkUpdate(st.write.Resource); err == nil {
			st.put, err = updateOf(st.write, old[key])
		}
	case store.Delete:
		st.delete, err = deletionOf(key, store.Revision(st.write.Resource.GetResourceVersion()))
	default:
		panic(fmt.Sprintf("etcd: operation %d of a write is not known", st.write.Op))
	}
	switch {
	case err != nil:
		return err
	case st.put != nil:
		st.put.mode = b.mode
	default:
		st.delete.mode = b.mode
	}
	return nil
}

func (st *step) size() int {
	if st.put == nil {
		return 0
	}
	return len(st.put.value)
}

// op returns the inner transaction.
func (st *step) op() clientv3.Op {
	if st.put != nil {
		return clientv3.OpTxn(st.put.txn())
	}
	return clientv3.OpTxn([]clientv3.Cmp{st.delete.exists()}, []clientv3.Op{st.delete.op()}, []clientv3.Op{clientv3.OpGet(st.delete.path)})
}

func (st *step) revision() store.Revision {
	revision := int64(0)
	switch {
	case st.put != nil:
		revision = st.put.revision
	case st.delete != nil:
		revision = st.delete.done
	}
	if revision == 0 {
		return ""
	}
	return formatRevision(revision)
}

// commit runs a transaction and fills in the results.
func (b *batch) commit(ctx context.Context, steps []*step) error {
	if len(steps) == 0 {
		return nil
	}
	ops := make([]clientv3.Op, len(steps))
	for i, st := range steps {
		ops[i] = st.op()
	}
	resp, err := b.store.commit(ctx, nil, ops, nil)
	if errors.Is(err, rpctypes.ErrTooManyOps) || errors.Is(err, rpctypes.ErrRequestTooLarge) {
		return b.oneByOne(ctx, steps) // the server's limits are lower than usual
	}
	if err != nil {
		if err = b.store.fail(ctx, "write", v3.Key{}, err); errors.Is(err, store.ErrForbidden) {
			return b.oneByOne(ctx, steps) // not all of it may be
		}
		return b.failed(ctx, steps, err)
	}
	for i, st := range steps {
		st.answered(resp.Responses[i].GetResponseTxn(), resp.Header.Revision)
	}
	return nil
}

// oneByOne runs each write in a transaction of its own.
func (b *batch) oneByOne(ctx context.Context, steps []*step) error {
	for i, st := range steps {
		*st.result = b.single(ctx, st.write)
		if err := noAnswer(ctx, st.result.Err); err != nil {
			leave(steps[i+1:], err)
			return err
		}
	}
	return nil
}

// answered fills in the result from what the server said to the inner transaction.
func (st *step) answered(resp *pb.TxnResponse, revision int64) {
	r := st.result
	switch {
	case st.put != nil:
		st.put.answered(resp.Succeeded, resp.Responses, revision)
		r.Resource, r.Err = st.put.result(st.write.Op)
	case resp.Succeeded:
		r.Resource, r.Err = st.delete.answered(resp.Responses[0], revision)
	default:
		if r.Err = st.delete.refused(resp.Responses[0].GetResponseRange().Kvs); r.Err == nil {
			r.Err = &store.Error{Key: st.delete.key, Err: store.ErrConflict} // it came meanwhile
		}
	}
	if r.Err == nil {
		r.Revision = st.revision()
		if st.put != nil {
			r.Dropped = st.put.dropped
		}
	}
}
