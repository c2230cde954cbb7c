package nft

import (
	"testing"

	"pgregory.net/rapid"

	"margay/ruleset"
)

// While the table comes to judge where it does with IPVS, and while it ceases to, no packet that is on its way between two hooks
// gets by: whatever hooks it has passed, it is denied by those that it passed or those that follow.
func TestNoPacketIsBetweenPlaces(t *testing.T) {
	met := 0
	rapid.Check(t, func(t *rapid.T) {
		g := newGenerator(rapid.Uint64().Draw(t, "seed"))
		p := g.program()
		p.Settings.IPVS = true
		without := *p
		without.Settings.IPVS = false
		tables := []*Table{
			newImage(&without, defaultLimits).table, newImage(p, defaultLimits).table, leavingImage(&without, defaultLimits).table,
			newImage(&without, defaultLimits).table,
		}
		for range 40 {
			pkt := g.passing()
			for i, from := range tables[:3] {
				balanced := i == 1 && pkt.Balanced
				pkt := pkt
				pkt.Balanced = balanced
				want := ruleset.Eval(p, &pkt)
				if want.Allowed {
					continue
				}
				for hook := range 5 {
					m := from.machine(&pkt)
					m.next, m.switches = tables[i+1], hook
					if m.run(t) {
						t.Fatalf("packet %+v, before hook %d of the change %d: passed, want %+v\n%s\n%s", pkt, hook, i, want, from, tables[i+1])
					}
					met++
				}
			}
		}
	})
	if met == 0 {
		t.Error("no packet was to be denied")
	}
}

// The table ceases to judge as with IPVS in two transactions, whoever began it: an Apply, or a Resync of what another process left.
func TestLeavingIPVS(t *testing.T) {
	w := newNamespace(t)
	d := w.open(t)
	p := newGenerator(1).program()
	p.Settings.IPVS, p.Settings.Reject = true, true
	resync(t, d, p)
	for _, again := range []bool{false, true} {
		settings := p.Settings
		settings.IPVS = false
		before := d.Stats().Transactions
		p.Apply(&ruleset.Delta{Settings: &settings})
		if again {
			d.Close()
			d, before = w.open(t), 0
			resync(t, d, p)
		} else if err := d.Apply(t.Context(), &ruleset.Delta{Settings: &settings}); err != nil {
			t.Fatal(err)
		}
		if n := d.Stats().Transactions - before; n < 2 {
			t.Errorf("left by %d transactions", n)
		}
		checkKernel(t, d, p)
		settings.IPVS = true
		p.Apply(&ruleset.Delta{Settings: &settings})
		if err := d.Apply(t.Context(), &ruleset.Delta{Settings: &settings}); err != nil {
			t.Fatal(err)
		}
		checkKernel(t, d, p)
	}
}

// Tests of where the table judges.
const (
	byPlaces  = "TestNoPacketIsBetweenPlaces"
	byLeaving = "TestLeavingIPVS"
	byTable   = "TestTableIsEval"
)

// ipvsMutants are faults of what is other with IPVS, and of what is denied to services. The order of hooks, behindPriority, is a
// matter of test/kernel.
var ipvsMutants = []mutant{
	{file: "ipvs.go", old: "others.jump(balancedChain)", new: "others.and(ifInvalid()).jump(balancedChain)", caught: byTable},
	{file: "ipvs.go", old: "process.then(exit{verdict: unix.NFT_RETURN}, \"\"), ", new: "", caught: byTable},
	{file: "ipvs.go", old: "cmp(unix.NFT_CMP_NEQ, local)", new: "cmp(unix.NFT_CMP_EQ, local)", caught: byTable},
	{file: "ipvs.go", old: "if u.settings.IPVS {\n\t\treturn condition", new: "if false {\n\t\treturn condition", caught: byTable},
	{file: "ipvs.go", old: "ofKind(\"bridge\").then(goTo(passedOnChain), \"\")", new: "ofKind(\"bridge\").then(exit{verdict: nfAccept}, \"\")", caught: byTable},
	{file: "ipvs.go", old: "ofKind(\"bridge\").then(goTo(passedOnChain), \"\")", new: "always().then(goTo(passedOnChain), \"\")", caught: byTable},
	{file: "ipvs.go", old: "rules = append(u.sent(o), rules...)\n", new: "_ = o\n", caught: byTable},
	{file: "ipvs.go", old: "if rules = append(u.sent(o), rules...); len(rules) == 0 {", new: "if len(rules) == 0 {", caught: byTable},
	{file: "ipvs.go", old: "x = goTo(rejectChain)", new: "x = exit{verdict: nfAccept}", caught: byTable},
	{file: "ipvs.go", old: "range bothFamilies() {", new: "range []ruleset.Family{ruleset.IPv4} {", caught: byTable},
	{file: "ipvs.go", old: "netsTest(destination, nets)", new: "netsTest(source, nets)", caught: byTable},
	{file: "ipvs.go", old: "if !u.leaving {\n\t\t\trules = nil", new: "if true {\n\t\t\trules = nil", caught: byPlaces},
	{file: "ipvs.go", old: "if !u.leaving {\n\t\t\trules = []*Rule{ofKind", new: "if true {\n\t\t\trules = []*Rule{ofKind", caught: byPlaces},
	{file: "ipvs.go", old: "q.Settings.IPVS = true\n", new: "", caught: byPlaces},
	{file: "ipvs.go", old: "if u.settings.IPVS {\n\t\treturn exit{}", new: "if false {\n\t\treturn exit{}", caught: byLeaving}, // the kernel refuses
	{file: "hooks.go", old: "u.noService(), u.forwardOut(o)", new: "u.forwardOut(o)", caught: byTable},
	{file: "hooks.go", old: "wayIn().exists().then(goTo(passedOnChain), \"\")", new: "wayIn().exists().and(ifTranslated()).then(goTo(passedOnChain), \"\")", caught: byTable},
	{file: "nft.go", old: "&& im.program.Settings.IPVS && !delta.Settings.IPVS {", new: "&& false {", caught: byLeaving},
	{file: "nft.go", old: "want = leavingImage(p, d.limits)\n", new: "_ = leavingImage\n", caught: byLeaving},
}
