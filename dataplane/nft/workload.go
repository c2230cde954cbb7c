package nft

import (
	"maps"
	"net/netip"
	"slices"

	"golang.org/x/sys/unix"

	"margay/ruleset"
)

// strangers returns the rules that deny what comes from or goes to a workload that is not known, be its flow known or not.
func (u *builder) strangers(w way, o owners) []*Rule {
	names := slices.Sorted(maps.Keys(o.workloads))
	var rules []*Rule
	for _, prefix := range u.prefixes() {
		c := w.begins(prefix)
		if len(names) > 0 {
			c = c.and(isNotIn(w, names))
		}
		rules = append(rules, c.counted(exit{}, "unknown workload interface"))
	}
	return rules
}

// guests adds the chain for what workloads send to their own host.
func (u *builder) guests(o owners) {
	rules := u.strangers(wayIn(), o)
	if !u.settings.IPVS {
		rules = append(rules, u.sources(o))
	}
	rules = append(rules, ifKnown().then(exit{verdict: nfAccept}, ""))
	rules = append(rules, u.strangeTunnels()...)
	if o.all != nil && u.has(o.all, ruleset.PreDNAT, ruleset.Ingress) {
		u.addChain(guestsChain+"-early", "", u.views(o.all, "guest", "pre-dnat")...)
		rules = append(rules, always().jump(guestsChain+"-early"))
	}
	for _, types := range [][2]byte{{130, 133}, {135, 136}} { // ruleset: PodDiscovery
		rules = append(rules, discovery(types[0], types[1]).counted(exit{verdict: nfAccept}, "neighbour discovery of a workload"))
	}
	rules = append(append(rules, u.workloadEgress(o)...), always().counted(exit{}, "no verdict from the workload"))
	u.addChain(guestsChain, "what workloads send to this host", rules...)
}

// discovery returns the condition that a packet is of some types of ICMPv6.
func discovery(first, last byte) condition {
	c := icmpv6Type().cmp(unix.NFT_CMP_GTE, []byte{first}).cmp(unix.NFT_CMP_LTE, []byte{last})
	text := "icmpv6 type " + portText(ruleset.PortRange{First: uint16(first), Last: uint16(last)}) + " "
	return condition{text: text, code: c}
}

// icmpv6Type loads the type of what is ICMPv6.
func icmpv6Type() code {
	c := code{}.meta(unix.NFT_META_NFPROTO, regFirst).cmp(unix.NFT_CMP_EQ, []byte{nfprotoIPv6})
	c = c.meta(unix.NFT_META_L4PROTO, regFirst).cmp(unix.NFT_CMP_EQ, []byte{ruleset.ICMPv6})
	return c.payload(unix.NFT_PAYLOAD_TRANSPORT_HEADER, 0, 1, regFirst)
}

// sources returns the rule that leads to the chains that deny what a workload sends from addresses that are not its own. The
// ports of bridges see to that themselves.
func (u *builder) sources(o owners) *Rule {
	return u.leads("source", "workload-sources", wayIn(), slices.Collect(maps.Keys(o.workloads)))
}

// workloadEgress returns the rules that lead to the policies for what workloads send.
func (u *builder) workloadEgress(o owners) []*Rule {
	rule := u.leads("from", "workloads-from", wayIn(), slices.Collect(maps.Keys(o.workloads)))
	return append([]*Rule{rule}, u.leadsBridged("from", ruleset.Egress, wayIn(), o)...)
}

// ownSource returns the rules that deny what w may not send from, see ruleset: maySend.
func (u *builder) ownSource(w *ruleset.Workload) []*Rule {
	var own []netip.Prefix
	for _, a := range w.Addrs {
		if a.IsValid() && a.Zone() == "" {
			own = append(own, netip.PrefixFrom(a, a.BitLen()))
		}
	}
	if u.settings.AllowSpoofing {
		own = append(own, w.Spoofable...)
	}
	link := netip.MustParsePrefix("fe80::/10")
	rules := u.notFrom(ruleset.IPv4, own)
	own = append(own, link)
	unspecified := netip.PrefixFrom(netip.IPv6Unspecified(), 128)
	if slices.ContainsFunc(ofFamily(own, ruleset.IPv6), func(p netip.Prefix) bool { return p.Contains(unspecified.Addr()) }) {
		return append(rules, u.notFrom(ruleset.IPv6, own)...)
	}
	rules = append(rules, u.notFrom(ruleset.IPv6, append(own, unspecified))...)
	probe := variant{family: ruleset.IPv6, protos: allProtocols, tests: []test{netsTest(source, []netip.Prefix{unspecified})}}
	near := netsTest(destination, []netip.Prefix{link, netip.MustParsePrefix("ff00::/8")})
	near.not = true
	return append(rules, u.spoofed(probe.only(protocolsOf(ruleset.ICMPv6).not())), u.spoofed(probe.with(near)))
}

// notFrom returns the rule that denies what comes from no address of a family but these.
func (u *builder) notFrom(f ruleset.Family, own []netip.Prefix) []*Rule {
	v := variant{family: f, protos: allProtocols}
	disjoint := maximal(ofFamily(own, f))
	switch {
	case len(disjoint) > 0 && disjoint[0].Bits() == 0:
		return nil
	case len(disjoint) > 0:
		t := netsTest(source, disjoint)
		t.not = true
		v = v.with(t)
	}
	return []*Rule{u.spoofed(v)}
}

func (u *builder) spoofed(v variant) *Rule {
	return match(v).counted(exit{}, "source is not the workload's")
}

// workloadPolicies returns the rules that lead to the policies at both ends of what is passed on, the last to be asked.
func (u *builder) workloadPolicies(o owners) []*Rule {
	noVerdict := func(c condition) *Rule { return c.counted(exit{}, "no verdict from the workload") }
	rules := append(u.workloadEgress(o), u.ifWorkload(wayIn(), o, noVerdict)...)
	rules = append(rules, o.bridged.ifBridged(wayIn(), noVerdict)...)

	to := u.leads("to", "workloads-to", wayOut(), slices.Collect(maps.Keys(o.workloads)))
	arrives := append([]*Rule{to}, u.leadsBridged("to", ruleset.Ingress, wayOut(), o)...)
	arrives = append(arrives, u.ifWorkload(wayOut(), o, noVerdict)...)
	arrives = append(arrives, o.bridged.ifBridged(wayOut(), noVerdict)...)
	accepted := exit{verdict: nfAccept}
	u.addChain(arrivesChain, "what is passed on", append(arrives, always().then(accepted, ""))...)

	host := exit{}
	if u.settings.EndpointToHost != ruleset.HostDrop {
		host = accepted
	}
	u.addChain(sentChain, "what workloads may send", wayOut().exists().then(goTo(arrivesChain), ""),
		always().counted(host, "endpoint to host: "+u.settings.EndpointToHost.String()))
	return append(rules, jumpRule("goto", arrivesChain))
}

// maxWorkloadStaged bounds how many tiers are counted for staged policies of workloads: ten chains lead there when one workload
// sends to another, and the kernel follows 16.
const maxWorkloadStaged = 4

// guest adds the chains of a workload in one direction, those of its interface included.
func (u *builder) guest(w *ruleset.Workload, dir ruleset.Direction) {
	p := &part{builder: u, id: w.ID, dir: dir}
	head, allowed, kind := p.checkValid(), exit{verdict: nfAccept}, "to"
	if dir == ruleset.Egress {
		head, allowed, kind = append(head, p.tunnels()...), goTo(sentChain), "from"
	}
	if w.Bridge == "" {
		p.addChain(ident(kind, w.Interface), "interface "+w.Interface, jumpRule("goto", p.chain()))
	}
	if w.Bridge == "" && dir == ruleset.Egress {
		p.addChain(ident("source", w.Interface), "interface "+w.Interface, u.ownSource(w)...)
	}
	stages := followed(p.flatten(ruleset.Normal, &w.Normal, dir), p.profiles(w.Profiles, dir))
	if len(stages.staged) > maxWorkloadStaged {
		stages.staged = nil
	}
	p.add(p.at(ruleset.Normal), head, stages, exits{deny: p.passedDenial(), accept: allowed})
}

// tunnels returns the rules that keep workloads from sending packets in which policy does not see the real ones.
func (p *part) tunnels() []*Rule {
	var rules []*Rule
	if !p.settings.AllowVXLAN {
		v := variant{protos: protocolsOf(ruleset.UDP)}
		v = v.with(portsTest(destination, []ruleset.PortRange{{First: p.settings.VXLAN(), Last: p.settings.VXLAN()}}))
		rules = append(rules, match(v).counted(p.passedDenial(), "VXLAN from a workload"))
	}
	if !p.settings.AllowIPIP {
		rules = append(rules, match(variant{protos: protocolsOf(unix.IPPROTO_IPIP)}).counted(p.passedDenial(), "IPIP from a workload"))
	}
	return rules
}
