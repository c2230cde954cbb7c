package storetest

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"reflect"
	"strconv"
	"sync"
	"time"

	v3 "margay/api/v3"
	"margay/store"
)

func testWatch(e *env) {
	e.create(globalSet("before"))
	start := e.list(v3.KindGlobalNetworkSet).Revision
	w := e.s.Watch(e.ctx, start, v3.KindGlobalNetworkSet, v3.KindHostEndpoint)
	defer w.Close()
	e.equal(w.Revision(), start)
	events, err := w.Next(e.ctx)
	e.noError(err)
	if len(events) != 0 {
		e.Fatalf("nothing has happened, the watch says %+v", events)
	}
	e.create(networkSet("ns", "other-kind"))
	set := e.create(globalSet("a"))
	e.equal(e.next(w), []store.Event{{Key: v3.KeyOf(set), Revision: revisionOf(set), Resource: set}})
	e.upTo(w, revisionOf(set))
	endpoint := e.create(hostEndpoint("h", "n"))
	e.equal(e.next(w), []store.Event{{Key: v3.KeyOf(endpoint), Revision: revisionOf(endpoint), Resource: endpoint}})
	set = e.update(labelled(set, "x", "1"))
	e.equal(e.next(w)[0].Resource, set)
	_, err = e.s.Delete(e.ctx, v3.KeyOf(set), "")
	e.noError(err)
	gone := e.next(w)
	if len(gone) != 1 || gone[0].Resource != nil || gone[0].Fault != nil || gone[0].Key != v3.KeyOf(set) || gone[0].Revision == "" {
		e.Fatalf("deletion gave %+v", gone)
	}
	e.upTo(w, gone[0].Revision)
	w.Close()
	if _, err := w.Next(e.ctx); err == nil {
		e.Error("a closed watch goes on")
	}
}

// changes makes n changes to a handful of objects, and returns the revision of each.
func (e *env) changes(s store.Store, n int, seed uint64) (revisions []store.Revision, err error) {
	random := rand.New(rand.NewPCG(seed, 1))
	for i := range n {
		name := fmt.Sprintf("s%d-%d", seed, random.IntN(4))
		r, err := s.Get(e.ctx, v3.Key{Kind: v3.KindGlobalNetworkSet, Name: name})
		switch {
		case errors.Is(err, store.ErrNotFound):
			r, err = s.Create(e.ctx, globalSet(name))
		case err == nil && random.IntN(3) == 0:
			// What a deletion returns has the revision before it.
			if _, err = s.Delete(e.ctx, v3.KeyOf(r), ""); err == nil {
				revisions = append(revisions, "")
				continue
			}
		case err == nil:
			r, err = s.Update(e.ctx, labelled(r, "n", strconv.Itoa(i)))
		}
		if err != nil {
			return nil, err
		}
		revisions = append(revisions, revisionOf(r))
	}
	return revisions, nil
}

// testWatchSeesEveryRevision lists and watches again and again while others write, and accounts for every change.
func testWatchSeesEveryRevision(e *env) {
	const writers, changes = 3, 60
	start := e.list(v3.KindGlobalNetworkSet).Revision
	var wg sync.WaitGroup
	written := make([][]store.Revision, writers)
	for i := range writers {
		s := e.open()
		wg.Go(func() {
			var err error
			if written[i], err = e.changes(s, changes, uint64(i)); err != nil {
				e.Error(err)
			}
		})
	}
	var seen []store.Revision
	from := start
	w := e.s.Watch(e.ctx, from, v3.KindGlobalNetworkSet)
	for len(seen) < writers*changes && !e.Failed() {
		for _, event := range e.next(w) {
			seen = append(seen, event.Revision)
		}
		if rand.N(4) == 0 {
			from = w.Revision()
			w.Close()
			w = e.s.Watch(e.ctx, from, v3.KindGlobalNetworkSet)
		}
	}
	w.Close()
	wg.Wait()
	e.increasing(seen)
	set := map[store.Revision]bool{}
	for _, revision := range seen {
		set[revision] = true
	}
	for _, revisions := range written {
		for _, revision := range revisions {
			if revision != "" && !set[revision] {
				e.Errorf("the change of revision %s was not seen", revision)
			}
		}
	}
}

// increasing checks that revisions, which are opaque to others, grow, so that none came twice or late.
func (e *env) increasing(revisions []store.Revision) {
	e.Helper()
	last := 0
	for _, revision := range revisions {
		n, err := strconv.Atoi(string(revision))
		if err != nil {
			e.Fatalf("revision %q has no order that this test knows", revision)
		}
		if n <= last {
			e.Fatalf("revision %d came after %d", n, last)
		}
		last = n
	}
}

// testWatchCatchesUp watches from long ago.
func testWatchCatchesUp(e *env) {
	start := e.list(v3.KindGlobalNetworkSet).Revision
	const n = 2500
	e.fill(n)
	w := e.s.Watch(e.ctx, start, v3.KindGlobalNetworkSet)
	defer w.Close()
	var seen []store.Revision
	for len(seen) < n {
		for _, event := range e.next(w) {
			seen = append(seen, event.Revision)
		}
		e.same(w.Revision(), seen[len(seen)-1])
	}
	e.increasing(seen)
}

func testCompaction(e *env) {
	start := e.list(v3.KindGlobalNetworkSet).Revision
	set := e.create(globalSet("a"))
	for i := range 5 {
		set = e.update(labelled(set, "n", strconv.Itoa(i)))
	}
	e.Compact(e, revisionOf(set))
	w := e.s.Watch(e.ctx, start, v3.KindGlobalNetworkSet)
	defer w.Close()
	for {
		events, err := w.Next(e.ctx)
		if len(events) > 0 {
			e.Fatalf("events from a history that is gone: %+v", events)
		}
		if err != nil {
			e.wantError(err, store.ErrCompacted, "")
			break
		}
	}
	if _, err := w.Next(e.ctx); !errors.Is(err, store.ErrCompacted) {
		e.Errorf("the second time it says %v", err)
	}
	list := e.list(v3.KindGlobalNetworkSet)
	e.equal(list.Items, []v3.Resource{set})
	again := e.s.Watch(e.ctx, list.Revision, v3.KindGlobalNetworkSet)
	defer again.Close()
	set = e.update(labelled(set, "n", "last"))
	e.equal(e.next(again)[0].Resource, set)
}

func testContexts(e *env) {
	canceled, cancel := context.WithCancel(e.ctx)
	cancel()
	expired, cancel := context.WithDeadline(e.ctx, time.Now().Add(-time.Second))
	defer cancel()
	start := e.list(v3.KindGlobalNetworkSet).Revision
	w := e.s.Watch(e.ctx, "", v3.KindTier)
	defer w.Close()
	for name, do := range map[string]func(context.Context) error{
		"get":    func(ctx context.Context) error { _, err := e.s.Get(ctx, v3.KeyOf(globalSet("a"))); return err },
		"list":   func(ctx context.Context) error { _, err := e.s.List(ctx, "", v3.KindTier); return err },
		"create": func(ctx context.Context) error { _, err := e.s.Create(ctx, globalSet("a")); return err },
		"delete": func(ctx context.Context) error { _, err := e.s.Delete(ctx, v3.KeyOf(globalSet("a")), ""); return err },
		"init":   func(ctx context.Context) error { return e.s.Initialise(ctx) },
		"status": func(ctx context.Context) error { _, err := e.s.Statuses(ctx); return err },
	} {
		if err := do(canceled); !errors.Is(err, context.Canceled) {
			e.Errorf("%s, canceled: %v", name, err)
		}
		if err := do(expired); !errors.Is(err, store.ErrUnavailable) || errors.Is(err, store.ErrNotFound) {
			e.Errorf("%s, too late: %v", name, err)
		}
	}
	if _, err := w.Next(canceled); !errors.Is(err, context.Canceled) {
		e.Errorf("next, canceled: %v", err)
	}
	if _, err := w.Next(e.ctx); err != nil {
		e.Errorf("next after a canceled one: %v", err)
	}
	soon, cancel := context.WithTimeout(e.ctx, 50*time.Millisecond)
	defer cancel()
	if events, err := w.Next(soon); len(events) > 0 || err != nil && !errors.Is(err, context.DeadlineExceeded) {
		e.Errorf("next with a deadline: %v, %v", events, err)
	}
	set := e.create(globalSet("a"))
	all := e.s.Watch(e.ctx, start, v3.KindGlobalNetworkSet)
	defer all.Close()
	e.equal(e.next(all)[0].Resource, set)
}

// ttl is the time to live of the statuses that disappear in testStatus.
const ttl = time.Second

func testStatus(e *env) {
	before := e.list(allKinds()...)
	forever := store.NodeStatus{
		Node: "a", Enforced: "12", Ready: true, Faults: []string{"Tier(x): y"}, Version: "v1", Time: "2026-01-01T00:00:00Z",
	}
	brief := store.NodeStatus{Node: "b/c%d", Detail: "starting", TTLSeconds: int(ttl / time.Second)}
	statuses := func() []store.NodeStatus {
		list, err := e.s.Statuses(e.ctx)
		e.noError(err)
		return list
	}
	// both reports and reads, and reports whether that took so short a time that the report had to be there.
	both := func() bool {
		begin := time.Now()
		e.noError(e.s.ReportStatus(e.ctx, brief))
		list := statuses()
		if time.Since(begin) >= ttl {
			return false
		}
		e.equal(list, []store.NodeStatus{forever, brief})
		return true
	}
	e.noError(e.s.ReportStatus(e.ctx, forever))
	e.eventually("a report and a reading in time", both)
	for begin := time.Now(); time.Since(begin) < 5*ttl/2; time.Sleep(ttl / 10) {
		both()
	}
	e.eventually("the status disappears", func() bool { return len(statuses()) == 1 })
	e.eventually("a report and a reading in time", both)
	brief.TTLSeconds = 0
	e.noError(e.s.ReportStatus(e.ctx, brief))
	e.equal(statuses(), []store.NodeStatus{forever, brief})
	e.equal(e.s.ReportStatus(e.ctx, store.NodeStatus{}) != nil, true)
	e.equal(names(e.list(allKinds()...)), names(before)) // they are no resources
}

// testFollow follows while others write and the history is compacted, and compares the result with a list.
func testFollow(e *env) {
	const writers, changes = 3, 40
	e.fill(20)
	state := map[v3.Key]v3.Resource{}
	var mu sync.Mutex
	var at store.Revision
	batches := 0
	ctx, cancel := context.WithCancel(e.ctx)
	done := make(chan error, 1)
	s := e.open()
	go func() {
		done <- store.Follow(ctx, s, []v3.Kind{v3.KindGlobalNetworkSet}, func(b store.Batch) error {
			mu.Lock()
			defer mu.Unlock()
			if b.Err != nil || !b.InSync {
				return fmt.Errorf("batch %d: %+v", batches, b)
			}
			if batches++; batches == 1 && len(b.Events) < 20 {
				return fmt.Errorf("the snapshot has %d objects", len(b.Events))
			}
			for _, event := range b.Events {
				if event.Resource == nil {
					delete(state, event.Key)
				} else {
					state[event.Key] = event.Resource
				}
			}
			at = b.Revision
			return nil
		})
	}()
	var wg sync.WaitGroup
	for i := range writers {
		writer := e.open()
		wg.Go(func() {
			if _, err := e.changes(writer, changes, uint64(i)); err != nil {
				e.Error(err)
			}
		})
	}
	wg.Wait()
	list := e.list(v3.KindGlobalNetworkSet)
	want := map[v3.Key]v3.Resource{}
	for _, r := range list.Items {
		want[v3.KeyOf(r)] = r
	}
	e.eventually("the follower has it all", func() bool {
		mu.Lock()
		defer mu.Unlock()
		return (at == list.Revision || e.Limits.PerKind) && reflect.DeepEqual(state, want)
	})
	cancel()
	if err := <-done; !errors.Is(err, context.Canceled) {
		e.Errorf("follow ended with %v", err)
	}
}
