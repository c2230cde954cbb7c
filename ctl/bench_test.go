package ctl

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"margay/store"
	"margay/store/embed"
	"margay/store/etcd"
)

// benchPolicies is how many policies the benchmarks write with one call.
const benchPolicies = 1000

// policies returns a file of that many policies, of two rules each.
func policies(n int) string {
	var b strings.Builder
	for i := range n {
		fmt.Fprintf(&b, `---
apiVersion: projectcalico.org/v3
kind: GlobalNetworkPolicy
metadata:
  name: policy-%[1]d
spec:
  selector: role == "host-%[2]d"
  order: %[1]d
  types: [Ingress]
  ingress:
  - action: Allow
    protocol: TCP
    source:
      selector: access == "true"
    destination:
      ports: [%[3]d]
  - action: Deny
    protocol: TCP
    destination:
      ports: [%[3]d]
`, i, i%10, 1000+i)
	}
	return b.String()
}

// BenchmarkCommand measures one call of the CLI each, process and connection included, against an embedded store in
// another process than the CLI's.
func BenchmarkCommand(b *testing.B) {
	dir := b.TempDir()
	file := filepath.Join(dir, "policies.yaml")
	if err := os.WriteFile(file, []byte(policies(benchPolicies)), 0o600); err != nil {
		b.Fatal(err)
	}
	socket := filepath.Join(dir, "s")
	server, err := embed.Start(b.Context(), embed.Config{Dir: filepath.Join(dir, "store"), Socket: socket, Listen: []string{}})
	if err != nil {
		b.Fatal(err)
	}
	defer func() { _ = server.Close() }()
	margay := func(args ...string) {
		b.Helper()
		self, err := os.Executable()
		if err != nil {
			b.Fatal(err)
		}
		cmd := exec.CommandContext(b.Context(), self, args...)
		cmd.Args[0] = "calicoctl"
		cmd.Env = []string{"SOCKET=" + socket, "CONFIG=" + filepath.Join(dir, "none")}
		if out, err := cmd.CombinedOutput(); err != nil {
			b.Fatalf("%v: %v\n%s", args, err, out)
		}
	}
	for _, step := range []struct {
		name          string
		before, timed []string
	}{
		{"apply-1000-new", []string{"delete", "-s", "-f", file}, []string{"apply", "-f", file}},
		{"apply-1000-unchanged", nil, []string{"apply", "-f", file}},
		{"get-1", nil, []string{"get", "gnp", "policy-500"}},
		{"list-1000", nil, []string{"get", "gnp", "-o", "wide"}},
		{"delete-1000", []string{"apply", "-f", file}, []string{"delete", "-f", file}},
	} {
		b.Run(step.name, func(b *testing.B) {
			for b.Loop() {
				if step.before != nil {
					b.StopTimer()
					margay(step.before...)
					b.StartTimer()
				}
				margay(step.timed...)
			}
			b.ReportMetric(float64(b.Elapsed().Milliseconds())/float64(b.N), "ms")
		})
	}
}

// BenchmarkApply is the same within this process, for profiles.
func BenchmarkApply(b *testing.B) {
	dir := b.TempDir()
	file := filepath.Join(dir, "policies.yaml")
	if err := os.WriteFile(file, []byte(policies(benchPolicies)), 0o600); err != nil {
		b.Fatal(err)
	}
	server, err := embed.Start(b.Context(), embed.Config{Dir: filepath.Join(dir, "store"), Socket: filepath.Join(dir, "s"), Listen: []string{}})
	if err != nil {
		b.Fatal(err)
	}
	defer func() { _ = server.Close() }()
	for b.Loop() {
		var out bytes.Buffer
		root := NewCommand(Env{
			Name: "calicoctl", Stdout: &out, Stderr: &out, Getenv: func(string) string { return "" },
			ConfigFile: filepath.Join(dir, "none"), Socket: filepath.Join(dir, "s"),
			OpenStore: func(ctx context.Context, cfg StoreConfig) (store.Store, error) {
				return etcd.Open(ctx, etcd.Config{Endpoints: cfg.Endpoints})
			},
		})
		root.SetArgs([]string{"apply", "-f", file})
		if code := Execute(b.Context(), root); code != 0 {
			b.Fatal(out.String())
		}
	}
}
