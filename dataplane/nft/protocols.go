package nft

import (
	"iter"
	"math/bits"
	"strconv"

	"golang.org/x/sys/unix"

	"margay/ruleset"
)

// protocols is a set of IP protocols, a bit for each number.
type protocols [4]uint64

func protocolsOf(list ...uint8) protocols {
	var p protocols
	for _, n := range list {
		p[n/64] |= 1 << (n % 64)
	}
	return p
}

// Sets of protocols that matter: all, and those with ports that rules can match (ruleset.HasPorts).
var (
	allProtocols  = protocols{}.not()
	portProtocols = protocolsOf(ruleset.TCP, ruleset.UDP, ruleset.SCTP, ruleset.UDPLite)
)

func (p protocols) and(o protocols) protocols {
	for i := range p {
		p[i] &= o[i]
	}
	return p
}

func (p protocols) or(o protocols) protocols {
	for i := range p {
		p[i] |= o[i]
	}
	return p
}

func (p protocols) not() protocols {
	for i := range p {
		p[i] = ^p[i]
	}
	return p
}

func (p protocols) empty() bool { return p == protocols{} }

func (p protocols) size() int {
	n := 0
	for _, word := range p {
		n += bits.OnesCount64(word)
	}
	return n
}

// all yields the numbers in order.
func (p protocols) all() iter.Seq[uint8] {
	return func(yield func(uint8) bool) {
		for i, word := range p {
			for ; word != 0; word &= word - 1 {
				if !yield(uint8(i*64 + bits.TrailingZeros64(word))) {
					return
				}
			}
		}
	}
}

func (p protocols) list() []uint8 {
	var out []uint8
	for n := range 256 {
		if p[n/64]&(1<<(n%64)) != 0 {
			out = append(out, uint8(n))
		}
	}
	return out
}

// single returns the only protocol of p.
func (p protocols) single() (uint8, bool) {
	if p.size() != 1 {
		return 0, false
	}
	return p.list()[0], true
}

// protocols appends the condition that the protocol is in p: nothing, a comparison, or a look-up in the smaller of p and
// its complement. It returns the text.
func (d *condition) protocols(p protocols) string {
	not, op, text := false, uint32(unix.NFT_CMP_EQ), "meta l4proto "
	if p == allProtocols {
		return ""
	}
	if p.size() > 128 {
		not, op, text = true, unix.NFT_CMP_NEQ, "meta l4proto != "
		p = p.not()
	}
	d.code = d.code.meta(unix.NFT_META_L4PROTO, regFirst)
	if n, ok := p.single(); ok {
		d.code = d.code.cmp(op, []byte{n})
		return text + strconv.Itoa(int(n))
	}
	set := protocolSet(p)
	d.code, d.uses = d.code.lookup(set.Name, not), append(d.uses, set)
	return text + "@" + set.Name
}
