package etcd_test

import (
	"testing"

	"margay/store"
	"margay/store/etcd"
)

// A heartbeat is stored under the incumbent's keys, the first of them only as long as the status.
func TestHeartbeat(t *testing.T) {
	endpoint := startServer(t)
	client := rawClient(t, endpoint)
	s := openStore(t, etcd.Config{Endpoints: []string{endpoint}})
	defer s.Close()
	ctx := t.Context()
	status := store.NodeStatus{Node: "n", TTLSeconds: 30, Heartbeat: &store.Heartbeat{Time: "2026-01-01T00:00:00Z", UptimeSeconds: 1.5, First: true}}
	if err := s.ReportStatus(ctx, status); err != nil {
		t.Fatal(err)
	}
	for key, leased := range map[string]bool{"status": true, "last_reported_status": false} {
		resp, err := client.Get(ctx, "/calico/felix/v2/no-region/host/n/"+key)
		if err != nil || len(resp.Kvs) != 1 {
			t.Fatalf("%s: %v %v", key, resp, err)
		}
		kv := resp.Kvs[0]
		if string(kv.Value) != `{"time":"2026-01-01T00:00:00Z","uptime":1.5,"first_update":true}` || (kv.Lease != 0) != leased {
			t.Errorf("%s: %s, lease %d", key, kv.Value, kv.Lease)
		}
	}
	status.Heartbeat = nil
	status.Node = "silent"
	if err := s.ReportStatus(ctx, status); err != nil {
		t.Fatal(err)
	}
	if resp, err := client.Get(ctx, "/calico/felix/v2/no-region/host/silent/status"); err != nil || len(resp.Kvs) != 0 {
		t.Errorf("%v %v", resp, err)
	}
}
