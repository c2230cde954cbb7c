package kubernetes_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"path/filepath"
	"strings"
	"testing"
	"time"

	v3 "margay/api/v3"
	"margay/lab"
	"margay/store"
	"margay/store/etcd"
)

// startControllers starts kube-controllers on a host.
func (w *world) startControllers(on *lab.Host, env ...string) *process {
	w.Helper()
	return w.start(&on.Machine, append([]string{"KUBECONFIG=" + w.cluster.Kubeconfig(), "AUTO_HOST_ENDPOINTS=enabled"}, env...),
		"kube-controllers", "--health-port", "9440", "--status-file", "")
}

// patch merges something into an object of Kubernetes.
func (w *world) patch(path, merge string) {
	w.Helper()
	var m any
	if err := json.Unmarshal([]byte(merge), &m); err != nil {
		w.Fatal(err)
	}
	do(w, w.cluster, http.MethodPatch, path, m)
}

// leads reports whether the instance on a host says that it leads.
func (w *world) leads(on *lab.Host) bool {
	resp, err := on.HTTPClient(5 * time.Second).Get("http://127.0.0.1:9440/readiness")
	if err != nil {
		return false
	}
	defer resp.Body.Close()
	text := make([]byte, 4096)
	n, _ := resp.Body.Read(text)
	return resp.StatusCode == http.StatusOK && strings.Contains(string(text[:n]), " leading")
}

// TestControllers runs two instances on a Kubernetes datastore: automatic host endpoints follow the nodes, whoever leads.
func TestControllers(t *testing.T) {
	w := newWorld(t)
	first := w.startControllers(w.master, "DATASTORE_TYPE=kubernetes")
	eventually(t, "one leads", func() bool { return w.leads(w.master) })
	w.startControllers(w.other, "DATASTORE_TYPE=kubernetes")
	key := v3.Key{Kind: v3.KindHostEndpoint, Name: "node-1-auto-hep"}
	hep := func(zone string) bool {
		r, err := w.store.Get(t.Context(), key)
		if err != nil {
			return false
		}
		h := r.(*v3.HostEndpoint)
		return h.Labels["zone"] == zone && h.Spec.InterfaceName == "*" && strings.Join(h.Spec.ExpectedIPs, " ") == nodeAddr
	}
	eventually(t, "the host endpoint", func() bool { return hep("a") })
	w.patch("/api/v1/nodes/node-1", `{"metadata":{"labels":{"zone":"z"}}}`)
	eventually(t, "the host endpoint with the label", func() bool { return hep("z") })
	eventually(t, "the status", func() bool {
		r, err := w.store.Get(t.Context(), v3.Key{Kind: v3.KindKubeControllersConfiguration, Name: "default"})
		if err != nil {
			return false
		}
		s := r.(*v3.KubeControllersConfiguration).Status
		return s.RunningConfig != nil && s.RunningConfig.Controllers.Node.HostEndpoint.AutoCreate == "Enabled" && s.EnvironmentVars["AUTO_HOST_ENDPOINTS"] == "enabled"
	})
	if w.leads(w.other) {
		t.Error("both lead")
	}
	first.kill()
	w.patch("/api/v1/nodes/node-1", `{"metadata":{"labels":{"zone":"b"}}}`)
	eventually(t, "the other leads", func() bool { return w.leads(w.other) && hep("b") })
	w.cluster.StopServer()
	if err := w.cluster.StartServer(t.Context()); err != nil {
		t.Fatal(err)
	}
	w.patch("/api/v1/nodes/node-1", `{"metadata":{"labels":{"zone":"c"}}}`)
	eventually(t, "the host endpoint after the API server's restart", func() bool { return hep("c") })
	do(t, w.cluster, http.MethodDelete, "/api/v1/nodes/node-1", nil)
	eventually(t, "the host endpoint is gone", func() bool {
		_, err := w.store.Get(t.Context(), key)
		return errors.Is(err, store.ErrNotFound)
	})
}

// TestControllersEtcd copies from Kubernetes to an etcd datastore.
func TestControllersEtcd(t *testing.T) {
	w := newWorld(t)
	socket := filepath.Join(w.dir, "store.sock")
	w.start(&w.other.Machine, nil, "store", "--dir", filepath.Join(w.dir, "datastore"), "--socket", socket, "--listen", otherAddr+":2379")
	var to store.Store
	eventually(t, "the datastore", func() bool {
		var err error
		to, err = etcd.Open(t.Context(), etcd.Config{Endpoints: []string{"unix://" + socket}})
		return err == nil && to.Initialise(t.Context()) == nil
	})
	defer to.Close()
	node := &v3.Node{}
	node.Kind, node.APIVersion, node.Name = "Node", v3.APIVersion, "node-1"
	if _, err := to.Create(t.Context(), node); err != nil {
		t.Fatal(err)
	}
	w.startControllers(w.master, "DATASTORE_TYPE=etcdv3", "ETCD_ENDPOINTS=http://"+otherAddr+":2379")
	do(t, w.cluster, http.MethodPost, "/api/v1/namespaces", object{"apiVersion": "v1", "kind": "Namespace", "metadata": object{"name": "blue", "labels": object{"team": "b"}}})
	do(t, w.cluster, http.MethodPost, "/api/v1/namespaces/blue/serviceaccounts", object{"apiVersion": "v1", "kind": "ServiceAccount", "metadata": object{"name": "default"}})
	do(t, w.cluster, http.MethodPost, "/apis/networking.k8s.io/v1/namespaces/blue/networkpolicies", object{
		"apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy", "metadata": object{"name": "web"},
		"spec": object{"podSelector": object{"matchLabels": object{"app": "web"}}, "ingress": []any{object{"ports": []any{object{"port": 80}}}}},
	})
	do(t, w.cluster, http.MethodPost, "/api/v1/namespaces/blue/pods", object{
		"apiVersion": "v1", "kind": "Pod", "metadata": object{"name": "web", "labels": object{"app": "web"}},
		"spec": object{"nodeName": "node-1", "serviceAccountName": "default", "containers": []any{object{"name": "c", "image": "i"}}},
	})
	w.patch("/api/v1/namespaces/blue/pods/web/status", `{"status":{"podIP":"10.0.0.9","podIPs":[{"ip":"10.0.0.9"}],"phase":"Running"}}`)
	has := func(key v3.Key, holds func(v3.Resource) bool) {
		t.Helper()
		eventually(t, key.String(), func() bool {
			r, err := to.Get(t.Context(), key)
			if errors.Is(err, store.ErrNotFound) {
				r, err = nil, nil
			}
			return err == nil && holds(r)
		})
	}
	profile := func(name string, labels map[string]string) {
		t.Helper()
		has(v3.Key{Kind: v3.KindProfile, Name: name}, func(r v3.Resource) bool {
			p, ok := r.(*v3.Profile)
			return ok && maps.Equal(p.Spec.LabelsToApply, labels)
		})
	}
	profile("kns.blue", map[string]string{"pcns.projectcalico.org/name": "blue", "pcns.kubernetes.io/metadata.name": "blue", "pcns.team": "b"})
	profile("ksa.blue.default", map[string]string{"pcsa.projectcalico.org/name": "default"})
	policy := v3.Key{Kind: v3.KindNetworkPolicy, Namespace: "blue", Name: "knp.default.web"}
	has(policy, func(r v3.Resource) bool {
		p, ok := r.(*v3.NetworkPolicy)
		return ok && p.Spec.Selector == "projectcalico.org/orchestrator == 'k8s' && app == 'web'" && fmt.Sprint(p.Spec.Types) == "[Ingress]"
	})
	pod := v3.Key{Kind: v3.KindWorkloadEndpoint, Namespace: "blue", Name: "node--1-k8s-web-eth0"}
	labelled := func(access string) {
		t.Helper()
		has(pod, func(r v3.Resource) bool {
			e, ok := r.(*v3.WorkloadEndpoint)
			return ok && e.Labels["access"] == access && fmt.Sprint(e.Spec.IPNetworks) == "[10.0.0.9/32]" && e.Labels[v3.LabelServiceAccount] == "default"
		})
	}
	labelled("")
	w.patch("/api/v1/namespaces/blue/pods/web", `{"metadata":{"labels":{"access":"true"}}}`)
	labelled("true")
	has(v3.Key{Kind: v3.KindHostEndpoint, Name: "node-1-auto-hep"}, func(r v3.Resource) bool {
		h, ok := r.(*v3.HostEndpoint)
		return ok && fmt.Sprint(h.Spec.ExpectedIPs) == "["+nodeAddr+"]"
	})
	gone := func(r v3.Resource) bool { return r == nil }
	do(t, w.cluster, http.MethodDelete, "/apis/networking.k8s.io/v1/namespaces/blue/networkpolicies/web", nil)
	has(policy, gone)
	do(t, w.cluster, http.MethodDelete, "/api/v1/namespaces/blue/pods/web?gracePeriodSeconds=0", nil)
	has(pod, gone)
	do(t, w.cluster, http.MethodDelete, "/api/v1/nodes/node-1", nil)
	has(v3.Key{Kind: v3.KindNode, Name: "node-1"}, gone)
	has(v3.Key{Kind: v3.KindHostEndpoint, Name: "node-1-auto-hep"}, gone)
}
