package node

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	v3 "margay/api/v3"
	"margay/dataplane/fake"
	"margay/ruleset"
	"margay/store"
)

// A testDataplane is the fake one with what the agent needs beside it.
type testDataplane struct {
	*fake.Dataplane
	disturbed chan struct{}
	mu        sync.Mutex
	prepared  int
}

func newTestDataplane() *testDataplane {
	return &testDataplane{Dataplane: fake.New(), disturbed: make(chan struct{}, 1)}
}

func (d *testDataplane) Prepare(context.Context) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.prepared++
	return nil
}

func (d *testDataplane) preparations() int {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.prepared
}

func (d *testDataplane) Disturbed() <-chan struct{} { return d.disturbed }
func (d *testDataplane) Stats() DataplaneStats {
	return DataplaneStats{Chains: 7, Rules: 8, Sets: 9, Elements: 10, Transactions: 11, Messages: 12, Errors: 13}
}

// A rig is an agent with everything around it in the test's hands.
type rig struct {
	t       *testing.T
	store   *memoryStore
	dp      *testDataplane
	links   chan map[string][]netip.Addr
	log     *logBuffer
	options Options
	ports   *ports
	stop    func()
}

// ports hands out listeners on loopback whose address the test can ask for.
type ports struct {
	mu   sync.Mutex
	open map[string]string // wanted address: given one
}

func (p *ports) listen(ctx context.Context, network, address string) (net.Listener, error) {
	ln, err := (&net.ListenConfig{}).Listen(ctx, network, "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.open[address] = ln.Addr().String()
	return ln, nil
}

func (p *ports) at(address string) string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.open[address]
}

type logBuffer struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (b *logBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.Write(p)
}

func (b *logBuffer) count(text string) int {
	b.mu.Lock()
	defer b.mu.Unlock()
	return strings.Count(b.buf.String(), text)
}

const (
	healthAt  = "localhost:9099"
	metricsAt = ":9091"
)

// newRig makes an agent for host h that is not yet started.
func newRig(t *testing.T) *rig {
	r := &rig{
		t: t, store: newMemoryStore(), dp: newTestDataplane(), links: make(chan map[string][]netip.Addr, 100), log: &logBuffer{},
		ports: &ports{open: map[string]string{}},
	}
	config := filepath.Join(t.TempDir(), "felix.cfg")
	check(t, os.WriteFile(config, nil, 0o600))
	r.options = Options{
		Environ:    []string{"FELIX_FELIXHOSTNAME=h", "FELIX_HEALTHENABLED=true", "FELIX_PROMETHEUSMETRICSENABLED=true"},
		ConfigFile: config, Version: "v1", StateDir: t.TempDir(),
		LogHandler: func(l slog.Leveler) slog.Handler { return slog.NewTextHandler(r.log, &slog.HandlerOptions{Level: l}) },
		OpenStore: func(context.Context, StoreConfig) (store.Store, error) {
			if r.dp.preparations() == 0 {
				t.Error("the store was opened before connections are tracked")
			}
			return r.store, nil
		},
		OpenDataplane: func(context.Context, *slog.Logger) (Dataplane, error) { return r.dp, nil },
		Interfaces: func(ctx context.Context, deliver func(map[string][]netip.Addr)) error {
			for {
				select {
				case <-ctx.Done():
					return ctx.Err()
				case list := <-r.links:
					deliver(list)
				}
			}
		},
		Listen: r.ports.listen,
	}
	t.Cleanup(func() {
		if t.Failed() {
			t.Log(r.log.buf.String())
		}
	})
	return r
}

// start runs the agent until the test ends or r.stop is called.
func (r *rig) start() {
	r.t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- Run(ctx, r.options) }()
	var once sync.Once
	r.stop = func() {
		once.Do(func() {
			cancel()
			select {
			case err := <-done:
				if err != nil {
					r.t.Errorf("Run: %v", err)
				}
			case <-time.After(30 * time.Second):
				r.t.Error("Run does not end")
			}
		})
	}
	r.t.Cleanup(r.stop)
}

// restart is a new agent over the same store, kernel and state directory.
func (r *rig) restart() {
	r.t.Helper()
	r.stop()
	// Close is for good: the next agent gets a dataplane that holds what this one left in force.
	kernel := r.dp.Program()
	r.dp = newTestDataplane()
	r.dp.Disturb(kernel)
	r.begin()
}

// begin starts the agent with one interface.
func (r *rig) begin() {
	r.t.Helper()
	r.links <- interfaces("eth0", "10.0.0.1")
	r.start()
}

// interfaces returns one interface with one address.
func interfaces(name, addr string) map[string][]netip.Addr {
	return map[string][]netip.Addr{name: {netip.MustParseAddr(addr)}}
}

// eventually waits for a condition.
func eventually(t interface {
	Helper()
	Fatalf(string, ...any)
}, what string, ok func() bool) {
	t.Helper()
	if !becomes(ok) {
		t.Fatalf("waited in vain until %s", what)
	}
}

// becomes reports whether a condition becomes true in time.
func becomes(ok func() bool) bool {
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	deadline := time.After(30 * time.Second)
	for !ok() {
		select {
		case <-tick.C:
		case <-deadline:
			return false
		}
	}
	return true
}

func check(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// allows reports whether a packet from src to TCP port gets through to this host by the interface.
func (r *rig) allows(iface, src string, port uint16) bool {
	return r.dp.Verdict(&ruleset.Packet{
		In: iface, Src: netip.MustParseAddr(src), Dst: netip.MustParseAddr("10.0.0.1"),
		Protocol: ruleset.TCP, SrcPort: 40000, DstPort: port,
	}).Allowed
}

func (r *rig) untilAllowed(src string, port uint16) {
	r.t.Helper()
	eventually(r.t, fmt.Sprintf("%s reaches port %d", src, port), func() bool { return r.allows("eth0", src, port) })
}

func (r *rig) untilDenied(src string, port uint16) {
	r.t.Helper()
	eventually(r.t, fmt.Sprintf("%s does not reach port %d", src, port), func() bool { return !r.allows("eth0", src, port) })
}

// get fetches a page.
func (r *rig) get(listener, path string) (int, string) {
	r.t.Helper()
	var addr string
	eventually(r.t, "something listens for "+listener, func() bool { addr = r.ports.at(listener); return addr != "" })
	resp, err := http.Get("http://" + addr + path)
	if err != nil {
		return 0, err.Error()
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	check(r.t, err)
	return resp.StatusCode, string(body)
}

func (r *rig) untilReady() {
	r.t.Helper()
	eventually(r.t, "the agent is ready", func() bool { code, _ := r.get(healthAt, "/readiness"); return code == 200 })
}

// untilMetric waits until /metrics has the line.
func (r *rig) untilMetric(line string) {
	r.t.Helper()
	eventually(r.t, "/metrics shows "+line, func() bool {
		_, body := r.get(metricsAt, "/metrics")
		return strings.Contains("\n"+body, "\n"+line+"\n")
	})
}

// untilStatus waits for a report that satisfies ok and returns it.
func (r *rig) untilStatus(what string, ok func(store.NodeStatus) bool) store.NodeStatus {
	r.t.Helper()
	var last store.NodeStatus
	eventually(r.t, "the status shows "+what, func() bool {
		all, _ := r.store.Statuses(context.Background())
		if len(all) == 0 {
			return false
		}
		last = all[len(all)-1]
		return ok(last)
	})
	return last
}

// untilEnforced waits for a report that the revision is in force.
func (r *rig) untilEnforced(at store.Revision) store.NodeStatus {
	r.t.Helper()
	number := func(r store.Revision) int { n, _ := strconv.Atoi(string(r)); return n }
	return r.untilStatus("revision "+string(at), func(s store.NodeStatus) bool { return number(s.Enforced) >= number(at) })
}

func (r *rig) put(kind v3.Kind, text string) store.Revision {
	r.t.Helper()
	return r.store.put(object(r.t, kind, text))
}

// fill stores a host endpoint for eth0 and a policy that lets 10.9.0.0/16 in on port 80.
func (r *rig) fill() {
	r.put(v3.KindTier, `{"metadata":{"name":"default"},"spec":{"order":1000000}}`)
	r.put(v3.KindHostEndpoint, `{"metadata":{"name":"h.eth0","labels":{"role":"web"}},"spec":{"node":"h","interfaceName":"eth0"}}`)
	r.put(v3.KindGlobalNetworkPolicy, webPolicy)
}

const webPolicy = `{"metadata":{"name":"web"},"spec":{"tier":"default","order":10,"selector":"role == 'web'","types":["Ingress"],
	"ingress":[{"action":"Allow","protocol":"TCP","source":{"nets":["10.9.0.0/16"]},"destination":{"ports":[80]}}]}}`

func TestNothingIsProgrammedBeforeEverythingIsKnown(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.fill()
	r.store.cut(store.ErrUnavailable)
	r.links <- interfaces("eth0", "10.0.0.1")
	r.start()
	eventually(t, "health names the store", func() bool {
		code, body := r.get(healthAt, "/readiness")
		return code == 503 && strings.Contains(body, "datastore is unavailable")
	})
	r.untilMetric("felix_resync_state 1")
	r.untilMetric("margay_store_connected 0")
	if code, _ := r.get(healthAt, "/liveness"); code != 200 {
		t.Errorf("an agent that waits for its store lives: %d", code)
	}
	if calls := r.dp.Calls(); calls.Resync+calls.Apply > 0 {
		t.Fatalf("programmed without a store: %+v", calls)
	}
	r.store.cut(nil)
	r.untilDenied("192.0.2.1", 80)
	r.untilReady()
	r.untilMetric("felix_resync_state 3")
	r.untilMetric("margay_ready 1")
}

func TestNothingIsProgrammedBeforeTheInterfacesAreKnown(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.fill()
	r.start()
	r.untilMetric("felix_resync_state 2")
	if calls := r.dp.Calls(); calls.Resync+calls.Apply > 0 {
		t.Fatalf("programmed without interfaces: %+v", calls)
	}
	if code, body := r.get(healthAt, "/readiness"); code != 503 || !strings.Contains(body, "waiting for the list of interfaces") {
		t.Errorf("readiness %d:\n%s", code, body)
	}
	r.links <- interfaces("eth0", "10.0.0.1")
	r.untilDenied("192.0.2.1", 80)
	r.untilReady()
}

func TestNotReadyWhileTheKernelRefuses(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.fill()
	for range 4 {
		r.dp.FailNext(fmt.Errorf("no memory"))
	}
	r.begin()
	eventually(t, "health names the error", func() bool {
		code, body := r.get(healthAt, "/readiness")
		return code == 503 && strings.Contains(body, "no memory")
	})
	r.untilReady()
	r.untilDenied("192.0.2.1", 80)
	r.untilMetric("felix_int_dataplane_failures 4")

	// A change that fails is made by the Resync that follows.
	r.dp.FailNext(fmt.Errorf("no memory"))
	r.put(v3.KindGlobalNetworkPolicy, strings.Replace(webPolicy, "[80]", "[81]", 1))
	r.untilAllowed("10.9.0.1", 81)
	r.untilDenied("10.9.0.1", 80)
	r.untilReady()
	if calls := r.dp.Calls(); calls.Resync != 6 || calls.Apply != 1 {
		t.Errorf("calls: %+v", calls)
	}
}

func TestChangesAreLive(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.fill()
	r.begin()
	r.untilAllowed("10.9.0.1", 80)
	r.put(v3.KindGlobalNetworkPolicy, strings.Replace(webPolicy, `"nets":["10.9.0.0/16"]`, `"selector":"scraper == 'true'"`, 1))
	r.untilDenied("10.9.0.1", 80)
	set := `{"metadata":{"name":"s","labels":{"scraper":"%s"}},"spec":{"nets":["10.9.0.0/16"]}}`
	r.put(v3.KindGlobalNetworkSet, fmt.Sprintf(set, "true"))
	r.untilAllowed("10.9.0.1", 80)
	r.put(v3.KindGlobalNetworkSet, fmt.Sprintf(set, "false"))
	r.untilDenied("10.9.0.1", 80)
	r.put(v3.KindHostEndpoint, `{"metadata":{"name":"peer","labels":{"scraper":"true"}},"spec":{"node":"other","expectedIPs":["10.9.0.1"]}}`)
	r.untilAllowed("10.9.0.1", 80)
	r.store.remove(v3.Key{Kind: v3.KindHostEndpoint, Name: "peer"})
	r.untilDenied("10.9.0.1", 80)
	if resyncs := r.dp.Calls().Resync; resyncs != 1 {
		t.Errorf("%d resyncs", resyncs)
	}
}

func TestInterfacesComeAndGo(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.put(v3.KindHostEndpoint, `{"metadata":{"name":"byaddress"},"spec":{"node":"h","expectedIPs":["10.0.0.1"]}}`)
	r.put(v3.KindHostEndpoint, `{"metadata":{"name":"byname"},"spec":{"node":"h","interfaceName":"eth7"}}`)
	r.links <- interfaces("lo", "127.0.0.1")
	r.start()
	eventually(t, "an interface is covered before it exists", func() bool { return !r.allows("eth7", "192.0.2.1", 80) })
	if !r.allows("eth0", "192.0.2.1", 80) {
		t.Error("eth0 carries no expected address yet")
	}
	r.links <- interfaces("eth0", "10.0.0.1")
	r.untilDenied("192.0.2.1", 80)
	r.links <- interfaces("eth0", "10.0.0.2")
	r.untilAllowed("192.0.2.1", 80)
	r.links <- map[string][]netip.Addr{"kube-ipvs0": {netip.MustParseAddr("10.0.0.1")}, "eth1": {netip.MustParseAddr("10.0.0.1")}}
	eventually(t, "eth1 is found", func() bool { return !r.allows("eth1", "192.0.2.1", 80) })
	if !r.allows("kube-ipvs0", "192.0.2.1", 80) {
		t.Error("an excluded interface is filtered")
	}
}

func TestDisturbance(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.fill()
	r.begin()
	r.untilDenied("192.0.2.1", 80)
	r.dp.Disturb(ruleset.NewProgram())
	r.dp.disturbed <- struct{}{}
	r.untilDenied("192.0.2.1", 80)
	r.untilMetric("margay_dataplane_disturbances_total 1")

	// Somebody who fights is answered at most five times a second.
	before, start := r.dp.Calls().Resync, time.Now()
	for range 50 {
		r.dp.Disturb(ruleset.NewProgram())
		r.dp.disturbed <- struct{}{}
	}
	r.untilDenied("192.0.2.1", 80)
	r.untilMetric("margay_dataplane_disturbances_total 51")
	eventually(t, "the last disturbance is repaired", func() bool { return r.dp.Calls().Resync > before })
	if n, most := r.dp.Calls().Resync-before, 2+int(time.Since(start)/repairInterval); n > most {
		t.Errorf("%d repairs, at most %d expected", n, most)
	}
	if told, done := r.log.count("putting it right"), r.log.count("in line again"); told != 1 || done != 1 {
		t.Errorf("%d and %d lines in the log", told, done)
	}
}

func TestOutage(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.fill()
	r.begin()
	r.untilReady()
	r.store.cut(store.ErrUnavailable)
	eventually(t, "the detail names the outage", func() bool {
		code, body := r.get(healthAt, "/readiness")
		return code == 200 && strings.Contains(body, "cannot be followed since")
	})
	r.untilMetric("margay_store_connected 0")
	if r.allows("eth0", "192.0.2.1", 80) || !r.allows("eth0", "10.9.0.1", 80) {
		t.Error("the rules are not in force during an outage")
	}
	r.put(v3.KindGlobalNetworkPolicy, strings.Replace(webPolicy, "[80]", "[81]", 1))
	r.store.cut(nil)
	r.untilAllowed("10.9.0.1", 81)
	r.untilMetric("margay_store_connected 1")
	eventually(t, "the detail is gone", func() bool {
		_, body := r.get(healthAt, "/readiness")
		return !strings.Contains(body, "cannot be followed")
	})
}

func TestLockedDatastore(t *testing.T) {
	info := `{"metadata":{"name":"default"},"spec":{"datastoreReady":%v}}`
	t.Parallel()
	r := newRig(t)
	r.fill()
	r.put(v3.KindClusterInformation, fmt.Sprintf(info, false))
	r.begin()
	eventually(t, "the agent says that it waits", func() bool {
		code, body := r.get(healthAt, "/readiness")
		return code == 503 && strings.Contains(body, "locked")
	})
	if r.dp.Calls().Resync > 0 {
		t.Error("programmed from a locked datastore")
	}
	r.put(v3.KindClusterInformation, fmt.Sprintf(info, true))
	r.untilDenied("192.0.2.1", 80)
	r.untilReady()

	r.put(v3.KindClusterInformation, fmt.Sprintf(info, false))
	at := r.put(v3.KindGlobalNetworkPolicy, strings.Replace(webPolicy, "[80]", "[81]", 1))
	eventually(t, "the agent says that it is locked", func() bool {
		code, body := r.get(healthAt, "/readiness")
		return code == 200 && strings.Contains(body, "locked")
	})
	r.untilStatus("the lock", func(s store.NodeStatus) bool { return strings.Contains(s.Detail, "locked") && s.Enforced != at })
	if r.allows("eth0", "10.9.0.1", 81) {
		t.Error("a change of a locked datastore was taken over")
	}
	at = r.put(v3.KindClusterInformation, fmt.Sprintf(info, true))
	r.untilAllowed("10.9.0.1", 81)
	r.untilEnforced(at)
}

func TestStatusAndRegistration(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.fill()
	r.begin()
	node := v3.Key{Kind: v3.KindNode, Name: "h"}
	eventually(t, "the host is registered", func() bool { _, err := r.store.Get(context.Background(), node); return err == nil })
	at := r.put(v3.KindGlobalNetworkPolicy, strings.Replace(webPolicy, "[80]", "[81]", 1))
	s := r.untilEnforced(at)
	if !s.Ready || s.Node != "h" || s.Version != "v1" || s.TTLSeconds != 90 || s.Time == "" || len(s.Faults) > 0 {
		t.Errorf("status %+v", s)
	}
	r.untilMetric("felix_cluster_num_hosts 1")
	r.stop()
	if all, _ := r.store.Statuses(context.Background()); all[len(all)-1].Ready || !r.store.closed {
		t.Errorf("after the stop: status %+v, store closed %v", all[len(all)-1], r.store.closed)
	}
	if r.dp.Calls().Close != 1 || r.allows("eth0", "192.0.2.1", 80) {
		t.Error("the rules must stay in force, and the dataplane be closed")
	}
}

func TestStoreThatOpensLate(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.fill()
	open, attempts := r.options.OpenStore, 0
	r.options.OpenStore = func(ctx context.Context, c StoreConfig) (store.Store, error) {
		if attempts++; attempts < 3 {
			return nil, fmt.Errorf("connection refused")
		}
		return open(ctx, c)
	}
	r.begin()
	r.untilReady()
	if attempts != 3 || r.log.count("connection refused") != 1 {
		t.Errorf("%d attempts", attempts)
	}
}

func TestRunWithoutDataplane(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.options.OpenDataplane = func(context.Context, *slog.Logger) (Dataplane, error) { return nil, os.ErrPermission }
	if err := Run(context.Background(), r.options); err == nil {
		t.Error("an agent without a dataplane runs")
	}
	r.options.ConfigFile = "/nonexistent"
	if err := Run(context.Background(), r.options); err == nil {
		t.Error("a configuration file that was asked for is missing, and nobody says so")
	}
}
