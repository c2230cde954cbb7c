package nft

import (
	"encoding/binary"
	"hash/crc32"
	"net/netip"

	"margay/ruleset"
)

// hops is the time to live of our packets, which no answer of the kernel has.
const hops = 77

// encodePacket returns the bytes of a packet; the id is in the identification or the flow label.
func encodePacket(p *ruleset.Packet, id uint16) []byte { return encode(p, id, transport(p, id)) }

// encodeError returns the bytes of an ICMP error about another packet, which was sent with an id of its own.
func encodeError(p *ruleset.Packet, id uint16, about *ruleset.Packet, aboutID uint16) []byte {
	return encode(p, id, append([]byte{p.ICMPType, p.ICMPCode, 0, 0, 0, 0, 0, 0}, encodePacket(about, aboutID)...))
}

func encode(p *ruleset.Packet, id uint16, data []byte) []byte {
	sum := pseudo(p, len(data))
	switch p.Protocol {
	case ruleset.TCP:
		binary.BigEndian.PutUint16(data[16:], checksum(sum, data))
	case ruleset.UDP, ruleset.UDPLite:
		binary.BigEndian.PutUint16(data[6:], checksum(sum, data))
	case ruleset.ICMP:
		binary.BigEndian.PutUint16(data[2:], checksum(0, data))
	case ruleset.ICMPv6:
		binary.BigEndian.PutUint16(data[2:], checksum(sum, data))
	}
	if p.Src.Is4() {
		h := []byte{0x45, 0, 0, 0, 0, 0, 0x40, 0, hops, p.Protocol, 0, 0}
		binary.BigEndian.PutUint16(h[2:], uint16(20+len(data)))
		binary.BigEndian.PutUint16(h[4:], id)
		h = append(append(h, p.Src.AsSlice()...), p.Dst.AsSlice()...)
		binary.BigEndian.PutUint16(h[10:], checksum(0, h))
		return append(h, data...)
	}
	h := []byte{0x60, 0, 0, 0, 0, 0, p.Protocol, hops}
	binary.BigEndian.PutUint16(h[2:], id)
	binary.BigEndian.PutUint16(h[4:], uint16(len(data)))
	h = append(append(h, p.Src.AsSlice()...), p.Dst.AsSlice()...)
	return append(h, data...)
}

func transport(p *ruleset.Packet, id uint16) []byte {
	ends := binary.BigEndian.AppendUint16(binary.BigEndian.AppendUint16(nil, p.SrcPort), p.DstPort)
	switch p.Protocol {
	case ruleset.TCP:
		flags := byte(0x02) // SYN
		switch id % 16 {
		case 1:
			flags = 0x10 // ACK: a flow picked up on its way
		case 2:
			flags = 0 // invalid
		}
		return append(ends, 0, 0, 0, 1, 0, 0, 0, 0, 0x50, flags, 0xff, 0xff, 0, 0, 0, 0)
	case ruleset.UDP, ruleset.UDPLite:
		return append(ends, 0, 8, 0, 0) // for UDP-Lite: the checksum covers all 8 bytes
	case ruleset.SCTP: // INIT, RFC 9260 section 3.3.2
		chunk := []byte{1, 0, 0, 20, 0, 0, 0, 1, 0, 1, 0, 0, 0, 1, 0, 1, 0, 0, 0, 1}
		data := append(append(ends, 0, 0, 0, 0, 0, 0, 0, 0), chunk...)
		binary.LittleEndian.PutUint32(data[8:], crc32.Checksum(data, crc32.MakeTable(crc32.Castagnoli)))
		return data
	case ruleset.ICMP, ruleset.ICMPv6:
		return append(binary.BigEndian.AppendUint16([]byte{p.ICMPType, p.ICMPCode, 0, 0}, id), 0, 1, 0, 0, 0, 0)
	case 47: // GRE without options, RFC 2784
		return []byte{0, 0, 8, 0}
	}
	return nil // no payload at all: what reads a port here must not match
}

func pseudo(p *ruleset.Packet, n int) uint32 {
	var sum uint32
	for _, a := range []netip.Addr{p.Src, p.Dst} {
		b := a.AsSlice()
		for i := 0; i < len(b); i += 2 {
			sum += uint32(binary.BigEndian.Uint16(b[i:]))
		}
	}
	return sum + uint32(p.Protocol) + uint32(n)
}

func checksum(sum uint32, b []byte) uint16 {
	for i := 0; i+1 < len(b); i += 2 {
		sum += uint32(binary.BigEndian.Uint16(b[i:]))
	}
	for sum>>16 != 0 {
		sum = sum&0xffff + sum>>16
	}
	return ^uint16(sum)
}
