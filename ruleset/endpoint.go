package ruleset

import (
	"net/netip"
)

// A Stage is a point on the way of a packet at which the policies of an endpoint are walked. A workload has
// the normal stage only.
type Stage uint8

// The stages, in the reverse of the order in which a packet meets them. Normal and Forward exclude each other.
const (
	// Normal: to and from processes of this host; for a workload all that it sends and gets.
	Normal Stage = iota
	// Forward: what the host passes on from one interface to another. No failsafes, no profiles; without a policy in a
	// direction everything passes.
	Forward
	// PreDNAT: all that comes in, as it was before its destination was translated. Nothing is denied but by a rule.
	PreDNAT
	// Untracked: all that comes in or is sent by this host, before connection tracking sees it. Nothing is denied but by
	// a rule; what a rule allows is not tracked.
	Untracked
)

// String returns normal, forward, pre-DNAT or untracked.
func (s Stage) String() string {
	return [...]string{"normal", "forward", "pre-DNAT", "untracked"}[s]
}

// An EndpointID names an endpoint of this host: its kind (HostEndpoint, WorkloadEndpoint), namespace and name.
type EndpointID struct{ Kind, Namespace, Name string }

// String returns Kind(namespace/name).
func (id EndpointID) String() string { return PolicyID(id).String() }

// An Endpoint is an interface of the host, or all of them, with the policies that apply to it. Endpoints in a Program are
// never changed in place.
type Endpoint struct {
	ID EndpointID
	// Interfaces that are this endpoint, none of them a workload's. The single entry "*" is every interface that no other
	// endpoint names; in the normal stage, every such interface that is no workload's. Empty: the endpoint was not found
	// on this host (yet) and nothing is enforced for it.
	Interfaces []string
	Normal     Walk
	Forward    Walk
	PreDNAT    Walk // ingress only
	Untracked  Walk // ignored for "*"
	// Profiles are walked after the last tier of Normal, in order. A name without a Profile in the Program denies.
	Profiles []string
}

// AllInterfaces is the interface name of an endpoint that stands for every interface.
const AllInterfaces = "*"

// Walk returns what applies in a stage.
func (ep *Endpoint) Walk(s Stage) *Walk {
	switch s {
	case Forward:
		return &ep.Forward
	case PreDNAT:
		return &ep.PreDNAT
	case Untracked:
		return &ep.Untracked
	}
	return &ep.Normal
}

// A Workload is a pod or virtual machine of this host, behind one interface of the host. Workloads in a Program are never
// changed in place.
type Workload struct {
	ID EndpointID
	// Interface is the host's end, which no Endpoint has; "*" is no such name. Empty: nothing is known of it, so nothing
	// reaches or leaves the workload by an interface whose name begins with one of Settings.WorkloadPrefixes.
	Interface string
	// Bridge is the bridge of this host that Interface is a port of; "": none. With a bridge and no Interface, several ports
	// claim the addresses: they are nobody's.
	Bridge string
	// Filtered: what passes between ports of Bridge passes the hooks of IP. Otherwise nothing passes between this and others.
	Filtered bool
	// Addrs are the workload's own addresses, which it may send from.
	Addrs []netip.Addr
	// Spoofable are further sources that it may send from, if Settings.AllowSpoofing.
	Spoofable []netip.Prefix
	Normal    Walk
	// Profiles are as those of an Endpoint.
	Profiles []string
}

// TiersAt returns what applies to an endpoint or workload in a stage and direction; nil when p does not hold it.
func (p *Program) TiersAt(id EndpointID, s Stage, d Direction) []Tier {
	if w := p.Workloads[id]; w != nil {
		return w.Normal.Tiers(d)
	}
	if ep := p.Endpoints[id]; ep != nil {
		return ep.Walk(s).Tiers(d)
	}
	return nil
}
