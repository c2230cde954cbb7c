package kubernetes_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	v3 "margay/api/v3"
	"margay/store"
	"margay/store/kube"
	"margay/test/kubernetes/cluster"
)

// settled waits until a mirror holds what the server has, read by a store of its own.
func settled(t testing.TB, c *cluster.Cluster, m *mirror, kinds ...v3.Kind) *store.List {
	t.Helper()
	s := opened(t, c)
	var list *store.List
	eventually(t, "the mirror has what the server has", func() bool {
		var err error
		list, err = s.List(context.Background(), "", kinds...)
		return err == nil && m.same(list)
	})
	return list
}

func (m *mirror) failures(want error) int {
	m.mu.Lock()
	defer m.mu.Unlock()
	n := 0
	for _, err := range m.errs {
		if errors.Is(err, want) {
			n++
		}
	}
	return n
}

func (m *mirror) synced() bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.inSync
}

func pods(t testing.TB, c *cluster.Cluster, from, to int) {
	t.Helper()
	var wg sync.WaitGroup
	for w := range 8 {
		wg.Go(func() {
			for i := from + w; i < to; i += 8 {
				if err := makePod(c, podNumber(i)); err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	wg.Wait()
}

func podNumber(i int) podSpec {
	return podSpec{namespace: "default", name: fmt.Sprintf("p%d", i), node: "node-3", ip: fmt.Sprintf("10.%d.%d.%d", 1+i>>16, i>>8&255, i&255),
		labels: object{"n": "0"}}
}

// TestServerRestarts kills the API server under a watch, and stops it in order.
func TestServerRestarts(t *testing.T) {
	c := empty(t)
	kinds := []v3.Kind{v3.KindWorkloadEndpoint, v3.KindNetworkPolicy, v3.KindTier}
	m := follow(t, opened(t, c), kinds...)
	eventually(t, "the first snapshot", m.synced)
	for i, stop := range []func(){c.KillServer, c.StopServer} {
		pods(t, c, 10*i, 10*i+5)
		before := m.failures(store.ErrUnavailable)
		stop()
		eventually(t, "the follower says so", func() bool { return m.failures(store.ErrUnavailable) > before })
		if err := c.StartServer(t.Context()); err != nil {
			t.Fatal(err)
		}
		if err := deletePod(c, "default", fmt.Sprintf("p%d", 10*i)); err != nil {
			t.Fatal(err)
		}
		pods(t, c, 10*i+5, 10*i+10)
		if list := settled(t, c, m, kinds...); len(list.Items) != 9*(i+1) {
			t.Errorf("%d objects after restart %d", len(list.Items), i)
		}
	}
}

// TestExpiredWatch says to a watch that its history is gone, in the middle and at its beginning.
func TestExpiredWatch(t *testing.T) {
	c := empty(t)
	p := startProxy(t, c)
	pods(t, c, 0, 5)
	kinds := []v3.Kind{v3.KindWorkloadEndpoint, v3.KindTier}
	var expired atomic.Int32
	p.set(func(w http.ResponseWriter, r *http.Request) bool {
		if !isWatch(r) || !strings.HasSuffix(r.URL.Path, "/pods") {
			return false
		}
		switch expired.Add(1) {
		case 1:
			answerStatus(w, http.StatusGone, "Expired")
		case 2:
			w.Header().Set("Content-Type", "application/json")
			fmt.Fprintf(w, `{"type":"ERROR","object":%s}`+"\n", status(http.StatusGone, "Expired"))
		default:
			return false
		}
		return true
	})
	m := follow(t, p.open(t), kinds...)
	eventually(t, "the watch expires twice and is opened again", func() bool { return expired.Load() >= 3 })
	pods(t, c, 5, 10)
	if list := settled(t, c, m, kinds...); len(list.Items) != 10 {
		t.Errorf("%d objects", len(list.Items))
	}
	if n := m.failures(store.ErrUnavailable); n > 0 {
		t.Errorf("an expired watch was told as %d outages", n)
	}
}

// TestSlowLists lets every page take its time, and the state of the first pages expire before the last one.
func TestSlowLists(t *testing.T) {
	c := empty(t)
	p := startProxy(t, c)
	const n = 620 // two pages
	pods(t, c, 0, n)
	var lists, pages atomic.Int32
	p.set(func(w http.ResponseWriter, r *http.Request) bool {
		if !isList(r, "pods") {
			return false
		}
		time.Sleep(300 * time.Millisecond)
		if r.URL.Query().Get("continue") == "" {
			lists.Add(1)
		} else if pages.Add(1) == 1 {
			answerStatus(w, http.StatusGone, "Expired")
			return true
		}
		return false
	})
	s := p.open(t)
	list, err := s.List(t.Context(), "", v3.KindWorkloadEndpoint)
	if err != nil || len(list.Items) != n || lists.Load() != 2 || pages.Load() != 2 {
		t.Fatalf("%d endpoints, %d lists, %d later pages, %v", len(list.Items), lists.Load(), pages.Load(), err)
	}
	soon, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	if _, err := s.List(soon, "", v3.KindWorkloadEndpoint); !errors.Is(err, store.ErrUnavailable) {
		t.Errorf("a list that is not waited for: %v", err)
	}
}

// TestForbidden asks as a user without rights, who gets them later, and loses them again.
func TestForbidden(t *testing.T) {
	c := empty(t)
	path, err := c.UserKubeconfig("agent")
	if err != nil {
		t.Fatal(err)
	}
	s, err := kube.Open(t.Context(), kube.Config{Kubeconfig: path})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	_, err = s.List(t.Context(), "", v3.KindWorkloadEndpoint)
	if !errors.Is(err, store.ErrForbidden) || !strings.Contains(err.Error(), `User "agent" cannot list resource "pods"`) {
		t.Fatalf("list without rights: %v", err)
	}
	if _, err := s.Create(t.Context(), tier("t")); !errors.Is(err, store.ErrForbidden) {
		t.Errorf("create without rights: %v", err)
	}
	if err := s.ReportStatus(t.Context(), store.NodeStatus{Node: "n"}); !errors.Is(err, store.ErrForbidden) {
		t.Errorf("report without rights: %v", err)
	}
	m := follow(t, s, v3.KindWorkloadEndpoint, v3.KindTier)
	eventually(t, "the follower says so", func() bool { return m.failures(store.ErrForbidden) > 0 })
	if m.synced() {
		t.Error("a list that is not allowed is an empty one")
	}
	bind := func() {
		do(t, c, http.MethodPost, "/apis/rbac.authorization.k8s.io/v1/clusterroles", object{
			"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRole", "metadata": object{"name": "agent"},
			"rules": []any{object{"apiGroups": []any{"", "projectcalico.org"}, "resources": []any{"pods", "tiers"}, "verbs": []any{"get", "list", "watch"}}}})
		do(t, c, http.MethodPost, "/apis/rbac.authorization.k8s.io/v1/clusterrolebindings", object{
			"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRoleBinding", "metadata": object{"name": "agent"},
			"roleRef":  object{"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "agent"},
			"subjects": []any{object{"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": "agent"}}})
	}
	bind()
	pods(t, c, 0, 3)
	eventually(t, "with rights it is in sync", m.synced)
	settled(t, c, m, v3.KindWorkloadEndpoint, v3.KindTier)
	do(t, c, http.MethodDelete, "/apis/rbac.authorization.k8s.io/v1/clusterrolebindings/agent", nil)
	do(t, c, http.MethodDelete, "/apis/rbac.authorization.k8s.io/v1/clusterroles/agent", nil)
	eventually(t, "without rights again nothing can be read", func() bool {
		_, err := s.List(t.Context(), "", v3.KindWorkloadEndpoint)
		return errors.Is(err, store.ErrForbidden)
	})
	if len(m.keys(v3.KindWorkloadEndpoint)) != 3 {
		t.Error("what was known is gone")
	}
}

// TestChurn changes 1,000 pods from several sides while connections break, and accounts for everything in the end.
func TestChurn(t *testing.T) {
	c := empty(t)
	p := startProxy(t, c)
	kinds := []v3.Kind{v3.KindWorkloadEndpoint, v3.KindProfile, v3.KindNetworkPolicy, v3.KindNode}
	goroutines := runtime.NumGoroutine()
	t.Run("watched", func(t *testing.T) {
		m := follow(t, p.open(t), kinds...)
		eventually(t, "the first snapshot", m.synced)
		const n, writers = 1000, 8
		stop := make(chan struct{})
		var cutter, wg sync.WaitGroup
		cuts := 0
		cutter.Go(func() {
			for {
				select {
				case <-stop:
					return
				case <-time.After(300 * time.Millisecond):
					p.cut()
					cuts++
				}
			}
		})
		for w := range writers {
			wg.Go(func() {
				random := rand.New(rand.NewPCG(uint64(w), 1))
				for i := w; i < n; i += writers {
					if err := churnPod(c, i, random); err != nil {
						t.Error(err)
						return
					}
				}
			})
		}
		wg.Wait()
		close(stop)
		cutter.Wait()
		list := settled(t, c, m, kinds...)
		t.Logf("%d objects in the end, connections cut %d times, %d batches, %d outages told", len(list.Items), cuts, m.batches, len(m.errs))
		if cuts < 3 || len(list.Items) < n/2 {
			t.Error("too little has happened")
		}
	})
	p.cut()
	eventually(t, "no goroutine is left over", func() bool { return runtime.NumGoroutine() <= goroutines+5 })
}

// churnPod makes a pod, relabels it, and perhaps deletes it or makes it anew.
func churnPod(c *cluster.Cluster, i int, random *rand.Rand) error {
	p := podNumber(i)
	if err := makePod(c, p); err != nil {
		return err
	}
	if random.IntN(2) == 0 {
		if err := labelPod(c, p.namespace, p.name, object{"n": fmt.Sprint(i)}); err != nil {
			return err
		}
	}
	if random.IntN(4) > 0 {
		return nil
	}
	if err := deletePod(c, p.namespace, p.name); err != nil || random.IntN(2) == 0 {
		return err
	}
	p.node = "node-2"
	return makePod(c, p)
}

func tier(name string) *v3.Tier {
	info, _ := v3.Lookup(v3.KindTier)
	r := info.New().(*v3.Tier)
	r.Name = name
	return r
}
