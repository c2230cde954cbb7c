package v3

import (
	"fmt"
	"math"
)

// The orders of the built-in tiers; the first is also stored for a tier without an order.
const (
	OrderDefaultTier  = 1_000_000.0
	OrderKubeAdmin    = 1_000.0
	OrderKubeBaseline = 10_000_000.0
)

func defaultTier(t *Tier) {
	if t.Spec.Order == nil {
		order := OrderDefaultTier
		t.Spec.Order = &order
	}
	if t.Spec.DefaultAction == "" {
		t.Spec.DefaultAction = ActionDeny
	}
}

func validateTier(c *check, t *Tier) {
	checkOrder(c, t.Spec.Order)
	checkTierAction(c, t)
	checkConditions(c, "status.conditions", t.Status.Conditions)
	require := func(order float64, action string) {
		if t.Spec.Order == nil || *t.Spec.Order != order {
			c.fail("spec.order", orderText(t.Spec.Order), fmt.Sprintf("%s tier order must be %.0f", t.Name, order), "")
		}
		if t.Spec.DefaultAction != action {
			c.fail("spec.defaultAction", t.Spec.DefaultAction, fmt.Sprintf("The '%s' tier must have default action '%s'", t.Name, action), "")
		}
	}
	switch t.Name {
	case DefaultTier:
		require(OrderDefaultTier, ActionDeny)
	case TierKubeAdmin:
		require(OrderKubeAdmin, ActionPass)
	case TierKubeBaseline:
		require(OrderKubeBaseline, ActionPass)
	}
}

func orderText(order *float64) any {
	if order == nil {
		return nil
	}
	return *order
}

func checkTierAction(c *check, t *Tier) {
	if a := t.Spec.DefaultAction; a != ActionDeny && a != ActionPass {
		c.fail("spec.defaultAction", a, "default action of a tier is Deny or Pass", "write Deny or Pass")
	}
}

// storedTier completes and checks a tier as it was read from the store.
func storedTier(c *check, t *Tier) {
	defaultTier(t)
	if math.IsNaN(*t.Spec.Order) || math.IsInf(*t.Spec.Order, 0) {
		c.fail("spec.order", *t.Spec.Order, "order must be a finite number", "")
	}
	checkTierAction(c, t)
}

// validateNetworkSet checks both kinds of sets. Nets may have host bits and may overlap or repeat.
func validateNetworkSet(c *check, labels map[string]string, spec *NetworkSetSpec) {
	if value, ok := labels[LabelNamespace]; ok {
		c.fail("metadata.labels["+LabelNamespace+"]", value, LabelNamespace+" is not a valid label name", "remove it: the namespace is metadata.namespace")
	}
	checkNets(c, "spec.nets", spec.Nets)
}

func validateProfile(c *check, p *Profile) {
	if p.Name == ProfileDefaultAllow {
		c.fail("metadata.name", p.Name, "the profile is built in and cannot be changed", "choose another name")
	}
	validateRules(c, p.Spec.Ingress, p.Spec.Egress)
	validateLabels(c, "spec.labelsToApply", p.Spec.LabelsToApply)
}
