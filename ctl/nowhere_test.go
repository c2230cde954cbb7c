package ctl

import (
	"slices"
	"testing"

	v3 "margay/api/v3"
	"margay/store"
)

// TestNowhere: who waits for a host endpoint hears that it is no interface, which is in force as soon as it is known.
func TestNowhere(t *testing.T) {
	hep := func(name string) v3.Key { return v3.Key{Kind: v3.KindHostEndpoint, Name: name} }
	p := &progress{reports: []store.NodeStatus{
		{Node: "a", Endpoints: map[string]store.EndpointState{hep("wrong").String(): store.EndpointError, hep("other").String(): store.EndpointError}},
		{Node: "b", Endpoints: map[string]store.EndpointState{hep("right").String(): store.EndpointUp, hep("off").String(): store.EndpointDown}},
	}}
	got := p.nowhere([]*change{{key: hep("right")}, {key: hep("wrong")}, {key: hep("off")}})
	want := []string{"HostEndpoint(wrong): no interface of node a is it, so nothing is enforced for it (check interfaceName and expectedIPs)"}
	if !slices.Equal(got, want) {
		t.Errorf("%q, want %q", got, want)
	}
}
