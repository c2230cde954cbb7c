package typha

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"sync"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	v3 "margay/api/v3"
	"margay/store"
)

// A job is a request with who asks.
type job struct {
	peer    *peer
	request request
}

// maxJobs is how many requests are worked on at once, of all clients; jobTimeout bounds each.
const (
	maxJobs    = 16
	jobTimeout = 10 * time.Second
)

// work answers requests until the context ends.
func (s *Server) work(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case j := <-s.jobs:
			attempt, cancel := context.WithTimeout(ctx, jobTimeout)
			answer, err := s.do(attempt, j)
			cancel()
			result := "ok"
			if err != nil {
				answer.Code, answer.Reason = codeOf(err)
				result = string(answer.Code)
			}
			s.metrics.requests.WithLabelValues(opName(j.request.Op), result).Inc()
			answer.ID = j.request.ID
			j.peer.answer(answer)
		}
	}
}

// opName keeps what a client makes up out of the metric.
func opName(op string) string {
	if slices.Contains([]string{opGet, opPrevious, opInitialise, opRegister, opReport, opEndpoints, opHostPods}, op) {
		return op
	}
	return "unknown"
}

// errNotYours refuses what a client says of a node that is not its own.
var errNotYours = errors.New("a client speaks for its own node only")

// errOnlyName refuses addresses and labels of a Node: what they say of a host, such as where its tunnels begin, is for those to
// say who may write to the datastore.
var errOnlyName = errors.New("a client registers the name of its node and nothing else")

// do does what a request asks for.
func (s *Server) do(ctx context.Context, j job) (reply, error) {
	r := j.request
	switch r.Op {
	case opGet:
		return s.get(r.Key)
	case opPrevious:
		if !slices.Contains(s.cfg.Kinds, r.Key.Kind) {
			return reply{}, store.ErrNotSupported
		}
		resource, err := s.cache.store.Previous(ctx, r.Key, r.Before)
		return replyOf(resource, err)
	case opInitialise:
		return reply{}, s.initialised.once(ctx, s.cache.store)
	case opRegister:
		return s.register(ctx, j)
	case opReport:
		return reply{}, s.reportStatus(ctx, j)
	case opEndpoints:
		return reply{}, s.reportEndpoints(ctx, j)
	case opHostPods:
		return s.hostPods(ctx, j)
	}
	return reply{}, fmt.Errorf("%w: %q", store.ErrNotSupported, r.Op)
}

// get answers from the cache: what the stream says, and no older.
func (s *Server) get(key v3.Key) (reply, error) {
	if !slices.Contains(s.cfg.Kinds, key.Kind) {
		return reply{}, store.ErrNotSupported
	}
	record, ok := s.cache.get(key)
	if !ok {
		return reply{}, &store.Error{Key: key, Err: store.ErrNotFound, Cause: errors.New("key not found")}
	}
	return reply{Record: record}, nil
}

// register creates the Node of the client.
func (s *Server) register(ctx context.Context, j job) (reply, error) {
	node := &v3.Node{}
	if err := json.Unmarshal(j.request.Value, node); err != nil {
		return reply{}, fmt.Errorf("read Node: %w", err)
	}
	if key := v3.KeyOf(node); key.Kind != v3.KindNode || key.Namespace != "" {
		return reply{}, &store.Error{Err: store.ErrForbidden, Cause: errNotYours}
	}
	if err := s.mayWrite(j, node.Name); err != nil {
		return reply{}, err
	}
	if bare := (&v3.Node{TypeMeta: node.TypeMeta, ObjectMeta: metav1.ObjectMeta{Name: node.Name}}); !reflect.DeepEqual(node, bare) {
		return reply{}, &store.Error{Err: store.ErrForbidden, Cause: errOnlyName}
	}
	resource, err := s.cache.store.Create(ctx, node)
	return replyOf(resource, err)
}

// mayWrite refuses what a client may not write: what is about another node than its own.
func (s *Server) mayWrite(j job, node string) error {
	switch {
	case node != j.peer.node:
		return &store.Error{Err: store.ErrForbidden, Cause: errNotYours}
	case s.cache.hasNode(node):
		s.writers.forget(node)
	case !s.writers.admit(node):
		return &store.Error{Err: store.ErrForbidden, Cause: errManyNames}
	}
	return nil
}

// reportStatus stores the client's status.
func (s *Server) reportStatus(ctx context.Context, j job) error {
	report, err := unpackReport[statusReport](s.reports, j.request.Pack)
	if err == nil {
		err = s.mayWrite(j, report.Status.Node)
	}
	if err != nil {
		return err
	}
	report.Status.Heartbeat = report.Heartbeat
	return s.cache.store.ReportStatus(ctx, report.Status)
}

// reportEndpoints stores the states of the client's endpoints, if the store has a place for them.
func (s *Server) reportEndpoints(ctx context.Context, j job) error {
	to, ok := s.cache.store.(store.EndpointReporter)
	if !ok {
		return store.ErrNotSupported
	}
	report, err := unpackReport[endpointsReport](s.reports, j.request.Pack)
	if err == nil {
		err = s.mayWrite(j, report.Node)
	}
	if err != nil {
		return err
	}
	states := make(map[v3.Key]store.EndpointState, len(report.States))
	for _, e := range report.States {
		states[e.Key] = e.State
	}
	return to.ReportEndpoints(ctx, report.Node, states)
}

// hostPods asks the store for the pods on the network of the client's own node, which are no endpoints: they concern its
// warnings only, so that they are no part of the stream that all clients get.
func (s *Server) hostPods(ctx context.Context, j job) (reply, error) {
	from, ok := s.cache.store.(store.HostPods)
	if !ok {
		return reply{}, store.ErrNotSupported
	}
	pods, err := from.HostPods(ctx, j.peer.node)
	if err != nil {
		return reply{}, err
	}
	return reply{HostPods: pods}, nil
}

// unpackReport is the reverse of packReport.
func unpackReport[T any](u *unpacker, pack []byte) (report T, err error) {
	raw, _, err := u.bytes(pack)
	if err != nil {
		return report, fmt.Errorf("read report: %w", err)
	}
	if err := json.Unmarshal(raw, &report); err != nil {
		return report, fmt.Errorf("read report: %w", err)
	}
	return report, nil
}

// errManyNames refuses names beyond what a cluster has.
var errManyNames = errors.New("too many nodes have been named to this typha")

// writers are the names for which clients have written and that are no Node, or not yet. Without TLS anybody may be a client,
// so their number is bounded. Nodes are not counted: in the life of a typha there may be any number of them.
type writers struct {
	limit int

	mu    sync.Mutex
	names map[string]struct{}
}

// admit reports whether something may be written for a name.
func (w *writers) admit(name string) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	if _, known := w.names[name]; !known && len(w.names) >= w.limit {
		return false
	}
	w.names[name] = struct{}{}
	return true
}

// forget makes room: the name is that of a Node by now.
func (w *writers) forget(name string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	delete(w.names, name)
}

// replyOf hands on a resource.
func replyOf(r v3.Resource, err error) (reply, error) {
	if err != nil {
		return reply{}, err
	}
	rec := recordOf(store.Event{Key: v3.KeyOf(r), Revision: store.Revision(r.GetResourceVersion()), Resource: r})
	return reply{Record: appendRecord(nil, rec)}, nil
}

// initialised remembers that the store was initialised, which every agent asks for when it starts.
type initialised struct {
	mu   sync.Mutex
	done bool
}

func (i *initialised) once(ctx context.Context, s store.Store) error {
	i.mu.Lock()
	defer i.mu.Unlock()
	if i.done {
		return nil
	}
	err := s.Initialise(ctx)
	i.done = err == nil
	return err
}
