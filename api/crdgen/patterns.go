package main

import "strings"

// Patterns for formats that api/v3 reads with a parser. A test holds them against it.

const (
	octet  = `(25[0-5]|2[0-4][0-9]|1[0-9]{2}|[1-9]?[0-9])`
	v4     = octet + `(\.` + octet + `){3}`
	bits4  = `/(3[0-2]|[12]?[0-9])`
	bits6  = `/(12[0-8]|1[01][0-9]|[1-9]?[0-9])`
	group6 = `[0-9a-fA-F]{1,4}`
)

// v6 is an IPv6 address in groups of hexadecimal digits, with at most one gap.
var v6 = "(" + strings.Join([]string{
	"(" + group6 + ":){7}" + group6,
	"(" + group6 + ":){1,7}:",
	"(" + group6 + ":){1,6}:" + group6,
	"(" + group6 + ":){1,5}(:" + group6 + "){1,2}",
	"(" + group6 + ":){1,4}(:" + group6 + "){1,3}",
	"(" + group6 + ":){1,3}(:" + group6 + "){1,4}",
	"(" + group6 + ":){1,2}(:" + group6 + "){1,5}",
	group6 + ":((:" + group6 + "){1,6})",
	":((:" + group6 + "){1,7}|:)",
}, "|") + ")"

// Ports and protocols, for the forms that are texts; for numbers there are bounds.
const (
	port16       = `(6553[0-5]|655[0-2][0-9]|65[0-4][0-9]{2}|6[0-4][0-9]{3}|[1-5][0-9]{4}|[1-9][0-9]{0,3})`
	number16     = `(` + port16 + `|0)`
	number32     = `(429496729[0-5]|42949672[0-8][0-9]|4294967[01][0-9]{2}|429496[0-6][0-9]{3}|42949[0-5][0-9]{4}|4294[0-8][0-9]{5}|429[0-3][0-9]{6}|42[0-8][0-9]{7}|4[01][0-9]{8}|[1-3][0-9]{9}|[1-9][0-9]{0,8}|0)`
	portName     = `([0-9]+-)*[0-9]*[a-z][a-z0-9]*(-[a-z0-9]+)*` // a letter, and no dash at the ends or twice in a row
	portText     = `^(` + port16 + `(:` + port16 + `)?|` + portName + `)$`
	protocolText = `^(TCP|UDP|ICMP|ICMPv6|SCTP|UDPLite|25[0-5]|2[0-4][0-9]|1[0-9]{2}|[1-9][0-9]?)$`
	dscpText     = `^(?i)(DF|EF|CS[0-6]|AF[1-4][1-3]|6[0-3]|[1-5]?[0-9])$`
)

// parsed returns the pattern of a format that api/v3 has a parser for, "" if there is none that says as much.
func parsed(format string) string {
	switch format {
	case "ipv4":
		return "^" + v4 + "$"
	case "ipv6":
		return "^" + v6 + "$"
	case "address":
		return "^(" + v4 + "|" + v6 + ")$"
	case "notNet": // a net that is not everything
		return "^(" + v4 + `/(3[0-2]|[12][0-9]|[1-9])|` + v6 + `/(12[0-8]|1[01][0-9]|[1-9][0-9]|[1-9]))$`
	case "net":
		return "^(" + v4 + bits4 + "|" + v6 + bits6 + ")$"
	case "cidr":
		return "^(" + v4 + "(" + bits4 + ")?|" + v6 + "(" + bits6 + ")?)$"
	case "cidrv4":
		return "^" + v4 + "(" + bits4 + ")?$"
	case "cidrv6":
		return "^" + v6 + "(" + bits6 + ")?$"
	case "peer":
		return "^(" + v4 + "(:" + port16 + ")?|" + v6 + `|\[` + v6 + `\]:` + port16 + ")$"
	case "mac":
		return "^([0-9a-fA-F]{2}[:-]){5}[0-9a-fA-F]{2}$"
	case "wireguardKey":
		return "^[A-Za-z0-9+/]{43}=$"
	case "community":
		return "^(0*" + number16 + ":0*" + number16 + "|0*" + number32 + ":0*" + number32 + ":0*" + number32 + ")$"
	case "plainCommunity":
		return "^(" + number16 + ":" + number16 + "|" + number32 + ":" + number32 + ":" + number32 + ")$"
	case "ignoredInterface":
		return `^([a-zA-Z0-9_.-]|\*[a-zA-Z0-9_.*-]|[a-zA-Z0-9_.-][a-zA-Z0-9_.*-])[a-zA-Z0-9_.*-]{0,13}$`
	}
	return ""
}
