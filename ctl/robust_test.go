package ctl

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	clientv3 "go.etcd.io/etcd/client/v3"

	v3 "margay/api/v3"
	"margay/store"
	"margay/store/etcd"
)

// on runs a command on a store until it ends.
func on(ctx context.Context, s store.Store, args ...string) (out string, code int) {
	var b bytes.Buffer
	root := NewCommand(Env{
		Name: "margay", Stdout: &b, Stderr: &b, ConfigFile: "none", Socket: "none",
		Getenv: func(name string) string {
			return map[string]string{"ETCD_ENDPOINTS": "http://127.0.0.1:1"}[name]
		},
		OpenStore: func(context.Context, StoreConfig) (store.Store, error) { return unclosed{s}, nil },
	})
	root.SetArgs(args)
	code = Execute(ctx, root)
	return b.String(), code
}

func manifest(t testing.TB, text string) string {
	t.Helper()
	name := filepath.Join(t.TempDir(), "manifest.yaml")
	if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return name
}

// A gate is a store in front of which a test stands: it is asked before every WriteAll.
type gate struct {
	store.Store
	calls  int
	before func(ctx context.Context, call int)
}

func (g *gate) WriteAll(ctx context.Context, mode store.Mode, writes []store.Write) []store.Result {
	g.calls++
	g.before(ctx, g.calls)
	return g.Store.WriteAll(ctx, mode, writes)
}

// TestInterrupted interrupts an apply of many objects: what was asked of the store is finished, the rest is named.
func TestInterrupted(t *testing.T) {
	i := newIncumbent(t)
	ctx, interrupt := context.WithCancel(t.Context())
	g := &gate{Store: i.store, before: func(_ context.Context, call int) {
		if call == 2 {
			interrupt()
		}
	}}
	out, code := on(ctx, g, "apply", "-f", manifest(t, policies(450)))
	if code != 1 {
		t.Fatalf("exit %d:\n%s", code, out)
	}
	for _, want := range []string{
		"created GlobalNetworkPolicy(policy-199)\nnot tried GlobalNetworkPolicy(policy-200)\n",
		"Partial success: applied the first 200 out of 450 'GlobalNetworkPolicy' resources:\n",
		"hit error: [interrupted\n250 not tried: GlobalNetworkPolicy(policy-200), ",
	} {
		if !strings.Contains(out, want) {
			t.Errorf("%q is not said in\n%s", want, out)
		}
	}
	if n := i.count(); n != 200 {
		t.Errorf("%d policies are stored", n)
	}
	out, code = on(t.Context(), i.store, "apply", "-f", manifest(t, policies(450)))
	if code != 0 || strings.Count(out, "unchanged") != 200 || strings.Count(out, "created") != 250 {
		t.Errorf("the second time: exit %d\n%s", code, out)
	}
}

// TestInterruptedBefore interrupts an apply before it asked anything of the store.
func TestInterruptedBefore(t *testing.T) {
	i := newIncumbent(t)
	ctx, interrupt := context.WithCancel(t.Context())
	interrupt()
	out, code := on(ctx, i.store, "apply", "-f", manifest(t, policies(3)))
	if code != 1 || out != "interrupted: nothing was written\n" {
		t.Errorf("exit %d:\n%s", code, out)
	}
	if n := i.count(); n != 0 {
		t.Errorf("%d policies are stored", n)
	}
}

func (i *incumbent) count() int {
	i.Helper()
	list, err := i.store.List(i.Context(), "", v3.KindGlobalNetworkPolicy)
	if err != nil {
		i.Fatal(err)
	}
	return len(list.Items)
}

// TestUnanswered has a store that takes a request and does not answer: nobody knows what became of it.
func TestUnanswered(t *testing.T) {
	i := newIncumbent(t)
	g := &gate{Store: i.store, before: func(ctx context.Context, call int) {
		if call == 2 {
			<-ctx.Done()
		}
	}}
	begin := time.Now()
	out, code := on(t.Context(), g, "apply", "-f", manifest(t, policies(250)), "--request-timeout", "300ms", "--changes=false")
	if took := time.Since(begin); code != 1 || took > 5*time.Second {
		t.Fatalf("exit %d after %v:\n%s", code, took, out)
	}
	for _, want := range []string{
		"Partial success: applied the first 100 out of 250 'GlobalNetworkPolicy' resources:\n",
		"of 100 it is not known whether the datastore has done it: GlobalNetworkPolicy(policy-100), ",
		"\n50 not tried: GlobalNetworkPolicy(policy-200), ",
	} {
		if !strings.Contains(out, want) {
			t.Errorf("%q is not said in\n%s", want, out)
		}
	}
}

// silence is a server that takes connections and says nothing.
func silence(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var mu sync.Mutex
	var conns []net.Conn
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			mu.Lock()
			conns = append(conns, conn)
			mu.Unlock()
		}
	}()
	t.Cleanup(func() {
		_ = l.Close()
		mu.Lock()
		defer mu.Unlock()
		for _, conn := range conns {
			_ = conn.Close()
		}
	})
	return "http://" + l.Addr().String()
}

// TestSilentStore runs every command on a server that does not answer: each ends in time, with an error that says so.
func TestSilentStore(t *testing.T) {
	endpoint := silence(t)
	file := manifest(t, policies(3))
	for _, args := range [][]string{
		{"apply", "-f", file}, {"create", "-f", file}, {"replace", "-f", file}, {"delete", "-f", file}, {"diff", "-f", file},
		{"get", "gnp"}, {"get", "gnp", "p"}, {"get", "gnp", "--watch"}, {"label", "gnp", "p", "a=b"}, {"patch", "gnp", "p", "-p", "{}"},
		{"status"}, {"version"}, {"datastore", "migrate", "lock"}, {"datastore", "migrate", "export"}, {"datastore", "migrate-policy-names"},
	} {
		t.Run(strings.Join(args[:min(2, len(args))], " "), func(t *testing.T) {
			t.Parallel()
			s, err := etcd.Open(context.Background(), etcd.Config{Endpoints: []string{endpoint}})
			if err != nil {
				t.Fatal(err)
			}
			defer func() { _ = s.Close() }()
			begin := time.Now()
			out, code := on(t.Context(), s, append(args, "--request-timeout", "400ms")...)
			took := time.Since(begin)
			if code == 0 || took > 3*time.Second || !strings.Contains(out, "datastore is unavailable") {
				t.Errorf("exit %d after %v:\n%s", code, took, out)
			}
		})
	}
}

// TestFullStore has a store that has no room.
func TestFullStore(t *testing.T) {
	i := newIncumbent(t)
	alarm := &pb.AlarmRequest{Action: pb.AlarmRequest_ACTIVATE, Alarm: pb.AlarmType_NOSPACE}
	if _, err := pb.NewMaintenanceClient(i.client.ActiveConnection()).Alarm(t.Context(), alarm); err != nil {
		t.Fatal(err)
	}
	out, code := on(t.Context(), i.store, "apply", "-f", manifest(t, policies(250)))
	want := "failed to apply any 'GlobalNetworkPolicy' resources: [write resources: etcdserver: mvcc: database space exceeded (compact and defragment etcd, " +
		"then disarm its alarm, or raise its quota) (GlobalNetworkPolicy(policy-0), GlobalNetworkPolicy(policy-1), GlobalNetworkPolicy(policy-2), " +
		"GlobalNetworkPolicy(policy-3), GlobalNetworkPolicy(policy-4) and 245 more)]\n"
	if code != 1 || out != want {
		t.Errorf("exit %d:\n%s", code, out)
	}
	if out, code := on(t.Context(), i.store, "get", "tiers"); code != 0 {
		t.Errorf("reading does not work: %s", out)
	}
}

// TestReadOnlyStore has a user who may read everything and write network sets only.
func TestReadOnlyStore(t *testing.T) {
	i := newIncumbent(t)
	c, ctx := i.client, t.Context()
	const prefix = "/calico/resources/v3/projectcalico.org/globalnetworksets/"
	steps := []func() error{
		func() error { _, err := c.RoleAdd(ctx, "root"); return err },
		func() error { _, err := c.UserAdd(ctx, "root", "secret"); return err },
		func() error { _, err := c.UserGrantRole(ctx, "root", "root"); return err },
		func() error { _, err := c.RoleAdd(ctx, "reader"); return err },
		func() error {
			_, err := c.RoleGrantPermission(ctx, "reader", "/calico/", clientv3.GetPrefixRangeEnd("/calico/"), clientv3.PermissionType(clientv3.PermRead))
			return err
		},
		func() error {
			_, err := c.RoleGrantPermission(ctx, "reader", prefix, clientv3.GetPrefixRangeEnd(prefix), clientv3.PermissionType(clientv3.PermReadWrite))
			return err
		},
		func() error { _, err := c.UserAdd(ctx, "alice", "wonder"); return err },
		func() error { _, err := c.UserGrantRole(ctx, "alice", "reader"); return err },
		func() error { _, err := c.AuthEnable(ctx); return err },
	}
	for n, step := range steps {
		if err := step(); err != nil {
			t.Fatalf("step %d: %v", n, err)
		}
	}
	open := func(user, password string) store.Store {
		s, err := etcd.Open(ctx, etcd.Config{Endpoints: []string{"unix://" + filepath.Join(i.dir, "s")}, Username: user, Password: password})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = s.Close() })
		return s
	}
	alice := open("alice", "wonder")
	mixed := policies(2) + "---\n{apiVersion: projectcalico.org/v3, kind: GlobalNetworkSet, metadata: {name: mine}}\n"
	out, code := on(ctx, alice, "apply", "-f", manifest(t, mixed))
	want := `created GlobalNetworkSet(mine)
Partial success: applied 1 out of 3 resources:
  GlobalNetworkSet(mine)
hit error: [connection is unauthorized: etcdserver: permission denied (GlobalNetworkPolicy(policy-0), GlobalNetworkPolicy(policy-1))]
`
	if code != 1 || out != want {
		t.Errorf("exit %d:\n%s", code, out)
	}
	if out, code := on(ctx, alice, "get", "gns", "-o", "name"); code != 0 || out != "globalnetworkset.projectcalico.org/mine\n" {
		t.Errorf("exit %d: %s", code, out)
	}
	if out, code := on(ctx, open("alice", "wrong"), "get", "gns"); code != 1 || !strings.Contains(out, "connection is unauthorized") {
		t.Errorf("exit %d: %s", code, out)
	}
}

// TestConcurrentWriters has many people change one object at once: nobody's change is lost.
func TestConcurrentWriters(t *testing.T) {
	i := newIncumbent(t)
	i.run("apiVersion: projectcalico.org/v3\nkind: GlobalNetworkSet\nmetadata: {name: shared}\n", "apply", "-f", "-")
	const writers, changes = 5, 5
	var wg sync.WaitGroup
	errs := make(chan error, 3*writers*changes)
	for n := range writers {
		wg.Go(func() {
			for m := range changes {
				for _, args := range [][]string{
					{"label", "gns", "shared", fmt.Sprintf("l%d-%d=x", n, m)},
					{"patch", "gns", "shared", "-p", fmt.Sprintf(`{"metadata":{"annotations":{"a%d-%d":"x"}}}`, n, m)},
				} {
					if out, code := on(t.Context(), i.store, args...); code != 0 {
						errs <- errors.New(out)
					}
				}
			}
		})
	}
	wg.Wait()
	close(errs)
	for err := range errs {
		t.Error(err)
	}
	r, err := i.store.Get(t.Context(), v3.Key{Kind: v3.KindGlobalNetworkSet, Name: "shared"})
	if err != nil {
		t.Fatal(err)
	}
	if len(r.GetLabels()) != writers*changes || len(r.GetAnnotations()) != writers*changes {
		t.Errorf("%d labels and %d annotations are left of %d each", len(r.GetLabels()), len(r.GetAnnotations()), writers*changes)
	}
}

// TestBadInput feeds what is no manifest: each is refused at once, and nothing is asked of the store.
func TestBadInput(t *testing.T) {
	bomb := "apiVersion: projectcalico.org/v3\nkind: GlobalNetworkSet\nmetadata: {name: a}\nspec:\n  nets: *z\n"
	lines := []string{"a0: &a0 [10.0.0.0/8, 10.0.0.0/8]"}
	for n := range 25 {
		lines = append(lines, fmt.Sprintf("a%d: &a%d [*a%d, *a%d]", n+1, n+1, n, n))
	}
	for _, c := range []struct{ name, text, want string }{
		{"binary", "\x7fELF\x00\x01\xff\xfe", "file is no text: byte"},
		{"deep list", strings.Repeat("[", 1_000_000), "nests deeper than"},
		{"deep object", strings.Repeat(`{"a":`, 1_000_000), "nests deeper than"},
		{"deep yaml", strings.Repeat("- ", 100_000), "depth"},
		{"aliases", strings.Join(lines, "\n") + "\n" + strings.Replace(bomb, "*z", "*a25", 1), "list"},
		{"unknown alias", bomb, "unknown anchor"},
		{"long line", "apiVersion: " + strings.Repeat("x", 10<<20), "object has no kind"},
		{"nothing", "\n---\n\n---\n# nothing\n", "no resources specified"},
	} {
		t.Run(c.name, func(t *testing.T) {
			begin := time.Now()
			out, code := on(t.Context(), nil, "apply", "-f", manifest(t, c.text))
			if took := time.Since(begin); code != 1 || !strings.Contains(out, c.want) || took > 10*time.Second || len(out) > 100_000 {
				t.Errorf("exit %d after %v: %.2000s", code, took, out)
			}
		})
	}
}

// TestManyObjects applies 5,000 objects of two kinds from one file, and a document of a megabyte.
func TestManyObjects(t *testing.T) {
	i := newIncumbent(t)
	var b strings.Builder
	b.WriteString(policies(2500))
	for n := range 2500 {
		fmt.Fprintf(&b, "---\n{apiVersion: projectcalico.org/v3, kind: NetworkSet, metadata: {name: s%d, namespace: blue}, spec: {nets: [10.0.0.0/8]}}\n", n)
	}
	file := manifest(t, b.String())
	out, code := on(t.Context(), i.store, "apply", "-f", file, "--changes=false")
	if code != 0 || out != "Successfully applied 5000 resource(s)\n" {
		t.Fatalf("exit %d: %.2000s", code, out)
	}
	out, code = on(t.Context(), i.store, "apply", "-f", file)
	if code != 0 || strings.Count(out, "unchanged") != 5000 {
		t.Fatalf("exit %d: %.2000s", code, out)
	}
	nets := make([]string, 60_000)
	for n := range nets {
		nets[n] = fmt.Sprintf("  - 10.%d.%d.0/24", n/256, n%256)
	}
	large := "apiVersion: projectcalico.org/v3\nkind: GlobalNetworkSet\nmetadata: {name: large}\nspec:\n  nets:\n" + strings.Join(nets, "\n")
	if out, code := on(t.Context(), i.store, "apply", "-f", manifest(t, large)); code != 0 {
		t.Errorf("a megabyte: exit %d: %.2000s", code, out)
	}
	huge := large + "\n" + strings.Repeat(strings.Join(nets, "\n")+"\n", 9)
	out, code = on(t.Context(), i.store, "apply", "-f", manifest(t, huge))
	if code != 1 || !strings.Contains(out, "split the object") || len(out) > 10_000 {
		t.Errorf("ten megabytes: exit %d: %.2000s", code, out)
	}
}
