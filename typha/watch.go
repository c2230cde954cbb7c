package typha

import (
	"context"
	"errors"
	"fmt"
	"slices"

	v3 "margay/api/v3"
	"margay/store"
)

// maxEvents is from how many events on Next takes no further crumbs that are here already.
const maxEvents = 1000

// Watch implements store.Store. A watch from the revision of the last List goes on where that ended, on its connection.
func (c *Client) Watch(_ context.Context, from store.Revision, kinds ...v3.Kind) store.Watcher {
	return &watcher{client: c, kinds: kinds, at: cursor{revision: from}}
}

// A watcher is a stream from a server. When the connection breaks the next call of Next makes another, and says which
// crumb it had last; when the server sends the client away that is done at once.
type watcher struct {
	client *Client
	kinds  []v3.Kind
	at     cursor // what was delivered; without generation: nothing yet

	over    error    // returned by Next from now on
	session *session // nil: to be opened
	partial []record // of a change whose rest is to come
}

// Revision implements store.Watcher.
func (w *watcher) Revision() store.Revision { return w.at.revision }

// Close implements store.Watcher.
func (w *watcher) Close() {
	w.drop(errClosed)
	w.over = errors.New("watch resources: the watch was closed")
}

// drop gives up the connection.
func (w *watcher) drop(reason error) {
	if w.session != nil {
		w.session.close(reason)
	}
	w.session, w.partial = nil, nil
}

// Next implements store.Watcher.
func (w *watcher) Next(ctx context.Context) ([]store.Event, error) {
	switch {
	case w.over != nil:
		return nil, w.over
	case ctx.Err() != nil:
		return nil, ctx.Err()
	case w.at.lost != nil:
		return nil, w.tell()
	case w.session == nil:
		return nil, w.open(ctx)
	}
	for {
		f, err := w.session.next(ctx)
		if err != nil {
			return nil, w.broken(ctx, err)
		}
		events, news, err := w.take(f)
		if err != nil || news {
			return events, err
		}
	}
}

// tell returns the news that the server lost its store, once.
func (w *watcher) tell() error {
	err := w.at.lost
	w.at.lost = nil
	return err
}

// take decodes a frame and those that are here already. news says that there is something to return.
func (w *watcher) take(f frame) (events []store.Event, news bool, err error) {
	for {
		ch, err := w.client.readChange(f)
		switch {
		case err != nil && len(events) > 0:
			w.drop(err) // it comes again, and is told then
			return events, true, nil
		case err != nil:
			err = &store.Error{Err: store.ErrUnavailable, Cause: fmt.Errorf("read from typha %s: %w", w.session.address, err)}
			w.drop(err)
			return nil, true, err
		case ch.status != nil:
			news = true
			w.at.seq, w.at.lost = ch.seq, lostError(*ch.status, w.session.address)
		case ch.more:
			w.partial = append(w.partial, ch.records...)
		default:
			news = true
			events = append(events, w.complete(ch)...)
		}
		if w.at.lost != nil && len(events) == 0 {
			return nil, true, w.tell()
		}
		if w.at.lost != nil || len(events) >= maxEvents {
			return events, true, nil
		}
		var ok bool
		if f, ok = w.session.poll(); !ok {
			return events, news, nil
		}
	}
}

// complete returns the events of a change whose last crumb is here.
func (w *watcher) complete(ch changeOf) []store.Event {
	var events []store.Event
	for _, r := range append(w.partial, ch.records...) {
		if slices.Contains(w.kinds, r.key.Kind) {
			events = append(events, r.event())
		}
	}
	w.partial = nil
	w.at.seq, w.at.revision = ch.seq, ch.revision
	w.client.has(ch.revision)
	return events
}

// lostError is what a server's news about its store means to a watcher; nil: the store is followed.
func lostError(s status, address string) error {
	if s.Code == "" {
		return nil
	}
	sentinel := store.ErrUnavailable
	if s.Code == codeForbidden {
		sentinel = store.ErrForbidden
	}
	return &store.Error{Err: sentinel, Cause: fmt.Errorf("typha %s cannot follow its datastore: %s", address, s.Reason)}
}

// open begins the stream: on the connection where the list is that it comes after, or on another.
func (w *watcher) open(ctx context.Context) error {
	if w.at.generation == "" && w.at.revision != "" {
		if s, at := w.client.parkedAt(w.at.revision); s != nil {
			if err := checkKinds("watch", s.kinds, w.kinds); err != nil {
				s.close(err)
				return w.end(err)
			}
			w.session, w.at = s, *at
			return nil
		}
	}
	waiting, cancel := w.client.bounded(ctx)
	defer cancel()
	s, err := w.client.stream(waiting)
	if err != nil {
		return w.client.fail(ctx, "watch resources", err)
	}
	if err := checkKinds("watch", s.kinds, w.kinds); err != nil {
		s.release()
		return w.end(err)
	}
	f := follow{Mode: modeResume, Generation: w.at.generation, Seq: w.at.seq, Revision: w.at.revision}
	if w.at.revision == "" {
		f.Mode = modeNow
	}
	a, err := s.follow(waiting, f)
	if err != nil {
		s.release()
		if errors.Is(err, store.ErrCompacted) {
			return w.end(err)
		}
		return w.client.fail(ctx, "watch resources", err)
	}
	w.session, w.at = s, s.begins(a)
	return nil
}

// end ends the watch.
func (w *watcher) end(err error) error {
	w.over = err
	return err
}

// broken decides what to do about a connection that ended.
func (w *watcher) broken(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return ctx.Err() // the connection has not ended
	}
	away := w.session.away != ""
	w.drop(err)
	if away {
		return w.open(ctx)
	}
	return w.client.fail(ctx, "watch resources", err)
}
