package ruleset

import "net/netip"

// Eval returns what p does with pkt. It is the specification of every back end. It does not allocate.
func Eval(p *Program, pkt *Packet) Verdict { return Trace(p, pkt, nil) }

// An evaluation takes one packet along its way through the host:
//
//	in ──► workload known, source its own ──► flow known? ──► tunnel of ──► PreDNAT ──┬──► to a process: workload egress and
//	       or Untracked of the host endpoint                   a host?                │    EndpointToHost, or Normal ingress
//	                                                                                  └──► out again: Forward ingress, workload
//	                                                                                       egress, workload ingress, Forward egress
//	a process sends ──► Untracked ──► flow known? ──► Normal egress, unless to a workload ──► out
type evaluation struct {
	program  *Program
	packet   Packet
	original Packet // before destination NAT
	step     func(Step)
	pending  func(Counter) // see Pending

	// The workloads that it comes from and goes to; nil: none that is known.
	from, to *Workload

	// accepted: a rule of Untracked or PreDNAT allowed the packet, so that the policy of the host endpoint that it is
	// at is not asked again. Workloads are, and so is Forward egress of the endpoint that it leaves by.
	accepted  bool
	untracked bool

	// Where the packet is.
	stage     Stage
	direction Direction
	endpoint  EndpointID

	verdict Verdict
}

// run goes from station to station until one decides for good: it then returns false.
func (e *evaluation) run() Verdict {
	e.verdict = Verdict{Allowed: true, Reason: NoEndpoint}
	_ = e.workloadsKnown() && e.ownSource() && e.ports() && e.beforeTracking() && e.newFlow() && e.addressesKnown() && e.ownTunnel() && e.beforeDNAT() && e.policy()
	e.verdict.NotTracked = e.verdict.Allowed && e.untracked
	return e.verdict
}

// workloadsKnown: nothing passes by a workload's interface that is not known. A process may send to one.
func (e *evaluation) workloadsKnown() bool {
	p, in, out := e.program, e.packet.In, e.packet.Out
	e.from, e.to = p.behind(in, e.packet.Src), p.behind(out, e.packet.Dst)
	if e.from == nil && p.IsWorkload(in) {
		e.visit(Normal, Egress, EndpointID{})
		return e.deny(UnknownInterface)
	}
	if in != "" && e.to == nil && p.IsWorkload(out) {
		e.visit(Normal, Ingress, EndpointID{})
		return e.deny(UnknownInterface)
	}
	return true
}

// ownSource: a workload sends from its own addresses. That holds for every packet of a flow. With IPVS, nobody sends to this host from
// its addresses, or from none.
func (e *evaluation) ownSource() bool {
	if e.program.Settings.IPVS && e.packet.fromNobody() {
		e.visit(Normal, Ingress, EndpointID{})
		return e.deny(SpoofedSource)
	}
	if e.from == nil || e.from.Bridge != "" || e.program.maySend(e.from, &e.original) {
		return true
	}
	e.visit(Normal, Egress, e.from.ID)
	return e.deny(SpoofedSource)
}

// beforeTracking is the Untracked stage.
func (e *evaluation) beforeTracking() bool {
	dir, iface := Ingress, e.original.In
	if iface == "" {
		dir, iface = Egress, e.original.Out
	}
	return e.notTracked(dir, iface) && (!e.packet.Balanced || e.sentAnew())
}

// sentAnew: what IPVS passes on is sent to the endpoint at hand as if from this host. A packet that connection tracking does not
// look at is to all stages what IPVS made of it: nothing remembers where it was sent to.
func (e *evaluation) sentAnew() bool {
	sent, untracked := e.original, e.untracked
	e.original, e.accepted = e.packet, false
	if e.packet.Out != "" {
		if !e.notTracked(Egress, e.packet.Out) {
			return false
		}
		e.untracked = untracked
	}
	switch {
	case e.packet.In == "":
		return true
	case e.state() != NotTracked && e.state() != Invalid:
		e.original, e.accepted = sent, false
		return true
	}
	e.accepted = false
	pending := e.pending
	e.pending = nil // it was counted
	defer func() { e.pending = pending }()
	return e.notTracked(Ingress, e.packet.In)
}

// notTracked is the Untracked stage of one endpoint. Failsafe ports are left to the stages after it, in both directions of a flow:
// one half of it would be tracked and the other not.
func (e *evaluation) notTracked(dir Direction, iface string) bool {
	ep := e.program.hostEndpoint(iface, Untracked)
	if ep == nil || len(ep.Untracked.Tiers(dir)) == 0 {
		return true
	}
	e.visit(Untracked, dir, ep.ID)
	switch {
	case e.failsafe() >= 0 || e.failsafeReply() >= 0:
		return e.pass(FailsafePort)
	case isDiscovery(&e.original):
		return e.pass(HostDiscovery)
	}
	if e.tiers(ep.Untracked.Tiers(dir)) {
		e.accepted, e.untracked = e.verdict.Allowed, e.verdict.Allowed
		return e.verdict.Allowed
	}
	return e.pass(NoPolicy)
}

// newFlow: what belongs to a flow that was allowed, is.
func (e *evaluation) newFlow() bool {
	if e.state() != Established && e.state() != Related {
		return true
	}
	e.visit(Normal, Ingress, EndpointID{})
	return e.allow(FlowKnown)
}

// ownTunnel: tunnels to this host begin at hosts of the cluster.
func (e *evaluation) ownTunnel() bool {
	if e.packet.In == "" || e.packet.Out != "" {
		return true
	}
	for _, t := range e.program.Settings.Tunnels {
		if !t.Proven && t.holds(&e.packet) && !e.program.isHost(e.packet.Src) {
			e.visit(Normal, Ingress, EndpointID{})
			return e.deny(StrangeTunnel)
		}
	}
	return true
}

// beforeDNAT is the PreDNAT stage. With an endpoint for all interfaces it sees what workloads send, too.
func (e *evaluation) beforeDNAT() bool {
	ep := e.program.hostEndpoint(e.packet.In, PreDNAT)
	if ep == nil || len(ep.PreDNAT.Ingress) == 0 || e.accepted {
		return true
	}
	e.visit(PreDNAT, Ingress, ep.ID)
	switch {
	case e.invalid():
		return e.deny(FlowInvalid)
	case e.failsafe() >= 0:
		return e.pass(FailsafePort)
	case isDiscovery(&e.original):
		return e.pass(HostDiscovery)
	case e.tiers(ep.PreDNAT.Ingress):
		e.accepted = e.verdict.Allowed
		return e.verdict.Allowed
	}
	return e.pass(NoPolicy)
}

// policy is what is walked after destination NAT.
func (e *evaluation) policy() bool {
	in, out := e.packet.In, e.packet.Out
	switch {
	case in == "" && (e.program.IsWorkload(out) || e.program.claims(out, e.packet.Dst)):
		e.visit(Normal, Ingress, EndpointID{})
		return e.allow(ToOwnWorkload)
	case in == "":
		return e.normal(Egress, out)
	case out == "" && e.from != nil:
		return e.toHost()
	case out == "":
		return e.normal(Ingress, in)
	case in == out && isDiscovery(&e.packet) && e.program.hasBridge(in):
		e.visit(Normal, Ingress, EndpointID{})
		return e.allow(PodDiscovery)
	case e.pending != nil: // all must let it pass; counting is easier in this order, see Pending
		return e.forward(Ingress, in) && e.service() && e.forward(Egress, out) && e.workload(Egress, e.from) && e.workload(Ingress, e.to)
	}
	return e.forward(Ingress, in) && e.service() && e.workload(Egress, e.from) && e.workload(Ingress, e.to) && e.forward(Egress, out)
}

// service: what is passed on, and still for an address of services, is for none.
func (e *evaluation) service() bool {
	if !inAny(e.program.Settings.ServiceNets, e.packet.Dst) {
		return true
	}
	e.visit(Forward, Ingress, EndpointID{})
	return e.deny(ServiceLoop)
}

// normal is the Normal stage of a host endpoint.
func (e *evaluation) normal(dir Direction, iface string) bool {
	ep := e.program.hostEndpoint(iface, Normal)
	if ep == nil || e.accepted {
		return true
	}
	e.visit(Normal, dir, ep.ID)
	if e.invalid() {
		return e.deny(FlowInvalid)
	}
	if i := e.failsafe(); i >= 0 {
		return e.allowBy(FailsafePort, i)
	}
	switch {
	case isDiscovery(&e.packet):
		return e.allow(HostDiscovery)
	case e.program.Settings.inTunnel(&e.packet) && e.program.isHost(e.peer()):
		return e.allow(HostTunnel)
	}
	return e.walk(&ep.Normal, ep.Profiles)
}

// forward is the Forward stage of the host endpoint that a packet comes in by or leaves by.
func (e *evaluation) forward(dir Direction, iface string) bool {
	ep := e.program.hostEndpoint(iface, Forward)
	if ep == nil || dir == Ingress && e.accepted {
		return true
	}
	e.visit(Forward, dir, ep.ID)
	if e.invalid() {
		return e.deny(FlowInvalid)
	}
	tiers := ep.Forward.Tiers(dir)
	if e.tiers(tiers) {
		return e.verdict.Allowed
	}
	return e.pass(NoPolicy)
}

// workload walks the policies of the workload at an end of the packet's way, if there is one.
func (e *evaluation) workload(dir Direction, w *Workload) bool {
	if w == nil {
		return true
	}
	e.visit(Normal, dir, w.ID)
	switch {
	case e.invalid():
		return e.deny(FlowInvalid)
	case dir == Egress && e.program.Settings.forbidsTunnel(&e.packet):
		return e.deny(TunnelPacket)
	}
	return e.walk(&w.Normal, w.Profiles)
}

// toHost is what a workload sends to its own host. Policy of host endpoints does not apply.
func (e *evaluation) toHost() bool {
	if isPodDiscovery(&e.packet) {
		e.visit(Normal, Egress, e.from.ID)
		return e.allow(PodDiscovery)
	}
	if !e.workload(Egress, e.from) {
		return false
	}
	if e.program.Settings.EndpointToHost == HostDrop {
		return e.deny(EndpointToHost)
	}
	return e.allow(EndpointToHost)
}

// walk walks tiers, then profiles. What neither allows is denied.
func (e *evaluation) walk(w *Walk, profiles []string) bool {
	if e.tiers(w.Tiers(e.direction)) || e.profiles(profiles) {
		return e.verdict.Allowed
	}
	return e.deny(NoProfile)
}

// endless reports whether the end of a tier denies nothing.
func (e *evaluation) endless() bool { return e.stage == Untracked || e.stage == PreDNAT }

// tiers reports whether a tier decided.
func (e *evaluation) tiers(tiers []Tier) bool {
	if e.pending != nil {
		e.tellPending(tiers)
	}
	endless := e.endless()
	for i := range tiers {
		tier := &tiers[i]
		passed, enforced := false, false
		for _, id := range tier.Policies {
			policy := e.program.Policies[id]
			if policy == nil {
				continue
			}
			rule, action := e.firstMatch(tier, policy)
			if policy.Staged {
				continue
			}
			enforced = true
			if rule < 0 {
				continue
			}
			if action == Pass {
				passed = true
				break
			}
			e.decide(Verdict{Allowed: action == Allow, Reason: PolicyRule, Tier: tier.Name, Policy: id, Rule: rule})
			return true
		}
		if enforced && !passed && !tier.EndPass && !endless {
			e.decide(Verdict{Reason: EndOfTier, Tier: tier.Name})
			return true
		}
		e.tell(&Step{Kind: AtTierEnd, Tier: tier.Name})
	}
	return false
}

// firstMatch returns the first rule of a policy that matches and ends its walk, or -1.
func (e *evaluation) firstMatch(tier *Tier, policy *Policy) (int, Action) {
	if e.step == nil && policy.Staged {
		return -1, Deny
	}
	at := Step{Kind: AtPolicy, Tier: tier.Name, Policy: policy.ID, Staged: policy.Staged}
	e.tell(&at)
	rules := policy.Rules(e.direction)
	for i := range rules {
		if matched := e.asks(&at, rules, i); matched && rules[i].Action.Decides() {
			return i, rules[i].Action
		}
	}
	return -1, Deny
}

// asks reports whether a rule matches. What a Log rule matches is of interest to somebody who looks on only.
func (e *evaluation) asks(at *Step, rules []Rule, i int) bool {
	if e.step == nil && rules[i].Action == Log {
		return false
	}
	matched := e.program.matches(&rules[i], e.view())
	at.Kind, at.Rule, at.Action, at.Matched = AtRule, i, rules[i].Action, matched
	e.tell(at)
	return matched
}

// profiles reports whether a profile decided. Pass in a profile means nothing.
func (e *evaluation) profiles(names []string) bool {
	for _, name := range names {
		profile := e.program.Profiles[name]
		if profile == nil {
			e.decide(Verdict{Reason: ProfileMissing, Profile: name})
			return true
		}
		at := Step{Kind: AtProfile, Profile: name}
		e.tell(&at)
		rules := profile.Rules(e.direction)
		for i := range rules {
			if e.asks(&at, rules, i) && (rules[i].Action == Allow || rules[i].Action == Deny) {
				e.decide(Verdict{Allowed: rules[i].Action == Allow, Reason: ProfileRule, Profile: name, Rule: i})
				return true
			}
		}
	}
	return false
}

// failsafe returns the index of the failsafe that the packet is for, or -1.
func (e *evaluation) failsafe() int {
	return findFailsafe(e.program.Settings.Failsafes(e.direction), e.view().Protocol, e.view().DstPort, e.peer())
}

// failsafeReply returns the index of the failsafe of the other direction that the packet is a reply from, or -1.
func (e *evaluation) failsafeReply() int {
	return findFailsafe(e.program.Settings.Failsafes(1-e.direction), e.view().Protocol, e.view().SrcPort, e.peer())
}

// peer returns the address at the other end.
func (e *evaluation) peer() netip.Addr {
	if e.direction == Egress {
		return e.view().Dst
	}
	return e.view().Src
}

// view returns the packet as the stage sees it.
func (e *evaluation) view() *Packet {
	if e.stage == Untracked || e.stage == PreDNAT {
		return &e.original
	}
	return &e.packet
}

func (e *evaluation) state() ConnState {
	if e.untracked {
		return NotTracked
	}
	return e.packet.State
}

func (e *evaluation) invalid() bool {
	return e.state() == Invalid && !e.program.Settings.AcceptInvalid
}

// visit says where the packet is.
func (e *evaluation) visit(s Stage, d Direction, id EndpointID) {
	e.stage, e.direction, e.endpoint = s, d, id
	e.tell(&Step{Kind: AtEndpoint})
}

// decide makes v, at this place, the verdict so far.
func (e *evaluation) decide(v Verdict) {
	v.Stage, v.Direction, v.Endpoint = e.stage, e.direction, e.endpoint
	e.verdict = v
	e.tell(&Step{Kind: AtDecision, Verdict: v})
}

// deny, allow and allowBy decide for good.
func (e *evaluation) deny(r Reason) bool {
	e.decide(Verdict{Reason: r})
	return false
}

func (e *evaluation) allow(r Reason) bool { return e.allowBy(r, 0) }

func (e *evaluation) allowBy(r Reason, rule int) bool {
	e.decide(Verdict{Allowed: true, Reason: r, Rule: rule})
	return false
}

// pass goes on. It is the verdict so far only if nothing else had a say.
func (e *evaluation) pass(r Reason) bool {
	if e.verdict.Reason == NoEndpoint {
		e.decide(Verdict{Allowed: true, Reason: r})
	}
	return true
}
