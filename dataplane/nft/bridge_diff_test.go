package nft

import (
	"fmt"
	"net/netip"
	"slices"
	"testing"

	"margay/ruleset"
)

// bridgeProgram draws a Program with workloads on the bridges of a bridgeWire.
func (g generator) bridgeProgram() *ruleset.Program {
	p := g.program()
	for id := range p.Workloads {
		if id.Name != "w0" {
			delete(p.Workloads, id)
		}
	}
	p.Settings.ClosePorts = g.one(2)
	p.Settings.WorkloadPrefixes = pick(g, nil, []string{"cali"}, []string{"cali", "veth"}, []string{"veth"})
	for _, port := range taps {
		if port.name[0] == 'p' && !g.one(8) {
			w := g.bridgeWorkload(port)
			p.Workloads[w.ID] = w
		}
	}
	return p
}

func (g generator) bridgeWorkload(port tap) *ruleset.Workload {
	w := &ruleset.Workload{
		ID: ruleset.EndpointID{Kind: "WorkloadEndpoint", Namespace: "ns", Name: "b" + port.name}, Interface: port.name, Bridge: port.bridge,
		Filtered: !g.one(6), Normal: ruleset.Walk{Ingress: g.tiers(3), Egress: g.tiers(3)}, Addrs: []netip.Addr{port.four(), port.six()},
		Profiles: list(g, 2, func() string { return pick(g, "f0", "open", "open", "open") }),
	}
	if g.one(2) {
		w.Normal = ruleset.Walk{}
	}
	switch g.IntN(16) {
	case 0: // an address that another has
		other := taps[g.IntN(len(taps))]
		w.Addrs = append(w.Addrs, other.four(), other.six())
	case 1: // several ports claim its addresses
		w.Interface = ""
	case 2: // the port has moved, and nobody told yet
		w.Bridge = map[string]string{"br0": "br1", "br1": "br0"}[w.Bridge]
	}
	return w
}

// frame draws a packet from or to a port. routed: it may be sent to the host although it is for a neighbour. To Eval that is the
// same as from port to port, to a bridge that is not filtered it is not.
func (g generator) frame(routed bool) frame {
	f := frame{Packet: g.packet()}
	for f.Dst.IsMulticast() || f.Protocol == ruleset.ICMPv6 && f.ICMPType == 136 || slices.Contains([]string{"x0", "cali1", "cali2"}, f.In) {
		f = frame{Packet: g.packet()}
	}
	target := taps[g.IntN(len(taps))]
	four := f.Src.Is4()
	dst := func(d tap) netip.Addr {
		if four {
			return d.four()
		}
		return d.six()
	}
	if g.one(3) { // from elsewhere to a port
		f.Out, f.Dst = "", dst(target)
		if f.In == "" && !f.Src.IsLoopback() || !g.one(3) {
			return f
		}
		f.Dst = pick(g, virtual4...)
		if !four {
			f.Dst = pick(g, virtual6...)
		}
		return f
	}
	from := taps[g.IntN(len(taps))]
	f.In, f.InPort, f.Out, f.Src, f.to = from.bridge, from.name, "", dst(from), bridgeMAC(from.bridge)
	switch {
	case g.one(12):
		f.Src = dst(taps[g.IntN(len(taps))])
	case !four && g.one(12):
		f.Src = pick(g, addrsOf("fe80::1", "::")...)
	}
	if target.bridge == from.bridge && target != from && !g.one(3) {
		f.Dst, f.to = dst(target), target.mac()
		if g.one(10) {
			f.Dst = dst(taps[g.IntN(len(taps))])
		}
		return f
	}
	f.Dst = g.target(four)
	if g.one(2) {
		f.Dst = dst(target)
	}
	if d, ok := tapWith(f.Dst); ok && d.bridge == from.bridge && !routed {
		f.Dst = locals4[0]
		if !four {
			f.Dst = locals6[0]
		}
	}
	return f
}

// back returns the answer to a packet that passed, if there is one. routed is as for frame.
func (g generator) back(to *passage, routed bool) (frame, bool) {
	p := to.packet
	f := frame{Packet: ruleset.Packet{In: p.Out, InPort: p.OutPort, Src: p.Dst, Dst: p.Src, Protocol: p.Protocol, SrcPort: p.DstPort,
		DstPort: p.SrcPort, ICMPType: p.ICMPType, ICMPCode: p.ICMPCode}}
	if !p.Src.IsGlobalUnicast() || p.Out == "lo" || p.In == "lo" {
		return f, false
	}
	if f.InPort == "" {
		return f, true
	}
	f.to = bridgeMAC(f.In)
	if d, ok := tapWith(f.Dst); ok && d.bridge == f.In && !p.DNAT {
		f.to = d.mac()
	} else if ok && d.bridge == f.In && !routed {
		return f, false
	}
	return f, true
}

// claimed reports whether a workload claims an address on a bridge.
func claimed(p *ruleset.Program, bridge string, a netip.Addr) bool {
	for _, w := range p.Workloads {
		if w.Bridge == bridge && slices.Contains(w.Addrs, a) {
			return true
		}
	}
	return false
}

func allFiltered(p *ruleset.Program) bool {
	for _, w := range p.Workloads {
		if w.Bridge != "" && !w.Filtered {
			return false
		}
	}
	return true
}

// The kernel gives every packet from, to and between ports of bridges the verdict of Eval.
func TestBridgeVerdictsAreEvals(t *testing.T) {
	programs := 60
	if testing.Short() {
		programs = 25
	}
	w := newBridgeWire(t)
	c, g := newTested(), newGenerator(seedOf(t))
	d := w.open(t)
	between, hairpins := 0, 0
	send := func(p *ruleset.Program, frames []frame) []passage {
		passages, lost := w.sendFrames(t, frames)
		c.lost += lost
		for i := range passages {
			if pkt := &passages[i].packet; pkt.DNAT && pkt.InPort != "" && pkt.In == pkt.Out && !claimed(p, pkt.In, pkt.Src) {
				c.lost++ // judged as what the host sends, see doc.go
				continue
			}
			v := passages[i].judge(t, p)
			c.packets++
			c.reasons[v.Reason]++
			c.states[passages[i].packet.State]++
			if v.Allowed {
				c.allowed++
				between += oneIf(passages[i].packet.InPort != "" && passages[i].packet.OutPort != "")
				hairpins += oneIf(passages[i].packet.InPort != "" && passages[i].packet.OutPort == passages[i].packet.InPort)
			}
		}
		return passages
	}
	for range programs {
		p := g.bridgeProgram()
		resync(t, d, p)
		w.forget(t)
		for range 3 {
			frames := make([]frame, 60)
			for i := range frames {
				frames[i] = g.frame(allFiltered(p))
			}
			var answers, again []frame
			for _, pass := range send(p, frames) {
				if f, ok := g.back(&pass, allFiltered(p)); ok && pass.passed {
					answers = append(answers, f)
				}
				if pass.passed && pass.sent.InPort == "" && len(again) < 10 {
					again = append(again, frame{Packet: pass.sent})
				}
			}
			send(p, append(answers, again...))
			delta := g.bridgeDelta(p)
			p.Apply(delta)
			delta.Sets = ownedSets(delta.Sets)
			must(t, d.Apply(t.Context(), delta))
		}
		if n := resync(t, d, p); n != 0 {
			t.Fatalf("%d messages to tables that were in sync", n)
		}
	}
	t.Logf("%d packets, %d allowed, %d of them between ports, %d back by the same, %d lost elsewhere, by state %v, by reason %v", c.packets,
		c.allowed, between, hairpins, c.lost, c.states, c.reasons)
	if c.lost > c.packets/4 || c.allowed < c.packets/20 || between < c.packets/100 || hairpins == 0 {
		t.Error("the packets show too little")
	}
	for _, r := range []ruleset.Reason{ruleset.PolicyRule, ruleset.EndOfTier, ruleset.ProfileRule, ruleset.NoProfile, ruleset.FlowKnown,
		ruleset.UnknownInterface, ruleset.SpoofedSource, ruleset.ForeignAddress, ruleset.UnfilteredBridge, ruleset.PodDiscovery,
		ruleset.ToOwnWorkload, ruleset.EndpointToHost, ruleset.NoEndpoint} {
		if c.reasons[r] == 0 {
			t.Errorf("reason %q never", r)
		}
	}
}

// bridgeDelta draws a change, of workloads on bridges among others.
func (g generator) bridgeDelta(p *ruleset.Program) *ruleset.Delta {
	d := g.delta(p)
	for id := range d.Workloads {
		if id.Name != "w0" {
			delete(d.Workloads, id)
		}
	}
	if d.Settings != nil {
		d.Settings.WorkloadPrefixes, d.Settings.ClosePorts = p.Settings.WorkloadPrefixes, g.one(2)
	}
	for range g.IntN(3) {
		port := taps[g.IntN(len(taps))]
		id := ruleset.EndpointID{Kind: "WorkloadEndpoint", Namespace: "ns", Name: fmt.Sprint("b", port.name)}
		switch {
		case port.name[0] != 'p' && !g.one(3):
		case g.one(3):
			d.Workloads[id] = nil
		default:
			d.Workloads[id] = g.bridgeWorkload(port)
		}
	}
	return d
}
