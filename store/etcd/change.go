package etcd

import (
	"context"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"google.golang.org/grpc/metadata"

	v3 "margay/api/v3"
	"margay/store"
)

// progressInterval is how often a server is asked whether it has sent all events up to now. It does not answer before.
const progressInterval = 20 * time.Millisecond

// Reached implements store.Store.
func (s *Store) Reached(r, goal store.Revision) bool {
	n, err := parseRevision(r)
	m, errGoal := parseRevision(goal)
	return goal == "" || r == goal || err == nil && errGoal == nil && n >= m
}

// Inspect implements store.Store.
func (s *Store) Inspect(ctx context.Context, key v3.Key) (v3.Resource, v3.Unknown, error) {
	path, err := pathOf(key)
	if err != nil {
		return nil, nil, err
	}
	if key.Kind == v3.KindProfile && key.Name == v3.ProfileDefaultAllow {
		return store.DefaultAllowProfile(), nil, nil
	}
	kv, err := s.getKV(ctx, path, 0)
	if err != nil {
		return nil, nil, s.fail(ctx, "read", key, err)
	}
	if kv == nil {
		return nil, nil, store.NotFound(key)
	}
	r, fault := decodeKV(key, kv)
	if fault != nil {
		return nil, nil, fault
	}
	unknown, err := v3.UnknownOf(r, kv.Value)
	return r, unknown, err
}

// LastChange implements store.Store. Everything that was stored after the last change that is still there has been
// deleted since, so the history from there on, usually nothing, tells the rest.
func (s *Store) LastChange(ctx context.Context, kinds ...v3.Kind) (store.Revision, error) {
	space, err := newKeyspace(kinds)
	if err != nil {
		return "", err
	}
	var ops []clientv3.Op
	for _, info := range space {
		ops = append(ops, clientv3.OpGet(prefixOf(info, ""), clientv3.WithPrefix(), clientv3.WithKeysOnly(),
			clientv3.WithSort(clientv3.SortByModRevision, clientv3.SortDescend), clientv3.WithLimit(1)))
	}
	resp, err := s.commit(ctx, nil, ops, nil)
	if err != nil {
		return "", s.fail(ctx, "list", v3.Key{}, err)
	}
	last := int64(0)
	for _, r := range resp.Responses {
		for _, kv := range r.GetResponseRange().Kvs {
			last = max(last, kv.ModRevision)
		}
	}
	if last, err = s.lastDeletion(ctx, space, span{last, resp.Header.Revision}); err != nil {
		return "", s.fail(ctx, "read the history of", v3.Key{}, err)
	}
	if last == 0 {
		return "", nil
	}
	return formatRevision(last), nil
}

// A span is a part of the history, from one revision to another, both inclusive.
type span struct{ from, to int64 }

// lastDeletion returns the last revision after all.from and up to all.to in which an object was deleted, all.from if there is none.
func (s *Store) lastDeletion(ctx context.Context, space keyspace, all span) (int64, error) {
	last := all.from
	err := s.request(ctx, func(ctx context.Context, client *clientv3.Client) error {
		ctx = metadata.AppendToOutgoingContext(ctx, "margay-history", "1") // a stream of its own
		for part := (span{all.from + 1, all.to}); part.from <= part.to; {
			found, compacted, err := readDeletions(ctx, client, space, part)
			if err != nil {
				return err
			}
			last = max(last, found)
			if compacted == 0 {
				return nil
			}
			part.from = max(part.from, compacted) + 1
		}
		return nil
	})
	return last, err
}

// readDeletions reads a part of the history and returns the last deletion in it, or up to where it is compacted.
func readDeletions(ctx context.Context, client *clientv3.Client, space keyspace, part span) (last, compacted int64, err error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	events := client.Watch(ctx, root, clientv3.WithPrefix(), clientv3.WithRev(part.from), clientv3.WithFilterPut())
	ask := time.NewTicker(progressInterval)
	defer ask.Stop()
	for {
		select {
		case resp, ok := <-events:
			switch {
			case !ok:
				return 0, 0, context.Cause(ctx)
			case resp.CompactRevision > 0:
				return last, resp.CompactRevision, nil
			case resp.Err() != nil:
				return 0, 0, resp.Err()
			}
			for _, e := range resp.Events {
				if _, ok := space.find(string(e.Kv.Key)); ok {
					last = max(last, e.Kv.ModRevision)
				}
			}
			if resp.Header.Revision >= part.to {
				return last, 0, nil
			}
		case <-ask.C:
			if err := client.RequestProgress(ctx); err != nil {
				return 0, 0, err
			}
		case <-ctx.Done():
			return 0, 0, ctx.Err()
		}
	}
}
