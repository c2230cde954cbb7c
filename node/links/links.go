// Package links tells which network interfaces a host has and which addresses they carry, and keeps telling.
//
// It only reads: it changes no interface and decides nothing. The flow:
//
//	subscribe --> list everything --> deliver the whole --> message --> table changed? --> deliver the whole
//	    ^                                                      |
//	    +------------- error, or the kernel dropped messages (ENOBUFS)
//
// The subscription precedes the list, on a socket of its own, so that no change falls between them. A change may then be
// seen twice, in the list and as a message; messages about one object arrive in order, so the table ends right.
package links

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"time"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

// Options say where to look.
type Options struct {
	NetNS int // file descriptor of the network namespace; 0: that of the calling thread
	Log   *slog.Logger

	// Running gets the interfaces that are up and can send (their carrier is there), before each delivery; it is a change,
	// too, when one begins or ceases to be. nil: nobody wants to know.
	Running func(map[string]bool)

	buffer int // of received messages, in bytes; 0: defaultBuffer. Tests make it small to have it overflow.
}

// defaultBuffer holds the messages of a burst: an interface makes about 1.5 kB of messages when it appears.
const defaultBuffer = 4 << 20

// The pause before the subscription is made anew, doubled for every attempt that got nowhere.
const (
	firstPause = 50 * time.Millisecond
	lastPause  = 5 * time.Second
)

// Follow delivers all interfaces with their addresses, in order, once at the start and again after every change, until the
// context ends; then it returns the context's error. Errors of the kernel are logged and the list is made anew.
// What is delivered belongs to the receiver.
func Follow(ctx context.Context, o Options, deliver func(map[string][]netip.Addr)) error {
	pause := firstPause
	for {
		delivered, err := follow(ctx, o, deliver)
		if ctx.Err() != nil {
			return ctx.Err()
		}
		o.Log.Warn("watching interfaces was interrupted, listing them again", "error", err, "pause", pause)
		if delivered {
			pause = firstPause
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(pause):
		}
		pause = min(2*pause, lastPause)
	}
}

// follow runs until the first error and reports whether it delivered anything.
func follow(ctx context.Context, o Options, deliver func(map[string][]netip.Addr)) (bool, error) {
	events, err := netlink.Dial(unix.NETLINK_ROUTE, &netlink.Config{
		NetNS:  o.NetNS,
		Groups: unix.RTMGRP_LINK | unix.RTMGRP_IPV4_IFADDR | unix.RTMGRP_IPV6_IFADDR,
	})
	if err != nil {
		return false, fmt.Errorf("subscribe to interfaces: %w", err)
	}
	defer events.Close()
	// The default buffer works too, with more lists; only root may exceed net.core.rmem_max.
	if err := events.SetReadBuffer(cmp.Or(o.buffer, defaultBuffer)); err != nil {
		o.Log.Debug("interface messages keep the default buffer", "error", err)
	}
	defer context.AfterFunc(ctx, func() { _ = events.SetReadDeadline(time.Unix(1, 0)) })()

	t, err := list(o)
	if err != nil {
		return false, err
	}
	o.deliver(t, deliver)
	for {
		messages, err := events.Receive()
		if err != nil {
			return true, fmt.Errorf("receive interface messages: %w", err)
		}
		changed := false
		for _, m := range messages {
			c, err := t.apply(m)
			if err != nil {
				return true, err
			}
			changed = changed || c
		}
		if changed {
			o.deliver(t, deliver)
		}
	}
}

// deliver hands on what the table says.
func (o *Options) deliver(t *table, interfaces func(map[string][]netip.Addr)) {
	if o.Running != nil {
		o.Running(t.running())
	}
	interfaces(t.interfaces())
}

// list returns the table as the kernel has it now.
func list(o Options) (*table, error) {
	conn, err := netlink.Dial(unix.NETLINK_ROUTE, &netlink.Config{NetNS: o.NetNS})
	if err != nil {
		return nil, fmt.Errorf("list interfaces: %w", err)
	}
	defer conn.Close()
	t := newTable()
	for _, d := range []struct {
		kind netlink.HeaderType
		size int
	}{{unix.RTM_GETLINK, unix.SizeofIfInfomsg}, {unix.RTM_GETADDR, unix.SizeofIfAddrmsg}} {
		messages, err := dump(conn, d.kind, d.size)
		if err != nil {
			return nil, fmt.Errorf("list interfaces: %w", err)
		}
		for _, m := range messages {
			if _, err := t.apply(m); err != nil {
				return nil, err
			}
		}
	}
	return t, nil
}

// errInterrupted: the kernel's list changed while it was read and may be missing entries.
var errInterrupted = errors.New("the list changed while it was read")

// dump asks for all objects of a kind; body is the size of the request's fixed part, whose zero means every family.
func dump(conn *netlink.Conn, kind netlink.HeaderType, body int) ([]netlink.Message, error) {
	const attempts = 10
	for range attempts {
		messages, err := conn.Execute(netlink.Message{
			Header: netlink.Header{Type: kind, Flags: netlink.Request | netlink.Dump},
			Data:   make([]byte, body),
		})
		if err != nil {
			return nil, err
		}
		if !interrupted(messages) {
			return messages, nil
		}
	}
	return nil, errInterrupted
}

func interrupted(messages []netlink.Message) bool {
	for _, m := range messages {
		if m.Header.Flags&netlink.DumpInterrupted != 0 {
			return true
		}
	}
	return false
}
