package controllers

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
	"sync"
	"testing"
	"time"

	v3 "margay/api/v3"
	"margay/store"
	"margay/store/embed"
	"margay/store/etcd"
)

// An instance is a running Run.
type instance struct {
	t      *testing.T
	cancel context.CancelFunc
	done   chan struct{}
	ports  sync.Map // asked for -> bound
}

// run starts an instance over the stores. Its ports are others than it asks for.
func run(t *testing.T, from, to store.Store, o Options) *instance {
	t.Helper()
	i := &instance{t: t, done: make(chan struct{})}
	keep := func(s store.Store) func(context.Context) (store.Store, error) {
		return func(context.Context) (store.Store, error) { return kept{s}, nil }
	}
	o.OpenTarget, o.LogHandler = keep(to), func(slog.Leveler) slog.Handler { return slog.DiscardHandler }
	if from != nil {
		o.OpenSource = keep(from)
	}
	o.Listen = func(_ context.Context, network, address string) (net.Listener, error) {
		l, err := net.Listen(network, "127.0.0.1:0")
		if err == nil {
			_, port, _ := net.SplitHostPort(address)
			i.ports.Store(port, l.Addr().String())
		}
		return l, err
	}
	ctx, cancel := context.WithCancel(context.Background())
	i.cancel = cancel
	go func() {
		defer close(i.done)
		if err := Run(ctx, o); err != nil {
			t.Errorf("run: %v", err)
		}
	}()
	t.Cleanup(i.stop)
	return i
}

func (i *instance) stop() { i.cancel(); <-i.done }

// kept is a store that outlives an instance.
type kept struct{ store.Store }

func (kept) Close() error { return nil }

// Compact does what the store does, if it does.
func (k kept) Compact(ctx context.Context, before store.Revision) error {
	if c, ok := k.Store.(compacter); ok {
		return c.Compact(ctx, before)
	}
	return nil
}

// get returns status and body of an URL of the instance, by the port that it asked for.
func (i *instance) get(port, path string) (int, string, error) {
	address, ok := i.ports.Load(port)
	if !ok {
		return 0, "", fmt.Errorf("port %s is not open", port)
	}
	client := &http.Client{Timeout: patience, Transport: &http.Transport{DisableKeepAlives: true}}
	resp, err := client.Get("http://" + address.(string) + path)
	if err != nil {
		return 0, "", err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	return resp.StatusCode, string(body), err
}

// shows waits until a page of the instance has the code and the text.
func (i *instance) shows(port, path string, code int, text string) {
	i.t.Helper()
	eventually(i.t, port+path, func() error {
		got, body, err := i.get(port, path)
		if err != nil || got != code || !strings.Contains(body, text) {
			return fmt.Errorf("%d, %v, want %d with %q in:\n%s", got, err, code, text, body)
		}
		return nil
	})
}

var configKey = v3.Key{Kind: v3.KindKubeControllersConfiguration, Name: "default"}

// configured waits until the stored configuration satisfies a condition.
func configured(t *testing.T, s *memoryStore, what string, holds func(*v3.KubeControllersConfiguration) bool) *v3.KubeControllersConfiguration {
	t.Helper()
	var config *v3.KubeControllersConfiguration
	eventually(t, what, func() error {
		if config = get[v3.KubeControllersConfiguration](s, configKey); config == nil || !holds(config) {
			return fmt.Errorf("configuration is %+v", config)
		}
		return nil
	})
	return config
}

// TestRunConfiguration: it is made, its status is written, and changes of it take effect.
func TestRunConfiguration(t *testing.T) {
	t.Parallel()
	from, to := newMemoryStore(resource(t, blue), resource(t, knp)), newMemoryStore(resource(t, `{kind: Node, metadata: {name: n1}}`))
	i := run(t, from, to, Options{Environ: []string{"ENABLED_CONTROLLERS=node,namespace"}, HealthPort: 9099})
	config := configured(t, to, "status", func(c *v3.KubeControllersConfiguration) bool { return c.Status.RunningConfig != nil })
	if config.Spec.Controllers.Policy == nil || config.Status.RunningConfig.Controllers.Policy != nil || config.Status.EnvironmentVars["ENABLED_CONTROLLERS"] != "node,namespace" {
		t.Errorf("configuration %+v", config)
	}
	has := func(key v3.Key, want bool) {
		t.Helper()
		eventually(t, key.String(), func() error {
			if _, ok := to.contents()[key]; ok != want {
				return fmt.Errorf("there: %v, want %v", ok, want)
			}
			return nil
		})
	}
	has(v3.KeyOf(resource(t, blue)), true)
	has(v3.KeyOf(resource(t, knp)), false)
	hep := v3.Key{Kind: v3.KindHostEndpoint, Name: "n1-auto-hep"}
	has(hep, false)
	i.shows("9094", "/metrics", 200, "\nmargay_controllers_leader 1\n")
	i.shows("9099", "/readiness", 200, "KubeAPIServer")

	change := func(f func(*v3.KubeControllersConfigurationSpec)) {
		t.Helper()
		eventually(t, "change the configuration", func() error {
			c := clone(get[v3.KubeControllersConfiguration](to, configKey)).(*v3.KubeControllersConfiguration)
			f(&c.Spec)
			_, err := to.Update(t.Context(), c)
			return err
		})
	}
	change(func(s *v3.KubeControllersConfigurationSpec) { s.Controllers.Node.HostEndpoint.AutoCreate = enabled })
	has(hep, true)
	configured(t, to, "status of the change", func(c *v3.KubeControllersConfiguration) bool {
		return c.Status.RunningConfig.Controllers.Node.HostEndpoint.AutoCreate == enabled
	})
	port, off := 9194, 0
	change(func(s *v3.KubeControllersConfigurationSpec) { s.PrometheusMetricsPort = &port })
	i.shows("9194", "/metrics", 200, "margay_controllers_writes_total")
	if _, _, err := i.get("9094", "/metrics"); err == nil {
		t.Error("the old port is still open")
	}
	change(func(s *v3.KubeControllersConfigurationSpec) {
		s.PrometheusMetricsPort, s.HealthChecks = &off, disabled
	})
	eventually(t, "metrics are off", func() error {
		if _, _, err := i.get("9194", "/metrics"); err == nil {
			return fmt.Errorf("still open")
		}
		return nil
	})
	i.shows("9099", "/readiness", 200, "Startup")

	// A configuration that cannot be read changes nothing, and is not replaced.
	to.spoil(configKey)
	to.remove(hep)
	has(hep, true)
	if to.contents()[configKey] != "unreadable" {
		t.Error("an unreadable configuration was replaced")
	}
	// Deleted, it is made anew, with the defaults.
	to.remove(configKey)
	has(hep, false)
	configured(t, to, "made anew", func(c *v3.KubeControllersConfiguration) bool {
		return c.Spec.Controllers.Node.HostEndpoint.AutoCreate == disabled
	})
}

// TestRunHealth: readiness, status file and check follow the stores.
func TestRunHealth(t *testing.T) {
	t.Parallel()
	from, to := newMemoryStore(), newMemoryStore()
	to.cut(errDown)
	file := filepath.Join(t.TempDir(), "deep", "status.json")
	i := run(t, from, to, Options{HealthPort: 9099, StatusFile: file})
	check := func(want string) {
		t.Helper()
		eventually(t, "status file", func() error {
			err := CheckStatus(file)
			if (err == nil) != (want == "") || err != nil && !strings.Contains(err.Error(), want) {
				return fmt.Errorf("%v, want %q", err, want)
			}
			return nil
		})
	}
	i.shows("9099", "/readiness", 503, "initialise datastore")
	check("Startup: initialise datastore")
	i.shows("9099", "/liveness", 200, "reporting live")
	to.cut(nil)
	i.shows("9099", "/readiness", 200, "CalicoDatastore")
	check("")
	data, err := os.ReadFile(file)
	if want := `{"Readiness":{"CalicoDatastore":{"Ready":true,"Reason":""},"KubeAPIServer":{"Ready":true,"Reason":""},"Startup":{"Ready":true,"Reason":""}}}`; err != nil || string(data) != want {
		t.Errorf("status file %s, %v, want %s", data, err, want)
	}
	from.cut(errDown)
	i.shows("9099", "/readiness", 503, "cut off")
	check("KubeAPIServer: ")
	if err := CheckStatus(filepath.Join(t.TempDir(), "none")); err == nil {
		t.Error("no status file is ready")
	}
}

// A ballot elects one of the electors that share it.
type ballot struct{ leader chan struct{} }

func newBallot() *ballot { return &ballot{make(chan struct{}, 1)} }

func (b *ballot) Run(ctx context.Context, lead func(context.Context)) {
	for {
		select {
		case <-ctx.Done():
			return
		case b.leader <- struct{}{}:
			lead(ctx)
			<-b.leader
		}
	}
}

// TestTwoInstances: one works, the other waits; when the first is stopped in the middle of its work, the second finishes.
func TestTwoInstances(t *testing.T) {
	t.Parallel()
	from, to := newMemoryStore(), newMemoryStore()
	for n := range 400 {
		from.put(resource(t, fmt.Sprintf(`{kind: Profile, metadata: {name: kns.n%d}, spec: {ingress: [{action: Allow}]}}`, n)))
	}
	b := newBallot()
	o := Options{OpenElector: func(context.Context, *slog.Logger) (Elector, error) { return b, nil }}
	half := make(chan struct{})
	count := 0
	to.hasty = func() {
		if count++; count == 150 {
			close(half)
		}
	}
	both := []*instance{run(t, from, to, o), run(t, from, to, o)}
	<-half
	leaders := func() (list []int) {
		for n, i := range both {
			if _, body, err := i.get("9094", "/metrics"); err == nil && strings.Contains(body, "\nmargay_controllers_leader 1\n") {
				list = append(list, n)
			}
		}
		return list
	}
	var first int
	eventually(t, "one leads", func() error {
		list := leaders()
		if len(list) != 1 {
			return fmt.Errorf("%v lead", list)
		}
		first = list[0]
		return nil
	})
	both[first].stop()
	eventually(t, "everything is copied", func() error {
		if n := len(to.contents()); n != 401 { // the configuration as well
			return fmt.Errorf("%d objects", n)
		}
		return nil
	})
	both[1-first].shows("9094", "/metrics", 200, "\nmargay_controllers_leader 1\n")
}

// TestRunEmbedded has an etcd on either side, and is ended and begun again.
func TestRunEmbedded(t *testing.T) {
	t.Parallel()
	open := func() *etcd.Store {
		server, err := embed.Start(t.Context(), embed.Config{Dir: filepath.Join(t.TempDir(), "store"), Listen: []string{}})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { server.Close() })
		s := server.Store()
		t.Cleanup(func() { s.Close() })
		return s
	}
	from, to := open(), open()
	create := func(s store.Store, text string) {
		t.Helper()
		if _, err := s.Create(t.Context(), resource(t, text)); err != nil {
			t.Fatal(err)
		}
	}
	if err := from.Initialise(t.Context()); err != nil {
		t.Fatal(err)
	}
	for _, text := range []string{blue, robot, knp, pod, `{kind: Node, metadata: {name: n1, labels: {zone: a}, annotations: {projectcalico.org/kube-labels: '{"zone":"a"}'}}, spec: {addresses: [{address: 10.0.0.1, type: InternalIP}]}}`} {
		create(from, text)
	}
	create(to, `{kind: Node, metadata: {name: n1}}`)
	create(to, `{kind: Node, metadata: {name: n2}, spec: {orchRefs: [{nodeName: gone, orchestrator: k8s}]}}`)
	create(to, `{kind: HostEndpoint, metadata: {name: n2.eth0}, spec: {node: n2, interfaceName: eth0}}`)
	first, err := to.List(t.Context(), "", v3.KindNode)
	if err != nil {
		t.Fatal(err)
	}
	i := run(t, from, to, Options{Environ: []string{"AUTO_HOST_ENDPOINTS=enabled", "COMPACTION_PERIOD=100ms"}})
	check := func(text string, want bool) {
		t.Helper()
		key := v3.KeyOf(resource(t, text))
		eventually(t, text, func() error {
			r, err := to.Get(t.Context(), key)
			if want != (err == nil) {
				return fmt.Errorf("%v", err)
			}
			if want && !same(content(r), content(resource(t, text))) {
				return fmt.Errorf("is %+v", content(r))
			}
			return nil
		})
	}
	const hep = `{kind: HostEndpoint, metadata: {name: n1-auto-hep, labels: {zone: a, projectcalico.org/created-by: calico-kube-controllers}}, spec: {node: n1, interfaceName: "*", expectedIPs: [10.0.0.1], profiles: [projectcalico-default-allow]}}`
	for _, text := range []string{blue, robot, knp, podMarked, hep} {
		check(text, true)
	}
	check(`{kind: HostEndpoint, metadata: {name: n2.eth0}}`, false)
	eventually(t, "the history is compacted", func() error {
		w := to.Watch(t.Context(), first.Revision, v3.KindNode)
		defer w.Close()
		_, err := w.Next(t.Context())
		for err == nil && w.Revision() == first.Revision { // it is established
			_, err = w.Next(t.Context())
		}
		if !errors.Is(err, store.ErrCompacted) {
			return fmt.Errorf("watch from the beginning: %v", err)
		}
		return nil
	})
	i.stop()
	if _, err := from.Delete(t.Context(), v3.KeyOf(resource(t, knp)), ""); err != nil {
		t.Fatal(err)
	}
	run(t, from, to, Options{Environ: []string{"AUTO_HOST_ENDPOINTS=disabled"}})
	check(knp, false)
	check(hep, false)
	check(blue, true)
}

// TestMetricsTLS: with a CA, scrapers need its certificate.
func TestMetricsTLS(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	pair := selfSigned(t, dir)
	i := run(t, newMemoryStore(), newMemoryStore(), Options{Environ: []string{
		"PROMETHEUS_METRICS_CERT_FILE=" + filepath.Join(dir, "cert.pem"), "PROMETHEUS_METRICS_KEY_FILE=" + filepath.Join(dir, "key.pem"),
		"PROMETHEUS_METRICS_CA_FILE=" + filepath.Join(dir, "cert.pem"),
	}})
	scrape := func(certificates ...tls.Certificate) error {
		address, ok := i.ports.Load("9094")
		if !ok {
			return fmt.Errorf("not open")
		}
		client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true, TLSClientConfig: &tls.Config{InsecureSkipVerify: true, Certificates: certificates}}}
		resp, err := client.Get("https://" + address.(string) + "/metrics")
		if err != nil {
			return err
		}
		return resp.Body.Close()
	}
	eventually(t, "scrape with a certificate", func() error { return scrape(pair) })
	if scrape() == nil {
		t.Error("without a certificate")
	}
	if scrape(selfSigned(t, t.TempDir())) == nil {
		t.Error("with a stranger's certificate")
	}
	if _, _, err := i.get("9094", "/metrics"); err == nil {
		if code, _, _ := i.get("9094", "/metrics"); code == 200 {
			t.Error("plain HTTP is answered")
		}
	}
}

func selfSigned(t *testing.T, dir string) tls.Certificate {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "test"}, NotAfter: time.Now().Add(time.Hour), NotBefore: time.Now().Add(-time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageDigitalSignature,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth}, DNSNames: []string{"localhost"},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	private, err := x509.MarshalECPrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	certPEM := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
	keyPEM := pem.EncodeToMemory(&pem.Block{Type: "EC PRIVATE KEY", Bytes: private})
	for name, data := range map[string][]byte{"cert.pem": certPEM, "key.pem": keyPEM} {
		if err := os.WriteFile(filepath.Join(dir, name), data, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	pair, err := tls.X509KeyPair(certPEM, keyPEM)
	if err != nil {
		t.Fatal(err)
	}
	return pair
}
