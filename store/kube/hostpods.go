package kube

import (
	"context"
	"encoding/json"
	"net/http"
	"net/url"

	corev1 "k8s.io/api/core/v1"

	v3 "margay/api/v3"
	"margay/store"
)

var _ store.HostPods = (*Store)(nil)

// HostPods implements store.HostPods.
func (s *Store) HostPods(ctx context.Context, node string) ([]v3.HostPod, error) {
	on := "spec.nodeName!="
	if node != "" {
		on = "spec.nodeName=" + node
	}
	var pods []v3.HostPod
	list := func(selector string) error {
		src := &source{id: idPods, group: groupCore, plural: "pods", namespaced: true, query: url.Values{"fieldSelector": {selector}}}
		_, err := s.pages(ctx, src, listing{restart: func() { pods = nil }, each: func(raw []byte) {
			var pod corev1.Pod
			if json.Unmarshal(raw, &pod) == nil && pod.Spec.HostNetwork {
				pods = append(pods, v3.HostPod{Namespace: pod.Namespace, Name: pod.Name, Node: pod.Spec.NodeName,
					ServiceAccount: pod.Spec.ServiceAccountName, Labels: pod.Labels})
			}
		}})
		return err
	}
	err := list(on + ",spec.hostNetwork=true")
	if hasCode(err, http.StatusBadRequest) { // a server of before Kubernetes 1.28 has no such selector
		err = list(on)
	}
	return pods, err
}
