package ctl

import (
	"context"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"

	v3 "margay/api/v3"
	"margay/calc"
	"margay/selector"
	"margay/store"
)

// The traps that Calico's own guide walks into (spec 0.1), as far as one sees them only in the light of other objects. The
// agents warn of the same by what is in force on their hosts (package calc).
//
//	G1  a policy takes another one's name                               lost, in advice_lost.go
//	G2  only Deny rules: the end of the tier denies the rest            onlyDeny
//	G3  a selector in a NetworkPolicy covers one namespace              ownNamespace
//	G4  the only policy of a host endpoint is about one direction       oneSided
//	G5  a pod on the host's network has no endpoint, so no labels       hostNetworked
//	G6  a host endpoint covers one interface                            uncovered
//	G7  masquerading hides the workloads that a rule means              masqueraded

// A vicinity is what is near the objects of a command. It is read after they were written, only as far as it is needed.
type vicinity struct {
	*landscape
	workloads []*v3.WorkloadEndpoint // of the namespaces of the command's policies
	policies  []*v3.NetworkPolicy    // likewise
	local     []*v3.NetworkSet       // likewise
	sets      []*v3.GlobalNetworkSet
	pools     []*v3.IPPool
	nodes     []*v3.Node
	statuses  []store.NodeStatus
	hostPods  []v3.HostPod
	half      []halfGoverned
}

// maxNamespaces is of how many namespaces a command reads what is in them.
const maxNamespaces = 20

// guide warns of what changes have done, or would do.
func (a *adviser) guide(ctx context.Context, c *cli, w *writer, after *landscape) {
	var policies, created []*change
	for _, change := range w.changes {
		if change.err != nil || change.result == nil || change.state != stateCreated && change.state != stateConfigured {
			continue
		}
		switch change.key.Kind {
		case v3.KindGlobalNetworkPolicy, v3.KindNetworkPolicy:
			policies = append(policies, change)
		case v3.KindHostEndpoint:
			if change.state == stateCreated {
				created = append(created, change)
			}
		}
	}
	if w.session == nil || w.down || len(policies)+len(created) == 0 {
		return
	}
	v := &vicinity{landscape: after}
	v.read(ctx, w.session, policies, len(created) > 0)
	v.half = v.onlyHalf(a.before)
	var traps shared
	for _, change := range policies {
		for _, text := range v.policyWarnings(change.result) {
			traps.add(change.key, text)
		}
	}
	traps.print(c)
	for _, text := range v.uncovered(created) {
		c.warning("%s", text)
	}
}

// read reads what there is to know. What cannot be read is not warned of.
func (v *vicinity) read(ctx context.Context, s *session, policies []*change, endpoints bool) {
	var kinds []v3.Kind
	namespaces := map[string]bool{}
	labels := false
	for _, change := range policies {
		if change.key.Namespace != "" {
			namespaces[change.key.Namespace] = true
		}
		labels = labels || len(calc.LabelMatches(policySpec(change.result))) > 0
	}
	if labels {
		kinds = append(kinds, v3.KindGlobalNetworkSet, v3.KindIPPool)
	}
	if endpoints {
		kinds = append(kinds, v3.KindNode)
		v.statuses, _ = s.statuses(ctx)
	}
	if len(kinds) > 0 {
		v.list(ctx, s, "", kinds...)
	}
	for _, namespace := range slices.Sorted(maps.Keys(namespaces))[:min(len(namespaces), maxNamespaces)] {
		v.list(ctx, s, namespace, v3.KindWorkloadEndpoint, v3.KindNetworkPolicy, v3.KindNetworkSet)
	}
	if pods, ok := s.store.(store.HostPods); ok && len(policies) > 0 {
		v.hostPods, _ = within(ctx, s, func(ctx context.Context) ([]v3.HostPod, error) { return pods.HostPods(ctx, "") })
	}
	v.take(policies)
}

// together returns what is near each other in manifests, without a datastore.
func (c *cli) together(docs []v3.Document) *vicinity {
	v := &vicinity{landscape: newLandscape(c.env.Settings)}
	for _, doc := range docs {
		v.add(doc.Object)
		switch r := doc.Object.(type) {
		case *v3.WorkloadEndpoint:
			v.workloads = append(v.workloads, r)
		case *v3.NetworkPolicy:
			v.policies = append(v.policies, r)
		}
	}
	return v
}

// alone returns a resource as v3.Warnings should see it when only its vicinity is known: what the other manifests answer is
// answered.
func (v *vicinity) alone(r v3.Resource) v3.Resource {
	switch r := r.(type) {
	case *v3.HostEndpoint:
		if v.governed(r, v3.TypeIngress) && v.governed(r, v3.TypeEgress) {
			return v.complete(r)
		}
	case *v3.GlobalNetworkPolicy:
		c := *r
		c.Spec.Ingress, c.Spec.Egress = v.answered(r, v3.TypeIngress), v.answered(r, v3.TypeEgress)
		return &c
	case *v3.NetworkPolicy:
		c := *r
		c.Spec.Ingress, c.Spec.Egress = v.answered(r, v3.TypeIngress), v.answered(r, v3.TypeEgress)
		return &c
	}
	return r
}

// answered returns the rules of a policy, with one that allows if other policies let something through in its place.
func (v *vicinity) answered(r v3.Resource, direction string) []v3.Rule {
	rules := rulesOf(policySpec(r), direction)
	if len(v.onlyDeny(r, direction)) > 0 {
		return rules
	}
	return opened(rules)
}

func (v *vicinity) list(ctx context.Context, s *session, namespace string, kinds ...v3.Kind) {
	found, err := s.list(ctx, namespace, kinds...)
	if err != nil {
		return
	}
	for _, item := range found.Items {
		switch r := item.(type) {
		case *v3.WorkloadEndpoint:
			v.workloads = append(v.workloads, r)
		case *v3.NetworkPolicy:
			v.policies = append(v.policies, r)
		case *v3.NetworkSet:
			v.local = append(v.local, r)
		case *v3.GlobalNetworkSet:
			v.sets = append(v.sets, r)
		case *v3.IPPool:
			v.pools = append(v.pools, r)
		case *v3.Node:
			v.nodes = append(v.nodes, r)
		}
	}
}

// take puts what a dry run would have written in the place of what is stored.
func (v *vicinity) take(policies []*change) {
	for _, change := range policies {
		if p, ok := change.result.(*v3.NetworkPolicy); ok {
			v.policies = slices.DeleteFunc(v.policies, func(old *v3.NetworkPolicy) bool { return v3.KeyOf(old) == change.key })
			v.policies = append(v.policies, p)
		}
	}
}

// policySpec returns what enforced policies have in common.
func policySpec(r v3.Resource) *v3.PolicySpec {
	if p, ok := r.(*v3.NetworkPolicy); ok {
		return &p.Spec
	}
	return &r.(*v3.GlobalNetworkPolicy).Spec.PolicySpec
}

func (v *vicinity) policyWarnings(r v3.Resource) []string {
	list := slices.Concat(v.onlyDeny(r, v3.TypeIngress), v.onlyDeny(r, v3.TypeEgress))
	if p, ok := r.(*v3.NetworkPolicy); ok {
		list = append(list, calc.OwnNamespace(&p.Spec, p.Namespace, func(m *calc.LabelMatch) (bool, []string) {
			return v.having(m.Sel, p.Namespace)
		})...)
	}
	if p, ok := r.(*v3.GlobalNetworkPolicy); ok {
		list = append(list, v.oneSided(p)...)
		list = append(list, v.masqueraded(p)...)
	}
	return append(list, v.hostNetworked(r)...)
}

// An applicant is an endpoint that policies may select.
type applicant struct {
	key    v3.Key
	host   *v3.HostEndpoint // nil: a workload
	labels selector.Map
}

// applicants returns the endpoints that a policy selects in a direction, of those that are known.
func (v *vicinity) applicants(r v3.Resource, direction string) []applicant {
	var out []applicant
	if p, ok := r.(*v3.GlobalNetworkPolicy); ok {
		for _, name := range slices.Sorted(maps.Keys(v.endpoints)) {
			if h := v.endpoints[name]; v.selects(p, h, direction) {
				out = append(out, applicant{v3.KeyOf(h), h, v.labels(h)})
			}
		}
		return out
	}
	for _, w := range v.workloads {
		if a := (applicant{v3.KeyOf(w), nil, v.workloadLabels(w)}); v.appliesTo(r, a, direction) {
			out = append(out, a)
		}
	}
	return out
}

// workloadLabels returns the labels of a workload: those that nobody can change, its own, and those of its profiles.
func (v *vicinity) workloadLabels(w *v3.WorkloadEndpoint) selector.Map {
	labels := selector.Map{}
	for _, name := range slices.Backward(w.Spec.Profiles) {
		if profile := v.profiles[name]; profile != nil {
			maps.Copy(labels, profile.Spec.LabelsToApply)
		}
	}
	maps.Copy(labels, w.Labels)
	labels[v3.LabelNamespace], labels[v3.LabelOrchestrator] = w.Namespace, w.Spec.Orchestrator
	if w.Spec.ServiceAccountName != "" {
		labels[v3.LabelServiceAccount] = w.Spec.ServiceAccountName
	}
	return labels
}

// appliesTo reports whether a policy selects an endpoint and is about the direction.
func (v *vicinity) appliesTo(r v3.Resource, a applicant, direction string) bool {
	spec := policySpec(r)
	if len(spec.Types) > 0 && !slices.Contains(spec.Types, direction) {
		return false
	}
	global, ok := r.(*v3.GlobalNetworkPolicy)
	switch {
	case ok && a.host != nil:
		return v.selects(global, a.host, direction)
	case ok && (global.Spec.DoNotTrack || global.Spec.PreDNAT), !ok && r.GetNamespace() != a.key.Namespace:
		return false
	case ok && !v.under(global.Spec.NamespaceSelector, "pcns.", a), !v.under(spec.ServiceAccountSelector, "pcsa.", a):
		return false
	}
	sel := v.parse(spec.Selector)
	return sel != nil && sel.Matches(a.labels)
}

// under reports whether a selector over the labels of the endpoint's namespace or service account matches; "" does.
func (v *vicinity) under(text, prefix string, a applicant) bool {
	if text == "" {
		return true
	}
	sel := v.parse(text)
	return sel != nil && sel.WithPrefix(prefix).Matches(a.labels)
}

// onlyDeny warns of a policy that denies everything of some endpoints, because it has only Deny or Log rules and no other
// policy of the tier lets something through (guide defect G2).
func (v *vicinity) onlyDeny(r v3.Resource, direction string) []string {
	spec := policySpec(r)
	rules := rulesOf(spec, direction)
	if global, ok := r.(*v3.GlobalNetworkPolicy); ok && (global.Spec.DoNotTrack || global.Spec.PreDNAT) {
		return nil
	}
	if len(rules) == 0 || slices.ContainsFunc(rules, opens) || len(spec.Types) > 0 && !slices.Contains(spec.Types, direction) {
		return nil
	}
	selected := v.applicants(r, direction)
	var denied []string
	for _, a := range selected {
		if !v.opened(r, a, direction) {
			denied = append(denied, a.key.String())
		}
	}
	if len(selected) > 0 && len(denied) == 0 {
		return nil
	}
	action := v3.ActionLog
	if slices.ContainsFunc(rules, func(r v3.Rule) bool { return r.Action == v3.ActionDeny }) {
		action = v3.ActionDeny
	}
	whom := "for " + some(denied)
	if len(denied) == 0 {
		whom = "for the endpoints that it selects, unless another policy of the tier allows it"
	}
	return []string{fmt.Sprintf("spec.%s has only %s rules, so at the end of tier %s everything else is denied too %s (add a rule with action: Allow or Pass for the rest)",
		strings.ToLower(direction), action, spec.Tier, whom)}
}

func rulesOf(spec *v3.PolicySpec, direction string) []v3.Rule {
	if direction == v3.TypeEgress {
		return spec.Egress
	}
	return spec.Ingress
}

func opens(r v3.Rule) bool { return r.Action == v3.ActionAllow || r.Action == v3.ActionPass }

// opened reports whether another policy of the tier lets something through to or from an endpoint.
func (v *vicinity) opened(r v3.Resource, a applicant, direction string) bool {
	tier := policySpec(r).Tier
	does := func(other v3.Resource) bool {
		spec := policySpec(other)
		return v3.KeyOf(other) != v3.KeyOf(r) && spec.Tier == tier && slices.ContainsFunc(rulesOf(spec, direction), opens) && v.appliesTo(other, a, direction)
	}
	for _, p := range v.landscape.policies {
		if does(p) {
			return true
		}
	}
	return slices.ContainsFunc(v.policies, func(p *v3.NetworkPolicy) bool { return does(p) })
}

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

// uncovered warns of host endpoints that are new and cover one interface of their host among others (guide defect G6). Which
// there are is known from agents, and from Nodes. Of a host about which nothing is known it is said in general.
func (v *vicinity) uncovered(created []*change) []string {
	names := map[string][]string{}
	for _, change := range created {
		h, ok := change.result.(*v3.HostEndpoint)
		if !ok {
			continue
		}
		if others, known := v.others(h); len(others) > 0 {
			text := fmt.Sprintf("node %s has %s as well: what policies close stays open there (add a host endpoint for each, or one with interfaceName: \"*\" for all, loopback included)", h.Spec.Node, some(others))
			names[text] = append(names[text], h.Name)
		} else if !known {
			const text = "it covers one interface: what policies close there stays open on every other one of the host, tunnels included (interfaceName: \"*\" covers all, and loopback)"
			names[text] = append(names[text], h.Name)
		}
	}
	var list []string
	for _, text := range slices.Sorted(maps.Keys(names)) {
		list = append(list, "HostEndpoint "+some(names[text])+": "+text)
	}
	return list
}

// others returns the interfaces or addresses of a host endpoint's node that no host endpoint covers, and whether enough is
// known to say that there are none.
func (v *vicinity) others(h *v3.HostEndpoint) (others []string, known bool) {
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
				others = append(others, strings.TrimSpace(fmt.Sprintf("%s %s", name, a)))
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
