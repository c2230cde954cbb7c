package calc

import (
	"maps"
	"reflect"
	"slices"
	"strings"
	"testing"

	v3 "margay/api/v3"
	"margay/ruleset"
)

// host writes a host endpoint of this node: its name, interface and addresses.
func host(name, iface, ips string) string {
	return "kind: HostEndpoint\nmetadata: {name: " + name + "}\nspec: {node: kubeadm-master, interfaceName: \"" + iface +
		"\", expectedIPs: [" + ips + "]}"
}

// resolved returns the interfaces of each endpoint.
func (w *world) resolved() map[string]string {
	result := map[string]string{}
	for id, ep := range w.fake.Program().Endpoints {
		result[id.Name] = strings.Join(ep.Interfaces, " ")
	}
	return result
}

// TestResolve: which interface a host endpoint is. The host has eth0 with 10.0.0.1 and fd00::1, eth1 with 10.0.0.1 and 10.0.0.2, and
// a workload's cali1 with 10.0.0.3.
func TestResolve(t *testing.T) {
	list := func(texts ...string) []string { return texts }
	tests := []struct {
		name      string
		endpoints []string
		want      map[string]string
		conflicts int
	}{
		{"by name", list(host("a", "eth0", "")), map[string]string{"a": "eth0"}, 0},
		{"by name, no such interface yet", list(host("a", "eth9", "")), map[string]string{"a": "eth9"}, 0},
		{"by name, addresses do not count", list(host("a", "eth0", "10.0.0.2")), map[string]string{"a": "eth0"}, 0},
		{"by address", list(host("a", "", "10.0.0.2, 192.0.2.1")), map[string]string{"a": "eth1"}, 0},
		{"by IPv6 address", list(host("a", "", `"fd00:0::1"`)), map[string]string{"a": "eth0"}, 0},
		{"by address on two interfaces", list(host("a", "", "10.0.0.1")), map[string]string{"a": "eth0 eth1"}, 0},
		{"by address, nowhere", list(host("a", "", "192.0.2.1")), map[string]string{"a": ""}, 0},
		{"first name wins", list(host("b", "eth0", ""), host("a", "eth0", "")), map[string]string{"a": "eth0", "b": ""}, 1},
		{"name and address are equal candidates", list(host("a", "", "10.0.0.1"), host("b", "eth0", "")), map[string]string{"a": "eth0 eth1", "b": ""}, 1},
		{"loser keeps the rest", list(host("a", "eth0", ""), host("b", "", "10.0.0.1")), map[string]string{"a": "eth0", "b": "eth1"}, 1},
		{"wildcard", list(host("a", "*", "10.0.0.1")), map[string]string{"a": "*"}, 0},
		{"first wildcard wins", list(host("b", "*", ""), host("a", "*", "")), map[string]string{"a": "*", "b": ""}, 1},
		{"specific beside wildcard", list(host("a", "*", ""), host("b", "eth0", "")), map[string]string{"a": "*", "b": "eth0"}, 0},
		{"workload interface by name", list(host("a", "cali1", "")), map[string]string{"a": ""}, 1},
		{"workload interface by address", list(host("a", "", "10.0.0.3")), map[string]string{"a": ""}, 0},
		{"other node", list("kind: HostEndpoint\nmetadata: {name: a}\nspec: {node: other, interfaceName: eth0}"), map[string]string{}, 0},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			for _, late := range []bool{false, true} {
				w := newWorld(t)
				w.calc.SetSettings(ruleset.Settings{WorkloadPrefixes: []string{"cali"}})
				if late {
					w.apply(test.endpoints...)
				}
				w.iface("eth0", "10.0.0.1", "fd00::1").iface("eth1", "10.0.0.1", "10.0.0.2").iface("cali1", "10.0.0.3")
				if !late {
					w.apply(test.endpoints...)
				}
				if got := w.resolved(); !maps.Equal(got, test.want) {
					t.Errorf("interfaces came late %v: resolved %v, want %v", late, got, test.want)
				}
				if got := w.warned("): interface "); len(got) != test.conflicts {
					t.Errorf("warnings = %q, want %d", got, test.conflicts)
				}
			}
		})
	}
}

func TestInterfacesChange(t *testing.T) {
	w := newWorld(t).apply(host("a", "", "10.0.0.1"), host("b", "", "10.0.0.1"), host("c", "*", ""))
	steps := []struct {
		name   string
		change func()
		want   map[string]string
	}{
		{"none", func() {}, map[string]string{"a": "", "b": "", "c": "*"}},
		{"appears", func() { w.iface("eth0", "10.0.0.1") }, map[string]string{"a": "eth0", "b": "", "c": "*"}},
		{"another one", func() { w.iface("eth1", "::ffff:10.0.0.1") }, map[string]string{"a": "eth0 eth1", "b": "", "c": "*"}},
		{"the winner goes", func() { w.remove(v3.KindHostEndpoint, "", "a") }, map[string]string{"b": "eth0 eth1", "c": "*"}},
		{"address goes", func() { w.iface("eth0", "10.0.0.9") }, map[string]string{"b": "eth1", "c": "*"}},
		{"interface goes", func() { w.calc.RemoveInterface("eth1"); w.flush() }, map[string]string{"b": "", "c": "*"}},
		{"endpoint moves", func() { w.apply(strings.Replace(host("b", "eth0", ""), "kubeadm-master", "other", 1)) }, map[string]string{"c": "*"}},
		{"endpoint is back, named", func() { w.apply(host("b", "eth0", "")) }, map[string]string{"b": "eth0", "c": "*"}},
		{"it is a workload's", func() { w.calc.SetSettings(ruleset.Settings{WorkloadPrefixes: []string{"eth"}}); w.flush() }, map[string]string{"b": "", "c": "*"}},
	}
	for _, step := range steps {
		step.change()
		if got := w.resolved(); !maps.Equal(got, step.want) {
			t.Errorf("%s: resolved %v, want %v", step.name, got, step.want)
		}
	}
}

// TestDeleteAndCreateInOneFlush: only the outcome is told.
func TestDeleteAndCreateInOneFlush(t *testing.T) {
	texts := []string{
		"kind: Profile\nmetadata: {name: p2}\nspec: {labelsToApply: {b: x}}",
		"kind: WorkloadEndpoint\nmetadata: {name: w, namespace: ns}\nspec: {profiles: [p1, p2]}", host("ep2", "*", "10.0.0.2"),
		hep("ep", "a: x"), gnp("p", "{action: Allow, source: {selector: has(a)}}"), "kind: GlobalNetworkSet\nmetadata: {name: s, labels: {a: x}}\nspec: {nets: [192.0.2.0/24]}",
	}
	w := newWorld(t).apply(texts...)
	for _, text := range texts {
		r := parse(t, text)[0]
		w.calc.Update(v3.KeyOf(r), nil)
		w.calc.Update(v3.KeyOf(r), r)
	}
	if d := w.calc.Flush(); !d.Empty() {
		t.Errorf("delta = %+v, want none", d)
	}
	before := w.fake.Program()
	for _, text := range slices.Backward(texts) {
		r := parse(t, text)[0]
		w.remove(v3.KeyOf(r).Kind, r.GetNamespace(), r.GetName())
	}
	if p := w.fake.Program(); len(p.Endpoints)+len(p.Workloads)+len(p.Policies)+len(p.Sets)+len(p.Profiles) != 0 {
		t.Errorf("something is left: %+v", p)
	}
	if c := w.calc; len(c.items)+len(c.profiles)+len(c.policies)+len(c.sets)+len(c.locals)+c.setIndex.size+c.policyIndex.size+len(c.setIndex.names)+len(c.holders)+len(c.givers)+len(c.toldEndpoints)+len(c.toldWorkloads) != 0 {
		t.Errorf("the calc keeps what is gone: %+v", c)
	}
	if p := w.apply(texts...).fake.Program(); !reflect.DeepEqual(p, before) {
		t.Errorf("applied again it is\n%+v, was\n%+v", p, before)
	}
}

func TestSettings(t *testing.T) {
	c := New(here)
	s := ruleset.Settings{Reject: true, FailsafeIngress: []ruleset.Failsafe{{Protocol: 6, Port: 22}}}
	c.SetSettings(s)
	if d := c.Flush(); d.Settings == nil || !reflect.DeepEqual(*d.Settings, s) {
		t.Errorf("settings = %+v", d.Settings)
	}
	c.SetSettings(ruleset.Settings{})
	c.SetSettings(s)
	if d := c.Flush(); d.Settings != nil {
		t.Errorf("unchanged settings are told: %+v", d.Settings)
	}
	c.SetSettings(ruleset.Settings{})
	if d := c.Flush(); d.Settings == nil {
		t.Error("settings that are zero again are not told")
	}
}

func TestCounts(t *testing.T) {
	w := newWorld(t).apply(
		hep("ep", ""), strings.Replace(hep("remote", ""), here, "other", 1),
		gnp("p", "{action: Allow, protocol: TCP, source: {selector: has(a), notSelector: a != 'x'}, destination: {ports: [http]}}"),
		"kind: GlobalNetworkPolicy\nmetadata: {name: idle}\nspec: {selector: nobody == 'x'}",
		"kind: Tier\nmetadata: {name: default}", "kind: Node\nmetadata: {name: n1}", "kind: Profile\nmetadata: {name: kns.ns}",
		"kind: WorkloadEndpoint\nmetadata: {name: w, namespace: ns}\nspec: {node: "+here+", profiles: [kns.ns, gone]}",
		"kind: NetworkSet\nmetadata: {name: s, namespace: ns}",
	)
	want := Counts{
		LocalHostEndpoints: 1, LocalWorkloadEndpoints: 1, ActivePolicies: 1, ActiveSelectors: 3, Hosts: 1, HostEndpoints: 2,
		WorkloadEndpoints: 1, Policies: 2, Profiles: 1, Tiers: 1, LabelledObjects: 4, OptimizedSelectors: 1, UnoptimizedSelectors: 2,
	}
	if got := w.calc.Counts(); got != want {
		t.Errorf("Counts = %+v, want %+v", got, want)
	}
}
