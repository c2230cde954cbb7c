package ctl

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"margay/store"
)

// configText returns the text of a configuration file with a spec.
func configText(spec ...string) string {
	return "apiVersion: projectcalico.org/v3\nkind: CalicoAPIConfig\nmetadata: {}\nspec:\n  " + strings.Join(spec, "\n  ") + "\n"
}

func TestConfig(t *testing.T) {
	for _, tc := range []struct {
		name    string
		file    string // "": there is none
		env     map[string]string
		socket  bool
		context string
		want    StoreConfig
		wantErr string // a part of the error
	}{
		{name: "nothing, and no store here", wantErr: "none runs on this host: SOCKET does not exist (start one with `margay standalone`"},
		{name: "nothing, and a store here", socket: true, want: StoreConfig{Type: TypeEtcd, Endpoints: []string{"unix://SOCKET"}, Source: "the default: the store of this host, which margay standalone runs, for root alone"}},
		{name: "endpoints", env: map[string]string{"ETCD_ENDPOINTS": "http://a:2379, http://b:2379,"},
			want: StoreConfig{Type: TypeEtcd, Endpoints: []string{"http://a:2379", "http://b:2379"}, Source: "the environment (ETCD_ENDPOINTS)"}},
		{name: "all of the environment", env: map[string]string{"DATASTORE_TYPE": "etcdv3", "ETCD_DISCOVERY_SRV": "example.org", "ETCD_USERNAME": "u",
			"ETCD_PASSWORD": "p", "ETCD_KEY_FILE": "k", "ETCD_CERT_FILE": "c", "ETCD_CA_CERT_FILE": "a"},
			want: StoreConfig{Type: TypeEtcd, DiscoverySRV: "example.org", Username: "u", Password: "p", KeyFile: "k", CertFile: "c", CAFile: "a",
				Source: "the environment (DATASTORE_TYPE, ETCD_DISCOVERY_SRV, ETCD_USERNAME, ETCD_PASSWORD, ETCD_KEY_FILE, ETCD_CERT_FILE, ETCD_CA_CERT_FILE)"}},
		{name: "the prefix wins", env: map[string]string{"CALICO_ETCD_ENDPOINTS": "http://a:1", "ETCD_ENDPOINTS": "http://b:1"},
			want: StoreConfig{Type: TypeEtcd, Endpoints: []string{"http://a:1"}, Source: "the environment (CALICO_ETCD_ENDPOINTS)"}},
		{name: "type without endpoints", env: map[string]string{"DATASTORE_TYPE": "etcdv3"}, wantErr: "no etcd endpoints specified"},
		{name: "unknown type", env: map[string]string{"DATASTORE_TYPE": "zookeeper"}, wantErr: `unknown datastore type "zookeeper"`},
		{name: "discovery alone is etcd", env: map[string]string{"ETCD_DISCOVERY_SRV": "example.org"},
			want: StoreConfig{Type: TypeEtcd, DiscoverySRV: "example.org", Source: "the environment (ETCD_DISCOVERY_SRV)"}},
		{name: "Kubernetes around the process", env: map[string]string{"DATASTORE_TYPE": "kubernetes"},
			want: StoreConfig{Type: TypeKubernetes, Source: "the environment (DATASTORE_TYPE)"}},
		{name: "kubectl's file", env: map[string]string{"DATASTORE_TYPE": "kubernetes", "HOME": "HOME"},
			want: StoreConfig{Type: TypeKubernetes, Kubernetes: KubernetesConfig{Kubeconfig: "HOME/.kube/config"}, Source: "the environment (DATASTORE_TYPE)"}},
		{name: "kubectl's file, when nothing else is there", env: map[string]string{"HOME": "HOME"},
			want: StoreConfig{Type: TypeKubernetes, Kubernetes: KubernetesConfig{Kubeconfig: "HOME/.kube/config"}, Source: "the default (HOME/.kube/config)"}},
		{name: "a store here beats kubectl's file", socket: true, env: map[string]string{"HOME": "HOME"},
			want: StoreConfig{Type: TypeEtcd, Endpoints: []string{"unix://SOCKET"}, Source: "the default: the store of this host, which margay standalone runs, for root alone"}},
		{name: "a server beats kubectl's file", env: map[string]string{"HOME": "HOME", "K8S_API_ENDPOINT": "https://a:6443"},
			want: StoreConfig{Type: TypeKubernetes, Kubernetes: KubernetesConfig{Endpoint: "https://a:6443"}, Source: "the environment (K8S_API_ENDPOINT)"}},
		{name: "all of the environment, Kubernetes", env: map[string]string{"KUBECONFIG": "f", "K8S_API_ENDPOINT": "https://a:6443", "K8S_KEY_FILE": "k",
			"K8S_CERT_FILE": "c", "K8S_CA_FILE": "a", "K8S_INSECURE_SKIP_TLS_VERIFY": "true", "K8S_DISABLE_NODE_POLL": "true", "USE_POD_CIDR": "true",
			"K8S_CLIENT_QPS": "1.5", "K8S_CLIENT_BURST": "7", "K8S_CURRENT_CONTEXT": "x", "CALICO_API_GROUP": "projectcalico.org/v3"},
			want: StoreConfig{Type: TypeKubernetes, Kubernetes: KubernetesConfig{Kubeconfig: "f", Endpoint: "https://a:6443", KeyFile: "k", CertFile: "c",
				CAFile: "a", Insecure: true, QPS: 1.5, Burst: 7, Context: "x", APIGroup: "projectcalico.org/v3"},
				Source: "the environment (KUBECONFIG, K8S_API_ENDPOINT, K8S_KEY_FILE, K8S_CERT_FILE, K8S_CA_FILE, K8S_INSECURE_SKIP_TLS_VERIFY, " +
					"K8S_DISABLE_NODE_POLL, USE_POD_CIDR, K8S_CLIENT_QPS, K8S_CLIENT_BURST, K8S_CURRENT_CONTEXT, CALICO_API_GROUP)"}},
		{name: "--context beats the environment", context: "y", env: map[string]string{"KUBECONFIG": "f", "K8S_CURRENT_CONTEXT": "x"},
			want: StoreConfig{Type: TypeKubernetes, Kubernetes: KubernetesConfig{Kubeconfig: "f", Context: "y"},
				Source: "the environment (KUBECONFIG, K8S_CURRENT_CONTEXT, --context)"}},
		{name: "--context alone", context: "y", socket: true,
			want: StoreConfig{Type: TypeKubernetes, Kubernetes: KubernetesConfig{Context: "y"}, Source: "the environment (--context)"}},
		{name: "no number", env: map[string]string{"CALICO_K8S_CLIENT_BURST": "x"}, wantErr: "read the environment: CALICO_K8S_CLIENT_BURST: strconv.Atoi"},
		{name: "no switch", env: map[string]string{"USE_POD_CIDR": "maybe"}, wantErr: "read the environment: USE_POD_CIDR: strconv.ParseBool"},
		{name: "both discoveries", env: map[string]string{"DATASTORE_TYPE": "etcdv3", "ETCD_ENDPOINTS": "http://a:1", "ETCD_DISCOVERY_SRV": "example.org"},
			wantErr: "multiple discovery or bootstrap options specified"},

		{name: "file", file: configText("datastoreType: etcdv3", "etcdEndpoints: https://a:2379", "etcdKey: K", "etcdCert: C", "etcdCACert: A"),
			want: StoreConfig{Type: TypeEtcd, Endpoints: []string{"https://a:2379"}, Key: "K", Cert: "C", CA: "A", Source: "file FILE"}},
		{name: "file beats environment", file: configText("etcdEndpoints: http://a:1"), env: map[string]string{"ETCD_ENDPOINTS": "http://b:1", "ETCD_USERNAME": "u"},
			want: StoreConfig{Type: TypeEtcd, Endpoints: []string{"http://a:1"},
				Source: "file FILE, which exists, so that ETCD_ENDPOINTS, ETCD_USERNAME in the environment has no effect"}},
		{name: "file in JSON", file: `{"apiVersion":"projectcalico.org/v3","kind":"CalicoAPIConfig","spec":{"etcdEndpoints":"http://a:1"}}`,
			want: StoreConfig{Type: TypeEtcd, Endpoints: []string{"http://a:1"}, Source: "file FILE"}},
		{name: "file for Kubernetes", context: "y", file: configText("datastoreType: kubernetes", "kubeconfigInline: T", "k8sAPIToken: S", "k8sClientQPS: 1.5",
			"k8sClientBurst: 7", "k8sInsecureSkipTLSVerify: true", "k8sCurrentContext: x", "calicoAPIGroup: crd.projectcalico.org/v1", "usePodCIDR: true"),
			want: StoreConfig{Type: TypeKubernetes, Kubernetes: KubernetesConfig{Inline: "T", Token: "S", QPS: 1.5, Burst: 7, Insecure: true, Context: "y",
				APIGroup: "crd.projectcalico.org/v1"}, Source: "file FILE"}},
		{name: "file without anything", file: configText("etcdUsername: u"), want: StoreConfig{Type: TypeKubernetes, Source: "file FILE"}},
		{name: "wrong version", file: "apiVersion: v1\nkind: CalicoAPIConfig\n", wantErr: "syntax error in FILE: invalid config file: unknown APIVersion 'v1'"},
		{name: "wrong kind", file: "apiVersion: projectcalico.org/v3\nkind: X\n", wantErr: "invalid config file: expected kind 'CalicoAPIConfig', got 'X'"},
		{name: "unknown field", file: configText("etcdEndpoint: http://a:1"), wantErr: "syntax error in FILE: field in document is not recognized or is in the wrong location: etcdEndpoint"},
		{name: "wrong type of a field", file: configText("etcdEndpoints: [a]"), wantErr: "cannot unmarshal array into Go struct field"},
		{name: "no YAML", file: "{", wantErr: "syntax error in FILE"},
		{name: "files and inline", file: configText("etcdEndpoints: http://a:1", "etcdKey: K", "etcdCertFile: c"), wantErr: "both as files and inline"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			dir := t.TempDir()
			path, socket := filepath.Join(dir, "calicoctl.cfg"), filepath.Join(dir, "store.sock")
			if tc.file != "" {
				writeFile(t, path, tc.file)
			}
			writeFile(t, filepath.Join(dir, ".kube", "config"), "{}")
			if tc.socket {
				writeFile(t, socket, "")
			}
			getenv := func(name string) string { return strings.ReplaceAll(tc.env[name], "HOME", dir) }
			c := &cli{env: Env{Getenv: getenv, ConfigFile: path, Socket: socket}, context: tc.context}
			got, err := c.loadConfig(path)
			short := strings.NewReplacer(path, "FILE", socket, "SOCKET", dir, "HOME")
			if err != nil {
				if tc.wantErr == "" || !strings.Contains(short.Replace(err.Error()), tc.wantErr) {
					t.Errorf("error %q, want %q", short.Replace(err.Error()), tc.wantErr)
				}
				return
			}
			got.Source, got.Kubernetes.Kubeconfig = short.Replace(got.Source), short.Replace(got.Kubernetes.Kubeconfig)
			for i := range got.Endpoints {
				got.Endpoints[i] = short.Replace(got.Endpoints[i])
			}
			if diff := cmp.Diff(tc.want, got); diff != "" || tc.wantErr != "" {
				t.Errorf("want error %q; -want +got:\n%s", tc.wantErr, diff)
			}
		})
	}
}

func writeFile(t *testing.T, path, text string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

// TestStoreThatStarts: the line after the one that starts the store does not fail because it was faster.
func TestStoreThatStarts(t *testing.T) {
	dir := t.TempDir()
	socket, looks := filepath.Join(dir, "s"), 0
	c := newCLI(Env{
		Socket: socket, ConfigFile: filepath.Join(dir, "none"),
		Getenv: func(name string) string {
			if name == "KUBERNETES_SERVICE_HOST" { // asked last, when there is no socket
				if looks++; looks == 2 {
					if err := os.WriteFile(socket, nil, 0o600); err != nil {
						t.Error(err)
					}
				}
			}
			return ""
		},
		OpenStore: func(context.Context, StoreConfig) (store.Store, error) { return nil, nil },
	})
	c.allowMismatch, c.timeout = true, time.Minute
	s, err := c.openForWork(t.Context(), storeFlags{c.env.ConfigFile})
	if err != nil || looks != 2 || s.cfg.Endpoints[0] != "unix://"+socket {
		t.Errorf("after %d looks: %+v, %v", looks, s, err)
	}
}
