package ruleset

import (
	"net/netip"
	"strings"
)

// An Action is what a rule does with a packet that it matches. The zero value denies.
type Action uint8

// The actions of a rule.
const (
	Deny  Action = iota // drop or reject now, see [Settings.Reject]
	Allow               // accept: the verdict of this endpoint and direction
	Pass                // leave the tier, go on with the next one
	Log                 // report the packet, go on with the next rule
)

// String returns the action as policies spell it.
func (a Action) String() string {
	switch a {
	case Allow:
		return "Allow"
	case Pass:
		return "Pass"
	case Log:
		return "Log"
	}
	return "Deny"
}

// A Family restricts a rule to one version of IP.
type Family uint8

// The families. The zero value is both.
const (
	AnyFamily Family = 0
	IPv4      Family = 4
	IPv6      Family = 6
)

// FamilyOf returns the family of an address; an IPv4-mapped IPv6 address is IPv6.
func FamilyOf(a netip.Addr) Family {
	if a.Is4() {
		return IPv4
	}
	return IPv6
}

// IP protocol numbers that policies name (IANA).
const (
	ICMP    uint8 = 1
	TCP     uint8 = 6
	UDP     uint8 = 17
	ICMPv6  uint8 = 58
	SCTP    uint8 = 132
	UDPLite uint8 = 136
)

// HasPorts reports whether packets of the protocol carry ports that rules can match.
func HasPorts(protocol uint8) bool {
	return protocol == TCP || protocol == UDP || protocol == SCTP || protocol == UDPLite
}

// A Direction is seen from the endpoint.
type Direction uint8

// Ingress is towards the endpoint, Egress away from it.
const (
	Ingress Direction = iota
	Egress
)

// String returns "ingress" or "egress".
func (d Direction) String() string {
	if d == Egress {
		return "egress"
	}
	return "ingress"
}

// A Rule matches when every one of its fields matches; a zero field matches everything.
type Rule struct {
	Action      Action
	Family      Family
	Protocol    uint8 // 0: any
	NotProtocol uint8 // 0: none excluded
	ICMP        ICMPMatch
	NotICMP     ICMPMatch
	Source      Entity
	Destination Entity
	// Annotations name the rule for people; they have no effect.
	Annotations map[string]string
}

// Decides reports whether the walk of a policy ends at a matching rule with this action.
func (a Action) Decides() bool { return a != Log }

// An ICMPMatch constrains type and code of ICMP or ICMPv6. The zero value constrains nothing; as a negation it
// excludes nothing.
type ICMPMatch struct {
	HasType bool
	HasCode bool // only with HasType
	Type    uint8
	Code    uint8
}

// An Entity constrains one end of a packet. Every non-zero field must match.
type Entity struct {
	// Nets: the address lies in one of them. nil: any address. Empty but not nil: no address.
	Nets []netip.Prefix
	// NotNets: the address lies in none of them.
	NotNets []netip.Prefix
	// Sets: the address is in each of these sets. A set that the Program does not hold is empty.
	Sets []SetID
	// NotSets: the address is in none of these sets.
	NotSets []SetID
	// Ports: nil means any packet, with or without ports.
	Ports *Ports
	// NotPorts: nil excludes nothing. A packet without ports is not excluded.
	NotPorts *Ports
}

// Ports is a set of ports given as ranges and as sets of kind [AddrPorts]; one of them must match. Without ranges and
// sets nothing matches.
type Ports struct {
	Ranges []PortRange
	Named  []SetID
}

// A PortRange holds the ports First to Last, both inclusive.
type PortRange struct{ First, Last uint16 }

// A PolicyID names a policy: its kind (GlobalNetworkPolicy, NetworkPolicy, ...), namespace ("" for global) and name.
type PolicyID struct{ Kind, Namespace, Name string }

// String returns Kind(namespace/name), as errors and tables print it.
func (id PolicyID) String() string {
	if id.Namespace == "" {
		return id.Kind + "(" + id.Name + ")"
	}
	return id.Kind + "(" + id.Namespace + "/" + id.Name + ")"
}

// Compare orders policies of equal order: by name, namespace, kind, byte-wise.
func (id PolicyID) Compare(o PolicyID) int {
	return strings.Compare(id.Name+"/"+id.Namespace+"/"+id.Kind, o.Name+"/"+o.Namespace+"/"+o.Kind)
}

// A Policy is an ordered list of rules for each direction. Policies in a Program are never changed in place.
type Policy struct {
	ID      PolicyID
	Ingress []Rule
	Egress  []Rule
	// Staged policies are listed in their tier and never decide. [Preview] makes them decide.
	Staged bool
	// Deletes: the staged policy would take away the enforced one of its name. It has no rules and is listed before that.
	Deletes bool
	// Superseded: a staged policy of this name would take the place of this enforced one, or take it away.
	Superseded bool
}

// Rules returns the rules of one direction.
func (p *Policy) Rules(d Direction) []Rule {
	if d == Egress {
		return p.Egress
	}
	return p.Ingress
}

// A Profile holds the rules that are walked after all tiers. Profiles in a Program are never changed in place.
type Profile struct {
	Name    string
	Ingress []Rule
	Egress  []Rule
}

// Rules returns the rules of one direction.
func (p *Profile) Rules(d Direction) []Rule {
	if d == Egress {
		return p.Egress
	}
	return p.Ingress
}

// A Tier lists the policies of one tier that apply to an endpoint in one direction, in order.
type Tier struct {
	Name     string
	Policies []PolicyID
	// EndPass: a packet that no rule decided goes on to the next tier. Otherwise it is denied, if at least one policy
	// of the tier here is enforced (not staged).
	EndPass bool
}

// Walk is what applies to an endpoint in one stage.
type Walk struct{ Ingress, Egress []Tier }

// Tiers returns the tiers of one direction.
func (w *Walk) Tiers(d Direction) []Tier {
	if d == Egress {
		return w.Egress
	}
	return w.Ingress
}

// A Program is everything that one host must enforce. The zero value has no endpoint and filters nothing.
type Program struct {
	Settings  Settings
	Endpoints map[EndpointID]*Endpoint
	Workloads map[EndpointID]*Workload
	Policies  map[PolicyID]*Policy
	Profiles  map[string]*Profile
	Sets      map[SetID]*Set
}

// NewProgram returns a Program with empty maps.
func NewProgram() *Program {
	return &Program{
		Endpoints: map[EndpointID]*Endpoint{}, Workloads: map[EndpointID]*Workload{}, Policies: map[PolicyID]*Policy{},
		Profiles: map[string]*Profile{}, Sets: map[SetID]*Set{},
	}
}
