package ipvs

import (
	"encoding/binary"
	"fmt"
	"testing"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

// A watcher counts in many chains what nft expressions say of a packet, in a table of its own, made with a library that Margay does not use.
type watcher struct {
	t      *testing.T
	conn   *nftables.Conn
	table  *nftables.Table
	facts  []fact
	before map[string]uint64 // packets by counter
}

// A fact is what can be said of a packet, in the words of tests.
type fact struct {
	says  string
	exprs []expr.Any
}

var watched = []struct {
	name     string
	hook     *nftables.ChainHook
	priority nftables.ChainPriority
}{
	{"prerouting -10", nftables.ChainHookPrerouting, -10}, {"input -10", nftables.ChainHookInput, -10},
	{"input 101", nftables.ChainHookInput, 101}, {"forward -10", nftables.ChainHookForward, -10},
	{"output -300", nftables.ChainHookOutput, -300}, {"output -10", nftables.ChainHookOutput, -10},
	{"postrouting -10", nftables.ChainHookPostrouting, -10},
}

func (h *host) watch(t *testing.T) *watcher {
	t.Helper()
	c, err := nftables.New(nftables.WithNetNSFd(h.NetNS()), nftables.WithSockOptions(func(c *netlink.Conn) error {
		return c.SetReadBuffer(1 << 24) // every rule is acknowledged
	}))
	if err != nil {
		t.Fatal(err)
	}
	w := &watcher{t: t, conn: c, facts: h.facts(), before: map[string]uint64{}}
	w.table = c.AddTable(&nftables.Table{Family: nftables.TableFamilyINet, Name: "watch"})
	for _, o := range watched {
		chain := c.AddChain(&nftables.Chain{
			Name: o.name, Table: w.table, Type: nftables.ChainTypeFilter, Hooknum: o.hook, Priority: &o.priority,
		})
		for _, f := range w.facts {
			count := c.AddObj(&nftables.CounterObj{Table: w.table, Name: o.name + "/" + f.says}).(*nftables.CounterObj)
			ours := append(protocolIs(unix.IPPROTO_ICMPV6, expr.CmpOpNeq), f.exprs...) // no neighbour discovery
			c.AddRule(&nftables.Rule{Table: w.table, Chain: chain, Exprs: append(ours, &expr.Objref{Type: unix.NFT_OBJECT_COUNTER, Name: count.Name})})
		}
	}
	if err := c.Flush(); err != nil {
		t.Fatal(err)
	}
	return w
}

// seen returns a line for each chain that packets came to since it was asked last: what was true of any of them.
func (w *watcher) seen() []string {
	w.t.Helper()
	counters, err := w.conn.GetObjects(w.table)
	if err != nil {
		w.t.Fatal(err)
	}
	now := map[string]uint64{}
	for _, o := range counters {
		c := o.(*nftables.CounterObj)
		now[c.Name] = c.Packets
	}
	var lines []string
	for _, o := range watched {
		n := now[o.name+"/"] - w.before[o.name+"/"]
		if n == 0 {
			continue
		}
		line := o.name + ":"
		if n > 1 {
			line += fmt.Sprintf(" %d packets", n)
		}
		for _, f := range w.facts {
			if name := o.name + "/" + f.says; f.says != "" && now[name] > w.before[name] {
				line += " " + f.says
			}
		}
		lines = append(lines, line)
	}
	w.before = now
	return lines
}

// facts returns what is watched, in the order in which it is said.
func (h *host) facts() []fact {
	f := []fact{{"", nil}} // counts all
	for _, name := range []string{"wan", "lan", "cali1", "cali2", "lo"} {
		f = append(f, fact{"in=" + name, device(expr.MetaKeyIIFNAME, name)})
	}
	f = append(f, fact{"in=-", none(expr.MetaKeyIIF)})
	for _, name := range []string{"wan", "lan", "cali1", "cali2", "lo"} {
		f = append(f, fact{"out=" + name, device(expr.MetaKeyOIFNAME, name)})
	}
	f = append(f, fact{"out=-", none(expr.MetaKeyOIF)})
	proto, src, dst := byte(unix.NFPROTO_IPV4), uint32(12), uint32(16)
	if !h.node.Is4() {
		proto, src, dst = unix.NFPROTO_IPV6, 8, 24
	}
	ofFamily := []expr.Any{&expr.Meta{Key: expr.MetaKeyNFPROTO, Register: 1}, equal([]byte{proto})}
	for _, a := range h.names() {
		f = append(f, fact{"from=" + a.name, append(ofFamily[:2:2], network(src, a.addr.AsSlice())...)})
	}
	for _, a := range h.names() {
		f = append(f, fact{"to=" + a.name, append(ofFamily[:2:2], network(dst, a.addr.AsSlice())...)})
	}
	for _, port := range ports {
		f = append(f, fact{fmt.Sprint("dport=", port), []expr.Any{
			&expr.Payload{DestRegister: 1, Base: expr.PayloadBaseTransportHeader, Offset: 2, Len: 2}, equal(binary.BigEndian.AppendUint16(nil, port)),
		}})
	}
	for _, a := range h.names() {
		f = append(f, fact{"was=" + a.name, append(ofFamily[:2:2], &expr.Ct{Key: expr.CtKeyDST, Register: 1, Direction: 0}, equal(a.addr.AsSlice()))})
	}
	for _, port := range ports {
		f = append(f, fact{fmt.Sprint("wasport=", port), []expr.Any{
			&expr.Ct{Key: expr.CtKeyPROTODST, Register: 1, Direction: 0}, equal(binary.BigEndian.AppendUint16(nil, port)),
		}})
	}
	for _, s := range []struct {
		name string
		bit  uint32
	}{
		{"new", expr.CtStateBitNEW}, {"established", expr.CtStateBitESTABLISHED}, {"related", expr.CtStateBitRELATED},
		{"invalid", expr.CtStateBitINVALID}, {"untracked", expr.CtStateBitUNTRACKED},
	} {
		f = append(f, fact{s.name, bit(expr.CtKeySTATE, s.bit)})
	}
	return append(f,
		fact{"dnat", bit(expr.CtKeySTATUS, 1<<5)},
		fact{"own", []expr.Any{&expr.Fib{Register: 1, FlagSADDR: true, ResultADDRTYPE: true}, equal(binary.NativeEndian.AppendUint32(nil, unix.RTN_LOCAL))}},
		fact{"socket", []expr.Any{&expr.Meta{Key: expr.MetaKeySKUID, Register: 1}, equal(make([]byte, 4))}})
}

func equal(data []byte) expr.Any { return &expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: data} }

func device(key expr.MetaKey, name string) []expr.Any {
	b := make([]byte, unix.IFNAMSIZ)
	copy(b, name)
	return []expr.Any{&expr.Meta{Key: key, Register: 1}, equal(b)}
}

// none: the index of the interface is 0.
func none(key expr.MetaKey) []expr.Any {
	return []expr.Any{&expr.Meta{Key: key, Register: 1}, equal(make([]byte, 4))}
}

func network(offset uint32, data []byte) []expr.Any {
	return []expr.Any{
		&expr.Payload{DestRegister: 1, Base: expr.PayloadBaseNetworkHeader, Offset: offset, Len: uint32(len(data))}, equal(data),
	}
}

func bit(key expr.CtKey, mask uint32) []expr.Any {
	return []expr.Any{
		&expr.Ct{Key: key, Register: 1},
		&expr.Bitwise{SourceRegister: 1, DestRegister: 1, Len: 4, Mask: binary.NativeEndian.AppendUint32(nil, mask), Xor: make([]byte, 4)},
		&expr.Cmp{Op: expr.CmpOpNeq, Register: 1, Data: make([]byte, 4)},
	}
}

func protocolIs(n byte, op expr.CmpOp) []expr.Any {
	return []expr.Any{&expr.Meta{Key: expr.MetaKeyL4PROTO, Register: 1}, &expr.Cmp{Op: op, Register: 1, Data: []byte{n}}}
}
