package v3

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"
)

// interfaceName is the name of a Linux interface.
var interfaceName = lazily(`^[a-zA-Z0-9_.-]{1,15}$`)

// containerID is an identifier of a container run time.
var containerID = lazily(`^[a-zA-Z0-9]([-a-zA-Z0-9]*[a-zA-Z0-9])?$`)

func validateHostEndpoint(c *check, h *HostEndpoint) {
	spec := &h.Spec
	if spec.Node == "" {
		c.fail("spec.node", nil, "node must be specified", "add node: the name that the agent of that host has")
	}
	checkOptionalName(c, "spec.node", spec.Node)
	if spec.InterfaceName == "" && len(spec.ExpectedIPs) == 0 {
		c.fail("spec", nil, "at least one of interfaceName or expectedIPs must be specified", "")
	}
	if spec.InterfaceName != "" {
		checkInterface(c, "spec.interfaceName", spec.InterfaceName)
	}
	checkDistinct(c, "spec.expectedIPs", spec.ExpectedIPs)
	checkAddrs(c, "spec.expectedIPs", spec.ExpectedIPs)
	checkProfiles(c, spec.Profiles)
	for i, p := range spec.Ports {
		path := index("spec.ports", i)
		checkEndpointPort(c, path, p, "EndpointPort")
		if !isPortName(p.Name) {
			c.fail(path+".name", p.Name, portNameReason, "")
		}
	}
}

func checkInterface(c *check, path, name string) {
	if name != "*" && !interfaceName.MatchString(name) {
		c.fail(path, name, "interface name must have 1 to 15 letters, digits, '_', '.' or '-'", "")
	}
}

func checkAddrs(c *check, path string, addrs []string) {
	for i, text := range addrs {
		if _, err := ParseAddr(text); err != nil {
			remedy := ""
			if prefix, err := netip.ParsePrefix(text); err == nil && prefix.IsSingleIP() {
				remedy = "write " + prefix.Addr().String()
			}
			c.fail(index(path, i), text, "invalid IP address", remedy)
		}
	}
}

func checkProfiles(c *check, profiles []string) {
	checkDistinct(c, "spec.profiles", profiles)
	for i, name := range profiles {
		checkName(c, index("spec.profiles", i), name)
	}
}

func checkEndpointPort(c *check, path string, p EndpointPort, kind string) {
	if !p.Protocol.HasPorts() {
		c.fail(path+".protocol", p.Protocol, kind+" protocol does not support ports.", "write TCP, UDP or SCTP")
	}
	if p.Port == 0 {
		c.fail(path+".port", p.Port, "port number must be between 1 and 65535", "")
	}
}

func defaultWorkloadEndpoint(w *WorkloadEndpoint) {
	if w.Name == "" {
		w.Name, _ = w.Spec.Name() // Validate says what is missing
	}
	setLabel(w, LabelNamespace, w.Namespace)
	setLabel(w, LabelOrchestrator, w.Spec.Orchestrator)
}

// Name returns the name that the identifiers of a workload endpoint make: four parts joined by dashes, with the dashes
// inside each part doubled. The error says which identifier is missing or begins or ends with a dash.
func (s *WorkloadEndpointSpec) Name() (string, error) {
	type part struct{ field, value string }
	third := part{"workload", s.Workload}
	switch s.Orchestrator {
	case "k8s":
		third = part{"pod", s.Pod}
	case "cni":
		third = part{"containerID", s.ContainerID}
	case "libnetwork":
		third = part{"orchestrator", s.Orchestrator}
	}
	parts := []part{{"node", s.Node}, {"orchestrator", s.Orchestrator}, third, {"endpoint", s.Endpoint}}
	escaped := make([]string, len(parts))
	for i, p := range parts {
		switch {
		case p.value == "":
			return "", &identifierError{p.field, "field should be assigned"}
		case strings.HasPrefix(p.value, "-"):
			return "", &identifierError{p.field, "field must not begin with a '-'"}
		case strings.HasSuffix(p.value, "-"):
			return "", &identifierError{p.field, "field must not end with a '-'"}
		}
		escaped[i] = strings.ReplaceAll(p.value, "-", "--")
	}
	return strings.Join(escaped, "-"), nil
}

// SplitEndpointName returns the parts of a WorkloadEndpoint's name: node, orchestrator, workload, endpoint, if it has four.
// They are between single dashes; inside the parts dashes are doubled.
func SplitEndpointName(name string) []string {
	parts := strings.Split(strings.ReplaceAll(name, "--", "\x00"), "-")
	for i := range parts {
		parts[i] = strings.ReplaceAll(parts[i], "\x00", "-")
	}
	return parts
}

// An identifierError says which field of a WorkloadEndpointSpec cannot be part of the name.
type identifierError struct{ field, reason string }

func (e *identifierError) Error() string { return "spec." + e.field + ": " + e.reason }

func validateWorkloadEndpoint(c *check, w *WorkloadEndpoint) {
	spec := &w.Spec
	validateIdentifiers(c, w)
	checkInterface(c, "spec.interfaceName", spec.InterfaceName)
	checkOptionalName(c, "spec.serviceAccountName", spec.ServiceAccountName)
	checkProfiles(c, spec.Profiles)
	checkWorkloadNets(c, spec)
	checkNATs(c, spec)
	checkGateway(c, "spec.ipv4Gateway", spec.IPv4Gateway, true)
	checkGateway(c, "spec.ipv6Gateway", spec.IPv6Gateway, false)
	if spec.MAC != "" {
		if _, err := net.ParseMAC(spec.MAC); err != nil {
			c.fail("spec.mac", spec.MAC, "invalid MAC address", "")
		}
	}
	for i, p := range spec.Ports {
		checkWorkloadPort(c, index("spec.ports", i), p)
	}
	checkNets(c, "spec.allowSpoofedSourcePrefixes", spec.AllowSpoofedSourcePrefixes)
	validateQoSControls(c, "spec.qosControls", spec.QoSControls)
}

func validateIdentifiers(c *check, w *WorkloadEndpoint) {
	spec := &w.Spec
	checkOptionalName(c, "spec.orchestrator", spec.Orchestrator)
	checkOptionalName(c, "spec.workload", spec.Workload)
	checkOptionalName(c, "spec.node", spec.Node)
	checkOptionalName(c, "spec.pod", spec.Pod)
	checkOptionalName(c, "spec.endpoint", spec.Endpoint)
	if spec.ContainerID != "" && !containerID.MatchString(spec.ContainerID) {
		c.fail("spec.containerID", spec.ContainerID, "container ID must have letters, digits and '-', and no '-' at its ends", "")
	}
	name, err := spec.Name()
	if err != nil {
		if part := (*identifierError)(nil); errors.As(err, &part) {
			c.fail("spec."+part.field, nil, part.reason, "")
		}
	} else if w.Name != name {
		c.fail("metadata.name", w.Name, "the WorkloadEndpoint name does not match the primary identifiers assigned in the Spec: expected name "+name,
			"write "+name)
	}
}

func checkWorkloadNets(c *check, spec *WorkloadEndpointSpec) {
	checkNets(c, "spec.ipNetworks", spec.IPNetworks)
	for i, text := range spec.IPNetworks {
		if prefix, err := ParseNet(text); err == nil && !prefix.IsSingleIP() {
			c.fail(index("spec.ipNetworks", i), text, "IP network contains multiple addresses", "write a /32 or a /128")
		}
	}
}

// checkNATs: internal and external address are of one family, and the internal one is the workload's.
func checkNATs(c *check, spec *WorkloadEndpointSpec) {
	for i, nat := range spec.IPNATs {
		path := index("spec.ipNATs", i)
		checkOneAddr(c, path+".internalIP", nat.InternalIP)
		checkOneAddr(c, path+".externalIP", nat.ExternalIP)
		internal, err1 := ParseAddr(nat.InternalIP)
		external, err2 := ParseAddr(nat.ExternalIP)
		if err1 != nil || err2 != nil {
			continue
		}
		if internal.Is4() != external.Is4() {
			c.fail(path+".externalIP", nat.ExternalIP, "mismatched IP versions", "")
		}
		if !slices.ContainsFunc(spec.IPNetworks, func(text string) bool {
			prefix, err := ParseNet(text)
			return err == nil && prefix.Contains(internal)
		}) {
			c.fail(path+".internalIP", nat.InternalIP, "NAT is not in the endpoint networks", "add it to ipNetworks")
		}
	}
}

func checkOneAddr(c *check, path, text string) {
	if _, err := ParseAddr(text); err != nil {
		c.fail(path, text, "invalid IP address", "")
	}
}

func checkGateway(c *check, path, text string, four bool) {
	if text == "" {
		return
	}
	addr, err := ParseAddr(text)
	if err != nil || addr.Is4() != four {
		version := 6
		if four {
			version = 4
		}
		c.fail(path, text, fmt.Sprintf("invalid IPv%d gateway address specified", version), "")
	}
}

func checkWorkloadPort(c *check, path string, p WorkloadEndpointPort) {
	checkEndpointPort(c, path, EndpointPort{p.Name, p.Protocol, p.Port}, "WorkloadEndpointPort")
	switch {
	case p.Name == "" && p.HostPort == 0:
		c.fail(path+".name", p.Name, "WorkloadEndpointPort name must not be empty if no HostPort is specified", "")
	case p.Name != "" && !isPortName(p.Name):
		c.fail(path+".name", p.Name, portNameReason, "")
	}
	if p.HostIP != "" {
		checkRuleHostIP(c, path+".hostIP", p.HostIP)
	}
}

// checkRuleHostIP takes an address or a CIDR without host bits.
func checkRuleHostIP(c *check, path, text string) {
	prefix, err := ParseNet(text)
	if err != nil {
		c.fail(path, text, "invalid IP address", "")
	} else if given, err := netip.ParsePrefix(text); err == nil && given != prefix {
		c.fail(path, text, "CIDR is not strictly masked", "write "+prefix.String())
	}
}

// storedHostEndpoint: what finds the interface and feeds the sets must be usable.
func storedHostEndpoint(c *check, h *HostEndpoint) {
	checkAddrs(c, "spec.expectedIPs", h.Spec.ExpectedIPs)
	if h.Spec.InterfaceName != "" {
		checkInterface(c, "spec.interfaceName", h.Spec.InterfaceName)
	}
	for i, p := range h.Spec.Ports {
		checkProtocol(c, index("spec.ports", i)+".protocol", &p.Protocol)
	}
}

func storedWorkloadEndpoint(c *check, w *WorkloadEndpoint) {
	checkNets(c, "spec.ipNetworks", w.Spec.IPNetworks)
	checkNets(c, "spec.allowSpoofedSourcePrefixes", w.Spec.AllowSpoofedSourcePrefixes)
	for i, nat := range w.Spec.IPNATs {
		checkOneAddr(c, index("spec.ipNATs", i)+".internalIP", nat.InternalIP)
		checkOneAddr(c, index("spec.ipNATs", i)+".externalIP", nat.ExternalIP)
	}
	if w.Spec.InterfaceName != "" {
		checkInterface(c, "spec.interfaceName", w.Spec.InterfaceName)
	}
	for i, p := range w.Spec.Ports {
		checkProtocol(c, index("spec.ports", i)+".protocol", &p.Protocol)
	}
}
