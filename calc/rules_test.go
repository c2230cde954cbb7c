package calc

import (
	"net/netip"
	"reflect"
	"strings"
	"testing"

	"sigs.k8s.io/yaml"

	v3 "margay/api/v3"
	"margay/ruleset"
	"margay/selector"
)

func pfx(texts ...string) []netip.Prefix {
	list := []netip.Prefix{}
	for _, text := range texts {
		list = append(list, netip.MustParsePrefix(text))
	}
	return list
}

// in returns the sets of selectors.
func in(texts ...string) []ruleset.SetID {
	var ids []ruleset.SetID
	for _, text := range texts {
		ids = append(ids, setSpec{sel: mustParse(text)}.id())
	}
	return ids
}

func portOf(sel, name string, protocol uint8) ruleset.SetID {
	return setSpec{sel: mustParse(sel), port: name, protocol: protocol}.id()
}

func mustParse(text string) *selector.Selector {
	sel, err := selector.Parse(text)
	if err != nil {
		panic(err)
	}
	return sel
}

func ports(list ...uint16) *ruleset.Ports {
	p := &ruleset.Ports{}
	for i := 0; i < len(list); i += 2 {
		p.Ranges = append(p.Ranges, ruleset.PortRange{First: list[i], Last: list[i+1]})
	}
	return p
}

// never is a rule that matches nothing.
func never(a ruleset.Action) ruleset.Rule {
	return ruleset.Rule{Action: a, Source: ruleset.Entity{Nets: pfx()}}
}

func compile(t *testing.T, namespace, text string) (ruleset.Rule, *compiler) {
	t.Helper()
	var r v3.Rule
	if err := yaml.UnmarshalStrict([]byte(text), &r); err != nil {
		t.Fatalf("%s: %v", text, err)
	}
	k := &compiler{namespace: namespace}
	return k.rules("spec.ingress", []v3.Rule{r}, ruleset.Ingress)[0], k
}

func TestCompileRule(t *testing.T) {
	type entity = ruleset.Entity
	src := func(e entity) ruleset.Rule { return ruleset.Rule{Action: ruleset.Allow, Source: e} }
	dst := func(e entity) ruleset.Rule { return ruleset.Rule{Action: ruleset.Allow, Destination: e} }
	tcp := func(r ruleset.Rule) ruleset.Rule { r.Protocol = ruleset.TCP; return r }
	four := func(r ruleset.Rule) ruleset.Rule { r.Family = ruleset.IPv4; return r }
	six := func(r ruleset.Rule) ruleset.Rule { r.Family = ruleset.IPv6; return r }
	icmp := func(t, c uint8, hasCode bool) ruleset.ICMPMatch {
		return ruleset.ICMPMatch{HasType: true, HasCode: hasCode, Type: t, Code: c}
	}
	tests := []struct {
		name, rule string
		want       ruleset.Rule
	}{
		{"allow everything", `{action: Allow}`, src(entity{})},
		{"deny", `{action: Deny}`, ruleset.Rule{Action: ruleset.Deny}},
		{"pass", `{action: Pass}`, ruleset.Rule{Action: ruleset.Pass}},
		{"log", `{action: Log}`, ruleset.Rule{Action: ruleset.Log}},
		{"ipVersion 4", `{action: Allow, ipVersion: 4}`, four(src(entity{}))},
		{"ipVersion 6", `{action: Allow, ipVersion: 6}`, six(src(entity{}))},
		{"protocol by name", `{action: Allow, protocol: TCP}`, tcp(src(entity{}))},
		{"protocol by number", `{action: Allow, protocol: 6}`, tcp(src(entity{}))},
		{"notProtocol", `{action: Allow, notProtocol: UDP}`, ruleset.Rule{Action: ruleset.Allow, NotProtocol: ruleset.UDP}},
		{"ICMP implies IPv4", `{action: Allow, protocol: ICMP}`, ruleset.Rule{Action: ruleset.Allow, Protocol: ruleset.ICMP, Family: ruleset.IPv4}},
		{"ICMPv6 implies IPv6", `{action: Allow, protocol: 58}`, ruleset.Rule{Action: ruleset.Allow, Protocol: ruleset.ICMPv6, Family: ruleset.IPv6}},
		{"notProtocol ICMP implies nothing", `{action: Allow, notProtocol: ICMP}`, ruleset.Rule{Action: ruleset.Allow, NotProtocol: ruleset.ICMP}},
		{"icmp type", `{action: Allow, protocol: ICMP, icmp: {type: 8}}`, ruleset.Rule{Action: ruleset.Allow, Protocol: ruleset.ICMP, Family: ruleset.IPv4, ICMP: icmp(8, 0, false)}},
		{"icmp type 0 and code 0", `{action: Allow, protocol: ICMP, icmp: {type: 0, code: 0}}`, ruleset.Rule{Action: ruleset.Allow, Protocol: ruleset.ICMP, Family: ruleset.IPv4, ICMP: icmp(0, 0, true)}},
		{"notICMP", `{action: Allow, protocol: ICMP, notICMP: {type: 3, code: 4}}`, ruleset.Rule{Action: ruleset.Allow, Protocol: ruleset.ICMP, Family: ruleset.IPv4, NotICMP: icmp(3, 4, true)}},
		{"icmp without type", `{action: Allow, protocol: ICMP, icmp: {}}`, ruleset.Rule{Action: ruleset.Allow, Protocol: ruleset.ICMP, Family: ruleset.IPv4}},

		{"nets", `{action: Allow, source: {nets: [10.0.0.0/8, 192.0.2.0/24]}}`, four(src(entity{Nets: pfx("10.0.0.0/8", "192.0.2.0/24")}))},
		{"nets, IPv6", `{action: Allow, destination: {nets: ["fd00::/8"]}}`, six(dst(entity{Nets: pfx("fd00::/8")}))},
		{"nets of both versions", `{action: Allow, source: {nets: [10.0.0.0/8, "fd00::/8"]}}`, src(entity{Nets: pfx("10.0.0.0/8", "fd00::/8")})},
		{"nets with host bits", `{action: Allow, source: {nets: [10.0.0.1/8]}}`, four(src(entity{Nets: pfx("10.0.0.0/8")}))},
		{"notNets exclude nothing in the other version", `{action: Allow, source: {notNets: [10.0.0.0/8]}}`, src(entity{NotNets: pfx("10.0.0.0/8")})},
		{"nets and notNets", `{action: Allow, source: {nets: [10.0.0.0/8], notNets: [10.1.0.0/16]}}`, four(src(entity{Nets: pfx("10.0.0.0/8"), NotNets: pfx("10.1.0.0/16")}))},

		{"port", `{action: Allow, protocol: TCP, destination: {ports: [80]}}`, tcp(dst(entity{Ports: ports(80, 80)}))},
		{"port as text, range", `{action: Allow, protocol: TCP, source: {ports: ["80", "1000:2000"]}}`, tcp(src(entity{Ports: ports(80, 80, 1000, 2000)}))},
		{"notPorts", `{action: Allow, protocol: TCP, destination: {notPorts: [80]}}`, tcp(dst(entity{NotPorts: ports(80, 80)}))},
		{"no notPorts", `{action: Allow, protocol: TCP, destination: {notPorts: []}}`, tcp(dst(entity{}))},
		{"named port of everything", `{action: Allow, protocol: TCP, destination: {ports: [http]}}`, tcp(dst(entity{Ports: &ruleset.Ports{Named: []ruleset.SetID{portOf("all()", "http", 6)}}}))},
		{"named port of any protocol", `{action: Allow, destination: {ports: [http]}}`, dst(entity{Ports: &ruleset.Ports{Named: []ruleset.SetID{portOf("all()", "http", 0)}}})},
		{"named and numeric are alternatives", `{action: Allow, protocol: TCP, destination: {ports: [http, 80]}}`, tcp(dst(entity{Ports: &ruleset.Ports{Named: []ruleset.SetID{portOf("all()", "http", 6)}, Ranges: []ruleset.PortRange{{First: 80, Last: 80}}}}))},
		{"named port of a selector", `{action: Allow, protocol: UDP, source: {selector: a == "x", ports: [dns]}}`,
			ruleset.Rule{Action: ruleset.Allow, Protocol: ruleset.UDP, Source: entity{Sets: in(`a == "x"`), Ports: &ruleset.Ports{Named: []ruleset.SetID{portOf(`a == "x"`, "dns", 17)}}}}},
		{"named notPorts of the positive selector", `{action: Allow, protocol: TCP, destination: {selector: has(a), notSelector: has(b), notPorts: [http]}}`,
			tcp(dst(entity{Sets: in("has(a)"), NotSets: in("has(b)"), NotPorts: &ruleset.Ports{Named: []ruleset.SetID{portOf("has(a)", "http", 6)}}}))},

		{"http is ignored", `{action: Allow, http: {methods: [GET]}}`, src(entity{})},
		{"annotations", `{action: Allow, metadata: {annotations: {k: v}}}`, ruleset.Rule{Action: ruleset.Allow, Annotations: map[string]string{"k": "v"}}},

		// Empty lists and what cannot be compiled never widen.
		{"no ports, Allow", `{action: Allow, protocol: TCP, destination: {ports: []}}`, never(ruleset.Allow)},
		{"no ports, Pass", `{action: Pass, protocol: TCP, destination: {ports: []}}`, never(ruleset.Pass)},
		{"no ports, Log", `{action: Log, protocol: TCP, destination: {ports: []}}`, never(ruleset.Log)},
		{"no ports, Deny", `{action: Deny, protocol: TCP, destination: {ports: []}}`, ruleset.Rule{Action: ruleset.Deny, Protocol: ruleset.TCP}},
		{"no nets, Allow", `{action: Allow, source: {nets: []}}`, never(ruleset.Allow)},
		{"no nets, Deny", `{action: Deny, source: {nets: [], ports: [http]}}`, ruleset.Rule{Action: ruleset.Deny, Source: entity{Ports: &ruleset.Ports{Named: []ruleset.SetID{portOf("all()", "http", 0)}}}}},
		{"no service account names, Allow", `{action: Allow, source: {serviceAccounts: {names: []}}}`, never(ruleset.Allow)},
		{"service as the destination of ingress, Allow", `{action: Allow, protocol: TCP, destination: {services: {name: s, namespace: ns}}}`, never(ruleset.Allow)},
		{"service as the destination of ingress, Deny", `{action: Deny, protocol: TCP, destination: {services: {name: s, namespace: ns}}}`, ruleset.Rule{Action: ruleset.Deny, Protocol: ruleset.TCP}},
		{"service as the destination of ingress, Pass", `{action: Pass, protocol: TCP, destination: {services: {name: s, namespace: ns}}}`, ruleset.Rule{Action: ruleset.Deny, Protocol: ruleset.TCP}},
		{"service of no namespace, Allow", `{action: Allow, source: {services: {name: s}}}`, never(ruleset.Allow)},
		{"service without a name, Deny", `{action: Deny, source: {services: {namespace: ns}}}`, ruleset.Rule{Action: ruleset.Deny}},
		{"bad protocol, Allow", `{action: Allow, protocol: bogus}`, never(ruleset.Allow)},
		{"protocol 0, Allow", `{action: Allow, protocol: 0}`, never(ruleset.Allow)},
		{"notProtocol 0, Allow", `{action: Allow, notProtocol: 0}`, never(ruleset.Allow)},
		{"bad protocol, Deny", `{action: Deny, protocol: bogus, destination: {nets: [10.0.0.0/8]}}`, ruleset.Rule{Action: ruleset.Deny, Family: ruleset.IPv4, Destination: entity{Nets: pfx("10.0.0.0/8")}}},
		{"bad protocol, Log", `{action: Log, protocol: bogus}`, never(ruleset.Log)},
		{"bad ipVersion, Allow", `{action: Allow, ipVersion: 5}`, never(ruleset.Allow)},
		{"bad net, Allow", `{action: Allow, source: {nets: [10.0.0.0/8, bogus]}}`, never(ruleset.Allow)},
		{"bad net, Deny", `{action: Deny, source: {nets: [10.0.0.0/8, bogus]}}`, ruleset.Rule{Action: ruleset.Deny}},
		{"bad notNet, Allow", `{action: Allow, source: {notNets: [bogus]}}`, never(ruleset.Allow)},
		{"bad selector, Allow", `{action: Allow, source: {selector: a = "x"}}`, never(ruleset.Allow)},
		{"bad selector, Deny", `{action: Deny, source: {selector: a = "x"}}`, ruleset.Rule{Action: ruleset.Deny}},
		{"bad notSelector, Allow", `{action: Allow, source: {notSelector: a = "x"}}`, never(ruleset.Allow)},
		{"bad notSelector, Deny", `{action: Deny, source: {notSelector: a = "x"}}`, ruleset.Rule{Action: ruleset.Deny}},
		{"bad namespaceSelector, Allow", `{action: Allow, source: {namespaceSelector: a = "x"}}`, never(ruleset.Allow)},
		{"global() with more, Allow", `{action: Allow, source: {namespaceSelector: global() || has(a)}}`, never(ruleset.Allow)},
		{"port 0, Allow", `{action: Allow, protocol: TCP, source: {ports: [0]}}`, never(ruleset.Allow)},
		{"port 0, Deny", `{action: Deny, protocol: TCP, source: {ports: [80, 0]}}`, ruleset.Rule{Action: ruleset.Deny, Protocol: ruleset.TCP}},
		{"icmp code without type, Allow", `{action: Allow, protocol: ICMP, icmp: {code: 1}}`, never(ruleset.Allow)},
		{"icmp type out of range, Allow", `{action: Allow, protocol: ICMP, icmp: {type: 300}}`, never(ruleset.Allow)},
		{"unknown action", `{action: bogus}`, ruleset.Rule{Action: ruleset.Deny}},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			got, k := compile(t, "", test.rule)
			if !reflect.DeepEqual(got, test.want) {
				t.Errorf("%s compiles to\n%+v, want\n%+v", test.rule, got, test.want)
			}
			for _, id := range append(got.Source.Sets, got.Destination.NotSets...) {
				if !k.collected(id) {
					t.Errorf("set %s is used and not collected", id)
				}
			}
			if reflect.DeepEqual(got, never(got.Action)) && (len(k.specs) > 0 || len(k.warnings) == 0) {
				t.Errorf("a rule that matches nothing has sets %v and warnings %q", k.specs, k.warnings)
			}
		})
	}
}

func (k *compiler) collected(id ruleset.SetID) bool {
	for _, s := range k.specs {
		if s.id() == id {
			return true
		}
	}
	return false
}

// TestCompileSelectors: which addresses an entity means, as canonical selectors.
// TestRulesInDoubt: what a rule asks for beyond what this release knows never widens what is allowed.
func TestRulesInDoubt(t *testing.T) {
	never := func(action string) string { return action + " nothing" }
	for _, test := range []struct{ rule, want string }{
		{`{"action":"Allow","destination":{"domains":["example.com"]}}`, never("Allow")},
		{`{"action":"Pass","newMatch":{"a":null}}`, "Deny"},
		{`{"action":"Log","newMatch":1}`, never("Log")},
		{`{"action":"Deny","source":{"newMatch":1}}`, "Deny"},
		{`{"action":"Allow","icmp":{"type":8,"newMatch":1},"protocol":"ICMP"}`, never("Allow")},
		{`{"action":"Allow","metadata":{"new":1}}`, "Allow"},
		{`{"action":"Allow","http":{"newMatch":1}}`, "Allow"},
	} {
		for _, kind := range []v3.Kind{v3.KindGlobalNetworkPolicy, v3.KindProfile} {
			r, err := v3.DecodeStored(kind, []byte(`{"metadata":{"name":"p"},"spec":{"ingress":[`+test.rule+`]}}`))
			if err != nil {
				t.Fatal(err)
			}
			var list []v3.Rule
			switch r := r.(type) {
			case *v3.GlobalNetworkPolicy:
				list = r.Spec.Ingress
			case *v3.Profile:
				list = r.Spec.Ingress
			}
			k := &compiler{}
			is := k.rules("spec.ingress", list, ruleset.Ingress)[0]
			got := is.Action.String()
			if is.Source.Nets != nil {
				got = never(got)
			}
			if got != test.want || len(list[0].Unknown) > 0 && !strings.Contains(strings.Join(k.warnings, ""), "not known to this release") {
				t.Errorf("%s %s: %s, want %s; warnings %q", kind, test.rule, got, test.want, k.warnings)
			}
		}
	}
}

func TestCompileSelectors(t *testing.T) {
	const hasNS = "has(projectcalico.org/namespace)"
	const ownNS = `projectcalico.org/namespace == "ns"`
	const none = ""
	tests := []struct {
		name, entity               string
		global, notGlobal          string // in a GlobalNetworkPolicy
		namespaced, notInNamespace string // in a NetworkPolicy of namespace ns
	}{
		{"nothing", `{}`, none, none, none, none},
		{"only nets", `{nets: [10.0.0.0/8]}`, none, none, none, none},
		{"only ports", `{ports: [http]}`, none, none, none, none},
		{"selector", `{selector: "a == 'x'"}`, `a == "x"`, none, `(` + ownNS + ` && a == "x")`, none},
		{"selector all()", `{selector: all()}`, `all()`, none, ownNS, none},
		{"notSelector", `{notSelector: has(a)}`, none, `has(a)`, ownNS, `has(a)`},
		{"selector and notSelector", `{selector: has(a), notSelector: has(b)}`, `has(a)`, `has(b)`, `(` + ownNS + ` && has(a))`, `has(b)`},
		{"namespaceSelector", `{namespaceSelector: env == "p"}`, `pcns.env == "p"`, none, `pcns.env == "p"`, none},
		{"namespaceSelector all()", `{namespaceSelector: all()}`, hasNS, none, hasNS, none},
		{"namespaceSelector !all()", `{namespaceSelector: "!all()"}`, `!` + hasNS, none, `!` + hasNS, none},
		{"namespaceSelector global()", `{namespaceSelector: global()}`, `!` + hasNS, none, `!` + hasNS, none},
		{"namespaceSelector and selector", `{namespaceSelector: has(e), selector: has(a)}`, `(has(pcns.e) && has(a))`, none, `(has(pcns.e) && has(a))`, none},
		{"namespaceSelector and notSelector", `{namespaceSelector: global(), notSelector: has(a)}`, `!` + hasNS, `has(a)`, `!` + hasNS, `has(a)`},
		{"service account names", `{serviceAccounts: {names: [b, a]}}`, `projectcalico.org/serviceaccount in {"a", "b"}`, none,
			`(` + ownNS + ` && projectcalico.org/serviceaccount in {"a", "b"})`, none},
		{"service account selector", `{serviceAccounts: {selector: has(r)}}`, `has(pcsa.r)`, none, `(` + ownNS + ` && has(pcsa.r))`, none},
		{"service account names and selector", `{serviceAccounts: {names: [a], selector: has(r)}}`,
			`(has(pcsa.r) && projectcalico.org/serviceaccount in {"a"})`, none,
			`(` + ownNS + ` && has(pcsa.r) && projectcalico.org/serviceaccount in {"a"})`, none},
		{"service account names elsewhere", `{namespaceSelector: has(e), serviceAccounts: {names: [a]}}`,
			`(has(pcns.e) && projectcalico.org/serviceaccount in {"a"})`, none,
			`(has(pcns.e) && projectcalico.org/serviceaccount in {"a"})`, none},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			var e v3.EntityRule
			if err := yaml.UnmarshalStrict([]byte(test.entity), &e); err != nil {
				t.Fatal(err)
			}
			check := func(namespace, positive, negative string) {
				k := &compiler{namespace: namespace}
				p, n := k.selectors("source", &e)
				if got := textOf(p); got != positive {
					t.Errorf("in %q: selected by %s, want %s", namespace, got, positive)
				}
				if got := textOf(n); got != negative {
					t.Errorf("in %q: not selected by %s, want %s", namespace, got, negative)
				}
			}
			check("", test.global, test.notGlobal)
			check("ns", test.namespaced, test.notInNamespace)
		})
	}
}

func textOf(s *selector.Selector) string {
	if s == nil {
		return ""
	}
	return s.String()
}

func TestCompileWarns(t *testing.T) {
	tests := []struct{ rule, want string }{
		{`{action: Allow, http: {methods: [GET]}}`, "spec.ingress[0].http: is not enforced"},
		{`{action: Deny, protocol: TCP, destination: {services: {name: s, namespace: ns}}}`, "spec.ingress[0].destination.services: a service can be the source of ingress and the destination of egress only; the rule denies as if the field were not there"},
		{`{action: Allow, source: {selector: all()}}`, "spec.ingress[0].source.selector: all() matches the addresses of known"},
		{`{action: Pass, protocol: TCP, destination: {services: {name: s, namespace: ns}}}`, "the rule denies instead of passing"},
		{`{action: Allow, protocol: TCP, destination: {ports: []}}`, "spec.ingress[0].destination.ports: the list is empty; the rule matches nothing"},
		{`{action: Deny, source: {nets: [10.0.0.0/8, bogus]}}`, `spec.ingress[0].source.nets[1]: "bogus" is no network`},
		{`{action: bogus}`, `spec.ingress[0].action: "bogus" is unknown; the rule denies`},
	}
	for _, test := range tests {
		_, k := compile(t, "", test.rule)
		if len(k.warnings) != 1 || !strings.Contains(k.warnings[0], test.want) {
			t.Errorf("%s warns %q, want %q", test.rule, k.warnings, test.want)
		}
	}
	if _, k := compile(t, "", `{action: Allow, protocol: TCP, source: {selector: has(a), ports: [http, 80]}}`); len(k.warnings) != 0 {
		t.Errorf("an ordinary rule warns %q", k.warnings)
	}
}
