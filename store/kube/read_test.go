package kube

import (
	"strings"
	"testing"
	"time"

	v3 "margay/api/v3"
	"margay/store"
)

func TestWhereIs(t *testing.T) {
	for _, c := range []struct {
		key      v3.Key
		id       string
		ns, name string
	}{
		{v3.Key{Kind: v3.KindTier, Name: "t"}, "", "", "t"},
		{v3.Key{Kind: v3.KindNode, Name: "n"}, idNodes, "", "n"},
		{v3.Key{Kind: v3.KindWorkloadEndpoint, Namespace: "a", Name: "node--1-k8s-my--pod.x-eth0"}, idPods, "a", "my-pod.x"},
		{v3.Key{Kind: v3.KindWorkloadEndpoint, Namespace: "a", Name: "n-cni-x-eth0"}, "none", "a", "n-cni-x-eth0"},
		{v3.Key{Kind: v3.KindProfile, Name: "kns.default"}, idNamespaces, "", "default"},
		{v3.Key{Kind: v3.KindProfile, Name: "ksa.default.a.b"}, idAccounts, "default", "a.b"},
		{v3.Key{Kind: v3.KindProfile, Name: "x"}, "none", "", "x"},
		{v3.Key{Kind: v3.KindNetworkPolicy, Namespace: "a", Name: "knp.default.p.q"}, idPolicies, "a", "p.q"},
		{v3.Key{Kind: v3.KindNetworkPolicy, Namespace: "a", Name: "default.p"}, "", "a", "default.p"},
		{v3.Key{Kind: v3.KindGlobalNetworkPolicy, Name: "kcnp.kube-admin.p"}, idClusterPolicies, "", "p"},
		{v3.Key{Kind: v3.KindGlobalNetworkPolicy, Name: "kcnp.other.p"}, "", "", "kcnp.other.p"},
	} {
		id, at := whereIs(c.key)
		if id != c.id || at != (address{c.ns, c.name}) {
			t.Errorf("%s is %q %+v", c.key, id, at)
		}
	}
}

func TestCheckKey(t *testing.T) {
	for _, c := range []struct {
		key v3.Key
		ok  bool
	}{
		{v3.Key{Kind: v3.KindTier, Name: "t"}, true},
		{v3.Key{Kind: v3.KindNetworkSet, Namespace: "a", Name: "t"}, true},
		{v3.Key{Kind: "Nonsense", Name: "t"}, false},
		{v3.Key{Kind: v3.KindTier}, false},
		{v3.Key{Kind: v3.KindTier, Namespace: "a", Name: "t"}, false},
		{v3.Key{Kind: v3.KindNetworkSet, Name: "t"}, false},
		{v3.Key{Kind: v3.KindTier, Name: "../tiers"}, false},
		{v3.Key{Kind: v3.KindTier, Name: ".."}, false},
		{v3.Key{Kind: v3.KindTier, Name: "%2e"}, false},
		{v3.Key{Kind: v3.KindNetworkSet, Namespace: "a/b", Name: "t"}, false},
	} {
		if err := checkKey(c.key); (err == nil) != c.ok {
			t.Errorf("%s: %v", c.key, err)
		}
	}
}

// TestDecode reads objects as the API server has them, sound and damaged.
func TestDecode(t *testing.T) {
	s, err := Open(t.Context(), Config{Server: "http://127.0.0.1:1"})
	if err != nil {
		t.Fatal(err)
	}
	custom := func(kind v3.Kind) *source {
		info, _ := v3.Lookup(kind)
		return &source{id: info.Plural, kind: kind, group: GroupV3, plural: info.Plural, namespaced: info.Namespaced, served: true}
	}
	derived := func(kind v3.Kind) *source { return derivedSources(kind)[0] }
	for _, c := range []struct {
		name, raw string
		src       *source
		want      string // the key, with what is wrong behind it
	}{
		{"tier", `{"kind":"Tier","metadata":{"name":"t","resourceVersion":"1"},"spec":{"order":1,"defaultAction":"Deny"}}`, custom(v3.KindTier), "Tier(t)"},
		{"policy called default.p", `{"metadata":{"name":"default.p"},"spec":{"tier":"default"}}`, custom(v3.KindGlobalNetworkPolicy), "GlobalNetworkPolicy(default.p)"},
		{"name of an annotation", `{"metadata":{"name":"q","annotations":{"projectcalico.org/metadata":"{\"name\":\"p\"}"}},"spec":{}}`, custom(v3.KindGlobalNetworkPolicy), "GlobalNetworkPolicy(q)"},
		{"bad net", `{"metadata":{"name":"s"},"spec":{"nets":["10.0/8"]}}`, custom(v3.KindGlobalNetworkSet), "GlobalNetworkSet(s) fault"},
		{"wrong type", `{"metadata":{"name":"s"},"spec":7}`, custom(v3.KindGlobalNetworkSet), "GlobalNetworkSet(s) fault"},
		{"pod without node", `{"metadata":{"name":"p","namespace":"a"},"spec":{}}`, derived(v3.KindWorkloadEndpoint), "()"},
		{"host-networked pod", `{"metadata":{"name":"p","namespace":"a"},"spec":{"nodeName":"n","hostNetwork":true}}`, derived(v3.KindWorkloadEndpoint), "()"},
		{"pod", `{"metadata":{"name":"p","namespace":"a"},"spec":{"nodeName":"n"},"status":{"podIP":"10.0.0.1"}}`, derived(v3.KindWorkloadEndpoint), "WorkloadEndpoint(a/n-k8s-p-eth0)"},
		{"pod with a bad address", `{"metadata":{"name":"p","namespace":"a"},"spec":{"nodeName":"n"},"status":{"podIP":"x"}}`, derived(v3.KindWorkloadEndpoint), "WorkloadEndpoint(a/n-k8s-p-eth0) fault"},
		{"pod that is none", `{"metadata":{"name":"p","namespace":"a"},"spec":7}`, derived(v3.KindWorkloadEndpoint), "WorkloadEndpoint(a/p) fault"},
		{"node", `{"metadata":{"name":"n"}}`, derived(v3.KindNode), "Node(n)"},
	} {
		it := s.decode(c.src, []byte(c.raw))
		got := it.key.String()
		if it.fault != nil {
			got += " fault"
		}
		if got != c.want || it.fault != nil && it.resource != nil || (it.resource == nil && it.fault == nil) != (it.key == v3.Key{}) {
			t.Errorf("%s: %s, %+v", c.name, got, it)
		}
	}
}

func TestCut(t *testing.T) {
	write := func(op store.Op, kind v3.Kind, name string) store.Write {
		info, _ := v3.Lookup(kind)
		r := info.New()
		r.SetName(name)
		return store.Write{Op: op, Resource: r}
	}
	writes := []store.Write{
		write(store.Create, v3.KindTier, "a"), write(store.Create, v3.KindTier, "b"), write(store.Create, v3.KindTier, "a"),
		write(store.Create, v3.KindGlobalNetworkPolicy, "a"), write(store.Delete, v3.KindGlobalNetworkPolicy, "b"),
		write(store.Create, v3.KindIPPool, "a"), write(store.Create, v3.KindIPPool, "b"),
	}
	var ends []int
	for start := 0; start < len(writes); start = ends[len(ends)-1] {
		ends = append(ends, cut(writes, start))
	}
	want := []int{2, 3, 4, 5, 6, 7}
	for i := range want {
		if len(ends) != len(want) || ends[i] != want[i] {
			t.Fatalf("cut at %v, want %v", ends, want)
		}
	}
}

func TestStatusText(t *testing.T) {
	long := store.NodeStatus{Node: "n", Endpoints: map[string]store.EndpointState{}}
	for i := range 3000 {
		long.Faults = append(long.Faults, strings.Repeat("x", 200))
		long.Endpoints[strings.Repeat("e", i+1)] = store.EndpointUp
	}
	text, err := statusText(long)
	if err != nil || len(text) > maxStatus || !strings.Contains(text, "and 2744 more") {
		t.Errorf("%d bytes, %v", len(text), err)
	}
	if text, err := statusText(store.NodeStatus{Node: "n", Detail: strings.Repeat("x", maxStatus)}); err == nil {
		t.Errorf("a report that cannot be shortened has %d bytes", len(text))
	}
}

func TestReadReport(t *testing.T) {
	now := time.Date(2026, 1, 1, 0, 1, 0, 0, time.UTC)
	lease := func(spec, status string) string {
		return `{"metadata":{"annotations":{"margay.io/status":` + status + `}},"spec":` + spec + `}`
	}
	for _, c := range []struct {
		name, raw, node string
	}{
		{"lasts", lease(`{"holderIdentity":"n","renewTime":"2026-01-01T00:00:30.000000Z","leaseDurationSeconds":60}`, `"{\"node\":\"n\"}"`), "n"},
		{"has run out", lease(`{"holderIdentity":"n","renewTime":"2026-01-01T00:00:30.000000Z","leaseDurationSeconds":29}`, `"{\"node\":\"n\"}"`), ""},
		{"has no end", lease(`{"holderIdentity":"n","renewTime":"2020-01-01T00:00:30.000000Z"}`, `"{\"node\":\"n\"}"`), "n"},
		{"of another name", lease(`{"holderIdentity":"n"}`, `"{\"node\":\"m\"}"`), "n"},
		{"damaged", lease(`{"holderIdentity":"n"}`, `"{"`), "n"},
		{"of nobody", lease(`{}`, `"{}"`), ""},
		{"no lease", `[]`, ""},
	} {
		status, ok := readReport([]byte(c.raw), now)
		if ok != (c.node != "") || ok && status.Node != c.node {
			t.Errorf("%s: %+v, %v", c.name, status, ok)
		}
	}
}

func TestLeaseName(t *testing.T) {
	seen := map[string]string{}
	for _, node := range []string{"n", "node-1.example.com", "N", "a/b", "a%2fb", strings.Repeat("x", 250)} {
		name := leaseName(node)
		if other, taken := seen[name]; taken || len(name) > 253 || strings.ContainsAny(name, "/%N") {
			t.Errorf("%s: lease %s, which is that of %q", node, name, other)
		}
		seen[name] = node
	}
}
