package kube

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net/http"
	"os"
	"time"

	"github.com/google/uuid"
	coordinationv1 "k8s.io/api/coordination/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// A Lease names the object over which instances agree who leads.
type Lease struct {
	Namespace, Name string
	// Identity of this instance; "" makes one of the host's name and a random part, so that a restarted instance is
	// another: it does not know what its predecessor was about to do.
	Identity string
}

// electionTimes are those of an election. What must hold is Deadline < Duration: who leads has been told to stop before
// anybody else may begin. Both are measured by the clock of one process each; clocks of hosts are not compared.
type electionTimes struct {
	Duration time.Duration // without a sign of life for so long, a lease may be taken over
	Deadline time.Duration // without a renewal for so long, who leads stops
	Period   time.Duration // between two attempts
}

// usualTimes are those of Kubernetes' own controllers.
func usualTimes() electionTimes {
	return electionTimes{Duration: 15 * time.Second, Deadline: 10 * time.Second, Period: 2 * time.Second}
}

// An Elector lets one of several instances lead, over a Lease of Kubernetes, by the rules of client-go, so that either can
// stand for election beside the other. (client-go's own comes with the clients of all kinds of Kubernetes.) It needs leave
// to get, create and update that Lease.
type Elector struct {
	client *client
	lease  Lease
	times  electionTimes
	log    *slog.Logger

	seen   coordinationv1.LeaseSpec // of the lease, when it was last seen to change
	seenAt time.Time
	leader string // who was last told to lead
}

// NewElector returns an elector of the cluster that cfg names. It makes no request.
func NewElector(cfg Config, lease Lease) (*Elector, error) {
	s, err := Open(context.Background(), cfg)
	if err != nil {
		return nil, err
	}
	if lease.Identity == "" {
		host, err := os.Hostname()
		if err != nil {
			return nil, fmt.Errorf("take part in the election: %w", err)
		}
		lease.Identity = host + "_" + uuid.NewString()
	}
	return &Elector{
		client: s.client, lease: lease, times: usualTimes(),
		log: s.log.With("lease", lease.Namespace+"/"+lease.Name, "identity", lease.Identity),
	}, nil
}

// Run calls lead whenever this instance leads, with a context that ends when it no longer does or when ctx ends. The lease
// is given back after lead has returned, so that a successor begins at once and finds nobody at work. Run returns when ctx
// has ended.
func (e *Elector) Run(ctx context.Context, lead func(ctx context.Context)) {
	for failures := 0; ctx.Err() == nil; {
		started := time.Now()
		held, err := e.try(ctx, e.times.Deadline)
		switch {
		case held:
			failures = 0
			e.hold(ctx, started, lead)
		case err != nil && ctx.Err() == nil:
			if failures++; failures == 1 {
				e.log.Warn("cannot take part in the election, trying again", "error", err)
			}
		default:
			failures = 0
		}
		select {
		case <-ctx.Done():
		case <-time.After(e.times.Period/2 + rand.N(e.times.Period)):
		}
	}
}

// hold has lead work until it returns, and renews the lease meanwhile. renewed is when the last renewal began.
func (e *Elector) hold(ctx context.Context, renewed time.Time, lead func(ctx context.Context)) {
	working, stop := context.WithCancel(ctx)
	defer stop()
	done := make(chan struct{})
	go func() { defer close(done); lead(working) }()
	requests := context.WithoutCancel(ctx) // renewed and given back while lead still finishes
	lose := func(why string) {
		e.log.Warn("no longer leading: " + why)
		stop()
		<-done
	}
	ticker := time.NewTicker(e.times.Period)
	defer ticker.Stop()
	deadline := time.NewTimer(time.Until(renewed.Add(e.times.Deadline)))
	defer deadline.Stop()
	for {
		select {
		case <-done:
			e.release(requests)
			return
		case <-deadline.C:
			lose("the lease could not be renewed")
			return
		case <-ticker.C:
		}
		started := time.Now()
		// Half of what is left, so that a request that hangs leaves time for another.
		switch held, err := e.try(requests, time.Until(renewed.Add(e.times.Deadline))/2); {
		case held:
			renewed = started
			deadline.Reset(time.Until(renewed.Add(e.times.Deadline)))
		case err == nil:
			lose("the lease is another's")
			return
		}
	}
}

// try takes or renews the lease if it may, and reports whether this instance holds it. Without an error and not held, it is
// another's.
func (e *Elector) try(ctx context.Context, timeout time.Duration) (bool, error) {
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	lease, err := e.get(ctx)
	var no *statusError
	if errors.As(err, &no) && no.code == http.StatusNotFound {
		fresh := &coordinationv1.Lease{
			TypeMeta:   metav1.TypeMeta{Kind: "Lease", APIVersion: "coordination.k8s.io/v1"},
			ObjectMeta: metav1.ObjectMeta{Namespace: e.lease.Namespace, Name: e.lease.Name},
		}
		e.sign(fresh)
		return e.outcome(fresh, e.write(ctx, http.MethodPost, e.path(""), fresh))
	}
	if err != nil {
		return false, err
	}
	e.observe(&lease.Spec)
	if !e.mayTake(&lease.Spec) {
		return false, nil
	}
	e.sign(lease)
	return e.outcome(lease, e.write(ctx, http.MethodPut, e.path(e.lease.Name), lease))
}

// outcome: another was faster, or it is held now.
func (e *Elector) outcome(lease *coordinationv1.Lease, err error) (bool, error) {
	var no *statusError
	if errors.As(err, &no) && no.code == http.StatusConflict {
		return false, nil
	}
	if err == nil {
		e.observe(&lease.Spec)
	}
	return err == nil, err
}

// observe notes what the lease says, and when it said something else than before.
func (e *Elector) observe(spec *coordinationv1.LeaseSpec) {
	if e.seenAt.IsZero() || !sameLease(&e.seen, spec) {
		e.seen, e.seenAt = *spec, time.Now()
	}
	if name := holder(spec); name != "" && name != e.leader {
		e.leader = name
		e.log.Info("leader", "leader", name)
	}
}

func sameLease(a, b *coordinationv1.LeaseSpec) bool {
	sameTime := a.RenewTime == nil && b.RenewTime == nil || a.RenewTime != nil && b.RenewTime != nil && a.RenewTime.Equal(b.RenewTime)
	return holder(a) == holder(b) && sameTime
}

func holder(spec *coordinationv1.LeaseSpec) string {
	if spec.HolderIdentity == nil {
		return ""
	}
	return *spec.HolderIdentity
}

// mayTake reports whether the lease is this instance's, nobody's, or that of one who has shown no sign of life.
func (e *Elector) mayTake(spec *coordinationv1.LeaseSpec) bool {
	name := holder(spec)
	duration := e.times.Duration
	if spec.LeaseDurationSeconds != nil {
		duration = time.Duration(*spec.LeaseDurationSeconds) * time.Second
	}
	return name == "" || name == e.lease.Identity || time.Since(e.seenAt) > duration
}

// sign makes the lease this instance's, from now.
func (e *Elector) sign(lease *coordinationv1.Lease) {
	now := metav1.NowMicro()
	spec := &lease.Spec
	if holder(spec) != e.lease.Identity {
		transitions := int32(0)
		if spec.LeaseTransitions != nil {
			transitions = *spec.LeaseTransitions + 1
		}
		spec.LeaseTransitions, spec.AcquireTime = &transitions, &now
	}
	seconds := int32((e.times.Duration + time.Second - 1) / time.Second)
	spec.HolderIdentity, spec.LeaseDurationSeconds, spec.RenewTime = &e.lease.Identity, &seconds, &now
}

// release gives the lease back. If that fails, it lapses.
func (e *Elector) release(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, e.times.Period)
	defer cancel()
	lease, err := e.get(ctx)
	if err != nil || holder(&lease.Spec) != e.lease.Identity {
		return
	}
	nobody, second, now := "", int32(1), metav1.NowMicro()
	lease.Spec.HolderIdentity, lease.Spec.LeaseDurationSeconds, lease.Spec.RenewTime = &nobody, &second, &now
	if err := e.write(ctx, http.MethodPut, e.path(e.lease.Name), lease); err != nil {
		e.log.Warn("the lease is not given back and will lapse", "error", err)
	}
}

func (e *Elector) path(name string) string {
	path := "/apis/coordination.k8s.io/v1/namespaces/" + e.lease.Namespace + "/leases"
	if name != "" {
		path += "/" + name
	}
	return path
}

func (e *Elector) get(ctx context.Context) (*coordinationv1.Lease, error) {
	data, err := e.client.do(ctx, request{method: http.MethodGet, path: e.path(e.lease.Name)})
	if err != nil {
		return nil, fmt.Errorf("get lease %s/%s: %w", e.lease.Namespace, e.lease.Name, err)
	}
	lease := &coordinationv1.Lease{}
	if err := json.Unmarshal(data, lease); err != nil {
		return nil, fmt.Errorf("read lease %s/%s: %w", e.lease.Namespace, e.lease.Name, err)
	}
	return lease, nil
}

// write stores the lease if it is still of the version that was read.
func (e *Elector) write(ctx context.Context, method, path string, lease *coordinationv1.Lease) error {
	data, err := json.Marshal(lease)
	if err == nil {
		_, err = e.client.do(ctx, request{method: method, path: path, body: data})
	}
	if err != nil {
		return fmt.Errorf("write lease %s/%s: %w", e.lease.Namespace, e.lease.Name, err)
	}
	return nil
}
