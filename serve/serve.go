// Package serve is how every part of Margay answers probes and scrapers over HTTP: within bounds, as its clients may be
// anybody on the network; over TLS where files for it are named; and again and again where the port is taken. It must not
// know what is served.
package serve

import (
	"context"
	"crypto/tls"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"sync"
	"time"

	"golang.org/x/net/netutil"
)

// Bounds of the servers.
const (
	headerTimeout  = 5 * time.Second
	requestTimeout = 30 * time.Second
	idleTimeout    = 2 * time.Minute
	maxHeaderBytes = 16 << 10
	// maxConnections are served at once; others wait until one is over. Each takes a file descriptor of a process that needs
	// some for its own work.
	maxConnections = 256
	closeTimeout   = time.Second
	firstPause     = 500 * time.Millisecond
	lastPause      = 30 * time.Second
)

// A Server serves one handler at one address.
type Server struct {
	Name, Address string // the name is for log and errors
	Handler       http.Handler
	TLS           TLS // the zero value: plain HTTP
	// Listen opens the port. nil: in the network namespace of the process.
	Listen func(ctx context.Context, network, address string) (net.Listener, error)
	Log    *slog.Logger
	// Serving, if not nil, is called once the port is open.
	Serving func()
}

// Run serves until the context ends. A port that is taken is tried again.
func (s *Server) Run(ctx context.Context) {
	for pause := firstPause; ctx.Err() == nil; pause = min(2*pause, lastPause) {
		err := s.Once(ctx)
		if ctx.Err() != nil {
			return
		}
		s.Log.Error("serving stopped, trying again", "listener", s.Name, "address", s.Address, "error", err, "pause", pause)
		select {
		case <-ctx.Done():
		case <-time.After(pause):
		}
	}
}

// Once binds and serves until the context ends or something fails; the error is never nil.
func (s *Server) Once(ctx context.Context) error {
	listen := s.Listen
	if listen == nil {
		listen = (&net.ListenConfig{}).Listen
	}
	listener, err := listen(ctx, "tcp", s.Address)
	if err != nil {
		return fmt.Errorf("listen for %s: %w", s.Name, err)
	}
	s.Log.Info("serving", "listener", s.Name, "address", listener.Addr().String(), "tls", s.TLS.Enabled())
	if s.Serving != nil {
		s.Serving()
	}
	listener = netutil.LimitListener(listener, maxConnections)
	if s.TLS.Enabled() {
		listener = tls.NewListener(listener, s.tlsConfig())
	}
	server := &http.Server{
		Handler: s.Handler, ReadHeaderTimeout: headerTimeout, ReadTimeout: requestTimeout, WriteTimeout: requestTimeout,
		IdleTimeout: idleTimeout, MaxHeaderBytes: maxHeaderBytes, ErrorLog: slog.NewLogLogger(s.Log.Handler(), slog.LevelDebug),
	}
	closed := make(chan struct{})
	stop := context.AfterFunc(ctx, func() {
		defer close(closed)
		grace, cancel := context.WithTimeout(context.WithoutCancel(ctx), closeTimeout)
		defer cancel()
		if server.Shutdown(grace) != nil {
			_ = server.Close() // whoever still reads is cut off
		}
	})
	err = server.Serve(listener)
	if !stop() {
		<-closed
	}
	return fmt.Errorf("serve %s: %w", s.Name, err)
}

// tlsConfig is that of TLS, and tells of files that cannot be used: at once, not when the first client is refused, and then when
// what is wrong changes, however many clients there are.
func (s *Server) tlsConfig() *tls.Config {
	var mu sync.Mutex
	fault := ""
	tell := func(err error) {
		mu.Lock()
		defer mu.Unlock()
		switch {
		case err != nil && err.Error() != fault:
			fault = err.Error()
			s.Log.Error("TLS refuses every client until its files are mended", "listener", s.Name, "error", err)
		case err == nil && fault != "":
			fault = ""
			s.Log.Info("TLS has its files again", "listener", s.Name)
		}
	}
	_, err := s.TLS.read(nil)
	tell(err)
	config := s.TLS.Config()
	config.GetConfigForClient = func(hello *tls.ClientHelloInfo) (*tls.Config, error) {
		c, err := s.TLS.read(hello)
		tell(err)
		return c, err
	}
	return config
}
