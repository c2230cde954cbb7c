package ruleset

import (
	"maps"
	"net/netip"
	"slices"
)

// A MissKind says what would have to be otherwise. Smaller changes come first.
type MissKind uint8

// The kinds of near misses.
const (
	// Membership: one end would have to be in Set, or out of it: another label, or another member of a network set.
	Membership MissKind = iota
	// OtherPort: the destination port would have to be Port.
	OtherPort
	// OtherOrder: in Tier, Policy would have to come right before Before.
	OtherOrder
)

// A Miss is one change that turns a verdict round.
type Miss struct {
	Kind    MissKind
	Verdict Verdict // with the change
	// Membership: whose, of which set, and whether it would have to join or to leave. Port is that of a named port or
	// service and 0 for other sets.
	Set  SetID
	Addr netip.Addr
	Join bool
	// Membership and OtherPort.
	Port uint16
	// OtherOrder.
	Tier           string
	Policy, Before PolicyID
}

// maxMisses bounds how many changes of each kind are tried.
const maxMisses = 2000

// NearMiss returns the smallest change that turns the verdict on pkt round: allowed to denied, or denied to allowed. ok is
// false if it finds none.
//
// It tries single changes, in this order, and returns the first that does: the membership of one address in one set
// that a rule on the packet's way names, sets of ports last; the destination port, to one at the edge of a port range of such a rule; the order of
// two policies of one tier, a later one before the one that decided or passed. Of these it tries at most 2,000 each. It
// does not find what takes two changes at once, does not change ports of packets whose destination was translated, and
// does not know that one label can move several sets: the caller, who knows the selectors, does.
func NearMiss(p *Program, pkt *Packet) (m Miss, ok bool) {
	s := search{program: p, packet: pkt}
	s.verdict = Trace(p, pkt, s.step)
	for _, try := range []func() (Miss, bool){s.memberships, s.ports, s.orders} {
		if m, ok = try(); ok {
			return m, true
		}
	}
	return Miss{}, false
}

// A search collects what was looked at on the way to the verdict.
type search struct {
	program *Program
	packet  *Packet
	verdict Verdict
	rules   []*Rule // in order, of enforced policies and profiles
	passed  []Step  // rules that decided a tier
}

func (s *search) step(at Step) {
	if at.Kind != AtRule || at.Staged {
		return
	}
	var list []Rule
	if at.Profile != "" {
		list = s.program.Profiles[at.Profile].Rules(at.Direction)
	} else {
		list = s.program.Policies[at.Policy].Rules(at.Direction)
	}
	if at.Action.Decides() {
		s.rules = append(s.rules, &list[at.Rule])
	}
	if at.Matched && at.Action.Decides() && at.Profile == "" {
		s.passed = append(s.passed, at)
	}
}

// turned reports whether the verdict on a packet under a program is the other one.
func (s *search) turned(p *Program, pkt *Packet) (Verdict, bool) {
	v := Eval(p, pkt)
	return v, v.Allowed != s.verdict.Allowed
}

func (s *search) memberships() (Miss, bool) {
	q := *s.program
	q.Sets = maps.Clone(s.program.Sets)
	if q.Sets == nil {
		q.Sets = map[SetID]*Set{}
	}
	tried := map[Miss]bool{}
	for _, m := range s.candidates() {
		if tried[m] || len(tried) == maxMisses {
			continue
		}
		tried[m] = true
		before := q.Sets[m.Set]
		q.Sets[m.Set] = s.toggled(before, &m)
		v, ok := s.turned(&q, s.packet)
		if ok {
			m.Verdict = v
			return m, true
		}
		q.Sets[m.Set] = before
	}
	return Miss{}, false
}

// candidates returns the memberships that rules ask for, what ports are called after all others: who looks for a label does
// not want to hear of them first. The rule that was looked at last comes first: it is nearest to the decision.
func (s *search) candidates() []Miss {
	var list, named []Miss
	ends := func(e *Entity, addr netip.Addr, port uint16) {
		for _, id := range slices.Concat(e.Sets, e.NotSets) {
			list = append(list, Miss{Set: id, Addr: addr})
		}
		for _, ports := range []*Ports{e.Ports, e.NotPorts} {
			if ports == nil {
				continue
			}
			for _, id := range ports.Named {
				named = append(named, Miss{Set: id, Addr: addr, Port: port})
			}
		}
	}
	for _, r := range slices.Backward(s.rules) {
		ends(&r.Source, s.packet.Src, s.packet.SrcPort)
		ends(&r.Destination, s.packet.Dst, s.packet.DstPort)
		if s.packet.DNAT {
			ends(&r.Destination, s.packet.OrigDst, s.packet.OrigPort)
		}
	}
	return append(list, named...)
}

// toggled returns what set is to the packet with one membership turned round, and says in m which way.
func (s *search) toggled(set *Set, m *Miss) *Set {
	kind := Addrs
	if m.Port != 0 {
		kind = AddrPorts
	}
	if set == nil {
		set = NewSet(kind, "")
	}
	result := NewSet(set.Kind, set.Comment)
	for _, end := range []Miss{
		{Addr: s.packet.Src, Port: s.packet.SrcPort}, {Addr: s.packet.Dst, Port: s.packet.DstPort},
		{Addr: s.packet.OrigDst, Port: s.packet.OrigPort},
	} {
		if !end.Addr.IsValid() {
			continue
		}
		member := Member{Prefix: netip.PrefixFrom(end.Addr, end.Addr.BitLen())}
		inside := set.Contains(end.Addr)
		if set.Kind == AddrPorts {
			member.Protocol, member.Port = s.packet.Protocol, end.Port
			inside = set.ContainsPort(end.Addr, s.packet.Protocol, end.Port)
		} else {
			end.Port = m.Port
		}
		if end.Addr == m.Addr && end.Port == m.Port {
			inside = !inside
			m.Join = inside
		}
		if inside {
			result.Add(member)
		}
	}
	return result
}

func (s *search) ports() (Miss, bool) {
	if s.packet.DNAT || !HasPorts(s.packet.Protocol) {
		return Miss{}, false
	}
	tried := map[uint16]bool{s.packet.DstPort: true}
	for _, r := range slices.Backward(s.rules) {
		for _, ports := range []*Ports{r.Destination.Ports, r.Destination.NotPorts} {
			if ports == nil {
				continue
			}
			for _, edge := range ports.Ranges {
				for _, port := range []uint16{edge.First, edge.Last, edge.Last + 1, edge.First - 1} {
					if tried[port] || port == 0 || len(tried) == maxMisses {
						continue
					}
					tried[port] = true
					pkt := *s.packet
					pkt.DstPort = port
					if v, ok := s.turned(s.program, &pkt); ok {
						return Miss{Kind: OtherPort, Port: port, Verdict: v}, true
					}
				}
			}
		}
	}
	return Miss{}, false
}

func (s *search) orders() (Miss, bool) {
	tries := 0
	for _, at := range slices.Backward(s.passed) {
		walk := s.program.walkOf(at.Endpoint, at.Stage)
		tiers := walk.Tiers(at.Direction)
		t := slices.IndexFunc(tiers, func(tier Tier) bool { return tier.Name == at.Tier })
		policies := tiers[t].Policies
		i := slices.Index(policies, at.Policy)
		for j := i + 1; j < len(policies) && tries < maxMisses; j++ {
			tries++
			moved := slices.Insert(slices.Delete(slices.Clone(policies), j, j+1), i, policies[j])
			if v, ok := s.turned(s.program.reordered(at, t, moved), s.packet); ok {
				return Miss{Kind: OtherOrder, Tier: at.Tier, Policy: policies[j], Before: at.Policy, Verdict: v}, true
			}
		}
	}
	return Miss{}, false
}

func (p *Program) walkOf(id EndpointID, s Stage) *Walk {
	if w := p.Workloads[id]; w != nil {
		return &w.Normal
	}
	return p.Endpoints[id].Walk(s)
}

// reordered returns p with other policies in a tier of one walk.
func (p *Program) reordered(at Step, tier int, policies []PolicyID) *Program {
	q := *p
	var walk *Walk
	if w := p.Workloads[at.Endpoint]; w != nil {
		now := *w
		q.Workloads = maps.Clone(p.Workloads)
		q.Workloads[at.Endpoint] = &now
		walk = &now.Normal
	} else {
		now := *p.Endpoints[at.Endpoint]
		q.Endpoints = maps.Clone(p.Endpoints)
		q.Endpoints[at.Endpoint] = &now
		walk = now.Walk(at.Stage)
	}
	tiers := slices.Clone(walk.Tiers(at.Direction))
	tiers[tier].Policies = policies
	if at.Direction == Egress {
		walk.Egress = tiers
	} else {
		walk.Ingress = tiers
	}
	return &q
}
