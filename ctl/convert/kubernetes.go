package convert

import (
	"encoding/json"
	"fmt"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	v3 "margay/api/v3"
)

// lastApplied is what kubectl leaves in objects; it means nothing here.
const lastApplied = "kubectl.kubernetes.io/last-applied-configuration"

// kubernetesPolicy converts a NetworkPolicy of Kubernetes. Types that it does not name follow from its rules, as in
// Kubernetes. (calicoctl takes Ingress alone, so that egress rules have no effect.)
func kubernetesPolicy(text []byte) (v3.Resource, error) {
	var in struct {
		metav1.TypeMeta
		Metadata metav1.ObjectMeta                    `json:"metadata"`
		Spec     v3.StagedKubernetesNetworkPolicySpec `json:"spec"`
		Status   json.RawMessage                      `json:"status"`
	}
	if err := strictly(text, &in); err != nil {
		return nil, fmt.Errorf("NetworkPolicy of Kubernetes: %w", err)
	}
	staged := v3.StagedKubernetesNetworkPolicy{Spec: in.Spec}
	staged.TypeMeta, staged.ObjectMeta = meta(v3.KindStagedKubernetesNetworkPolicy, in.Metadata.Name)
	staged.Namespace = in.Metadata.Namespace
	if staged.Namespace == "" {
		staged.Namespace = "default"
	}
	v3.Default(&staged)
	if err := v3.Validate(&staged); err != nil {
		return nil, fmt.Errorf("NetworkPolicy %s/%s of Kubernetes: %w", staged.Namespace, staged.Name, err)
	}
	spec, _ := v3.FromKubernetes(&staged.Spec)
	out := &v3.NetworkPolicy{Spec: *spec}
	out.TypeMeta, out.ObjectMeta = meta(v3.KindNetworkPolicy, in.Metadata.Name)
	out.Namespace = in.Metadata.Namespace
	out.Labels, out.Annotations = in.Metadata.Labels, in.Metadata.Annotations
	delete(out.Annotations, lastApplied)
	if len(out.Annotations) == 0 {
		out.Annotations = nil
	}
	return out, nil
}
