package nft

import (
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
	kindOf ruleset.SetKind
	tree   bart.Lite
	v4, v6 *Set
}

func newMemberSet(id ruleset.SetID, from *ruleset.Set) *memberSet {
	m := &memberSet{kindOf: from.Kind}
	if from.Kind == ruleset.Addrs {
		m.v4, m.v6 = newSet(addrsName(id, ruleset.IPv4), typeNets4), newSet(addrsName(id, ruleset.IPv6), typeNets6)
	} else {
		m.v4 = newSet(addrPortsName(id, ruleset.IPv4), typeAddrPort4)
		m.v6 = newSet(addrPortsName(id, ruleset.IPv6), typeAddrPort6)
	}
	m.v4.Comment, m.v6.Comment = remark(from.Comment), remark(from.Comment)
	m.fill(from.Members())
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
		case m.kindOf == ruleset.AddrPorts:
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

// A setElement is an element of one of the two sets.
type setElement struct {
	set *Set
	Element
}

// A memberChange changes a memberSet and remembers what that means for the elements.
type memberChange struct {
	m   *memberSet
	was map[setElement]bool // the elements touched: whether they were there before
}

// change applies a delta, as ruleset.Program.Apply does, and returns the elements that went and came.
func (m *memberSet) change(d *ruleset.SetDelta) []Change {
	c := memberChange{m: m, was: map[setElement]bool{}}
	for _, member := range d.Remove {
		c.remove(member)
	}
	for _, member := range d.Add {
		c.add(member)
	}
	var out []Change
	for _, set := range []*Set{m.v4, m.v6} {
		var gone, come []Element
		for e, was := range c.was {
			_, is := set.Elements[e.Element]
			switch {
			case e.set != set || is == was:
			case is:
				come = append(come, e.Element)
			default:
				gone = append(gone, e.Element)
			}
		}
		out = append(out, elementChanges(set, gone, come)...)
	}
	return out
}

func (c memberChange) put(s *Set, e Element, present bool) {
	_, was := s.Elements[e]
	if _, touched := c.was[setElement{s, e}]; !touched {
		c.was[setElement{s, e}] = was
	}
	if present {
		s.Elements[e] = struct{}{}
	} else {
		delete(s.Elements, e)
	}
}

// usable reports whether Eval can ever find the member (see ruleset.Member).
func (m *memberSet) usable(member ruleset.Member) bool {
	p := member.Prefix
	if m.kindOf == ruleset.AddrPorts {
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
	if m.kindOf == ruleset.AddrPorts {
		c.put(set, Element{Key: addrPortKey(p.Addr(), member.Protocol, member.Port)}, true)
		return
	}
	if m.tree.Get(p) || m.covered(p) {
		m.tree.Insert(p)
		return
	}
	for _, inner := range m.inside(p) {
		c.put(set, prefixElement(inner), false)
	}
	m.tree.Insert(p)
	c.put(set, prefixElement(p), true)
}

func (c memberChange) remove(member ruleset.Member) {
	m, p := c.m, member.Prefix
	if !m.usable(member) {
		return
	}
	set := m.setOf(p.Addr())
	if m.kindOf == ruleset.AddrPorts {
		c.put(set, Element{Key: addrPortKey(p.Addr(), member.Protocol, member.Port)}, false)
		return
	}
	if !m.tree.Get(p) {
		return
	}
	m.tree.Delete(p)
	if m.covered(p) {
		return
	}
	c.put(set, prefixElement(p), false)
	for _, inner := range m.inside(p) {
		c.put(set, prefixElement(inner), true)
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
