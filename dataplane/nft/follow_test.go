package nft

import (
	"testing"

	"margay/ruleset"
)

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
	lim := testLimits[1]
	im := newImage(p, lim)
	for range 2 {
		for _, policy := range []*ruleset.Policy{nil, first} {
			delta := &ruleset.Delta{Policies: map[ruleset.PolicyID]*ruleset.Policy{first.ID: policy}}
			p.Apply(delta)
			im.apply(delta)
			if d := same(im.table, newImage(p, lim).table); d != "" {
				t.Fatalf("policy there: %v\n%s", policy != nil, d)
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
