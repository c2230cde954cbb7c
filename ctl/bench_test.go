package ctl

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

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
// another process than the CLI's. The CLI is the program as it is delivered: the test itself is larger.
func BenchmarkCommand(b *testing.B) {
	dir := b.TempDir()
	file := filepath.Join(dir, "policies.yaml")
	if err := os.WriteFile(file, []byte(policies(benchPolicies)), 0o600); err != nil {
		b.Fatal(err)
	}
	program := filepath.Join(dir, "calicoctl")
	build := exec.CommandContext(b.Context(), "go", "build", "-trimpath", "-ldflags", "-s -w", "-o", program, "margay/cmd/margay")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		b.Fatalf("go build: %v\n%s", err, out)
	}
	socket := filepath.Join(dir, "s")
	server, err := embed.Start(b.Context(), embed.Config{Dir: filepath.Join(dir, "store"), Socket: socket, Listen: []string{}})
	if err != nil {
		b.Fatal(err)
	}
	defer func() { _ = server.Close() }()
	config := filepath.Join(dir, "calicoctl.cfg")
	text := "apiVersion: projectcalico.org/v3\nkind: CalicoAPIConfig\nmetadata: {}\nspec: {etcdEndpoints: \"unix://" + socket + "\"}\n"
	if err := os.WriteFile(config, []byte(text), 0o600); err != nil {
		b.Fatal(err)
	}
	margay := func(args ...string) {
		b.Helper()
		cmd := exec.CommandContext(b.Context(), program, append(args, "--config", config)...)
		cmd.Env = []string{}
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
			var took []time.Duration
			for b.Loop() {
				if step.before != nil {
					b.StopTimer()
					margay(step.before...)
					b.StartTimer()
				}
				start := time.Now()
				margay(step.timed...)
				took = append(took, time.Since(start))
			}
			slices.Sort(took)
			b.ReportMetric(float64(took[len(took)/2].Microseconds())/1000, "median-ms")
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
