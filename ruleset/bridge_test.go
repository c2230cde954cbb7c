package ruleset

import (
	"net/netip"
	"testing"
)

// Workloads a and b are on cni0, behind pa and pb; c is on cni1, behind pc, and not filtered; d and e claim one address.
func TestBridges(t *testing.T) {
	p := NewProgram()
	p.Settings = Settings{WorkloadPrefixes: []string{"veth"}, EndpointToHost: HostReturn}
	open := []Rule{{Action: Allow}}
	p.Profiles["open"] = &Profile{Ingress: open, Egress: open}
	p.Profiles["closed"] = &Profile{Egress: open}
	for _, w := range []Workload{
		{Interface: "pa", Bridge: "cni0", Filtered: true, Profiles: []string{"open"}, Addrs: addrs("10.0.0.1", "fd00::1")},
		{Interface: "pb", Bridge: "cni0", Filtered: true, Profiles: []string{"closed"}, Addrs: addrs("10.0.0.2")},
		{Interface: "pc", Bridge: "cni1", Profiles: []string{"open"}, Addrs: addrs("10.0.1.1")},
		{Interface: "pd", Bridge: "cni0", Filtered: true, Profiles: []string{"open"}, Addrs: addrs("10.0.0.4", "fd00::4")},
		{Interface: "pe", Bridge: "cni1", Filtered: true, Profiles: []string{"open"}, Addrs: addrs("10.0.0.4", "fd00::4")},
	} {
		w.ID = EndpointID{"WorkloadEndpoint", "ns", w.Interface}
		p.Workloads[w.ID] = &w
	}
	for _, c := range []struct {
		name                 string
		in, port, out, oport string
		src, dst             string
		allowed              bool
		reason               Reason
	}{
		{"between two", "cni0", "pb", "cni0", "pa", "10.0.0.2", "10.0.0.1", true, ProfileRule},
		{"that is denied there", "cni0", "pa", "cni0", "pb", "10.0.0.1", "10.0.0.2", false, NoProfile},
		{"the ports are not asked about", "cni0", "", "cni0", "", "10.0.0.1", "10.0.0.2", false, NoProfile},
		{"from another's address", "cni0", "pa", "cni0", "pb", "10.0.0.9", "10.0.0.2", false, SpoofedSource},
		{"to another's port", "cni0", "pa", "cni0", "pb", "10.0.0.1", "10.0.0.9", false, ForeignAddress},
		{"from a port of nobody", "cni0", "px", "cni0", "pa", "10.0.0.9", "10.0.0.1", true, ProfileRule},
		{"from there with a workload's address", "cni0", "px", "cni0", "pb", "10.0.0.1", "10.0.0.2", false, SpoofedSource},
		{"a workload's address to there", "cni0", "px", "cni0", "py", "10.0.0.9", "10.0.0.1", false, ForeignAddress},
		{"between ports of nobody", "cni0", "px", "cni0", "py", "10.0.0.8", "10.0.0.9", true, NoEndpoint},
		{"from a port that is a workload's by name", "cni0", "veth1", "", "", "10.0.0.9", "10.0.0.254", false, UnknownInterface},
		{"to such a port", "", "", "cni0", "veth1", "10.0.0.254", "10.0.0.9", false, UnknownInterface},
		{"to another bridge", "cni0", "pa", "cni1", "pc", "10.0.0.1", "10.0.1.1", true, ProfileRule},
		{"a bridge without filter", "cni1", "px", "cni1", "pc", "10.0.1.9", "10.0.1.1", false, UnfilteredBridge},
		{"from outside", "eth0", "", "cni0", "pa", "192.0.2.1", "10.0.0.1", true, ProfileRule},
		{"from outside with a workload's address", "eth0", "", "cni0", "pb", "10.0.0.1", "10.0.0.2", false, UnknownInterface},
		{"to outside", "cni0", "pa", "eth0", "", "10.0.0.1", "192.0.2.1", true, ProfileRule},
		{"to its host", "cni0", "pa", "", "", "10.0.0.1", "10.0.0.254", true, EndpointToHost},
		{"from its host", "", "", "cni0", "pb", "10.0.0.254", "10.0.0.2", true, ToOwnWorkload},
		{"an address of two", "eth0", "", "cni0", "pd", "192.0.2.1", "10.0.0.4", false, ForeignAddress},
		{"an address of two, ports not asked about", "eth0", "", "cni0", "", "192.0.2.1", "10.0.0.4", false, UnknownInterface},
		{"by the port itself", "pa", "", "", "", "10.0.0.1", "10.0.0.254", false, UnknownInterface},
		{"the port is on another bridge", "cni1", "pa", "eth0", "", "10.0.0.1", "192.0.2.1", false, UnknownInterface},
	} {
		t.Run(c.name, func(t *testing.T) {
			v := Eval(p, &Packet{In: c.in, InPort: c.port, Out: c.out, OutPort: c.oport, Src: netip.MustParseAddr(c.src),
				Dst: netip.MustParseAddr(c.dst), Protocol: TCP, SrcPort: 40000, DstPort: 80})
			if v.Allowed != c.allowed || v.Reason != c.reason {
				t.Errorf("%+v", v)
			}
		})
	}
	within := Packet{In: "cni0", InPort: "pa", Out: "cni0", OutPort: "pb", Src: netip.MustParseAddr("fe80::1"),
		Dst: netip.MustParseAddr("ff02::1:ff00:2"), Protocol: ICMPv6, ICMPType: 135}
	if v := Eval(p, &within); !v.Allowed || v.Reason != PodDiscovery {
		t.Errorf("a neighbour is looked for: %+v", v)
	}
	if within.ICMPType = 134; Eval(p, &within).Allowed {
		t.Error("a workload is a router")
	}
	within = Packet{In: "cni0", InPort: "px", Out: "cni0", OutPort: "pd", Src: netip.MustParseAddr("fd00::9"),
		Dst: netip.MustParseAddr("fd00::4"), Protocol: ICMPv6, ICMPType: 131}
	if v := Eval(p, &within); v.Allowed || v.Reason != UnknownInterface {
		t.Errorf("neighbour discovery reaches an address of two: %+v", v)
	}
	if within.OutPort, within.Dst = "pa", netip.MustParseAddr("fd00::1"); !Eval(p, &within).Allowed {
		t.Error("neighbour discovery does not reach an address of one")
	}
	if got := p.ByBridge(Packet{In: "pa", Out: "eth0"}); got.In != "cni0" || got.InPort != "pa" || got.Out != "eth0" {
		t.Errorf("%+v", got)
	}
}

func addrs(list ...string) (out []netip.Addr) {
	for _, a := range list {
		out = append(out, netip.MustParseAddr(a))
	}
	return out
}
