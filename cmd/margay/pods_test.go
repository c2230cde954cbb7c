package main

import (
	"context"
	"fmt"
	"io"
	"net/netip"
	"strings"
	"testing"
	"time"

	v3 "margay/api/v3"
	"margay/lab"
)

// podRules let clients reach port 8080 of servers, and whoever is in the namespace reach everything else.
const podRules = `
apiVersion: projectcalico.org/v3
kind: Profile
metadata: {name: kns.ns}
spec: {ingress: [{action: Allow}], egress: [{action: Allow}]}
---
apiVersion: projectcalico.org/v3
kind: NetworkPolicy
metadata: {name: servers, namespace: ns}
spec:
  selector: role == 'server'
  ingress:
  - {action: Allow, protocol: TCP, source: {selector: role == 'client'}, destination: {ports: [8080]}}
`

// pod makes a pod, and its WorkloadEndpoint, which names an interface that is not there, as the CNI is not Calico's.
func (w *world) pod(role, iface, bridge string, addrs ...string) *lab.Pod {
	w.Helper()
	c := lab.Cable{Interface: iface, Bridge: bridge}
	for _, a := range addrs {
		c.Addrs = append(c.Addrs, netip.MustParseAddr(a))
	}
	p, err := w.host.Pod(role, c)
	w.must(err)
	w.serves(&p.Machine)
	w.awaitEnforced(w.apply(podEndpoint(role, addrs...)))
	return p
}

func podEndpoint(role string, addrs ...string) string {
	return fmt.Sprintf(`
apiVersion: projectcalico.org/v3
kind: WorkloadEndpoint
metadata: {name: %s-k8s-%s-eth0, namespace: ns, labels: {role: %s}}
spec: {node: %s, orchestrator: k8s, pod: %s, endpoint: eth0, interfaceName: cali%s, ipNetworks: ["%s"], profiles: [kns.ns]}
`, strings.ReplaceAll(hostName, "-", "--"), role, role, hostName, role, role, strings.Join(addrs, `", "`))
}

// serves has a machine accept connections on port 8080 until the test ends.
func (w *world) serves(m *lab.Machine) {
	listener, err := m.Listen("tcp", ":8080")
	w.must(err)
	w.Cleanup(func() { listener.Close() })
	go func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			io.WriteString(conn, "x")
			conn.Close()
		}
	}()
}

// reaches waits until a machine reaches an address or does not.
func (w *world) reaches(from *lab.Machine, address string, open bool) {
	w.Helper()
	w.eventually(20*time.Second, fmt.Sprintf("%s reaches %s: %v", from.Name(), address, open), func() error {
		ctx, cancel := context.WithTimeout(w.ctx(), 300*time.Millisecond)
		defer cancel()
		conn, err := from.Dial(ctx, "tcp", address)
		if err == nil {
			defer conn.Close()
			_ = conn.SetReadDeadline(time.Now().Add(5 * time.Second))
			_, err = io.ReadFull(conn, make([]byte, 1))
		}
		if (err == nil) != open {
			return fmt.Errorf("%v", err)
		}
		return nil
	})
}

// TestPodsOfAnyCNI: workloads that name no interface that exists have their policy where the kernel says that they are, for both families,
// from the same host and from others, after a restart behind another interface, and after another pod has the address.
func TestPodsOfAnyCNI(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.startAgent()
	w.awaitReady()
	w.apply(podRules)
	w.must(w.friend.AddRouteVia(netip.MustParseAddr(hostAddr), netip.MustParsePrefix("10.65.0.0/24")))
	server := w.pod("server", "eni1", "", "10.65.0.1", "fd65::1")
	client := w.pod("client", "eni2", "", "10.65.0.2", "fd65::2")
	stranger := w.pod("other", "eni3", "", "10.65.0.3", "fd65::3")
	for _, address := range []string{"10.65.0.1:8080", "[fd65::1]:8080"} {
		w.reaches(&client.Machine, address, true)
		w.reaches(&stranger.Machine, address, false)
	}
	w.reaches(&w.friend.Machine, "10.65.0.1:8080", false)
	w.reaches(&w.friend.Machine, "10.65.0.3:8080", true)

	w.must(server.Remove())
	again := w.pod("server", "eni4", "", "10.65.0.1", "fd65::1")
	w.reaches(&client.Machine, "10.65.0.1:8080", true)
	w.reaches(&stranger.Machine, "10.65.0.1:8080", false)
	w.reaches(&w.friend.Machine, "10.65.0.1:8080", false)

	// Another pod gets the address while the one before is still stored: nothing is open by the policy of either.
	w.must(again.Remove())
	w.pod("heir", "eni5", "", "10.65.0.1")
	w.reaches(&client.Machine, "10.65.0.1:8080", false)
	w.remove(v3.Key{Kind: v3.KindWorkloadEndpoint, Namespace: "ns", Name: "host--a-k8s-server-eth0"})
	w.reaches(&client.Machine, "10.65.0.1:8080", true)
	w.reaches(&stranger.Machine, "10.65.0.1:8080", true)
}

// TestPodsClosedUntilKnown: with the prefix of the CNI's names, a pod that runs before it is known is closed; without, it is open.
func TestPodsClosedUntilKnown(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		prefix string
		open   bool
	}{{"eni", false}, {"cali", true}} {
		t.Run(c.prefix, func(t *testing.T) {
			w := newWorld(t)
			w.apply(`
apiVersion: projectcalico.org/v3
kind: FelixConfiguration
metadata: {name: default}
spec: {interfacePrefix: ` + c.prefix + `}
`)
			w.startAgent()
			w.awaitReady()
			w.apply(podRules)
			known := w.pod("known", "eni1", "", "10.65.0.1")
			early, err := w.host.Pod("early", lab.Cable{Interface: "eni2", Addrs: []netip.Addr{netip.MustParseAddr("10.65.0.2")}})
			w.must(err)
			w.serves(&early.Machine)
			w.reaches(&known.Machine, "10.65.0.2:8080", c.open)
			w.awaitEnforced(w.apply(podEndpoint("late", "10.65.0.2")))
			w.reaches(&known.Machine, "10.65.0.2:8080", true)
		})
	}
}
