package node

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"time"

	v3 "margay/api/v3"
	"margay/store"
)

// storeTimeout bounds one request to the store.
const storeTimeout = 10 * time.Second

// A feed stands between the store and the loop: it turns batches of the store into updates in which every resource is
// usable. Where the stored value is not, it decides what holds in its place:
//
//	the value that was last handed on
//	else store.Previous: the last version that decodes; "absent" if the object was created faulty
//	else, the history being compacted, the version kept on disk by this or an earlier run of the agent
//	else, for a policy, a stand-in that denies what it selects (see standIn); another kind of object is absent
//
// Host endpoints of this host are kept on disk while they are good, too: if the last good version of one were lost, its
// interface would be open. A feed is used by one goroutine.
type feed struct {
	node   string
	store  store.Store
	keep   *keeper
	log    *slog.Logger
	known  map[v3.Key]v3.Resource // what was handed on last
	faults map[v3.Key]fault
	dirty  map[v3.Key]bool // what is kept on disk may have to change
}

// A fault is a stored value that cannot be used, and what became of it.
type fault struct {
	key      v3.Key
	revision store.Revision
	reason   string
	inForce  string // what holds in place of the value
}

// String says it all, for logs, status and health.
func (f fault) String() string {
	return fmt.Sprintf("%s: %s (%s)", f.key, f.reason, f.inForce)
}

// A change is a usable new value of an object, or nil if it is gone.
type change struct {
	key      v3.Key
	resource v3.Resource
}

// An update is what the loop takes in as one.
type update struct {
	changes  []change
	revision store.Revision // up to which everything is contained; "" if unknown
	inSync   bool           // the first complete snapshot has been delivered
	err      error          // why the store cannot be followed just now; there are no changes then
	faults   []fault        // all of them, ordered by key; not shared
	received time.Time
}

func newFeed(node string, s store.Store, keep *keeper, log *slog.Logger) *feed {
	return &feed{
		node: node, store: s, keep: keep, log: log,
		known: map[v3.Key]v3.Resource{}, faults: map[v3.Key]fault{}, dirty: map[v3.Key]bool{},
	}
}

// run follows the store and hands on updates until the context ends.
func (f *feed) run(ctx context.Context, out chan<- update) error {
	snapshot := false
	return store.Follow(ctx, f.store, v3.AgentKinds(), func(b store.Batch) error {
		u := update{received: time.Now(), revision: b.Revision, inSync: b.InSync, err: b.Err}
		var err error
		if u.changes, err = f.take(ctx, b.Events); err != nil {
			return err
		}
		u.faults = f.sorted()
		select {
		case out <- u:
		case <-ctx.Done():
			return ctx.Err()
		}
		// Enforcement comes first, the disk after it.
		f.persist()
		if b.InSync && !snapshot {
			snapshot = true
			f.forget()
		}
		return nil
	})
}

// take turns events into changes. It fails only when the context ends.
func (f *feed) take(ctx context.Context, events []store.Event) ([]change, error) {
	changes := make([]change, 0, len(events))
	for _, e := range events {
		if e.Fault == nil {
			f.good(e.Key, e.Resource)
			changes = append(changes, change{e.Key, e.Resource})
			continue
		}
		c, err := f.faulty(ctx, e.Key, e.Fault)
		if err != nil {
			return nil, err
		}
		changes = append(changes, c...)
	}
	return changes, nil
}

// good records a usable value, or with nil the end of the object.
func (f *feed) good(key v3.Key, r v3.Resource) {
	if r == nil {
		delete(f.known, key)
	} else {
		f.known[key] = r
	}
	if old, was := f.faults[key]; was {
		delete(f.faults, key)
		f.log.Info("stored object is repaired", "object", key, "faulty_revision", old.revision)
	}
	f.dirty[key] = true
}

// persists reports whether what holds for an object is kept on disk.
func (f *feed) persists(key v3.Key) bool {
	if _, faulty := f.faults[key]; faulty {
		return true
	}
	hep, ok := f.known[key].(*v3.HostEndpoint)
	return ok && hep.Spec.Node == f.node
}

// persist brings the disk in line with what changed.
func (f *feed) persist() {
	for key := range f.dirty {
		if f.persists(key) {
			f.warnKeep(f.keep.save(key, f.known[key]))
		} else {
			f.warnKeep(f.keep.drop(key))
		}
	}
	f.dirty = map[v3.Key]bool{} // a first snapshot makes it large
}

// faulty decides what holds in place of a value that cannot be used and returns the change that it makes, if any.
func (f *feed) faulty(ctx context.Context, key v3.Key, stored *store.Fault) ([]change, error) {
	old, was := f.faults[key]
	if was && old.revision == stored.Revision {
		return nil, nil
	}
	now := fault{key: key, revision: stored.Revision, reason: stored.Err.Error(), inForce: old.inForce}
	var changes []change
	if last, ok := f.known[key]; !was && ok {
		now.inForce = inForce(last)
	} else if !was {
		// After one fault another one changes nothing: what was decided for the first stays in force.
		r, how, err := f.recover(ctx, key, stored)
		if err != nil {
			return nil, err
		}
		now.inForce = how
		if r != nil {
			f.known[key] = r
			changes = []change{{key, r}}
		}
	}
	f.faults[key], f.dirty[key] = now, true
	f.log.Error("stored object cannot be used", "object", key, "revision", stored.Revision, "reason", now.reason, "in_force", now.inForce)
	return changes, nil
}

func inForce(r v3.Resource) string {
	if r == nil {
		return "there was none before it: nothing of it is in force"
	}
	if r.GetResourceVersion() == "" { // a stand-in: nothing that was stored
		return "its last good version is lost: whatever it selects is denied"
	}
	return "revision " + r.GetResourceVersion() + " stays in force"
}

// recover finds what held before a faulty value that the feed knows no earlier value of. nil: nothing did.
func (f *feed) recover(ctx context.Context, key v3.Key, stored *store.Fault) (v3.Resource, string, error) {
	r, err := f.previous(ctx, key, stored.Revision)
	switch {
	case ctx.Err() != nil:
		return nil, "", ctx.Err()
	case err == nil:
		return r, inForce(r), nil
	case errors.Is(err, store.ErrNotFound):
		return nil, inForce(nil), nil
	}
	f.log.Warn("the last good version of a faulty object is not in the store's history", "object", key, "error", err)
	r, ok, keepErr := f.keep.load(key)
	f.warnKeep(keepErr)
	if !ok {
		r, ok = standIn(key, stored.Value, f.tiers())
	}
	if ok {
		return r, inForce(r), nil
	}
	return nil, "its last good version is lost: nothing of it is in force", nil
}

// previous asks the store until it answers.
func (f *feed) previous(ctx context.Context, key v3.Key, before store.Revision) (v3.Resource, error) {
	retry := backoff{first: firstPause, last: lastPause}
	for {
		attempt, cancel := context.WithTimeout(ctx, storeTimeout)
		r, err := f.store.Previous(attempt, key, before)
		cancel()
		if ctx.Err() != nil || !errors.Is(err, store.ErrUnavailable) && !errors.Is(err, context.DeadlineExceeded) {
			return r, err
		}
		pause := retry.step()
		f.log.Warn("waiting for the last good version of a faulty object", "object", key, "error", err, "pause", pause)
		if err := wait(ctx, pause); err != nil {
			return nil, err
		}
	}
}

// tiers returns the tiers that are known by now; a snapshot has them before the policies.
func (f *feed) tiers() []*v3.Tier {
	var tiers []*v3.Tier
	for _, r := range f.known {
		if t, ok := r.(*v3.Tier); ok {
			tiers = append(tiers, t)
		}
	}
	return tiers
}

// forget drops what is kept on disk of objects that were repaired or disappeared while no agent ran. It is called after the
// first snapshot.
func (f *feed) forget() {
	wanted := map[v3.Key]bool{}
	for key := range f.faults {
		wanted[key] = true
	}
	for key := range f.known {
		if f.persists(key) {
			wanted[key] = true
		}
	}
	f.warnKeep(f.keep.dropExcept(wanted))
}

// sorted returns the faults in order.
func (f *feed) sorted() []fault {
	return slices.SortedFunc(maps.Values(f.faults), func(a, b fault) int {
		return strings.Compare(a.key.String(), b.key.String())
	})
}

func (f *feed) warnKeep(err error) {
	if err != nil {
		f.log.Warn("state directory", "error", err)
	}
}
