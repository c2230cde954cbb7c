package typha

import (
	"errors"
	"io"
	"net"
	"sync"
	"syscall"
	"time"
)

// An outlet is the connection below a peer's TLS, if there is any. Its Write does not wait: what the socket does not take
// is kept, and flush writes it later and waits. So TLS, which cannot stop in the middle of a record, needs no goroutine of
// its own either. It begins as an ordinary connection, for the handshake.
//
// The peer's goroutine that reads writes as well, without being asked: TLS answers with alerts and new keys. So there is a
// lock, and such a Write waits for a flush that is under way: what goes out stays in order, or the client would see a
// broken record.
type outlet struct {
	net.Conn
	prompt bool // Write does not wait

	mu   sync.Mutex
	rest []byte

	raw syscall.RawConn // nil: there is none; then all is kept for flush
	out []byte          // what try is to write; here, so that a write needs no closure of its own
	n   int
	err error
	try func(fd uintptr) bool
}

func newOutlet(conn net.Conn) *outlet {
	o := &outlet{Conn: conn}
	if socket, ok := conn.(syscall.Conn); ok {
		o.raw, _ = socket.SyscallConn() // without it, everything takes the longer way
	}
	o.try = func(fd uintptr) bool {
		o.n, o.err = writeNow(int(fd), o.out)
		return true // whatever came of it: waiting is not done here
	}
	return o
}

// Write implements net.Conn.
func (o *outlet) Write(b []byte) (int, error) {
	if !o.prompt {
		return o.Conn.Write(b)
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	n := 0
	if o.raw != nil && len(o.rest) == 0 {
		o.out, o.n, o.err = b, 0, nil
		err := o.raw.Write(o.try)
		o.out = nil
		switch {
		case err != nil:
			return 0, err // closed
		case o.err == nil && o.n == 0 && len(b) > 0:
			return 0, io.ErrUnexpectedEOF
		case o.err == nil:
			n = o.n
		case !errors.Is(o.err, syscall.EAGAIN):
			return 0, o.err
		}
	}
	o.rest = append(o.rest, b[n:]...)
	return len(b), nil
}

// writeNow writes what fits without waiting; EAGAIN if nothing does.
func writeNow(fd int, b []byte) (int, error) {
	for {
		n, err := syscall.Write(fd, b)
		if !errors.Is(err, syscall.EINTR) {
			return n, err
		}
	}
}

// full reports whether something was kept.
func (o *outlet) full() bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	return len(o.rest) > 0
}

// flush writes what was kept, within the time.
func (o *outlet) flush(timeout time.Duration) error {
	o.mu.Lock()
	defer o.mu.Unlock()
	if len(o.rest) == 0 {
		return nil
	}
	// Deadlines of the socket end a prompt write, too.
	if err := o.SetWriteDeadline(time.Now().Add(timeout)); err != nil {
		return err
	}
	_, err := o.Conn.Write(o.rest)
	o.rest = nil
	return errors.Join(err, o.SetWriteDeadline(time.Time{}))
}
