package nft

import (
	"slices"

	"golang.org/x/sys/unix"

	"margay/ruleset"
)

// LogGroup is the nflog group that Log rules report to, see [ReadLog].
const LogGroup = 2080

// Compile returns the table that enforces p.
func Compile(p *ruleset.Program) *Table { return newImage(p, defaultLimits).table }

// A unit is the part of the table that one endpoint has in one direction, or the base: what is looked at again when
// something changes that it was made from.
type unit struct {
	chains map[string]struct{}
	sets   map[string]*Set   // maps with elements that only a build changes
	groups map[string]*group // maps with elements that members change too
	stages map[string]*stageState
	ends   map[endKey]*chunk
	tiers  map[tierKey]tierState
	items  []*item
}

// A builder makes one unit, from what it was before.
type builder struct {
	*touch
	unit     *unit
	home     unitKey // of the unit
	settings *ruleset.Settings
	// beforeDNAT: what rules call the destination is the one before destination NAT.
	beforeDNAT bool

	// What the unit has now.
	chains map[string]*Chain
	sets   map[string]bool
	groups map[string]bool
	staged map[string]bool
	ends   map[endKey]*chunk
	tiers  map[tierKey]tierState
	used   []*item

	grouped []string // groups in the order of use
}

// to returns the side that rules call the destination.
func (b *builder) to() side {
	if b.beforeDNAT {
		return original
	}
	return destination
}

// peer returns the side where the other end is.
func (b *builder) peer() side {
	if b.home.dir == ruleset.Egress {
		return b.to()
	}
	return source
}

// fill returns the set of a name with these elements.
func (b *builder) fill(name string, typ *SetType, elements map[Element]struct{}) *Set {
	s := b.keep(name, typ)
	for e := range s.elements {
		if _, ok := elements[e]; !ok {
			b.record.put(s, e, false)
		}
	}
	for e := range elements {
		b.record.put(s, e, true)
	}
	return s
}

// keep returns the set of a name with the elements that it has.
func (b *builder) keep(name string, typ *SetType) *Set {
	s := b.unit.sets[name]
	if s == nil {
		s = newSet(name, typ)
		b.unit.sets[name] = s
	}
	b.sets[name] = true
	return s
}

// endpointChain returns the name of the chain where an endpoint begins.
func endpointChain(id ruleset.EndpointID, dir ruleset.Direction, suffix ...string) string {
	parts := []string{dir.String(), id.Kind}
	if id.Namespace != "" {
		parts = append(parts, id.Namespace)
	}
	return ident(append(append(parts, id.Name), suffix...)...)
}

// stages adds the chains of stages that follow each other and returns the rules that lead there. The exits are those of
// the last one, and of all for what decides.
//
// A table must not lead a packet through more than 16 chains, returns not counted. So the stages are called one after
// the other, and return to go on with the next one. But where returning means that the packet is allowed, each leads to the
// next itself, and many stages do not fit.
func (p *part) stages(at place, stages []stage, x exits) []*Rule {
	back := exit{verdict: unix.NFT_RETURN}
	if x[accept] == back {
		for _, s := range slices.Backward(stages) {
			x[next] = goTo(p.stage(at, s, x))
		}
		return []*Rule{always().then(x[next], "")}
	}
	var rules []*Rule
	for i, s := range stages {
		if i == len(stages)-1 {
			return append(rules, jumpRule("goto", p.stage(at, s, x)))
		}
		called := x
		called[next] = back
		rules = append(rules, always().jump(p.stage(at, s, called)))
	}
	return []*Rule{always().then(x[next], "")}
}

// stage adds the chains of a stage and returns the name of the first.
func (p *part) stage(at place, s stage, x exits) string {
	name, words := p.chain(append(slices.Clone(at.path), s.name...)...), ""
	for _, word := range s.name {
		words += " " + word
	}
	b := &stageBuilder{builder: p.builder, stageState: p.stageState(name), name: name, about: at.about, stage: words, exits: x}
	b.build(s.chunks)
	return name
}

// stageState returns the state of the stage of a name.
func (b *builder) stageState(name string) *stageState {
	s := b.unit.stages[name]
	if s == nil {
		s = &stageState{}
		b.unit.stages[name] = s
	}
	b.staged[name] = true
	return s
}

// rule returns the rule of a line that matches when a condition does.
func (b *builder) rule(when condition, l *line, x exits) *Rule {
	text, c := when.text+"counter ", when.code.counter()
	if l.outcome == report {
		text, c = b.report(l, text, c)
		return rule(text, l.comment, c, when.uses...)
	}
	to := x[l.outcome]
	return rule(text+to.String(), l.comment, c.verdict(to.verdict, to.chain), when.uses...)
}

// Verdicts of netfilter (include/uapi/linux/netfilter.h).
const (
	nfDrop   = 0
	nfAccept = 1
)

// rule returns a rule; uses are the sets that the code names.
func rule(text, comment string, c code, uses ...*Set) *Rule {
	return &Rule{Text: text, Comment: remark(comment), code: string(c), uses: uses}
}

// jumpRule returns a rule that enters a chain: verb is goto or jump.
func jumpRule(verb, chain string) *Rule {
	verdict := int32(unix.NFT_JUMP)
	if verb == "goto" {
		verdict = unix.NFT_GOTO
	}
	return rule(verb+" "+chain, "", code{}.verdict(verdict, chain))
}
