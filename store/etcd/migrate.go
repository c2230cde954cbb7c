package etcd

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"

	"go.etcd.io/etcd/api/v3/mvccpb"
	clientv3 "go.etcd.io/etcd/client/v3"

	v3 "margay/api/v3"
	"margay/store"
)

// ipamRoot is where Calico keeps which address belongs to whom. Nothing here acts on it.
const ipamRoot = "/calico/ipam/v2/"

// policyKinds are the kinds that releases before 3.32 stored under other names.
func policyKinds() []v3.Kind {
	return []v3.Kind{v3.KindNetworkPolicy, v3.KindGlobalNetworkPolicy, v3.KindStagedNetworkPolicy, v3.KindStagedGlobalNetworkPolicy}
}

// MigratePolicyNames stores policies of the default tier that releases before 3.32 stored as default.NAME under the name
// that people know them by, and returns how many it moved. Nothing but the name changes, and the policy
// is in force all the time. If there is a policy of that name already, it is the newer one: the old one is deleted.
func (s *Store) MigratePolicyNames(ctx context.Context) (moved int, err error) {
	space, err := newKeyspace(policyKinds())
	if err != nil {
		return 0, err
	}
	var prefixes []string
	for _, kind := range policyKinds() {
		info, _ := v3.Lookup(kind)
		prefixes = append(prefixes, prefixOf(info, ""))
	}
	ranges, _, err := s.rangeAll(ctx, prefixes)
	if err != nil {
		return 0, s.fail(ctx, "list", v3.Key{}, err)
	}
	var faults []error
	for _, kvs := range ranges {
		for _, kv := range kvs {
			key, ok := space.find(string(kv.Key))
			if !ok {
				continue
			}
			did, err := s.migrateName(ctx, key, kv)
			switch {
			case errors.Is(err, store.ErrUnavailable), errors.Is(err, store.ErrForbidden), ctx.Err() != nil:
				return moved, err
			case err != nil:
				faults = append(faults, err)
			case did:
				moved++
			}
		}
	}
	return moved, errors.Join(faults...)
}

// migrateName moves one policy if its key has another name than its value says, and reports whether it did.
func (s *Store) migrateName(ctx context.Context, key v3.Key, kv *mvccpb.KeyValue) (bool, error) {
	r, err := v3.DecodeStored(key.Kind, kv.Value)
	if err != nil {
		return false, &store.Fault{Key: key, Revision: formatRevision(kv.ModRevision), Value: kv.Value, Err: err}
	}
	tier, ok := store.TierKey(r)
	if !ok || tier.Name != v3.DefaultTier || r.GetName() == key.Name || key.Name != v3.DefaultTier+"."+r.GetName() {
		return false, nil
	}
	unknown, err := v3.UnknownOf(r, kv.Value)
	if err != nil {
		return false, err
	}
	w, err := newWrite(r, unknown)
	if err != nil {
		return false, err
	}
	old := string(kv.Key)
	same := clientv3.Compare(clientv3.ModRevision(old), "=", kv.ModRevision)
	absent := clientv3.Compare(clientv3.Version(w.path), "=", 0)
	resp, err := s.commit(ctx, []clientv3.Cmp{same, absent},
		[]clientv3.Op{clientv3.OpPut(w.path, string(w.value)), clientv3.OpDelete(old)},
		[]clientv3.Op{clientv3.OpTxn([]clientv3.Cmp{same}, []clientv3.Op{clientv3.OpDelete(old)}, nil)})
	if err != nil {
		return false, s.fail(ctx, "rename", key, err)
	}
	if !resp.Succeeded && !resp.Responses[0].GetResponseTxn().Succeeded {
		return false, &store.Error{Key: key, Err: store.ErrConflict, Cause: errors.New("it was changed meanwhile; run the command again")}
	}
	return true, nil
}

// IPAM returns Calico's records of who has which address, by key.
func (s *Store) IPAM(ctx context.Context) (map[string]json.RawMessage, error) {
	ranges, _, err := s.rangeAll(ctx, []string{ipamRoot})
	if err != nil {
		return nil, s.fail(ctx, "list", v3.Key{}, err)
	}
	out := map[string]json.RawMessage{}
	for _, kv := range ranges[0] {
		if !json.Valid(kv.Value) {
			return nil, fmt.Errorf("read %s: the value is no JSON", kv.Key)
		}
		out[string(kv.Key)] = kv.Value
	}
	return out, nil
}

// CreateIPAM stores a record that IPAM returned, or returns ErrExists.
func (s *Store) CreateIPAM(ctx context.Context, key string, value json.RawMessage) error {
	if !strings.HasPrefix(key, ipamRoot) {
		return fmt.Errorf("store %q: not a key of address management (%s...)", key, ipamRoot)
	}
	resp, err := s.commit(ctx, []clientv3.Cmp{clientv3.Compare(clientv3.Version(key), "=", 0)},
		[]clientv3.Op{clientv3.OpPut(key, string(value))}, nil)
	switch {
	case err != nil:
		return s.fail(ctx, "create", v3.Key{}, err)
	case !resp.Succeeded:
		return &store.Error{Err: store.ErrExists, Cause: fmt.Errorf("key %s exists", key)}
	}
	return nil
}
