package nft

import (
	"fmt"
	"net/netip"
	"runtime"
	"testing"

	"margay/ruleset"
)

// manyPolicies returns a Program with n policies of two rules each, all with the set "s".
func manyPolicies(n int) *ruleset.Program {
	var policies []*ruleset.Policy
	for i := range n {
		allow := tcp(ruleset.Allow, uint16(1000+i))
		allow.Source.Sets = []ruleset.SetID{"s"}
		policies = append(policies, policyOf(fmt.Sprint("p", i), allow, tcp(ruleset.Deny, uint16(1000+i))))
	}
	p := programOf([]*ruleset.Endpoint{hostEndpoint("e", "t0")}, policies...)
	p.Sets["s"] = ruleset.NewSet(ruleset.Addrs, "s")
	return p
}

func BenchmarkApply(b *testing.B) {
	for _, n := range []int{10, 1000} {
		deltas := map[string]func(i int) *ruleset.Delta{
			"member": func(i int) *ruleset.Delta {
				if i%2 == 0 {
					return memberDelta("s", netsOf("10.1.0.0/24"), nil)
				}
				return memberDelta("s", nil, netsOf("10.1.0.0/24"))
			},
			"policy": func(i int) *ruleset.Delta {
				p := policyOf("p5", tcp(ruleset.Allow, uint16(i%2+1)), tcp(ruleset.Deny, 1005))
				return &ruleset.Delta{Policies: map[ruleset.PolicyID]*ruleset.Policy{p.ID: p}}
			},
		}
		for name, delta := range deltas {
			b.Run(fmt.Sprintf("%s/policies=%d", name, n), func(b *testing.B) {
				d := newNamespace(b).open(b)
				p := manyPolicies(n)
				resync(b, d, p)
				before := d.Stats().Messages
				for i := 0; b.Loop(); i++ {
					if err := d.Apply(b.Context(), delta(i)); err != nil {
						b.Fatal(err)
					}
				}
				b.ReportMetric(float64(d.Stats().Messages-before)/float64(b.N), "messages/op")
			})
		}
	}
}

// sharedSources returns a Program with policies of ten rules on one endpoint: each rule has a port of its own and one of a
// hundred sets of three prefixes.
func sharedSources(policies int) *ruleset.Program {
	var list []*ruleset.Policy
	for i := range policies {
		list = append(list, sharingPolicy(i))
	}
	p := programOf([]*ruleset.Endpoint{hostEndpoint("e", "t0")}, list...)
	for i := range 100 {
		s := ruleset.NewSet(ruleset.Addrs, fmt.Sprintf("source == '%d'", i))
		for _, n := range []string{"10.1.%d.0/24", "10.2.%d.7/32", "10.3.%d.64/26"} {
			s.Add(ruleset.Member{Prefix: netip.MustParsePrefix(fmt.Sprintf(n, i))})
		}
		p.Sets[sharedSource(i)] = s
	}
	return p
}

func sharedSource(i int) ruleset.SetID { return ruleset.SetID(fmt.Sprint("source-", i%100)) }

func sharingPolicy(i int) *ruleset.Policy {
	policy := policyOf(fmt.Sprintf("policy-%04d", i))
	for j := range rulesOfPolicy {
		r := tcp(ruleset.Allow, uint16(10_000+i*rulesOfPolicy+j))
		r.Source.Sets = []ruleset.SetID{sharedSource(i + j)}
		policy.Ingress = append(policy.Ingress, r)
	}
	return policy
}

// BenchmarkImage measures what comes before the kernel, at 1,000 policies of ten rules on one endpoint: what it takes to make
// the first transaction, what then stays in memory, and what a change of one policy takes.
func BenchmarkImage(b *testing.B) {
	p := sharedSources(1000)
	b.Run("start", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			encodeAll(b, Diff(nil, newImage(p, defaultLimits).table))
		}
	})
	b.Run("memory", func(b *testing.B) {
		var im *image
		var kept uint64
		for b.Loop() {
			before := heapInUse()
			im = newImage(p, defaultLimits)
			kept = heapInUse() - before
		}
		runtime.KeepAlive(im)
		b.ReportMetric(float64(kept)/(1<<20), "MiB")
	})
	b.Run("policy", func(b *testing.B) {
		im := newImage(p, defaultLimits)
		b.ReportAllocs()
		for i := 0; b.Loop(); i++ {
			changed := sharingPolicy(500)
			changed.Ingress[5] = tcp(ruleset.Action(i%2), 7100)
			encodeAll(b, im.apply(&ruleset.Delta{Policies: map[ruleset.PolicyID]*ruleset.Policy{changed.ID: changed}}))
		}
	})
}

func heapInUse() uint64 {
	runtime.GC()
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}

func encodeAll(b *testing.B, changes []Change) {
	batch := newBatch(0)
	for i := range changes {
		if err := batch.encode(&changes[i], make([]uint64, len(changes[i].old))); err != nil {
			b.Fatal(err)
		}
	}
	batch.finish(1)
}
