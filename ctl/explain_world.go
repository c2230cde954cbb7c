package ctl

import (
	"cmp"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"

	v3 "margay/api/v3"
	"margay/calc"
	"margay/ruleset"
	"margay/selector"
	"margay/store"
)

// A world is what explain looks at: resources, from which the rules of any node are calculated, or the rules that an agent
// enforces.
type world struct {
	resources map[v3.Key]v3.Resource
	settings  SettingsFunc
	places    []place
	nodeAddrs map[netip.Addr]string // of Node resources
	programs  map[string]*ruleset.Program
	notes     []string
	warned    map[string][]string // by object: what calc warns of
	live      bool                // an agent's: programs has its node, and there are no resources
}

// A SettingsFunc returns the settings of a node as the datastore has them: configs are all FelixConfigurations, labels those
// of its Node resource, nil if there is none.
type SettingsFunc func(node string, configs []*v3.FelixConfiguration, labels map[string]string) ruleset.Settings

// A place is an endpoint where packets begin or end.
type place struct {
	id    ruleset.EndpointID
	node  string
	addrs []netip.Addr
	iface string // as its resource names it; "" if it does not
	pod   string // the workload or pod of a WorkloadEndpoint
}

func (p *place) workload() bool { return p.id.Kind == string(v3.KindWorkloadEndpoint) }

func newWorld(settings SettingsFunc) *world {
	return &world{
		resources: map[v3.Key]v3.Resource{}, settings: settings, nodeAddrs: map[netip.Addr]string{},
		programs: map[string]*ruleset.Program{}, warned: map[string][]string{},
	}
}

func (w *world) put(r v3.Resource) { w.resources[v3.KeyOf(r)] = r }

func (w *world) note(format string, args ...any) {
	w.notes = append(w.notes, fmt.Sprintf(format, args...))
}

// complete adds the tiers that every datastore has, and finds the places.
func (w *world) complete() error {
	initial, err := store.Initial()
	if err != nil {
		return err
	}
	for _, r := range initial {
		if _, there := w.resources[v3.KeyOf(r)]; !there && v3.KeyOf(r).Kind == v3.KindTier {
			w.put(r)
		}
	}
	for _, key := range slices.SortedFunc(maps.Keys(w.resources), compareKeys) {
		id := ruleset.EndpointID{Kind: string(key.Kind), Namespace: key.Namespace, Name: key.Name}
		switch r := w.resources[key].(type) {
		case *v3.HostEndpoint:
			w.places = append(w.places, place{id: id, node: r.Spec.Node, addrs: addrsOf(r.Spec.ExpectedIPs), iface: r.Spec.InterfaceName})
		case *v3.WorkloadEndpoint:
			w.places = append(w.places, place{id: id, node: r.Spec.Node, addrs: addrsOf(r.Spec.IPNetworks),
				iface: r.Spec.InterfaceName, pod: cmp.Or(r.Spec.Pod, r.Spec.Workload)})
		case *v3.Node:
			for _, a := range calc.NodeAddresses(r) {
				w.nodeAddrs[a] = r.Name
			}
		}
	}
	return nil
}

func compareKeys(a, b v3.Key) int {
	return cmp.Or(cmp.Compare(a.Kind, b.Kind), cmp.Compare(a.Namespace, b.Namespace), cmp.Compare(a.Name, b.Name))
}

// addrsOf returns what parses of addresses with or without a prefix length.
func addrsOf(texts []string) []netip.Addr {
	var out []netip.Addr
	for _, text := range texts {
		text, _, _ = strings.Cut(text, "/")
		if a, err := netip.ParseAddr(text); err == nil {
			out = append(out, a.Unmap())
		}
	}
	return out
}

// calculated returns the calculation of a node, with everything put in.
func (w *world) calculated(node string) *calc.Calc {
	c := calc.New(node)
	for key, r := range w.resources {
		c.Update(key, r)
	}
	settings := w.nodeSettings(node)
	c.SetSettings(settings)
	c.SetWays(w.ways(node, &settings))
	for name, addrs := range w.interfaces(node) {
		c.SetInterface(name, addrs)
	}
	return c
}

// ways returns where the kernel of a node must find its workloads for those to have the interfaces that they name, where the name
// alone does not tell that it is a workload's.
func (w *world) ways(node string, settings *ruleset.Settings) map[netip.Addr]calc.Way {
	ways := map[netip.Addr]calc.Way{}
	for i := range w.places {
		p := &w.places[i]
		if p.node != node || !p.workload() || p.iface == "" || settings.IsWorkload(p.iface) {
			continue
		}
		for _, a := range p.addrs {
			ways[a] = calc.Way{Interface: p.iface}
		}
	}
	return ways
}

// program returns what a node must enforce.
func (w *world) program(node string) *ruleset.Program {
	if p := w.programs[node]; p != nil {
		return p
	}
	c := w.calculated(node)
	p := ruleset.NewProgram()
	p.Apply(c.Flush())
	for _, warning := range c.Warnings() {
		key := warning.Key.String()
		if !slices.Contains(w.warned[key], warning.Text) {
			w.warned[key] = append(w.warned[key], warning.Text)
		}
	}
	w.programs[node] = p
	return p
}

func (w *world) nodeSettings(node string) ruleset.Settings {
	var configs []*v3.FelixConfiguration
	var labels map[string]string
	for _, r := range w.resources {
		switch r := r.(type) {
		case *v3.FelixConfiguration:
			configs = append(configs, r)
		case *v3.Node:
			if r.Name == node {
				labels = map[string]string{}
				maps.Copy(labels, r.Labels)
			}
		}
	}
	slices.SortFunc(configs, func(a, b *v3.FelixConfiguration) int { return cmp.Compare(a.Name, b.Name) })
	return w.settings(node, configs, labels)
}

// nodes returns the names of all nodes that something names, in order.
func (w *world) nodes() []string {
	names := slices.Collect(maps.Keys(w.programs))
	for i := range w.places {
		names = append(names, w.places[i].node)
	}
	for key := range w.resources {
		if key.Kind == v3.KindNode {
			names = append(names, key.Name)
		}
	}
	slices.Sort(names)
	return slices.Compact(names)
}

// interfaces returns the interfaces that a node must have for its host endpoints to be found: those that they name, with
// their addresses, and one for each endpoint that is known by its addresses alone.
func (w *world) interfaces(node string) map[string][]netip.Addr {
	all := map[string][]netip.Addr{}
	carried := map[netip.Addr]bool{}
	for _, named := range []bool{true, false} {
		for i := range w.places {
			p := &w.places[i]
			if p.node != node || p.workload() || p.iface == ruleset.AllInterfaces || named != (p.iface != "") {
				continue
			}
			name := cmp.Or(p.iface, assumedInterface(p.id.Name))
			for _, a := range p.addrs {
				if !carried[a] {
					carried[a] = true
					all[name] = append(all[name], a)
				}
			}
		}
	}
	return all
}

// assumedInterface is what the interface of an endpoint is called that nobody named: no real one has a blank in its name.
func assumedInterface(endpoint string) string { return "the interface of " + endpoint }

// otherInterface stands for one that no host endpoint names.
const otherInterface = "any other interface"

// at returns the places that have an address.
func (w *world) at(a netip.Addr) []*place {
	var out []*place
	for i := range w.places {
		if slices.Contains(w.places[i].addrs, a) {
			out = append(out, &w.places[i])
		}
	}
	return out
}

// named returns the places that a text may mean.
func (w *world) named(text string) []*place {
	var out []*place
	for i := range w.places {
		p := &w.places[i]
		full := p.id.Namespace + "/" + p.id.Name
		if slices.Contains([]string{p.id.Name, p.id.String(), full}, text) ||
			p.pod != "" && (text == p.pod || text == p.id.Namespace+"/"+p.pod) {
			out = append(out, p)
		}
	}
	return out
}

// networkSets returns the network sets that hold an address, for people.
func (w *world) networkSets(a netip.Addr) []string {
	var out []string
	for _, key := range slices.SortedFunc(maps.Keys(w.resources), compareKeys) {
		var nets []string
		switch r := w.resources[key].(type) {
		case *v3.GlobalNetworkSet:
			nets = r.Spec.Nets
		case *v3.NetworkSet:
			nets = r.Spec.Nets
		}
		if slices.ContainsFunc(nets, func(n string) bool { return holds(n, a) }) {
			out = append(out, key.String())
		}
	}
	return out
}

func holds(text string, a netip.Addr) bool {
	if p, err := netip.ParsePrefix(text); err == nil {
		return p.Contains(a)
	}
	single, err := netip.ParseAddr(text)
	return err == nil && single == a
}

// joinable returns the GlobalNetworkSets that a selector selects: an address that is put there is selected as well.
func (w *world) joinable(text string) []string {
	sel, err := selector.Parse(text)
	if err != nil {
		return nil
	}
	var out []string
	for _, key := range slices.SortedFunc(maps.Keys(w.resources), compareKeys) {
		if r, ok := w.resources[key].(*v3.GlobalNetworkSet); ok && sel.Matches(selector.Map(r.Labels)) {
			out = append(out, key.String())
		}
	}
	return out
}

// keyOf returns the key of an endpoint as it is stored. Of policies, it is made in the same way.
func keyOf(id ruleset.EndpointID) v3.Key {
	return v3.Key{Kind: v3.Kind(id.Kind), Namespace: id.Namespace, Name: id.Name}
}
