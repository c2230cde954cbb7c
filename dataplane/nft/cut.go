package nft

import (
	"slices"
	"strconv"

	"golang.org/x/sys/unix"
)

// limits say when a stage is cut and how far. They bound the table and the packet's way.
type limits struct {
	// lines of a list that can be cut, below which it is laid out as it is: a person reads it at once, and a packet asks
	// a few rules as fast as it looks something up.
	lines int
	// services of one line, beyond which it counts as one for every port.
	services int
	// lines in chains for services, each as often as it has services; beyond that, lines with many services count as lines
	// for every port, those with most first.
	classes int
	// members of a set, beyond which it is looked up as a set of its own and not copied into maps.
	members int
	// copies of the members of one set, and elements of all maps of a stage; see admission.
	copies, elements int
	// segments of a stage or list, beyond which the rest is laid out as it is.
	segments int
}

var defaultLimits = limits{lines: 8, services: 64, classes: 1 << 17, members: 4096, copies: 4096, elements: 1 << 18, segments: 16}

// A stageBuilder makes the chains of one stage.
//
// The lines of a stage are cut by protocol and destination port. A segment of the stage's chain is
//
//	ip saddr . meta l4proto . th dport vmap @.../ports/ip/saddr/32   lines that ask for nothing but that, see group
//	meta l4proto . th dport vmap @.../ports                          -> jump .../tcp/80: the other lines for a port
//	                                                                 lines for every port
//
// so a packet asks the lines that can match its port and those for every port, however many there are for other ports.
// No line is copied, except that one for several ports is in the chain of each: the table grows as the rules do. Where it
// would grow beyond limits, and where lines do not commute, lines are laid out in order, and a packet asks all of them.
//
// Lines of a segment do not keep their order, so a line must commute with all that it overtakes: have the same outcome,
// or match other protocols. A line that does not opens the next segment. Among rules that do the same the one that counts
// a packet may therefore be a later one that matches it too.
type stageBuilder struct {
	*builder
	*stageState
	name  string // of the stage's chain
	about string // the comment of chains begins so
	stage string // and ends so
	exits exits
}

// A stageState is what a stage keeps from one build to the next, so that a build does what is different.
type stageState struct {
	chunks []*chunk
	left   exits
	admission
	segments []*segment
}

// build adds the chains of the stage.
func (b *stageBuilder) build(chunks []*chunk) {
	all := b.left != b.exits || b.reads(b.unit)
	gone, come := difference(b.stageState.chunks, chunks)
	if !b.admission.change(gone, come, &b.limits) || b.reads(b.unit) {
		b.admission = admissionOf(chunks, &b.limits)
		all = true
	}
	b.stageState.chunks, b.left = chunks, b.exits
	count := 0
	for _, c := range chunks {
		if b.byPort(c) {
			count += len(c.lines)
		}
		for _, l := range c.reports {
			b.addLog(l)
		}
	}
	if count >= b.limits.lines {
		b.addChain(b.name, b.comment(""), b.cutByPort(chunks, all)...)
		return
	}
	b.shorten(b.builder, 0)
	b.addChain(b.name, b.comment(""), b.list(b.name, wholes(chunks))...)
}

// comment returns the comment of a chain of the stage, see readPlace.
func (b *stageBuilder) comment(what string) string { return b.about + what + b.stage }

// difference returns what two lists do not have in common at their beginnings and ends.
func difference[T comparable](old, new []T) (gone, come []T) {
	head := 0
	for head < len(old) && head < len(new) && old[head] == new[head] {
		head++
	}
	tail := 0
	for tail < len(old)-head && tail < len(new)-head && old[len(old)-1-tail] == new[len(new)-1-tail] {
		tail++
	}
	return old[head : len(old)-tail], new[head : len(new)-tail]
}

// byPort reports whether a chunk is to be cut by port.
func (b *stageBuilder) byPort(c *chunk) bool {
	return c.byPort && c.widest <= b.widest && b.fits(c.outcome)
}

// fits reports whether lines with an outcome may be behind a map. From there a packet cannot return from the stage, and so
// cannot go where it may return from: not on to another stage where returning means that it is allowed.
func (b *stageBuilder) fits(o outcome) bool {
	returns := exit{verdict: unix.NFT_RETURN}
	return o == report || b.exits[o] != returns && (o == deny || b.exits[accept] != returns)
}

// cutByPort returns the rules of the stage's chain. Without all, classes that nothing changed in are left as they are.
func (b *stageBuilder) cutByPort(parts []*chunk, all bool) []*Rule {
	laid := []*layout{{}}
	for i, p := range parts {
		s := laid[len(laid)-1]
		switch {
		case !b.byPort(p):
			s.addOpen(p)
			continue
		case s.overtaken.block(p.outcome, p.protos) && len(laid) == b.limits.segments:
			s.all, s.open = append(s.all, parts[i:]...), append(s.open, parts[i:]...)
		case s.overtaken.block(p.outcome, p.protos):
			s = &layout{}
			laid = append(laid, s)
			fallthrough
		default:
			s.addPorted(p)
			continue
		}
		break
	}
	b.shorten(b.builder, len(laid))
	var rules []*Rule
	for i, s := range laid {
		name := b.name
		if i > 0 {
			name = below(name, "part", strconv.Itoa(i+1))
		}
		if i == len(b.segments) {
			b.segments = append(b.segments, newSegment(name))
		}
		rules = append(rules, b.segment(b.segments[i], s, all)...)
	}
	return rules
}

// shorten gives up the segments beyond the first n.
func (st *stageState) shorten(b *builder, n int) {
	for _, s := range st.segments[min(n, len(st.segments)):] {
		s.clear(b)
	}
	st.segments = st.segments[:min(n, len(st.segments))]
}

// A layout says which chunks a segment has.
type layout struct {
	all, ported, open []*chunk
	size              int // lines of ported
	overtaken         kinds
}

func (s *layout) addOpen(p *chunk) {
	s.all, s.open = append(s.all, p), append(s.open, p)
	for o, protos := range p.kinds {
		s.overtaken.add(outcome(o), protos)
	}
	if p.byPort {
		s.overtaken.add(p.outcome, p.protos)
	}
}

func (s *layout) addPorted(p *chunk) {
	s.all, s.ported = append(s.all, p), append(s.ported, p)
	s.size += len(p.lines)
}

// A segment is a part of a stage's chain, as it was laid out last.
type segment struct {
	name    string
	ported  []*chunk
	classes map[service]*class
	alike   map[string][]service // in order, by the lines of their classes
}

// A class is the lines of one service that are not in maps by address and port, in a chain of their own.
type class struct {
	lines  []*line
	lists  string   // equal for equal lines
	groups []string // that its chain uses
}

func newSegment(name string) *segment {
	return &segment{name: name, classes: map[service]*class{}, alike: map[string][]service{}}
}

// clear takes the chains of a segment out of the table.
func (s *segment) clear(b *builder) {
	for service := range s.classes {
		b.setChain(serviceChain(s.name, service), nil)
	}
	*s = *newSegment(s.name)
}

// segment returns the rules of a segment.
func (b *stageBuilder) segment(s *segment, l *layout, all bool) []*Rule {
	if l.size < b.limits.lines {
		s.clear(b.builder)
		return b.list(s.name, wholes(l.all))
	}
	s.update(b, l.ported, all)
	var rules []*Rule
	if g := b.unit.groups[below(s.name, "ports")]; g != nil && len(g.runs) > 0 {
		rules = b.group(g.name, true).rules(variant{protos: allProtocols})
	}
	if len(s.classes) > 0 {
		set := b.unit.sets[below(s.name, "ports")]
		c := destination.loadPort(code{}.meta(unix.NFT_META_L4PROTO, regFirst), regWord1)
		rules = append(rules, rule("meta l4proto . th dport vmap @"+set.Name, "", c.vmap(set.Name), set))
	}
	return append(rules, b.list(s.name, wholes(l.open))...)
}

// update brings the classes and maps of a segment in line with its parts.
func (s *segment) update(b *stageBuilder, ported []*chunk, all bool) {
	gone, come := difference(s.ported, ported)
	if all {
		gone, come = s.ported, ported
	}
	size := 0
	for _, p := range come {
		size += len(p.services)
	}
	affected := make(map[service]struct{}, size)
	for _, p := range slices.Concat(gone, come) {
		for i := range p.services {
			affected[p.services[i].service] = struct{}{}
		}
	}
	s.ported = ported
	lists := linesOf(ported, affected)
	mapped := make(map[service][]*line, len(affected))
	redo := map[service]struct{}{} // services whose chain is to be made again
	for service := range affected {
		var rest []*line
		if mapped[service], rest = b.divide(lists[service]); len(mapped[service]) == 0 {
			delete(mapped, service)
		}
		s.setClass(service, rest, redo)
	}
	if len(mapped) > 0 || b.unit.groups[below(s.name, "ports")] != nil {
		b.group(below(s.name, "ports"), true).update(b, mapped, affected)
	}
	if all {
		for service := range s.classes {
			redo[service] = struct{}{}
		}
	}
	s.chains(b, redo)
}

// linesOf returns the lines of some services, in order.
func linesOf(parts []*chunk, services map[service]struct{}) map[service][]*line {
	lists := make(map[service][]*line, len(services))
	for _, p := range parts {
		if len(services) < len(p.services) {
			for service := range services {
				for _, o := range p.linesFor(service) {
					lists[service] = append(lists[service], o.line)
				}
			}
			continue
		}
		for _, o := range p.services {
			if hasKey(services, o.service) {
				lists[o.service] = append(lists[o.service], o.line)
			}
		}
	}
	return lists
}

// divide returns the lines of a service for maps by address and port, and the others. A line for the maps overtakes
// others: they must do the same.
func (b *stageBuilder) divide(lines []*line) (mapped, rest []*line) {
	var others uint8 // outcomes of rest, a bit for each
	for i, l := range lines {
		if l.peer != nil && l.guard == nil && b.admits(l) && others&^(1<<l.outcome) == 0 {
			if rest == nil {
				mapped = lines[: i+1 : i+1] // most of the time all of them
			} else {
				mapped = append(mapped, l)
			}
		} else {
			rest, others = append(rest, l), others|1<<l.outcome
		}
	}
	return mapped, rest
}

// setClass gives a service its lines. Services with the same lines share a chain: that of the first has the rules, the
// others lead there. It adds the services to redo of which the chain changes.
func (s *segment) setClass(service service, lines []*line, redo map[service]struct{}) {
	c := s.classes[service]
	if c == nil && len(lines) == 0 {
		return
	}
	redo[service] = struct{}{}
	leave := func(lists string) {
		was := s.alike[lists]
		at, _ := slices.BinarySearch(was, service)
		if s.alike[lists] = slices.Delete(was, at, at+1); len(s.alike[lists]) == 0 {
			delete(s.alike, lists)
		} else if at == 0 {
			mark(redo, s.alike[lists])
		}
	}
	if c != nil && slices.Equal(c.lines, lines) {
		return
	}
	if c != nil {
		leave(c.lists)
	}
	if len(lines) == 0 {
		delete(s.classes, service)
		return
	}
	c = &class{lines: lines, lists: serials(lines)}
	s.classes[service] = c
	at, _ := slices.BinarySearch(s.alike[c.lists], service)
	if s.alike[c.lists] = slices.Insert(s.alike[c.lists], at, service); at == 0 {
		mark(redo, s.alike[c.lists])
	}
}

// serials returns a text that is equal for equal lists only.
func serials(lines []*line) string {
	b := make([]byte, 0, 4*len(lines))
	for _, l := range lines {
		b = append(strconv.AppendUint(b, l.serial, 36), ' ')
	}
	return string(b)
}

// chains makes the chains of some services and the map that leads to all of them.
func (s *segment) chains(b *stageBuilder, redo map[service]struct{}) {
	ports := b.keep(below(s.name, "ports"), typeByPort)
	for service := range redo {
		name := serviceChain(s.name, service)
		element := Element{Key: service.key(), Verdict: jumpTo(name)}
		c := s.classes[service]
		if c == nil {
			b.setChain(name, nil)
			b.record.put(ports, element, false)
			continue
		}
		chain := &Chain{Name: name, Comment: remark(b.comment(" to " + serviceText(service)))}
		if first := s.alike[c.lists][0]; first != service && len(c.lines) > 1 {
			chain.Rules = []*Rule{jumpRule("goto", serviceChain(s.name, first))}
		} else {
			before := len(b.grouped)
			chain.Rules = b.list(name, behindPort(c.lines))
			c.groups = slices.Clone(b.grouped[before:])
		}
		b.setChain(name, chain)
		b.record.put(ports, element, true)
	}
	for _, c := range s.classes {
		for _, name := range c.groups {
			b.groups[name] = true
		}
	}
}

// serviceText returns a service for people.
func serviceText(s service) string {
	return portProtocol(s.protocol()) + " " + strconv.Itoa(int(s.port()))
}

// serviceChain returns the name of the chain for a service.
func serviceChain(name string, s service) string {
	return below(name, portProtocol(s.protocol()), strconv.Itoa(int(s.port())))
}

// group returns the group of a name, as it was left.
func (b *stageBuilder) group(name string, keyed bool) *group {
	g := b.unit.groups[name]
	if g == nil {
		g = &group{name: name, unit: b.unit, peer: b.peer(), keyed: keyed,
			comment: remark(b.comment("")), runs: map[service]*run{},
			maps: map[prefixLength]*Set{}}
		b.unit.groups[name] = g
	}
	b.groups[name] = true
	b.grouped = append(b.grouped, name)
	return g
}

// reads reports whether rules of the unit are to be made again though no line changed.
func (t *touch) reads(u *unit) bool { return hasKey(t.remapped, u) || len(t.reweighed) > 0 }

// An admission decides which lines are cut by port, and whose addresses are copied into the maps of a stage. A set that is
// in few lines costs what it would cost by itself; of one in many lines there would be as many copies. When all of them are
// too many, sets go that are in many lines, the larger ones first.
type admission struct {
	widest int // services of a line that is cut by port
	places int // of lines in chains of services
	uses   map[*memberSet]int
	most   int // copies of one set
	total  int // elements
	lim    *limits
}

func admissionOf(parts []*chunk, lim *limits) admission {
	a := admission{uses: map[*memberSet]int{}, lim: lim}
	for _, p := range parts {
		a.count(p, 1)
	}
	for a.widest = lim.services; a.places > lim.classes && a.widest > 1; {
		a.widest, a.places = a.widest/4, 0
		for _, p := range parts {
			if p.widest <= a.widest {
				a.places += p.places
			}
		}
	}
	for a.most = lim.copies; ; a.most /= 4 {
		a.total = 0
		for m, n := range a.uses {
			a.total += a.elements(m, n)
		}
		if a.total <= lim.elements || a.most == 0 {
			return a
		}
	}
}

// elements returns how many elements n uses of a set make.
func (a *admission) elements(m *memberSet, n int) int {
	if !a.admitsSet(n, m.weight) {
		return 0
	}
	return n * m.weight
}

func (a *admission) admitsSet(uses, weight int) bool {
	return weight <= a.lim.members && (uses <= 2 || uses*weight <= a.most || weight*64 <= a.most)
}

// admits reports whether the addresses of a line are copied.
func (a *admission) admits(l *line) bool {
	if w := l.peer.weight(); w*64 <= a.most && w <= a.lim.members {
		return true // however many lines have them
	}
	if l.peer.members == nil {
		return a.admitsSet(max(1, len(l.services)), l.peer.weight())
	}
	return a.admitsSet(a.uses[l.peer.members], l.peer.members.weight)
}

func (a *admission) count(p *chunk, n int) {
	a.places += n * p.places
	for _, l := range p.lines {
		if l.peer != nil && l.peer.members != nil {
			a.uses[l.peer.members] += n * max(1, len(l.services))
		}
	}
}

// change follows a change of parts. It reports false when that changes what holds for other parts, too: then everything
// is to be counted again.
func (a *admission) change(gone, come []*chunk, lim *limits) bool {
	if a.lim != lim || a.most != lim.copies || a.widest != lim.services {
		return false
	}
	was := map[*memberSet]int{}
	for _, p := range slices.Concat(gone, come) {
		for _, l := range p.lines {
			if l.peer != nil && l.peer.members != nil {
				was[l.peer.members] = a.uses[l.peer.members]
			}
		}
	}
	for _, p := range gone {
		a.count(p, -1)
	}
	for _, p := range come {
		a.count(p, 1)
	}
	for m, n := range was {
		is := a.uses[m]
		if n > 0 && is > 0 && a.admitsSet(n, m.weight) != a.admitsSet(is, m.weight) {
			return false
		}
		if a.total += a.elements(m, is) - a.elements(m, n); is == 0 {
			delete(a.uses, m)
		}
	}
	return a.total <= lim.elements && a.places <= lim.classes
}

func mark[K comparable](marked map[K]struct{}, list []K) {
	for _, k := range list {
		marked[k] = struct{}{}
	}
}
