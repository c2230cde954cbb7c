package storetest

import (
	"fmt"

	v3 "margay/api/v3"
	"margay/store"
)

// testEndpoints is for stores that keep states of endpoints: what is reported replaces what was, of that node alone.
func testEndpoints(e *env) {
	r, ok := e.s.(store.EndpointReporter)
	if !ok {
		e.Skip("this store keeps no states of endpoints")
	}
	host := func(name string) v3.Key { return v3.Key{Kind: v3.KindHostEndpoint, Name: name} }
	pod := v3.Key{Kind: v3.KindWorkloadEndpoint, Namespace: "ns", Name: "node--1-k8s-my--pod.x-eth0"}
	stored := func(want ...store.EndpointStatus) {
		e.Helper()
		got, err := r.EndpointStatuses(e.ctx)
		e.noError(err)
		e.equal(got, want)
	}
	stored()
	e.noError(r.ReportEndpoints(e.ctx, "node-1", map[v3.Key]store.EndpointState{
		host("b%x"): store.EndpointDown, host("a.eth0"): store.EndpointUp, pod: store.EndpointError,
	}))
	e.noError(r.ReportEndpoints(e.ctx, "node", map[v3.Key]store.EndpointState{host("c"): store.EndpointUp}))
	other := store.EndpointStatus{Node: "node", Endpoint: host("c"), State: store.EndpointUp}
	all := []store.EndpointStatus{
		other,
		{Node: "node-1", Endpoint: host("a.eth0"), State: store.EndpointUp},
		{Node: "node-1", Endpoint: host("b%x"), State: store.EndpointDown},
		{Node: "node-1", Endpoint: pod, State: store.EndpointError},
	}
	stored(all...)

	// Nothing changes, nothing is written.
	before, err := e.s.List(e.ctx, "", v3.KindTier)
	e.noError(err)
	e.noError(r.ReportEndpoints(e.ctx, "node", map[v3.Key]store.EndpointState{host("c"): store.EndpointUp}))
	after, err := e.s.List(e.ctx, "", v3.KindTier)
	e.noError(err)
	e.equal(after.Revision, before.Revision)

	// What is not reported any more goes; what has no place there is left out.
	e.noError(r.ReportEndpoints(e.ctx, "node-1", map[v3.Key]store.EndpointState{
		pod: store.EndpointUp, {Kind: v3.KindNode, Name: "n"}: store.EndpointUp,
		{Kind: v3.KindWorkloadEndpoint, Namespace: "ns", Name: "no-parts"}: store.EndpointUp,
	}))
	stored(other, store.EndpointStatus{Node: "node-1", Endpoint: pod, State: store.EndpointUp})
	e.noError(r.ReportEndpoints(e.ctx, "node-1", nil))
	stored(other)

	// Many at once.
	many := map[v3.Key]store.EndpointState{}
	for i := range 300 {
		many[host(fmt.Sprintf("h%d", i))] = store.EndpointUp
	}
	e.noError(r.ReportEndpoints(e.ctx, "node-1", many))
	e.noError(r.ReportEndpoints(e.ctx, "node-1", nil))
	stored(other)
	e.equal(r.ReportEndpoints(e.ctx, "", nil) != nil, true)
	e.equal(r.ReportEndpoints(e.ctx, "a/b", nil) != nil, true)
	e.equal(len(e.list(allKinds()...).Items), 1) // they are no resources
}
