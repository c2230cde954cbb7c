package install

import (
	"bytes"
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	v3 "margay/api/v3"
)

// An access is what a request asks of the API server's authoriser.
type access struct{ verb, group, resource, namespace string }

// A server answers as an API server with hardly any objects does, and takes note of what it is asked.
type server struct {
	*httptest.Server
	mu    sync.Mutex
	asked []access
}

func newServer(t *testing.T) *server {
	s := &server{}
	s.Server = httptest.NewServer(http.HandlerFunc(s.answer))
	t.Cleanup(func() { s.CloseClientConnections(); s.Close() })
	return s
}

// accesses returns what was asked so far, each once.
func (s *server) accesses() []access {
	s.mu.Lock()
	defer s.mu.Unlock()
	var out []access
	for _, a := range s.asked {
		if !slices.Contains(out, a) {
			out = append(out, a)
		}
	}
	return out
}

func (s *server) answer(w http.ResponseWriter, r *http.Request) {
	parts := strings.Split(strings.Trim(r.URL.Path, "/"), "/")
	group := ""
	if parts = parts[1:]; strings.HasPrefix(r.URL.Path, "/apis/") {
		group, parts = parts[0], parts[1:]
	}
	if parts = parts[1:]; len(parts) == 0 {
		s.discover(w, group)
		return
	}
	a := access{group: group}
	if parts[0] == "namespaces" && len(parts) > 2 {
		a.namespace, parts = parts[1], parts[2:]
	}
	name := ""
	a.resource = parts[0]
	if len(parts) > 1 {
		name = parts[1]
	}
	if len(parts) > 2 {
		a.resource += "/" + parts[2]
	}
	a.verb = verbOf(r, name)
	s.mu.Lock()
	s.asked = append(s.asked, a)
	s.mu.Unlock()
	s.reply(w, r, a, name)
}

func verbOf(r *http.Request, name string) string {
	switch {
	case r.Method == http.MethodGet && r.URL.Query().Get("watch") != "":
		return "watch"
	case r.Method == http.MethodGet && name == "":
		return "list"
	}
	return map[string]string{http.MethodGet: "get", http.MethodPost: "create", http.MethodPut: "update", http.MethodPatch: "patch", http.MethodDelete: "delete"}[r.Method]
}

// discover serves all kinds of projectcalico.org/v3, and cluster policies.
func (s *server) discover(w http.ResponseWriter, group string) {
	var resources []map[string]any
	switch group {
	case "projectcalico.org":
		for _, info := range v3.Kinds() {
			resources = append(resources, map[string]any{"name": info.Plural, "namespaced": info.Namespaced, "kind": info.Kind})
		}
	case "policy.networking.k8s.io":
		resources = append(resources, map[string]any{"name": "clusternetworkpolicies", "kind": "ClusterNetworkPolicy"})
	default:
		http.NotFound(w, nil)
		return
	}
	_ = json.NewEncoder(w).Encode(map[string]any{"kind": "APIResourceList", "resources": resources})
}

const node = `{"kind": "Node", "apiVersion": "v1", "metadata": {"name": "n1", "uid": "6c4d1c4e-2a3b-4d57-9b1a-000000000001", "resourceVersion": "5"},
	"status": {"addresses": [{"type": "InternalIP", "address": "10.0.0.1"}]}}`

const settings = `{"kind": "KubeControllersConfiguration", "apiVersion": "projectcalico.org/v3",
	"metadata": {"name": "default", "uid": "6c4d1c4e-2a3b-4d57-9b1a-000000000003", "resourceVersion": "6"}, "spec": {"controllers": {"node": {}}}}`

// warned are objects of every sort that agents warn of.
func warned() []string {
	return []string{
		"GlobalNetworkPolicy(p)", "NetworkPolicy(default/p)", "StagedGlobalNetworkPolicy(p)", "StagedNetworkPolicy(default/p)",
		"StagedKubernetesNetworkPolicy(default/p)", "NetworkPolicy(default/knp.default.p)", "GlobalNetworkPolicy(kcnp.kube-admin.p)",
		"HostEndpoint(h)", "GlobalNetworkSet(s)", "NetworkSet(default/s)", "Tier(t)", "IPPool(i)", "FelixConfiguration(f)", "BGPConfiguration(default)", "ClusterInformation(c)",
		"WorkloadEndpoint(default/n1-k8s-p-eth0)", "Profile(kns.default)", "Profile(ksa.default.a)", "Node(n1)",
	}
}

// report is the Lease of an agent.
func report() string {
	status := map[string]any{"node": "n1"}
	var warnings []string
	for _, object := range warned() {
		warnings = append(warnings, object+": something is odd")
	}
	status["warnings"] = warnings
	text, err := json.Marshal(status)
	if err != nil {
		panic(err)
	}
	lease, err := json.Marshal(map[string]any{
		"metadata": map[string]any{"name": "margay.n1", "annotations": map[string]any{"margay.io/status": string(text)}},
		"spec":     map[string]any{"holderIdentity": "n1"},
	})
	if err != nil {
		panic(err)
	}
	return string(lease)
}

func (s *server) reply(w http.ResponseWriter, r *http.Request, a access, name string) {
	w.Header().Set("Content-Type", "application/json")
	switch {
	case a.verb == "watch":
		w.(http.Flusher).Flush()
		select {
		case <-r.Context().Done():
		case <-time.After(time.Minute):
		}
	case a.verb == "list" && a.resource == "nodes":
		_, _ = io.WriteString(w, `{"metadata": {"resourceVersion": "7"}, "items": [`+node+`]}`)
	case a.verb == "list" && a.resource == "kubecontrollersconfigurations":
		_, _ = io.WriteString(w, `{"metadata": {"resourceVersion": "7"}, "items": [`+settings+`]}`)
	case a.verb == "get" && a.resource == "kubecontrollersconfigurations":
		_, _ = io.WriteString(w, settings)
	case a.verb == "list" && a.resource == "leases":
		_, _ = io.WriteString(w, `{"metadata": {"resourceVersion": "7"}, "items": [`+report()+`]}`)
	case a.verb == "list":
		_, _ = io.WriteString(w, `{"metadata": {"resourceVersion": "7"}, "items": []}`)
	case a.verb == "get" && a.resource == "nodes":
		_, _ = io.WriteString(w, node)
	case a.verb == "create" || a.verb == "update":
		s.stored(w, r)
	default:
		w.WriteHeader(http.StatusNotFound)
		_, _ = io.WriteString(w, `{"kind": "Status", "status": "Failure", "reason": "NotFound", "code": 404, "details": {"name": "`+name+`"}}`)
	}
}

// stored answers a write with what was written.
func (s *server) stored(w http.ResponseWriter, r *http.Request) {
	text, err := io.ReadAll(r.Body)
	object := map[string]any{"kind": "Lease", "apiVersion": "coordination.k8s.io/v1"}
	// The election's client sends protocol buffers; it does not look at what comes back.
	if err == nil && !bytes.HasPrefix(text, []byte("k8s\x00")) {
		err = json.Unmarshal(text, &object)
	}
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	if !strings.HasSuffix(r.URL.Path, "/status") {
		delete(object, "status") // it is written by itself
	}
	meta, _ := object["metadata"].(map[string]any)
	if meta == nil {
		meta = map[string]any{}
		object["metadata"] = meta
	}
	meta["resourceVersion"], meta["uid"] = "8", "6c4d1c4e-2a3b-4d57-9b1a-000000000002"
	meta["creationTimestamp"] = "2026-01-01T00:00:00Z"
	_ = json.NewEncoder(w).Encode(object)
}
