package ruleset

// Pending tells what the staged policies would decide about a packet, in each stage that it comes to as things are: the rule
// of a staged policy that would decide or pass, and the end of a tier with a staged policy that would deny. What a host passes
// on comes to the workloads at its ends last. As in [Preview] a
// staged policy stands where it is listed, in place of the enforced one of its name or takes that away. What is told is what
// a back end counts: it has Staged set and counts nothing.
func Pending(p *Program, pkt *Packet, tell func(Counter)) {
	e := evaluation{program: p, packet: *pkt, original: pkt.beforeDNAT(), pending: tell}
	e.run()
}

// tellPending walks the tiers of a stage as if staged policies were enforced.
func (e *evaluation) tellPending(tiers []Tier) {
	for i := range tiers {
		if e.pendingTier(&tiers[i]) {
			return
		}
	}
}

// pendingTier reports whether the tier would decide.
func (e *evaluation) pendingTier(tier *Tier) bool {
	listed, staged := false, false
	for _, id := range tier.Policies {
		policy := e.program.Policies[id]
		if policy == nil || policy.Superseded || policy.Deletes {
			continue
		}
		listed, staged = true, staged || policy.Staged
		rules := policy.Rules(e.direction)
		for r := range rules {
			if !rules[r].Action.Decides() || !e.program.matches(&rules[r], e.view()) {
				continue
			}
			if policy.Staged {
				e.tellOne(Counter{Reason: PolicyRule, Tier: tier.Name, Policy: id, Rule: r, Action: rules[r].Action})
			}
			return rules[r].Action != Pass
		}
	}
	if !listed || tier.EndPass || e.endless() {
		return false
	}
	if staged {
		e.tellOne(Counter{Reason: EndOfTier, Tier: tier.Name, Action: Deny})
	}
	return true
}

func (e *evaluation) tellOne(c Counter) {
	c.Stage, c.Direction, c.Endpoint, c.Staged = e.stage, e.direction, e.endpoint, true
	e.pending(c)
}
