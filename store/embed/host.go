package embed

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// The files in Dir. etcd's are below member.
const (
	lockName   = "lock"
	memberName = "member"
	beginName  = "beginning"
)

// maxSocketPath is the longest path of a unix socket, unix(7).
const maxSocketPath = 107

// lockDir makes the directory, and takes its lock for as long as the returned file is open.
func lockDir(dir string) (*os.File, error) {
	if dir == "" {
		return nil, errors.New("no directory is given")
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	if err := errors.Join(checkOwner(dir), checkOwn(dir)); err != nil {
		return nil, err
	}
	// Whoever can read the directory can read all policy.
	if err := os.Chmod(dir, 0o700); err != nil {
		return nil, err
	}
	lock, err := os.OpenFile(filepath.Join(dir, lockName), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, err
	}
	if err := unix.Flock(int(lock.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		defer lock.Close()
		if errors.Is(err, unix.EWOULDBLOCK) {
			return nil, fmt.Errorf("the directory is in use by %s (stop it, or give another directory)", holder(lock))
		}
		return nil, fmt.Errorf("lock %s: %w", lock.Name(), err)
	}
	if err := lock.Truncate(0); err != nil {
		lock.Close()
		return nil, err
	}
	if _, err := lock.WriteAt([]byte(strconv.Itoa(os.Getpid())+"\n"), 0); err != nil {
		lock.Close()
		return nil, err
	}
	return lock, nil
}

// checkOwner refuses a directory of another user, who could put links in the place of files.
func checkOwner(dir string) error {
	info, err := os.Stat(dir)
	if err != nil {
		return err
	}
	if stat, ok := info.Sys().(*syscall.Stat_t); ok && int(stat.Uid) != os.Geteuid() {
		return fmt.Errorf("the directory belongs to user %d, not to this process's %d (give another, or chown it)", stat.Uid, os.Geteuid())
	}
	return nil
}

// checkOwn refuses a directory with something else in it.
func checkOwn(dir string) error {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	var foreign []string
	for _, entry := range entries {
		switch entry.Name() {
		case memberName:
			return nil
		case lockName, beginName:
		default:
			foreign = append(foreign, entry.Name())
		}
	}
	if len(foreign) > 0 {
		return fmt.Errorf("the directory holds other files, such as %q (give an empty or a new one)", foreign[0])
	}
	return nil
}

// beginDir notes in a directory without data that a first start is under way. etcd that is killed in its first moments
// leaves a log that names no member, with which it would wait for one forever: what an unfinished first start left is
// removed. Nobody has stored anything in it.
func beginDir(dir string) error {
	member, begin := filepath.Join(dir, memberName), filepath.Join(dir, beginName)
	_, err := os.Stat(begin)
	switch {
	case err == nil:
		return os.RemoveAll(member)
	case !errors.Is(err, fs.ErrNotExist):
		return err
	}
	if _, err := os.Stat(member); !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if err := os.WriteFile(begin, nil, 0o600); err != nil {
		return err
	}
	return syncDir(dir)
}

// endBegin notes that the first start is over.
func endBegin(dir string) error {
	err := os.Remove(filepath.Join(dir, beginName))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	return syncDir(dir)
}

// syncDir makes sure that the names in a directory survive a power failure.
func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer d.Close()
	return d.Sync()
}

// holder describes the process that wrote the lock.
func holder(lock *os.File) string {
	data := make([]byte, 32)
	n, _ := lock.ReadAt(data, 0)
	pid, err := strconv.Atoi(strings.TrimSpace(string(data[:n])))
	if err != nil {
		return "another process"
	}
	cmdline, err := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid))
	if err != nil || len(cmdline) == 0 {
		return fmt.Sprintf("process %d", pid)
	}
	command := strings.TrimSpace(strings.ReplaceAll(string(cmdline), "\x00", " "))
	return fmt.Sprintf("process %d (%.100s)", pid, command)
}

// listen opens the addresses.
func (s *Server) listen(ctx context.Context, cfg Config) error {
	if cfg.Socket != "" {
		l, err := listenSocket(ctx, cfg.Socket)
		if err != nil {
			return err
		}
		s.listeners = append(s.listeners, listener{l, true})
	}
	for _, address := range cfg.Listen {
		at, err := netip.ParseAddrPort(address)
		if err != nil {
			return fmt.Errorf("listen at %q: %w (write address:port)", address, err)
		}
		var config net.ListenConfig
		l, err := config.Listen(ctx, "tcp", address)
		if err != nil {
			return fmt.Errorf("listen at %s: %w", address, errors.Unwrap(err))
		}
		s.listeners = append(s.listeners, listener{l, at.Addr().Unmap().IsLoopback()})
	}
	return nil
}

// listenSocket makes a unix socket that only this user may connect to. A socket that nobody answers at is replaced.
func listenSocket(ctx context.Context, path string) (net.Listener, error) {
	if len(path) > maxSocketPath {
		return nil, fmt.Errorf("listen at %s: the path has more than %d bytes", path, maxSocketPath)
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return nil, err
	}
	if err := removeStale(ctx, path); err != nil {
		return nil, err
	}
	// The mode of the descriptor becomes that of the file when it is bound: there is no moment in which it is wider.
	config := net.ListenConfig{Control: func(_, _ string, raw syscall.RawConn) error {
		var err error
		if e := raw.Control(func(fd uintptr) { err = unix.Fchmod(int(fd), 0o600) }); e != nil {
			return e
		}
		return err
	}}
	l, err := config.Listen(ctx, "unix", path)
	if err != nil {
		return nil, fmt.Errorf("listen at %s: %w", path, errors.Unwrap(err))
	}
	return l, nil
}

// removeStale removes what a process that was killed left behind.
func removeStale(ctx context.Context, path string) error {
	info, err := os.Lstat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil
	case err != nil:
		return err
	case info.Mode()&fs.ModeSocket == 0:
		return fmt.Errorf("listen at %s: there is a file that is no socket", path)
	}
	var d net.Dialer
	conn, err := d.DialContext(ctx, "unix", path)
	if err == nil {
		conn.Close()
		return fmt.Errorf("listen at %s: another process listens there (stop it, or give another socket)", path)
	}
	if !errors.Is(err, syscall.ECONNREFUSED) {
		return fmt.Errorf("listen at %s: %w", path, err)
	}
	return os.Remove(path)
}
