package calc

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"

	v3 "margay/api/v3"
	"margay/ruleset"
	"margay/selector"
)

// The traps that Calico's own guide walks into and that one sees only in the light of other objects:
//
//	G2  only Deny rules: the end of the tier denies the rest          barrenTiers
//	G3  a selector in a NetworkPolicy covers one namespace            ownNamespace
//	G4  one direction of a host endpoint has no policy                undecided, in warnings.go
//	G5  a pod on the host's network has no endpoint, so no labels     hostNetworked
//	G6  a host endpoint covers one interface, and no local workload   uncovered
//	G7  masquerading hides the workload that a rule means             masqueraded
//
// G1, a policy that another one of its name replaced, is in no present state; see [Lost].

// SetHostPods takes note of all pods on their node's own network that are known. They must not be changed afterwards.
func (c *Calc) SetHostPods(pods []v3.HostPod) { c.hostPods = pods }

// labelsOf returns what a selector would see if the pod were an endpoint.
func (c *Calc) labelsOf(p v3.HostPod) *labels {
	l := &labels{own: p.Labels, forced: []label{{labelNamespace, p.Namespace}, {labelOrchestrator, "k8s"}}}
	if p.ServiceAccount != "" {
		l.forced = append(l.forced, label{labelServiceAccount, p.ServiceAccount})
	}
	for _, name := range []string{namespaceProfile + p.Namespace, "ksa." + p.Namespace + "." + p.ServiceAccount} {
		if profile := c.profiles[name]; profile != nil {
			l.parents = append(l.parents, profile)
		}
	}
	return l
}

// A LabelMatch is where a rule asks for labels of one end.
type LabelMatch struct {
	Path string // of the selector in the policy
	// Sel is the selector as it is written; of notSelector it matches what is excepted.
	Sel                       *selector.Selector
	Negative, Source, Ingress bool
	Entity                    *v3.EntityRule
}

// LabelMatches returns where the rules of a policy ask for labels that something must have: a selector that also matches
// without any label means nothing in particular.
func LabelMatches(spec *v3.PolicySpec) []LabelMatch {
	var out []LabelMatch
	for i := range spec.Ingress {
		out = appendMatches(out, fmt.Sprintf("spec.ingress[%d]", i), &spec.Ingress[i], ruleset.Ingress)
	}
	for i := range spec.Egress {
		out = appendMatches(out, fmt.Sprintf("spec.egress[%d]", i), &spec.Egress[i], ruleset.Egress)
	}
	return out
}

func appendMatches(out []LabelMatch, path string, r *v3.Rule, d ruleset.Direction) []LabelMatch {
	for _, m := range []struct {
		field, text string
		entity      *v3.EntityRule
	}{
		{"source.notSelector", r.Source.NotSelector, &r.Source}, {"source.selector", r.Source.Selector, &r.Source},
		{"destination.notSelector", r.Destination.NotSelector, &r.Destination}, {"destination.selector", r.Destination.Selector, &r.Destination},
	} {
		sel, err := selector.Parse(m.text)
		if m.text == "" || err != nil {
			continue
		}
		if _, bound := sel.Requirements(); bound {
			out = append(out, LabelMatch{path + "." + m.field, sel, strings.HasSuffix(m.field, "notSelector"), m.entity == &r.Source, d == ruleset.Ingress, m.entity})
		}
	}
	return out
}

// Reach returns what is selected in a policy of a namespace, "" for a GlobalNetworkPolicy, namespaces included; of
// notSelector what is excepted.
func (m *LabelMatch) Reach(namespace string) *selector.Selector {
	k := compiler{namespace: namespace}
	positive, negative := k.selectors("", m.Entity)
	switch {
	case !m.Negative:
		return positive
	case positive == nil:
		return negative
	}
	return selector.And(positive, negative)
}

// eachMatch calls f once with every item that a selector matches, if that needs a label, until f returns false.
func (c *Calc) eachMatch(sel *selector.Selector, f func(*item) bool) {
	requirements, _ := sel.Rarest(c.countHolders)
	seen, more := map[*item]bool{}, true
	for _, r := range requirements {
		c.eachHolder(r, func(it *item) {
			if more && !seen[it] && sel.Matches(&it.labels) {
				more = f(it)
			}
			seen[it] = true
		})
	}
}

// maxNamed is how many of many things a warning names.
const maxNamed = 5

// someOf names the first few of many, each once.
func someOf(names []string) string {
	slices.Sort(names)
	names = slices.Compact(names)
	if len(names) <= maxNamed {
		return strings.Join(names, ", ")
	}
	return fmt.Sprintf("%s and %d more", strings.Join(names[:maxNamed], ", "), len(names)-maxNamed)
}

// A barren is a tier that denies everything of some endpoints though there are rules: none of them allows or passes.
type barren struct {
	tier, policies, only string
	stage                ruleset.Stage
	direction            ruleset.Direction
}

// barrenTiers calls warn for each policy that has a part in such a tier. A tier without any rule is meant so.
func (c *Calc) barrenTiers(warn func(v3.Key, ...string)) {
	endpoints, policies := map[barren][]string{}, map[barren][]ruleset.PolicyID{}
	for _, ep := range c.locals {
		ordered := c.ordered(ep.policies)
		for _, s := range []ruleset.Stage{ruleset.Normal, ruleset.Forward} {
			walk := c.walk(ordered, s)
			for _, d := range []ruleset.Direction{ruleset.Ingress, ruleset.Egress} {
				for _, tier := range walk.Tiers(d) {
					if only, ids := c.opensNothing(tier, d); only != "" {
						b := barren{tier.Name, namesOf(ids), only, s, d}
						endpoints[b], policies[b] = append(endpoints[b], ep.id.String()), ids
					}
				}
			}
		}
	}
	for b, names := range endpoints {
		text := fmt.Sprintf("all %s of %s is denied at the end of tier %s (%s stage): the rules of %s only %s (add a rule with action: Allow or Pass for the rest)",
			b.direction, someOf(names), b.tier, b.stage, b.policies, b.only)
		for _, id := range policies[b] {
			warn(keyOf(id), text)
		}
	}
}

// opensNothing returns what the rules of a tier do, and whose they are, if there are some and none allows or passes.
func (c *Calc) opensNothing(tier ruleset.Tier, d ruleset.Direction) (only string, ids []ruleset.PolicyID) {
	only = "Log"
	if tier.EndPass {
		return "", nil
	}
	for _, id := range tier.Policies {
		policy := c.policies[id].told
		if policy == nil || policy.Staged {
			continue
		}
		for _, r := range policy.Rules(d) {
			switch r.Action {
			case ruleset.Allow, ruleset.Pass:
				return "", nil
			case ruleset.Deny:
				only = "Deny"
			}
		}
		if len(policy.Rules(d)) > 0 {
			ids = append(ids, id)
		}
	}
	if len(ids) == 0 {
		return "", nil
	}
	return only, ids
}

func namesOf(ids []ruleset.PolicyID) string {
	names := make([]string, len(ids))
	for i, id := range ids {
		names[i] = id.String()
	}
	return strings.Join(names, ", ")
}

// ownNamespace warns of selectors of a NetworkPolicy that cover its own namespace where more is meant.
func (c *Calc) ownNamespace(p *policy) []string {
	if p.id.Kind != string(v3.KindNetworkPolicy) && p.id.Kind != string(v3.KindStagedNetworkPolicy) {
		return nil
	}
	return OwnNamespace(p.spec, p.id.Namespace, func(m *LabelMatch) (inside bool, elsewhere []string) {
		c.eachMatch(selector.And(m.Sel, selector.Equal(labelNamespace, p.id.Namespace)), func(*item) bool {
			inside = true
			return false
		})
		if inside && !m.Negative {
			return true, nil // as most are, so that this is quick
		}
		c.eachMatch(m.Sel, func(it *item) bool {
			if namespace, _ := it.Get(labelNamespace); namespace != p.id.Namespace {
				elsewhere = append(elsewhere, it.key.String())
			}
			return true
		})
		return inside, elsewhere
	})
}

// OwnNamespace returns a warning of the first selector of a NetworkPolicy that covers the policy's own namespace where more
// is meant, none if there is none. having says what has the labels, in the namespace and elsewhere: that a
// selector covers its own namespace is as it should be if something there has them, and no matter while nothing has.
func OwnNamespace(spec *v3.PolicySpec, namespace string, having func(*LabelMatch) (inside bool, elsewhere []string)) []string {
	for _, m := range LabelMatches(spec) {
		if m.Entity.NamespaceSelector != "" || m.Negative && m.Entity.Selector != "" {
			continue
		}
		inside, elsewhere := having(&m)
		if !m.Negative && (inside || len(elsewhere) == 0) {
			continue
		}
		text := fmt.Sprintf("%s: without a namespaceSelector it covers namespace %s only: other namespaces, host endpoints, global network sets and unknown addresses never match", m.Path, namespace)
		if len(elsewhere) > 0 {
			text += ", so that " + someOf(elsewhere) + " is not what it means there"
		}
		if m.Negative {
			return []string{text + " (allow what has the label in rules of their own, with selector and namespaceSelector: all(), and again with namespaceSelector: global(); then deny without a source)"}
		}
		return []string{text + " (add namespaceSelector: all() for every namespace, global() for host endpoints and global network sets)"}
	}
	return nil
}

// hostNetworked warns of the labels of pods that have no endpoint: those that the policy is for, on this node, and those that
// its rules mean, anywhere.
func (c *Calc) hostNetworked(s *survey, p *policy) []string {
	if len(c.hostPods) == 0 || p.spec == nil {
		return nil
	}
	var list []string
	if _, bound := p.term.sel.Requirements(); bound && p.spec.Selector != "" && !selectsAll(p.spec.Selector) {
		if pods := c.podsWhere(p.term.sel, func(pod v3.HostPod) bool { return pod.Node == c.node }); len(pods) > 0 {
			list = append(list, fmt.Sprintf("spec.selector: pod %s is on the network of its host and has no endpoint, so the policy does not apply to it (select the host endpoint of node %s, and name the pod's ports)", someOf(pods), c.node))
		}
	}
	if len(p.endpoints) == 0 {
		return list
	}
	for _, m := range LabelMatches(p.spec) {
		sel := m.Reach(p.id.Namespace)
		if pods := c.podsWhere(sel, func(pod v3.HostPod) bool { return !s.knows(c.match(s, sel), pod.Node) }); len(pods) > 0 {
			list = append(list, fmt.Sprintf("%s: pod %s has the label, but is on the network of its host and has no endpoint, so the rule does not know it (give the label to the host endpoint of its node, which then counts for all that is on the node, or to a global network set with the node's address)", m.Path, someOf(pods)))
		}
	}
	return list
}

func (c *Calc) podsWhere(sel *selector.Selector, meant func(v3.HostPod) bool) []string {
	var names []string
	for _, pod := range c.hostPods {
		if sel.Matches(c.labelsOf(pod)) && meant(pod) {
			names = append(names, pod.String())
		}
	}
	return names
}

// A survey is what warnings of one time share: what selectors match, found once for all rules that have them.
type survey struct {
	hosts   map[string][]netip.Prefix // addresses of the host endpoints of each node
	matched map[string]*matched       // by the selector's id
}

// matched is what a selector matches.
type matched struct {
	workloads []*item // of other nodes
	known     map[string]bool
	sets      []netip.Prefix
	// masked names the workloads that are hidden by masquerading, and the pools that do it, once looked at.
	masked *[2]string
}

func (c *Calc) newSurvey() *survey {
	s := &survey{hosts: map[string][]netip.Prefix{}, matched: map[string]*matched{}}
	for key, it := range c.items {
		if key.Kind == v3.KindHostEndpoint {
			s.hosts[it.node] = append(s.hosts[it.node], it.addrs...)
		}
	}
	return s
}

func (c *Calc) match(s *survey, sel *selector.Selector) *matched {
	if m := s.matched[sel.ID()]; m != nil {
		return m
	}
	m := &matched{known: map[string]bool{}}
	c.eachMatch(sel, func(it *item) bool {
		switch it.key.Kind {
		case v3.KindHostEndpoint:
			m.known[it.node] = m.known[it.node] || len(it.addrs) > 0
		case v3.KindWorkloadEndpoint:
			if !it.local {
				m.workloads = append(m.workloads, it)
			}
		default:
			m.sets = append(m.sets, it.addrs...)
		}
		return true
	})
	s.matched[sel.ID()] = m
	return m
}

// maxListed is how long a list of networks may be for a warning to look for an address in it.
const maxListed = 1000

// knows reports whether what is matched covers the addresses of a node: by its host endpoint, or a network set. Of a node
// without host endpoint the addresses are not known; then any network set may hold them.
func (s *survey) knows(m *matched, node string) bool {
	known, done := m.known[node]
	if !done {
		own := s.hosts[node]
		holds := func(p netip.Prefix) bool { return slices.ContainsFunc(own, p.Overlaps) }
		// Of a list so long nobody knows what is not in it.
		known = len(m.sets) > maxListed || len(m.sets) > 0 && (len(own) == 0 || slices.ContainsFunc(m.sets, holds))
		m.known[node] = known
	}
	return known
}

// masqueraded warns of workloads that rules for host endpoints mean by their labels, and that reach other hosts under the
// address of their own node: an IPPool with natOutgoing excepts the addresses of pools only, unless
// natOutgoingExclusions says more.
func (c *Calc) masqueraded(s *survey, p *policy) []string {
	if host, _, _ := p.kindsOfEndpoints(); host == nil || !p.applies(ruleset.Ingress) || c.sparesHosts || len(c.natPools) == 0 {
		return nil
	}
	var list []string
	for _, m := range LabelMatches(p.spec) {
		if !m.Ingress || !m.Source {
			continue
		}
		if masked := c.masked(s, c.match(s, m.Reach(p.id.Namespace))); masked[0] != "" {
			list = append(list, fmt.Sprintf("%s: %s has the label, but IPPool %s has natOutgoing, so that it comes from the address of its node, which the rule does not know (set natOutgoingExclusions: IPPoolsAndHostIPs in FelixConfiguration default, or give the label to the host endpoints of the nodes)", m.Path, masked[0], masked[1]))
		}
	}
	return list
}

// masked looks which of the workloads come from addresses that the same selector does not match.
func (c *Calc) masked(s *survey, m *matched) [2]string {
	if m.masked != nil {
		return *m.masked
	}
	var workloads, pools []string
	for _, it := range m.workloads {
		if pool := c.masqueradingPool(it.addrs); pool != "" && !s.knows(m, it.node) {
			workloads = append(workloads, it.key.String())
			if !slices.Contains(pools, pool) {
				pools = append(pools, pool)
			}
		}
	}
	m.masked = &[2]string{someOf(workloads), someOf(pools)}
	return *m.masked
}

// masqueradingPool returns the first pool by name with natOutgoing that holds one of the addresses; "" if none does.
func (c *Calc) masqueradingPool(addrs []netip.Prefix) string {
	first := ""
	for name, cidr := range c.natPools {
		if (first == "" || name < first) && slices.ContainsFunc(addrs, cidr.Overlaps) {
			first = name
		}
	}
	return first
}

// updatePool takes note of an IPPool, of which only masquerading matters here.
func (c *Calc) updatePool(name string, r v3.Resource) {
	delete(c.natPools, name)
	if pool, ok := r.(*v3.IPPool); ok && pool.Spec.NATOutgoing {
		if cidr, ok := parsePrefix(pool.Spec.CIDR); ok {
			c.natPools[name] = cidr
		}
	}
}

// updateExclusions takes note of what the nodes except from masquerading.
func (c *Calc) updateExclusions(name string, r v3.Resource) {
	if name != "default" {
		return
	}
	felix, ok := r.(*v3.FelixConfiguration)
	c.sparesHosts = ok && felix.Spec.NATOutgoingExclusions != nil && *felix.Spec.NATOutgoingExclusions == "IPPoolsAndHostIPs"
}

// uncovered warns, with the first host endpoint of this node that closes something, of other ways to the same ports: other
// interfaces, and workloads of the node.
func (c *Calc) uncovered(warn func(v3.Key, ...string)) {
	var closing *endpoint
	var covered, ids []string
	for _, ep := range c.locals {
		if ep.host == nil {
			continue
		}
		covered = append(covered, ep.interfaces...)
		if len(ep.interfaces) > 0 && c.closes(ep) {
			ids = append(ids, ep.id.String())
			if closing == nil || compareKeys(ep.item.key, closing.item.key) < 0 {
				closing = ep
			}
		}
	}
	if closing == nil {
		return
	}
	if open := c.openInterfaces(covered); len(open) > 0 {
		warn(closing.item.key, fmt.Sprintf("what the policies of %s close stays open on %s, which no host endpoint covers (add a host endpoint for each, or one with interfaceName: \"*\" for all, loopback included)", someOf(ids), someOf(open)))
	}
	if action := c.settings.EndpointToHost; action != ruleset.HostDrop && c.hasLocalWorkload() {
		warn(closing.item.key, fmt.Sprintf("what the policies of %s close stays open for the workloads of this host, because DefaultEndpointToHostAction is %s (set it to Drop, or deny the ports in an egress policy of the workloads)", someOf(ids), action))
	}
}

// openInterfaces returns the interfaces with an address beyond the link that are neither covered nor a workload's, with
// that address.
func (c *Calc) openInterfaces(covered []string) []string {
	var open []string
	for name, addrs := range c.ifaces {
		if slices.Contains(covered, name) || slices.Contains(covered, ruleset.AllInterfaces) || c.settings.IsWorkload(name) {
			continue
		}
		i := slices.IndexFunc(addrs, func(a netip.Addr) bool { return a.IsGlobalUnicast() })
		if i >= 0 {
			open = append(open, fmt.Sprintf("%s (%s)", name, addrs[i]))
		}
	}
	return open
}

func (c *Calc) hasLocalWorkload() bool {
	for _, ep := range c.locals {
		if ep.workload != nil {
			return true
		}
	}
	return false
}

// closes reports whether policy keeps some ingress from a host endpoint: a Deny rule before a rule that allows everything,
// or nothing that allows everything.
func (c *Calc) closes(ep *endpoint) bool {
	for _, tier := range c.walkOf(ep).Ingress {
		for _, id := range tier.Policies {
			policy := c.policies[id].told
			if policy == nil || policy.Staged {
				continue
			}
			for _, r := range policy.Ingress {
				switch {
				case r.Action == ruleset.Deny:
					return true
				case r.Action == ruleset.Allow && matchesEverything(r):
					return false
				}
			}
		}
	}
	return len(ep.profiles) == 0
}

func (c *Calc) walkOf(ep *endpoint) ruleset.Walk {
	return c.walk(c.ordered(ep.policies), ruleset.Normal)
}

func matchesEverything(r ruleset.Rule) bool {
	return r.Family == ruleset.AnyFamily && r.Protocol == 0 && r.NotProtocol == 0 && !r.ICMP.HasType && !r.NotICMP.HasType &&
		unlimited(&r.Source) && unlimited(&r.Destination)
}

func unlimited(e *ruleset.Entity) bool {
	return e.Nets == nil && e.NotNets == nil && e.Sets == nil && e.NotSets == nil && e.Ports == nil && e.NotPorts == nil
}
