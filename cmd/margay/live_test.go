package main

import (
	"context"
	"fmt"
	"net/netip"
	"os"
	"strings"
	"testing"
	"time"

	"margay/lab"
)

// TestInterfaces plugs, unplugs and renumbers interfaces under a running agent.
func TestInterfaces(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	neighbour, err := w.lab.Host("neighbour", netip.MustParsePrefix("10.100.1.66/24"))
	w.must(err)
	w.must(w.host.Do(func() error { // all interfaces are on one wire; each is to answer for its own addresses
		return os.WriteFile("/proc/sys/net/ipv4/conf/all/arp_ignore", []byte("1"), 0)
	}))
	w.startAgent()
	w.awaitReady()
	w.awaitEnforced(w.apply(`
apiVersion: projectcalico.org/v3
kind: HostEndpoint
metadata: {name: named}
spec: {node: host-a, interfaceName: eth1}
---
apiVersion: projectcalico.org/v3
kind: HostEndpoint
metadata: {name: numbered}
spec: {node: host-a, expectedIPs: [10.100.1.17]}
`))
	listener, err := w.host.Listen("tcp", ":8080")
	w.must(err)
	defer listener.Close()

	w.must(w.host.AddInterface("eth1", netip.MustParsePrefix("10.100.1.15/24")))
	if connects(neighbour, "10.100.1.15:8080") {
		t.Error("an interface that an endpoint names is open when it appears")
	}
	if !connects(w.other, hostAddr+":8080") {
		t.Error("an interface that no endpoint is for is closed")
	}
	w.must(w.host.RemoveInterface("eth1"))

	w.must(w.host.AddInterface("eth2", netip.MustParsePrefix("10.100.1.16/24")))
	w.eventually(5*time.Second, "eth2 is open", func() error { return want(neighbour, "10.100.1.16:8080", true) })
	w.must(w.host.AddAddress("eth2", netip.MustParsePrefix("10.100.1.17/24")))
	w.eventually(5*time.Second, "eth2 closes when it gets the expected address", func() error { return want(neighbour, "10.100.1.16:8080", false) })
	w.must(w.host.RemoveAddress("eth2", netip.MustParsePrefix("10.100.1.17/24")))
	w.eventually(5*time.Second, "eth2 opens when it loses it", func() error { return want(neighbour, "10.100.1.16:8080", true) })
}

// connects reports whether a TCP connection is made at once.
func connects(from *lab.Host, address string) bool {
	ctx, cancel := context.WithTimeout(context.Background(), 300*time.Millisecond)
	defer cancel()
	conn, err := from.Dial(ctx, "tcp", address)
	if err == nil {
		_ = conn.Close()
	}
	return err == nil
}

func want(from *lab.Host, address string, open bool) error {
	if got := connects(from, address); got != open {
		return fmt.Errorf("%s connects to %s: %v, want %v", from.Name(), address, got, open)
	}
	return nil
}

// TestLabels gives and takes labels of the endpoint and of the peers, over IPv4 and IPv6.
func TestLabels(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.startAgent()
	w.awaitReady()
	w.awaitEnforced(w.apply(scrapers))
	scraped := func(from *lab.Host, address string, open bool) {
		t.Helper()
		w.eventually(5*time.Second, fmt.Sprintf("%s scrapes %s: %v", from.Name(), address, open), func() error {
			return want(from, address, open)
		})
	}
	const v4, v6 = hostAddr + ":9091", "[" + hostAddr6 + "]:9091"
	scraped(w.friend, v4, true)
	scraped(w.friend, v6, false)
	set := `
apiVersion: projectcalico.org/v3
kind: GlobalNetworkSet
metadata: {name: friends, labels: {access: '%s'}}
spec: {nets: [10.100.0.20/32, 'fd00:100::20']}
`
	w.apply(fmt.Sprintf(set, "true"))
	scraped(w.friend, v6, true)
	w.apply(fmt.Sprintf(set, "false"))
	scraped(w.friend, v4, false)
	scraped(w.friend, v6, false)
	endpoint := `
apiVersion: projectcalico.org/v3
kind: HostEndpoint
metadata: {name: %s.eth0, labels: {%s}}
spec: {node: %s, interfaceName: eth0, expectedIPs: [%s]}
`
	w.apply(fmt.Sprintf(endpoint, "stranger", "access: 'true'", "stranger", strangerAddr))
	scraped(w.other, v4, true)
	w.apply(fmt.Sprintf(endpoint, "stranger", "", "stranger", strangerAddr))
	scraped(w.other, v4, false)
	w.apply(fmt.Sprintf(endpoint, hostName, "role: other", hostName, hostAddr))
	scraped(w.other, v4, false) // no policy: denied
	if !connects(w.host, storeAddr+":2379") {
		t.Error("a failsafe port out is closed")
	}
	w.apply(fmt.Sprintf(endpoint, hostName, "role: host", hostName, hostAddr))
	w.apply(strings.Replace(scrapers, `access == "true"`, `access == "never"`, 1))
	scraped(w.friend, v4, false)
}

// TestLogAction finds the packets of a Log rule in the agent's log.
func TestLogAction(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.startAgent()
	w.awaitReady()
	w.awaitEnforced(w.apply(frame + `
---
apiVersion: projectcalico.org/v3
kind: GlobalNetworkPolicy
metadata: {name: watcher}
spec:
  selector: role == "host"
  order: 0
  types: [Ingress]
  ingress: [{action: Log, protocol: TCP, destination: {ports: [4242]}}]
`))
	w.eventually(5*time.Second, "the packet is in the log", func() error {
		connects(w.other, hostAddr+":4242")
		for line := range strings.Lines(w.agent.log.String()) {
			if strings.Contains(line, "watcher") && strings.Contains(line, strangerAddr) && strings.Contains(line, "4242") {
				return nil
			}
		}
		return fmt.Errorf("no line names policy, source and port")
	})
}
