package nft

// Tests that compare what bridges pass on with Eval.
const (
	byBridges = "TestBridgeVerdictsAreEvals"
	byFrames  = "TestWhatPortsCarry"
)

// bridgeMutants are faults of the compiler for workloads on bridges, of which the others know nothing.
var bridgeMutants = []mutant{
	// What an address means.
	{file: "bridge.go", old: "if count[a] == 1 && isPort {", new: "if isPort {", caught: byFrames},
	{file: "bridge.go", old: "if isPort && !w.Filtered {", new: "if isPort && w.Filtered {", caught: byFrames},
	{file: "bridge.go", old: "if s == destination {\n\t\toffset += size", new: "if s == source {\n\t\toffset += size", caught: byBridges},
	{file: "bridge.go", old: "pairs := o.bridged.sole().pairs(family)", new: "pairs := o.bridged.pairs(family)", caught: byFrames},
	{file: "bridge.go", old: "c = c.and(hasPair(w, family, pairs, true))", new: "c = c.and(hasPair(w, family, pairs, false))", caught: byBridges},
	{file: "bridge.go", old: "return []*Rule{isIn(w, b.ports).counted(exit{}, \"unknown workload interface: a port of a bridge\")}", new: "return nil", caught: byFrames},
	{file: "bridge.go", old: "rules = append(rules, ifFamily(f).and(is).then(exit{verdict: nfAccept}, \"passed on by a bridge\"))", new: "_ = is", caught: byBridges},
	{file: "bridge.go", old: "jumpRule(\"goto\", endpointChain(c.workload.ID, dir))", new: "jumpRule(\"goto\", endpointChain(c.workload.ID, 1-dir))", caught: byBridges},

	// What a port carries.
	{file: "bridge_table.go", old: "rules := u.strangers(wayIn())", new: "var rules []*Rule", caught: byBridges},
	{file: "bridge_table.go", old: "rules := u.strangers(wayOut())", new: "var rules []*Rule", caught: byBridges},
	{file: "bridge_table.go", old: "rules = append(rules, ifIP(f).and(hasAddr(source, f, all)).counted(exit{}, why))\n", new: "", caught: byBridges},
	{file: "bridge_table.go", old: "rules = append(rules, ifARP().and(is).counted(exit{}, why))\n", new: "_ = is\n", caught: byFrames},
	{file: "bridge_table.go", old: "rules = append(rules, ifIP(f).and(ifDiscovers(136, 136)).and(is).counted(exit{}, why))\n", new: "_ = is\n", caught: byFrames},
	{file: "bridge_table.go", old: "NETWORK_HEADER, 14, 4, reg)", new: "NETWORK_HEADER, 24, 4, reg)", caught: byFrames}, // of ARP the target
	{file: "bridge_table.go", old: "rules = []*Rule{ifIP(ruleset.IPv6).and(ifDiscovers(136, 136)).then(goTo(advertChain), \"\")}", new: "rules = nil", caught: byFrames},
	{file: "bridge_table.go", old: "{130, 133}, {135, 135}, {143, 143}", new: "{130, 135}, {143, 143}", caught: byFrames},
	{file: "bridge_table.go", old: "c, []*Set{own}}).then(goTo(linkSourceChain), \"\"))", new: "c, []*Set{own}}).then(exit{verdict: nfAccept}, \"\"))", caught: byFrames},
	{file: "bridge_table.go", old: ", isIn(wayOut(), u.closed).then(between, \"\")", new: "", caught: byBridges},
	{file: "bridge_table.go", old: "ifIP(f).and(hasPair(wayOut(), f, own, false))", new: "ifIP(f).and(hasAddr(destination, f, u.addresses(f)))", caught: byBridges},
	{file: "bridge_table.go", old: "rules = append(rules, ifIP(f).and(hasAddr(destination, f, all)).counted(exit{}, \"address of a workload behind another port\"))", new: "_ = all", caught: byBridges},
}
