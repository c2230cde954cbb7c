package ipvs

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path"
	"testing"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"

	"margay/lab"
)

// A family is the addresses of one family that a host has and sees.
type family struct {
	name     string
	client   netip.Addr // behind wan
	node     netip.Addr // of this host, on wan
	vip      netip.Addr // of services, on a dummy interface, as kube-proxy has it
	backend  netip.Addr // behind lan
	inside   netip.Addr // of the host, on lan
	pod, mod netip.Addr // behind cali1 and cali2
	stray    netip.Addr // behind cali9, which no workload has
	nobody   netip.Addr // an address of services that none has, routed to lan
}

func families() []family {
	list := func(name string, a ...string) family {
		at := func(i int) netip.Addr { return netip.MustParseAddr(a[i]) }
		return family{name, at(0), at(1), at(2), at(3), at(4), at(5), at(6), at(7), at(8)}
	}
	return []family{
		list("IPv4", "10.1.0.9", "10.1.0.1", "10.96.0.1", "10.2.0.9", "10.2.0.1", "10.65.0.1", "10.65.0.2", "10.65.0.9", "10.96.0.7"),
		list("IPv6", "fd01::9", "fd01::1", "fd96::1", "fd02::9", "fd02::1", "fd65::1", "fd65::2", "fd65::9", "fd96::7"),
	}
}

// A host is a namespace with tun devices: what is written to one arrives there as if from outside, in one go, what the host sends
// by one can be read. Behind them are:
//
//	wan: client    lan: backend, nobody    cali1: pod    cali2: mod    cali9: stray
type host struct {
	*lab.Host
	*balancer
	family
	tuns map[string]*os.File
}

var sysctls = map[string]string{
	"ipv4/conf/all/rp_filter": "0", "ipv4/conf/default/rp_filter": "0", "ipv4/ip_forward": "1", "ipv6/conf/all/forwarding": "1",
	"ipv6/conf/default/forwarding": "1", "ipv6/conf/default/accept_dad": "0", "ipv6/conf/default/addr_gen_mode": "1",
	"ipv6/conf/default/router_solicitations": "0", "ipv4/vs/conntrack": "1",
}

func newHost(t *testing.T, f family) *host {
	t.Helper()
	if os.Getuid() != 0 && os.Getenv("MARGAY_REQUIRE_IPVS") != "1" {
		t.Skip("kernel tests need root")
	}
	l, err := lab.New()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(l.Close)
	machine, err := l.Host("host")
	if err != nil {
		t.Fatal(err)
	}
	h := &host{Host: machine, family: f, tuns: map[string]*os.File{}}
	h.balancer = newBalancer(t, machine.NetNS())
	if err := h.Do(h.setUp); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		for _, f := range h.tuns {
			f.Close()
		}
	})
	return h
}

func (h *host) setUp() error {
	for name, value := range sysctls {
		if err := h.sysctl(name, value); err != nil {
			return err
		}
	}
	links, err := netlink.NewHandleAt(netns.NsHandle(h.NetNS()), unix.NETLINK_ROUTE)
	if err != nil {
		return err
	}
	defer links.Close()
	if err := links.LinkAdd(&netlink.Dummy{LinkAttrs: netlink.LinkAttrs{Name: "kube-ipvs0"}}); err != nil {
		return err
	}
	for _, d := range []struct {
		name        string
		own, behind netip.Addr
	}{{"wan", h.node, h.client}, {"lan", h.inside, h.backend}, {"cali1", netip.Addr{}, h.pod}, {"cali2", netip.Addr{}, h.mod}, {"cali9", netip.Addr{}, h.stray}} {
		if err := h.addDevice(d.name); err != nil {
			return fmt.Errorf("device %s: %w", d.name, err)
		}
		link, err := links.LinkByName(d.name)
		if err != nil {
			return err
		}
		if err := links.LinkSetUp(link); err != nil {
			return err
		}
		if d.own.IsValid() {
			if err := h.AddAddress(d.name, netip.PrefixFrom(d.own, d.own.BitLen())); err != nil {
				return err
			}
		}
		if err := h.AddRoute(d.name, netip.PrefixFrom(d.behind, d.behind.BitLen())); err != nil {
			return err
		}
	}
	if err := h.AddRoute("lan", netip.PrefixFrom(h.nobody, h.nobody.BitLen())); err != nil {
		return err
	}
	return h.AddAddress("kube-ipvs0", netip.PrefixFrom(h.vip, h.vip.BitLen()))
}

func (h *host) sysctl(name, value string) error {
	return os.WriteFile(path.Join("/proc/sys/net", name), []byte(value), 0)
}

func (h *host) addDevice(name string) error {
	fd, err := unix.Open("/dev/net/tun", unix.O_RDWR|unix.O_CLOEXEC|unix.O_NONBLOCK, 0)
	if err != nil {
		return err
	}
	h.tuns[name] = os.NewFile(uintptr(fd), name)
	ifr, err := unix.NewIfreq(name)
	if err != nil {
		return err
	}
	ifr.SetUint16(unix.IFF_TUN | unix.IFF_NO_PI)
	return unix.IoctlIfreq(fd, unix.TUNSETIFF, ifr)
}

// arrive lets a packet come in by a device. The kernel takes it all the way before that returns.
func (h *host) arrive(t *testing.T, device string, p packet) {
	t.Helper()
	if err := h.onTun(device, func(fd int) error {
		_, err := unix.Write(fd, p.encode())
		return err
	}); err != nil {
		t.Fatalf("write to %s: %v", device, err)
	}
}

// left returns the packets of TCP and UDP that the host has sent by a device since it was asked last.
func (h *host) left(t *testing.T, device string) []packet {
	t.Helper()
	var out []packet
	err := h.onTun(device, func(fd int) error {
		b := make([]byte, 2048)
		for {
			n, err := unix.Read(fd, b)
			if errors.Is(err, unix.EAGAIN) {
				return nil
			}
			if err != nil {
				return err
			}
			if p, ok := decode(b[:n]); ok {
				out = append(out, p)
			}
		}
	})
	if err != nil {
		t.Fatalf("read from %s: %v", device, err)
	}
	return out
}

func (h *host) onTun(device string, f func(fd int) error) error {
	raw, err := h.tuns[device].SyscallConn()
	if err != nil {
		return err
	}
	var failed error
	if err := raw.Control(func(fd uintptr) { failed = f(int(fd)) }); err != nil {
		return err
	}
	return failed
}

// send has a process of the host send the first packet of a flow, from an address and port unless that is the zero value. It returns
// the error with which that was refused.
func (h *host) send(t *testing.T, protocol uint8, from, to netip.AddrPort) error {
	t.Helper()
	var refused error
	if err := h.Do(func() error {
		fd, err := h.socket(protocol)
		if err != nil {
			return err
		}
		defer unix.Close(fd)
		if from.IsValid() {
			if err := unix.Bind(fd, address(from)); err != nil {
				return err
			}
		}
		if refused = unix.Connect(fd, address(to)); errors.Is(refused, unix.EINPROGRESS) {
			refused = nil
		}
		if protocol == unix.IPPROTO_UDP && refused == nil {
			_, refused = unix.Write(fd, []byte("x"))
		}
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	return refused
}

func (h *host) socket(protocol uint8) (int, error) {
	domain, kind := unix.AF_INET, unix.SOCK_DGRAM
	if !h.node.Is4() {
		domain = unix.AF_INET6
	}
	if protocol == unix.IPPROTO_TCP {
		kind = unix.SOCK_STREAM
	}
	return unix.Socket(domain, kind|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
}

func address(a netip.AddrPort) unix.Sockaddr {
	if a.Addr().Is4() {
		return &unix.SockaddrInet4{Addr: a.Addr().As4(), Port: int(a.Port())}
	}
	return &unix.SockaddrInet6{Addr: a.Addr().As16(), Port: int(a.Port())}
}

// listen opens a port of the host for as long as the test runs.
func (h *host) listen(t *testing.T, protocol uint8, at string) int {
	t.Helper()
	fd := -1
	err := h.Do(func() (err error) {
		if fd, err = h.socket(protocol); err != nil {
			return err
		}
		if err = unix.Bind(fd, address(h.at(at))); err == nil && protocol == unix.IPPROTO_TCP {
			err = unix.Listen(fd, 8)
		}
		return err
	})
	if fd >= 0 {
		t.Cleanup(func() { unix.Close(fd) })
	}
	if err != nil {
		t.Fatalf("listen at %s: %v", at, err)
	}
	return fd
}
