package nft

import (
	"maps"
	"net/netip"

	"github.com/gaissmai/bart"

	"margay/ruleset"
)

// A memberSet is a set of the Program and the sets of the table that hold its members, for each family one or two.
//
// Sets of intervals hold the prefixes that no other member of theirs covers, so that intervals are disjoint; the tree knows
// the covered ones too, for when the cover goes.
//
// A change of a set of intervals takes the kernel longer the more there are in it: 10 ms for 50,000. So single addresses of
// a large set have a set of their own, which is hashed; and since they are there whether a prefix covers them or not, no
// address ever moves from one to the other. A rule about a large set asks both. What grows beyond the limit or falls below
// it becomes another memberSet, with sets of other names.
type memberSet struct {
	id     ruleset.SetID
	text   string // what it stands for
	kind   ruleset.SetKind
	tree   bart.Lite
	v4, v6 *Set // large: networks only
	large  bool
	// fixed: the names of sets are for these members. With others it is another set, and rules change with it, see trend.
	fixed bool
	// hosts4 and hosts6 are the single addresses of a large set.
	hosts4, hosts6 *Set
	// weight is the number of elements of v4 and v6, rounded up to a power of four.
	weight int
	// followers are the places in maps that depend on the members.
	followers map[follower]struct{}
	peers     []*peer // one for a family, when it was needed
}

// A follower is told when the members of a set change.
type follower interface {
	// family returns the family of the members that matter.
	family() ruleset.Family
	// change follows a change of members that was made.
	change(t *touch, gone, come []netip.Prefix)
}

// peer returns the members of a family as addresses of the other end.
func (m *memberSet) peer(f ruleset.Family) *peer {
	for _, p := range m.peers {
		if p.family == f {
			return p
		}
	}
	p := &peer{family: f, members: m}
	m.peers = append(m.peers, p)
	return p
}

// newMemberSet returns a set that is large if it has more members than most. If not, it is fixed if it is mixed.
func newMemberSet(id ruleset.SetID, from *ruleset.Set, most int, mixed bool) *memberSet {
	m := &memberSet{id: id, text: from.Comment, kind: from.Kind, followers: map[follower]struct{}{}}
	if mixed {
		id = m.fix(from, most)
	}
	if from.Kind == ruleset.AddrPorts {
		m.v4, m.v6 = newSet(setName("p4", id, from.Comment), typeAddrPort4), newSet(setName("p6", id, from.Comment), typeAddrPort6)
		m.comment()
		for _, member := range from.Members() {
			if m.usable(member) {
				m.setOf(member.Prefix.Addr()).elements[addrPortElement(member)] = struct{}{}
			}
		}
		m.weigh()
		return m
	}
	for _, member := range from.Members() {
		if m.usable(member) {
			m.tree.Insert(member.Prefix)
		}
	}
	v4, v6 := setName("v4", id, from.Comment), setName("v6", id, from.Comment)
	if m.large = m.tree.Size() > most; m.large {
		m.hosts4, m.hosts6 = newSet(below(v4, "hosts"), typeHosts4), newSet(below(v6, "hosts"), typeHosts6)
		v4, v6 = below(v4, "nets"), below(v6, "nets")
	}
	m.v4, m.v6 = newSet(v4, typeNets4), newSet(v6, typeNets6)
	m.comment()
	m.fill()
	return m
}

func (m *memberSet) comment() {
	for _, s := range m.sets() {
		s.Comment = remark(m.text)
	}
}

// sets returns the sets of the table.
func (m *memberSet) sets() []*Set {
	if m.large {
		return []*Set{m.v4, m.v6, m.hosts4, m.hosts6}
	}
	return []*Set{m.v4, m.v6}
}

// fill makes the elements of all that is in the tree.
func (m *memberSet) fill() {
	if !m.large {
		m.v4.elements, m.v6.elements = make(map[Element]struct{}, m.tree.Size4()), make(map[Element]struct{}, m.tree.Size6())
	}
	var widest netip.Prefix
	for p := range m.tree.AllSorted() { // what covers a prefix comes before it
		switch {
		case m.large && p.IsSingleIP():
			m.hostsOf(p.Addr()).elements[hostElement(p.Addr())] = struct{}{}
		case !widest.IsValid() || !widest.Overlaps(p):
			widest = p
			m.setOf(p.Addr()).elements[prefixElement(p)] = struct{}{}
		}
	}
	m.weigh()
}

// reformed reports whether the set is to be another one, large with more members than most.
func (m *memberSet) reformed(most int) bool {
	return m.kind == ruleset.Addrs && m.large != (m.tree.Size() > most)
}

func (m *memberSet) setOf(a netip.Addr) *Set {
	if a.Is4() {
		return m.v4
	}
	return m.v6
}

func (m *memberSet) hostsOf(a netip.Addr) *Set {
	if a.Is4() {
		return m.hosts4
	}
	return m.hosts6
}

// A record remembers which elements of sets were touched, whether they were there before and are now. nil remembers nothing.
type record map[*Set]map[Element]presence

type presence struct{ was, is bool }

// put adds an element to a set that has its own, or takes it away.
func (r record) put(s *Set, e Element, present bool) {
	if hasKey(s.elements, e) == present {
		return
	}
	if r.note(s, e, present); present {
		s.elements[e] = struct{}{}
	} else {
		delete(s.elements, e)
	}
}

// note remembers that an element comes or goes.
func (r record) note(s *Set, e Element, present bool) {
	if r == nil {
		return
	}
	if r[s] == nil {
		r[s] = map[Element]presence{}
	}
	p, touched := r[s][e]
	if !touched {
		p.was = !present
	}
	p.is = present
	r[s][e] = p
}

// changed returns the elements of a set that went and came.
func (r record) changed(s *Set) (gone, come []Element) {
	for e, p := range r[s] {
		switch {
		case p.is == p.was:
		case p.is:
			come = append(come, e)
		default:
			gone = append(gone, e)
		}
	}
	return gone, come
}

// moves reports whether keys of verdict maps came and others went. An address may then be found by another length of prefix
// than before, in another map, and a packet that asks one map before the change and the next after it finds it in neither.
func (r record) moves() bool {
	come, gone := false, false
	for s := range r {
		if !s.Type.verdicts {
			continue
		}
		out, in := r.changed(s)
		keys := map[string]int{}
		for _, e := range out {
			keys[e.Key]--
		}
		for _, e := range in {
			keys[e.Key]++
		}
		for _, n := range keys {
			come, gone = come || n > 0, gone || n < 0
		}
	}
	return come && gone
}

// restore returns a set as it was.
func (r record) restore(s *Set) *Set {
	if len(r[s]) == 0 {
		return s
	}
	was := *s
	was.elements, was.derived = maps.Clone(s.held()), nil
	for e, p := range r[s] {
		if p.was {
			was.elements[e] = struct{}{}
		} else {
			delete(was.elements, e)
		}
	}
	return &was
}

// merge adds what happened after what r has.
func (r record) merge(later record) {
	for s, elements := range later {
		if r[s] == nil {
			r[s] = elements
			continue
		}
		for e, p := range elements {
			if before, touched := r[s][e]; touched {
				p.was = before.was
			}
			r[s][e] = p
		}
	}
}

// A memberChange changes a memberSet and remembers what that means for the elements.
type memberChange struct {
	m      *memberSet
	record record
}

// change applies a delta, as ruleset.Program.Apply does.
func (m *memberSet) change(d *ruleset.SetDelta) record {
	c := memberChange{m, record{}}
	for _, member := range d.Remove {
		c.remove(member)
	}
	for _, member := range d.Add {
		c.add(member)
	}
	m.weigh()
	for _, p := range m.peers {
		p.nets = nil
	}
	return c.record
}

func (m *memberSet) weigh() { m.weight = roundUp(m.v4.len() + m.v6.len()) }

// prefixes returns the elements of a set of kind Addrs, by length.
func (m *memberSet) prefixes(f ruleset.Family) []netip.Prefix {
	out := make([]netip.Prefix, 0, m.v4.len()+m.v6.len())
	for _, set := range []*Set{m.v4, m.v6} {
		if f == ruleset.AnyFamily || (f == ruleset.IPv4) == (set == m.v4) {
			for e := range set.all() {
				out = append(out, e.prefix())
			}
		}
	}
	byLength(out)
	return out
}

// usable reports whether Eval can ever find the member (see ruleset.Member).
func (m *memberSet) usable(member ruleset.Member) bool {
	p := member.Prefix
	if m.kind == ruleset.AddrPorts {
		return p.IsSingleIP() && ruleset.HasPorts(member.Protocol)
	}
	return p.IsValid() && p == p.Masked() && member.Protocol == 0 && member.Port == 0
}

func (c memberChange) add(member ruleset.Member) {
	m, p := c.m, member.Prefix
	if !m.usable(member) {
		return
	}
	set := m.setOf(p.Addr())
	switch {
	case m.kind == ruleset.AddrPorts:
		c.record.put(set, addrPortElement(member), true)
		return
	case m.large && p.IsSingleIP():
		m.tree.Insert(p)
		c.record.put(m.hostsOf(p.Addr()), hostElement(p.Addr()), true)
		return
	case m.tree.Get(p) || m.covered(p):
		m.tree.Insert(p)
		return
	}
	for _, inner := range m.inside(p) {
		c.record.put(set, prefixElement(inner), false)
	}
	m.tree.Insert(p)
	c.record.put(set, prefixElement(p), true)
}

func (c memberChange) remove(member ruleset.Member) {
	m, p := c.m, member.Prefix
	if !m.usable(member) {
		return
	}
	set := m.setOf(p.Addr())
	switch {
	case m.kind == ruleset.AddrPorts:
		c.record.put(set, addrPortElement(member), false)
		return
	case !m.tree.Get(p):
		return
	}
	m.tree.Delete(p)
	switch {
	case m.large && p.IsSingleIP():
		c.record.put(m.hostsOf(p.Addr()), hostElement(p.Addr()), false)
		return
	case m.covered(p):
		return
	}
	c.record.put(set, prefixElement(p), false)
	for _, inner := range m.inside(p) {
		c.record.put(set, prefixElement(inner), true)
	}
}

// covered reports whether a member other than p covers p.
func (m *memberSet) covered(p netip.Prefix) bool {
	for s := range m.tree.Supernets(p) {
		if s != p {
			return true
		}
	}
	return false
}

// inside returns the widest members within p, p itself left out, that are in the same set of intervals.
func (m *memberSet) inside(p netip.Prefix) []netip.Prefix {
	var within []netip.Prefix
	for s := range m.tree.Subnets(p) {
		if s != p && !(m.large && s.IsSingleIP()) {
			within = append(within, s)
		}
	}
	return maximal(within)
}
