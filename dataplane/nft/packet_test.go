package nft

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"net"
	"net/netip"
	"os"
	"testing"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"

	"margay/ruleset"
)

// A wire is a host in a namespace with tun devices: packets that are written to one arrive there as if from outside, and
// raw sockets send through them. When it is observed, another table, made with another library, tells which packets came
// to the hooks and which got past ours.
type wire struct {
	*namespace
	tuns map[string]*os.File
	raw  map[string][2]int // sockets bound to a device, IPv4 and IPv6
	log  *conn
	id   uint16
}

// Groups and prefixes of the observing table.
const (
	observerGroup = 7
	passedPrefix  = "passed"
)

// observed is what the observer saw of a packet.
type observed struct {
	came   bool
	state  ruleset.ConnState
	passed bool
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
	err := w.observe()
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
}

func (w *wire) setUp(devices []string) error {
	for path, value := range map[string]string{
		"ipv4/conf/all/rp_filter": "0", "ipv4/conf/default/rp_filter": "0", "ipv6/conf/default/accept_dad": "0",
		"ipv6/conf/default/addr_gen_mode": "1", "ipv6/conf/default/router_solicitations": "0",
	} {
		if err := os.WriteFile("/proc/sys/net/"+path, []byte(value), 0); err != nil {
			return err
		}
	}
	h, err := netlink.NewHandleAt(netns.NsHandle(w.fd), unix.NETLINK_ROUTE)
	if err != nil {
		return err
	}
	defer h.Close()
	lo, err := h.LinkByName("lo")
	if err != nil {
		return err
	}
	if err := h.LinkSetUp(lo); err != nil {
		return err
	}
	for _, cidr := range []string{"10.2.0.0/16", "fd02::/16"} {
		_, dst, _ := net.ParseCIDR(cidr)
		r := &netlink.Route{Dst: dst, LinkIndex: lo.Attrs().Index, Type: unix.RTN_LOCAL, Table: unix.RT_TABLE_LOCAL}
		if dst.IP.To4() != nil {
			r.Scope = unix.RT_SCOPE_HOST
		}
		if err := h.RouteAdd(r); err != nil {
			return fmt.Errorf("route %s: %w", cidr, err)
		}
	}
	for i, name := range devices {
		if err := w.addDevice(h, name, i); err != nil {
			return fmt.Errorf("device %s: %w", name, err)
		}
	}
	return nil
}

func (w *wire) addDevice(h *netlink.Handle, name string, metric int) error {
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
	link, err := h.LinkByName(name)
	if err != nil {
		return err
	}
	if err := h.LinkSetUp(link); err != nil {
		return err
	}
	for _, cidr := range []string{"10.1.0.0/16", "fd01::/16"} {
		_, dst, _ := net.ParseCIDR(cidr)
		r := &netlink.Route{Dst: dst, LinkIndex: link.Attrs().Index, Priority: metric + 1}
		if dst.IP.To4() != nil {
			r.Scope = unix.RT_SCOPE_LINK
		}
		if err := h.RouteAdd(r); err != nil {
			return err
		}
	}
	var fds [2]int
	for i, family := range []int{unix.AF_INET, unix.AF_INET6} {
		if fds[i], err = unix.Socket(family, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.IPPROTO_RAW); err != nil {
			return err
		}
		if err := unix.SetsockoptString(fds[i], unix.SOL_SOCKET, unix.SO_BINDTODEVICE, name); err != nil {
			return err
		}
	}
	w.raw[name] = fds
	return nil
}

// observe adds the observing table.
func (w *wire) observe() error {
	c, err := nftables.New(nftables.WithNetNSFd(w.fd))
	if err != nil {
		return err
	}
	table := c.AddTable(&nftables.Table{Family: nftables.TableFamilyINet, Name: "observer"})
	for _, hook := range []struct {
		name     string
		hook     *nftables.ChainHook
		priority nftables.ChainPriority
		came     bool
	}{
		{"in", nftables.ChainHookPrerouting, -50, true}, {"out", nftables.ChainHookOutput, -50, true},
		{"past-in", nftables.ChainHookInput, 50, false}, {"past-out", nftables.ChainHookOutput, 50, false},
	} {
		chain := c.AddChain(&nftables.Chain{
			Name: hook.name, Table: table, Type: nftables.ChainTypeFilter, Hooknum: hook.hook, Priority: &hook.priority,
		})
		if !hook.came {
			c.AddRule(&nftables.Rule{Table: table, Chain: chain, Exprs: []expr.Any{logTo(passedPrefix)}})
			continue
		}
		for state, bit := range stateBits {
			c.AddRule(&nftables.Rule{Table: table, Chain: chain, Exprs: []expr.Any{
				&expr.Ct{Key: expr.CtKeySTATE, Register: 1},
				&expr.Bitwise{SourceRegister: 1, DestRegister: 1, Len: 4,
					Mask: binary.NativeEndian.AppendUint32(nil, bit), Xor: make([]byte, 4)},
				&expr.Cmp{Op: expr.CmpOpNeq, Register: 1, Data: make([]byte, 4)},
				logTo(state),
			}})
		}
	}
	return c.Flush()
}

// stateBits are the states of a packet as the kernel has them; an untracked packet is New to policy.
var stateBits = map[string]uint32{"new": 8 | 64, "established": 2, "related": 4, "invalid": 1}

func logTo(prefix string) *expr.Log {
	return &expr.Log{
		Key: 1<<unix.NFTA_LOG_GROUP | 1<<unix.NFTA_LOG_PREFIX, Group: observerGroup, Data: []byte(prefix + "\x00"),
	}
}

// send lets the packets take their way and returns what became of each.
func (w *wire) send(t testing.TB, packets []ruleset.Packet) []observed {
	t.Helper()
	first := w.id
	for i := range packets {
		w.id++
		w.emit(t, &packets[i], w.id)
	}
	out := make([]observed, len(packets))
	w.collect(t, func(e LogEntry, id uint16) {
		i := int(id - first - 1)
		if i >= len(packets) {
			return
		}
		p := &packets[i]
		iface := e.In + e.Out
		if p.Src != e.Src || p.Dst != e.Dst || p.Interface != iface {
			return // an answer of the kernel
		}
		switch e.Prefix {
		case passedPrefix:
			out[i].passed = true
		default:
			out[i].came = true
			out[i].state = map[string]ruleset.ConnState{"established": ruleset.Established, "related": ruleset.Related,
				"invalid": ruleset.Invalid}[e.Prefix]
		}
	})
	return out
}

func (w *wire) emit(t testing.TB, p *ruleset.Packet, id uint16) {
	b := encodePacket(p, id)
	if p.Direction == ruleset.Ingress {
		// The kernel takes the packet through its input hook before write returns.
		if _, err := w.tuns[p.Interface].Write(b); err != nil {
			t.Fatalf("write to %s: %v", p.Interface, err)
		}
		return
	}
	var err error
	if p.Dst.Is4() {
		err = unix.Sendto(w.raw[p.Interface][0], b, 0, &unix.SockaddrInet4{Addr: p.Dst.As4()})
	} else {
		err = unix.Sendto(w.raw[p.Interface][1], b, 0, &unix.SockaddrInet6{Addr: p.Dst.As16()})
	}
	if err != nil && !errors.Is(err, unix.EPERM) && !errors.Is(err, unix.ECONNREFUSED) && !errors.Is(err, unix.EACCES) &&
		!errors.Is(err, unix.EHOSTUNREACH) {
		t.Fatalf("send %+v: %v", p, err)
	}
}

// collect reads what the observer has reported so far.
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
				if len(packet) >= 20 && packet[0]>>4 == 4 {
					f(e, binary.BigEndian.Uint16(packet[4:]))
				} else if len(packet) >= 40 {
					f(e, binary.BigEndian.Uint16(packet[2:]))
				}
			})
		}
	}
}

// encodePacket returns the bytes of a packet; the id is in the identification or the flow label.
func encodePacket(p *ruleset.Packet, id uint16) []byte {
	data := transport(p, id)
	sum := pseudo(p, len(data))
	switch p.Protocol {
	case ruleset.TCP:
		binary.BigEndian.PutUint16(data[16:], checksum(sum, data))
	case ruleset.UDP, ruleset.UDPLite:
		binary.BigEndian.PutUint16(data[6:], checksum(sum, data))
	case ruleset.ICMP:
		binary.BigEndian.PutUint16(data[2:], checksum(0, data))
	case ruleset.ICMPv6:
		binary.BigEndian.PutUint16(data[2:], checksum(sum, data))
	}
	if p.Src.Is4() {
		h := []byte{0x45, 0, 0, 0, 0, 0, 0x40, 0, 64, p.Protocol, 0, 0}
		binary.BigEndian.PutUint16(h[2:], uint16(20+len(data)))
		binary.BigEndian.PutUint16(h[4:], id)
		h = append(append(h, p.Src.AsSlice()...), p.Dst.AsSlice()...)
		binary.BigEndian.PutUint16(h[10:], checksum(0, h))
		return append(h, data...)
	}
	h := []byte{0x60, 0, 0, 0, 0, 0, p.Protocol, 64}
	binary.BigEndian.PutUint16(h[2:], id)
	binary.BigEndian.PutUint16(h[4:], uint16(len(data)))
	h = append(append(h, p.Src.AsSlice()...), p.Dst.AsSlice()...)
	return append(h, data...)
}

func transport(p *ruleset.Packet, id uint16) []byte {
	ends := binary.BigEndian.AppendUint16(binary.BigEndian.AppendUint16(nil, p.SrcPort), p.DstPort)
	switch p.Protocol {
	case ruleset.TCP:
		flags := byte(0x02) // SYN
		switch id % 16 {
		case 1:
			flags = 0x10 // ACK: a flow picked up on its way
		case 2:
			flags = 0 // invalid
		}
		return append(ends, 0, 0, 0, 1, 0, 0, 0, 0, 0x50, flags, 0xff, 0xff, 0, 0, 0, 0)
	case ruleset.UDP, ruleset.UDPLite:
		return append(ends, 0, 8, 0, 0) // for UDP-Lite: the checksum covers all 8 bytes
	case ruleset.SCTP: // INIT, RFC 9260 section 3.3.2
		chunk := []byte{1, 0, 0, 20, 0, 0, 0, 1, 0, 1, 0, 0, 0, 1, 0, 1, 0, 0, 0, 1}
		data := append(append(ends, 0, 0, 0, 0, 0, 0, 0, 0), chunk...)
		binary.LittleEndian.PutUint32(data[8:], crc32.Checksum(data, crc32.MakeTable(crc32.Castagnoli)))
		return data
	case ruleset.ICMP, ruleset.ICMPv6:
		return append(binary.BigEndian.AppendUint16([]byte{p.ICMPType, p.ICMPCode, 0, 0}, id), 0, 1, 0, 0, 0, 0)
	case 47: // GRE without options, RFC 2784
		return []byte{0, 0, 8, 0}
	}
	return nil // no payload at all: what reads a port here must not match
}

func pseudo(p *ruleset.Packet, n int) uint32 {
	var sum uint32
	for _, a := range []netip.Addr{p.Src, p.Dst} {
		b := a.AsSlice()
		for i := 0; i < len(b); i += 2 {
			sum += uint32(binary.BigEndian.Uint16(b[i:]))
		}
	}
	return sum + uint32(p.Protocol) + uint32(n)
}

func checksum(sum uint32, b []byte) uint16 {
	for i := 0; i+1 < len(b); i += 2 {
		sum += uint32(binary.BigEndian.Uint16(b[i:]))
	}
	for sum>>16 != 0 {
		sum = sum&0xffff + sum>>16
	}
	return ^uint16(sum)
}

// packet draws a packet that can be sent.
func (g generator) packet() ruleset.Packet {
	p := ruleset.Packet{
		Direction: pick(g, ruleset.Ingress, ruleset.Egress), Interface: pick(g, interfaces...), Protocol: g.proto(),
	}
	peer, local := pick(g, peers4...), pick(g, locals4...)
	if g.one(2) {
		peer, local = pick(g, peers6...), pick(g, locals6...)
	}
	p.Src, p.Dst = peer, local
	if p.Direction == ruleset.Egress {
		p.Src, p.Dst = local, peer
	}
	if ruleset.HasPorts(p.Protocol) {
		p.SrcPort, p.DstPort = pick(g, ports...), pick(g, ports...)
		if g.one(2) {
			p.SrcPort = uint16(1024 + g.IntN(60000))
		}
	}
	if p.Protocol == ruleset.ICMP || p.Protocol == ruleset.ICMPv6 {
		p.ICMPType, p.ICMPCode = pick[uint8](g, 0, 8, 13, 128, 129), pick[uint8](g, 0, 0, 1)
	}
	return p
}
