package typha

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"margay/serve"
	"margay/store"
)

// defaultConfigFile is the incumbent's.
const defaultConfigFile = "/etc/calico/typha.cfg"

// maxConfigFile bounds what is read of it, in bytes.
const maxConfigFile = 1 << 20

// Options say what typha runs on. OpenStore must be set; for the others the zero value will do.
type Options struct {
	// Environ holds NAME=value as os.Environ returns it: the TYPHA_ parameters and the datastore's.
	Environ []string
	// ConfigFile is typha's configuration file; "" reads /etc/calico/typha.cfg if it exists.
	ConfigFile string
	// Version of the program, for clients and metrics.
	Version string
	// LogHandler returns where the log goes; nil: text to standard error.
	LogHandler func(slog.Leveler) slog.Handler
	// OpenStore connects to the store. It is called again until it succeeds. Run closes what it returns.
	OpenStore func(context.Context, *Params) (store.Store, error)
	// Instances returns how many instances of typha serve the Kubernetes service that the parameters name. nil: there is no
	// way to know, and ConnectionRebalancingMode kubernetes has no effect.
	Instances func(context.Context, *Params) (int, error)
	// Listen opens all ports. nil: in the network namespace of the process.
	Listen func(ctx context.Context, network, address string) (net.Listener, error)
}

// Run is typha. It returns nil when the context ends and the clients are gone, and an error if it cannot begin: its file
// cannot be read, TLS is asked for and cannot be had, or its port is taken.
func Run(ctx context.Context, o Options) error {
	if o.Listen == nil {
		o.Listen = (&net.ListenConfig{}).Listen
	}
	params, problems, err := readParams(o)
	if err != nil {
		return err
	}
	d := &daemon{options: o, params: params}
	d.prepare()
	d.log.Info("starting", "version", o.Version)
	for _, problem := range problems {
		d.log.Warn("parameter", "problem", problem.String())
	}
	return d.run(ctx)
}

// readParams reads what Run begins with.
func readParams(o Options) (*Params, []Problem, error) {
	path := o.ConfigFile
	if path == "" {
		path = defaultConfigFile
	}
	file, err := serve.ReadBounded(path, maxConfigFile)
	if err != nil && (o.ConfigFile != "" || !errors.Is(err, fs.ErrNotExist)) {
		return nil, nil, fmt.Errorf("read configuration file: %w", err)
	}
	p, problems := resolveParams(o.Environ, file)
	names := [5]string{"TYPHA_CAFILE", "TYPHA_SERVERCERTFILE", "TYPHA_SERVERKEYFILE", "TYPHA_CLIENTCN", "TYPHA_CLIENTURISAN"}
	if err := p.TLS.Check(names); err != nil {
		return nil, nil, fmt.Errorf("configure TLS with clients: %w", err)
	}
	if p.TLS.Enabled() {
		if _, err := p.TLS.read(); err != nil {
			return nil, nil, fmt.Errorf("configure TLS with clients: %w", err)
		}
	}
	if p.RebalancingMode == "kubernetes" && o.Instances == nil {
		problems = append(problems, Problem{"ConnectionRebalancingMode",
			"the number of instances cannot be known with this datastore: clients are not spread (put several addresses under one name for FELIX_TYPHAADDR)"})
	}
	return p, problems, nil
}

// A daemon is typha with what is around the server.
type daemon struct {
	options Options
	params  *Params
	log     *slog.Logger
	server  *Server
	opening atomic.Pointer[string] // why the store is not open yet; nil: it is
}

// prepare makes the server. It starts nothing.
func (d *daemon) prepare() {
	handler := d.options.LogHandler
	if handler == nil {
		handler = func(level slog.Leveler) slog.Handler {
			return slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: level})
		}
	}
	counting := &countingHandler{Handler: handler(d.params.Level())}
	d.log = slog.New(counting)
	cfg := d.params.server()
	cfg.Version, cfg.Log = d.options.Version, d.log
	if d.options.Instances != nil && d.params.RebalancingMode == "kubernetes" {
		cfg.Instances = func(ctx context.Context) (int, error) { return d.options.Instances(ctx, d.params) }
	}
	d.server = NewServer(cfg)
	counting.failed = d.server.metrics.logErrors
	d.server.metrics.runtime(d.params.GoMetrics, d.params.ProcMetrics)
	d.server.metrics.build(d.options.Version)
	waiting := "waiting for the store"
	d.opening.Store(&waiting)
}

// A countingHandler counts the lines that could not be written.
type countingHandler struct {
	slog.Handler
	failed prometheus.Counter
}

// Handle implements slog.Handler.
func (h *countingHandler) Handle(ctx context.Context, r slog.Record) error {
	err := h.Handler.Handle(ctx, r)
	if err != nil {
		h.failed.Inc()
	}
	return err
}

// run serves everything until the context ends and the clients are gone: health and metrics are there as long as they are.
func (d *daemon) run(ctx context.Context) error {
	serving, stop := context.WithCancel(context.WithoutCancel(ctx))
	var wg sync.WaitGroup
	defer wg.Wait()
	defer stop()
	for _, e := range d.endpoints() {
		wg.Go(func() { e.Run(serving) })
	}
	s, err := d.open(ctx)
	if err != nil {
		return nil // the context has ended
	}
	defer func() {
		if err := s.Close(); err != nil {
			d.log.Warn("close store", "error", err)
		}
	}()
	err = d.server.Run(ctx, s, func(ctx context.Context) (net.Listener, error) {
		listener, err := d.options.Listen(ctx, "tcp", d.params.Address())
		if err != nil {
			return nil, fmt.Errorf("listen for clients: %w", err)
		}
		return listener, nil
	})
	d.log.Info("stopped")
	return err
}

// endpoints returns the HTTP servers that the parameters ask for.
func (d *daemon) endpoints() []*serve.Server {
	var all []*serve.Server
	if d.params.HealthEnabled {
		all = append(all, &serve.Server{
			Name: "health", Address: hostPort(d.params.HealthHost, d.params.HealthPort), Handler: probes(d.server.Live, d.ready),
			Listen: d.options.Listen, Log: d.log,
		})
	}
	if d.params.MetricsEnabled {
		all = append(all, &serve.Server{
			Name: "metrics", Address: hostPort(d.params.MetricsHost, d.params.MetricsPort), Handler: d.server.metrics.handler(),
			TLS: metricsTLS(d.params), Listen: d.options.Listen, Log: d.log,
		})
	}
	return all
}

func (d *daemon) ready() (bool, string) {
	if opening := d.opening.Load(); opening != nil {
		return false, *opening
	}
	return d.server.Ready()
}

// The pauses between attempts to open the store.
const (
	firstOpenPause = 100 * time.Millisecond
	lastOpenPause  = 5 * time.Second
)

// open tries until it succeeds; it fails only when the context ends.
func (d *daemon) open(ctx context.Context) (store.Store, error) {
	for wait := firstOpenPause; ; wait = min(2*wait, lastOpenPause) {
		s, err := d.options.OpenStore(ctx, d.params)
		if err == nil {
			d.opening.Store(nil)
			return s, nil
		}
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
		d.log.Error("the store cannot be opened, trying again", "error", err, "pause", wait)
		reason := err.Error()
		d.opening.Store(&reason)
		if err := pause(ctx, wait); err != nil {
			return nil, err
		}
	}
}
