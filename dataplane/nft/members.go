package nft

import (
	"maps"
	"net/netip"
	"sort"

	"github.com/gaissmai/bart"

	"margay/ruleset"
)

// A memberSet is a set of the Program and the two sets of the table that hold its members, one per family.
//
// The sets of kind Addrs hold the prefixes that no other member covers, so that intervals are disjoint; the tree knows the
// covered ones too, for when the cover goes.
type memberSet struct {
	id     ruleset.SetID
	kind   ruleset.SetKind
	tree   bart.Lite
	v4, v6 *Set
	// weight is the number of elements of both, rounded up to a power of four.
	weight int
	// entries are the places in maps that depend on the members.
	entries map[*entry]struct{}
}

func newMemberSet(id ruleset.SetID, from *ruleset.Set) *memberSet {
	m := &memberSet{id: id, kind: from.Kind, entries: map[*entry]struct{}{}}
	if from.Kind == ruleset.Addrs {
		m.v4, m.v6 = newSet(addrsName(id, ruleset.IPv4), typeNets4), newSet(addrsName(id, ruleset.IPv6), typeNets6)
	} else {
		m.v4 = newSet(addrPortsName(id, ruleset.IPv4), typeAddrPort4)
		m.v6 = newSet(addrPortsName(id, ruleset.IPv6), typeAddrPort6)
	}
	m.v4.Comment, m.v6.Comment = remark(from.Comment), remark(from.Comment)
	m.fill(from.Members())
	m.weigh()
	return m
}

// fill takes in the members of a new set. They are in order, so what covers a prefix comes before it.
func (m *memberSet) fill(members []ruleset.Member) {
	v4 := sort.Search(len(members), func(i int) bool { return !members[i].Prefix.Addr().Is4() })
	m.v4.Elements, m.v6.Elements = make(map[Element]struct{}, v4), make(map[Element]struct{}, len(members)-v4)
	var widest netip.Prefix
	for _, member := range members {
		p := member.Prefix
		switch {
		case !m.usable(member):
		case m.kind == ruleset.AddrPorts:
			m.setOf(p.Addr()).Elements[Element{Key: addrPortKey(p.Addr(), member.Protocol, member.Port)}] = struct{}{}
		default:
			m.tree.Insert(p)
			if !widest.IsValid() || !widest.Overlaps(p) {
				widest = p
				m.setOf(p.Addr()).Elements[prefixElement(p)] = struct{}{}
			}
		}
	}
}

func (m *memberSet) setOf(a netip.Addr) *Set {
	if a.Is4() {
		return m.v4
	}
	return m.v6
}

// A record remembers which elements of sets were touched, and whether they were there before.
type record map[*Set]map[Element]bool

// put adds an element to a set or takes it away.
func (r record) put(s *Set, e Element, present bool) {
	_, was := s.Elements[e]
	if was == present {
		return
	}
	if r[s] == nil {
		r[s] = map[Element]bool{}
	}
	if _, touched := r[s][e]; !touched {
		r[s][e] = was
	}
	if present {
		s.Elements[e] = struct{}{}
	} else {
		delete(s.Elements, e)
	}
}

// changed returns the elements of a set that went and came.
func (r record) changed(s *Set) (gone, come []Element) {
	for e, was := range r[s] {
		_, is := s.Elements[e]
		switch {
		case is == was:
		case is:
			come = append(come, e)
		default:
			gone = append(gone, e)
		}
	}
	return gone, come
}

// restore returns a set as it was.
func (r record) restore(s *Set) *Set {
	if len(r[s]) == 0 {
		return s
	}
	was := *s
	was.Elements = maps.Clone(s.Elements)
	for e, there := range r[s] {
		if there {
			was.Elements[e] = struct{}{}
		} else {
			delete(was.Elements, e)
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
		for e, was := range elements {
			if _, touched := r[s][e]; !touched {
				r[s][e] = was
			}
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
	return c.record
}

func (m *memberSet) weigh() { m.weight = roundUp(len(m.v4.Elements) + len(m.v6.Elements)) }

// prefixes returns the elements of a set of kind Addrs.
func (m *memberSet) prefixes(f ruleset.Family) []netip.Prefix {
	out := make([]netip.Prefix, 0, len(m.v4.Elements)+len(m.v6.Elements))
	for _, set := range []*Set{m.v4, m.v6} {
		if f == ruleset.AnyFamily || (f == ruleset.IPv4) == (set == m.v4) {
			for e := range set.Elements {
				out = append(out, e.prefix())
			}
		}
	}
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
	if m.kind == ruleset.AddrPorts {
		c.record.put(set, Element{Key: addrPortKey(p.Addr(), member.Protocol, member.Port)}, true)
		return
	}
	if m.tree.Get(p) || m.covered(p) {
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
	if m.kind == ruleset.AddrPorts {
		c.record.put(set, Element{Key: addrPortKey(p.Addr(), member.Protocol, member.Port)}, false)
		return
	}
	if !m.tree.Get(p) {
		return
	}
	m.tree.Delete(p)
	if m.covered(p) {
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

// inside returns the widest members within p, p itself left out.
func (m *memberSet) inside(p netip.Prefix) []netip.Prefix {
	var within []netip.Prefix
	for s := range m.tree.Subnets(p) {
		if s != p {
			within = append(within, s)
		}
	}
	return maximal(within)
}
