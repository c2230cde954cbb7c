package main

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/nftables"

	v3 "margay/api/v3"
	"margay/lab"
)

// onBridge begins a world with an agent and a bridge cni0.
func onBridge(t *testing.T) *world {
	t.Helper()
	w := newWorld(t)
	w.must(w.host.AddBridge("cni0", netip.MustParsePrefix("10.66.0.1/24"), netip.MustParsePrefix("fd66::1/64")))
	w.startAgent()
	w.awaitReady()
	w.apply(podRules)
	w.must(w.friend.AddRouteVia(netip.MustParseAddr(hostAddr), netip.MustParsePrefix("10.66.0.0/24")))
	return w
}

// sets writes to a parameter below /proc/sys/net of the host.
func (w *world) sets(parameter, value string) {
	w.Helper()
	w.must(w.host.Do(func() error { return os.WriteFile("/proc/sys/net/"+parameter, []byte(value), 0) }))
}

func podKey(role string) v3.Key {
	return v3.Key{Kind: v3.KindWorkloadEndpoint, Namespace: "ns", Name: strings.ReplaceAll(hostName, "-", "--") + "-k8s-" + role + "-eth0"}
}

// tablesOf returns how many tables of a family the host has.
func (w *world) tablesOf(family nftables.TableFamily) int {
	w.Helper()
	conn, err := nftables.New(nftables.WithNetNSFd(w.host.NetNS()))
	w.must(err)
	tables, err := conn.ListTablesOfFamily(family)
	w.must(err)
	return len(tables)
}

// translates has destinations translated on the host, as kube-proxy does; a pod that reaches itself in that way gets the source of its
// host.
func (w *world) translates(pairs string) {
	w.Helper()
	if _, err := exec.LookPath("nft"); err != nil && os.Getenv("MARGAY_REQUIRE_NFT") != "1" {
		w.Skip("no nft(8)")
	}
	file := filepath.Join(w.TempDir(), "nat")
	w.must(os.WriteFile(file, []byte(`table ip services {
	chain prerouting { type nat hook prerouting priority dstnat; dnat to ip daddr map { `+pairs+` }; }
	chain postrouting { type nat hook postrouting priority srcnat; ip saddr 10.66.0.2 ip daddr 10.66.0.2 masquerade; ip saddr 10.66.0.3 ip daddr 10.66.0.3 masquerade; }
}
`), 0o600))
	w.must(w.host.Run(exec.Command("nft", "-f", file)))
}

// TestPodsOnBridge: workloads on a bridge have their policy, for both families, from each other, from their host, from outside and
// through a translated destination, to themselves among others; whatever the parameter for all bridges says, and again after somebody
// switched it off on the bridge.
func TestPodsOnBridge(t *testing.T) {
	t.Parallel()
	w := onBridge(t)
	server := w.pod("server", "veth1", "cni0", "10.66.0.2", "fd66::2")
	client := w.pod("client", "veth2", "cni0", "10.66.0.3", "fd66::3")
	stranger := w.pod("other", "veth3", "cni0", "10.66.0.4", "fd66::4")
	routed := w.pod("routed", "eni1", "", "10.65.0.1")
	check := func() {
		t.Helper()
		w.awaitReady()
		for _, address := range []string{"10.66.0.2:8080", "[fd66::2]:8080"} {
			w.reaches(&client.Machine, address, true)
			w.reaches(&stranger.Machine, address, false)
			w.reaches(&w.host.Machine, address, true)
		}
		w.reaches(&stranger.Machine, "10.66.0.3:8080", true)
		w.reaches(&w.friend.Machine, "10.66.0.2:8080", false)
		w.reaches(&w.friend.Machine, "10.66.0.3:8080", true)
		w.reaches(&routed.Machine, "10.66.0.2:8080", false)
		w.reaches(&routed.Machine, "10.66.0.3:8080", true)
		w.reaches(&client.Machine, "10.65.0.1:8080", true)
	}
	check()
	for _, parameter := range []string{"bridge-nf-call-iptables", "bridge-nf-call-ip6tables"} {
		w.sets("bridge/"+parameter, "0")
	}
	check()
	w.must(w.host.UnfilterBridge("cni0"))
	check()

	// A port moves to another bridge, and back.
	w.must(w.host.AddBridge("cni1", netip.MustParsePrefix("10.67.0.1/24")))
	w.must(w.host.SetMaster("veth3", "cni1"))
	w.reaches(&stranger.Machine, "10.66.0.3:8080", false)
	w.must(w.host.SetMaster("veth3", "cni0"))
	check()

	// Another pod has the address of one that is gone.
	w.must(server.Remove())
	w.remove(podKey("server"))
	heir := w.pod("heir", "veth4", "cni0", "10.66.0.2", "fd66::2")
	for _, address := range []string{"10.66.0.3:8080", "10.66.0.4:8080"} { // they learn its hardware address
		w.reaches(&heir.Machine, address, true)
	}
	for _, from := range []*lab.Machine{&client.Machine, &stranger.Machine, &w.friend.Machine} {
		w.reaches(from, "10.66.0.2:8080", true)
	}
}

// TestBridgedPodsTranslated: a service's address leads to a pod on the bridge of the one that asks, and to that one itself: policy
// sees the address of the pod.
func TestBridgedPodsTranslated(t *testing.T) {
	t.Parallel()
	w := onBridge(t)
	server := w.pod("server", "veth1", "cni0", "10.66.0.2", "fd66::2")
	client := w.pod("client", "veth2", "cni0", "10.66.0.3", "fd66::3")
	stranger := w.pod("other", "veth3", "cni0", "10.66.0.4", "fd66::4")
	for _, port := range []string{"veth1", "veth2"} {
		w.must(w.host.Hairpin(port))
	}
	w.translates("10.96.0.1 : 10.66.0.2, 10.96.0.2 : 10.66.0.3")
	w.must(w.friend.AddRouteVia(netip.MustParseAddr(hostAddr), netip.MustParsePrefix("10.96.0.0/24")))
	w.reaches(&client.Machine, "10.96.0.1:8080", true)
	w.reaches(&stranger.Machine, "10.96.0.1:8080", false)
	w.reaches(&stranger.Machine, "10.96.0.2:8080", true)
	w.reaches(&w.friend.Machine, "10.96.0.1:8080", false)
	w.reaches(&w.friend.Machine, "10.96.0.2:8080", true)
	w.reaches(&client.Machine, "10.96.0.2:8080", true) // itself: it may
	w.reaches(&server.Machine, "10.96.0.1:8080", false)
}

// TestBridgedPodForges: a pod that takes the address of another on its bridge is not heard, and does not get what is for the other;
// the other is heard all the time.
func TestBridgedPodForges(t *testing.T) {
	t.Parallel()
	w := onBridge(t)
	w.pod("server", "veth1", "cni0", "10.66.0.2", "fd66::2")
	client := w.pod("client", "veth2", "cni0", "10.66.0.3", "fd66::3")
	forger := w.pod("other", "veth3", "cni0", "10.66.0.4", "fd66::4")
	w.reaches(&client.Machine, "10.66.0.2:8080", true)
	for _, address := range []string{"10.66.0.3/32", "fd66::3/128"} {
		w.must(forger.AddAddress("eth0", netip.MustParsePrefix(address)))
	}
	for from, to := range map[string]string{"10.66.0.3": "10.66.0.2:8080", "fd66::3": "[fd66::2]:8080"} {
		if err := dialFrom(forger, from, to); err == nil {
			t.Errorf("it reached %s from %s", to, from)
		}
		if err := dialFrom(forger, from, strings.Replace(to, "2:8080", "1:8080", 1)); err == nil || !isTimeout(err) {
			t.Errorf("its host answered %s: %v", from, err)
		}
	}
	w.reaches(&client.Machine, "10.66.0.2:8080", true)
	w.reaches(&client.Machine, "[fd66::2]:8080", true)
	w.awaitReady()
}

func isTimeout(err error) bool {
	t, ok := err.(interface{ Timeout() bool })
	return ok && t.Timeout()
}

// dialFrom connects from an address of the pod.
func dialFrom(p *lab.Pod, from, to string) error {
	return p.Do(func() error {
		ctx, cancel := context.WithTimeout(context.Background(), 500*time.Millisecond)
		defer cancel()
		d := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(from)}}
		conn, err := d.DialContext(ctx, "tcp", to)
		if err == nil {
			conn.Close()
		}
		return err
	})
}

// TestBridgedPodClosedUntilKnown: with the prefix of the CNI's names, a pod that runs on a bridge before it is known is closed.
func TestBridgedPodClosedUntilKnown(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.apply(`
apiVersion: projectcalico.org/v3
kind: FelixConfiguration
metadata: {name: default}
spec: {interfacePrefix: veth}
`)
	w.must(w.host.AddBridge("cni0", netip.MustParsePrefix("10.66.0.1/24")))
	w.startAgent()
	w.awaitReady()
	w.apply(podRules)
	w.pod("known", "eni1", "", "10.65.0.1") // before there is any, nothing is closed
	var early []*lab.Pod
	for n, name := range []string{"veth1", "veth2"} {
		p, err := w.host.Pod("early", lab.Cable{Interface: name, Bridge: "cni0", Addrs: []netip.Addr{netip.AddrFrom4([4]byte{10, 66, 0, byte(2 + n)})}})
		w.must(err)
		w.serves(&p.Machine)
		early = append(early, p)
	}
	w.reaches(&early[0].Machine, "10.66.0.3:8080", false)
	w.awaitEnforced(w.apply(podEndpoint("late", "10.66.0.2")))
	w.reaches(&early[0].Machine, "10.66.0.3:8080", false)
	w.awaitEnforced(w.apply(podEndpoint("later", "10.66.0.3")))
	w.reaches(&early[0].Machine, "10.66.0.3:8080", true)
}

// TestBridgeCleanUp: nothing of the bridges' table is left.
func TestBridgeCleanUp(t *testing.T) {
	t.Parallel()
	w := onBridge(t)
	w.pod("server", "veth1", "cni0", "10.66.0.2")
	w.eventually(20*time.Second, "there are both tables", func() error {
		if n := w.tablesOf(nftables.TableFamilyBridge); n != 1 {
			return fmt.Errorf("%d of family bridge", n)
		}
		return nil
	})
	w.agent.stop()
	w.cleanUp()
	if n := w.tablesOf(nftables.TableFamilyBridge) + w.tablesOf(nftables.TableFamilyINet); n != 0 {
		t.Errorf("%d tables are left", n)
	}
}
