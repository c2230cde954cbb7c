package etcd_test

import (
	"context"
	"encoding/json"
	"os"
	"regexp"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	clientv3 "go.etcd.io/etcd/client/v3"

	v3 "margay/api/v3"
	"margay/store/etcd"
)

// layout is what the system that we are compatible with wrote into etcd; see the README of the recorded cases.
type layout struct {
	Initial map[string]any `json:"initial"`
	Cases   []struct {
		Prerequisites []json.RawMessage `json:"prerequisites"`
		Resource      json.RawMessage   `json:"resource"`
		Stored        map[string]any    `json:"stored"`
	} `json:"cases"`
}

// TestLayout compares keys and values with recorded ones. What varies is checked for its form and replaced.
func TestLayout(t *testing.T) {
	data, err := os.ReadFile("testdata/layout.json")
	if err != nil {
		t.Fatal(err)
	}
	var want layout
	if err := json.Unmarshal(data, &want); err != nil {
		t.Fatal(err)
	}
	endpoint := startServer(t)
	client := rawClient(t, endpoint)
	s := openStore(t, etcd.Config{Endpoints: []string{endpoint}})
	defer s.Close()
	ctx := t.Context()
	if err := s.Initialise(ctx); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want.Initial, dump(t, client, nil)); diff != "" {
		t.Errorf("initialisation (- want, + got):\n%s", diff)
	}
	for _, c := range want.Cases {
		r := parse(t, c.Resource)
		t.Run(v3.KeyOf(r).String(), func(t *testing.T) {
			wipe(t, client)
			if err := s.Initialise(ctx); err != nil {
				t.Fatal(err)
			}
			for _, p := range c.Prerequisites {
				if _, err := s.Create(ctx, parse(t, p)); err != nil {
					t.Fatal(err)
				}
			}
			before := dump(t, client, nil)
			if _, err := s.Create(ctx, r); err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(c.Stored, dump(t, client, before)); diff != "" {
				t.Errorf("stored (- want, + got):\n%s", diff)
			}
		})
	}
}

func parse(t *testing.T, data []byte) v3.Resource {
	t.Helper()
	var kind struct {
		Kind v3.Kind `json:"kind"`
	}
	if err := json.Unmarshal(data, &kind); err != nil {
		t.Fatal(err)
	}
	info, ok := v3.Lookup(kind.Kind)
	if !ok {
		t.Fatalf("kind %q is not known", kind.Kind)
	}
	r := info.New()
	if err := json.Unmarshal(data, r); err != nil {
		t.Fatal(err)
	}
	if info.Namespaced && r.GetNamespace() == "" {
		r.SetNamespace("default") // as the CLI does
	}
	return r
}

func wipe(t *testing.T, client *clientv3.Client) {
	t.Helper()
	if _, err := client.Delete(context.Background(), "/", clientv3.WithPrefix()); err != nil {
		t.Fatal(err)
	}
}

var (
	uid  = regexp.MustCompile(`^[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[0-9a-f]{4}-[0-9a-f]{12}$`)
	date = regexp.MustCompile(`^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ$`)
	guid = regexp.MustCompile(`^[0-9a-f]{32}$`)
)

// dump returns all keys but those in without.
func dump(t *testing.T, client *clientv3.Client, without map[string]any) map[string]any {
	t.Helper()
	resp, err := client.Get(context.Background(), "", clientv3.WithPrefix())
	if err != nil {
		t.Fatal(err)
	}
	all := map[string]any{}
	for _, kv := range resp.Kvs {
		if _, ok := without[string(kv.Key)]; ok {
			continue
		}
		var value map[string]any
		if err := json.Unmarshal(kv.Value, &value); err != nil {
			t.Fatalf("%s: %v", kv.Key, err)
		}
		meta := value["metadata"].(map[string]any)
		replace(t, meta, "uid", uid, "<uid>")
		replace(t, meta, "creationTimestamp", date, "<time>")
		if strings.Contains(string(kv.Key), "/clusterinformations/") {
			replace(t, value["spec"].(map[string]any), "clusterGUID", guid, "<guid>")
		}
		all[string(kv.Key)] = value
	}
	return all
}

func replace(t *testing.T, object map[string]any, field string, form *regexp.Regexp, by string) {
	t.Helper()
	if text, ok := object[field].(string); !ok || !form.MatchString(text) {
		t.Errorf("%s is %v", field, object[field])
	}
	object[field] = by
}
