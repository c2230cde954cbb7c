package nft

import (
	"maps"
	"net/netip"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"margay/ruleset"
)

// isAll reports whether an endpoint is the one for all interfaces.
func isAll(ep *ruleset.Endpoint) bool { return slices.Contains(ep.Interfaces, ruleset.AllInterfaces) }

// has reports whether a host endpoint has chains for a stage and direction.
func (u *builder) has(ep *ruleset.Endpoint, s ruleset.Stage, dir ruleset.Direction) bool {
	policies := len(ep.Walk(s).Tiers(dir)) > 0
	switch s {
	case ruleset.Forward: // invalid packets are denied, with or without policy
		return policies || !u.settings.AcceptInvalid
	case ruleset.PreDNAT:
		return policies && dir == ruleset.Ingress
	case ruleset.Untracked:
		return policies && !isAll(ep)
	}
	return true
}

// hasEarly reports whether a stage comes before Normal and Forward ingress.
func (u *builder) hasEarly(ep *ruleset.Endpoint) bool {
	return u.has(ep, ruleset.Untracked, ruleset.Ingress) || u.has(ep, ruleset.PreDNAT, ruleset.Ingress)
}

// entry returns the rules with which the endpoint begins for a packet that comes in by it to a process.
func (u *builder) entry(ep *ruleset.Endpoint) []*Rule {
	var rules []*Rule
	if u.hasEarly(ep) {
		rules = append(rules, always().jump(endpointChain(ep.ID, ruleset.Ingress, "early")))
	}
	return append(rules, jumpRule("goto", endpointChain(ep.ID, ruleset.Ingress)))
}

// forwardEntry returns the rules with which the endpoint begins for a packet that comes in by it and is passed on; none, if
// the endpoint lets all of those pass.
func (u *builder) forwardEntry(ep *ruleset.Endpoint) []*Rule {
	switch {
	case u.has(ep, ruleset.Untracked, ruleset.Ingress):
		return u.views(ep, "forward", "untracked")
	case u.has(ep, ruleset.PreDNAT, ruleset.Ingress):
		return u.views(ep, "forward", "pre-dnat")
	case u.has(ep, ruleset.Forward, ruleset.Ingress):
		return []*Rule{jumpRule("goto", endpointChain(ep.ID, ruleset.Ingress, "forward"))}
	}
	return nil
}

// views returns the rules that lead to a stage before destination NAT, which has chains for packets that were sent to
// where they are going and others for those that may have been sent elsewhere.
func (u *builder) views(ep *ruleset.Endpoint, path ...string) []*Rule {
	return viewsIf(u.sentElsewhere(), ep, path...)
}

func viewsIf(elsewhere condition, ep *ruleset.Endpoint, path ...string) []*Rule {
	name := endpointChain(ep.ID, ruleset.Ingress, path...)
	original := endpointChain(ep.ID, ruleset.Ingress, append(path, "original")...)
	return []*Rule{elsewhere.then(goTo(original), ""), jumpRule("goto", name)}
}

// egressEntry returns the chain with which an endpoint begins for what this host sends.
func (u *builder) egressEntry(ep *ruleset.Endpoint) string {
	if u.has(ep, ruleset.Untracked, ruleset.Egress) {
		return endpointChain(ep.ID, ruleset.Egress, "untracked")
	}
	return endpointChain(ep.ID, ruleset.Egress)
}

// redirectedEntry returns the chain for what this host sends and was sent elsewhere.
func (u *builder) redirectedEntry(ep *ruleset.Endpoint) string {
	if u.settings.Reject {
		return endpointChain(ep.ID, ruleset.Egress, "redirected")
	}
	return endpointChain(ep.ID, ruleset.Egress)
}

// host adds the chains of a host endpoint in one direction.
func (u *builder) host(ep *ruleset.Endpoint, dir ruleset.Direction) {
	p := &part{builder: u, id: ep.ID, dir: dir}
	p.normal(ep, u.denial())
	if u.has(ep, ruleset.Forward, dir) {
		p.forward(ep)
	}
	if u.has(ep, ruleset.Untracked, dir) {
		p.raw(ep)
	}
	if dir == ruleset.Egress {
		p.egress(ep)
		return
	}
	if u.hasEarly(ep) {
		p.early(ep)
		p.beforeDNAT = true
		p.early(ep, "original")
		if u.has(ep, ruleset.Untracked, dir) && slices.Contains(ep.Interfaces, loopback) {
			p.raw(ep, "original")
		}
	}
}

// A part is an endpoint in one direction.
type part struct {
	*builder
	id  ruleset.EndpointID
	dir ruleset.Direction
}

// chain returns the name of a chain of the part.
func (p *part) chain(path ...string) string { return endpointChain(p.id, p.dir, path...) }

// A place is where a list of stages is used.
type place struct {
	path  []string // appended to the endpoint's chain name
	about string   // what chains say of it: see readPlace
	roomy bool     // few chains lead there
}

func (p *part) at(s ruleset.Stage, path ...string) place {
	about := p.id.String() + " " + p.dir.String()
	if s != ruleset.Normal {
		about += " " + s.String()
	}
	return place{path, about, false}
}

// add adds the chain in which a walk begins: head are its first rules, exits those of the last stage. Where the walk counts for
// staged policies, that is done first.
func (p *part) add(at place, head []*Rule, w walk, x exits) {
	rules := p.stages(at, w.stages, x)
	if len(w.staged) > 0 && !strings.Contains(at.about, againRemark) {
		rules = p.staged(at, w.staged, rules)
	}
	p.addChain(p.chain(at.path...), at.about, append(head, rules...)...)
}

// staged adds the stages that count for staged policies and returns the rules that lead there, and on to the rules that decide
// whatever is counted.
//
// In the normal stage of a host endpoint every end of the stages leads to a chain with those rules, so that the stages are cut
// as others are. Elsewhere that would be more chains in a row than the kernel follows, so every end returns, and the stages
// are plain lists.
func (p *part) staged(at place, stages []stage, rules []*Rule) []*Rule {
	counting := place{append(slices.Clone(at.path), stagedRemark), at.about + " " + stagedRemark, at.roomy}
	if at.roomy {
		enforced := p.chain(append(slices.Clone(at.path), "enforced")...)
		p.addChain(enforced, at.about, rules...)
		on := goTo(enforced)
		return p.stages(counting, stages, exits{on, on, on})
	}
	back := exit{verdict: unix.NFT_RETURN}
	x := exits{back, back, back}
	for _, s := range slices.Backward(stages) {
		x[next] = goTo(p.stage(counting, s, x))
	}
	return append([]*Rule{always().jump(x[next].chain)}, rules...)
}

func (p *part) checkValid() []*Rule {
	if p.settings.AcceptInvalid {
		return nil
	}
	return []*Rule{ifInvalid().counted(exit{}, "invalid")}
}

// normal adds the chains of the Normal stage.
func (p *part) normal(ep *ruleset.Endpoint, denied exit, path ...string) {
	accepted := exit{verdict: nfAccept}
	head := append(p.checkValid(), p.failsafes(p.dir, p.to(), accepted)...)
	head = slices.Concat(head, discoveries(accepted), p.hostTunnels())
	stages := followed(p.flatten(ruleset.Normal, &ep.Normal, p.dir), p.profiles(ep.Profiles, p.dir))
	at := p.at(ruleset.Normal, path...)
	at.roomy = true
	p.add(at, head, stages, exits{deny: denied, accept: accepted})
}

// maxStagedDepth bounds how many chains may lead to each other where staged policies are counted: the kernel follows 16.
const maxStagedDepth = 14

// bounded returns a walk of a stage other than Normal with its staged policies, if there is room for them: such stages lead to
// each other, and their tiers do.
func (p *part) bounded(ep *ruleset.Endpoint, w walk) walk {
	depth := 2 + len(w.staged)
	for _, other := range []ruleset.Stage{ruleset.Forward, ruleset.PreDNAT, ruleset.Untracked} {
		depth += 1 + len(ep.Walk(other).Tiers(p.dir))
	}
	if depth > maxStagedDepth {
		w.staged = nil
	}
	return w
}

// forward adds the chains of the Forward stage. They return when they let a packet pass.
func (p *part) forward(ep *ruleset.Endpoint) {
	back := exit{verdict: unix.NFT_RETURN}
	p.add(p.at(ruleset.Forward, "forward"), p.checkValid(), p.bounded(ep, p.flatten(ruleset.Forward, &ep.Forward, p.dir)),
		exits{deny: p.passedDenial(), accept: back, next: back})
}

// raw adds the chains of the Untracked stage before connection tracking. No connection is known there to which an answer
// would belong, so denied packets are dropped.
func (p *part) raw(ep *ruleset.Endpoint, path ...string) {
	back := exit{verdict: unix.NFT_RETURN}
	p.add(p.at(ruleset.Untracked, append([]string{"raw"}, path...)...), p.untrackedFailsafes(back),
		p.bounded(ep, p.flatten(ruleset.Untracked, &ep.Untracked, p.dir)), exits{accept: goTo(untrackChain), next: back})
}

// untrackedFailsafes returns the rules that keep failsafe ports, their replies and neighbour discovery out of the Untracked
// stage.
func (p *part) untrackedFailsafes(x exit) []*Rule {
	return slices.Concat(p.failsafes(p.dir, p.to(), x), p.failsafes(1-p.dir, source, x), discoveries(x))
}

// egress adds the chains that only egress has.
func (p *part) egress(ep *ruleset.Endpoint) {
	if p.has(ep, ruleset.Untracked, p.dir) {
		p.untracked(ep, []string{"untracked"}, exits{accept: exit{verdict: nfAccept}, next: goTo(p.chain())})
	}
	if p.settings.Reject { // there is no answering after routing
		p.normal(ep, exit{}, "redirected")
	}
}

// early adds the chains of Untracked and PreDNAT, which come before Normal and Forward ingress. They are walked in the
// same hooks as these, and not before destination NAT, so that what they allow need not be remembered and a packet
// meets one generation of rules. Allowed packets leave for good where nothing else is asked (in the input hook); what
// comes after them is asked in another place, so they are there twice; for packets of workloads a third time.
func (p *part) early(ep *ruleset.Endpoint, view ...string) {
	back, accepted := exit{verdict: unix.NFT_RETURN}, exit{verdict: nfAccept}
	path := func(words ...string) []string { return append(words, view...) }
	untracked, before := p.has(ep, ruleset.Untracked, ruleset.Ingress), p.has(ep, ruleset.PreDNAT, ruleset.Ingress)

	var start []*Rule
	if view == nil {
		start = append(start, p.sentElsewhere().then(goTo(p.chain("early", "original")), ""))
	}
	if untracked {
		p.untracked(ep, path("untracked"), exits{accept: accepted, next: back})
		start = append(start, always().jump(p.chain(path("untracked")...)))
	}
	if before {
		p.preDNAT(ep, path("pre-dnat"), exits{accept: accepted, next: back})
		start = append(start, always().jump(p.chain(path("pre-dnat")...)))
	}
	p.addChain(p.chain(path("early")...), p.id.String()+" before NAT", start...)
	if isAll(ep) {
		p.preDNAT(ep, path("guest", "pre-dnat"), exits{accept: back, next: back})
	}

	after := back
	if p.has(ep, ruleset.Forward, p.dir) {
		after = goTo(p.chain("forward"))
	}
	if before {
		p.preDNAT(ep, path("forward", "pre-dnat"), exits{accept: back, next: after})
		after = goTo(p.chain(path("forward", "pre-dnat")...))
	}
	if untracked {
		p.untracked(ep, path("forward", "untracked"), exits{accept: back, next: after})
	}
}

// preDNAT adds the chains of the PreDNAT stage in one place.
func (p *part) preDNAT(ep *ruleset.Endpoint, path []string, x exits) {
	x[deny] = p.denial()
	if path[0] == "forward" {
		x[deny] = p.passedDenial()
	}
	head := append(p.checkValid(), p.failsafes(p.dir, p.to(), x[next])...)
	head = append(head, discoveries(x[next])...)
	p.add(p.at(ruleset.PreDNAT, path...), head, p.bounded(ep, p.flatten(ruleset.PreDNAT, &ep.PreDNAT, p.dir)), x)
}

// untracked adds the chains of the Untracked stage in one place after connection tracking. That the stage allowed a packet
// is not remembered but found out again: others keep packets away from connection tracking, too.
func (p *part) untracked(ep *ruleset.Endpoint, path []string, x exits) {
	at := p.at(ruleset.Normal, path...)
	at.about += " " + againRemark
	p.add(at, p.untrackedFailsafes(x[next]), p.flatten(ruleset.Untracked, &ep.Untracked, p.dir), x)
}

// failsafes returns the rules for the failsafe ports of a direction, by the networks that they are limited to. They match
// the port at one end; the address is that of the part's peer.
func (p *part) failsafes(list ruleset.Direction, at side, x exit) []*Rule {
	peer := source
	if p.dir == ruleset.Egress {
		peer = p.to()
	}
	ports := map[netip.Prefix][]ruleset.Failsafe{}
	for _, f := range p.settings.Failsafes(list) {
		net := f.Net
		if net.IsValid() {
			net = net.Masked()
		}
		ports[net] = append(ports[net], f)
	}
	var rules []*Rule
	for _, net := range slices.SortedFunc(maps.Keys(ports), comparePrefix) {
		v := variant{protos: allProtocols}
		if net.IsValid() {
			v.family = ruleset.FamilyOf(net.Addr())
			v.tests = []test{netsTest(peer, []netip.Prefix{net})}
		}
		for _, c := range p.services(v, at, ports[net]) {
			rules = append(rules, c.counted(x, "failsafe"))
		}
	}
	return rules
}

// services returns v restricted to protocols and ports: by one look-up for both, or, where that does not list, by one for
// each protocol.
func (p *part) services(v variant, at side, list []ruleset.Failsafe) []condition {
	if at != original {
		var elements []Element
		for _, f := range list {
			elements = append(elements, Element{Key: serviceKey(f.Protocol, f.Port)})
		}
		set := constant("failsafes", typeService, elements)
		c := at.loadPort(code{}.meta(unix.NFT_META_L4PROTO, regFirst), regWord1).lookup(set.Name, false)
		text := "meta l4proto . " + at.port("th") + " @" + set.Name + " "
		return []condition{match(v).and(condition{text, c, []*Set{set}})}
	}
	var out []condition
	for _, proto := range []uint8{ruleset.TCP, ruleset.UDP} {
		var ranges []ruleset.PortRange
		for _, f := range list {
			if f.Protocol == proto {
				ranges = append(ranges, ruleset.PortRange{First: f.Port, Last: f.Port})
			}
		}
		if len(ranges) > 0 {
			out = append(out, match(v.only(protocolsOf(proto)).with(portsTest(original, mergeRanges(ranges)))))
		}
	}
	return out
}

func comparePrefix(a, b netip.Prefix) int {
	if c := a.Addr().Compare(b.Addr()); c != 0 {
		return c
	}
	return a.Bits() - b.Bits()
}
