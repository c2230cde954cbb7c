package ruleset

import (
	"bytes"
	"fmt"
	"net/netip"
	"slices"
	"testing"

	"pgregory.net/rapid"
)

// dumb is a second implementation of Eval, written from the pseudo-code of spec 2.3 and the table of 2.4 and slow on
// purpose: bits are compared one by one and every set is searched from end to end.
type dumb struct{ p *Program }

func (d *dumb) eval(pkt *Packet) Verdict {
	id, found := d.endpoint(pkt.Interface)
	if !found {
		return Verdict{Allowed: true, Reason: NoEndpoint}
	}
	ep := d.p.Endpoints[id]
	if pkt.State == Established || pkt.State == Related {
		return Verdict{Allowed: true, Reason: FlowKnown, Endpoint: id}
	}
	if pkt.State == Invalid && !d.p.Settings.AcceptInvalid {
		return Verdict{Reason: FlowInvalid, Endpoint: id}
	}
	if i, ok := d.failsafe(pkt); ok {
		return Verdict{Allowed: true, Reason: FailsafePort, Endpoint: id, Rule: i}
	}
	tiers := ep.Normal.Ingress
	if pkt.Direction == Egress {
		tiers = ep.Normal.Egress
	}
	for _, tier := range tiers {
		if v, ok := d.tier(tier, pkt); ok {
			v.Endpoint = id
			return v
		}
	}
	for _, name := range ep.Profiles {
		if v, ok := d.profile(name, pkt); ok {
			v.Endpoint = id
			return v
		}
	}
	return Verdict{Reason: NoProfile, Endpoint: id}
}

func (d *dumb) endpoint(name string) (EndpointID, bool) {
	for id, ep := range d.p.Endpoints {
		if slices.Contains(ep.Interfaces, name) {
			return id, true
		}
	}
	for _, prefix := range d.p.Settings.WorkloadPrefixes {
		if prefix != "" && len(name) >= len(prefix) && name[:len(prefix)] == prefix {
			return EndpointID{}, false
		}
	}
	for id, ep := range d.p.Endpoints {
		if slices.Contains(ep.Interfaces, "*") {
			return id, true
		}
	}
	return EndpointID{}, false
}

func (d *dumb) failsafe(pkt *Packet) (int, bool) {
	list, peer := d.p.Settings.FailsafeIngress, pkt.Src
	if pkt.Direction == Egress {
		list, peer = d.p.Settings.FailsafeEgress, pkt.Dst
	}
	for i, f := range list {
		everyone := f.Net == netip.Prefix{}
		if f.Protocol == pkt.Protocol && f.Port == pkt.DstPort && (everyone || covers(f.Net, peer)) {
			return i, true
		}
	}
	return 0, false
}

func (d *dumb) tier(tier Tier, pkt *Packet) (Verdict, bool) {
	var enforced []PolicyID
	for _, id := range tier.Policies {
		if !d.p.Policies[id].Staged {
			enforced = append(enforced, id)
		}
	}
	for _, id := range enforced {
		policy := d.p.Policies[id]
		rules := policy.Ingress
		if pkt.Direction == Egress {
			rules = policy.Egress
		}
		for i, rule := range rules {
			if !d.matches(&rule, pkt) || rule.Action == Log {
				continue
			}
			if rule.Action == Pass {
				return Verdict{}, false
			}
			return Verdict{Allowed: rule.Action == Allow, Reason: PolicyRule, Tier: tier.Name, Policy: id, Rule: i}, true
		}
	}
	return Verdict{Reason: EndOfTier, Tier: tier.Name}, len(enforced) > 0 && !tier.EndPass
}

func (d *dumb) profile(name string, pkt *Packet) (Verdict, bool) {
	profile, exists := d.p.Profiles[name]
	if !exists {
		return Verdict{Reason: ProfileMissing, Profile: name}, true
	}
	rules := profile.Ingress
	if pkt.Direction == Egress {
		rules = profile.Egress
	}
	for i, rule := range rules {
		if rule.Action != Pass && rule.Action != Log && d.matches(&rule, pkt) {
			return Verdict{Allowed: rule.Action == Allow, Reason: ProfileRule, Profile: name, Rule: i}, true
		}
	}
	return Verdict{}, false
}

func (d *dumb) matches(r *Rule, pkt *Packet) bool {
	four := len(pkt.Src.AsSlice()) == 4
	checks := []bool{
		r.Family == AnyFamily || r.Family == IPv4 && four || r.Family == IPv6 && !four,
		r.Protocol == 0 || r.Protocol == pkt.Protocol,
		r.NotProtocol == 0 || r.NotProtocol != pkt.Protocol,
		!r.ICMP.HasType || sameICMP(r.ICMP, pkt),
		!r.NotICMP.HasType || !sameICMP(r.NotICMP, pkt),
		d.entity(r.Source, pkt, pkt.Src, pkt.SrcPort),
		d.entity(r.Destination, pkt, pkt.Dst, pkt.DstPort),
	}
	return !slices.Contains(checks, false)
}

func sameICMP(m ICMPMatch, pkt *Packet) bool {
	own := ICMPv6
	if len(pkt.Src.AsSlice()) == 4 {
		own = ICMP
	}
	return pkt.Protocol == own && pkt.ICMPType == m.Type && (!m.HasCode || pkt.ICMPCode == m.Code)
}

func (d *dumb) entity(e Entity, pkt *Packet, addr netip.Addr, port uint16) bool {
	within := func(nets []netip.Prefix) bool {
		return slices.ContainsFunc(nets, func(n netip.Prefix) bool { return covers(n, addr) })
	}
	inSet := func(id SetID) bool {
		return slices.ContainsFunc(d.content(id), func(m Member) bool { return covers(m.Prefix, addr) })
	}
	inPorts := func(ports *Ports) bool {
		ranged := slices.ContainsFunc(ports.Ranges, func(r PortRange) bool { return port >= r.First && port <= r.Last })
		named := slices.ContainsFunc(ports.Named, func(id SetID) bool {
			return slices.ContainsFunc(d.content(id), func(m Member) bool {
				return covers(m.Prefix, addr) && m.Protocol == pkt.Protocol && m.Port == port
			})
		})
		return slices.Contains([]uint8{TCP, UDP, SCTP, UDPLite}, pkt.Protocol) && (ranged || named)
	}
	for _, id := range e.Sets {
		if !inSet(id) {
			return false
		}
	}
	for _, id := range e.NotSets {
		if inSet(id) {
			return false
		}
	}
	return (e.Nets == nil || within(e.Nets)) && !within(e.NotNets) &&
		(e.Ports == nil || inPorts(e.Ports)) && (e.NotPorts == nil || !inPorts(e.NotPorts))
}

func (d *dumb) content(id SetID) []Member {
	if d.p.Sets[id] == nil {
		return nil
	}
	return d.p.Sets[id].Members()
}

// covers compares the first bits of two addresses as text.
func covers(p netip.Prefix, a netip.Addr) bool {
	net, addr := p.Addr().AsSlice(), a.AsSlice()
	if len(net) != len(addr) {
		return false
	}
	return bytes.Equal(bits(net)[:p.Bits()], bits(addr)[:p.Bits()])
}

func bits(b []byte) []byte {
	var text []byte
	for _, x := range b {
		text = fmt.Appendf(text, "%08b", x)
	}
	return text
}

// TestEvalAgainstDumb compares Eval with the second implementation over random programs and packets.
func TestEvalAgainstDumb(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		p := drawProgram(t)
		for range 8 {
			pkt := drawPacket(t)
			if got, want := Eval(p, pkt), (&dumb{p}).eval(pkt); got != want {
				t.Fatalf("packet %+v: Eval = %+v, dumb = %+v", *pkt, got, want)
			}
		}
	})
}

// The pools are small so that random packets meet random rules.
var (
	addrPool = []string{"10.0.0.1", "10.0.0.2", "10.0.1.1", "192.0.2.1", "fd00::1", "fd00::2", "2001:db8::1"}
	netPool  = []string{"10.0.0.1/32", "10.0.0.0/24", "10.0.0.0/8", "0.0.0.0/0", "fd00::1/128", "fd00::/8", "::/0"}
	protPool = []uint8{0, TCP, UDP, ICMP, ICMPv6, SCTP, 47}
	portPool = []uint16{1, 22, 80, 443, 65535}
	setPool  = []SetID{"a", "b", "c", "gone"}
	portSets = []SetID{"p", "q", "gone"}
)

func draw[T any](t *rapid.T, pool []T) T { return rapid.SampledFrom(pool).Draw(t, "v") }

// some returns up to max values of the pool, nil for none.
func some[T any](t *rapid.T, pool []T, most int) []T {
	return rapid.SliceOfN(rapid.SampledFrom(pool), 0, most).Draw(t, "list")[:]
}

func rarely(t *rapid.T) bool { return rapid.IntRange(0, 4).Draw(t, "rarely") == 0 }

func drawNets(t *rapid.T) []netip.Prefix {
	if !rarely(t) {
		return nil
	}
	return nets(some(t, netPool, 3)...)
}

func drawPorts(t *rapid.T) *Ports {
	if !rarely(t) {
		return nil
	}
	ports := &Ports{Named: some(t, portSets, 2)}
	for range rapid.IntRange(0, 2).Draw(t, "ranges") {
		a, b := draw(t, portPool), draw(t, portPool)
		ports.Ranges = append(ports.Ranges, PortRange{min(a, b), max(a, b)})
	}
	return ports
}

func drawICMP(t *rapid.T) ICMPMatch {
	if !rarely(t) {
		return ICMPMatch{}
	}
	return ICMPMatch{true, rapid.Bool().Draw(t, "code"), draw(t, []uint8{0, 8, 128}), draw(t, []uint8{0, 1})}
}

func drawEntity(t *rapid.T) Entity {
	e := Entity{Nets: drawNets(t), NotNets: drawNets(t), Ports: drawPorts(t), NotPorts: drawPorts(t)}
	if rarely(t) {
		e.Sets, e.NotSets = some(t, setPool, 2), some(t, setPool, 2)
	}
	return e
}

func drawRules(t *rapid.T) []Rule {
	rules := make([]Rule, rapid.IntRange(0, 3).Draw(t, "rules"))
	for i := range rules {
		rules[i] = Rule{
			Action: draw(t, []Action{Allow, Deny, Pass, Log}), Family: draw(t, []Family{AnyFamily, AnyFamily, IPv4, IPv6}),
			ICMP: drawICMP(t), NotICMP: drawICMP(t), Source: drawEntity(t), Destination: drawEntity(t),
		}
		if rarely(t) {
			rules[i].Protocol, rules[i].NotProtocol = draw(t, protPool), draw(t, protPool)
		}
	}
	return rules
}

func drawProgram(t *rapid.T) *Program {
	p := NewProgram()
	var ids []PolicyID
	for i := range 4 {
		id := policyID(fmt.Sprint(i))
		ids = append(ids, id)
		p.Policies[id] = &Policy{ID: id, Ingress: drawRules(t), Egress: drawRules(t), Staged: rarely(t)}
	}
	for i := range 2 {
		name := fmt.Sprint("profile", i)
		p.Profiles[name] = &Profile{Name: name, Ingress: drawRules(t), Egress: drawRules(t)}
	}
	for _, name := range []string{"eth0", "eth1", AllInterfaces} {
		id := EndpointID{"HostEndpoint", "", name}
		p.Endpoints[id] = &Endpoint{
			ID: id, Interfaces: []string{name}, Normal: Walk{drawTiers(t, ids), drawTiers(t, ids)},
			Profiles: some(t, []string{"profile0", "profile1", "missing"}, 2),
		}
	}
	for _, id := range setPool[:3] {
		p.Sets[id] = NewSet(Addrs, "", members(some(t, netPool, 4)...)...)
	}
	for _, id := range portSets[:2] {
		a := netip.MustParseAddr(draw(t, addrPool))
		p.Sets[id] = NewSet(AddrPorts, "", Member{netip.PrefixFrom(a, a.BitLen()), draw(t, protPool), draw(t, portPool)})
	}
	p.Settings = Settings{AcceptInvalid: rapid.Bool().Draw(t, "invalid"), WorkloadPrefixes: []string{"cali"}}
	if rarely(t) {
		f := Failsafe{Protocol: TCP, Port: draw(t, portPool), Net: netip.MustParsePrefix(draw(t, netPool))}
		p.Settings.FailsafeIngress, p.Settings.FailsafeEgress = []Failsafe{f}, []Failsafe{{Protocol: UDP, Port: 80}}
	}
	return p
}

func drawTiers(t *rapid.T, ids []PolicyID) []Tier {
	tiers := make([]Tier, rapid.IntRange(0, 2).Draw(t, "tiers"))
	for i := range tiers {
		tiers[i] = Tier{Name: fmt.Sprint("tier", i), Policies: some(t, ids, 3), EndPass: rarely(t)}
	}
	return tiers
}

func drawPacket(t *rapid.T) *Packet {
	pkt := &Packet{
		Direction: draw(t, []Direction{Ingress, Egress}), Interface: draw(t, []string{"eth0", "eth1", "lo", "cali1"}),
		State: draw(t, []ConnState{New, New, New, Established, Related, Invalid}),
		Src:   netip.MustParseAddr(draw(t, addrPool)), Protocol: draw(t, protPool[1:]),
	}
	pkt.Dst = netip.MustParseAddr(rapid.SampledFrom(addrPool).Filter(func(a string) bool {
		return netip.MustParseAddr(a).Is4() == pkt.Src.Is4()
	}).Draw(t, "dst"))
	if HasPorts(pkt.Protocol) {
		pkt.SrcPort, pkt.DstPort = draw(t, portPool), draw(t, portPool)
	} else {
		pkt.ICMPType, pkt.ICMPCode = draw(t, []uint8{0, 8, 128}), draw(t, []uint8{0, 1})
	}
	return pkt
}
