package ruleset

import (
	"net/netip"
	"testing"
)

// The host of the tests: eth0 and eth1 are host endpoints of their own, everything else is that of "*"; pods are behind
// cali1 (10.0.0.1, fd00::1) and cali2 (10.0.0.2). Every walk has a policy of its own that does what its name says.
const (
	onEth0 = "HostEndpoint/eth0"
	onEth1 = "HostEndpoint/eth1"
	onAll  = "HostEndpoint/all"
	onPod1 = "WorkloadEndpoint/pod1"
	onPod2 = "WorkloadEndpoint/pod2"
)

// walks says what policies there are: endpoint, stage and direction to a rule that does it for everything, or nil for a
// policy without a rule.
type walks map[walkKey]Action

type walkKey struct {
	endpoint string
	stage    Stage
	dir      Direction
}

const nothing Action = 100 // a policy without a rule

// pathHost returns a host with these policies. Host endpoints and pods without a policy in the normal stage are open.
func pathHost(w walks) *Program {
	p := NewProgram()
	p.Settings = Settings{
		WorkloadPrefixes: []string{"cali"}, EndpointToHost: HostReturn,
		FailsafeIngress: []Failsafe{{Protocol: TCP, Port: 22}}, FailsafeEgress: []Failsafe{{Protocol: TCP, Port: 2379, Net: netip.MustParsePrefix("10.0.0.0/8")}},
	}
	p.Profiles["open"] = &Profile{Name: "open", Ingress: []Rule{allow}, Egress: []Rule{allow}}
	walk := func(endpoint string, s Stage) Walk {
		list := func(d Direction) []Tier {
			action, ok := w[walkKey{endpoint, s, d}]
			if !ok {
				return nil
			}
			id := PolicyID{"GlobalNetworkPolicy", "", endpoint + " " + s.String() + " " + d.String()}
			p.Policies[id] = &Policy{ID: id}
			if action != nothing {
				p.Policies[id].Ingress, p.Policies[id].Egress = []Rule{{Action: action}}, []Rule{{Action: action}}
			}
			return []Tier{{Name: "t", Policies: []PolicyID{id}}}
		}
		return Walk{list(Ingress), list(Egress)}
	}
	for name, iface := range map[string]string{onEth0: "eth0", onEth1: "eth1", onAll: AllInterfaces} {
		id := EndpointID{"HostEndpoint", "", name}
		p.Endpoints[id] = &Endpoint{
			ID: id, Interfaces: []string{iface}, Normal: walk(name, Normal), Forward: walk(name, Forward), PreDNAT: walk(name, PreDNAT),
			Untracked: walk(name, Untracked), Profiles: []string{"open"},
		}
	}
	for name, iface := range map[string]string{onPod1: "cali1", onPod2: "cali2"} {
		id := EndpointID{"WorkloadEndpoint", "ns", name}
		p.Workloads[id] = &Workload{ID: id, Interface: iface, Normal: walk(name, Normal), Profiles: []string{"open"}}
	}
	pod1, pod2 := p.Workloads[EndpointID{"WorkloadEndpoint", "ns", onPod1}], p.Workloads[EndpointID{"WorkloadEndpoint", "ns", onPod2}]
	pod1.Addrs = []netip.Addr{netip.MustParseAddr("10.0.0.1"), netip.MustParseAddr("fd00::1")}
	pod1.Spoofable = nets("192.0.2.0/24")
	pod2.Addrs = []netip.Addr{netip.MustParseAddr("10.0.0.2")}
	return p
}

// otherName gives pod1 an interface whose name does not tell that it is a workload's.
func otherName(p *Program) {
	p.Workloads[EndpointID{"WorkloadEndpoint", "ns", onPod1}].Interface = "veth1"
}

func way(in, out string) func(*Packet) { return func(p *Packet) { p.In, p.Out = in, out } }
func is(s ConnState) func(*Packet)     { return func(p *Packet) { p.State = s } }
func src(port uint16) func(*Packet)    { return func(p *Packet) { p.SrcPort = port } }
func dst(addr string) func(*Packet)    { return func(p *Packet) { p.Dst = netip.MustParseAddr(addr) } }

// translated says that the packet was sent to another address and port.
func translated(addr string, port uint16, out string) func(*Packet) {
	return func(p *Packet) { p.DNAT, p.OrigDst, p.OrigPort, p.OrigOut = true, netip.MustParseAddr(addr), port, out }
}

// said is the short form of a verdict: allow or deny, and the endpoint, stage and direction, or the reason, that said so.
func said(v Verdict) string {
	text := "deny: "
	if v.Allowed {
		text = "allow: "
	}
	if v.Reason == PolicyRule || v.Reason == EndOfTier {
		text += v.Endpoint.Name + " " + v.Stage.String() + " " + v.Direction.String()
		if v.Reason == EndOfTier {
			text += ", end of tier"
		}
	} else {
		text += v.Reason.String()
	}
	if v.NotTracked {
		text += ", not tracked"
	}
	return text
}

// TestPath: which stages a packet meets on its way, and what passes before policy.
func TestPath(t *testing.T) {
	set := func(pairs ...any) walks {
		w := walks{}
		for i := 0; i < len(pairs); i += 4 {
			w[walkKey{pairs[i].(string), pairs[i+1].(Stage), pairs[i+2].(Direction)}] = pairs[i+3].(Action)
		}
		return w
	}
	drop := func(p *Program) { p.Settings.EndpointToHost = HostDrop }
	tunnels := func(p *Program) {
		p.Settings.Tunnels = []Tunnel{{Protocol: UDP, Port: 4789}, {Protocol: 4, Family: IPv4}, {Protocol: UDP, Port: 51820, Proven: true}}
		p.Settings.TunnelNets = nets("192.0.2.0/24")
		p.Sets[Hosts] = NewSet(Addrs, "", members("10.0.0.1/32", "10.0.0.2/32")...)
	}
	own := func(p *Packet) { p.Own = true }
	accept := func(p *Program) { p.Settings.EndpointToHost = HostAccept }
	services := func(p *Program) { p.Settings.ServiceNets = nets("10.96.0.0/12", "fd96::/112") }
	balanced := func(p *Packet) {
		p.Balanced, p.OrigDst, p.OrigPort, p.OrigOut = true, netip.MustParseAddr("10.96.0.1"), 80, "eth0"
	}
	spoofing := func(p *Program) { p.Settings.AllowSpoofing = true }
	type change = func(*Program)
	type packetChange = func(*Packet)
	pkt := func(c ...packetChange) []packetChange { return c }
	tests := []struct {
		name   string
		walks  walks
		pkt    []packetChange
		want   string
		change change
	}{
		// Normal.
		{"in, no policy: profiles", nil, pkt(way("eth0", "")), "allow: profile rule", nil},
		{"in", set(onEth0, Normal, Ingress, Deny), pkt(way("eth0", "")), "deny: HostEndpoint/eth0 normal ingress", nil},
		{"out", set(onEth0, Normal, Egress, Deny), pkt(way("", "eth0")), "deny: HostEndpoint/eth0 normal egress", nil},
		{"in, failsafe", set(onEth0, Normal, Ingress, Deny), pkt(way("eth0", ""), to(22)), "allow: failsafe", nil},
		{"out, failsafe", set(onEth0, Normal, Egress, Deny), pkt(way("", "eth0"), to(2379)), "allow: failsafe", nil},
		{"normal is not for forwarding", set(onEth0, Normal, Ingress, Deny, onEth1, Normal, Egress, Deny), pkt(way("eth0", "eth1")), "allow: no policy", nil},
		{"out, translated: the address after DNAT", set(onEth0, Normal, Egress, Deny), pkt(way("", "eth0"), translated("192.0.2.1", 2379, "eth0")), "deny: HostEndpoint/eth0 normal egress", nil},
		{"out, translated to a failsafe", set(onEth0, Normal, Egress, Deny), pkt(way("", "eth0"), to(2379), translated("192.0.2.1", 80, "eth1")), "allow: failsafe", nil},

		// Wildcard and loopback.
		{"*, any interface", set(onAll, Normal, Ingress, Deny), pkt(way("wlan0", "")), "deny: HostEndpoint/all normal ingress", nil},
		{"*, not where one is named", set(onAll, Normal, Ingress, Deny), pkt(way("eth0", "")), "allow: profile rule", nil},
		{"*, loopback out", set(onAll, Normal, Egress, Deny), pkt(way("", "lo")), "deny: HostEndpoint/all normal egress", nil},
		{"*, loopback in", set(onAll, Normal, Ingress, Deny), pkt(way("lo", "")), "deny: HostEndpoint/all normal ingress", nil},
		{"*, not to own pods", set(onAll, Normal, Egress, Deny), pkt(way("", "cali1")), "allow: host to own workload", nil},
		{"*, not from own pods", set(onAll, Normal, Ingress, Deny), pkt(way("cali1", "")), "allow: endpoint to host action", nil},
		{"*, untracked is ignored", set(onAll, Untracked, Ingress, Deny), pkt(way("wlan0", "")), "allow: profile rule", nil},

		// Forward.
		{"forward in", set(onEth0, Forward, Ingress, Deny), pkt(way("eth0", "eth1")), "deny: HostEndpoint/eth0 forward ingress", nil},
		{"forward out", set(onEth1, Forward, Egress, Deny), pkt(way("eth0", "eth1")), "deny: HostEndpoint/eth1 forward egress", nil},
		{"forward, end of tier", set(onEth0, Forward, Ingress, nothing), pkt(way("eth0", "eth1")), "deny: HostEndpoint/eth0 forward ingress, end of tier", nil},
		{"forward, the other direction only", set(onEth0, Forward, Egress, Deny), pkt(way("eth0", "eth1")), "allow: no policy", nil},
		{"forward, no failsafes", set(onEth0, Forward, Ingress, Deny), pkt(way("eth0", "eth1"), to(22)), "deny: HostEndpoint/eth0 forward ingress", nil},
		{"forward, both allow", set(onEth0, Forward, Ingress, Allow, onEth1, Forward, Egress, Allow), pkt(way("eth0", "eth1")), "allow: HostEndpoint/eth1 forward egress", nil},
		{"forward, passed on in the last tier", set(onEth0, Forward, Ingress, Pass), pkt(way("eth0", "eth1")), "allow: no policy", nil},
		{"forward is not for processes", set(onEth0, Forward, Ingress, Deny, onEth0, Forward, Egress, Deny), pkt(way("eth0", "")), "allow: profile rule", nil},
		{"forward, invalid", nil, pkt(way("eth0", "eth1"), is(Invalid)), "deny: invalid", nil},
		{"forward, invalid accepted", nil, pkt(way("eth0", "eth1"), is(Invalid)), "allow: no policy", func(p *Program) { p.Settings.AcceptInvalid = true }},
		{"forward, established", set(onEth0, Forward, Ingress, Deny), pkt(way("eth0", "eth1"), is(Established)), "allow: established", nil},
		{"forward on *, from a pod", set(onAll, Forward, Ingress, Deny), pkt(way("cali1", "eth0")), "deny: HostEndpoint/all forward ingress", nil},
		{"forward on *, to a pod", set(onAll, Forward, Egress, Deny), pkt(way("eth0", "cali1")), "deny: HostEndpoint/all forward egress", nil},
		{"forward, then pod", set(onEth0, Forward, Ingress, Allow, onPod1, Normal, Ingress, Deny), pkt(way("eth0", "cali1")), "deny: WorkloadEndpoint/pod1 normal ingress", nil},
		{"pod, then forward", set(onPod1, Normal, Egress, Allow, onEth0, Forward, Egress, Deny), pkt(way("cali1", "eth0")), "deny: HostEndpoint/eth0 forward egress", nil},

		// PreDNAT.
		{"preDNAT denies", set(onEth0, PreDNAT, Ingress, Deny), pkt(way("eth0", "")), "deny: HostEndpoint/eth0 pre-DNAT ingress", nil},
		{"preDNAT denies what is forwarded", set(onEth0, PreDNAT, Ingress, Deny), pkt(way("eth0", "cali1")), "deny: HostEndpoint/eth0 pre-DNAT ingress", nil},
		{"preDNAT, no end of tier", set(onEth0, PreDNAT, Ingress, nothing), pkt(way("eth0", "")), "allow: profile rule", nil},
		{"preDNAT, passed on", set(onEth0, PreDNAT, Ingress, nothing, onEth0, Normal, Ingress, Deny), pkt(way("eth0", "")), "deny: HostEndpoint/eth0 normal ingress", nil},
		{"preDNAT allows: normal policy is skipped", set(onEth0, PreDNAT, Ingress, Allow, onEth0, Normal, Ingress, Deny), pkt(way("eth0", "")), "allow: HostEndpoint/eth0 pre-DNAT ingress", nil},
		{"preDNAT allows: forward ingress is skipped", set(onEth0, PreDNAT, Ingress, Allow, onEth0, Forward, Ingress, Deny), pkt(way("eth0", "eth1")), "allow: HostEndpoint/eth0 pre-DNAT ingress", nil},
		{"preDNAT allows: forward egress of the other is not", set(onEth0, PreDNAT, Ingress, Allow, onEth1, Forward, Egress, Deny), pkt(way("eth0", "eth1")), "deny: HostEndpoint/eth1 forward egress", nil},
		{"preDNAT allows: pods have their say", set(onEth0, PreDNAT, Ingress, Allow, onPod1, Normal, Ingress, Deny), pkt(way("eth0", "cali1")), "deny: WorkloadEndpoint/pod1 normal ingress", nil},
		{"preDNAT, failsafe", set(onEth0, PreDNAT, Ingress, Deny), pkt(way("eth0", ""), to(22)), "allow: failsafe", nil},
		{"preDNAT, failsafe by the original port", set(onEth0, PreDNAT, Ingress, Deny), pkt(way("eth0", "cali1"), to(8080), translated("10.0.0.9", 22, "")), "allow: profile rule", nil},
		{"preDNAT, failsafe after DNAT does not count", set(onEth0, PreDNAT, Ingress, Deny), pkt(way("eth0", "cali1"), to(22), translated("10.0.0.9", 8080, "")), "deny: HostEndpoint/eth0 pre-DNAT ingress", nil},
		{"preDNAT, established", set(onEth0, PreDNAT, Ingress, Deny), pkt(way("eth0", ""), is(Established)), "allow: established", nil},
		{"preDNAT, invalid", set(onEth0, PreDNAT, Ingress, Allow), pkt(way("eth0", ""), is(Invalid)), "deny: invalid", nil},
		{"preDNAT on *, from a pod", set(onAll, PreDNAT, Ingress, Deny), pkt(way("cali1", "eth0")), "deny: HostEndpoint/all pre-DNAT ingress", nil},
		{"preDNAT on *, before what a pod may send to its host", set(onAll, PreDNAT, Ingress, Deny), pkt(way("cali1", "")), "deny: HostEndpoint/all pre-DNAT ingress", accept},
		{"preDNAT on * allows: pod to host is still dropped", set(onAll, PreDNAT, Ingress, Allow), pkt(way("cali1", "")), "deny: endpoint to host action", drop},
		{"preDNAT on *, loopback", set(onAll, PreDNAT, Ingress, Deny), pkt(way("lo", "")), "deny: HostEndpoint/all pre-DNAT ingress", nil},
		{"preDNAT is not for what the host sends", set(onEth0, PreDNAT, Ingress, Deny), pkt(way("", "eth0")), "allow: profile rule", nil},

		// Untracked.
		{"untracked denies", set(onEth0, Untracked, Ingress, Deny), pkt(way("eth0", "")), "deny: HostEndpoint/eth0 untracked ingress", nil},
		{"untracked denies what is established", set(onEth0, Untracked, Ingress, Deny), pkt(way("eth0", ""), is(Established)), "deny: HostEndpoint/eth0 untracked ingress", nil},
		{"untracked, no end of tier", set(onEth0, Untracked, Ingress, nothing), pkt(way("eth0", "")), "allow: profile rule", nil},
		{"untracked allows: normal policy is skipped", set(onEth0, Untracked, Ingress, Allow, onEth0, Normal, Ingress, Deny), pkt(way("eth0", "")), "allow: HostEndpoint/eth0 untracked ingress, not tracked", nil},
		{"untracked allows: preDNAT policy is skipped", set(onEth0, Untracked, Ingress, Allow, onEth0, PreDNAT, Ingress, Deny), pkt(way("eth0", "")), "allow: HostEndpoint/eth0 untracked ingress, not tracked", nil},
		{"untracked allows: forward policy is skipped", set(onEth0, Untracked, Ingress, Allow, onEth0, Forward, Ingress, Deny), pkt(way("eth0", "eth1")), "allow: HostEndpoint/eth0 untracked ingress, not tracked", nil},
		{"untracked allows: what is established is not any more", set(onEth0, Untracked, Ingress, Allow, onPod1, Normal, Ingress, Deny), pkt(way("eth0", "cali1"), is(Established)), "deny: WorkloadEndpoint/pod1 normal ingress", nil},
		{"untracked allows: nothing is invalid", set(onEth0, Untracked, Ingress, Allow), pkt(way("eth0", ""), is(Invalid)), "allow: HostEndpoint/eth0 untracked ingress, not tracked", nil},
		{"untracked out", set(onEth0, Untracked, Egress, Allow, onEth0, Normal, Egress, Deny), pkt(way("", "eth0")), "allow: HostEndpoint/eth0 untracked egress, not tracked", nil},
		{"untracked out, denied", set(onEth0, Untracked, Egress, Deny), pkt(way("", "eth0")), "deny: HostEndpoint/eth0 untracked egress", nil},
		{"untracked out is not for what is forwarded", set(onEth1, Untracked, Egress, Deny), pkt(way("eth0", "eth1")), "allow: no policy", nil},
		{"untracked out, by the interface before DNAT", set(onEth0, Untracked, Egress, Deny), pkt(way("", "cali1"), translated("192.0.2.1", 80, "eth0")), "deny: HostEndpoint/eth0 untracked egress", nil},
		{"untracked, failsafe", set(onEth0, Untracked, Ingress, Deny), pkt(way("eth0", ""), to(22)), "allow: failsafe", nil},
		{"untracked, reply from a failsafe is tracked", set(onEth0, Untracked, Ingress, Deny), pkt(way("eth0", ""), src(2379), is(Established)), "allow: established", nil},
		{"untracked, new from a failsafe port goes to policy", set(onEth0, Untracked, Ingress, Allow, onEth0, Normal, Ingress, Deny), pkt(way("eth0", ""), src(2379)), "deny: HostEndpoint/eth0 normal ingress", nil},
		{"untracked, reply from a failsafe elsewhere", set(onEth0, Untracked, Ingress, Deny), pkt(way("eth0", ""), src(2379), from("192.0.2.1")), "deny: HostEndpoint/eth0 untracked ingress", nil},
		{"untracked out, reply to a failsafe", set(onEth0, Untracked, Egress, Deny), pkt(way("", "eth0"), src(22), is(Established)), "allow: established", nil},
		{"untracked, reply port in the normal stage does not count", set(onEth0, Normal, Ingress, Deny), pkt(way("eth0", ""), src(2379)), "deny: HostEndpoint/eth0 normal ingress", nil},

		// Workloads.
		{"pod to pod: egress first", set(onPod1, Normal, Egress, Deny, onPod2, Normal, Ingress, Deny), pkt(way("cali1", "cali2")), "deny: WorkloadEndpoint/pod1 normal egress", nil},
		{"pod to pod: ingress", set(onPod1, Normal, Egress, Allow, onPod2, Normal, Ingress, Deny), pkt(way("cali1", "cali2")), "deny: WorkloadEndpoint/pod2 normal ingress", nil},
		{"pod to pod: both", set(onPod1, Normal, Egress, Allow, onPod2, Normal, Ingress, Allow), pkt(way("cali1", "cali2")), "allow: WorkloadEndpoint/pod2 normal ingress", nil},
		{"pod to itself through a service", set(onPod1, Normal, Egress, Allow, onPod1, Normal, Ingress, Deny), pkt(way("cali1", "cali1")), "deny: WorkloadEndpoint/pod1 normal ingress", nil},
		{"pod: no failsafes", set(onPod1, Normal, Ingress, Deny), pkt(way("eth0", "cali1"), to(22)), "deny: WorkloadEndpoint/pod1 normal ingress", nil},
		{"pod: end of tier", set(onPod1, Normal, Ingress, nothing), pkt(way("eth0", "cali1")), "deny: WorkloadEndpoint/pod1 normal ingress, end of tier", nil},
		{"pod: invalid", nil, pkt(way("wlan0", "cali1"), is(Invalid)), "deny: invalid", func(p *Program) { clear(p.Endpoints) }},
		{"pod: established", set(onPod1, Normal, Egress, Deny), pkt(way("cali1", "eth0"), is(Established)), "allow: established", nil},
		{"pod to host: egress policy", set(onPod1, Normal, Egress, Deny), pkt(way("cali1", "")), "deny: WorkloadEndpoint/pod1 normal egress", accept},
		{"pod to host: accept", nil, pkt(way("cali1", "")), "allow: endpoint to host action", accept},
		{"pod to host: drop", nil, pkt(way("cali1", "")), "deny: endpoint to host action", drop},
		{"pod to host: established", nil, pkt(way("cali1", ""), is(Established)), "allow: established", drop},
		{"host to own pod", set(onPod1, Normal, Ingress, Deny), pkt(way("", "cali1")), "allow: host to own workload", nil},
		{"host to own pod, unknown", nil, pkt(way("", "cali9")), "allow: host to own workload", nil},
		{"from an unknown interface", nil, pkt(way("cali9", "eth0")), "deny: unknown workload interface", nil},
		{"from an unknown interface, to the host", nil, pkt(way("cali9", ""), v6, icmp(ICMPv6, 135, 0)), "deny: unknown workload interface", accept},
		{"to an unknown interface", nil, pkt(way("eth0", "cali9")), "deny: unknown workload interface", nil},
		{"from an unknown interface, established", nil, pkt(way("cali9", "eth0"), is(Established)), "deny: unknown workload interface", nil},
		{"another name: from a pod", set(onPod1, Normal, Egress, Deny), pkt(way("veth1", "eth0")), "deny: WorkloadEndpoint/pod1 normal egress", otherName},
		{"another name: to a pod", set(onPod1, Normal, Ingress, Deny), pkt(way("eth0", "veth1")), "deny: WorkloadEndpoint/pod1 normal ingress", otherName},
		{"another name: spoofed", nil, pkt(way("veth1", "eth0"), from("10.0.0.2")), "deny: spoofed source", otherName},
		{"another name: to the host, no host endpoint", set(onAll, Normal, Ingress, Deny), pkt(way("veth1", "")), "allow: endpoint to host action", otherName},
		{"another name: host to own pod", set(onAll, Normal, Egress, Deny), pkt(way("", "veth1")), "allow: host to own workload", otherName},
		{"another name: no other than that", nil, pkt(way("veth10", "wlan0")), "allow: no endpoint", func(p *Program) { otherName(p); clear(p.Endpoints) }},
		{"another name: its old one is unknown", nil, pkt(way("cali1", "eth0")), "deny: unknown workload interface", otherName},
		{"no prefix: it is an interface like others", set(onAll, Normal, Ingress, Deny), pkt(way("cali9", "")), "deny: HostEndpoint/all normal ingress", func(p *Program) { p.Settings.WorkloadPrefixes = nil }},

		// Sources.
		{"another source", nil, pkt(way("cali1", "eth0"), from("10.0.0.2")), "deny: spoofed source", nil},
		{"another source, established", nil, pkt(way("cali1", "eth0"), from("10.0.0.2"), is(Established)), "deny: spoofed source", nil},
		{"another source, other family", nil, pkt(way("cali2", "eth0"), v6), "deny: spoofed source", nil},
		{"spoofable source", nil, pkt(way("cali1", "eth0"), from("192.0.2.1")), "deny: spoofed source", nil},
		{"spoofable source, if that is allowed", nil, pkt(way("cali1", "eth0"), from("192.0.2.1")), "allow: profile rule", spoofing},
		{"another source, spoofing is allowed", nil, pkt(way("cali1", "eth0"), from("192.0.3.1")), "deny: spoofed source", spoofing},
		{"link-local source", nil, pkt(way("cali1", ""), from("fe80::1"), dst("ff02::1"), icmp(ICMPv6, 135, 0)), "allow: neighbour discovery of a workload", nil},
		{"no source: its address may be taken", nil, pkt(way("cali1", ""), from("::"), dst("ff02::1:ff00:1"), icmp(ICMPv6, 135, 0)), "allow: neighbour discovery of a workload", nil},
		{"no source to somebody", nil, pkt(way("cali1", ""), from("::"), dst("fd00::2"), icmp(ICMPv6, 135, 0)), "deny: spoofed source", nil},
		{"no source, other protocol", nil, pkt(way("cali1", ""), from("::"), dst("ff02::1"), udp), "deny: spoofed source", nil},
		{"IPv4 link-local is a source like others", nil, pkt(way("cali1", ""), from("169.254.0.1")), "deny: spoofed source", nil},

		// Neighbour discovery and tunnels.
		{"pod discovers, policy denies", set(onPod1, Normal, Egress, Deny), pkt(way("cali1", ""), v6, icmp(ICMPv6, 136, 0)), "allow: neighbour discovery of a workload", drop},
		{"pod pings its host", set(onPod1, Normal, Egress, Deny), pkt(way("cali1", ""), v6, icmp(ICMPv6, 128, 0)), "deny: WorkloadEndpoint/pod1 normal egress", nil},
		{"pod advertises itself as a router", nil, pkt(way("cali1", ""), v6, icmp(ICMPv6, 134, 0)), "deny: endpoint to host action", drop},
		{"ICMPv6 in IPv4 is a payload", set(onPod1, Normal, Egress, Deny), pkt(way("cali1", ""), icmp(ICMPv6, 135, 0)), "deny: WorkloadEndpoint/pod1 normal egress", nil},
		{"a host discovers, in", set(onEth0, Normal, Ingress, Deny), pkt(way("eth0", ""), v6, icmp(ICMPv6, 135, 0), is(NotTracked)), "allow: neighbour discovery", nil},
		{"a host discovers, out", set(onEth0, Normal, Egress, Deny), pkt(way("", "eth0"), v6, icmp(ICMPv6, 136, 0), is(NotTracked)), "allow: neighbour discovery", nil},
		{"a router advertises itself", set(onAll, Normal, Ingress, Deny), pkt(way("eth7", ""), v6, icmp(ICMPv6, 134, 0), is(NotTracked)), "allow: neighbour discovery", nil},
		{"a host joins a group", set(onEth0, Normal, Egress, Deny), pkt(way("", "eth0"), v6, icmp(ICMPv6, 143, 0), is(NotTracked)), "allow: neighbour discovery", nil},
		{"discovery goes by preDNAT", set(onEth0, PreDNAT, Ingress, Deny, onEth0, Normal, Ingress, Deny), pkt(way("eth0", ""), v6, icmp(ICMPv6, 135, 0), is(NotTracked)), "allow: neighbour discovery", nil},
		{"discovery goes by untracked", set(onEth0, Untracked, Ingress, Deny, onEth0, Normal, Ingress, Deny), pkt(way("eth0", ""), v6, icmp(ICMPv6, 135, 0), is(NotTracked)), "allow: neighbour discovery", nil},
		{"discovery goes by untracked, out", set(onEth0, Untracked, Egress, Deny), pkt(way("", "eth0"), v6, icmp(ICMPv6, 136, 0), is(NotTracked)), "allow: neighbour discovery", nil},
		{"a redirect is no discovery", set(onEth0, Normal, Ingress, Deny), pkt(way("eth0", ""), v6, icmp(ICMPv6, 137, 0)), "deny: HostEndpoint/eth0 normal ingress", nil},
		{"a ping is no discovery", set(onEth0, Normal, Ingress, Deny), pkt(way("eth0", ""), v6, icmp(ICMPv6, 128, 0)), "deny: HostEndpoint/eth0 normal ingress", nil},
		{"forwarded discovery is policy's", set(onEth0, Forward, Ingress, Deny), pkt(way("eth0", "eth1"), v6, icmp(ICMPv6, 135, 0), is(NotTracked)), "deny: HostEndpoint/eth0 forward ingress", nil},
		{"VXLAN from a host", set(onEth0, Normal, Ingress, Deny), pkt(way("eth0", ""), udp, to(4789)), "allow: tunnel between hosts", tunnels},
		{"VXLAN from a host of TunnelNets", set(onEth0, Normal, Ingress, Deny), pkt(way("eth0", ""), udp, to(4789), from("192.0.2.7")), "allow: tunnel between hosts", tunnels},
		{"VXLAN from a stranger", set(onEth0, Normal, Ingress, Allow), pkt(way("eth0", ""), udp, to(4789), from("192.0.3.7")), "deny: tunnel from no host", tunnels},
		{"VXLAN from a stranger, no endpoint", nil, pkt(way("eth0", ""), udp, to(4789), from("192.0.3.7")), "deny: tunnel from no host", func(p *Program) { tunnels(p); clear(p.Endpoints) }},
		{"VXLAN from a stranger, let in before NAT", set(onEth0, PreDNAT, Ingress, Allow), pkt(way("eth0", ""), udp, to(4789), from("192.0.3.7")), "deny: tunnel from no host", tunnels},
		{"VXLAN from a stranger, not tracked", set(onEth0, Untracked, Ingress, Allow), pkt(way("eth0", ""), udp, to(4789), from("192.0.3.7")), "deny: tunnel from no host", tunnels},
		{"VXLAN from a host, denied before NAT", set(onEth0, PreDNAT, Ingress, Deny), pkt(way("eth0", ""), udp, to(4789)), "deny: HostEndpoint/eth0 pre-DNAT ingress", tunnels},
		{"VXLAN of a known flow", nil, pkt(way("eth0", ""), udp, to(4789), from("192.0.3.7"), is(Established)), "allow: established", tunnels},
		{"VXLAN that this host passes on", set(onEth0, Forward, Ingress, Deny), pkt(way("eth0", "eth1"), udp, to(4789)), "deny: HostEndpoint/eth0 forward ingress", tunnels},
		{"VXLAN to a host", set(onEth0, Normal, Egress, Deny), pkt(way("", "eth0"), udp, to(4789)), "allow: tunnel between hosts", tunnels},
		{"VXLAN to a stranger", set(onEth0, Normal, Egress, Deny), pkt(way("", "eth0"), udp, to(4789), dst("192.0.3.7")), "deny: HostEndpoint/eth0 normal egress", tunnels},
		{"VXLAN from a pod to its host, a tunnel", set(onPod1, Normal, Egress, Allow), pkt(way("cali2", ""), udp, to(4789), from("10.0.0.2")), "deny: tunnel from no host", func(p *Program) { tunnels(p); p.Settings.AllowVXLAN = true; p.Sets[Hosts] = nil }},
		{"VXLAN in IPv6, the tunnel is IPv4", set(onEth0, Normal, Ingress, Deny), pkt(way("eth0", ""), v6, udp, to(4789)), "deny: HostEndpoint/eth0 normal ingress", func(p *Program) { tunnels(p); p.Settings.Tunnels[0].Family = IPv4 }},
		{"IPIP from a host", set(onEth0, Normal, Ingress, Deny), pkt(way("eth0", ""), portless(4)), "allow: tunnel between hosts", tunnels},
		{"IPIP, no tunnels", set(onEth0, Normal, Ingress, Deny), pkt(way("eth0", ""), portless(4)), "deny: HostEndpoint/eth0 normal ingress", nil},
		{"WireGuard from a stranger is policy's", set(onEth0, Normal, Ingress, Allow), pkt(way("eth0", ""), udp, to(51820), from("192.0.3.7")), "allow: HostEndpoint/eth0 normal ingress", tunnels},
		{"WireGuard from a host", set(onEth0, Normal, Ingress, Deny), pkt(way("eth0", ""), udp, to(51820)), "allow: tunnel between hosts", tunnels},
		{"tunnels, the hosts are not known", set(onEth0, Normal, Ingress, Allow), pkt(way("eth0", ""), udp, to(4789)), "deny: tunnel from no host", func(p *Program) { tunnels(p); delete(p.Sets, Hosts) }},
		{"VXLAN from a pod", set(onPod1, Normal, Egress, Allow), pkt(way("cali1", "eth0"), udp, to(4789)), "deny: tunnel from a workload", nil},
		{"VXLAN from a pod to its host", set(onPod1, Normal, Egress, Allow), pkt(way("cali1", ""), udp, to(4789)), "deny: tunnel from a workload", accept},
		{"VXLAN from a pod, allowed", nil, pkt(way("cali1", "eth0"), udp, to(4789)), "allow: profile rule", func(p *Program) { p.Settings.AllowVXLAN = true }},
		{"VXLAN from a pod, another port", nil, pkt(way("cali1", "eth0"), udp, to(8472)), "deny: tunnel from a workload", func(p *Program) { p.Settings.VXLANPort = 8472 }},
		{"VXLAN to a pod", nil, pkt(way("eth0", "cali1"), udp, to(4789)), "allow: profile rule", nil},
		{"TCP 4789 is no VXLAN", nil, pkt(way("cali1", "eth0"), to(4789)), "allow: profile rule", nil},
		{"IPIP from a pod", nil, pkt(way("cali1", "eth0"), portless(4)), "deny: tunnel from a workload", nil},
		{"IPIP from a pod, allowed", nil, pkt(way("cali1", "eth0"), portless(4)), "allow: profile rule", func(p *Program) { p.Settings.AllowIPIP = true }},
		// Services that nobody has.
		{"passed on to a service", nil, pkt(way("eth0", "eth1"), dst("10.96.0.1")), "deny: no such service", services},
		{"to a service, by nobody's endpoint", nil, pkt(way("wlan0", "wlan1"), dst("10.96.0.1")), "deny: no such service", func(p *Program) { services(p); clear(p.Endpoints) }},
		{"to a service, policy allows", set(onEth0, Forward, Ingress, Allow), pkt(way("eth0", "eth1"), dst("10.96.0.1")), "deny: no such service", services},
		{"to a service, policy denies", set(onEth0, Forward, Ingress, Deny), pkt(way("eth0", "eth1"), dst("10.96.0.1")), "deny: HostEndpoint/eth0 forward ingress", services},
		{"from a pod to a service", nil, pkt(way("cali1", "eth0"), dst("10.96.0.1")), "deny: no such service", services},
		{"to a service, IPv6", nil, pkt(way("eth0", "eth1"), v6, dst("fd96::1")), "deny: no such service", services},
		{"to a service that translates", nil, pkt(way("eth0", "eth1"), translated("10.96.0.1", 80, "")), "allow: no policy", services},
		{"to a service, a known flow", nil, pkt(way("eth0", "eth1"), dst("10.96.0.1"), is(Established)), "allow: established", services},
		{"a process to a service", nil, pkt(way("", "eth0"), dst("10.96.0.1")), "allow: profile rule", services},
		{"to a service that a process has", nil, pkt(way("eth0", ""), dst("10.96.0.1")), "allow: profile rule", services},

		// IPVS.
		{"balanced: normal is not for forwarding", set(onEth0, Normal, Ingress, Deny, onEth1, Normal, Egress, Deny), pkt(way("eth0", "eth1"), balanced), "allow: no policy", nil},
		{"balanced: forward ingress, the backend's address", set(onEth0, Forward, Ingress, Deny), pkt(way("eth0", "eth1"), balanced), "deny: HostEndpoint/eth0 forward ingress", nil},
		{"balanced: forward egress", set(onEth1, Forward, Egress, Deny), pkt(way("eth0", "eth1"), balanced), "deny: HostEndpoint/eth1 forward egress", nil},
		{"balanced: to a pod", set(onPod1, Normal, Ingress, Deny), pkt(way("eth0", "cali1"), balanced), "deny: WorkloadEndpoint/pod1 normal ingress", nil},
		{"balanced: from a pod", set(onPod1, Normal, Egress, Deny), pkt(way("cali1", "eth0"), balanced), "deny: WorkloadEndpoint/pod1 normal egress", nil},
		{"balanced: a pod to itself", set(onPod1, Normal, Ingress, Deny), pkt(way("cali1", "cali1"), balanced), "deny: WorkloadEndpoint/pod1 normal ingress", nil},
		{"balanced: to an unknown interface", nil, pkt(way("eth0", "cali9"), balanced), "deny: unknown workload interface", nil},
		{"balanced: preDNAT, the address of the service", set(onEth0, PreDNAT, Ingress, Deny), pkt(way("eth0", "eth1"), to(22), balanced), "deny: HostEndpoint/eth0 pre-DNAT ingress", nil},
		{"balanced: preDNAT allows", set(onEth0, PreDNAT, Ingress, Allow, onEth0, Forward, Ingress, Deny), pkt(way("eth0", "eth1"), balanced), "allow: HostEndpoint/eth0 pre-DNAT ingress", nil},
		{"balanced: to a process here", set(onEth0, Normal, Ingress, Deny), pkt(way("eth0", ""), balanced), "deny: HostEndpoint/eth0 normal ingress", nil},
		{"balanced: to a failsafe port here", set(onEth0, Normal, Ingress, Deny), pkt(way("eth0", ""), to(22), balanced), "allow: failsafe", nil},
		{"balanced: from a process", set(onEth0, Normal, Egress, Deny), pkt(way("", "eth0"), balanced), "deny: HostEndpoint/eth0 normal egress", nil},
		{"balanced: from a process to its own pod", set(onPod1, Normal, Ingress, Deny), pkt(way("", "cali1"), balanced), "allow: host to own workload", nil},
		{"balanced: untracked, to the service", set(onEth0, Untracked, Ingress, Deny), pkt(way("eth0", "eth1"), balanced), "deny: HostEndpoint/eth0 untracked ingress", nil},
		{"balanced: untracked, as if sent here", set(onEth1, Untracked, Egress, Deny), pkt(way("eth0", "eth1"), balanced), "deny: HostEndpoint/eth1 untracked egress", nil},
		{"from this host, by others", nil, pkt(way("eth0", ""), own), "deny: spoofed source", func(p *Program) { p.Settings.IPVS = true }},
		{"from this host, by others, balanced", nil, pkt(way("eth0", "cali1"), own, balanced), "deny: spoofed source", func(p *Program) { p.Settings.IPVS = true }},
		{"from this host, by others, passed on", set(onEth0, Forward, Ingress, Deny), pkt(way("eth0", "cali1"), own), "deny: HostEndpoint/eth0 forward ingress", func(p *Program) { p.Settings.IPVS = true }},
		{"from this host, by itself", nil, pkt(way("lo", ""), own), "allow: profile rule", func(p *Program) { p.Settings.IPVS = true }},
		{"from this host, by others, no IPVS", nil, pkt(way("eth0", ""), own), "allow: profile rule", nil},
		{"from nobody", nil, pkt(way("eth0", ""), v6, from("::")), "deny: spoofed source", func(p *Program) { p.Settings.IPVS = true }},
		{"from nobody, no IPVS", nil, pkt(way("eth0", ""), v6, from("::")), "allow: profile rule", nil},
		{"from nobody, to everybody", nil, pkt(way("eth0", ""), v6, from("::"), dst("ff02::1"), icmp(ICMPv6, 135, 0)), "allow: neighbour discovery", func(p *Program) { p.Settings.IPVS = true }},
		{"balanced: established", set(onEth0, Forward, Ingress, Deny), pkt(way("eth0", "eth1"), balanced, is(Established)), "allow: established", nil},
		{"nothing on the way", nil, pkt(way("wlan0", "wlan1")), "allow: no endpoint", func(p *Program) { clear(p.Endpoints) }},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			p := pathHost(test.walks)
			if test.change != nil {
				test.change(p)
			}
			pkt := packet(test.pkt...)
			v := Eval(p, pkt)
			if got := said(v); got != test.want {
				t.Errorf("Eval says %s, want %s (%+v)", got, test.want, v)
			}
			if got := dumbEval(p, pkt); got != v {
				t.Errorf("dumb implementation: %+v, Eval %+v", got, v)
			}
			if n := testing.AllocsPerRun(20, func() { Eval(p, pkt) }); n != 0 {
				t.Errorf("Eval allocates %v times", n)
			}
		})
	}
}

// TestVerdictSaysWhere: endpoint, stage and direction are those of what decided.
func TestVerdictSaysWhere(t *testing.T) {
	p := pathHost(walks{{onPod1, Normal, Egress}: Allow, {onEth0, Forward, Egress}: Deny})
	got := Eval(p, packet(way("cali1", "eth0")))
	want := Verdict{
		Reason: PolicyRule, Stage: Forward, Direction: Egress, Endpoint: EndpointID{"HostEndpoint", "", onEth0}, Tier: "t",
		Policy: PolicyID{"GlobalNetworkPolicy", "", onEth0 + " forward egress"},
	}
	if got != want {
		t.Errorf("Eval = %+v, want %+v", got, want)
	}
	got = Eval(p, packet(way("cali9", "eth0")))
	if want = (Verdict{Reason: UnknownInterface, Direction: Egress}); got != want {
		t.Errorf("Eval = %+v, want %+v", got, want)
	}
}
