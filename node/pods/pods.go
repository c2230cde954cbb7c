// Package pods tells by which interface of the host each workload's address is reached, whatever CNI made the interface, and
// keeps telling.
//
// It only reads, but for what [FilterBridge] does: it enters no namespace and decides nothing about policy. What counts for an address, the
// first that says anything (ways.go):
//
//	route        a host route (/32, /128) of the main table, without gateway: root made it. With a gateway, or to an
//	             interface that is no cable, the address is elsewhere.
//	address      carried by the other end of a cable, in the workload's namespace: the CNI gave it
//	neighbour    a fixed entry, or one that the kernel learned; on a bridge, the port behind which the bridge knows the
//	             neighbour's hardware address
//
// A cable is a veth or netkit, whose other end is a workload's, or a tap. If what counts leads to more than one interface,
// none is told: an address with two claimants belongs to neither until one of them is gone. What was learned from packets can be
// forged by whoever sends packets, so a cable whose other end can be asked for its addresses gets none in that way.
//
//	links, routes, neighbours ----------------------> table --ways--> deliver, if different
//	addresses in namespaces that have a number here --> re-read the other end --^
//
// There is no polling. Changes of addresses in other namespaces are told to those that have CAP_NET_BROADCAST only; without
// it they are seen when the kernel next tells something else about the cable, such as its first neighbour.
//
// # Before a workload's interface is known
//
// The host's end may appear before the workload is stored, or after it, and its name may tell what it is or not. An
// interface whose name begins with InterfacePrefix is closed until a workload is known that has it, and the workload is
// closed until its interface is known: that is the default for Calico's names (cali). For other CNIs set InterfacePrefix to
// how their names begin (veth, eni, lxc). That is not the default, for the same names are those of everything else that has a
// cable on this host, which would lose its connections: containers without Kubernetes, virtual machines. Without it, an
// interface is open until a workload is known that has it, and is the workload's from then on.
//
// # Bridges
//
// What passes a bridge shows the hooks of IP the bridge as its interface, in both directions, and what passes from port to port
// shows itself there only if br_netfilter has it do so (seen on Linux 6.18: connections are tracked, rejects are answered). The
// family bridge sees ports, but connections only with CONFIG_NF_CONNTRACK_BRIDGE, which not all kernels have. So it takes both: a
// table of family bridge holds each port to the addresses of its workload, and in the inet table an address is the workload. What
// the kernel must have, and what is looked at while the agent runs:
//
//	CONFIG_NF_TABLES_BRIDGE   for the table; tried at the start by a transaction that is taken back
//	br_netfilter              its parameters are there (net.bridge.*); looked for every five seconds
//	nf_call_iptables, nf_call_ip6tables of the bridge: both 1. The agent sets them, see [FilterBridge]
//	vlan_filtering of the bridge: 0
//
// Without one of them the agent is not ready and says what is missing, and ports of workloads on such a bridge are closed to other
// ports; what is routed is filtered all the same. The agent sets the options of those bridges that workloads are on: that takes
// NET_ADMIN and no writable /proc, concerns nobody else's bridge, the kernel tells when somebody takes it back, and who sets
// net.bridge.bridge-nf-call-iptables to 0 for all bridges does not open these. Other tables' rules for forwarding then apply to what
// passes between ports, too, as with kube-proxy, which needs the same.
//
// An address that several ports carry is told as that of the port that had it before; if none had, of none: nobody may send from it
// or gets what is sent to it.
package pods

import (
	"cmp"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net/netip"
	"sync"
	"time"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"

	"margay/calc"
	"margay/node/links"
)

// Options say where to look.
type Options struct {
	NetNS int // file descriptor of the network namespace; 0: that of the calling thread
	Log   *slog.Logger
}

// Follow delivers the ways to all addresses that are found, once at the start and again after every change, until the
// context ends; then it returns the context's error. What is delivered must not be changed.
func Follow(ctx context.Context, o Options, deliver func(map[netip.Addr]calc.Way)) error {
	f := &follower{options: o, table: newTable(), deliver: deliver}
	if err := f.canHear(); err != nil {
		f.deaf = true
		o.Log.Warn("changes of addresses in the namespaces of workloads are not told to this program; it reads them again when "+
			"a workload sends its first packet (give it CAP_NET_BROADCAST)", "error", err)
	}
	return f.run(ctx)
}

func (f *follower) run(ctx context.Context) error {
	var wg sync.WaitGroup
	defer wg.Wait()
	if !f.deaf {
		wg.Go(func() { _ = links.Watch(ctx, f.links(), f.others()) }) // it ends with the context only
	}
	wg.Go(func() { f.watchFilter(ctx) })
	return links.Watch(ctx, f.links(), f.here())
}

// filterInterval is how often it is looked whether br_netfilter is there: nothing tells when a module comes or goes.
const filterInterval = 5 * time.Second

// watchFilter tells when br_netfilter comes or goes, until the context ends.
func (f *follower) watchFilter(ctx context.Context) {
	tick := time.NewTicker(filterInterval)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		filterless := !f.options.hasFilter()
		f.mu.Lock()
		if f.table.filterless != filterless {
			f.table.filterless = filterless
			f.tell()
		}
		f.mu.Unlock()
	}
}

// A follower keeps the table up to date.
type follower struct {
	options Options
	deliver func(map[netip.Addr]calc.Way)

	mu     sync.Mutex
	table  *table
	listed bool // what is here, completely, at least once
	told   map[netip.Addr]calc.Way
	blind  bool // the log says that other ends cannot be asked
	deaf   bool // nothing is told of other namespaces
}

// canHear returns why nothing is told of other namespaces.
func (f *follower) canHear() error {
	conn, err := netlink.Dial(unix.NETLINK_ROUTE, &netlink.Config{NetNS: f.options.NetNS})
	if err != nil {
		return err
	}
	defer conn.Close()
	return conn.SetOption(netlink.ListenAllNSID, true)
}

func (f *follower) links() links.Options {
	return links.Options{NetNS: f.options.NetNS, Log: f.options.Log}
}

// here is what the host's own namespace tells.
func (f *follower) here() links.Subject {
	bridge := make([]byte, unix.SizeofNdMsg)
	bridge[0] = unix.AF_BRIDGE
	return links.Subject{
		Name:   "routes and neighbours",
		Groups: unix.RTMGRP_LINK | unix.RTMGRP_NEIGH | unix.RTMGRP_IPV4_ROUTE | unix.RTMGRP_IPV6_ROUTE,
		Lists: []netlink.Message{
			links.ListOf(unix.RTM_GETLINK, make([]byte, unix.SizeofIfInfomsg)),
			links.ListOf(unix.RTM_GETROUTE, make([]byte, unix.SizeofRtMsg)),
			links.ListOf(unix.RTM_GETNEIGH, make([]byte, unix.SizeofNdMsg)),
			links.ListOf(unix.RTM_GETNEIGH, bridge),
		},
		Begin: func() {
			f.mu.Lock()
			defer f.mu.Unlock()
			f.table = newTable()
			f.table.filterless = !f.options.hasFilter()
		},
		Apply: func(m netlink.Message) (bool, error) {
			f.mu.Lock()
			defer f.mu.Unlock()
			changed, err := f.table.apply(m)
			if f.deaf && m.Header.Type == unix.RTM_NEWNEIGH {
				changed = f.table.doubt(f.table.near(m)) || changed
			}
			return changed, err
		},
		Deliver: func() {
			f.mu.Lock()
			defer f.mu.Unlock()
			f.listed = true
			f.tell()
		},
	}
}

// others is what happens at the other ends.
func (f *follower) others() links.Subject {
	return links.Subject{
		Name:          "addresses of workloads",
		Groups:        unix.RTMGRP_IPV4_IFADDR | unix.RTMGRP_IPV6_IFADDR,
		AllNamespaces: true,
		Begin: func() {
			f.mu.Lock()
			defer f.mu.Unlock()
			f.table.doubt(f.table.cables())
		},
		Apply: func(m netlink.Message) (bool, error) {
			if len(m.Data) < unix.SizeofIfAddrmsg || m.Header.Type != unix.RTM_NEWADDR && m.Header.Type != unix.RTM_DELADDR {
				return false, nil
			}
			// The message says which interface, but not of which namespace.
			index := binary.NativeEndian.Uint32(m.Data[4:8])
			f.mu.Lock()
			defer f.mu.Unlock()
			return f.table.doubt(f.table.endingAt(index)), nil
		},
		Deliver: func() {
			f.mu.Lock()
			defer f.mu.Unlock()
			f.tell()
		},
	}
}

// tell delivers the ways if they are others than before.
func (f *follower) tell() {
	if !f.listed {
		return
	}
	f.ask(f.table.unasked())
	ways := f.table.ways(f.told)
	if f.told != nil && maps.Equal(ways, f.told) {
		return
	}
	f.told = ways
	f.deliver(ways)
}

// ask reads the addresses at the other ends of cables.
func (f *follower) ask(cables []uint32) {
	if len(cables) == 0 {
		return
	}
	conn, err := netlink.Dial(unix.NETLINK_ROUTE, &netlink.Config{NetNS: f.options.NetNS, Strict: true})
	if err != nil {
		f.cannotAsk(err)
		return
	}
	defer conn.Close()
	for _, index := range cables {
		end, err := askOtherEnd(conn, f.table.links[index])
		if err != nil {
			f.cannotAsk(err)
			end = nil
		}
		f.table.others[index] = end
	}
}

// cannotAsk logs once why other ends cannot be asked. An end that has just gone is no reason.
func (f *follower) cannotAsk(err error) {
	if f.blind || errors.Is(err, unix.EINVAL) || errors.Is(err, unix.ENODEV) {
		return
	}
	f.blind = true
	f.options.Log.Warn("addresses of workloads cannot be read in their namespaces; routes and neighbours tell where they are", "error", err)
}

// askOtherEnd returns the addresses that the other end of a cable carries, those of the link only left out; never nil
// without an error.
func askOtherEnd(conn *netlink.Conn, cable link) ([]netip.Addr, error) {
	found := []netip.Addr{}
	for _, family := range []byte{unix.AF_INET, unix.AF_INET6} {
		body := make([]byte, unix.SizeofIfAddrmsg)
		body[0] = family
		binary.NativeEndian.PutUint32(body[4:8], cable.peer)
		target, err := netlink.MarshalAttributes([]netlink.Attribute{
			{Type: unix.IFA_TARGET_NETNSID, Data: binary.NativeEndian.AppendUint32(nil, uint32(cable.peerNS))},
		})
		if err != nil {
			return nil, fmt.Errorf("ask the other end of %s: %w", cable.name, err)
		}
		answers, err := links.List(conn, links.ListOf(unix.RTM_GETADDR, append(body, target...)))
		if err != nil {
			return nil, fmt.Errorf("ask the other end of %s: %w", cable.name, err)
		}
		for _, m := range answers {
			addr, ok := carried(m, family, cable)
			if ok {
				found = append(found, addr)
			}
		}
	}
	return found, nil
}

// carried returns the address that an answer is about. An older kernel does not know the question and answers another one: for
// its own namespace; such an answer does not count.
func carried(m netlink.Message, family byte, cable link) (netip.Addr, bool) {
	if m.Header.Type != unix.RTM_NEWADDR || len(m.Data) < unix.SizeofIfAddrmsg || m.Data[0] != family ||
		binary.NativeEndian.Uint32(m.Data[4:8]) != cable.peer {
		return netip.Addr{}, false
	}
	attrs, err := netlink.UnmarshalAttributes(m.Data[unix.SizeofIfAddrmsg:])
	if err != nil {
		return netip.Addr{}, false
	}
	var local, other netip.Addr
	there := false
	for _, a := range attrs {
		switch a.Type {
		case unix.IFA_LOCAL:
			local, _ = netip.AddrFromSlice(a.Data)
		case unix.IFA_ADDRESS:
			other, _ = netip.AddrFromSlice(a.Data)
		case unix.IFA_TARGET_NETNSID:
			there = len(a.Data) == 4 && int32(binary.NativeEndian.Uint32(a.Data)) == cable.peerNS
		}
	}
	addr := cmp.Or(local, other)
	return addr, there && addr.IsGlobalUnicast()
}
