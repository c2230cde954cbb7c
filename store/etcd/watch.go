package etcd

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"google.golang.org/grpc/metadata"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"

	v3 "margay/api/v3"
	"margay/store"
)

// maxEvents is from how many events on Next takes no further responses that are already here.
const maxEvents = 1000

// Watch implements store.Store.
func (s *Store) Watch(_ context.Context, from store.Revision, kinds ...v3.Kind) store.Watcher {
	w := &watcher{store: s, cluster: s.cluster.Load()}
	var err error
	if w.kinds, err = newKeyspace(kinds); err != nil {
		w.over = fmt.Errorf("watch resources: %w", err)
	}
	if from != "" {
		if w.revision, err = parseRevision(from); err != nil {
			w.over = &store.Error{Err: store.ErrCompacted, Cause: err}
		}
	}
	return w
}

// A watcher is a watch on the common prefix of all kinds, so that changes of several kinds come in their order.
//
// etcd's client repairs a broken connection by itself and goes on at the right revision, but says nothing of it, and
// notices nothing of a server that is there and does not answer. So after a silence the watcher registers a second
// watch on the same stream, on a key that is never written, and waits for the confirmation: that proves connection,
// server and stream. (Asking for progress would do as well, but servers before 3.5.13 may answer with a revision whose
// events they have not sent, and etcd's client goes on from there.) If no answer comes, the stream is given up, and the
// next one begins after the last revision that was delivered.
type watcher struct {
	store   *Store
	kinds   keyspace
	cluster uint64 // id of the cluster that revision belongs to; 0: not known yet

	revision int64 // up to which every change was delivered; 0: from now on
	over     error // returned by Next from now on

	stream clientv3.WatchChan // nil: to be opened
	ctx    context.Context    // of the stream; its metadata choose the stream
	cancel context.CancelFunc
	heard  time.Time // when the server was heard last
	pong   chan answer
	next   *clientv3.WatchResponse // taken from the stream, not yet looked at
}

// An answer is what a server said to the registration of a watch.
type answer struct {
	cluster  uint64
	revision int64 // the server's
	err      error
}

// Revision implements store.Watcher.
func (w *watcher) Revision() store.Revision {
	if w.revision == 0 {
		return ""
	}
	return formatRevision(w.revision)
}

// Close implements store.Watcher.
func (w *watcher) Close() {
	w.drop()
	w.over = errors.New("watch resources: the watch was closed")
}

// drop gives up the stream.
func (w *watcher) drop() {
	if w.cancel != nil {
		w.cancel()
	}
	w.stream, w.cancel, w.pong, w.next = nil, nil, nil, nil
}

// Next implements store.Watcher.
func (w *watcher) Next(ctx context.Context) ([]store.Event, error) {
	if err := cmpErr(w.over, ctx.Err()); err != nil {
		return nil, err
	}
	if w.stream == nil {
		return nil, w.open(ctx)
	}
	quiet := time.NewTimer(time.Until(w.heard.Add(w.store.cfg.Heartbeat)))
	defer quiet.Stop()
	for {
		if resp := w.next; resp != nil {
			w.next = nil
			return w.take(ctx, resp)
		}
		select {
		case <-ctx.Done():
			return nil, ctx.Err()
		case resp, ok := <-w.stream:
			w.heard = time.Now()
			if !ok {
				return nil, w.lost(ctx, errors.New("the watch was cut off"))
			}
			w.next = &resp
		case <-quiet.C:
			if w.pong == nil {
				w.pong = make(chan answer, 1)
				go w.ping(w.ctx, w.pong)
			}
		case a := <-w.pong:
			w.heard, w.pong = time.Now(), nil
			quiet.Reset(w.store.cfg.Heartbeat)
			if err := w.check(ctx, a); err != nil {
				return nil, err
			}
		}
	}
}

// cmpErr returns the first error.
func cmpErr(errs ...error) error {
	for _, err := range errs {
		if err != nil {
			return err
		}
	}
	return nil
}

// take turns a response, and those that are here already, into events.
func (w *watcher) take(ctx context.Context, resp *clientv3.WatchResponse) ([]store.Event, error) {
	var events []store.Event
	for {
		if err := resp.Err(); err != nil {
			if len(events) > 0 {
				w.next = resp
				return events, nil
			}
			return nil, w.failed(ctx, err)
		}
		events = append(events, w.events(resp)...)
		if len(events) >= maxEvents {
			return events, nil
		}
		select {
		case more, ok := <-w.stream:
			if !ok {
				return events, nil // the next call sees it again
			}
			resp = &more
		default:
			return events, nil
		}
	}
}

// events returns what a response says of the kinds, and moves on to its last revision. A response holds all events of a
// revision or none: the server cuts between revisions, and etcd's client joins what was cut for its size.
func (w *watcher) events(resp *clientv3.WatchResponse) []store.Event {
	if resp.IsProgressNotify() {
		w.revision = max(w.revision, resp.Header.Revision)
	}
	var events []store.Event
	for _, e := range resp.Events {
		w.revision = e.Kv.ModRevision
		key, ok := w.kinds.find(string(e.Kv.Key))
		if !ok {
			continue
		}
		event := store.Event{Key: key, Revision: formatRevision(e.Kv.ModRevision)}
		if e.Type != clientv3.EventTypeDelete {
			event.Resource, event.Fault = decodeKV(key, e.Kv)
		}
		events = append(events, event)
	}
	return events
}

// open registers the watch on a stream of its own and waits until the server confirms it.
func (w *watcher) open(ctx context.Context) error {
	waiting, stop := w.store.bounded(ctx)
	defer stop()
	client, err := w.store.connect(waiting)
	if err != nil {
		return w.lost(ctx, err)
	}
	// A fresh stream has a fresh token, and what breaks it breaks no other watch. A server without leader ends it.
	number := strconv.FormatUint(w.store.watches.Add(1), 10)
	background := metadata.AppendToOutgoingContext(context.Background(), "margay-watch", number)
	w.ctx, w.cancel = context.WithCancel(clientv3.WithRequireLeader(background))
	opts := []clientv3.OpOption{clientv3.WithPrefix(), clientv3.WithCreatedNotify(), clientv3.WithProgressNotify(), clientv3.WithFragment()}
	if w.revision != 0 {
		opts = append(opts, clientv3.WithRev(w.revision+1))
	}
	created := make(chan clientv3.WatchChan, 1)
	go func(ctx context.Context) { created <- client.Watch(ctx, root, opts...) }(w.ctx)
	select {
	case w.stream = <-created:
	case <-waiting.Done():
		return w.lost(ctx, waiting.Err())
	}
	return w.confirmed(ctx, waiting)
}

// confirmed waits for the first response.
func (w *watcher) confirmed(ctx, waiting context.Context) error {
	select {
	case resp, ok := <-w.stream:
		w.heard = time.Now()
		switch {
		case !ok:
			return w.lost(ctx, errors.New("the watch was cut off"))
		case resp.Err() != nil:
			return w.failed(ctx, resp.Err())
		case !resp.Created:
			w.next = &resp
		}
		return w.check(ctx, answer{cluster: resp.Header.ClusterId, revision: resp.Header.Revision})
	case <-waiting.Done():
		return w.lost(ctx, waiting.Err())
	}
}

// ping asks the server of the stream whether it is there.
func (w *watcher) ping(stream context.Context, pong chan<- answer) {
	ctx, cancel := context.WithTimeout(stream, w.store.slowest(w.store.cfg.Heartbeat))
	defer cancel()
	client, err := w.store.connect(ctx)
	if err != nil {
		pong <- answer{err: err}
		return
	}
	if w.store.disconnected() {
		pong <- answer{err: errors.New("no server can be connected to")}
		return
	}
	// The prefix itself is no object's key. Watch returns when the server has confirmed.
	resp, ok := <-client.Watch(ctx, root, clientv3.WithCreatedNotify())
	switch {
	case !ok || !resp.Created && resp.Err() == nil:
		pong <- answer{err: context.DeadlineExceeded}
	default:
		pong <- answer{resp.Header.ClusterId, resp.Header.Revision, resp.Err()}
	}
}

// check looks at what the server said of itself: whether it is there at all, and whether it still is the one that the
// watch's revision is about. A watch from a revision that lies in a store's future would stay silent until then.
func (w *watcher) check(ctx context.Context, a answer) error {
	if a.err != nil {
		return w.failed(ctx, a.err)
	}
	if w.cluster == 0 {
		w.cluster = a.cluster
	}
	if w.revision == 0 {
		w.revision = a.revision
	}
	if a.cluster != w.cluster {
		return w.end(fmt.Errorf("another cluster answers: %x, not %x", a.cluster, w.cluster))
	}
	if a.revision >= w.revision {
		return nil
	}
	// The member may lag behind the others; the cluster as a whole may not.
	var current int64
	err := w.store.request(ctx, func(ctx context.Context, client *clientv3.Client) error {
		resp, err := client.Get(ctx, root, clientv3.WithCountOnly())
		if err == nil {
			current = resp.Header.Revision
		}
		return err
	})
	switch {
	case err != nil:
		return w.failed(ctx, err)
	case current < w.revision:
		return w.end(fmt.Errorf("the datastore went back from revision %d to %d", w.revision, current))
	}
	return nil
}

// failed returns what an error of the stream means to the caller.
func (w *watcher) failed(ctx context.Context, err error) error {
	if errors.Is(err, rpctypes.ErrCompacted) {
		return w.end(err)
	}
	return w.lost(ctx, err)
}

// end ends the watch: the caller must list again.
func (w *watcher) end(cause error) error {
	w.drop()
	w.over = &store.Error{Err: store.ErrCompacted, Cause: cause}
	return w.over
}

// lost gives up the stream; the next call of Next opens another.
func (w *watcher) lost(ctx context.Context, err error) error {
	w.drop()
	if ctx.Err() != nil {
		return ctx.Err()
	}
	err = fromReason(err)
	code, text := codeOf(err)
	if isRefusal(code, err) {
		return &store.Error{Err: store.ErrForbidden, Cause: errors.New(text)}
	}
	return w.store.unavailable(text, err)
}
