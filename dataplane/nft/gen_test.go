package nft

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"time"

	"margay/ruleset"
)

// A generator draws random Programs, deltas and packets from small pools, so that rules meet packets.
type generator struct{ *rand.Rand }

func newGenerator(seed uint64) generator { return generator{rand.New(rand.NewPCG(seed, 2))} }

func pick[T any](g generator, pool ...T) T { return pool[g.IntN(len(pool))] }

func (g generator) one(in int) bool { return g.IntN(in) == 0 }

func list[T any](g generator, most int, f func() T) []T {
	var out []T
	for range g.IntN(most + 1) {
		out = append(out, f())
	}
	return out
}

var (
	// Peers have addresses in 10.1.0.0/16 and fd01::/16, this host has all of 10.2.0.0/16 and fd02::/16. Virtual addresses
	// are translated, see translations. Behind the devices are 10.10.0.0/16 and fd10::/16, 10.11.0.0/16 and so on.
	peers4   = addrsOf("10.1.0.1", "10.1.0.2", "10.1.1.1", "10.1.128.7", "10.1.255.255")
	peers6   = addrsOf("fd01::1", "fd01::2", "fd01:0:0:1::1", "fd01:8000::7", "fd01::ffff")
	locals4  = addrsOf("10.2.0.1", "10.2.0.2", "10.2.1.1", "10.2.200.7")
	locals6  = addrsOf("fd02::1", "fd02::2", "fd02:0:0:1::1", "fd02:8000::7")
	virtual4 = addrsOf("10.3.0.1", "10.3.0.2", "10.3.0.3", "10.3.0.4", "10.3.0.5", "10.3.0.6", "10.3.0.7")
	virtual6 = addrsOf("fd03::1", "fd03::2", "fd03::3", "fd03::4", "fd03::5", "fd03::6", "fd03::7")
	nets     = netsOf("10.1.0.0/16", "10.1.0.0/24", "10.1.0.1/32", "10.1.128.0/17", "10.2.0.0/15", "10.2.0.0/24",
		"10.2.0.2/32", "0.0.0.0/0", "128.0.0.0/1", "10.1.255.255/32", "fd01::/16", "fd01::/64", "fd01::1/128",
		"fd01:8000::/17", "fd00::/8", "fd02::/64", "fd02::2/128", "::/0", "8000::/1", "fd01::ffff/128",
		"10.8.0.0/13", "10.13.0.1/32", "10.14.0.0/16", "10.3.0.0/16", "10.3.0.4/30", "10.3.0.1/32", "fd03::1/128", "fd03::2/127", "10.11.0.0/16", "fd10::/12", "fd13::1/128",
		"fd14::/16", "fd03::/16", "fd03::4/126", "fd11::/16", "fe80::/10")
	ports      = []uint16{0, 1, 22, 53, 79, 80, 81, 443, 4789, 9090, 9091, 9092, 65534, 65535}
	protos     = []uint8{ruleset.TCP, ruleset.UDP, ruleset.ICMP, ruleset.ICMPv6, ruleset.SCTP, ruleset.UDPLite, 4, 47, 253}
	interfaces = []string{"t0", "t1", "x0", "cali0", "cali1", "cali2"}
	setIDs     = []ruleset.SetID{"a", "b", "c", "missing", "n1", "n2", ruleset.Hosts}
)

func addrsOf(list ...string) (out []netip.Addr) {
	for _, s := range list {
		out = append(out, netip.MustParseAddr(s))
	}
	return out
}

func netsOf(list ...string) (out []netip.Prefix) {
	for _, s := range list {
		out = append(out, netip.MustParsePrefix(s))
	}
	return out
}

func (g generator) addr() netip.Addr {
	n := g.IntN(len(interfaces))
	return pick(g, pick(g, peers4, locals4, peers6, locals6, virtual4, virtual6, []netip.Addr{own4(n, 1), own6(n, 1)})...)
}

func (g generator) net() netip.Prefix { return pick(g, nets...) }

func (g generator) proto() uint8 {
	if g.one(3) {
		return pick(g, protos...)
	}
	return pick(g, ruleset.TCP, ruleset.UDP)
}

func (g generator) member(kind ruleset.SetKind) ruleset.Member {
	if kind == ruleset.Addrs {
		return ruleset.Member{Prefix: g.net()}
	}
	a := g.addr()
	return ruleset.Member{
		Prefix: netip.PrefixFrom(a, a.BitLen()), Protocol: g.proto(), Port: pick(g, ports...),
	}
}

func kindOf(id ruleset.SetID) ruleset.SetKind {
	if id[0] == 'n' {
		return ruleset.AddrPorts
	}
	return ruleset.Addrs
}

func (g generator) set(id ruleset.SetID) *ruleset.Set {
	kind := kindOf(id)
	return ruleset.NewSet(kind, "set "+string(id), list(g, 6, func() ruleset.Member { return g.member(kind) })...)
}

func (g generator) ports() *ruleset.Ports {
	if g.one(2) {
		return nil
	}
	return &ruleset.Ports{
		Ranges: list(g, 3, func() ruleset.PortRange {
			first := pick(g, ports...)
			return ruleset.PortRange{First: first, Last: pick(g, first, first, first+1, pick(g, ports...))}
		}),
		Named: list(g, 2, func() ruleset.SetID { return pick[ruleset.SetID](g, "n1", "n2", "missing", "a") }),
	}
}

func (g generator) entity() ruleset.Entity {
	var e ruleset.Entity
	if g.one(4) {
		e.Nets = append([]netip.Prefix{}, list(g, 3, g.net)...)
	}
	if g.one(5) {
		e.NotNets = list(g, 2, g.net)
	}
	if g.one(4) {
		e.Sets = list(g, 2, func() ruleset.SetID { return pick(g, setIDs...) })
	}
	if g.one(5) {
		e.NotSets = list(g, 2, func() ruleset.SetID { return pick(g, setIDs...) })
	}
	if g.one(2) {
		e.Ports = g.ports()
	}
	if g.one(5) {
		e.NotPorts = g.ports()
	}
	return e
}

func (g generator) icmp() ruleset.ICMPMatch {
	if !g.one(6) {
		return ruleset.ICMPMatch{}
	}
	return ruleset.ICMPMatch{HasType: true, HasCode: g.one(2), Type: pick[uint8](g, 0, 8, 128, 129), Code: pick[uint8](g, 0, 1)}
}

func (g generator) rule() ruleset.Rule {
	r := ruleset.Rule{
		Action: pick(g, ruleset.Allow, ruleset.Allow, ruleset.Deny, ruleset.Deny, ruleset.Pass, ruleset.Log),
		ICMP:   g.icmp(), NotICMP: g.icmp(), Source: g.entity(), Destination: g.entity(),
	}
	if g.one(4) {
		r.Family = pick(g, ruleset.IPv4, ruleset.IPv6)
	}
	if g.one(2) {
		r.Protocol = g.proto()
	}
	if g.one(5) {
		r.NotProtocol = g.proto()
	}
	if g.one(6) { // where packets are sent to, before or after translation
		i := g.IntN(len(translations))
		to := pick(g, virtual4[i], virtual6[i], translations[i].to4, translations[i].to6)
		r = ruleset.Rule{Action: r.Action}
		r.Destination.Nets = []netip.Prefix{netip.PrefixFrom(to, to.BitLen())}
	}
	if g.one(3) { // rules that match much, so that later ones are reached by few
		r.Source, r.ICMP = ruleset.Entity{}, ruleset.ICMPMatch{}
	}
	return r
}

func (g generator) policyID() ruleset.PolicyID {
	n := g.IntN(6)
	if n < 2 {
		return ruleset.PolicyID{Kind: "NetworkPolicy", Namespace: "ns", Name: fmt.Sprint("p", n)}
	}
	return ruleset.PolicyID{Kind: "GlobalNetworkPolicy", Name: fmt.Sprint("p", n)}
}

func (g generator) policy(id ruleset.PolicyID) *ruleset.Policy {
	return &ruleset.Policy{ID: id, Ingress: list(g, 5, g.rule), Egress: list(g, 5, g.rule), Staged: g.one(8)}
}

func (g generator) profile(name string) *ruleset.Profile {
	return &ruleset.Profile{Name: name, Ingress: list(g, 3, g.rule), Egress: list(g, 3, g.rule)}
}

// tiers draws fewer than most tiers.
func (g generator) tiers(most int) []ruleset.Tier {
	var out []ruleset.Tier
	for i := range g.IntN(most) {
		out = append(out, ruleset.Tier{
			Name: fmt.Sprint("tier", i), Policies: list(g, 3, g.policyID), EndPass: g.one(2),
		})
	}
	return out
}

func (g generator) endpointID() ruleset.EndpointID {
	return ruleset.EndpointID{Kind: "HostEndpoint", Name: fmt.Sprint("e", g.IntN(3))}
}

// endpoint draws an endpoint whose interfaces no other endpoint has: every name has a home.
func (g generator) endpoint(id ruleset.EndpointID) *ruleset.Endpoint {
	ep := &ruleset.Endpoint{
		ID: id, Normal: ruleset.Walk{Ingress: g.tiers(4), Egress: g.tiers(4)},
		Profiles: list(g, 2, func() string { return pick(g, "f0", "f1", "open", "open", "none") }),
	}
	if g.one(3) {
		ep.Normal = ruleset.Walk{}
	}
	if g.one(2) {
		ep.Forward = ruleset.Walk{Ingress: g.tiers(3), Egress: g.tiers(3)}
	}
	if g.one(2) {
		ep.PreDNAT = ruleset.Walk{Ingress: g.tiers(3), Egress: g.tiers(2)}
	}
	if g.one(3) {
		ep.Untracked = ruleset.Walk{Ingress: g.tiers(3), Egress: g.tiers(3)}
	}
	homes := map[string][]string{"e0": {"t0"}, "e1": {"t1", "lo"}, "e2": {ruleset.AllInterfaces}}
	for _, name := range homes[id.Name] {
		if !g.one(4) {
			ep.Interfaces = append(ep.Interfaces, name)
		}
	}
	return ep
}

func (g generator) workloadID() ruleset.EndpointID {
	return ruleset.EndpointID{Kind: "WorkloadEndpoint", Namespace: "ns", Name: fmt.Sprint("w", g.IntN(3))}
}

func (g generator) workload(id ruleset.EndpointID) *ruleset.Workload {
	n := int(id.Name[1]-'0') + 3 // its device
	w := &ruleset.Workload{
		ID: id, Interface: interfaces[n], Normal: ruleset.Walk{Ingress: g.tiers(3), Egress: g.tiers(3)},
		Profiles: list(g, 2, func() string { return pick(g, "f0", "f1", "open", "open", "open", "none") }),
		Addrs:    list(g, 3, func() netip.Addr { return pick(g, own4(n, 1), own4(n, 2), own6(n, 1), own6(n, 2)) }),
	}
	if g.one(3) {
		w.Spoofable = list(g, 3, g.net)
	}
	if g.one(3) {
		w.Normal = ruleset.Walk{}
	}
	switch g.IntN(12) {
	case 0:
		w.Interface = ""
	case 1:
		if n == 0 {
			w.Interface = "x0" // no workload's, by its name
		}
	}
	return w
}

func (g generator) settings() ruleset.Settings {
	failsafe := func() ruleset.Failsafe {
		f := ruleset.Failsafe{Protocol: pick(g, ruleset.TCP, ruleset.UDP), Port: pick[uint16](g, 22, 53, 79)}
		if g.one(2) {
			f.Net = g.net()
		}
		return f
	}
	s := ruleset.Settings{
		FailsafeIngress: list(g, 3, failsafe), FailsafeEgress: list(g, 3, failsafe),
		Reject: g.one(3), AcceptInvalid: g.one(3), LogPrefix: pick(g, "", "calico-packet", "%t|%p"),
		WorkloadPrefixes: pick(g, nil, []string{"cali"}, []string{"cali"}, []string{"tap", "cali"}, []string{""}),
		EndpointToHost:   pick(g, ruleset.HostDrop, ruleset.HostReturn, ruleset.HostAccept),
		AllowSpoofing:    g.one(2), AllowVXLAN: g.one(2), AllowIPIP: g.one(2), VXLANPort: pick[uint16](g, 0, 4789, 9090),
	}
	if g.one(2) {
		s.LogRate = ruleset.LogRate{Packets: 10, Per: pick(g, time.Second, time.Minute, time.Hour, 24*time.Hour), Burst: pick[uint32](g, 0, 7)}
	}
	s.IPVS, s.RejectLoops = g.one(3), g.one(2)
	if g.one(2) {
		s.ServiceNets = list(g, 3, g.net)
	}
	if g.one(2) {
		s.Tunnels = []ruleset.Tunnel{
			{Protocol: ruleset.UDP, Port: pick[uint16](g, 4789, 4789, 9090), Family: pick(g, ruleset.AnyFamily, ruleset.IPv4, ruleset.IPv6), Proven: g.one(3)},
			{Protocol: 4, Family: pick(g, ruleset.AnyFamily, ruleset.IPv4), Proven: g.one(3)},
		}
		s.TunnelNets = list(g, 2, g.net)
	}
	return s
}

func (g generator) program() *ruleset.Program {
	p := ruleset.NewProgram()
	p.Settings = g.settings()
	for _, id := range setIDs {
		if id != "missing" && !g.one(8) {
			p.Sets[id] = g.set(id)
		}
	}
	for range 8 {
		id := g.policyID()
		p.Policies[id] = g.policy(id)
	}
	for _, name := range []string{"f0", "f1"} {
		p.Profiles[name] = g.profile(name)
	}
	all := []ruleset.Rule{{Action: ruleset.Allow}}
	p.Profiles["open"] = &ruleset.Profile{Name: "open", Ingress: all, Egress: all}
	for range 5 {
		id := g.endpointID()
		p.Endpoints[id] = g.endpoint(id)
	}
	for range 4 {
		id := g.workloadID()
		p.Workloads[id] = g.workload(id)
	}
	if g.one(4) {
		g.enlarge(p)
	}
	return p
}

// delta draws a change of p.
func (g generator) delta(p *ruleset.Program) *ruleset.Delta {
	d := &ruleset.Delta{
		Endpoints: map[ruleset.EndpointID]*ruleset.Endpoint{}, Workloads: map[ruleset.EndpointID]*ruleset.Workload{}, Policies: map[ruleset.PolicyID]*ruleset.Policy{},
		Profiles: map[string]*ruleset.Profile{}, Sets: map[ruleset.SetID]*ruleset.SetDelta{},
	}
	if g.one(8) {
		s := g.settings()
		d.Settings = &s
	}
	if g.one(3) {
		id := g.endpointID()
		if d.Endpoints[id] = g.endpoint(id); g.one(3) {
			d.Endpoints[id] = nil
		}
	}
	if g.one(3) {
		id := g.workloadID()
		if d.Workloads[id] = g.workload(id); g.one(3) {
			d.Workloads[id] = nil
		}
	}
	for range g.IntN(3) {
		id := g.policyID()
		if d.Policies[id] = g.policy(id); g.one(4) {
			d.Policies[id] = nil
		}
	}
	if g.one(4) {
		name := pick(g, "f0", "f1")
		if d.Profiles[name] = g.profile(name); g.one(4) {
			d.Profiles[name] = nil
		}
	}
	for range g.IntN(4) {
		id := pick(g, setIDs...)
		if id != "missing" {
			d.Sets[id] = g.setDelta(p, id)
		}
	}
	return d
}

func (g generator) setDelta(p *ruleset.Program, id ruleset.SetID) *ruleset.SetDelta {
	switch {
	case p.Sets[id] == nil || g.one(8):
		return &ruleset.SetDelta{New: g.set(id)}
	case g.one(8):
		return nil
	}
	member := func() ruleset.Member { return g.member(kindOf(id)) }
	return &ruleset.SetDelta{Add: list(g, 4, member), Remove: list(g, 4, member)}
}

// discovery draws a type of ICMPv6 for neighbour or listener discovery, or one that is beside them.
func (g generator) discovery() uint8 {
	if g.one(5) {
		return pick[uint8](g, 142, 143, 143, 144)
	}
	return uint8(129 + g.IntN(9))
}

// packet draws a packet that can be sent: as wire.emit takes it.
func (g generator) packet() ruleset.Packet {
	p := ruleset.Packet{Protocol: g.proto()}
	n := g.IntN(len(interfaces))
	if g.one(3) {
		p.Out = pick(g, "", "", interfaces[n])
	} else {
		p.In = interfaces[n]
	}
	four := !g.one(2)
	p.Src, p.Dst = g.source(p.In, n, four), g.target(four)
	if p.In == "" && g.one(3) {
		p.Out, p.Dst = "", pick(g, virtual4...)
		if !four {
			p.Dst = pick(g, virtual6...)
		}
	}
	if ruleset.HasPorts(p.Protocol) {
		p.SrcPort, p.DstPort = pick(g, ports...), pick(g, ports...)
		if g.one(2) {
			p.SrcPort = uint16(1024 + g.IntN(60000))
		}
	}
	if p.Protocol == ruleset.ICMP || p.Protocol == ruleset.ICMPv6 {
		p.ICMPType, p.ICMPCode = pick[uint8](g, 0, 8, 8, 13, 128, 128, 129, 3, 1), pick[uint8](g, 0, 0, 1)
		if g.one(3) {
			p.ICMPType = g.discovery() // neighbour discovery, and what is beside it
		}
	}
	if !four && p.In != "" && g.one(6) { // to all nodes of the link
		p.Dst = netip.MustParseAddr("ff02::1")
		switch g.IntN(6) {
		case 0:
			p.Src = netip.IPv6Unspecified()
		case 1, 2, 3:
			p.Protocol, p.ICMPType = ruleset.ICMPv6, g.discovery()
		}
	}
	return p
}

// answer draws an answer to a packet that passed, or an error about it, from where it went.
func (g generator) answer(to *passage) probe {
	p := to.packet
	out := probe{Packet: ruleset.Packet{In: p.Out, Src: p.Dst, Dst: p.Src, Protocol: p.Protocol, SrcPort: p.DstPort,
		DstPort: p.SrcPort, ICMPType: p.ICMPType, ICMPCode: p.ICMPCode}}
	if p.Out == "" {
		out.Out = p.In
	}
	if out.In == "lo" || out.Out == "lo" || p.Dst.IsMulticast() {
		return probe{Packet: g.packet()}
	}
	if g.one(3) && !p.DNAT { // unreachable
		about := to.sent
		out.Protocol, out.SrcPort, out.DstPort, out.ICMPType, out.ICMPCode = ruleset.ICMP, 0, 0, 3, 1
		if about.Src.Is6() {
			out.Protocol, out.ICMPType, out.ICMPCode = ruleset.ICMPv6, 1, 0
		}
		out.about, out.aboutID = &about, to.id
	}
	return out
}

// source draws the source of a packet that comes in by a device, or is sent.
func (g generator) source(in string, n int, four bool) netip.Addr {
	pool4, pool6 := locals4, locals6
	if in != "" {
		pool4, pool6 = peers4, peers6
	}
	if in != "" && !g.one(6) {
		pool4, pool6 = []netip.Addr{own4(n, 1), own4(n, 2)}, []netip.Addr{own6(n, 1), own6(n, 2)}
		if g.one(12) {
			pool6 = addrsOf("fe80::1", "::")
		}
	}
	if four {
		return pick(g, pool4...)
	}
	return pick(g, pool6...)
}

func (g generator) target(four bool) netip.Addr {
	n := g.IntN(len(interfaces))
	if four {
		return pick(g, pick(g, locals4, locals4, peers4, virtual4, virtual4, []netip.Addr{own4(n, 1), own4(n, 2)})...)
	}
	return pick(g, pick(g, locals6, locals6, peers6, virtual6, virtual6, []netip.Addr{own6(n, 1), own6(n, 2)})...)
}
