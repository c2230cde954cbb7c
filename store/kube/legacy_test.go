package kube

import (
	"encoding/json"
	"testing"

	"github.com/google/go-cmp/cmp"

	v3 "margay/api/v3"
)

func TestFromV1(t *testing.T) {
	for _, c := range []struct {
		name, raw, want string
	}{
		{"with the annotation",
			`{"apiVersion":"crd.projectcalico.org/v1","kind":"GlobalNetworkPolicy","metadata":{"name":"default.p","uid":"01020304-0506-4708-8910-111213141516",` +
				`"resourceVersion":"7","generation":2,"creationTimestamp":"2026-01-02T00:00:00Z","labels":{"projectcalico.org/tier":"default"},` +
				`"annotations":{"projectcalico.org/metadata":"{\"name\":\"p\",\"creationTimestamp\":\"2026-01-01T00:00:00Z\",\"labels\":{\"a\":\"b\"},\"annotations\":{\"c\":\"d\"}}"}},` +
				`"spec":{"order":1.5,"selector":"all()"}}`,
			`{"apiVersion":"projectcalico.org/v3","kind":"GlobalNetworkPolicy","metadata":{"name":"default.p","uid":"8040c020-a060-4710-8908-8848c828a868",` +
				`"resourceVersion":"7","generation":2,"creationTimestamp":"2026-01-01T00:00:00Z","labels":{"projectcalico.org/tier":"default","a":"b"},"annotations":{"c":"d"}},` +
				`"spec":{"order":1.5,"selector":"all()"}}`},
		{"without it",
			`{"apiVersion":"crd.projectcalico.org/v1","kind":"GlobalNetworkSet","metadata":{"name":"s","labels":{"a":"b"}},"spec":{"nets":["10.0.0.0/8"]}}`,
			`{"apiVersion":"projectcalico.org/v3","kind":"GlobalNetworkSet","metadata":{"name":"s","labels":{"a":"b"}},"spec":{"nets":["10.0.0.0/8"]}}`},
		{"nothing in it",
			`{"kind":"Tier","metadata":{"name":"t","annotations":{"projectcalico.org/metadata":"{\"creationTimestamp\":null}"}}}`,
			`{"apiVersion":"projectcalico.org/v3","kind":"Tier","metadata":{"name":"t"}}`},
		{"damaged", `{"kind":"Tier","metadata":{"name":"t","annotations":{"projectcalico.org/metadata":"{"}}}`, ""},
		{"no object", `[]`, ""},
		{"no metadata", `{"kind":"Tier"}`, ""},
	} {
		got, err := fromV1([]byte(c.raw))
		if (err == nil) != (c.want != "") {
			t.Errorf("%s: %s, %v", c.name, got, err)
		} else if err == nil {
			equalJSON(t, c.name, got, []byte(c.want))
		}
	}
}

func equalJSON(t *testing.T, name string, got, want []byte) {
	t.Helper()
	var values [2]any
	for i, text := range [][]byte{want, got} {
		if err := json.Unmarshal(text, &values[i]); err != nil {
			t.Fatalf("%s: %v in %s", name, err, text)
		}
	}
	if diff := cmp.Diff(values[0], values[1]); diff != "" {
		t.Errorf("%s (- want, + got):\n%s", name, diff)
	}
}

// TestV1AndBack writes objects in the form of v1 and reads them.
func TestV1AndBack(t *testing.T) {
	src := &source{id: "globalnetworkpolicies", kind: v3.KindGlobalNetworkPolicy, group: GroupV1, plural: "globalnetworkpolicies", form: formV1}
	for _, name := range []string{"p", "default.p"} {
		docs, err := v3.Decode("-", []byte(`{"apiVersion":"projectcalico.org/v3","kind":"GlobalNetworkPolicy","metadata":{"name":"`+name+`","labels":{"x":"y"},`+
			`"annotations":{"my.org/a":"b"}},"spec":{"order":3,"selector":"all()","types":["Ingress"],"ingress":[{"action":"Allow"}]}}`))
		if err != nil {
			t.Fatal(err)
		}
		p := docs[0].Object
		v3.Default(p)
		p.SetResourceVersion("9")
		body, err := encode(src, p, nil)
		if err != nil {
			t.Fatal(err)
		}
		var head struct {
			APIVersion string
			Metadata   struct {
				Name, ResourceVersion string
				Labels, Annotations   map[string]string
			}
		}
		if err := json.Unmarshal(body, &head); err != nil {
			t.Fatal(err)
		}
		if head.APIVersion != GroupV1 || head.Metadata.Name != name || head.Metadata.ResourceVersion != "9" ||
			len(head.Metadata.Labels) != 1 || len(head.Metadata.Annotations) != 1 {
			t.Errorf("%s is stored as %s", name, body)
		}
		it := decodeCustom(src, body)
		if it.fault != nil {
			t.Fatal(it.fault)
		}
		if diff := cmp.Diff(p, it.resource); diff != "" {
			t.Errorf("%s (- written, + read):\n%s", name, diff)
		}
	}
}
