package v3

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"margay/selector"
)

// The actions of a rule.
const (
	ActionAllow = "Allow"
	ActionDeny  = "Deny"
	ActionLog   = "Log"
	ActionPass  = "Pass"
)

// validateRule checks one rule of one direction.
func validateRule(c *check, path, direction string, r *Rule) {
	checkAction(c, path, r)
	checkIPVersion(c, path, r)
	checkProtocol(c, path+".protocol", r.Protocol)
	checkProtocol(c, path+".notProtocol", r.NotProtocol)
	checkICMP(c, path+".icmp", r.ICMP)
	checkICMP(c, path+".notICMP", r.NotICMP)
	if r.ICMP != nil && !isICMP(r.Protocol) {
		c.fail(path+".icmp", nil, "ICMP fields require protocol to be ICMP or ICMPv6", "write protocol: ICMP or protocol: ICMPv6")
	}
	checkICMPFamily(c, path, r.Protocol, r.IPVersion)
	checkICMPFamily(c, path, r.NotProtocol, r.IPVersion)
	checkEntity(c, path+".source", r.Protocol, &r.Source)
	checkEntity(c, path+".destination", r.Protocol, &r.Destination)
	checkFamilies(c, path, r)
	validateServices(c, path, direction, r)
	validateHTTP(c, path, direction, r)
	if r.Metadata != nil {
		validateAnnotations(c, path+".metadata.annotations", r.Metadata.Annotations)
	}
}

func checkAction(c *check, path string, r *Rule) {
	switch r.Action {
	case ActionAllow, ActionDeny, ActionLog, ActionPass:
	case "":
		c.fail(path+".action", nil, "action is required", "write Allow, Deny, Log or Pass")
	default:
		c.fail(path+".action", r.Action, "action is not known", "write Allow, Deny, Log or Pass")
	}
}

func checkIPVersion(c *check, path string, r *Rule) {
	if r.IPVersion != nil && *r.IPVersion != 4 && *r.IPVersion != 6 {
		c.fail(path+".ipVersion", *r.IPVersion, "IP version is not known", "write 4 or 6, or remove ipVersion for both")
	}
}

func checkProtocol(c *check, path string, p *Protocol) {
	if p == nil {
		return
	}
	if _, ok := p.Number(); ok {
		return
	}
	if _, ok := p.decimal(); ok {
		c.fail(path, 0, "protocol number invalid", protocolRemedy)
		return
	}
	remedy := protocolRemedy
	for _, name := range []Protocol{ProtocolICMP, ProtocolTCP, ProtocolUDP, ProtocolICMPv6, ProtocolSCTP, ProtocolUDPLite} {
		if strings.EqualFold(string(name), string(*p)) {
			remedy = "write " + string(name)
		}
	}
	c.fail(path, string(*p), "protocol name invalid", remedy)
}

func checkICMP(c *check, path string, f *ICMPFields) {
	if f == nil {
		return
	}
	if f.Type != nil && (*f.Type < 0 || *f.Type > 254) {
		c.fail(path+".type", *f.Type, "ICMP type must be between 0 and 254", "")
	}
	if f.Code != nil && (*f.Code < 0 || *f.Code > 255) {
		c.fail(path+".code", *f.Code, "ICMP code must be between 0 and 255", "")
	}
	if f.Code != nil && f.Type == nil {
		c.fail(path+".code", *f.Code, "ICMP code specified without an ICMP type", "add type")
	}
}

func isICMP(p *Protocol) bool {
	if p == nil {
		return false
	}
	n, _ := p.Number()
	return n == 1 || n == 58
}

// checkICMPFamily: ICMP is a protocol of IPv4, ICMPv6 of IPv6, negated or not.
func checkICMPFamily(c *check, path string, p *Protocol, version *int) {
	if p == nil || version == nil {
		return
	}
	switch n, _ := p.Number(); {
	case n == 1 && *version != 4:
		c.fail(path+".ipVersion", *version, "protocol ICMP requires ipVersion 4", "write ICMPv6, or remove ipVersion")
	case n == 58 && *version != 6:
		c.fail(path+".ipVersion", *version, "protocol ICMPv6 requires ipVersion 6", "write ICMP, or remove ipVersion")
	}
}

// checkEntity checks one end of a rule.
func checkEntity(c *check, path string, protocol *Protocol, e *EntityRule) {
	checkRuleNets(c, path+".nets", e.Nets)
	checkRuleNets(c, path+".notNets", e.NotNets)
	checkNoCatchAll(c, path+".notNets", e.NotNets)
	checkEndpointSelector(c, path+".selector", e.Selector)
	checkEndpointSelector(c, path+".notSelector", e.NotSelector)
	checkNamespaceSelector(c, path+".namespaceSelector", e.NamespaceSelector)
	checkPorts(c, path+".ports", protocol, e.Ports)
	checkPorts(c, path+".notPorts", protocol, e.NotPorts)
	refuseEmpty(c, path, e)
	if a := e.ServiceAccounts; a != nil {
		checkDistinct(c, path+".serviceAccounts.names", a.Names)
		checkEndpointSelector(c, path+".serviceAccounts.selector", a.Selector)
	}
}

// refuseEmpty: a list that is there and empty would match nothing, while the same key left out matches everything.
// Neither can be told to be what was meant, so neither is done.
func refuseEmpty(c *check, path string, e *EntityRule) {
	if e.Nets != nil && len(e.Nets) == 0 {
		c.fail(path+".nets", raw("[]"), "empty list matches no address", "remove nets to match every address, or remove the rule")
	}
	if e.Ports != nil && len(e.Ports) == 0 {
		c.fail(path+".ports", raw("[]"), "empty list matches no port", "remove ports to match every port, or remove the rule")
	}
	if a := e.ServiceAccounts; a != nil && len(a.Names) == 0 && a.Selector == "" {
		c.fail(path+".serviceAccounts", nil, "neither names nor selector is specified",
			"remove serviceAccounts to match every service account, or remove the rule")
	}
}

// checkRuleNets checks CIDRs, which in rules have a mask and no host bits.
func checkRuleNets(c *check, path string, nets []string) {
	checkLength(c, path, len(nets), maxNets)
	checkDistinct(c, path, nets)
	for i, text := range nets {
		prefix, err := netip.ParsePrefix(text)
		if err != nil || prefix.Addr().Is4In6() {
			remedy := ""
			if addr, err := netip.ParseAddr(text); err == nil && addr.Zone() == "" {
				remedy = "write " + netip.PrefixFrom(addr, addr.BitLen()).String()
			}
			c.fail(index(path, i), text, "invalid CIDR", remedy)
		} else if prefix != prefix.Masked() {
			c.fail(index(path, i), text, "CIDR is not strictly masked", "write "+prefix.Masked().String())
		}
	}
}

func checkNoCatchAll(c *check, path string, nets []string) {
	for i, text := range nets {
		if prefix, err := netip.ParsePrefix(text); err == nil && prefix.Bits() == 0 {
			c.fail(index(path, i), text, "catch-all CIDR in negation creates logical contradiction (matches no traffic)", "remove it")
		}
	}
}

// checkFamilies: the CIDRs of a rule are of one family, that of ipVersion if it is given.
func checkFamilies(c *check, path string, r *Rule) {
	var seen [2]string // where the first CIDR of IPv4 and of IPv6 stands
	for _, list := range []struct {
		path string
		nets []string
	}{
		{path + ".source.nets", r.Source.Nets}, {path + ".source.notNets", r.Source.NotNets},
		{path + ".destination.nets", r.Destination.Nets}, {path + ".destination.notNets", r.Destination.NotNets},
	} {
		for i, text := range list.nets {
			prefix, err := netip.ParsePrefix(text)
			if err != nil {
				continue
			}
			family, version := 0, 4
			if !prefix.Addr().Is4() {
				family, version = 1, 6
			}
			at := index(list.path, i)
			if r.IPVersion != nil && *r.IPVersion != version {
				c.fail(at, text, "rule IP version doesn't match CIDR version", fmt.Sprintf("write ipVersion: %d", version))
			}
			if other := seen[1-family]; other != "" {
				c.fail(at, text, "rule contains both IPv4 and IPv6 CIDRs", "make it two rules; the other family is at "+other)
				return
			}
			if seen[family] == "" {
				seen[family] = at
			}
		}
	}
}

// endpointPortName is the name of a port in Kubernetes: also no double dash and at least one letter.
var endpointPortName = lazily(`^[a-z0-9]([-a-z0-9]*[a-z0-9])?$`)

// isPortName reports whether an endpoint may declare a port of that name.
func isPortName(name string) bool {
	return len(name) <= 15 && endpointPortName.MatchString(name) && !strings.Contains(name, "--") &&
		strings.ContainsAny(name, "abcdefghijklmnopqrstuvwxyz")
}

const portNameReason = "port name must have 1 to 15 lower case alphanumeric characters or '-', at least one letter, and no '-' at its ends or twice in a row"

func checkPorts(c *check, path string, protocol *Protocol, ports []Port) {
	checkLength(c, path, len(ports), maxPorts)
	for i, p := range ports {
		checkPort(c, index(path, i), p)
	}
	switch numeric := slices.ContainsFunc(ports, func(p Port) bool { return p.Name == "" }); {
	case protocol != nil && len(ports) > 0 && !protocol.HasPorts():
		c.fail(path, nil, "rules that specify ports must set protocol to TCP or UDP or SCTP", "")
	case protocol == nil && numeric:
		c.fail(path, nil, "rules with numeric port or port range must set protocol to TCP or UDP or SCTP", "add protocol to the rule")
	}
}

func checkPort(c *check, path string, p Port) {
	switch {
	case p.Name != "" && (p.First != 0 || p.Last != 0):
		c.fail(path, p.Name, "named port invalid, if name is specified, min and max should be 0", "")
	case p.Name != "" && !isPortName(p.Name):
		c.fail(path, p.Name, portNameReason, "")
	case p.Name == "" && p.First > p.Last:
		c.fail(path, p, fmt.Sprintf("minimum port number (%d) is greater than maximum port number (%d) in port range", p.First, p.Last),
			fmt.Sprintf("write %d:%d", p.Last, p.First))
	case p.Name == "" && p.First == 0 && p.Last == 0:
		c.fail(path, 0, portReason, "")
	case p.Name == "" && p.First == 0:
		c.fail(path, p, portReason, fmt.Sprintf("write 1:%d", p.Last))
	}
}

// validateServices: a service stands alone, on the far end of the rule.
func validateServices(c *check, path, direction string, r *Rule) {
	if direction == TypeIngress && r.Destination.Services != nil {
		c.fail(path+".destination.services", nil, "not allowed in ingress rule destination", "write it under source")
	}
	if direction == TypeEgress && r.Source.Services != nil {
		c.fail(path+".source.services", nil, "not allowed in egress rule source", "write it under destination")
	}
	checkServices(c, path+".source", &r.Source)
	checkServices(c, path+".destination", &r.Destination)
	if d := &r.Destination; d.Services != nil && len(d.Ports)+len(d.NotPorts) > 0 {
		c.fail(path+".destination.ports", nil, "ports and notPorts cannot be specified with services", "remove them: the service has its ports")
	}
}

func checkServices(c *check, path string, e *EntityRule) {
	s := e.Services
	if s == nil {
		return
	}
	if s.Name == "" {
		c.fail(path+".services.name", nil, "services must specify a service name", "add name")
	}
	checkOptionalName(c, path+".services.name", s.Name)
	checkOptionalName(c, path+".services.namespace", s.Namespace)
	exclusive := func(field string, set bool, what string) {
		if set {
			c.fail(path+field, nil, "cannot specify "+what+" and Services on the same rule", "make it two rules")
		}
	}
	exclusive(".namespaceSelector", e.NamespaceSelector != "", "NamespaceSelector")
	exclusive(".serviceAccounts", e.ServiceAccounts != nil, "ServiceAccounts")
	exclusive(".selector", e.Selector != "", "Selector/NotSelector")
	exclusive(".notSelector", e.NotSelector != "", "Selector/NotSelector")
	exclusive(".nets", len(e.Nets) > 0, "Nets/NotNets")
	exclusive(".notNets", len(e.NotNets) > 0, "Nets/NotNets")
}

// validateHTTP checks the match of application layer policy, which is for ingress only.
func validateHTTP(c *check, path, direction string, r *Rule) {
	h := r.HTTP
	if h == nil {
		return
	}
	path += ".http"
	if direction == TypeEgress {
		c.fail(path, nil, "not allowed in egress rules", "")
	}
	if r.Action != ActionAllow {
		c.fail(path, nil, "HTTP match is only valid on Allow rules", "")
	}
	if r.Protocol != nil && *r.Protocol != ProtocolTCP && *r.Protocol != "6" {
		c.fail(path, nil, "rules with HTTP match must have protocol TCP or unset", "")
	}
	checkLength(c, path+".methods", len(h.Methods), maxHTTP)
	checkLength(c, path+".paths", len(h.Paths), maxHTTP)
	for i, method := range h.Methods {
		if slices.Contains(h.Methods[:i], method) {
			c.failf(index(path+".methods", i), method, "Invalid methods (duplicates): %v", h.Methods)
		}
	}
	for i := range h.Paths {
		checkHTTPPath(c, index(path+".paths", i), &h.Paths[i])
	}
}

const httpPathReason = "Invalid path. It must start with '/' and not contain '?', '#' or a space"

func checkHTTPPath(c *check, path string, p *HTTPPath) {
	value := p.Exact + p.Prefix
	switch {
	case p.Exact != "" && p.Prefix != "":
		c.fail(path, nil, "Invalid path match. Both 'exact' and 'prefix' are set", "make it two entries")
	case value == "":
		c.fail(path, nil, "Invalid path match. Either 'exact' or 'prefix' must be set", "")
	case len(value) > maxHTTPPath:
		c.failf(path, value, "path has %d characters, at most %d are allowed", len(value), maxHTTPPath)
	case !httpPathFormat.MatchString(value):
		c.fail(path, value, httpPathReason, "")
	}
}

// storedRules checks of rules from the store what a compiler needs.
func storedRules(c *check, ingress, egress []Rule) {
	for _, list := range ruleLists(ingress, egress) {
		for i := range list.rules {
			storedRule(c, index(list.path, i), &list.rules[i])
		}
	}
}

func storedRule(c *check, path string, r *Rule) {
	checkAction(c, path, r)
	checkIPVersion(c, path, r)
	checkProtocol(c, path+".protocol", r.Protocol)
	checkProtocol(c, path+".notProtocol", r.NotProtocol)
	checkICMP(c, path+".icmp", r.ICMP)
	checkICMP(c, path+".notICMP", r.NotICMP)
	storedEntity(c, path+".source", &r.Source)
	storedEntity(c, path+".destination", &r.Destination)
}

// storedEntity tolerates host bits, which are masked on use, and global() in odd places.
func storedEntity(c *check, path string, e *EntityRule) {
	checkNets(c, path+".nets", e.Nets)
	checkNets(c, path+".notNets", e.NotNets)
	refuseEmpty(c, path, e)
	for i, p := range e.Ports {
		checkPort(c, index(path+".ports", i), p)
	}
	for i, p := range e.NotPorts {
		checkPort(c, index(path+".notPorts", i), p)
	}
	checkStoredSelector(c, path+".selector", e.Selector)
	checkStoredSelector(c, path+".notSelector", e.NotSelector)
	checkStoredSelector(c, path+".namespaceSelector", e.NamespaceSelector)
	if a := e.ServiceAccounts; a != nil {
		checkStoredSelector(c, path+".serviceAccounts.selector", a.Selector)
	}
	if e.Services != nil && e.Services.Name == "" {
		c.fail(path+".services.name", nil, "services must specify a service name", "add name")
	}
}

// checkStoredSelector is checkSelector without the bound on the length, which older releases do not have.
func checkStoredSelector(c *check, path, text string) {
	if text == "" {
		return
	}
	if _, err := selector.Parse(text); err != nil {
		c.fail(path, text, err.Error(), selectorRemedy(text))
	}
}

// checkNets checks CIDRs and bare addresses, with or without host bits.
func checkNets(c *check, path string, nets []string) {
	for i, text := range nets {
		if _, err := ParseNet(text); err != nil {
			c.fail(index(path, i), text, "invalid CIDR", "")
		}
	}
}

// ParseNet returns the masked prefix that a CIDR or a bare address stands for. An IPv4-mapped IPv6 address is refused:
// it would be in the wrong family.
func ParseNet(text string) (netip.Prefix, error) {
	if !strings.Contains(text, "/") {
		addr, err := ParseAddr(text)
		if err != nil {
			return netip.Prefix{}, err
		}
		return netip.PrefixFrom(addr, addr.BitLen()), nil
	}
	prefix, err := netip.ParsePrefix(text)
	if err != nil {
		return netip.Prefix{}, fmt.Errorf("parse CIDR %q: %w", bounded(text), err)
	}
	if prefix.Addr().Is4In6() {
		return netip.Prefix{}, fmt.Errorf("parse CIDR %q: it is an IPv4 address in IPv6 notation", bounded(text))
	}
	return prefix.Masked(), nil
}

// ParseAddr returns an address that has no zone and is not an IPv4 address in IPv6 notation.
func ParseAddr(text string) (netip.Addr, error) {
	addr, err := netip.ParseAddr(text)
	if err != nil {
		return netip.Addr{}, fmt.Errorf("parse address %q: %w", bounded(text), err)
	}
	if addr.Zone() != "" || addr.Is4In6() {
		return netip.Addr{}, fmt.Errorf("parse address %q: it has a zone or is an IPv4 address in IPv6 notation", bounded(text))
	}
	return addr, nil
}
