package nft

import (
	"math/rand/v2"
	"os"
	"strconv"
	"testing"

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
}

// compare programs random Programs and deltas and sends random packets, until more reports false.
func (c *tested) compare(t testing.TB, seed uint64, more func() bool) {
	w := newObservedWire(t, interfaces...)
	d := w.open(t)
	g := newGenerator(seed)
	c.stages, c.reasons, c.states = map[ruleset.Stage]int{}, map[ruleset.Reason]int{}, map[ruleset.ConnState]int{}
	for more() {
		p := g.program()
		resync(t, d, p)
		w.forget(t)
		for range 3 {
			c.packetsOf(t, w, g, p)
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

// packetsOf sends random packets, then answers to those that passed and errors about them, and then some of the first
// again: each time it compares what becomes of them with what Eval says.
func (c *tested) packetsOf(t testing.TB, w *wire, g generator, p *ruleset.Program) {
	probes := make([]probe, 40)
	for i := range probes {
		probes[i].Packet = g.packet()
	}
	passages := c.send(t, w, p, probes)
	var answers []probe
	for i := range passages {
		if passages[i].passed && len(answers) < 20 {
			answers = append(answers, g.answer(&passages[i]))
		}
	}
	c.send(t, w, p, answers)
	c.send(t, w, p, probes[:10])
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
	for r := ruleset.NoProfile; r <= ruleset.EndpointToHost; r++ {
		if c.reasons[r] == 0 {
			t.Errorf("reason %q never", r)
		}
	}
}

// The kernel gives every packet the verdict of Eval, for random Programs and packets, after a Resync and after deltas.
func TestVerdictsAreEvals(t *testing.T) {
	programs := 150
	if testing.Short() {
		programs = 30
	}
	var c tested
	c.compare(t, seedOf(t), func() bool { programs--; return programs >= 0 })
	c.enough(t)
}
