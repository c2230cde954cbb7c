package links

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"maps"
	"net/netip"
	"slices"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

// A table is what the messages of rtnetlink(7) add up to. Addresses are kept by interface index, because a message
// about an address may name an interface whose own message was lost; it counts once the interface is known.
type table struct {
	names map[uint32]string
	addrs map[uint32]map[netip.Addr]struct{}
	up    map[uint32]bool
}

func newTable() *table {
	return &table{names: map[uint32]string{}, addrs: map[uint32]map[netip.Addr]struct{}{}, up: map[uint32]bool{}}
}

// apply takes in one message and reports whether the table changed. Messages of other types are ignored.
func (t *table) apply(m netlink.Message) (bool, error) {
	switch m.Header.Type {
	case unix.RTM_NEWLINK, unix.RTM_DELLINK:
		return t.applyLink(m)
	case unix.RTM_NEWADDR, unix.RTM_DELADDR:
		return t.applyAddr(m)
	}
	return false, nil
}

// applyLink reads struct ifinfomsg (16 bytes: family, type, index, flags, change) and the attribute IFLA_IFNAME.
func (t *table) applyLink(m netlink.Message) (bool, error) {
	if len(m.Data) < unix.SizeofIfInfomsg {
		return false, fmt.Errorf("parse link message: %d bytes are too short", len(m.Data))
	}
	// Bridge and other families repeat the link's message, deletions included, for a port that goes on to exist.
	if m.Data[0] != unix.AF_UNSPEC {
		return false, nil
	}
	index := binary.NativeEndian.Uint32(m.Data[4:8])
	if m.Header.Type == unix.RTM_DELLINK {
		_, known := t.names[index]
		delete(t.names, index)
		delete(t.addrs, index)
		delete(t.up, index)
		return known, nil
	}
	const ready = unix.IFF_UP | unix.IFF_RUNNING
	up := binary.NativeEndian.Uint32(m.Data[8:12])&ready == ready
	attrs, err := netlink.UnmarshalAttributes(m.Data[unix.SizeofIfInfomsg:])
	if err != nil {
		return false, fmt.Errorf("parse link message: %w", err)
	}
	for _, a := range attrs {
		name := string(bytes.TrimRight(a.Data, "\x00"))
		if a.Type != unix.IFLA_IFNAME || name == "" {
			continue
		}
		changed := t.names[index] != name || t.up[index] != up
		t.names[index], t.up[index] = name, up
		return changed, nil
	}
	return false, nil
}

// applyAddr reads struct ifaddrmsg (8 bytes: family, prefix length, flags, scope, index) and the local address.
func (t *table) applyAddr(m netlink.Message) (bool, error) {
	if len(m.Data) < unix.SizeofIfAddrmsg {
		return false, fmt.Errorf("parse address message: %d bytes are too short", len(m.Data))
	}
	attrs, err := netlink.UnmarshalAttributes(m.Data[unix.SizeofIfAddrmsg:])
	if err != nil {
		return false, fmt.Errorf("parse address message: %w", err)
	}
	addr, ok := localAddr(attrs)
	if !ok {
		return false, nil
	}
	index := binary.NativeEndian.Uint32(m.Data[4:8])
	_, had := t.addrs[index][addr]
	_, linked := t.names[index]
	if m.Header.Type == unix.RTM_DELADDR {
		delete(t.addrs[index], addr)
		return had && linked, nil
	}
	if t.addrs[index] == nil {
		t.addrs[index] = map[netip.Addr]struct{}{}
	}
	t.addrs[index][addr] = struct{}{}
	return !had && linked, nil
}

// localAddr returns IFA_LOCAL, or IFA_ADDRESS where there is none: on a point-to-point link the latter is the peer's.
func localAddr(attrs []netlink.Attribute) (netip.Addr, bool) {
	var found netip.Addr
	for _, a := range attrs {
		addr, ok := netip.AddrFromSlice(a.Data)
		if !ok {
			continue
		}
		switch a.Type {
		case unix.IFA_LOCAL:
			return addr, true
		case unix.IFA_ADDRESS:
			found = addr
		}
	}
	return found, found.IsValid()
}

// running returns the interfaces that are up and can send; nothing of it is shared with the table.
func (t *table) running() map[string]bool {
	all := make(map[string]bool, len(t.names))
	for index, name := range t.names {
		if t.up[index] {
			all[name] = true
		}
	}
	return all
}

// interfaces returns every interface with its addresses in order; nothing of it is shared with the table.
func (t *table) interfaces() map[string][]netip.Addr {
	all := make(map[string][]netip.Addr, len(t.names))
	for index, name := range t.names {
		all[name] = slices.SortedFunc(maps.Keys(t.addrs[index]), netip.Addr.Compare)
	}
	return all
}
