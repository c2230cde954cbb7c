package ipvs

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"os"
	"strconv"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"margay/dataplane/nft"
	"margay/ruleset"
)

// A judge compares a host's kernel with the specification.
type judge struct {
	*host
	plane    *nft.Dataplane
	arrivals *arrival
	port     uint16
	seen     map[string]int // how often on a way a packet was allowed or denied
}

func newJudge(t *testing.T, f family) *judge {
	t.Helper()
	h := newHost(t, f)
	h.serve(t)
	d, err := nft.Open(nft.Options{NetNS: h.NetNS()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { d.Close() })
	return &judge{host: h, plane: d, arrivals: h.countArrivals(t, 8080), port: 10000, seen: map[string]int{}}
}

func (j *judge) enforce(t *testing.T, p *ruleset.Program) {
	t.Helper()
	if err := j.plane.Resync(t.Context(), p); err != nil {
		t.Fatalf("%v\n%s", err, nft.Compile(p))
	}
}

// sends lets the first packet of a flow go a way and reports whether the kernel did what the specification says.
func (j *judge) sends(t *testing.T, program *ruleset.Program, w *way, proto uint8) bool {
	t.Helper()
	j.port++
	want, why := w.allowed(program, w.packets(j.family, proto, j.port, ruleset.New))
	got := w.take(t, j.host, j.arrivals, w.packet(j.family, proto, j.port), want)
	j.seen[fmt.Sprint(w.name, ": ", got)]++
	if got != want {
		t.Errorf("%s, protocol %d: allowed is %v, want %v (%s %s %s %s)", w.name, proto, got, want, why.Reason, why.Endpoint, why.Stage, why.Direction)
	}
	return got == want
}

// Every place for a policy, and every way that a packet can go: what a policy decides there, and which of the addresses it is asked
// about, that of the service or that of the destination behind it.
func TestEveryPolicyDecides(t *testing.T) {
	for _, f := range families() {
		t.Run(f.name, func(t *testing.T) {
			j := newJudge(t, f)
			behind := &ruleset.Ports{Ranges: []ruleset.PortRange{{First: 8080, Last: 8080}}}
			for _, at := range walks() {
				for name, rules := range map[string][]ruleset.Rule{
					"allow":           {{Action: ruleset.Allow}},
					"deny":            {{Action: ruleset.Deny}},
					"deny to service": {{Action: ruleset.Deny, Destination: ruleset.Entity{Nets: []netip.Prefix{netip.PrefixFrom(f.vip, f.vip.BitLen())}}}, {Action: ruleset.Allow}},
					"deny behind it":  {{Action: ruleset.Deny, Protocol: ruleset.UDP, Destination: ruleset.Entity{Ports: behind}}, {Action: ruleset.Allow}},
				} {
					p := program(f, map[walk][]ruleset.Rule{at: rules})
					j.enforce(t, p)
					for _, w := range ways() {
						if !j.sends(t, p, &w, unix.IPPROTO_UDP) {
							t.Fatalf("with %s in %s %s of %s\n%s", name, at.stage, at.dir, at.endpoint, nft.Compile(p))
						}
					}
				}
			}
			j.bothWays(t)
		})
	}
}

// unknown are the ways that nothing can open.
func unknown() map[string]bool {
	return map[string]bool{
		"service of an unknown workload": true, "unknown workload": true, "unknown workload to service here": true,
		"workload with another's address": true,
	}
}

// open are the ways that no policy closes.
func open() map[string]bool { return map[string]bool{"process to service of a workload": true} }

// bothWays checks that the test has seen packets pass and fail on every way, and all that passed.
func (j *judge) bothWays(t *testing.T) {
	t.Helper()
	if n := j.arrivals.late(t); n != 0 {
		t.Errorf("%d packets arrived that seemed to be denied", n)
	}
	for _, w := range ways() {
		if j.seen[w.name+": false"] == 0 && !open()[w.name] || j.seen[w.name+": true"] == 0 && !unknown()[w.name] {
			t.Errorf("%s: denied %d, allowed %d", w.name, j.seen[w.name+": false"], j.seen[w.name+": true"])
		}
	}
}

// Random policies: the kernel's verdict is that of the specification.
func TestVerdictsAreEvals(t *testing.T) {
	seed := uint64(time.Now().UnixNano())
	if s, err := strconv.ParseUint(os.Getenv("MARGAY_SEED"), 10, 64); err == nil {
		seed = s
	}
	for _, f := range families() {
		t.Run(f.name, func(t *testing.T) {
			t.Logf("MARGAY_SEED=%d", seed)
			r := rand.New(rand.NewPCG(seed, 0))
			j := newJudge(t, f)
			for range 60 {
				p := draw(r, f)
				if r.IntN(3) == 0 { // services come and go
					before := draw(r, f)
					before.Settings.IPVS = false
					j.enforce(t, before)
				}
				j.enforce(t, p)
				for _, w := range ways() {
					if !j.sends(t, p, &w, []uint8{unix.IPPROTO_TCP, unix.IPPROTO_UDP}[r.IntN(2)]) {
						t.Fatalf("%s", nft.Compile(p))
					}
				}
			}
			j.bothWays(t)
		})
	}
}

// What belongs to a flow that was allowed passes, whatever policies come: further packets to the service, and replies, to processes of
// the host, too.
func TestKnownFlowsPass(t *testing.T) {
	for _, f := range families() {
		t.Run(f.name, func(t *testing.T) {
			j := newJudge(t, f)
			j.listen(t, unix.IPPROTO_TCP, "node:8080")
			closed := map[walk][]ruleset.Rule{}
			for _, at := range walks() {
				if at.stage != ruleset.Untracked {
					closed[at] = []ruleset.Rule{{Action: ruleset.Deny}}
				}
			}
			for _, w := range ways() {
				if w.out != "lo" && !unknown()[w.name] {
					j.known(t, &w, program(f, nil), program(f, closed))
				}
			}
		})
	}
}

// known begins a flow with one program and goes on with the other.
func (j *judge) known(t *testing.T, w *way, before, after *ruleset.Program) {
	t.Helper()
	j.enforce(t, before)
	if w.in == "" {
		j.knownOfProcess(t, w, after)
		return
	}
	if !j.sends(t, before, w, unix.IPPROTO_TCP) {
		t.FailNow()
	}
	first := w.packet(j.family, unix.IPPROTO_TCP, j.port)
	j.enforce(t, after)
	if w.out != "" { // else a process has answered
		j.left(t, w.in)
		j.arrive(t, w.out, first.answer(j.at(w.to)))
	}
	replies := j.left(t, w.in)
	if len(replies) != 1 || replies[0].src != first.dst || replies[0].dst != first.src || replies[0].flags != synAck {
		t.Fatalf("%s: the reply leaves as %v, want it from %s", w.name, replies, w.dst)
	}
	if !w.take(t, j.host, j.arrivals, replies[0].answer(first.src), true) {
		t.Errorf("%s: the second packet does not pass", w.name)
	}
	if j.sends(t, after, w, unix.IPPROTO_TCP); j.seen[w.name+": false"] == 0 {
		t.Errorf("%s: a new flow passes, so that this test tells nothing", w.name)
	}
}

func (j *judge) knownOfProcess(t *testing.T, w *way, after *ruleset.Program) {
	t.Helper()
	j.port++
	first := w.packet(j.family, unix.IPPROTO_TCP, j.port)
	j.left(t, w.out)
	if err := j.send(t, first.protocol, first.src, first.dst); err != nil {
		t.Fatal(err)
	}
	sent := j.left(t, w.out)
	if len(sent) != 1 || sent[0].dst != j.at(w.to) {
		t.Fatalf("%s: sent is %v", w.name, sent)
	}
	j.enforce(t, after)
	replies := j.countArrivals(t, j.port)
	if j.arrive(t, w.out, sent[0].answer(j.at(w.to))); replies.arrived(t) != 1 {
		t.Errorf("%s: the reply does not arrive", w.name)
	}
}
