package controllers

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strconv"
	"strings"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	v3 "margay/api/v3"
)

// The values of DATASTORE_TYPE.
const (
	TypeEtcd       = "etcdv3"
	TypeKubernetes = "kubernetes"
)

// The environment variables that beat the KubeControllersConfiguration.
const (
	envLogLevel    = "LOG_LEVEL"
	envPeriod      = "RECONCILER_PERIOD"
	envEnabled     = "ENABLED_CONTROLLERS"
	envCompaction  = "COMPACTION_PERIOD"
	envHealth      = "HEALTH_ENABLED"
	envSyncLabels  = "SYNC_NODE_LABELS"
	envAutoHost    = "AUTO_HOST_ENDPOINTS"
	envDatastore   = "DATASTORE_TYPE"
	envMetricsHost = "PROMETHEUS_METRICS_HOST"
	envMetricsCert = "PROMETHEUS_METRICS_CERT_FILE"
	envMetricsKey  = "PROMETHEUS_METRICS_KEY_FILE"
	envMetricsCA   = "PROMETHEUS_METRICS_CA_FILE"
	envMetricsAuth = "PROMETHEUS_METRICS_CLIENT_AUTH"
)

const (
	enabled  = "Enabled"
	disabled = "Disabled"

	defaultPeriod     = 5 * time.Minute
	defaultCompaction = 10 * time.Minute
	defaultLeakGrace  = 15 * time.Minute
	defaultMetrics    = 9094
)

// An environment holds the variables of the process by name.
type environment map[string]string

func newEnvironment(list []string) environment {
	env := environment{}
	for _, entry := range list {
		name, value, _ := strings.Cut(entry, "=")
		env[name] = value
	}
	return env
}

// check refuses an environment that cannot be meant, as the incumbent does: controllers that run otherwise than they were
// told are worse than none.
func (env environment) check() error {
	var errs []error
	fail := func(name, reason string) {
		errs = append(errs, fmt.Errorf("environment %s = %.80q: %s", name, env[name], reason))
	}
	for _, name := range []string{envPeriod, envCompaction} {
		if text, ok := env[name]; ok {
			if d, err := time.ParseDuration(text); err != nil || d < 0 {
				fail(name, "it is no duration (write one like 5m)")
			}
		}
	}
	for _, name := range []string{envHealth, envSyncLabels} {
		if text, ok := env[name]; ok {
			if _, err := strconv.ParseBool(text); err != nil {
				fail(name, "it must be true or false")
			}
		}
	}
	if text, ok := env[envAutoHost]; ok && !strings.EqualFold(text, enabled) && !strings.EqualFold(text, disabled) {
		fail(envAutoHost, "it must be enabled or disabled")
	}
	if text, ok := env[envLogLevel]; ok && severity(text) == "" {
		fail(envLogLevel, "it must be one of debug, info, warning, error, fatal")
	}
	for _, name := range env.enabledControllers() {
		if !slices.Contains(controllerNames(), name) {
			fail(envEnabled, fmt.Sprintf("%.40q is no controller (these are: %s)", name, strings.Join(controllerNames(), ", ")))
		}
	}
	if t := env.datastore(); t != TypeEtcd && t != TypeKubernetes {
		fail(envDatastore, "it must be "+TypeEtcd+" or "+TypeKubernetes)
	}
	return errors.Join(errs...)
}

func (env environment) datastore() string { return cmp.Or(env[envDatastore], TypeEtcd) }

// controllerNames are what ENABLED_CONTROLLERS may hold. flannelmigration is not here: it moves a cluster's addresses.
func controllerNames() []string {
	return []string{"node", "policy", "namespace", "profile", "serviceaccount", "workloadendpoint", "loadbalancer"}
}

func (env environment) enabledControllers() []string {
	var names []string
	for name := range strings.SplitSeq(env[envEnabled], ",") {
		if name = strings.TrimSpace(name); name != "" {
			names = append(names, name)
		}
	}
	return names
}

// severity returns the name that the API has for a level, "" for what is none.
func severity(text string) string {
	switch strings.ToLower(text) {
	case "trace", "debug":
		return "Debug"
	case "info":
		return "Info"
	case "warn", "warning":
		return "Warning"
	case "error":
		return "Error"
	case "fatal", "panic":
		return "Fatal"
	}
	return ""
}

// level returns from which level on lines are logged.
func level(severity string) slog.Level {
	switch severity {
	case "Debug":
		return slog.LevelDebug
	case "Warning":
		return slog.LevelWarn
	case "Error", "Fatal":
		return slog.LevelError
	}
	return slog.LevelInfo
}

// defaultSpec is what the incumbent stores when there is no configuration.
func defaultSpec() v3.KubeControllersConfigurationSpec {
	period := func() *v3.ControllerConfig { return &v3.ControllerConfig{ReconcilerPeriod: duration(defaultPeriod)} }
	port := defaultMetrics
	return v3.KubeControllersConfigurationSpec{
		LogSeverityScreen: "Info", HealthChecks: enabled, EtcdV3CompactionPeriod: duration(defaultCompaction), PrometheusMetricsPort: &port,
		Controllers: v3.ControllersConfig{
			Node: &v3.NodeControllerConfig{
				ReconcilerPeriod: duration(defaultPeriod), SyncLabels: enabled, LeakGracePeriod: duration(defaultLeakGrace),
				HostEndpoint: &v3.AutoHostEndpointConfig{AutoCreate: disabled, CreateDefaultHostEndpoint: enabled},
			},
			Policy: period(), WorkloadEndpoint: period(), ServiceAccount: period(), Namespace: period(),
			LoadBalancer: &v3.LoadBalancerControllerConfig{AssignIPs: "AllServices"},
			Migration:    &v3.MigrationControllerConfig{PolicyNameMigrator: enabled},
		},
	}
}

func duration(d time.Duration) *metav1.Duration { return &metav1.Duration{Duration: d} }

// running returns what is in force for a stored configuration, in the form of its status: every value set, and only the
// controllers that run.
func running(spec *v3.KubeControllersConfigurationSpec, env environment) v3.KubeControllersConfigurationStatus {
	preset := defaultSpec()
	run := &v3.KubeControllersConfigurationSpec{
		LogSeverityScreen:      cmp.Or(severity(env[envLogLevel]), severity(spec.LogSeverityScreen), preset.LogSeverityScreen),
		HealthChecks:           cmp.Or(spec.HealthChecks, enabled),
		EtcdV3CompactionPeriod: orElse(spec.EtcdV3CompactionPeriod, preset.EtcdV3CompactionPeriod),
		PrometheusMetricsPort:  orElse(spec.PrometheusMetricsPort, preset.PrometheusMetricsPort),
		DebugProfilePort:       spec.DebugProfilePort,
	}
	if text, ok := env[envHealth]; ok {
		on, _ := strconv.ParseBool(text) // checked at the start
		run.HealthChecks = mode(on)
	}
	if text, ok := env[envCompaction]; ok {
		d, _ := time.ParseDuration(text)
		run.EtcdV3CompactionPeriod = duration(d)
	}
	run.Controllers = runningControllers(&spec.Controllers, env)
	return v3.KubeControllersConfigurationStatus{RunningConfig: run, EnvironmentVars: env.overrides()}
}

// overrides are the variables that the status names.
func (env environment) overrides() map[string]string {
	seen := map[string]string{}
	for _, name := range []string{envLogLevel, envPeriod, envEnabled, envCompaction, envHealth, envSyncLabels, envAutoHost} {
		if text, ok := env[name]; ok {
			seen[name] = text
		}
	}
	if env.datastore() == TypeKubernetes {
		seen[envDatastore] = TypeKubernetes
	}
	return seen
}

// runningControllers returns the controllers that run. With the Kubernetes datastore only the node controller has
// something to do: the store itself shows pods, namespaces, service accounts and policies.
func runningControllers(spec *v3.ControllersConfig, env environment) v3.ControllersConfig {
	on := func(configured bool, names ...string) bool {
		if _, ok := env[envEnabled]; !ok {
			return configured
		}
		return slices.ContainsFunc(env.enabledControllers(), func(name string) bool { return slices.Contains(names, name) })
	}
	var run v3.ControllersConfig
	if on(spec.Node != nil, "node") {
		run.Node = runningNode(spec.Node, env)
	}
	if env.datastore() == TypeKubernetes {
		return run
	}
	copier := func(c *v3.ControllerConfig, names ...string) *v3.ControllerConfig {
		if !on(c != nil, names...) {
			return nil
		}
		period := duration(defaultPeriod)
		if text, ok := env[envPeriod]; ok {
			period.Duration, _ = time.ParseDuration(text)
		} else if c != nil && c.ReconcilerPeriod != nil {
			period = c.ReconcilerPeriod
		}
		return &v3.ControllerConfig{ReconcilerPeriod: period}
	}
	run.Policy = copier(spec.Policy, "policy")
	run.WorkloadEndpoint = copier(spec.WorkloadEndpoint, "workloadendpoint")
	run.ServiceAccount = copier(spec.ServiceAccount, "serviceaccount")
	run.Namespace = copier(spec.Namespace, "namespace", "profile")
	return run
}

func runningNode(spec *v3.NodeControllerConfig, env environment) *v3.NodeControllerConfig {
	if spec == nil {
		spec = &v3.NodeControllerConfig{}
	}
	run := &v3.NodeControllerConfig{SyncLabels: cmp.Or(spec.SyncLabels, enabled), LeakGracePeriod: spec.LeakGracePeriod}
	if text, ok := env[envSyncLabels]; ok {
		on, _ := strconv.ParseBool(text)
		run.SyncLabels = mode(on)
	}
	if env.datastore() == TypeKubernetes {
		run.SyncLabels = disabled // the store shows the labels that Kubernetes has
	}
	host := v3.AutoHostEndpointConfig{}
	if text, ok := env[envAutoHost]; ok {
		host.AutoCreate = mode(strings.EqualFold(text, enabled)) // templates do not count then, as with the incumbent
	} else if spec.HostEndpoint != nil {
		host = *spec.HostEndpoint
	}
	host.AutoCreate = cmp.Or(host.AutoCreate, disabled)
	host.CreateDefaultHostEndpoint = cmp.Or(host.CreateDefaultHostEndpoint, enabled)
	run.HostEndpoint = &host
	return run
}

func mode(on bool) string {
	if on {
		return enabled
	}
	return disabled
}

func orElse[T any](value, otherwise *T) *T {
	if value != nil {
		return value
	}
	return otherwise
}

// same reports whether two values are stored alike. nil and empty lists that mean the same have one JSON form.
func same(a, b any) bool {
	x, errX := json.Marshal(a)
	y, errY := json.Marshal(b)
	return errX == nil && errY == nil && string(x) == string(y)
}
