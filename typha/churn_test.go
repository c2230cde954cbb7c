package typha

import (
	"fmt"
	"runtime"
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
