package install

import (
	"bytes"
	"context"
	"errors"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"go.yaml.in/yaml/v3"

	v3api "margay/api/v3"
	"margay/controllers"
	"margay/store"
	"margay/store/kube"
)

// An object is as much of a Kubernetes object as these tests look at.
type object struct {
	Kind       string
	APIVersion string `yaml:"apiVersion"`
	Metadata   struct{ Name, Namespace string }
	Rules      []rule
	RoleRef    struct{ Kind, Name string } `yaml:"roleRef"`
	Subjects   []struct{ Kind, Name, Namespace string }
	Spec       struct {
		Template struct{ Spec podSpec }
	}
}

type rule struct {
	APIGroups        []string `yaml:"apiGroups"`
	Resources, Verbs []string
}

type podSpec struct {
	ServiceAccountName string `yaml:"serviceAccountName"`
	PriorityClassName  string `yaml:"priorityClassName"`
	HostNetwork        bool   `yaml:"hostNetwork"`
	HostPID            bool   `yaml:"hostPID"`
	HostIPC            bool   `yaml:"hostIPC"`
	SecurityContext    struct {
		RunAsNonRoot   bool                  `yaml:"runAsNonRoot"`
		SeccompProfile struct{ Type string } `yaml:"seccompProfile"`
	} `yaml:"securityContext"`
	Tolerations []map[string]string
	Containers  []struct {
		Name, Image     string
		Args            []string
		SecurityContext struct {
			Privileged               bool
			AllowPrivilegeEscalation *bool `yaml:"allowPrivilegeEscalation"`
			ReadOnlyRootFilesystem   bool  `yaml:"readOnlyRootFilesystem"`
			Capabilities             struct{ Drop, Add []string }
		} `yaml:"securityContext"`
		Resources      struct{ Requests map[string]string }
		LivenessProbe  map[string]any `yaml:"livenessProbe"`
		ReadinessProbe map[string]any `yaml:"readinessProbe"`
	}
}

// The trees that are applied as a whole, by the name of the last.
const (
	base  = "kubernetes/base"
	typha = "kubernetes/typha"
)

// load returns the objects of a tree. Each of its files is named in kustomization.yaml, or it would not be applied.
func load(t *testing.T, dir string) []object {
	t.Helper()
	var k struct {
		Resources []string
		Patches   []struct{ Path string }
	}
	decode(t, filepath.Join(dir, "kustomization.yaml"), &k)
	named := []string{"kustomization.yaml"}
	for _, p := range k.Patches {
		if p.Path != "" {
			named = append(named, p.Path)
		}
	}
	var all []object
	for _, name := range k.Resources {
		if strings.Contains(name, "..") {
			all = append(all, load(t, filepath.Join(dir, name))...)
			continue
		}
		named = append(named, name)
		text, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil {
			t.Fatal(err)
		}
		for d := yaml.NewDecoder(bytes.NewReader(text)); ; {
			var o object
			if err := d.Decode(&o); errors.Is(err, io.EOF) {
				break
			} else if err != nil {
				t.Fatalf("%s/%s: %v", dir, name, err)
			}
			all = append(all, o)
		}
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		if !slices.Contains(named, e.Name()) {
			t.Errorf("%s/%s is not named in kustomization.yaml", dir, e.Name())
		}
	}
	return all
}

func decode(t *testing.T, file string, into any) {
	t.Helper()
	text, err := os.ReadFile(file)
	if err == nil {
		err = yaml.Unmarshal(text, into)
	}
	if err != nil {
		t.Fatalf("%s: %v", file, err)
	}
}

// TestManifests: objects are of kinds that Kubernetes has, are in the namespace, and what they name exists.
func TestManifests(t *testing.T) {
	kinds := map[string]string{
		"Namespace": "v1", "ServiceAccount": "v1", "Service": "v1", "DaemonSet": "apps/v1", "Deployment": "apps/v1", "PodDisruptionBudget": "policy/v1",
		"ClusterRole": "rbac.authorization.k8s.io/v1", "ClusterRoleBinding": "rbac.authorization.k8s.io/v1",
		"Role": "rbac.authorization.k8s.io/v1", "RoleBinding": "rbac.authorization.k8s.io/v1",
	}
	all := load(t, typha)
	exists := func(kind, name string) bool {
		return slices.ContainsFunc(all, func(o object) bool { return o.Kind == kind && o.Metadata.Name == name })
	}
	for _, o := range all {
		id := o.Kind + " " + o.Metadata.Name
		if kinds[o.Kind] == "" || o.APIVersion != kinds[o.Kind] {
			t.Errorf("%s: apiVersion %s, want %q", id, o.APIVersion, kinds[o.Kind])
		}
		if scoped := o.Kind == "Namespace" || strings.HasPrefix(o.Kind, "ClusterRole"); scoped == (o.Metadata.Namespace == "calico-system") {
			t.Errorf("%s: namespace %q", id, o.Metadata.Namespace)
		}
		if o.RoleRef.Name != "" && !exists(o.RoleRef.Kind, o.RoleRef.Name) {
			t.Errorf("%s: no %s %s", id, o.RoleRef.Kind, o.RoleRef.Name)
		}
		for _, s := range o.Subjects {
			if !exists(s.Kind, s.Name) || s.Namespace != "calico-system" {
				t.Errorf("%s: no %s %s/%s", id, s.Kind, s.Namespace, s.Name)
			}
		}
		if pod := o.Spec.Template.Spec; len(pod.Containers) > 0 {
			if !exists("ServiceAccount", pod.ServiceAccountName) {
				t.Errorf("%s: no ServiceAccount %s", id, pod.ServiceAccountName)
			}
			checkPod(t, id, pod)
		} else if o.Kind == "DaemonSet" || o.Kind == "Deployment" {
			t.Errorf("%s has no container", id)
		}
	}
}

// checkPod: a pod has what it needs and no more.
func checkPod(t *testing.T, id string, pod podSpec) {
	t.Helper()
	agent := pod.ServiceAccountName == "calico-node"
	if pod.HostPID || pod.HostIPC || pod.SecurityContext.SeccompProfile.Type != "RuntimeDefault" || pod.SecurityContext.RunAsNonRoot == agent ||
		!strings.HasPrefix(pod.PriorityClassName, "system-") || len(pod.Tolerations) == 0 {
		t.Errorf("%s: pod %+v", id, pod)
	}
	for _, c := range pod.Containers {
		s := c.SecurityContext
		if s.Privileged || s.AllowPrivilegeEscalation == nil || *s.AllowPrivilegeEscalation || !s.ReadOnlyRootFilesystem ||
			!slices.Equal(s.Capabilities.Drop, []string{"ALL"}) || len(s.Capabilities.Add) > 0 != agent {
			t.Errorf("%s: security context %+v", id, s)
		}
		if c.Image != "margay" || c.LivenessProbe == nil || c.ReadinessProbe == nil || c.Resources.Requests["cpu"] == "" || c.Resources.Requests["memory"] == "" {
			t.Errorf("%s: container %+v", id, c)
		}
	}
}

// TestRights has the programs talk to a server, and compares what they ask with what their roles allow: nothing is refused, and
// nothing is granted that nobody asks for.
func TestRights(t *testing.T) {
	all := load(t, typha)
	for _, test := range []struct {
		account string
		run     func(t *testing.T, s *server)
		more    []access // that come up only when something happens
	}{
		{"calico-node", follow, []access{{"update", "coordination.k8s.io", "leases", "calico-system"}}},
		{"calico-typha", follow, []access{{"update", "coordination.k8s.io", "leases", "calico-system"}}},
		{"calico-kube-controllers", control, []access{
			{"update", "projectcalico.org", "hostendpoints", ""}, {"delete", "projectcalico.org", "hostendpoints", ""},
			{"create", "projectcalico.org", "kubecontrollersconfigurations", ""},
			{"update", "coordination.k8s.io", "leases", "calico-system"}, {"patch", "", "events", "default"}}},
	} {
		t.Run(test.account, func(t *testing.T) {
			t.Parallel()
			s := newServer(t)
			test.run(t, s)
			asked := append(s.accesses(), test.more...)
			global, local := rulesOf(all, test.account)
			for _, a := range asked {
				if !allowed(global, a) && !(a.namespace == "calico-system" && allowed(local, a)) {
					t.Errorf("%s may not %s %s of %q in %q", test.account, a.verb, a.resource, a.group, a.namespace)
				}
			}
			for _, r := range slices.Concat(global, local) {
				for _, resource := range r.Resources {
					for _, verb := range r.Verbs {
						if !slices.ContainsFunc(asked, func(a access) bool {
							return a.resource == resource && a.verb == verb && slices.Contains(r.APIGroups, a.group)
						}) {
							t.Errorf("%s may %s %s of %v, and does not", test.account, verb, resource, r.APIGroups)
						}
					}
				}
			}
		})
	}
}

// rulesOf returns what is allowed to an account everywhere, and in the namespace.
func rulesOf(all []object, account string) (global, local []rule) {
	for _, binding := range all {
		if len(binding.Subjects) == 0 || binding.Subjects[0].Name != account {
			continue
		}
		for _, role := range all {
			if role.Kind != binding.RoleRef.Kind || role.Metadata.Name != binding.RoleRef.Name {
				continue
			}
			if binding.Kind == "ClusterRoleBinding" {
				global = append(global, role.Rules...)
			} else {
				local = append(local, role.Rules...)
			}
		}
	}
	return global, local
}

func allowed(rules []rule, a access) bool {
	return slices.ContainsFunc(rules, func(r rule) bool {
		return slices.Contains(r.APIGroups, a.group) && slices.Contains(r.Resources, a.resource) && slices.Contains(r.Verbs, a.verb)
	})
}

// follow does what an agent does, and Typha for its agents.
func follow(t *testing.T, s *server) {
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	k, err := kube.Open(ctx, kube.Config{Server: s.URL})
	if err != nil {
		t.Fatal(err)
	}
	defer k.Close()
	following := make(chan error, 1)
	go func() {
		following <- store.Follow(ctx, k, v3api.AgentKinds(), func(store.Batch) error { return nil })
	}()
	for _, kind := range []v3api.Kind{v3api.KindClusterInformation, v3api.KindTier, v3api.KindNode} {
		if _, err := k.Get(ctx, v3api.Key{Kind: kind, Name: "default"}); err != nil && !errors.Is(err, store.ErrNotFound) {
			t.Error(err)
		}
	}
	if _, err := k.HostPods(ctx, "n1"); err != nil {
		t.Error(err)
	}
	if err := k.ReportStatus(ctx, store.NodeStatus{Node: "n1", TTLSeconds: 90}); err != nil {
		t.Error(err)
	}
	await(t, s, access{"watch", "", "pods", ""}) // so that all was listed
	var watched []access
	for _, a := range s.accesses() {
		if a.verb == "list" && a.namespace == "" {
			watched = append(watched, access{"watch", a.group, a.resource, ""})
		}
	}
	await(t, s, watched...)
	cancel()
	<-following
}

// control runs the controllers until one leads, has made a host endpoint, and has told its status.
func control(t *testing.T, s *server) {
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	cfg := kube.Config{Server: s.URL}
	go func() {
		done <- controllers.Run(ctx, controllers.Options{
			Environ:    []string{"DATASTORE_TYPE=kubernetes", "AUTO_HOST_ENDPOINTS=enabled"},
			LogHandler: func(slog.Leveler) slog.Handler { return slog.DiscardHandler },
			OpenTarget: func(ctx context.Context) (store.Store, error) { return kube.Open(ctx, cfg) },
			OpenElector: func(context.Context, *slog.Logger) (controllers.Elector, error) {
				return kube.NewElector(cfg, kube.Lease{Namespace: "calico-system", Name: "calico-kube-controllers"})
			},
		})
	}()
	await(t, s, access{"create", "coordination.k8s.io", "leases", "calico-system"}, access{"create", "projectcalico.org", "hostendpoints", ""},
		access{"update", "projectcalico.org", "kubecontrollersconfigurations/status", ""}, access{"create", "", "events", "default"},
		access{"get", "", "serviceaccounts", "default"}, access{"get", "", "pods", "default"}, access{"get", "projectcalico.org", "tiers", ""})
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
}

// await waits until the server was asked for everything that is wanted.
func await(t *testing.T, s *server, wanted ...access) {
	t.Helper()
	for deadline := time.Now().Add(40 * time.Second); ; {
		asked := s.accesses()
		missing := slices.DeleteFunc(slices.Clone(wanted), func(a access) bool { return slices.Contains(asked, a) })
		if len(missing) == 0 {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("not asked for: %v; asked: %v", missing, asked)
		}
		time.Sleep(20 * time.Millisecond)
	}
}

// TestUnits: the units start what the program has, and differ only where they must.
func TestUnits(t *testing.T) {
	hardened := func(file string) (lines []string) {
		text, err := os.ReadFile(filepath.Join("systemd", file))
		if err != nil {
			t.Fatal(err)
		}
		_, after, ok := strings.Cut(string(text), "\nCapabilityBoundingSet=")
		if !ok || !strings.Contains(string(text), "\nExecStart=/usr/local/bin/margay ") {
			t.Fatalf("%s has no capabilities or no program", file)
		}
		return strings.Split(after, "\n")
	}
	node := hardened("margay-node.service")
	if !slices.Equal(node, hardened("margay-standalone.service")) {
		t.Error("the units are not hardened alike")
	}
	for _, want := range []string{"NoNewPrivileges=yes", "ProtectSystem=strict", "SystemCallFilter=@system-service", "MemoryDenyWriteExecute=yes"} {
		if !slices.Contains(node, want) {
			t.Errorf("no %s", want)
		}
	}
}
