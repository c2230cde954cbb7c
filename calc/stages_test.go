package calc

import (
	"net/netip"
	"reflect"
	"slices"
	"strings"
	"testing"

	v3 "margay/api/v3"
	"margay/ruleset"
)

// wep writes a workload of this node behind an interface, with fields of spec.
func wep(name, iface, fields string) string {
	return "kind: WorkloadEndpoint\nmetadata: {name: " + name + ", namespace: ns, labels: {app: " + name + "}}\n" +
		"spec: {node: " + here + ", orchestrator: k8s, interfaceName: \"" + iface + "\", ipNetworks: [10.1.0.1/32, \"fd00::1/128\"], " + fields + "}"
}

func calicoWorld(t fatal) *world {
	w := newWorld(t)
	w.calc.SetSettings(ruleset.Settings{WorkloadPrefixes: []string{"cali"}})
	return w
}

func walkText(w ruleset.Walk) string {
	list := func(tiers []ruleset.Tier) string {
		var names []string
		for _, tier := range tiers {
			for _, id := range tier.Policies {
				names = append(names, id.Name)
			}
		}
		return strings.Join(names, ",")
	}
	return list(w.Ingress) + "/" + list(w.Egress)
}

// TestStages: which policy is walked where.
func TestStages(t *testing.T) {
	const everything = "ingress: [{action: Allow}], egress: [{action: Allow}], types: [Ingress, Egress]"
	tests := []struct {
		name, fields                        string
		normal, forward, preDNAT, untracked string // of the host endpoint eth0
		wildNormal, wildUntracked           string // of the host endpoint for all interfaces
		workload                            string
	}{
		{"normal", everything, "p/p", "/", "/", "/", "p/p", "/", "p/p"},
		{"normal, one direction", "types: [Egress], egress: [{action: Allow}]", "/p", "/", "/", "/", "/p", "/", "/p"},
		{"forward", "applyOnForward: true, " + everything, "p/p", "p/p", "/", "/", "p/p", "/", "p/p"},
		{"preDNAT", "applyOnForward: true, preDNAT: true, types: [Ingress], ingress: [{action: Deny}]", "/", "/", "p/", "/", "/", "/", "/"},
		{"untracked", "applyOnForward: true, doNotTrack: true, " + everything, "/", "/", "/", "p/p", "/", "/", "/"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			texts := []string{
				"kind: GlobalNetworkPolicy\nmetadata: {name: p}\nspec: {" + test.fields + "}",
				host("eth0", "eth0", ""), host("all", "*", ""), wep("w", "cali1", ""),
			}
			for range 2 {
				slices.Reverse(texts)
				p := calicoWorld(t).apply(texts...).fake.Program()
				ep, all := p.Endpoints[ruleset.EndpointID{Kind: "HostEndpoint", Name: "eth0"}], p.Endpoints[ruleset.EndpointID{Kind: "HostEndpoint", Name: "all"}]
				w := p.Workloads[ruleset.EndpointID{Kind: "WorkloadEndpoint", Namespace: "ns", Name: "w"}]
				got := []string{walkText(ep.Normal), walkText(ep.Forward), walkText(ep.PreDNAT), walkText(ep.Untracked), walkText(all.Normal), walkText(all.Untracked), walkText(w.Normal)}
				want := []string{test.normal, test.forward, test.preDNAT, test.untracked, test.wildNormal, test.wildUntracked, test.workload}
				if !slices.Equal(got, want) {
					t.Errorf("normal, forward, preDNAT, untracked, wildcard normal, wildcard untracked, workload = %q, want %q", got, want)
				}
			}
		})
	}
}

// TestPolicyOfNobody: a policy that selects only endpoints that have no such stage is not told.
func TestPolicyOfNobody(t *testing.T) {
	untracked := "kind: GlobalNetworkPolicy\nmetadata: {name: p}\nspec: {applyOnForward: true, doNotTrack: true, types: [Ingress, Egress]}"
	w := calicoWorld(t).apply(untracked, host("all", "*", ""), wep("w", "cali1", ""))
	if n := len(w.fake.Program().Policies); n != 0 {
		t.Errorf("%d policies", n)
	}
	if n := len(w.apply(host("all", "eth0", "")).fake.Program().Policies); n != 1 {
		t.Errorf("the endpoint has a name now: %d policies", n)
	}
	if n := len(w.apply(host("all", "*", "")).fake.Program().Policies); n != 0 {
		t.Errorf("it has none again: %d policies", n)
	}
}

// TestWorkloads: what is told of a workload.
func TestWorkloads(t *testing.T) {
	const namespace = "kind: Profile\nmetadata: {name: kns.ns}\nspec: {ingress: [{action: Allow}], labelsToApply: {pcns.env: prod}}"
	id := ruleset.EndpointID{Kind: "WorkloadEndpoint", Namespace: "ns", Name: "w"}
	w := calicoWorld(t).apply(namespace, wep("w", "cali1", `profiles: [kns.ns], allowSpoofedSourcePrefixes: [192.0.2.1/24, 10.9.0.0/16, 192.0.2.0/24]`),
		"kind: NetworkPolicy\nmetadata: {name: np, namespace: ns}\nspec: {selector: app == 'w', ingress: [{action: Allow, source: {selector: all()}}]}",
		"kind: NetworkPolicy\nmetadata: {name: other, namespace: other}\nspec: {}",
		"kind: GlobalNetworkPolicy\nmetadata: {name: gnp}\nspec: {namespaceSelector: env == 'prod', types: [Egress]}")
	want := &ruleset.Workload{
		ID: id, Interface: "cali1", Addrs: []netip.Addr{addr("10.1.0.1"), addr("fd00::1")}, Spoofable: pfx("10.9.0.0/16", "192.0.2.0/24"),
		Normal: ruleset.Walk{
			Ingress: []ruleset.Tier{{Name: "default", Policies: []ruleset.PolicyID{{Kind: "NetworkPolicy", Namespace: "ns", Name: "np"}}}},
			Egress:  []ruleset.Tier{{Name: "default", Policies: []ruleset.PolicyID{{Kind: "GlobalNetworkPolicy", Name: "gnp"}}}},
		},
		Profiles: []string{"kns.ns"},
	}
	p := w.fake.Program()
	if got := p.Workloads[id]; !reflect.DeepEqual(got, want) {
		t.Errorf("workload is\n%+v, want\n%+v", got, want)
	}
	if len(p.Endpoints) != 0 || len(p.Policies) != 2 || len(p.Profiles) != 1 || len(p.Sets) != 1 {
		t.Errorf("program is %s", print(p))
	}
	steps := []struct {
		name   string
		change func()
		iface  string // "-": not there
	}{
		{"an interface that is no workload's", func() { w.apply(wep("w", "eth0", "")) }, ""},
		{"the prefix changes", func() {
			w.calc.SetSettings(ruleset.Settings{WorkloadPrefixes: []string{"cali", "eth"}})
			w.flush()
		}, "eth0"},
		{"no interface", func() { w.apply(wep("w", "", "")) }, ""},
		{"it is back", func() { w.apply(wep("w", "cali1", "")) }, "cali1"},
		{"another one wants it", func() { w.apply(wep("a", "cali1", "")) }, ""},
		{"that one goes", func() { w.remove(v3.KindWorkloadEndpoint, "ns", "a") }, "cali1"},
		{"it moves", func() { w.apply(strings.Replace(wep("w", "cali1", ""), here, "other", 1)) }, "-"},
		{"it is deleted", func() { w.apply(wep("w", "cali1", "")).remove(v3.KindWorkloadEndpoint, "ns", "w") }, "-"},
	}
	for _, step := range steps {
		step.change()
		got := "-"
		if told := w.fake.Program().Workloads[id]; told != nil {
			got = told.Interface
		}
		if got != step.iface {
			t.Errorf("%s: interface %q, want %q", step.name, got, step.iface)
		}
	}
}

// TestServices: rules with services follow what is known of them, member by member.
func TestServices(t *testing.T) {
	w := calicoWorld(t).apply(wep("w", "cali1", ""), `kind: NetworkPolicy
metadata: {name: p, namespace: ns}
spec:
  ingress: [{action: Allow, source: {services: {name: web}}}]
  egress: [{action: Allow, protocol: TCP, destination: {services: {name: web}}}, {action: Deny, destination: {services: {name: web, namespace: elsewhere}}}]`)
	policy := w.fake.Program().Policies[ruleset.PolicyID{Kind: "NetworkPolicy", Namespace: "ns", Name: "p"}]
	source, ports := policy.Ingress[0].Source.Sets[0], policy.Egress[0].Destination.Ports.Named[0]
	if elsewhere := policy.Egress[1].Destination.Ports.Named[0]; elsewhere == ports {
		t.Error("services of different namespaces share a set")
	}
	content := func(id ruleset.SetID) string {
		var list []string
		for _, m := range w.fake.Program().Sets[id].Members() {
			text := m.Prefix.Addr().String()
			if m.Port > 0 {
				text = strings.Join([]string{text, ruleset.ProtocolText(m.Protocol), v3.Port{First: m.Port, Last: m.Port}.String()}, " ")
			}
			list = append(list, text)
		}
		return strings.Join(list, ", ")
	}
	a, b, udp := ServiceEndpoint{addr("10.1.0.1"), ruleset.TCP, 80}, ServiceEndpoint{addr("10.1.0.2"), ruleset.TCP, 80}, ServiceEndpoint{addr("10.1.0.1"), ruleset.UDP, 53}
	tests := []struct {
		name          string
		endpoints     []ServiceEndpoint
		source, ports string
		unknown       int
	}{
		{"unknown", nil, "", "", 2},
		{"no endpoint", []ServiceEndpoint{}, "", "", 1},
		{"two ports, one address", []ServiceEndpoint{a, udp}, "10.1.0.1", "10.1.0.1 TCP 80, 10.1.0.1 UDP 53", 1},
		{"one goes, one comes, one comes twice", []ServiceEndpoint{b, udp, b}, "10.1.0.1, 10.1.0.2", "10.1.0.1 UDP 53, 10.1.0.2 TCP 80", 1},
		{"a port without a number", []ServiceEndpoint{{Addr: addr("10.1.0.3"), Protocol: ruleset.TCP}}, "10.1.0.3", "", 1},
		{"IPv6, and IPv4 in the clothes of it", []ServiceEndpoint{{addr("::ffff:10.1.0.1"), ruleset.TCP, 1}, {addr("fd00::1"), ruleset.SCTP, 2}}, "10.1.0.1, fd00::1", "10.1.0.1 TCP 1, fd00::1 SCTP 2", 1},
		{"no address", []ServiceEndpoint{{}}, "", "", 1},
		{"unknown again", nil, "", "", 2},
	}
	for _, test := range tests {
		w.calc.SetService("ns", "web", test.endpoints)
		d := w.flush()
		if len(d.Policies)+len(d.Workloads) != 0 {
			t.Errorf("%s: more than sets is told: %+v", test.name, d)
		}
		if got := content(source); got != test.source {
			t.Errorf("%s: sources %s, want %s", test.name, got, test.source)
		}
		if got := content(ports); got != test.ports {
			t.Errorf("%s: destinations %s, want %s", test.name, got, test.ports)
		}
		if got := w.warned("is not known"); len(got) != test.unknown {
			t.Errorf("%s: warnings %q, want %d", test.name, got, test.unknown)
		}
	}
	w.calc.SetService("ns", "web", []ServiceEndpoint{a})
	w.remove(v3.KindNetworkPolicy, "ns", "p")
	if n := len(w.fake.Program().Sets); n != 0 {
		t.Errorf("%d sets without a rule", n)
	}
	late := w.apply("kind: NetworkPolicy\nmetadata: {name: q, namespace: ns}\nspec: {ingress: [{action: Allow, source: {services: {name: web}}}]}")
	if got := content(source); got != "10.1.0.1" || late.calc.Counts().ActiveSelectors != 1 {
		t.Errorf("a rule that comes later finds %s", got)
	}
}

// TestPodToPod: both ends have their say, in a program that calc made.
func TestPodToPod(t *testing.T) {
	client := strings.NewReplacer("10.1.0.1", "10.1.0.2", "fd00::1", "fd00::2").Replace(wep("client", "cali2", "profiles: [projectcalico-default-allow]"))
	w := calicoWorld(t).apply(wep("server", "cali1", "profiles: [projectcalico-default-allow]"), client)
	allowed := func() bool {
		return w.fake.Verdict(&ruleset.Packet{In: "cali2", Out: "cali1", Protocol: ruleset.TCP, DstPort: 80, Src: addr("10.1.0.2"), Dst: addr("10.1.0.1")}).Allowed
	}
	steps := []struct {
		name, text string
		want       bool
	}{
		{"no policy", "kind: Tier\nmetadata: {name: default}", true},
		{"ingress is closed", "kind: NetworkPolicy\nmetadata: {name: in, namespace: ns}\nspec: {selector: app == 'server', types: [Ingress]}", false},
		{"ingress is open", "kind: NetworkPolicy\nmetadata: {name: in, namespace: ns}\nspec: {selector: app == 'server', ingress: [{action: Allow, source: {selector: app == 'client'}}]}", true},
		{"egress is closed", "kind: GlobalNetworkPolicy\nmetadata: {name: out}\nspec: {selector: app == 'client', types: [Egress]}", false},
		{"egress is open", "kind: GlobalNetworkPolicy\nmetadata: {name: out}\nspec: {selector: app == 'client', egress: [{action: Allow, destination: {serviceAccounts: {names: [robot]}}}]}", false},
		{"with the account", wep("server", "cali1", "serviceAccountName: robot"), true},
	}
	for _, step := range steps {
		w.apply(step.text)
		if got := allowed(); got != step.want {
			t.Errorf("%s: allowed %v, want %v", step.name, got, step.want)
		}
	}
}

// TestNothingIsFilteredBeforeAnEndpointExists: interfaces of unknown workloads are closed from the first endpoint of the
// datastore on, until the last one goes.
func TestNothingIsFilteredBeforeAnEndpointExists(t *testing.T) {
	c, p := New("here"), ruleset.NewProgram()
	c.SetSettings(ruleset.Settings{WorkloadPrefixes: []string{"cali"}})
	fromWorkload := &ruleset.Packet{In: "cali1", Src: netip.MustParseAddr("10.0.0.1"), Dst: netip.MustParseAddr("10.0.0.2"), Protocol: ruleset.TCP, DstPort: 80}
	check := func(when string, allowed bool) {
		t.Helper()
		p.Apply(c.Flush())
		if v := ruleset.Eval(p, fromWorkload); v.Allowed != allowed {
			t.Errorf("%s: %+v", when, v)
		}
	}
	check("no endpoint", true)
	key := v3.Key{Kind: v3.KindHostEndpoint, Name: "h"}
	h := &v3.HostEndpoint{Spec: v3.HostEndpointSpec{Node: "there", InterfaceName: "eth0"}}
	c.Update(key, h)
	c.SetInterface("cali1", nil)
	c.SetInterface("eth0", nil)
	check("an endpoint of another node", false)
	if w := c.Warnings(); len(w) != 1 || w[0].Key.Name != "here" || !strings.Contains(w[0].Text, "for cali1, by name") {
		t.Errorf("warnings %v", w)
	}
	c.Update(key, h)
	c.Update(key, nil)
	c.Update(key, nil)
	check("it is gone", true)
}
