package kubernetes_test

import (
	"slices"
	"testing"
	"time"

	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

// What the kernel says of elements of nftables sets (linux/netfilter/nf_tables.h).
const (
	groupTables    = 7
	newSetElements = unix.NFNL_SUBSYS_NFTABLES<<8 | unix.NFT_MSG_NEWSETELEM
	delSetElements = unix.NFNL_SUBSYS_NFTABLES<<8 | unix.NFT_MSG_DELSETELEM
)

// An announcement is when the kernel of the node told that elements came or went.
type announcement struct {
	kind netlink.HeaderType
	at   time.Time
}

// listen tells what the kernel of the node says of set elements, until the test ends.
func (w *world) listen() <-chan announcement {
	w.Helper()
	conn, err := netlink.Dial(unix.NETLINK_NETFILTER, &netlink.Config{NetNS: w.node.NetNS(), Groups: 0})
	if err != nil {
		w.Fatal(err)
	}
	if err := conn.JoinGroup(groupTables); err != nil {
		w.Fatal(err)
	}
	w.Cleanup(func() { conn.Close() })
	heard := make(chan announcement, 1024)
	go func() {
		for {
			messages, err := conn.Receive()
			now := time.Now()
			if err != nil {
				return
			}
			for _, m := range messages {
				if m.Header.Type == newSetElements || m.Header.Type == delSetElements {
					heard <- announcement{m.Header.Type, now}
				}
			}
		}
	}()
	return heard
}

// BenchmarkLabelToKernel measures from the API server's answer to kubectl label to the kernel's announcement that the set
// has, or no longer has, the pod's address.
func BenchmarkLabelToKernel(b *testing.B) {
	w := newWorld(b)
	const others = 200
	pods(b, w.cluster, 0, others)
	podOn(b, w.cluster, podSpec{namespace: "default", name: "my-prometheus-pod", node: "node-2", ip: podAddr})
	w.startAgent()
	if out, err := w.margay(guide, "apply", "-f", "-", "--wait"); err != nil {
		b.Fatalf("apply: %v\n%s", err, out)
	}
	heard := w.listen()
	var took, whole []time.Duration
	change := func(value any, want netlink.HeaderType) {
		for len(heard) > 0 {
			<-heard
		}
		asked := time.Now()
		label(b, w, value)
		answered := time.Now()
		for {
			select {
			case a := <-heard:
				if a.kind == want {
					took, whole = append(took, a.at.Sub(answered)), append(whole, a.at.Sub(asked))
					return
				}
			case <-time.After(30 * time.Second):
				b.Fatal("the set does not change")
			}
		}
	}
	for b.Loop() {
		change("true", newSetElements)
		change(nil, delSetElements)
	}
	ms := func(times []time.Duration, percent int) float64 {
		sorted := slices.Sorted(slices.Values(times))
		return float64(sorted[min(len(sorted)*percent/100, len(sorted)-1)].Microseconds()) / 1000
	}
	b.ReportMetric(ms(took, 50), "p50-ms")
	b.ReportMetric(ms(took, 99), "p99-ms")
	b.ReportMetric(ms(whole, 50), "p50-from-request-ms")
	b.ReportMetric(20, "p50-ms-target")
	b.Logf("%d changes, %d other pods", len(took), others)
}
