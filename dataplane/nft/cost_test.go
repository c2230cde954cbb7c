package nft

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"

	"margay/ruleset"
)

// The Programs of the benchmark: one endpoint with policies of ten rules each, every rule with a set of sources of its own:
// an address, and for every tenth rule a network too.
const rulesOfPolicy = 10

// A shape says what the policies have in common.
type shape uint8

const (
	ports1 shape = iota // every policy has a port of its own
	port1               // all have the same port
)

func (s shape) String() string { return [...]string{"own port each", "one port"}[s] }

const firstPort = 10_000

func (s shape) port(policy int) uint16 {
	if s == port1 {
		return firstPort
	}
	return uint16(firstPort + policy)
}

// sourceOf returns the address that only rule j of policy i allows.
func sourceOf(i, j int) netip.Addr {
	var b [4]byte
	binary.BigEndian.PutUint32(b[:], 10<<24|128<<16+uint32(i*rulesOfPolicy+j))
	return netip.AddrFrom4(b)
}

// protocolOf returns the protocol that rule j of a policy allows.
func protocolOf(j int) uint8 { return [...]uint8{ruleset.TCP, ruleset.UDP}[j%2] }

func scaled(s shape, policies int) *ruleset.Program {
	p := ruleset.NewProgram()
	ep := hostEndpoint("host", "eth0")
	tier := ruleset.Tier{Name: "default"}
	for i := range policies {
		policy := policyOf(fmt.Sprintf("policy-%05d", i))
		for j := range rulesOfPolicy {
			id := ruleset.SetID(fmt.Sprintf("set-%d-%d", i, j))
			set := ruleset.NewSet(ruleset.Addrs, fmt.Sprintf("app == 'a%d-%d'", i, j),
				ruleset.Member{Prefix: netip.PrefixFrom(sourceOf(i, j), 32)})
			if j == 0 {
				var b [4]byte
				binary.BigEndian.PutUint32(b[:], 172<<24|16<<16+uint32(i)<<4)
				set.Add(ruleset.Member{Prefix: netip.PrefixFrom(netip.AddrFrom4(b), 28)})
			}
			p.Sets[id] = set
			rule := ruleset.Rule{Action: ruleset.Allow, Protocol: protocolOf(j), Source: ruleset.Entity{Sets: []ruleset.SetID{id}}}
			rule.Destination.Ports = &ruleset.Ports{Ranges: []ruleset.PortRange{{First: s.port(i), Last: s.port(i)}}}
			policy.Ingress = append(policy.Ingress, rule)
		}
		p.Policies[policy.ID] = policy
		tier.Policies = append(tier.Policies, policy.ID)
	}
	ep.Normal.Ingress = []ruleset.Tier{tier}
	p.Endpoints[ep.ID] = ep
	p.Settings.FailsafeIngress = []ruleset.Failsafe{{Protocol: ruleset.TCP, Port: 22}, {Protocol: ruleset.UDP, Port: 68}}
	return p
}

// A host is a namespace that receives, with a client in another one at the other end of a veth pair.
type host struct {
	name           string
	server, client *namespace
	shape          shape
	policies       []int // whose ports the server listens on
	udp, listeners []int // sockets of the server, per port
	senders        map[netip.Addr]int
	random         *rand.Rand
	next           uint32
	stats          Stats
	buffer         []byte
}

// sampled is the number of policies whose ports are used.
const sampled = 16

func newHost(b *testing.B, name string, s shape, policies int) *host {
	h := &host{name: name, server: newNamespace(b), client: newNamespace(b), shape: s, senders: map[netip.Addr]int{},
		random: rand.New(rand.NewPCG(1, 1)), buffer: make([]byte, 256<<10)}
	for i := range min(sampled, policies) {
		h.policies = append(h.policies, i*policies/min(sampled, policies))
	}
	if err := h.connect(); err != nil {
		b.Fatalf("host %s: %v", name, err)
	}
	b.Cleanup(h.close)
	var err error
	h.server.do(func() { err = h.listen() })
	if err != nil {
		b.Fatalf("host %s: %v", name, err)
	}
	return h
}

func (h *host) close() {
	for _, fd := range slices.Concat(h.udp, h.listeners) {
		if fd > 0 {
			unix.Close(fd)
		}
	}
	for _, fd := range h.senders {
		unix.Close(fd)
	}
}

func cidr(s string) *net.IPNet {
	_, n, err := net.ParseCIDR(s)
	if err != nil {
		panic(err)
	}
	return n
}

// connect makes the veth pair. All of 10.2.0.0/16 is the server, all sources are the client.
func (h *host) connect() error {
	s, err := netlink.NewHandleAt(netns.NsHandle(h.server.fd), unix.NETLINK_ROUTE)
	if err != nil {
		return err
	}
	defer s.Close()
	c, err := netlink.NewHandleAt(netns.NsHandle(h.client.fd), unix.NETLINK_ROUTE)
	if err != nil {
		return err
	}
	defer c.Close()
	pair := &netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: "eth0"}, PeerName: "eth0", PeerNamespace: netlink.NsFd(h.client.fd)}
	if err := s.LinkAdd(pair); err != nil {
		return fmt.Errorf("add veth: %w", err)
	}
	for _, end := range []struct {
		*netlink.Handle
		addr, gateway string
		local, far    []string
	}{
		{s, "10.3.0.1/30", "10.3.0.2", []string{"10.2.0.0/16"}, []string{"10.128.0.0/9", "172.16.0.0/12"}},
		{c, "10.3.0.2/30", "10.3.0.1", []string{"10.128.0.0/9", "172.16.0.0/12"}, []string{"10.2.0.0/16"}},
	} {
		if err := setUpEnd(end.Handle, end.addr, end.gateway, end.local, end.far); err != nil {
			return err
		}
	}
	return nil
}

func setUpEnd(h *netlink.Handle, addr, gateway string, local, far []string) error {
	lo, err := h.LinkByName("lo")
	if err != nil {
		return err
	}
	eth, err := h.LinkByName("eth0")
	if err != nil {
		return err
	}
	a, err := netlink.ParseAddr(addr)
	if err != nil {
		return err
	}
	for _, err := range []error{h.LinkSetUp(lo), h.AddrAdd(eth, a), h.LinkSetUp(eth)} {
		if err != nil {
			return err
		}
	}
	for _, n := range local {
		r := &netlink.Route{Dst: cidr(n), LinkIndex: lo.Attrs().Index, Type: unix.RTN_LOCAL, Table: unix.RT_TABLE_LOCAL,
			Scope: unix.RT_SCOPE_HOST}
		if err := h.RouteAdd(r); err != nil {
			return fmt.Errorf("route %s: %w", n, err)
		}
	}
	for _, n := range far {
		if err := h.RouteAdd(&netlink.Route{Dst: cidr(n), Gw: net.ParseIP(gateway)}); err != nil {
			return fmt.Errorf("route %s: %w", n, err)
		}
	}
	return nil
}

// listen opens a socket of each protocol on the ports of the sampled policies.
func (h *host) listen() error {
	for _, policy := range h.policies {
		port := int(h.shape.port(policy))
		for _, kind := range []int{unix.SOCK_DGRAM, unix.SOCK_STREAM} {
			fd, err := unix.Socket(unix.AF_INET, kind|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
			if err != nil {
				return err
			}
			if err := unix.Bind(fd, &unix.SockaddrInet4{Port: port}); err != nil {
				return fmt.Errorf("bind port %d: %w", port, err)
			}
			if kind == unix.SOCK_DGRAM {
				h.udp = append(h.udp, fd)
				continue
			}
			h.listeners = append(h.listeners, fd)
			if err := unix.Listen(fd, 1024); err != nil {
				return err
			}
		}
		if h.shape == port1 {
			break
		}
	}
	return nil
}

// flow draws a flow that rules allow: the index of a sampled policy's port, the source and the destination.
func (h *host) flow(protocol uint8) (int, netip.Addr, unix.SockaddrInet4) {
	i := h.random.IntN(len(h.policies))
	j := h.random.IntN(rulesOfPolicy/2) * 2
	if protocol == ruleset.UDP {
		j++
	}
	h.next++
	to := unix.SockaddrInet4{Port: int(h.shape.port(h.policies[i])), Addr: [4]byte{10, 2, byte(h.next >> 8), byte(h.next)}}
	if h.shape == port1 {
		return 0, sourceOf(h.policies[i], j), to
	}
	return i, sourceOf(h.policies[i], j), to
}

// sender returns a socket of the client that sends from an address.
func (h *host) sender(from netip.Addr) (fd int, err error) {
	if fd, ok := h.senders[from]; ok {
		return fd, nil
	}
	h.client.do(func() {
		if fd, err = unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0); err == nil {
			err = unix.Bind(fd, &unix.SockaddrInet4{Addr: from.As4()})
		}
	})
	h.senders[from] = fd
	return fd, err
}

// The sizes of a measurement: small, so that a busy neighbour spoils few of them, and many.
const (
	udpFlows    = 500
	tcpConnects = 50
	streamBytes = 16 << 20
	rounds      = 100
)

// clock returns the time that this thread has had a processor. The kernel handles what a thread sends within that, up to
// the socket that it is for; what else the machine does in the meantime is left out.
func clock() time.Duration {
	var t unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_THREAD_CPUTIME_ID, &t); err != nil {
		panic(err)
	}
	return time.Duration(t.Nano())
}

// udpRound sends datagrams, each a new flow, to processes that read them. It returns the time for one.
func (h *host) udpRound() (time.Duration, error) {
	type shot struct {
		fd, port int
		to       unix.SockaddrInet4
	}
	shots := make([]shot, udpFlows)
	for k := range shots {
		port, from, to := h.flow(ruleset.UDP)
		fd, err := h.sender(from)
		if err != nil {
			return 0, err
		}
		shots[k] = shot{fd, port, to}
	}
	var buf [16]byte
	var err error
	var took time.Duration
	h.client.do(func() {
		start := clock()
		for k := range shots {
			s := &shots[k]
			if err = unix.Sendto(s.fd, buf[:1], 0, &s.to); err != nil {
				return
			}
			if _, err = unix.Read(h.udp[s.port], buf[:]); err != nil {
				return
			}
		}
		took = (clock() - start) / udpFlows
	})
	if err != nil {
		return 0, err
	}
	return took, h.forget()
}

// forget empties the table of connections.
func (h *host) forget() error {
	n, err := netlink.NewHandleAt(netns.NsHandle(h.server.fd), unix.NETLINK_NETFILTER)
	if err != nil {
		return err
	}
	defer n.Close()
	return n.ConntrackTableFlush(netlink.ConntrackTable)
}

// tcpRound opens and resets connections.
func (h *host) tcpRound() (time.Duration, error) {
	var err error
	var took time.Duration
	h.client.do(func() {
		start := clock()
		for range tcpConnects {
			if err = h.connectOnce(); err != nil {
				return
			}
		}
		took = (clock() - start) / tcpConnects
	})
	if err != nil {
		return 0, err
	}
	return took, h.forget()
}

func (h *host) connectOnce() error {
	client, server, err := h.open()
	if err != nil {
		return err
	}
	linger := &unix.Linger{Onoff: 1}
	for _, fd := range []int{client, server} {
		if err := unix.SetsockoptLinger(fd, unix.SOL_SOCKET, unix.SO_LINGER, linger); err != nil {
			return err
		}
		unix.Close(fd)
	}
	return nil
}

// open opens a connection from a thread of the client.
func (h *host) open() (client, server int, err error) {
	port, from, to := h.flow(ruleset.TCP)
	if client, err = unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0); err != nil {
		return 0, 0, err
	}
	if err := unix.Bind(client, &unix.SockaddrInet4{Addr: from.As4()}); err != nil {
		return 0, 0, err
	}
	if err := unix.Connect(client, &to); err != nil {
		return 0, 0, fmt.Errorf("connect %v to %v: %w", from, to, err)
	}
	server, _, err = unix.Accept4(h.listeners[port], unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC)
	return client, server, err
}

// streamBuffer is the size of the buffers of a stream: one that the kernel tunes depends on how the connection began.
const streamBuffer = 1 << 20

// streamRound sends through a connection, which is made before.
func (h *host) streamRound() (took time.Duration, err error) {
	h.client.do(func() {
		var client, server int
		if client, server, err = h.open(); err != nil {
			return
		}
		defer unix.Close(client)
		defer unix.Close(server)
		if err = errors.Join(unix.SetNonblock(client, true), unix.SetsockoptInt(client, unix.SOL_SOCKET, unix.SO_SNDBUF, streamBuffer),
			unix.SetsockoptInt(server, unix.SOL_SOCKET, unix.SO_RCVBUF, streamBuffer)); err != nil {
			return
		}
		start := clock()
		for sent, got := 0, 0; got < streamBytes && err == nil; {
			if sent < streamBytes {
				sent += h.move(unix.Write, client, &err)
			}
			got += h.move(unix.Read, server, &err)
		}
		took = clock() - start
	})
	return took, err
}

// move writes or reads as much as goes at once.
func (h *host) move(f func(int, []byte) (int, error), fd int, failed *error) int {
	n, err := f(fd, h.buffer)
	if err != nil && err != unix.EAGAIN {
		*failed = err
	}
	return max(n, 0)
}

// ctOnly programs what every stateful firewall has.
func (h *host) ctOnly() error {
	c, err := nftables.New(nftables.WithNetNSFd(h.server.fd))
	if err != nil {
		return err
	}
	table := c.AddTable(&nftables.Table{Family: nftables.TableFamilyINet, Name: "ct"})
	for name, hook := range map[string]*nftables.ChainHook{"input": nftables.ChainHookInput, "output": nftables.ChainHookOutput} {
		chain := c.AddChain(&nftables.Chain{Table: table, Name: name, Type: nftables.ChainTypeFilter, Hooknum: hook,
			Priority: nftables.ChainPriorityFilter})
		c.AddRule(&nftables.Rule{Table: table, Chain: chain, Exprs: []expr.Any{
			&expr.Ct{Key: expr.CtKeySTATE, Register: 1},
			&expr.Bitwise{SourceRegister: 1, DestRegister: 1, Len: 4,
				Mask: binary.NativeEndian.AppendUint32(nil, ctEstablished|ctRelated), Xor: make([]byte, 4)},
			&expr.Cmp{Op: expr.CmpOpNeq, Register: 1, Data: make([]byte, 4)},
			&expr.Verdict{Kind: expr.VerdictAccept},
		}})
	}
	return c.Flush()
}

// costHosts returns a host without rules, one with the rule that every stateful firewall has, and ours.
func costHosts(b *testing.B) []*host {
	scales := []int{10, 100, 1000, 10_000}
	if testing.Short() {
		scales = []int{10, 100}
	}
	none, ct := newHost(b, "no rules", ports1, 10), newHost(b, "one ct rule", ports1, 10)
	if err := ct.ctOnly(); err != nil {
		b.Fatal(err)
	}
	hosts := []*host{none, ct}
	for _, s := range []shape{ports1, port1} {
		for _, n := range scales {
			h := newHost(b, fmt.Sprintf("%d policies, %s", n, s), s, n)
			d := h.server.open(b)
			start := time.Now()
			p := scaled(s, n)
			resync(b, d, p)
			h.stats = d.Stats()
			fmt.Printf("%-30s %6d rules in %6d chains, %6d elements in %3d sets, made in %v\n", h.name, h.stats.Rules,
				h.stats.Chains, h.stats.Elements, h.stats.Sets, time.Since(start).Round(time.Millisecond))
			d.Close()
			hosts = append(hosts, h)
		}
	}
	return hosts
}

// BenchmarkPacketCost measures what a packet costs, in interleaved rounds on all hosts, and prints medians: of a new flow
// of UDP, of a TCP connection, of a stream. The share is that of the host with one ct rule; the excess is the cost over
// the host without rules, relative to that with ten policies of the same shape.
func BenchmarkPacketCost(b *testing.B) {
	hosts := costHosts(b)
	kinds := []struct {
		name string
		f    func(*host) (time.Duration, error)
	}{{"new UDP flow", (*host).udpRound}, {"TCP connect", (*host).tcpRound}, {"16 MiB of TCP", (*host).streamRound}}
	for _, kind := range kinds {
		took := make([][]time.Duration, len(hosts))
		for round := range rounds + 1 {
			for i, h := range hosts {
				d, err := kind.f(h)
				if err != nil {
					b.Fatalf("%s, %s: %v", kind.name, h.name, err)
				}
				if round > 0 { // the first one warms up
					took[i] = append(took[i], d)
				}
			}
		}
		fmt.Print("\n" + costTable(kind.name, hosts, took))
	}
	b.ReportMetric(0, "ns/op")
}

func median(d []time.Duration) time.Duration {
	sorted := slices.Sorted(slices.Values(d))
	return sorted[len(sorted)/2]
}

func costTable(name string, hosts []*host, took [][]time.Duration) string {
	var t strings.Builder
	fmt.Fprintf(&t, "%-30s %12s %12s %10s %8s\n", name, "median", "over none", "share", "excess")
	var ten time.Duration
	for i, h := range hosts {
		m := median(took[i])
		// Rounds are compared with those of the same time: the machine is not ours alone.
		shares, overs := make([]float64, len(took[i])), make([]time.Duration, len(took[i]))
		for k, d := range took[i] {
			shares[k], overs[k] = float64(took[1][k])/float64(d), d-took[0][k]
		}
		slices.Sort(shares)
		over := median(overs)
		if strings.HasPrefix(h.name, "10 ") {
			ten = over
		}
		excess := ""
		if i > 1 && ten > 0 {
			excess = fmt.Sprintf("%.2f", float64(over)/float64(ten))
		}
		fmt.Fprintf(&t, "%-30s %12v %12v %9.1f%% %8s\n", h.name, m, over, 100*shares[len(shares)/2], excess)
	}
	return t.String()
}
