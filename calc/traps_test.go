package calc

import (
	"strings"
	"testing"
)

func TestManifestTraps(t *testing.T) {
	tests := []struct{ name, spec, want string }{
		{"!=", `selector: role != "db"`, "also matches what does not have the label"},
		{"not in, bound", `selector: 'role not in {"db"} && has(role)'`, ""},
		{"==", `selector: role == "db"`, ""},
		{"!= of whom is allowed", `ingress: [{action: Allow, source: {selector: role != "db"}}]`, `spec.ingress[0].source.selector "role != \"db\"" also matches`},
		{"!= of whom is allowed, bound", `ingress: [{action: Allow, source: {selector: role != "db" && has(role)}}]`, ""},
		{"not in, of namespaces", `egress: [{action: Pass, destination: {namespaceSelector: 'env not in {"prod"}'}}], types: [Egress]`, "spec.egress[0].destination.namespaceSelector"},
		{"!= of service accounts", `ingress: [{action: Allow, source: {serviceAccounts: {selector: role != "db"}}}]`, "spec.ingress[0].source.serviceAccounts.selector"},
		{"!= of whom is denied", `ingress: [{action: Deny, source: {selector: role != "db"}}]`, ""},
		{"!= of whom is spared", `ingress: [{action: Deny, source: {notSelector: role != "db"}}]`, "spec.ingress[0].source.notSelector"},
		{"notSelector of all namespaces", `ingress: [{action: Deny, source: {namespaceSelector: all(), notSelector: has(a)}}]`, "spec.ingress[0].source.notSelector: beside namespaceSelector all()"},
		{"notSelector of some namespaces", `ingress: [{action: Deny, source: {namespaceSelector: has(a), notSelector: has(a)}}]`, ""},
		{"notSelector of nothing in particular", `ingress: [{action: Deny, source: {notSelector: has(a)}}]`, ""},
		{"notSelector of all namespaces, to allow", `ingress: [{action: Allow, source: {namespaceSelector: all(), notSelector: has(a)}}]`, ""},
		{"namespaceSelector that hosts satisfy", `namespaceSelector: env != "prod"`, "spec.namespaceSelector matches host endpoints"},
		{"namespaceSelector all()", `namespaceSelector: all()`, ""},
		{"namespaceSelector with a label", `namespaceSelector: env == "prod"`, ""},
		{"node port", `ingress: [{action: Deny, protocol: TCP, destination: {ports: [30080]}}]`, "30080 is a node port"},
		{"node port, preDNAT", `preDNAT: true, applyOnForward: true, ingress: [{action: Deny, protocol: TCP, destination: {ports: [30080]}}]`, ""},
		{"node port of workloads", `namespaceSelector: all(), ingress: [{action: Deny, protocol: TCP, destination: {ports: [30080]}}]`, ""},
	}
	for _, test := range tests {
		got := ManifestTraps(parse(t, "kind: GlobalNetworkPolicy\nmetadata: {name: p}\nspec: {"+test.spec+"}")[0])
		if len(got) > 1 || (len(got) == 1) != (test.want != "") || len(got) == 1 && !strings.Contains(got[0], test.want) {
			t.Errorf("%s: %q, want %q", test.name, got, test.want)
		}
	}
	if got := ManifestTraps(parse(t, host("eth0", "eth0", ""))[0]); got != nil {
		t.Errorf("of a host endpoint: %q", got)
	}
}
