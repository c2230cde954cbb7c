package ruleset

import (
	"encoding/json"
	"reflect"
	"testing"

	"pgregory.net/rapid"
)

// A Program is the same after it was written and read, nil and empty lists included.
func TestProgramJSON(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		p := drawProgram(t)
		// A random program may file an object under another name than its own; only what calc makes is written.
		for id, policy := range p.Policies {
			policy.ID = id
		}
		for name, profile := range p.Profiles {
			profile.Name = name
		}
		text, err := json.Marshal(p)
		if err != nil {
			t.Fatal(err)
		}
		q := &Program{}
		if err := json.Unmarshal(text, q); err != nil {
			t.Fatalf("%v\n%s", err, text)
		}
		for range 8 {
			pkt := drawPacket(t)
			if a, b := Eval(p, pkt), Eval(q, pkt); a != b {
				t.Fatalf("packet %+v: %+v before, %+v after\n%s", *pkt, a, b, text)
			}
		}
		if again, err := json.Marshal(q); err != nil || string(again) != string(text) {
			t.Fatalf("written again: %v\n%s\n%s", err, again, text)
		}
	})
}

func TestProgramJSONKeepsEmpty(t *testing.T) {
	p := NewProgram()
	id := PolicyID{Kind: "GlobalNetworkPolicy", Name: "p"}
	p.Policies[id] = &Policy{ID: id, Ingress: []Rule{{Source: Entity{Nets: nets()}}, {Source: Entity{Ports: &Ports{}}}, {}}}
	text, err := json.Marshal(p)
	if err != nil {
		t.Fatal(err)
	}
	q := &Program{}
	if err := json.Unmarshal(text, q); err != nil || !reflect.DeepEqual(p, q) {
		t.Errorf("%v\n%s", err, text)
	}
}

func TestProgramJSONRefuses(t *testing.T) {
	for _, text := range []string{
		`{"Policies": [null]}`, `{"Endpoints": [null]}`, `{"Workloads": [null]}`, `{"Profiles": [null]}`,
		`{"Sets": [{"Members": [{"Prefix": ""}]}]}`, `{"Policies": [{"Ingress": [{"NewField": 1}]}]}`, `[]`,
	} {
		if err := json.Unmarshal([]byte(text), &Program{}); err == nil {
			t.Errorf("%s is accepted", text)
		}
	}
}
