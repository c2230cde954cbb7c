package ipvs

import (
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// ports are those of services and destinations.
var ports = []uint16{80, 81, 82, 83, 8080, 30080}

type named struct {
	name string
	addr netip.Addr
}

// names of addresses in the words of tests.
func (f family) names() []named {
	return []named{{"client", f.client}, {"node", f.node}, {"vip", f.vip}, {"backend", f.backend}, {"inside", f.inside}, {"pod", f.pod}, {"mod", f.mod},
		{"stray", f.stray}, {"nobody", f.nobody}}
}

// serve adds the services of the tests.
func (h *host) serve(t *testing.T) {
	t.Helper()
	for _, proto := range []uint8{unix.IPPROTO_TCP, unix.IPPROTO_UDP} {
		for _, at := range [][2]string{
			{"vip:80", "backend:8080"}, {"vip:81", "node:8080"}, {"vip:82", "mod:8080"}, {"vip:83", "pod:8080"}, {"vip:84", "client:8080"},
			{"vip:85", "stray:8080"}, {"node:30080", "backend:8080"}, {"node:30082", "mod:8080"},
		} {
			h.add(t, service{proto, h.at(at[0]), h.at(at[1])})
		}
	}
}

// A situation is packets that come to a host one after the other, and what is seen of each.
type situation struct {
	name  string
	steps []step
	// only is the protocol if there are not two: where it depends on timing how many packets TCP needs.
	only uint8
}

type step struct {
	does func(*testing.T, *host, uint8)
	seen string // a line for each chain, see watcher.seen
	tcp  string // with TCP, which a process answers, also this
}

// in lets a packet arrive, in the words of tests: "client:40000", "vip:80".
func in(device, src, dst string, flags byte) func(*testing.T, *host, uint8) {
	return func(t *testing.T, h *host, proto uint8) {
		// Who begins counts from 1, the other from 101.
		numbers := map[byte][2]uint32{syn: {1, 0}, synAck: {101, 2}, ack: {2, 102}}[flags]
		h.arrive(t, device, packet{proto, h.at(src), h.at(dst), flags, numbers[0], numbers[1]})
	}
}

// out has a process send.
func out(dst string) func(*testing.T, *host, uint8) {
	return func(t *testing.T, h *host, proto uint8) {
		if err := h.send(t, proto, netip.AddrPort{}, h.at(dst)); err != nil {
			t.Errorf("send to %s: %v", dst, err)
		}
	}
}

func (f family) at(s string) netip.AddrPort {
	name, port, _ := strings.Cut(s, ":")
	for _, n := range f.names() {
		if n.name == name {
			p, err := strconv.ParseUint(port, 10, 16)
			if err != nil {
				panic(err)
			}
			return netip.AddrPortFrom(n.addr, uint16(p))
		}
	}
	panic("no address is called " + name)
}

// What the compiler of dataplane/nft relies on where IPVS balances.
func TestWhatPacketsLookLike(t *testing.T) { compare(t, "1", tracked()) }

// It is told here what it is not to rely on: without net.ipv4.vs.conntrack, nothing remembers what was allowed.
func TestWhatPacketsLookLikeUntracked(t *testing.T) { compare(t, "0", untracked()) }

func compare(t *testing.T, conntrack string, list []situation) {
	for _, s := range list {
		for _, f := range families() {
			for _, proto := range []uint8{unix.IPPROTO_TCP, unix.IPPROTO_UDP} {
				if s.only != 0 && s.only != proto {
					continue
				}
				t.Run(fmt.Sprintf("%s/%s/%d", s.name, f.name, proto), func(t *testing.T) {
					h := newHost(t, f)
					h.serve(t)
					if err := h.Do(func() error { return h.sysctl("ipv4/vs/conntrack", conntrack) }); err != nil {
						t.Fatal(err)
					}
					h.compare(t, proto, s.steps)
				})
			}
		}
	}
}

func (h *host) compare(t *testing.T, proto uint8, steps []step) {
	w := h.watch(t)
	h.listen(t, proto, "node:8080")
	w.seen()
	for i, s := range steps {
		s.does(t, h, proto)
		want := lines(s.seen)
		if proto == unix.IPPROTO_TCP {
			want = append(want, lines(s.tcp)...)
		}
		if got := w.seen(); !slices.Equal(got, want) {
			t.Errorf("step %d: seen\n\t%s\nwant\n\t%s", i+1, strings.Join(got, "\n\t"), strings.Join(want, "\n\t"))
		}
	}
}

// lines returns those that are not empty, without the space around them.
func lines(s string) []string {
	var out []string
	for line := range strings.Lines(s) {
		if line = strings.TrimSpace(line); line != "" {
			out = append(out, line)
		}
	}
	return out
}

// Services work here: otherwise what tests find denied might be lost.
func TestServicesWork(t *testing.T) {
	for _, f := range families() {
		for _, proto := range []uint8{unix.IPPROTO_TCP, unix.IPPROTO_UDP} {
			t.Run(fmt.Sprintf("%s/%d", f.name, proto), func(t *testing.T) {
				h := newHost(t, f)
				h.serve(t)
				leaves := func(device, src, dst string) {
					t.Helper()
					got := h.left(t, device)
					if len(got) != 1 || got[0].src != h.at(src) || got[0].dst != h.at(dst) || got[0].protocol != proto {
						t.Fatalf("by %s leaves %v, want from %s to %s", device, got, src, dst)
					}
				}
				in("wan", "client:40000", "vip:80", syn)(t, h, proto)
				leaves("lan", "client:40000", "backend:8080")
				in("lan", "backend:8080", "client:40000", synAck)(t, h, proto)
				leaves("wan", "vip:80", "client:40000")
				in("cali1", "pod:40000", "vip:82", syn)(t, h, proto)
				leaves("cali2", "pod:40000", "mod:8080")
			})
		}
	}
}
