package calc

import (
	"net/netip"
	"reflect"
	"testing"

	"margay/ruleset"
)

// bgp writes the BGPConfiguration of a name with fields of spec.
func bgp(name, fields string) string {
	return "kind: BGPConfiguration\nmetadata: {name: " + name + "}\nspec: {" + fields + "}"
}

// TestServiceSettings: what is told of services, step by step.
func TestServiceSettings(t *testing.T) {
	drop := ruleset.Settings{WorkloadPrefixes: []string{"cali"}, ServiceNets: []netip.Prefix{}}
	reject, disabled := drop, drop
	reject.RejectLoops, disabled.ServiceNets = true, nil
	const all = `serviceClusterIPs: [{cidr: 10.96.0.7/12}, {cidr: "fd96::/112"}, {}], serviceExternalIPs: [{cidr: 192.0.2.1/32}, {cidr: bogus}], serviceLoadBalancerIPs: [{cidr: 10.96.0.0/12}, {cidr: 10.0.0.0/24}]`
	w := newWorld(t)
	set := func(s ruleset.Settings) func() { return func() { w.calc.SetSettings(s); w.flush() } }
	nets := pfx("10.0.0.0/24", "10.96.0.0/12", "192.0.2.1/32", "fd96::/112")
	for _, step := range []struct {
		name   string
		change func()
		nets   []netip.Prefix
		reject bool
		ipvs   bool
	}{
		{"prevented", set(drop), nil, false, false},
		{"no endpoint", func() { w.apply(bgp("default", all)).iface("kube-ipvs0", "10.96.0.1") }, nil, false, false},
		{"a host endpoint elsewhere", func() { w.apply("kind: HostEndpoint\nmetadata: {name: h}\nspec: {node: other}") }, nets, false, true},
		{"another mode", func() { w.calc.RemoveInterface("kube-ipvs0"); w.flush() }, nets, false, false},
		{"it is hidden", func() { w.calc.SetHidden([]string{"kube-ipvs0"}); w.flush() }, nets, false, true},
		{"others are hidden", func() { w.calc.SetHidden([]string{"kube-ipvs01"}); w.flush() }, nets, false, false},
		{"rejected", set(reject), nets, true, false},
		{"disabled", set(disabled), nil, false, false},
		{"rejected again", set(reject), nets, true, false},
		{"one of a node", func() { w.apply(bgp("node.n", "listenPort: 179")) }, nets, true, false},
		{"fewer", func() { w.apply(bgp("default", "serviceClusterIPs: [{cidr: 10.96.0.0/12}]")) }, pfx("10.96.0.0/12"), true, false},
		{"none", func() { w.apply(bgp("default", "")) }, nil, false, false},
		{"all again", func() { w.apply(bgp("default", all)) }, nets, true, false},
		{"deleted", func() { w.remove("BGPConfiguration", "", "default") }, nil, false, false},
		{"after all", func() { w.apply(bgp("default", all)).remove("HostEndpoint", "", "h") }, nil, false, false},
	} {
		step.change()
		s := w.fake.Program().Settings
		if !reflect.DeepEqual(s.ServiceNets, step.nets) || s.RejectLoops != step.reject || s.IPVS != step.ipvs {
			t.Errorf("%s: service nets %v, reject %v, IPVS %v; want %v, %v, %v", step.name, s.ServiceNets, s.RejectLoops, s.IPVS, step.nets, step.reject, step.ipvs)
		}
	}
}

// TestAddressesOfServicesThatOthersHave: a BGPConfiguration that cuts hosts or workloads off is warned of.
func TestAddressesOfServicesThatOthersHave(t *testing.T) {
	const remote = "kind: HostEndpoint\nmetadata: {name: h2}\nspec: {node: other, expectedIPs: [192.0.2.2]}"
	for _, test := range []struct{ name, object, nets, want string }{
		{"a workload", wep("w", "cali1", ""), "10.1.0.0/16", "WorkloadEndpoint(ns/w)"},
		{"its IPv6", wep("w", "cali1", ""), "fd00::/64", "WorkloadEndpoint(ns/w)"},
		{"another host", remote, "192.0.2.2/32", "HostEndpoint(h2)"},
		{"a Node", "kind: Node\nmetadata: {name: other}\nspec: {addresses: [{address: 192.0.2.2}]}", "192.0.2.0/24", "Node(other)"},
		{"this host", host("h1", "eth0", "192.0.2.1"), "192.0.2.0/24", ""},
		{"the Node of this host", "kind: Node\nmetadata: {name: " + here + "}\nspec: {addresses: [{address: 192.0.2.1}]}", "192.0.2.0/24", ""},
		{"a network set", "kind: GlobalNetworkSet\nmetadata: {name: s}\nspec: {nets: [192.0.2.0/24]}", "192.0.2.0/24", ""},
		{"elsewhere", remote, "10.96.0.0/12", ""},
	} {
		w := calicoWorld(t)
		w.calc.SetSettings(ruleset.Settings{ServiceNets: []netip.Prefix{}})
		w.apply("kind: HostEndpoint\nmetadata: {name: somebody}\nspec: {node: third}", test.object, bgp("default", `serviceExternalIPs: [{cidr: "`+test.nets+`"}]`))
		want := 1
		if test.want == "" {
			want = 0
		}
		if got := w.warned("BGPConfiguration(default): serviceClusterIPs, serviceExternalIPs or serviceLoadBalancerIPs hold addresses of " + test.want); len(got) != want {
			t.Errorf("%s: warnings %q, want %d with %q", test.name, w.warnings(), want, test.want)
		}
		w.calc.SetSettings(ruleset.Settings{})
		w.flush()
		if got := w.warned("BGPConfiguration"); len(got) != 0 {
			t.Errorf("%s, disabled: %q", test.name, got)
		}
	}
}

// What IPVS balances is not answered, whether its interface is hidden or not.
func TestBalancedIsWarnedOf(t *testing.T) {
	w := calicoWorld(t)
	w.calc.SetSettings(ruleset.Settings{Reject: true})
	w.apply("kind: Tier\nmetadata: {name: default}").iface("eth0", "10.0.0.1")
	for _, step := range []struct {
		name   string
		change func()
		want   int
	}{
		{"nothing to police", func() { w.calc.SetHidden([]string{"kube-ipvs0"}) }, 0},
		{"a workload", func() { w.apply(wep("w", "cali1", "")) }, 1},
		{"another mode", func() { w.calc.SetHidden(nil) }, 0},
		{"not hidden", func() { w.iface("kube-ipvs0", "10.96.0.1") }, 1},
	} {
		step.change()
		w.flush()
		if got := w.warned("Node(" + here + "): kube-proxy balances services by IPVS"); len(got) != step.want {
			t.Errorf("%s: warnings %q", step.name, w.warnings())
		}
	}
}
