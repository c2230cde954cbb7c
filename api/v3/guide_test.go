package v3

import (
	"strings"
	"testing"
)

// TestGuide: the manifests of the guide "Secure Calico Prometheus endpoints" decode and validate as they are printed
// there, and those that do not do what the guide says are warned of.
func TestGuide(t *testing.T) {
	for _, c := range []struct{ name, manifest, keys, warning string }{
		{"default policy", `
apiVersion: projectcalico.org/v3
kind: GlobalNetworkPolicy
metadata:
  name: default-host
spec:
  # Select all Calico nodes.
  selector: running-calico == "true"
  order: 5000
  ingress:
  - action: Allow
  egress:
  - action: Allow
`, "GlobalNetworkPolicy(default-host)", ""},
		{"host endpoints", `
apiVersion: projectcalico.org/v3
kind: HostEndpoint
metadata:
  name: kubeadm-master.eth0
  labels:
    running-calico: 'true'
spec:
  node: kubeadm-master
  interfaceName: eth0
  expectedIPs:
  - 10.100.0.15
---
apiVersion: projectcalico.org/v3
kind: HostEndpoint
metadata:
  name: kubeadm-node-0.eth0
  labels:
    running-calico: 'true'
spec:
  node: kubeadm-node-0
  interfaceName: eth0
  expectedIPs:
  - 10.100.0.16
`, "HostEndpoint(kubeadm-master.eth0) HostEndpoint(kubeadm-node-0.eth0)", "denies everything but failsafe ports"},
		{"deny list", `
# Allow traffic to Prometheus only from sources that are
# labeled as such, but don't impact any other traffic.
apiVersion: projectcalico.org/v3
kind: GlobalNetworkPolicy
metadata:
  name: restrict-calico-node-prometheus
spec:
  # Select all Calico nodes.
  selector: running-calico == "true"
  order: 500
  types:
  - Ingress
  ingress:
  # Deny anything that tries to access the Prometheus port
  # but that doesn't match the necessary selector.
  - action: Deny
    protocol: TCP
    source:
      notSelector: calico-prometheus-access == "true"
    destination:
      ports:
      - 9091
`, "GlobalNetworkPolicy(restrict-calico-node-prometheus)", "only Deny rules"},
		{"network set", `
apiVersion: projectcalico.org/v3
kind: GlobalNetworkSet
metadata:
  name: calico-prometheus-set
  labels:
    calico-prometheus-access: 'true'
spec:
  nets:
  - 172.15.0.0/24
  - 172.101.0.0/24
`, "GlobalNetworkSet(calico-prometheus-set)", ""},
		{"kube-controllers", `
apiVersion: projectcalico.org/v3
kind: NetworkPolicy
metadata:
  name: restrict-kube-controllers-prometheus
  namespace: calico-system
spec:
  # Select kube-controllers.
  selector: k8s-app == "calico-kube-controllers"
  order: 500
  types:
  - Ingress
  ingress:
  - action: Deny
    protocol: TCP
    source:
      notSelector: calico-prometheus-access == "true"
    destination:
      ports:
      - 9094
`, "NetworkPolicy(calico-system/restrict-kube-controllers-prometheus)", "covers namespace calico-system only"},
		{"allow list", `
apiVersion: projectcalico.org/v3
kind: GlobalNetworkPolicy
metadata:
  name: restrict-calico-node-prometheus
spec:
  selector: running-calico == "true"
  order: 500
  types:
  - Ingress
  ingress:
  # Allow traffic from selected sources to the Prometheus port.
  - action: Allow
    protocol: TCP
    source:
      selector: calico-prometheus-access == "true"
    destination:
      ports:
      - 9091
`, "GlobalNetworkPolicy(restrict-calico-node-prometheus)", ""},
	} {
		docs, err := Decode(c.name, []byte(c.manifest))
		if err != nil {
			t.Error(err)
			continue
		}
		var keys, warnings []string
		for i := range docs {
			Default(docs[i].Object)
			if err := docs[i].Locate(Validate(docs[i].Object)); err != nil {
				t.Error(err)
			}
			keys = append(keys, KeyOf(docs[i].Object).String())
			warnings = append(warnings, Warnings(docs[i].Object)...)
		}
		if got := strings.Join(keys, " "); got != c.keys {
			t.Errorf("%s: %s, want %s", c.name, got, c.keys)
		}
		if all := strings.Join(warnings, "\n"); c.warning == "" && all != "" || !strings.Contains(all, c.warning) {
			t.Errorf("%s: warnings are %q, want %q", c.name, all, c.warning)
		}
	}
}
