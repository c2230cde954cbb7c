package node

import (
	"context"
	"crypto/tls"
	"log/slog"
	"net"
	"net/http"
	"sync"
	"time"

	"margay/serve"
)

// requestTimeout bounds one request for health or metrics.
const requestTimeout = 30 * time.Second

// The pauses between attempts to bind.
const (
	firstBindPause = 500 * time.Millisecond
	lastBindPause  = 30 * time.Second
)

// An address is where and how a listener serves. The zero value means: not at all.
type address struct {
	hostPort string
	tls      tlsFiles
}

// tlsFiles name the files of a TLS server. TLS is on when certificate or key is set.
type tlsFiles struct {
	cert, key, ca string
	clientAuth    tls.ClientAuthType
}

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
	retry, refusals := backoff{first: firstBindPause, last: lastBindPause}, repeats{}
	for {
		err := l.serve(ctx, a)
		if ctx.Err() != nil {
			return
		}
		pause := retry.step()
		if refusals.new(err) {
			l.log.Error("serving stopped, trying again", "listener", l.name, "address", a.hostPort, "error", err, "pause", pause)
		}
		l.health.set(l.name, condition{ready: true, detail: err.Error()})
		if wait(ctx, pause) != nil {
			return
		}
	}
}

// serve binds and serves until the context ends or something fails.
func (l *listener) serve(ctx context.Context, a address) error {
	server := &serve.Server{
		Name: l.name, Address: a.hostPort, Handler: l.handler, Listen: l.listen, Log: l.log,
		TLS:     serve.TLS{Cert: a.tls.cert, Key: a.tls.key, CA: a.tls.ca, ClientAuth: a.tls.clientAuth},
		Serving: func() { l.health.set(l.name, condition{ready: true}) },
	}
	return server.Once(ctx)
}

// readBounded reads a file that has at most limit bytes.
func readBounded(path string, limit int64) ([]byte, error) { return serve.ReadBounded(path, limit) }
