package ctl

import (
	"fmt"
	"slices"
	"strings"

	v3 "margay/api/v3"
	"margay/ruleset"
)

// An explanation is the answer: the packet passes when every hop lets it.
type explanation struct {
	Allowed bool         `json:"allowed"`
	Packet  packetReport `json:"packet"`
	From    endReport    `json:"from"`
	To      endReport    `json:"to"`
	Hops    []hopReport  `json:"hops"`
	// Pending is Allowed as it would be with all staged policies in force; nil when none concerns the nodes.
	Pending     *bool    `json:"pending,omitempty"`
	Assumptions []string `json:"assumptions,omitempty"`
	Warnings    []string `json:"warnings,omitempty"`
}

type packetReport struct {
	Protocol        string `json:"protocol"`
	Source          string `json:"source"`
	SourcePort      uint16 `json:"sourcePort,omitempty"`
	Destination     string `json:"destination"`
	DestinationPort uint16 `json:"destinationPort,omitempty"`
	ICMPType        *uint8 `json:"icmpType,omitempty"`
	ICMPCode        *uint8 `json:"icmpCode,omitempty"`
}

// An endReport says whose address it is.
type endReport struct {
	Address     string   `json:"address"`
	Endpoint    string   `json:"endpoint,omitempty"`
	Node        string   `json:"node,omitempty"`
	NetworkSets []string `json:"networkSets,omitempty"`
}

// A hopReport is what one node does.
type hopReport struct {
	Node    string        `json:"node"`
	In      string        `json:"in,omitempty"`
	Out     string        `json:"out,omitempty"`
	Verdict verdictReport `json:"verdict"`
	Stages  []stageReport `json:"stages"`
	// Pending is the verdict with all staged policies in force; nil when there are none.
	Pending  *verdictReport `json:"pending,omitempty"`
	NearMiss *missReport    `json:"nearMiss,omitempty"`
}

// A verdictReport says what decided; By is for people.
type verdictReport struct {
	Allowed   bool   `json:"allowed"`
	Reason    string `json:"reason"`
	Stage     string `json:"stage,omitempty"`
	Direction string `json:"direction,omitempty"`
	Endpoint  string `json:"endpoint,omitempty"`
	Tier      string `json:"tier,omitempty"`
	Policy    string `json:"policy,omitempty"`
	Profile   string `json:"profile,omitempty"`
	Rule      *int   `json:"rule,omitempty"`
	By        string `json:"by"`
}

// A stageReport is one stage of one endpoint. Verdict nil: it let the packet pass on.
type stageReport struct {
	Stage     string         `json:"stage"`
	Direction string         `json:"direction"`
	Endpoint  string         `json:"endpoint,omitempty"`
	Failsafes bool           `json:"failsafes,omitempty"` // they are asked first
	Tiers     []tierReport   `json:"tiers,omitempty"`
	Profiles  []policyReport `json:"profiles,omitempty"`
	Verdict   *verdictReport `json:"verdict,omitempty"`
}

// A tierReport lists the policies that were looked at, and those behind the one that decided.
type tierReport struct {
	Name       string         `json:"name"`
	Policies   []policyReport `json:"policies,omitempty"`
	NotReached []string       `json:"notReached,omitempty"`
	Passed     bool           `json:"passed,omitempty"` // on to the next tier
}

// A policyReport is a policy or a profile with the rules that were looked at. Of the first rule that is no Log rule and
// matches, Decides is set; of a staged policy that is what it would have decided.
type policyReport struct {
	Name   string       `json:"name"`
	Staged bool         `json:"staged,omitempty"`
	Rules  []ruleReport `json:"rules,omitempty"`
}

type ruleReport struct {
	Index   int    `json:"index"`
	Text    string `json:"text"`
	Matches bool   `json:"matches"`
	Decides bool   `json:"decides,omitempty"`
}

// A missReport is the smallest change that turns a verdict round; Text is for people.
type missReport struct {
	Kind string `json:"kind"`
	Text string `json:"text"`
}

// explanation answers a question.
func (w *world) explanation(q *question) (*explanation, error) {
	hops, err := w.hops(q)
	if err != nil {
		return nil, err
	}
	e := &explanation{Allowed: true, Packet: packetOf(&q.packet), From: w.endOf(&q.from), To: w.endOf(&q.to)}
	staged, pending := false, true
	concerned := map[string]bool{q.endName(&q.from): true, q.endName(&q.to): true}
	for i := range hops {
		h := w.hop(q, &hops[i])
		e.Allowed = e.Allowed && h.Verdict.Allowed
		now := h.Verdict.Allowed
		if h.Pending != nil {
			staged, now = true, h.Pending.Allowed
		}
		pending = pending && now
		h.concern(concerned)
		e.Hops = append(e.Hops, h)
	}
	if staged {
		e.Pending = &pending
	}
	w.assumeSettings(q, e.Hops)
	e.Assumptions = q.assumed
	e.Warnings = slices.Clone(w.notes)
	for object, texts := range w.warned {
		if concerned[object] {
			for _, text := range texts {
				e.Warnings = append(e.Warnings, object+": "+text)
			}
		}
	}
	slices.Sort(e.Warnings)
	return e, nil
}

// assumeSettings says where settings that decided come from: FelixConfigurations are not all that an agent reads.
func (w *world) assumeSettings(q *question, hops []hopReport) {
	for i := range hops {
		switch hops[i].Verdict.Reason {
		case ruleset.EndpointToHost.String(), ruleset.FailsafePort.String(), ruleset.TunnelPacket.String(), ruleset.HostTunnel.String(),
			ruleset.StrangeTunnel.String(), ruleset.ServiceLoop.String():
			if !w.live {
				q.assume("the agent of node %s has its parameters from FelixConfigurations alone, not from FELIX_... or its file (--live on that host knows)", hops[i].Node)
			}
		}
	}
}

func (q *question) endName(e *end) string {
	if e.place == nil {
		return ""
	}
	return e.place.id.String()
}

// concern notes what was looked at.
func (h *hopReport) concern(concerned map[string]bool) {
	if h.Verdict.Reason == ruleset.ServiceLoop.String() {
		concerned[v3.Key{Kind: v3.KindBGPConfiguration, Name: v3.BGPConfigurationDefault}.String()] = true
	}
	for _, s := range h.Stages {
		concerned[s.Endpoint] = true
		for _, t := range s.Tiers {
			concerned["Tier("+t.Name+")"] = true
			for _, p := range t.Policies {
				concerned[p.Name] = true
			}
			for _, name := range t.NotReached {
				concerned[name] = true
			}
		}
		for _, p := range s.Profiles {
			concerned["Profile("+p.Name+")"] = true
		}
	}
}

func packetOf(p *ruleset.Packet) packetReport {
	r := packetReport{Protocol: ruleset.ProtocolText(p.Protocol), Source: p.Src.String(), SourcePort: p.SrcPort,
		Destination: p.Dst.String(), DestinationPort: p.DstPort}
	if p.Protocol == ruleset.ICMP || p.Protocol == ruleset.ICMPv6 {
		r.ICMPType, r.ICMPCode = &p.ICMPType, &p.ICMPCode
	}
	return r
}

func (w *world) endOf(e *end) endReport {
	r := endReport{Address: e.addr.String(), Node: e.node, NetworkSets: w.networkSets(e.addr)}
	if e.place != nil {
		r.Endpoint = e.place.id.String()
	}
	return r
}

// hop walks one node.
func (w *world) hop(q *question, h *hop) hopReport {
	p := w.program(h.node)
	t := &tracer{program: p}
	v := ruleset.Trace(p, &h.packet, t.step)
	t.notReached()
	r := hopReport{Node: h.node, In: h.packet.In, Out: h.packet.Out, Verdict: verdictOf(p, &v), Stages: t.stages}
	for _, policy := range p.Policies {
		if policy.Staged {
			preview := ruleset.Preview(p)
			would := ruleset.Eval(preview, &h.packet)
			pending := verdictOf(preview, &would)
			r.Pending = &pending
			break
		}
	}
	if miss, ok := ruleset.NearMiss(p, &h.packet); ok {
		r.NearMiss = w.missOf(q, p, &miss)
	}
	q.assumeServices(p, h, &v)
	return r
}

// assumeServices says what else could become of the packet if there is a service that it is for.
func (q *question) assumeServices(p *ruleset.Program, h *hop, v *ruleset.Verdict) {
	switch {
	case v.Reason == ruleset.ServiceLoop:
		q.assume("no service has this port of %s: kube-proxy of node %s translates what is for a service that has endpoints (ask about the address of one of those with --to)", q.to.addr, h.node)
	case p.Settings.IPVS && h.packet.In != "" && h.packet.Out != "" && !h.packet.DNAT:
		balanced := h.packet
		balanced.Balanced, balanced.OrigDst, balanced.OrigPort, balanced.OrigOut = true, balanced.Dst, balanced.DstPort, balanced.Out
		if by := ruleset.Eval(p, &balanced); by.Allowed != v.Allowed {
			q.assume("it is not IPVS on node %s that sends it there, for a service: that is %s by %s", h.node, strings.ToLower(verdictWord(by.Allowed)), byText(p, &by))
		}
	}
}

// A tracer turns the steps of a walk into reports.
type tracer struct {
	program *ruleset.Program
	stages  []stageReport
	at      []ruleset.Step // the AtEndpoint step of each stage
}

func (t *tracer) step(s ruleset.Step) {
	if s.Kind == ruleset.AtEndpoint {
		r := stageReport{Stage: s.Stage.String(), Direction: s.Direction.String()}
		if s.Endpoint != (ruleset.EndpointID{}) {
			r.Endpoint = s.Endpoint.String()
			r.Failsafes = t.program.Endpoints[s.Endpoint] != nil && s.Stage != ruleset.Forward
		}
		t.stages, t.at = append(t.stages, r), append(t.at, s)
		return
	}
	stage := &t.stages[len(t.stages)-1]
	switch s.Kind {
	case ruleset.AtPolicy:
		tier := stage.tier(s.Tier)
		tier.Policies = append(tier.Policies, policyReport{Name: s.Policy.String(), Staged: s.Staged})
	case ruleset.AtProfile:
		stage.Profiles = append(stage.Profiles, policyReport{Name: s.Profile})
	case ruleset.AtRule:
		t.rule(stage, &s)
	case ruleset.AtTierEnd:
		stage.tier(s.Tier).Passed = true
	case ruleset.AtDecision:
		v := verdictOf(t.program, &s.Verdict)
		stage.Verdict = &v
	}
}

// tier returns the report of a tier, which is the last one or new.
func (s *stageReport) tier(name string) *tierReport {
	if n := len(s.Tiers); n == 0 || s.Tiers[n-1].Name != name {
		s.Tiers = append(s.Tiers, tierReport{Name: name})
	}
	return &s.Tiers[len(s.Tiers)-1]
}

func (t *tracer) rule(stage *stageReport, s *ruleset.Step) {
	var into *policyReport
	var rules []ruleset.Rule
	if s.Profile != "" {
		into = &stage.Profiles[len(stage.Profiles)-1]
		rules = t.program.Profiles[s.Profile].Rules(s.Direction)
	} else {
		tier := stage.tier(s.Tier)
		into = &tier.Policies[len(tier.Policies)-1]
		rules = t.program.Policies[s.Policy].Rules(s.Direction)
	}
	decides := s.Matched && s.Action.Decides() && (s.Profile == "" || s.Action != ruleset.Pass)
	into.Rules = append(into.Rules, ruleReport{s.Rule, t.program.RuleText(&rules[s.Rule]), s.Matched, decides})
}

// notReached adds the policies that were not looked at since something before them decided.
func (t *tracer) notReached() {
	for i := range t.stages {
		at, stage := &t.at[i], &t.stages[i]
		for _, tier := range t.program.TiersAt(at.Endpoint, at.Stage, at.Direction) {
			looked := slices.IndexFunc(stage.Tiers, func(r tierReport) bool { return r.Name == tier.Name })
			n := 0
			if looked >= 0 {
				n = len(stage.Tiers[looked].Policies)
			}
			var rest []string
			for _, id := range tier.Policies {
				if t.program.Policies[id] != nil {
					rest = append(rest, id.String())
				}
			}
			if n >= len(rest) {
				continue
			}
			if looked < 0 {
				stage.Tiers = append(stage.Tiers, tierReport{Name: tier.Name, NotReached: rest})
			} else {
				stage.Tiers[looked].NotReached = rest[n:]
			}
		}
	}
}

// verdictOf says what decided.
func verdictOf(p *ruleset.Program, v *ruleset.Verdict) verdictReport {
	r := verdictReport{Allowed: v.Allowed, Reason: v.Reason.String(), Tier: v.Tier, Profile: v.Profile, By: byText(p, v)}
	if v.Endpoint != (ruleset.EndpointID{}) {
		r.Endpoint = v.Endpoint.String()
	}
	if v.Reason != ruleset.NoEndpoint {
		r.Stage, r.Direction = v.Stage.String(), v.Direction.String()
	}
	switch v.Reason {
	case ruleset.PolicyRule:
		r.Policy, r.Rule = v.Policy.String(), &v.Rule
	case ruleset.ProfileRule, ruleset.FailsafePort:
		r.Rule = &v.Rule
	}
	return r
}

// byText says in words what decided: the end of "denied by ...".
func byText(p *ruleset.Program, v *ruleset.Verdict) string {
	switch v.Reason {
	case ruleset.PolicyRule:
		rule := &p.Policies[v.Policy].Rules(v.Direction)[v.Rule]
		return fmt.Sprintf("rule %d of %s, tier %s: %s", v.Rule, v.Policy, v.Tier, p.RuleText(rule))
	case ruleset.ProfileRule:
		rule := &p.Profiles[v.Profile].Rules(v.Direction)[v.Rule]
		return fmt.Sprintf("rule %d of profile %s: %s", v.Rule, v.Profile, p.RuleText(rule))
	case ruleset.EndOfTier:
		return fmt.Sprintf("the end of tier %s: policies of it apply, and none of their rules matches", v.Tier)
	case ruleset.ProfileMissing:
		return fmt.Sprintf("profile %s, which the endpoint names and which does not exist", v.Profile)
	case ruleset.NoProfile:
		if len(p.TiersAt(v.Endpoint, v.Stage, v.Direction)) == 0 {
			return fmt.Sprintf("default: no %s policy applies to the endpoint, and no profile of it allows", v.Direction)
		}
		return "default: no tier decides, and no profile of the endpoint allows"
	case ruleset.FailsafePort:
		return "the failsafe port " + failsafeText(p, v)
	case ruleset.NoEndpoint:
		return "default: no endpoint is on this way, so nothing of it is filtered"
	case ruleset.NoPolicy:
		return fmt.Sprintf("default: no rule of a %s policy matches", v.Stage)
	}
	return implicitText(p, v.Reason)
}

// implicitText words the reasons that no policy has a part in.
func implicitText(p *ruleset.Program, r ruleset.Reason) string {
	switch r {
	case ruleset.FlowKnown:
		return "the flow, which was allowed before"
	case ruleset.FlowInvalid:
		return "connection tracking, which calls the packet invalid"
	case ruleset.UnknownInterface:
		return "the workload's interface, which no WorkloadEndpoint of this node has"
	case ruleset.SpoofedSource:
		return "the source check: the workload sends from an address that is not its own"
	case ruleset.TunnelPacket:
		return "the tunnel check: workloads may not send VXLAN or IPIP (allowVXLANPacketsFromWorkloads, allowIPIPPacketsFromWorkloads)"
	case ruleset.PodDiscovery:
		return "default: IPv6 neighbour discovery of a workload"
	case ruleset.HostDiscovery:
		return "default: IPv6 neighbour discovery, without which the host has no IPv6"
	case ruleset.HostTunnel:
		return "default: a tunnel between hosts of the cluster (vxlanEnabled, ipipEnabled, wireguardEnabled)"
	case ruleset.StrangeTunnel:
		return "the tunnel check: it is in a tunnel between hosts of the cluster, and comes from no Node's address (externalNodesList adds others)"
	case ruleset.ForeignAddress:
		return "the port check: a port of a bridge gets what is sent to the addresses of its workload, and nobody else does"
	case ruleset.UnfilteredBridge:
		return "the bridge, which is not filtered, so that its ports are closed to each other (readiness of the agent says why)"
	case ruleset.ServiceLoop:
		return "serviceLoopPrevention: what a node passes on to an address of services (serviceClusterIPs, serviceExternalIPs, serviceLoadBalancerIPs of BGPConfiguration default) is for none of them"
	case ruleset.ToOwnWorkload:
		return "default: a host always reaches its own workloads"
	case ruleset.EndpointToHost:
		return "defaultEndpointToHostAction: " + p.Settings.EndpointToHost.String()
	}
	return r.String()
}

func failsafeText(p *ruleset.Program, v *ruleset.Verdict) string {
	list, name := p.Settings.Failsafes(v.Direction), "failsafeInboundHostPorts"
	if v.Direction == ruleset.Egress {
		name = "failsafeOutboundHostPorts"
	}
	if v.Rule >= len(list) {
		return "(" + name + ")"
	}
	return failsafeWords(&list[v.Rule]) + " (" + name + ")"
}

func failsafeWords(f *ruleset.Failsafe) string {
	text := fmt.Sprintf("%s %d", ruleset.ProtocolText(f.Protocol), f.Port)
	if f.Net.IsValid() {
		text += " " + f.Net.String()
	}
	return text
}

// missOf puts a near miss in words.
func (w *world) missOf(q *question, p *ruleset.Program, m *ruleset.Miss) *missReport {
	would := "denied"
	if m.Verdict.Allowed {
		would = "allowed"
	}
	text := "it would be " + would + " "
	switch m.Kind {
	case ruleset.OtherPort:
		return &missReport{"port", fmt.Sprintf("%son port %d, by %s", text, m.Port, byText(p, &m.Verdict))}
	case ruleset.OtherOrder:
		return &missReport{"order", fmt.Sprintf("%sif, in tier %s, %s came before %s", text, m.Tier, m.Policy, m.Before)}
	}
	if m.Port != 0 {
		counts := "counted as"
		if !m.Join {
			counts = "did not count as"
		}
		return &missReport{"label", fmt.Sprintf("%sif port %d of %s %s %s%s", text, m.Port, m.Addr, counts, p.SetText(m.Set), q.remedyOfPort(p, m))}
	}
	selected := "were selected by"
	if !m.Join {
		selected = "were not selected by"
	}
	return &missReport{"label", fmt.Sprintf("%sif %s %s %s%s", text, m.Addr, selected, p.SetText(m.Set), w.remedy(q, p, m))}
}

// remedyOfPort says where it is written what a port of an address counts as.
func (q *question) remedyOfPort(p *ruleset.Program, m *ruleset.Miss) string {
	for _, e := range []*end{&q.from, &q.to} {
		switch {
		case strings.HasPrefix(p.SetText(m.Set), "service "):
			return " (by the endpoints of the service)"
		case e.addr == m.Addr && e.place != nil:
			return fmt.Sprintf(" (by spec.ports and the labels of %s)", e.place.id)
		}
	}
	return " (by an endpoint that has this address and names the port)"
}

// remedy says what would make an address join or leave a set.
func (w *world) remedy(q *question, p *ruleset.Program, m *ruleset.Miss) string {
	for _, e := range []*end{&q.from, &q.to} {
		if e.addr == m.Addr && e.place != nil {
			return fmt.Sprintf(" (by the labels of %s)", e.place.id)
		}
	}
	if sets := w.joinable(p.SetText(m.Set)); m.Join && len(sets) > 0 {
		return fmt.Sprintf(" (for example as a member of %s)", some(sets))
	}
	if !m.Join {
		if sets := w.networkSets(m.Addr); len(sets) > 0 {
			return fmt.Sprintf(" (it is in %s)", some(sets))
		}
	}
	return " (by a network set with such labels that holds it)"
}
