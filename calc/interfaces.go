package calc

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"

	v3 "margay/api/v3"
)

// resolveInterfaces gives every interface to the endpoint whose name is first among those that want it, those that
// name it before those to whose addresses it leads.
func (c *Calc) resolveInterfaces() {
	if !c.unresolved {
		return
	}
	c.unresolved = false
	carriers := c.carriers()
	owner := map[string]*endpoint{}
	keys := c.sortedLocals()
	for _, byName := range []bool{true, false} {
		for _, key := range keys {
			ep := c.locals[key]
			if byName != (ep.workload == nil || c.hinted(ep)) {
				continue
			}
			before := ep.interfaces
			ep.conflicts = nil
			c.contest(ep, false)
			if byName {
				ep.interfaces = c.named(ep, c.wanted(ep, carriers), owner)
			} else {
				ep.interfaces = c.located(ep, owner)
			}
			if !slices.Equal(ep.interfaces, before) {
				c.staleEndpoints[key] = struct{}{}
			}
		}
	}
	for _, key := range keys {
		ep := c.locals[key]
		if way := c.bridgeOf(ep); way != ep.way {
			ep.way = way
			c.staleEndpoints[key] = struct{}{}
		}
	}
}

// named gives an endpoint those of the interfaces it wants that it may have and that nobody else has.
func (c *Calc) named(ep *endpoint, wanted []string, owner map[string]*endpoint) []string {
	var mine []string
	for _, iface := range wanted {
		first, taken := owner[iface]
		switch {
		case c.misplaced(ep, iface):
			ep.conflicts = append(ep.conflicts, c.misplacement(ep, iface))
		case taken:
			ep.conflicts = append(ep.conflicts, conflictOf(iface, first.id))
		default:
			owner[iface] = ep
			mine = append(mine, iface)
		}
	}
	return mine
}

func (c *Calc) sortedLocals() []v3.Key {
	keys := make([]v3.Key, 0, len(c.locals))
	for key := range c.locals {
		keys = append(keys, key)
	}
	slices.SortFunc(keys, compareKeys)
	return keys
}

func compareKeys(a, b v3.Key) int {
	return cmp.Or(cmp.Compare(a.Kind, b.Kind), cmp.Compare(a.Namespace, b.Namespace), cmp.Compare(a.Name, b.Name))
}

// misplaced reports whether an endpoint wants an interface that, by its name, is none for its kind.
func (c *Calc) misplaced(ep *endpoint, iface string) bool {
	return c.settings.IsWorkload(iface) != (ep.workload != nil)
}

func (c *Calc) misplacement(ep *endpoint, iface string) string {
	if ep.workload != nil {
		return fmt.Sprintf("interface %s is no workload's by its name (InterfacePrefix says how those begin: %q); no policy of the workload is enforced there", iface, c.settings.WorkloadPrefixes)
	}
	return fmt.Sprintf("interface %s is a workload's by its name; no host endpoint applies to it", iface)
}

// wanted returns the interfaces that an endpoint is for, in order: the one that it names, as a workload here does, or, for a
// host endpoint without a name, those that carry one of the addresses that it expects.
func (c *Calc) wanted(ep *endpoint, carriers map[netip.Addr][]string) []string {
	if ep.workload != nil {
		return []string{ep.workload.InterfaceName}
	}
	if ep.host.InterfaceName != "" {
		return []string{ep.host.InterfaceName}
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
