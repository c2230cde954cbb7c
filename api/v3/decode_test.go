package v3

import (
	"fmt"
	"maps"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// policy is the beginning of a document up to line 5, to be followed by fields of its spec.
const policyHead = "apiVersion: projectcalico.org/v3\nkind: GlobalNetworkPolicy\nmetadata:\n  name: p\nspec:\n"

const hostHead = "apiVersion: projectcalico.org/v3\nkind: HostEndpoint\nmetadata:\n  name: h\n"

func TestDecodeFaults(t *testing.T) {
	// want is what the error says after "f.yaml: ", one fault per line.
	for _, c := range []struct{ name, in, want string }{
		{"unknown field", policyHead + "  selektor: all()\n",
			"document 1, line 6: GlobalNetworkPolicy(p): spec.selektor = \"all()\": field in document is not recognized or is in the wrong location: selektor (did you mean selector?)"},
		{"wrong place", hostHead + "node: a\nspec:\n  interfaceName: eth0\n",
			"document 1, line 5: HostEndpoint(h): node = \"a\": field in document is not recognized or is in the wrong location: node (did you mean spec.node? Check the indentation)"},
		{"two places", policyHead + "  ingress:\n  - action: Allow\n    ports: [80]\n",
			"document 1, line 8: GlobalNetworkPolicy(p): spec.ingress[0].ports: field in document is not recognized or is in the wrong location: ports (did you mean destination.ports or source.ports? Check the indentation)"},
		{"duplicate key", policyHead + "  order: 1\n  order: 2\n",
			"document 1, line 7: GlobalNetworkPolicy(p): spec.order = 2: key is there twice, first in line 6 (remove one of them)"},
		{"duplicate in other case", policyHead + "  order: 1\n  Order: 2\n",
			"document 1, line 7: GlobalNetworkPolicy(p): spec.order = 2: key is there twice, first in line 6 (remove one of them)"},
		{"duplicate label", hostHead + "  labels:\n    a: b\n    a: c\nspec: {}\n",
			"document 1, line 7: HostEndpoint(h): metadata.labels[a] = \"c\": key is there twice, first in line 6 (remove one of them)"},
		{"respelled boolean label", hostHead + "  labels:\n    running-calico: True\n",
			`document 1, line 6: HostEndpoint(h): metadata.labels[running-calico] = True: value is a boolean where a text is wanted (quote it: "True")`},
		{"YAML 1.1 boolean", hostHead + "  labels:\n    a: yes\n",
			`document 1, line 6: HostEndpoint(h): metadata.labels[a] = yes: value is a boolean where a text is wanted (quote it: "yes")`},
		{"number for text", hostHead + "spec:\n  node: 1.10\n",
			`document 1, line 6: HostEndpoint(h): spec.node = 1.10: value is a number where a text is wanted (quote it: "1.10")`},
		{"binary", hostHead + "spec:\n  node: !!binary YQ==\n",
			`document 1, line 6: HostEndpoint(h): spec.node = YQ==: value is a value with tag !!binary where a text is wanted (quote it: "YQ==")`},
		{"boolean key", hostHead + "  labels:\n    on: a\n",
			`document 1, line 6: HostEndpoint(h): metadata.labels = on: key is a boolean where a text is wanted (quote it: "on")`},
		{"text for number", policyHead + "  order: high\n",
			`document 1, line 6: GlobalNetworkPolicy(p): spec.order = "high": value is a text where a number is wanted`},
		{"quoted number", policyHead + "  order: \"5\"\n",
			`document 1, line 6: GlobalNetworkPolicy(p): spec.order = "5": value is a text where a number is wanted`},
		{"infinite", policyHead + "  order: .inf\n",
			"document 1, line 6: GlobalNetworkPolicy(p): spec.order = .inf: value is no finite number in decimal notation"},
		{"octal", hostHead + "spec:\n  ports:\n  - {name: a, protocol: TCP, port: 010}\n",
			"document 1, line 7: HostEndpoint(h): spec.ports[0].port = 010: value is no whole number in decimal notation"},
		{"too large", hostHead + "spec:\n  ports:\n  - {name: a, protocol: TCP, port: 70000}\n",
			"document 1, line 7: HostEndpoint(h): spec.ports[0].port = 70000: number must be between 0 and 65535"},
		{"list for text", policyHead + "  selector: [a]\n",
			"document 1, line 6: GlobalNetworkPolicy(p): spec.selector: value is a list where a text is wanted"},
		{"text for list", hostHead + "spec:\n  expectedIPs: 10.0.0.1\n",
			`document 1, line 6: HostEndpoint(h): spec.expectedIPs = "10.0.0.1": value is a text where a list is wanted`},
		{"mapping for list", policyHead + "  ingress:\n    action: Allow\n",
			"document 1, line 7: GlobalNetworkPolicy(p): spec.ingress: value is a mapping where a list is wanted"},
		{"text for mapping", policyHead + "  ingress:\n  - Allow\n",
			`document 1, line 7: GlobalNetworkPolicy(p): spec.ingress[0] = "Allow": value is a text where a mapping is wanted`},
		{"text for boolean", policyHead + "  preDNAT: \"true\"\n",
			`document 1, line 6: GlobalNetworkPolicy(p): spec.preDNAT = "true": value is a text where true or false is wanted`},
		{"port range backwards", policyHead + "  ingress:\n  - action: Allow\n    protocol: TCP\n    destination:\n      ports:\n      - 80\n      - 200:100\n",
			`document 1, line 12: GlobalNetworkPolicy(p): spec.ingress[0].destination.ports[1] = "200:100": minimum port number (200) is greater than maximum port number (100) in port range (write 100:200)`},
		{"port too large", policyHead + "  ingress:\n  - action: Allow\n    protocol: TCP\n    destination: {ports: [70000]}\n",
			`document 1, line 9: GlobalNetworkPolicy(p): spec.ingress[0].destination.ports[0] = 70000: port range invalid, port number must be between 1 and 65535 (write a port like 80, a range like 1000:2000 or a name like http)`},
		{"port is a mapping", policyHead + "  ingress:\n  - action: Allow\n    protocol: TCP\n    destination: {ports: [{a: b}]}\n",
			`document 1, line 9: GlobalNetworkPolicy(p): spec.ingress[0].destination.ports[0]: port range invalid, port number must be between 1 and 65535 (write a port like 80, a range like 1000:2000 or a name like http)`},
		{"selector without value", policyHead + "  selector:\n",
			`document 1, line 6: GlobalNetworkPolicy(p): spec.selector: key has no value (remove the key, or write "" for the empty text)`},
		{"ports without value", policyHead + "  ingress:\n  - action: Allow\n    protocol: TCP\n    destination:\n      ports:\n",
			"document 1, line 10: GlobalNetworkPolicy(p): spec.ingress[0].destination.ports: key has no value (give it a value or remove the key)"},
		{"source without value", policyHead + "  ingress:\n  - action: Allow\n    source:\n",
			"document 1, line 8: GlobalNetworkPolicy(p): spec.ingress[0].source: key has no value (give it a value or remove the key)"},
		{"empty entry", hostHead + "spec:\n  expectedIPs:\n  -\n",
			"document 1, line 7: HostEndpoint(h): spec.expectedIPs[0]: list entry has no value (remove it)"},
		{"bad time", hostHead + "  creationTimestamp: yesterday\n",
			`document 1, line 5: HostEndpoint(h): metadata.creationTimestamp = "yesterday": parsing time "yesterday" as "2006-01-02T15:04:05Z07:00": cannot parse "yesterday" as "2006"`},
		{"unknown kind", "apiVersion: projectcalico.org/v3\nkind: NetworkPolice\nmetadata: {name: p}\n",
			`document 1, line 2: kind = "NetworkPolice": kind is not known (did you mean NetworkPolicy?)`},
		{"kind in other case", "apiVersion: projectcalico.org/v3\nkind: tier\nmetadata: {name: p}\n",
			`document 1, line 2: kind = "tier": kind is not known (did you mean Tier?)`},
		{"no kind", "apiVersion: projectcalico.org/v3\n",
			"document 1, line 1: kind: object has no kind (add apiVersion: projectcalico.org/v3 and kind)"},
		{"wrong apiVersion", "apiVersion: crd.projectcalico.org/v1\nkind: Tier\nmetadata: {name: t}\n",
			`document 1, line 1: Tier(t): apiVersion = "crd.projectcalico.org/v1": apiVersion is not known (write projectcalico.org/v3)`},
		{"no apiVersion", "kind: Tier\nmetadata: {name: t}\n",
			"document 1, line 1: Tier(t): apiVersion: object has no apiVersion (add apiVersion: projectcalico.org/v3)"},
		{"text document", "hello\n",
			`document 1, line 1: "hello": document is a text where an object or a list of objects is wanted`},
		{"tab", "kind: Tier\n\tapiVersion: x\n",
			"document 1, line 2: invalid YAML: found a tab character that violates indentation"},
		{"unclosed", "kind: [Tier\n",
			"document 1, line 1: invalid YAML: did not find expected ',' or ']'"},
		{"all documents are checked",
			"a: [\n---\n" + hostHead + "  x: 1\n---\n# nothing\n---\n" + hostHead + "spec:\n  u: 1\n  w: 1\n",
			"document 1, line 1: invalid YAML: did not find expected node content\n" +
				"f.yaml: document 2, line 7: HostEndpoint(h): metadata.x = 1: field in document is not recognized or is in the wrong location: x\n" +
				"f.yaml: document 3, line 16: HostEndpoint(h): spec.u = 1: field in document is not recognized or is in the wrong location: u\n" +
				"f.yaml: document 3, line 17: HostEndpoint(h): spec.w = 1: field in document is not recognized or is in the wrong location: w"},
		{"list entry", "- " + strings.ReplaceAll(hostHead, "\n", "\n  ") + "spec:\n    nodes: a\n- 5\n",
			"document 1, line 6: HostEndpoint(h): spec.nodes = \"a\": field in document is not recognized or is in the wrong location: nodes (did you mean node?)\n" +
				"f.yaml: document 1, line 7: [1] = 5: list entry is a number where an object is wanted"},
		{"list without items", "apiVersion: v1\nkind: List\n", "document 1, line 1: items: list has no items"},
		{"list of the wrong version", "apiVersion: v1\nkind: TierList\nitems:\n- metadata: {name: t}\n",
			`document 1, line 1: apiVersion = "v1": apiVersion is not known (write projectcalico.org/v3)`},
		{"list with another kind", "apiVersion: projectcalico.org/v3\nkind: TierList\nitems:\n- kind: Profile\n  metadata: {name: t}\n",
			`document 1, line 4: items[0].kind = "Profile": kind of an item does not fit the list (write Tier)`},
		{"item without kind", "apiVersion: v1\nkind: List\nitems:\n- metadata: {name: t}\n",
			"document 1, line 4: items[0].kind: object has no kind (add apiVersion: projectcalico.org/v3 and kind)"},
		{"nothing", "", "file holds no object"},
		{"only comments", "# a\n---\n# b\n", "file holds no object"},
		{"binary", "\x7fELF\x01\x00", "line 1: file is no text: byte 0x00 at offset 5 is not UTF-8 or not allowed (give a YAML or JSON file in UTF-8)"},
		{"not UTF-8", "a: b\nc: \xff\n", "line 2: file is no text: byte 0xff at offset 8 is not UTF-8 or not allowed (give a YAML or JSON file in UTF-8)"},
		{"JSON syntax", "{\n  \"kind\": \"Tier\",\n  \"metadata\": {\"name\": \"t\"}\n  \"spec\": {}\n}\n",
			"document 1, line 4: invalid JSON: invalid character '\"' after object key:value pair"},
		{"JSON ends early", "{\n  \"kind\": \"Tier\",\n", "document 1, line 3: invalid JSON: it ends in the middle of a value"},
		{"JSON unknown field", "{\n  \"kind\": \"Tier\", \"apiVersion\": \"projectcalico.org/v3\",\n  \"metadata\": {\"name\": \"t\"},\n  \"spec\": {\n    \"oder\": 1}\n}\n",
			"document 1, line 5: Tier(t): spec.oder = 1: field in document is not recognized or is in the wrong location: oder (did you mean order?)"},
		{"JSON float for whole number", `{"kind":"HostEndpoint","apiVersion":"projectcalico.org/v3","metadata":{"name":"h"},"spec":{"ports":[{"port":1.5}]}}`,
			"document 1, line 1: HostEndpoint(h): spec.ports[0].port = 1.5: value is no whole number in decimal notation"},
	} {
		t.Run(c.name, func(t *testing.T) {
			docs, err := Decode("f.yaml", []byte(c.in))
			if err == nil {
				t.Fatalf("decoded as %d documents", len(docs))
			}
			if diff := cmp.Diff(strings.Split("f.yaml: "+c.want, "\n"), strings.Split(err.Error(), "\n")); diff != "" {
				t.Errorf("-want +got\n%s", diff)
			}
		})
	}
}

func TestDecodeBounds(t *testing.T) {
	bomb := "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n"
	for i := range 9 {
		bomb += fmt.Sprintf("a%d: &a%d [%s]\n", i+1, i+1, strings.Repeat(fmt.Sprintf("*a%d, ", i), 10))
	}
	merges := "a0: &a0 {x: y}\n"
	for i := range 30 {
		merges += fmt.Sprintf("a%d: &a%d {<<: [%s]}\n", i+1, i+1, strings.Repeat(fmt.Sprintf("*a%d, ", i), 10))
	}
	nested := strings.Repeat("[", 100_000)
	for _, c := range []struct{ name, in, want string }{
		{"alias bomb", "apiVersion: projectcalico.org/v3\nkind: Tier\nmetadata: {name: t, finalizers: &f [a]}\nspec: &s\n  order: 1\n" + bomb, "not recognized"},
		{"alias bomb in a list", policyHead + "  types: &a [Ingress, Ingress, Ingress, Ingress, Ingress, Ingress, Ingress, Ingress, Ingress, Ingress]\n" +
			"  ingress: &i\n  - &r\n    action: Allow\n    http: &h {methods: *a}\n" +
			"  egress: [" + strings.Repeat("*r, ", 20_000) + "]\n", "aliases expand to more than 100000 values"},
		{"merge bomb", policyHead + "<<: *a\n", "unknown anchor"},
		{"merge bomb at the top", merges + "<<: *a30\n", "object has no kind"},
		{"merge bomb in metadata", "apiVersion: projectcalico.org/v3\nkind: Tier\n" + merges + "metadata: {<<: *a30}\n", "aliases expand to more than 100000 values"},
		{"alias of itself", "apiVersion: projectcalico.org/v3\nkind: GlobalNetworkPolicy\nmetadata: {name: t}\nspec: &s\n  ingress: [*s]\n", "not recognized"},
		{"list of itself", "&l [*l]\n", "object is wanted"},
		{"deep YAML", "a: " + nested, "invalid YAML"},
		{"deep JSON", nested, "nests deeper than 64 levels"},
		{"too large", strings.Repeat(" ", MaxFile+1), "at most 67108864 are read"},
		{"many faults", policyHead + strings.Repeat("  x: 1\n", 10_000), "too many faults"},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, err := Decode("f.yaml", []byte(c.in))
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Fatalf("want an error with %q, got %.300v", c.want, err)
			}
			if errs := err.(Errors); len(errs) > maxFaults+1 {
				t.Errorf("%d faults are reported", len(errs))
			}
		})
	}
}

func TestDecodeForms(t *testing.T) {
	tier := func(name string) string {
		return "apiVersion: projectcalico.org/v3\nkind: Tier\nmetadata:\n  name: " + name + "\n"
	}
	asJSON := func(name string) string {
		return `{"apiVersion": "projectcalico.org/v3", "kind": "Tier", "metadata": {"name": "` + name + `"}}`
	}
	// want lists index, line and key of every document.
	for _, c := range []struct{ name, in, want string }{
		{"one", tier("a"), "1:1 Tier(a)"},
		{"two", tier("a") + "---\n" + tier("b"), "1:1 Tier(a), 2:6 Tier(b)"},
		{"empty ones between", "# c\n---\n\n---\n" + tier("a") + "---\n---\n" + tier("b") + "---\n", "1:5 Tier(a), 2:11 Tier(b)"},
		{"end marker", tier("a") + "...\n" + tier("b"), "1:1 Tier(a), 2:6 Tier(b)"},
		{"directive", "%YAML 1.1\n---\n" + tier("a"), "1:3 Tier(a)"},
		{"CRLF and BOM", "\ufeff" + strings.ReplaceAll(tier("a")+"---\n"+tier("b"), "\n", "\r\n"), "1:1 Tier(a), 2:6 Tier(b)"},
		{"no final newline", strings.TrimSpace(tier("a")), "1:1 Tier(a)"},
		{"JSON", asJSON("a"), "1:1 Tier(a)"},
		{"JSON with tabs", "\t" + strings.ReplaceAll(asJSON("a"), " ", "\n\t"), "1:1 Tier(a)"},
		{"JSON stream", asJSON("a") + "\n" + asJSON("b"), "1:1 Tier(a), 2:2 Tier(b)"},
		{"JSON documents with markers", asJSON("a") + "\n---\n" + asJSON("b"), "1:1 Tier(a), 2:3 Tier(b)"},
		{"JSON escapes", `{"apiVersion": "projectcalico.org\/v3", "kind": "T\u0069er", "metadata": {"name": "a"}}`, "1:1 Tier(a)"},
		{"flow YAML", "{apiVersion: projectcalico.org/v3, kind: Tier, metadata: {name: a}}", "1:1 Tier(a)"},
		{"list", "[" + asJSON("a") + ",\n" + asJSON("b") + "]", "1:1 Tier(a), 1:2 Tier(b)"},
		{"kind List", `{"apiVersion": "v1", "kind": "List", "items": [` + "\n" + asJSON("a") + ",\n" + asJSON("b") + `], "metadata": {"resourceVersion": ""}}`, "1:2 Tier(a), 1:3 Tier(b)"},
		{"TierList", "apiVersion: projectcalico.org/v3\nkind: TierList\nmetadata: {}\nitems:\n- metadata: {name: a}\n- kind: Tier\n  metadata: {name: b}\n", "1:5 Tier(a), 1:6 Tier(b)"},
		{"keys in any case", "APIVersion: projectcalico.org/v3\nKIND: Tier\nMetadata: {NAME: a}\n", "1:1 Tier(a)"},
		{"anchors", tier("a") + "  labels: &l {x: z}\n  annotations: *l\n", "1:1 Tier(a)"},
		{"merge keys", "- &a {apiVersion: projectcalico.org/v3, kind: Tier, metadata: {name: a}}\n- {<<: *a, metadata: {name: b}}\n", "1:1 Tier(a), 1:2 Tier(b)"},
		{"nulls of other tools", tier("a") + "  creationTimestamp: null\nspec: {order: null}\nstatus:\n", "1:1 Tier(a)"},
		{"marker in a quoted text", tier("a") + "  annotations: {x: \"a --- b\"}\n", "1:1 Tier(a)"},
	} {
		t.Run(c.name, func(t *testing.T) {
			docs, err := Decode("f", []byte(c.in))
			if err != nil {
				t.Fatal(err)
			}
			var got []string
			for _, d := range docs {
				got = append(got, fmt.Sprintf("%d:%d %s", d.Index, d.Line, KeyOf(d.Object)))
				if v := d.Object.GetObjectKind().GroupVersionKind().GroupVersion().String(); v != APIVersion {
					t.Errorf("apiVersion is %q", v)
				}
			}
			if s := strings.Join(got, ", "); s != c.want {
				t.Errorf("got %s, want %s", s, c.want)
			}
		})
	}
}

// TestDecodeKeepsEmpty: a list that is there and empty is not the list that is not there.
func TestDecodeKeepsEmpty(t *testing.T) {
	docs, err := Decode("f", []byte(policyHead+"  ingress:\n  - {action: Allow, protocol: TCP, destination: {ports: []}, source: {nets: []}}\n"))
	if err != nil {
		t.Fatal(err)
	}
	r := docs[0].Object.(*GlobalNetworkPolicy).Spec.Ingress[0]
	if r.Destination.Ports == nil || r.Source.Nets == nil || r.Source.Ports != nil {
		t.Errorf("got %#v", r)
	}
	data, err := Encode(docs[0].Object)
	if err != nil || !strings.Contains(string(data), `"ports":[]`) || !strings.Contains(string(data), `"nets":[]`) {
		t.Errorf("stored as %s, %v", data, err)
	}
	if _, err := DecodeStored(KindGlobalNetworkPolicy, data); err == nil {
		t.Error("the stored value is usable")
	}
}

func FuzzDecode(f *testing.F) {
	for _, seed := range []string{
		policyHead + "  ingress:\n  - {action: Allow, protocol: TCP, destination: {ports: [80, \"1:2\", http]}}\n",
		"- &a {apiVersion: projectcalico.org/v3, kind: Tier, metadata: {name: a}}\n- {<<: *a, metadata: {name: b}}\n",
		`{"apiVersion": "v1", "kind": "List", "items": [{"kind": "Node", "metadata": null}]}`,
		hostHead + "---\n...\n%YAML 1.1\n---\na: !!binary x\n", "&a [*a]", "? [a]\n: b\n", "<<: 1", "a: !!merge x\n",
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		docs, err := Decode("f", data)
		if (err == nil) != (len(docs) > 0) {
			t.Fatalf("%d documents and error %v", len(docs), err)
		}
		if err != nil && (err.Error() == "" || len(err.(Errors)) == 0) {
			t.Fatalf("error without text: %#v", err)
		}
		for i := range docs {
			checkDecoded(t, &docs[i])
		}
	})
}

// checkDecoded: nothing of what may follow on Decode panics, and what validates survives the store.
func checkDecoded(t *testing.T, d *Document) {
	Default(d.Object)
	err := d.Locate(Validate(d.Object))
	_ = Warnings(d.Object)
	data, encodeErr := Encode(d.Object)
	if err != nil {
		return
	}
	if encodeErr != nil {
		t.Fatalf("valid and not to be encoded: %v", encodeErr)
	}
	if _, err := DecodeStored(KeyOf(d.Object).Kind, data); err != nil {
		t.Fatalf("valid and not to be read back: %v\n%s", err, data)
	}
}

// TestDecodePlainScalars: true, false and whole numbers without quotes are texts where a text is wanted, as for calicoctl.
func TestDecodePlainScalars(t *testing.T) {
	docs, err := Decode("f", []byte(hostHead+"  labels: {running-calico: true, retired: false, rack: 12}\nspec: {node: 7}\n"))
	if err != nil {
		t.Fatal(err)
	}
	h := docs[0].Object.(*HostEndpoint)
	want := map[string]string{"running-calico": "true", "retired": "false", "rack": "12"}
	if !maps.Equal(h.Labels, want) || h.Spec.Node != "7" {
		t.Errorf("labels %v, node %q", h.Labels, h.Spec.Node)
	}
}

// TestDecodeNotations: what YAML 1.1, which calicoctl reads, and YAML 1.2 take for different values is refused without
// quotes: 010 is 8 or 10, yes is true or a name, 0x50 is 80 or the name of a port.
func TestDecodeNotations(t *testing.T) {
	fields := map[string]string{ // with %s for the value
		"port":     policyHead + "  ingress: [{action: Allow, protocol: TCP, destination: {ports: [%s]}}]\n",
		"protocol": policyHead + "  ingress: [{action: Allow, protocol: %s}]\n",
		"number":   hostHead + "spec: {node: n1, interfaceName: eth0, ports: [{name: a, protocol: TCP, port: %s}]}\n",
		"order":    policyHead + "  order: %s\n",
		"text":     hostHead + "spec: {node: %s}\n",
		"label":    hostHead + "  labels: {a: %s}\nspec: {node: n1}\n",
		"untyped":  "apiVersion: projectcalico.org/v3\nkind: LiveMigration\nmetadata: {name: m, namespace: ns}\nspec: {a: %s}\n",
	}
	for name, manifest := range fields {
		for _, value := range []string{"010", "0x50", "0o10", "0b11", "+80", "1_0", "yes", "on", "N", ".5", "0x5_0"} {
			if name == "order" && value == ".5" {
				continue // a number in either
			}
			if docs, err := Decode("f", fmt.Appendf(nil, manifest, value)); err == nil {
				t.Errorf("%s %s is accepted: %+v", name, value, docs[0].Object)
			}
		}
	}
	for value, want := range map[string]Port{`"010"`: {First: 10, Last: 10}, `"0x50"`: {Name: "0x50"}, `"yes"`: {Name: "yes"}} {
		docs, err := Decode("f", fmt.Appendf(nil, fields["port"], value))
		if err != nil {
			t.Errorf("port %s: %v", value, err)
		} else if got := docs[0].Object.(*GlobalNetworkPolicy).Spec.Ingress[0].Destination.Ports[0]; got != want {
			t.Errorf("port %s is %+v", value, got)
		}
	}
}

// TestDecodeNull: a key without a value is an absent one, where that is harmless.
func TestDecodeNull(t *testing.T) {
	for name, manifest := range map[string]string{
		"metadata": "apiVersion: projectcalico.org/v3\nkind: GlobalNetworkSet\nmetadata: {name: a, uid: null, resourceVersion: ~, creationTimestamp: null, labels: null, annotations: ~}\nspec:\n",
		"lists":    policyHead + "  types: null\n  ingress:\n  egress:\n  order:\n",
		"failsafe": "apiVersion: projectcalico.org/v3\nkind: FelixConfiguration\nmetadata: {name: default}\nspec:\n  failsafeInboundHostPorts:\n  routeTableRanges: null\n",
	} {
		docs, err := Decode("f", []byte(manifest))
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if f, ok := docs[0].Object.(*FelixConfiguration); ok && (f.Spec.FailsafeInboundHostPorts != nil || f.Spec.RouteTableRanges != nil) {
			t.Errorf("failsafe ports that are not there are none: %+v", f.Spec)
		}
	}
}
