package nft

import (
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
			states := []*Table{copyTable(im.table)}
			d := g.changeRules(p)
			for id := range d.Sets {
				if len(d.Sets) > 1 {
					delete(d.Sets, id)
				}
			}
			p.Apply(d)
			d.Sets = ownedSets(d.Sets)
			first, second, third := split(im.apply(d))
			for _, changes := range [][]Change{first, second, third} {
				states = append(states, apply(copyTable(states[len(states)-1]), changes))
			}
			for range 15 {
				checkMix(t, g, states)
			}
		}
	})
}

// checkMix sends a packet at every moment of the transactions between the states.
func checkMix(t fataler, g generator, states []*Table) {
	pkt := g.ruled()
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
			m.change = &change{states[i+1], k, k + g.IntN(4)*g.IntN(4)}
			if got := m.run(t); got != verdicts[i] && got != verdicts[i+1] {
				t.Fatalf("packet %+v: passed %v with the change %d after %d look-ups, %v before and after it\n%s\n%s", pkt, got, i, k,
					verdicts[i], states[i], states[i+1])
			}
		}
	}
}

// ruled draws a packet that meets the rules of rulesAlone.
func (g generator) ruled() ruleset.Packet {
	p := ruleset.Packet{In: "t0", Protocol: g.proto(), SrcPort: pick(g, ports...), DstPort: pick(g, pick(g, fewPorts, ports)...),
		Src: pick(g, pick(g, peers4, peers4, locals4, virtual4)...), Dst: pick(g, pick(g, locals4, locals4, peers4)...)}
	if g.one(3) {
		p.Src, p.Dst = pick(g, pick(g, peers6, peers6, locals6)...), pick(g, pick(g, locals6, locals6, peers6)...)
	}
	return p
}
