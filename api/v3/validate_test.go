package v3

import (
	"errors"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestValidateFaults(t *testing.T) {
	const rule = policyHead + "  ingress:\n  - action: Allow\n" // up to line 7
	const np = "apiVersion: projectcalico.org/v3\nkind: NetworkPolicy\nmetadata: {name: p}\nspec:\n"
	// want is what follows "f.yaml: document 1, line ", one fault per line.
	for _, c := range []struct{ name, in, want string }{
		{"port from 0", rule + "    protocol: TCP\n    destination:\n      ports:\n      - 80\n      - 0:456\n",
			`12: GlobalNetworkPolicy(p): spec.ingress[0].destination.ports[1] = "0:456": port range invalid, port number must be between 1 and 65535 (write 1:456)`},
		{"port 0", rule + "    protocol: TCP\n    destination: {notPorts: [0]}\n",
			"9: GlobalNetworkPolicy(p): spec.ingress[0].destination.notPorts[0] = 0: port range invalid, port number must be between 1 and 65535"},
		{"port without protocol", rule + "    destination:\n      ports: [80]\n",
			"9: GlobalNetworkPolicy(p): spec.ingress[0].destination.ports: rules with numeric port or port range must set protocol to TCP or UDP or SCTP (add protocol to the rule)"},
		{"port of ICMP", rule + "    protocol: ICMP\n    source:\n      ports: [a]\n",
			"10: GlobalNetworkPolicy(p): spec.ingress[0].source.ports: rules that specify ports must set protocol to TCP or UDP or SCTP"},
		{"port name", rule + "    destination: {ports: [HTTP]}\n",
			`8: GlobalNetworkPolicy(p): spec.ingress[0].destination.ports[0] = "HTTP": ` + portNameReason},
		{"no ports", rule + "    destination: {ports: [], nets: []}\n",
			"8: GlobalNetworkPolicy(p): spec.ingress[0].destination.nets = []: empty list matches no address (remove nets to match every address, or remove the rule)\n" +
				"8: GlobalNetworkPolicy(p): spec.ingress[0].destination.ports = []: empty list matches no port (remove ports to match every port, or remove the rule)"},
		{"empty service accounts", rule + "    source: {serviceAccounts: {names: []}}\n",
			"8: GlobalNetworkPolicy(p): spec.ingress[0].source.serviceAccounts: neither names nor selector is specified (remove serviceAccounts to match every service account, or remove the rule)"},
		{"protocol in lower case", rule + "    protocol: tcp\n",
			`8: GlobalNetworkPolicy(p): spec.ingress[0].protocol = "tcp": protocol name invalid (write TCP)`},
		{"protocol 0", rule + "    notProtocol: 0\n",
			"8: GlobalNetworkPolicy(p): spec.ingress[0].notProtocol = 0: protocol number invalid (write TCP, UDP, ICMP, ICMPv6, SCTP, UDPLite or a number from 1 to 255)"},
		{"action", policyHead + "  egress:\n  - action: allow\n  - {}\n",
			"7: GlobalNetworkPolicy(p): spec.egress[0].action = \"allow\": action is not known (write Allow, Deny, Log or Pass)\n" +
				"8: GlobalNetworkPolicy(p): spec.egress[1].action: action is required (write Allow, Deny, Log or Pass)"},
		{"host bits", rule + "    source:\n      nets:\n      - 10.0.0.1/24\n",
			`10: GlobalNetworkPolicy(p): spec.ingress[0].source.nets[0] = "10.0.0.1/24": CIDR is not strictly masked (write 10.0.0.0/24)`},
		{"bare address", rule + "    source: {nets: [10.0.0.1]}\n",
			`8: GlobalNetworkPolicy(p): spec.ingress[0].source.nets[0] = "10.0.0.1": invalid CIDR (write 10.0.0.1/32)`},
		{"IPv4 in IPv6", rule + "    source: {nets: ['::ffff:10.0.0.0/104']}\n",
			`8: GlobalNetworkPolicy(p): spec.ingress[0].source.nets[0] = "::ffff:10.0.0.0/104": invalid CIDR`},
		{"both families", rule + "    source: {nets: [10.0.0.0/8]}\n    destination: {notNets: ['feed::/16']}\n",
			`9: GlobalNetworkPolicy(p): spec.ingress[0].destination.notNets[0] = "feed::/16": rule contains both IPv4 and IPv6 CIDRs (make it two rules; the other family is at spec.ingress[0].source.nets[0])`},
		{"selector", policyHead + "  selector: a = \"b\"\n",
			`6: GlobalNetworkPolicy(p): spec.selector = "a = \"b\"": expected == (at offset 2) (write a == "b")`},
		{"selector in two lines", policyHead + "  selector: |\n    a == 'b'\n",
			`6: GlobalNetworkPolicy(p): spec.selector = "a == 'b'\n": unexpected content at end of selector [\n] (at offset 8) (a selector is one line: fold it with >- instead of |)`},
		{"global()", policyHead + "  namespaceSelector: global()\n",
			`6: GlobalNetworkPolicy(p): spec.namespaceSelector = "global()": global() can only be used in an EntityRule namespaceSelector`},
		{"global() with others", rule + "    source:\n      namespaceSelector: global() && has(a)\n",
			`9: GlobalNetworkPolicy(p): spec.ingress[0].source.namespaceSelector = "global() && has(a)": global() cannot be combined with other selectors (write global() alone, in a rule of its own)`},
		{"preDNAT", policyHead + "  preDNAT: true\n  types: [Egress]\n",
			"5: GlobalNetworkPolicy(p): spec.applyOnForward = false: applyOnForward must be true if either preDNAT or doNotTrack is true (write applyOnForward: true)\n" +
				"7: GlobalNetworkPolicy(p): spec.types: preDNAT policy cannot have 'Egress' type (write types: [Ingress])"},
		{"name", "apiVersion: projectcalico.org/v3\nkind: Tier\nmetadata:\n  name: My_Tier\n",
			`4: Tier(My_Tier): metadata.name = "My_Tier": name must consist of lower case alphanumeric characters or '-' (regex: [a-z0-9]([-a-z0-9]*[a-z0-9])?) (write my-tier)`},
		{"no name", "apiVersion: projectcalico.org/v3\nkind: Tier\nmetadata:\n  generateName: a-\n",
			"3: Tier(): metadata.name: name is not specified (generateName is not supported, add metadata.name)"},
		{"namespace too much", "apiVersion: projectcalico.org/v3\nkind: Tier\nmetadata: {name: a,\n  namespace: b}\n",
			`4: Tier(b/a): metadata.namespace = "b": namespace is specified on a resource of the whole cluster (remove metadata.namespace)`},
		{"namespace missing", np, "3: NetworkPolicy(p): metadata.namespace: namespace is not specified on namespaced resource (add metadata.namespace)"},
		{"namespace that leaves its place", strings.Replace(np, "name: p", "name: p, namespace: ../x", 1),
			`3: NetworkPolicy(../x/p): metadata.namespace = "../x": name must consist of lower case alphanumeric characters, '-' or '.' (regex: ` + subdomainFormat + `)`},
		{"label key", hostHead + "  labels:\n    a b: c\nspec: {node: a, interfaceName: eth0}\n",
			"6: HostEndpoint(h): metadata.labels[a b]: name part of the key must consist of alphanumeric characters, '-', '_' or '.', and begin and end with an alphanumeric character"},
		{"label with dots", hostHead + "  labels:\n    a.b/c.d: e-\nspec: {node: a, interfaceName: eth0}\n",
			`6: HostEndpoint(h): metadata.labels[a.b/c.d] = "e-": label value must consist of alphanumeric characters, '-', '_' or '.', and begin and end with an alphanumeric character`},
		{"host endpoint", hostHead + "spec:\n  interfaceName: eth0:1\n  expectedIPs: [10.0.0.1/32, a]\n",
			"5: HostEndpoint(h): spec.node: node must be specified (add node: the name that the agent of that host has)\n" +
				"6: HostEndpoint(h): spec.interfaceName = \"eth0:1\": interface name must have 1 to 15 letters, digits, '_', '.' or '-'\n" +
				"7: HostEndpoint(h): spec.expectedIPs[0] = \"10.0.0.1/32\": invalid IP address (write 10.0.0.1)\n" +
				"7: HostEndpoint(h): spec.expectedIPs[1] = \"a\": invalid IP address"},
		{"workload name", "apiVersion: projectcalico.org/v3\nkind: WorkloadEndpoint\nmetadata: {name: w, namespace: ns}\nspec:\n  {node: a-b, orchestrator: k8s, pod: c, endpoint: eth0, interfaceName: x}\n",
			`3: WorkloadEndpoint(ns/w): metadata.name = "w": the WorkloadEndpoint name does not match the primary identifiers assigned in the Spec: expected name a--b-k8s-c-eth0 (write a--b-k8s-c-eth0)`},
		{"tier", "apiVersion: projectcalico.org/v3\nkind: Tier\nmetadata: {name: default}\nspec:\n  order: 10\n  defaultAction: Allow\n",
			"5: Tier(default): spec.order = 10: default tier order must be 1000000\n" +
				"6: Tier(default): spec.defaultAction = \"Allow\": default action of a tier is Deny or Pass (write Deny or Pass)\n" +
				"6: Tier(default): spec.defaultAction = \"Allow\": The 'default' tier must have default action 'Deny'"},
	} {
		t.Run(c.name, func(t *testing.T) {
			docs, err := Decode("f.yaml", []byte(c.in))
			if err != nil {
				t.Fatal(err)
			}
			Default(docs[0].Object)
			err = docs[0].Locate(Validate(docs[0].Object))
			if err == nil {
				t.Fatal("valid")
			}
			got := strings.ReplaceAll(err.Error(), "f.yaml: document 1, line ", "")
			if diff := cmp.Diff(strings.Split(c.want, "\n"), strings.Split(got, "\n")); diff != "" {
				t.Errorf("-want +got\n%s", diff)
			}
		})
	}
}

func TestValidateLimits(t *testing.T) {
	many := func(n int) *GlobalNetworkPolicy {
		p := &GlobalNetworkPolicy{}
		p.Kind, p.Name = string(KindGlobalNetworkPolicy), "p"
		r := Rule{Action: ActionAllow, Protocol: new(ProtocolTCP)}
		for i := range n {
			r.Source.Ports = append(r.Source.Ports, Port{First: uint16(i + 1), Last: uint16(i + 1)})
		}
		p.Spec.Ingress = []Rule{r}
		return p
	}
	if err := Validate(many(maxPorts)); err != nil {
		t.Error(err)
	}
	if err := Validate(many(maxPorts + 1)); err == nil || !strings.Contains(err.Error(), "at most 50 entries") {
		t.Errorf("51 ports: %v", err)
	}
	long := many(1)
	long.Spec.Selector = `a == "` + strings.Repeat("ä", maxSelector-7) + `"`
	if err := Validate(long); err != nil {
		t.Errorf("a selector of 1024 characters: %v", err)
	}
	long.Spec.Selector += " "
	if err := Validate(long); err == nil {
		t.Error("a selector of 1025 characters is valid")
	}
}

func TestLocateOtherErrors(t *testing.T) {
	d := Document{File: "f", Index: 2, Line: 7}
	plain := errors.New("plain")
	if got := d.Locate(plain); got != plain {
		t.Errorf("got %v", got)
	}
	if d.Locate(nil) != nil {
		t.Error("nil becomes an error")
	}
	one := d.Locate(&FieldError{Path: "spec", Reason: "bad"})
	if one.Error() != "f: document 2, line 7: spec: bad" {
		t.Errorf("got %v", one)
	}
}

func TestFieldErrorIsBounded(t *testing.T) {
	c := &check{}
	c.fail("a", strings.Repeat("ü", 1000), "bad", "")
	if v := c.errs[0].Value; len(v) > maxValue || !strings.HasSuffix(v, "ü...") {
		t.Errorf("value is %q", v)
	}
}

func TestDefaultTypes(t *testing.T) {
	rule := []Rule{{Action: ActionAllow}}
	for _, c := range []struct {
		name            string
		given           []string
		ingress, egress []Rule
		want            string
	}{
		{"no rules", nil, nil, nil, "Ingress"},
		{"empty lists", []string{}, []Rule{}, []Rule{}, "Ingress"},
		{"ingress", nil, rule, nil, "Ingress"},
		{"egress", nil, nil, rule, "Egress"},
		{"egress and an empty list", nil, []Rule{}, rule, "Egress"},
		{"both", nil, rule, rule, "Ingress Egress"},
		{"given", []string{TypeIngress}, rule, rule, "Ingress"},
	} {
		p := &NetworkPolicy{Spec: PolicySpec{Types: c.given, Ingress: c.ingress, Egress: c.egress}}
		Default(p)
		if got := strings.Join(p.Spec.Types, " "); got != c.want {
			t.Errorf("%s: %s, want %s", c.name, got, c.want)
		}
		if p.Labels[LabelTier] != DefaultTier || p.Spec.Tier != DefaultTier {
			t.Errorf("%s: tier %q, label %q", c.name, p.Spec.Tier, p.Labels[LabelTier])
		}
	}
}

// TestDefaultKeepsSharedMaps: objects handed between packages are not changed through maps that copies share.
func TestDefaultKeepsSharedMaps(t *testing.T) {
	labels, annotations := map[string]string{"a": "b"}, map[string]string{"c": "d"}
	p := &NetworkPolicy{}
	p.Name, p.Labels, p.Annotations = "p", labels, annotations
	Default(p)
	if _, err := Encode(p); err != nil {
		t.Fatal(err)
	}
	if len(labels) != 1 || len(annotations) != 1 {
		t.Errorf("labels %v, annotations %v", labels, annotations)
	}
}

func TestWorkloadEndpointName(t *testing.T) {
	for _, c := range []struct {
		spec WorkloadEndpointSpec
		want string
	}{
		{WorkloadEndpointSpec{Node: "x", Orchestrator: "k8s", Pod: "y-2-a", Endpoint: "eth0"}, "x-k8s-y--2--a-eth0"},
		{WorkloadEndpointSpec{Node: "x", Orchestrator: "cni", ContainerID: "c", Endpoint: "e"}, "x-cni-c-e"},
		{WorkloadEndpointSpec{Node: "x", Orchestrator: "libnetwork", Endpoint: "e"}, "x-libnetwork-libnetwork-e"},
		{WorkloadEndpointSpec{Node: "x", Orchestrator: "openstack", Workload: "w", Endpoint: "e"}, "x-openstack-w-e"},
		{WorkloadEndpointSpec{Node: "x", Orchestrator: "k8s", Endpoint: "e"}, "spec.pod: field should be assigned"},
		{WorkloadEndpointSpec{Node: "-x", Orchestrator: "k8s", Pod: "p", Endpoint: "e"}, "spec.node: field must not begin with a '-'"},
		{WorkloadEndpointSpec{Node: "x", Orchestrator: "k8s", Pod: "p-", Endpoint: "e"}, "spec.pod: field must not end with a '-'"},
	} {
		got, err := c.spec.Name()
		if err != nil {
			got = err.Error()
		}
		if got != c.want {
			t.Errorf("%+v: %s, want %s", c.spec, got, c.want)
		}
	}
}

func TestWarnings(t *testing.T) {
	const rule = "  selector: a == 'b'\n  ingress:\n"
	const np = "apiVersion: projectcalico.org/v3\nkind: NetworkPolicy\nmetadata: {name: p, namespace: ns}\nspec:\n"
	// want lists a piece of every warning.
	for _, c := range []struct {
		name, in string
		want     []string
	}{
		{"nothing to say", policyHead + rule + "  - {action: Allow}\n", nil},
		{"only Deny (G2)", policyHead + rule + "  - {action: Deny, protocol: TCP, destination: {ports: [9091]}}\n", []string{"only Deny rules"}},
		{"Deny in an untracked policy", policyHead + rule + "  - {action: Deny}\n  doNotTrack: true\n  applyOnForward: true\n", []string{"spec.doNotTrack"}},
		{"only Log", policyHead + rule + "  - {action: Log}\n", []string{"only Log rules"}},
		{"Deny then Pass", policyHead + rule + "  - {action: Deny, protocol: TCP}\n  - {action: Pass}\n", nil},
		{"direction not listed", policyHead + rule + "  - {action: Allow}\n  types: [Egress]\n", []string{"spec.ingress has no effect"}},
		{"a direction without rules, not listed", policyHead + rule + "  - {action: Allow}\n  egress: []\n", []string{"spec.egress is an empty list and spec.types does not list Egress"}},
		{"a direction without rules, listed", policyHead + rule + "  - {action: Allow}\n  egress: []\n  types: [Ingress, Egress]\n", nil},
		{"http", policyHead + rule + "  - {action: Allow, http: {methods: [GET]}}\n", []string{"spec.ingress[0].http is not enforced"}},
		{"every endpoint", policyHead + "  ingress:\n  - {action: Allow}\n", []string{"applies to host endpoints as well"}},
		{"workloads only", policyHead + "  namespaceSelector: all()\n  ingress:\n  - {action: Allow}\n", nil},
		{"known addresses", policyHead + rule + "  - {action: Allow, source: {selector: all()}}\n", []string{"spec.ingress[0].source.selector is all()"}},
		{"own namespace (G3)", np + rule + "  - {action: Deny, source: {notSelector: x == 'z'}}\n  - {action: Allow}\n", []string{"covers namespace ns only"}},
		{"other namespaces", np + rule + "  - {action: Allow, source: {selector: x == 'z', namespaceSelector: all()}}\n", nil},
		{"host endpoint", hostHead + "spec: {node: a, interfaceName: eth0}\n", []string{"spec.expectedIPs is empty", "denies everything but failsafe ports"}},
		{"open host endpoint", hostHead + "spec: {node: a, expectedIPs: [10.0.0.1], profiles: [projectcalico-default-allow]}\n", nil},
	} {
		docs, err := Decode("f", []byte(c.in))
		if err != nil {
			t.Fatalf("%s: %v", c.name, err)
		}
		Default(docs[0].Object)
		if err := Validate(docs[0].Object); err != nil {
			t.Fatalf("%s: %v", c.name, err)
		}
		got := Warnings(docs[0].Object)
		if len(got) != len(c.want) {
			t.Errorf("%s: %q", c.name, got)
			continue
		}
		for i, want := range c.want {
			if !strings.Contains(got[i], want) || !strings.HasSuffix(got[i], ")") {
				t.Errorf("%s: %q lacks %q or a remedy", c.name, got[i], want)
			}
		}
	}
}
