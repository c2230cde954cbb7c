package kubernetes_test

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"strings"
	"sync"
	"testing"

	"margay/store"
	"margay/store/kube"
	"margay/test/kubernetes/cluster"
)

// A proxy stands before the API server and does to requests what a test wants.
type proxy struct {
	server *httptest.Server

	mu    sync.Mutex
	spoil func(w http.ResponseWriter, r *http.Request) bool // reports whether it has answered
	conns map[net.Conn]bool
}

func startProxy(t testing.TB, c *cluster.Cluster) *proxy {
	t.Helper()
	target, err := url.Parse(c.URL())
	if err != nil {
		t.Fatal(err)
	}
	p := &proxy{conns: map[net.Conn]bool{}}
	forward := &httputil.ReverseProxy{
		Rewrite:       func(r *httputil.ProxyRequest) { r.SetURL(target) },
		Transport:     c.Transport(),
		FlushInterval: -1,
		ErrorHandler: func(w http.ResponseWriter, _ *http.Request, err error) {
			http.Error(w, err.Error(), http.StatusBadGateway)
		},
	}
	p.server = httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		p.mu.Lock()
		spoil := p.spoil
		p.mu.Unlock()
		if spoil == nil || !spoil(w, r) {
			forward.ServeHTTP(w, r)
		}
	}))
	p.server.Config.ConnState = func(conn net.Conn, state http.ConnState) {
		p.mu.Lock()
		defer p.mu.Unlock()
		if state == http.StateNew {
			p.conns[conn] = true
		} else if state == http.StateClosed {
			delete(p.conns, conn)
		}
	}
	p.server.Start()
	t.Cleanup(func() { p.cut(); p.server.Close() })
	return p
}

// set says what is done to requests from now on.
func (p *proxy) set(spoil func(w http.ResponseWriter, r *http.Request) bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.spoil = spoil
}

// cut ends all connections.
func (p *proxy) cut() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for conn := range p.conns {
		conn.Close()
	}
}

// open returns a store that reaches the API server through the proxy.
func (p *proxy) open(t testing.TB) store.Store {
	t.Helper()
	s, err := kube.Open(context.Background(), kube.Config{Server: p.server.URL})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

func isWatch(r *http.Request) bool { return r.URL.Query().Get("watch") != "" }

func isList(r *http.Request, plural string) bool {
	return r.Method == http.MethodGet && strings.HasSuffix(r.URL.Path, "/"+plural) && !isWatch(r)
}

// answerStatus answers as the API server does when it says no.
func answerStatus(w http.ResponseWriter, code int, reason string) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(code)
	fmt.Fprint(w, status(code, reason))
}

func status(code int, reason string) string {
	return fmt.Sprintf(`{"kind":"Status","apiVersion":"v1","status":"Failure","message":"the proxy says %s","reason":%q,"code":%d}`, reason, reason, code)
}
