package nft

import (
	"cmp"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"syscall"
	"time"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

// Sizes of socket buffers in bytes. They are limits, not reservations: a batch is sent as one message and must fit, and
// so must all acknowledgements of a batch that fails.
const (
	sendBuffer    = 64 << 20
	receiveBuffer = 32 << 20
	readSize      = 64 << 10 // the kernel sends at most 32 KiB at once
)

// A conn is a netlink connection to the kernel's netfilter.
type conn struct {
	nl  *netlink.Conn
	raw syscall.RawConn
	seq uint32
	buf []byte
}

func dial(netns int) (*conn, error) {
	nl, err := netlink.Dial(unix.NETLINK_NETFILTER, &netlink.Config{NetNS: netns})
	if err != nil {
		return nil, fmt.Errorf("open netlink socket: %w", err)
	}
	c := &conn{nl: nl, buf: make([]byte, readSize)}
	if err := c.prepare(); err != nil {
		nl.Close()
		return nil, fmt.Errorf("set up netlink socket: %w", err)
	}
	return c, nil
}

func (c *conn) prepare() error {
	var err error
	if c.raw, err = c.nl.SyscallConn(); err != nil {
		return err
	}
	return errors.Join(
		c.nl.SetWriteBuffer(sendBuffer), // with SO_SNDBUFFORCE
		c.nl.SetReadBuffer(receiveBuffer),
		c.nl.SetOption(netlink.ExtendedAcknowledge, true),
		c.nl.SetOption(netlink.CapAcknowledge, true))
}

func (c *conn) close() error { return c.nl.Close() }

// send sends one datagram. The kernel has dealt with all of it when it returns.
func (c *conn) send(b []byte) error {
	var n int
	var err error
	if ctl := c.raw.Write(func(fd uintptr) bool {
		for {
			n, err = unix.SendmsgN(int(fd), b, nil, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}, 0)
			if err != unix.EINTR {
				return err != unix.EAGAIN
			}
		}
	}); ctl != nil {
		return ctl
	}
	if err == nil && n != len(b) {
		return fmt.Errorf("%d of %d bytes: %w", n, len(b), unix.EMSGSIZE)
	}
	return err
}

// A patience says whether to wait for a datagram.
type patience bool

const (
	wait   patience = true
	noWait patience = false // without a datagram the error is EAGAIN
)

// receive returns the messages of one datagram. They are valid until the next call.
func (c *conn) receive(p patience) ([]message, error) {
	var n, flags int
	var err error
	if ctl := c.raw.Read(func(fd uintptr) bool {
		for {
			n, _, flags, _, err = unix.Recvmsg(int(fd), c.buf, nil, unix.MSG_DONTWAIT)
			if err != unix.EINTR {
				return err != unix.EAGAIN || p == noWait
			}
		}
	}); ctl != nil {
		return nil, ctl
	}
	if err != nil {
		return nil, err
	}
	if flags&unix.MSG_TRUNC != 0 {
		return nil, fmt.Errorf("receive: %w", unix.EMSGSIZE)
	}
	return messages(c.buf[:n]), nil
}

// A message is one netlink message.
type message struct {
	typ, flags  uint16
	seq, portid uint32
	family      byte // of a request; 0: inet
	data        []byte
}

func messages(b []byte) []message {
	var out []message
	for len(b) >= unix.SizeofNlMsghdr {
		n := int(binary.NativeEndian.Uint32(b))
		if n < unix.SizeofNlMsghdr || n > len(b) {
			break
		}
		out = append(out, message{
			typ: binary.NativeEndian.Uint16(b[4:]), flags: binary.NativeEndian.Uint16(b[6:]),
			seq: binary.NativeEndian.Uint32(b[8:]), portid: binary.NativeEndian.Uint32(b[12:]),
			data: b[unix.SizeofNlMsghdr:n],
		})
		b = b[min((n+3)&^3, len(b)):]
	}
	return out
}

// nftType returns the message type of an NFT_MSG constant.
func nftType(msg uint16) uint16 { return unix.NFNL_SUBSYS_NFTABLES<<8 | msg }

// sizeofNfgenmsg is the length of the header that all netfilter messages have: family, version, resource.
const sizeofNfgenmsg = 4

// payload returns the attributes of a netfilter message.
func (m *message) payload() []attribute {
	if len(m.data) < sizeofNfgenmsg {
		return nil
	}
	return attrs(m.data[sizeofNfgenmsg:])
}

// appendMessage appends a message; resource is in network order on the wire.
func appendMessage(b []byte, m message, family byte, resource uint16) []byte {
	b = binary.NativeEndian.AppendUint32(b, uint32(unix.SizeofNlMsghdr+sizeofNfgenmsg+len(m.data)))
	b = binary.NativeEndian.AppendUint16(b, m.typ)
	b = binary.NativeEndian.AppendUint16(b, m.flags)
	b = binary.NativeEndian.AppendUint32(b, m.seq)
	b = binary.NativeEndian.AppendUint32(b, 0)
	b = append(b, family, unix.NFNETLINK_V0)
	b = binary.BigEndian.AppendUint16(b, resource)
	return append(b, m.data...) // attributes are padded already
}

// kernelError is what the kernel says of a message.
type kernelError struct {
	seq   uint32
	errno unix.Errno
	text  string // from the kernel, may be empty
}

func (e *kernelError) Error() string {
	if e.text == "" {
		return e.errno.Error()
	}
	return e.errno.Error() + ": " + e.text
}

func (e *kernelError) Unwrap() error { return e.errno }

// answer reads an acknowledgement or the end of a dump; ok is false for any other message. A nil error says that all went
// well: a dump that the kernel gives up ends with an error, too.
func answer(m *message) (err *kernelError, ok bool) {
	if m.typ != unix.NLMSG_ERROR && m.typ != unix.NLMSG_DONE || len(m.data) < 4 {
		return nil, false
	}
	errno := -int32(binary.NativeEndian.Uint32(m.data))
	if errno <= 0 {
		return nil, true
	}
	err = &kernelError{seq: m.seq, errno: unix.Errno(errno)}
	const header = 4 + unix.SizeofNlMsghdr // the error and the header of the message that it is about
	if m.typ == unix.NLMSG_ERROR && m.flags&unix.NLM_F_ACK_TLVS != 0 && len(m.data) > header {
		err.text = text(find(attrs(m.data[header:]), unix.NLMSGERR_ATTR_MSG))
	}
	return err, true
}

// request sends one message and hands the answers to f until they end.
func (c *conn) request(m message, f func(*message)) error {
	c.seq++
	m.seq = c.seq
	m.flags |= unix.NLM_F_REQUEST
	if err := c.send(appendMessage(nil, m, cmp.Or(m.family, unix.NFPROTO_INET), 0)); err != nil {
		return err
	}
	var interrupted bool
	for {
		list, err := c.receive(wait)
		if err != nil {
			return err
		}
		for i := range list {
			m := &list[i]
			if m.seq != c.seq {
				continue
			}
			interrupted = interrupted || m.flags&unix.NLM_F_DUMP_INTR != 0
			if kerr, ok := answer(m); ok {
				switch {
				case kerr != nil:
					return kerr
				case interrupted:
					return errInterrupted
				}
				return nil
			}
			f(m)
		}
	}
}

// errInterrupted: the rules changed while they were read.
var errInterrupted = errors.New("dump was interrupted by a change")

// tries bounds how often a batch is sent again that the kernel had no memory for, and the first pause in between.
const (
	tries      = 6
	firstPause = 2 * time.Millisecond
)

// transact sends a batch; the kernel takes all of it or nothing. A *kernelError with errno ERESTART says that the
// generation is not the batch's any more.
func (c *conn) transact(ctx context.Context, b *batch) error {
	pause := firstPause
	for try := 1; ; try++ {
		err := c.transactOnce(b)
		if err == nil || try == tries || !transient(err) {
			return err
		}
		select {
		case <-ctx.Done():
			return errors.Join(err, ctx.Err())
		case <-time.After(pause):
			pause *= 2
		}
	}
}

// transient reports whether a batch that failed in this way may succeed later as it is. The kernel has taken nothing of
// it.
func transient(err error) bool {
	var sent *sendError
	var kernel *kernelError
	switch {
	case errors.As(err, &sent):
		return errors.Is(err, unix.ENOBUFS) || errors.Is(err, unix.ENOMEM) || errors.Is(err, unix.EAGAIN)
	case errors.As(err, &kernel):
		return kernel.errno == unix.EAGAIN || kernel.errno == unix.EINTR || kernel.errno == unix.ENOMEM ||
			kernel.errno == unix.ENOBUFS
	}
	return false
}

// A sendError: the kernel did not take the datagram.
type sendError struct{ err error }

func (e *sendError) Error() string { return "send: " + e.err.Error() }
func (e *sendError) Unwrap() error { return e.err }

func (c *conn) transactOnce(b *batch) error {
	datagram := b.finish(c.seq + 1)
	c.seq += uint32(len(b.notes))
	if err := c.send(datagram); err != nil {
		return &sendError{err}
	}
	acknowledged := false
	var first error
	for {
		list, err := c.receive(noWait)
		if errors.Is(err, unix.EAGAIN) {
			break
		}
		if err != nil {
			return fmt.Errorf("receive acknowledgement: %w (whether the change was made is unknown)", err)
		}
		for i := range list {
			kerr, ok := answer(&list[i])
			switch {
			case !ok || !b.has(list[i].seq):
			case kerr == nil:
				acknowledged = true
			case first == nil:
				first = fmt.Errorf("%s: %w", b.note(kerr.seq), kerr)
			}
		}
	}
	if first == nil && !acknowledged {
		return errors.New("no acknowledgement from the kernel (whether the change was made is unknown)")
	}
	return first
}
