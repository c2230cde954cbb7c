package v3

import (
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// The two directions that spec.types of a policy lists.
const (
	TypeIngress = "Ingress"
	TypeEgress  = "Egress"
)

// DefaultTier is the tier of a policy that names none.
const DefaultTier = "default"

// Tier is an ordered group of policies.
type Tier struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata"`
	Spec              TierSpec   `json:"spec"`
	Status            TierStatus `json:"status"`
}

// TierSpec: Order nil is stored as 1,000,000; DefaultAction is Deny (default) or Pass.
type TierSpec struct {
	Order         *float64 `json:"order,omitempty"` // of the tiers, lower first
	DefaultAction string   `json:"defaultAction,omitempty" schema:"enum=Deny|Pass" default:"Deny"`
}

// TierStatus is written by controllers.
type TierStatus struct {
	Conditions []metav1.Condition `json:"conditions,omitempty"`
}

// GlobalNetworkPolicy selects endpoints of the whole cluster, host endpoints included.
type GlobalNetworkPolicy struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata"`
	Spec              GlobalNetworkPolicySpec `json:"spec"`
}

// GlobalNetworkPolicySpec says whom the policy is for and what it allows.
type GlobalNetworkPolicySpec struct {
	PolicySpec `json:",inline"`
	// Over the labels of namespaces; if set, only workloads are selected.
	NamespaceSelector string `json:"namespaceSelector,omitempty" schema:"maxlen=1024"`
	// Before connection tracking, host endpoints only; replies need rules of their own.
	DoNotTrack bool `json:"doNotTrack,omitempty"`
	// Before address translation, host endpoints only, ingress only.
	PreDNAT bool `json:"preDNAT,omitempty"`
	// Also to what the host forwards.
	ApplyOnForward bool `json:"applyOnForward,omitempty"`
}

// NetworkPolicy selects workload endpoints of its namespace.
type NetworkPolicy struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata"`
	Spec              PolicySpec `json:"spec"`
}

// PolicySpec says whom the policy is for and what it allows. A policy without an order is the last of its tier.
type PolicySpec struct {
	// The tier that the policy is in. It must exist.
	Tier string `json:"tier,omitempty" schema:"maxlen=253,format=name" default:"default"`
	// Of the policies of a tier: lower first.
	Order *float64 `json:"order,omitempty"`
	// In order, the first that matches decides.
	Ingress []Rule `json:"ingress,omitempty" schema:"maxitems=1024"`
	// In order, the first that matches decides.
	Egress []Rule `json:"egress,omitempty" schema:"maxitems=1024"`
	// Over the labels of endpoints; empty: all of them.
	Selector string `json:"selector,omitempty" schema:"maxlen=1024"`
	// The directions that the policy is about; what its rules do not match there is denied at the end of the tier.
	Types []string `json:"types,omitempty" schema:"maxitems=2,distinct,enum=Ingress|Egress"`
	// Over the labels of the workload's service account.
	ServiceAccountSelector string `json:"serviceAccountSelector,omitempty" schema:"maxlen=1024"`
	// Without effect on what is allowed.
	PerformanceHints []string `json:"performanceHints,omitempty" schema:"maxitems=1,distinct,enum=AssumeNeededOnEveryNode"`
}

// Rule decides about the packets that every field of it matches.
type Rule struct {
	// Log goes on with the next rule, Pass with the next tier.
	Action string `json:"action" schema:"required,enum=Allow|Deny|Log|Pass"`
	// Absent: both.
	IPVersion *int `json:"ipVersion,omitempty" schema:"enum=4|6"`
	// TCP, UDP, ICMP, ICMPv6, SCTP, UDPLite or a number.
	Protocol    *Protocol     `json:"protocol,omitempty"`
	ICMP        *ICMPFields   `json:"icmp,omitempty"`
	NotProtocol *Protocol     `json:"notProtocol,omitempty"`
	NotICMP     *ICMPFields   `json:"notICMP,omitempty"`
	Source      EntityRule    `json:"source"` // always written, as {} when empty
	Destination EntityRule    `json:"destination"`
	HTTP        *HTTPMatch    `json:"http,omitempty"` // not enforced by the kernel: the rule matches without it
	Metadata    *RuleMetadata `json:"metadata,omitempty"`

	// Unknown names what a stored rule asks for and this package does not know: what the rule matches is in doubt. See
	// [DecodeStored] and [UnknownInRules].
	Unknown []string `json:"-"`
}

// ICMPFields: Type 0 to 254, Code 0 to 255 and only with a type.
type ICMPFields struct {
	Type *int `json:"type,omitempty" schema:"min=0,max=254"`
	Code *int `json:"code,omitempty" schema:"min=0,max=255"`
}

// EntityRule matches one end of a connection: by all fields that are set, and by any entry of a list.
type EntityRule struct {
	// CIDRs without host bits. Absent means any address; an empty list, which no address matches, is refused.
	Nets []string `json:"nets,omitzero" schema:"minitems=1,maxitems=256,distinct,maxlen=43,format=net"`
	// Over the labels of endpoints and network sets.
	Selector string `json:"selector,omitempty" schema:"maxlen=1024"`
	// Over the labels of namespaces; global(): what has none.
	NamespaceSelector string `json:"namespaceSelector,omitempty" schema:"maxlen=1024"`
	// Excludes the other fields.
	Services *ServiceMatch `json:"services,omitempty"`
	// Numbers, ranges like 1000:2000 or names. Absent means any packet; an empty list, which none matches, is refused.
	Ports           []Port               `json:"ports,omitzero" schema:"minitems=1,maxitems=50"`
	NotNets         []string             `json:"notNets,omitempty" schema:"maxitems=256,distinct,maxlen=43,format=notNet"`
	NotSelector     string               `json:"notSelector,omitempty" schema:"maxlen=1024"`
	NotPorts        []Port               `json:"notPorts,omitempty" schema:"maxitems=50"`
	ServiceAccounts *ServiceAccountMatch `json:"serviceAccounts,omitempty"`
}

// ServiceMatch names a Kubernetes Service.
type ServiceMatch struct {
	Name      string `json:"name,omitempty" schema:"required,maxlen=253,format=name"`
	Namespace string `json:"namespace,omitempty" schema:"maxlen=253,format=name"`
}

// ServiceAccountMatch: names and selector are ANDed.
type ServiceAccountMatch struct {
	Names    []string `json:"names,omitempty" schema:"distinct"`
	Selector string   `json:"selector,omitempty" schema:"maxlen=1024"`
}

// HTTPMatch is accepted on Allow rules of ingress.
type HTTPMatch struct {
	Methods []string   `json:"methods,omitempty" schema:"maxitems=20,distinct"`
	Paths   []HTTPPath `json:"paths,omitempty" schema:"maxitems=20"`
}

// HTTPPath has exactly one of its fields set.
type HTTPPath struct {
	Exact  string `json:"exact,omitempty" schema:"maxlen=1024,format=httpPath"`
	Prefix string `json:"prefix,omitempty" schema:"maxlen=1024,format=httpPath"`
}

// RuleMetadata tells people about a rule.
type RuleMetadata struct {
	Annotations map[string]string `json:"annotations,omitempty"`
}

// HostEndpoint is an interface of a host, or all of them.
type HostEndpoint struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata"`
	Spec              HostEndpointSpec `json:"spec"`
}

// HostEndpointSpec: InterfaceName is a Linux interface name, "*" or empty; ExpectedIPs finds the interface when the name
// is empty and feeds the sets of rule selectors.
type HostEndpointSpec struct {
	Node          string         `json:"node,omitempty" schema:"required,maxlen=253,format=name"`
	InterfaceName string         `json:"interfaceName,omitempty" schema:"format=interface"`
	ExpectedIPs   []string       `json:"expectedIPs,omitempty" schema:"distinct,maxlen=64,format=address"`
	Profiles      []string       `json:"profiles,omitempty" schema:"distinct,maxlen=253,format=name"`
	Ports         []EndpointPort `json:"ports,omitempty"`
}

// EndpointPort is a named port of a host endpoint.
type EndpointPort struct {
	Name     string   `json:"name" schema:"required,maxlen=15,format=port"`
	Protocol Protocol `json:"protocol" schema:"required"`
	Port     uint16   `json:"port" schema:"required,min=1"`
}

// WorkloadEndpoint is the host side of a workload's interface.
type WorkloadEndpoint struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata"`
	Spec              WorkloadEndpointSpec `json:"spec"`
}

// WorkloadEndpointSpec: the first six fields make the name.
type WorkloadEndpointSpec struct {
	Orchestrator               string                 `json:"orchestrator,omitempty"`
	Workload                   string                 `json:"workload,omitempty"`
	Node                       string                 `json:"node,omitempty"`
	ContainerID                string                 `json:"containerID,omitempty"`
	Pod                        string                 `json:"pod,omitempty"`
	Endpoint                   string                 `json:"endpoint,omitempty"`
	ServiceAccountName         string                 `json:"serviceAccountName,omitempty"`
	IPNetworks                 []string               `json:"ipNetworks,omitempty"`
	IPNATs                     []IPNAT                `json:"ipNATs,omitempty"`
	IPv4Gateway                string                 `json:"ipv4Gateway,omitempty"`
	IPv6Gateway                string                 `json:"ipv6Gateway,omitempty"`
	Profiles                   []string               `json:"profiles,omitempty"`
	InterfaceName              string                 `json:"interfaceName,omitempty"`
	MAC                        string                 `json:"mac,omitempty"`
	Ports                      []WorkloadEndpointPort `json:"ports,omitempty"`
	AllowSpoofedSourcePrefixes []string               `json:"allowSpoofedSourcePrefixes,omitempty"`
	QoSControls                *QoSControls           `json:"qosControls,omitempty"`
}

// IPNAT maps an external address to one of the workload's.
type IPNAT struct {
	InternalIP string `json:"internalIP"`
	ExternalIP string `json:"externalIP"`
}

// WorkloadEndpointPort is a named or host port of a workload.
type WorkloadEndpointPort struct {
	Name     string   `json:"name"`
	Protocol Protocol `json:"protocol"`
	Port     uint16   `json:"port"`
	HostPort uint16   `json:"hostPort"`
	HostIP   string   `json:"hostIP"`
}

// GlobalNetworkSet labels addresses that are no endpoints.
type GlobalNetworkSet struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata"`
	Spec              NetworkSetSpec `json:"spec"`
}

// NetworkSet is a GlobalNetworkSet in a namespace.
type NetworkSet struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata"`
	Spec              NetworkSetSpec `json:"spec"`
}

// NetworkSetSpec: Nets holds CIDRs or addresses of both families; host bits are masked on use.
type NetworkSetSpec struct {
	Nets []string `json:"nets,omitempty" schema:"maxlen=64,format=cidr"`
}

// Profile gives labels and rules to the endpoints that name it.
type Profile struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata"`
	Spec              ProfileSpec `json:"spec"`
}

// ProfileSpec: rules are walked after all tiers.
type ProfileSpec struct {
	Ingress       []Rule            `json:"ingress,omitempty"`
	Egress        []Rule            `json:"egress,omitempty"`
	LabelsToApply map[string]string `json:"labelsToApply,omitempty"`
}
