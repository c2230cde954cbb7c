package storetest

import (
	"fmt"
	"strconv"
	"strings"
	"sync"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	v3 "margay/api/v3"
	"margay/store"
)

func testLifeOfAResource(e *env) {
	set := labelled(globalSet("a", "10.0.0.0/8"), "x", "1")
	key := v3.KeyOf(set)
	created := e.create(set)
	if created.GetUID() == "" || created.GetCreationTimestamp() == (metav1.Time{}) || created.GetResourceVersion() == "" {
		e.Fatalf("created without uid, time or revision: %+v", created)
	}
	e.equal(e.get(key), created)
	e.equal(created.(*v3.GlobalNetworkSet).Spec, set.Spec)
	_, err := e.s.Create(e.ctx, set)
	e.wantError(err, store.ErrExists, "resource already exists: GlobalNetworkSet(a) with error: key exists")

	change := labelled(globalSet("a", "10.1.0.0/16"), "x", "2")
	change.SetResourceVersion(created.GetResourceVersion())
	updated := e.update(change)
	if updated.GetUID() != created.GetUID() || updated.GetCreationTimestamp() != created.GetCreationTimestamp() {
		e.Fatalf("update changed who the object is: %+v, was %+v", updated, created)
	}
	e.equal(updated.(*v3.GlobalNetworkSet).Spec.Nets, []string{"10.1.0.0/16"})
	e.equal(e.get(key), updated)

	_, err = e.s.Update(e.ctx, change)
	e.wantError(err, store.ErrConflict, "update conflict: GlobalNetworkSet(a)")
	_, err = e.s.Delete(e.ctx, key, revisionOf(created))
	e.wantError(err, store.ErrConflict, "update conflict: GlobalNetworkSet(a)")
	e.equal(e.get(key), updated)

	deleted, err := e.s.Delete(e.ctx, key, revisionOf(updated))
	e.noError(err)
	e.equal(deleted, updated)
	missing := "resource does not exist: GlobalNetworkSet(a) with error: key not found"
	_, err = e.s.Get(e.ctx, key)
	e.wantError(err, store.ErrNotFound, missing)
	_, err = e.s.Update(e.ctx, updated)
	e.wantError(err, store.ErrNotFound, missing)
	_, err = e.s.Delete(e.ctx, key, "")
	e.wantError(err, store.ErrNotFound, missing)

	again := e.create(set)
	if again.GetUID() == created.GetUID() {
		e.Fatal("two objects have one uid")
	}
	_, err = e.s.Delete(e.ctx, key, "")
	e.noError(err)
}

func testRefusals(e *env) {
	e.noError(e.s.Initialise(e.ctx))
	before := e.list(allKinds()...)
	versioned := globalSet("a")
	versioned.SetResourceVersion("1")
	wrongNet := globalSet("a", "10.0.0.0/99")
	for name, r := range map[string]v3.Resource{
		"resourceVersion":   versioned,
		"bad CIDR":          wrongNet,
		"bad name":          globalSet("A_b"),
		"no name":           globalSet(""),
		"no namespace":      networkSet("", "a"),
		"with namespace":    object[*v3.GlobalNetworkSet](v3.KindGlobalNetworkSet, "ns", "a"),
		"slash in the name": globalSet("a/b"),
		"built-in tier":     tier(v3.DefaultTier),
	} {
		if got, err := e.s.Create(e.ctx, r); err == nil || got != nil {
			e.Errorf("%s: created %v, %v", name, got, err)
		}
	}
	e.equal(names(e.list(allKinds()...)), names(before))

	good := e.create(globalSet("a", "10.0.0.0/8"))
	wrongNet.SetResourceVersion(good.GetResourceVersion())
	if _, err := e.s.Update(e.ctx, wrongNet); err == nil {
		e.Error("updated to a bad CIDR")
	}
	if _, err := e.s.Update(e.ctx, globalSet("a")); err == nil || !strings.Contains(err.Error(), "field must be set for an Update request") {
		e.Errorf("update without a revision: %v", err)
	}
	e.equal(e.get(v3.KeyOf(good)), good)
	if _, err := e.s.List(e.ctx, "", "Nonsense"); err == nil {
		e.Error("listed a kind that does not exist")
	}
	if _, err := e.s.Get(e.ctx, v3.Key{Kind: v3.KindNetworkSet, Name: "a"}); err == nil {
		e.Error("got a namespaced object without a namespace")
	}
}

func allKinds() []v3.Kind {
	var kinds []v3.Kind
	for _, info := range v3.Kinds() {
		kinds = append(kinds, info.Kind)
	}
	return kinds
}

// samples returns a valid object of every kind. Those of kinds with namespaces are in "ns".
func samples() []v3.Resource {
	namespaced := object[*v3.NetworkPolicy](v3.KindNetworkPolicy, "ns", "np")
	namespaced.Spec.Tier = "t"
	stagedInNS := object[*v3.StagedNetworkPolicy](v3.KindStagedNetworkPolicy, "ns", "snp")
	stagedInNS.Spec.Tier = "t"
	felix := object[*v3.FelixConfiguration](v3.KindFelixConfiguration, "", "default")
	info := object[*v3.ClusterInformation](v3.KindClusterInformation, "", "default")
	return []v3.Resource{
		tier("t"), policy("gnp", "t"), namespaced, hostEndpoint("hep", "n"), workloadEndpoint("ns", "n", "w"),
		globalSet("gns", "10.0.0.0/8", "fd00::/8"), networkSet("ns", "netset"),
		object[*v3.Profile](v3.KindProfile, "", "prof"), object[*v3.Node](v3.KindNode, "", "n"), felix, info,
		staged("sgnp", "t"), stagedInNS,
		object[*v3.StagedKubernetesNetworkPolicy](v3.KindStagedKubernetesNetworkPolicy, "ns", "sknp"),
		object[*v3.KubeControllersConfiguration](v3.KindKubeControllersConfiguration, "", "default"),
		nodeStatus("ns", "n"), pool("pool", "10.0.0.0/16"), object[*v3.IPReservation](v3.KindIPReservation, "", "res"),
		object[*v3.IPAMConfiguration](v3.KindIPAMConfiguration, "", "default"),
		object[*v3.BGPConfiguration](v3.KindBGPConfiguration, "", "default"),
		object[*v3.BGPFilter](v3.KindBGPFilter, "", "filter"), peer("peer", "n", "filter"),
	}
}

func staged(name, tier string) *v3.StagedGlobalNetworkPolicy {
	p := object[*v3.StagedGlobalNetworkPolicy](v3.KindStagedGlobalNetworkPolicy, "", name)
	p.Spec.Tier = tier
	return p
}

func nodeStatus(name, node string) *v3.CalicoNodeStatus {
	s := object[*v3.CalicoNodeStatus](v3.KindCalicoNodeStatus, "", name)
	period := uint32(10)
	s.Spec = v3.CalicoNodeStatusSpec{Node: node, Classes: []string{"Agent"}, UpdatePeriodSeconds: &period}
	return s
}

func pool(name, cidr string) *v3.IPPool {
	p := object[*v3.IPPool](v3.KindIPPool, "", name)
	p.Spec.CIDR = cidr
	return p
}

func peer(name, node string, filters ...string) *v3.BGPPeer {
	p := object[*v3.BGPPeer](v3.KindBGPPeer, "", name)
	p.Spec.Node, p.Spec.Filters = node, filters
	return p
}

func testEveryKind(e *env) {
	all := samples()
	if len(all) != len(v3.Kinds()) {
		e.Fatalf("%d samples for %d kinds", len(all), len(v3.Kinds()))
	}
	all = e.withoutDerived(all)
	w := e.s.Watch(e.ctx, e.list(allKinds()...).Revision, allKinds()...)
	defer w.Close()
	for i, r := range all {
		created := e.create(r)
		info, _ := v3.Lookup(v3.KeyOf(r).Kind)
		events := e.next(w)
		e.equal(events, []store.Event{{Key: v3.KeyOf(r), Revision: revisionOf(created), Resource: created}})
		list := e.list(info.Kind)
		if i := len(list.Items); info.Kind == v3.KindProfile && i == 2 {
			list.Items = list.Items[:1]
		}
		e.equal(list.Items, []v3.Resource{created})
		all[i] = created
	}
	inNS, err := e.s.List(e.ctx, "ns", v3.KindNetworkPolicy, v3.KindNetworkSet, v3.KindWorkloadEndpoint)
	e.noError(err)
	want := 0
	for _, kind := range []v3.Kind{v3.KindNetworkPolicy, v3.KindNetworkSet, v3.KindWorkloadEndpoint} {
		if !e.derived(kind) {
			want++
		}
	}
	e.equal(len(inNS.Items), want)
	elsewhere, err := e.s.List(e.ctx, "n", v3.KindNetworkPolicy, v3.KindNetworkSet, v3.KindWorkloadEndpoint)
	e.noError(err)
	e.equal(len(elsewhere.Items), 0)
	for i := len(all) - 1; i >= 0; i-- {
		key := v3.KeyOf(all[i])
		deleted, err := e.s.Delete(e.ctx, key, "")
		e.noError(err)
		e.equal(deleted, all[i])
		if last := e.deletion(w); last.Key != key || last.Fault != nil {
			e.Fatalf("deleting %s gave %+v", key, last)
		}
		if key.Kind == v3.KindNode {
			break // objects before it went with it
		}
	}
}

// withoutDerived leaves out what cannot be written, and checks that it cannot.
func (e *env) withoutDerived(all []v3.Resource) (rest []v3.Resource) {
	e.Helper()
	for _, r := range all {
		if !e.derived(v3.KeyOf(r).Kind) {
			rest = append(rest, r)
			continue
		}
		_, err := e.s.Create(e.ctx, r)
		e.wantError(err, store.ErrNotSupported, "")
		_, err = e.s.Delete(e.ctx, v3.KeyOf(r), "")
		e.wantError(err, store.ErrNotSupported, "")
	}
	return rest
}

// deletion returns the next event, where the back end marks objects the next that is no mark.
func (e *env) deletion(w store.Watcher) store.Event {
	e.Helper()
	for {
		for _, event := range e.next(w) {
			if event.Resource == nil || !e.Limits.Marks {
				return event
			}
		}
	}
}

func testListOrder(e *env) {
	for _, name := range []string{"b/x", "a/y", "a-b/x", "a/x", "a0/x"} {
		namespace, name, _ := strings.Cut(name, "/")
		e.create(networkSet(namespace, name))
	}
	e.create(globalSet("z"))
	e.create(globalSet("a"))
	e.equal(names(e.list(v3.KindNetworkSet, v3.KindGlobalNetworkSet)), []string{
		"NetworkSet(a/x)", "NetworkSet(a/y)", "NetworkSet(a-b/x)", "NetworkSet(a0/x)", "NetworkSet(b/x)",
		"GlobalNetworkSet(a)", "GlobalNetworkSet(z)",
	})
	e.equal(names(e.list(v3.KindGlobalNetworkSet, v3.KindNetworkSet))[0], "GlobalNetworkSet(a)")
	in, err := e.s.List(e.ctx, "a", v3.KindNetworkSet)
	e.noError(err)
	e.equal(names(in), []string{"NetworkSet(a/x)", "NetworkSet(a/y)"})
}

func testNothingIsShared(e *env) {
	mine := labelled(globalSet("a", "10.0.0.0/8"), "x", "1")
	created := e.create(mine).(*v3.GlobalNetworkSet)
	if mine.GetUID() != "" || mine.GetResourceVersion() != "" {
		e.Fatal("Create changed its argument")
	}
	mine.Labels["x"], mine.Spec.Nets[0] = "changed", "changed"
	created.Labels["x"], created.Spec.Nets[0] = "changed", "changed"
	got := e.get(v3.KeyOf(mine)).(*v3.GlobalNetworkSet)
	e.equal(got.Labels, map[string]string{"x": "1"})
	e.equal(got.Spec.Nets, []string{"10.0.0.0/8"})
	before := got.GetResourceVersion()
	updated := e.update(labelled(got, "x", "2")).(*v3.GlobalNetworkSet)
	e.equal(got.GetResourceVersion(), before)
	updated.Labels["x"] = "changed"
	e.equal(e.get(v3.KeyOf(mine)).GetLabels(), map[string]string{"x": "2"})
}

// testConcurrentWriters counts up one label from several writers, each on a connection of its own.
func testConcurrentWriters(e *env) {
	const writers, increments = 4, 15
	set := labelled(globalSet("counter"), "n", "0")
	e.create(set)
	var wg sync.WaitGroup
	for range writers {
		s := e.open()
		wg.Go(func() {
			for done := 0; done < increments; {
				r, err := s.Get(e.ctx, v3.KeyOf(set))
				if err != nil {
					e.Error(err)
					return
				}
				n, _ := strconv.Atoi(r.GetLabels()["n"])
				if _, err = s.Update(e.ctx, labelled(r, "n", strconv.Itoa(n+1))); err == nil {
					done++
				} else if (err.Error()) != "update conflict: GlobalNetworkSet(counter)" {
					e.Error(err)
					return
				}
			}
		})
	}
	wg.Wait()
	e.equal(e.get(v3.KeyOf(set)).GetLabels()["n"], strconv.Itoa(writers*increments))
}

// fill stores n global network sets quickly.
func (e *env) fill(n int) {
	e.Helper()
	const writers = 32
	var wg sync.WaitGroup
	for w := range writers {
		wg.Go(func() {
			for i := w; i < n; i += writers {
				if _, err := e.s.Create(e.ctx, globalSet(fmt.Sprintf("set-%05d", i), "10.0.0.0/8")); err != nil {
					e.Error(err)
					return
				}
			}
		})
	}
	wg.Wait()
	if e.Failed() {
		e.FailNow()
	}
}

func testManyObjects(e *env) {
	const n = 5000
	e.fill(n)
	list := e.list(v3.KindHostEndpoint, v3.KindGlobalNetworkSet)
	e.equal(len(list.Items), n)
	for i, r := range list.Items {
		if want := fmt.Sprintf("set-%05d", i); r.GetName() != want {
			e.Fatalf("item %d is %s, want %s", i, r.GetName(), want)
		}
	}
}

// testListIsOneRevision changes two objects by turns, one of the first kind listed and one at the end of the last page
// of the other: no list may show the second change without the first.
func testListIsOneRevision(e *env) {
	e.fill(1100)
	var first v3.Resource = labelled(hostEndpoint("a", "n"), "n", "0")
	kinds := []v3.Kind{v3.KindHostEndpoint, v3.KindGlobalNetworkSet}
	if e.Limits.PerKind {
		first, kinds = labelled(globalSet("aaa"), "n", "0"), kinds[1:]
	}
	first, last := e.create(first), e.create(labelled(globalSet("zzz"), "n", "0"))
	stop, done := make(chan struct{}), make(chan error, 1)
	go func() {
		for i := 1; ; i++ {
			select {
			case <-stop:
				done <- nil
				return
			default:
			}
			var err error
			if first, err = e.s.Update(e.ctx, labelled(first, "n", strconv.Itoa(i))); err == nil {
				last, err = e.s.Update(e.ctx, labelled(last, "n", strconv.Itoa(i)))
			}
			if err != nil {
				done <- err
				return
			}
		}
	}()
	s := e.open()
	for range 20 {
		list, err := s.List(e.ctx, "", kinds...)
		e.noError(err)
		a, _ := strconv.Atoi(list.Items[0].GetLabels()["n"])
		z, _ := strconv.Atoi(list.Items[len(list.Items)-1].GetLabels()["n"])
		if a != z && a != z+1 {
			e.Fatalf("a list has change %d of the first object and change %d of the last", a, z)
		}
	}
	close(stop)
	e.noError(<-done)
}

func testLargeObject(e *env) {
	var nets []string
	for i := range 60_000 {
		nets = append(nets, fmt.Sprintf("10.%d.%d.%d/32", i>>16, i>>8&255, i&255))
	}
	start := e.list(v3.KindGlobalNetworkSet).Revision
	w := e.s.Watch(e.ctx, start, v3.KindGlobalNetworkSet)
	defer w.Close()
	created := e.create(globalSet("large", nets...))
	e.equal(len(e.get(v3.KeyOf(created)).(*v3.GlobalNetworkSet).Spec.Nets), len(nets))
	e.equal(len(e.next(w)[0].Resource.(*v3.GlobalNetworkSet).Spec.Nets), len(nets))
	for i := range 3 {
		created = e.update(labelled(created, "n", strconv.Itoa(i)))
	}
	late := e.s.Watch(e.ctx, start, v3.KindGlobalNetworkSet)
	defer late.Close()
	for seen := 0; seen < 4; {
		for _, event := range e.next(late) {
			e.equal(len(event.Resource.(*v3.GlobalNetworkSet).Spec.Nets), len(nets))
			seen++
		}
	}
}
