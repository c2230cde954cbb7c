package nft

import (
	"math/rand/v2"
	"net/netip"
	"os"
	"strconv"
	"testing"
	"time"

	"margay/ruleset"
)

// seedOf returns the seed of a randomised test: MARGAY_SEED, or another one every time. It is printed on failure.
func seedOf(t testing.TB) uint64 {
	seed := rand.Uint64()
	if s := os.Getenv("MARGAY_SEED"); s != "" {
		var err error
		if seed, err = strconv.ParseUint(s, 10, 64); err != nil {
			t.Fatal(err)
		}
	}
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("MARGAY_SEED=%d", seed)
		}
	})
	return seed
}

// A tested counts what a differential test has seen.
type tested struct {
	packets, lost, allowed int
	stages                 map[ruleset.Stage]int
	reasons                map[ruleset.Reason]int
	states                 map[ruleset.ConnState]int
	paths                  map[string]int // of the compiler
}

func newTested() *tested {
	return &tested{stages: map[ruleset.Stage]int{}, reasons: map[ruleset.Reason]int{}, states: map[ruleset.ConnState]int{},
		paths: map[string]int{}}
}

// compare programs random Programs and deltas and sends random packets.
func (c *tested) compare(t testing.TB, w *wire, seed uint64, programs int) {
	d := w.open(t)
	defer d.Close()
	g := newGenerator(seed)
	w.id = 0
	for range programs {
		p := g.program()
		d.limits = pick(g, testLimits...)
		resync(t, d, p)
		addTo(c.paths, pathsOf(d.image))
		w.forget(t)
		var old []probe
		for range 3 {
			old = c.packetsOf(t, w, g, p, old)
			delta := g.delta(p)
			p.Apply(delta)
			delta.Sets = ownedSets(delta.Sets)
			if err := d.Apply(t.Context(), delta); err != nil {
				t.Fatal(err)
			}
		}
		if n := resync(t, d, p); n != 0 {
			t.Fatalf("%d messages to a table that was in sync", n)
		}
	}
}

// packetsOf sends packets of before, random packets, then answers to those that passed and errors about them, and then some
// of the first again: each time it compares what becomes of them with what Eval says. It returns packets of flows that
// are known now.
func (c *tested) packetsOf(t testing.TB, w *wire, g generator, p *ruleset.Program, old []probe) (answered []probe) {
	c.send(t, w, p, old)
	probes := make([]probe, 40)
	for i := range probes {
		probes[i].Packet = g.packet()
	}
	passages := c.send(t, w, p, probes)
	var answers, again []probe
	for i := range passages {
		if passages[i].passed && len(answers) < 20 {
			answers = append(answers, g.answer(&passages[i]))
			again = append(again, probe{Packet: passages[i].sent})
		}
	}
	c.send(t, w, p, answers)
	c.send(t, w, p, again[:min(10, len(again))])
	return append(again, answers...)
}

func (c *tested) send(t testing.TB, w *wire, p *ruleset.Program, probes []probe) []passage {
	passages, lost := w.send(t, probes)
	c.lost += lost
	for i := range passages {
		v := passages[i].judge(t, p)
		c.packets++
		c.stages[v.Stage]++
		c.reasons[v.Reason]++
		c.states[passages[i].packet.State]++
		if v.Allowed {
			c.allowed++
		}
	}
	return passages
}

// enough reports whether the test has seen every way of a packet and every verdict.
func (c *tested) enough(t testing.TB) {
	t.Logf("%d packets, %d allowed, %d lost elsewhere, by stage %v, by state %v, by reason %v", c.packets, c.allowed, c.lost,
		c.stages, c.states, c.reasons)
	if c.lost > c.packets/10 || c.allowed < c.packets/20 || c.allowed > c.packets*19/20 {
		t.Error("the packets show too little")
	}
	for s := ruleset.Normal; s <= ruleset.Untracked; s++ {
		if c.stages[s] < c.packets/500 {
			t.Errorf("stage %s decided %d times", s, c.stages[s])
		}
	}
	for s := ruleset.New; s <= ruleset.NotTracked; s++ {
		if c.states[s] < c.packets/500 {
			t.Errorf("state %d came %d times", s, c.states[s])
		}
	}
	for r := ruleset.NoProfile; r <= ruleset.StrangeTunnel; r++ {
		if c.reasons[r] == 0 {
			t.Errorf("reason %q never", r)
		}
	}
}

// The kernel gives every packet the verdict of Eval, for random Programs and packets, after a Resync and after deltas.
func TestVerdictsAreEvals(t *testing.T) {
	programs := 150
	if testing.Short() {
		programs = 50
	}
	c := newTested()
	c.compare(t, newObservedWire(t, interfaces...), seedOf(t), programs)
	c.enough(t)
	t.Logf("paths: %v", c.paths)
}

// What comes in by lo is tracked and may be translated already. An Untracked policy there sees where it was sent to, as Eval
// says; random Programs show that too seldom.
func TestLoopbackUntracked(t *testing.T) {
	w := newObservedWire(t, interfaces...)
	d := w.open(t)
	for _, action := range []ruleset.Action{ruleset.Allow, ruleset.Deny} {
		for _, to := range []netip.Addr{virtual4[0], virtual6[1], translations[0].to4, translations[1].to6} {
			ep := hostEndpoint("lo", "lo")
			rule := ruleset.Rule{Action: action}
			rule.Destination.Nets = []netip.Prefix{netip.PrefixFrom(to, to.BitLen())}
			p := programOf([]*ruleset.Endpoint{ep}, policyOf("p", rule))
			ep.Normal, ep.Untracked = ruleset.Walk{}, ep.Normal
			open := []ruleset.Rule{{Action: ruleset.Allow}}
			p.Profiles["open"] = &ruleset.Profile{Name: "open", Ingress: open, Egress: open}
			ep.Profiles = []string{"open"}
			if action == ruleset.Allow {
				ep.Profiles = nil
				p.Settings.FailsafeEgress = []ruleset.Failsafe{{Protocol: ruleset.UDP, Port: 9091}, {Protocol: ruleset.UDP, Port: 1000}}
			}
			resync(t, d, p)
			w.forget(t)
			for i := range 2 {
				passages, _ := w.send(t, []probe{
					{Packet: ruleset.Packet{Protocol: ruleset.UDP, Src: locals4[2], Dst: virtual4[i], SrcPort: 2000, DstPort: 1000}},
					{Packet: ruleset.Packet{Protocol: ruleset.UDP, Src: locals6[2], Dst: virtual6[i], SrcPort: 2000, DstPort: 1000}}})
				if len(passages) != 4 {
					t.Fatalf("%d passages", len(passages))
				}
				for j := range passages {
					passages[j].judge(t, p)
				}
			}
		}
	}
}

// TestVerdictsAreEvals for as long as MARGAY_FUZZ_TIME says. Each round has a seed of its own, with which TestVerdictsAreEvals repeats it.
func TestVerdictsAreEvalsForLong(t *testing.T) {
	duration, err := time.ParseDuration(os.Getenv("MARGAY_FUZZ_TIME"))
	if err != nil {
		t.Skip("make fuzz-kernel runs this")
	}
	w := newObservedWire(t, interfaces...)
	c := newTested()
	seed := seedOf(t)
	for end := time.Now().Add(duration); time.Now().Before(end); seed++ {
		seed := seed
		func() {
			defer func() {
				if t.Failed() {
					t.Logf("the round with MARGAY_SEED=%d failed", seed)
				}
			}()
			c.compare(t, w, seed, 30)
		}()
	}
	c.enough(t)
	tookAll(t, c.paths)
}
