package lab

import (
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"testing"

	"golang.org/x/sys/unix"
)

func newPod(t *testing.T, h *Host, c Cable) *Pod {
	t.Helper()
	p, err := h.Pod("pod-of-"+c.Interface, c)
	must(t, err)
	return p
}

func addrs(texts ...string) []netip.Addr {
	var list []netip.Addr
	for _, text := range texts {
		list = append(list, netip.MustParseAddr(text))
	}
	return list
}

// serve accepts connections until the test ends and tells the other side what it is called.
func serve(t *testing.T, m *Machine, port int) {
	t.Helper()
	listener, err := m.Listen("tcp", fmt.Sprintf(":%d", port))
	must(t, err)
	t.Cleanup(func() { listener.Close() })
	go func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			io.WriteString(conn, conn.RemoteAddr().(*net.TCPAddr).IP.String())
			conn.Close()
		}
	}()
}

// TestPods: pods of both kinds reach each other, their hosts and pods of other hosts, and are reached, by both families.
func TestPods(t *testing.T) {
	l := newLab(t)
	a, b := newHost(t, l, "a", "10.0.0.1/24", "fd00::1/64"), newHost(t, l, "b", "10.0.0.2/24", "fd00::2/64")
	routed := newPod(t, a, Cable{Interface: "cali1", Addrs: addrs("10.65.0.1", "fd65::1")})
	beside := newPod(t, a, Cable{Interface: "cali2", Addrs: addrs("10.65.0.2", "fd65::2")})
	must(t, b.AddBridge("cni0", prefix("10.66.0.1/24"), prefix("fd66::1/64")))
	bridged := newPod(t, b, Cable{Interface: "veth1", Addrs: addrs("10.66.0.2", "fd66::2"), Bridge: "cni0"})
	neighbour := newPod(t, b, Cable{Interface: "veth2", Addrs: addrs("10.66.0.3", "fd66::3"), Bridge: "cni0"})
	for _, r := range []struct {
		host        *Host
		via, prefix string
	}{
		{a, "10.0.0.2", "10.66.0.0/24"}, {a, "fd00::2", "fd66::/64"}, {b, "10.0.0.1", "10.65.0.0/24"}, {b, "fd00::1", "fd65::/64"},
	} {
		must(t, r.host.AddRouteVia(netip.MustParseAddr(r.via), prefix(r.prefix)))
	}
	for _, m := range []*Machine{&a.Machine, &b.Machine, &routed.Machine, &beside.Machine, &bridged.Machine, &neighbour.Machine} {
		serve(t, m, 80)
	}
	for _, c := range []struct {
		from     *Machine
		to, want string
	}{
		{&routed.Machine, "10.65.0.2:80", "10.65.0.1"}, {&routed.Machine, "[fd65::2]:80", "fd65::1"},
		{&routed.Machine, "10.0.0.1:80", "10.65.0.1"}, {&routed.Machine, "[fd00::1]:80", "fd65::1"},
		{&a.Machine, "10.65.0.1:80", "10.0.0.1"}, {&a.Machine, "[fd65::1]:80", "fd00::1"},
		{&bridged.Machine, "10.66.0.3:80", "10.66.0.2"}, {&bridged.Machine, "[fd66::3]:80", "fd66::2"},
		{&bridged.Machine, "10.66.0.1:80", "10.66.0.2"}, {&b.Machine, "10.66.0.2:80", "10.66.0.1"},
		{&bridged.Machine, "10.65.0.1:80", "10.66.0.2"}, {&routed.Machine, "[fd66::3]:80", "fd65::1"},
	} {
		if got, err := ask(c.from, c.to); err != nil || got != c.want {
			t.Errorf("%s to %s: %q, %v; want %q", c.from.Name(), c.to, got, err, c.want)
		}
	}
}

// TestPodRemoved: a pod that is gone leaves no interface, and its address and interface can be had by another at once.
func TestPodRemoved(t *testing.T) {
	l := newLab(t)
	host := newHost(t, l, "a", "10.0.0.1/24")
	for range 2 {
		p := newPod(t, host, Cable{Interface: "cali1", Addrs: addrs("10.65.0.1")})
		serve(t, &p.Machine, 80)
		if _, err := ask(&host.Machine, "10.65.0.1:80"); err != nil {
			t.Error(err)
		}
		must(t, p.Remove())
		if _, err := ask(&host.Machine, "10.65.0.1:80"); !errors.Is(err, unix.ENETUNREACH) {
			t.Errorf("it is gone: %v", err)
		}
	}
	if _, err := host.Pod("lost", Cable{Interface: "veth1", Addrs: addrs("10.66.0.2"), Bridge: "none"}); err == nil {
		t.Error("a bridge that is not there")
	}
	must(t, host.AddBridge("cni0", prefix("10.66.0.1/24")))
	if _, err := host.Pod("odd", Cable{Interface: "veth2", Addrs: addrs("10.67.0.2"), Bridge: "cni0"}); err == nil {
		t.Error("an address that is not the bridge's")
	}
	list, err := host.ns.netlink.LinkList()
	must(t, err)
	if len(list) != 3 { // lo, eth0, cni0
		t.Errorf("%d interfaces are left", len(list))
	}
}
