package calc

import (
	"strings"
	"testing"

	v3 "margay/api/v3"
	"margay/ruleset"
)

// The guide's objects, in short.
const (
	master   = "kind: HostEndpoint\nmetadata: {name: kubeadm-master.eth0, labels: {running-calico: 'true'}}\nspec: {node: kubeadm-master, interfaceName: eth0, expectedIPs: [10.100.0.15]}"
	nodeHEP  = "kind: HostEndpoint\nmetadata: {name: kubeadm-node-0.eth0, labels: {running-calico: 'true'}}\nspec: {node: kubeadm-node-0, interfaceName: eth0, expectedIPs: [10.100.0.16]}"
	labelled = "kind: HostEndpoint\nmetadata: {name: kubeadm-node-0.eth0, labels: {running-calico: 'true', calico-prometheus-access: 'true'}}\nspec: {node: kubeadm-node-0, interfaceName: eth0, expectedIPs: [10.100.0.16]}"
	outside  = "kind: GlobalNetworkSet\nmetadata: {name: calico-prometheus-set, labels: {calico-prometheus-access: 'true'}}\nspec: {nets: [172.15.0.0/24]}"
	hosts    = "kind: GlobalNetworkSet\nmetadata: {name: nodes, labels: {calico-prometheus-access: 'true'}}\nspec: {nets: [10.100.0.0/24]}"
	scraper  = "kind: WorkloadEndpoint\nmetadata: {name: kubeadm--node--0-k8s-my--prometheus--pod-eth0, namespace: default, labels: {calico-prometheus-access: 'true'}}\nspec: {node: kubeadm-node-0, orchestrator: k8s, pod: my-prometheus-pod, endpoint: eth0, interfaceName: cali2, ipNetworks: [192.168.0.2/32]}"
	control  = "kind: WorkloadEndpoint\nmetadata: {name: w, namespace: calico-system, labels: {k8s-app: calico-kube-controllers}}\nspec: {node: kubeadm-master, interfaceName: cali1, ipNetworks: [192.168.1.3/32]}"
	pool     = "kind: IPPool\nmetadata: {name: default-pool}\nspec: {cidr: 192.168.0.0/16, natOutgoing: true}"
	spared   = "kind: FelixConfiguration\nmetadata: {name: default}\nspec: {natOutgoingExclusions: IPPoolsAndHostIPs}"
	masked   = `spec.ingress[0].source.notSelector: WorkloadEndpoint(default/kubeadm--node--0-k8s-my--prometheus--pod-eth0) has the label, but IPPool default-pool has natOutgoing`
)

// guideWorld is kubeadm-master after the deny-list steps for calico/node.
func guideWorld(t *testing.T, texts ...string) *world {
	t.Helper()
	w := newWorld(t)
	s := failsafes()
	s.WorkloadPrefixes = []string{"cali"}
	w.calc.SetSettings(s)
	w.iface("lo", "127.0.0.1", "::1").iface("eth0", "10.100.0.15", "fe80::1")
	w.apply("kind: Tier\nmetadata: {name: default}", master, nodeHEP).applyFile("default-host-policy.yaml").applyFile("deny-policy.yaml")
	return w.apply(texts...)
}

// TestGuideWarnings has the guide's defects that an agent can see: what it says, and what makes it silent.
func TestGuideWarnings(t *testing.T) {
	np := func(rules string) string {
		return "kind: NetworkPolicy\nmetadata: {name: restrict-kube-controllers-prometheus, namespace: calico-system}\nspec: {selector: k8s-app == \"calico-kube-controllers\", types: [Ingress], ingress: [" + rules + "]}"
	}
	const (
		own   = "NetworkPolicy(calico-system/restrict-kube-controllers-prometheus): "
		allow = `{action: Allow, protocol: TCP, source: {selector: calico-prometheus-access == "true"}, destination: {ports: [9094]}}`
		deny  = `{action: Deny, protocol: TCP, source: {notSelector: calico-prometheus-access == "true"}, destination: {ports: [9094]}}`
		rest  = `{action: Allow}`
	)
	meant := strings.Replace(allow, "selector:", "namespaceSelector: all(), selector:", 1)
	global := strings.Replace(allow, "selector:", "namespaceSelector: global(), selector:", 1)
	here := strings.Replace(scraper, "namespace: default", "namespace: calico-system", 1)
	for _, test := range []struct {
		name   string
		before []string
		want   []string // what warnings say, none else
	}{
		{"nothing", nil, nil},
		{"G2, G3 deny-list", []string{control, outside, np(deny)}, []string{
			own + "all ingress of WorkloadEndpoint(calico-system/w) is denied at the end of tier default (normal stage): the rules of NetworkPolicy(calico-system/restrict-kube-controllers-prometheus) only Deny",
			own + "spec.ingress[0].source.notSelector: without a namespaceSelector it covers namespace calico-system only: other namespaces, host endpoints, global network sets and unknown addresses never match, so that GlobalNetworkSet(calico-prometheus-set) is not what it means there"}},
		{"G3 stays when G2 is mended", []string{control, np(deny + ", " + rest)}, []string{own + "spec.ingress[0].source.notSelector: without a namespaceSelector"}},
		{"G3 allow-list", []string{control, outside, scraper, np(allow)}, []string{
			own + "spec.ingress[0].source.selector: without a namespaceSelector it covers namespace calico-system only: other namespaces, host endpoints, global network sets and unknown addresses never match, so that GlobalNetworkSet(calico-prometheus-set), WorkloadEndpoint(default/"}},
		{"a selector that means the own namespace", []string{control, outside, here, np(allow)}, nil},
		{"a selector that nothing has yet", []string{control, np(allow)}, nil},
		{"mended", []string{control, outside, scraper, np(meant + ", " + global)}, nil},
		{"G7", []string{pool, scraper}, []string{"GlobalNetworkPolicy(restrict-calico-node-prometheus): " + masked}},
		{"G7 without natOutgoing", []string{strings.Replace(pool, ", natOutgoing: true", "", 1), scraper}, nil},
		{"G7 another pool", []string{strings.Replace(pool, "192.168", "192.169", 1), scraper}, nil},
		{"G7 hosts are spared", []string{pool, scraper, spared}, nil},
		{"G7 the node's endpoint has the label", []string{pool, scraper, labelled}, nil},
		{"G7 a network set holds the nodes", []string{pool, scraper, hosts}, nil},
		{"G7 another set does not", []string{pool, scraper, outside}, []string{masked}},
		{"G7 not on the own node", []string{pool, strings.ReplaceAll(scraper, "node: kubeadm-node-0", "node: kubeadm-master")}, nil},
	} {
		t.Run(test.name, func(t *testing.T) {
			guideWorld(t, test.before...).expectWarnings(t, test.want...)
		})
	}
}

// expectWarnings compares what is warned of with what each warning should begin with or hold.
func (w *world) expectWarnings(t *testing.T, want ...string) {
	t.Helper()
	got := w.warnings()
	if len(got) != len(want) {
		t.Errorf("%d warnings, want %d: %q", len(got), len(want), got)
		return
	}
	for i, text := range want {
		if !strings.Contains(got[i], text) {
			t.Errorf("warning %q, want %q", got[i], text)
		}
	}
}

// TestHostPods: a pod on its host's network has labels that count for nothing (G5).
func TestHostPods(t *testing.T) {
	pod := func(node string, labels map[string]string) v3.HostPod {
		return v3.HostPod{Namespace: "monitoring", Name: "prometheus-0", Node: node, Labels: labels}
	}
	has := map[string]string{"calico-prometheus-access": "true"}
	const warning = "GlobalNetworkPolicy(restrict-calico-node-prometheus): spec.ingress[0].source.notSelector: pod monitoring/prometheus-0 has the label, but is on the network of its host"
	w := guideWorld(t)
	w.calc.SetHostPods([]v3.HostPod{pod("kubeadm-node-0", map[string]string{"app": "x"})})
	w.expectWarnings(t)
	w.calc.SetHostPods([]v3.HostPod{pod("kubeadm-node-0", has)})
	w.expectWarnings(t, warning)
	w.apply(labelled).expectWarnings(t)
	w.apply(nodeHEP).expectWarnings(t, warning)
	w.calc.SetHostPods(nil)
	w.expectWarnings(t)

	w.apply("kind: GlobalNetworkPolicy\nmetadata: {name: typha}\nspec: {selector: k8s-app == \"calico-typha\", types: [Ingress]}")
	w.calc.SetHostPods([]v3.HostPod{pod("kubeadm-node-0", map[string]string{"k8s-app": "calico-typha"})})
	w.expectWarnings(t)
	w.calc.SetHostPods([]v3.HostPod{pod("kubeadm-master", map[string]string{"k8s-app": "calico-typha"})})
	w.expectWarnings(t, "GlobalNetworkPolicy(typha): spec.selector: pod monitoring/prometheus-0 is on the network of its host and has no endpoint")
	w.remove(v3.KindGlobalNetworkPolicy, "", "typha").expectWarnings(t)
}

// TestUncovered: other ways to a port that a host endpoint closes (G6).
func TestUncovered(t *testing.T) {
	const open = "HostEndpoint(kubeadm-master.eth0): what the policies of HostEndpoint(kubeadm-master.eth0) close stays open on "
	w := guideWorld(t, control)
	w.expectWarnings(t)
	w.iface("tunl0", "192.168.1.1").iface("eth1", "fe80::2", "10.1.0.5").iface("cali1", "169.254.1.1").iface("wg0")
	w.expectWarnings(t, open+"eth1 (10.1.0.5), tunl0 (192.168.1.1), which no host endpoint covers")
	// Without anything that is closed there is nothing to circumvent.
	w.remove(v3.KindGlobalNetworkPolicy, "", "restrict-calico-node-prometheus").expectWarnings(t)
	w.applyFile("deny-policy.yaml").apply(strings.NewReplacer("master.eth0", "master.rest", "eth0,", "'*',").Replace(master)).expectWarnings(t)
	w.remove(v3.KindHostEndpoint, "", "kubeadm-master.eth0").expectWarnings(t)

	s := failsafes()
	s.WorkloadPrefixes, s.EndpointToHost = []string{"cali"}, ruleset.HostAccept
	w.calc.SetSettings(s)
	w.flush()
	w.expectWarnings(t, "HostEndpoint(kubeadm-master.rest): what the policies of HostEndpoint(kubeadm-master.rest) close stays open for the workloads of this host, because DefaultEndpointToHostAction is Accept")
	w.calc.RemoveInterface("cali1")
	w.remove(v3.KindWorkloadEndpoint, "calico-system", "w").expectWarnings(t)
}

// TestManyShareAWarning: a policy is warned of once, however many endpoints it is about.
func TestManyShareAWarning(t *testing.T) {
	w := calicoWorld(t).apply("kind: Tier\nmetadata: {name: default}", "kind: NetworkPolicy\nmetadata: {name: p, namespace: ns}\nspec: {types: [Ingress], ingress: [{action: Deny}]}")
	for _, name := range []string{"a", "b", "c", "d", "e", "f", "g"} {
		w.apply(wep(name, "cali"+name, ""))
	}
	w.expectWarnings(t, "all ingress of WorkloadEndpoint(ns/a), WorkloadEndpoint(ns/b), WorkloadEndpoint(ns/c), WorkloadEndpoint(ns/d), WorkloadEndpoint(ns/e) and 2 more is denied")
}

// TestLost: which rules of a policy its next version has not, and which of them are only for other ports now (G1).
func TestLost(t *testing.T) {
	policy := func(rules string) *v3.PolicySpec {
		return &parse(t, "kind: NetworkPolicy\nmetadata: {name: p, namespace: ns}\nspec: {ingress: ["+rules+"]}")[0].(*v3.NetworkPolicy).Spec
	}
	const guide = `{action: Deny, protocol: TCP, source: {notSelector: a == "b"}, destination: {ports: [9091]}}`
	for _, test := range []struct {
		name, is    string
		lost, moved bool
	}{
		{"the same", guide, false, false},
		{"one more", `{action: Allow}, ` + guide, false, false},
		{"other ports", strings.Replace(guide, "9091", "9093", 1), true, true},
		{"other names", strings.Replace(guide, "9091", "metrics", 1), true, true},
		{"more ports", strings.Replace(guide, "9091", "'9000:9092', 9093", 1), false, false},
		{"another action", strings.Replace(guide, "Deny", "Allow", 1), true, false},
		{"no ports", strings.Replace(guide, ", destination: {ports: [9091]}", "", 1), true, false},
		{"gone", "", true, false},
	} {
		t.Run(test.name, func(t *testing.T) {
			lost := Lost(policy(guide), policy(test.is))
			if got := len(lost) == 1; got != test.lost || got && (lost[0].Path != "ingress[0]" || lost[0].Moved() != test.moved) {
				t.Errorf("lost %+v, want lost %v, moved %v", lost, test.lost, test.moved)
			}
		})
	}
}
