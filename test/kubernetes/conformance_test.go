package kubernetes_test

import (
	"fmt"
	"net/http"
	"net/netip"
	"strings"
	"testing"
	"time"

	"sigs.k8s.io/yaml"

	"margay/lab"
	"margay/store"
)

// A situation is a sequence of steps, after which everything is as it was before.
type situation struct {
	name string
	// sctp: SCTP is tried as well; six: so is IPv6.
	sctp, six bool
	steps     []step
}

// A step does something, in the words of [conformance.do], and says what is open then, as [field.expect] reads it. What is
// open must not be the same before: else nobody could tell whether anything has happened.
type step struct{ does, open string }

// Conformance has the field with agents on its nodes, and makes objects as kubectl would.
type conformance struct {
	*world
	*field
	undo  []func()
	quick bool // one look is enough
	// etcd is a datastore on etcd, if there is one; policies is that of the agents.
	etcd, policies store.Store
	count          struct{ situations, steps, cells, open int }
}

// newConformance makes nodes, pods and their objects. Agents are for the caller to start.
func newConformance(t testing.TB) *conformance {
	t.Helper()
	return newConformanceOn(t, "")
}

// newConformanceOn has the pods on bridges of that name.
func newConformanceOn(t testing.TB, bridge string) *conformance {
	t.Helper()
	w := newWorld(t)
	const node2Addr = "172.15.0.101"
	node2, err := w.lab.Host("node-2", netip.MustParsePrefix(node2Addr+"/24"))
	if err != nil {
		t.Fatal(err)
	}
	makeNode(t, w.cluster, "node-2", node2Addr)
	installClusterPolicies(t, w.cluster)
	for on, addr := range map[*lab.Host]string{w.node: "fd00:15::100/64", node2: "fd00:15::101/64", w.other: otherAddr6 + "/64"} {
		if err := on.AddAddress("eth0", netip.MustParsePrefix(addr)); err != nil {
			t.Fatal(err)
		}
	}
	for _, r := range []struct {
		on          *lab.Host
		via, prefix string
	}{
		{w.node, "fd00:15::101", "fd00:65:2::/64"}, {node2, "fd00:15::100", "fd00:65:1::/64"},
		{w.other, "fd00:15::100", "fd00:65:1::/64"}, {w.other, "fd00:15::101", "fd00:65:2::/64"},
		{w.node, node2Addr, "10.65.2.0/24"}, {node2, nodeAddr, "10.65.1.0/24"},
		{w.other, nodeAddr, "10.65.1.0/24"}, {w.other, node2Addr, "10.65.2.0/24"},
	} {
		if err := r.on.AddRouteVia(netip.MustParseAddr(r.via), netip.MustParsePrefix(r.prefix)); err != nil {
			t.Fatal(err)
		}
	}
	c := &conformance{world: w, field: newField(t, [3]*lab.Host{w.node, node2, w.other}, bridge)}
	for _, name := range []string{"x", "y", "z"} {
		ns := namespace(name)
		ns["metadata"].(map[string]any)["labels"] = object{"team": "t" + name}
		do(t, w.cluster, http.MethodPost, "/api/v1/namespaces", ns)
		do(t, w.cluster, http.MethodPost, "/api/v1/namespaces/"+name+"/serviceaccounts",
			object{"apiVersion": "v1", "kind": "ServiceAccount", "metadata": object{"name": "default"}})
	}
	for id := range c.nodes {
		c.makePod(id, id, nil)
	}
	return c
}

// makePod makes a pod that is behind the cable of a machine. Its port "serve" is 81 in pods called b and 80 in others.
func (c *conformance) makePod(id, machine string, labels object) {
	c.Helper()
	namespace, name, _ := strings.Cut(id, "/")
	if labels == nil {
		labels = object{"pod": name}
	}
	serve := 80
	if name == "b" {
		serve = 81
	}
	podOn(c, c.cluster, podSpec{namespace: namespace, name: name, node: c.nodes[machine], ip: c.addrs[machine].String(), ip6: c.addrs6[machine].String(), labels: labels,
		ports: []any{object{"name": "serve", "containerPort": serve}, object{"name": "dns", "containerPort": 53, "protocol": "UDP"}}})
}

// do does one line:
//
//	policy NAMESPACE/NAME SPEC       NetworkPolicy, created or changed
//	cluster NAME SPEC                ClusterNetworkPolicy
//	delete policy|pod NAMESPACE/NAME, delete cluster NAME
//	label pod NAMESPACE/NAME LABELS, label namespace NAME LABELS      null takes a label away
//	pod NAMESPACE/NAME MACHINE LABELS                                 a pod more, on the cable of another one
//	phase NAMESPACE/NAME PHASE
//	calico MANIFEST                                                   of projectcalico.org/v3, to where the agents read it
func (c *conformance) do(line string) {
	c.Helper()
	t := c.TB
	verb, rest, _ := strings.Cut(line, " ")
	what, rest2, _ := strings.Cut(rest, " ")
	switch verb {
	case "policy":
		c.apply("networking.k8s.io/v1", "NetworkPolicy", what, rest2)
	case "cluster":
		c.apply("policy.networking.k8s.io/v1alpha2", "ClusterNetworkPolicy", what, rest2)
	case "delete":
		path := objectPath(what, rest2)
		if what == "pod" {
			do(t, c.cluster, http.MethodDelete, path+"?gracePeriodSeconds=0", nil)
			c.undo = append(c.undo, func() { c.makePod(rest2, rest2, nil) })
			return
		}
		do(t, c.cluster, http.MethodDelete, path, nil)
	case "label":
		c.label(what, rest2)
	case "pod":
		machine, labels, _ := strings.Cut(rest2, " ")
		c.makePod(what, machine, c.read(labels))
		c.undo = append(c.undo, func() { do(t, c.cluster, http.MethodDelete, objectPath("pod", what)+"?gracePeriodSeconds=0", nil) })
	case "phase":
		do(t, c.cluster, http.MethodPatch, objectPath("pod", what)+"/status", object{"status": object{"phase": rest2}})
	case "calico":
		c.applyResource(rest)
	default:
		t.Fatalf("nobody knows how to %q", line)
	}
}

func (c *conformance) read(text string) object {
	var o object
	if err := yaml.Unmarshal([]byte(text), &o); err != nil {
		c.Fatalf("%s: %v", text, err)
	}
	return o
}

// objectPath returns the path of NAMESPACE/NAME, or NAME.
func objectPath(what, id string) string {
	namespace, name, _ := strings.Cut(id, "/")
	switch what {
	case "policy":
		return "/apis/networking.k8s.io/v1/namespaces/" + namespace + "/networkpolicies/" + name
	case "pod":
		return podPath(namespace, name)
	case "cluster":
		return "/apis/policy.networking.k8s.io/v1alpha2/clusternetworkpolicies/" + id
	}
	return "/api/v1/namespaces/" + id
}

// apply does what kubectl apply --server-side does.
func (c *conformance) apply(version, kind, id, spec string) {
	c.Helper()
	what := "policy"
	namespace, name, ok := strings.Cut(id, "/")
	metadata := object{"name": name, "namespace": namespace}
	if !ok {
		what, metadata = "cluster", object{"name": id}
	}
	do(c, c.cluster, http.MethodPatch, objectPath(what, id)+"?fieldManager=test&force=true",
		object{"apiVersion": version, "kind": kind, "metadata": metadata, "spec": c.read(spec)})
}

// label changes labels, which are as before after the situation.
func (c *conformance) label(what, text string) {
	c.Helper()
	id, change, _ := strings.Cut(text, " ")
	path := objectPath(what, id)
	var now struct {
		Metadata struct {
			Labels object `json:"labels"`
		} `json:"metadata"`
	}
	if err := yaml.Unmarshal(do(c, c.cluster, http.MethodGet, path, nil), &now); err != nil {
		c.Fatal(err)
	}
	labels, back := c.read(change), object{}
	for key := range labels {
		back[key] = now.Metadata.Labels[key]
	}
	patch := func(labels object) {
		do(c, c.cluster, http.MethodPatch, path, object{"metadata": object{"labels": labels}})
	}
	patch(labels)
	c.undo = append(c.undo, func() { patch(back) })
}

// run goes through a situation.
func (c *conformance) run(t *testing.T, s situation) {
	t.Helper()
	defer func(whole testing.TB) { c.TB = whole }(c.TB)
	c.TB = t
	defer c.tidy()
	list := services()
	if s.sctp {
		list = append(list, sctpServices()...)
	}
	if s.six {
		list = append(list, services6()...)
	}
	cells := c.cells(list)
	now := c.expect(cells, "")
	c.reach(t, "at first", cells, now)
	for i, step := range s.steps {
		want := c.expect(cells, step.open)
		if len(wrong(now, want)) == 0 {
			t.Fatalf("step %d: nothing is to change", i)
		}
		for _, line := range lines(step.does) {
			c.do(line)
		}
		if !c.reach(t, fmt.Sprintf("step %d, after %s", i, strings.TrimSpace(step.does)), cells, want) {
			break
		}
		now = want
		c.count.steps++
		c.count.cells += len(cells)
		for _, open := range want {
			if open {
				c.count.open++
			}
		}
	}
	c.count.situations++
}

// lines returns what to do: a line that begins in the middle of a spec goes on with the one before.
func lines(text string) []string {
	var list []string
	for line := range strings.SplitSeq(text, "\n") {
		switch line = strings.TrimSpace(line); {
		case line == "":
		case len(list) > 0 && strings.ContainsAny(line[:1], "{}[]") || strings.HasPrefix(line, "ingress:") || strings.HasPrefix(line, "egress:"):
			list[len(list)-1] += " " + line
		default:
			list = append(list, line)
		}
	}
	return list
}

// tidy takes back what a situation did.
func (c *conformance) tidy() {
	for _, path := range []string{"/apis/networking.k8s.io/v1/namespaces/x/networkpolicies", "/apis/networking.k8s.io/v1/namespaces/y/networkpolicies",
		"/apis/networking.k8s.io/v1/namespaces/z/networkpolicies", "/apis/policy.networking.k8s.io/v1alpha2/clusternetworkpolicies"} {
		do(c, c.cluster, http.MethodDelete, path, nil)
	}
	for i := len(c.undo) - 1; i >= 0; i-- {
		c.undo[i]()
	}
	c.undo = nil
}

// Times that a packet is given: an answer takes a fraction of a millisecond when nobody else uses the machine.
const (
	shortLook = 250 * time.Millisecond
	longLook  = 600 * time.Millisecond
)

// reach waits until all cells are as they should be, and looks again whether it stays so with more patience.
func (c *conformance) reach(t *testing.T, when string, cells []cell, want map[cell]bool) bool {
	t.Helper()
	for deadline := time.Now().Add(60 * time.Second); ; {
		list := wrong(want, c.look(cells, shortLook))
		if len(list) == 0 {
			if c.quick {
				return true
			}
			if list = wrong(want, c.look(cells, longLook)); len(list) == 0 {
				return true
			}
		}
		if time.Now().After(deadline) {
			t.Errorf("%s:\n%d of %d cells are wrong:\n%s", when, len(list), len(cells), strings.Join(list[:min(len(list), 20)], "\n"))
			return false
		}
	}
}

// startAgents starts the agent of each node, with what they need to reach the datastore.
func (c *conformance) startAgents(env ...string) {
	c.Helper()
	for _, name := range []string{"node-1", "node-2"} {
		c.startAgentOn(c.machines[name], name, env...)
	}
}

// TestNetworkPolicies goes through the situations of NetworkPolicy and ClusterNetworkPolicy, on packets.
func TestNetworkPolicies(t *testing.T) {
	c := newConformance(t)
	c.startAgents(c.kubernetesEnv()...)
	for _, s := range append(situations(), clusterSituations()...) {
		t.Run(strings.ReplaceAll(s.name, " ", "-"), func(t *testing.T) { c.run(t, s) })
	}
	t.Logf("%d situations, %d steps, %d cells of which %d are open", c.count.situations, c.count.steps, c.count.cells, c.count.open)
}

// TestNetworkPoliciesOnBridge goes through some of them with a CNI plugin that has pods on a bridge, where what passes between
// pods of a node is no matter of routes.
func TestNetworkPoliciesOnBridge(t *testing.T) {
	c := newConformanceOn(t, "cni0")
	c.quick = true
	c.startAgents(c.kubernetesEnv()...)
	for _, s := range append(c.slowOrFast(true), clusterSituations()[0]) {
		t.Run(strings.ReplaceAll(s.name, " ", "-"), func(t *testing.T) { c.run(t, s) })
	}
	t.Logf("%d situations, %d steps, %d cells of which %d are open", c.count.situations, c.count.steps, c.count.cells, c.count.open)
}
