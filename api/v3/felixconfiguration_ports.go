package v3

import (
	"fmt"
	"strconv"
	"strings"
)

// ParseProtoPorts reads a list of failsafe ports as the environment and the configuration file have it: entries of
// [ParseProtoPort], separated by commas. A list without an entry is an error: "none" is for the caller to know.
func ParseProtoPorts(text string) ([]ProtoPort, error) {
	var ports []ProtoPort
	for _, entry := range strings.Split(text, ",") {
		entry = strings.TrimSpace(entry)
		if entry == "" {
			continue
		}
		p, err := ParseProtoPort(entry)
		if err != nil {
			return nil, err
		}
		ports = append(ports, p)
	}
	if ports == nil {
		return nil, fmt.Errorf("list of ports is empty (write none for no ports)")
	}
	return ports, nil
}

// ParseProtoPort reads "port", "protocol:port" or "protocol:net:port". Net is a CIDR or an address, in square
// brackets if it is IPv6; host bits are masked. The protocol is tcp (also when absent) or udp, in any case; the result
// has it in capital letters, and the net as a CIDR.
func ParseProtoPort(text string) (ProtoPort, error) {
	rest, port := "", text
	if i := strings.LastIndexByte(text, ':'); i >= 0 {
		rest, port = text[:i], text[i+1:]
	}
	n, err := strconv.ParseUint(port, 10, 16)
	if err != nil || n == 0 {
		return ProtoPort{}, fmt.Errorf("port %.80q is no number from 1 to 65535", port)
	}
	protocol, network, err := splitProtoNet(rest)
	if err != nil {
		return ProtoPort{}, err
	}
	return ProtoPort{Protocol: protocol, Port: uint16(n), Net: network}, nil
}

// splitProtoNet reads what stands before the port: "", "protocol", "protocol:net" or "[net]".
func splitProtoNet(text string) (protocol, network string, err error) {
	protocol, network, hasNet := strings.Cut(text, ":")
	if strings.HasPrefix(text, "[") {
		protocol, network, hasNet = "", text, true
	}
	switch strings.ToUpper(protocol) {
	case "", "TCP":
		protocol = "TCP"
	case "UDP":
		protocol = "UDP"
	default:
		return "", "", fmt.Errorf("unknown protocol %.80q: tcp and udp are possible", protocol)
	}
	if !hasNet {
		return protocol, "", nil
	}
	inner, opened := strings.CutPrefix(network, "[")
	inner, closed := strings.CutSuffix(inner, "]")
	if opened != closed || !opened && strings.Contains(network, ":") {
		return "", "", fmt.Errorf("net %.80q: an IPv6 net stands in square brackets", network)
	}
	prefix, err := ParseNet(inner)
	if err != nil {
		return "", "", fmt.Errorf("invalid CIDR or IP: %w", err)
	}
	return protocol, prefix.String(), nil
}

// String returns the form that [ParseProtoPort] reads, with the net as it is.
func (p ProtoPort) String() string {
	protocol := strings.ToLower(p.Protocol)
	if protocol == "" {
		protocol = "tcp"
	}
	port := strconv.Itoa(int(p.Port))
	switch {
	case p.Net == "":
		return protocol + ":" + port
	case strings.Contains(p.Net, ":"):
		return protocol + ":[" + p.Net + "]:" + port
	}
	return protocol + ":" + p.Net + ":" + port
}
