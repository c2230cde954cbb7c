package calc

import (
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
	var list []string
	if matchesAbsence(p.spec.Selector) {
		list = append(list, absenceWarning(p.spec.Selector))
	}
	if p.global && satisfiedByHosts(p.namespaceSelector) {
		list = append(list, hostNamespaceWarning)
	}
	if p.global && p.namespaceSelector == "" && p.in(ruleset.Normal) {
		list = append(list, nodePortWarnings(p.spec.Ingress)...)
	}
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
