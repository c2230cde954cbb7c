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
	protos := allProtocols
	if r.Protocol != 0 {
		protos = protocolsOf(r.Protocol)
	}
	if r.NotProtocol != 0 {
		protos = protos.and(protocolsOf(r.NotProtocol).not())
	}
	x := expander{sets: sets, rule: r}
	var out []variant
	for _, f := range families(r) {
		vs := []variant{{family: f, protos: protos}}
		vs = x.icmp(vs)
		vs = x.entity(vs, source, &r.Source)
		vs = x.entity(vs, to, &r.Destination)
		out = append(out, vs...)
	}
	out = slices.DeleteFunc(out, func(v variant) bool { return v.protos.empty() })
	if to == original {
		out = each(out, eachProtocol)
	}
	return out
}

// eachProtocol returns the same as v, each variant for one protocol, if v matches a port that connection tracking
// remembers: nft(8) reads and prints such a port only where the protocol is known.
func eachProtocol(v variant) []variant {
	if !v.implies(func(t test) bool { return t.side == original && (t.port() || t.kind == testAddrPorts) }) {
		return []variant{v}
	}
	var out []variant
	for _, p := range v.protos.list() {
		out = append(out, v.only(protocolsOf(p)))
	}
	return out
}

// families returns the families that a rule must be written for: any, when nothing in the rule depends on it.
func families(r *ruleset.Rule) []ruleset.Family {
	if r.Family != ruleset.AnyFamily {
		return []ruleset.Family{r.Family}
	}
	if r.ICMP.HasType || r.NotICMP.HasType || hasFamily(&r.Source) || hasFamily(&r.Destination) {
		return []ruleset.Family{ruleset.IPv4, ruleset.IPv6}
	}
	return []ruleset.Family{ruleset.AnyFamily}
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

// An expander multiplies a rule out, condition by condition.
type expander struct {
	sets setIndex
	rule *ruleset.Rule
}

// each returns the variants that f makes of every one of vs.
func each(vs []variant, f func(variant) []variant) []variant {
	var out []variant
	for _, v := range vs {
		if !v.protos.empty() {
			out = append(out, f(v)...)
		}
	}
	return out
}

func icmpOf(f ruleset.Family) protocols {
	if f == ruleset.IPv6 {
		return protocolsOf(ruleset.ICMPv6)
	}
	return protocolsOf(ruleset.ICMP)
}

func (x expander) icmp(vs []variant) []variant {
	if m := x.rule.ICMP; m.HasType {
		vs = each(vs, func(v variant) []variant {
			v = v.only(icmpOf(v.family)).with(test{kind: testICMPType, value: m.Type})
			if m.HasCode {
				v = v.with(test{kind: testICMPCode, value: m.Code})
			}
			return []variant{v}
		})
	}
	if m := x.rule.NotICMP; m.HasType {
		vs = each(vs, func(v variant) []variant {
			icmp := v.only(icmpOf(v.family))
			out := []variant{
				v.only(icmpOf(v.family).not()),
				icmp.with(test{kind: testICMPType, value: m.Type, not: true}),
			}
			if m.HasCode {
				out = append(out, icmp.with(test{kind: testICMPType, value: m.Type}).
					with(test{kind: testICMPCode, value: m.Code, not: true}))
			}
			return out
		})
	}
	return vs
}

func (x expander) entity(vs []variant, s side, e *ruleset.Entity) []variant {
	if e.Nets != nil {
		vs = each(vs, func(v variant) []variant { return x.nets(v, s, e.Nets) })
	}
	vs = each(vs, func(v variant) []variant { return x.notNets(v, s, e.NotNets) })
	for _, id := range e.Sets {
		m := x.find(id, ruleset.Addrs)
		vs = each(vs, func(v variant) []variant {
			if m == nil {
				return nil
			}
			return x.oneOf(v, memberTests(s, m))
		})
	}
	for _, id := range e.NotSets {
		if m := x.find(id, ruleset.Addrs); m != nil {
			vs = each(vs, func(v variant) []variant {
				return []variant{without(v, memberTests(s, m))}
			})
		}
	}
	if e.Ports != nil {
		vs = each(vs, func(v variant) []variant { return x.ports(v, s, e.Ports) })
	}
	if e.NotPorts != nil {
		vs = each(vs, func(v variant) []variant { return x.notPorts(v, s, e.NotPorts) })
	}
	return vs
}

// memberTests returns the tests of which one holds when the address is in a set.
func memberTests(s side, m *memberSet) []test {
	tests := []test{{kind: testNets, side: s, members: m}}
	if m.large {
		tests = append(tests, test{kind: testHosts, side: s, members: m})
	}
	return tests
}

// oneOf returns the alternatives of a packet that v and one of the tests match.
func (x expander) oneOf(v variant, tests []test) []variant {
	var out []variant
	for i, t := range tests {
		alternative := v
		if !x.rule.Action.Decides() {
			alternative = without(v, tests[:i])
		}
		out = append(out, alternative.with(t))
	}
	return out
}

// find returns the set with members of that kind. A set that is missing, or that is used for what it is not, has no
// member: it returns nil.
func (x expander) find(id ruleset.SetID, kind ruleset.SetKind) *memberSet {
	if m := x.sets.find(id); m != nil && m.kind == kind {
		return m
	}
	return nil
}

func (x expander) nets(v variant, s side, nets []netip.Prefix) []variant {
	disjoint := maximal(ofFamily(nets, v.family))
	switch {
	case len(disjoint) == 0:
		return nil
	case disjoint[0].Bits() == 0:
		return []variant{v}
	}
	return []variant{v.with(netsTest(s, disjoint))}
}

func (x expander) notNets(v variant, s side, nets []netip.Prefix) []variant {
	disjoint := maximal(ofFamily(nets, v.family))
	switch {
	case len(disjoint) == 0:
		return []variant{v}
	case disjoint[0].Bits() == 0:
		return nil
	}
	t := netsTest(s, disjoint)
	t.not = true
	return []variant{v.with(t)}
}

// ports returns an alternative for the ranges and one for each set.
func (x expander) ports(v variant, s side, ports *ruleset.Ports) []variant {
	v = v.only(portProtocols)
	var tests []test
	ranges := mergeRanges(ports.Ranges)
	if everyPort(ranges) {
		return []variant{v}
	}
	if len(ranges) > 0 {
		tests = append(tests, portsTest(s, ranges))
	}
	for _, id := range ports.Named {
		if m := x.find(id, ruleset.AddrPorts); m != nil {
			tests = append(tests, test{kind: testAddrPorts, side: s, members: m})
		}
	}
	return x.oneOf(v, tests)
}

func (x expander) notPorts(v variant, s side, ports *ruleset.Ports) []variant {
	var tests []test
	ranges := mergeRanges(ports.Ranges)
	if everyPort(ranges) {
		return []variant{v.only(portProtocols.not())}
	}
	if len(ranges) > 0 {
		tests = append(tests, portsTest(s, ranges))
	}
	for _, id := range ports.Named {
		if m := x.find(id, ruleset.AddrPorts); m != nil {
			tests = append(tests, test{kind: testAddrPorts, side: s, members: m})
		}
	}
	if len(tests) == 0 {
		return []variant{v}
	}
	return []variant{v.only(portProtocols.not()), without(v.only(portProtocols), tests)}
}

// without returns v restricted to what no test matches.
func without(v variant, tests []test) variant {
	for _, t := range tests {
		t.not = true
		if t.isOtherPort() && v.implies(test.isOtherPort) {
			t.kind = testPortSet // nft 1.0.6 reads "sport != 1 dport != 2" as one comparison of both ports, which is something else
		}
		v = v.with(t)
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
