package etcd

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	clientv3 "go.etcd.io/etcd/client/v3"

	v3 "margay/api/v3"
	"margay/store"
)

// Where the incumbent keeps what its agents say, of hosts that OpenStack has put into no region.
const (
	felixHosts     = "/calico/felix/v1/host/"
	felixWorkloads = "/calico/felix/v2/no-region/host/"
)

// felixState is the value of an endpoint's state.
type felixState struct {
	Status store.EndpointState `json:"status"`
}

// ReportEndpoints implements store.EndpointReporter.
func (s *Store) ReportEndpoints(ctx context.Context, node string, states map[v3.Key]store.EndpointState) error {
	about := v3.Key{Kind: v3.KindNode, Name: node}
	if node == "" || strings.Contains(node, "/") {
		return fmt.Errorf("report endpoints of %s: a name without a slash is needed", about)
	}
	ranges, _, err := s.rangeAll(ctx, []string{felixHosts + node + "/endpoint/", felixWorkloads + node + "/workload/"})
	if err != nil {
		return s.fail(ctx, "report endpoints of", about, err)
	}
	stored := map[string]string{}
	for _, list := range ranges {
		for _, kv := range list {
			stored[string(kv.Key)] = string(kv.Value)
		}
	}
	var ops []clientv3.Op
	for key, state := range states {
		path, ok := endpointPath(node, key)
		if !ok {
			continue // a name that the incumbent could not read either
		}
		value, err := json.Marshal(felixState{state})
		if err != nil {
			return fmt.Errorf("report endpoints of %s: %w", about, err)
		}
		if stored[path] != string(value) {
			ops = append(ops, clientv3.OpPut(path, string(value)))
		}
		delete(stored, path)
	}
	for path := range stored {
		if _, ours := endpointOf(path); ours {
			ops = append(ops, clientv3.OpDelete(path))
		}
	}
	for chunk := range slices.Chunk(ops, maxWrites) {
		if _, err := s.commit(ctx, nil, chunk, nil); err != nil {
			return s.fail(ctx, "report endpoints of", about, err)
		}
	}
	return nil
}

// EndpointStatuses implements store.EndpointReporter. Values that cannot be read are left out.
func (s *Store) EndpointStatuses(ctx context.Context) ([]store.EndpointStatus, error) {
	ranges, _, err := s.rangeAll(ctx, []string{felixHosts, felixWorkloads})
	if err != nil {
		return nil, s.fail(ctx, "list endpoint states of", v3.Key{}, err)
	}
	var out []store.EndpointStatus
	for _, kv := range slices.Concat(ranges...) {
		status, ok := endpointOf(string(kv.Key))
		var value felixState
		if !ok || json.Unmarshal(kv.Value, &value) != nil || value.Status == "" {
			continue
		}
		status.State = value.Status
		out = append(out, status)
	}
	slices.SortFunc(out, func(a, b store.EndpointStatus) int {
		return cmp.Or(cmp.Compare(a.Node, b.Node), cmp.Compare(a.Endpoint.Kind, b.Endpoint.Kind),
			cmp.Compare(a.Endpoint.Namespace, b.Endpoint.Namespace), cmp.Compare(a.Endpoint.Name, b.Endpoint.Name))
	})
	return out, nil
}

// endpointPath returns the key of an endpoint's state. The parts of a WorkloadEndpoint's name are parts of it.
func endpointPath(node string, key v3.Key) (string, bool) {
	if key.Kind == v3.KindHostEndpoint {
		return felixHosts + node + "/endpoint/" + escaper.Replace(key.Name), true
	}
	parts := v3.SplitEndpointName(key.Name)
	if key.Kind != v3.KindWorkloadEndpoint || len(parts) != 4 {
		return "", false
	}
	return felixWorkloads + node + "/workload/" + escaper.Replace(parts[1]) + "/" +
		escaper.Replace(key.Namespace+"/"+parts[2]) + "/endpoint/" + escaper.Replace(parts[3]), true
}

// endpointOf is the reverse of endpointPath; ok is false for other keys.
func endpointOf(path string) (status store.EndpointStatus, ok bool) {
	if rest, found := strings.CutPrefix(path, felixHosts); found {
		parts := strings.Split(rest, "/")
		if len(parts) != 3 || parts[1] != "endpoint" {
			return status, false
		}
		return store.EndpointStatus{Node: parts[0], Endpoint: v3.Key{Kind: v3.KindHostEndpoint, Name: unescaper.Replace(parts[2])}}, true
	}
	rest, found := strings.CutPrefix(path, felixWorkloads)
	parts := strings.Split(rest, "/")
	if !found || len(parts) != 6 || parts[1] != "workload" || parts[4] != "endpoint" {
		return status, false
	}
	namespace, workload, ok := strings.Cut(unescaper.Replace(parts[3]), "/")
	name := strings.Join([]string{parts[0], unescaper.Replace(parts[2]), workload, unescaper.Replace(parts[5])}, "\x00")
	name = strings.ReplaceAll(strings.ReplaceAll(name, "-", "--"), "\x00", "-")
	return store.EndpointStatus{Node: parts[0], Endpoint: v3.Key{Kind: v3.KindWorkloadEndpoint, Namespace: namespace, Name: name}}, ok
}
