package controllers

import (
	"maps"
	"slices"

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

// A replica is what is known of one side: what was delivered and, over that, what was written here and has not come back
// yet. The latter must not be mixed with the former: a relist tells the difference to what was delivered, so that nothing
// would ever correct the rest.
type replica struct {
	delivered map[v3.Key]store.Event
	own       map[v3.Key]store.Event
	synced    bool // it was listed completely
}

func newReplica() replica {
	return replica{delivered: map[v3.Key]store.Event{}, own: map[v3.Key]store.Event{}}
}

// at returns the last that is known of an object.
func (r *replica) at(key v3.Key) store.Event {
	if e, ok := r.own[key]; ok {
		return e
	}
	return r.delivered[key]
}

// deliver notes a change that the store told.
func (r *replica) deliver(e store.Event) {
	r.delivered[e.Key] = e
	if e.Resource == nil && e.Fault == nil {
		delete(r.delivered, e.Key)
	}
}

// keys returns all objects, sorted.
func (r *replica) keys() []v3.Key {
	all := maps.Clone(r.delivered)
	maps.Copy(all, r.own)
	return slices.SortedFunc(maps.Keys(all), compareKeys)
}

// A view is what both sides hold, as far as it is known.
type view [2]replica

func newView() *view { return &view{newReplica(), newReplica()} }

// get returns an object, nil if there is none or its value cannot be used.
func (v *view) get(s side, key v3.Key) v3.Resource { return v[s].at(key).Resource }

// fault returns why an object's value cannot be used, nil if it can or there is none.
func (v *view) fault(s side, key v3.Key) *store.Fault { return v[s].at(key).Fault }

// unreadable reports whether there is an object whose value cannot be used. Nothing is concluded from such a value.
func (v *view) unreadable(s side, key v3.Key) bool { return v.fault(s, key) != nil }
