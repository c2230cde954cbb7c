package nft

import (
	"slices"

	"golang.org/x/sys/unix"

	"margay/ruleset"
)

// Comments of rules that no policy has a say in.
const (
	discoveryRemark     = "neighbour discovery"
	hostTunnelRemark    = "tunnel between hosts"
	strangeTunnelRemark = "tunnel from no host"
)

// discoveries returns the rules for what a host needs to use IPv6 at all (ruleset: HostDiscovery).
func discoveries(x exit) []*Rule {
	report := condition{text: "icmpv6 type mld2-listener-report ", code: icmpv6Type().cmp(unix.NFT_CMP_EQ, []byte{143})}
	return []*Rule{discovery(130, 136).counted(x, discoveryRemark), report.counted(x, discoveryRemark)}
}

// hostTunnels returns the rules that accept what comes in a tunnel from a host of the cluster, or goes to one.
func (p *part) hostTunnels() []*Rule {
	var list []ruleset.Rule
	add := func(r ruleset.Rule, hosts ruleset.Entity) {
		if p.dir == ruleset.Ingress {
			r.Source = hosts
		} else {
			r.Destination.Sets, r.Destination.Nets = hosts.Sets, hosts.Nets
		}
		list = append(list, r)
	}
	for _, t := range p.settings.Tunnels {
		add(tunnelRule(t), ruleset.Entity{Sets: []ruleset.SetID{ruleset.Hosts}})
		if len(p.settings.TunnelNets) > 0 {
			add(tunnelRule(t), ruleset.Entity{Nets: p.settings.TunnelNets})
		}
	}
	return p.tunnelRules(list, exit{verdict: nfAccept}, hostTunnelRemark)
}

// strangeTunnels returns the rules that deny what is delivered to this host in a tunnel and comes from no host.
func (b *builder) strangeTunnels() []*Rule {
	var list []ruleset.Rule
	for _, t := range b.settings.Tunnels {
		if !t.Proven {
			r := tunnelRule(t)
			r.Source = ruleset.Entity{NotSets: []ruleset.SetID{ruleset.Hosts}, NotNets: b.settings.TunnelNets}
			list = append(list, r)
		}
	}
	return b.tunnelRules(list, b.denial(), strangeTunnelRemark)
}

// tunnelRule returns a rule that matches what is in a tunnel, whoever sent it.
func tunnelRule(t ruleset.Tunnel) ruleset.Rule {
	r := ruleset.Rule{Protocol: t.Protocol, Family: t.Family}
	if ruleset.HasPorts(t.Protocol) {
		r.Destination.Ports = &ruleset.Ports{Ranges: []ruleset.PortRange{{First: t.Port, Last: t.Port}}}
	}
	return r
}

// tunnelRules returns what rules become. The unit is made again when the set of hosts is another one.
func (b *builder) tunnelRules(list []ruleset.Rule, x exit, about string) []*Rule {
	if len(list) == 0 {
		return nil
	}
	m := &lineMaker{builder: b, item: &item{key: itemKey{owner: ruleset.PolicyID{Kind: "Tunnel"}}}}
	var rules []*Rule
	for i := range list {
		for _, v := range variants(m, &list[i], b.to()) {
			rules = append(rules, match(v).counted(x, about))
		}
	}
	kept := b.items[m.item.key.owner]
	if i := slices.IndexFunc(kept, func(it *item) bool { return it.key == m.item.key }); i >= 0 {
		m.item = kept[i]
	} else {
		b.keepItem(m.item)
	}
	b.used = append(b.used, m.item)
	return rules
}
