package main

import (
	"errors"
	"fmt"
	"net"
	"os"
	"syscall"

	"golang.org/x/sys/unix"
)

// hostSocket is held by the agent that runs in a network namespace. It is abstract: it belongs to the namespace, as the
// rules do, and is gone with the process, however that ends.
const hostSocket = "@margay/agent"

// claimHost makes this process the one agent of its network namespace until it ends. Two would undo each other's rules,
// whatever state directories they have.
func claimHost() error {
	listener, err := net.Listen("unix", hostSocket)
	if errors.Is(err, syscall.EADDRINUSE) {
		if pid, ours := hostAgent(); ours {
			return fmt.Errorf("start agent: another one runs on this host, process %d (stop it first: two would undo each other's rules)", pid)
		}
		return nil // anybody can take a name: that must not keep the host without its rules
	}
	if err != nil {
		return fmt.Errorf("start agent: see whether another one runs: %w", err)
	}
	go func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			_ = conn.Close() // who connects has seen what it wants to know
		}
	}()
	return nil
}

// hostAgent returns the process that is the agent of this network namespace, and whether there is one. A process of another
// user, unless that is root, is none.
func hostAgent() (pid int, ok bool) {
	conn, err := net.Dial("unix", hostSocket)
	if err != nil {
		return 0, false
	}
	defer func() { _ = conn.Close() }()
	raw, err := conn.(*net.UnixConn).SyscallConn()
	if err != nil {
		return 0, false
	}
	var peer *unix.Ucred
	if e := raw.Control(func(fd uintptr) { peer, err = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED) }); e != nil || err != nil {
		return 0, false
	}
	return int(peer.Pid), peer.Uid == 0 || int(peer.Uid) == os.Geteuid()
}
