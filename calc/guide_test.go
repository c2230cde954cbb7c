package calc

import (
	"net/netip"
	"testing"

	v3 "margay/api/v3"
	"margay/ruleset"
)

// The sources of the guide's story.
const (
	stranger = "192.0.2.7"
	manager  = "172.15.0.101"
	nodeZero = "10.100.0.16"
)

// expect compares which of the sources reach a port.
func (w *world) expect(t *testing.T, step string, port uint16, want map[string]bool) {
	t.Helper()
	for src, allowed := range want {
		if v := w.scrape(src, port); v.Allowed != allowed {
			t.Errorf("%s: %s to port %d: %+v, want allowed %v", step, src, port, v, allowed)
		}
	}
}

func failsafes() ruleset.Settings {
	return ruleset.Settings{FailsafeIngress: []ruleset.Failsafe{{Protocol: ruleset.TCP, Port: 22}}}
}

const labelledClient = `kind: HostEndpoint
metadata: {name: client, labels: {calico-prometheus-access: 'true'}}
spec: {node: elsewhere, interfaceName: eth0, expectedIPs: [192.0.2.7]}
`

// TestGuideDenyList follows the deny-list half of the guide for calico/node.
func TestGuideDenyList(t *testing.T) {
	w := newWorld(t)
	w.calc.SetSettings(failsafes())
	everybody := map[string]bool{stranger: true, manager: true, nodeZero: true}
	nobody := map[string]bool{stranger: false, manager: false, nodeZero: false}

	w.flush()
	w.expect(t, "nothing applied", 9091, everybody)
	w.applyFile("default-host-policy.yaml")
	w.expect(t, "default policy", 9091, everybody)
	w.applyFile("host-endpoints.yaml")
	w.expect(t, "host endpoints", 9091, everybody)
	w.applyFile("deny-policy.yaml")
	w.expect(t, "restricted", 9091, nobody)
	w.expect(t, "restricted", 9100, everybody)
	w.applyFile("network-set.yaml")
	w.expect(t, "network set", 9091, map[string]bool{stranger: false, manager: true, nodeZero: false})
	w.apply(labelledClient)
	w.expect(t, "labelled client", 9091, map[string]bool{stranger: true, manager: true, nodeZero: false})
	w.remove(v3.KindGlobalNetworkSet, "", "calico-prometheus-set")
	w.expect(t, "network set is gone", 9091, map[string]bool{stranger: true, manager: false, nodeZero: false})
	w.remove(v3.KindHostEndpoint, "", "client")
	w.expect(t, "client is gone", 9091, nobody)
	w.remove(v3.KindGlobalNetworkPolicy, "", "restrict-calico-node-prometheus")
	w.expect(t, "policy is gone", 9091, everybody)
}

// TestGuideAllowList follows the allow-list half.
func TestGuideAllowList(t *testing.T) {
	w := newWorld(t)
	w.calc.SetSettings(failsafes())
	nobody := map[string]bool{stranger: false, manager: false, nodeZero: false}

	w.applyFile("host-endpoints.yaml")
	w.expect(t, "host endpoints only", 9091, nobody)
	w.expect(t, "host endpoints only", 9100, nobody)
	w.expect(t, "failsafe", 22, map[string]bool{stranger: true})
	out := w.fake.Verdict(&ruleset.Packet{Out: "eth0", Protocol: ruleset.TCP, DstPort: 443,
		Src: netip.MustParseAddr("10.100.0.15"), Dst: netip.MustParseAddr(stranger)})
	if out.Allowed || out.Reason != ruleset.NoProfile {
		t.Errorf("egress without policy: %+v", out)
	}
	w.applyFile("allow-policy.yaml")
	w.expect(t, "allow policy", 9091, nobody)
	w.apply(labelledClient)
	w.expect(t, "labelled client", 9091, map[string]bool{stranger: true, manager: false})
	w.expect(t, "labelled client", 9100, nobody)
	w.applyFile("network-set-host.yaml")
	w.expect(t, "network set", 9091, map[string]bool{manager: true, "172.15.0.100": false, nodeZero: false})
}

// TestLabelChangeMovesMembersOnly: a label change on an endpoint or set is told as members of a set, nothing else.
func TestLabelChangeMovesMembersOnly(t *testing.T) {
	w := newWorld(t).applyFile("host-endpoints.yaml").applyFile("deny-policy.yaml")
	r := parse(t, labelledClient)[0]
	w.calc.Update(v3.KeyOf(r), r)
	d := w.flush()
	if len(d.Sets) != 1 || len(d.Endpoints)+len(d.Policies)+len(d.Profiles) != 0 {
		t.Fatalf("delta = %+v, want one set", d)
	}
	want := ruleset.Member{Prefix: netip.MustParsePrefix("192.0.2.7/32")}
	for id, change := range d.Sets {
		if change.New != nil || len(change.Remove) != 0 || len(change.Add) != 1 || change.Add[0] != want {
			t.Errorf("set %s changes by %+v, want %v added", id, change, want)
		}
	}
}
