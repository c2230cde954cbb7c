package v3

import (
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// FelixConfiguration holds settings of the agents: of all of them (name default), of one host (name node.<host>), or of
// the hosts that spec.nodeSelector selects (any other name).
type FelixConfiguration struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata"`
	Spec              FelixConfigurationSpec `json:"spec"`
}

// The names of a FelixConfiguration that say for whom it is.
const (
	FelixConfigurationDefault    = "default"
	FelixConfigurationNodePrefix = "node."
)

// FelixConfigurationSpec has all settings as of 3.32, and those that came later: a cluster that runs another agent on
// some of its hosts keeps them here. What this agent acts on is said in node/params. Absent always means: not set here.
//
// Tags: check holds the rules of the value (see tags.go), default is written when the field is absent, param is the name
// in the environment and in the file where it is not the Go name, followed by ",ms" when a duration is given there in
// milliseconds instead of seconds; "-" is no parameter. A list of tag omitzero tells nil (not set) from empty (nothing).
type FelixConfigurationSpec struct {
	// NodeSelector selects hosts by the labels of their Node. Not on default and node.<host>; without it any other name
	// applies to no host. Of several that select a host the oldest applies.
	NodeSelector *string `json:"nodeSelector,omitempty" check:"format=selector" param:"-"`

	// Go runtime; a value of -1 leaves it alone.
	GoGCThreshold   *int `json:"goGCThreshold,omitempty" check:"min=-1"`
	GoMemoryLimitMB *int `json:"goMemoryLimitMB,omitempty" check:"min=-1"`
	GoMaxProcs      *int `json:"goMaxProcs,omitempty" check:"min=-1"`

	// Health endpoints.
	HealthEnabled          *bool                   `json:"healthEnabled,omitempty"`
	HealthHost             *string                 `json:"healthHost,omitempty"`
	HealthPort             *int                    `json:"healthPort,omitempty"`
	HealthTimeoutOverrides []HealthTimeoutOverride `json:"healthTimeoutOverrides,omitempty"`

	// Logs of the agent, and of rules with action Log.
	LogSeverityFile         string  `json:"logSeverityFile,omitempty" check:"enum=Trace|Debug|Info|Warning|Error|Fatal"`
	LogSeverityScreen       string  `json:"logSeverityScreen,omitempty" check:"enum=Trace|Debug|Info|Warning|Error|Fatal"`
	LogSeveritySys          string  `json:"logSeveritySys,omitempty" check:"enum=Trace|Debug|Info|Warning|Error|Fatal"`
	LogFilePath             string  `json:"logFilePath,omitempty"`
	LogDebugFilenameRegex   string  `json:"logDebugFilenameRegex,omitempty" check:"format=regexp"`
	LogPrefix               string  `json:"logPrefix,omitempty" check:"format=logPrefix"`
	LogActionRateLimit      *string `json:"logActionRateLimit,omitempty" check:"format=logRate"`
	LogActionRateLimitBurst *int    `json:"logActionRateLimitBurst,omitempty" check:"min=0,max=9999"`

	// Prometheus metrics.
	PrometheusMetricsEnabled          *bool   `json:"prometheusMetricsEnabled,omitempty"`
	PrometheusMetricsHost             string  `json:"prometheusMetricsHost,omitempty" check:"format=host"`
	PrometheusMetricsPort             *int    `json:"prometheusMetricsPort,omitempty"`
	PrometheusGoMetricsEnabled        *bool   `json:"prometheusGoMetricsEnabled,omitempty"`
	PrometheusProcessMetricsEnabled   *bool   `json:"prometheusProcessMetricsEnabled,omitempty"`
	PrometheusWireGuardMetricsEnabled *bool   `json:"prometheusWireGuardMetricsEnabled,omitempty"`
	PrometheusMetricsCAFile           *string `json:"prometheusMetricsCAFile,omitempty"`
	PrometheusMetricsCertFile         *string `json:"prometheusMetricsCertFile,omitempty"`
	PrometheusMetricsKeyFile          *string `json:"prometheusMetricsKeyFile,omitempty"`
	PrometheusMetricsClientAuth       *string `json:"prometheusMetricsClientAuth,omitempty" check:"enum=RequireAndVerifyClientCert|RequireAnyClientCert|VerifyClientCertIfGiven|NoClientCert"`

	// Ports that no policy of a host endpoint can close. Empty: none.
	FailsafeInboundHostPorts  []ProtoPort `json:"failsafeInboundHostPorts,omitzero"`
	FailsafeOutboundHostPorts []ProtoPort `json:"failsafeOutboundHostPorts,omitzero"`

	// What all data planes have in common.
	UseInternalDataplaneDriver     *bool            `json:"useInternalDataplaneDriver,omitempty"`
	DataplaneDriver                string           `json:"dataplaneDriver,omitempty"`
	DataplaneWatchdogTimeout       *metav1.Duration `json:"dataplaneWatchdogTimeout,omitempty"`
	IPv6Support                    *bool            `json:"ipv6Support,omitempty" param:"Ipv6Support"`
	IPForwarding                   string           `json:"ipForwarding,omitempty" check:"enum=Enabled|Disabled"`
	InterfacePrefix                string           `json:"interfacePrefix,omitempty"`
	InterfaceExclude               string           `json:"interfaceExclude,omitempty"`
	InterfaceRefreshInterval       *metav1.Duration `json:"interfaceRefreshInterval,omitempty" check:"format=duration"`
	ChainInsertMode                string           `json:"chainInsertMode,omitempty" check:"fold=Insert|Append"`
	DefaultEndpointToHostAction    string           `json:"defaultEndpointToHostAction,omitempty" check:"enum=Drop|Accept|Return"`
	DisableConntrackInvalidCheck   *bool            `json:"disableConntrackInvalidCheck,omitempty"`
	AllowVXLANPacketsFromWorkloads *bool            `json:"allowVXLANPacketsFromWorkloads,omitempty"`
	AllowIPIPPacketsFromWorkloads  *bool            `json:"allowIPIPPacketsFromWorkloads,omitempty"`
	ServiceLoopPrevention          string           `json:"serviceLoopPrevention,omitempty" check:"enum=Drop|Reject|Disabled"`
	WorkloadSourceSpoofing         string           `json:"workloadSourceSpoofing,omitempty" check:"enum=Disabled|Any"`
	SidecarAccelerationEnabled     *bool            `json:"sidecarAccelerationEnabled,omitempty"`
	PolicySyncPathPrefix           string           `json:"policySyncPathPrefix,omitempty"`
	EndpointStatusPathPrefix       string           `json:"endpointStatusPathPrefix,omitempty"`
	NetlinkTimeout                 *metav1.Duration `json:"netlinkTimeout,omitempty" check:"format=duration" param:"NetlinkTimeoutSecs"`
	ExternalNodesCIDRList          []string         `json:"externalNodesList,omitzero" check:"format=cidrv4"`
	KubeNodePortRanges             []Port           `json:"kubeNodePortRanges,omitzero" check:"maxitems=7"`
	FloatingIPs                    *string          `json:"floatingIPs,omitempty" check:"enum=Enabled|Disabled" default:"Disabled"`
	IstioAmbientMode               *string          `json:"istioAmbientMode,omitempty" check:"enum=Enabled|Disabled"`
	IstioDSCPMark                  *DSCP            `json:"istioDSCPMark,omitempty"`
	FeatureDetectOverride          string           `json:"featureDetectOverride,omitempty" check:"format=featureList"`
	FeatureGates                   string           `json:"featureGates,omitempty" check:"format=keyValues"`
	WindowsManageFirewallRules     *string          `json:"windowsManageFirewallRules,omitempty" check:"enum=Enabled|Disabled"`

	// iptables, ipsets and XDP.
	IptablesBackend                    *string          `json:"iptablesBackend,omitempty" check:"enum=Legacy|NFT|Auto"`
	IptablesRefreshInterval            *metav1.Duration `json:"iptablesRefreshInterval,omitempty" check:"format=duration"`
	IptablesPostWriteCheckInterval     *metav1.Duration `json:"iptablesPostWriteCheckInterval,omitempty" check:"format=duration" param:"IptablesPostWriteCheckIntervalSecs"`
	IptablesLockProbeInterval          *metav1.Duration `json:"iptablesLockProbeInterval,omitempty" check:"format=duration" param:"IptablesLockProbeIntervalMillis,ms"`
	IptablesFilterAllowAction          string           `json:"iptablesFilterAllowAction,omitempty" check:"enum=Accept|Return"`
	IptablesMangleAllowAction          string           `json:"iptablesMangleAllowAction,omitempty" check:"enum=Accept|Return"`
	IptablesFilterDenyAction           string           `json:"iptablesFilterDenyAction,omitempty" check:"enum=Drop|Reject"`
	IptablesMarkMask                   *uint32          `json:"iptablesMarkMask,omitempty"`
	IptablesNATOutgoingInterfaceFilter string           `json:"iptablesNATOutgoingInterfaceFilter,omitempty" check:"format=interfaceFilter"`
	IpsetsRefreshInterval              *metav1.Duration `json:"ipsetsRefreshInterval,omitempty" check:"format=duration"`
	MaxIpsetSize                       *int             `json:"maxIpsetSize,omitempty"`
	XDPEnabled                         *bool            `json:"xdpEnabled,omitempty"`
	GenericXDPEnabled                  *bool            `json:"genericXDPEnabled,omitempty"`
	XDPRefreshInterval                 *metav1.Duration `json:"xdpRefreshInterval,omitempty" check:"format=duration"`

	// nftables.
	NFTablesMode                      *string          `json:"nftablesMode,omitempty" check:"enum=Disabled|Enabled|Auto" default:"Auto"`
	NftablesRefreshInterval           *metav1.Duration `json:"nftablesRefreshInterval,omitempty"`
	NftablesFilterAllowAction         string           `json:"nftablesFilterAllowAction,omitempty" check:"enum=Accept|Return"`
	NftablesMangleAllowAction         string           `json:"nftablesMangleAllowAction,omitempty" check:"enum=Accept|Return"`
	NftablesFilterDenyAction          string           `json:"nftablesFilterDenyAction,omitempty" check:"enum=Drop|Reject"`
	NftablesMarkMask                  *uint32          `json:"nftablesMarkMask,omitempty"`
	NFTablesFlowTableOffload          *string          `json:"nftablesFlowTableOffload,omitempty" check:"enum=All|Disabled"`
	NFTablesFlowTableDataIfacePattern string           `json:"nftablesFlowTableDataIfacePattern,omitempty" check:"format=regexp"`

	// Status that the agent writes to the store, flow logs, usage reports.
	ReportingInterval            *metav1.Duration `json:"reportingInterval,omitempty" check:"format=duration" param:"ReportingIntervalSecs"`
	ReportingTTL                 *metav1.Duration `json:"reportingTTL,omitempty" check:"format=duration" param:"ReportingTTLSecs"`
	EndpointReportingEnabled     *bool            `json:"endpointReportingEnabled,omitempty"`
	EndpointReportingDelay       *metav1.Duration `json:"endpointReportingDelay,omitempty" check:"format=duration" param:"EndpointReportingDelaySecs"`
	FlowLogsFlushInterval        *metav1.Duration `json:"flowLogsFlushInterval,omitempty" check:"format=duration"`
	FlowLogsCollectorDebugTrace  *bool            `json:"flowLogsCollectorDebugTrace,omitempty"`
	FlowLogsGoldmaneServer       *string          `json:"flowLogsGoldmaneServer,omitempty"`
	FlowLogsLocalReporter        *string          `json:"flowLogsLocalReporter,omitempty" check:"enum=Disabled|Enabled"`
	FlowLogsPolicyEvaluationMode *string          `json:"flowLogsPolicyEvaluationMode,omitempty" check:"enum=None|Continuous"`
	UsageReportingEnabled        *bool            `json:"usageReportingEnabled,omitempty"`
	UsageReportingInitialDelay   *metav1.Duration `json:"usageReportingInitialDelay,omitempty" check:"format=duration" param:"UsageReportingInitialDelaySecs"`
	UsageReportingInterval       *metav1.Duration `json:"usageReportingInterval,omitempty" check:"format=duration" param:"UsageReportingIntervalSecs"`

	// Routes, tunnels and address translation.
	RouteSource                              string              `json:"routeSource,omitempty" check:"fold=WorkloadIPs|CalicoIPAM"`
	RouteRefreshInterval                     *metav1.Duration    `json:"routeRefreshInterval,omitempty" check:"format=duration"`
	RouteTableRange                          *RouteTableRange    `json:"routeTableRange,omitempty"`
	RouteTableRanges                         []RouteTableIDRange `json:"routeTableRanges,omitzero"`
	RouteSyncDisabled                        *bool               `json:"routeSyncDisabled,omitempty"`
	RemoveExternalRoutes                     *bool               `json:"removeExternalRoutes,omitempty"`
	ProgramClusterRoutes                     *string             `json:"programClusterRoutes,omitempty" check:"enum=Enabled|Disabled|EnabledIPIPOnly|EnabledNoEncapOnly"`
	DeviceRouteSourceAddress                 string              `json:"deviceRouteSourceAddress,omitempty" check:"format=ipv4"`
	DeviceRouteSourceAddressIPv6             string              `json:"deviceRouteSourceAddressIPv6,omitempty" check:"format=ipv6"`
	DeviceRouteProtocol                      *int                `json:"deviceRouteProtocol,omitempty"`
	IPv4NormalRoutePriority                  *int                `json:"ipv4NormalRoutePriority,omitempty" check:"min=1,max=2147483646"`
	IPv4ElevatedRoutePriority                *int                `json:"ipv4ElevatedRoutePriority,omitempty" check:"min=1,max=2147483646"`
	IPv6NormalRoutePriority                  *int                `json:"ipv6NormalRoutePriority,omitempty" check:"min=1,max=2147483646"`
	IPv6ElevatedRoutePriority                *int                `json:"ipv6ElevatedRoutePriority,omitempty" check:"min=1,max=2147483646"`
	LiveMigrationRouteConvergenceTime        *metav1.Duration    `json:"liveMigrationRouteConvergenceTime,omitempty" check:"format=duration"`
	NATPortRange                             *Port               `json:"natPortRange,omitempty"`
	NATOutgoingAddress                       string              `json:"natOutgoingAddress,omitempty" check:"format=ipv4"`
	NATOutgoingExclusions                    *string             `json:"natOutgoingExclusions,omitempty" check:"enum=IPPoolsOnly|IPPoolsAndHostIPs"`
	MTUIfacePattern                          string              `json:"mtuIfacePattern,omitempty" check:"format=regexp"`
	RequireMTUFile                           *bool               `json:"requireMTUFile,omitempty"`
	IPIPEnabled                              *bool               `json:"ipipEnabled,omitempty" param:"IpInIpEnabled"`
	IPIPMTU                                  *int                `json:"ipipMTU,omitempty" param:"IpInIpMtu"`
	VXLANEnabled                             *bool               `json:"vxlanEnabled,omitempty"`
	VXLANMTU                                 *int                `json:"vxlanMTU,omitempty"`
	VXLANMTUV6                               *int                `json:"vxlanMTUV6,omitempty"`
	VXLANPort                                *int                `json:"vxlanPort,omitempty"`
	VXLANVNI                                 *int                `json:"vxlanVNI,omitempty"`
	LocalSubnetL2Reachability                *string             `json:"localSubnetL2Reachability,omitempty" check:"enum=Disabled|PodsAndLoadBalancers"`
	LocalSubnetL2ReachabilityRefreshInterval *metav1.Duration    `json:"localSubnetL2ReachabilityRefreshInterval,omitempty"`

	// WireGuard.
	WireguardEnabled               *bool            `json:"wireguardEnabled,omitempty"`
	WireguardEnabledV6             *bool            `json:"wireguardEnabledV6,omitempty"`
	WireguardThreadingEnabled      *bool            `json:"wireguardThreadingEnabled,omitempty"`
	WireguardListeningPort         *int             `json:"wireguardListeningPort,omitempty" check:"min=1,max=65535"`
	WireguardListeningPortV6       *int             `json:"wireguardListeningPortV6,omitempty" check:"min=1,max=65535"`
	WireguardRoutingRulePriority   *int             `json:"wireguardRoutingRulePriority,omitempty" check:"min=1,max=32765"`
	WireguardInterfaceName         string           `json:"wireguardInterfaceName,omitempty" check:"format=interface"`
	WireguardInterfaceNameV6       string           `json:"wireguardInterfaceNameV6,omitempty" check:"format=interface"`
	WireguardMTU                   *int             `json:"wireguardMTU,omitempty"`
	WireguardMTUV6                 *int             `json:"wireguardMTUV6,omitempty"`
	WireguardHostEncryptionEnabled *bool            `json:"wireguardHostEncryptionEnabled,omitempty"`
	WireguardPersistentKeepAlive   *metav1.Duration `json:"wireguardKeepAlive,omitempty" check:"format=duration"`

	// Clouds.
	AWSSrcDstCheck  *string `json:"awsSrcDstCheck,omitempty" check:"enum=DoNothing|Enable|Disable"`
	MetadataAddr    string  `json:"metadataAddr,omitempty"`
	MetadataPort    *int    `json:"metadataPort,omitempty"`
	OpenstackRegion string  `json:"openstackRegion,omitempty" check:"maxlen=46,format=dnsLabel"`

	// eBPF. The level is written even when it is empty, as 3.32 does.
	BPFEnabled                         *bool                 `json:"bpfEnabled,omitempty"`
	BPFDisableUnprivileged             *bool                 `json:"bpfDisableUnprivileged,omitempty"`
	BPFJITHardening                    *string               `json:"bpfJITHardening,omitempty" check:"enum=Auto|Strict"`
	BPFLogLevel                        string                `json:"bpfLogLevel" check:"enum=Off|Info|Debug"`
	BPFConntrackLogLevel               string                `json:"bpfConntrackLogLevel,omitempty" check:"enum=Off|Debug"`
	BPFConntrackCleanupMode            *string               `json:"bpfConntrackMode,omitempty" check:"enum=Auto|Userspace|BPFProgram"`
	BPFConntrackTimeouts               *BPFConntrackTimeouts `json:"bpfConntrackTimeouts,omitempty"`
	BPFLogFilters                      map[string]string     `json:"bpfLogFilters,omitzero" check:"format=interfaceName"`
	BPFCTLBLogFilter                   string                `json:"bpfCTLBLogFilter,omitempty"`
	BPFDataIfacePattern                string                `json:"bpfDataIfacePattern,omitempty" check:"format=regexp"`
	BPFL3IfacePattern                  string                `json:"bpfL3IfacePattern,omitempty" check:"format=regexp"`
	BPFOverlayHostSourceIP             *string               `json:"bpfOverlayHostSourceIP,omitempty" check:"enum=TunnelAddress|HostAddress"`
	BPFConnectTimeLoadBalancingEnabled *bool                 `json:"bpfConnectTimeLoadBalancingEnabled,omitempty"`
	BPFConnectTimeLoadBalancing        *string               `json:"bpfConnectTimeLoadBalancing,omitempty" check:"enum=TCP|Enabled|Disabled" default:"TCP"`
	BPFHostNetworkedNATWithoutCTLB     *string               `json:"bpfHostNetworkedNATWithoutCTLB,omitempty" check:"enum=Enabled|Disabled" default:"Enabled"`
	BPFExternalServiceMode             string                `json:"bpfExternalServiceMode,omitempty" check:"enum=Tunnel|DSR"`
	BPFDSROptoutCIDRs                  []string              `json:"bpfDSROptoutCIDRs,omitzero" check:"format=cidr"`
	BPFExtToServiceConnmark            *int                  `json:"bpfExtToServiceConnmark,omitempty" check:"min=0,max=4294967295"`
	BPFKubeProxyIptablesCleanupEnabled *bool                 `json:"bpfKubeProxyIptablesCleanupEnabled,omitempty"`
	BPFKubeProxyMinSyncPeriod          *metav1.Duration      `json:"bpfKubeProxyMinSyncPeriod,omitempty" check:"format=duration"`
	BPFKubeProxyHealthzPort            *int                  `json:"bpfKubeProxyHealthzPort,omitempty" check:"min=0,max=65535"`
	BPFPSNATPorts                      *Port                 `json:"bpfPSNATPorts,omitempty"`
	BPFMapSizeNATFrontend              *int                  `json:"bpfMapSizeNATFrontend,omitempty"`
	BPFMapSizeNATBackend               *int                  `json:"bpfMapSizeNATBackend,omitempty"`
	BPFMapSizeNATAffinity              *int                  `json:"bpfMapSizeNATAffinity,omitempty"`
	BPFMapSizeRoute                    *int                  `json:"bpfMapSizeRoute,omitempty"`
	BPFMapSizeConntrack                *int                  `json:"bpfMapSizeConntrack,omitempty"`
	BPFMapSizePerCPUConntrack          *int                  `json:"bpfMapSizePerCpuConntrack,omitempty"`
	BPFMapSizeConntrackScaling         string                `json:"bpfMapSizeConntrackScaling,omitempty" check:"fold=Disabled|DoubleIfFull"`
	BPFMapSizeConntrackCleanupQueue    *int                  `json:"bpfMapSizeConntrackCleanupQueue,omitempty" check:"min=1"`
	BPFMapSizeIPSets                   *int                  `json:"bpfMapSizeIPSets,omitempty"`
	BPFMapSizeIfState                  *int                  `json:"bpfMapSizeIfState,omitempty"`
	BPFMaglevMaxEndpointsPerService    *int                  `json:"bpfMaglevMaxEndpointsPerService,omitempty" check:"min=1,max=3000"`
	BPFMaglevMaxServices               *int                  `json:"bpfMaglevMaxServices,omitempty" check:"min=1,max=3000"`
	BPFHostConntrackBypass             *bool                 `json:"bpfHostConntrackBypass,omitempty"`
	BPFEnforceRPF                      string                `json:"bpfEnforceRPF,omitempty" check:"fold=Disabled|Strict|Loose"`
	BPFPolicyDebugEnabled              *bool                 `json:"bpfPolicyDebugEnabled,omitempty"`
	BPFForceTrackPacketsFromIfaces     []string              `json:"bpfForceTrackPacketsFromIfaces,omitzero" check:"format=interfaceFilter"`
	BPFDisableGROForIfaces             string                `json:"bpfDisableGROForIfaces,omitempty" check:"format=regexp"`
	BPFExcludeCIDRsFromNAT             []string              `json:"bpfExcludeCIDRsFromNAT,omitzero" check:"format=cidr"`
	BPFIPFragTimeout                   *metav1.Duration      `json:"bpfIPFragTimeout,omitempty" check:"format=duration"`
	BPFIPFragmentReassemblyEnabled     *bool                 `json:"bpfIPFragmentReassemblyEnabled,omitempty"`
	BPFExportBufferSizeMB              *int                  `json:"bpfExportBufferSizeMB,omitempty"`
	BPFRedirectToPeer                  string                `json:"bpfRedirectToPeer,omitempty" check:"enum=Enabled|Disabled"`
	BPFAttachType                      *string               `json:"bpfAttachType,omitempty" check:"enum=TC|TCX|Netkit"`
	BPFProfiling                       string                `json:"bpfProfiling,omitempty" check:"enum=Enabled|Disabled"`
	CgroupV2Path                       string                `json:"cgroupV2Path,omitempty"`

	// Debugging.
	DebugMemoryProfilePath           string           `json:"debugMemoryProfilePath,omitempty"`
	DebugDisableLogDropping          *bool            `json:"debugDisableLogDropping,omitempty"`
	DebugSimulateCalcGraphHangAfter  *metav1.Duration `json:"debugSimulateCalcGraphHangAfter,omitempty" check:"format=duration"`
	DebugSimulateDataplaneHangAfter  *metav1.Duration `json:"debugSimulateDataplaneHangAfter,omitempty" check:"format=duration"`
	DebugSimulateDataplaneApplyDelay *metav1.Duration `json:"debugSimulateDataplaneApplyDelay,omitempty" check:"format=duration"`
	DebugHost                        *string          `json:"debugHost,omitempty"`
	DebugPort                        *int             `json:"debugPort,omitempty" check:"min=0,max=65535"`
}

// HealthTimeoutOverride gives one health reporter its own timeout.
type HealthTimeoutOverride struct {
	Name    string          `json:"name" check:"required,format=reporter"`
	Timeout metav1.Duration `json:"timeout"`
}

// ProtoPort is a failsafe port. Protocol "" is TCP. Net, a CIDR or an address, limits the remote end; without it every
// address of both families is meant.
type ProtoPort struct {
	Protocol string `json:"protocol,omitempty" check:"fold=TCP|UDP|SCTP"`
	Port     uint16 `json:"port"`
	Net      string `json:"net,omitempty"`
}

// RouteTableRange holds the tables Min to Max, both inclusive, within 1 to 250.
type RouteTableRange struct {
	Min int `json:"min" schema:"required,min=1,max=250"`
	Max int `json:"max" schema:"required,min=1,max=250"`
}

// RouteTableIDRange holds the tables Min to Max, both inclusive.
type RouteTableIDRange struct {
	Min int `json:"min" schema:"required,min=1"`
	Max int `json:"max" schema:"required,max=4294967295"`
}

// BPFConntrackTimeouts are durations, or "Auto" for what the kernel's own connection tracking has.
type BPFConntrackTimeouts struct {
	CreationGracePeriod *string `json:"creationGracePeriod,omitempty" check:"format=conntrackTimeout"`
	TCPSynSent          *string `json:"tcpSynSent,omitempty" check:"format=conntrackTimeout"`
	TCPEstablished      *string `json:"tcpEstablished,omitempty" check:"format=conntrackTimeout"`
	TCPFinsSeen         *string `json:"tcpFinsSeen,omitempty" check:"format=conntrackTimeout"`
	TCPResetSeen        *string `json:"tcpResetSeen,omitempty" check:"format=conntrackTimeout"`
	UDPTimeout          *string `json:"udpTimeout,omitempty" check:"format=conntrackTimeout"`
	GenericTimeout      *string `json:"genericTimeout,omitempty" check:"format=conntrackTimeout"`
	ICMPTimeout         *string `json:"icmpTimeout,omitempty" check:"format=conntrackTimeout"`
}
