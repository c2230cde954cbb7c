package calc

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"

	v3 "margay/api/v3"
)

// kubernetesOrder is the order of a policy of Kubernetes in the tier default (spec 2.12).
const kubernetesOrder = 1000

// FromKubernetes returns what a NetworkPolicy of Kubernetes means: Allow rules only, one for each peer and protocol (spec
// 5.5). A rule with a port or peer that cannot be is left out, so that it allows nothing.
func FromKubernetes(spec *v3.StagedKubernetesNetworkPolicySpec) *v3.PolicySpec {
	order := float64(kubernetesOrder)
	out := &v3.PolicySpec{Tier: v3.DefaultTier, Order: &order, Selector: podSelector(&spec.PodSelector)}
	out.Types = slices.Clone(spec.PolicyTypes)
	if len(out.Types) == 0 {
		out.Types = []string{v3.TypeIngress}
		if len(spec.Egress) > 0 {
			out.Types = append(out.Types, v3.TypeEgress)
		}
	}
	for _, r := range spec.Ingress {
		out.Ingress = append(out.Ingress, kubernetesRules(r.Ports, r.From, func(rule *v3.Rule, peer v3.EntityRule) {
			rule.Source = peer
		})...)
	}
	for _, r := range spec.Egress {
		out.Egress = append(out.Egress, kubernetesRules(r.Ports, r.To, func(rule *v3.Rule, peer v3.EntityRule) {
			peer.Ports = rule.Destination.Ports
			rule.Destination = peer
		})...)
	}
	return out
}

// kubernetesRules returns a rule for each protocol and peer. set puts the peer where it belongs.
func kubernetesRules(ports []v3.KubernetesPort, peers []v3.KubernetesPeer, set func(*v3.Rule, v3.EntityRule)) []v3.Rule {
	byProtocol, ok := portsByProtocol(ports)
	if !ok {
		return nil
	}
	entities := []v3.EntityRule{{}}
	if len(peers) > 0 {
		if entities, ok = peersOf(peers); !ok {
			return nil
		}
	}
	var rules []v3.Rule
	for _, p := range byProtocol {
		for _, e := range entities {
			rule := v3.Rule{Action: "Allow", Protocol: p.protocol}
			rule.Destination.Ports = p.ports
			set(&rule, e)
			rules = append(rules, rule)
		}
	}
	return rules
}

// protocolPorts are the ports of one protocol; nil are all of them.
type protocolPorts struct {
	protocol *v3.Protocol
	ports    []v3.Port
	all      bool
}

// portsByProtocol groups ports by protocol, in the order of the protocols' names. No ports at all are every packet.
func portsByProtocol(ports []v3.KubernetesPort) ([]protocolPorts, bool) {
	if len(ports) == 0 {
		return []protocolPorts{{}}, true
	}
	groups := map[v3.Protocol]*protocolPorts{}
	for _, p := range ports {
		protocol := v3.ProtocolTCP
		if p.Protocol != nil {
			protocol = v3.Protocol(*p.Protocol)
		}
		if groups[protocol] == nil {
			groups[protocol] = &protocolPorts{protocol: &protocol}
		}
		port, ok := portOfKubernetes(p)
		if !ok {
			return nil, false
		}
		groups[protocol].all = groups[protocol].all || p.Port == nil
		groups[protocol].ports = append(groups[protocol].ports, port)
	}
	var list []protocolPorts
	for _, g := range groups {
		if g.all {
			g.ports = nil
		}
		list = append(list, *g)
	}
	slices.SortFunc(list, func(a, b protocolPorts) int { return cmp.Compare(*a.protocol, *b.protocol) })
	return list, true
}

func portOfKubernetes(p v3.KubernetesPort) (v3.Port, bool) {
	switch {
	case p.Port == nil:
		return v3.Port{}, p.EndPort == nil
	case p.Port.Type == intstr.String:
		return v3.Port{Name: p.Port.StrVal}, p.Port.StrVal != "" && p.EndPort == nil
	}
	last := p.Port.IntVal
	if p.EndPort != nil {
		last = *p.EndPort
	}
	return v3.Port{First: uint16(p.Port.IntVal), Last: uint16(last)}, p.Port.IntVal > 0 && p.Port.IntVal <= last && last <= 65535
}

func peersOf(peers []v3.KubernetesPeer) ([]v3.EntityRule, bool) {
	var list []v3.EntityRule
	for _, p := range peers {
		if p.IPBlock == nil {
			e := v3.EntityRule{Selector: podSelector(p.PodSelector)}
			if p.NamespaceSelector != nil {
				e.NamespaceSelector = cmp.Or(labelSelector(p.NamespaceSelector), "all()")
			}
			list = append(list, e)
			continue
		}
		e, ok := blockOf(p.IPBlock)
		if !ok {
			return nil, false
		}
		list = append(list, e)
	}
	return list, true
}

func blockOf(b *v3.KubernetesIPBlock) (v3.EntityRule, bool) {
	var e v3.EntityRule
	for i, text := range append([]string{b.CIDR}, b.Except...) {
		p, err := netip.ParsePrefix(text)
		if err != nil {
			return e, false
		}
		if i == 0 {
			e.Nets = []string{p.Masked().String()}
		} else {
			e.NotNets = append(e.NotNets, p.Masked().String())
		}
	}
	return e, true
}

// podSelector limits a selector to what Kubernetes runs.
func podSelector(s *metav1.LabelSelector) string {
	text := fmt.Sprintf("%s == 'k8s'", labelOrchestrator)
	if more := labelSelector(s); more != "" {
		text += " && " + more
	}
	return text
}

// labelSelector writes a selector of Kubernetes in our language; "" selects everything. An operator that is unknown
// becomes what does not parse, so that nothing is allowed by it.
func labelSelector(s *metav1.LabelSelector) string {
	if s == nil {
		return ""
	}
	var terms []string
	for name, value := range s.MatchLabels {
		terms = append(terms, fmt.Sprintf("%s == '%s'", name, value))
	}
	slices.Sort(terms)
	for _, e := range s.MatchExpressions {
		set := "{}"
		if len(e.Values) > 0 {
			set = "{'" + strings.Join(e.Values, "', '") + "'}"
		}
		switch e.Operator {
		case metav1.LabelSelectorOpIn:
			terms = append(terms, e.Key+" in "+set)
		case metav1.LabelSelectorOpNotIn:
			terms = append(terms, e.Key+" not in "+set)
		case metav1.LabelSelectorOpExists:
			terms = append(terms, "has("+e.Key+")")
		case metav1.LabelSelectorOpDoesNotExist:
			terms = append(terms, "!has("+e.Key+")")
		default:
			terms = append(terms, e.Key+" "+string(e.Operator)+" ?")
		}
	}
	return strings.Join(terms, " && ")
}
