package ruleset

import (
	"net/netip"
	"testing"
)

func nets(list ...string) []netip.Prefix {
	prefixes := make([]netip.Prefix, len(list))
	for i, text := range list {
		prefixes[i] = netip.MustParsePrefix(text)
	}
	return prefixes
}

func members(list ...string) []Member {
	var result []Member
	for _, p := range nets(list...) {
		result = append(result, Member{Prefix: p})
	}
	return result
}

func ranges(list ...PortRange) *Ports { return &Ports{Ranges: list} }

func named(ids ...SetID) *Ports { return &Ports{Named: ids} }

// testSets are the sets that rules of the tests may name.
func testSets() map[SetID]*Set {
	web := Member{netip.MustParsePrefix("10.0.0.2/32"), TCP, 8080}
	return map[SetID]*Set{
		"ten":   NewSet(Addrs, "", members("10.0.0.0/8", "10.0.0.1/32", "fd00::/8")...),
		"one":   NewSet(Addrs, "", members("10.0.0.1/32")...),
		"two":   NewSet(Addrs, "", members("10.0.0.2/32")...),
		"every": NewSet(Addrs, "", members("0.0.0.0/0", "::/0")...),
		"empty": NewSet(Addrs, ""),
		"web":   NewSet(AddrPorts, "", web),
	}
}

// packet returns TCP 10.0.0.1:1000 to 10.0.0.2:80, in by eth0 and for this host, changed as asked.
func packet(changes ...func(*Packet)) *Packet {
	p := &Packet{
		In: "eth0", Src: netip.MustParseAddr("10.0.0.1"), Dst: netip.MustParseAddr("10.0.0.2"),
		Protocol: TCP, SrcPort: 1000, DstPort: 80,
	}
	for _, change := range changes {
		change(p)
	}
	return p
}

func v6(p *Packet) { p.Src, p.Dst = netip.MustParseAddr("fd00::1"), netip.MustParseAddr("2001:db8::2") }

func udp(p *Packet) { p.Protocol = UDP }

func to(port uint16) func(*Packet) { return func(p *Packet) { p.DstPort = port } }

func from(addr string) func(*Packet) {
	return func(p *Packet) { p.Src = netip.MustParseAddr(addr) }
}

func icmp(protocol, icmpType, code uint8) func(*Packet) {
	return func(p *Packet) {
		p.Protocol, p.ICMPType, p.ICMPCode, p.SrcPort, p.DstPort = protocol, icmpType, code, 0, 0
	}
}

func portless(protocol uint8) func(*Packet) {
	return func(p *Packet) { p.Protocol, p.SrcPort, p.DstPort = protocol, 0, 0 }
}

func TestRuleMatches(t *testing.T) {
	src := func(e Entity) Rule { return Rule{Source: e} }
	dst := func(e Entity) Rule { return Rule{Destination: e} }
	tests := []struct {
		name string
		rule Rule
		pkt  *Packet
		want bool
	}{
		{"empty rule, TCP", Rule{}, packet(), true},
		{"empty rule, IPv6", Rule{}, packet(v6), true},
		{"empty rule, protocol without ports", Rule{}, packet(portless(47)), true},

		{"family 4, IPv4", Rule{Family: IPv4}, packet(), true},
		{"family 4, IPv6", Rule{Family: IPv4}, packet(v6), false},
		{"family 6, IPv4", Rule{Family: IPv6}, packet(), false},
		{"family 6, IPv6", Rule{Family: IPv6}, packet(v6), true},
		{"family 4, mapped address is IPv6", Rule{Family: IPv4}, packet(from("::ffff:10.0.0.1")), false},

		{"protocol", Rule{Protocol: TCP}, packet(), true},
		{"other protocol", Rule{Protocol: TCP}, packet(udp), false},
		{"notProtocol, the same", Rule{NotProtocol: TCP}, packet(), false},
		{"notProtocol, another", Rule{NotProtocol: TCP}, packet(udp), true},
		{"protocol number", Rule{Protocol: 47}, packet(portless(47)), true},

		{"icmp type", Rule{ICMP: ICMPMatch{HasType: true, Type: 8}}, packet(icmp(ICMP, 8, 3)), true},
		{"icmp other type", Rule{ICMP: ICMPMatch{HasType: true, Type: 8}}, packet(icmp(ICMP, 0, 0)), false},
		{"icmp type 0", Rule{ICMP: ICMPMatch{HasType: true}}, packet(icmp(ICMP, 0, 0)), true},
		{"icmp type 0, another", Rule{ICMP: ICMPMatch{HasType: true}}, packet(icmp(ICMP, 8, 0)), false},
		{"icmp code", Rule{ICMP: ICMPMatch{HasType: true, HasCode: true, Type: 3, Code: 4}}, packet(icmp(ICMP, 3, 4)), true},
		{"icmp other code", Rule{ICMP: ICMPMatch{HasType: true, HasCode: true, Type: 3, Code: 4}}, packet(icmp(ICMP, 3, 1)), false},
		{"icmp code 0, another", Rule{ICMP: ICMPMatch{HasType: true, HasCode: true, Type: 3}}, packet(icmp(ICMP, 3, 1)), false},
		{"icmp type, TCP", Rule{ICMP: ICMPMatch{HasType: true}}, packet(), false},
		{"icmp type, ICMPv6", Rule{ICMP: ICMPMatch{HasType: true, Type: 128}}, packet(v6, icmp(ICMPv6, 128, 0)), true},
		{"icmp type, ICMPv6 in IPv4", Rule{ICMP: ICMPMatch{HasType: true, Type: 128}}, packet(icmp(ICMPv6, 128, 0)), false},
		{"icmp type, ICMP in IPv6", Rule{ICMP: ICMPMatch{HasType: true, Type: 8}}, packet(v6, icmp(ICMP, 8, 0)), false},
		{"notICMP, the type", Rule{NotICMP: ICMPMatch{HasType: true, Type: 8}}, packet(icmp(ICMP, 8, 3)), false},
		{"notICMP, another type", Rule{NotICMP: ICMPMatch{HasType: true, Type: 8}}, packet(icmp(ICMP, 0, 0)), true},
		{"notICMP, the code", Rule{NotICMP: ICMPMatch{HasType: true, HasCode: true, Type: 3, Code: 4}}, packet(icmp(ICMP, 3, 4)), false},
		{"notICMP, another code", Rule{NotICMP: ICMPMatch{HasType: true, HasCode: true, Type: 3, Code: 4}}, packet(icmp(ICMP, 3, 1)), true},
		{"notICMP, TCP", Rule{NotICMP: ICMPMatch{HasType: true}}, packet(), true},
		{"notICMP, zero", Rule{}, packet(icmp(ICMP, 0, 0)), true},

		{"source net", src(Entity{Nets: nets("192.0.2.0/24", "10.0.0.0/24")}), packet(), true},
		{"source other net", src(Entity{Nets: nets("192.0.2.0/24")}), packet(), false},
		{"source nets, none", src(Entity{Nets: nets()}), packet(), false},
		{"source /0", src(Entity{Nets: nets("0.0.0.0/0")}), packet(), true},
		{"source /0 of the other family", src(Entity{Nets: nets("0.0.0.0/0")}), packet(v6), false},
		{"source nets of both families", src(Entity{Nets: nets("10.0.0.0/8", "fd00::/8")}), packet(v6), true},
		{"source notNets", src(Entity{NotNets: nets("10.0.0.0/24")}), packet(), false},
		{"source other notNets", src(Entity{NotNets: nets("192.0.2.0/24")}), packet(), true},
		{"source notNets of the other family", src(Entity{NotNets: nets("fd00::/8")}), packet(), true},
		{"source notNets, none", src(Entity{NotNets: nets()}), packet(), true},
		{"source net and notNet", src(Entity{Nets: nets("10.0.0.0/8"), NotNets: nets("10.0.0.1/32")}), packet(), false},
		{"destination net", dst(Entity{Nets: nets("10.0.0.2/32")}), packet(), true},
		{"destination other net", dst(Entity{Nets: nets("10.0.0.1/32")}), packet(), false},
		{"destination notNets", dst(Entity{NotNets: nets("10.0.0.2/32")}), packet(), false},
		{"destination other notNets", dst(Entity{NotNets: nets("10.0.0.1/32")}), packet(), true},

		{"source set", src(Entity{Sets: []SetID{"ten"}}), packet(), true},
		{"source set, outside", src(Entity{Sets: []SetID{"ten"}}), packet(from("192.0.2.1")), false},
		{"source set, IPv6", src(Entity{Sets: []SetID{"ten"}}), packet(v6), true},
		{"source sets, both", src(Entity{Sets: []SetID{"ten", "one"}}), packet(), true},
		{"source sets, only one", src(Entity{Sets: []SetID{"ten", "two"}}), packet(), false},
		{"source set of everything", src(Entity{Sets: []SetID{"every"}}), packet(v6), true},
		{"source set, empty", src(Entity{Sets: []SetID{"empty"}}), packet(), false},
		{"source set, missing", src(Entity{Sets: []SetID{"missing"}}), packet(), false},
		{"source notSet", src(Entity{NotSets: []SetID{"ten"}}), packet(), false},
		{"source notSet, outside", src(Entity{NotSets: []SetID{"ten"}}), packet(from("192.0.2.1")), true},
		{"source notSets, the second", src(Entity{NotSets: []SetID{"two", "one"}}), packet(), false},
		{"source notSet, empty", src(Entity{NotSets: []SetID{"empty"}}), packet(), true},
		{"source notSet, missing", src(Entity{NotSets: []SetID{"missing"}}), packet(), true},
		{"source set and notSet", src(Entity{Sets: []SetID{"ten"}, NotSets: []SetID{"one"}}), packet(), false},
		{"destination set", dst(Entity{Sets: []SetID{"two"}}), packet(), true},
		{"destination other set", dst(Entity{Sets: []SetID{"one"}}), packet(), false},
		{"destination notSet", dst(Entity{NotSets: []SetID{"two"}}), packet(), false},
		{"destination other notSet", dst(Entity{NotSets: []SetID{"one"}}), packet(), true},

		{"source port", src(Entity{Ports: ranges(PortRange{1000, 1000})}), packet(), true},
		{"source port is not the destination's", src(Entity{Ports: ranges(PortRange{80, 80})}), packet(), false},
		{"destination port", dst(Entity{Ports: ranges(PortRange{443, 443}, PortRange{80, 80})}), packet(), true},
		{"destination other port", dst(Entity{Ports: ranges(PortRange{443, 443})}), packet(), false},
		{"range, first", dst(Entity{Ports: ranges(PortRange{80, 90})}), packet(), true},
		{"range, last", dst(Entity{Ports: ranges(PortRange{70, 80})}), packet(), true},
		{"range, below", dst(Entity{Ports: ranges(PortRange{81, 90})}), packet(), false},
		{"range, all", dst(Entity{Ports: ranges(PortRange{0, 65535})}), packet(to(65535)), true},
		{"ports, none", dst(Entity{Ports: &Ports{}}), packet(), false},
		{"ports, protocol without ports", dst(Entity{Ports: ranges(PortRange{0, 65535})}), packet(portless(47)), false},
		{"ports, SCTP", dst(Entity{Ports: ranges(PortRange{80, 80})}), packet(func(p *Packet) { p.Protocol = SCTP }), true},
		{"ports, UDPLite", dst(Entity{Ports: ranges(PortRange{80, 80})}), packet(func(p *Packet) { p.Protocol = UDPLite }), true},
		{"notPorts", dst(Entity{NotPorts: ranges(PortRange{80, 80})}), packet(), false},
		{"notPorts, another", dst(Entity{NotPorts: ranges(PortRange{443, 443})}), packet(), true},
		{"notPorts, none", dst(Entity{NotPorts: &Ports{}}), packet(), true},
		{"notPorts, protocol without ports", dst(Entity{NotPorts: ranges(PortRange{0, 65535})}), packet(portless(47)), true},
		{"notPorts win", dst(Entity{Ports: ranges(PortRange{1, 100}), NotPorts: ranges(PortRange{80, 80})}), packet(), false},
		{"source notPorts", src(Entity{NotPorts: ranges(PortRange{1000, 1000})}), packet(), false},

		{"named port", dst(Entity{Ports: named("web")}), packet(to(8080)), true},
		{"named port, other port", dst(Entity{Ports: named("web")}), packet(), false},
		{"named port, other protocol", dst(Entity{Ports: named("web")}), packet(to(8080), udp), false},
		{"named port, other address", src(Entity{Ports: named("web")}), packet(func(p *Packet) { p.SrcPort = 8080 }), false},
		{"named or numeric", dst(Entity{Ports: &Ports{Ranges: []PortRange{{80, 80}}, Named: []SetID{"web"}}}), packet(), true},
		{"named, missing set", dst(Entity{Ports: named("missing")}), packet(to(8080)), false},
		{"not named port", dst(Entity{NotPorts: named("web")}), packet(to(8080)), false},
		{"not named port, missing set", dst(Entity{NotPorts: named("missing")}), packet(to(8080)), true},

		{"all fields", Rule{
			Family: IPv4, Protocol: TCP, NotProtocol: UDP,
			Source:      Entity{Nets: nets("10.0.0.1/32"), Sets: []SetID{"one"}, Ports: ranges(PortRange{1000, 1000})},
			Destination: Entity{NotNets: nets("10.0.0.1/32"), NotSets: []SetID{"one"}, NotPorts: ranges(PortRange{81, 90})},
		}, packet(), true},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			p := NewProgram()
			p.Sets = testSets()
			if got := p.matches(&test.rule, test.pkt); got != test.want {
				t.Errorf("matches = %v, want %v", got, test.want)
			}
			if got := (&dumb{p: p}).matches(&test.rule, test.pkt); got != test.want {
				t.Errorf("dumb implementation: matches = %v, want %v", got, test.want)
			}
		})
	}
}

var (
	eth0    = EndpointID{"HostEndpoint", "", "eth0"}
	anyway  = EndpointID{"HostEndpoint", "", "wild"}
	allow   = Rule{Action: Allow}
	deny    = Rule{Action: Deny}
	pass    = Rule{Action: Pass}
	logging = Rule{Action: Log}
	other   = Rule{Action: Allow, Protocol: UDP}
)

func policyID(name string) PolicyID { return PolicyID{"GlobalNetworkPolicy", "", name} }

// host returns a program with one endpoint on eth0 that has the given ingress tiers and profiles. Policies are made on
// the way: a policy's name is looked up in rules.
func host(tiers []Tier, rules map[string][]Rule, profiles ...string) *Program {
	p := NewProgram()
	p.Endpoints[eth0] = &Endpoint{ID: eth0, Interfaces: []string{"eth0"}, Normal: Walk{Ingress: tiers}, Profiles: profiles}
	for name, list := range rules {
		id := policyID(name)
		p.Policies[id] = &Policy{ID: id, Ingress: list, Staged: name[0] == 's'}
	}
	p.Profiles["open"] = &Profile{Name: "open", Ingress: []Rule{allow}, Egress: []Rule{allow}}
	p.Profiles["closed"] = &Profile{Name: "closed", Ingress: []Rule{logging, pass, deny}}
	p.Profiles["void"] = &Profile{Name: "void"}
	return p
}

func tier(name string, policies ...string) Tier {
	t := Tier{Name: name}
	for _, p := range policies {
		t.Policies = append(t.Policies, policyID(p))
	}
	return t
}

func endPass(t Tier) Tier {
	t.EndPass = true
	return t
}

func TestEvalWalk(t *testing.T) {
	rules := map[string][]Rule{
		"allow": {allow}, "deny": {deny}, "pass": {pass}, "log": {logging}, "logdeny": {logging, deny}, "none": nil,
		"other": {other}, "mixed": {other, deny, allow}, "staged": {deny},
	}
	decided := func(allowed bool, tier, policy string, rule int) Verdict {
		return Verdict{Allowed: allowed, Reason: PolicyRule, Endpoint: eth0, Tier: tier, Policy: policyID(policy), Rule: rule}
	}
	end := func(tier string) Verdict { return Verdict{Reason: EndOfTier, Endpoint: eth0, Tier: tier} }
	profile := func(allowed bool, name string, rule int) Verdict {
		return Verdict{Allowed: allowed, Reason: ProfileRule, Endpoint: eth0, Profile: name, Rule: rule}
	}
	nothing := Verdict{Reason: NoProfile, Endpoint: eth0}
	list := func(tiers ...Tier) []Tier { return tiers }
	tests := []struct {
		name     string
		tiers    []Tier
		profiles []string
		want     Verdict
	}{
		{"no policy, no profile", nil, nil, nothing},
		{"allow", list(tier("t", "allow")), nil, decided(true, "t", "allow", 0)},
		{"deny", list(tier("t", "deny")), nil, decided(false, "t", "deny", 0)},
		{"first match in a policy", list(tier("t", "mixed")), nil, decided(false, "t", "mixed", 1)},
		{"first policy that matches", list(tier("t", "other", "allow", "deny")), nil, decided(true, "t", "allow", 0)},
		{"log goes on", list(tier("t", "logdeny", "allow")), nil, decided(false, "t", "logdeny", 1)},
		{"a policy that only logs makes the end of tier deny", list(tier("t", "log"), tier("u", "allow")), nil, end("t")},
		{"no match denies at the end of the tier", list(tier("t", "other"), tier("u", "allow")), nil, end("t")},
		{"a policy without rules denies at the end of the tier", list(tier("t", "none"), tier("u", "allow")), nil, end("t")},
		{"no match passes at the end of a pass tier", list(endPass(tier("t", "other")), tier("u", "allow")), nil, decided(true, "u", "allow", 0)},
		{"pass leaves the tier", list(tier("t", "pass", "deny"), tier("u", "allow")), nil, decided(true, "u", "allow", 0)},
		{"pass in the last tier goes to profiles", list(tier("t", "pass", "deny")), []string{"open"}, profile(true, "open", 0)},
		{"pass without profiles", list(tier("t", "pass")), nil, nothing},
		{"staged does not decide", list(tier("t", "staged", "allow")), nil, decided(true, "t", "allow", 0)},
		{"a tier of staged policies is transparent", list(tier("t", "staged")), []string{"open"}, profile(true, "open", 0)},
		{"staged beside enforced", list(tier("t", "staged", "other")), []string{"open"}, end("t")},
		{"a tier without policies is transparent", list(tier("t")), []string{"open"}, profile(true, "open", 0)},
		{"profiles in order", nil, []string{"void", "closed", "open"}, profile(false, "closed", 2)},
		{"profile without match", nil, []string{"void"}, nothing},
		{"missing profile denies", nil, []string{"void", "gone", "open"}, Verdict{Reason: ProfileMissing, Endpoint: eth0, Profile: "gone"}},
		{"missing profile after a decision", nil, []string{"open", "gone"}, profile(true, "open", 0)},
		{"end of tier hides profiles", list(tier("t", "none")), []string{"open"}, end("t")},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			p := host(test.tiers, rules, test.profiles...)
			if got := Eval(p, packet()); got != test.want {
				t.Errorf("Eval = %+v, want %+v", got, test.want)
			}
			if got := dumbEval(p, packet()); got != test.want {
				t.Errorf("dumb implementation: %+v, want %+v", got, test.want)
			}
		})
	}
}

// guarded returns a host that denies everything on eth0 but the failsafes, with a wildcard endpoint that allows.
func guarded() *Program {
	p := host([]Tier{tier("t", "deny")}, map[string][]Rule{"deny": {deny}, "allow": {allow}})
	p.Endpoints[anyway] = &Endpoint{ID: anyway, Interfaces: []string{AllInterfaces}, Normal: Walk{Ingress: []Tier{tier("t", "allow")}}}
	p.Settings = Settings{
		FailsafeIngress:  []Failsafe{{Protocol: TCP, Port: 22}, {Protocol: UDP, Port: 68}, {Protocol: TCP, Port: 179, Net: netip.MustParsePrefix("10.0.0.0/24")}},
		FailsafeEgress:   []Failsafe{{Protocol: UDP, Port: 53}, {Protocol: TCP, Port: 179, Net: netip.MustParsePrefix("10.0.0.2/32")}},
		WorkloadPrefixes: []string{"", "cali", "tap"},
	}
	return p
}

func TestEvalBeforePolicy(t *testing.T) {
	on := func(name string) func(*Packet) { return func(p *Packet) { p.In = name } }
	state := func(s ConnState) func(*Packet) { return func(p *Packet) { p.State = s } }
	egress := func(p *Packet) { p.In, p.Out = "", p.In }
	acceptInvalid := func(p *Program) { p.Settings.AcceptInvalid = true }
	same := func(*Program) {}
	failsafe := func(i int) Verdict {
		return Verdict{Allowed: true, Reason: FailsafePort, Endpoint: eth0, Rule: i}
	}
	out := func(v Verdict) Verdict { v.Direction = Egress; return v }
	denied := Verdict{Reason: PolicyRule, Endpoint: eth0, Tier: "t", Policy: policyID("deny")}
	wild := Verdict{Allowed: true, Reason: PolicyRule, Endpoint: anyway, Tier: "t", Policy: policyID("allow")}
	noWild := func(p *Program) { delete(p.Endpoints, anyway) }
	tests := []struct {
		name   string
		change func(*Program)
		pkt    *Packet
		want   Verdict
	}{
		{"policy", same, packet(), denied},
		{"established", same, packet(state(Established)), Verdict{Allowed: true, Reason: FlowKnown}},
		{"related", same, packet(state(Related)), Verdict{Allowed: true, Reason: FlowKnown}},
		{"invalid", same, packet(state(Invalid), to(22)), Verdict{Reason: FlowInvalid, Endpoint: eth0}},
		{"invalid accepted goes to failsafes", acceptInvalid, packet(state(Invalid), to(22)), failsafe(0)},
		{"invalid accepted goes to policy", acceptInvalid, packet(state(Invalid)), denied},
		{"failsafe", same, packet(to(22)), failsafe(0)},
		{"failsafe, IPv6", same, packet(v6, to(22)), failsafe(0)},
		{"failsafe, other protocol", same, packet(to(22), udp), denied},
		{"failsafe, udp", same, packet(to(68), udp), failsafe(1)},
		{"failsafe with net", same, packet(to(179)), failsafe(2)},
		{"failsafe with net, other source", same, packet(to(179), from("10.0.1.1")), denied},
		{"failsafe with net, other family", same, packet(to(179), v6), denied},
		{"failsafe is the destination port", same, packet(func(p *Packet) { p.SrcPort = 22 }), denied},
		{"failsafe out", same, packet(to(53), udp, egress), out(failsafe(0))},
		{"failsafe out, net is the destination", same, packet(to(179), egress), out(failsafe(1))},
		{"failsafe in does not hold for out", same, packet(to(22), egress), out(Verdict{Reason: NoProfile, Endpoint: eth0})},
		{"wildcard", same, packet(on("eth1")), wild},
		{"wildcard, loopback", same, packet(on("lo")), wild},
		{"no interface that anybody knows of", same, packet(on("cali123")), Verdict{Reason: UnknownInterface, Direction: Egress}},
		{"no endpoint", noWild, packet(on("eth1")), Verdict{Allowed: true, Reason: NoEndpoint}},
		{"no endpoint, invalid", noWild, packet(on("eth1"), state(Invalid)), Verdict{Allowed: true, Reason: NoEndpoint}},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			p := guarded()
			test.change(p)
			if got := Eval(p, test.pkt); got != test.want {
				t.Errorf("Eval = %+v, want %+v", got, test.want)
			}
			if got := dumbEval(p, test.pkt); got != test.want {
				t.Errorf("dumb implementation: %+v, want %+v", got, test.want)
			}
		})
	}
}

func TestZeroValuesDeny(t *testing.T) {
	if (Verdict{}).Allowed || (Rule{}).Action != Deny || NoProfile != 0 {
		t.Error("a zero value allows")
	}
	if !Eval(&Program{}, packet()).Allowed {
		t.Error("the zero program filters")
	}
}

func TestEvalDoesNotAllocate(t *testing.T) {
	p := guarded()
	p.Sets = testSets()
	p.Policies[policyID("deny")].Ingress = []Rule{
		{Action: Allow, Source: Entity{Nets: nets("192.0.2.0/24"), NotNets: nets("10.0.0.0/8")}},
		{Action: Allow, Source: Entity{Sets: []SetID{"two"}, NotSets: []SetID{"ten"}}},
		{Action: Allow, Destination: Entity{Ports: named("web"), NotPorts: named("web")}},
		{Action: Allow, ICMP: ICMPMatch{HasType: true}, NotICMP: ICMPMatch{HasType: true}},
	}
	for _, pkt := range []*Packet{packet(), packet(v6), packet(udp), packet(icmp(ICMP, 0, 0))} {
		if n := testing.AllocsPerRun(100, func() { Eval(p, pkt) }); n != 0 {
			t.Errorf("Eval of %+v allocates %v times", pkt, n)
		}
	}
}

func TestStrings(t *testing.T) {
	tests := []struct{ got, want string }{
		{Allow.String() + Deny.String() + Pass.String() + Log.String(), "AllowDenyPassLog"},
		{Ingress.String() + Egress.String(), "ingressegress"},
		{NoProfile.String() + "/" + ProfileMissing.String(), "no profile/profile missing"},
		{PolicyID{"NetworkPolicy", "ns", "p"}.String(), "NetworkPolicy(ns/p)"},
		{eth0.String(), "HostEndpoint(eth0)"},
	}
	for _, test := range tests {
		if test.got != test.want {
			t.Errorf("got %q, want %q", test.got, test.want)
		}
	}
}
