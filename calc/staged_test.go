package calc

import (
	"testing"

	v3 "margay/api/v3"
)

const staged = `
kind: StagedGlobalNetworkPolicy
metadata: {name: closed}
spec: {order: 1, selector: all(), ingress: [{action: Deny}], egress: [{action: Deny}]}
---
kind: StagedGlobalNetworkPolicy
metadata: {name: open}
spec: {stagedAction: Delete}
---
kind: StagedNetworkPolicy
metadata: {name: closed, namespace: default}
spec: {order: 1, types: [Ingress, Egress]}
---
kind: StagedKubernetesNetworkPolicy
metadata: {name: closed, namespace: default}
spec: {podSelector: {}, policyTypes: [Ingress, Egress]}`

// TestStagedPoliciesChangeNothing: a tier that has none but staged policies for an endpoint has no end either (spec 1.8).
func TestStagedPoliciesChangeNothing(t *testing.T) {
	w := newWorld(t).iface("eth0", "10.0.0.1").apply(`
kind: HostEndpoint
metadata: {name: eth0, labels: {role: host}}
spec: {node: ` + here + `, interfaceName: eth0, expectedIPs: [10.0.0.1], profiles: [projectcalico-default-allow]}
---
kind: GlobalNetworkPolicy
metadata: {name: open}
spec: {selector: role == 'host', ingress: [{action: Allow}]}`)
	if len(w.fake.Program().Policies) == 0 {
		t.Fatal("the enforced policy is not in the program")
	}
	resources := parse(t, staged)
	for _, r := range resources {
		w.calc.Update(v3.KeyOf(r), r)
		if d := w.flush(); !d.Empty() {
			t.Errorf("%s changes the program: %+v", v3.KeyOf(r), d)
		}
	}
	for _, r := range resources {
		w.calc.Update(v3.KeyOf(r), nil)
		if d := w.flush(); !d.Empty() {
			t.Errorf("removing %s changes the program: %+v", v3.KeyOf(r), d)
		}
	}
}
