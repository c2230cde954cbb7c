package v3

import (
	"fmt"
	"math"
	"slices"
	"strings"

	"margay/selector"
)

// What a policy may hold (the limits of 3.33, for every store).
const (
	maxRules    = 1024
	maxNets     = 256
	maxPorts    = 50
	maxSelector = 1024 // characters
	maxHTTP     = 20   // methods, and paths
	maxHTTPPath = 1024
)

const hintNeededEverywhere = "AssumeNeededOnEveryNode"

// typesByRules returns the directions of a policy that names none, by the length of its rule lists.
func typesByRules(spec *PolicySpec) []string {
	switch {
	case len(spec.Egress) == 0:
		return []string{TypeIngress}
	case len(spec.Ingress) == 0:
		return []string{TypeEgress}
	}
	return []string{TypeIngress, TypeEgress}
}

// defaultPolicy sets types, tier and the label that follows the tier.
func defaultPolicy(r Resource, spec *PolicySpec) {
	if len(spec.Types) == 0 {
		spec.Types = typesByRules(spec)
	}
	if spec.Tier == "" {
		spec.Tier = DefaultTier
	}
	setLabel(r, LabelTier, spec.Tier)
}

// setLabel sets a label in a new map, so that maps shared with other objects stay as they are.
func setLabel(r Resource, key, value string) {
	labels := make(map[string]string, len(r.GetLabels())+1)
	for k, v := range r.GetLabels() {
		labels[k] = v
	}
	labels[key] = value
	r.SetLabels(labels)
}

func validateGlobalNetworkPolicy(c *check, p *GlobalNetworkPolicy) {
	spec := &p.Spec
	checkEndpointSelector(c, "spec.namespaceSelector", spec.NamespaceSelector)
	validatePolicySpec(c, &spec.PolicySpec)
	requireServiceNamespace(c, spec)
	if spec.PreDNAT && spec.DoNotTrack {
		c.fail("spec.preDNAT", true, "preDNAT and doNotTrack cannot both be true", "remove one of them")
	}
	if spec.PreDNAT && len(spec.Egress) > 0 {
		c.fail("spec.egress", nil, "preDNAT policy cannot have any egress rules", "")
	}
	if spec.PreDNAT && slices.Contains(spec.Types, TypeEgress) {
		c.fail("spec.types", nil, "preDNAT policy cannot have 'Egress' type", "write types: [Ingress]")
	}
	if (spec.PreDNAT || spec.DoNotTrack) && !spec.ApplyOnForward {
		c.fail("spec.applyOnForward", false, "applyOnForward must be true if either preDNAT or doNotTrack is true",
			"write applyOnForward: true")
	}
}

// requireServiceNamespace: a policy of the whole cluster has no namespace of its own to look a service up in.
func requireServiceNamespace(c *check, spec *GlobalNetworkPolicySpec) {
	require := func(path string, s *ServiceMatch) {
		if s != nil && s.Namespace == "" {
			c.fail(path+".services.namespace", nil, "must specify a namespace", "add the namespace of the service")
		}
	}
	for i := range spec.Ingress {
		require(index("spec.ingress", i)+".source", spec.Ingress[i].Source.Services)
	}
	for i := range spec.Egress {
		require(index("spec.egress", i)+".destination", spec.Egress[i].Destination.Services)
	}
}

func validateNetworkPolicy(c *check, p *NetworkPolicy) { validatePolicySpec(c, &p.Spec) }

func validatePolicySpec(c *check, spec *PolicySpec) {
	checkOptionalName(c, "spec.tier", spec.Tier)
	checkOrder(c, spec.Order)
	checkEndpointSelector(c, "spec.selector", spec.Selector)
	checkEndpointSelector(c, "spec.serviceAccountSelector", spec.ServiceAccountSelector)
	checkTypes(c, spec.Types)
	checkHints(c, spec.PerformanceHints)
	validateRules(c, spec.Ingress, spec.Egress)
}

// A ruleList is the rules of one direction.
type ruleList struct {
	path, direction string
	rules           []Rule
}

// ruleLists returns both directions of a policy or profile.
func ruleLists(ingress, egress []Rule) []ruleList {
	return []ruleList{{"spec.ingress", TypeIngress, ingress}, {"spec.egress", TypeEgress, egress}}
}

func validateRules(c *check, ingress, egress []Rule) {
	for _, list := range ruleLists(ingress, egress) {
		checkLength(c, list.path, len(list.rules), maxRules)
		for i := range list.rules {
			validateRule(c, index(list.path, i), list.direction, &list.rules[i])
		}
	}
}

func checkLength(c *check, path string, n, limit int) {
	if n > limit {
		c.failf(path, n, "list is too long: at most %d entries", limit)
	}
}

func checkOrder(c *check, order *float64) {
	if order != nil && (math.IsNaN(*order) || math.IsInf(*order, 0)) {
		c.fail("spec.order", *order, "order must be a finite number", "remove order to sort last")
	}
}

func checkTypes(c *check, types []string) {
	for i, t := range types {
		switch {
		case t != TypeIngress && t != TypeEgress:
			c.fail(index("spec.types", i), t, "policy type is not known", "write Ingress or Egress")
		case slices.Contains(types[:i], t):
			c.failf(index("spec.types", i), t, "'%s' type specified more than once", t)
		}
	}
}

func checkHints(c *check, hints []string) {
	for i, hint := range hints {
		switch {
		case hint != hintNeededEverywhere:
			c.fail(index("spec.performanceHints", i), hint, "performance hint is not known", "write "+hintNeededEverywhere)
		case slices.Contains(hints[:i], hint):
			c.fail(index("spec.performanceHints", i), hint, "performance hint specified more than once", "")
		}
	}
}

const globalReason = "global() can only be used in an EntityRule namespaceSelector"

// checkEndpointSelector checks a selector in which global() has no meaning.
func checkEndpointSelector(c *check, path, text string) {
	if s := checkSelector(c, path, text); s.HasGlobal() {
		c.fail(path, text, globalReason, "")
	}
}

// checkNamespaceSelector checks the namespaceSelector of a rule, where global() may stand, alone.
func checkNamespaceSelector(c *check, path, text string) {
	s := checkSelector(c, path, text)
	if s.HasGlobal() && !strings.HasPrefix(strings.TrimSpace(text), "global(") {
		c.fail(path, text, "global() cannot be combined with other selectors", "write global() alone, in a rule of its own")
	} else if s.HasGlobal() && !s.IsGlobal() {
		c.fail(path, text, "global() cannot be combined with other selectors", "write global() alone, in a rule of its own")
	}
}

// checkSelector returns the parsed selector, nil if it is none.
func checkSelector(c *check, path, text string) *selector.Selector {
	if n := len([]rune(text)); n > maxSelector {
		c.failf(path, text, "selector has %d characters, at most %d are allowed", n, maxSelector)
		return nil
	}
	s, err := selector.Parse(text)
	if err != nil {
		c.fail(path, text, err.Error(), selectorRemedy(text))
		return nil
	}
	return s
}

// selectorRemedy names the two mistakes that people make: a single = and a line break.
func selectorRemedy(text string) string {
	if strings.ContainsAny(text, "\n\r") {
		return "a selector is one line: fold it with >- instead of |"
	}
	fixed := strings.NewReplacer("!=", "!=", "==", "==", "=", "==").Replace(text)
	if fixed != text {
		if _, err := selector.Parse(fixed); err == nil {
			return "write " + bounded(fixed)
		}
	}
	return ""
}

// checkDistinct reports entries of a list that stand in it twice.
func checkDistinct(c *check, path string, list []string) {
	for i, entry := range list {
		if first := slices.Index(list, entry); first < i {
			c.fail(index(path, i), entry, fmt.Sprintf("entry specified more than once, first as %s", index(path, first)), "remove it")
		}
	}
}

// storedPolicy checks and completes a policy as it was read from the store: the tier is default if none is named, and
// no types mean both directions.
func storedPolicy(c *check, r Resource, spec *PolicySpec) {
	if spec.Tier == "" {
		spec.Tier = DefaultTier
	}
	if _, ok := r.GetLabels()[LabelTier]; !ok {
		setLabel(r, LabelTier, spec.Tier)
	}
	if len(spec.Types) == 0 {
		spec.Types = []string{TypeIngress, TypeEgress}
	}
	checkOrder(c, spec.Order)
	checkTypes(c, spec.Types)
	checkStoredSelector(c, "spec.selector", spec.Selector)
	checkStoredSelector(c, "spec.serviceAccountSelector", spec.ServiceAccountSelector)
	storedRules(c, spec.Ingress, spec.Egress)
	// A rule is large, and encoding/json leaves room for up to as many again. The agent keeps all policies.
	spec.Ingress, spec.Egress = slices.Clone(spec.Ingress), slices.Clone(spec.Egress)
}
