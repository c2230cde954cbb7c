package ctl

import (
	"encoding/json"
	"io"
	"net"
	"net/http"
	"net/netip"
	"path/filepath"
	"strings"
	"testing"

	v3 "margay/api/v3"
	"margay/node/params"
	"margay/ruleset"
)

// nodeSettings is what cmd/margay wires in.
func nodeSettings(node string, configs []*v3.FelixConfiguration, labels map[string]string) ruleset.Settings {
	p, _ := params.Resolve(params.Sources{Host: node, Resources: configs, NodeLabels: labels})
	return p.Settings()
}

// serveState is an agent that answers with a text at the socket that it returns.
func serveState(t *testing.T, state string) string {
	t.Helper()
	socket := filepath.Join(t.TempDir(), "agent.sock")
	listener, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	server := http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, state) })}
	go server.Serve(listener)
	t.Cleanup(func() { server.Close() })
	return socket
}

// A running agent is asked for what it enforces: endpoints have the addresses of their interfaces.
func TestExplainLive(t *testing.T) {
	p := ruleset.NewProgram()
	h := ruleset.EndpointID{Kind: "HostEndpoint", Name: "h"}
	w := ruleset.EndpointID{Kind: "WorkloadEndpoint", Namespace: "ns", Name: "w"}
	policy := ruleset.PolicyID{Kind: "GlobalNetworkPolicy", Name: "p"}
	walk := ruleset.Walk{Ingress: []ruleset.Tier{{Name: "default", Policies: []ruleset.PolicyID{policy}}}}
	p.Settings.WorkloadPrefixes = []string{"cali"}
	p.Endpoints[h] = &ruleset.Endpoint{ID: h, Interfaces: []string{"eth0"}, Normal: walk}
	all := ruleset.EndpointID{Kind: "HostEndpoint", Name: "rest"}
	p.Endpoints[all] = &ruleset.Endpoint{ID: all, Interfaces: []string{"*"}, Normal: walk}
	p.Workloads[w] = &ruleset.Workload{ID: w, Interface: "cali1", Addrs: []netip.Addr{netip.MustParseAddr("10.1.0.1")}, Normal: walk}
	pod := ruleset.EndpointID{Kind: "WorkloadEndpoint", Namespace: "ns", Name: "n0-k8s-pod--1-eth0"}
	p.Workloads[pod] = &ruleset.Workload{ID: pod, Interface: "cali2", Addrs: []netip.Addr{netip.MustParseAddr("10.1.0.2")}}
	p.Policies[policy] = &ruleset.Policy{ID: policy, Ingress: []ruleset.Rule{{Action: ruleset.Allow, Source: ruleset.Entity{Sets: []ruleset.SetID{"s"}}}}}
	p.Sets["s"] = ruleset.NewSet(ruleset.Addrs, `a == "b"`, ruleset.Member{Prefix: netip.MustParsePrefix("10.0.0.9/32")})
	text, err := json.Marshal(liveState{Node: "n0", Program: p, Warnings: []string{"x: y"}, Detail: "store: cannot be followed",
		Interfaces: map[string][]netip.Addr{"eth0": {netip.MustParseAddr("10.0.0.1")}, "eth1": {netip.MustParseAddr("10.2.0.1")}}})
	if err != nil {
		t.Fatal(err)
	}
	socket := serveState(t, string(text))
	run := func(socket, from, to string, more ...string) string {
		t.Helper()
		var out strings.Builder
		root := NewCommand(Env{Name: "margay", Stdout: &out, Stderr: &out, Getenv: func(string) string { return "" }, AgentSocket: socket})
		root.SetArgs(append([]string{"explain", "--live", "--from", from, "--to", to, "--port", "80"}, more...))
		Execute(t.Context(), root)
		return out.String()
	}
	for _, tt := range []struct {
		from, to string
		want     []string
	}{
		{"10.0.0.9", "h", []string{"ALLOWED\n", `by rule 0 of GlobalNetworkPolicy(p), tier default: Allow from a == "b"`,
			"  the agent says: store: cannot be followed\n", "  x: y\n", "Node n0: comes in by eth0, to a process\n"}},
		{"10.0.0.8", "10.0.0.1", []string{"DENIED\n", "by the end of tier default", `if 10.0.0.8 were selected by a == "b"`}},
		{"10.0.0.8", "ns/w", []string{"DENIED\n", "ingress of WorkloadEndpoint(ns/w)", "comes in by eth0, leaves by cali1"}},
		{"h", "w", []string{"ALLOWED\n", "a host always reaches its own workloads"}},
		{"10.0.0.8", "rest", []string{"DENIED\n", "at the ingress of HostEndpoint(rest)", "10.2.0.1"}},
		{"pod-1", "h", []string{"DENIED\n", "From    10.1.0.2, WorkloadEndpoint(ns/n0-k8s-pod--1-eth0) on node n0"}},
		{"db-1.eth0", "h", []string{`--from "db-1.eth0" is neither an IP address nor the name of an endpoint of this host; the agent knows no others by name`}},
		{"10.0.0.8", "10.0.0.7", []string{"neither 10.0.0.8 nor 10.0.0.7 is the address of an endpoint"}},
	} {
		out := run(socket, tt.from, tt.to)
		for _, want := range tt.want {
			if !strings.Contains(out, want) {
				t.Errorf("%s to %s: no %q in\n%s", tt.from, tt.to, want, out)
			}
		}
	}
	if out, want := run(socket, "10.0.0.9", "h", "--node", "n1"), `--node "n1" is not the node of the agent that was asked, n0`; !strings.Contains(out, want) {
		t.Errorf("no %q in %s", want, out)
	}
	for state, want := range map[string]string{
		`{"node": "n0", "program": null}`:             "it enforces nothing yet (see margay status)",
		`{"node": "n0", "program": {"NewField": {}}}`: `unknown field "NewField"`,
		`x`: "invalid character",
	} {
		if out := run(serveState(t, state), "h", "w"); !strings.Contains(out, want) {
			t.Errorf("%s: no %q in %s", state, want, out)
		}
	}
}

// A host where IPVS balances: what comes by a service leaves it as if it were sent by the host.
func TestExplainLiveIPVS(t *testing.T) {
	p := ruleset.NewProgram()
	policy := ruleset.PolicyID{Kind: "GlobalNetworkPolicy", Name: "untracked"}
	h := ruleset.EndpointID{Kind: "HostEndpoint", Name: "h"}
	p.Endpoints[h] = &ruleset.Endpoint{ID: h, Interfaces: []string{"eth0"},
		Untracked: ruleset.Walk{Egress: []ruleset.Tier{{Name: "default", Policies: []ruleset.PolicyID{policy}}}}}
	p.Policies[policy] = &ruleset.Policy{ID: policy, Egress: []ruleset.Rule{{Action: ruleset.Deny}}}
	p.Profiles["open"] = &ruleset.Profile{Name: "open", Egress: []ruleset.Rule{{Action: ruleset.Allow}}}
	w := ruleset.EndpointID{Kind: "WorkloadEndpoint", Namespace: "ns", Name: "w"}
	p.Workloads[w] = &ruleset.Workload{ID: w, Interface: "cali1", Addrs: []netip.Addr{netip.MustParseAddr("10.1.0.1")}, Profiles: []string{"open"}}
	p.Settings = ruleset.Settings{WorkloadPrefixes: []string{"cali"}, ServiceNets: []netip.Prefix{netip.MustParsePrefix("10.96.0.0/12")}}
	const sent = "  it is not IPVS on node n0 that sends it there, for a service: that is denied by rule 0 of GlobalNetworkPolicy(untracked), tier default: Deny\n"
	const loop = "  no service has this port of 10.96.0.1: kube-proxy of node n0 translates what is for a service that has endpoints"
	for _, tt := range []struct {
		ipvs     bool
		to       string
		want, no string
	}{
		{false, "10.0.0.9", "ALLOWED\n", sent},
		{true, "10.0.0.9", sent, "DENIED"},
		{true, "10.96.0.1", loop, sent},
	} {
		p.Settings.IPVS = tt.ipvs
		text, err := json.Marshal(liveState{Node: "n0", Program: p, Interfaces: map[string][]netip.Addr{"eth0": {netip.MustParseAddr("10.0.0.1")}}})
		if err != nil {
			t.Fatal(err)
		}
		var out strings.Builder
		root := NewCommand(Env{Name: "margay", Stdout: &out, Stderr: &out, Getenv: func(string) string { return "" }, AgentSocket: serveState(t, string(text))})
		root.SetArgs([]string{"explain", "--live", "--from", "w", "--to", tt.to, "--port", "80"})
		Execute(t.Context(), root)
		if out := out.String(); !strings.Contains(out, tt.want) || strings.Contains(out, tt.no) {
			t.Errorf("IPVS %v, to %s: want %q, not %q, in\n%s", tt.ipvs, tt.to, tt.want, tt.no, out)
		}
	}
}

// What a store has of the endpoints of services counts, as for agents.
func TestExplainServices(t *testing.T) {
	docs, err := v3.Decode("-", []byte(`{apiVersion: projectcalico.org/v3, kind: HostEndpoint, metadata: {name: h}, spec: {node: n1, interfaceName: eth0, expectedIPs: [10.0.0.1]}}
---
{apiVersion: projectcalico.org/v3, kind: GlobalNetworkPolicy, metadata: {name: p}, spec: {types: [Egress], egress: [{action: Allow, protocol: TCP, destination: {services: {name: web, namespace: ns}}}]}}`))
	if err != nil {
		t.Fatal(err)
	}
	info, _ := v3.Lookup(v3.KindServiceEndpoints)
	part := info.New().(*v3.ServiceEndpoints)
	part.Name, part.Namespace = "web-1", "ns"
	part.Spec = v3.ServiceEndpointsSpec{Service: "web", Endpoints: []v3.ServiceEndpoint{{Addr: "10.0.0.9", Protocol: ruleset.TCP, Port: 80}}}
	for port, allowed := range map[uint16]bool{80: true, 81: false} {
		w := newWorld(nodeSettings)
		w.put(docs[0].Object)
		w.put(docs[1].Object)
		w.put(part)
		if err := w.complete(); err != nil {
			t.Fatal(err)
		}
		q, err := w.question(&explainFlags{from: "h", to: "10.0.0.9", protocol: "tcp", port: port, hasPort: true})
		if err != nil {
			t.Fatal(err)
		}
		if e, err := w.explanation(q); err != nil || e.Allowed != allowed {
			t.Errorf("port %d: %+v, %v", port, e, err)
		}
	}
}
