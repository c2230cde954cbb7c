package nft

import (
	"strings"
	"testing"

	"margay/ruleset"
)

func TestRuleRemark(t *testing.T) {
	for _, id := range []ruleset.PolicyID{
		{Kind: "GlobalNetworkPolicy", Name: "a"}, {Kind: "NetworkPolicy", Namespace: "ns", Name: "a.b"}, profileID("kns.x"),
	} {
		for _, a := range []ruleset.Action{ruleset.Deny, ruleset.Allow, ruleset.Pass, ruleset.Log} {
			text := remark(ruleRemark(id, 12, a))
			if gotID, n, gotA, ok := readRemark(text); !ok || gotID != id || n != 12 || gotA != a {
				t.Errorf("%q: %v %d %v %v", text, gotID, n, gotA, ok)
			}
		}
	}
	long := ruleset.PolicyID{Kind: "GlobalNetworkPolicy", Name: strings.Repeat("x", 253)}
	if id, n, a, ok := readRemark(remark(ruleRemark(long, 3, ruleset.Pass))); !ok || n != 3 || a != ruleset.Pass || !strings.HasPrefix(id.Name, "xxx") {
		t.Errorf("cut: %v %d %v %v", id, n, a, ok)
	}
	for _, text := range []string{"", "failsafe", "end of tier default", "Allow by rule x of A(b)", "Allow by rule 1 of b", "Eat by rule 1 of A(b)"} {
		if id, _, _, ok := readRemark(text); ok {
			t.Errorf("%q is read as %v", text, id)
		}
	}
}
