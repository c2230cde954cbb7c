package ruleset

import "net/netip"

// A ConnState is what connection tracking knows of a packet's flow.
type ConnState uint8

// The states. The zero value is the one for which policy is walked.
const (
	New ConnState = iota
	Established
	Related
	Invalid
	// NotTracked: connection tracking does not look at the packet. Policy is walked as for New, and no reply is known as
	// such. The kernel has neighbour discovery in this state (ICMPv6 types 130 to 136 and 143).
	NotTracked
)

// A Packet is what a verdict depends on: one packet on its way through the host. Src, Dst and the ports are those after
// destination NAT and before source NAT, which all stages see but PreDNAT and Untracked.
//
// What a host sends to itself takes the way twice: out by an interface, then in by it.
type Packet struct {
	// In is the interface that the packet came in by, Out the one that it leaves by. "" is a process of this host.
	In, Out string
	// InPort and OutPort are the ports of In and Out, where these are bridges. "": none, or it is not asked about.
	InPort, OutPort string

	State    ConnState // as connection tracking has it, if a rule of the Untracked stage does not keep it away
	Src, Dst netip.Addr
	Protocol uint8
	// Ports are 0 when the protocol has none.
	SrcPort, DstPort   uint16
	ICMPType, ICMPCode uint8

	// DNAT: the destination was translated: the bit IPS_DST_NAT of the status of its flow is set, whatever other bits are.
	// Only then the fields after it count: where the packet was sent to and, if a process of this host sent it, the
	// interface that it would have left by.
	DNAT     bool
	OrigDst  netip.Addr
	OrigPort uint16
	OrigOut  string

	// Balanced: it was IPVS that translated the destination, with Settings.IPVS; the bit of DNAT is not set then, the fields after
	// it count. To the hooks, what comes in and is passed on so ends on this host and is sent anew from it.
	Balanced bool
	// Own: what comes in, not by lo, claims to be from this host: Src is an address of it, and so is where it was sent to. It
	// counts with Settings.IPVS only, where what is from this host's addresses is taken to be sent by it.
	Own bool
}

// beforeDNAT returns the packet as the stages before destination NAT see it.
func (p *Packet) beforeDNAT() Packet {
	original := *p
	if p.DNAT || p.Balanced {
		original.Dst, original.DstPort = p.OrigDst, p.OrigPort
		if p.In == "" {
			original.Out = p.OrigOut
		}
	}
	return original
}

// fromNobody reports whether a packet that is delivered to this host, to IPVS or to a process, is from no sender that there is.
func (p *Packet) fromNobody() bool {
	none := p.Src.IsUnspecified() && !p.Dst.IsMulticast()
	return p.In != "" && p.In != "lo" && (p.Out == "" || p.Balanced) && (p.Own || none)
}

// A Reason says what decided a verdict.
type Reason uint8

// The reasons. The zero value is what a Verdict of zero means: denied, since nothing allowed it.
const (
	NoProfile        Reason = iota // no tier decided and no profile allowed
	NoEndpoint                     // no endpoint is on the packet's way: Margay does not filter it
	FlowKnown                      // established or related
	FlowInvalid                    // connection tracking calls the packet invalid
	FailsafePort                   // Verdict.Rule is the index of the failsafe
	PolicyRule                     // Verdict.Tier, Policy, Rule
	EndOfTier                      // Verdict.Tier: no rule of it decided
	ProfileRule                    // Verdict.Profile, Rule
	ProfileMissing                 // Verdict.Profile is named by the endpoint and does not exist
	NoPolicy                       // no policy of the stage applies or decides: the stage lets the packet pass
	UnknownInterface               // a workload's interface, by its name, that no Workload has
	SpoofedSource                  // a workload sends from an address that is not its own
	TunnelPacket                   // a workload sends VXLAN or IPIP
	PodDiscovery                   // ICMPv6 that a workload needs to reach its host
	ToOwnWorkload                  // a process of this host sends to a workload of it
	EndpointToHost                 // Settings.EndpointToHost, after the workload's policy allowed
	HostDiscovery                  // ICMPv6 without which a host has no IPv6 at all
	HostTunnel                     // a tunnel to or from another host of the cluster
	StrangeTunnel                  // a tunnel from somebody who is no host of the cluster
	ForeignAddress                 // the destination is not that of the workload behind the port of a bridge, or behind another
	UnfilteredBridge               // from port to port of a bridge whose packets the hooks of IP do not see
	ServiceLoop                    // for an address of services that no service has
)

// String returns the reason for people.
func (r Reason) String() string {
	return [...]string{"no profile", "no endpoint", "established", "invalid", "failsafe", "policy rule", "end of tier",
		"profile rule", "profile missing", "no policy", "unknown workload interface", "spoofed source", "tunnel from a workload",
		"neighbour discovery of a workload", "host to own workload", "endpoint to host action", "neighbour discovery",
		"tunnel between hosts", "tunnel from no host", "address not behind this port", "bridge without filter", "no such service"}[r]
}

// A Verdict is the answer for one packet and what decided it: what denied it, or the last that had a say on its way. The
// zero value denies.
type Verdict struct {
	Allowed   bool
	Reason    Reason
	Stage     Stage
	Direction Direction // as the endpoint sees it
	Endpoint  EndpointID
	Tier      string
	Policy    PolicyID
	Profile   string
	Rule      int // index in the rule list of the direction, or of the failsafe
	// NotTracked: a rule of the Untracked stage allowed the packet, so connection tracking must not see it.
	NotTracked bool
}
