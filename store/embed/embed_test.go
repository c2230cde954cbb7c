package embed_test

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"

	v3 "margay/api/v3"
	"margay/store"
	"margay/store/embed"
	"margay/store/etcd"
	"margay/store/storetest"
)

func start(t *testing.T, cfg embed.Config) *embed.Server {
	t.Helper()
	server, err := embed.Start(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := server.Close(); err != nil {
			t.Error(err)
		}
	})
	return server
}

// TestStore runs the suite over the socket and without one.
func TestStore(t *testing.T) {
	for _, way := range []string{"socket", "in process"} {
		t.Run(way, func(t *testing.T) {
			storetest.Run(t, func(t *testing.T) storetest.Backend { return backend(t, way == "socket") })
		})
	}
}

func backend(t *testing.T, bySocket bool) storetest.Backend {
	dir := t.TempDir()
	socket := filepath.Join(dir, "run", "store.sock")
	server := start(t, embed.Config{Dir: filepath.Join(dir, "data"), Socket: socket, Listen: []string{}})
	client, err := clientv3.New(clientv3.Config{Endpoints: []string{"unix://" + socket}, Logger: zap.NewNop()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { client.Close() })
	return storetest.Backend{
		Open: func(t testing.TB) store.Store {
			if !bySocket {
				return server.Store()
			}
			s, err := etcd.Open(t.Context(), etcd.Config{Endpoints: []string{"unix://" + socket}})
			if err != nil {
				t.Fatal(err)
			}
			return s
		},
		Put: func(t testing.TB, key v3.Key, value []byte) {
			info, _ := v3.Lookup(key.Kind)
			path := "/calico/resources/v3/projectcalico.org/" + info.Plural + "/" + key.Name
			if _, err := client.Put(context.Background(), path, string(value)); err != nil {
				t.Fatal(err)
			}
		},
		Compact: func(t testing.TB, at store.Revision) {
			revision, err := strconv.ParseInt(string(at), 10, 64)
			if err != nil {
				t.Fatal(err)
			}
			if _, err := client.Compact(context.Background(), revision, clientv3.WithCompactPhysical()); err != nil {
				t.Fatal(err)
			}
		},
	}
}

// TestStartAndStop: it is ready when Start returns, keeps what it has over a restart, and leaves nothing behind.
func TestStartAndStop(t *testing.T) {
	dir := t.TempDir()
	cfg := embed.Config{Dir: filepath.Join(dir, "data"), Socket: filepath.Join(dir, "run", "store.sock"), Listen: []string{"127.0.0.1:0"}}
	var uid string
	for i := range 3 {
		server, err := embed.Start(t.Context(), cfg)
		if err != nil {
			t.Fatal(err)
		}
		s := server.Store()
		if err := s.Initialise(t.Context()); err != nil {
			t.Fatal(err)
		}
		r, err := s.Get(t.Context(), v3.Key{Kind: v3.KindClusterInformation, Name: "default"})
		if err != nil {
			t.Fatal(err)
		}
		if i > 0 && string(r.GetUID()) != uid {
			t.Errorf("start %d: another object %s, was %s", i, r.GetUID(), uid)
		}
		uid = string(r.GetUID())
		if err := s.Close(); err != nil {
			t.Error(err)
		}
		if err := server.Close(); err != nil {
			t.Error(err)
		}
		<-server.Done()
		if err := server.Close(); err != nil {
			t.Error(err)
		}
		if _, err := os.Stat(cfg.Socket); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("after Close the socket is there: %v", err)
		}
	}
}

func TestModes(t *testing.T) {
	dir := t.TempDir()
	data, socket := filepath.Join(dir, "data"), filepath.Join(dir, "run", "store.sock")
	if err := os.Mkdir(data, 0o755); err != nil {
		t.Fatal(err)
	}
	// Whatever the mask is: 0 would give everybody everything. No other test of this package runs at the same time.
	defer syscall.Umask(syscall.Umask(0))
	start(t, embed.Config{Dir: data, Socket: socket, Listen: []string{}})
	for path, want := range map[string]fs.FileMode{
		data: fs.ModeDir | 0o700, socket: fs.ModeSocket | 0o600, data + "/lock": 0o600, filepath.Dir(socket): fs.ModeDir | 0o755,
	} {
		info, err := os.Stat(path)
		if err != nil {
			t.Fatal(err)
		}
		if info.Mode() != want {
			t.Errorf("%s has mode %v, want %v", path, info.Mode(), want)
		}
	}
}

// TestListensOnlyWhereAsked looks at what the kernel says this process listens on.
func TestListensOnlyWhereAsked(t *testing.T) {
	before := listening(t)
	dir := t.TempDir()
	server := start(t, embed.Config{Dir: filepath.Join(dir, "a"), Socket: filepath.Join(dir, "s"), Listen: []string{}})
	if got := added(before, listening(t)); len(got) > 0 {
		t.Errorf("asked for a socket, it listens at %v", got)
	}
	server.Close()
	server = start(t, embed.Config{Dir: filepath.Join(dir, "b"), Listen: []string{"127.0.0.1:0", "[::1]:0"}})
	want := map[string]bool{}
	for _, address := range server.Addrs() {
		want[address.String()] = true
	}
	got := added(before, listening(t))
	for _, address := range got {
		if !want[address] {
			t.Errorf("it listens at %s", address)
		}
	}
	if len(got) != 2 {
		t.Errorf("it listens at %v", got)
	}
}

func added(before, after []string) (added []string) {
	for _, address := range after {
		if !strings.Contains(strings.Join(before, " "), address) {
			added = append(added, address)
		}
	}
	return added
}

// listening returns the TCP addresses that this process listens on.
func listening(t *testing.T) (addresses []string) {
	t.Helper()
	mine := map[string]bool{}
	entries, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	for _, entry := range entries {
		target, _ := os.Readlink("/proc/self/fd/" + entry.Name())
		mine[strings.TrimSuffix(strings.TrimPrefix(target, "socket:["), "]")] = true
	}
	for _, table := range []string{"tcp", "tcp6"} {
		file, err := os.Open("/proc/self/net/" + table)
		if err != nil {
			t.Fatal(err)
		}
		defer file.Close()
		for lines := bufio.NewScanner(file); lines.Scan(); {
			const listen = "0A"
			if fields := strings.Fields(lines.Text()); len(fields) > 9 && fields[3] == listen && mine[fields[9]] {
				addresses = append(addresses, procAddress(t, fields[1]))
			}
		}
	}
	return addresses
}

// procAddress returns the address:port that /proc writes as hexadecimal words in the byte order of the host.
func procAddress(t *testing.T, text string) string {
	t.Helper()
	words, port, _ := strings.Cut(text, ":")
	var ip net.IP
	for ; len(words) >= 8; words = words[8:] {
		n, err := strconv.ParseUint(words[:8], 16, 32)
		if err != nil {
			t.Fatal(err)
		}
		ip = append(ip, byte(n), byte(n>>8), byte(n>>16), byte(n>>24))
	}
	n, err := strconv.ParseUint(port, 16, 16)
	if err != nil {
		t.Fatal(err)
	}
	return net.JoinHostPort(ip.String(), strconv.FormatUint(n, 10))
}

// TestRefusals: what cannot be served is said, with the reason, and nothing is left running.
func TestRefusals(t *testing.T) {
	dir := t.TempDir()
	held := start(t, embed.Config{Dir: filepath.Join(dir, "held"), Socket: filepath.Join(dir, "held.sock"), Listen: []string{"127.0.0.1:0"}})
	taken := held.Addrs()[1].String()
	write := func(path, content string) string {
		path = filepath.Join(dir, path)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	write("foreign/precious.txt", "")
	// As root, which may do everything, and is the one to be tricked.
	strange := filepath.Join(dir, "strange")
	if err := os.Mkdir(strange, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.Chown(strange, 54321, -1); err != nil {
		t.Fatal(err)
	}
	none := []string{}
	for _, test := range []struct {
		name string
		cfg  embed.Config
		err  string
	}{
		{"another user's", embed.Config{Dir: strange, Listen: none}, "belongs to user 54321"},
		{"no directory", embed.Config{Listen: none}, "no directory"},
		{"in use", embed.Config{Dir: filepath.Join(dir, "held"), Listen: none}, fmt.Sprintf("in use by process %d (", os.Getpid())},
		{"a file", embed.Config{Dir: write("file", ""), Listen: none}, "not a directory"},
		{"others' files", embed.Config{Dir: filepath.Join(dir, "foreign"), Listen: none}, `holds other files, such as "precious.txt"`},
		{"port taken", embed.Config{Dir: filepath.Join(dir, "a"), Listen: []string{taken}}, "address already in use"},
		{"no port", embed.Config{Dir: filepath.Join(dir, "a"), Listen: []string{"127.0.0.1"}}, "write address:port"},
		{"a host name", embed.Config{Dir: filepath.Join(dir, "a"), Listen: []string{"localhost:1"}}, "write address:port"},
		{"socket taken", embed.Config{Dir: filepath.Join(dir, "a"), Listen: none, Socket: filepath.Join(dir, "held.sock")}, "another process listens"},
		{"no socket", embed.Config{Dir: filepath.Join(dir, "a"), Listen: none, Socket: write("plain", "")}, "no socket"},
		{"long path", embed.Config{Dir: filepath.Join(dir, "a"), Listen: none, Socket: "/" + strings.Repeat("x", 200)}, "107 bytes"},
	} {
		server, err := embed.Start(t.Context(), test.cfg)
		if err == nil || server != nil || !strings.Contains(err.Error(), test.err) {
			t.Errorf("%s: %v, want %q", test.name, err, test.err)
		}
	}
	// What was refused holds nothing.
	start(t, embed.Config{Dir: filepath.Join(dir, "a"), Listen: none})
}

// TestConnectionsAreBounded: strangers who hold connections open take no more than their share of the process.
func TestConnectionsAreBounded(t *testing.T) {
	server := start(t, embed.Config{Dir: filepath.Join(t.TempDir(), "data"), Listen: []string{"127.0.0.1:0"}})
	address := server.Addrs()[0].String()
	before := openFiles(t)
	for range 1200 {
		conn, err := net.Dial("tcp", address)
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
	}
	most, late := 0, 50 // samples after it was reached
	for deadline := time.Now().Add(20 * time.Second); late > 0 && time.Now().Before(deadline); time.Sleep(10 * time.Millisecond) {
		if most = max(most, openFiles(t)-before-1200); most >= 1000 {
			late--
		}
	}
	if most < 500 || most > 1040 {
		t.Errorf("%d connections were accepted, want 1024", most)
	}
}

// openFiles counts the file descriptors of this process.
func openFiles(t *testing.T) int {
	t.Helper()
	entries, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	return len(entries)
}

// TestInterruptedStart: a first start that ends early, whenever that is, does not spoil the directory.
func TestInterruptedStart(t *testing.T) {
	none := []string{}
	for wait := time.Duration(0); wait < 150*time.Millisecond; wait += 15 * time.Millisecond {
		dir := filepath.Join(t.TempDir(), "data")
		ctx, cancel := context.WithTimeout(t.Context(), wait)
		server, err := embed.Start(ctx, embed.Config{Dir: dir, Listen: none})
		cancel()
		if err == nil {
			server.Close()
		}
		start(t, embed.Config{Dir: dir, Listen: none}).Close()
	}
	dir := filepath.Join(t.TempDir(), "data")
	if err := os.MkdirAll(dir+"/member/wal", 0o700); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"beginning", "member/wal/0000000000000000-0000000000000000.wal"} {
		if err := os.WriteFile(filepath.Join(dir, name), nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	start(t, embed.Config{Dir: dir, Listen: none})
	if _, err := os.Stat(dir + "/beginning"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("after the start the mark is there: %v", err)
	}
}

// TestStaleSocket: a process that was killed leaves its socket.
func TestStaleSocket(t *testing.T) {
	dir := t.TempDir()
	socket := filepath.Join(dir, "s")
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: socket, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	l.SetUnlinkOnClose(false)
	l.Close()
	start(t, embed.Config{Dir: filepath.Join(dir, "data"), Socket: socket, Listen: []string{}})
}

// TestDamage overwrites what etcd stored. It must be said, without ending the process, and without starting anew over it.
func TestDamage(t *testing.T) {
	for name, damage := range map[string]func(file string, data []byte) []byte{
		"log":      func(file string, data []byte) []byte { return spoil(file, ".wal", data) },
		"database": func(file string, data []byte) []byte { return spoil(file, "/db", data) },
	} {
		t.Run(name, func(t *testing.T) {
			dir := lastingDir(t)
			server := start(t, embed.Config{Dir: dir, Listen: []string{}})
			s := server.Store()
			if err := s.Initialise(t.Context()); err != nil {
				t.Fatal(err)
			}
			s.Close()
			server.Close()
			err := filepath.WalkDir(dir, func(path string, entry fs.DirEntry, err error) error {
				if err != nil || entry.IsDir() {
					return err
				}
				data, err := os.ReadFile(path)
				if err != nil {
					return err
				}
				return os.WriteFile(path, damage(path, data), 0o600)
			})
			if err != nil {
				t.Fatal(err)
			}
			server, err = embed.Start(t.Context(), embed.Config{Dir: dir, Listen: []string{}})
			if err == nil || server != nil || !strings.Contains(err.Error(), "restore the directory from a backup") {
				t.Errorf("started on damaged data: %v", err)
			}
		})
	}
}

// lastingDir returns a directory that is removed at the end even though a goroutine of etcd, which panicked over its log,
// still puts files there.
func lastingDir(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "margay-damage-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		for deadline := time.Now().Add(20 * time.Second); time.Now().Before(deadline); time.Sleep(time.Millisecond) {
			if os.RemoveAll(dir) == nil {
				return
			}
		}
		t.Errorf("%s is left behind", dir)
	})
	return filepath.Join(dir, "data")
}

func spoil(file, suffix string, data []byte) []byte {
	if strings.HasSuffix(file, suffix) {
		copy(data, bytes.Repeat([]byte("damage"), 10_000))
	}
	return data
}

// expectedLines are parts of what etcd may say although all is well: it updates its storage version too early and later
// again, and it names what a loaded machine did late.
var expectedLines = []string{"failed to update storage version", "took too long", "slow fdatasync", "on time", "overloaded"}

// TestLog: etcd says nothing when all is well, or next to nothing.
func TestLog(t *testing.T) {
	var log bytes.Buffer
	server, err := embed.Start(t.Context(), embed.Config{
		Dir: filepath.Join(t.TempDir(), "data"), Listen: []string{"127.0.0.1:0"}, Log: slog.New(slog.NewTextHandler(&log, nil)),
	})
	if err != nil {
		t.Fatal(err)
	}
	s := server.Store()
	if err := s.Initialise(t.Context()); err != nil {
		t.Fatal(err)
	}
	s.Close()
	server.Close()
	for line := range strings.Lines(log.String()) {
		if !slices.ContainsFunc(expectedLines, func(part string) bool { return strings.Contains(line, part) }) {
			t.Errorf("it logs %s", line)
		}
	}
}
