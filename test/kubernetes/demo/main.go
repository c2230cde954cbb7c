// Command demo shows the rest of the guide on a real API server: package margay/lab/kubedemo has the steps, this the cluster.
//
//	make demo-kubernetes
package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"net/http"
	"net/netip"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"sigs.k8s.io/yaml"

	"margay/lab"
	"margay/lab/kubedemo"
	"margay/store/kube"
	"margay/test/kubernetes/cluster"
)

func main() {
	root := flag.String("root", "../..", "where Margay's source is")
	margay := flag.String("margay", "../../bin/margay", "the binary to run")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, *root, *margay); err != nil {
		fmt.Fprintln(os.Stderr, "demo:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, root, margay string) error {
	dir, err := os.MkdirTemp("", "margay-demo-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	d := &demo{dir: dir, root: root, margay: margay}
	_, err = kubedemo.Run(ctx, kubedemo.Options{
		NewCluster: d.start, Manifests: os.DirFS(filepath.Join(root, "examples", "deny-list")), Stdout: os.Stdout,
	})
	err = errors.Join(err, d.close())
	if err != nil {
		d.showLogs()
	}
	return err
}

// demo is a kubedemo.Cluster.
type demo struct {
	dir, root, margay string
	api               *lab.Host
	cluster           *cluster.Cluster
	parts             []*part
}

// A part of Margay that runs.
type part struct {
	name string
	log  string
	cmd  *exec.Cmd
	done chan struct{}
}

// start starts the API server on a host and installs what Margay needs.
func (d *demo) start(ctx context.Context, on *lab.Host, nodes map[string]netip.Addr) (kubedemo.Cluster, error) {
	d.api = on
	var err error
	d.cluster, err = cluster.Start(ctx, cluster.Config{Dir: d.dir, Host: nodes[on.Name()].String(), Port: 6443, Start: on.Start, Dial: on.Dial})
	if err != nil {
		return nil, err
	}
	files, err := filepath.Glob(filepath.Join(d.root, "install", "crds", "*.yaml"))
	if err != nil || len(files) == 0 {
		return nil, fmt.Errorf("no CustomResourceDefinitions below %s: %w", d.root, err)
	}
	var plurals []string
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err == nil {
			err = d.Apply(ctx, text)
		}
		if err != nil {
			return nil, err
		}
		plural, _, _ := strings.Cut(strings.TrimPrefix(filepath.Base(file), "projectcalico.org_"), ".")
		plurals = append(plurals, plural)
	}
	for _, plural := range plurals {
		if err := d.await(ctx, plural+" to be served", func() bool {
			_, err := d.cluster.Do(ctx, http.MethodGet, "/apis/"+kube.GroupV3+"/"+plural, nil)
			return err == nil
		}); err != nil {
			return nil, err
		}
	}
	for name, addr := range nodes {
		if err := d.addNode(ctx, name, addr); err != nil {
			return nil, err
		}
	}
	return d, d.namespace(ctx, kube.DefaultStatusNamespace)
}

type object = map[string]any

// request makes a request with a JSON body.
func (d *demo) request(ctx context.Context, method, path string, body any) error {
	text, err := json.Marshal(body)
	if err == nil {
		_, err = d.cluster.Do(ctx, method, path, text)
	}
	return err
}

func (d *demo) addNode(ctx context.Context, name string, addr netip.Addr) error {
	if err := d.request(ctx, http.MethodPost, "/api/v1/nodes", object{"apiVersion": "v1", "kind": "Node", "metadata": object{"name": name}}); err != nil {
		return err
	}
	return d.request(ctx, http.MethodPatch, "/api/v1/nodes/"+name+"/status",
		object{"status": object{"addresses": []any{object{"type": "InternalIP", "address": addr.String()}}}})
}

// namespace makes a namespace and, as its controller does, its service account.
func (d *demo) namespace(ctx context.Context, name string) error {
	var exists *cluster.StatusError
	err := d.request(ctx, http.MethodPost, "/api/v1/namespaces", object{"apiVersion": "v1", "kind": "Namespace", "metadata": object{"name": name}})
	if err != nil && (!errors.As(err, &exists) || exists.Code != http.StatusConflict) {
		return err
	}
	err = d.request(ctx, http.MethodPost, "/api/v1/namespaces/"+name+"/serviceaccounts",
		object{"apiVersion": "v1", "kind": "ServiceAccount", "metadata": object{"name": "default"}})
	if errors.As(err, &exists) && exists.Code == http.StatusConflict {
		return nil
	}
	return err
}

// Apply implements kubedemo.Cluster, by kubectl where it is installed.
func (d *demo) Apply(ctx context.Context, manifests []byte) error {
	if kubectl, err := exec.LookPath("kubectl"); err == nil {
		cmd := exec.CommandContext(ctx, kubectl, "--kubeconfig", d.cluster.Kubeconfig(), "apply", "--server-side", "-f", "-")
		cmd.Env = append(os.Environ(), "HOME="+d.dir)
		out := &bytes.Buffer{}
		cmd.Stdin, cmd.Stdout, cmd.Stderr = bytes.NewReader(manifests), out, out
		if err := d.api.Run(cmd); err != nil {
			return fmt.Errorf("kubectl apply: %w: %s", err, out)
		}
		return nil
	}
	for _, document := range bytes.Split(append([]byte("\n"), manifests...), []byte("\n---")) {
		if err := d.applyOne(ctx, document); err != nil {
			return err
		}
	}
	return nil
}

// applyOne does what kubectl apply --server-side does with one object.
func (d *demo) applyOne(ctx context.Context, document []byte) error {
	var head struct {
		APIVersion, Kind string
		Metadata         struct{ Name, Namespace string }
	}
	if err := yaml.Unmarshal(document, &head); err != nil || head.Kind == "" {
		return err // nothing but comments
	}
	plural := strings.ToLower(head.Kind) + "s"
	if strings.HasSuffix(head.Kind, "y") {
		plural = strings.ToLower(strings.TrimSuffix(head.Kind, "y")) + "ies"
	}
	path := "/apis/" + head.APIVersion + "/"
	if head.Metadata.Namespace != "" {
		path += "namespaces/" + head.Metadata.Namespace + "/"
	}
	_, err := d.cluster.Do(ctx, http.MethodPatch, path+plural+"/"+head.Metadata.Name+"?fieldManager=demo&force=true", document)
	return err
}

// AddPod implements kubedemo.Cluster.
func (d *demo) AddPod(ctx context.Context, p kubedemo.Pod) error {
	if err := d.namespace(ctx, p.Namespace); err != nil {
		return err
	}
	path := "/api/v1/namespaces/" + p.Namespace + "/pods"
	if err := d.request(ctx, http.MethodPost, path, object{
		"apiVersion": "v1", "kind": "Pod", "metadata": object{"name": p.Name, "labels": p.Labels},
		"spec": object{"nodeName": p.Node, "serviceAccountName": "default", "containers": []any{object{"name": "c", "image": "i"}}},
	}); err != nil {
		return err
	}
	return d.request(ctx, http.MethodPatch, path+"/"+p.Name+"/status",
		object{"status": object{"phase": "Running", "podIP": p.Addr.String(), "podIPs": []any{object{"ip": p.Addr.String()}}}})
}

// Label implements kubedemo.Cluster. It makes kubectl's request itself: kubectl ends some time after the answer.
func (d *demo) Label(ctx context.Context, p kubedemo.Pod, name, value string) error {
	var to any
	if value != "" {
		to = value
	}
	return d.request(ctx, http.MethodPatch, "/api/v1/namespaces/"+p.Namespace+"/pods/"+p.Name, object{"metadata": object{"labels": object{name: to}}})
}

// Start implements kubedemo.Cluster: agents reach the datastore through typha.
func (d *demo) Start(ctx context.Context, name string, on *lab.Machine) error {
	env := []string{"DATASTORE_TYPE=kubernetes", "KUBECONFIG=" + d.cluster.Kubeconfig()}
	args, health := []string{name}, ""
	switch name {
	case "typha":
		health = "9098"
		env = append(env, "TYPHA_PROMETHEUSMETRICSENABLED=true", "TYPHA_HEALTHENABLED=true")
	case "node":
		health = "9099"
		// As Calico's manifests have it: pods may reach their own host, which is how the controllers reach the API server.
		env = append(env, "FELIX_FELIXHOSTNAME="+on.Name(), "FELIX_PROMETHEUSMETRICSENABLED=true", "FELIX_HEALTHENABLED=true",
			"FELIX_DEFAULTENDPOINTTOHOSTACTION=ACCEPT", "FELIX_TYPHAADDR="+strings.TrimPrefix(strings.TrimSuffix(d.cluster.URL(), ":6443"), "https://")+":5473")
		args = append(args, "--state-dir", filepath.Join(d.dir, "state-"+on.Name()))
	case "kube-controllers":
		health = "9440"
		args = append(args, "--health-port", health, "--status-file", "")
	}
	p := &part{name: name + " on " + on.Name(), log: filepath.Join(d.dir, name+"-"+on.Name()+".log"), done: make(chan struct{})}
	log, err := os.Create(p.log)
	if err != nil {
		return err
	}
	p.cmd = exec.Command(d.margay, args...)
	p.cmd.Env, p.cmd.Stdout, p.cmd.Stderr = append(os.Environ(), env...), log, log
	if err := on.Start(p.cmd); err != nil {
		log.Close()
		return err
	}
	d.parts = append(d.parts, p)
	go func() {
		defer close(p.done)
		_ = p.cmd.Wait() // how it ended is in the log
		log.Close()
	}()
	client := on.HTTPClient(2 * time.Second)
	return d.await(ctx, p.name+" to be ready", func() bool {
		resp, err := client.Get("http://127.0.0.1:" + health + "/readiness")
		if err != nil {
			return false
		}
		resp.Body.Close()
		return resp.StatusCode < 300
	})
}

// await waits for a condition.
func (d *demo) await(ctx context.Context, what string, holds func() bool) error {
	for deadline := time.Now().Add(time.Minute); !holds(); {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(50 * time.Millisecond):
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("waited in vain for %s", what)
		}
	}
	return nil
}

// close ends everything that was started.
func (d *demo) close() error {
	for _, p := range d.parts {
		_ = p.cmd.Process.Kill()
		<-p.done
	}
	if d.cluster == nil {
		return nil
	}
	return d.cluster.Close()
}

// showLogs prints the ends of what the parts said.
func (d *demo) showLogs() {
	for _, p := range d.parts {
		text, _ := os.ReadFile(p.log)
		fmt.Fprintf(os.Stderr, "--- %s\n%s\n", p.name, text[max(0, len(text)-3000):])
	}
}
