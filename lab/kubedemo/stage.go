package kubedemo

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"

	"margay/lab"
)

// The hosts and pods.
const (
	master, node0    = "kubeadm-master", "kubeadm-node-0"
	scraperNamespace = "monitoring"
	controllers      = "calico-kube-controllers"
)

// patience is how long a probe waits for an answer; a connection is one packet then (RFC 6298).
const patience = 900 * time.Millisecond

// A stage is the lab with everything that runs in it.
type stage struct {
	options   Options
	lab       *lab.Lab
	hosts     map[string]*lab.Host
	cluster   Cluster
	clients   map[string]*lab.Machine
	targets   map[string]netip.AddrPort
	listeners []io.Closer
}

func (s *stage) printf(format string, args ...any) { fmt.Fprintf(s.options.Stdout, format, args...) }

// newStage makes hosts and pods and starts what runs on them.
func newStage(ctx context.Context, o Options) (*stage, error) {
	s := &stage{options: o, hosts: map[string]*lab.Host{}, clients: map[string]*lab.Machine{}, targets: map[string]netip.AddrPort{}}
	for _, do := range []func(context.Context) error{s.makeHosts, s.makeCluster, s.makePods, s.start} {
		if err := do(ctx); err != nil {
			s.close()
			return nil, err
		}
	}
	return s, nil
}

func (s *stage) close() {
	for _, l := range s.listeners {
		_ = l.Close() // it held nothing but a port of a machine that goes away
	}
	if s.lab != nil {
		s.lab.Close()
	}
}

func addr(text string) netip.Addr { return netip.MustParseAddr(text) }

// makeHosts makes the hosts. Pods of the master are in 10.65.0.0/24, those of the node in 10.65.1.0/24.
func (s *stage) makeHosts(context.Context) error {
	var err error
	if s.lab, err = lab.New(); err != nil {
		return err
	}
	for name, text := range map[string]string{master: "10.100.0.15/24", node0: "10.100.0.16/24", management: management + "/24"} {
		if s.hosts[name], err = s.lab.Host(name, netip.MustParsePrefix(text)); err != nil {
			return err
		}
	}
	for _, name := range []string{master, node0} {
		if err := s.hosts[name].AddRoute("eth0", netip.MustParsePrefix("172.15.0.0/24")); err != nil {
			return err
		}
	}
	s.clients[management] = &s.hosts[management].Machine
	if err := s.hosts[management].AddRoute("eth0", netip.MustParsePrefix("10.100.0.0/24")); err != nil {
		return err
	}
	for _, r := range []struct{ on, via, prefix string }{
		{master, "10.100.0.16", "10.65.1.0/24"}, {node0, "10.100.0.15", "10.65.0.0/24"}, {management, "10.100.0.15", "10.65.0.0/24"},
	} {
		if err := s.hosts[r.on].AddRouteVia(addr(r.via), netip.MustParsePrefix(r.prefix)); err != nil {
			return err
		}
	}
	return nil
}

func (s *stage) makeCluster(ctx context.Context) error {
	s.printf("starting an API server on %s\n", master)
	var err error
	s.cluster, err = s.options.NewCluster(ctx, s.hosts[master], map[string]netip.Addr{master: addr("10.100.0.15"), node0: addr("10.100.0.16")})
	if err != nil {
		return fmt.Errorf("start the cluster: %w", err)
	}
	return nil
}

// makePods makes the pods, behind interfaces that no CNI calls so.
func (s *stage) makePods(ctx context.Context) error {
	for i, p := range []Pod{
		{scraperNamespace, scraper, node0, addr("10.65.1.10"), map[string]string{"app": "prometheus"}},
		{"default", otherPod, node0, addr("10.65.1.11"), map[string]string{"app": "other"}},
		{"calico-system", controllers, master, addr("10.65.0.10"), map[string]string{"k8s-app": controllers}},
	} {
		pod, err := s.hosts[p.Node].Pod(p.Name, lab.Cable{Interface: fmt.Sprintf("pod%d", i), Addrs: []netip.Addr{p.Addr}})
		if err != nil {
			return err
		}
		s.clients[p.Name] = &pod.Machine
		if err := s.cluster.AddPod(ctx, p); err != nil {
			return fmt.Errorf("add pod %s: %w", p.Name, err)
		}
	}
	return nil
}

// start starts the parts of Margay, and something on a port that is nobody's.
func (s *stage) start(ctx context.Context) error {
	for _, p := range []struct {
		part string
		on   *lab.Machine
	}{{"typha", &s.hosts[master].Machine}, {"node", &s.hosts[master].Machine}, {"node", &s.hosts[node0].Machine}, {"kube-controllers", s.clients[controllers]}} {
		s.printf("starting margay %s on %s\n", p.part, p.on.Name())
		if err := s.cluster.Start(ctx, p.part, p.on); err != nil {
			return fmt.Errorf("start %s on %s: %w", p.part, p.on.Name(), err)
		}
	}
	delete(s.clients, controllers)
	for target, at := range map[string]string{onNode: "10.100.0.15:9091", onTypha: "10.100.0.15:9093", onControllers: "10.65.0.10:9094", onRest: "10.100.0.15:8080"} {
		s.targets[target] = netip.MustParseAddrPort(at)
	}
	rest, err := s.hosts[master].Listen("tcp", ":8080")
	if err != nil {
		return err
	}
	s.listeners = append(s.listeners, rest)
	go func() {
		for {
			conn, err := rest.Accept()
			if err != nil {
				return // closed
			}
			_ = conn.Close()
		}
	}()
	return nil
}

// pairs returns every client with every target, in order.
func (s *stage) pairs() []string {
	var pairs []string
	for client := range s.clients {
		for target := range s.targets {
			pairs = append(pairs, client+" "+target)
		}
	}
	slices.Sort(pairs)
	return pairs
}

// watch looks until everything is as it should be twice in a row, or the time is over; it returns what is wrong then.
func (s *stage) watch(ctx context.Context, open []string) ([]string, error) {
	for deadline, rights := time.Now().Add(s.options.stepTime), 0; ; {
		wrong := s.look(ctx, open)
		if rights++; len(wrong) > 0 {
			rights = 0
		}
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
		if rights == 2 || rights == 0 && time.Now().After(deadline) {
			return wrong, nil
		}
	}
}

// look tries everything at once and returns what is not as it should be.
func (s *stage) look(ctx context.Context, open []string) []string {
	var mu sync.Mutex
	var wrong []string
	var wg sync.WaitGroup
	for _, pair := range s.pairs() {
		wg.Go(func() {
			client, target, _ := strings.Cut(pair, " ")
			err := s.connect(ctx, client, target, patience)
			if (err == nil) != slices.Contains(open, pair) {
				mu.Lock()
				defer mu.Unlock()
				wrong = append(wrong, fmt.Sprintf("%s: %v", pair, err))
			}
		})
	}
	wg.Wait()
	slices.Sort(wrong)
	return wrong
}

func (s *stage) connect(ctx context.Context, client, target string, patience time.Duration) error {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	var conn net.Conn
	conn, err := s.clients[client].Dial(ctx, "tcp", s.targets[target].String())
	if err == nil {
		_ = conn.Close()
	}
	return err
}

// attempt is how long one of the attempts by which a change is timed may take: the figures are that coarse.
const attempt = 2 * time.Millisecond

// measure gives and takes the label, and times from the API server's answer to the first attempt that is as it should be.
func (s *stage) measure(ctx context.Context, flips int) (f Figures, err error) {
	for range flips {
		for _, value := range []string{"true", ""} {
			if err := s.cluster.Label(ctx, Pod{Namespace: scraperNamespace, Name: scraper}, accessLabel, value); err != nil {
				return f, fmt.Errorf("label pod %s: %w", scraper, err)
			}
			start := time.Now()
			// An attempt that ran into its short time may have been slow, not denied, so closed is when three in a row are.
			var missed time.Duration
			for misses := 0; ; {
				began := time.Since(start)
				open := s.connect(ctx, scraper, onNode, attempt) == nil
				switch {
				case open:
					misses = 0
				case misses == 0:
					misses, missed = 1, began
				default:
					misses++
				}
				if value != "" && open {
					f.Opened = append(f.Opened, time.Since(start))
					break
				}
				if value == "" && misses == 3 {
					f.Closed = append(f.Closed, missed)
					break
				}
				if time.Since(start) > s.options.stepTime || ctx.Err() != nil {
					return f, fmt.Errorf("label %q of pod %s has no effect after %v: %w", value, scraper, s.options.stepTime, ErrWrong)
				}
			}
		}
	}
	return f, nil
}
