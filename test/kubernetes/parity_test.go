package kubernetes_test

import (
	"context"
	"net/http"
	"net/netip"
	"path/filepath"
	"reflect"
	"testing"

	"github.com/google/go-cmp/cmp"

	v3 "margay/api/v3"
	"margay/calc"
	"margay/ruleset"
	"margay/store"
	"margay/store/embed"
)

// manifests are policies of every sort, in no order: what they select are pods, host endpoints and sets.
const manifests = guide + `---
apiVersion: projectcalico.org/v3
kind: Tier
metadata: {name: security}
spec: {order: 10}
---
apiVersion: projectcalico.org/v3
kind: GlobalNetworkSet
metadata: {name: scrapers, labels: {calico-prometheus-access: "true"}}
spec: {nets: [192.0.2.0/24, "2001:db8::/64"]}
---
apiVersion: projectcalico.org/v3
kind: NetworkSet
metadata: {name: inside, namespace: default, labels: {role: client-np}}
spec: {nets: [198.51.100.7]}
---
apiVersion: projectcalico.org/v3
kind: NetworkPolicy
metadata: {name: web, namespace: default}
spec:
  tier: security
  selector: app == "web"
  ingress:
  - action: Pass
    protocol: TCP
    source: {namespaceSelector: projectcalico.org/name == "default", notSelector: role == "x"}
    destination: {ports: [http, "1000:2000"]}
  - action: Deny
    source: {nets: [203.0.113.0/24]}
  egress:
  - action: Allow
    destination: {services: {name: web, namespace: default}}
---
apiVersion: projectcalico.org/v3
kind: StagedGlobalNetworkPolicy
metadata: {name: default.later}
spec: {tier: default, selector: all(), ingress: [{action: Log}]}
---
apiVersion: projectcalico.org/v3
kind: GlobalNetworkPolicy
metadata: {name: default.looks-old}
spec: {selector: has(app), order: 7, egress: [{action: Deny, protocol: UDP, destination: {ports: [53]}}]}
`

// program returns what an agent of a node computes from a store: services are left out where the store has none.
func program(t testing.TB, s store.Store, without map[v3.Kind]bool) (*ruleset.Program, []v3.Resource) {
	t.Helper()
	list, err := s.List(t.Context(), "", v3.AgentKinds()...)
	if err != nil || len(list.Faults) > 0 {
		t.Fatalf("list: %+v, %v", list, err)
	}
	c := calc.New("node-1")
	c.SetInterface("eth0", []netip.Addr{netip.MustParseAddr(nodeAddr)})
	c.SetInterface("calib18ea7ed7f6", nil)
	for _, r := range list.Items {
		if !without[v3.KeyOf(r).Kind] {
			c.Update(v3.KeyOf(r), r)
		}
	}
	// Endpoints of services come to calc by another way, which is the same for all stores.
	c.SetService("default", "web", []calc.ServiceEndpoint{{Addr: netip.MustParseAddr("10.0.0.1"), Protocol: 6, Port: 8080}})
	p := ruleset.NewProgram()
	p.Apply(c.Flush())
	return p, list.Items
}

// TestParity: the same policies, endpoints and profiles give the same program, whether they come from the API server or,
// the derived ones copied, from etcd.
func TestParity(t *testing.T) {
	c := empty(t)
	k := opened(t, c)
	server, err := embed.Start(t.Context(), embed.Config{Dir: filepath.Join(t.TempDir(), "etcd"), Listen: []string{}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { server.Close() })
	e := server.Store()
	makeNode(t, c, "node-1", nodeAddr)
	podOn(t, c, podSpec{namespace: "default", name: "web-1", node: "node-1", ip: "10.0.0.1", labels: object{"app": "web"}})
	podOn(t, c, podSpec{namespace: "default", name: "client", node: "node-2", ip: "10.0.0.2", labels: object{"role": "client-np", "calico-prometheus-access": "true"}})
	do(t, c, http.MethodPost, "/apis/networking.k8s.io/v1/namespaces/default/networkpolicies", networkPolicy("default", "np"))
	docs, err := v3.Decode("manifests", []byte(manifests))
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range []store.Store{k, e} {
		if err := s.Initialise(t.Context()); err != nil {
			t.Fatal(err)
		}
		var tiers, rest []store.Write
		for _, d := range docs {
			w := store.Write{Op: store.Create, Resource: d.Object}
			if v3.KeyOf(d.Object).Kind == v3.KindTier {
				tiers = append(tiers, w)
			} else {
				rest = append(rest, w)
			}
		}
		for _, result := range s.WriteAll(t.Context(), store.Commit, append(tiers, rest...)) {
			if result.Err != nil {
				t.Fatal(result.Err)
			}
		}
	}
	want, items := program(t, k, map[v3.Kind]bool{v3.KindServiceEndpoints: true})
	copyDerived(t, e, items)
	got, _ := program(t, e, nil)
	if diff := cmp.Diff(want, got, cmp.Exporter(func(reflect.Type) bool { return true })); diff != "" {
		t.Errorf("over etcd the program differs (- Kubernetes, + etcd):\n%s", diff)
	}
	if len(want.Policies) < 5 || len(want.Sets) < 3 || len(want.Endpoints) != 1 {
		t.Errorf("too little to compare: %d policies, %d sets, %d endpoints", len(want.Policies), len(want.Sets), len(want.Endpoints))
	}
}

// copyDerived writes to etcd what Kubernetes has itself, as the controllers do.
func copyDerived(t testing.TB, e store.Store, items []v3.Resource) {
	t.Helper()
	for _, r := range items {
		key := v3.KeyOf(r)
		switch {
		case key.Kind == v3.KindProfile && key.Name == v3.ProfileDefaultAllow:
			continue
		case key.Kind == v3.KindNetworkPolicy && len(key.Name) > 4 && key.Name[:4] == "knp.":
		case key.Kind == v3.KindWorkloadEndpoint, key.Kind == v3.KindProfile, key.Kind == v3.KindNode:
		default:
			continue
		}
		r.SetResourceVersion("")
		r.SetUID("")
		if _, err := e.Create(context.Background(), r); err != nil {
			t.Fatal(err)
		}
	}
}
