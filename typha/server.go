package typha

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net"
	"runtime"
	"strings"
	"sync"
	"time"
	"unicode"
	"unicode/utf8"

	v3 "margay/api/v3"
	"margay/store"
)

// ServerConfig says how a server treats its clients. The zero value of a number or a time stands for the default in
// brackets; times and limits that the incumbent has have its defaults.
type ServerConfig struct {
	// Kinds that are followed and served [v3.AgentKinds].
	Kinds []v3.Kind
	// Version of this program, for clients.
	Version string
	// TLS with clients. Without it whoever reaches the port can read all policy.
	TLS TLSFiles

	// Window is how long changes are gathered when they come one after the other [10 ms]. One that comes alone is sent at
	// once.
	Window time.Duration
	// MaxCrumbs and MaxCrumbBytes bound the history from which a client resumes [10,000 and 64 MiB].
	MaxCrumbs, MaxCrumbBytes int

	// MaxFallBehind is how old the next change for a client may be before it is cut off [300 s], or it is when the change
	// is not held any more. After its snapshot a client has the time Grace to catch up once [300 s].
	MaxFallBehind, Grace time.Duration
	// WriteTimeout of one write [120 s]. A ping goes out every PingInterval [10 s]; a client that says nothing for
	// PongTimeout is gone [60 s].
	WriteTimeout, PingInterval, PongTimeout time.Duration
	// HandshakeTimeout bounds a handshake from its begin to hello [10 s]; there are at most MaxHandshakes at once [1,000], see
	// [gate]. MaxClients bounds the clients [20,000].
	HandshakeTimeout          time.Duration
	MaxHandshakes, MaxClients int

	// Instances returns how many instances of typha there are; nil: clients are not spread. It is asked every
	// PollInterval [30 s]. See [connectionLimit] for LowerLimit [400] and UpperLimit [10,000]; above the limit one client
	// is dropped every DropInterval [1 s].
	Instances                  func(context.Context) (int, error)
	LowerLimit, UpperLimit     int
	PollInterval, DropInterval time.Duration
	// A server that stops drops its clients one by one, within DrainTimeout [300 s], DrainInterval [1 s] apart at most.
	DrainTimeout, DrainInterval time.Duration

	Log *slog.Logger // nil: nothing is logged
}

func (c *ServerConfig) defaults() {
	if c.Kinds == nil {
		c.Kinds = v3.AgentKinds()
	}
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	for _, d := range []struct {
		value  *time.Duration
		preset time.Duration
	}{
		{&c.Window, 10 * time.Millisecond}, {&c.MaxFallBehind, 300 * time.Second}, {&c.Grace, 300 * time.Second},
		{&c.WriteTimeout, 120 * time.Second}, {&c.PingInterval, 10 * time.Second}, {&c.PongTimeout, 60 * time.Second},
		{&c.HandshakeTimeout, 10 * time.Second}, {&c.PollInterval, 30 * time.Second}, {&c.DropInterval, time.Second},
		{&c.DrainTimeout, 300 * time.Second}, {&c.DrainInterval, time.Second},
	} {
		if *d.value <= 0 {
			*d.value = d.preset
		}
	}
	for _, n := range []struct {
		value  *int
		preset int
	}{
		{&c.MaxCrumbs, 10_000}, {&c.MaxCrumbBytes, 64 << 20}, {&c.MaxHandshakes, 1000}, {&c.MaxClients, 20_000},
		{&c.LowerLimit, 400}, {&c.UpperLimit, 10_000},
	} {
		if *n.value <= 0 {
			*n.value = n.preset
		}
	}
}

// A Server serves one store to many clients.
type Server struct {
	cfg     ServerConfig
	log     *slog.Logger
	metrics *metrics
	tls     *tls.Config // nil: none
	cache   *cache
	gate    *gate
	jobs    chan job
	turns   *turns

	hello       []byte // the frame that answers a client's
	initialised initialised
	writers     writers
	reports     *unpacker

	mu       sync.Mutex
	peers    map[*peer]struct{}
	joined   int // peers so far
	draining bool
	limit    int // of peers, by rebalancing
}

// NewServer returns a server. It starts nothing.
func NewServer(cfg ServerConfig) *Server {
	cfg.defaults()
	m := newMetrics()
	server := &Server{
		cfg: cfg, log: cfg.Log, metrics: m, cache: newCache(&cfg, m), gate: newGate(cfg.MaxHandshakes, cfg.MaxClients, cfg.HandshakeTimeout/5),
		jobs: make(chan job), turns: newTurns(), peers: map[*peer]struct{}{}, limit: cfg.UpperLimit,
		reports: newUnpacker(maxReport),
		writers: writers{limit: cfg.MaxClients, names: map[string]struct{}{}},
		hello:   messageFrame(frameHello, serverHello{protocol, cfg.Version, cfg.Kinds}),
	}
	server.cache.published = server.turns.callAll
	if cfg.TLS.Enabled() {
		server.tls = (&reader{files: cfg.TLS}).server()
	}
	return server
}

// Run follows the store, and serves what listen returns once there is a complete state. When the context ends it lets
// the clients go one by one and returns nil. It fails only if listen does. A server runs once.
func (s *Server) Run(ctx context.Context, from store.Store, listen func(context.Context) (net.Listener, error)) error {
	// Those that are still connected are served while they are let go one by one.
	serving, stop := context.WithCancel(context.WithoutCancel(ctx))
	var wg sync.WaitGroup
	defer wg.Wait()
	defer stop()
	s.start(serving, from, &wg)
	select {
	case <-s.cache.synced:
	case <-ctx.Done():
		return nil
	}
	listener, err := listen(ctx)
	if err != nil {
		return err
	}
	s.log.Info("serving", "listener", "typha", "address", listener.Addr().String(), "tls", s.tls != nil)
	if s.tls == nil {
		s.log.Warn("whoever reaches this address can read all policy and report the state of nodes (give key, certificate, CA and the clients' name)",
			"address", listener.Addr().String())
	}
	wg.Go(func() { s.accept(serving, listener) })
	wg.Go(func() { s.watchInstances(serving) })
	wg.Go(func() { s.rebalance(serving) })
	<-ctx.Done()
	s.setDraining()
	_ = listener.Close() // ends accept
	s.drain()
	return nil
}

// start starts everything but what accepts clients.
func (s *Server) start(ctx context.Context, from store.Store, wg *sync.WaitGroup) {
	s.cache.store = from
	wg.Go(func() { s.cache.run(ctx) })
	for range maxJobs {
		wg.Go(func() { s.work(ctx) })
	}
	for range runtime.GOMAXPROCS(0) {
		wg.Go(func() { s.turns.run(ctx) })
	}
	context.AfterFunc(ctx, s.turns.stop)
	wg.Go(func() { s.pingAll(ctx) })
}

// Ready reports whether new clients can be served, and why not.
func (s *Server) Ready() (bool, string) {
	inSync, lost := s.cache.state()
	s.mu.Lock()
	draining := s.draining
	s.mu.Unlock()
	switch {
	case draining:
		return false, "stopping"
	case lost != nil:
		return false, "the store cannot be followed: " + lost.Error()
	case !inSync:
		return false, "waiting for the store"
	}
	return true, ""
}

// liveDeadline is how long it may take to make a crumb before the server counts as dead.
const liveDeadline = time.Minute

// Live reports whether changes are still handed on.
func (s *Server) Live() bool {
	since := s.cache.busy.Load()
	return since == 0 || time.Since(time.Unix(0, since)) < liveDeadline
}

// Pauses after a failed accept, such as for want of file descriptors.
const (
	firstAcceptPause = 5 * time.Millisecond
	lastAcceptPause  = time.Second
)

// accept takes connections until the listener is closed. No error of a single connection ends it.
func (s *Server) accept(ctx context.Context, listener net.Listener) {
	var wg sync.WaitGroup
	defer wg.Wait()
	pause := firstAcceptPause
	for {
		conn, err := listener.Accept()
		switch {
		case errors.Is(err, net.ErrClosed):
			return
		case err != nil:
			s.log.Error("a connection cannot be accepted, trying again", "error", err, "pause", pause)
			select {
			case <-ctx.Done():
				return
			case <-time.After(pause):
			}
			pause = min(2*pause, lastAcceptPause)
			continue
		}
		pause = firstAcceptPause
		s.metrics.accepted.Inc()
		from := addressOf(conn)
		if !s.gate.arrive(from) {
			_ = conn.Close()
			s.metrics.refused.WithLabelValues(refusedMany).Inc()
			continue
		}
		wg.Go(func() {
			at, err := s.gate.enter(ctx, conn, from)
			if err != nil {
				_ = conn.Close()
				return
			}
			s.metrics.active.Inc()
			defer s.metrics.active.Dec()
			s.serve(ctx, conn, at)
		})
	}
}

// serve serves one connection until it ends.
func (s *Server) serve(ctx context.Context, conn net.Conn, at *ticket) {
	remote := conn.RemoteAddr().String()
	p, err := s.admit(ctx, conn)
	evicted := s.gate.leave(at)
	if err != nil {
		_ = conn.Close()
		reason := refusal(err)
		if evicted {
			reason = refusedMany
		}
		s.metrics.refused.WithLabelValues(reason).Inc()
		s.log.Debug("handshake failed", "client", remote, "reason", reason, "error", err)
		return
	}
	s.log.Debug("client connected", "node", p.node, "client", remote)
	err = p.run(ctx)
	s.leave(p)
	s.log.Debug("client gone", "node", p.node, "client", remote, "reason", err)
}

// admit makes a client of a connection that says who it is.
func (s *Server) admit(ctx context.Context, conn net.Conn) (*peer, error) {
	p, err := s.handshake(ctx, conn)
	if err != nil {
		return nil, err
	}
	if err := s.join(p); err != nil {
		return nil, err
	}
	if err := p.welcome(); err != nil {
		s.leave(p)
		return nil, err
	}
	return p, nil
}

// refusedMany is the reason of those that were sent away because of how many there are.
const refusedMany = "too many"

// refusal sorts failed handshakes for the metric.
func refusal(err error) string {
	var timeout net.Error
	var unverified *tls.CertificateVerificationError
	switch {
	case errors.Is(err, errPeer), errors.As(err, &unverified):
		return "certificate"
	case errors.As(err, &timeout) && timeout.Timeout():
		return "timeout"
	case errors.Is(err, errFull):
		return "full"
	case errors.Is(err, errFrame), errors.Is(err, errHello):
		return "protocol"
	}
	return "other"
}

var (
	errFull  = errors.New("there are too many clients")
	errHello = errors.New("the client's hello cannot be used")
)

// handshake does everything that comes before a client is let in. The time for it goes on until [peer.welcome].
func (s *Server) handshake(ctx context.Context, conn net.Conn) (*peer, error) {
	if err := conn.SetDeadline(time.Now().Add(s.cfg.HandshakeTimeout)); err != nil {
		return nil, err
	}
	out := newOutlet(conn)
	conn = out
	if s.tls != nil {
		secured := tls.Server(conn, s.tls)
		if err := secured.HandshakeContext(ctx); err != nil {
			return nil, err
		}
		conn = secured
	}
	t, payload, err := readFrame(conn, maxHello)
	if err != nil {
		return nil, err
	}
	hello, err := readMessage[clientHello](payload)
	switch {
	case err != nil:
		return nil, fmt.Errorf("%w: %w", errHello, err)
	case t != frameHello || !isNode(hello.Node):
		return nil, fmt.Errorf("%w: no hello, or without the name of a node", errHello)
	case hello.Protocol != protocol:
		reason := fmt.Sprintf("protocol %d is spoken here, not %d (use the same release on both sides)", protocol, hello.Protocol)
		_, _ = conn.Write(messageFrame(frameBye, bye{reason})) // it is closed in any case
		return nil, fmt.Errorf("%w: %s", errHello, reason)
	}
	return newPeer(s, conn, out, hello.Node), nil
}

// isNode reports whether a name may be that of a node: it becomes part of keys of the store, of log lines and of tables.
func isNode(name string) bool {
	odd := func(r rune) bool { return r == '/' || r == utf8.RuneError || !unicode.IsPrint(r) }
	return name != "" && len(name) <= 253 && !strings.ContainsFunc(name, odd)
}

// join makes a peer one of those that are served.
func (s *Server) join(p *peer) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.peers) >= s.cfg.MaxClients {
		return errFull
	}
	s.joined++
	p.number = s.joined
	s.peers[p] = struct{}{}
	if s.draining {
		p.tell(errStopping)
	}
	return nil
}

func (s *Server) leave(p *peer) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.peers, p)
}

// pingAll pings every client once in the interval, some of them at a time.
func (s *Server) pingAll(ctx context.Context) {
	const parts = 10
	for i := 0; pause(ctx, s.cfg.PingInterval/parts) == nil; i++ {
		s.mu.Lock()
		for p := range s.peers {
			if p.number%parts == i%parts {
				p.put(func(b *box) { b.ping = true })
			}
		}
		s.mu.Unlock()
	}
}

// Why a client is sent away.
var (
	errStopping    = errors.New("this typha stops")
	errRebalancing = errors.New("clients are spread over the instances of typha")
)

func (s *Server) setDraining() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.draining = true
}

// count returns how many clients there are and how many there may be.
func (s *Server) count() (peers, limit int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.peers), s.limit
}

// dropOne sends one client away, any of them, and reports whether there was one.
func (s *Server) dropOne(reason error) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	candidates := make([]*peer, 0, len(s.peers))
	for p := range s.peers {
		if !p.sentAway() {
			candidates = append(candidates, p)
		}
	}
	if len(candidates) == 0 {
		return false
	}
	candidates[rand.IntN(len(candidates))].tell(reason)
	return true
}
