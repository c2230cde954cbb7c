package typha

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"strings"
	"testing"
	"time"

	v3 "margay/api/v3"
	"margay/store"
)

// TestSlowClient: one that reads nothing is cut off, and the others do not notice.
func TestSlowClient(t *testing.T) {
	m := filled(100)
	fan := startServer(t, m, ServerConfig{WriteTimeout: 3 * time.Second, PongTimeout: time.Minute})
	quick := follows(t, fan.client(t, "quick"))
	quick.same(t, m)
	slow := fan.introduced(t)
	slow.send(frameFollow, follow{Mode: modeSnapshot})
	cutOff := fan.server.metrics.cut.WithLabelValues(errTooSlow.Error())
	var worst time.Duration
	for i := 0; value(t, cutOff) == 0; i++ {
		if i > 2000 {
			t.Fatal("it is not cut off")
		}
		s := set("big")
		s.Annotations = map[string]string{"text": randomText(64 << 10)}
		start := time.Now()
		quick.awaitRevision(t, m.put(s))
		worst = max(worst, time.Since(start))
	}
	if worst >= fan.server.cfg.WriteTimeout {
		t.Errorf("another client waited %v", worst)
	}
	if at, losses, err := quick.get(); losses > 0 {
		t.Errorf("another client lost its connection at %s: %v", at, err)
	}
	slow.wantEnd()
}

// randomText returns letters that do not compress well.
func randomText(n int) string {
	b := make([]byte, n)
	for i := range b {
		b[i] = byte('A' + rand.IntN(58))
	}
	return string(b)
}

// TestFallsBehind: a client that reads, but not enough, is cut off when what it waits for is not held any more, or too old.
func TestFallsBehind(t *testing.T) {
	for _, c := range []struct {
		name string
		cfg  ServerConfig
	}{
		{"not held", ServerConfig{MaxCrumbBytes: 1 << 20, Grace: time.Nanosecond}},
		{"too old", ServerConfig{MaxFallBehind: 100 * time.Millisecond, Grace: time.Nanosecond}},
	} {
		t.Run(c.name, func(t *testing.T) {
			m := filled(100)
			c.cfg.PongTimeout, c.cfg.Window = time.Minute, time.Microsecond
			listener := newPipes()
			fan := startServerOn(t, m, c.cfg, func() (net.Listener, error) { return listener, nil })
			slow := listener.connect(t)
			slow.send(frameHello, clientHello{Protocol: protocol, Node: "slow"})
			slow.want(frameHello)
			slow.send(frameFollow, follow{Mode: modeSnapshot})
			slow.want(frameAccepted)
			slow.want(frameChunk)
			cutOff := fan.server.metrics.cut.WithLabelValues(errFellBehind.Error())
			for i := 0; value(t, cutOff) == 0; i++ {
				if i > 500 {
					t.Fatal("it is not cut off")
				}
				s := set("big")
				s.Annotations = map[string]string{"text": randomText(64 << 10)}
				revision := m.put(s)
				eventually(t, "typha has seen it", func() bool { return m.Reached(fan.tip().revision, revision) })
				if i%10 != 9 {
					continue
				}
				if _, _, err := readFrame(slow, maxServer); err != nil {
					break // it was cut off
				}
			}
			slow.wantEnd()
		})
	}
}

// TestGrace: after its snapshot a client may be behind for a time.
func TestGrace(t *testing.T) {
	m := filled(100)
	fan := startServer(t, m, ServerConfig{MaxCrumbs: 1, Grace: time.Minute, Window: time.Microsecond})
	p := &peer{server: fan.server, at: fan.tip(), grace: true, graceEnd: time.Now().Add(time.Minute)}
	for i := range 3 {
		revision := m.put(set(fmt.Sprint("x", i)))
		eventually(t, "typha has seen it", func() bool { return fan.tip().revision == revision })
	}
	if err := p.keepsUp(time.Now()); err != nil {
		t.Errorf("within the grace period: %v", err)
	}
	if value(t, fan.server.metrics.graceUsed) != 1 {
		t.Error("not counted")
	}
	if err := p.keepsUp(p.graceEnd.Add(1)); !errors.Is(err, errFellBehind) {
		t.Errorf("after it: %v", err)
	}
	p.at = fan.tip()
	if err := p.keepsUp(time.Now()); err != nil || p.grace {
		t.Errorf("caught up: %v, grace %v", err, p.grace)
	}
}

// TestBehindClient: an agent that takes nothing in does not use more memory than it may; when it comes back it misses nothing.
func TestBehindClient(t *testing.T) {
	m := filled(10)
	fan := startServer(t, m, ServerConfig{Window: time.Microsecond})
	c := dialWith(t, ClientConfig{Addresses: Fixed(fan.address), MaxBehind: 2000})
	list, err := c.List(t.Context(), "", v3.AgentKinds()...)
	if err != nil {
		t.Fatal(err)
	}
	w := c.Watch(t.Context(), list.Revision, v3.AgentKinds()...)
	defer w.Close()
	var last store.Revision
	for i := range 500 {
		s := set(fmt.Sprint("x", i))
		s.Annotations = map[string]string{"text": randomText(200)}
		if last = m.put(s); i%100 == 0 { // several crumbs
			eventually(t, "typha has seen it", func() bool { return m.Reached(fan.tip().revision, last) })
		}
	}
	eventually(t, "the connection is given up", func() bool { return value(t, fan.server.metrics.active) == 0 })
	seen, losses := 0, 0
	for w.Revision() != last {
		events, err := w.Next(t.Context())
		if err != nil {
			losses++
		}
		seen += len(events)
	}
	if seen != 500 || losses == 0 {
		t.Errorf("%d changes, %d losses", seen, losses)
	}
}

// TestUnreadReplies: a client that asks and never reads the answers holds a few of them and no worker.
func TestUnreadReplies(t *testing.T) {
	m := newMemory()
	large := set("large")
	large.Annotations = map[string]string{"text": strings.Repeat("x", 1<<20)}
	m.put(large)
	fan := startServer(t, m, ServerConfig{WriteTimeout: time.Minute})
	greedy := fan.introduced(t)
	go func() {
		for i := range uint64(100) {
			if _, err := greedy.Write(messageFrame(frameRequest, request{ID: i, Op: opGet, Key: v3.KeyOf(large)})); err != nil {
				return
			}
		}
	}()
	c := fan.client(t, "n")
	for range 20 {
		start := time.Now()
		if _, err := c.Get(t.Context(), v3.KeyOf(large)); err != nil || time.Since(start) > 20*time.Second {
			t.Fatal(err, time.Since(start))
		}
	}
	fan.server.mu.Lock()
	defer fan.server.mu.Unlock()
	for p := range fan.server.peers {
		p.mu.Lock()
		if n := len(p.box.replies); n > maxRequests {
			t.Errorf("%d replies wait", n)
		}
		p.mu.Unlock()
	}
}

// TestSilentServer: a server that stops to answer without closing its connections is given up.
func TestSilentServer(t *testing.T) {
	m := filled(1)
	fan := startServer(t, m, ServerConfig{PingInterval: time.Hour})
	c := dialWith(t, ClientConfig{Addresses: Fixed(fan.address), ReadTimeout: 500 * time.Millisecond})
	f := follows(t, c)
	f.awaitRevision(t, "1")
	eventually(t, "the client notices", func() bool { _, _, err := f.get(); return errors.Is(err, store.ErrUnavailable) })
	m.put(set("x"))
	f.same(t, m)
}

// TestPing: the server asks, and whoever answers stays.
func TestPing(t *testing.T) {
	fan := startServer(t, filled(1), ServerConfig{PingInterval: 20 * time.Millisecond, PongTimeout: 3 * time.Second})
	s := fan.introduced(t)
	for range 60 {
		payload := s.want(framePing)
		if len(payload) != 8 || binary.BigEndian.Uint64(payload) == 0 {
			t.Fatalf("%x", payload)
		}
		if _, err := s.Write(appendFrame(nil, framePong, payload)); err != nil {
			t.Fatal(err)
		}
	}
	s.wantEnd()
	eventually(t, "it is counted", func() bool { return value(t, fan.server.metrics.cut.WithLabelValues(errSilent.Error())) == 1 })
}

// TestPingDuringSnapshot: a snapshot that takes long does not keep the server from asking, or a slow client that answers
// would count as silent.
func TestPingDuringSnapshot(t *testing.T) {
	m := newMemory()
	for i := range 20 {
		large := set(fmt.Sprint("large", i))
		large.Annotations = map[string]string{"text": randomText(chunkSize / 2)}
		m.put(large)
	}
	listener := newPipes()
	fan := startServerOn(t, m, ServerConfig{PingInterval: 10 * time.Millisecond, PongTimeout: time.Minute},
		func() (net.Listener, error) { return listener, nil })
	s := listener.connect(t)
	s.send(frameHello, clientHello{Protocol: protocol, Node: "slow"})
	s.want(frameHello)
	s.send(frameFollow, follow{Mode: modeSnapshot})
	chunks := read[accepted](t, s.want(frameAccepted)).Chunks
	due := func() bool {
		fan.server.mu.Lock()
		defer fan.server.mu.Unlock()
		for p := range fan.server.peers {
			p.mu.Lock()
			defer p.mu.Unlock()
			return p.box.ping
		}
		return false
	}
	asked := 0
	for got := 0; got < chunks; {
		frame, _, err := readFrame(s, maxServer)
		switch {
		case err != nil:
			t.Fatal(err)
		case frame == framePing && got > 0:
			asked++
		case frame == frameChunk:
			got++
			eventually(t, "a ping is due", due) // while the next chunk waits to be read
		}
	}
	if chunks < 5 || asked == 0 {
		t.Errorf("%d pings among %d chunks", asked, chunks)
	}
}

// TestOutletOfTwo: while one waits in flush, what another writes, as TLS does when it has read something, is neither lost nor
// put in between.
func TestOutletOfTwo(t *testing.T) {
	theirs, ours := net.Pipe()
	defer ours.Close()
	o := newOutlet(theirs)
	defer o.Close()
	o.prompt = true
	write := func(text string) {
		if n, err := o.Write([]byte(text)); n != len(text) || err != nil {
			t.Errorf("write %s: %d, %v", text, n, err)
		}
	}
	write("first")
	flushed, written := make(chan error, 1), make(chan struct{})
	go func() { flushed <- o.flush(20 * time.Second) }()
	_ = ours.SetDeadline(time.Now().Add(20 * time.Second))
	got := make([]byte, len("firstsecond"))
	if _, err := io.ReadFull(ours, got[:1]); err != nil { // flush has begun
		t.Fatal(err)
	}
	go func() { defer close(written); write("second") }()
	select {
	case <-written:
	case <-time.After(50 * time.Millisecond): // it waits for the flush, as it may
	}
	if _, err := io.ReadFull(ours, got[1:5]); err != nil {
		t.Fatal(err)
	}
	if err := <-flushed; err != nil {
		t.Fatal(err)
	}
	<-written
	go func() { flushed <- o.flush(20 * time.Second) }()
	if _, err := io.ReadFull(ours, got[5:]); err != nil || string(got) != "firstsecond" {
		t.Errorf("%q, %v", got, err)
	}
	if err := <-flushed; err != nil {
		t.Error(err)
	}
}
