package typha

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"slices"
	"sync"
	"time"
)

// A peer is one client of a server. A goroutine reads; what is to be written is written in turns, see turns, and apart
// from them what may take long. What others want of it is put in its box; nobody ever waits for it.
type peer struct {
	server *Server
	conn   net.Conn
	outlet *outlet // below conn
	node   string  // as the client introduced itself
	number int     // of this server's clients

	mu   sync.Mutex
	box  box
	slot chan struct{} // holds a token for each request under way

	place place // guarded by turns
	index int   // in turns.idle

	left chan struct{} // closed when err is set
	err  error         // why it was let go

	// Of the one who steps it:
	at         *crumb    // the last that the client has; nil: it follows nothing
	snap       *snapshot // that it gets first; nil: it has that
	chunk      int       // the next of snap
	asked      time.Time // for snap
	grace      bool      // it has not caught up since its snapshot
	graceEnd   time.Time // zero: the snapshot is under way
	graceUsed  bool
	lastSample time.Time
}

// A box is what a peer has been asked or told and not taken up.
type box struct {
	follow  *follow
	replies [][]byte // frames
	ping    bool     // one is due
	away    error    // why it is sent away
	gone    error    // why nothing is read any more
}

// maxRequests is how many requests of one client are under way at once. Further ones wait on the client's side.
const maxRequests = 4

// gather is how many bytes of crumbs go into one write at most, one crumb excepted.
const gather = 64 << 10

// buffers hold frames that go out in one write.
var buffers = sync.Pool{New: func() any { b := make([]byte, 0, gather); return &b }}

func newPeer(s *Server, conn net.Conn, out *outlet, node string) *peer {
	return &peer{server: s, conn: conn, outlet: out, node: node, slot: make(chan struct{}, maxRequests), left: make(chan struct{})}
}

// welcome tells the client that it is one, which ends the handshake.
func (p *peer) welcome() error {
	if _, err := p.conn.Write(p.server.hello); err != nil {
		return err
	}
	p.outlet.prompt = true
	return p.conn.SetDeadline(time.Time{})
}

// put puts something into the peer's box.
func (p *peer) put(change func(*box)) {
	p.mu.Lock()
	change(&p.box)
	p.mu.Unlock()
	p.server.turns.call(p)
}

// tell sends the client away.
func (p *peer) tell(reason error) { p.put(func(b *box) { b.away = reason }) }

// sentAway reports whether the client was told to go.
func (p *peer) sentAway() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.box.away != nil
}

// take empties the box, but for what stays true.
func (p *peer) take() box {
	p.mu.Lock()
	defer p.mu.Unlock()
	b := p.box
	p.box.follow, p.box.replies, p.box.ping = nil, nil, false
	return b
}

// Why a client is cut off; reasons are labels of a metric, too.
var (
	errFellBehind = errors.New("it fell behind")
	errSilent     = errors.New("it does not answer")
	errProtocol   = errors.New("it broke the protocol")
	errTooSlow    = errors.New("it does not take what is written")
)

// run serves the client until that is over, and says why it is.
func (p *peer) run(ctx context.Context) error {
	p.server.turns.enter(p)
	reading, stop := context.WithCancel(ctx)
	defer stop()
	end := context.AfterFunc(ctx, func() { _ = p.outlet.Close() }) // ends what is under way
	defer end()
	err := p.read(reading)
	_ = p.outlet.Close() // nobody waits for a write any more
	p.put(func(b *box) { b.gone = err })
	select {
	case <-p.left:
		return p.err
	case <-ctx.Done():
		return ctx.Err() // nobody has turns any more
	}
}

// leave ends the client's turns. It is called by the one who steps it.
func (p *peer) leave(err error) {
	for _, reason := range []error{errFellBehind, errSilent, errProtocol, errTooSlow} {
		if errors.Is(err, reason) {
			p.server.metrics.cut.WithLabelValues(reason.Error()).Inc()
			p.server.log.Info("client is cut off", "node", p.node, "client", p.conn.RemoteAddr().String(), "reason", err)
		}
	}
	p.follows(nil)
	_ = p.conn.Close() // ends the reading
	p.server.turns.leave(p)
	p.err = err
	close(p.left)
}

// read takes what the client sends until that ends.
func (p *peer) read(ctx context.Context) error {
	for {
		if err := p.conn.SetReadDeadline(time.Now().Add(p.server.cfg.PongTimeout)); err != nil {
			return err
		}
		t, payload, err := readFrame(p.conn, maxClient)
		var timeout net.Error
		switch {
		case errors.As(err, &timeout) && timeout.Timeout():
			return fmt.Errorf("%w for %v", errSilent, p.server.cfg.PongTimeout)
		case errors.Is(err, errFrame):
			return fmt.Errorf("%w: %w", errProtocol, err)
		case err != nil:
			return err
		}
		if err := p.received(ctx, t, payload); err != nil {
			return err
		}
	}
}

// received does what a frame asks for.
func (p *peer) received(ctx context.Context, t frameType, payload []byte) error {
	switch {
	case t == framePong && len(payload) == 8:
		sent := time.Unix(0, int64(binary.BigEndian.Uint64(payload)))
		p.server.metrics.pingTime.Observe(max(0, time.Since(sent).Seconds()))
		return nil
	case t == frameFollow:
		f, err := readMessage[follow](payload)
		if err != nil {
			return fmt.Errorf("%w: %w", errProtocol, err)
		}
		p.put(func(b *box) { b.follow = &f })
		return nil
	case t == frameRequest:
		r, err := readMessage[request](payload)
		if err != nil {
			return fmt.Errorf("%w: %w", errProtocol, err)
		}
		return p.submit(ctx, r)
	}
	return fmt.Errorf("%w: a frame of type %d and %d bytes is not for a client", errProtocol, t, len(payload))
}

// submit hands a request to those that work on requests, and waits while too many of this client are under way.
func (p *peer) submit(ctx context.Context, r request) error {
	select {
	case p.slot <- struct{}{}:
	case <-ctx.Done():
		return ctx.Err()
	}
	select {
	case p.server.jobs <- job{p, r}:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// answer is called when a request is done.
func (p *peer) answer(r reply) {
	p.put(func(b *box) { b.replies = append(b.replies, messageFrame(frameReply, r)) })
}

// step does what there is to do for the client, but nothing that waits.
func (p *peer) step(ctx context.Context) {
	b := p.take()
	if b.gone != nil || b.away != nil || b.follow != nil || len(b.replies) > 0 {
		go p.apart(func() error { return p.deal(ctx, b) })
		return
	}
	err := p.next(b.ping)
	switch {
	case err != nil:
		p.leave(err)
	case p.outlet.full():
		go p.apart(func() error { return errors.Join(p.flush(), p.keepsUp(time.Now())) })
	default:
		p.server.turns.back(p)
	}
}

// apart does something that may wait, and comes back into line.
func (p *peer) apart(do func() error) {
	if err := do(); err != nil {
		p.leave(err)
		return
	}
	p.server.turns.back(p)
}

// deal does what was in the box.
func (p *peer) deal(ctx context.Context, b box) error {
	if b.gone != nil {
		return b.gone
	}
	for _, frame := range b.replies {
		if err := p.send(frame); err != nil {
			return err
		}
		<-p.slot // so that replies that nobody reads do not pile up
	}
	switch {
	case b.away != nil:
		_ = p.send(messageFrame(frameBye, bye{b.away.Error()})) // it goes in any case
		return b.away
	case b.follow != nil:
		return p.begin(ctx, *b.follow)
	}
	return nil
}

// send writes frames, and waits until they are written.
func (p *peer) send(frames []byte) error {
	if _, err := p.conn.Write(frames); err != nil {
		return err
	}
	return p.flush()
}

func (p *peer) flush() error {
	err := p.outlet.flush(p.server.cfg.WriteTimeout)
	var expired net.Error
	if errors.As(err, &expired) && expired.Timeout() {
		return fmt.Errorf("%w: %w", errTooSlow, err)
	}
	return err
}

// begin answers a follow. A snapshot goes out in turns.
func (p *peer) begin(ctx context.Context, f follow) error {
	answer, base, snap := p.server.cache.enter(ctx, f)
	if base == nil {
		return p.send(messageFrame(frameAccepted, answer))
	}
	p.follows(base)
	p.snap, p.chunk, p.asked = snap, 0, time.Now()
	p.grace, p.graceEnd = snap != nil, time.Time{}
	if err := p.send(messageFrame(frameAccepted, answer)); err != nil {
		return err
	}
	if snap == nil {
		p.server.metrics.resumed.Inc()
		return nil
	}
	p.chunkSent()
	return nil
}

// chunkSent notes when the snapshot is complete.
func (p *peer) chunkSent() {
	if p.chunk < len(p.snap.frames) {
		return
	}
	p.snap = nil
	p.graceEnd = time.Now().Add(p.server.cfg.Grace)
	p.server.metrics.snapshotTime.Observe(time.Since(p.asked).Seconds())
}

// next writes what is next: a chunk of the snapshot, or crumbs, and a ping: a client that is not asked for long is given up.
func (p *peer) next(ping bool) error {
	if p.snap == nil {
		return p.stream(ping)
	}
	frames := p.snap.frames[p.chunk]
	if ping {
		frames = append(slices.Clip(frames), pingFrame(time.Now())...) // the chunk is everybody's
	}
	_, err := p.conn.Write(frames)
	p.chunk++
	p.chunkSent()
	return err
}

// follows notes where the client is; nil: nowhere.
func (p *peer) follows(at *crumb) {
	if (p.at == nil) != (at == nil) {
		if at != nil {
			p.server.metrics.streaming.Inc()
		} else {
			p.server.metrics.streaming.Dec()
		}
	}
	p.at = at
}

// stream writes the crumbs that are there, but not more than fits into one write, and a ping if that is due.
func (p *peer) stream(ping bool) error {
	if p.at == nil || !isReady(p.at) {
		if !ping {
			return nil
		}
		_, err := p.conn.Write(pingFrame(time.Now()))
		return err
	}
	last := p.at.next
	frames := last.frame
	if ping || isReady(last) && len(frames) < gather {
		buffer := buffers.Get().(*[]byte)
		defer buffers.Put(buffer)
		*buffer = append((*buffer)[:0], frames...)
		for isReady(last) && len(*buffer)+len(last.next.frame) <= gather {
			last = last.next
			*buffer = append(*buffer, last.frame...)
		}
		if ping {
			*buffer = append(*buffer, pingFrame(time.Now())...)
		}
		frames = *buffer
	}
	start := time.Now()
	if _, err := p.conn.Write(frames); err != nil {
		return err
	}
	p.at = last
	now := time.Now()
	if now.Sub(p.lastSample) > time.Second {
		p.lastSample = now
		p.server.metrics.sampled(last, now.Sub(start), now)
	}
	return p.keepsUp(now)
}

func pingFrame(now time.Time) []byte {
	return appendFrame(nil, framePing, binary.BigEndian.AppendUint64(nil, uint64(now.UnixNano())))
}

func isReady(c *crumb) bool {
	select {
	case <-c.ready:
		return true
	default:
		return false
	}
}

// keepsUp cuts the client off if it has fallen too far behind. It may be so after its snapshot, for a time.
func (p *peer) keepsUp(now time.Time) error {
	if p.at == nil {
		return nil
	}
	if !isReady(p.at) {
		p.server.metrics.blocked.Inc()
		p.grace = false
		return nil
	}
	p.server.metrics.unblocked.Inc()
	behind := now.Sub(p.at.next.at)
	held := p.at.seq >= p.server.cache.oldest.Load()
	if behind <= p.server.cfg.MaxFallBehind && held {
		return nil
	}
	if p.grace && (p.graceEnd.IsZero() || now.Before(p.graceEnd)) {
		if !p.graceUsed {
			p.graceUsed = true
			p.server.metrics.graceUsed.Inc()
		}
		return nil
	}
	return fmt.Errorf("%w by %v (the change it waits for is held: %v)", errFellBehind, behind.Round(time.Millisecond), held)
}
