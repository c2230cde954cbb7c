package controllers

import (
	"context"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	v3 "margay/api/v3"
	"margay/store"
)

// patience is for a machine that does a lot else.
const patience = 60 * time.Second

func eventually(t testing.TB, what string, try func() error) {
	t.Helper()
	var err error
	for end := time.Now().Add(patience); time.Now().Before(end); time.Sleep(5 * time.Millisecond) {
		if err = try(); err == nil {
			return
		}
	}
	t.Fatalf("%s: %v", what, err)
}

// discard is a log that nobody reads.
func discard() *slog.Logger { return slog.New(slog.DiscardHandler) }

// start runs an engine with all controllers and returns how to end it.
func start(from, to store.Store, hosts string) (stop func()) {
	return startOf(from, to, all(hosts))
}

func all(hosts string) []controller {
	c, err := newHostController(&v3.AutoHostEndpointConfig{AutoCreate: hosts, CreateDefaultHostEndpoint: enabled})
	if err != nil {
		panic(err)
	}
	return []controller{newNodeController(true), c, policyController(), namespaceController(), serviceAccountController(), workloadController{}}
}

func startOf(from, to store.Store, controllers []controller) (stop func()) {
	m := newMetrics("test")
	e := &engine{stores: [2]store.Store{from, to}, controllers: controllers, log: discard(), metrics: m, health: newHealth("", discard(), m)}
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	wg.Go(func() { e.run(ctx) })
	return func() { cancel(); wg.Wait() }
}

// holds waits until the target holds exactly what is given, by content.
func holds(t testing.TB, s *memoryStore, want map[v3.Key]string) {
	t.Helper()
	eventually(t, "the datastore", func() error {
		if diff := cmp.Diff(want, s.contents()); diff != "" {
			return fmt.Errorf("differs (-want +got):\n%s", diff)
		}
		return nil
	})
}

func contentsOf(t testing.TB, list ...string) map[v3.Key]string {
	t.Helper()
	s := newMemoryStore()
	for _, text := range list {
		s.put(resource(t, text))
	}
	return s.contents()
}

const (
	blue      = `{kind: Profile, metadata: {name: kns.blue}, spec: {ingress: [{action: Allow}], egress: [{action: Allow}], labelsToApply: {pcns.team: a, pcns.projectcalico.org/name: blue}}}`
	robot     = `{kind: Profile, metadata: {name: ksa.blue.robot}, spec: {labelsToApply: {pcsa.projectcalico.org/name: robot}}}`
	knp       = `{kind: NetworkPolicy, metadata: {name: knp.default.web, namespace: blue, labels: {projectcalico.org/tier: default}}, spec: {tier: default, order: 1000, selector: "projectcalico.org/orchestrator == 'k8s'", types: [Ingress]}}`
	pod       = `{kind: WorkloadEndpoint, metadata: {name: n1-k8s-web-eth0, namespace: blue, labels: {app: web, projectcalico.org/namespace: blue, projectcalico.org/orchestrator: k8s}}, spec: {orchestrator: k8s, node: n1, pod: web, endpoint: eth0, interfaceName: cali1, ipNetworks: [10.0.0.1/32], profiles: [kns.blue]}}`
	podMarked = `{kind: WorkloadEndpoint, metadata: {name: n1-k8s-web-eth0, namespace: blue, annotations: {projectcalico.org/created-by: calico-kube-controllers}, labels: {app: web, projectcalico.org/namespace: blue, projectcalico.org/orchestrator: k8s}}, spec: {orchestrator: k8s, node: n1, pod: web, endpoint: eth0, interfaceName: cali1, ipNetworks: [10.0.0.1/32], profiles: [kns.blue]}}`
	podOfCNI  = `{kind: WorkloadEndpoint, metadata: {name: n1-k8s-web-eth0, namespace: blue, labels: {app: old, projectcalico.org/namespace: blue, projectcalico.org/orchestrator: k8s}}, spec: {orchestrator: k8s, node: n1, pod: web, endpoint: eth0, interfaceName: veth9, mac: "00:00:00:00:00:01", ipNetworks: [10.0.0.9/32], profiles: [kns.blue]}}`
)

// TestCopies: each case is what both sides hold, and what the datastore holds in the end.
func TestCopies(t *testing.T) {
	const (
		mine      = `{kind: NetworkPolicy, metadata: {name: mine, namespace: blue}, spec: {tier: default, types: [Ingress]}}`
		mineToo   = `{kind: Profile, metadata: {name: mine}}`
		oldPolicy = `{kind: NetworkPolicy, metadata: {name: knp.default.gone, namespace: blue}, spec: {tier: default, types: [Ingress]}}`
		oldBlue   = `{kind: Profile, metadata: {name: kns.blue}, spec: {labelsToApply: {pcns.team: old}}}`
		podNoIP   = `{kind: WorkloadEndpoint, metadata: {name: n1-k8s-web-eth0, namespace: blue, labels: {app: web}}, spec: {orchestrator: k8s, node: n1, pod: web, endpoint: eth0, interfaceName: cali1}}`
	)
	tests := []struct {
		name           string
		from, to, want []string
	}{
		{"everything", []string{blue, robot, knp, pod}, nil, []string{blue, robot, knp, podMarked}},
		{"already there", []string{blue, robot, knp, pod}, []string{blue, robot, knp, podMarked}, []string{blue, robot, knp, podMarked}},
		{"changed", []string{blue}, []string{oldBlue}, []string{blue}},
		{"gone", nil, []string{blue, oldPolicy, podMarked}, nil},
		{"others' stay", nil, []string{mine, mineToo, podOfCNI}, []string{mine, mineToo, podOfCNI}},
		{"others are not copied", []string{mine, mineToo}, nil, nil},
		{"the CNI plugin's gets labels", []string{pod}, []string{podOfCNI}, []string{strings.Replace(podOfCNI, "app: old", "app: web", 1)}},
		{"a pod without address", []string{podNoIP}, nil, nil},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			from, to := newMemoryStore(), newMemoryStore()
			for _, text := range test.from {
				from.put(resource(t, text))
			}
			for _, text := range test.to {
				to.put(resource(t, text))
			}
			// The last to come says that all before it is done.
			from.put(resource(t, `{kind: Profile, metadata: {name: kns.zz}}`))
			defer start(from, to, disabled)()
			holds(t, to, contentsOf(t, append(slices.Clone(test.want), `{kind: Profile, metadata: {name: kns.zz}}`)...))
		})
	}
}

// TestNodes: each case is a Node on both sides and what becomes of it.
func TestNodes(t *testing.T) {
	const kube = `{kind: Node, metadata: {name: k1, labels: {zone: a, own: x}, annotations: {projectcalico.org/kube-labels: '{"zone":"a"}'}}, spec: {orchRefs: [{nodeName: k1, orchestrator: k8s}], addresses: [{address: 10.0.0.1, type: InternalIP}]}}`
	node := func(name, meta, spec string) string {
		return fmt.Sprintf(`{kind: Node, metadata: {name: %s%s}, spec: {%s}}`, name, meta, spec)
	}
	const (
		ref    = `orchRefs: [{nodeName: k1, orchestrator: k8s}]`
		merged = `, addresses: [{address: 10.0.0.1, type: InternalIP}]`
		notes  = `annotations: {projectcalico.org/kube-labels: '{"zone":"a"}'}`
	)
	tests := []struct{ name, from, to, want string }{
		{"labels", kube, node("c1", ", labels: {mine: m}", ref), node("c1", ", labels: {mine: m, zone: a}, "+notes, ref+merged)},
		{"labels that are gone", kube, node("c1", `, labels: {mine: m, old: o, zone: b}, annotations: {a: b, projectcalico.org/kube-labels: '{"old":"o","zone":"b"}'}`, ref),
			node("c1", `, labels: {mine: m, zone: a}, annotations: {a: b, projectcalico.org/kube-labels: '{"zone":"a"}'}`, ref+merged)},
		{"addresses", kube, node("c1", "", ref+`, addresses: [{address: 9.9.9.9, type: InternalIP}, {address: 10.0.0.1/24, type: CalicoNodeIP}]`),
			node("c1", ", labels: {zone: a}, "+notes, ref+`, addresses: [{address: 10.0.0.1/24, type: CalicoNodeIP}, {address: 10.0.0.1, type: InternalIP}]`)},
		{"by name", kube, node("k1", "", ""), node("k1", ", labels: {zone: a}, "+notes, ref+merged)},
		{"gone", "", node("c1", "", ref), ""},
		{"not Kubernetes'", "", node("c1", ", labels: {a: b}", ""), node("c1", ", labels: {a: b}", "")},
		{"another orchestrator's", "", node("c1", "", "orchRefs: [{nodeName: k1, orchestrator: openstack}]"), node("c1", "", "orchRefs: [{nodeName: k1, orchestrator: openstack}]")},
		{"not registered", kube, "", ""},
		{"an annotation that cannot be read", kube, node("c1", `, annotations: {projectcalico.org/kube-labels: x}`, ref), node("c1", `, annotations: {projectcalico.org/kube-labels: x}`, ref)},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			from, to := newMemoryStore(), newMemoryStore()
			if test.from != "" {
				from.put(resource(t, test.from))
			}
			if test.to != "" {
				to.put(resource(t, test.to))
			}
			from.put(resource(t, `{kind: Profile, metadata: {name: kns.zz}}`))
			defer start(from, to, disabled)()
			want := []string{`{kind: Profile, metadata: {name: kns.zz}}`}
			if test.want != "" {
				want = append(want, test.want)
			}
			holds(t, to, contentsOf(t, want...))
		})
	}
}

// TestNothingBeforeBothAreListed: with one side away, nothing is written or deleted, however long it takes.
func TestNothingBeforeBothAreListed(t *testing.T) {
	for _, cut := range []side{source, target} {
		t.Run(cut.String(), func(t *testing.T) {
			t.Parallel()
			stores := [2]*memoryStore{newMemoryStore(resource(t, robot)), newMemoryStore(resource(t, blue), resource(t, `{kind: Node, metadata: {name: c1}, spec: {orchRefs: [{nodeName: k1, orchestrator: k8s}]}}`))}
			stores[cut].cut(errDown)
			defer start(stores[source], stores[target], enabled)()
			time.Sleep(500 * time.Millisecond) // there is nothing to wait for: nothing is to happen
			stores[target].mu.Lock()
			if stores[target].writes != 0 {
				t.Errorf("%d writes", stores[target].writes)
			}
			stores[target].mu.Unlock()
			stores[cut].cut(nil)
			holds(t, stores[target], contentsOf(t, robot))
		})
	}
}

// TestNodeIsAskedForAgain: a Node is deleted only when Kubernetes says once more that it is gone.
func TestNodeIsAskedForAgain(t *testing.T) {
	kube := resource(t, `{kind: Node, metadata: {name: k1}}`)
	from := &denies{memoryStore: newMemoryStore(kube), kinds: []v3.Kind{v3.KindNode}}
	to := newMemoryStore(resource(t, `{kind: Node, metadata: {name: c1}, spec: {orchRefs: [{nodeName: k1, orchestrator: k8s}]}}`))
	from.hide.Store(true)
	defer start(from, to, disabled)()
	eventually(t, "asked", func() error {
		if from.asked.Load() < 3 {
			return fmt.Errorf("%d times", from.asked.Load())
		}
		return nil
	})
	if get[v3.Node](to, v3.Key{Kind: v3.KindNode, Name: "c1"}) == nil {
		t.Error("deleted while Kubernetes has it")
	}
	from.remove(v3.KeyOf(kube))
	holds(t, to, map[v3.Key]string{})
}

// TestNothingGoesByAShortList: what a list leaves out, without an error, is there as long as Kubernetes says so when it is asked for
// it, and an automatic host endpoint as long as there is its Node.
func TestNothingGoesByAShortList(t *testing.T) {
	const (
		node = `{kind: Node, metadata: {name: n1}}`
		host = `{kind: HostEndpoint, metadata: {name: n1-auto-hep, labels: {projectcalico.org/created-by: calico-kube-controllers}}, spec: {node: n1, interfaceName: "*"}}`
	)
	from := &denies{memoryStore: newMemoryStore(), kinds: []v3.Kind{v3.KindProfile, v3.KindNetworkPolicy, v3.KindWorkloadEndpoint}}
	to := &denies{memoryStore: newMemoryStore(resource(t, node), resource(t, host)), kinds: []v3.Kind{v3.KindNode}}
	for _, text := range []string{blue, robot, knp, pod} {
		from.put(resource(t, text))
		to.put(resource(t, strings.Replace(text, pod, podMarked, 1)))
	}
	from.hide.Store(true)
	to.hide.Store(true)
	before := to.contents()
	defer start(from, to, enabled)()
	eventually(t, "asked for each, again and again", func() error {
		if a, b := from.asked.Load(), to.asked.Load(); a < 12 || b < 3 {
			return fmt.Errorf("%d and %d times", a, b)
		}
		return nil
	})
	holds(t, to.memoryStore, before)
	for _, text := range []string{blue, robot, knp, pod} {
		from.remove(v3.KeyOf(resource(t, text)))
	}
	to.remove(v3.KeyOf(resource(t, node)))
	holds(t, to.memoryStore, map[v3.Key]string{})
}

// TestFaults: what cannot be read on one side does not take anything away on the other; what is ours is repaired.
func TestFaults(t *testing.T) {
	from, to := newMemoryStore(resource(t, blue), resource(t, knp)), newMemoryStore()
	defer start(from, to, disabled)()
	holds(t, to, contentsOf(t, blue, knp))
	from.spoil(v3.KeyOf(resource(t, blue)))
	to.spoil(v3.KeyOf(resource(t, knp)))
	holds(t, to, contentsOf(t, blue, knp))
	to.spoil(v3.KeyOf(resource(t, blue)))
	from.put(resource(t, robot))
	want := contentsOf(t, blue, knp, robot)
	want[v3.KeyOf(resource(t, blue))] = "unreadable"
	holds(t, to, want)
	from.remove(v3.KeyOf(resource(t, blue)))
	holds(t, to, contentsOf(t, knp, robot))
}

// TestRefusedWrites: one object that cannot be stored does not keep the others, and is not tried without end.
func TestRefusedWrites(t *testing.T) {
	long := strings.Replace(knp, "selector: \"", "selector: \""+strings.Repeat("has(a) && ", 200), 1)
	from, to := newMemoryStore(resource(t, long), resource(t, blue)), newMemoryStore()
	defer start(from, to, disabled)()
	holds(t, to, contentsOf(t, blue))
	from.put(resource(t, robot))
	holds(t, to, contentsOf(t, blue, robot))
	to.mu.Lock()
	defer to.mu.Unlock()
	if to.writes > 20 {
		t.Errorf("%d writes", to.writes)
	}
}

// TestSomebodyWritesAgainst: two that disagree about an object do not chase each other: the pauses grow.
func TestSomebodyWritesAgainst(t *testing.T) {
	from, to := newMemoryStore(resource(t, blue)), newMemoryStore()
	defer start(from, to, disabled)()
	writes := func() int {
		to.mu.Lock()
		defer to.mu.Unlock()
		return to.writes
	}
	begun := time.Now()
	eventually(t, "it is written again and again", func() error {
		if text := to.contents()[v3.KeyOf(resource(t, blue))]; strings.Contains(text, "pcns.team") {
			to.put(resource(t, `{kind: Profile, metadata: {name: kns.blue}}`))
		}
		if n := writes(); n < 6 {
			return fmt.Errorf("%d writes", n)
		}
		return nil
	})
	// 2 at once, then at least 50, 100, 200 and 400 ms between.
	if took := time.Since(begun); took < 750*time.Millisecond {
		t.Errorf("%d writes within %v", writes(), took)
	}
}

// TestOwnWritesDoNotOutliveTheStore: what was written and is gone again before it came back is missed, even if a relist does
// not mention it.
func TestOwnWritesDoNotOutliveTheStore(t *testing.T) {
	m := newMetrics("test")
	to := newMemoryStore()
	e := &engine{stores: [2]store.Store{newMemoryStore(), to}, controllers: all(disabled), log: discard(), metrics: m, health: newHealth("", discard(), m)}
	e.reset()
	profile := resource(t, blue)
	key := v3.KeyOf(profile)
	list := func(revision store.Revision, s side, events ...store.Event) {
		e.take(delivery{s, store.Batch{InSync: true, Revision: revision, Events: events}})
	}
	list("5", source, store.Event{Key: key, Revision: "5", Resource: profile})
	list("0", target)
	e.round(t.Context())
	if len(to.contents()) != 1 || e.view.get(target, key) == nil {
		t.Fatalf("written %v", to.contents())
	}
	list("0", target, store.Event{Key: key, Revision: "0"}) // late news do not count
	if e.view.get(target, key) == nil {
		t.Error("an older change hides a write")
	}
	to.remove(key)
	list("2", target)
	e.round(t.Context())
	if len(to.contents()) != 1 {
		t.Errorf("holds %v, pending %v", to.contents(), e.pending)
	}
}

// TestHostEndpointsFollow: labels of a Node, its end, and the switch.
func TestHostEndpointsFollow(t *testing.T) {
	const (
		node  = `{kind: Node, metadata: {name: n1, labels: {zone: %s}}, spec: {addresses: [{address: 10.0.0.1, type: InternalIP}]}}`
		auto  = `{kind: HostEndpoint, metadata: {name: n1-auto-hep, labels: {zone: %s, projectcalico.org/created-by: calico-kube-controllers}}, spec: {node: n1, interfaceName: "*", expectedIPs: [10.0.0.1], profiles: [projectcalico-default-allow]}}`
		other = `{kind: HostEndpoint, metadata: {name: mine}, spec: {node: n1, interfaceName: eth0}}`
	)
	a, b := fmt.Sprintf(node, "a"), fmt.Sprintf(node, "b")
	s := newMemoryStore(resource(t, a), resource(t, other))
	hosts := func(mode string) []controller { return all(mode)[1:2] }
	stop := startOf(s, s, hosts(enabled))
	holds(t, s, contentsOf(t, a, other, fmt.Sprintf(auto, "a")))
	s.put(resource(t, b))
	holds(t, s, contentsOf(t, b, other, fmt.Sprintf(auto, "b")))
	s.remove(v3.KeyOf(resource(t, fmt.Sprintf(auto, "b"))))
	holds(t, s, contentsOf(t, b, other, fmt.Sprintf(auto, "b")))
	s.put(resource(t, strings.Replace(fmt.Sprintf(auto, "b"), "10.0.0.1", "10.0.0.2", 1)))
	holds(t, s, contentsOf(t, b, other, fmt.Sprintf(auto, "b")))
	stop()
	s.remove(v3.KeyOf(resource(t, b)))
	stop = startOf(s, s, hosts(enabled))
	holds(t, s, contentsOf(t, other))
	s.put(resource(t, a))
	holds(t, s, contentsOf(t, a, other, fmt.Sprintf(auto, "a")))
	stop()
	stop = startOf(s, s, hosts(disabled))
	holds(t, s, contentsOf(t, a, other))
	stop()
}
