package convert

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	v3 "margay/api/v3"
)

// shown returns resources as JSON, one per line, without type and status.
func shown(t *testing.T, resources []v3.Resource) string {
	t.Helper()
	var lines []string
	for _, r := range resources {
		text, err := json.Marshal(r)
		if err != nil {
			t.Fatal(err)
		}
		var tree map[string]any
		if err := json.Unmarshal(text, &tree); err != nil {
			t.Fatal(err)
		}
		delete(tree, "apiVersion")
		delete(tree, "status")
		if text, err = json.Marshal(tree); err != nil {
			t.Fatal(err)
		}
		lines = append(lines, string(text))
	}
	return strings.Join(lines, "\n")
}

func TestResources(t *testing.T) {
	const policy = "apiVersion: v1\nkind: policy\n"
	for _, c := range []struct{ name, in, want string }{
		{"policy", policy + "metadata: {name: Web.Front, annotations: {a: b}}\nspec:\n  order: 100.5\n  selector: role == 'web' && calico/k8s_ns == 'x'\n" +
			"  ingress:\n  - action: allow\n    protocol: tcp\n    source: {tag: lb, selector: a == 'b' || c == 'd', net: 10.1.2.3/8, nets: [192.0.2.1]}\n" +
			"    destination: {ports: [80, '8080:8090'], notPorts: [8081], notTag: closed, notSelector: x == 'y'}\n" +
			"  - {icmp: {type: 8}, protocol: icmp, ipVersion: 4, source: {notNet: 10.0.0.0/8}}\n  egress:\n  - {action: next-tier, notProtocol: udplite}\n",
			`{"kind":"GlobalNetworkPolicy","metadata":{"annotations":{"a":"b"},"labels":{"projectcalico.org/tier":"default"},"name":"web-front-3b37a10c"},` +
				`"spec":{"egress":[{"action":"Pass","destination":{},"notProtocol":"UDPLite","source":{}}],"ingress":[{"action":"Allow",` +
				`"destination":{"notPorts":[8081],"notSelector":"(x == 'y') \u0026\u0026 closed == ''","ports":[80,"8080:8090"]},"protocol":"TCP",` +
				`"source":{"nets":["10.0.0.0/8","192.0.2.1/32"],"selector":"(a == 'b' || c == 'd') \u0026\u0026 lb == ''"}},` +
				`{"action":"Allow","destination":{},"icmp":{"type":8},"ipVersion":4,"protocol":"ICMP","source":{"notNets":["10.0.0.0/8"]}}],` +
				`"order":100.5,"selector":"role == 'web' \u0026\u0026 projectcalico.org/namespace == 'x'","tier":"default","types":["Ingress","Egress"]}}`},
		{"policy of a tier", policy + "metadata: {name: p, tier: sec}\nspec: {selector: all(), doNotTrack: true, types: [INGRESS], ingress: [{action: deny}]}",
			`{"kind":"GlobalNetworkPolicy","metadata":{"labels":{"projectcalico.org/tier":"sec"},"name":"sec.p"},"spec":{"applyOnForward":true,"doNotTrack":true,` +
				`"ingress":[{"action":"Deny","destination":{},"source":{}}],"selector":"all()","tier":"sec","types":["Ingress"]}}`},
		{"profile", "apiVersion: v1\nkind: profile\nmetadata: {name: k8s_ns.web, tags: [t], labels: {a: b}}\nspec: {ingress: [{action: allow}]}",
			`{"kind":"Profile","metadata":{"name":"kns.web"},"spec":{"ingress":[{"action":"Allow","destination":{},"source":{}}],"labelsToApply":{"a":"b","t":""}}}`},
		{"host endpoint", "apiVersion: v1\nkind: hostEndpoint\nmetadata: {name: eth0, node: Host_1, labels: {type: frontend}}\n" +
			"spec: {interfaceName: eth0, expectedIPs: ['2001:db8::1', 192.168.0.1], profiles: [prof/1], ports: [{name: http, protocol: tcp, port: 80}]}",
			`{"kind":"HostEndpoint","metadata":{"labels":{"type":"frontend"},"name":"host-1.eth0"},"spec":{"expectedIPs":["192.168.0.1","2001:db8::1"],` +
				`"interfaceName":"eth0","node":"host-1","ports":[{"name":"http","port":80,"protocol":"TCP"}],"profiles":["prof.1-2d43eb0d"]}}`},
		{"list of tier and node", "- {apiVersion: v1, kind: tier, metadata: {name: t}, spec: {order: 5}}\n- {apiVersion: v1, kind: node, metadata: {name: n1}, spec: {bgp: {asNumber: 64512}}}",
			`{"kind":"Tier","metadata":{"name":"t"},"spec":{"order":5}}` + "\n" + `{"kind":"Node","metadata":{"name":"n1"},"spec":{"bgp":{"asNumber":64512}}}`},
		{"documents, json", `{"apiVersion":"v1","kind":"tier","metadata":{"name":"a"}}` + "\n---\n---\n" + `{"apiVersion":"v1","kind":"tier","metadata":{"name":"b"}}`,
			`{"kind":"Tier","metadata":{"name":"a"},"spec":{}}` + "\n" + `{"kind":"Tier","metadata":{"name":"b"},"spec":{}}`},
		{"kubernetes", "apiVersion: v1\nkind: List\nitems:\n- apiVersion: networking.k8s.io/v1\n  kind: NetworkPolicy\n  metadata: {name: web, namespace: shop, labels: {l: m}, creationTimestamp: null}\n" +
			"  spec:\n    podSelector: {matchLabels: {role: web}}\n    ingress:\n    - from: [{podSelector: {matchLabels: {role: lb}}, namespaceSelector: {}}, {ipBlock: {cidr: 10.0.0.0/8, except: [10.1.0.0/16]}}]\n" +
			"      ports: [{port: 80}, {port: dns, protocol: UDP}]\n    egress: [{}]\n",
			`{"kind":"NetworkPolicy","metadata":{"labels":{"l":"m"},"name":"web","namespace":"shop"},"spec":{"egress":[{"action":"Allow","destination":{},"source":{}}],` +
				`"ingress":[{"action":"Allow","destination":{"ports":[80]},"protocol":"TCP","source":{"namespaceSelector":"all()","selector":"projectcalico.org/orchestrator == 'k8s' \u0026\u0026 role == 'lb'"}},` +
				`{"action":"Allow","destination":{"ports":[80]},"protocol":"TCP","source":{"nets":["10.0.0.0/8"],"notNets":["10.1.0.0/16"]}},` +
				`{"action":"Allow","destination":{"ports":["dns"]},"protocol":"UDP","source":{"namespaceSelector":"all()","selector":"projectcalico.org/orchestrator == 'k8s' \u0026\u0026 role == 'lb'"}},` +
				`{"action":"Allow","destination":{"ports":["dns"]},"protocol":"UDP","source":{"nets":["10.0.0.0/8"],"notNets":["10.1.0.0/16"]}}],"order":1000,` +
				`"selector":"projectcalico.org/orchestrator == 'k8s' \u0026\u0026 role == 'web'","tier":"default","types":["Ingress","Egress"]}}`},
	} {
		t.Run(c.name, func(t *testing.T) {
			got, err := Resources("f", []byte(c.in))
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(c.want, shown(t, got)); diff != "" {
				t.Errorf("-want +got:\n%s", diff)
			}
		})
	}
}

// TestRefused has what must not become a rule that matches more than was meant.
func TestRefused(t *testing.T) {
	const head = "apiVersion: v1\nkind: policy\nmetadata: {name: p}\n"
	const kubernetes = "apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata: {name: p}\n"
	for in, want := range map[string]string{
		"":                             "f: no resources specified",
		"apiVersion: v1\nkind: pod":    "f: document 1: conversion for the resource type 'pod' is not supported",
		"apiVersion: v2\nkind: policy": "conversion from apiVersion 'v2' is not supported",
		"apiVersion: networking.k8s.io/v1\nkind: Ingress":                                               "conversion for the k8s resource type 'Ingress' is not supported",
		head + "spec: {ingress: [{source: {selectr: x}}]}":                                              "policy: field in document is not recognized or is in the wrong location: selectr",
		head + "spec: {ingress: [{source: {selector: }}]}":                                              "line 4: key selector has no value",
		head + "spec: {ingress: [{action: permit}]}":                                                    "policy: p: spec.ingress[0]: action 'permit' is not known",
		head + "spec: {egress: [{source: {nets: [x]}}]}":                                                "policy: p: spec.egress[0]: source.nets: 'x' is no CIDR and no address",
		head + "spec: {types: [both]}":                                                                  "invalid policy type: 'both'",
		head + "spec: {order: x}":                                                                       "policy: ",
		head + "spec: {order: 1, order: 2}":                                                             "f: document 1: ",
		"apiVersion: v1\nkind: profile\nmetadata: {name: p, tags: [a], labels: {a: b}}":                 "tag 'a' and label 'a == b' have the same name",
		kubernetes + "spec: {podSelector: {}, ingress: [{from: [{ipBlock: {cidr: 10.0.0.0/99}}]}]}":     "NetworkPolicy default/p of Kubernetes: ",
		kubernetes + "spec: {podSelector: {}, ingress: [{ports: [{port: 99999}]}]}":                     "NetworkPolicy default/p of Kubernetes: ",
		kubernetes + "spec: {podSelector: {matchExpressions: [{key: a, operator: Like, values: [b]}]}}": "NetworkPolicy default/p of Kubernetes: ",
		kubernetes + "spec: {podSelector: {}, ingres: []}":                                              "field in document is not recognized or is in the wrong location: ingres",
		"a: &a [x, x]\nb: &b [*a, *a, *a, *a, *a, *a, *a, *a, *a, *a]\nc: &c [*b, *b, *b, *b, *b, *b, *b, *b, *b, *b]\nd: &d [*c, *c, *c, *c, *c, *c, *c, *c, *c, *c]\n" +
			"e: &e [*d, *d, *d, *d, *d, *d, *d, *d, *d, *d]\nf: &f [*e, *e, *e, *e, *e, *e, *e, *e, *e, *e]\ng: [*f, *f, *f, *f, *f, *f, *f, *f, *f, *f]": "it holds more than 1000000 values",
		"\x00\x01": "f: document 1: ",
	} {
		got, err := Resources("f", []byte(in))
		if err == nil || got != nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s\ngot %s, %v, want an error with %q", in, shown(t, got), err, want)
		}
	}
}

// FuzzResources checks that there is an error exactly when there is no result.
func FuzzResources(f *testing.F) {
	f.Add("apiVersion: v1\nkind: policy\nmetadata: {name: p}\nspec: {selector: all(), ingress: [{action: allow}]}")
	f.Add("apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata: {name: p}\nspec: {podSelector: {}}")
	f.Fuzz(func(t *testing.T, in string) {
		got, err := Resources("f", []byte(in))
		if (err == nil) != (len(got) > 0) {
			t.Errorf("%d resources, %v", len(got), err)
		}
	})
}

func TestNames(t *testing.T) {
	for in, want := range map[string]string{"plain": "plain", "a.b": "a.b", "A_b": "a-b", "a/b": "a.b", "-a-.-b-": "a.b", "": ""} {
		if got := normal(in); got != want {
			t.Errorf("normal(%q) is %q, want %q", in, got, want)
		}
	}
	if got := nameWithoutDots("a.b"); got != "a-b-69f6642c" {
		t.Errorf("name without dots is %q", got)
	}
}
