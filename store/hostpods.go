package store

import (
	"context"

	v3 "margay/api/v3"
)

// HostPods is implemented by stores that know of pods which are no endpoints.
type HostPods interface {
	// HostPods returns the pods that run on their node's own network, of one node if node is not "", in any order.
	HostPods(ctx context.Context, node string) ([]v3.HostPod, error)
}
