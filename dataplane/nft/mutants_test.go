package nft

import (
	"bytes"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// A mutant is the package with one fault: in a file, text that is there once is something else.
type mutant struct {
	file, old, new string
	// caught is the test that must fail; "": TestVerdictsAreEvals, which sees nothing but packets.
	caught string
}

// Tests that catch what no verdict depends on, or only for a moment.
const (
	byTransition = "TestNoPacketMeetsAMix"
	byReject     = "TestReject"
	byLogRate    = "TestLogRate"
	byComeAndGo  = "TestEndpointsComeAndGo"
	byLoopback   = "TestLoopbackUntracked"
)

// mutants are faults that a compiler like this may have. What a fault is, is said only where the text does not show it.
var mutants = []mutant{
	// Conditions.
	{file: "base.go", old: "ctState(ctEstablished | ctRelated)", new: "ctState(ctEstablished)"},
	{file: "base.go", old: "ctState(ctEstablished | ctRelated)", new: "ctState(ctRelated)"},
	{file: "base.go", old: "ctState(ctInvalid)", new: "ctState(ctRelated)"},
	{file: "base.go", old: "ctStatus(ctStatusDNAT)", new: "ctStatus(ctStatusDNAT >> 1)"},
	{file: "expr.go", old: "return c.ctBits(unix.NFT_CT_STATUS, bits)", // the whole word
		new: `d := attrU32(attrU32(nil, unix.NFTA_CT_DREG, regFirst), unix.NFTA_CT_KEY, unix.NFT_CT_STATUS)
	return c.expr("ct", d).cmp(unix.NFT_CMP_EQ, binary.NativeEndian.AppendUint32(nil, bits))`},
	{file: "base.go", old: "meta(w.metaIndex, regFirst).cmp(unix.NFT_CMP_NEQ", new: "meta(w.metaIndex, regFirst).cmp(unix.NFT_CMP_EQ"},
	{file: "base.go", old: "cmp(unix.NFT_CMP_EQ, []byte(prefix))", new: "cmp(unix.NFT_CMP_EQ, []byte(ifaceKey(prefix)))"},
	{file: "base.go", old: "cmp(unix.NFT_CMP_NEQ, []byte(prefix))", new: "cmp(unix.NFT_CMP_NEQ, []byte(ifaceKey(prefix)))"},
	{file: "base.go", old: "lookup(set, true)", new: "lookup(set, false)"},
	{file: "base.go", old: "cmp(unix.NFT_CMP_NEQ, []byte(ifaceKey(names[0])))", new: "cmp(unix.NFT_CMP_EQ, []byte(ifaceKey(names[0])))"},

	// Hooks.
	{file: "hooks.go", old: "priority    = -10", new: "priority    = -150"}, // before destination NAT
	{file: "hooks.go", old: "rawPriority = -300", new: "rawPriority = -190"},
	{file: "hooks.go", old: "rules := []*Rule{u.noWorkload(wayIn()).and(ifKnown())", new: "rules := []*Rule{ifKnown()"},
	{file: "hooks.go", old: "u.noWorkload(wayIn()).and(u.noWorkload(wayOut())).and(ifKnown())", new: "u.noWorkload(wayIn()).and(ifKnown())"},
	{file: "hooks.go", old: "u.noWorkload(wayIn()).and(u.noWorkload(wayOut())).and(ifKnown())", new: "u.noWorkload(wayOut()).and(ifKnown())"},
	{file: "hooks.go", old: "rules = append(rules, u.strangers(wayIn(), o)...)\n", new: ""},
	{file: "hooks.go", old: "rules = append(rules, u.strangers(wayOut(), o)...)\n", new: ""},
	{file: "hooks.go", old: "rules = append(rules, u.sources(o), ifKnown()", new: "u.sources(o)\n\t\trules = append(rules, ifKnown()"},
	{file: "hooks.go", old: "stations := append(u.forwardIn(o), u.forwardOut(o)...)", new: "stations := u.forwardIn(o)"},
	{file: "hooks.go", old: "stations := append(u.forwardIn(o), u.forwardOut(o)...)", new: "stations := u.forwardOut(o)"},
	{file: "hooks.go", old: "u.isNotIn(wayIn(), slices.Sorted(maps.Keys(o.named))).jump(", new: "always().jump("},
	{file: "hooks.go", old: "if len(o.endpoints()) > 0 {\n\t\trules = append(rules, ifTranslated()", new: "if len(o.endpoints()) < 0 {\n\t\trules = append(rules, ifTranslated()"},
	{file: "hooks.go", old: "if len(o.endpoints()) == 0 {\n\t\treturn", new: "if true {\n\t\treturn"},
	{file: "hooks.go", old: "wayIn().exists().then(exit{verdict: nfAccept}, \"passed on by this host\"),\n", new: ""},
	{file: "hooks.go", old: "return c.then(exit{verdict: nfAccept}, \"host to own workload\")", new: "return c.then(exit{}, \"host to own workload\")"},
	{file: "hooks.go", old: "notrack().verdict(nfAccept, \"\")", new: "verdict(nfAccept, \"\")"},
	{file: "hooks.go", old: "if u.hasEarly(o.all) {", new: "if false {"},
	{file: "hooks.go", old: "if name == loopback {", new: "if false {", caught: byLoopback},

	// Stages of host endpoints.
	{file: "host.go", old: "return policies || !u.settings.AcceptInvalid", new: "return policies"},
	{file: "host.go", old: "return policies && !isAll(ep)", new: "return policies"},
	{file: "host.go", old: "if u.hasEarly(ep) {\n\t\trules", new: "if false {\n\t\trules"},
	{file: "host.go", old: "return views(ep, \"forward\", \"pre-dnat\")", new: "return []*Rule{jumpRule(\"goto\", endpointChain(ep.ID, ruleset.Ingress, \"forward\", \"pre-dnat\"))}"},
	{file: "host.go", old: "p.early(ep)\n\t\tp.beforeDNAT = true", new: "p.early(ep)"},
	{file: "host.go", old: "if p.settings.AcceptInvalid {\n\t\treturn nil", new: "if !p.settings.AcceptInvalid {\n\t\treturn nil"},
	{file: "host.go", old: "p.failsafes(p.dir, p.to(), exit{verdict: nfAccept})", new: "p.failsafes(1-p.dir, p.to(), exit{verdict: nfAccept})"},
	{file: "host.go", old: "p.failsafes(p.dir, p.to(), exit{verdict: nfAccept})", new: "p.failsafes(p.dir, source, exit{verdict: nfAccept})"},
	{file: "host.go", old: "p.flatten(ruleset.Normal, &ep.Normal, p.dir), p.profiles(ep.Profiles, p.dir))", new: "p.flatten(ruleset.Normal, &ep.Normal, p.dir), p.profiles(nil, p.dir))"},
	{file: "host.go", old: "p.flatten(ruleset.Forward, &ep.Forward, p.dir)", new: "p.flatten(ruleset.Forward, &ep.Normal, p.dir)"},
	{file: "host.go", old: "exits{accept: goTo(untrackChain), next: back}", new: "exits{accept: exit{verdict: nfAccept}, next: back}"},
	{file: "host.go", old: "exits{accept: goTo(untrackChain), next: back}", new: "exits{accept: goTo(untrackChain), next: goTo(untrackChain)}"},
	{file: "host.go", old: ", p.failsafes(1-p.dir, source, x)...)", new: ")"},
	{file: "host.go", old: "p.failsafes(1-p.dir, source, x)", new: "p.failsafes(p.dir, source, x)"},
	{file: "host.go", old: "append(p.checkValid(), p.failsafes(p.dir, p.to(), x[next])...)", new: "append(p.checkValid(), p.failsafes(p.dir, p.to(), x[accept])...)"},
	{file: "host.go", old: "append(p.checkValid(), p.failsafes(p.dir, p.to(), x[next])...)", new: "p.failsafes(p.dir, p.to(), x[next])"},
	{file: "host.go", old: "p.untracked(ep, path(\"untracked\"), exits{accept: accepted,", new: "p.untracked(ep, path(\"untracked\"), exits{accept: back,"},
	{file: "host.go", old: "p.preDNAT(ep, path(\"pre-dnat\"), exits{accept: accepted,", new: "p.preDNAT(ep, path(\"pre-dnat\"), exits{accept: back,"},
	{file: "host.go", old: "exits{accept: back, next: back}", new: "exits{accept: accepted, next: back}"},
	{file: "host.go", old: "path(\"forward\", \"pre-dnat\"), exits{accept: back,", new: "path(\"forward\", \"pre-dnat\"), exits{accept: after,"},
	{file: "host.go", old: "path(\"forward\", \"untracked\"), exits{accept: back,", new: "path(\"forward\", \"untracked\"), exits{accept: after,"},
	{file: "host.go", old: "path(\"forward\", \"untracked\"), exits{accept: back,", new: "path(\"forward\", \"untracked\"), exits{accept: accepted,"},
	{file: "host.go", old: "after = goTo(p.chain(\"forward\"))", new: "after = back"},
	{file: "host.go", old: "p.flatten(ruleset.Untracked, &ep.Untracked, p.dir), x)", new: "nil, x)"}, // allowed is forgotten
	{file: "host.go", old: "exits{accept: exit{verdict: nfAccept}, next: goTo(p.chain())}", new: "exits{accept: goTo(p.chain()), next: goTo(p.chain())}"},
	{file: "host.go", old: "if p.dir == ruleset.Egress {\n\t\tpeer = p.to()", new: "if false {\n\t\tpeer = p.to()"},
	{file: "host.go", old: "x[deny] = p.denial()\n", new: "", caught: byReject},

	// Workloads.
	{file: "workload.go", old: "rules := append(u.strangers(wayIn(), o), u.sources(o),", new: "u.sources(o)\n\trules := append(u.strangers(wayIn(), o),"},
	{file: "workload.go", old: "rules := append(u.strangers(wayIn(), o), u.sources(o),", new: "rules := append([]*Rule{}, u.sources(o),"},
	{file: "workload.go", old: "rules = append(rules, always().jump(guestsChain+\"-early\"))\n", new: ""},
	{file: "workload.go", old: "{130, 133}, {135, 136}", new: "{130, 136}"},
	{file: "workload.go", old: "{130, 133}, {135, 136}", new: "{130, 132}, {135, 136}"},
	{file: "workload.go", old: "{130, 133}, {135, 136}", new: "{130, 133}, {135, 137}"},
	{file: "workload.go", old: "if u.settings.AllowSpoofing {", new: "if true {"},
	{file: "workload.go", old: "own = append(own, link)\n", new: ""},
	{file: "workload.go", old: "u.spoofed(probe.only(protocolsOf(ruleset.ICMPv6).not())), u.spoofed(probe.with(near))", new: "u.spoofed(probe.with(near))"},
	{file: "workload.go", old: "rules := u.notFrom(ruleset.IPv4, own)", new: "var rules []*Rule"},
	{file: "workload.go", old: "case len(disjoint) > 0 && disjoint[0].Bits() == 0:\n\t\treturn nil", new: "case len(disjoint) > 0 && disjoint[0].Bits() == 0:"},
	{file: "workload.go", old: "exit{}\n\tif u.settings.EndpointToHost != ruleset.HostDrop", new: "exit{}\n\tif u.settings.EndpointToHost == ruleset.HostAccept"},
	{file: "workload.go", old: "wayOut().exists().then(goTo(arrivesChain), \"\"),", new: "wayOut().exists().then(accepted, \"\"),"},
	{file: "workload.go", old: "jumpRule(\"goto\", p.chain()))", new: "jumpRule(\"goto\", endpointChain(w.ID, ruleset.Egress)))"},
	{file: "workload.go", old: "return append(rules, jumpRule(\"goto\", arrivesChain))", new: "return rules"},
	{file: "workload.go", old: "p.profiles(w.Profiles, dir)", new: "p.profiles(w.Profiles, 1-dir)"},
	{file: "workload.go", old: "if !p.settings.AllowVXLAN {", new: "if p.settings.AllowVXLAN {"},
	{file: "workload.go", old: "if !p.settings.AllowIPIP {", new: "if false {"},
	{file: "workload.go", old: "ports: ruleset.PortRange{First: 4789, Last: 4789}", new: "ports: ruleset.PortRange{First: 4788, Last: 4788}"},

	// Walks.
	{file: "flatten.go", old: "s == ruleset.PreDNAT || s == ruleset.Untracked", new: "s == ruleset.PreDNAT"},
	{file: "flatten.go", old: "s == ruleset.PreDNAT || s == ruleset.Untracked", new: "s == ruleset.Untracked"},
	{file: "flatten.go", old: "policy == nil || policy.Staged", new: "policy == nil"},
	{file: "flatten.go", old: "default: // Pass means nothing in a profile\n\t\t\t\tcontinue", new: "default:"},
	{file: "flatten.go", old: "return lines[:i+1]", new: "return lines[:i]"},
	{file: "compile.go", old: "called[next] = back", new: "called[next] = x[accept]"},
	{file: "compile.go", old: "x[next] = goTo(p.stage(at, s, x))", new: "first := p.stage(at, s, x)\n\t\t\tdefer func() { _ = first }()\n\t\t\tx[next] = goTo(first)\n\t\t\tx[accept] = x[next]"},

	// Rules.
	{file: "match.go", old: "return c.ctOriginal(unix.NFT_CT_DST_IP, regFirst)", new: "return destination.loadAddr(c, f)"},
	{file: "match.go", old: "return c.ctOriginal(unix.NFT_CT_DST_IP6, regFirst)", new: "return destination.loadAddr(c, f)"},
	{file: "match.go", old: "return c.ctOriginal(unix.NFT_CT_PROTO_DST, reg)", new: "return destination.loadPort(c, reg)"},
	{file: "match.go", old: "cmp(unix.NFT_CMP_GTE, first).cmp(unix.NFT_CMP_LTE, last)\n}\n\n// loadAddr", new: "cmp(unix.NFT_CMP_GT, first).cmp(unix.NFT_CMP_LTE, last)\n}\n\n// loadAddr"},
	{file: "match.go", old: "if !t.prefix.IsSingleIP() {\n\t\t\tc = c.mask", new: "if false {\n\t\t\tc = c.mask"},
	{file: "variants.go", old: "return []variant{v.only(portProtocols.not()), without(v.only(portProtocols), tests)}", new: "return []variant{without(v.only(portProtocols), tests)}"},
	{file: "variants.go", old: "v.only(icmpOf(v.family).not()),\n", new: ""},
	{file: "variants.go", old: "if !x.holds(id, ruleset.Addrs) {\n\t\t\t\treturn nil", new: "if !x.holds(id, ruleset.Addrs) {\n\t\t\t\treturn []variant{v}"},
	{file: "variants.go", old: "case len(disjoint) == 0:\n\t\treturn nil", new: "case len(disjoint) == 0:\n\t\treturn []variant{v}"},
	{file: "variants.go", old: "protos = protos.and(protocolsOf(r.NotProtocol).not())", new: ""},

	// Changes.
	{file: "image.go", old: "hasKey(d.Endpoints, key.id) || hasKey(d.Workloads, key.id) ||", new: "hasKey(d.Endpoints, key.id) ||"},
	{file: "image.go", old: "key.base && len(d.Endpoints)+len(d.Workloads) > 0", new: "key.base && len(d.Endpoints) > 0"},
	{file: "image.go", old: "maps.Copy(im.program.Workloads, p.Workloads)\n", new: ""},
	{file: "nft.go", old: "stage := len(changes) > 0 &&", new: "stage := false && len(changes) > 0 &&", caught: byTransition},
	{file: "nft.go", old: "sweep := slices.ContainsFunc(changes, Change.endsDispatch)", new: "sweep := false", caught: byComeAndGo},
	{file: "exits.go", old: "code{}.limit(uint64(rate.Packets), seconds, burst).log(", new: "code{}.limit(uint64(rate.Packets), seconds, burst<<10).log(", caught: byLogRate},
	{file: "exits.go", old: "if u.settings.Reject {\n\t\treturn goTo", new: "if false {\n\t\treturn goTo", caught: byReject},
}

// Every mutant is caught. make mutants runs this: a build and a test for each.
func TestMutants(t *testing.T) {
	if os.Getenv("MARGAY_MUTANTS") == "" {
		t.Skip("make mutants runs this")
	}
	for _, m := range mutants {
		t.Run(m.file+" "+strings.Fields(m.old)[0], func(t *testing.T) {
			t.Parallel()
			m.run(t)
		})
	}
}

func (m *mutant) run(t *testing.T) {
	what := m.file + ": " + m.old + "\n-> " + m.new
	binary := m.build(t, what)
	test := m.caught
	if test == "" {
		test = "TestVerdictsAreEvals"
	}
	steps := "4000" // until a packet is where a fault shows
	if test == byTransition {
		steps = "800"
	}
	cmd := exec.Command(binary, "-test.run", "^"+test+"$", "-test.timeout", "5m")
	cmd.Env = append(os.Environ(), "MARGAY_SEED=1", "MARGAY_STEPS="+steps, "MARGAY_MUTANTS=")
	out, err := cmd.CombinedOutput()
	if err == nil {
		t.Errorf("not caught by %s: %s", test, what)
	} else if !bytes.Contains(out, []byte("FAIL")) {
		t.Errorf("%s: %v\n%s", what, err, out)
	}
}

// build returns the test binary of the mutant.
func (m *mutant) build(t *testing.T, what string) string {
	source, err := os.ReadFile(m.file)
	if err != nil {
		t.Fatal(err)
	}
	if n := strings.Count(string(source), m.old); n != 1 {
		t.Fatalf("the text is there %d times: %s", n, what)
	}
	dir := t.TempDir()
	here, err := filepath.Abs(m.file)
	if err != nil {
		t.Fatal(err)
	}
	mutated, overlay, binary := filepath.Join(dir, m.file), filepath.Join(dir, "overlay.json"), filepath.Join(dir, "mutant.test")
	list, err := json.Marshal(map[string]map[string]string{"Replace": {here: mutated}})
	if err != nil {
		t.Fatal(err)
	}
	for name, content := range map[string]string{mutated: strings.Replace(string(source), m.old, m.new, 1), overlay: string(list)} {
		if err := os.WriteFile(name, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if out, err := exec.Command("go", "test", "-c", "-o", binary, "-overlay", overlay, ".").CombinedOutput(); err != nil {
		t.Fatalf("does not compile: %s\n%s", what, out)
	}
	return binary
}
