package kubernetes_test

import (
	"context"
	"errors"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"

	v3 "margay/api/v3"
	"margay/store"
	"margay/test/kubernetes/cluster"
)

// A mirror follows a store and holds what it was told.
type mirror struct {
	mu       sync.Mutex
	state    map[v3.Key]store.Event
	inSync   bool
	revision store.Revision
	errs     []error
	batches  int
}

// follow follows a store until the test ends.
func follow(t testing.TB, s store.Store, kinds ...v3.Kind) *mirror {
	t.Helper()
	m := &mirror{state: map[v3.Key]store.Event{}}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	t.Cleanup(func() { cancel(); <-done })
	go func() {
		defer close(done)
		_ = store.Follow(ctx, s, kinds, func(b store.Batch) error {
			m.mu.Lock()
			defer m.mu.Unlock()
			if m.batches++; b.Err != nil {
				m.errs = append(m.errs, b.Err)
				return nil
			}
			for _, e := range b.Events {
				if e.Resource == nil && e.Fault == nil {
					delete(m.state, e.Key)
				} else {
					m.state[e.Key] = e
				}
			}
			m.inSync, m.revision = m.inSync || b.InSync, b.Revision
			return nil
		})
	}()
	return m
}

// has reports whether the mirror has exactly these objects among those of the kinds, but for what every cluster has.
func (m *mirror) keys(kinds ...v3.Kind) []string {
	m.mu.Lock()
	defer m.mu.Unlock()
	var keys []string
	for key := range m.state {
		if slices.Contains(kinds, key.Kind) {
			keys = append(keys, key.String())
		}
	}
	slices.Sort(keys)
	return keys
}

func (m *mirror) get(key v3.Key) v3.Resource {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.state[key].Resource
}

// same reports whether the mirror holds what a list has.
func (m *mirror) same(list *store.List) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	if len(m.state) != len(list.Items)+len(list.Faults) {
		return false
	}
	for _, r := range list.Items {
		if e := m.state[v3.KeyOf(r)]; e.Resource == nil || e.Resource.GetResourceVersion() != r.GetResourceVersion() {
			return false
		}
	}
	return true
}

// opened returns a store that is closed with the test.
func opened(t testing.TB, c *cluster.Cluster) store.Store {
	s := open(t, c)
	t.Cleanup(func() { s.Close() })
	return s
}

// TestDerived looks at what becomes of the objects of Kubernetes, by list, get and watch.
func TestDerived(t *testing.T) {
	c := empty(t)
	s := opened(t, c)
	ctx := t.Context()
	if err := s.Initialise(ctx); err != nil {
		t.Fatal(err)
	}
	m := follow(t, s, v3.AgentKinds()...)
	eventually(t, "the first snapshot", func() bool { m.mu.Lock(); defer m.mu.Unlock(); return m.inSync })

	makeNode(t, c, "node-1", "172.16.0.1")
	podOn(t, c, podSpec{namespace: "default", name: "web-1", node: "node-1", ip: "10.0.0.1", labels: object{"app": "web"}})
	podOn(t, c, podSpec{namespace: "default", name: "pending", labels: object{"app": "web"}})
	podOn(t, c, podSpec{namespace: "default", name: "host", node: "node-1", ip: "172.16.0.1", hostNetwork: true, labels: object{"app": "web"}})
	do(t, c, http.MethodPost, "/apis/networking.k8s.io/v1/namespaces/default/networkpolicies", networkPolicy("default", "np"))
	do(t, c, http.MethodPost, "/apis/discovery.k8s.io/v1/namespaces/default/endpointslices", slice("default", "web-abc", "web", "10.0.0.1"))

	web := v3.Key{Kind: v3.KindWorkloadEndpoint, Namespace: "default", Name: "node--1-k8s-web--1-eth0"}
	eventually(t, "the pod is an endpoint with its address", func() bool {
		w, ok := m.get(web).(*v3.WorkloadEndpoint)
		return ok && slices.Equal(w.Spec.IPNetworks, []string{"10.0.0.1/32"})
	})
	w := m.get(web).(*v3.WorkloadEndpoint)
	if w.Labels["app"] != "web" || w.Labels[v3.LabelNamespace] != "default" || w.Spec.Ports[0].Name != "http" {
		t.Errorf("the endpoint is %+v", w)
	}
	want := map[v3.Kind]string{
		v3.KindWorkloadEndpoint: web.String(),
		v3.KindNode:             "Node(node-1)",
		v3.KindNetworkPolicy:    "NetworkPolicy(default/knp.default.np)",
		v3.KindServiceEndpoints: "ServiceEndpoints(default/web-abc)",
	}
	for kind, keys := range want {
		eventually(t, "the watch has "+keys, func() bool { return strings.Join(m.keys(kind), " ") == keys })
		list, err := s.List(ctx, "", kind)
		if err != nil || len(list.Items) != 1 || len(list.Faults) > 0 {
			t.Fatalf("list of %s: %+v, %v", kind, list, err)
		}
		r, err := s.Get(ctx, v3.KeyOf(list.Items[0]))
		if err != nil || r.GetResourceVersion() != list.Items[0].GetResourceVersion() || r.GetUID() == "" {
			t.Errorf("get %s: %+v, %v", keys, r, err)
		}
	}
	eventually(t, "the namespace is a profile", func() bool {
		p, ok := m.get(v3.Key{Kind: v3.KindProfile, Name: "kns.default"}).(*v3.Profile)
		return ok && p.Spec.LabelsToApply["pcns.projectcalico.org/name"] == "default" && len(p.Spec.Ingress) == 1
	})
	do(t, c, http.MethodPost, "/api/v1/namespaces/default/serviceaccounts", object{"apiVersion": "v1", "kind": "ServiceAccount", "metadata": object{"name": "bot", "labels": object{"a": "b"}}})
	t.Cleanup(func() { do(t, c, http.MethodDelete, "/api/v1/namespaces/default/serviceaccounts/bot", nil) })
	eventually(t, "the service account is a profile", func() bool {
		p, ok := m.get(v3.Key{Kind: v3.KindProfile, Name: "ksa.default.bot"}).(*v3.Profile)
		return ok && p.Spec.LabelsToApply["pcsa.a"] == "b"
	})
	endpoints, _ := m.get(v3.Key{Kind: v3.KindServiceEndpoints, Namespace: "default", Name: "web-abc"}).(*v3.ServiceEndpoints)
	if endpoints == nil || endpoints.Spec.Service != "web" || len(endpoints.Spec.Endpoints) != 1 ||
		endpoints.Spec.Endpoints[0] != (v3.ServiceEndpoint{Addr: "10.0.0.1", Protocol: 6, Port: 8080}) {
		t.Errorf("the service has %+v", endpoints)
	}
	pods, err := s.(store.HostPods).HostPods(ctx, "node-1")
	if err != nil || len(pods) != 1 || pods[0].String() != "default/host" || pods[0].Labels["app"] != "web" {
		t.Errorf("pods on the host's network: %+v, %v", pods, err)
	}

	refusals(t, s, m)
	list, err := s.List(ctx, "", v3.AgentKinds()...)
	if err != nil {
		t.Fatal(err)
	}
	eventually(t, "the mirror is the list", func() bool { return m.same(list) })

	// A finished pod has no addresses any more, one that is deleted is gone.
	if err := podStatus(c, "default", "web-1", object{"phase": "Succeeded"}); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the finished pod has no addresses", func() bool {
		w, ok := m.get(web).(*v3.WorkloadEndpoint)
		return ok && len(w.Spec.IPNetworks) == 0
	})
	if err := deletePod(c, "default", "web-1"); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the deleted pod is gone", func() bool { return m.get(web) == nil })
	if _, err := s.Get(ctx, web); !errors.Is(err, store.ErrNotFound) {
		t.Errorf("get a pod that is gone: %v", err)
	}
}

// refusals tries to write what belongs to Kubernetes, and updates what of a Node is Calico's.
func refusals(t *testing.T, s store.Store, m *mirror) {
	t.Helper()
	ctx := t.Context()
	for _, key := range []v3.Key{
		{Kind: v3.KindWorkloadEndpoint, Namespace: "default", Name: "node--1-k8s-web--1-eth0"}, {Kind: v3.KindProfile, Name: "kns.default"},
		{Kind: v3.KindNetworkPolicy, Namespace: "default", Name: "knp.default.np"},
	} {
		r, err := s.Get(ctx, key)
		if err != nil {
			t.Fatal(err)
		}
		_, err = s.Update(ctx, r)
		var refused *store.UnsupportedError
		if !errors.As(err, &refused) || refused.Key != key {
			t.Errorf("update %s: %v", key, err)
		}
		if _, err = s.Delete(ctx, key, ""); !errors.Is(err, store.ErrNotSupported) {
			t.Errorf("delete %s: %v", key, err)
		}
	}
	r, err := s.Get(ctx, v3.Key{Kind: v3.KindNode, Name: "node-1"})
	if err != nil {
		t.Fatal(err)
	}
	node := r.(*v3.Node)
	node.Spec.BGP = &v3.NodeBGPSpec{IPv4Address: "172.16.0.1/24"}
	updated, err := s.Update(ctx, node)
	if err != nil {
		t.Fatal(err)
	}
	if bgp := updated.(*v3.Node).Spec.BGP; bgp == nil || bgp.IPv4Address != "172.16.0.1/24" || updated.GetLabels()["zone"] != "a" {
		t.Errorf("the node is %+v", updated)
	}
	if _, err := s.Update(ctx, node); !errors.Is(err, store.ErrConflict) {
		t.Errorf("update of an old version: %v", err)
	}
	eventually(t, "the watch has the node's address", func() bool {
		n, ok := m.get(v3.Key{Kind: v3.KindNode, Name: "node-1"}).(*v3.Node)
		return ok && n.Spec.BGP != nil
	})
}

// TestClusterPolicies lets the resource type come, an object move to another tier, and all go again, under a watch.
func TestClusterPolicies(t *testing.T) {
	c := empty(t)
	s := opened(t, c)
	m := follow(t, s, v3.KindGlobalNetworkPolicy, v3.KindTier)
	eventually(t, "the first snapshot", func() bool { m.mu.Lock(); defer m.mu.Unlock(); return m.inSync })
	installClusterPolicies(t, c)
	do(t, c, http.MethodPost, "/apis/policy.networking.k8s.io/v1alpha2/clusternetworkpolicies", clusterPolicy("p", "Admin"))
	policies := func(want ...string) {
		t.Helper()
		eventually(t, "policies "+strings.Join(want, " "), func() bool { return slices.Equal(m.keys(v3.KindGlobalNetworkPolicy), want) })
	}
	policies("GlobalNetworkPolicy(kcnp.kube-admin.p)")
	p := m.get(v3.Key{Kind: v3.KindGlobalNetworkPolicy, Name: "kcnp.kube-admin.p"}).(*v3.GlobalNetworkPolicy)
	if p.Spec.Tier != v3.TierKubeAdmin || *p.Spec.Order != 7 || p.Spec.Ingress[0].Action != v3.ActionDeny {
		t.Errorf("the policy is %+v", p.Spec)
	}
	do(t, c, http.MethodPatch, "/apis/policy.networking.k8s.io/v1alpha2/clusternetworkpolicies/p", object{"spec": object{"tier": "Baseline"}})
	policies("GlobalNetworkPolicy(kcnp.kube-baseline.p)")
	if _, err := s.Get(t.Context(), v3.Key{Kind: v3.KindGlobalNetworkPolicy, Name: "kcnp.kube-admin.p"}); !errors.Is(err, store.ErrNotFound) {
		t.Errorf("it is still in the other tier: %v", err)
	}
	if _, err := s.Delete(t.Context(), v3.Key{Kind: v3.KindGlobalNetworkPolicy, Name: "kcnp.kube-baseline.p"}, ""); !errors.Is(err, store.ErrNotSupported) {
		t.Errorf("it can be deleted: %v", err)
	}
	removeClusterPolicies(t, c)
	policies()
}
