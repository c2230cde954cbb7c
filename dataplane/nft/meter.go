package nft

import (
	"bytes"
	"context"
	"encoding/binary"
	"hash/maphash"

	"golang.org/x/sys/unix"

	"margay/ruleset"
)

// A Meter adds up what rules count, by policy, direction and action: for all endpoints and rules of it together. Other than
// Counters it does so also when rules are replaced. What a rule counted between the last reading and its replacement is
// lost. Methods are for one goroutine.
//
// It is read again and again while there may be tens of thousands of elements, so it keeps nothing of those that counted
// nothing and makes nothing for an element.
type Meter struct {
	options Options
	table   uint64 // handle of the table that last is about
	seed    maphash.Seed
	last    map[uint64]tally // of rules and elements that counted something, by the hash of their identity
	sums    *sums
}

type tally struct{ packets, bytes uint64 }

// NewMeter returns a Meter that begins with what the kernel has counted.
func NewMeter(o Options) *Meter {
	return &Meter{options: o, seed: maphash.MakeSeed(), last: map[uint64]tally{}, sums: newSums()}
}

// maxGone bounds how many counters of what is not programmed any more are kept.
const maxGone = 1000

// Read returns the counters, each of which never decreases, without endpoint and index of the rule. What is not programmed any
// more stays as it was, unless there is too much of that: then all of it is forgotten.
func (m *Meter) Read(ctx context.Context) ([]ruleset.Counter, error) {
	var r *reading
	err := consistently(ctx, m.options, func(c *conn) (err error) {
		r, err = m.read(c)
		return err
	})
	if err != nil {
		return nil, err
	}
	m.table, m.last = r.view.handle, r.now
	for i, t := range r.grown {
		m.sums.all[i].Packets += t.packets
		m.sums.all[i].Bytes += t.bytes
	}
	if len(m.sums.all) > len(r.grown)+maxGone {
		m.sums = m.sums.only(r.grown)
	}
	return m.sums.list(), nil
}

// only returns the sums that have a place among grown.
func (s *sums) only(grown map[int]tally) *sums {
	kept := newSums()
	for i, c := range s.all {
		if _, ok := grown[i]; ok {
			kept.add(c.Subject(), c.Packets, c.Bytes)
		}
	}
	return kept
}

// A reading is what the kernel has counted at one moment.
type reading struct {
	meter    *Meter
	view     *view
	last     map[uint64]tally
	now      map[uint64]tally
	grown    map[int]tally  // what is there, by its place in the sums, and what came to it
	subjects map[string]int // the same places by what rules and elements say
	key      []byte         // scratch
}

func (m *Meter) read(c *conn) (*reading, error) {
	v, err := c.frame()
	if err != nil {
		return nil, err
	}
	r := &reading{meter: m, view: v, last: m.last, now: map[uint64]tally{}, grown: map[int]tally{}, subjects: map[string]int{}}
	if v.handle != m.table {
		r.last = nil // another table: handles begin anew
	}
	handles, err := c.countedMaps(v)
	if err != nil {
		return nil, err
	}
	places := map[string][]ruleset.Counter{} // of the rules that ask a map
	v.walk(func(at *ruleset.Counter, rule *viewRule) {
		if rule.counts && !rule.silent(at) {
			grown := r.grow(rule.handle, nil, tally{rule.packets, rule.bytes})
			r.add(m.sums.at(broad(rule.subject(*at))), grown)
		}
		if _, counts := handles[rule.lookup]; counts {
			places[rule.lookup] = append(places[rule.lookup], *at)
		}
	})
	for name, at := range places {
		if err := c.eachElement(name, func(e []byte) { r.element(handles[name], e, at) }); err != nil {
			return nil, err
		}
	}
	return r, nil
}

// broad returns a subject without what a Meter does not tell apart.
func broad(c ruleset.Counter) ruleset.Counter {
	c.Endpoint, c.Rule = ruleset.EndpointID{}, 0
	return c
}

// grow returns what came to a rule, or to the element of a map with a key, since the last reading.
func (r *reading) grow(handle uint64, key []byte, is tally) tally {
	if is == (tally{}) {
		return is
	}
	r.key = append(binary.NativeEndian.AppendUint64(r.key[:0], handle), key...)
	id := maphash.Bytes(r.meter.seed, r.key)
	was := r.last[id]
	r.now[id] = is
	if is.packets < was.packets || is.bytes < was.bytes {
		was = tally{} // somebody reset the counter
	}
	return tally{is.packets - was.packets, is.bytes - was.bytes}
}

func (r *reading) add(i int, grown tally) {
	t := r.grown[i]
	r.grown[i] = tally{t.packets + grown.packets, t.bytes + grown.bytes}
}

// element takes in an element of a map that is asked at some places.
func (r *reading) element(handle uint64, b []byte, places []ruleset.Counter) {
	var e viewRule
	var key, comment, verdict []byte
	for typ, data := range attributes(b) {
		switch typ {
		case unix.NFTA_SET_ELEM_KEY:
			key = data
		case unix.NFTA_SET_ELEM_USERDATA:
			comment = untilZero(data[min(2, len(data)):])
		case unix.NFTA_SET_ELEM_EXPR:
			e.read(data)
		case unix.NFTA_SET_ELEM_DATA:
			verdict = data
		}
	}
	grown := r.grow(handle, key, tally{e.packets, e.bytes})
	for i := range places {
		if len(comment) == 0 && places[i].Staged {
			continue // see silent
		}
		r.key = append(withoutIndex(append(r.key[:0], byte(i), byte(i>>8)), comment), verdict...)
		at, known := r.subjects[string(r.key)]
		if !known {
			whole := r.view.countedElement(handle, b)
			at = r.meter.sums.at(broad(whole.subject(places[i])))
			r.subjects[string(r.key)] = at
		}
		r.add(at, grown)
	}
}

// withoutIndex appends a comment, that of a rule of a policy without the index.
func withoutIndex(to, comment []byte) []byte {
	before, after, found := bytes.Cut(comment, []byte(" by rule "))
	if _, id, ok := bytes.Cut(after, []byte(" of ")); found && ok {
		comment = id
		to = append(to, before...)
		to = append(to, 0)
	}
	return append(to, comment...)
}
