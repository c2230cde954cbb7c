package nft

import (
	"cmp"
	"encoding/binary"
	"slices"

	"golang.org/x/sys/unix"
)

// Registers as the kernel reports them: the first 16 bytes, then numbers of single words.
const (
	regFirst = unix.NFT_REG_1
	regWord1 = unix.NFT_REG32_01 // bytes 4 to 7
	regWord2 = unix.NFT_REG32_02
	regNext  = unix.NFT_REG_2    // bytes 16 to 31
	regWord5 = unix.NFT_REG32_05 // bytes 20 to 23
)

// nftaBitwiseOp is an attribute that package unix does not know (Linux 5.6).
const nftaBitwiseOp = 6

// Bits of ct state (NF_CT_STATE_BIT of the kernel), and the direction of the first packet of a flow.
const (
	ctInvalid     = 1
	ctEstablished = 2
	ctRelated     = 4
	ctNew         = 8

	ctStatusDNAT = 1 << 5 // IPS_DST_NAT

	ctDirOriginal = 0
)

// Protocol families that meta nfproto loads.
const (
	nfprotoIPv4 = 2
	nfprotoIPv6 = 10
)

// A code is the list of a rule's expressions as the kernel reports it (NFTA_RULE_EXPRESSIONS): attributes in ascending
// order, no flags on types, zero counters. Appending functions below keep it so.
type code []byte

func (c code) expr(name string, data []byte) code {
	body := attrString(nil, unix.NFTA_EXPR_NAME, name)
	if data != nil {
		body = attr(body, unix.NFTA_EXPR_DATA, data)
	}
	return attr(c, unix.NFTA_LIST_ELEM, body)
}

// meta loads what is known of a packet.
func (c code) meta(key, reg uint32) code {
	return c.expr("meta", attrU32(attrU32(nil, unix.NFTA_META_DREG, reg), unix.NFTA_META_KEY, key))
}

// payload loads n bytes of a header. A packet that does not have them ends the rule without a match.
func (c code) payload(base, offset, n, reg uint32) code {
	d := attrU32(nil, unix.NFTA_PAYLOAD_DREG, reg)
	d = attrU32(d, unix.NFTA_PAYLOAD_BASE, base)
	d = attrU32(d, unix.NFTA_PAYLOAD_OFFSET, offset)
	return c.expr("payload", attrU32(d, unix.NFTA_PAYLOAD_LEN, n))
}

// cmp compares the first register with a value (NFT_CMP_*).
func (c code) cmp(op uint32, value []byte) code {
	d := attrU32(nil, unix.NFTA_CMP_SREG, regFirst)
	d = attrU32(d, unix.NFTA_CMP_OP, op)
	return c.expr("cmp", attr(d, unix.NFTA_CMP_DATA, attr(nil, unix.NFTA_DATA_VALUE, value)))
}

// outside matches when the first register is not between first and last.
func (c code) outside(first, last []byte) code {
	d := attrU32(nil, unix.NFTA_RANGE_SREG, regFirst)
	d = attrU32(d, unix.NFTA_RANGE_OP, unix.NFT_RANGE_NEQ)
	d = attr(d, unix.NFTA_RANGE_FROM_DATA, attr(nil, unix.NFTA_DATA_VALUE, first))
	return c.expr("range", attr(d, unix.NFTA_RANGE_TO_DATA, attr(nil, unix.NFTA_DATA_VALUE, last)))
}

// mask keeps the bits of the first register that are set in the mask.
func (c code) mask(mask []byte) code {
	d := attrU32(nil, unix.NFTA_BITWISE_SREG, regFirst)
	d = attrU32(d, unix.NFTA_BITWISE_DREG, regFirst)
	d = attrU32(d, unix.NFTA_BITWISE_LEN, uint32(len(mask)))
	d = attr(d, unix.NFTA_BITWISE_MASK, attr(nil, unix.NFTA_DATA_VALUE, mask))
	d = attr(d, unix.NFTA_BITWISE_XOR, attr(nil, unix.NFTA_DATA_VALUE, make([]byte, len(mask))))
	return c.expr("bitwise", attrU32(d, nftaBitwiseOp, 0))
}

// lookup matches when the key in the registers is in the set, or is not.
func (c code) lookup(set string, not bool) code {
	d := attrString(nil, unix.NFTA_LOOKUP_SET, set)
	d = attrU32(d, unix.NFTA_LOOKUP_SREG, regFirst)
	return c.expr("lookup", attrU32(d, unix.NFTA_LOOKUP_FLAGS, uint32(oneIf(not))))
}

// vmap takes the verdict of the key in a map; without one the rule does not match.
func (c code) vmap(set string) code {
	d := attrString(nil, unix.NFTA_LOOKUP_SET, set)
	d = attrU32(d, unix.NFTA_LOOKUP_SREG, regFirst)
	d = attrU32(d, unix.NFTA_LOOKUP_DREG, unix.NFT_REG_VERDICT)
	return c.expr("lookup", attrU32(d, unix.NFTA_LOOKUP_FLAGS, 0))
}

// ctState matches when the connection is in one of the states.
func (c code) ctState(states uint32) code { return c.ctBits(unix.NFT_CT_STATE, states) }

// ctStatus matches when one of the bits of the status of the connection is set, whatever others are. A packet that is not
// tracked has no status.
func (c code) ctStatus(bits uint32) code { return c.ctBits(unix.NFT_CT_STATUS, bits) }

func (c code) ctBits(key, bits uint32) code {
	d := attrU32(nil, unix.NFTA_CT_DREG, regFirst)
	c = c.expr("ct", attrU32(d, unix.NFTA_CT_KEY, key))
	// The bits are a word of the machine, unlike what netlink says of numbers.
	return c.mask(binary.NativeEndian.AppendUint32(nil, bits)).cmp(unix.NFT_CMP_NEQ, make([]byte, 4))
}

// fibType loads the type of an address, as a word of the machine.
func (c code) fibType(flags uint32) code {
	d := attrU32(nil, unix.NFTA_FIB_DREG, regFirst)
	d = attrU32(d, unix.NFTA_FIB_RESULT, unix.NFT_FIB_RESULT_ADDRTYPE)
	return c.expr("fib", attrU32(d, unix.NFTA_FIB_FLAGS, flags))
}

// notrack keeps the packet away from connection tracking.
func (c code) notrack() code { return c.expr("notrack", nil) }

// limit ends the rule without a match when more packets came than a rate allows.
func (c code) limit(packets, seconds uint64, burst uint32) code {
	d := attr(nil, unix.NFTA_LIMIT_RATE, binary.BigEndian.AppendUint64(nil, packets))
	d = attr(d, unix.NFTA_LIMIT_UNIT, binary.BigEndian.AppendUint64(nil, seconds))
	d = attrU32(d, unix.NFTA_LIMIT_BURST, burst)
	d = attrU32(d, unix.NFTA_LIMIT_TYPE, unix.NFT_LIMIT_PKTS)
	return c.expr("limit", attrU32(d, unix.NFTA_LIMIT_FLAGS, 0))
}

// ctOriginal loads a field of the address and port that the first packet of the flow was sent to. For a packet that is not
// tracked the rule ends without a match.
func (c code) ctOriginal(key, reg uint32) code {
	d := attrU32(attrU32(nil, unix.NFTA_CT_DREG, reg), unix.NFTA_CT_KEY, key)
	return c.expr("ct", attr(d, unix.NFTA_CT_DIRECTION, []byte{ctDirOriginal}))
}

// counterExpr is the name of the expression that counts.
const counterExpr = "counter"

func (c code) counter() code {
	d := attr(nil, unix.NFTA_COUNTER_BYTES, make([]byte, 8))
	return c.expr(counterExpr, attr(d, unix.NFTA_COUNTER_PACKETS, make([]byte, 8)))
}

// verdict ends the rule: NF_ACCEPT, NF_DROP, NFT_GOTO or NFT_JUMP, the latter two to a chain.
func (c code) verdict(verdict int32, chain string) code {
	d := attrU32(nil, unix.NFTA_IMMEDIATE_DREG, unix.NFT_REG_VERDICT)
	return c.expr("immediate", attr(d, unix.NFTA_IMMEDIATE_DATA, verdictData(verdict, chain)))
}

func verdictData(verdict int32, chain string) []byte { return appendVerdict(nil, verdict, chain) }

func appendVerdict(b []byte, verdict int32, chain string) []byte {
	return nest(b, unix.NFTA_DATA_VERDICT, func(b []byte) []byte {
		if b = attrU32(b, unix.NFTA_VERDICT_CODE, uint32(verdict)); chain != "" {
			b = attrString(b, unix.NFTA_VERDICT_CHAIN, chain)
		}
		return b
	})
}

// log reports the packet to an nflog group.
func (c code) log(group uint16, prefix string) code {
	d := attr(nil, unix.NFTA_LOG_GROUP, binary.BigEndian.AppendUint16(nil, group))
	return c.expr("log", attrString(d, unix.NFTA_LOG_PREFIX, prefix))
}

// rejectTCP answers with a reset.
func (c code) rejectTCP() code {
	return c.expr("reject", attrU32(nil, unix.NFTA_REJECT_TYPE, unix.NFT_REJECT_TCP_RST))
}

// rejectProhibited answers with the family's ICMP error for "administratively prohibited".
func (c code) rejectProhibited() code {
	d := attrU32(nil, unix.NFTA_REJECT_TYPE, unix.NFT_REJECT_ICMPX_UNREACH)
	return c.expr("reject", attr(d, unix.NFTA_REJECT_ICMP_CODE, []byte{unix.NFT_REJECT_ICMPX_ADMIN_PROHIBITED}))
}

// canonical brings what the kernel reports into the encoding of [code], so that equal bytes mean equal rules: attributes
// of an expression are sorted and counts are set to zero. An attribute that no function above writes is kept and makes a
// difference.
func canonical(exprs []byte) string {
	var c code
	for _, e := range attrs(exprs) {
		var name string
		var data []byte
		for _, a := range attrs(e.data) {
			switch a.typ {
			case unix.NFTA_EXPR_NAME:
				name = text(a.data)
			case unix.NFTA_EXPR_DATA:
				data = canonicalData(name, a.data)
			}
		}
		c = c.expr(name, data)
	}
	return string(c)
}

func canonicalData(name string, data []byte) []byte {
	list := attrs(data)
	slices.SortStableFunc(list, func(a, b attribute) int { return cmp.Compare(a.typ, b.typ) })
	out := []byte{}
	for _, a := range list {
		switch {
		case name == "counter" && a.typ == unix.NFTA_COUNTER_PAD, name == "limit" && a.typ == unix.NFTA_LIMIT_PAD:
			continue
		case name == "counter":
			a.data = make([]byte, 8)
		}
		out = attr(out, a.typ, a.data)
	}
	return out
}

func oneIf(b bool) int {
	if b {
		return 1
	}
	return 0
}
