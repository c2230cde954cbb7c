package main

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"margay/lab"
)

// Times of a probe.
const (
	probeInterval = 500 * time.Microsecond
	probeFlight   = 5 * time.Millisecond // in which a probe arrives, if it is let through; far more than it takes
	probeSteady   = 20                   // as many of a kind in a row are a verdict
	probeLimit    = 10 * time.Second     // for a new verdict
)

// A verdict is what became of a probe.
type verdict bool

const (
	denied  verdict = false
	allowed verdict = true
)

// A probe sends a datagram every half millisecond, each from another port and so a flow of its own, to one port of the
// protected host. It knows when each was sent and whether it arrived. One thread sends and receives, so that a machine
// that is busy delays the probe and does not change what it sees.
type probe struct {
	b       *testing.B
	port    uint16
	sockets [2]int // to send, to receive
	start   time.Time
	at      []time.Duration // when they were sent, from start; of those that are counted by sent
	sent    atomic.Int64
	arrived []atomic.Bool
	stop    chan struct{}
	wg      sync.WaitGroup
}

// startProbe sends from a host to a port of the protected host until the probe is ended.
func (w *world) startProbe(b *testing.B, from *lab.Host, port uint16) *probe {
	p := &probe{
		b: b, port: port, start: time.Now(), at: make([]time.Duration, maxProbes),
		arrived: make([]atomic.Bool, maxProbes), stop: make(chan struct{}),
	}
	w.must(from.Do(func() (err error) {
		p.sockets[0], err = unix.Socket(unix.AF_INET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.IPPROTO_UDP)
		return err
	}))
	w.must(w.host.Do(func() (err error) {
		p.sockets[1], err = unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
		return err
	}))
	w.must(unix.Bind(p.sockets[1], p.destination(port)))
	p.wg.Go(p.run)
	return p
}

// destination returns an address of the host; a raw socket wants port 0.
func (p *probe) destination(port uint16) *unix.SockaddrInet4 {
	return &unix.SockaddrInet4{Addr: netip.MustParseAddr(hostAddr).As4(), Port: int(port)}
}

// run has a thread of its own: the runtime's timers are too coarse.
func (p *probe) run() {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	defer unix.Close(p.sockets[0])
	defer unix.Close(p.sockets[1])
	to := p.destination(0)
	for seq := range maxProbes {
		select {
		case <-p.stop:
			<-time.After(probeFlight)
			p.receive()
			return
		default:
		}
		p.at[seq] = time.Since(p.start)
		if err := unix.Sendto(p.sockets[0], datagram(p.port, seq), 0, to); err != nil {
			p.b.Errorf("probe of port %d: %v", p.port, err)
			return
		}
		p.receive()
		p.sent.Add(1)
		// After a delay it goes on from now: what was not sent then is not sent at once.
		if pause := probeInterval - (time.Since(p.start) - p.at[seq]); pause > 0 {
			t := unix.NsecToTimespec(int64(pause))
			_ = unix.Nanosleep(&t, nil) // a signal makes it shorter
		}
	}
}

// receive takes in what has arrived.
func (p *probe) receive() {
	var b [16]byte
	for {
		switch n, _, err := unix.Recvfrom(p.sockets[1], b[:], 0); {
		case err != nil:
			return // nothing left
		case n == 8:
			p.arrived[binary.BigEndian.Uint64(b[:])].Store(true)
		}
	}
}

// datagram returns a UDP datagram without a checksum.
func datagram(port uint16, seq int) []byte {
	const header, payload, firstPort, ports = 8, 8, 1024, 60000
	b := binary.BigEndian.AppendUint16(nil, uint16(firstPort+seq%ports))
	b = binary.BigEndian.AppendUint16(b, port)
	b = binary.BigEndian.AppendUint16(b, header+payload)
	b = binary.BigEndian.AppendUint16(b, 0)
	return binary.BigEndian.AppendUint64(b, uint64(seq))
}

// end stops the probe.
func (p *probe) end() {
	close(p.stop)
	p.wg.Wait()
}

// endAll stops the probe; every datagram must have had the verdict.
func (p *probe) endAll(v verdict) {
	p.b.Helper()
	p.end()
	n, others := int(p.sent.Load()), 0
	for i := range n {
		if verdict(p.arrived[i].Load()) != v {
			others++
		}
	}
	if others > 0 {
		p.b.Errorf("port %d: allowed must be %v for all %d probes, it is not for %d", p.port, v, n, others)
	}
	p.b.ReportMetric(float64(n), fmt.Sprint("probes-", p.port))
}

// settled returns how many probes have arrived by now if they ever will.
func (p *probe) settled() int {
	n := int(p.sent.Load())
	for last := n - 1; n > 0 && p.at[last]-p.at[n-1] < probeFlight; {
		n--
	}
	return n
}

// await waits until the latest probes have the verdict.
func (p *probe) await(v verdict) {
	p.b.Helper()
	for deadline := time.Now().Add(probeLimit); !p.steady(p.settled(), v); <-time.After(time.Millisecond) {
		if time.Now().After(deadline) {
			p.b.Fatalf("port %d: not within %v: allowed %v", p.port, probeLimit, v)
		}
	}
}

func (p *probe) steady(n int, v verdict) bool {
	for i := max(0, n-probeSteady); i < n; i++ {
		if verdict(p.arrived[i].Load()) != v {
			return false
		}
	}
	return n >= probeSteady
}

// change makes a change after which probes get another verdict and returns how long it was from just before it to the
// first probe with that verdict. A probe after that with the old one is an error.
func (p *probe) change(to verdict, change func()) time.Duration {
	p.b.Helper()
	p.await(!to)
	began := time.Since(p.start)
	change()
	p.await(to)
	first := -1
	for i := range p.settled() {
		switch is := verdict(p.arrived[i].Load()); {
		case p.at[i] < began:
		case first < 0 && is == to:
			first = i
		case first >= 0 && is != to:
			p.b.Errorf("port %d: %v after the first probe with the new verdict, one has the old", p.port, p.at[i]-p.at[first])
		}
	}
	return p.at[first] - began
}
