package pods

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"net/netip"
	"slices"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"

	"margay/calc"
)

// A table is what the messages of rtnetlink(7) add up to, as far as it may lead to workloads.
type table struct {
	links      map[uint32]link
	routes     map[netip.Addr]map[route]struct{}
	neighbours map[netip.Addr]map[uint32]neighbour // by interface
	ports      map[uint32]map[hardware]uint32      // of each bridge, behind which a hardware address is
	others     map[uint32][]netip.Addr             // what the other end of a cable carries; nil: it cannot be asked
	filterless bool                                // the kernel has no br_netfilter
}

// A link is an interface.
type link struct {
	name   string
	kind   string
	master uint32 // 0: none
	calls  bool   // a bridge: what passes between ports passes the hooks of IP
	vlans  bool   // a bridge: it filters VLANs
	// The other end of a veth or netkit: its index, and the number that its namespace has here, -1 for none.
	peer   uint32
	peerNS int32
}

// cable reports whether a workload may be behind the interface.
func (l link) cable() bool {
	return l.kind == "tun" || (l.kind == "veth" || l.kind == "netkit") && l.peerNS >= 0
}

// A route is one to a single address. The kernel takes that of the lowest metric.
type route struct {
	metric uint32
	index  uint32 // of the interface; 0: by a gateway, or by several interfaces
}

type hardware [6]byte

type neighbour struct {
	at    hardware
	fixed bool
}

func newTable() *table {
	return &table{
		links: map[uint32]link{}, routes: map[netip.Addr]map[route]struct{}{}, neighbours: map[netip.Addr]map[uint32]neighbour{},
		ports: map[uint32]map[hardware]uint32{}, others: map[uint32][]netip.Addr{},
	}
}

// ways returns the way to each address for which there is exactly one, and to those that several ports of a bridge claim the one
// that was told before, or else the bridge alone.
func (t *table) ways(told map[netip.Addr]calc.Way) map[netip.Addr]calc.Way {
	carriers := map[netip.Addr][]uint32{}
	for index, addrs := range t.others {
		for _, a := range addrs {
			carriers[a] = append(carriers[a], index)
		}
	}
	ways := map[netip.Addr]calc.Way{}
	for _, addrs := range []func(func(netip.Addr)){keysOf(t.routes), keysOf(carriers), keysOf(t.neighbours)} {
		addrs(func(a netip.Addr) {
			if _, done := ways[a]; done {
				return
			}
			index, claims := t.find(a, carriers[a])
			if len(claims) > 1 {
				if bridge := t.disputed(claims); bridge != "" {
					ways[a] = calc.Way{Bridge: bridge}
				}
				index = t.holder(claims, told[a].Interface)
			}
			if index != 0 {
				ways[a] = t.way(index)
			}
		})
	}
	return ways
}

func keysOf[V any](m map[netip.Addr]V) func(func(netip.Addr)) {
	return func(f func(netip.Addr)) {
		for a := range m {
			f(a)
		}
	}
}

// way is by a cable.
func (t *table) way(index uint32) calc.Way {
	l := t.links[index]
	w := calc.Way{Interface: l.name}
	if master := t.links[l.master]; master.kind == "bridge" {
		w.Bridge, w.Unfiltered = master.name, t.bridgeFault(master)
	}
	return w
}

// find returns the cable that leads to an address, which the other ends of carriers carry; 0 if none does, or one of several
// claims is to be chosen.
func (t *table) find(a netip.Addr, carriers []uint32) (index uint32, claims []uint32) {
	if len(t.routes[a]) > 0 {
		index, ok := t.routed(a)
		switch {
		case !ok:
			return 0, nil
		case t.links[index].cable():
			return index, nil
		case t.links[index].kind != "bridge":
			return 0, nil // it is elsewhere
		}
		carriers = slices.DeleteFunc(slices.Clone(carriers), func(c uint32) bool { return t.links[c].master != index })
	}
	switch len(carriers) {
	case 0:
		return t.neighbour(a), nil
	case 1:
		return carriers[0], nil
	}
	return 0, carriers
}

// routed returns the interface that the kernel's choice of routes leads to; false if that is by a gateway or not one.
func (t *table) routed(a netip.Addr) (uint32, bool) {
	var best []route
	for r := range t.routes[a] {
		switch {
		case len(best) == 0 || r.metric < best[0].metric:
			best = []route{r}
		case r.metric == best[0].metric:
			best = append(best, r)
		}
	}
	return best[0].index, len(best) == 1 && best[0].index != 0
}

// neighbour returns the cable behind which the neighbour is that has an address, 0 for none or several. A fixed entry counts before
// those learned.
func (t *table) neighbour(a netip.Addr) uint32 {
	var fixed, learned []uint32
	for index, n := range t.neighbours[a] {
		bridged := t.links[index].kind == "bridge"
		if bridged {
			index = t.ports[index][n.at]
		}
		switch {
		case !t.links[index].cable():
		case n.fixed && !bridged:
			fixed = append(fixed, index)
		case t.others[index] == nil:
			learned = append(learned, index)
		}
	}
	for _, found := range [][]uint32{fixed, learned} {
		if len(found) == 1 {
			return found[0]
		}
		if len(found) > 1 {
			return 0
		}
	}
	return 0
}

// unasked returns the cables whose other end was not asked for its addresses yet.
func (t *table) unasked() []uint32 {
	var list []uint32
	for index, l := range t.links {
		if _, asked := t.others[index]; l.cable() && l.peer != 0 && !asked {
			list = append(list, index)
		}
	}
	return list
}

// cables returns those with another end.
func (t *table) cables() []uint32 {
	var list []uint32
	for index, l := range t.links {
		if l.cable() && l.peer != 0 {
			list = append(list, index)
		}
	}
	return list
}

// near returns the cables that a message about a neighbour came by: the interface's own, or the ports of a bridge.
func (t *table) near(m netlink.Message) []uint32 {
	if len(m.Data) < unix.SizeofNdMsg {
		return nil
	}
	index := binary.NativeEndian.Uint32(m.Data[4:8])
	return slices.DeleteFunc(t.cables(), func(c uint32) bool { return c != index && t.links[c].master != index })
}

// endingAt returns the cables whose other end has an index, in whatever namespace.
func (t *table) endingAt(peer uint32) []uint32 {
	return slices.DeleteFunc(t.cables(), func(index uint32) bool { return t.links[index].peer != peer })
}

// doubt has the other ends of cables asked anew and reports whether there are any.
func (t *table) doubt(cables []uint32) bool {
	for _, index := range cables {
		delete(t.others, index)
	}
	return len(cables) > 0
}

// apply takes in one message and reports whether the table changed. Messages of other types are ignored.
func (t *table) apply(m netlink.Message) (bool, error) {
	sizes := map[netlink.HeaderType]int{
		unix.RTM_NEWLINK: unix.SizeofIfInfomsg, unix.RTM_DELLINK: unix.SizeofIfInfomsg,
		unix.RTM_NEWROUTE: unix.SizeofRtMsg, unix.RTM_DELROUTE: unix.SizeofRtMsg,
		unix.RTM_NEWNEIGH: unix.SizeofNdMsg, unix.RTM_DELNEIGH: unix.SizeofNdMsg,
	}
	size, ok := sizes[m.Header.Type]
	if !ok {
		return false, nil
	}
	if len(m.Data) < size {
		return false, fmt.Errorf("parse message of type %d: %d bytes are too short", m.Header.Type, len(m.Data))
	}
	attrs, err := netlink.UnmarshalAttributes(m.Data[size:])
	if err != nil {
		return false, fmt.Errorf("parse message of type %d: %w", m.Header.Type, err)
	}
	body := message{replaces: m.Header.Flags&netlink.Replace != 0, gone: m.Header.Type == unix.RTM_DELLINK || m.Header.Type == unix.RTM_DELROUTE || m.Header.Type == unix.RTM_DELNEIGH,
		head: m.Data[:size], attrs: map[uint16][]byte{}}
	for _, a := range attrs {
		body.attrs[a.Type] = a.Data
	}
	switch m.Header.Type {
	case unix.RTM_NEWLINK, unix.RTM_DELLINK:
		return t.applyLink(body), nil
	case unix.RTM_NEWROUTE, unix.RTM_DELROUTE:
		return t.applyRoute(body), nil
	}
	return t.applyNeighbour(body), nil
}

// A message is one of rtnetlink, taken apart.
type message struct {
	gone     bool
	replaces bool
	head     []byte
	attrs    map[uint16][]byte
}

// number returns an attribute of 32 bits; 0 if there is none.
func (m message) number(attr uint16) uint32 {
	if data := m.attrs[attr]; len(data) == 4 {
		return binary.NativeEndian.Uint32(data)
	}
	return 0
}

func (m message) hardware(attr uint16) (h hardware, ok bool) {
	return h, copy(h[:], m.attrs[attr]) == len(h)
}

// applyLink reads struct ifinfomsg: family, type, index, flags, change.
func (t *table) applyLink(m message) bool {
	if m.head[0] != unix.AF_UNSPEC {
		return false // a bridge tells of its port in its own words
	}
	index := binary.NativeEndian.Uint32(m.head[4:8])
	before, known := t.links[index]
	if m.gone {
		t.forget(index)
		return known
	}
	l := link{
		name:   string(bytes.TrimRight(m.attrs[unix.IFLA_IFNAME], "\x00")),
		kind:   kindOf(m.attrs[unix.IFLA_LINKINFO]),
		master: m.number(unix.IFLA_MASTER),
		peerNS: -1,
	}
	if l.kind == "bridge" {
		l.readBridge(m.attrs[unix.IFLA_LINKINFO])
	}
	if _, there := m.attrs[unix.IFLA_LINK_NETNSID]; there {
		l.peer, l.peerNS = m.number(unix.IFLA_LINK), int32(m.number(unix.IFLA_LINK_NETNSID))
	}
	down := binary.NativeEndian.Uint32(m.head[8:12])&unix.IFF_UP == 0 && t.forgetRoutes(index)
	if known && (before.peer != l.peer || before.peerNS != l.peerNS) {
		delete(t.others, index) // to be asked again
	}
	t.links[index] = l
	return down || before != l
}

// forget is called when an interface is gone; the kernel does not tell that its routes and neighbours are, too.
func (t *table) forget(index uint32) {
	_ = t.forgetRoutes(index)
	delete(t.links, index)
	delete(t.others, index)
	delete(t.ports, index)
	for a := range t.neighbours {
		drop(t.neighbours, a, index)
	}
	for _, ports := range t.ports {
		for at, port := range ports {
			if port == index {
				delete(ports, at)
			}
		}
	}
}

// forgetRoutes is called when an interface is down or gone: the kernel then takes its routes away, and does not tell of it.
func (t *table) forgetRoutes(index uint32) (forgotten bool) {
	for a, routes := range t.routes {
		for r := range routes {
			if r.index == index {
				drop(t.routes, a, r)
				forgotten = true
			}
		}
	}
	return forgotten
}

// drop deletes from a map of maps, in which none is empty.
func drop[A, B comparable, V any](m map[A]map[B]V, a A, b B) {
	if delete(m[a], b); len(m[a]) == 0 {
		delete(m, a)
	}
}

func kindOf(info []byte) string {
	attrs, err := netlink.UnmarshalAttributes(info)
	if err != nil {
		return ""
	}
	for _, a := range attrs {
		if a.Type == unix.IFLA_INFO_KIND {
			return string(bytes.TrimRight(a.Data, "\x00"))
		}
	}
	return ""
}

// applyRoute reads struct rtmsg: family, bits of destination and source, tos, table, protocol, scope, type, flags.
func (t *table) applyRoute(m message) bool {
	dst, ok := netip.AddrFromSlice(m.attrs[unix.RTA_DST])
	tableID := m.number(unix.RTA_TABLE)
	if !ok || !dst.IsGlobalUnicast() || int(m.head[1]) != dst.BitLen() || tableID != unix.RT_TABLE_MAIN || m.head[7] != unix.RTN_UNICAST {
		return false
	}
	const cloned = 0x200 // RTM_F_CLONED: the kernel's own memory of a look-up
	if binary.NativeEndian.Uint32(m.head[8:12])&cloned != 0 {
		return false
	}
	r := route{metric: m.number(unix.RTA_PRIORITY), index: m.number(unix.RTA_OIF)}
	for _, elsewhere := range []uint16{unix.RTA_GATEWAY, unix.RTA_VIA, unix.RTA_MULTIPATH} {
		if _, there := m.attrs[elsewhere]; there {
			r.index = 0
		}
	}
	_, had := t.routes[dst][r]
	if m.gone {
		drop(t.routes, dst, r)
		return had
	}
	if m.replaces { // the kernel does not tell of what was there before
		for other := range t.routes[dst] {
			if other.metric == r.metric {
				drop(t.routes, dst, other)
			}
		}
	}
	if t.routes[dst] == nil {
		t.routes[dst] = map[route]struct{}{}
	}
	t.routes[dst][r] = struct{}{}
	return !had
}

// applyNeighbour reads struct ndmsg: family, padding, index, state, flags, type.
func (t *table) applyNeighbour(m message) bool {
	index, state := binary.NativeEndian.Uint32(m.head[4:8]), binary.NativeEndian.Uint16(m.head[8:10])
	at, ok := m.hardware(unix.NDA_LLADDR)
	const usable = unix.NUD_REACHABLE | unix.NUD_STALE | unix.NUD_DELAY | unix.NUD_PROBE | unix.NUD_PERMANENT
	gone := m.gone || !ok
	if m.head[0] == unix.AF_BRIDGE {
		return ok && t.applyPort(at, index, m)
	}
	addr, ok := netip.AddrFromSlice(m.attrs[unix.NDA_DST])
	if !ok || !addr.IsGlobalUnicast() {
		return false
	}
	before, had := t.neighbours[addr][index]
	if gone || state&usable == 0 {
		drop(t.neighbours, addr, index)
		return had
	}
	n := neighbour{at, state&unix.NUD_PERMANENT != 0}
	if t.neighbours[addr] == nil {
		t.neighbours[addr] = map[uint32]neighbour{}
	}
	t.neighbours[addr][index] = n
	return !had || before != n
}

// applyPort notes behind which port of a bridge a hardware address is.
func (t *table) applyPort(at hardware, port uint32, m message) bool {
	bridge := m.number(unix.NDA_MASTER)
	if bridge == 0 {
		return false
	}
	before, had := t.ports[bridge][at]
	if m.gone {
		if before == port {
			drop(t.ports, bridge, at)
		}
		return had
	}
	if t.ports[bridge] == nil {
		t.ports[bridge] = map[hardware]uint32{}
	}
	t.ports[bridge][at] = port
	return before != port
}
