package kube

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	coordinationv1 "k8s.io/api/coordination/v1"
)

// A leaseServer is as much of an API server as an election needs.
type leaseServer struct {
	mu       sync.Mutex
	lease    *coordinationv1.Lease
	version  int
	requests int
	down     map[string]bool // by user agent
}

func (s *leaseServer) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.requests++
	refuse := func(code int) {
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(code)
		fmt.Fprintf(w, `{"kind":"Status","code":%d,"message":"no"}`, code)
	}
	const base = "/apis/coordination.k8s.io/v1/namespaces/calico-system/leases"
	var given coordinationv1.Lease
	if r.Method != http.MethodGet && json.NewDecoder(r.Body).Decode(&given) != nil {
		refuse(http.StatusBadRequest)
		return
	}
	switch {
	case s.down[r.UserAgent()]:
		refuse(http.StatusInternalServerError)
		return
	case r.Method == http.MethodGet && r.URL.Path == base+"/lead" && s.lease == nil:
		refuse(http.StatusNotFound)
		return
	case r.Method == http.MethodGet && r.URL.Path == base+"/lead":
	case r.Method == http.MethodPost && r.URL.Path == base && s.lease != nil,
		r.Method == http.MethodPut && (s.lease == nil || given.ResourceVersion != s.lease.ResourceVersion):
		refuse(http.StatusConflict)
		return
	case r.Method == http.MethodPost && r.URL.Path == base, r.Method == http.MethodPut && r.URL.Path == base+"/lead":
		s.version++
		s.lease = &given
		s.lease.ResourceVersion = strconv.Itoa(s.version)
	default:
		refuse(http.StatusNotFound)
		return
	}
	_ = json.NewEncoder(w).Encode(s.lease)
}

func (s *leaseServer) cut(agent string, down bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.down == nil {
		s.down = map[string]bool{}
	}
	s.down[agent] = down
}

// An election has candidates and counts how many lead at once.
type election struct {
	t       *testing.T
	server  *leaseServer
	url     string
	leading atomic.Int32
	terms   sync.Map // name -> *atomic.Int32: terms begun
}

func newElection(t *testing.T) *election {
	e := &election{t: t, server: &leaseServer{}}
	server := httptest.NewServer(e.server)
	t.Cleanup(server.Close)
	e.url = server.URL
	return e
}

// candidate stands for election until stop is called.
func (e *election) candidate(name string) (stop func()) {
	e.t.Helper()
	elector, err := NewElector(Config{Server: e.url, UserAgent: name}, Lease{Namespace: "calico-system", Name: "lead", Identity: name})
	if err != nil {
		e.t.Fatal(err)
	}
	// Far enough apart for a machine that does a lot else.
	elector.times = electionTimes{Duration: 6 * time.Second, Deadline: 2 * time.Second, Period: 100 * time.Millisecond}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		elector.Run(ctx, func(ctx context.Context) {
			if n := e.leading.Add(1); n != 1 {
				e.t.Errorf("%d lead", n)
			}
			e.count(name).Add(1)
			<-ctx.Done()
			e.leading.Add(-1)
		})
	}()
	stop = sync.OnceFunc(func() { cancel(); <-ended })
	e.t.Cleanup(stop)
	return stop
}

func (e *election) count(name string) *atomic.Int32 {
	n, _ := e.terms.LoadOrStore(name, &atomic.Int32{})
	return n.(*atomic.Int32)
}

func (e *election) await(what string, holds func() bool) {
	e.t.Helper()
	for end := time.Now().Add(time.Minute); time.Now().Before(end); time.Sleep(5 * time.Millisecond) {
		if holds() {
			return
		}
	}
	e.t.Fatal(what)
}

// TestElection: one leads; when it stops, the next does at once; when it is cut off, it has stopped before the next begins.
func TestElection(t *testing.T) {
	t.Parallel()
	e := newElection(t)
	stopA := e.candidate("a")
	e.await("nobody leads", func() bool { return e.count("a").Load() == 1 })
	e.candidate("b")
	e.candidate("c")
	stopA()
	next := func() string {
		for _, name := range []string{"b", "c"} {
			if e.count(name).Load() > 0 {
				return name
			}
		}
		return ""
	}
	e.await("nobody succeeds", func() bool { return next() != "" })
	first := next()
	e.server.cut(first, true)
	e.await("it leads although it is cut off", func() bool { return e.leading.Load() == 0 })
	other := map[string]string{"b": "c", "c": "b"}[first]
	e.await("nobody takes over", func() bool { return e.count(other).Load() == 1 })
	e.server.cut(first, false)
	if n := e.count(first).Load(); n != 1 {
		t.Errorf("%s led %d times", first, n)
	}
	e.server.mu.Lock()
	defer e.server.mu.Unlock()
	spec := e.server.lease.Spec
	if holder(&spec) != other || *spec.LeaseTransitions < 2 || *spec.LeaseDurationSeconds != 6 {
		t.Errorf("lease %+v", spec)
	}
}

// TestElectionIsWonOnce: of many that begin together, one leads.
func TestElectionIsWonOnce(t *testing.T) {
	t.Parallel()
	e := newElection(t)
	for i := range 8 {
		e.candidate(fmt.Sprintf("n%d", i))
	}
	e.await("nobody leads", func() bool { return e.leading.Load() == 1 })
	time.Sleep(500 * time.Millisecond) // there is nothing to wait for: nobody else is to lead
	if n := e.leading.Load(); n != 1 {
		t.Errorf("%d lead", n)
	}
}

// TestForeignLease: the lease of one who is not of us is respected until it lapses.
func TestForeignLease(t *testing.T) {
	t.Parallel()
	e := newElection(t)
	name, seconds := "somebody", int32(2)
	e.server.lease = &coordinationv1.Lease{Spec: coordinationv1.LeaseSpec{HolderIdentity: &name, LeaseDurationSeconds: &seconds}}
	e.server.lease.ResourceVersion = "0"
	begun := time.Now()
	e.candidate("a")
	e.await("never taken over", func() bool { return e.leading.Load() == 1 })
	if took := time.Since(begun); took < 2*time.Second {
		t.Errorf("taken over after %v", took)
	}
}
