package store

import (
	"context"

	v3 "margay/api/v3"
)

// An EndpointState is what an agent says of an endpoint of its host, in the incumbent's words.
type EndpointState string

// The states. A host endpoint that is found on no interface is in error.
const (
	EndpointUp    EndpointState = "up"    // enforced, and its interface is up
	EndpointDown  EndpointState = "down"  // its interface is down, or not there
	EndpointError EndpointState = "error" // it cannot be enforced
)

// An EndpointStatus is the state of one endpoint.
type EndpointStatus struct {
	Node     string
	Endpoint v3.Key // of a HostEndpoint or WorkloadEndpoint
	State    EndpointState
}

// An EndpointReporter is a Store that keeps states of endpoints where the incumbent keeps them. Not every Store does.
type EndpointReporter interface {
	// ReportEndpoints makes states the only ones of endpoints of a node. What is stored so already is not written again. It is
	// not one transaction: after an error some may be written.
	ReportEndpoints(ctx context.Context, node string, states map[v3.Key]EndpointState) error
	// EndpointStatuses returns the states of all endpoints, ordered by node, kind, namespace and name.
	EndpointStatuses(ctx context.Context) ([]EndpointStatus, error)
}
