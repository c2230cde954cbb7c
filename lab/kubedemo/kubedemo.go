// Package kubedemo shows the rest of the guide "Secure Calico Prometheus endpoints" on a cluster: a label that kubectl gives to
// a pod opens the metrics ports of agents (9091), typha (9093) and kube-controllers (9094), and taking it away closes them.
//
//	steps (the guide, corrected, as data) --> Cluster: apply, label --> API server --> typha --> agents --> kernel
//	   |                                                                                                     |
//	   +--------- expected ----------------> table <------------------ seen <------------- probes -----------+
//
// Hosts and pods are network namespaces. It knows no API server and no Margay: whoever runs it hands in both, as a [Cluster].
package kubedemo

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/netip"
	"slices"
	"strings"
	"time"

	"margay/lab"
)

// A Cluster is an API server, on a host of the demo, and what runs on it.
type Cluster interface {
	// Apply does what kubectl apply -f does.
	Apply(ctx context.Context, manifests []byte) error
	// AddPod makes the object of a running pod, and its namespace if there is none. Nothing runs in it but what Start is told to.
	AddPod(ctx context.Context, p Pod) error
	// Label does what kubectl label pod does, to the pod with p's namespace and name, and returns with the API server's answer; ""
	// as value takes the label away.
	Label(ctx context.Context, p Pod, name, value string) error
	// Start runs a part of Margay on a machine, by the name of its command (node, typha, kube-controllers), with its metrics
	// on the port that the guide gives it. It returns when the part says that it is ready.
	Start(ctx context.Context, part string, on *lab.Machine) error
}

// A Pod is what the API server is told of one.
type Pod struct {
	Namespace, Name, Node string
	Addr                  netip.Addr
	Labels                map[string]string
}

// Options say what to run on. All but Stdout must be set.
type Options struct {
	// NewCluster starts an API server on a host, at its address, and makes Nodes of these names with these addresses. Run
	// does not end what it started.
	NewCluster func(ctx context.Context, on *lab.Host, nodes map[string]netip.Addr) (Cluster, error)
	// Manifests are those of examples/deny-list.
	Manifests fs.FS
	// Flips is how often the label is given and taken to measure how fast that is [20].
	Flips  int
	Stdout io.Writer // nil: nobody sees it

	stepTime time.Duration // how long everything may take to be as it should be; 0: 20 s
}

// ErrWrong is what Run returns, wrapped, when something was reachable that should not be, or the other way round.
var ErrWrong = errors.New("not as the guide says")

// Figures are what was measured: how long after the API server's answer the port was open, and closed.
type Figures struct{ Opened, Closed []time.Duration }

// median returns the middle of some times; 0 for none.
func median(times []time.Duration) time.Duration {
	if len(times) == 0 {
		return 0
	}
	return slices.Sorted(slices.Values(times))[len(times)/2]
}

// Run runs the demo. It needs root.
func Run(ctx context.Context, o Options) (Figures, error) {
	if o.Stdout == nil {
		o.Stdout = io.Discard
	}
	o.Flips, o.stepTime = cmp.Or(o.Flips, 20), cmp.Or(o.stepTime, 20*time.Second)
	s, err := newStage(ctx, o)
	if err != nil {
		return Figures{}, fmt.Errorf("set the stage: %w", err)
	}
	defer s.close()
	for _, st := range script() {
		if err := s.play(ctx, st); err != nil {
			return Figures{}, err
		}
	}
	f, err := s.measure(ctx, o.Flips)
	if err != nil {
		return f, err
	}
	s.printf("\nThe label opens 9091 %v after the API server's answer and closes it after %v (medians of %d).\n",
		median(f.Opened).Round(100*time.Microsecond), median(f.Closed).Round(100*time.Microsecond), o.Flips)
	return f, nil
}

// A step is what the reader of the guide does, and who reaches what then.
type step struct {
	title     string
	manifests []string          // files
	label     map[string]string // of the scraper; "" takes away
	open      []string          // "client target", see stage
}

// The clients and targets of the table.
const (
	scraper    = "my-prometheus-pod"
	otherPod   = "other-pod"
	management = "172.15.0.101"

	onNode, onTypha, onControllers, onRest = "9091", "9093", "9094", "8080"
)

const accessLabel = "calico-prometheus-access"

// every returns all pairs of these clients and targets.
func every(clients []string, targets ...string) []string {
	var pairs []string
	for _, c := range clients {
		for _, t := range targets {
			pairs = append(pairs, c+" "+t)
		}
	}
	return pairs
}

// script is the guide's deny-list approach for all three, with its defects mended as examples/deny-list has them.
func script() []step {
	all, managed := []string{scraper, otherPod, management}, []string{management}
	secured := []string{onNode, onTypha, onControllers}
	closed := append(every(all, onRest), every(managed, secured...)...)
	return []step{
		{title: "Nothing is filtered", open: every(all, append(secured, onRest)...)},
		{title: "Default policy, then host endpoints: everything is reachable as before",
			manifests: []string{"01-default-host.yaml", "02-host-endpoints.yaml"}, open: every(all, append(secured, onRest)...)},
		{title: "The management networks may scrape, and 9091 of calico/node is for those who may",
			manifests: []string{"03-scrapers.yaml", "04-calico-node-9091.yaml"},
			open:      slices.Concat(every(all, onTypha, onControllers, onRest), every(managed, onNode))},
		{title: "9093 of typha as well", manifests: []string{"05-typha-9093.yaml"},
			open: slices.Concat(every(all, onControllers, onRest), every(managed, onNode, onTypha))},
		{title: "9094 of kube-controllers as well", manifests: []string{"06-kube-controllers-9094.yaml"}, open: closed},
		{title: "kubectl label pod " + scraper + " " + accessLabel + "=true: it may scrape all three",
			label: map[string]string{accessLabel: "true"}, open: append(every([]string{scraper}, secured...), closed...)},
		{title: "kubectl label pod " + scraper + " " + accessLabel + "=false: it may not",
			label: map[string]string{accessLabel: "false"}, open: closed},
		{title: "... =true", label: map[string]string{accessLabel: "true"}, open: append(every([]string{scraper}, secured...), closed...)},
		{title: "kubectl label pod " + scraper + " " + accessLabel + "-: closed again", label: map[string]string{accessLabel: ""}, open: closed},
	}
}

func (s *stage) play(ctx context.Context, st step) error {
	s.printf("\n%s\n", st.title)
	for _, file := range st.manifests {
		text, err := fs.ReadFile(s.options.Manifests, file)
		if err != nil {
			return err
		}
		s.printf("  apply -f %s\n", file)
		if err := s.cluster.Apply(ctx, text); err != nil {
			return fmt.Errorf("apply %s: %w", file, err)
		}
	}
	for name, value := range st.label {
		if err := s.cluster.Label(ctx, Pod{Namespace: scraperNamespace, Name: scraper}, name, value); err != nil {
			return fmt.Errorf("label pod %s: %w", scraper, err)
		}
	}
	start := time.Now()
	wrong, err := s.watch(ctx, st.open)
	if err != nil {
		return err
	}
	if len(wrong) > 0 {
		return fmt.Errorf("%s: %s: %w", st.title, strings.Join(wrong, "; "), ErrWrong)
	}
	s.printf("  %d pairs of client and port, all as they should be after %v\n", len(s.pairs()), time.Since(start).Round(time.Millisecond))
	return nil
}
