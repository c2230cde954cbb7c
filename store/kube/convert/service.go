package convert

import (
	"cmp"
	"net/netip"
	"slices"

	discoveryv1 "k8s.io/api/discovery/v1"

	v3 "margay/api/v3"
)

// A ServiceEndpoint is an address that answers for a service, ready or not. Protocol is the IP protocol number. Port 0: the
// address has no port, so that it is a source that rules match, and no destination.
type ServiceEndpoint struct {
	Addr     netip.Addr
	Protocol uint8
	Port     uint16
}

// ServiceOf returns the name of the service that an EndpointSlice belongs to, in the slice's namespace; "" if to none.
func ServiceOf(slice *discoveryv1.EndpointSlice) string {
	return slice.Labels[discoveryv1.LabelServiceName]
}

// ServiceEndpoints returns the endpoints in all slices of one service, sorted, none of them twice. It is nil only if there
// are no slices. Addresses that are names are left out.
func ServiceEndpoints(slicesOfService ...*discoveryv1.EndpointSlice) []ServiceEndpoint {
	if len(slicesOfService) == 0 {
		return nil
	}
	all := []ServiceEndpoint{}
	for _, s := range slicesOfService {
		for _, e := range s.Endpoints {
			for _, text := range e.Addresses {
				if addr, err := v3.ParseAddr(text); err == nil {
					all = appendPorts(all, addr, s.Ports)
				}
			}
		}
	}
	slices.SortFunc(all, func(a, b ServiceEndpoint) int {
		return cmp.Or(a.Addr.Compare(b.Addr), cmp.Compare(a.Protocol, b.Protocol), cmp.Compare(a.Port, b.Port))
	})
	return slices.Compact(all)
}

func appendPorts(all []ServiceEndpoint, addr netip.Addr, ports []discoveryv1.EndpointPort) []ServiceEndpoint {
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
			all, found = append(all, ServiceEndpoint{addr, number, port}), true
		}
	}
	if !found {
		all = append(all, ServiceEndpoint{Addr: addr})
	}
	return all
}
