package calc

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	v3 "margay/api/v3"
	"margay/ruleset"
)

// A Loss is a rule that a version of a policy had and the next one has not.
type Loss struct {
	Path string // in the old version, without spec.
	Rule v3.Rule
	// Ports are those for which the new version has the same rule; nil: for none.
	Ports []v3.Port
}

// Moved reports whether the rule is now there for other ports only: that is how a policy looks that was given the name of
// another one by mistake (guide defect G1).
func (l *Loss) Moved() bool {
	was := l.Rule.Destination.Ports
	return len(was) > 0 && len(l.Ports) > 0 && !slices.ContainsFunc(was, func(a v3.Port) bool {
		return slices.ContainsFunc(l.Ports, func(b v3.Port) bool { return overlap(a, b) })
	})
}

func overlap(a, b v3.Port) bool {
	if a.Name != "" || b.Name != "" {
		return a.Name == b.Name
	}
	return a.First <= b.Last && b.First <= a.Last
}

// Gone returns the destination ports of the rule for which the new version has no such rule.
func (l *Loss) Gone() []v3.Port {
	return slices.DeleteFunc(slices.Clone(l.Rule.Destination.Ports), func(p v3.Port) bool {
		return slices.ContainsFunc(l.Ports, func(o v3.Port) bool {
			return p.Name == o.Name && (p.Name != "" || o.First <= p.First && p.Last <= o.Last)
		})
	})
}

// String puts the loss in words: ingress[0] Deny TCP from !(a == "b") to port 9091 (now only to port 9093).
func (l *Loss) String() string {
	text := l.Path + " " + describe(&l.Rule)
	if l.Ports != nil {
		text += " (now only to port " + list(l.Ports) + ")"
	}
	return text
}

// in reports whether a policy has the rule.
func (l *Loss) in(spec *v3.PolicySpec) bool {
	text := ruleText(l.Rule)
	same := func(r v3.Rule) bool { return ruleText(r) == text }
	return slices.ContainsFunc(spec.Ingress, same) || slices.ContainsFunc(spec.Egress, same)
}

// Slipped returns a warning of a policy of which a version took the place of another one that guards other ports, "" if
// there is nothing to warn of: the version was not like that, what it had is in force under another name, or it selects
// no endpoint of this node.
func (c *Calc) Slipped(key v3.Key, was v3.Resource) string {
	p := c.policies[ruleset.PolicyID{Kind: string(key.Kind), Namespace: key.Namespace, Name: key.Name}]
	spec := specOf(was)
	if p == nil || p.spec == nil || spec == nil {
		return ""
	}
	var gone []string
	for _, loss := range Lost(spec, p.spec) {
		if loss.Moved() && !c.says(&loss) {
			gone = append(gone, loss.String())
		}
	}
	var endpoints []string
	for ep := range p.endpoints {
		endpoints = append(endpoints, ep.id.String())
	}
	if len(gone) == 0 || len(endpoints) == 0 {
		return ""
	}
	return fmt.Sprintf("it took the place of another policy of its name, and what that said is no longer in force on %s: %s (give the new policy a name of its own if both are wanted)", someOf(endpoints), strings.Join(gone, "; "))
}

// says reports whether some enforced policy has the rule that was lost.
func (c *Calc) says(l *Loss) bool {
	for id, p := range c.policies {
		if p.spec != nil && !isStaged(id) && l.in(p.spec) {
			return true
		}
	}
	return false
}

// specOf returns what enforced policies have in common; nil: it is none.
func specOf(r v3.Resource) *v3.PolicySpec {
	switch r := r.(type) {
	case *v3.GlobalNetworkPolicy:
		return &r.Spec.PolicySpec
	case *v3.NetworkPolicy:
		return &r.Spec
	}
	return nil
}

// Lost returns the rules of a policy that its next version has not, in order.
func Lost(was, is *v3.PolicySpec) []Loss {
	return append(lostRules("ingress", was.Ingress, is.Ingress), lostRules("egress", was.Egress, is.Egress)...)
}

func lostRules(direction string, was, is []v3.Rule) []Loss {
	unused := map[string]int{}
	for i := range is {
		unused[ruleText(is[i])]++
	}
	var lost []Loss
	for i, rule := range was {
		if key := ruleText(rule); unused[key] > 0 {
			unused[key]--
			continue
		}
		loss := Loss{Path: fmt.Sprintf("%s[%d]", direction, i), Rule: rule}
		for _, other := range is {
			if ports := other.Destination.Ports; len(ports) > 0 && ruleText(withoutPorts(rule)) == ruleText(withoutPorts(other)) {
				loss.Ports = append(loss.Ports, ports...)
			}
		}
		if len(rule.Destination.Ports) == 0 || len(loss.Gone()) > 0 {
			lost = append(lost, loss)
		}
	}
	return lost
}

func withoutPorts(rule v3.Rule) v3.Rule {
	rule.Destination.Ports = nil
	return rule
}

// ruleText is equal for equal rules.
func ruleText(rule v3.Rule) string {
	text, err := json.Marshal(rule)
	if err != nil {
		panic(fmt.Sprintf("calc: a rule that was decoded does not encode: %v", err))
	}
	return string(text)
}

// describe puts a rule in words.
func describe(r *v3.Rule) string {
	words := []string{r.Action}
	if r.Protocol != nil {
		words = append(words, string(*r.Protocol))
	}
	if r.NotProtocol != nil {
		words = append(words, "!"+string(*r.NotProtocol))
	}
	if from := describeEntity(&r.Source); from != "" {
		words = append(words, "from "+from)
	}
	if to := describeEntity(&r.Destination); to != "" {
		words = append(words, "to "+to)
	}
	return strings.Join(words, " ")
}

func describeEntity(e *v3.EntityRule) string {
	var words []string
	add := func(format, s string) {
		if s != "" {
			words = append(words, fmt.Sprintf(format, s))
		}
	}
	add("%s", strings.Join(e.Nets, ","))
	add("!(%s)", strings.Join(e.NotNets, ","))
	add("%s", e.Selector)
	add("!(%s)", e.NotSelector)
	add("namespaces %s", e.NamespaceSelector)
	if e.Services != nil {
		add("service %s", e.Services.Namespace+"/"+e.Services.Name)
	}
	if e.ServiceAccounts != nil {
		add("service accounts %s", strings.TrimSpace(strings.Join(e.ServiceAccounts.Names, ",")+" "+e.ServiceAccounts.Selector))
	}
	add("port %s", list(e.Ports))
	add("!port %s", list(e.NotPorts))
	return strings.Join(words, " ")
}

func list(ports []v3.Port) string {
	texts := make([]string, len(ports))
	for i, p := range ports {
		texts[i] = p.String()
	}
	return strings.Join(texts, ",")
}
