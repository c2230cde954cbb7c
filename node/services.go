package node

import (
	"net/netip"

	v3 "margay/api/v3"
	"margay/calc"
)

// services put together the endpoints of a service from the parts that the store has. They belong to the goroutine of the
// loop.
type services struct {
	parts map[service]map[v3.Key]*v3.ServiceEndpoints
	of    map[v3.Key]service // the service of each part
}

type service struct{ namespace, name string }

func newServices() *services {
	return &services{parts: map[service]map[v3.Key]*v3.ServiceEndpoints{}, of: map[v3.Key]service{}}
}

// take notes a part, nil if it is gone, and tells calc what its service has now, and the one it was of before.
func (s *services) take(c *calc.Calc, key v3.Key, r v3.Resource) {
	if before, known := s.of[key]; known {
		delete(s.of, key)
		delete(s.parts[before], key)
		if len(s.parts[before]) == 0 {
			delete(s.parts, before)
		}
		defer s.tell(c, before)
	}
	part, ok := r.(*v3.ServiceEndpoints)
	if !ok || part.Spec.Service == "" {
		return
	}
	now := service{key.Namespace, part.Spec.Service}
	if s.parts[now] == nil {
		s.parts[now] = map[v3.Key]*v3.ServiceEndpoints{}
	}
	s.parts[now][key], s.of[key] = part, now
	defer s.tell(c, now)
}

// tell gives calc all endpoints of a service.
func (s *services) tell(c *calc.Calc, of service) {
	parts, known := s.parts[of]
	if !known {
		c.SetService(of.namespace, of.name, nil)
		return
	}
	all := []calc.ServiceEndpoint{}
	for _, part := range parts {
		for _, e := range part.Spec.Endpoints {
			if addr, err := netip.ParseAddr(e.Addr); err == nil {
				all = append(all, calc.ServiceEndpoint{Addr: addr, Protocol: e.Protocol, Port: e.Port})
			}
		}
	}
	c.SetService(of.namespace, of.name, all)
}
