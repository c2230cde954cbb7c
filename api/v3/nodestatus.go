package v3

import (
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// CalicoNodeStatus asks the agent of one host to report how it is, and holds the report.
type CalicoNodeStatus struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata"`
	Spec              CalicoNodeStatusSpec   `json:"spec"`
	Status            CalicoNodeStatusStatus `json:"status"`
}

// CalicoNodeStatusSpec: Classes says what to report, at least one. UpdatePeriodSeconds 0 means no more reports.
type CalicoNodeStatusSpec struct {
	Node                string   `json:"node,omitempty" check:"required,maxlen=253,format=name"`
	Classes             []string `json:"classes,omitempty" check:"minitems=1,enum=Agent|BGP|Routes"`
	UpdatePeriodSeconds *uint32  `json:"updatePeriodSeconds,omitempty" check:"max=86400"`
}

// CalicoNodeStatusStatus is written by the agent. LastUpdated null is never.
type CalicoNodeStatusStatus struct {
	LastUpdated metav1.Time              `json:"lastUpdated"`
	Agent       CalicoNodeAgentStatus    `json:"agent"`
	BGP         CalicoNodeBGPStatus      `json:"bgp"`
	Routes      CalicoNodeBGPRouteStatus `json:"routes"`
}

// CalicoNodeAgentStatus is the state of the BGP daemons, one for each address family.
type CalicoNodeAgentStatus struct {
	BIRDV4 BGPDaemonStatus `json:"birdV4"`
	BIRDV6 BGPDaemonStatus `json:"birdV6"`
}

// BGPDaemonStatus has times as the daemon prints them.
type BGPDaemonStatus struct {
	State                   string `json:"state,omitempty" check:"enum=Ready|NotReady"`
	Version                 string `json:"version,omitempty"`
	RouterID                string `json:"routerID,omitempty"`
	LastBootTime            string `json:"lastBootTime,omitempty"`
	LastReconfigurationTime string `json:"lastReconfigurationTime,omitempty"`
}

// CalicoNodeBGPStatus counts the sessions of the host and lists them.
type CalicoNodeBGPStatus struct {
	NumberEstablishedV4    int              `json:"numberEstablishedV4"`
	NumberNotEstablishedV4 int              `json:"numberNotEstablishedV4"`
	NumberEstablishedV6    int              `json:"numberEstablishedV6"`
	NumberNotEstablishedV6 int              `json:"numberNotEstablishedV6"`
	PeersV4                []CalicoNodePeer `json:"peersV4,omitempty"`
	PeersV6                []CalicoNodePeer `json:"peersV6,omitempty"`
}

// CalicoNodePeer is a BGP session; Since is a time as the daemon prints it.
type CalicoNodePeer struct {
	PeerIP string `json:"peerIP,omitempty" check:"format=address"`
	Type   string `json:"type,omitempty" check:"enum=NodeMesh|NodePeer|GlobalPeer"`
	State  string `json:"state,omitempty" check:"enum=Idle|Connect|Active|OpenSent|OpenConfirm|Established|Close"`
	Since  string `json:"since,omitempty"`
}

// CalicoNodeBGPRouteStatus lists the routes that the BGP daemons know.
type CalicoNodeBGPRouteStatus struct {
	RoutesV4 []CalicoNodeRoute `json:"routesV4,omitempty"`
	RoutesV6 []CalicoNodeRoute `json:"routesV6,omitempty"`
}

// CalicoNodeRoute is a route: FIB when the kernel uses it, RIB when it does not.
type CalicoNodeRoute struct {
	Type        string                     `json:"type,omitempty" check:"enum=FIB|RIB"`
	Destination string                     `json:"destination,omitempty"`
	Gateway     string                     `json:"gateway,omitempty"`
	Interface   string                     `json:"interface,omitempty"`
	LearnedFrom CalicoNodeRouteLearnedFrom `json:"learnedFrom,omitempty"`
}

// CalicoNodeRouteLearnedFrom says where a route comes from; PeerIP with the two last source types.
type CalicoNodeRouteLearnedFrom struct {
	SourceType string `json:"sourceType,omitempty" check:"enum=Kernel|Static|Direct|NodeMesh|BGPPeer"`
	PeerIP     string `json:"peerIP,omitempty" check:"format=address"`
}

func validateCalicoNodeStatus(c *check, s *CalicoNodeStatus) {
	checkTags(c, "spec", &s.Spec)
	checkTags(c, "status", &s.Status)
	checkDistinct(c, "spec.classes", s.Spec.Classes)
	if s.Spec.UpdatePeriodSeconds == nil {
		c.fail("spec.updatePeriodSeconds", nil, "must be specified", "write a number of seconds up to 86400, or 0 for no reports")
	}
}
