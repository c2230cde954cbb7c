package kube

import (
	"fmt"
	"testing"

	discoveryv1 "k8s.io/api/discovery/v1"
)

// TestAppendInstances: a slice counts with the port of the name, each address once.
func TestAppendInstances(t *testing.T) {
	no, node, number, large := false, "n1", int32(5473), int32(70000)
	name, other := "calico-typha", "metrics"
	endpoints := []discoveryv1.Endpoint{
		{Addresses: []string{"10.0.0.1", "2001:db8::1"}, NodeName: &node},
		{Addresses: []string{"10.0.0.2", "10.0.0.1", "typha.example.com"}, Conditions: discoveryv1.EndpointConditions{Ready: &no}},
	}
	for _, c := range []struct {
		ports []discoveryv1.EndpointPort
		want  string
	}{
		{[]discoveryv1.EndpointPort{{Name: &other, Port: &large}, {Name: &name, Port: &number}},
			"[{10.0.0.1:5473 n1 true} {[2001:db8::1]:5473 n1 true} {10.0.0.2:5473  false}]"},
		{[]discoveryv1.EndpointPort{{Name: &other, Port: &number}}, "[]"},
		{[]discoveryv1.EndpointPort{{Name: &name}}, "[]"},
		{[]discoveryv1.EndpointPort{{Name: &name, Port: &large}}, "[]"},
		{[]discoveryv1.EndpointPort{{Port: &number}}, "[]"},
		{nil, "[]"},
	} {
		slice := &discoveryv1.EndpointSlice{Endpoints: endpoints, Ports: c.ports}
		found := appendInstances(appendInstances(nil, slice, name), slice, name)
		if got := fmt.Sprint(found); got != c.want {
			t.Errorf("%v\nwant %v", got, c.want)
		}
	}
}
