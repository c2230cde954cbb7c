package calc

import (
	"fmt"
	"maps"
	"net/netip"
	"reflect"
	"slices"
	"strings"
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"pgregory.net/rapid"

	v3 "margay/api/v3"
	"margay/ruleset"
	"margay/selector"
)

// The pools are small so that objects meet.
var (
	kindPool = []v3.Kind{
		v3.KindTier, v3.KindGlobalNetworkPolicy, v3.KindGlobalNetworkPolicy, v3.KindGlobalNetworkPolicy, v3.KindNetworkPolicy,
		v3.KindHostEndpoint, v3.KindHostEndpoint, v3.KindHostEndpoint, v3.KindWorkloadEndpoint, v3.KindWorkloadEndpoint,
		v3.KindGlobalNetworkSet, v3.KindGlobalNetworkSet, v3.KindNetworkSet, v3.KindProfile, v3.KindProfile, v3.KindNode,
		v3.KindStagedGlobalNetworkPolicy, v3.KindStagedNetworkPolicy, v3.KindStagedKubernetesNetworkPolicy, v3.KindIPPool,
		v3.KindFelixConfiguration, v3.KindBGPConfiguration,
	}
	labelPool = []map[string]string{
		nil, {"a": "x"}, {"a": "z"}, {"a": "x", "b": "x"}, {"b": "z", "c": ""},
		{"a": "x", "projectcalico.org/namespace": "ns1"}, {"pcns.env": "own"},
	}
	selectorPool = []string{
		"", "", "all()", `a == "x"`, `a != "x"`, `has(b)`, `!has(b)`, `a in {"x", "z"} && has(b)`, `b starts with "x" || c == ""`,
		`projectcalico.org/namespace == "ns1"`, `pcns.env == "prod"`, `a = broken`,
	}
	nsSelectorPool = []string{"", "", "", "all()", "global()", `env == "prod"`, `env != "prod"`}
	addrPool       = []string{"10.0.0.1", "10.0.0.2", "10.0.0.3", "fd00::1", "fd00::2"}
	netPool        = []string{"10.0.0.0/8", "10.0.0.1", "10.0.0.1/32", "fd00::/8", "0.0.0.0/0", "bogus"}
	profilePool    = []string{"kns.ns1", "kns.ns2", "p1", "projectcalico-default-allow"}
	ifacePool      = []string{"eth0", "eth1", "cali1", "cali2", "kube-ipvs0"}
	actionPool     = []string{"", "Set", "Set", "Delete", "Delete", "Learn"}
	portPool       = []v3.Port{{First: 80, Last: 80}, {First: 1, Last: 100}, {Name: "http"}, {Name: "dns"}}
	protocolPool   = []v3.Protocol{v3.ProtocolTCP, v3.ProtocolUDP, "17", v3.ProtocolICMP, "bogus"}
)

func draw[T any](t *rapid.T, pool []T) T { return rapid.SampledFrom(pool).Draw(t, "v") }

func some[T any](t *rapid.T, pool []T, most int) []T {
	return rapid.SliceOfN(rapid.SampledFrom(pool), 0, most).Draw(t, "list")
}

func seldom(t *rapid.T) bool { return rapid.IntRange(0, 15).Draw(t, "seldom") == 0 }

func rarely(t *rapid.T) bool { return rapid.IntRange(0, 3).Draw(t, "rarely") == 0 }

// oneOf returns nil three times out of four.
func oneOf[T any](t *rapid.T, pool []T) *T {
	if !rarely(t) {
		return nil
	}
	v := draw(t, pool)
	return &v
}

func drawEntity(t *rapid.T) v3.EntityRule {
	var e v3.EntityRule
	if !rarely(t) {
		e.Selector, e.NotSelector, e.NamespaceSelector = draw(t, selectorPool), draw(t, selectorPool), draw(t, nsSelectorPool)
	}
	if rarely(t) {
		e.Nets, e.NotNets = some(t, netPool, 2), some(t, netPool, 1)
	}
	if rarely(t) {
		e.Ports, e.NotPorts = some(t, portPool, 3), some(t, portPool, 1)
	}
	if seldom(t) {
		e = v3.EntityRule{Services: &v3.ServiceMatch{Name: draw(t, []string{"s1", "s2", "s1", ""}), Namespace: draw(t, []string{"ns1", ""})}}
	}
	return e
}

func drawRules(t *rapid.T) []v3.Rule {
	rules := make([]v3.Rule, rapid.IntRange(0, 3).Draw(t, "rules"))
	for i := range rules {
		rules[i] = v3.Rule{
			Action: draw(t, []string{"Allow", "Deny", "Pass", "Log"}), Protocol: oneOf(t, protocolPool),
			NotProtocol: oneOf(t, protocolPool), IPVersion: oneOf(t, []int{4, 6}),
			Source: drawEntity(t), Destination: drawEntity(t),
		}
	}
	return rules
}

func drawPolicySpec(t *rapid.T) v3.PolicySpec {
	return v3.PolicySpec{
		Tier: draw(t, []string{"", "default", "t1", "gone"}), Order: oneOf(t, []float64{-1, 0, 10}),
		Selector: draw(t, append([]string{"", "", "", ""}, selectorPool...)), ServiceAccountSelector: draw(t, []string{"", "", "", "", "", "", "all()", `role == "web"`}),
		Types: draw(t, [][]string{nil, {"Ingress"}, {"Egress"}, {"Ingress", "Egress"}}), Ingress: drawRules(t), Egress: drawRules(t),
	}
}

// drawResource returns a new value for one of a few objects.
func drawResource(t *rapid.T) (v3.Key, v3.Resource) {
	info, _ := v3.Lookup(draw(t, kindPool))
	r := info.New()
	r.SetName(fmt.Sprint("o", rapid.IntRange(0, 2).Draw(t, "name")))
	r.SetLabels(draw(t, labelPool))
	if info.Namespaced {
		r.SetNamespace(draw(t, []string{"ns1", "ns2"}))
	}
	node := draw(t, []string{here, here, "other"})
	switch r := r.(type) {
	case *v3.Tier:
		r.SetName(draw(t, []string{"default", "t1"}))
		r.Spec = v3.TierSpec{Order: oneOf(t, []float64{1, 2}), DefaultAction: draw(t, []string{"", "Deny", "Pass"})}
	case *v3.GlobalNetworkPolicy:
		r.Spec = v3.GlobalNetworkPolicySpec{PolicySpec: drawPolicySpec(t), NamespaceSelector: draw(t, nsSelectorPool),
			DoNotTrack: seldom(t), PreDNAT: seldom(t), ApplyOnForward: rarely(t)}
	case *v3.NetworkPolicy:
		r.Spec = drawPolicySpec(t)
	case *v3.StagedGlobalNetworkPolicy:
		r.Spec.StagedAction = draw(t, actionPool)
		r.Spec.GlobalNetworkPolicySpec = v3.GlobalNetworkPolicySpec{PolicySpec: drawPolicySpec(t), PreDNAT: rarely(t), ApplyOnForward: rarely(t)}
	case *v3.StagedNetworkPolicy:
		r.Spec = v3.StagedNetworkPolicySpec{StagedAction: draw(t, actionPool), PolicySpec: drawPolicySpec(t)}
	case *v3.StagedKubernetesNetworkPolicy:
		r.Spec = v3.StagedKubernetesNetworkPolicySpec{StagedAction: draw(t, actionPool), PolicyTypes: draw(t, [][]string{nil, {"Egress"}}),
			PodSelector: metav1.LabelSelector{MatchLabels: draw(t, labelPool)}, Ingress: []v3.KubernetesIngressRule{{}}}
	case *v3.Profile:
		r.SetName(draw(t, profilePool))
		r.Spec = v3.ProfileSpec{Ingress: drawRules(t), Egress: drawRules(t), LabelsToApply: draw(t, []map[string]string{
			nil, {"pcns.env": "prod"}, {"pcns.env": "test", "a": "z"}, {"pcsa.role": "web", "b": "x"}})}
	case *v3.HostEndpoint:
		r.Spec = v3.HostEndpointSpec{Node: node, InterfaceName: draw(t, []string{"", "", "eth0", "eth1", "*", "cali1"}),
			ExpectedIPs: append(some(t, addrPool, 2), draw(t, addrPool)), Profiles: some(t, profilePool, 2),
			Ports: some(t, []v3.EndpointPort{{Name: "http", Protocol: "TCP", Port: 80}, {Name: "dns", Protocol: "UDP", Port: 53}}, 2)}
	case *v3.WorkloadEndpoint:
		r.Spec = v3.WorkloadEndpointSpec{Node: node, Orchestrator: "k8s", ServiceAccountName: draw(t, []string{"", "robot"}),
			InterfaceName: draw(t, []string{"", "cali1", "cali1", "cali2", "eth1"}), AllowSpoofedSourcePrefixes: some(t, netPool, 2),
			IPNetworks: append(some(t, addrPool, 2), draw(t, addrPool)), Profiles: some(t, profilePool, 2),
			Ports: some(t, []v3.WorkloadEndpointPort{{Name: "http", Protocol: "TCP", Port: 8080}, {Name: "http", Protocol: "UDP", Port: 80}}, 2)}
	case *v3.Node:
		r.Spec.BGP = &v3.NodeBGPSpec{IPv4Address: draw(t, []string{"10.0.0.1/24", "10.0.0.9", "bogus", ""}), IPv6Address: draw(t, []string{"fd00::1/64", ""})}
		r.Spec.Addresses = []v3.NodeAddress{{Address: draw(t, append([]string{"bogus"}, addrPool...))}}
	case *v3.GlobalNetworkSet:
		r.Spec.Nets = some(t, netPool, 3)
	case *v3.NetworkSet:
		r.Spec.Nets = some(t, netPool, 3)
	case *v3.IPPool:
		r.Spec.CIDR, r.Spec.NATOutgoing = draw(t, netPool), !rarely(t)
	case *v3.BGPConfiguration:
		r.SetName(draw(t, []string{"default", "default", "node.h"}))
		for _, net := range some(t, netPool, 3) {
			r.Spec.ServiceClusterIPs = append(r.Spec.ServiceClusterIPs, v3.CIDRBlock{CIDR: net})
		}
	case *v3.FelixConfiguration:
		r.SetName(draw(t, []string{"default", "node.h"}))
		r.Spec.NATOutgoingExclusions = oneOf(t, []string{"IPPoolsAndHostIPs", "IPPoolsOnly"})
	}
	return v3.KeyOf(r), r
}

// A state is all that a Calc's output may depend on.
type state struct {
	resources map[v3.Key]v3.Resource
	ifaces    map[string][]netip.Addr
	services  map[serviceKey][]ServiceEndpoint
	settings  ruleset.Settings
	ways      map[netip.Addr]Way
	hostPods  []v3.HostPod
}

var servicePool = []ServiceEndpoint{
	{addr("10.0.0.1"), ruleset.TCP, 80}, {addr("10.0.0.1"), ruleset.TCP, 81}, {addr("10.0.0.2"), ruleset.UDP, 53}, {addr("10.0.0.3"), ruleset.TCP, 0},
	{addr("fd00::1"), ruleset.TCP, 80}, {addr("::ffff:10.0.0.2"), ruleset.UDP, 53},
}

// step changes the state at random and tells the Calc, now and then twice.
func (s *state) step(t *rapid.T, c *Calc) {
	switch rapid.IntRange(0, 13).Draw(t, "step") {
	case 13:
		s.hostPods = nil
		for i := range rapid.IntRange(0, 2).Draw(t, "pods") {
			s.hostPods = append(s.hostPods, v3.HostPod{Namespace: "ns1", Name: fmt.Sprint("pod", i), Node: draw(t, []string{here, "other"}), Labels: draw(t, labelPool)})
		}
		c.SetHostPods(s.hostPods)
	case 12:
		s.ways = map[netip.Addr]Way{}
		for _, a := range some(t, addrPool, 3) {
			s.ways[addr(a)] = Way{draw(t, ifacePool), draw(t, []string{"", "", "cni0"}), draw(t, []string{"", "off"})}
		}
		c.SetWays(s.ways)
	case 10:
		key := serviceKey{"ns1", draw(t, []string{"s1", "s2"})}
		s.services[key] = append([]ServiceEndpoint{}, some(t, servicePool, 4)...)
		c.SetService(key.namespace, key.name, s.services[key])
	case 11:
		key := serviceKey{"ns1", draw(t, []string{"s1", "s2"})}
		delete(s.services, key)
		c.SetService(key.namespace, key.name, nil)
	case 0:
		name, addrs := draw(t, ifacePool), []netip.Addr{}
		for _, a := range some(t, addrPool, 2) {
			addrs = append(addrs, netip.MustParseAddr(a))
		}
		s.ifaces[name] = addrs
		c.SetInterface(name, addrs)
	case 1:
		name := draw(t, ifacePool)
		delete(s.ifaces, name)
		c.RemoveInterface(name)
	case 2:
		s.settings = draw(t, []ruleset.Settings{{}, {Reject: true}, {WorkloadPrefixes: []string{"cali"}}, {WorkloadPrefixes: []string{"cali"}, AllowSpoofing: true}, {WorkloadPrefixes: []string{"eth0"}},
			{Tunnels: []ruleset.Tunnel{{Protocol: 4}}}, {Tunnels: []ruleset.Tunnel{{Protocol: 4}}, Reject: true},
			{ServiceNets: []netip.Prefix{}, RejectLoops: true}, {RejectLoops: true}})
		c.SetSettings(s.settings)
	case 3, 4:
		key, _ := drawResource(t)
		delete(s.resources, key)
		c.Update(key, nil)
	default:
		key, r := drawResource(t)
		s.resources[key] = r
		for range draw(t, []int{1, 1, 2}) {
			c.Update(key, r)
		}
	}
}

// fresh returns what a new Calc makes of the state, told in random order and flushed at random moments.
func (s *state) fresh(t *rapid.T) *world {
	w := newWorld(t)
	var tell []func()
	for key, r := range s.resources {
		tell = append(tell, func() { w.calc.Update(key, r) })
	}
	for name, addrs := range s.ifaces {
		tell = append(tell, func() { w.calc.SetInterface(name, addrs) })
	}
	for key, endpoints := range s.services {
		tell = append(tell, func() { w.calc.SetService(key.namespace, key.name, endpoints) })
	}
	tell = append(tell, func() { w.calc.SetSettings(s.settings) }, func() { w.calc.SetWays(s.ways) },
		func() { w.calc.SetHostPods(s.hostPods) })
	for _, f := range rapid.Permutation(tell).Draw(t, "order") {
		f()
		if rarely(t) {
			w.flush()
		}
	}
	w.flush()
	return w
}

// TestIncrementalIsFromScratch: whatever happened before, the Program, the warnings and the counts are those of a new
// Calc that is told the current state, and every Delta on the way is minimal and keeps the invariants.
func TestIncrementalIsFromScratch(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s := &state{resources: map[v3.Key]v3.Resource{}, ifaces: map[string][]netip.Addr{}, services: map[serviceKey][]ServiceEndpoint{}}
		w := newWorld(t)
		for range 40 {
			key, r := drawResource(t)
			s.resources[key] = r
			w.calc.Update(key, r)
		}
		for range 3 {
			for range rapid.IntRange(1, 15).Draw(t, "steps") {
				s.step(t, w.calc)
				if rarely(t) {
					w.flush()
				}
			}
			w.flush()
			compare(t, s, w)
		}
	})
}

func compare(t *rapid.T, s *state, w *world) {
	other := s.fresh(t)
	if got, want := w.fake.Program(), other.fake.Program(); !reflect.DeepEqual(got, want) {
		t.Fatalf("state %+v\nincremental %s\nfrom scratch %s", s.resources, print(got), print(want))
	}
	if got, want := w.calc.Warnings(), other.calc.Warnings(); !slices.Equal(got, want) {
		t.Fatalf("warnings %q, from scratch %q", got, want)
	}
	if got, want := w.calc.Counts(), other.calc.Counts(); got != want {
		t.Fatalf("counts %+v, from scratch %+v", got, want)
	}
	checkSets(t, s, w.calc, w.fake.Program())
	checkNeeded(t, w.fake.Program())
}

// checkNeeded: what is in the program is there for somebody.
func checkNeeded(t *rapid.T, p *ruleset.Program) {
	policies, profiles, sets := map[ruleset.PolicyID]bool{}, map[string]bool{}, map[ruleset.SetID]bool{}
	walked := func(w *ruleset.Walk) {
		for _, tier := range slices.Concat(w.Ingress, w.Egress) {
			for _, id := range tier.Policies {
				policies[id] = true
			}
		}
	}
	for _, ep := range p.Endpoints {
		for _, stage := range []ruleset.Stage{ruleset.Normal, ruleset.Forward, ruleset.PreDNAT, ruleset.Untracked} {
			walked(ep.Walk(stage))
		}
		for _, name := range ep.Profiles {
			profiles[name] = true
		}
	}
	for _, w := range p.Workloads {
		walked(&w.Normal)
		for _, name := range w.Profiles {
			profiles[name] = true
		}
	}
	used := func(rules []ruleset.Rule) {
		for _, r := range rules {
			for _, e := range []ruleset.Entity{r.Source, r.Destination} {
				for _, ports := range []*ruleset.Ports{e.Ports, e.NotPorts} {
					if ports != nil {
						e.Sets = slices.Concat(e.Sets, ports.Named)
					}
				}
				for _, id := range slices.Concat(e.Sets, e.NotSets) {
					sets[id] = true
				}
			}
		}
	}
	for id, policy := range p.Policies {
		if !policies[id] {
			t.Fatalf("nobody walks policy %s", id)
		}
		used(slices.Concat(policy.Ingress, policy.Egress))
	}
	for name, profile := range p.Profiles {
		if !profiles[name] {
			t.Fatalf("nobody walks profile %s", name)
		}
		used(slices.Concat(profile.Ingress, profile.Egress))
	}
	sets[ruleset.Hosts] = len(p.Settings.Tunnels) > 0
	if sets[ruleset.Hosts] && p.Sets[ruleset.Hosts] == nil {
		t.Fatal("there are tunnels and no hosts")
	}
	for id := range p.Sets {
		if !sets[id] {
			t.Fatalf("no rule names set %s", id)
		}
	}
}

func print(p *ruleset.Program) string {
	text := fmt.Sprintf("%+v\n", p.Settings)
	for _, ep := range p.Endpoints {
		text += fmt.Sprintf("%+v\n", *ep)
	}
	for _, w := range p.Workloads {
		text += fmt.Sprintf("%+v\n", *w)
	}
	for _, policy := range p.Policies {
		text += fmt.Sprintf("%+v\n", *policy)
	}
	for _, profile := range p.Profiles {
		text += fmt.Sprintf("%+v\n", *profile)
	}
	for id, set := range p.Sets {
		text += fmt.Sprintf("%s %s: %v\n", id, set.Comment, set.Members())
	}
	return text
}

// checkSets compares every set with one made by asking every selector for every object.
func checkSets(t *rapid.T, s *state, c *Calc, p *ruleset.Program) {
	for id, set := range p.Sets {
		want := ruleset.NewSet(set.Kind, set.Comment)
		for key, r := range s.resources {
			for _, m := range bruteMembers(c.sets[id], key, r, s) {
				want.Add(m)
			}
		}
		for _, e := range s.services[c.sets[id].service] {
			a := e.Addr.Unmap()
			switch m := (ruleset.Member{Prefix: netip.PrefixFrom(a, a.BitLen())}); {
			case set.Kind == ruleset.Addrs:
				want.Add(m)
			case e.Port > 0:
				m.Protocol, m.Port = e.Protocol, e.Port
				want.Add(m)
			}
		}
		if !reflect.DeepEqual(set, want) {
			t.Fatalf("set %s holds %v, want %v", set.Comment, set.Members(), want.Members())
		}
	}
}

// bruteMembers is a second implementation of what an object gives to a set, from the resource alone.
func bruteMembers(s *set, key v3.Key, r v3.Resource, world *state) []ruleset.Member {
	var addrs, profiles []string
	var ports []v3.WorkloadEndpointPort
	forced := map[string]string{}
	switch r := r.(type) {
	case *v3.Node:
		if s.id != ruleset.Hosts {
			return nil
		}
		var members []ruleset.Member
		for _, text := range []string{r.Spec.BGP.IPv4Address, r.Spec.BGP.IPv6Address, r.Spec.Addresses[0].Address} {
			if a, err := netip.ParseAddr(strings.Split(text, "/")[0]); err == nil {
				members = append(members, ruleset.Member{Prefix: netip.PrefixFrom(a, a.BitLen())})
			}
		}
		return members
	case *v3.HostEndpoint:
		addrs, profiles = r.Spec.ExpectedIPs, r.Spec.Profiles
		for _, p := range r.Spec.Ports {
			ports = append(ports, v3.WorkloadEndpointPort{Name: p.Name, Protocol: p.Protocol, Port: p.Port})
		}
	case *v3.WorkloadEndpoint:
		addrs, profiles, ports = r.Spec.IPNetworks, r.Spec.Profiles, r.Spec.Ports
		forced = map[string]string{labelNamespace: key.Namespace, labelOrchestrator: r.Spec.Orchestrator, labelServiceAccount: r.Spec.ServiceAccountName}
	case *v3.GlobalNetworkSet:
		addrs = r.Spec.Nets
	case *v3.NetworkSet:
		addrs, profiles, forced = r.Spec.Nets, []string{"kns." + key.Namespace}, map[string]string{labelNamespace: key.Namespace}
	}
	all := selector.Map{}
	for _, name := range slices.Backward(profiles) {
		if p, ok := world.resources[v3.Key{Kind: v3.KindProfile, Name: name}].(*v3.Profile); ok && name != defaultAllow {
			overlay(all, p.Spec.LabelsToApply)
		}
	}
	overlay(all, r.GetLabels())
	overlay(all, forced)
	if s.term == nil || !s.term.sel.Matches(all) {
		return nil
	}
	var members []ruleset.Member
	for _, a := range addrs {
		prefix, ok := parsePrefix(a)
		if ok && s.kind == ruleset.Addrs {
			members = append(members, ruleset.Member{Prefix: prefix})
		}
		for _, p := range ports {
			if n, _ := p.Protocol.Number(); p.Name == s.port && (s.protocol == 0 || s.protocol == n) {
				members = append(members, ruleset.Member{Prefix: prefix, Protocol: n, Port: p.Port})
			}
		}
	}
	return members
}

func overlay(labels selector.Map, more map[string]string) {
	for name, value := range more {
		if value != "" || name == "c" {
			labels[name] = value
		}
	}
}

// TestIndexAgainstBruteForce: an index finds exactly the selectors that match, each once, after any changes.
func TestIndexAgainstBruteForce(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		x := newIndex[int]()
		terms := map[int]*term[int]{}
		extra := draw(t, []int{0, 20}) // with many labels in the index it goes by those of the object
		for i := range extra {
			terms[-1-i] = &term[int]{sel: mustParse(fmt.Sprintf("has(l%d)", i)), use: -1 - i}
			x.add(terms[-1-i])
		}
		for i := range rapid.IntRange(1, 20).Draw(t, "changes") {
			if rarely(t) && len(terms) > extra {
				id := draw(t, slices.DeleteFunc(slices.Sorted(maps.Keys(terms)), func(id int) bool { return id < 0 }))
				x.remove(terms[id])
				delete(terms, id)
				continue
			}
			a, b := draw(t, selectorPool[:len(selectorPool)-1]), draw(t, selectorPool[:len(selectorPool)-1])
			sel := selector.And(mustParse(a), selector.Not(mustParse(b)))
			if rapid.Bool().Draw(t, "plain") {
				sel = mustParse(a)
			}
			terms[i] = &term[int]{sel: sel, use: i}
			x.add(terms[i])
		}
		for range 4 {
			l := &labels{own: draw(t, labelPool), parents: []*profile{{labels: draw(t, labelPool)}, {labels: draw(t, labelPool)}}}
			if rarely(t) {
				l.forced = []label{{"a", "z"}}
			}
			var got, want []int
			x.match(l, func(id int) { got = append(got, id) })
			for id, term := range terms {
				if term.sel.Matches(l) {
					want = append(want, id)
				}
			}
			slices.Sort(got)
			slices.Sort(want)
			if !slices.Equal(got, want) {
				t.Fatalf("labels %+v: index finds %v, want %v", l, got, want)
			}
		}
		for _, term := range terms {
			x.remove(term)
		}
		if x.size != 0 || len(x.names) != 0 || len(x.rest) != 0 {
			t.Fatalf("an empty index holds %+v", x)
		}
	})
}
