package main

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/nftables"

	v3 "margay/api/v3"
)

// frame is what holds in every survival test: UDP 7001 is always allowed, 7002 is denied by the first policy there is, and
// 7003 because nothing allows it.
const frame = `
apiVersion: projectcalico.org/v3
kind: GlobalNetworkPolicy
metadata: {name: frame}
spec:
  selector: role == "host"
  order: 1
  types: [Ingress]
  ingress:
  - {action: Allow, protocol: UDP, destination: {ports: [7001]}}
  - {action: Deny, protocol: UDP, destination: {ports: [7002]}}
---
apiVersion: projectcalico.org/v3
kind: HostEndpoint
metadata: {name: host-a.eth0, labels: {role: host}}
spec: {node: host-a, interfaceName: eth0, expectedIPs: [10.100.0.15]}
`

// trains are probes of the three ports of frame.
type trains struct{ allowed, denied, never *train }

func (w *world) startTrains() trains {
	w.Helper()
	return trains{w.startTrain(w.other, 7001), w.startTrain(w.other, 7002), w.startTrain(w.other, 7003)}
}

func (t trains) check() {
	t.allowed.w.Helper()
	t.allowed.allPass()
	t.denied.nonePasses()
	t.never.nonePasses()
}

// framed returns a world in which frame is enforced.
func framed(t *testing.T) *world {
	t.Helper()
	w := newWorld(t)
	w.startAgent()
	w.awaitReady()
	w.awaitEnforced(w.apply(frame))
	return w
}

// TestRandomSteps applies and deletes at random, kills the agent again and again and the store once, and expects the
// kernel at the end to be what a fresh compile gives, with no probe lost or leaked on the way.
func TestRandomSteps(t *testing.T) {
	t.Parallel()
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	rnd := rand.New(rand.NewPCG(seed, 0))
	w := framed(t)
	probes := w.startTrains()
	const steps = 1000
	for step := range steps {
		w.randomStep(rnd)
		switch {
		case step%97 == 50:
			w.agent.kill()
			w.startAgent()
		case step == steps/2:
			w.storeProcess.kill()
			w.startStore()
		}
	}
	last := w.apply(`{apiVersion: projectcalico.org/v3, kind: GlobalNetworkPolicy, metadata: {name: last}, spec: {order: 9}}`)
	w.awaitEnforced(last)
	probes.check()
	w.eventually(5*time.Second, "the kernel equals a fresh compile", func() error { return w.differs(w.program()) })
}

// randomStep writes or deletes one object. Nothing it writes comes before frame.
func (w *world) randomStep(rnd *rand.Rand) {
	w.Helper()
	name := fmt.Sprintf("noise-%d", rnd.IntN(8))
	kinds := []v3.Kind{v3.KindGlobalNetworkPolicy, v3.KindGlobalNetworkSet, v3.KindHostEndpoint, v3.KindTier}
	kind := kinds[rnd.IntN(len(kinds))]
	if rnd.IntN(3) == 0 {
		if kind != v3.KindTier { // a tier in use refuses; its own test is elsewhere
			w.remove(v3.Key{Kind: kind, Name: name})
		}
		return
	}
	head := fmt.Sprintf("apiVersion: projectcalico.org/v3\nkind: %s\nmetadata: {name: %s, labels: {team: t%d}}\n", kind, name, rnd.IntN(4))
	switch kind {
	case v3.KindGlobalNetworkPolicy:
		actions := []string{"Allow", "Deny", "Pass", "Log"}
		w.apply(head + fmt.Sprintf(`spec:
  selector: role == "host"
  order: %d
  types: [Ingress]
  ingress:
  - {action: %s, protocol: UDP, source: {selector: 'team == "t%d"'}, destination: {ports: [%d]}}
  - {action: %s, protocol: TCP, source: {notSelector: 'team == "t%d"'}, destination: {ports: ["%d:9999"]}}
`, 10+rnd.IntN(50), actions[rnd.IntN(4)], rnd.IntN(4), 8000+rnd.IntN(20), actions[rnd.IntN(4)], rnd.IntN(4), 8000+rnd.IntN(20)))
	case v3.KindGlobalNetworkSet:
		w.apply(head + fmt.Sprintf("spec: {nets: [192.0.2.%d/32, 198.51.%d.0/24, '2001:db8:%d::/48']}\n", rnd.IntN(255), rnd.IntN(255), rnd.IntN(255)))
	case v3.KindHostEndpoint:
		w.apply(head + fmt.Sprintf("spec: {node: host-%c, interfaceName: eth%d, expectedIPs: [203.0.113.%d]}\n", 'a'+rnd.IntN(2), 1+rnd.IntN(3), rnd.IntN(255)))
	case v3.KindTier:
		w.apply(head + fmt.Sprintf("spec: {order: %d}\n", 100+rnd.IntN(100)))
	}
}

// TestKilledAndStopped kills the agent, stops it, starts it again over its own rules, and counts probes all the while.
func TestKilledAndStopped(t *testing.T) {
	t.Parallel()
	w := framed(t)
	probes := w.startTrains()
	for range 5 {
		w.agent.kill()
		w.startAgent()
		w.awaitReady()
		w.agent.stop()
		w.startAgent()
		w.awaitReady()
	}
	if code := w.tryCleanUp(); code == 0 {
		t.Error("the rules are cleaned up while the agent runs, which puts them back")
	}
	w.agent.stop()
	probes.check()
	w.must(w.differs(w.program()))
	w.cleanUp()
	conn, err := nftables.New(nftables.WithNetNSFd(w.host.NetNS()))
	w.must(err)
	if tables, err := conn.ListTables(); err != nil || len(tables) != 0 {
		t.Errorf("after cleanup there are %d tables, %v", len(tables), err)
	}
	probe := w.startTrain(w.other, 7004)
	probe.allPass()
}

// cleanUp runs margay node --cleanup on the host.
func (w *world) cleanUp() {
	w.Helper()
	if code := w.tryCleanUp(); code != 0 {
		w.Fatalf("cleanup ended with %d", code)
	}
}

// tryCleanUp returns the exit code of margay node --cleanup.
func (w *world) tryCleanUp() int {
	p := w.start(w.host, nil, "node", "--cleanup", "--state-dir", w.dir+"/node")
	<-p.done
	w.Logf("cleanup: %s", p.log)
	return p.ProcessState.ExitCode()
}

// TestFrozenStore stops the etcd server's clock for a minute, kills it, and expects the agent to go on where it was.
func TestFrozenStore(t *testing.T) {
	t.Parallel()
	frozen := time.Minute
	if testing.Short() {
		frozen = 20 * time.Second
	}
	w := framed(t)
	probes := w.startTrains()
	w.must(w.storeProcess.Process.Signal(syscall.SIGSTOP))
	<-time.After(frozen)
	w.must(w.storeProcess.Process.Signal(syscall.SIGCONT))
	start := time.Now()
	w.awaitEnforced(w.put(denySSH("after-frost")))
	t.Logf("in sync %v after the frost", time.Since(start).Round(time.Millisecond))
	w.storeProcess.kill()
	w.startStore()
	start = time.Now()
	w.awaitEnforced(w.put(denySSH("after-restart")))
	t.Logf("in sync %v after the restart", time.Since(start).Round(time.Millisecond))
	probes.check()
	w.eventually(5*time.Second, "the kernel equals a fresh compile", func() error { return w.differs(w.program()) })
}

func denySSH(name string) v3.Resource {
	docs, err := v3.Decode("test", []byte(fmt.Sprintf(`
apiVersion: projectcalico.org/v3
kind: GlobalNetworkPolicy
metadata: {name: %s}
spec:
  selector: role == "host"
  order: 20
  types: [Ingress]
  ingress: [{action: Deny, protocol: TCP, destination: {ports: [2222]}}]
`, name)))
	if err != nil {
		panic(err) // the text above is constant
	}
	return docs[0].Object
}

// scrapers is the guide's deny-list, on the host's metrics.
const scrapers = `
apiVersion: projectcalico.org/v3
kind: GlobalNetworkPolicy
metadata: {name: default-host}
spec:
  selector: role == "host"
  order: 5000
  ingress: [{action: Allow}]
  egress: [{action: Allow}]
---
apiVersion: projectcalico.org/v3
kind: GlobalNetworkPolicy
metadata: {name: restrict}
spec:
  selector: role == "host"
  order: 500
  types: [Ingress]
  ingress:
  - {action: Deny, protocol: TCP, source: {notSelector: access == "true"}, destination: {ports: [9091]}}
---
apiVersion: projectcalico.org/v3
kind: GlobalNetworkSet
metadata: {name: friends, labels: {access: 'true'}}
spec: {nets: [10.100.0.20/32]}
---
apiVersion: projectcalico.org/v3
kind: HostEndpoint
metadata: {name: host-a.eth0, labels: {role: host}}
spec: {node: host-a, interfaceName: eth0, expectedIPs: [10.100.0.15]}
`

// TestUnusableStoredValues writes past the store's rules what does not decode and what does not parse: what was in force
// stays in force, over a restart of the agent too, is named, and everything else goes on.
func TestUnusableStoredValues(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ name, value string }{
		{"garbage", "\x00\xff not JSON"},
		{"empty", ""},
		{"selector", `{"kind":"GlobalNetworkPolicy","apiVersion":"projectcalico.org/v3","metadata":{"name":"restrict"},"spec":{"selector":"role = \"host\"","order":500}}`},
		{"rule selector", `{"kind":"GlobalNetworkPolicy","apiVersion":"projectcalico.org/v3","metadata":{"name":"restrict"},"spec":{"selector":"role == \"host\"","order":500,"types":["Ingress"],"ingress":[{"action":"Deny","source":{"notSelector":"access ="}}]}}`},
		{"wrong type", `{"kind":"GlobalNetworkPolicy","apiVersion":"projectcalico.org/v3","metadata":{"name":"restrict"},"spec":{"selector":7}}`},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			testUnusable(t, c.value)
		})
	}
}

func testUnusable(t *testing.T, value string) {
	w := newWorld(t)
	w.startAgent()
	w.awaitReady()
	w.awaitEnforced(w.apply(scrapers))
	check := func(when string) {
		t.Helper()
		if w.scrapes(w.other) {
			t.Errorf("%s: the stranger scrapes", when)
		}
		w.eventually(10*time.Second, when+": the friend scrapes", func() error {
			if !w.scrapes(w.friend) {
				return errors.New("no answer within a second")
			}
			return nil
		})
	}
	check("before")
	const key = "/calico/resources/v3/projectcalico.org/globalnetworkpolicies/restrict"
	_, err := w.raw.Put(w.ctx(), key, value)
	w.must(err)
	w.awaitNamed("GlobalNetworkPolicy(restrict)")
	check("with the unusable value")
	w.agent.kill()
	w.startAgent()
	w.awaitReady()
	w.awaitNamed("GlobalNetworkPolicy(restrict)")
	check("after a restart with the unusable value")
	w.remove(v3.Key{Kind: v3.KindGlobalNetworkSet, Name: "friends"})
	w.eventually(5*time.Second, "other changes go on: the friend is out", func() error {
		if w.scrapes(w.friend) {
			return fmt.Errorf("still scrapes")
		}
		return nil
	})
	_, err = w.raw.Delete(w.ctx(), key)
	w.must(err)
	w.eventually(5*time.Second, "the fault is gone when the value is", func() error {
		if _, body := get(w.host, "http://127.0.0.1:9091/metrics"); strings.Contains(body, "margay_store_faults{") {
			return fmt.Errorf("still in the metrics")
		}
		if !w.scrapes(w.other) {
			return fmt.Errorf("deleted, and still in force")
		}
		return nil
	})
}

// awaitNamed waits until readiness detail, metrics and status name the object.
func (w *world) awaitNamed(object string) {
	w.Helper()
	w.eventually(10*time.Second, "the fault is named", func() error {
		if _, body := w.health("readiness"); !strings.Contains(body, object) {
			return fmt.Errorf("readiness says: %s", body)
		}
		if _, body := get(w.host, "http://127.0.0.1:9091/metrics"); !strings.Contains(body, `margay_store_faults{kind="GlobalNetworkPolicy",name="restrict"`) {
			return fmt.Errorf("not in the metrics")
		}
		statuses, err := w.store.Statuses(w.ctx())
		if err != nil || len(statuses) != 1 || len(statuses[0].Faults) != 1 || !strings.Contains(statuses[0].Faults[0], object) {
			return fmt.Errorf("statuses %+v: %v", statuses, err)
		}
		return nil
	})
	if !strings.Contains(w.agent.log.String(), object) {
		w.Errorf("the log does not name %s", object)
	}
}

// TestReadiness expects readiness to be given after the rules are in the kernel, not before, and not while there is no
// store to learn them from.
func TestReadiness(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.apply(scrapers)
	w.storeProcess.kill()
	w.startAgent()
	w.eventually(10*time.Second, "the agent answers", func() error {
		if code, _ := w.health("liveness"); code == 0 {
			return fmt.Errorf("no answer")
		}
		return nil
	})
	for range 50 {
		if code, body := w.health("readiness"); code < 500 {
			t.Fatalf("ready (%d) without a store: %s", code, body)
		}
	}
	w.startStore()
	w.awaitReady()
	w.must(w.differs(w.program()))
	if w.scrapes(w.other) {
		t.Error("ready, and the port is open")
	}
}

// TestOwnConnection expects the agent to keep its connection to a store on a port that no failsafe covers, when the
// first endpoint appears and only established flows hold it open.
func TestOwnConnection(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.startAgent()
	w.awaitReady()
	w.apply(`{apiVersion: projectcalico.org/v3, kind: FelixConfiguration, metadata: {name: default}, spec: {failsafeInboundHostPorts: [], failsafeOutboundHostPorts: []}}`)
	w.awaitEnforced(w.apply(frame))
	for i := range 5 {
		start := time.Now()
		w.awaitEnforced(w.put(denySSH(fmt.Sprintf("step-%d", i))))
		if took := time.Since(start); took > 5*time.Second { // an untracked connection stalls for ten
			t.Errorf("change %d took %v", i, took)
		}
	}
	p := w.program()
	p.Settings.FailsafeIngress, p.Settings.FailsafeEgress = nil, nil
	w.must(w.differs(p))
}
