// Package etcd keeps resources in an etcd v3 cluster, under Calico's keys and as Calico's JSON, so that both
// products work on the same data. It must not know whether the server is another host's or this process's (package embed
// hands it a client), and decides nothing about resources: package store has the rules, api/v3 the formats.
//
//	Create Update Delete --rules--> one transaction on mod revisions
//	Get List             <--decode-- ranges, all of one revision
//	Watch                <--decode-- one etcd watch over the common prefix, and a heartbeat on its stream
//
// Nothing here logs a value or a password.
package etcd

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net/url"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/connectivity"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/status"

	"margay/store"
)

// The times that the zero values of Config stand for.
const (
	defaultDialTimeout    = 5 * time.Second
	defaultRequestTimeout = 10 * time.Second // as Calico's
	defaultHeartbeat      = 5 * time.Second
)

// How the connection is kept. gRPC sends no pings more often than every 10 s; a server that has stopped without closing
// its connections is given up after keepaliveTime + keepaliveTimeout.
const (
	keepaliveTime    = 10 * time.Second
	keepaliveTimeout = 5 * time.Second // at least, see slowest
	connectTimeout   = 5 * time.Second // at least, of one attempt; a frozen server accepts and says nothing
	longestBackoff   = 3 * time.Second // between attempts
	patience         = 3 * time.Second // of a request when no server can be connected to
)

// maxSendBytes bounds a request. The server has its own, usually lower, limit.
const maxSendBytes = 16 << 20

// Config says how to reach a cluster.
type Config struct {
	// Endpoints are http://, https:// or unix:// addresses of the members; all must be of the same kind.
	Endpoints []string
	// Username and Password, both or none.
	Username, Password string
	// TLS for https:// endpoints; nil: the system's roots, no client certificate. See [TLSFiles].
	TLS *tls.Config
	// DialTimeout bounds the authentication by password; 0: 5 s.
	DialTimeout time.Duration
	// RequestTimeout bounds each request whose context ends later or never; 0: 10 s. A connection may be half as slow.
	RequestTimeout time.Duration
	// Heartbeat is after what silence a watch checks that its server still answers, and how long it waits for that
	// answer; 0: 5 s.
	Heartbeat time.Duration
	// Log gets the etcd client's messages at debug level; nil: they are dropped.
	Log *slog.Logger
}

// A Store is a store.Store over etcd.
type Store struct {
	cfg       Config
	endpoints string // for errors, without passwords

	connecting chan struct{} // holds one token while a client is being made
	client     atomic.Pointer[clientv3.Client]
	closed     atomic.Bool
	cluster    atomic.Uint64 // id of the cluster that answered the last List; 0: none did
	watches    atomic.Uint64 // counts streams

	leaseMu sync.Mutex
	leases  map[string]lease // by node
}

var _ store.Store = (*Store)(nil)

// Open returns a store on the cluster. It does not wait for a connection: a cluster that cannot be reached shows in the
// first operation, as store.ErrUnavailable. Its errors are about the configuration.
func Open(_ context.Context, cfg Config) (*Store, error) {
	if len(cfg.Endpoints) == 0 {
		return nil, errors.New("open datastore: no etcd endpoints specified (set ETCD_ENDPOINTS)")
	}
	if (cfg.Username == "") != (cfg.Password == "") {
		return nil, errors.New("open datastore: etcd username and password must be given together")
	}
	for i, endpoint := range cfg.Endpoints {
		endpoint = strings.TrimRight(strings.TrimSpace(endpoint), "/")
		if err := checkEndpoint(endpoint); err != nil {
			return nil, fmt.Errorf("open datastore: %w", err)
		}
		cfg.Endpoints[i] = endpoint
	}
	return newStore(cfg), nil
}

// New returns a store on a client that the caller made; closing the store closes it. Of cfg, only the times and the log
// are used, and Endpoints for error texts.
func New(client *clientv3.Client, cfg Config) *Store {
	s := newStore(cfg)
	s.client.Store(client)
	return s
}

func newStore(cfg Config) *Store {
	set := func(d *time.Duration, value time.Duration) {
		if *d <= 0 {
			*d = value
		}
	}
	set(&cfg.DialTimeout, defaultDialTimeout)
	set(&cfg.RequestTimeout, defaultRequestTimeout)
	set(&cfg.Heartbeat, defaultHeartbeat)
	names := make([]string, len(cfg.Endpoints))
	for i, endpoint := range cfg.Endpoints {
		names[i] = shown(endpoint)
	}
	return &Store{
		cfg:        cfg,
		endpoints:  strings.Join(names, ","),
		connecting: make(chan struct{}, 1),
		leases:     map[string]lease{},
	}
}

func checkEndpoint(endpoint string) error {
	scheme, rest, ok := strings.Cut(endpoint, "://")
	switch {
	case !ok || rest == "":
		return fmt.Errorf("etcd endpoint %q is not a URL (write http://host:2379, https://host:2379 or unix:///path)", shown(endpoint))
	case scheme != "http" && scheme != "https" && scheme != "unix" && scheme != "unixs":
		return fmt.Errorf("etcd endpoint %q: scheme %q is not known (use http, https or unix)", shown(endpoint), scheme)
	}
	return nil
}

// shown returns an endpoint, or what is meant to be one, without its password.
func shown(endpoint string) string {
	if u, err := url.Parse(endpoint); err == nil && u.Host != "" {
		return u.Redacted()
	}
	if i := strings.LastIndexByte(endpoint, '@'); i >= 0 {
		return "..." + endpoint[i:]
	}
	return endpoint
}

// Close closes the connection. Watchers end with an error.
func (s *Store) Close() error {
	s.closed.Store(true)
	s.connecting <- struct{}{}
	defer func() { <-s.connecting }()
	client := s.client.Swap(nil)
	if client == nil {
		return nil
	}
	if err := client.Close(); err != nil && !errors.Is(err, context.Canceled) {
		return fmt.Errorf("close datastore: %w", err)
	}
	return nil
}

var errClosed = errors.New("the connection was closed")

// connect returns the client, made when first needed: with a password etcd's client asks the server when it is made, and
// a server that is down then must not keep a store from being opened.
func (s *Store) connect(ctx context.Context) (*clientv3.Client, error) {
	if client := s.client.Load(); client != nil {
		return client, nil
	}
	select {
	case s.connecting <- struct{}{}:
		defer func() { <-s.connecting }()
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	if s.closed.Load() {
		return nil, errClosed
	}
	if client := s.client.Load(); client != nil {
		return client, nil
	}
	timeout := s.cfg.DialTimeout
	if deadline, ok := ctx.Deadline(); ok {
		timeout = max(min(timeout, time.Until(deadline)), time.Millisecond)
	}
	client, err := clientv3.New(clientv3.Config{
		Endpoints:            s.cfg.Endpoints,
		TLS:                  s.cfg.TLS,
		Username:             s.cfg.Username,
		Password:             s.cfg.Password,
		DialTimeout:          timeout,
		DialKeepAliveTime:    keepaliveTime,
		DialKeepAliveTimeout: s.slowest(keepaliveTimeout),
		MaxCallSendMsgSize:   maxSendBytes,
		Logger:               ZapLogger(s.cfg.Log, slog.LevelDebug),
		DialOptions: []grpc.DialOption{grpc.WithConnectParams(grpc.ConnectParams{
			Backoff:           backoff.Config{BaseDelay: 100 * time.Millisecond, Multiplier: 1.6, Jitter: 0.2, MaxDelay: longestBackoff},
			MinConnectTimeout: s.slowest(connectTimeout),
		})},
	})
	if err != nil {
		return nil, err
	}
	s.client.Store(client)
	return client, nil
}

// slowest returns how long an answer that is no request's may take: who is patient with requests is so with these.
func (s *Store) slowest(usual time.Duration) time.Duration { return max(usual, s.cfg.RequestTimeout/2) }

// request runs one request with the default time-out and the client.
func (s *Store) request(ctx context.Context, do func(context.Context, *clientv3.Client) error) error {
	ctx, cancel := s.bounded(ctx)
	defer cancel()
	client, err := s.connect(ctx)
	if err != nil {
		return err
	}
	// A server in this process would still carry out what is not wanted any more.
	if err := ctx.Err(); err != nil {
		return err
	}
	return do(ctx, client)
}

// bounded returns a context that ends with the request time-out, and sooner if no server can be connected to: etcd's
// client would wait for one.
func (s *Store) bounded(ctx context.Context) (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithTimeout(ctx, s.cfg.RequestTimeout)
	impatience := time.AfterFunc(patience, func() {
		if s.disconnected() {
			cancel()
		}
	})
	return ctx, func() {
		impatience.Stop()
		cancel()
	}
}

// disconnected reports whether the last attempts to connect to each server failed.
func (s *Store) disconnected() bool {
	client := s.client.Load()
	if client == nil || client.ActiveConnection() == nil {
		return false // not made yet, or in this process
	}
	return client.ActiveConnection().GetState() == connectivity.TransientFailure
}

// whyNot returns why no server can be connected to, "" if that is not so. gRPC tells it to a call that does not wait.
func (s *Store) whyNot() string {
	client := s.client.Load()
	if !s.disconnected() || client == nil {
		return ""
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	_, err := healthpb.NewHealthClient(client.ActiveConnection()).Check(ctx, &healthpb.HealthCheckRequest{}, grpc.WaitForReady(false))
	if status.Code(err) != codes.Unavailable {
		return ""
	}
	_, text := codeOf(err)
	for _, frame := range []string{"connection error: desc = ", "transport: ", "Error while dialing: "} {
		text = strings.TrimPrefix(strings.Trim(text, `"`), frame)
	}
	return text
}

// commit runs one transaction.
func (s *Store) commit(ctx context.Context, conds []clientv3.Cmp, then, otherwise []clientv3.Op) (*clientv3.TxnResponse, error) {
	var resp *clientv3.TxnResponse
	err := s.request(ctx, func(ctx context.Context, client *clientv3.Client) (err error) {
		resp, err = client.Txn(ctx).If(conds...).Then(then...).Else(otherwise...).Commit()
		return err
	})
	return resp, err
}
