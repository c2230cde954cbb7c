package ctl

import (
	"context"
	"crypto/tls"
	"fmt"
	"net/url"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"
	"go.etcd.io/etcd/client/pkg/v3/transport"
	clientv3 "go.etcd.io/etcd/client/v3"
	etcdserver "go.etcd.io/etcd/server/v3/embed"

	"margay/store/etcd"
	"margay/store/storetest"
)

// TestScriptOnEtcd runs the stories that do not say themselves where the datastore is on an etcd server as its own package
// starts it: by TLS with certificates of clients, with users and passwords, one of two endpoints away, all of which the CLI
// has from its configuration file.
func TestScriptOnEtcd(t *testing.T) {
	var files []string
	for _, name := range []string{"apply", "create", "delete", "diff", "get", "input", "isolation", "label", "network", "patch", "replace", "states",
		"status", "unknown", "wait"} {
		files = append(files, filepath.Join("testdata", "script", name+".txtar"))
	}
	ca := storetest.NewAuthority(t)
	cert, key := ca.Issue(t)
	access := access{ca: ca.PEM, cert: cert, key: key}
	testscript.Run(t, testscript.Params{
		Files: files, RequireExplicitExec: true, Cmds: scriptCommands(),
		Setup: func(env *testscript.Env) error { return access.setUp(t, env) },
	})
}

// An access is what server and clients show each other.
type access struct{ ca, cert, key []byte }

// setUp starts the script's server, makes its user, and writes the configuration of the CLI.
func (a access) setUp(t *testing.T, env *testscript.Env) error {
	for name, text := range map[string][]byte{"ca.crt": a.ca, "server.crt": a.cert, "server.key": a.key} {
		writeFile(t, filepath.Join(env.WorkDir, "tls", name), string(text))
	}
	endpoint, err := startMember(env)
	if err != nil {
		return err
	}
	config, err := etcd.TLSConfig(etcd.TLSFiles{CA: a.ca, Cert: a.cert, Key: a.key})
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	if err := addUser(ctx, endpoint, config); err != nil {
		return err
	}
	s, err := etcd.Open(ctx, etcd.Config{Endpoints: []string{endpoint}, TLS: config, Username: "calico", Password: "pass:word"})
	if err != nil {
		return err
	}
	env.Defer(func() { _ = s.Close() })
	env.Values[serverKey{}] = &backend{s, func() (*clientv3.Client, error) {
		return clientv3.New(clientv3.Config{Endpoints: []string{endpoint}, TLS: config, Username: "calico", Password: "pass:word", DialTimeout: 20 * time.Second})
	}}
	env.Values[agentsKey{}] = map[string]func(){}
	cfg := configText("etcdEndpoints: https://127.0.0.1:1,"+endpoint, "etcdUsername: calico", "etcdPassword: pass:word",
		"etcdCACert: "+inline(a.ca), "etcdCert: "+inline(a.cert), "etcdKey: "+inline(a.key))
	writeFile(t, filepath.Join(env.WorkDir, "tls", "calicoctl.cfg"), cfg)
	env.Setenv("CONFIG", filepath.Join(env.WorkDir, "tls", "calicoctl.cfg"))
	env.Setenv("SOCKET", filepath.Join(env.WorkDir, "none.sock"))
	env.Setenv("HOME", env.WorkDir)
	return nil
}

// inline is a PEM text as a literal of YAML.
func inline(pem []byte) string {
	return "|\n    " + strings.ReplaceAll(strings.TrimSpace(string(pem)), "\n", "\n    ")
}

// startMember starts an etcd server of one member, and returns its endpoint.
func startMember(env *testscript.Env) (string, error) {
	cfg := etcdserver.NewConfig()
	cfg.Dir, cfg.BcryptCost = filepath.Join(env.WorkDir, "etcd"), 4
	cfg.LogOutputs, cfg.LogLevel = []string{"/dev/null"}, "panic"
	file := func(name string) string { return filepath.Join(env.WorkDir, "tls", name) }
	cfg.ClientTLSInfo = transport.TLSInfo{CertFile: file("server.crt"), KeyFile: file("server.key"), TrustedCAFile: file("ca.crt"), ClientCertAuth: true}
	anyPort := func(scheme string) []url.URL { return []url.URL{{Scheme: scheme, Host: "127.0.0.1:0"}} }
	cfg.ListenClientUrls, cfg.AdvertiseClientUrls, cfg.ListenPeerUrls = anyPort("https"), anyPort("https"), anyPort("http")
	cfg.InitialCluster = cfg.InitialClusterFromName(cfg.Name)
	server, err := etcdserver.StartEtcd(cfg)
	if err != nil {
		return "", err
	}
	env.Defer(server.Close)
	select {
	case <-server.Server.ReadyNotify():
		return "https://" + server.Clients[0].Addr().String(), nil
	case <-time.After(30 * time.Second):
		return "", fmt.Errorf("etcd is not ready")
	}
}

// addUser makes a user who may read and write below /calico/ and nothing else, and turns access control on.
func addUser(ctx context.Context, endpoint string, config *tls.Config) error {
	c, err := clientv3.New(clientv3.Config{Endpoints: []string{endpoint}, TLS: config})
	if err != nil {
		return err
	}
	defer func() { _ = c.Close() }()
	for _, step := range []func() error{
		func() error { _, err := c.UserAdd(ctx, "root", "secret"); return err },
		func() error { _, err := c.UserGrantRole(ctx, "root", "root"); return err },
		func() error { _, err := c.RoleAdd(ctx, "calico"); return err },
		func() error {
			_, err := c.RoleGrantPermission(ctx, "calico", "/calico/", clientv3.GetPrefixRangeEnd("/calico/"), clientv3.PermissionType(clientv3.PermReadWrite))
			return err
		},
		func() error { _, err := c.UserAdd(ctx, "calico", "pass:word"); return err },
		func() error { _, err := c.UserGrantRole(ctx, "calico", "calico"); return err },
		func() error { _, err := c.AuthEnable(ctx); return err },
	} {
		if err := step(); err != nil {
			return err
		}
	}
	return nil
}
