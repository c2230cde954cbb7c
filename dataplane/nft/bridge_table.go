package nft

import (
	"encoding/binary"
	"net/netip"

	"golang.org/x/sys/unix"

	"margay/ruleset"
)

// Names of what the table of family bridge holds, and its priorities: before br_netfilter (0) hands frames to the hooks of IP,
// and before it does so when they leave.
const (
	sendsChain      = "sends"      // what comes from the ports of workloads
	sends6Chain     = "sends-ipv6" //
	advertChain     = "advertises" // neighbour advertisements
	getsChain       = "gets"       // what goes to the ports of workloads
	betweenChain    = "between"    // what goes from port to port and no hook of IP sees
	linkSourceChain = "on-link"    // what is sent from an address of the link, or none

	bridgePriority = -310
)

// Types of frames (IEEE 802 numbers).
const (
	etherIPv4 = 0x0800
	etherARP  = 0x0806
	etherIPv6 = 0x86dd
)

// A bridgeBuilder makes the table of family bridge.
type bridgeBuilder struct {
	*bridged
	table    *Table
	prefixes []string
}

// CompileBridge returns the table of family bridge that holds the ports of bridges to the addresses of their workloads, nil if
// none is needed.
func CompileBridge(p *ruleset.Program) *Table {
	b := bridgedOf(p)
	if !b.any && !p.Settings.ClosePorts {
		return nil
	}
	u := bridgeBuilder{&b, NewTable(), prefixesOfWorkloads(&p.Settings)}
	u.table.bridge = true
	u.comesIn()
	u.passes()
	u.leaves()
	if len(b.ports) > 0 {
		u.sends()
		u.gets()
	}
	return u.table
}

func (u *bridgeBuilder) chain(name, comment string, rules []*Rule) {
	u.table.Chains[name] = &Chain{Name: name, Comment: comment, Rules: rules}
	for _, r := range rules {
		for _, s := range r.uses {
			u.table.Sets[s.Name] = s
		}
	}
}

func (u *bridgeBuilder) base(name, comment string, hook uint32, rules []*Rule) {
	if len(rules) == 0 {
		return
	}
	u.chain(name, comment, rules)
	u.table.Chains[name].Base = &Base{Type: "filter", Hook: hook, Priority: bridgePriority}
}

// ifFrame: the frame is of a type, and carries no VLAN tag before it.
func ifFrame(ether uint16, name string) condition {
	c := code{}.payload(unix.NFT_PAYLOAD_LL_HEADER, 12, 2, regFirst)
	return condition{text: "ether type " + name + " ", code: c.cmp(unix.NFT_CMP_EQ, binary.BigEndian.AppendUint16(nil, ether))}
}

func ifARP() condition { return ifFrame(etherARP, "arp") }

func ifIP(f ruleset.Family) condition {
	if f == ruleset.IPv6 {
		return ifFrame(etherIPv6, "ip6")
	}
	return ifFrame(etherIPv4, "ip")
}

// loadSender loads the address of the sender of ARP for IPv4.
func loadSender(c code, reg uint32) code {
	return c.payload(unix.NFT_PAYLOAD_NETWORK_HEADER, 14, 4, reg)
}

// loadTarget loads the target of neighbour discovery (RFC 4861 section 4.4).
func loadTarget(c code, reg uint32) code {
	return c.payload(unix.NFT_PAYLOAD_TRANSPORT_HEADER, 8, 16, reg)
}

// ifDiscovers: the frame is ICMPv6 of some types.
func ifDiscovers(first, last byte) condition {
	c := code{}.meta(unix.NFT_META_L4PROTO, regFirst).cmp(unix.NFT_CMP_EQ, []byte{ruleset.ICMPv6})
	c = c.payload(unix.NFT_PAYLOAD_TRANSPORT_HEADER, 0, 1, regFirst)
	if first == last {
		c = c.cmp(unix.NFT_CMP_EQ, []byte{first})
	} else {
		c = c.cmp(unix.NFT_CMP_GTE, []byte{first}).cmp(unix.NFT_CMP_LTE, []byte{last})
	}
	return condition{text: "icmpv6 type " + portText(ruleset.PortRange{First: uint16(first), Last: uint16(last)}) + " ", code: c}
}

// strangers returns the rules that close the ports that are a workload's by their name and not known.
func (u *bridgeBuilder) strangers(w way) []*Rule {
	var rules []*Rule
	for _, prefix := range u.prefixes {
		rules = append(rules, w.begins(prefix).and(isNotIn(w, u.ports)).counted(exit{}, "unknown workload interface"))
	}
	return rules
}

// comesIn judges what comes from ports: a workload's sends from its own addresses, another from none of a workload's.
func (u *bridgeBuilder) comesIn() {
	rules := u.strangers(wayIn())
	if len(u.ports) > 0 {
		rules = append(rules, isIn(wayIn(), u.ports).then(goTo(sendsChain), ""))
	}
	const why = "address of a workload behind another port"
	for _, f := range bothFamilies() {
		all := u.addresses(f)
		if all == nil {
			continue
		}
		rules = append(rules, ifIP(f).and(hasAddr(source, f, all)).counted(exit{}, why))
		if f == ruleset.IPv4 {
			is := condition{"arp saddr ip @" + all.Name + " ", loadSender(nil, regFirst).lookup(all.Name, false), []*Set{all}}
			rules = append(rules, ifARP().and(is).counted(exit{}, why))
			continue
		}
		is := condition{"icmpv6 taddr @" + all.Name + " ", loadTarget(nil, regFirst).lookup(all.Name, false), []*Set{all}}
		rules = append(rules, ifIP(f).and(ifDiscovers(136, 136)).and(is).counted(exit{}, why))
	}
	u.base("prerouting", "what comes in by the ports of bridges", unix.NF_INET_PRE_ROUTING, rules)
}

// sends adds the chains for what comes from the ports of workloads. What has another type, or a VLAN tag, falls out.
func (u *bridgeBuilder) sends() {
	accepted := exit{verdict: nfAccept}
	var rules []*Rule
	if own := u.own(ruleset.IPv4); own != nil {
		rules = append(rules, ifIP(ruleset.IPv4).and(hasPair(wayIn(), ruleset.IPv4, own, false)).then(accepted, ""))
		c := loadSender(code{}.meta(unix.NFT_META_IIFNAME, regFirst), regNext).lookup(own.Name, false)
		rules = append(rules, ifARP().and(condition{"iifname . arp saddr ip @" + own.Name + " ", c, []*Set{own}}).then(accepted, ""))
	}
	probe := condition{text: "arp saddr ip 0.0.0.0 ", code: loadSender(nil, regFirst).cmp(unix.NFT_CMP_EQ, make([]byte, 4))}
	rules = append(rules, ifARP().and(probe).then(accepted, "asks whether an address is free"), ifIP(ruleset.IPv6).then(goTo(sends6Chain), ""))
	const why = "source is not the workload's"
	u.chain(sendsChain, "what comes from workloads", append(rules, always().counted(exit{}, why)))

	rules = []*Rule{ifIP(ruleset.IPv6).and(ifDiscovers(136, 136)).then(goTo(advertChain), "")}
	own := u.own(ruleset.IPv6)
	if own != nil {
		rules = append(rules, ifIP(ruleset.IPv6).and(hasPair(wayIn(), ruleset.IPv6, own, false)).then(accepted, ""))
	}
	for _, from := range []netip.Prefix{linkLocal(), netip.PrefixFrom(netip.IPv6Unspecified(), 128)} {
		for _, types := range [][2]byte{{130, 133}, {135, 135}, {143, 143}} { // ruleset: isPortDiscovery
			rules = append(rules, ifFrom(from).and(ifDiscovers(types[0], types[1])).then(accepted, ""))
		}
	}
	u.chain(sends6Chain, "what comes from workloads by IPv6", append(rules, always().counted(exit{}, why)))
	u.advertises(own)
}

func linkLocal() netip.Prefix { return netip.MustParsePrefix("fe80::/10") }

// ifFrom: the frame is IPv6 from an address within a prefix.
func ifFrom(p netip.Prefix) condition {
	t := netsTest(source, []netip.Prefix{p})
	return ifIP(ruleset.IPv6).and(condition{text: t.text(ruleset.IPv6, "", "") + " ", code: t.code(nil, ruleset.IPv6, "")})
}

// advertises adds the chains for what workloads say of who has an address.
func (u *bridgeBuilder) advertises(own *Set) {
	says := ifIP(ruleset.IPv6).and(ifDiscovers(136, 136))
	link := loadTarget(nil, regFirst).mask(maskOf(linkLocal())).cmp(unix.NFT_CMP_EQ, linkLocal().Addr().AsSlice())
	rules := []*Rule{says.and(condition{text: "icmpv6 taddr fe80::/10 ", code: link}).then(goTo(linkSourceChain), "")}
	var from []*Rule
	if own != nil {
		c := loadTarget(code{}.meta(unix.NFT_META_IIFNAME, regFirst), regNext).lookup(own.Name, false)
		rules = append(rules, says.and(condition{"iifname . icmpv6 taddr @" + own.Name + " ", c, []*Set{own}}).then(goTo(linkSourceChain), ""))
		from = append(from, ifIP(ruleset.IPv6).and(hasPair(wayIn(), ruleset.IPv6, own, false)).then(exit{verdict: nfAccept}, ""))
	}
	u.chain(advertChain, "what workloads say they are", append(rules, always().counted(exit{}, "address is not the workload's")))
	from = append(from, ifFrom(linkLocal()).then(exit{verdict: nfAccept}, ""), always().counted(exit{}, "source is not the workload's"))
	u.chain(linkSourceChain, "from an address of its own", from)
}

// passes judges what goes from port to port where no hook of IP sees it.
func (u *bridgeBuilder) passes() {
	if len(u.closed) == 0 {
		return
	}
	between := goTo(betweenChain)
	u.base("forward", "what passes from port to port", unix.NF_INET_FORWARD,
		[]*Rule{isIn(wayIn(), u.closed).then(between, ""), isIn(wayOut(), u.closed).then(between, "")})
	rules := append(discovers(), always().counted(exit{}, "the bridge is not filtered"))
	u.chain(betweenChain, "between ports of a bridge that br_netfilter does not see", rules)
}

// discovers returns the rules that let neighbours find each other.
func discovers() []*Rule {
	accepted := exit{verdict: nfAccept}
	ip := ifIP(ruleset.IPv6)
	return []*Rule{ifARP().then(accepted, ""), ip.and(ifDiscovers(130, 136)).then(accepted, ""), ip.and(ifDiscovers(143, 143)).then(accepted, "")}
}

// leaves judges what goes to ports: a workload's gets what is sent to its own addresses, another nothing that is sent to a
// workload's.
func (u *bridgeBuilder) leaves() {
	rules := u.strangers(wayOut())
	if len(u.ports) > 0 {
		rules = append(rules, isIn(wayOut(), u.ports).then(goTo(getsChain), ""))
	}
	for _, f := range bothFamilies() {
		if all := u.addresses(f); all != nil {
			rules = append(rules, ifIP(f).and(hasAddr(destination, f, all)).counted(exit{}, "address of a workload behind another port"))
		}
	}
	u.base("postrouting", "what leaves by the ports of bridges", unix.NF_INET_POST_ROUTING, rules)
}

// gets adds the chain for what goes to the ports of workloads.
func (u *bridgeBuilder) gets() {
	var rules []*Rule
	for _, f := range bothFamilies() {
		if own := u.own(f); own != nil {
			rules = append(rules, ifIP(f).and(hasPair(wayOut(), f, own, false)).then(exit{verdict: nfAccept}, ""))
		}
	}
	rules = append(rules, discovers()...)
	u.chain(getsChain, "what goes to workloads", append(rules, always().counted(exit{}, "address is not the workload's")))
}
