package nft

import (
	"fmt"
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
