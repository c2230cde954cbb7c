package main

import (
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"

	v3 "margay/api/v3"
)

// BenchmarkStoreToKernel measures, with ten policies on the endpoint, from the store's acknowledgement of a write to the
// kernel's announcement that it has changed its rules, and how many netlink messages announced it. The announcement may
// come before the acknowledgement reaches the writer; that counts as no time.
func BenchmarkStoreToKernel(b *testing.B) {
	w := newWorld(b)
	w.useProduct(b)
	w.startAgent()
	w.awaitReady()
	for i := range 10 {
		w.apply(fmt.Sprintf(`
apiVersion: projectcalico.org/v3
kind: GlobalNetworkPolicy
metadata: {name: policy-%d}
spec:
  selector: role == "host"
  order: %d
  types: [Ingress]
  ingress:
  - {action: Deny, protocol: TCP, source: {notSelector: access == "true"}, destination: {ports: [%d]}}
`, i, 100+i, 9000+i))
	}
	w.awaitEnforced(w.apply(frame))
	for _, change := range []struct {
		name string
		make func(i int) v3.Resource
	}{
		{"policy", func(i int) v3.Resource {
			return one(b, strings.Replace(benchPolicy, "9005", fmt.Sprint(9100+i%100), 1))
		}},
		{"label", func(i int) v3.Resource { return one(b, strings.Replace(benchSet, "ACCESS", fmt.Sprint(i%2 != 0), 1)) }},
	} {
		b.Run(change.name, func(b *testing.B) { w.measure(b, change.make) })
	}
}

const benchPolicy = `
apiVersion: projectcalico.org/v3
kind: GlobalNetworkPolicy
metadata: {name: policy-5}
spec:
  selector: role == "host"
  order: 105
  types: [Ingress]
  ingress:
  - {action: Deny, protocol: TCP, source: {notSelector: access == "true"}, destination: {ports: [9005]}}
`

const benchSet = `
apiVersion: projectcalico.org/v3
kind: GlobalNetworkSet
metadata: {name: friends, labels: {access: 'ACCESS'}}
spec: {nets: [10.100.0.20/32]}
`

func one(t testing.TB, manifest string) v3.Resource {
	t.Helper()
	docs, err := v3.Decode("bench", []byte(manifest))
	if err != nil {
		t.Fatal(err)
	}
	return docs[0].Object
}

// measure writes b.N changes, each after the one before it reached the kernel.
func (w *world) measure(b *testing.B, resource func(i int) v3.Resource) {
	news := w.watchKernel(b)
	w.put(resource(-1))
	news.await(b, time.Now())
	var took []time.Duration
	messages := 0
	for i := 0; b.Loop(); i++ {
		news.reset()
		r := resource(i)
		w.put(r)
		acknowledged := time.Now()
		at, n := news.await(b, acknowledged)
		took = append(took, max(0, at.Sub(acknowledged)))
		messages += n
	}
	slices.Sort(took)
	report(b, "ms-p50", millis(quantile(took, 50)), 10)
	b.ReportMetric(millis(quantile(took, 99)), "ms-p99")
	b.ReportMetric(float64(messages)/float64(len(took)), "netlink-messages/op")
	reportLoad(b)
}

// kernelNews counts what the kernel announces of nftables on the host.
type kernelNews struct {
	mu       sync.Mutex
	changed  chan time.Time
	messages int
}

func (w *world) watchKernel(b *testing.B) *kernelNews {
	conn, err := netlink.Dial(unix.NETLINK_NETFILTER, &netlink.Config{NetNS: w.host.NetNS()})
	w.must(err)
	w.must(conn.JoinGroup(unix.NFNLGRP_NFTABLES))
	b.Cleanup(func() { _ = conn.Close() })
	k := &kernelNews{changed: make(chan time.Time, 1024)}
	go func() {
		for {
			messages, err := conn.Receive()
			if err != nil {
				return // closed
			}
			at := time.Now()
			for _, m := range messages {
				k.mu.Lock()
				k.messages++
				k.mu.Unlock()
				if m.Header.Type == unix.NFNL_SUBSYS_NFTABLES<<8|unix.NFT_MSG_NEWGEN {
					k.changed <- at
				}
			}
		}
	}()
	return k
}

func (k *kernelNews) reset() {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.messages = 0
}

// await returns when the next change was announced, and with how many messages, the one about the generation left out.
func (k *kernelNews) await(b *testing.B, since time.Time) (time.Time, int) {
	b.Helper()
	select {
	case at := <-k.changed:
		k.mu.Lock()
		defer k.mu.Unlock()
		return at, k.messages - 1
	case <-time.After(5 * time.Second):
		b.Fatalf("no change in the kernel %v after the store's acknowledgement", time.Since(since))
		return time.Time{}, 0
	}
}
