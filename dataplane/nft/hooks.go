package nft

import (
	"maps"
	"slices"

	"golang.org/x/sys/unix"

	"margay/ruleset"
)

// Names of what the base holds, and priorities; the package comment says what is where and why.
const (
	rejectChain    = "refuse" // reject is a word of nft(8)
	untrackChain   = "untrack"
	redirectsChain = "redirected"
	guestsChain    = "guests"          // what workloads send to this host
	sentChain      = "workload-allows" // what the policy of a workload lets it send
	arrivesChain   = "to-workloads"    // what is passed on, and only the workload that gets it was not asked yet

	// loopback is the interface by which packets come in that connection tracking has seen going out.
	loopback = "lo"

	priority    = -10
	rawPriority = -300
)

// base adds the base chains that are needed, what dispatches by interface, and what all endpoints share.
func (u *builder) base(o owners) {
	u.rawPrerouting(o)
	u.rawOutput(o)
	u.input(o)
	u.forward(o)
	u.output(o)
	u.postrouting(o)
	if u.settings.Reject && len(o.active())+len(u.settings.Tunnels) > 0 || u.settings.RejectLoops && len(u.settings.ServiceNets) > 0 {
		u.reject()
	}
}

func (u *builder) addChain(name, comment string, rules ...*Rule) {
	u.chains[name] = &Chain{Name: name, Comment: remark(comment), Rules: rules}
}

func (u *builder) addBase(name, comment string, base Base, rules []*Rule) {
	base.Type = "filter"
	u.chains[name] = &Chain{Name: name, Comment: comment, Base: &base, Rules: rules}
}

// rawPrerouting keeps what the Untracked stage allows of what comes in away from connection tracking.
func (u *builder) rawPrerouting(o owners) {
	chains := map[string][]*Rule{}
	for name, ep := range o.named {
		if !u.has(ep, ruleset.Untracked, ruleset.Ingress) {
			continue
		}
		chains[name] = []*Rule{jumpRule("goto", endpointChain(ep.ID, ruleset.Ingress, "raw"))}
		if name == loopback {
			chains[name] = viewsIf(ifTranslated(), ep, "raw")
		}
	}
	if len(chains) > 0 {
		u.addBase("raw-prerouting", "what comes in, before connection tracking: untracked policy",
			Base{Hook: unix.NF_INET_PRE_ROUTING, Priority: rawPriority},
			[]*Rule{u.dispatch("raw-in", "untracked-in", wayIn(), chains)})
	}
	u.untrack(o)
}

// rawOutput is the same for what processes of this host send.
func (u *builder) rawOutput(o owners) {
	chains := map[string][]*Rule{}
	for name, ep := range o.named {
		if u.has(ep, ruleset.Untracked, ruleset.Egress) {
			chains[name] = []*Rule{jumpRule("goto", endpointChain(ep.ID, ruleset.Egress, "raw"))}
		}
	}
	if len(chains) > 0 {
		u.addBase("raw-output", "what this host sends, before connection tracking: untracked policy",
			Base{Hook: unix.NF_INET_LOCAL_OUT, Priority: rawPriority},
			[]*Rule{u.dispatch("raw-out", "untracked-out", wayOut(), chains)})
	}
}

// untrack adds the chain where packets are kept away from connection tracking.
func (u *builder) untrack(o owners) {
	for _, ep := range o.endpoints() {
		if u.has(ep, ruleset.Untracked, ruleset.Ingress) || u.has(ep, ruleset.Untracked, ruleset.Egress) {
			u.addChain(untrackChain, "what untracked policy allows", rule("notrack accept", "", code{}.notrack().verdict(nfAccept, "")))
			return
		}
	}
}

// input judges what is delivered to processes of this host.
func (u *builder) input(o owners) {
	rules := []*Rule{u.noWorkload(wayIn(), o).and(ifKnown()).then(exit{verdict: nfAccept}, "")}
	rules = append(o.bridged.ifPort(wayIn()), rules...)
	rules = append(rules, u.ifWorkload(wayIn(), o, func(c condition) *Rule {
		if len(o.workloads) == 0 {
			return c.counted(exit{}, "unknown workload interface")
		}
		return c.then(goTo(guestsChain), "")
	})...)
	rules = append(rules, u.elsewhere(wayIn(), o)...)
	rules = append(rules, o.bridged.ifBridged(wayIn(), func(c condition) *Rule { return c.then(goTo(guestsChain), "") })...)
	rules = append(rules, u.strangeTunnels()...)
	chains := map[string][]*Rule{}
	for name, ep := range o.named {
		chains[name] = u.entry(ep)
	}
	if len(chains) > 0 {
		rules = append(rules, u.dispatch("in", "endpoints-in", wayIn(), chains), u.fellOut(wayIn(), o))
	}
	if o.all != nil {
		if u.hasEarly(o.all) {
			rules = append(rules, always().jump(endpointChain(o.all.ID, ruleset.Ingress, "early")))
		}
		rules = append(rules, always().jump(endpointChain(o.all.ID, ruleset.Ingress)), nothingDecided())
	}
	u.delivered(o, rules)
	if len(o.workloads) > 0 || o.bridged.any {
		u.guests(o)
	}
}

// fellOut denies what came back from the chain of an endpoint's interface without a verdict.
func (u *builder) fellOut(w way, o owners) *Rule {
	return isIn(w, slices.Sorted(maps.Keys(o.named))).counted(exit{}, "no verdict from the endpoint")
}

func nothingDecided() *Rule { return always().counted(exit{}, "no verdict from the endpoint") }

// forward judges what is passed on. The chains of host endpoints return when they let a packet pass, so that others are
// asked, too. The workloads come last, whatever the order on the packet's way: falling out of their chains denies.
func (u *builder) forward(o owners) {
	stations := slices.Concat(u.forwardIn(o), u.noService(), u.forwardOut(o))
	if len(o.workloads) > 0 || o.bridged.any {
		stations = append(stations, u.workloadPolicies(o)...)
	}
	rules := append(o.bridged.ifPort(wayIn()), o.bridged.ifPort(wayOut())...)
	if len(stations) > 0 {
		rules = append(rules, u.noWorkload(wayIn(), o).and(u.noWorkload(wayOut(), o)).and(ifKnown()).then(exit{verdict: nfAccept}, ""))
	}
	rules = append(rules, u.strangers(wayIn(), o)...)
	rules = append(rules, u.strangers(wayOut(), o)...)
	if len(o.workloads) > 0 {
		if !u.settings.IPVS {
			rules = append(rules, u.sent(o)...)
		}
		rules = append(rules, ifKnown().then(exit{verdict: nfAccept}, ""))
	}
	rules = append(append(rules, u.elsewhere(wayIn(), o)...), u.elsewhere(wayOut(), o)...)
	rules = append(rules, o.bridged.bridgeDiscovery()...)
	u.forwarded(o, append(rules, stations...))
}

// forwardIn returns the rules for the host endpoint that a packet comes in by.
func (u *builder) forwardIn(o owners) []*Rule {
	var rules []*Rule
	chains := map[string][]*Rule{}
	for name, ep := range o.named {
		if entry := u.forwardEntry(ep); entry != nil {
			chains[name] = entry
		}
	}
	if len(chains) > 0 {
		rules = append(rules, u.dispatch("forward-in", "forward-in", wayIn(), chains))
	}
	if o.all == nil {
		return rules
	}
	if entry := u.forwardEntry(o.all); entry != nil {
		u.addChain("forward-in", "interfaces that no endpoint names", entry...)
		rules = append(rules, isNotIn(wayIn(), slices.Sorted(maps.Keys(o.named))).jump("forward-in"))
	}
	return rules
}

// forwardOut returns the rules for the host endpoint that a packet leaves by.
func (u *builder) forwardOut(o owners) []*Rule {
	var rules []*Rule
	chains := map[string][]*Rule{}
	for name, ep := range o.named {
		if u.has(ep, ruleset.Forward, ruleset.Egress) {
			chains[name] = []*Rule{jumpRule("goto", endpointChain(ep.ID, ruleset.Egress, "forward"))}
		}
	}
	if len(chains) > 0 {
		rules = append(rules, u.dispatch("forward-out", "forward-out", wayOut(), chains))
	}
	if o.all != nil && u.has(o.all, ruleset.Forward, ruleset.Egress) {
		rules = append(rules, isNotIn(wayOut(), slices.Sorted(maps.Keys(o.named))).
			jump(endpointChain(o.all.ID, ruleset.Egress, "forward")))
	}
	return rules
}

// output judges what processes of this host send, if its destination is the one that they chose: then the interface that
// the hook knows is the one that the packet leaves by.
func (u *builder) output(o owners) {
	rules := []*Rule{ifKnown().then(exit{verdict: nfAccept}, "")}
	if len(o.endpoints()) > 0 {
		rules = append(rules, ifTranslated().then(exit{verdict: nfAccept}, "judged where its interface is known, see "+redirectsChain))
		if u.settings.IPVS {
			rules = append(rules, u.balanced()...)
		}
	}
	rules = append(rules, u.egress("out", "endpoints-out", o, u.egressEntry)...)
	u.addBase("output", "what this host sends", Base{Hook: unix.NF_INET_LOCAL_OUT, Priority: priority}, rules)
}

// postrouting judges what processes of this host send to a destination that was translated: the kernel has chosen its
// interface anew. With IPVS it judges what is passed on, too.
func (u *builder) postrouting(o owners) {
	rules := u.passing()
	if len(o.endpoints()) > 0 {
		rules = append(rules, ifTranslated().then(goTo(redirectsChain), ""))
		u.redirected(o)
	}
	if len(rules) > 0 {
		u.addBase("postrouting", "what leaves, when its interface is known", Base{Hook: unix.NF_INET_POST_ROUTING, Priority: priority}, rules)
	}
}

// redirected adds the chain for what processes of this host send to a destination that was translated.
func (u *builder) redirected(o owners) {
	rules := []*Rule{
		ifKnown().then(exit{verdict: nfAccept}, ""),
		wayIn().exists().then(exit{verdict: nfAccept}, "passed on by this host"),
	}
	rules = append(rules, o.bridged.passedOn()...)
	rules = append(rules, u.egress("redirected", "redirected-out", o, u.redirectedEntry)...)
	u.addChain(redirectsChain, "what this host sends and was sent elsewhere", rules...)
}

// egress returns the rules that lead to the host endpoint that a packet leaves by, whose chain for this hook entry names.
func (u *builder) egress(kind, table string, o owners, entry func(*ruleset.Endpoint) string) []*Rule {
	chains := map[string][]*Rule{}
	for name, ep := range o.named {
		chains[name] = []*Rule{jumpRule("goto", entry(ep))}
	}
	var rules []*Rule
	if len(chains) > 0 || o.all != nil {
		rules = o.bridged.fromHost()
	}
	if len(chains) > 0 {
		rules = append(rules, u.dispatch(kind, table, wayOut(), chains), u.fellOut(wayOut(), o))
	}
	if o.all != nil {
		rules = append(rules, u.ifWorkload(wayOut(), o, func(c condition) *Rule {
			return c.then(exit{verdict: nfAccept}, "host to own workload")
		})...)
		rules = append(rules, always().jump(entry(o.all)), nothingDecided())
	}
	return rules
}

// reject adds the chain that answers denied packets.
func (u *builder) reject() {
	c := code{}.meta(unix.NFT_META_L4PROTO, regFirst).cmp(unix.NFT_CMP_EQ, []byte{ruleset.TCP})
	u.addChain(rejectChain, "answers what is denied", rule("meta l4proto tcp reject with tcp reset", "", c.rejectTCP()),
		rule("reject with icmpx admin-prohibited", "", code{}.rejectProhibited()))
}
