package v3

import (
	"net/netip"
	"slices"
	"strconv"
	"strings"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// The kinds of BGP are kept for agents that announce routes. Of them all, what agents do here depends on the addresses of services in
// one BGPConfiguration (ServiceLoopPrevention).

// BGPConfiguration holds settings of the BGP daemons: of all of them (name default) or of one host (name node.<host>).
type BGPConfiguration struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata"`
	Spec              BGPConfigurationSpec `json:"spec"`
}

// BGPConfigurationDefault is the name of the BGPConfiguration that is for all hosts.
const BGPConfigurationDefault = "default"

// BGPConfigurationSpec: the fields of the mesh and of services are for the default object only. ListenPort 0 means 179.
// See tags.go for the tags.
type BGPConfigurationSpec struct {
	LogSeverityScreen              string                `json:"logSeverityScreen,omitempty" check:"enum=Trace|Debug|Info|Warning|Error|Fatal" default:"Info"`
	NodeToNodeMeshEnabled          *bool                 `json:"nodeToNodeMeshEnabled,omitempty"`
	ASNumber                       *ASNumber             `json:"asNumber,omitempty"`
	ServiceLoadBalancerIPs         []CIDRBlock           `json:"serviceLoadBalancerIPs,omitempty"`
	ServiceExternalIPs             []CIDRBlock           `json:"serviceExternalIPs,omitempty"`
	ServiceClusterIPs              []CIDRBlock           `json:"serviceClusterIPs,omitempty"`
	ServiceLoadBalancerAggregation *string               `json:"serviceLoadBalancerAggregation,omitempty" check:"enum=Enabled|Disabled" default:"Enabled"`
	Communities                    []Community           `json:"communities,omitempty"`
	PrefixAdvertisements           []PrefixAdvertisement `json:"prefixAdvertisements,omitempty"`
	ListenPort                     uint16                `json:"listenPort,omitempty"`
	NodeMeshPassword               *BGPPassword          `json:"nodeMeshPassword,omitempty"`
	NodeMeshMaxRestartTime         *metav1.Duration      `json:"nodeMeshMaxRestartTime,omitempty"`
	BindMode                       *string               `json:"bindMode,omitempty" check:"enum=None|NodeIP"`
	IgnoredInterfaces              []string              `json:"ignoredInterfaces,omitempty" check:"format=ignoredInterface"`
	LocalWorkloadPeeringIPV4       string                `json:"localWorkloadPeeringIPV4,omitempty" check:"format=ipv4"`
	LocalWorkloadPeeringIPV6       string                `json:"localWorkloadPeeringIPV6,omitempty" check:"format=ipv6"`
	ProgramClusterRoutes           *string               `json:"programClusterRoutes,omitempty" check:"enum=Enabled|Disabled|EnabledIPIPOnly|EnabledNoEncapOnly"`
	IPv4NormalRoutePriority        *int                  `json:"ipv4NormalRoutePriority,omitempty" check:"min=1,max=2147483646"`
	IPv6NormalRoutePriority        *int                  `json:"ipv6NormalRoutePriority,omitempty" check:"min=1,max=2147483646"`
}

// CIDRBlock is a range that is announced, without host bits.
type CIDRBlock struct {
	CIDR string `json:"cidr,omitempty" check:"format=net"`
}

// Community gives a name to a community: aa:nn of 16 bits each (RFC 1997), or aa:nn:mm of 32 bits each (RFC 8092).
type Community struct {
	Name  string `json:"name,omitempty" check:"required,format=name"`
	Value string `json:"value,omitempty" check:"required,format=community"`
}

// PrefixAdvertisement attaches communities, by name or value, to a range.
type PrefixAdvertisement struct {
	CIDR        string   `json:"cidr,omitempty" check:"required,format=net"`
	Communities []string `json:"communities,omitempty" check:"minitems=1"`
}

// BGPPassword says where the password of a session is; it is never in the store.
type BGPPassword struct {
	SecretKeyRef *SecretKeySelector `json:"secretKeyRef,omitempty"`
}

// SecretKeySelector is a key of a Kubernetes Secret. Optional: the Secret need not be there.
type SecretKeySelector struct {
	Name     string `json:"name,omitempty"`
	Key      string `json:"key" check:"required"`
	Optional *bool  `json:"optional,omitempty"`
}

func validateBGPConfiguration(c *check, b *BGPConfiguration) {
	spec := &b.Spec
	checkTags(c, "spec", spec)
	checkCommunities(c, spec)
	if spec.NodeToNodeMeshEnabled != nil && !*spec.NodeToNodeMeshEnabled {
		if spec.NodeMeshPassword != nil {
			c.fail("spec.nodeMeshPassword", nil, "nodeMeshPassword cannot be set when nodeToNodeMeshEnabled is false", "remove it")
		}
		if spec.NodeMeshMaxRestartTime != nil {
			c.fail("spec.nodeMeshMaxRestartTime", nil, "nodeMeshMaxRestartTime cannot be set when nodeToNodeMeshEnabled is false", "remove it")
		}
	}
	if b.Name != BGPConfigurationDefault {
		refuseClusterWide(c, spec)
	}
}

// refuseClusterWide refuses what all hosts must agree on.
func refuseClusterWide(c *check, spec *BGPConfigurationSpec) {
	for _, f := range []struct {
		name string
		set  bool
	}{
		{"nodeToNodeMeshEnabled", spec.NodeToNodeMeshEnabled != nil}, {"asNumber", spec.ASNumber != nil},
		{"serviceLoadBalancerIPs", len(spec.ServiceLoadBalancerIPs) > 0}, {"serviceExternalIPs", len(spec.ServiceExternalIPs) > 0},
		{"serviceClusterIPs", len(spec.ServiceClusterIPs) > 0}, {"nodeMeshPassword", spec.NodeMeshPassword != nil},
		{"nodeMeshMaxRestartTime", spec.NodeMeshMaxRestartTime != nil},
	} {
		if f.set {
			c.fail("spec."+f.name, nil, "Cannot set "+f.name+" on a non default BGP Configuration.", "set it on the one named default")
		}
	}
}

// checkCommunities: named communities are used, and the names that are used are there.
func checkCommunities(c *check, spec *BGPConfigurationSpec) {
	if len(spec.Communities) > 0 && len(spec.PrefixAdvertisements) == 0 {
		c.fail("spec.communities", nil, "communities are defined but not used in prefixAdvertisements", "")
	}
	for i, a := range spec.PrefixAdvertisements {
		for j, text := range a.Communities {
			named := slices.ContainsFunc(spec.Communities, func(n Community) bool { return n.Name == text })
			if !named && !isCommunity(text) {
				c.fail(index(index("spec.prefixAdvertisements", i)+".communities", j), text, "community used is invalid or not defined.", communityRemedy)
			}
		}
	}
}

// BGPPeer is a session of the hosts that Node names or NodeSelector selects, of all hosts if both are empty.
type BGPPeer struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata"`
	Spec              BGPPeerSpec `json:"spec"`
}

// BGPPeerSpec: the other end is PeerIP (an address, IPv4:port or [IPv6]:port), the Nodes that PeerSelector selects, or the
// local workloads that LocalWorkloadSelector selects. ASNumber 0 is none. TTLSecurity counts hops (RFC 5082).
type BGPPeerSpec struct {
	Node                     string           `json:"node,omitempty" check:"maxlen=253,format=name"`
	NodeSelector             string           `json:"nodeSelector,omitempty" check:"maxlen=4096,format=longSelector"`
	PeerIP                   string           `json:"peerIP,omitempty" check:"maxlen=64,format=peer"`
	ASNumber                 ASNumber         `json:"asNumber,omitempty"`
	LocalASNumber            *ASNumber        `json:"localASNumber,omitempty"`
	PeerSelector             string           `json:"peerSelector,omitempty" check:"maxlen=4096,format=longSelector"`
	KeepOriginalNextHop      bool             `json:"keepOriginalNextHop,omitempty"`
	NextHopMode              *string          `json:"nextHopMode,omitempty" check:"enum=Auto|Self|Keep"`
	Password                 *BGPPassword     `json:"password,omitempty"`
	SourceAddress            string           `json:"sourceAddress,omitempty" check:"enum=UseNodeIP|None"`
	MaxRestartTime           *metav1.Duration `json:"maxRestartTime,omitempty"`
	KeepaliveTime            *metav1.Duration `json:"keepaliveTime,omitempty"`
	NumAllowedLocalASNumbers *int32           `json:"numAllowedLocalASNumbers,omitempty"`
	TTLSecurity              *uint8           `json:"ttlSecurity,omitempty"`
	ReachableBy              string           `json:"reachableBy,omitempty" check:"format=address" schema:"maxlen=64"`
	Filters                  []string         `json:"filters,omitempty" check:"format=name"` // of BGPFilters, in order
	LocalWorkloadSelector    string           `json:"localWorkloadSelector,omitempty" check:"maxlen=4096,format=longSelector"`
	ReversePeering           *string          `json:"reversePeering,omitempty" check:"enum=Auto|Manual"`
}

func validateBGPPeer(c *check, p *BGPPeer) {
	s := &p.Spec
	checkTags(c, "spec", s)
	exclude := func(field string, set bool, other string, otherSet bool) {
		if set && otherSet {
			c.fail("spec."+field, nil, field+" and "+other+" cannot both be set", "remove one of them")
		}
	}
	exclude("node", s.Node != "", "nodeSelector", s.NodeSelector != "")
	exclude("peerIP", s.PeerIP != "", "peerSelector", s.PeerSelector != "")
	exclude("asNumber", s.ASNumber != 0, "peerSelector", s.PeerSelector != "")
	exclude("peerIP", s.PeerIP != "", "localWorkloadSelector", s.LocalWorkloadSelector != "")
	exclude("peerSelector", s.PeerSelector != "", "localWorkloadSelector", s.LocalWorkloadSelector != "")
	exclude("keepOriginalNextHop", s.KeepOriginalNextHop, "nextHopMode", s.NextHopMode != nil)
	if s.LocalWorkloadSelector != "" && s.ASNumber == 0 {
		c.fail("spec.asNumber", nil, "asNumber is required when localWorkloadSelector is set", "")
	}
	checkReachableBy(c, s)
}

// checkReachableBy: the gateway is of the family of the peer that is behind it.
func checkReachableBy(c *check, s *BGPPeerSpec) {
	if s.ReachableBy == "" {
		return
	}
	if s.PeerIP == "" {
		c.fail("spec.reachableBy", s.ReachableBy, "reachableBy must be empty when peerIP is empty", "")
		return
	}
	gateway, err := netip.ParseAddr(s.ReachableBy)
	if peer, ok := parsePeer(s.PeerIP); err == nil && ok && gateway.Unmap().Is4() != peer.Is4() {
		c.fail("spec.reachableBy", s.ReachableBy, "ReachableBy and PeerIP address family mismatched", "")
	}
}

// parsePeer returns the address of a text with or without a port.
func parsePeer(text string) (netip.Addr, bool) {
	addr, err := netip.ParseAddr(text)
	if err != nil {
		end, err := netip.ParseAddrPort(text)
		if err != nil || end.Port() == 0 {
			return netip.Addr{}, false
		}
		addr = end.Addr()
	}
	return addr.Unmap(), addr.Zone() == ""
}

// isCommunity reports whether s is the value of a community, without leading zeros or not.
func isCommunity(s string) bool {
	parts := strings.Split(s, ":")
	bits := 16
	switch len(parts) {
	case 2:
	case 3:
		bits = 32
	default:
		return false
	}
	return !slices.ContainsFunc(parts, func(p string) bool {
		_, err := strconv.ParseUint(p, 10, bits)
		return err != nil
	})
}

// isPlainCommunity is isCommunity without leading zeros.
func isPlainCommunity(s string) bool {
	return isCommunity(s) && !leadingZero.MatchString(s)
}

const communityRemedy = "write aa:nn of numbers up to 65535, or aa:nn:mm of numbers up to 4294967295"

var (
	leadingZero        = lazily(`(^|:)0[0-9]`)
	bgpInterfaceFormat = lazily(`^[a-zA-Z0-9_.*-]{1,15}$`)
)

// bgpFormat returns the forms that texts of the kinds of BGP have, see formatOf.
func bgpFormat(name string) (format, bool) {
	switch name {
	case "community":
		return format{test: isCommunity, reason: "is no community: aa:nn or aa:nn:mm"}, true
	case "plainCommunity":
		return format{test: isPlainCommunity, reason: "is no community: aa:nn or aa:nn:mm, without leading zeros"}, true
	case "peer":
		return format{test: func(s string) bool { _, ok := parsePeer(s); return ok },
			reason: "must be an address, IPv4:port or [IPv6]:port, with a port from 1 to 65535"}, true
	case "bgpInterface":
		return format{pattern: bgpInterfaceFormat, reason: "must be an interface name of at most 15 characters, with * for any part"}, true
	case "ignoredInterface":
		return format{test: func(s string) bool { return s != "*" && bgpInterfaceFormat.MatchString(s) },
			reason: "must be an interface name of at most 15 characters, with * for a part of it"}, true
	}
	return format{}, false
}
