// Package fake is a dataplane without a kernel: it holds the Program and answers what happens to a packet with
// [ruleset.Eval]. Tests of the node use it, and it is the reference of how a [dataplane.Dataplane] behaves: all or
// nothing, no Apply before a successful Resync, and no change that breaks the invariants of [ruleset.Delta].
//
//	Resync(program), Apply(delta) --> copy of the program --> Verdict(packet)
package fake

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"sync"

	"margay/dataplane"
	"margay/ruleset"
)

var _ dataplane.Dataplane = (*Dataplane)(nil)

// ErrUnsynced is returned by Apply before the first successful Resync and after an error.
var ErrUnsynced = errors.New("the dataplane's state is unknown (Resync first)")

// ErrClosed is returned by every call after Close.
var ErrClosed = errors.New("the dataplane is closed")

// Calls counts the calls that were made, those that failed included.
type Calls struct{ Resync, Apply, Close int }

// Dataplane is a dataplane in memory. Unlike others it may be asked from several goroutines.
type Dataplane struct {
	mu      sync.Mutex
	program *ruleset.Program
	synced  bool
	closed  bool
	fail    []error
	calls   Calls
}

// New returns a dataplane that holds nothing and, until its first Resync, filters nothing.
func New() *Dataplane { return &Dataplane{program: ruleset.NewProgram()} }

// FailNext makes the next Resync or Apply that has no failure planned yet return err and change nothing.
func (d *Dataplane) FailNext(err error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.fail = append(d.fail, err)
}

// Resync implements [dataplane.Dataplane].
func (d *Dataplane) Resync(ctx context.Context, p *ruleset.Program) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.calls.Resync++
	if err := d.begin(ctx); err != nil {
		return fmt.Errorf("resync: %w", err)
	}
	next := clone(p)
	if err := check(next); err != nil {
		return fmt.Errorf("resync: %w", err)
	}
	d.program, d.synced = next, true
	return nil
}

// Apply implements [dataplane.Dataplane].
func (d *Dataplane) Apply(ctx context.Context, delta *ruleset.Delta) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.calls.Apply++
	wasSynced := d.synced
	if err := d.begin(ctx); err != nil {
		return fmt.Errorf("apply: %w", err)
	}
	if !wasSynced {
		return fmt.Errorf("apply: %w", ErrUnsynced)
	}
	if err := checkSets(d.program, delta); err != nil {
		return fmt.Errorf("apply: %w", err)
	}
	next := clone(d.program)
	next.Apply(owned(delta))
	if err := check(next); err != nil {
		return fmt.Errorf("apply: %w", err)
	}
	d.program, d.synced = next, true
	return nil
}

// begin answers what makes any call fail. The state counts as unknown until the call succeeds.
func (d *Dataplane) begin(ctx context.Context) error {
	d.synced = false
	if d.closed {
		return ErrClosed
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	if len(d.fail) == 0 {
		return nil
	}
	err := d.fail[0]
	d.fail = d.fail[1:]
	return err
}

// Close implements [dataplane.Dataplane]. What is enforced stays in force.
func (d *Dataplane) Close() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.calls.Close++
	d.closed = true
	return nil
}

// Verdict returns what happens to a packet.
func (d *Dataplane) Verdict(pkt *ruleset.Packet) ruleset.Verdict {
	d.mu.Lock()
	defer d.mu.Unlock()
	return ruleset.Eval(d.program, pkt)
}

// Program returns a copy of what is enforced.
func (d *Dataplane) Program() *ruleset.Program {
	d.mu.Lock()
	defer d.mu.Unlock()
	return clone(d.program)
}

// Calls returns how often the dataplane was called.
func (d *Dataplane) Calls() Calls {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.calls
}

// Disturb puts p in force behind the back of whoever uses the dataplane, as somebody with root might.
func (d *Dataplane) Disturb(p *ruleset.Program) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.program = clone(p)
}

// clone copies what can change: the maps and the sets.
func clone(p *ruleset.Program) *ruleset.Program {
	c := &ruleset.Program{
		Settings: p.Settings, Endpoints: maps.Clone(p.Endpoints), Workloads: maps.Clone(p.Workloads),
		Policies: maps.Clone(p.Policies), Profiles: maps.Clone(p.Profiles), Sets: make(map[ruleset.SetID]*ruleset.Set, len(p.Sets)),
	}
	for id, set := range p.Sets {
		c.Sets[id] = set.Clone()
	}
	return c
}

// owned returns delta with own copies of its new sets, which Program.Apply takes over.
func owned(delta *ruleset.Delta) *ruleset.Delta {
	c := *delta
	c.Sets = maps.Clone(delta.Sets)
	for id, change := range c.Sets {
		if change != nil && change.New != nil {
			c.Sets[id] = &ruleset.SetDelta{New: change.New.Clone()}
		}
	}
	return &c
}
