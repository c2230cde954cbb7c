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

// Ports of probes: what every Program of a test allows, and what every one denies.
const (
	allowedPort = 8888
	deniedPort  = 9999
)

// A train sends probes into an interface and out of it, each a flow of its own, and counts which get past our table. The
// counting rules drop the probes, so that no connection is ever remembered.
type train struct {
	*wire
	counters *nftables.Conn
	chains   [2]*nftables.Chain
	sent     [2][2]atomic.Uint64 // by direction; allowed, denied
	next     uint32
}

func newTrain(t testing.TB) *train {
	t.Helper()
	tr := &train{wire: newWire(t, "t0")}
	c, err := nftables.New(nftables.WithNetNSFd(tr.fd))
	if err != nil {
		t.Fatal(err)
	}
	tr.counters = c
	table := c.AddTable(&nftables.Table{Family: nftables.TableFamilyINet, Name: "observer"})
	priority := nftables.ChainPriority(50)
	for i, hook := range []*nftables.ChainHook{nftables.ChainHookInput, nftables.ChainHookOutput} {
		tr.chains[i] = c.AddChain(&nftables.Chain{
			Name: fmt.Sprint("past", i), Table: table, Type: nftables.ChainTypeFilter, Hooknum: hook, Priority: &priority,
		})
		for _, port := range []uint16{allowedPort, deniedPort} {
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

// run sends probes until stop is set.
func (tr *train) run(t testing.TB, stop *atomic.Bool) {
	for !stop.Load() {
		for _, dir := range []ruleset.Direction{ruleset.Ingress, ruleset.Egress} {
			for i, port := range []uint16{allowedPort, deniedPort} {
				tr.next++
				peer := netip.AddrFrom4([4]byte{10, 1, byte(tr.next >> 16), byte(tr.next >> 8)})
				local := netip.AddrFrom4([4]byte{10, 2, 0, byte(tr.next)})
				p := ruleset.Packet{Direction: dir, Interface: "t0", Protocol: ruleset.UDP, SrcPort: uint16(1024 + tr.next%60000),
					DstPort: port, Src: peer, Dst: local}
				if dir == ruleset.Egress {
					p.Src, p.Dst = local, peer
				}
				tr.emit(t, &p, uint16(tr.next))
				tr.sent[dir][i].Add(1)
			}
		}
	}
}

// arrived returns how many probes got past our table.
func (tr *train) arrived(t testing.TB, dir ruleset.Direction) (allowed, denied uint64) {
	rules, err := tr.counters.GetRules(tr.chains[dir].Table, tr.chains[dir])
	if err != nil || len(rules) != 2 {
		t.Fatalf("%d rules, %v", len(rules), err)
	}
	return rules[0].Exprs[4].(*expr.Counter).Packets, rules[1].Exprs[4].(*expr.Counter).Packets
}

func (tr *train) check(t testing.TB) {
	for _, dir := range []ruleset.Direction{ruleset.Ingress, ruleset.Egress} {
		sent := tr.sent[dir][0].Load()
		allowed, denied := tr.arrived(t, dir)
		t.Logf("%s: %d allowed and %d denied probes", dir, sent, tr.sent[dir][1].Load())
		if allowed != sent {
			t.Errorf("%s: %d of %d allowed probes were lost", dir, sent-allowed, sent)
		}
		if denied != 0 {
			t.Errorf("%s: %d denied probes passed", dir, denied)
		}
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
	policies map[ruleset.PolicyID]*ruleset.Policy, sets map[ruleset.SetID]bool) {
	if s != nil {
		s.WorkloadPrefixes = []string{"cali"}
	}
	for id, ep := range endpoints {
		if ep == nil {
			continue
		}
		tiers := []ruleset.Tier{{Name: "guard", Policies: []ruleset.PolicyID{{Name: "guard"}}},
			{Name: "second", Policies: []ruleset.PolicyID{{Name: "second"}}, EndPass: true}}
		ep.Normal.Ingress = append(tiers[:len(tiers):len(tiers)], ep.Normal.Ingress...)
		ep.Normal.Egress = append(tiers[:len(tiers):len(tiers)], ep.Normal.Egress...)
		if id.Name == "e2" {
			ep.Interfaces = []string{ruleset.AllInterfaces}
		}
	}
	action := pick(g, ruleset.Allow, ruleset.Pass)
	policies[ruleset.PolicyID{Name: "guard"}] = g.guardPolicy(action, g.one(2))
	policies[ruleset.PolicyID{Name: "second"}] = g.guardPolicy(ruleset.Allow, g.one(2))
}

func (g generator) guardPolicy(action ruleset.Action, bySet bool) *ruleset.Policy {
	rule := func(a ruleset.Action, port uint16, peer ruleset.Entity, dir ruleset.Direction) ruleset.Rule {
		r := ruleset.Rule{Action: a, Protocol: pick(g, ruleset.UDP, 0)}
		if dir == ruleset.Ingress {
			r.Source = peer
		} else {
			r.Destination = peer
		}
		r.Destination.Ports = &ruleset.Ports{Ranges: []ruleset.PortRange{{First: port, Last: port}}}
		return r
	}
	peer := ruleset.Entity{Nets: pick(g, nil, netsOf("10.1.0.0/16"), netsOf("10.1.0.0/17", "10.1.128.0/17"))}
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
	for _, p := range pick(g, netsOf("10.1.0.0/16"), netsOf("10.0.0.0/8"), netsOf("0.0.0.0/0"), netsOf("10.1.0.0/17", "10.1.128.0/17"),
		netsOf("10.1.0.0/16", "10.1.0.0/24", "10.1.7.0/24"), netsOf("10.1.0.0/17", "10.1.128.0/18", "10.1.192.0/18")) {
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
	policies := map[ruleset.PolicyID]*ruleset.Policy{}
	g.guard(d.Settings, d.Endpoints, policies, nil)
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
	g.guard(&p.Settings, p.Endpoints, p.Policies, nil)
	p.Sets["guard"] = ruleset.NewSet(ruleset.Addrs, "guard", g.covers()...)
	return p
}

// While anything changes that does not concern the probes, no denied one passes and no allowed one is lost.
func TestNoPacketMeetsAMix(t *testing.T) {
	tr := newTrain(t)
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
	n := steps(t, 400)
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
	tr := newTrain(t)
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
	for _, dir := range []ruleset.Direction{ruleset.Ingress, ruleset.Egress} {
		allowed, other := tr.arrived(t, dir)
		if sent := tr.sent[dir][0].Load(); allowed != sent || other != tr.sent[dir][1].Load() {
			t.Errorf("%s: %d of %d probes were lost", dir, sent-allowed, sent)
		}
	}
}
