package v3

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"
	"sigs.k8s.io/yaml"
)

// stored wraps a spec as the value of a policy named p.
func stored(spec string) string {
	return `{"kind":"GlobalNetworkPolicy","apiVersion":"projectcalico.org/v3","metadata":{"name":"p"},"spec":` + spec + `}`
}

func TestDecodeStoredFaults(t *testing.T) {
	rule := func(fields string) string { return stored(`{"ingress":[{"action":"Allow",` + fields + `}]}`) }
	for _, c := range []struct{ name, in, want string }{
		{"selector", stored(`{"selector":"a = 'b'"}`), `GlobalNetworkPolicy(p): spec.selector = "a = 'b'": expected == (at offset 2) (write a == 'b')`},
		{"rule selector", rule(`"source":{"notSelector":"all("}`), `GlobalNetworkPolicy(p): spec.ingress[0].source.notSelector = "all(": no closing ')' after all( (at offset 4)`},
		{"namespace selector", stored(`{"namespaceSelector":"x"}`), "unexpected end of string looking for op"},
		{"net", rule(`"source":{"nets":["10.0.0.0/33"]}`), `spec.ingress[0].source.nets[0] = "10.0.0.0/33": invalid CIDR`},
		{"port", rule(`"destination":{"ports":["9:1"]}`), `line 1: GlobalNetworkPolicy(p): spec.ingress[0].destination.ports[0] = "9:1": minimum port number`},
		{"port 0", rule(`"destination":{"ports":[0]}`), "port range invalid"},
		{"no ports", rule(`"destination":{"ports":[]}`), "empty list matches no port"},
		{"ports null", rule(`"destination":{"ports":null}`), "spec.ingress[0].destination.ports: key has no value"},
		{"selector null", stored(`{"selector":null}`), "spec.selector: key has no value"},
		{"protocol", rule(`"protocol":"tcp"`), `spec.ingress[0].protocol = "tcp": protocol name invalid (write TCP)`},
		{"action", stored(`{"ingress":[{"action":"allow"}]}`), `spec.ingress[0].action = "allow": action is not known`},
		{"no action", stored(`{"egress":[{}]}`), "spec.egress[0].action: action is required"},
		{"type", stored(`{"types":["ingress"]}`), `spec.types[0] = "ingress": policy type is not known`},
		{"wrong type", stored(`{"order":"1"}`), `line 1: GlobalNetworkPolicy(p): spec.order = "1": value is a text where a number is wanted`},
		{"other kind", strings.Replace(stored(`{}`), "GlobalNetworkPolicy", "Tier", 1), `GlobalNetworkPolicy(): kind = "Tier": value is of another kind than its key`},
		{"no name", strings.Replace(stored(`{}`), `"name":"p"`, "", 1), "metadata.name: name is not specified"},
		{"no JSON", "selector: all()", "line 1: GlobalNetworkPolicy(): invalid JSON"},
		{"empty", "", "value holds 0 JSON values"},
		{"two values", stored("{}") + stored("{}"), "value holds 2 JSON values"},
		{"list", "[]", "value is a list where a mapping is wanted"},
		{"bad annotation", strings.Replace(stored(`{}`), `"name":"p"`, `"name":"p","annotations":{"projectcalico.org/metadata":"{"}`, 1), "annotation is no JSON"},
	} {
		r, err := DecodeStored(KindGlobalNetworkPolicy, []byte(c.in))
		if err == nil || r != nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: got %v, %v, want an error with %q", c.name, r, err, c.want)
		}
	}
	for kind, in := range map[Kind]string{
		KindHostEndpoint:     `{"metadata":{"name":"h"},"spec":{"node":"n","expectedIPs":["10.0.0.256"]}}`,
		KindGlobalNetworkSet: `{"metadata":{"name":"h"},"spec":{"nets":["10.0.0.0/a"]}}`,
		KindNetworkSet:       `{"metadata":{"name":"h"},"spec":{"nets":"10.0.0.0/8"}}`,
		KindWorkloadEndpoint: `{"metadata":{"name":"h"},"spec":{"ipNetworks":["x"]}}`,
		KindProfile:          `{"metadata":{"name":"h"},"spec":{"ingress":[{"action":"Allow","source":{"selector":"("}}]}}`,
		KindTier:             `{"metadata":{"name":"h"},"spec":{"defaultAction":"Accept"}}`,
		"Nothing":            `{}`,
	} {
		if r, err := DecodeStored(kind, []byte(in)); err == nil {
			t.Errorf("%s: %s is usable: %v", kind, in, r)
		}
	}
}

func TestDecodeStoredTolerates(t *testing.T) {
	r, err := DecodeStored(KindGlobalNetworkPolicy, []byte(strings.Replace(stored(
		`{"new":{"a":null},"ingress":[{"action":"Allow","newer":1,"source":{"nets":["10.0.0.1/8"]},"protocol":6}]}`), `"name"`, `"generation":1,"name"`, 1)))
	if err != nil {
		t.Fatal(err)
	}
	p := r.(*GlobalNetworkPolicy)
	if p.Spec.Tier != DefaultTier || p.Labels[LabelTier] != DefaultTier || strings.Join(p.Spec.Types, " ") != "Ingress Egress" {
		t.Errorf("tier %q, label %q, types %v", p.Spec.Tier, p.Labels[LabelTier], p.Spec.Types)
	}
	r, err = DecodeStored(KindTier, []byte(`{"metadata":{"name":"t"},"spec":{}}`))
	if err != nil {
		t.Fatal(err)
	}
	if tier := r.(*Tier); *tier.Spec.Order != OrderDefaultTier || tier.Spec.DefaultAction != ActionDeny {
		t.Errorf("tier is %+v", tier.Spec)
	}
}

func TestDecodeStoredNames(t *testing.T) {
	for _, c := range []struct{ name, tier, annotation, want string }{
		{"p", "", "", "p"},
		{"default.p", "", "", "p"},
		{"default.p", "default", "", "p"},
		{"default.p", "other", "", "default.p"},
		{"other.p", "other", "", "other.p"},
		{"default.p", "default", `{\"name\":\"default.p\"}`, "default.p"},
		{"default.p", "default", `{\"name\":\"q\",\"more\":1}`, "q"},
	} {
		in := fmt.Sprintf(`{"metadata":{"name":%q,"annotations":{"projectcalico.org/metadata":"%s"}},"spec":{"tier":%q}}`, c.name, c.annotation, c.tier)
		r, err := DecodeStored(KindGlobalNetworkPolicy, []byte(in))
		if err != nil {
			t.Errorf("%s: %v", in, err)
			continue
		}
		if r.GetName() != c.want || c.annotation != "" && len(r.GetAnnotations()) > 0 {
			t.Errorf("%s: name %q, annotations %v", in, r.GetName(), r.GetAnnotations())
		}
	}
}

// TestRoundTrip: valid objects survive the store and both forms of manifest.
func TestRoundTrip(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		r := anyResource(t)
		Default(r)
		if err := Validate(r); err != nil {
			t.Fatalf("generated object is not valid: %v", err)
		}
		data, err := Encode(r)
		if err != nil {
			t.Fatal(err)
		}
		back, err := DecodeStored(KeyOf(r).Kind, data)
		if err != nil {
			t.Fatalf("%v\n%s", err, data)
		}
		if diff := cmp.Diff(r, back); diff != "" {
			t.Fatalf("store: -before +after\n%s", diff)
		}
		manifest, err := yaml.Marshal(r)
		if err != nil {
			t.Fatal(err)
		}
		docs, err := Decode("f", manifest)
		if err != nil {
			t.Fatalf("%v\n%s", err, manifest)
		}
		if diff := cmp.Diff(r, docs[0].Object); diff != "" {
			t.Fatalf("YAML: -before +after\n%s", diff)
		}
	})
}

var (
	someName     = rapid.StringMatching(`[a-z0-9]([-a-z0-9]{0,8}[a-z0-9])?`)
	someLabels   = rapid.MapOfN(rapid.StringMatching(`([a-z]{1,3}/)?[A-Za-z0-9]([-_.a-z]{0,3}[a-z0-9])?`), rapid.StringMatching(`([A-Za-z0-9]([-_.a-z]{0,3}[a-z0-9])?)?`), 1, 4)
	someSelector = rapid.SampledFrom([]string{"", "all()", `a == "b"`, "has(x) && !(y in {'1', '2'})", "z not in {}", "role contains 'w'"})
	someNets4    = rapid.SliceOfNDistinct(rapid.SampledFrom([]string{"10.0.0.0/8", "192.168.1.0/24", "1.2.3.4/32", "172.16.0.0/12"}), 1, 3, rapid.ID[string])
	someAddrs    = rapid.SliceOfNDistinct(rapid.SampledFrom([]string{"10.0.0.1", "feed::1", "1.2.3.4", "dead:beef::"}), 1, 3, rapid.ID[string])
	somePort     = rapid.Custom(func(t *rapid.T) Port {
		if rapid.Bool().Draw(t, "named") {
			return Port{Name: rapid.StringMatching(`[a-z]([-a-z0-9]?[a-z0-9]){0,5}`).Filter(isPortName).Draw(t, "name")}
		}
		first := rapid.Uint16Range(1, 65535).Draw(t, "first")
		return Port{First: first, Last: rapid.Uint16Range(first, 65535).Draw(t, "last")}
	})
	somePorts    = rapid.SliceOfN(somePort, 1, 3)
	someProtocol = rapid.SampledFrom([]Protocol{ProtocolTCP, ProtocolUDP, ProtocolSCTP, "6", "17"})
)

func someEntity(t *rapid.T) EntityRule {
	e := EntityRule{Selector: someSelector.Draw(t, "selector"), NotSelector: someSelector.Draw(t, "notSelector")}
	if rapid.Bool().Draw(t, "nets") {
		e.Nets, e.NotNets = someNets4.Draw(t, "nets"), someNets4.Draw(t, "notNets")
	}
	if rapid.Bool().Draw(t, "ports") {
		e.Ports, e.NotPorts = somePorts.Draw(t, "ports"), somePorts.Draw(t, "notPorts")
	}
	e.NamespaceSelector = rapid.SampledFrom([]string{"", "global()", "all()"}).Draw(t, "namespaceSelector")
	if rapid.Bool().Draw(t, "accounts") {
		e.ServiceAccounts = &ServiceAccountMatch{Names: []string{someName.Draw(t, "account")}, Selector: someSelector.Draw(t, "accounts")}
	}
	return e
}

func someRule(t *rapid.T) Rule {
	r := Rule{Action: rapid.SampledFrom([]string{ActionAllow, ActionDeny, ActionLog, ActionPass}).Draw(t, "action")}
	if rapid.Bool().Draw(t, "icmp") {
		kind, code := rapid.IntRange(0, 254).Draw(t, "type"), rapid.IntRange(0, 255).Draw(t, "code")
		r.Protocol, r.ICMP, r.NotICMP, r.IPVersion = new(ProtocolICMP), &ICMPFields{&kind, &code}, &ICMPFields{Type: &code}, new(4)
		if code == 255 {
			r.NotICMP = nil
		}
		return r
	}
	r.Protocol = new(someProtocol.Draw(t, "protocol"))
	r.Source, r.Destination = someEntity(t), someEntity(t)
	if rapid.Bool().Draw(t, "metadata") {
		r.Metadata = &RuleMetadata{Annotations: someLabels.Draw(t, "annotations")}
	}
	return r
}

func someRules(t *rapid.T, name string) []Rule {
	var rules []Rule
	for range rapid.IntRange(0, 2).Draw(t, name) {
		rules = append(rules, someRule(t))
	}
	return rules
}

func somePolicySpec(t *rapid.T) PolicySpec {
	spec := PolicySpec{
		Tier: someName.Draw(t, "tier"), Selector: someSelector.Draw(t, "selector"), ServiceAccountSelector: someSelector.Draw(t, "accounts"),
		Ingress: someRules(t, "ingress"), Egress: someRules(t, "egress"),
	}
	if rapid.Bool().Draw(t, "ordered") {
		spec.Order = new(rapid.Float64Range(-1e9, 1e9).Draw(t, "order"))
	}
	if rapid.Bool().Draw(t, "types") {
		spec.Types = []string{TypeEgress, TypeIngress}
	}
	return spec
}

// anyResource returns a valid object of one of the kinds that rules and endpoints are made of.
func anyResource(t *rapid.T) Resource {
	kind := rapid.SampledFrom([]Kind{
		KindTier, KindGlobalNetworkPolicy, KindNetworkPolicy, KindHostEndpoint, KindWorkloadEndpoint, KindGlobalNetworkSet, KindNetworkSet, KindProfile,
	}).Draw(t, "kind")
	info, _ := Lookup(kind)
	r := info.New()
	r.SetName(someName.Draw(t, "name"))
	r.SetLabels(someLabels.Draw(t, "labels"))
	r.SetAnnotations(someLabels.Draw(t, "annotations"))
	if info.Namespaced {
		r.SetNamespace(someName.Draw(t, "namespace"))
	}
	switch r := r.(type) {
	case *Tier:
		r.Spec.Order = new(rapid.Float64Range(-1e9, 1e9).Draw(t, "order"))
	case *GlobalNetworkPolicy:
		r.Spec = GlobalNetworkPolicySpec{PolicySpec: somePolicySpec(t), NamespaceSelector: someSelector.Draw(t, "namespaces")}
	case *NetworkPolicy:
		r.Spec = somePolicySpec(t)
	case *HostEndpoint:
		r.Spec = HostEndpointSpec{Node: someName.Draw(t, "node"), InterfaceName: "eth0", ExpectedIPs: someAddrs.Draw(t, "addrs"),
			Ports: []EndpointPort{{"http", someProtocol.Draw(t, "protocol"), rapid.Uint16Range(1, 65535).Draw(t, "port")}}}
	case *WorkloadEndpoint:
		r.Spec = WorkloadEndpointSpec{Orchestrator: "k8s", Node: someName.Draw(t, "node"), Pod: someName.Draw(t, "pod"), Endpoint: "eth0",
			InterfaceName: "cali1", IPNetworks: someAddrs.Draw(t, "addrs"), AllowSpoofedSourcePrefixes: someNets4.Draw(t, "spoofed")}
		r.Name, _ = r.Spec.Name()
	case *GlobalNetworkSet:
		r.Spec.Nets = someAddrs.Draw(t, "nets")
	case *NetworkSet:
		r.Spec.Nets = someNets4.Draw(t, "nets")
	case *Profile:
		r.Spec = ProfileSpec{Ingress: someRules(t, "ingress"), Egress: someRules(t, "egress"), LabelsToApply: someLabels.Draw(t, "labels")}
	}
	return r
}

// TestPortText: a port that parses is what its text says.
func TestPortText(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		p := somePort.Draw(t, "port")
		if back, err := ParsePort(p.String()); err != nil || back != p {
			t.Fatalf("%q parses as %+v, %v", p, back, err)
		}
	})
	for _, bad := range []string{"", " 80", "80 ", "65536", "1:65536", "2:1", "a b", "1:2:3", "é", strings.Repeat("a", 129)} {
		if p, err := ParsePort(bad); err == nil {
			t.Errorf("%q parses as %+v", bad, p)
		}
	}
	for text, want := range map[string]Port{"80": {80, 80, ""}, "80:80": {80, 80, ""}, "1:2": {1, 2, ""}, "080": {80, 80, ""}, "http": {0, 0, "http"}} {
		if p, err := ParsePort(text); err != nil || p != want {
			t.Errorf("%q parses as %+v, %v", text, p, err)
		}
	}
}

func TestProtocol(t *testing.T) {
	for _, c := range []struct {
		json, again string
		number      uint8
		ports       bool
	}{
		{`"TCP"`, `"TCP"`, 6, true}, {`"6"`, `6`, 6, true}, {`6`, `6`, 6, true}, {`"006"`, `6`, 6, true}, {`132`, `132`, 132, true},
		{`"UDPLite"`, `"UDPLite"`, 136, false}, {`255`, `255`, 255, false}, {`"ICMPv6"`, `"ICMPv6"`, 58, false},
		{`0`, `0`, 0, false}, {`"256"`, `"256"`, 0, false}, {`"tcp"`, `"tcp"`, 0, false}, {`""`, `""`, 0, false},
	} {
		var p Protocol
		if err := p.UnmarshalJSON([]byte(c.json)); err != nil {
			t.Errorf("%s: %v", c.json, err)
			continue
		}
		number, ok := p.Number()
		again, err := p.MarshalJSON()
		if number != c.number || ok != (number != 0) || p.HasPorts() != c.ports || string(again) != c.again || err != nil {
			t.Errorf("%s: number %d %v, ports %v, again %s, %v", c.json, number, ok, p.HasPorts(), again, err)
		}
	}
	for _, bad := range []string{`256`, `-1`, `1.5`, `true`, `{}`, `null`} {
		var p Protocol
		if err := p.UnmarshalJSON([]byte(bad)); err == nil {
			t.Errorf("%s is a protocol", bad)
		}
	}
}

func TestParseNet(t *testing.T) {
	for text, want := range map[string]string{
		"10.0.0.1": "10.0.0.1/32", "10.1.2.3/8": "10.0.0.0/8", "feed::1": "feed::1/128", "feed::1/16": "feed::/16", "0.0.0.0/0": "0.0.0.0/0",
	} {
		if p, err := ParseNet(text); err != nil || p.String() != want {
			t.Errorf("%s: %v, %v", text, p, err)
		}
	}
	for _, bad := range []string{"", "10.0.0", "10.0.0.0/33", "fe80::1%eth0", "::ffff:10.0.0.1", "::ffff:10.0.0.0/104", "10.0.0.0/08", " 10.0.0.0/8"} {
		if p, err := ParseNet(bad); err == nil {
			t.Errorf("%q parses as %v", bad, p)
		}
	}
}

func FuzzDecodeStored(f *testing.F) {
	for i, info := range Kinds() {
		f.Add(i, []byte(`{"kind":"`+string(info.Kind)+`","metadata":{"name":"a"},"spec":{"selector":"all()","nets":["10.0.0.0/8"],"order":null}}`))
	}
	f.Add(1, []byte(stored(`{"types":["Egress"],"ingress":[{"action":"Allow","protocol":"TCP","source":{"ports":["1:2",80]}}]}`)))
	f.Fuzz(func(t *testing.T, kind int, data []byte) {
		kinds := Kinds()
		info := kinds[(kind%len(kinds)+len(kinds))%len(kinds)]
		r, err := DecodeStored(info.Kind, data)
		if (err == nil) != (r != nil) {
			t.Fatalf("resource %v and error %v", r, err)
		}
		if err != nil {
			return
		}
		again, err := Encode(r)
		if err != nil {
			t.Fatalf("usable and not to be encoded: %v", err)
		}
		back, err := DecodeStored(info.Kind, again)
		if err != nil {
			t.Fatalf("usable once only: %v\n%s", err, again)
		}
		if KeyOf(back) != KeyOf(r) {
			t.Fatalf("%s becomes %s", KeyOf(r), KeyOf(back))
		}
	})
}

// TestDecodeCustom: what kubectl wrote without types has those of the lists that are there.
func TestDecodeCustom(t *testing.T) {
	for spec, want := range map[string][]string{
		`{}`:                              {TypeIngress},
		`{"ingress":[]}`:                  {TypeIngress},
		`{"egress":[]}`:                   {TypeEgress},
		`{"ingress":[],"egress":[]}`:      {TypeIngress, TypeEgress},
		`{"egress":[{"action":"Allow"}]}`: {TypeEgress},
		`{"types":["Egress"],"ingress":[{"action":"Allow"}]}`: {TypeEgress},
	} {
		data := []byte(`{"kind":"NetworkPolicy","apiVersion":"projectcalico.org/v3","metadata":{"name":"p","namespace":"n"},"spec":` + spec + `}`)
		r, err := DecodeCustom(KindNetworkPolicy, data)
		if err != nil {
			t.Fatal(err)
		}
		if got := r.(*NetworkPolicy).Spec.Types; !slices.Equal(got, want) {
			t.Errorf("%s: types %v, want %v", spec, got, want)
		}
	}
}
