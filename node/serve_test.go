package node

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/big"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	v3 "margay/api/v3"
	"margay/store"
)

func testLogger(b *logBuffer) *slog.Logger {
	return slog.New(slog.NewTextHandler(b, &slog.HandlerOptions{Level: slog.LevelDebug}))
}

func TestMetricsAndHealthPages(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.fill()
	r.begin()
	r.untilReady()
	_, body := r.get(healthAt, "/readiness")
	lines := strings.Split(body, "\n")
	if fields := strings.Fields(lines[0]); fmt.Sprint(fields) != "[COMPONENT TIMEOUT LIVENESS READINESS DETAIL]" {
		t.Errorf("heading %q", lines[0])
	}
	for _, line := range []string{
		`felix_host{host="h"} 1`,
		"felix_active_local_endpoints 1",
		"felix_active_local_policies 1",
		"felix_cluster_num_host_endpoints 1",
		"felix_cluster_num_policies 1",
		"felix_cluster_num_tiers 1",
		`felix_calc_graph_updates_processed{type="GlobalNetworkPolicy"} 1`,
		"felix_resyncs_started 1",
		`felix_nft_chains{ip_version="inet"} 7`,
		`felix_nft_rules{ip_version="inet"} 8`,
		`felix_nft_sets{ip_version="inet"} 9`,
		"felix_nft_calls 11",
		"margay_nft_messages_total 12",
		`margay_build_info{version="v1"} 1`,
		"felix_int_dataplane_failures 0",
		"felix_log_errors 0",
		"margay_parameter_problems 0",
	} {
		r.untilMetric(line)
	}
	_, body = r.get(metricsAt, "/metrics")
	for _, prefix := range []string{"go_goroutines ", "process_open_fds ", "felix_int_dataplane_apply_time_seconds{quantile=\"0.99\"}"} {
		if !strings.Contains(body, "\n"+prefix) {
			t.Errorf("no %s", prefix)
		}
	}
	r.put(v3.KindGlobalNetworkPolicy, strings.Replace(webPolicy, "[80]", "[81]", 1))
	r.untilMetric("margay_change_latency_seconds_count 1")
	for _, path := range []string{"/", "/debug/pprof/", "/metrics/x"} {
		if code, _ := r.get(metricsAt, path); code != 404 {
			t.Errorf("%s answers %d", path, code)
		}
	}
}

// The loop that takes too long for one turn is not live, and what is not live is not ready.
func TestLiveness(t *testing.T) {
	now := time.Unix(1000, 0)
	h := newHealth(func() time.Time { return now }, func() {})
	for _, c := range []string{componentStore, componentInterfaces, componentDataplane} {
		h.set(c, condition{ready: true})
	}
	h.busy()
	now = now.Add(loopDeadline - 1)
	if ready, _ := h.ready(); !h.live() || !ready {
		t.Error("within its deadline the loop lives")
	}
	now = now.Add(1)
	if ready, _ := h.ready(); h.live() || ready || !strings.Contains(string(h.table()), "timed out") {
		t.Error("after its deadline the loop is dead")
	}
	h.idle()
	if !h.live() {
		t.Error("a loop that waits for work lives")
	}
}

// The parameters of FelixConfiguration take effect while the agent runs; bad ones leave what was.
func TestParametersAreLive(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.options.Environ = []string{"FELIX_FELIXHOSTNAME=h", "FELIX_HEALTHENABLED=true", "FELIX_BPFENABLED=true", "FELIX_NOSUCH=1"}
	r.fill()
	r.begin()
	r.untilReady()
	for _, name := range []string{"BPFENABLED", "NOSUCH"} {
		if n := r.log.count("environment FELIX_" + name); n != 1 {
			t.Errorf("%s is named %d times", name, n)
		}
	}
	if !r.allows("eth0", "192.0.2.1", 22) {
		t.Fatal("failsafe port 22 is closed")
	}
	if r.ports.at(metricsAt) != "" {
		t.Fatal("metrics are served without being enabled")
	}
	r.put(v3.KindFelixConfiguration, `{"metadata":{"name":"default"},"spec":{"failsafeInboundHostPorts":[{"protocol":"tcp","port":2222}],"prometheusMetricsEnabled":true,"prometheusGoMetricsEnabled":false}}`)
	r.untilDenied("192.0.2.1", 22)
	r.untilAllowed("192.0.2.1", 2222)
	r.untilMetric("felix_resync_state 3")
	if _, body := r.get(metricsAt, "/metrics"); strings.Contains(body, "\ngo_goroutines") || !strings.Contains(body, "\nprocess_open_fds") {
		t.Error("Go metrics are on, or process metrics off")
	}

	// A bad value keeps the good one that was in force, and is named.
	r.put(v3.KindFelixConfiguration, `{"metadata":{"name":"default","annotations":{"config.projectcalico.org/FailsafeInboundHostPorts":"tcp:99999"}},
		"spec":{"prometheusMetricsEnabled":true,"logSeverityScreen":"Debug"}}`)
	r.untilMetric("margay_parameter_problems 1")
	if !r.allows("eth0", "192.0.2.1", 2222) || r.allows("eth0", "192.0.2.1", 22) {
		t.Error("the bad value changed the failsafe ports")
	}
	if code, body := r.get(healthAt, "/readiness"); code != 200 || !strings.Contains(body, "FailsafeInboundHostPorts") {
		t.Errorf("readiness %d\n%s", code, body)
	}
	// A stored value that does not decode keeps the last good resource.
	r.store.spoil(v3.Key{Kind: v3.KindFelixConfiguration, Name: "default"}, garbage)
	r.untilStatus("the fault", func(s store.NodeStatus) bool { return named(s, "FelixConfiguration(default)") })
	if !r.allows("eth0", "192.0.2.1", 2222) {
		t.Error("the fault changed the failsafe ports")
	}

	// The resource goes: built-in defaults again, the metrics are no longer served.
	old := r.ports.at(metricsAt)
	r.store.remove(v3.Key{Kind: v3.KindFelixConfiguration, Name: "default"})
	r.untilAllowed("192.0.2.1", 22)
	eventually(t, "metrics are no longer served", func() bool {
		_, err := http.Get("http://" + old + "/metrics")
		return err != nil
	})
}

// The labels of the host's Node choose a FelixConfiguration.
func TestParametersByNodeLabel(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.fill()
	r.put(v3.KindFelixConfiguration, `{"metadata":{"name":"edge"},"spec":{"nodeSelector":"zone == 'edge'","failsafeInboundHostPorts":[]}}`)
	r.put(v3.KindNode, `{"metadata":{"name":"h"}}`)
	r.begin()
	r.untilReady()
	if !r.allows("eth0", "192.0.2.1", 22) {
		t.Fatal("failsafe port 22 is closed")
	}
	r.put(v3.KindNode, `{"metadata":{"name":"h","labels":{"zone":"edge"}}}`)
	r.untilDenied("192.0.2.1", 22)
}

func TestLogLevelIsLive(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.options.Environ = append(r.options.Environ, "FELIX_LOGPREFIX=x")
	r.fill()
	r.begin()
	r.untilReady()
	at := r.put(v3.KindFelixConfiguration, `{"metadata":{"name":"default"},"spec":{"logSeverityScreen":"Error"}}`)
	r.untilEnforced(at)
	before := r.log.count("level=")
	r.store.cut(store.ErrUnavailable) // a warning
	r.untilMetric("margay_store_connected 0")
	if n := r.log.count("level="); n != before {
		t.Errorf("%d lines below Error", n-before)
	}
	r.store.spoil(gnp("web"), garbage) // an error
	r.store.cut(nil)
	eventually(t, "the error is logged", func() bool { return r.log.count("level=ERROR") > 0 })
}

func TestStoreConfig(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.options.Environ = []string{"ETCD_ENDPOINTS=https://10.0.0.1:2379,https://10.0.0.2:2379", "ETCD_CA_CERT_FILE=/ca",
		"ETCD_USERNAME=root", "ETCD_PASSWORD=hunter2", "NODENAME=n7"}
	a, err := newAgent(r.options)
	check(t, err)
	want := StoreConfig{Type: "etcdv3", Endpoints: []string{"https://10.0.0.1:2379", "https://10.0.0.2:2379"}, CAFile: "/ca",
		Username: "root", Password: "hunter2"}
	if fmt.Sprint(a.storeConfig) != fmt.Sprint(want) || a.host != "n7" {
		t.Errorf("%+v of %s", a.storeConfig, a.host)
	}
	if r.log.count("hunter2") > 0 {
		t.Error("the password is in the log")
	}
}

func TestTyphaConfig(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.options.Environ = []string{"NODENAME=n7", "FELIX_TYPHAADDR=typha:5473", "FELIX_TYPHACAFILE=/ca", "FELIX_TYPHACERTFILE=/crt", "FELIX_TYPHAKEYFILE=/key",
		"FELIX_TYPHAK8SSERVICENAME=calico-typha", "FELIX_TYPHACN=cn", "FELIX_TYPHAURISAN=uri", "FELIX_TYPHAREADTIMEOUT=5", "FELIX_TYPHAWRITETIMEOUT=6"}
	a, err := newAgent(r.options)
	check(t, err)
	want := TyphaConfig{"typha:5473", "kube-system", "calico-typha", "n7", "/ca", "/crt", "/key", "cn", "uri", 5 * time.Second, 6 * time.Second}
	if a.storeConfig.Typha != want {
		t.Errorf("%+v", a.storeConfig.Typha)
	}
}

// An authority makes certificates for the test.
type authority struct {
	t    *testing.T
	key  *ecdsa.PrivateKey
	cert *x509.Certificate
	dir  string
}

func newAuthority(t *testing.T) *authority {
	a := &authority{t: t, dir: t.TempDir()}
	a.key, a.cert = a.sign(&x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "test"}, IsCA: true, BasicConstraintsValid: true,
		KeyUsage: x509.KeyUsageCertSign, NotAfter: time.Now().Add(time.Hour),
	})
	a.write("ca", a.key, a.cert)
	return a
}

// sign makes a key and a certificate for it, by itself if there is no authority yet.
func (a *authority) sign(template *x509.Certificate) (*ecdsa.PrivateKey, *x509.Certificate) {
	a.t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	check(a.t, err)
	parent, signer := a.cert, a.key
	if parent == nil {
		parent, signer = template, key
	}
	der, err := x509.CreateCertificate(rand.Reader, template, parent, &key.PublicKey, signer)
	check(a.t, err)
	cert, err := x509.ParseCertificate(der)
	check(a.t, err)
	return key, cert
}

// issue writes <name>.crt and <name>.key.
func (a *authority) issue(name string, serial int64) {
	a.t.Helper()
	key, cert := a.sign(&x509.Certificate{
		SerialNumber: big.NewInt(serial), Subject: pkix.Name{CommonName: name}, DNSNames: []string{"margay"},
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth}, NotAfter: time.Now().Add(time.Hour),
	})
	a.write(name, key, cert)
}

func (a *authority) write(name string, key *ecdsa.PrivateKey, cert *x509.Certificate) {
	a.t.Helper()
	der, err := x509.MarshalECPrivateKey(key)
	check(a.t, err)
	check(a.t, os.WriteFile(a.path(name+".key"), pem.EncodeToMemory(&pem.Block{Type: "EC PRIVATE KEY", Bytes: der}), 0o600))
	check(a.t, os.WriteFile(a.path(name+".crt"), pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: cert.Raw}), 0o600))
}

func (a *authority) path(name string) string { return filepath.Join(a.dir, name) }

// get fetches https://addr/metrics with a client certificate, "" for none, and returns the server's serial number.
func (a *authority) get(addr, client string) (int64, error) {
	a.t.Helper()
	pool := x509.NewCertPool()
	pool.AddCert(a.cert)
	config := &tls.Config{RootCAs: pool, ServerName: "margay"}
	if client != "" {
		pair, err := tls.LoadX509KeyPair(a.path(client+".crt"), a.path(client+".key"))
		check(a.t, err)
		config.Certificates = []tls.Certificate{pair}
	}
	transport := &http.Transport{TLSClientConfig: config}
	defer transport.CloseIdleConnections()
	resp, err := (&http.Client{Transport: transport, Timeout: 5 * time.Second}).Get("https://" + addr + "/metrics")
	if err != nil {
		return 0, err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil || !strings.Contains(string(body), "felix_host") {
		return 0, errors.Join(err, fmt.Errorf("status %d", resp.StatusCode))
	}
	return resp.TLS.PeerCertificates[0].SerialNumber.Int64(), nil
}

func TestMetricsOverTLS(t *testing.T) {
	ours, theirs := newAuthority(t), newAuthority(t)
	ours.issue("server", 10)
	ours.issue("client", 11)
	theirs.issue("client", 12)
	for name, data := range map[string]string{".crt": "client.crt", ".key": "client.key"} {
		content, err := os.ReadFile(theirs.path(data))
		check(t, err)
		check(t, os.WriteFile(ours.path("stranger"+name), content, 0o600))
	}
	tlsEnv := func(more ...string) []string {
		return append([]string{"FELIX_PROMETHEUSMETRICSCERTFILE=" + ours.path("server.crt"), "FELIX_PROMETHEUSMETRICSKEYFILE=" + ours.path("server.key")}, more...)
	}
	ca := "FELIX_PROMETHEUSMETRICSCAFILE=" + ours.path("ca.crt")
	auth := func(mode string) string { return "FELIX_PROMETHEUSMETRICSCLIENTAUTH=" + mode }
	for name, c := range map[string]struct {
		env                    []string
		none, client, stranger bool // who may scrape: without certificate, with one of our authority, with another's
	}{
		"no client certificates":   {tlsEnv(), true, true, true},
		"any client certificate":   {tlsEnv(auth("RequireAnyClientCert")), false, true, true},
		"verified if given":        {tlsEnv(ca, auth("VerifyClientCertIfGiven")), true, true, false},
		"verified":                 {tlsEnv(ca, auth("RequireAndVerifyClientCert")), false, true, false},
		"CA alone":                 {tlsEnv(ca), false, true, false},
		"verified without a CA":    {tlsEnv(auth("RequireAndVerifyClientCert")), false, false, false},
		"if given without a CA":    {tlsEnv(auth("VerifyClientCertIfGiven")), false, false, false},
		"CA that does not exist":   {tlsEnv("FELIX_PROMETHEUSMETRICSCAFILE=/nonexistent", auth("RequireAndVerifyClientCert")), false, false, false},
		"key is missing":           {[]string{"FELIX_PROMETHEUSMETRICSCERTFILE=" + ours.path("server.crt")}, false, false, false},
		"certificate is missing":   {[]string{"FELIX_PROMETHEUSMETRICSKEYFILE=" + ours.path("server.key")}, false, false, false},
		"certificate is no such":   {[]string{"FELIX_PROMETHEUSMETRICSCERTFILE=" + ours.path("server.key"), "FELIX_PROMETHEUSMETRICSKEYFILE=" + ours.path("server.key")}, false, false, false},
		"CA file has no CA inside": {tlsEnv("FELIX_PROMETHEUSMETRICSCAFILE="+ours.path("server.key"), auth("VerifyClientCertIfGiven")), false, false, false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := newRig(t)
			r.options.Environ = append(r.options.Environ, c.env...)
			r.begin()
			var addr string
			eventually(t, "metrics are served", func() bool { addr = r.ports.at(metricsAt); return addr != "" })
			for client, want := range map[string]bool{"": c.none, "client": c.client, "stranger": c.stranger} {
				if _, err := ours.get(addr, client); (err == nil) != want {
					t.Errorf("client %q: %v", client, err)
				}
			}
			if resp, err := http.Get("http://" + addr + "/metrics"); err == nil {
				resp.Body.Close()
				if resp.StatusCode == 200 {
					t.Error("metrics are served without TLS, too")
				}
			}
		})
	}
}

// A certificate that is renewed on disk is used for the next connection.
func TestCertificateIsReadAnew(t *testing.T) {
	a := newAuthority(t)
	a.issue("server", 10)
	t.Parallel()
	r := newRig(t)
	r.options.Environ = append(r.options.Environ, "FELIX_PROMETHEUSMETRICSCERTFILE="+a.path("server.crt"), "FELIX_PROMETHEUSMETRICSKEYFILE="+a.path("server.key"))
	r.begin()
	var addr string
	eventually(t, "metrics are served", func() bool { addr = r.ports.at(metricsAt); return addr != "" })
	for _, serial := range []int64{10, 11} {
		a.issue("server", serial)
		if got, err := a.get(addr, ""); err != nil || got != serial {
			t.Errorf("certificate %d, %v; want %d", got, err, serial)
		}
	}
}

// A port that is taken is tried again; the agent does not wait for it.
func TestPortIsTaken(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	listen, refusals := r.options.Listen, 1
	r.options.Listen = func(ctx context.Context, network, address string) (net.Listener, error) {
		if address == metricsAt && refusals > 0 {
			refusals--
			return nil, syscall.EADDRINUSE
		}
		return listen(ctx, network, address)
	}
	r.fill()
	r.begin()
	r.untilReady()
	_, body := r.get(healthAt, "/readiness")
	if !strings.Contains(body, "listen for metrics: address already in use") {
		t.Errorf("the port is not named:\n%s", body)
	}
	r.untilMetric("felix_resync_state 3")
}

func TestPacketLog(t *testing.T) {
	b := &logBuffer{}
	now := time.Unix(0, 0)
	l := &packetLogger{log: testLogger(b), now: func() time.Time { return now }}
	packet := PacketLog{slog.String("prefix", "calico-packet"), slog.String("src", "10.0.0.1")}
	for range packetLogBurst + 50 {
		l.report(packet)
	}
	if n := b.count("msg=packet prefix=calico-packet src=10.0.0.1"); n != packetLogBurst {
		t.Errorf("%d lines", n)
	}
	now = now.Add(packetLogPeriod)
	l.report(packet)
	if b.count("packets=50") != 1 || b.count("msg=packet") != packetLogBurst+1 {
		t.Error("what was left out is not named, or the next period not used")
	}
}
