package calc

import (
	"reflect"
	"slices"
	"strings"
	"testing"

	v3 "margay/api/v3"
	"margay/ruleset"
)

const openHost = `
kind: HostEndpoint
metadata: {name: eth0, labels: {role: host}}
spec: {node: ` + here + `, interfaceName: eth0, expectedIPs: [10.100.0.15], profiles: [projectcalico-default-allow]}
---
kind: GlobalNetworkPolicy
metadata: {name: open}
spec: {selector: role == 'host', order: 5, ingress: [{action: Allow}]}`

// TestStagedPolicies: what is staged is listed and decides nothing; the preview says what it
// would decide, in place of the enforced policy of its name.
func TestStagedPolicies(t *testing.T) {
	const all = "spec: {order: 1, selector: all(), ingress: [{action: Deny}], egress: [{action: Deny}]}"
	tests := []struct {
		name, staged string
		ingress      string // the tier's policies
		now, then    bool   // whether ingress is allowed, in force and in the preview
	}{
		{"none", "", "open", true, true},
		{"set, another name", "kind: StagedGlobalNetworkPolicy\nmetadata: {name: closed}\n" + all, "StagedGlobalNetworkPolicy(closed) open", true, false},
		{"set, behind", "kind: StagedGlobalNetworkPolicy\nmetadata: {name: closed}\n" + strings.Replace(all, "order: 1", "order: 9", 1), "open StagedGlobalNetworkPolicy(closed)", true, true},
		{"set, the same name", "kind: StagedGlobalNetworkPolicy\nmetadata: {name: open}\n" + strings.Replace(all, "order: 1", "order: 9", 1), "open StagedGlobalNetworkPolicy(open)", true, false},
		{"set, the same name, selects another", "kind: StagedGlobalNetworkPolicy\nmetadata: {name: open}\nspec: {selector: role == 'pod', egress: [{action: Deny}]}", "open", true, true},
		{"delete", "kind: StagedGlobalNetworkPolicy\nmetadata: {name: open}\nspec: {stagedAction: Delete}", "StagedGlobalNetworkPolicy(open) open", true, true},
		{"delete what is not there", "kind: StagedGlobalNetworkPolicy\nmetadata: {name: gone}\nspec: {stagedAction: Delete}", "open", true, true},
		{"learn", "kind: StagedGlobalNetworkPolicy\nmetadata: {name: closed}\n" + strings.Replace(all, "order: 1", "order: 1, stagedAction: Learn", 1), "open", true, true},
		{"ignore", "kind: StagedGlobalNetworkPolicy\nmetadata: {name: open}\n" + strings.Replace(all, "order: 1", "order: 1, stagedAction: Ignore", 1), "open", true, true},
		{"of a namespace", "kind: StagedNetworkPolicy\nmetadata: {name: open, namespace: ns}\n" + all, "open", true, true},
		{"of Kubernetes", "kind: StagedKubernetesNetworkPolicy\nmetadata: {name: open, namespace: ns}\nspec: {podSelector: {}}", "open", true, true},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			for _, order := range [][]string{{openHost, test.staged}, {test.staged, openHost}} {
				w := newWorld(t).apply(slices.DeleteFunc(order, func(s string) bool { return s == "" })...)
				p := w.fake.Program()
				if got := listed(p); got != test.ingress {
					t.Errorf("tier lists %s, want %s", got, test.ingress)
				}
				pkt := &ruleset.Packet{In: "eth0", Protocol: ruleset.TCP, Src: addr("192.0.2.1"), Dst: addr("10.100.0.15")}
				if now, then := ruleset.Eval(p, pkt).Allowed, ruleset.Eval(ruleset.Preview(p), pkt).Allowed; now != test.now || then != test.then {
					t.Errorf("allowed %v, in the preview %v; want %v, %v", now, then, test.now, test.then)
				}
			}
		})
	}
}

// listed returns the policies of the only tier for ingress on eth0.
func listed(p *ruleset.Program) string {
	var names []string
	for _, tier := range p.Endpoints[ruleset.EndpointID{Kind: "HostEndpoint", Name: "eth0"}].Normal.Ingress {
		for _, id := range tier.Policies {
			if policy := p.Policies[id]; policy.Staged {
				names = append(names, id.String())
			} else {
				names = append(names, id.Name)
			}
		}
	}
	return strings.Join(names, " ")
}

// TestStagedComesAndGoes: when nothing is staged any more, the program is what it was.
func TestStagedComesAndGoes(t *testing.T) {
	w := newWorld(t).apply(openHost)
	before := w.fake.Program()
	for _, r := range parse(t, `kind: StagedGlobalNetworkPolicy
metadata: {name: closed}
spec: {order: 1, selector: all(), ingress: [{action: Deny, source: {selector: has(a)}}]}
---
kind: StagedGlobalNetworkPolicy
metadata: {name: open}
spec: {stagedAction: Delete}
---
kind: StagedGlobalNetworkPolicy
metadata: {name: open}
spec: {selector: all()}`) {
		w.calc.Update(v3.KeyOf(r), r)
		if d := w.flush(); len(d.Policies) == 0 || len(d.Endpoints) == 0 {
			t.Errorf("%s is not told: %+v", v3.KeyOf(r), d)
		}
		w.remove(v3.KeyOf(r).Kind, "", r.GetName())
		if after := w.fake.Program(); !reflect.DeepEqual(after, before) {
			t.Errorf("after %s the program is %s", v3.KeyOf(r), print(after))
		}
	}
	if p := w.apply("kind: StagedGlobalNetworkPolicy\nmetadata: {name: x}\nspec: {selector: role == 'pod'}").fake.Program(); len(p.Policies) != 1 {
		t.Errorf("a staged policy of nobody is told: %+v", p.Policies)
	}
}

// TestFromKubernetes: what a staged policy of Kubernetes previews.
func TestFromKubernetes(t *testing.T) {
	const k8s = `projectcalico.org/orchestrator == 'k8s'`
	tests := []struct {
		name, spec string
		want       string // the spec that it becomes
	}{
		{"nothing", `{podSelector: {}}`, `{selector: "` + k8s + `", types: [Ingress]}`},
		{"pods", `{podSelector: {matchLabels: {b: w, a: x}}}`, `{selector: "` + k8s + ` && a == 'x' && b == 'w'", types: [Ingress]}`},
		{"expressions", `{podSelector: {matchExpressions: [{key: a, operator: In, values: [x, w]}, {key: b, operator: NotIn, values: [z]}, {key: c, operator: Exists}, {key: d, operator: DoesNotExist}]}}`,
			`{selector: "` + k8s + ` && a in {'x', 'w'} && b not in {'z'} && has(c) && !has(d)", types: [Ingress]}`},
		{"types are given", `{podSelector: {}, policyTypes: [Egress], ingress: [{}]}`, `{selector: "` + k8s + `", types: [Egress], ingress: [{action: Allow}]}`},
		{"egress without types", `{podSelector: {}, egress: [{}]}`, `{selector: "` + k8s + `", types: [Ingress, Egress], egress: [{action: Allow}]}`},
		{"peers", `{podSelector: {}, ingress: [{from: [{podSelector: {matchLabels: {a: x}}}, {namespaceSelector: {}}, {namespaceSelector: {matchLabels: {e: p}}, podSelector: {}}, {ipBlock: {cidr: 10.0.0.1/8, except: [10.1.0.0/16]}}]}]}`,
			`{selector: "` + k8s + `", types: [Ingress], ingress: [
				{action: Allow, source: {selector: "` + k8s + ` && a == 'x'"}},
				{action: Allow, source: {selector: "` + k8s + `", namespaceSelector: all()}},
				{action: Allow, source: {selector: "` + k8s + `", namespaceSelector: "e == 'p'"}},
				{action: Allow, source: {nets: [10.0.0.0/8], notNets: [10.1.0.0/16]}}]}`},
		{"ports", `{podSelector: {}, policyTypes: [Egress], egress: [{to: [{ipBlock: {cidr: "fd00::/8"}}], ports: [{port: 80}, {port: http}, {port: 8000, endPort: 8010}, {protocol: UDP, port: 53}, {protocol: SCTP}, {protocol: SCTP, port: 7}]}]}`,
			`{selector: "` + k8s + `", types: [Egress], egress: [
				{action: Allow, protocol: SCTP, destination: {nets: ["fd00::/8"]}},
				{action: Allow, protocol: TCP, destination: {nets: ["fd00::/8"], ports: [80, http, "8000:8010"]}},
				{action: Allow, protocol: UDP, destination: {nets: ["fd00::/8"], ports: [53]}}]}`},
		{"ports that cannot be", `{podSelector: {}, ingress: [{ports: [{port: 0}]}, {ports: [{port: 9, endPort: 8}]}, {ports: [{port: http, endPort: 8}]}, {ports: [{endPort: 8}]}, {from: [{ipBlock: {cidr: bogus}}]}, {ports: [{port: 1}]}]}`,
			`{selector: "` + k8s + `", types: [Ingress], ingress: [{action: Allow, protocol: TCP, destination: {ports: [1]}}]}`},
	}
	for _, test := range tests {
		staged := parse(t, "kind: StagedKubernetesNetworkPolicy\nmetadata: {name: p, namespace: ns}\nspec: "+test.spec)[0].(*v3.StagedKubernetesNetworkPolicy)
		plain := parse(t, "kind: NetworkPolicy\nmetadata: {name: p, namespace: ns}\nspec: "+strings.Replace(test.want, "{", "{tier: default, order: 1000, ", 1))[0].(*v3.NetworkPolicy)
		if got, _ := v3.FromKubernetes(&staged.Spec); !reflect.DeepEqual(*got, plain.Spec) {
			t.Errorf("%s: becomes\n%+v, want\n%+v", test.name, *got, plain.Spec)
		}
	}
}
