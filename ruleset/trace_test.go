package ruleset

import (
	"fmt"
	"reflect"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"
)

// line writes a step as explain might.
func line(s Step) string {
	at := fmt.Sprintf("%s %s %s", s.Endpoint.Name, s.Stage, s.Direction)
	staged := ""
	if s.Staged {
		staged = "staged "
	}
	switch s.Kind {
	case AtPolicy:
		return at + ": " + staged + "policy " + s.Tier + "/" + s.Policy.Name
	case AtProfile:
		return at + ": profile " + s.Profile
	case AtRule:
		return fmt.Sprintf("%s: %s%s%s rule %d %s matched %v", at, staged, s.Profile, s.Policy.Name, s.Rule, s.Action, s.Matched)
	case AtTierEnd:
		return at + ": on from tier " + s.Tier
	case AtDecision:
		return at + ": " + said(s.Verdict)
	}
	return at
}

func trace(p *Program, pkt *Packet) (Verdict, string) {
	var lines []string
	v := Trace(p, pkt, func(s Step) { lines = append(lines, line(s)) })
	return v, strings.Join(lines, "\n")
}

// TestTrace: everything that is looked at is told in order, Log rules and staged policies included.
func TestTrace(t *testing.T) {
	first, second := tier("first", "pass"), tier("second", "staged", "mixed", "allow")
	p := host([]Tier{first, second}, map[string][]Rule{
		"pass": {other, logging, pass}, "staged": {other, deny}, "mixed": {other}, "allow": {logging, allow, deny},
	})
	p.Endpoints[eth0].PreDNAT.Ingress = []Tier{tier("first", "mixed")}
	want := `eth0 pre-DNAT ingress
eth0 pre-DNAT ingress: policy first/mixed
eth0 pre-DNAT ingress: mixed rule 0 Allow matched false
eth0 pre-DNAT ingress: on from tier first
eth0 pre-DNAT ingress: allow: no policy
eth0 normal ingress
eth0 normal ingress: policy first/pass
eth0 normal ingress: pass rule 0 Allow matched false
eth0 normal ingress: pass rule 1 Log matched true
eth0 normal ingress: pass rule 2 Pass matched true
eth0 normal ingress: on from tier first
eth0 normal ingress: staged policy second/staged
eth0 normal ingress: staged staged rule 0 Allow matched false
eth0 normal ingress: staged staged rule 1 Deny matched true
eth0 normal ingress: policy second/mixed
eth0 normal ingress: mixed rule 0 Allow matched false
eth0 normal ingress: policy second/allow
eth0 normal ingress: allow rule 0 Log matched true
eth0 normal ingress: allow rule 1 Allow matched true
eth0 normal ingress: allow: eth0 normal ingress`
	if _, got := trace(p, packet()); got != want {
		t.Errorf("trace is\n%s\nwant\n%s", got, want)
	}
	p.Endpoints[eth0].Normal.Ingress, p.Endpoints[eth0].PreDNAT, p.Endpoints[eth0].Profiles = nil, Walk{}, []string{"closed"}
	want = `eth0 normal ingress
eth0 normal ingress: profile closed
eth0 normal ingress: closed rule 0 Log matched true
eth0 normal ingress: closed rule 1 Pass matched true
eth0 normal ingress: closed rule 2 Deny matched true
eth0 normal ingress: deny: profile rule`
	if _, got := trace(p, packet()); got != want {
		t.Errorf("trace is\n%s\nwant\n%s", got, want)
	}
}

func staged(name string, rules ...Rule) *Policy {
	return &Policy{ID: PolicyID{"StagedGlobalNetworkPolicy", "", name}, Ingress: rules, Staged: true}
}

// TestPreview: where staged policies stand when they are enforced.
func TestPreview(t *testing.T) {
	set, other := staged("p", deny), staged("q", deny)
	deletes := &Policy{ID: set.ID, Staged: true, Deletes: true}
	plain, superseded := &Policy{ID: policyID("p"), Ingress: []Rule{allow}}, &Policy{ID: policyID("p"), Ingress: []Rule{allow}, Superseded: true}
	tests := []struct {
		name        string
		policies    []*Policy // of the one tier, in order
		elsewhere   []*Policy // that apply to other endpoints only
		now, then   string
		tiers       int // in the preview
		nowhereElse bool
	}{
		{"nothing is staged", []*Policy{plain}, nil, "allow: eth0 normal ingress", "allow: eth0 normal ingress", 1, false},
		{"set, beside others", []*Policy{other, plain}, nil, "allow: eth0 normal ingress", "deny: eth0 normal ingress", 1, false},
		{"set, behind others", []*Policy{plain, other}, nil, "allow: eth0 normal ingress", "allow: eth0 normal ingress", 1, false},
		{"set, in place of another", []*Policy{superseded, set}, nil, "allow: eth0 normal ingress", "deny: eth0 normal ingress", 1, false},
		{"set, in place of another but not here", []*Policy{superseded}, []*Policy{set}, "allow: eth0 normal ingress", "deny: no profile", 0, false},
		{"set, alone", []*Policy{set}, nil, "deny: no profile", "deny: eth0 normal ingress", 1, false},
		{"delete", []*Policy{deletes, superseded}, nil, "allow: eth0 normal ingress", "deny: no profile", 0, false},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			p := host(nil, nil)
			one := Tier{Name: "t"}
			for _, policy := range test.policies {
				p.Policies[policy.ID] = policy
				one.Policies = append(one.Policies, policy.ID)
			}
			for _, policy := range test.elsewhere {
				p.Policies[policy.ID] = policy
			}
			p.Endpoints[eth0].Normal.Ingress = []Tier{one}
			q := Preview(p)
			if now, then := said(Eval(p, packet())), said(Eval(q, packet())); now != test.now || then != test.then {
				t.Errorf("%s becomes %s, want %s becomes %s", now, then, test.now, test.then)
			}
			if got := len(q.Endpoints[eth0].Normal.Ingress); got != test.tiers {
				t.Errorf("%d tiers in the preview, want %d", got, test.tiers)
			}
			if len(p.Endpoints[eth0].Normal.Ingress[0].Policies) != len(test.policies) {
				t.Error("the program changed")
			}
		})
	}
}

// TestPreviewOfPreview: nothing is staged any more in a preview, and what it is made of stays as it was.
func TestPreviewOfPreview(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		p := drawProgram(t)
		pkt := drawPacket(t)
		before := Eval(p, pkt)
		q := Preview(p)
		for _, policy := range q.Policies {
			if policy.Staged || policy.Superseded {
				t.Fatalf("%+v is in the preview", policy)
			}
		}
		if again := Preview(q); !reflect.DeepEqual(again, q) {
			t.Fatalf("preview of the preview differs: %+v, %+v", again, q)
		}
		if after := Eval(p, pkt); after != before {
			t.Fatalf("verdict was %+v, is %+v", before, after)
		}
	})
}

func TestNearMiss(t *testing.T) {
	inSet := func(a Action, ids ...SetID) Rule {
		return Rule{Action: a, Protocol: TCP, Source: Entity{Sets: ids}, Destination: Entity{Ports: ranges(PortRange{80, 90})}}
	}
	address := func(text string) func(*Miss) {
		return func(m *Miss) { m.Addr = packet(from(text)).Src }
	}
	join := func(m *Miss) { m.Join = true }
	of := func(id SetID) func(*Miss) { return func(m *Miss) { m.Set = id } }
	port := func(n uint16) func(*Miss) { return func(m *Miss) { m.Kind, m.Port = OtherPort, n } }
	order := func(policy, before string) func(*Miss) {
		return func(m *Miss) {
			m.Kind, m.Tier, m.Policy, m.Before = OtherOrder, "t", policyID(policy), policyID(before)
		}
	}
	miss := func(changes ...func(*Miss)) *Miss {
		m := &Miss{}
		for _, c := range changes {
			c(m)
		}
		return m
	}
	webOnly := Rule{Action: Allow, Destination: Entity{Ports: named("web")}}
	webOfTwo := webOnly
	webOfTwo.Source.Sets = []SetID{"two"}
	notOne := Rule{Action: Deny, Source: Entity{NotSets: []SetID{"two"}}}
	tests := []struct {
		name  string
		rules map[string][]Rule
		order []string
		pkt   *Packet
		want  *Miss
	}{
		{"not in the set", map[string][]Rule{"a": {inSet(Allow, "two")}}, []string{"a"}, packet(), miss(of("two"), address("10.0.0.1"), join)},
		{"not in a set that is missing", map[string][]Rule{"a": {inSet(Allow, "gone")}}, []string{"a"}, packet(), miss(of("gone"), address("10.0.0.1"), join)},
		{"in the set", map[string][]Rule{"a": {inSet(Allow, "one")}}, []string{"a"}, packet(), miss(of("one"), address("10.0.0.1"))},
		{"in the set by a net", map[string][]Rule{"a": {inSet(Allow, "ten")}}, []string{"a"}, packet(), miss(of("ten"), address("10.0.0.1"))},
		{"excluded", map[string][]Rule{"a": {notOne, allow}}, []string{"a"}, packet(), miss(of("two"), address("10.0.0.1"), join)},
		{"denied by a set", map[string][]Rule{"a": {inSet(Deny, "one"), allow}}, []string{"a"}, packet(), miss(of("one"), address("10.0.0.1"))},
		{"named port", map[string][]Rule{"a": {webOnly}}, []string{"a"}, packet(), miss(of("web"), address("10.0.0.2"), join, func(m *Miss) { m.Port = 80 })},
		{"a label before the name of a port", map[string][]Rule{"a": {webOfTwo, {Action: Deny, Destination: Entity{Ports: named("web")}}, allow}}, []string{"a"}, packet(to(8080)), miss(of("two"), address("10.0.0.1"), join)},
		{"port below", map[string][]Rule{"a": {inSet(Allow, "one")}}, []string{"a"}, packet(to(79)), miss(port(80))},
		{"port above", map[string][]Rule{"a": {{Action: Deny, Protocol: TCP, Destination: Entity{Ports: ranges(PortRange{1, 80})}}, allow}}, []string{"a"}, packet(), miss(port(81))},
		{"order", map[string][]Rule{"a": {deny}, "b": {allow}}, []string{"a", "b"}, packet(), miss(order("b", "a"))},
		{"order behind a pass", map[string][]Rule{"a": {pass}, "b": {other}, "c": {allow}}, []string{"a", "b", "c"}, packet(), miss(order("c", "a"))},
		{"two things at once", map[string][]Rule{"a": {inSet(Allow, "two", "empty")}}, []string{"a"}, packet(), nil},
		{"nothing helps", map[string][]Rule{"a": {deny}}, []string{"a"}, packet(), nil},
		{"failsafe", map[string][]Rule{"a": {deny}}, []string{"a"}, packet(to(22)), nil},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			p := host([]Tier{tier("t", test.order...)}, test.rules)
			p.Sets, p.Settings = testSets(), guarded().Settings
			got, ok := NearMiss(p, test.pkt)
			if got.Verdict.Allowed == Eval(p, test.pkt).Allowed && ok {
				t.Errorf("the verdict does not turn: %+v", got)
			}
			got.Verdict = Verdict{}
			if ok != (test.want != nil) || ok && got != *test.want {
				t.Errorf("NearMiss = %+v, %v; want %+v", got, ok, test.want)
			}
		})
	}
}

// TestNearMissTurns: the change that NearMiss names, made for real, turns the verdict, and when it names none, no change of
// one membership does.
func TestNearMissTurns(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		p, pkt := drawProgram(t), drawPacket(t)
		before := Eval(p, pkt)
		m, ok := NearMiss(p, pkt)
		switch {
		case !ok || m.Kind != Membership:
			for _, id := range slices.Concat(setPool, portSets) {
				for _, end := range []Miss{
					{Set: id, Addr: pkt.Src}, {Set: id, Addr: pkt.Dst},
					{Set: id, Addr: pkt.Src, Port: pkt.SrcPort}, {Set: id, Addr: pkt.Dst, Port: pkt.DstPort},
				} {
					if q := changed(p, pkt, end); Eval(q, pkt).Allowed != before.Allowed {
						t.Fatalf("%+v: NearMiss found %+v, but %+v turns %+v", pkt, m, end, before)
					}
				}
			}
		default:
			q := changed(p, pkt, m)
			if got := Eval(q, pkt); got != m.Verdict || got.Allowed == before.Allowed {
				t.Fatalf("%+v: %+v changes %+v to %+v", pkt, m, before, got)
			}
		}
		if ok && m.Kind == OtherPort {
			other := *pkt
			other.DstPort = m.Port
			if got := Eval(p, &other); got != m.Verdict || got.Allowed == before.Allowed {
				t.Fatalf("%+v: %+v changes %+v to %+v", pkt, m, before, got)
			}
		}
	})
}

// changed turns one membership round in a whole copy of a program.
func changed(p *Program, pkt *Packet, m Miss) *Program {
	q := *p
	q.Sets = map[SetID]*Set{}
	for id, set := range p.Sets {
		q.Sets[id] = set.Clone()
	}
	set := q.Sets[m.Set]
	if set == nil {
		set = NewSet(Addrs, "")
		if m.Port != 0 {
			set.Kind = AddrPorts
		}
		q.Sets[m.Set] = set
	}
	if set.Kind == AddrPorts {
		member := Member{Prefix: members(m.Addr.String() + fmt.Sprintf("/%d", m.Addr.BitLen()))[0].Prefix, Protocol: pkt.Protocol, Port: m.Port}
		if !set.Add(member) {
			set.Remove(member)
		}
		return &q
	}
	if !set.Contains(m.Addr) {
		set.Add(Member{Prefix: members(m.Addr.String() + fmt.Sprintf("/%d", m.Addr.BitLen()))[0].Prefix})
		return &q
	}
	// Out of every net that covers it; the other addresses of the packet stay.
	stays := []Member{}
	for _, other := range []string{pkt.Src.String(), pkt.Dst.String(), pkt.OrigDst.String()} {
		if other == m.Addr.String() || other == "invalid IP" {
			continue
		}
		if prefix := packet(from(other)).Src; set.Contains(prefix) {
			stays = append(stays, members(other+fmt.Sprintf("/%d", prefix.BitLen()))...)
		}
	}
	q.Sets[m.Set] = NewSet(Addrs, "", stays...)
	return &q
}

func TestLogText(t *testing.T) {
	np := PolicyID{"NetworkPolicy", "ns", "p"}
	tests := []struct {
		prefix string
		id     PolicyID
		want   string
	}{
		{"calico-packet", np, "calico-packet"},
		{"", np, ""},
		{"%t/%k/%p/%n", np, "t/np/ns/p/p"},
		{"%p", policyID("g"), "g"},
		{"%k %k", policyID("g"), "gnp gnp"},
		{"%k", PolicyID{Kind: "StagedKubernetesNetworkPolicy"}, "sknp"},
		{"%k", PolicyID{Kind: "StagedNetworkPolicy"}, "snp"},
		{"%k", PolicyID{Kind: "StagedGlobalNetworkPolicy"}, "sgnp"},
		{"%k", PolicyID{Kind: "KubernetesNetworkPolicy"}, "knp"},
		{"%k", PolicyID{Kind: "KubernetesClusterNetworkPolicy"}, "kcnp"},
		{"%k", PolicyID{Kind: "Profile"}, "pro"},
		{"%k", PolicyID{Kind: "Other"}, "Other"},
		{"100%x %%t", np, "100%x %t"},
		{"%t", PolicyID{Name: "%n"}, "t"},
		{"%n", PolicyID{Name: "%t"}, "%t"},
	}
	for _, test := range tests {
		s := Settings{LogPrefix: test.prefix}
		if got := s.LogText("t", test.id); got != test.want {
			t.Errorf("%q for %s is %q, want %q", test.prefix, test.id, got, test.want)
		}
	}
}
