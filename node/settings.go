package node

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"maps"
	"os"
	"slices"
	"strings"
	"sync"
	"time"

	v3 "margay/api/v3"
	"margay/node/params"
	"margay/ruleset"
	"margay/serve"
)

// defaultConfigFile is Felix's.
const defaultConfigFile = "/etc/calico/felix.cfg"

// maxConfigFile bounds what is read of it, in bytes.
const maxConfigFile = 1 << 20

// A StoreConfig says how to reach the store.
type StoreConfig struct {
	// Type is etcdv3 or kubernetes.
	Type string
	// Endpoints are URLs; nil when none were given: the store of this host is meant then.
	Endpoints []string
	// Files for TLS; "" for none.
	CAFile, CertFile, KeyFile string
	// Username and Password as ETCD_USERNAME and ETCD_PASSWORD give them. They are for no log.
	Username, Password string
	// Typha is the way to the store that counts before all of the above; the zero value if there is none.
	Typha TyphaConfig
}

// A TyphaConfig says how to reach typha.
type TyphaConfig struct {
	// Address is host:port; "" for none. Then Service of Namespace is the service of Kubernetes that says where typha is.
	Address, Namespace, Service string
	// Node is the name of this host.
	Node string
	// TLS with typha, and the common name or the URI that its certificate must have.
	CAFile, CertFile, KeyFile, CN, URISAN string
	ReadTimeout, WriteTimeout             time.Duration
}

// settings keep the parameters that hold now and make them effective wherever they do not concern the rules. They belong to
// the goroutine of the loop, but for reporting, which is safe for all.
type settings struct {
	sources   params.Sources
	resources map[string]*v3.FelixConfiguration
	now       *params.Params
	named     map[string]bool // problems that the log has named

	log          *slog.Logger
	level        *slog.LevelVar
	healthServer *listener
	metricServer *listener
	metrics      *metrics
	health       *health

	mu        sync.Mutex
	reporting reporting
	unused    []string // parameters that are set and not acted on
}

// reporting says how often the status is reported and how long a report holds; zero: only on changes, and for ever.
type reporting struct {
	interval, ttl time.Duration
	// endpoints: whether states of endpoints are written for others than margay, at most once in endpointDelay.
	endpoints     bool
	endpointDelay time.Duration
}

// newReporting returns what the parameters ask for, a report that ends before the next one is due excepted.
func newReporting(p *params.Params) reporting {
	r := reporting{p.ReportingInterval, p.ReportingTTL, p.EndpointReportingEnabled, p.EndpointReportingDelay}
	switch {
	case r.interval == 0:
		r.ttl = 0
	case r.ttl > 0 && r.ttl <= r.interval:
		r.ttl = 3 * r.interval
	}
	return r
}

// readSources returns the sources that hold for the life of the agent.
func readSources(o Options) (params.Sources, error) {
	host, err := os.Hostname()
	if err != nil {
		return params.Sources{}, fmt.Errorf("read the name of the host: %w (set FELIX_FELIXHOSTNAME)", err)
	}
	path := cmp.Or(o.ConfigFile, defaultConfigFile)
	s := params.Sources{Host: strings.ToLower(host), Env: o.Environ, FileName: path}
	if s.File, err = readBounded(path, maxConfigFile); o.ConfigFile == "" && errors.Is(err, fs.ErrNotExist) {
		return s, nil
	} else if err != nil {
		return s, fmt.Errorf("read configuration file: %w", err)
	}
	return s, nil
}

// take looks at a change of the store and reports whether it may change parameters.
func (s *settings) take(key v3.Key, r v3.Resource) bool {
	switch key.Kind {
	case v3.KindFelixConfiguration:
		delete(s.resources, key.Name)
		if f, ok := r.(*v3.FelixConfiguration); ok {
			s.resources[key.Name] = f
		}
		return true
	case v3.KindNode:
		if key.Name != s.now.FelixHostname {
			return false
		}
		before := s.sources.NodeLabels
		s.sources.NodeLabels = nil
		if r != nil {
			s.sources.NodeLabels = map[string]string{}
			maps.Copy(s.sources.NodeLabels, r.GetLabels())
		}
		// The status of a Node of Kubernetes changes all the time.
		return !maps.Equal(before, s.sources.NodeLabels) || (before == nil) != (r == nil)
	}
	return false
}

// apply resolves the parameters, tells which are new, and makes them effective; it returns those for the rules. What cannot
// be used is named and leaves the value that was in force before.
func (s *settings) apply() ruleset.Settings {
	s.sources.Resources = slices.Collect(maps.Values(s.resources))
	s.sources.Previous = s.now
	p, problems := params.Resolve(s.sources)
	s.tell(p, problems)
	before := s.now
	if before == nil {
		before, _ = params.Resolve(params.Sources{Host: s.sources.Host})
	}
	s.tellAbout(p, before)
	s.now = p
	s.level.Set(p.LogLevel())
	s.metrics.switchRuntime(map[string]bool{
		goCollector: p.PrometheusGoMetricsEnabled, processCollector: p.PrometheusProcessMetricsEnabled,
	})
	s.healthServer.serveAt(healthAddress(p))
	s.metricServer.serveAt(metricsAddress(p))
	s.mu.Lock()
	s.reporting = newReporting(p)
	s.mu.Unlock()
	return p.Settings()
}

// tell names each problem once.
func (s *settings) tell(p *params.Params, problems []params.Problem) {
	for name, reason := range withoutEffect() {
		if o := p.Origin(name); o.Source != params.Default {
			problems = append(problems, params.Problem{Kind: params.Unused, Name: name, Origin: o, Reason: reason})
		}
	}
	named := map[string]bool{}
	var bad []params.Problem
	var unused []string
	for _, problem := range problems {
		if problem.Kind != params.Unused && problem.Kind != params.Unknown {
			bad = append(bad, problem)
		} else {
			unused = append(unused, problem.String())
		}
		text := problem.String()
		named[text] = true
		if !s.named[text] {
			s.log.Warn("parameter", "kind", problem.Kind, "problem", text)
		}
	}
	s.named = named
	s.setUnused(unused)
	s.metrics.problems.Set(float64(len(bad)))
	s.health.set(componentParameters, condition{ready: true, detail: nameSome("parameters that cannot be used", bad)})
}

// tellAbout logs the parameters that differ from others.
func (s *settings) tellAbout(p, others *params.Params) {
	for _, c := range params.Diff(others, p) {
		value := p.Text(c.Name)
		if strings.Contains(value, "@") {
			value = "(not shown)" // a URL may carry a password
		}
		s.log.Info("parameter", "name", c.Name, "value", value, "origin", p.Origin(c.Name), "effect", c.Effect)
	}
}

// withoutEffect are parameters that are read and do less than their names say, each with what is to be told.
func withoutEffect() map[string]string {
	const tunnel = "this agent makes no tunnel; those that others make pass the policy of host endpoints"
	return map[string]string{
		"Ipv6Support":   "this agent does not use it", // it would ask for less than is enforced
		"IpInIpEnabled": tunnel, "VXLANEnabled": tunnel, "WireguardEnabled": tunnel, "WireguardEnabledV6": tunnel,
	}
}

func healthAddress(p *params.Params) address {
	if !p.HealthEnabled {
		return address{}
	}
	return address{hostPort: p.HealthAddress()}
}

func metricsAddress(p *params.Params) address {
	if !p.PrometheusMetricsEnabled {
		return address{}
	}
	return address{p.MetricsAddress(), tlsFiles{
		cert: p.PrometheusMetricsCertFile, key: p.PrometheusMetricsKeyFile, ca: p.PrometheusMetricsCAFile,
		clientAuth: serve.ClientAuth(p.PrometheusMetricsClientAuth, p.PrometheusMetricsCAFile),
	}}
}

// store returns how to reach the store. It does not change while the agent runs.
func (s *settings) store() StoreConfig {
	get := func(name string) string {
		value := ""
		for _, variable := range s.sources.Env {
			if v, ok := strings.CutPrefix(variable, name+"="); ok {
				value = v
			}
		}
		return value
	}
	c := StoreConfig{
		Type: s.now.DatastoreType, Endpoints: s.now.Endpoints(),
		CAFile: s.now.EtcdCAFile, CertFile: s.now.EtcdCertFile, KeyFile: s.now.EtcdKeyFile,
		Username: get("CALICO_ETCD_USERNAME"), Password: get("CALICO_ETCD_PASSWORD"),
	}
	if s.now.TyphaAddr != "" || s.now.TyphaK8sServiceName != "" {
		c.Typha = TyphaConfig{
			Address: s.now.TyphaAddr, Namespace: s.now.TyphaK8sNamespace, Service: s.now.TyphaK8sServiceName, Node: s.now.FelixHostname,
			CAFile: s.now.TyphaCAFile, CertFile: s.now.TyphaCertFile, KeyFile: s.now.TyphaKeyFile,
			CN: s.now.TyphaCN, URISAN: s.now.TyphaURISAN,
			ReadTimeout: s.now.TyphaReadTimeout, WriteTimeout: s.now.TyphaWriteTimeout,
		}
	}
	if c.Username == "" {
		c.Username, c.Password = get("ETCD_USERNAME"), get("ETCD_PASSWORD")
	}
	return c
}

func (s *settings) setUnused(unused []string) {
	slices.Sort(unused)
	s.mu.Lock()
	same := slices.Equal(s.unused, unused)
	s.unused = unused
	s.mu.Unlock()
	if !same {
		s.health.changed()
	}
}

// unusedNow may be called from any goroutine.
func (s *settings) unusedNow() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.unused
}

// reportingNow may be called from any goroutine.
func (s *settings) reportingNow() reporting {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.reporting
}
