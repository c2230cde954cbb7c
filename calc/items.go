package calc

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"

	v3 "margay/api/v3"
	"margay/ruleset"
)

// An item is a labelled object that gives addresses to sets: an endpoint of any node or a network set. Only what
// matching needs is kept of the resource. Items are replaced, not changed, but for sets and touched.
type item struct {
	key v3.Key
	labels
	addrs    []netip.Prefix // masked, in order, each once
	ports    []namedPort    // in order, each once
	node     string         // of an endpoint
	local    bool           // an endpoint of this node
	sets     []*set         // those that select the item, as of the last Flush, and some that are dead
	touched  bool           // sets is to be made anew
	warnings []string
}

type namedPort struct {
	name     string
	protocol uint8
	port     uint16
}

func (c *Calc) updateItem(key v3.Key, r v3.Resource) {
	old := c.items[key]
	c.touch(key)
	if old != nil {
		c.disinherit(old)
		c.holders.remove(old)
		delete(c.items, key)
	}
	if r == nil {
		return
	}
	it := c.newItem(key, r)
	it.touched = true
	c.items[key] = it
	c.holders.add(it)
	for _, p := range it.parents {
		p.heirs[it] = struct{}{}
	}
}

// touch has an item matched again; what it is now is what it was at the last Flush unless it was touched since.
func (c *Calc) touch(key v3.Key) {
	it := c.items[key]
	if _, done := c.touched[key]; !done {
		c.touched[key] = it
	}
	if it != nil {
		it.touched = true
	}
}

// newItem panics if r is not of the kind that the key says.
func (c *Calc) newItem(key v3.Key, r v3.Resource) *item {
	it := &item{key: key, labels: labels{own: r.GetLabels()}}
	switch r := r.(type) {
	case *v3.HostEndpoint:
		c.readHostEndpoint(it, &r.Spec)
	case *v3.WorkloadEndpoint:
		c.readWorkloadEndpoint(it, &r.Spec)
	case *v3.GlobalNetworkSet:
		it.addAddrs("spec.nets", r.Spec.Nets, netip.Prefix.IsValid)
	case *v3.NetworkSet:
		it.force(labelNamespace, key.Namespace)
		it.parents = c.inherit([]string{namespaceProfile + key.Namespace})
		it.addAddrs("spec.nets", r.Spec.Nets, netip.Prefix.IsValid)
	default:
		panic(fmt.Sprintf("calc: %s came with a value of type %T", key, r))
	}
	slices.SortFunc(it.addrs, comparePrefixes)
	it.addrs = slices.Clip(slices.Compact(it.addrs))
	slices.SortFunc(it.ports, comparePorts)
	it.ports = slices.Clip(slices.Compact(it.ports))
	return it
}

func (c *Calc) readHostEndpoint(it *item, spec *v3.HostEndpointSpec) {
	it.node, it.local = spec.Node, spec.Node == c.node
	it.parents = c.inherit(spec.Profiles)
	it.addAddrs("spec.expectedIPs", spec.ExpectedIPs, netip.Prefix.IsSingleIP)
	for i, p := range spec.Ports {
		it.addPort(fmt.Sprintf("spec.ports[%d]", i), v3.WorkloadEndpointPort{Name: p.Name, Protocol: p.Protocol, Port: p.Port})
	}
}

func (c *Calc) readWorkloadEndpoint(it *item, spec *v3.WorkloadEndpointSpec) {
	it.node, it.local = spec.Node, spec.Node == c.node
	it.force(labelNamespace, it.key.Namespace)
	it.force(labelOrchestrator, spec.Orchestrator)
	it.force(labelServiceAccount, spec.ServiceAccountName)
	it.parents = c.inherit(spec.Profiles)
	it.addAddrs("spec.ipNetworks", spec.IPNetworks, netip.Prefix.IsSingleIP)
	for i, p := range spec.Ports {
		if p.Name != "" { // a host port without a name is no matter of policy
			it.addPort(fmt.Sprintf("spec.ports[%d]", i), p)
		}
	}
}

// force gives the item a label that its author cannot change. The store writes most of them into the item's own labels.
func (it *item) force(name, value string) {
	if own, ok := it.own[name]; value == "" || ok && own == value {
		return
	}
	it.forced = append(it.forced, label{name, value})
}

// addAddrs adds what parses and is accepted; nothing else should have come so far.
func (it *item) addAddrs(path string, texts []string, accepts func(netip.Prefix) bool) {
	it.addrs = slices.Grow(it.addrs, len(texts))
	for i, text := range texts {
		p, ok := parsePrefix(text)
		if !ok || !accepts(p) {
			it.warnings = append(it.warnings, fmt.Sprintf("%s[%d]: %q is not an address that fits here; it is in no set", path, i, text))
			continue
		}
		it.addrs = append(it.addrs, p)
	}
}

func (it *item) addPort(path string, p v3.WorkloadEndpointPort) {
	protocol, ok := p.Protocol.Number()
	if !ok || p.Port == 0 {
		it.warnings = append(it.warnings, fmt.Sprintf("%s: protocol %q, port %d is no port; it is in no set", path, p.Protocol, p.Port))
		return
	}
	it.ports = append(it.ports, namedPort{p.Name, protocol, p.Port})
}

// eachMember calls f with what the item gives to a set, each member once.
func (it *item) eachMember(s *set, f func(ruleset.Member)) {
	for _, addr := range it.addrs {
		if s.kind == ruleset.Addrs {
			f(ruleset.Member{Prefix: addr})
			continue
		}
		for _, p := range it.ports {
			if p.name == s.port && (s.protocol == 0 || s.protocol == p.protocol) {
				f(ruleset.Member{Prefix: addr, Protocol: p.protocol, Port: p.port})
			}
		}
	}
}

// parsePrefix reads a network or an address and masks it. An IPv4 address in the clothes of IPv6 is one of IPv4.
func parsePrefix(text string) (netip.Prefix, bool) {
	p, err := netip.ParsePrefix(text)
	if err != nil {
		a, err := netip.ParseAddr(text)
		if err != nil || a.Zone() != "" {
			return netip.Prefix{}, false
		}
		p = netip.PrefixFrom(a, a.BitLen())
	}
	if p.Addr().Is4In6() && p.Bits() >= 96 {
		p = netip.PrefixFrom(p.Addr().Unmap(), p.Bits()-96)
	}
	return p.Masked(), true
}

func comparePrefixes(a, b netip.Prefix) int {
	return ruleset.Member{Prefix: a}.Compare(ruleset.Member{Prefix: b})
}

func comparePorts(a, b namedPort) int {
	return cmp.Or(cmp.Compare(a.name, b.name), cmp.Compare(a.protocol, b.protocol), cmp.Compare(a.port, b.port))
}
