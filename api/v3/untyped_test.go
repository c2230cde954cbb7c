package v3

import (
	"encoding/json"
	"testing"

	"github.com/google/go-cmp/cmp"
)

const affinity = `{"kind":"BlockAffinity","apiVersion":"projectcalico.org/v3","metadata":{"name":"n-10-0-0-0-26","labels":{"a":"b"},"zz":1},` +
	`"spec":{"node":"n","cidr":"10.0.0.0/26","big":12345678901234567890,"deleted":null},"status":{"x":[{}]}}`

func TestUntypedStored(t *testing.T) {
	r, err := DecodeStored(KindBlockAffinity, []byte(affinity))
	if err != nil {
		t.Fatal(err)
	}
	if r.GetName() != "n-10-0-0-0-26" || r.GetLabels()["a"] != "b" {
		t.Errorf("metadata is %+v", r)
	}
	unknown, err := UnknownOf(r, []byte(affinity))
	if err != nil || len(unknown) != 1 || unknown[0].String() != "metadata.zz" {
		t.Errorf("unknown is %v, %v", unknown, err)
	}
	encoded, err := Encode(r)
	if err != nil {
		t.Fatal(err)
	}
	if encoded, err = unknown.Graft(encoded); err != nil {
		t.Fatal(err)
	}
	var got, want any
	if err := json.Unmarshal(encoded, &got); err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal([]byte(affinity), &want); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("differs (- stored, + again):\n%s", diff)
	}
	for _, bad := range []string{`[]`, `{"metadata":{}}`, `{"metadata":7}`, `{"kind":"Tier","metadata":{"name":"a"}}`, `{`, ``} {
		if r, err := DecodeStored(KindBlockAffinity, []byte(bad)); err == nil {
			t.Errorf("%s is usable: %+v", bad, r)
		}
	}
}

func TestUntypedManifest(t *testing.T) {
	docs, err := Decode("f", []byte("apiVersion: projectcalico.org/v3\nkind: LiveMigration\nmetadata:\n  name: m\n  namespace: ns\n"+
		"spec: &s\n  count: \"0x10\"\n  on-it: true\nstatus: {copy: *s}\n"))
	if err != nil {
		t.Fatal(err)
	}
	text, err := json.Marshal(docs[0].Object)
	const want = `{"apiVersion":"projectcalico.org/v3","kind":"LiveMigration","metadata":{"name":"m","namespace":"ns"},` +
		`"spec":{"count":"0x10","on-it":true},"status":{"copy":{"count":"0x10","on-it":true}}}`
	if err != nil || string(text) != want {
		t.Errorf("got %s, %v", text, err)
	}
	if err := Validate(docs[0].Object); err != nil {
		t.Error(err)
	}
	if _, err := Decode("f", []byte("apiVersion: projectcalico.org/v3\nkind: BlockAffinity\nmetadata: {name: [a]}\n")); err == nil {
		t.Error("a name that is a list is accepted")
	}
}
