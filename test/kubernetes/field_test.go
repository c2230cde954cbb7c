package kubernetes_test

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"maps"
	"math/rand/v2"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"margay/lab"
)

// A field is what packets are sent across: two nodes with nine pods as the API server knows them, and a host that is neither.
//
//	node-1  x/a x/b y/a y/b z/a z/b
//	node-2  x/c y/c z/c
//	outside
//
// Pods are called by namespace and name. Each answers at all ports of [services], and so does the host outside.
type field struct {
	t        testing.TB
	machines map[string]*lab.Machine
	addrs    map[string]netip.Addr
	addrs6   map[string]netip.Addr
	nodes    map[string]string // of pods
	heard    sync.Map          // the tags of SCTP packets that arrived
}

const outside = "outside"

// otherAddr6 is the host outside over IPv6; the nodes are fd00:15::100 and 101, pods fd00:65:NODE::NUMBER.
const otherAddr6 = "fd00:15::66"

// A service is a port to send to.
type service struct {
	protocol string
	port     uint16
}

func (s service) String() string { return fmt.Sprintf("%d/%s", s.port, s.protocol) }

// services are those that every cell is tried with; the others only where they are the matter.
func services() []service { return []service{{"tcp", 80}, {"tcp", 81}, {"udp", 80}, {"udp", 53}} }

func sctpServices() []service { return []service{{"sctp", 80}, {"sctp", 81}} }

// services6 are some of them over IPv6.
func services6() []service { return []service{{"tcp6", 80}, {"udp6", 80}} }

// A cell is one thing to try.
type cell struct {
	from, to string
	service
}

func (c cell) String() string { return fmt.Sprintf("%s > %s %s", c.from, c.to, c.service) }

// newField makes machines and what listens on them. The hosts are given: two nodes, and the one outside; pods are made here, on a
// bridge of their node if it has a name.
func newField(t testing.TB, hosts [3]*lab.Host, bridge string) *field {
	t.Helper()
	f := &field{t: t, machines: map[string]*lab.Machine{"node-1": &hosts[0].Machine, "node-2": &hosts[1].Machine, outside: &hosts[2].Machine},
		addrs:  map[string]netip.Addr{outside: netip.MustParseAddr(otherAddr)},
		addrs6: map[string]netip.Addr{outside: netip.MustParseAddr(otherAddr6)}, nodes: map[string]string{}}
	for i, host := range hosts[:2] {
		if bridge == "" {
			break
		}
		prefixes := []netip.Prefix{netip.MustParsePrefix(fmt.Sprintf("10.65.%d.1/24", i+1)), netip.MustParsePrefix(fmt.Sprintf("fd00:65:%d::1/64", i+1))}
		if err := host.AddBridge(bridge, prefixes...); err != nil {
			t.Fatal(err)
		}
	}
	for i, namespace := range []string{"x", "y", "z"} {
		for j, name := range []string{"a", "b", "c"} {
			on, network := hosts[0], byte(1)
			if name == "c" {
				on, network = hosts[1], 2
			}
			id := namespace + "/" + name
			f.addrs[id], f.nodes[id] = netip.AddrFrom4([4]byte{10, 65, network, byte(10 + 3*i + j)}), on.Name()
			f.addrs6[id] = netip.MustParseAddr(fmt.Sprintf("fd00:65:%d::%d", network, 10+3*i+j))
			pod, err := on.Pod(id, lab.Cable{Interface: "pod" + namespace + name, Addrs: []netip.Addr{f.addrs[id], f.addrs6[id]}, Bridge: bridge})
			if err != nil {
				t.Fatal(err)
			}
			f.machines[id] = &pod.Machine
		}
	}
	for id := range f.addrs {
		f.listen(f.machines[id])
	}
	return f
}

// listen answers at all services of a machine until the test ends.
func (f *field) listen(m *lab.Machine) {
	f.t.Helper()
	for _, s := range services() {
		at := fmt.Sprintf(":%d", s.port)
		if s.protocol == "tcp" {
			l, err := m.Listen("tcp", at)
			if err != nil {
				f.t.Fatal(err)
			}
			f.t.Cleanup(func() { l.Close() })
			go acceptAll(l)
			continue
		}
		c, err := m.ListenPacket("udp", at)
		if err != nil {
			f.t.Fatal(err)
		}
		f.t.Cleanup(func() { c.Close() })
		go echo(c)
	}
	// A kernel without SCTP delivers its packets to raw sockets all the same.
	raw, err := m.ListenPacket("ip4:sctp", "0.0.0.0")
	if err != nil {
		f.t.Fatal(err)
	}
	f.t.Cleanup(func() { raw.Close() })
	go f.hear(raw)
}

func acceptAll(l net.Listener) {
	for {
		c, err := l.Accept()
		if err != nil {
			return // closed
		}
		_ = c.Close()
	}
}

func echo(c net.PacketConn) {
	buffer := make([]byte, 16)
	for {
		n, from, err := c.ReadFrom(buffer)
		if err != nil {
			return // closed
		}
		_, _ = c.WriteTo(buffer[:n], from)
	}
}

// hear notes the tags of INIT chunks.
func (f *field) hear(c net.PacketConn) {
	buffer := make([]byte, 2048)
	for {
		n, _, err := c.ReadFrom(buffer)
		if err != nil {
			return // closed
		}
		if n >= 20 && buffer[12] == 1 {
			f.heard.Store(binary.BigEndian.Uint32(buffer[16:]), true)
		}
	}
}

// initChunk returns an SCTP packet that asks for an association (RFC 9260, 3.3.2).
func initChunk(port uint16, tag uint32) []byte {
	p := make([]byte, 32)
	binary.BigEndian.PutUint16(p, uint16(20000+rand.IntN(40000)))
	binary.BigEndian.PutUint16(p[2:], port)
	p[12], p[15] = 1, 20
	binary.BigEndian.PutUint32(p[16:], tag)
	binary.BigEndian.PutUint32(p[20:], 1<<16)
	binary.BigEndian.PutUint16(p[24:], 1)
	binary.BigEndian.PutUint16(p[26:], 1)
	binary.BigEndian.PutUint32(p[28:], tag)
	binary.LittleEndian.PutUint32(p[8:], crc32.Checksum(p, crc32.MakeTable(crc32.Castagnoli)))
	return p
}

// A try is a packet that was sent.
type try struct {
	cell
	fd  int
	tag uint32 // of SCTP
}

// look tries all cells at once and returns those from which an answer came within the time.
func (f *field) look(cells []cell, patience time.Duration) map[cell]bool {
	f.t.Helper()
	bySource := map[string][]cell{}
	for _, c := range cells {
		bySource[c.from] = append(bySource[c.from], c)
	}
	var mu sync.Mutex
	arrived := map[cell]bool{}
	var wg sync.WaitGroup
	for from, list := range bySource {
		wg.Go(func() {
			err := f.machines[from].Do(func() error {
				got, err := f.send(list, patience)
				mu.Lock()
				defer mu.Unlock()
				maps.Copy(arrived, got)
				return err
			})
			if err != nil {
				f.t.Errorf("send from %s: %v", from, err)
			}
		})
	}
	wg.Wait()
	return arrived
}

// send runs in the source's namespace.
func (f *field) send(cells []cell, patience time.Duration) (map[cell]bool, error) {
	var open []try
	defer func() {
		for _, t := range open {
			_ = unix.Close(t.fd)
		}
	}()
	for _, c := range cells {
		t, err := f.begin(c)
		if err != nil {
			return nil, err
		}
		open = append(open, t)
	}
	arrived := map[cell]bool{}
	for deadline := time.Now().Add(patience); len(arrived) < len(open) && time.Now().Before(deadline); {
		if err := f.await(open, arrived); err != nil {
			return nil, err
		}
	}
	return arrived, nil
}

// begin sends the first packet of a cell.
func (f *field) begin(c cell) (try, error) {
	family, kind, protocol := unix.AF_INET, unix.SOCK_STREAM, 0
	bare, six := strings.CutSuffix(c.protocol, "6")
	var to unix.Sockaddr = &unix.SockaddrInet4{Port: int(c.port), Addr: f.addrs[c.to].As4()}
	if six {
		family, to = unix.AF_INET6, &unix.SockaddrInet6{Port: int(c.port), Addr: f.addrs6[c.to].As16()}
	}
	switch bare {
	case "udp":
		kind = unix.SOCK_DGRAM
	case "sctp":
		kind, protocol = unix.SOCK_RAW, unix.IPPROTO_SCTP
		to = &unix.SockaddrInet4{Addr: f.addrs[c.to].As4()}
	}
	fd, err := unix.Socket(family, kind|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, protocol)
	if err != nil {
		return try{}, err
	}
	t := try{c, fd, rand.Uint32() | 1}
	if err = unix.Connect(fd, to); errors.Is(err, unix.EINPROGRESS) {
		err = nil
	}
	switch {
	case err != nil:
	case bare == "udp":
		_, err = unix.Write(fd, []byte("?"))
	case c.protocol == "sctp":
		_, err = unix.Write(fd, initChunk(c.port, t.tag))
	}
	if errors.Is(err, unix.EPERM) {
		err = nil // the host's own rules dropped it
	}
	if err != nil {
		_ = unix.Close(fd)
		return try{}, fmt.Errorf("%s: %w", c, err)
	}
	return t, nil
}

// await waits for answers for a moment.
func (f *field) await(open []try, arrived map[cell]bool) error {
	var fds []unix.PollFd
	var waiting []try
	for _, t := range open {
		if arrived[t.cell] {
			continue
		}
		if t.protocol == "sctp" {
			if _, heard := f.heard.LoadAndDelete(t.tag); heard {
				arrived[t.cell] = true
			}
			continue
		}
		events := int16(unix.POLLIN)
		if strings.HasPrefix(t.protocol, "tcp") {
			events = unix.POLLOUT
		}
		waiting, fds = append(waiting, t), append(fds, unix.PollFd{Fd: int32(t.fd), Events: events})
	}
	if _, err := unix.Poll(fds, 10); err != nil && !errors.Is(err, unix.EINTR) {
		return err
	}
	for i, t := range waiting {
		switch code, _ := unix.GetsockoptInt(t.fd, unix.SOL_SOCKET, unix.SO_ERROR); {
		case code != 0 || fds[i].Revents&unix.POLLERR != 0:
			time.Sleep(time.Millisecond) // refused or unreachable: no answer will come
		case fds[i].Revents&fds[i].Events != 0:
			arrived[t.cell] = true
		}
	}
	return nil
}

// cells returns everything that is tried: every pod, and who is outside, with every other pod, and nodes with pods.
func (f *field) cells(services []service) []cell {
	var cells []cell
	for to := range f.addrs {
		for from := range f.machines {
			if from == to || to == outside && f.nodes[from] == "" {
				continue
			}
			for _, s := range services {
				cells = append(cells, cell{from, to, s})
			}
		}
	}
	return cells
}

// expect returns for every cell whether it is to be open, by lines FROM > TO [SERVICES]: yes or no, of which the last one
// that fits counts. Without one a cell is open. FROM and TO are names, of which * stands for any part, or several with |.
// From a node to its own pods everything is open, whatever the lines say.
func (f *field) expect(cells []cell, lines string) map[cell]bool {
	f.t.Helper()
	want := map[cell]bool{}
	for _, c := range cells {
		want[c] = true
	}
	for line := range strings.SplitSeq(lines, "\n") {
		if line = strings.TrimSpace(line); line == "" {
			continue
		}
		head, verdict, ok := strings.Cut(line, ": ")
		words := strings.Fields(head)
		if !ok || len(words) < 3 || words[1] != ">" || verdict != "yes" && verdict != "no" {
			f.t.Fatalf("line %q is not FROM > TO [SERVICES]: yes|no", line)
		}
		fits := 0
		for _, c := range cells {
			if !fitsAny(words[0], c.from) || !fitsAny(words[2], c.to) || len(words) > 3 && !slices.Contains(words[3:], c.service.String()) {
				continue
			}
			fits++
			want[c] = verdict == "yes" || f.nodes[c.to] == c.from
		}
		if fits == 0 {
			f.t.Fatalf("line %q fits no cell", line)
		}
	}
	return want
}

func fitsAny(patterns, name string) bool {
	return slices.ContainsFunc(strings.Split(patterns, "|"), func(pattern string) bool { return fits(pattern, name) })
}

// fits matches x/a with itself, x/*, */a and *; names without a slash with themselves and *.
func fits(pattern, name string) bool {
	if pattern == "*" || pattern == name {
		return true
	}
	namespace, pod, ok := strings.Cut(pattern, "/")
	of, is, pods := strings.Cut(name, "/")
	return ok && pods && (namespace == "*" || namespace == of) && (pod == "*" || pod == is)
}

// wrong returns what is not as expected.
func wrong(want, got map[cell]bool) []string {
	var list []string
	for c, open := range want {
		if got[c] != open {
			list = append(list, fmt.Sprintf("%s is open: %v", c, got[c]))
		}
	}
	slices.Sort(list)
	return list
}
