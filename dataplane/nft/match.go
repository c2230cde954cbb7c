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

// A test is one condition of a rule beside family and protocol.
type test struct {
	kind    testKind
	side    side
	not     bool
	nets    []netip.Prefix      // testPrefix: one; testNets: several that are disjoint, unless members are set
	ranges  []ruleset.PortRange // testPorts: one; testPortSet: several that are disjoint
	members *memberSet          // testNets, testHosts, testAddrPorts: a set of the Program
	value   uint8               // testICMPType, testICMPCode
}

// set returns what the test looks up, or nil.
func (t *test) set(f ruleset.Family) *Set {
	switch {
	case t.kind == testHosts && f == ruleset.IPv6:
		return t.members.hosts6
	case t.kind == testHosts:
		return t.members.hosts4
	case t.members != nil && f == ruleset.IPv6:
		return t.members.v6
	case t.members != nil:
		return t.members.v4
	case t.kind == testNets:
		return netsSet(t.nets)
	case t.kind == testPortSet:
		return portSet(t.ranges)
	}
	return nil
}

type testKind uint8

const (
	testPrefix    testKind = iota // the address lies in a prefix
	testNets                      // the address is in an interval set
	testHosts                     // the address is in the hash set of a large set
	testPorts                     // the port lies in a range
	testPortSet                   // the port is in an interval set
	testAddrPorts                 // address, protocol and port are in a set
	testICMPType
	testICMPCode
)

func (t *test) address() bool {
	return t.kind == testPrefix || t.kind == testNets || t.kind == testHosts || t.kind == testAddrPorts
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

// match returns the conditions of v.
func match(v variant) condition {
	var texts []string
	var d condition
	single, isSingle := v.protos.single()
	if v.family != ruleset.AnyFamily {
		d.family(v.family)
		if !v.implies(test.impliesFamily) {
			texts = append(texts, "meta nfproto "+familyName(v.family))
		}
	}
	for _, t := range v.tests {
		if t.address() && t.kind != testAddrPorts {
			texts = append(texts, d.test(t, v.family, ""))
		}
	}
	protoText := d.protocols(v.protos)
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
			texts = append(texts, d.test(t, v.family, portName))
		}
	}
	if d.text = strings.Join(texts, " "); d.text != "" {
		d.text += " "
	}
	return d
}

func (d *condition) family(f ruleset.Family) {
	d.code = d.code.meta(unix.NFT_META_NFPROTO, regFirst).cmp(unix.NFT_CMP_EQ, []byte{nfproto(f)})
}

// test appends a test and returns its text.
func (d *condition) test(t test, f ruleset.Family, portName string) string {
	name := ""
	if set := t.set(f); set != nil {
		name, d.uses = set.Name, append(d.uses, set)
	}
	d.code = t.code(d.code, f, name)
	return t.text(f, portName, name)
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

func (t *test) text(f ruleset.Family, portName, set string) string {
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
		p := t.nets[0].String()
		if t.nets[0].IsSingleIP() {
			p = t.nets[0].Addr().String()
		}
		return t.side.addr(f) + " " + op + p
	case testNets, testHosts:
		return t.side.addr(f) + " " + op + "@" + set
	case testPorts:
		return t.side.port(portName) + " " + op + portText(t.ranges[0])
	case testPortSet:
		return t.side.port(portName) + " " + op + "@" + set
	case testAddrPorts:
		return t.side.addr(f) + " . meta l4proto . " + t.side.port("th") + " " + op + "@" + set
	case testICMPType:
		return icmp + " type " + op + strconv.Itoa(int(t.value))
	default:
		return icmp + " code " + op + strconv.Itoa(int(t.value))
	}
}

func (t *test) code(c code, f ruleset.Family, set string) code {
	op := uint32(unix.NFT_CMP_EQ)
	if t.not {
		op = unix.NFT_CMP_NEQ
	}
	switch t.kind {
	case testPrefix:
		c = t.side.loadAddr(c, f)
		if !t.nets[0].IsSingleIP() {
			c = c.mask(maskOf(t.nets[0]))
		}
		return c.cmp(op, t.nets[0].Addr().AsSlice())
	case testNets, testHosts:
		return t.side.loadAddr(c, f).lookup(set, t.not)
	case testPorts:
		return t.portCode(t.side.loadPort(c, regFirst))
	case testPortSet:
		return t.side.loadPort(c, regFirst).lookup(set, t.not)
	case testAddrPorts:
		return loadService(t.side.loadAddr(c, f), f, t.side).lookup(set, t.not)
	default:
		offset := uint32(oneIf(t.kind == testICMPCode))
		return c.payload(unix.NFT_PAYLOAD_TRANSPORT_HEADER, offset, 1, regFirst).cmp(op, []byte{t.value})
	}
}

func (t *test) portCode(c code) code {
	r := t.ranges[0]
	first, last := binary.BigEndian.AppendUint16(nil, r.First), binary.BigEndian.AppendUint16(nil, r.Last)
	switch {
	case r.First == r.Last && t.not:
		return c.cmp(unix.NFT_CMP_NEQ, first)
	case r.First == r.Last:
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

// loadService loads protocol and port behind an address in the first registers, as a key of several fields has them.
func loadService(c code, f ruleset.Family, port side) code {
	proto, number := uint32(regWord1), uint32(regWord2)
	if f == ruleset.IPv6 {
		proto, number = regNext, regWord5
	}
	return port.loadPort(c.meta(unix.NFT_META_L4PROTO, proto), number)
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
