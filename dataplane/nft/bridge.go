package nft

import (
	"cmp"
	"maps"
	"net/netip"
	"slices"

	"golang.org/x/sys/unix"

	"margay/ruleset"
)

// bridged is what is known of workloads on bridges, by what packets show of them.
type bridged struct {
	claims []claim
	ports  []string // in order, each once
	closed []string // those of ports that what passes between ports must not use
	names  []string // of the bridges, in order
	any    bool     // there are workloads on bridges
}

// A claim is an address on a bridge.
type claim struct {
	bridge string
	addr   netip.Addr
	// workload that has it; nil: several claim it, or it is not known by which port.
	workload *ruleset.Workload
}

// bridgedOf returns the claims in order, each once.
func bridgedOf(p *ruleset.Program) bridged {
	count := map[netip.Addr]int{}
	list := sortedIDs(p.Workloads)
	for _, id := range list {
		if w := p.Workloads[id]; w.Bridge != "" {
			for _, a := range usable(w.Addrs) {
				count[a]++
			}
		}
	}
	var b bridged
	for _, id := range list {
		w := p.Workloads[id]
		if w.Bridge == "" {
			continue
		}
		b.any = true
		isPort := w.Interface != "" && len(w.Interface) <= maxIface
		if isPort {
			b.ports = append(b.ports, w.Interface)
		}
		if isPort && !w.Filtered {
			b.closed = append(b.closed, w.Interface)
		}
		if len(w.Bridge) > maxIface {
			continue
		}
		b.names = append(b.names, w.Bridge)
		for _, a := range usable(w.Addrs) {
			c := claim{bridge: w.Bridge, addr: a}
			if count[a] == 1 && isPort {
				c.workload = w
			}
			b.claims = append(b.claims, c)
		}
	}
	b.ports, b.closed, b.names = ordered(b.ports), ordered(b.closed), ordered(b.names)
	slices.SortFunc(b.claims, func(x, y claim) int { return cmp.Or(cmp.Compare(x.bridge, y.bridge), x.addr.Compare(y.addr)) })
	b.claims = slices.CompactFunc(b.claims, func(x, y claim) bool { return x.bridge == y.bridge && x.addr == y.addr })
	return b
}

func ordered(names []string) []string {
	slices.Sort(names)
	return slices.Compact(names)
}

// usable returns the addresses that packets can have, each once.
func usable(addrs []netip.Addr) []netip.Addr {
	out := slices.DeleteFunc(slices.Clone(addrs), func(a netip.Addr) bool { return !a.IsValid() || a.Zone() != "" })
	slices.SortFunc(out, netip.Addr.Compare)
	return slices.Compact(out)
}

// known returns the workloads with an address of their own, by ID.
func (b *bridged) known() map[ruleset.EndpointID]*ruleset.Workload {
	out := map[ruleset.EndpointID]*ruleset.Workload{}
	for _, c := range b.claims {
		if c.workload != nil {
			out[c.workload.ID] = c.workload
		}
	}
	return out
}

// pairs returns the set of bridges with the addresses of workloads on them; nil if there are none of the family.
func (b *bridged) pairs(f ruleset.Family) *Set {
	return b.set("bridged", f, typesBridged, func(c claim) string { return ifaceKey(c.bridge) })
}

// addresses returns the set of the addresses of workloads on whatever bridge.
func (b *bridged) addresses(f ruleset.Family) *Set {
	return b.set("bridged-addresses", f, typesHosts, func(claim) string { return "" })
}

// sole returns the claims of addresses that are one workload's.
func (b *bridged) sole() *bridged {
	return &bridged{claims: slices.DeleteFunc(slices.Clone(b.claims), func(c claim) bool { return c.workload == nil })}
}

// own returns the set of ports with the addresses behind them.
func (b *bridged) own(f ruleset.Family) *Set {
	return b.sole().set("own", f, typesBridged, func(c claim) string { return ifaceKey(c.workload.Interface) })
}

// set returns a constant set with an element for each claim of the family: a prefix, then the address.
func (b *bridged) set(kind string, f ruleset.Family, types map[ruleset.Family]*SetType, prefix func(claim) string) *Set {
	elements := map[Element]struct{}{}
	for _, c := range b.claims {
		if ruleset.FamilyOf(c.addr) == f {
			elements[Element{Key: prefix(c) + string(c.addr.AsSlice())}] = struct{}{}
		}
	}
	if len(elements) == 0 {
		return nil
	}
	return constant(kind+familyDigit(f), types[f], slices.Collect(maps.Keys(elements)))
}

func familyDigit(f ruleset.Family) string {
	if f == ruleset.IPv6 {
		return "6"
	}
	return "4"
}

var (
	typesHosts   = map[ruleset.Family]*SetType{ruleset.IPv4: typeHosts4, ruleset.IPv6: typeHosts6}
	typesBridged = map[ruleset.Family]*SetType{ruleset.IPv4: typeIfaceAddr4, ruleset.IPv6: typeIfaceAddr6}
	typesToPod   = map[ruleset.Family]*SetType{ruleset.IPv4: typeByIfaceAddr4, ruleset.IPv6: typeByIfaceAddr6}
)

// far returns the end of a packet that is behind the interface of a way.
func (w way) far() side {
	if w.meta == wayIn().meta {
		return source
	}
	return destination
}

// ifFamily: the packet is of the family. nft(8) understands it from what follows.
func ifFamily(f ruleset.Family) condition {
	return condition{code: code{}.meta(unix.NFT_META_NFPROTO, regFirst).cmp(unix.NFT_CMP_EQ, []byte{nfproto(f)})}
}

// hasAddr: the address at an end of the packet is in a set.
func hasAddr(s side, f ruleset.Family, set *Set) condition {
	return condition{s.addr(f) + " @" + set.Name + " ", s.loadAddr(nil, f).lookup(set.Name, false), []*Set{set}}
}

// hasPair: interface and address at one end are in a set, or are not.
func hasPair(w way, f ruleset.Family, set *Set, not bool) condition {
	op := ""
	if not {
		op = "!= "
	}
	c := w.loadPair(w.far(), f).lookup(set.Name, not)
	return condition{w.name + " . " + w.far().addr(f) + " " + op + "@" + set.Name + " ", c, []*Set{set}}
}

// loadPair loads the name of an interface, and the address at an end into the registers after it.
func (w way) loadPair(s side, f ruleset.Family) code {
	offset, size := uint32(12), uint32(4)
	if f == ruleset.IPv6 {
		offset, size = 8, 16
	}
	if s == destination {
		offset += size
	}
	return code{}.meta(w.meta, regFirst).payload(unix.NFT_PAYLOAD_NETWORK_HEADER, offset, size, regNext)
}

// bothFamilies are those of addresses.
func bothFamilies() [2]ruleset.Family { return [2]ruleset.Family{ruleset.IPv4, ruleset.IPv6} }

// ifBridged returns the rules for packets from or to the address of a workload on the bridge that they pass.
func (b *bridged) ifBridged(w way, f func(condition) *Rule) []*Rule {
	var rules []*Rule
	for _, family := range bothFamilies() {
		if set := b.pairs(family); set != nil {
			rules = append(rules, f(ifFamily(family).and(hasPair(w, family, set, false))))
		}
	}
	return rules
}

// fromHost returns the rules that let this host send to the addresses of workloads on bridges.
func (b *bridged) fromHost() []*Rule {
	return b.ifBridged(wayOut(), func(c condition) *Rule { return c.then(exit{verdict: nfAccept}, "host to own workload") })
}

// passedOn returns the rules that let go what a bridge passes on from a workload. In postrouting that has no incoming interface, as
// what this host sends, but the workload's source.
func (b *bridged) passedOn() []*Rule {
	var rules []*Rule
	for _, f := range bothFamilies() {
		if set := b.pairs(f); set != nil {
			is := condition{"oifname . " + source.addr(f) + " @" + set.Name + " ", wayOut().loadPair(source, f).lookup(set.Name, false), []*Set{set}}
			rules = append(rules, ifFamily(f).and(is).then(exit{verdict: nfAccept}, "passed on by a bridge"))
		}
	}
	return rules
}

// ifPort returns the rule that denies what passes by a port itself: IP passes by the bridge.
func (b *bridged) ifPort(w way) []*Rule {
	if len(b.ports) == 0 {
		return nil
	}
	return []*Rule{isIn(w, b.ports).counted(exit{}, "unknown workload interface: a port of a bridge")}
}

// elsewhere returns the rules that deny what has the address of a workload on a bridge and does not pass by that bridge. An address
// that is not clearly one workload's is on none: neighbour discovery, which asks no workload, must not reach it either.
func (u *builder) elsewhere(w way, o owners) []*Rule {
	var rules []*Rule
	for _, family := range bothFamilies() {
		if all := o.bridged.addresses(family); all != nil {
			c := u.noWorkload(w, o).and(ifFamily(family)).and(hasAddr(w.far(), family, all))
			if pairs := o.bridged.sole().pairs(family); pairs != nil {
				c = c.and(hasPair(w, family, pairs, true))
			}
			rules = append(rules, c.counted(exit{}, "unknown workload interface: not that of the address"))
		}
	}
	return rules
}

// leadsBridged returns the rules that lead to a chain for each address on a bridge, KIND/BRIDGE/ADDRESS, and adds the maps and the
// chains, each with one rule.
func (u *builder) leadsBridged(kind string, dir ruleset.Direction, w way, o owners) []*Rule {
	var rules []*Rule
	for _, family := range bothFamilies() {
		elements := map[Element]struct{}{}
		for _, c := range o.bridged.claims {
			if c.workload == nil || ruleset.FamilyOf(c.addr) != family {
				continue
			}
			name := ident(kind, c.bridge, c.addr.String())
			elements[Element{Key: ifaceKey(c.bridge) + string(c.addr.AsSlice()), Verdict: jumpTo(name)}] = struct{}{}
			u.addChain(name, c.addr.String()+" on bridge "+c.bridge, jumpRule("goto", endpointChain(c.workload.ID, dir)))
		}
		if len(elements) == 0 {
			continue
		}
		m := u.fill("bridged-"+kind+familyDigit(family), typesToPod[family], elements)
		c := ifFamily(family)
		rules = append(rules, rule(w.name+" . "+w.far().addr(family)+" vmap @"+m.Name, "", append(c.code, w.loadPair(w.far(), family).vmap(m.Name)...), m))
	}
	return rules
}

// bridgeDiscovery returns the rules that let neighbours on a bridge find each other.
func (b *bridged) bridgeDiscovery() []*Rule {
	var rules []*Rule
	for _, name := range b.names {
		within := isIn(wayIn(), []string{name}).and(isIn(wayOut(), []string{name}))
		for _, types := range [][2]byte{{130, 136}, {143, 143}} { // ruleset: isDiscovery
			rules = append(rules, within.and(discovery(types[0], types[1])).counted(exit{verdict: nfAccept}, "neighbour discovery of a workload"))
		}
	}
	return rules
}
