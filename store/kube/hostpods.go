package kube

import (
	"context"
	"encoding/json"
	"net/url"

	corev1 "k8s.io/api/core/v1"

	v3 "margay/api/v3"
	"margay/store"
)

var _ store.HostPods = (*Store)(nil)

// HostPods implements store.HostPods. Servers before Kubernetes 1.28 cannot select such pods: they refuse the request.
func (s *Store) HostPods(ctx context.Context, node string) ([]v3.HostPod, error) {
	src := derivedSources(v3.KindWorkloadEndpoint)[0]
	fields := "spec.hostNetwork=true"
	if node != "" {
		fields += ",spec.nodeName=" + node
	} else {
		fields += ",spec.nodeName!="
	}
	src.query = url.Values{"fieldSelector": {fields}}
	var pods []v3.HostPod
	_, err := s.pages(ctx, src, listing{
		restart: func() { pods = nil },
		each: func(raw []byte) {
			var pod corev1.Pod
			if json.Unmarshal(raw, &pod) != nil || !pod.Spec.HostNetwork {
				return // of a pod that cannot be read nothing is known
			}
			pods = append(pods, v3.HostPod{
				Namespace: pod.Namespace, Name: pod.Name, Node: pod.Spec.NodeName,
				ServiceAccount: pod.Spec.ServiceAccountName, Labels: pod.Labels,
			})
		},
	})
	return pods, err
}
