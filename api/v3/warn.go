package v3

import (
	"fmt"
	"slices"
	"strings"

	"margay/selector"
)

func warnGlobalNetworkPolicy(p *GlobalNetworkPolicy) []string {
	spec := &p.Spec
	w := &warnings{}
	w.policy(&spec.PolicySpec, spec.PreDNAT || spec.DoNotTrack)
	if spec.NamespaceSelector == "" && spec.ServiceAccountSelector == "" && selectsAll(spec.Selector) {
		w.add("spec.selector is empty or all(), so the policy applies to host endpoints as well as to workloads " +
			"(add namespaceSelector: all() for workloads only, or select the label that your host endpoints have)")
	}
	if spec.DoNotTrack {
		w.add("spec.doNotTrack: replies are not recognised as such, and host endpoints with interfaceName \"*\" ignore the policy " +
			"(allow both directions at both ends, and name the interfaces)")
	}
	if spec.PreDNAT {
		w.add("spec.preDNAT: on host endpoints with interfaceName \"*\" the policy also sees what comes from local workloads and " +
			"through the loopback interface (allow 127.0.0.0/8 and the host's own addresses first)")
	}
	return w.list
}

func warnNetworkPolicy(p *NetworkPolicy) []string {
	w := &warnings{}
	w.policy(&p.Spec, false)
	if path := ownNamespaceOnly(&p.Spec); path != "" {
		remedy := "add namespaceSelector: all() for every namespace, or global() for host endpoints and global network sets"
		if strings.HasSuffix(path, ".notSelector") { // beside which no namespaceSelector covers unknown addresses
			remedy = "allow what has the label in rules of their own, with selector and namespaceSelector: all(), and again with namespaceSelector: global(); then deny without a source"
		}
		w.add("%s has no namespaceSelector beside it, so it covers namespace %s only: other namespaces, host endpoints, global network sets and unknown addresses never match (%s)",
			path, p.Namespace, remedy)
	}
	return w.list
}

func warnHostEndpoint(h *HostEndpoint) []string {
	w := &warnings{}
	if len(h.Spec.ExpectedIPs) == 0 {
		w.add("spec.expectedIPs is empty, so no rule selector ever matches this host endpoint as source or destination " +
			"(list the addresses of the interface)")
	}
	if len(h.Spec.Profiles) == 0 {
		w.add("host endpoint %s denies everything but failsafe ports in each direction for which no policy selects it "+
			"(apply a policy that allows what you need before it, or name profile %s)", h.Name, ProfileDefaultAllow)
	}
	return w.list
}

// warnings collects sentences.
type warnings struct{ list []string }

func (w *warnings) add(format string, args ...any) {
	w.list = append(w.list, fmt.Sprintf(format, args...))
}

// policy warns of what all policy kinds share. early policies act before the normal ones and have no end-of-tier deny.
func (w *warnings) policy(spec *PolicySpec, early bool) {
	types := spec.Types
	if len(types) == 0 {
		types = typesByRules(spec)
	}
	for _, list := range ruleLists(spec.Ingress, spec.Egress) {
		listed := slices.Contains(types, list.direction)
		switch {
		case len(list.rules) == 0 && list.rules != nil && !listed:
			w.add("%s is an empty list and spec.types does not list %s, so nothing is denied in that direction (list it in spec.types to deny everything, or remove the empty list)",
				list.path, list.direction)
		case len(list.rules) == 0:
		case !listed:
			w.add("%s has no effect, because spec.types does not list %s (add it)", list.path, list.direction)
		default:
			w.rules(list.path, list.rules, early)
		}
	}
}

func (w *warnings) rules(path string, rules []Rule, early bool) {
	has := func(action string) bool {
		return slices.ContainsFunc(rules, func(r Rule) bool { return r.Action == action })
	}
	switch {
	case early || has(ActionAllow) || has(ActionPass):
	case has(ActionDeny):
		w.add("%s has only Deny rules, so at the end of the tier everything else is denied too for the endpoints that the policy selects, "+
			"unless another policy of the tier allows it (add a rule with action: Allow or Pass)", path)
	default:
		w.add("%s has only Log rules, so at the end of the tier everything is denied for the endpoints that the policy selects, "+
			"unless another policy of the tier allows it (add a rule with action: Allow or Pass)", path)
	}
	for i := range rules {
		w.rule(index(path, i), &rules[i])
	}
}

func (w *warnings) rule(path string, r *Rule) {
	if r.HTTP != nil {
		w.add("%s.http is not enforced: the rule allows every connection that the rest of it matches (restrict it by ports and selectors)", path)
	}
	for _, end := range []struct {
		path string
		e    *EntityRule
	}{{path + ".source", &r.Source}, {path + ".destination", &r.Destination}} {
		if s, err := selector.Parse(end.e.Selector); end.e.Selector != "" && err == nil && s.IsAll() {
			w.add("%s.selector is all(), which matches only addresses of known endpoints and network sets (remove it to match every address)", end.path)
		}
	}
}

func selectsAll(text string) bool {
	s, err := selector.Parse(text)
	return err == nil && s.IsAll()
}

// ownNamespaceOnly returns the path of the first rule selector that covers the policy's own namespace only.
func ownNamespaceOnly(spec *PolicySpec) string {
	for _, list := range ruleLists(spec.Ingress, spec.Egress) {
		for i := range list.rules {
			path, r := index(list.path, i), &list.rules[i]
			for _, end := range []struct {
				path string
				e    *EntityRule
			}{{path + ".source", &r.Source}, {path + ".destination", &r.Destination}} {
				switch {
				case end.e.NamespaceSelector != "":
				case end.e.NotSelector != "":
					return end.path + ".notSelector"
				case end.e.Selector != "":
					return end.path + ".selector"
				}
			}
		}
	}
	return ""
}
