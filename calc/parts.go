package calc

import (
	"net/netip"
	"slices"

	v3 "margay/api/v3"
)

// parts are what services are put together from: each is some of the endpoints of one service.
type parts struct {
	of      map[serviceKey]map[v3.Key]*v3.ServiceEndpoints
	service map[v3.Key]serviceKey // of each part
}

// updatePart takes note of a part, and of what its service has now, and the one that it was of before.
func (c *Calc) updatePart(key v3.Key, r v3.Resource) {
	p := &c.parts
	var services []serviceKey
	if before, known := p.service[key]; known {
		delete(p.service, key)
		delete(p.of[before], key)
		if len(p.of[before]) == 0 {
			delete(p.of, before)
		}
		services = append(services, before)
	}
	if part, ok := r.(*v3.ServiceEndpoints); ok && part.Spec.Service != "" {
		now := serviceKey{key.Namespace, part.Spec.Service}
		if p.of[now] == nil {
			p.of[now] = map[v3.Key]*v3.ServiceEndpoints{}
		}
		p.of[now][key], p.service[key] = part, now
		services = append(services, now)
	}
	for _, service := range slices.Compact(services) {
		c.joinParts(service)
	}
}

// joinParts takes note of all endpoints of a service.
func (c *Calc) joinParts(of serviceKey) {
	parts, known := c.parts.of[of]
	if !known {
		c.SetService(of.namespace, of.name, nil)
		return
	}
	all := []ServiceEndpoint{}
	for _, part := range parts {
		for _, e := range part.Spec.Endpoints {
			if addr, err := netip.ParseAddr(e.Addr); err == nil {
				all = append(all, ServiceEndpoint{Addr: addr, Protocol: e.Protocol, Port: e.Port})
			}
		}
	}
	c.SetService(of.namespace, of.name, all)
}
