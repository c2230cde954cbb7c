package calc

import (
	"encoding/json"
	"fmt"
	"slices"

	v3 "margay/api/v3"
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
				loss.Ports = ports
				break
			}
		}
		lost = append(lost, loss)
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
