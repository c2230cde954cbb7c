package calc

import (
	"fmt"
	"slices"

	v3 "margay/api/v3"
	"margay/ruleset"
	"margay/selector"
)

// ManifestTraps returns what is remarkable about a policy whatever else there is: what the agents warn of, too, when the policy
// selects one of their endpoints, and what [v3.Warnings] does not tell.
func ManifestTraps(r v3.Resource) []string {
	p := &policy{}
	switch r := r.(type) {
	case *v3.GlobalNetworkPolicy, *v3.NetworkPolicy:
		p.read(r)
	default:
		return nil
	}
	list := slices.Concat(absences(p.spec), insideOnly(p.spec))
	if p.global && satisfiedByHosts(p.namespaceSelector) {
		list = append(list, hostNamespaceWarning)
	}
	if p.global && p.namespaceSelector == "" && p.in(ruleset.Normal) {
		list = append(list, nodePortWarnings(p.spec.Ingress)...)
	}
	return list
}

// A ruleEnd is source or destination of a rule.
type ruleEnd struct {
	rule   *v3.Rule
	entity *v3.EntityRule
	list   int // 0: ingress, 1: egress
	index  int
	field  string
}

func (e *ruleEnd) path(field string) string {
	return fmt.Sprintf("spec.%s[%d].%s.%s", [...]string{"ingress", "egress"}[e.list], e.index, e.field, field)
}

func eachEnd(spec *v3.PolicySpec, f func(*ruleEnd)) {
	for list, rules := range [][]v3.Rule{spec.Ingress, spec.Egress} {
		for i := range rules {
			f(&ruleEnd{&rules[i], &rules[i].Source, list, i, "source"})
			f(&ruleEnd{&rules[i], &rules[i].Destination, list, i, "destination"})
		}
	}
}

// absences warns of selectors that hold where a label is absent: of what the policy applies to, and of rules by which more
// passes than their author may mean.
func absences(spec *v3.PolicySpec) []string {
	var list []string
	check := func(path func(string) string, field, text string) {
		if matchesAbsence(text) {
			list = append(list, fmt.Sprintf("%s %q also matches what does not have the label at all (add && has(...) where that is not meant)", path(field), text))
		}
	}
	check(func(field string) string { return "spec." + field }, "selector", spec.Selector)
	eachEnd(spec, func(e *ruleEnd) {
		switch e.rule.Action {
		case v3.ActionAllow, v3.ActionPass:
			check(e.path, "selector", e.entity.Selector)
			check(e.path, "namespaceSelector", e.entity.NamespaceSelector)
			if e.entity.ServiceAccounts != nil {
				check(e.path, "serviceAccounts.selector", e.entity.ServiceAccounts.Selector)
			}
		case v3.ActionDeny:
			check(e.path, "notSelector", e.entity.NotSelector)
		}
	})
	return list
}

// insideOnly warns of Deny rules that except a label in all namespaces: what is in no namespace they do not match either, nor does
// an address that nobody has.
func insideOnly(spec *v3.PolicySpec) []string {
	var list []string
	eachEnd(spec, func(e *ruleEnd) {
		if e.rule.Action == v3.ActionDeny && e.entity.NotSelector != "" && e.entity.NamespaceSelector != "" && selectsAll(e.entity.NamespaceSelector) {
			list = append(list, e.path("notSelector")+": beside namespaceSelector all() the rule covers what is in some namespace only: host endpoints, global network sets and unknown addresses never match, so that it does not deny them (allow what has the label in a rule of its own, then deny without selectors)")
		}
	})
	return list
}

// satisfiedByHosts reports whether a namespaceSelector holds for host endpoints, which have no namespace. all() does not: it
// means all that is in one.
func satisfiedByHosts(text string) bool {
	sel, err := selector.Parse(text)
	if text == "" || err != nil {
		return false
	}
	all := sel.WithPrefix(namespacePrefix).WithAll(selector.Has(labelNamespace))
	return all != nil && all.Matches(selector.Map{})
}
