package nft

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os/exec"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"margay/lab"
	"margay/ruleset"
)

// A bridgeLab is a host with pods on a bridge, in the kernel, and the Program for them.
type bridgeLab struct {
	testing.TB
	host    *lab.Host
	program *ruleset.Program
	pods    map[string]*lab.Pod
	*Dataplane
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func newBridgeLab(t testing.TB) *bridgeLab {
	t.Helper()
	l, err := lab.New()
	must(t, err)
	t.Cleanup(l.Close)
	h, err := l.Host("a", netip.MustParsePrefix("10.0.0.1/24"), netip.MustParsePrefix("fd00::1/64"))
	must(t, err)
	must(t, h.AddBridge("cni0", netip.MustParsePrefix("10.66.0.1/24"), netip.MustParsePrefix("fd66::1/64")))
	d, err := Open(Options{NetNS: h.NetNS()})
	must(t, err)
	t.Cleanup(func() { d.Close() })
	return &bridgeLab{TB: t, host: h, program: ruleset.NewProgram(), pods: map[string]*lab.Pod{}, Dataplane: d}
}

// pod adds a pod, 10.66.0.N and fd66::N, and its workload, which all are allowed to reach.
func (b *bridgeLab) pod(name string, n int) *lab.Pod {
	b.Helper()
	addrs := []netip.Addr{netip.AddrFrom4([4]byte{10, 66, 0, byte(n)}), netip.MustParseAddr(fmt.Sprintf("fd66::%x", n))}
	p, err := b.host.Pod(name, lab.Cable{Interface: "veth" + name, Bridge: "cni0", Addrs: addrs})
	must(b, err)
	b.pods[name] = p
	open := []ruleset.Rule{{Action: ruleset.Allow}}
	b.program.Profiles["open"] = &ruleset.Profile{Name: "open", Ingress: open, Egress: open}
	id := workloadID(name)
	b.program.Workloads[id] = &ruleset.Workload{ID: id, Interface: p.Interface(), Bridge: "cni0", Filtered: true, Addrs: addrs,
		Profiles: []string{"open"}}
	return p
}

// reaches reports whether a connection is made within the time.
func reaches(from *lab.Machine, addr string) error {
	ctx, cancel := context.WithTimeout(context.Background(), 700*time.Millisecond)
	defer cancel()
	conn, err := from.Dial(ctx, "tcp", addr)
	if err == nil {
		conn.Close()
	}
	return err
}

func (b *bridgeLab) listen(m *lab.Machine, ports ...int) {
	b.Helper()
	for _, port := range ports {
		l, err := m.Listen("tcp", fmt.Sprintf(":%d", port))
		must(b, err)
		b.Cleanup(func() { l.Close() })
		go func() {
			for {
				c, err := l.Accept()
				if err != nil {
					return
				}
				c.Close()
			}
		}()
	}
}

// A policy allows one port to a pod on a bridge: another pod there reaches it, and no other.
func TestBridgePolicy(t *testing.T) {
	b := newBridgeLab(t)
	must(t, b.host.FilterBridge("cni0"))
	first, second := b.pod("one", 2), b.pod("two", 3)
	b.listen(&second.Machine, 80, 81)
	policy := policyOf("web", ruleset.Rule{Action: ruleset.Allow, Protocol: ruleset.TCP,
		Destination: ruleset.Entity{Ports: &ruleset.Ports{Ranges: []ruleset.PortRange{{First: 80, Last: 80}}}}})
	b.program.Policies[policy.ID] = policy
	w := b.program.Workloads[workloadID("two")]
	w.Normal.Ingress = []ruleset.Tier{{Name: "default", Policies: []ruleset.PolicyID{policy.ID}}}
	resync(t, b.Dataplane, b.program)
	for _, host := range []string{"10.66.0.3", "[fd66::3]"} {
		if err := reaches(&first.Machine, host+":80"); err != nil {
			t.Errorf("%s:80: %v", host, err)
		}
		if reaches(&first.Machine, host+":81") == nil {
			t.Errorf("%s:81 is open", host)
		}
	}
}

// tables lists the tables of the host's namespace as nft(8) reads them.
func (b *bridgeLab) tables(args ...string) string {
	b.Helper()
	needNFT(b)
	cmd := exec.Command("nft", append([]string{"-s", "list"}, args...)...)
	var out strings.Builder
	cmd.Stdout, cmd.Stderr = &out, &out
	must(b, b.host.Run(cmd))
	return out.String()
}

func (b *bridgeLab) nft(args ...string) {
	b.Helper()
	needNFT(b)
	must(b, b.host.Run(exec.Command("nft", args...)))
}

// The table of family bridge is there while it is needed, is found when somebody changes it and put right, survives the agent, and
// goes with clean-up.
func TestBridgeTableLives(t *testing.T) {
	b := newBridgeLab(t)
	must(t, b.host.FilterBridge("cni0"))
	resync(t, b.Dataplane, b.program)
	if out := b.tables("tables"); strings.Contains(out, "bridge") {
		t.Fatalf("nobody needs it: %s", out)
	}
	b.pod("one", 2)
	resync(t, b.Dataplane, b.program)
	if out := b.tables("table", "bridge", "margay"); !strings.Contains(out, "what comes from workloads") || !strings.Contains(out, `"vethone" . 10.66.0.2`) {
		t.Errorf("it reads\n%s", out)
	}
	if n := resync(t, b.Dataplane, b.program); n != 0 {
		t.Errorf("%d messages to a table that is in sync", n)
	}
	before := b.tables("ruleset")
	for _, harm := range [][]string{
		{"flush", "chain", "bridge", "margay", "sends"}, {"add", "rule", "bridge", "margay", "gets", "accept"}, {"delete", "table", "bridge", "margay"},
		{"add", "chain", "bridge", "margay", "mine"}, {"insert", "rule", "bridge", "margay", "prerouting", "accept"},
	} {
		b.nft(harm...)
		select {
		case <-b.Disturbed():
		case <-time.After(20 * time.Second):
			t.Fatalf("%v: nobody noticed", harm)
		}
		resync(t, b.Dataplane, b.program)
		if after := b.tables("ruleset"); after != before {
			t.Errorf("after %v:\n%s\nbefore:\n%s", harm, after, before)
		}
	}
	other, err := Open(Options{NetNS: b.host.NetNS()})
	must(t, err)
	defer other.Close()
	if n := resync(t, other, b.program); n != 0 {
		t.Errorf("%d messages from another that finds it", n)
	}
	clear(b.program.Workloads)
	resync(t, other, b.program)
	if out := b.tables("tables"); strings.Contains(out, "bridge") {
		t.Errorf("the last workload is gone: %s", out)
	}
	b.pod("two", 3)
	resync(t, other, b.program)
	must(t, Cleanup(t.Context(), Options{NetNS: b.host.NetNS()}))
	if out := b.tables("ruleset"); out != "" {
		t.Errorf("after clean-up: %s", out)
	}
}

// The kernel is asked whether it takes a table of family bridge, and nothing comes of it.
func TestNoBridgeFamily(t *testing.T) {
	b := newBridgeLab(t)
	must(t, b.Bridges())
	if out := b.tables("ruleset"); out != "" {
		t.Errorf("it left %s", out)
	}
	b.noBridge = errors.New("no such family")
	b.pod("one", 2)
	resync(t, b.Dataplane, b.program)
	if out := b.tables("tables"); strings.Contains(out, "bridge") {
		t.Errorf("the kernel takes none: %s", out)
	}
}

// While workloads on the bridge come, go and take each other's addresses, what two others are allowed passes, and what they are not
// does not: a question and an answer at a time.
func TestBridgeChangesLoseNothing(t *testing.T) {
	b := newBridgeLab(t)
	must(t, b.host.FilterBridge("cni0"))
	first, second := b.pod("one", 2), b.pod("two", 3)
	udp := func(port uint16) ruleset.Rule {
		return ruleset.Rule{Action: ruleset.Allow, Protocol: ruleset.UDP,
			Destination: ruleset.Entity{Ports: &ruleset.Ports{Ranges: []ruleset.PortRange{{First: port, Last: port}}}}}
	}
	policy := policyOf("dns", udp(80))
	b.program.Policies[policy.ID] = policy
	b.program.Workloads[workloadID("two")].Normal.Ingress = []ruleset.Tier{{Name: "default", Policies: []ruleset.PolicyID{policy.ID}}}
	resync(t, b.Dataplane, b.program)
	open, closed := b.echo(second, "10.66.0.3:80"), b.echo(second, "10.66.0.3:81")
	stop, asked := make(chan struct{}), make(chan int)
	go func() {
		n := 0
		for ; ; n++ {
			select {
			case <-stop:
				asked <- n
				return
			default:
			}
			if err := ask(first, "10.66.0.3:80"); err != nil {
				t.Errorf("question %d: %v", n, err)
				<-stop
				asked <- n
				return
			}
			_ = tell(first, "10.66.0.3:81")
		}
	}()
	for i := range 120 {
		delta := &ruleset.Delta{Workloads: map[ruleset.EndpointID]*ruleset.Workload{}}
		for _, name := range []string{"three", "four"} {
			id, n := workloadID(name), 4+(i+len(name))%3
			w := *b.program.Workloads[workloadID("one")]
			w.ID, w.Interface, w.Addrs = id, "veth"+name, []netip.Addr{netip.AddrFrom4([4]byte{10, 66, 0, byte(n)})}
			if delta.Workloads[id] = &w; (i+len(name))%4 == 0 {
				delta.Workloads[id] = nil
			}
		}
		b.program.Apply(delta)
		must(t, b.Apply(t.Context(), delta))
	}
	close(stop)
	n := <-asked
	if n < 10 || open() != n || closed() != 0 {
		t.Errorf("%d questions, %d came, and %d that are not allowed", n, open(), closed())
	}
	if n := resync(t, b.Dataplane, b.program); n != 0 {
		t.Errorf("%d messages to tables that were in sync", n)
	}
}

func workloadID(name string) ruleset.EndpointID {
	return ruleset.EndpointID{Kind: "WorkloadEndpoint", Namespace: "ns", Name: name}
}

// echo answers at an address of a pod and returns how many questions came.
func (b *bridgeLab) echo(p *lab.Pod, addr string) func() int {
	b.Helper()
	conn, err := p.ListenPacket("udp4", addr)
	must(b, err)
	b.Cleanup(func() { conn.Close() })
	var came atomic.Int64
	go func() {
		buffer := make([]byte, 64)
		for {
			n, from, err := conn.ReadFrom(buffer)
			if err != nil {
				return
			}
			came.Add(1)
			_, _ = conn.WriteTo(buffer[:n], from)
		}
	}()
	return func() int { return int(came.Load()) }
}

// ask sends a datagram by a flow of its own and waits for the answer.
func ask(p *lab.Pod, addr string) error {
	conn, err := p.Dial(context.Background(), "udp4", addr)
	if err != nil {
		return err
	}
	defer conn.Close()
	if _, err := conn.Write([]byte("x")); err != nil {
		return err
	}
	if err := conn.SetReadDeadline(time.Now().Add(20 * time.Second)); err != nil {
		return err
	}
	_, err = conn.Read(make([]byte, 8))
	return err
}

// tell sends a datagram.
func tell(p *lab.Pod, addr string) error {
	conn, err := p.Dial(context.Background(), "udp4", addr)
	if err != nil {
		return err
	}
	defer conn.Close()
	_, err = conn.Write([]byte("x"))
	return err
}
