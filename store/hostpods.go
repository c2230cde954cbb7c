package store

import (
	"context"

	v3 "margay/api/v3"
)

// HostPods is implemented by stores that know of pods which are no endpoints.
type HostPods interface {
	// HostPods returns all pods that run on their node's own network, in any order.
	HostPods(ctx context.Context) ([]v3.HostPod, error)
}
