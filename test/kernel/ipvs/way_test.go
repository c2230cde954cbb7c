package ipvs

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"

	"margay/ruleset"
)

// A way is how a packet goes through the host, in the words of tests.
type way struct {
	name    string
	in, src string // "" is a process of the host
	dst     string // where it is sent to
	out, to string // the device that it leaves by, "" being a process, and where it arrives
}

// ways are those by a service, and for comparison some without. Sources are without their port.
func ways() []way {
	return []way{
		{name: "service", in: "wan", src: "client", dst: "vip:80", out: "lan", to: "backend:8080"},
		{name: "node port", in: "wan", src: "client", dst: "node:30080", out: "lan", to: "backend:8080"},
		{name: "service here", in: "wan", src: "client", dst: "vip:81", to: "node:8080"},
		{name: "service of a workload", in: "wan", src: "client", dst: "vip:82", out: "cali2", to: "mod:8080"},
		{name: "node port of a workload", in: "wan", src: "client", dst: "node:30082", out: "cali2", to: "mod:8080"},
		{name: "back where it came from", in: "wan", src: "client", dst: "vip:84", out: "wan", to: "client:8080"},
		{name: "the other way", in: "lan", src: "backend", dst: "vip:84", out: "wan", to: "client:8080"},
		{name: "service of an unknown workload", in: "wan", src: "client", dst: "vip:85", out: "cali9", to: "stray:8080"},
		{name: "workload to service", in: "cali1", src: "pod", dst: "vip:80", out: "lan", to: "backend:8080"},
		{name: "workload to service of another", in: "cali1", src: "pod", dst: "vip:82", out: "cali2", to: "mod:8080"},
		{name: "workload to itself", in: "cali1", src: "pod", dst: "vip:83", out: "cali1", to: "pod:8080"},
		{name: "workload to service here", in: "cali1", src: "pod", dst: "vip:81", to: "node:8080"},
		{name: "workload to node port", in: "cali1", src: "pod", dst: "node:30080", out: "lan", to: "backend:8080"},
		{name: "workload with another's address", in: "cali1", src: "mod", dst: "vip:80", out: "lan", to: "backend:8080"},
		{name: "unknown workload", in: "cali9", src: "stray", dst: "vip:80", out: "lan", to: "backend:8080"},
		{name: "unknown workload to service here", in: "cali9", src: "stray", dst: "vip:81", to: "node:8080"},
		{name: "process to service", src: "node", dst: "vip:80", out: "lan", to: "backend:8080"},
		{name: "process to node port", src: "node", dst: "node:30080", out: "lan", to: "backend:8080"},
		{name: "process to service of a workload", src: "node", dst: "vip:82", out: "cali2", to: "mod:8080"},
		{name: "process to service here", src: "node", dst: "vip:81", out: "lo", to: "node:8080"},

		{name: "passed on", in: "wan", src: "client", dst: "backend:8080", out: "lan", to: "backend:8080"},
		{name: "passed on to no service", in: "wan", src: "client", dst: "nobody:80", out: "lan", to: "nobody:80"},
		{name: "to a process", in: "wan", src: "client", dst: "node:8080", to: "node:8080"},
		{name: "to a workload", in: "wan", src: "client", dst: "mod:8080", out: "cali2", to: "mod:8080"},
		{name: "from a workload", in: "cali1", src: "pod", dst: "backend:8080", out: "lan", to: "backend:8080"},
		{name: "between workloads", in: "cali1", src: "pod", dst: "mod:8080", out: "cali2", to: "mod:8080"},
		{name: "workload to its host", in: "cali1", src: "pod", dst: "node:8080", to: "node:8080"},
		{name: "from a process", src: "node", dst: "backend:8080", out: "lan", to: "backend:8080"},
		{name: "process to a process", src: "node", dst: "node:8080", out: "lo", to: "node:8080"},
	}
}

// packets returns the packet as the specification is asked about it, for each time that it passes: what a host sends to itself
// goes out and comes in.
func (w *way) packets(f family, proto uint8, port uint16, state ruleset.ConnState) []*ruleset.Packet {
	sent, to := f.at(w.dst), f.at(w.to)
	pkt := ruleset.Packet{
		In: w.in, Out: w.out, State: state, Src: f.at(w.src + ":0").Addr(), SrcPort: port, Dst: to.Addr(), DstPort: to.Port(), Protocol: proto,
	}
	if w.dst != w.to {
		pkt.Balanced, pkt.OrigDst, pkt.OrigPort = true, sent.Addr(), sent.Port()
		if w.in == "" {
			pkt.OrigOut = "lo" // addresses of services and the host's own are here
		}
	}
	if w.out != "lo" {
		return []*ruleset.Packet{&pkt}
	}
	in := pkt
	in.In, in.Out = "lo", ""
	return []*ruleset.Packet{&pkt, &in}
}

// allowed asks the specification.
func (w *way) allowed(program *ruleset.Program, packets []*ruleset.Packet) (bool, ruleset.Verdict) {
	var v ruleset.Verdict
	for _, pkt := range packets {
		if v = ruleset.Eval(program, pkt); !v.Allowed {
			return false, v
		}
	}
	return true, v
}

// arrival counts what processes of the host get, behind all that may drop it.
type arrival struct {
	conn  *nftables.Conn
	count *nftables.CounterObj
	known uint64 // packets that were seen to arrive
}

// countArrivals counts what is for a port of TCP or UDP.
func (h *host) countArrivals(t *testing.T, port uint16) *arrival {
	t.Helper()
	name := fmt.Sprint("arrivals-", port)
	c, err := nftables.New(nftables.WithNetNSFd(h.NetNS()))
	if err != nil {
		t.Fatal(err)
	}
	table := c.AddTable(&nftables.Table{Family: nftables.TableFamilyINet, Name: name})
	chain := c.AddChain(&nftables.Chain{
		Name: "in", Table: table, Type: nftables.ChainTypeFilter, Hooknum: nftables.ChainHookInput, Priority: nftables.ChainPriorityRef(200),
	})
	a := &arrival{conn: c, count: c.AddObj(&nftables.CounterObj{Table: table, Name: "arrived"}).(*nftables.CounterObj)}
	c.AddRule(&nftables.Rule{Table: table, Chain: chain, Exprs: []expr.Any{
		&expr.Payload{DestRegister: 1, Base: expr.PayloadBaseTransportHeader, Offset: 2, Len: 2}, equal(binary.BigEndian.AppendUint16(nil, port)),
		&expr.Objref{Type: unix.NFT_OBJECT_COUNTER, Name: a.count.Name},
	}})
	if err := c.Flush(); err != nil {
		t.Fatal(err)
	}
	return a
}

// arrived returns how many packets processes got.
func (a *arrival) arrived(t *testing.T) uint64 {
	t.Helper()
	o, err := a.conn.GetObject(a.count)
	if err != nil {
		t.Fatal(err)
	}
	return o.(*nftables.CounterObj).Packets
}

// take lets a packet go this way and reports whether it arrived. What is expected decides only how long that waits: the kernel may put
// off what is for lo. See arrival.late.
func (w *way) take(t *testing.T, h *host, a *arrival, pkt packet, expected bool) bool {
	t.Helper()
	for device := range h.tuns {
		h.left(t, device)
	}
	before := a.arrived(t)
	if w.in != "" {
		h.arrive(t, w.in, pkt)
	} else {
		h.send(t, pkt.protocol, pkt.src, pkt.dst)
	}
	if w.out == "" || w.out == "lo" {
		for deadline := time.Now().Add(20 * time.Second); ; time.Sleep(time.Millisecond) {
			if a.arrived(t) > before {
				a.known++
				return true
			}
			if w.out == "" || !expected || time.Now().After(deadline) {
				return false
			}
		}
	}
	return slices.ContainsFunc(h.left(t, w.out), func(got packet) bool {
		return got.dst == h.at(w.to) && got.src == pkt.src && got.protocol == pkt.protocol
	})
}

// late returns how many packets arrived that had been taken for denied.
func (a *arrival) late(t *testing.T) uint64 { return a.arrived(t) - a.known }

func (w *way) packet(f family, proto uint8, port uint16) packet {
	return packet{protocol: proto, src: netip.AddrPortFrom(f.at(w.src+":0").Addr(), port), dst: f.at(w.dst), flags: syn}
}
