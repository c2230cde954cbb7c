package calc

import (
	"net/netip"
	"slices"
	"strings"
	"testing"

	v3 "margay/api/v3"
	"margay/ruleset"
)

// wepAt writes a workload of this node with an address.
func wepAt(name, iface string, addrs ...string) string {
	return "kind: WorkloadEndpoint\nmetadata: {name: " + name + ", namespace: ns}\n" +
		"spec: {node: " + here + ", orchestrator: k8s, interfaceName: \"" + iface + "\", ipNetworks: [\"" + strings.Join(addrs, "\", \"") + "\"], profiles: [kns.ns]}"
}

// setWays reads "ADDR INTERFACE[@BRIDGE], ...".
func (w *world) setWays(text string) {
	ways := map[netip.Addr]Way{}
	for _, one := range strings.Split(text, ", ") {
		if a, to, ok := strings.Cut(one, " "); ok {
			iface, bridge, _ := strings.Cut(to, "@")
			ways[netip.MustParseAddr(a)] = Way{Interface: iface, Bridge: bridge}
		}
	}
	w.calc.SetWays(ways)
}

// TestWays: which interface is a workload's. a has 10.0.0.1 and fd00::1, b has 10.0.0.2; "closed" is a workload that allows
// nothing, whatever its profile says.
func TestWays(t *testing.T) {
	for _, c := range []struct {
		name   string
		ifaces string // that exist
		hints  string // of a and b
		b      string // the address of b
		ways   string
		want   string
	}{
		{"the name, nothing is there yet", "", "cali1 cali2", "10.0.0.2", "", "a cali1, b cali2"},
		{"the name exists and counts", "cali1 cali2 veth1", "cali1 cali2", "10.0.0.2", "10.0.0.1 veth1", "a cali1, b cali2"},
		{"the name does not exist, something else leads there", "veth1", "cali1 cali2", "10.0.0.2", "10.0.0.1 veth1", "a veth1, b cali2"},
		{"no name", "eni1 eni2", "- -", "10.0.0.2", "10.0.0.1 eni1, 10.0.0.2 eni2", "a eni1, b eni2"},
		{"no name, nothing leads there", "eni1", "- -", "10.0.0.2", "", "a -, b -"},
		{"one of two families", "eni1", "- -", "10.0.0.2", "fd00::1 eni1", "a eni1, b -"},
		{"both families", "eni1", "- -", "10.0.0.2", "10.0.0.1 eni1, fd00::1 eni1", "a eni1, b -"},
		{"families that disagree", "eni1 eni2", "- -", "10.0.0.2", "10.0.0.1 eni1, fd00::1 eni2", "a -, b -"},
		{"a name that is the host's", "eth0", "eth0 -", "10.0.0.2", "", "a -, b -"},
		{"a name that is the host's, and it leads there", "eth0", "eth0 -", "10.0.0.2", "10.0.0.1 eth0", "a eth0, b -"},
		{"on a bridge", "veth1", "- -", "10.0.0.2", "10.0.0.1 veth1@cni0", "a veth1@cni0, b -"},
		{"by its name, on a bridge", "cali1", "cali1 -", "10.0.0.2", "10.0.0.1 cali1@cni0", "a cali1@cni0, b -"},
		{"an address of two", "eni1", "- -", "10.0.0.1", "10.0.0.1 eni1", "a eni1 closed, b -"},
		{"an address of two, one has its interface by name", "cali2", "cali1 cali2", "10.0.0.1", "10.0.0.1 cali2", "a -, b cali2"},
		{"an address of two, by names", "cali1 cali2", "cali1 cali2", "10.0.0.1", "10.0.0.1 cali2", "a cali1, b cali2"},
		{"one name of two", "cali1", "cali1 cali1", "10.0.0.2", "", "a cali1, b -"},
		{"a host endpoint has it", "eth1", "- -", "10.0.0.2", "10.0.0.1 eth1", "a -, b -"},
	} {
		t.Run(c.name, func(t *testing.T) {
			hints := strings.Fields(strings.ReplaceAll(c.hints, "-", `""`))
			texts := []string{
				wepAt("a", strings.Trim(hints[0], `"`), "10.0.0.1", "fd00::1"), wepAt("b", strings.Trim(hints[1], `"`), c.b),
				"kind: HostEndpoint\nmetadata: {name: h}\nspec: {node: " + here + ", interfaceName: eth1}",
			}
			for range 2 {
				slices.Reverse(texts)
				w := calicoWorld(t).apply("kind: Profile\nmetadata: {name: kns.ns}\nspec: {ingress: [{action: Allow}], egress: [{action: Allow}]}")
				for _, name := range strings.Fields(c.ifaces) {
					w.iface(name)
				}
				w.apply(texts...)
				w.setWays(c.ways)
				w.flush()
				if got := placesOf(w.fake.Program()); got != c.want {
					t.Errorf("%s, want %s; %v", got, c.want, w.calc.Warnings())
				}
			}
		})
	}
}

// placesOf shows the interfaces of the workloads a and b.
func placesOf(p *ruleset.Program) string {
	var list []string
	for _, name := range []string{"a", "b"} {
		w := p.Workloads[ruleset.EndpointID{Kind: "WorkloadEndpoint", Namespace: "ns", Name: name}]
		text := name + " " + w.Interface
		if w.Interface == "" {
			text = name + " -"
		}
		if w.Bridge != "" {
			text += "@" + w.Bridge
		}
		if w.Profiles == nil {
			text += " closed"
		}
		list = append(list, text)
	}
	return strings.Join(list, ", ")
}

// TestWaysMove: a pod that is started anew has its address behind another interface; one that takes over an address is closed
// until the one before it is gone, and has its policy then.
func TestWaysMove(t *testing.T) {
	w := calicoWorld(t).apply("kind: Profile\nmetadata: {name: kns.ns}\nspec: {}", wepAt("a", "", "10.0.0.1"))
	for _, step := range []struct {
		do   func()
		want string
	}{
		{func() {}, "a -"},
		{func() { w.setWays("10.0.0.1 eni1") }, "a eni1"},
		{func() { w.setWays("10.0.0.1 eni2") }, "a eni2"},
		{func() { w.setWays("") }, "a -"},
		{func() { w.setWays("10.0.0.1 eni3@br0") }, "a eni3@br0"},
		{func() { w.setWays("10.0.0.1 eni3@br1") }, "a eni3@br1"},
		{func() { w.apply(wepAt("b", "", "10.0.0.1")) }, "a eni3@br1 closed, b -"},
		{func() { w.remove(v3.KindWorkloadEndpoint, "ns", "a") }, "b eni3@br1"},
		{func() { w.apply(wepAt("a", "", "10.0.0.1")) }, "a eni3@br1 closed, b -"},
		{func() { w.remove(v3.KindWorkloadEndpoint, "ns", "b") }, "a eni3@br1"},
	} {
		step.do()
		w.flush()
		p := w.fake.Program()
		for _, name := range []string{"a", "b"} {
			id := ruleset.EndpointID{Kind: "WorkloadEndpoint", Namespace: "ns", Name: name}
			if p.Workloads[id] == nil {
				p.Workloads[id] = &ruleset.Workload{Interface: "gone", Profiles: []string{}}
			}
		}
		got := strings.ReplaceAll(strings.ReplaceAll(placesOf(p), "a gone, ", ""), ", b gone", "")
		if got != step.want {
			t.Errorf("%s, want %s", got, step.want)
		}
	}
}
