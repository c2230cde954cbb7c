package lab

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"runtime"
	"runtime/debug"
	"sync"
	"time"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"
)

// A namespace is a network namespace without a name: it lives as long as fd, the keeper, or a socket in it.
type namespace struct {
	fd      int
	netlink *netlink.Handle
	// keeper runs functions on a thread that was born in the namespace and lives until close. Processes are started
	// from it, since the kernel ties "die with your parent" to the thread that made the process.
	keeper chan func()
	quit   chan struct{} // closed to end the keeper
	ended  chan struct{} // closed when it has ended, but for its thread
	once   sync.Once
}

// newNamespace makes a namespace in which lo is up.
func newNamespace() (*namespace, error) {
	ns := &namespace{fd: -1, keeper: make(chan func()), quit: make(chan struct{}), ended: make(chan struct{})}
	born := make(chan error)
	go ns.keep(born)
	if err := <-born; err != nil {
		return nil, err
	}
	if err := ns.setUp(); err != nil {
		ns.close()
		return nil, err
	}
	return ns, nil
}

// keep is the keeper. It ends with its thread locked, so that the runtime ends the thread too.
func (ns *namespace) keep(born chan<- error) {
	defer close(ns.ended)
	runtime.LockOSThread()
	if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
		runtime.UnlockOSThread()
		born <- fmt.Errorf("unshare network namespace: %w (root is needed)", err)
		return
	}
	fd, err := currentNamespace()
	ns.fd = fd
	born <- err
	if err != nil {
		return
	}
	for {
		select {
		case f := <-ns.keeper:
			f()
		case <-ns.quit:
			return
		}
	}
}

func (ns *namespace) setUp() error {
	var err error
	if ns.netlink, err = netlink.NewHandleAt(netns.NsHandle(ns.fd), unix.NETLINK_ROUTE); err != nil {
		return fmt.Errorf("open netlink: %w", err)
	}
	lo, err := ns.netlink.LinkByName("lo")
	if err != nil {
		return fmt.Errorf("find lo: %w", err)
	}
	if err := ns.netlink.LinkSetUp(lo); err != nil {
		return fmt.Errorf("set lo up: %w", err)
	}
	return ns.do(func() error { return setIPv6("accept_dad", "0") })
}

// awaitCarrier waits until an interface that was set up at both ends of its cable carries packets. The kernel may put
// that off by a second, unless somebody asks for the interface's state (rtnl_getlink, since Linux 6.9).
func (ns *namespace) awaitCarrier(index int) error {
	const patience = 5 * time.Second
	for start := time.Now(); ; time.Sleep(time.Millisecond) {
		link, err := ns.netlink.LinkByIndex(index)
		if err != nil {
			return err
		}
		if link.Attrs().OperState == netlink.OperUp {
			return nil
		}
		if time.Since(start) > patience {
			return fmt.Errorf("wait for carrier: still %s after %v", link.Attrs().OperState, patience)
		}
	}
}

// setIPv6 sets an IPv6 parameter for the interfaces of the thread's namespace, those to come included. A kernel without
// IPv6 has none to set.
func setIPv6(parameter, value string) error {
	for _, group := range []string{"all", "default"} {
		err := os.WriteFile("/proc/sys/net/ipv6/conf/"+group+"/"+parameter, []byte(value), 0)
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("set %s: %w", parameter, err)
		}
	}
	return nil
}

// do runs f on a thread that is in the namespace for as long as f runs. A panic or runtime.Goexit (t.Fatal) in f happens
// in the caller too. Goroutines that f starts are not in the namespace.
func (ns *namespace) do(f func() error) error {
	var (
		err      error
		returned bool
		panicked any
		done     = make(chan struct{})
	)
	go func() {
		defer close(done)
		leave, enterErr := enter(ns.fd)
		if enterErr != nil {
			err, returned = enterErr, true
			return
		}
		defer leave()
		defer func() {
			if p := recover(); p != nil {
				panicked = fmt.Sprintf("%v\n\n%s", p, debug.Stack())
			}
		}()
		err = f()
		returned = true
	}()
	<-done
	if panicked != nil {
		panic(panicked)
	}
	if !returned {
		runtime.Goexit()
	}
	return err
}

// enter locks the goroutine to its thread and moves that to a namespace. leave moves it back. If that does not work,
// the thread stays locked and ends with the goroutine, so that nothing else ever runs on it.
func enter(fd int) (leave func(), err error) {
	runtime.LockOSThread()
	home, err := currentNamespace()
	if err != nil {
		runtime.UnlockOSThread()
		return nil, err
	}
	if err := unix.Setns(fd, unix.CLONE_NEWNET); err != nil {
		unix.Close(home)
		runtime.UnlockOSThread()
		return nil, fmt.Errorf("enter network namespace: %w", err)
	}
	return func() {
		if unix.Setns(home, unix.CLONE_NEWNET) == nil {
			runtime.UnlockOSThread()
		}
		unix.Close(home)
	}, nil
}

// currentNamespace opens the thread's network namespace.
func currentNamespace() (int, error) {
	fd, err := unix.Open("/proc/thread-self/ns/net", unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return -1, fmt.Errorf("open network namespace: %w (is /proc mounted?)", err)
	}
	return fd, nil
}

// onKeeper runs f on the keeper's thread.
func (ns *namespace) onKeeper(f func() error) error {
	result := make(chan error, 1)
	select {
	case ns.keeper <- func() { result <- f() }:
		return <-result
	case <-ns.ended:
		return errors.New("the host is gone")
	}
}

func (ns *namespace) close() {
	ns.once.Do(func() {
		close(ns.quit)
		<-ns.ended
		if ns.netlink != nil {
			ns.netlink.Close()
		}
		unix.Close(ns.fd)
	})
}
