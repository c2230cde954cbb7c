package store

import (
	"cmp"
	"context"
	"errors"
	"math/rand/v2"
	"reflect"
	"slices"
	"time"

	v3 "margay/api/v3"
)

// A Batch is what [Follow] delivers: either the changes that lead from one state of the store to a later one, or news
// of the connection.
type Batch struct {
	// Events lead from the state of the batch before to the state of the store at Revision. There may be none: Revision
	// moved on, or the connection is back. An object may be in it more than once; later events replace earlier ones.
	Events   []Event
	Revision Revision
	// InSync says that all batches so far add up to the whole state of the store at Revision. It is false only before
	// the first snapshot, and that comes in one batch.
	InSync bool
	// Err, if not nil, says why the store cannot be followed just now; Events is empty, and what was delivered is the
	// last that is known. One batch comes for each failed attempt. The next batch without Err says that the store is
	// followed again, without gap.
	Err error
}

// Limits of the time between two attempts; each is doubled up to the longest, and drawn from half of it to all of it.
const (
	firstRetry   = 100 * time.Millisecond
	longestRetry = 5 * time.Second
)

// Follow delivers the state of the kinds and then their changes, until ctx ends or deliver returns an error, which it
// returns. deliver is called by one goroutine, the caller's.
//
//	List --snapshot--> Watch --changes--> deliver
//	  ^                 |  ^ |
//	  |  compacted      |  '-' connection lost: tell, wait, go on where the watch was
//	  '-----------------'
//	   the difference to what was delivered
//
// No change is lost and none is delivered twice: a watch goes on where it was, and where it cannot (the history is
// gone, or it is another store than before) the difference between the new list and what was delivered is made up,
// deletions included.
func Follow(ctx context.Context, s Store, kinds []v3.Kind, deliver func(Batch) error) error {
	f := &follower{store: s, kinds: kinds, deliver: deliver, known: map[v3.Key]Event{}}
	for {
		if err := f.relist(ctx); err != nil {
			return err
		}
		if err := f.watch(ctx); err != nil {
			return err
		}
	}
}

type follower struct {
	store   Store
	kinds   []v3.Kind
	deliver func(Batch) error

	known    map[v3.Key]Event // what was delivered of every object that exists
	revision Revision
	inSync   bool
	failures int // attempts that failed since the last that did not
}

// relist lists until that succeeds and delivers the difference to what is known.
func (f *follower) relist(ctx context.Context) error {
	for {
		list, err := f.store.List(ctx, "", f.kinds...)
		if err == nil {
			f.inSync = true
			return f.hand(f.difference(list), list.Revision)
		}
		if err := f.failed(ctx, err); err != nil {
			return err
		}
	}
}

// watch delivers changes until they can only be had by listing again (nil) or it is over.
func (f *follower) watch(ctx context.Context) error {
	w := f.store.Watch(ctx, f.revision, f.kinds...)
	defer w.Close()
	for {
		events, err := w.Next(ctx)
		switch {
		case err == nil && f.stale(events, w.Revision()):
			f.failures = 0
		case err == nil:
			if err := f.hand(events, w.Revision()); err != nil {
				return err
			}
		default:
			if err := f.failed(ctx, err); err != nil {
				return err
			}
			if errors.Is(err, ErrCompacted) {
				return nil
			}
		}
	}
}

// stale reports whether a result of Next tells nothing that the last batch did not.
func (f *follower) stale(events []Event, at Revision) bool {
	return len(events) == 0 && at == f.revision && f.failures == 0
}

// hand delivers events and remembers what they leave behind.
func (f *follower) hand(events []Event, at Revision) error {
	for _, e := range events {
		if e.Resource == nil && e.Fault == nil {
			delete(f.known, e.Key)
		} else {
			f.known[e.Key] = e
		}
	}
	f.revision, f.failures = at, 0
	return f.deliver(Batch{Events: events, Revision: at, InSync: f.inSync})
}

// failed tells why, then waits for the next attempt.
func (f *follower) failed(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return ctx.Err()
	}
	// A compacted history is no lost connection, unless listing after it does not help.
	if !errors.Is(err, ErrCompacted) || f.failures > 0 {
		if err := f.deliver(Batch{Revision: f.revision, InSync: f.inSync, Err: err}); err != nil {
			return err
		}
	}
	wait := min(firstRetry<<min(f.failures, 16), longestRetry)
	f.failures++
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(wait/2 + rand.N(wait/2)):
		return nil
	}
}

// difference returns the events that lead from what is known to the list: changes in the list's order, then deletions
// by key.
func (f *follower) difference(list *List) []Event {
	var events []Event
	listed := make(map[v3.Key]bool, len(list.Items)+len(list.Faults))
	add := func(e Event) {
		listed[e.Key] = true
		if old, ok := f.known[e.Key]; !ok || !sameValue(old, e) {
			events = append(events, e)
		}
	}
	for _, r := range list.Items {
		add(Event{Key: v3.KeyOf(r), Revision: Revision(r.GetResourceVersion()), Resource: r})
	}
	for _, fault := range list.Faults {
		add(Event{Key: fault.Key, Revision: fault.Revision, Fault: &fault})
	}
	var gone []v3.Key
	for key := range f.known {
		if !listed[key] {
			gone = append(gone, key)
		}
	}
	slices.SortFunc(gone, compareKeys)
	for _, key := range gone {
		events = append(events, Event{Key: key, Revision: list.Revision})
	}
	return events
}

// sameValue reports whether two events of one object bring the same. Equal revisions alone do not say so: the store may
// have been replaced by another, in which the same revision is something else.
func sameValue(a, b Event) bool {
	if a.Revision != b.Revision || (a.Fault == nil) != (b.Fault == nil) {
		return false
	}
	if a.Fault != nil {
		return string(a.Fault.Value) == string(b.Fault.Value)
	}
	return reflect.DeepEqual(a.Resource, b.Resource)
}

func compareKeys(a, b v3.Key) int {
	return cmp.Or(cmp.Compare(a.Kind, b.Kind), cmp.Compare(a.Namespace, b.Namespace), cmp.Compare(a.Name, b.Name))
}
