package etcd

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"

	"go.etcd.io/etcd/api/v3/mvccpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"

	v3 "margay/api/v3"
	"margay/store"
)

// pageSize is how many keys one range returns at most.
const pageSize = 1000

// maxLists is how often a list is begun again because the history was compacted while it was read.
const maxLists = 3

// maxVersions bounds how far Previous walks back.
const maxVersions = 1000

// Get implements store.Store.
func (s *Store) Get(ctx context.Context, key v3.Key) (v3.Resource, error) {
	path, err := pathOf(key)
	if err != nil {
		return nil, err
	}
	if key.Kind == v3.KindProfile && key.Name == v3.ProfileDefaultAllow {
		return store.DefaultAllowProfile(), nil
	}
	kv, err := s.getKV(ctx, path, 0)
	if err != nil {
		return nil, s.fail(ctx, "read", key, err)
	}
	if kv == nil {
		return nil, store.NotFound(key)
	}
	r, fault := decodeKV(key, kv)
	if fault != nil {
		return nil, fault
	}
	return r, nil
}

// getKV returns what is stored under a key as of a revision, 0: now; nil if nothing is.
func (s *Store) getKV(ctx context.Context, path string, revision int64) (*mvccpb.KeyValue, error) {
	var kvs []*mvccpb.KeyValue
	err := s.request(ctx, func(ctx context.Context, client *clientv3.Client) error {
		resp, err := client.Get(ctx, path, clientv3.WithRev(revision))
		if err == nil {
			kvs = resp.Kvs
		}
		return err
	})
	if err != nil || len(kvs) == 0 {
		return nil, err
	}
	return kvs[0], nil
}

// List implements store.Store.
func (s *Store) List(ctx context.Context, namespace string, kinds ...v3.Kind) (*store.List, error) {
	space, err := newKeyspace(kinds)
	if err != nil {
		return nil, fmt.Errorf("list resources: %w", err)
	}
	prefixes := make([]string, len(kinds))
	for i, kind := range kinds {
		info, _ := v3.Lookup(kind)
		prefixes[i] = prefixOf(info, namespace)
	}
	var ranges [][]*mvccpb.KeyValue
	var revision int64
	for range maxLists {
		ranges, revision, err = s.rangeAll(ctx, prefixes)
		if !errors.Is(err, rpctypes.ErrCompacted) {
			break
		}
	}
	if err != nil {
		return nil, s.fail(ctx, "list", v3.Key{}, err)
	}
	list := &store.List{Revision: formatRevision(revision)}
	for i, kind := range kinds {
		add(list, space, ranges[i])
		if kind == v3.KindProfile {
			list.Items = append(list.Items, store.DefaultAllowProfile())
		}
	}
	sortList(list, kinds)
	return list, nil
}

// add decodes the values of one range into the list, on all processors: it is most of the time that a list takes.
func add(list *store.List, space keyspace, kvs []*mvccpb.KeyValue) {
	type decoded struct {
		resource v3.Resource
		fault    *store.Fault
	}
	all := make([]decoded, len(kvs))
	var next atomic.Int64
	var wg sync.WaitGroup
	for range min(len(kvs), runtime.GOMAXPROCS(0)) {
		wg.Go(func() {
			for i := next.Add(1) - 1; i < int64(len(kvs)); i = next.Add(1) - 1 {
				if key, ok := space.find(string(kvs[i].Key)); ok {
					all[i].resource, all[i].fault = decodeKV(key, kvs[i])
				}
			}
		})
	}
	wg.Wait()
	for _, d := range all {
		switch {
		case d.fault != nil:
			list.Faults = append(list.Faults, *d.fault)
		case d.resource != nil:
			list.Items = append(list.Items, d.resource)
		}
	}
}

// sortList sorts by kind as given, namespace, name. etcd's own order is that of the whole key, in which the namespace
// a-b precedes a.
func sortList(list *store.List, kinds []v3.Kind) {
	order := func(a, b v3.Key) int {
		return cmp.Or(
			cmp.Compare(slices.Index(kinds, a.Kind), slices.Index(kinds, b.Kind)),
			cmp.Compare(a.Namespace, b.Namespace), cmp.Compare(a.Name, b.Name))
	}
	slices.SortFunc(list.Items, func(a, b v3.Resource) int { return order(v3.KeyOf(a), v3.KeyOf(b)) })
	slices.SortFunc(list.Faults, func(a, b store.Fault) int { return order(a.Key, b.Key) })
}

// rangeAll returns what is stored under each prefix, all as of one revision: the first pages come from one transaction,
// later ones are read at its revision.
func (s *Store) rangeAll(ctx context.Context, prefixes []string) (ranges [][]*mvccpb.KeyValue, revision int64, err error) {
	ops := make([]clientv3.Op, len(prefixes))
	for i, prefix := range prefixes {
		ops[i] = clientv3.OpGet(prefix, clientv3.WithPrefix(), clientv3.WithLimit(pageSize))
	}
	resp, err := s.commit(ctx, nil, ops, nil)
	if err != nil {
		return nil, 0, err
	}
	s.cluster.Store(resp.Header.ClusterId)
	revision = resp.Header.Revision
	ranges = make([][]*mvccpb.KeyValue, len(prefixes))
	for i, prefix := range prefixes {
		page := resp.Responses[i].GetResponseRange()
		ranges[i] = page.Kvs
		for more := page.More; more; {
			next, err := s.nextPage(ctx, prefix, ranges[i][len(ranges[i])-1].Key, revision)
			if err != nil {
				return nil, 0, err
			}
			ranges[i], more = append(ranges[i], next.Kvs...), next.More
		}
	}
	return ranges, revision, nil
}

// nextPage returns what comes after a key, as of the revision.
func (s *Store) nextPage(ctx context.Context, prefix string, after []byte, revision int64) (page *clientv3.GetResponse, err error) {
	err = s.request(ctx, func(ctx context.Context, client *clientv3.Client) (err error) {
		page, err = client.Get(ctx, string(after)+"\x00", clientv3.WithRange(clientv3.GetPrefixRangeEnd(prefix)),
			clientv3.WithLimit(pageSize), clientv3.WithRev(revision))
		return err
	})
	return page, err
}

// Previous implements store.Store.
func (s *Store) Previous(ctx context.Context, key v3.Key, before store.Revision) (v3.Resource, error) {
	path, err := pathOf(key)
	if err != nil {
		return nil, err
	}
	revision, err := parseRevision(before)
	if err != nil {
		return nil, fmt.Errorf("read an earlier version of %s: %w", key, err)
	}
	none := &store.Error{Key: key, Err: store.ErrNotFound, Cause: fmt.Errorf("no usable version before revision %s", before)}
	for range maxVersions {
		if revision <= 1 {
			return nil, none
		}
		kv, err := s.getKV(ctx, path, revision-1)
		if err != nil {
			return nil, s.fail(ctx, "read an earlier version of", key, err)
		}
		if kv == nil {
			return nil, none
		}
		if r, fault := decodeKV(key, kv); fault == nil {
			return r, nil
		}
		revision = kv.ModRevision
	}
	return nil, none
}
