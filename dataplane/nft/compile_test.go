package nft

import (
	"flag"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"margay/ruleset"
)

var update = flag.Bool("update", false, "write the golden files anew")

func policyOf(name string, ingress ...ruleset.Rule) *ruleset.Policy {
	return &ruleset.Policy{ID: ruleset.PolicyID{Kind: "GlobalNetworkPolicy", Name: name}, Ingress: ingress}
}

func hostEndpoint(name string, interfaces ...string) *ruleset.Endpoint {
	return &ruleset.Endpoint{ID: ruleset.EndpointID{Kind: "HostEndpoint", Name: name}, Interfaces: interfaces}
}

func tcp(action ruleset.Action, ports ...uint16) ruleset.Rule {
	r := ruleset.Rule{Action: action, Protocol: ruleset.TCP}
	r.Destination.Ports = &ruleset.Ports{}
	for _, p := range ports {
		r.Destination.Ports.Ranges = append(r.Destination.Ports.Ranges, ruleset.PortRange{First: p, Last: p})
	}
	return r
}

// programOf puts policies in order into tier default of every endpoint.
func programOf(endpoints []*ruleset.Endpoint, policies ...*ruleset.Policy) *ruleset.Program {
	p := ruleset.NewProgram()
	var ids []ruleset.PolicyID
	for _, policy := range policies {
		p.Policies[policy.ID] = policy
		ids = append(ids, policy.ID)
	}
	for _, ep := range endpoints {
		ep.Normal.Ingress = []ruleset.Tier{{Name: "default", Policies: ids}}
		p.Endpoints[ep.ID] = ep
	}
	return p
}

// goldens are Programs with the table that Compile makes of each in testdata.
func goldens() map[string]*ruleset.Program {
	one := []*ruleset.Endpoint{hostEndpoint("master", "eth0")}
	ipv6 := programOf(one, policyOf("v6", ruleset.Rule{Action: ruleset.Allow, Family: ruleset.IPv6}))
	ipv6.Settings.Reject, ipv6.Settings.AcceptInvalid = true, true
	return map[string]*ruleset.Program{
		"empty":      ruleset.NewProgram(),
		"everything": sample(),
		"deny-list":  denyList(),
		"reject-v6":  ipv6,
		"stages":     stages(),
		"workloads":  workloads(),
		"cut":        teams(),
		"matches": programOf([]*ruleset.Endpoint{hostEndpoint("master", "eth0")}, policyOf("matches",
			ruleset.Rule{Action: ruleset.Allow, Protocol: ruleset.ICMP, ICMP: ruleset.ICMPMatch{HasType: true, HasCode: true, Type: 8}},
			ruleset.Rule{Action: ruleset.Allow, NotICMP: ruleset.ICMPMatch{HasType: true, HasCode: true, Type: 3, Code: 1}},
			ruleset.Rule{Action: ruleset.Allow, Source: ruleset.Entity{Nets: netsOf("10.0.0.0/8")}},
			ruleset.Rule{Action: ruleset.Allow, Source: ruleset.Entity{NotNets: netsOf("10.0.0.0/8")}},
			ruleset.Rule{Action: ruleset.Allow, Source: ruleset.Entity{NotNets: netsOf("0.0.0.0/0")}},
			ruleset.Rule{Action: ruleset.Allow, Source: ruleset.Entity{Nets: []netip.Prefix{}}},
			ruleset.Rule{Action: ruleset.Deny, Source: ruleset.Entity{Sets: []ruleset.SetID{"missing"}}},
			ruleset.Rule{Action: ruleset.Deny, Source: ruleset.Entity{NotSets: []ruleset.SetID{"missing"}}, NotProtocol: ruleset.TCP},
			ruleset.Rule{Action: ruleset.Allow, Source: ruleset.Entity{Ports: &ruleset.Ports{}}},
			ruleset.Rule{Action: ruleset.Allow, Destination: ruleset.Entity{NotPorts: &ruleset.Ports{
				Ranges: []ruleset.PortRange{{First: 80, Last: 90}, {First: 91, Last: 99}}}}},
			ruleset.Rule{Action: ruleset.Pass, Protocol: 47},
		)),
	}
}

// stages has an endpoint with every stage, and one for all other interfaces.
func stages() *ruleset.Program {
	p := programOf([]*ruleset.Endpoint{hostEndpoint("gate", "eth0", "lo"), hostEndpoint("rest", "*")},
		policyOf("web", tcp(ruleset.Allow, 443)))
	list := []ruleset.Tier{{Name: "default", Policies: []ruleset.PolicyID{{Kind: "GlobalNetworkPolicy", Name: "web"}}}}
	for _, ep := range p.Endpoints {
		ep.Forward, ep.PreDNAT = ruleset.Walk{Ingress: list}, ruleset.Walk{Ingress: list}
		ep.Untracked = ruleset.Walk{Ingress: list, Egress: list}
	}
	p.Settings.FailsafeIngress = []ruleset.Failsafe{{Protocol: ruleset.TCP, Port: 22}}
	p.Settings.FailsafeEgress = []ruleset.Failsafe{{Protocol: ruleset.UDP, Port: 53}}
	p.Settings.WorkloadPrefixes = []string{"cali"}
	return p
}

// teams has a policy for each of some teams, with rules for their ports: what is cut by port and by address.
func teams() *ruleset.Program {
	var policies []*ruleset.Policy
	sets := map[ruleset.SetID]*ruleset.Set{}
	for i, team := range []string{"web", "api", "billing", "search"} {
		id := ruleset.SetID(team)
		sets[id] = ruleset.NewSet(ruleset.Addrs, "team == '"+team+"'", ruleset.Member{Prefix: netip.MustParsePrefix(fmt.Sprintf("10.1.%d.0/24", i))},
			ruleset.Member{Prefix: netip.MustParsePrefix(fmt.Sprintf("10.9.0.%d/32", i))})
		policy := policyOf(team, ruleset.Rule{Action: ruleset.Log, Protocol: ruleset.ICMP}, tcp(ruleset.Allow, 80), tcp(ruleset.Allow, 8000, 8001), tcp(ruleset.Allow, 9090))
		for j := range policy.Ingress[1:] {
			policy.Ingress[1+j].Source.Sets = []ruleset.SetID{id}
		}
		policy.Ingress[3].Source.NotNets = netsOf("10.1.2.0/24")
		policies = append(policies, policy)
	}
	p := programOf([]*ruleset.Endpoint{hostEndpoint("master", "eth0")}, policies...)
	p.Sets = sets
	return p
}

// workloads has two of them.
func workloads() *ruleset.Program {
	p := ruleset.NewProgram()
	web := policyOf("web", ruleset.Rule{Action: ruleset.Log}, tcp(ruleset.Allow, 443))
	p.Policies[web.ID] = web
	list := []ruleset.Tier{{Name: "default", Policies: []ruleset.PolicyID{web.ID}}}
	p.Profiles["kns.prod"] = &ruleset.Profile{Name: "kns.prod", Egress: []ruleset.Rule{{Action: ruleset.Allow}}}
	for i, name := range []string{"front", "back"} {
		id := ruleset.EndpointID{Kind: "WorkloadEndpoint", Namespace: "prod", Name: name}
		p.Workloads[id] = &ruleset.Workload{ID: id, Interface: "cali" + name, Profiles: []string{"kns.prod"},
			Normal: ruleset.Walk{Ingress: list}, Addrs: []netip.Addr{own4(3, i+1), own6(3, i+1)}}
	}
	p.Settings.WorkloadPrefixes, p.Settings.EndpointToHost = []string{"cali"}, ruleset.HostAccept
	p.Settings.LogRate = ruleset.LogRate{Packets: 10, Per: time.Minute}
	return p
}

// denyList is the first approach of the guide: everything is open but port 9091, which labelled sources reach.
func denyList() *ruleset.Program {
	scraper := tcp(ruleset.Allow, 9091)
	scraper.Source.Sets = []ruleset.SetID{"scrapers"}
	p := programOf([]*ruleset.Endpoint{hostEndpoint("master", "eth0")},
		policyOf("allow-scrapers", scraper), policyOf("restrict", tcp(ruleset.Deny, 9091)),
		policyOf("default-host", ruleset.Rule{Action: ruleset.Allow}))
	p.Sets["scrapers"] = ruleset.NewSet(ruleset.Addrs, `calico-prometheus-access == "true"`,
		ruleset.Member{Prefix: netip.MustParsePrefix("172.15.0.0/24")}, ruleset.Member{Prefix: netip.MustParsePrefix("172.15.0.101/32")})
	p.Settings.FailsafeIngress = []ruleset.Failsafe{{Protocol: ruleset.TCP, Port: 22}, {Protocol: ruleset.UDP, Port: 68}}
	return p
}

func TestCompileGolden(t *testing.T) {
	for name, p := range goldens() {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join("testdata", name+".nft")
			got := Compile(p).String()
			if *update {
				if err := os.WriteFile(path, []byte(got), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(string(want), got); diff != "" {
				t.Error(diff)
			}
		})
	}
}

// Names stay within bounds, tell apart what differs, and can be read by nft(8) and in part by people.
func TestIdent(t *testing.T) {
	long := strings.Repeat("x", 200)
	names := []string{
		ident("in", "eth0"), ident("in", "eth1"), ident("in", "eth/0"), ident("in", "eth_0"), ident("in", "eth:0"),
		ident("ingress", "HostEndpoint", long+"a"), ident("ingress", "HostEndpoint", long+"b"),
		ident("in", "é"), ident("in", "è"), ident("in", ""),
		endpointChain(ruleset.EndpointID{Kind: "K", Namespace: "a", Name: "b"}, ruleset.Ingress),
		endpointChain(ruleset.EndpointID{Kind: "K", Name: "a/b"}, ruleset.Ingress),
	}
	for i, name := range names {
		if len(name) > maxName {
			t.Errorf("%s has %d bytes", name, len(name))
		}
		if slices.Index(names, name) != i {
			t.Errorf("%s twice", name)
		}
		for _, r := range name {
			if r != '/' && identRune(r) != r {
				t.Errorf("%q in %s", r, name)
			}
		}
	}
	if names[0] != "in/eth0" {
		t.Errorf("got %s", names[0])
	}
}

func TestRemark(t *testing.T) {
	if got := remark("a == \"b\" \n\\"); got != "a == 'b' ?'" {
		t.Errorf("got %s", got)
	}
	long := strings.Repeat("x", 200)
	a, b := remark(long+"a"), remark(long+"b")
	if len(a) > maxName || a == b {
		t.Errorf("got %s and %s", a, b)
	}
}

func TestLogPrefix(t *testing.T) {
	id := ruleset.PolicyID{Kind: "NetworkPolicy", Namespace: "prod", Name: "web"}
	tests := []struct{ configured, want string }{
		{"calico-packet", "calico-packet default NetworkPolicy(prod/web): "},
		{"", "default NetworkPolicy(prod/web): "},
		{"%t|%k|%p|%n", "default|np|prod/web|web: "},
	}
	for _, tt := range tests {
		u := &builder{settings: &ruleset.Settings{LogPrefix: tt.configured}}
		if got := u.logPrefix("default", id); got != tt.want {
			t.Errorf("%q: got %q, want %q", tt.configured, got, tt.want)
		}
	}
	id.Name = strings.Repeat("n", 250)
	u := &builder{settings: &ruleset.Settings{}}
	if got := u.logPrefix("default", id); len(got) > maxLogPrefix {
		t.Errorf("%d bytes", len(got))
	}
}

// What an expression is encoded to is what canonical makes of it: the form in which rules are compared.
func TestCanonicalIsIdentityOnOurs(t *testing.T) {
	g := newGenerator(seedOf(t))
	for range 50 {
		for _, c := range Compile(g.program()).Chains {
			for _, r := range c.Rules {
				if canonical([]byte(r.code)) != r.code {
					t.Fatalf("%s", r)
				}
			}
		}
	}
}

func FuzzAttributes(f *testing.F) {
	f.Add([]byte(code{}.meta(1, 2).counter()))
	f.Fuzz(func(t *testing.T, b []byte) {
		canonical(b)
		commentOf(b, 0)
		messages(b)
		(&Set{}).readElement(b, texts{})
		new(LogEntry).parse(b)
	})
}
