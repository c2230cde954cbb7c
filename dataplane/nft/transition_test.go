package nft

import (
	"fmt"
	"net/netip"
	"os"
	"strconv"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"

	"margay/ruleset"
)

// Ports of probes, plus the number of their route: what every Program of a test allows, and what every one denies.
const (
	allowedPort = 8880
	deniedPort  = 9990
	spoofedPort = 7777 // allowed by policy, but not the source
)

// A lane is a way through the host that probes take. Both ends have many addresses but a workload's.
type lane struct {
	name    string
	in, out string // interfaces
}

var lanes = []lane{
	{"ingress", "t0", ""}, {"egress", "", "t0"}, {"to a workload", "t0", "cali0"}, {"from a workload", "cali0", "t0"},
	{"from a workload to the host", "cali0", ""}, {"sent elsewhere", "", ""},
}

// A train sends probes along its lanes, each a flow of its own, and counts which get past our table. The counting rules
// drop the probes, so that no connection is ever remembered.
type train struct {
	*wire
	counters *nftables.Conn
	chains   [2]*nftables.Chain
	lanes    []lane
	sent     []atomic.Uint64
	next     uint32
}

func newTrain(t testing.TB, lanes ...lane) *train {
	t.Helper()
	tr := &train{wire: newWire(t, interfaces...), lanes: lanes, sent: make([]atomic.Uint64, len(lanes))}
	if err := tr.translate(); err != nil {
		t.Fatal(err)
	}
	c, err := nftables.New(nftables.WithNetNSFd(tr.fd))
	if err != nil {
		t.Fatal(err)
	}
	tr.counters = c
	table := c.AddTable(&nftables.Table{Family: nftables.TableFamilyINet, Name: "observer"})
	priority := nftables.ChainPriority(behindPriority + 50)
	for i, hook := range []*nftables.ChainHook{nftables.ChainHookInput, nftables.ChainHookPostrouting} {
		tr.chains[i] = c.AddChain(&nftables.Chain{
			Name: fmt.Sprint("past", i), Table: table, Type: nftables.ChainTypeFilter, Hooknum: hook, Priority: &priority,
		})
		for _, port := range tr.ports() {
			c.AddRule(&nftables.Rule{Table: table, Chain: tr.chains[i], Exprs: []expr.Any{
				&expr.Meta{Key: expr.MetaKeyL4PROTO, Register: 1},
				&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: []byte{ruleset.UDP}},
				&expr.Payload{DestRegister: 1, Base: expr.PayloadBaseTransportHeader, Offset: 2, Len: 2},
				&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: []byte(portKey(port))},
				&expr.Counter{}, &expr.Verdict{Kind: expr.VerdictDrop},
			}})
		}
	}
	if err := c.Flush(); err != nil {
		t.Fatal(err)
	}
	return tr
}

// ports returns the ports that are counted.
func (tr *train) ports() []uint16 {
	var out []uint16
	for i := range tr.lanes {
		out = append(out, allowedPort+uint16(i), deniedPort+uint16(i))
	}
	return append(out, spoofedPort)
}

// run sends probes until stop is set.
func (tr *train) run(t testing.TB, stop *atomic.Bool) {
	for !stop.Load() {
		for i, l := range tr.lanes {
			tr.probe(t, l, allowedPort+uint16(i))
			tr.probe(t, l, deniedPort+uint16(i))
			if l.in == "cali0" {
				tr.probe(t, lane{"", "cali1", l.out}, spoofedPort)
			}
			tr.sent[i].Add(1)
		}
	}
}

// probe sends one probe. From cali1 it comes with an address of cali0.
func (tr *train) probe(t testing.TB, l lane, port uint16) {
	tr.next++
	peer := netip.AddrFrom4([4]byte{10, 1, byte(tr.next >> 16), byte(tr.next >> 8)})
	local := netip.AddrFrom4([4]byte{10, 2, 0, byte(tr.next)})
	ends := map[string]netip.Addr{"t0": peer, "cali0": own4(3, 1), "cali1": own4(3, 1), "": local}
	p := ruleset.Packet{In: l.in, Protocol: ruleset.UDP, SrcPort: uint16(1024 + tr.next%60000), DstPort: port,
		Src: ends[l.in], Dst: ends[l.out]}
	if l.in == "" && l.out == "" {
		p.Dst = virtual4[5] // behind t0, in truth
	}
	tr.emit(t, &p, uint16(tr.next))
}

// arrived returns how many probes got past our table, by port.
func (tr *train) arrived(t testing.TB) map[uint16]uint64 {
	out := map[uint16]uint64{}
	for _, chain := range tr.chains {
		rules, err := tr.counters.GetRules(chain.Table, chain)
		if err != nil || len(rules) != len(tr.ports()) {
			t.Fatalf("%d rules, %v", len(rules), err)
		}
		for i, port := range tr.ports() {
			out[port] += rules[i].Exprs[4].(*expr.Counter).Packets
		}
	}
	return out
}

func (tr *train) check(t testing.TB) {
	arrived := tr.arrived(t)
	for i, l := range tr.lanes {
		sent := tr.sent[i].Load()
		t.Logf("%s: %d allowed and as many denied probes", l.name, sent)
		if n := arrived[allowedPort+uint16(i)]; n != sent {
			t.Errorf("%s: %d of %d allowed probes were lost", l.name, sent-n, sent)
		}
		if n := arrived[deniedPort+uint16(i)]; n != 0 {
			t.Errorf("%s: %d denied probes passed", l.name, n)
		}
	}
	if n := arrived[spoofedPort]; n != 0 {
		t.Errorf("%d probes with a false source passed", n)
	}
}

// steps returns how many transitions to make: MARGAY_STEPS, or few.
func steps(t testing.TB, few int) int {
	n, err := strconv.Atoi(os.Getenv("MARGAY_STEPS"))
	if err != nil {
		return few
	}
	return n
}

// guard changes a Program or delta so that the probes meet their verdict, in a way drawn anew: in a policy or by a
// profile, by a set that covers all peers or by networks.
func (g generator) guard(s *ruleset.Settings, endpoints map[ruleset.EndpointID]*ruleset.Endpoint,
	workloads map[ruleset.EndpointID]*ruleset.Workload, policies map[ruleset.PolicyID]*ruleset.Policy) {
	if s != nil {
		s.WorkloadPrefixes, s.ServiceNets = []string{"cali"}, nil
		s.EndpointToHost = pick(g, ruleset.HostReturn, ruleset.HostAccept)
	}
	for id, ep := range endpoints {
		if ep == nil {
			continue
		}
		guardWalk(&ep.Normal)
		for _, s := range []ruleset.Stage{ruleset.Forward, ruleset.PreDNAT, ruleset.Untracked} {
			if w := ep.Walk(s); len(w.Ingress)+len(w.Egress) > 0 {
				*w = ruleset.Walk{}
				guardWalk(w)
			}
		}
		if id.Name == "e2" {
			ep.Interfaces = []string{ruleset.AllInterfaces}
		}
	}
	for id, w := range workloads {
		if w == nil {
			continue
		}
		guardWalk(&w.Normal)
		w.Spoofable = nil
		if id.Name == "w0" {
			w.Interface, w.Addrs = "cali0", addrsOf("10.13.0.1")
			w.Addrs = append(w.Addrs, list(g, 3, func() netip.Addr { return own4(3, 2+g.IntN(9)) })...)
		}
	}
	action := pick(g, ruleset.Allow, ruleset.Pass)
	policies[ruleset.PolicyID{Name: "guard"}] = g.guardPolicy(action, g.one(2))
	policies[ruleset.PolicyID{Name: "second"}] = g.guardPolicy(ruleset.Allow, g.one(2))
}

// guardWalk puts the tiers that decide about probes before others, and leaves few of those.
func guardWalk(w *ruleset.Walk) {
	for _, tiers := range []*[]ruleset.Tier{&w.Ingress, &w.Egress} {
		guard := []ruleset.Tier{{Name: "guard", Policies: []ruleset.PolicyID{{Name: "guard"}}},
			{Name: "second", Policies: []ruleset.PolicyID{{Name: "second"}}, EndPass: true}}
		*tiers = append(guard, (*tiers)[:min(1, len(*tiers))]...)
	}
}

func (g generator) guardPolicy(action ruleset.Action, bySet bool) *ruleset.Policy {
	rule := func(a ruleset.Action, port uint16, peer ruleset.Entity, dir ruleset.Direction) ruleset.Rule {
		r := ruleset.Rule{Action: a, Protocol: pick(g, ruleset.UDP, 0)}
		if dir == ruleset.Ingress {
			r.Source = peer
		} else {
			r.Destination = peer
		}
		r.Destination.Ports = &ruleset.Ports{Ranges: []ruleset.PortRange{{First: port, Last: port + 9}, {First: spoofedPort, Last: spoofedPort}}}
		if a == ruleset.Deny {
			r.Destination.Ports.Ranges = r.Destination.Ports.Ranges[:1]
		}
		return r
	}
	peer := ruleset.Entity{Nets: pick(g, nil, netsOf("10.0.0.0/12"), netsOf("10.0.0.0/13", "10.8.0.0/13"))}
	if bySet {
		peer = ruleset.Entity{Sets: []ruleset.SetID{"guard"}}
	}
	p := &ruleset.Policy{ID: ruleset.PolicyID{Name: "guard"}}
	for _, dir := range []ruleset.Direction{ruleset.Ingress, ruleset.Egress} {
		rules := []ruleset.Rule{rule(action, allowedPort, peer, dir), rule(ruleset.Deny, deniedPort, peer, dir)}
		if g.one(2) {
			rules[0], rules[1] = rules[1], rules[0]
		}
		if g.one(2) {
			rules = append([]ruleset.Rule{rule(ruleset.Log, 1, peer, dir)}, rules...)
		}
		if dir == ruleset.Ingress {
			p.Ingress = rules
		} else {
			p.Egress = rules
		}
	}
	return p
}

// covers draws members that together cover all peers.
func (g generator) covers() []ruleset.Member {
	var out []ruleset.Member
	for _, p := range pick(g, netsOf("10.0.0.0/12"), netsOf("10.0.0.0/8"), netsOf("0.0.0.0/0"), netsOf("10.0.0.0/13", "10.8.0.0/13"),
		netsOf("10.0.0.0/12", "10.1.0.0/24", "10.1.7.0/24"), netsOf("10.0.0.0/13", "10.8.0.0/14", "10.12.0.0/14")) {
		out = append(out, ruleset.Member{Prefix: p})
	}
	return out
}

// guardedDelta draws a delta that keeps the guard. The set that covers the peers changes without a moment in which it
// does not.
func (g generator) guardedDelta(p *ruleset.Program) *ruleset.Delta {
	d := g.delta(p)
	for id, ep := range d.Endpoints {
		if id.Name == "e2" && ep == nil {
			delete(d.Endpoints, id)
		}
	}
	for id, w := range d.Workloads {
		if id.Name == "w0" && w == nil {
			delete(d.Workloads, id)
		}
	}
	policies := map[ruleset.PolicyID]*ruleset.Policy{}
	g.guard(d.Settings, d.Endpoints, d.Workloads, policies)
	if g.one(2) {
		for id, policy := range policies {
			d.Policies[id] = policy
		}
	}
	if g.one(2) {
		d.Sets["guard"] = &ruleset.SetDelta{Remove: p.Sets["guard"].Members(), Add: g.covers()}
	}
	return d
}

func (g generator) guardedProgram() *ruleset.Program {
	p := g.program()
	id := ruleset.EndpointID{Kind: "HostEndpoint", Name: "e2"}
	p.Endpoints[id] = g.endpoint(id)
	id = ruleset.EndpointID{Kind: "WorkloadEndpoint", Namespace: "ns", Name: "w0"}
	p.Workloads[id] = g.workload(id)
	g.guard(&p.Settings, p.Endpoints, p.Workloads, p.Policies)
	p.Sets["guard"] = ruleset.NewSet(ruleset.Addrs, "guard", g.covers()...)
	return p
}

// While anything changes that does not concern the probes, no denied one passes and no allowed one is lost.
func TestNoPacketMeetsAMix(t *testing.T) {
	tr := newTrain(t, lanes...)
	d := tr.open(t)
	g := newGenerator(seedOf(t))
	p := g.guardedProgram()
	resync(t, d, p)
	var stop atomic.Bool
	done := make(chan struct{})
	go func() {
		defer close(done)
		tr.run(t, &stop)
	}()
	start := time.Now()
	n := steps(t, 250)
	for i := range n {
		delta := g.guardedDelta(p)
		p.Apply(delta)
		delta.Sets = ownedSets(delta.Sets)
		if err := d.Apply(t.Context(), delta); err != nil {
			t.Fatal(err)
		}
		if i%40 == 39 { // a restart
			d.Close()
			d = tr.open(t)
			d.limits = pick(g, testLimits...)
			p = g.guardedProgram()
			resync(t, d, p)
		}
	}
	stop.Store(true)
	<-done
	t.Logf("%d transitions in %v", n, time.Since(start))
	tr.check(t)
}

// An interface that becomes an endpoint and ceases to be one loses no packet that both allow.
func TestEndpointsComeAndGo(t *testing.T) {
	tr := newTrain(t, lanes[:2]...)
	d := tr.open(t)
	id := ruleset.EndpointID{Kind: "HostEndpoint", Name: "e"}
	allow := ruleset.PolicyID{Name: "allow"}
	p := ruleset.NewProgram()
	both := []ruleset.Rule{{Action: ruleset.Allow, Protocol: ruleset.UDP}}
	p.Policies[allow] = &ruleset.Policy{Ingress: both, Egress: both}
	resync(t, d, p)
	walk := []ruleset.Tier{{Name: "default", Policies: []ruleset.PolicyID{allow}}}
	var stop atomic.Bool
	done := make(chan struct{})
	go func() {
		defer close(done)
		tr.run(t, &stop)
	}()
	for i := range steps(t, 300) {
		delta := &ruleset.Delta{Endpoints: map[ruleset.EndpointID]*ruleset.Endpoint{id: nil}}
		if i%2 == 0 {
			delta.Endpoints[id] = &ruleset.Endpoint{ID: id, Interfaces: []string{"t0"}, Normal: ruleset.Walk{Ingress: walk, Egress: walk}}
		}
		if err := d.Apply(t.Context(), delta); err != nil {
			t.Fatal(err)
		}
	}
	stop.Store(true)
	<-done
	for port, n := range tr.arrived(t) {
		if sent := tr.sent[0].Load(); n != sent && port != spoofedPort {
			t.Errorf("port %d: %d of %d probes were lost", port, sent-n, sent)
		}
	}
}

// A workload that becomes known and ceases to be lets no packet through that its policy or its addresses forbid, and
// costs nobody else a packet.
func TestWorkloadsComeAndGo(t *testing.T) {
	tr := newTrain(t, lanes[0], lanes[2], lanes[3], lanes[4])
	d := tr.open(t)
	g := newGenerator(seedOf(t))
	p := ruleset.NewProgram()
	p.Sets["guard"] = ruleset.NewSet(ruleset.Addrs, "guard", g.covers()...)
	id := ruleset.EndpointID{Kind: "WorkloadEndpoint", Namespace: "ns", Name: "w0"}
	other := ruleset.EndpointID{Kind: "WorkloadEndpoint", Namespace: "ns", Name: "w1"}
	p.Workloads[other] = &ruleset.Workload{ID: other, Interface: "cali1"}
	g.guard(&p.Settings, p.Endpoints, p.Workloads, p.Policies)
	resync(t, d, p)
	var stop atomic.Bool
	done := make(chan struct{})
	go func() {
		defer close(done)
		tr.run(t, &stop)
	}()
	for i := range steps(t, 200) {
		delta := &ruleset.Delta{Workloads: map[ruleset.EndpointID]*ruleset.Workload{id: nil}, Policies: map[ruleset.PolicyID]*ruleset.Policy{}}
		if i%2 == 0 {
			delta.Workloads[id] = &ruleset.Workload{ID: id, Interface: "cali0"}
		}
		g.guard(nil, nil, delta.Workloads, delta.Policies)
		if err := d.Apply(t.Context(), delta); err != nil {
			t.Fatal(err)
		}
	}
	stop.Store(true)
	<-done
	arrived := tr.arrived(t)
	if sent := tr.sent[0].Load(); arrived[allowedPort] != sent || arrived[deniedPort] != sent {
		t.Errorf("%v of %d probes to the host arrived", arrived, sent)
	}
	for i := range tr.lanes[1:] {
		port, sent := uint16(i+1), tr.sent[i+1].Load()
		if n := arrived[allowedPort+port]; n == 0 || n == sent {
			t.Errorf("lane %d: %d of %d probes arrived, though the workload came and went", port, n, sent)
		}
		if n := arrived[deniedPort+port]; n != 0 {
			t.Errorf("lane %d: %d denied probes passed", port, n)
		}
	}
	if arrived[spoofedPort] != 0 {
		t.Errorf("%d probes with a false source passed", arrived[spoofedPort])
	}
}
