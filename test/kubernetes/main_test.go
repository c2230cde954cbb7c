package kubernetes_test

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	v3 "margay/api/v3"
	"margay/store"
	"margay/store/kube"
	"margay/test/kubernetes/cluster"
)

// shared is the cluster that most tests use, one after the other.
var shared struct {
	mu sync.Mutex
	c  *cluster.Cluster
}

// temporary is a directory that lasts as long as the process.
var temporary string

func TestMain(m *testing.M) {
	var err error
	if temporary, err = os.MkdirTemp("", "margay-kubernetes-"); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	code := m.Run()
	if shared.c != nil {
		if err := shared.c.Close(); err != nil {
			fmt.Fprintln(os.Stderr, err)
			code = 1
		}
	}
	if err := os.RemoveAll(temporary); err != nil {
		fmt.Fprintln(os.Stderr, err)
		code = 1
	}
	os.Exit(code)
}

// empty returns the shared cluster without objects that tests made; no other test has it meanwhile.
func empty(t testing.TB) *cluster.Cluster {
	t.Helper()
	shared.mu.Lock()
	t.Cleanup(shared.mu.Unlock)
	if shared.c == nil {
		dir := filepath.Join(temporary, "shared")
		if err := os.Mkdir(dir, 0o700); err != nil {
			t.Fatal(err)
		}
		var err error
		shared.c, err = cluster.Start(context.Background(), cluster.Config{Dir: dir, Args: []string{
			// Objects of namespaces that are not there are no matter of the store.
			"--disable-admission-plugins=ServiceAccount,NamespaceLifecycle",
		}})
		if err != nil {
			t.Fatal(err)
		}
		installOpen(t, shared.c, kube.GroupV3)
		do(t, shared.c, http.MethodPost, "/api/v1/namespaces", namespace(kube.DefaultStatusNamespace))
	}
	clean(t, shared.c)
	return shared.c
}

func namespace(name string) map[string]any {
	return map[string]any{"apiVersion": "v1", "kind": "Namespace", "metadata": map[string]any{"name": name}}
}

// do makes a request as administrator that must succeed, and returns the answer.
func do(t testing.TB, c *cluster.Cluster, method, path string, body any) []byte {
	t.Helper()
	text, err := encode(body)
	if err != nil {
		t.Fatal(err)
	}
	answer, err := c.Do(context.Background(), method, path, text)
	if err != nil {
		t.Fatal(err)
	}
	return answer
}

func encode(body any) ([]byte, error) {
	if body == nil {
		return nil, nil
	}
	return json.Marshal(body)
}

// customKinds returns the kinds that are custom resources.
func customKinds() []v3.Info {
	var infos []v3.Info
	for _, info := range append(v3.Kinds(), v3.UntypedKinds()...) {
		switch info.Kind {
		case v3.KindWorkloadEndpoint, v3.KindProfile, v3.KindNode:
		default:
			infos = append(infos, info)
		}
	}
	return infos
}

// installOpen installs definitions that take anything, as those of crd.projectcalico.org/v1 nearly do.
func installOpen(t testing.TB, c *cluster.Cluster, group string) {
	t.Helper()
	name, version, _ := strings.Cut(group, "/")
	for _, info := range customKinds() {
		scope := "Cluster"
		if info.Namespaced {
			scope = "Namespaced"
		}
		do(t, c, http.MethodPost, "/apis/apiextensions.k8s.io/v1/customresourcedefinitions", map[string]any{
			"apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
			"metadata": map[string]any{"name": info.Plural + "." + name,
				"annotations": map[string]any{"api-approved.kubernetes.io": "unapproved, for tests"}},
			"spec": map[string]any{
				"group": name, "scope": scope,
				"names": map[string]any{"kind": string(info.Kind), "listKind": string(info.Kind) + "List", "plural": info.Plural, "singular": strings.ToLower(string(info.Kind))},
				"versions": []any{map[string]any{"name": version, "served": true, "storage": true, "schema": map[string]any{
					"openAPIV3Schema": map[string]any{"type": "object", "x-kubernetes-preserve-unknown-fields": true}}}},
			},
		})
	}
	for _, info := range customKinds() {
		eventually(t, "the API server serves "+info.Plural, func() bool {
			_, err := c.Do(context.Background(), http.MethodGet, "/apis/"+group+"/"+info.Plural, nil)
			return err == nil
		})
	}
}

// eventually waits for a condition.
func eventually(t testing.TB, what string, holds func() bool) {
	t.Helper()
	for deadline := time.Now().Add(60 * time.Second); !holds(); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("waited in vain: %s", what)
		}
	}
}

// clean deletes every object that a test may have made.
func clean(t testing.TB, c *cluster.Cluster) {
	t.Helper()
	remove := func(path string) {
		if _, err := c.Do(context.Background(), http.MethodDelete, path, nil); err != nil {
			t.Fatal(err)
		}
	}
	for _, info := range customKinds() {
		if !info.Namespaced {
			remove("/apis/" + kube.GroupV3 + "/" + info.Plural)
			continue
		}
		each(t, c, "/apis/"+kube.GroupV3+"/"+info.Plural, func(namespace, name string) {
			remove("/apis/" + kube.GroupV3 + "/namespaces/" + namespace + "/" + info.Plural + "/" + name)
		})
	}
	remove("/apis/coordination.k8s.io/v1/namespaces/" + kube.DefaultStatusNamespace + "/leases")
	for _, path := range []string{"/api/v1/pods", "/apis/networking.k8s.io/v1/networkpolicies", "/apis/discovery.k8s.io/v1/endpointslices"} {
		each(t, c, path, func(namespace, name string) {
			at := strings.LastIndex(path, "/")
			remove(path[:at] + "/namespaces/" + namespace + path[at:] + "/" + name + "?gracePeriodSeconds=0")
		})
	}
	remove("/api/v1/nodes")
}

// each calls f with every object of a list.
func each(t testing.TB, c *cluster.Cluster, path string, f func(namespace, name string)) {
	t.Helper()
	var list struct {
		Items []struct {
			Metadata struct {
				Name      string `json:"name"`
				Namespace string `json:"namespace"`
			} `json:"metadata"`
		} `json:"items"`
	}
	if err := json.Unmarshal(do(t, c, http.MethodGet, path, nil), &list); err != nil {
		t.Fatal(err)
	}
	for _, item := range list.Items {
		f(item.Metadata.Namespace, item.Metadata.Name)
	}
}

// open returns a store on the cluster, as administrator.
func open(t testing.TB, c *cluster.Cluster) store.Store {
	t.Helper()
	s, err := kube.Open(context.Background(), kube.Config{Kubeconfig: c.Kubeconfig()})
	if err != nil {
		t.Fatal(err)
	}
	return s
}
