package controllers

import (
	"net/http"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"
)

// metrics are what /metrics shows. The incumbent's own are about addresses and migrations, which are not done here; the
// registry is the instance's own, so that several can live in one process.
type metrics struct {
	registry  *prometheus.Registry
	leader    prometheus.Gauge
	connected *prometheus.GaugeVec
	writes    *prometheus.CounterVec
	pending   *prometheus.GaugeVec
	problems  *prometheus.GaugeVec
	healthy   *prometheus.GaugeVec
	notices   *prometheus.CounterVec
}

func newMetrics(version string) *metrics {
	m := &metrics{
		registry: prometheus.NewRegistry(),
		leader:   prometheus.NewGauge(prometheus.GaugeOpts{Name: "margay_controllers_leader", Help: "1 while this instance leads."}),
		connected: gauges("margay_controllers_connected", "1 while the store is followed, 0 while it cannot be reached, by side (kubernetes, datastore).",
			"side"),
		writes: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "margay_controllers_writes_total",
			Help: "Writes to the datastore, by controller, operation (create, update, delete) and result (ok, error)."}, []string{"controller", "operation", "result"}),
		pending:  gauges("margay_controllers_pending", "Objects that are still to be compared or written.", "controller"),
		problems: gauges("margay_controllers_problems", "Objects that cannot be brought in line, as the log names them.", "controller"),
		healthy:  gauges("margay_controllers_ready", "1 for every part that is ready.", "component"),
		notices: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "margay_controllers_notices_total",
			Help: "Warnings of agents that were shown as Events of Kubernetes, by result (ok, error)."}, []string{"result"}),
	}
	build := gauges("margay_build_info", "Always 1; the label is the version of this program.", "version")
	build.WithLabelValues(version).Set(1)
	m.registry.MustRegister(m.leader, m.connected, m.writes, m.pending, m.problems, m.healthy, m.notices, build,
		collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	return m
}

func gauges(name, help string, labels ...string) *prometheus.GaugeVec {
	return prometheus.NewGaugeVec(prometheus.GaugeOpts{Name: name, Help: help}, labels)
}

// count shows how far the engine is.
func (m *metrics) count(e *engine) {
	pending, problems := make([]int, len(e.controllers)), make([]int, len(e.controllers))
	for w := range e.pending {
		pending[w.controller]++
	}
	for w := range e.problems {
		problems[w.controller]++
	}
	for i, c := range e.controllers {
		m.pending.WithLabelValues(c.name()).Set(float64(pending[i]))
		m.problems.WithLabelValues(c.name()).Set(float64(problems[i]))
	}
}

// idle shows that nothing is worked on.
func (m *metrics) idle(controllers []controller) {
	for _, c := range controllers {
		m.pending.DeleteLabelValues(c.name())
		m.problems.DeleteLabelValues(c.name())
	}
	m.connected.Reset()
}

func (m *metrics) handler() http.Handler {
	mux := http.NewServeMux()
	mux.Handle("/metrics", promhttp.HandlerFor(m.registry, promhttp.HandlerOpts{MaxRequestsInFlight: 10}))
	return mux
}
