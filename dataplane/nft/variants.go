package nft

import (
	"net/netip"
	"slices"

	"margay/ruleset"
)

// variants returns what r is in nft's terms: r matches a packet exactly when one of the variants does. For a rule that
// goes on after it matched (Log) no packet matches two.
//
// nft matches one family and one alternative per rule, so a rule is multiplied out where Eval has an "or": the families
// when addresses or ICMP matter, numeric ports beside named ones, "not these ports" which holds for a protocol without
// ports, and "not this ICMP type" which holds for other protocols. A variant that nothing can match is left out: a rule
// whose variants are all left out matches nothing, whatever its action.
//
// to is the side that the rule calls the destination.
func variants(sets setIndex, r *ruleset.Rule, to side) []variant {
	return (&expander{sets: sets}).variants(r, to)
}

// variants returns the same; the next call overwrites it.
func (x *expander) variants(r *ruleset.Rule, to side) []variant {
	x.rule, x.out, x.arena = r, x.out[:0], x.arena[:0]
	protos := allProtocols
	if r.Protocol != 0 {
		protos = protocolsOf(r.Protocol)
	}
	if r.NotProtocol != 0 {
		protos = protos.and(protocolsOf(r.NotProtocol).not())
	}
	anyFamily := r.Family == ruleset.AnyFamily && !dependsOnFamily(r)
	for _, f := range [...]ruleset.Family{ruleset.AnyFamily, ruleset.IPv4, ruleset.IPv6} {
		switch {
		case r.Family != ruleset.AnyFamily && f != r.Family:
			continue
		case r.Family == ruleset.AnyFamily && anyFamily != (f == ruleset.AnyFamily):
			continue
		}
		x.vs = append(x.vs[:0], variant{family: f, protos: protos})
		x.icmp()
		x.entity(source, &r.Source)
		x.entity(to, &r.Destination)
		x.out = append(x.out, x.vs...)
	}
	x.out = slices.DeleteFunc(x.out, func(v variant) bool { return v.protos.empty() })
	if to == original {
		x.vs, x.out = x.out, x.vs
		x.each(eachProtocol)
		x.vs, x.out = x.out, x.vs
	}
	return x.out
}

// eachProtocol adds v, as a variant for each of its protocols, if v matches a port that connection tracking remembers: nft(8)
// reads and prints such a port only where the protocol is known.
func eachProtocol(out []variant, v variant) []variant {
	if !v.implies(func(t test) bool { return t.side == original && (t.port() || t.kind == testAddrPorts) }) {
		return append(out, v)
	}
	for _, p := range v.protos.list() {
		out = append(out, v.only(protocolsOf(p)))
	}
	return out
}

// dependsOnFamily reports whether a rule for both families must be written for each.
func dependsOnFamily(r *ruleset.Rule) bool {
	return r.ICMP.HasType || r.NotICMP.HasType || hasFamily(&r.Source) || hasFamily(&r.Destination)
}

func hasFamily(e *ruleset.Entity) bool {
	return e.Nets != nil || e.NotNets != nil || e.Sets != nil || e.NotSets != nil ||
		e.Ports != nil && e.Ports.Named != nil || e.NotPorts != nil && e.NotPorts.Named != nil
}

// A setIndex tells what the sets of the Program are.
type setIndex interface {
	// find returns nil for a set that the Program does not hold.
	find(ruleset.SetID) *memberSet
}

// knownSets are the sets of an image.
type knownSets map[ruleset.SetID]*memberSet

func (k knownSets) find(id ruleset.SetID) *memberSet { return k[id] }

// An expander multiplies a rule out, condition by condition. There are very many rules, so it keeps what it works with.
type expander struct {
	sets      setIndex
	rule      *ruleset.Rule
	vs        []variant // so far, for one family
	next, out []variant
	arena     []test // of the variants
	tests     []test // of which one is to hold
}

// each puts in the place of every variant those that f adds for it.
func (x *expander) each(f func(out []variant, v variant) []variant) {
	next := x.next[:0]
	for _, v := range x.vs {
		if !v.protos.empty() {
			next = f(next, v)
		}
	}
	x.vs, x.next = next, x.vs
}

// with returns v with one more test.
func (x *expander) with(v variant, t test) variant {
	start := len(x.arena)
	x.arena = append(append(x.arena, v.tests...), t)
	v.tests = x.arena[start:len(x.arena):len(x.arena)]
	return v
}

func icmpOf(f ruleset.Family) protocols {
	if f == ruleset.IPv6 {
		return protocolsOf(ruleset.ICMPv6)
	}
	return protocolsOf(ruleset.ICMP)
}

func (x *expander) icmp() {
	if m := x.rule.ICMP; m.HasType {
		x.each(func(out []variant, v variant) []variant {
			v = x.with(v.only(icmpOf(v.family)), test{kind: testICMPType, value: m.Type})
			if m.HasCode {
				v = x.with(v, test{kind: testICMPCode, value: m.Code})
			}
			return append(out, v)
		})
	}
	if m := x.rule.NotICMP; m.HasType {
		x.each(func(out []variant, v variant) []variant {
			icmp := v.only(icmpOf(v.family))
			out = append(out,
				v.only(icmpOf(v.family).not()),
				x.with(icmp, test{kind: testICMPType, value: m.Type, not: true}))
			if m.HasCode {
				out = append(out, x.with(x.with(icmp, test{kind: testICMPType, value: m.Type}),
					test{kind: testICMPCode, value: m.Code, not: true}))
			}
			return out
		})
	}
}

func (x *expander) entity(s side, e *ruleset.Entity) {
	if e.Nets != nil {
		x.each(func(out []variant, v variant) []variant { return x.nets(out, v, s, e.Nets) })
	}
	if len(e.NotNets) > 0 {
		x.each(func(out []variant, v variant) []variant { return x.notNets(out, v, s, e.NotNets) })
	}
	for _, id := range e.Sets {
		if x.tests = x.tests[:0]; x.find(id, ruleset.Addrs) != nil {
			x.memberTests(s, x.find(id, ruleset.Addrs))
		}
		x.each(x.oneOf) // none, if there is no set
	}
	for _, id := range e.NotSets {
		if m := x.find(id, ruleset.Addrs); m != nil {
			x.tests = x.tests[:0]
			x.memberTests(s, m)
			x.each(func(out []variant, v variant) []variant { return append(out, x.without(v, x.tests)) })
		}
	}
	if e.Ports != nil {
		x.ports(s, e.Ports)
	}
	if e.NotPorts != nil {
		x.notPorts(s, e.NotPorts)
	}
}

// memberTests adds the tests of which one holds when the address is in a set.
func (x *expander) memberTests(s side, m *memberSet) {
	x.tests = append(x.tests, test{kind: testNets, side: s, members: m})
	if m.large {
		x.tests = append(x.tests, test{kind: testHosts, side: s, members: m})
	}
}

// oneOf adds the alternatives of a packet that v and one of the tests match.
func (x *expander) oneOf(out []variant, v variant) []variant {
	for i, t := range x.tests {
		alternative := v
		if !x.rule.Action.Decides() {
			alternative = x.without(v, x.tests[:i])
		}
		out = append(out, x.with(alternative, t))
	}
	return out
}

// find returns the set with members of that kind. A set that is missing, or that is used for what it is not, has no
// member: it returns nil.
func (x *expander) find(id ruleset.SetID, kind ruleset.SetKind) *memberSet {
	if m := x.sets.find(id); m != nil && m.kind == kind {
		return m
	}
	return nil
}

func (x *expander) nets(out []variant, v variant, s side, nets []netip.Prefix) []variant {
	disjoint := maximal(ofFamily(nets, v.family))
	switch {
	case len(disjoint) == 0:
		return out
	case disjoint[0].Bits() == 0:
		return append(out, v)
	}
	return append(out, x.with(v, netsTest(s, disjoint)))
}

func (x *expander) notNets(out []variant, v variant, s side, nets []netip.Prefix) []variant {
	disjoint := maximal(ofFamily(nets, v.family))
	switch {
	case len(disjoint) == 0:
		return append(out, v)
	case disjoint[0].Bits() == 0:
		return out
	}
	t := netsTest(s, disjoint)
	t.not = true
	return append(out, x.with(v, t))
}

// portTests collects a test for the ranges and one for each set. everything: all ports are in the ranges.
func (x *expander) portTests(s side, ports *ruleset.Ports) (everything bool) {
	x.tests = x.tests[:0]
	ranges := mergeRanges(ports.Ranges)
	if everyPort(ranges) {
		return true
	}
	if len(ranges) > 0 {
		x.tests = append(x.tests, portsTest(s, ranges))
	}
	for _, id := range ports.Named {
		if m := x.find(id, ruleset.AddrPorts); m != nil {
			x.tests = append(x.tests, test{kind: testAddrPorts, side: s, members: m})
		}
	}
	return false
}

// ports makes an alternative for the ranges and one for each set.
func (x *expander) ports(s side, ports *ruleset.Ports) {
	everything := x.portTests(s, ports)
	x.each(func(out []variant, v variant) []variant {
		v = v.only(portProtocols)
		if everything {
			return append(out, v)
		}
		return x.oneOf(out, v)
	})
}

func (x *expander) notPorts(s side, ports *ruleset.Ports) {
	everything := x.portTests(s, ports)
	x.each(func(out []variant, v variant) []variant {
		switch {
		case everything:
			return append(out, v.only(portProtocols.not()))
		case len(x.tests) == 0:
			return append(out, v)
		}
		return append(out, v.only(portProtocols.not()), x.without(v.only(portProtocols), x.tests))
	})
}

// without returns v restricted to what no test matches.
func (x *expander) without(v variant, tests []test) variant {
	for _, t := range tests {
		t.not = true
		if t.isOtherPort() && v.implies(test.isOtherPort) {
			t.kind = testPortSet // nft 1.0.6 reads "sport != 1 dport != 2" as one comparison of both ports, which is something else
		}
		v = x.with(v, t)
	}
	return v
}

// isOtherPort: the port is not one.
func (t test) isOtherPort() bool {
	return t.not && t.kind == testPorts && t.ranges[0].First == t.ranges[0].Last
}

func ofFamily(nets []netip.Prefix, f ruleset.Family) []netip.Prefix {
	var out []netip.Prefix
	for _, n := range nets {
		if n.IsValid() && ruleset.FamilyOf(n.Addr()) == f {
			out = append(out, n.Masked())
		}
	}
	return out
}

// maximal returns the prefixes that no other one covers, in order: prefixes are nested or disjoint, so these are disjoint
// and cover the same addresses. Neighbours are not merged, so that every element stands for a prefix that somebody wrote.
func maximal(nets []netip.Prefix) []netip.Prefix {
	slices.SortFunc(nets, func(a, b netip.Prefix) int {
		if c := a.Addr().Compare(b.Addr()); c != 0 {
			return c
		}
		return a.Bits() - b.Bits()
	})
	var out []netip.Prefix
	for _, n := range nets {
		if len(out) == 0 || !out[len(out)-1].Overlaps(n) {
			out = append(out, n)
		}
	}
	return out
}

// mergeRanges returns the same ports as disjoint ranges in order, neighbours merged.
func mergeRanges(ranges []ruleset.PortRange) []ruleset.PortRange {
	if len(ranges) == 1 && ranges[0].First <= ranges[0].Last {
		return ranges
	}
	sorted := slices.SortedFunc(slices.Values(ranges), func(a, b ruleset.PortRange) int {
		return int(a.First) - int(b.First)
	})
	var out []ruleset.PortRange
	for _, r := range sorted {
		switch {
		case r.First > r.Last:
		case len(out) > 0 && int(r.First) <= int(out[len(out)-1].Last)+1:
			out[len(out)-1].Last = max(out[len(out)-1].Last, r.Last)
		default:
			out = append(out, r)
		}
	}
	return out
}

func everyPort(ranges []ruleset.PortRange) bool {
	return len(ranges) == 1 && ranges[0] == ruleset.PortRange{First: 0, Last: 65535}
}
