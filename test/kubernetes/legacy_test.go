package kubernetes_test

import (
	"errors"
	"net/http"
	"path/filepath"
	"strings"
	"testing"

	v3 "margay/api/v3"
	"margay/store"
	"margay/store/kube"
	"margay/test/kubernetes/cluster"
)

// TestV1: a cluster that holds crd.projectcalico.org/v1 objects is read, followed and written in that form.
func TestV1(t *testing.T) {
	c, err := cluster.Start(t.Context(), cluster.Config{Dir: filepath.Join(t.TempDir())})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := c.Close(); err != nil {
			t.Error(err)
		}
	})
	installOpen(t, c, kube.GroupV1)
	const path = "/apis/" + kube.GroupV1
	// As Calico 3.28 stored it.
	do(t, c, http.MethodPost, path+"/globalnetworkpolicies", object{
		"apiVersion": kube.GroupV1, "kind": "GlobalNetworkPolicy", "metadata": object{"name": "default.old",
			"annotations": object{"projectcalico.org/metadata": `{"name":"old","creationTimestamp":"2020-01-01T00:00:00Z","labels":{"a":"b"}}`}},
		"spec": object{"selector": "all()", "order": 5, "types": []any{"Ingress"}}})
	s := opened(t, c)
	ctx := t.Context()
	if err := s.Initialise(ctx); err != nil {
		t.Fatal(err)
	}
	m := follow(t, s, v3.KindGlobalNetworkPolicy, v3.KindTier)
	eventually(t, "the first snapshot", m.synced)
	old, err := s.Get(ctx, v3.Key{Kind: v3.KindGlobalNetworkPolicy, Name: "default.old"})
	if err != nil || old.GetLabels()["a"] != "b" || old.GetCreationTimestamp().Year() != 2020 || *old.(*v3.GlobalNetworkPolicy).Spec.Order != 5 {
		t.Fatalf("%+v, %v", old, err)
	}

	info, _ := v3.Lookup(v3.KindGlobalNetworkPolicy)
	p := info.New().(*v3.GlobalNetworkPolicy)
	p.Name, p.Labels, p.Spec.Selector = "new", map[string]string{"x": "y"}, "all()"
	created, err := s.Create(ctx, p)
	if err != nil {
		t.Fatal(err)
	}
	raw := string(do(t, c, http.MethodGet, path+"/globalnetworkpolicies/new", nil))
	if !strings.Contains(raw, `\"name\":\"new\"`) || !strings.Contains(raw, `\"x\":\"y\"`) || strings.Contains(raw, string(created.GetUID())) {
		t.Errorf("it is stored as %s", raw)
	}
	created.SetLabels(map[string]string{"x": "z"})
	updated, err := s.Update(ctx, created)
	if err != nil || updated.GetLabels()["x"] != "z" || updated.GetUID() != created.GetUID() {
		t.Fatalf("%+v, %v", updated, err)
	}
	if _, err := s.Update(ctx, created); !errors.Is(err, store.ErrConflict) {
		t.Errorf("update of an old version: %v", err)
	}
	list := settled(t, c, m, v3.KindGlobalNetworkPolicy, v3.KindTier)
	if len(list.Items) != 5 || len(list.Faults) > 0 {
		t.Errorf("the list is %+v", list)
	}
	old = migrateNames(t, c, s)
	for _, r := range []v3.Resource{old, updated} {
		if _, err := s.Delete(ctx, v3.KeyOf(r), store.Revision(r.GetResourceVersion())); err != nil {
			t.Error(err)
		}
	}
	eventually(t, "the policies are gone", func() bool { return len(m.keys(v3.KindGlobalNetworkPolicy)) == 0 })
}

// migrateNames has the policies stored under their names: nothing else of them changes, and one that was written anew since
// stays as it is.
func migrateNames(t *testing.T, c *cluster.Cluster, s store.Store) v3.Resource {
	t.Helper()
	const path = "/apis/" + kube.GroupV1 + "/globalnetworkpolicies"
	stored := func(name, own, tier string) {
		do(t, c, http.MethodPost, path, object{"apiVersion": kube.GroupV1, "kind": "GlobalNetworkPolicy", "metadata": object{"name": name,
			"annotations": object{"projectcalico.org/metadata": `{"name":"` + own + `"}`}}, "spec": object{"selector": "has(stale)", "tier": tier}})
	}
	stored("default.new", "new", "default")                     // "new" is newer
	stored("default.called-so", "default.called-so", "default") // its name
	stored("security.x", "x", "security")                       // no old name: other tiers keep theirs
	for _, want := range []int{2, 0} {
		moved, err := s.(*kube.Store).MigratePolicyNames(t.Context())
		if moved != want || err != nil {
			t.Errorf("moved %d, %v; want %d", moved, err, want)
		}
	}
	list, err := s.List(t.Context(), "", v3.KindGlobalNetworkPolicy)
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, r := range list.Items {
		names = append(names, r.GetName()+" "+r.(*v3.GlobalNetworkPolicy).Spec.Selector)
	}
	if got := strings.Join(names, "; "); got != "default.called-so has(stale); new all(); old all(); security.x has(stale)" {
		t.Errorf("the policies are %s", got)
	}
	old, err := s.Get(t.Context(), v3.Key{Kind: v3.KindGlobalNetworkPolicy, Name: "old"})
	if err != nil || old.GetLabels()["a"] != "b" || old.GetCreationTimestamp().Year() != 2020 || *old.(*v3.GlobalNetworkPolicy).Spec.Order != 5 {
		t.Fatalf("%+v, %v", old, err)
	}
	for _, name := range []string{"default.called-so", "security.x"} {
		do(t, c, http.MethodDelete, path+"/"+name, nil)
	}
	return old
}
