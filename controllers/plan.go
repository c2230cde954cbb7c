package controllers

import (
	"strings"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	v3 "margay/api/v3"
	"margay/store"
)

// A controller keeps things of one sort in the datastore as they should be. It decides and writes nothing itself: what it
// plans depends on the view alone, so that it does not matter in which order changes came, or whether any was missed.
type controller interface {
	name() string
	// kinds are what the controller has to know of a side.
	kinds(s side) []v3.Kind
	// touched is told every change, nil for an object that is not there, and returns what has to be planned anew.
	touched(s side, key v3.Key, before, after v3.Resource) []v3.Key
	// plan returns what must be written for a unit that touched has returned, nothing if it is as it should be. The error
	// says what else should be and cannot; the steps are good without it.
	plan(v *view, unit v3.Key) ([]step, error)
}

// A step is one write.
type step struct {
	store.Write
	// gone, if set, is an object of a side whose absence is the reason. It is asked for again before the write: a list may
	// have been cut short, by a server that is ill or is another one, and nothing must be lost by that.
	gone v3.Key
	from side
}

// sinceGone says why objects are deleted: another one is not there.
func sinceGone(steps []step, s side, key v3.Key) []step {
	for i := range steps {
		steps[i].gone, steps[i].from = key, s
	}
	return steps
}

// bring returns the steps that make the object of the target what it should be; nil: absent. It is for objects that
// belong to the controllers as a whole, unreadable ones included.
func bring(v *view, key v3.Key, want v3.Resource) []step {
	have, fault := v.get(target, key), v.fault(target, key)
	revision := ""
	switch {
	case fault != nil:
		revision = string(fault.Revision)
	case have != nil:
		revision = have.GetResourceVersion()
	}
	exists := have != nil || fault != nil
	switch {
	case want == nil && !exists:
		return nil
	case want == nil:
		return []step{remove(key, revision)}
	case !exists:
		return []step{{Write: store.Write{Op: store.Create, Resource: want}}}
	case fault == nil && same(content(want), content(have)):
		return nil
	}
	want.SetResourceVersion(revision)
	return []step{{Write: store.Write{Op: store.Update, Resource: want}}}
}

// remove returns the step that deletes an object if it is still of that revision.
func remove(key v3.Key, revision string) step {
	info, _ := v3.Lookup(key.Kind)
	r := info.New()
	r.SetNamespace(key.Namespace)
	r.SetName(key.Name)
	r.SetResourceVersion(revision)
	return step{Write: store.Write{Op: store.Delete, Resource: r}}
}

// contents are what the controllers decide about an object.
type contents struct {
	Labels, Annotations map[string]string `json:",omitempty"`
	Spec                any
}

func content(r v3.Resource) contents {
	c := contents{Labels: r.GetLabels(), Annotations: r.GetAnnotations()}
	switch r := r.(type) {
	case *v3.Profile:
		c.Spec = r.Spec
	case *v3.NetworkPolicy:
		c.Spec = r.Spec
	case *v3.WorkloadEndpoint:
		c.Spec = r.Spec
	case *v3.HostEndpoint:
		c.Spec = r.Spec
	case *v3.Node:
		c.Spec = r.Spec
	}
	return c
}

// fresh returns the metadata of a copy: what people see of an object, without what a store gives it.
func fresh(r v3.Resource) metav1.ObjectMeta {
	return metav1.ObjectMeta{Name: r.GetName(), Namespace: r.GetNamespace(), Labels: r.GetLabels(), Annotations: r.GetAnnotations()}
}

// A copier keeps objects whose names begin with a prefix equal on both sides. The prefix is the mark of ownership, as with
// the incumbent: names that begin with it are for what Kubernetes has.
type copier struct {
	title  string
	kind   v3.Kind
	prefix string
}

func namespaceController() controller {
	return copier{"namespace", v3.KindProfile, v3.PrefixNamespaceProfile}
}

func serviceAccountController() controller {
	return copier{"serviceaccount", v3.KindProfile, v3.PrefixServiceAccountProfile}
}

func policyController() controller {
	return copier{"policy", v3.KindNetworkPolicy, v3.PrefixKubernetesPolicy}
}

func (c copier) name() string { return c.title }

func (c copier) kinds(side) []v3.Kind { return []v3.Kind{c.kind} }

func (c copier) touched(_ side, key v3.Key, _, _ v3.Resource) []v3.Key {
	if key.Kind == c.kind && strings.HasPrefix(key.Name, c.prefix) {
		return []v3.Key{key}
	}
	return nil
}

func (c copier) plan(v *view, key v3.Key) ([]step, error) {
	if v.unreadable(source, key) {
		return nil, nil
	}
	var want v3.Resource
	switch r := v.get(source, key).(type) {
	case *v3.Profile:
		want = &v3.Profile{TypeMeta: r.TypeMeta, ObjectMeta: fresh(r), Spec: r.Spec}
	case *v3.NetworkPolicy:
		want = &v3.NetworkPolicy{TypeMeta: r.TypeMeta, ObjectMeta: fresh(r), Spec: r.Spec}
	}
	if want == nil {
		return sinceGone(bring(v, key, nil), source, key), nil
	}
	return bring(v, key, want), nil
}
