package kube

import (
	"encoding/json"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	v3 "margay/api/v3"
	"margay/store"
	"margay/store/kube/convert"
)

// An item is what an object of the API server comes to: a resource, a fault, or nothing.
type item struct {
	key      v3.Key
	resource v3.Resource
	fault    *store.Fault
}

// head is what every object has.
type head struct {
	Metadata struct {
		Name            string `json:"name"`
		Namespace       string `json:"namespace"`
		ResourceVersion string `json:"resourceVersion"`
	} `json:"metadata"`
}

// decode turns an object into the item that it stands for; the zero item if it stands for none.
func (s *Store) decode(src *source, raw []byte) item {
	if src.form != formDerived {
		return decodeCustom(src, raw)
	}
	it, err := s.derive(src, raw)
	if err != nil {
		return unreadable(src, raw, err)
	}
	if it.resource != nil {
		it.key = v3.KeyOf(it.resource)
	}
	return it
}

// unreadable returns the fault of an object whose name, at least, can be read.
func unreadable(src *source, raw []byte, err error) item {
	var h head
	_ = json.Unmarshal(raw, &h) // the name may be there although something else is wrong
	key := v3.Key{Kind: src.kind, Namespace: h.Metadata.Namespace, Name: h.Metadata.Name}
	return item{key: key, fault: &store.Fault{Key: key, Revision: store.Revision(h.Metadata.ResourceVersion), Value: raw, Err: err}}
}

// decodeCustom decodes a custom resource.
func decodeCustom(src *source, raw []byte) item {
	var h head
	if err := json.Unmarshal(raw, &h); err != nil {
		return unreadable(src, raw, err)
	}
	it := item{key: v3.Key{Kind: src.kind, Namespace: h.Metadata.Namespace, Name: h.Metadata.Name}}
	value, err, decode := raw, error(nil), v3.DecodeCustom
	if src.form == formV1 { // what wrote it completed it
		value, err = fromV1(raw)
		decode = v3.DecodeStored
	}
	if err == nil {
		it.resource, err = decode(src.kind, value)
	}
	if err != nil {
		it.resource = nil
		it.fault = &store.Fault{Key: it.key, Revision: store.Revision(h.Metadata.ResourceVersion), Value: value, Err: err}
		return it
	}
	// The server's name counts, whatever an annotation says: unlike in etcd, it cannot be that of an older release.
	it.resource.SetName(it.key.Name)
	it.resource.SetNamespace(it.key.Namespace)
	it.resource.SetResourceVersion(h.Metadata.ResourceVersion)
	it.resource.SetManagedFields(nil)
	it.resource.SetGeneration(0)
	it.resource.SetSelfLink("")
	return it
}

// derive converts an object of Kubernetes.
func (s *Store) derive(src *source, raw []byte) (item, error) {
	switch src.id {
	case idPods:
		return s.pod(raw)
	case idNamespaces:
		return derived(raw, &corev1.Namespace{}, convert.Namespace)
	case idAccounts:
		return derived(raw, &corev1.ServiceAccount{}, convert.ServiceAccount)
	case idNodes:
		return derived(raw, &corev1.Node{}, convert.Node)
	case idSlices:
		return derived(raw, &discoveryv1.EndpointSlice{}, serviceEndpoints)
	case idPolicies:
		return derived(raw, &networkingv1.NetworkPolicy{}, func(np *networkingv1.NetworkPolicy) *v3.NetworkPolicy {
			p, dropped := convert.NetworkPolicy(np)
			s.tellDropped("NetworkPolicy", np.ObjectMeta, dropped)
			return p
		})
	case idClusterPolicies:
		return s.clusterPolicy(raw)
	}
	panic("kube: no conversion for " + src.id)
}

// derived decodes and converts an object that always stands for a resource.
func derived[O any, R v3.Resource](raw []byte, object O, convert func(O) R) (item, error) {
	if err := json.Unmarshal(raw, object); err != nil {
		return item{}, err
	}
	return item{resource: convert(object)}, nil
}

// pod converts a pod. One that cannot be read as an endpoint is a fault: whatever selects it must not widen by that.
func (s *Store) pod(raw []byte) (item, error) {
	pod := &corev1.Pod{}
	if err := json.Unmarshal(raw, pod); err != nil {
		return item{}, err
	}
	w, err := convert.Pod(pod, s.cfg.InterfacePrefix)
	switch {
	case err != nil && w == nil:
		return item{}, err
	case err != nil:
		key := v3.KeyOf(w)
		return item{key: key, fault: &store.Fault{Key: key, Revision: store.Revision(pod.ResourceVersion), Err: err}}, nil
	case w == nil:
		return item{}, nil
	}
	return item{resource: w}, nil
}

func (s *Store) clusterPolicy(raw []byte) (item, error) {
	cnp, err := convert.DecodeClusterNetworkPolicy(raw)
	if err != nil {
		return item{}, err
	}
	p, dropped, err := convert.ClusterPolicy(cnp)
	if err != nil {
		key := v3.Key{Kind: v3.KindGlobalNetworkPolicy, Name: convert.ClusterPolicyName(cnp.TierName(), cnp.Name)}
		return item{key: key, fault: &store.Fault{Key: key, Revision: store.Revision(cnp.ResourceVersion), Value: raw, Err: err}}, nil
	}
	s.tellDropped("ClusterNetworkPolicy", cnp.ObjectMeta, dropped)
	return item{resource: p}, nil
}

func (s *Store) tellDropped(kind string, meta metav1.ObjectMeta, dropped []string) {
	for _, reason := range dropped {
		s.warnOnce("a rule cannot be converted", "kind", kind, "namespace", meta.Namespace, "name", meta.Name, "rule", reason)
	}
}

// serviceEndpoints returns what an EndpointSlice says of its service.
func serviceEndpoints(slice *discoveryv1.EndpointSlice) *v3.ServiceEndpoints {
	info, _ := v3.Lookup(v3.KindServiceEndpoints)
	r := info.New().(*v3.ServiceEndpoints)
	r.Name, r.Namespace, r.ResourceVersion, r.UID = slice.Name, slice.Namespace, slice.ResourceVersion, convert.UID(slice.UID)
	r.CreationTimestamp = slice.CreationTimestamp
	r.Spec.Service = convert.ServiceOf(slice)
	r.Spec.Endpoints = convert.ServiceEndpoints(slice)
	return r
}
