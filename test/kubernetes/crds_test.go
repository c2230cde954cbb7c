package kubernetes_test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"sigs.k8s.io/yaml"

	v3 "margay/api/v3"
	"margay/test/kubernetes/cluster"
)

// definitions are the CustomResourceDefinitions as they are installed, by kind.
func definitions(t testing.TB) map[v3.Kind][]byte {
	t.Helper()
	files, err := filepath.Glob("../../install/crds/*.yaml")
	if err != nil || len(files) == 0 {
		t.Fatalf("no definitions: %v", err)
	}
	found := map[v3.Kind][]byte{}
	for _, name := range files {
		text, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		data, err := yaml.YAMLToJSON(text)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		var d struct {
			Spec struct{ Names struct{ Kind v3.Kind } }
		}
		if err := json.Unmarshal(data, &d); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		found[d.Spec.Names.Kind] = data
	}
	return found
}

// defined starts a cluster with the definitions, and waits until it serves them.
func defined(t testing.TB) *cluster.Cluster {
	t.Helper()
	c, err := cluster.Start(t.Context(), cluster.Config{Dir: t.TempDir(), Args: []string{"--disable-admission-plugins=ServiceAccount,NamespaceLifecycle"}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := c.Close(); err != nil {
			t.Error(err)
		}
	})
	const path = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"
	all := definitions(t)
	for kind, data := range all {
		if answer, err := c.Do(t.Context(), http.MethodPost, path, data); err != nil {
			t.Errorf("%s: %v: %s", kind, err, answer)
		}
	}
	if t.Failed() {
		t.FailNow()
	}
	for kind := range all {
		info, _ := v3.Lookup(kind)
		for deadline := time.Now().Add(time.Minute); ; time.Sleep(20 * time.Millisecond) {
			_, err := c.Do(t.Context(), http.MethodGet, "/apis/projectcalico.org/v3/"+info.Plural, nil)
			if err == nil {
				break
			}
			if time.Now().After(deadline) {
				t.Fatalf("%s is not served: %v", kind, err)
			}
		}
	}
	return c
}

// try asks the API server whether it would create an object, without creating it, as kubectl apply --dry-run=server does. It
// returns what is wrong.
func try(t testing.TB, c *cluster.Cluster, manifest []byte) error {
	t.Helper()
	data, err := yaml.YAMLToJSON(manifest)
	if err != nil {
		t.Fatal(err)
	}
	var object struct {
		Kind     v3.Kind
		Metadata struct{ Namespace string }
	}
	if err := json.Unmarshal(data, &object); err != nil {
		t.Fatal(err)
	}
	info, _ := v3.Lookup(object.Kind)
	path := "/apis/projectcalico.org/v3/"
	if info.Namespaced {
		if object.Metadata.Namespace == "" {
			object.Metadata.Namespace = "default"
		}
		path += "namespaces/" + object.Metadata.Namespace + "/"
	}
	answer, err := c.Do(t.Context(), http.MethodPost, path+info.Plural+"?dryRun=All&fieldValidation=Strict", data)
	if err != nil {
		return fmt.Errorf("%w: %s", err, answer)
	}
	return nil
}

// offline is what the CLI says.
func offline(manifest []byte) error {
	docs, err := v3.Decode("case", manifest)
	if err != nil {
		return err
	}
	r := docs[0].Object
	if info, _ := v3.Lookup(v3.KeyOf(r).Kind); info.Namespaced && r.GetNamespace() == "" {
		r.SetNamespace("default")
	}
	v3.Default(r)
	return v3.Validate(r)
}

// cases yields the recorded manifests of kinds that are custom resources.
func cases(t testing.TB) [][]byte {
	t.Helper()
	text, err := os.ReadFile("../../api/v3/testdata/validation.json")
	if err != nil {
		t.Fatal(err)
	}
	var recorded []struct{ Kind, Manifest string }
	if err := json.Unmarshal(text, &recorded); err != nil {
		t.Fatal(err)
	}
	var all [][]byte
	for _, c := range recorded {
		all = append(all, []byte(c.Manifest))
	}
	if text, err = os.ReadFile("../../api/v3/testdata/verdicts.txt"); err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(text)) {
		if _, manifest, ok := strings.Cut(strings.TrimSpace(line), " {"); ok && !strings.HasPrefix(line, "#") {
			all = append(all, []byte(`{"apiVersion":"projectcalico.org/v3",`+manifest))
		}
	}
	return all
}

// beyond are parts of refusals that no schema can say. Each is a difference that docs/compatibility.md names.
var beyond = []string{
	"DEBUG",
}

// known reports whether a difference is meant.
func known(refusal error) bool {
	for _, part := range beyond {
		if strings.Contains(refusal.Error(), part) {
			return true
		}
	}
	return false
}

// TestDefinitions: the API server takes the definitions, and then says of manifests what the CLI says.
func TestDefinitions(t *testing.T) {
	c := defined(t)
	custom := definitions(t)
	same, looser := 0, 0
	for _, manifest := range cases(t) {
		var head struct{ Kind v3.Kind }
		if yaml.Unmarshal(manifest, &head) != nil || custom[head.Kind] == nil {
			continue
		}
		cli, server := offline(manifest), try(t, c, manifest)
		switch {
		case (cli == nil) == (server == nil):
			same++
		case cli == nil:
			t.Errorf("the CLI accepts, the API server says %v\n%s", server, manifest)
		case !known(cli):
			t.Errorf("the API server accepts, the CLI says %v\n%s", cli, manifest)
		default:
			looser++
		}
	}
	t.Logf("%d verdicts are the same, the API server accepts %d more", same, looser)
}
