package etcd

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"

	v3 "margay/api/v3"
	"margay/store"
)

// A lease makes a node's status disappear. One serves until it runs out or the node wants another time.
type lease struct {
	id  clientv3.LeaseID
	ttl int // seconds
}

// ReportStatus implements store.Store.
func (s *Store) ReportStatus(ctx context.Context, status store.NodeStatus) error {
	if status.Node == "" {
		return errors.New("report status: the status names no node")
	}
	key := v3.Key{Kind: v3.KindNode, Name: status.Node}
	value, err := json.Marshal(status)
	if err != nil {
		return fmt.Errorf("report status of %s: %w", key, err)
	}
	err = s.request(ctx, func(ctx context.Context, client *clientv3.Client) error {
		id, err := s.lease(ctx, client, status)
		if err != nil {
			return err
		}
		ops := []clientv3.Op{clientv3.OpPut(statusRoot+escaper.Replace(status.Node), string(value), clientv3.WithLease(id))}
		if status.Heartbeat != nil && !strings.Contains(status.Node, "/") {
			beat, err := json.Marshal(status.Heartbeat)
			if err != nil {
				return err
			}
			ops = append(ops, clientv3.OpPut(felixWorkloads+status.Node+"/status", string(beat), clientv3.WithLease(id)),
				clientv3.OpPut(felixWorkloads+status.Node+"/last_reported_status", string(beat)))
		}
		_, err = client.Txn(ctx).Then(ops...).Commit()
		return err
	})
	if err != nil {
		return s.fail(ctx, "report status of", key, err)
	}
	return nil
}

// lease returns a lease of the status's TTL with all of it to run, 0 if it has none.
func (s *Store) lease(ctx context.Context, client *clientv3.Client, status store.NodeStatus) (clientv3.LeaseID, error) {
	if status.TTLSeconds <= 0 {
		return clientv3.NoLease, nil
	}
	s.leaseMu.Lock()
	held := s.leases[status.Node]
	s.leaseMu.Unlock()
	if held.ttl == status.TTLSeconds {
		_, err := client.KeepAliveOnce(ctx, held.id)
		if !errors.Is(err, rpctypes.ErrLeaseNotFound) {
			return held.id, err
		}
	}
	granted, err := client.Grant(ctx, int64(status.TTLSeconds))
	if err != nil {
		return clientv3.NoLease, err
	}
	s.leaseMu.Lock()
	s.leases[status.Node] = lease{granted.ID, status.TTLSeconds}
	s.leaseMu.Unlock()
	return granted.ID, nil
}

// Statuses implements store.Store. The result is ordered by node; a status that cannot be read says so in its Detail.
func (s *Store) Statuses(ctx context.Context) ([]store.NodeStatus, error) {
	ranges, _, err := s.rangeAll(ctx, []string{statusRoot})
	if err != nil {
		return nil, s.fail(ctx, "list statuses of", v3.Key{}, err)
	}
	statuses := make([]store.NodeStatus, 0, len(ranges[0]))
	for _, kv := range ranges[0] {
		node := unescaper.Replace(strings.TrimPrefix(string(kv.Key), statusRoot))
		var status store.NodeStatus
		if err := json.Unmarshal(kv.Value, &status); err != nil {
			status = store.NodeStatus{Detail: fmt.Sprintf("its status cannot be read: %v", err)}
		}
		status.Node = node
		statuses = append(statuses, status)
	}
	return statuses, nil
}
