package convert

import (
	networkingv1 "k8s.io/api/networking/v1"

	v3 "margay/api/v3"
)

// NetworkPolicy returns what a NetworkPolicy of Kubernetes means. The second result names the rules that are left out,
// each with its reason. API servers fill in policyTypes; where they are missing they follow from the rules.
func NetworkPolicy(np *networkingv1.NetworkPolicy) (*v3.NetworkPolicy, []string) {
	p := &v3.NetworkPolicy{TypeMeta: typeMeta(v3.KindNetworkPolicy)}
	spec, dropped := v3.FromKubernetes(policySpec(&np.Spec))
	p.ObjectMeta, p.Spec = derived(v3.PrefixKubernetesPolicy+np.Name, &np.ObjectMeta), *spec
	p.Labels = map[string]string{v3.LabelTier: spec.Tier}
	return p, dropped
}

// policySpec returns the same spec in the types of api/v3.
func policySpec(spec *networkingv1.NetworkPolicySpec) *v3.StagedKubernetesNetworkPolicySpec {
	out := &v3.StagedKubernetesNetworkPolicySpec{PodSelector: spec.PodSelector}
	for _, t := range spec.PolicyTypes {
		out.PolicyTypes = append(out.PolicyTypes, string(t))
	}
	for _, r := range spec.Ingress {
		out.Ingress = append(out.Ingress, v3.KubernetesIngressRule{Ports: policyPorts(r.Ports), From: policyPeers(r.From)})
	}
	for _, r := range spec.Egress {
		out.Egress = append(out.Egress, v3.KubernetesEgressRule{Ports: policyPorts(r.Ports), To: policyPeers(r.To)})
	}
	return out
}

func policyPorts(ports []networkingv1.NetworkPolicyPort) []v3.KubernetesPort {
	var out []v3.KubernetesPort
	for _, p := range ports {
		out = append(out, v3.KubernetesPort{Protocol: (*string)(p.Protocol), Port: p.Port, EndPort: p.EndPort})
	}
	return out
}

func policyPeers(peers []networkingv1.NetworkPolicyPeer) []v3.KubernetesPeer {
	var out []v3.KubernetesPeer
	for _, p := range peers {
		peer := v3.KubernetesPeer{PodSelector: p.PodSelector, NamespaceSelector: p.NamespaceSelector}
		if b := p.IPBlock; b != nil {
			peer.IPBlock = &v3.KubernetesIPBlock{CIDR: b.CIDR, Except: b.Except}
		}
		out = append(out, peer)
	}
	return out
}
