package v3

import (
	"cmp"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
)

// Names and labels of the resources that stand for objects of Kubernetes.
const (
	PrefixKubernetesPolicy      = "knp.default." // NetworkPolicy NAME becomes knp.default.NAME
	PrefixNamespaceProfile      = "kns."         // Namespace NS becomes Profile kns.NS
	PrefixServiceAccountProfile = "ksa."         // ServiceAccount NS/SA becomes Profile ksa.NS.SA
	PrefixNamespaceLabel        = "pcns."        // before the labels that a Namespace gives its pods
	PrefixServiceAccountLabel   = "pcsa."        // before those that a ServiceAccount gives
	LabelServiceAccount         = "projectcalico.org/serviceaccount"
	LabelName                   = "projectcalico.org/name" // under either prefix: the name of the object itself
	LabelCreatedBy              = "projectcalico.org/created-by"
	CreatedByKubeControllers    = "calico-kube-controllers"
	OrchestratorKubernetes      = "k8s"
	// AnnotationKubeLabels of a Node holds, as JSON, the labels that it has from Kubernetes.
	AnnotationKubeLabels = "projectcalico.org/kube-labels"
)

// kubernetesOrder is the order of a policy of Kubernetes in the tier default.
const kubernetesOrder = 1000

// FromKubernetes returns what a NetworkPolicy of Kubernetes means: Allow rules only, one for each peer and protocol (spec
// 5.5). A rule with a port or peer that cannot be is left out, so that it allows nothing; the second result says of each
// which one and why.
func FromKubernetes(spec *StagedKubernetesNetworkPolicySpec) (*PolicySpec, []string) {
	order := float64(kubernetesOrder)
	out := &PolicySpec{Tier: DefaultTier, Order: &order, Selector: KubernetesPodSelector(&spec.PodSelector)}
	out.Types = slices.Clone(spec.PolicyTypes)
	if len(out.Types) == 0 {
		out.Types = []string{TypeIngress}
		if len(spec.Egress) > 0 {
			out.Types = append(out.Types, TypeEgress)
		}
	}
	var dropped []string
	for i, r := range spec.Ingress {
		rules, err := kubernetesRules(r.Ports, r.From, func(rule *Rule, peer EntityRule) {
			rule.Source = peer
		})
		if err != nil {
			dropped = append(dropped, fmt.Sprintf("%s: %v", index("spec.ingress", i), err))
		}
		out.Ingress = append(out.Ingress, rules...)
	}
	for i, r := range spec.Egress {
		rules, err := kubernetesRules(r.Ports, r.To, func(rule *Rule, peer EntityRule) {
			peer.Ports = rule.Destination.Ports
			rule.Destination = peer
		})
		if err != nil {
			dropped = append(dropped, fmt.Sprintf("%s: %v", index("spec.egress", i), err))
		}
		out.Egress = append(out.Egress, rules...)
	}
	return out, dropped
}

// kubernetesRules returns a rule for each protocol and peer. set puts the peer where it belongs.
func kubernetesRules(ports []KubernetesPort, peers []KubernetesPeer, set func(*Rule, EntityRule)) ([]Rule, error) {
	groups, err := portsByProtocol(ports)
	if err != nil {
		return nil, err
	}
	entities := []EntityRule{{}}
	if len(peers) > 0 {
		if entities, err = peersOf(peers); err != nil {
			return nil, err
		}
	}
	var rules []Rule
	for _, p := range groups {
		for _, e := range entities {
			rule := Rule{Action: ActionAllow, Protocol: p.Protocol}
			rule.Destination.Ports = p.Ports
			set(&rule, e)
			rules = append(rules, rule)
		}
	}
	return rules, nil
}

// A PortGroup is a protocol with the ports that one rule matches. Protocol nil is every protocol, Ports nil all ports.
type PortGroup struct {
	Protocol *Protocol
	Ports    []Port
}

// A ProtocolPort is a port of a protocol. Protocol "" is every protocol, the zero Port all ports.
type ProtocolPort struct {
	Protocol Protocol
	Port     Port
}

// GroupPorts groups ports by protocol, in the order of the protocols' names, with no more in a group than a rule may have.
// No ports at all are one group of everything.
func GroupPorts(list []ProtocolPort) []PortGroup {
	if len(list) == 0 {
		return []PortGroup{{}}
	}
	byName, all := map[Protocol][]Port{}, map[Protocol]bool{}
	for _, p := range list {
		all[p.Protocol] = all[p.Protocol] || p.Port == (Port{})
		byName[p.Protocol] = append(byName[p.Protocol], p.Port)
	}
	var groups []PortGroup
	for _, protocol := range slices.Sorted(maps.Keys(byName)) {
		group := PortGroup{Protocol: &protocol}
		if protocol == "" {
			group.Protocol = nil
		}
		if all[protocol] {
			groups = append(groups, group)
			continue
		}
		for part := range slices.Chunk(byName[protocol], maxPorts) {
			group.Ports = slices.Clone(part)
			groups = append(groups, group)
		}
	}
	return groups
}

func portsByProtocol(ports []KubernetesPort) ([]PortGroup, error) {
	var list []ProtocolPort
	for i, p := range ports {
		protocol := ProtocolTCP
		if p.Protocol != nil {
			protocol = Protocol(*p.Protocol)
		}
		if !protocol.HasPorts() {
			return nil, fmt.Errorf("%s: protocol %q has no ports", index("ports", i), bounded(string(protocol)))
		}
		port, err := portOfKubernetes(p)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", index("ports", i), err)
		}
		list = append(list, ProtocolPort{protocol, port})
	}
	return GroupPorts(list), nil
}

func portOfKubernetes(p KubernetesPort) (Port, error) {
	switch {
	case p.Port == nil && p.EndPort != nil:
		return Port{}, errors.New("endPort is specified without port")
	case p.Port == nil:
		return Port{}, nil
	case p.Port.Type == intstr.String && !isPortName(p.Port.StrVal):
		return Port{}, fmt.Errorf("%q is no name of a port", bounded(p.Port.StrVal))
	case p.Port.Type == intstr.String && p.EndPort != nil:
		return Port{}, errors.New("endPort is specified with a named port")
	case p.Port.Type == intstr.String:
		return Port{Name: p.Port.StrVal}, nil
	}
	first := p.Port.IntVal
	last := first
	if p.EndPort != nil {
		last = *p.EndPort
	}
	if first < 1 || last < first || last > 65535 {
		return Port{}, fmt.Errorf("ports %d to %d are no range from 1 to 65535", first, last)
	}
	return Port{First: uint16(first), Last: uint16(last)}, nil
}

func peersOf(peers []KubernetesPeer) ([]EntityRule, error) {
	var list []EntityRule
	for i, p := range peers {
		e, err := peerOf(p)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", index("peers", i), err)
		}
		list = append(list, e)
	}
	return list, nil
}

// peerOf: a peer without fields is one whose fields a later release of Kubernetes has. It allows nobody.
func peerOf(p KubernetesPeer) (EntityRule, error) {
	if p.IPBlock != nil {
		return blockOf(p.IPBlock)
	}
	if p.PodSelector == nil && p.NamespaceSelector == nil {
		return EntityRule{}, errors.New("it has no field that is known")
	}
	e := EntityRule{Selector: KubernetesPodSelector(p.PodSelector)}
	if p.NamespaceSelector != nil {
		e.NamespaceSelector = KubernetesNamespaceSelector(p.NamespaceSelector)
	}
	return e, nil
}

func blockOf(b *KubernetesIPBlock) (EntityRule, error) {
	var e EntityRule
	for i, text := range append([]string{b.CIDR}, b.Except...) {
		p, ok := parseCIDR(text)
		if !ok {
			return e, fmt.Errorf("%q is no CIDR", bounded(text))
		}
		if i == 0 {
			e.Nets = []string{p.String()}
		} else {
			e.NotNets = append(e.NotNets, p.String())
		}
	}
	return e, nil
}

// KubernetesPodSelector writes a selector of pods in our language. nil and empty are all pods of Kubernetes, and no host.
func KubernetesPodSelector(s *metav1.LabelSelector) string {
	text := fmt.Sprintf("%s == '%s'", LabelOrchestrator, OrchestratorKubernetes)
	if more := labelSelector(s); more != "" {
		text += " && " + more
	}
	return text
}

// KubernetesNamespaceSelector writes a selector of namespaces in our language. Empty is every namespace.
func KubernetesNamespaceSelector(s *metav1.LabelSelector) string {
	return cmp.Or(labelSelector(s), "all()")
}

// labelSelector writes a selector of Kubernetes in our language; "" selects everything. An operator that is unknown, or a
// value that cannot be written, becomes what does not parse, so that nothing is allowed by it.
func labelSelector(s *metav1.LabelSelector) string {
	if s == nil {
		return ""
	}
	var terms []string
	for name, value := range s.MatchLabels {
		terms = append(terms, labelKey(name)+" == "+quoted(value))
	}
	slices.Sort(terms)
	for _, e := range s.MatchExpressions {
		values := make([]string, len(e.Values))
		for i, value := range e.Values {
			values[i] = quoted(value)
		}
		key, set := labelKey(e.Key), "{"+strings.Join(values, ", ")+"}"
		switch e.Operator {
		case metav1.LabelSelectorOpIn:
			terms = append(terms, key+" in "+set)
		case metav1.LabelSelectorOpNotIn:
			terms = append(terms, key+" not in "+set)
		case metav1.LabelSelectorOpExists:
			terms = append(terms, "has("+key+")")
		case metav1.LabelSelectorOpDoesNotExist:
			terms = append(terms, "!has("+key+")")
		default:
			terms = append(terms, noParse)
		}
	}
	return strings.Join(terms, " && ")
}

// noParse is no term of our language.
const noParse = "?"

// quoted writes a value for a selector. Our language has no escapes: a value with both quotes cannot be written.
func quoted(value string) string {
	switch {
	case !strings.Contains(value, "'"):
		return "'" + value + "'"
	case !strings.Contains(value, `"`):
		return `"` + value + `"`
	}
	return noParse
}

// labelKey writes the key of a label for a selector.
func labelKey(key string) string {
	if strings.Trim(key, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_./-") != "" {
		return noParse
	}
	return key
}
