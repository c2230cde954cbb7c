package v3

import (
	"encoding/json"
	"strconv"
	"strings"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// Node is a host of the cluster.
type Node struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata"`
	Spec              NodeSpec   `json:"spec"`
	Status            NodeStatus `json:"status"`
}

// NodeSpec holds the addresses of a host. BGP is nil or not empty.
type NodeSpec struct {
	BGP                  *NodeBGPSpec       `json:"bgp,omitempty"`
	IPv4VXLANTunnelAddr  string             `json:"ipv4VXLANTunnelAddr,omitempty" check:"format=ipv4"`
	VXLANTunnelMACAddr   string             `json:"vxlanTunnelMACAddr,omitempty" check:"format=mac"`
	IPv6VXLANTunnelAddr  string             `json:"ipv6VXLANTunnelAddr,omitempty" check:"format=ipv6"`
	VXLANTunnelMACAddrV6 string             `json:"vxlanTunnelMACAddrV6,omitempty" check:"format=mac"`
	OrchRefs             []OrchRef          `json:"orchRefs,omitempty"`
	Wireguard            *NodeWireguardSpec `json:"wireguard,omitempty"`
	Addresses            []NodeAddress      `json:"addresses,omitempty"`
	Interfaces           []NodeInterface    `json:"interfaces,omitempty"`
}

// NodeBGPSpec: the two addresses are CIDRs with the host's own address, or addresses alone.
type NodeBGPSpec struct {
	ASNumber                *ASNumber `json:"asNumber,omitempty"`
	IPv4Address             string    `json:"ipv4Address,omitempty" check:"format=cidrv4"`
	IPv6Address             string    `json:"ipv6Address,omitempty" check:"format=cidrv6"`
	IPv4IPIPTunnelAddr      string    `json:"ipv4IPIPTunnelAddr,omitempty" check:"format=ipv4"`
	RouteReflectorClusterID string    `json:"routeReflectorClusterID,omitempty" check:"format=ipv4"`
}

// OrchRef is what an orchestrator calls the host.
type OrchRef struct {
	NodeName     string `json:"nodeName,omitempty"`
	Orchestrator string `json:"orchestrator"`
}

// NodeWireguardSpec holds the addresses of the WireGuard interfaces.
type NodeWireguardSpec struct {
	InterfaceIPv4Address string `json:"interfaceIPv4Address,omitempty" check:"format=ipv4"`
	InterfaceIPv6Address string `json:"interfaceIPv6Address,omitempty" check:"format=ipv6"`
}

// NodeAddress: Type is CalicoNodeIP, InternalIP or ExternalIP. Neither field is checked when it is written, as in 3.32:
// whoever reads an address leaves out those that do not parse.
type NodeAddress struct {
	Address string `json:"address"`
	Type    string `json:"type,omitempty"`
}

// NodeInterface is an interface of the host with its addresses.
type NodeInterface struct {
	Name      string   `json:"name,omitempty"`
	Addresses []string `json:"addresses,omitempty"`
}

// NodeStatus is written by agents and controllers.
type NodeStatus struct {
	WireguardPublicKey   string   `json:"wireguardPublicKey,omitempty" check:"format=wireguardKey"`
	WireguardPublicKeyV6 string   `json:"wireguardPublicKeyV6,omitempty" check:"format=wireguardKey"`
	PodCIDRs             []string `json:"podCIDRs,omitempty"`
}

// QoSControls limits the traffic of a workload; 0 is no limit. Bandwidth and peak rate are bits per second, bursts bits
// (the minimum burst bytes), packet rates packets per second. Policy is not concerned.
type QoSControls struct {
	IngressBandwidth      int64 `json:"ingressBandwidth,omitempty" check:"min=0"`
	IngressBurst          int64 `json:"ingressBurst,omitempty" check:"min=0"`
	IngressPeakrate       int64 `json:"ingressPeakrate,omitempty" check:"min=0"`
	IngressMinburst       int64 `json:"ingressMinburst,omitempty" check:"min=0"`
	EgressBandwidth       int64 `json:"egressBandwidth,omitempty" check:"min=0"`
	EgressBurst           int64 `json:"egressBurst,omitempty" check:"min=0"`
	EgressPeakrate        int64 `json:"egressPeakrate,omitempty" check:"min=0"`
	EgressMinburst        int64 `json:"egressMinburst,omitempty" check:"min=0"`
	IngressPacketRate     int64 `json:"ingressPacketRate,omitempty" check:"min=0"`
	IngressPacketBurst    int64 `json:"ingressPacketBurst,omitempty" check:"min=0"`
	EgressPacketRate      int64 `json:"egressPacketRate,omitempty" check:"min=0"`
	EgressPacketBurst     int64 `json:"egressPacketBurst,omitempty" check:"min=0"`
	IngressMaxConnections int64 `json:"ingressMaxConnections,omitempty" check:"min=0"`
	EgressMaxConnections  int64 `json:"egressMaxConnections,omitempty" check:"min=0"`
	DSCP                  *DSCP `json:"dscp,omitempty"`
}

// An ASNumber is a BGP autonomous system. JSON has a number, or a string with a number or "high.low" (RFC 5396); it is
// written as a number.
type ASNumber uint32

// ParseASNumber returns the number that asplain ("65546") or asdot+ ("1.10") text stands for.
func ParseASNumber(s string) (ASNumber, error) {
	if n, err := strconv.ParseUint(s, 10, 32); err == nil {
		return ASNumber(n), nil
	}
	high, low, dotted := strings.Cut(s, ".")
	h, errHigh := strconv.ParseUint(high, 10, 16)
	l, errLow := strconv.ParseUint(low, 10, 16)
	if !dotted || errHigh != nil || errLow != nil {
		return 0, &valueError{"invalid AS Number format", asRemedy}
	}
	return ASNumber(h<<16 | l), nil
}

const asRemedy = "write a number from 0 to 4294967295, or \"high.low\" as a string"

// UnmarshalJSON accepts a number or a string.
func (a *ASNumber) UnmarshalJSON(data []byte) error {
	if strings.HasPrefix(string(data), `"`) {
		var text string
		if err := json.Unmarshal(data, &text); err != nil {
			return err
		}
		n, err := ParseASNumber(text)
		*a = n
		return err
	}
	n, err := strconv.ParseUint(string(data), 10, 32)
	if err != nil {
		return &valueError{"invalid AS Number format", asRemedy}
	}
	*a = ASNumber(n)
	return nil
}

// A DSCP is a differentiated services code point, given as its number or as its name in the IANA registry. JSON has a
// number or a string; a string that holds a number is written as a number. What is no code point decodes too, so that it
// costs nobody the rest of the object, and is for [Validate] to refuse.
type DSCP struct {
	Name  string // as it was given; "" when the number was
	Value uint8  // 0 for a name that is not known
}

// ParseDSCP returns the code point that a number from 0 to 63 or a name, in any case, stands for.
func ParseDSCP(s string) (DSCP, error) {
	if n, err := strconv.ParseUint(s, 10, 8); err == nil {
		if n > 63 {
			return DSCP{}, &valueError{"DSCP must be between 0 and 63", dscpRemedy}
		}
		return DSCP{Value: uint8(n)}, nil
	}
	value, ok := dscpValue(strings.ToUpper(s))
	if !ok {
		return DSCP{}, &valueError{"is not a valid DSCP value", dscpRemedy}
	}
	return DSCP{Name: s, Value: value}, nil
}

const dscpRemedy = "write a number from 0 to 63 or a name: DF, EF, CS0 to CS6, AF11 to AF43"

// dscpValue returns the code point of a name: RFC 2474 (CS, DF), RFC 2597 (AF), RFC 3246 (EF).
func dscpValue(name string) (uint8, bool) {
	switch {
	case name == "DF":
		return 0, true
	case name == "EF":
		return 46, true
	case len(name) == 3 && name[:2] == "CS" && name[2] >= '0' && name[2] <= '6':
		return 8 * (name[2] - '0'), true
	case len(name) == 4 && name[:2] == "AF" && name[2] >= '1' && name[2] <= '4' && name[3] >= '1' && name[3] <= '3':
		return 8*(name[2]-'0') + 2*(name[3]-'0'), true
	}
	return 0, false
}

// String returns what [ParseDSCP] reads.
func (d DSCP) String() string {
	if d.Name != "" {
		return d.Name
	}
	return strconv.Itoa(int(d.Value))
}

// UnmarshalJSON accepts a number from 0 to 255 or a string.
func (d *DSCP) UnmarshalJSON(data []byte) error {
	text := string(data)
	if strings.HasPrefix(text, `"`) {
		if err := json.Unmarshal(data, &text); err != nil {
			return err
		}
	}
	n, err := strconv.ParseUint(text, 10, 8)
	if err == nil {
		*d = DSCP{Value: uint8(n)}
		return nil
	}
	if text == string(data) || text == "" {
		return &valueError{"DSCP must be between 0 and 63", dscpRemedy}
	}
	value, _ := dscpValue(strings.ToUpper(text))
	*d = DSCP{Name: text, Value: value}
	return nil
}

// MarshalJSON writes a name as a string and a number as a number.
func (d DSCP) MarshalJSON() ([]byte, error) {
	if d.Name != "" {
		return json.Marshal(d.Name)
	}
	return json.Marshal(d.Value)
}

// validateQoSControls checks the limits of a workload, if there are any.
func validateQoSControls(c *check, path string, q *QoSControls) {
	if q != nil {
		checkTags(c, path, q)
	}
}

// validateNode checks what the Go validator of 3.32 does.
func validateNode(c *check, n *Node) {
	checkTags(c, "spec", &n.Spec)
	checkTags(c, "status", &n.Status)
	if n.Spec.BGP != nil && *n.Spec.BGP == (NodeBGPSpec{}) {
		c.fail("spec.bgp", nil, "Spec.BGP should not be empty", "leave it out, or set ipv4Address")
	}
}
