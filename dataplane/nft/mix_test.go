package nft

import (
	"fmt"
	"net/netip"
	"testing"

	"pgregory.net/rapid"

	"margay/ruleset"
)

// A change is a transaction that is made while a packet is on its way: the packet keeps its rules, but finds the elements of
// hash sets as they are after the change from some look-up on, and those of sets of intervals from that one or a later one.
type change struct {
	to                *Table
	hashes, intervals int // look-ups before it
}

// at returns the set that a look-up finds.
func (c *change) at(set *Set, lookup int) *Set {
	before := c.hashes
	if set.Type.interval {
		before = c.intervals
	}
	if is := c.to.Sets[set.Name]; is != nil && lookup > before {
		return is
	}
	return set
}

// Of the transactions of a change only one changes verdicts, and whenever a packet meets one of them, it gets the verdict of
// before or that of after: if a policy changes, or members come to a set that is not large, or leave it.
func TestNoLookUpMeetsAMix(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		g := newGenerator(rapid.Uint64().Draw(t, "seed"))
		p := g.rulesAlone()
		im := newImage(p, pick(g, testLimits...))
		for range 2 {
			d := g.changeRules(p)
			for id := range d.Sets {
				if len(d.Sets) > 1 {
					delete(d.Sets, id)
				}
			}
			im.oneWay(p, d)
			p.Apply(d)
			d.Sets = ownedSets(d.Sets)
			states := statesOf(im, d)
			for range 15 {
				checkMix(t, states, g.ruled())
			}
		}
	})
}

// What random changes seldom show: in each case a packet is allowed before and after, by something else.
func TestAllowedStaysAllowed(t *testing.T) {
	from := func(i int, a ruleset.Action) ruleset.Rule {
		r := tcp(a, 80)
		r.Source.Sets = []ruleset.SetID{ruleset.SetID(fmt.Sprint(i))}
		return r
	}
	many := func(first ...ruleset.Rule) *ruleset.Policy {
		for i := range 10 {
			first = append(first, from(i+1, ruleset.Allow))
		}
		in := from(1, ruleset.Allow) // in a chain for the port
		in.Source.NotNets = netsOf("10.4.0.0/16")
		return policyOf("many", append(first, in)...)
	}
	narrowed := from(0, ruleset.Allow)
	narrowed.Source.NotNets = netsOf("10.3.0.0/16")
	plain := tcp(ruleset.Allow, 80) // no set comes with it
	plain.Source.Nets, plain.Source.NotNets = netsOf("10.0.0.0/12"), netsOf("10.3.0.0/16")
	tests := map[string]*ruleset.Delta{
		"from a map into a chain, no set comes": {Policies: map[ruleset.PolicyID]*ruleset.Policy{
			many().ID: many(plain)}},
		"prefixes of a set are replaced": memberDelta("0", netsOf("10.0.0.0/13", "10.8.0.0/13"), netsOf("10.0.0.0/12")),
		"a rule for the same addresses by other prefixes": {Policies: map[ruleset.PolicyID]*ruleset.Policy{
			many().ID: many(from(11, ruleset.Allow))}},
		"from a map into a chain": {Policies: map[ruleset.PolicyID]*ruleset.Policy{
			many().ID: many(narrowed)}},
		"allowed earlier, denied in a map": {Policies: map[ruleset.PolicyID]*ruleset.Policy{
			many().ID: many(from(0, ruleset.Deny)), policyOf("first").ID: policyOf("first", from(0, ruleset.Allow))}},
	}
	for name, d := range tests {
		t.Run(name, func(t *testing.T) {
			p := programOf([]*ruleset.Endpoint{hostEndpoint("e", "t0")}, policyOf("first", tcp(ruleset.Allow, 81)), many(from(0, ruleset.Allow)))
			ep := p.Endpoints[hostEndpoint("e").ID]
			ids := ep.Normal.Ingress[0].Policies
			ep.Normal.Ingress = []ruleset.Tier{{Name: "a", EndPass: true, Policies: ids[:1]}, {Name: "b", Policies: ids[1:]}}
			for i := range 12 {
				id := ruleset.SetID(fmt.Sprint(i))
				p.Sets[id] = ruleset.NewSet(ruleset.Addrs, "", ruleset.Member{Prefix: netip.PrefixFrom(sourceOf(0, i), 32)})
			}
			p.Sets["11"] = ruleset.NewSet(ruleset.Addrs, "", ruleset.Member{Prefix: netip.MustParsePrefix("10.0.0.0/13")},
				ruleset.Member{Prefix: netip.MustParsePrefix("10.8.0.0/13")})
			// Others use the same lengths of prefixes, so that no map comes or goes.
			p.Sets["1"].Add(ruleset.Member{Prefix: netip.MustParsePrefix("172.16.0.0/12")})
			p.Sets["2"].Add(ruleset.Member{Prefix: netip.MustParsePrefix("172.16.0.0/13")})
			p.Sets["0"] = ruleset.NewSet(ruleset.Addrs, "", ruleset.Member{Prefix: netip.MustParsePrefix("10.0.0.0/12")},
				ruleset.Member{Prefix: netip.MustParsePrefix("172.0.0.1/32")})
			im := newImage(p, defaultLimits)
			checkMix(t, statesOf(im, d), ruleset.Packet{In: "t0", Src: peers4[0], Dst: locals4[0], Protocol: ruleset.TCP, DstPort: 80})
		})
	}
}

// What allowed a packet, for every port, goes to maps that it has asked before.
func TestAllowedByAnotherGroup(t *testing.T) {
	sets := map[ruleset.SetID]*ruleset.Set{}
	policy := func(name string, first int, r ruleset.Rule) *ruleset.Policy {
		var rules []ruleset.Rule
		for i := first; i < 10; i++ {
			id := ruleset.SetID(fmt.Sprint(i))
			sets[id] = ruleset.NewSet(ruleset.Addrs, "", ruleset.Member{Prefix: netip.PrefixFrom(sourceOf(0, i), 32)})
			r.Source.Sets = []ruleset.SetID{id}
			rules = append(rules, r)
		}
		return policyOf(name, rules...)
	}
	open := ruleset.Rule{Action: ruleset.Allow, Protocol: ruleset.TCP}
	p := programOf([]*ruleset.Endpoint{hostEndpoint("e", "t0")}, policy("port", 1, tcp(ruleset.Allow, 80)), policy("open", 0, open))
	p.Sets = sets
	im := newImage(p, defaultLimits)
	d := &ruleset.Delta{Policies: map[ruleset.PolicyID]*ruleset.Policy{}}
	for _, changed := range []*ruleset.Policy{policy("port", 0, tcp(ruleset.Allow, 80)), policy("open", 1, open)} {
		d.Policies[changed.ID] = changed
	}
	checkMix(t, statesOf(im, d), ruleset.Packet{In: "t0", Src: sourceOf(0, 0), Dst: locals4[0], Protocol: ruleset.TCP, DstPort: 80})
}

// oneWay makes a change of a set one of those of which no packet meets a mix.
func (im *image) oneWay(p *ruleset.Program, d *ruleset.Delta) {
	for id, s := range d.Sets {
		switch {
		case im.trends[id].mixed() && p.Sets[id] != nil && p.Sets[id].Len()+10 > im.limits.members: // may be large
			delete(d.Sets, id)
		case s == nil || p.Sets[id] == nil || im.trends[id].mixed():
		case s.New != nil:
			d.Sets[id] = &ruleset.SetDelta{Add: s.New.Members()}
		case len(s.Add) > 0:
			s.Remove = nil
		}
	}
}

// Members come, or leave, by which a packet is denied and allowed, by the same address or another: it never passes.
func TestDeniedStaysDenied(t *testing.T) {
	asks := func(a ruleset.Action, here, there, not string) ruleset.Rule {
		r := ruleset.Rule{Action: a}
		for e, id := range map[*ruleset.Entity]string{&r.Source: there, &r.Destination: here} {
			if id != "" {
				e.Sets = []ruleset.SetID{ruleset.SetID(id)}
			}
		}
		if not != "" {
			r.Source.NotSets = []ruleset.SetID{ruleset.SetID(not)}
		}
		return r
	}
	last := ruleset.Rule{Action: ruleset.Deny}
	ports := &ruleset.Ports{Named: []ruleset.SetID{"n"}}
	tests := map[string]struct {
		set   ruleset.SetID
		rules []ruleset.Rule
	}{
		"the other end":       {"a", []ruleset.Rule{asks(ruleset.Deny, "a", "", ""), asks(ruleset.Allow, "", "a", ""), last}},
		"the same":            {"a", []ruleset.Rule{asks(ruleset.Deny, "", "a", ""), asks(ruleset.Allow, "", "a", ""), last}},
		"what is not there":   {"a", []ruleset.Rule{asks(ruleset.Deny, "", "", "a"), asks(ruleset.Allow, "", "", "a"), last}},
		"neither in nor out":  {"a", []ruleset.Rule{asks(ruleset.Deny, "", "", "a"), asks(ruleset.Deny, "", "a", ""), {Action: ruleset.Allow}}},
		"neither out nor in":  {"a", []ruleset.Rule{asks(ruleset.Deny, "", "a", ""), asks(ruleset.Deny, "", "", "a"), {Action: ruleset.Allow}}},
		"passed on, then not": {"a", []ruleset.Rule{asks(ruleset.Deny, "", "a", ""), asks(ruleset.Pass, "", "a", ""), last}},
		"named ports": {"n", []ruleset.Rule{{Action: ruleset.Deny, Protocol: ruleset.TCP, Destination: ruleset.Entity{Ports: ports}},
			{Action: ruleset.Allow, Protocol: ruleset.TCP, Destination: ruleset.Entity{Ports: ports}}, last}},
	}
	members := map[ruleset.SetID][]ruleset.Member{"a": {{Prefix: netip.MustParsePrefix("10.0.0.0/8")}},
		"n": {{Prefix: netip.PrefixFrom(locals4[0], 32), Protocol: ruleset.TCP, Port: 80}}}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			ep := hostEndpoint("e", "t0")
			p := programOf([]*ruleset.Endpoint{ep}, policyOf("p", test.rules...))
			ep.Profiles = []string{"open"} // who is passed on is allowed
			p.Profiles["open"] = &ruleset.Profile{Name: "open", Ingress: []ruleset.Rule{{Action: ruleset.Allow}}}
			kind := ruleset.Addrs
			if test.set == "n" {
				kind = ruleset.AddrPorts
			}
			p.Sets[test.set] = ruleset.NewSet(kind, "")
			im := newImage(p, defaultLimits)
			for _, d := range []*ruleset.SetDelta{{Add: members[test.set]}, {Remove: members[test.set]}} {
				checkMix(t, statesOf(im, &ruleset.Delta{Sets: map[ruleset.SetID]*ruleset.SetDelta{test.set: d}}),
					ruleset.Packet{In: "t0", Src: peers4[0], Dst: locals4[0], Protocol: ruleset.TCP, DstPort: 80})
			}
		})
	}
}

// statesOf returns the table before a change and after each of its transactions.
func statesOf(im *image, d *ruleset.Delta) []*Table {
	states := []*Table{copyTable(im.table)}
	first, second, third := split(im.apply(d))
	for _, changes := range [][]Change{first, second, third} {
		states = append(states, apply(copyTable(states[len(states)-1]), changes))
	}
	return states
}

// checkMix sends a packet at every moment of the transactions between the states.
func checkMix(t fataler, states []*Table, pkt ruleset.Packet) {
	verdicts := make([]bool, len(states))
	lookups := make([]int, len(states))
	for i, s := range states {
		m := s.machine(&pkt)
		verdicts[i], lookups[i] = m.run(t), m.lookups
	}
	if verdicts[0] != verdicts[1] || verdicts[2] != verdicts[3] {
		t.Fatalf("packet %+v: verdicts %v: more than one transaction changes them\n%s\n%s", pkt, verdicts, states[0], states[3])
	}
	for i := range states[1:] {
		for k := range lookups[i] + 1 {
			m := states[i].machine(&pkt)
			for later := range 3 { // look-ups until sets of intervals have changed, too
				m.change = &change{states[i+1], k, k + later*later}
				if got := m.run(t); got != verdicts[i] && got != verdicts[i+1] {
					t.Fatalf("packet %+v: passed %v with the change %d after %d look-ups, %v before and after it\n%s\n%s", pkt, got, i, k,
						verdicts[i], states[i], states[i+1])
				}
				m = states[i].machine(&pkt)
			}
		}
	}
}

// ruled draws a packet that meets the rules of rulesAlone, on its way to this host or on.
func (g generator) ruled() ruleset.Packet {
	p := ruleset.Packet{In: "t0", Out: pick(g, "", "", "x0"), Protocol: g.proto(), SrcPort: pick(g, pick(g, fewPorts, ports)...), DstPort: pick(g, pick(g, fewPorts, ports)...),
		Src: pick(g, pick(g, peers4, peers4, locals4, virtual4)...), Dst: pick(g, pick(g, locals4, locals4, peers4)...)}
	if g.one(3) {
		p.Src, p.Dst = pick(g, pick(g, peers6, peers6, locals6)...), pick(g, pick(g, locals6, locals6, peers6)...)
	}
	return p
}
