package nft

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"testing"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
	"pgregory.net/rapid"

	"margay/lab"
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
				pkt.Balanced, pkt.Own = balanced, false
				want := ruleset.Eval(p, &pkt)
				if want.Allowed || !balanced && ruleset.Eval(&without, &pkt).Allowed {
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
	byKernel  = "TestTheKernelSendsWithIPVS"
)

// ipvsMutants are faults of what is other with IPVS, and of what is denied to services. The order of hooks, behindPriority, is a
// matter of test/kernel.
var ipvsMutants = []mutant{
	{file: "ipvs.go", old: "ofOthers(fibSource).jump(balancedChain)", new: "ofOthers(fibSource).and(ifInvalid()).jump(balancedChain)", caught: byTable},
	{file: "ipvs.go", old: "process.then(exit{verdict: unix.NFT_RETURN}, \"\")", new: "process.then(exit{verdict: nfAccept}, \"\")", caught: byTable},
	{file: "ipvs.go", old: "hostCondition(\"!= \", unix.NFT_CMP_NEQ, end)", new: "hostCondition(\"!= \", unix.NFT_CMP_EQ, end)", caught: byTable},
	{file: "ipvs.go", old: "if u.settings.IPVS {\n\t\treturn condition", new: "if false {\n\t\treturn condition", caught: byTable},
	{file: "ipvs.go", old: "ofKind(\"bridge\").then(goTo(passedOnChain), \"\")", new: "ofKind(\"bridge\").then(exit{verdict: nfAccept}, \"\")", caught: byTable},
	{file: "ipvs.go", old: "ofKind(\"bridge\").then(goTo(passedOnChain), \"\")", new: "always().then(goTo(passedOnChain), \"\")", caught: byTable},
	{file: "ipvs.go", old: "rules = append(u.sent(o), rules...)\n", new: "_ = o\n", caught: byTable},
	{file: "ipvs.go", old: "slices.Concat(u.sent(o), fromNobody(), rules)", new: "slices.Concat(fromNobody(), rules)", caught: byTable},
	{file: "ipvs.go", old: "rules := []*Rule{outside.and(ofHost(fibSource)).counted(exit{}, ownRemark)}", new: "var rules []*Rule", caught: byTable},
	{file: "ipvs.go", old: "rules = append(rules, outside.and(none).counted(exit{}, ownRemark))\n", new: "_ = none\n", caught: byTable},
	{file: "ipvs.go", old: "rules = append(rules, none.then(goTo(passedOnChain), \"\"))\n", new: "_ = none\n", caught: byTable},
	{file: "ipvs.go", old: ".and(ofHost(fibDestination))", new: "", caught: byTable},
	{file: "ipvs.go", old: ", ofHost(fibSource).then(goTo(passedOnChain), \"\")", new: "", caught: byTable},
	{file: "ipvs.go", old: "wayIn().exists().and(none)", new: "none", caught: byTable},
	{file: "ipvs.go", old: "x = goTo(rejectChain)", new: "x = exit{verdict: nfAccept}", caught: byTable},
	{file: "ipvs.go", old: "range bothFamilies() {", new: "range []ruleset.Family{ruleset.IPv4} {", caught: byTable},
	{file: "ipvs.go", old: "netsTest(destination, nets)", new: "netsTest(source, nets)", caught: byTable},
	{file: "ipvs.go", old: "if !u.leaving {\n\t\t\trules = nil", new: "if true {\n\t\t\trules = nil", caught: byPlaces},
	{file: "ipvs.go", old: "if !u.leaving {\n\t\t\trules = []*Rule{ofKind", new: "if true {\n\t\t\trules = []*Rule{ofKind", caught: byPlaces},
	{file: "ipvs.go", old: "q.Settings.IPVS = true\n", new: "", caught: byPlaces},
	{file: "ipvs.go", old: "if u.settings.IPVS {\n\t\treturn exit{}", new: "if false {\n\t\treturn exit{}", caught: byLeaving}, // the kernel refuses
	{file: "ipvs.go", old: "wayIn().exists().and(ofOthers(fibSource)).then(goTo", new: "wayIn().exists().then(goTo", caught: byKernel},
	{file: "hooks.go", old: "u.noService(), u.forwardOut(o)", new: "u.forwardOut(o)", caught: byTable},
	{file: "ipvs.go", old: "wayIn().exists().and(ofOthers(fibSource)).then(goTo", new: "wayIn().exists().and(ifTranslated()).then(goTo", caught: byTable},
	{file: "nft.go", old: "&& im.program.Settings.IPVS && !delta.Settings.IPVS {", new: "&& false {", caught: byLeaving},
	{file: "nft.go", old: "want = leavingImage(p, d.limits)\n", new: "_ = leavingImage\n", caught: byLeaving},
}

// With IPVS, what the kernel itself sends is not taken for what is passed on, though some of it looks so in postrouting: without
// neighbour discovery there is no IPv6, and without what is outside a tunnel there is nothing inside.
func TestTheKernelSendsWithIPVS(t *testing.T) {
	l, err := lab.New()
	must(t, err)
	t.Cleanup(l.Close)
	var hosts []*lab.Host
	reached := map[string]bool{"[fd00::2]:80": true, "10.0.0.2:80": true}
	for i, name := range []string{"a", "b"} {
		number := fmt.Sprint(i + 1)
		h, err := l.Host(name, netip.MustParsePrefix("10.0.0."+number+"/24"), netip.MustParsePrefix("fd00::"+number+"/64"))
		must(t, err)
		hosts = append(hosts, h)
		err = h.Do(func() error { return addTunnel(net.ParseIP("10.0.0."+number), net.ParseIP("10.0.0."+fmt.Sprint(2-i))) })
		if errors.Is(err, unix.EOPNOTSUPP) {
			t.Log("this kernel has no VXLAN")
		} else {
			must(t, err)
			must(t, h.AddAddress("vx0", netip.MustParsePrefix("10.9.0."+number+"/24")))
			reached["10.9.0.2:80"] = true
		}
		ln, err := h.Listen("tcp", ":80")
		must(t, err)
		t.Cleanup(func() { ln.Close() })
	}
	d, err := Open(Options{NetNS: hosts[0].NetNS()})
	must(t, err)
	t.Cleanup(func() { d.Close() })
	open := ruleset.Rule{Action: ruleset.Allow}
	p := programOf([]*ruleset.Endpoint{hostEndpoint("all", ruleset.AllInterfaces)}, policyOf("deny", ruleset.Rule{}))
	for _, policy := range p.Policies {
		policy.Egress = policy.Ingress
	}
	for _, ep := range p.Endpoints {
		ep.Normal, ep.Forward = ruleset.Walk{}, ruleset.Walk{Ingress: ep.Normal.Ingress, Egress: ep.Normal.Ingress}
		ep.Profiles = []string{"open"}
	}
	p.Profiles["open"] = &ruleset.Profile{Name: "open", Ingress: []ruleset.Rule{open}, Egress: []ruleset.Rule{open}}
	p.Settings.IPVS = true
	resync(t, d, p)
	for addr := range reached {
		if err := reaches(&hosts[0].Machine, addr); err != nil {
			t.Errorf("%s: %v\n%s", addr, err, d.image.table)
		}
	}
}

// addTunnel adds vx0, a tunnel of VXLAN, in the namespace at hand.
func addTunnel(from, to net.IP) error {
	link := &netlink.Vxlan{LinkAttrs: netlink.LinkAttrs{Name: "vx0"}, VxlanId: 7, Port: 4789, SrcAddr: from, Group: to}
	if err := netlink.LinkAdd(link); err != nil {
		return fmt.Errorf("add tunnel: %w", err)
	}
	return netlink.LinkSetUp(link)
}
