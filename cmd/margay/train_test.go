package main

import (
	"encoding/binary"
	"fmt"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"margay/lab"
)

// A train sends datagrams, each a flow of its own, to a port of the host and records which ones arrived.
type train struct {
	w       *world
	port    int
	sent    atomic.Uint64
	arrived []atomic.Bool
	stop    chan struct{}
	wg      sync.WaitGroup
}

// maxProbes bounds a train; it ends by itself after that many.
const maxProbes = 400_000

// startTrain sends from a host to a UDP port of the protected host, a probe a millisecond.
func (w *world) startTrain(from *lab.Host, port int) *train {
	w.Helper()
	t := &train{w: w, port: port, arrived: make([]atomic.Bool, maxProbes), stop: make(chan struct{})}
	address := fmt.Sprintf("%s:%d", hostAddr, port)
	conn, err := w.host.ListenPacket("udp", address)
	w.must(err)
	w.Cleanup(func() { _ = conn.Close() })
	go t.receive(conn)
	t.wg.Go(func() {
		if err := from.Do(func() error { return t.send(address) }); err != nil {
			w.Errorf("probe train to port %d: %v", port, err)
		}
	})
	return t
}

func (t *train) receive(conn net.PacketConn) {
	b := make([]byte, 16)
	for {
		n, _, err := conn.ReadFrom(b)
		if err != nil {
			return // closed
		}
		if n == 8 {
			t.arrived[binary.BigEndian.Uint64(b)].Store(true)
		}
	}
}

func (t *train) send(address string) error {
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for seq := range uint64(maxProbes) {
		conn, err := net.Dial("udp", address)
		if err != nil {
			return err
		}
		_, err = conn.Write(binary.BigEndian.AppendUint64(nil, seq))
		_ = conn.Close()
		if err != nil {
			return err
		}
		t.sent.Add(1)
		select {
		case <-t.stop:
			return nil
		case <-tick.C:
		}
	}
	return nil
}

// end stops the train and returns how many probes were sent and how many arrived.
func (t *train) end() (sent, arrived int) {
	t.w.Helper()
	close(t.stop)
	t.wg.Wait()
	sent = int(t.sent.Load())
	count := func() (n int) {
		for i := range t.arrived[:sent] {
			if t.arrived[i].Load() {
				n++
			}
		}
		return n
	}
	// What is on its way arrives within a moment; a train of denied probes has nothing on its way.
	for last, quiet := -1, 0; quiet < 10; {
		if arrived = count(); arrived == sent || arrived == last {
			quiet++
		} else {
			quiet = 0
		}
		last = arrived
		<-time.After(10 * time.Millisecond)
	}
	return sent, arrived
}

// allPass fails the test unless every probe arrived.
func (t *train) allPass() {
	t.w.Helper()
	sent, arrived := t.end()
	if sent == 0 || arrived != sent {
		t.w.Errorf("port %d is always allowed: of %d probes %d were lost", t.port, sent, sent-arrived)
	}
	t.w.Logf("port %d, always allowed: %d of %d probes arrived", t.port, arrived, sent)
}

// nonePasses fails the test if a probe arrived.
func (t *train) nonePasses() {
	t.w.Helper()
	sent, arrived := t.end()
	if sent == 0 || arrived != 0 {
		t.w.Errorf("port %d is always denied: of %d probes %d got through", t.port, sent, arrived)
	}
	t.w.Logf("port %d, always denied: %d of %d probes arrived", t.port, arrived, sent)
}
