package kube

import (
	"testing"

	"pgregory.net/rapid"

	"margay/store"
)

func TestReached(t *testing.T) {
	s := &Store{}
	for _, c := range []struct {
		now, goal store.Revision
		want      bool
	}{
		{"7", "", true},
		{"7", "7", true},
		{"7", "8", false},
		{"", "8", false},
		{"x", "8", false},
		{"8", "x", false},
		{"8", "=3", false},
		{"8", "pods=3;4", false},
		// An agent and a write.
		{"20;pods=12;tiers=11", "tiers=11", true},
		{"20;pods=12;tiers=11", "tiers=12", false},
		{"20;pods=12;tiers=11", "networksets=20", true},
		{"20;pods=12;tiers=11", "networksets=21", false},
		{"20;pods=12;tiers=11", "pods=12;tiers=11", true},
		{"20;pods=12;tiers=11", "pods=13;tiers=11", false},
		// Of an object's version the source is not known: all must be as far, but for what the server does not serve.
		{"20;pods=12;tiers=11", "11", true},
		{"20;pods=12;tiers=11", "12", false},
		{"20;pods=0", "20", true},
		// Writes: what the later one contains.
		{"pods=3;tiers=5", "tiers=5", true},
		{"tiers=5", "pods=3;tiers=5", false},
		{"5", "tiers=5", true},
		{"tiers=5", "5", true},
		{"tiers=5", "6", false},
		// Lists.
		{"20;pods=12", "20;pods=12", true},
		{"21;pods=12", "20;pods=12", true},
		{"21;pods=12;tiers=19", "20;pods=12", false},
	} {
		if got := s.Reached(c.now, c.goal); got != c.want {
			t.Errorf("Reached(%q, %q) = %v", c.now, c.goal, got)
		}
	}
}

// TestRevisionsAreRead: what is written is read as the same, and a state has reached an earlier one of the same sources and
// no later one.
func TestRevisionsAreRead(t *testing.T) {
	ids := []string{"pods", "tiers", "networkpolicies", "networkpolicies.networking.k8s.io"}
	rapid.Check(t, func(t *rapid.T) {
		v := vector{}
		for _, id := range ids {
			v[id] = rapid.Uint64Range(1, 20).Draw(t, id)
		}
		read, err := parseRevision(v.state())
		if err != nil {
			t.Fatal(err)
		}
		for _, id := range ids {
			if n, ok := read.at(id); !ok || n != v[id] {
				t.Fatalf("%s is %d in %q, was %d", id, n, v.state(), v[id])
			}
		}
		later := vector{}
		for _, id := range ids {
			later[id] = v[id]
		}
		moved := rapid.SampledFrom(ids).Draw(t, "moved")
		later[moved]++
		s := &Store{}
		if !s.Reached(later.state(), v.state()) || !s.Reached(v.state(), v.state()) {
			t.Errorf("%q has not reached %q", later.state(), v.state())
		}
		if s.Reached(v.revision(), later.revision()) {
			t.Errorf("%q has reached %q", v.revision(), later.revision())
		}
	})
}
