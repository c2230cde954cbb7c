package main

import (
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"
)

// useProduct builds margay as it is delivered, for the processes that are started from now on. The test itself is larger.
func (w *world) useProduct(b *testing.B) {
	w.binary = filepath.Join(w.dir, "margay")
	cmd := exec.Command("go", "build", "-trimpath", "-ldflags", "-s -w", "-o", w.binary, ".")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		b.Fatalf("go build: %v\n%s", err, out)
	}
}

// report shows a figure and what it must not exceed.
func report(b *testing.B, unit string, is, target float64) {
	b.ReportMetric(is, unit)
	b.ReportMetric(target, unit+"-target")
}

// reportLoad shows the machine's load average of the last minute.
func reportLoad(b *testing.B) {
	data, err := os.ReadFile("/proc/loadavg")
	if err != nil {
		b.Fatal(err)
	}
	load, err := strconv.ParseFloat(strings.Fields(string(data))[0], 64)
	if err != nil {
		b.Fatal(err)
	}
	b.ReportMetric(load, "loadavg")
}

func millis(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }

// quantile returns what percent of the values do not exceed.
func quantile(values []time.Duration, percent int) time.Duration {
	sorted := slices.Sorted(slices.Values(values))
	return sorted[min(len(sorted)*percent/100, len(sorted)-1)]
}

// metric returns the sum of what the agent shows under a name.
func (w *world) metric(name string) float64 {
	w.Helper()
	var body string
	w.eventually(20*time.Second, "metrics", func() error {
		code, text := get(w.host, "http://127.0.0.1:9091/metrics")
		if body = text; code != http.StatusOK {
			return fmt.Errorf("%d %s", code, text)
		}
		return nil
	})
	sum, found := 0.0, false
	for line := range strings.Lines(body) {
		fields := strings.Fields(line)
		if rest, ok := strings.CutPrefix(line, name); ok && (rest[0] == ' ' || rest[0] == '{') {
			value, err := strconv.ParseFloat(fields[len(fields)-1], 64)
			w.must(err)
			sum, found = sum+value, true
		}
	}
	if !found {
		w.Fatalf("metrics: no %s", name)
	}
	return sum
}

// reportMemory shows what is resident of the process: all of it, what is the process's own, and pages of files, which is the
// program itself.
func (p *process) reportMemory(b *testing.B, target float64) {
	b.Helper()
	report(b, "MiB", p.resident(b, "VmRSS:"), target)
	b.ReportMetric(p.resident(b, "RssAnon:"), "anon-MiB")
	b.ReportMetric(p.resident(b, "RssFile:"), "file-MiB")
}

// resident returns a line of the process's status, in MiB.
func (p *process) resident(b *testing.B, name string) float64 {
	b.Helper()
	for line := range strings.Lines(p.file(b, "status")) {
		if kib, ok := strings.CutPrefix(line, name); ok {
			n, err := strconv.Atoi(strings.Fields(kib)[0])
			if err != nil {
				b.Fatal(err)
			}
			return float64(n) / 1024
		}
	}
	b.Fatalf("no %s", name)
	return 0
}

// cpu returns how long the process's threads ran, the kernel's work for it included.
func (p *process) cpu(b *testing.B) time.Duration {
	b.Helper()
	threads, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/schedstat", p.Process.Pid))
	if err != nil || len(threads) == 0 {
		b.Fatalf("threads of %d: %v", p.Process.Pid, err)
	}
	var sum time.Duration
	for _, path := range threads {
		data, err := os.ReadFile(path)
		if err != nil {
			b.Fatal(err)
		}
		ns, err := strconv.ParseInt(strings.Fields(string(data))[0], 10, 64)
		if err != nil {
			b.Fatal(err)
		}
		sum += time.Duration(ns)
	}
	return sum
}

func (p *process) file(b *testing.B, name string) string {
	b.Helper()
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/%s", p.Process.Pid, name))
	if err != nil {
		b.Fatal(err)
	}
	return string(data)
}
