package main

import "strings"

// Rules that concern several fields, in CEL, by the Go type that they stand at ("Rule") or its field ("PolicySpec.Ingress").
// Each says what code of api/v3 says, in the words that it uses; the API server tests hold the two against each other.
//
// The API server bounds what evaluating them may cost, by the bounds of lists and texts; so lists are compared by their
// first entries, host bits are left to those who read (they mask them), and addresses have patterns.

// rules returns the rules that stand at a type or field.
func rules(at string) []rule {
	var found []rule
	for _, all := range [][]located{policyRules, ruleRules, endpointRules, poolRules, bgpRules, configurationRules} {
		for _, r := range all {
			if r.at == at {
				found = append(found, rule{strings.Join(strings.Fields(r.rule), " "), r.message})
			}
		}
	}
	return found
}

type located struct{ at, rule, message string }

// set is a condition that a text or list is there and not empty.
func set(field string) string {
	return "(has(self." + field + ") && size(self." + field + ") > 0)"
}

// on is a condition that a boolean is there and true.
func on(field string) string { return "(has(self." + field + ") && self." + field + ")" }

const (
	globalMessage     = "global() can only be used in an EntityRule namespaceSelector"
	familyMessage     = "rule contains both IPv4 and IPv6 CIDRs"
	deleteMessage     = "Spec fields, except Tier, should all be zero-value if stagedAction is Delete"
	policyNameMessage = "name must consist of lower case alphanumeric characters or '-'"
	label             = `[a-z0-9]([-a-z0-9]*[a-z0-9])?`
)

// notGlobal refuses global() in a selector, as far as can be seen without a parser.
func notGlobal(at, field string) located {
	return located{at, "!has(self." + field + ") || !self." + field + ".contains('global(')", globalMessage}
}

var policyRules = []located{
	notGlobal("PolicySpec", "selector"), notGlobal("PolicySpec", "serviceAccountSelector"),
	notGlobal("GlobalNetworkPolicySpec", "namespaceSelector"),
	{"GlobalNetworkPolicySpec", "!(" + on("preDNAT") + " && " + on("doNotTrack") + ")", "preDNAT and doNotTrack cannot both be true"},
	{"GlobalNetworkPolicySpec", "!(" + on("preDNAT") + " && " + set("egress") + ")", "preDNAT policy cannot have any egress rules"},
	{"GlobalNetworkPolicySpec", "!(" + on("preDNAT") + " && has(self.types) && 'Egress' in self.types)", "preDNAT policy cannot have 'Egress' type"},
	{"GlobalNetworkPolicySpec", "!(" + on("preDNAT") + " || " + on("doNotTrack") + ") || " + on("applyOnForward"),
		"applyOnForward must be true if either preDNAT or doNotTrack is true"},
	{"GlobalNetworkPolicySpec", `!has(self.ingress) || self.ingress.all(r, !has(r.source) || !has(r.source.services)
		|| has(r.source.services.namespace) && size(r.source.services.namespace) > 0)`, "must specify a namespace"},
	{"GlobalNetworkPolicySpec", `!has(self.egress) || self.egress.all(r, !has(r.destination) || !has(r.destination.services)
		|| has(r.destination.services.namespace) && size(r.destination.services.namespace) > 0)`, "must specify a namespace"},
	{"PolicySpec.Ingress", "self.all(r, !has(r.destination) || !has(r.destination.services))", "services: not allowed in ingress rule destination"},
	{"PolicySpec.Egress", "self.all(r, !has(r.source) || !has(r.source.services))", "services: not allowed in egress rule source"},
	{"PolicySpec.Egress", "self.all(r, !has(r.http))", "http: not allowed in egress rules"},
	{"GlobalNetworkPolicy", "self.metadata.name.matches('^" + label + `(\\.` + label + ")?$')", policyNameMessage},
	{"StagedGlobalNetworkPolicy", "self.metadata.name.matches('^" + label + `(\\.` + label + ")?$')", policyNameMessage},
	{"NetworkPolicy", "self.metadata.name.matches('^(" + label + `(\\.` + label + `)?|(knp|ossg)\\.default\\..+)$')`, policyNameMessage},
	{"StagedNetworkPolicy", "self.metadata.name.matches('^(" + label + `(\\.` + label + `)?|(knp|ossg)\\.default\\..+)$')`, policyNameMessage},
	{"StagedNetworkPolicySpec", notDelete("order") + " && !" + sets("ingress", "egress", "selector", "types", "serviceAccountSelector", "performanceHints"), deleteMessage},
	{"StagedGlobalNetworkPolicySpec", notDelete("order") + " && !" +
		sets("ingress", "egress", "selector", "types", "serviceAccountSelector", "performanceHints", "namespaceSelector") +
		" && !" + on("doNotTrack") + " && !" + on("preDNAT") + " && !" + on("applyOnForward"), deleteMessage},
	{"StagedKubernetesNetworkPolicySpec", notDelete("podSelector") + ` && !` + sets("ingress", "egress", "policyTypes"),
		"Spec fields should all be zero-value if stagedAction is Delete"},
	{"Tier", "self.metadata.name.matches('^" + label + "$') && size(self.metadata.name) <= 63", "name must be a DNS label"},
	{"Tier", "self.metadata.name != 'default' || self.spec.defaultAction == 'Deny' && has(self.spec.order) && self.spec.order == 1000000.0",
		"default tier order must be 1000000 and its default action Deny"},
	{"Tier", "self.metadata.name != 'kube-admin' || self.spec.defaultAction == 'Pass' && has(self.spec.order) && self.spec.order == 1000.0",
		"kube-admin tier order must be 1000 and its default action Pass"},
	{"Tier", "self.metadata.name != 'kube-baseline' || self.spec.defaultAction == 'Pass' && has(self.spec.order) && self.spec.order == 10000000.0",
		"kube-baseline tier order must be 10000000 and its default action Pass"},
}

// notDelete begins a rule about deletions: none is meant, or a field is absent (the podSelector: empty) and what follows.
func notDelete(field string) string {
	absent := "!has(self." + field + ")"
	if field == "podSelector" {
		absent = "(!has(self.podSelector) || !has(self.podSelector.matchLabels) && !has(self.podSelector.matchExpressions))"
	}
	return "!has(self.stagedAction) || self.stagedAction != 'Delete' || " + absent
}

// sets is a condition that one of the fields is there and not empty.
func sets(fields ...string) string {
	var all []string
	for _, f := range fields {
		all = append(all, set(f))
	}
	return "(" + strings.Join(all, " || ") + ")"
}

// isProtocol is a condition on a protocol, which is a name or a number; options are texts, in quotes if they stand alone.
func isProtocol(field string, options ...string) string {
	var all []string
	for _, o := range options {
		all = append(all, "self."+field+" == "+o)
	}
	return "(has(self." + field + ") && (" + strings.Join(all, " || ") + "))"
}

// sameFamily refuses two lists of which the first entries are of different families.
func sameFamily(at, one, other string) located {
	return located{at, "!" + there(one) + " || !" + there(other) + " || self." + one + "[0].contains(':') == self." + other + "[0].contains(':')",
		familyMessage}
}

// there is a condition that a list which may stand in another structure is there and not empty.
func there(path string) string {
	condition, from := "", 0
	for i := 0; i <= len(path); i++ {
		if i == len(path) || path[i] == '.' {
			condition += "has(self." + path[:i] + ") && "
			from = i
		}
	}
	return "(" + condition + "size(self." + path[:from] + ") > 0)"
}

// fitsVersion holds the family of a list against ipVersion.
func fitsVersion(path string) located {
	return located{"Rule", "!has(self.ipVersion) || !" + there(path) + " || (self.ipVersion == 6) == self." + path + "[0].contains(':')",
		"rule IP version doesn't match CIDR version"}
}

// portsNeed holds the ports of one end of a rule against the protocol.
func portsNeed(path string) []located {
	return []located{
		{"Rule", "!" + there(path) + " || !has(self.protocol) || " + isProtocol("protocol", "'TCP'", "6", "'6'", "'UDP'", "17", "'17'", "'SCTP'", "132", "'132'"),
			"rules that specify ports must set protocol to TCP or UDP or SCTP"},
		{"Rule", "!" + there(path) + " || has(self.protocol) || self." + path + ".all(p, type(p) == string && !p.contains(':'))",
			"rules with numeric port or port range must set protocol to TCP or UDP or SCTP"},
	}
}

// excludes keeps a field of an EntityRule and services apart.
func excludes(field, condition, name string) located {
	return located{"EntityRule", "!has(self.services) || !" + condition, "cannot specify " + name + " and Services on the same rule"}
}

var ruleRules = append([]located{
	{"Rule", "self.action == 'Allow' || !has(self.http)", "HTTP match is only valid on Allow rules"},
	{"Rule", "!has(self.http) || !has(self.protocol) || " + isProtocol("protocol", "'TCP'", "6", "'6'"), "rules with HTTP match must have protocol TCP or unset"},
	{"Rule", "!has(self.icmp) || " + isProtocol("protocol", "'ICMP'", "1", "'1'", "'ICMPv6'", "58", "'58'"), "ICMP fields require protocol to be ICMP or ICMPv6"},
	{"Rule", "!has(self.ipVersion) || self.ipVersion == 4 || !" + isProtocol("protocol", "'ICMP'", "1", "'1'"), "protocol ICMP requires ipVersion 4"},
	{"Rule", "!has(self.ipVersion) || self.ipVersion == 6 || !" + isProtocol("protocol", "'ICMPv6'", "58", "'58'"), "protocol ICMPv6 requires ipVersion 6"},
	{"Rule", "!has(self.ipVersion) || self.ipVersion == 4 || !" + isProtocol("notProtocol", "'ICMP'", "1", "'1'"), "protocol ICMP requires ipVersion 4"},
	{"Rule", "!has(self.ipVersion) || self.ipVersion == 6 || !" + isProtocol("notProtocol", "'ICMPv6'", "58", "'58'"), "protocol ICMPv6 requires ipVersion 6"},
	{"Rule", "!has(self.destination) || !has(self.destination.services) || !" + there("destination.ports") + " && !" + there("destination.notPorts"),
		"ports and notPorts cannot be specified with services"},
	{"ICMPFields", "!has(self.code) || has(self.type)", "ICMP code specified without an ICMP type"},
	{"EntityRule", "!has(self.nets) || size(self.nets.filter(n, n.contains(':'))) in [0, size(self.nets)]", familyMessage},
	{"EntityRule", "!" + set("notNets") + " || self.notNets[0].contains(':') == self.notNets[size(self.notNets) - 1].contains(':')", familyMessage},
	sameFamily("EntityRule", "nets", "notNets"),
	sameFamily("Rule", "source.nets", "destination.nets"), sameFamily("Rule", "source.nets", "destination.notNets"),
	sameFamily("Rule", "source.notNets", "destination.nets"), sameFamily("Rule", "source.notNets", "destination.notNets"),
	fitsVersion("source.nets"), fitsVersion("source.notNets"), fitsVersion("destination.nets"), fitsVersion("destination.notNets"),
	notGlobal("EntityRule", "selector"), notGlobal("EntityRule", "notSelector"), notGlobal("ServiceAccountMatch", "selector"),
	{"EntityRule", "!has(self.namespaceSelector) || !self.namespaceSelector.contains('global(') || self.namespaceSelector.matches('^[ \\\\t]*global\\\\([ \\\\t]*\\\\)[ \\\\t]*$')",
		"global() cannot be combined with other selectors"},
	excludes("namespaceSelector", set("namespaceSelector"), "NamespaceSelector"), excludes("serviceAccounts", "has(self.serviceAccounts)", "ServiceAccounts"),
	excludes("selector", sets("selector", "notSelector"), "Selector/NotSelector"), excludes("nets", sets("nets", "notNets"), "Nets/NotNets"),
	{"ServiceAccountMatch", sets("names", "selector"), "neither names nor selector is specified"},
	{"HTTPPath", "!(" + set("exact") + " && " + set("prefix") + ")", "Invalid path match. Both 'exact' and 'prefix' are set"},
	{"HTTPPath", sets("exact", "prefix"), "Invalid path match. Either 'exact' or 'prefix' must be set"},
}, portRules()...)

// orderedPorts holds the ends of a range against each other.
const orderedPorts = "type(self) == int || !self.contains(':') || int(self.split(':')[0]) <= int(self.split(':')[1])"

func portRules() (all []located) {
	for _, path := range []string{"source.ports", "source.notPorts", "destination.ports", "destination.notPorts"} {
		all = append(all, portsNeed(path)...)
	}
	for _, field := range []string{"Ports", "NotPorts"} {
		all = append(all, located{"EntityRule." + field + ".item",
			orderedPorts,
			"minimum port number is greater than maximum port number in port range"})
	}
	return all
}

var endpointRules = []located{
	{"HostEndpointSpec", sets("interfaceName", "expectedIPs"), "at least one of interfaceName or expectedIPs must be specified"},
	{"EndpointPort", isProtocol("protocol", "'TCP'", "6", "'6'", "'UDP'", "17", "'17'", "'SCTP'", "132", "'132'"), "EndpointPort protocol does not support ports."},
}

// never is a condition that a mode is off.
func never(field string) string {
	return "(!has(self." + field + ") || self." + field + " in ['', 'Never'])"
}

var poolRules = []located{
	{"IPPoolSpec", never("ipipMode") + " || " + never("vxlanMode"), "ipipMode and vxlanMode cannot both be enabled"},
	{"IPPoolSpec", never("ipipMode") + " || !self.cidr.contains(':')", "IPIP is not supported on an IPv6 IP pool"},
	{"IPPoolSpec", "!isCIDR(self.cidr) || cidr(self.cidr) == cidr(self.cidr).masked()", "IP pool CIDR is not strictly masked"},
	{"IPPoolSpec", `!isCIDR(self.cidr) || self.cidr.contains(':')
		|| !cidr(self.cidr).containsCIDR('169.254.0.0/16') && !cidr('169.254.0.0/16').containsCIDR(cidr(self.cidr))`,
		"IP pool range overlaps with IPv4 Link Local range 169.254.0.0/16"},
	{"IPPoolSpec", `!isCIDR(self.cidr) || !self.cidr.contains(':')
		|| !cidr(self.cidr).containsCIDR('fe80::/10') && !cidr('fe80::/10').containsCIDR(cidr(self.cidr))`,
		"IP pool range overlaps with IPv6 Link Local range fe80::/10"},
	{"IPPoolSpec", `!has(self.blockSize) || self.blockSize == 0
		|| (self.cidr.contains(':') ? self.blockSize >= 116 && self.blockSize <= 128 : self.blockSize >= 20 && self.blockSize <= 32)`,
		"block size must be between 20 and 32, or 116 and 128 for IPv6"},
	{"IPPoolSpec", "!isCIDR(self.cidr) || " + on("disabled") + ` || cidr(self.cidr).prefixLength() <=
		(has(self.blockSize) && self.blockSize != 0 ? self.blockSize : self.cidr.contains(':') ? 122 : 26)`,
		"IP pool size is too small for use with Calico IPAM: it is smaller than a block"},
	{"IPPoolSpec", "!has(self.allowedUses) || !('LoadBalancer' in self.allowedUses) || self.allowedUses.all(u, u == 'LoadBalancer')",
		"LoadBalancer cannot be combined with Workload or Tunnel allowed uses"},
	{"IPPoolSpec", forBalancer(never("ipipMode") + " && " + never("vxlanMode")), "LoadBalancer IP pool cannot have IPIP or VXLAN enabled"},
	{"IPPoolSpec", forBalancer("!" + on("disableBGPExport")), "LoadBalancer IP pools cannot disable BGP export"},
	{"IPPoolSpec", forBalancer("(!has(self.nodeSelector) || self.nodeSelector in ['', 'all()'])"),
		"IP Pool with AllowedUse LoadBalancer must have node selector set to all()"},
	{"IPPoolSpec", "!has(self.allowedUses) || !('Tunnel' in self.allowedUses) || !" + set("namespaceSelector"), "tunnel addresses belong to no namespace"},
	{"IPPoolSpec", "!has(self.nodeSelector) || !self.nodeSelector.contains('global(')", "global() selector is not valid for an IPPool"},
	{"IPPoolSpec", "!has(self.namespaceSelector) || !self.namespaceSelector.contains('global(')", "global() selector is not valid for an IPPool"},
	{"IPPoolSpec", "self.cidr == oldSelf.cidr", "IPPool CIDR cannot be modified"},
	{"IPPoolSpec", "!has(oldSelf.blockSize) || has(self.blockSize) && self.blockSize == oldSelf.blockSize", "IPPool BlockSize cannot be modified"},
	{"IPAMConfiguration", "self.metadata.name == 'default'", "there is one IPAMConfiguration, named default"},
}

// forBalancer is a rule for pools of load balancers only.
func forBalancer(condition string) string {
	return "!has(self.allowedUses) || !('LoadBalancer' in self.allowedUses) || " + condition
}

// notBoth keeps two fields of a BGPPeer apart.
func notBoth(one, other string) located {
	condition := func(field string) string {
		switch field {
		case "keepOriginalNextHop":
			return on(field)
		case "nextHopMode":
			return "has(self." + field + ")"
		case "asNumber":
			return "(has(self.asNumber) && self.asNumber != 0)"
		}
		return set(field)
	}
	return located{"BGPPeerSpec", "!" + condition(one) + " || !" + condition(other), one + " and " + other + " cannot both be set"}
}

var bgpRules = append([]located{
	notBoth("node", "nodeSelector"), notBoth("peerIP", "peerSelector"), notBoth("asNumber", "peerSelector"),
	notBoth("peerIP", "localWorkloadSelector"), notBoth("peerSelector", "localWorkloadSelector"), notBoth("keepOriginalNextHop", "nextHopMode"),
	{"BGPPeerSpec", "!" + set("localWorkloadSelector") + " || has(self.asNumber) && self.asNumber != 0", "asNumber is required when localWorkloadSelector is set"},
	{"BGPPeerSpec", "!" + set("reachableBy") + " || " + set("peerIP"), "reachableBy must be empty when peerIP is empty"},
	{"BGPPeerSpec", "!" + set("reachableBy") + " || !" + set("peerIP") + ` || self.reachableBy.contains(':') != self.peerIP.matches('^[0-9.]+(:[0-9]+)?$')`,
		"ReachableBy and PeerIP address family mismatched"},
	{"BGPFilterRule", set("cidr") + " == " + set("matchOperator"), "cidr and matchOperator must both be set or both be empty"},
	{"BGPFilterRule", "!has(self.prefixLength) || " + set("cidr"), "cidr is required when prefixLength is set"},
	{"BGPFilterRule", "!" + set("operations") + " || self.action == 'Accept'", "operations may only be used with action Accept"},
	{"BGPConfigurationSpec", meshOff + " || !has(self.nodeMeshPassword)", "nodeMeshPassword cannot be set when nodeToNodeMeshEnabled is false"},
	{"BGPConfigurationSpec", meshOff + " || !has(self.nodeMeshMaxRestartTime)", "nodeMeshMaxRestartTime cannot be set when nodeToNodeMeshEnabled is false"},
	{"BGPConfigurationSpec", "!" + set("communities") + " || " + set("prefixAdvertisements"), "communities are defined but not used in prefixAdvertisements"},
}, append(clusterWide(), filterFamilies()...)...)

const meshOff = "!has(self.nodeToNodeMeshEnabled) || self.nodeToNodeMeshEnabled"

// clusterWide are the fields that only the BGPConfiguration named default has.
func clusterWide() (all []located) {
	for _, f := range []string{"nodeToNodeMeshEnabled", "asNumber", "serviceLoadBalancerIPs", "serviceExternalIPs", "serviceClusterIPs",
		"nodeMeshPassword", "nodeMeshMaxRestartTime"} {
		all = append(all, located{"BGPConfiguration", "self.metadata.name == 'default' || !has(self.spec." + f + ")",
			"Cannot set " + f + " on a non default BGP Configuration."})
	}
	return all
}

// filterFamilies bounds what depends on the address family of a list of BGPFilter rules.
func filterFamilies() (all []located) {
	for _, list := range []struct{ field, v6, bits string }{
		{"ExportV4", "!", "32"}, {"ImportV4", "!", "32"}, {"ExportV6", "", "128"}, {"ImportV6", "", "128"},
	} {
		at := "BGPFilterSpec." + list.field
		all = append(all,
			located{at, "self.all(r, !has(r.cidr) || size(r.cidr) == 0 || " + list.v6 + "r.cidr.contains(':'))", "CIDR is of the other address family"},
			located{at, "self.all(r, !has(r.prefixLength) || (!has(r.prefixLength.min) || r.prefixLength.min <= " + list.bits +
				") && (!has(r.prefixLength.max) || r.prefixLength.max <= " + list.bits + "))", "prefix length must be between 0 and " + list.bits})
	}
	return all
}

var configurationRules = []located{
	{"FelixConfiguration", "!has(self.spec.nodeSelector) || self.metadata.name != 'default' && !self.metadata.name.startsWith('node.')",
		"nodeSelector must not be set on the 'default' or per-node ('node.*') FelixConfiguration"},
	{"FelixConfigurationSpec", "!has(self.routeTableRange) || !has(self.routeTableRanges)", "routeTableRange and routeTableRanges cannot both be set"},
	{"RouteTableRange", "self.max >= self.min", "must be a range of route table indices within 1..250"},
	{"RouteTableIDRange", "self.max >= self.min", "min value cannot be greater than max value"},
	{"FelixConfigurationSpec.KubeNodePortRanges.item", "type(self) == int || !self.matches('[a-z]')", "node port ranges should not contain named ports"},
	{"FelixConfigurationSpec.KubeNodePortRanges.item", orderedPorts, "minimum port number is greater than maximum port number in port range"},
	{"FelixConfigurationSpec.NATPortRange", orderedPorts, "minimum port number is greater than maximum port number in port range"},
	{"HealthTimeoutOverride.Timeout", "!self.startsWith('-')", "Timeout should not be negative"},
	{"KubeControllersConfiguration", "self.metadata.name == 'default'",
		`Cannot create a Kube Controllers Configuration resource with a name other than "default"`},
}
