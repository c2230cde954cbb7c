package main

import (
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	v3 "margay/api/v3"
	"margay/lab"
	"margay/store"
	"margay/store/storetest"
)

// startTypha starts typha on a host and waits until it is ready.
func (w *world) startTypha(on *lab.Host, env ...string) *process {
	w.Helper()
	p := w.start(on, append([]string{
		"TYPHA_ETCDENDPOINTS=http://" + storeAddr + ":2379", "TYPHA_HEALTHENABLED=true", "TYPHA_PROMETHEUSMETRICSENABLED=true",
		"TYPHA_SHUTDOWNCONNECTIONDROPINTERVALMAXSECS=0.05",
	}, env...), "typha", "--config-file", w.emptyFile())
	w.eventually(20*time.Second, "typha is ready", func() error {
		if code, body := get(on, "http://127.0.0.1:9098/readiness"); code != http.StatusOK {
			return fmt.Errorf("%d: %s", code, body)
		}
		return nil
	})
	return p
}

func (w *world) emptyFile() string {
	w.Helper()
	path := filepath.Join(w.dir, "empty.cfg")
	w.must(os.WriteFile(path, nil, 0o600))
	return path
}

// startAgentThrough starts the agent of the host with typha and without any address of the store.
func (w *world) startAgentThrough(address string, env ...string) {
	w.Helper()
	w.agent = w.start(w.host, append([]string{
		"FELIX_FELIXHOSTNAME=" + hostName, "FELIX_TYPHAADDR=" + address,
		"FELIX_PROMETHEUSMETRICSENABLED=true", "FELIX_HEALTHENABLED=true",
	}, env...), "node", "--state-dir", filepath.Join(w.dir, "node"))
}

// guideTypha is the guide's second policy, for both approaches; in the deny-list the name is corrected, for as the guide has
// it the policy replaces the one for 9091.
func guideTypha(t testing.TB, approach string) string {
	t.Helper()
	read := func(file string) string {
		data, err := os.ReadFile(filepath.Join("..", "..", "lab", "demo", "guide", approach, file))
		if err != nil {
			t.Fatal(err)
		}
		return string(data)
	}
	switch approach {
	case "deny-list":
		return strings.Replace(read("typha-prometheus-policy.yaml"), "restrict-calico-node-prometheus", "restrict-typha-prometheus", 1)
	default:
		text := strings.Replace(read("calico-prometheus-policy.yaml"), "restrict-calico-node-prometheus", "restrict-typha-prometheus", 1)
		return strings.Replace(text, "9091", "9093", 1)
	}
}

const typhaEndpoint = `
apiVersion: projectcalico.org/v3
kind: HostEndpoint
metadata: {name: host-a.eth0, labels: {running-calico: 'true'}}
spec: {node: host-a, interfaceName: eth0, expectedIPs: [10.100.0.15]}
`

const typhaFriends = `
apiVersion: projectcalico.org/v3
kind: GlobalNetworkSet
metadata: {name: friends, labels: {calico-prometheus-access: 'true'}}
spec: {nets: [10.100.0.20/32]}
`

// TestTyphaMetricsAreProtected has typha on the protected host, as the guide has it, and the agent connected to it, and
// protects typha's own metrics, 9093, in both ways of the guide.
func TestTyphaMetricsAreProtected(t *testing.T) {
	t.Parallel()
	for _, approach := range []string{"deny-list", "allow-list"} {
		t.Run(approach, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			w.startTypha(w.host)
			w.startAgentThrough("127.0.0.1:5473")
			w.awaitReady()
			scrapes := func(from *lab.Host) bool {
				code, body := get(from, "http://"+hostAddr+":9093/metrics")
				return code == http.StatusOK && strings.Contains(body, "typha_connections_streaming")
			}
			check := func(when string, friend, stranger, other bool) {
				t.Helper()
				if got := scrapes(w.friend); got != friend {
					t.Errorf("%s: friend scrapes 9093: %v", when, got)
				}
				if got := scrapes(w.other); got != stranger {
					t.Errorf("%s: stranger scrapes 9093: %v", when, got)
				}
				if got := w.scrapes(w.other); got != other {
					t.Errorf("%s: stranger scrapes 9091: %v", when, got)
				}
			}
			check("before", true, true, true)
			deny := approach == "deny-list"
			if deny {
				w.apply(strings.ReplaceAll(strings.SplitN(scrapers, "---", 2)[0], `role == "host"`, `running-calico == "true"`))
			}
			w.awaitEnforced(w.apply(typhaEndpoint))
			check("with the endpoint", deny, deny, deny)
			w.awaitEnforced(w.apply(guideTypha(t, approach)))
			check("with the policy", false, false, deny)
			w.awaitEnforced(w.apply(typhaFriends))
			check("with the set", true, false, deny)
			w.remove(v3.Key{Kind: v3.KindGlobalNetworkSet, Name: "friends"})
			w.eventually(5*time.Second, "the friend is out", func() error {
				if scrapes(w.friend) {
					return fmt.Errorf("still scrapes")
				}
				return nil
			})
		})
	}
}

// TestVerdictsThroughTypha plays one scenario with the agent at the store and with the agent at typha, and expects the same
// verdicts and the same rules in the kernel.
func TestVerdictsThroughTypha(t *testing.T) {
	t.Parallel()
	var direct, through []string
	t.Run("ways", func(t *testing.T) {
		t.Run("direct", func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			w.startAgent()
			direct = w.verdicts()
		})
		t.Run("typha", func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			w.startTypha(w.storeHost)
			w.startAgentThrough(storeAddr + ":5473")
			through = w.verdicts()
		})
	})
	t.Logf("through typha:\n%s", strings.Join(through, "\n"))
	if !slices.Equal(direct, through) || len(direct) == 0 {
		t.Errorf("direct:\n%s\nthrough typha:\n%s", strings.Join(direct, "\n"), strings.Join(through, "\n"))
	}
}

// verdicts plays the scenario and returns who reaches what after each step.
func (w *world) verdicts() []string {
	w.Helper()
	w.awaitReady()
	listener, err := w.host.Listen("tcp", ":8088")
	w.must(err)
	defer listener.Close()
	var all []string
	look := func(step string) {
		w.Helper()
		line := step + ":"
		for _, from := range []*lab.Host{w.friend, w.other} {
			for _, address := range []string{hostAddr + ":9091", "[" + hostAddr6 + "]:9091", hostAddr + ":8088"} {
				// A busy machine may be too slow for the first.
				open := false
				for range 3 {
					open = open || connects(from, address)
				}
				line += fmt.Sprintf(" %s->%s=%v", from.Name(), address, open)
			}
		}
		all = append(all, line)
	}
	look("nothing")
	w.awaitEnforced(w.apply(scrapers))
	look("scrapers")
	w.awaitEnforced(w.apply(`{apiVersion: projectcalico.org/v3, kind: GlobalNetworkSet, metadata: {name: friends, labels: {access: 'true'}}, spec: {nets: ['fd00:100::/64']}}`))
	look("other nets")
	w.awaitEnforced(w.apply(`{apiVersion: projectcalico.org/v3, kind: GlobalNetworkSet, metadata: {name: friends, labels: {access: 'false'}}, spec: {nets: ['fd00:100::/64']}}`))
	look("without the label")
	_, err = w.raw.Put(w.ctx(), "/calico/resources/v3/projectcalico.org/globalnetworkpolicies/restrict", `{"spec":{"selector":"role = "}}`)
	w.must(err)
	w.awaitNamed("GlobalNetworkPolicy(restrict)")
	look("an unusable value")
	w.restartAgent()
	w.awaitNamed("GlobalNetworkPolicy(restrict)")
	look("an unusable value, after a restart")
	_, err = w.raw.Delete(w.ctx(), "/calico/resources/v3/projectcalico.org/globalnetworkpolicies/restrict")
	w.must(err)
	w.awaitEnforced(w.apply(frame))
	look("frame")
	w.must(w.differs(w.program()))
	w.remove(v3.Key{Kind: v3.KindGlobalNetworkPolicy, Name: "default-host"})
	w.awaitEnforced(w.apply(frame))
	look("nothing allows")
	w.awaitEnforced(w.apply(`{apiVersion: projectcalico.org/v3, kind: FelixConfiguration, metadata: {name: default}, spec: {failsafeInboundHostPorts: [{protocol: TCP, port: 8088}]}}`))
	look("failsafe ports")
	return all
}

// restartAgent kills the agent and starts it again as it was.
func (w *world) restartAgent() {
	w.Helper()
	w.agent.kill()
	again := w.agent
	w.agent = w.start(w.host, again.Env, again.Args[1:]...)
	w.awaitReady()
}

// TestTyphaSurvives kills and stops typha and the store under a connected agent, counts probes all the while, and expects
// every change to arrive in the end.
func TestTyphaSurvives(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	typha := w.startTypha(w.storeHost)
	w.startAgentThrough(storeAddr + ":5473")
	w.awaitReady()
	w.awaitEnforced(w.apply(frame))
	probes := w.startTrains()
	step := 0
	change := func() store.Revision {
		w.Helper()
		step++
		return w.put(denySSH(fmt.Sprintf("step-%d", step)))
	}
	for _, end := range []func(){typha.kill, func() { typha.stop() }} {
		end()
		missed := change()
		w.eventually(10*time.Second, "the agent says that typha is gone", func() error {
			if code, body := w.health("readiness"); code != http.StatusOK || !strings.Contains(body, "typha") {
				return fmt.Errorf("%d: %s", code, body)
			}
			return nil
		})
		typha = w.startTypha(w.storeHost)
		w.awaitEnforced(missed)
		w.awaitEnforced(change())
	}
	w.storeProcess.kill()
	w.eventually(20*time.Second, "the agent says that typha has lost the store", func() error {
		if code, body := w.health("readiness"); code != http.StatusOK || !strings.Contains(body, "cannot follow its datastore") {
			return fmt.Errorf("%d: %s", code, body)
		}
		return nil
	})
	if code, body := get(w.storeHost, "http://127.0.0.1:9098/readiness"); code == http.StatusOK {
		t.Errorf("typha is ready without its store: %s", body)
	}
	w.startStore()
	w.awaitEnforced(change())
	w.restartAgent()
	w.awaitEnforced(change())
	probes.check()
	w.eventually(5*time.Second, "the kernel equals a fresh compile", func() error { return w.differs(w.program()) })
}

// TestTyphaMutualTLS has agent and typha know each other by certificates; a typha of another name is not believed.
func TestTyphaMutualTLS(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	ca := storetest.NewAuthority(t)
	cert, key := ca.Issue(t) // for CN test, for both sides
	file := func(name string, data []byte) string {
		path := filepath.Join(w.dir, name)
		w.must(os.WriteFile(path, data, 0o600))
		return path
	}
	caFile, certFile, keyFile := file("ca.crt", ca.PEM), file("tls.crt", cert), file("tls.key", key)
	w.startTypha(w.storeHost, "TYPHA_CAFILE="+caFile, "TYPHA_SERVERCERTFILE="+certFile, "TYPHA_SERVERKEYFILE="+keyFile, "TYPHA_CLIENTCN=test")
	tls := []string{"FELIX_TYPHACAFILE=" + caFile, "FELIX_TYPHACERTFILE=" + certFile, "FELIX_TYPHAKEYFILE=" + keyFile}
	w.startAgentThrough(storeAddr+":5473", append(tls, "FELIX_TYPHACN=other")...)
	w.eventually(20*time.Second, "the agent says why it does not believe typha", func() error {
		if code, body := w.health("readiness"); code < 500 || !strings.Contains(body, "not that of a permitted peer") {
			return fmt.Errorf("%d: %s", code, body)
		}
		return nil
	})
	w.agent.stop()
	w.startAgentThrough(storeAddr+":5473", append(tls, "FELIX_TYPHACN=test")...)
	w.awaitReady()
	w.awaitEnforced(w.apply(scrapers))
	if w.scrapes(w.other) || !w.scrapes(w.friend) {
		t.Error("another verdict than without TLS")
	}
}
