package typha

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
)

// A simulated client speaks the protocol and looks into a sample of what it gets; of the rest it checks that no crumb is
// missing. Clients without TLS have no goroutine of their own, so that the server is what is measured.
type simulated struct {
	number int
	write  func([]byte) (int, error)
	seq    atomic.Uint64
	synced atomic.Bool

	// Of the one who feeds it:
	unpack  *unpacker
	head    [headerSize + 8]byte // of the frame that is arriving, and the beginning of its payload
	n       int                  // bytes of head that are there
	payload []byte               // of a frame that is looked into
	skip    int                  // bytes of one that is not
	chunks  int                  // to come; -1: not known
	target  uint64
	objects int
	delays  []time.Duration
}

// sample: a client looks into one crumb of so many.
const sample = 200

// feed takes in what arrived.
func (c *simulated) feed(b []byte) error {
	for len(b) > 0 {
		if c.skip > 0 {
			n := min(c.skip, len(b))
			c.skip, b = c.skip-n, b[n:]
			continue
		}
		want := headerSize
		if c.n >= headerSize {
			want += min(c.size(), 8)
		}
		if c.n < want {
			n := copy(c.head[c.n:want], b)
			c.n, b = c.n+n, b[n:]
			if c.n < headerSize || c.n < headerSize+min(c.size(), 8) {
				continue
			}
			c.payload = append([]byte(nil), c.head[headerSize:c.n]...)
			if !c.looks() {
				c.skip = c.size() - len(c.payload)
			}
		}
		if c.looks() {
			n := min(c.size()-len(c.payload), len(b))
			c.payload, b = append(c.payload, b[:n]...), b[n:]
			if len(c.payload) < c.size() {
				continue
			}
		}
		if err := c.frame(frameType(c.head[4])); err != nil {
			return err
		}
		c.n, c.payload = 0, nil
	}
	return nil
}

func (c *simulated) size() int { return int(binary.BigEndian.Uint32(c.head[:])) - 1 }

// looks reports whether the frame that is arriving is looked into.
func (c *simulated) looks() bool {
	switch frameType(c.head[4]) {
	case frameAccepted:
		return true
	case frameChunk:
		return c.number%50 == 0
	case frameCrumb:
		return (c.seq.Load()+uint64(c.number))%sample == 0
	}
	return false
}

func (c *simulated) frame(t frameType) error {
	switch t {
	case frameHello:
	case framePing:
		if _, err := c.write(appendFrame(nil, framePong, c.payload)); err != nil {
			return err
		}
	case frameAccepted:
		a, err := readMessage[accepted](c.payload)
		if err != nil || a.Code != "" {
			return errors.Join(err, errors.New(a.Reason))
		}
		c.chunks, c.target = a.Chunks, a.Target
		c.seq.Store(a.Seq)
	case frameChunk:
		c.chunks--
		if c.looks() {
			records, _, err := c.unpack.records(c.payload)
			if err != nil {
				return err
			}
			c.objects += len(records)
		}
	case frameCrumb:
		if err := c.crumb(); err != nil {
			return err
		}
	default:
		return fmt.Errorf("frame of type %d", t)
	}
	if c.chunks == 0 && c.seq.Load() >= c.target && !c.synced.Load() {
		if c.number%50 == 0 && c.objects != benchObjects {
			return fmt.Errorf("the snapshot has %d objects", c.objects)
		}
		c.synced.Store(true)
	}
	return nil
}

func (c *simulated) crumb() error {
	arrived, looks := time.Now(), c.looks()
	seq := binary.BigEndian.Uint64(c.payload)
	if seq != c.seq.Load()+1 {
		return fmt.Errorf("crumb %d came after %d", seq, c.seq.Load())
	}
	c.seq.Store(seq)
	if !looks {
		return nil
	}
	_, _, pack, err := cutCrumb(c.payload)
	if err != nil {
		return err
	}
	records, _, err := c.unpack.records(pack)
	if err != nil {
		return err
	}
	for _, r := range records {
		_, rest, _ := bytes.Cut(r.value, []byte(`"at":"`))
		text, _, ok := bytes.Cut(rest, []byte(`"`))
		n, err := strconv.ParseInt(string(text), 10, 64)
		if !ok || err != nil {
			return fmt.Errorf("%s has no time: %w", r.key, err)
		}
		c.delays = append(c.delays, arrived.Sub(time.Unix(0, n)))
	}
	return nil
}

// connect adds n clients; so many are connecting at once.
func (r *benchRun) connect(n, atOnce int) {
	r.Helper()
	unpack := newUnpacker(maxRaw)
	numbers := make(chan int)
	var mu sync.Mutex
	var wg sync.WaitGroup
	for range atOnce {
		wg.Go(func() {
			for i := range numbers {
				c := &simulated{number: i, unpack: unpack, chunks: -1}
				join := r.joinPlain
				if r.tls != nil {
					join = r.joinTLS
				}
				if err := join(c); err != nil {
					r.fail(fmt.Errorf("client %d: %w", i, err))
					continue
				}
				mu.Lock()
				r.clients = append(r.clients, c)
				mu.Unlock()
			}
		})
	}
	for i := range n {
		numbers <- i
	}
	close(numbers)
	wg.Wait()
	r.await("all are in sync", func(c *simulated) bool { return c.synced.Load() })
}

func (c *simulated) introduce() error {
	_, err := c.write(append(messageFrame(frameHello, clientHello{Protocol: protocol, Node: fmt.Sprint("node", c.number)}),
		messageFrame(frameFollow, follow{Mode: modeSnapshot})...))
	return err
}

func (r *benchRun) joinTLS(c *simulated) error {
	plain, err := net.Dial("tcp", r.address)
	if err != nil {
		return err
	}
	conn := tls.Client(plain, r.tls)
	c.write = conn.Write
	if err := c.introduce(); err != nil {
		return err
	}
	r.wg.Go(func() {
		defer conn.Close()
		stop := context.AfterFunc(r.ctx, func() { plain.Close() })
		defer stop()
		buffer := make([]byte, 16<<10)
		for {
			n, err := conn.Read(buffer)
			if err == nil {
				err = c.feed(buffer[:n])
			}
			if err != nil {
				r.fail(fmt.Errorf("client %d: %w", c.number, err))
				return
			}
		}
	})
	return nil
}

// joinPlain makes a socket that Go's runtime does not know, for the loop of poll.
func (r *benchRun) joinPlain(c *simulated) error {
	address, err := netip.ParseAddrPort(r.address)
	if err != nil {
		return err
	}
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	if err := unix.Connect(fd, &unix.SockaddrInet4{Port: int(address.Port()), Addr: address.Addr().As4()}); err != nil {
		return err
	}
	c.write = func(b []byte) (int, error) { return unix.Write(fd, b) }
	if err := c.introduce(); err != nil {
		return err
	}
	r.mu.Lock()
	r.sockets[int32(fd)] = c
	r.mu.Unlock()
	return unix.EpollCtl(r.epoll, unix.EPOLL_CTL_ADD, fd, &unix.EpollEvent{Events: unix.EPOLLIN, Fd: int32(fd)})
}

// poll feeds the clients without TLS.
func (r *benchRun) poll() {
	events := make([]unix.EpollEvent, 512)
	buffer := make([]byte, 256<<10)
	for r.ctx.Err() == nil {
		n, err := unix.EpollWait(r.epoll, events, 100)
		if err != nil && !errors.Is(err, unix.EINTR) {
			r.fail(err)
			return
		}
		for _, e := range events[:max(n, 0)] {
			r.mu.Lock()
			c := r.sockets[e.Fd]
			r.mu.Unlock()
			n, err := unix.Read(int(e.Fd), buffer)
			if err == nil && n == 0 {
				err = io.EOF
			}
			if err == nil {
				err = c.feed(buffer[:n])
			}
			if err != nil {
				r.fail(fmt.Errorf("client %d: %w", c.number, err))
				return
			}
		}
	}
}

func (r *benchRun) fail(err error) {
	if r.ctx.Err() == nil {
		r.failed.CompareAndSwap(nil, &err)
	}
}

func (r *benchRun) await(what string, holds func(*simulated) bool) {
	r.Helper()
	deadline := time.Now().Add(time.Minute)
	for _, c := range r.clients {
		for !holds(c) {
			if err := r.failed.Load(); err != nil {
				r.Fatal(*err)
			}
			if time.Now().After(deadline) {
				r.Fatalf("not within a minute: %s", what)
			}
			time.Sleep(time.Millisecond)
		}
	}
}
