package ipvs

import (
	"fmt"
	"math/rand/v2"
	"net/netip"

	"margay/ruleset"
)

// A walk is where policy can be: an endpoint, a stage and a direction.
type walk struct {
	endpoint string // by its interface
	stage    ruleset.Stage
	dir      ruleset.Direction
}

// walks returns all of them.
func walks() []walk {
	var list []walk
	for _, endpoint := range []string{"wan", "lan", "*"} {
		for _, stage := range []ruleset.Stage{ruleset.Normal, ruleset.Forward, ruleset.PreDNAT, ruleset.Untracked} {
			for _, dir := range []ruleset.Direction{ruleset.Ingress, ruleset.Egress} {
				if stage == ruleset.PreDNAT && dir == ruleset.Egress || stage == ruleset.Untracked && endpoint == "*" {
					continue
				}
				list = append(list, walk{endpoint, stage, dir})
			}
		}
	}
	for _, endpoint := range []string{"cali1", "cali2"} {
		list = append(list, walk{endpoint, ruleset.Normal, ruleset.Ingress}, walk{endpoint, ruleset.Normal, ruleset.Egress})
	}
	return list
}

// program returns a program with IPVS in which wan, lan and all other interfaces are host endpoints and pod and mod are workloads. Where
// rules are named, a policy has them; elsewhere everything may pass that does not need to be allowed.
func program(f family, rules map[walk][]ruleset.Rule) *ruleset.Program {
	p := ruleset.NewProgram()
	p.Settings = ruleset.Settings{IPVS: true, WorkloadPrefixes: []string{"cali"}, EndpointToHost: ruleset.HostReturn}
	all := []ruleset.Rule{{Action: ruleset.Allow}}
	p.Profiles["open"] = &ruleset.Profile{Name: "open", Ingress: all, Egress: all}
	of := func(endpoint string, stage ruleset.Stage) ruleset.Walk {
		tiers := func(dir ruleset.Direction) []ruleset.Tier {
			list, ok := rules[walk{endpoint, stage, dir}]
			if !ok {
				return nil
			}
			id := ruleset.PolicyID{Kind: "GlobalNetworkPolicy", Name: fmt.Sprint(endpoint, "-", uint8(stage), "-", dir)}
			p.Policies[id] = &ruleset.Policy{ID: id, Ingress: list, Egress: list}
			return []ruleset.Tier{{Name: "default", Policies: []ruleset.PolicyID{id}}}
		}
		return ruleset.Walk{Ingress: tiers(ruleset.Ingress), Egress: tiers(ruleset.Egress)}
	}
	for _, name := range []string{"wan", "lan", "*"} {
		ep := &ruleset.Endpoint{
			ID: endpointID(name), Interfaces: []string{name}, Normal: of(name, ruleset.Normal),
			Forward: of(name, ruleset.Forward), PreDNAT: of(name, ruleset.PreDNAT), Untracked: of(name, ruleset.Untracked), Profiles: []string{"open"},
		}
		p.Endpoints[ep.ID] = ep
	}
	for name, addr := range map[string]netip.Addr{"cali1": f.pod, "cali2": f.mod} {
		w := &ruleset.Workload{
			ID: workloadID(name), Interface: name, Addrs: []netip.Addr{addr},
			Normal: of(name, ruleset.Normal), Profiles: []string{"open"},
		}
		p.Workloads[w.ID] = w
	}
	return p
}

func endpointID(name string) ruleset.EndpointID {
	return ruleset.EndpointID{Kind: "HostEndpoint", Name: "host-" + name}
}

func workloadID(name string) ruleset.EndpointID {
	return ruleset.EndpointID{Kind: "WorkloadEndpoint", Namespace: "ns", Name: name}
}

// draw returns a program with policies here and there. Their rules ask for addresses and ports that packets have before or behind IPVS.
func draw(r *rand.Rand, f family) *ruleset.Program {
	rules := map[walk][]ruleset.Rule{}
	few := 2 + r.IntN(5)
	for _, w := range walks() {
		if r.IntN(few) != 0 {
			continue
		}
		list := []ruleset.Rule{}
		for range r.IntN(4) {
			list = append(list, drawRule(r, f))
		}
		rules[w] = list
	}
	p := program(f, rules)
	p.Settings.EndpointToHost = []ruleset.HostAction{ruleset.HostDrop, ruleset.HostReturn, ruleset.HostAccept}[r.IntN(3)]
	p.Settings.Reject, p.Settings.RejectLoops = r.IntN(2) == 0, r.IntN(2) == 0
	if r.IntN(2) == 0 {
		p.Settings.ServiceNets = []netip.Prefix{netip.PrefixFrom(f.vip, f.vip.BitLen()-8).Masked()}
	}
	for _, name := range []string{"wan", "lan", "*", "cali1", "cali2"} {
		if r.IntN(4) == 0 {
			delete(p.Endpoints, endpointID(name))
			delete(p.Workloads, workloadID(name))
		}
	}
	for _, list := range []*[]ruleset.Failsafe{&p.Settings.FailsafeIngress, &p.Settings.FailsafeEgress} {
		if r.IntN(4) == 0 {
			*list = []ruleset.Failsafe{{Protocol: ruleset.TCP, Port: ports[r.IntN(len(ports))]}}
		}
	}
	return p
}

func drawRule(r *rand.Rand, f family) ruleset.Rule {
	rule := ruleset.Rule{Action: ruleset.Action(r.IntN(2))}
	if r.IntN(3) == 0 {
		rule.Protocol = []uint8{ruleset.TCP, ruleset.UDP}[r.IntN(2)]
	}
	some := func() []netip.Prefix {
		var nets []netip.Prefix
		for _, n := range f.names() {
			if r.IntN(3) == 0 {
				nets = append(nets, netip.PrefixFrom(n.addr, n.addr.BitLen()))
			}
		}
		return nets // nil: any
	}
	switch r.IntN(4) {
	case 0:
		rule.Source.Nets = some()
	case 1:
		rule.Destination.Nets = some()
	case 2:
		rule.Protocol = []uint8{ruleset.TCP, ruleset.UDP}[r.IntN(2)]
		port := ports[r.IntN(len(ports))]
		rule.Destination.Ports = &ruleset.Ports{Ranges: []ruleset.PortRange{{First: port, Last: port}}}
	}
	return rule
}
