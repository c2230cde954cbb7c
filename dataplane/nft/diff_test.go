package nft

import (
	"maps"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"margay/ruleset"
)

// apply does in memory what the kernel does with a transaction.
func apply(t *Table, changes []Change) *Table {
	for _, c := range changes {
		switch c.op {
		case opDelTable:
			t = nil
		case opAddTable:
			t = NewTable()
		case opAddSet:
			s := *c.set
			s.elements, s.derived = map[Element]struct{}{}, nil
			t.Sets[c.set.Name] = &s
		case opAddChain:
			fresh := *c.chain
			fresh.Rules = nil
			t.Chains[c.chain.Name] = &fresh
		case opPolicy:
			base := *t.Chains[c.chain.Name].Base
			base.Drop = c.chain.Base.Drop
			t.Chains[c.chain.Name].Base = &base
		case opDelElements, opSweepElements:
			for _, e := range c.elements {
				delete(t.Sets[c.set.Name].elements, e)
			}
		case opAddElements:
			for _, e := range c.elements {
				t.Sets[c.set.Name].elements[e] = struct{}{}
			}
		case opEdit:
			t.Chains[c.chain.Name].Rules = applyEdits(t.Chains[c.chain.Name].Rules, c.edits)
		case opFlush:
			t.Chains[c.chain.Name].Rules = nil
		case opDelChain:
			delete(t.Chains, c.chain.Name)
		case opDelSet:
			delete(t.Sets, c.set.Name)
		}
	}
	return t
}

func applyEdits(old []*Rule, edits []edit) []*Rule {
	gone := map[int]bool{}
	before := map[int][]*Rule{}
	for _, e := range edits {
		if e.insert == nil {
			gone[e.at] = true
		} else {
			before[e.at] = append(before[e.at], e.insert)
		}
	}
	var out []*Rule
	for i, r := range old {
		out = append(out, before[i]...)
		if !gone[i] {
			out = append(out, r)
		}
	}
	return append(out, before[len(old)]...)
}

// copyTable returns a deep enough copy for apply.
func copyTable(t *Table) *Table {
	out := &Table{Chains: map[string]*Chain{}, Sets: map[string]*Set{}, Odd: t.Odd}
	for name, c := range t.Chains {
		fresh := *c
		out.Chains[name] = &fresh
	}
	for name, s := range t.Sets {
		fresh := *s
		fresh.elements, fresh.derived = maps.Clone(s.held()), nil
		out.Sets[name] = &fresh
	}
	return out
}

// same says how two tables differ, or "".
func same(got, want *Table) string {
	if d := cmp.Diff(want.String(), got.String()); d != "" {
		return d
	}
	for name, c := range want.Chains {
		if !slices.EqualFunc(c.Rules, got.Chains[name].Rules, (*Rule).equal) || !c.alike(got.Chains[name]) {
			return "chain " + name + " has the same text but other code"
		}
	}
	return ""
}

func TestDiffApplies(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		g := newGenerator(rapid.Uint64().Draw(t, "seed"))
		a, b := newImage(g.program(), pick(g, testLimits...)).table, newImage(g.program(), pick(g, testLimits...)).table
		changes := Diff(a, b)
		if d := same(apply(copyTable(a), changes), b); d != "" {
			t.Fatal(d)
		}
		for _, c := range changes {
			if c.op == opDelTable {
				t.Fatalf("compiled tables replace each other only in place: %s", irreparable(a, b))
			}
		}
		if changes := Diff(a, copyTable(a)); len(changes) != 0 {
			t.Fatalf("equal tables differ: %v", &changes[0])
		}
		if d := same(apply(nil, Diff(nil, b)), b); d != "" {
			t.Fatal(d)
		}
	})
}

// Every foreign edit that irreparable knows must lead to a new table.
func TestDiffReplaces(t *testing.T) {
	g := newGenerator(1)
	p := g.program()
	p.Settings.FailsafeIngress = []ruleset.Failsafe{{Protocol: ruleset.TCP, Port: 22}}
	p.Endpoints = map[ruleset.EndpointID]*ruleset.Endpoint{{Name: "e"}: {ID: ruleset.EndpointID{Name: "e"}, Interfaces: []string{"t0"}}}
	want := Compile(p)
	var constant string
	for name, s := range want.Sets {
		if s.Constant {
			constant = name
		}
	}
	tests := map[string]func(*Table){
		"table flags":      func(t *Table) { t.Odd = "flags" },
		"hook":             func(t *Table) { t.Chains["input"].Base = &Base{Type: "filter", Hook: 3, Priority: -10} },
		"priority":         func(t *Table) { t.Chains["input"].Base = &Base{Type: "filter", Hook: 1, Priority: -9} },
		"type":             func(t *Table) { t.Chains["output"].Base = &Base{Type: "route", Hook: 3, Priority: -10} },
		"no base":          func(t *Table) { t.Chains["input"].Base = nil },
		"base":             func(t *Table) { t.Chains["in/t0"].Base = &Base{Type: "filter", Hook: 1, Priority: -10} },
		"chain flags":      func(t *Table) { t.Chains["input"].Odd = "flags" },
		"chain comment":    func(t *Table) { t.Chains["in/t0"].Comment = "x" },
		"set type":         func(t *Table) { t.Sets["endpoints-in"].Type = typeIfaces },
		"set odd":          func(t *Table) { t.Sets["endpoints-in"].Odd = "size" },
		"constant":         func(t *Table) { t.Sets[constant].Constant = false },
		"constant element": func(t *Table) { t.Sets[constant].elements[Element{Key: "x"}] = struct{}{} },
	}
	for name, edit := range tests {
		have := copyTable(want)
		edit(have)
		changes := Diff(have, want)
		if len(changes) == 0 || changes[0].op != opDelTable {
			t.Errorf("%s: not replaced", name)
		}
		if d := same(apply(have, changes), want); d != "" {
			t.Errorf("%s: %s", name, d)
		}
	}
}

// An image that follows deltas is what Compile makes of the Program, and its changes lead there.
func TestImageFollows(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		g := newGenerator(rapid.Uint64().Draw(t, "seed"))
		p := g.program()
		lim := pick(g, testLimits...)
		im := newImage(p, lim)
		k := keptImage{p, im, copyTable(im.table)}
		for range 8 {
			k.apply(t, g.delta(p))
		}
	})
}

// A keptImage is an image with its Program, and the table that its changes make of the one before.
type keptImage struct {
	program *ruleset.Program
	image   *image
	kernel  *Table
}

// apply applies a delta, and fails if image or kernel is not the table that is made from scratch then.
func (k *keptImage) apply(t *rapid.T, d *ruleset.Delta) {
	t.Helper()
	k.program.Apply(d)
	d.Sets = ownedSets(d.Sets)
	k.kernel = apply(k.kernel, k.image.apply(d))
	want := newImage(k.program, k.image.limits).table
	if d := same(k.image.table, want); d != "" {
		t.Fatalf("image: %s", d)
	}
	if d := same(k.kernel, want); d != "" {
		t.Fatalf("kernel: %s", d)
	}
}

// ownedSets copies new sets: a Program takes over those of a delta.
func ownedSets(sets map[ruleset.SetID]*ruleset.SetDelta) map[ruleset.SetID]*ruleset.SetDelta {
	for id, d := range sets {
		if d != nil && d.New != nil {
			sets[id] = &ruleset.SetDelta{New: d.New.Clone()}
		}
	}
	return sets
}

func TestDiffRulesKeepsCounters(t *testing.T) {
	rules := func(s string) (out []*Rule) {
		for _, r := range s {
			out = append(out, &Rule{Text: string(r), code: string(r)})
		}
		return out
	}
	tests := []struct {
		old, new         string
		inserts, deletes int
	}{
		{"abc", "abc", 0, 0},
		{"abc", "axbc", 1, 0},
		{"abc", "ac", 0, 1},
		{"abc", "", 0, 3},
		{"", "abc", 3, 0},
		{"abcd", "axyd", 2, 2},
		{"abcdef", "xabdeyf", 2, 1},
		{"ab", "ba", 1, 1},
		{"aaa", "aa", 0, 1},
	}
	for _, tt := range tests {
		old, new := rules(tt.old), rules(tt.new)
		edits := diffRules(old, new)
		deletes := 0
		for _, e := range edits {
			deletes += oneIf(e.insert == nil)
		}
		if inserts := len(edits) - deletes; inserts != tt.inserts || deletes != tt.deletes {
			t.Errorf("%q to %q: %d inserts and %d deletes, want %d and %d", tt.old, tt.new, inserts, deletes, tt.inserts, tt.deletes)
		}
		if got := applyEdits(old, edits); !slices.EqualFunc(got, new, (*Rule).equal) {
			t.Errorf("%q to %q: got %v", tt.old, tt.new, got)
		}
	}
}

// Beyond the bound of the search the result is right, if longer.
func TestDiffRulesLong(t *testing.T) {
	g := newGenerator(3)
	long := func() (out []*Rule) {
		for range 1200 {
			out = append(out, &Rule{code: string(rune(g.IntN(2000)))})
		}
		return out
	}
	old, new := long(), long()
	if got := applyEdits(old, diffRules(old, new)); !slices.EqualFunc(got, new, (*Rule).equal) {
		t.Error("wrong list")
	}
}
