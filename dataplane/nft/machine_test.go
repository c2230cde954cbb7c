package nft

import (
	"bytes"
	"encoding/binary"
	"testing"

	"golang.org/x/sys/unix"
	"pgregory.net/rapid"

	"margay/ruleset"
)

// A machine executes the code of a Table as the kernel does, on one packet.
type machine struct {
	table  *Table
	packet *ruleset.Packet
	// A change of elements on the way, see mix; nil: none.
	change *change
	// From the hook with this number on, if there is a next table, that one holds.
	next            *Table
	switches, hooks int
	// What the hook knows.
	in, out  string
	state    ruleset.ConnState
	original bool // the destination is the one before destination NAT
	tracked  bool // connection tracking has seen the packet
	// The headers. No transport header: nothing of it can be loaded.
	network, transport []byte
	family             ruleset.Family

	registers [80]byte // as the kernel has them: the verdict, then 16 words; see offset
	depth     int
	lookups   int // sets and maps that were looked up
	rules     int // rules that were begun
	reports   int // to the log group
}

// offset returns where a register begins: 1 to 4 are of 16 bytes, from 8 on of 4.
func offset(reg uint32) int {
	if reg <= unix.NFT_REG_4 {
		return int(reg) * 16
	}
	return 16 + int(reg-unix.NFT_REG32_00)*4
}

// A verdict of the machine: jump or goto with a chain, one of netfilter's, or none.
type machineVerdict struct {
	code  int32
	chain string
}

var (
	goesOn  = machineVerdict{code: unix.NFT_CONTINUE}
	breaks  = machineVerdict{code: unix.NFT_BREAK}
	dropped = machineVerdict{code: nfDrop}
)

// run takes the packet through the hooks and returns whether it passes all of them.
func (m *machine) run(t fataler) bool {
	p := m.packet
	m.state = p.State
	switch {
	case p.In == "" && p.Balanced:
		return m.hook(t, "raw-output", "", p.OrigOut, true) && m.sentAnew(t)
	case p.In == "":
		out := p.Out
		if p.DNAT {
			out = p.OrigOut
		}
		return m.hook(t, "raw-output", "", out, true) && m.hook(t, "output", "", out, false) &&
			m.hook(t, "postrouting", "", p.Out, false)
	case !m.hook(t, "raw-prerouting", p.In, "", true):
		return false
	case p.Out == "":
		return m.hook(t, inputChain, p.In, "", false) && m.hook(t, behindChain, p.In, "", false)
	case p.Balanced:
		return m.hook(t, inputChain, p.In, "", true) && m.sentAnew(t)
	case p.In == p.Out && linkKind(p.In) == "bridge":
		return m.hook(t, "forward", p.In, p.Out, false) && m.hook(t, "postrouting", "", p.Out, false)
	}
	return m.hook(t, "forward", p.In, p.Out, false) && m.hook(t, "postrouting", p.In, p.Out, false)
}

// sentAnew takes what IPVS sends on through the hooks of what is sent from here.
func (m *machine) sentAnew(t fataler) bool {
	m.tracked = true
	return m.hook(t, "raw-output", "", m.packet.Out, false) && m.hook(t, "output", "", m.packet.Out, false) &&
		m.hook(t, "postrouting", m.packet.In, m.packet.Out, false)
}

// linkKind returns the kind of an interface of the tests.
func linkKind(name string) string {
	switch name {
	case "":
		return ""
	case "x0":
		return "bridge"
	}
	return "veth"
}

func (m *machine) hook(t fataler, name, in, out string, original bool) bool {
	if m.next != nil && m.hooks == m.switches {
		m.table = m.next
	}
	m.hooks++
	c := m.table.Chains[name]
	if c == nil {
		return true
	}
	m.in, m.out, m.original = in, out, original
	m.headers()
	v := m.chain(t, c)
	if v == goesOn {
		return !c.Base.Drop
	}
	return v.code == nfAccept
}

// headers encodes the packet as the hook sees it.
func (m *machine) headers() {
	p := *m.packet
	if (p.DNAT || p.Balanced) && m.original {
		p.Dst, p.DstPort = p.OrigDst, p.OrigPort
	}
	m.family = ruleset.FamilyOf(p.Src)
	n := 20
	if m.family == ruleset.IPv6 {
		n = 40
	}
	b := encodePacket(&p, 0)
	m.network, m.transport = b[:n], b[n:]
}

// chain returns the verdict of a chain, goesOn when the packet falls out of it.
func (m *machine) chain(t fataler, c *Chain) machineVerdict {
	if m.depth++; m.depth > 16 {
		t.Fatalf("chain %s is too deep", c.Name)
	}
	defer func() { m.depth-- }()
	for _, r := range c.Rules {
		v := m.rule(t, r)
		switch v.code {
		case unix.NFT_BREAK, unix.NFT_CONTINUE:
			continue
		case unix.NFT_RETURN:
			return goesOn
		case unix.NFT_JUMP, unix.NFT_GOTO:
			to := m.table.Chains[v.chain]
			if to == nil && m.change != nil && m.change.to.Chains[v.chain] != nil {
				to = &Chain{} // new: it has no rules yet for this packet
			}
			if to == nil {
				t.Fatalf("chain %s: no chain %s", c.Name, v.chain)
			}
			next := m.chain(t, to)
			if next == goesOn && v.code == unix.NFT_JUMP {
				continue
			}
			return next
		}
		return v
	}
	return goesOn
}

func (m *machine) rule(t fataler, r *Rule) machineVerdict {
	m.rules++
	for _, e := range attrs([]byte(r.code)) {
		list := attrs(e.data)
		name, data := text(find(list, unix.NFTA_EXPR_NAME)), attrs(find(list, unix.NFTA_EXPR_DATA))
		if v := m.expr(t, name, data); v != goesOn {
			return v
		}
	}
	return goesOn
}

func (m *machine) load(data []attribute, typ uint16, value []byte) machineVerdict {
	if value == nil {
		return breaks
	}
	at := offset(number(find(data, typ)))
	clear(m.registers[at : at+(len(value)+3)&^3])
	copy(m.registers[at:], value)
	return goesOn
}

func value(data []attribute, typ uint16) []byte {
	return find(attrs(find(data, typ)), unix.NFTA_DATA_VALUE)
}

func when(ok bool) machineVerdict {
	if ok {
		return goesOn
	}
	return breaks
}

func (m *machine) expr(t fataler, name string, data []attribute) machineVerdict {
	switch name {
	case "counter", "limit":
		return goesOn
	case "log":
		m.reports++
		return goesOn
	case "notrack":
		if !m.tracked {
			m.state = ruleset.NotTracked
		}
		return goesOn
	case "fib":
		return m.load(data, unix.NFTA_FIB_DREG, binary.NativeEndian.AppendUint32(nil, m.typeOf(number(find(data, unix.NFTA_FIB_FLAGS)))))
	case "meta":
		return m.load(data, unix.NFTA_META_DREG, m.meta(t, number(find(data, unix.NFTA_META_KEY))))
	case "ct":
		return m.load(data, unix.NFTA_CT_DREG, m.ct(t, number(find(data, unix.NFTA_CT_KEY))))
	case "payload":
		return m.load(data, unix.NFTA_PAYLOAD_DREG, m.payload(data))
	case "cmp":
		want := value(data, unix.NFTA_CMP_DATA)
		return when(compare(number(find(data, unix.NFTA_CMP_OP)), bytes.Compare(m.register(data, unix.NFTA_CMP_SREG, len(want)), want)))
	case "range":
		from, to := value(data, unix.NFTA_RANGE_FROM_DATA), value(data, unix.NFTA_RANGE_TO_DATA)
		got := m.register(data, unix.NFTA_RANGE_SREG, len(from))
		return when(bytes.Compare(got, from) < 0 || bytes.Compare(got, to) > 0)
	case "bitwise":
		mask := value(data, unix.NFTA_BITWISE_MASK)
		got := bytes.Clone(m.register(data, unix.NFTA_BITWISE_SREG, len(mask)))
		for i := range got {
			got[i] &= mask[i]
		}
		return m.load(data, unix.NFTA_BITWISE_DREG, got)
	case "lookup":
		return m.lookup(t, data)
	case "reject":
		return dropped
	case "immediate":
		v := attrs(find(attrs(find(data, unix.NFTA_IMMEDIATE_DATA)), unix.NFTA_DATA_VERDICT))
		return machineVerdict{int32(number(find(v, unix.NFTA_VERDICT_CODE))), text(find(v, unix.NFTA_VERDICT_CHAIN))}
	}
	t.Fatalf("unknown expression %s", name)
	return dropped
}

// typeOf returns the type of an address. A process can send from addresses that are not this host's; what it does not know of, such as
// answers of the kernel, is from those that are. What is not delivered may be said to be from one, too.
func (m *machine) typeOf(end uint32) uint32 {
	const unicast, multicast = 1, 5
	p := m.packet
	local := p.In == "" && (p.SrcPort%2 == 0 || !m.process()) || p.In != "" && p.Own
	if end == fibDestination {
		if p.Dst.IsMulticast() {
			return multicast
		}
		local = m.out == ""
	}
	if local {
		return addrLocal
	}
	return unicast
}

// process reports whether the packet has a socket.
func (m *machine) process() bool { return m.packet.In == "" && m.packet.DstPort%3 != 0 }

func compare(op uint32, order int) bool {
	switch op {
	case unix.NFT_CMP_EQ:
		return order == 0
	case unix.NFT_CMP_NEQ:
		return order != 0
	case unix.NFT_CMP_LTE:
		return order <= 0
	}
	return order >= 0
}

func (m *machine) register(data []attribute, typ uint16, n int) []byte {
	at := offset(number(find(data, typ)))
	return m.registers[at : at+n]
}

func (m *machine) meta(t fataler, key uint32) []byte {
	switch key {
	case unix.NFT_META_NFPROTO:
		return []byte{nfproto(m.family)}
	case unix.NFT_META_L4PROTO:
		return []byte{m.packet.Protocol}
	case unix.NFT_META_IIFNAME:
		return []byte(ifaceKey(m.in))
	case unix.NFT_META_OIFNAME:
		return []byte(ifaceKey(m.out))
	case unix.NFT_META_IIF:
		return []byte{byte(len(m.in)), 0, 0, 0}
	case unix.NFT_META_OIF:
		return []byte{byte(len(m.out)), 0, 0, 0}
	case metaIIFKind, metaOIFKind:
		kind := linkKind(map[uint32]string{metaIIFKind: m.in, metaOIFKind: m.out}[key])
		if kind == "" {
			return nil
		}
		return []byte(ifaceKey(kind))
	case unix.NFT_META_SKUID:
		if !m.process() {
			return nil
		}
		return make([]byte, 4)
	}
	t.Fatalf("unknown meta key %d", key)
	return nil
}

// ct returns what connection tracking knows.
func (m *machine) ct(t fataler, key uint32) []byte {
	p := m.packet
	word := func(v uint32) []byte { return binary.NativeEndian.AppendUint32(nil, v) }
	tracked := m.state != ruleset.NotTracked && m.state != ruleset.Invalid
	to, port := p.Dst, p.DstPort
	if p.DNAT || p.Balanced {
		to, port = p.OrigDst, p.OrigPort
	}
	switch {
	case key == unix.NFT_CT_STATE:
		return word(stateBits[m.state])
	case key == unix.NFT_CT_STATUS:
		return word(uint32(oneIf(p.DNAT)) * ctStatusDNAT)
	case !tracked:
		return nil
	case key == unix.NFT_CT_DST_IP && to.Is4(), key == unix.NFT_CT_DST_IP6 && to.Is6():
		return to.AsSlice()
	case key == unix.NFT_CT_DST_IP, key == unix.NFT_CT_DST_IP6:
		return nil
	case key == unix.NFT_CT_PROTO_DST:
		return []byte(portKey(port))
	}
	t.Fatalf("unknown key %d of connection tracking", key)
	return nil
}

func (m *machine) payload(data []attribute) []byte {
	header := m.network
	if number(find(data, unix.NFTA_PAYLOAD_BASE)) == unix.NFT_PAYLOAD_TRANSPORT_HEADER {
		header = m.transport
	}
	from, n := int(number(find(data, unix.NFTA_PAYLOAD_OFFSET))), int(number(find(data, unix.NFTA_PAYLOAD_LEN)))
	if from+n > len(header) {
		return nil
	}
	return header[from : from+n]
}

func (m *machine) lookup(t fataler, data []attribute) machineVerdict {
	m.lookups++
	set := m.table.Sets[text(find(data, unix.NFTA_LOOKUP_SET))]
	if set != nil && m.change != nil {
		set = m.change.at(set, m.lookups)
	}
	if set == nil {
		t.Fatalf("no set %s", text(find(data, unix.NFTA_LOOKUP_SET)))
	}
	key := string(m.register(data, unix.NFTA_LOOKUP_SREG, set.Type.keyLen()))
	e, found := set.find(key)
	if find(data, unix.NFTA_LOOKUP_DREG) != nil {
		if !found {
			return breaks
		}
		switch e.Verdict {
		case verdictAccept:
			return machineVerdict{code: nfAccept}
		case verdictDrop:
			return dropped
		}
		return machineVerdict{unix.NFT_JUMP, e.Verdict.chain()}
	}
	return when(found != (number(find(data, unix.NFTA_LOOKUP_FLAGS)) != 0))
}

// find returns the element that holds a key.
func (s *Set) find(key string) (Element, bool) {
	if !s.Type.interval && !s.Type.verdicts {
		_, ok := s.held()[Element{Key: key}]
		return Element{}, ok
	}
	for e := range s.all() {
		if e.Key == key || s.Type.interval && e.Key <= key && (e.Until == "" || key < e.Until) {
			return e, true
		}
	}
	return Element{}, false
}

// machine returns a machine for a packet.
func (t *Table) machine(pkt *ruleset.Packet) *machine { return &machine{table: t, packet: pkt} }

// Limits for tests: of the product, and small ones so that small Programs are cut, and come to the end of limits.
var testLimits = []limits{
	defaultLimits,
	{lines: 1, services: 64, classes: 1 << 17, members: 4096, copies: 4096, elements: 1 << 18, segments: 16},
	{lines: 2, services: 8, classes: 12, members: 2, copies: 16, elements: 6, segments: 2},
	{lines: 3, services: 300, classes: 400, members: 16, copies: 0, elements: 64, segments: 4},
}

// passing draws a packet on its whole way through the host.
func (g generator) passing() ruleset.Packet {
	p := g.packet()
	p.In, p.Out = pick(g, append(interfaces, "", "", "")...), pick(g, append(interfaces, "", "", "", "", "")...)
	if p.In == "" && p.Out == "" {
		p.In = pick(g, interfaces...)
	}
	p.State = pick(g, ruleset.New, ruleset.New, ruleset.New, ruleset.New, ruleset.Established, ruleset.Related, ruleset.Invalid,
		ruleset.NotTracked)
	balanced := ruleset.HasPorts(p.Protocol) && g.one(6)
	if (balanced || p.State != ruleset.Invalid && p.State != ruleset.NotTracked && g.one(4)) && !p.Dst.IsMulticast() && (p.In == "" || !p.Src.IsUnspecified()) {
		p.DNAT, p.OrigDst, p.OrigPort, p.OrigOut = true, g.target(p.Src.Is4()), p.DstPort, p.Out
		if p.OrigPort != 0 && g.one(2) {
			p.OrigPort = pick(g, ports...)
		}
		if p.In == "" && g.one(2) {
			p.OrigOut = pick(g, interfaces...)
		}
		p.DNAT, p.Balanced = !balanced, balanced
		if !balanced && p.In == p.Out && linkKind(p.In) == "bridge" {
			p.DNAT = false // what a bridge passes on to a translated destination is judged as what the host sends
		}
	}
	return p
}

// The table gives every packet the verdict of Eval, and reports those that pass as often, for random Programs and packets.
func TestTableIsEval(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		g := newGenerator(rapid.Uint64().Draw(t, "seed"))
		p := g.program()
		checkTable(t, g, p, newImage(p, pick(g, testLimits...)).table)
	})
}

func checkTable(t fataler, g generator, p *ruleset.Program, table *Table) {
	for range 100 {
		pkt := g.passing()
		pkt.Balanced = pkt.Balanced && p.Settings.IPVS
		pkt.Own = !pkt.Dst.IsMulticast() && g.one(8)
		want := ruleset.Eval(p, &pkt)
		if want.NotTracked && pkt.DNAT {
			continue // what is not tracked is not translated
		}
		m := table.machine(&pkt)
		if got := m.run(t); got != want.Allowed {
			t.Fatalf("packet %+v: passed %v, want %+v\n%s", pkt, got, want, table)
		}
		if n, known := reportsOf(p, &pkt); known && want.Allowed && n != m.reports {
			t.Fatalf("packet %+v: %d reports, want %d\n%s", pkt, m.reports, n, table)
		}
	}
}

// reportsOf returns how many Log rules a packet meets that match; known is false when it meets Untracked, which the table
// walks twice. Of a packet that is denied on the way the table may ask the stations in another order.
func reportsOf(p *ruleset.Program, pkt *ruleset.Packet) (n int, known bool) {
	known = true
	ruleset.Trace(p, pkt, func(s ruleset.Step) {
		known = known && s.Stage != ruleset.Untracked
		n += oneIf(s.Kind == ruleset.AtRule && s.Matched && s.Action == ruleset.Log && !s.Staged)
	})
	return n, known
}

// A fataler is a test, of package testing or rapid.
type fataler interface{ Fatalf(string, ...any) }
