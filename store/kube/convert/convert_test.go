package convert

import (
	"encoding/json"
	"maps"
	"net/netip"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	networkingv1 "k8s.io/api/networking/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/intstr"
	"sigs.k8s.io/yaml"

	v3 "margay/api/v3"
	"margay/selector"
)

func parse[T any](t testing.TB, text string) *T {
	t.Helper()
	out := new(T)
	if err := yaml.UnmarshalStrict([]byte(text), out); err != nil {
		t.Fatalf("%s: %v", text, err)
	}
	return out
}

const uid = "0f6c3ab1-2c48-4e1d-9b7a-5d1f00c2e8a4"

// TestPod: each case is a pod and the parts of the endpoint that it is about.
func TestPod(t *testing.T) {
	const base = `metadata: {name: web-1, namespace: ns, uid: ` + uid + `, resourceVersion: '7'`
	pod := func(meta, spec, status string) string {
		return base + meta + "}\nspec: {containers: [], nodeName: node-2" + spec + "}\nstatus: {" + status + "}"
	}
	tests := []struct {
		name, pod string
		want      string // JSON path = value, one per line; "none" for no endpoint
	}{
		{"names", pod("", ", serviceAccountName: robot", ""), `
			metadata.name = node--2-k8s-web--1-eth0
			metadata.namespace = ns
			metadata.resourceVersion = 7
			metadata.uid = ` + uid + `
			spec.interfaceName = cali3897ab9c0d7
			spec.orchestrator = k8s
			spec.pod = web-1
			spec.endpoint = eth0
			spec.profiles = ["kns.ns","ksa.ns.robot"]
			spec.serviceAccountName = robot
			spec.ipNetworks = `},
		{"labels", pod(", labels: {a: b, projectcalico.org/namespace: other, projectcalico.org/serviceaccount: admin, pcns.projectcalico.org/name: kube-system, pcsa.x: y}", ", serviceAccountName: robot", ""), `
			metadata.labels = {"a":"b","projectcalico.org/namespace":"ns","projectcalico.org/orchestrator":"k8s","projectcalico.org/serviceaccount":"robot"}`},
		{"a long service account is no label", pod("", ", serviceAccountName: "+strings.Repeat("x", 63), ""), `
			metadata.labels = {"projectcalico.org/namespace":"ns","projectcalico.org/orchestrator":"k8s"}`},
		{"no service account", pod("", "", ""), `spec.profiles = ["kns.ns"]`},
		{"addresses", pod(", annotations: {cni.projectcalico.org/podIPs: 9.9.9.9}", "", "podIP: 10.0.0.1, podIPs: [{ip: 10.0.0.1}, {ip: 'fd00::1'}]"), `spec.ipNetworks = ["10.0.0.1/32","fd00::1/128"]`},
		{"one address", pod("", "", "podIP: 10.0.0.1"), `spec.ipNetworks = ["10.0.0.1/32"]`},
		{"addresses by annotation", pod(", annotations: {cni.projectcalico.org/podIPs: '10.0.0.1/32,fd00::1/128', cni.projectcalico.org/podIP: 9.9.9.9}", "", ""), `spec.ipNetworks = ["10.0.0.1/32","fd00::1/128"]`},
		{"one address by annotation", pod(", annotations: {cni.projectcalico.org/podIP: 10.0.0.1/32}", "", ""), `spec.ipNetworks = ["10.0.0.1/32"]`},
		{"address of AWS", pod(", annotations: {vpc.amazonaws.com/pod-ips: 10.0.0.1}", "", ""), `spec.ipNetworks = ["10.0.0.1/32"]`},
		{"succeeded", pod("", "", "podIP: 10.0.0.1, phase: Succeeded"), `spec.ipNetworks = `},
		{"failed", pod("", "", "podIP: 10.0.0.1, phase: Failed"), `spec.ipNetworks = `},
		{"running", pod("", "", "podIP: 10.0.0.1, phase: Running"), `spec.ipNetworks = ["10.0.0.1/32"]`},
		{"being deleted", pod(", deletionTimestamp: '2026-01-02T03:04:05Z'", "", "podIP: 10.0.0.1"), `spec.ipNetworks = ["10.0.0.1/32"]`},
		{"address taken away", pod(", deletionTimestamp: '2026-01-02T03:04:05Z', annotations: {cni.projectcalico.org/podIP: ''}", "", "podIP: 10.0.0.1"), `spec.ipNetworks = `},
		{"annotation is empty before it is set", pod(", annotations: {cni.projectcalico.org/podIP: ''}", "", "podIP: 10.0.0.1"), `spec.ipNetworks = ["10.0.0.1/32"]`},
		{"not scheduled", base + "}\nspec: {containers: []}", "none"},
		{"host network", pod("", ", hostNetwork: true", "podIP: 10.0.0.1"), "none"},
		{"ports", base + `}
spec:
  nodeName: n
  containers:
  - {name: a, ports: [{name: http, containerPort: 80}, {containerPort: 81}, {containerPort: 82, hostPort: 8082, hostIP: 10.1.1.1, protocol: UDP}]}
  - {name: b, ports: [{name: s, containerPort: 83, protocol: SCTP}, {name: bad, containerPort: 99999}, {name: icmp, containerPort: 1, protocol: ICMP}]}
  initContainers: [{name: c, ports: [{name: init, containerPort: 84, protocol: TCP}]}]`, `spec.ports = [{"name":"http","protocol":"TCP","port":80,"hostPort":0,"hostIP":""},{"name":"","protocol":"UDP","port":82,"hostPort":8082,"hostIP":"10.1.1.1"},{"name":"s","protocol":"SCTP","port":83,"hostPort":0,"hostIP":""},{"name":"init","protocol":"TCP","port":84,"hostPort":0,"hostIP":""}]`},
		{"container", pod(", annotations: {cni.projectcalico.org/containerID: abc, k8s.v1.cni.cncf.io/network-status: s}", "", ""), `
			spec.containerID = abc
			metadata.annotations = {"k8s.v1.cni.cncf.io/network-status":"s"}`},
		{"floating", pod(`, annotations: {cni.projectcalico.org/floatingIPs: '["5.5.5.5","fd05::5"]'}`, "", "podIPs: [{ip: 10.0.0.1}]"), `spec.ipNATs = [{"internalIP":"10.0.0.1","externalIP":"5.5.5.5"}]`},
		{"floating without address", pod(`, annotations: {cni.projectcalico.org/floatingIPs: '["5.5.5.5"]'}`, "", ""), `spec.ipNATs = `},
		{"sources", pod(`, annotations: {cni.projectcalico.org/allowedSourcePrefixes: '["8.8.8.8/8","fd08::/64"]'}`, "", ""), `spec.allowSpoofedSourcePrefixes = ["8.0.0.0/8","fd08::/64"]`},
		{"quality of service", pod(`, annotations: {kubernetes.io/ingress-bandwidth: 1M, qos.projectcalico.org/ingressBandwidth: 2M, qos.projectcalico.org/egressPacketRate: '99999', qos.projectcalico.org/egressBurst: bogus, qos.projectcalico.org/dscp: ef}`, "", ""),
			`spec.qosControls = {"ingressBandwidth":2000000,"ingressBurst":4294967296,"egressPacketRate":10000,"egressPacketBurst":5,"dscp":"ef"}`},
	}
	for _, test := range tests {
		w, err := Pod(parse[corev1.Pod](t, test.pod), DefaultInterfacePrefix)
		if err != nil {
			t.Errorf("%s: %v", test.name, err)
		} else if test.want == "none" != (w == nil) {
			t.Errorf("%s: endpoint %v", test.name, w)
		} else if w != nil {
			checkPaths(t, test.name, w, test.want)
			checkValid(t, test.name, w)
		}
	}
}

// checkPaths compares parts of the JSON form.
func checkPaths(t *testing.T, name string, object any, want string) {
	t.Helper()
	for line := range strings.SplitSeq(strings.TrimSpace(want), "\n") {
		path, value, _ := strings.Cut(strings.TrimSpace(line), " =")
		if got := at(t, object, path); got != strings.TrimSpace(value) {
			t.Errorf("%s: %s is %s, want %s", name, path, got, strings.TrimSpace(value))
		}
	}
}

func at(t *testing.T, object any, path string) string {
	t.Helper()
	data, err := json.Marshal(object)
	if err != nil {
		t.Fatal(err)
	}
	raw := json.RawMessage(data)
	for part := range strings.SplitSeq(path, ".") {
		var m map[string]json.RawMessage
		if err := json.Unmarshal(raw, &m); err != nil {
			t.Fatalf("%s: %v", path, err)
		}
		raw = m[part]
	}
	var text string
	if json.Unmarshal(raw, &text) == nil {
		return text
	}
	return string(raw)
}

// checkValid: what is converted can be stored.
func checkValid(t *testing.T, name string, r v3.Resource) {
	t.Helper()
	if err := v3.Validate(r); err != nil {
		t.Errorf("%s: cannot be stored: %v", name, err)
	}
	data, err := v3.Encode(r)
	if err != nil {
		t.Fatal(err)
	}
	r.SetResourceVersion("")
	back, err := v3.DecodeStored(v3.KeyOf(r).Kind, data)
	if err != nil {
		t.Errorf("%s: what is stored cannot be read: %v", name, err)
	} else if diff := cmp.Diff(r, back); diff != "" {
		t.Errorf("%s: changes when it is stored:\n%s", name, diff)
	}
}

func TestPodErrors(t *testing.T) {
	for annotations, want := range map[string]string{
		`{cni.projectcalico.org/podIPs: 'x'}`:                              `metadata.annotations[cni.projectcalico.org/podIPs]: "x"`,
		`{cni.projectcalico.org/podIP: '10.0.0.0/8'}`:                      `more than one address`,
		`{cni.projectcalico.org/floatingIPs: 'x'}`:                         `no JSON list`,
		`{cni.projectcalico.org/allowedSourcePrefixes: '["x"]'}`:           `"x"`,
		`{cni.projectcalico.org/podIP: '::ffff:10.0.0.1'}`:                 `IPv4 address in IPv6 notation`,
		`{cni.projectcalico.org/podIP: 1.1.1.1, vpc.amazonaws.com/a: '1'}`: ``,
	} {
		_, err := Pod(parse[corev1.Pod](t, "metadata: {name: p, namespace: n, annotations: "+annotations+"}\nspec: {nodeName: x, containers: []}"), "cali")
		if want == "" && err != nil || want != "" && (err == nil || !strings.Contains(err.Error(), want)) {
			t.Errorf("%s: %v, want %q", annotations, err, want)
		}
	}
}

func TestProfiles(t *testing.T) {
	ns := Namespace(parse[corev1.Namespace](t, `metadata: {name: blue, uid: `+uid+`, resourceVersion: '5', labels: {team: b}}`))
	checkPaths(t, "namespace", ns, `
		metadata.name = kns.blue
		metadata.resourceVersion = 5
		spec.labelsToApply = {"pcns.projectcalico.org/name":"blue","pcns.team":"b"}
		spec.ingress = [{"action":"Allow","source":{},"destination":{}}]
		spec.egress = [{"action":"Allow","source":{},"destination":{}}]`)
	sa := ServiceAccount(parse[corev1.ServiceAccount](t, `metadata: {name: robot, namespace: blue, labels: {projectcalico.org/name: fake, role: r}}`))
	checkPaths(t, "service account", sa, `
		metadata.name = ksa.blue.robot
		metadata.namespace =
		spec.labelsToApply = {"pcsa.projectcalico.org/name":"robot","pcsa.role":"r"}
		spec.ingress =`)
	checkValid(t, "namespace", ns)
	checkValid(t, "service account", sa)
	if UID(ns.UID) != uid || ns.UID == uid || UID("x") != "x" || UID(types.UID("")) != "" {
		t.Errorf("uid %s", ns.UID)
	}
}

func TestNode(t *testing.T) {
	const text = `
metadata:
  name: n1
  labels: {zone: a, shared: k8s}
  annotations:
    projectcalico.org/IPv4Address: 10.0.0.1/24
    projectcalico.org/IPv6Address: bogus
    projectcalico.org/ASNumber: '64512'
    projectcalico.org/IPv4IPIPTunnelAddr: 192.168.0.1
    projectcalico.org/IPv4VXLANTunnelAddr: 192.168.0.2
    projectcalico.org/IPv4WireguardInterfaceAddr: 192.168.0.3
    projectcalico.org/Interfaces: '[{"name":"eth0","addresses":["10.0.0.1","x","y"]}]'
    projectcalico.org/labels: '{"own":"1","shared":"calico"}'
    projectcalico.org/annotations: '{"note":"n"}'
    other: o
spec: {podCIDRs: [10.244.0.0/24]}
status: {addresses: [{type: InternalIP, address: 10.0.0.1}, {type: ExternalIP, address: 1.2.3.4}, {type: Hostname, address: n1}]}`
	k8s := parse[corev1.Node](t, text)
	n := Node(k8s)
	checkPaths(t, "node", n, `
		metadata.labels = {"own":"1","shared":"k8s","zone":"a"}
		metadata.annotations = {"note":"n","projectcalico.org/kube-labels":"{\"shared\":\"k8s\",\"zone\":\"a\"}"}
		spec.bgp = {"asNumber":64512,"ipv4Address":"10.0.0.1/24","ipv4IPIPTunnelAddr":"192.168.0.1"}
		spec.ipv4VXLANTunnelAddr = 192.168.0.2
		spec.wireguard = {"interfaceIPv4Address":"192.168.0.3"}
		spec.orchRefs = [{"nodeName":"n1","orchestrator":"k8s"}]
		spec.interfaces = [{"name":"eth0","addresses":["10.0.0.1"]}]
		spec.addresses = [{"address":"10.0.0.1/24","type":"CalicoNodeIP"},{"address":"10.0.0.1","type":"InternalIP"},{"address":"1.2.3.4","type":"ExternalIP"}]
		status.podCIDRs = ["10.244.0.0/24"]`)
	checkValid(t, "node", n)
	n.Spec.BGP, n.Spec.Wireguard = nil, nil
	n.Spec.IPv4VXLANTunnelAddr = "192.168.0.9"
	n.Labels = map[string]string{"own": "2", "zone": "changed", "shared": "x"}
	before := maps.Clone(k8s.Annotations)
	SetNode(n, k8s)
	checkPaths(t, "written", k8s, `metadata.annotations = {"other":"o","projectcalico.org/IPv4VXLANTunnelAddr":"192.168.0.9","projectcalico.org/Interfaces":"[{\"name\":\"eth0\",\"addresses\":[\"10.0.0.1\"]}]","projectcalico.org/annotations":"{\"note\":\"n\"}","projectcalico.org/labels":"{\"own\":\"2\"}"}`)
	if k8s.Labels["zone"] != "a" || before["other"] != "o" {
		t.Errorf("labels of Kubernetes: %v", k8s.Labels)
	}
	again := Node(k8s)
	SetNode(again, k8s)
	if diff := cmp.Diff(again, Node(k8s)); diff != "" {
		t.Errorf("writing what was read changes it:\n%s", diff)
	}
	if empty := Node(&corev1.Node{}); empty.Spec.BGP != nil || empty.Spec.Wireguard != nil {
		t.Errorf("empty node: %+v", empty.Spec)
	}
}

func TestServiceEndpoints(t *testing.T) {
	slice := func(text string) *discoveryv1.EndpointSlice { return parse[discoveryv1.EndpointSlice](t, text) }
	a := slice(`{metadata: {name: a, namespace: n, labels: {kubernetes.io/service-name: svc}}, addressType: IPv4, endpoints: [{addresses: [10.0.0.2, 10.0.0.1, name]}], ports: [{port: 80}, {port: 53, protocol: UDP}, {}]}`)
	b := slice(`{metadata: {name: b}, addressType: IPv6, endpoints: [{addresses: ['fd00::1'], conditions: {ready: false}}], ports: []}`)
	got := ServiceEndpoints(a, b, a)
	want := []v3.ServiceEndpoint{
		{Addr: "10.0.0.1", Protocol: 6, Port: 80}, {Addr: "10.0.0.1", Protocol: 17, Port: 53}, {Addr: "10.0.0.2", Protocol: 6, Port: 80},
		{Addr: "10.0.0.2", Protocol: 17, Port: 53}, {Addr: "fd00::1"},
	}
	if !slices.Equal(got, want) {
		t.Errorf("endpoints %v, want %v", got, want)
	}
	if ServiceOf(a) != "svc" || ServiceOf(b) != "" || ServiceEndpoints() != nil || ServiceEndpoints(slice(`{metadata: {name: c}, addressType: IPv4, endpoints: []}`)) == nil {
		t.Error("names or emptiness")
	}
}

func TestNetworkPolicy(t *testing.T) {
	np := parse[networkingv1.NetworkPolicy](t, `
metadata: {name: web, namespace: ns, uid: `+uid+`, resourceVersion: '9', labels: {a: b}}
spec:
  podSelector: {matchLabels: {app: web}}
  policyTypes: [Ingress, Egress]
  ingress:
  - {from: [{podSelector: {}}, {namespaceSelector: {}}, {ipBlock: {cidr: 10.0.0.0/8, except: [10.1.0.0/16]}}], ports: [{port: http}, {port: 8000, endPort: 8010}]}
  - {ports: [{port: 0}]}
  - {from: [{}]}
  egress: [{}]`)
	p, dropped := NetworkPolicy(np)
	const k8s = "projectcalico.org/orchestrator == 'k8s'"
	rule := func(source string) string {
		return `{"action":"Allow","protocol":"TCP","source":{` + source + `},"destination":{"ports":["http","8000:8010"]}}`
	}
	checkPaths(t, "policy", p, `
		metadata.name = knp.default.web
		metadata.namespace = ns
		metadata.resourceVersion = 9
		metadata.labels = {"projectcalico.org/tier":"default"}
		spec.tier = default
		spec.order = 1000
		spec.selector = `+k8s+` && app == 'web'
		spec.types = ["Ingress","Egress"]
		spec.ingress = [`+rule(`"selector":"`+k8s+`"`)+`,`+rule(`"selector":"`+k8s+`","namespaceSelector":"all()"`)+`,`+rule(`"nets":["10.0.0.0/8"],"notNets":["10.1.0.0/16"]`)+`]
		spec.egress = [{"action":"Allow","source":{},"destination":{}}]`)
	checkValid(t, "policy", p)
	want := []string{"spec.ingress[1]: ports[0]: ports 0 to 0 are no range from 1 to 65535", "spec.ingress[2]: peers[0]: it has no field that is known"}
	if !slices.Equal(dropped, want) {
		t.Errorf("dropped %q, want %q", dropped, want)
	}
}

// TestManyPorts: a rule of Kubernetes may have more ports than one of ours.
func TestManyPorts(t *testing.T) {
	np := &networkingv1.NetworkPolicy{}
	np.Name, np.Namespace = "many", "ns"
	var ports []networkingv1.NetworkPolicyPort
	for i := range int32(120) {
		port := intstr.FromInt32(2*i + 1)
		ports = append(ports, networkingv1.NetworkPolicyPort{Port: &port})
	}
	np.Spec.Ingress = []networkingv1.NetworkPolicyIngressRule{{Ports: ports}}
	p, _ := NetworkPolicy(np)
	checkValid(t, "policy", p)
	count := 0
	for _, r := range p.Spec.Ingress {
		count += len(r.Destination.Ports)
	}
	if len(p.Spec.Ingress) != 3 || count != 120 {
		t.Errorf("%d rules with %d ports", len(p.Spec.Ingress), count)
	}
}

// TestClusterPolicy: each case is one rule and what becomes of it.
func TestClusterPolicy(t *testing.T) {
	const k8s = "projectcalico.org/orchestrator == 'k8s'"
	tests := []struct {
		name, direction, rule string
		want                  string // JSON of the rules
		failed                string // part of what is told
	}{
		{"namespaces", "ingress", `{action: Accept, from: [{namespaces: {matchLabels: {a: b}}}]}`, `[{"action":"Allow","source":{"namespaceSelector":"a == 'b'"},"destination":{}}]`, ""},
		{"all namespaces", "ingress", `{name: r, action: Deny, from: [{namespaces: {}}]}`, `[{"action":"Deny","source":{"namespaceSelector":"all()"},"destination":{},"metadata":{"annotations":{"name":"r"}}}]`, ""},
		{"pods", "egress", `{action: Pass, to: [{pods: {namespaceSelector: {}, podSelector: {matchLabels: {a: b}}}}]}`, `[{"action":"Pass","source":{},"destination":{"selector":"` + k8s + ` \u0026\u0026 a == 'b'","namespaceSelector":"all()"}}]`, ""},
		{"networks", "egress", `{action: Deny, to: [{networks: [10.0.0.1/8, 'fd00::/8']}], protocols: [{tcp: {destinationPort: {number: 80}}}, {tcp: {destinationPort: {range: {start: 90, end: 99}}}}, {udp: {}}]}`,
			`[{"action":"Deny","protocol":"TCP","source":{},"destination":{"nets":["10.0.0.0/8","fd00::/8"],"ports":[80,"90:99"]}},{"action":"Deny","protocol":"UDP","source":{},"destination":{"nets":["10.0.0.0/8","fd00::/8"]}}]`, ""},
		{"named port", "ingress", `{action: Accept, from: [{namespaces: {}}], protocols: [{destinationNamedPort: http}, {sctp: {destinationPort: {number: 7}}}]}`,
			`[{"action":"Allow","source":{"namespaceSelector":"all()"},"destination":{"ports":["http"]}},{"action":"Allow","protocol":"SCTP","source":{"namespaceSelector":"all()"},"destination":{"ports":[7]}}]`, ""},
		{"nodes", "egress", `{action: Accept, to: [{nodes: {}}]}`, `null`, "spec.egress[0]: peer 0: nodes cannot be peers"},
		{"nodes denied", "egress", `{action: Deny, to: [{nodes: {}}]}`, `[{"action":"Deny","source":{},"destination":{}}]`, "nodes"},
		{"domains passed", "egress", `{action: Pass, to: [{domainNames: [a.b]}]}`, `[{"action":"Deny","source":{},"destination":{}}]`, "domain names"},
		{"networks as a source", "ingress", `{action: Accept, from: [{networks: [10.0.0.0/8]}]}`, `null`, "no field that is known"},
		{"bad CIDR", "egress", `{action: Deny, to: [{networks: [x]}]}`, `[{"action":"Deny","source":{},"destination":{}}]`, "no CIDR"},
		{"unknown action", "ingress", `{action: Reject, from: [{namespaces: {}}]}`, `[{"action":"Deny","source":{},"destination":{}}]`, "action"},
		{"no peer", "ingress", `{action: Accept}`, `null`, "no peer"},
		{"unknown protocol", "ingress", `{action: Accept, from: [{namespaces: {}}], protocols: [{}]}`, `null`, "protocols[0]"},
		{"port 0", "ingress", `{action: Deny, from: [{namespaces: {}}], protocols: [{tcp: {destinationPort: {number: 70000}}}]}`, `[{"action":"Deny","source":{},"destination":{}}]`, "70000"},
	}
	for _, test := range tests {
		cnp := parse[ClusterNetworkPolicy](t, "metadata: {name: x.y}\nspec: {tier: Admin, priority: 5, subject: {namespaces: {}}, "+test.direction+": ["+test.rule+"]}")
		p, failed, err := ClusterPolicy(cnp)
		if err != nil {
			t.Errorf("%s: %v", test.name, err)
			continue
		}
		rules, types := p.Spec.Ingress, []string{"Ingress"}
		if test.direction == "egress" {
			rules = p.Spec.Egress
			if len(rules) > 0 {
				types = []string{"Egress"}
			}
		}
		got, _ := json.Marshal(rules)
		if string(got) != test.want || !reflect.DeepEqual(p.Spec.Types, types) {
			t.Errorf("%s: rules %s of %v, want %s", test.name, got, p.Spec.Types, test.want)
		}
		if all := strings.Join(failed, "; "); (test.failed == "") != (all == "") || !strings.Contains(all, test.failed) {
			t.Errorf("%s: told %q, want %q", test.name, all, test.failed)
		}
	}
}

func TestClusterPolicySubject(t *testing.T) {
	p, _, err := ClusterPolicy(parse[ClusterNetworkPolicy](t, `
metadata: {name: low, resourceVersion: '3'}
spec: {tier: Baseline, priority: 1000, subject: {pods: {namespaceSelector: {matchLabels: {a: b}}, podSelector: {matchLabels: {c: d}}}}, ingress: [{action: Deny, from: [{namespaces: {}}]}]}`))
	if err != nil {
		t.Fatal(err)
	}
	checkPaths(t, "baseline", p, `
		metadata.name = kcnp.kube-baseline.low
		metadata.labels = {"projectcalico.org/tier":"kube-baseline"}
		spec.tier = kube-baseline
		spec.order = 1000
		spec.namespaceSelector = a == 'b'
		spec.selector = projectcalico.org/orchestrator == 'k8s' && c == 'd'`)
	if name := (&ClusterNetworkPolicy{Spec: ClusterPolicySpec{Tier: "Other"}}).TierName(); name != "other" {
		t.Errorf("an unknown tier is %s", name)
	}
	for _, spec := range []string{`{tier: Other, subject: {namespaces: {}}}`, `{tier: Admin, subject: {}}`} {
		if p, _, err := ClusterPolicy(parse[ClusterNetworkPolicy](t, "metadata: {name: x}\nspec: "+strings.Replace(spec, "{", "{priority: 0, ", 1))); err == nil || p != nil {
			t.Errorf("%s: %v, %v", spec, p, err)
		}
	}
}

// FuzzPod: no pod makes the conversion panic, and an endpoint keeps its forced labels and single addresses.
func FuzzPod(f *testing.F) {
	f.Add([]byte(`{"metadata":{"name":"a","namespace":"n","annotations":{"cni.projectcalico.org/podIP":"1.1.1.1"}},"spec":{"nodeName":"x"}}`))
	f.Add([]byte(`{"metadata":{"name":"a-b","labels":{"pcns.x":"y"}},"spec":{"nodeName":"x","containers":[{"ports":[{"containerPort":-1,"name":"x"}]}]},"status":{"podIPs":[{"ip":"::1%lo"}]}}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		var pod corev1.Pod
		if json.Unmarshal(data, &pod) != nil {
			return
		}
		w, err := Pod(&pod, DefaultInterfacePrefix)
		if err != nil || w == nil {
			return
		}
		if w.Labels[v3.LabelNamespace] != pod.Namespace || w.Labels[v3.LabelOrchestrator] != "k8s" {
			t.Fatalf("labels %v", w.Labels)
		}
		for _, text := range w.Spec.IPNetworks {
			if p := netip.MustParsePrefix(text); !p.IsSingleIP() {
				t.Fatalf("network %s", text)
			}
		}
	})
}

// FuzzNetworkPolicy: no policy makes the conversion panic; whatever text comes in stays inside its term, so that what can be
// read selects pods of Kubernetes alone.
func FuzzNetworkPolicy(f *testing.F) {
	f.Add([]byte(`{"metadata":{"name":"a"},"spec":{"podSelector":{"matchLabels":{"a":"b"}},"ingress":[{"from":[{"podSelector":{"matchLabels":{"x' || all() || a == '":"'\""}}}],"ports":[{"port":80,"endPort":90}]}]}}`))
	f.Add([]byte(`{"spec":{"podSelector":{"matchExpressions":[{"key":"a || all()","operator":"In","values":["' || \"x"]}]},"egress":[{"to":[{"ipBlock":{"cidr":"::/0","except":["x"]}}]}]}}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		var np networkingv1.NetworkPolicy
		if json.Unmarshal(data, &np) != nil {
			return
		}
		p, _ := NetworkPolicy(&np)
		selectors := []string{p.Spec.Selector}
		for _, r := range slices.Concat(p.Spec.Ingress, p.Spec.Egress) {
			if r.Action != v3.ActionAllow {
				t.Fatalf("rule %+v", r)
			}
			for _, e := range []v3.EntityRule{r.Source, r.Destination} {
				if e.Selector != "" {
					selectors = append(selectors, e.Selector)
				}
			}
		}
		for _, text := range selectors {
			if s, err := selector.Parse(text); err == nil && s.Matches(selector.Map{}) {
				t.Fatalf("%q selects what is no pod of Kubernetes", text)
			}
		}
	})
}

func FuzzClusterPolicy(f *testing.F) {
	f.Add([]byte(`{"spec":{"tier":"Admin","subject":{"namespaces":{}},"ingress":[{"action":"Deny","from":[{}]}]}}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		if cnp, err := DecodeClusterNetworkPolicy(data); err == nil {
			if p, _, err := ClusterPolicy(cnp); (err == nil) != (p != nil) {
				t.Fatalf("%v, %v", p, err)
			}
		}
	})
}
