package nft

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"margay/ruleset"
)

// paths are the ways of the compiler: random Programs must take each.
var paths = []string{
	"stage in order", "stage cut", "second segment", "segments used up", "lines with many services in order",
	"class", "class shared", "map by address and service", "map by address", "map by address behind conditions",
	"second map of a list", "prefixes", "IPv6", "jump in a map", "addresses not copied", "copies bounded", "large set", "log chain", "one port",
	"addresses of one line", "addresses of two lines",
}

// pathsOf counts the ways that the compiler took to an image.
func pathsOf(im *image) map[string]int {
	n := map[string]int{}
	for _, u := range im.units {
		for _, st := range u.stages {
			st.paths(n, im.limits)
		}
		for _, g := range u.groups {
			g.paths(n)
		}
	}
	for name := range im.table.Chains {
		n["log chain"] += oneIf(strings.Contains(name, "/log/"))
	}
	for _, m := range im.members {
		n["large set"] += oneIf(m.large)
	}
	return n
}

func (st *stageState) paths(n map[string]int, lim limits) {
	n["stage in order"] += oneIf(len(st.segments) == 0)
	n["stage cut"] += oneIf(len(st.segments) > 0)
	n["second segment"] += oneIf(len(st.segments) > 1)
	n["segments used up"] += oneIf(len(st.segments) == lim.segments)
	n["lines with many services in order"] += oneIf(st.widest < lim.services)
	n["copies bounded"] += oneIf(st.most < lim.copies)
	for _, s := range st.segments {
		n["class"] += len(s.classes)
		for _, alike := range s.alike {
			n["class shared"] += oneIf(len(alike) > 1)
		}
	}
	for _, c := range st.chunks {
		for _, l := range c.lines {
			n["addresses not copied"] += oneIf(l.peer != nil && !st.admits(l))
			n["one port"] += oneIf(len(l.services) == 1)
		}
	}
}

func (g *group) paths(n map[string]int) {
	switch {
	case g.keyed:
		n["map by address and service"]++
	case strings.Contains(g.name, "/all-"):
		n["map by address behind conditions"]++
	case strings.HasSuffix(g.name, "/all"):
		n["map by address"]++
	default:
		n["second map of a list"]++
	}
	for _, r := range g.runs {
		if r.order == nil {
			n["addresses of one line"]++
			continue
		}
		for p, c := range r.order.cells.All() {
			for _, wider := range r.order.cells.Supernets(p) {
				n["addresses of two lines"] += oneIf(len(c.entries) > 0 && len(wider.entries) > 0 && c.entries[0].says.verdict != wider.entries[0].says.verdict)
			}
		}
	}
	for l, set := range g.maps {
		n["IPv6"] += oneIf(l.family == ruleset.IPv6)
		n["prefixes"] += oneIf(l.mask() != nil)
		for e := range set.all() {
			n["jump in a map"] += oneIf(e.Verdict.chain() != "")
		}
	}
}

// tookAll fails unless every path was taken.
func tookAll(t testing.TB, taken map[string]int) {
	t.Helper()
	t.Logf("paths: %v", taken)
	for _, name := range paths {
		if taken[name] == 0 {
			t.Errorf("no %s", name)
		}
	}
}

func addTo(sum, n map[string]int) {
	for name, count := range n {
		sum[name] += count
	}
}

// fewPorts are those of rules and packets that are to meet.
var fewPorts = []uint16{53, 80, 443}

// plainRule draws a rule that more packets match.
func (g generator) plainRule() ruleset.Rule {
	r := g.rule()
	if !g.one(4) {
		r.ICMP, r.NotICMP, r.Source.Ports, r.Source.NotPorts = ruleset.ICMPMatch{}, ruleset.ICMPMatch{}, nil, nil
	}
	return r
}

// manyRules draws rules of which many are alike, as people write them: runs of one or two forms, with the same action or
// not, most with ports, about sets or networks.
func (g generator) manyRules(most int) []ruleset.Rule {
	var out []ruleset.Rule
	for len(out) < most && !g.one(8) {
		forms := []ruleset.Rule{g.plainRule()}
		if g.one(2) {
			forms = append(forms, g.plainRule())
		}
		mixed, ported := g.one(2), g.one(2)
		for range 1 + g.IntN(most/2) {
			one := pick(g, forms...)
			r := one
			if g.one(6) {
				r = ruleset.Rule{Action: r.Action, Source: ruleset.Entity{Ports: &ruleset.Ports{Named: []ruleset.SetID{"n1"}}}}
				out = append(out, r)
				continue
			}
			if mixed {
				r.Action = pick(g, ruleset.Allow, ruleset.Deny)
			}
			switch g.IntN(5) {
			case 0:
				r.Source = ruleset.Entity{Nets: netsOf(pick(g, "10.1.0.0/16", "10.1.0.0/24", "10.1.0.1/32", "10.0.0.0/14", "fd01::/16", "fd01::/64", "fd01::1/128"))}
			case 1:
				r.Source = ruleset.Entity{Sets: []ruleset.SetID{pick[ruleset.SetID](g, "a", "b", "c")}}
			case 2:
				r.Source = ruleset.Entity{}
			case 3:
				r.Destination = ruleset.Entity{Nets: netsOf(pick(g, "10.2.0.0/16", "fd02::/16"))}
			}
			if ported {
				r.Protocol, r.NotProtocol, r.Destination.NotPorts = pick(g, ruleset.TCP, ruleset.UDP), 0, nil
				r.Destination.Ports = &ruleset.Ports{}
				for range pick(g, 1, 1, 2, 3) {
					port := pick(g, fewPorts...)
					r.Destination.Ports.Ranges = append(r.Destination.Ports.Ranges, ruleset.PortRange{First: port, Last: port})
				}
			}
			if r.Action == ruleset.Log && g.one(2) {
				r.Action = one.Action
			}
			out = append(out, r)
		}
	}
	return out
}

// rulesAlone draws a Program with nothing but rules for what comes in by t0, in two stages: every packet meets them.
func (g generator) rulesAlone() *ruleset.Program {
	p := ruleset.NewProgram()
	p.Settings.Reject = g.one(3)
	ep := hostEndpoint("e", "t0")
	p.Endpoints[ep.ID] = ep
	for i := range 1 + g.IntN(2) {
		tier := ruleset.Tier{Name: fmt.Sprint("tier", i), EndPass: g.one(2)}
		for j := range 1 + g.IntN(3) {
			policy := policyOf(fmt.Sprint("p", i, j), g.manyRules(pick(g, 3, 10, 25))...)
			p.Policies[policy.ID] = policy
			tier.Policies = append(tier.Policies, policy.ID)
		}
		ep.Normal.Ingress = append(ep.Normal.Ingress, tier)
	}
	ep.Forward.Ingress = ep.Normal.Ingress
	for _, id := range setIDs {
		if id != "missing" {
			p.Sets[id] = g.set(id)
		}
	}
	for _, a := range slices.Concat(peers4, peers6) { // named ports that packets meet
		for _, port := range fewPorts {
			p.Sets["n1"].Add(ruleset.Member{Prefix: netip.PrefixFrom(a, a.BitLen()), Protocol: ruleset.TCP, Port: port})
		}
	}
	p.Profiles["last"] = &ruleset.Profile{Ingress: []ruleset.Rule{{Action: pick(g, ruleset.Allow, ruleset.Deny)}}}
	ep.Profiles = []string{"last"}
	return p
}

// Rules of all kinds have the verdict of Eval, however they are laid out, and after changes, which lead to the table that
// Compile makes.
func TestRulesAreEval(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		g := newGenerator(rapid.Uint64().Draw(t, "seed"))
		p := g.rulesAlone()
		lim := pick(g, testLimits...)
		im := newImage(p, lim)
		k := keptImage{p, im, copyTable(im.table)}
		for range 3 {
			for range 40 {
				pkt := g.ruled()
				m := im.table.machine(&pkt)
				want := ruleset.Eval(p, &pkt)
				if got := m.run(t); got != want.Allowed {
					t.Fatalf("packet %+v: passed %v, want %+v\n%s", pkt, got, want, im.table)
				}
				if n, _ := reportsOf(p, &pkt); n != m.reports {
					t.Fatalf("packet %+v: %d reports, want %d\n%s", pkt, m.reports, n, im.table)
				}
			}
			k.apply(t, g.changeRules(p))
		}
	})
}

// Rules with different conditions, each looked up by address, keep their order where they do different things.
func TestGuardsKeepTheirOrder(t *testing.T) {
	from := func(a ruleset.Action, i int, r ruleset.Rule) ruleset.Rule {
		r.Action, r.Source.Nets = a, netsOf(netip.PrefixFrom(sourceOf(0, i), 32).String())
		return r
	}
	udp, here := ruleset.Rule{Protocol: ruleset.UDP}, ruleset.Rule{}
	here.Destination.Nets = netsOf("10.2.0.0/16")
	p := programOf([]*ruleset.Endpoint{hostEndpoint("e", "t0")}, policyOf("p",
		from(ruleset.Allow, 0, udp), from(ruleset.Allow, 1, udp), from(ruleset.Deny, 2, here), from(ruleset.Deny, 3, here),
		from(ruleset.Allow, 2, udp), from(ruleset.Allow, 3, here)))
	for _, lim := range testLimits {
		for i := range 5 {
			pkt := ruleset.Packet{In: "t0", Src: sourceOf(0, i), Dst: locals4[0], Protocol: ruleset.UDP}
			want := ruleset.Eval(p, &pkt)
			if got := newImage(p, lim).table.machine(&pkt).run(t); got != want.Allowed {
				t.Errorf("from %s: passed %v, want %+v", pkt.Src, got, want)
			}
		}
	}
}

// Alternatives of a rule that ask the same of one family, as a port that is named twice does, are not taken for those of
// two families. The kernel refuses a comparison of an IPv4 address with an IPv6 one.
func TestAlternativesOfOneFamily(t *testing.T) {
	r := ruleset.Rule{Action: ruleset.Allow, Source: ruleset.Entity{Sets: []ruleset.SetID{"a"}}}
	r.Destination = ruleset.Entity{Nets: netsOf("10.2.0.0/16", "fd02::/64"), Ports: &ruleset.Ports{Named: []ruleset.SetID{"n1", "n1"}}}
	p := programOf([]*ruleset.Endpoint{hostEndpoint("e", "t0")}, policyOf("p", r))
	p.Sets["a"] = ruleset.NewSet(ruleset.Addrs, "a", ruleset.Member{Prefix: netip.MustParsePrefix("10.1.0.9/32")},
		ruleset.Member{Prefix: netip.MustParsePrefix("fd01::9/128")})
	p.Sets["n1"] = ruleset.NewSet(ruleset.AddrPorts, "n1")
	for _, a := range []string{"10.2.0.1/32", "fd02::1/128"} {
		p.Sets["n1"].Add(ruleset.Member{Prefix: netip.MustParsePrefix(a), Protocol: ruleset.TCP, Port: 80})
	}
	for _, lim := range testLimits {
		d := newNamespace(t).open(t)
		d.limits = lim
		resync(t, d, p)
	}
}

// changeRules draws a change of a policy of rulesAlone, or of sets.
func (g generator) changeRules(p *ruleset.Program) *ruleset.Delta {
	d := &ruleset.Delta{Policies: map[ruleset.PolicyID]*ruleset.Policy{}, Sets: map[ruleset.SetID]*ruleset.SetDelta{}}
	if ids := sortedPolicies(p); g.one(2) {
		policy := *p.Policies[pick(g, ids...)]
		fresh := g.manyRules(5)
		at := g.IntN(len(policy.Ingress) + 1)
		policy.Ingress = slices.Concat(policy.Ingress[:at], fresh, policy.Ingress[min(len(policy.Ingress), at+g.IntN(3)):])
		d.Policies[policy.ID] = &policy
		return d
	}
	for range 1 + g.IntN(3) {
		id := pick[ruleset.SetID](g, "a", "b", "c", "n1")
		d.Sets[id] = g.setDelta(p, id)
	}
	return d
}

// enlarge gives some policies of a Program many rules.
func (g generator) enlarge(p *ruleset.Program) {
	for _, id := range sortedPolicies(p) {
		if g.one(3) {
			policy := *p.Policies[id]
			policy.Ingress, policy.Egress = g.manyRules(40), g.manyRules(40)
			p.Policies[id] = &policy
		}
	}
}

func sortedPolicies(p *ruleset.Program) []ruleset.PolicyID {
	var ids []ruleset.PolicyID
	for id := range p.Policies {
		ids = append(ids, id)
	}
	slices.SortFunc(ids, ruleset.PolicyID.Compare)
	return ids
}

// Random Programs take every way of the compiler.
func TestRandomProgramsTakeEveryPath(t *testing.T) {
	taken := map[string]int{}
	g := newGenerator(1)
	for range 300 {
		addTo(taken, pathsOf(newImage(g.program(), pick(g, testLimits...))))
	}
	tookAll(t, taken)
}

// What a packet is asked does not depend on how many policies there are, and of a known flow only the state.
func TestPacketsAreAskedTheSame(t *testing.T) {
	for _, s := range []shape{ports1, port1} {
		var first [2]int
		for _, policies := range []int{10, 100, 1000} {
			table := Compile(scaled(s, policies))
			last := policies - 1
			m := table.machine(&ruleset.Packet{In: "eth0", Src: sourceOf(last, 2), Dst: locals4[0], Protocol: ruleset.TCP, DstPort: s.port(last)})
			if !m.run(t) {
				t.Errorf("%s, %d policies: denied", s, policies)
			}
			asked := [2]int{m.rules, m.lookups}
			if first[0] == 0 {
				first = asked
			}
			if asked != first || m.rules > 12 {
				t.Errorf("%s, %d policies: %d rules, %d lookups, with 10 policies %d and %d", s, policies, m.rules, m.lookups, first[0], first[1])
			}
			known := table.machine(&ruleset.Packet{In: "eth0", Src: sourceOf(last, 2), Dst: locals4[0], Protocol: ruleset.TCP, State: ruleset.Established})
			if !known.run(t) || known.rules != 1 {
				t.Errorf("%s, %d policies: a known flow asks %d rules", s, policies, known.rules)
			}
		}
	}
}

// The table stays within bounds when rules are written so that it grows as much as can be, and then a packet asks many
// rules: that is the price. Every Program has 3,000 rules.
func TestTableIsBounded(t *testing.T) {
	const rules = 3000
	crowd := func(p *ruleset.Program, i int) ruleset.Entity {
		id := ruleset.SetID(fmt.Sprint("crowd", i))
		if p.Sets[id] == nil {
			p.Sets[id] = ruleset.NewSet(ruleset.Addrs, "")
			for j := range 4000 {
				p.Sets[id].Add(ruleset.Member{Prefix: netip.PrefixFrom(netip.AddrFrom4([4]byte{20, byte(i), byte(j >> 8), byte(j)}), 32)})
			}
		}
		return ruleset.Entity{Sets: []ruleset.SetID{id}}
	}
	ports := func(first, n int) *ruleset.Ports {
		return &ruleset.Ports{Ranges: []ruleset.PortRange{{First: uint16(first), Last: uint16(first + n - 1)}}}
	}
	tests := []struct {
		name          string
		rule          func(p *ruleset.Program, i int) ruleset.Rule
		asked         int // rules that a packet asks at most
		atLeast       int // and that one does ask: the case is not milder than it says
		rules, things int // in the table: rules, and elements beside those of the Program's sets
	}{
		{"one port each", func(p *ruleset.Program, i int) ruleset.Rule { return tcp(ruleset.Allow, uint16(1+i)) }, 20, 1, rules + 100, rules + 100},
		{"one set of 4,000 each, one port", func(p *ruleset.Program, i int) ruleset.Rule {
			r := tcp(ruleset.Allow, 80)
			r.Source = crowd(p, i%100)
			return r
		}, 2*rules + 20, rules, 2*rules + 100, 1 << 18},
		{"ranges that overlap", func(p *ruleset.Program, i int) ruleset.Rule {
			r := tcp(ruleset.Allow)
			r.Destination.Ports = ports(1+i, 64)
			return r
		}, rules + 20, rules, rules + 1<<17, 1 << 17},
		{"allow and deny by turns", func(p *ruleset.Program, i int) ruleset.Rule {
			r := tcp([]ruleset.Action{ruleset.Allow, ruleset.Deny}[i%2], uint16(1+i))
			if i%2 == 0 {
				r.Destination.Ports = ports(1+i, 1000)
			}
			return r
		}, rules + 20, rules / 2, 2*rules + 100, 2 * rules},
		{"negations", func(p *ruleset.Program, i int) ruleset.Rule {
			return ruleset.Rule{Action: ruleset.Allow, Source: ruleset.Entity{NotSets: []ruleset.SetID{"none", ruleset.SetID(fmt.Sprint(i))},
				NotNets: netsOf("10.0.0.0/8")}, Protocol: ruleset.SCTP}
		}, 2*rules + 20, rules, 2*rules + 100, 100},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			p := ruleset.NewProgram()
			policy := policyOf("p")
			for i := range rules {
				policy.Ingress = append(policy.Ingress, tt.rule(p, i))
			}
			members := 0
			for _, s := range p.Sets {
				members += s.Len()
			}
			ep := hostEndpoint("e", "t0")
			p.Policies[policy.ID], p.Endpoints[ep.ID] = policy, ep
			ep.Normal.Ingress = []ruleset.Tier{{Name: "default", Policies: []ruleset.PolicyID{policy.ID}}}
			table := Compile(p)
			s := statsOf(table)
			t.Logf("%d rules in %d chains, %d elements in %d sets", s.Rules, s.Chains, s.Elements-members, s.Sets)
			asked := 0
			for _, port := range []uint16{80, 1000, 2999, 3050, 9999} {
				m := table.machine(&ruleset.Packet{In: "t0", Src: peers4[0], Dst: locals4[0], Protocol: ruleset.TCP, DstPort: port})
				want := ruleset.Eval(p, m.packet)
				if got := m.run(t); got != want.Allowed {
					t.Errorf("port %d: passed %v, want %+v", port, got, want)
				}
				asked = max(asked, m.rules)
			}
			if s.Rules > tt.rules || s.Elements-members > tt.things || asked > tt.asked || asked < tt.atLeast {
				t.Errorf("%d rules, %d elements, a packet asks %d", s.Rules, s.Elements-members, asked)
			}
		})
	}
}
