package typha

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
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

	"margay/serve"
	"margay/store"
)

// Close is what Run does to the store in the end.
func (m *memory) Close() error { return nil }

// TestRun is typha from its parameters to its end: health before the store is there, clients after it, metrics, drain.
func TestRun(t *testing.T) {
	m := filled(3)
	listeners := make(chan net.Listener, 10)
	listen := func(ctx context.Context, network, address string) (net.Listener, error) {
		_, port, _ := net.SplitHostPort(address)
		listener, err := net.Listen("tcp", "127.0.0.1:0")
		if err == nil {
			listeners <- tagged{listener, port}
		}
		return listener, err
	}
	var open atomic.Bool
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() {
		ended <- Run(ctx, Options{
			Environ: []string{
				"TYPHA_HEALTHENABLED=true", "TYPHA_PROMETHEUSMETRICSENABLED=true", "TYPHA_SHUTDOWNTIMEOUTSECS=1", "TYPHA_SHUTDOWNCONNECTIONDROPINTERVALMAXSECS=0.01",
				"TYPHA_LOGFILEPATH=/x",
			},
			ConfigFile: emptyFile(t), Version: "v1", Listen: listen,
			LogHandler: func(slog.Leveler) slog.Handler { return slog.NewTextHandler(testWriter{t}, nil) },
			OpenStore: func(context.Context, *Params) (store.Store, error) {
				if !open.Load() {
					return nil, errors.New("not yet")
				}
				return m, nil
			},
		})
	}()
	at := map[string]string{}
	await := func(port string) string {
		for at[port] == "" {
			l := (<-listeners).(tagged)
			at[l.port] = l.Addr().String()
		}
		return at[port]
	}
	health, metrics := await("9098"), await("9093")
	eventually(t, "it is not ready, and says why", func() bool {
		code, body := httpGet(t, "http://"+health+"/readiness")
		return code == 503 && strings.Contains(body, "not yet")
	})
	if code, body := httpGet(t, "http://"+health+"/liveness"); code != 200 {
		t.Errorf("liveness %d: %s", code, body)
	}
	open.Store(true)
	c := dialWith(t, ClientConfig{Addresses: Fixed(await("5473"))})
	follows(t, c).same(t, m)
	if code, body := httpGet(t, "http://"+health+"/readiness"); code != 200 || !strings.Contains(body, "reporting ready") {
		t.Errorf("readiness %d: %s", code, body)
	}
	code, body := httpGet(t, "http://"+metrics+"/metrics")
	for _, want := range []string{"typha_connections_streaming{", "go_goroutines", "process_open_fds", `margay_build_info{version="v1"} 1`} {
		if code != 200 || !strings.Contains(body, want) {
			t.Errorf("metrics %d: no %s", code, want)
		}
	}
	cancel()
	select {
	case err := <-ended:
		if err != nil {
			t.Error(err)
		}
	case <-time.After(20 * time.Second):
		t.Fatal("it does not stop")
	}
	if _, err := net.Dial("tcp", health); err == nil {
		t.Error("the health port is open still")
	}
}

// A tagged listener knows which port was asked for.
type tagged struct {
	net.Listener
	port string
}

func emptyFile(t testing.TB) string {
	path := filepath.Join(t.TempDir(), "typha.cfg")
	if err := os.WriteFile(path, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func httpGet(t testing.TB, url string) (int, string) {
	t.Helper()
	client := &http.Client{Timeout: 5 * time.Second, Transport: &http.Transport{DisableKeepAlives: true}}
	resp, err := client.Get(url)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, string(body)
}

func TestRunRefuses(t *testing.T) {
	for _, c := range []struct {
		name string
		o    Options
		want string
	}{
		{"missing file", Options{ConfigFile: filepath.Join(t.TempDir(), "none")}, "read configuration file"},
		{"a part of TLS", Options{ConfigFile: emptyFile(t), Environ: []string{"TYPHA_CLIENTCN=felix"}}, "TYPHA_CAFILE, TYPHA_SERVERCERTFILE, TYPHA_SERVERKEYFILE is not set"},
		{"no such certificate", Options{ConfigFile: emptyFile(t), Environ: []string{
			"TYPHA_CLIENTCN=felix", "TYPHA_CAFILE=/none", "TYPHA_SERVERCERTFILE=/none", "TYPHA_SERVERKEYFILE=/none"}}, "no such file"},
	} {
		if err := Run(t.Context(), c.o); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want %q", c.name, err, c.want)
		}
	}
}

// TestMetricsTLS: with a CA scrapers need its certificate.
func TestMetricsTLS(t *testing.T) {
	ca := newAuthority(t)
	f := ca.issue("localhost", "", forServer)
	p, _ := resolveParams([]string{"TYPHA_PROMETHEUSMETRICSCERTFILE=" + f.Cert, "TYPHA_PROMETHEUSMETRICSKEYFILE=" + f.Key, "TYPHA_PROMETHEUSMETRICSCAFILE=" + f.CA}, nil)
	listening := make(chan string, 1)
	e := &serve.Server{
		Name: "metrics", Address: "127.0.0.1:0", Handler: newMetrics().handler(), TLS: metricsTLS(p), Log: slog.New(slog.DiscardHandler),
		Listen: func(ctx context.Context, network, address string) (net.Listener, error) {
			l, err := net.Listen(network, address)
			if err == nil {
				listening <- l.Addr().String()
			}
			return l, err
		},
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() { defer close(done); e.Run(ctx) }()
	defer func() { cancel(); <-done }()
	url := "https://" + <-listening + "/metrics"
	scrape := func(certificates ...tls.Certificate) error {
		client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true, TLSClientConfig: &tls.Config{InsecureSkipVerify: true, Certificates: certificates}}}
		resp, err := client.Get(url)
		if err != nil {
			return err
		}
		defer resp.Body.Close()
		if resp.StatusCode != 200 {
			return fmt.Errorf("status %d", resp.StatusCode)
		}
		return nil
	}
	mine := ca.issue("prometheus", "", forClient)
	pair, err := serve.ReadPair(mine.Cert, mine.Key)
	if err != nil {
		t.Fatal(err)
	}
	if err := scrape(pair); err != nil {
		t.Error(err)
	}
	if scrape() == nil {
		t.Error("without a certificate")
	}
	other := newAuthority(t).issue("prometheus", "", forClient)
	if pair, err = serve.ReadPair(other.Cert, other.Key); err != nil {
		t.Fatal(err)
	}
	if scrape(pair) == nil {
		t.Error("with a stranger's certificate")
	}
	p.MetricsCA = ""
	p.MetricsClientAuth = "RequireAndVerifyClientCert"
	if _, err := metricsTLS(p).Config().GetConfigForClient(nil); !errors.Is(err, serve.ErrNoClientCA) {
		t.Errorf("verify without a CA: %v", err)
	}
}
