package ctl

import (
	"cmp"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"

	v3 "margay/api/v3"
)

// What is to be said of host endpoints, their interfaces, profiles and directions.

// kubelet is the port that people miss first when the hosts of a cluster are closed.
const kubelet = 10250

// oneSided warns of the first policy for host endpoints if it says nothing of the other direction: all of that stays denied
// (guide defect G4). What host endpoints lose by coming without a policy is told when they come (see bare).
func (v *vicinity) oneSided(p *v3.GlobalNetworkPolicy) []string {
	if p.Spec.DoNotTrack || p.Spec.PreDNAT {
		return nil
	}
	names := map[string][]string{}
	for _, half := range v.half {
		if !v.matches(p, half.endpoint) {
			continue
		}
		name, text := half.endpoint.Name, half.text
		if half.silent == v3.TypeEgress && !slices.ContainsFunc(p.Spec.Ingress, admitsKubelet) {
			text += fmt.Sprintf("; of what comes in only what its rules allow passes, and the failsafe ports: not the kubelet's tcp %d, for one", kubelet)
		}
		names[text] = append(names[text], name)
	}
	var list []string
	for _, text := range slices.Sorted(maps.Keys(names)) {
		list = append(list, "HostEndpoint "+some(names[text])+": "+text)
	}
	return list
}

// A halfGoverned endpoint has policies for one direction; text says what that means for the other, silent one.
type halfGoverned struct {
	endpoint     *v3.HostEndpoint
	silent, text string
}

// onlyHalf returns the host endpoints that had no policy and now have some for one direction, by name.
func (v *vicinity) onlyHalf(before *landscape) []halfGoverned {
	var out []halfGoverned
	for _, name := range slices.Sorted(maps.Keys(v.endpoints)) {
		h := v.endpoints[name]
		was := before.endpoints[name]
		if was == nil || before.governed(was, v3.TypeIngress) || before.governed(was, v3.TypeEgress) {
			continue
		}
		ingress, egress := v.governed(h, v3.TypeIngress), v.governed(h, v3.TypeEgress)
		if ingress == egress {
			continue
		}
		half := halfGoverned{endpoint: h, silent: v3.TypeIngress}
		if ingress {
			half.silent = v3.TypeEgress
		}
		half.text = v.denied(h, []string{half.silent})
		out = append(out, half)
	}
	return out
}

// admitsKubelet reports whether a rule may let connections to the kubelet pass.
func admitsKubelet(r v3.Rule) bool {
	ports := r.Destination.Ports
	return opens(r) && (len(ports) == 0 || slices.ContainsFunc(ports, func(p v3.Port) bool { return p.First <= kubelet && kubelet <= p.Last }))
}

// An uncovered endpoint is new and covers one interface of its host among others.
type uncovered struct {
	endpoint *v3.HostEndpoint
	others   []nearInterface // none: nothing is known of the host
}

// A nearInterface is one that no host endpoint covers. An address without a name is that of a Node.
type nearInterface struct {
	name string
	addr netip.Addr
}

func (o nearInterface) String() string {
	return strings.TrimSpace(fmt.Sprintf("%s %s", o.name, o.addr))
}

// uncovered finds host endpoints that are new and cover one interface of their host among others (guide defect G6). Which
// there are is known from agents, and from Nodes.
func (v *vicinity) uncovered(created []*change) []uncovered {
	var out []uncovered
	for _, change := range created {
		h, ok := change.result.(*v3.HostEndpoint)
		if !ok {
			continue
		}
		if others, known := v.others(h); len(others) > 0 || !known {
			out = append(out, uncovered{h, others})
		}
	}
	return out
}

// uncoveredTexts says so, of many hosts with interfaces of the same names in one line. Of hosts about which nothing is known
// it is said in general.
func uncoveredTexts(list []uncovered) []string {
	const open = "what policies close stays open there (add a host endpoint for each, or one with interfaceName: \"*\" for all, loopback included)"
	groups := map[string][]uncovered{}
	var order []string
	for _, u := range list {
		var names []string
		for _, o := range u.others {
			names = append(names, cmp.Or(o.name, "other addresses"))
		}
		key := some(slices.Compact(names))
		if groups[key] == nil {
			order = append(order, key)
		}
		groups[key] = append(groups[key], u)
	}
	var texts, rest []string
	for _, key := range order {
		var names []string
		for _, u := range groups[key] {
			names = append(names, u.endpoint.Name)
		}
		first := groups[key][0]
		switch {
		case key == "":
			texts = append(texts, "HostEndpoint "+some(names)+": it covers one interface: what policies close there stays open on every other one of the host, "+
				"tunnels included (interfaceName: \"*\" covers all, and loopback)")
		case len(texts) >= maxNamed:
			rest = append(rest, names...)
		case len(names) == 1:
			texts = append(texts, fmt.Sprintf("HostEndpoint %s: node %s has %s as well: %s", names[0], first.endpoint.Spec.Node, some(stringsOf(first.others)), open))
		default:
			texts = append(texts, fmt.Sprintf("HostEndpoint %s: their nodes have %s as well: %s", some(names), key, open))
		}
	}
	if len(rest) > 0 {
		texts = append(texts, fmt.Sprintf("HostEndpoint %s: their nodes have other interfaces as well: %s", some(rest), open))
	}
	return texts
}

func stringsOf[T fmt.Stringer](items []T) []string {
	out := make([]string, len(items))
	for i, item := range items {
		out[i] = item.String()
	}
	return out
}

// profileless warns of profiles that an endpoint names and that do not exist: packets that no policy decides go to them.
func (v *vicinity) profileless(r v3.Resource) []string {
	var names []string
	switch e := r.(type) {
	case *v3.HostEndpoint:
		names = e.Spec.Profiles
	case *v3.WorkloadEndpoint:
		names = e.Spec.Profiles
	}
	var list []string
	for _, name := range names {
		if name != v3.ProfileDefaultAllow && v.profiles[name] == nil {
			list = append(list, fmt.Sprintf("profile %s does not exist: what reaches it is denied (create it, or take it out of spec.profiles)", name))
		}
	}
	return list
}

// forwarding warns of policies for forwarded traffic on host endpoints for all interfaces, when one of the two is new.
func (v *vicinity) forwarding(traps *shared, policies, endpoints []*change) {
	changed := map[v3.Key]bool{}
	for _, c := range slices.Concat(policies, endpoints) {
		changed[c.key] = true
	}
	for _, name := range slices.Sorted(maps.Keys(v.landscape.policies)) {
		p := v.landscape.policies[name]
		if !p.Spec.ApplyOnForward || p.Spec.DoNotTrack || p.Spec.PreDNAT {
			continue
		}
		var all []string
		for _, name := range slices.Sorted(maps.Keys(v.endpoints)) {
			h := v.endpoints[name]
			if h.Spec.InterfaceName == "*" && (changed[v3.KeyOf(p)] || changed[v3.KeyOf(h)]) && v.matches(p, h) {
				all = append(all, name)
			}
		}
		if len(all) > 0 {
			traps.add(v3.KeyOf(p), fmt.Sprintf("spec.applyOnForward on HostEndpoint %s, for all interfaces: everything that workloads there send to each other "+
				"and elsewhere passes the policy, inwards and outwards, and what no rule allows is denied (name the interface where the traffic comes in)", some(all)))
		}
	}
}

// others returns the interfaces or addresses of a host endpoint's node that no host endpoint covers, and whether enough is
// known to say that there are none.
func (v *vicinity) others(h *v3.HostEndpoint) (others []nearInterface, known bool) {
	interfaces, addrs := map[string]bool{}, map[netip.Addr]bool{}
	for _, other := range v.endpoints {
		if other.Spec.Node != h.Spec.Node {
			continue
		}
		if other.Spec.InterfaceName == "*" || other.Name != h.Name && other.Spec.InterfaceName != h.Spec.InterfaceName {
			known = true // whoever has several for one host knows what they are
		}
		interfaces[other.Spec.InterfaceName] = true
		for _, a := range addrsOf(other.Spec.ExpectedIPs) {
			addrs[a] = true
		}
	}
	if interfaces["*"] {
		return nil, true
	}
	add := func(name string, texts []string) {
		known = true
		for _, a := range addrsOf(texts) {
			if a.IsGlobalUnicast() && !interfaces[name] && !addrs[a] {
				others = append(others, nearInterface{name, a})
				return
			}
		}
	}
	for _, s := range v.statuses {
		if s.Node == h.Spec.Node {
			for _, name := range slices.Sorted(maps.Keys(s.Interfaces)) {
				add(name, s.Interfaces[name])
			}
		}
	}
	for _, n := range v.nodes {
		if n.Name == h.Spec.Node && len(others) == 0 {
			for _, i := range n.Spec.Interfaces {
				add(i.Name, i.Addresses)
			}
			for _, tunnel := range tunnelsOf(&n.Spec) {
				add("a tunnel,", []string{tunnel})
			}
		}
	}
	return others, known
}

// tunnelsOf returns the addresses of a node's tunnels.
func tunnelsOf(n *v3.NodeSpec) []string {
	all := []string{n.IPv4VXLANTunnelAddr, n.IPv6VXLANTunnelAddr}
	if n.BGP != nil {
		all = append(all, n.BGP.IPv4IPIPTunnelAddr)
	}
	if n.Wireguard != nil {
		all = append(all, n.Wireguard.InterfaceIPv4Address, n.Wireguard.InterfaceIPv6Address)
	}
	return slices.DeleteFunc(all, func(text string) bool { return text == "" })
}
