package calc

import (
	"fmt"
	"net/netip"
	"slices"

	v3 "margay/api/v3"
)

// ServiceNets returns the addresses of services that hosts announce, masked, in order, each once; nil: none. What is no network
// is left out.
func ServiceNets(b *v3.BGPConfiguration) []netip.Prefix {
	var nets []netip.Prefix
	for _, blocks := range [][]v3.CIDRBlock{b.Spec.ServiceClusterIPs, b.Spec.ServiceExternalIPs, b.Spec.ServiceLoadBalancerIPs} {
		for _, block := range blocks {
			if net, ok := parsePrefix(block.CIDR); ok {
				nets = append(nets, net)
			}
		}
	}
	slices.SortFunc(nets, comparePrefixes)
	return slices.Compact(nets)
}

// updateServiceNets takes note of the one BGPConfiguration that has addresses of services.
func (c *Calc) updateServiceNets(name string, r v3.Resource) {
	if name != v3.BGPConfigurationDefault {
		return
	}
	c.serviceNets = nil
	if b, ok := r.(*v3.BGPConfiguration); ok {
		c.serviceNets = ServiceNets(b)
	}
}

// ipvsInterface is what kube-proxy makes in IPVS mode, with the addresses of all services.
const ipvsInterface = "kube-ipvs0"

// balances reports whether IPVS balances services on this host.
func (c *Calc) balances() bool {
	_, there := c.ifaces[ipvsInterface]
	return there || slices.Contains(c.hidden, ipvsInterface)
}

// SetHidden takes note of the interfaces of this host that no host endpoint is for, whatever it says (InterfaceExclude).
func (c *Calc) SetHidden(names []string) { c.hidden = names }

// balanced warns of what is dropped although it is to be answered: the kernel cannot where it judges what IPVS balances.
func (c *Calc) balanced(warn func(v3.Key, ...string)) {
	if s := &c.toldSettings; s.IPVS && (s.Reject || s.RejectLoops) {
		warn(v3.Key{Kind: v3.KindNode, Name: c.node}, fmt.Sprintf("kube-proxy balances services by IPVS here (interface %s exists): what is denied of others than this host is dropped, although NftablesFilterDenyAction, IptablesFilterDenyAction or ServiceLoopPrevention is Reject (run kube-proxy in nftables or iptables mode if they need an answer)", ipvsInterface))
	}
}

// misnumbered warns of addresses of services that hosts or workloads have: what this host passes on to those is denied.
func (c *Calc) misnumbered(warn func(v3.Key, ...string)) {
	nets := c.toldSettings.ServiceNets
	if nets == nil {
		return
	}
	var names []string
	among := func(p netip.Prefix) bool { return slices.ContainsFunc(nets, p.Overlaps) }
	for key, it := range c.items {
		endpoint := key.Kind == v3.KindWorkloadEndpoint || key.Kind == v3.KindHostEndpoint && !it.local
		if endpoint && slices.ContainsFunc(it.addrs, among) {
			names = append(names, key.String())
		}
	}
	for name, addrs := range c.hosts {
		key := v3.Key{Kind: v3.KindNode, Name: name}
		if name != c.node && slices.ContainsFunc(addrs, func(a netip.Addr) bool { return among(netip.PrefixFrom(a, a.BitLen())) }) {
			names = append(names, key.String())
		}
	}
	if len(names) > 0 {
		warn(v3.Key{Kind: v3.KindBGPConfiguration, Name: v3.BGPConfigurationDefault}, Misnumbered(names))
	}
}

// Misnumbered is the warning of objects whose addresses are among those of services.
func Misnumbered(names []string) string {
	return fmt.Sprintf("serviceClusterIPs, serviceExternalIPs or serviceLoadBalancerIPs hold addresses of %s: what hosts pass on to these is denied as for services that do not exist (take the addresses out, or set serviceLoopPrevention: Disabled)", someOf(names))
}
