package controllers

import (
	v3 "margay/api/v3"
	"margay/store"
)

// A side is one of the two stores.
type side int

// The source is what Kubernetes has; the target is the datastore, which is written. With the Kubernetes datastore they are
// one store, and only the target is followed.
const (
	source side = iota
	target
)

func (s side) String() string {
	if s == source {
		return "kubernetes"
	}
	return "datastore"
}

// A replica is what is known of one side.
type replica struct {
	objects map[v3.Key]v3.Resource
	faults  map[v3.Key]*store.Fault
	synced  bool // it was listed completely
}

func newReplica() replica {
	return replica{objects: map[v3.Key]v3.Resource{}, faults: map[v3.Key]*store.Fault{}}
}

// take notes a change and returns what was there before.
func (r *replica) take(e store.Event) (before v3.Resource) {
	before = r.objects[e.Key]
	delete(r.faults, e.Key)
	delete(r.objects, e.Key)
	switch {
	case e.Fault != nil:
		r.faults[e.Key] = e.Fault
	case e.Resource != nil:
		r.objects[e.Key] = e.Resource
	}
	return before
}

// A view is what both sides hold, as far as it is known.
type view [2]replica

func newView() *view { return &view{newReplica(), newReplica()} }

func (v *view) get(s side, key v3.Key) v3.Resource { return v[s].objects[key] }

// unreadable reports whether there is an object whose value cannot be used. Nothing is concluded from such a value.
func (v *view) unreadable(s side, key v3.Key) bool { return v[s].faults[key] != nil }
