package kubernetes_test

import (
	"bufio"
	"errors"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"margay/store/kube"
	"margay/test/kubernetes/cluster"
)

// A commandLine runs margay on a cluster of its own, with the definitions that are installed.
type commandLine struct {
	*testing.T
	env []string
}

func newCommandLine(t *testing.T) (*commandLine, *cluster.Cluster) {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "cluster")
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	c, err := cluster.Start(t.Context(), cluster.Config{Dir: dir})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := c.Close(); err != nil {
			t.Error(err)
		}
	})
	installReal(t, c)
	for _, name := range []string{kube.DefaultStatusNamespace, "blue"} {
		do(t, c, http.MethodPost, "/api/v1/namespaces", namespace(name))
	}
	return &commandLine{t, append(os.Environ(), "DATASTORE_TYPE=kubernetes", "KUBECONFIG="+c.Kubeconfig())}, c
}

func (l *commandLine) command(stdin string, args ...string) *exec.Cmd {
	l.Helper()
	program, err := built()
	if err != nil {
		l.Fatal(err)
	}
	cmd := exec.CommandContext(l.Context(), program, args...)
	cmd.Env, cmd.Stdin = l.env, strings.NewReader(stdin)
	return cmd
}

// step runs a command. What it prints must match a pattern; code is how it must end.
func (l *commandLine) step(code int, want, stdin string, args ...string) {
	l.Helper()
	out, err := l.command(stdin, args...).CombinedOutput()
	got := 0
	if exit := (*exec.ExitError)(nil); errors.As(err, &exit) {
		got = exit.ExitCode()
	} else if err != nil {
		l.Fatal(err)
	}
	if got != code || !regexp.MustCompile("(?s)"+want).Match(out) {
		l.Errorf("margay %s: exit %d, want %d and %q:\n%s", strings.Join(args, " "), got, code, want, out)
	}
}

const verbs = `
{apiVersion: projectcalico.org/v3, kind: GlobalNetworkPolicy, metadata: {name: p}, spec: {tier: t, order: 1, selector: has(a), ingress: [{action: Log}]}}
---
{apiVersion: projectcalico.org/v3, kind: Tier, metadata: {name: t}, spec: {order: 5}}
---
{apiVersion: projectcalico.org/v3, kind: NetworkSet, metadata: {name: s, namespace: blue}, spec: {nets: [10.0.0.0/8]}}
`

// TestVerbs goes through the verbs that write, and what reads them, with the API server for a datastore.
func TestVerbs(t *testing.T) {
	l, c := newCommandLine(t)
	changed := strings.Replace(verbs, "order: 1,", "order: 2,", 1)

	l.step(0, "Successfully created 3 resource.s. .server dry run.", verbs, "create", "-f", "-", "--dry-run=server")
	l.step(1, `resource does not exist: Tier\(t\)`, "", "get", "tier", "t")
	l.step(0, "Successfully created 3 resource", verbs, "create", "-f", "-")
	l.step(1, `failed to create any resources: .*already exists: GlobalNetworkPolicy\(p\)`, verbs, "create", "-f", "-")
	l.step(0, "Successfully created 3 resource", verbs, "create", "-f", "-", "--skip-exists")
	l.step(0, `unchanged GlobalNetworkPolicy\(p\)`, verbs, "apply", "-f", "-")
	l.step(1, `spec\.order`, changed, "diff", "-f", "-")
	l.step(0, `configured GlobalNetworkPolicy\(p\)`, changed, "apply", "-f", "-", "--dry-run=server")
	l.step(0, "order: 1\n", "", "get", "gnp", "p", "-o", "yaml")
	l.step(0, `configured GlobalNetworkPolicy\(p\).*unchanged Tier\(t\).*Successfully applied 3`, changed, "apply", "-f", "-")
	l.step(0, `^$`, changed, "diff", "-f", "-")
	l.step(1, `namespaces "nowhere" not found`, strings.ReplaceAll(verbs, "blue", "nowhere"), "apply", "-f", "-", "--dry-run=server")
	l.step(1, "failed to replace 'Tier' resource: resource does not exist", "{apiVersion: projectcalico.org/v3, kind: Tier, metadata: {name: u}, spec: {order: 5}}", "replace", "-f", "-")
	l.step(1, `update conflict: GlobalNetworkPolicy\(p\)`, strings.Replace(changed, "name: p}", `name: p, resourceVersion: "1"}`, 1), "apply", "-f", "-")

	l.step(0, "Successfully patched 1 'GlobalNetworkPolicy' resource", "", "patch", "gnp", "p", "-p", `{"spec": {"order": 3}}`)
	l.step(0, "Successfully patched 1", "", "patch", "gnp", "p", "-t", "json", "-p", `[{"op": "add", "path": "/spec/ingress/-", "value": {"action": "Deny"}}]`)
	l.step(0, "Successfully patched 1", "", "patch", "gnp", "p", "-t", "merge", "-p", `{"spec": {"selector": null}}`, "--dry-run=server")
	l.step(0, "action: Log\n  - action: Deny\n  order: 3\n  selector: has.a.\n", "", "get", "gnp", "p", "-o", "yaml")
	l.step(1, "spec.order", "", "patch", "gnp", "p", "-p", `{"spec": {"order": "x"}}`)
	l.step(0, "Successfully set label a on netsets s", "", "label", "netsets", "s", "a=b", "-n", "blue")
	l.step(1, "use '--overwrite'", "", "label", "netsets", "s", "a=c", "-n", "blue")
	l.step(0, "Successfully updated label a on netsets s", "", "label", "netsets", "s", "a=c", "-n", "blue", "--overwrite")
	l.step(0, `"a": "c"`, "", "get", "netsets", "s", "-n", "blue", "-o", "json")
	l.step(0, "Successfully removed label a from netsets s", "", "label", "netsets", "s", "a", "-n", "blue", "--remove")
	l.step(0, `^NAMESPACE +NAME +NETS +\nblue +s +10\.0\.0\.0/8 +\n`, "", "get", "netsets", "-A", "-o", "wide")
	l.step(0, `^globalnetworkpolicy\.projectcalico\.org/p\n$`, "", "get", "gnp", "-o", "name")

	do(t, c, http.MethodPost, "/apis/networking.k8s.io/v1/namespaces/blue/networkpolicies", object{"apiVersion": "networking.k8s.io/v1",
		"kind": "NetworkPolicy", "metadata": object{"name": "k"}, "spec": object{"podSelector": object{}}})
	l.step(0, `knp\.default\.k`, "", "get", "np", "-n", "blue")
	l.step(1, `not supported`, "", "delete", "np", "knp.default.k", "-n", "blue")

	later := `{apiVersion: projectcalico.org/v3, kind: GlobalNetworkPolicy, metadata: {name: later}, spec: {selector: app == "web", ingress: [{action: Allow}]}}`
	const undone = `Warning: GlobalNetworkPolicy\(later\): spec\.ingress: what NetworkPolicy\(blue/knp\.default\.k\) of Kubernetes does not allow goes on`
	l.step(0, `^Successfully applied 1 'GlobalNetworkPolicy' resource.s. .server dry run.\n$`, later, "apply", "-f", "-", "--dry-run=server", "--changes=false")
	podOn(t, c, podSpec{namespace: "blue", name: "web", node: "n1", ip: "10.9.0.1", labels: object{"app": "web"}})
	l.step(1, undone, later, "diff", "-f", "-")
	l.step(0, undone, later, "apply", "-f", "-")
	l.step(0, `^unchanged GlobalNetworkPolicy\(later\)\nSuccessfully applied 1 'GlobalNetworkPolicy' resource.s.\n$`, later, "apply", "-f", "-")
	l.step(0, `^Successfully patched 1 'GlobalNetworkPolicy' resource\n$`, "", "patch", "gnp", "later", "-p", `{"spec": {"order": 10}}`)
	l.step(0, undone, "", "patch", "gnp", "later", "-p", `{"spec": {"order": 2000}}`)
	l.step(0, "Successfully deleted 1", "", "delete", "gnp", "later")

	l.step(0, `no node reports to this datastore`, changed, "apply", "-f", "-", "--wait")
	makeNode(t, c, "n1", "10.0.0.9")
	l.step(1, `n1`, verbs, "apply", "-f", "-", "--wait", "--wait-timeout", "1s")

	l.watch()
	l.step(1, `Failed to delete 'Tier' resource: .*globalnetworkpolicies/p is in it`, "", "delete", "tier", "t")
	l.step(0, "Successfully deleted 3 resource", verbs, "delete", "-f", "-", "--dry-run=server")
	l.step(0, "Successfully deleted 3 resource", verbs, "delete", "-f", "-")
	l.step(1, `Failed to delete resource: resource does not exist: GlobalNetworkPolicy\(p\)`, verbs, "delete", "-f", "-")
	l.step(0, "Skipped 3 resource", verbs, "delete", "-f", "-", "-s")
}

// watch has get --watch print what happens to an object.
func (l *commandLine) watch() {
	l.Helper()
	set := func(net string) string {
		return "{apiVersion: projectcalico.org/v3, kind: GlobalNetworkSet, metadata: {name: w}, spec: {nets: [" + net + "]}}"
	}
	cmd := l.command("", "get", "gns", "-w", "-o", "wide")
	out, err := cmd.StdoutPipe()
	if err != nil {
		l.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		l.Fatal(err)
	}
	defer func() {
		_ = cmd.Process.Signal(os.Interrupt)
		_ = cmd.Wait()
	}()
	lines := make(chan string)
	go func() {
		defer close(lines)
		for s := bufio.NewScanner(out); s.Scan(); {
			lines <- s.Text()
		}
	}()
	expect := func(want string) {
		l.Helper()
		for deadline := time.After(60 * time.Second); ; {
			select {
			case line, ok := <-lines:
				if !ok {
					l.Fatalf("the watch ended before %q", want)
				}
				if strings.HasPrefix(line, "EVENT") {
					continue
				}
				if !regexp.MustCompile(want).MatchString(line) {
					l.Errorf("the watch prints %q, want %q", line, want)
				}
				return
			case <-deadline:
				l.Fatalf("the watch does not print %q", want)
			}
		}
	}
	l.step(0, "created", set("10.0.0.0/8"), "apply", "-f", "-")
	expect(`^ADDED +w +10\.0\.0\.0/8 `)
	l.step(0, "configured", set("10.1.0.0/16"), "apply", "-f", "-")
	expect(`^MODIFIED +w +10\.1\.0\.0/16 `)
	l.step(0, "Successfully deleted 1", "", "delete", "gns", "w")
	expect(`^DELETED +w `)
}
