// Package controllers keeps the datastore in step with Kubernetes, for all of the cluster: one instance leads and works,
// others stand by. It knows two stores, and not what is behind them: the source shows what Kubernetes has as resources of
// projectcalico.org/v3, the target is the datastore that the agents follow. With the Kubernetes datastore they are one.
//
//	source --.                                  .--> target: profiles, policies, labels of workloads and Nodes,
//	         +--> view --> controllers --plan---+            host endpoints; Nodes that are gone, deleted
//	target --'    ^                             |
//	              '-----------------------------'
//
//	KubeControllersConfiguration + environment --> what runs --> status of the KubeControllersConfiguration
//	reports of the agents (target) --> notices --> Events of the objects (source)
//
// Work is by difference: both sides are listed and followed, what is different is written, with the revision that was
// seen. So it does not matter what was missed, who else writes, or where a predecessor was killed. Only what belongs to
// the controllers is touched; how that is told is written at each controller.
//
// It must not write to the source, but for Events, nor delete anything before both sides are listed completely, nor because
// an object is missing in a list without having asked for that object.
package controllers

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"reflect"
	"strconv"
	"sync"
	"time"

	v3 "margay/api/v3"
	"margay/serve"
	"margay/store"
)

// Options say what the controllers run on. OpenSource is needed for etcd only, OpenTarget always; for the others the zero
// value will do.
type Options struct {
	// Environ holds NAME=value as os.Environ returns it.
	Environ []string
	// Version of the program, for metrics.
	Version string
	// StatusFile is written for exec probes, "" for none; HealthPort serves /liveness and /readiness, 0 for none.
	StatusFile string
	HealthPort uint16
	// LogHandler returns where the log goes; nil: text to standard error.
	LogHandler func(slog.Leveler) slog.Handler
	// OpenSource and OpenTarget connect to the stores. They are called again until they succeed. Run closes what they return.
	OpenSource, OpenTarget func(context.Context) (store.Store, error)
	// OpenElector returns what makes one instance the leader; nil: there is only this one. It is called again until it
	// succeeds.
	OpenElector func(context.Context, *slog.Logger) (Elector, error)
	// Listen opens all ports. nil: in the network namespace of the process.
	Listen func(ctx context.Context, network, address string) (net.Listener, error)
}

// Datastore returns the type of the target that an environment asks for: TypeEtcd or TypeKubernetes.
func Datastore(environ []string) string { return newEnvironment(environ).datastore() }

// Run runs the controllers. It returns nil when the context ends, and an error if the environment says what cannot be.
func Run(ctx context.Context, o Options) error {
	env := newEnvironment(o.Environ)
	if err := env.check(); err != nil {
		return err
	}
	if o.LogHandler == nil {
		o.LogHandler = func(level slog.Leveler) slog.Handler {
			return slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: level})
		}
	}
	d := &daemon{options: o, env: env, level: &slog.LevelVar{}, metrics: newMetrics(o.Version)}
	d.log = slog.New(o.LogHandler(d.level))
	d.health = newHealth(o.StatusFile, d.log, d.metrics)
	d.log.Info("starting", "version", o.Version, "datastore", env.datastore())
	d.run(ctx)
	return nil
}

// A daemon is the controllers with what is around them.
type daemon struct {
	options Options
	env     environment
	level   *slog.LevelVar
	log     *slog.Logger
	metrics *metrics
	health  *health
	stores  [2]store.Store
}

var errStarting = errors.New("waiting for the stores")

func (d *daemon) run(ctx context.Context) {
	var wg sync.WaitGroup
	defer wg.Wait()
	d.health.set(componentStartup, errStarting)
	d.health.tell("leader", "standing by")
	if port := d.options.HealthPort; port != 0 {
		wg.Go(func() { d.server("health", port).Run(ctx) })
	}
	if !d.open(ctx) {
		return
	}
	defer d.close()
	working, stop := context.WithCancel(ctx)
	var electing sync.WaitGroup
	defer electing.Wait()
	defer stop()
	terms := make(chan term)
	electing.Go(func() { d.elect(working, terms) })
	d.supervise(working, terms)
}

// server returns the HTTP server for health or metrics.
func (d *daemon) server(name string, port uint16) *serve.Server {
	s := &serve.Server{Name: name, Handler: d.health.handler(), Listen: d.options.Listen, Log: d.log}
	host := ""
	if name == "metrics" {
		host, s.Handler = d.env[envMetricsHost], d.metrics.handler()
		s.TLS = serve.TLS{
			Cert: d.env[envMetricsCert], Key: d.env[envMetricsKey], CA: d.env[envMetricsCA],
			ClientAuth: serve.ClientAuth(d.env[envMetricsAuth], d.env[envMetricsCA]),
		}
	}
	s.Address = net.JoinHostPort(host, strconv.Itoa(int(port)))
	return s
}

// open opens and initialises the stores. false: the context has ended.
func (d *daemon) open(ctx context.Context) bool {
	openSource := d.options.OpenSource
	if d.env.datastore() == TypeKubernetes {
		openSource = nil
	}
	for _, s := range []struct {
		side side
		open func(context.Context) (store.Store, error)
	}{{target, d.options.OpenTarget}, {source, openSource}} {
		if s.open == nil {
			continue
		}
		d.until(ctx, "open "+s.side.String(), func(ctx context.Context) (err error) {
			d.stores[s.side], err = s.open(ctx)
			return err
		})
	}
	if d.stores[source] == nil {
		d.stores[source] = d.stores[target]
	}
	d.until(ctx, "initialise datastore", func(ctx context.Context) error { return d.stores[target].Initialise(ctx) })
	if ctx.Err() != nil {
		d.close()
		return false
	}
	d.health.set(componentStartup, nil)
	return true
}

func (d *daemon) close() {
	for s, opened := range d.stores {
		if opened == nil || side(s) == source && opened == d.stores[target] {
			continue
		}
		if err := opened.Close(); err != nil {
			d.log.Warn("close store", "side", side(s).String(), "error", err)
		}
	}
}

// until does something until it succeeds or the context ends.
func (d *daemon) until(ctx context.Context, what string, do func(context.Context) error) {
	for wait := firstBackoff; ctx.Err() == nil; wait = min(2*wait, lastBackoff/3) {
		err := do(ctx)
		if err == nil {
			return
		}
		if ctx.Err() == nil {
			d.log.Error("cannot "+what+", trying again", "error", err, "pause", wait)
			d.health.set(componentStartup, fmt.Errorf("%s: %w", what, err))
			pause(ctx, wait)
		}
	}
}

// A term is a time of leading. ctx ends with it; done is closed when nothing is done in it any more.
type term struct {
	ctx  context.Context
	done chan struct{}
}

// elect hands over a term whenever this instance leads.
func (d *daemon) elect(ctx context.Context, terms chan<- term) {
	elector := Elector(alone{})
	if d.options.OpenElector != nil {
		d.until(ctx, "take part in the election", func(ctx context.Context) (err error) {
			elector, err = d.options.OpenElector(ctx, d.log)
			if err == nil {
				d.health.set(componentStartup, nil)
			}
			return err
		})
	}
	if ctx.Err() != nil {
		return
	}
	elector.Run(ctx, func(leading context.Context) {
		t := term{leading, make(chan struct{})}
		select {
		case terms <- t:
			<-t.done
		case <-leading.Done():
		}
	})
}

// A supervisor has one part run or not, as configuration and leadership have it.
type supervisor struct {
	*daemon
	stored *v3.KubeControllersConfiguration // as last read; nil: there is none
	known  bool                             // it was read
	run    *v3.KubeControllersConfigurationSpec

	term   term // the zero value: somebody else leads
	engine part
	forget part // of history
	tell   part // of what agents warn of
	checks part
	server part
	retry  time.Duration // before the status is written again; 0: it is written
	wrote  time.Time     // when it was written last
}

// A part runs in the background until it is stopped.
type part struct {
	stop func() // nil: not running
}

func (p *part) start(ctx context.Context, run func(context.Context)) {
	ctx, cancel := context.WithCancel(ctx)
	done := make(chan struct{})
	go func() { defer close(done); run(ctx) }()
	p.stop = func() { cancel(); <-done }
}

func (p *part) halt() {
	if p.stop != nil {
		p.stop()
		p.stop = nil
	}
}

// supervise runs what shall run until the context ends.
func (d *daemon) supervise(ctx context.Context, terms <-chan term) {
	s := &supervisor{daemon: d}
	configs := make(chan *v3.KubeControllersConfiguration)
	var follow part
	follow.start(ctx, func(ctx context.Context) { d.followConfig(ctx, configs) })
	defer follow.halt()
	defer s.end()
	defer s.server.halt()
	defer s.checks.halt()
	for ctx.Err() == nil {
		var retry <-chan time.Time
		if s.retry > 0 {
			retry = time.After(s.retry)
		}
		select {
		case <-ctx.Done():
			return
		case s.stored = <-configs:
			s.known = true
			s.configure(ctx)
		case t := <-terms:
			s.begin(t)
		case <-s.lost():
			s.end()
		case <-retry:
		}
		s.keepStatus(ctx)
	}
}

// followConfig delivers the configuration and its changes, nil while there is none.
func (d *daemon) followConfig(ctx context.Context, configs chan<- *v3.KubeControllersConfiguration) {
	first := true
	_ = store.Follow(ctx, d.stores[target], []v3.Kind{v3.KindKubeControllersConfiguration}, func(b store.Batch) error {
		send := first && b.InSync
		var config *v3.KubeControllersConfiguration
		for _, e := range b.Events {
			if e.Key.Name != v3.KubeControllersConfigurationName {
				continue
			}
			if e.Fault != nil {
				d.log.Error("the configuration cannot be read: the last good one stays in force", "error", e.Fault)
				continue
			}
			send = true
			config, _ = e.Resource.(*v3.KubeControllersConfiguration)
		}
		if !send {
			return nil
		}
		first = false
		select {
		case configs <- config:
			return nil
		case <-ctx.Done():
			return ctx.Err()
		}
	})
}

// lost yields when the term ends.
func (s *supervisor) lost() <-chan struct{} {
	if s.term.ctx == nil {
		return nil
	}
	return s.term.ctx.Done()
}

func (s *supervisor) begin(t term) {
	s.log.Info("leading")
	s.metrics.leader.Set(1)
	s.health.tell("leader", "leading")
	s.term = t
	s.work()
	s.keepForgetting()
	if to, ok := s.stores[source].(store.Notifier); ok {
		s.tell.start(t.ctx, s.notices(to))
	}
}

func (s *supervisor) end() {
	if s.term.ctx == nil {
		return
	}
	s.engine.halt()
	s.forget.halt()
	s.tell.halt()
	close(s.term.done)
	s.term, s.retry = term{}, 0
	s.log.Info("no longer leading")
	s.metrics.leader.Set(0)
	s.health.tell("leader", "standing by")
}

// configure brings what runs in line with the configuration. Parts whose settings stay the same go on.
func (s *supervisor) configure(ctx context.Context) {
	spec := defaultSpec()
	if s.stored != nil {
		spec = s.stored.Spec
	}
	now, before := running(&spec, s.env).RunningConfig, s.run
	if s.run = now; before == nil {
		before = &v3.KubeControllersConfigurationSpec{}
	}
	s.level.Set(level(now.LogSeverityScreen))
	if before.PrometheusMetricsPort == nil || *before.PrometheusMetricsPort != *now.PrometheusMetricsPort {
		s.server.halt()
		if port := *now.PrometheusMetricsPort; port > 0 {
			s.server.start(ctx, s.daemon.server("metrics", uint16(port)).Run)
		}
	}
	if before.HealthChecks != now.HealthChecks {
		s.checks.halt()
		if now.HealthChecks == enabled {
			s.checks.start(ctx, s.check)
		} else {
			s.health.forget(componentDatastore)
			s.health.forget(componentKubernetes)
		}
	}
	if !reflect.DeepEqual(before.Controllers, now.Controllers) {
		s.work()
	}
	if before.EtcdV3CompactionPeriod == nil || *before.EtcdV3CompactionPeriod != *now.EtcdV3CompactionPeriod {
		s.keepForgetting()
	}
}

// work starts the engine anew, if there is a term and a configuration.
func (s *supervisor) work() {
	s.engine.halt()
	if s.term.ctx == nil || !s.known {
		return
	}
	e := &engine{
		stores: s.stores, controllers: s.build(), period: s.period(), log: s.log, metrics: s.metrics, health: s.health,
	}
	s.log.Info("working", "controllers", names(e.controllers))
	s.engine.start(s.term.ctx, e.run)
}

// keepForgetting has the datastore's history compacted, if there is a term and a period.
func (s *supervisor) keepForgetting() {
	s.forget.halt()
	history, ok := s.stores[target].(compacter)
	if s.term.ctx == nil || !s.known || !ok {
		return
	}
	if period := s.run.EtcdV3CompactionPeriod.Duration; period > 0 {
		s.forget.start(s.term.ctx, func(ctx context.Context) { s.compact(ctx, history, period) })
	}
}

// build returns the controllers that the configuration asks for.
func (s *supervisor) build() []controller {
	var list []controller
	c := s.run.Controllers
	if c.Node != nil {
		if s.env.datastore() == TypeEtcd {
			list = append(list, newNodeController(c.Node.SyncLabels == enabled))
		}
		hosts, err := newHostController(c.Node.HostEndpoint)
		if err != nil {
			s.log.Error("automatic host endpoints stay as they are", "error", err)
		} else {
			list = append(list, hosts)
		}
	}
	for _, copier := range []struct {
		config *v3.ControllerConfig
		made   controller
	}{
		{c.Policy, policyController()}, {c.Namespace, namespaceController()}, {c.ServiceAccount, serviceAccountController()},
		{c.WorkloadEndpoint, workloadController{}},
	} {
		if copier.config != nil {
			list = append(list, copier.made)
		}
	}
	return list
}

func names(list []controller) []string {
	var all []string
	for _, c := range list {
		all = append(all, c.name())
	}
	return all
}

// period returns the shortest reconciler period of all controllers; 0 is none.
func (s *supervisor) period() time.Duration {
	c := s.run.Controllers
	shortest := time.Duration(0)
	for _, config := range []*v3.ControllerConfig{c.Policy, c.Namespace, c.ServiceAccount, c.WorkloadEndpoint} {
		if config == nil || config.ReconcilerPeriod == nil || config.ReconcilerPeriod.Duration <= 0 {
			continue
		}
		if d := config.ReconcilerPeriod.Duration; shortest == 0 || d < shortest {
			shortest = d
		}
	}
	if c.Node != nil && (shortest == 0 || shortest > defaultPeriod) {
		shortest = defaultPeriod
	}
	return shortest
}

// Bounds of the status: how long one write may take, and how long it takes to the next, should somebody write against us.
const (
	statusTimeout = 10 * time.Second
	statusPause   = 200 * time.Millisecond
)

// keepStatus writes what runs into the configuration's status, and the configuration if there is none. Only who leads does.
func (s *supervisor) keepStatus(ctx context.Context) {
	if s.term.ctx == nil || !s.known {
		return
	}
	if wait := time.Until(s.wrote.Add(statusPause)); wait > 0 {
		s.retry = wait
		return
	}
	err := s.writeStatus(ctx)
	switch {
	case err == nil:
		s.retry = 0
	case errors.Is(err, store.ErrConflict), errors.Is(err, store.ErrExists):
		s.retry = min(max(2*s.retry, firstBackoff), lastBackoff) // its change is on the way
	case ctx.Err() == nil:
		s.retry = min(max(2*s.retry, firstBackoff), lastBackoff)
		s.log.Warn("cannot write the status of the configuration, trying again", "error", err, "pause", s.retry)
	}
}

func (s *supervisor) writeStatus(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, statusTimeout)
	defer cancel()
	if s.stored == nil {
		info, _ := v3.Lookup(v3.KindKubeControllersConfiguration)
		config := info.New().(*v3.KubeControllersConfiguration)
		config.Name, config.Spec = v3.KubeControllersConfigurationName, defaultSpec()
		config.Status = running(&config.Spec, s.env)
		return s.keep(s.stores[target].Create(ctx, config))
	}
	if want := running(&s.stored.Spec, s.env); !same(want, s.stored.Status) {
		config := *s.stored
		config.Status = want
		return s.keep(s.stores[target].Update(ctx, &config))
	}
	return nil
}

// keep remembers what was written, until it comes back.
func (s *supervisor) keep(r v3.Resource, err error) error {
	if config, ok := r.(*v3.KubeControllersConfiguration); ok && err == nil {
		s.stored, s.wrote = config, time.Now()
	}
	return err
}

// The pauses of the health checks, as the incumbent has them.
const (
	checkPause   = 10 * time.Second
	retryPause   = 2 * time.Second
	checkTimeout = 4 * time.Second
	maxCheck     = 16 * time.Second
)

// check asks both stores again and again whether they answer, with more patience after each time that one did not.
func (d *daemon) check(ctx context.Context) {
	waiting := errors.New("not checked yet")
	d.health.set(componentDatastore, waiting)
	d.health.set(componentKubernetes, waiting)
	timeout := checkTimeout
	for ctx.Err() == nil {
		ask := func(component string, do func(context.Context) error) bool {
			ctx, cancel := context.WithTimeout(ctx, timeout)
			defer cancel()
			err := do(ctx)
			d.health.set(component, err)
			return err == nil
		}
		ok := ask(componentDatastore, d.stores[target].Initialise)
		if ask(componentKubernetes, d.askKubernetes) && ok {
			timeout = checkTimeout
			pause(ctx, checkPause)
			continue
		}
		timeout = min(2*timeout, maxCheck)
		pause(ctx, retryPause)
	}
}

// askKubernetes: any answer will do, that there is no such Node as well.
func (d *daemon) askKubernetes(ctx context.Context) error {
	_, err := d.stores[source].Get(ctx, v3.Key{Kind: v3.KindNode, Name: "margay-health-check"})
	var fault *store.Fault
	if errors.Is(err, store.ErrNotFound) || errors.As(err, &fault) {
		return nil
	}
	return err
}
