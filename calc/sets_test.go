package calc

import (
	"net/netip"
	"slices"
	"testing"

	v3 "margay/api/v3"
	"margay/ruleset"
)

// content returns the members of the set of a selector as text, and whether there is such a set.
func (w *world) content(id ruleset.SetID) ([]string, bool) {
	set := w.fake.Program().Sets[id]
	if set == nil {
		return nil, false
	}
	list := []string{}
	for _, m := range set.Members() {
		text := m.Prefix.String()
		if set.Kind == ruleset.AddrPorts {
			text = netip.AddrPortFrom(m.Prefix.Addr(), m.Port).String() + "/" + string(v3Name(m.Protocol))
		}
		list = append(list, text)
	}
	return list, true
}

func v3Name(protocol uint8) v3.Protocol {
	for _, p := range []v3.Protocol{v3.ProtocolTCP, v3.ProtocolUDP, v3.ProtocolSCTP} {
		if n, _ := p.Number(); n == protocol {
			return p
		}
	}
	return "?"
}

const cluster = `kind: WorkloadEndpoint
metadata: {name: w1, namespace: red, labels: {app: web}}
spec: {node: other, orchestrator: k8s, serviceAccountName: robot, ipNetworks: [10.1.0.1/32, "fd01::1/128"], profiles: [kns.red, ksa.red.robot],
  ports: [{name: http, protocol: TCP, port: 8080}, {name: dns, protocol: UDP, port: 53}, {name: dns, protocol: TCP, port: 53}, {name: "", protocol: TCP, port: 1, hostPort: 1}]}
---
kind: WorkloadEndpoint
metadata: {name: w2, namespace: blue, labels: {app: web, projectcalico.org/namespace: red}}
spec: {node: kubeadm-master, orchestrator: k8s, ipNetworks: [10.1.0.2/32], profiles: [kns.blue], ports: [{name: http, protocol: TCP, port: 80}]}
---
kind: HostEndpoint
metadata: {name: h1, labels: {app: host}}
spec: {node: other, interfaceName: eth0, expectedIPs: [10.100.0.16], ports: [{name: http, protocol: TCP, port: 8000}]}
---
kind: HostEndpoint
metadata: {name: h2, labels: {app: host}}
spec: {node: other, interfaceName: eth1}
---
kind: NetworkSet
metadata: {name: s1, namespace: red, labels: {app: net}}
spec: {nets: [172.16.0.1, 172.16.0.77/16, "fd00::/8"]}
---
kind: GlobalNetworkSet
metadata: {name: g1, labels: {app: net}}
spec: {nets: [0.0.0.0/0]}
---
kind: Profile
metadata: {name: kns.red}
spec: {labelsToApply: {pcns.env: prod, pcns.projectcalico.org/name: red}}
---
kind: Profile
metadata: {name: kns.blue}
spec: {labelsToApply: {pcns.env: test}}
---
kind: Profile
metadata: {name: ksa.red.robot}
spec: {labelsToApply: {pcsa.role: scraper}}
`

// TestMembers: which objects give which addresses to a rule's set.
func TestMembers(t *testing.T) {
	one, two, host, everything := []string{"10.1.0.1/32", "fd01::1/128"}, "10.1.0.2/32", "10.100.0.16/32", "0.0.0.0/0"
	net := []string{"172.16.0.0/16", "172.16.0.1/32", "fd00::/8"}
	join := func(lists ...[]string) []string { return slices.Concat(lists...) }
	tests := []struct {
		selector string
		want     []string
	}{
		{`app == "web"`, join(one, []string{two})},
		{`app == "host"`, []string{host}},
		{`app == "net"`, join(net, []string{everything})},
		{`app in {"host", "net"}`, join(net, []string{host, everything})},
		{`all()`, join(one, net, []string{two, host, everything})},
		{`nobody == "x"`, nil},
		{`projectcalico.org/namespace == "red"`, join(one, net)},
		{`projectcalico.org/namespace == "blue"`, []string{two}},
		{`has(projectcalico.org/namespace)`, join(one, net, []string{two})},
		{`!has(projectcalico.org/namespace)`, []string{host, everything}},
		{`projectcalico.org/orchestrator == "k8s"`, join(one, []string{two})},
		{`projectcalico.org/serviceaccount in {"robot"}`, one},
		{`pcns.env == "prod"`, join(one, net)},
		{`pcns.projectcalico.org/name == "red"`, join(one, net)},
		{`pcsa.role == "scraper"`, one},
		{`pcns.env != "prod"`, []string{two, host, everything}},
	}
	for _, test := range tests {
		policy := gnp("p", `{action: Allow, source: {selector: '`+test.selector+`'}}`)
		slices.SortFunc(test.want, func(a, b string) int { return comparePrefixes(pfx(a)[0], pfx(b)[0]) })
		for _, order := range [][]string{{hep("ep", ""), policy, cluster}, {cluster, policy, hep("ep", "")}} {
			w := newWorld(t).apply(order...)
			w.remove(v3.KindHostEndpoint, "", "no such endpoint")
			got, ok := w.content(in(test.selector)[0])
			got = slices.DeleteFunc(got, func(m string) bool { return m == "10.100.0.15/32" }) // ep's own
			if !ok || !slices.Equal(got, test.want) {
				t.Errorf("%s holds %q (%v), want %q", test.selector, got, ok, test.want)
			}
		}
	}
}

func TestNamedPorts(t *testing.T) {
	tests := []struct {
		rule string
		set  ruleset.SetID
		want []string
	}{
		{`{action: Allow, protocol: TCP, destination: {ports: [http]}}`, portOf("all()", "http", 6),
			[]string{"10.1.0.1:8080/TCP", "10.1.0.2:80/TCP", "10.100.0.16:8000/TCP", "[fd01::1]:8080/TCP"}},
		{`{action: Allow, protocol: TCP, destination: {selector: app == "web", ports: [http]}}`, portOf(`app == "web"`, "http", 6),
			[]string{"10.1.0.1:8080/TCP", "10.1.0.2:80/TCP", "[fd01::1]:8080/TCP"}},
		{`{action: Allow, protocol: UDP, destination: {ports: [dns]}}`, portOf("all()", "dns", 17), []string{"10.1.0.1:53/UDP", "[fd01::1]:53/UDP"}},
		{`{action: Allow, destination: {ports: [dns]}}`, portOf("all()", "dns", 0),
			[]string{"10.1.0.1:53/TCP", "10.1.0.1:53/UDP", "[fd01::1]:53/TCP", "[fd01::1]:53/UDP"}},
		{`{action: Allow, protocol: UDP, destination: {ports: [http]}}`, portOf("all()", "http", 17), []string{}},
		{`{action: Allow, protocol: TCP, source: {notPorts: [http], namespaceSelector: env == "prod"}}`, portOf(`pcns.env == "prod"`, "http", 6),
			[]string{"10.1.0.1:8080/TCP", "[fd01::1]:8080/TCP"}},
	}
	for _, test := range tests {
		w := newWorld(t).apply(hep("ep", ""), gnp("p", test.rule), cluster)
		if got, ok := w.content(test.set); !ok || !slices.Equal(got, test.want) {
			t.Errorf("%s: set holds %q (%v), want %q", test.rule, got, ok, test.want)
		}
	}
}

// TestOwners: an address that several objects give stays until the last one lets go of it.
func TestOwners(t *testing.T) {
	set := func(name, label, nets string) string {
		return "kind: GlobalNetworkSet\nmetadata: {name: " + name + ", labels: {a: " + label + "}}\nspec: {nets: [" + nets + "]}"
	}
	id := in(`a == "x"`)[0]
	w := newWorld(t).apply(hep("ep", ""), gnp("p", `{action: Allow, source: {selector: a == "x"}}`))
	steps := []struct {
		name   string
		change func()
		want   []string
	}{
		{"two owners", func() { w.apply(set("s1", "x", "192.0.2.1, 192.0.2.1/32"), set("s2", "x", "192.0.2.1, 192.0.2.2")) }, []string{"192.0.2.1/32", "192.0.2.2/32"}},
		{"one goes", func() { w.remove(v3.KindGlobalNetworkSet, "", "s1") }, []string{"192.0.2.1/32", "192.0.2.2/32"}},
		{"one is relabelled", func() { w.apply(set("s1", "x", "192.0.2.1")); w.apply(set("s2", "z", "192.0.2.1, 192.0.2.2")) }, []string{"192.0.2.1/32"}},
		{"one drops the address", func() { w.apply(set("s2", "x", "192.0.2.1")); w.apply(set("s1", "x", "192.0.2.3")) }, []string{"192.0.2.1/32", "192.0.2.3/32"}},
		{"the last goes", func() { w.remove(v3.KindGlobalNetworkSet, "", "s2") }, []string{"192.0.2.3/32"}},
	}
	for _, step := range steps {
		step.change()
		if got, _ := w.content(id); !slices.Equal(got, step.want) {
			t.Errorf("%s: set holds %q, want %q", step.name, got, step.want)
		}
	}
}

// TestSharedSets: rules with equal canonical selectors share a set, which lives as long as one active rule uses it.
func TestSharedSets(t *testing.T) {
	w := newWorld(t).apply(cluster, hep("ep", "run: x"),
		gnp("p1", `{action: Allow, source: {selector: "app=='web'"}}`),
		gnp("p2", `{action: Deny, destination: {notSelector: 'app == "web"'}}`),
		"kind: GlobalNetworkPolicy\nmetadata: {name: idle}\nspec: {selector: run == 'z', ingress: [{action: Allow, source: {selector: has(other)}}]}")
	id, count := in(`app == "web"`)[0], func() int { return len(w.fake.Program().Sets) }
	if _, ok := w.content(id); !ok || count() != 1 {
		t.Fatalf("sets = %v", w.fake.Program().Sets)
	}
	w.remove(v3.KindGlobalNetworkPolicy, "", "p1")
	if _, ok := w.content(id); !ok {
		t.Error("the set is gone with one of its users")
	}
	w.remove(v3.KindGlobalNetworkPolicy, "", "p2")
	if count() != 0 {
		t.Errorf("the set stays without a user: %v", w.fake.Program().Sets)
	}
	w.apply(hep("ep", "run: z"))
	if _, ok := w.content(in("has(other)")[0]); !ok || count() != 1 {
		t.Errorf("sets = %v", w.fake.Program().Sets)
	}
	for key, it := range w.calc.items {
		dead := 0
		for _, s := range it.sets {
			if s.dead && s.owners != nil {
				t.Errorf("%s keeps what set %s held, which is gone", key, s.id)
			}
			if s.dead {
				dead++
			}
		}
		if len(it.sets) > 1 && dead == len(it.sets) {
			t.Errorf("%s collects sets that are gone: %d", key, dead)
		}
	}
}

// TestFaultyMembers: what does not parse is in no set and is told.
func TestFaultyMembers(t *testing.T) {
	w := newWorld(t).apply(hep("ep", ""), gnp("p", `{action: Allow, source: {selector: has(a)}}`),
		"kind: Tier\nmetadata: {name: default}",
		`kind: GlobalNetworkSet
metadata: {name: s, labels: {a: x}}
spec: {nets: [bogus, 192.0.2.1, "fe80::1%eth0", "::ffff:192.0.2.2", "::ffff:10.0.0.0/104"]}
---
kind: WorkloadEndpoint
metadata: {name: w, namespace: ns, labels: {a: x}}
spec: {ipNetworks: [10.1.0.0/24], ports: [{name: p, protocol: bogus, port: 1}]}`)
	if got, _ := w.content(in("has(a)")[0]); !slices.Equal(got, []string{"10.0.0.0/8", "192.0.2.1/32", "192.0.2.2/32"}) {
		t.Errorf("set holds %q", got)
	}
	want := []string{
		`GlobalNetworkSet(s): spec.nets[0]: "bogus" is not an address that fits here; it is in no set`,
		`GlobalNetworkSet(s): spec.nets[2]: "fe80::1%eth0" is not an address that fits here; it is in no set`,
		`WorkloadEndpoint(ns/w): spec.ipNetworks[0]: "10.1.0.0/24" is not an address that fits here; it is in no set`,
		`WorkloadEndpoint(ns/w): spec.ports[0]: protocol "bogus", port 1 is no port; it is in no set`,
	}
	if got := w.warned("it is in no set"); !slices.Equal(got, want) {
		t.Errorf("warnings = %q, want %q", got, want)
	}
}
