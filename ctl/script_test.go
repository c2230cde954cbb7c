package ctl

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"
	clientv3 "go.etcd.io/etcd/client/v3"

	v3 "margay/api/v3"
	"margay/store"
	"margay/store/embed"
	"margay/store/etcd"
)

// The scripts run the test binary as margay and calicoctl, in processes of their own, against an embedded store of the
// script's own.
func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){
		"margay":    func() { os.Exit(run("margay")) },
		"calicoctl": func() { os.Exit(run("calicoctl")) },
		// kubectl's plugin
		"kubectl-calico": func() { os.Exit(run("kubectl-calico")) },
	})
}

// run is what cmd/margay does, with the fixed paths replaced.
func run(name string) int {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	env := Env{
		Name: name, Version: "v0.1.0", Commit: "abc1234",
		Stdin: os.Stdin, Stdout: os.Stdout, Stderr: os.Stderr, Getenv: os.Getenv,
		OpenStore: func(ctx context.Context, cfg StoreConfig) (store.Store, error) {
			if cfg.Type == TypeKubernetes {
				return nil, fmt.Errorf("no Kubernetes here: %s", cfg)
			}
			tls, err := etcd.TLSConfig(etcd.TLSFiles{CAFile: cfg.CAFile, CertFile: cfg.CertFile, KeyFile: cfg.KeyFile,
				CA: []byte(cfg.CA), Cert: []byte(cfg.Cert), Key: []byte(cfg.Key)})
			if err != nil {
				return nil, err
			}
			return etcd.Open(ctx, etcd.Config{Endpoints: cfg.Endpoints, Username: cfg.Username, Password: cfg.Password, TLS: tls,
				RequestTimeout: cfg.Patience})
		},
		ConfigFile: os.Getenv("CONFIG"), Socket: os.Getenv("SOCKET"), AgentSocket: os.Getenv("AGENT"),
		Settings: nodeSettings,
	}
	root := NewCommand(env)
	root.AddCommand(NewNodeGroup(env, Host{Root: os.Getenv("ROOT")}))
	return Execute(ctx, root)
}

func TestScript(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir: "testdata/script", RequireExplicitExec: true, Setup: setUp, Cmds: scriptCommands(),
	})
}

func scriptCommands() map[string]func(*testscript.TestScript, bool, []string) {
	return map[string]func(*testscript.TestScript, bool, []string){
		"put":    put,
		"report": reportStatus,
		"agent":  runAgent,
		"stored": stored,
		"codes":  exitCode,
		"second": secondStore,
		"bundle": inBundle,
		"expand": expand,
	}
}

type serverKey struct{}

// A backend is a script's datastore, as anybody but the CLI reaches it.
type backend struct {
	store  store.Store
	client func() (*clientv3.Client, error)
}

// startStore starts a store in a directory.
func startStore(dir, name string, atEnd func(func())) (*backend, string, error) {
	socket := filepath.Join(dir, name+".sock")
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	server, err := embed.Start(ctx, embed.Config{Dir: filepath.Join(dir, name), Socket: socket, Listen: []string{}})
	if err != nil {
		return nil, "", err
	}
	atEnd(func() { _ = server.Close() })
	return &backend{server.Store(), func() (*clientv3.Client, error) {
		return clientv3.New(clientv3.Config{Endpoints: []string{"unix://" + socket}, DialTimeout: 5 * time.Second})
	}}, socket, nil
}

// secondStore makes $SOCKET that of another, empty store.
func secondStore(ts *testscript.TestScript, _ bool, _ []string) {
	second, socket, err := startStore(ts.Getenv("WORK"), "second", ts.Defer)
	ts.Check(err)
	*ts.Value(serverKey{}).(*backend) = *second
	ts.Setenv("SOCKET", socket)
}

// setUp starts the script's store at $SOCKET, which is where the CLI looks when nothing is configured.
func setUp(env *testscript.Env) error {
	server, socket, err := startStore(env.WorkDir, "store", env.Defer)
	if err != nil {
		return err
	}
	env.Values[serverKey{}] = server
	env.Values[agentsKey{}] = map[string]func(){}
	env.Setenv("SOCKET", socket)
	env.Setenv("CONFIG", filepath.Join(env.WorkDir, "calicoctl.cfg"))
	env.Setenv("HOME", env.WorkDir)
	env.Setenv("ROOT", env.WorkDir)
	return nil
}

// put writes a file's content under a key of etcd, as anybody may: put KEY FILE.
func put(ts *testscript.TestScript, _ bool, args []string) {
	client, err := ts.Value(serverKey{}).(*backend).client()
	ts.Check(err)
	defer func() { _ = client.Close() }()
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	_, err = client.Put(ctx, args[0], ts.ReadFile(args[1]))
	ts.Check(err)
}

// reportStatus reports a status as an agent does: report FILE. In the file, LATEST is the store's revision now.
func reportStatus(ts *testscript.TestScript, _ bool, args []string) {
	var status store.NodeStatus
	ts.Check(json.Unmarshal([]byte(ts.ReadFile(args[0])), &status))
	s := ts.Value(serverKey{}).(*backend).store
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	if status.Enforced == "LATEST" {
		all, err := s.List(ctx, "")
		ts.Check(err)
		status.Enforced = all.Revision
	}
	status.Time = time.Now().UTC().Format(time.RFC3339)
	ts.Check(s.ReportStatus(ctx, status))
}

type agentsKey struct{}

// runAgent reports as an agent does that follows the store with a delay: agent NODE DELAY [FAULT]. It replaces the one of
// that node before.
func runAgent(ts *testscript.TestScript, _ bool, args []string) {
	agents := ts.Value(agentsKey{}).(map[string]func())
	if stop := agents[args[0]]; stop != nil {
		stop()
	}
	delay, err := time.ParseDuration(args[1])
	ts.Check(err)
	s := ts.Value(serverKey{}).(*backend).store
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	stop := func() { cancel(); <-done }
	agents[args[0]] = stop
	ts.Defer(stop)
	ts.Check(s.ReportStatus(ctx, store.NodeStatus{Node: args[0], Enforced: "1", Ready: true}))
	go func() {
		defer close(done)
		_ = store.Follow(ctx, s, v3.AgentKinds(), func(b store.Batch) error {
			select {
			case <-ctx.Done():
				return ctx.Err()
			case <-time.After(delay):
			}
			return s.ReportStatus(ctx, store.NodeStatus{Node: args[0], Enforced: b.Revision, Ready: true, Faults: args[2:],
				Time: time.Now().UTC().Format(time.RFC3339)})
		})
	}()
}

// stored writes what is stored under a key of etcd to a file: stored KEY FILE. There is nothing if nothing is stored.
func stored(ts *testscript.TestScript, _ bool, args []string) {
	client, err := ts.Value(serverKey{}).(*backend).client()
	ts.Check(err)
	defer func() { _ = client.Close() }()
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	resp, err := client.Get(ctx, args[0])
	ts.Check(err)
	var value []byte
	for _, kv := range resp.Kvs {
		var tree any
		ts.Check(json.Unmarshal(kv.Value, &tree))
		value, err = json.MarshalIndent(tree, "", "  ")
		ts.Check(err)
		value = append(value, '\n')
	}
	ts.Check(os.WriteFile(ts.MkAbs(args[1]), value, 0o600))
}

// exitCode runs a command, and prints its exit code as the standard output of a command: codes COMMAND ARGS.
func exitCode(ts *testscript.TestScript, _ bool, args []string) {
	code := "0"
	if err := ts.Exec(args[0], args[1:]...); err != nil {
		code = strings.TrimPrefix(err.Error(), "exit status ")
	}
	ts.Check(ts.Exec("echo", code))
}

// inBundle checks that a file of the only bundle in the directory matches: bundle NAME REGEXP.
func inBundle(ts *testscript.TestScript, _ bool, args []string) {
	bundles, err := filepath.Glob(ts.MkAbs("calico-diagnostics-*.tar.gz"))
	ts.Check(err)
	if len(bundles) != 1 {
		ts.Fatalf("%d bundles", len(bundles))
	}
	root := strings.TrimSuffix(filepath.Base(bundles[0]), ".tar.gz")
	ts.Check(ts.Exec("tar", "-xzOf", bundles[0], root+"/"+args[0]))
	if text := ts.ReadFile("stdout"); !regexp.MustCompile(args[1]).MatchString(text) {
		ts.Fatalf("%s holds no %q:\n%s", args[0], args[1], text)
	}
}

// expand replaces variables of the script's environment in a file: expand FILE.
func expand(ts *testscript.TestScript, _ bool, args []string) {
	text := os.Expand(ts.ReadFile(args[0]), ts.Getenv)
	ts.Check(os.WriteFile(ts.MkAbs(args[0]), []byte(text), 0o600))
}
