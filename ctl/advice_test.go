package ctl

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	v3 "margay/api/v3"
	"margay/store"
)

// landscapeOf returns the landscape of objects written in short.
func landscapeOf(t *testing.T, objects ...string) *landscape {
	t.Helper()
	l := newLandscape(nodeSettings)
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
	const (
		apply  = "; apply a policy that allows what is needed, or name profile projectcalico-default-allow"
		nobody = "no policy applies: all traffic in and out is denied but the failsafe ports (in: " + in + "; out: " + out + ")" + apply
		noIn   = "HostEndpoint m.eth0: no ingress policy applies: all incoming traffic is denied but the failsafe ports (" + in + "); apply a policy with types: [Ingress] that allows what is offered"
		noOut  = "HostEndpoint m.eth0: no egress policy applies: all outgoing connections are denied but those to the failsafe ports (" + out + "); apply a policy with types: [Egress] that allows what is needed"
	)
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
		{"ingress only", nil, []string{hep, ingress}, []string{noOut}},
		{"egress only", nil, []string{hep, egress}, []string{noIn}},
		{"one of two deleted", []string{hep, ingress, egress}, []string{hep, egress}, []string{noIn}},
		{"preDNAT says nothing about the rest", nil, []string{hep, egress,
			"kind: GlobalNetworkPolicy, metadata: {name: early}, spec: {preDNAT: true, applyOnForward: true, types: [Ingress]}"},
			[]string{noIn}},
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
			[]string{"HostEndpoint m.eth0: no policy applies: all traffic in and out is denied but the failsafe ports (in: tcp 22 from 10.0.0.0/8, udp 68; out: none)" + apply}},
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
	const did = "GlobalNetworkPolicy(restrict) existed and was replaced. "
	gone := func(what string) string {
		return "\n  Gone: " + what + ".\n  Give the new policy a name of its own if both are wanted."
	}
	two := guide("9091, 9092", "Deny", "")
	for _, tc := range []struct{ name, old, new, want string }{
		{"another port", guide("9091", "Deny", ""), guide("9093", "Deny", ""),
			did + "No longer protected by it: TCP port 9091, on HostEndpoint m.eth0." +
				gone(`ingress[0] Deny TCP from !(a == "b") to port 9091 (now only to port 9093)`)},
		{"another action", guide("9091", "Deny", ""), guide("9091", "Allow", ""),
			did + "No longer protected by it: TCP port 9091, on HostEndpoint m.eth0." + gone(`ingress[0] Deny TCP from !(a == "b") to port 9091`)},
		{"an allowed port", guide("9091", "Allow", ""), guide("9093", "Allow", ""),
			did + "No longer allowed by it: TCP port 9091, on HostEndpoint m.eth0." +
				gone(`ingress[0] Allow TCP from !(a == "b") to port 9091 (now only to port 9093)`)},
		{"one port of two", two, guide("9092", "Deny", ""),
			did + "No longer protected by it: TCP port 9091, on HostEndpoint m.eth0." +
				gone(`ingress[0] Deny TCP from !(a == "b") to port 9091,9092 (now only to port 9092)`)},
		{"one more port", guide("9091", "Deny", ""), two, ""},
		{"a range around it", guide("9091", "Deny", ""), guide("9000:9100", "Deny", ""), ""},
		{"another selector", guide("9091", "Deny", ""), strings.Replace(guide("9091", "Deny", ""), `role == "m"`, `role == "k"`, 1),
			did + "What it said before is no longer in force on HostEndpoint m.eth0." + gone("it no longer selects HostEndpoint m.eth0")},
		{"selected nothing", strings.Replace(guide("9091", "Deny", ""), `role == "m"`, `role == "x"`, 1), strings.Replace(guide("9093", "Deny", ""), `role == "m"`, `role == "x"`, 1),
			did + "No longer protected by it: TCP port 9091 (it selected no host endpoint)." +
				gone(`ingress[0] Deny TCP from !(a == "b") to port 9091 (now only to port 9093)`)},
		{"one more rule", guide("9091", "Deny", ""), strings.Replace(guide("9091", "Deny", ""), "ingress: [", "ingress: [{action: Allow}, ", 1), ""},
		{"another order", guide("9091", "Deny", ""), guide("9091", "Deny", ", order: 7"), ""},
		{"a flag", guide("9091", "Deny", ", applyOnForward: true"), guide("9091", "Deny", ""),
			did + "What it said before is no longer in force on HostEndpoint m.eth0." + gone("applyOnForward")},
		{"a type", strings.Replace(guide("9091", "Deny", ""), "[Ingress]", "[Ingress, Egress]", 1), guide("9091", "Deny", ""),
			did + "What it said before is no longer in force on HostEndpoint m.eth0." + gone("type Egress")},
		{"namespaced", "kind: NetworkPolicy, metadata: {name: p, namespace: x}, spec: {egress: [{action: Allow, protocol: 17, destination: {nets: [10.0.0.0/8], ports: [53, dns]}}]}",
			"kind: NetworkPolicy, metadata: {name: p, namespace: x}, spec: {}",
			"NetworkPolicy(x/p) existed and was replaced. No longer allowed by it: connections to 17 port 53,dns." +
				gone("egress[0] Allow 17 to 10.0.0.0/8 port 53,dns")},
	} {
		t.Run(tc.name, func(t *testing.T) {
			before := landscapeOf(t, hep, hep2)
			c := replaced(t, tc.old, tc.new)
			if diff := cmp.Diff(tc.want, (&adviser{before: before}).lost(c, before.after([]*change{c}), store.Commit)); diff != "" {
				t.Errorf("-want +got:\n%s", diff)
			}
		})
	}
	c := replaced(t, guide("9091", "Deny", ""), guide("9093", "Deny", ""))
	if text := (&adviser{}).lost(c, nil, store.DryRun); !strings.HasPrefix(text, "GlobalNetworkPolicy(restrict) exists and would be replaced. No longer protected by it: TCP port 9091.\n") {
		t.Errorf("a dry run says %q", text)
	}
	for _, other := range []struct {
		text  string
		warns bool
	}{
		{strings.Replace(guide("9091", "Deny", ""), "name: restrict", "name: restrict-node", 1), false},
		{strings.Replace(guide("9091", "Deny", ", tier: t"), "name: restrict", "name: restrict-node", 1), true},
		{strings.Replace(strings.Replace(guide("9091", "Deny", ""), "name: restrict", "name: restrict-node", 1), `role == "m"`, `role == "k"`, 1), true},
	} {
		before := landscapeOf(t, hep, hep2)
		text := (&adviser{before: before}).lost(c, landscapeOf(t, hep, hep2, other.text), store.Commit)
		if (text != "") != other.warns {
			t.Errorf("with %s: %q", other.text, text)
		}
	}
}

// replaced is what apply does when one manifest comes after another.
func replaced(t *testing.T, old, now string) *change {
	t.Helper()
	was, is := decoded(t, "{apiVersion: projectcalico.org/v3, "+old+"}")[0], decoded(t, "{apiVersion: projectcalico.org/v3, "+now+"}")[0]
	v3.Default(was)
	v3.Default(is)
	return &change{key: v3.KeyOf(is), old: version{Resource: was}, result: is, state: stateConfigured}
}

// TestHostPods checks the warning about labels of pods that have no endpoint (guide defect G5).
func TestHostPods(t *testing.T) {
	const (
		global = `kind: GlobalNetworkPolicy, metadata: {name: p}, spec: {selector: role == "m", ingress: [{action: Allow, source: {selector: access == "true"}}]}`
		local  = `kind: NetworkPolicy, metadata: {name: p, namespace: apps}, spec: {ingress: [{action: Allow, source: {selector: access == "true"}}]}`
		all    = `kind: NetworkPolicy, metadata: {name: p, namespace: apps}, spec: {ingress: [{action: Deny, source: {namespaceSelector: all(), notSelector: access == "true"}}]}`
		label  = "kind: HostEndpoint, metadata: {name: k.eth0, labels: {access: 'true'}}, spec: {node: k, interfaceName: eth0, expectedIPs: [10.0.0.2]}"
		set    = "kind: GlobalNetworkSet, metadata: {name: s, labels: {access: 'true'}}, spec: {nets: [10.0.0.0/24]}"
	)
	ips := strings.Replace(hep2, "eth0}", "eth0, expectedIPs: [10.0.0.2]}", 1)
	for _, tc := range []struct {
		name, policy string
		others       []string
		want         string // path of the selector; "": no warning
	}{
		{"of a global policy", global, []string{ips}, "spec.ingress[0].source.selector"},
		{"own namespace is another", local, []string{ips}, ""},
		{"all namespaces, notSelector", all, []string{ips}, "spec.ingress[0].source.notSelector"},
		{"another label", strings.Replace(global, "access ==", "other ==", 1), []string{ips}, ""},
		{"the host endpoint has it", global, []string{label}, ""},
		{"a set holds the host", global, []string{ips, set}, ""},
		{"a set holds other hosts", global, []string{strings.Replace(ips, "10.0.0.2", "10.9.0.2", 1), set}, "spec.ingress[0].source.selector"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			v := &vicinity{landscape: landscapeOf(t, tc.others...)}
			for _, text := range tc.others {
				if s, ok := decoded(t, "{apiVersion: projectcalico.org/v3, "+text+"}")[0].(*v3.GlobalNetworkSet); ok {
					v.sets = append(v.sets, s)
				}
			}
			v.hostPods = []v3.HostPod{{Namespace: "monitoring", Name: "prometheus-0", Node: "k", Labels: map[string]string{"access": "true"}}}
			got := strings.Join(v.hostNetworked(decoded(t, "{apiVersion: projectcalico.org/v3, "+tc.policy+"}")[0]), "; ")
			want := tc.want
			if want != "" {
				want += ": pod monitoring/prometheus-0 has the label, but is on the network of its host"
			}
			if !strings.HasPrefix(got, want) || want == "" && got != "" {
				t.Errorf("%q, want %q", got, want)
			}
		})
	}
}

// TestShared has many policies of which the same is to be said: it is said once.
func TestShared(t *testing.T) {
	i := newIncumbent(t)
	i.run("apiVersion: projectcalico.org/v3\n"+hepLines, "apply", "-f", "-")
	_, notes := i.run(policies(30), "apply", "-f", "-", "--changes=false")
	const want = "Warning: GlobalNetworkPolicy(policy-1), GlobalNetworkPolicy(policy-11), GlobalNetworkPolicy(policy-21): HostEndpoint m.eth0: no egress policy applies: "
	if strings.Count(notes, "\n") != 1 || !strings.HasPrefix(notes, want) {
		t.Errorf("said is\n%s", notes)
	}
}

const hepLines = "kind: HostEndpoint\nmetadata: {name: m.eth0, labels: {role: host-1}}\nspec: {node: m, interfaceName: eth0, expectedIPs: [10.0.0.1]}\n"
