package typha

import (
	"time"

	"margay/store"
)

// A crumb is one step of the state: a frame that leads from the state before it to the one after it, and the way to the
// next. All but ready and next is fixed; next may be read after ready is closed.
type crumb struct {
	seq      uint64
	revision store.Revision // after it; "" if the rest of the change is in the next crumb
	lost     error          // why the store cannot be followed after it, nil if it can
	at       time.Time      // when it was made
	events   int
	total    uint64 // bytes of all frames up to and with this one
	frame    []byte

	ready chan struct{} // closed when next is set
	next  *crumb
}

// A trail is the list of crumbs, of which the last ones are held: whoever is at one of these can go on from there. It is
// guarded by the cache's lock.
//
// Invariants: numbers are consecutive; of the crumbs held, no two that complete a change of the state have the same
// revision; tip is the last that is held.
type trail struct {
	generation string
	tip        *crumb
	held       []*crumb // oldest first, never empty
	size       uint64   // bytes of the frames held, the first excepted: nobody needs it again
	maxCount   int
	maxSize    uint64
}

// begin makes the first crumb, the state at a revision.
func (t *trail) begin(generation string, revision store.Revision, now time.Time) {
	t.generation = generation
	t.tip = &crumb{seq: 1, revision: revision, at: now, ready: make(chan struct{})}
	t.held = []*crumb{t.tip}
}

// add puts a crumb at the end and tells those that wait for it. seq, total and ready are set here.
func (t *trail) add(c *crumb) {
	c.seq, c.total, c.ready = t.tip.seq+1, t.tip.total+uint64(len(c.frame)), make(chan struct{})
	before := t.tip
	t.tip = c
	t.held = append(t.held, c)
	t.size += uint64(len(c.frame))
	for len(t.held) > 1 && (len(t.held) > t.maxCount || t.size > t.maxSize) {
		t.drop()
	}
	before.next = c
	close(before.ready)
}

// drop lets go of the oldest crumb.
func (t *trail) drop() {
	t.size -= uint64(len(t.held[1].frame))
	t.held[0] = nil
	t.held = t.held[1:]
}

// renew begins another generation at the tip: nobody can resume from before it.
func (t *trail) renew(generation string) {
	t.generation = generation
	for len(t.held) > 1 {
		t.drop()
	}
}

// at returns the crumb of a number, nil if it is not held.
func (t *trail) at(seq uint64) *crumb {
	first := t.held[0].seq
	if seq < first || seq > t.tip.seq {
		return nil
	}
	return t.held[seq-first]
}

// of returns the last crumb after which the state was at a revision, nil if none is held.
func (t *trail) of(revision store.Revision) *crumb {
	if revision == "" {
		return nil
	}
	for i := len(t.held) - 1; i >= 0; i-- {
		if t.held[i].revision == revision {
			return t.held[i]
		}
	}
	return nil
}
