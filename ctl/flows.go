package ctl

import (
	"context"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"time"

	v3 "margay/api/v3"
	"margay/ruleset"
	"margay/store"
)

// Bounds of a survey. What is beyond them is said not to have been looked at.
const (
	surveyTime      = 3 * time.Second
	surveyPeers     = 64
	surveyServices  = 256
	protocolUnknown = 253 // for experiments (RFC 3692): it stands for those that no rule names
)

// A survey asks two worlds, one with a change and one without, about new connections at every endpoint: of each port that
// rules or failsafes name and one that none does, with a peer out of everything that rules tell apart (network sets, networks
// in rules, endpoints) and one that nothing knows. Verdicts are those of the evaluator.
type survey struct {
	was, is *world
	keys    map[v3.Key]bool // of what changes
	others  [2][]peer       // without those that rules name: of what changes, and of all else
	until   time.Time
	nodes   int  // with endpoints
	looked  int  // how many of them were looked at
	partial bool // not at every port and peer
	turns   []turn
}

// A turn is what a change turns round at one end of connections.
type turn struct {
	at       string // ingress of HostEndpoint(web-1)
	egress   bool
	allowed  bool // now; it was not, or the other way round
	by       string
	services string
	peers    string
	ssh      bool // port 22 of a host is among what is denied now
}

// A peer is the other end of connections; place nil: it is no endpoint. stranger: it stands for all that nothing knows.
type peer struct {
	name     string
	addr     netip.Addr
	place    *place
	stranger bool
}

// A service is what connections are for; other: it stands for all ports of the protocol, or protocols, that nothing names.
type service struct {
	protocol uint8
	port     uint16
	other    bool
}

// foresee prints what a dry run would do to connections; calicoctl says nothing of the kind.
func (c *cli) foresee(ctx context.Context, w *writer) {
	if w.mode != store.DryRun || c.silent() {
		return
	}
	s, err := c.survey(ctx, w)
	if err != nil {
		c.warning("what becomes of connections is not known: %v", err)
		return
	}
	s.write(c.env.Stderr)
}

// survey compares what is stored with what would be after the writer's changes.
func (c *cli) survey(ctx context.Context, w *writer) (*survey, error) {
	stored, err := w.list(ctx, "", v3.AgentKinds()...)
	if err != nil {
		return nil, err
	}
	s := &survey{was: newWorld(c.env.Settings), is: newWorld(c.env.Settings), keys: map[v3.Key]bool{}}
	for _, r := range stored.Items {
		s.was.put(r)
		s.is.put(r)
	}
	for _, change := range w.changes {
		switch {
		case change.err != nil || change.state == stateUnchanged:
		case change.state == stateDeleted:
			delete(s.is.resources, change.key)
		case change.result != nil:
			s.is.put(change.result)
		}
		s.keys[change.key] = true
	}
	for _, world := range []*world{s.was, s.is} {
		if err := world.complete(); err != nil {
			return nil, err
		}
	}
	s.until = time.Now().Add(surveyTime)
	s.run(ctx)
	return s, nil
}

// run goes through all endpoints that are or were, node by node.
func (s *survey) run(ctx context.Context) {
	byNode := map[string][]*place{}
	seen := map[ruleset.EndpointID]bool{}
	for _, world := range []*world{s.is, s.was} {
		for i := range world.places {
			if p := &world.places[i]; p.node != "" && !seen[p.id] {
				seen[p.id] = true
				byNode[p.node] = append(byNode[p.node], p)
			}
		}
	}
	s.nodes = len(byNode)
	s.findOthers()
	for _, node := range slices.Sorted(maps.Keys(byNode)) {
		if s.late(ctx) {
			return
		}
		s.looked++
		n := s.node(node)
		if n == nil {
			continue
		}
		for _, p := range byNode[node] {
			for _, d := range []ruleset.Direction{ruleset.Ingress, ruleset.Egress} {
				n.compare(ctx, p, d)
			}
		}
	}
}

// late reports whether there is no time left.
func (s *survey) late(ctx context.Context) bool {
	return ctx.Err() != nil || time.Now().After(s.until)
}

// A nodeSurvey is what is asked on one node.
type nodeSurvey struct {
	*survey
	name     string
	was, is  *ruleset.Program
	peers    []peer
	services []service
}

// node returns what to ask on a node; nil if its rules stay what they are.
func (s *survey) node(name string) *nodeSurvey {
	c := s.was.calculated(name)
	n := &nodeSurvey{survey: s, name: name, was: ruleset.NewProgram()}
	n.was.Apply(c.Flush())
	for key := range s.keys {
		c.Update(key, s.is.resources[key])
	}
	c.SetSettings(s.is.nodeSettings(name))
	now := s.is.interfaces(name)
	for iface := range s.was.interfaces(name) {
		if now[iface] == nil {
			c.RemoveInterface(iface)
		}
	}
	for iface, addrs := range now {
		c.SetInterface(iface, addrs)
	}
	delta := c.Flush()
	if delta.Empty() {
		return nil
	}
	n.is = n.was.Clone()
	n.is.Apply(delta)
	s.was.programs[name], s.is.programs[name] = n.was, n.is
	n.findServices()
	n.findPeers()
	return n
}

// rules calls f for the rules of both programs, those of what changes first.
func (n *nodeSurvey) rules(f func(*ruleset.Rule)) {
	for _, changed := range []bool{true, false} {
		for _, p := range []*ruleset.Program{n.is, n.was} {
			for _, id := range slices.SortedFunc(maps.Keys(p.Policies), ruleset.PolicyID.Compare) {
				if policy := p.Policies[id]; n.keys[keyOf(ruleset.EndpointID(id))] == changed && !policy.Staged {
					each(policy.Ingress, f)
					each(policy.Egress, f)
				}
			}
			for _, name := range slices.Sorted(maps.Keys(p.Profiles)) {
				if !changed {
					each(p.Profiles[name].Ingress, f)
					each(p.Profiles[name].Egress, f)
				}
			}
		}
	}
}

func each(rules []ruleset.Rule, f func(*ruleset.Rule)) {
	for i := range rules {
		f(&rules[i])
	}
}

// findServices collects the ports that somebody names, and for each protocol one that nobody does.
func (n *nodeSurvey) findServices() {
	named := map[service]bool{}
	add := func(protocol uint8, port uint16) {
		s := service{protocol: protocol, port: port}
		if !named[s] && len(named) < surveyServices {
			named[s] = true
		} else if !named[s] {
			n.partial = true
		}
	}
	add(ruleset.TCP, 22)
	for _, p := range []*ruleset.Program{n.was, n.is} {
		for _, f := range slices.Concat(p.Settings.FailsafeIngress, p.Settings.FailsafeEgress) {
			add(f.Protocol, f.Port)
		}
	}
	n.rules(func(r *ruleset.Rule) {
		for _, ports := range []*ruleset.Ports{r.Destination.Ports, r.Destination.NotPorts} {
			for _, m := range n.portsOf(ports, r.Protocol) {
				add(m.protocol, m.port)
			}
		}
		if r.Protocol != 0 && !ruleset.HasPorts(r.Protocol) {
			add(r.Protocol, 0)
		}
	})
	for _, protocol := range []uint8{ruleset.TCP, ruleset.UDP} {
		port := uint16(54321)
		for named[service{protocol: protocol, port: port}] {
			port--
		}
		n.services = append(n.services, service{protocol, port, true})
	}
	delete(named, service{protocol: ruleset.ICMPv6})
	delete(named, service{protocol: ruleset.ICMP})
	n.services = append(n.services, service{protocol: ruleset.ICMP}, service{protocol: protocolUnknown, other: true})
	n.services = append(n.services, slices.Collect(maps.Keys(named))...)
	slices.SortFunc(n.services, service.compare)
}

// portsOf returns the ends of ranges, and the ports behind names, for the protocols that a rule is for.
func (n *nodeSurvey) portsOf(ports *ruleset.Ports, protocol uint8) []service {
	if ports == nil {
		return nil
	}
	protocols := []uint8{protocol}
	if protocol == 0 {
		protocols = []uint8{ruleset.TCP, ruleset.UDP}
	}
	var out []service
	for _, r := range ports.Ranges {
		for _, protocol := range protocols {
			out = append(out, service{protocol: protocol, port: r.First}, service{protocol: protocol, port: r.Last})
		}
	}
	for _, id := range ports.Named {
		if set := n.is.Sets[id]; set != nil {
			for _, m := range set.Members() {
				out = append(out, service{protocol: m.Protocol, port: m.Port})
			}
		}
	}
	return out
}

// findPeers collects whom rules tell apart.
func (n *nodeSurvey) findPeers() {
	seen := map[netip.Addr]bool{}
	add := func(p peer) {
		switch {
		case !p.addr.IsValid() || seen[p.addr]:
		case len(n.peers) >= surveyPeers:
			n.partial = true
		default:
			seen[p.addr] = true
			n.peers = append(n.peers, p)
		}
	}
	for _, family := range [][]string{{"203.0.113.77", "198.51.100.77", "100.127.77.77", "240.0.0.77"}, {"3fff:77::77", "2001:db8:77::77", "100::77"}} {
		add(peer{addr: n.stranger(family), stranger: true})
	}
	for _, p := range n.others[0] {
		add(p)
	}
	for _, net := range slices.Concat(n.is.Settings.ServiceNets, n.was.Settings.ServiceNets) {
		if slices.Contains(n.is.Settings.ServiceNets, net) != slices.Contains(n.was.Settings.ServiceNets, net) {
			add(peer{name: net.String(), addr: net.Addr()})
		}
	}
	n.rulePeers(add)
	for _, p := range n.others[1] {
		add(p)
	}
}

// findOthers collects network sets and endpoints.
func (s *survey) findOthers() {
	for _, world := range []*world{s.is, s.was} {
		for _, key := range slices.SortedFunc(maps.Keys(world.resources), compareKeys) {
			s.addSet(key, world.resources[key])
		}
	}
	for _, world := range []*world{s.is, s.was} {
		for i := range world.places {
			p := &world.places[i]
			for _, a := range p.addrs {
				s.addOther(s.keys[keyOf(p.id)], peer{name: p.id.String(), addr: a, place: p})
			}
		}
	}
}

func (s *survey) addOther(changed bool, p peer) {
	if changed {
		s.others[0] = append(s.others[0], p)
	} else if len(s.others[1]) <= 2*surveyPeers { // more are not looked at
		s.others[1] = append(s.others[1], p)
	}
}

// addSet adds an address of a network set, one of every network if it is among what changes.
func (s *survey) addSet(key v3.Key, r v3.Resource) {
	var nets []string
	switch r := r.(type) {
	case *v3.GlobalNetworkSet:
		nets = r.Spec.Nets
	case *v3.NetworkSet:
		nets = r.Spec.Nets
	}
	switch {
	case s.keys[key]:
		for _, net := range nets {
			s.addOther(true, peer{name: net, addr: firstOf(net)})
		}
	case len(nets) > 0:
		s.addOther(false, peer{name: key.String(), addr: firstOf(nets[0])})
	}
}

// rulePeers adds an address of every network that rules name.
func (n *nodeSurvey) rulePeers(add func(peer)) {
	n.rules(func(r *ruleset.Rule) {
		for _, net := range netsOf(r) {
			add(peer{name: net.String(), addr: net.Addr()})
		}
	})
}

// netsOf returns the networks that a rule names, but for those that hold everything.
func netsOf(r *ruleset.Rule) []netip.Prefix {
	nets := slices.Concat(r.Source.Nets, r.Source.NotNets, r.Destination.Nets, r.Destination.NotNets)
	return slices.DeleteFunc(nets, func(net netip.Prefix) bool { return net.Bits() == 0 })
}

// stranger returns the first address that nothing in the rules of either program holds.
func (n *nodeSurvey) stranger(candidates []string) netip.Addr {
	for _, text := range candidates {
		a := netip.MustParseAddr(text)
		known := false
		for _, p := range []*ruleset.Program{n.was, n.is} {
			for _, set := range p.Sets {
				known = known || set.Kind == ruleset.Addrs && set.Contains(a)
			}
		}
		n.rules(func(r *ruleset.Rule) {
			for _, net := range netsOf(r) {
				known = known || net.Contains(a)
			}
		})
		if !known {
			return a
		}
	}
	return netip.Addr{}
}

// firstOf returns the first address of a network.
func firstOf(net string) netip.Addr {
	if addrs := addrsOf([]string{net}); len(addrs) > 0 {
		return addrs[0]
	}
	return netip.Addr{}
}

// A way is a peer, and the packet without what it is for.
type way struct {
	peer   *peer
	packet ruleset.Packet
}

// ways returns how connections of an endpoint get through its node.
func (n *nodeSurvey) ways(p *place, d ruleset.Direction) []way {
	var out []way
	in := n.survey.is
	if in.resources[keyOf(p.id)] == nil {
		in = n.survey.was
	}
	for i := range n.peers {
		other := &n.peers[i]
		own := n.ownAddress(p, other.addr)
		if !own.IsValid() || own == other.addr || other.place != nil && other.place.node == p.node && !other.place.workload() {
			continue
		}
		here := end{addr: own, place: p, node: p.node}
		there := end{addr: other.addr}
		if other.place != nil && other.place.node == p.node {
			there.place, there.node = other.place, p.node
		}
		q := &question{node: n.name, from: there, to: here}
		if d == ruleset.Egress {
			q.from, q.to = here, there
		}
		q.packet = ruleset.Packet{Src: q.from.addr, Dst: q.to.addr, SrcPort: 49152}
		hops, err := in.hops(q)
		if err != nil || len(hops) == 0 {
			continue
		}
		out = append(out, way{other, hops[len(hops)-1].packet})
	}
	return out
}

// ownAddress returns an address of the endpoint in the family of another one. Of host endpoints that name none it is any.
func (n *nodeSurvey) ownAddress(p *place, like netip.Addr) netip.Addr {
	for _, a := range p.addrs {
		if a.Is4() == like.Is4() {
			return a
		}
	}
	if len(p.addrs) == 0 && !p.workload() && like.Is4() {
		return netip.MustParseAddr("192.0.2.177")
	}
	return netip.Addr{}
}

// packet returns the packet of a service on its way.
func (s service) packet(p ruleset.Packet) ruleset.Packet {
	p.Protocol, p.DstPort = s.protocol, s.port
	if s.protocol == ruleset.ICMP {
		p.ICMPType = 8
		if p.Src.Is6() {
			p.Protocol, p.ICMPType = ruleset.ICMPv6, 128
		}
	}
	if !ruleset.HasPorts(s.protocol) {
		p.SrcPort = 0
	}
	return p
}

// A cause is what verdicts that turn have in common.
type cause struct {
	allowed bool
	by      string
	peers   string
}

// compare asks both programs about the endpoint's connections in one direction.
func (n *nodeSurvey) compare(ctx context.Context, p *place, d ruleset.Direction) {
	ways := n.ways(p, d)
	turned := map[cause][]service{}
	for _, s := range n.services {
		if n.late(ctx) {
			n.partial = true
			return
		}
		for c, peers := range n.turned(s, ways) {
			c.peers = peersText(ways, peers)
			turned[c] = append(turned[c], s)
		}
	}
	for c, services := range turned {
		n.turns = append(n.turns, turn{
			at: d.String() + " of " + p.id.String(), egress: d == ruleset.Egress, allowed: c.allowed, by: c.by,
			services: n.servicesText(services), peers: c.peers,
			ssh: !c.allowed && d == ruleset.Ingress && !p.workload() && slices.Contains(services, service{protocol: ruleset.TCP, port: 22}),
		})
	}
}

// turned returns for which peers a service turns round, by its cause.
func (n *nodeSurvey) turned(s service, ways []way) map[cause]map[*peer]bool {
	out := map[cause]map[*peer]bool{}
	for i := range ways {
		pkt := s.packet(ways[i].packet)
		was, is := ruleset.Eval(n.was, &pkt), ruleset.Eval(n.is, &pkt)
		if was.Allowed == is.Allowed {
			continue
		}
		c := cause{allowed: is.Allowed, by: shortBy(n.is, &is)}
		if out[c] == nil {
			out[c] = map[*peer]bool{}
		}
		out[c][ways[i].peer] = true
	}
	return out
}

// shortBy names what decided, without its text.
func shortBy(p *ruleset.Program, v *ruleset.Verdict) string {
	switch v.Reason {
	case ruleset.PolicyRule:
		return "a rule of " + v.Policy.String()
	case ruleset.ServiceLoop:
		return "serviceLoopPrevention, unless a service has the address and port"
	}
	text, _, _ := strings.Cut(byText(p, v), ":")
	return text
}
