package nft

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
)

// An op is a kind of change. The order of the constants is the order in a transaction: what is named exists before it is
// named, and what goes is not named any more.
type op uint8

const (
	opDelTable op = iota
	opAddTable
	opAddSet // without elements
	opAddChain
	opPolicy
	opDelElements
	opAddElements
	opEdit
	opFlush // the rules of a chain that goes
	// What follows changes no verdict: after opEdit no rule leads there.
	opSweepElements // elements of a verdict map
	opDelSet        // before the chains that a map's elements lead to
	opDelChain
)

// A Change is one step from one Table to another.
type Change struct {
	op       op
	chain    *Chain // as it is to be; for opFlush and opDelChain as it was
	set      *Set   // as it is to be; for opDelSet as it was
	elements []Element
	fresh    bool    // opAddElements: of a set that is new
	old      []*Rule // opEdit: the rules before
	edits    []edit
}

// addsIntervals reports whether the change is about a set of intervals that is new.
func (c Change) addsIntervals() bool {
	return (c.op == opAddSet || c.op == opAddElements && c.fresh) && c.set.Type.interval
}

// endsDispatch reports whether an interface is taken out of a verdict map.
func (c Change) endsDispatch() bool {
	return c.op == opSweepElements || c.op == opDelSet && c.set.Type != nil && c.set.Type.verdicts
}

// An edit removes one rule of a chain, or puts one before it. Positions count the rules before the first edit.
type edit struct {
	at     int
	insert *Rule // nil: remove
}

// String names the change and its object.
func (c *Change) String() string {
	switch c.op {
	case opDelTable:
		return "delete table " + TableName
	case opAddTable:
		return "add table " + TableName
	case opAddSet:
		return "add set " + c.set.Name
	case opAddChain:
		return "add chain " + c.chain.Name
	case opPolicy:
		return "set policy of chain " + c.chain.Name
	case opDelElements, opSweepElements:
		return fmt.Sprintf("delete %d elements of set %s", len(c.elements), c.set.Name)
	case opAddElements:
		return fmt.Sprintf("add %d elements to set %s", len(c.elements), c.set.Name)
	case opEdit:
		return fmt.Sprintf("edit %d rules of chain %s", len(c.edits), c.chain.Name)
	case opFlush:
		return "flush chain " + c.chain.Name
	case opDelChain:
		return "delete chain " + c.chain.Name
	}
	return "delete set " + c.set.Name
}

// Diff returns the changes that turn have into want, in the order in which one transaction takes them; nil when they are
// equal. A nil have is no table. What cannot be changed in place replaces the whole table.
func Diff(have, want *Table) []Change {
	if have == nil {
		return append([]Change{{op: opAddTable}}, diff(NewTable(), want)...)
	}
	if why := irreparable(have, want); why != "" {
		return append([]Change{{op: opDelTable}, {op: opAddTable}}, diff(NewTable(), want)...)
	}
	return diff(have, want)
}

// irreparable says what of have the kernel cannot turn into want without deleting it first, or "".
func irreparable(have, want *Table) string {
	if have.Odd != "" {
		return have.Odd
	}
	for name, w := range want.Chains {
		if h := have.Chains[name]; h != nil && h != w && !h.alike(w) {
			return "chain " + name
		}
	}
	for name, w := range want.Sets {
		if h := have.Sets[name]; h != nil && h != w && !h.alike(w) {
			return "set " + name
		}
	}
	return ""
}

// alike reports whether two chains differ at most in rules and policy.
func (c *Chain) alike(o *Chain) bool {
	if (c.Base == nil) != (o.Base == nil) || c.Comment != o.Comment || c.Odd != o.Odd {
		return false
	}
	return c.Base == nil ||
		c.Base.Type == o.Base.Type && c.Base.Hook == o.Base.Hook && c.Base.Priority == o.Base.Priority
}

// alike reports whether two sets differ at most in elements that may change.
func (s *Set) alike(o *Set) bool {
	return s.Type == o.Type && s.Constant == o.Constant && s.Comment == o.Comment && s.Odd == o.Odd &&
		(!s.Constant || maps.Equal(s.Elements, o.Elements))
}

func diff(have, want *Table) []Change {
	var out []Change
	for name, w := range want.Chains {
		out = append(out, diffChain(have.Chains[name], w)...)
	}
	for name, h := range have.Chains {
		if want.Chains[name] == nil {
			out = append(out, Change{op: opFlush, chain: h}, Change{op: opDelChain, chain: h})
		}
	}
	for name, w := range want.Sets {
		out = append(out, diffSet(have.Sets[name], w)...)
	}
	for name, h := range have.Sets {
		if want.Sets[name] == nil {
			out = append(out, Change{op: opDelSet, set: h})
		}
	}
	sortChanges(out)
	return out
}

// sortChanges brings changes into the order of a transaction, which depends on nothing but them.
func sortChanges(changes []Change) {
	slices.SortStableFunc(changes, func(a, b Change) int {
		return cmp.Or(cmp.Compare(a.op, b.op), cmp.Compare(a.object(), b.object()))
	})
}

func (c *Change) object() string {
	switch {
	case c.set != nil:
		return c.set.Name
	case c.chain != nil:
		return c.chain.Name
	}
	return ""
}

func diffChain(have, want *Chain) []Change {
	if have == want {
		return nil
	}
	var out []Change
	var old []*Rule
	if have == nil {
		out = append(out, Change{op: opAddChain, chain: want})
	} else {
		old = have.Rules
		if have.Base != nil && have.Base.Drop != want.Base.Drop {
			out = append(out, Change{op: opPolicy, chain: want})
		}
	}
	if edits := diffRules(old, want.Rules); len(edits) > 0 {
		out = append(out, Change{op: opEdit, chain: want, old: old, edits: edits})
	}
	return out
}

func diffSet(have, want *Set) []Change {
	if have == want {
		return nil
	}
	var out []Change
	var gone, come []Element
	if have == nil {
		out = append(out, Change{op: opAddSet, set: want})
		have = newSet(want.Name, want.Type)
	}
	for e := range have.Elements {
		if _, ok := want.Elements[e]; !ok {
			gone = append(gone, e)
		}
	}
	come = slices.Grow(come, max(0, len(want.Elements)-len(have.Elements)))
	for e := range want.Elements {
		if _, ok := have.Elements[e]; !ok {
			come = append(come, e)
		}
	}
	elements := elementChanges(want, gone, come)
	for i := range elements {
		elements[i].fresh = len(out) > 0
	}
	return append(out, elements...)
}

// elementChanges returns the changes that take elements out of a set and put others in. Elements of a verdict map are
// swept last, unless their key gets another target.
func elementChanges(set *Set, gone, come []Element) []Change {
	var sweep []Element
	if set.Type.verdicts {
		again := map[string]bool{}
		for _, e := range come {
			again[e.Key] = true
		}
		for _, e := range gone {
			if !again[e.Key] {
				sweep = append(sweep, e)
			}
		}
		gone = slices.DeleteFunc(gone, func(e Element) bool { return !again[e.Key] })
	}
	var out []Change
	for _, part := range []struct {
		op       op
		elements []Element
	}{{opDelElements, gone}, {opAddElements, come}, {opSweepElements, sweep}} {
		if len(part.elements) > 0 {
			slices.SortFunc(part.elements, Element.compare)
			out = append(out, Change{op: part.op, set: set, elements: part.elements})
		}
	}
	return out
}

// maxCells bounds the table of the search for common rules; beyond it the middle of the list is replaced.
const maxCells = 1 << 20

// diffRules returns the edits that turn one list into the other and keep as many rules as possible, with their counters.
func diffRules(old, new []*Rule) []edit {
	head := 0
	for head < len(old) && head < len(new) && old[head].equal(new[head]) {
		head++
	}
	tail := 0
	for tail < len(old)-head && tail < len(new)-head && old[len(old)-1-tail].equal(new[len(new)-1-tail]) {
		tail++
	}
	a, b := old[head:len(old)-tail], new[head:len(new)-tail]
	kept := make([]bool, len(a))
	var out []edit
	i := 0
	for _, pair := range common(a, b) {
		kept[pair.old] = true
		for ; i < pair.new; i++ {
			out = append(out, edit{at: head + pair.old, insert: b[i]})
		}
		i++
	}
	for ; i < len(b); i++ {
		out = append(out, edit{at: len(old) - tail, insert: b[i]})
	}
	for j := range a {
		if !kept[j] {
			out = append(out, edit{at: head + j})
		}
	}
	return out
}

// A pair is a rule that two lists have in common.
type pair struct{ old, new int }

// common returns a longest common subsequence of two lists, or nothing when they are too long.
func common(a, b []*Rule) []pair {
	if len(a) == 0 || len(b) == 0 || len(a)*len(b) > maxCells {
		return nil
	}
	width := len(b) + 1
	longest := make([]int32, (len(a)+1)*width) // of a[i:] and b[j:]
	for i := len(a) - 1; i >= 0; i-- {
		for j := len(b) - 1; j >= 0; j-- {
			if a[i].equal(b[j]) {
				longest[i*width+j] = longest[(i+1)*width+j+1] + 1
			} else {
				longest[i*width+j] = max(longest[(i+1)*width+j], longest[i*width+j+1])
			}
		}
	}
	var out []pair
	for i, j := 0, 0; i < len(a) && j < len(b); {
		switch {
		case a[i].equal(b[j]):
			out = append(out, pair{i, j})
			i, j = i+1, j+1
		case longest[(i+1)*width+j] >= longest[i*width+j+1]:
			i++
		default:
			j++
		}
	}
	return out
}
