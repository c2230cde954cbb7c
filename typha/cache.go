package typha

import (
	"cmp"
	"context"
	"crypto/rand"
	"errors"
	"log/slog"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/klauspost/compress/zstd"

	v3 "margay/api/v3"
	"margay/store"
)

// A cache holds the state of the store and how it came about. Follow's goroutine hands it batches, its own goroutine
// publishes them, peers read.
type cache struct {
	kinds   []v3.Kind
	store   store.Store // set before run
	window  time.Duration
	catchUp time.Duration
	metrics *metrics
	log     *slog.Logger

	published func() // called after a crumb was added

	busy    atomic.Int64  // since when a crumb is being made, in nanoseconds; 0: none is
	oldest  atomic.Uint64 // number of the oldest crumb held
	synced  chan struct{} // closed when there is a complete state
	changed chan struct{} // capacity 1: something is pending

	mu      sync.Mutex
	pending pending
	items   map[v3.Key]item
	nodes   int // items that are Nodes
	trail   trail
	latest  *snapshot
	build   *build // under way

	deltas *packer // of the publishing goroutine
}

// An item is an object as it is on the wire.
type item struct {
	revision store.Revision
	record   []byte // a whole record; shared, not changed
}

// pending is what was delivered and is not published.
type pending struct {
	changes  []change
	revision store.Revision
	news     bool  // revision or lost is to be published even without changes
	lost     error // why the store cannot be followed
	inSync   bool
}

type change struct {
	key v3.Key
	op  operation
	item
}

// defaultCatchUp is how long a client that has seen a newer revision waits for this server to see it. A watch that works
// is not that late; a store that went back never reaches it.
const defaultCatchUp = 10 * time.Second

func newCache(cfg *ServerConfig, m *metrics) *cache {
	return &cache{
		kinds: cfg.Kinds, window: cfg.Window, catchUp: defaultCatchUp, metrics: m, log: cfg.Log,
		synced: make(chan struct{}), changed: make(chan struct{}, 1), items: map[v3.Key]item{},
		trail:  trail{maxCount: cfg.MaxCrumbs, maxSize: uint64(cfg.MaxCrumbBytes)},
		deltas: newPacker(zstd.SpeedFastest),
	}
}

// run follows the store and publishes until the context ends.
func (c *cache) run(ctx context.Context) {
	var wg sync.WaitGroup
	defer wg.Wait()
	wg.Go(func() { c.publishAll(ctx) })
	_ = store.Follow(ctx, c.store, c.kinds, func(b store.Batch) error { // ends with the context
		c.deliver(b)
		return nil
	})
}

// deliver takes in a batch of the store.
func (c *cache) deliver(b store.Batch) {
	changes := make([]change, 0, len(b.Events))
	for _, e := range b.Events {
		r := recordOf(e)
		changes = append(changes, change{e.Key, r.op, item{e.Revision, appendRecord(nil, r)}})
	}
	c.metrics.updates.Add(float64(len(changes)))
	c.mu.Lock()
	defer c.mu.Unlock()
	p := &c.pending
	if b.Err == nil {
		p.changes = append(p.changes, changes...)
		p.revision, p.inSync = b.Revision, b.InSync
	} else if p.lost == nil {
		c.log.Warn("the store cannot be followed", "error", b.Err)
	}
	if b.Err == nil && p.lost != nil {
		c.log.Info("the store is followed again")
	}
	p.lost, p.news = b.Err, true
	kick(c.changed)
}

// kick says that something changed. It never blocks.
func kick(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// publishAll publishes what is pending: at once, but not twice within the window.
func (c *cache) publishAll(ctx context.Context) {
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-c.changed:
		}
		select {
		case <-ctx.Done():
			return
		case <-timer.C: // the window since the last crumb is over
		}
		now := time.Now()
		c.busy.Store(now.UnixNano())
		c.mu.Lock()
		c.publish(now)
		c.mu.Unlock()
		c.published()
		c.busy.Store(0)
		timer.Reset(c.window)
	}
}

// publish makes crumbs of what is pending.
func (c *cache) publish(now time.Time) {
	p := c.pending
	c.pending = pending{lost: p.lost, inSync: p.inSync, revision: p.revision}
	if !p.news || !p.inSync {
		return
	}
	changes := c.apply(p.changes)
	defer func() {
		c.oldest.Store(c.trail.held[0].seq)
		c.metrics.published(c.trail.tip, len(changes), len(c.items))
	}()
	if c.trail.tip == nil {
		c.trail.begin(newGeneration(), p.revision, now)
		close(c.synced)
		c.log.Info("in sync with the store", "objects", len(c.items), "revision", p.revision)
		return
	}
	tip := c.trail.tip
	if len(changes) > 0 || p.revision != tip.revision {
		back := !c.store.Reached(p.revision, tip.revision)
		c.addChanges(changes, p.revision, now)
		if back {
			// Revisions of the old history may come again and mean something else.
			c.log.Warn("the store went back: no client can resume from before", "from", tip.revision, "to", p.revision)
			c.trail.renew(newGeneration())
			c.latest = nil
		}
	}
	if (p.lost == nil) != (tip.lost == nil) {
		c.addStatus(p.lost, now)
	}
}

func newGeneration() string { return rand.Text() }

// apply brings the items up to date and returns the changes that are none that were known already.
func (c *cache) apply(changes []change) []change {
	news := changes[:0:0]
	for _, ch := range changes {
		old, was := c.items[ch.key]
		if was && ch.op != opDelete && string(old.record) == string(ch.record) || !was && ch.op == opDelete {
			c.metrics.skipped.Inc()
			continue
		}
		if ch.op == opDelete {
			delete(c.items, ch.key)
		} else {
			c.items[ch.key] = ch.item
		}
		switch {
		case ch.key.Kind != v3.KindNode:
		case ch.op == opDelete:
			c.nodes--
		case !was:
			c.nodes++
		}
		news = append(news, ch)
	}
	return news
}

// addChanges adds the crumbs of one change of the state; most are one crumb.
func (c *cache) addChanges(changes []change, revision store.Revision, now time.Time) {
	lost := c.trail.tip.lost
	for {
		var raw []byte
		n := 0
		for ; n < len(changes) && (n == 0 || len(raw)+len(changes[n].record) <= chunkSize); n++ {
			raw = append(raw, changes[n].record...)
		}
		flags, at := byte(0), revision
		if n < len(changes) {
			flags, at = flagMore, ""
		}
		payload := appendCrumb(nil, c.trail.tip.seq+1, at)
		payload = c.deltas.append(payload, flags, raw)
		c.trail.add(&crumb{revision: at, lost: lost, at: now, events: n, frame: appendFrame(nil, frameCrumb, payload)})
		if changes = changes[n:]; len(changes) == 0 {
			return
		}
	}
}

// addStatus adds a crumb that tells whether the store is followed.
func (c *cache) addStatus(lost error, now time.Time) {
	s := status{Seq: c.trail.tip.seq + 1}
	if lost != nil {
		s.Code, s.Reason = codeOf(lost)
	}
	c.trail.add(&crumb{revision: c.trail.tip.revision, lost: lost, at: now, frame: messageFrame(frameStatus, s)})
}

// state reports whether there is a complete state, and why the store cannot be followed just now.
func (c *cache) state() (inSync bool, lost error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.trail.tip != nil, c.pending.lost
}

func (c *cache) nodeCount() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.nodes
}

// hasNode reports whether there is a Node of that name.
func (c *cache) hasNode(name string) bool {
	_, ok := c.get(v3.Key{Kind: v3.KindNode, Name: name})
	return ok
}

// get returns the record of an object.
func (c *cache) get(key v3.Key) ([]byte, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	i, ok := c.items[key]
	return i.record, ok
}

// A snapshot is the state after a crumb, as frames.
type snapshot struct {
	seq             uint64
	total           uint64 // as of the crumb
	frames          [][]byte
	raw, compressed int
}

// A build is a snapshot in the making. All that wait for it get it with the crumb that it belongs to, even if that is not
// held any more by then.
type build struct {
	done chan struct{} // closed when snap is set
	base *crumb
	snap *snapshot
}

// minReuse is how many bytes of crumbs since a snapshot are never a reason to make another.
const minReuse = 64 << 10

// snapshot returns a snapshot, not always of the newest state, and the crumb that it belongs to. One that exists is used
// again as long as the crumbs since then are small beside it.
func (c *cache) snapshot(ctx context.Context) (*snapshot, *crumb, error) {
	c.mu.Lock()
	if s := c.latest; s != nil {
		base := c.trail.at(s.seq)
		if base != nil && c.trail.tip.total-s.total <= uint64(max(minReuse, s.compressed/2)) {
			c.mu.Unlock()
			c.metrics.snapshotsReused.Inc()
			return s, base, nil
		}
	}
	b := c.build
	if b == nil {
		b = &build{done: make(chan struct{}), base: c.trail.tip}
		c.build = b
		records := make([]change, 0, len(c.items))
		for key, i := range c.items {
			records = append(records, change{key: key, item: i})
		}
		go c.finish(b, records)
	} else {
		c.metrics.snapshotsReused.Inc()
	}
	c.mu.Unlock()
	select {
	case <-b.done:
		return b.snap, b.base, nil
	case <-ctx.Done():
		return nil, nil, ctx.Err()
	}
}

// finish makes the frames of a snapshot.
func (c *cache) finish(b *build, records []change) {
	slices.SortFunc(records, func(x, y change) int {
		return cmp.Or(cmp.Compare(slices.Index(c.kinds, x.key.Kind), slices.Index(c.kinds, y.key.Kind)),
			cmp.Compare(x.key.Namespace, y.key.Namespace), cmp.Compare(x.key.Name, y.key.Name))
	})
	s := &snapshot{seq: b.base.seq, total: b.base.total}
	p := newPacker(zstd.SpeedDefault)
	var raw []byte
	flush := func() {
		frame := appendFrame(nil, frameChunk, p.append(nil, 0, raw))
		s.frames = append(s.frames, frame)
		s.raw, s.compressed = s.raw+len(raw), s.compressed+len(frame)
		raw = raw[:0]
	}
	for _, r := range records {
		if len(raw) > 0 && len(raw)+len(r.record) > chunkSize {
			flush()
		}
		raw = append(raw, r.record...)
	}
	if len(raw) > 0 {
		flush()
	}
	c.metrics.snapshotMade(s)
	c.mu.Lock()
	defer c.mu.Unlock()
	b.snap, c.build = s, nil
	if c.trail.at(s.seq) != nil {
		c.latest = s
	}
	close(b.done)
}

// enter finds where a client's stream begins: behind which crumb, and after which snapshot if it needs one. accepted is
// what to tell it; with a code in it there is no stream.
func (c *cache) enter(ctx context.Context, f follow) (accepted, *crumb, *snapshot) {
	switch f.Mode {
	case modeResume:
		return c.resume(f)
	case modeNow:
		c.mu.Lock()
		defer c.mu.Unlock()
		tip := c.trail.tip
		return c.accept(tip, tip, nil)
	case modeSnapshot:
	default:
		return accepted{Code: codeNotSupported, Reason: "unknown mode"}, nil, nil
	}
	if err := c.reach(ctx, f.Newest); err != nil {
		code, reason := codeOf(err)
		return accepted{Code: code, Reason: reason}, nil, nil
	}
	snap, base, err := c.snapshot(ctx)
	if err != nil {
		return accepted{Code: codeUnavailable, Reason: err.Error()}, nil, nil
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.accept(base, c.trail.tip, snap)
}

// accept is called with the lock held.
func (c *cache) accept(base, target *crumb, snap *snapshot) (accepted, *crumb, *snapshot) {
	a := accepted{Generation: c.trail.generation, Seq: base.seq, Revision: base.revision, Target: target.seq}
	if snap != nil {
		a.Chunks = len(snap.frames)
	}
	if base.lost != nil {
		a.Lost.Code, a.Lost.Reason = codeOf(base.lost)
	}
	return a, base, snap
}

func (c *cache) resume(f follow) (accepted, *crumb, *snapshot) {
	c.mu.Lock()
	defer c.mu.Unlock()
	var from *crumb
	if f.Generation == "" {
		from = c.trail.of(f.Revision)
	} else if f.Generation == c.trail.generation {
		from = c.trail.at(f.Seq)
	}
	if from == nil {
		return accepted{Code: codeCompacted, Reason: "typha does not hold the changes since then"}, nil, nil
	}
	return c.accept(from, c.trail.tip, nil)
}

// errStale is why there are no snapshots while the store is lost.
var errStale = errors.New("typha has lost its store, and what it knows may be old")

// reach waits until the state is at a revision or a later one, for a while. It fails when the store is lost.
func (c *cache) reach(ctx context.Context, goal store.Revision) error {
	deadline := time.NewTimer(c.catchUp)
	defer deadline.Stop()
	for {
		c.mu.Lock()
		tip, lost := c.trail.tip, c.pending.lost
		c.mu.Unlock()
		if lost != nil {
			return &store.Error{Err: store.ErrUnavailable, Cause: errors.Join(errStale, lost)}
		}
		if tip.revision != "" && c.store.Reached(tip.revision, goal) {
			return nil
		}
		select {
		case <-tip.ready:
		case <-deadline.C:
			c.log.Warn("a client has seen a revision that this typha does not reach", "client", goal, "typha", tip.revision)
			return nil
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}
