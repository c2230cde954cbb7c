package ctl

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	v3 "margay/api/v3"
	"margay/calc"
	"margay/store"
)

// lost returns a warning of a policy that apply replaced by one that says less, "" if there is nothing to be said. Who gives a
// policy the name of another one means to add it: the guide's own Typha step does so to its policy for 9091 (guide defect G1).
func (a *adviser) lost(c *change, after *landscape, mode store.Mode) string {
	l := loss{key: c.key}
	switch was := c.old.Resource.(type) {
	case *v3.GlobalNetworkPolicy:
		is := c.result.(*v3.GlobalNetworkPolicy)
		l.rules = calc.Lost(&was.Spec.PolicySpec, &is.Spec.PolicySpec)
		l.more = lostFlags(&was.Spec, &is.Spec)
		l.where = a.applied(was, is, after, &l)
	case *v3.NetworkPolicy:
		l.rules = calc.Lost(&was.Spec, &c.result.(*v3.NetworkPolicy).Spec)
	}
	if len(l.rules)+len(l.more) == 0 {
		return ""
	}
	if mode == store.DryRun {
		return l.text("exists and would be replaced")
	}
	return l.text("existed and was replaced")
}

// A loss is what a policy said and does not say any more.
type loss struct {
	key   v3.Key
	rules []calc.Loss
	more  []string // other than rules
	where string
}

// text puts the consequence first, then the rules, then the remedy.
func (l *loss) text(happened string) string {
	var head []string
	for _, part := range []struct{ action, title string }{
		{v3.ActionDeny, "No longer protected by it: "}, {v3.ActionAllow, "No longer allowed by it: "},
	} {
		if ports := l.ports(part.action); len(ports) > 0 {
			head = append(head, part.title+strings.Join(ports, ", ")+l.where+".")
		}
	}
	if len(head) == 0 {
		head = []string{"What it said before is no longer in force" + strings.TrimPrefix(l.where, ",") + "."}
	}
	var gone []string
	for i := range l.rules {
		gone = append(gone, l.rules[i].String())
	}
	return fmt.Sprintf("%s %s. %s\n  Gone: %s.\n  Give the new policy a name of its own if both are wanted.",
		l.key, happened, strings.Join(head, " "), strings.Join(append(gone, l.more...), "; "))
}

// ports names the destination ports of the rules with an action.
func (l *loss) ports(action string) []string {
	var out []string
	for _, rule := range l.rules {
		ports := rule.Gone()
		if rule.Rule.Action != action || len(ports) == 0 {
			continue
		}
		text := "port " + join(ports, ",")
		if rule.Rule.Protocol != nil {
			text = string(*rule.Rule.Protocol) + " " + text
		}
		if strings.HasPrefix(rule.Path, "egress") {
			text = "connections to " + text
		}
		if !slices.Contains(out, text) {
			out = append(out, text)
		}
	}
	return out
}

// applied says on which host endpoints the old policy was in force. It adds those that the new one leaves out to the loss,
// and takes from it the rules that they have from another policy of the tier.
func (a *adviser) applied(was, is *v3.GlobalNetworkPolicy, after *landscape, l *loss) string {
	if a.before == nil {
		return ""
	}
	var had, left []string
	for _, name := range slices.Sorted(maps.Keys(a.before.endpoints)) {
		h := a.before.endpoints[name]
		if !a.before.matches(was, h) {
			continue
		}
		had = append(had, name)
		if !a.before.matches(is, h) {
			left = append(left, name)
		}
	}
	if len(left) > 0 {
		l.more = append(l.more, "it no longer selects HostEndpoint "+some(left))
	}
	if len(had) == 0 {
		return " (it selected no host endpoint)"
	}
	l.rules = slices.DeleteFunc(l.rules, func(rule calc.Loss) bool { return after.says(rule, is, had) })
	return ", on HostEndpoint " + some(had)
}

// says reports whether another policy of the same tier has a rule for all of these host endpoints.
func (l *landscape) says(rule calc.Loss, is *v3.GlobalNetworkPolicy, endpoints []string) bool {
	want := v3.PolicySpec{Ingress: []v3.Rule{rule.Rule}}
	if strings.HasPrefix(rule.Path, "egress") {
		want = v3.PolicySpec{Egress: []v3.Rule{rule.Rule}}
	}
	for _, p := range l.policies {
		if p.Name == is.Name || p.Spec.Tier != is.Spec.Tier || len(calc.Lost(&want, &p.Spec.PolicySpec)) > 0 {
			continue
		}
		if !slices.ContainsFunc(endpoints, func(name string) bool {
			h := l.endpoints[name]
			return h != nil && !l.matches(p, h)
		}) {
			return true
		}
	}
	return false
}

// lostFlags returns what else narrowed what the policy lets through.
func lostFlags(was, is *v3.GlobalNetworkPolicySpec) []string {
	var gone []string
	for _, direction := range was.Types {
		if len(is.Types) > 0 && !slices.Contains(is.Types, direction) {
			gone = append(gone, "type "+direction)
		}
	}
	for _, flag := range []struct {
		name    string
		was, is bool
	}{
		{"doNotTrack", was.DoNotTrack, is.DoNotTrack}, {"preDNAT", was.PreDNAT, is.PreDNAT},
		{"applyOnForward", was.ApplyOnForward, is.ApplyOnForward},
	} {
		if flag.was && !flag.is {
			gone = append(gone, flag.name)
		}
	}
	return gone
}
