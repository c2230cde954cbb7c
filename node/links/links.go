// Package links tells which network interfaces a host has and which addresses they carry, and keeps telling.
//
// It only reads: it changes no interface and decides nothing. The flow:
//
//	subscribe --> list everything --> deliver the whole --> message --> table changed? --> deliver the whole
//	    ^                                                      |
//	    +------------- error, or the kernel dropped messages (ENOBUFS)
//
// The subscription precedes the list, on a socket of its own, so that no change falls between them. A change may then be
// seen twice, in the list and as a message; messages about one object arrive in order, so the table ends right. [Watch] does
// the same for other things that rtnetlink tells.
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
	return Watch(ctx, o, interfaces(o, deliver))
}

func interfaces(o Options, deliver func(map[string][]netip.Addr)) Subject {
	t := newTable()
	return Subject{
		Name:   "interfaces",
		Groups: unix.RTMGRP_LINK | unix.RTMGRP_IPV4_IFADDR | unix.RTMGRP_IPV6_IFADDR,
		Lists: []netlink.Message{
			ListOf(unix.RTM_GETLINK, make([]byte, unix.SizeofIfInfomsg)), ListOf(unix.RTM_GETADDR, make([]byte, unix.SizeofIfAddrmsg)),
		},
		Begin: func() { *t = *newTable() },
		Apply: t.apply,
		Deliver: func() {
			if o.Running != nil {
				o.Running(t.running())
			}
			deliver(t.interfaces())
		},
	}
}

// A Subject is something that rtnetlink lists and tells the changes of. Its functions are called by one goroutine.
type Subject struct {
	Name   string // what it is, for log and errors
	Groups uint32 // of messages about changes
	Lists  []netlink.Message
	// AllNamespaces: messages come from every network namespace that has a number in this one. That needs CAP_NET_BROADCAST.
	AllNamespaces bool

	// Begin empties what is known; all of Lists follows. Apply takes in one message and reports whether something changed;
	// it ignores messages that it does not know. Deliver follows the lists and every change.
	Begin   func()
	Apply   func(netlink.Message) (changed bool, err error)
	Deliver func()
}

// ListOf returns a request for all objects of a kind; body is its fixed part.
func ListOf(kind netlink.HeaderType, body []byte) netlink.Message {
	return netlink.Message{Header: netlink.Header{Type: kind, Flags: netlink.Request | netlink.Dump}, Data: body}
}

// Watch follows a subject until the context ends, as Follow does. The buffer and the namespace are those of o.
func Watch(ctx context.Context, o Options, s Subject) error {
	pause := firstPause
	for {
		delivered, err := follow(ctx, o, s)
		if ctx.Err() != nil {
			return ctx.Err()
		}
		o.Log.Warn("watching "+s.Name+" was interrupted, listing them again", "error", err, "pause", pause)
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
func follow(ctx context.Context, o Options, s Subject) (bool, error) {
	events, err := netlink.Dial(unix.NETLINK_ROUTE, &netlink.Config{NetNS: o.NetNS, Groups: s.Groups})
	if err != nil {
		return false, fmt.Errorf("subscribe to %s: %w", s.Name, err)
	}
	defer events.Close()
	if s.AllNamespaces {
		if err := events.SetOption(netlink.ListenAllNSID, true); err != nil {
			return false, fmt.Errorf("subscribe to %s of all namespaces: %w", s.Name, err)
		}
	}
	// The default buffer works too, with more lists; only root may exceed net.core.rmem_max.
	if err := events.SetReadBuffer(cmp.Or(o.buffer, defaultBuffer)); err != nil {
		o.Log.Debug("messages keep the default buffer", "of", s.Name, "error", err)
	}
	defer context.AfterFunc(ctx, func() { _ = events.SetReadDeadline(time.Unix(1, 0)) })()

	if err := s.list(o); err != nil {
		return false, err
	}
	s.Deliver()
	for {
		messages, err := events.Receive()
		if err != nil {
			return true, fmt.Errorf("receive messages about %s: %w", s.Name, err)
		}
		changed := false
		for _, m := range messages {
			c, err := s.Apply(m)
			if err != nil {
				return true, err
			}
			changed = changed || c
		}
		if changed {
			s.Deliver()
		}
	}
}

// list takes in what the kernel has now.
func (s *Subject) list(o Options) error {
	conn, err := netlink.Dial(unix.NETLINK_ROUTE, &netlink.Config{NetNS: o.NetNS})
	if err != nil {
		return fmt.Errorf("list %s: %w", s.Name, err)
	}
	defer conn.Close()
	s.Begin()
	for _, request := range s.Lists {
		messages, err := List(conn, request)
		if err != nil {
			return fmt.Errorf("list %s: %w", s.Name, err)
		}
		for _, m := range messages {
			if _, err := s.Apply(m); err != nil {
				return err
			}
		}
	}
	return nil
}

// errInterrupted: the kernel's list changed while it was read and may be missing entries.
var errInterrupted = errors.New("the list changed while it was read")

// List returns the answers to a request for all objects, as of one moment.
func List(conn *netlink.Conn, request netlink.Message) ([]netlink.Message, error) {
	const attempts = 10
	for range attempts {
		messages, err := conn.Execute(request)
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
