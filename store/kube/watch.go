package kube

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"net/url"
	"strconv"
	"time"

	v3 "margay/api/v3"
	"margay/store"
	"margay/store/kube/convert"
)

const (
	// maxEvents is from how many events on Next returns what it has.
	maxEvents = 1000
	// waiting is how many events may wait for Next; beyond that the streams wait.
	waiting = 256
	// shortestWatch is how long the server is asked to keep a stream; it is up to twice that.
	shortestWatch = 5 * time.Minute
	// firstPause and longestPause bound the time between two attempts to open a stream.
	firstPause   = 50 * time.Millisecond
	longestPause = 3 * time.Second
)

// What the server says of an event.
const (
	eventModified = "MODIFIED"
	eventDeleted  = "DELETED"
	eventBookmark = "BOOKMARK"
	eventError    = "ERROR"
)

type watchEvent struct {
	Type   string          `json:"type"`
	Object json.RawMessage `json:"object"`
}

// Watch implements store.Store.
func (s *Store) Watch(_ context.Context, from store.Revision, kinds ...v3.Kind) store.Watcher {
	w := &watcher{store: s, kinds: kinds, from: from, state: vector{}, down: map[*source]error{}, news: make(chan news, waiting)}
	w.ctx, w.cancel = context.WithCancel(s.ctx)
	return w
}

// A watcher merges the streams of its sources:
//
//	stream of pods  ----.
//	stream of tiers ----+--> news --> Next
//	...             ----'
//
// Each stream is a goroutine that goes on where it was when its connection ends, and says when it cannot. It is over, for
// all, when the server no longer has the changes since the version that one stream has reached.
type watcher struct {
	store *Store
	kinds []v3.Kind
	from  store.Revision

	ctx    context.Context // of the streams
	cancel context.CancelFunc
	news   chan news

	// The rest belongs to Next.
	started  bool
	state    vector
	events   []store.Event
	over     error             // returned by Next from now on
	unopened map[*source]bool  // streams that never were open
	down     map[*source]error // streams that are not open, and why
	changed  bool              // whether streams are open is to be told
}

// news is what a stream says: an event, or only a version, or that it is open, or why it is not.
type news struct {
	src     *source
	events  []store.Event
	version uint64 // 0: as before
	open    bool
	err     error
}

// errGone says that the watch is over.
var errGone = errors.New("the API server no longer has the changes since then")

// Revision implements store.Watcher.
func (w *watcher) Revision() store.Revision {
	if !w.started {
		return w.from
	}
	return w.state.state()
}

// Close implements store.Watcher.
func (w *watcher) Close() {
	w.cancel()
	w.over = errors.New("watch resources: the watch was closed")
}

// Next implements store.Watcher.
func (w *watcher) Next(ctx context.Context) ([]store.Event, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	if w.over == nil && !w.started {
		if err := w.start(ctx); err != nil {
			return nil, err
		}
	}
	for w.over == nil || len(w.events) > 0 {
		w.drain()
		switch {
		case len(w.events) > 0:
			events := w.events
			w.events = nil
			return events, nil
		case w.over != nil:
		case w.changed:
			w.changed = false
			return nil, w.trouble()
		default:
			select {
			case n := <-w.news:
				w.take(n)
			case <-ctx.Done():
				return nil, ctx.Err()
			case <-w.ctx.Done():
				w.over = fmt.Errorf("watch resources: %w", errClosed)
			}
		}
	}
	w.cancel()
	return nil, w.over
}

// drain takes what is here already.
func (w *watcher) drain() {
	for w.over == nil && len(w.events) < maxEvents {
		select {
		case n := <-w.news:
			w.take(n)
		default:
			return
		}
	}
}

// trouble returns why a stream is not open, nil if all are.
func (w *watcher) trouble() error {
	var first error
	for _, err := range w.down {
		if first == nil || errors.Is(err, store.ErrForbidden) {
			first = err
		}
	}
	return first
}

// take notes what a stream says.
func (w *watcher) take(n news) {
	w.events = append(w.events, n.events...)
	if n.version > 0 {
		w.state[n.src.id] = max(w.state[n.src.id], n.version)
	}
	switch {
	case errors.Is(n.err, errGone):
		w.over = &store.Error{Err: store.ErrCompacted, Cause: n.err}
	case n.err != nil:
		w.down[n.src], w.changed = n.err, true
	case n.open:
		delete(w.unopened, n.src)
		delete(w.down, n.src)
		w.changed = w.changed || len(w.unopened) == 0 && len(w.down) == 0
	}
}

// start opens the streams where the watch begins.
func (w *watcher) start(ctx context.Context) error {
	sources, err := w.store.sources(ctx, w.kinds)
	if err != nil {
		return contextual(ctx, err)
	}
	from := vector{}
	if w.from != "" {
		if from, err = parseRevision(w.from); err != nil {
			w.over = &store.Error{Err: store.ErrCompacted, Cause: err}
			return nil
		}
	}
	state := vector{}
	for _, src := range sources {
		n, known := from.at(src.id)
		if !known {
			if n, err = w.store.now(ctx, src); err != nil {
				return err
			}
		}
		if !src.served {
			n = 0
		}
		state[src.id] = n
		if said, ok := from[src.id]; ok && said != n || n == 0 && src.served {
			w.over = &store.Error{Err: store.ErrCompacted, Cause: fmt.Errorf("whether the API server has %s changed", src)}
			return nil
		}
	}
	w.state, w.started, w.unopened = state, true, map[*source]bool{}
	for _, src := range sources {
		if !src.served {
			go w.await(src)
			continue
		}
		w.unopened[src] = true
		go w.follow(src, state[src.id])
	}
	w.changed = len(w.unopened) == 0
	return nil
}

// now returns the version of a source at the moment, 0 if it is not served.
func (s *Store) now(ctx context.Context, src *source) (uint64, error) {
	if !src.served {
		return 0, nil
	}
	body, err := s.client.do(ctx, request{path: src.path("", ""), query: url.Values{"limit": {"1"}}, accept: metadataOnly})
	if err != nil {
		return 0, s.fail(ctx, "watch "+src.String()+" for", v3.Key{}, err)
	}
	var p page
	if err := json.Unmarshal(body, &p); err != nil {
		return 0, fmt.Errorf("read a list of %s: %w", src, err)
	}
	return strconv.ParseUint(p.Metadata.ResourceVersion, 10, 64)
}

// send hands over news, unless the watch is closed.
func (w *watcher) send(n news) bool {
	select {
	case w.news <- n:
		return true
	case <-w.ctx.Done():
		return false
	}
}

// await waits until the server serves a resource type that it did not, and then ends the watch.
func (w *watcher) await(src *source) {
	for {
		select {
		case <-w.ctx.Done():
			return
		case <-time.After(staleCatalog + rand.N(staleCatalog/4)):
		}
		sources, err := w.store.sources(w.ctx, []v3.Kind{src.kind})
		if err != nil {
			continue
		}
		for _, now := range sources {
			if now.id == src.id && now.served {
				w.send(news{src: src, err: errGone})
				return
			}
		}
	}
}

// follow keeps a stream open from a version on, until the watch is closed or over.
func (w *watcher) follow(src *source, version uint64) {
	pause := firstPause
	for {
		at, opened := version, time.Now()
		err := w.stream(src, &version)
		if w.ctx.Err() != nil {
			return
		}
		if version > at {
			pause = firstPause
		}
		switch {
		case errors.Is(err, errGone):
			w.send(news{src: src, err: err})
			return
		case err == nil && time.Since(opened) > time.Second:
		default:
			if err != nil && !w.send(news{src: src, err: w.store.fail(w.ctx, "watch "+src.String()+" for", v3.Key{}, err)}) {
				return
			}
			select {
			case <-w.ctx.Done():
				return
			case <-time.After(pause/2 + rand.N(pause/2)):
			}
			pause = min(2*pause, longestPause)
		}
	}
}

// stream opens one stream and hands over what it brings, until it ends. nil: the server ended it as it was told to.
func (w *watcher) stream(src *source, version *uint64) error {
	seconds := int((shortestWatch + rand.N(shortestWatch)).Seconds())
	query := url.Values{
		"watch": {"1"}, "allowWatchBookmarks": {"true"}, "timeoutSeconds": {strconv.Itoa(seconds)},
		"resourceVersion": {strconv.FormatUint(*version, 10)},
	}
	for name, values := range src.query {
		query[name] = values
	}
	opening, stop := context.WithCancel(w.ctx)
	defer stop()
	// Until the answer begins the server is given as long as for any other request.
	late := time.AfterFunc(w.store.client.timeout, stop)
	resp, err := w.store.client.send(opening, request{path: src.path("", ""), query: query})
	if late.Stop(); err != nil {
		if hasCode(err, http.StatusGone) || notFound(err) {
			w.store.forget()
			return fmt.Errorf("%w: %w", errGone, err)
		}
		return err
	}
	defer resp.Body.Close()
	if !w.send(news{src: src, open: true}) {
		return nil
	}
	for d := json.NewDecoder(resp.Body); ; {
		var e watchEvent
		if err := d.Decode(&e); err != nil {
			if errors.Is(err, io.EOF) && w.store.client.closed.Load() {
				return errClosed
			}
			if errors.Is(err, io.EOF) {
				return nil
			}
			return fmt.Errorf("the watch was cut off: %w", err)
		}
		if err := w.event(src, e, version); err != nil {
			return err
		}
	}
}

// event hands over one event.
func (w *watcher) event(src *source, e watchEvent, version *uint64) error {
	if e.Type == eventError {
		status := readStatus(&http.Response{Status: "an error in a watch"}, e.Object)
		var code struct {
			Code int `json:"code"`
		}
		_ = json.Unmarshal(e.Object, &code) // without a code it is no end
		if status.code = code.Code; code.Code == http.StatusGone {
			return fmt.Errorf("%w: %w", errGone, status)
		}
		return status
	}
	var h head
	if err := json.Unmarshal(e.Object, &h); err != nil {
		return fmt.Errorf("read an event of %s: %w", src, err)
	}
	n, err := strconv.ParseUint(h.Metadata.ResourceVersion, 10, 64)
	if err != nil {
		return fmt.Errorf("read an event of %s: resourceVersion %q is no number", src, h.Metadata.ResourceVersion)
	}
	*version = n
	msg := news{src: src, version: n}
	if e.Type != eventBookmark {
		msg.events = w.store.changes(src, e)
	}
	w.send(msg)
	return nil
}

// changes returns what an event means for resources.
func (s *Store) changes(src *source, e watchEvent) []store.Event {
	it := s.decode(src, e.Object)
	if it.key == (v3.Key{}) {
		return nil
	}
	at := store.Revision(it.version())
	if e.Type == eventDeleted {
		return []store.Event{{Key: it.key, Revision: at}}
	}
	events := []store.Event{{Key: it.key, Revision: at, Resource: it.resource, Fault: it.fault}}
	if _, name := whereIs(it.key); src.id == idClusterPolicies && e.Type == eventModified {
		// It may have been in the other tier.
		for _, tier := range []string{v3.TierKubeAdmin, v3.TierKubeBaseline} {
			if other := convert.ClusterPolicyName(tier, name.name); other != it.key.Name {
				events = append(events, store.Event{Key: v3.Key{Kind: it.key.Kind, Name: other}, Revision: at})
			}
		}
	}
	return events
}
