package nft

import (
	"net/netip"
	"slices"
	"testing"

	"pgregory.net/rapid"

	"margay/ruleset"
)

// A few rules over a few sets, changed one at a time, lead to the table that is made from scratch, in the kernel, too: of so few, most share
// addresses with another, are alone in their map for a while, or come back to a set that was asked before.
func TestFewRulesFollow(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		g := newGenerator(rapid.Uint64().Draw(t, "seed"))
		p := programOf([]*ruleset.Endpoint{hostEndpoint("e", "t0")}, policyOf("p"), policyOf("q"), policyOf("r"))
		for _, id := range fewSets {
			p.Sets[id] = ruleset.NewSet(ruleset.Addrs, string(id))
		}
		lim := pick(g, testLimits...)
		im := newImage(p, lim)
		k := keptImage{p, im, copyTable(im.table)}
		for range 24 {
			k.apply(t, g.changeFew(p))
		}
	})
}

// fewSets are those of TestFewRulesFollow. The last one only lets more pass when it grows.
var fewSets = []ruleset.SetID{"a", "b", "c", "gain"}

// changeFew draws a change of one rule of a policy, or of one member of a set.
func (g generator) changeFew(p *ruleset.Program) *ruleset.Delta {
	if g.one(2) {
		id := pick(g, append([]ruleset.SetID{"gain", "gain"}, fewSets...)...)
		prefix := pick(g, "10.0.0.0/8", "10.1.0.0/16", "10.1.0.1/32", "10.1.0.2/32", "fd01::/64", "fd01::1/128")
		member := []ruleset.Member{{Prefix: netip.MustParsePrefix(prefix)}}
		change := &ruleset.SetDelta{Add: member}
		if g.one(3) {
			change = &ruleset.SetDelta{Remove: member}
		}
		return &ruleset.Delta{Sets: map[ruleset.SetID]*ruleset.SetDelta{id: change}}
	}
	policy := *p.Policies[pick(g, sortedPolicies(p)...)]
	policy.Ingress = slices.Clone(policy.Ingress)
	n := len(policy.Ingress)
	switch at := g.IntN(n + 1); {
	case at == n || g.one(4):
		policy.Ingress = slices.Insert(policy.Ingress, at, g.simple())
	case g.one(3):
		policy.Ingress = slices.Delete(policy.Ingress, at, at+1)
	case g.one(2):
		to := g.IntN(n)
		policy.Ingress[at], policy.Ingress[to] = policy.Ingress[to], policy.Ingress[at]
	default:
		policy.Ingress[at] = g.simple()
	}
	return &ruleset.Delta{Policies: map[ruleset.PolicyID]*ruleset.Policy{policy.ID: &policy}}
}

// simple draws a rule from a few addresses to a port, or to none.
func (g generator) simple() ruleset.Rule {
	r := ruleset.Rule{Action: pick(g, ruleset.Allow, ruleset.Deny)}
	if g.one(2) {
		r = tcp(r.Action, pick[uint16](g, 80, 443))
	}
	if r.Source.Sets = []ruleset.SetID{pick(g, fewSets[:3]...)}; g.one(2) {
		r.Source = ruleset.Entity{Nets: netsOf(pick(g, "10.1.0.0/16", "10.1.0.1/32", "10.1.0.2/32", "10.0.0.0/8"))}
	}
	if gain := fewSets[3:]; r.Action == ruleset.Allow && g.one(3) {
		r.Destination.Sets = gain
	} else if r.Action == ruleset.Deny && g.one(4) {
		r.Source.NotSets = gain
	}
	return r
}
