package ruleset

import (
	"cmp"
	"net/netip"
	"strings"
	"time"
)

// A Failsafe is a port that no policy can close. For ingress Net holds the allowed sources and Port is a port of this
// host; for egress Net holds the allowed destinations and Port is the remote port.
type Failsafe struct {
	Protocol uint8        // TCP or UDP
	Port     uint16       // 1 to 65535
	Net      netip.Prefix // zero: every address of both families
}

// Settings hold for the whole host.
type Settings struct {
	FailsafeIngress []Failsafe
	FailsafeEgress  []Failsafe
	// Reject: denied packets are answered with an error (TCP reset, ICMP) instead of dropped.
	Reject bool
	// AcceptInvalid: packets that connection tracking calls invalid are not dropped up front.
	AcceptInvalid bool
	// LogPrefix starts the reports of Log rules, see [Settings.LogText].
	LogPrefix string
	// LogRate bounds the reports of each Log rule; what is beyond it goes unreported and is not affected otherwise.
	LogRate LogRate
	// WorkloadPrefixes start the names of workload interfaces, beside those that a Workload names, whatever they are called;
	// such an interface is never a host endpoint, and nothing passes by one that no Workload names.
	WorkloadPrefixes []string
	// ClosePorts: the same holds for ports of bridges, always. Otherwise it holds for them while a workload on a bridge is known.
	ClosePorts bool
	// EndpointToHost is what becomes of packets from a workload to this host that the workload's policy allows.
	EndpointToHost HostAction
	// AllowSpoofing: workloads may send from their Spoofable prefixes.
	AllowSpoofing bool
	// AllowVXLAN and AllowIPIP: workloads may send packets in tunnels, which hide them from policy.
	AllowVXLAN, AllowIPIP bool
	// VXLANPort is the port of VXLAN, see [Settings.VXLAN].
	VXLANPort uint16
	// Tunnels carry packets of workloads between the hosts of the cluster, which are those in the set [Hosts] and in
	// TunnelNets.
	Tunnels    []Tunnel
	TunnelNets []netip.Prefix
	// ServiceNets are the addresses of services. What is still for one of them when this host would pass it on is for a service
	// that does not exist, and may come back for ever: it is denied, dropped or, with RejectLoops, answered (ServiceLoopPrevention).
	ServiceNets []netip.Prefix
	RejectLoops bool
	// IPVS: the kernel balances services itself, see [Packet.Balanced]. Where packets are judged depends on it.
	IPVS bool
}

// Hosts is the set of the addresses of the cluster's hosts. A Program holds it if Settings have Tunnels.
const Hosts SetID = "hosts"

// A Tunnel is a protocol in which hosts of the cluster send each other packets of workloads. No policy of a host endpoint in
// the normal stage concerns it: it would have to know the hosts. What comes in one from elsewhere is denied, for what is
// inside it could pretend to be from any workload.
type Tunnel struct {
	Protocol uint8
	Port     uint16 // destination, if the protocol has ports
	Family   Family // of the packets outside
	// Proven: the hosts prove to each other who they are. What comes from elsewhere is then a matter of policy.
	Proven bool
}

// A HostAction is DefaultEndpointToHostAction. The zero value drops.
type HostAction uint8

// HostReturn leaves the packet to the host's own rules, HostAccept accepts it. Policy of host endpoints applies to neither.
const (
	HostDrop HostAction = iota
	HostReturn
	HostAccept
)

// String returns Drop, Return or Accept.
func (a HostAction) String() string { return [...]string{"Drop", "Return", "Accept"}[a] }

// A LogRate is a number of packets per period, and how many more may come at once. The zero value is no bound.
type LogRate struct {
	Packets uint32
	Per     time.Duration // a second, minute, hour or day
	Burst   uint32
}

// LogText returns the prefix of the reports of a policy's or profile's Log rules: LogPrefix, in which %t stands for the
// tier, %k for the kind in short, %p for namespace/name and %n for the name.
func (s *Settings) LogText(tier string, id PolicyID) string {
	full := id.Name
	if id.Namespace != "" {
		full = id.Namespace + "/" + id.Name
	}
	return strings.NewReplacer("%t", tier, "%k", shortKind(id.Kind), "%p", full, "%n", id.Name).Replace(s.LogPrefix)
}

// shortKind returns the short names that the incumbent has for kinds.
func shortKind(kind string) string {
	switch kind {
	case "GlobalNetworkPolicy":
		return "gnp"
	case "NetworkPolicy":
		return "np"
	case "StagedGlobalNetworkPolicy":
		return "sgnp"
	case "StagedNetworkPolicy":
		return "snp"
	case "StagedKubernetesNetworkPolicy":
		return "sknp"
	case "KubernetesNetworkPolicy":
		return "knp"
	case "KubernetesClusterNetworkPolicy":
		return "kcnp"
	case "Profile":
		return "pro"
	}
	return kind
}

// VXLAN returns the UDP port of VXLAN: VXLANPort, or where that is 0 the usual one.
func (s *Settings) VXLAN() uint16 { return cmp.Or(s.VXLANPort, 4789) }

// Failsafes returns the failsafe ports of one direction.
func (s *Settings) Failsafes(d Direction) []Failsafe {
	if d == Egress {
		return s.FailsafeEgress
	}
	return s.FailsafeIngress
}
