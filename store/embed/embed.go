// Package embed runs an etcd server of one member inside this process: the store of a single machine, or of a few hosts
// that are served by one of them. It is the only importer of the etcd server.
//
// It starts the server itself rather than etcd's own package embed, which always opens a port for other members, an HTTP
// gateway and debugging pages, and makes a unix socket that everybody may write to. Here nothing listens but what
// [Config] names:
//
//	unix socket 0600 ---.
//	127.0.0.1:2379 -----+--> gRPC --> etcdserver --> Dir (0700, fsync on every write)
//	other addresses ----'  TLS            ^
//	Server.Store() -----------------------' without a socket
//
// It must not know resources: what is stored, and how, is package etcd's business.
package embed

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"os"
	"sync"
	"time"

	"go.etcd.io/bbolt"
	bbolterrors "go.etcd.io/bbolt/errors"
	"go.etcd.io/etcd/server/v3/config"
	"go.etcd.io/etcd/server/v3/etcdserver"
	"go.etcd.io/etcd/server/v3/etcdserver/api/v3client"
	"go.etcd.io/etcd/server/v3/etcdserver/api/v3rpc"
	"go.etcd.io/etcd/server/v3/storage/datadir"
	"golang.org/x/net/netutil"
	"google.golang.org/grpc"
	"google.golang.org/grpc/keepalive"

	_ "margay/store/embed/registry" // before etcd's packages, whose metrics nothing serves
	"margay/store/etcd"
)

// DefaultListen is the address that local clients expect etcd at.
const DefaultListen = "127.0.0.1:2379"

// startTimeout is how long a start may take at most. It takes a fraction of a second, but for a log that must be read again.
const startTimeout = time.Minute

// Config says where the store is and who reaches it.
type Config struct {
	// Dir holds the data. It is made if missing, with mode 0700, and locked while the server runs.
	Dir string
	// Socket is the path of a unix socket for this user's clients; "": none.
	Socket string
	// Listen holds further addresses, host:port with a numeric host. nil: DefaultListen; empty: none. Whoever reaches
	// one can read and write everything, unless TLS asks clients for certificates.
	Listen []string
	// TLS is required of clients at addresses beyond loopback; nil: none is. See [TLSConfig].
	TLS *tls.Config
	// Log gets etcd's errors as warnings, and at debug level everything that etcd says; nil: nothing is logged.
	Log *slog.Logger
}

// A Server is a running store.
type Server struct {
	dir       string
	etcd      *etcdserver.EtcdServer
	word      *lastWord
	done      chan struct{} // closed when etcd stopped or gave up
	lock      *os.File
	listeners []listener
	grpc      []*grpc.Server
	serving   sync.WaitGroup
	closed    sync.Once
}

// A listener is an address that is served.
type listener struct {
	net.Listener
	local bool // only this host reaches it
}

// Start starts the store and waits until it serves; ctx bounds that wait only. When it fails, nothing is left
// running, but for a goroutine of etcd that cannot be stopped when it panicked over a damaged log.
func Start(ctx context.Context, cfg Config) (s *Server, err error) {
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	if cfg.Listen == nil {
		cfg.Listen = []string{DefaultListen}
	}
	s = &Server{dir: cfg.Dir, word: newLastWord(), done: make(chan struct{})}
	defer func() {
		if err != nil {
			s.Close()
			s, err = nil, fmt.Errorf("start store in %s: %w", cfg.Dir, err)
		}
	}()
	if s.lock, err = lockDir(cfg.Dir); err != nil {
		return s, err
	}
	if err = beginDir(cfg.Dir); err != nil {
		return s, err
	}
	// The addresses are taken before the data is touched, and served when it is there: early clients wait.
	if err = s.listen(ctx, cfg); err != nil {
		return s, err
	}
	if s.etcd, err = boot(cfg, s.word); err != nil {
		return s, err
	}
	go s.watch()
	if err = s.ready(ctx); err != nil {
		return s, err
	}
	if err = endBegin(cfg.Dir); err != nil {
		return s, err
	}
	s.serve(cfg)
	return s, nil
}

// ready waits until etcd has elected itself.
func (s *Server) ready(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	select {
	case <-s.etcd.ReadyNotify():
		return nil
	case <-s.done:
		if cause := s.word.get(); cause != nil {
			return gaveUp(s.dir, cause)
		}
		return errors.New("etcd stopped while starting (its log has the reason)")
	case <-ctx.Done():
		return fmt.Errorf("etcd is not ready: %w (its log may have the reason)", ctx.Err())
	}
}

// boot makes and starts the etcd server. etcd panics, or with another logger ends the process, when it cannot read its
// data, and gives up when it cannot write.
func boot(cfg Config, word *lastWord) (*etcdserver.EtcdServer, error) {
	config, err := serverConfig(cfg, word)
	if err != nil {
		return nil, err
	}
	if err := checkDatabase(cfg.Dir); err != nil {
		return nil, err
	}
	type result struct {
		server *etcdserver.EtcdServer
		err    error
	}
	made := make(chan result, 1)
	go func() {
		server, err := newServer(config)
		made <- result{server, err}
	}()
	select {
	case r := <-made:
		return r.server, r.err
	case <-word.said:
		return nil, damaged(word.err)
	}
}

// newServer starts the etcd server. With the last word it does not return.
func newServer(config config.ServerConfig) (server *etcdserver.EtcdServer, err error) {
	defer func() {
		if cause := recover(); cause != nil {
			server, err = nil, damaged(fmt.Errorf("%v", cause))
		}
	}()
	if server, err = etcdserver.NewServer(config); err != nil {
		return nil, damaged(err)
	}
	server.Start()
	if members := len(server.Cluster().Members()); members > 1 {
		server.HardStop()
		return nil, fmt.Errorf("the directory belongs to one of %d members of an etcd cluster (give another)", members)
	}
	return server, nil
}

// checkDatabase opens the database as etcd will. etcd does so in a goroutine of its own, whose panic nobody can recover.
func checkDatabase(dir string) error {
	path := datadir.ToBackendFileName(dir)
	if _, err := os.Stat(path); errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	db, err := bbolt.Open(path, 0o600, &bbolt.Options{Timeout: time.Second, ReadOnly: true})
	if errors.Is(err, bbolterrors.ErrTimeout) {
		return fmt.Errorf("%s is in use by another process (stop it, or give another directory)", path)
	}
	if err != nil {
		return damaged(fmt.Errorf("%s: %w", path, err))
	}
	return db.Close()
}

// damaged says what to do when etcd did not start.
func damaged(cause error) error {
	if full(cause) {
		return fmt.Errorf("%w (the disk is full: free some space and start it again)", cause)
	}
	return fmt.Errorf("etcd cannot read its data: %w (restore the directory from a backup, or move it away to begin anew)", cause)
}

// serve answers clients.
func (s *Server) serve(cfg Config) {
	opts := []grpc.ServerOption{
		grpc.ConnectionTimeout(handshakeTimeout),
		grpc.KeepaliveEnforcementPolicy(keepalive.EnforcementPolicy{MinTime: 5 * time.Second}),
		grpc.KeepaliveParams(keepalive.ServerParameters{Time: time.Minute, Timeout: 20 * time.Second}),
	}
	plain := v3rpc.Server(s.etcd, nil, nil, opts...)
	s.grpc = []*grpc.Server{plain}
	remote := plain
	if cfg.TLS != nil {
		remote = v3rpc.Server(s.etcd, cfg.TLS, nil, opts...)
		s.grpc = append(s.grpc, remote)
	}
	for _, l := range s.listeners {
		server := plain
		if !l.local {
			server = remote
			s.warnOpen(cfg, l)
		}
		s.serving.Go(func() {
			if err := server.Serve(netutil.LimitListener(l, maxConnections)); err != nil && !errors.Is(err, grpc.ErrServerStopped) {
				cfg.Log.Error("store no longer listens", "address", l.Addr().String(), "error", err)
			}
		})
	}
}

// warnOpen tells of an address where strangers may write.
func (s *Server) warnOpen(cfg Config, l listener) {
	if cfg.TLS == nil || cfg.TLS.ClientAuth != tls.RequireAndVerifyClientCert {
		cfg.Log.Warn("whoever reaches this address of the store can change all policy (give a certificate, its key and a client CA)",
			"address", l.Addr().String())
	}
}

// Store returns a connection to the store without a socket. The caller closes it, before the server.
func (s *Server) Store() *etcd.Store {
	return etcd.New(v3client.New(s.etcd), etcd.Config{Endpoints: []string{"the embedded store"}})
}

// Addrs returns where the server listens.
func (s *Server) Addrs() []net.Addr {
	addrs := make([]net.Addr, len(s.listeners))
	for i, l := range s.listeners {
		addrs[i] = l.Addr()
	}
	return addrs
}

// Done is closed when the server has stopped: after Close, or because it could not write its data.
func (s *Server) Done() <-chan struct{} { return s.done }

// watch closes done.
func (s *Server) watch() {
	select {
	case <-s.etcd.StopNotify():
	case <-s.word.said:
	}
	close(s.done)
}

// Close stops the server, and removes its socket. When it had stopped by itself, the error says why.
func (s *Server) Close() error {
	var err error
	s.closed.Do(func() { err = s.close() })
	return err
}

func (s *Server) close() error {
	for _, server := range s.grpc {
		server.Stop()
	}
	for _, l := range s.listeners {
		l.Close() // again, if it was served; removes the socket
	}
	s.serving.Wait()
	err := s.stop()
	if s.lock != nil {
		err = errors.Join(err, s.lock.Close())
	}
	return err
}

// stop stops etcd, but for one that gave up, which holds its locks.
func (s *Server) stop() error {
	if s.etcd == nil {
		return nil
	}
	if cause := s.word.get(); cause != nil {
		return gaveUp(s.dir, cause)
	}
	select {
	case <-s.done:
		return fmt.Errorf("etcd stopped by itself in %s (its log has the reason)", s.dir)
	default:
	}
	s.etcd.HardStop()
	return nil
}
