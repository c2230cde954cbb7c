package node

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"sync"
	"time"
)

// Bounds of the HTTP servers: their clients are probes and scrapers, and may be anybody on the network.
const (
	headerTimeout   = 5 * time.Second
	requestTimeout  = 30 * time.Second
	idleTimeout     = 2 * time.Minute
	maxHeaderBytes  = 16 << 10
	closeTimeout    = time.Second
	firstBindPause  = 500 * time.Millisecond
	lastBindPause   = 30 * time.Second
	maxCertFileSize = 1 << 20
)

// An address is where and how a listener serves. The zero value means: not at all.
type address struct {
	hostPort string
	tls      tlsFiles
}

// tlsFiles name the files of a TLS server. TLS is on when certificate or key is set (spec 4.3).
type tlsFiles struct {
	cert, key, ca string
	clientAuth    tls.ClientAuthType
}

func (f tlsFiles) enabled() bool { return f.cert != "" || f.key != "" }

// A listener serves one handler at an address that may change while it runs. A port that is taken is tried again. serveAt
// is called by one goroutine, run is another.
type listener struct {
	name    string
	handler http.Handler
	listen  func(ctx context.Context, network, address string) (net.Listener, error)
	log     *slog.Logger
	health  *health

	at     address      // last asked for
	wanted chan address // capacity 1: the latest, while nobody has taken it
}

func newListener(name string, handler http.Handler, a *agent) *listener {
	return &listener{
		name: name, handler: handler, listen: a.options.Listen, log: a.log, health: a.health, wanted: make(chan address, 1),
	}
}

// serveAt makes the listener serve at a and nowhere else. It does not wait for that.
func (l *listener) serveAt(a address) {
	if a == l.at {
		return
	}
	l.at = a
	select {
	case <-l.wanted:
	default:
	}
	l.wanted <- a
}

// run serves where serveAt says, until the context ends.
func (l *listener) run(ctx context.Context) {
	var at address
	for ctx.Err() == nil {
		serving, stop := context.WithCancel(ctx)
		var wg sync.WaitGroup
		here := at
		wg.Go(func() { l.keepServing(serving, here) })
		select {
		case <-ctx.Done():
		case at = <-l.wanted:
		}
		stop()
		wg.Wait()
	}
}

// keepServing binds, again and again if it must, and serves until the context ends.
func (l *listener) keepServing(ctx context.Context, a address) {
	if a.hostPort == "" {
		return
	}
	retry := backoff{first: firstBindPause, last: lastBindPause}
	for {
		err := l.serve(ctx, a)
		if ctx.Err() != nil {
			return
		}
		pause := retry.step()
		l.log.Error("serving stopped, trying again", "listener", l.name, "address", a.hostPort, "error", err, "pause", pause)
		l.health.set(l.name, condition{ready: true, detail: err.Error()})
		if wait(ctx, pause) != nil {
			return
		}
	}
}

// serve binds and serves until the context ends or something fails.
func (l *listener) serve(ctx context.Context, a address) error {
	ln, err := l.listen(ctx, "tcp", a.hostPort)
	if err != nil {
		return fmt.Errorf("listen for %s: %w", l.name, err)
	}
	if a.tls.enabled() {
		ln = tls.NewListener(ln, &tls.Config{MinVersion: tls.VersionTLS12, SessionTicketsDisabled: true, GetConfigForClient: a.tls.config})
	}
	server := &http.Server{
		Handler:           l.handler,
		ReadHeaderTimeout: headerTimeout, ReadTimeout: requestTimeout, WriteTimeout: requestTimeout,
		IdleTimeout: idleTimeout, MaxHeaderBytes: maxHeaderBytes,
		ErrorLog: slog.NewLogLogger(l.log.Handler(), slog.LevelDebug),
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
	l.log.Info("serving", "listener", l.name, "address", ln.Addr().String(), "tls", a.tls.enabled())
	l.health.set(l.name, condition{ready: true})
	err = server.Serve(ln)
	if !stop() {
		<-closed
	}
	return fmt.Errorf("serve %s: %w", l.name, err)
}

// errNoClientCA: without own authorities Go would trust those of the system, that is, anybody's certificate.
var errNoClientCA = errors.New("client certificates shall be verified and no CA file is set (set PrometheusMetricsCAFile)")

// config reads the files anew for every handshake, so that renewed certificates are used at once, and a session is never
// resumed under old ones. Any fault refuses the handshake: there is no way back to plain HTTP.
func (f tlsFiles) config(*tls.ClientHelloInfo) (*tls.Config, error) {
	cert, err := readBounded(f.cert, maxCertFileSize)
	if err != nil {
		return nil, fmt.Errorf("read certificate: %w", err)
	}
	key, err := readBounded(f.key, maxCertFileSize)
	if err != nil {
		return nil, fmt.Errorf("read key: %w", err)
	}
	pair, err := tls.X509KeyPair(cert, key)
	if err != nil {
		return nil, fmt.Errorf("use certificate %s with key %s: %w", f.cert, f.key, err)
	}
	config := &tls.Config{
		MinVersion: tls.VersionTLS12, SessionTicketsDisabled: true,
		Certificates: []tls.Certificate{pair}, ClientAuth: f.clientAuth,
	}
	if f.clientAuth < tls.VerifyClientCertIfGiven {
		return config, nil
	}
	if f.ca == "" {
		return nil, errNoClientCA
	}
	ca, err := readBounded(f.ca, maxCertFileSize)
	if err != nil {
		return nil, fmt.Errorf("read CA: %w", err)
	}
	config.ClientCAs = x509.NewCertPool()
	if !config.ClientCAs.AppendCertsFromPEM(ca) {
		return nil, fmt.Errorf("read CA %s: it holds no certificate", f.ca)
	}
	return config, nil
}

// readBounded reads a file that has at most limit bytes.
func readBounded(path string, limit int64) ([]byte, error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, err
	}
	if info.Size() > limit {
		return nil, fmt.Errorf("%s has %d bytes, more than %d", path, info.Size(), limit)
	}
	return os.ReadFile(path)
}
