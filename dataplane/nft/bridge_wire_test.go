package nft

import (
	"encoding/binary"
	"fmt"
	"net"
	"net/netip"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"margay/ruleset"
)

// A bridgeWire is an observed wire with two bridges more, br0 and br1, whose ports are tap devices: frames that are written to one
// come in there as from a pod, and what leaves by one is read. A hardware address is behind one port for ever, and an address of
// the internet protocol at one hardware address, so that what does not arrive was dropped.
type bridgeWire struct {
	*wire
	taps map[string]*os.File
}

// A tap is a port of a bridge and the address behind it, at own4 and own6 of the bridge's network.
type tap struct {
	name, bridge string
	network, n   int
}

// taps are the ports: of workloads, of nobody (n0, n1), and one that is a workload's by its name and has none.
var taps = []tap{
	{"p0", "br0", 4, 1}, {"p1", "br0", 4, 2}, {"n0", "br0", 4, 3}, {"veth0", "br0", 4, 4}, {"p2", "br1", 5, 1}, {"n1", "br1", 5, 2},
}

// wireDevices are those of a bridgeWire that are no bridges: networks 4 and 5 are those of the bridges.
var wireDevices = []string{"t0", "t1", "x0", "cali0"}

func (d tap) four() netip.Addr      { return own4(d.network, d.n) }
func (d tap) six() netip.Addr       { return own6(d.network, d.n) }
func (d tap) mac() net.HardwareAddr { return net.HardwareAddr{2, 0, 0, 0, byte(d.network), byte(d.n)} }

func tapWith(a netip.Addr) (tap, bool) {
	for _, d := range taps {
		if d.four() == a || d.six() == a {
			return d, true
		}
	}
	return tap{}, false
}

func bridgeMAC(name string) net.HardwareAddr { return net.HardwareAddr{2, 0xb, 0, 0, 0, name[2]} }

func newBridgeWire(t testing.TB) *bridgeWire {
	t.Helper()
	w := &bridgeWire{newObservedWire(t, wireDevices...), map[string]*os.File{}}
	t.Cleanup(func() {
		for _, f := range w.taps {
			f.Close()
		}
	})
	var err error
	w.do(func() { err = w.addBridges() })
	must(t, err)
	must(t, w.observeBridges())
	return w
}

// observeBridges tells which packets came to where they leave by a port, before our table.
func (w *bridgeWire) observeBridges() error {
	c, err := nftables.New(nftables.WithNetNSFd(w.fd))
	if err != nil {
		return err
	}
	table := c.AddTable(&nftables.Table{Family: nftables.TableFamilyBridge, Name: "observer"})
	priority := nftables.ChainPriority(bridgePriority - 10)
	chain := c.AddChain(&nftables.Chain{Name: "post", Table: table, Type: nftables.ChainTypeFilter,
		Hooknum: nftables.ChainHookPostrouting, Priority: &priority})
	c.AddRule(&nftables.Rule{Table: table, Chain: chain, Exprs: []expr.Any{logTo("port")}})
	return c.Flush()
}

func (w *bridgeWire) addBridges() error {
	for i, name := range []string{"br0", "br1"} {
		off := false
		br := &netlink.Bridge{LinkAttrs: netlink.LinkAttrs{Name: name, HardwareAddr: bridgeMAC(name)}, MulticastSnooping: &off}
		if err := w.routes.LinkAdd(br); err != nil {
			return err
		}
		for _, parameter := range []string{"nf_call_iptables", "nf_call_ip6tables"} {
			// /sys is that of the machine's own namespace: the global parameters of this one do as well.
			if err := os.WriteFile("/proc/sys/net/bridge/bridge-"+strings.ReplaceAll(parameter, "_", "-"), []byte("1"), 0); err != nil {
				return err
			}
		}
		if err := w.routes.LinkSetUp(br); err != nil {
			return err
		}
		four, six := behind(4 + i)
		for _, p := range []netip.Prefix{four, six} {
			r := route(p, br, 0)
			if err := w.routes.RouteAdd(r); err != nil {
				return fmt.Errorf("route %s: %w", p, err)
			}
		}
		for _, d := range taps {
			if d.bridge == name {
				if err := w.addTap(d, br); err != nil {
					return fmt.Errorf("port %s: %w", d.name, err)
				}
			}
		}
	}
	return nil
}

func (w *bridgeWire) addTap(d tap, br *netlink.Bridge) error {
	fd, err := unix.Open("/dev/net/tun", unix.O_RDWR|unix.O_CLOEXEC|unix.O_NONBLOCK, 0)
	if err != nil {
		return err
	}
	w.taps[d.name] = os.NewFile(uintptr(fd), d.name)
	ifr, err := unix.NewIfreq(d.name)
	if err != nil {
		return err
	}
	ifr.SetUint16(unix.IFF_TAP | unix.IFF_NO_PI)
	if err := unix.IoctlIfreq(fd, unix.TUNSETIFF, ifr); err != nil {
		return err
	}
	port, err := w.routes.LinkByName(d.name)
	if err != nil {
		return err
	}
	index := port.Attrs().Index
	steps := []func() error{
		func() error { return w.routes.LinkSetMaster(port, br) },
		func() error { return w.routes.LinkSetUp(port) },
		func() error { return w.routes.LinkSetLearning(port, false) },
		func() error { return w.routes.LinkSetHairpin(port, true) },
		func() error {
			return w.routes.NeighSet(&netlink.Neigh{LinkIndex: index, Family: unix.AF_BRIDGE, Flags: netlink.NTF_MASTER,
				State: netlink.NUD_NOARP, HardwareAddr: d.mac()})
		},
	}
	for _, a := range []netip.Addr{d.four(), d.six()} {
		steps = append(steps, func() error {
			family := netlink.FAMILY_V4
			if a.Is6() {
				family = netlink.FAMILY_V6
			}
			return w.routes.NeighSet(&netlink.Neigh{LinkIndex: br.Attrs().Index, Family: family, State: netlink.NUD_PERMANENT,
				IP: a.AsSlice(), HardwareAddr: d.mac()})
		})
	}
	for _, step := range steps {
		if err := step(); err != nil {
			return err
		}
	}
	return nil
}

// A frame is a packet to send; by a port, if InPort is set, to a hardware address.
type frame struct {
	ruleset.Packet
	to net.HardwareAddr
}

// bridgedTo returns the port that the frame is for, if it is not for the host.
func (f *frame) bridgedTo() (tap, bool) {
	for _, d := range taps {
		if f.InPort != "" && string(d.mac()) == string(f.to) && d.bridge == f.In {
			return d, true
		}
	}
	return tap{}, false
}

func (w *bridgeWire) sendFrame(t testing.TB, f *frame, id uint16) {
	if f.InPort == "" {
		w.emit(t, &f.Packet, id)
		return
	}
	ether := uint16(etherIPv4)
	if f.Src.Is6() {
		ether = etherIPv6
	}
	var from net.HardwareAddr
	for _, d := range taps {
		if d.name == f.InPort {
			from = d.mac()
		}
	}
	b := binary.BigEndian.AppendUint16(append(append([]byte{}, f.to...), from...), ether)
	if _, err := w.taps[f.InPort].Write(append(b, encodePacket(&f.Packet, id)...)); err != nil {
		t.Fatalf("write to %s: %v", f.InPort, err)
	}
}

// arrived reads what left by the ports: for each of our packets by which. Those sent have the numbers after first.
func (w *bridgeWire) arrived(t testing.TB, sent int, first uint16) map[int][]string {
	t.Helper()
	out := map[int][]string{}
	buffer := make([]byte, 2048)
	for name, f := range w.taps {
		for {
			n, err := unix.Read(int(f.Fd()), buffer)
			if err != nil {
				break
			}
			id, ok := readFrame(buffer[:n])
			if i := int(id - first - 1); ok && i < sent {
				out[i] = append(out[i], name)
			}
		}
		must(t, unix.SetNonblock(int(f.Fd()), true))
	}
	return out
}

// readFrame returns the number of one of our packets. Its source may have been translated.
func readFrame(b []byte) (id uint16, ok bool) {
	if len(b) < 14+20 {
		return 0, false
	}
	switch p := b[14:]; binary.BigEndian.Uint16(b[12:]) {
	case etherIPv4:
		return binary.BigEndian.Uint16(p[4:]), p[8] >= hops-1 && p[8] <= hops
	case etherIPv6:
		return binary.BigEndian.Uint16(p[2:]), p[7] >= hops-1 && p[7] <= hops
	}
	return 0, false
}

// sendFrames lets packets take their way and returns what became of them, and how many were lost elsewhere than with us.
func (w *bridgeWire) sendFrames(t testing.TB, frames []frame) (out []passage, lost int) {
	t.Helper()
	first := w.id
	trails := make([]trail, len(frames))
	for i := range frames {
		w.id++
		trails[i] = trail{sent: frames[i].Packet, id: w.id, seen: map[string]LogEntry{}, state: map[string]ruleset.ConnState{}}
		w.sendFrame(t, &frames[i], w.id)
	}
	for range 2 {
		w.collect(t, func(e LogEntry, id uint16) {
			i := int(id - first - 1)
			if i >= len(frames) || e.Src != frames[i].Src || e.Protocol != frames[i].Protocol {
				return
			}
			name, state, _ := strings.Cut(e.Prefix, " ")
			trails[i].seen[name] = e
			if state != "" {
				trails[i].state[name] = ruleset.ConnState(state[0] - '0')
			}
		})
		time.Sleep(time.Millisecond)
	}
	ports := w.arrived(t, len(frames), first)
	for i := range frames {
		pass, ok := trails[i].bridgePassage(&frames[i], ports[i])
		if !ok {
			lost++
			continue
		}
		out = append(out, pass)
	}
	return out, lost
}

// bridgePassage returns the question to Eval about a packet and the kernel's answer; ok is false if it got lost.
func (t *trail) bridgePassage(f *frame, ports []string) (pass passage, ok bool) {
	p := t.question("tracked", "forward")
	p.In, p.InPort, p.Out, p.OutPort = f.In, f.InPort, "", ""
	pass = passage{sent: f.Packet, id: t.id}
	direct, isDirect := f.bridgedTo()
	arrives, known := tapWith(p.Dst)
	switch {
	case f.In == "":
		p = t.question("tracked-out", "sent")
		p.Out, p.OrigOut = t.seen["out"].Out, t.seen["out"].Out
		if t.at("post") {
			p.Out = t.seen["post"].Out
		}
		if arrives, known = tapWith(p.Dst); !known || p.Out != arrives.bridge || t.at("past-out") && !t.at("post") {
			return pass, false
		}
		p.OutPort = arrives.name
	case t.at("forward"):
		p.In, p.Out = t.seen["forward"].In, t.seen["forward"].Out
		if p.Out == "br0" || p.Out == "br1" {
			if isDirect && !p.DNAT {
				arrives, known = direct, true
			}
			if !known {
				return pass, false
			}
			p.OutPort = arrives.name
		}
		if t.at("past-forward") && !t.at("post") && p.In != p.Out {
			return pass, false
		}
	case t.at("in"):
		p = t.question("tracked", "in")
		p.In, p.InPort = f.In, f.InPort
	case isDirect:
		p.Out, p.OutPort = direct.bridge, direct.name
	case t.at("tracked"):
		return pass, false
	case f.InPort != "" || t.at("pre"):
		// Dropped by the port or before connection tracking: where it would have gone does not matter.
	default:
		return pass, false
	}
	pass.packet, pass.early = p, t.at("pre") && !t.at("tracked")
	if t.at("past-post") && p.OutPort != "" && len(ports) == 0 && (p.In == p.Out || !t.at("port")) {
		return pass, false // connection tracking, which has another flow with these addresses
	}
	switch {
	case p.OutPort != "":
		pass.passed = len(ports) == 1 && ports[0] == p.OutPort
	case p.Out != "":
		pass.passed = t.at("past-post")
	default:
		pass.passed = t.at("past-in")
	}
	return pass, true
}
