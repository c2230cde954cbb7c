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

// The kernel gives every packet the verdict of Eval, for random Programs and packets, after a Resync and after deltas.
func TestVerdictsAreEvals(t *testing.T) {
	w := newObservedWire(t, interfaces...)
	d := w.open(t)
	g := newGenerator(seedOf(t))
	programs := 120
	if testing.Short() {
		programs = 20
	}
	var total, lost, allowed int
	for range programs {
		p := g.program()
		resync(t, d, p)
		for range 3 {
			packets := make([]ruleset.Packet, 40)
			for i := range packets {
				packets[i] = g.packet()
			}
			for i, o := range w.send(t, packets) {
				total++
				if !o.came {
					lost++
					t.Logf("lost %+v", packets[i])
					continue
				}
				pkt := packets[i]
				pkt.State = o.state
				v := ruleset.Eval(p, &pkt)
				if v.Allowed {
					allowed++
				}
				if v.Allowed != o.passed {
					t.Fatalf("packet %+v:\nEval: %+v\nkernel passed: %v\nendpoints %+v\n%s", pkt, v, o.passed, p.Endpoints, Compile(p))
				}
			}
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
	t.Logf("%d packets, %d allowed, %d did not reach the hook", total, allowed, lost)
	if lost > total/100 || allowed < total/20 || allowed > total*19/20 {
		t.Error("the packets show too little")
	}
}
