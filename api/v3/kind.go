package v3

import (
	"slices"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
)

// APIVersion is the apiVersion of every kind of this package.
const APIVersion = "projectcalico.org/v3"

// A Kind names a resource kind as manifests spell it.
type Kind string

// The kinds that have a Go type here.
const (
	KindTier                Kind = "Tier"
	KindGlobalNetworkPolicy Kind = "GlobalNetworkPolicy"
	KindNetworkPolicy       Kind = "NetworkPolicy"
	KindHostEndpoint        Kind = "HostEndpoint"
	KindWorkloadEndpoint    Kind = "WorkloadEndpoint"
	KindGlobalNetworkSet    Kind = "GlobalNetworkSet"
	KindNetworkSet          Kind = "NetworkSet"
	KindProfile             Kind = "Profile"
	KindNode                Kind = "Node"
	KindFelixConfiguration  Kind = "FelixConfiguration"
	KindClusterInformation  Kind = "ClusterInformation"

	KindStagedGlobalNetworkPolicy     Kind = "StagedGlobalNetworkPolicy"
	KindStagedNetworkPolicy           Kind = "StagedNetworkPolicy"
	KindStagedKubernetesNetworkPolicy Kind = "StagedKubernetesNetworkPolicy"
	KindKubeControllersConfiguration  Kind = "KubeControllersConfiguration"
	KindCalicoNodeStatus              Kind = "CalicoNodeStatus"
	KindIPPool                        Kind = "IPPool"
	KindIPReservation                 Kind = "IPReservation"
	KindIPAMConfiguration             Kind = "IPAMConfiguration"
	KindBGPConfiguration              Kind = "BGPConfiguration"
	KindBGPFilter                     Kind = "BGPFilter"
	KindBGPPeer                       Kind = "BGPPeer"
)

// A Resource is a pointer to one of the types of this package. Resources handed between packages are not changed:
// whoever wants another content makes a copy.
type Resource interface {
	metav1.Object
	GetObjectKind() schema.ObjectKind
}

// A Key identifies a resource. Namespace is "" for kinds of the cluster.
type Key struct {
	Kind            Kind
	Namespace, Name string
}

// String returns Kind(name) or Kind(namespace/name), as errors print it.
func (k Key) String() string {
	if k.Namespace == "" {
		return string(k.Kind) + "(" + k.Name + ")"
	}
	return string(k.Kind) + "(" + k.Namespace + "/" + k.Name + ")"
}

// KeyOf returns the key of a resource.
func KeyOf(r Resource) Key {
	return Key{Kind(r.GetObjectKind().GroupVersionKind().Kind), r.GetNamespace(), r.GetName()}
}

// Info describes a kind.
type Info struct {
	Kind       Kind
	Plural     string // lower case, as in the store's keys
	Namespaced bool
	// New returns an empty resource with Kind and APIVersion set.
	New func() Resource
}

// Lookup returns the description of a kind of this package, of those without a type as well.
func Lookup(kind Kind) (Info, bool) {
	info, ok := infos[kind]
	return info, ok
}

// infos are all kinds by name. Nobody changes them.
var infos = func() map[Kind]Info {
	byKind := map[Kind]Info{}
	for _, info := range slices.Concat(Kinds(), UntypedKinds(), internalKinds()) {
		byKind[info.Kind] = info
	}
	return byKind
}()

// Kinds returns every kind of this package. Objects of later kinds may refer to earlier ones.
func Kinds() []Info {
	meta := func(kind Kind) metav1.TypeMeta { return metav1.TypeMeta{Kind: string(kind), APIVersion: APIVersion} }
	return []Info{
		{KindTier, "tiers", false, func() Resource { return &Tier{TypeMeta: meta(KindTier)} }},
		{KindGlobalNetworkPolicy, "globalnetworkpolicies", false, func() Resource { return &GlobalNetworkPolicy{TypeMeta: meta(KindGlobalNetworkPolicy)} }},
		{KindNetworkPolicy, "networkpolicies", true, func() Resource { return &NetworkPolicy{TypeMeta: meta(KindNetworkPolicy)} }},
		{KindHostEndpoint, "hostendpoints", false, func() Resource { return &HostEndpoint{TypeMeta: meta(KindHostEndpoint)} }},
		{KindWorkloadEndpoint, "workloadendpoints", true, func() Resource { return &WorkloadEndpoint{TypeMeta: meta(KindWorkloadEndpoint)} }},
		{KindGlobalNetworkSet, "globalnetworksets", false, func() Resource { return &GlobalNetworkSet{TypeMeta: meta(KindGlobalNetworkSet)} }},
		{KindNetworkSet, "networksets", true, func() Resource { return &NetworkSet{TypeMeta: meta(KindNetworkSet)} }},
		{KindProfile, "profiles", false, func() Resource { return &Profile{TypeMeta: meta(KindProfile)} }},
		{KindNode, "nodes", false, func() Resource { return &Node{TypeMeta: meta(KindNode)} }},
		{KindFelixConfiguration, "felixconfigurations", false, func() Resource { return &FelixConfiguration{TypeMeta: meta(KindFelixConfiguration)} }},
		{KindClusterInformation, "clusterinformations", false, func() Resource { return &ClusterInformation{TypeMeta: meta(KindClusterInformation)} }},
		{KindStagedGlobalNetworkPolicy, "stagedglobalnetworkpolicies", false, func() Resource { return &StagedGlobalNetworkPolicy{TypeMeta: meta(KindStagedGlobalNetworkPolicy)} }},
		{KindStagedNetworkPolicy, "stagednetworkpolicies", true, func() Resource { return &StagedNetworkPolicy{TypeMeta: meta(KindStagedNetworkPolicy)} }},
		{KindStagedKubernetesNetworkPolicy, "stagedkubernetesnetworkpolicies", true, func() Resource {
			return &StagedKubernetesNetworkPolicy{TypeMeta: meta(KindStagedKubernetesNetworkPolicy)}
		}},
		{KindKubeControllersConfiguration, "kubecontrollersconfigurations", false, func() Resource {
			return &KubeControllersConfiguration{TypeMeta: meta(KindKubeControllersConfiguration)}
		}},
		{KindCalicoNodeStatus, "caliconodestatuses", false, func() Resource { return &CalicoNodeStatus{TypeMeta: meta(KindCalicoNodeStatus)} }},
		{KindIPPool, "ippools", false, func() Resource { return &IPPool{TypeMeta: meta(KindIPPool)} }},
		{KindIPReservation, "ipreservations", false, func() Resource { return &IPReservation{TypeMeta: meta(KindIPReservation)} }},
		{KindIPAMConfiguration, "ipamconfigurations", false, func() Resource { return &IPAMConfiguration{TypeMeta: meta(KindIPAMConfiguration)} }},
		{KindBGPConfiguration, "bgpconfigurations", false, func() Resource { return &BGPConfiguration{TypeMeta: meta(KindBGPConfiguration)} }},
		{KindBGPFilter, "bgpfilters", false, func() Resource { return &BGPFilter{TypeMeta: meta(KindBGPFilter)} }},
		{KindBGPPeer, "bgppeers", false, func() Resource { return &BGPPeer{TypeMeta: meta(KindBGPPeer)} }},
	}
}

// AgentKinds returns the kinds that agents follow, in the order of Kinds: what the rules of a host and the settings of
// its agent depend on. The others are kept for people, controllers and agents of another make.
func AgentKinds() []Kind {
	return []Kind{
		KindTier, KindGlobalNetworkPolicy, KindNetworkPolicy, KindHostEndpoint, KindWorkloadEndpoint, KindGlobalNetworkSet,
		KindNetworkSet, KindProfile, KindNode, KindFelixConfiguration, KindClusterInformation, KindIPPool, KindBGPConfiguration,
		KindStagedGlobalNetworkPolicy, KindStagedNetworkPolicy, KindStagedKubernetesNetworkPolicy, KindServiceEndpoints,
	}
}
