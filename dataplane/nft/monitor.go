package nft

import (
	"errors"
	"fmt"
	"log/slog"
	"sync/atomic"

	"golang.org/x/net/bpf"
	"golang.org/x/sys/unix"
)

// A monitor listens to what the kernel says of changes of nftables.
//
// Each message carries the port of the socket that asked for the change. A filter in the kernel drops those of our own
// connection, so that our large transactions do not overrun the monitor.
type monitor struct {
	conn      *conn
	own       uint32 // port of our connection
	log       *slog.Logger
	disturbed chan struct{}
	done      chan struct{}
	count     atomic.Uint64
	// generation is the last one that was announced, after all that belongs to it.
	generation atomic.Uint32
}

func watch(netns int, own uint32, log *slog.Logger) (*monitor, error) {
	c, err := dial(netns)
	if err != nil {
		return nil, err
	}
	m := &monitor{conn: c, own: own, log: log, disturbed: make(chan struct{}, 1), done: make(chan struct{})}
	filter, err := bpf.Assemble([]bpf.Instruction{
		bpf.LoadAbsolute{Off: 12, Size: 4}, // nlmsg_pid, read as if in network order
		bpf.JumpIf{Cond: bpf.JumpEqual, Val: swapped(own), SkipTrue: 1},
		bpf.RetConstant{Val: 1<<32 - 1},
		bpf.RetConstant{Val: 0},
	})
	if err == nil {
		err = c.nl.SetBPF(filter)
	}
	if err == nil {
		err = m.listen()
	}
	if err != nil {
		c.close()
		return nil, err
	}
	go m.run()
	return m, nil
}

// listen has the kernel send its announcements. Who gets them already gets them once.
func (m *monitor) listen() error {
	if err := m.conn.nl.JoinGroup(unix.NFNLGRP_NFTABLES); err != nil {
		return fmt.Errorf("join group of nftables: %w", err)
	}
	return nil
}

// pause calls f while the monitor does not listen. With a listener, in whatever network namespace, the kernel makes an
// announcement of every element of a transaction, even if a filter drops all of them: 50,000 take ten times as long. f is to make one transaction for the
// generation it is given. If anything else was changed meanwhile, that counts as a disturbance.
func (m *monitor) pause(c *conn, f func(generation uint32) error) error {
	before, err := c.generation()
	if err != nil {
		return err
	}
	if err := m.conn.nl.LeaveGroup(unix.NFNLGRP_NFTABLES); err != nil {
		return fmt.Errorf("leave group of nftables: %w", err)
	}
	failed := f(before)
	if err := m.listen(); err != nil {
		return errors.Join(failed, err)
	}
	after, err := c.generation()
	if err != nil {
		return errors.Join(failed, err)
	}
	if failed == nil {
		before = following(before)
	}
	if after != before {
		m.disturb("rules were changed while nobody listened")
	}
	return failed
}

// following returns the generation after one; the kernel leaves 0 out.
func following(generation uint32) uint32 { return max(generation+1, 1) }

func (m *monitor) close() error {
	err := m.conn.close()
	<-m.done
	return err
}

func (m *monitor) run() {
	defer close(m.done)
	for {
		list, err := m.conn.receive(wait)
		switch {
		case errors.Is(err, unix.ENOBUFS) || errors.Is(err, unix.EMSGSIZE):
			m.disturb("messages of the kernel were lost")
			continue
		case err != nil:
			return // closed
		}
		for i := range list {
			m.handle(&list[i])
		}
	}
}

func (m *monitor) handle(msg *message) {
	if msg.typ>>8 != unix.NFNL_SUBSYS_NFTABLES || len(msg.data) < sizeofNfgenmsg || msg.portid == m.own {
		return
	}
	if msg.typ == nftType(unix.NFT_MSG_NEWGEN) {
		m.generation.Store(number(find(msg.payload(), unix.NFTA_GEN_ID)))
		return
	}
	// The first attribute of every other message is the name of the table.
	const attrTable = 1
	if (msg.data[0] == unix.NFPROTO_INET || msg.data[0] == unix.NFPROTO_BRIDGE) && text(find(msg.payload(), attrTable)) == TableName {
		m.disturb("somebody else changed the table")
	}
}

func (m *monitor) disturb(why string) {
	m.count.Add(1)
	select {
	case m.disturbed <- struct{}{}:
		m.log.Debug("nftables table disturbed", "table", TableName, "why", why)
	default:
	}
}
