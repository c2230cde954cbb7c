package ruleset

import (
	"net/netip"
	"slices"
	"strings"
)

// ipip is the protocol of IP in IP.
const ipip uint8 = 4

// hostEndpoint returns the host endpoint that an interface is in a stage: the one that names it, else the one for all
// interfaces. That one has no Untracked stage, and no Normal stage on the interfaces of workloads; what workloads send
// and get by the host passes its PreDNAT and Forward stages like everything else.
func (p *Program) hostEndpoint(iface string, s Stage) *Endpoint {
	var all *Endpoint
	for _, ep := range p.Endpoints {
		for _, name := range ep.Interfaces {
			switch {
			case iface == "":
			case name == iface:
				return ep
			case name == AllInterfaces:
				all = ep
			}
		}
	}
	if s == Untracked || s == Normal && p.IsWorkload(iface) {
		return nil
	}
	return all
}

// workload returns the workload behind an interface, nil if there is none. Ports of bridges are no way of packets.
func (p *Program) workload(iface string) *Workload {
	for _, w := range p.Workloads {
		if w.Interface == iface && w.Bridge == "" {
			return w
		}
	}
	return nil
}

// IsWorkload reports whether an interface is a workload's: by its name, or because a workload has it.
func (p *Program) IsWorkload(iface string) bool {
	return p.Settings.IsWorkload(iface) || iface != "" && (p.workload(iface) != nil || p.isPort(iface))
}

// IsWorkload reports whether an interface is a workload's, by its name. An empty prefix is no prefix of anything: it would
// leave no interface to filter.
func (s *Settings) IsWorkload(iface string) bool {
	for _, prefix := range s.WorkloadPrefixes {
		if prefix != "" && strings.HasPrefix(iface, prefix) {
			return true
		}
	}
	return false
}

// maySend reports whether the source of a packet is one that a workload may have. Beside its addresses that is what it
// needs to find its neighbours: a link-local address, and none while it makes sure that its address is free (RFC 4862
// section 5.4.2).
func (p *Program) maySend(w *Workload, pkt *Packet) bool {
	link := func(a netip.Addr) bool { return a.Is6() && a.IsLinkLocalUnicast() }
	return slices.Contains(w.Addrs, pkt.Src) || p.Settings.AllowSpoofing && inAny(w.Spoofable, pkt.Src) || link(pkt.Src) ||
		pkt.Src == netip.IPv6Unspecified() && pkt.Protocol == ICMPv6 && (link(pkt.Dst) || pkt.Dst.IsMulticast())
}

// forbidsTunnel reports whether a packet of a workload is in a tunnel that it must not use.
func (s *Settings) forbidsTunnel(pkt *Packet) bool {
	return !s.AllowVXLAN && pkt.Protocol == UDP && pkt.DstPort == s.VXLAN() || !s.AllowIPIP && pkt.Protocol == ipip
}

// isPodDiscovery reports whether a packet is what a workload needs of its host to use IPv6 at all: multicast listener
// query, report and done, router solicitation, neighbour solicitation and advertisement.
func isPodDiscovery(pkt *Packet) bool {
	if pkt.Protocol != ICMPv6 || pkt.Src.Is4() {
		return false
	}
	switch pkt.ICMPType {
	case 130, 131, 132, 133, 135, 136:
		return true
	}
	return false
}

// isDiscovery reports whether a packet is what a host needs to use IPv6 at all: multicast listener discovery (130 to 132,
// 143), router and neighbour discovery (133 to 136). Without it not even failsafe ports can be reached. It does not leave the
// link, the kernel takes it from the link only (RFC 4861 section 7.1), and connection tracking leaves it out.
func isDiscovery(pkt *Packet) bool {
	return pkt.Protocol == ICMPv6 && !pkt.Src.Is4() && (pkt.ICMPType >= 130 && pkt.ICMPType <= 136 || pkt.ICMPType == 143)
}

// inTunnel reports whether a packet is in a tunnel between hosts, by what it looks like.
func (s *Settings) inTunnel(pkt *Packet) bool {
	for _, t := range s.Tunnels {
		if t.holds(pkt) {
			return true
		}
	}
	return false
}

func (t Tunnel) holds(pkt *Packet) bool {
	return t.Protocol == pkt.Protocol && (!HasPorts(t.Protocol) || t.Port == pkt.DstPort) && (t.Family == AnyFamily || t.Family == FamilyOf(pkt.Src))
}

// isHost reports whether an address is one of the cluster's hosts.
func (p *Program) isHost(a netip.Addr) bool {
	set := p.Sets[Hosts]
	return set != nil && set.Contains(a) || inAny(p.Settings.TunnelNets, a)
}

// findFailsafe returns the index of the failsafe for a port and the address at the other end, or -1.
func findFailsafe(list []Failsafe, protocol uint8, port uint16, peer netip.Addr) int {
	for i, f := range list {
		if f.Protocol == protocol && f.Port == port && (!f.Net.IsValid() || f.Net.Contains(peer)) {
			return i
		}
	}
	return -1
}

func (p *Program) matches(r *Rule, pkt *Packet) bool {
	return (r.Family == AnyFamily || r.Family == FamilyOf(pkt.Src)) &&
		(r.Protocol == 0 || r.Protocol == pkt.Protocol) &&
		(r.NotProtocol == 0 || r.NotProtocol != pkt.Protocol) &&
		r.ICMP.matches(pkt) && !r.NotICMP.excludes(pkt) &&
		p.matchesEntity(&r.Source, pkt, pkt.Src, pkt.SrcPort) &&
		p.matchesEntity(&r.Destination, pkt, pkt.Dst, pkt.DstPort)
}

func (m ICMPMatch) matches(pkt *Packet) bool {
	return !m.HasType || isICMP(pkt) && m.Type == pkt.ICMPType && (!m.HasCode || m.Code == pkt.ICMPCode)
}

func (m ICMPMatch) excludes(pkt *Packet) bool { return m.HasType && m.matches(pkt) }

// isICMP reports whether the packet is ICMP of its own family; ICMP in IPv6 is a payload like any other.
func isICMP(pkt *Packet) bool {
	return pkt.Protocol == ICMP && pkt.Src.Is4() || pkt.Protocol == ICMPv6 && !pkt.Src.Is4()
}

func (p *Program) matchesEntity(e *Entity, pkt *Packet, addr netip.Addr, port uint16) bool {
	if e.Nets != nil && !inAny(e.Nets, addr) || inAny(e.NotNets, addr) {
		return false
	}
	for _, id := range e.Sets {
		if set := p.Sets[id]; set == nil || !set.Contains(addr) {
			return false
		}
	}
	for _, id := range e.NotSets {
		if set := p.Sets[id]; set != nil && set.Contains(addr) {
			return false
		}
	}
	return (e.Ports == nil || p.inPorts(e.Ports, pkt, addr, port)) &&
		(e.NotPorts == nil || !p.inPorts(e.NotPorts, pkt, addr, port))
}

func (p *Program) inPorts(ports *Ports, pkt *Packet, addr netip.Addr, port uint16) bool {
	if !HasPorts(pkt.Protocol) {
		return false
	}
	for _, r := range ports.Ranges {
		if r.First <= port && port <= r.Last {
			return true
		}
	}
	for _, id := range ports.Named {
		if set := p.Sets[id]; set != nil && set.ContainsPort(addr, pkt.Protocol, port) {
			return true
		}
	}
	return false
}

func inAny(nets []netip.Prefix, a netip.Addr) bool {
	for _, n := range nets {
		if n.Contains(a) {
			return true
		}
	}
	return false
}
