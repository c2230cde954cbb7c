package serve

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"io"
	"log/slog"
	"math/big"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

func hello() http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "hello") })
}

// TestTakenPort: a port that is taken is served once it is free.
func TestTakenPort(t *testing.T) {
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var tries atomic.Int32
	serving := make(chan struct{}, 1)
	s := &Server{
		Name: "test", Address: taken.Addr().String(), Handler: hello(), Log: slog.New(slog.DiscardHandler),
		Listen: func(ctx context.Context, network, address string) (net.Listener, error) {
			if tries.Add(1) == 2 {
				taken.Close()
			}
			return (&net.ListenConfig{}).Listen(ctx, network, address)
		},
		Serving: func() { serving <- struct{}{} },
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() { defer close(done); s.Run(ctx) }()
	select {
	case <-serving:
	case <-time.After(time.Minute):
		t.Fatal("it does not serve")
	}
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	resp, err := client.Get("http://" + s.Address)
	if err != nil {
		t.Fatal(err)
	}
	body, _ := io.ReadAll(resp.Body)
	resp.Body.Close()
	if string(body) != "hello" || tries.Load() < 2 {
		t.Errorf("%q after %d attempts", body, tries.Load())
	}
	cancel()
	<-done
	if _, err := client.Get("http://" + s.Address); err == nil {
		t.Error("it serves after its end")
	}
}

// TestConnectionsAreBounded: no more than so many connections are open at once, and all are served in the end.
func TestConnectionsAreBounded(t *testing.T) {
	const clients = maxConnections + 40
	var mu sync.Mutex
	inside, most := 0, 0
	full, sent := make(chan struct{}), make(chan struct{})
	s := &Server{
		Name: "test", Address: "127.0.0.1:0", Log: slog.New(slog.DiscardHandler),
		Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			count := func(n int) {
				mu.Lock()
				defer mu.Unlock()
				inside += n
				if inside > most && inside == maxConnections {
					close(full)
				}
				most = max(most, inside)
			}
			count(1)
			<-full
			<-sent
			count(-1)
			w.Header().Set("Connection", "close")
		}),
	}
	address := make(chan string, 1)
	s.Listen = func(ctx context.Context, network, at string) (net.Listener, error) {
		l, err := (&net.ListenConfig{}).Listen(ctx, network, at)
		if err == nil {
			address <- l.Addr().String()
		}
		return l, err
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() { defer close(done); s.Run(ctx) }()
	at := <-address
	conns := make([]net.Conn, clients)
	for i := range conns {
		conn, err := net.Dial("tcp", at)
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		if _, err := io.WriteString(conn, "GET / HTTP/1.1\r\nHost: x\r\n\r\n"); err != nil {
			t.Fatal(err)
		}
		conns[i] = conn
	}
	close(sent)
	for i, conn := range conns {
		if err := conn.SetDeadline(time.Now().Add(time.Minute)); err != nil {
			t.Fatal(err)
		}
		if answer, err := io.ReadAll(conn); !strings.HasPrefix(string(answer), "HTTP/1.1 200") {
			t.Fatalf("client %d: %q %v", i, answer, err)
		}
	}
	mu.Lock()
	defer mu.Unlock()
	if most != maxConnections {
		t.Errorf("%d requests were answered at once, want %d", most, maxConnections)
	}
	cancel()
	<-done
}

// TestTLSFaults: what cannot be read refuses the handshake.
func TestTLSFaults(t *testing.T) {
	dir := t.TempDir()
	large, empty := filepath.Join(dir, "large"), filepath.Join(dir, "empty")
	if err := errors.Join(os.WriteFile(large, make([]byte, maxFile+1), 0o600), os.WriteFile(empty, nil, 0o600)); err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct {
		name string
		tls  TLS
		want string
	}{
		{"no certificate", TLS{Key: empty}, "read certificate"},
		{"no key", TLS{Cert: empty}, "read key"},
		{"a large file", TLS{Cert: large, Key: empty}, "more than 1048576"},
		{"a device", TLS{Cert: "/dev/zero", Key: empty}, "no regular file"},
		{"a directory", TLS{Cert: dir, Key: empty}, "no regular file"},
		{"no content", TLS{Cert: empty, Key: empty}, "use certificate"},
	} {
		if !test.tls.Enabled() {
			t.Errorf("%s: TLS is off", test.name)
		}
		if c, err := test.tls.Config().GetConfigForClient(nil); err == nil || c != nil || !strings.Contains(err.Error(), test.want) {
			t.Errorf("%s: %v, want %q", test.name, err, test.want)
		}
	}
	if _, err := ReadPool(empty); err == nil {
		t.Error("an empty file is an authority")
	}
	if (TLS{CA: empty}).Enabled() {
		t.Error("a CA alone turns TLS on")
	}
}

func TestClientAuth(t *testing.T) {
	for _, test := range []struct {
		text, ca string
		want     tls.ClientAuthType
	}{
		{"", "", tls.NoClientCert},
		{"", "ca", tls.RequireAndVerifyClientCert},
		{"NoClientCert", "ca", tls.NoClientCert},
		{"RequireAnyClientCert", "", tls.RequireAnyClientCert},
		{"VerifyClientCertIfGiven", "ca", tls.VerifyClientCertIfGiven},
		{"RequireAndVerifyClientCert", "", tls.RequireAndVerifyClientCert},
		{"whatever", "", tls.RequireAndVerifyClientCert},
	} {
		if got := ClientAuth(test.text, test.ca); got != test.want {
			t.Errorf("%q with CA %q: %v, want %v", test.text, test.ca, got, test.want)
		}
	}
}

// TestTLSFaultsAreTold: files that are missing are told when serving begins, once, and so is their return.
func TestTLSFaultsAreTold(t *testing.T) {
	dir := t.TempDir()
	cert, key := filepath.Join(dir, "c"), filepath.Join(dir, "k")
	var log strings.Builder
	s := &Server{Name: "test", TLS: TLS{Cert: cert, Key: key}, Log: slog.New(slog.NewTextHandler(&log, nil))}
	config := s.tlsConfig()
	for range 3 {
		if _, err := config.GetConfigForClient(nil); err == nil {
			t.Fatal("no file, no error")
		}
	}
	if n := strings.Count(log.String(), "level=ERROR"); n != 1 || !strings.Contains(log.String(), cert) {
		t.Errorf("told %d times: %s", n, &log)
	}
	writePair(t, cert, key)
	if _, err := config.GetConfigForClient(nil); err != nil || !strings.Contains(log.String(), "again") {
		t.Errorf("%v: %s", err, &log)
	}
}

// writePair writes a certificate that signs itself, and its key.
func writePair(t *testing.T, certFile, keyFile string) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour)}
	cert, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	private, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range []struct {
		path, kind string
		data       []byte
	}{{certFile, "CERTIFICATE", cert}, {keyFile, "PRIVATE KEY", private}} {
		if err := os.WriteFile(f.path, pem.EncodeToMemory(&pem.Block{Type: f.kind, Bytes: f.data}), 0o600); err != nil {
			t.Fatal(err)
		}
	}
}
