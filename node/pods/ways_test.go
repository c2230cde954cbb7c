package pods

import (
	"encoding/binary"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"

	"margay/calc"
)

// The interfaces of the tests by their names, which are their indices, too.
var names = []string{"", "lo", "eth0", "cni0", "cali1", "cali2", "veth1", "veth2", "tap1", "far1", "cni1", "veth3"}

func index(t *testing.T, name string) uint32 {
	t.Helper()
	i := slices.Index(names, name)
	if i < 0 {
		t.Fatalf("no interface %s", name)
	}
	return uint32(i)
}

// testTable has lo and eth0; cables cali1 and cali2; bridges cni0 with the ports veth1, veth2 and tap1, cni1 with veth3; far1 is a
// veth whose other end is here.
func testTable(t *testing.T) *table {
	tb := newTable()
	cable := func(name, master string) {
		l := link{name: name, kind: "veth", peer: 2, peerNS: int32(index(t, name))}
		if master != "" {
			l.master = index(t, master)
		}
		tb.links[index(t, name)] = l
		tb.others[index(t, name)] = []netip.Addr{}
	}
	tb.links[index(t, "lo")], tb.links[index(t, "eth0")] = link{name: "lo", peerNS: -1}, link{name: "eth0", peerNS: -1}
	for _, bridge := range []string{"cni0", "cni1"} {
		tb.links[index(t, bridge)] = link{name: bridge, kind: "bridge", peerNS: -1}
	}
	for _, name := range []string{"cali1", "cali2"} {
		cable(name, "")
	}
	cable("veth1", "cni0")
	cable("veth2", "cni0")
	cable("veth3", "cni1")
	tb.links[index(t, "tap1")] = link{name: "tap1", kind: "tun", master: index(t, "cni0"), peerNS: -1}
	tb.links[index(t, "far1")] = link{name: "far1", kind: "veth", peerNS: -1}
	return tb
}

// add reads facts: "route ADDR IFACE [METRIC]" ("via" for a gateway), "carries IFACE ADDR", "silent IFACE" (its other end
// cannot be asked), "neighbour ADDR IFACE MAC [fixed]", "port BRIDGE MAC IFACE".
func add(t *testing.T, tb *table, facts string) {
	t.Helper()
	for _, fact := range strings.Split(facts, "; ") {
		w := strings.Fields(fact)
		if len(w) == 0 {
			continue
		}
		switch w[0] {
		case "route":
			r := route{}
			if w[2] != "via" {
				r.index = index(t, w[2])
			}
			if len(w) > 3 {
				fmt.Sscan(w[3], &r.metric)
			}
			insert(tb.routes, netip.MustParseAddr(w[1]), r, struct{}{})
		case "carries":
			i := index(t, w[1])
			tb.others[i] = append(tb.others[i], netip.MustParseAddr(w[2]))
		case "silent":
			tb.others[index(t, w[1])] = nil
		case "neighbour":
			insert(tb.neighbours, netip.MustParseAddr(w[1]), index(t, w[2]), neighbour{hardware{5: w[3][0]}, len(w) > 4})
		case "port":
			insert(tb.ports, index(t, w[1]), hardware{5: w[2][0]}, index(t, w[3]))
		default:
			t.Fatalf("fact %q", fact)
		}
	}
}

func insert[A, B comparable, V any](m map[A]map[B]V, a A, b B, v V) {
	if m[a] == nil {
		m[a] = map[B]V{}
	}
	m[a][b] = v
}

func TestWays(t *testing.T) {
	for _, c := range []struct{ name, facts, want string }{
		{"nothing", "", ""},
		{"a route", "route 10.0.0.1 cali1", "10.0.0.1 cali1"},
		{"a route of IPv6", "route fd00::1 cali1", "fd00::1 cali1"},
		{"both families", "route 10.0.0.1 cali1; route fd00::1 cali1", "10.0.0.1 cali1, fd00::1 cali1"},
		{"a route to no cable", "route 10.0.0.1 eth0", ""},
		{"a route to a veth whose other end is here", "route 10.0.0.1 far1", ""},
		{"a route by a gateway", "route 10.0.0.1 via", ""},
		{"the lowest metric", "route 10.0.0.1 cali1 20; route 10.0.0.1 cali2 10", "10.0.0.1 cali2"},
		{"the lowest metric is elsewhere", "route 10.0.0.1 cali1 20; route 10.0.0.1 via 10", ""},
		{"two of one metric", "route 10.0.0.1 cali1; route 10.0.0.1 cali2", ""},
		{"a route to an interface that is not known", "route 10.0.0.1 lo", ""},
		{"an address at the other end", "carries cali1 10.0.0.1", "10.0.0.1 cali1"},
		{"at two", "carries cali1 10.0.0.1; carries cali2 10.0.0.1", ""},
		{"at two, and a route", "carries cali1 10.0.0.1; carries cali2 10.0.0.1; route 10.0.0.1 cali2", "10.0.0.1 cali2"},
		{"a route elsewhere counts more", "carries cali1 10.0.0.1; route 10.0.0.1 via", ""},
		{"a port's other end", "carries veth1 10.0.0.1", "10.0.0.1 veth1@cni0"},
		{"two ports", "carries veth1 10.0.0.1; carries veth2 10.0.0.2", "10.0.0.1 veth1@cni0, 10.0.0.2 veth2@cni0"},
		{"a route to a bridge, its port", "route 10.0.0.1 cni0; carries veth1 10.0.0.1", "10.0.0.1 veth1@cni0"},
		{"a route to a bridge, another's port", "route 10.0.0.1 cni0; carries veth3 10.0.0.1", ""},
		{"a route to a bridge decides between two", "route 10.0.0.1 cni0; carries veth1 10.0.0.1; carries veth3 10.0.0.1", "10.0.0.1 veth1@cni0"},
		{"a neighbour on a cable, fixed", "neighbour 10.0.0.1 cali1 a fixed", "10.0.0.1 cali1"},
		{"learned, and the other end says that it is not its", "neighbour 10.0.0.1 cali1 a", ""},
		{"learned, and the other end says nothing", "silent cali1; neighbour 10.0.0.1 cali1 a", "10.0.0.1 cali1"},
		{"learned, a tap", "neighbour 10.0.0.1 cni0 a; port cni0 a tap1", "10.0.0.1 tap1@cni0"},
		{"learned, a port that can be asked", "neighbour 10.0.0.1 cni0 a; port cni0 a veth1", ""},
		{"fixed, but learned behind a port that can be asked", "neighbour 10.0.0.1 cni0 a fixed; port cni0 a veth1", ""},
		{"learned, a port that cannot", "silent veth1; neighbour 10.0.0.1 cni0 a; port cni0 a veth1", "10.0.0.1 veth1@cni0"},
		{"learned, the port is not", "neighbour 10.0.0.1 cni0 a; port cni0 b tap1", ""},
		{"forged: the owner is known", "carries veth1 10.0.0.1; neighbour 10.0.0.1 cni0 a; port cni0 a tap1", "10.0.0.1 veth1@cni0"},
		{"neighbours on two", "silent cali1; silent cali2; neighbour 10.0.0.1 cali1 a; neighbour 10.0.0.1 cali2 a", ""},
		{"fixed before learned", "silent cali1; neighbour 10.0.0.1 cali1 a; neighbour 10.0.0.1 cali2 a fixed", "10.0.0.1 cali2"},
		{"a neighbour on the wire", "neighbour 10.0.0.1 eth0 a", ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			tb := testTable(t)
			add(t, tb, c.facts)
			if got := text(tb.ways(nil)); got != c.want {
				t.Errorf("%s, want %s", got, c.want)
			}
		})
	}
}

// text shows ways in the order of the addresses.
func text(ways map[netip.Addr]calc.Way) string {
	var list []string
	for _, a := range slices.SortedFunc(maps.Keys(ways), netip.Addr.Compare) {
		w := a.String() + " " + ways[a].Interface
		if ways[a].Bridge != "" {
			w += "@" + ways[a].Bridge
		}
		list = append(list, w)
	}
	return strings.Join(list, ", ")
}

// TestForgotten: what leads to an interface that is gone, or down, leads nowhere, and its index may be another's.
func TestForgotten(t *testing.T) {
	const facts = "route 10.0.0.1 cali1; carries veth1 10.0.0.2; neighbour 10.0.0.3 cali2 a fixed; neighbour 10.0.0.4 cni0 b; port cni0 b tap1"
	tb := testTable(t)
	add(t, tb, facts)
	if got, want := text(tb.ways(nil)), "10.0.0.1 cali1, 10.0.0.2 veth1@cni0, 10.0.0.3 cali2, 10.0.0.4 tap1@cni0"; got != want {
		t.Fatalf("%s, want %s", got, want)
	}
	for _, name := range []string{"cali1", "veth1", "cali2", "tap1"} {
		before := tb.links[index(t, name)]
		tb.forget(index(t, name))
		tb.links[index(t, name)] = before
	}
	if got := text(tb.ways(nil)); got != "" {
		t.Errorf("left: %s", got)
	}
	for a, m := range tb.routes {
		t.Errorf("%s: %v", a, m)
	}
}

// linkMessage is a message of the kernel about an interface.
func linkMessage(index, flags uint32, attrs ...netlink.Attribute) netlink.Message {
	body := make([]byte, unix.SizeofIfInfomsg)
	binary.NativeEndian.PutUint32(body[4:8], index)
	binary.NativeEndian.PutUint32(body[8:12], flags)
	encoded, err := netlink.MarshalAttributes(attrs)
	if err != nil {
		panic(err)
	}
	return netlink.Message{Header: netlink.Header{Type: unix.RTM_NEWLINK}, Data: append(body, encoded...)}
}

func TestDownForgetsRoutes(t *testing.T) {
	tb := testTable(t)
	add(t, tb, "route 10.0.0.1 cali1")
	changed, err := tb.apply(linkMessage(index(t, "cali1"), 0, netlink.Attribute{Type: unix.IFLA_IFNAME, Data: []byte("cali1\x00")}))
	if err != nil || !changed || len(tb.routes) > 0 {
		t.Errorf("%v, %v, %v", changed, err, tb.routes)
	}
}

func TestDamagedMessages(t *testing.T) {
	for _, kind := range []netlink.HeaderType{unix.RTM_NEWLINK, unix.RTM_DELLINK, unix.RTM_NEWROUTE, unix.RTM_DELROUTE, unix.RTM_NEWNEIGH, unix.RTM_DELNEIGH} {
		for _, data := range [][]byte{nil, make([]byte, 7), append(make([]byte, 16), 1, 0, 1, 0), append(make([]byte, 12), 3, 0, 1, 0)} {
			tb := testTable(t)
			add(t, tb, "route 10.0.0.1 cali1")
			_, err := tb.apply(netlink.Message{Header: netlink.Header{Type: kind}, Data: data})
			if err == nil && text(tb.ways(nil)) != "10.0.0.1 cali1" {
				t.Errorf("%d of %x changed something", kind, data)
			}
		}
	}
	if changed, err := newTable().apply(netlink.Message{Header: netlink.Header{Type: unix.RTM_NEWADDR}}); changed || err != nil {
		t.Errorf("a message of another type: %v, %v", changed, err)
	}
}

// TestBridgeFault: what a bridge says of itself, and what the kernel lacks, is why what passes between its ports is not filtered.
func TestBridgeFault(t *testing.T) {
	for _, c := range []struct {
		name             string
		four, six, vlans uint8
		filterless       bool
		want             string
	}{
		{name: "neither", want: Unasked},
		{name: "IPv4 only", four: 1, want: Unasked},
		{name: "IPv6 only", six: 1, want: Unasked},
		{name: "both", four: 1, six: 1},
		{name: "VLANs", four: 1, six: 1, vlans: 1, want: withVLANs},
		{name: "no br_netfilter", four: 1, six: 1, filterless: true, want: noFilter},
	} {
		t.Run(c.name, func(t *testing.T) {
			list := func(attrs ...netlink.Attribute) []byte {
				b, err := netlink.MarshalAttributes(attrs)
				if err != nil {
					t.Fatal(err)
				}
				return b
			}
			data := list(netlink.Attribute{Type: unix.IFLA_BR_VLAN_FILTERING, Data: []byte{c.vlans}},
				netlink.Attribute{Type: unix.IFLA_BR_NF_CALL_IPTABLES, Data: []byte{c.four}},
				netlink.Attribute{Type: unix.IFLA_BR_NF_CALL_IP6TABLES, Data: []byte{c.six}})
			info := list(netlink.Attribute{Type: unix.IFLA_INFO_KIND, Data: []byte("bridge\x00")}, netlink.Attribute{Type: unix.IFLA_INFO_DATA, Data: data})
			body := list(netlink.Attribute{Type: unix.IFLA_IFNAME, Data: []byte("cni0\x00")}, netlink.Attribute{Type: unix.IFLA_LINKINFO, Data: info})
			head := make([]byte, unix.SizeofIfInfomsg)
			head[4] = byte(index(t, "cni0"))
			tb := testTable(t)
			if _, err := tb.apply(netlink.Message{Header: netlink.Header{Type: unix.RTM_NEWLINK}, Data: append(head, body...)}); err != nil {
				t.Fatal(err)
			}
			tb.filterless = c.filterless
			add(t, tb, "carries veth1 10.0.0.1")
			if got := tb.ways(nil)[netip.MustParseAddr("10.0.0.1")].Unfiltered; got != c.want {
				t.Errorf("%q, want %q", got, c.want)
			}
		})
	}
}
