package ruleset

import (
	"net/netip"
	"slices"
)

// A workload on a bridge is known by its address: what passes a bridge shows the hooks of IP the bridge as its interface. That
// an address means one workload is seen to at the ports, where frames show which port they come by and leave by, see
// onlyItsOwn. An address that several workloads on bridges claim is nobody's, and nothing passes from or to it.

// bridged returns the workload that has an address on a bridge, nil if that is not clear, and whether any workload on a bridge
// claims it.
func (p *Program) bridged(bridge string, a netip.Addr) (w *Workload, claimed bool) {
	for _, o := range p.Workloads {
		if o.Bridge != "" && slices.Contains(o.Addrs, a) {
			if claimed {
				return nil, true
			}
			w, claimed = o, true
		}
	}
	if w == nil || w.Interface == "" || w.Bridge != bridge {
		return nil, claimed
	}
	return w, true
}

// claims reports whether a workload claims an address on this bridge.
func (p *Program) claims(bridge string, a netip.Addr) bool {
	for _, w := range p.Workloads {
		if bridge != "" && w.Bridge == bridge && slices.Contains(w.Addrs, a) {
			return true
		}
	}
	return false
}

// behind returns the workload that has an address behind an interface, nil if there is none that is known.
func (p *Program) behind(iface string, a netip.Addr) *Workload {
	if p.IsWorkload(iface) {
		return p.workload(iface)
	}
	w, _ := p.bridged(iface, a)
	return w
}

// addressesKnown: what is from or to the address of a workload on a bridge passes by that bridge. A process may send to it.
func (e *evaluation) addressesKnown() bool {
	p, pkt := e.program, &e.packet
	if _, claimed := p.bridged(pkt.In, pkt.Src); claimed && pkt.In != "" && e.from == nil {
		e.visit(Normal, Egress, EndpointID{})
		return e.deny(UnknownInterface)
	}
	if _, claimed := p.bridged(pkt.Out, pkt.Dst); claimed && pkt.In != "" && pkt.Out != "" && e.to == nil {
		e.visit(Normal, Ingress, EndpointID{})
		return e.deny(UnknownInterface)
	}
	return true
}

// ByBridge returns a packet that passes interfaces of workloads as it passes bridges: where In or Out is a port with a workload
// behind it, they become InPort or OutPort, and the bridge In or Out.
func (p *Program) ByBridge(pkt Packet) Packet {
	for _, w := range p.Workloads {
		if w.Bridge == "" || w.Interface == "" {
			continue
		}
		if pkt.In == w.Interface {
			pkt.In, pkt.InPort = w.Bridge, w.Interface
		}
		if pkt.Out == w.Interface {
			pkt.Out, pkt.OutPort = w.Bridge, w.Interface
		}
	}
	return pkt
}

// onPort reports whether an address is that of the workload behind a port, of whatever bridge.
func (p *Program) onPort(port string, a netip.Addr) bool {
	for _, w := range p.Workloads {
		if w.Bridge != "" && w.Interface == port && slices.Contains(w.Addrs, a) {
			sole, _ := p.bridged(w.Bridge, a)
			return sole == w
		}
	}
	return false
}

// hasBridge reports whether there is a workload on the bridge.
func (p *Program) hasBridge(name string) bool {
	for _, w := range p.Workloads {
		if name != "" && w.Bridge == name {
			return true
		}
	}
	return false
}

// unfiltered reports whether what passes between the port and others of its bridge is not seen by the hooks of IP.
func (p *Program) unfiltered(port string) bool {
	for _, w := range p.Workloads {
		if w.Bridge != "" && w.Interface == port && !w.Filtered {
			return true
		}
	}
	return false
}

// isPortDiscovery reports whether a packet is what a workload needs of its link to use IPv6 at all, and what only it can
// say: no router advertisement, which would make it the router of others.
func isPortDiscovery(pkt *Packet) bool {
	link := pkt.Src.Is6() && pkt.Src.IsLinkLocalUnicast() || pkt.Src == netip.IPv6Unspecified()
	return link && isDiscovery(pkt) && pkt.ICMPType != 134
}

// ports: the port of a bridge that a packet comes in by, and the one that it leaves by, let it pass. That holds for every
// packet of a flow.
func (e *evaluation) ports() bool {
	pkt := &e.packet
	if pkt.In != "" && pkt.InPort != "" {
		if reason, ok := e.program.mayLeave(pkt); !ok {
			e.visit(Normal, Egress, e.workloadAt(pkt.InPort))
			return e.deny(reason)
		}
	}
	if pkt.Out != "" && pkt.OutPort != "" {
		if reason, ok := e.program.mayArrive(pkt); !ok {
			e.visit(Normal, Ingress, e.workloadAt(pkt.OutPort))
			return e.deny(reason)
		}
	}
	return true
}

// workloadAt returns the ID of the workload behind a port, zero if there is none.
func (e *evaluation) workloadAt(port string) EndpointID {
	for id, w := range e.program.Workloads {
		if w.Interface == port && w.Bridge != "" {
			return id
		}
	}
	return EndpointID{}
}

// mayLeave reports whether a port takes a packet from what is behind it: a workload's from its own addresses, that of another
// from addresses of no workload.
func (p *Program) mayLeave(pkt *Packet) (Reason, bool) {
	_, claimed := p.bridged(pkt.In, pkt.Src)
	switch known := p.isPort(pkt.InPort); {
	case !known && p.closes(pkt.InPort):
		return UnknownInterface, false
	case !known:
		return SpoofedSource, !claimed
	}
	return SpoofedSource, p.onPort(pkt.InPort, pkt.Src) || isPortDiscovery(pkt)
}

// mayArrive reports whether a port hands a packet to what is behind it: a workload's those to its own addresses, that of
// another those to addresses of no workload.
func (p *Program) mayArrive(pkt *Packet) (Reason, bool) {
	_, claimed := p.bridged(pkt.Out, pkt.Dst)
	known := p.isPort(pkt.OutPort)
	switch between := pkt.InPort != "" && pkt.In == pkt.Out; {
	case !known && p.closes(pkt.OutPort):
		return UnknownInterface, false
	case between && (p.unfiltered(pkt.InPort) || p.unfiltered(pkt.OutPort)) && !isDiscovery(pkt):
		return UnfilteredBridge, false
	case !known:
		return ForeignAddress, !claimed
	}
	return ForeignAddress, p.onPort(pkt.OutPort, pkt.Dst) || isDiscovery(pkt)
}

// closes reports whether nothing passes by a port that no workload is known to be behind.
func (p *Program) closes(port string) bool {
	if !p.Settings.IsWorkload(port) || p.Settings.ClosePorts {
		return p.Settings.IsWorkload(port)
	}
	for _, w := range p.Workloads {
		if w.Bridge != "" {
			return true
		}
	}
	return false
}

// isPort reports whether a workload on a bridge is behind the port.
func (p *Program) isPort(name string) bool {
	for _, w := range p.Workloads {
		if w.Interface == name && w.Bridge != "" {
			return true
		}
	}
	return false
}
