package node

import (
	"context"
	"fmt"
	"maps"
	"runtime/debug"
	"slices"
	"strings"
	"time"

	"margay/ruleset"
)

// enforce brings the kernel to what calc says, if it may: everything must be known before the first time, and after an
// error or a repair some time must pass.
func (l *loop) enforce(ctx context.Context) {
	if !l.inSync || l.all == nil || !l.located {
		return
	}
	if wait := time.Until(l.notBefore); wait > 0 {
		l.timer.Reset(wait)
		return
	}
	start := time.Now()
	delta := l.calc.Flush()
	// What is new is told after a success, which need not be that of this attempt.
	l.untold.summary = l.untold.summary || l.unflushed || l.changes > 0 || l.resync && l.program.Settings.IPVS
	l.untold.endpoints = l.untold.endpoints || len(delta.Endpoints)+len(delta.Workloads) > 0 || !l.programmed
	l.unflushed = false
	l.metrics.updateTime.Observe(time.Since(start).Seconds())
	l.metrics.outputs.Add(float64(len(delta.Endpoints) + len(delta.Policies) + len(delta.Profiles) + len(delta.Sets)))
	if err := l.change(ctx, delta); err != nil {
		if ctx.Err() == nil {
			l.failed(err)
		}
		return
	}
	if l.untold.endpoints {
		l.endpoints.setProgram(l.program)
	}
	if len(delta.Workloads) > 0 || l.relocated || !l.programmed {
		l.relocated = false
		l.checkBridges()
	}
	l.succeeded()
	if l.untold.summary {
		l.summariseSoon()
	}
	l.changes, l.untold = 0, untold{}
}

// change makes the kernel enforce what it did, changed by delta.
func (l *loop) change(ctx context.Context, delta *ruleset.Delta) error {
	start := time.Now()
	if l.resync {
		l.lastRepair = start
		l.program.Apply(delta)
		l.metrics.resyncs.Inc()
		if err := l.dataplane.Resync(ctx, l.program); err != nil {
			return err
		}
		if !l.programmed {
			l.metrics.initialResync.Set(time.Since(start).Seconds())
			l.log.Info("rules are in force", "endpoints", len(l.program.Endpoints), "policies", len(l.program.Policies),
				"sets", len(l.program.Sets), "took", time.Since(start).Round(time.Microsecond))
			return nil
		}
	} else {
		if delta.Empty() {
			return nil
		}
		// The program takes over the delta's sets: the dataplane must have read them before.
		err := l.dataplane.Apply(ctx, delta)
		l.program.Apply(delta)
		if err != nil {
			return err
		}
	}
	l.metrics.applied(time.Since(start), l.changes)
	if l.changes > 0 {
		l.metrics.latency.Observe(time.Since(l.oldest).Seconds())
	}
	return nil
}

// failed arranges for another attempt. The kernel's state is unknown until a Resync succeeds.
func (l *loop) failed(err error) {
	pause := l.retry.step()
	l.resync = true
	l.notBefore = time.Now().Add(pause)
	l.timer.Reset(pause)
	l.metrics.failures.Inc()
	if l.refusals.new(err) {
		l.log.Error("the kernel was not changed, trying again", "error", err, "pause", pause)
	}
	l.outOfLine = true
	l.health.set(componentDataplane, condition{detail: err.Error()})
}

// succeeded tells everybody that everything taken in is in force.
func (l *loop) succeeded() {
	if l.programmed && l.outOfLine {
		l.log.Info("the kernel is in line again")
	}
	l.outOfLine = false
	first := !l.programmed
	l.programmed, l.resync = true, false
	if first {
		l.collectGarbage()
	}
	if first || l.changes > 0 {
		l.rest.Reset(restDelay)
	}
	l.retry.reset()
	l.refusals = repeats{}
	l.metrics.resyncState.Set(resyncDone)
	l.health.set(componentDataplane, condition{ready: true})
	l.standing.setEnforced(l.revision)
	// A revision that moved without a change for this agent is told with the next report: reports are writes, too, and
	// must not cause one another.
	if first || l.changes > 0 {
		kick(l.reported)
	}
}

// collectGarbage makes the parameter effective. It is not before the first programming, which is not to wait for that.
func (l *loop) collectGarbage() {
	if l.programmed {
		debug.SetGCPercent(l.settings.now.GoGCThreshold)
	}
}

// tidy gives the memory back that changes took and nobody needs any more: after a burst of them, and not too often.
func (l *loop) tidy() {
	if wait := time.Until(l.lastTidy.Add(tidyInterval)); wait > 0 {
		l.rest.Reset(wait)
		return
	}
	l.lastTidy = time.Now()
	go func() {
		debug.FreeOSMemory()
		if err := releaseProgram(); err != nil {
			l.log.Debug("memory that the start needed is kept", "error", err)
		}
	}()
}

func (l *loop) summariseSoon() {
	if !l.summaryDue {
		l.summaryDue = true
		l.summary.Reset(max(summaryDelay, summaryShare*l.summaryTook))
	}
}

// summarise shows how much there is, and logs the conflicts and traps that are new.
func (l *loop) summarise() {
	l.summaryDue = false
	if l.unflushed {
		l.untold.summary = true // calc tells of its state as of a Flush: after the next one this is due again
		return
	}
	start := time.Now()
	defer func() { l.summaryTook = time.Since(start) }()
	l.metrics.setCounts(l.calc.Counts())
	now, untracked := map[string]bool{}, l.untracked()
	for _, w := range slices.Concat(l.calc.Warnings(), l.slips.warnings(l.calc, time.Now()), untracked) {
		text := cut(w.Key.String() + ": " + w.Text)
		now[text] = true
		if !l.warnings[text] {
			l.log.Warn("policy", "object", w.Key, "warning", w.Text)
		}
	}
	if !maps.Equal(now, l.warnings) {
		l.standing.setWarnings(someOf(slices.Sorted(maps.Keys(now)), maxWarnings))
		kick(l.reported)
	}
	l.warnings = now
	l.metrics.warnings.Set(float64(len(now)))
	switch { // what ends without a change of anything
	case len(untracked) > 0:
		l.summary.Reset(untrackedInterval)
	case l.slips.warned():
		l.summary.Reset(slipMemory)
	}
}

// Bounds of what a status holds: the store takes no value beyond a megabyte or so, and one that it does not take says nothing.
const (
	maxWarnings = 100
	maxFaults   = 500
	maxText     = 1000 // bytes of one of them; a stored value may be quoted in it
)

// someOf returns the first of many texts, and how many there are more.
func someOf(texts []string, most int) []string {
	if len(texts) <= most {
		return texts
	}
	return append(texts[:most:most], fmt.Sprintf("and %d more, which the agent's log names", len(texts)-most))
}

// faultTexts returns faults as a status has them.
func faultTexts(faults []fault) []string {
	var texts []string
	for _, f := range faults {
		texts = append(texts, cut(f.key.String()+": "+f.reason))
	}
	return someOf(texts, maxFaults)
}

// cut returns the beginning of a long text.
func cut(text string) string {
	if len(text) <= maxText {
		return text
	}
	return strings.ToValidUTF8(text[:maxText], "") + "..."
}

// disturbed arranges for a repair of what somebody else changed: at once, if the last one was not just now.
func (l *loop) disturbed(ctx context.Context) {
	l.metrics.disturbances.Inc()
	if !l.programmed {
		// Only connection tracking was there, for the sake of connections made before the first rules.
		if err := l.dataplane.Prepare(ctx); err != nil {
			l.log.Warn("connection tracking is not on before the first rules", "error", err)
		}
		return
	}
	now := time.Now()
	l.resync = true
	// Not moved on by one disturbance after the other: a repair that waits is made when it was to be made.
	if next := l.lastRepair.Add(repairInterval); next.After(l.notBefore) {
		l.notBefore = next
	}
	l.repairs++
	if now.Sub(l.repairLogged) >= repairLogInterval {
		l.log.Warn("another program changed this agent's table, putting it right", "times", l.repairs)
		l.repairs, l.repairLogged, l.outOfLine = 0, now, true
	}
}
