package kube

import (
	"context"
	"encoding/json"
	"fmt"
	"net/netip"
	"net/url"

	discoveryv1 "k8s.io/api/discovery/v1"

	v3 "margay/api/v3"
)

// A Service is one of Kubernetes, with the name of one of its ports.
type Service struct{ Namespace, Name, Port string }

// An Instance is a pod behind a service.
type Instance struct {
	Addr netip.AddrPort
	// Node that it runs on; "" if that is not known.
	Node string
	// Ready as its probe says, or as is taken for granted where nobody says anything.
	Ready bool
}

// Instances returns what is behind a port of a service of the cluster, each once, in the order of the server. It needs leave
// to list EndpointSlices in the namespace of the service.
func (s *Store) Instances(ctx context.Context, service Service) ([]Instance, error) {
	src := &source{id: idSlices, group: groupDiscovery, plural: "endpointslices", namespaced: true,
		query: url.Values{"labelSelector": {discoveryv1.LabelServiceName + "=" + service.Name}}}
	var found []Instance
	var broken error
	restart := func() { found, broken = nil, nil }
	_, err := s.pages(ctx, src, listing{namespace: service.Namespace, restart: restart, each: func(raw []byte) {
		var slice discoveryv1.EndpointSlice
		if err := json.Unmarshal(raw, &slice); err != nil {
			broken = err
			return
		}
		found = appendInstances(found, &slice, service.Port)
	}})
	if err == nil {
		err = broken
	}
	if err != nil {
		return nil, fmt.Errorf("list endpoints of service %s/%s: %w", service.Namespace, service.Name, err)
	}
	return found, nil
}

// appendInstances adds those of a slice that are not there yet.
func appendInstances(found []Instance, slice *discoveryv1.EndpointSlice, port string) []Instance {
	number := uint16(0)
	for _, p := range slice.Ports {
		if p.Name != nil && *p.Name == port && p.Port != nil && *p.Port > 0 && *p.Port <= 65535 {
			number = uint16(*p.Port)
		}
	}
	if number == 0 {
		return found
	}
	known := map[netip.AddrPort]bool{}
	for _, i := range found {
		known[i.Addr] = true
	}
	for _, e := range slice.Endpoints {
		for _, text := range e.Addresses {
			addr, err := v3.ParseAddr(text)
			at := netip.AddrPortFrom(addr, number)
			if err != nil || known[at] { // a name instead of an address
				continue
			}
			known[at] = true
			i := Instance{Addr: at, Ready: e.Conditions.Ready == nil || *e.Conditions.Ready}
			if e.NodeName != nil {
				i.Node = *e.NodeName
			}
			found = append(found, i)
		}
	}
	return found
}
