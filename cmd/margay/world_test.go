package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	v3 "margay/api/v3"
	"margay/calc"
	"margay/dataplane/nft"
	"margay/lab"
	"margay/node/params"
	"margay/ruleset"
	"margay/store"
	"margay/store/etcd"
)

// TestMain lets the test binary be margay itself, so that tests run the real program in the hosts of a lab.
func TestMain(m *testing.M) {
	if os.Getenv("MARGAY_TEST_RUN") != "" {
		confine()
		os.Args[0] = "margay"
		main()
	}
	os.Exit(m.Run())
}

// The hosts of a world. hostName has the agent, friend may talk to it and stranger may not.
const (
	hostName     = "host-a"
	storeAddr    = "10.100.0.2"
	hostAddr     = "10.100.0.15"
	hostAddr6    = "fd00:100::15"
	friendAddr   = "10.100.0.20"
	strangerAddr = "10.100.0.66"
)

// A world is a lab with a store on one host and an agent on another, each a process of its own.
type world struct {
	testing.TB
	dir                            string
	lab                            *lab.Lab
	storeHost, host, friend, other *lab.Host
	storeProcess, agent            *process
	binary                         string // that new processes run; "" for this one
	store                          store.Store
	raw                            *clientv3.Client // writes what the store would refuse
}

// newWorld starts the store, not the agent.
func newWorld(t testing.TB) *world {
	t.Helper()
	w := &world{TB: t, dir: t.TempDir()}
	var err error
	if w.lab, err = lab.New(); err != nil {
		t.Fatalf("%v (these tests need root)", err)
	}
	t.Cleanup(w.lab.Close)
	for _, h := range []struct {
		host  **lab.Host
		name  string
		addrs []string
	}{
		{&w.storeHost, "store", []string{storeAddr + "/24"}},
		{&w.host, hostName, []string{hostAddr + "/24", hostAddr6 + "/64"}},
		{&w.friend, "friend", []string{friendAddr + "/24", "fd00:100::20/64"}},
		{&w.other, "stranger", []string{strangerAddr + "/24", "fd00:100::66/64"}},
	} {
		var prefixes []netip.Prefix
		for _, a := range h.addrs {
			prefixes = append(prefixes, netip.MustParsePrefix(a))
		}
		if *h.host, err = w.lab.Host(h.name, prefixes...); err != nil {
			t.Fatal(err)
		}
	}
	w.startStore()
	if w.store, err = etcd.Open(context.Background(), etcd.Config{Endpoints: []string{w.socketURL()}}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = w.store.Close() })
	if w.raw, err = clientv3.New(clientv3.Config{Endpoints: []string{w.socketURL()}}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = w.raw.Close() })
	w.must(w.store.Initialise(w.ctx()))
	return w
}

func (w *world) socket() string    { return filepath.Join(w.dir, "store.sock") }
func (w *world) socketURL() string { return "unix://" + w.socket() }

func (w *world) ctx() context.Context { return w.Context() }

func (w *world) must(err error) {
	w.Helper()
	if err != nil {
		w.Fatal(err)
	}
}

func (w *world) startStore() {
	w.Helper()
	w.storeProcess = w.start(w.storeHost, nil, "store", "--dir", filepath.Join(w.dir, "etcd"), "--socket", w.socket(),
		"--listen", storeAddr+":2379")
	w.eventually(20*time.Second, "the store listens", func() error {
		conn, err := w.storeHost.Dial(w.ctx(), "tcp", storeAddr+":2379")
		if err == nil {
			err = conn.Close()
		}
		return err
	})
}

// startAgent starts the agent of the host; ready says whether to wait for it.
func (w *world) startAgent() {
	w.Helper()
	w.agent = w.start(w.host, []string{
		"FELIX_FELIXHOSTNAME=" + hostName, "FELIX_DATASTORETYPE=etcdv3",
		"FELIX_ETCDENDPOINTS=http://" + storeAddr + ":2379",
		"FELIX_PROMETHEUSMETRICSENABLED=true", "FELIX_HEALTHENABLED=true",
	}, "node", "--state-dir", filepath.Join(w.dir, "node"))
}

// awaitReady waits until the agent says that it enforces.
func (w *world) awaitReady() {
	w.Helper()
	w.eventually(20*time.Second, "the agent is ready", func() error {
		if code, body := w.health("readiness"); code != http.StatusOK {
			return fmt.Errorf("%d: %s", code, body)
		}
		return nil
	})
}

// health asks the agent; code 0 means no answer.
func (w *world) health(path string) (code int, body string) {
	return get(w.host, "http://127.0.0.1:9099/"+path)
}

// A browser is a host or a pod.
type browser interface {
	HTTPClient(timeout time.Duration) *http.Client
}

func get(from browser, url string) (code int, body string) {
	resp, err := from.HTTPClient(time.Second).Get(url)
	if err != nil {
		return 0, err.Error()
	}
	defer resp.Body.Close()
	text, _ := io.ReadAll(resp.Body)
	return resp.StatusCode, string(text)
}

// scrapes reports whether a host gets the agent's metrics.
func (w *world) scrapes(from *lab.Host) bool {
	code, body := get(from, "http://"+hostAddr+":9091/metrics")
	return code == http.StatusOK && strings.Contains(body, "felix_host")
}

// eventually waits until check returns nil. It asks every few milliseconds.
func (w *world) eventually(limit time.Duration, what string, check func() error) {
	w.Helper()
	deadline := time.Now().Add(limit)
	for {
		err := check()
		if err == nil {
			return
		}
		if time.Now().After(deadline) {
			w.Fatalf("not within %v: %s: %v", limit, what, err)
		}
		select {
		case <-w.ctx().Done():
			w.Fatal(w.ctx().Err())
		case <-time.After(5 * time.Millisecond):
		}
	}
}

// apply writes manifests through the store's rules, as the CLI does, and returns the revision of the last.
func (w *world) apply(manifests string) store.Revision {
	w.Helper()
	docs, err := v3.Decode("test", []byte(manifests))
	w.must(err)
	var last store.Revision
	for _, d := range docs {
		last = w.put(d.Object)
	}
	return last
}

func (w *world) put(r v3.Resource) store.Revision {
	w.Helper()
	for {
		out, err := w.store.Create(w.ctx(), r)
		if errors.Is(err, store.ErrExists) {
			out, err = w.replace(r)
		}
		if errors.Is(err, store.ErrConflict) || errors.Is(err, store.ErrUnavailable) {
			continue
		}
		w.must(err)
		return store.Revision(out.GetResourceVersion())
	}
}

func (w *world) replace(r v3.Resource) (v3.Resource, error) {
	old, err := w.store.Get(w.ctx(), v3.KeyOf(r))
	if err != nil {
		return nil, err
	}
	r.SetResourceVersion(old.GetResourceVersion())
	r.SetUID(old.GetUID())
	r.SetCreationTimestamp(old.GetCreationTimestamp())
	return w.store.Update(w.ctx(), r)
}

func (w *world) remove(key v3.Key) {
	w.Helper()
	for {
		_, err := w.store.Delete(w.ctx(), key, "")
		if errors.Is(err, store.ErrUnavailable) {
			continue
		}
		if !errors.Is(err, store.ErrNotFound) {
			w.must(err)
		}
		return
	}
}

// awaitEnforced waits until the agent reports that it enforces at least the revision.
func (w *world) awaitEnforced(revision store.Revision) {
	w.Helper()
	want := number(w, revision)
	w.eventually(30*time.Second, "the agent enforces revision "+string(revision), func() error {
		statuses, err := w.store.Statuses(w.ctx())
		if err != nil {
			return err
		}
		for _, s := range statuses {
			if s.Node == hostName && s.Enforced != "" && number(w, s.Enforced) >= want {
				return nil
			}
		}
		return fmt.Errorf("statuses: %+v", statuses)
	})
}

func number(t testing.TB, r store.Revision) int64 {
	t.Helper()
	n, err := strconv.ParseInt(string(r), 10, 64)
	if err != nil {
		t.Fatalf("revision %q: %v", r, err)
	}
	return n
}

// program compiles what the host must enforce from nothing but what the store and the host hold now.
func (w *world) program() *ruleset.Program {
	w.Helper()
	var kinds []v3.Kind
	for _, info := range v3.Kinds() {
		kinds = append(kinds, info.Kind)
	}
	list, err := w.store.List(w.ctx(), "", kinds...)
	w.must(err)
	c := calc.New(hostName)
	p, _ := params.Resolve(params.Sources{Host: hostName})
	c.SetSettings(p.Settings())
	c.SetInterface("lo", []netip.Addr{netip.MustParseAddr("127.0.0.1"), netip.IPv6Loopback()})
	c.SetInterface("eth0", []netip.Addr{netip.MustParseAddr(hostAddr), netip.MustParseAddr(hostAddr6)})
	for _, r := range list.Items {
		c.Update(v3.KeyOf(r), r)
	}
	program := ruleset.NewProgram()
	program.Apply(c.Flush())
	return program
}

// differs compares the host's kernel with a fresh compile, without changing it.
func (w *world) differs(p *ruleset.Program) error {
	diff, err := nft.Compare(w.ctx(), nft.Options{NetNS: w.host.NetNS()}, p)
	if err != nil {
		return err
	}
	if diff != "" {
		return fmt.Errorf("the kernel differs from a fresh compile:\n%s", diff)
	}
	return nil
}

// A process is margay running on a host.
type process struct {
	*exec.Cmd
	log  *buffer
	done chan struct{}
}

// start runs margay. Its log is shown if the test fails.
func (w *world) start(on interface{ Start(*exec.Cmd) error }, env []string, args ...string) *process {
	w.Helper()
	program, err := w.binary, error(nil)
	if program == "" {
		program, err = os.Executable()
	}
	w.must(err)
	p := &process{Cmd: exec.Command(program, args...), log: &buffer{}, done: make(chan struct{})}
	p.Env = append(append(os.Environ(), "MARGAY_TEST_RUN=1"), env...)
	p.Stdout, p.Stderr = p.log, p.log
	w.must(on.Start(p.Cmd))
	go func() {
		defer close(p.done)
		_ = p.Wait() // how it ended is in the log
	}()
	w.Cleanup(func() {
		p.kill()
		if w.Failed() {
			w.Logf("margay %s:\n%s", strings.Join(args, " "), p.log)
		}
	})
	return p
}

// kill ends the process as nothing else does, and waits until it is gone.
func (p *process) kill() {
	_ = p.Process.Kill()
	<-p.done
}

// stop ends the process as an init system does.
func (p *process) stop() {
	_ = p.Process.Signal(syscall.SIGTERM)
	<-p.done
}

// A buffer is a bytes.Buffer for several goroutines.
type buffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (b *buffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.Write(p)
}

func (b *buffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.String()
}
