package main

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"

	v3 "margay/api/v3"
)

// BenchmarkStoreToKernel measures, with ten policies on the endpoint, from the store's acknowledgement of a write to the
// kernel's announcement of the transaction that brings what was written, and how many netlink messages announced it. The
// announcement may come before the acknowledgement reaches the writer; that counts as no time. What nothing refers to any
// more goes in a transaction of its own, which changes no verdict: its messages are shown apart.
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
	b.Run("policy", func(b *testing.B) {
		w.measure(b, func(i int) (v3.Resource, []byte) {
			port := uint16(9100 + (i+100)%100)
			return one(b, strings.Replace(benchPolicy, "9005", fmt.Sprint(port), 1)), binary.BigEndian.AppendUint16(nil, port)
		})
	})
	b.Run("label", func(b *testing.B) {
		w.measure(b, func(i int) (v3.Resource, []byte) {
			return one(b, strings.Replace(benchSet, "ACCESS", fmt.Sprint(i%2 != 0), 1)), netip.MustParseAddr(friendAddr).AsSlice()
		})
	})
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

// measure writes b.N changes, each after the one before it reached the kernel. resource returns the i-th and what tells the
// kernel's elements of it from those of the one before.
func (w *world) measure(b *testing.B, resource func(i int) (v3.Resource, []byte)) {
	first, _ := resource(-1)
	w.awaitEnforced(w.put(first))
	news := w.watchKernel(b)
	var took []time.Duration
	messages, others := 0, 0
	for i := 0; b.Loop(); i++ {
		r, mark := resource(i)
		w.put(r)
		acknowledged := time.Now()
		t, before := news.await(b, mark)
		took = append(took, max(0, t.at.Sub(acknowledged)))
		messages, others = messages+len(t.messages), others+before
	}
	slices.Sort(took)
	report(b, "ms-p50", millis(quantile(took, 50)), 10)
	b.ReportMetric(millis(quantile(took, 99)), "ms-p99")
	b.ReportMetric(float64(messages)/float64(len(took)), "netlink-messages/op")
	b.ReportMetric(float64(others)/float64(len(took)), "cleaning-messages/op")
	reportLoad(b)
}

// kernelNews are the transactions of nftables that the kernel of the host announces.
type kernelNews chan transaction

// A transaction is what the kernel told of it before it told of the generation that it made, and when it did.
type transaction struct {
	at       time.Time
	messages []netlink.Message
}

// watchKernel listens from now on.
func (w *world) watchKernel(b *testing.B) kernelNews {
	conn, err := netlink.Dial(unix.NETLINK_NETFILTER, &netlink.Config{NetNS: w.host.NetNS()})
	w.must(err)
	w.must(conn.JoinGroup(unix.NFNLGRP_NFTABLES))
	b.Cleanup(func() { _ = conn.Close() })
	news := make(kernelNews, 1024)
	go func() {
		var t transaction
		for {
			messages, err := conn.Receive()
			if err != nil {
				return // closed
			}
			t.at = time.Now()
			for _, m := range messages {
				if m.Header.Type != nftType(unix.NFT_MSG_NEWGEN) {
					t.messages = append(t.messages, m)
					continue
				}
				news <- t
				t.messages = nil
			}
		}
	}()
	return news
}

func nftType(message int) netlink.HeaderType {
	return netlink.HeaderType(unix.NFNL_SUBSYS_NFTABLES<<8 | message)
}

// await returns the next transaction that adds or removes an element with the mark, and the number of messages of those
// before it.
func (k kernelNews) await(b *testing.B, mark []byte) (t transaction, before int) {
	b.Helper()
	for deadline := time.After(20 * time.Second); ; {
		select {
		case t = <-k:
			if t.brings(mark) {
				return t, before
			}
			before += len(t.messages)
		case <-deadline:
			b.Fatal("no transaction brought the change into the kernel")
		}
	}
}

// brings reports whether elements with the mark come or go.
func (t *transaction) brings(mark []byte) bool {
	return slices.ContainsFunc(t.messages, func(m netlink.Message) bool {
		element := m.Header.Type == nftType(unix.NFT_MSG_NEWSETELEM) || m.Header.Type == nftType(unix.NFT_MSG_DELSETELEM)
		return element && bytes.Contains(m.Data, mark)
	})
}
