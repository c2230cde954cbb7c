package nft

import (
	"iter"
	"maps"
	"net/netip"
	"slices"

	"github.com/gaissmai/bart"
)

// cells are the cells of a run by prefix. Most runs have a few, of which a list takes a fraction of what a tree does.
type cells struct {
	few  []prefixCell
	many *bart.Table[*cell] // all of them, once there were more than fewCells
}

type prefixCell struct {
	prefix netip.Prefix
	cell   *cell
}

const fewCells = 16

// Get, Insert, Delete, All, Subnets and Supernets do what those of a tree do.
func (s *cells) Get(p netip.Prefix) (*cell, bool) {
	if s.many != nil {
		return s.many.Get(p)
	}
	for _, e := range s.few {
		if e.prefix == p {
			return e.cell, true
		}
	}
	return nil, false
}

// Insert adds the cell of a prefix that has none.
func (s *cells) Insert(p netip.Prefix, c *cell) {
	if s.many == nil && len(s.few) < fewCells {
		s.few = append(s.few, prefixCell{p, c})
		return
	}
	if s.many == nil {
		s.many = &bart.Table[*cell]{}
		for _, e := range s.few {
			s.many.Insert(e.prefix, e.cell)
		}
		s.few = nil
	}
	s.many.Insert(p, c)
}

// Delete takes away the cell of a prefix.
func (s *cells) Delete(p netip.Prefix) {
	if s.many != nil {
		s.many.Delete(p)
		return
	}
	s.few = slices.DeleteFunc(s.few, func(e prefixCell) bool { return e.prefix == p })
}

// All yields all cells.
func (s *cells) All() iter.Seq2[netip.Prefix, *cell] {
	if s.many != nil {
		return s.many.All()
	}
	return s.some(func(netip.Prefix) bool { return true })
}

// Subnets yields the cells whose prefixes p covers, p's own included. They must not be changed meanwhile.
func (s *cells) Subnets(p netip.Prefix) iter.Seq2[netip.Prefix, *cell] {
	if s.many != nil {
		return s.many.Subnets(p)
	}
	return s.some(func(q netip.Prefix) bool { return p.Bits() <= q.Bits() && p.Contains(q.Addr()) })
}

// Supernets yields the cells whose prefixes cover p, p's own included.
func (s *cells) Supernets(p netip.Prefix) iter.Seq2[netip.Prefix, *cell] {
	if s.many != nil {
		return s.many.Supernets(p)
	}
	return s.some(func(q netip.Prefix) bool { return q.Bits() <= p.Bits() && q.Contains(p.Addr()) })
}

func (s *cells) some(matches func(netip.Prefix) bool) iter.Seq2[netip.Prefix, *cell] {
	return func(yield func(netip.Prefix, *cell) bool) {
		for _, e := range s.few {
			if matches(e.prefix) && !yield(e.prefix, e.cell) {
				return
			}
		}
	}
}

// entryList are the entries of a run by what they are about, kept as cells are.
type entryList struct {
	few  []*entry
	many map[entryKey]*entry
}

const fewEntries = 8

// get returns nil if there is none.
func (l *entryList) get(k entryKey) *entry {
	if l.many != nil {
		return l.many[k]
	}
	for _, e := range l.few {
		if keyOf(e.peer) == k {
			return e
		}
	}
	return nil
}

func (l *entryList) add(e *entry) {
	if l.many == nil && len(l.few) < fewEntries {
		l.few = append(l.few, e)
		return
	}
	if l.many == nil {
		l.many = map[entryKey]*entry{}
		for _, o := range l.few {
			l.many[keyOf(o.peer)] = o
		}
		l.few = nil
	}
	l.many[keyOf(e.peer)] = e
}

func (l *entryList) remove(e *entry) {
	if l.many != nil {
		delete(l.many, keyOf(e.peer))
		return
	}
	l.few = slices.DeleteFunc(l.few, func(o *entry) bool { return o == e })
}

func (l *entryList) all() []*entry {
	return slices.AppendSeq(slices.Clone(l.few), maps.Values(l.many))
}
