package controllers

import (
	"maps"

	v3 "margay/api/v3"
	"margay/store"
)

// A workloadController brings the labels and the service account of pods to their WorkloadEndpoints. Where the CNI plugin
// writes WorkloadEndpoints it leaves everything else of them to it. A pod that has an address and no WorkloadEndpoint, as
// with any other CNI plugin, gets one; those are marked by an annotation and go when the pod goes.
type workloadController struct{}

func (workloadController) name() string { return "workloadendpoint" }

func (workloadController) kinds(side) []v3.Kind { return []v3.Kind{v3.KindWorkloadEndpoint} }

func (workloadController) touched(_ side, key v3.Key, _, _ v3.Resource) []v3.Key {
	if key.Kind == v3.KindWorkloadEndpoint {
		return []v3.Key{key}
	}
	return nil
}

func (workloadController) plan(v *view, key v3.Key) ([]step, error) {
	if v.unreadable(source, key) || v.unreadable(target, key) {
		return nil, nil
	}
	pod, _ := v.get(source, key).(*v3.WorkloadEndpoint)
	have, _ := v.get(target, key).(*v3.WorkloadEndpoint)
	switch {
	case pod == nil && (have == nil || !marked(have)):
		return nil, nil
	case pod == nil:
		return sinceGone(bring(v, key, nil), source, key), nil
	case have == nil && len(pod.Spec.IPNetworks) == 0:
		return nil, nil // the CNI plugin may be about to write it
	case have == nil || marked(have):
		want := &v3.WorkloadEndpoint{TypeMeta: pod.TypeMeta, ObjectMeta: fresh(pod), Spec: pod.Spec}
		want.Annotations = maps.Clone(want.Annotations)
		if want.Annotations == nil {
			want.Annotations = map[string]string{}
		}
		want.Annotations[v3.LabelCreatedBy] = v3.CreatedByKubeControllers
		return bring(v, key, want), nil
	case have.Spec.Orchestrator != v3.OrchestratorKubernetes,
		maps.Equal(have.Labels, pod.Labels) && have.Spec.ServiceAccountName == pod.Spec.ServiceAccountName:
		return nil, nil
	}
	want := *have
	want.Labels, want.Spec.ServiceAccountName = pod.Labels, pod.Spec.ServiceAccountName
	return []step{{Write: store.Write{Op: store.Update, Resource: &want}}}, nil
}

func marked(w *v3.WorkloadEndpoint) bool {
	return w.Annotations[v3.LabelCreatedBy] == v3.CreatedByKubeControllers
}
