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

// What random changes show too seldom: the image after a change is that of the changed Program.

// Services with the same rules share the chain of the first of them, whichever that is after a change.
func TestSharedChainsFollow(t *testing.T) {
	unless := func(net string, ports ...uint16) *ruleset.Policy {
		r := tcp(ruleset.Allow, ports...)
		r.Source.NotNets = netsOf(net)
		return policyOf(net, r)
	}
	first := unless("12.0.0.0/8", 80)
	p := programOf([]*ruleset.Endpoint{hostEndpoint("e", "t0")}, unless("10.0.0.0/8", 80, 81, 82), unless("11.0.0.0/8", 80, 81, 82), first)
	comesAndGoes(t, p, first, testLimits[1])
}

// comesAndGoes takes a policy out of a Program and puts it back, twice: the image follows.
func comesAndGoes(t *testing.T, p *ruleset.Program, policy *ruleset.Policy, lim limits) {
	t.Helper()
	im := newImage(p, lim)
	for range 2 {
		for _, is := range []*ruleset.Policy{nil, policy} {
			delta := &ruleset.Delta{Policies: map[ruleset.PolicyID]*ruleset.Policy{policy.ID: is}}
			p.Apply(delta)
			im.apply(delta)
			if d := same(im.table, newImage(p, lim).table); d != "" {
				t.Fatalf("policy there: %v\n%s", is != nil, d)
			}
		}
	}
}

// A stage whose exits change while its lines stay is laid out with the new ones: no change of a Program does that today.
func TestStageFollowsItsExits(t *testing.T) {
	from := tcp(ruleset.Deny, 80)
	from.Source.Nets = netsOf("10.0.0.0/8")
	other := tcp(ruleset.Deny, 80)
	other.Source.Nets = netsOf("10.1.0.0/16")
	unless := tcp(ruleset.Deny, 81)
	unless.Source.NotNets = netsOf("10.0.0.0/8")
	for name, rules := range map[string][]ruleset.Rule{"one line": {from}, "several": {from, other}, "chain": {unless}} {
		t.Run(name, func(t *testing.T) {
			ep := hostEndpoint("e", "t0")
			p := programOf([]*ruleset.Endpoint{ep}, policyOf("p", rules...))
			lim := testLimits[1]
			im := newImage(p, lim)
			p.Settings.Reject, im.program.Settings.Reject = true, true
			touch := im.touch()
			for _, dir := range []ruleset.Direction{ruleset.Ingress, ruleset.Egress} {
				touch.build(unitKey{id: ep.ID, dir: dir}, func(b *builder) { b.host(ep, dir) })
			}
			touch.build(unitKey{base: true}, func(b *builder) { b.base(im.owners) })
			touch.keepNamedSets()
			if d := same(im.table, newImage(p, lim).table); d != "" {
				t.Error(d)
			}
		})
	}
}

// A change of a rule that is in maps by address is one transaction of elements, and nothing else is looked at.
func TestElementsChangeAtOnce(t *testing.T) {
	for name, change := range map[string]func(*ruleset.Rule){
		"action":              func(r *ruleset.Rule) { r.Action = ruleset.Deny },
		"addresses":           func(r *ruleset.Rule) { r.Source.Sets = []ruleset.SetID{sharedSource(3)} },
		"networks":            func(r *ruleset.Rule) { r.Source.Sets, r.Source.Nets = nil, netsOf("10.1.0.0/24", "10.1.9.0/24") },
		"port, back or forth": func(r *ruleset.Rule) { *r = tcp(ruleset.Allow, 9999); r.Source.Sets = []ruleset.SetID{sharedSource(3)} },
	} {
		t.Run(name, func(t *testing.T) {
			p := sharedSources(20)
			im := newImage(p, defaultLimits)
			changed := sharingPolicy(5)
			change(&changed.Ingress[5])
			for _, c := range im.apply(&ruleset.Delta{Policies: map[ruleset.PolicyID]*ruleset.Policy{changed.ID: changed}}) {
				if c.phase != now || c.op != opDelElements && c.op != opAddElements {
					t.Error(c.String())
				}
			}
		})
	}
}

// Whether the members of a set are copied into maps depends on how many rules name it: a rule that comes or goes changes what others become.
func TestCopiesFollowTheirUses(t *testing.T) {
	use := func(name string, port uint16) *ruleset.Policy {
		r := tcp(ruleset.Allow, port)
		r.Source.Sets = []ruleset.SetID{"s"}
		return policyOf(name, r)
	}
	third := use("c", 82)
	p := programOf([]*ruleset.Endpoint{hostEndpoint("e", "t0")}, use("a", 80), use("b", 81), third)
	var list []ruleset.Member
	for _, net := range netsOf("10.1.0.1/32", "10.2.0.1/32", "10.3.0.1/32") {
		list = append(list, ruleset.Member{Prefix: net})
	}
	p.Sets["s"] = ruleset.NewSet(ruleset.Addrs, "s", list...)
	lim := testLimits[1]
	lim.copies = 2 * len(list) // for two rules, not for three
	comesAndGoes(t, p, third, lim)
}
