package main

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"margay/lab"
)

// TestServiceLoops: what a host would pass on to an address of services is dropped, rejected or passed on as the stored
// configuration says, which the commands change; pods, other hosts and both families alike.
func TestServiceLoops(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.startAgent()
	w.awaitReady()
	w.apply(podRules)
	pod := w.pod("other", "eni1", "", "10.65.0.1", "fd65::1")
	// The friend is where packets for services would be sent on to, and come back from.
	for _, service := range []struct{ bits, gateway, back, pods string }{
		{"10.96.0.1/32", friendAddr, hostAddr, "10.65.0.0/24"}, {"fd96::1/128", "fd00:100::20", hostAddr6, "fd65::/64"},
	} {
		w.must(w.friend.AddAddress("eth0", netip.MustParsePrefix(service.bits)))
		w.must(w.friend.AddRouteVia(netip.MustParseAddr(service.back), netip.MustParsePrefix(service.pods)))
		w.must(w.host.AddRouteVia(netip.MustParseAddr(service.gateway), netip.MustParsePrefix(service.bits)))
	}
	w.must(w.other.AddRouteVia(netip.MustParseAddr(hostAddr), netip.MustParsePrefix("10.96.0.1/32")))
	w.serves(&w.friend.Machine)

	const bgp = `{apiVersion: projectcalico.org/v3, kind: BGPConfiguration, metadata: {name: default}, spec: {%s}}`
	const felix = `{apiVersion: projectcalico.org/v3, kind: FelixConfiguration, metadata: {name: default}, spec: {serviceLoopPrevention: %s}}`
	const nets = `serviceClusterIPs: [{cidr: 10.96.0.0/12}, {cidr: "fd96::/112"}]`
	for _, step := range []struct {
		name, manifest string
		want           string // of answer
		shown          bool   // the kernel has a rule for it
	}{
		{"no address is a service's", fmt.Sprintf(bgp, ""), "open", false},
		{"they are", fmt.Sprintf(bgp, nets), "silent", true},
		{"rejected", fmt.Sprintf(felix, "Reject"), "refused", true},
		{"disabled", fmt.Sprintf(felix, "Disabled"), "open", false},
		{"dropped", fmt.Sprintf(felix, "Drop"), "silent", true},
		{"rejected, with IPVS", fmt.Sprintf(felix, "Reject"), "silent", true},
		{"others are", fmt.Sprintf(bgp, `serviceExternalIPs: [{cidr: 10.96.0.0/32}, {cidr: "fd96::2/128"}]`), "open", true},
	} {
		if strings.HasSuffix(step.name, "IPVS") {
			w.must(w.host.AddInterface("kube-ipvs0", netip.MustParsePrefix("10.96.0.9/32")))
		}
		file := filepath.Join(w.dir, "services.yaml")
		w.must(os.WriteFile(file, []byte(step.manifest), 0o600))
		w.command(w.storeHost, "apply", "--wait", "-f", file)
		for _, way := range []struct {
			from    *lab.Machine
			address string
		}{{&pod.Machine, "10.96.0.1:8080"}, {&pod.Machine, "[fd96::1]:8080"}, {&w.other.Machine, "10.96.0.1:8080"}} {
			w.eventually(20*time.Second, step.name, func() error {
				if got := answer(w, way.from, way.address); got != step.want {
					return fmt.Errorf("to %s it is %s, want %s", way.address, got, step.want)
				}
				return nil
			})
		}
		if strings.HasSuffix(step.name, "IPVS") {
			w.eventually(20*time.Second, "the agent warns of what is not answered", func() error {
				if out := w.command(w.storeHost, "status"); !strings.Contains(out, "kube-proxy balances services by IPVS here") {
					return errors.New(out)
				}
				return nil
			})
		}
		explained := w.command(w.host, "explain", "--live", "--agent-socket", filepath.Join(w.dir, "node", "agent.sock"), "--from", "other", "--to", "10.96.0.1", "--port", "8080")
		shown := w.command(w.host, "node", "show")
		if strings.Contains(explained, "by serviceLoopPrevention") != (step.want != "open") || strings.Contains(shown, "(no such service)") != step.shown {
			t.Errorf("%s: want %s, explained as\n%s\nand shown as\n%s", step.name, step.want, explained, shown)
		}
	}
}

// answer says what becomes of a new connection: open, refused or silent.
func answer(w *world, from *lab.Machine, address string) string {
	w.Helper()
	ctx, cancel := context.WithTimeout(w.ctx(), time.Second)
	defer cancel()
	conn, err := from.Dial(ctx, "tcp", address)
	switch {
	case err == nil:
		conn.Close()
		return "open"
	case errors.Is(err, syscall.ECONNREFUSED):
		return "refused"
	case errors.Is(err, context.DeadlineExceeded) || os.IsTimeout(err):
		return "silent"
	}
	return err.Error()
}
