package ctl

import (
	"context"
	"slices"

	v3 "margay/api/v3"
	"margay/store"
)

// endpointStates are what agents say of the endpoints of their nodes.
type endpointStates map[nodeEndpoint]store.EndpointState

type nodeEndpoint struct{ node, endpoint string }

func isEndpoint(kind v3.Kind) bool {
	return kind == v3.KindHostEndpoint || kind == v3.KindWorkloadEndpoint
}

// endpointStates reads what agents say, if endpoints are asked for: those of this system in their status, others where the
// incumbent keeps it. It is an addition: without it the rest is printed.
func (s *session) endpointStates(ctx context.Context, keys []v3.Key) endpointStates {
	if s.down || !slices.ContainsFunc(keys, func(k v3.Key) bool { return isEndpoint(k.Kind) }) {
		return nil
	}
	states := endpointStates{}
	if r, ok := s.store.(store.EndpointReporter); ok {
		list, _ := within(ctx, s, r.EndpointStatuses)
		for _, status := range list {
			states[nodeEndpoint{status.Node, status.Endpoint.String()}] = status.State
		}
	}
	nodes, _ := s.statuses(ctx)
	for _, node := range nodes {
		for name, state := range node.Endpoints {
			states[nodeEndpoint{node.Node, name}] = state
		}
	}
	return states
}

// of returns the state of an endpoint, - if its agent says nothing.
func (s endpointStates) of(r v3.Resource) string {
	node := ""
	switch r := r.(type) {
	case *v3.HostEndpoint:
		node = r.Spec.Node
	case *v3.WorkloadEndpoint:
		node = r.Spec.Node
	}
	return orDash(string(s[nodeEndpoint{node, v3.KeyOf(r).String()}]))
}
