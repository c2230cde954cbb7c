package links

import (
	"context"
	"encoding/binary"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"reflect"
	"runtime"
	"slices"
	"testing"
	"time"

	mdl "github.com/mdlayher/netlink"
	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"
)

// namespace makes a network namespace of the test's own and returns its file descriptor and a handle into it.
func namespace(t *testing.T) (int, *netlink.Handle) {
	t.Helper()
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	home, err := netns.Get()
	if err != nil {
		t.Fatal(err)
	}
	defer home.Close()
	ns, err := netns.New()
	if err != nil {
		t.Fatalf("make a network namespace: %v (needs root)", err)
	}
	if err := netns.Set(home); err != nil {
		t.Fatal(err)
	}
	h, err := netlink.NewHandleAt(ns)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { h.Close(); ns.Close() })
	return int(ns), h
}

// A watch collects what Follow delivers; seen wakes up whoever waits.
type watch struct {
	seen chan map[string][]netip.Addr
	last map[string][]netip.Addr
}

func start(t *testing.T, o Options) *watch {
	t.Helper()
	w := &watch{seen: make(chan map[string][]netip.Addr, 10000)}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- Follow(ctx, o, func(m map[string][]netip.Addr) { w.seen <- m }) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != context.Canceled {
			t.Errorf("Follow returned %v", err)
		}
	})
	return w
}

// until waits for a delivery that satisfies ok.
func (w *watch) until(t *testing.T, what string, ok func(map[string][]netip.Addr) bool) {
	t.Helper()
	deadline := time.After(10 * time.Second)
	for !ok(w.last) {
		select {
		case w.last = <-w.seen:
		case <-deadline:
			t.Fatalf("no delivery shows %s; the last one: %v", what, w.last)
		}
	}
}

func carries(name string, addrs ...string) func(map[string][]netip.Addr) bool {
	want := []netip.Addr{}
	for _, a := range addrs {
		want = append(want, netip.MustParseAddr(a))
	}
	return func(m map[string][]netip.Addr) bool {
		// A link-local address comes by itself when the link is up.
		got := slices.DeleteFunc(slices.Clone(m[name]), netip.Addr.IsLinkLocalUnicast)
		_, there := m[name]
		return there && slices.Equal(got, want)
	}
}

func absent(name string) func(map[string][]netip.Addr) bool {
	return func(m map[string][]netip.Addr) bool {
		_, there := m[name]
		return m != nil && !there
	}
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func address(t *testing.T, cidr string) *netlink.Addr {
	t.Helper()
	a, err := netlink.ParseAddr(cidr)
	must(t, err)
	return a
}

func TestFollow(t *testing.T) {
	ns, h := namespace(t)
	w := start(t, Options{NetNS: ns, Log: slog.New(slog.DiscardHandler)})
	w.until(t, "the loopback interface", carries("lo"))

	must(t, h.LinkAdd(&netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: "eth0"}, PeerName: "peer0"}))
	w.until(t, "a new interface", carries("eth0"))
	link, err := h.LinkByName("eth0")
	must(t, err)

	must(t, h.AddrAdd(link, address(t, "10.100.0.15/24")))
	must(t, h.AddrAdd(link, address(t, "2001:db8::15/64")))
	w.until(t, "both addresses", carries("eth0", "10.100.0.15", "2001:db8::15"))
	must(t, h.AddrDel(link, address(t, "10.100.0.15/24")))
	w.until(t, "the address gone", carries("eth0", "2001:db8::15"))

	local := address(t, "192.0.2.1/32")
	local.Peer = &net.IPNet{IP: net.IPv4(192, 0, 2, 2), Mask: net.CIDRMask(32, 32)}
	must(t, h.AddrAdd(link, local))
	w.until(t, "the local address of a point-to-point link", carries("eth0", "192.0.2.1", "2001:db8::15"))

	must(t, h.LinkSetName(link, "eth9"))
	w.until(t, "the new name", carries("eth9", "192.0.2.1", "2001:db8::15"))
	w.until(t, "the old name gone", absent("eth0"))

	must(t, h.LinkDel(link))
	w.until(t, "the interface gone", absent("eth9"))
	w.until(t, "its peer gone", absent("peer0"))
}

// A burst that overflows the socket's buffer loses messages; the list is made anew and ends right.
func TestFollowAfterLostMessages(t *testing.T) {
	ns, h := namespace(t)
	must(t, h.LinkAdd(&netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: "eth0"}, PeerName: "peer0"}))
	link, err := h.LinkByName("eth0")
	must(t, err)

	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	first, release := make(chan struct{}), make(chan struct{})
	ended := make(chan error, 1)
	var lists int
	var last map[string][]netip.Addr
	go func() {
		o := Options{NetNS: ns, Log: slog.New(slog.DiscardHandler), buffer: 1}
		_, err := follow(ctx, o, interfaces(o, func(m map[string][]netip.Addr) {
			if lists++; lists == 1 {
				close(first)
				<-release
			}
			last = m
		}))
		ended <- err
	}()
	<-first
	for i := range 200 {
		must(t, h.AddrAdd(link, address(t, fmt.Sprintf("10.0.%d.1/24", i))))
	}
	close(release)
	select {
	case err := <-ended:
		if err == nil || ctx.Err() != nil {
			t.Fatalf("follow ended with %v", err)
		}
	case <-time.After(10 * time.Second):
		t.Fatal("follow did not notice that messages were lost")
	}
	if len(last["eth0"]) >= 200 {
		t.Fatal("nothing was lost: the test shows nothing")
	}
	w := start(t, Options{NetNS: ns, Log: slog.New(slog.DiscardHandler)})
	w.until(t, "all addresses", func(m map[string][]netip.Addr) bool { return len(m["eth0"]) == 200 })
}

func linkMessage(kind mdl.HeaderType, family byte, index uint32, name string) mdl.Message {
	data := make([]byte, unix.SizeofIfInfomsg)
	data[0] = family
	binary.NativeEndian.PutUint32(data[4:], index)
	attrs, err := mdl.MarshalAttributes([]mdl.Attribute{{Type: unix.IFLA_IFNAME, Data: append([]byte(name), 0)}})
	if err != nil {
		panic(err)
	}
	return mdl.Message{Header: mdl.Header{Type: kind}, Data: append(data, attrs...)}
}

func addrMessage(kind mdl.HeaderType, index uint32, addr string) mdl.Message {
	data := make([]byte, unix.SizeofIfAddrmsg)
	binary.NativeEndian.PutUint32(data[4:], index)
	attrs, err := mdl.MarshalAttributes([]mdl.Attribute{{Type: unix.IFA_ADDRESS, Data: netip.MustParseAddr(addr).AsSlice()}})
	if err != nil {
		panic(err)
	}
	return mdl.Message{Header: mdl.Header{Type: kind}, Data: append(data, attrs...)}
}

func TestTable(t *testing.T) {
	eth0 := linkMessage(unix.RTM_NEWLINK, unix.AF_UNSPEC, 7, "eth0")
	one := addrMessage(unix.RTM_NEWADDR, 7, "10.0.0.1")
	for name, c := range map[string]struct {
		messages []mdl.Message
		want     string
		changed  bool // by the last message
	}{
		"link":                  {[]mdl.Message{eth0}, "map[eth0:[]]", true},
		"link again":            {[]mdl.Message{eth0, eth0}, "map[eth0:[]]", false},
		"address":               {[]mdl.Message{eth0, one}, "map[eth0:[10.0.0.1]]", true},
		"address again":         {[]mdl.Message{eth0, one, one}, "map[eth0:[10.0.0.1]]", false},
		"address before link":   {[]mdl.Message{one, eth0}, "map[eth0:[10.0.0.1]]", true},
		"address without link":  {[]mdl.Message{one}, "map[]", false},
		"link gone":             {[]mdl.Message{eth0, one, linkMessage(unix.RTM_DELLINK, unix.AF_UNSPEC, 7, "eth0")}, "map[]", true},
		"index used again":      {[]mdl.Message{eth0, one, linkMessage(unix.RTM_DELLINK, unix.AF_UNSPEC, 7, "eth0"), eth0}, "map[eth0:[]]", true},
		"no longer bridge port": {[]mdl.Message{eth0, linkMessage(unix.RTM_DELLINK, unix.AF_BRIDGE, 7, "eth0")}, "map[eth0:[]]", false},
		"rename":                {[]mdl.Message{eth0, one, linkMessage(unix.RTM_NEWLINK, unix.AF_UNSPEC, 7, "lan")}, "map[lan:[10.0.0.1]]", true},
		"address gone":          {[]mdl.Message{eth0, one, addrMessage(unix.RTM_DELADDR, 7, "10.0.0.1")}, "map[eth0:[]]", true},
		"other message":         {[]mdl.Message{{Header: mdl.Header{Type: unix.RTM_NEWROUTE}}}, "map[]", false},
	} {
		t.Run(name, func(t *testing.T) {
			table, changed := newTable(), false
			for _, m := range c.messages {
				var err error
				changed, err = table.apply(m)
				must(t, err)
			}
			if got := fmt.Sprint(table.interfaces()); got != c.want || changed != c.changed {
				t.Errorf("got %s changed %v, want %s %v", got, changed, c.want, c.changed)
			}
		})
	}
}

// A message that cannot be read is an error and changes nothing.
func FuzzApply(f *testing.F) {
	for _, m := range []mdl.Message{linkMessage(unix.RTM_NEWLINK, 0, 3, "x"), addrMessage(unix.RTM_NEWADDR, 3, "fe80::1")} {
		f.Add(uint16(m.Header.Type), m.Data)
	}
	f.Fuzz(func(t *testing.T, kind uint16, data []byte) {
		table := newTable()
		_, _ = table.apply(linkMessage(unix.RTM_NEWLINK, unix.AF_UNSPEC, 3, "eth0"))
		before := table.interfaces()
		changed, err := table.apply(mdl.Message{Header: mdl.Header{Type: mdl.HeaderType(kind)}, Data: data})
		if same := reflect.DeepEqual(before, table.interfaces()); same == changed {
			t.Errorf("changed %v, error %v: %v, then %v", changed, err, before, table.interfaces())
		}
	})
}
