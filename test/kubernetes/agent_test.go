package kubernetes_test

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net/http"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"sigs.k8s.io/yaml"

	v3 "margay/api/v3"
	"margay/lab"
	"margay/store"
	"margay/store/kube"
	"margay/test/kubernetes/cluster"
)

// The hosts of a world: the API server's, a node with the agent, and one that is a pod's machine.
const (
	masterAddr = "172.15.0.2"
	nodeAddr   = "172.15.0.100"
	podAddr    = "172.15.0.20"
	otherAddr  = "172.15.0.66"
)

// A world is a cluster with an agent: hosts are network namespaces, the definitions are those that are installed.
type world struct {
	testing.TB
	dir                      string
	lab                      *lab.Lab
	master, node, pod, other *lab.Host
	cluster                  *cluster.Cluster
	proxy                    *proxy
	store                    store.Store
	agent                    *process
}

func newWorld(t testing.TB, args ...string) *world {
	t.Helper()
	w := &world{TB: t, dir: t.TempDir()}
	var err error
	if w.lab, err = lab.New(); err != nil {
		t.Fatalf("%v (these tests need root)", err)
	}
	t.Cleanup(w.lab.Close)
	for _, h := range []struct {
		host       **lab.Host
		name, addr string
	}{{&w.master, "master", masterAddr}, {&w.node, "node-1", nodeAddr}, {&w.pod, "pod", podAddr}, {&w.other, "other", otherAddr}} {
		if *h.host, err = w.lab.Host(h.name, netip.MustParsePrefix(h.addr+"/24")); err != nil {
			t.Fatal(err)
		}
	}
	w.cluster, err = cluster.Start(t.Context(), cluster.Config{
		Dir: filepath.Join(w.dir), Host: masterAddr, Port: 6443, Start: w.master.Start, Dial: w.master.Dial, Args: args,
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := w.cluster.Close(); err != nil {
			t.Error(err)
		}
	})
	installReal(t, w.cluster)
	w.proxy = startProxy(t, w.cluster)
	w.store = w.proxy.open(t)
	if err := w.store.Initialise(t.Context()); err != nil {
		t.Fatal(err)
	}
	do(t, w.cluster, http.MethodPost, "/api/v1/namespaces", namespace(kube.DefaultStatusNamespace))
	do(t, w.cluster, http.MethodPost, "/api/v1/namespaces/default/serviceaccounts",
		object{"apiVersion": "v1", "kind": "ServiceAccount", "metadata": object{"name": "default"}})
	makeNode(t, w.cluster, "node-1", nodeAddr)
	return w
}

// installReal installs the definitions of install/crds, as kubectl apply --server-side does.
func installReal(t testing.TB, c *cluster.Cluster) {
	t.Helper()
	files, err := filepath.Glob("../../install/crds/*.yaml")
	if err != nil || len(files) < 10 {
		t.Fatalf("%d definitions, %v", len(files), err)
	}
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		for _, document := range bytes.Split(text, []byte("\n---\n")) {
			var crd struct {
				Metadata struct {
					Name string `json:"name"`
				} `json:"metadata"`
			}
			if err := yaml.Unmarshal(document, &crd); err != nil {
				t.Fatal(err)
			}
			if _, err := c.Do(context.Background(), http.MethodPatch,
				"/apis/apiextensions.k8s.io/v1/customresourcedefinitions/"+crd.Metadata.Name+"?fieldManager=test&force=true", document); err != nil {
				t.Fatal(err)
			}
		}
	}
	for _, info := range v3.Kinds() {
		switch info.Kind {
		case v3.KindWorkloadEndpoint, v3.KindProfile, v3.KindNode:
			continue
		}
		eventually(t, "the API server serves "+info.Plural, func() bool {
			return ask(c, http.MethodGet, "/apis/projectcalico.org/v3/"+info.Plural, nil) == nil
		})
	}
}

// built builds margay once. TestMain removes it.
var built = sync.OnceValues(func() (string, error) {
	path := filepath.Join(temporary, "margay")
	cmd := exec.Command("go", "build", "-C", "../..", "-trimpath", "-ldflags", "-s -w", "-o", path, "./cmd/margay")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("go build: %w\n%s", err, out)
	}
	return path, nil
})

// A process is margay running on a host.
type process struct {
	*exec.Cmd
	log  *buffer
	done chan struct{}
}

// start runs margay. Its log is shown if the test fails.
func (w *world) start(on *lab.Machine, env []string, args ...string) *process {
	w.Helper()
	program, err := built()
	if err != nil {
		w.Fatal(err)
	}
	p := &process{Cmd: exec.Command(program, args...), log: &buffer{}, done: make(chan struct{})}
	p.Env = append(os.Environ(), env...)
	p.Stdout, p.Stderr = p.log, p.log
	if err := on.Start(p.Cmd); err != nil {
		w.Fatal(err)
	}
	go func() {
		defer close(p.done)
		_ = p.Wait() // how it ended is in the log
	}()
	w.Cleanup(func() {
		p.kill()
		if w.Failed() {
			w.Logf("margay %s:\n%s", strings.Join(args, " "), p.log)
		}
	})
	return p
}

func (p *process) kill() {
	_ = p.Process.Kill()
	<-p.done
}

type buffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (b *buffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.Write(p)
}

func (b *buffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.String()
}

// kubernetesEnv says where the API server is.
func (w *world) kubernetesEnv() []string {
	return []string{"DATASTORE_TYPE=kubernetes", "KUBECONFIG=" + w.cluster.Kubeconfig()}
}

// startAgent starts the agent of the node on the API server and waits until it is ready.
func (w *world) startAgent(env ...string) {
	w.Helper()
	w.agent = w.startAgentOn(&w.node.Machine, "node-1", append(w.kubernetesEnv(), env...)...)
}

// startAgentOn starts an agent and waits until it is ready.
func (w *world) startAgentOn(on *lab.Machine, name string, env ...string) *process {
	w.Helper()
	p := w.start(on, append([]string{
		"FELIX_FELIXHOSTNAME=" + name, "FELIX_PROMETHEUSMETRICSENABLED=true", "FELIX_HEALTHENABLED=true",
	}, env...), "node", "--state-dir", filepath.Join(w.dir, "state-"+name))
	client := on.HTTPClient(2 * time.Second)
	eventually(w, "the agent of "+name+" is ready", func() bool {
		resp, err := client.Get("http://127.0.0.1:9099/readiness")
		if err != nil {
			return false
		}
		_, _ = io.Copy(io.Discard, resp.Body)
		resp.Body.Close()
		return resp.StatusCode < 300
	})
	return p
}

// scrapes reports whether the node's metrics can be read from a host.
func (w *world) scrapes(from *lab.Host) bool {
	resp, err := from.HTTPClient(time.Second).Get("http://" + nodeAddr + ":9091/metrics")
	if err != nil {
		return false
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	return err == nil && resp.StatusCode == http.StatusOK && bytes.Contains(text, []byte("felix_"))
}

// margay runs the CLI on the master and returns what it prints.
func (w *world) margay(stdin string, args ...string) (string, error) {
	w.Helper()
	program, err := built()
	if err != nil {
		w.Fatal(err)
	}
	cmd := exec.Command(program, args...)
	cmd.Env = append(os.Environ(), "DATASTORE_TYPE=kubernetes", "KUBECONFIG="+w.cluster.Kubeconfig())
	cmd.Stdin = strings.NewReader(stdin)
	out := &buffer{}
	cmd.Stdout, cmd.Stderr = out, out
	err = w.master.Run(cmd)
	return out.String(), err
}

// guide is the guide's allow-list way, for one host.
const guide = `
apiVersion: projectcalico.org/v3
kind: HostEndpoint
metadata:
  name: node-1.eth0
  labels: {running-calico: "true"}
spec: {node: node-1, interfaceName: eth0, expectedIPs: [172.15.0.100]}
---
apiVersion: projectcalico.org/v3
kind: GlobalNetworkPolicy
metadata:
  name: restrict-calico-node-prometheus
spec:
  selector: running-calico == "true"
  order: 500
  types: [Ingress]
  ingress:
  - action: Allow
    protocol: TCP
    source: {selector: calico-prometheus-access == "true"}
    destination: {ports: [9091]}
---
apiVersion: projectcalico.org/v3
kind: GlobalNetworkPolicy
metadata:
  name: allow-egress
spec:
  selector: running-calico == "true"
  types: [Egress]
  egress:
  - action: Allow
`

// TestAgent follows the guide on the real API server: label a pod, and the port is open; by kubectl's requests and the CLI.
func TestAgent(t *testing.T) {
	w := newWorld(t)
	podOn(t, w.cluster, podSpec{namespace: "default", name: "my-prometheus-pod", node: "node-2", ip: podAddr, labels: object{"app": "prometheus"}})
	podOn(t, w.cluster, podSpec{namespace: "default", name: "other", node: "node-2", ip: otherAddr})
	w.startAgent()
	if !w.scrapes(w.pod) {
		t.Fatal("without a host endpoint the port is closed")
	}
	out, err := w.margay(guide, "apply", "-f", "-", "--wait")
	if err != nil || !strings.Contains(out, "in force on 1 node(s)") {
		t.Fatalf("apply: %v\n%s", err, out)
	}
	t.Logf("apply --wait: %s", strings.TrimSpace(out))
	if w.scrapes(w.pod) || w.scrapes(w.other) {
		t.Fatal("the port is open without a label")
	}
	for range 3 {
		label(t, w, "true")
		eventually(t, "the label opens the port", func() bool { return w.scrapes(w.pod) })
		if w.scrapes(w.other) {
			t.Error("the label of one pod opens the port for another")
		}
		label(t, w, nil)
		eventually(t, "without the label the port is closed", func() bool { return !w.scrapes(w.pod) })
	}
	checkCLI(t, w)
	applyTwice(t, w)

	// The API server goes and comes: the rules stay, and nothing is lost.
	label(t, w, "true")
	eventually(t, "the label opens the port", func() bool { return w.scrapes(w.pod) })
	w.cluster.KillServer()
	if !w.scrapes(w.pod) || w.scrapes(w.other) {
		t.Error("without the API server the rules are others")
	}
	if err := w.cluster.StartServer(t.Context()); err != nil {
		t.Fatal(err)
	}
	label(t, w, nil)
	eventually(t, "after the restart the label counts", func() bool { return !w.scrapes(w.pod) })
}

// applyTwice applies policies of every sort to the definitions that are installed. What the API server fills in must be what
// the CLI fills in: the same again changes nothing.
func applyTwice(t *testing.T, w *world) {
	t.Helper()
	if out, err := w.margay(manifests, "apply", "-f", "-"); err != nil {
		t.Fatalf("apply: %v\n%s", err, out)
	}
	out, err := w.margay(manifests, "apply", "-f", "-")
	if err != nil || strings.Contains(out, "created ") || strings.Contains(out, "configured ") || strings.Contains(out, "updated ") {
		t.Errorf("apply again: %v\n%s", err, out)
	}
	t.Logf("apply again:\n%s", out)
}

func label(t testing.TB, w *world, value any) {
	t.Helper()
	if err := labelPod(w.cluster, "default", "my-prometheus-pod", object{"calico-prometheus-access": value}); err != nil {
		t.Fatal(err)
	}
}

// checkCLI looks at the objects with margay and, where it is installed, with kubectl.
func checkCLI(t *testing.T, w *world) {
	t.Helper()
	for _, c := range []struct{ args, want string }{
		{"get globalnetworkpolicies", "restrict-calico-node-prometheus"},
		{"get nodes", "node-1"},
		{"get workloadendpoints --namespace default", "my-prometheus-pod"},
		{"get profiles", "kns.default"},
		{"status", "node-1"},
	} {
		out, err := w.margay("", strings.Fields(c.args)...)
		if err != nil || !strings.Contains(out, c.want) {
			t.Errorf("margay %s: %v\n%s", c.args, err, out)
		}
		t.Logf("margay %s:\n%s", c.args, out)
	}
	kubectl, err := exec.LookPath("kubectl")
	if err != nil {
		t.Log("kubectl is not installed: requests are made as it makes them")
		return
	}
	run := func(args ...string) string {
		cmd := exec.Command(kubectl, append([]string{"--kubeconfig", w.cluster.Kubeconfig()}, args...)...)
		cmd.Env = append(os.Environ(), "HOME="+w.dir)
		out := &buffer{}
		cmd.Stdout, cmd.Stderr = out, out
		if err := w.master.Run(cmd); err != nil {
			t.Errorf("kubectl %v: %v\n%s", args, err, out)
		}
		return out.String()
	}
	if out := run("get", "globalnetworkpolicies.projectcalico.org", "-o", "name"); !slices.Contains(strings.Fields(out), "globalnetworkpolicy.projectcalico.org/restrict-calico-node-prometheus") {
		t.Errorf("kubectl sees %s", out)
	}
	run("label", "pod", "my-prometheus-pod", "calico-prometheus-access=true")
	eventually(t, "kubectl label opens the port", func() bool { return w.scrapes(w.pod) })
	run("label", "pod", "my-prometheus-pod", "calico-prometheus-access-")
	eventually(t, "kubectl label closes the port", func() bool { return !w.scrapes(w.pod) })
}
