// Package crds_test holds the CustomResourceDefinitions against a real API server.
package crds_test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"slices"
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
	files, err := filepath.Glob("../../../install/crds/*.yaml")
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

// offline is what the CLI does before it sends a manifest: it checks it, and writes it anew.
func offline(manifest []byte) ([]byte, error) {
	docs, err := v3.Decode("case", manifest)
	if err != nil {
		return nil, err
	}
	r := docs[0].Object
	if info, _ := v3.Lookup(v3.KeyOf(r).Kind); info.Namespaced && r.GetNamespace() == "" {
		r.SetNamespace("default")
	}
	v3.Default(r)
	if err := v3.Validate(r); err != nil {
		return nil, err
	}
	return json.Marshal(r)
}

// cases yields the recorded manifests of kinds that are custom resources.
func cases(t testing.TB) [][]byte {
	t.Helper()
	text, err := os.ReadFile("../../../api/v3/testdata/validation.json")
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
	if text, err = os.ReadFile("../../../api/v3/testdata/verdicts.txt"); err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(text)) {
		if _, manifest, ok := strings.Cut(strings.TrimSpace(line), " {"); ok && !strings.HasPrefix(line, "#") {
			all = append(all, []byte(`{"apiVersion":"projectcalico.org/v3",`+manifest))
		}
	}
	return all
}

// beyond are the faults that the definitions cannot tell, as path and reason; docs/compatibility.md names them. A manifest
// with such a fault that reaches the API server by another way than the CLI is stored; agents say so and keep what was.
var beyond = regexp.MustCompile(strings.Join([]string{
	`[sS]elector: `,                                      // syntax
	`: is not a regular expression`,                      //
	`(labels|annotations|labelsToApply|bpfLogFilters)\[`, // keys and values
	`^status`,                               // a create drops it
	`not strictly masked|without host bits`, // those who read mask them
	`both IPv4 and IPv6 CIDRs`,              // in notNets, between the first and the last
	`targets too many tables`,               //
	`community used is invalid`,             // a name that is not defined
	`Template name must be unique`,          //
}, "|"))

// known reports whether all that is wrong with a manifest is beyond the definitions.
func known(refusal error) bool {
	faults, ok := refusal.(v3.Errors)
	for _, f := range faults {
		ok = ok && beyond.MatchString(f.Path+": "+f.Reason)
	}
	return ok
}

// stricter are manifests that the CLI accepts, as 3.32 does, and the API server refuses.
var stricter = []string{
	"::ffff:10.0.0.0/104", // in lists of addresses that only eBPF data planes read
}

func isStricter(manifest []byte) bool {
	return slices.ContainsFunc(stricter, func(part string) bool { return strings.Contains(string(manifest), part) })
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
		sent, cli := offline(manifest)
		if cli != nil {
			sent = manifest
		}
		switch server := try(t, c, sent); {
		case (cli == nil) == (server == nil):
			same++
		case cli == nil && isStricter(manifest):
		case cli == nil:
			t.Errorf("the CLI accepts, the API server says %v\n%s", server, sent)
		case !known(cli):
			t.Errorf("the API server accepts, the CLI says %v\n%s", cli, manifest)
		default:
			looser++
		}
	}
	t.Logf("%d verdicts are the same, the API server accepts %d more", same, looser)
	if same < 2500 || looser > 300 {
		t.Error("that is not what it should be")
	}
}
