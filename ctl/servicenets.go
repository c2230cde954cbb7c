package ctl

import (
	"context"
	"net/netip"
	"slices"

	v3 "margay/api/v3"
	"margay/calc"
)

// misnumbered warns, as agents will, of a BGPConfiguration that takes addresses of hosts and workloads for those of services.
func (c *cli) misnumbered(ctx context.Context, w *writer) {
	var nets []netip.Prefix
	for _, change := range w.changes {
		if b, ok := change.result.(*v3.BGPConfiguration); ok && change.err == nil && change.state != stateDeleted && b.Name == v3.BGPConfigurationDefault {
			nets = calc.ServiceNets(b)
		}
	}
	if len(nets) == 0 || w.session == nil || w.down {
		return
	}
	stored, err := w.list(ctx, "", v3.KindNode, v3.KindHostEndpoint, v3.KindIPPool, v3.KindFelixConfiguration)
	if err != nil {
		return
	}
	now := newWorld(w.settings)
	for _, r := range stored.Items {
		now.put(r)
	}
	for _, change := range w.changes {
		if change.err == nil && change.result != nil {
			now.put(change.result)
		}
	}
	if now.nodeSettings("").ServiceNets == nil {
		return
	}
	var names []string
	for key, r := range now.resources {
		if slices.ContainsFunc(addressed(r), func(p netip.Prefix) bool { return slices.ContainsFunc(nets, p.Overlaps) }) {
			names = append(names, key.String())
		}
	}
	if len(names) > 0 {
		c.warning("%s: %s", v3.Key{Kind: v3.KindBGPConfiguration, Name: v3.BGPConfigurationDefault}, calc.Misnumbered(names))
	}
}

// addressed returns what a host or the workloads of a pool are reached by.
func addressed(r v3.Resource) []netip.Prefix {
	var addrs []netip.Addr
	switch r := r.(type) {
	case *v3.Node:
		addrs = calc.NodeAddresses(r)
	case *v3.HostEndpoint:
		addrs = addrsOf(r.Spec.ExpectedIPs)
	case *v3.IPPool:
		if cidr, err := netip.ParsePrefix(r.Spec.CIDR); err == nil && !slices.Contains(r.Spec.AllowedUses, v3.UseLoadBalancer) {
			return []netip.Prefix{cidr}
		}
	}
	var nets []netip.Prefix
	for _, a := range addrs {
		nets = append(nets, netip.PrefixFrom(a, a.BitLen()))
	}
	return nets
}
