package typha

import (
	"context"
	"runtime"
	"sync"
)

// turns says whose turn it is to be written to. A crumb concerns all clients at once, and a write is mostly work of the
// kernel: with a goroutine for each client thousands would stand in line before the one that takes the next change from
// the store. Here a few goroutines, one for each processor, take the peers in the order in which they were called, and
// let others run in between.
//
//	      call                    step: more to write
//	idle ------> waiting <------------------+
//	  ^             |  next                 |
//	  |             v                       |
//	  +--------- stepping ------------------+--> apart: in a goroutine of its own, that may wait
//	   step: nothing to write               |             |
//	                                        +-------------+ back
type turns struct {
	mu      sync.Mutex
	some    sync.Cond // there is somebody in line
	changes line      // of those that get changes
	bulk    line      // of those that get a snapshot
	taken   int       // turns so far
	idle    []*peer
	stopped bool
}

// bulkShare: one turn of so many is for a snapshot while both lines are long. When thousands of clients come at once, those
// that are here already get their changes not much later than otherwise.
const bulkShare = 4

// A line is a queue.
type line struct {
	peers []*peer // from head on
	head  int
}

func (l *line) empty() bool { return l.head == len(l.peers) }

func (l *line) push(p *peer) { l.peers = append(l.peers, p) }

func (l *line) pop() *peer {
	p := l.peers[l.head]
	l.peers[l.head] = nil
	if l.head++; 2*l.head >= len(l.peers) {
		l.peers, l.head = append(l.peers[:0], l.peers[l.head:]...), 0
	}
	return p
}

// The places of a peer.
type place uint8

const (
	placeNone     place = iota // it was not let in, or has left
	placeIdle                  // in turns.idle
	placeWaiting               // in a line
	placeStepping              // somebody steps it; also apart
	placeCalled                // the same, and it was called meanwhile
)

// pauseAfter is how many peers are written to before others may run: about a tenth of a millisecond's work.
const pauseAfter = 8

func newTurns() *turns {
	t := &turns{}
	t.some.L = &t.mu
	return t
}

// run takes the peers in line until stop is called.
func (t *turns) run(ctx context.Context) {
	for n := 1; ; n++ {
		p := t.next()
		if p == nil {
			return
		}
		p.step(ctx)
		if n%pauseAfter == 0 {
			runtime.Gosched()
		}
	}
}

// stop ends all runs.
func (t *turns) stop() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.stopped = true
	t.some.Broadcast()
}

// next returns the first in line, and waits for one; nil: it is over.
func (t *turns) next() *peer {
	t.mu.Lock()
	defer t.mu.Unlock()
	for t.changes.empty() && t.bulk.empty() && !t.stopped {
		t.some.Wait()
	}
	if t.stopped {
		return nil
	}
	t.taken++
	from := &t.changes
	if t.changes.empty() || !t.bulk.empty() && t.taken%bulkShare == 0 {
		from = &t.bulk
	}
	p := from.pop()
	p.place = placeStepping
	return p
}

// call gets a peer its turn, for there is something to do for it.
func (t *turns) call(p *peer) {
	t.mu.Lock()
	defer t.mu.Unlock()
	switch p.place {
	case placeIdle:
		t.unidle(p)
		t.enqueue(p)
	case placeStepping:
		p.place = placeCalled
	}
}

// callAll is call for all that are idle, after a new crumb. Those that are not look for it before they become so.
func (t *turns) callAll() {
	t.mu.Lock()
	defer t.mu.Unlock()
	for i, p := range t.idle {
		t.idle[i] = nil
		t.enqueue(p)
	}
	t.idle = t.idle[:0]
}

// enter lets a new peer in, and leave ends its turns; whoever steps it calls it.
func (t *turns) enter(p *peer) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.enqueue(p)
}

func (t *turns) leave(p *peer) {
	t.mu.Lock()
	defer t.mu.Unlock()
	p.place = placeNone
}

// back is called when a step is over: the peer waits for its next turn if it was called or has more to get.
func (t *turns) back(p *peer) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if p.place == placeCalled || p.snap != nil || p.at != nil && isReady(p.at) {
		t.enqueue(p)
		return
	}
	p.place, p.index = placeIdle, len(t.idle)
	t.idle = append(t.idle, p)
}

// enqueue is called with the lock held.
func (t *turns) enqueue(p *peer) {
	p.place = placeWaiting
	if p.snap != nil {
		t.bulk.push(p)
	} else {
		t.changes.push(p)
	}
	t.some.Signal()
}

// unidle takes a peer out of the idle ones.
func (t *turns) unidle(p *peer) {
	last := len(t.idle) - 1
	t.idle[p.index] = t.idle[last]
	t.idle[p.index].index = p.index
	t.idle[last] = nil
	t.idle = t.idle[:last]
}
