package pods

import (
	"fmt"
	"os"
	"runtime"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

// Why frames between ports of a bridge do not pass the hooks of IP, see [calc.Way].
const (
	// Unasked: nobody told the bridge that they are to. [FilterBridge] does.
	Unasked   = "its nf_call_iptables and nf_call_ip6tables are not both 1"
	noFilter  = "the kernel has no br_netfilter (modprobe br_netfilter, and name it in /etc/modules-load.d)"
	withVLANs = "it filters VLANs (vlan_filtering is 1), which is not supported: an address would not mean one pod"
)

// bridgeFault returns why what passes between ports of a bridge is not seen by the hooks of IP; "": it is.
func (t *table) bridgeFault(bridge link) string {
	switch {
	case t.filterless:
		return noFilter
	case bridge.vlans:
		return withVLANs
	case !bridge.calls:
		return Unasked
	}
	return ""
}

// readBridge reads what a bridge says of itself.
func (l *link) readBridge(info []byte) {
	attrs, err := netlink.UnmarshalAttributes(info)
	if err != nil {
		return
	}
	var four, six bool
	for _, a := range attrs {
		if a.Type != unix.IFLA_INFO_DATA {
			continue
		}
		data, err := netlink.UnmarshalAttributes(a.Data)
		if err != nil {
			return
		}
		for _, d := range data {
			on := len(d.Data) == 1 && d.Data[0] != 0
			switch d.Type {
			case unix.IFLA_BR_NF_CALL_IPTABLES:
				four = on
			case unix.IFLA_BR_NF_CALL_IP6TABLES:
				six = on
			case unix.IFLA_BR_VLAN_FILTERING:
				l.vlans = on
			}
		}
	}
	l.calls = four && six
}

// hasFilter reports whether br_netfilter is there: its parameters are, even where it is off by them.
func (o Options) hasFilter() bool {
	if o.NetNS == 0 {
		return filterThere()
	}
	found := make(chan bool)
	go func() {
		// The thread stays locked and ends with the goroutine: it is in another namespace.
		runtime.LockOSThread()
		found <- unix.Setns(o.NetNS, unix.CLONE_NEWNET) == nil && filterThere()
	}()
	return <-found
}

func filterThere() bool {
	_, err := os.Stat("/proc/sys/net/bridge/bridge-nf-call-iptables")
	return err == nil
}

// FilterBridge makes what passes between ports of a bridge pass the hooks of IP, whatever net.bridge.bridge-nf-call-iptables says
// for all bridges. The kernel announces it.
func FilterBridge(o Options, name string) error {
	conn, err := netlink.Dial(unix.NETLINK_ROUTE, &netlink.Config{NetNS: o.NetNS})
	if err != nil {
		return fmt.Errorf("have bridge %s filtered: %w", name, err)
	}
	defer conn.Close()
	attrs := netlink.NewAttributeEncoder()
	attrs.String(unix.IFLA_IFNAME, name)
	attrs.Nested(unix.IFLA_LINKINFO, func(info *netlink.AttributeEncoder) error {
		info.String(unix.IFLA_INFO_KIND, "bridge")
		info.Nested(unix.IFLA_INFO_DATA, func(data *netlink.AttributeEncoder) error {
			data.Uint8(unix.IFLA_BR_NF_CALL_IPTABLES, 1)
			data.Uint8(unix.IFLA_BR_NF_CALL_IP6TABLES, 1)
			return nil
		})
		return nil
	})
	body, err := attrs.Encode()
	if err == nil {
		_, err = conn.Execute(netlink.Message{
			Header: netlink.Header{Type: unix.RTM_NEWLINK, Flags: netlink.Request | netlink.Acknowledge},
			Data:   append(make([]byte, unix.SizeofIfInfomsg), body...),
		})
	}
	if err != nil {
		return fmt.Errorf("have bridge %s filtered: %w (CAP_NET_ADMIN is needed)", name, err)
	}
	return nil
}

// holder returns the one of several cables with an address at their other ends that is told to have it; 0: none. Who gives
// itself an address that another has does not take it away.
func (t *table) holder(claims []uint32, told string) uint32 {
	for _, index := range claims {
		if told != "" && t.links[index].name == told {
			return index
		}
	}
	return 0
}

// disputed returns the bridge of which one of several cables is a port; "": none.
func (t *table) disputed(claims []uint32) string {
	for _, index := range claims {
		if master := t.links[t.links[index].master]; master.kind == "bridge" {
			return master.name
		}
	}
	return ""
}
