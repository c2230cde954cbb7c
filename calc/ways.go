package calc

import (
	"fmt"
	"maps"
	"net/netip"
	"slices"

	"margay/ruleset"
)

// A Way leads from this host to a workload.
type Way struct {
	Interface string // the host's end of the workload's cable; "": several ports of Bridge claim the address
	Bridge    string // of this host, of which Interface is a port; "": none
	// Unfiltered is why what passes between ports of Bridge does not pass the hooks of IP; "": it does.
	Unfiltered string
}

// SetWays takes note of the ways to addresses that the kernel knows, in the place of all that it knew before. ways must not be
// changed afterwards.
func (c *Calc) SetWays(ways map[netip.Addr]Way) {
	c.unresolved = c.unresolved || !maps.Equal(ways, c.ways)
	c.ways = ways
}

// hinted reports whether a workload has the interface that it names: one that exists, whatever leads to its addresses, and
// before anything leads to them one that is to come, so that its first packet is covered. The name is that of a workload's, or
// it is for the kernel to say that it is one: whoever may write a workload could name the host's own otherwise.
func (c *Calc) hinted(ep *endpoint) bool {
	hint := ep.workload.InterfaceName
	if hint == "" {
		return false
	}
	if _, exists := c.ifaces[hint]; exists && c.settings.IsWorkload(hint) {
		return true
	}
	return len(c.leading(ep)) == 0
}

// leading returns the interfaces that lead to the addresses of a workload, each once.
func (c *Calc) leading(ep *endpoint) []string {
	var names []string
	for _, p := range ep.item.addrs {
		if w, ok := c.ways[p.Addr()]; ok && w.Interface != "" {
			names = append(names, w.Interface)
		}
	}
	slices.Sort(names)
	return slices.Compact(names)
}

// located gives the interfaces that the kernel found to those workloads that have none by name. Where two claim one, such as
// a pod and the one whose address it has now, the first by name has it, and no policy of either allows anything. owner says
// what is taken already.
func (c *Calc) located(ep *endpoint, owner map[string]*endpoint) []string {
	names := c.leading(ep)
	if len(names) == 0 {
		return nil // not yet
	}
	if len(names) > 1 {
		ep.conflicts = append(ep.conflicts, fmt.Sprintf("its addresses are behind different interfaces (%v), so none of them is the workload's", names))
		return nil
	}
	first := owner[names[0]]
	switch {
	case first == nil:
		owner[names[0]] = ep
		return names
	case first.workload != nil && !c.hinted(first):
		c.contest(first, true)
		first.conflicts = append(first.conflicts, fmt.Sprintf("%s claims the interface %s, too; both are closed until one of them is gone", ep.id, names[0]))
	}
	ep.conflicts = append(ep.conflicts, fmt.Sprintf("interface %s, which leads to it, belongs to %s; nothing reaches it until one of them is gone", names[0], first.id))
	return nil
}

// contest notes whether another workload claims the interface of this one. Then no policy of it allows anything.
func (c *Calc) contest(ep *endpoint, is bool) {
	if ep.contested == is {
		return
	}
	ep.contested = is
	profiles := ep.item.parents
	if is {
		profiles = nil
	}
	c.useProfiles(ep, profiles)
	for p := range ep.policies {
		c.markStale(p)
	}
	c.staleEndpoints[ep.item.key] = struct{}{}
}

// bridgeOf returns the way to a workload whose interface is a port of a bridge, or whose addresses several ports claim; zero if
// it is neither.
func (c *Calc) bridgeOf(ep *endpoint) Way {
	var found Way
	for _, p := range ep.item.addrs {
		w := c.ways[p.Addr()]
		switch {
		case len(ep.interfaces) > 0 && w.Interface == ep.interfaces[0]:
			return w
		case len(ep.interfaces) == 0 && w.Interface == "":
			found = w
		}
	}
	return found
}

// conflictOf is why an endpoint does not have an interface that belongs to another.
func conflictOf(iface string, first ruleset.EndpointID) string {
	return fmt.Sprintf("interface %s belongs to %s, whose name is first; remove one of them", iface, first)
}
