package nft

import (
	"encoding/binary"
	"net/netip"
	"slices"

	"golang.org/x/sys/unix"

	"margay/ruleset"
)

// With IPVS, see the package comment: where packets are judged then.
const (
	inputChain = "input"
	// behindChain is where input is judged with IPVS, which takes what it balances at priority 99.
	behindChain    = "input-behind-ipvs"
	behindPriority = 101

	passedOnChain  = "passed-on"       // what this host passes on, whoever decided that
	balancedChain  = "sent-on-by-ipvs" // what is sent from this host, and not by it
	balancedRemark = "sent on by IPVS: judged in postrouting"
)

// What package unix does not know (Linux 5.6, 4.10).
const (
	metaIIFKind = 26
	metaOIFKind = 27

	fibSource      = 1 // NFTA_FIB_F_SADDR
	fibDestination = 2 // NFTA_FIB_F_DADDR

	addrLocal = 2 // RTN_LOCAL
)

// ownRemark is the comment of rules that deny what claims to be from this host.
const ownRemark = "source is this host's own"

// delivered adds the base chains with the rules for what comes in for this host.
func (u *builder) delivered(o owners, rules []*Rule) {
	about := "what comes in for this host"
	if u.settings.IPVS {
		u.addBase(behindChain, about, Base{Hook: unix.NF_INET_LOCAL_IN, Priority: behindPriority}, rules)
		if !u.leaving {
			rules = nil
		}
		rules = slices.Concat(u.sent(o), fromNobody(), rules)
	}
	u.addBase(inputChain, about, Base{Hook: unix.NF_INET_LOCAL_IN, Priority: priority}, rules)
}

// fromNobody returns the rules that deny what comes in from outside as if from this host, or from nobody. Behind IPVS it would be taken for
// what this host sends.
func fromNobody() []*Rule {
	outside := isNotIn(wayIn(), []string{loopback}).and(ofHost(fibDestination))
	rules := []*Rule{outside.and(ofHost(fibSource)).counted(exit{}, ownRemark)}
	for _, none := range fromNone() {
		rules = append(rules, outside.and(none).counted(exit{}, ownRemark))
	}
	return rules
}

// ofHost: the address at an end is one of this host's.
func ofHost(end uint32) condition { return hostCondition("", unix.NFT_CMP_EQ, end) }

// ofOthers: it is none of them.
func ofOthers(end uint32) condition { return hostCondition("!= ", unix.NFT_CMP_NEQ, end) }

func hostCondition(op string, cmp, end uint32) condition {
	name := map[uint32]string{fibSource: "saddr", fibDestination: "daddr"}[end]
	local := binary.NativeEndian.AppendUint32(nil, addrLocal)
	return condition{text: "fib " + name + " type " + op + "local ", code: code{}.fibType(end).cmp(cmp, local)}
}

// sent returns the rule that checks the source of what comes from workloads, every packet, in the input and in the forward hook: behind
// them what answers by IPVS has the address of the service.
func (u *builder) sent(o owners) []*Rule {
	if len(o.workloads) == 0 {
		return nil
	}
	return []*Rule{u.sources(o)}
}

// leave returns the changes to a table that judges where it does with IPVS and where it does without. From one to the other at
// once, a packet between two hooks would be judged in neither.
func (im *image) leave() []Change {
	im.leaving = true
	settings := im.program.Settings
	return im.apply(&ruleset.Delta{Settings: &settings})
}

// leavingImage returns the image of p as it is while the table leaves IPVS.
func leavingImage(p *ruleset.Program, lim limits) *image {
	q := *p
	q.Settings.IPVS = true
	im := newImage(&q, lim)
	im.leave()
	return im
}

// passedDenial returns the exit of denied packets where the stage is asked on behalf of others than this host. With IPVS they are
// in postrouting, where nothing can be answered.
func (u *builder) passedDenial() exit {
	if u.settings.IPVS {
		return exit{}
	}
	return u.denial()
}

// sentElsewhere: the packet may have been sent to another address than that in its header. IPVS sets no bit that would tell.
func (u *builder) sentElsewhere() condition {
	if u.settings.IPVS {
		return condition{text: "ct state new ", code: code{}.ctState(ctNew)}
	}
	return ifTranslated()
}

// forwarded adds the base chain with the rules for what this host passes on. IPVS passes packets on that the forward hook does
// not see, so these rules are asked in postrouting then. What a bridge passes on, where it shows that to the hooks of IP, has no
// incoming interface there, and what claims to be from this host, or from none, is taken for what it sends.
func (u *builder) forwarded(o owners, rules []*Rule) {
	if len(rules) == 0 {
		return
	}
	if u.settings.IPVS {
		u.addChain(passedOnChain, "what this host passes on", rules...)
		if !u.leaving {
			rules = []*Rule{ofKind("bridge").then(goTo(passedOnChain), ""), ofHost(fibSource).then(goTo(passedOnChain), "")}
			for _, none := range fromNone() {
				rules = append(rules, none.then(goTo(passedOnChain), ""))
			}
		}
		rules = append(u.sent(o), rules...)
	}
	u.addBase("forward", "what this host passes on", Base{Hook: unix.NF_INET_FORWARD, Priority: priority}, rules)
}

// passing returns the rules that judge, in postrouting, what this host passes on. What the kernel itself sends may have an interface there
// that looks like an incoming one (neighbour discovery, the outside of tunnels); it is from an address of this host, or from none.
func (u *builder) passing() []*Rule {
	if u.chains[passedOnChain] == nil {
		return nil
	}
	var rules []*Rule
	for _, none := range fromNone() {
		rules = append(rules, wayIn().exists().and(none).then(exit{verdict: nfAccept}, "sent by this host"))
	}
	return append(rules, wayIn().exists().and(ofOthers(fibSource)).then(goTo(passedOnChain), ""))
}

// fromNone returns the conditions that a packet has no source.
func fromNone() []condition {
	var list []condition
	for _, a := range []netip.Addr{netip.IPv4Unspecified(), netip.IPv6Unspecified()} {
		none := netsTest(source, []netip.Prefix{netip.PrefixFrom(a, a.BitLen())})
		list = append(list, match(variant{family: ruleset.FamilyOf(a), protos: allProtocols, tests: []test{none}}))
	}
	return list
}

// ofKind: both interfaces are of a kind.
func ofKind(kind string) condition {
	c := code{}.meta(metaIIFKind, regFirst).cmp(unix.NFT_CMP_EQ, []byte(ifaceKey(kind)))
	c = c.meta(metaOIFKind, regFirst).cmp(unix.NFT_CMP_EQ, []byte(ifaceKey(kind)))
	return condition{text: `meta iifkind "` + kind + `" meta oifkind "` + kind + `" `, code: c}
}

// balanced returns the rule that lets go, in the output hook, what IPVS sends on for others. That is from no process, nor from an
// address of this host, and its incoming interface is not known there.
func (u *builder) balanced() []*Rule {
	process := condition{text: "meta skuid >= 0 ", code: code{}.meta(unix.NFT_META_SKUID, regFirst).cmp(unix.NFT_CMP_GTE, make([]byte, 4))}
	u.addChain(balancedChain, "", process.then(exit{verdict: unix.NFT_RETURN}, ""), always().then(exit{verdict: nfAccept}, balancedRemark))
	return []*Rule{ofOthers(fibSource).jump(balancedChain)}
}

// noService returns the rules that deny what is passed on to an address of services.
func (u *builder) noService() []*Rule {
	x := exit{}
	if u.settings.RejectLoops && !u.settings.IPVS {
		x = goTo(rejectChain)
	}
	var rules []*Rule
	for _, f := range bothFamilies() {
		nets := maximal(ofFamily(u.settings.ServiceNets, f))
		if len(nets) == 0 {
			continue
		}
		v := variant{family: f, protos: allProtocols, tests: []test{netsTest(destination, nets)}}
		rules = append(rules, match(v).counted(x, ruleset.ServiceLoop.String()))
	}
	return rules
}
