package controllers

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"math/rand/v2"
	"slices"
	"sync"
	"time"

	v3 "margay/api/v3"
	"margay/store"
)

// Bounds of what the engine does to the datastore and to Kubernetes.
const (
	maxRound     = 100                  // units that are planned together
	timePerWrite = 2 * time.Millisecond // at most 500 writes a second
	writeTimeout = 30 * time.Second
	firstBackoff = 100 * time.Millisecond
	lastBackoff  = 30 * time.Second
	freeTries    = 2               // attempts before the back-off begins
	settled      = 5 * time.Second // without a write an object counts as settled, and its attempts are forgotten
)

// A work names a unit of one controller.
type work struct {
	controller int
	unit       v3.Key
}

// An engine follows both sides and does what controllers plan. One goroutine does everything but the following.
//
//	source --Follow--> view --touched--> pending --plan--> WriteAll --> target
//	target --Follow-->  ^                                      |
//	                    '----------- what was written ---------'
//
// Nothing is planned before both sides are listed completely. A lost connection leaves what was known in place. A write
// that is refused, because something changed or because it cannot be, is planned anew later, ever more slowly.
type engine struct {
	stores      [2]store.Store
	controllers []controller
	period      time.Duration // everything is planned anew this often; 0: only what changes
	log         *slog.Logger
	metrics     *metrics
	health      *health

	view     *view
	pending  map[work]time.Time // when to plan
	tries    map[work]attempts
	problems map[work]string
}

// attempts are how often a unit was planned and found to need something, since it last was settled.
type attempts struct {
	count int
	last  time.Time
}

// A delivery is a batch of one side.
type delivery struct {
	side  side
	batch store.Batch
}

// run works until the context ends.
func (e *engine) run(ctx context.Context) {
	e.reset()
	defer e.metrics.idle(e.controllers)
	var wg sync.WaitGroup
	defer wg.Wait()
	deliveries := make(chan delivery)
	for _, s := range []side{source, target} {
		kinds := e.kinds(s)
		if len(kinds) == 0 {
			e.view[s].synced = true
			continue
		}
		wg.Go(func() {
			err := store.Follow(ctx, e.stores[s], kinds, func(b store.Batch) error {
				select {
				case deliveries <- delivery{s, b}:
					return nil
				case <-ctx.Done():
					return ctx.Err()
				}
			})
			if ctx.Err() == nil {
				panic(fmt.Sprintf("following %s ended without a reason: %v", s, err))
			}
		})
	}
	e.loop(ctx, deliveries)
}

// reset forgets everything.
func (e *engine) reset() {
	e.view, e.pending, e.tries, e.problems = newView(), map[work]time.Time{}, map[work]attempts{}, map[work]string{}
}

// kinds returns what all controllers together want to know of a side.
func (e *engine) kinds(s side) []v3.Kind {
	var kinds []v3.Kind
	for _, c := range e.controllers {
		kinds = append(kinds, c.kinds(s)...)
	}
	slices.Sort(kinds)
	return slices.Compact(kinds)
}

func (e *engine) loop(ctx context.Context, deliveries <-chan delivery) {
	var again <-chan time.Time
	if e.period > 0 {
		ticker := time.NewTicker(e.period)
		defer ticker.Stop()
		again = ticker.C
	}
	for ctx.Err() == nil {
		timer := time.NewTimer(e.untilDue())
		select {
		case <-ctx.Done():
		case d := <-deliveries:
			e.take(d)
		case <-again:
			e.touchAll()
		case <-timer.C:
			e.health.busy()
			e.round(ctx)
			e.health.idle()
		}
		timer.Stop()
		e.metrics.count(e)
	}
}

// untilDue returns how long nothing is to be planned.
func (e *engine) untilDue() time.Duration {
	if !e.view[source].synced || !e.view[target].synced || len(e.pending) == 0 {
		return time.Hour
	}
	first := slices.MinFunc(slices.Collect(maps.Values(e.pending)), time.Time.Compare)
	return max(time.Until(first), 0)
}

// take notes a batch and what it touches.
func (e *engine) take(d delivery) {
	r := &e.view[d.side]
	e.metrics.connected.WithLabelValues(d.side.String()).Set(number(d.batch.Err == nil))
	if d.batch.Err != nil {
		e.log.Warn("store cannot be followed", "side", d.side.String(), "error", d.batch.Err)
		return
	}
	for _, event := range d.batch.Events {
		e.note(d.side, event.Key, func() { r.deliver(event) })
	}
	for key, event := range r.own {
		if e.stores[d.side].Reached(d.batch.Revision, event.Revision) {
			e.note(d.side, key, func() { delete(r.own, key) })
		}
	}
	if d.batch.InSync && !r.synced {
		r.synced = true
		e.log.Info("listed", "side", d.side.String(), "objects", len(r.delivered))
	}
}

// note makes one change to what is known of an object and plans what it touches, soon.
func (e *engine) note(s side, key v3.Key, change func()) {
	before := e.view.get(s, key)
	change()
	after := e.view.get(s, key)
	for i, c := range e.controllers {
		for _, unit := range c.touched(s, key, before, after) {
			e.touch(work{i, unit}, s)
		}
	}
}

// touch plans a unit soon. A change in Kubernetes is a new wish; one in the datastore may be somebody who undoes what was
// done, and will again.
func (e *engine) touch(w work, s side) {
	if s == source {
		delete(e.tries, w)
	}
	tries := e.tries[w]
	at := time.Now()
	if tries.count >= freeTries {
		at = tries.last.Add(e.backoff(w))
	}
	if before, waiting := e.pending[w]; !waiting || at.Before(before) {
		e.pending[w] = at
	}
}

// touchAll plans everything anew.
func (e *engine) touchAll() {
	for _, s := range []side{source, target} {
		for _, key := range e.view[s].keys() {
			e.note(s, key, func() {})
		}
	}
}

// backoff returns the pause before a unit is planned again.
func (e *engine) backoff(w work) time.Duration {
	tries := e.tries[w].count
	if tries < freeTries {
		return 0
	}
	wait := min(firstBackoff<<min(tries-freeTries, 16), lastBackoff)
	return wait/2 + rand.N(wait/2)
}

// A planned step is one of a unit's.
type planned struct {
	work work
	step step
}

// round plans what is due and does it.
func (e *engine) round(ctx context.Context) {
	started := time.Now()
	asking, cancel := context.WithTimeout(ctx, writeTimeout) // for all questions of the round together
	defer cancel()
	var writes []planned
	for _, w := range e.due(started) {
		delete(e.pending, w)
		steps, err := e.controllers[w.controller].plan(e.view, w.unit)
		if len(steps) == 0 && err == nil {
			delete(e.problems, w)
			e.settle(w)
			continue
		}
		e.tries[w] = attempts{e.tries[w].count + 1, time.Now()}
		if err != nil {
			e.problem(w, err)
			e.pending[w] = time.Now().Add(lastBackoff)
		}
		for _, s := range steps {
			if e.confirmed(asking, w, s) {
				writes = append(writes, planned{w, s})
			}
		}
	}
	if len(writes) > 0 {
		e.write(ctx, writes)
		pause(ctx, time.Until(started.Add(time.Duration(len(writes))*timePerWrite)))
	}
}

// settle forgets the attempts of a unit that needs nothing, once that has been so for a while.
func (e *engine) settle(w work) {
	tries, ok := e.tries[w]
	if !ok {
		return
	}
	if at := tries.last.Add(settled); at.After(time.Now()) {
		e.pending[w] = at
		return
	}
	delete(e.tries, w)
}

// due returns the units whose time has come, some of them if they are many, longest due first.
func (e *engine) due(now time.Time) []work {
	var list []work
	for w, at := range e.pending {
		if !at.After(now) {
			list = append(list, w)
		}
	}
	slices.SortFunc(list, func(a, b work) int {
		return cmp.Or(e.pending[a].Compare(e.pending[b]), cmp.Compare(a.controller, b.controller), compareKeys(a.unit, b.unit))
	})
	return list[:min(len(list), maxRound)]
}

// problem notes what keeps a unit from being as it should be, and tells it once.
func (e *engine) problem(w work, err error) {
	if e.problems[w] != err.Error() {
		e.log.Warn("cannot bring in line", "controller", e.controllers[w.controller].name(), "object", w.unit.String(), "error", err)
		e.problems[w] = err.Error()
	}
}

// confirmed reports whether the reason for a write still holds.
func (e *engine) confirmed(ctx context.Context, w work, s step) bool {
	if s.gone == (v3.Key{}) {
		return true
	}
	_, err := e.stores[s.from].Get(ctx, s.gone)
	if errors.Is(err, store.ErrNotFound) {
		return true
	}
	if err == nil {
		err = fmt.Errorf("%s is there again", s.gone)
	}
	e.failed(w, err)
	return false
}

// write does the steps and notes what became of them.
func (e *engine) write(ctx context.Context, steps []planned) {
	ctx, cancel := context.WithTimeout(ctx, writeTimeout)
	defer cancel()
	writes := make([]store.Write, len(steps))
	for i, p := range steps {
		writes[i] = p.step.Write
	}
	for i, result := range e.stores[target].WriteAll(ctx, store.Commit, writes) {
		w, write := steps[i].work, steps[i].step.Write
		err := result.Err
		if write.Op == store.Delete && errors.Is(err, store.ErrNotFound) {
			err = nil
		}
		name := e.controllers[w.controller].name()
		e.metrics.writes.WithLabelValues(name, op(write.Op), outcome(err)).Inc()
		if err != nil {
			if ctx.Err() == nil {
				e.failed(w, err)
			}
			continue
		}
		e.log.Debug(op(write.Op), "controller", name, "object", v3.KeyOf(write.Resource).String())
		e.written(write, result)
	}
}

// written notes a write as a change, without waiting for it to come back.
func (e *engine) written(write store.Write, result store.Result) {
	event := store.Event{Key: v3.KeyOf(write.Resource), Revision: result.Revision}
	if write.Op != store.Delete {
		event.Resource = result.Resource
	}
	e.note(target, event.Key, func() { e.view[target].own[event.Key] = event })
}

// failed plans a unit anew later. That somebody else changed the object in the meantime is no problem.
func (e *engine) failed(w work, err error) {
	e.pending[w] = time.Now().Add(max(e.backoff(w), firstBackoff))
	if !errors.Is(err, store.ErrConflict) && !errors.Is(err, store.ErrExists) && !errors.Is(err, store.ErrNotTried) {
		e.problem(w, err)
	}
}

func op(o store.Op) string {
	switch o {
	case store.Create:
		return "create"
	case store.Update:
		return "update"
	}
	return "delete"
}

func outcome(err error) string {
	if err != nil {
		return "error"
	}
	return "ok"
}

func number(b bool) float64 {
	if b {
		return 1
	}
	return 0
}

// pause waits, but not beyond the end of the context.
func pause(ctx context.Context, d time.Duration) {
	if d <= 0 {
		return
	}
	select {
	case <-ctx.Done():
	case <-time.After(d):
	}
}
