package main

import (
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"margay/lab"
)

// What the examples are tried on beside the hosts of a world: a second card, and kube-controllers in a pod.
const (
	secondAddr   = "10.101.0.15"
	podAddr      = "10.66.0.2"
	exampleWorld = `
apiVersion: projectcalico.org/v3
kind: Profile
metadata: {name: kns.calico-system}
spec: {ingress: [{action: Allow}], egress: [{action: Allow}], labelsToApply: {pcns.projectcalico.org/name: calico-system}}
---
apiVersion: projectcalico.org/v3
kind: WorkloadEndpoint
metadata: {name: host--a-k8s-controllers-eth0, namespace: calico-system, labels: {k8s-app: calico-kube-controllers}}
spec: {node: host-a, orchestrator: k8s, pod: controllers, endpoint: eth0, interfaceName: cali0, ipNetworks: [10.66.0.2/32], profiles: [kns.calico-system]}
`
	friendLabelled = `
apiVersion: projectcalico.org/v3
kind: HostEndpoint
metadata: {name: friend, labels: {calico-prometheus-access: "true"}}
spec: {node: friend, interfaceName: "*", expectedIPs: [10.100.0.20], profiles: [projectcalico-default-allow]}
`
)

// TestExamples applies the examples file by file, by the command line and without a warning, to a host with an agent, and tries
// on packets that they do what they say.
func TestExamples(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		dir  string
		open bool // what is not named
	}{{"deny-list", true}, {"allow-list", false}} {
		t.Run(test.dir, func(t *testing.T) {
			t.Parallel()
			w := newExampleWorld(t)
			files := w.copyExamples(test.dir)
			w.quietly("validate", filepath.Dir(files[0]))
			for _, file := range files {
				w.quietly("apply", file)
			}
			w.quietly("apply", filepath.Dir(files[0]))
			w.expectExample(test.open, false)
			labelled := filepath.Join(t.TempDir(), "friend.yaml")
			w.must(os.WriteFile(labelled, []byte(friendLabelled), 0o600))
			w.quietly("apply", labelled)
			w.expectExample(test.open, true)
		})
	}
}

func newExampleWorld(t *testing.T) *world {
	w := newWorld(t)
	w.must(w.host.AddInterface("eth1", netip.MustParsePrefix(secondAddr+"/24")))
	w.must(w.other.AddInterface("eth1", netip.MustParsePrefix("10.101.0.66/24")))
	pod, err := w.host.Pod("kube-controllers", lab.Cable{Interface: "cali0", Addrs: []netip.Addr{netip.MustParseAddr(podAddr)}})
	w.must(err)
	for _, h := range []*lab.Host{w.friend, w.other} {
		w.must(h.AddRouteVia(netip.MustParseAddr(hostAddr), netip.PrefixFrom(netip.MustParseAddr(podAddr), 32)))
	}
	for _, port := range []string{":9093", ":8080"} {
		w.listens(&w.host.Machine, port)
	}
	w.listens(&w.friend.Machine, ":8080")
	w.listens(&pod.Machine, ":9094")
	w.listens(&pod.Machine, ":8081")
	w.startAgent()
	w.awaitReady()
	w.awaitEnforced(w.apply(exampleWorld))
	return w
}

func (w *world) listens(on *lab.Machine, port string) {
	w.Helper()
	l, err := on.Listen("tcp", port)
	w.must(err)
	w.Cleanup(func() { _ = l.Close() })
}

// copyExamples returns the files of an example in the order of their names, for the hosts of this world.
func (w *world) copyExamples(dir string) []string {
	w.Helper()
	found, err := filepath.Glob(filepath.Join("..", "..", "examples", dir, "*.yaml"))
	w.must(err)
	if len(found) < 6 {
		w.Fatalf("files of %s: %q", dir, found)
	}
	into := filepath.Join(w.TempDir(), dir)
	w.must(os.Mkdir(into, 0o700))
	var files []string
	for _, name := range found {
		text, err := os.ReadFile(name)
		w.must(err)
		files = append(files, filepath.Join(into, filepath.Base(name)))
		w.must(os.WriteFile(files[len(files)-1], []byte(strings.ReplaceAll(string(text), "kubeadm-master", hostName)), 0o600))
	}
	return files
}

// quietly gives a file or directory to the command line; nothing may be worth a warning.
func (w *world) quietly(verb, path string) {
	w.Helper()
	if out := w.command(w.storeHost, verb, "-f", path); strings.Contains(out, "Warning") {
		w.Errorf("%s -f %s:\n%s", verb, filepath.Base(path), out)
	}
}

// expectExample tries everything that the examples speak of; rest is whether what they do not name is open.
func (w *world) expectExample(rest, friend bool) {
	w.Helper()
	for _, c := range []struct {
		from *lab.Host
		to   string
		open bool
	}{
		{w.friend, hostAddr + ":9091", friend}, {w.friend, hostAddr + ":9093", friend}, {w.friend, podAddr + ":9094", friend},
		{w.other, hostAddr + ":9091", false}, {w.other, hostAddr + ":9093", false}, {w.other, podAddr + ":9094", false},
		{w.other, secondAddr + ":9091", false}, {w.other, secondAddr + ":9093", false},
		{w.other, secondAddr + ":8080", rest}, {w.other, hostAddr + ":8080", rest}, {w.other, podAddr + ":8081", rest},
		{w.host, "127.0.0.1:9091", true}, {w.host, podAddr + ":9094", true}, {w.host, friendAddr + ":8080", true},
	} {
		w.eventually(30*time.Second, fmt.Sprintf("%s connects to %s: %v", c.from.Name(), c.to, c.open), func() error {
			return want(c.from, c.to, c.open)
		})
	}
}
