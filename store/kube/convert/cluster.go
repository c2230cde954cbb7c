package convert

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"strings"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	v3 "margay/api/v3"
)

// ClusterNetworkPolicy is the kind of policy.networking.k8s.io/v1alpha2, as much of it as is read here.
type ClusterNetworkPolicy struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata"`
	Spec              ClusterPolicySpec `json:"spec"`
}

// ClusterPolicySpec: Tier is Admin or Baseline, Priority 0 to 1000, lower first.
type ClusterPolicySpec struct {
	Tier     string               `json:"tier"`
	Priority int32                `json:"priority"`
	Subject  ClusterPolicySubject `json:"subject"`
	Ingress  []ClusterPolicyRule  `json:"ingress,omitempty"`
	Egress   []ClusterPolicyRule  `json:"egress,omitempty"`
}

// ClusterPolicySubject has exactly one of its fields.
type ClusterPolicySubject struct {
	Namespaces *metav1.LabelSelector `json:"namespaces,omitempty"`
	Pods       *NamespacedPods       `json:"pods,omitempty"`
}

// NamespacedPods are the pods that PodSelector selects in the namespaces that NamespaceSelector selects.
type NamespacedPods struct {
	NamespaceSelector metav1.LabelSelector `json:"namespaceSelector"`
	PodSelector       metav1.LabelSelector `json:"podSelector"`
}

// ClusterPolicyRule has its peers in From (ingress) or To (egress). Action is Accept, Deny or Pass.
type ClusterPolicyRule struct {
	Name      string                  `json:"name,omitempty"`
	Action    string                  `json:"action"`
	From      []ClusterPolicyPeer     `json:"from,omitempty"`
	To        []ClusterPolicyPeer     `json:"to,omitempty"`
	Protocols []ClusterPolicyProtocol `json:"protocols,omitempty"`
}

// ClusterPolicyPeer has exactly one of its fields; the last three only under To.
type ClusterPolicyPeer struct {
	Namespaces  *metav1.LabelSelector `json:"namespaces,omitempty"`
	Pods        *NamespacedPods       `json:"pods,omitempty"`
	Networks    []string              `json:"networks,omitempty"`
	Nodes       *metav1.LabelSelector `json:"nodes,omitempty"`
	DomainNames []string              `json:"domainNames,omitempty"`
}

// ClusterPolicyProtocol has exactly one of its fields.
type ClusterPolicyProtocol struct {
	TCP                  *ClusterPolicyPorts `json:"tcp,omitempty"`
	UDP                  *ClusterPolicyPorts `json:"udp,omitempty"`
	SCTP                 *ClusterPolicyPorts `json:"sctp,omitempty"`
	DestinationNamedPort string              `json:"destinationNamedPort,omitempty"`
}

// ClusterPolicyPorts: DestinationPort nil is every port.
type ClusterPolicyPorts struct {
	DestinationPort *ClusterPolicyPort `json:"destinationPort,omitempty"`
}

// ClusterPolicyPort has exactly one of its fields. Ranges include both ends.
type ClusterPolicyPort struct {
	Number int32 `json:"number,omitempty"`
	Range  *struct {
		Start int32 `json:"start"`
		End   int32 `json:"end"`
	} `json:"range,omitempty"`
}

// prefixClusterPolicy begins the names of what is made from ClusterNetworkPolicies, which would else take the names of
// GlobalNetworkPolicies. The tier follows, as two policies of one name cannot be in different tiers.
const prefixClusterPolicy = "kcnp."

// DecodeClusterNetworkPolicy reads the JSON that the API server has. Unknown fields are those of later releases.
func DecodeClusterNetworkPolicy(data []byte) (*ClusterNetworkPolicy, error) {
	p := &ClusterNetworkPolicy{}
	if err := json.Unmarshal(data, p); err != nil {
		return nil, fmt.Errorf("decode ClusterNetworkPolicy: %w", err)
	}
	return p, nil
}

// TierName returns the name of the tier that the policy is in; of one that is not known, its own name in lower case.
func (p *ClusterNetworkPolicy) TierName() string {
	switch p.Spec.Tier {
	case "Admin":
		return v3.TierKubeAdmin
	case "Baseline":
		return v3.TierKubeBaseline
	}
	return strings.ToLower(p.Spec.Tier)
}

// ClusterPolicyName returns the name of the GlobalNetworkPolicy that a ClusterNetworkPolicy becomes.
func ClusterPolicyName(tier, name string) string { return prefixClusterPolicy + tier + "." + name }

// ClusterPolicy returns what a ClusterNetworkPolicy means. The second result names the rules that cannot be converted,
// each with its reason: one that accepts is left out, any other denies everything. A policy whose tier or subject cannot
// be read is an error.
func ClusterPolicy(cnp *ClusterNetworkPolicy) (*v3.GlobalNetworkPolicy, []string, error) {
	spec := &cnp.Spec
	order := float64(spec.Priority)
	p := &v3.GlobalNetworkPolicy{TypeMeta: typeMeta(v3.KindGlobalNetworkPolicy)}
	p.Spec.Tier, p.Spec.Order = cnp.TierName(), &order
	if p.Spec.Tier != v3.TierKubeAdmin && p.Spec.Tier != v3.TierKubeBaseline {
		return nil, nil, &Error{"spec.tier", spec.Tier, errors.New("it is neither Admin nor Baseline")}
	}
	switch subject := spec.Subject; {
	case subject.Namespaces != nil:
		p.Spec.NamespaceSelector = v3.KubernetesNamespaceSelector(subject.Namespaces)
		p.Spec.Selector = v3.KubernetesPodSelector(nil)
	case subject.Pods != nil:
		p.Spec.NamespaceSelector = v3.KubernetesNamespaceSelector(&subject.Pods.NamespaceSelector)
		p.Spec.Selector = v3.KubernetesPodSelector(&subject.Pods.PodSelector)
	default:
		return nil, nil, &Error{"spec.subject", "", errors.New("it has no field that is known")}
	}
	p.ObjectMeta = derived(ClusterPolicyName(p.Spec.Tier, cnp.Name), &cnp.ObjectMeta)
	p.Labels = map[string]string{v3.LabelTier: p.Spec.Tier}
	var failed, more []string
	p.Spec.Ingress, failed = clusterRules("spec.ingress", spec.Ingress, v3.TypeIngress)
	p.Spec.Egress, more = clusterRules("spec.egress", spec.Egress, v3.TypeEgress)
	p.Spec.Types = directions(&p.Spec.PolicySpec)
	return p, append(failed, more...), nil
}

// directions returns those that have rules. The tier passes what no rule decides, so without rules a policy means nothing
// in either direction; none at all would be read as both.
func directions(spec *v3.PolicySpec) []string {
	var types []string
	if len(spec.Ingress) > 0 || len(spec.Egress) == 0 {
		types = append(types, v3.TypeIngress)
	}
	if len(spec.Egress) > 0 {
		types = append(types, v3.TypeEgress)
	}
	return types
}

func clusterRules(path string, rules []ClusterPolicyRule, direction string) (out []v3.Rule, failed []string) {
	for i, r := range rules {
		made, err := clusterRule(&r, direction)
		if err != nil {
			failed = append(failed, fmt.Sprintf("%s[%d]: %v", path, i, err))
			made = nil
			if r.Action != "Accept" {
				made = []v3.Rule{{Action: v3.ActionDeny, Metadata: ruleName(r.Name)}}
			}
		}
		out = append(out, made...)
	}
	return out, failed
}

func ruleName(name string) *v3.RuleMetadata {
	if name == "" {
		return nil
	}
	return &v3.RuleMetadata{Annotations: map[string]string{"name": name}}
}

// clusterRule returns a rule for each protocol and peer.
func clusterRule(r *ClusterPolicyRule, direction string) ([]v3.Rule, error) {
	action, ok := map[string]string{"Accept": v3.ActionAllow, "Deny": v3.ActionDeny, "Pass": v3.ActionPass}[r.Action]
	if !ok {
		return nil, fmt.Errorf("action %.50q is not known", r.Action)
	}
	groups, err := clusterPorts(r.Protocols)
	if err != nil {
		return nil, err
	}
	peers := r.From
	if direction == v3.TypeEgress {
		peers = r.To
	}
	if len(peers) == 0 {
		return nil, errors.New("it has no peer")
	}
	var rules []v3.Rule
	for _, g := range groups {
		for i := range peers {
			e, err := clusterPeer(&peers[i], direction)
			if err != nil {
				return nil, fmt.Errorf("peer %d: %w", i, err)
			}
			rule := v3.Rule{Action: action, Protocol: g.Protocol, Metadata: ruleName(r.Name)}
			if direction == v3.TypeIngress {
				rule.Source = e
			} else {
				rule.Destination = e
			}
			rule.Destination.Ports = g.Ports
			rules = append(rules, rule)
		}
	}
	return rules, nil
}

func clusterPeer(p *ClusterPolicyPeer, direction string) (v3.EntityRule, error) {
	switch {
	case p.Namespaces != nil:
		return v3.EntityRule{NamespaceSelector: v3.KubernetesNamespaceSelector(p.Namespaces)}, nil
	case p.Pods != nil:
		return v3.EntityRule{
			Selector:          v3.KubernetesPodSelector(&p.Pods.PodSelector),
			NamespaceSelector: v3.KubernetesNamespaceSelector(&p.Pods.NamespaceSelector),
		}, nil
	case len(p.Networks) > 0 && direction == v3.TypeEgress:
		var e v3.EntityRule
		for _, text := range p.Networks {
			prefix, err := netip.ParsePrefix(text)
			if err != nil || prefix.Addr().Is4In6() {
				return e, fmt.Errorf("%.50q is no CIDR", text)
			}
			e.Nets = append(e.Nets, prefix.Masked().String())
		}
		return e, nil
	case p.Nodes != nil:
		return v3.EntityRule{}, errors.New("nodes cannot be peers")
	case len(p.DomainNames) > 0:
		return v3.EntityRule{}, errors.New("domain names cannot be peers")
	}
	return v3.EntityRule{}, errors.New("it has no field that is known")
}

func clusterPorts(list []ClusterPolicyProtocol) ([]v3.PortGroup, error) {
	var ports []v3.ProtocolPort
	for i := range list {
		port, err := clusterPort(&list[i])
		if err != nil {
			return nil, fmt.Errorf("protocols[%d]: %w", i, err)
		}
		ports = append(ports, port)
	}
	return v3.GroupPorts(ports), nil
}

// clusterPort: named ports are of any protocol.
func clusterPort(p *ClusterPolicyProtocol) (v3.ProtocolPort, error) {
	var port *ClusterPolicyPort
	var protocol v3.Protocol
	switch {
	case p.TCP != nil:
		protocol, port = v3.ProtocolTCP, p.TCP.DestinationPort
	case p.UDP != nil:
		protocol, port = v3.ProtocolUDP, p.UDP.DestinationPort
	case p.SCTP != nil:
		protocol, port = v3.ProtocolSCTP, p.SCTP.DestinationPort
	case p.DestinationNamedPort != "":
		return v3.ProtocolPort{Port: v3.Port{Name: p.DestinationNamedPort}}, nil
	default:
		return v3.ProtocolPort{}, errors.New("it has no field that is known")
	}
	if port == nil {
		return v3.ProtocolPort{Protocol: protocol}, nil
	}
	first, last := port.Number, port.Number
	if port.Range != nil {
		first, last = port.Range.Start, port.Range.End
	}
	if first < 1 || last < first || last > 65535 {
		return v3.ProtocolPort{}, fmt.Errorf("ports %d to %d are no range from 1 to 65535", first, last)
	}
	return v3.ProtocolPort{Protocol: protocol, Port: v3.Port{First: uint16(first), Last: uint16(last)}}, nil
}
