package kubernetes_test

import (
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"
	"net/http"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"sigs.k8s.io/yaml"

	"margay/lab"
)

// auditPolicy has every request of a service account written down once it is answered.
const auditPolicy = `
apiVersion: audit.k8s.io/v1
kind: Policy
omitStages: [RequestReceived, ResponseStarted]
rules:
- {level: Metadata, userGroups: ["system:serviceaccounts"]}
- {level: None}
`

// An installation is what install/kubernetes makes of a cluster, without kubelets: programs that are started with the
// environment of their manifests and the tokens of their service accounts.
type installation struct {
	*world
	containers map[string][]string // by name of the container: the environment
	audit      string
}

// newInstallation applies the objects of a tree of install/kubernetes.
func newInstallation(t testing.TB, tree string) *installation {
	t.Helper()
	dir := t.TempDir()
	policy := filepath.Join(dir, "policy.yaml")
	if err := os.WriteFile(policy, []byte(auditPolicy), 0o600); err != nil {
		t.Fatal(err)
	}
	i := &installation{containers: map[string][]string{}, audit: filepath.Join(dir, "audit.log")}
	i.world = newWorld(t, "--audit-policy-file="+policy, "--audit-log-path="+i.audit, "--audit-log-batch-max-wait=10ms")
	for _, dir := range slices.Compact([]string{"base", tree}) {
		files, err := filepath.Glob("../../install/kubernetes/" + dir + "/*.yaml")
		if err != nil || len(files) == 0 {
			t.Fatal(files, err)
		}
		for _, file := range files {
			i.applyFile(file, tree)
		}
	}
	return i
}

// applyFile does what kubectl apply -k does with a file, by the strict rules of the API server: a field that it does not know is
// an error. Nothing comes of DaemonSets and Deployments, but their environment counts.
func (i *installation) applyFile(file, tree string) {
	i.Helper()
	text, err := os.ReadFile(file)
	if err != nil {
		i.Fatal(err)
	}
	for _, document := range bytes.Split(text, []byte("\n---\n")) {
		var o struct {
			APIVersion, Kind string
			Metadata         struct{ Name, Namespace string }
			Spec             struct {
				Template struct {
					Spec struct {
						Containers []struct {
							Name string
							Env  []struct{ Name, Value string }
						}
					}
				}
			}
		}
		if err := yaml.Unmarshal(document, &o); err != nil {
			i.Fatalf("%s: %v", file, err)
		}
		for _, c := range o.Spec.Template.Spec.Containers {
			for _, v := range c.Env {
				if v.Value != "" {
					i.containers[c.Name] = append(i.containers[c.Name], v.Name+"="+v.Value)
				}
			}
		}
		const namespace = "/namespaces/calico-system/"
		path := map[string]string{
			"Namespace": "/api/v1/namespaces/", "ServiceAccount": "/api/v1" + namespace + "serviceaccounts/", "Service": "/api/v1" + namespace + "services/",
			"ClusterRole": "/apis/rbac.authorization.k8s.io/v1/clusterroles/", "ClusterRoleBinding": "/apis/rbac.authorization.k8s.io/v1/clusterrolebindings/",
			"Role": "/apis/rbac.authorization.k8s.io/v1" + namespace + "roles/", "RoleBinding": "/apis/rbac.authorization.k8s.io/v1" + namespace + "rolebindings/",
			"DaemonSet": "/apis/apps/v1" + namespace + "daemonsets/", "Deployment": "/apis/apps/v1" + namespace + "deployments/",
			"PodDisruptionBudget": "/apis/policy/v1" + namespace + "poddisruptionbudgets/",
		}[o.Kind]
		if o.Kind == "Kustomization" || tree == "typha" && o.Metadata.Name == "calico-node" && strings.HasSuffix(o.Kind, "Binding") { // which the tree's patches delete
			continue
		}
		if path == "" {
			i.Fatalf("%s: nobody knows where a %s is", file, o.Kind)
		}
		// A patch is another manager's, or it would take away what is not in it.
		query := "?force=true&fieldValidation=Strict&fieldManager=" + filepath.Base(filepath.Dir(file))
		if _, err := i.cluster.Do(i.Context(), http.MethodPatch, path+o.Metadata.Name+query, document); err != nil {
			i.Fatalf("%s: %v", file, err)
		}
	}
}

// environment returns that of a container, its files where they are here, with a token for a service account; "": none.
func (i *installation) environment(container, account string) []string {
	i.Helper()
	var env []string
	for _, v := range i.containers[container] {
		v = strings.ReplaceAll(v, "/etc/margay/ca/ca.crt", i.cluster.CAFile())
		v = strings.ReplaceAll(v, "/etc/margay/tls/tls", filepath.Join(i.dir, container))
		env = append(env, strings.ReplaceAll(v, "$(CALICO_TYPHA_SERVICE_HOST)", masterAddr))
	}
	if len(env) == 0 {
		i.Fatalf("no manifest has a container %s", container)
	}
	if account == "" {
		return env
	}
	var answer struct{ Status struct{ Token string } }
	text := do(i, i.cluster, http.MethodPost, "/api/v1/namespaces/calico-system/serviceaccounts/"+account+"/token",
		object{"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": object{}})
	if err := json.Unmarshal(text, &answer); err != nil || answer.Status.Token == "" {
		i.Fatalf("%s, %v", text, err)
	}
	path := filepath.Join(i.dir, account+".token.kubeconfig")
	kubeconfig := fmt.Sprintf(`{apiVersion: v1, kind: Config, current-context: x, contexts: [{name: x, context: {cluster: c, user: u}}],
clusters: [{name: c, cluster: {server: %q, certificate-authority: %q}}], users: [{name: u, user: {token: %q}}]}`,
		i.cluster.URL(), i.cluster.CAFile(), answer.Status.Token)
	if err := os.WriteFile(path, []byte(kubeconfig), 0o600); err != nil {
		i.Fatal(err)
	}
	return append(env, "KUBECONFIG="+path)
}

// issue writes a certificate for a container, as the Secret of the manifests has it.
func (i *installation) issue(container, name string) {
	i.Helper()
	cert, key, err := i.cluster.Certificate(name)
	if err != nil {
		i.Fatal(err)
	}
	for suffix, text := range map[string][]byte{".crt": cert, ".key": key} {
		if err := os.WriteFile(filepath.Join(i.dir, container+suffix), text, 0o600); err != nil {
			i.Fatal(err)
		}
	}
}

// requests returns what service accounts asked for, by account, and what was refused them.
func (i *installation) requests() (asked map[string]int, refused []string) {
	i.Helper()
	f, err := os.Open(i.audit)
	if err != nil {
		i.Fatal(err)
	}
	defer f.Close()
	asked = map[string]int{}
	for lines := bufio.NewScanner(f); lines.Scan(); {
		var e struct {
			Verb, RequestURI string
			User             struct{ Username string }
			ResponseStatus   struct{ Code int }
		}
		if json.Unmarshal(lines.Bytes(), &e) != nil {
			continue // a line that is still being written
		}
		account := strings.TrimPrefix(e.User.Username, "system:serviceaccount:calico-system:")
		asked[account]++
		if text := fmt.Sprintf("%s may not %s %s", account, e.Verb, e.RequestURI); e.ResponseStatus.Code == http.StatusForbidden && !slices.Contains(refused, text) {
			refused = append(refused, text)
		}
	}
	return asked, refused
}

// TestInstallation runs the programs with exactly the rights and the settings that install/kubernetes gives them, on an API
// server that enforces them: everything works and nothing is refused.
func TestInstallation(t *testing.T) {
	for _, tree := range []string{"base", "typha"} {
		t.Run(tree, func(t *testing.T) { installationWorks(t, newInstallation(t, tree), tree) })
	}
}

func installationWorks(t *testing.T, i *installation, tree string) {
	pod, err := i.node.Pod("web", lab.Cable{Interface: "podweb", Addrs: []netip.Addr{netip.MustParseAddr("10.65.1.9")}})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = pod.Remove() }()
	podOn(t, i.cluster, podSpec{namespace: "default", name: "web", node: "node-1", ip: "10.65.1.9", labels: object{"app": "web"}})
	podOn(t, i.cluster, podSpec{namespace: "default", name: "my-prometheus-pod", node: "node-2", ip: podAddr})
	podOn(t, i.cluster, podSpec{namespace: "default", name: "host-scraper", node: "node-1", ip: nodeAddr, hostNetwork: true, labels: object{"calico-prometheus-access": "true"}})
	if tree == "typha" {
		i.issue("calico-typha", "typha")
		i.issue("calico-node", "felix")
		i.start(&i.master.Machine, i.environment("calico-typha", "calico-typha"), "typha")
		i.startAgentOn(&i.node.Machine, "node-1", i.environment("calico-node", "")...)
	} else {
		i.startAgentOn(&i.node.Machine, "node-1", i.environment("calico-node", "calico-node")...)
	}
	controllers := i.start(&i.master.Machine, append(i.environment("calico-kube-controllers", "calico-kube-controllers"), "AUTO_HOST_ENDPOINTS=enabled"),
		"kube-controllers", "--health-port=9440", "--status-file=")
	eventually(t, "the automatic host endpoint", func() bool {
		return ask(i.cluster, http.MethodGet, "/apis/projectcalico.org/v3/hostendpoints/node-1-auto-hep", nil) == nil
	})
	kubectlApply(t, i.world, guide)
	eventually(t, "the port is closed", func() bool { return !i.scrapes(i.pod) })
	label(t, i.world, "true")
	eventually(t, "the label opens the port", func() bool { return i.scrapes(i.pod) })
	i.patch("/api/v1/namespaces/default", `{"metadata":{"labels":{"a":"b"}}}`)
	do(t, i.cluster, http.MethodPost, "/apis/networking.k8s.io/v1/namespaces/default/networkpolicies", networkPolicy("default", "np"))
	eventually(t, "the report", func() bool {
		out, err := i.margay("", "status", "-o", "yaml")
		return err == nil && strings.Contains(out, "ready: true") && strings.Contains(out, "host-scraper")
	})
	eventually(t, "an Event", func() bool { return len(events(t, i.world, "")) > 0 })
	do(t, i.cluster, http.MethodDelete, "/api/v1/nodes/node-1", nil)
	eventually(t, "the host endpoint is gone", func() bool {
		return ask(i.cluster, http.MethodGet, "/apis/projectcalico.org/v3/hostendpoints/node-1-auto-hep", nil) != nil
	})
	asked, refused := i.requests()
	for _, r := range refused {
		t.Error(r)
	}
	if behind := asked["calico-node"] == 0 && asked["calico-typha"] > 20; behind != (tree == "typha") || asked["calico-kube-controllers"] < 20 {
		t.Errorf("requests: %v", asked)
	}
	if strings.Contains(controllers.log.String(), "level=ERROR") {
		t.Error("the controllers have errors")
	}
	t.Logf("requests: %v, refused: %d", asked, len(refused))

	// What is not granted is refused: else all of this would say nothing.
	program, err := built()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(program, "delete", "globalnetworkpolicy", "allow-egress")
	cmd.Env = append(os.Environ(), append(i.environment("calico-node", "calico-node"), "DATASTORE_TYPE=kubernetes")...)
	if err := i.node.Run(cmd); err == nil {
		t.Error("the agent's account may delete policy")
	}
	if _, refused := i.requests(); len(refused) == 0 {
		t.Error("what the agent's account may not do was not refused")
	}
}
