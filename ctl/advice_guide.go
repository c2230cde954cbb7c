package ctl

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"

	v3 "margay/api/v3"
	"margay/calc"
	"margay/selector"
	"margay/store"
)

// The traps that Calico's own guide walks into, as far as one sees them only in the light of other objects. The
// agents warn of the same by what is in force on their hosts (package calc).
//
//	G1  a policy takes another one's name                               lost, in advice_lost.go
//	G2  only Deny rules: the end of the tier denies the rest            onlyDeny
//	G3  a selector in a NetworkPolicy covers one namespace              ownNamespace
//	G4  the only policy of a host endpoint is about one direction       oneSided, in advice_host.go
//	G5  a pod on the host's network has no endpoint, so no labels       hostNetworked, in advice_labels.go
//	G6  a host endpoint covers one interface                            uncovered, in advice_host.go
//	G7  masquerading hides the workloads that a rule means              masqueraded, in advice_labels.go

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
	var policies, created, named []*change
	for _, change := range w.changes {
		if change.err != nil || change.result == nil || change.state != stateCreated && change.state != stateConfigured {
			continue
		}
		switch change.key.Kind {
		case v3.KindGlobalNetworkPolicy, v3.KindNetworkPolicy:
			policies = append(policies, change)
		case v3.KindHostEndpoint, v3.KindWorkloadEndpoint:
			named = append(named, change)
			if change.key.Kind == v3.KindHostEndpoint && change.state == stateCreated {
				created = append(created, change)
			}
		}
	}
	if w.session == nil || w.down || len(policies)+len(named) == 0 {
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
	for _, change := range named {
		for _, text := range v.profileless(change.result) {
			traps.add(change.key, text)
		}
	}
	v.forwarding(&traps, policies, named)
	traps.print(c)
	for _, text := range uncoveredTexts(v.uncovered(created)) {
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
