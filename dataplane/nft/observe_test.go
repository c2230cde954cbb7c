package nft

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"

	"margay/ruleset"
)

const observerGroup = 7

// watchers are the chains of the observing table. They see a packet before and after connection tracking, and at each
// hook after destination NAT before and after our chains.
var watchers = []struct {
	name     string
	hook     *nftables.ChainHook
	priority nftables.ChainPriority
	state    bool // the name is followed by what connection tracking says
}{
	{"pre", nftables.ChainHookPrerouting, -350, false}, {"tracked", nftables.ChainHookPrerouting, -150, true},
	{"in", nftables.ChainHookInput, -50, false}, {"past-in", nftables.ChainHookInput, behindPriority + 50, false},
	{"forward", nftables.ChainHookForward, -50, false}, {"past-forward", nftables.ChainHookForward, 50, false},
	{"out", nftables.ChainHookOutput, -350, false}, {"tracked-out", nftables.ChainHookOutput, -150, true},
	{"sent", nftables.ChainHookOutput, -50, false}, {"past-out", nftables.ChainHookOutput, 50, false},
	{"post", nftables.ChainHookPostrouting, -50, false}, {"past-post", nftables.ChainHookPostrouting, 50, false},
}

// stateBits are the states of a packet as the kernel has them.
var stateBits = map[ruleset.ConnState]uint32{
	ruleset.Invalid: 1, ruleset.Established: 2, ruleset.Related: 4, ruleset.New: 8, ruleset.NotTracked: 64,
}

// observe adds the observing table.
func (w *wire) observe() error {
	c, err := nftables.New(nftables.WithNetNSFd(w.fd))
	if err != nil {
		return err
	}
	table := c.AddTable(&nftables.Table{Family: nftables.TableFamilyINet, Name: "observer"})
	for _, o := range watchers {
		chain := c.AddChain(&nftables.Chain{
			Name: o.name, Table: table, Type: nftables.ChainTypeFilter, Hooknum: o.hook, Priority: &o.priority,
		})
		if !o.state {
			c.AddRule(&nftables.Rule{Table: table, Chain: chain, Exprs: []expr.Any{logTo(o.name)}})
			continue
		}
		for state, bit := range stateBits {
			c.AddRule(&nftables.Rule{Table: table, Chain: chain, Exprs: []expr.Any{
				&expr.Ct{Key: expr.CtKeySTATE, Register: 1},
				&expr.Bitwise{SourceRegister: 1, DestRegister: 1, Len: 4,
					Mask: binary.NativeEndian.AppendUint32(nil, bit), Xor: make([]byte, 4)},
				&expr.Cmp{Op: expr.CmpOpNeq, Register: 1, Data: make([]byte, 4)},
				logTo(o.name + " " + string('0'+rune(state))),
			}})
		}
	}
	return c.Flush()
}

func logTo(prefix string) *expr.Log {
	return &expr.Log{
		Key: 1<<unix.NFTA_LOG_GROUP | 1<<unix.NFTA_LOG_PREFIX, Group: observerGroup, Data: []byte(prefix + "\x00"),
	}
}

// A probe is a packet to send: p, or an ICMP error about another packet that was sent.
type probe struct {
	ruleset.Packet
	about   *ruleset.Packet
	aboutID uint16
}

// A trail is what the observer saw of a packet that was sent: an entry for each watcher that it came to.
type trail struct {
	sent  ruleset.Packet
	id    uint16
	seen  map[string]LogEntry
	state map[string]ruleset.ConnState
}

func (t *trail) at(name string) bool {
	_, ok := t.seen[name]
	return ok
}

// A passage is one question to Eval and the kernel's answer: what the host sends to itself is asked about twice.
type passage struct {
	packet ruleset.Packet
	sent   ruleset.Packet
	id     uint16
	passed bool
	// early: it was dropped before connection tracking.
	early bool
}

// send lets the packets take their way and returns what became of them, and how many were lost elsewhere than with us.
func (w *wire) send(t testing.TB, probes []probe) (out []passage, lost int) {
	t.Helper()
	for _, trail := range w.trails(t, probes) {
		var ok bool
		if trail.sent.In == "" {
			out, ok = trail.leaving(out)
			if !ok {
				lost++
			}
		}
		if trail.sent.In != "" || trail.at("pre") {
			out, ok = trail.arriving(out)
			if !ok {
				lost++
			}
		}
	}
	return out, lost
}

func (w *wire) trails(t testing.TB, probes []probe) []trail {
	t.Helper()
	out := make([]trail, len(probes))
	first := w.id
	for i := range probes {
		w.id++
		p := &probes[i]
		out[i] = trail{sent: p.Packet, id: w.id, seen: map[string]LogEntry{}, state: map[string]ruleset.ConnState{}}
		if p.about != nil {
			w.write(t, &p.Packet, encodeError(&p.Packet, w.id, p.about, p.aboutID))
		} else {
			w.emit(t, &p.Packet, w.id)
		}
	}
	// What goes by lo comes in a moment later.
	unsettled := func() bool {
		for i := range out {
			if out[i].seen["past-post"].Out == "lo" && !out[i].at("in") && !(out[i].at("pre") && !out[i].at("tracked")) {
				return true
			}
		}
		return false
	}
	for deadline := time.Now().Add(time.Second); ; time.Sleep(time.Millisecond) {
		w.collect(t, func(e LogEntry, id uint16) {
			i := int(id - first - 1)
			// Where input ends, the source of an answer from a translated destination is the other one again.
			if i >= len(out) || e.Src != out[i].sent.Src && e.Prefix != "past-in" || e.Protocol != out[i].sent.Protocol {
				return // an answer of the kernel
			}
			name, state, _ := strings.Cut(e.Prefix, " ")
			out[i].seen[name] = e
			if state != "" {
				out[i].state[name] = ruleset.ConnState(state[0] - '0')
			}
		})
		if !unsettled() || time.Now().After(deadline) {
			return out
		}
	}
}

// question returns the packet to ask Eval about, without interfaces: with the state from one watcher, and where it goes
// from another.
func (t *trail) question(state, target string) ruleset.Packet {
	p := t.sent
	p.In, p.Out, p.State = "", "", t.state[state]
	if e, ok := t.seen[target]; ok && (e.Dst != p.Dst || e.DstPort != p.DstPort) {
		p.DNAT, p.OrigDst, p.OrigPort = true, p.Dst, p.DstPort
		p.Dst, p.DstPort = e.Dst, e.DstPort
	}
	return p
}

// leaving appends the passage of a packet that the host sends.
func (t *trail) leaving(out []passage) (_ []passage, ok bool) {
	if !t.at("out") || t.at("tracked-out") && !t.at("sent") || t.at("past-out") && !t.at("post") {
		return out, false
	}
	p := t.question("tracked-out", "sent")
	p.Out, p.OrigOut = t.seen["out"].Out, t.seen["out"].Out
	switch {
	case t.at("post"):
		p.Out = t.seen["post"].Out
	case p.DNAT:
		p.Out = leadsTo(p.Dst)
	}
	return append(out, passage{packet: p, sent: t.sent, id: t.id, passed: t.at("past-post"), early: !t.at("tracked-out")}), true
}

// leadsTo returns the device that the routes lead to.
func leadsTo(dst netip.Addr) string {
	for i, name := range interfaces {
		if four, six := behind(i); four.Contains(dst) || six.Contains(dst) {
			return name
		}
	}
	if slices.Contains(locals4, dst) || slices.Contains(locals6, dst) {
		return "lo"
	}
	return interfaces[0]
}

// arriving appends the passage of a packet that came in.
func (t *trail) arriving(out []passage) (_ []passage, ok bool) {
	if !t.at("pre") || t.at("tracked") && !t.at("in") && !t.at("forward") || t.at("past-forward") && !t.at("post") {
		return out, false
	}
	if t.at("forward") {
		p := t.question("tracked", "forward")
		p.In, p.Out = t.seen["forward"].In, t.seen["forward"].Out
		return append(out, passage{packet: p, sent: t.sent, id: t.id, passed: t.at("past-post")}), true
	}
	p := t.question("tracked", "in")
	p.In = t.seen["pre"].In
	return append(out, passage{packet: p, sent: t.sent, id: t.id, passed: t.at("past-in"), early: !t.at("tracked")}), true
}

// naturallyUntracked reports whether connection tracking leaves a packet alone by itself.
func naturallyUntracked(p *ruleset.Packet) bool {
	return p.Protocol == ruleset.ICMPv6 && p.Src.Is6() && (p.ICMPType >= 130 && p.ICMPType <= 136 || p.ICMPType == 143)
}

// judge fails when the passage is not what Eval says of it, and returns Eval's verdict.
func (pass *passage) judge(t testing.TB, p *ruleset.Program) ruleset.Verdict {
	t.Helper()
	pkt := &pass.packet
	v := ruleset.Eval(p, pkt)
	switch {
	case v.Allowed != pass.passed:
	case pass.early && v.Stage != ruleset.Untracked:
	case v.Allowed && pkt.In != "lo" && v.NotTracked != (pkt.State == ruleset.NotTracked) && !naturallyUntracked(pkt):
	default:
		return v
	}
	var walk strings.Builder
	ruleset.Trace(p, pkt, func(s ruleset.Step) { walk.WriteString("\n  " + stepText(s)) })
	t.Fatalf("packet %+v\nEval: %+v\nkernel passed: %v, dropped early: %v\nsettings %+v%s\n%s", *pkt, v, pass.passed, pass.early,
		p.Settings, walk.String(), Compile(p))
	return v
}

func stepText(s ruleset.Step) string {
	text := fmt.Sprintf("%d: %s %s %s %s %s %s %d", s.Kind, s.Stage, s.Direction, s.Endpoint, s.Tier, s.Policy, s.Profile, s.Rule)
	if s.Matched {
		text += " matched " + s.Action.String()
	}
	return text
}
