package typha

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"runtime"
	"sync"
	"testing"
	"time"

	v3 "margay/api/v3"
)

// TestChurn: of two thousand connections that end in all the ways that there are, nothing is left.
func TestChurn(t *testing.T) {
	m := filled(100)
	fan := startServer(t, m, ServerConfig{PongTimeout: time.Minute})
	steady := follows(t, fan.client(t, "steady"))
	steady.same(t, m)
	before := runtime.NumGoroutine()
	ways := []func(*stranger){
		func(*stranger) {}, // before hello
		func(s *stranger) { s.send(frameHello, clientHello{Protocol: protocol, Node: "x"}) },
		func(s *stranger) { s.introduced() },
		func(s *stranger) { s.introduced(); s.send(frameFollow, follow{Mode: modeSnapshot}) },
		func(s *stranger) {
			s.introduced()
			s.send(frameFollow, follow{Mode: modeSnapshot})
			s.want(frameAccepted)
			s.want(frameChunk)
		},
		func(s *stranger) {
			s.introduced()
			for i := range 5 { // more than are worked on at once, answers unread
				s.send(frameRequest, request{ID: uint64(i), Op: opGet, Key: v3.Key{Kind: v3.KindGlobalNetworkSet, Name: "s0000"}})
			}
		},
	}
	const connections = 2000
	heap := uint64(0)
	for i := range connections {
		s := fan.dialed(t)
		ways[i%len(ways)](s)
		s.Close()
		if i%100 == 0 {
			steady.awaitRevision(t, m.put(set("x", fmt.Sprintf("10.0.%d.0/24", i/100))))
		}
		if i == connections/10 {
			heap = live()
		}
	}
	eventually(t, "no connection is left", func() bool { return value(t, fan.server.metrics.active) == 1 })
	if n, _ := fan.server.count(); n != 1 {
		t.Errorf("%d clients", n)
	}
	eventually(t, "no goroutine is left", func() bool { return runtime.NumGoroutine() <= before+5 })
	if now := live(); now > heap+4<<20 {
		t.Errorf("the heap has grown from %d to %d bytes", heap, now)
	}
	steady.same(t, m)
}

// live returns the bytes that are in use.
func live() uint64 {
	runtime.GC()
	runtime.GC()
	var s runtime.MemStats
	runtime.ReadMemStats(&s)
	return s.HeapAlloc
}

// TestFlood: one address opens connections without end and says nothing; agents of other addresses get in all the same.
func TestFlood(t *testing.T) {
	m := filled(10)
	fan := startServer(t, m, ServerConfig{MaxHandshakes: 50})
	ctx, stop := context.WithCancel(t.Context())
	var flood sync.WaitGroup
	defer flood.Wait()
	defer stop()
	for range 4 {
		flood.Go(func() {
			for ctx.Err() == nil {
				conn, err := net.DialTimeout("tcp4", fan.address, time.Second)
				if err == nil {
					flood.Go(func() { // until the server has had enough of it
						defer context.AfterFunc(ctx, func() { conn.Close() })()
						_, _ = conn.Read(make([]byte, 1))
						conn.Close()
					})
				}
			}
		})
	}
	tooMany := fan.server.metrics.refused.WithLabelValues(refusedMany)
	eventually(t, "there are too many", func() bool { return value(t, tooMany) > 100 })
	elsewhere := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.IPv4(127, 0, 0, 2)}}
	for i := range 5 {
		c := dialWith(t, ClientConfig{Addresses: Fixed(fan.address), Node: fmt.Sprint("n", i), Dial: elsewhere.DialContext, DialTimeout: 20 * time.Second})
		if _, err := c.List(t.Context(), "", v3.KindGlobalNetworkSet); err != nil {
			t.Errorf("agent %d: %v", i, err)
		}
	}
}

// TestGate: who makes room for whom.
func TestGate(t *testing.T) {
	address := func(text string) netip.Prefix { return netip.MustParsePrefix(text) }
	a, b, c := address("10.0.0.1/32"), address("10.0.0.2/32"), address("fd00::/64")
	g := newGate(4, 8, time.Hour)
	enter := func(from netip.Prefix) *ticket {
		t.Helper()
		if !g.arrive(from) {
			return nil
		}
		theirs, ours := net.Pipe()
		t.Cleanup(func() { theirs.Close(); ours.Close() })
		at, wait := g.try(theirs, from)
		if at == nil && wait <= 0 {
			t.Errorf("neither in nor to wait: %v", wait)
		}
		return at
	}
	var crowd []*ticket
	for range 4 {
		crowd = append(crowd, enter(a))
	}
	if enter(a) != nil || g.here[a] != 4 {
		t.Error("an address has more than there may be")
	}
	first := enter(b)
	if first == nil || crowd[0].element != nil || !g.leave(crowd[0]) {
		t.Error("the crowd makes no room")
	}
	if second := enter(c); second == nil || crowd[1].element != nil || first.element == nil {
		t.Error("the crowd makes no room for the next")
	}
	if enter(b) == nil || g.count[a] != 1 || g.count[b] != 2 {
		t.Errorf("of %v", g.count)
	}
	crowd[3].since = time.Now().Add(-2 * time.Hour) // an old one makes room for its own address
	if !g.arrive(a) || len(g.here) != 3 {
		t.Errorf("here are %v", g.here)
	}
	for g.arrive(c) {
	}
	if g.all != 8 && g.here[c] != 4 {
		t.Errorf("here are %d: %v", g.all, g.here)
	}
	if n := g.under.Len(); n != 4 {
		t.Errorf("%d under way", n)
	}
}
