package nft

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"testing"

	"golang.org/x/sys/unix"

	"margay/ruleset"
)

// A namespace is a network namespace without a name, and a thread in it.
type namespace struct {
	fd   int
	work chan func()
	gone chan struct{}
}

// newNamespace makes a namespace that lasts as long as the test.
func newNamespace(t testing.TB) *namespace {
	t.Helper()
	if os.Getuid() != 0 {
		if os.Getenv("MARGAY_REQUIRE_NFT") == "1" {
			t.Fatal("kernel tests need root")
		}
		t.Skip("kernel tests need root")
	}
	n := &namespace{work: make(chan func()), gone: make(chan struct{})}
	born := make(chan error)
	go n.run(born)
	if err := <-born; err != nil {
		t.Fatalf("make network namespace: %v", err)
	}
	t.Cleanup(func() {
		close(n.work)
		<-n.gone
		unix.Close(n.fd)
	})
	return n
}

// run never unlocks its thread, so that the thread ends with it.
func (n *namespace) run(born chan<- error) {
	defer close(n.gone)
	runtime.LockOSThread()
	err := unix.Unshare(unix.CLONE_NEWNET)
	if err == nil {
		n.fd, err = unix.Open("/proc/thread-self/ns/net", unix.O_RDONLY|unix.O_CLOEXEC, 0)
	}
	born <- err
	for f := range n.work {
		f()
	}
}

// do runs f on the namespace's thread.
func (n *namespace) do(f func()) {
	done := make(chan struct{})
	n.work <- func() { defer close(done); f() }
	<-done
}

func (n *namespace) open(t testing.TB) *Dataplane {
	t.Helper()
	d, err := Open(Options{NetNS: n.fd})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { d.Close() })
	return d
}

// nft runs nft(8) in the namespace.
func (n *namespace) nft(t testing.TB, stdin string, args ...string) string {
	t.Helper()
	out, err := n.tryNFT(stdin, args...)
	if err != nil {
		t.Fatalf("nft %v: %v\n%s", args, err, out)
	}
	return out
}

func (n *namespace) tryNFT(stdin string, args ...string) (out string, err error) {
	n.do(func() {
		cmd := exec.Command("nft", args...)
		if stdin != "" {
			f, _ := os.CreateTemp("", "nft")
			defer os.Remove(f.Name())
			fmt.Fprint(f, stdin)
			f.Seek(0, 0)
			cmd.Stdin = f
		}
		var b []byte
		b, err = cmd.CombinedOutput()
		out = string(b)
	})
	return out, err
}

// needNFT skips the test where there is no nft(8), unless that is an error.
func needNFT(t testing.TB) {
	t.Helper()
	if _, err := exec.LookPath("nft"); err != nil {
		if os.Getenv("MARGAY_REQUIRE_NFT") == "1" {
			t.Fatal(err)
		}
		t.Skip("no nft(8)")
	}
}

func resync(t testing.TB, d *Dataplane, p *ruleset.Program) uint64 {
	t.Helper()
	before := d.Stats().Messages
	if err := d.Resync(context.Background(), p); err != nil {
		t.Fatalf("%v\n%s", err, Compile(p))
	}
	return d.Stats().Messages - before
}

// A dump that the kernel gives up is not taken for a whole one.
func TestAnswer(t *testing.T) {
	number := func(n int32) []byte { return binary.NativeEndian.AppendUint32(nil, uint32(n)) }
	for _, c := range []struct {
		name string
		m    message
		want error
		ok   bool
	}{
		{"acknowledgement", message{typ: unix.NLMSG_ERROR, data: number(0)}, nil, true},
		{"error", message{typ: unix.NLMSG_ERROR, data: number(-int32(unix.EPERM))}, unix.EPERM, true},
		{"end of a dump", message{typ: unix.NLMSG_DONE, data: number(0)}, nil, true},
		{"dump given up", message{typ: unix.NLMSG_DONE, data: number(-int32(unix.ENOMEM))}, unix.ENOMEM, true},
		{"part of a dump", message{typ: nftType(unix.NFT_MSG_NEWRULE), data: number(0)}, nil, false},
	} {
		got, ok := answer(&c.m)
		if ok != c.ok || (got == nil) != (c.want == nil) || got != nil && !errors.Is(got, c.want) {
			t.Errorf("%s: %v, %v, want %v, %v", c.name, got, ok, c.want, c.ok)
		}
	}
}
