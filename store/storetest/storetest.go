// Package storetest holds the tests that every implementation of store.Store passes. It knows no implementation: each
// hands in how to start an empty store and how to do what the interface does not offer.
package storetest

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	v3 "margay/api/v3"
	"margay/store"
)

// A Backend is an empty store under test.
type Backend struct {
	// Open returns a further connection; the suite closes it.
	Open func(t testing.TB) store.Store
	// Put stores a value, whatever it is, as some other program might.
	Put func(t testing.TB, key v3.Key, value []byte)
	// Compact drops the history before a revision.
	Compact func(t testing.TB, at store.Revision)
	// Limits are what the back end has no way to do; the zero value: none.
	Limits Limits
}

// Limits are what the API behind a store has no way to do, each as narrow as it can be.
type Limits struct {
	// Derived are kinds whose objects are made from something else. Writing them is ErrNotSupported.
	Derived []v3.Kind
	// PerKind: every kind counts its own revisions. What is listed is of one revision in each kind, not over several, and
	// the revision of a list or a watch is not that of an object, but can be compared with that of a write (Reached).
	PerKind bool
	// NoHistory: nothing is known of earlier versions. Previous is ErrCompacted, and LastChange knows of no deletion.
	NoHistory bool
	// ObjectsOnly: Put stores objects of the right kind and name. For what is no JSON object it stores one whose spec is
	// of the wrong type.
	ObjectsOnly bool
	// OneByOne: every write of WriteAll is a request. Neighbours of one kind and operation have no order.
	OneByOne bool
	// Marks: before an object is deleted it may be changed, by which others see that it is about to be.
	Marks bool
}

// derived reports whether objects of a kind cannot be written.
func (e *env) derived(kind v3.Kind) bool { return slices.Contains(e.Limits.Derived, kind) }

// Run runs the suite. start returns an empty store that lasts as long as the test.
func Run(t *testing.T, start func(t *testing.T) Backend) {
	for _, test := range []struct {
		name string
		run  func(*env)
	}{
		{"CreateGetUpdateDelete", testLifeOfAResource},
		{"Refusals", testRefusals},
		{"EveryKind", testEveryKind},
		{"ListOrder", testListOrder},
		{"NothingIsShared", testNothingIsShared},
		{"ConcurrentWriters", testConcurrentWriters},
		{"WriteAll", testWriteAll},
		{"WriteAllInOrder", testWriteAllInOrder},
		{"WriteAllMany", testWriteAllMany},
		{"DryRun", testDryRun},
		{"UnknownFields", testUnknownFields},
		{"LastChange", testLastChange},
		{"Reached", testReached},
		{"ListIsOneRevision", testListIsOneRevision},
		{"ManyObjects", testManyObjects},
		{"LargeObject", testLargeObject},
		{"Watch", testWatch},
		{"WatchSeesEveryRevision", testWatchSeesEveryRevision},
		{"WatchCatchesUp", testWatchCatchesUp},
		{"Faults", testFaults},
		{"FaultsAreRepaired", testFaultsAreRepaired},
		{"Previous", testPrevious},
		{"Compaction", testCompaction},
		{"Initialise", testInitialise},
		{"Tiers", testTiers},
		{"TierRace", testTierRace},
		{"References", testReferences},
		{"IPPools", testPools},
		{"IPPoolRace", testPoolRace},
		{"BuiltInProfile", testBuiltInProfile},
		{"NodeTakesItsObjectsAlong", testNode},
		{"Contexts", testContexts},
		{"Status", testStatus},
		{"Endpoints", testEndpoints},
		{"Follow", testFollow},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			backend := start(t)
			e := &env{T: t, Backend: backend}
			e.s = e.open()
			var stop context.CancelFunc
			e.ctx, stop = context.WithTimeout(context.Background(), 3*time.Minute)
			defer stop()
			test.run(e)
		})
	}
}

// env is what a test works with.
type env struct {
	*testing.T
	Backend
	ctx context.Context
	s   store.Store
}

func (e *env) open() store.Store {
	e.Helper()
	s := e.Open(e)
	e.Cleanup(func() {
		if err := s.Close(); err != nil {
			e.Errorf("close: %v", err)
		}
	})
	return s
}

func (e *env) noError(err error) {
	e.Helper()
	if err != nil {
		e.Fatal(err)
	}
}

// wantError checks the sentinel of an error, and its text if one is given.
func (e *env) wantError(err, want error, text string) {
	e.Helper()
	if !errors.Is(err, want) {
		e.Fatalf("error is %v, want %v", err, want)
	}
	if text != "" && err.Error() != text {
		e.Fatalf("error says\n%s, want\n%s", err, text)
	}
}

func (e *env) create(r v3.Resource) v3.Resource {
	e.Helper()
	created, err := e.s.Create(e.ctx, r)
	e.noError(err)
	return created
}

func (e *env) update(r v3.Resource) v3.Resource {
	e.Helper()
	updated, err := e.s.Update(e.ctx, r)
	e.noError(err)
	return updated
}

func (e *env) get(key v3.Key) v3.Resource {
	e.Helper()
	r, err := e.s.Get(e.ctx, key)
	e.noError(err)
	return r
}

func (e *env) list(kinds ...v3.Kind) *store.List {
	e.Helper()
	list, err := e.s.List(e.ctx, "", kinds...)
	e.noError(err)
	return list
}

func (e *env) equal(got, want any) {
	e.Helper()
	if diff := cmp.Diff(want, got); diff != "" {
		e.Fatalf("differs (- want, + got):\n%s", diff)
	}
}

// same checks that two revisions of one kind are the same state.
func (e *env) same(a, b store.Revision) {
	e.Helper()
	if a != b && (a == "" || b == "" || !e.s.Reached(a, b) || !e.s.Reached(b, a)) {
		e.Fatalf("revision %q is not %q", a, b)
	}
}

// upTo checks that a watch has delivered everything up to a write, or to a deletion that the watch told of.
func (e *env) upTo(w store.Watcher, revision store.Revision) {
	e.Helper()
	if e.Limits.PerKind {
		return // the revision of an object does not say of which kind
	}
	e.equal(w.Revision(), revision)
}

// next returns the next events of a watcher, after any number of results without.
func (e *env) next(w store.Watcher) []store.Event {
	e.Helper()
	for {
		events, err := w.Next(e.ctx)
		e.noError(err)
		if len(events) > 0 {
			return events
		}
	}
}

// eventually waits for a condition.
func (e *env) eventually(what string, holds func() bool) {
	e.Helper()
	for deadline := time.Now().Add(20 * time.Second); !holds(); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			e.Fatalf("waited in vain: %s", what)
		}
	}
}

func revisionOf(r v3.Resource) store.Revision { return store.Revision(r.GetResourceVersion()) }

// names returns what objects a list has, as Kind(name).
func names(list *store.List) []string {
	var out []string
	for _, r := range list.Items {
		out = append(out, v3.KeyOf(r).String())
	}
	return out
}

// The objects that the tests use.

func object[R v3.Resource](kind v3.Kind, namespace, name string) R {
	info, ok := v3.Lookup(kind)
	if !ok {
		panic(fmt.Sprintf("no kind %s", kind))
	}
	r := info.New().(R)
	r.SetNamespace(namespace)
	r.SetName(name)
	return r
}

// A NetworkSet makes the simplest namespaced object, a GlobalNetworkSet the simplest of the cluster.
func globalSet(name string, nets ...string) *v3.GlobalNetworkSet {
	r := object[*v3.GlobalNetworkSet](v3.KindGlobalNetworkSet, "", name)
	r.Spec.Nets = nets
	return r
}

func networkSet(namespace, name string) *v3.NetworkSet {
	return object[*v3.NetworkSet](v3.KindNetworkSet, namespace, name)
}

func policy(name, tier string) *v3.GlobalNetworkPolicy {
	r := object[*v3.GlobalNetworkPolicy](v3.KindGlobalNetworkPolicy, "", name)
	r.Spec.Tier, r.Spec.Selector = tier, "all()"
	return r
}

func tier(name string) *v3.Tier { return object[*v3.Tier](v3.KindTier, "", name) }

func hostEndpoint(name, node string) *v3.HostEndpoint {
	r := object[*v3.HostEndpoint](v3.KindHostEndpoint, "", name)
	r.Spec.Node, r.Spec.InterfaceName = node, "eth0"
	return r
}

func workloadEndpoint(namespace, node, workload string) *v3.WorkloadEndpoint {
	name := node + "-cni-" + workload + "-eth0"
	r := object[*v3.WorkloadEndpoint](v3.KindWorkloadEndpoint, namespace, name)
	r.Spec = v3.WorkloadEndpointSpec{Orchestrator: "cni", Node: node, ContainerID: workload, Endpoint: "eth0", InterfaceName: "cali1"}
	return r
}

// labelled returns the resource with a label set.
func labelled[R metav1.Object](r R, name, value string) R {
	labels := map[string]string{name: value}
	for k, v := range r.GetLabels() {
		if k != name {
			labels[k] = v
		}
	}
	r.SetLabels(labels)
	return r
}
