package node

import (
	"context"
	"strings"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"margay/ruleset"
)

// Bounds of what scrapes may cost: the kernel is read at most once in countersAge, and for no more than a twentieth of the
// time, however many scrape and however much there is to read. A scrape waits for a reading no longer than
// countersPatience and shows the last one then; a reading that the kernel's rules keep changing under is given up after
// countersTimeout.
const (
	countersAge      = time.Second
	countersShare    = 20
	countersPatience = time.Second
	countersTimeout  = 30 * time.Second
)

// A counterCollector shows what the dataplane counted, by policy. It reads when somebody scrapes.
type counterCollector struct {
	read   func(context.Context) ([]ruleset.Counter, error)
	now    func() time.Time
	errors prometheus.Counter

	mu      sync.Mutex
	next    time.Time     // no reading begins before
	running chan struct{} // closed at the end of the reading under way; nil: there is none
	decided counted
	staged  counted // what staged policies would have decided
}

// counted are the sums that scrapes show.
type counted struct {
	policy map[policyLabels]total
	other  map[otherLabels]total
}

// policyLabels are the labels of what rules of policies and profiles counted, otherLabels of the rest.
type policyLabels struct{ kind, namespace, name, tier, stage, direction, action string }

type otherLabels struct{ cause, tier, stage, direction, action string }

type total struct{ packets, bytes float64 }

// watchCounters adds the counters of policies; read may be nil.
func (m *metrics) watchCounters(read func(context.Context) ([]ruleset.Counter, error)) {
	if read == nil {
		return
	}
	failures := m.counter("margay_policy_counter_errors_total", "Times that the counters of the kernel could not be read; the last ones are shown then.")
	m.registry.MustRegister(&counterCollector{read: read, now: time.Now, errors: failures})
}

// Describe implements prometheus.Collector: which metrics there are depends on what is enforced, so it describes none.
func (c *counterCollector) Describe(chan<- *prometheus.Desc) {}

// counterDescs are the metrics of a counted.
type counterDescs struct{ policyPackets, policyBytes, otherPackets, otherBytes *prometheus.Desc }

func newCounterDescs(prefix, policyHelp, otherHelp string) counterDescs {
	policy := []string{"kind", "namespace", "name", "tier", "stage", "direction", "action"}
	other := []string{"cause", "tier", "stage", "direction", "action"}
	const what = " that policy was asked about (of an allowed flow the first ones) and that "
	return counterDescs{
		prometheus.NewDesc(prefix+"policy_packets_total", "Packets"+what+policyHelp, policy, nil),
		prometheus.NewDesc(prefix+"policy_bytes_total", "Bytes of packets"+what+policyHelp, policy, nil),
		prometheus.NewDesc(prefix+"default_packets_total", "Packets"+what+otherHelp, other, nil),
		prometheus.NewDesc(prefix+"default_bytes_total", "Bytes of packets"+what+otherHelp, other, nil),
	}
}

// Collect implements prometheus.Collector.
func (c *counterCollector) Collect(out chan<- prometheus.Metric) {
	c.await(c.refresh())
	c.mu.Lock()
	defer c.mu.Unlock()
	c.decided.collect(out, newCounterDescs("margay_", "a rule of this policy or profile matched.", "no rule decided, but this cause."))
	c.staged.collect(out, newCounterDescs("margay_staged_", "a rule of this staged policy would have decided, if all staged policies were enforced.",
		"this cause would have decided, if all staged policies were enforced."))
}

func (n *counted) collect(out chan<- prometheus.Metric, descs counterDescs) {
	send := func(desc *prometheus.Desc, value float64, labels ...string) {
		out <- prometheus.MustNewConstMetric(desc, prometheus.CounterValue, value, labels...)
	}
	for l, t := range n.policy {
		labels := []string{l.kind, l.namespace, l.name, l.tier, l.stage, l.direction, l.action}
		send(descs.policyPackets, t.packets, labels...)
		send(descs.policyBytes, t.bytes, labels...)
	}
	for l, t := range n.other {
		labels := []string{l.cause, l.tier, l.stage, l.direction, l.action}
		send(descs.otherPackets, t.packets, labels...)
		send(descs.otherBytes, t.bytes, labels...)
	}
}

// refresh begins a reading if one is due, and returns when the one under way ends, nil if there is none.
func (c *counterCollector) refresh() <-chan struct{} {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.running == nil && !c.now().Before(c.next) {
		c.running = make(chan struct{})
		go c.reading(c.running)
	}
	return c.running
}

func (c *counterCollector) await(done <-chan struct{}) {
	if done == nil {
		return
	}
	select {
	case <-done:
	case <-time.After(countersPatience):
	}
}

// reading reads once. After an error the last values stay: a counter that is gone for a moment looks like one that began
// anew.
func (c *counterCollector) reading(done chan struct{}) {
	begin := c.now()
	ctx, cancel := context.WithTimeout(context.Background(), countersTimeout)
	defer cancel()
	counters, err := c.read(ctx)
	c.mu.Lock()
	defer c.mu.Unlock()
	if err != nil {
		c.errors.Inc()
	} else {
		c.decided, c.staged = newCounted(), newCounted()
		for i := range counters {
			if counters[i].Staged {
				c.staged.add(&counters[i])
			} else {
				c.decided.add(&counters[i])
			}
		}
	}
	c.next = begin.Add(max(countersAge, countersShare*c.now().Sub(begin)))
	c.running = nil
	close(done)
}

func newCounted() counted {
	return counted{map[policyLabels]total{}, map[otherLabels]total{}}
}

func (c *counted) add(n *ruleset.Counter) {
	plus := func(t total) total { return total{t.packets + float64(n.Packets), t.bytes + float64(n.Bytes)} }
	stage, direction, action := n.Stage.String(), n.Direction.String(), n.Action.String()
	if n.Note == "" && (n.Reason == ruleset.PolicyRule || n.Reason == ruleset.ProfileRule) {
		l := policyLabels{n.Policy.Kind, n.Policy.Namespace, n.Policy.Name, n.Tier, stage, direction, action}
		c.policy[l] = plus(c.policy[l])
		return
	}
	cause := n.Note
	if cause == "" {
		cause = n.Reason.String()
	}
	l := otherLabels{strings.ToValidUTF8(cause, "?"), n.Tier, stage, direction, action}
	c.other[l] = plus(c.other[l])
}
