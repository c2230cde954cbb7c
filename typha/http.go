package typha

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"text/tabwriter"
	"time"
)

// Bounds of the HTTP servers: their clients are probes and scrapers, and may be anybody on the network.
const (
	headerTimeout  = 5 * time.Second
	requestTimeout = 30 * time.Second
	idleTimeout    = 2 * time.Minute
	maxHeaderBytes = 16 << 10
	closeTimeout   = time.Second
	firstBindPause = 500 * time.Millisecond
	lastBindPause  = 30 * time.Second
)

// An endpoint is an HTTP server at one address.
type endpoint struct {
	name, address string
	handler       http.Handler
	tls           *tls.Config // nil: none
	listen        func(ctx context.Context, network, address string) (net.Listener, error)
	log           *slog.Logger
}

// run serves until the context ends. A port that is taken is tried again.
func (e *endpoint) run(ctx context.Context) {
	for wait := firstBindPause; ctx.Err() == nil; wait = min(2*wait, lastBindPause) {
		err := e.serve(ctx)
		if ctx.Err() != nil {
			return
		}
		e.log.Error("serving stopped, trying again", "listener", e.name, "address", e.address, "error", err, "pause", wait)
		_ = pause(ctx, wait) // the end of the context is seen above
	}
}

// serve binds and serves until the context ends or something fails.
func (e *endpoint) serve(ctx context.Context) error {
	listener, err := e.listen(ctx, "tcp", e.address)
	if err != nil {
		return fmt.Errorf("listen for %s: %w", e.name, err)
	}
	e.log.Info("serving", "listener", e.name, "address", listener.Addr().String(), "tls", e.tls != nil)
	if e.tls != nil {
		listener = tls.NewListener(listener, e.tls)
	}
	server := &http.Server{
		Handler: e.handler, ReadHeaderTimeout: headerTimeout, ReadTimeout: requestTimeout, WriteTimeout: requestTimeout,
		IdleTimeout: idleTimeout, MaxHeaderBytes: maxHeaderBytes, ErrorLog: slog.NewLogLogger(e.log.Handler(), slog.LevelDebug),
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
	return fmt.Errorf("serve %s: %w", e.name, err)
}

// errNoClientCA: without own authorities Go would trust those of the system, that is, anybody's certificate.
var errNoClientCA = errors.New("client certificates shall be verified and no CA file is set (set PrometheusMetricsCAFile)")

// metricsTLS returns how the metrics are served: nil without TLS, which is on when certificate or key is set (spec 4.4).
// The files are read anew for every handshake, and any fault refuses it.
func metricsTLS(p *Params) *tls.Config {
	if p.MetricsCert == "" && p.MetricsKey == "" {
		return nil
	}
	auth := p.clientAuth()
	read := func(*tls.ClientHelloInfo) (*tls.Config, error) {
		pair, err := readPair(p.MetricsCert, p.MetricsKey)
		if err != nil {
			return nil, err
		}
		config := &tls.Config{
			MinVersion: tls.VersionTLS12, SessionTicketsDisabled: true, Certificates: []tls.Certificate{pair}, ClientAuth: auth,
		}
		if auth >= tls.VerifyClientCertIfGiven {
			config.ClientCAs, err = readMetricsCA(p.MetricsCA)
		}
		return config, err
	}
	return &tls.Config{MinVersion: tls.VersionTLS12, SessionTicketsDisabled: true, GetConfigForClient: read}
}

func readMetricsCA(path string) (*x509.CertPool, error) {
	if path == "" {
		return nil, errNoClientCA
	}
	return readPool(path)
}

// probes serves /liveness and /readiness (spec 4.2).
func probes(live func() bool, ready func() (bool, string)) http.Handler {
	answer := func(ok func() bool) http.HandlerFunc {
		return func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", "text/plain; charset=utf-8")
			if !ok() {
				w.WriteHeader(http.StatusServiceUnavailable)
			}
			_, _ = w.Write(report(live, ready)) // the client is gone: nobody to tell
		}
	}
	mux := http.NewServeMux()
	mux.Handle("GET /liveness", answer(live))
	mux.Handle("GET /readiness", answer(func() bool { is, _ := ready(); return is && live() }))
	return mux
}

// report prints the state as the agent's report has it.
func report(live func() bool, ready func() (bool, string)) []byte {
	liveness, readiness := "timed out", "reporting non-ready"
	if live() {
		liveness = "reporting live"
	}
	is, detail := ready()
	if is && live() {
		readiness = "reporting ready"
	}
	var out bytes.Buffer
	w := tabwriter.NewWriter(&out, 0, 0, 3, ' ', 0)
	fmt.Fprintln(w, "COMPONENT\tTIMEOUT\tLIVENESS\tREADINESS\tDETAIL")
	fmt.Fprintf(w, "server\t%s\t%s\t%s\t%s\n", liveDeadline, liveness, readiness, strings.ReplaceAll(detail, "\n", " "))
	_ = w.Flush() // a bytes.Buffer takes everything
	return out.Bytes()
}
