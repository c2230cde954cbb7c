package typha

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"sync"
	"time"

	v3 "margay/api/v3"
	"margay/store"
)

// A session is one connection to a server, from the client's side. A goroutine reads; it answers pings, hands replies to
// those who wait for them, and queues the stream for the one who claimed it.
type session struct {
	client  *Client
	conn    net.Conn
	address string
	kinds   []v3.Kind // that the server follows

	ended chan struct{} // closed when err is set
	once  sync.Once
	err   error  // why it ended
	away  string // why the server sent the client away, "" if it did not

	writes sync.Mutex // held while a frame is written

	mu      sync.Mutex
	claimed bool // the stream belongs to somebody
	listing bool // who takes as fast as it can: reading waits for it
	parked  *cursor
	last    uint64 // id of the last request
	calls   map[uint64]chan reply

	queue  []frame
	queued int           // bytes
	more   chan struct{} // capacity 1: something was queued
	room   chan struct{} // capacity 1: something was taken
}

type frame struct {
	t       frameType
	payload []byte
}

// A cursor is where in a server's list of crumbs a stream is.
type cursor struct {
	generation string
	seq        uint64
	revision   store.Revision
	lost       error // why the server cannot follow its store, to be told; nil: it can
}

// begins returns where a stream begins.
func (s *session) begins(a accepted) cursor {
	return cursor{a.Generation, a.Seq, a.Revision, lostError(a.Lost, s.address)}
}

func newSession(c *Client, conn net.Conn, address string, kinds []v3.Kind) *session {
	return &session{
		client: c, conn: conn, address: address, kinds: kinds, ended: make(chan struct{}),
		calls: map[uint64]chan reply{}, more: make(chan struct{}, 1), room: make(chan struct{}, 1),
	}
}

// alive reports whether the connection has not ended.
func (s *session) alive() bool {
	select {
	case <-s.ended:
		return false
	default:
		return true
	}
}

// claim takes the stream if it is free. One that is parked is taken from where it waits: what it had is lost.
func (s *session) claim() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.claimed {
		return false
	}
	s.claimed = true
	return true
}

// release gives the stream back, which must not have begun.
func (s *session) release() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.claimed = false
}

// close ends the session.
func (s *session) close(reason error) {
	s.once.Do(func() {
		s.err = reason
		close(s.ended)
		_ = s.conn.Close() // it is over in any case
		s.client.forget(s)
	})
}

// Why a session ends from this side.
var (
	errBehind = errors.New("more has arrived than is taken in; the connection was given up")
	errOdd    = errors.New("typha does not keep to the protocol")
)

// read takes what the server sends until the session ends.
func (s *session) read() {
	for {
		t, payload, err := readFrame(&patient{s.conn, s.client.cfg.ReadTimeout}, maxServer)
		if err == nil {
			err = s.received(t, payload)
		}
		if err != nil {
			s.close(fmt.Errorf("%s: %w", s.address, err))
			return
		}
	}
}

// A patient reader gives up when nothing arrives for a time, however long the whole takes.
type patient struct {
	conn    net.Conn
	timeout time.Duration
}

// Read implements io.Reader.
func (p *patient) Read(b []byte) (int, error) {
	if err := p.conn.SetReadDeadline(time.Now().Add(p.timeout)); err != nil {
		return 0, err
	}
	return p.conn.Read(b)
}

func (s *session) received(t frameType, payload []byte) error {
	switch t {
	case frameAccepted, frameChunk, frameCrumb, frameStatus:
		return s.enqueue(frame{t, payload})
	case framePing:
		return s.write(framePong, payload)
	case frameReply:
		r, err := readMessage[reply](payload)
		if err != nil {
			return err
		}
		s.mu.Lock()
		waiting := s.calls[r.ID]
		delete(s.calls, r.ID)
		s.mu.Unlock()
		if waiting != nil {
			waiting <- r // has room for it
		}
		return nil
	case frameBye:
		farewell, err := readMessage[bye](payload)
		s.away = farewell.Reason
		return errors.Join(fmt.Errorf("typha sent this client away: %s", farewell.Reason), err)
	}
	return fmt.Errorf("%w: a frame of type %d", errOdd, t)
}

// enqueue puts a frame into the queue. While somebody lists it waits for room; somebody who watches may be busy with a
// request on this very connection, whose reply would wait with it.
func (s *session) enqueue(f frame) error {
	for {
		s.mu.Lock()
		fits := s.queued == 0 || s.queued+len(f.payload) <= s.client.cfg.MaxBehind
		if fits {
			s.queue, s.queued = append(s.queue, f), s.queued+len(f.payload)
		}
		listing := s.listing
		s.mu.Unlock()
		switch {
		case fits:
			kick(s.more)
			return nil
		case !listing:
			return errBehind
		}
		select {
		case <-s.room:
		case <-s.ended:
			return s.err
		}
	}
}

// poll returns the next frame of the stream if there is one.
func (s *session) poll() (frame, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.queue) == 0 {
		return frame{}, false
	}
	f := s.queue[0]
	s.queue[0] = frame{}
	s.queue, s.queued = s.queue[1:], s.queued-len(f.payload)
	kick(s.room)
	return f, true
}

// next waits for the next frame of the stream. What arrived before the session ended is delivered.
func (s *session) next(ctx context.Context) (frame, error) {
	for {
		if f, ok := s.poll(); ok {
			return f, nil
		}
		select {
		case <-s.more:
		case <-s.ended:
			if f, ok := s.poll(); ok {
				return f, nil
			}
			return frame{}, s.err
		case <-ctx.Done():
			return frame{}, ctx.Err()
		}
	}
}

// write sends a frame.
func (s *session) write(t frameType, payload []byte) error {
	if len(payload) > maxClient {
		return fmt.Errorf("what is to be sent has %d bytes, more than the %d that typha takes", len(payload), maxClient)
	}
	s.writes.Lock()
	defer s.writes.Unlock()
	if err := s.conn.SetWriteDeadline(time.Now().Add(s.client.cfg.WriteTimeout)); err != nil {
		return err
	}
	_, err := s.conn.Write(appendFrame(nil, t, payload))
	if err != nil {
		s.close(err)
	}
	return err
}

// follow asks for the stream and waits for the answer. On an error, a refusal included, the stream has not begun.
func (s *session) follow(ctx context.Context, f follow) (accepted, error) {
	if err := s.write(frameFollow, mustJSON(f)); err != nil {
		return accepted{}, err
	}
	got, err := s.next(ctx)
	if err != nil {
		s.close(err) // the answer may still come, and nobody would know it
		return accepted{}, err
	}
	if got.t != frameAccepted {
		s.close(errOdd)
		return accepted{}, errOdd
	}
	a, err := readMessage[accepted](got.payload)
	switch {
	case err != nil:
		s.close(err)
		return accepted{}, err
	case a.Code != "":
		return accepted{}, errorOf(a.Code, a.Reason, v3.Key{})
	}
	return a, nil
}

// call sends a request and waits for the reply.
func (s *session) call(ctx context.Context, r request) (reply, error) {
	waiting := make(chan reply, 1)
	s.mu.Lock()
	s.last++
	r.ID = s.last
	s.calls[r.ID] = waiting
	s.mu.Unlock()
	defer func() {
		s.mu.Lock()
		delete(s.calls, r.ID)
		s.mu.Unlock()
	}()
	if err := s.write(frameRequest, mustJSON(r)); err != nil {
		return reply{}, err
	}
	select {
	case answer := <-waiting:
		return answer, nil
	case <-s.ended:
		return reply{}, s.err
	case <-ctx.Done():
		return reply{}, ctx.Err()
	}
}

// A changeOf is what one crumb says.
type changeOf struct {
	seq      uint64
	revision store.Revision
	records  []record
	more     bool // the rest of the change is in the next crumb
	status   *status
}

// readChange decodes a crumb or a status.
func (c *Client) readChange(f frame) (changeOf, error) {
	switch f.t {
	case frameStatus:
		var s status
		err := json.Unmarshal(f.payload, &s)
		return changeOf{seq: s.Seq, status: &s}, err
	case frameCrumb:
		seq, revision, pack, err := cutCrumb(f.payload)
		if err != nil {
			return changeOf{}, err
		}
		records, flags, err := c.unpack.records(pack)
		return changeOf{seq: seq, revision: revision, records: records, more: flags&flagMore != 0}, err
	}
	return changeOf{}, fmt.Errorf("%w: a frame of type %d in the stream", errOdd, f.t)
}
