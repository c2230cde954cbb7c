// Package lab makes hosts out of network namespaces, on one machine, for the demo and for tests on the real kernel.
//
//	       switch namespace
//	+---------------------------+
//	|  p1 --- bridge --- p2     |
//	+--|-----------------|------+
//	   | veth            | veth
//	+--|-----+       +---|----+
//	|  eth0  |       |  eth0  |
//	| host a |       | host b |
//	+--|-----+       +--------+
//	   | veth, routed (as Calico's pods) or on a bridge of the host
//	+--|-----+
//	|  eth0  |
//	| pod    |
//	+--------+
//
// The namespaces have no name in the file system and the cables lie between them, never in the machine's own namespace:
// when the process ends, even by SIGKILL, the kernel takes everything away, and the processes that run on the hosts die
// with it. All of it goes through netlink; no other program is called. It needs root.
//
// The package imports nothing else of Margay, and it must not touch anything outside the namespaces it made.
package lab

import (
	"errors"
	"fmt"
	"net/netip"
	"sync"

	"github.com/vishvananda/netlink"
)

// maxPorts is how many interfaces one switch takes (the kernel's BR_MAX_PORTS, 1024, less a few).
const maxPorts = 1000

// A Lab is a switch and the hosts on it. Methods are safe for concurrent use.
type Lab struct {
	sw     *namespace
	bridge netlink.Link

	mu     sync.Mutex
	ports  int // ports ever made; their number names the next one
	hosts  []*Host
	pods   map[*Pod]struct{}
	closed bool
}

// New makes a lab without hosts.
func New() (*Lab, error) {
	sw, err := newNamespace()
	if err != nil {
		return nil, fmt.Errorf("make switch: %w", err)
	}
	l := &Lab{sw: sw, pods: map[*Pod]struct{}{}}
	if err := l.makeBridge(); err != nil {
		sw.close()
		return nil, fmt.Errorf("make switch: %w", err)
	}
	return l, nil
}

func (l *Lab) makeBridge() error {
	// The switch carries frames only. With IPv6 on its ports it would be a neighbour of its own on every cable.
	err := l.sw.do(func() error { return setIPv6("disable_ipv6", "1") })
	if err != nil {
		return err
	}
	// A bridge that snoops multicast drops neighbour solicitations of hosts whose reports it missed.
	snooping := false
	bridge := &netlink.Bridge{LinkAttrs: netlink.LinkAttrs{Name: "bridge"}, MulticastSnooping: &snooping}
	if err := l.sw.netlink.LinkAdd(bridge); err != nil {
		return fmt.Errorf("add bridge: %w", err)
	}
	if l.bridge, err = l.sw.netlink.LinkByName("bridge"); err != nil {
		return fmt.Errorf("find bridge: %w", err)
	}
	return l.sw.netlink.LinkSetUp(l.bridge)
}

// Host adds a host whose interface eth0 is on the switch and carries the addresses. Each prefix also is the route to its
// neighbours. IPv6 addresses are usable at once: duplicate address detection is off.
func (l *Lab) Host(name string, addrs ...netip.Prefix) (*Host, error) {
	ns, err := newNamespace()
	if err != nil {
		return nil, fmt.Errorf("make host %s: %w", name, err)
	}
	h := &Host{Machine{name, ns}, l}
	if err := h.AddInterface("eth0", addrs...); err != nil {
		ns.close()
		return nil, fmt.Errorf("make host %s: %w", name, err)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		ns.close()
		return nil, fmt.Errorf("make host %s: the lab is closed", name)
	}
	l.hosts = append(l.hosts, h)
	return h, nil
}

// plug lays a cable from the switch to a new interface of a host. Both ends are up.
func (l *Lab) plug(ns *namespace, name string) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		return errors.New("the lab is closed")
	}
	if l.ports >= maxPorts {
		return fmt.Errorf("the switch has no port left (%d)", maxPorts)
	}
	l.ports++
	port := &netlink.Veth{
		LinkAttrs:     netlink.LinkAttrs{Name: fmt.Sprintf("p%d", l.ports), MasterIndex: l.bridge.Attrs().Index},
		PeerName:      name,
		PeerNamespace: netlink.NsFd(ns.fd),
	}
	if err := l.sw.netlink.LinkAdd(port); err != nil {
		return fmt.Errorf("add interface: %w", err)
	}
	if err := l.sw.netlink.LinkSetUp(port); err != nil {
		return fmt.Errorf("set port %s up: %w", port.Name, err)
	}
	return nil
}

// Close takes the lab away. Processes that run on its hosts are killed, not waited for; connections and listeners that
// are still open stay with their owners and reach nobody.
func (l *Lab) Close() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		return
	}
	l.closed = true
	for p := range l.pods {
		p.ns.close()
	}
	for _, h := range l.hosts {
		h.ns.close()
	}
	l.sw.close()
}
