package nft

import (
	"bytes"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// A mutant is the package with one fault: in a file, text that is there once is something else.
type mutant struct {
	file, old, new string
	// caught is the test that must fail; "": one of those that compare with Eval, first without the kernel.
	caught string
}

// Tests that catch what no verdict depends on, or only for a moment.
const (
	byTransition = "TestNoPacketMeetsAMix"
	byReject     = "TestReject"
	byLogRate    = "TestLogRate"
	byComeAndGo  = "TestEndpointsComeAndGo"
	byLoopback   = "TestLoopbackUntracked"
	byImage      = "TestImageFollows"
	byRules      = "TestRulesAreEval"
	byGuards     = "TestGuardsKeepTheirOrder"
	byAllowed    = "TestAllowedStaysAllowed"
	byMix        = "TestNoLookUpMeetsAMix"
	byDenied     = "TestDeniedStaysDenied"
	byBounds     = "TestTableIsBounded"
	byListing    = "TestListing"
	byCounters   = "TestCounters"
	byGroups     = "TestAllowedByAnotherGroup"
	byOnce       = "TestElementsChangeAtOnce"
	byExits      = "TestStageFollowsItsExits"
	byShared     = "TestSharedChainsFollow"
	byFew        = "TestFewRulesFollow"
	byCopies     = "TestCopiesFollowTheirUses"
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
	{file: "base.go", old: "lookup(set.Name, true)", new: "lookup(set.Name, false)"},
	{file: "base.go", old: "cmp(unix.NFT_CMP_NEQ, []byte(ifaceKey(names[0])))", new: "cmp(unix.NFT_CMP_EQ, []byte(ifaceKey(names[0])))"},

	// Hooks.
	{file: "hooks.go", old: "priority    = -10", new: "priority    = -150"}, // before destination NAT
	{file: "hooks.go", old: "rawPriority = -300", new: "rawPriority = -190"},
	{file: "hooks.go", old: "rules := []*Rule{u.noWorkload(wayIn(), o).and(ifKnown())", new: "rules := []*Rule{ifKnown()"},
	{file: "hooks.go", old: "u.noWorkload(wayIn(), o).and(u.noWorkload(wayOut(), o)).and(ifKnown())", new: "u.noWorkload(wayIn(), o).and(ifKnown())"},
	{file: "hooks.go", old: "u.noWorkload(wayIn(), o).and(u.noWorkload(wayOut(), o)).and(ifKnown())", new: "u.noWorkload(wayOut(), o).and(ifKnown())"},
	{file: "hooks.go", old: "rules = append(rules, u.strangers(wayIn(), o)...)\n", new: ""},
	{file: "hooks.go", old: "rules = append(rules, u.strangers(wayOut(), o)...)\n", new: ""},
	{file: "hooks.go", old: "rules = append(rules, u.sent(o)...)\n", new: "_ = u.sent(o)\n"},
	{file: "hooks.go", old: "slices.Concat(u.forwardIn(o), u.noService(), u.forwardOut(o))", new: "slices.Concat(u.forwardIn(o), u.noService())"},
	{file: "hooks.go", old: "slices.Concat(u.forwardIn(o), u.noService(), u.forwardOut(o))", new: "slices.Concat(u.noService(), u.forwardOut(o))"},
	{file: "hooks.go", old: "isNotIn(wayIn(), slices.Sorted(maps.Keys(o.named))).jump(", new: "always().jump("},
	{file: "hooks.go", old: "if len(o.endpoints()) > 0 {\n\t\trules = append(rules, ifTranslated().then(exit", new: "if len(o.endpoints()) < 0 {\n\t\trules = append(rules, ifTranslated().then(exit"},
	{file: "hooks.go", old: "rules = append(rules, ifTranslated().then(goTo(redirectsChain), \"\"))\n", new: ""},
	{file: "hooks.go", old: "wayIn().exists().then(exit{verdict: nfAccept}, \"passed on by this host\"),\n", new: ""},
	{file: "hooks.go", old: "return c.then(exit{verdict: nfAccept}, \"host to own workload\")", new: "return c.then(exit{}, \"host to own workload\")"},
	{file: "hooks.go", old: "notrack().verdict(nfAccept, \"\")", new: "verdict(nfAccept, \"\")"},
	{file: "hooks.go", old: "if u.hasEarly(o.all) {", new: "if false {"},
	{file: "hooks.go", old: "if name == loopback {", new: "if false {", caught: byLoopback},

	// Stages of host endpoints.
	{file: "host.go", old: "return policies || !u.settings.AcceptInvalid", new: "return policies"},
	{file: "host.go", old: "return policies && !isAll(ep)", new: "return policies"},
	{file: "host.go", old: "if u.hasEarly(ep) {\n\t\trules", new: "if false {\n\t\trules"},
	{file: "host.go", old: "return u.views(ep, \"forward\", \"pre-dnat\")", new: "return []*Rule{jumpRule(\"goto\", endpointChain(ep.ID, ruleset.Ingress, \"forward\", \"pre-dnat\"))}"},
	{file: "host.go", old: "p.early(ep)\n\t\tp.beforeDNAT = true", new: "p.early(ep)"},
	{file: "host.go", old: "if p.settings.AcceptInvalid {\n\t\treturn nil", new: "if !p.settings.AcceptInvalid {\n\t\treturn nil"},
	{file: "host.go", old: "p.failsafes(p.dir, p.to(), accepted)", new: "p.failsafes(1-p.dir, p.to(), accepted)"},
	{file: "host.go", old: "p.failsafes(p.dir, p.to(), accepted)", new: "p.failsafes(p.dir, source, accepted)"},
	{file: "host.go", old: "p.flatten(ruleset.Normal, &ep.Normal, p.dir), p.profiles(ep.Profiles, p.dir))", new: "p.flatten(ruleset.Normal, &ep.Normal, p.dir), p.profiles(nil, p.dir))"},
	{file: "host.go", old: "p.flatten(ruleset.Forward, &ep.Forward, p.dir)", new: "p.flatten(ruleset.Forward, &ep.Normal, p.dir)"},
	{file: "host.go", old: "exits{accept: goTo(untrackChain), next: back}", new: "exits{accept: exit{verdict: nfAccept}, next: back}"},
	{file: "host.go", old: "exits{accept: goTo(untrackChain), next: back}", new: "exits{accept: goTo(untrackChain), next: goTo(untrackChain)}"},
	{file: "host.go", old: ", p.failsafes(1-p.dir, source, x)", new: ""},
	{file: "host.go", old: "source, x), discoveries(x))", new: "source, x))"},
	{file: "host.go", old: "discoveries(accepted), p.hostTunnels()", new: "p.hostTunnels()"},
	{file: "host.go", old: "discoveries(accepted), p.hostTunnels()", new: "discoveries(accepted)"},
	{file: "host.go", old: "head = append(head, discoveries(x[next])...)\n", new: ""},
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
	{file: "host.go", old: "p.flatten(ruleset.Untracked, &ep.Untracked, p.dir), x)", new: "walk{}, x)"}, // allowed is forgotten
	{file: "host.go", old: "exits{accept: exit{verdict: nfAccept}, next: goTo(p.chain())}", new: "exits{accept: goTo(p.chain()), next: goTo(p.chain())}"},
	{file: "host.go", old: "if p.dir == ruleset.Egress {\n\t\tpeer = p.to()", new: "if false {\n\t\tpeer = p.to()"},
	{file: "host.go", old: "x[deny] = p.denial()\n", new: "", caught: byReject},

	// Workloads.
	{file: "workload.go", old: "rules = append(rules, u.sources(o))\n", new: "_ = u.sources(o)\n"},
	{file: "workload.go", old: "rules := u.strangers(wayIn(), o)\n\tif", new: "var rules []*Rule\n\tif"},
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
	{file: "workload.go", old: "First: p.settings.VXLAN(), Last: p.settings.VXLAN()}", new: "First: p.settings.VXLAN() + 1, Last: p.settings.VXLAN() + 1}"},

	// Tunnels between hosts.
	{file: "tunnel.go", old: "[]byte{143})}", new: "[]byte{144})}"},
	{file: "tunnel.go", old: "discovery(130, 136).counted", new: "discovery(130, 137).counted"},
	{file: "tunnel.go", old: "if p.dir == ruleset.Ingress {", new: "if true {"},
	{file: "tunnel.go", old: "if !t.Proven {", new: "if true {"},
	{file: "tunnel.go", old: "NotNets: b.settings.TunnelNets", new: ""},
	{file: "tunnel.go", old: "b.used = append(b.used, m.item)\n", new: "", caught: byImage},

	// Walks.
	{file: "flatten.go", old: "s == ruleset.PreDNAT || s == ruleset.Untracked", new: "s == ruleset.PreDNAT"},
	{file: "flatten.go", old: "s == ruleset.PreDNAT || s == ruleset.Untracked", new: "s == ruleset.Untracked"},
	{file: "flatten.go", old: "policy == nil || policy.Staged", new: "policy == nil"},
	{file: "flatten.go", old: "if owner.Kind == profileID(\"\").Kind { // means nothing there\n\t\t\treturn", new: "if false {\n\t\t\treturn"},
	{file: "flatten.go", old: "return chunks[:i+1]", new: "return chunks[:i]"},
	{file: "flatten.go", old: "m.lines[len(m.lines)-1].join(&l)", new: "m.lines[len(m.lines)-1].join(&l) || true"},
	{file: "compile.go", old: "called[next] = back", new: "called[next] = x[accept]"},
	{file: "compile.go", old: "x[next] = goTo(p.stage(at, s, x))", new: "first := p.stage(at, s, x)\n\t\t\tdefer func() { _ = first }()\n\t\t\tx[next] = goTo(first)\n\t\t\tx[accept] = x[next]"},

	// Rules.
	{file: "match.go", old: "return c.ctOriginal(unix.NFT_CT_DST_IP, regFirst)", new: "return destination.loadAddr(c, f)"},
	{file: "match.go", old: "return c.ctOriginal(unix.NFT_CT_DST_IP6, regFirst)", new: "return destination.loadAddr(c, f)"},
	{file: "match.go", old: "return c.ctOriginal(unix.NFT_CT_PROTO_DST, reg)", new: "return destination.loadPort(c, reg)"},
	{file: "match.go", old: "cmp(unix.NFT_CMP_GTE, first).cmp(unix.NFT_CMP_LTE, last)\n}\n\n// loadAddr", new: "cmp(unix.NFT_CMP_GT, first).cmp(unix.NFT_CMP_LTE, last)\n}\n\n// loadAddr"},
	{file: "match.go", old: "if !t.nets[0].IsSingleIP() {\n\t\t\tc = c.mask", new: "if false {\n\t\t\tc = c.mask"},
	{file: "variants.go", old: "return append(out, v.only(portProtocols.not()), x.without(", new: "return append(out, x.without("},
	{file: "variants.go", old: "v.only(icmpOf(v.family).not()),\n", new: ""},
	{file: "variants.go", old: "x.each(x.oneOf) // none, if there is no set", new: "if len(x.tests) > 0 {\n\t\t\tx.each(x.oneOf)\n\t\t}"},
	{file: "variants.go", old: "if m.large {\n\t\tx.tests = append", new: "if false {\n\t\tx.tests = append"},
	{file: "variants.go", old: "if !x.rule.Action.Decides() {", new: "if false {"}, // reported twice
	{file: "variants.go", old: "if t.isOtherPort() && v.implies(test.isOtherPort) {", new: "if false {", caught: byListing},
	{file: "variants.go", old: "case len(disjoint) == 0:\n\t\treturn out\n", new: "case len(disjoint) == 0:\n\t\treturn append(out, v)\n"},
	{file: "variants.go", old: "protos = protos.and(protocolsOf(r.NotProtocol).not())", new: ""},

	// Changes.
	{file: "image.go", old: "hasKey(t.delta.Endpoints, key.id) || hasKey(t.delta.Workloads, key.id) ||", new: "hasKey(t.delta.Endpoints, key.id) ||", caught: byImage},
	{file: "image.go", old: "key.base && len(t.delta.Endpoints)+len(t.delta.Workloads) > 0", new: "key.base && len(t.delta.Endpoints) > 0", caught: byImage},
	{file: "image.go", old: "it.stale || len(t.reweighed)", new: "len(t.reweighed)", caught: byImage},
	{file: "image.go", old: "hasKey(t.remapped, u) {", new: "false {", caught: byFew},
	{file: "image.go", old: "for id := range d.Policies {\n\t\tim.dropItems(id)", new: "for id := range d.Policies {\n\t\t_ = id", caught: byImage},
	{file: "image.go", old: "for owner := range im.items {\n\t\t\tim.dropItems(owner)", new: "for owner := range im.items {\n\t\t\t_ = owner", caught: byImage},
	{file: "image.go", old: "t.dropAskers(id)\n\tdelete(t.members, id)", new: "delete(t.members, id)", caught: byImage},
	{file: "image.go", old: "t.dropAskers(m.id)\n", new: "", caught: byImage},
	{file: "image.go", old: "if m.reformed(t.limits.members) {", new: "if false {", caught: byImage},
	{file: "image.go", old: "} else if m.weight != weight {", new: "} else if false && m.weight != weight {", caught: byFew},
	{file: "image.go", old: "e.change(t, prefixesOf(gone), prefixesOf(come))", new: "e.change(t, nil, prefixesOf(come))", caught: byFew},
	{file: "image.go", old: "e.change(t, prefixesOf(gone), prefixesOf(come))", new: "e.change(t, prefixesOf(gone), nil)", caught: byFew},
	{file: "image.go", old: "t.direct = len(t.renewed) == 0 && len(t.reweighed) == 0 && t.delta.Empty()", new: "t.direct = true", caught: byRules},
	{file: "image.go", old: "t.direct && !t.record.moves()", new: "t.direct", caught: byAllowed},
	{file: "apart.go", old: "len(t.before.Chains)+len(t.before.Sets) > 0", new: "len(t.before.Sets) > 0", caught: byAllowed},
	{file: "apart.go", old: "group != nil && group != m.group", new: "group != nil && m.group == nil", caught: byGroups},
	{file: "apart.go", old: "a.prefix.Overlaps(b.prefix)", new: "false", caught: byAllowed},
	{file: "apart.go", old: "a != b && a.rest == b.rest", new: "a.rest == b.rest", caught: byOnce},
	{file: "apart.go", old: "group = m.group", new: "_ = m", caught: byGroups},
	{file: "image.go", old: "s.shorten(b, 0)\n", new: "_ = s\n", caught: byImage},
	{file: "image.go", old: "if t.table.Chains[name] = c; c == nil {\n\t\tdelete(t.table.Chains, name)\n\t} else {\n\t\tt.countSets(c, 1)", new: "if t.table.Chains[name] = c; c == nil {\n\t\tdelete(t.table.Chains, name)\n\t} else if old == nil {\n\t\tt.countSets(c, 1)", caught: byImage},
	{file: "trend.go", old: "return t.gain > 0 && t.lose > 0", new: "return false", caught: byDenied},
	{file: "trend.go", old: "im.lean(n, without(r.Action), e.NotSets)", new: "im.lean(n, r.Action, e.NotSets)", caught: byDenied},
	{file: "image.go", old: "for id := range im.turned {", new: "for id := range map[ruleset.SetID]bool{} {", caught: byRules},
	{file: "diff.go", old: "if from != \"\" {\n\t\tmade = before", new: "if false {\n\t\tmade = before", caught: byMix},
	{file: "diff.go", old: "turn := Element{Key: e.Key, Verdict: d.turn(e.Verdict, is)}", new: "turn := Element{Key: e.Key, Verdict: d.turn(is, is)}", caught: byAllowed},
	{file: "members.go", old: "!widest.Overlaps(p)", new: "true"},
	{file: "members.go", old: "if s != p && !(m.large && s.IsSingleIP()) {", new: "if s != p {", caught: byRules},
	{file: "members.go", old: "case m.covered(p):\n\t\treturn\n", new: "", caught: byFew},
	{file: "members.go", old: "for _, inner := range m.inside(p) {\n\t\tc.record.put(set, prefixElement(inner), true)", new: "for _, inner := range m.inside(p) {\n\t\t_ = inner", caught: byRules},
	{file: "members.go", old: "c.record.put(m.hostsOf(p.Addr()), hostElement(p.Addr()), false)\n", new: "", caught: byRules},
	{file: "image.go", old: "maps.Copy(im.program.Workloads, p.Workloads)\n", new: ""},
	{file: "nft.go", old: "stage := len(changes) > 0 &&", new: "stage := false && len(changes) > 0 &&", caught: byTransition},
	{file: "nft.go", old: "sweep := slices.ContainsFunc(changes, Change.endsDispatch)", new: "sweep := false", caught: byComeAndGo},

	// What is cut by port.
	{file: "cut.go", old: "c.widest <= b.widest && b.fits(c.outcome)", new: "c.widest <= b.widest"},
	{file: "cut.go", old: "b.exits[o] != returns && (o == deny || b.exits[accept] != returns)", new: "b.exits[o] != returns"},
	{file: "cut.go", old: "case s.overtaken.block(p.outcome, p.protos):\n", new: "case false:\n"},
	{file: "cut.go", old: "if p.byPort {\n\t\ts.overtaken.add(p.outcome, p.protos)\n\t}\n", new: ""},
	{file: "cut.go", old: "for o, protos := range p.kinds {\n\t\ts.overtaken.add(outcome(o), protos)\n\t}\n", new: ""},
	{file: "cut.go", old: "append(s.open, parts[i:]...)", new: "append(s.open, parts[i+1:]...)"},
	{file: "cut.go", old: "&& others&^(1<<l.outcome) == 0 {", new: "{"},
	{file: "cut.go", old: "others|1<<l.outcome\n", new: "others\n"},
	{file: "cut.go", old: "lists: serials(lines)}", new: "lists: serials(lines[:1])}"},
	{file: "cut.go", old: "s.clear(b.builder)\n\t\treturn b.list(s.name, wholes(l.all))", new: "return b.list(s.name, wholes(l.all))", caught: byRules},
	{file: "cut.go", old: "b.list(s.name, wholes(l.open))...)", new: "b.list(s.name, wholes(l.open[min(1, len(l.open)):]))...)"},
	{file: "cut.go", old: "g != nil && len(g.runs) > 0 {", new: "g != nil && len(g.runs) > 1 {"},
	{file: "cut.go", old: "gone, come = s.ported, ported\n", new: "gone, come = nil, ported\n", caught: byRules},
	{file: "cut.go", old: "mark(redo, s.alike[lists])\n", new: "_ = redo\n", caught: byShared},
	{file: "cut.go", old: "mark(redo, s.alike[c.lists])\n", new: "_ = redo\n", caught: byShared},
	{file: "cut.go", old: "b.setChain(name, nil)\n\t\t\tb.record.put(ports, element, false)", new: "b.setChain(name, nil)", caught: byRules},
	{file: "cut.go", old: "all := b.left != b.exits ||", new: "all :=", caught: byExits},
	{file: "cut.go", old: "return a.total <= lim.elements && a.places <= lim.classes", new: "return a.places <= lim.classes", caught: byRules},
	{file: "cut.go", old: "return a.total <= lim.elements && a.places <= lim.classes", new: "return a.total <= lim.elements", caught: byRules},
	{file: "cut.go", old: "a.admitsSet(n, m.weight) != a.admitsSet(is, m.weight)", new: "false", caught: byCopies},
	{file: "cut.go", old: "a.places > lim.classes && a.widest > 1", new: "false", caught: byBounds},
	{file: "cut.go", old: "weight <= a.lim.members && (uses <= 2", new: "weight <= a.lim.members && (true || uses <= 2", caught: byBounds},
	{file: "cut.go", old: "if l.peer != nil && l.guard == nil &&", new: "if l.peer == nil && l.guard == nil &&", caught: byRules},

	// What is looked up by address.
	{file: "run.go", old: "e.rank() < first.rank()", new: "e.rank() > first.rank()"},
	{file: "run.go", old: "for _, wider := range r.cells.Supernets(p) {", new: "for _, wider := range []*cell{c} {"},
	{file: "group.go", old: "o.bits-l.bits)", new: "l.bits-o.bits)"},
	{file: "group.go", old: "mask[i/8] |= 0x80 >> (i % 8)", new: "mask[i/8] |= 0x40 >> (i % 8)"},
	{file: "group.go", old: "if g.keyed {\n\t\t\tkey +=", new: "if !g.keyed {\n\t\t\tkey +="},
	{file: "group.go", old: "loadService(c.code, l.family, destination)", new: "loadService(c.code, l.family, source)"},
	{file: "run.go", old: "_, itself := touched[q]; q == p || !itself", new: "q == p", caught: byRules},
	{file: "run.go", old: "*r.exits != *is {", new: "false && is != nil {", caught: byExits},
	{file: "run.go", old: "&& r.says(l) == before:", new: ":", caught: byFew},
	{file: "run.go", old: "r.follow(false)\n\t\tr.only = l\n", new: "r.only = l\n", caught: byFew},
	{file: "run.go", old: "entries: []*entry{e}, says: &says}", new: "entries: []*entry{e}}", caught: byRules},
	{file: "run.go", old: "s.rank += len(lines) - len(r.slots)\n", new: "_ = s\n", caught: byFew},
	{file: "run.go", old: "return o.rank - rank })", new: "return rank - o.rank })"},
	{file: "run.go", old: "r.leave(e, prefixes, touched)\n", new: "_ = e\n", caught: byRules},
	{file: "group.go", old: "t.remapped[g.unit] = struct{}{}\n", new: "_ = was\n", caught: byRules},
	{file: "run.go", old: "c.entries = slices.DeleteFunc(c.entries, func(o *entry) bool { return o == e })", new: "_ = c", caught: byRules},

	// Lines.
	{file: "line.go", old: "if in == t.not {", new: "if in != t.not {"},
	{file: "line.go", old: "port <= int(r.Last); port++", new: "port < int(r.Last); port++"},
	{file: "line.go", old: "case ok || t.not || t.kind == testAddrPorts", new: "case ok || t.kind == testAddrPorts"},
	{file: "line.go", old: "case ok || t.not || t.kind == testAddrPorts || ", new: "case ok || t.not || "},
	{file: "line.go", old: "|| t.members != nil && t.members.large:", new: ":"},
	{file: "line.go", old: "&guard{v, v.name()}", new: "&guard{v, bareName}"},
	{file: "line.go", old: "l.guardName() != o.guardName() ||", new: ""},
	{file: "line.go", old: "ok && o != report {", new: "ok {"},
	{file: "line.go", old: "l.count, l.peer = 2, ", new: "l.count, l.peer = 1, "},
	{file: "line.go", old: "outcome(kind) != o && !protos.and(p).empty()", new: "false && outcome(kind) != o && !protos.and(p).empty()"},
	{file: "line.go", old: "|| byPort && last.outcome != l.outcome {", new: "{"},
	{file: "line.go", old: "p.protos = p.protos.or(l.protos)", new: "p.protos = l.protos"},
	{file: "line.go", old: "p.kinds.add(l.outcome, l.protos)\n\t\treturn", new: "return"},
	{file: "line.go", old: "v.protos, v.tests = allProtocols, leaving", new: "v.protos, v.tests = protocolsOf(ruleset.TCP), leaving"},
	{file: "line.go", old: "return l.outcome != report && l.everything", new: "return l.everything"},
	{file: "line.go", old: "p.reports = append(p.reports, l)\n", new: "_ = l\n"},

	// Lists.
	{file: "list.go", old: "case s.blocks(l, guard):", new: "case false:"},
	{file: "list.go", old: "for i := s.at(guard) + 1; i < len(s.guards); i++ {", new: "for i := len(s.guards); i < len(s.guards); i++ {", caught: byGuards},
	{file: "list.go", old: "if s.kinds.block(l.outcome, l.kind()) {", new: "if false {"},
	{file: "list.go", old: "b.plain(lines[i:])", new: "b.plain(lines[i+1:])"},
	{file: "list.go", old: "!l.inner && l.services != nil || ", new: ""},
	{file: "list.go", old: "|| !b.fits(l.outcome) ||", new: "||"},
	{file: "list.go", old: "if l.inner {\n\t\tmade", new: "if false {\n\t\tmade"},
	{file: "list.go", old: "if *made == nil || (*made).to != to {", new: "if *made == nil {", caught: byRules},
	{file: "list.go", old: "if place > 0 {", new: "if false {"},
	{file: "list.go", old: "if !guarded.guard.bare() {", new: "if false {"},
	{file: "list.go", old: "case nfAccept:\n\t\treturn verdictAccept", new: "case nfAccept:\n\t\treturn verdictDrop"},
	{file: "list.go", old: "case nfDrop:\n\t\treturn verdictDrop", new: "case nfDrop:\n\t\treturn verdictAccept"},
	{file: "counters.go", old: "for _, e := range v.maps[r.lookup] {", new: "for _, e := range v.maps[\"\"] {", caught: byCounters},
	{file: "exits.go", old: "code{}.limit(uint64(rate.Packets), seconds, burst).log(", new: "code{}.limit(uint64(rate.Packets), seconds, burst<<10).log(", caught: byLogRate},
	{file: "exits.go", old: "if u.settings.Reject {\n\t\treturn goTo", new: "if false {\n\t\treturn goTo", caught: byReject},
}

// Every mutant is caught. make mutants runs this: a build and a test for each.
func TestMutants(t *testing.T) {
	if os.Getenv("MARGAY_MUTANTS") == "" {
		t.Skip("make mutants runs this")
	}
	for _, m := range slices.Concat(mutants, bridgeMutants, ipvsMutants) {
		t.Run(m.file+" "+strings.Fields(m.old)[0], func(t *testing.T) {
			t.Parallel()
			m.run(t)
		})
	}
}

func (m *mutant) run(t *testing.T) {
	what := m.file + ": " + m.old + "\n-> " + m.new
	binary := m.build(t, what)
	tests := []string{m.caught}
	if m.caught == "" {
		tests = []string{byTable, byRules, "TestVerdictsAreEvals"}
	}
	for _, test := range tests {
		if m.caughtBy(t, binary, test) {
			return
		}
	}
	t.Errorf("not caught by %s: %s", tests, what)
}

// caughtBy reports whether a test fails.
func (m *mutant) caughtBy(t *testing.T, binary, test string) bool {
	steps, checks := "4000", "300" // until a packet is where a fault shows
	switch test {
	case byTransition:
		steps = "800"
	case byRules, byFew, byTable:
		checks = "2000"
	}
	cmd := exec.Command(binary, "-test.run", "^"+test+"$", "-test.timeout", "10m", "-rapid.checks", checks, "-rapid.nofailfile",
		"-rapid.shrinktime", "0s")
	cmd.Env = append(os.Environ(), "MARGAY_SEED=1", "MARGAY_STEPS="+steps, "MARGAY_MUTANTS=")
	out, err := cmd.CombinedOutput()
	if err != nil && !bytes.Contains(out, []byte("FAIL")) && !bytes.Contains(out, []byte("panic: ")) {
		t.Errorf("%s: %v\n%s", test, err, out)
	}
	return err != nil
}

// Every mutant is one: the text is where it is said to be, and there only. The test that is to catch it is there.
func TestMutantsAreThere(t *testing.T) {
	tests := map[string]bool{"": true}
	files, err := filepath.Glob("*_test.go")
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range files {
		for _, m := range regexp.MustCompile(`(?m)^func (Test\w+)\(`).FindAllStringSubmatch(read(t, file), -1) {
			tests[m[1]] = true
		}
	}
	for _, m := range slices.Concat(mutants, bridgeMutants, ipvsMutants) {
		if n := strings.Count(read(t, m.file), m.old); n != 1 || m.old == m.new {
			t.Errorf("%s: the text is there %d times: %s", m.file, n, m.old)
		}
		if !tests[m.caught] {
			t.Errorf("%s: no test %s", m.file, m.caught)
		}
	}
}

func read(t *testing.T, file string) string {
	t.Helper()
	content, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	return string(content)
}

// build returns the test binary of the mutant.
func (m *mutant) build(t *testing.T, what string) string {
	source, err := os.ReadFile(m.file)
	if err != nil {
		t.Fatal(err)
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
