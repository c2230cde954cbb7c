package nft

import "strconv"

// A lineRef is a line as a list has it: the whole of it, or what is left of it behind its port.
type lineRef struct {
	*line
	inner bool // behind its port
}

func (l lineRef) kind() protocols {
	if l.inner {
		return allProtocols
	}
	return l.protos
}

func wholes(parts []*chunk) []lineRef {
	var out []lineRef
	for _, p := range parts {
		for _, l := range p.lines {
			out = append(out, lineRef{l, false})
		}
	}
	return out
}

func behindPort(lines []*line) []lineRef {
	out := make([]lineRef, len(lines))
	for i, l := range lines {
		out[i] = lineRef{l, true}
	}
	return out
}

// A sublist is a part of a list: lines in maps by address, a group for each guard, then the others. As in a segment, lines
// commute with those that they overtake.
type sublist struct {
	guards []*guarded
	plain  []lineRef
	kinds  kinds // of plain lines
}

// guarded are lines of a sublist that have the same guard.
type guarded struct {
	name  string
	guard variant
	lines []*line
	kinds kinds
}

// list returns the rules of a list of lines for the chain of a name. Lines that differ only in the addresses of the other
// end, and are many, become maps.
func (b *stageBuilder) list(name string, lines []lineRef) []*Rule {
	guards := b.guards(lines)
	if len(guards) == 0 {
		return b.plain(lines)
	}
	var rules []*Rule
	s := &sublist{}
	count := 0
	for i, l := range lines {
		guard := b.guardOf(l)
		switch {
		case !guards[guard]:
			s.plain = append(s.plain, l)
			s.kinds.add(l.outcome, l.kind())
			continue
		case s.blocks(l, guard):
			rules = append(rules, b.sublist(name, count, s)...)
			if count++; count == b.limits.segments {
				return append(rules, b.plain(lines[i:])...)
			}
			s = &sublist{}
		}
		s.add(l, guard)
	}
	return append(rules, b.sublist(name, count, s)...)
}

// guardOf returns the name of a line's guard, or "" when the line is not for maps.
func (b *stageBuilder) guardOf(l lineRef) string {
	switch {
	case l.peer == nil || !l.inner && l.services != nil || !b.fits(l.outcome) || !b.admits(l.line):
		return ""
	}
	return l.guardName()
}

// guards returns the guards that enough lines share.
func (b *stageBuilder) guards(lines []lineRef) map[string]bool {
	if len(lines) < b.limits.lines {
		return nil
	}
	count := map[string]int{}
	for _, l := range lines {
		count[b.guardOf(l)]++
	}
	guards := map[string]bool{}
	for name, n := range count {
		if name != "" && n >= b.limits.lines {
			guards[name] = true
		}
	}
	return guards
}

// at returns the place of a guard, or that behind the last.
func (s *sublist) at(guard string) int {
	for i, g := range s.guards {
		if g.name == guard {
			return i
		}
	}
	return len(s.guards)
}

// blocks reports whether a line with a guard would overtake one with which it does not commute.
func (s *sublist) blocks(l lineRef, guard string) bool {
	if s.kinds.block(l.outcome, l.kind()) {
		return true
	}
	for i := s.at(guard) + 1; i < len(s.guards); i++ {
		if s.guards[i].kinds.block(l.outcome, l.kind()) {
			return true
		}
	}
	return false
}

func (s *sublist) add(l lineRef, guard string) {
	i := s.at(guard)
	if i == len(s.guards) {
		s.guards = append(s.guards, &guarded{name: guard, guard: l.guard.asked()})
	}
	g := s.guards[i]
	g.lines = append(g.lines, l.line)
	g.kinds.add(l.outcome, l.kind())
}

// sublist returns the rules of the sublist of a list; maps are named by its place and their guard.
func (b *stageBuilder) sublist(name string, place int, s *sublist) []*Rule {
	var rules []*Rule
	for _, guarded := range s.guards {
		label := "all"
		if place > 0 {
			label += strconv.Itoa(place + 1)
		}
		if !guarded.guard.bare() {
			label += "-" + digest(guarded.name)[:8]
		}
		g := b.group(below(name, label), false)
		g.update(b, map[service][]*line{0: guarded.lines}, map[service]struct{}{0: {}})
		rules = append(rules, g.rules(guarded.guard)...)
	}
	return append(rules, b.plain(s.plain)...)
}

// plain lays lines out one after the other.
func (b *stageBuilder) plain(lines []lineRef) []*Rule {
	rules := make([]*Rule, 0, len(lines))
	for _, l := range lines {
		rules = append(rules, b.rulesOf(l)...)
	}
	return rules
}

// rulesOf returns the rules of a line.
func (b *stageBuilder) rulesOf(l lineRef) []*Rule {
	made := &l.whole
	if l.inner {
		made = &l.rest
	}
	to := exit{chain: b.home.String()} // of reports: the chain that bounds them is the unit's
	if l.outcome != report {
		to = b.exits[l.outcome]
	}
	if *made == nil || (*made).to != to {
		*made = &madeRules{to: to}
		for _, v := range l.alternatives(knownSets(b.members)) {
			if l.inner {
				v = l.behindPort(v)
			}
			(*made).rules = append((*made).rules, b.rule(match(v), l.line, b.exits))
		}
	}
	return (*made).rules
}

// verdict returns what an element says that stands for a line with an outcome.
func (x *exits) verdict(o outcome) verdict {
	switch x := x[o]; x.verdict {
	case nfAccept:
		return verdictAccept
	case nfDrop:
		return verdictDrop
	default:
		return jumpTo(x.chain)
	}
}
