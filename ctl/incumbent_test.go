package ctl

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	clientv3 "go.etcd.io/etcd/client/v3"

	v3 "margay/api/v3"
	"margay/store"
	"margay/store/embed"
)

// A recordedCase is what the incumbent stored for a resource.
type recordedCase struct {
	Prerequisites []json.RawMessage          `json:"prerequisites"`
	Resource      json.RawMessage            `json:"resource"`
	Stored        map[string]json.RawMessage `json:"stored"`
}

func recordedCases(t *testing.T) []recordedCase {
	t.Helper()
	data, err := os.ReadFile("../api/v3/testdata/layout.json")
	if err != nil {
		t.Fatal(err)
	}
	text := strings.NewReplacer("<uid>", "00000000-0000-4000-8000-000000000000", "<time>", "2026-01-01T00:00:00Z").Replace(string(data))
	var recorded struct {
		Cases []recordedCase `json:"cases"`
	}
	if err := json.Unmarshal([]byte(text), &recorded); err != nil {
		t.Fatal(err)
	}
	if len(recorded.Cases) < 200 {
		t.Fatalf("only %d cases", len(recorded.Cases))
	}
	return recorded.Cases
}

// An incumbent is a store in which the incumbent wrote.
type incumbent struct {
	*testing.T
	store  store.Store
	client *clientv3.Client
	dir    string
}

func newIncumbent(t *testing.T) *incumbent {
	t.Helper()
	dir := t.TempDir()
	server, err := embed.Start(t.Context(), embed.Config{Dir: filepath.Join(dir, "store"), Socket: filepath.Join(dir, "s"), Listen: []string{}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = server.Close() })
	client, err := clientv3.New(clientv3.Config{Endpoints: []string{"unix://" + filepath.Join(dir, "s")}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = client.Close() })
	i := &incumbent{t, server.Store(), client, dir}
	if err := i.store.Initialise(t.Context()); err != nil {
		t.Fatal(err)
	}
	return i
}

// need creates what a case needs.
func (i *incumbent) need(prerequisites []json.RawMessage) {
	i.Helper()
	for _, text := range prerequisites {
		for _, r := range decoded(i.T, string(text)) {
			if namespace, err := namespaceOf(v3.KeyOf(r), ""); err == nil {
				r.SetNamespace(namespace)
			}
			_, _ = i.store.Create(i.Context(), r) // there already, from another case
		}
	}
}

// stored returns what is under a key.
func (i *incumbent) stored(key string) (tree any) {
	i.Helper()
	resp, err := i.client.Get(i.Context(), key)
	if err != nil || len(resp.Kvs) != 1 {
		i.Fatalf("%s: %v, %v", key, resp, err)
	}
	if err := json.Unmarshal(resp.Kvs[0].Value, &tree); err != nil {
		i.Fatal(err)
	}
	return tree
}

// run runs a command that must succeed, and returns what it printed.
func (i *incumbent) run(stdin string, args ...string) (stdout, stderr string) {
	i.Helper()
	var out, errs bytes.Buffer
	root := NewCommand(Env{
		Name: "margay", Stdin: strings.NewReader(stdin), Stdout: &out, Stderr: &errs, Getenv: func(string) string { return "" },
		ConfigFile: filepath.Join(i.dir, "none"), Socket: filepath.Join(i.dir, "s"), Settings: nodeSettings,
		OpenStore: func(context.Context, StoreConfig) (store.Store, error) { return unclosed{i.store}, nil },
	})
	root.SetArgs(args)
	if code := Execute(i.Context(), root); code != 0 {
		i.Fatalf("%v: exit %d\n%s%s", args, code, &out, &errs)
	}
	return out.String(), errs.String()
}

// TestIncumbentObjects reads, labels and applies again every recorded value: nothing of it is lost or changed, but the
// label that was asked for. Every other one has fields that this program does not know.
func TestIncumbentObjects(t *testing.T) {
	i := newIncumbent(t)
	for n, c := range recordedCases(t) {
		for key, value := range c.Stored {
			t.Run(fmt.Sprintf("%d %s", n, filepath.Base(key)), func(t *testing.T) {
				i := &incumbent{t, i.store, i.client, i.dir}
				i.need(c.Prerequisites)
				if n%2 == 1 {
					value = withUnknown(t, value)
				}
				if _, err := i.client.Put(t.Context(), key, string(value)); err != nil {
					t.Fatal(err)
				}
				i.survives(key)
				if _, err := i.client.Delete(t.Context(), key); err != nil {
					t.Fatal(err)
				}
			})
		}
	}
}

// withUnknown adds fields at the top, in metadata and in spec.
func withUnknown(t *testing.T, value []byte) []byte {
	t.Helper()
	var tree map[string]any
	if err := json.Unmarshal(value, &tree); err != nil {
		t.Fatal(err)
	}
	tree["zzNew"] = []any{1.0}
	tree["metadata"].(map[string]any)["zzNew"] = map[string]any{"a": "b"}
	if spec, ok := tree["spec"].(map[string]any); ok {
		spec["zzNew"] = map[string]any{"c": nil}
		for _, direction := range []string{"ingress", "egress"} {
			if rules, ok := spec[direction].([]any); ok && len(rules) > 0 {
				rules[len(rules)-1].(map[string]any)["zzNew"] = true
			}
		}
	}
	out, err := json.Marshal(tree)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// survives has the object under a key read, labelled, applied.
func (i *incumbent) survives(key string) {
	i.Helper()
	before := i.stored(key)
	tree := before.(map[string]any)
	kind, meta := tree["kind"].(string), tree["metadata"].(map[string]any)
	object := []string{kind, meta["name"].(string)}
	if namespace, ok := meta["namespace"].(string); ok {
		object = append(object, "-n", namespace)
	}
	shown, _ := i.run("", append([]string{"get", "-o", "yaml"}, object...)...)
	if _, notes := i.run(shown, "apply", "-f", "-"); !strings.Contains(notes, "unchanged "+kind) {
		i.Errorf("applying what is shown says %q", notes)
	}
	i.same(before, i.stored(key), "applied as it was shown")

	i.run("", append([]string{"label", kind, meta["name"].(string), "margay-test=1"}, object[2:]...)...)
	labelled := i.stored(key)
	labels := labelled.(map[string]any)["metadata"].(map[string]any)["labels"].(map[string]any)
	if labels["margay-test"] != "1" {
		i.Errorf("labels are %v", labels)
	}
	if delete(labels, "margay-test"); len(labels) == 0 {
		delete(labelled.(map[string]any)["metadata"].(map[string]any), "labels")
	}
	i.same(before, labelled, "labelled")

	i.run("", append([]string{"patch", kind, meta["name"].(string), "-p", `{"metadata":{"labels":{"margay-test":null}}}`}, object[2:]...)...)
	i.same(before, i.stored(key), "patched")
}

func (i *incumbent) same(want, got any, what string) {
	i.Helper()
	if diff := cmp.Diff(want, got); diff != "" {
		i.Errorf("%s, the value is another (- before, + after):\n%s", what, diff)
	}
}
