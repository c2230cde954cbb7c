package nft

import (
	"cmp"
	"fmt"
	"iter"
	"maps"
	"slices"
	"strings"
)

// TableName is the only table, of families inet and bridge, that the package reads or writes.
const TableName = "margay"

// A Table is the content of the table, as compiled or as read from the kernel.
type Table struct {
	Chains map[string]*Chain
	Sets   map[string]*Set
	// Odd names what the kernel holds that no compiled Table has and that cannot be repaired in place: a flag of the
	// table, an object that is neither chain nor set. Empty when there is nothing.
	Odd string

	bridge bool // of family bridge
}

// NewTable returns a Table without chains and sets.
func NewTable() *Table {
	return &Table{Chains: map[string]*Chain{}, Sets: map[string]*Set{}}
}

// A Chain is an ordered list of rules. Chains are not changed in place.
type Chain struct {
	Name    string
	Comment string
	Base    *Base // nil: entered by jump or goto only
	Rules   []*Rule
	// Odd: the kernel reports something of the chain that no compiled Chain has.
	Odd string
}

// A Base ties a chain to a hook.
type Base struct {
	Type     string // "filter"
	Hook     uint32 // NF_INET_LOCAL_IN, NF_INET_LOCAL_OUT
	Priority int32  // lower comes first
	Drop     bool   // policy: drop, else accept
}

// A Rule is immutable. Two rules are equal when code and comment are.
type Rule struct {
	// Text is the rule as nft(8) reads it, without the comment. Empty for a rule that was read from the kernel.
	Text string
	// Comment tells people where the rule comes from: at most maxComment bytes.
	Comment string
	code    string // the expressions in canonical encoding
	uses    []*Set // the sets that the code names
}

func (r *Rule) equal(o *Rule) bool { return r == o || r.code == o.code && r.Comment == o.Comment }

// String returns the rule as nft(8) reads it.
func (r *Rule) String() string {
	if r.Comment == "" {
		return r.Text
	}
	return fmt.Sprintf("%s comment %q", r.Text, r.Comment)
}

// A Set is a set, or a map when Type is a map's.
type Set struct {
	Name     string
	Comment  string
	Type     *SetType
	Constant bool // holds what its name says for ever
	Counted  bool // every element counts the packets that it is found for
	// Odd: the kernel reports something of the set that no compiled Set has.
	Odd string

	elements map[Element]struct{}
	derived  elementSource // nil, or what has the elements instead
}

// An elementSource makes elements of what it is about when they are asked for: the elements of a map by address take many
// times the memory of that.
type elementSource interface {
	len() int
	all() iter.Seq[Element]
}

func newSet(name string, typ *SetType) *Set {
	return &Set{Name: name, Type: typ, elements: map[Element]struct{}{}}
}

func (s *Set) len() int {
	if s.derived != nil {
		return s.derived.len()
	}
	return len(s.elements)
}

// all returns the elements in no order. The set must not change meanwhile.
func (s *Set) all() iter.Seq[Element] {
	if s.derived != nil {
		return s.derived.all()
	}
	return maps.Keys(s.elements)
}

// held returns the elements, to be read only.
func (s *Set) held() map[Element]struct{} {
	if s.derived == nil {
		return s.elements
	}
	held := make(map[Element]struct{}, s.derived.len())
	for e := range s.derived.all() {
		held[e] = struct{}{}
	}
	return held
}

// An Element is one element of a set: a key, or in a set of intervals the keys from one to another.
type Element struct {
	Key     string  // Type.keyLen bytes in network order; empty for a catch-all element
	Until   string  // in a set of intervals: the key after the last one; empty for the end of the key space
	Verdict verdict // in a verdict map
	Comment string  // tells people where the element comes from: at most maxName bytes
	// End: the kernel holds the end of an interval that has no beginning, at Key. nft(8) puts one at the first key of a set
	// when it adds to an empty one.
	End bool
	// Odd: the kernel reports something of the element that no compiled Element has.
	Odd bool
}

func (e Element) compare(o Element) int {
	if c := strings.Compare(e.Key, o.Key); c != 0 {
		return c // most of the time; what follows would be done all the same
	}
	return cmp.Or(strings.Compare(e.Until, o.Until), cmp.Compare(e.Verdict, o.Verdict),
		strings.Compare(e.Comment, o.Comment), oneIf(e.End)-oneIf(o.End), oneIf(e.Odd)-oneIf(o.Odd))
}

// A verdict is what an element of a verdict map says, as nft(8) reads it: accept, drop or jump and a chain. "" is none.
type verdict string

const (
	verdictAccept verdict = "accept"
	verdictDrop   verdict = "drop"
	jumpPrefix            = "jump "
)

func jumpTo(chain string) verdict { return verdict(jumpPrefix + chain) }

// chain returns the chain of a jump, or "".
func (v verdict) chain() string {
	chain, ok := strings.CutPrefix(string(v), jumpPrefix)
	if !ok {
		return ""
	}
	return chain
}

func (s *Set) sorted() []Element {
	list := slices.AppendSeq(make([]Element, 0, s.len()), s.all())
	slices.SortFunc(list, Element.compare)
	return list
}

// listed returns the elements in an order that depends on the content only, whichever is at hand.
func (s *Set) listed() []Element {
	if s.derived != nil {
		return slices.AppendSeq(make([]Element, 0, s.len()), s.all())
	}
	return s.sorted()
}

// String returns the table as a script that nft(8) loads, in an order that depends on the content only.
func (t *Table) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "table %s {\n", (&Change{bridge: t.bridge}).table())
	for _, name := range slices.Sorted(maps.Keys(t.Sets)) {
		t.Sets[name].write(&b)
	}
	for _, name := range slices.Sorted(maps.Keys(t.Chains)) {
		t.Chains[name].write(&b)
	}
	b.WriteString("}\n")
	return b.String()
}

func (c *Chain) write(b *strings.Builder) {
	fmt.Fprintf(b, "\tchain %s {\n", c.Name)
	if c.Comment != "" {
		fmt.Fprintf(b, "\t\tcomment %q\n", c.Comment)
	}
	if c.Base != nil {
		fmt.Fprintf(b, "\t\t%s\n", c.Base)
	}
	for _, r := range c.Rules {
		fmt.Fprintf(b, "\t\t%s\n", r)
	}
	b.WriteString("\t}\n")
}

// String returns the declaration of a base chain as nft(8) reads it.
func (b *Base) String() string {
	policy := "accept"
	if b.Drop {
		policy = "drop"
	}
	hook := [...]string{"prerouting", "input", "forward", "output", "postrouting"}[b.Hook]
	return fmt.Sprintf("type %s hook %s priority %d; policy %s;", b.Type, hook, b.Priority, policy)
}

func (s *Set) write(b *strings.Builder) {
	kind := "set"
	if s.Type.verdicts {
		kind = "map"
	}
	fmt.Fprintf(b, "\t%s %s {\n\t\ttype %s\n", kind, s.Name, s.Type)
	if flags := s.flagNames(); len(flags) > 0 {
		fmt.Fprintf(b, "\t\tflags %s\n", strings.Join(flags, ","))
	}
	if s.Comment != "" {
		fmt.Fprintf(b, "\t\tcomment %q\n", s.Comment)
	}
	if s.Counted {
		b.WriteString("\t\tcounter\n")
	}
	if s.len() > 0 {
		fmt.Fprintf(b, "\t\telements = { %s }\n", strings.Join(s.elementTexts(), ", "))
	}
	b.WriteString("\t}\n")
}

func (s *Set) flagNames() []string {
	var flags []string
	if s.Constant {
		flags = append(flags, "constant")
	}
	if s.Type.interval {
		flags = append(flags, "interval")
	}
	return flags
}

func (s *Set) elementTexts() []string {
	var out []string
	for _, e := range s.sorted() {
		text := s.Type.text(e.Key)
		if s.Type.interval {
			text = s.Type.intervalText(e.Key, e.Until)
		}
		if e.Comment != "" {
			text += fmt.Sprintf(" comment %q", e.Comment)
		}
		if s.Type.verdicts {
			text += " : " + string(e.Verdict)
		}
		out = append(out, text)
	}
	return out
}
