package etcd

import (
	"context"
	"errors"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"

	v3 "margay/api/v3"
	"margay/store"
)

// Compact forgets what was before a revision: the states in between can no longer be read or watched from. That somebody
// has done it already is no error.
func (s *Store) Compact(ctx context.Context, revision store.Revision) error {
	at, err := parseRevision(revision)
	if err != nil {
		return err
	}
	err = s.request(ctx, func(ctx context.Context, client *clientv3.Client) error {
		_, err := client.Compact(ctx, at)
		return err
	})
	if err != nil && !errors.Is(err, rpctypes.ErrCompacted) {
		return s.fail(ctx, "compact", v3.Key{}, err)
	}
	return nil
}
