package main

import (
	"bufio"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/nftables"
	"golang.org/x/sys/unix"
)

// The environment of a process that gives away privileges before it is margay.
const (
	// envCapabilities lists the capabilities that it keeps, by number; also when there are none.
	envCapabilities = "MARGAY_TEST_CAPABILITIES"
	// envWritable is the only directory that it can write to.
	envWritable = "MARGAY_TEST_WRITABLE"
)

// confine gives away what the environment says, as systemd and a container runtime would, and starts the program again: what
// is left of root's rights is decided then.
func confine() {
	list, confined := os.LookupEnv(envCapabilities)
	if !confined {
		return
	}
	runtime.LockOSThread()
	keep := map[uintptr]bool{}
	for _, text := range strings.Fields(list) {
		number, err := strconv.Atoi(text)
		check(err)
		keep[uintptr(number)] = true
	}
	check(readOnly(os.Getenv(envWritable)))
	for number := range uintptr(unix.CAP_LAST_CAP + 1) {
		if !keep[number] {
			check(unix.Prctl(unix.PR_CAPBSET_DROP, number, 0, 0, 0))
		}
	}
	check(unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0))
	check(os.Unsetenv(envCapabilities))
	check(syscall.Exec("/proc/self/exe", os.Args, os.Environ()))
}

func check(err error) {
	if err != nil {
		panic(err)
	}
}

// readOnly makes every file system read-only for this process but for one directory.
func readOnly(except string) error {
	if err := unix.Unshare(unix.CLONE_NEWNS); err != nil {
		return fmt.Errorf("unshare mounts: %w", err)
	}
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return fmt.Errorf("make mounts private: %w", err)
	}
	if err := unix.Mount(except, except, "", unix.MS_BIND, ""); err != nil {
		return fmt.Errorf("bind %s: %w", except, err)
	}
	ro := unix.MountAttr{Attr_set: unix.MOUNT_ATTR_RDONLY}
	if err := unix.MountSetattr(unix.AT_FDCWD, "/", unix.AT_RECURSIVE, &ro); err != nil {
		return fmt.Errorf("make / read-only: %w", err)
	}
	rw := unix.MountAttr{Attr_clr: unix.MOUNT_ATTR_RDONLY}
	return unix.MountSetattr(unix.AT_FDCWD, except, 0, &rw)
}

// TestLeastPrivilege runs the agent with exactly the capabilities that its unit and its DaemonSet give it, on a read-only file
// system but for its state directory, and has it do all of its work.
func TestLeastPrivilege(t *testing.T) {
	t.Parallel()
	unit := fieldOf(t, "../../install/systemd/margay-node.service", "CapabilityBoundingSet=")
	pod := strings.Trim(fieldOf(t, "../../install/kubernetes/base/node.yaml", "add: "), "[]")
	if got := "CAP_" + strings.ReplaceAll(pod, ", ", " CAP_"); got != unit || unit != "CAP_NET_ADMIN CAP_NET_BROADCAST" {
		t.Fatalf("the unit gives %s, the DaemonSet %s; this test knows NET_ADMIN and NET_BROADCAST", unit, pod)
	}
	w := newWorld(t)
	state := filepath.Join(w.dir, "node")
	w.must(os.Mkdir(state, 0o700))
	w.agent = w.start(w.host, []string{
		"FELIX_FELIXHOSTNAME=" + hostName, "FELIX_ETCDENDPOINTS=http://" + storeAddr + ":2379", "FELIX_PROMETHEUSMETRICSENABLED=true",
		"FELIX_HEALTHENABLED=true", envCapabilities + "=" + fmt.Sprint(unix.CAP_NET_ADMIN, " ", unix.CAP_NET_BROADCAST), envWritable + "=" + state,
	}, "node", "--state-dir", state)
	w.awaitReady()
	if got, want := effective(t, w.agent.Process.Pid), uint64(1<<unix.CAP_NET_ADMIN|1<<unix.CAP_NET_BROADCAST); got != want {
		t.Errorf("the agent runs with capabilities %#x, want %#x", got, want)
	}
	w.awaitEnforced(w.apply(strings.Replace(explainedHost, "- {action: Deny", "- {action: Log}\n  - {action: Deny", 1)))
	w.listens(&w.host.Machine, ":8080")
	w.must(want(w.friend, hostAddr+":8080", true))
	w.must(want(w.other, hostAddr+":8080", false))
	w.eventually(20*time.Second, "what was denied is logged", func() error {
		if log := w.agent.log.String(); !strings.Contains(log, strangerAddr) {
			return fmt.Errorf("no %s in the log", strangerAddr)
		}
		return nil
	})
	w.nft(func(c *nftables.Conn) { c.DelTable(&nftables.Table{Name: "margay", Family: nftables.TableFamilyINet}) })
	w.eventually(20*time.Second, "a table that is gone is back", func() error { return w.differs(w.program()) })
	if saved, err := filepath.Glob(filepath.Join(state, "*")); err != nil || len(saved) == 0 {
		t.Errorf("nothing is in the state directory: %v", err)
	}
	w.agent.stop()
	for _, line := range strings.Split(w.agent.log.String(), "\n") {
		if strings.Contains(line, "not permitted") || strings.Contains(line, "read-only") || strings.Contains(line, "denied\"") {
			t.Errorf("the agent lacks something: %s", line)
		}
	}
}

// fieldOf returns the rest of the one line of a file that begins with a text.
func fieldOf(t *testing.T, file, begin string) string {
	t.Helper()
	f, err := os.Open(file)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	found := ""
	for s := bufio.NewScanner(f); s.Scan(); {
		if rest, ok := strings.CutPrefix(strings.TrimSpace(s.Text()), begin); ok {
			if found != "" {
				t.Fatalf("%s has several lines %q", file, begin)
			}
			found = rest
		}
	}
	if found == "" {
		t.Fatalf("%s has no line %q", file, begin)
	}
	return found
}

// effective returns the capabilities that a process has.
func effective(t *testing.T, pid int) uint64 {
	t.Helper()
	text := fieldOf(t, fmt.Sprintf("/proc/%d/status", pid), "CapEff:")
	n, err := strconv.ParseUint(strings.TrimSpace(text), 16, 64)
	if err != nil {
		t.Fatal(err)
	}
	return n
}
