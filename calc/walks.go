package calc

import (
	"cmp"
	"math"
	"slices"

	v3 "margay/api/v3"
	"margay/ruleset"
)

func (p *policy) tier() string { return cmp.Or(p.spec.Tier, v3.DefaultTier) }

func (p *policy) order() float64 {
	if p.spec.Order == nil {
		return math.Inf(1)
	}
	return *p.spec.Order
}

// in reports whether the policy is walked in a stage: in exactly one of Untracked, PreDNAT and Normal, and
// with applyOnForward a normal policy in Forward as well.
func (p *policy) in(s ruleset.Stage) bool {
	switch s {
	case ruleset.Untracked:
		return p.untracked
	case ruleset.PreDNAT:
		return p.preDNAT && !p.untracked
	case ruleset.Forward:
		return p.forward && p.in(ruleset.Normal)
	}
	return !p.untracked && !p.preDNAT
}

// walkedBy reports whether an endpoint that the policy selects walks it in any stage.
func (p *policy) walkedBy(ep *endpoint) bool {
	for _, s := range ep.stages() {
		if p.in(s) && (p.applies(ruleset.Ingress) || p.applies(ruleset.Egress) && s != ruleset.PreDNAT) {
			return true
		}
	}
	return false
}

// stages returns the stages that an endpoint has.
func (ep *endpoint) stages() []ruleset.Stage {
	switch {
	case ep.contested:
		return nil
	case ep.workload != nil:
		return []ruleset.Stage{ruleset.Normal}
	case ep.host.InterfaceName == ruleset.AllInterfaces:
		return []ruleset.Stage{ruleset.Normal, ruleset.Forward, ruleset.PreDNAT}
	}
	return []ruleset.Stage{ruleset.Normal, ruleset.Forward, ruleset.PreDNAT, ruleset.Untracked}
}

// walk returns what an endpoint walks in a stage, from its policies in order.
func (c *Calc) walk(ordered []*policy, s ruleset.Stage) ruleset.Walk {
	w := ruleset.Walk{Ingress: c.tiersOf(ordered, s, ruleset.Ingress)}
	if s != ruleset.PreDNAT {
		w.Egress = c.tiersOf(ordered, s, ruleset.Egress)
	}
	return w
}

func (c *Calc) tiersOf(ordered []*policy, s ruleset.Stage, d ruleset.Direction) []ruleset.Tier {
	var tiers []ruleset.Tier
	for _, p := range ordered {
		if !p.in(s) || !p.applies(d) {
			continue
		}
		if len(tiers) == 0 || tiers[len(tiers)-1].Name != p.tier() {
			spec := c.tiers[p.tier()]
			tiers = append(tiers, ruleset.Tier{Name: p.tier(), EndPass: spec != nil && spec.DefaultAction == "Pass"})
		}
		last := &tiers[len(tiers)-1]
		if p.shadow != nil && p.shadow.deletes {
			last.Policies = append(last.Policies, p.shadow.id)
		}
		last.Policies = append(last.Policies, p.id)
	}
	return tiers
}

// ordered returns policies in the order in which they are walked.
func (c *Calc) ordered(policies map[*policy]struct{}) []*policy {
	list := make([]*policy, 0, len(policies))
	for p := range policies {
		list = append(list, p)
	}
	slices.SortFunc(list, func(a, b *policy) int {
		if ta, tb := a.tier(), b.tier(); ta != tb {
			return c.compareTiers(ta, tb)
		}
		return comparePolicies(a, b)
	})
	return list
}

// comparePolicies orders policies of one tier.
func comparePolicies(a, b *policy) int {
	return cmp.Or(cmp.Compare(a.order(), b.order()), cmp.Compare(a.tie, b.tie))
}

// compareTiers orders tiers: those that exist first, then by order with nil last, then by name.
func (c *Calc) compareTiers(a, b string) int {
	rank := func(name string) (exists int, order float64) {
		spec := c.tiers[name]
		switch {
		case spec == nil:
			return 1, 0
		case spec.Order == nil:
			return 0, math.Inf(1)
		}
		return 0, *spec.Order
	}
	existsA, orderA := rank(a)
	existsB, orderB := rank(b)
	return cmp.Or(cmp.Compare(existsA, existsB), cmp.Compare(orderA, orderB), cmp.Compare(a, b))
}
