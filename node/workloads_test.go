package node

import (
	"context"
	"net/netip"
	"strings"
	"sync/atomic"
	"testing"

	v3 "margay/api/v3"
	"margay/calc"
	"margay/node/pods"
	"margay/ruleset"
)

// TestWorkloadsFound: nothing is programmed before it is known where workloads are; a workload has its policy on the interface
// that leads to it, and readiness goes while one is on a bridge.
func TestWorkloadsFound(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	found := make(chan wayList, 10)
	r.options.Ways = func(ctx context.Context, deliver func(map[netip.Addr]calc.Way)) error {
		for {
			select {
			case <-ctx.Done():
				return ctx.Err()
			case list := <-found:
				deliver(list)
			}
		}
	}
	var told atomic.Int32
	r.options.FilterBridge = func(string) error { told.Add(1); return nil }
	r.put(v3.KindProfile, `{"metadata": {"name": "p"}, "spec": {"ingress": [{"action": "Allow"}], "egress": [{"action": "Allow", "protocol": "UDP"}]}}`)
	r.put(v3.KindWorkloadEndpoint, `{"metadata": {"name": "w", "namespace": "ns"},
		"spec": {"node": "h", "orchestrator": "k8s", "ipNetworks": ["10.65.0.1/32"], "profiles": ["p"]}}`)
	r.begin()
	r.untilMetric("felix_resync_state 2")
	if calls := r.dp.Calls(); calls.Resync+calls.Apply > 0 {
		t.Fatalf("programmed before it is known where workloads are: %+v", calls)
	}
	if code, body := r.get(healthAt, "/readiness"); code != 503 || !strings.Contains(body, "waiting for routes and neighbours") {
		t.Errorf("readiness %d:\n%s", code, body)
	}
	verdict := func(iface string, protocol uint8) ruleset.Verdict {
		return r.dp.Verdict(&ruleset.Packet{In: iface, Out: "eth0", Src: netip.MustParseAddr("10.65.0.1"),
			Dst: netip.MustParseAddr("192.0.2.1"), Protocol: protocol, SrcPort: 40000, DstPort: 80})
	}
	enforced := func(iface string) func() bool {
		return func() bool { return !verdict(iface, ruleset.TCP).Allowed && verdict(iface, ruleset.UDP).Allowed }
	}
	found <- wayList{netip.MustParseAddr("10.65.0.1"): {Interface: "eni1"}}
	eventually(t, "its policy is on eni1", enforced("eni1"))
	r.untilReady()
	found <- wayList{netip.MustParseAddr("10.65.0.1"): {Interface: "eni2"}}
	eventually(t, "its policy is on eni2", enforced("eni2"))
	bridged := func(unfiltered string) wayList {
		return wayList{netip.MustParseAddr("10.65.0.1"): {Interface: "veth1", Bridge: "cni0", Unfiltered: unfiltered}}
	}
	unready := func(why string) func() bool {
		return func() bool {
			code, body := r.get(healthAt, "/readiness")
			return code == 503 && strings.Contains(body, "cni0: "+why)
		}
	}
	found <- bridged("no filter")
	eventually(t, "what passes its bridge is not filtered, and the agent is not ready", unready("no filter"))
	found <- bridged("")
	eventually(t, "its policy is on the bridge", enforced("cni0"))
	r.untilReady()
	found <- bridged(pods.Unasked)
	eventually(t, "the bridge is told to be filtered", func() bool { return told.Load() == 1 })
	found <- bridged("")
	r.untilReady()
	found <- bridged("gone")
	eventually(t, "the filter is gone", unready("gone"))
	found <- wayList{}
	r.untilReady()
}
