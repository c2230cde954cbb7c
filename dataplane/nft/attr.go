package nft

import (
	"bytes"
	"encoding/binary"

	"golang.org/x/sys/unix"
)

// An attribute is a netlink attribute without the flags of its type.
type attribute struct {
	typ  uint16
	data []byte
}

// attr appends an attribute, padded to a multiple of 4 bytes. Nested ones are data that was made in the same way; nf_tables
// does not ask for the nested flag.
func attr(b []byte, typ uint16, data []byte) []byte {
	b = append(attrHeader(b, typ, len(data)), data...)
	return append(b, "\x00\x00\x00"[:-len(data)&3]...)
}

func attrHeader(b []byte, typ uint16, length int) []byte {
	b = binary.NativeEndian.AppendUint16(b, uint16(unix.SizeofNlAttr+length))
	return binary.NativeEndian.AppendUint16(b, typ)
}

// nest appends an attribute that holds what f appends, padded.
func nest(b []byte, typ uint16, f func([]byte) []byte) []byte {
	start := len(b)
	b = f(attrHeader(b, typ, 0))
	length := len(b) - start
	binary.NativeEndian.PutUint16(b[start:], uint16(length))
	return append(b, "\x00\x00\x00"[:-length&3]...)
}

func attrU32(b []byte, typ uint16, v uint32) []byte {
	return binary.BigEndian.AppendUint32(attrHeader(b, typ, 4), v)
}

// attrString appends a text with a final zero.
func attrString(b []byte, typ uint16, s string) []byte {
	b = append(attrHeader(b, typ, len(s)+1), s...)
	return append(b, "\x00\x00\x00\x00"[:4-len(s)&3]...)
}

// attrs returns the attributes of a message or a nest. What comes after a malformed one is left out: the kernel makes
// none.
func attrs(b []byte) []attribute {
	var out []attribute
	for len(b) >= unix.SizeofNlAttr {
		n := int(binary.NativeEndian.Uint16(b))
		if n < unix.SizeofNlAttr || n > len(b) {
			break
		}
		typ := binary.NativeEndian.Uint16(b[2:]) &^ (unix.NLA_F_NESTED | unix.NLA_F_NET_BYTEORDER)
		out = append(out, attribute{typ, b[unix.SizeofNlAttr:n]})
		b = b[min((n+3)&^3, len(b)):]
	}
	return out
}

// find returns the data of an attribute, or nil.
func find(list []attribute, typ uint16) []byte {
	for _, a := range list {
		if a.typ == typ {
			return a.data
		}
	}
	return nil
}

// within returns the data of an attribute of a nest, or nil.
func within(b []byte, typ uint16) []byte {
	for t, data := range attributes(b) {
		if t == typ {
			return data
		}
	}
	return nil
}

func text(b []byte) string { return string(bytes.TrimRight(b, "\x00")) }

func number(b []byte) uint32 {
	if len(b) != 4 {
		return 0
	}
	return binary.BigEndian.Uint32(b)
}

// Types of the records in user data, which is nft(8)'s own: type, length, value.
const (
	udataRuleComment    = 0
	udataChainComment   = 0
	udataElementComment = 0
	udataSetByteOrder   = 0
	udataSetComment     = 7
)

func udata(b []byte, typ byte, value []byte) []byte {
	return append(append(b, typ, byte(len(value))), value...)
}

func udataText(b []byte, typ byte, s string) []byte {
	return append(append(append(b, typ, byte(len(s)+1)), s...), 0)
}

// comment returns the text of the only record, or ok false when the user data is something else.
func commentOf(b []byte, typ byte) (s string, ok bool) {
	t, ok := commentBytes(b, typ)
	return string(t), ok
}

// commentBytes returns the same as a part of b.
func commentBytes(b []byte, typ byte) (s []byte, ok bool) {
	s = bytes.TrimRight(b[min(2, len(b)):], "\x00")
	return s, len(b) == 0 || len(b) == len(s)+3 && b[0] == typ && int(b[1]) == len(s)+1
}

// swapped returns v as it is read in network order when it was written in the order of this machine.
func swapped(v uint32) uint32 {
	return binary.BigEndian.Uint32(binary.NativeEndian.AppendUint32(nil, v))
}
