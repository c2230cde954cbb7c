package etcd

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"

	v3 "margay/api/v3"
)

func everyKind() []v3.Kind {
	var kinds []v3.Kind
	for _, info := range v3.Kinds() {
		kinds = append(kinds, info.Kind)
	}
	return kinds
}

func TestPath(t *testing.T) {
	space, err := newKeyspace(everyKind())
	if err != nil {
		t.Fatal(err)
	}
	for key, want := range map[v3.Key]string{
		{Kind: v3.KindTier, Name: "default"}:                       "tiers/default",
		{Kind: v3.KindGlobalNetworkPolicy, Name: "a.b"}:            "globalnetworkpolicies/a.b",
		{Kind: v3.KindNetworkPolicy, Namespace: "ns", Name: "a"}:   "networkpolicies/ns/a",
		{Kind: v3.KindProfile, Name: "a/b%c"}:                      "profiles/a%2fb%25c",
		{Kind: v3.KindWorkloadEndpoint, Namespace: "n", Name: "w"}: "workloadendpoints/n/w",
	} {
		path, err := pathOf(key)
		if err != nil || path != root+want {
			t.Errorf("%s is at %q, %v; want %q", key, path, err, want)
		}
		if back, ok := space.find(path); !ok || back != key {
			t.Errorf("%q is %v, %v; want %v", path, back, ok, key)
		}
	}
}

func TestPathRefuses(t *testing.T) {
	for _, key := range []v3.Key{
		{}, {Kind: "Nonsense", Name: "a"}, {Kind: v3.KindTier}, {Kind: v3.KindTier, Namespace: "ns", Name: "a"},
		{Kind: v3.KindNetworkSet, Name: "a"}, {Kind: v3.KindNetworkSet, Namespace: "ns"},
	} {
		if path, err := pathOf(key); err == nil || path != "" {
			t.Errorf("%v is at %q", key, path)
		}
	}
}

func TestFindIgnores(t *testing.T) {
	space, err := newKeyspace([]v3.Kind{v3.KindTier, v3.KindNetworkSet})
	if err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{
		"", root, root + "tiers", root + "tiers/", root + "tiers/a/b", root + "networksets/a", root + "networksets/a/b/c",
		root + "networksets/a/", root + "nodes/a", root + "ippools/a", "/calico/ipam/v2/config", "/calico/resources/v3/other/tiers/a",
	} {
		if key, ok := space.find(path); ok {
			t.Errorf("%q is %v", path, key)
		}
	}
}

// TestPathIsIdentity: the key of an object tells which it is, whatever its name.
func TestPathIsIdentity(t *testing.T) {
	space, err := newKeyspace(everyKind())
	if err != nil {
		t.Fatal(err)
	}
	name := rapid.StringMatching(`[a-z/%2f5.-]{1,12}`)
	rapid.Check(t, func(t *rapid.T) {
		info := rapid.SampledFrom(v3.Kinds()).Draw(t, "kind")
		key := v3.Key{Kind: info.Kind, Name: name.Draw(t, "name")}
		if info.Namespaced {
			key.Namespace = name.Draw(t, "namespace")
		}
		path, err := pathOf(key)
		if err != nil {
			t.Fatal(err)
		}
		if back, ok := space.find(path); !ok || back != key {
			t.Fatalf("%v is at %q, which is %v", key, path, back)
		}
	})
}

// TestDecodeNames: what a value calls itself must be what its key says, but for policies of older releases.
func TestDecodeNames(t *testing.T) {
	value := func(kind, meta string) []byte {
		return []byte(`{"kind":"` + kind + `","apiVersion":"projectcalico.org/v3","metadata":{` + meta + `},"spec":{}}`)
	}
	for _, test := range []struct {
		name  string
		key   v3.Key
		value []byte
		ok    bool
	}{
		{"as the key says", v3.Key{Kind: v3.KindTier, Name: "a"}, value("Tier", `"name":"a"`), true},
		{"another name", v3.Key{Kind: v3.KindTier, Name: "a"}, value("Tier", `"name":"b"`), false},
		{"no name", v3.Key{Kind: v3.KindTier, Name: "a"}, value("Tier", ``), false},
		{"another namespace", v3.Key{Kind: v3.KindNetworkSet, Namespace: "ns", Name: "a"},
			value("NetworkSet", `"name":"a","namespace":"x"`), false},
		{"release before 3.29", v3.Key{Kind: v3.KindGlobalNetworkPolicy, Name: "default.a"},
			value("GlobalNetworkPolicy", `"name":"default.a"`), true},
		{"release before 3.32", v3.Key{Kind: v3.KindGlobalNetworkPolicy, Name: "default.a"},
			value("GlobalNetworkPolicy", `"name":"default.a","annotations":{"projectcalico.org/metadata":"{\"name\":\"a\"}"}`), true},
		{"default. and no policy", v3.Key{Kind: v3.KindTier, Name: "default.a"}, value("Tier", `"name":"a"`), false},
	} {
		r, fault := decode(test.key, test.value, 7)
		if (fault == nil) != test.ok || (r != nil) != test.ok {
			t.Errorf("%s: %v, %v", test.name, r, fault)
			continue
		}
		if test.ok && (v3.KeyOf(r) != test.key || r.GetResourceVersion() != "7") {
			t.Errorf("%s: it is %v at %s", test.name, v3.KeyOf(r), r.GetResourceVersion())
		}
	}
}

func TestOpenRefuses(t *testing.T) {
	for name, cfg := range map[string]Config{
		"no endpoints":         {},
		"no scheme":            {Endpoints: []string{"127.0.0.1:2379"}},
		"unknown scheme":       {Endpoints: []string{"ftp://host"}},
		"empty endpoint":       {Endpoints: []string{"http://a:1", " "}},
		"user and no password": {Endpoints: []string{"http://a:1"}, Username: "u"},
		"password and no user": {Endpoints: []string{"http://a:1"}, Password: "p"},
	} {
		if s, err := Open(t.Context(), cfg); err == nil || s != nil {
			t.Errorf("%s: opened", name)
		}
	}
	// What is wrong with an endpoint is told without its password.
	for _, endpoint := range []string{"http//user:secret@a:1", "ftp://user:secret@a:1", "user:secret@a:1", "http://user:%secret@a:1/%"} {
		s, err := Open(t.Context(), Config{Endpoints: []string{endpoint}})
		if told := fmt.Sprint(s, err); err == nil {
			if strings.Contains(s.endpoints, "secret") {
				t.Errorf("%s: %s", endpoint, s.endpoints)
			}
		} else if strings.Contains(told, "secret") || !strings.Contains(told, "a:1") {
			t.Errorf("%s: %s", endpoint, told)
		}
	}
	given := []string{" http://user:secret@a:1/ ", "https://b:2"}
	s, err := Open(t.Context(), Config{Endpoints: slices.Clone(given)})
	if err != nil {
		t.Fatal(err)
	}
	if strings.Contains(s.endpoints, "secret") || !strings.Contains(s.endpoints, "a:1,https://b:2") {
		t.Errorf("endpoints are told as %s", s.endpoints)
	}
	if err := s.Close(); err != nil {
		t.Error(err)
	}
	if _, err := s.Get(t.Context(), v3.Key{Kind: v3.KindTier, Name: "a"}); !errors.Is(err, errClosed) {
		t.Errorf("get after Close: %v", err)
	}
}
