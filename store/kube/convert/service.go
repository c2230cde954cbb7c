package convert

import (
	"cmp"
	"slices"

	discoveryv1 "k8s.io/api/discovery/v1"

	v3 "margay/api/v3"
)

// ServiceOf returns the name of the service that an EndpointSlice belongs to, in the slice's namespace; "" if to none.
func ServiceOf(slice *discoveryv1.EndpointSlice) string {
	return slice.Labels[discoveryv1.LabelServiceName]
}

// ServiceEndpoints returns the endpoints in all slices of one service, sorted, none of them twice. It is nil only if there
// are no slices. Addresses that are names are left out.
func ServiceEndpoints(slicesOfService ...*discoveryv1.EndpointSlice) []v3.ServiceEndpoint {
	if len(slicesOfService) == 0 {
		return nil
	}
	all := []v3.ServiceEndpoint{}
	for _, s := range slicesOfService {
		for _, e := range s.Endpoints {
			for _, text := range e.Addresses {
				if addr, err := v3.ParseAddr(text); err == nil {
					all = appendPorts(all, addr.String(), s.Ports)
				}
			}
		}
	}
	slices.SortFunc(all, func(a, b v3.ServiceEndpoint) int {
		return cmp.Or(cmp.Compare(a.Addr, b.Addr), cmp.Compare(a.Protocol, b.Protocol), cmp.Compare(a.Port, b.Port))
	})
	return slices.Compact(all)
}

func appendPorts(all []v3.ServiceEndpoint, addr string, ports []discoveryv1.EndpointPort) []v3.ServiceEndpoint {
	found := false
	for _, p := range ports {
		protocol := v3.ProtocolTCP
		if p.Protocol != nil && *p.Protocol != "" {
			protocol = v3.Protocol(*p.Protocol)
		}
		if p.Port == nil || !protocol.HasPorts() {
			continue
		}
		if port, ok := portNumber(*p.Port); ok {
			number, _ := protocol.Number()
			all, found = append(all, v3.ServiceEndpoint{Addr: addr, Protocol: number, Port: port}), true
		}
	}
	if !found {
		all = append(all, v3.ServiceEndpoint{Addr: addr})
	}
	return all
}
