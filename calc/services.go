package calc

import (
	"net/netip"
	"slices"

	"margay/ruleset"
)

// A ServiceEndpoint is an address that answers for a service, ready or not. Port 0: the address has no port there; it is
// a source that rules match and no destination.
type ServiceEndpoint struct {
	Addr     netip.Addr
	Protocol uint8
	Port     uint16
}

type serviceKey struct{ namespace, name string }

func (k serviceKey) String() string { return k.namespace + "/" + k.name }

// SetService takes note of all endpoints of a service, as its EndpointSlices have them; nil: there is no such service. The
// same endpoint may come twice. The service's own address is none of them.
func (c *Calc) SetService(namespace, name string, endpoints []ServiceEndpoint) {
	key := serviceKey{namespace, name}
	if _, noted := c.changedServices[key]; !noted {
		c.changedServices[key] = c.services[key]
	}
	delete(c.services, key)
	if endpoints == nil {
		return
	}
	list := make([]ServiceEndpoint, 0, len(endpoints))
	for _, e := range endpoints {
		if e.Addr = e.Addr.Unmap().WithZone(""); e.Addr.IsValid() {
			list = append(list, e)
		}
	}
	c.services[key] = list
}

// eachServiceMember calls f with what endpoints give to a set, the same member perhaps more than once.
func eachServiceMember(kind ruleset.SetKind, endpoints []ServiceEndpoint, f func(ruleset.Member)) {
	for _, e := range endpoints {
		m := ruleset.Member{Prefix: netip.PrefixFrom(e.Addr, e.Addr.BitLen())}
		switch {
		case kind == ruleset.Addrs:
			f(m)
		case e.Port != 0 && e.Protocol != 0:
			m.Protocol, m.Port = e.Protocol, e.Port
			f(m)
		}
	}
}

// matchChangedServices brings the sets of services up to date, new ones included.
func (c *Calc) matchChangedServices() {
	for s := range c.newSets {
		if s.service != (serviceKey{}) {
			eachServiceMember(s.kind, c.services[s.service], s.giveMember)
		}
	}
	for key, before := range c.changedServices {
		for _, withPorts := range []bool{false, true} {
			s := c.sets[setSpec{service: key, withPorts: withPorts}.id()]
			if s == nil || !s.told {
				continue
			}
			eachServiceMember(s.kind, c.services[key], s.giveMember)
			eachServiceMember(s.kind, before, s.takeMember)
			c.changedSets[s] = struct{}{}
		}
	}
	clear(c.changedServices)
}

// unknownServices returns the services that rules of the policy name and that are not known.
func (c *Calc) unknownServices(p *policy) []serviceKey {
	var list []serviceKey
	for _, key := range p.services {
		if _, known := c.services[key]; !known && !slices.Contains(list, key) {
			list = append(list, key)
		}
	}
	return list
}
