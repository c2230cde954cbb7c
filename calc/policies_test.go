package calc

import (
	"fmt"
	"reflect"
	"slices"
	"strings"
	"testing"

	v3 "margay/api/v3"
	"margay/ruleset"
)

// TestPolicyApplies: which policies apply to which local host endpoint. The endpoint has label
// a=own and profiles p1 and p2 that give a, b and c.
func TestPolicyApplies(t *testing.T) {
	const setup = `kind: Profile
metadata: {name: p1}
spec: {labelsToApply: {a: first, b: first}}
---
kind: Profile
metadata: {name: p2}
spec: {labelsToApply: {a: second, b: second, c: second, pcns.env: prod, projectcalico.org/namespace: ns, pcsa.role: web}}
---
kind: HostEndpoint
metadata: {name: ep, labels: {a: own}}
spec: {node: kubeadm-master, interfaceName: eth0, profiles: [%s]}
`
	plain, namespaced := fmt.Sprintf(setup, "p1, missing"), fmt.Sprintf(setup, "p1, p2")
	global := func(fields string) string {
		return "kind: GlobalNetworkPolicy\nmetadata: {name: p}\nspec: {" + fields + "}"
	}
	local := func(namespace, fields string) string {
		return "kind: NetworkPolicy\nmetadata: {name: p, namespace: " + namespace + "}\nspec: {" + fields + "}"
	}
	tests := []struct {
		name, world, policy string
		want                bool
	}{
		{"no selector", plain, global(``), true},
		{"all()", plain, global(`selector: all()`), true},
		{"own label", plain, global(`selector: a == "own"`), true},
		{"own label hides the profile's", plain, global(`selector: a == "first"`), false},
		{"label of a profile", plain, global(`selector: b == "first"`), true},
		{"first profile wins", namespaced, global(`selector: b == "second"`), false},
		{"label of the second profile", namespaced, global(`selector: c == "second"`), true},
		{"absent label, !=", plain, global(`selector: z != "x"`), true},
		{"namespaceSelector, no namespace", plain, global(`namespaceSelector: env == "prod"`), false},
		{"namespaceSelector", namespaced, global(`namespaceSelector: env == "prod"`), true},
		{"namespaceSelector, other value", namespaced, global(`namespaceSelector: env == "test"`), false},
		{"namespaceSelector all() needs a namespace", plain, global(`namespaceSelector: all()`), false},
		{"namespaceSelector all()", namespaced, global(`namespaceSelector: all()`), true},
		{"namespaceSelector != holds without a namespace", plain, global(`namespaceSelector: env != "prod"`), true},
		{"all() beside namespaceSelector needs a namespace", plain, global(`selector: all(), namespaceSelector: env != "prod"`), false},
		{"selector and namespaceSelector", namespaced, global(`selector: a == "x", namespaceSelector: env == "prod"`), false},
		{"serviceAccountSelector", namespaced, global(`serviceAccountSelector: role == "web"`), true},
		{"serviceAccountSelector, none", plain, global(`serviceAccountSelector: role == "web"`), false},
		{"serviceAccountSelector all() needs a service account", namespaced, global(`serviceAccountSelector: all()`), false},
		{"NetworkPolicy, no namespace", plain, local("ns", ``), false},
		{"NetworkPolicy, its namespace", namespaced, local("ns", ``), true},
		{"NetworkPolicy, other namespace", namespaced, local("other", `selector: all()`), false},
		{"NetworkPolicy, selector", namespaced, local("ns", `selector: a == "x"`), false},
		{"applyOnForward", plain, global(`applyOnForward: true`), true},
		{"selector that does not parse applies", plain, global(`selector: a = "x"`), true},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			for _, order := range [][]string{{test.world, test.policy}, {test.policy, test.world}} {
				p := newWorld(t).apply(order...).fake.Program()
				if got := len(p.Policies) == 1; got != test.want {
					t.Errorf("policy is active: %v, want %v", got, test.want)
				}
				ep := p.Endpoints[ruleset.EndpointID{Kind: "HostEndpoint", Name: "ep"}]
				if got := len(ep.Normal.Ingress) == 1; got != test.want {
					t.Errorf("policy applies: %v, want %v", got, test.want)
				}
			}
		})
	}
}

// TestBlindPolicyDoesNotAllow: of a policy with a selector that does not parse only the denying half is left.
func TestBlindPolicyDoesNotAllow(t *testing.T) {
	w := newWorld(t).apply(hep("ep", ""), `kind: GlobalNetworkPolicy
metadata: {name: p}
spec: {selector: 'a = "x"', ingress: [{action: Allow}]}`)
	if v := w.scrape(stranger, 80); v.Allowed {
		t.Errorf("allowed: %+v", v)
	}
	if warnings := w.warnings(); len(warnings) < 1 || !strings.Contains(warnings[0], "spec.selector") {
		t.Errorf("warnings = %q", warnings)
	}
}

func tiersOf(w *world) (ingress, egress []string) {
	text := func(tiers []ruleset.Tier) []string {
		var list []string
		for _, tier := range tiers {
			entry := tier.Name + ":"
			for _, id := range tier.Policies {
				entry += " " + strings.TrimPrefix(id.Namespace+"/"+id.Name, "/")
			}
			if tier.EndPass {
				entry += " pass"
			}
			list = append(list, entry)
		}
		return list
	}
	for _, ep := range w.fake.Program().Endpoints {
		return text(ep.Normal.Ingress), text(ep.Normal.Egress)
	}
	return nil, nil
}

// TestOrder: the order of tiers and policies.
func TestOrder(t *testing.T) {
	tier := func(name, fields string) string {
		return "kind: Tier\nmetadata: {name: " + name + "}\nspec: {" + fields + "}"
	}
	policy := func(name, fields string) string {
		return "kind: GlobalNetworkPolicy\nmetadata: {name: " + name + "}\nspec: {" + fields + "}"
	}
	// The store turns a nil order of a tier into 1,000,000; here one is nil.
	unordered := &v3.Tier{}
	unordered.Name = "unordered"
	texts := []string{
		hep("ep", `projectcalico.org/namespace: ns`),
		tier("default", `order: 1000000`), tier("late", `order: 2000000, defaultAction: Pass`), tier("early", `order: -5`),
		tier("early-b", `order: -5`), tier("empty", `order: 1`),
		policy("b", `order: 10`), policy("a", `order: 10`), policy("first", `order: -0.5`), policy("a-b", `order: 10`),
		policy("last", ``), policy("last-b", `types: [Ingress, Egress]`), policy("out", `types: [Egress]`),
		"kind: NetworkPolicy\nmetadata: {name: a, namespace: ns}\nspec: {order: 10}",
		policy("e", `tier: early`), policy("eb", `tier: early-b`), policy("l", `tier: late`), policy("u", `tier: unordered`),
		policy("z", `tier: gone`), policy("w", `tier: away, order: -1`),
	}
	ingress := []string{
		"early: e", "early-b: eb", "default: first a-b a ns/a b last-b last", "late: l pass", "unordered: u", "away: w", "gone: z",
	}
	egress := []string{"default: last-b out"}
	for round := range 3 {
		w := newWorld(t)
		w.calc.Update(v3.Key{Kind: v3.KindTier, Name: "unordered"}, unordered)
		slices.Reverse(texts)
		if round == 2 {
			texts = append(texts[len(texts)/2:], texts[:len(texts)/2]...)
		}
		w.apply(texts...)
		gotIn, gotOut := tiersOf(w)
		if !reflect.DeepEqual(gotIn, ingress) || !reflect.DeepEqual(gotOut, egress) {
			t.Fatalf("tiers are\n%q, %q; want\n%q, %q", gotIn, gotOut, ingress, egress)
		}
	}
}

func TestTierAppearsAndGoes(t *testing.T) {
	w := newWorld(t).apply(hep("ep", ""), gnp("p", "{action: Allow, protocol: TCP}"))
	tier := "kind: Tier\nmetadata: {name: default}\nspec: {defaultAction: Pass}"
	if in, _ := tiersOf(w.apply(tier)); !slices.Equal(in, []string{"default: p pass"}) {
		t.Errorf("with its tier: %q", in)
	}
	if in, _ := tiersOf(w.remove(v3.KindTier, "", "default")); !slices.Equal(in, []string{"default: p"}) {
		t.Errorf("dangling: %q", in)
	}
	if warnings := w.warned("tier default does not exist"); len(warnings) != 1 {
		t.Errorf("warnings = %q", warnings)
	}
}

// TestPolicyOfOldDataWithoutTypes: it decides in both directions, and only those that it decides are compiled.
func TestPolicyOfOldDataWithoutTypes(t *testing.T) {
	p := &v3.GlobalNetworkPolicy{}
	p.Name = "p"
	p.Spec.Ingress, p.Spec.Egress = []v3.Rule{{Action: "Allow"}}, []v3.Rule{{Action: "Deny"}}
	key := v3.Key{Kind: v3.KindGlobalNetworkPolicy, Name: "p"}
	id := ruleset.PolicyID{Kind: "GlobalNetworkPolicy", Name: "p"}
	w := newWorld(t).apply(hep("ep", ""))
	w.calc.Update(key, p)
	w.flush()
	if got := w.fake.Program().Policies[id]; len(got.Ingress) != 1 || len(got.Egress) != 1 {
		t.Errorf("without types: %+v", got)
	}
	typed := *p
	typed.Spec.Types = []string{v3.TypeEgress}
	w.calc.Update(key, &typed)
	w.flush()
	if got := w.fake.Program().Policies[id]; got.Ingress != nil || len(got.Egress) != 1 {
		t.Errorf("of type Egress: %+v", got)
	}
	if in, out := tiersOf(w); len(in) != 0 || len(out) != 1 {
		t.Errorf("tiers are %q and %q", in, out)
	}
}

func TestProfiles(t *testing.T) {
	endpoint := func(profiles string) string {
		return "kind: HostEndpoint\nmetadata: {name: ep}\nspec: {node: kubeadm-master, interfaceName: eth0, profiles: [" + profiles + "]}"
	}
	w := newWorld(t).apply(endpoint("projectcalico-default-allow"))
	if v := w.scrape(stranger, 80); !v.Allowed || v.Profile != "projectcalico-default-allow" {
		t.Errorf("default profile: %+v", v)
	}
	w.apply(endpoint("open"))
	if v := w.scrape(stranger, 80); v.Allowed || v.Reason != ruleset.ProfileMissing {
		t.Errorf("missing profile: %+v", v)
	}
	if warnings := w.warned("profile open does not exist"); len(warnings) != 1 {
		t.Errorf("warnings = %q", warnings)
	}
	w.apply("kind: Profile\nmetadata: {name: open}\nspec: {ingress: [{action: Allow, source: {selector: has(a)}}]}",
		"kind: GlobalNetworkSet\nmetadata: {name: s, labels: {a: x}}\nspec: {nets: [192.0.2.0/24]}")
	if v := w.scrape(stranger, 80); !v.Allowed || v.Reason != ruleset.ProfileRule {
		t.Errorf("profile: %+v", v)
	}
	w.apply("kind: Profile\nmetadata: {name: unused}\nspec: {ingress: [{action: Allow, source: {selector: has(b)}}]}")
	if p := w.fake.Program(); len(p.Profiles) != 1 || len(p.Sets) != 1 {
		t.Errorf("a profile that nobody names is in the program: %d profiles, %d sets", len(p.Profiles), len(p.Sets))
	}
	w.remove(v3.KindProfile, "", "open")
	if v := w.scrape(stranger, 80); v.Reason != ruleset.ProfileMissing || len(w.fake.Program().Sets) != 0 {
		t.Errorf("removed profile: %+v, sets %v", v, w.fake.Program().Sets)
	}
}
