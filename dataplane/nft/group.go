package nft

import (
	"cmp"
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
	runs    map[string]*run // by key; "" when the group is not keyed
	maps    map[prefixLength]*Set
}

// A prefixLength is a length of prefixes of one family.
type prefixLength struct {
	family ruleset.Family
	bits   int
}

func lengthOf(p netip.Prefix) prefixLength { return prefixLength{ruleset.FamilyOf(p.Addr()), p.Bits()} }

// lengths returns those in use, in the order in which they are asked.
func (g *group) lengths() []prefixLength {
	var out []prefixLength
	for l, set := range g.maps {
		if len(set.Elements) > 0 {
			out = append(out, l)
		}
	}
	slices.SortFunc(out, func(a, b prefixLength) int { return cmp.Or(cmp.Compare(a.family, b.family), b.bits-a.bits) })
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
	g.maps[l] = set
	return set
}

// update makes the group look up the lines given for each of some keys, in this order; other keys keep theirs.
func (g *group) update(b *stageBuilder, lists map[string][]*line, keys map[string]struct{}) {
	for key := range keys {
		r := g.runs[key]
		if r == nil {
			if len(lists[key]) == 0 {
				continue
			}
			r = &run{group: g, key: key}
			g.runs[key] = r
		}
		if r.update(b, lists[key]); len(lists[key]) == 0 {
			delete(g.runs, key)
		}
	}
}

// dissolve gives up what the group holds elsewhere. Its maps go with the rules that name them.
func (g *group) dissolve() {
	for _, r := range g.runs {
		for _, e := range r.entries.all() {
			e.delist()
		}
	}
}

// A run is an ordered list of lines of which the first that matches decides.
type run struct {
	group   *group
	key     string
	exits   exits
	slots   []*slot
	entries entryList
	cells   cells
}

// A slot is the place of a line in a run.
type slot struct {
	line  *line
	rank  int
	entry *entry
}

// An entry is the lines of a run with the same addresses, of which the first counts.
type entry struct {
	run     *run
	peer    *peer
	slots   []*slot // in order
	verdict verdict // of the first
	entered bool    // in the cells of its prefixes
}

type entryKey struct {
	name    string
	family  ruleset.Family
	members *memberSet
}

func keyOf(p *peer) entryKey { return entryKey{p.name, p.family, p.members} }

func (e *entry) rank() int { return e.slots[0].rank }

// A cell is a prefix of some entries.
type cell struct {
	entries []*entry
	element Element // zero: there is none
}

// update compares the lines with those of before and does what is different.
func (r *run) update(b *stageBuilder, lines []*line) {
	changed := map[*entry]struct{}{}
	if r.exits != b.exits {
		r.exits = b.exits
		for _, s := range r.slots {
			changed[s.entry] = struct{}{}
		}
	}
	head, tail := 0, 0
	for head < len(r.slots) && head < len(lines) && r.slots[head].line == lines[head] {
		head++
	}
	for tail < len(r.slots)-head && tail < len(lines)-head && r.slots[len(r.slots)-1-tail].line == lines[len(lines)-1-tail] {
		tail++
	}
	end := len(r.slots) - tail
	for _, s := range r.slots[head:end] {
		s.entry.slots = slices.DeleteFunc(s.entry.slots, func(o *slot) bool { return o == s })
		changed[s.entry] = struct{}{}
	}
	for _, s := range r.slots[end:] {
		s.rank += len(lines) - len(r.slots)
	}
	fresh := make([]*slot, len(lines)-tail-head)
	for i, l := range lines[head : len(lines)-tail] {
		s := &slot{l, head + i, r.entry(l.peer)}
		at, _ := slices.BinarySearchFunc(s.entry.slots, s.rank, func(o *slot, rank int) int { return o.rank - rank })
		s.entry.slots = slices.Insert(s.entry.slots, at, s)
		fresh[i], changed[s.entry] = s, struct{}{}
	}
	r.slots = slices.Replace(r.slots, head, end, fresh...)
	r.follow(b, changed)
}

func (r *run) entry(p *peer) *entry {
	e := r.entries.get(keyOf(p))
	if e == nil {
		e = &entry{run: r, peer: p}
		r.entries.add(e)
	}
	return e
}

// follow puts right what changed entries mean for elements.
func (r *run) follow(b *stageBuilder, changed map[*entry]struct{}) {
	touched := map[netip.Prefix]struct{}{}
	for e := range changed {
		prefixes := e.peer.prefixes()
		switch {
		case len(e.slots) == 0:
			if r.entries.remove(e); e.entered {
				r.leave(e, prefixes, touched)
				e.delist()
			}
			continue
		case !e.entered:
			r.enter(e, prefixes, touched)
			e.enlist()
		}
		e.verdict = b.verdict(e.slots[0].line)
		mark(touched, prefixes)
	}
	r.settle(b.touch, touched)
}

// enlist and delist make the members of a set of the Program known to the entry.
func (e *entry) enlist() {
	if e.entered = true; e.peer.members != nil {
		e.peer.members.entries[e] = struct{}{}
	}
}

func (e *entry) delist() {
	if e.entered = false; e.peer.members != nil {
		delete(e.peer.members.entries, e)
	}
}

// change follows a change of members.
func (e *entry) change(t *touch, gone, come []netip.Prefix) {
	touched := map[netip.Prefix]struct{}{}
	e.run.leave(e, gone, touched)
	e.run.enter(e, come, touched)
	e.run.settle(t, touched)
}

func (r *run) enter(e *entry, prefixes []netip.Prefix, touched map[netip.Prefix]struct{}) {
	for _, p := range prefixes {
		c, ok := r.cells.Get(p)
		if !ok {
			c = &cell{}
			r.cells.Insert(p, c)
		}
		c.entries = append(c.entries, e)
	}
	mark(touched, prefixes)
}

func (r *run) leave(e *entry, prefixes []netip.Prefix, touched map[netip.Prefix]struct{}) {
	for _, p := range prefixes {
		if c, ok := r.cells.Get(p); ok {
			c.entries = slices.DeleteFunc(c.entries, func(o *entry) bool { return o == e })
		}
	}
	mark(touched, prefixes)
}

// settle puts the elements right of all cells that touched prefixes cover.
func (r *run) settle(t *touch, touched map[netip.Prefix]struct{}) {
	for p := range touched {
		if p.IsSingleIP() {
			if c, ok := r.cells.Get(p); ok {
				r.point(t, p, c)
			}
			continue
		}
		covered := map[netip.Prefix]*cell{} // the table must not change while it is walked
		for q, c := range r.cells.Subnets(p) {
			if _, itself := touched[q]; q == p || !itself {
				covered[q] = c
			}
		}
		for q, c := range covered {
			r.point(t, q, c)
		}
	}
}

// point makes the element of a cell say what the first of all lines says that match its addresses.
func (r *run) point(t *touch, p netip.Prefix, c *cell) {
	var is Element
	if len(c.entries) > 0 {
		var first *entry
		for _, wider := range r.cells.Supernets(p) {
			for _, e := range wider.entries {
				if first == nil || e.rank() < first.rank() {
					first = e
				}
			}
		}
		is = Element{Key: string(p.Addr().AsSlice()) + r.key, Verdict: first.verdict,
			Comment: first.slots[0].line.comment}
	} else {
		r.cells.Delete(p)
	}
	if is == c.element {
		return
	}
	set := r.group.mapFor(lengthOf(p))
	was := len(set.Elements)
	if c.element != (Element{}) {
		t.record.put(set, c.element, false)
	}
	if is != (Element{}) {
		t.record.put(set, is, true)
	}
	if (was == 0) != (len(set.Elements) == 0) {
		t.remapped[r.group.unit] = struct{}{}
	}
	c.element = is
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
