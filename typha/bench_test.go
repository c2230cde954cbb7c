package typha

import (
	"bufio"
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	v3 "margay/api/v3"
	"margay/store"
)

// TestMain lets the test binary be a server in a process of its own, on one core, so that clients and server are
// measured apart.
func TestMain(m *testing.M) {
	if args := os.Getenv("MARGAY_TYPHA_SERVER"); args != "" {
		if err := benchServer(strings.Fields(args)); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

const benchObjects = 2000

// benchServer serves until its input ends. arguments: "plain", or CA, certificate and key. Each line of input is a number
// of changes to make in the next second; then it says what it used: resident, heap and stack bytes, microseconds of CPU and of waiting for it, and the number of the last crumb.
func benchServer(args []string) error {
	runtime.GOMAXPROCS(1)
	m := newMemory()
	for i := range benchObjects {
		m.put(benchEndpoint(i, time.Time{}))
	}
	cfg := ServerConfig{MaxHandshakes: 10_000} // they all have one address, unlike agents
	if len(args) == 3 {
		cfg.TLS = TLSFiles{CA: args[0], Cert: args[1], Key: args[2], PeerCN: "felix"}
	}
	server := NewServer(cfg)
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	server.start(noEnd{}, m, new(sync.WaitGroup))
	<-server.cache.synced
	go server.accept(noEnd{}, listener)
	fmt.Println(listener.Addr())
	lines := bufio.NewScanner(os.Stdin)
	n := 0
	for lines.Scan() {
		changes, err := strconv.Atoi(lines.Text())
		if err != nil {
			return err
		}
		ticker := time.NewTicker(time.Millisecond)
		for start, done := time.Now(), 0; done < changes; {
			<-ticker.C
			for due := min(changes, int(time.Since(start)*time.Duration(changes)/time.Second)); done < due; done++ {
				m.put(benchEndpoint(n%benchObjects, time.Now()))
				n++
			}
		}
		ticker.Stop()
		fmt.Println(usage(), server.cache.trailTip())
	}
	return lines.Err()
}

// noEnd is a context that never ends.
type noEnd struct{}

func (noEnd) Deadline() (time.Time, bool) { return time.Time{}, false }
func (noEnd) Done() <-chan struct{}       { return nil }
func (noEnd) Err() error                  { return nil }
func (noEnd) Value(any) any               { return nil }

func (c *cache) trailTip() uint64 {
	for {
		c.mu.Lock()
		tip, idle := c.trail.tip.seq, len(c.pending.changes) == 0
		c.mu.Unlock()
		if idle {
			return tip
		}
		time.Sleep(time.Millisecond)
	}
}

func usage() string {
	runtime.GC()
	var mem runtime.MemStats
	runtime.ReadMemStats(&mem)
	var used syscall.Rusage
	_ = syscall.Getrusage(syscall.RUSAGE_SELF, &used)
	pages := 0
	if text, err := os.ReadFile("/proc/self/statm"); err == nil {
		_, _ = fmt.Sscan(string(text), new(int), &pages)
	}
	cpu := used.Utime.Nano() + used.Stime.Nano()
	return fmt.Sprintf("%d %d %d %d %d", pages*os.Getpagesize(), mem.HeapAlloc, mem.StackInuse, cpu/1000, starved()/1000)
}

// starved returns for how many nanoseconds threads of this process were ready to run and others ran.
func starved() int64 {
	var total int64
	tasks, _ := filepath.Glob("/proc/self/task/*/schedstat")
	for _, task := range tasks {
		var ran, waited int64
		if text, err := os.ReadFile(task); err == nil {
			_, _ = fmt.Sscan(string(text), &ran, &waited)
		}
		total += waited
	}
	return total
}

// benchEndpoint is a WorkloadEndpoint as a CNI plugin makes it; a label says when.
func benchEndpoint(i int, at time.Time) v3.Resource {
	info, _ := v3.Lookup(v3.KindWorkloadEndpoint)
	w := info.New().(*v3.WorkloadEndpoint)
	pod := fmt.Sprintf("frontend-%07x-%05d", i*7919, i)
	w.Namespace, w.Name = fmt.Sprintf("team-%d", i%50), fmt.Sprintf("node%d-k8s-%s-eth0", i%500, strings.ReplaceAll(pod, "-", "--"))
	w.Labels = map[string]string{
		"app": "frontend", "pod-template-hash": fmt.Sprintf("%x", i*31), "projectcalico.org/namespace": w.Namespace,
		"projectcalico.org/orchestrator": "k8s", "projectcalico.org/serviceaccount": "default", "at": strconv.FormatInt(at.UnixNano(), 10),
	}
	w.Spec = v3.WorkloadEndpointSpec{
		Orchestrator: "k8s", Node: fmt.Sprintf("node%d", i%500), Pod: pod, Endpoint: "eth0", ContainerID: fmt.Sprintf("%064x", i*104729),
		IPNetworks: []string{fmt.Sprintf("10.%d.%d.%d/32", i>>16&255, i>>8&255, i&255)}, InterfaceName: fmt.Sprintf("cali%011x", i),
		Profiles: []string{"kns." + w.Namespace, "ksa." + w.Namespace + ".default"},
	}
	return w
}

// A benchRun is a server in a process of its own and its simulated clients.
type benchRun struct {
	testing.TB
	address string
	tls     *tls.Config // nil: none
	in      io.WriteCloser
	out     *bufio.Scanner
	clients []*simulated
	ctx     context.Context // of the clients
	cancel  context.CancelFunc
	wg      sync.WaitGroup
	failed  atomic.Pointer[error]

	epoll   int
	mu      sync.Mutex
	sockets map[int32]*simulated
}

func newBench(b *testing.B, secured bool) *benchRun {
	r := &benchRun{TB: b, sockets: map[int32]*simulated{}}
	r.ctx, r.cancel = context.WithCancel(context.Background())
	args := "plain"
	if secured {
		ca := newAuthority(b)
		f := ca.issue("typha", "", forServer)
		args = strings.Join([]string{f.CA, f.Cert, f.Key}, " ")
		var err error
		if r.tls, err = (&reader{files: ca.issue("felix", "", forClient).wants("typha", "")}).client(); err != nil {
			b.Fatal(err)
		}
	}
	self, err := os.Executable()
	if err != nil {
		b.Fatal(err)
	}
	cmd := exec.Command(self)
	cmd.Env = append(os.Environ(), "MARGAY_TYPHA_SERVER="+args)
	cmd.Stderr = os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if r.in, err = cmd.StdinPipe(); err != nil {
		b.Fatal(err)
	}
	stdout, err := cmd.StdoutPipe()
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() {
		r.end()
		_ = r.in.Close()
		_ = cmd.Wait()
	})
	if r.epoll, err = unix.EpollCreate1(unix.EPOLL_CLOEXEC); err != nil {
		b.Fatal(err)
	}
	r.wg.Go(r.poll)
	r.out = bufio.NewScanner(stdout)
	r.address = r.line()
	return r
}

// end ends the clients.
func (r *benchRun) end() {
	if r.ctx.Err() != nil {
		return
	}
	r.cancel()
	r.wg.Wait()
	for fd := range r.sockets {
		_ = unix.Close(int(fd))
	}
	_ = unix.Close(r.epoll)
}

func (r *benchRun) line() string {
	r.Helper()
	if !r.out.Scan() {
		r.Fatalf("the server has ended: %v", r.out.Err())
	}
	return r.out.Text()
}

// A usageOf is what the server says of itself.
type usageOf struct {
	resident, heap, stack int64
	cpu, starved          int64 // microseconds
	tip                   uint64
}

// run makes so many changes within a second.
func (r *benchRun) run(changes int) (u usageOf) {
	r.Helper()
	fmt.Fprintln(r.in, changes)
	if _, err := fmt.Sscan(r.line(), &u.resident, &u.heap, &u.stack, &u.cpu, &u.starved, &u.tip); err != nil {
		r.Fatal(err)
	}
	return u
}

// BenchmarkFanOut has a server on one core with 2,000 simulated clients and 1,000 changes a second for some seconds, and
// measures from the change to its arrival, on a sample of the changes at every client. No crumb may be missing. With TLS
// there are fewer, since their side of it is work as well. starved is for how much of the time the server was ready to run and
// something else had its core: with more than a few percent the other figures say more of the machine.
func BenchmarkFanOut(b *testing.B) {
	for _, c := range []struct {
		name    string
		clients int
		secured bool
	}{{"plain-2000", 2000, false}, {"tls-500", 500, true}} {
		b.Run(c.name, func(b *testing.B) {
			const rate, seconds = 1000, 5
			r := newBench(b, c.secured)
			empty := r.run(0)
			r.connect(c.clients, 50)
			connected := r.run(0)
			for b.Loop() {
				r.run(rate) // to settle
				before := r.run(0)
				start := time.Now()
				var after usageOf
				for range seconds {
					after = r.run(rate)
				}
				took := time.Since(start)
				r.await("all have every change", func(c *simulated) bool { return c.seq.Load() == after.tip })
				b.ReportMetric(float64(after.cpu-before.cpu)/10/float64(took.Milliseconds()), "cpu-%")
				b.ReportMetric(float64(after.starved-before.starved)/10/float64(took.Milliseconds()), "starved-%")
				b.ReportMetric(float64(after.resident-empty.resident)/float64(c.clients)/1024, "resident-KiB/client")
				b.ReportMetric(float64(after.tip-before.tip)/took.Seconds(), "crumbs/s")
			}
			b.ReportMetric(float64(connected.heap+connected.stack-empty.heap-empty.stack)/float64(c.clients)/1024, "heap+stack-KiB/client")
			r.reportDelays(b)
		})
	}
}

// reportDelays ends the clients and tells how long deliveries took.
func (r *benchRun) reportDelays(b *testing.B) {
	r.end()
	if err := r.failed.Load(); err != nil {
		b.Fatal(*err)
	}
	var all []time.Duration
	for _, c := range r.clients {
		all = append(all, c.delays...)
	}
	slices.Sort(all)
	for name, i := range map[string]int{"p50-ms": len(all) / 2, "p99-ms": len(all) * 99 / 100, "max-ms": len(all) - 1} {
		b.ReportMetric(float64(all[i].Microseconds())/1000, name)
	}
	b.ReportMetric(0, "ns/op")
}

// BenchmarkTenThousand connects 10,000 simulated clients at once, and makes changes while they connect and after that. No
// crumb may be missing.
func BenchmarkTenThousand(b *testing.B) {
	const clients, rate, seconds = 10_000, 100, 3
	var limit unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &limit); err != nil || limit.Cur < clients+100 {
		b.Fatalf("%d files may be open, %d are needed (raise the limit: ulimit -n 20000): %v", limit.Cur, clients+100, err)
	}
	for b.Loop() {
		r := newBench(b, false)
		empty := r.run(0)
		start := time.Now()
		changed := make(chan usageOf, 1)
		go func() { changed <- r.run(rate) }()
		r.connect(clients, 200)
		b.ReportMetric(time.Since(start).Seconds(), "s-to-sync")
		after := <-changed
		for range seconds {
			after = r.run(rate)
		}
		r.await("all have every change", func(c *simulated) bool { return c.seq.Load() == after.tip })
		b.ReportMetric(float64(after.resident-empty.resident)/clients/1024, "resident-KiB/client")
		b.ReportMetric(float64(after.heap+after.stack-empty.heap-empty.stack)/clients/1024, "heap+stack-KiB/client")
		b.ReportMetric(0, "ns/op")
		r.end()
		if err := r.failed.Load(); err != nil {
			b.Fatal(*err)
		}
	}
}

// BenchmarkSnapshot encodes and compresses a state.
func BenchmarkSnapshot(b *testing.B) {
	m := newMemory()
	for i := range 10_000 {
		m.put(benchEndpoint(i, time.Unix(0, int64(i)*7919)))
	}
	fan := startServer(b, m, ServerConfig{})
	var s *snapshot
	for b.Loop() {
		fan.server.cache.mu.Lock()
		fan.server.cache.latest = nil
		fan.server.cache.mu.Unlock()
		var err error
		if s, _, err = fan.server.cache.snapshot(b.Context()); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64(s.raw)/1024, "raw-KiB")
	b.ReportMetric(float64(s.compressed)/1024, "compressed-KiB")
}

var _ store.Store = (*memory)(nil)
