package calc

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"

	v3 "margay/api/v3"
	"margay/ruleset"
	"margay/selector"
)

// A Warning says of a resource that something about it is in force otherwise than its author may expect.
type Warning struct {
	Key  v3.Key
	Text string
}

// nodePorts is where Kubernetes puts the ports of services on hosts (KubeNodePortRanges).
var nodePorts = ruleset.PortRange{First: 30000, Last: 32767}

// Warnings returns what there is to warn of as of the last Flush, ordered by kind, namespace, name and text.
func (c *Calc) Warnings() []Warning {
	var list []Warning
	warn := func(key v3.Key, texts ...string) {
		for _, text := range texts {
			list = append(list, Warning{key, text})
		}
	}
	workloads, s := false, c.newSurvey()
	for key, it := range c.items {
		warn(key, it.warnings...)
		workloads = workloads || key.Kind == v3.KindWorkloadEndpoint
	}
	for _, p := range c.policies {
		key := keyOf(p.id)
		if len(p.endpoints) > 0 {
			warn(key, c.policyWarnings(s, p)...)
		}
		warn(key, c.hostNetworked(s, p)...)
		if workloads && p.catchesHosts() {
			warn(key, "spec.selector is empty or all(), so the policy applies to host endpoints as well as to workloads (add namespaceSelector: all() for workloads only, or select a label that only host endpoints have)")
		}
	}
	for _, p := range c.profiles {
		warn(v3.Key{Kind: v3.KindProfile, Name: p.name}, p.warnings...)
	}
	for key, ep := range c.locals {
		warn(key, c.endpointWarnings(ep)...)
	}
	c.barrenTiers(warn)
	c.unisolated(warn)
	c.balanced(warn)
	c.misnumbered(warn)
	c.uncovered(warn)
	if unknown := c.unknownWorkloads(); len(unknown) > 0 {
		warn(v3.Key{Kind: v3.KindNode, Name: c.node}, "no WorkloadEndpoint is for "+strings.Join(unknown, ", ")+", by name interfaces of workloads, so all traffic there is denied (create one, or set InterfacePrefix to what the names of your workloads' interfaces begin with)")
	}
	slices.SortFunc(list, compareWarnings)
	return slices.Compact(list)
}

func compareWarnings(a, b Warning) int {
	return cmp.Or(compareKeys(a.Key, b.Key), cmp.Compare(a.Text, b.Text))
}

// unknownWorkloads returns, in order, the interfaces that are closed because nobody says whose they are.
func (c *Calc) unknownWorkloads() []string {
	var unknown []string
	for name := range c.ifaces {
		known := func(key v3.Key) bool { return slices.Contains(c.locals[key].interfaces, name) }
		if c.endpoints > 0 && c.settings.IsWorkload(name) && !slices.ContainsFunc(slices.Collect(maps.Keys(c.locals)), known) {
			unknown = append(unknown, name)
		}
	}
	slices.Sort(unknown)
	return unknown
}

// policyWarnings returns the warnings of a policy that selects a local endpoint.
func (c *Calc) policyWarnings(s *survey, p *policy) []string {
	list := slices.Concat(p.faults, p.warnings)
	add := func(format string, args ...any) { list = append(list, fmt.Sprintf(format, args...)) }
	if c.tiers[p.tier()] == nil {
		add("tier %s does not exist: the policy is walked after all tiers, which then deny", p.tier())
	}
	for _, key := range c.unknownServices(p) {
		add("service %s is not known: a rule that names it matches nothing", key)
	}
	list = slices.Concat(list, absences(p.spec), insideOnly(p.spec), c.ownNamespace(p), c.masqueraded(s, p))
	host, wild, workload := p.kindsOfEndpoints()
	if host != nil {
		list = append(list, p.hostWarnings()...)
	}
	if wild != nil {
		list = append(list, p.wildcardWarnings(wild.id)...)
	}
	if workload != nil && host == nil && !p.in(ruleset.Normal) {
		add("the policy selects workloads only, which ignore policies with doNotTrack or preDNAT")
	}
	return list
}

// catchesHosts reports whether the policy selects a host endpoint because it selects everything. Where there are workloads,
// that is often not meant.
func (p *policy) catchesHosts() bool {
	host, _, _ := p.kindsOfEndpoints()
	return host != nil && p.global && p.namespaceSelector == "" && p.spec.ServiceAccountSelector == "" && selectsAll(p.spec.Selector)
}

// kindsOfEndpoints returns, by name, the first host endpoint, the first of them that is for all interfaces, and the
// first workload that the policy selects.
func (p *policy) kindsOfEndpoints() (host, wild, workload *endpoint) {
	first := func(into **endpoint, ep *endpoint) {
		if *into == nil || compareKeys(ep.item.key, (*into).item.key) < 0 {
			*into = ep
		}
	}
	for ep := range p.endpoints {
		switch {
		case ep.workload != nil:
			first(&workload, ep)
			continue
		case ep.host.InterfaceName == ruleset.AllInterfaces:
			first(&wild, ep)
		}
		first(&host, ep)
	}
	return host, wild, workload
}

// hostWarnings are for a policy that selects a host endpoint.
func (p *policy) hostWarnings() []string {
	var list []string
	if p.namespaceSelector != "" {
		list = append(list, hostNamespaceWarning)
	}
	if p.untracked && !(p.applies(ruleset.Ingress) && p.applies(ruleset.Egress)) {
		list = append(list, "spec.doNotTrack: replies are not known as such, so what the policy allows in one direction has no way back (allow the other direction as well, at both ends)")
	}
	if p.in(ruleset.Normal) && p.applies(ruleset.Ingress) {
		list = append(list, nodePortWarnings(p.spec.Ingress)...)
	}
	return list
}

// nodePortWarnings: traffic to node ports is translated and forwarded before normal policy of the host sees it.
func nodePortWarnings(rules []v3.Rule) []string {
	var list []string
	for i := range rules {
		for j, port := range rules[i].Destination.Ports {
			if port.Name == "" && port.First >= nodePorts.First && port.Last <= nodePorts.Last {
				list = append(list, fmt.Sprintf("spec.ingress[%d].destination.ports[%d]: %s is a node port of Kubernetes, whose traffic does not pass this policy but is forwarded to a workload (use preDNAT: true and applyOnForward: true)", i, j, port))
			}
		}
	}
	return list
}

// wildcardWarnings are for a policy that selects a host endpoint for all interfaces.
func (p *policy) wildcardWarnings(id ruleset.EndpointID) []string {
	switch {
	case p.untracked:
		return []string{fmt.Sprintf("spec.doNotTrack: %s is for all interfaces and ignores the policy (name the interface)", id)}
	case p.preDNAT:
		return []string{fmt.Sprintf("spec.preDNAT: %s is for all interfaces, so the policy also sees what workloads of this host send and what the host sends to itself (allow 127.0.0.0/8 and the host's own addresses first)", id)}
	case p.forward:
		return []string{fmt.Sprintf("spec.applyOnForward: %s is for all interfaces, so everything that workloads of this host send to each other and elsewhere passes the policy, inwards and outwards", id)}
	}
	return nil
}

func selectsAll(text string) bool {
	sel, err := selector.Parse(text)
	return err == nil && sel.IsAll()
}

const hostNamespaceWarning = "spec.namespaceSelector matches host endpoints, which have no namespace and so none of its labels (add && has(projectcalico.org/namespace) to spec.selector to leave them out)"

// matchesAbsence reports whether a selector compares a label with != or not in and holds for what has no label at all.
func matchesAbsence(text string) bool {
	if !strings.Contains(text, "!=") && !strings.Contains(text, "not") {
		return false // as most are, and parsing is what takes time
	}
	sel, err := selector.Parse(text)
	if err != nil || !sel.Matches(selector.Map{}) {
		return false
	}
	canonical := sel.String()
	return strings.Contains(canonical, " != ") || strings.Contains(canonical, " not in ")
}

func (c *Calc) endpointWarnings(ep *endpoint) []string {
	list := slices.Clone(ep.conflicts)
	add := func(format string, args ...any) { list = append(list, fmt.Sprintf(format, args...)) }
	for _, p := range ep.profiles {
		if p.spec == nil {
			add("profile %s does not exist: what reaches it is denied", p.name)
		}
	}
	if ep.workload != nil {
		return append(list, c.workloadWarnings(ep)...)
	}
	return append(list, c.hostEndpointWarnings(ep, c.walkOf(ep))...)
}

func (c *Calc) workloadWarnings(ep *endpoint) []string {
	var list []string
	if len(ep.interfaces) == 0 && len(ep.conflicts) == 0 {
		list = append(list, "no interface is the workload's, so its policy is not enforced yet: spec.interfaceName is empty and nothing in the kernel (route, address in its namespace, neighbour) leads to it")
	}
	if len(ep.item.addrs) == 0 {
		list = append(list, "spec.ipNetworks is empty, so the workload can send from no address")
	}
	if len(ep.spoofable) > 0 && !c.settings.AllowSpoofing {
		list = append(list, "spec.allowSpoofedSourcePrefixes has no effect while WorkloadSourceSpoofing is Disabled (set it to Any in the FelixConfiguration)")
	}
	return list
}

func (c *Calc) hostEndpointWarnings(ep *endpoint, normal ruleset.Walk) []string {
	var list []string
	if len(ep.host.ExpectedIPs) == 0 {
		list = append(list, "spec.expectedIPs is empty, so no rule selector ever matches this host endpoint as source or destination (list the addresses of the interface)")
	}
	if open := c.undecided(normal); len(ep.profiles) == 0 && open != "" {
		list = append(list, fmt.Sprintf("no policy applies to %s and there is no profile, so all of it but failsafe ports%s is denied (apply a policy that allows what you need, or name profile %s)", open, c.failsafeless(open), defaultAllow))
	}
	return list
}

// undecided names the directions in which no policy is enforced.
func (c *Calc) undecided(w ruleset.Walk) string {
	in, out := c.enforces(w.Ingress), c.enforces(w.Egress)
	switch {
	case in && out:
		return ""
	case in:
		return "egress"
	case out:
		return "ingress"
	}
	return "ingress and egress"
}

// failsafeless says of directions that no failsafe port is set there, "" if some are.
func (c *Calc) failsafeless(directions string) string {
	switch in, out := strings.Contains(directions, "ingress") && len(c.settings.FailsafeIngress) == 0,
		strings.Contains(directions, "egress") && len(c.settings.FailsafeEgress) == 0; {
	case in && out:
		return " (none is set)"
	case in:
		return " (none is set for ingress: FailsafeInboundHostPorts is empty)"
	case out:
		return " (none is set for egress: FailsafeOutboundHostPorts is empty)"
	}
	return ""
}

func (c *Calc) enforces(tiers []ruleset.Tier) bool {
	for _, tier := range tiers {
		for _, id := range tier.Policies {
			if !isStaged(id) {
				return true
			}
		}
	}
	return false
}

// keyOf returns the key of a policy as it is stored.
func keyOf(id ruleset.PolicyID) v3.Key {
	return v3.Key{Kind: v3.Kind(id.Kind), Namespace: id.Namespace, Name: id.Name}
}
