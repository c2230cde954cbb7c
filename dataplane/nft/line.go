package nft

import (
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
// of alternatives does. Lines are not changed once they are in an item.
type line struct {
	alternatives []variant // one, or one for each family that ask the same of it
	outcome      outcome
	comment      string // as the kernel takes it
	prefix       string // of the report
	serial       uint64 // tells lines apart

	// services are the protocols and destination ports that the line can match, as keys of typeByPort. nil: it is not to
	// be cut by port.
	services []string
	// inner is what is left of alternatives to ask of a packet that has one of services.
	inner []variant
	// peer is the only condition of inner on the address of the other end; nil when there is none, or one that a map
	// cannot express. guard is the rest of inner.
	peer      *peer
	guard     variant
	guardName string // equal names, equal guards but for the family

	whole, rest madeRules // of alternatives and of inner, when they were needed last
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
		return "all"
	}
	if !v.implies(test.impliesFamily) {
		v.family = ruleset.AnyFamily
	}
	return match(v).text
}

// A peer is a set of addresses.
type peer struct {
	name    string         // equal names and families, equal addresses
	family  ruleset.Family // any: both
	members *memberSet     // of the Program, or nil
	nets    []netip.Prefix // without members: disjoint
}

// prefixes returns disjoint prefixes that cover the addresses.
func (p *peer) prefixes() []netip.Prefix {
	if p.members == nil {
		return p.nets
	}
	return p.members.prefixes(p.family)
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

// newLine returns the line of one alternative; other is the side of the other end.
func newLine(v variant, o outcome, other side, most int) *line {
	l := &line{alternatives: []variant{v}, outcome: o}
	inner := v
	if services, ok := v.services(most); ok {
		l.services = services
		inner.protos = allProtocols
		inner.tests = leaving(v.tests, staticPort)
	}
	l.inner, l.guard = []variant{inner}, inner
	if at, ok := inner.peer(other); ok && o != report {
		l.peer = peerOf(&inner.tests[at], inner.family)
		l.guard.tests = slices.Concat(inner.tests[:at], inner.tests[at+1:])
		l.guardName = l.guard.name()
	}
	return l
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
	p := &peer{family: f, members: t.members, nets: t.nets}
	if t.members != nil {
		p.name = "@" + string(t.members.id)
		return p
	}
	var names []string
	for _, n := range t.nets {
		names = append(names, n.String())
	}
	p.name = strings.Join(names, ",")
	return p
}

// join makes one line of l and another alternative of its rule, when they differ in the family only, and reports whether
// it did.
func (l *line) join(o *line) bool {
	if l.peer == nil || o.peer == nil || l.peer.members == nil || l.peer.members != o.peer.members || len(l.alternatives) > 1 ||
		l.guardName != o.guardName || !slices.Equal(l.services, o.services) || (l.services == nil) != (o.services == nil) {
		return false
	}
	l.alternatives, l.inner = append(l.alternatives, o.alternatives...), append(l.inner, o.inner...)
	l.peer.family, l.guard.family = ruleset.AnyFamily, ruleset.AnyFamily
	return true
}

// staticPort reports whether t is about destination ports that never change.
func staticPort(t test) bool { return t.port() && t.side == destination }

// services returns the protocols and destination ports that v can match; ok is false when ports do not matter or when
// there are more than most.
func (v variant) services(most int) (keys []string, ok bool) {
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
	keys = []string{}
	for _, protocol := range v.protos.list() {
		for _, r := range ranges {
			for port := int(r.First); port <= int(r.Last); port++ {
				if v.hasPort(uint16(port)) {
					keys = append(keys, serviceKey(protocol, uint16(port)))
				}
			}
		}
	}
	return keys, true
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

// protos returns the protocols that the line can match: all its alternatives can match the same ones, see join.
func (l *line) protos() protocols { return l.alternatives[0].protos }

// decides reports whether no packet goes on to the next line.
func (l *line) decides() bool {
	return l.outcome != report && slices.ContainsFunc(l.alternatives, variant.everything)
}

// A chunk is a run of lines of an item that are cut alike: all by port, with the same outcome, or none.
type chunk struct {
	lines   []*line
	byPort  bool
	outcome outcome   // byPort: of all lines
	protos  protocols // of all lines
	kinds   kinds     // not byPort
	// services are the lines by service, for parts that are cut by port.
	services map[string][]*line
	widest   int     // most services of a line
	places   int     // of lines in lists of services
	reports  []*line // those that tell the log group
	decides  bool    // its last line does
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
	return out
}

func (p *chunk) add(l *line) {
	p.lines = append(p.lines, l)
	p.protos = p.protos.or(l.protos())
	p.decides = l.decides()
	if l.outcome == report {
		p.reports = append(p.reports, l)
	}
	if !p.byPort {
		p.kinds.add(l.outcome, l.protos())
		return
	}
	if p.services == nil {
		p.services = map[string][]*line{}
	}
	p.widest, p.places = max(p.widest, len(l.services)), p.places+len(l.services)
	for _, s := range l.services {
		p.services[s] = append(p.services[s], l)
	}
}

// lastChunk returns a chunk of one line that every packet matches.
func lastChunk(comment string, o outcome, serial uint64) *chunk {
	v := variant{protos: allProtocols}
	l := &line{alternatives: []variant{v}, inner: []variant{v}, guard: v, outcome: o, comment: remark(comment), serial: serial}
	return chunksOf([]*line{l})[0]
}
