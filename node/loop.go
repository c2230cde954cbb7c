package node

import (
	"context"
	"fmt"
	"log/slog"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"

	v3 "margay/api/v3"
	"margay/calc"
	"margay/ruleset"
	"margay/store"
)

// Times of the loop.
const (
	firstRetry = 10 * time.Millisecond // after the kernel refused a change, doubled up to lastPause
	// repairInterval is the least time between two repairs of what somebody else changed: the first is made at once, and a
	// program that fights for the table cannot keep this one busy.
	repairInterval = 200 * time.Millisecond
	// summaryDelay passes after a change before counts and warnings follow: they take a look at everything. In a large cluster,
	// where something changes all the time, they take one part in summaryShare of it.
	summaryDelay = 200 * time.Millisecond
	summaryShare = 50
	// restDelay passes without a change or scrape before memory is given back, which is not done more often than tidyInterval.
	restDelay    = 500 * time.Millisecond
	tidyInterval = time.Minute
	// repairLogInterval is the least time between two lines in the log about such repairs.
	repairLogInterval = 10 * time.Second
)

// maxDrain bounds the updates that are taken in before the kernel is changed; a snapshot is one update.
const maxDrain = 1000

// maxNamed bounds how many faults or problems a detail names.
const maxNamed = 10

// A loop owns calculation and dataplane; nobody else touches them. Its fields are used by its goroutine only, but for
// those that are safe for all: updates, interfaces, metrics, health, standing.
type loop struct {
	log        *slog.Logger
	metrics    *metrics
	health     *health
	standing   *standing
	endpoints  *endpointStates
	reported   chan struct{} // kicked when the status changed
	dataplane  Dataplane
	settings   *settings
	updates    chan update
	interfaces *mailbox[addressList]
	waysFound  *mailbox[wayList]
	questions  chan chan<- snapshot

	calc    *calc.Calc
	program *ruleset.Program // what calc has given out so far: what the kernel should enforce

	inSync      bool           // the first snapshot is in calc
	revision    store.Revision // what calc contains
	lost        time.Time      // since when the store cannot be followed; zero: it can
	locked      bool           // ClusterInformation says: do not act on what the store holds
	held        map[v3.Key]v3.Resource
	faults      []fault
	all         map[string][]netip.Addr // interfaces as last listed; nil: not yet
	known       map[string][]netip.Addr // those that calc has
	relocated   bool                    // ways changed since bridges were looked at
	located     bool                    // calc has the ways to workloads, or nobody tells
	unbridged   bool                    // there are workloads on bridges, whose policy is not enforced
	programmed  bool                    // the kernel enforces, or did before the last error
	resync      bool                    // what the kernel has must be compared as a whole
	notBefore   time.Time               // of the next attempt to change the kernel
	retry       backoff
	refusals    repeats
	outOfLine   bool        // the log says that the kernel is not as it should be
	timer       *time.Timer // runs when an attempt waits for notBefore
	unflushed   bool        // calc was told something since its last Flush
	untold      untold      // what follows the next success
	changes     int         // taken in since the kernel was last changed
	oldest      time.Time   // arrival of the first of them
	warnings    map[string]bool
	slips       *slips
	hostPods    chan []v3.HostPod // of this node; only warnings know of them
	summary     *time.Timer       // runs when counts and warnings are due
	summaryDue  bool
	summaryTook time.Duration // the last one
	rest        *time.Timer   // runs when memory is to be given back
	lastTidy    time.Time

	tracksIPVS   func() bool             // whether connection tracking sees what IPVS balances; nil: nobody asks
	filterBridge func(name string) error // has packets between ports of a bridge pass the hooks of IP; nil: nobody does

	repairs      int // not yet logged
	lastRepair   time.Time
	repairLogged time.Time
}

// untold is what the loop knows, or has enforced, and has not told yet.
type untold struct {
	endpoints bool // what is enforced for them
	summary   bool // counts and warnings
}

// What the kernel tells of the host.
type (
	addressList = map[string][]netip.Addr
	wayList     = map[netip.Addr]calc.Way
)

// A mailbox holds the latest list of something; an older one that nobody took is replaced.
type mailbox[T any] struct {
	ready chan struct{} // capacity 1
	mu    sync.Mutex
	list  T
}

func newMailbox[T any]() *mailbox[T] { return &mailbox[T]{ready: make(chan struct{}, 1)} }

func (m *mailbox[T]) put(list T) {
	m.mu.Lock()
	m.list = list
	m.mu.Unlock()
	kick(m.ready)
}

func (m *mailbox[T]) get() T {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.list
}

// run is the loop. It returns when the context ends, and leaves what the kernel enforces as it is.
func (l *loop) run(ctx context.Context) {
	l.timer = time.NewTimer(0)
	l.summary = time.NewTimer(summaryDelay)
	l.rest = time.NewTimer(restDelay)
	defer l.timer.Stop()
	defer l.summary.Stop()
	defer l.rest.Stop()
	for {
		l.health.idle()
		select {
		case <-ctx.Done():
			return
		case u := <-l.updates:
			l.health.busy()
			l.take(u)
		case <-l.interfaces.ready:
			l.health.busy()
			l.all = l.interfaces.get()
			l.compareInterfaces()
			l.health.set(componentInterfaces, condition{ready: true})
		case <-l.waysFound.ready:
			l.health.busy()
			l.takeWays(l.waysFound.get())
		case <-l.dataplane.Disturbed():
			l.health.busy()
			l.disturbed(ctx)
		case <-l.timer.C:
			l.health.busy()
		case q := <-l.questions:
			l.health.busy()
			q <- l.snapshot()
		case pods := <-l.hostPods:
			l.health.busy()
			l.setHostPods(pods)
		case <-l.summary.C:
			l.health.busy()
			l.summarise()
		case <-l.rest.C:
			l.health.busy()
			l.tidy()
		case <-l.metrics.scraped:
			l.rest.Reset(restDelay) // reading every counter takes memory, too
			continue
		}
		l.drain()
		l.enforce(ctx)
	}
}

// drain takes in what has arrived already, so that a burst becomes one change of the kernel.
func (l *loop) drain() {
	for range maxDrain {
		select {
		case u := <-l.updates:
			l.take(u)
		default:
			return
		}
	}
}

// take gives an update to calc.
func (l *loop) take(u update) {
	if u.err != nil {
		l.disconnected(u.err)
		return
	}
	if l.changes == 0 {
		l.oldest = u.received
	}
	for _, c := range u.changes {
		l.metrics.updates.WithLabelValues(string(c.key.Kind)).Inc()
		l.changes++
		if info, ok := c.resource.(*v3.ClusterInformation); ok && c.key.Name == v3.ClusterInformationName {
			l.lock(info.Spec.DatastoreReady)
		}
		if l.locked {
			l.held[c.key] = c.resource
		} else {
			l.put(c.key, c.resource)
		}
	}
	if !l.locked {
		l.revision = u.revision
		l.inSync = l.inSync || u.inSync
	}
	l.setFaults(u.faults)
	l.connected()
}

func (l *loop) put(key v3.Key, r v3.Resource) {
	if key.Kind == v3.KindServiceEndpoints {
		l.calc.Update(key, r)
		l.unflushed = true
		return
	}
	l.calc.Update(key, r)
	l.slips.take(key, r, time.Now())
	l.unflushed = true
	if l.settings.take(key, r) {
		l.configure()
	}
}

// lock holds back what the store says from now on, or lets go of it.
func (l *loop) lock(ready *bool) {
	locked := ready != nil && !*ready
	if locked != l.locked {
		l.log.Warn("the datastore's lock changed", "locked", locked)
	}
	l.locked = locked
	if locked {
		return
	}
	for key, r := range l.held {
		l.put(key, r)
	}
	clear(l.held)
}

// disconnected notes that the store cannot be followed. What was received stays in force.
func (l *loop) disconnected(err error) {
	if l.lost.IsZero() {
		l.lost = time.Now()
		l.metrics.connected.Set(0)
		l.log.Warn("the store cannot be followed; the rules stay in force", "error", err)
	}
	l.health.set(componentStore, condition{
		ready:  l.inSync,
		detail: fmt.Sprintf("cannot be followed since %s: %v", l.lost.UTC().Format(time.RFC3339), err),
	})
}

func (l *loop) connected() {
	if !l.lost.IsZero() {
		l.log.Info("the store is followed again", "after", time.Since(l.lost).Round(time.Millisecond))
		l.lost = time.Time{}
	}
	l.metrics.connected.Set(1)
	switch {
	case l.locked:
		l.health.set(componentStore, condition{ready: l.inSync, detail: "locked (ClusterInformation says datastoreReady: false): changes wait"})
	case l.inSync:
		l.health.set(componentStore, condition{ready: true})
	}
	if l.inSync && !l.programmed {
		l.metrics.resyncState.Set(resyncRunning)
	}
}

func (l *loop) setFaults(faults []fault) {
	if slices.Equal(faults, l.faults) {
		return
	}
	l.faults = faults
	l.metrics.setFaults(faults)
	l.standing.setFaults(faults)
	l.health.set(componentObjects, condition{ready: true, detail: nameSome("stored objects that cannot be used", faults)})
	kick(l.reported)
}

// nameSome says how many there are and names the first of them; "" for none.
func nameSome[T fmt.Stringer](what string, all []T) string {
	if len(all) == 0 {
		return ""
	}
	var names []string
	for _, one := range all[:min(len(all), maxNamed)] {
		names = append(names, one.String())
	}
	if len(all) > maxNamed {
		names = append(names, "...")
	}
	return fmt.Sprintf("%d %s: %s", len(all), what, strings.Join(names, ", "))
}

// configure makes the parameters effective that hold now.
func (l *loop) configure() {
	l.calc.SetSettings(l.settings.apply())
	l.unflushed = true
	l.collectGarbage()
	kick(l.endpoints.kicked)
	if l.all != nil {
		l.compareInterfaces()
	}
}

// compareInterfaces tells calc what differs from what it knows.
func (l *loop) compareInterfaces() {
	wanted := map[string][]netip.Addr{}
	var hidden []string
	for name, addrs := range l.all {
		if l.settings.now.Excluded(name) {
			hidden = append(hidden, name)
		} else {
			wanted[name] = addrs
		}
	}
	l.calc.SetHidden(hidden)
	for name := range l.known {
		if _, ok := wanted[name]; !ok {
			l.calc.RemoveInterface(name)
		}
	}
	for name, addrs := range wanted {
		if old, ok := l.known[name]; !ok || !slices.Equal(old, addrs) {
			l.calc.SetInterface(name, addrs)
		}
	}
	l.known, l.unflushed = wanted, true
	l.endpoints.setInterfaces(wanted)
	if l.standing.setInterfaces(l.ways(wanted)) {
		kick(l.reported)
	}
}

// ways returns the interfaces by which others reach this host, with their addresses: not those of workloads, and none
// without an address beyond the link.
func (l *loop) ways(all map[string][]netip.Addr) map[string][]string {
	ways := map[string][]string{}
	for name, addrs := range all {
		workload := slices.ContainsFunc(l.settings.now.InterfacePrefix, func(prefix string) bool { return strings.HasPrefix(name, prefix) })
		for _, a := range addrs {
			if a.IsGlobalUnicast() && !workload {
				ways[name] = append(ways[name], a.String())
			}
		}
	}
	return ways
}
