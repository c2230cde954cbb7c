package lab

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"os/exec"
	"syscall"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// A Host is a network namespace with lo, and eth0 on the lab's switch.
type Host struct {
	Machine
	lab *Lab
}

// A Machine is what hosts and pods have in common: a network namespace in which things run.
type Machine struct {
	name string
	ns   *namespace
}

// Name returns the name given to Lab.Host or Host.Pod.
func (h *Machine) Name() string { return h.name }

// NetNS returns the network namespace as a file descriptor, good until Lab.Close or Pod.Remove.
func (h *Machine) NetNS() int { return h.ns.fd }

// Do runs f in the namespace and returns its error. A panic or t.Fatal in f does what it does in the caller. What
// f opens there stays there; goroutines that f starts do not run there.
func (h *Machine) Do(f func() error) error { return h.ns.do(f) }

// Dial connects to an address and port as numbers; there are no names in a lab. It has the signature of
// net.Dialer.DialContext.
func (h *Machine) Dial(ctx context.Context, network, address string) (net.Conn, error) {
	if _, err := netip.ParseAddrPort(address); err != nil {
		return nil, fmt.Errorf("dial from %s: %w", h.name, err)
	}
	var conn net.Conn
	err := h.Do(func() (err error) {
		conn, err = new(net.Dialer).DialContext(ctx, network, address)
		return err
	})
	return conn, err
}

// Listen listens at ":port" or at an address of its own.
func (h *Machine) Listen(network, address string) (net.Listener, error) {
	var listener net.Listener
	err := h.Do(func() (err error) {
		listener, err = net.Listen(network, address)
		return err
	})
	return listener, err
}

// ListenPacket is Listen for datagrams.
func (h *Machine) ListenPacket(network, address string) (net.PacketConn, error) {
	var conn net.PacketConn
	err := h.Do(func() (err error) {
		conn, err = net.ListenPacket(network, address)
		return err
	})
	return conn, err
}

// HTTPClient returns a client that opens a connection for each request and gives up after timeout.
func (h *Machine) HTTPClient(timeout time.Duration) *http.Client {
	return &http.Client{
		Timeout:   timeout,
		Transport: &http.Transport{DialContext: h.Dial, DisableKeepAlives: true},
	}
}

// Start starts a process there. The caller waits for it with cmd.Wait. It is killed when the lab is closed and
// when this process ends in any way.
func (h *Machine) Start(cmd *exec.Cmd) error {
	if cmd.SysProcAttr == nil {
		cmd.SysProcAttr = &syscall.SysProcAttr{}
	}
	cmd.SysProcAttr.Pdeathsig = syscall.SIGKILL
	if err := h.ns.onKeeper(cmd.Start); err != nil {
		return fmt.Errorf("start %s on %s: %w", cmd.Path, h.name, err)
	}
	return nil
}

// Run is Start and Wait.
func (h *Machine) Run(cmd *exec.Cmd) error {
	if err := h.Start(cmd); err != nil {
		return err
	}
	return cmd.Wait()
}

// AddInterface plugs one more interface into the switch. It is up, with the addresses.
func (h *Host) AddInterface(name string, addrs ...netip.Prefix) error {
	if err := h.lab.plug(h.ns, name); err != nil {
		return fmt.Errorf("plug %s: %w", name, err)
	}
	// Addresses first: the interface is announced as up when it is complete.
	for _, addr := range addrs {
		if err := h.AddAddress(name, addr); err != nil {
			return err
		}
	}
	return h.SetUp(name)
}

// RemoveInterface unplugs and deletes an interface.
func (h *Host) RemoveInterface(name string) error {
	return h.onLink("remove", name, h.ns.netlink.LinkDel)
}

// SetUp sets an interface up and returns when it carries packets.
func (h *Host) SetUp(name string) error {
	return h.onLink("set up", name, func(link netlink.Link) error {
		if err := h.ns.netlink.LinkSetUp(link); err != nil {
			return err
		}
		if err := h.ns.awaitCarrier(link.Attrs().Index); err != nil {
			return err
		}
		return h.lab.sw.awaitCarrier(link.Attrs().ParentIndex)
	})
}

// SetDown sets an interface down. It keeps its IPv4 addresses and loses its routes.
func (h *Machine) SetDown(name string) error {
	return h.onLink("set down", name, h.ns.netlink.LinkSetDown)
}

// AddAddress gives an interface an address, and the route to its prefix.
func (h *Machine) AddAddress(name string, addr netip.Prefix) error {
	return h.onLink("add "+addr.String()+" to", name, func(link netlink.Link) error {
		return h.ns.netlink.AddrAdd(link, &netlink.Addr{IPNet: ipNet(addr), Flags: unix.IFA_F_NODAD})
	})
}

// RemoveAddress takes an address away.
func (h *Machine) RemoveAddress(name string, addr netip.Prefix) error {
	return h.onLink("remove "+addr.String()+" from", name, func(link netlink.Link) error {
		return h.ns.netlink.AddrDel(link, &netlink.Addr{IPNet: ipNet(addr)})
	})
}

// AddRoute makes a prefix reachable on the wire of an interface, without a gateway.
func (h *Machine) AddRoute(name string, prefix netip.Prefix) error {
	return h.onLink("add route to "+prefix.String()+" by", name, func(link netlink.Link) error {
		return h.ns.netlink.RouteAdd(&netlink.Route{
			LinkIndex: link.Attrs().Index, Dst: ipNet(prefix.Masked()), Scope: netlink.SCOPE_LINK,
		})
	})
}

// ReplaceRoute is AddRoute that takes the place of a route to the same prefix, by whatever interface.
func (h *Machine) ReplaceRoute(name string, prefix netip.Prefix) error {
	return h.onLink("replace route to "+prefix.String()+" by", name, func(link netlink.Link) error {
		return h.ns.netlink.RouteReplace(&netlink.Route{
			LinkIndex: link.Attrs().Index, Dst: ipNet(prefix.Masked()), Scope: netlink.SCOPE_LINK,
		})
	})
}

// AddRouteVia makes a prefix reachable by a neighbour that passes it on.
func (h *Machine) AddRouteVia(gateway netip.Addr, prefix netip.Prefix) error {
	err := h.ns.netlink.RouteReplace(&netlink.Route{Dst: ipNet(prefix.Masked()), Gw: gateway.AsSlice()})
	if err != nil {
		return fmt.Errorf("add route to %s by %s to %s: %w", prefix, gateway, h.name, err)
	}
	return nil
}

// onLink does something to an interface.
func (h *Machine) onLink(what, name string, f func(netlink.Link) error) error {
	link, err := h.ns.netlink.LinkByName(name)
	if err == nil {
		err = f(link)
	}
	if err != nil {
		return fmt.Errorf("%s %s of %s: %w", what, name, h.name, err)
	}
	return nil
}

func ipNet(p netip.Prefix) *net.IPNet {
	return &net.IPNet{IP: p.Addr().AsSlice(), Mask: net.CIDRMask(p.Bits(), p.Addr().BitLen())}
}
