package ruleset

import (
	"cmp"
	"maps"
	"net/netip"
	"slices"
)

// A SetID names a set. Equal IDs have equal meaning on every host; members differ over time only.
type SetID string

// A SetKind tells what the members of a set are.
type SetKind uint8

// Addrs holds prefixes (Protocol and Port of each member are 0); AddrPorts holds single addresses with a protocol and
// a port, for named ports and services.
const (
	Addrs SetKind = iota
	AddrPorts
)

// A Member is one element of a [Set].
type Member struct {
	Prefix   netip.Prefix // masked; a single address for AddrPorts
	Protocol uint8
	Port     uint16
}

// Compare orders members by family, address, length, protocol and port.
func (m Member) Compare(o Member) int {
	if c := m.Prefix.Addr().Compare(o.Prefix.Addr()); c != 0 {
		return c
	}
	return cmp.Or(cmp.Compare(m.Prefix.Bits(), o.Prefix.Bits()), cmp.Compare(m.Protocol, o.Protocol), cmp.Compare(m.Port, o.Port))
}

// A Set is a set of members. Prefixes may overlap. IPv4 and IPv6 members live in one Set; back ends split them.
type Set struct {
	Kind SetKind
	// Comment tells people what the set stands for: the canonical selector.
	Comment string

	members map[Member]struct{}
	lengths [2][129]int // members per family and prefix length, so that Contains probes only lengths in use
}

// NewSet returns a set with the given members.
func NewSet(kind SetKind, comment string, members ...Member) *Set {
	s := &Set{Kind: kind, Comment: comment, members: make(map[Member]struct{}, len(members))}
	for _, m := range members {
		s.Add(m)
	}
	return s
}

// Add reports whether m was new.
func (s *Set) Add(m Member) bool {
	if _, ok := s.members[m]; ok {
		return false
	}
	if s.members == nil {
		s.members = map[Member]struct{}{}
	}
	s.members[m] = struct{}{}
	s.lengths[familyIndex(m.Prefix.Addr())][m.Prefix.Bits()]++
	return true
}

// Remove reports whether m was there.
func (s *Set) Remove(m Member) bool {
	if _, ok := s.members[m]; !ok {
		return false
	}
	delete(s.members, m)
	s.lengths[familyIndex(m.Prefix.Addr())][m.Prefix.Bits()]--
	return true
}

// Len returns the number of members.
func (s *Set) Len() int { return len(s.members) }

// Members returns the members in order.
func (s *Set) Members() []Member {
	return slices.SortedFunc(maps.Keys(s.members), Member.Compare)
}

// Contains reports whether some member of an Addrs set covers a. It does not allocate.
func (s *Set) Contains(a netip.Addr) bool {
	lengths := &s.lengths[familyIndex(a)]
	for bits := a.BitLen(); bits >= 0; bits-- {
		if lengths[bits] == 0 {
			continue
		}
		p, err := a.Prefix(bits)
		if err != nil {
			return false
		}
		if _, ok := s.members[Member{Prefix: p}]; ok {
			return true
		}
	}
	return false
}

// ContainsPort reports whether an AddrPorts set holds the address with this protocol and port.
func (s *Set) ContainsPort(a netip.Addr, protocol uint8, port uint16) bool {
	_, ok := s.members[Member{netip.PrefixFrom(a, a.BitLen()), protocol, port}]
	return ok
}

// Clone returns a copy that shares nothing with s.
func (s *Set) Clone() *Set {
	c := *s
	c.members = maps.Clone(s.members)
	return &c
}

func familyIndex(a netip.Addr) int {
	if a.Is4() {
		return 0
	}
	return 1
}
