package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"

	v3 "margay/api/v3"
	"margay/ctl"
	"margay/node"
	"margay/node/params"
	"margay/ruleset"
	"margay/store"
	"margay/store/etcd"
)

// openForCLI connects the CLI to its datastore.
func openForCLI(ctx context.Context, c ctl.StoreConfig) (store.Store, error) {
	if c.Type == ctl.TypeKubernetes {
		return openKubernetes(ctx, c.Kubernetes)
	}
	endpoints, err := c.ResolveEndpoints(ctx)
	if err != nil {
		return nil, err
	}
	return openEtcd(ctx, etcd.Config{Endpoints: endpoints, Username: c.Username, Password: c.Password}, etcd.TLSFiles{
		CAFile: c.CAFile, CertFile: c.CertFile, KeyFile: c.KeyFile,
		CA: []byte(c.CA), Cert: []byte(c.Cert), Key: []byte(c.Key),
	})
}

// openKubernetes is where the Kubernetes datastore belongs.
func openKubernetes(context.Context, ctl.KubernetesConfig) (store.Store, error) {
	return nil, fmt.Errorf("datastore type %s is not in this build yet (for etcd, set DATASTORE_TYPE or datastoreType to %s and name "+
		"its endpoints by ETCD_ENDPOINTS or etcdEndpoints)", ctl.TypeKubernetes, ctl.TypeEtcd)
}

// settingsFor returns what an agent would resolve without a file and an environment of its own.
func settingsFor(node string, configs []*v3.FelixConfiguration, labels map[string]string) ruleset.Settings {
	p, _ := params.Resolve(params.Sources{Host: node, Resources: configs, NodeLabels: labels})
	return p.Settings()
}

// openForNode connects the agent to typha if it has its address, else to etcd; without endpoints, to the store of this
// host if there is one.
func openForNode(ctx context.Context, c node.StoreConfig) (store.Store, error) {
	if c.Typha.Address != "" {
		return openTypha(c.Typha)
	}
	if c.Type != "" && c.Type != ctl.TypeEtcd {
		return nil, fmt.Errorf("datastore type %q is not supported by this build (use %s)", c.Type, ctl.TypeEtcd)
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
	return etcd.Open(ctx, cfg)
}
