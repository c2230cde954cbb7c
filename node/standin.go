package node

import (
	"cmp"
	"encoding/json"
	"math"
	"slices"

	v3 "margay/api/v3"
	"margay/selector"
)

// standIn returns what takes the place of a policy whose stored value cannot be used and whose last good version is lost:
// a policy of the same name that denies, in both directions, whatever the stored value can still be seen to select. What
// cannot be read of it is taken as wide as it can be: all endpoints, first in the first tier. It returns false for other
// kinds, for which no stand-in would be safe: they are absent until they are repaired.
func standIn(key v3.Key, value []byte, tiers []*v3.Tier) (v3.Resource, bool) {
	spec, whole := readSpec(value)
	policy := v3.PolicySpec{
		Types:   []string{v3.TypeIngress, v3.TypeEgress},
		Ingress: []v3.Rule{{Action: "Deny"}},
		Egress:  []v3.Rule{{Action: "Deny"}},
	}
	policy.Tier, policy.Order = readPlace(spec, whole, tiers)
	// One that is absent selects everything; one that does not parse could have selected anything.
	policy.Selector = readSelector(spec, "selector")
	policy.ServiceAccountSelector = readSelector(spec, "serviceAccountSelector")
	info, ok := v3.Lookup(key.Kind)
	if !ok {
		return nil, false
	}
	r := info.New()
	r.SetName(key.Name)
	r.SetNamespace(key.Namespace)
	switch p := r.(type) {
	case *v3.GlobalNetworkPolicy:
		p.Spec.PolicySpec = policy
		p.Spec.NamespaceSelector = readSelector(spec, "namespaceSelector")
		return p, true
	case *v3.NetworkPolicy:
		p.Spec = policy
		return p, true
	}
	return nil, false
}

// readSpec returns the fields of the value's spec and whether it is an object that has one.
func readSpec(value []byte) (map[string]json.RawMessage, bool) {
	var object struct {
		Spec map[string]json.RawMessage `json:"spec"`
	}
	if json.Unmarshal(value, &object) != nil || object.Spec == nil {
		return nil, false
	}
	return object.Spec, true
}

// readSelector returns the field if it is a selector, else "", which selects everything.
func readSelector(spec map[string]json.RawMessage, field string) string {
	var text string
	if json.Unmarshal(spec[field], &text) != nil {
		return ""
	}
	if _, err := selector.Parse(text); err != nil {
		return ""
	}
	return text
}

// readPlace returns tier and order of the policy: as stored if both can be read, else before everything else.
func readPlace(spec map[string]json.RawMessage, whole bool, tiers []*v3.Tier) (string, *float64) {
	tier, order := v3.DefaultTier, (*float64)(nil)
	readable := func(field string, into any) bool {
		raw, set := spec[field]
		return !set || json.Unmarshal(raw, into) == nil
	}
	// A tier that does not exist would put the stand-in behind all others.
	known := func(t *v3.Tier) bool { return t.Name == cmp.Or(tier, v3.DefaultTier) }
	if whole && readable("tier", &tier) && readable("order", &order) && slices.ContainsFunc(tiers, known) {
		return cmp.Or(tier, v3.DefaultTier), order
	}
	first := -math.MaxFloat64
	return firstTier(tiers), &first
}

// firstTier returns the name of the tier that is walked first.
func firstTier(tiers []*v3.Tier) string {
	if len(tiers) == 0 {
		return v3.DefaultTier
	}
	order := func(t *v3.Tier) float64 {
		if t.Spec.Order == nil {
			return math.Inf(1)
		}
		return *t.Spec.Order
	}
	return slices.MinFunc(tiers, func(a, b *v3.Tier) int {
		return cmp.Or(cmp.Compare(order(a), order(b)), cmp.Compare(a.Name, b.Name))
	}).Name
}
