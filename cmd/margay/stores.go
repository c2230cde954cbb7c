package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"

	v3 "margay/api/v3"
	"margay/ctl"
	"margay/node"
	"margay/node/params"
	"margay/ruleset"
	"margay/store"
	"margay/store/etcd"
	"margay/store/kube"
)

// openForCLI connects the CLI to its datastore.
func openForCLI(ctx context.Context, c ctl.StoreConfig) (store.Store, error) {
	if c.Type == ctl.TypeKubernetes {
		return openKubernetes(ctx, c)
	}
	endpoints, err := c.ResolveEndpoints(ctx)
	if err != nil {
		return nil, err
	}
	return openEtcd(ctx, etcd.Config{Endpoints: endpoints, Username: c.Username, Password: c.Password, RequestTimeout: c.Patience}, etcd.TLSFiles{
		CAFile: c.CAFile, CertFile: c.CertFile, KeyFile: c.KeyFile,
		CA: []byte(c.CA), Cert: []byte(c.Cert), Key: []byte(c.Key),
	})
}

// openKubernetes connects the CLI to the API of Kubernetes.
func openKubernetes(ctx context.Context, c ctl.StoreConfig) (store.Store, error) {
	k := c.Kubernetes
	verify := kube.VerifyServer
	if k.Insecure {
		verify = kube.InsecureSkipVerify
	}
	return opened(kube.Open(ctx, kube.Config{
		Kubeconfig: k.Kubeconfig, Inline: k.Inline, Context: k.Context, Server: k.Endpoint, CAFile: k.CAFile, CertFile: k.CertFile,
		KeyFile: k.KeyFile, Token: k.Token, Verify: verify, QPS: k.QPS, Burst: k.Burst, Group: k.APIGroup,
		RequestTimeout: c.Patience, StatusNamespace: os.Getenv(envStatusNamespace), UserAgent: userAgent("ctl"),
	}))
}

// envStatusNamespace names the variable with the namespace that agents report in, with a Kubernetes datastore.
const envStatusNamespace = "MARGAY_STATUS_NAMESPACE"

func userAgent(part string) string { return "margay-" + part + "/" + version }

// kubernetesFor connects a daemon to the API of Kubernetes.
func kubernetesFor(ctx context.Context, part string, log *slog.Logger) (store.Store, error) {
	return opened(kube.Open(ctx, kubernetesConfig(part, log)))
}

// kubernetesConfig says how a daemon reaches the API of Kubernetes: as the environment says, else as its pod's service
// account.
func kubernetesConfig(part string, log *slog.Logger) kube.Config {
	get := func(name string) string { return cmp.Or(os.Getenv("CALICO_"+name), os.Getenv(name)) }
	return kube.Config{
		Kubeconfig: get("KUBECONFIG"), Context: get("K8S_CURRENT_CONTEXT"), Server: get("K8S_API_ENDPOINT"),
		CAFile: get("K8S_CA_FILE"), CertFile: get("K8S_CERT_FILE"), KeyFile: get("K8S_KEY_FILE"), Token: get("K8S_API_TOKEN"),
		Group: os.Getenv("CALICO_API_GROUP"), StatusNamespace: os.Getenv(envStatusNamespace),
		InterfacePrefix: os.Getenv("FELIX_INTERFACEPREFIX"), UserAgent: userAgent(part), Log: log,
	}
}

// opened returns no store beside an error.
func opened[S store.Store](s S, err error) (store.Store, error) {
	if err != nil {
		return nil, err
	}
	return s, nil
}

// settingsFor returns what an agent would resolve without a file and an environment of its own.
func settingsFor(node string, configs []*v3.FelixConfiguration, labels map[string]string) ruleset.Settings {
	p, _ := params.Resolve(params.Sources{Host: node, Resources: configs, NodeLabels: labels})
	return p.Settings()
}

// openForNode connects the agent to typha if it has its address or its service, else to Kubernetes if that is its datastore, else to etcd;
// without endpoints, to the store of this host if there is one.
func openForNode(ctx context.Context, c node.StoreConfig) (store.Store, error) {
	if c.Typha.Address != "" || c.Typha.Service != "" {
		return openTypha(c.Typha)
	}
	switch c.Type {
	case ctl.TypeKubernetes:
		return kubernetesFor(ctx, "node", newLog())
	case "", ctl.TypeEtcd:
	default:
		return nil, fmt.Errorf("datastore type %q is not supported (use %s or %s)", c.Type, ctl.TypeEtcd, ctl.TypeKubernetes)
	}
	if len(c.Endpoints) == 0 {
		c.Endpoints = []string{"unix://" + ctl.DefaultSocket}
		if _, err := os.Stat(ctl.DefaultSocket); errors.Is(err, fs.ErrNotExist) {
			c.Endpoints = []string{"http://127.0.0.1:2379"} // Felix's default
		}
	}
	return openEtcd(ctx, etcd.Config{Endpoints: c.Endpoints, Username: c.Username, Password: c.Password},
		etcd.TLSFiles{CAFile: c.CAFile, CertFile: c.CertFile, KeyFile: c.KeyFile})
}

func openEtcd(ctx context.Context, cfg etcd.Config, files etcd.TLSFiles) (store.Store, error) {
	var err error
	if cfg.TLS, err = etcd.TLSConfig(files); err != nil {
		return nil, err
	}
	return opened(etcd.Open(ctx, cfg))
}
