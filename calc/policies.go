package calc

import (
	"cmp"
	"fmt"
	"math"
	"reflect"
	"slices"

	v3 "margay/api/v3"
	"margay/ruleset"
	"margay/selector"
)

// A policy is a stored policy and the local host endpoints that it applies to.
type policy struct {
	id   ruleset.PolicyID
	tie  string         // orders policies of equal order as PolicyID.Compare does
	spec *v3.PolicySpec // nil: deleted
	// The fields that only a GlobalNetworkPolicy has.
	namespaceSelector                   string
	untracked, preDNAT, forward, global bool

	term      *term[*policy]
	faults    []string // of the selectors
	endpoints map[*endpoint]struct{}

	told     *ruleset.Policy
	compiled bool // told is of the present spec
	sets     []*set
	warnings []string
}

func (c *Calc) updateTier(name string, r v3.Resource) {
	delete(c.tiers, name)
	if r != nil {
		c.tiers[name] = &r.(*v3.Tier).Spec
	}
	for name := range c.locals {
		c.staleEndpoints[name] = struct{}{}
	}
}

func (c *Calc) updatePolicy(key v3.Key, r v3.Resource) {
	id := ruleset.PolicyID{Kind: string(key.Kind), Namespace: key.Namespace, Name: key.Name}
	p := c.policies[id]
	if p == nil {
		if r == nil {
			return
		}
		p = &policy{id: id, tie: id.Name + "/" + id.Namespace + "/" + id.Kind, endpoints: map[*endpoint]struct{}{}}
		c.policies[id] = p
	}
	p.spec = nil
	switch r := r.(type) {
	case nil:
	case *v3.GlobalNetworkPolicy:
		p.spec, p.global = &r.Spec.PolicySpec, true
		p.namespaceSelector = r.Spec.NamespaceSelector
		p.untracked, p.preDNAT, p.forward = r.Spec.DoNotTrack, r.Spec.PreDNAT, r.Spec.ApplyOnForward
	case *v3.NetworkPolicy:
		p.spec = &r.Spec
	default:
		panic(fmt.Sprintf("calc: %s came with a value of type %T", key, r))
	}
	p.compiled = false
	c.changedPolicies[p] = struct{}{}
}

// normal reports whether the policy decides in the normal stage of host endpoints (spec 2.1).
func (p *policy) normal() bool { return !p.untracked && !p.preDNAT }

// applies reports whether the policy decides in a direction. Old data without types means both.
func (p *policy) applies(d ruleset.Direction) bool {
	name := v3.TypeIngress
	if d == ruleset.Egress {
		name = v3.TypeEgress
	}
	return len(p.spec.Types) == 0 || slices.Contains(p.spec.Types, name)
}

func (p *policy) tier() string { return cmp.Or(p.spec.Tier, v3.DefaultTier) }

func (p *policy) order() float64 {
	if p.spec.Order == nil {
		return math.Inf(1)
	}
	return *p.spec.Order
}

// selects returns what the policy applies to: selector AND namespaceSelector AND serviceAccountSelector, and for a
// NetworkPolicy its own namespace. all() beside a namespaceSelector means what is in a namespace, and beside the
// serviceAccountSelector of a GlobalNetworkPolicy what has a service account (spec 2.1).
//
// Of a selector that does not parse nothing is known: it counts as matching, and the fault makes the policy's Allow rules
// match nothing.
func (p *policy) selects() *selector.Selector {
	p.faults = nil
	parse := func(path, text string) []*selector.Selector {
		if text == "" {
			return nil
		}
		sel, err := selector.Parse(text)
		if err != nil {
			p.faults = append(p.faults, fmt.Sprintf("%s: %v; the policy applies to all that the other selectors match, its Allow rules match nothing", path, err))
			return nil
		}
		return []*selector.Selector{sel}
	}
	withAll := func(parts []*selector.Selector, label string) {
		for i, part := range parts {
			parts[i] = part.WithAll(selector.Has(label))
		}
	}
	parts := parse("spec.selector", p.spec.Selector)
	if !p.global {
		parts = append(parts, selector.Equal(labelNamespace, p.id.Namespace))
	}
	for _, sel := range parse("spec.namespaceSelector", p.namespaceSelector) {
		parts = append(parts, sel.WithPrefix(namespacePrefix))
		withAll(parts, labelNamespace)
	}
	for _, sel := range parse("spec.serviceAccountSelector", p.spec.ServiceAccountSelector) {
		parts = append(parts, sel.WithPrefix(serviceAccountPrefix))
		if p.global {
			withAll(parts, labelServiceAccount)
		}
	}
	if sel := selector.And(parts...); sel != nil {
		return sel
	}
	p.faults = append(p.faults, "metadata.namespace cannot be written in a selector; the policy applies everywhere, its Allow rules match nothing")
	return selector.All()
}

// matchChangedPolicies indexes the selectors of changed policies and asks them for every local endpoint.
func (c *Calc) matchChangedPolicies() {
	drain(c.changedPolicies, func(p *policy) {
		if p.term != nil {
			c.policyIndex.remove(p.term)
			p.term = nil
		}
		if p.spec != nil {
			p.term = &term[*policy]{sel: p.selects(), use: p}
			c.policyIndex.add(p.term)
		}
		for _, ep := range c.locals {
			_, before := p.endpoints[ep]
			now := p.term != nil && p.term.sel.Matches(&ep.item.labels)
			if !before && !now {
				continue
			}
			delete(p.endpoints, ep)
			delete(ep.policies, p)
			if now {
				p.endpoints[ep] = struct{}{}
				ep.policies[p] = struct{}{}
			}
			c.staleEndpoints[ep.id.Name] = struct{}{}
		}
		c.stalePolicies[p] = struct{}{}
	})
}

// matchRelabelledEndpoints finds the policies of local endpoints whose labels changed.
func (c *Calc) matchRelabelledEndpoints() {
	drain(c.relabelled, func(ep *endpoint) {
		before := ep.policies
		ep.policies = make(map[*policy]struct{}, len(before))
		c.policyIndex.match(&ep.item.labels, func(p *policy) {
			ep.policies[p] = struct{}{}
			if _, had := before[p]; !had {
				p.endpoints[ep] = struct{}{}
				c.stalePolicies[p] = struct{}{}
			}
		})
		for p := range before {
			if _, has := ep.policies[p]; !has {
				delete(p.endpoints, ep)
				c.stalePolicies[p] = struct{}{}
			}
		}
		c.staleEndpoints[ep.id.Name] = struct{}{}
	})
}

// flushPolicies tells the policies that apply to a local endpoint in the normal stage.
func (c *Calc) flushPolicies(d *ruleset.Delta) {
	drain(c.stalePolicies, func(p *policy) {
		active := p.spec != nil && p.normal() && len(p.endpoints) > 0
		if active && p.compiled {
			return
		}
		var compiled *ruleset.Policy
		var specs []setSpec
		p.warnings = nil
		if active {
			compiled, specs = p.compile()
		}
		p.compiled = active
		p.sets = c.exchangeSets(p.sets, specs)
		if !reflect.DeepEqual(compiled, p.told) {
			d.Policies[p.id], p.told = compiled, compiled
		}
		if p.spec == nil {
			delete(c.policies, p.id)
		}
	})
}

// compile returns the rules of the directions that the policy decides, and the sets that they use.
func (p *policy) compile() (*ruleset.Policy, []setSpec) {
	k := compiler{namespace: p.id.Namespace, blind: len(p.faults) > 0}
	compiled := &ruleset.Policy{ID: p.id}
	if p.applies(ruleset.Ingress) {
		compiled.Ingress = k.rules("spec.ingress", p.spec.Ingress)
	}
	if p.applies(ruleset.Egress) {
		compiled.Egress = k.rules("spec.egress", p.spec.Egress)
	}
	p.warnings = k.warnings
	return compiled, k.specs
}

// walk returns the tiers that an endpoint walks in a direction, from its policies in order (spec 2.2).
func (c *Calc) walk(ordered []*policy, d ruleset.Direction) []ruleset.Tier {
	var tiers []ruleset.Tier
	for _, p := range ordered {
		if !p.applies(d) {
			continue
		}
		if len(tiers) == 0 || tiers[len(tiers)-1].Name != p.tier() {
			spec := c.tiers[p.tier()]
			tiers = append(tiers, ruleset.Tier{Name: p.tier(), EndPass: spec != nil && spec.DefaultAction == "Pass"})
		}
		last := &tiers[len(tiers)-1]
		last.Policies = append(last.Policies, p.id)
	}
	return tiers
}

// ordered returns the policies of the normal stage in the order in which they are walked.
func (c *Calc) ordered(policies map[*policy]struct{}) []*policy {
	list := make([]*policy, 0, len(policies))
	for p := range policies {
		if p.normal() {
			list = append(list, p)
		}
	}
	slices.SortFunc(list, func(a, b *policy) int {
		if ta, tb := a.tier(), b.tier(); ta != tb {
			return c.compareTiers(ta, tb)
		}
		return cmp.Or(cmp.Compare(a.order(), b.order()), cmp.Compare(a.tie, b.tie))
	})
	return list
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
