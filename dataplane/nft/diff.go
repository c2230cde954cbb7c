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
	opFlush // the rules of a chain that goes: before Linux 6.18 some kernels look at the table after each of these steps
	opEdit
	// What follows changes no verdict: after opEdit no rule leads there.
	opSweepElements // elements of a verdict map
	opDelSet        // before the chains that a map's elements lead to
	opDelChain
)

// A phase is a transaction of those that a list of changes takes. Only one of them changes verdicts.
type phase int8

const (
	before phase = iota - 1
	now
	after
)

// A Change is one step from one Table to another.
type Change struct {
	op       op
	bridge   bool // of the table of family bridge
	phase    phase
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
		return "delete table " + c.table()
	case opAddTable:
		return "add table " + c.table()
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

// table returns family and name of the table, for people.
func (c *Change) table() string {
	if c.bridge {
		return "bridge " + TableName
	}
	return "inet " + TableName
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

// equal reports whether two chains are the same.
func (c *Chain) equal(o *Chain) bool {
	return c.alike(o) && (c.Base == nil || c.Base.Drop == o.Base.Drop) && slices.EqualFunc(c.Rules, o.Rules, (*Rule).equal)
}

// alike reports whether two sets differ at most in elements that may change.
func (s *Set) alike(o *Set) bool {
	return s.Type == o.Type && s.Constant == o.Constant && s.Counted == o.Counted && s.Comment == o.Comment && s.Odd == o.Odd &&
		(!s.Constant || maps.Equal(s.held(), o.held()))
}

func diff(have, want *Table) []Change {
	d := &differ{
		had: func(name string) bool { return have.Chains[name] != nil },
		has: func(name string) bool { return want.Chains[name] != nil },
	}
	for name, w := range want.Chains {
		d.chain(have.Chains[name], w)
	}
	for name, h := range have.Chains {
		if want.Chains[name] == nil {
			d.chain(h, nil)
		}
	}
	for name, w := range want.Sets {
		d.set(have.Sets[name], w)
	}
	for name, h := range have.Sets {
		if want.Sets[name] == nil {
			d.set(h, nil)
		}
	}
	return d.sorted()
}

// A differ collects changes.
type differ struct {
	had, has func(chain string) bool // the table had the chain before, and has it after the changes
	out      []Change
	turns    map[string]bool
}

// sorted returns the changes in the order in which they are made, which depends on nothing but them.
func (d *differ) sorted() []Change {
	slices.SortStableFunc(d.out, func(a, b Change) int {
		return cmp.Or(cmp.Compare(a.phase, b.phase), cmp.Compare(a.op, b.op), cmp.Compare(a.object(), b.object()))
	})
	return d.out
}

func (d *differ) add(c Change) { d.out = append(d.out, c) }

func (c *Change) object() string {
	switch {
	case c.set != nil:
		return c.set.Name
	case c.chain != nil:
		return c.chain.Name
	}
	return ""
}

// chain turns one chain into another; nil is none.
func (d *differ) chain(have, want *Chain) {
	switch {
	case have == want:
		return
	case want == nil:
		d.add(Change{op: opFlush, chain: have})
		d.add(Change{op: opDelChain, chain: have})
		return
	}
	var old []*Rule
	if have == nil {
		d.add(Change{op: opAddChain, chain: want})
	} else {
		old = have.Rules
		if have.Base != nil && have.Base.Drop != want.Base.Drop {
			d.add(Change{op: opPolicy, chain: want})
		}
	}
	d.edit(want, old, now)
}

func (d *differ) edit(c *Chain, old []*Rule, p phase) {
	if edits := diffRules(old, c.Rules); len(edits) > 0 {
		d.add(Change{op: opEdit, phase: p, chain: c, old: old, edits: edits})
	}
}

// set turns one set into another; nil is none.
func (d *differ) set(have, want *Set) {
	switch {
	case have == want:
		return
	case want == nil:
		d.add(Change{op: opDelSet, set: have})
		return
	case have == nil:
		d.add(Change{op: opAddSet, set: want})
		if elements := want.listed(); len(elements) > 0 {
			d.add(Change{op: opAddElements, set: want, elements: elements, fresh: true})
		}
		return
	}
	gone, come := compareElements(have, want)
	d.elements(want, gone, come)
}

// compareElements returns the elements that only one of two sets has.
func compareElements(have, want *Set) (gone, come []Element) {
	had, kept := have.held(), 0
	for e := range want.all() {
		if hasKey(had, e) {
			kept++
		} else {
			come = append(come, e)
		}
	}
	if kept == len(had) {
		return nil, come
	}
	has := want.held()
	for e := range had {
		if !hasKey(has, e) {
			gone = append(gone, e)
		}
	}
	return gone, come
}

// replace takes elements out of a set and puts others in, at once.
func (d *differ) replace(set *Set, gone, come []Element) {
	d.change(opDelElements, now, set, gone)
	d.change(opAddElements, now, set, come)
}

func (d *differ) change(o op, p phase, set *Set, elements []Element) {
	if len(elements) > 0 {
		slices.SortFunc(elements, Element.compare)
		d.add(Change{op: o, phase: p, set: set, elements: elements})
	}
}

// elements takes elements out of a set and puts others in. What an element of a verdict map says changes together with the
// rules, though elements change for packets with the old rules too: by way of a chain that says in the old rules what was,
// and in the new rules what is to be.
//
//	            before    now          after
//	element     old       jump turn    new
//	chain turn  old       new          -
//
// No such way is needed to a chain that is new, and empty in the old rules, and from one that goes, and is empty in the
// new rules: a packet falls out of it and goes on behind the map, as without the element.
func (d *differ) elements(set *Set, gone, come []Element) {
	if !set.Type.verdicts {
		d.replace(set, gone, come)
		return
	}
	from, to := map[string]verdict{}, map[string]verdict{}
	for _, e := range gone {
		if !e.Odd {
			from[e.Key] = e.Verdict
		}
	}
	for _, e := range come {
		to[e.Key] = e.Verdict
	}
	var out, in, back, forth, sweep []Element
	for _, e := range gone {
		is := to[e.Key]
		switch {
		case is == e.Verdict || e.Odd:
			out = append(out, e)
		case is == "" && e.Verdict.chain() != "" && !d.has(e.Verdict.chain()):
			sweep = append(sweep, e)
		default:
			turn := Element{Key: e.Key, Verdict: d.turn(e.Verdict, is)}
			out, in, back = append(out, e), append(in, turn), append(back, turn)
		}
	}
	for _, e := range come {
		was := from[e.Key]
		switch {
		case was == e.Verdict || was == "" && e.Verdict.chain() != "" && !d.had(e.Verdict.chain()):
			in = append(in, e)
		case was != "":
			forth = append(forth, e)
		default:
			turn := Element{Key: e.Key, Verdict: d.turn("", e.Verdict)}
			in, back, forth = append(in, turn), append(back, turn), append(forth, e)
		}
	}
	d.change(opDelElements, now, set, out)
	d.change(opAddElements, now, set, in)
	d.change(opSweepElements, now, set, sweep)
	d.change(opDelElements, after, set, back)
	d.change(opAddElements, after, set, forth)
}

// turn returns the way by which elements come to say something else; "" is to be no element.
func (d *differ) turn(from, to verdict) verdict {
	name := "turn/" + digest(string(from+"\n"+to))
	if d.turns[name] {
		return jumpTo(name)
	}
	if d.turns == nil {
		d.turns = map[string]bool{}
	}
	d.turns[name] = true
	comment := remark(string("from " + from + " to " + to))
	was := &Chain{Name: name, Comment: comment, Rules: from.rules()}
	is := &Chain{Name: name, Comment: comment, Rules: to.rules()}
	made := now
	if from != "" {
		made = before
	}
	d.add(Change{op: opAddChain, phase: made, chain: was})
	d.edit(was, nil, before)
	d.edit(is, was.Rules, now)
	d.add(Change{op: opFlush, phase: after, chain: is})
	d.add(Change{op: opDelChain, phase: after, chain: is})
	return jumpTo(name)
}

// rules returns the rules of a chain that gives the verdict to every packet.
func (v verdict) rules() []*Rule {
	switch v {
	case "":
		return nil
	case verdictAccept:
		return []*Rule{rule("accept", "", code{}.verdict(nfAccept, ""))}
	case verdictDrop:
		return []*Rule{rule("drop", "", code{}.verdict(nfDrop, ""))}
	}
	return []*Rule{jumpRule("goto", v.chain())}
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
