package lab

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/netip"
	"os"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// A Pod is a network namespace whose eth0 is a cable to a host.
type Pod struct {
	Machine
	host  *Host
	iface string
}

// A Cable says how a pod is attached to its host.
type Cable struct {
	// Interface is the host's end.
	Interface string
	// Addrs are the pod's.
	Addrs []netip.Addr
	// Bridge of the host, made by [Host.AddBridge], that the host's end is a port of. "": the host has a route to each
	// address instead, and the pod has nobody but its host on its wire, as Calico, ptp and others have it.
	Bridge string
}

// hostMAC is what Calico gives the host's ends of its cables, so that every pod has the same gateway.
func hostMAC() net.HardwareAddr { return net.HardwareAddr{0xee, 0xee, 0xee, 0xee, 0xee, 0xee} }

// gateways are what pods that are not on a bridge send to: IPv4 as Calico has it, IPv6 the link-local address of hostMAC.
func gateways() []netip.Addr {
	return []netip.Addr{netip.MustParseAddr("169.254.1.1"), netip.MustParseAddr("fe80::ecee:eeff:feee:eeee")}
}

// Pod adds a pod to the host, which passes on packets from then on. When it returns, the pod reaches its host and is
// reached from there.
func (h *Host) Pod(name string, c Cable) (*Pod, error) {
	ns, err := newNamespace()
	if err != nil {
		return nil, fmt.Errorf("make pod %s: %w", name, err)
	}
	p := &Pod{Machine{name, ns}, h, c.Interface}
	if err := p.attach(c); err != nil {
		ns.close()
		return nil, fmt.Errorf("make pod %s: %w", name, err)
	}
	h.lab.mu.Lock()
	defer h.lab.mu.Unlock()
	if h.lab.closed {
		ns.close()
		return nil, fmt.Errorf("make pod %s: the lab is closed", name)
	}
	h.lab.pods[p] = struct{}{}
	return p, nil
}

// Interface returns the name of the host's end of the cable.
func (p *Pod) Interface() string { return p.iface }

// Remove takes the pod away, its cable and the host's routes to it included. Processes in it are killed.
func (p *Pod) Remove() error {
	err := p.host.RemoveInterface(p.iface)
	p.host.lab.mu.Lock()
	delete(p.host.lab.pods, p)
	p.host.lab.mu.Unlock()
	p.ns.close()
	return err
}

// AddBridge makes a bridge on the host, with the host's addresses on it: pods on it have them as gateways.
func (h *Host) AddBridge(name string, addrs ...netip.Prefix) error {
	snooping := false // see Lab.makeBridge
	bridge := &netlink.Bridge{LinkAttrs: netlink.LinkAttrs{Name: name}, MulticastSnooping: &snooping}
	if err := h.ns.netlink.LinkAdd(bridge); err != nil {
		return fmt.Errorf("add bridge %s to %s: %w", name, h.name, err)
	}
	for _, addr := range addrs {
		if err := h.AddAddress(name, addr); err != nil {
			return err
		}
	}
	return h.onLink("set up", name, h.ns.netlink.LinkSetUp)
}

// FilterBridge makes frames between ports of a bridge pass the hooks of IP, as bridge-nf-call-iptables does for all bridges.
func (h *Host) FilterBridge(name string) error { return h.setFilter(name, 1) }

// UnfilterBridge takes that back.
func (h *Host) UnfilterBridge(name string) error { return h.setFilter(name, 0) }

func (h *Host) setFilter(name string, value byte) error {
	return h.onLink("set the filter of", name, func(link netlink.Link) error {
		message := nl.NewNetlinkRequest(unix.RTM_NEWLINK, unix.NLM_F_ACK)
		header := nl.NewIfInfomsg(unix.AF_UNSPEC)
		header.Index = int32(link.Attrs().Index)
		message.AddData(header)
		info := nl.NewRtAttr(unix.IFLA_LINKINFO, nil)
		info.AddRtAttr(nl.IFLA_INFO_KIND, []byte("bridge"))
		data := info.AddRtAttr(nl.IFLA_INFO_DATA, nil)
		for _, attr := range []int{nl.IFLA_BR_NF_CALL_IPTABLES, nl.IFLA_BR_NF_CALL_IP6TABLES} {
			data.AddRtAttr(attr, []byte{value})
		}
		message.AddData(info)
		return h.Do(func() error {
			_, err := message.Execute(unix.NETLINK_ROUTE, 0)
			return err
		})
	})
}

// SetMaster makes an interface a port of a bridge, or of none.
func (h *Host) SetMaster(name, bridge string) error {
	return h.onLink("make a port of "+bridge, name, func(port netlink.Link) error {
		if bridge == "" {
			return h.ns.netlink.LinkSetNoMaster(port)
		}
		master, err := h.ns.netlink.LinkByName(bridge)
		if err != nil {
			return err
		}
		return h.ns.netlink.LinkSetMaster(port, master)
	})
}

// Hairpin has a port of a bridge hand frames back to where they came from.
func (h *Host) Hairpin(name string) error {
	return h.onLink("hand back by", name, func(port netlink.Link) error { return h.ns.netlink.LinkSetHairpin(port, true) })
}

// attach lays the cable and makes the host pass on what comes over it.
func (p *Pod) attach(c Cable) error {
	if err := p.host.Do(passOn); err != nil {
		return err
	}
	veth := &netlink.Veth{
		LinkAttrs: netlink.LinkAttrs{Name: c.Interface}, PeerName: "eth0", PeerNamespace: netlink.NsFd(p.ns.fd),
	}
	if c.Bridge == "" {
		veth.HardwareAddr = hostMAC()
	}
	if err := p.host.ns.netlink.LinkAdd(veth); err != nil {
		return fmt.Errorf("add %s to %s: %w", c.Interface, p.host.name, err)
	}
	configure := p.route
	if c.Bridge != "" {
		configure = p.join
	}
	if err := configure(c); err != nil {
		return errors.Join(err, p.host.RemoveInterface(c.Interface))
	}
	return nil
}

// raise sets both ends up and returns when they carry packets.
func (p *Pod) raise() error {
	if err := p.onLink("set up", "eth0", p.ns.netlink.LinkSetUp); err != nil {
		return err
	}
	err := p.host.onLink("set up", p.iface, func(link netlink.Link) error {
		if err := p.host.ns.netlink.LinkSetUp(link); err != nil {
			return err
		}
		return p.host.ns.awaitCarrier(link.Attrs().Index)
	})
	if err != nil {
		return err
	}
	return p.onLink("set up", "eth0", func(link netlink.Link) error { return p.ns.awaitCarrier(link.Attrs().Index) })
}

// route gives the pod its addresses and the host a route to each.
func (p *Pod) route(c Cable) error {
	for _, a := range c.Addrs {
		if err := p.AddAddress("eth0", netip.PrefixFrom(a, a.BitLen())); err != nil {
			return err
		}
	}
	if err := p.raise(); err != nil {
		return err
	}
	if err := p.onLink("add routes by", "eth0", p.leaveByHost); err != nil {
		return err
	}
	for _, a := range c.Addrs {
		if err := p.host.AddRoute(p.iface, netip.PrefixFrom(a, a.BitLen())); err != nil {
			return err
		}
	}
	return nil
}

// leaveByHost makes the host the pod's way to everywhere. The host is a fixed neighbour, for it does not have the gateway's
// address and would answer for it only if it had a route to it.
func (p *Pod) leaveByHost(eth0 netlink.Link) error {
	for _, gateway := range gateways() {
		index, family := eth0.Attrs().Index, netlink.FAMILY_V4
		if gateway.Is6() {
			family = netlink.FAMILY_V6
		}
		err := p.ns.netlink.NeighSet(&netlink.Neigh{
			LinkIndex: index, Family: family, State: netlink.NUD_PERMANENT, IP: gateway.AsSlice(), HardwareAddr: hostMAC(),
		})
		if err != nil {
			return err
		}
		everything := netip.PrefixFrom(gateway, 0).Masked()
		err = p.ns.netlink.RouteAdd(&netlink.Route{LinkIndex: index, Dst: ipNet(everything), Gw: gateway.AsSlice(), Flags: unix.RTNH_F_ONLINK})
		if err != nil {
			return err
		}
	}
	return nil
}

// join makes the host's end a port of the bridge. The pod gets addresses within the prefixes of the bridge, which is its way
// to everywhere else.
func (p *Pod) join(c Cable) error {
	bridge, err := p.host.ns.netlink.LinkByName(c.Bridge)
	if err != nil {
		return fmt.Errorf("find bridge %s of %s: %w", c.Bridge, p.host.name, err)
	}
	err = p.host.onLink("make a port of "+c.Bridge, p.iface, func(port netlink.Link) error {
		return p.host.ns.netlink.LinkSetMaster(port, bridge)
	})
	if err != nil {
		return err
	}
	own, err := p.host.ns.netlink.AddrList(bridge, netlink.FAMILY_ALL)
	if err != nil {
		return fmt.Errorf("list addresses of %s: %w", c.Bridge, err)
	}
	ways := map[netip.Addr]netip.Addr{} // to everywhere, by family
	for _, a := range c.Addrs {
		within, gateway, ok := segment(own, a)
		if !ok {
			return fmt.Errorf("%s is in no prefix of %s", a, c.Bridge)
		}
		if err := p.AddAddress("eth0", within); err != nil {
			return err
		}
		ways[netip.PrefixFrom(gateway, 0).Masked().Addr()] = gateway
	}
	if err := p.raise(); err != nil {
		return err
	}
	for everything, gateway := range ways {
		if err := p.AddRouteVia(gateway, netip.PrefixFrom(everything, 0)); err != nil {
			return err
		}
	}
	return nil
}

// segment returns a as an address of the bridge's prefix that holds it, and the bridge's own address there.
func segment(own []netlink.Addr, a netip.Addr) (within netip.Prefix, gateway netip.Addr, ok bool) {
	for _, o := range own {
		addr, _ := netip.AddrFromSlice(o.IP)
		bits, _ := o.Mask.Size()
		if addr = addr.Unmap(); netip.PrefixFrom(addr, bits).Contains(a) {
			return netip.PrefixFrom(a, bits), addr, true
		}
	}
	return netip.Prefix{}, netip.Addr{}, false
}

// passOn makes the thread's namespace pass on packets. A kernel without IPv6 passes on none of it.
func passOn() error {
	for _, parameter := range []string{"ipv4/ip_forward", "ipv6/conf/all/forwarding"} {
		err := os.WriteFile("/proc/sys/net/"+parameter, []byte("1"), 0)
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("set %s: %w", parameter, err)
		}
	}
	return nil
}
