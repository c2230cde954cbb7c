package ctl

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	v3 "margay/api/v3"
)

// landscapeOf returns the landscape of objects written in short.
func landscapeOf(t *testing.T, objects ...string) *landscape {
	t.Helper()
	l := newLandscape()
	for _, text := range objects {
		for _, r := range decoded(t, "{apiVersion: projectcalico.org/v3, "+text+"}") {
			v3.Default(r)
			if err := v3.Validate(r); err != nil {
				t.Fatal(err)
			}
			l.add(r)
		}
	}
	return l
}

const (
	in      = "tcp 22, udp 68, tcp 179, tcp 2379, tcp 2380, tcp 5473, tcp 6443, tcp 6666, tcp 6667"
	out     = "udp 53, udp 67, tcp 179, tcp 2379, tcp 2380, tcp 5473, tcp 6443, tcp 6666, tcp 6667"
	hep     = "kind: HostEndpoint, metadata: {name: m.eth0, labels: {role: m}}, spec: {node: m, interfaceName: eth0}"
	hep2    = "kind: HostEndpoint, metadata: {name: k.eth0, labels: {role: k}}, spec: {node: k, interfaceName: eth0}"
	both    = `kind: GlobalNetworkPolicy, metadata: {name: both}, spec: {selector: role == "m", types: [Ingress, Egress]}`
	ingress = `kind: GlobalNetworkPolicy, metadata: {name: ingress}, spec: {selector: role == "m", types: [Ingress]}`
	egress  = `kind: GlobalNetworkPolicy, metadata: {name: egress}, spec: {selector: role == "m", types: [Egress]}`
)

// TestBare checks the warning about host endpoints of which nothing is said any more.
func TestBare(t *testing.T) {
	const nobody = "no policy selects it: all traffic to and from it is denied but the failsafe ports (in: " + in + "; out: " + out + ")"
	for _, tc := range []struct {
		name          string
		before, after []string
		want          []string
	}{
		{"created without policy", nil, []string{hep}, []string{"HostEndpoint m.eth0: " + nobody}},
		{"two alike share a warning", nil, []string{hep, hep2}, []string{"HostEndpoint k.eth0, m.eth0: " + nobody}},
		{"created under a policy", []string{both}, []string{both, hep}, nil},
		{"created together with its policy", nil, []string{hep, both}, nil},
		{"was like that before", []string{hep}, []string{hep}, nil},
		{"policy deleted", []string{hep, both}, []string{hep}, []string{"HostEndpoint m.eth0: " + nobody}},
		{"label taken away", []string{hep, both}, []string{strings.Replace(hep, "role: m", "role: x", 1), both}, []string{"HostEndpoint m.eth0: " + nobody}},
		{"ingress only", nil, []string{hep, ingress}, []string{"HostEndpoint m.eth0: no egress policy selects it: all connections from it are denied but those to the failsafe ports (" + out + ")"}},
		{"egress only", nil, []string{hep, egress}, []string{"HostEndpoint m.eth0: no ingress policy selects it: all traffic to it is denied but the failsafe ports (" + in + ")"}},
		{"one of two deleted", []string{hep, ingress, egress}, []string{hep, egress}, []string{"HostEndpoint m.eth0: no ingress policy selects it: all traffic to it is denied but the failsafe ports (" + in + ")"}},
		{"preDNAT says nothing about the rest", nil, []string{hep, egress,
			"kind: GlobalNetworkPolicy, metadata: {name: early}, spec: {preDNAT: true, applyOnForward: true, types: [Ingress]}"},
			[]string{"HostEndpoint m.eth0: no ingress policy selects it: all traffic to it is denied but the failsafe ports (" + in + ")"}},
		{"namespaceSelector never means hosts", nil, []string{hep,
			"kind: GlobalNetworkPolicy, metadata: {name: pods}, spec: {namespaceSelector: all(), types: [Ingress, Egress]}"},
			[]string{"HostEndpoint m.eth0: " + nobody}},
		{"empty selector means all", nil, []string{hep, "kind: GlobalNetworkPolicy, metadata: {name: all}, spec: {types: [Ingress, Egress]}"}, nil},
		{"built-in profile allows", nil, []string{strings.Replace(hep, "node: m", "node: m, profiles: [projectcalico-default-allow]", 1)}, nil},
		{"profile that does not exist", nil, []string{strings.Replace(hep, "node: m", "node: m, profiles: [p]", 1)}, []string{"HostEndpoint m.eth0: " + nobody}},
		{"label of a profile", nil, []string{"kind: HostEndpoint, metadata: {name: m.eth0}, spec: {node: m, interfaceName: eth0, profiles: [x, p]}",
			"kind: Profile, metadata: {name: p}, spec: {labelsToApply: {role: m}}", both}, nil},
		{"failsafes of the node beat the default", nil, []string{hep,
			"kind: FelixConfiguration, metadata: {name: default}, spec: {failsafeInboundHostPorts: [{protocol: TCP, port: 1}], failsafeOutboundHostPorts: []}",
			"kind: FelixConfiguration, metadata: {name: node.m}, spec: {failsafeInboundHostPorts: [{port: 22, net: 10.0.0.0/8}, {protocol: UDP, port: 68}]}"},
			[]string{"HostEndpoint m.eth0: no policy selects it: all traffic to and from it is denied but the failsafe ports (in: tcp 22 from 10.0.0.0/8, udp 68; out: none)"}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			got := landscapeOf(t, tc.after...).bare(landscapeOf(t, tc.before...))
			if diff := cmp.Diff(tc.want, got); diff != "" {
				t.Errorf("-want +got:\n%s", diff)
			}
		})
	}
}

// TestLost checks the warning about an apply that replaced a policy of the same name (guide defect G1).
func TestLost(t *testing.T) {
	guide := func(port, action, more string) string {
		return `kind: GlobalNetworkPolicy, metadata: {name: restrict}, spec: {selector: role == "m"` + more + `, types: [Ingress], ingress: [{action: ` +
			action + `, protocol: TCP, source: {notSelector: a == "b"}, destination: {ports: [` + port + `]}}]}`
	}
	const lead, advice = "GlobalNetworkPolicy(restrict) existed and was replaced; what it said before is no longer in force: ",
		" Give the new policy a name of its own if both are wanted."
	for _, tc := range []struct{ name, old, new, want string }{
		{"another port", guide("9091", "Deny", ""), guide("9093", "Deny", ""),
			lead + `ingress[0] Deny TCP from !(a == "b") to port 9091 (now only to port 9093). It applied to HostEndpoint m.eth0.` + advice},
		{"another action", guide("9091", "Deny", ""), guide("9091", "Allow", ""),
			lead + `ingress[0] Deny TCP from !(a == "b") to port 9091. It applied to HostEndpoint m.eth0.` + advice},
		{"another selector", guide("9091", "Deny", ""), strings.Replace(guide("9091", "Deny", ""), `role == "m"`, `role == "k"`, 1),
			lead + "it no longer selects HostEndpoint m.eth0. It applied to HostEndpoint m.eth0." + advice},
		{"selected nothing", strings.Replace(guide("9091", "Deny", ""), `role == "m"`, `role == "x"`, 1), strings.Replace(guide("9093", "Deny", ""), `role == "m"`, `role == "x"`, 1),
			lead + `ingress[0] Deny TCP from !(a == "b") to port 9091 (now only to port 9093). It selected no host endpoint.` + advice},
		{"one more rule", guide("9091", "Deny", ""), strings.Replace(guide("9091", "Deny", ""), "ingress: [", "ingress: [{action: Allow}, ", 1), ""},
		{"another order", guide("9091", "Deny", ""), guide("9091", "Deny", ", order: 7"), ""},
		{"a flag", guide("9091", "Deny", ", applyOnForward: true"), guide("9091", "Deny", ""),
			lead + "applyOnForward. It applied to HostEndpoint m.eth0." + advice},
		{"a type", strings.Replace(guide("9091", "Deny", ""), "[Ingress]", "[Ingress, Egress]", 1), guide("9091", "Deny", ""),
			lead + "type Egress. It applied to HostEndpoint m.eth0." + advice},
		{"namespaced", "kind: NetworkPolicy, metadata: {name: p, namespace: x}, spec: {egress: [{action: Allow, protocol: 17, destination: {nets: [10.0.0.0/8], ports: [53, dns]}}]}",
			"kind: NetworkPolicy, metadata: {name: p, namespace: x}, spec: {}",
			"NetworkPolicy(x/p) existed and was replaced; what it said before is no longer in force: egress[0] Allow 17 to 10.0.0.0/8 port 53,dns." + advice},
	} {
		t.Run(tc.name, func(t *testing.T) {
			a := &adviser{before: landscapeOf(t, hep, hep2)}
			r := replacement{decoded(t, "{apiVersion: projectcalico.org/v3, "+tc.old+"}")[0], decoded(t, "{apiVersion: projectcalico.org/v3, "+tc.new+"}")[0]}
			if diff := cmp.Diff(tc.want, strings.Join(a.lost(r), "\n")); diff != "" {
				t.Errorf("-want +got:\n%s", diff)
			}
		})
	}
}
