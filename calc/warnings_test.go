package calc

import (
	"strings"
	"testing"

	"margay/ruleset"
)

// TestWarnings has the traps of the spec: what is warned of, and what is done about it that makes the warning go.
func TestWarnings(t *testing.T) {
	global := func(fields string) string {
		return "kind: GlobalNetworkPolicy\nmetadata: {name: p}\nspec: {" + fields + "}"
	}
	local := func(fields string) string {
		return "kind: NetworkPolicy\nmetadata: {name: p, namespace: ns}\nspec: {" + fields + "}"
	}
	all := "kind: HostEndpoint\nmetadata: {name: all}\nspec: {node: " + here + ", interfaceName: '*', expectedIPs: [10.0.0.9], profiles: [projectcalico-default-allow]}"
	eth0 := strings.Replace(strings.Replace(all, "'*'", "eth0", 1), "name: all", "name: eth0", 1)
	w1 := wep("w", "cali1", "")
	knp := "kind: NetworkPolicy\nmetadata: {name: knp.default.p, namespace: ns}\nspec: {order: 1000, types: [Ingress]}"
	tests := []struct {
		name   string
		before []string
		bad    string // what is warned of
		good   string // what it is replaced by
		want   string // in the warning
	}{
		{"1.10 expectedIPs", nil, host("eth0", "eth0", ""), eth0, "HostEndpoint(eth0): spec.expectedIPs is empty"},
		{"2.1 selector all() catches hosts", []string{eth0, w1}, global(`selector: all()`), global(`namespaceSelector: all()`), "GlobalNetworkPolicy(p): spec.selector is empty or all()"},
		{"2.1 no selector catches hosts", []string{eth0, w1}, global(`order: 1`), global(`selector: role == "x"`), "GlobalNetworkPolicy(p): spec.selector is empty or all()"},
		{"2.1 namespaceSelector that hosts satisfy", []string{eth0}, global(`namespaceSelector: env != "prod"`), global(`namespaceSelector: env == "prod"`), "GlobalNetworkPolicy(p): spec.namespaceSelector matches host endpoints"},
		{"1.6 != holds where the label is not", []string{eth0}, global(`selector: role != "db"`), global(`selector: "!has(role)"`), `spec.selector "role != \"db\"" also matches`},
		{"1.6 not in", []string{eth0}, global(`selector: 'role not in {"db"}'`), global(`selector: 'role not in {"db"} && has(role)'`), "also matches what does not have the label"},
		{"2.2 dangling tier", []string{eth0}, global(`tier: gone`), global(`tier: default`), "tier gone does not exist: the policy is walked after all tiers"},
		{"2.3 Log only", []string{eth0}, global(`ingress: [{action: Log}]`), global(`ingress: [{action: Log}, {action: Allow}]`), "GlobalNetworkPolicy(p): all ingress of HostEndpoint(eth0) is denied at the end of tier default (normal stage): the rules of GlobalNetworkPolicy(p) only Log"},
		{"2.3 Deny only, of a workload", []string{w1}, local(`egress: [{action: Deny}], types: [Egress]`), local(`types: [Egress]`), "NetworkPolicy(ns/p): all egress of WorkloadEndpoint(ns/w) is denied at the end of tier default (normal stage): the rules of NetworkPolicy(ns/p) only Deny"},
		{"2.3 Deny only, forwarded", []string{eth0}, global(`applyOnForward: true, ingress: [{action: Deny}]`), global(`applyOnForward: true, ingress: [{action: Deny}, {action: Pass}]`), "(forward stage)"},
		{"2.3 missing profile", nil, strings.Replace(eth0, "projectcalico-default-allow", "gone", 1), eth0, "HostEndpoint(eth0): profile gone does not exist"},
		{"2.3 nothing opens a host", nil, "kind: HostEndpoint\nmetadata: {name: eth0}\nspec: {node: " + here + ", interfaceName: eth0, expectedIPs: [10.0.0.9]}", eth0, "HostEndpoint(eth0): no policy applies to ingress and egress and there is no profile"},
		{"2.3 nothing opens egress (G4)", []string{"kind: HostEndpoint\nmetadata: {name: eth0}\nspec: {node: " + here + ", interfaceName: eth0, expectedIPs: [10.0.0.9]}"},
			global(`ingress: [{action: Allow}]`), global(`types: [Ingress, Egress], ingress: [{action: Allow}]`), "no policy applies to egress and there is no profile"},
		{"2.4 selector all() of a rule", []string{eth0}, global(`ingress: [{action: Allow, source: {selector: all()}}]`), global(`ingress: [{action: Allow}]`), "spec.ingress[0].source.selector: all() matches the addresses of known"},
		{"2.4 notSelector in a NetworkPolicy (G3)", []string{w1}, local(`ingress: [{action: Deny, source: {notSelector: has(a)}}, {action: Allow}]`), local(`ingress: [{action: Deny, source: {namespaceSelector: all(), notSelector: has(a)}}, {action: Allow}]`), "spec.ingress[0].source.notSelector: without a namespaceSelector it covers namespace ns only"},
		{"1.6 != of whom is allowed", []string{eth0}, global(`ingress: [{action: Allow, source: {selector: role != "db"}}]`), global(`ingress: [{action: Allow, source: {selector: role == "web"}}]`), `spec.ingress[0].source.selector "role != \"db\"" also matches`},
		{"2.4 notSelector in all namespaces", []string{w1}, local(`ingress: [{action: Deny, source: {namespaceSelector: all(), notSelector: has(a)}}, {action: Allow}]`), local(`ingress: [{action: Allow, source: {namespaceSelector: all(), selector: has(a)}}, {action: Deny}]`), "beside namespaceSelector all() the rule covers what is in some namespace only"},
		{"2.10 no failsafe ports", nil, "kind: HostEndpoint\nmetadata: {name: eth0}\nspec: {node: " + here + ", interfaceName: eth0, expectedIPs: [10.0.0.9]}", eth0, "all of it but failsafe ports (none is set) is denied"},
		{"2.4 http", []string{w1}, local(`ingress: [{action: Allow, http: {methods: [GET]}}]`), local(`ingress: [{action: Allow}]`), "spec.ingress[0].http: is not enforced"},
		{"2.4 unknown service", []string{w1}, local(`ingress: [{action: Allow, source: {services: {name: s}}}]`), local(`ingress: [{action: Allow}]`), "service ns/s is not known"},
		{"2.7 doNotTrack on *", []string{all}, global(`doNotTrack: true, applyOnForward: true, types: [Ingress, Egress]`), global(`types: [Ingress, Egress]`), "spec.doNotTrack: HostEndpoint(all) is for all interfaces and ignores the policy"},
		{"2.7 doNotTrack in one direction", []string{eth0}, global(`doNotTrack: true, applyOnForward: true, types: [Ingress]`), global(`doNotTrack: true, applyOnForward: true, types: [Ingress, Egress]`), "spec.doNotTrack: replies are not known"},
		{"2.7 preDNAT on *", []string{all}, global(`preDNAT: true, applyOnForward: true`), global(`order: 1`), "spec.preDNAT: HostEndpoint(all) is for all interfaces"},
		{"2.7 forward on *", []string{all}, global(`applyOnForward: true`), global(`order: 1`), "spec.applyOnForward: HostEndpoint(all) is for all interfaces"},
		{"2.1 workloads ignore preDNAT", []string{w1}, global(`preDNAT: true, applyOnForward: true, selector: app == "w"`), global(`selector: app == "w"`), "the policy selects workloads only, which ignore"},
		{"2.8 node ports", []string{eth0}, global(`ingress: [{action: Deny, protocol: TCP, destination: {ports: [80, "30000:30100"]}}]`), global(`preDNAT: true, applyOnForward: true, ingress: [{action: Deny, protocol: TCP, destination: {ports: ["30000:30100"]}}]`), "spec.ingress[0].destination.ports[1]: 30000:30100 is a node port"},
		{"2.8 spoofing is off", nil, wep("w", "cali1", "allowSpoofedSourcePrefixes: [10.0.0.0/8]"), w1, "spec.allowSpoofedSourcePrefixes has no effect"},
		{"2.8 a prefix that is none", nil, wep("w", "cali1", "allowSpoofedSourcePrefixes: [bogus]"), w1, `spec.allowSpoofedSourcePrefixes[0]: "bogus" is not an address`},
		{"2.8 no interface", nil, wep("w", "", ""), w1, "no interface is the workload's"},
		{"2.8 no address", nil, strings.Replace(w1, `10.1.0.1/32, "fd00::1/128"`, "", 1), w1, "spec.ipNetworks is empty"},
		{"2.8 an interface that is no workload's", nil, wep("w", "eth7", ""), w1, `WorkloadEndpoint(ns/w): interface eth7 is no workload's by its name (InterfacePrefix says how those begin: ["cali"])`},
		{"2.8 two workloads of one interface", []string{wep("a", "cali1", "")}, w1, wep("w", "cali2", ""), "WorkloadEndpoint(ns/w): interface cali1 belongs to WorkloadEndpoint(ns/a)"},
		{"2.12 Allow after a policy of Kubernetes", []string{w1, knp}, global(`selector: app == "w", ingress: [{action: Allow}]`), global(`selector: app == "w", order: 999, ingress: [{action: Allow}]`),
			"GlobalNetworkPolicy(p): spec.ingress: what NetworkPolicy(ns/knp.default.p) of Kubernetes does not allow goes on"},
		{"2.12 Allow after a policy of Kubernetes, egress", []string{w1, strings.Replace(knp, "[Ingress]", "[Egress]", 1)}, local(`order: 2000, types: [Egress], egress: [{action: Allow}]`), local(`order: 2000, ingress: [{action: Allow}]`),
			"NetworkPolicy(ns/p): spec.egress: what NetworkPolicy(ns/knp.default.p) of Kubernetes"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			w := calicoWorld(t).iface("eth0", "fe80::1", "2001:db8::1").apply("kind: Tier\nmetadata: {name: default}").apply(test.before...)
			if got := w.warned(test.want); len(got) != 0 {
				t.Errorf("warned before: %q", got)
			}
			if got := w.apply(test.bad).warned(test.want); len(got) != 1 {
				t.Errorf("warnings %q, want one with %q", w.warnings(), test.want)
			}
			if got := w.apply(test.good).warned(test.want); len(got) != 0 {
				t.Errorf("still warned: %q", got)
			}
		})
	}
}

// TestFailsafeless: of a host endpoint that nothing opens it is said in which direction there is no failsafe port.
func TestFailsafeless(t *testing.T) {
	w := calicoWorld(t).apply("kind: HostEndpoint\nmetadata: {name: eth0}\nspec: {node: " + here + ", interfaceName: eth0, expectedIPs: [10.0.0.9]}")
	one := failsafes().FailsafeIngress
	for _, test := range []struct {
		settings ruleset.Settings
		want     string
	}{
		{ruleset.Settings{}, "failsafe ports (none is set) is denied"},
		{ruleset.Settings{FailsafeIngress: one}, "failsafe ports (none is set for egress: FailsafeOutboundHostPorts is empty) is denied"},
		{ruleset.Settings{FailsafeEgress: one}, "failsafe ports (none is set for ingress: FailsafeInboundHostPorts is empty) is denied"},
		{ruleset.Settings{FailsafeIngress: one, FailsafeEgress: one}, "failsafe ports is denied"},
	} {
		w.calc.SetSettings(test.settings)
		w.flush()
		if got := w.warned(test.want); len(got) != 1 {
			t.Errorf("warnings %q, want %q", w.warnings(), test.want)
		}
	}
}

// TestNoWarnings: policies that do what they say, of a guide that is followed to its end.
func TestNoWarnings(t *testing.T) {
	w := newWorld(t)
	w.calc.SetSettings(failsafes())
	w.apply("kind: Tier\nmetadata: {name: default}").applyFile("default-host-policy.yaml").applyFile("host-endpoints.yaml").applyFile("deny-policy.yaml").applyFile("network-set.yaml")
	if got := w.warnings(); len(got) != 0 {
		t.Errorf("warnings: %q", got)
	}
}

// TestWarningsOfNobody: a policy that selects no local endpoint is no matter of this host.
func TestWarningsOfNobody(t *testing.T) {
	w := newWorld(t).apply(gnp("p", "{action: Log}"))
	if got := w.warnings(); len(got) != 0 {
		t.Errorf("warnings: %q", got)
	}
}
