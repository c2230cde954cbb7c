package ctl

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/spf13/cobra"

	v3 "margay/api/v3"
	"margay/ruleset"
	"margay/store"
)

// files makes a directory with files of these contents.
func files(t *testing.T, contents map[string]string) string {
	t.Helper()
	root := t.TempDir()
	for name, text := range contents {
		path := filepath.Join(root, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return root
}

// nodeCommand runs node with arguments on a host.
func nodeCommand(t *testing.T, host Host, s store.Store, args ...string) (out string, code int) {
	t.Helper()
	var b bytes.Buffer
	env := Env{
		Name: "margay", Stdout: &b, Stderr: &b, ConfigFile: "none", AgentSocket: filepath.Join(t.TempDir(), "none"),
		Getenv: func(name string) string {
			return map[string]string{"ETCD_ENDPOINTS": "http://127.0.0.1:1", "NODENAME": "node1"}[name]
		},
		OpenStore: func(context.Context, StoreConfig) (store.Store, error) {
			if s == nil {
				return nil, errors.New("no store here")
			}
			return s, nil
		},
	}
	root := NewCommand(env)
	node := &cobra.Command{Use: "node"}
	node.AddCommand(NewNodeCommands(env, host)...)
	root.AddCommand(node)
	root.SetArgs(append([]string{"node"}, args...))
	code = Execute(t.Context(), root)
	return b.String(), code
}

func TestIsAgent(t *testing.T) {
	for line, want := range map[string]bool{
		"margay node": true, "/usr/bin/margay standalone --dir x": true, "margay node --state-dir x": true, "calico-felix": true,
		"calico-node -felix": true, "calico-node -confd": false, "margay node show": false, "margay node status": false,
		"margay": false, "vi margay node": false, "": false, "margay apply": false,
	} {
		if got := isAgent(strings.Split(line, " ")); got != want {
			t.Errorf("%q: %v", line, got)
		}
	}
}

// A statusStore is a store with what nodes report.
type statusStore struct {
	store.Store
	statuses []store.NodeStatus
}

func (s *statusStore) List(context.Context, string, ...v3.Kind) (*store.List, error) {
	return &store.List{Revision: "9"}, nil
}
func (s *statusStore) LastChange(context.Context, ...v3.Kind) (store.Revision, error) {
	return "8", nil
}
func (s *statusStore) Reached(r, goal store.Revision) bool { return r >= goal }
func (s *statusStore) Statuses(context.Context) ([]store.NodeStatus, error) {
	return s.statuses, nil
}
func (s *statusStore) Close() error { return nil }

func TestNodeStatus(t *testing.T) {
	running := Host{Root: files(t, map[string]string{"proc/17/cmdline": "margay\x00node\x00", "proc/1/cmdline": ""})}
	idle := Host{Root: files(t, map[string]string{"proc/17/cmdline": "margay\x00node\x00status\x00"})}
	report := store.NodeStatus{Node: "node1", Enforced: "7", Ready: true, Detail: "all is well", Version: "v0.1.0", Time: "x",
		Faults: []string{"GlobalNetworkPolicy(x): bad"}, Unused: []string{"environment FELIX_BPFENABLED: this agent does not use it"},
		Warnings: []string{"GlobalNetworkPolicy(y): nothing opens it"}}
	for _, c := range []struct {
		name string
		host Host
		s    store.Store
		want string
		code int
	}{
		{"does not run", idle, nil, "Calico process is not running.\n", 1},
		{"no proc", Host{Root: t.TempDir()}, nil, "find the agent: no process is to be seen below PROC\n", 1},
		{"no store", running, nil, "Calico process is running.\n\nWhat it reports is not known: Failed to create Calico API client: " +
			"no store here; the settings come from the environment (ETCD_ENDPOINTS)\n\nThe BGP backend process (BIRD) is not running.\n\n", 0},
		{"other node", running, &statusStore{statuses: []store.NodeStatus{{Node: "node2"}}}, "Calico process is running.\n\nWhat it reports is not known: " +
			"no agent reports to http://127.0.0.1:1 as node node1 (those that do: node2; name the node of this host by NODENAME)\n\nThe BGP backend process (BIRD) is not running.\n\n", 0},
		{"everything", running, &statusStore{statuses: []store.NodeStatus{report}}, `Calico process is running.

Node:       node1
Version:    v0.1.0
Reported:   x
Ready:      yes
In force:   no (revision 7, last change 8)
Detail:     all is well

Stored objects that it cannot use, of which the last good version stays in force:
  GlobalNetworkPolicy(x): bad

Parameters that are set and have no effect:
  environment FELIX_BPFENABLED: this agent does not use it

Warnings about the policy that is in force:
  GlobalNetworkPolicy(y): nothing opens it

The BGP backend process (BIRD) is not running.

`, 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			got, code := nodeCommand(t, c.host, c.s, "status")
			got = strings.ReplaceAll(got, filepath.Join(c.host.Root, "proc"), "PROC")
			if diff := cmp.Diff(c.want, got); diff != "" || code != c.code {
				t.Errorf("exit %d, -want +got:\n%s", code, diff)
			}
		})
	}
}

// TestNodeStatusAsksTheAgent has an agent whose name is not that of the environment.
func TestNodeStatusAsksTheAgent(t *testing.T) {
	running := Host{Root: files(t, map[string]string{"proc/17/cmdline": "margay\x00node\x00"})}
	s := &statusStore{statuses: []store.NodeStatus{{Node: "node7", Version: "v7"}}}
	var b bytes.Buffer
	c := newCLI(Env{
		Stdout: &b, Stderr: &b, ConfigFile: "none", AgentSocket: serveState(t, `{"node": "node7"}`),
		Getenv: func(name string) string {
			return map[string]string{"ETCD_ENDPOINTS": "http://127.0.0.1:1", "NODENAME": "node1"}[name]
		},
		OpenStore: func(context.Context, StoreConfig) (store.Store, error) { return s, nil },
	})
	cmd := c.nodeStatusCommand(running)
	cmd.SetArgs(nil)
	cmd.SetContext(t.Context())
	if err := cmd.RunE(cmd, nil); err != nil || !strings.Contains(b.String(), "Node:       node7\n") {
		t.Errorf("%v\n%s", err, &b)
	}
}

func TestCheckSystem(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Fatal("run this as root")
	}
	const all = "CONFIG_NF_TABLES=y\nCONFIG_NF_TABLES_INET=y\n# CONFIG_X is not set\nCONFIG_NF_CONNTRACK=m\nCONFIG_NFT_CT=m\nCONFIG_NFT_LOG=m\nCONFIG_NETFILTER_NETLINK_LOG=y\nCONFIG_NFT_REJECT=m\n"
	host := func(release, config string) Host {
		return Host{Root: files(t, map[string]string{"proc/sys/kernel/osrelease": release + "\n", "boot/config-" + release: config})}
	}
	withTry := func(h Host, err error) Host {
		h.Try = func(context.Context) error { return err }
		return h
	}
	for _, c := range []struct {
		name string
		host Host
		want string // in the output
		code int
	}{
		{"good", host("6.1.0-13-amd64", all), "System meets minimum system requirements to run Calico!", 0},
		{"good and tried", withTry(host("6.1.0", all), nil), "rules               \t\t\t\t\tOK", 0},
		{"old", host("5.4.0", all), "Minimum kernel version is 5.7.0. Detected kernel version: 5.4.0", 1},
		{"strange", host("unknown", all), "unknown             \t\t\t\t\tFAIL", 1},
		{"module missing", host("6.1.0", strings.Replace(all, "CONFIG_NFT_CT=m\n", "", 1)), "WARNING: Unable to detect the nft_ct module", 1},
		{"optional module missing", host("6.1.0", strings.Replace(all, "CONFIG_NFT_LOG=m\n", "", 1)), "nft_log             \t\t\t\t\tSKIP", 0},
		{"refused", withTry(host("6.1.0", all), errors.New("no such thing")), "to run Calico: no such thing", 1},
		{"nothing known, but tried", withTry(Host{Root: files(t, map[string]string{"proc/sys/kernel/osrelease": "6.1.0"})}, nil), "System meets", 0},
		{"nothing known", Host{Root: files(t, map[string]string{"proc/sys/kernel/osrelease": "6.1.0"})}, "system doesn't meet", 1},
		{"loaded and on disk", Host{Root: files(t, map[string]string{"proc/sys/kernel/osrelease": "6.1.0",
			"lib/modules/6.1.0/modules.dep":     "kernel/net/netfilter/nft_ct.ko.xz: x\nkernel/net/nf_tables.ko:\nkernel/nf_tables_inet.ko.zst:\n",
			"lib/modules/6.1.0/modules.builtin": "kernel/net/nft_log.ko\nkernel/nfnetlink_log.ko\nkernel/nft_reject.ko\n",
			"sys/module/nf_conntrack/refcnt":    "1"})}, "System meets", 0},
		{"no release", Host{Root: t.TempDir()}, "find out the kernel's version", 1},
	} {
		t.Run(c.name, func(t *testing.T) {
			if got, code := nodeCommand(t, c.host, nil, "checksystem"); code != c.code || !strings.Contains(got, c.want) {
				t.Errorf("exit %d:\n%s\nwant %q", code, got, c.want)
			}
		})
	}
	h := host("6.1.0", "")
	config := filepath.Join(files(t, map[string]string{"config": all}), "config")
	if got, code := nodeCommand(t, h, nil, "checksystem", "-f", config); code != 0 {
		t.Errorf("with a configuration of one's own: exit %d\n%s", code, got)
	}
}

// unpack returns the files of a .tar.gz.
func unpack(t *testing.T, path string) map[string]string {
	t.Helper()
	file, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = file.Close() }()
	if info, err := file.Stat(); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("mode of %s is %v, %v", path, info.Mode(), err)
	}
	zip, err := gzip.NewReader(file)
	if err != nil {
		t.Fatal(err)
	}
	out := map[string]string{}
	for r := tar.NewReader(zip); ; {
		header, err := r.Next()
		if errors.Is(err, io.EOF) {
			return out
		}
		if err != nil {
			t.Fatal(err)
		}
		text, err := io.ReadAll(r)
		if err != nil {
			t.Fatal(err)
		}
		out[header.Name] = string(text)
	}
}

func TestNodeDiags(t *testing.T) {
	t.Setenv("TMPDIR", t.TempDir())
	host := Host{
		Root:     files(t, map[string]string{"proc/net/route": "Iface Destination\n", "proc/net/tcp": "tcp\n"}),
		Counters: func(context.Context) ([]ruleset.Counter, error) { return nil, errors.New("kernel says no") },
	}
	logs := files(t, map[string]string{"felix/current.log": "line\n"})
	secrets := files(t, map[string]string{"key": "secret\n"})
	if err := errors.Join(os.Symlink(filepath.Join(secrets, "key"), filepath.Join(logs, "key.log")),
		os.Symlink(secrets, filepath.Join(logs, "secrets")), syscall.Mkfifo(filepath.Join(logs, "pipe.log"), 0o600)); err != nil {
		t.Fatal(err)
	}
	out, code := nodeCommand(t, host, nil, "diags", "--log-dir", logs)
	m := regexp.MustCompile(`Diags saved to (.*)\n`).FindStringSubmatch(out)
	if code != 0 || m == nil {
		t.Fatalf("exit %d:\n%s", code, out)
	}
	got := unpack(t, m[1])
	for name, want := range map[string]string{
		"diagnostics/proc/net/route": "Iface Destination\n", "diagnostics/logs/felix/current.log": "line\n", "diagnostics/rules.json.error": "kernel says no\n",
	} {
		if got[name] != want {
			t.Errorf("%s holds %q, want %q", name, got[name], want)
		}
	}
	for name, text := range got {
		if strings.Contains(text, "secret") || strings.Contains(name, "pipe") {
			t.Errorf("%s holds %q", name, text)
		}
	}
	if !strings.Contains(got["diagnostics/interfaces"], "lo") || !strings.Contains(got["diagnostics/proc/net/udp.error"], "no such file") {
		t.Errorf("interfaces: %q", got["diagnostics/interfaces"])
	}
	out, code = nodeCommand(t, host, nil, "diags", "--log-dir", filepath.Join(logs, "none"))
	if code != 0 || !strings.Contains(out, "Error copying log files: ") {
		t.Errorf("exit %d:\n%s", code, out)
	}
}

// TestNodeStatusWithoutDatastore has an agent that answers although the datastore does not.
func TestNodeStatusWithoutDatastore(t *testing.T) {
	running := Host{Root: files(t, map[string]string{"proc/17/cmdline": "margay\x00node\x00"})}
	var b bytes.Buffer
	c := newCLI(Env{
		Stdout: &b, Stderr: &b, ConfigFile: "none",
		AgentSocket: serveState(t, `{"node": "node7", "warnings": ["W"], "detail": "store: it is away", "program": {}}`),
		Getenv:      func(name string) string { return map[string]string{"ETCD_ENDPOINTS": "http://127.0.0.1:1"}[name] },
		OpenStore:   func(context.Context, StoreConfig) (store.Store, error) { return nil, store.ErrUnavailable },
	})
	cmd := c.nodeStatusCommand(running)
	cmd.SetArgs(nil)
	cmd.SetContext(t.Context())
	if err := cmd.Execute(); err != nil {
		t.Fatal(err)
	}
	want := "Asked directly:\nNode:       node7\nIn force:   0 policies and profiles at 0 endpoints (margay node show)\n" +
		"Warning:    W\nDetail:     store: it is away\n"
	if !strings.Contains(b.String(), want) {
		t.Errorf("%s\nwant:\n%s", &b, want)
	}
}
