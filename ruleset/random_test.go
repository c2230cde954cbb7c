package ruleset

import (
	"fmt"
	"net/netip"
	"slices"
	"testing"

	"pgregory.net/rapid"
)

// TestEvalAgainstDumb compares Eval with the second implementation over random programs and packets.
func TestEvalAgainstDumb(t *testing.T) { rapid.Check(t, evalIsDumb) }

// FuzzEval does the same, guided by coverage.
func FuzzEval(f *testing.F) { f.Fuzz(rapid.MakeFuzz(evalIsDumb)) }

func evalIsDumb(t *rapid.T) {
	p := drawProgram(t)
	for range 8 {
		pkt := drawPacket(t)
		got, want := Eval(p, pkt), dumbEval(p, pkt)
		if got != want {
			t.Fatalf("packet %+v: Eval = %+v, dumb = %+v", *pkt, got, want)
		}
		if traced := Trace(p, pkt, func(Step) {}); traced != got {
			t.Fatalf("packet %+v: Eval = %+v, traced %+v", *pkt, got, traced)
		}
	}
}

// TestPendingIsPreview: in the normal stage, Pending tells the rules of staged policies that Preview walks to, and the end of a
// tier that has one.
func TestPendingIsPreview(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		p := drawProgram(t)
		for _, ep := range p.Endpoints {
			ep.Forward, ep.PreDNAT, ep.Untracked = Walk{}, Walk{}, Walk{}
		}
		clear(p.Workloads)
		q := Preview(p)
		for range 8 {
			pkt := drawPacket(t)
			var got, want []Counter
			Pending(p, pkt, func(c Counter) { got = append(got, c) })
			staged := map[string]bool{}
			for id, policy := range p.Policies {
				if policy.Staged && !policy.Deletes && !policy.Superseded {
					staged[id.Name] = true
				}
			}
			Trace(q, pkt, func(s Step) {
				c := Counter{Endpoint: s.Endpoint, Stage: s.Stage, Direction: s.Direction, Tier: s.Tier, Staged: true}
				switch {
				case s.Kind == AtRule && s.Matched && s.Action.Decides() && s.Profile == "" && staged[s.Policy.Name]:
					c.Reason, c.Policy, c.Rule, c.Action = PolicyRule, s.Policy, s.Rule, s.Action
					want = append(want, c)
				case s.Kind == AtDecision && s.Verdict.Reason == EndOfTier:
					for _, tier := range q.TiersAt(s.Endpoint, s.Stage, s.Direction) {
						if c.Tier = s.Verdict.Tier; tier.Name == c.Tier && slices.ContainsFunc(tier.Policies, func(id PolicyID) bool { return staged[id.Name] }) {
							c.Reason, c.Action = EndOfTier, Deny
							want = append(want, c)
						}
					}
				}
			})
			if !slices.Equal(got, want) {
				t.Fatalf("packet %+v: Pending tells %+v, Preview walks to %+v", *pkt, got, want)
			}
		}
	})
}

// The pools are small so that random packets meet random rules.
var (
	addrPool = []string{"10.0.0.1", "10.0.0.2", "10.0.1.1", "192.0.2.1", "fd00::1", "fd00::2", "2001:db8::1", "fe80::1", "::", "ff02::1"}
	netPool  = []string{"10.0.0.1/32", "10.0.0.0/24", "10.0.0.0/8", "0.0.0.0/0", "fd00::1/128", "fd00::/8", "::/0"}
	protPool = []uint8{0, TCP, UDP, ICMP, ICMPv6, SCTP, 47}
	portPool = []uint16{1, 22, 80, 443, 4789, 65535}
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
		p.Policies[id] = &Policy{ID: id, Ingress: drawRules(t), Egress: drawRules(t), Staged: rarely(t), Superseded: rarely(t)}
		if p.Policies[id].Staged && rarely(t) {
			p.Policies[id] = &Policy{ID: id, Staged: true, Deletes: true}
		}
	}
	for i := range 2 {
		name := fmt.Sprint("profile", i)
		p.Profiles[name] = &Profile{Name: name, Ingress: drawRules(t), Egress: drawRules(t)}
	}
	for _, name := range []string{"eth0", "eth1", AllInterfaces} {
		if rarely(t) {
			continue
		}
		id := EndpointID{"HostEndpoint", "", name}
		p.Endpoints[id] = &Endpoint{
			ID: id, Interfaces: []string{name}, Normal: drawWalk(t, ids), Forward: drawWalk(t, ids),
			PreDNAT: Walk{Ingress: drawTiers(t, ids)}, Untracked: drawWalk(t, ids),
			Profiles: some(t, []string{"profile0", "profile1", "missing"}, 2),
		}
	}
	for i, name := range []string{"cali1", draw(t, []string{"cali2", "eth2"})} {
		id := EndpointID{"WorkloadEndpoint", "ns", name}
		p.Workloads[id] = &Workload{
			ID: id, Interface: name, Normal: drawWalk(t, ids), Profiles: some(t, []string{"profile0", "profile1", "missing"}, 2),
			Addrs:     []netip.Addr{netip.MustParseAddr(addrPool[i]), netip.MustParseAddr(addrPool[4+i]), netip.MustParseAddr(draw(t, addrPool))},
			Spoofable: drawNets(t),
		}
	}
	for _, id := range setPool[:3] {
		p.Sets[id] = NewSet(Addrs, "", members(some(t, netPool, 4)...)...)
	}
	for _, id := range portSets[:2] {
		a := netip.MustParseAddr(draw(t, addrPool))
		p.Sets[id] = NewSet(AddrPorts, "", Member{netip.PrefixFrom(a, a.BitLen()), draw(t, protPool), draw(t, portPool)})
	}
	p.Settings = Settings{
		AcceptInvalid: rapid.Bool().Draw(t, "invalid"), WorkloadPrefixes: []string{"cali"}, AllowSpoofing: rarely(t),
		AllowVXLAN: rarely(t), AllowIPIP: rarely(t), VXLANPort: draw(t, []uint16{0, 4789, 80}), EndpointToHost: draw(t, []HostAction{HostDrop, HostReturn, HostAccept}),
	}
	p.Settings.IPVS, p.Settings.ServiceNets = rapid.Bool().Draw(t, "IPVS"), drawNets(t)
	if rarely(t) {
		p.Settings.Tunnels = []Tunnel{
			{Protocol: UDP, Port: draw(t, portPool), Family: draw(t, []Family{AnyFamily, IPv4, IPv6}), Proven: rarely(t)}, {Protocol: 4, Proven: rarely(t)},
		}
		p.Settings.TunnelNets = drawNets(t)
		if !rarely(t) {
			p.Sets[Hosts] = NewSet(Addrs, "", members(some(t, netPool, 2)...)...)
		}
	}
	if rarely(t) {
		f := Failsafe{Protocol: TCP, Port: draw(t, portPool), Net: netip.MustParsePrefix(draw(t, netPool))}
		p.Settings.FailsafeIngress, p.Settings.FailsafeEgress = []Failsafe{f}, []Failsafe{{Protocol: UDP, Port: 80}}
	}
	return p
}

func drawWalk(t *rapid.T, ids []PolicyID) Walk { return Walk{drawTiers(t, ids), drawTiers(t, ids)} }

func drawTiers(t *rapid.T, ids []PolicyID) []Tier {
	tiers := make([]Tier, rapid.IntRange(0, 2).Draw(t, "tiers"))
	for i := range tiers {
		tiers[i] = Tier{Name: fmt.Sprint("tier", i), Policies: some(t, ids, 3), EndPass: rarely(t)}
	}
	return tiers
}

// ways are the pairs of interfaces by which packets pass.
var ways = [][2]string{
	{"eth0", ""}, {"eth1", ""}, {"lo", ""}, {"cali1", ""}, {"cali3", ""}, {"", "eth0"}, {"", "eth1"}, {"", "lo"}, {"", "cali1"}, {"", "cali3"},
	{"eth0", "eth1"}, {"eth1", "eth2"}, {"eth0", "cali1"}, {"cali1", "eth0"}, {"cali1", "cali2"}, {"eth0", "cali3"}, {"cali3", "eth0"},
}

func drawPacket(t *rapid.T) *Packet {
	way := draw(t, ways)
	pkt := &Packet{
		In: way[0], Out: way[1], State: draw(t, []ConnState{New, New, New, Established, Related, Invalid, NotTracked}),
		Src: netip.MustParseAddr(draw(t, addrPool)), Protocol: draw(t, append([]uint8{4}, protPool[1:]...)),
	}
	pkt.Own = rarely(t)
	same := rapid.SampledFrom(addrPool).Filter(func(a string) bool { return netip.MustParseAddr(a).Is4() == pkt.Src.Is4() })
	pkt.Dst = netip.MustParseAddr(same.Draw(t, "dst"))
	if HasPorts(pkt.Protocol) {
		pkt.SrcPort, pkt.DstPort = draw(t, portPool), draw(t, portPool)
	} else {
		pkt.ICMPType, pkt.ICMPCode = draw(t, []uint8{0, 8, 128, 130, 134, 135, 137, 143}), draw(t, []uint8{0, 1})
	}
	if rarely(t) {
		pkt.Balanced = HasPorts(pkt.Protocol) && rapid.Bool().Draw(t, "balanced")
		pkt.DNAT, pkt.OrigDst, pkt.OrigPort = !pkt.Balanced, netip.MustParseAddr(same.Draw(t, "original")), pkt.DstPort
		if pkt.DstPort != 0 {
			pkt.OrigPort = draw(t, portPool)
		}
		if pkt.In == "" {
			pkt.OrigOut = draw(t, []string{"eth0", "eth1", "lo"})
		}
	}
	return pkt
}
