package ruleset

import (
	"bytes"
	"fmt"
	"net/netip"
	"slices"
)

// dumb is a second implementation of Eval, written from pseudo-code and a table of what Calico does, and slow on purpose: a packet
// goes from hook to hook with a mark, as in the incumbent, bits are compared one by one and
// every set is searched from end to end.
type dumb struct {
	p   *Program
	pkt Packet // as the hook sees it
	end Packet // after destination NAT

	mark    bool // a stage before accepted
	notrack bool
	last    Verdict
}

func dumbEval(p *Program, pkt *Packet) Verdict {
	d := &dumb{p: p, pkt: *pkt, end: *pkt, last: Verdict{Allowed: true, Reason: NoEndpoint}}
	if pkt.DNAT || pkt.Balanced {
		d.pkt.Dst, d.pkt.DstPort = pkt.OrigDst, pkt.OrigPort
		if pkt.In == "" {
			d.pkt.Out = pkt.OrigOut
		}
	}
	hooks := []func() bool{d.raw, d.ipvs, d.conntrack, d.tunnels, d.mangle, func() bool { d.pkt = *pkt; return false }, d.filter}
	for _, hook := range hooks {
		if hook() {
			break
		}
	}
	d.last.NotTracked = d.last.Allowed && d.notrack
	return d.last
}

// A columns holds what the table has for a chain type.
type columns struct{ failsafes, replies, profiles, endOfTier, invalid, discovery, tunnels bool }

var chainTypes = map[Stage]columns{
	Normal:    {failsafes: true, profiles: true, endOfTier: true, invalid: true, discovery: true, tunnels: true},
	Forward:   {endOfTier: true, invalid: true},
	PreDNAT:   {failsafes: true, invalid: true, discovery: true},
	Untracked: {failsafes: true, replies: true, discovery: true},
}

// An answer is what a chain says: yes and no are final for it, neither goes on.
type answer int

const (
	neither answer = iota
	yes
	no
)

// chain is the pseudo-code of the verdict.
func (d *dumb) chain(v Verdict, c columns, tiers []Tier, profiles []string) answer {
	say := func(a answer, with Verdict) answer {
		with.Stage, with.Direction, with.Endpoint, with.Allowed = v.Stage, v.Direction, v.Endpoint, a == yes
		d.last = with
		return a
	}
	if c.invalid && d.pkt.State == Invalid && !d.notrack && !d.p.Settings.AcceptInvalid {
		return say(no, Verdict{Reason: FlowInvalid})
	}
	if c.failsafes {
		if i, ok := d.failsafe(v.Direction, c.replies); ok {
			if v.Stage == Normal {
				return say(yes, Verdict{Reason: FailsafePort, Rule: i})
			}
			return d.open(v, FailsafePort)
		}
	}
	if c.discovery && len(d.pkt.Src.AsSlice()) == 16 && d.pkt.Protocol == ICMPv6 &&
		slices.Contains([]uint8{130, 131, 132, 133, 134, 135, 136, 143}, d.pkt.ICMPType) {
		if v.Stage == Normal {
			return say(yes, Verdict{Reason: HostDiscovery})
		}
		return d.open(v, HostDiscovery)
	}
	other := map[Direction]netip.Addr{Ingress: d.pkt.Src, Egress: d.pkt.Dst}[v.Direction]
	if c.tunnels && len(d.tunnelled()) > 0 && d.isNode(other) {
		return say(yes, Verdict{Reason: HostTunnel})
	}
	for _, tier := range tiers {
		decided, ok := d.tier(tier, v.Direction, c.endOfTier)
		if ok && decided.Allowed {
			return say(yes, decided)
		}
		if ok {
			return say(no, decided)
		}
	}
	if !c.profiles {
		return d.open(v, NoPolicy)
	}
	for _, name := range profiles {
		decided, ok := d.profile(name, v.Direction)
		if ok && decided.Allowed {
			return say(yes, decided)
		}
		if ok {
			return say(no, decided)
		}
	}
	return say(no, Verdict{Reason: NoProfile})
}

// open notes that a chain let the packet by, if nothing else was said yet.
func (d *dumb) open(v Verdict, r Reason) answer {
	if d.last.Reason == NoEndpoint {
		v.Allowed, v.Reason = true, r
		d.last = v
	}
	return neither
}

func (d *dumb) drop(r Reason, dir Direction, id EndpointID) bool {
	d.last = Verdict{Reason: r, Direction: dir, Endpoint: id}
	return true
}

// raw: unknown interfaces and spoofed sources are dropped, then untracked policy of named host endpoints.
func (d *dumb) raw() bool {
	in, out := d.pkt.In, d.pkt.Out
	nowhere := (d.pkt.Src.String() == "::" || d.pkt.Src.String() == "0.0.0.0") && !covers(netip.MustParsePrefix("ff00::/8"), d.end.Dst)
	delivered := map[bool]bool{d.end.Out == "": true, d.end.Balanced: true}[true]
	if d.p.Settings.IPVS && (d.pkt.Own || nowhere) && in != "" && in != "lo" && delivered && !(d.isCali(in) && d.pod(in) == nil) &&
		!(out != "" && d.isCali(out) && d.pod(out) == nil) {
		return d.drop(SpoofedSource, Ingress, EndpointID{})
	}
	for _, unknown := range []struct {
		iface string
		dir   Direction
	}{{in, Egress}, {out, Ingress}} {
		if in != "" && d.isCali(unknown.iface) && d.pod(unknown.iface) == nil {
			return d.drop(UnknownInterface, unknown.dir, EndpointID{})
		}
	}
	if d.isCali(in) {
		w := d.pod(in)
		if !d.own(w) {
			return d.drop(SpoofedSource, Egress, w.ID)
		}
		return false
	}
	if in == "" {
		return d.untracked(Egress, out)
	}
	return d.untracked(Ingress, in)
}

// untracked is the raw table; before it, packets have no mark.
func (d *dumb) untracked(dir Direction, iface string) bool {
	d.mark = false
	ep := d.named(iface)
	if ep == nil {
		return false
	}
	tiers := map[Direction][]Tier{Ingress: ep.Untracked.Ingress, Egress: ep.Untracked.Egress}[dir]
	if len(tiers) == 0 {
		return false
	}
	switch d.chain(Verdict{Stage: Untracked, Direction: dir, Endpoint: ep.ID}, chainTypes[Untracked], tiers, nil) {
	case yes:
		d.mark, d.notrack = true, true
	case no:
		return true
	}
	return false
}

// ipvs: what is balanced meets the raw table of the output hook with its new destination. Behind that the header says where it goes,
// and connection tracking where it was sent to; what is not tracked is asked again in the raw table's place.
func (d *dumb) ipvs() bool {
	if !d.pkt.Balanced {
		return false
	}
	before, notrack := d.pkt, d.notrack
	tracked := !notrack && d.end.State != NotTracked && d.end.State != Invalid
	d.pkt, d.mark = d.end, false
	if d.end.Out != "" && d.untracked(Egress, d.end.Out) {
		return true
	}
	d.notrack = notrack
	if d.end.In == "" {
		return false
	}
	if tracked {
		d.pkt, d.mark = before, false
		return false
	}
	return d.untracked(Ingress, d.end.In)
}

func (d *dumb) conntrack() bool {
	if !d.notrack && (d.pkt.State == Established || d.pkt.State == Related) {
		d.last = Verdict{Allowed: true, Reason: FlowKnown}
		return true
	}
	return false
}

// tunnels: what is delivered here in a tunnel of the cluster is dropped if it comes from elsewhere.
func (d *dumb) tunnels() bool {
	unproven := func(t Tunnel) bool { return !t.Proven }
	final := d.end
	if final.In == "" || final.Out != "" || !slices.ContainsFunc((&dumb{p: d.p, pkt: final}).tunnelled(), unproven) || d.isNode(final.Src) {
		return false
	}
	return d.drop(StrangeTunnel, Ingress, EndpointID{})
}

// tunnelled returns the tunnels that a packet may be in.
func (d *dumb) tunnelled() (list []Tunnel) {
	for _, t := range d.p.Settings.Tunnels {
		family := map[int]Family{4: IPv4, 16: IPv6}[len(d.pkt.Src.AsSlice())]
		same := []bool{t.Protocol == d.pkt.Protocol, t.Protocol != UDP || t.Port == d.pkt.DstPort, t.Family == 0 || t.Family == family}
		if !slices.Contains(same, false) {
			list = append(list, t)
		}
	}
	return list
}

func (d *dumb) isNode(a netip.Addr) bool {
	within := func(n netip.Prefix) bool { return covers(n, a) }
	return slices.ContainsFunc(d.p.Settings.TunnelNets, within) ||
		slices.ContainsFunc(d.content("hosts"), func(m Member) bool { return within(m.Prefix) })
}

// mangle: pre-DNAT policy, which an endpoint for all interfaces has on those of workloads, too.
func (d *dumb) mangle() bool {
	if d.pkt.In == "" || d.mark {
		return false
	}
	ep := d.either(d.pkt.In)
	if ep == nil || len(ep.PreDNAT.Ingress) == 0 {
		return false
	}
	switch d.chain(Verdict{Stage: PreDNAT, Endpoint: ep.ID}, chainTypes[PreDNAT], ep.PreDNAT.Ingress, nil) {
	case yes:
		d.mark = true
	case no:
		return true
	}
	return false
}

func (d *dumb) filter() bool {
	switch {
	case d.pkt.In != "" && d.pkt.Out != "":
		return d.filterForward()
	case d.pkt.In != "":
		return d.filterInput()
	}
	return d.filterOutput()
}

func (d *dumb) filterInput() bool {
	if !d.isCali(d.pkt.In) {
		return d.hostChain(Ingress, d.pkt.In)
	}
	w := d.pod(d.pkt.In)
	if d.pkt.Protocol == ICMPv6 && len(d.pkt.Src.AsSlice()) == 16 && slices.Contains([]uint8{130, 131, 132, 133, 135, 136}, d.pkt.ICMPType) {
		d.last = Verdict{Allowed: true, Reason: PodDiscovery, Direction: Egress, Endpoint: w.ID}
		return true
	}
	if d.podChain(Egress, w) == no {
		return true
	}
	d.last = Verdict{Allowed: d.p.Settings.EndpointToHost != HostDrop, Reason: EndpointToHost, Direction: Egress, Endpoint: w.ID}
	return true
}

func (d *dumb) filterOutput() bool {
	if d.isCali(d.pkt.Out) {
		d.last = Verdict{Allowed: true, Reason: ToOwnWorkload}
		return true
	}
	return d.hostChain(Egress, d.pkt.Out)
}

func (d *dumb) hostChain(dir Direction, iface string) bool {
	ep := d.either(iface)
	if ep == nil || d.mark {
		return true
	}
	tiers := map[Direction][]Tier{Ingress: ep.Normal.Ingress, Egress: ep.Normal.Egress}[dir]
	d.chain(Verdict{Direction: dir, Endpoint: ep.ID}, chainTypes[Normal], tiers, ep.Profiles)
	return true
}

func (d *dumb) filterForward() bool {
	from, to := d.either(d.pkt.In), d.either(d.pkt.Out)
	if from != nil && !d.mark && d.chain(Verdict{Stage: Forward, Endpoint: from.ID}, chainTypes[Forward], from.Forward.Ingress, nil) == no {
		return true
	}
	if within := func(n netip.Prefix) bool { return covers(n, d.pkt.Dst) }; slices.ContainsFunc(d.p.Settings.ServiceNets, within) {
		d.drop(ServiceLoop, Ingress, EndpointID{})
		d.last.Stage = Forward
		return true
	}
	if d.isCali(d.pkt.In) && d.podChain(Egress, d.pod(d.pkt.In)) == no {
		return true
	}
	if d.isCali(d.pkt.Out) && d.podChain(Ingress, d.pod(d.pkt.Out)) == no {
		return true
	}
	if to != nil {
		d.chain(Verdict{Stage: Forward, Direction: Egress, Endpoint: to.ID}, chainTypes[Forward], to.Forward.Egress, nil)
	}
	return true
}

func (d *dumb) podChain(dir Direction, w *Workload) answer {
	v, tiers, c := Verdict{Direction: dir, Endpoint: w.ID}, w.Normal.Ingress, chainTypes[Normal]
	c.failsafes, c.discovery, c.tunnels = false, false, false
	if dir == Ingress {
		return d.chain(v, c, tiers, w.Profiles)
	}
	vxlan := d.pkt.Protocol == UDP && (d.pkt.DstPort == d.p.Settings.VXLANPort || d.pkt.DstPort == 4789 && d.p.Settings.VXLANPort == 0) && !d.p.Settings.AllowVXLAN
	ipip := d.pkt.Protocol == 4 && !d.p.Settings.AllowIPIP
	invalid := d.pkt.State == Invalid && !d.notrack && !d.p.Settings.AcceptInvalid
	if (vxlan || ipip) && !invalid {
		d.drop(TunnelPacket, Egress, w.ID)
		return no
	}
	return d.chain(v, c, w.Normal.Egress, w.Profiles)
}

func (d *dumb) own(w *Workload) bool {
	if !d.pkt.Src.Is4() {
		fe80 := netip.MustParsePrefix("fe80::/10")
		if covers(fe80, d.pkt.Src) {
			return true
		}
		local := covers(fe80, d.pkt.Dst) || covers(netip.MustParsePrefix("ff00::/8"), d.pkt.Dst)
		if d.pkt.Src.String() == "::" && d.pkt.Protocol == ICMPv6 && local {
			return true
		}
	}
	for _, a := range w.Addrs {
		if a == d.pkt.Src {
			return true
		}
	}
	for _, n := range w.Spoofable {
		if d.p.Settings.AllowSpoofing && covers(n, d.pkt.Src) {
			return true
		}
	}
	return false
}

func (d *dumb) isCali(name string) bool {
	for _, prefix := range d.p.Settings.WorkloadPrefixes {
		if prefix != "" && len(name) >= len(prefix) && name[:len(prefix)] == prefix {
			return true
		}
	}
	return name != "" && d.pod(name) != nil
}

func (d *dumb) pod(name string) *Workload {
	for _, w := range d.p.Workloads {
		if w.Interface == name {
			return w
		}
	}
	return nil
}

func (d *dumb) named(name string) *Endpoint {
	for _, ep := range d.p.Endpoints {
		if name != "" && slices.Contains(ep.Interfaces, name) {
			return ep
		}
	}
	return nil
}

// either returns the endpoint that names an interface or else the one for all.
func (d *dumb) either(name string) *Endpoint {
	if ep := d.named(name); ep != nil {
		return ep
	}
	return d.named("*")
}

func (d *dumb) failsafe(dir Direction, replies bool) (int, bool) {
	in, out := d.p.Settings.FailsafeIngress, d.p.Settings.FailsafeEgress
	here, there, peer := in, out, d.pkt.Src
	if dir == Egress {
		here, there, peer = out, in, d.pkt.Dst
	}
	find := func(list []Failsafe, port uint16) (int, bool) {
		for i, f := range list {
			everyone := f.Net == netip.Prefix{}
			if f.Protocol == d.pkt.Protocol && f.Port == port && (everyone || covers(f.Net, peer)) {
				return i, true
			}
		}
		return 0, false
	}
	i, ok := find(here, d.pkt.DstPort)
	if !ok && replies {
		_, ok = find(there, d.pkt.SrcPort)
	}
	return i, ok
}

func (d *dumb) tier(tier Tier, dir Direction, endOfTier bool) (Verdict, bool) {
	var enforced []PolicyID
	for _, id := range tier.Policies {
		if !d.p.Policies[id].Staged {
			enforced = append(enforced, id)
		}
	}
	for _, id := range enforced {
		policy := d.p.Policies[id]
		rules := policy.Ingress
		if dir == Egress {
			rules = policy.Egress
		}
		for i, rule := range rules {
			if !d.matches(&rule, &d.pkt) || rule.Action == Log {
				continue
			}
			if rule.Action == Pass {
				return Verdict{}, false
			}
			return Verdict{Allowed: rule.Action == Allow, Reason: PolicyRule, Tier: tier.Name, Policy: id, Rule: i}, true
		}
	}
	return Verdict{Reason: EndOfTier, Tier: tier.Name}, len(enforced) > 0 && !tier.EndPass && endOfTier
}

func (d *dumb) profile(name string, dir Direction) (Verdict, bool) {
	profile, exists := d.p.Profiles[name]
	if !exists {
		return Verdict{Reason: ProfileMissing, Profile: name}, true
	}
	rules := profile.Ingress
	if dir == Egress {
		rules = profile.Egress
	}
	for i, rule := range rules {
		if rule.Action != Pass && rule.Action != Log && d.matches(&rule, &d.pkt) {
			return Verdict{Allowed: rule.Action == Allow, Reason: ProfileRule, Profile: name, Rule: i}, true
		}
	}
	return Verdict{}, false
}

func (d *dumb) matches(r *Rule, pkt *Packet) bool {
	four := len(pkt.Src.AsSlice()) == 4
	checks := []bool{
		r.Family == AnyFamily || r.Family == IPv4 && four || r.Family == IPv6 && !four,
		r.Protocol == 0 || r.Protocol == pkt.Protocol,
		r.NotProtocol == 0 || r.NotProtocol != pkt.Protocol,
		!r.ICMP.HasType || sameICMP(r.ICMP, pkt),
		!r.NotICMP.HasType || !sameICMP(r.NotICMP, pkt),
		d.entity(r.Source, pkt, pkt.Src, pkt.SrcPort),
		d.entity(r.Destination, pkt, pkt.Dst, pkt.DstPort),
	}
	return !slices.Contains(checks, false)
}

func sameICMP(m ICMPMatch, pkt *Packet) bool {
	own := ICMPv6
	if len(pkt.Src.AsSlice()) == 4 {
		own = ICMP
	}
	return pkt.Protocol == own && pkt.ICMPType == m.Type && (!m.HasCode || pkt.ICMPCode == m.Code)
}

func (d *dumb) entity(e Entity, pkt *Packet, addr netip.Addr, port uint16) bool {
	within := func(nets []netip.Prefix) bool {
		return slices.ContainsFunc(nets, func(n netip.Prefix) bool { return covers(n, addr) })
	}
	inSet := func(id SetID) bool {
		return slices.ContainsFunc(d.content(id), func(m Member) bool { return covers(m.Prefix, addr) })
	}
	inPorts := func(ports *Ports) bool {
		ranged := slices.ContainsFunc(ports.Ranges, func(r PortRange) bool { return port >= r.First && port <= r.Last })
		named := slices.ContainsFunc(ports.Named, func(id SetID) bool {
			return slices.ContainsFunc(d.content(id), func(m Member) bool {
				return covers(m.Prefix, addr) && m.Protocol == pkt.Protocol && m.Port == port
			})
		})
		return slices.Contains([]uint8{TCP, UDP, SCTP, UDPLite}, pkt.Protocol) && (ranged || named)
	}
	for _, id := range e.Sets {
		if !inSet(id) {
			return false
		}
	}
	for _, id := range e.NotSets {
		if inSet(id) {
			return false
		}
	}
	return (e.Nets == nil || within(e.Nets)) && !within(e.NotNets) &&
		(e.Ports == nil || inPorts(e.Ports)) && (e.NotPorts == nil || !inPorts(e.NotPorts))
}

func (d *dumb) content(id SetID) []Member {
	if d.p.Sets[id] == nil {
		return nil
	}
	return d.p.Sets[id].Members()
}

// covers compares the first bits of two addresses as text.
func covers(p netip.Prefix, a netip.Addr) bool {
	net, addr := p.Addr().AsSlice(), a.AsSlice()
	if len(net) != len(addr) {
		return false
	}
	return bytes.Equal(bits(net)[:p.Bits()], bits(addr)[:p.Bits()])
}

func bits(b []byte) []byte {
	var text []byte
	for _, x := range b {
		text = fmt.Appendf(text, "%08b", x)
	}
	return text
}
