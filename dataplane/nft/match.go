package nft

import (
	"encoding/binary"
	"net/netip"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"margay/ruleset"
)

// A side is one end of a packet.
type side uint8

const (
	source side = iota
	destination
	original // the destination before destination NAT, as connection tracking has it; there is none for other packets
)

// addr returns the name of the address in a family.
func (s side) addr(f ruleset.Family) string {
	ip := "ip"
	if f == ruleset.IPv6 {
		ip = "ip6"
	}
	return [...]string{ip + " saddr", ip + " daddr", "ct original " + ip + " daddr"}[s]
}

// port returns the name of the port of a protocol, "th" for any.
func (s side) port(protocol string) string {
	return [...]string{protocol + " sport", protocol + " dport", "ct original proto-dst"}[s]
}

// A test is one condition of a rule beside family and protocol. Exactly one of prefix, ports, icmp and set is used.
type test struct {
	kind   testKind
	side   side
	not    bool
	prefix netip.Prefix      // testPrefix
	ports  ruleset.PortRange // testPorts
	value  uint8             // testICMPType, testICMPCode
	set    string            // testNets, testPortSet, testAddrPorts
}

type testKind uint8

const (
	testPrefix    testKind = iota // the address lies in a prefix
	testNets                      // the address is in an interval set
	testPorts                     // the port lies in a range
	testPortSet                   // the port is in an interval set
	testAddrPorts                 // address, protocol and port are in a set
	testICMPType
	testICMPCode
)

func (t *test) address() bool {
	return t.kind == testPrefix || t.kind == testNets || t.kind == testAddrPorts
}
func (t *test) port() bool { return t.kind == testPorts || t.kind == testPortSet }
func (t *test) icmp() bool { return t.kind == testICMPType || t.kind == testICMPCode }

// A variant is a conjunction that becomes one nft rule: a packet matches when family, protocol and every test do.
type variant struct {
	family ruleset.Family
	protos protocols
	tests  []test
}

// with returns v with one more test.
func (v variant) with(t test) variant {
	v.tests = append(v.tests[:len(v.tests):len(v.tests)], t)
	return v
}

// only returns v restricted to protocols.
func (v variant) only(p protocols) variant {
	v.protos = v.protos.and(p)
	return v
}

// A writer turns variants into rules and collects the constant sets that they name.
type writer struct {
	consts map[string]*Set
	// beforeDNAT: what rules call the destination is the one before destination NAT.
	beforeDNAT bool
}

// to returns the side that rules call the destination.
func (w *writer) to() side {
	if w.beforeDNAT {
		return original
	}
	return destination
}

// match returns the conditions of v as text, ending in a space unless empty, and code.
func (w *writer) match(v variant) (string, code) {
	var texts []string
	var c code
	single, isSingle := v.protos.single()
	if v.family != ruleset.AnyFamily {
		c = c.meta(unix.NFT_META_NFPROTO, regFirst).cmp(unix.NFT_CMP_EQ, []byte{nfproto(v.family)})
		if !v.implies(test.impliesFamily) {
			texts = append(texts, "meta nfproto "+familyName(v.family))
		}
	}
	for _, t := range v.tests {
		if t.address() && t.kind != testAddrPorts {
			texts, c = append(texts, t.text(v.family, "")), t.code(c, v.family)
		}
	}
	protoText, c := w.protocols(v.protos, c)
	portName := "th"
	if name := portProtocol(single); isSingle && name != "" && v.implies(test.isPort) {
		protoText, portName = "", name
	}
	if isSingle && v.implies(test.isICMP) {
		protoText = ""
	}
	if protoText != "" {
		texts = append(texts, protoText)
	}
	for _, t := range v.tests {
		if !t.address() || t.kind == testAddrPorts {
			texts, c = append(texts, t.text(v.family, portName)), t.code(c, v.family)
		}
	}
	s := strings.Join(texts, " ")
	if s != "" {
		s += " "
	}
	return s, c
}

func (v variant) implies(f func(test) bool) bool {
	for _, t := range v.tests {
		if f(t) {
			return true
		}
	}
	return false
}

func (t test) impliesFamily() bool { return t.address() && t.side != original || t.icmp() }
func (t test) isPort() bool        { return t.port() && t.side != original }
func (t test) isICMP() bool        { return t.icmp() }

func (t *test) text(f ruleset.Family, portName string) string {
	op := ""
	if t.not {
		op = "!= "
	}
	icmp := "icmp"
	if f == ruleset.IPv6 {
		icmp = "icmpv6"
	}
	switch t.kind {
	case testPrefix:
		p := t.prefix.String()
		if t.prefix.IsSingleIP() {
			p = t.prefix.Addr().String()
		}
		return t.side.addr(f) + " " + op + p
	case testNets:
		return t.side.addr(f) + " " + op + "@" + t.set
	case testPorts:
		return t.side.port(portName) + " " + op + portText(t.ports)
	case testPortSet:
		return t.side.port(portName) + " " + op + "@" + t.set
	case testAddrPorts:
		return t.side.addr(f) + " . meta l4proto . " + t.side.port("th") + " " + op + "@" + t.set
	case testICMPType:
		return icmp + " type " + op + strconv.Itoa(int(t.value))
	default:
		return icmp + " code " + op + strconv.Itoa(int(t.value))
	}
}

func (t *test) code(c code, f ruleset.Family) code {
	op := uint32(unix.NFT_CMP_EQ)
	if t.not {
		op = unix.NFT_CMP_NEQ
	}
	switch t.kind {
	case testPrefix:
		c = t.side.loadAddr(c, f)
		if !t.prefix.IsSingleIP() {
			c = c.mask(maskOf(t.prefix))
		}
		return c.cmp(op, t.prefix.Addr().AsSlice())
	case testNets:
		return t.side.loadAddr(c, f).lookup(t.set, t.not)
	case testPorts:
		return t.portCode(t.side.loadPort(c, regFirst))
	case testPortSet:
		return t.side.loadPort(c, regFirst).lookup(t.set, t.not)
	case testAddrPorts:
		proto, port := uint32(regWord1), uint32(regWord2)
		if f == ruleset.IPv6 {
			proto, port = regNext, regWord5
		}
		c = t.side.loadAddr(c, f).meta(unix.NFT_META_L4PROTO, proto)
		return t.side.loadPort(c, port).lookup(t.set, t.not)
	default:
		offset := uint32(oneIf(t.kind == testICMPCode))
		return c.payload(unix.NFT_PAYLOAD_TRANSPORT_HEADER, offset, 1, regFirst).cmp(op, []byte{t.value})
	}
}

func (t *test) portCode(c code) code {
	first := binary.BigEndian.AppendUint16(nil, t.ports.First)
	last := binary.BigEndian.AppendUint16(nil, t.ports.Last)
	switch {
	case t.ports.First == t.ports.Last && t.not:
		return c.cmp(unix.NFT_CMP_NEQ, first)
	case t.ports.First == t.ports.Last:
		return c.cmp(unix.NFT_CMP_EQ, first)
	case t.not:
		return c.outside(first, last)
	}
	return c.cmp(unix.NFT_CMP_GTE, first).cmp(unix.NFT_CMP_LTE, last)
}

// loadAddr loads an address into the first register and, for IPv6, the three words after it.
func (s side) loadAddr(c code, f ruleset.Family) code {
	if s == original && f == ruleset.IPv6 {
		return c.ctOriginal(unix.NFT_CT_DST_IP6, regFirst)
	}
	if s == original {
		return c.ctOriginal(unix.NFT_CT_DST_IP, regFirst)
	}
	offset, n := 12+4*uint32(s), uint32(4)
	if f == ruleset.IPv6 {
		offset, n = 8+16*uint32(s), 16
	}
	return c.payload(unix.NFT_PAYLOAD_NETWORK_HEADER, offset, n, regFirst)
}

// loadPort loads a port: TCP, UDP, SCTP and UDP-Lite have them at the same place.
func (s side) loadPort(c code, reg uint32) code {
	if s == original {
		return c.ctOriginal(unix.NFT_CT_PROTO_DST, reg)
	}
	return c.payload(unix.NFT_PAYLOAD_TRANSPORT_HEADER, 2*uint32(s), 2, reg)
}

func portText(r ruleset.PortRange) string {
	if r.First == r.Last {
		return strconv.Itoa(int(r.First))
	}
	return strconv.Itoa(int(r.First)) + "-" + strconv.Itoa(int(r.Last))
}

func maskOf(p netip.Prefix) []byte {
	mask := make([]byte, p.Addr().BitLen()/8)
	for i := range p.Bits() {
		mask[i/8] |= 0x80 >> (i % 8)
	}
	return mask
}

func nfproto(f ruleset.Family) byte {
	if f == ruleset.IPv6 {
		return nfprotoIPv6
	}
	return nfprotoIPv4
}

func familyName(f ruleset.Family) string {
	if f == ruleset.IPv6 {
		return "ipv6"
	}
	return "ipv4"
}

// portProtocol returns the name by which nft(8) matches the ports of a protocol, or "".
func portProtocol(p uint8) string {
	switch p {
	case ruleset.TCP:
		return "tcp"
	case ruleset.UDP:
		return "udp"
	case ruleset.SCTP:
		return "sctp"
	case ruleset.UDPLite:
		return "udplite"
	}
	return ""
}
