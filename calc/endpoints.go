package calc

import (
	"net/netip"
	"reflect"
	"slices"

	v3 "margay/api/v3"
	"margay/ruleset"
)

// An endpoint is a host endpoint or a workload of this node.
type endpoint struct {
	id       ruleset.EndpointID
	host     *v3.HostEndpointSpec     // one of these two
	workload *v3.WorkloadEndpointSpec //
	item     *item
	profiles []*profile // as spec.profiles names them, each once
	policies map[*policy]struct{}

	interfaces []string
	way        Way      // to a workload on a bridge
	conflicts  []string // why it does not have an interface that it wants
	contested  bool     // another workload claims its interface
	spoofable  []netip.Prefix
}

// updateEndpoint follows updateItem.
func (c *Calc) updateEndpoint(key v3.Key, r v3.Resource) {
	ep, it := c.locals[key], c.items[key]
	if it == nil || !it.local {
		c.removeEndpoint(ep)
		return
	}
	if ep == nil {
		ep = &endpoint{
			id:       ruleset.EndpointID{Kind: string(key.Kind), Namespace: key.Namespace, Name: key.Name},
			policies: map[*policy]struct{}{},
		}
		c.locals[key] = ep
	}
	wanted := ep.wish()
	ep.item = it
	switch r := r.(type) {
	case *v3.HostEndpoint:
		ep.host = &r.Spec
	case *v3.WorkloadEndpoint:
		ep.workload = &r.Spec
		ep.spoofable = it.prefixes("spec.allowSpoofedSourcePrefixes", r.Spec.AllowSpoofedSourcePrefixes)
	}
	if now := ep.wish(); now.iface != wanted.iface || !slices.Equal(now.addrs, wanted.addrs) {
		ep.contested, c.unresolved = false, true // to be found out anew
	}
	if !ep.contested {
		c.useProfiles(ep, it.parents)
	}
	for p := range ep.policies {
		c.markStale(p) // the endpoint may have other stages
	}
	c.staleEndpoints[key] = struct{}{}
}

// A wish is what the interfaces of an endpoint depend on.
type wish struct {
	iface string
	addrs []netip.Prefix // nil if nothing is known of the endpoint
}

func (ep *endpoint) wish() wish {
	switch {
	case ep.host != nil:
		return wish{ep.host.InterfaceName, ep.item.addrs}
	case ep.workload != nil:
		return wish{ep.workload.InterfaceName, ep.item.addrs}
	}
	return wish{iface: "/"} // no interface has such a name
}

func (c *Calc) removeEndpoint(ep *endpoint) {
	if ep == nil {
		return
	}
	key := ep.item.key
	delete(c.locals, key)
	delete(c.relabelled, ep)
	c.useProfiles(ep, nil)
	for p := range ep.policies {
		delete(p.endpoints, ep)
		c.markStale(p)
	}
	c.staleEndpoints[key] = struct{}{}
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
	drain(c.staleEndpoints, func(key v3.Key) {
		ep := c.locals[key]
		if key.Kind == v3.KindWorkloadEndpoint {
			tell(c.toldWorkloads, key, c.compileWorkload(ep), func(id ruleset.EndpointID, w *ruleset.Workload) { d.Workloads[id] = w })
		} else {
			tell(c.toldEndpoints, key, c.compileHost(ep), func(id ruleset.EndpointID, e *ruleset.Endpoint) { d.Endpoints[id] = e })
		}
	})
}

// tell calls emit with what is now if that is not what was told.
func tell[T any](told map[v3.Key]*T, key v3.Key, now *T, emit func(ruleset.EndpointID, *T)) {
	if reflect.DeepEqual(now, told[key]) {
		return
	}
	emit(ruleset.EndpointID{Kind: string(key.Kind), Namespace: key.Namespace, Name: key.Name}, now)
	if told[key] = now; now == nil {
		delete(told, key)
	}
}

// compileHost returns nil for nil.
func (c *Calc) compileHost(ep *endpoint) *ruleset.Endpoint {
	if ep == nil {
		return nil
	}
	ordered := c.ordered(ep.policies)
	compiled := &ruleset.Endpoint{ID: ep.id, Interfaces: ep.interfaces, Profiles: ep.host.Profiles}
	for _, s := range ep.stages() {
		*compiled.Walk(s) = c.walk(ordered, s)
	}
	return compiled
}

// compileWorkload returns nil for nil.
func (c *Calc) compileWorkload(ep *endpoint) *ruleset.Workload {
	if ep == nil {
		return nil
	}
	compiled := &ruleset.Workload{
		ID: ep.id, Normal: c.walk(c.ordered(ep.policies), ruleset.Normal), Profiles: ep.workload.Profiles, Spoofable: ep.spoofable,
	}
	if len(ep.interfaces) > 0 {
		compiled.Interface = ep.interfaces[0]
	}
	compiled.Bridge, compiled.Filtered = ep.way.Bridge, ep.way.Bridge != "" && ep.way.Unfiltered == ""
	if ep.contested {
		compiled.Normal, compiled.Profiles = ruleset.Walk{}, nil
	}
	for _, p := range ep.item.addrs {
		compiled.Addrs = append(compiled.Addrs, p.Addr())
	}
	return compiled
}

// prefixes returns the prefixes that parse, masked, in order, each once.
func (it *item) prefixes(path string, texts []string) []netip.Prefix {
	other := item{}
	other.addAddrs(path, texts, netip.Prefix.IsValid)
	it.warnings = append(it.warnings, other.warnings...)
	slices.SortFunc(other.addrs, comparePrefixes)
	return slices.Compact(other.addrs)
}
