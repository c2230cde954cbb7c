package typha

import (
	"context"
	"encoding/json"
	"io"
	"log/slog"
	"net"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"

	v3 "margay/api/v3"
	"margay/store"
)

// A running server.
type running struct {
	server  *Server
	address string
	stop    context.CancelFunc
	stopped chan struct{}
}

// startServer starts a server on loopback and waits until it is in sync.
func startServer(t testing.TB, s store.Store, cfg ServerConfig) *running {
	t.Helper()
	return startServerAt(t, s, cfg, "127.0.0.1:0")
}

func startServerAt(t testing.TB, s store.Store, cfg ServerConfig, address string) *running {
	t.Helper()
	return startServerOn(t, s, cfg, func() (net.Listener, error) {
		var listener net.Listener
		err := error(nil)
		for range 200 { // the port of a server that was stopped may take a moment
			if listener, err = net.Listen("tcp", address); err == nil {
				return listener, nil
			}
			time.Sleep(10 * time.Millisecond)
		}
		return nil, err
	})
}

func startServerOn(t testing.TB, s store.Store, cfg ServerConfig, listen func() (net.Listener, error)) *running {
	t.Helper()
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.NewTextHandler(testWriter{t}, &slog.HandlerOptions{Level: slog.LevelWarn}))
	}
	if cfg.DrainTimeout == 0 {
		cfg.DrainTimeout, cfg.DrainInterval = time.Second, time.Millisecond
	}
	r := &running{server: NewServer(cfg), stopped: make(chan struct{})}
	ctx, cancel := context.WithCancel(context.Background())
	r.stop = func() { cancel(); <-r.stopped }
	listening := make(chan string, 1)
	go func() {
		defer close(r.stopped)
		err := r.server.Run(ctx, s, func(context.Context) (net.Listener, error) {
			listener, err := listen()
			if err == nil {
				listening <- listener.Addr().String()
			}
			return listener, err
		})
		if err != nil {
			t.Errorf("server: %v", err)
		}
	}()
	t.Cleanup(r.stop)
	select {
	case r.address = <-listening:
	case <-time.After(20 * time.Second):
		t.Fatal("the server does not listen")
	}
	return r
}

// pipes is a listener whose connections have no buffers: what is written waits for who reads it.
type pipes struct {
	conns chan net.Conn
	once  sync.Once
}

func newPipes() *pipes { return &pipes{conns: make(chan net.Conn)} }

// connect returns a stranger's end of a connection.
func (p *pipes) connect(t testing.TB) *stranger {
	theirs, ours := net.Pipe()
	p.conns <- theirs
	t.Cleanup(func() { ours.Close() })
	return &stranger{t, ours}
}

func (p *pipes) Accept() (net.Conn, error) {
	conn, ok := <-p.conns
	if !ok {
		return nil, net.ErrClosed
	}
	return conn, nil
}

func (p *pipes) Close() error {
	p.once.Do(func() { close(p.conns) })
	return nil
}

func (p *pipes) Addr() net.Addr { return &net.UnixAddr{Name: "pipe"} }

// client returns a client of the server.
func (f *running) client(t testing.TB, node string) *Client {
	t.Helper()
	return dialWith(t, ClientConfig{Addresses: Fixed(f.address), Node: node})
}

func dialWith(t testing.TB, cfg ClientConfig) *Client {
	t.Helper()
	if cfg.Node == "" {
		cfg.Node = "n"
	}
	c, err := Dial(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

// testWriter shows a log in the test's output, until the test is over.
type testWriter struct{ t testing.TB }

func (w testWriter) Write(b []byte) (int, error) {
	if w.t.Context().Err() == nil {
		w.t.Logf("%s", b)
	}
	return len(b), nil
}

// A stranger is a connection that does what a test says, frame by frame.
type stranger struct {
	testing.TB
	net.Conn
}

func (f *running) stranger(t testing.TB) *stranger {
	t.Helper()
	s := f.dialed(t)
	t.Cleanup(func() { s.Close() })
	return s
}

// dialed returns a stranger that the test closes.
func (f *running) dialed(t testing.TB) *stranger {
	t.Helper()
	conn, err := net.Dial("tcp", f.address)
	if err != nil {
		t.Fatal(err)
	}
	return &stranger{t, conn}
}

// introduced returns a stranger whose hello was accepted.
func (f *running) introduced(t testing.TB) *stranger {
	t.Helper()
	s := f.stranger(t)
	s.introduced()
	return s
}

// introduced says hello, and waits for the answer.
func (s *stranger) introduced() {
	s.Helper()
	s.send(frameHello, clientHello{Protocol: protocol, Node: "stranger"})
	s.want(frameHello)
}

func (s *stranger) send(t frameType, message any) {
	s.Helper()
	if _, err := s.Write(messageFrame(t, message)); err != nil {
		s.Fatal(err)
	}
}

// want reads frames, pings aside, until one of the type comes.
func (s *stranger) want(t frameType) []byte {
	s.Helper()
	_ = s.SetReadDeadline(time.Now().Add(20 * time.Second))
	for {
		got, payload, err := readFrame(s, maxServer)
		if err != nil {
			s.Fatalf("waiting for a frame of type %d: %v", t, err)
		}
		if got == t {
			return payload
		}
		if got != framePing {
			s.Fatalf("a frame of type %d came, %d was wanted: %s", got, t, payload)
		}
	}
}

// wantEnd reads until the server closes the connection.
func (s *stranger) wantEnd() {
	s.Helper()
	_ = s.SetReadDeadline(time.Now().Add(20 * time.Second))
	_, err := io.Copy(io.Discard, s)
	if timeout, ok := err.(net.Error); ok && timeout.Timeout() {
		s.Fatal("the server keeps the connection")
	}
}

func read[T any](t testing.TB, payload []byte) T {
	t.Helper()
	var message T
	if err := json.Unmarshal(payload, &message); err != nil {
		t.Fatal(err)
	}
	return message
}

// A follower follows a store and keeps what it says.
type follower struct {
	mu      sync.Mutex
	state   map[v3.Key]store.Event
	at      store.Revision
	err     error // of the last batch
	batches int
	losses  int
	changes int // events, those of the first batch left out
}

func follows(t testing.TB, s store.Store) *follower {
	t.Helper()
	f := &follower{state: map[v3.Key]store.Event{}}
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	t.Cleanup(func() { cancel(); wg.Wait() })
	wg.Go(func() {
		_ = store.Follow(ctx, s, v3.AgentKinds(), func(b store.Batch) error {
			f.take(b)
			return nil
		})
	})
	return f
}

func (f *follower) take(b store.Batch) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.err = b.Err
	if b.Err != nil {
		f.losses++
		return
	}
	for _, e := range b.Events {
		if e.Resource == nil && e.Fault == nil {
			delete(f.state, e.Key)
		} else {
			f.state[e.Key] = e
		}
	}
	if f.batches++; f.batches > 1 {
		f.changes += len(b.Events)
	}
	f.at = b.Revision
}

func (f *follower) get() (at store.Revision, losses int, err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.at, f.losses, f.err
}

// awaitRevision waits until the follower has everything up to a revision.
func (f *follower) awaitRevision(t testing.TB, revision store.Revision) {
	t.Helper()
	eventually(t, "a follower is at revision "+string(revision), func() bool {
		at, _, err := f.get()
		return err == nil && at == revision
	})
}

// same compares what a follower has with the store.
func (f *follower) same(t testing.TB, m *memory) {
	t.Helper()
	want, at := m.state()
	f.awaitRevision(t, at)
	f.mu.Lock()
	defer f.mu.Unlock()
	if len(f.state) != len(want) {
		t.Fatalf("%d objects, the store has %d", len(f.state), len(want))
	}
	for key, e := range want {
		got := f.state[key]
		a, b := mustJSON(got.Resource), mustJSON(e.Resource)
		if string(a) != string(b) || got.Revision != e.Revision || (got.Fault == nil) != (e.Fault == nil) {
			t.Fatalf("%s is\n%s@%s\nwant\n%s@%s", key, a, got.Revision, b, e.Revision)
		}
	}
}

// value returns a counter or gauge.
func value(t testing.TB, m prometheus.Metric) float64 {
	t.Helper()
	var out dto.Metric
	if err := m.Write(&out); err != nil {
		t.Fatal(err)
	}
	return out.GetCounter().GetValue() + out.GetGauge().GetValue()
}
