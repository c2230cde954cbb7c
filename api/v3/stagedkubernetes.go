package v3

import (
	"net/netip"
	"reflect"
	"slices"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	metav1validation "k8s.io/apimachinery/pkg/apis/meta/v1/validation"
	"k8s.io/apimachinery/pkg/util/intstr"
	fieldpath "k8s.io/apimachinery/pkg/util/validation/field"
)

// StagedKubernetesNetworkPolicy is a NetworkPolicy of Kubernetes that is never enforced.
type StagedKubernetesNetworkPolicy struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata"`
	Spec              StagedKubernetesNetworkPolicySpec `json:"spec"`
}

// StagedKubernetesNetworkPolicySpec is the spec of a NetworkPolicy of networking.k8s.io/v1, and the action. PolicyTypes
// is stored as it is given: empty means Ingress, and Egress as well if there are egress rules. With StagedDelete nothing
// else is set.
type StagedKubernetesNetworkPolicySpec struct {
	StagedAction string                  `json:"stagedAction,omitempty" schema:"enum=Set|Delete|Learn|Ignore" default:"Set"`
	PodSelector  metav1.LabelSelector    `json:"podSelector"` // empty: all pods of the namespace
	Ingress      []KubernetesIngressRule `json:"ingress,omitempty"`
	Egress       []KubernetesEgressRule  `json:"egress,omitempty"`
	PolicyTypes  []string                `json:"policyTypes,omitempty" schema:"maxitems=2,distinct,enum=Ingress|Egress"`
}

// KubernetesIngressRule allows traffic from any of the peers to any of the ports; no peers and no ports are all of them.
type KubernetesIngressRule struct {
	Ports []KubernetesPort `json:"ports,omitempty"`
	From  []KubernetesPeer `json:"from,omitempty"`
}

// KubernetesEgressRule allows traffic to any of the peers at any of the ports; no peers and no ports are all of them.
type KubernetesEgressRule struct {
	Ports []KubernetesPort `json:"ports,omitempty"`
	To    []KubernetesPeer `json:"to,omitempty"`
}

// KubernetesPort is a port by number or name, or the range Port to EndPort, both inclusive. Protocol nil is TCP, Port nil
// every port.
type KubernetesPort struct {
	Protocol *string             `json:"protocol,omitempty"`
	Port     *intstr.IntOrString `json:"port,omitempty"`
	EndPort  *int32              `json:"endPort,omitempty"`
}

// KubernetesPeer is either IPBlock or the pods that both selectors select; NamespaceSelector nil is the policy's own
// namespace.
type KubernetesPeer struct {
	PodSelector       *metav1.LabelSelector `json:"podSelector,omitempty"`
	NamespaceSelector *metav1.LabelSelector `json:"namespaceSelector,omitempty"`
	IPBlock           *KubernetesIPBlock    `json:"ipBlock,omitempty"`
}

// KubernetesIPBlock is a CIDR without the CIDRs of Except, which lie in it.
type KubernetesIPBlock struct {
	CIDR   string   `json:"cidr"`
	Except []string `json:"except,omitempty"`
}

func defaultStagedKubernetes(p *StagedKubernetesNetworkPolicy) {
	if p.Spec.StagedAction == "" {
		p.Spec.StagedAction = StagedSet
	}
}

// validateStagedKubernetes has the rules of the Kubernetes API. Those of 3.32 are fewer: it drops what it cannot
// convert, a selector term for instance, and so previews another policy than the one that Kubernetes would have.
func validateStagedKubernetes(c *check, p *StagedKubernetesNetworkPolicy) {
	spec := &p.Spec
	taggedText(c, "spec.stagedAction", spec.StagedAction, tagRules(stagedActions))
	if spec.StagedAction == StagedDelete {
		refuseFields(c, reflect.ValueOf(*spec), "stagedAction")
		return
	}
	checkLabelSelector(c, "spec.podSelector", &spec.PodSelector)
	for i, r := range spec.Ingress {
		path := index("spec.ingress", i)
		checkKubernetesRule(c, path, r.Ports)
		checkPeers(c, path+".from", r.From)
	}
	for i, r := range spec.Egress {
		path := index("spec.egress", i)
		checkKubernetesRule(c, path, r.Ports)
		checkPeers(c, path+".to", r.To)
	}
	for i, t := range spec.PolicyTypes {
		switch path := index("spec.policyTypes", i); {
		case t != TypeIngress && t != TypeEgress:
			c.fail(path, t, "policy type is not known", "write Ingress or Egress")
		case slices.Contains(spec.PolicyTypes[:i], t):
			c.failf(path, t, "'%s' type specified more than once", t)
		}
	}
}

func checkLabelSelector(c *check, path string, s *metav1.LabelSelector) {
	if s == nil {
		return
	}
	for _, e := range metav1validation.ValidateLabelSelector(s, metav1validation.LabelSelectorValidationOptions{}, fieldpath.NewPath(path)) {
		c.fail(e.Field, e.BadValue, e.Detail, "")
	}
}

func checkKubernetesRule(c *check, path string, ports []KubernetesPort) {
	for i, p := range ports {
		at := index(path+".ports", i)
		if p.Protocol != nil {
			taggedText(c, at+".protocol", *p.Protocol, tagRules("enum=TCP|UDP|SCTP"))
		}
		checkKubernetesPort(c, at, p)
	}
}

func checkKubernetesPort(c *check, path string, p KubernetesPort) {
	switch {
	case p.Port == nil && p.EndPort != nil:
		c.fail(path+".endPort", *p.EndPort, "endPort is specified without port", "add port: the first of the range")
	case p.Port == nil:
	case p.Port.Type == intstr.String && !isPortName(p.Port.StrVal):
		c.fail(path+".port", p.Port.StrVal, portNameReason, "")
	case p.Port.Type == intstr.String && p.EndPort != nil:
		c.fail(path+".endPort", *p.EndPort, "endPort is specified with a named port", "give the port by its number")
	case p.Port.Type == intstr.String:
	case p.Port.IntVal < 1 || p.Port.IntVal > 65535:
		c.fail(path+".port", p.Port.IntVal, "port number must be between 1 and 65535", "")
	case p.EndPort != nil && (*p.EndPort < p.Port.IntVal || *p.EndPort > 65535):
		c.fail(path+".endPort", *p.EndPort, "endPort must be between port and 65535", "")
	}
}

func checkPeers(c *check, path string, peers []KubernetesPeer) {
	for i, p := range peers {
		at := index(path, i)
		checkLabelSelector(c, at+".podSelector", p.PodSelector)
		checkLabelSelector(c, at+".namespaceSelector", p.NamespaceSelector)
		switch selectors := p.PodSelector != nil || p.NamespaceSelector != nil; {
		case p.IPBlock == nil && !selectors:
			c.fail(at, nil, "must specify a peer", "add podSelector, namespaceSelector or ipBlock, or remove the entry")
		case p.IPBlock != nil && selectors:
			c.fail(at+".ipBlock", nil, "may not be specified with podSelector or namespaceSelector", "make it two entries")
		case p.IPBlock != nil:
			checkIPBlock(c, at+".ipBlock", p.IPBlock)
		}
	}
}

// checkIPBlock: host bits are masked when the policy is used, so they are accepted.
func checkIPBlock(c *check, path string, b *KubernetesIPBlock) {
	block, ok := parseCIDR(b.CIDR)
	if !ok {
		c.fail(path+".cidr", b.CIDR, "invalid CIDR", "")
	}
	for i, text := range b.Except {
		at := index(path+".except", i)
		switch except, valid := parseCIDR(text); {
		case !valid:
			c.fail(at, text, "invalid CIDR", "")
		case ok && (except.Bits() <= block.Bits() || !block.Contains(except.Addr())):
			c.fail(at, text, "must be a strict subset of cidr", "")
		}
	}
}

// parseCIDR returns the masked prefix of a text that has a mask.
func parseCIDR(text string) (netip.Prefix, bool) {
	p, err := netip.ParsePrefix(text)
	if err != nil || p.Addr().Is4In6() {
		return netip.Prefix{}, false
	}
	return p.Masked(), true
}
