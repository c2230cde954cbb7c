package ctl

import (
	"fmt"
	"maps"
	"net/netip"
	"slices"

	v3 "margay/api/v3"
	"margay/calc"
	"margay/selector"
)

// What is to be said of labels that rules select by, and of who has them.

// having says what has labels: whether something in a namespace, and what is known elsewhere.
func (v *vicinity) having(sel *selector.Selector, namespace string) (inside bool, elsewhere []string) {
	for _, w := range v.workloads {
		inside = inside || w.Namespace == namespace && sel.Matches(v.workloadLabels(w))
	}
	for _, s := range v.local {
		inside = inside || s.Namespace == namespace && sel.Matches(selector.Map(s.Labels))
	}
	for _, s := range v.sets {
		if sel.Matches(selector.Map(s.Labels)) {
			elsewhere = append(elsewhere, v3.KeyOf(s).String())
		}
	}
	for _, h := range v.endpoints {
		if sel.Matches(selector.Map(v.labels(h))) {
			elsewhere = append(elsewhere, v3.KeyOf(h).String())
		}
	}
	return inside, elsewhere
}

// hostNetworked warns of labels of pods that have no endpoint (guide defect G5).
func (v *vicinity) hostNetworked(r v3.Resource) []string {
	var list []string
	for _, m := range calc.LabelMatches(policySpec(r)) {
		sel := m.Reach(r.GetNamespace())
		var pods []string
		for _, pod := range v.hostPods {
			if sel.Matches(v.podLabels(pod)) && !v.knowsHost(sel, pod.Node) {
				pods = append(pods, pod.String())
			}
		}
		if len(pods) > 0 {
			slices.Sort(pods)
			list = append(list, fmt.Sprintf("%s: pod %s has the label, but is on the network of its host and has no endpoint, so the rule does not know it (give the label to the host endpoint of its node, which then counts for all that is on the node, or to a global network set with the node's address)", m.Path, some(pods)))
		}
	}
	return list
}

func (v *vicinity) podLabels(pod v3.HostPod) selector.Map {
	w := &v3.WorkloadEndpoint{}
	w.Namespace, w.Labels = pod.Namespace, pod.Labels
	w.Spec.Orchestrator, w.Spec.ServiceAccountName = v3.OrchestratorKubernetes, pod.ServiceAccount
	w.Spec.Profiles = []string{v3.PrefixNamespaceProfile + pod.Namespace, v3.PrefixServiceAccountProfile + pod.Namespace + "." + pod.ServiceAccount}
	return v.workloadLabels(w)
}

// knowsHost reports whether a selector covers the addresses of a node, by its host endpoint or a network set.
func (v *vicinity) knowsHost(sel *selector.Selector, node string) bool {
	var addrs []string
	for _, h := range v.endpoints {
		if h.Spec.Node == node {
			addrs = append(addrs, h.Spec.ExpectedIPs...)
			if sel.Matches(selector.Map(v.labels(h))) && len(h.Spec.ExpectedIPs) > 0 {
				return true
			}
		}
	}
	return v.inSet(sel, addrs)
}

// inSet reports whether a global network set that a selector matches holds one of the addresses, or there is none to ask for.
func (v *vicinity) inSet(sel *selector.Selector, addrs []string) bool {
	wanted := addrsOf(addrs)
	for _, s := range v.sets {
		if !sel.Matches(selector.Map(s.Labels)) {
			continue
		}
		if len(wanted) == 0 {
			return true
		}
		for _, text := range s.Spec.Nets {
			net := netOf(text)
			if slices.ContainsFunc(wanted, net.Contains) {
				return true
			}
		}
	}
	return false
}

// netOf returns a network or an address as a network; the zero value contains nothing.
func netOf(text string) netip.Prefix {
	if p, err := netip.ParsePrefix(text); err == nil {
		return p
	}
	if a, err := netip.ParseAddr(text); err == nil {
		return netip.PrefixFrom(a, a.BitLen())
	}
	return netip.Prefix{}
}

// masqueraded warns of rules for host endpoints that mean workloads by their labels, while these come from the addresses of
// their nodes (guide defect G7). Whoever gave the label to host endpoints, or to a set that holds some of them, knows.
func (v *vicinity) masqueraded(p *v3.GlobalNetworkPolicy) []string {
	var pools, hosts, addrs []string
	for _, pool := range v.pools {
		if pool.Spec.NATOutgoing {
			pools = append(pools, pool.Name)
		}
	}
	for _, a := range v.applicants(p, v3.TypeIngress) {
		hosts = append(hosts, a.key.String())
	}
	felix := v.felix["default"]
	spared := felix != nil && felix.Spec.NATOutgoingExclusions != nil && *felix.Spec.NATOutgoingExclusions == "IPPoolsAndHostIPs"
	if len(pools) == 0 || len(hosts) == 0 || spared {
		return nil
	}
	for _, h := range v.endpoints {
		addrs = append(addrs, h.Spec.ExpectedIPs...)
	}
	var list []string
	for _, m := range calc.LabelMatches(&p.Spec.PolicySpec) {
		sel := m.Reach("")
		labelled := slices.ContainsFunc(slices.Collect(maps.Values(v.endpoints)), func(h *v3.HostEndpoint) bool {
			return sel.Matches(selector.Map(v.labels(h)))
		})
		if m.Ingress && m.Source && !labelled && !v.inSet(sel, addrs) {
			list = append(list, fmt.Sprintf("%s: workloads of IPPool %s reach other hosts under the address of their node (natOutgoing), so %s does not know them by this label (set natOutgoingExclusions: IPPoolsAndHostIPs in FelixConfiguration default, or give the label to the host endpoints of their nodes)", m.Path, some(pools), some(hosts)))
		}
	}
	return list
}
