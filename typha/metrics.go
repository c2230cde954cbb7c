package typha

import (
	"net/http"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"
)

// metrics are what /metrics shows. A typha_ name is used where the meaning is that of the incumbent, with the
// label syncer="felix" where it has that; names without a counterpart start with margay_. Summaries of single deliveries
// take a sample of each client a second: at full load there are hundreds of thousands of them.
type metrics struct {
	registry *prometheus.Registry

	accepted, dropped, graceUsed      prometheus.Counter
	active, streaming                 prometheus.Gauge
	snapshotTime, latency, writeTime  prometheus.Summary
	pingTime, perMessage, crumbEvents prometheus.Summary
	snapshotsMade, snapshotsReused    prometheus.Counter
	snapshotRaw, snapshotCompressed   prometheus.Gauge
	sequence, cacheSize               prometheus.Gauge
	blocked, unblocked                prometheus.Counter
	updates, skipped, logErrors       prometheus.Counter
	connected                         prometheus.Gauge
	resumed                           prometheus.Counter
	refused, cut, requests            *prometheus.CounterVec
}

func newMetrics() *metrics {
	m := &metrics{registry: prometheus.NewRegistry()}
	m.registerConnections()
	m.registerStream()
	m.registerOwn()
	return m
}

func (m *metrics) registerConnections() {
	m.accepted = m.counter("typha_connections_accepted", "Connections accepted.", nil)
	m.dropped = m.counter("typha_connections_dropped", "Connections dropped so that clients spread over instances.", nil)
	m.active = m.gauge("typha_connections_active", "Open connections, those in their handshake included.", nil)
	m.streaming = m.gauge("typha_connections_streaming", "Clients that get the stream of changes.", felix())
	m.graceUsed = m.counter("typha_connections_grace_used", "Clients that were so far behind after their snapshot that only the grace period kept them.", felix())
}

func (m *metrics) registerStream() {
	m.snapshotTime = m.summary("typha_client_snapshot_send_secs", "Seconds that sending a snapshot to a client took.")
	m.latency = m.summary("typha_client_latency_secs", "Seconds from a change's arrival to its being written to a client; a sample of each client a second.")
	m.writeTime = m.summary("typha_client_write_latency_secs", "Seconds of one write to a client; a sample of each client a second.")
	m.pingTime = m.summary("typha_ping_latency", "Seconds from a ping to its answer.")
	m.perMessage = m.summary("typha_kvs_per_msg", "Objects in one crumb, as clients get it.")
	m.crumbEvents = m.summary("typha_breadcrumb_size", "Changes recorded in a breadcrumb.")
	m.snapshotsMade = m.counter("typha_snapshots_generated", "Snapshots encoded and compressed.", felix())
	m.snapshotsReused = m.counter("typha_snapshots_reused", "Snapshots that a client got from the cache.", felix())
	m.snapshotRaw = m.gauge("typha_snapshot_raw_bytes", "Bytes of the latest snapshot before compression.", felix())
	m.snapshotCompressed = m.gauge("typha_snapshot_compressed_bytes", "Bytes of the latest snapshot as it is sent.", felix())
	m.sequence = m.gauge("typha_breadcrumb_seq_number", "Number of the latest breadcrumb, local to this server.", felix())
	m.cacheSize = m.gauge("typha_cache_size", "Objects in the cache.", felix())
	m.blocked = m.counter("typha_breadcrumb_block", "Times that a client waited for the next breadcrumb.", felix())
	m.unblocked = m.counter("typha_breadcrumb_non_block", "Times that the next breadcrumb was there already.", felix())
	m.updates = m.counter("typha_updates_total", "Changes that the store delivered.", felix())
	m.skipped = m.counter("typha_updates_skipped", "Changes of the store that changed nothing.", felix())
	m.logErrors = m.counter("typha_log_errors", "Log lines that could not be written.", nil)
}

func (m *metrics) registerOwn() {
	m.connected = m.gauge("margay_store_connected", "1 while the store is followed, 0 while it cannot be.", nil)
	m.resumed = m.counter("margay_typha_resumed_total", "Clients that came back and needed no snapshot.", nil)
	m.refused = m.counterVec("margay_typha_handshakes_failed_total", "Connections that ended before a client had introduced itself, by reason.", "reason")
	m.cut = m.counterVec("margay_typha_clients_cut_total", "Clients that were cut off because they did not keep up or broke the protocol, by reason.", "reason")
	m.requests = m.counterVec("margay_typha_requests_total", "Requests of clients, by operation and result (ok, or why not).", "op", "result")
}

// felix is the label that the incumbent's metrics have for the kind of stream; there is one here.
func felix() prometheus.Labels { return prometheus.Labels{"syncer": "felix"} }

// quantiles are those of the incumbent's summaries.
func quantiles() map[float64]float64 {
	return map[float64]float64{0.5: 0.05, 0.9: 0.01, 0.99: 0.001}
}

func (m *metrics) counter(name, help string, labels prometheus.Labels) prometheus.Counter {
	c := prometheus.NewCounter(prometheus.CounterOpts{Name: name, Help: help, ConstLabels: labels})
	m.registry.MustRegister(c)
	return c
}

func (m *metrics) gauge(name, help string, labels prometheus.Labels) prometheus.Gauge {
	g := prometheus.NewGauge(prometheus.GaugeOpts{Name: name, Help: help, ConstLabels: labels})
	m.registry.MustRegister(g)
	return g
}

func (m *metrics) counterVec(name, help string, labels ...string) *prometheus.CounterVec {
	c := prometheus.NewCounterVec(prometheus.CounterOpts{Name: name, Help: help}, labels)
	m.registry.MustRegister(c)
	return c
}

func (m *metrics) summary(name, help string) prometheus.Summary {
	s := prometheus.NewSummary(prometheus.SummaryOpts{Name: name, Help: help, Objectives: quantiles(), ConstLabels: felix()})
	m.registry.MustRegister(s)
	return s
}

// runtime adds the collectors of the process.
func (m *metrics) runtime(golang, process bool) {
	if golang {
		m.registry.MustRegister(collectors.NewGoCollector())
	}
	if process {
		m.registry.MustRegister(collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	}
}

// build shows the version of the program.
func (m *metrics) build(version string) {
	g := prometheus.NewGaugeVec(prometheus.GaugeOpts{Name: "margay_build_info", Help: "Always 1; the label is the version of this program."}, []string{"version"})
	m.registry.MustRegister(g)
	g.WithLabelValues(version).Set(1)
}

// published notes a crumb; tip is not nil.
func (m *metrics) published(tip *crumb, events, objects int) {
	m.sequence.Set(float64(tip.seq))
	m.cacheSize.Set(float64(objects))
	m.crumbEvents.Observe(float64(events))
	connected := 1.0
	if tip.lost != nil {
		connected = 0
	}
	m.connected.Set(connected)
}

func (m *metrics) snapshotMade(s *snapshot) {
	m.snapshotsMade.Inc()
	m.snapshotRaw.Set(float64(s.raw))
	m.snapshotCompressed.Set(float64(s.compressed))
}

// sampled notes one delivery to a client.
func (m *metrics) sampled(c *crumb, written time.Duration, now time.Time) {
	m.latency.Observe(now.Sub(c.at).Seconds())
	m.writeTime.Observe(written.Seconds())
	m.perMessage.Observe(float64(c.events))
}

func (m *metrics) handler() http.Handler {
	mux := http.NewServeMux()
	mux.Handle("/metrics", promhttp.HandlerFor(m.registry, promhttp.HandlerOpts{MaxRequestsInFlight: 8}))
	return mux
}
