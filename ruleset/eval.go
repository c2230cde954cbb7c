package ruleset

import (
	"net/netip"
	"strings"
)

// A ConnState is what connection tracking knows of a packet's flow.
type ConnState uint8

// The states. The zero value is the one for which policy is walked.
const (
	New ConnState = iota
	Established
	Related
	Invalid
)

// A Packet is what a verdict depends on. Addresses and ports are those that the hook sees.
type Packet struct {
	// Direction: Ingress is delivered to a process of this host, Egress is sent by one.
	Direction Direction
	// Interface is the one that the packet came in by (Ingress) or leaves by (Egress).
	Interface          string
	State              ConnState
	Src, Dst           netip.Addr
	Protocol           uint8
	SrcPort, DstPort   uint16 // 0 when the protocol has no ports
	ICMPType, ICMPCode uint8
}

// A Reason says what decided a verdict.
type Reason uint8

// The reasons. The zero value is what a Verdict of zero means: denied, since nothing allowed it.
const (
	NoProfile      Reason = iota // no tier decided and no profile allowed
	NoEndpoint                   // the interface is no endpoint: Margay does not filter it
	FlowKnown                    // established or related
	FlowInvalid                  // connection tracking calls the packet invalid
	FailsafePort                 // Verdict.Rule is the index of the failsafe
	PolicyRule                   // Verdict.Tier, Policy, Rule
	EndOfTier                    // Verdict.Tier: no rule of it decided
	ProfileRule                  // Verdict.Profile, Rule
	ProfileMissing               // Verdict.Profile is named by the endpoint and does not exist
)

// String returns the reason for people.
func (r Reason) String() string {
	return [...]string{"no profile", "no endpoint", "established", "invalid", "failsafe", "policy rule", "end of tier",
		"profile rule", "profile missing"}[r]
}

// A Verdict is the answer for one packet and what decided it. The zero value denies.
type Verdict struct {
	Allowed  bool
	Reason   Reason
	Endpoint EndpointID
	Tier     string
	Policy   PolicyID
	Profile  string
	Rule     int // index in the rule list of the direction, or of the failsafe
}

// Eval returns what p does with pkt. It is the specification of every back end (spec 2.3). It does not allocate.
func Eval(p *Program, pkt *Packet) Verdict {
	ep := p.endpointOf(pkt.Interface)
	if ep == nil {
		return Verdict{Allowed: true, Reason: NoEndpoint}
	}
	v := Verdict{Endpoint: ep.ID}
	switch {
	case pkt.State == Established || pkt.State == Related:
		v.Allowed, v.Reason = true, FlowKnown
		return v
	case pkt.State == Invalid && !p.Settings.AcceptInvalid:
		v.Reason = FlowInvalid
		return v
	}
	if i := p.failsafe(pkt); i >= 0 {
		v.Allowed, v.Reason, v.Rule = true, FailsafePort, i
		return v
	}
	if p.evalTiers(ep.Normal.Tiers(pkt.Direction), pkt, &v) || p.evalProfiles(ep.Profiles, pkt, &v) {
		return v
	}
	v.Reason = NoProfile
	return v
}

// endpointOf returns the endpoint that enforces for an interface: one that names it, else the one for all interfaces.
func (p *Program) endpointOf(iface string) *Endpoint {
	var all *Endpoint
	for _, ep := range p.Endpoints {
		for _, name := range ep.Interfaces {
			if name == iface {
				return ep
			}
			if name == AllInterfaces {
				all = ep
			}
		}
	}
	if all != nil && p.Settings.IsWorkload(iface) {
		return nil
	}
	return all
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

// failsafe returns the index of the failsafe that lets pkt through, or -1.
func (p *Program) failsafe(pkt *Packet) int {
	peer := pkt.Src
	if pkt.Direction == Egress {
		peer = pkt.Dst
	}
	for i, f := range p.Settings.Failsafes(pkt.Direction) {
		if f.Protocol == pkt.Protocol && f.Port == pkt.DstPort && (!f.Net.IsValid() || f.Net.Contains(peer)) {
			return i
		}
	}
	return -1
}

// evalTiers reports whether a tier decided, with the decision in v.
func (p *Program) evalTiers(tiers []Tier, pkt *Packet, v *Verdict) bool {
	for i := range tiers {
		tier := &tiers[i]
		passed, enforced := false, false
		for _, id := range tier.Policies {
			policy := p.Policies[id]
			if policy == nil || policy.Staged {
				continue
			}
			enforced = true
			rule, action := p.firstMatch(policy.Rules(pkt.Direction), pkt)
			if rule < 0 {
				continue
			}
			if action == Pass {
				passed = true
				break
			}
			v.Allowed, v.Reason, v.Tier, v.Policy, v.Rule = action == Allow, PolicyRule, tier.Name, id, rule
			return true
		}
		if enforced && !passed && !tier.EndPass {
			v.Reason, v.Tier = EndOfTier, tier.Name
			return true
		}
	}
	return false
}

// evalProfiles reports whether a profile decided, with the decision in v. Pass in a profile means nothing.
func (p *Program) evalProfiles(names []string, pkt *Packet, v *Verdict) bool {
	for _, name := range names {
		profile := p.Profiles[name]
		if profile == nil {
			v.Reason, v.Profile = ProfileMissing, name
			return true
		}
		for i := range profile.Rules(pkt.Direction) {
			rule := &profile.Rules(pkt.Direction)[i]
			if (rule.Action == Allow || rule.Action == Deny) && p.matches(rule, pkt) {
				v.Allowed, v.Reason, v.Profile, v.Rule = rule.Action == Allow, ProfileRule, name, i
				return true
			}
		}
	}
	return false
}

// firstMatch returns the first rule that matches and ends the walk, or -1.
func (p *Program) firstMatch(rules []Rule, pkt *Packet) (int, Action) {
	for i := range rules {
		if rules[i].Action.Decides() && p.matches(&rules[i], pkt) {
			return i, rules[i].Action
		}
	}
	return -1, Deny
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
