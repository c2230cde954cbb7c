package etcd_test

import (
	"context"
	"encoding/json"
	"errors"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	clientv3 "go.etcd.io/etcd/client/v3"

	v3 "margay/api/v3"
	"margay/store"
	"margay/store/etcd"
)

// values returns all that is stored under the prefix of resources.
func values(t *testing.T, client *clientv3.Client) map[string]string {
	t.Helper()
	resp, err := client.Get(context.Background(), prefix, clientv3.WithPrefix())
	if err != nil {
		t.Fatal(err)
	}
	out := map[string]string{}
	for _, kv := range resp.Kvs {
		out[strings.TrimPrefix(string(kv.Key), prefix)] = string(kv.Value)
	}
	return out
}

func TestMigratePolicyNames(t *testing.T) {
	endpoint := startServer(t)
	client := rawClient(t, endpoint)
	s := openStore(t, etcd.Config{Endpoints: []string{endpoint}})
	defer s.Close()
	value := func(kind, name, namespace, annotation, spec string) string {
		meta := map[string]any{"name": name, "uid": "u-" + name, "creationTimestamp": "2026-01-01T00:00:00Z"}
		if namespace != "" {
			meta["namespace"] = namespace
		}
		if annotation != "" {
			meta["annotations"] = map[string]string{"projectcalico.org/metadata": annotation}
		}
		text, err := json.Marshal(map[string]any{"kind": kind, "apiVersion": "projectcalico.org/v3", "metadata": meta, "spec": json.RawMessage(spec)})
		if err != nil {
			t.Fatal(err)
		}
		return string(text)
	}
	const gnp, np, sgnp = "globalnetworkpolicies/", "networkpolicies/blue/", "stagedglobalnetworkpolicies/"
	const rules = `{"types":["Ingress"],"selector":"all()"}`
	for key, text := range map[string]string{
		gnp + "default.a":   value("GlobalNetworkPolicy", "default.a", "", "", `{"tier":"default","types":["Ingress"],"newField":1}`),
		gnp + "default.b":   value("GlobalNetworkPolicy", "default.b", "", `{"name":"b"}`, rules),
		gnp + "default.own": value("GlobalNetworkPolicy", "default.own", "", `{"name":"default.own"}`, rules),
		gnp + "plain":       value("GlobalNetworkPolicy", "plain", "", `{"name":"plain"}`, rules),
		gnp + "x.tiered":    value("GlobalNetworkPolicy", "x.tiered", "", "", `{"tier":"x","types":["Ingress"]}`),
		np + "default.n":    value("NetworkPolicy", "default.n", "blue", "", rules),
		sgnp + "default.s":  value("StagedGlobalNetworkPolicy", "default.s", "", "", rules),
		gnp + "default.new": value("GlobalNetworkPolicy", "default.new", "", "", `{"order":1,"types":["Ingress"]}`),
		gnp + "new":         value("GlobalNetworkPolicy", "new", "", `{"name":"new"}`, `{"order":2,"types":["Ingress"]}`),
		gnp + "broken":      "broken",
	} {
		if _, err := client.Put(context.Background(), prefix+key, text); err != nil {
			t.Fatal(err)
		}
	}
	moved, err := s.MigratePolicyNames(t.Context())
	if fault := (*store.Fault)(nil); moved != 5 || !errors.As(err, &fault) || fault.Key.Name != "broken" {
		t.Errorf("moved %d, %v", moved, err)
	}
	got := values(t, client)
	var names []string
	for key := range got {
		names = append(names, key)
	}
	want := map[string]bool{gnp + "a": true, gnp + "b": true, gnp + "default.own": true, gnp + "plain": true, gnp + "x.tiered": true,
		np + "n": true, sgnp + "s": true, gnp + "new": true, gnp + "broken": true}
	have := map[string]bool{}
	for _, name := range names {
		have[name] = true
	}
	if diff := cmp.Diff(want, have); diff != "" {
		t.Fatalf("keys -want +got:\n%s", diff)
	}
	var a map[string]any
	if err := json.Unmarshal([]byte(got[gnp+"a"]), &a); err != nil {
		t.Fatal(err)
	}
	wantA := map[string]any{"kind": "GlobalNetworkPolicy", "apiVersion": "projectcalico.org/v3",
		"metadata": map[string]any{"name": "a", "uid": "u-default.a", "creationTimestamp": "2026-01-01T00:00:00Z",
			"annotations": map[string]any{"projectcalico.org/metadata": `{"name":"a"}`},
			"labels":      map[string]any{"projectcalico.org/tier": "default"}},
		"spec": map[string]any{"tier": "default", "types": []any{"Ingress"}, "newField": 1.0}}
	if diff := cmp.Diff(wantA, a); diff != "" {
		t.Errorf("a -want +got:\n%s", diff)
	}
	if !strings.Contains(got[gnp+"new"], `"order":2`) {
		t.Errorf("the newer policy was replaced: %s", got[gnp+"new"])
	}
	r, err := s.Get(t.Context(), v3.Key{Kind: v3.KindNetworkPolicy, Namespace: "blue", Name: "n"})
	if err != nil || r.GetName() != "n" || r.GetUID() != "u-default.n" {
		t.Errorf("n is %+v, %v", r, err)
	}
	if moved, _ := s.MigratePolicyNames(t.Context()); moved != 0 {
		t.Errorf("the second time %d were moved", moved)
	}
}

func TestIPAM(t *testing.T) {
	endpoint := startServer(t)
	s := openStore(t, etcd.Config{Endpoints: []string{endpoint}})
	defer s.Close()
	const key = "/calico/ipam/v2/handle/x"
	if err := s.CreateIPAM(t.Context(), key, json.RawMessage(`{"a":1}`)); err != nil {
		t.Fatal(err)
	}
	if err := s.CreateIPAM(t.Context(), key, json.RawMessage(`{}`)); !errors.Is(err, store.ErrExists) {
		t.Errorf("created twice: %v", err)
	}
	if err := s.CreateIPAM(t.Context(), "/calico/resources/x", json.RawMessage(`{}`)); err == nil {
		t.Error("any key can be written")
	}
	got, err := s.IPAM(t.Context())
	if diff := cmp.Diff(map[string]json.RawMessage{key: json.RawMessage(`{"a":1}`)}, got); err != nil || diff != "" {
		t.Errorf("%v, -want +got:\n%s", err, diff)
	}
}

// TestOldNamesSurvive updates policies that older releases stored under another name than people know.
func TestOldNamesSurvive(t *testing.T) {
	endpoint := startServer(t)
	client := rawClient(t, endpoint)
	s := openStore(t, etcd.Config{Endpoints: []string{endpoint}})
	defer s.Close()
	if err := s.Initialise(t.Context()); err != nil {
		t.Fatal(err)
	}
	const uid = `"uid":"00000000-0000-4000-8000-000000000000","creationTimestamp":"2026-01-01T00:00:00Z"`
	for _, c := range []struct{ plural, kind, meta string }{
		{"globalnetworkpolicies", "GlobalNetworkPolicy", `{"name":"default.p",` + uid + `}`},
		{"globalnetworkpolicies", "GlobalNetworkPolicy", `{"name":"p",` + uid + `}`},
		{"globalnetworkpolicies", "GlobalNetworkPolicy", `{"name":"default.p",` + uid + `,"annotations":{"projectcalico.org/metadata":"{\"name\":\"p\"}"}}`},
		{"globalnetworkpolicies", "GlobalNetworkPolicy", `{"name":"default.p",` + uid + `,"annotations":{"a":"b"}}`},
		{"stagedglobalnetworkpolicies", "StagedGlobalNetworkPolicy", `{"name":"default.p",` + uid + `}`},
	} {
		key := v3.Key{Kind: v3.Kind(c.kind), Name: "default.p"}
		path := prefix + c.plural + "/default.p"
		value := `{"kind":"` + c.kind + `","apiVersion":"projectcalico.org/v3","metadata":` + c.meta + `,"spec":{"types":["Ingress"]}}`
		if _, err := client.Put(t.Context(), path, value); err != nil {
			t.Fatal(err)
		}
		r, err := s.Get(t.Context(), key)
		if err != nil {
			t.Fatal(err)
		}
		r.SetLabels(map[string]string{"x": "y"})
		updated, err := s.Update(t.Context(), r)
		if err != nil {
			t.Fatal(err)
		}
		if updated.GetName() != "default.p" {
			t.Errorf("the result is called %s", updated.GetName())
		}
		var want, got struct {
			Metadata struct {
				Name        string            `json:"name"`
				Annotations map[string]string `json:"annotations"`
			} `json:"metadata"`
		}
		if err := json.Unmarshal([]byte(value), &want); err != nil {
			t.Fatal(err)
		}
		if err := json.Unmarshal([]byte(values(t, client)[c.plural+"/default.p"]), &got); err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("%s: -want +got:\n%s", c.meta, diff)
		}
	}
	if moved, err := s.MigratePolicyNames(t.Context()); moved != 2 || err != nil {
		t.Errorf("moved %d, %v", moved, err)
	}
}
