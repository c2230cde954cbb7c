package v3

import (
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"path"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// The recorded cases of testdata say what the system that we are compatible with does.

func readCases(t *testing.T, name string, into any) {
	t.Helper()
	data, err := os.ReadFile("testdata/" + name)
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(data, into); err != nil {
		t.Fatalf("%s: %v", name, err)
	}
}

// prepare does to a manifest what happens before it is stored: it is decoded, gets the namespace of the command line,
// is completed and checked.
func prepare(manifest []byte) (Resource, error) {
	docs, err := Decode("case", manifest)
	if err != nil {
		return nil, err
	}
	if len(docs) != 1 {
		return nil, fmt.Errorf("%d documents", len(docs))
	}
	r := docs[0].Object
	if info, _ := Lookup(KeyOf(r).Kind); info.Namespaced && r.GetNamespace() == "" {
		r.SetNamespace("default")
	}
	Default(r)
	return r, docs[0].Locate(Validate(r))
}

func TestRecordedValidation(t *testing.T) {
	var cases []struct {
		Kind     string `json:"kind"`
		Valid    bool   `json:"valid"`
		Manifest string `json:"manifest"`
	}
	readCases(t, "validation.json", &cases)
	tested := 0
	for _, c := range cases {
		tested++
		_, err := prepare([]byte(c.Manifest))
		if (err == nil) != c.Valid {
			t.Errorf("valid is %v, got %v for\n%s", c.Valid, err, c.Manifest)
		}
		checkFaults(t, err, c.Manifest)
	}
	t.Logf("%d cases hold", tested)
}

// TestRecordedVerdicts holds thousands of small manifests against what 3.32.1 says of them.
func TestRecordedVerdicts(t *testing.T) {
	data, err := os.ReadFile("testdata/verdicts.txt")
	if err != nil {
		t.Fatal(err)
	}
	accepted, refused := 0, 0
	for line := range strings.Lines(string(data)) {
		verdict, manifest, _ := strings.Cut(strings.TrimSpace(line), " {")
		if verdict != "+" && verdict != "-" {
			continue
		}
		manifest = `{"apiVersion":"projectcalico.org/v3",` + manifest
		_, err := prepare([]byte(manifest))
		if (err == nil) != (verdict == "+") {
			t.Errorf("%s, got %v for\n%s", verdict, err, manifest)
		}
		checkFaults(t, err, manifest)
		if err == nil {
			accepted++
		} else {
			refused++
		}
	}
	if accepted < 900 || refused < 1000 {
		t.Errorf("%d accepted and %d refused only", accepted, refused)
	}
	t.Logf("%d accepted, %d refused", accepted, refused)
}

// checkFaults: every refusal says where and why.
func checkFaults(t *testing.T, err error, manifest string) {
	t.Helper()
	if err == nil {
		return
	}
	errs, ok := err.(Errors)
	if !ok || len(errs) == 0 {
		t.Errorf("error is of type %T for\n%s", err, manifest)
	}
	for _, e := range errs {
		if e.File == "" || e.Document != 1 || e.Line < 1 || e.Path == "" || e.Reason == "" || len(e.Value) > maxValue {
			t.Errorf("fault is incomplete: %+v for\n%s", e, manifest)
		}
	}
}

func TestRecordedLayout(t *testing.T) {
	var layout struct {
		Initial map[string]json.RawMessage `json:"initial"`
		Cases   []struct {
			Resource json.RawMessage            `json:"resource"`
			Stored   map[string]json.RawMessage `json:"stored"`
		} `json:"cases"`
	}
	readCases(t, "layout.json", &layout)
	tested := 0
	for _, c := range layout.Cases {
		tested++
		r, err := prepare(c.Resource)
		if err != nil {
			t.Errorf("%v for\n%s", err, c.Resource)
			continue
		}
		stored, ok := storedUnder(c.Stored, KeyOf(r))
		if !ok {
			t.Errorf("no value for %s in %v", KeyOf(r), slices.Collect(maps.Keys(c.Stored)))
			continue
		}
		compareStored(t, r, stored)
	}
	for key, value := range layout.Initial {
		tested++
		roundTrip(t, kindOfKey(t, key), value)
	}
	t.Logf("%d cases hold", tested)
}

func storedUnder(stored map[string]json.RawMessage, key Key) (json.RawMessage, bool) {
	info, _ := Lookup(key.Kind)
	value, ok := stored[path.Join("/calico/resources/v3/projectcalico.org", info.Plural, key.Namespace, key.Name)]
	return value, ok
}

func kindOfKey(t *testing.T, key string) Kind {
	t.Helper()
	for _, info := range Kinds() {
		if strings.Contains(key, "/"+info.Plural+"/") {
			return info.Kind
		}
	}
	t.Fatalf("no kind for key %s", key)
	return ""
}

// compareStored encodes r and compares it with what is stored, apart from what the store itself sets.
func compareStored(t *testing.T, r Resource, stored json.RawMessage) {
	t.Helper()
	data, err := Encode(r)
	if err != nil {
		t.Errorf("%v", err)
		return
	}
	if diff := cmp.Diff(withoutIdentity(t, stored), withoutIdentity(t, data)); diff != "" {
		t.Errorf("%s: stored differently (-recorded +ours):\n%s", KeyOf(r), diff)
	}
	roundTrip(t, KeyOf(r).Kind, stored)
}

// roundTrip: a recorded value decodes, and encodes as it was.
func roundTrip(t *testing.T, kind Kind, stored json.RawMessage) {
	t.Helper()
	stored = json.RawMessage(strings.NewReplacer(`"<time>"`, `"2026-01-02T03:04:05Z"`, `"<guid>"`, `"0123456789abcdef0123456789abcdef"`).Replace(string(stored)))
	r, err := DecodeStored(kind, stored)
	if err != nil {
		t.Errorf("%v for\n%s", err, stored)
		return
	}
	data, err := Encode(r)
	if err != nil {
		t.Error(err)
		return
	}
	if diff := cmp.Diff(decoded(t, stored), decoded(t, data)); diff != "" {
		t.Errorf("%s: another value after reading (-recorded +ours):\n%s", KeyOf(r), diff)
	}
}

func decoded(t *testing.T, data []byte) map[string]any {
	t.Helper()
	var object map[string]any
	if err := json.Unmarshal(data, &object); err != nil {
		t.Fatal(err)
	}
	return object
}

func withoutIdentity(t *testing.T, data []byte) map[string]any {
	t.Helper()
	object := decoded(t, data)
	meta := object["metadata"].(map[string]any)
	delete(meta, "uid")
	delete(meta, "creationTimestamp")
	return object
}

func TestRecordedDefaults(t *testing.T) {
	var cases []struct {
		Kind    string          `json:"kind"`
		Given   json.RawMessage `json:"given"`
		Becomes map[string]any  `json:"becomes"`
	}
	readCases(t, "defaults.json", &cases)
	tested := 0
	for _, c := range cases {
		if c.Kind == "" {
			continue
		}
		tested++
		info, _ := Lookup(Kind(c.Kind))
		r := info.New()
		if err := json.Unmarshal(c.Given, r); err != nil {
			t.Fatal(err)
		}
		Default(r)
		data, err := json.Marshal(r)
		if err != nil {
			t.Fatal(err)
		}
		for at, want := range c.Becomes {
			if got := lookupPath(decoded(t, data), at); got != want {
				t.Errorf("%s %s: %s is %v, want %v", c.Kind, c.Given, at, got, want)
			}
		}
	}
	t.Logf("%d cases hold", tested)
}

func lookupPath(object map[string]any, at string) any {
	var value any = object
	for _, step := range strings.Split(at, ".") {
		m, ok := value.(map[string]any)
		if !ok {
			return nil
		}
		value = m[step]
	}
	return value
}
