package nft

import (
	"maps"
	"net/netip"
	"slices"

	"golang.org/x/sys/unix"

	"margay/ruleset"
)

// Names of what the base holds. Chains of interfaces are named in/NAME and out/NAME, chains of endpoints
// ingress/KIND/NAME and egress/KIND/NAME with /tier/NAME and /profiles behind it.
const (
	rejectChain = "refuse" // reject is a word of nft(8)
	priority    = -10      // see the package comment
)

// LogGroup is the nflog group that Log rules report to, see [ReadLog].
const LogGroup = 2080

// Compile returns the table that enforces p.
func Compile(p *ruleset.Program) *Table { return newImage(p).table }

// A unit is the part of the table that one endpoint has in one direction, or the base: what is compiled again as a whole
// when something changes that it was made from.
type unit struct {
	chains []*Chain
	sets   map[string]*Set // constant sets, shared with other units that have equal ones, and dispatch maps

	// What was looked up, found or not.
	policies map[ruleset.PolicyID]struct{}
	profiles map[string]struct{}
	members  map[ruleset.SetID]struct{}
}

// A builder makes one unit.
type builder struct {
	*writer
	unit     *unit
	settings *ruleset.Settings
	program  *ruleset.Program
	sets     setIndex
}

func (im *image) builder() *builder {
	u := &unit{
		sets: map[string]*Set{}, policies: map[ruleset.PolicyID]struct{}{}, profiles: map[string]struct{}{},
		members: map[ruleset.SetID]struct{}{},
	}
	return &builder{
		writer: &writer{consts: u.sets}, unit: u, settings: &im.program.Settings, program: im.program, sets: im,
	}
}

func (u *builder) policy(id ruleset.PolicyID) *ruleset.Policy {
	u.unit.policies[id] = struct{}{}
	return u.program.Policies[id]
}

func (u *builder) profile(name string) *ruleset.Profile {
	u.unit.profiles[name] = struct{}{}
	return u.program.Profiles[name]
}

func (u *builder) kind(id ruleset.SetID) (ruleset.SetKind, bool) {
	u.unit.members[id] = struct{}{}
	return u.sets.kind(id)
}

// endpointChain returns the name of the chain where an endpoint begins.
func endpointChain(id ruleset.EndpointID, dir ruleset.Direction, suffix ...string) string {
	parts := []string{dir.String(), id.Kind}
	if id.Namespace != "" {
		parts = append(parts, id.Namespace)
	}
	return ident(append(append(parts, id.Name), suffix...)...)
}

// ifaceChain returns the name of the chain that a dispatch map leads to.
func ifaceChain(dir ruleset.Direction, iface string) string {
	if dir == ruleset.Egress {
		return ident("out", iface)
	}
	return ident("in", iface)
}

// endpoint adds the chains of an endpoint in one direction.
func (u *builder) endpoint(ep *ruleset.Endpoint, dir ruleset.Direction) {
	stages := u.flatten(ep, dir)
	names := make([]string, len(stages))
	for i, s := range stages {
		names[i] = endpointChain(ep.ID, dir, s.name...)
	}
	about := ep.ID.String() + " " + dir.String()
	entry := &Chain{Name: endpointChain(ep.ID, dir), Comment: remark(about)}
	if !u.settings.AcceptInvalid {
		entry.Rules = append(entry.Rules, rule("ct state invalid counter drop", "invalid",
			code{}.ctState(ctInvalid).counter().verdict(nfDrop, "")))
	}
	entry.Rules = append(entry.Rules, u.failsafes(dir)...)
	entry.Rules = append(entry.Rules, jumpRule("goto", names[0]))
	u.unit.chains = append(u.unit.chains, entry)
	for i, s := range stages {
		x := exits{deny: u.denial(), accept: exit{verdict: nfAccept}}
		if i+1 < len(stages) {
			x[next] = goTo(names[i+1])
		}
		comment := about
		for _, part := range s.name {
			comment += " " + part
		}
		u.unit.chains = append(u.unit.chains, u.linear(names[i], remark(comment), s.lines, x))
	}
}

// linear lays the lines of a stage out in one chain, one after the other.
func (u *builder) linear(name, comment string, lines []line, x exits) *Chain {
	c := &Chain{Name: name, Comment: comment}
	for _, l := range lines {
		variants := []variant{{protos: allProtocols}}
		if l.rule != nil {
			variants = u.variants(u, l.rule)
		}
		for _, v := range variants {
			c.Rules = append(c.Rules, u.rule(v, l, x))
		}
	}
	return c
}

func (u *builder) rule(v variant, l line, x exits) *Rule {
	text, c := u.match(v)
	text, c = text+"counter ", c.counter()
	if l.outcome == report {
		return rule(text+logText(l.prefix), l.comment, c.log(LogGroup, l.prefix))
	}
	to := x[l.outcome]
	return rule(text+to.String(), l.comment, c.verdict(to.verdict, to.chain))
}

// failsafes returns a rule for each network that failsafe ports are limited to.
func (u *builder) failsafes(dir ruleset.Direction) []*Rule {
	peer := source
	if dir == ruleset.Egress {
		peer = destination
	}
	ports := map[netip.Prefix][]Element{}
	for _, f := range u.settings.Failsafes(dir) {
		net := f.Net
		if net.IsValid() {
			net = net.Masked()
		}
		ports[net] = append(ports[net], Element{Key: serviceKey(f.Protocol, f.Port)})
	}
	var rules []*Rule
	for _, net := range slices.SortedFunc(maps.Keys(ports), comparePrefix) {
		v := variant{protos: allProtocols}
		if net.IsValid() {
			v.family = ruleset.FamilyOf(net.Addr())
			v.tests = []test{{kind: testPrefix, side: peer, prefix: net}}
		}
		set := u.constant("failsafes", typeService, ports[net])
		text, c := u.match(v)
		c = u.to().loadPort(c.meta(unix.NFT_META_L4PROTO, regFirst), regWord1).lookup(set, false)
		rules = append(rules, rule(text+"meta l4proto . "+u.to().port("th")+" @"+set+" counter accept", "failsafe",
			c.counter().verdict(nfAccept, "")))
	}
	return rules
}

func comparePrefix(a, b netip.Prefix) int {
	if c := a.Addr().Compare(b.Addr()); c != 0 {
		return c
	}
	return a.Bits() - b.Bits()
}

// Verdicts of netfilter (include/uapi/linux/netfilter.h).
const (
	nfDrop   = 0
	nfAccept = 1
)

func rule(text, comment string, c code) *Rule {
	return &Rule{Text: text, Comment: remark(comment), code: string(c)}
}

// jumpRule returns a rule that enters a chain: verb is goto or jump.
func jumpRule(verb, chain string) *Rule {
	verdict := int32(unix.NFT_JUMP)
	if verb == "goto" {
		verdict = unix.NFT_GOTO
	}
	return rule(verb+" "+chain, "", code{}.verdict(verdict, chain))
}
