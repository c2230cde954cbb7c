package storetest

import (
	"errors"
	"fmt"
	"sync"

	v3 "margay/api/v3"
	"margay/store"
)

func testFaults(e *env) {
	start := e.list(v3.KindGlobalNetworkSet).Revision
	w := e.s.Watch(e.ctx, start, v3.KindGlobalNetworkSet, v3.KindGlobalNetworkPolicy)
	defer w.Close()
	good := e.create(globalSet("good"))
	e.equal(e.next(w)[0].Resource, good)
	for name, value := range map[string]string{
		"no-json":    `{"kind":`,
		"empty":      ``,
		"null":       `null`,
		"a-list":     `[]`,
		"other-kind": `{"kind":"Tier","apiVersion":"projectcalico.org/v3","metadata":{"name":"other-kind"},"spec":{}}`,
		"other-name": `{"kind":"GlobalNetworkSet","apiVersion":"projectcalico.org/v3","metadata":{"name":"x"},"spec":{}}`,
		"wrong-type": `{"kind":"GlobalNetworkSet","apiVersion":"projectcalico.org/v3","metadata":{"name":"wrong-type"},"spec":{"nets":"10.0.0.0/8"}}`,
		"bad-net":    `{"kind":"GlobalNetworkSet","apiVersion":"projectcalico.org/v3","metadata":{"name":"bad-net"},"spec":{"nets":["10.0.0/8"]}}`,
	} {
		if e.Limits.ObjectsOnly && name != "wrong-type" && name != "bad-net" && name != "no-json" {
			continue
		}
		key := v3.Key{Kind: v3.KindGlobalNetworkSet, Name: name}
		e.Put(e, key, []byte(value))
		events := e.next(w)
		if len(events) != 1 || events[0].Key != key || events[0].Fault == nil || events[0].Resource != nil {
			e.Fatalf("%s: the watch says %+v", name, events)
		}
		fault := events[0].Fault
		if fault.Key != key || fault.Revision != events[0].Revision || string(fault.Value) != value && !e.Limits.ObjectsOnly || len(fault.Value) == 0 && value != "" || fault.Err == nil {
			e.Fatalf("%s: fault %+v", name, fault)
		}
		_, err := e.s.Get(e.ctx, key)
		var got *store.Fault
		if !errors.As(err, &got) || got.Error() != fault.Error() || got.Revision != fault.Revision {
			e.Fatalf("%s: get says %v, the watch %v", name, err, fault)
		}
		list := e.list(v3.KindGlobalNetworkSet)
		e.equal(names(list), []string{"GlobalNetworkSet(good)"})
		if len(list.Faults) != 1 || list.Faults[0].Error() != fault.Error() {
			e.Fatalf("%s: list says %v", name, list.Faults)
		}
		deleted, err := e.s.Delete(e.ctx, key, fault.Revision)
		e.noError(err)
		e.equal(v3.KeyOf(deleted), key)
		e.next(w)
	}
}

func testFaultsAreRepaired(e *env) {
	set := e.create(globalSet("a", "10.0.0.0/8"))
	key := v3.KeyOf(set)
	e.Put(e, key, []byte(fmt.Sprintf(`{"kind":"GlobalNetworkSet","metadata":{"name":"a","uid":%q},"spec":{"nets":7}}`, set.GetUID())))
	_, err := e.s.Create(e.ctx, globalSet("a"))
	e.wantError(err, store.ErrExists, "")
	_, err = e.s.Update(e.ctx, set)
	e.wantError(err, store.ErrConflict, "")
	var fault *store.Fault
	if _, err = e.s.Get(e.ctx, key); !errors.As(err, &fault) {
		e.Fatal(err)
	}
	repaired := globalSet("a", "10.1.0.0/16")
	repaired.SetResourceVersion(string(fault.Revision))
	updated := e.update(repaired)
	e.equal(updated.GetUID(), set.GetUID())
	if created := updated.GetCreationTimestamp(); created.IsZero() {
		e.Error("the repaired object has no creationTimestamp")
	}
	e.equal(e.get(key), updated)
}

func testPrevious(e *env) {
	first := e.create(globalSet("a", "10.0.0.0/8"))
	key := v3.KeyOf(first)
	second := e.update(labelled(first, "n", "2"))
	if e.Limits.NoHistory {
		_, err := e.s.Previous(e.ctx, key, revisionOf(second))
		e.wantError(err, store.ErrCompacted, "")
		return
	}
	previous := func(before store.Revision) v3.Resource {
		e.Helper()
		r, err := e.s.Previous(e.ctx, key, before)
		e.noError(err)
		return r
	}
	e.equal(previous(revisionOf(second)).GetResourceVersion(), first.GetResourceVersion())
	for range 3 {
		e.Put(e, key, []byte("damaged"))
	}
	fault := e.list(v3.KindGlobalNetworkSet).Faults[0]
	e.equal(previous(fault.Revision), second)
	_, err := e.s.Previous(e.ctx, key, revisionOf(first))
	e.wantError(err, store.ErrNotFound, "")

	born := v3.Key{Kind: v3.KindGlobalNetworkSet, Name: "b"}
	e.Put(e, born, []byte("damaged"))
	e.Put(e, born, []byte("damaged again"))
	for _, fault := range e.list(v3.KindGlobalNetworkSet).Faults {
		if fault.Key == born {
			_, err := e.s.Previous(e.ctx, born, fault.Revision)
			e.wantError(err, store.ErrNotFound, "")
		}
	}
	e.Compact(e, fault.Revision)
	_, err = e.s.Previous(e.ctx, key, fault.Revision)
	e.wantError(err, store.ErrCompacted, "")
}

func testInitialise(e *env) {
	var wg sync.WaitGroup
	for range 4 {
		s := e.open()
		wg.Go(func() {
			if err := s.Initialise(e.ctx); err != nil {
				e.Error(err)
			}
		})
	}
	wg.Wait()
	list := e.list(v3.KindTier, v3.KindClusterInformation)
	e.equal(names(list), []string{"Tier(default)", "Tier(kube-admin)", "Tier(kube-baseline)", "ClusterInformation(default)"})
	for i, want := range []struct {
		order  float64
		action string
	}{{1_000_000, "Deny"}, {1_000, "Pass"}, {10_000_000, "Pass"}} {
		spec := list.Items[i].(*v3.Tier).Spec
		if *spec.Order != want.order || spec.DefaultAction != want.action {
			e.Errorf("tier %s: %v %s", list.Items[i].GetName(), *spec.Order, spec.DefaultAction)
		}
	}
	info := list.Items[3].(*v3.ClusterInformation).Spec
	if len(info.ClusterGUID) != 32 || info.DatastoreReady == nil || !*info.DatastoreReady {
		e.Errorf("cluster information: %+v", info)
	}
	e.noError(e.s.Initialise(e.ctx))
	e.equal(e.list(v3.KindTier, v3.KindClusterInformation), list)
}

func testTiers(e *env) {
	e.noError(e.s.Initialise(e.ctx))
	_, err := e.s.Create(e.ctx, policy("p", "none"))
	e.wantError(err, store.ErrNotFound, "resource does not exist: Tier(none) with error: key not found")
	none := object[*v3.NetworkPolicy](v3.KindNetworkPolicy, "ns", "p")
	none.Spec.Tier = "none"
	_, err = e.s.Create(e.ctx, none)
	e.wantError(err, store.ErrNotFound, "resource does not exist: Tier(none) with error: key not found")

	e.create(tier("t"))
	e.equal(e.get(v3.Key{Kind: v3.KindTier, Name: "t"}).(*v3.Tier).Spec.DefaultAction, "Deny")
	p := e.create(policy("p", "t")).(*v3.GlobalNetworkPolicy)
	p.Spec.Tier = "none"
	_, err = e.s.Update(e.ctx, p)
	e.wantError(err, store.ErrNotFound, "resource does not exist: Tier(none) with error: key not found")

	_, err = e.s.Delete(e.ctx, v3.Key{Kind: v3.KindTier, Name: "t"}, "")
	e.wantError(err, store.ErrNotSupported,
		"operation delete is not supported on Tier(t): Cannot delete a non-empty tier (globalnetworkpolicies/p is in it)")
	e.Put(e, v3.KeyOf(p), []byte("damaged"))
	_, err = e.s.Delete(e.ctx, v3.Key{Kind: v3.KindTier, Name: "t"}, "")
	e.wantError(err, store.ErrNotSupported, "")
	_, err = e.s.Delete(e.ctx, v3.KeyOf(p), "")
	e.noError(err)
	_, err = e.s.Delete(e.ctx, v3.Key{Kind: v3.KindTier, Name: "t"}, "")
	e.noError(err)

	for _, name := range []string{v3.DefaultTier, v3.TierKubeAdmin, v3.TierKubeBaseline} {
		key := v3.Key{Kind: v3.KindTier, Name: name}
		_, err = e.s.Delete(e.ctx, key, "")
		e.wantError(err, store.ErrNotSupported, "operation delete is not supported on "+key.String()+": Cannot delete "+name+" tier")
		built := e.get(key).(*v3.Tier)
		order := 5.0
		built.Spec.Order = &order
		if _, err = e.s.Update(e.ctx, built); err == nil {
			e.Errorf("order of tier %s was changed", name)
		}
		e.update(labelled(e.get(key), "x", "1"))
	}
	e.create(policy("in-default", ""))
}

// testTierRace creates a policy and deletes its tier at the same time: one of the two must fail.
func testTierRace(e *env) {
	other := e.open()
	for i := range 15 {
		name := fmt.Sprintf("t%d", i)
		e.create(tier(name))
		var created, deleted error
		var wg sync.WaitGroup
		wg.Go(func() { _, created = e.s.Create(e.ctx, policy(name, name)) })
		wg.Go(func() { _, deleted = other.Delete(e.ctx, v3.Key{Kind: v3.KindTier, Name: name}, "") })
		wg.Wait()
		switch {
		case created == nil && errors.Is(deleted, store.ErrNotSupported):
		case deleted == nil && errors.Is(created, store.ErrNotFound):
		default:
			e.Fatalf("policy: %v; deletion of its tier: %v", created, deleted)
		}
	}
}

func testBuiltInProfile(e *env) {
	key := v3.Key{Kind: v3.KindProfile, Name: v3.ProfileDefaultAllow}
	built := e.get(key).(*v3.Profile)
	e.equal(len(built.Spec.Ingress)+len(built.Spec.Egress), 2)
	if !e.derived(v3.KindProfile) {
		e.create(object[*v3.Profile](v3.KindProfile, "", "z"))
		e.equal(names(e.list(v3.KindProfile)), []string{"Profile(projectcalico-default-allow)", "Profile(z)"})
	}
	_, err := e.s.Create(e.ctx, built)
	e.wantError(err, store.ErrNotSupported, "")
	built.SetResourceVersion("1")
	_, err = e.s.Update(e.ctx, built)
	e.wantError(err, store.ErrNotSupported, "")
	_, err = e.s.Delete(e.ctx, key, "")
	e.wantError(err, store.ErrNotSupported, "")
}

func testNode(e *env) {
	if e.derived(v3.KindNode) {
		e.Skip("nodes of this store are not deleted by it")
	}
	const workloads = 130 // more than fit into one transaction
	node := object[*v3.Node](v3.KindNode, "", "n-1")
	e.create(node)
	for _, r := range []v3.Resource{
		object[*v3.FelixConfiguration](v3.KindFelixConfiguration, "", "node.n-1"),
		object[*v3.FelixConfiguration](v3.KindFelixConfiguration, "", "node.n-10"),
		object[*v3.FelixConfiguration](v3.KindFelixConfiguration, "", "default"),
		hostEndpoint("mine", "n-1"), hostEndpoint("other", "n-10"), globalSet("n-1"),
		peer("mine", "n-1"), peer("other", "n-10"), peer("all", ""),
		object[*v3.BGPConfiguration](v3.KindBGPConfiguration, "", "node.n-1"),
	} {
		e.create(r)
	}
	for i := range workloads {
		w := workloadEndpoint(fmt.Sprintf("ns%d", i%3), "n-1", fmt.Sprintf("w%d", i))
		w.SetName(fmt.Sprintf("n--1-cni-w%d-eth0", i))
		e.create(w)
	}
	kinds := append(store.NodeKinds(), v3.KindGlobalNetworkSet, v3.KindNode)
	before := e.list(kinds...)
	_, err := e.s.Delete(e.ctx, v3.KeyOf(node), "1")
	e.wantError(err, store.ErrConflict, "")
	_, err = e.s.Delete(e.ctx, v3.Key{Kind: v3.KindNode, Name: "n-10"}, "")
	e.wantError(err, store.ErrNotFound, "")
	e.equal(e.list(kinds...), before)

	deleted, err := e.s.Delete(e.ctx, v3.KeyOf(node), "")
	e.noError(err)
	e.equal(v3.KeyOf(deleted), v3.KeyOf(node))
	e.equal(names(e.list(kinds...)), []string{
		"HostEndpoint(other)", "FelixConfiguration(default)", "FelixConfiguration(node.n-10)", "BGPPeer(all)", "BGPPeer(other)",
		"GlobalNetworkSet(n-1)",
	})
}
