package nft

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path"
	"testing"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"

	"margay/ruleset"
)

// A wire is a host in a namespace with tun devices: packets that are written to one arrive there as if from outside, and
// raw sockets send. It passes packets on between the devices, each of which has networks of its own behind it: see
// behind. When it is observed, another table, made with another library, tells which packets came to the hooks and which
// got past ours.
type wire struct {
	*namespace
	tuns   map[string]*os.File
	raw    map[string][2]int // sockets bound to a device, or to none; IPv4 and IPv6
	routes *netlink.Handle
	log    *conn
	id     uint16
}

// newWire makes a wire without the observing table.
func newWire(t testing.TB, devices ...string) *wire {
	t.Helper()
	w := &wire{namespace: newNamespace(t), tuns: map[string]*os.File{}, raw: map[string][2]int{}}
	var err error
	w.do(func() { err = w.setUp(devices) })
	t.Cleanup(w.close)
	if err != nil {
		t.Fatal(err)
	}
	return w
}

func newObservedWire(t testing.TB, devices ...string) *wire {
	t.Helper()
	w := newWire(t, devices...)
	err := errors.Join(w.observe(), w.translate())
	if err == nil {
		w.log, err = bindLog(Options{NetNS: w.fd}, observerGroup)
	}
	if err == nil {
		err = w.log.configure(observerGroup, attrU32(nil, logCfgThreshold, 1))
	}
	if err != nil {
		t.Fatal(err)
	}
	return w
}

func (w *wire) close() {
	for _, f := range w.tuns {
		f.Close()
	}
	for _, fds := range w.raw {
		unix.Close(fds[0])
		unix.Close(fds[1])
	}
	if w.log != nil {
		w.log.close()
	}
	if w.routes != nil {
		w.routes.Close()
	}
}

var sysctls = map[string]string{
	"ipv4/conf/all/rp_filter": "0", "ipv4/conf/default/rp_filter": "0", "ipv4/ip_forward": "1", "ipv6/conf/all/forwarding": "1",
	"ipv6/conf/default/forwarding": "1", "ipv6/conf/default/accept_dad": "0", "ipv6/conf/default/addr_gen_mode": "1",
	"ipv6/conf/default/router_solicitations": "0", "ipv4/conf/all/send_redirects": "0", "ipv4/conf/default/send_redirects": "0",
}

func (w *wire) setUp(devices []string) error {
	for name, value := range sysctls {
		if err := os.WriteFile(path.Join("/proc/sys/net", name), []byte(value), 0); err != nil {
			return err
		}
	}
	var err error
	if w.routes, err = netlink.NewHandleAt(netns.NsHandle(w.fd), unix.NETLINK_ROUTE); err != nil {
		return err
	}
	lo, err := w.routes.LinkByName("lo")
	if err != nil {
		return err
	}
	if err := w.routes.LinkSetUp(lo); err != nil {
		return err
	}
	for _, dst := range netsOf("10.2.0.0/16", "fd02::/16") {
		r := route(dst, lo, 0)
		r.Type, r.Table = unix.RTN_LOCAL, unix.RT_TABLE_LOCAL
		if dst.Addr().Is4() {
			r.Scope = unix.RT_SCOPE_HOST
		}
		if err := w.routes.RouteAdd(r); err != nil {
			return fmt.Errorf("route %s: %w", dst, err)
		}
	}
	for i, name := range devices {
		if err := w.addDevice(name, i); err != nil {
			return fmt.Errorf("device %s: %w", name, err)
		}
	}
	return w.addSockets("")
}

func route(dst netip.Prefix, link netlink.Link, metric int) *netlink.Route {
	r := &netlink.Route{LinkIndex: link.Attrs().Index, Priority: metric, Dst: netlink.NewIPNet(dst.Addr().AsSlice())}
	r.Dst.Mask = maskOf(dst)
	if dst.Addr().Is4() {
		r.Scope = unix.RT_SCOPE_LINK
	}
	return r
}

func (w *wire) addDevice(name string, number int) error {
	fd, err := unix.Open("/dev/net/tun", unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	w.tuns[name] = os.NewFile(uintptr(fd), name)
	ifr, err := unix.NewIfreq(name)
	if err != nil {
		return err
	}
	ifr.SetUint16(unix.IFF_TUN | unix.IFF_NO_PI)
	if err := unix.IoctlIfreq(fd, unix.TUNSETIFF, ifr); err != nil {
		return err
	}
	link, err := w.routes.LinkByName(name)
	if err != nil {
		return err
	}
	if err := w.routes.LinkSetUp(link); err != nil {
		return err
	}
	four, six := behind(number)
	for dst, metric := range map[netip.Prefix]int{
		four: 1, six: 1, netip.MustParsePrefix("10.1.0.0/16"): number + 1, netip.MustParsePrefix("fd01::/16"): number + 1,
		netip.MustParsePrefix("10.3.0.0/16"): 1 + (number+7)%8, netip.MustParsePrefix("fd03::/16"): 1 + (number+7)%8,
	} {
		if err := w.routes.RouteAdd(route(dst, link, metric)); err != nil {
			return fmt.Errorf("route %s: %w", dst, err)
		}
	}
	return w.addSockets(name)
}

// behind returns the networks behind the device with a number.
func behind(number int) (four, six netip.Prefix) {
	return netip.PrefixFrom(netip.AddrFrom4([4]byte{10, 10 + byte(number)}), 16),
		netip.PrefixFrom(netip.AddrFrom16([16]byte{0xfd, 0x10 + byte(number)}), 16)
}

func (w *wire) addSockets(device string) error {
	var fds [2]int
	for i, family := range []int{unix.AF_INET, unix.AF_INET6} {
		var err error
		if fds[i], err = unix.Socket(family, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.IPPROTO_RAW); err != nil {
			return err
		}
		if device == "" {
			continue
		}
		if err := unix.SetsockoptString(fds[i], unix.SOL_SOCKET, unix.SO_BINDTODEVICE, device); err != nil {
			return err
		}
	}
	w.raw[device] = fds
	return nil
}

// translations are what is made of the addresses in virtual4 and virtual6, by their place there: the addresses of the
// host or behind a device, and for some the port. Until they are translated they are behind the second
// device.
var translations = []struct {
	to4, to6 netip.Addr
	port     uint16 // of TCP, UDP and SCTP; 0: as it was
}{
	{locals4[0], locals6[0], 0}, {locals4[1], locals6[1], 9091}, {own4(3, 1), own6(3, 1), 80}, {own4(4, 1), own6(4, 1), 0},
	{own4(1, 1), own6(1, 1), 9090}, {own4(0, 1), own6(0, 1), 0}, {own4(5, 1), own6(5, 1), 443},
}

// own4 and own6 return addresses behind a device.
func own4(number, n int) netip.Addr {
	return netip.AddrFrom4([4]byte{10, 10 + byte(number), 0, byte(n)})
}

func own6(number, n int) netip.Addr {
	return netip.AddrFrom16([16]byte{0: 0xfd, 1: 0x10 + byte(number), 15: byte(n)})
}

// translate adds a table that translates destinations.
func (w *wire) translate() error {
	c, err := nftables.New(nftables.WithNetNSFd(w.fd))
	if err != nil {
		return err
	}
	table := c.AddTable(&nftables.Table{Family: nftables.TableFamilyINet, Name: "nat"})
	for _, hook := range []*nftables.ChainHook{nftables.ChainHookPrerouting, nftables.ChainHookOutput} {
		chain := c.AddChain(&nftables.Chain{Name: fmt.Sprint("nat", *hook), Table: table, Type: nftables.ChainTypeNAT,
			Hooknum: hook, Priority: nftables.ChainPriorityNATDest})
		for i, t := range translations {
			for _, proto := range []uint8{ruleset.TCP, ruleset.UDP, ruleset.SCTP, 0} {
				if (t.port == 0) != (proto == 0) && t.port == 0 {
					continue
				}
				c.AddRule(&nftables.Rule{Table: table, Chain: chain, Exprs: translation(virtual4[i], t.to4, proto, t.port)})
				c.AddRule(&nftables.Rule{Table: table, Chain: chain, Exprs: translation(virtual6[i], t.to6, proto, t.port)})
			}
		}
	}
	return c.Flush()
}

func translation(from, to netip.Addr, proto uint8, port uint16) []expr.Any {
	family, offset, size := byte(nfprotoIPv4), uint32(16), uint32(4)
	if !from.Is4() {
		family, offset, size = nfprotoIPv6, 24, 16
	}
	nat := &expr.NAT{Type: expr.NATTypeDestNAT, Family: uint32(family), RegAddrMin: 1}
	out := []expr.Any{
		&expr.Meta{Key: expr.MetaKeyNFPROTO, Register: 1},
		&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: []byte{family}},
		&expr.Payload{DestRegister: 1, Base: expr.PayloadBaseNetworkHeader, Offset: offset, Len: size},
		&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: from.AsSlice()},
	}
	if proto != 0 {
		nat.RegProtoMin = 2
		out = append(out, &expr.Meta{Key: expr.MetaKeyL4PROTO, Register: 1},
			&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: []byte{proto}},
			&expr.Immediate{Register: 2, Data: []byte(portKey(port))})
	}
	return append(out, &expr.Immediate{Register: 1, Data: to.AsSlice()}, nat)
}

// emit lets a packet arrive by In, or has the host send it: by the device Out, or to where the routes lead.
func (w *wire) emit(t testing.TB, p *ruleset.Packet, id uint16) { w.write(t, p, encodePacket(p, id)) }

// write is emit for a packet that is encoded.
func (w *wire) write(t testing.TB, p *ruleset.Packet, b []byte) {
	if p.In != "" {
		// The kernel takes the packet all the way before write returns.
		if _, err := w.tuns[p.In].Write(b); err != nil {
			t.Fatalf("write to %s: %v", p.In, err)
		}
		return
	}
	var err error
	if p.Dst.Is4() {
		err = unix.Sendto(w.raw[p.Out][0], b, 0, &unix.SockaddrInet4{Addr: p.Dst.As4()})
	} else {
		err = unix.Sendto(w.raw[p.Out][1], b, 0, &unix.SockaddrInet6{Addr: p.Dst.As16()})
	}
	if err != nil && !errors.Is(err, unix.EPERM) && !errors.Is(err, unix.ECONNREFUSED) && !errors.Is(err, unix.EACCES) &&
		!errors.Is(err, unix.EHOSTUNREACH) && !errors.Is(err, unix.ENETUNREACH) {
		t.Fatalf("send %+v: %v", p, err)
	}
}

// forget makes connection tracking forget all flows.
func (w *wire) forget(t testing.TB) {
	h, err := netlink.NewHandleAt(netns.NsHandle(w.fd), unix.NETLINK_NETFILTER)
	if err == nil {
		err = h.ConntrackTableFlush(netlink.ConntrackTable)
		h.Close()
	}
	if err != nil {
		t.Fatal(err)
	}
}

// collect reads what the observer has reported so far of our packets.
func (w *wire) collect(t testing.TB, f func(e LogEntry, id uint16)) {
	for {
		list, err := w.log.receive(noWait)
		if errors.Is(err, unix.EAGAIN) {
			return
		}
		if err != nil {
			t.Fatal(err)
		}
		for i := range list {
			if list[i].typ != unix.NFNL_SUBSYS_ULOG<<8|logMsgPacket {
				continue
			}
			w.log.report(list[i].payload(), func(e LogEntry, packet []byte) {
				if len(packet) >= 20 && packet[0]>>4 == 4 && packet[8] >= hops-1 && packet[8] <= hops {
					f(e, binary.BigEndian.Uint16(packet[4:]))
				} else if len(packet) >= 40 && packet[0]>>4 == 6 && packet[7] >= hops-1 && packet[7] <= hops {
					f(e, binary.BigEndian.Uint16(packet[2:]))
				}
			})
		}
	}
}
