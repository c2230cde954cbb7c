package nft

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"strconv"
	"strings"

	"margay/ruleset"
)

// A field is one component of a key: a data type of nft(8) with its number there and its length in bytes.
type field struct {
	name string
	id   uint32
	size int
}

// Data types and their numbers as in nft(8) (include/datatype.h); they matter only to who lists the table.
var (
	fieldIPv4  = field{"ipv4_addr", 7, 4}
	fieldIPv6  = field{"ipv6_addr", 8, 16}
	fieldProto = field{"inet_proto", 12, 1}
	fieldPort  = field{"inet_service", 13, 2}
	fieldIface = field{"ifname", 41, 16}
)

// A SetType says what the keys of a set are.
type SetType struct {
	fields   []field
	interval bool // holds ranges of keys; only with one field
	verdicts bool // a map to chains
}

// Byte orders of a key, as nft(8) stores them beside a set.
const (
	orderMixed = 0
	orderHost  = 1
	orderBig   = 2
)

// The types in use.
var (
	typeNets4     = &SetType{fields: []field{fieldIPv4}, interval: true}
	typeNets6     = &SetType{fields: []field{fieldIPv6}, interval: true}
	typeHosts4    = &SetType{fields: []field{fieldIPv4}}
	typeHosts6    = &SetType{fields: []field{fieldIPv6}}
	typePorts     = &SetType{fields: []field{fieldPort}, interval: true}
	typeProtos    = &SetType{fields: []field{fieldProto}}
	typeService   = &SetType{fields: []field{fieldProto, fieldPort}}
	typeAddrPort4 = &SetType{fields: []field{fieldIPv4, fieldProto, fieldPort}}
	typeAddrPort6 = &SetType{fields: []field{fieldIPv6, fieldProto, fieldPort}}
	typeIfaces    = &SetType{fields: []field{fieldIface}}
	typeDispatch  = &SetType{fields: []field{fieldIface}, verdicts: true}

	// By interface and address, see bridged.
	typeIfaceAddr4   = &SetType{fields: []field{fieldIface, fieldIPv4}}
	typeIfaceAddr6   = &SetType{fields: []field{fieldIface, fieldIPv6}}
	typeByIfaceAddr4 = &SetType{fields: []field{fieldIface, fieldIPv4}, verdicts: true}
	typeByIfaceAddr6 = &SetType{fields: []field{fieldIface, fieldIPv6}, verdicts: true}

	// By port, see segment; by address and port and by address alone, see group.
	typeByPort  = &SetType{fields: []field{fieldProto, fieldPort}, verdicts: true}
	typeByPeer4 = &SetType{fields: []field{fieldIPv4, fieldProto, fieldPort}, verdicts: true}
	typeByPeer6 = &SetType{fields: []field{fieldIPv6, fieldProto, fieldPort}, verdicts: true}
	typeByAddr4 = &SetType{fields: []field{fieldIPv4}, verdicts: true}
	typeByAddr6 = &SetType{fields: []field{fieldIPv6}, verdicts: true}
)

// String returns the type as nft(8) spells it.
func (t *SetType) String() string {
	var names []string
	for _, f := range t.fields {
		names = append(names, f.name)
	}
	s := strings.Join(names, " . ")
	if t.verdicts {
		s += " : verdict"
	}
	return s
}

// id returns the number of the type in nft(8): 6 bits per field.
func (t *SetType) id() uint32 {
	var id uint32
	for _, f := range t.fields {
		id = id<<6 | f.id
	}
	return id
}

func (t *SetType) order() uint32 {
	switch {
	case len(t.fields) > 1:
		return orderMixed
	case t.fields[0] == fieldIface:
		return orderHost
	}
	return orderBig
}

// padded returns the bytes that a field takes in a key: a multiple of a register when it is one of several.
func (t *SetType) padded(f field) int {
	if len(t.fields) == 1 {
		return f.size
	}
	return (f.size + 3) &^ 3
}

func (t *SetType) keyLen() int {
	n := 0
	for _, f := range t.fields {
		n += t.padded(f)
	}
	return n
}

// text returns a key as nft(8) reads it.
func (t *SetType) text(key string) string {
	var parts []string
	for _, f := range t.fields {
		n := t.padded(f)
		if len(key) < n {
			return "?"
		}
		parts = append(parts, f.text(key[:f.size]))
		key = key[n:]
	}
	return strings.Join(parts, " . ")
}

func (f field) text(b string) string {
	switch f {
	case fieldIPv4, fieldIPv6:
		a, _ := netip.AddrFromSlice([]byte(b))
		return a.String()
	case fieldPort:
		return strconv.Itoa(int(binary.BigEndian.Uint16([]byte(b))))
	case fieldIface:
		return strconv.Quote(strings.TrimRight(b, "\x00"))
	}
	return strconv.Itoa(int(b[0]))
}

// intervalText returns the keys from first to the one before end as nft(8) reads them; an empty end is the end of the
// key space.
func (t *SetType) intervalText(first, end string) string {
	last := []byte(strings.Repeat("\xff", len(first)))
	if end != "" {
		last = decrement(end)
	}
	if p, ok := prefixOf(first, string(last)); ok && t.fields[0] != fieldPort {
		if p.IsSingleIP() {
			return p.Addr().String()
		}
		return p.String()
	}
	if first == string(last) {
		return t.text(first)
	}
	return t.text(first) + "-" + t.text(string(last))
}

// prefixOf returns the prefix that holds exactly the addresses from first to last.
func prefixOf(first, last string) (netip.Prefix, bool) {
	a, ok := netip.AddrFromSlice([]byte(first))
	if !ok {
		return netip.Prefix{}, false
	}
	for bits := 0; bits <= a.BitLen(); bits++ {
		p := netip.PrefixFrom(a, bits)
		if p.Masked() == p && string(lastOf(p)) == last {
			return p, true
		}
	}
	return netip.Prefix{}, false
}

// lastOf returns the last address of a prefix.
func lastOf(p netip.Prefix) []byte {
	b := p.Addr().AsSlice()
	for i := p.Bits(); i < len(b)*8; i++ {
		b[i/8] |= 0x80 >> (i % 8)
	}
	return b
}

// increment returns the key after b, or "" when b is the last one. It uses b up.
func increment(b []byte) string {
	for i := len(b) - 1; i >= 0; i-- {
		b[i]++
		if b[i] != 0 {
			return string(b)
		}
	}
	return ""
}

func decrement(key string) []byte {
	b := []byte(key)
	for i := len(b) - 1; i >= 0; i-- {
		b[i]--
		if b[i] != 0xff {
			break
		}
	}
	return b
}

// maxIface is the length of the longest interface name (IFNAMSIZ - 1).
const maxIface = 15

func ifaceKey(name string) string { return name + strings.Repeat("\x00", fieldIface.size-len(name)) }

func portKey(port uint16) string { return string(binary.BigEndian.AppendUint16(nil, port)) }

func serviceKey(protocol uint8, port uint16) string { return serviceOf(protocol, port).key() }

// addrPortElement returns the element of a member of an AddrPorts set.
func addrPortElement(m ruleset.Member) Element {
	return Element{Key: string(m.Prefix.Addr().AsSlice()) + serviceKey(m.Protocol, m.Port)}
}

// addrPortMember returns the member of an element that addrPortElement made.
func addrPortMember(e Element) ruleset.Member {
	size := len(e.Key) - len(serviceKey(0, 0))
	a, _ := netip.AddrFromSlice([]byte(e.Key[:size]))
	return ruleset.Member{Prefix: netip.PrefixFrom(a, a.BitLen()), Protocol: e.Key[size], Port: binary.BigEndian.Uint16([]byte(e.Key[size+4:]))}
}

func hostElement(a netip.Addr) Element { return Element{Key: string(a.AsSlice())} }

// prefixElement returns the element of a prefix in an interval set.
func prefixElement(p netip.Prefix) Element {
	return Element{Key: string(p.Addr().AsSlice()), Until: increment(lastOf(p))}
}

// prefix returns the prefix of an element that prefixElement made.
func (e Element) prefix() netip.Prefix {
	first, _ := netip.AddrFromSlice([]byte(e.Key))
	bits := 0
	last := decrement(e.Until)
	if e.Until == "" {
		last = []byte(strings.Repeat("\xff", len(e.Key)))
	}
	for bits < first.BitLen() && (e.Key[bits/8]^last[bits/8])&(0x80>>(bits%8)) == 0 {
		bits++
	}
	return netip.PrefixFrom(first, bits)
}

// typeOfKernel returns the type that a set in the kernel has.
func typeOfKernel(id, keyLen uint32, isInterval, isMap bool) (*SetType, error) {
	for _, t := range []*SetType{typeNets4, typeNets6, typeHosts4, typeHosts6, typePorts, typeProtos, typeService, typeAddrPort4, typeAddrPort6,
		typeIfaces, typeDispatch, typeIfaceAddr4, typeIfaceAddr6, typeByIfaceAddr4, typeByIfaceAddr6, typeByPort, typeByPeer4, typeByPeer6, typeByAddr4, typeByAddr6} {
		if t.id() == id && uint32(t.keyLen()) == keyLen && t.interval == isInterval && t.verdicts == isMap {
			return t, nil
		}
	}
	return nil, fmt.Errorf("type %d with keys of %d bytes is none of ours", id, keyLen)
}
