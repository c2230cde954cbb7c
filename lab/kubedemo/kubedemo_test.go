package kubedemo

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net"
	"net/netip"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	v3 "margay/api/v3"
	"margay/calc"
	"margay/dataplane/nft"
	"margay/lab"
	"margay/node/pods"
	"margay/ruleset"
)

// A fake is a cluster without an API server: what it is told goes to agents in this process, which enforce it for real.
type fake struct {
	t      *testing.T
	ctx    context.Context
	spoil  bool // labels have no effect
	mu     sync.Mutex
	stored map[v3.Key]v3.Resource
	agents []*agent
}

// An agent is what margay node is, as far as it matters here.
type agent struct {
	calc    *calc.Calc
	kernel  *nft.Dataplane
	program *ruleset.Program
}

func (a *agent) enforce(ctx context.Context) error {
	a.program.Apply(a.calc.Flush())
	return a.kernel.Resync(ctx, a.program)
}

func (f *fake) update(r v3.Resource) error {
	v3.Default(r)
	f.mu.Lock()
	defer f.mu.Unlock()
	f.stored[v3.KeyOf(r)] = r
	for _, a := range f.agents {
		a.calc.Update(v3.KeyOf(r), r)
		if err := a.enforce(f.ctx); err != nil {
			return err
		}
	}
	return nil
}

func (f *fake) Apply(_ context.Context, manifests []byte) error {
	documents, err := v3.Decode("manifest", manifests)
	if err != nil {
		return err
	}
	for _, d := range documents {
		if err := f.update(d.Object); err != nil {
			return err
		}
	}
	return nil
}

func (f *fake) AddPod(_ context.Context, p Pod) error {
	profile := made[*v3.Profile](v3.KindProfile)
	profile.Name = "kns." + p.Namespace
	profile.Spec.Ingress, profile.Spec.Egress = []v3.Rule{{Action: "Allow"}}, []v3.Rule{{Action: "Allow"}}
	if err := f.update(profile); err != nil {
		return err
	}
	w := made[*v3.WorkloadEndpoint](v3.KindWorkloadEndpoint)
	w.Namespace, w.Name, w.Labels = p.Namespace, p.Name, p.Labels
	w.Spec = v3.WorkloadEndpointSpec{
		Node: p.Node, Orchestrator: "k8s", Pod: p.Name, InterfaceName: "cali0", // which is not there
		IPNetworks: []string{p.Addr.String()}, Profiles: []string{profile.Name},
	}
	return f.update(w)
}

// made returns a new resource of a kind.
func made[T v3.Resource](kind v3.Kind) T {
	info, ok := v3.Lookup(kind)
	if !ok {
		panic(kind)
	}
	return info.New().(T)
}

func (f *fake) Label(_ context.Context, p Pod, name, value string) error {
	if f.spoil {
		return nil
	}
	f.mu.Lock()
	was := f.stored[v3.Key{Kind: v3.KindWorkloadEndpoint, Namespace: p.Namespace, Name: p.Name}].(*v3.WorkloadEndpoint)
	f.mu.Unlock()
	now := *was
	now.Labels = maps.Clone(was.Labels)
	if now.Labels[name] = value; value == "" {
		delete(now.Labels, name)
	}
	return f.update(&now)
}

// Start runs an agent for node, and answers on the metrics port of every part.
func (f *fake) Start(_ context.Context, part string, on *lab.Machine) error {
	listener, err := on.Listen("tcp", map[string]string{"node": ":9091", "typha": ":9093", "kube-controllers": ":9094"}[part])
	if err != nil {
		return err
	}
	f.t.Cleanup(func() { listener.Close() })
	go acceptAll(listener)
	if part != "node" {
		return nil
	}
	kernel, err := nft.Open(nft.Options{NetNS: on.NetNS()})
	if err != nil {
		return err
	}
	a := &agent{calc: calc.New(on.Name()), kernel: kernel, program: ruleset.NewProgram()}
	a.calc.SetSettings(ruleset.Settings{WorkloadPrefixes: []string{"cali"}})
	f.mu.Lock()
	for key, r := range f.stored {
		a.calc.Update(key, r)
	}
	f.agents = append(f.agents, a)
	f.mu.Unlock()
	ctx, cancel := context.WithCancel(f.ctx)
	var wg sync.WaitGroup
	f.t.Cleanup(func() { cancel(); wg.Wait(); kernel.Close() })
	first := make(chan error, 1)
	var once sync.Once
	wg.Go(func() {
		_ = pods.Follow(ctx, pods.Options{NetNS: on.NetNS(), Log: slog.New(slog.DiscardHandler)}, func(ways map[netip.Addr]calc.Way) {
			f.mu.Lock()
			defer f.mu.Unlock()
			a.calc.SetWays(ways)
			err := a.enforce(f.ctx)
			once.Do(func() { first <- err })
		})
	})
	return <-first
}

func acceptAll(l net.Listener) {
	for {
		conn, err := l.Accept()
		if err != nil {
			return
		}
		conn.Close()
	}
}

func run(t *testing.T, out *strings.Builder, spoil bool) (Figures, error) {
	ctx := context.Background()
	var stepTime time.Duration
	if spoil {
		stepTime = 8 * time.Second // it passes for nothing
	}
	return Run(ctx, Options{
		NewCluster: func(_ context.Context, on *lab.Host, nodes map[string]netip.Addr) (Cluster, error) {
			if on.Name() != master || len(nodes) != 2 {
				return nil, fmt.Errorf("%s, %v", on.Name(), nodes)
			}
			return &fake{t: t, ctx: ctx, spoil: spoil, stored: map[v3.Key]v3.Resource{}}, nil
		},
		Manifests: os.DirFS("../../examples/deny-list"), Flips: 5, Stdout: out, stepTime: stepTime,
	})
}

func TestRun(t *testing.T) {
	t.Parallel()
	var out strings.Builder
	f, err := run(t, &out, false)
	if err != nil || len(f.Opened) != 5 || len(f.Closed) != 5 {
		t.Fatalf("%v, %+v\n%s", err, f, out.String())
	}
	t.Log(out.String())
	for _, text := range []string{"starting margay kube-controllers", "05-typha-9093.yaml", "kubectl label pod my-prometheus-pod", "medians of 5"} {
		if !strings.Contains(out.String(), text) {
			t.Errorf("%q is not in\n%s", text, out.String())
		}
	}
}

// TestWrong: a label that opens nothing is an error that says what is wrong.
func TestWrong(t *testing.T) {
	t.Parallel() // it waits
	var out strings.Builder
	if _, err := run(t, &out, true); !errors.Is(err, ErrWrong) || !strings.Contains(err.Error(), "my-prometheus-pod 9091") {
		t.Errorf("%v\n%s", err, out.String())
	}
}

func TestMedian(t *testing.T) {
	if median(nil) != 0 || median([]time.Duration{5, 1, 3}) != 3 {
		t.Error("the middle of 5, 1, 3 is 3")
	}
}
