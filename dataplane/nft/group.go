package nft

import (
	"cmp"
	"iter"
	"maps"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"margay/ruleset"
)

// A group is a number of lines that differ in the addresses of the other end only, laid out as maps from addresses to the
// verdict of the first line that matches. Addresses are hashed, in a map for each length of prefix; the longest is asked
// first and knows the first match among all prefixes that cover it. So the look-ups that a packet takes depend on how many
// different lengths there are, not on how many lines; and a member that comes or goes changes an element or a few.
//
// The lines of one run have the same guard. In a keyed group a run has a service for its key, and elements hold address,
// protocol and port: all classes of a stage share the maps.
type group struct {
	unit    *unit
	name    string // of the maps, to which the length of their prefixes is appended
	peer    side
	comment string // of the maps
	keyed   bool
	exits   *exits           // of the runs that were made last
	runs    map[service]*run // by key; 0 when the group is not keyed
	maps    map[prefixLength]*Set
}

// A prefixLength is a length of prefixes of one family.
type prefixLength struct {
	family ruleset.Family
	bits   int
}

func lengthOf(p netip.Prefix) prefixLength { return prefixLength{ruleset.FamilyOf(p.Addr()), p.Bits()} }

// compare orders lengths as they are asked.
func (l prefixLength) compare(o prefixLength) int {
	return cmp.Or(cmp.Compare(l.family, o.family), o.bits-l.bits)
}

// A groupMap is the elements of a map of a group.
type groupMap struct {
	group  *group
	length prefixLength
	count  int
}

func (m *groupMap) len() int { return m.count }

// all yields the elements in an order that depends on the content only.
func (m *groupMap) all() iter.Seq[Element] {
	return func(yield func(Element) bool) {
		for _, key := range slices.Sorted(maps.Keys(m.group.runs)) {
			if !m.group.runs[key].elements(m.length, yield) {
				return
			}
		}
	}
}

// lengths returns those in use, in the order in which they are asked.
func (g *group) lengths() []prefixLength {
	var out []prefixLength
	for l, set := range g.maps {
		if set.len() > 0 {
			out = append(out, l)
		}
	}
	slices.SortFunc(out, prefixLength.compare)
	return out
}

// rules returns the rules that look a packet up.
func (g *group) rules(guard variant) []*Rule {
	var rules []*Rule
	for _, l := range g.lengths() {
		set := g.maps[l]
		var c condition
		if guard.bare() {
			c.family(l.family)
		} else {
			guard.family = l.family
			c = match(guard)
		}
		key := g.peer.addr(l.family)
		c.code = g.peer.loadAddr(c.code, l.family)
		if mask := l.mask(); mask != nil {
			addr, _ := netip.AddrFromSlice(mask)
			key += " & " + addr.String()
			c.code = c.code.mask(mask)
		}
		if g.keyed {
			key += " . meta l4proto . th dport"
			c.code = loadService(c.code, l.family, destination)
		}
		rules = append(rules, rule(c.text+key+" vmap @"+set.Name, "", c.code.vmap(set.Name), append(c.uses, set)...))
	}
	return rules
}

// mask returns the mask of the length, or nil for whole addresses.
func (l prefixLength) mask() []byte {
	size := 32
	if l.family == ruleset.IPv6 {
		size = 128
	}
	if l.bits == size {
		return nil
	}
	mask := make([]byte, size/8)
	for i := range l.bits {
		mask[i/8] |= 0x80 >> (i % 8)
	}
	return mask
}

// mapFor returns the map for a length. A map without elements is not in the table.
func (g *group) mapFor(l prefixLength) *Set {
	if set := g.maps[l]; set != nil {
		return set
	}
	var typ *SetType
	switch {
	case l.family == ruleset.IPv4 && g.keyed:
		typ = typeByPeer4
	case l.family == ruleset.IPv4:
		typ = typeByAddr4
	case g.keyed:
		typ = typeByPeer6
	default:
		typ = typeByAddr6
	}
	set := newSet(below(g.name, strings.ReplaceAll(g.peer.addr(l.family), " ", "/"), strconv.Itoa(l.bits)), typ)
	set.Comment, set.Counted = g.comment, true
	set.derived = &groupMap{group: g, length: l}
	g.maps[l] = set
	return set
}

// update makes the group look up the lines given for each of some keys, in this order; other keys keep theirs.
func (g *group) update(b *stageBuilder, lists map[service][]*line, keys map[service]struct{}) {
	if g.exits == nil || *g.exits != b.exits {
		x := b.exits
		g.exits = &x
	}
	if len(g.runs) == 0 {
		g.runs = make(map[service]*run, len(lists))
	}
	for key := range keys {
		r := g.runs[key]
		if r == nil {
			if len(lists[key]) == 0 {
				continue
			}
			r = &run{group: g, key: key, exits: g.exits}
			g.runs[key] = r
		}
		if r.update(b.touch, lists[key]); len(lists[key]) == 0 {
			delete(g.runs, key)
		}
	}
}

// put adds the element of a prefix to the map of its length or takes it away, which the caller's state says, too.
func (g *group) put(t *touch, p netip.Prefix, e func() Element, present bool) {
	set := g.mapFor(lengthOf(p))
	m := set.derived.(*groupMap)
	was := m.count
	if m.count += 2*oneIf(present) - 1; (was == 0) != (m.count == 0) {
		t.remapped[g.unit] = struct{}{}
	}
	if t.record != nil {
		t.record.note(set, e(), present)
	}
}

// dissolve gives up what the group holds elsewhere. Its maps go with the rules that name them.
func (g *group) dissolve() {
	for _, r := range g.runs {
		r.dissolve()
	}
}

// below returns the name of what belongs to a named thing.
func below(name string, parts ...string) string {
	full := name + "/" + strings.Join(parts, "/")
	if len(full) <= maxName {
		return full
	}
	hash := "." + digest(full)
	return full[:maxName-len(hash)] + hash
}
