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
// before or that of after: if a policy changes, or the members of one set.
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
