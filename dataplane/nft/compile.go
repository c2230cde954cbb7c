package nft

import (
	"slices"

	"golang.org/x/sys/unix"

	"margay/ruleset"
)

// LogGroup is the nflog group that Log rules report to, see [ReadLog].
const LogGroup = 2080

// Compile returns the table that enforces p.
func Compile(p *ruleset.Program) *Table { return newImage(p).table }

// A unit is the part of the table that one endpoint has in one direction, or the base: what is compiled again as a whole
// when something changes that it was made from.
type unit struct {
	chains []*Chain
	sets   map[string]*Set // constant sets, shared with other units that have equal ones, and dispatch maps

	// What was looked up, found or not.
	policies map[ruleset.PolicyID]struct{}
	profiles map[string]struct{}
	members  map[ruleset.SetID]struct{}
}

// A builder makes one unit.
type builder struct {
	*writer
	unit     *unit
	home     unitKey // of the unit
	settings *ruleset.Settings
	program  *ruleset.Program
	sets     setIndex
}

func (im *image) builder(home unitKey) *builder {
	u := &unit{
		sets: map[string]*Set{}, policies: map[ruleset.PolicyID]struct{}{}, profiles: map[string]struct{}{},
		members: map[ruleset.SetID]struct{}{},
	}
	return &builder{
		writer: &writer{consts: u.sets}, unit: u, home: home, settings: &im.program.Settings, program: im.program, sets: im,
	}
}

func (u *builder) policy(id ruleset.PolicyID) *ruleset.Policy {
	u.unit.policies[id] = struct{}{}
	return u.program.Policies[id]
}

func (u *builder) profile(name string) *ruleset.Profile {
	u.unit.profiles[name] = struct{}{}
	return u.program.Profiles[name]
}

func (u *builder) kind(id ruleset.SetID) (ruleset.SetKind, bool) {
	u.unit.members[id] = struct{}{}
	return u.sets.kind(id)
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
	name, comment := p.chain(append(slices.Clone(at.path), s.name...)...), at.about
	for _, word := range s.name {
		comment += " " + word
	}
	p.unit.chains = append(p.unit.chains, p.linear(name, remark(comment), s.lines, x))
	return name
}

// linear lays the lines of a stage out in one chain, one after the other.
func (u *builder) linear(name, comment string, lines []line, x exits) *Chain {
	c := &Chain{Name: name, Comment: comment}
	for _, l := range lines {
		variants := []variant{{protos: allProtocols}}
		if l.rule != nil {
			variants = u.variants(u, l.rule)
		}
		for _, v := range variants {
			c.Rules = append(c.Rules, u.rule(v, l, x))
		}
	}
	return c
}

func (u *builder) rule(v variant, l line, x exits) *Rule {
	text, c := u.match(v)
	text, c = text+"counter ", c.counter()
	if l.outcome == report {
		text, c = u.report(l, text, c)
		return rule(text, l.comment, c)
	}
	to := x[l.outcome]
	return rule(text+to.String(), l.comment, c.verdict(to.verdict, to.chain))
}

// Verdicts of netfilter (include/uapi/linux/netfilter.h).
const (
	nfDrop   = 0
	nfAccept = 1
)

func rule(text, comment string, c code) *Rule {
	return &Rule{Text: text, Comment: remark(comment), code: string(c)}
}

// jumpRule returns a rule that enters a chain: verb is goto or jump.
func jumpRule(verb, chain string) *Rule {
	verdict := int32(unix.NFT_JUMP)
	if verb == "goto" {
		verdict = unix.NFT_GOTO
	}
	return rule(verb+" "+chain, "", code{}.verdict(verdict, chain))
}
