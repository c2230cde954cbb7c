package lab

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// role names what a process that a test started of this binary does instead of testing.
const role = "MARGAY_LAB_TEST_ROLE"

func TestMain(m *testing.M) {
	switch os.Getenv(role) {
	case "":
		os.Exit(m.Run())
	case "interfaces":
		fmt.Println(strings.Join(interfaces(), " "))
	case "block":
		fmt.Println(os.Getpid())
		select {}
	case "lab":
		blockInLab()
	default:
		panic("role " + os.Getenv(role))
	}
}

// blockInLab is a process with a lab and a process on one of its hosts, whose id it prints.
func blockInLab() {
	l, err := New()
	if err != nil {
		panic(err)
	}
	host, err := l.Host("a", prefix("10.0.0.1/24"))
	if err != nil {
		panic(err)
	}
	cmd := self("block")
	cmd.Stdout = os.Stdout
	if err := host.Run(cmd); err != nil {
		panic(err)
	}
}

// self returns a command that runs this binary in a role.
func self(name string) *exec.Cmd {
	cmd := exec.Command("/proc/self/exe")
	cmd.Env = append(os.Environ(), role+"="+name)
	cmd.Stderr = os.Stderr
	return cmd
}

func prefix(s string) netip.Prefix { return netip.MustParsePrefix(s) }

func newLab(t *testing.T) *Lab {
	t.Helper()
	l, err := New()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(l.Close)
	return l
}

func newHost(t *testing.T, l *Lab, name string, addrs ...string) *Host {
	t.Helper()
	var prefixes []netip.Prefix
	for _, a := range addrs {
		prefixes = append(prefixes, prefix(a))
	}
	h, err := l.Host(name, prefixes...)
	if err != nil {
		t.Fatal(err)
	}
	return h
}

// interfaces returns the names of the interfaces in the thread's namespace.
func interfaces() []string {
	list, err := net.Interfaces()
	if err != nil {
		panic(err)
	}
	var names []string
	for _, i := range list {
		names = append(names, i.Name)
	}
	return names
}

// inode identifies the namespace that the thread is in.
func inode(t *testing.T, fd int) uint64 {
	t.Helper()
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		t.Fatal(err)
	}
	return st.Ino
}

func currentInode(t *testing.T) uint64 {
	t.Helper()
	fd, err := currentNamespace()
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	return inode(t, fd)
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// ask connects and returns what the other side calls us.
func ask(from interface {
	Dial(ctx context.Context, network, address string) (net.Conn, error)
}, address string) (string, error) {
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	conn, err := from.Dial(ctx, "tcp", address)
	if err != nil {
		return "", err
	}
	defer conn.Close()
	text, err := io.ReadAll(conn)
	return string(text), err
}

func TestHostsReachEachOther(t *testing.T) {
	l := newLab(t)
	server := newHost(t, l, "server", "10.100.0.15/24", "fd00::15/64")
	near := newHost(t, l, "near", "10.100.0.16/24", "fd00::16/64")
	far := newHost(t, l, "far", "172.15.0.101/24", "fd15::101/64")
	serve(t, &server.Machine, 9091)
	for _, route := range []struct {
		host   *Host
		prefix string
	}{
		{far, "10.100.0.0/24"}, {server, "172.15.0.0/24"}, {far, "fd00::/64"}, {server, "fd15::/64"},
	} {
		if route.host == far {
			if _, err := ask(far, "10.100.0.15:9091"); route.prefix == "10.100.0.0/24" && !errors.Is(err, unix.ENETUNREACH) {
				t.Errorf("without a route: %v", err)
			}
		}
		must(t, route.host.AddRoute("eth0", prefix(route.prefix)))
	}
	for _, c := range []struct {
		from *Host
		to   string
		want string
	}{
		{near, "10.100.0.15:9091", "10.100.0.16"},
		{near, "[fd00::15]:9091", "fd00::16"},
		{far, "10.100.0.15:9091", "172.15.0.101"},
		{far, "[fd00::15]:9091", "fd15::101"},
		{server, "127.0.0.1:9091", "127.0.0.1"},
		{server, "[::1]:9091", "::1"},
	} {
		if got, err := ask(c.from, c.to); err != nil || got != c.want {
			t.Errorf("%s to %s: %q, %v; want %q", c.from.Name(), c.to, got, err, c.want)
		}
	}
	if _, err := ask(near, "10.100.0.15:9092"); !errors.Is(err, unix.ECONNREFUSED) {
		t.Errorf("closed port: %v", err)
	}
	if _, err := ask(near, "server:9091"); err == nil || !strings.Contains(err.Error(), "dial from near") {
		t.Errorf("name: %v", err)
	}
}

// Two labs use the same addresses and know nothing of each other, and the machine's own namespace stays as it is.
func TestLabsAreApart(t *testing.T) {
	before := interfaces()
	one, two := newLab(t), newLab(t)
	a, b := newHost(t, one, "a", "10.0.0.1/24"), newHost(t, two, "b", "10.0.0.2/24")
	serve(t, &a.Machine, 80)
	if _, err := ask(b, "10.0.0.1:80"); err == nil {
		t.Error("a host of another lab answers")
	}
	if after := interfaces(); !slices.Equal(before, after) {
		t.Errorf("interfaces were %v, are %v", before, after)
	}
}

func TestHTTPClient(t *testing.T) {
	l := newLab(t)
	server, client := newHost(t, l, "server", "10.0.0.1/24"), newHost(t, l, "client", "10.0.0.2/24")
	listener, err := server.Listen("tcp", ":80")
	must(t, err)
	srv := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { io.WriteString(w, r.RemoteAddr) })}
	go srv.Serve(listener)
	t.Cleanup(func() { srv.Close() })
	resp, err := client.HTTPClient(time.Second).Get("http://10.0.0.1/")
	must(t, err)
	body, err := io.ReadAll(resp.Body)
	must(t, err)
	resp.Body.Close()
	if !strings.HasPrefix(string(body), "10.0.0.2:") {
		t.Errorf("the server saw %s", body)
	}
	// 10.0.0.9 is nobody: no answer until the time is over.
	start := time.Now()
	if _, err := client.HTTPClient(50 * time.Millisecond).Get("http://10.0.0.9/"); !os.IsTimeout(err) || time.Since(start) > time.Second {
		t.Errorf("nobody answered %v after %v", err, time.Since(start))
	}
}

func TestPackets(t *testing.T) {
	l := newLab(t)
	a, b := newHost(t, l, "a", "10.0.0.1/24"), newHost(t, l, "b", "10.0.0.2/24")
	in, err := a.ListenPacket("udp", ":53")
	must(t, err)
	defer in.Close()
	out, err := b.Dial(context.Background(), "udp", "10.0.0.1:53")
	must(t, err)
	defer out.Close()
	must(t, in.SetDeadline(time.Now().Add(5*time.Second)))
	if _, err := out.Write([]byte("x")); err != nil {
		t.Fatal(err)
	}
	_, from, err := in.ReadFrom(make([]byte, 10))
	if err != nil || from.String() != out.LocalAddr().String() {
		t.Errorf("packet from %v, %v", from, err)
	}
}

// However f ends, it ran in the host's namespace and no thread is left there.
func TestDo(t *testing.T) {
	h := newHost(t, newLab(t), "a")
	home, away := currentInode(t), inode(t, h.NetNS())
	if home == away {
		t.Fatal("the host has no namespace of its own")
	}
	var wg sync.WaitGroup
	for range 50 {
		wg.Go(func() {
			err := h.Do(func() error {
				runtime.Gosched()
				if currentInode(t) != away {
					t.Error("f is not in the namespace")
				}
				return io.EOF
			})
			if err != io.EOF {
				t.Errorf("Do: %v", err)
			}
			if currentInode(t) != home {
				t.Error("the caller is in the namespace")
			}
		})
		wg.Go(func() {
			if text := panicOf(func() { h.Do(func() error { panic("oops") }) }); !strings.HasPrefix(text, "oops\n") {
				t.Errorf("panic was %q", text)
			}
		})
		wg.Go(func() {
			h.Do(func() error { runtime.Goexit(); return nil })
			t.Error("Goexit did not reach the caller")
		})
	}
	wg.Wait()
	threads, err := os.ReadDir("/proc/self/task")
	must(t, err)
	inside := 0
	for _, thread := range threads {
		link, err := os.Readlink("/proc/self/task/" + thread.Name() + "/ns/net")
		if err == nil && link == fmt.Sprintf("net:[%d]", away) {
			inside++
		}
	}
	if inside != 1 {
		t.Errorf("%d threads are in the namespace, want the keeper's only", inside)
	}
}

func panicOf(f func()) (text string) {
	defer func() { text = fmt.Sprint(recover()) }()
	f()
	return ""
}

func TestInterfacesComeAndGo(t *testing.T) {
	l := newLab(t)
	a, b := newHost(t, l, "a", "10.0.0.1/24"), newHost(t, l, "b", "10.0.0.2/24", "10.1.0.2/24")
	serve(t, &a.Machine, 80)
	seen := func() (names []string) {
		must(t, a.Do(func() error { names = interfaces(); return nil }))
		return names
	}
	must(t, a.AddInterface("eth1", prefix("10.1.0.1/24")))
	if got := seen(); !slices.Equal(got, []string{"lo", "eth0", "eth1"}) {
		t.Errorf("interfaces %v", got)
	}
	if _, err := ask(b, "10.1.0.1:80"); err != nil {
		t.Errorf("new interface: %v", err)
	}
	must(t, a.AddAddress("eth1", prefix("10.1.0.3/24")))
	if _, err := ask(b, "10.1.0.3:80"); err != nil {
		t.Errorf("new address: %v", err)
	}
	must(t, a.RemoveAddress("eth1", prefix("10.1.0.3/24")))
	must(t, a.SetDown("eth1"))
	must(t, a.SetUp("eth1"))
	if _, err := ask(b, "10.1.0.1:80"); err != nil {
		t.Errorf("interface that was down: %v", err)
	}
	must(t, a.RemoveInterface("eth1"))
	if got := seen(); !slices.Equal(got, []string{"lo", "eth0"}) {
		t.Errorf("interfaces %v", got)
	}
	for what, err := range map[string]error{
		"add eth0 again":   a.AddInterface("eth0"),
		"remove eth7":      a.RemoveInterface("eth7"),
		"remove 10.9.9.9":  a.RemoveAddress("eth0", prefix("10.9.9.9/24")),
		"route over eth7":  a.AddRoute("eth7", prefix("10.9.0.0/24")),
		"address for eth7": a.AddAddress("eth7", prefix("10.9.0.1/24")),
	} {
		if err == nil {
			t.Errorf("%s: no error", what)
		}
	}
}

func TestProcessRunsOnHost(t *testing.T) {
	h := newHost(t, newLab(t), "a")
	must(t, h.AddInterface("only-here"))
	cmd := self("interfaces")
	var out strings.Builder
	cmd.Stdout = &out
	must(t, h.Run(cmd))
	if out.String() != "lo eth0 only-here\n" {
		t.Errorf("the process saw %q", out.String())
	}
	if err := h.Run(exec.Command("/nonexistent")); err == nil {
		t.Error("a program that does not exist ran")
	}
}

// A context that ends kills the process, as exec.CommandContext says, also when it was started on a keeper.
func TestProcessEndsWithContext(t *testing.T) {
	h := newHost(t, newLab(t), "a")
	ctx, cancel := context.WithCancel(context.Background())
	cmd := exec.CommandContext(ctx, "/proc/self/exe")
	cmd.Env = append(os.Environ(), role+"=block")
	must(t, h.Start(cmd))
	cancel()
	if err := cmd.Wait(); err == nil {
		t.Error("the process ended well")
	}
}

func TestClose(t *testing.T) {
	l := newLab(t)
	h := newHost(t, l, "a", "10.0.0.1/24")
	cmd := self("block")
	must(t, h.Start(cmd))
	l.Close()
	l.Close()
	var exit *exec.ExitError
	if err := cmd.Wait(); !errors.As(err, &exit) || exit.Sys().(syscall.WaitStatus).Signal() != syscall.SIGKILL {
		t.Errorf("the process ended with %v", err)
	}
	if err := h.Start(self("block")); err == nil {
		t.Error("a process was started on a closed lab")
	}
	if _, err := l.Host("b"); err == nil {
		t.Error("a closed lab got a host")
	}
}

// When the process with the lab is killed, what ran on its hosts is gone too, and with it the namespaces: nothing else
// holds them.
func TestNothingSurvivesKill(t *testing.T) {
	cmd := self("lab")
	out, err := cmd.StdoutPipe()
	must(t, err)
	must(t, cmd.Start())
	line, err := bufio.NewReader(out).ReadString('\n')
	must(t, err)
	pid, err := strconv.Atoi(strings.TrimSpace(line))
	must(t, err)
	child, err := unix.PidfdOpen(pid, 0)
	must(t, err)
	defer unix.Close(child)
	must(t, cmd.Process.Kill())
	cmd.Wait()
	fds := []unix.PollFd{{Fd: int32(child), Events: unix.POLLIN}}
	if n, err := unix.Poll(fds, 10_000); n != 1 {
		t.Errorf("the process on the host is alive 10 s after the lab's: %v", err)
	}
}
