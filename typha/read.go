package typha

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"

	v3 "margay/api/v3"
	"margay/store"
)

// List implements store.Store. The result is what typha had when it was asked, and no older than what this client had
// before.
func (c *Client) List(ctx context.Context, namespace string, kinds ...v3.Kind) (*store.List, error) {
	const op = "list resources"
	if err := ctx.Err(); err != nil {
		return nil, c.fail(ctx, op, err)
	}
	var s *session
	var state map[v3.Key]record
	var at cursor
	err := elsewhere(func() (*session, error) {
		var err error
		if s, err = c.stream(ctx); err != nil {
			return nil, err
		}
		if err := checkKinds("list", s.kinds, kinds); err != nil {
			s.release()
			return s, err
		}
		state, at, err = c.snapshot(ctx, s)
		return s, err
	})
	if err != nil {
		return nil, c.fail(ctx, op, err)
	}
	list := &store.List{Revision: at.revision}
	for key, r := range state {
		if !slices.Contains(kinds, key.Kind) || namespace != "" && key.Namespace != namespace {
			continue
		}
		e := r.event()
		if e.Fault != nil {
			list.Faults = append(list.Faults, *e.Fault)
		} else {
			list.Items = append(list.Items, e.Resource)
		}
	}
	sortList(list, kinds)
	c.park(s, at)
	return list, nil
}

// elsewhere does something over a connection, and once more if the server sent the client away meanwhile.
func elsewhere(do func() (*session, error)) error {
	s, err := do()
	if err != nil && s != nil && !s.alive() && s.away != "" {
		_, err = do()
	}
	return err
}

// snapshot receives the whole state. On an error the session is of no more use, but after a refusal.
func (c *Client) snapshot(ctx context.Context, s *session) (map[v3.Key]record, cursor, error) {
	s.setListing(true)
	defer s.setListing(false)
	c.mu.Lock()
	known := c.newest
	c.mu.Unlock()
	a, err := s.follow(ctx, follow{Mode: modeSnapshot, Newest: known})
	if err != nil {
		s.release()
		return nil, cursor{}, err
	}
	state, at, err := c.receive(ctx, s, a)
	if err != nil {
		s.close(err)
		return nil, cursor{}, err
	}
	c.has(at.revision)
	return state, at, nil
}

// receive takes the chunks of a snapshot and the crumbs that complete it.
func (c *Client) receive(ctx context.Context, s *session, a accepted) (map[v3.Key]record, cursor, error) {
	state := map[v3.Key]record{}
	apply := func(records []record) {
		for _, r := range records {
			if r.op == opDelete {
				delete(state, r.key)
			} else {
				state[r.key] = r
			}
		}
	}
	for range a.Chunks {
		f, err := s.next(ctx)
		if err != nil {
			return nil, cursor{}, err
		}
		if f.t != frameChunk {
			return nil, cursor{}, errOdd
		}
		records, _, err := c.unpack.records(f.payload)
		if err != nil {
			return nil, cursor{}, err
		}
		apply(records)
	}
	at := s.begins(a)
	for at.seq < a.Target {
		f, err := s.next(ctx)
		if err != nil {
			return nil, cursor{}, err
		}
		ch, err := c.readChange(f)
		if err != nil {
			return nil, cursor{}, err
		}
		apply(ch.records)
		at.seq, at.revision = ch.seq, cmp.Or(ch.revision, at.revision)
		if ch.status != nil {
			at.lost = lostError(*ch.status, s.address)
		}
	}
	return state, at, nil
}

func (s *session) setListing(is bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.listing = is
}

// park keeps the stream that a list came from for the watch that begins there. One is kept, that of the last list.
func (c *Client) park(s *session, at cursor) {
	c.mu.Lock()
	var before []*session
	for other := range c.sessions {
		if other != s && other.unpark() != nil {
			before = append(before, other)
		}
	}
	c.mu.Unlock()
	s.mu.Lock()
	s.parked = &at
	s.mu.Unlock()
	for _, other := range before {
		other.close(errors.New("a later list took its place"))
	}
}

// unpark takes the stream if it is parked, and returns where it is.
func (s *session) unpark() *cursor {
	s.mu.Lock()
	defer s.mu.Unlock()
	at := s.parked
	s.parked = nil
	return at
}

// parkedAt returns the stream that is parked at a revision and takes it; nil if there is none.
func (c *Client) parkedAt(revision store.Revision) (*session, *cursor) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for s := range c.sessions {
		s.mu.Lock()
		at := s.parked
		if at != nil && at.revision == revision {
			s.parked = nil
			s.mu.Unlock()
			return s, at
		}
		s.mu.Unlock()
	}
	return nil, nil
}

// sortList sorts by kind as given, namespace, name.
func sortList(list *store.List, kinds []v3.Kind) {
	order := func(a, b v3.Key) int {
		return cmp.Or(
			cmp.Compare(slices.Index(kinds, a.Kind), slices.Index(kinds, b.Kind)),
			cmp.Compare(a.Namespace, b.Namespace), cmp.Compare(a.Name, b.Name))
	}
	slices.SortFunc(list.Items, func(a, b v3.Resource) int { return order(v3.KeyOf(a), v3.KeyOf(b)) })
	slices.SortFunc(list.Faults, func(a, b store.Fault) int { return order(a.Key, b.Key) })
}

// Get implements store.Store.
func (c *Client) Get(ctx context.Context, key v3.Key) (v3.Resource, error) {
	return c.resource(ctx, "read", request{Op: opGet, Key: key})
}

// Previous implements store.Store: typha asks its store.
func (c *Client) Previous(ctx context.Context, key v3.Key, before store.Revision) (v3.Resource, error) {
	return c.resource(ctx, "read an earlier version of", request{Op: opPrevious, Key: key, Before: before})
}

var _ store.HostPods = (*Client)(nil)

// HostPods implements store.HostPods for the host that the client is for: typha asks its store.
func (c *Client) HostPods(ctx context.Context, node string) ([]v3.HostPod, error) {
	key := v3.Key{Kind: v3.KindNode, Name: node}
	if node != c.cfg.Node {
		return nil, unsupported("list pods on the network of", key)
	}
	answer, err := c.call(ctx, "list pods on the network of", request{Op: opHostPods, Key: key})
	return answer.HostPods, err
}

// resource makes a request whose answer is a resource.
func (c *Client) resource(ctx context.Context, op string, r request) (v3.Resource, error) {
	answer, err := c.call(ctx, op, r)
	if err != nil {
		return nil, err
	}
	records, err := decodeRecords(answer.Record)
	if err != nil || len(records) != 1 {
		return nil, fmt.Errorf("%s %s: %w", op, r.Key, errors.Join(errOdd, err))
	}
	e := records[0].event()
	if e.Fault != nil {
		return nil, e.Fault
	}
	return e.Resource, nil
}

// call makes a request.
func (c *Client) call(ctx context.Context, op string, r request) (reply, error) {
	op = op + " " + r.Key.String()
	if err := ctx.Err(); err != nil {
		return reply{}, c.fail(ctx, op, err)
	}
	waiting, cancel := c.bounded(ctx)
	defer cancel()
	var answer reply
	err := elsewhere(func() (*session, error) {
		s, err := c.session(waiting)
		if err == nil {
			answer, err = s.call(waiting, r)
		}
		return s, err
	})
	if err != nil {
		return reply{}, c.fail(ctx, op, err)
	}
	if answer.Code != "" {
		return reply{}, answered(answer, r)
	}
	return answer, nil
}

// answered is the error that a reply stands for.
func answered(answer reply, r request) error {
	switch answer.Code {
	case codeNotSupported:
		return &store.UnsupportedError{Op: r.Op, Key: r.Key, Reason: "typha does not do that for agents"}
	case codeUnavailable, codeForbidden:
		return errorOf(answer.Code, "typha: "+answer.Reason, v3.Key{})
	}
	return errorOf(answer.Code, answer.Reason, r.Key)
}

// Reached implements store.Store for stores that count their revisions; of others a revision is reached by itself only.
func (c *Client) Reached(r, goal store.Revision) bool {
	if goal == "" || r == goal {
		return true
	}
	n, err := strconv.ParseUint(string(r), 10, 64)
	m, errGoal := strconv.ParseUint(string(goal), 10, 64)
	return err == nil && errGoal == nil && n >= m
}
