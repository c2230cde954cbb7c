package calc

import (
	"net/netip"
	"slices"
	"strings"

	v3 "margay/api/v3"
	"margay/ruleset"
)

// NodeAddresses returns the addresses of a Node, in order, each once. Those of tunnel interfaces are none of them: packets in
// tunnels come from where the tunnel begins.
func NodeAddresses(n *v3.Node) []netip.Addr {
	var texts []string
	if n.Spec.BGP != nil {
		texts = append(texts, n.Spec.BGP.IPv4Address, n.Spec.BGP.IPv6Address)
	}
	for _, a := range n.Spec.Addresses {
		texts = append(texts, a.Address)
	}
	var list []netip.Addr
	for _, text := range texts {
		text, _, _ = strings.Cut(text, "/") // BGP has them with the length of their network
		if a, err := netip.ParseAddr(text); err == nil && a.Zone() == "" {
			list = append(list, a.Unmap())
		}
	}
	slices.SortFunc(list, netip.Addr.Compare)
	return slices.Compact(list)
}

func (c *Calc) updateHost(name string, r v3.Resource) {
	before := c.hosts[name]
	delete(c.hosts, name)
	if r != nil {
		c.hosts[name] = NodeAddresses(r.(*v3.Node))
	}
	if s := c.sets[ruleset.Hosts]; s != nil {
		eachAddr(c.hosts[name], s.giveMember)
		eachAddr(before, s.takeMember)
		c.changedSets[s] = struct{}{}
	}
}

// keepHosts has the set of hosts in use when there are tunnels, and only then.
func (c *Calc) keepHosts(tunnels bool) {
	s := c.sets[ruleset.Hosts]
	switch {
	case s == nil && tunnels:
		s = c.set(setSpec{hosts: true})
		for _, addrs := range c.hosts {
			eachAddr(addrs, s.giveMember)
		}
		s.users++
	case s != nil && !tunnels:
		s.users--
		c.unusedSets[s] = struct{}{}
	}
}

func eachAddr(addrs []netip.Addr, f func(ruleset.Member)) {
	for _, a := range addrs {
		f(ruleset.Member{Prefix: netip.PrefixFrom(a, a.BitLen())})
	}
}
