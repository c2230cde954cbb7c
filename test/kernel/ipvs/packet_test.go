package ipvs

import (
	"encoding/binary"
	"net/netip"

	"golang.org/x/sys/unix"
)

// TCP flags.
const (
	syn    = 0x02
	ack    = 0x10
	synAck = syn | ack
)

// A packet is TCP or UDP; flags, number and the number that is awaited from the other end are those of TCP.
type packet struct {
	protocol        uint8
	src, dst        netip.AddrPort
	flags           byte
	number, awaited uint32
}

// answer returns the next packet of a handshake, from another address if it was translated.
func (p packet) answer(from netip.AddrPort) packet {
	a := packet{protocol: p.protocol, src: from, dst: p.src, flags: synAck, number: p.awaited, awaited: p.number + 1}
	if p.flags == synAck {
		a.flags = ack
	}
	return a
}

// encode returns the bytes of an IP packet.
func (p packet) encode() []byte {
	data := binary.BigEndian.AppendUint16(binary.BigEndian.AppendUint16(nil, p.src.Port()), p.dst.Port())
	sumAt := 6
	if p.protocol == unix.IPPROTO_TCP {
		data = binary.BigEndian.AppendUint32(binary.BigEndian.AppendUint32(data, p.number), p.awaited)
		data = append(data, 0x50, p.flags, 0xff, 0xff, 0, 0, 0, 0)
		sumAt = 16
	} else {
		data = append(data, 0, 9, 0, 0, 'x')
	}
	src, dst := p.src.Addr().AsSlice(), p.dst.Addr().AsSlice()
	pseudo := append(append(append([]byte{0, p.protocol}, binary.BigEndian.AppendUint16(nil, uint16(len(data)))...), src...), dst...)
	binary.BigEndian.PutUint16(data[sumAt:], checksum(append(pseudo, data...)))
	if p.src.Addr().Is4() {
		h := []byte{0x45, 0, 0, byte(20 + len(data)), 0, 1, 0x40, 0, 64, p.protocol, 0, 0}
		h = append(append(h, src...), dst...)
		binary.BigEndian.PutUint16(h[10:], checksum(h))
		return append(h, data...)
	}
	h := append(append([]byte{0x60, 0, 0, 0, 0, byte(len(data)), p.protocol, 64}, src...), dst...)
	return append(h, data...)
}

// decode returns the packet if it is TCP or UDP.
func decode(b []byte) (packet, bool) {
	var p packet
	var data []byte
	var src, dst netip.Addr
	switch {
	case len(b) >= 20 && b[0] == 0x45:
		p.protocol, data = b[9], b[20:]
		src, dst = netip.AddrFrom4([4]byte(b[12:])), netip.AddrFrom4([4]byte(b[16:]))
	case len(b) >= 40 && b[0]>>4 == 6:
		p.protocol, data = b[6], b[40:]
		src, dst = netip.AddrFrom16([16]byte(b[8:])), netip.AddrFrom16([16]byte(b[24:]))
	}
	if p.protocol != unix.IPPROTO_UDP && p.protocol != unix.IPPROTO_TCP || len(data) < 8 {
		return packet{}, false
	}
	p.src = netip.AddrPortFrom(src, binary.BigEndian.Uint16(data))
	p.dst = netip.AddrPortFrom(dst, binary.BigEndian.Uint16(data[2:]))
	if p.protocol == unix.IPPROTO_TCP && len(data) >= 20 {
		p.number, p.awaited, p.flags = binary.BigEndian.Uint32(data[4:]), binary.BigEndian.Uint32(data[8:]), data[13]
	}
	return p, true
}

func checksum(b []byte) uint16 {
	var sum uint32
	for i, v := range b {
		sum += uint32(v) << (8 * (1 - i&1))
	}
	for sum>>16 != 0 {
		sum = sum&0xffff + sum>>16
	}
	return ^uint16(sum)
}
