package pods

import (
	"context"
	"fmt"
	"log/slog"
	"net/netip"
	"testing"
	"time"

	"margay/calc"
	"margay/lab"
)

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func newHost(t *testing.T) *lab.Host {
	t.Helper()
	l, err := lab.New()
	must(t, err)
	t.Cleanup(l.Close)
	h, err := l.Host("a", netip.MustParsePrefix("10.0.0.1/24"), netip.MustParsePrefix("fd00::1/64"))
	must(t, err)
	return h
}

func newPod(t *testing.T, h *lab.Host, iface, bridge string, addrs ...string) *lab.Pod {
	t.Helper()
	c := lab.Cable{Interface: iface, Bridge: bridge}
	for _, a := range addrs {
		c.Addrs = append(c.Addrs, netip.MustParseAddr(a))
	}
	p, err := h.Pod("pod-"+iface, c)
	must(t, err)
	return p
}

// A watcher collects what is delivered.
type watcher struct {
	*follower
	told chan map[netip.Addr]calc.Way
	last map[netip.Addr]calc.Way
}

func watch(t *testing.T, h *lab.Host, deaf bool) *watcher {
	t.Helper()
	w := &watcher{told: make(chan map[netip.Addr]calc.Way, 1000)}
	w.follower = &follower{options: Options{NetNS: h.NetNS(), Log: slog.New(slog.DiscardHandler)}, table: newTable(), deaf: deaf,
		deliver: func(ways map[netip.Addr]calc.Way) { w.told <- ways }}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- w.run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != context.Canceled {
			t.Errorf("it returned %v", err)
		}
	})
	return w
}

// until waits until these are the ways.
func (w *watcher) until(t *testing.T, what, want string) {
	t.Helper()
	deadline := time.After(20 * time.Second)
	for w.last == nil || text(w.last) != want {
		select {
		case w.last = <-w.told:
		case <-deadline:
			t.Fatalf("%s: %q, want %q", what, text(w.last), want)
		}
	}
}

func TestRoutedPods(t *testing.T) {
	h := newHost(t)
	first := newPod(t, h, "eni1", "", "10.65.0.1", "fd65::1")
	w := watch(t, h, false)
	w.until(t, "a pod that was there before", "10.65.0.1 eni1, fd65::1 eni1")
	second := newPod(t, h, "eni2", "", "10.65.0.2")
	w.until(t, "a pod that comes", "10.65.0.1 eni1, 10.65.0.2 eni2, fd65::1 eni1")
	must(t, first.Remove())
	w.until(t, "a pod that goes", "10.65.0.2 eni2")
	third := newPod(t, h, "eni3", "", "10.65.0.1")
	w.until(t, "another pod has its address", "10.65.0.1 eni3, 10.65.0.2 eni2")
	must(t, h.SetDown("eni3"))
	w.until(t, "an interface that is down has no route, but its other end has the address", "10.65.0.1 eni3, 10.65.0.2 eni2")
	must(t, third.RemoveAddress("eth0", netip.MustParsePrefix("10.65.0.1/32")))
	w.until(t, "until it has not", "10.65.0.2 eni2")
	// The pod is started anew: the new one is there before the old is gone, and the route moves on.
	fourth, err := h.Pod("again", lab.Cable{Interface: "eni4"})
	must(t, err)
	must(t, fourth.AddAddress("eth0", netip.MustParsePrefix("10.65.0.2/32")))
	must(t, h.ReplaceRoute("eni4", netip.MustParsePrefix("10.65.0.2/32")))
	w.until(t, "the route moved", "10.65.0.2 eni4")
	must(t, second.Remove())
	must(t, fourth.Remove())
	w.until(t, "nothing is left", "")
}

func TestBridgedPods(t *testing.T) {
	h := newHost(t)
	must(t, h.AddBridge("cni0", netip.MustParsePrefix("10.66.0.1/24"), netip.MustParsePrefix("fd66::1/64")))
	w := watch(t, h, false)
	w.until(t, "no pod", "")
	first := newPod(t, h, "veth1", "cni0", "10.66.0.2", "fd66::2")
	newPod(t, h, "veth2", "cni0", "10.66.0.3")
	w.until(t, "pods", "10.66.0.2 veth1@cni0, 10.66.0.3 veth2@cni0, fd66::2 veth1@cni0")
	late := newPod(t, h, "veth3", "cni0")
	must(t, late.AddAddress("eth0", netip.MustParsePrefix("10.66.0.4/24")))
	w.until(t, "an address that comes later", "10.66.0.2 veth1@cni0, 10.66.0.3 veth2@cni0, 10.66.0.4 veth3@cni0, fd66::2 veth1@cni0")
	must(t, late.AddAddress("eth0", netip.MustParsePrefix("10.66.0.2/24")))
	must(t, late.AddAddress("eth0", netip.MustParsePrefix("10.66.0.5/24")))
	w.until(t, "two have an address: who had it keeps it", "10.66.0.2 veth1@cni0, 10.66.0.3 veth2@cni0, 10.66.0.4 veth3@cni0, 10.66.0.5 veth3@cni0, fd66::2 veth1@cni0")
	fresh := watch(t, h, false)
	fresh.until(t, "nobody knows who had it", "10.66.0.2 @cni0, 10.66.0.3 veth2@cni0, 10.66.0.4 veth3@cni0, 10.66.0.5 veth3@cni0, fd66::2 veth1@cni0")
	must(t, first.Remove())
	const other = "10.66.0.2 veth3@cni0, 10.66.0.3 veth2@cni0, 10.66.0.4 veth3@cni0, 10.66.0.5 veth3@cni0"
	w.until(t, "the other is gone", other)
	fresh.until(t, "the other is gone", other)
}

// TestMovedPort: a port is that of another bridge, or of none, as soon as it is.
func TestMovedPort(t *testing.T) {
	h := newHost(t)
	must(t, h.AddBridge("cni0", netip.MustParsePrefix("10.66.0.1/24")))
	must(t, h.AddBridge("cni1", netip.MustParsePrefix("10.67.0.1/24")))
	w := watch(t, h, false)
	newPod(t, h, "veth1", "cni0", "10.66.0.2")
	w.until(t, "a pod", "10.66.0.2 veth1@cni0")
	must(t, h.SetMaster("veth1", "cni1"))
	w.until(t, "another bridge", "10.66.0.2 veth1@cni1")
	must(t, h.SetMaster("veth1", ""))
	w.until(t, "no bridge", "10.66.0.2 veth1")
}

// TestBridgeFaults: it is told when what passes between ports is not filtered, and why.
func TestBridgeFaults(t *testing.T) {
	h := newHost(t)
	must(t, h.AddBridge("cni0", netip.MustParsePrefix("10.66.0.1/24")))
	w := watch(t, h, false)
	newPod(t, h, "veth1", "cni0", "10.66.0.2")
	fault := func(what, want string) {
		t.Helper()
		deadline := time.After(20 * time.Second)
		for {
			way, ok := w.last[netip.MustParseAddr("10.66.0.2")]
			if ok && way.Unfiltered == want {
				return
			}
			select {
			case w.last = <-w.told:
			case <-deadline:
				t.Fatalf("%s: %+v, want %q", what, way, want)
			}
		}
	}
	fault("as it was made", Unasked)
	must(t, FilterBridge(Options{NetNS: h.NetNS()}, "cni0"))
	fault("it was told to", "")
	must(t, h.UnfilterBridge("cni0"))
	fault("somebody took that back", Unasked)
	must(t, h.FilterBridge("cni0"))
	fault("the lab does the same", "")
	if err := FilterBridge(Options{NetNS: h.NetNS()}, "none"); err == nil {
		t.Error("no such bridge, and no error")
	}
}

// TestDeaf: without CAP_NET_BROADCAST an address that comes late is seen with the first packet.
func TestDeaf(t *testing.T) {
	h := newHost(t)
	must(t, h.AddBridge("cni0", netip.MustParsePrefix("10.66.0.1/24")))
	w := watch(t, h, true)
	p := newPod(t, h, "veth1", "cni0")
	must(t, p.AddAddress("eth0", netip.MustParsePrefix("10.66.0.2/24")))
	conn, err := p.ListenPacket("udp4", "10.66.0.2:0")
	must(t, err)
	defer conn.Close()
	to := netip.MustParseAddrPort("10.66.0.1:9")
	must(t, p.Do(func() error { _, err := conn.(packetConn).WriteToUDPAddrPort([]byte("x"), to); return err }))
	w.until(t, "it spoke", "10.66.0.2 veth1@cni0")
}

type packetConn interface {
	WriteToUDPAddrPort(b []byte, addr netip.AddrPort) (int, error)
}

// TestLearned: what the kernel says of neighbours and ports is read as it means it.
func TestLearned(t *testing.T) {
	h := newHost(t)
	must(t, h.AddBridge("cni0", netip.MustParsePrefix("10.66.0.1/24")))
	w := watch(t, h, false)
	p := newPod(t, h, "veth1", "cni0", "10.66.0.2")
	conn, err := h.ListenPacket("udp4", "10.66.0.1:0")
	must(t, err)
	defer conn.Close()
	deadline := time.Now().Add(20 * time.Second)
	for {
		_, err := conn.(packetConn).WriteToUDPAddrPort([]byte("x"), netip.MustParseAddrPort("10.66.0.2:9"))
		must(t, err)
		w.mu.Lock()
		for index, l := range w.table.links {
			if l.name == p.Interface() {
				w.table.others[index] = nil // as if the other end could not be asked
			}
		}
		got := text(w.table.ways(nil))
		w.mu.Unlock()
		if got == "10.66.0.2 veth1@cni0" {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("%q", got)
		}
		time.Sleep(10 * time.Millisecond)
	}
}

// TestChurn: after many pods came and went, each once behind an interface that another had, nothing of them is left.
func TestChurn(t *testing.T) {
	h := newHost(t)
	must(t, h.AddBridge("cni0", netip.MustParsePrefix("10.66.0.1/16"), netip.MustParsePrefix("fd66::1/64")))
	w := watch(t, h, false)
	w.until(t, "no pod", "")
	w.mu.Lock()
	before := w.size()
	w.mu.Unlock()
	const workers, rounds = 4, 12
	errs := make(chan error, workers)
	for n := range workers {
		go func() {
			for i := range rounds {
				c := lab.Cable{Interface: fmt.Sprint("veth", n), Addrs: []netip.Addr{netip.AddrFrom4([4]byte{10, 66, byte(1 + i%3), byte(1 + n)})}}
				if i%2 == 0 {
					c.Bridge = "cni0"
				}
				p, err := h.Pod("p", c)
				if err == nil {
					err = p.Remove()
				}
				if err != nil {
					errs <- err
					return
				}
			}
			errs <- nil
		}()
	}
	for range workers {
		must(t, <-errs)
	}
	last := newPod(t, h, "last", "", "10.67.0.1")
	w.until(t, "what comes after", "10.67.0.1 last")
	must(t, last.Remove())
	w.until(t, "nothing", "")
	deadline := time.Now().Add(20 * time.Second)
	for {
		w.mu.Lock()
		size := w.size()
		w.mu.Unlock()
		if size == before {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("left: %+v, before: %+v", size, before)
		}
		time.Sleep(10 * time.Millisecond)
	}
}

// size counts what is remembered.
func (f *follower) size() (n struct{ links, routes, neighbours, ports, others int }) {
	n.links, n.routes, n.neighbours, n.others = len(f.table.links), len(f.table.routes), len(f.table.neighbours), len(f.table.others)
	for bridge, ports := range f.table.ports {
		for _, port := range ports {
			if port != bridge { // its own address, which changes
				n.ports++
			}
		}
	}
	return n
}
