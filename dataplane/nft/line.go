package nft

import (
	"cmp"
	"net/netip"
	"slices"
	"strings"

	"margay/ruleset"
)

// An outcome is what a line does with a packet that matches. What the first three are at a place, its exits say.
type outcome uint8

const (
	deny   outcome = iota
	accept         // the stages after this one are not asked
	next           // on to the next stage
	report         // tell the log group, then on to the next line
	outcomes
)

// A line is a rule of an endpoint in one direction, or some of its alternatives, in nft's terms: a packet matches when one
// of the alternatives does. Lines are not changed once they are in an item. There are very many, so a line keeps what decides
// where it goes; what it asks is made of the rule when it is laid out as rules, see alternatives.
type line struct {
	rule         *ruleset.Rule
	first, count uint32 // of the rule's variants: one, or one for each family that ask the same of it
	to           side   // that the rule calls the destination
	outcome      outcome
	everything   bool      // every packet matches
	protos       protocols // that it can match: all its alternatives can match the same ones, see join
	comment      string    // as the kernel takes it
	prefix       string    // of the report
	serial       uint64    // tells lines apart

	// services are the protocols and destination ports that the line can match. nil: it is not to be cut by port.
	services []service
	// peer is the only condition on the address of the other end; nil when there is none, or one that a map cannot express.
	// guard is what is left to ask of a packet with one of services when peer is, too; nil: nothing.
	peer  *peer
	guard *guard

	whole, rest *madeRules // of the line and of what is left of it behind its port, when they were needed last
}

// A guard is a variant with a name: equal names, equal guards but for the family.
type guard struct {
	variant
	name string
}

// guardOf returns what is left of the variant of a line without the test at a place.
func guardOf(l *line, v variant, at int) *guard {
	if l.services != nil && len(v.tests) == 2 && staticPort(v.tests[1-at]) {
		return nil // most lines
	}
	v.tests = slices.Concat(v.tests[:at], v.tests[at+1:])
	if v = l.behindPort(v); v.bare() {
		return nil
	}
	return &guard{v, v.name()}
}

// guardName returns the name of the guard.
func (l *line) guardName() string {
	if l.guard == nil {
		return bareName
	}
	return l.guard.name
}

// asked returns what the guard asks.
func (g *guard) asked() variant {
	if g == nil {
		return variant{protos: allProtocols}
	}
	return g.variant
}

// bareName is the name of a guard that asks nothing.
const bareName = "all"

// A service is a protocol and a destination port.
type service uint32

func serviceOf(protocol uint8, port uint16) service { return service(protocol)<<16 | service(port) }

func (s service) protocol() uint8 { return uint8(s >> 16) }
func (s service) port() uint16    { return uint16(s) }

// key returns the service as a key of typeByPort.
func (s service) key() string { return string(s.append(nil)) }

// append appends the key.
func (s service) append(b []byte) []byte {
	return append(b, s.protocol(), 0, 0, 0, byte(s.port()>>8), byte(s.port()), 0, 0)
}

// alternatives returns the variants of which one matches when the line does. Sets are those of which the line was made.
func (l *line) alternatives(sets setIndex) []variant {
	return variants(sets, l.rule, l.to)[l.first : l.first+l.count]
}

// behindPort returns what is left of an alternative to ask of a packet that has one of services.
func (l *line) behindPort(v variant) variant {
	if l.services == nil {
		return v
	}
	v.protos, v.tests = allProtocols, leaving(v.tests, staticPort)
	return v
}

// madeRules are rules for an exit.
type madeRules struct {
	rules []*Rule
	to    exit
}

// everything reports whether every packet matches.
func (v variant) everything() bool { return v.family == ruleset.AnyFamily && v.bare() }

// bare reports whether every packet of the family matches.
func (v variant) bare() bool { return v.protos == allProtocols && len(v.tests) == 0 }

// name returns a text that is equal for variants that ask the same, the family aside when nothing depends on it.
func (v variant) name() string {
	if v.bare() {
		return bareName
	}
	if !v.implies(test.impliesFamily) {
		v.family = ruleset.AnyFamily
	}
	return match(v).text
}

// A peer is a set of addresses.
type peer struct {
	name    string         // of nets: equal names and families, equal addresses
	family  ruleset.Family // any: both
	members *memberSet     // of the Program, or nil
	nets    []netip.Prefix // disjoint, by length; nil of members: to be asked for
}

// prefixes returns disjoint prefixes that cover the addresses, by length. They are not to be changed.
func (p *peer) prefixes() []netip.Prefix {
	if p.nets == nil && p.members != nil {
		p.nets = p.members.prefixes(p.family)
	}
	return p.nets
}

// ofLength returns the prefixes of a length.
func (p *peer) ofLength(l prefixLength) []netip.Prefix {
	nets := p.prefixes()
	find := func(p netip.Prefix, l prefixLength) int { return lengthOf(p).compare(l) }
	first, _ := slices.BinarySearchFunc(nets, l, find)
	n := first
	for n < len(nets) && lengthOf(nets[n]) == l {
		n++
	}
	return nets[first:n]
}

// byLength sorts prefixes by family and length, then by address.
func byLength(nets []netip.Prefix) {
	slices.SortFunc(nets, func(a, b netip.Prefix) int {
		return cmp.Or(lengthOf(a).compare(lengthOf(b)), a.Addr().Compare(b.Addr()))
	})
}

// weight returns how many prefixes there are, rounded up to a power of four: it changes seldom.
func (p *peer) weight() int {
	if p.members == nil {
		return roundUp(len(p.nets))
	}
	return p.members.weight
}

func roundUp(n int) int {
	w := 1
	for w < n {
		w *= 4
	}
	return w
}

// newLine returns the line of a variant of a rule. Its services are to be copied if it is kept, see keep.
func (m *lineMaker) newLine(v variant, o outcome) line {
	l := plainLine(v, o)
	if services, ok := v.services(m.scratch[:0], m.limits.services); ok {
		l.services, m.scratch = services, services
	}
	if at, ok := v.peer(m.peer()); ok && o != report {
		l.peer = peerOf(&v.tests[at], v.family)
		l.guard = guardOf(&l, v, at)
	}
	return l
}

// plainLine returns the line of a variant that becomes a rule.
func plainLine(v variant, o outcome) line {
	return line{count: 1, outcome: o, everything: v.everything(), protos: v.protos}
}

// leaving returns the tests that are not dropped, in no more memory than they need: there are very many.
func leaving(tests []test, drop func(test) bool) []test {
	n := 0
	for _, t := range tests {
		n += oneIf(!drop(t))
	}
	if n == 0 {
		return nil
	}
	kept := make([]test, 0, n)
	for _, t := range tests {
		if !drop(t) {
			kept = append(kept, t)
		}
	}
	return kept
}

// peer returns the place of the only test of the address of a side, if a map can stand for it.
func (v variant) peer(s side) (at int, ok bool) {
	for i := range v.tests {
		switch t := &v.tests[i]; {
		case t.side != s || !t.address():
		case ok || t.not || t.kind == testAddrPorts || t.members != nil && t.members.large:
			return 0, false
		default:
			at, ok = i, true
		}
	}
	return at, ok
}

func peerOf(t *test, f ruleset.Family) *peer {
	if t.members != nil {
		return t.members.peer(f)
	}
	var names []string
	for _, n := range t.nets {
		names = append(names, n.String())
	}
	p := &peer{name: strings.Join(names, ","), family: f, nets: slices.Clone(t.nets)}
	byLength(p.nets)
	return p
}

// join makes one line of l and the next alternative of its rule, when they differ in the family only, and reports whether
// it did.
func (l *line) join(o *line) bool {
	if l.peer == nil || o.peer == nil || l.peer.members == nil || l.peer.members != o.peer.members || l.count > 1 ||
		l.peer.family == o.peer.family ||
		l.guardName() != o.guardName() || !slices.Equal(l.services, o.services) || (l.services == nil) != (o.services == nil) {
		return false
	}
	l.count, l.peer = 2, l.peer.members.peer(ruleset.AnyFamily)
	return true
}

// staticPort reports whether t is about destination ports that never change.
func staticPort(t test) bool { return t.port() && t.side == destination }

// services adds the protocols and destination ports that v can match; ok is false when ports do not matter or when there are
// more than most.
func (v variant) services(list []service, most int) (_ []service, ok bool) {
	var ranges []ruleset.PortRange
	for i := range v.tests {
		if t := &v.tests[i]; staticPort(*t) && !t.not {
			ranges, ok = t.ranges, true
			break
		}
	}
	count := 0
	for _, r := range ranges {
		count += int(r.Last) - int(r.First) + 1
	}
	if !ok || count*v.protos.size() > most || v.protos.and(portProtocols) != v.protos {
		return nil, false
	}
	if list == nil {
		list = []service{}
	}
	for protocol := range v.protos.all() {
		for _, r := range ranges {
			for port := int(r.First); port <= int(r.Last); port++ {
				if v.hasPort(uint16(port)) {
					list = append(list, serviceOf(protocol, uint16(port)))
				}
			}
		}
	}
	return list, true
}

// hasPort reports whether the tests on destination ports that never change let a port through.
func (v variant) hasPort(port uint16) bool {
	for _, t := range v.tests {
		if !staticPort(t) {
			continue
		}
		in := slices.ContainsFunc(t.ranges, func(r ruleset.PortRange) bool { return r.First <= port && port <= r.Last })
		if in == t.not {
			return false
		}
	}
	return true
}

// decides reports whether no packet goes on to the next line.
func (l *line) decides() bool { return l.outcome != report && l.everything }

// A chunk is a run of lines of an item that are cut alike: all by port, with the same outcome, or none.
type chunk struct {
	lines    []*line
	byPort   bool
	outcome  outcome   // byPort: of all lines
	protos   protocols // of all lines
	kinds    kinds     // not byPort
	services []ported  // byPort: in order
	widest   int       // most services of a line
	places   int       // of lines in lists of services
	reports  []*line   // those that tell the log group
	decides  bool      // its last line does
}

// ported is a line that can match a service.
type ported struct {
	service service
	line    *line
}

// linesFor returns the lines that can match a service, in order.
func (p *chunk) linesFor(s service) []ported {
	first, _ := slices.BinarySearchFunc(p.services, s, func(o ported, s service) int { return cmp.Compare(o.service, s) })
	n := first
	for n < len(p.services) && p.services[n].service == s {
		n++
	}
	return p.services[first:n]
}

// kinds are the protocols of some lines by outcome.
type kinds [outcomes]protocols

func (k *kinds) add(o outcome, p protocols) { k[o] = k[o].or(p) }

// block reports whether a line with this outcome and these protocols may not change places with all of the lines.
func (k *kinds) block(o outcome, p protocols) bool {
	for kind, protos := range k {
		if outcome(kind) != o && !protos.and(p).empty() {
			return true
		}
	}
	return false
}

// chunksOf divides lines into chunks. Those behind one that decides are left out.
func chunksOf(lines []*line) []*chunk {
	var out []*chunk
	for _, l := range lines {
		var last *chunk
		if len(out) > 0 {
			last = out[len(out)-1]
		}
		byPort := l.services != nil
		if last == nil || last.byPort != byPort || byPort && last.outcome != l.outcome {
			last = &chunk{byPort: byPort, outcome: l.outcome}
			out = append(out, last)
		}
		last.add(l)
		if last.decides {
			break
		}
	}
	for _, c := range out {
		slices.SortStableFunc(c.services, func(a, b ported) int { return cmp.Compare(a.service, b.service) })
		c.services, c.lines = slices.Clip(c.services), slices.Clip(c.lines)
	}
	return out
}

func (p *chunk) add(l *line) {
	p.lines = append(p.lines, l)
	p.protos = p.protos.or(l.protos)
	p.decides = l.decides()
	if l.outcome == report {
		p.reports = append(p.reports, l)
	}
	if !p.byPort {
		p.kinds.add(l.outcome, l.protos)
		return
	}
	p.widest, p.places = max(p.widest, len(l.services)), p.places+len(l.services)
	for _, s := range l.services {
		p.services = append(p.services, ported{s, l})
	}
}

// lastChunk returns a chunk of one line that every packet matches.
func lastChunk(comment string, o outcome, serial uint64) *chunk {
	l := plainLine(variant{protos: allProtocols}, o)
	l.rule, l.comment, l.serial = &ruleset.Rule{}, remark(comment), serial
	return chunksOf([]*line{&l})[0]
}
