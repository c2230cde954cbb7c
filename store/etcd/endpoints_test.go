package etcd

import (
	"testing"

	v3 "margay/api/v3"
	"margay/store"
)

// The keys are those that the incumbent's model makes.
func TestEndpointPath(t *testing.T) {
	for path, want := range map[string]store.EndpointStatus{
		"/calico/felix/v1/host/n/endpoint/n.eth0": {Node: "n", Endpoint: v3.Key{Kind: v3.KindHostEndpoint, Name: "n.eth0"}},
		"/calico/felix/v1/host/n/endpoint/a%2fb":  {Node: "n", Endpoint: v3.Key{Kind: v3.KindHostEndpoint, Name: "a/b"}},
		"/calico/felix/v2/no-region/host/n-1/workload/k8s/ns%2fmy-pod/endpoint/eth0": {Node: "n-1",
			Endpoint: v3.Key{Kind: v3.KindWorkloadEndpoint, Namespace: "ns", Name: "n--1-k8s-my--pod-eth0"}},
	} {
		if got, ok := endpointOf(path); !ok || got != want {
			t.Errorf("%s is %+v, %v; want %+v", path, got, ok, want)
		}
		if got, ok := endpointPath(want.Node, want.Endpoint); !ok || got != path {
			t.Errorf("%+v is at %q, %v; want %q", want, got, ok, path)
		}
	}
	for _, path := range []string{
		"", "/calico/felix/v1/host/n", "/calico/felix/v1/host/n/endpoint", "/calico/felix/v1/host/n/other/x",
		"/calico/felix/v2/no-region/host/n/status", "/calico/felix/v2/no-region/host/n/last_reported_status",
		"/calico/felix/v2/no-region/host/n/workload/k8s/no-namespace/endpoint/eth0",
		"/calico/felix/v2/no-region/host/n/workload/k8s/ns%2fp/other/eth0",
	} {
		if got, ok := endpointOf(path); ok {
			t.Errorf("%s is %+v", path, got)
		}
	}
}
