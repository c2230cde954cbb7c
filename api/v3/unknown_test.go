package v3

import (
	"encoding/json"
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"
)

func TestUnknownOf(t *testing.T) {
	for _, c := range []struct{ name, in, want string }{
		{"nothing", `{"kind":"GlobalNetworkPolicy","metadata":{"name":"p"},"spec":{"order":1}}`, ""},
		{"in the object", `{"metadata":{"name":"p"},"spec":{},"extra":1}`, "extra"},
		{"in spec", `{"metadata":{"name":"p"},"spec":{"b":1,"a":{"order":2}}}`, "spec.a spec.b"},
		{"in a rule", `{"metadata":{"name":"p"},"spec":{"ingress":[{"action":"Allow"},{"action":"Deny","source":{"x":[1]}}]}}`, "spec.ingress[1].source.x"},
		{"keys in any case", `{"metadata":{"name":"p"},"SPEC":{"Order":1,"x":1}}`, "spec.x"},
		{"metadata that is dropped", `{"metadata":{"name":"p","generation":3,"finalizers":["a"],"labels":{"l":"1"},"y":{}},"spec":{}}`,
			"metadata.finalizers metadata.generation metadata.y"},
		{"more in the annotation", `{"metadata":{"name":"p","annotations":{"projectcalico.org/metadata":"{\"name\":\"p\",\"uid\":\"u\"}"}},"spec":{}}`,
			"metadata.annotations[projectcalico.org/metadata]"},
		{"odd keys", `{"metadata":{"name":"p"},"spec":{"a.b":1,"c/d":2}}`, "spec[a.b] spec[c/d]"},
	} {
		r, err := DecodeStored(KindGlobalNetworkPolicy, []byte(c.in))
		if err != nil {
			t.Fatal(err)
		}
		found, err := UnknownOf(r, []byte(c.in))
		if err != nil {
			t.Fatal(err)
		}
		var paths []string
		for _, f := range found {
			paths = append(paths, f.String())
		}
		if got := strings.Join(paths, " "); got != c.want {
			t.Errorf("%s: found %q, want %q", c.name, got, c.want)
		}
	}
}

// TestUnknownInRules: what a rule asks for and is not known stays visible, also when the object is passed on.
func TestUnknownInRules(t *testing.T) {
	for _, c := range []struct{ name, in, want string }{
		{"nothing", `{"metadata":{"name":"p"},"spec":{"ingress":[{"action":"Allow","source":{"nets":["10.0.0.0/8"]}}]}}`, ""},
		{"not in a rule", `{"metadata":{"name":"p","x":1},"new":1,"spec":{"new":[{"a":1}],"ingress":[{"action":"Allow"}]}}`, ""},
		{"in rules", `{"metadata":{"name":"p"},"SPEC":{"Ingress":[{"action":"Allow"},{"action":"Allow","new":1,"Source":{"domains":["a"]}}],"egress":[{"action":"Deny","new":null}]}}`,
			"spec.ingress[1].new spec.ingress[1][source.domains] spec.egress[0].new"},
		{"beside null", `{"metadata":{"name":"p","creationTimestamp":null},"spec":{"egress":[{"action":"Allow","new":1}]}}`, "spec.egress[0].new"},
		{"without effect in the kernel", `{"metadata":{"name":"p"},"spec":{"ingress":[{"action":"Allow","metadata":{"new":1},"http":{"new":1}}]}}`, ""},
	} {
		for _, kind := range []Kind{KindGlobalNetworkPolicy, KindStagedGlobalNetworkPolicy, KindProfile} {
			r, err := DecodeStored(kind, []byte(c.in))
			if err != nil {
				t.Fatal(err)
			}
			passed, err := Encode(r)
			if err != nil {
				t.Fatal(err)
			}
			found := UnknownInRules(r)
			if passed, err = found.Graft(passed); err != nil {
				t.Fatal(err)
			}
			again, err := DecodeStored(kind, passed)
			if err != nil {
				t.Fatal(err)
			}
			for _, u := range []Unknown{found, UnknownInRules(again)} {
				var paths []string
				for _, f := range u {
					paths = append(paths, f.String())
				}
				if got := strings.Join(paths, " "); got != c.want {
					t.Errorf("%s, %s: %q, want %q", c.name, kind, got, c.want)
				}
			}
		}
	}
}

// TestManyUnknownInRules: what is written to take time takes none.
func TestManyUnknownInRules(t *testing.T) {
	var fields strings.Builder
	for i := range 20_000 {
		fmt.Fprintf(&fields, `"k%d":1,`, i)
	}
	r, err := DecodeStored(KindProfile, []byte(`{"metadata":{"name":"p"},"spec":{"ingress":[{"`+strings.Repeat("a", 1e6)+`":1,`+fields.String()+`"action":"Allow"}]}}`))
	if err != nil {
		t.Fatal(err)
	}
	if got := r.(*Profile).Spec.Ingress[0].Unknown; len(got) != maxUnknown || len(got[0]) != maxUnknownName {
		t.Errorf("%d fields are named, the first with %d bytes", len(got), len(got[0]))
	}
}

func TestGraft(t *testing.T) {
	field := func(value string, path ...string) UnknownField { return UnknownField{path, json.RawMessage(value)} }
	for _, c := range []struct {
		name, in string
		add      Unknown
		want     string
	}{
		{"nothing", `{"b":1,"a":2}`, nil, `{"b":1,"a":2}`},
		{"in the object", `{"a":1}`, Unknown{field("2", "b")}, `{"a":1,"b":2}`},
		{"in a list", `{"l":[{},{"a":1}]}`, Unknown{field(`"x"`, "l", "1", "b")}, `{"l":[{},{"a":1,"b":"x"}]}`},
		{"the list is shorter", `{"l":[{}]}`, Unknown{field("1", "l", "1", "b")}, `{"l":[{}]}`},
		{"the place is gone", `{"a":1}`, Unknown{field("1", "spec", "b"), field("1", "a", "b")}, `{"a":1}`},
		{"numbers stay", `{"a":1.10}`, Unknown{field("12345678901234567890", "b")}, `{"a":1.10,"b":12345678901234567890}`},
		{"the annotation", `{"annotations":{"projectcalico.org/metadata":"{\"name\":\"new\"}"}}`,
			Unknown{field(`{"uid":"u"}`, "annotations", annotationMetadata)},
			`{"annotations":{"projectcalico.org/metadata":"{\"name\":\"new\",\"uid\":\"u\"}"}}`},
	} {
		got, err := c.add.Graft([]byte(c.in))
		if err != nil || string(got) != c.want {
			t.Errorf("%s: got %s, %v, want %s", c.name, got, err, c.want)
		}
	}
}

// TestUnknownFieldsSurvive puts unknown fields everywhere into recorded values: what is decoded, completed and encoded
// again has them where they were.
func TestUnknownFieldsSurvive(t *testing.T) {
	values := recordedValues(t)
	rapid.Check(t, func(t *rapid.T) {
		stored := rapid.SampledFrom(values).Draw(t, "value")
		var tree any
		if err := json.Unmarshal(stored, &tree); err != nil {
			t.Fatal(err)
		}
		kind := Kind(tree.(map[string]any)["kind"].(string))
		before, err := DecodeStored(kind, stored)
		if err != nil {
			t.Fatal(err)
		}
		spoil(t, tree, "")
		spoilt, err := json.Marshal(tree)
		if err != nil {
			t.Fatal(err)
		}
		r, err := DecodeStored(kind, spoilt)
		if err != nil {
			t.Fatalf("%s: %v", spoilt, err)
		}
		found, err := UnknownOf(r, spoilt)
		if err != nil {
			t.Fatal(err)
		}
		dropMeta(r)
		dropMeta(before)
		named := cmp.FilterPath(func(p cmp.Path) bool { return p.Last().String() == ".Unknown" }, cmp.Ignore())
		if diff := cmp.Diff(before, r, named); diff != "" {
			t.Fatalf("unknown fields changed what is known:\n%s", diff)
		}
		encoded, err := Encode(r)
		if err != nil {
			t.Fatal(err)
		}
		again, err := found.Graft(encoded)
		if err != nil {
			t.Fatal(err)
		}
		var got any
		if err := json.Unmarshal(again, &got); err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(tree, got); diff != "" {
			t.Fatalf("not as it was (- stored, + again):\n%s", diff)
		}
	})
}

// spoil adds unknown fields to objects that are structs here: not to maps, of which all keys are known.
func spoil(t *rapid.T, value any, at string) {
	switch v := value.(type) {
	case map[string]any:
		if strings.HasSuffix(at, ".labels") || strings.HasSuffix(at, ".annotations") || strings.HasSuffix(at, ".labelsToApply") ||
			strings.HasSuffix(at, ".matchLabels") {
			return
		}
		for key, member := range v {
			spoil(t, member, at+"."+key)
		}
		if rapid.IntRange(0, 2).Draw(t, "add") > 0 {
			v["zz"+rapid.StringMatching(`[a-z./0-9]{0,3}`).Draw(t, "key")] = rapid.SampledFrom([]any{"x", 1.5, nil, true,
				map[string]any{"order": 1.0}, []any{map[string]any{}}}).Draw(t, "member")
		}
		if at == ".metadata" && rapid.Bool().Draw(t, "meta") {
			v["generation"], v["finalizers"] = 7.0, []any{"a/b"}
		}
	case []any:
		for _, member := range v {
			spoil(t, member, at+"[]")
		}
	}
}

// recordedValues are stored values of the incumbent whose kinds are known here.
func recordedValues(t *testing.T) [][]byte {
	t.Helper()
	data, err := os.ReadFile("testdata/layout.json")
	if err != nil {
		t.Fatal(err)
	}
	text := strings.NewReplacer("<uid>", "00000000-0000-4000-8000-000000000000", "<time>", "2026-01-01T00:00:00Z",
		"<guid>", strings.Repeat("0", 32)).Replace(string(data))
	var recorded struct {
		Cases []struct {
			Stored map[string]json.RawMessage `json:"stored"`
		} `json:"cases"`
	}
	if err := json.Unmarshal([]byte(text), &recorded); err != nil {
		t.Fatal(err)
	}
	var values [][]byte
	for _, c := range recorded.Cases {
		for _, value := range c.Stored {
			values = append(values, value)
		}
	}
	if len(values) < 100 {
		t.Fatalf("only %d recorded values", len(values))
	}
	return values
}

func TestKeepStatus(t *testing.T) {
	key := "k"
	old := &Node{Status: NodeStatus{WireguardPublicKey: key}}
	now := &Node{}
	if KeepStatus(now, old); now.Status.WireguardPublicKey != key {
		t.Errorf("the status is lost: %+v", now.Status)
	}
	now = &Node{Status: NodeStatus{WireguardPublicKey: "new"}}
	if KeepStatus(now, old); now.Status.WireguardPublicKey != "new" {
		t.Errorf("the status is not the new one: %+v", now.Status)
	}
	policy := &GlobalNetworkPolicy{}
	KeepStatus(policy, &GlobalNetworkPolicy{})
	untyped := &Untyped{}
	KeepStatus(untyped, &Untyped{Fields: map[string]json.RawMessage{"status": json.RawMessage("1"), "spec": nil}})
	if string(untyped.Fields["status"]) != "1" || len(untyped.Fields) != 1 {
		t.Errorf("fields are %v", untyped.Fields)
	}
}
