package calc

import (
	"fmt"
	"maps"
	"net/netip"
	"reflect"
	"slices"

	v3 "margay/api/v3"
	"margay/ruleset"
)

// An endpoint is a host endpoint of this node.
type endpoint struct {
	id       ruleset.EndpointID
	spec     *v3.HostEndpointSpec
	item     *item
	profiles []*profile // as spec.profiles names them, each once
	policies map[*policy]struct{}

	interfaces []string
	conflicts  []string // why it does not have an interface that it wants
}

// updateHostEndpoint follows updateItem.
func (c *Calc) updateHostEndpoint(key v3.Key, r v3.Resource) {
	ep := c.locals[key.Name]
	it := c.items[key]
	if it == nil || !it.local {
		c.removeHostEndpoint(ep)
		return
	}
	if ep == nil {
		ep = &endpoint{
			id:       ruleset.EndpointID{Kind: string(key.Kind), Name: key.Name},
			policies: map[*policy]struct{}{},
		}
		c.locals[key.Name] = ep
	}
	ep.spec, ep.item = &r.(*v3.HostEndpoint).Spec, it
	c.useProfiles(ep, it.parents)
	c.staleEndpoints[ep.id.Name] = struct{}{}
	c.unresolved = true
}

func (c *Calc) removeHostEndpoint(ep *endpoint) {
	if ep == nil {
		return
	}
	delete(c.locals, ep.id.Name)
	c.useProfiles(ep, nil)
	for p := range ep.policies {
		delete(p.endpoints, ep)
		c.stalePolicies[p] = struct{}{}
	}
	c.staleEndpoints[ep.id.Name] = struct{}{}
	c.unresolved = true
}

func (c *Calc) useProfiles(ep *endpoint, now []*profile) {
	for _, p := range now {
		p.users++
		c.changedProfiles[p] = struct{}{}
	}
	for _, p := range ep.profiles {
		p.users--
		c.changedProfiles[p] = struct{}{}
	}
	ep.profiles = now
}

// flushEndpoints tells the endpoints that changed.
func (c *Calc) flushEndpoints(d *ruleset.Delta) {
	drain(c.staleEndpoints, func(name string) {
		id := ruleset.EndpointID{Kind: string(v3.KindHostEndpoint), Name: name}
		ep := c.locals[name]
		if ep == nil {
			if c.toldEndpoints[name] != nil {
				d.Endpoints[id] = nil
				delete(c.toldEndpoints, name)
			}
			return
		}
		ordered := c.ordered(ep.policies)
		compiled := &ruleset.Endpoint{
			ID: id, Interfaces: ep.interfaces, Profiles: ep.spec.Profiles,
			Normal: ruleset.Walk{Ingress: c.walk(ordered, ruleset.Ingress), Egress: c.walk(ordered, ruleset.Egress)},
		}
		if !reflect.DeepEqual(compiled, c.toldEndpoints[name]) {
			d.Endpoints[id], c.toldEndpoints[name] = compiled, compiled
		}
	})
}

// resolveInterfaces gives every interface to the endpoint whose name is first among those that want it (spec 2.6). An
// endpoint that names an interface has it before it exists, so that its first packet is covered.
func (c *Calc) resolveInterfaces() {
	if !c.unresolved {
		return
	}
	c.unresolved = false
	carriers := c.carriers()
	owner := map[string]ruleset.EndpointID{}
	for _, name := range slices.Sorted(maps.Keys(c.locals)) {
		ep := c.locals[name]
		var mine []string
		ep.conflicts = nil
		for _, iface := range c.wanted(ep, carriers) {
			first, taken := owner[iface]
			switch {
			case c.settings.IsWorkload(iface):
				ep.conflicts = append(ep.conflicts, fmt.Sprintf("interface %s is a workload's by its name; no host endpoint applies to it", iface))
			case taken:
				ep.conflicts = append(ep.conflicts, fmt.Sprintf("interface %s belongs to %s, whose name is first; remove one of them", iface, first))
			default:
				owner[iface] = ep.id
				mine = append(mine, iface)
			}
		}
		if !slices.Equal(mine, ep.interfaces) {
			ep.interfaces = mine
			c.staleEndpoints[ep.id.Name] = struct{}{}
		}
	}
}

// wanted returns the interfaces that an endpoint is for, in order: the one that it names or, without a name, those that
// carry one of the addresses that it expects.
func (c *Calc) wanted(ep *endpoint, carriers map[netip.Addr][]string) []string {
	if ep.spec.InterfaceName != "" {
		return []string{ep.spec.InterfaceName}
	}
	var names []string
	for _, p := range ep.item.addrs {
		names = append(names, carriers[p.Addr()]...)
	}
	slices.Sort(names)
	return slices.Compact(names)
}

// carriers returns the host's interfaces by address, for endpoints without an interface name.
func (c *Calc) carriers() map[netip.Addr][]string {
	carriers := map[netip.Addr][]string{}
	for name, addrs := range c.ifaces {
		if c.settings.IsWorkload(name) {
			continue
		}
		for _, a := range addrs {
			carriers[a] = append(carriers[a], name)
		}
	}
	return carriers
}
