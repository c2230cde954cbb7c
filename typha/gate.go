package typha

import (
	"container/list"
	"context"
	"net"
	"net/netip"
	"sync"
	"time"
)

// A gate bounds the handshakes that are under way. When there are as many as there may be, the next waits for one to end, or for
// the oldest to have had the time that an honest one needs; that is closed. So stalled handshakes keep nobody out, and many
// clients that come at once do not push each other out.
//
// While one address has more than its share of them, its oldest makes room for everybody else at once. What it has more than
// there may be in all does not get in to wait, but for its own oldest that has had its time. So whoever opens connections
// without end keeps out nobody but those of its own address, and not all of them.
type gate struct {
	limit int
	most  int           // of those that wait and those under way
	fair  time.Duration // what a handshake may take before it can be closed for another
	room  chan struct{} // capacity 1: one has ended

	mu    sync.Mutex
	under list.List            // of *ticket, oldest first
	count map[netip.Prefix]int // those by address
	here  map[netip.Prefix]int // and with those that wait
	all   int                  // sum of here
}

// crowdShare: an address that has more than this part of the handshakes has too many.
const crowdShare = 20

// A ticket is that of one connection in the gate.
type ticket struct {
	conn    net.Conn
	from    netip.Prefix
	since   time.Time
	element *list.Element // nil: it had to make room
}

func newGate(limit, most int, fair time.Duration) *gate {
	return &gate{limit: limit, most: max(limit, most), fair: fair, room: make(chan struct{}, 1), count: map[netip.Prefix]int{}, here: map[netip.Prefix]int{}}
}

// addressOf returns from where a connection comes; an IPv6 host has as many addresses as it likes of one /64. The zero value
// stands for all that have no address.
func addressOf(conn net.Conn) netip.Prefix {
	remote, ok := conn.RemoteAddr().(*net.TCPAddr)
	if !ok {
		return netip.Prefix{}
	}
	addr := remote.AddrPort().Addr().Unmap().WithZone("")
	bits := addr.BitLen()
	if addr.Is6() {
		bits = 64
	}
	return netip.PrefixFrom(addr, bits).Masked()
}

// arrive reports whether a connection may wait at the gate. If so, it enters.
func (g *gate) arrive(from netip.Prefix) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.all >= g.most {
		return false
	}
	if g.here[from] >= g.limit {
		oldest := g.oldest(from)
		if oldest == nil || time.Since(oldest.since) < g.fair {
			return false
		}
		g.evict(oldest)
	}
	g.here[from]++
	g.all++
	return true
}

// enter returns when the connection, which has arrived, may begin its handshake; with an error if the context ends before.
func (g *gate) enter(ctx context.Context, conn net.Conn, from netip.Prefix) (*ticket, error) {
	for {
		t, wait := g.try(conn, from)
		if t != nil {
			return t, nil
		}
		timer := time.NewTimer(wait)
		select {
		case <-g.room:
		case <-timer.C:
		case <-ctx.Done():
			g.mu.Lock()
			g.gone(from)
			g.mu.Unlock()
			return nil, ctx.Err()
		}
		timer.Stop()
	}
}

// try lets a connection in, or says how long to wait.
func (g *gate) try(conn net.Conn, from netip.Prefix) (*ticket, time.Duration) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.under.Len() >= g.limit {
		oldest, wait := g.next(from)
		if wait > 0 {
			return nil, wait
		}
		g.evict(oldest)
	}
	t := &ticket{conn: conn, from: from, since: time.Now()}
	t.element = g.under.PushBack(t)
	g.count[from]++
	return t, 0
}

// next returns which handshake is to make room for one from an address, and when.
func (g *gate) next(from netip.Prefix) (*ticket, time.Duration) {
	crowd, most := netip.Prefix{}, 0
	for address, n := range g.count {
		if n > most {
			crowd, most = address, n
		}
	}
	oldest := g.under.Front().Value.(*ticket)
	if most > max(g.limit/crowdShare, 1) {
		oldest = g.oldest(crowd)
		if from != crowd {
			return oldest, 0
		}
	}
	return oldest, g.fair - time.Since(oldest.since)
}

// oldest returns the oldest handshake of an address, nil if it has none.
func (g *gate) oldest(from netip.Prefix) *ticket {
	for e := g.under.Front(); e != nil; e = e.Next() {
		if t := e.Value.(*ticket); t.from == from {
			return t
		}
	}
	return nil
}

// evict takes a handshake out. Its goroutine notices, and leaves.
func (g *gate) evict(t *ticket) {
	g.under.Remove(t.element)
	t.element = nil
	less(g.count, t.from)
	_ = t.conn.Close()
}

// leave reports whether the connection had to make room.
func (g *gate) leave(t *ticket) (evicted bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.gone(t.from)
	if t.element == nil {
		return true
	}
	g.under.Remove(t.element)
	less(g.count, t.from)
	kick(g.room)
	return false
}

// gone notes that a connection is no longer at the gate.
func (g *gate) gone(from netip.Prefix) {
	less(g.here, from)
	g.all--
}

// less counts down.
func less(count map[netip.Prefix]int, address netip.Prefix) {
	if count[address]--; count[address] == 0 {
		delete(count, address)
	}
}
