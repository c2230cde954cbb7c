package kubernetes_test

import (
	"context"
	"fmt"
	"net/http"
	"testing"

	"margay/test/kubernetes/cluster"
)

// The objects of Kubernetes that the tests use, as kubectl would write them.

type object = map[string]any

// podOn makes a pod that the scheduler has put on a node, with an address if ip is not "".
func podOn(t testing.TB, c *cluster.Cluster, p podSpec) {
	t.Helper()
	if err := makePod(c, p); err != nil {
		t.Fatal(err)
	}
}

// A podSpec is what a test says of a pod.
type podSpec struct {
	namespace, name, node, ip string
	labels                    object
	ip6                       string // one more
	hostNetwork               bool
	ports                     []any // nil: http, 8080
}

func makePod(c *cluster.Cluster, p podSpec) error {
	if p.ports == nil {
		p.ports = []any{object{"name": "http", "containerPort": 8080}}
	}
	spec := object{"nodeName": p.node, "hostNetwork": p.hostNetwork, "serviceAccountName": "default",
		"containers": []any{object{"name": "c", "image": "i", "ports": p.ports}}}
	body := object{"apiVersion": "v1", "kind": "Pod", "metadata": object{"name": p.name, "namespace": p.namespace, "labels": p.labels}, "spec": spec}
	if err := ask(c, http.MethodPost, "/api/v1/namespaces/"+p.namespace+"/pods", body); err != nil {
		return err
	}
	if p.ip == "" {
		return nil
	}
	ips := []any{object{"ip": p.ip}}
	if p.ip6 != "" {
		ips = append(ips, object{"ip": p.ip6})
	}
	return podStatus(c, p.namespace, p.name, object{"phase": "Running", "podIP": p.ip, "podIPs": ips})
}

// podStatus says what a kubelet would.
func podStatus(c *cluster.Cluster, namespace, name string, status object) error {
	return ask(c, http.MethodPatch, podPath(namespace, name)+"/status", object{"status": status})
}

func podPath(namespace, name string) string {
	return "/api/v1/namespaces/" + namespace + "/pods/" + name
}

func deletePod(c *cluster.Cluster, namespace, name string) error {
	return ask(c, http.MethodDelete, podPath(namespace, name)+"?gracePeriodSeconds=0", nil)
}

// labelPod does what kubectl label does.
func labelPod(c *cluster.Cluster, namespace, name string, labels object) error {
	return ask(c, http.MethodPatch, podPath(namespace, name), object{"metadata": object{"labels": labels}})
}

func ask(c *cluster.Cluster, method, path string, body any) error {
	text, err := encode(body)
	if err == nil {
		_, err = c.Do(context.Background(), method, path, text)
	}
	return err
}

func makeNode(t testing.TB, c *cluster.Cluster, name, ip string) {
	t.Helper()
	do(t, c, http.MethodPost, "/api/v1/nodes", object{"apiVersion": "v1", "kind": "Node", "metadata": object{"name": name, "labels": object{"zone": "a"}}})
	do(t, c, http.MethodPatch, "/api/v1/nodes/"+name+"/status", object{"status": object{"addresses": []any{object{"type": "InternalIP", "address": ip}}}})
}

// installClusterPolicies installs a definition of ClusterNetworkPolicy that takes anything.
func installClusterPolicies(t testing.TB, c *cluster.Cluster) {
	t.Helper()
	do(t, c, http.MethodPost, "/apis/apiextensions.k8s.io/v1/customresourcedefinitions", object{
		"apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
		"metadata": object{"name": "clusternetworkpolicies.policy.networking.k8s.io",
			"annotations": object{"api-approved.kubernetes.io": "unapproved, for tests"}},
		"spec": object{
			"group": "policy.networking.k8s.io", "scope": "Cluster",
			"names": object{"kind": "ClusterNetworkPolicy", "listKind": "ClusterNetworkPolicyList", "plural": "clusternetworkpolicies", "singular": "clusternetworkpolicy"},
			"versions": []any{object{"name": "v1alpha2", "served": true, "storage": true, "schema": object{
				"openAPIV3Schema": object{"type": "object", "x-kubernetes-preserve-unknown-fields": true}}}},
		},
	})
	eventually(t, "the API server serves ClusterNetworkPolicies", func() bool {
		return ask(c, http.MethodGet, "/apis/policy.networking.k8s.io/v1alpha2/clusternetworkpolicies", nil) == nil
	})
}

func removeClusterPolicies(t testing.TB, c *cluster.Cluster) {
	t.Helper()
	do(t, c, http.MethodDelete, "/apis/apiextensions.k8s.io/v1/customresourcedefinitions/clusternetworkpolicies.policy.networking.k8s.io", nil)
	eventually(t, "the API server forgets ClusterNetworkPolicies", func() bool {
		return ask(c, http.MethodGet, "/apis/policy.networking.k8s.io/v1alpha2", nil) != nil
	})
}

func clusterPolicy(name, tier string) object {
	return object{"apiVersion": "policy.networking.k8s.io/v1alpha2", "kind": "ClusterNetworkPolicy", "metadata": object{"name": name},
		"spec": object{"tier": tier, "priority": 7, "subject": object{"namespaces": object{}},
			"ingress": []any{object{"name": "r", "action": "Deny", "from": []any{object{"namespaces": object{"matchLabels": object{"x": "y"}}}}}}}}
}

func slice(namespace, name, service string, ips ...string) object {
	var endpoints []any
	for _, ip := range ips {
		endpoints = append(endpoints, object{"addresses": []any{ip}})
	}
	return object{"apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "addressType": "IPv4",
		"metadata":  object{"name": name, "namespace": namespace, "labels": object{"kubernetes.io/service-name": service}},
		"endpoints": endpoints, "ports": []any{object{"port": 8080, "protocol": "TCP"}}}
}

func networkPolicy(namespace, name string) object {
	return object{"apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy", "metadata": object{"name": name, "namespace": namespace},
		"spec": object{"podSelector": object{"matchLabels": object{"app": "web"}},
			"ingress": []any{object{"from": []any{object{"podSelector": object{"matchLabels": object{"role": fmt.Sprint("client-", name)}}}}}}}}
}
