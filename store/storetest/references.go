package storetest

import (
	"errors"
	"fmt"
	"sync"

	v3 "margay/api/v3"
	"margay/store"
)

// testReferences: what an object refers to exists, and a tier with staged policies is not empty.
func testReferences(e *env) {
	e.noError(e.s.Initialise(e.ctx))
	_, err := e.s.Create(e.ctx, staged("p", "none"))
	e.wantError(err, store.ErrNotFound, "resource does not exist: Tier(none) with error: key not found")
	e.create(tier("t"))
	p := e.create(staged("p", "t"))
	_, err = e.s.Delete(e.ctx, v3.Key{Kind: v3.KindTier, Name: "t"}, "")
	e.wantError(err, store.ErrNotSupported,
		"operation delete is not supported on Tier(t): Cannot delete a non-empty tier (stagedglobalnetworkpolicies/p is in it)")
	_, err = e.s.Delete(e.ctx, v3.KeyOf(p), "")
	e.noError(err)
	_, err = e.s.Delete(e.ctx, v3.Key{Kind: v3.KindTier, Name: "t"}, "")
	e.noError(err)

	e.create(object[*v3.BGPFilter](v3.KindBGPFilter, "", "a"))
	missing := "resource does not exist: BGPFilter(b) with error: key not found"
	_, err = e.s.Create(e.ctx, peer("x", "n", "a", "b"))
	e.wantError(err, store.ErrNotFound, missing)
	x := e.create(peer("x", "n", "a")).(*v3.BGPPeer)
	x.Spec.Filters = []string{"b"}
	_, err = e.s.Update(e.ctx, x)
	e.wantError(err, store.ErrNotFound, missing)
}

func testPools(e *env) {
	small := e.create(pool("small", "10.1.0.0/24")).(*v3.IPPool)
	_, err := e.s.Create(e.ctx, pool("large", "10.0.0.0/8"))
	e.wantText(err, `IPPool(large): spec.cidr = "10.0.0.0/8": IPPool(large) CIDR overlaps with IPPool(small) CIDR 10.1.0.0/24`)
	_, err = e.s.Create(e.ctx, pool("small", "10.1.0.0/24"))
	e.wantError(err, store.ErrExists, "")
	e.create(pool("beside", "10.1.1.0/24"))
	e.Put(e, v3.Key{Kind: v3.KindIPPool, Name: "damaged"}, []byte("damaged"))
	e.create(pool("other", "10.1.2.0/24"))

	small.Spec.CIDR = "10.1.3.0/24"
	_, err = e.s.Update(e.ctx, small)
	e.wantText(err, `IPPool(small): spec.cidr = "10.1.3.0/24": IPPool CIDR cannot be modified (keep 10.1.0.0/24, or make a new pool)`)
	small.Spec.CIDR, small.Spec.Disabled = "10.1.0.0/24", true
	e.update(small)
}

func (e *env) wantText(err error, text string) {
	e.Helper()
	if err == nil || err.Error() != text {
		e.Fatalf("error says\n%v, want\n%s", err, text)
	}
}

// testPoolRace creates two pools with the same range at the same time: one of the two must fail.
func testPoolRace(e *env) {
	other := e.open()
	for i := range 15 {
		cidr := fmt.Sprintf("10.%d.0.0/16", i)
		var errs [2]error
		var wg sync.WaitGroup
		wg.Go(func() { _, errs[0] = e.s.Create(e.ctx, pool(fmt.Sprintf("a%d", i), cidr)) })
		wg.Go(func() { _, errs[1] = other.Create(e.ctx, pool(fmt.Sprintf("b%d", i), cidr)) })
		wg.Wait()
		var refused v3.Errors
		if (errs[0] == nil) == (errs[1] == nil) || !errors.As(errors.Join(errs[:]...), &refused) {
			e.Fatalf("two pools of one range: %v; %v", errs[0], errs[1])
		}
	}
}
