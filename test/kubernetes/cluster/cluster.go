// Package cluster runs a Kubernetes cluster without nodes for tests and the demo: an etcd in this process and the real
// kube-apiserver as a process of its own, on loopback, with certificates that nobody else knows. It runs nothing else: there
// are no controllers, no scheduler, no kubelet. Pods are what the tests write.
package cluster

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"time"

	"margay/store/embed"
)

// EnvBinary names the environment variable with the path of kube-apiserver.
const EnvBinary = "KUBE_APISERVER"

// Config says how the cluster is.
type Config struct {
	// Dir holds everything. It must exist and be empty.
	Dir string
	// Host is the address to listen at, 127.0.0.1 if empty. The certificate is for it and for loopback.
	Host string
	// Args are further arguments of kube-apiserver.
	Args []string
	// Start starts the process and Dial connects to it, both where it is to run; nil: here.
	Start func(*exec.Cmd) error
	Dial  func(ctx context.Context, network, address string) (net.Conn, error)
	// Port to listen at; 0: a free one of this host.
	Port int
}

// A Cluster is running.
type Cluster struct {
	cfg   Config
	store *embed.Server
	port  int
	keys  *keys
	done  chan struct{} // closed when the API server's process has ended
	proc  *os.Process
	admin *http.Client
}

// Start starts a cluster and waits until it is ready.
func Start(ctx context.Context, cfg Config) (*Cluster, error) {
	if cfg.Host == "" {
		cfg.Host = "127.0.0.1"
	}
	c := &Cluster{cfg: cfg}
	var err error
	if c.keys, err = newKeys(cfg.Dir, cfg.Host); err != nil {
		return nil, fmt.Errorf("start cluster: %w", err)
	}
	if c.port = cfg.Port; c.port == 0 {
		if c.port, err = freePort(cfg.Host); err != nil {
			return nil, fmt.Errorf("start cluster: %w", err)
		}
	}
	c.store, err = embed.Start(ctx, embed.Config{Dir: filepath.Join(cfg.Dir, "etcd"), Socket: c.socket(), Listen: []string{}})
	if err != nil {
		return nil, fmt.Errorf("start cluster: %w", err)
	}
	c.admin = &http.Client{Transport: &http.Transport{
		TLSClientConfig: &tls.Config{RootCAs: c.keys.pool, Certificates: []tls.Certificate{c.keys.admin}}, ForceAttemptHTTP2: true, DialContext: cfg.Dial,
	}}
	if err := c.StartServer(ctx); err != nil {
		return nil, errors.Join(err, c.Close())
	}
	return c, nil
}

// freePort returns a port that nothing listens at just now.
func freePort(host string) (int, error) {
	l, err := net.Listen("tcp", net.JoinHostPort(host, "0"))
	if err != nil {
		return 0, err
	}
	defer l.Close()
	return l.Addr().(*net.TCPAddr).Port, nil
}

// socket is where etcd is. It listens nowhere else.
func (c *Cluster) socket() string { return filepath.Join(c.cfg.Dir, "etcd.sock") }

// URL returns where the API server is.
func (c *Cluster) URL() string {
	return "https://" + net.JoinHostPort(c.cfg.Host, strconv.Itoa(c.port))
}

// Kubeconfig returns the path of the administrator's kubeconfig.
func (c *Cluster) Kubeconfig() string { return filepath.Join(c.cfg.Dir, "admin.kubeconfig") }

// StartServer starts the API server and waits until it is ready.
func (c *Cluster) StartServer(ctx context.Context) error {
	binary := os.Getenv(EnvBinary)
	if binary == "" {
		return fmt.Errorf("start kube-apiserver: %s is not set (run make test-kubernetes)", EnvBinary)
	}
	log, err := os.OpenFile(c.LogFile(), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return fmt.Errorf("start kube-apiserver: %w", err)
	}
	defer log.Close()
	if err := c.keys.writeKubeconfig(c.Kubeconfig(), c.URL()); err != nil {
		return err
	}
	cmd := exec.Command(binary, c.args()...)
	cmd.Stdout, cmd.Stderr = log, log
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL, Setpgid: true}
	started := make(chan error)
	c.done = make(chan struct{})
	go func(done chan struct{}) {
		// The signal comes when the thread ends that started the process.
		runtime.LockOSThread()
		defer close(done)
		start := c.cfg.Start
		if start == nil {
			start = (*exec.Cmd).Start
		}
		err := start(cmd)
		started <- err
		if err == nil {
			_ = cmd.Wait()
		}
	}(c.done)
	if err := <-started; err != nil {
		return fmt.Errorf("start kube-apiserver: %w", err)
	}
	c.proc = cmd.Process
	return c.ready(ctx)
}

func (c *Cluster) args() []string {
	dir := func(name string) string { return filepath.Join(c.cfg.Dir, name) }
	return append([]string{
		"--etcd-servers=unix://" + c.socket(),
		"--bind-address=" + c.cfg.Host, "--advertise-address=" + c.cfg.Host, "--secure-port=" + strconv.Itoa(c.port),
		"--tls-cert-file=" + dir("server.crt"), "--tls-private-key-file=" + dir("server.key"), "--client-ca-file=" + dir("ca.crt"),
		"--service-account-issuer=https://kubernetes.default.svc", "--service-account-key-file=" + dir("server.key"),
		"--service-account-signing-key-file=" + dir("server.key"), "--service-cluster-ip-range=10.96.0.0/16",
		"--authorization-mode=RBAC", "--endpoint-reconciler-type=none", "--allow-privileged=true", "--profiling=false",
		// No controller makes the service accounts that it asks for.
		"--disable-admission-plugins=ServiceAccount",
		"--cert-dir=" + c.cfg.Dir,
	}, c.cfg.Args...)
}

// LogFile is what the API server says.
func (c *Cluster) LogFile() string { return filepath.Join(c.cfg.Dir, "kube-apiserver.log") }

// startTimeout is how long the API server may take to be ready. It takes about 2 s on a machine with nothing else to do.
const startTimeout = 3 * time.Minute

func (c *Cluster) ready(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	last := "no answer"
	for {
		select {
		case <-c.done:
			return fmt.Errorf("start kube-apiserver: it ended: %s", c.tail())
		case <-ctx.Done():
			return fmt.Errorf("start kube-apiserver: not ready (%s): %w: %s", last, ctx.Err(), c.tail())
		case <-time.After(50 * time.Millisecond):
		}
		body, err := c.Do(ctx, http.MethodGet, "/readyz?verbose", nil)
		if err == nil {
			return nil
		}
		last = err.Error() + string(body)
	}
}

// tail returns the end of the API server's log.
func (c *Cluster) tail() string {
	text, _ := os.ReadFile(c.LogFile())
	return string(text[max(0, len(text)-2000):])
}

// StopServer ends the API server and waits until it has ended. Its data stays.
func (c *Cluster) StopServer() {
	if c.proc == nil {
		return
	}
	_ = c.proc.Signal(syscall.SIGTERM)
	select {
	case <-c.done:
	case <-time.After(20 * time.Second):
		_ = c.proc.Kill()
		<-c.done
	}
	c.proc = nil
	c.admin.CloseIdleConnections()
}

// KillServer ends the API server at once.
func (c *Cluster) KillServer() {
	if c.proc != nil {
		_ = c.proc.Kill()
		<-c.done
		c.proc = nil
		c.admin.CloseIdleConnections()
	}
}

// Close ends everything. What is in Dir stays.
func (c *Cluster) Close() error {
	c.KillServer()
	return c.store.Close()
}

// Do makes a request as administrator, again as long as the server is too busy. The error of an answer that says no has the
// answer's text.
func (c *Cluster) Do(ctx context.Context, method, path string, body []byte) ([]byte, error) {
	for {
		answer, err := c.once(ctx, method, path, body)
		var status *StatusError
		if !errors.As(err, &status) || status.Code != http.StatusTooManyRequests {
			return answer, err
		}
		select {
		case <-ctx.Done():
			return nil, err
		case <-time.After(100 * time.Millisecond):
		}
	}
}

func (c *Cluster) once(ctx context.Context, method, path string, body []byte) ([]byte, error) {
	req, err := http.NewRequestWithContext(ctx, method, c.URL()+path, bytes.NewReader(body))
	if err != nil {
		return nil, err
	}
	switch {
	case method == http.MethodPatch && strings.Contains(path, "fieldManager="):
		req.Header.Set("Content-Type", "application/apply-patch+yaml")
	case method == http.MethodPatch:
		req.Header.Set("Content-Type", "application/merge-patch+json")
	case body != nil:
		req.Header.Set("Content-Type", "application/json")
	}
	resp, err := c.admin.Do(req)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	answer, err := io.ReadAll(resp.Body)
	if err == nil && resp.StatusCode >= 300 {
		err = &StatusError{method, path, resp.StatusCode, string(answer)}
	}
	return answer, err
}

// A StatusError is an answer that says no.
type StatusError struct {
	Method, Path string
	Code         int
	Text         string
}

// Error says it all.
func (e *StatusError) Error() string {
	return fmt.Sprintf("%s %s: %d: %s", e.Method, e.Path, e.Code, strings.TrimSpace(e.Text))
}

// Transport returns what reaches the API server as administrator.
func (c *Cluster) Transport() http.RoundTripper { return c.admin.Transport }
