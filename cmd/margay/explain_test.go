package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"margay/lab"
)

// command runs margay on a host to its end and returns what it printed.
func (w *world) command(on *lab.Host, args ...string) string {
	w.Helper()
	p := w.start(on, []string{"ETCD_ENDPOINTS=" + w.socketURL()}, args...)
	<-p.done
	if !p.ProcessState.Success() {
		w.Fatalf("margay %s: %v\n%s", strings.Join(args, " "), p.ProcessState, p.log)
	}
	return p.log.String()
}

const explainedHost = `
apiVersion: projectcalico.org/v3
kind: HostEndpoint
metadata: {name: host-a.eth0, labels: {host: a}}
spec: {node: host-a, interfaceName: eth0, expectedIPs: [10.100.0.15], profiles: [projectcalico-default-allow]}
---
apiVersion: projectcalico.org/v3
kind: GlobalNetworkSet
metadata: {name: friends, labels: {role: friend}}
spec: {nets: [10.100.0.20]}
---
apiVersion: projectcalico.org/v3
kind: GlobalNetworkPolicy
metadata: {name: friends-only}
spec:
  selector: host == "a"
  order: 1
  types: [Ingress]
  ingress:
  - {action: Allow, protocol: TCP, source: {selector: role == "friend"}, destination: {ports: [8080]}}
  - {action: Deny, protocol: TCP, destination: {ports: [8080]}}
  - {action: Allow}
---
apiVersion: projectcalico.org/v3
kind: StagedGlobalNetworkPolicy
metadata: {name: friends-only}
spec:
  selector: host == "a"
  order: 1
  types: [Ingress]
  ingress:
  - {action: Allow, protocol: TCP, source: {nets: [192.0.2.0/24]}, destination: {ports: [8080]}}
`

// TestExplain asks a host with traffic everything that one asks at night: what decides, from the store, from the agent and from
// the kernel, and how often it did.
func TestExplain(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.agent = w.start(w.host, []string{
		"FELIX_FELIXHOSTNAME=" + hostName, "FELIX_ETCDENDPOINTS=http://" + storeAddr + ":2379", "FELIX_HEALTHENABLED=true",
		"FELIX_PROMETHEUSMETRICSENABLED=true", "FELIX_ENDPOINTREPORTINGENABLED=true", "FELIX_ENDPOINTREPORTINGDELAYSECS=0.1",
	}, "node", "--state-dir", filepath.Join(w.dir, "node"))
	w.awaitReady()
	w.awaitEnforced(w.apply(explainedHost))
	listener, err := w.host.Listen("tcp", ":8080")
	w.must(err)
	defer listener.Close()
	for range 3 {
		w.must(want(w.friend, hostAddr+":8080", true))
	}
	w.must(want(w.other, hostAddr+":8080", false))

	for _, source := range [][]string{{}, {"--live", "--agent-socket", filepath.Join(w.dir, "node", "agent.sock")}} {
		ask := append([]string{"explain", "--to", "host-a.eth0", "--port", "8080", "--address", hostAddr}, source...)
		denied := w.command(w.host, append(ask, "--from", strangerAddr)...)
		allowed := w.command(w.host, append(ask, "--from", friendAddr)...)
		for text, part := range map[string]string{
			"DENIED\n": denied, "by rule 1 of GlobalNetworkPolicy(friends-only), tier default: Deny TCP to port 8080\n": denied,
			`if 10.100.0.66 were selected by role == "friend"`: denied,
			"  With the staged policies in force: DENIED\n":    allowed, "  The staged policies would not change that.\n": denied,
			"ALLOWED\n": allowed, `by rule 0 of GlobalNetworkPolicy(friends-only), tier default: Allow TCP from role == "friend" to port 8080`: allowed,
		} {
			if !strings.Contains(part, text) {
				t.Errorf("%v: no %q in\n%s", source, text, part)
			}
		}
	}
	w.checkCounters()
	if out := w.command(w.host, "get", "hep", "-o", "wide"); !strings.Contains(out, "up") || !strings.Contains(out, "STATUS") {
		t.Errorf("%s", out)
	}
	w.eventually(10*time.Second, "the state is where Felix writes it", func() error {
		resp, err := w.raw.Get(w.ctx(), "/calico/felix/v1/host/"+hostName+"/endpoint/host-a.eth0")
		if err == nil && (len(resp.Kvs) != 1 || string(resp.Kvs[0].Value) != `{"status":"up"}`) {
			err = fmt.Errorf("%v", resp.Kvs)
		}
		return err
	})
	w.eventually(10*time.Second, "the heartbeat is where Felix writes it", func() error {
		resp, err := w.raw.Get(w.ctx(), "/calico/felix/v2/no-region/host/"+hostName+"/status")
		if err == nil && len(resp.Kvs) != 1 {
			err = errors.New("no key")
		}
		return err
	})
}

// checkCounters compares what kernel and agent say with what was sent: three connections of a friend, and the first packets,
// perhaps sent again, of one of the stranger.
func (w *world) checkCounters() {
	w.Helper()
	var rows []struct {
		Endpoint, Direction, Policy, Action string
		Rule                                *int
		Packets                             uint64
		Staged                              bool
	}
	w.must(json.Unmarshal([]byte(w.command(w.host, "node", "show", "-o", "json")), &rows))
	packets := map[string]uint64{}
	pending := uint64(0)
	for _, r := range rows {
		if r.Staged && r.Endpoint == "HostEndpoint(host-a.eth0)" && r.Direction == "ingress" && r.Action == "Deny" {
			pending += r.Packets
		}
		if r.Policy == "GlobalNetworkPolicy(friends-only)" && r.Endpoint == "HostEndpoint(host-a.eth0)" && r.Direction == "ingress" {
			packets[fmt.Sprint(*r.Rule, r.Action)] = r.Packets
		}
	}
	if packets["0Allow"] != 3 || packets["1Deny"] == 0 {
		w.Errorf("node show: %v", packets)
	}
	if sent := packets["0Allow"] + packets["1Deny"]; pending < sent {
		w.Errorf("node show: %d packets to port 8080, of which the staged policy would have denied %d", sent, pending)
	}
	code, body := get(w.host, "http://127.0.0.1:9091/metrics")
	for _, line := range []string{
		`margay_policy_packets_total{action="Allow",direction="ingress",kind="GlobalNetworkPolicy",name="friends-only",namespace="",stage="normal",tier="default"} 3`,
		`margay_policy_packets_total{action="Deny",direction="ingress",kind="GlobalNetworkPolicy",name="friends-only",namespace="",stage="normal",tier="default"} `,
		`margay_staged_default_packets_total{action="Deny",cause="end of tier",direction="ingress",stage="normal",tier="default"} `,
		`margay_staged_policy_packets_total{action="Allow",direction="ingress",kind="StagedGlobalNetworkPolicy",name="friends-only",namespace="",stage="normal",tier="default"} 0`,
	} {
		if !strings.Contains(body, line) {
			w.Errorf("metrics (%d): no line %s", code, line)
		}
	}
	if text := w.command(w.host, "node", "show"); !strings.Contains(text, "ingress of HostEndpoint(host-a.eth0)\n") {
		w.Errorf("node show:\n%s", text)
	}
}
