package controllers

import (
	"context"
	"fmt"
	"maps"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	v3 "margay/api/v3"
)

// A history is a random one of both sides and of the engine.
type history struct {
	t        *testing.T
	r        *rand.Rand
	from, to *memoryStore
	stop     func()
	own      map[string]map[string]string // labels that people gave to Nodes
}

// TestRandomHistories: whatever happens on both sides and to the engine, in the end the datastore holds what it would if
// the engine had started then, what people own as they left it, and a further engine finds nothing to do.
func TestRandomHistories(t *testing.T) {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	for i := range uint64(24) {
		t.Run(fmt.Sprint(i), func(t *testing.T) {
			t.Parallel()
			h := &history{t: t, r: rand.New(rand.NewPCG(seed, i)), from: newMemoryStore(), to: newMemoryStore(), own: map[string]map[string]string{}}
			h.stop = start(h.from, h.to, enabled)
			for range 150 {
				h.step()
			}
			h.finish()
		})
	}
}

func (h *history) pick(list ...string) string { return list[h.r.IntN(len(list))] }

// labels returns some labels with keys of their own, so that those of Kubernetes and of people are told apart.
func (h *history) labels(prefix string) string {
	var list []string
	for _, key := range []string{"1", "2", "3"} {
		if h.r.IntN(2) == 0 {
			list = append(list, fmt.Sprintf("%q: %q", prefix+key, h.pick("x", "y")))
		}
	}
	return "{" + strings.Join(list, ", ") + "}"
}

func (h *history) step() {
	if h.r.IntN(4) == 0 {
		time.Sleep(time.Duration(h.r.IntN(3)) * time.Millisecond)
	}
	switch h.r.IntN(12) {
	case 0, 1, 2, 3:
		h.inKubernetes()
	case 4, 5:
		h.node()
	case 6, 7, 8:
		h.people()
	case 9:
		h.pickStore().cut(errDown)
	case 10:
		h.from.cut(nil)
		h.to.cut(nil)
	case 11:
		if h.r.IntN(3) == 0 {
			h.pickStore().compact()
		} else {
			h.stop() // wherever it is
			h.stop = start(h.from, h.to, enabled)
		}
	}
}

func (h *history) pickStore() *memoryStore {
	if h.r.IntN(2) == 0 {
		return h.from
	}
	return h.to
}

// objects returns what Kubernetes may have, some version of it.
func (h *history) objects() string {
	name := h.pick("a", "b", "c")
	switch h.r.IntN(4) {
	case 0:
		return fmt.Sprintf(`{kind: Profile, metadata: {name: kns.%s}, spec: {ingress: [{action: Allow}], labelsToApply: %s}}`, name, h.labels("pcns."))
	case 1:
		return fmt.Sprintf(`{kind: Profile, metadata: {name: ksa.ns.%s}, spec: {labelsToApply: %s}}`, name, h.labels("pcsa."))
	case 2:
		return fmt.Sprintf(`{kind: NetworkPolicy, metadata: {name: knp.default.%s, namespace: ns, labels: {projectcalico.org/tier: default}}, spec: {tier: default, order: 1000, selector: has(%s), types: [Ingress]}}`, name, h.pick("x", "y"))
	}
	return h.endpoint(name, h.pick("[]", "[10.0.0.1/32]", "[10.0.0.2/32]"), "")
}

func (h *history) endpoint(name, nets, more string) string {
	labels := strings.TrimSuffix(h.labels("k"), "}")
	if labels != "{" {
		labels += ", "
	}
	labels += "projectcalico.org/namespace: ns, projectcalico.org/orchestrator: k8s}"
	return fmt.Sprintf(`{kind: WorkloadEndpoint, metadata: {name: %s-k8s-%s-eth0, namespace: ns, labels: %s}, spec: {orchestrator: k8s, node: %s, pod: %s, endpoint: eth0, interfaceName: cali%s, ipNetworks: %s%s}}`,
		"n1", name, labels, "n1", name, name, nets, more)
}

func (h *history) inKubernetes() {
	r := resource(h.t, h.objects())
	switch h.r.IntN(6) {
	case 0, 1:
		h.from.remove(v3.KeyOf(r))
	case 2:
		h.from.spoil(v3.KeyOf(r))
	default:
		h.from.put(r)
	}
}

// node changes a Node of Kubernetes, or the datastore's as its agent would.
func (h *history) node() {
	name := h.pick("n1", "n2", "n3")
	key := v3.Key{Kind: v3.KindNode, Name: name}
	if h.r.IntN(2) == 0 {
		if h.r.IntN(3) == 0 {
			h.from.remove(key)
			return
		}
		labels := h.labels("k")
		h.from.put(resource(h.t, fmt.Sprintf(`{kind: Node, metadata: {name: %s, labels: %s, annotations: {projectcalico.org/kube-labels: '%s'}}, spec: {orchRefs: [{nodeName: %s, orchestrator: k8s}], addresses: [{address: 10.0.0.%d, type: InternalIP}]}}`,
			name, labels, labels, name, h.r.IntN(200))))
		return
	}
	have := get[v3.Node](h.to, key)
	switch {
	case have == nil:
		h.own[name] = nil
		h.to.put(resource(h.t, fmt.Sprintf(`{kind: Node, metadata: {name: %s}}`, name)))
	case h.r.IntN(4) == 0:
		h.to.remove(key)
	default:
		labels := maps.Clone(have.Labels)
		maps.DeleteFunc(labels, func(k, _ string) bool { return strings.HasPrefix(k, "u") })
		own := *parse[map[string]string](h.t, h.labels("u"))
		if labels == nil {
			labels = map[string]string{}
		}
		maps.Copy(labels, own)
		changed := *have
		changed.Labels = labels
		if _, err := h.to.Update(context.Background(), &changed); err == nil {
			h.own[name] = own
		}
	}
}

// people change what is not theirs, and what is.
func (h *history) people() {
	r := resource(h.t, h.objects())
	switch h.r.IntN(8) {
	case 0:
		h.to.remove(v3.KeyOf(r))
	case 1:
		if _, ok := r.(*v3.WorkloadEndpoint); !ok {
			h.to.put(r)
		}
	case 2:
		if _, ok := r.(*v3.WorkloadEndpoint); !ok {
			h.to.spoil(v3.KeyOf(r))
		}
	case 3:
		h.to.put(resource(h.t, h.endpoint(h.pick("a", "b"), "[10.9.9.9/32]", ", mac: '00:00:00:00:00:01'"))) // the CNI plugin
	case 4:
		h.to.put(resource(h.t, fmt.Sprintf(`{kind: HostEndpoint, metadata: {name: mine-%s}, spec: {node: n1, interfaceName: eth0}}`, h.pick("1", "2"))))
	case 5:
		h.to.remove(v3.Key{Kind: v3.KindHostEndpoint, Name: h.pick("n1", "n2", "n3") + "-auto-hep"})
	case 6:
		h.to.put(resource(h.t, fmt.Sprintf(`{kind: HostEndpoint, metadata: {name: %[1]s-auto-hep, labels: {projectcalico.org/created-by: calico-kube-controllers}}, spec: {node: %[1]s, interfaceName: "eth7"}}`, h.pick("n1", "n2", "n3"))))
	case 7:
		h.to.put(resource(h.t, fmt.Sprintf(`{kind: NetworkPolicy, metadata: {name: mine-%s, namespace: ns}, spec: {tier: default, types: [Ingress]}}`, h.pick("1", "2"))))
	}
}

// finish ends the disturbances and compares.
func (h *history) finish() {
	h.from.cut(nil)
	h.to.cut(nil)
	for key, text := range h.from.contents() {
		if text == "unreadable" {
			h.from.remove(key)
		}
	}
	defer func() { h.stop() }()
	eventually(h.t, "both engines agree", func() error {
		got := h.to.contents()
		want, err := h.fromScratch()
		if err != nil {
			return err
		}
		if diff := cmp.Diff(want, got); diff != "" {
			return fmt.Errorf("from scratch -, in the end +:\n%s", diff)
		}
		return h.checkNodes()
	})
	h.stop()
	got := h.to.contents()
	again := newMemoryStore()
	for key, text := range got {
		if text != "unreadable" {
			again.put(h.to.current[key].Resource)
		}
	}
	h.stop = start(h.from, again, enabled)
	h.from.put(resource(h.t, `{kind: Profile, metadata: {name: kns.zz}}`))
	got[v3.Key{Kind: v3.KindProfile, Name: "kns.zz"}] = contentsOf(h.t, `{kind: Profile, metadata: {name: kns.zz}}`)[v3.Key{Kind: v3.KindProfile, Name: "kns.zz"}]
	holds(h.t, again, got)
	again.mu.Lock()
	defer again.mu.Unlock()
	if again.writes != 1 {
		h.t.Errorf("a further engine found %d things to write", again.writes-1)
	}
}

// fromScratch returns what the datastore must hold, made from what Kubernetes has, the Nodes and what is not the
// controllers', without any of their code but that for host endpoints.
func (h *history) fromScratch() (map[v3.Key]string, error) {
	want := newMemoryStore()
	hosts, err := newHostController(&v3.AutoHostEndpointConfig{AutoCreate: enabled})
	if err != nil {
		return nil, err
	}
	h.to.mu.Lock()
	h.from.mu.Lock()
	defer h.to.mu.Unlock()
	defer h.from.mu.Unlock()
	for key, e := range h.to.current {
		if e.Fault != nil {
			return nil, fmt.Errorf("%s is unreadable", key)
		}
		ours := strings.HasPrefix(key.Name, "kns.") || strings.HasPrefix(key.Name, "ksa.") || strings.HasPrefix(key.Name, "knp.default.") ||
			e.Resource.GetAnnotations()[v3.LabelCreatedBy] != "" || e.Resource.GetLabels()[v3.LabelCreatedBy] != ""
		if !ours {
			want.put(e.Resource)
		}
		if n, ok := e.Resource.(*v3.Node); ok {
			for _, ep := range hosts.wanted(n) {
				want.put(ep)
			}
		}
	}
	for key, e := range h.from.current {
		pod, isPod := e.Resource.(*v3.WorkloadEndpoint)
		switch have, exists := h.to.current[key]; {
		case key.Kind == v3.KindNode:
		case !isPod:
			want.put(e.Resource)
		case exists && have.Resource.GetAnnotations()[v3.LabelCreatedBy] == "":
			cni := clone(have.Resource)
			cni.SetLabels(pod.Labels)
			want.put(cni)
		case exists || len(pod.Spec.IPNetworks) > 0:
			made := clone(pod)
			made.SetAnnotations(map[string]string{v3.LabelCreatedBy: v3.CreatedByKubeControllers})
			want.put(made)
		}
	}
	return want.contents(), nil
}

// checkNodes: a Node has the labels of Kubernetes and of people, and no others; without one of Kubernetes it is gone, if
// it ever was Kubernetes'.
func (h *history) checkNodes() error {
	for _, name := range []string{"n1", "n2", "n3"} {
		key := v3.Key{Kind: v3.KindNode, Name: name}
		have, kube := get[v3.Node](h.to, key), get[v3.Node](h.from, key)
		if have == nil {
			continue
		}
		if kube == nil {
			if kubernetesName(have) != "" {
				return fmt.Errorf("%s is there without one of Kubernetes", key)
			}
			continue
		}
		want := maps.Clone(kube.Labels)
		if want == nil {
			want = map[string]string{}
		}
		maps.Copy(want, h.own[name])
		if !maps.Equal(want, have.Labels) || len(have.Spec.Addresses) != 1 || have.Spec.Addresses[0] != kube.Spec.Addresses[0] {
			return fmt.Errorf("%s has %v at %v, want %v", key, have.Labels, have.Spec.Addresses, want)
		}
	}
	return nil
}
