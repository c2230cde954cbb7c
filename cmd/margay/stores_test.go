package main

import (
	"strings"
	"testing"

	"margay/ctl"
)

// TestOpenForCLI checks what is said of datastores that cannot be opened.
func TestOpenForCLI(t *testing.T) {
	for _, c := range []struct {
		name string
		cfg  ctl.StoreConfig
		want string
	}{
		{"Kubernetes", ctl.StoreConfig{Type: ctl.TypeKubernetes, Kubernetes: ctl.KubernetesConfig{Context: "x"}},
			"set KUBECONFIG, or run in a pod with a service account"},
		{"no certificate", ctl.StoreConfig{Type: ctl.TypeEtcd, Endpoints: []string{"https://127.0.0.1:1"}, CAFile: "nowhere.crt"}, "nowhere.crt"},
		{"no discovery", ctl.StoreConfig{Type: ctl.TypeEtcd, DiscoverySRV: "etcd.invalid"}, "discover etcd endpoints by SRV records of etcd.invalid: "},
	} {
		s, err := openForCLI(t.Context(), c.cfg)
		if err == nil || s != nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want %q", c.name, err, c.want)
		}
	}
}
