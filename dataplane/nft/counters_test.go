package nft

import (
	"fmt"
	"maps"
	"net"
	"net/netip"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"

	"margay/ruleset"
)

// countedProgram has an endpoint on lo with everything that counts.
func countedProgram() *ruleset.Program {
	p := ruleset.NewProgram()
	id := func(name string) ruleset.PolicyID { return ruleset.PolicyID{Kind: "GlobalNetworkPolicy", Name: name} }
	udp := func(a ruleset.Action, port uint16) ruleset.Rule {
		return ruleset.Rule{Action: a, Protocol: ruleset.UDP,
			Destination: ruleset.Entity{Ports: &ruleset.Ports{Ranges: []ruleset.PortRange{{First: port, Last: port}}}}}
	}
	local := udp(ruleset.Allow, 1004)
	local.Source.Nets = netsOf("127.0.0.0/8", "::1/128") // a rule of two families
	p.Policies[id("a")] = &ruleset.Policy{ID: id("a"), Ingress: []ruleset.Rule{udp(ruleset.Log, 1001), udp(ruleset.Deny, 1001), udp(ruleset.Pass, 1002)}}
	p.Policies[id("b")] = &ruleset.Policy{ID: id("b"), Ingress: []ruleset.Rule{udp(ruleset.Allow, 1003), local}}
	p.Profiles["open"] = &ruleset.Profile{Name: "open", Egress: []ruleset.Rule{{Action: ruleset.Allow}},
		Ingress: []ruleset.Rule{udp(ruleset.Allow, 1002)}}
	ep := ruleset.EndpointID{Kind: "HostEndpoint", Name: "lo"}
	p.Endpoints[ep] = &ruleset.Endpoint{ID: ep, Interfaces: []string{"lo"}, Profiles: []string{"open"},
		Normal: ruleset.Walk{Ingress: []ruleset.Tier{{Name: "first", Policies: []ruleset.PolicyID{id("a"), id("b")}}}}}
	p.Settings.FailsafeIngress = []ruleset.Failsafe{{Protocol: ruleset.UDP, Port: 1005}}
	return p
}

// sendUDP sends packets to a port of lo, each from a port of its own so that each is a flow of its own.
func (n *namespace) sendUDP(t *testing.T, host string, port uint16, packets int) {
	t.Helper()
	var err error
	n.do(func() {
		for range packets {
			var c net.Conn
			if c, err = net.Dial("udp", netip.AddrPortFrom(netip.MustParseAddr(host), port).String()); err != nil {
				return
			}
			_, err = c.Write([]byte("hello"))
			c.Close()
		}
	})
	if err != nil {
		t.Fatal(err)
	}
}

func (n *namespace) loopbackUp(t *testing.T) {
	t.Helper()
	h, err := netlink.NewHandleAt(netns.NsHandle(n.fd), unix.NETLINK_ROUTE)
	if err != nil {
		t.Fatal(err)
	}
	defer h.Close()
	lo, err := h.LinkByName("lo")
	if err == nil {
		err = h.LinkSetUp(lo)
	}
	if err != nil {
		t.Fatal(err)
	}
}

// nonzero returns packets by what they met, the endless egress left out.
func nonzero(t *testing.T, list []ruleset.Counter) map[string]uint64 {
	t.Helper()
	out := map[string]uint64{}
	for _, c := range list {
		if c.Packets == 0 || c.Direction == ruleset.Egress {
			continue
		}
		if metered := c.Endpoint == (ruleset.EndpointID{}); !metered && c.Endpoint.Name != "lo" || c.Stage != ruleset.Normal || c.Bytes < 33*c.Packets {
			t.Errorf("%+v", c)
		}
		name := fmt.Sprintf("%s %s %s", c.Action, c.Reason, c.Tier)
		if c.Policy.Name != "" {
			name += fmt.Sprintf(" %s %d", c.Policy, c.Rule)
		}
		out[name] += c.Packets
	}
	return out
}

// As many packets as are sent are counted, each where Eval says that it is decided.
func TestCounters(t *testing.T) {
	for _, lim := range testLimits {
		testCounters(t, lim)
	}
}

func testCounters(t *testing.T, lim limits) {
	n := newNamespace(t)
	n.loopbackUp(t)
	if list, err := Counters(t.Context(), Options{NetNS: n.fd}); err != nil || len(list) != 0 {
		t.Fatalf("without a table: %v %v", list, err)
	}
	d := n.open(t)
	d.limits = lim
	resync(t, d, countedProgram())
	for i, port := range []uint16{1001, 1002, 1003, 1004, 1005, 1006} {
		n.sendUDP(t, "127.0.0.1", port, i+1)
		n.sendUDP(t, "::1", port, 1)
	}
	list, err := Counters(t.Context(), Options{NetNS: n.fd})
	if err != nil {
		t.Fatal(err)
	}
	want := map[string]uint64{
		"Log policy rule first GlobalNetworkPolicy(a) 0":   2,
		"Deny policy rule first GlobalNetworkPolicy(a) 1":  2,
		"Pass policy rule first GlobalNetworkPolicy(a) 2":  3,
		"Allow profile rule  Profile(open) 0":              3,
		"Allow policy rule first GlobalNetworkPolicy(b) 0": 4,
		"Allow policy rule first GlobalNetworkPolicy(b) 1": 5,
		"Allow failsafe ":        6,
		"Deny end of tier first": 7,
	}
	if diff := cmp.Diff(want, nonzero(t, list)); diff != "" {
		t.Errorf("-want +got:\n%s\n%s", diff, d.image.table)
	}
	metered, err := NewMeter(Options{NetNS: n.fd}).Read(t.Context())
	if diff := cmp.Diff(byBroad(list), byBroad(metered), cmp.AllowUnexported(tally{})); diff != "" || err != nil {
		t.Errorf("Meter reads otherwise than Counters: %v\n%s", err, diff)
	}
}

// byBroad adds up what a Meter does not tell apart.
func byBroad(list []ruleset.Counter) map[ruleset.Counter]tally {
	sums := map[ruleset.Counter]tally{}
	for _, c := range list {
		t := sums[broad(c.Subject())]
		sums[broad(c.Subject())] = tally{t.packets + c.Packets, t.bytes + c.Bytes}
	}
	return sums
}

// A Meter goes on where a rule that was replaced left off, and counts nothing twice.
func TestMeter(t *testing.T) {
	for _, lim := range testLimits {
		testMeter(t, lim)
	}
}

func testMeter(t *testing.T, lim limits) {
	n := newNamespace(t)
	n.loopbackUp(t)
	d := n.open(t)
	d.limits = lim
	p := countedProgram()
	resync(t, d, p)
	m := NewMeter(Options{NetNS: n.fd})
	read := func() uint64 {
		t.Helper()
		list, err := m.Read(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		return nonzero(t, list)["Allow policy rule first GlobalNetworkPolicy(b) 0"]
	}
	b := ruleset.PolicyID{Kind: "GlobalNetworkPolicy", Name: "b"}
	// change gives the policy another rule: how much of the chain is replaced is for the compiler to decide.
	change := func(rules []ruleset.Rule) {
		t.Helper()
		policy := *p.Policies[b]
		policy.Ingress = rules
		applyBoth(t, d, p, &ruleset.Delta{Policies: map[ruleset.PolicyID]*ruleset.Policy{b: &policy}})
	}
	rules := slices.Clone(p.Policies[b].Ingress)
	steps := []struct {
		name string
		do   func()
		want uint64
	}{
		{"three packets", func() { n.sendUDP(t, "127.0.0.1", 1003, 3) }, 3},
		{"nothing", func() {}, 3},
		{"rule goes", func() { change(rules[1:]) }, 3},
		{"packets meet another", func() { n.sendUDP(t, "127.0.0.1", 1003, 2) }, 3},
		{"rule is back", func() { change(rules) }, 3},
		{"two packets", func() { n.sendUDP(t, "127.0.0.1", 1003, 2) }, 5},
		{"table anew", func() {
			if err := Cleanup(t.Context(), Options{NetNS: n.fd}); err != nil {
				t.Fatal(err)
			}
			resync(t, d, p)
		}, 5},
		{"one packet", func() { n.sendUDP(t, "127.0.0.1", 1003, 1) }, 6},
	}
	for _, s := range steps {
		s.do()
		if got := read(); got != s.want {
			t.Errorf("%s: %d, want %d", s.name, got, s.want)
		}
	}
}

// Whatever the chains and comments are, reading them ends and gives every counted rule once.
func TestViewOfLoops(t *testing.T) {
	v := &view{chains: map[string]*viewChain{
		"a": {rules: []viewRule{{said: &said{}, counts: true, target: "b"}}, parents: []string{"b"}},
		"b": {rules: []viewRule{{said: &said{}, counts: true, target: "a"}, {said: &said{}, counts: true, target: "c"}}, parents: []string{"a"}},
		"c": {comment: "shared tier x", rules: []viewRule{{said: &said{}, counts: true}}, parents: []string{"b", "d"}},
		"d": {comment: "HostEndpoint(h) forward egress tier y", rules: []viewRule{{said: &said{}, target: "c"}}},
	}}
	v.order = slices.Sorted(maps.Keys(v.chains))
	if got := v.counted(); len(got) != 4 {
		t.Errorf("%d rules, want 4: %+v", len(got), got)
	}
}

func TestReadPlace(t *testing.T) {
	h := ruleset.EndpointID{Kind: "HostEndpoint", Name: "h"}
	w := ruleset.EndpointID{Kind: "WorkloadEndpoint", Namespace: "ns", Name: "w"}
	tests := []struct {
		comment string
		want    ruleset.Counter
		ok      bool
	}{
		{"HostEndpoint(h) ingress", ruleset.Counter{Endpoint: h}, true},
		{"HostEndpoint(h) egress tier default", ruleset.Counter{Endpoint: h, Direction: ruleset.Egress, Tier: "default"}, true},
		{"HostEndpoint(h) ingress profiles", ruleset.Counter{Endpoint: h}, true},
		{"WorkloadEndpoint(ns/w) egress tier a", ruleset.Counter{Endpoint: w, Direction: ruleset.Egress, Tier: "a"}, true},
		{"HostEndpoint(h) pre-DNAT ingress tier a", ruleset.Counter{Endpoint: h, Stage: ruleset.PreDNAT, Tier: "a"}, true},
		{"HostEndpoint(h) untracked egress tier a", ruleset.Counter{Endpoint: h, Stage: ruleset.Untracked, Direction: ruleset.Egress, Tier: "a"}, true},
		{"HostEndpoint(h) forward ingress tier a", ruleset.Counter{Endpoint: h, Stage: ruleset.Forward, Tier: "a"}, true},
		{"HostEndpoint(h) ingress tier untracked", ruleset.Counter{Endpoint: h, Tier: "untracked"}, true},
		{"HostEndpoint(h) ingress forward tier egress", ruleset.Counter{Endpoint: h, Stage: ruleset.Forward, Tier: "egress"}, true},
		{"interface eth0", ruleset.Counter{}, false}, {"", ruleset.Counter{}, false},
	}
	for _, tt := range tests {
		if got, ok := readPlace(tt.comment); got != tt.want || ok != tt.ok {
			t.Errorf("%q: %+v %v, want %+v", tt.comment, got, ok, tt.want)
		}
	}
}

// BenchmarkCounters reads what a host with many rules counts: the cost of a scrape.
func BenchmarkCounters(b *testing.B) {
	for _, policies := range []int{10, 1_000, 10_000} {
		b.Run(fmt.Sprint(policies), func(b *testing.B) {
			n := newNamespace(b)
			d := n.open(b)
			p := countedProgram()
			ep := *p.Endpoints[ruleset.EndpointID{Kind: "HostEndpoint", Name: "lo"}]
			tier := &ep.Normal.Ingress[0]
			for i := range policies {
				id := ruleset.PolicyID{Kind: "GlobalNetworkPolicy", Name: fmt.Sprint("p", i)}
				policy := &ruleset.Policy{ID: id}
				for j := range 10 {
					port := uint16(10_000 + i%5000*10 + j)
					policy.Ingress = append(policy.Ingress, ruleset.Rule{Action: ruleset.Allow, Protocol: ruleset.TCP,
						Source:      ruleset.Entity{Nets: netsOf(fmt.Sprintf("10.1.%d.0/24", (i+j)%100), fmt.Sprintf("10.2.%d.7/32", (i+j)%100))},
						Destination: ruleset.Entity{Ports: &ruleset.Ports{Ranges: []ruleset.PortRange{{First: port, Last: port}}}}})
				}
				p.Policies[id] = policy
				tier.Policies = append(tier.Policies, id)
			}
			p.Endpoints[ep.ID] = &ep
			resync(b, d, p)
			m := NewMeter(Options{NetNS: n.fd})
			b.ReportAllocs()
			for b.Loop() {
				if _, err := m.Read(b.Context()); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// What denies or accepts without a policy is counted by its reason; notes are left to what no packet should meet.
func TestCausesAreRead(t *testing.T) {
	n := newNamespace(t)
	d := n.open(t)
	g := newGenerator(seedOf(t))
	seen := map[ruleset.Reason]bool{}
	for range 20 {
		p := g.program()
		p.Settings.ServiceNets = netsOf("10.96.0.0/12")
		resync(t, d, p)
		list, err := Counters(t.Context(), Options{NetNS: n.fd})
		if err != nil {
			t.Fatal(err)
		}
		for _, c := range list {
			seen[c.Reason] = true
			if c.Note != "" && c.Note != "no verdict from the endpoint" && c.Note != "no verdict from the workload" {
				t.Errorf("note %q", c.Note)
			}
			if c.Reason == ruleset.ServiceLoop && (c.Stage != ruleset.Forward || c.Action != ruleset.Deny) {
				t.Errorf("%+v", c)
			}
		}
	}
	if !seen[ruleset.ServiceLoop] || !seen[ruleset.StrangeTunnel] {
		t.Errorf("seen %v", seen)
	}
}
