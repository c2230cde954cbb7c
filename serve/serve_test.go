package serve

import (
	"context"
	"crypto/tls"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
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
