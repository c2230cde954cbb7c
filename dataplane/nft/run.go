package nft

import (
	"net/netip"
	"slices"

	"margay/ruleset"
)

// A run is an ordered list of lines of which the first that matches decides. Most have one line, in stages with rules for
// very many ports, and keep nothing else: the elements are its addresses.
type run struct {
	group *group
	key   service
	exits *exits
	only  *line  // the line, when there is no order
	order *order // of several lines, or what once were
}

// A saying is what elements say that stand for a line.
type saying struct {
	verdict verdict
	comment string
}

func (r *run) says(l *line) saying { return saying{r.exits.verdict(l.outcome), l.comment} }

// element returns the element of a prefix.
func (r *run) element(p netip.Prefix, s saying) Element {
	var room [24]byte
	key := room[:0]
	if a := p.Addr(); a.Is4() {
		b := a.As4()
		key = append(key, b[:]...)
	} else {
		b := a.As16()
		key = append(key, b[:]...)
	}
	if r.group.keyed {
		key = r.key.append(key)
	}
	return Element{Key: string(key), Verdict: s.verdict, Comment: s.comment}
}

// elements yields the elements whose prefixes have a length, until one is enough; then it returns false.
func (r *run) elements(l prefixLength, yield func(Element) bool) bool {
	if r.order != nil {
		return r.order.elements(l, yield)
	}
	if r.only == nil {
		return true
	}
	says := r.says(r.only)
	for _, p := range r.only.peer.ofLength(l) {
		if !yield(r.element(p, says)) {
			return false
		}
	}
	return true
}

// update compares the lines with those of before and does what is different.
func (r *run) update(t *touch, lines []*line) {
	if r.order == nil && len(lines) < 2 {
		var is *line
		if len(lines) == 1 {
			is = lines[0]
		}
		r.replace(t, is)
		return
	}
	if r.order == nil {
		r.expand()
	}
	r.order.update(t, lines)
}

// replace puts a line in the place of the only one; nil is none.
func (r *run) replace(t *touch, l *line) {
	was, before := r.only, saying{}
	if was != nil {
		before = r.says(was)
	}
	r.exits = r.group.exits
	switch {
	case was == nil && l == nil:
	case was != nil && l != nil && keyOf(was.peer) == keyOf(l.peer) && r.says(l) == before:
		r.only = l
	default:
		r.put(t, was, before, false)
		r.follow(false)
		r.only = l
		if l != nil {
			r.put(t, l, r.says(l), true)
		}
		r.follow(true)
	}
}

// put puts the elements of a line, or takes them away.
func (r *run) put(t *touch, l *line, says saying, present bool) {
	if l == nil {
		return
	}
	for _, p := range l.peer.prefixes() {
		r.group.put(t, p, func() Element { return r.element(p, says) }, present)
	}
}

// follow makes the members that are the addresses of the only line known to the run, or forgets them.
func (r *run) follow(begin bool) {
	if r.only == nil {
		return
	}
	r.only.peer.follow(r, begin)
}

func (r *run) family() ruleset.Family { return r.only.peer.family }

// change follows a change of members.
func (r *run) change(t *touch, gone, come []netip.Prefix) {
	says := r.says(r.only)
	for _, p := range gone {
		r.group.put(t, p, func() Element { return r.element(p, says) }, false)
	}
	for _, p := range come {
		r.group.put(t, p, func() Element { return r.element(p, says) }, true)
	}
}

// expand makes an order of what there is.
func (r *run) expand() {
	r.order = &order{run: r, exits: r.exits}
	if r.only == nil {
		return
	}
	r.follow(false)
	o := r.order
	says := r.says(r.only)
	e := o.entry(r.only.peer)
	s := &slot{r.only, 0, e}
	e.slots, e.says, o.slots = []*slot{s}, &says, []*slot{s}
	for _, p := range e.peer.prefixes() {
		o.cells.Insert(p, &cell{entries: []*entry{e}, says: &says})
	}
	e.enlist()
	r.only = nil
}

// dissolve gives up what the run holds elsewhere.
func (r *run) dissolve() {
	r.follow(false)
	if r.order == nil {
		return
	}
	for _, e := range r.order.entries.all() {
		e.delist()
	}
}

// follow tells the set of the Program, if the addresses are its members, whether a follower is to hear of changes.
func (p *peer) follow(f follower, begin bool) {
	switch {
	case p.members == nil:
	case begin:
		p.members.followers[f] = struct{}{}
	default:
		delete(p.members.followers, f)
	}
}

// An order is the lines of a run that has several, with the addresses for which each is the first.
type order struct {
	run     *run
	exits   *exits
	slots   []*slot
	entries entryList
	cells   cells
}

// A slot is the place of a line in an order.
type slot struct {
	line  *line
	rank  int
	entry *entry
}

// An entry is the lines of an order with the same addresses, of which the first counts.
type entry struct {
	order   *order
	peer    *peer
	slots   []*slot // in order
	says    *saying // of the first
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
	says    *saying // what its element says; nil: there is none
}

// elements does what run.elements does.
func (r *order) elements(l prefixLength, yield func(Element) bool) bool {
	var list []Element
	for p, c := range r.cells.All() {
		if lengthOf(p) == l && c.says != nil {
			list = append(list, r.run.element(p, *c.says))
		}
	}
	slices.SortFunc(list, Element.compare)
	for _, e := range list {
		if !yield(e) {
			return false
		}
	}
	return true
}

// update compares the lines with those of before and does what is different.
func (r *order) update(t *touch, lines []*line) {
	changed := map[*entry]struct{}{}
	if is := r.run.group.exits; *r.exits != *is {
		r.exits, r.run.exits = is, is
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
	r.follow(t, changed)
}

func (r *order) entry(p *peer) *entry {
	e := r.entries.get(keyOf(p))
	if e == nil {
		e = &entry{order: r, peer: p}
		r.entries.add(e)
	}
	return e
}

// follow puts right what changed entries mean for elements.
func (r *order) follow(t *touch, changed map[*entry]struct{}) {
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
		if says := r.run.says(e.slots[0].line); e.says == nil || *e.says != says {
			e.says = &says
		}
		mark(touched, prefixes)
	}
	r.settle(t, touched)
}

// enlist and delist make the members of a set of the Program known to the entry.
func (e *entry) enlist() {
	e.entered = true
	e.peer.follow(e, true)
}

func (e *entry) delist() {
	e.entered = false
	e.peer.follow(e, false)
}

func (e *entry) family() ruleset.Family { return e.peer.family }

// change follows a change of members.
func (e *entry) change(t *touch, gone, come []netip.Prefix) {
	touched := map[netip.Prefix]struct{}{}
	e.order.leave(e, gone, touched)
	e.order.enter(e, come, touched)
	e.order.settle(t, touched)
}

func (r *order) enter(e *entry, prefixes []netip.Prefix, touched map[netip.Prefix]struct{}) {
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

func (r *order) leave(e *entry, prefixes []netip.Prefix, touched map[netip.Prefix]struct{}) {
	for _, p := range prefixes {
		if c, ok := r.cells.Get(p); ok {
			c.entries = slices.DeleteFunc(c.entries, func(o *entry) bool { return o == e })
		}
	}
	mark(touched, prefixes)
}

// settle puts the elements right of all cells that touched prefixes cover.
func (r *order) settle(t *touch, touched map[netip.Prefix]struct{}) {
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
func (r *order) point(t *touch, p netip.Prefix, c *cell) {
	var is *saying
	if len(c.entries) > 0 {
		var first *entry
		for _, wider := range r.cells.Supernets(p) {
			for _, e := range wider.entries {
				if first == nil || e.rank() < first.rank() {
					first = e
				}
			}
		}
		is = first.says
	} else {
		r.cells.Delete(p)
	}
	was := c.says
	c.says = is
	switch {
	case is == was || is != nil && was != nil && *is == *was:
		return
	case was != nil:
		r.run.group.put(t, p, func() Element { return r.run.element(p, *was) }, false)
	}
	if is != nil {
		r.run.group.put(t, p, func() Element { return r.run.element(p, *is) }, true)
	}
}
