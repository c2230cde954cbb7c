package params

import (
	"cmp"
	"log/slog"
	"net"
	"net/netip"
	"reflect"
	"regexp"
	"slices"
	"time"

	"margay/ruleset"
)

// Params are the settings of the agent, each valid. Params are not changed after [Resolve].
//
// Tags: type names the parser (parse.go), default is the built-in default as text, name is the parameter's name where the
// field has another one. local parameters count from environment and file only; required ones cannot be none; change says
// what a new value takes, see [Effect].
type Params struct {
	// Store connection. Lists of endpoints are URLs without path; [Params.Endpoints] says which count.
	DatastoreType string   `type:"oneof=etcdv3|kubernetes" default:"etcdv3" local:"" required:"" change:"restart"`
	EtcdEndpoints []string `type:"endpoints" local:"" change:"restart"`
	EtcdAddr      string   `type:"authority" default:"127.0.0.1:2379" local:"" change:"restart"`
	EtcdScheme    string   `type:"oneof=http|https" default:"http" local:"" change:"restart"`
	EtcdKeyFile   string   `type:"string" local:"" change:"restart"`
	EtcdCertFile  string   `type:"string" local:"" change:"restart"`
	EtcdCAFile    string   `name:"EtcdCaFile" type:"string" local:"" change:"restart"`

	// Typha instead of the store: host:port, where "" means none. TLS with it is off unless one of the files or names is
	// given; the timeouts are of reading and of writing.
	TyphaAddr string `type:"authority" local:"" change:"restart"`
	// TyphaK8sServiceName finds Typha by the endpoints of a service of Kubernetes, unless TyphaAddr is set; "" means no
	// Typha.
	TyphaK8sServiceName string        `type:"string" local:"" change:"restart"`
	TyphaK8sNamespace   string        `type:"string" default:"kube-system" local:"" required:"" change:"restart"`
	TyphaCAFile         string        `type:"string" local:"" change:"restart"`
	TyphaCertFile       string        `type:"string" local:"" change:"restart"`
	TyphaKeyFile        string        `type:"string" local:"" change:"restart"`
	TyphaCN             string        `type:"string" local:"" change:"restart"`
	TyphaURISAN         string        `type:"string" local:"" change:"restart"`
	TyphaReadTimeout    time.Duration `type:"seconds" default:"30" local:"" change:"restart"`
	TyphaWriteTimeout   time.Duration `type:"seconds" default:"10" local:"" change:"restart"`

	// FelixHostname is what spec.node of host endpoints calls this host.
	FelixHostname string `type:"hostname" local:"" required:"" change:"restart"`

	// Health endpoints.
	HealthEnabled bool   `type:"bool" default:"false" change:"listener"`
	HealthHost    string `type:"host" default:"localhost" change:"listener"`
	HealthPort    uint16 `type:"port" default:"9099" change:"listener"`

	// Prometheus metrics. Host "" is every address. TLS is on when the key or the certificate file is given. ClientAuth is
	// RequireAndVerifyClientCert when nobody says anything and a CA file is given: 3.32 always has that default, later
	// releases never, and neither a CA that is not asked nor a listener that nobody can pass is meant.
	PrometheusMetricsEnabled        bool   `type:"bool" default:"false" change:"listener"`
	PrometheusMetricsHost           string `type:"host" change:"listener"`
	PrometheusMetricsPort           uint16 `type:"port" default:"9091" change:"listener"`
	PrometheusMetricsCAFile         string `type:"string" change:"listener"`
	PrometheusMetricsCertFile       string `type:"string" change:"listener"`
	PrometheusMetricsKeyFile        string `type:"string" change:"listener"`
	PrometheusMetricsClientAuth     string `type:"oneof=NoClientCert|RequireAnyClientCert|VerifyClientCertIfGiven|RequireAndVerifyClientCert" default:"NoClientCert" change:"listener"`
	PrometheusGoMetricsEnabled      bool   `type:"bool" default:"true" change:"listener"`
	PrometheusProcessMetricsEnabled bool   `type:"bool" default:"true" change:"listener"`

	// LogSeverityScreen "" is no log at all; see [Params.LogLevel].
	LogSeverityScreen string `type:"oneof=TRACE|DEBUG|INFO|WARNING|ERROR|FATAL" default:"INFO"`

	// Failsafe ports.
	FailsafeInboundHostPorts  []ruleset.Failsafe `type:"failsafes" default:"tcp:22,udp:68,tcp:179,tcp:2379,tcp:2380,tcp:5473,tcp:6443,tcp:6666,tcp:6667"`
	FailsafeOutboundHostPorts []ruleset.Failsafe `type:"failsafes" default:"udp:53,udp:67,tcp:179,tcp:2379,tcp:2380,tcp:5473,tcp:6443,tcp:6666,tcp:6667"`

	// What becomes of denied packets; [Params.Reject] says which of the two counts.
	NftablesFilterDenyAction string `type:"oneof=DROP|REJECT" default:"DROP" required:""`
	IptablesFilterDenyAction string `type:"oneof=DROP|REJECT" default:"DROP" required:""`

	DefaultEndpointToHostAction  string `type:"oneof=DROP|RETURN|ACCEPT" default:"DROP" required:""`
	DisableConntrackInvalidCheck bool   `type:"bool" default:"false"`
	LogPrefix                    string `type:"prefix" default:"calico-packet"`

	// LogActionRateLimit bounds the reports of each Log rule; the burst counts only with it.
	LogActionRateLimit      ruleset.LogRate `type:"rate"`
	LogActionRateLimitBurst uint32          `type:"burst" default:"5"`

	// What workloads may send: from allowSpoofedSourcePrefixes (Any), and in tunnels.
	WorkloadSourceSpoofing         string `type:"oneof=Any|Disabled" default:"Disabled" required:""`
	AllowVXLANPacketsFromWorkloads bool   `type:"bool" default:"false"`
	AllowIPIPPacketsFromWorkloads  bool   `type:"bool" default:"false"`

	// Tunnels between the hosts of the cluster, which others make: what they need of policy. ExternalNodesCIDRList holds
	// hosts that are no Nodes.
	IPIPEnabled              bool           `name:"IpInIpEnabled" type:"bool" default:"false"`
	VXLANEnabled             bool           `type:"bool" default:"false"`
	VXLANPort                uint16         `type:"port" default:"4789"`
	WireguardEnabled         bool           `type:"bool" default:"false"`
	WireguardEnabledV6       bool           `type:"bool" default:"false"`
	WireguardListeningPort   uint16         `type:"port" default:"51820"`
	WireguardListeningPortV6 uint16         `type:"port" default:"51821"`
	ExternalNodesCIDRList    []netip.Prefix `type:"nets"`

	// ServiceLoopPrevention is what becomes of packets that are passed on to an address of services; "" is Disabled.
	ServiceLoopPrevention string `type:"oneof=Drop|Reject|Disabled" default:"Drop"`

	IPv6Support bool `name:"Ipv6Support" type:"bool" default:"true"`

	// InterfacePrefix lists how names of workload interfaces begin; InterfaceExclude matches those that are hidden from
	// host endpoints.
	InterfacePrefix  []string         `type:"interfaces" default:"cali" required:""`
	InterfaceExclude []*regexp.Regexp `type:"patterns" default:"kube-ipvs0"`

	// ReportingInterval is how often the agent writes that it lives, 0 for never; ReportingTTL how long that holds.
	ReportingInterval time.Duration `name:"ReportingIntervalSecs" type:"seconds" default:"30"`
	ReportingTTL      time.Duration `name:"ReportingTTLSecs" type:"seconds" default:"90"`

	// EndpointReporting writes the states of endpoints to the store, at most once in EndpointReportingDelay.
	EndpointReportingEnabled bool          `type:"bool" default:"false"`
	EndpointReportingDelay   time.Duration `name:"EndpointReportingDelaySecs" type:"seconds" default:"1"`

	// GoGCThreshold is how much garbage there may be for what is in use, in percent; -1 for any amount.
	GoGCThreshold int `type:"percent" default:"40" required:""`

	settings map[string]setting // by the parameter's name: what is in force, and from where
}

// Origin says where the value of a parameter comes from. name is the parameter's, not the field's.
func (p *Params) Origin(name string) Origin { return p.settings[name].origin }

// Text returns the value of a parameter as its source has it, for people.
func (p *Params) Text(name string) string { return p.settings[name].text }

// Endpoints returns the URLs of etcd, nil if nobody gave any. FELIX_EtcdEndpoints counts before FELIX_EtcdAddr, and both
// before ETCD_ENDPOINTS.
func (p *Params) Endpoints() []string {
	own := p.Origin("EtcdEndpoints").Source > Client && len(p.EtcdEndpoints) > 0
	if !own && p.Origin("EtcdAddr").Source > Client && p.EtcdAddr != "" {
		return []string{p.EtcdScheme + "://" + p.EtcdAddr}
	}
	return p.EtcdEndpoints
}

// HealthAddress returns host:port for the health listener.
func (p *Params) HealthAddress() string { return address(p.HealthHost, p.HealthPort) }

// MetricsAddress returns host:port for the metrics listener.
func (p *Params) MetricsAddress() string {
	return address(p.PrometheusMetricsHost, p.PrometheusMetricsPort)
}

func address(host string, port uint16) string { return net.JoinHostPort(host, decimal(port)) }

// Reject reports whether denied packets are answered. The setting for nftables counts; the one for iptables does where
// only that is given.
func (p *Params) Reject() bool {
	if p.Origin("NftablesFilterDenyAction").Source != Default {
		return p.NftablesFilterDenyAction == "REJECT"
	}
	return p.IptablesFilterDenyAction == "REJECT"
}

// LogOff is the level of a log that is switched off.
const LogOff = slog.Level(100)

// LogLevel returns the level of the log on the screen: TRACE is -8, FATAL is 12.
func (p *Params) LogLevel() slog.Level {
	switch p.LogSeverityScreen {
	case "TRACE":
		return slog.LevelDebug - 4
	case "DEBUG":
		return slog.LevelDebug
	case "INFO":
		return slog.LevelInfo
	case "WARNING":
		return slog.LevelWarn
	case "ERROR":
		return slog.LevelError
	case "FATAL":
		return slog.LevelError + 4
	}
	return LogOff
}

// Excluded reports whether an interface is hidden from host endpoints.
func (p *Params) Excluded(iface string) bool {
	for _, pattern := range p.InterfaceExclude {
		if pattern.MatchString(iface) {
			return true
		}
	}
	return false
}

// Settings returns what the rules of the whole host depend on. ServiceNets are no parameters: they are empty, or nil if nothing is
// denied for them.
func (p *Params) Settings() ruleset.Settings {
	rate := p.LogActionRateLimit
	if rate.Packets > 0 {
		rate.Burst = p.LogActionRateLimitBurst
	}
	return ruleset.Settings{
		FailsafeIngress:  p.FailsafeInboundHostPorts,
		FailsafeEgress:   p.FailsafeOutboundHostPorts,
		Reject:           p.Reject(),
		AcceptInvalid:    p.DisableConntrackInvalidCheck,
		LogPrefix:        p.LogPrefix,
		LogRate:          rate,
		WorkloadPrefixes: p.InterfacePrefix,
		// Calico's ports are on no bridge; who names others wants them closed before they are known.
		ClosePorts:     !slices.Equal(p.InterfacePrefix, []string{"cali"}),
		EndpointToHost: p.endpointToHost(),
		AllowSpoofing:  p.WorkloadSourceSpoofing == "Any",
		AllowVXLAN:     p.AllowVXLANPacketsFromWorkloads,
		AllowIPIP:      p.AllowIPIPPacketsFromWorkloads,
		VXLANPort:      p.VXLANPort,
		Tunnels:        p.tunnels(),
		TunnelNets:     p.ExternalNodesCIDRList,
		ServiceNets:    p.serviceNets(),
		RejectLoops:    p.ServiceLoopPrevention == "Reject",
	}
}

func (p *Params) serviceNets() []netip.Prefix {
	if p.ServiceLoopPrevention == "Drop" || p.ServiceLoopPrevention == "Reject" {
		return []netip.Prefix{}
	}
	return nil
}

// tunnels returns the tunnels between hosts. Those of WireGuard prove who is at their other end.
func (p *Params) tunnels() []ruleset.Tunnel {
	var list []ruleset.Tunnel
	if p.IPIPEnabled {
		list = append(list, ruleset.Tunnel{Protocol: 4, Family: ruleset.IPv4})
	}
	if p.VXLANEnabled {
		list = append(list, ruleset.Tunnel{Protocol: ruleset.UDP, Port: cmp.Or(p.VXLANPort, 4789)})
	}
	if p.WireguardEnabled {
		list = append(list, ruleset.Tunnel{Protocol: ruleset.UDP, Port: p.WireguardListeningPort, Family: ruleset.IPv4, Proven: true})
	}
	if p.WireguardEnabledV6 {
		list = append(list, ruleset.Tunnel{Protocol: ruleset.UDP, Port: p.WireguardListeningPortV6, Family: ruleset.IPv6, Proven: true})
	}
	return list
}

func (p *Params) endpointToHost() ruleset.HostAction {
	switch p.DefaultEndpointToHostAction {
	case "ACCEPT":
		return ruleset.HostAccept
	case "RETURN":
		return ruleset.HostReturn
	}
	return ruleset.HostDrop
}

// An Effect is what it takes to put a new value in force.
type Effect uint8

// Live values are taken over by the running agent; Listener values need their HTTP listener opened again; Restart values
// concern the store connection or the identity of the host.
const (
	Live Effect = iota
	Listener
	Restart
)

// String returns live, listener or restart.
func (e Effect) String() string { return [...]string{"live", "listener", "restart"}[e] }

// A Change is a parameter that has another value.
type Change struct {
	Name   string
	Effect Effect
}

// Diff returns the parameters whose values differ, in the order of the fields. Origins do not count.
func Diff(a, b *Params) []Change {
	var changes []Change
	va, vb := reflect.ValueOf(a).Elem(), reflect.ValueOf(b).Elem()
	for _, f := range fields() {
		if !reflect.DeepEqual(va.Field(f.index).Interface(), vb.Field(f.index).Interface()) {
			changes = append(changes, Change{f.name, f.effect})
		}
	}
	return changes
}
