package node

import (
	"net/netip"
	"slices"
	"strings"
	"sync/atomic"
	"testing"

	v3 "margay/api/v3"
	"margay/ruleset"
	"margay/store"
)

// TestServiceSettings: the addresses of services reach the dataplane as they change.
func TestServiceSettings(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.fill()
	r.begin()
	settings := func(what string, holds func(*ruleset.Settings) bool) {
		t.Helper()
		eventually(t, what, func() bool { return holds(&r.dp.Program().Settings) })
	}
	toService := func() ruleset.Verdict {
		return r.dp.Verdict(&ruleset.Packet{In: "eth1", Out: "eth2", Src: netip.MustParseAddr("192.0.2.1"), Dst: netip.MustParseAddr("10.96.0.1"),
			Protocol: ruleset.TCP, SrcPort: 40000, DstPort: 80})
	}
	r.untilDenied("192.0.2.1", 80)
	if v := toService(); !v.Allowed {
		t.Errorf("no address is a service's: %+v", v)
	}
	r.put(v3.KindBGPConfiguration, `{"metadata":{"name":"default"},"spec":{"serviceClusterIPs":[{"cidr":"10.96.0.0/12"}]}}`)
	settings("addresses are services'", func(s *ruleset.Settings) bool { return len(s.ServiceNets) == 1 && !s.RejectLoops })
	r.store.spoil(v3.Key{Kind: v3.KindBGPConfiguration, Name: "default"}, garbage)
	r.untilMetric(`margay_store_faults{kind="BGPConfiguration",name="default"} 1`)
	if v := toService(); v.Allowed || v.Reason != ruleset.ServiceLoop {
		t.Errorf("a value that cannot be used changed what is in force: %+v", v)
	}
	r.put(v3.KindFelixConfiguration, `{"metadata":{"name":"default"},"spec":{"serviceLoopPrevention":"Reject"}}`)
	settings("loops are rejected", func(s *ruleset.Settings) bool { return len(s.ServiceNets) == 1 && s.RejectLoops })
	r.put(v3.KindFelixConfiguration, `{"metadata":{"name":"default"},"spec":{"serviceLoopPrevention":"Disabled"}}`)
	settings("loops are nobody's matter", func(s *ruleset.Settings) bool { return s.ServiceNets == nil && !s.RejectLoops })
	r.untilStatus("every parameter has an effect", func(s store.NodeStatus) bool { return len(s.Unused) == 0 })
}

// TestIPVS: the dataplane is told whether IPVS balances, and the status says if connection tracking does not see it.
func TestIPVS(t *testing.T) {
	t.Parallel()
	var tracks atomic.Bool
	r := newRig(t)
	r.options.TracksIPVS = tracks.Load
	r.fill()
	r.begin()
	untracked := func(s store.NodeStatus) bool {
		return slices.ContainsFunc(s.Warnings, func(w string) bool { return strings.HasPrefix(w, "Node(h): net.ipv4.vs.conntrack is 0") })
	}
	r.untilReady()
	if r.dp.Program().Settings.IPVS {
		t.Error("IPVS is there before its interface")
	}
	r.links <- map[string][]netip.Addr{"eth0": {netip.MustParseAddr("10.0.0.1")}, "kube-ipvs0": {netip.MustParseAddr("10.96.0.1")}}
	eventually(t, "IPVS balances", func() bool { return r.dp.Program().Settings.IPVS })
	r.untilStatus("what is not tracked", untracked)
	tracks.Store(true)
	r.dp.Disturb(ruleset.NewProgram())
	r.dp.disturbed <- struct{}{}
	r.untilStatus("all is tracked", func(s store.NodeStatus) bool { return !untracked(s) })
	r.links <- interfaces("eth0", "10.0.0.1")
	eventually(t, "IPVS is gone", func() bool { return !r.dp.Program().Settings.IPVS })
}
