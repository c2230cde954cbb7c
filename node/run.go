// Package node is the agent of one host: it follows the store, calculates what this host must enforce and keeps the
// kernel at that. It is the only place with a loop, retries and time in it; what to enforce is decided in calc, how in the
// dataplane, and what is stored in store.
//
//	store.Follow --> feed --updates--> +------+
//	                                   | loop | --> calc.Update/Flush --> dataplane.Apply, Resync --> kernel
//	links.Follow --interfaces--------> |      | <-- Disturbed: somebody else changed the table
//	pods.Follow --ways to workloads--> |      |
//	                                   +------+
//	                                      |
//	                                      +--> health (/liveness, /readiness), metrics (/metrics), status (to the store)
//
// # When the kernel is programmed
//
// Not before the first complete snapshot of the store and the first complete list of interfaces. From then on every
// change at once; changes that arrived in the meantime go together. After an error the whole state is compared and put
// right, again and again, and the agent is not ready until that succeeds. Whatever ends the agent, or its connection to
// the store, the rules stay in force.
//
// # Stored values that cannot be used
//
// A stored value that does not decode or validate never changes what is in force. Its last good version holds until
// it is repaired, and log, metrics, readiness detail and status name it. After a restart the last good version comes
// from the store's history, or, when that is compacted, from a file of an earlier run. When it is found nowhere, a policy
// is replaced by a stand-in that denies both directions for what the stored value can still be seen to select, in
// its tier and at its order, and where these cannot be read, for all endpoints and first of all; failsafe ports stay open.
// Objects of other kinds are absent then. This can happen only when the value went bad, and the history
// was compacted, while no agent ran here; host endpoints of this host are kept on disk all the time and are exempt.
//
// Such a host is ready: it enforces the last good state. The detail tells what is wrong.
package node

import (
	"cmp"
	"context"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"sync"
	"time"

	v3 "margay/api/v3"
	"margay/calc"
	"margay/dataplane"
	"margay/node/links"
	"margay/node/params"
	"margay/node/pods"
	"margay/ruleset"
	"margay/store"
)

// DefaultStateDir is where the agent keeps the last good versions of what it enforces.
const DefaultStateDir = "/var/lib/margay/node"

// A Dataplane is what the agent needs beyond enforcing.
type Dataplane interface {
	dataplane.Dataplane
	// Prepare makes connections tracked from now on, when nothing is programmed yet; it filters nothing. Flows that
	// began before, such as the agent's to the store, then survive the first rules.
	Prepare(ctx context.Context) error
	// Disturbed yields a value after somebody else changed what was programmed.
	Disturbed() <-chan struct{}
	// Stats may be called from any goroutine.
	Stats() DataplaneStats
}

// DataplaneStats count what is programmed now, and what it took since the start.
type DataplaneStats struct {
	Chains, Rules, Sets, Elements  int
	Transactions, Messages, Errors int
}

// Options say what an agent runs on. OpenStore and OpenDataplane must be set; for the others the zero value will do.
type Options struct {
	// Environ holds NAME=value as os.Environ returns it: the FELIX_ parameters, NODENAME and the datastore's.
	Environ []string
	// ConfigFile is Felix's configuration file; "" reads /etc/calico/felix.cfg if it exists.
	ConfigFile string
	// Version of the program, for status and metrics.
	Version string
	// StateDir holds the agent's files; "" is DefaultStateDir.
	StateDir string
	// LogHandler returns where the log goes; lines below the level, which changes at run time, are left out. nil: text
	// to standard error.
	LogHandler func(slog.Leveler) slog.Handler
	// OpenStore connects to the store. It is called again until it succeeds. The agent closes what it returns.
	OpenStore func(context.Context, StoreConfig) (store.Store, error)
	// OpenDataplane returns what enforces. An error ends the agent.
	OpenDataplane func(context.Context, *slog.Logger) (Dataplane, error)
	// Interfaces delivers all interfaces of the host with their addresses in order, at first and after every change,
	// until the context ends. nil: links.Follow in the network namespace of the process.
	Interfaces func(ctx context.Context, deliver func(map[string][]netip.Addr)) error
	// Ways delivers the ways to workloads that the kernel knows, at first and after every change, until the context ends.
	// nil: if Interfaces is nil, pods.Follow in the network namespace of the process; otherwise none are known.
	Ways func(ctx context.Context, deliver func(map[netip.Addr]calc.Way)) error
	// FilterBridge has what passes between ports of a bridge pass the hooks of IP. nil: if Interfaces is nil, pods.FilterBridge in
	// the network namespace of the process; otherwise nobody does.
	FilterBridge func(name string) error
	// TracksIPVS reports whether connection tracking sees what IPVS balances. nil: if Interfaces is nil, net.ipv4.vs.conntrack in the
	// network namespace of the process says so; otherwise nobody asks.
	TracksIPVS func() bool
	// ReadLog delivers the packets that rules with action Log matched, until the context ends. nil: none are logged.
	ReadLog func(ctx context.Context, report func(PacketLog)) error
	// ReadCounters returns what the dataplane has counted, each counter never less than before. It is called by one goroutine
	// at a time. nil: nothing is counted.
	ReadCounters func(context.Context) ([]ruleset.Counter, error)
	// Listen opens the ports of metrics and health. nil: in the network namespace of the process.
	Listen func(ctx context.Context, network, address string) (net.Listener, error)
}

func (o *Options) defaults() {
	if o.StateDir == "" {
		o.StateDir = DefaultStateDir
	}
	if o.Listen == nil {
		o.Listen = (&net.ListenConfig{}).Listen
	}
	if o.LogHandler == nil {
		o.LogHandler = func(level slog.Leveler) slog.Handler {
			return slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: level})
		}
	}
}

// Run is the agent. It returns nil when the context ends, with the rules left in force, and an error only if it cannot
// begin: its configuration file cannot be read, the host's name is unknown, another agent runs here, or there is no dataplane.
func Run(ctx context.Context, o Options) error {
	if Running(o.StateDir) {
		return fmt.Errorf("start agent: another one answers in %s (stop it first: two would undo each other's rules)", cmp.Or(o.StateDir, DefaultStateDir))
	}
	a, err := newAgent(o)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(ctx)
	var wg sync.WaitGroup
	defer wg.Wait()
	defer cancel()
	wg.Go(func() { a.settings.healthServer.run(ctx) })
	wg.Go(func() { a.settings.metricServer.run(ctx) })

	dp, err := a.openDataplane(ctx)
	if err != nil {
		return err
	}
	defer func() {
		if err := dp.Close(); err != nil {
			a.log.Warn("close dataplane", "error", err)
		}
	}()
	l := newLoop(a, dp)
	wg.Go(func() { a.answer(ctx, l.questions) })
	wg.Go(func() { a.followStore(ctx, l) })
	wg.Go(func() { a.followInterfaces(ctx, l.interfaces) })
	if a.options.Ways != nil {
		wg.Go(func() { a.followWays(ctx, l.waysFound) })
	}
	if a.options.ReadLog != nil {
		wg.Go(func() { readPackets(ctx, a.log, a.options.ReadLog) })
	}
	l.run(ctx)
	a.log.Info("stopping; the rules stay in force")
	return nil
}

// An agent is what the parts of a running agent share. All of it may be used by several goroutines, but for settings.
type agent struct {
	options     Options
	host        string
	storeConfig StoreConfig
	log         *slog.Logger
	metrics     *metrics
	health      *health
	standing    *standing
	endpoints   *endpointStates
	reported    chan struct{} // kicked when there is something new to report to the store
	settings    *settings
}

// newAgent resolves the parameters. It starts nothing.
func newAgent(o Options) (*agent, error) {
	sources, err := readSources(o)
	if err != nil {
		return nil, err
	}
	p, _ := params.Resolve(sources)
	a := &agent{options: o, host: p.FelixHostname, standing: &standing{}, reported: make(chan struct{}, 1)}
	a.endpoints = newEndpointStates(func() { kick(a.reported) })
	a.metrics = newMetrics(a.host, o.Version)
	a.health = newHealth(time.Now, func() { kick(a.reported) })
	a.metrics.watchHealth(a.health)
	a.metrics.watchCounters(o.ReadCounters)
	var level slog.LevelVar
	a.options.defaults()
	a.log = slog.New(&countingHandler{a.options.LogHandler(&level), a.metrics.logErrors}).With("node", a.host)
	if a.options.Interfaces == nil {
		a.options.Interfaces = func(ctx context.Context, deliver func(map[string][]netip.Addr)) error {
			return links.Follow(ctx, links.Options{Log: a.log, Running: a.endpoints.setRunning}, deliver)
		}
		if a.options.Ways == nil {
			a.options.Ways = func(ctx context.Context, deliver func(map[netip.Addr]calc.Way)) error {
				return pods.Follow(ctx, pods.Options{Log: a.log}, deliver)
			}
		}
		if a.options.FilterBridge == nil {
			a.options.FilterBridge = func(name string) error { return pods.FilterBridge(pods.Options{}, name) }
		}
		if a.options.TracksIPVS == nil {
			a.options.TracksIPVS = tracksIPVS
		}
	}
	a.log.Info("starting", "version", o.Version)
	a.settings = &settings{
		sources: sources, resources: map[string]*v3.FelixConfiguration{}, log: a.log, level: &level,
		healthServer: newListener("health", a.health.handler(), a),
		metricServer: newListener("metrics", a.metrics.handler(), a),
		metrics:      a.metrics, health: a.health,
	}
	a.settings.apply()
	a.storeConfig = a.settings.store()
	return a, nil
}

func (a *agent) openDataplane(ctx context.Context) (Dataplane, error) {
	dp, err := a.options.OpenDataplane(ctx, a.log)
	if err != nil {
		return nil, fmt.Errorf("open dataplane: %w", err)
	}
	a.metrics.watchDataplane(dp.Stats)
	if err := dp.Prepare(ctx); err != nil {
		a.log.Warn("connection tracking is not on before the first rules", "error", err)
	}
	return dp, nil
}

func newLoop(a *agent, dp Dataplane) *loop {
	l := &loop{
		log: a.log, metrics: a.metrics, health: a.health, standing: a.standing, endpoints: a.endpoints, reported: a.reported,
		dataplane: dp, settings: a.settings, filterBridge: a.options.FilterBridge, tracksIPVS: a.options.TracksIPVS,
		updates: make(chan update, maxDrain), interfaces: newMailbox[addressList](), waysFound: newMailbox[wayList](), located: a.options.Ways == nil, questions: make(chan chan<- snapshot),
		calc: calc.New(a.host), program: ruleset.NewProgram(),
		held: map[v3.Key]v3.Resource{}, warnings: map[string]bool{}, slips: newSlips(), hostPods: make(chan []v3.HostPod),
		resync: true, retry: backoff{first: firstRetry, last: lastPause},
	}
	l.configure()
	return l
}

// followInterfaces keeps the loop's list up to date until the context ends.
func (a *agent) followInterfaces(ctx context.Context, into *mailbox[addressList]) {
	if err := a.options.Interfaces(ctx, into.put); ctx.Err() == nil {
		a.log.Error("interfaces are no longer followed", "error", err)
		a.health.set(componentInterfaces, condition{detail: fmt.Sprintf("no longer followed: %v", err)})
	}
}

// followStore connects, and feeds the loop until the context ends.
func (a *agent) followStore(ctx context.Context, l *loop) {
	s, err := a.openStore(ctx)
	if err != nil {
		return
	}
	defer func() {
		if err := s.Close(); err != nil {
			a.log.Warn("close store", "error", err)
		}
	}()
	keep, err := openKeeper(a.options.StateDir)
	if err != nil {
		a.log.Warn("last good versions will not survive a restart", "error", err)
	}
	var wg sync.WaitGroup
	defer wg.Wait()
	wg.Go(func() { register(ctx, s, a.host, a.log) })
	wg.Go(func() {
		r := &reporter{store: s, log: a.log, reports: a.metrics.reports, kicked: a.reported,
			current: a.status, timing: a.settings.reportingNow, started: time.Now()}
		r.run(ctx)
	})
	if s, ok := s.(store.HostPods); ok {
		wg.Go(func() { a.followHostPods(ctx, s, l.hostPods) })
	}
	if s, ok := s.(store.EndpointReporter); ok {
		wg.Go(func() {
			(&endpointReporter{store: s, node: a.host, log: a.log, states: a.endpoints, timing: a.settings.reportingNow}).run(ctx)
		})
	}
	if err := newFeed(a.host, s, keep, a.log).run(ctx, l.updates); ctx.Err() == nil {
		panic(fmt.Sprintf("following the store ended without a reason: %v", err))
	}
}

// openStore tries until it succeeds; it fails only when the context ends.
func (a *agent) openStore(ctx context.Context) (store.Store, error) {
	retry, refusals := backoff{first: firstPause, last: lastPause}, repeats{}
	for {
		s, err := a.options.OpenStore(ctx, a.storeConfig)
		if err == nil {
			return s, nil
		}
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
		pause := retry.step()
		if refusals.new(err) {
			a.log.Error("the store cannot be opened, trying again", "error", err, "pause", pause)
		}
		a.health.set(componentStore, condition{detail: err.Error()})
		if err := wait(ctx, pause); err != nil {
			return nil, err
		}
	}
}

// status is what the agent says of itself to the store.
func (a *agent) status() store.NodeStatus {
	ready, detail := a.health.ready()
	enforced, faults, warnings := a.standing.get()
	s := store.NodeStatus{
		Node: a.host, Enforced: enforced, Ready: ready, Detail: detail, Version: a.options.Version,
		Time: time.Now().UTC().Format(time.RFC3339), TTLSeconds: int(a.settings.reportingNow().ttl / time.Second),
	}
	s.Unused = a.settings.unusedNow()
	s.Faults = faultTexts(faults)
	s.Warnings, s.Endpoints, s.Interfaces = warnings, a.endpoints.texts(), a.standing.interfaces()
	return s
}
