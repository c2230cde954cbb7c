package ruleset

import "testing"

func TestRuleText(t *testing.T) {
	p := NewProgram()
	p.Sets["a"] = NewSet(Addrs, `role == "db"`)
	p.Sets["n"] = NewSet(AddrPorts, "port http of all()")
	many := make([]string, 8)
	for i := range many {
		many[i] = "10.0.0.0/8"
	}
	tests := []struct {
		rule Rule
		want string
	}{
		{Rule{}, "Deny"},
		{Rule{Action: Allow, Protocol: TCP}, "Allow TCP"},
		{Rule{Action: Pass, Family: IPv6, NotProtocol: 47}, "Pass IPv6 !protocol 47"},
		{Rule{Action: Log, Family: IPv4, Protocol: ICMP, ICMP: ICMPMatch{HasType: true, Type: 8}}, "Log ICMP type 8"},
		{Rule{Family: IPv6, Protocol: ICMPv6, NotICMP: ICMPMatch{HasType: true, HasCode: true, Type: 1, Code: 3}}, "Deny ICMPv6 !(type 1 code 3)"},
		{Rule{Source: Entity{Nets: nets()}}, "Deny from nothing"},
		{Rule{Source: Entity{Nets: nets("10.0.0.0/8", "10.1.0.0/16"), NotNets: nets("10.2.0.0/16")}}, "Deny from 10.0.0.0/8,10.1.0.0/16 !(10.2.0.0/16)"},
		{Rule{Source: Entity{Nets: nets(many...)}}, "Deny from 10.0.0.0/8,10.0.0.0/8,10.0.0.0/8,10.0.0.0/8,10.0.0.0/8,10.0.0.0/8 and 2 more"},
		{Rule{Protocol: TCP, Source: Entity{NotSets: []SetID{"a"}}, Destination: Entity{Ports: &Ports{Ranges: []PortRange{{9091, 9091}, {1, 5}}}}},
			`Deny TCP from !(role == "db") to port 9091,1:5`},
		{Rule{Destination: Entity{Sets: []SetID{"a", "gone"}, Ports: &Ports{Named: []SetID{"n"}, Ranges: []PortRange{{80, 80}}}}},
			`Deny to role == "db" set gone port 80 or port http of all()`},
		{Rule{Destination: Entity{Ports: &Ports{}, NotPorts: &Ports{Ranges: []PortRange{{1, 1}}}}}, "Deny to no port !(port 1)"},
	}
	for _, tt := range tests {
		if got := p.RuleText(&tt.rule); got != tt.want {
			t.Errorf("%+v: %q, want %q", tt.rule, got, tt.want)
		}
	}
}
