package nft

import (
	"cmp"
	"encoding/binary"
	"fmt"
	"slices"

	"golang.org/x/sys/unix"
)

// A batch is a transaction in the making: messages between a begin and an end.
type batch struct {
	buf   []byte
	notes []string // what each message does, begin and end included
	first uint32   // sequence number of the begin
	last  int      // offset of the last message that was added
	sets  uint32   // sets added so far: each needs a number of its own

	family byte // of the change that is being encoded; 0: inet
}

// newBatch begins a transaction. A generation other than 0 makes the kernel refuse the batch, with ERESTART, when anybody
// changed any rules since.
func newBatch(generation uint32) *batch {
	b := &batch{}
	var data []byte
	if generation != 0 {
		data = attrU32(nil, unix.NFNL_BATCH_GENID, generation)
	}
	b.append("begin transaction", message{typ: unix.NFNL_MSG_BATCH_BEGIN, data: data}, unix.AF_UNSPEC)
	return b
}

func (b *batch) append(note string, m message, family byte) {
	m.flags |= unix.NLM_F_REQUEST
	b.last = len(b.buf)
	var resource uint16
	if m.typ == unix.NFNL_MSG_BATCH_BEGIN || m.typ == unix.NFNL_MSG_BATCH_END {
		resource = unix.NFNL_SUBSYS_NFTABLES
	}
	b.buf = appendMessage(b.buf, m, family, resource)
	b.notes = append(b.notes, note)
}

// add adds a message about the table of the change that is being encoded.
func (b *batch) add(note string, msg, flags uint16, data []byte) {
	b.append(note, message{typ: nftType(msg), flags: flags, data: data}, cmp.Or(b.family, unix.NFPROTO_INET))
}

// open begins a message of our family, whose attributes are then appended to buf, until close.
func (b *batch) open(note string, msg, flags uint16) { b.add(note, msg, flags, nil) }

func (b *batch) close() { binary.NativeEndian.PutUint32(b.buf[b.last:], uint32(len(b.buf)-b.last)) }

// messages returns the number of messages, begin and end left out.
func (b *batch) messages() int { return len(b.notes) - 1 }

// finish numbers the messages and returns the datagram. Only the last message is to be acknowledged: the kernel reports
// errors of the others anyway, after it dealt with the whole batch.
func (b *batch) finish(first uint32) []byte {
	b.first = first
	end := b.last + 6
	flags := binary.NativeEndian.Uint16(b.buf[end:])
	binary.NativeEndian.PutUint16(b.buf[end:], flags|unix.NLM_F_ACK)
	out := appendMessage(b.buf, message{typ: unix.NFNL_MSG_BATCH_END, flags: unix.NLM_F_REQUEST},
		unix.AF_UNSPEC, unix.NFNL_SUBSYS_NFTABLES)
	for seq, at := first, 0; at < len(out); seq++ {
		binary.NativeEndian.PutUint32(out[at+8:], seq)
		at += (int(binary.NativeEndian.Uint32(out[at:])) + 3) &^ 3
	}
	return out
}

func (b *batch) has(seq uint32) bool { return seq-b.first < uint32(len(b.notes)) }

func (b *batch) note(seq uint32) string {
	if !b.has(seq) {
		return fmt.Sprintf("message %d", seq)
	}
	return b.notes[seq-b.first]
}

// Flags of nf_tables objects (include/uapi/linux/netfilter/nf_tables.h).
const (
	setConstant = 0x2
	setInterval = 0x4
	setMap      = 0x8

	elementEnd      = 0x1
	elementCatchAll = 0x2
)

// encode adds the messages of a change. Handles are those of the rules before it, for an opEdit.
func (b *batch) encode(c *Change, handles []uint64) error {
	note := c.String()
	b.family = c.family()
	const create = unix.NLM_F_CREATE | unix.NLM_F_EXCL
	switch c.op {
	case opDelTable:
		b.add(note, unix.NFT_MSG_DELTABLE, 0, attrString(nil, unix.NFTA_TABLE_NAME, TableName))
	case opAddTable:
		b.add(note, unix.NFT_MSG_NEWTABLE, create, attrU32(attrString(nil, unix.NFTA_TABLE_NAME, TableName),
			unix.NFTA_TABLE_FLAGS, 0))
	case opAddSet:
		b.sets++
		b.add(note, unix.NFT_MSG_NEWSET, create, c.set.encode(b.sets))
	case opAddChain:
		b.add(note, unix.NFT_MSG_NEWCHAIN, create, c.chain.encode())
	case opPolicy:
		b.add(note, unix.NFT_MSG_NEWCHAIN, 0, attrU32(chainAttrs(c.chain), unix.NFTA_CHAIN_POLICY, c.chain.Base.policy()))
	case opDelElements, opSweepElements:
		b.elements(c, unix.NFT_MSG_DELSETELEM, 0)
	case opAddElements:
		b.elements(c, unix.NFT_MSG_NEWSETELEM, unix.NLM_F_CREATE)
	case opEdit:
		return b.edit(c, handles)
	case opFlush:
		b.add(note, unix.NFT_MSG_DELRULE, 0, ruleAttrs(c.chain))
	case opDelChain:
		b.add(note, unix.NFT_MSG_DELCHAIN, 0, chainAttrs(c.chain))
	case opDelSet:
		b.add(note, unix.NFT_MSG_DELSET, 0, setAttrs(c.set))
	}
	return nil
}

// family returns the family of the table.
func (c *Change) family() byte {
	if c.bridge {
		return unix.NFPROTO_BRIDGE
	}
	return unix.NFPROTO_INET
}

func setAttrs(s *Set) []byte {
	return attrString(attrString(nil, unix.NFTA_SET_TABLE, TableName), unix.NFTA_SET_NAME, s.Name)
}

func chainAttrs(c *Chain) []byte {
	return attrString(attrString(nil, unix.NFTA_CHAIN_TABLE, TableName), unix.NFTA_CHAIN_NAME, c.Name)
}

func ruleAttrs(c *Chain) []byte {
	return attrString(attrString(nil, unix.NFTA_RULE_TABLE, TableName), unix.NFTA_RULE_CHAIN, c.Name)
}

func (s *Set) flags() uint32 {
	var flags uint32
	if s.Constant {
		flags |= setConstant
	}
	if s.Type.interval {
		flags |= setInterval
	}
	if s.Type.verdicts {
		flags |= setMap
	}
	return flags
}

func (s *Set) userData() []byte {
	b := udata(nil, udataSetByteOrder, binary.NativeEndian.AppendUint32(nil, s.Type.order()))
	if s.Comment != "" {
		b = udataText(b, udataSetComment, s.Comment)
	}
	return b
}

func (s *Set) encode(id uint32) []byte {
	d := attrU32(setAttrs(s), unix.NFTA_SET_FLAGS, s.flags())
	d = attrU32(d, unix.NFTA_SET_KEY_TYPE, s.Type.id())
	d = attrU32(d, unix.NFTA_SET_KEY_LEN, uint32(s.Type.keyLen()))
	if s.Type.verdicts {
		d = attrU32(d, unix.NFTA_SET_DATA_TYPE, unix.NFT_DATA_VERDICT)
	}
	d = attrU32(d, unix.NFTA_SET_ID, id)
	if s.Counted {
		d = attr(d, nftaSetExpr, attrString(nil, unix.NFTA_EXPR_NAME, counterExpr))
	}
	return attr(d, unix.NFTA_SET_USERDATA, s.userData())
}

func (b *Base) policy() uint32 {
	if b.Drop {
		return nfDrop
	}
	return nfAccept
}

func (c *Chain) encode() []byte {
	d := chainAttrs(c)
	if c.Base != nil {
		h := attrU32(nil, unix.NFTA_HOOK_HOOKNUM, c.Base.Hook)
		h = attrU32(h, unix.NFTA_HOOK_PRIORITY, uint32(c.Base.Priority))
		d = attr(d, unix.NFTA_CHAIN_HOOK, h)
		d = attrU32(d, unix.NFTA_CHAIN_POLICY, c.Base.policy())
		d = attrString(d, unix.NFTA_CHAIN_TYPE, c.Base.Type)
	}
	if c.Comment != "" {
		d = attr(d, nftaChainUserData, udataText(nil, udataChainComment, c.Comment))
	}
	return d
}

// nftaChainUserData is an attribute that package unix does not know (Linux 5.10).
const nftaChainUserData = 12

// maxElements bounds the bytes of elements in one message: the length of an attribute is 16 bits.
const maxElements = 60_000

// elementSize is about what an element takes in a message.
const elementSize = 150

// elements adds the elements of a change, in as many messages as it takes.
func (b *batch) elements(c *Change, msg, flags uint16) {
	b.buf = slices.Grow(b.buf, min(len(c.elements), 2*maxElements/elementSize)*elementSize)
	removes := msg == unix.NFT_MSG_DELSETELEM
	for i := 0; i < len(c.elements); {
		b.open(c.String(), msg, flags)
		b.buf = attrString(b.buf, unix.NFTA_SET_ELEM_LIST_TABLE, TableName)
		b.buf = attrString(b.buf, unix.NFTA_SET_ELEM_LIST_SET, c.set.Name)
		b.buf = nest(b.buf, unix.NFTA_SET_ELEM_LIST_ELEMENTS, func(buf []byte) []byte {
			for start := len(buf); i < len(c.elements) && len(buf)-start <= maxElements; i++ {
				e := c.elements[i]
				if removes {
					e.Verdict, e.Comment = "", ""
				}
				buf = e.encode(buf, c.set.Type.interval)
			}
			return buf
		})
		b.close()
	}
}

// encode appends an element as the kernel has it: an interval is two, its first key and, flagged, the key after its last.
func (e *Element) encode(b []byte, isInterval bool) []byte {
	var flags uint32
	if e.End {
		flags |= elementEnd
	}
	if e.Key == "" {
		flags |= elementCatchAll
	}
	b = nest(b, unix.NFTA_LIST_ELEM, func(b []byte) []byte {
		b = encodeKey(b, e.Key)
		if e.Verdict != "" {
			b = nest(b, unix.NFTA_SET_ELEM_DATA, e.Verdict.encode)
		}
		if e.Comment != "" {
			b = nest(b, unix.NFTA_SET_ELEM_USERDATA, func(b []byte) []byte { return udataText(b, udataElementComment, e.Comment) })
		}
		return encodeFlags(b, flags)
	})
	if isInterval && e.Until != "" {
		b = nest(b, unix.NFTA_LIST_ELEM, func(b []byte) []byte { return encodeFlags(encodeKey(b, e.Until), elementEnd) })
	}
	return b
}

func encodeKey(b []byte, key string) []byte {
	if key == "" {
		return b
	}
	return nest(b, unix.NFTA_SET_ELEM_KEY, func(b []byte) []byte {
		return nest(b, unix.NFTA_DATA_VALUE, func(b []byte) []byte { return append(b, key...) })
	})
}

func encodeFlags(b []byte, flags uint32) []byte {
	if flags == 0 {
		return b
	}
	return attrU32(b, unix.NFTA_SET_ELEM_FLAGS, flags)
}

func (v verdict) encode(b []byte) []byte {
	switch v {
	case verdictAccept:
		return appendVerdict(b, nfAccept, "")
	case verdictDrop:
		return appendVerdict(b, nfDrop, "")
	}
	return appendVerdict(b, unix.NFT_JUMP, v.chain())
}

// edit adds the messages of an opEdit. Rules come before others go, so that a rule that goes can still mark a place; when
// no rule stays, the chain is flushed first.
func (b *batch) edit(c *Change, handles []uint64) error {
	removed := 0
	for _, e := range c.edits {
		removed += oneIf(e.insert == nil)
	}
	flush := removed == len(c.old) && removed > 0
	if flush {
		b.add("flush chain "+c.chain.Name, unix.NFT_MSG_DELRULE, 0, ruleAttrs(c.chain))
	}
	for _, e := range c.edits {
		d := ruleAttrs(c.chain)
		atEnd := e.at == len(c.old) || flush
		if !atEnd && len(handles) != len(c.old) {
			return fmt.Errorf("edit chain %s: %d handles for %d rules", c.chain.Name, len(handles), len(c.old))
		}
		switch {
		case e.insert == nil && !flush:
			d = attr(d, unix.NFTA_RULE_HANDLE, binary.BigEndian.AppendUint64(nil, handles[e.at]))
			b.add(fmt.Sprintf("delete rule %d of chain %s", e.at, c.chain.Name), unix.NFT_MSG_DELRULE, 0, d)
		case e.insert != nil && atEnd:
			b.rule(c.chain, e.insert, unix.NLM_F_CREATE|unix.NLM_F_APPEND, d)
		case e.insert != nil:
			d = attr(d, unix.NFTA_RULE_POSITION, binary.BigEndian.AppendUint64(nil, handles[e.at]))
			b.rule(c.chain, e.insert, unix.NLM_F_CREATE, d)
		}
	}
	return nil
}

func (b *batch) rule(c *Chain, r *Rule, flags uint16, d []byte) {
	d = attr(d, unix.NFTA_RULE_EXPRESSIONS, []byte(r.code))
	if r.Comment != "" {
		d = attr(d, unix.NFTA_RULE_USERDATA, udataText(nil, udataRuleComment, r.Comment))
	}
	b.add("add rule to chain "+c.Name+": "+r.String(), unix.NFT_MSG_NEWRULE, flags, d)
}

// needsHandles reports whether an opEdit marks places by rules that are there.
func (c *Change) needsHandles() bool {
	stays := len(c.old)
	for _, e := range c.edits {
		stays -= oneIf(e.insert == nil)
	}
	if stays == 0 {
		return false
	}
	for _, e := range c.edits {
		if e.insert == nil || e.at < len(c.old) {
			return true
		}
	}
	return false
}
