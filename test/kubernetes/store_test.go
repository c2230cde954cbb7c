package kubernetes_test

import (
	"context"
	"encoding/json"
	"net/http"
	"testing"

	v3 "margay/api/v3"
	"margay/store"
	"margay/store/kube"
	"margay/store/storetest"
	"margay/test/kubernetes/cluster"
)

// TestStore runs the suite of all stores. Its tests have the cluster one after the other.
func TestStore(t *testing.T) {
	storetest.Run(t, func(t *testing.T) storetest.Backend {
		c := empty(t)
		return storetest.Backend{
			Open:    func(t testing.TB) store.Store { return open(t, c) },
			Put:     func(t testing.TB, key v3.Key, value []byte) { put(t, c, key, value) },
			Compact: func(t testing.TB, _ store.Revision) { forgetHistory(t, c) },
			Limits: storetest.Limits{
				Derived: []v3.Kind{v3.KindWorkloadEndpoint, v3.KindProfile, v3.KindNode},
				PerKind: true, NoHistory: true, ObjectsOnly: true, OneByOne: true, Marks: true,
			},
		}
	})
}

// put stores a value as kubectl replace would. What is no JSON becomes a spec that cannot be read.
func put(t testing.TB, c *cluster.Cluster, key v3.Key, value []byte) {
	t.Helper()
	object := map[string]any{}
	if json.Unmarshal(value, &object) != nil {
		object["spec"] = string(value)
	}
	info, _ := v3.Lookup(key.Kind)
	object["kind"], object["apiVersion"] = string(key.Kind), kube.GroupV3
	meta, _ := object["metadata"].(map[string]any)
	if meta == nil {
		meta = map[string]any{}
	}
	delete(meta, "uid")
	meta["name"], object["metadata"] = key.Name, meta
	path := "/apis/" + kube.GroupV3
	if info.Namespaced {
		meta["namespace"] = key.Namespace
		path += "/namespaces/" + key.Namespace
	}
	path += "/" + info.Plural
	var old struct {
		Metadata struct {
			ResourceVersion string `json:"resourceVersion"`
		} `json:"metadata"`
	}
	text, err := c.Do(context.Background(), http.MethodGet, path+"/"+key.Name, nil)
	if err != nil {
		do(t, c, http.MethodPost, path, object)
		return
	}
	if err := json.Unmarshal(text, &old); err != nil {
		t.Fatal(err)
	}
	meta["resourceVersion"] = old.Metadata.ResourceVersion
	do(t, c, http.MethodPut, path+"/"+key.Name, object)
}

// forgetHistory makes the API server forget what it has in its memory.
func forgetHistory(t testing.TB, c *cluster.Cluster) {
	t.Helper()
	c.StopServer()
	if err := c.StartServer(context.Background()); err != nil {
		t.Fatal(err)
	}
}
