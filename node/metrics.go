package node

import (
	"net/http"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"margay/calc"
)

// metrics are what /metrics shows. A felix_ name is used where the meaning is that of Felix; names without a
// counterpart start with margay_. The registry is the agent's own, so that several agents can live in one process.
type metrics struct {
	registry *prometheus.Registry
	runtime  map[string]prometheus.Collector // switchable collectors, by name
	on       map[string]bool
	scraped  chan struct{} // kicked when somebody has been answered

	host          *prometheus.GaugeVec
	build         *prometheus.GaugeVec
	gauges        map[string]prometheus.Gauge // those of calc.Counts, by name
	selectors     *prometheus.GaugeVec
	resyncState   prometheus.Gauge
	resyncs       prometheus.Counter
	updates       *prometheus.CounterVec
	outputs       prometheus.Counter
	updateTime    prometheus.Summary
	applyTime     prometheus.Summary
	batchSize     prometheus.Summary
	initialResync prometheus.Gauge
	failures      prometheus.Counter
	latency       prometheus.Histogram
	faults        *prometheus.GaugeVec
	connected     prometheus.Gauge
	disturbances  prometheus.Counter
	problems      prometheus.Gauge
	warnings      prometheus.Gauge
	reports       *prometheus.CounterVec
	logErrors     prometheus.Counter
}

// The values of felix_resync_state.
const (
	resyncWaiting = 1 // for the store
	resyncRunning = 2 // the store is known, the kernel not yet programmed
	resyncDone    = 3
)

// quantiles are those of Felix's summaries.
var quantiles = map[float64]float64{0.5: 0.05, 0.9: 0.01, 0.99: 0.001}

// The names of the switchable collectors.
const (
	goCollector      = "go"
	processCollector = "process"
)

func newMetrics(host, version string) *metrics {
	m := &metrics{
		registry: prometheus.NewRegistry(),
		runtime: map[string]prometheus.Collector{
			goCollector:      collectors.NewGoCollector(),
			processCollector: collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}),
		},
		on: map[string]bool{}, scraped: make(chan struct{}, 1),
	}
	m.registerFelix()
	m.registerOwn()
	m.host.WithLabelValues(host).Set(1)
	m.build.WithLabelValues(version).Set(1)
	m.resyncState.Set(resyncWaiting)
	return m
}

// registerFelix makes the metrics that Felix has, too.
func (m *metrics) registerFelix() {
	m.host = m.gaugeVec("felix_host", "Always 1; the label is the name by which this host is known in the store.", "host")
	m.gauges = map[string]prometheus.Gauge{}
	for name, help := range map[string]string{
		"felix_label_index_num_endpoints":      "Endpoints and network sets whose labels rule selectors are matched with.",
		"felix_active_local_endpoints":         "Endpoints of this host.",
		"felix_active_local_policies":          "Policies that apply to at least one endpoint on this host.",
		"felix_active_local_selectors":         "Address sets that the rules on this host use.",
		"felix_cluster_num_hosts":              "Nodes in the store.",
		"felix_cluster_num_host_endpoints":     "Host endpoints in the store, of all hosts.",
		"felix_cluster_num_workload_endpoints": "Workload endpoints in the store, of all hosts.",
		"felix_cluster_num_policies":           "Policies in the store.",
		"felix_cluster_num_profiles":           "Profiles in the store.",
		"felix_cluster_num_tiers":              "Tiers in the store.",
	} {
		m.gauges[name] = m.gauge(name, help)
	}
	m.selectors = m.gaugeVec("felix_label_index_num_active_selectors",
		"Rule selectors in use; optimized: labels lead to them, instead of every object being tried.", "optimized")
	m.resyncState = m.gauge("felix_resync_state", "1: waiting for the store; 2: the store is known and the kernel is being programmed; 3: in sync.")
	m.resyncs = m.counter("felix_resyncs_started", "Times that the kernel's whole state was compared with what it should be.")
	m.updates = m.counterVec("felix_calc_graph_updates_processed", "Changes of stored objects taken in, by kind.", "type")
	m.outputs = m.counter("felix_calc_graph_output_events", "Endpoints, policies, profiles and sets handed to the dataplane as changed.")
	m.updateTime = m.summary("felix_calc_graph_update_time_seconds", "Seconds to calculate what a batch of changes means for this host.")
	m.applyTime = m.summary("felix_int_dataplane_apply_time_seconds", "Seconds of one change of the kernel, the first one excepted.")
	m.batchSize = m.summary("felix_int_dataplane_msg_batch_size", "Changes of stored objects that went to the kernel in one transaction.")
	m.initialResync = m.gauge("felix_int_dataplane_initial_resync_time_seconds", "Seconds that the first programming of the kernel took.")
	m.failures = m.counter("felix_int_dataplane_failures", "Changes of the kernel that failed and were tried again.")
	m.logErrors = m.counter("felix_log_errors", "Log lines that could not be written.")
}

// registerOwn makes the metrics that only this agent has.
func (m *metrics) registerOwn() {
	m.build = m.gaugeVec("margay_build_info", "Always 1; the label is the version of this program.", "version")
	m.latency = prometheus.NewHistogram(prometheus.HistogramOpts{
		Name: "margay_change_latency_seconds", Help: "Seconds from the arrival of a change of the store to its being in the kernel.",
		Buckets: []float64{.0005, .001, .002, .005, .01, .02, .05, .1, .5, 1, 5, 30},
	})
	m.registry.MustRegister(m.latency)
	m.faults = m.gaugeVec("margay_store_faults", "1 for every stored object that cannot be used; its last good version stays in force.", "kind", "name")
	m.connected = m.gauge("margay_store_connected", "1 while the store is followed, 0 while it cannot be reached.")
	m.disturbances = m.counter("margay_dataplane_disturbances_total", "Times that somebody else changed what this agent programmed.")
	m.problems = m.gauge("margay_parameter_problems", "Parameters that are set to a value that cannot be used.")
	m.warnings = m.gauge("margay_policy_warnings", "Conflicts and traps in the policy of this host, as the log names them.")
	m.reports = m.counterVec("margay_status_reports_total", "Reports of this agent's status to the store, by result (ok, error).", "result")
}

func (m *metrics) gauge(name, help string) prometheus.Gauge {
	g := prometheus.NewGauge(prometheus.GaugeOpts{Name: name, Help: help})
	m.registry.MustRegister(g)
	return g
}

func (m *metrics) gaugeVec(name, help string, labels ...string) *prometheus.GaugeVec {
	g := prometheus.NewGaugeVec(prometheus.GaugeOpts{Name: name, Help: help}, labels)
	m.registry.MustRegister(g)
	return g
}

func (m *metrics) counter(name, help string) prometheus.Counter {
	c := prometheus.NewCounter(prometheus.CounterOpts{Name: name, Help: help})
	m.registry.MustRegister(c)
	return c
}

func (m *metrics) counterVec(name, help, label string) *prometheus.CounterVec {
	c := prometheus.NewCounterVec(prometheus.CounterOpts{Name: name, Help: help}, []string{label})
	m.registry.MustRegister(c)
	return c
}

func (m *metrics) summary(name, help string) prometheus.Summary {
	s := prometheus.NewSummary(prometheus.SummaryOpts{Name: name, Help: help, Objectives: quantiles})
	m.registry.MustRegister(s)
	return s
}

// watchHealth adds what the readiness endpoint says.
func (m *metrics) watchHealth(h *health) {
	m.registry.MustRegister(prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "margay_ready", Help: "1 when the readiness endpoint says so.",
	}, func() float64 {
		if ready, _ := h.ready(); ready {
			return 1
		}
		return 0
	}))
}

// watchDataplane adds what the dataplane counts, read when somebody scrapes.
func (m *metrics) watchDataplane(stats func() DataplaneStats) {
	m.registry.MustRegister(&dataplaneCollector{stats})
}

// switchRuntime turns the collectors of the Go runtime and the process on or off, as wanted says by name.
func (m *metrics) switchRuntime(wanted map[string]bool) {
	for name, c := range m.runtime {
		switch {
		case wanted[name] && !m.on[name]:
			m.registry.MustRegister(c)
		case !wanted[name] && m.on[name]:
			m.registry.Unregister(c)
		}
		m.on[name] = wanted[name]
	}
}

// setCounts shows how much there is.
func (m *metrics) setCounts(c calc.Counts) {
	for name, n := range map[string]int{
		"felix_active_local_endpoints":         c.LocalHostEndpoints + c.LocalWorkloadEndpoints,
		"felix_active_local_policies":          c.ActivePolicies,
		"felix_active_local_selectors":         c.ActiveSelectors,
		"felix_cluster_num_hosts":              c.Hosts,
		"felix_cluster_num_host_endpoints":     c.HostEndpoints,
		"felix_cluster_num_workload_endpoints": c.WorkloadEndpoints,
		"felix_cluster_num_policies":           c.Policies,
		"felix_cluster_num_profiles":           c.Profiles,
		"felix_cluster_num_tiers":              c.Tiers,
		"felix_label_index_num_endpoints":      c.LabelledObjects,
	} {
		m.gauges[name].Set(float64(n))
	}
	m.selectors.WithLabelValues("true").Set(float64(c.OptimizedSelectors))
	m.selectors.WithLabelValues("false").Set(float64(c.UnoptimizedSelectors))
}

// setFaults shows one line for each fault. Names come from the store unchecked.
func (m *metrics) setFaults(faults []fault) {
	m.faults.Reset()
	for _, f := range faults {
		name := f.key.Name
		if f.key.Namespace != "" {
			name = f.key.Namespace + "/" + name
		}
		m.faults.WithLabelValues(string(f.key.Kind), strings.ToValidUTF8(name, "?")).Set(1)
	}
}

// applied records a successful change of the kernel.
func (m *metrics) applied(took time.Duration, changes int) {
	m.applyTime.Observe(took.Seconds())
	m.batchSize.Observe(float64(changes))
}

// handler serves /metrics.
func (m *metrics) handler() http.Handler {
	mux := http.NewServeMux()
	all := promhttp.HandlerFor(m.registry, promhttp.HandlerOpts{
		Registry: m.registry, MaxRequestsInFlight: 8, Timeout: requestTimeout / 2,
	})
	mux.HandleFunc("GET /metrics", func(w http.ResponseWriter, r *http.Request) {
		all.ServeHTTP(w, r)
		kick(m.scraped)
	})
	return mux
}

// A dataplaneCollector reads the dataplane's counts at each scrape.
type dataplaneCollector struct{ stats func() DataplaneStats }

// Describe implements prometheus.Collector.
func (c *dataplaneCollector) Describe(out chan<- *prometheus.Desc) {
	prometheus.DescribeByCollect(c, out)
}

// Collect implements prometheus.Collector.
func (c *dataplaneCollector) Collect(out chan<- prometheus.Metric) {
	s := c.stats()
	table := prometheus.Labels{"ip_version": "inet"} // one table serves both families
	for _, v := range []struct {
		name, help string
		labels     prometheus.Labels
		kind       prometheus.ValueType
		value      float64
	}{
		{"felix_nft_chains", "Chains in the agent's nftables table.", table, prometheus.GaugeValue, float64(s.Chains)},
		{"felix_nft_rules", "Rules in the agent's nftables table.", table, prometheus.GaugeValue, float64(s.Rules)},
		{"felix_nft_sets", "Sets and maps in the agent's nftables table.", table, prometheus.GaugeValue, float64(s.Sets)},
		{"margay_nft_elements", "Elements of all sets and maps in the agent's nftables table.", nil, prometheus.GaugeValue, float64(s.Elements)},
		{"felix_nft_calls", "Transactions sent to nftables.", nil, prometheus.CounterValue, float64(s.Transactions)},
		{"felix_nft_errors", "Transactions that nftables refused.", nil, prometheus.CounterValue, float64(s.Errors)},
		{"margay_nft_messages_total", "Netlink messages in all transactions.", nil, prometheus.CounterValue, float64(s.Messages)},
	} {
		out <- prometheus.MustNewConstMetric(prometheus.NewDesc(v.name, v.help, nil, v.labels), v.kind, v.value)
	}
}
