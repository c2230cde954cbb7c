package nft

import (
	"bytes"
	"encoding/binary"
	"net"
	"net/netip"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"margay/ruleset"
)

// etherFrame returns a frame from a port to a hardware address.
func etherFrame(from tap, to net.HardwareAddr, ether uint16, data []byte) []byte {
	b := binary.BigEndian.AppendUint16(append(append([]byte{}, to...), from.mac()...), ether)
	return append(b, data...)
}

// arp returns an answer by which a hardware address says that it has an address.
func arp(at tap, sender netip.Addr) []byte {
	b := append([]byte{0, 1, 8, 0, 6, 4, 0, 2}, at.mac()...)
	b = append(append(b, sender.AsSlice()...), 2, 0, 0, 0, 4, 2)
	return append(b, taps[1].four().AsSlice()...)
}

// icmp6 returns ICMPv6 of a type from an address to a port, with a target.
func icmp6(typ uint8, src, dst, target netip.Addr) []byte {
	p := ruleset.Packet{Src: src, Dst: dst, Protocol: ruleset.ICMPv6, ICMPType: typ}
	return encode(&p, 1, append([]byte{typ, 0, 0, 0, 0, 0, 0, 0}, target.AsSlice()...))
}

func udp(src, dst netip.Addr) []byte {
	return encodePacket(&ruleset.Packet{Src: src, Dst: dst, Protocol: ruleset.UDP, SrcPort: 9, DstPort: 9}, 5)
}

// gets reports whether a frame that is sent by one port leaves by another.
func (w *bridgeWire) gets(t *testing.T, from, to tap, frame []byte) bool {
	t.Helper()
	if _, err := w.taps[from.name].Write(frame); err != nil {
		t.Fatal(err)
	}
	buffer := make([]byte, 2048)
	for end := time.Now().Add(20 * time.Millisecond); ; time.Sleep(time.Millisecond) {
		for {
			n, err := unix.Read(int(w.taps[to.name].Fd()), buffer)
			if err != nil {
				break
			}
			if bytes.Equal(buffer[:n], frame) {
				return true
			}
		}
		if time.Now().After(end) {
			return false
		}
	}
}

// A port carries what is from and to its workload's addresses, and what finds them; without rules all of these frames arrive.
func TestWhatPortsCarry(t *testing.T) {
	w := newBridgeWire(t)
	pod, other, nobody := taps[0], taps[1], taps[2]
	link := netip.MustParseAddr("fe80::1")
	all, bcast := net.HardwareAddr{0x33, 0x33, 0, 0, 0, 1}, net.HardwareAddr{0xff, 0xff, 0xff, 0xff, 0xff, 0xff}
	nodes, shared := netip.MustParseAddr("ff02::1"), netip.MustParseAddr("fd14::99")
	tagged := append([]byte{0, 7, 8, 0}, udp(pod.four(), other.four())...)
	cases := []struct {
		name  string
		from  tap
		frame []byte
		want  bool
	}{
		{"IPv4", pod, etherFrame(pod, other.mac(), etherIPv4, udp(pod.four(), other.four())), true},
		{"IPv6", pod, etherFrame(pod, other.mac(), etherIPv6, udp(pod.six(), other.six())), true},
		{"another's IPv4", pod, etherFrame(pod, other.mac(), etherIPv4, udp(nobody.four(), other.four())), false},
		{"IPv4 to another's address", pod, etherFrame(pod, other.mac(), etherIPv4, udp(pod.four(), nobody.four())), false},
		{"broadcast", pod, etherFrame(pod, bcast, etherIPv4, udp(pod.four(), netip.MustParseAddr("255.255.255.255"))), false},
		{"multicast", pod, etherFrame(pod, net.HardwareAddr{1, 0, 0x5e, 0, 0, 0xfb}, etherIPv4, udp(pod.four(), netip.MustParseAddr("224.0.0.251"))), false},
		{"a VLAN", pod, etherFrame(pod, other.mac(), 0x8100, tagged), false},
		{"another protocol", pod, etherFrame(pod, other.mac(), 0x88b5, make([]byte, 50)), false},
		{"ARP", pod, etherFrame(pod, other.mac(), etherARP, arp(pod, pod.four())), true},
		{"ARP that probes", pod, etherFrame(pod, bcast, etherARP, arp(pod, netip.IPv4Unspecified())), true},
		{"another's ARP", pod, etherFrame(pod, other.mac(), etherARP, arp(pod, nobody.four())), false},
		{"ARP of nobody", nobody, etherFrame(nobody, other.mac(), etherARP, arp(nobody, nobody.four())), true},
		{"nobody's ARP of a workload", nobody, etherFrame(nobody, other.mac(), etherARP, arp(nobody, pod.four())), false},
		{"advertisement", pod, etherFrame(pod, other.mac(), etherIPv6, icmp6(136, pod.six(), other.six(), pod.six())), true},
		{"advertisement of a link address", pod, etherFrame(pod, other.mac(), etherIPv6, icmp6(136, link, other.six(), link)), true},
		{"another's advertisement", pod, etherFrame(pod, other.mac(), etherIPv6, icmp6(136, pod.six(), other.six(), nobody.six())), false},
		{"advertisement from another", pod, etherFrame(pod, other.mac(), etherIPv6, icmp6(136, nobody.six(), other.six(), pod.six())), false},
		{"nobody's advertisement of a workload", nobody, etherFrame(nobody, other.mac(), etherIPv6, icmp6(136, nobody.six(), other.six(), pod.six())), false},
		{"solicitation", pod, etherFrame(pod, all, etherIPv6, icmp6(135, link, nodes, other.six())), true},
		{"solicitation from none", pod, etherFrame(pod, all, etherIPv6, icmp6(135, netip.IPv6Unspecified(), nodes, pod.six())), true},
		{"solicitation to its address", pod, etherFrame(pod, other.mac(), etherIPv6, icmp6(135, pod.six(), other.six(), other.six())), true},
		{"solicitation to an address of two", pod, etherFrame(pod, other.mac(), etherIPv6, icmp6(135, pod.six(), shared, shared)), false},
		{"listener report to an address of two", nobody, etherFrame(nobody, other.mac(), etherIPv6, icmp6(131, nobody.six(), shared, shared)), false},
		{"MLDv2 report to an address of two", nobody, etherFrame(nobody, other.mac(), etherIPv6, icmp6(143, nobody.six(), shared, shared)), false},
		{"advertisement from an address of two", pod, etherFrame(pod, other.mac(), etherIPv6, icmp6(136, shared, other.six(), pod.six())), false},
		{"router advertisement", pod, etherFrame(pod, all, etherIPv6, icmp6(134, link, nodes, link)), false},
		{"router advertisement of nobody", nobody, etherFrame(nobody, all, etherIPv6, icmp6(134, link, nodes, link)), true},
		{"redirect", pod, etherFrame(pod, other.mac(), etherIPv6, icmp6(137, link, other.six(), link)), false},
		{"UDP from a link address", pod, etherFrame(pod, other.mac(), etherIPv6, udp(link, other.six())), false},
		{"UDP to a link address", nobody, etherFrame(nobody, other.mac(), etherIPv6, udp(nobody.six(), link)), false},
	}
	for _, c := range cases {
		if !w.gets(t, c.from, other, c.frame) {
			t.Errorf("without rules, %s does not arrive", c.name)
		}
	}
	p := ruleset.NewProgram()
	open := []ruleset.Rule{{Action: ruleset.Allow}}
	p.Profiles["open"] = &ruleset.Profile{Name: "open", Ingress: open, Egress: open}
	for _, port := range []tap{pod, other, taps[4]} {
		id := ruleset.EndpointID{Kind: "WorkloadEndpoint", Namespace: "ns", Name: port.name}
		p.Workloads[id] = &ruleset.Workload{ID: id, Interface: port.name, Bridge: port.bridge, Filtered: true, Profiles: []string{"open"},
			Addrs: []netip.Addr{port.four(), port.six()}}
		if port != pod {
			p.Workloads[id].Addrs = append(p.Workloads[id].Addrs, shared)
		}
	}
	resync(t, w.open(t), p)
	for _, c := range cases {
		if got := w.gets(t, c.from, other, c.frame); got != c.want {
			t.Errorf("%s arrives: %v", c.name, got)
		}
	}
	// Frames to the addresses that bridges do not pass on come in by the port itself, past the rules for what ports carry.
	for _, src := range []netip.Addr{pod.four(), nobody.four(), peers4[0]} {
		aside := etherFrame(pod, net.HardwareAddr{1, 0x80, 0xc2, 0, 0, 0xe}, etherIPv4, udp(src, locals4[0]))
		w.collect(t, func(LogEntry, uint16) {})
		w.gets(t, pod, other, aside)
		came := false
		w.collect(t, func(e LogEntry, id uint16) {
			came = came || id == 5 && e.Prefix == "in"
			if id == 5 && e.Prefix == "past-in" {
				t.Errorf("what came in by the port from %s got past: %+v", src, e)
			}
		})
		if !came {
			t.Errorf("nothing came in by the port from %s: the test shows nothing", src)
		}
	}
}
