package ctl

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"

	v3 "margay/api/v3"
	"margay/ruleset"
)

// A question is what explain answers.
type question struct {
	packet   ruleset.Packet // but for its interfaces
	from, to end
	node     string // the only one to look at; "" for all concerned
	in, out  string // interfaces that were given
	assumed  []string
}

// An end is where the packet comes from or goes to.
type end struct {
	given string
	addr  netip.Addr
	place *place // nil: no endpoint
	node  string // of the place, or the node whose own address it is; "" unknown
}

// host reports whether a process of the node itself is at this end.
func (e *end) host() bool { return e.node != "" && (e.place == nil || !e.place.workload()) }

func (q *question) assume(format string, args ...any) {
	if text := fmt.Sprintf(format, args...); !slices.Contains(q.assumed, text) {
		q.assumed = append(q.assumed, text)
	}
}

// question finds out what the flags mean.
func (w *world) question(f *explainFlags) (*question, error) {
	q := &question{node: f.node, in: f.in, out: f.out}
	if err := w.knows(f.node); err != nil {
		return nil, err
	}
	given, err := parseAddrs(f.addresses)
	if err != nil {
		return nil, err
	}
	from, err := w.candidates("--from", f.from, given)
	if err != nil {
		return nil, err
	}
	to, err := w.candidates("--to", f.to, given)
	if err != nil {
		return nil, err
	}
	for _, a := range from {
		for _, b := range to {
			if a.addr.Is4() != b.addr.Is4() {
				continue
			}
			q.from, q.to = w.locate(q, a), w.locate(q, b)
			q.packet, err = f.packet(a.addr, b.addr)
			return q, err
		}
	}
	return nil, fmt.Errorf("%s and %s have no address of the same IP version", f.from, f.to)
}

// knows returns an error for a node that nothing names: an answer about it would be that nothing is filtered there.
func (w *world) knows(node string) error {
	nodes := w.nodes()
	if node == "" || slices.Contains(nodes, node) {
		return nil
	}
	hint := "known is " + some(nodes)
	if meant := v3.Nearest(node, slices.Values(nodes)); meant != "" {
		hint = "did you mean " + meant + "?"
	}
	if len(nodes) == 0 {
		hint = "no node is known at all"
	}
	if w.live {
		return fmt.Errorf("--node %q is not the node of the agent that was asked, %s (leave out --live to look at other nodes)", node, some(nodes))
	}
	return fmt.Errorf("--node %q is not known: no Node, HostEndpoint or WorkloadEndpoint names it (%s)", node, hint)
}

func parseAddrs(texts []string) ([]netip.Addr, error) {
	var out []netip.Addr
	for _, text := range texts {
		a, err := netip.ParseAddr(text)
		if err != nil {
			return nil, fmt.Errorf("--address %q is not an IP address", text)
		}
		out = append(out, a.Unmap())
	}
	return out, nil
}

// candidates returns what an end may be: the address itself, or an endpoint with each of its addresses, those of --address
// alone if there are any.
func (w *world) candidates(flag, text string, given []netip.Addr) ([]end, error) {
	if a, err := netip.ParseAddr(text); err == nil {
		return []end{{given: text, addr: a.Unmap().WithZone("")}}, nil
	}
	found := w.named(text)
	switch {
	case len(found) == 0 && w.live:
		return nil, fmt.Errorf("%s %q is neither an IP address nor the name of an endpoint of this host%s; the agent knows no others by name: give their addresses", flag, text, w.suggest(text))
	case len(found) == 0:
		return nil, fmt.Errorf("%s %q is neither an IP address nor the name of an endpoint%s", flag, text, w.suggest(text))
	case len(found) > 1:
		var names []string
		for _, p := range found {
			names = append(names, p.id.String())
		}
		return nil, fmt.Errorf("%s %q may be any of %s (say which one, written like this)", flag, text, some(names))
	}
	p := found[0]
	var out []end
	for _, a := range p.addrs {
		if !slices.ContainsFunc(given, func(g netip.Addr) bool { return slices.Contains(p.addrs, g) }) || slices.Contains(given, a) {
			out = append(out, end{given: text, addr: a, place: p, node: p.node})
		}
	}
	for _, a := range given {
		// A host endpoint need not list what its interface has.
		if len(p.addrs) == 0 || !p.workload() && !slices.ContainsFunc(p.addrs, func(own netip.Addr) bool { return own.Is4() == a.Is4() }) {
			out = append(out, end{given: text, addr: a, place: p, node: p.node})
		}
	}
	if len(out) == 0 {
		return nil, fmt.Errorf("%s: %s names no address of its own, so rules do not know it by address (say which address it has with --address)", flag, p.id)
	}
	return out, nil
}

// suggest names endpoints whose names are like the text.
func (w *world) suggest(text string) string {
	var names []string
	for i := range w.places {
		name := w.places[i].id.Name
		if strings.Contains(name, text) || v3.Nearest(text, slices.Values([]string{name})) != "" {
			names = append(names, name)
		}
	}
	if len(names) == 0 {
		return ""
	}
	return " (did you mean " + some(names) + "?)"
}

// locate finds whose address it is.
func (w *world) locate(q *question, e end) end {
	if e.place != nil {
		return e
	}
	places := w.at(e.addr)
	for i, p := range places {
		if i == 0 || q.node != "" && p.node == q.node && e.node != q.node {
			e.place, e.node = p, p.node
		}
	}
	if len(places) > 1 {
		var names []string
		for _, p := range places {
			names = append(names, p.id.String())
		}
		q.assume("%s is an address of %s; %s is the one looked at", e.addr, some(names), e.place.id)
	}
	if e.place == nil {
		e.node = w.nodeAddrs[e.addr]
	}
	return e
}

// A hop is the packet on its way through one node.
type hop struct {
	node   string
	packet ruleset.Packet
}

// hops returns the way of the packet: through the node where it begins, then the one where it ends.
func (w *world) hops(q *question) ([]hop, error) {
	var list []hop
	from, to := &q.from, &q.to
	add := func(node, in, out string) {
		if q.node != "" && q.node != node {
			return
		}
		pkt := q.packet
		pkt.In, pkt.Out = in, out
		pkt = w.program(node).ByBridge(pkt)
		list = append(list, hop{node, pkt})
	}
	switch {
	case from.node != "" && from.node == to.node && from.host() && to.host():
		q.assume("what a host sends to its own address goes out and comes in by lo")
		add(from.node, "", "lo")
		add(from.node, "lo", "")
	case from.node != "" && from.node == to.node:
		add(from.node, w.own(from), w.own(to))
	default:
		if from.node != "" {
			add(from.node, w.own(from), w.outside(q, from, q.out, "--out"))
		}
		if to.node != "" {
			add(to.node, w.outside(q, to, q.in, "--in"), w.own(to))
		}
	}
	if len(list) == 0 && q.node != "" && q.in+q.out != "" {
		q.assume("%s", passing(q))
		add(q.node, q.in, q.out)
	}
	switch {
	case len(list) > 0:
		return list, nil
	case q.node != "":
		return nil, fmt.Errorf("neither %s nor %s is an address of node %s (name the interfaces of its way with --in and --out)", from.addr, to.addr, q.node)
	}
	return nil, fmt.Errorf("neither %s nor %s is the address of an endpoint or a node: no policy of Margay is on the way "+
		"(to ask what a host does with it, name the host with --node and the interface with --in)", from.addr, to.addr)
}

// passing says what the interfaces that were given mean on a node that has neither end.
func passing(q *question) string {
	switch {
	case q.out == "":
		return fmt.Sprintf("%s is an address of node %s itself, as no --out is given", q.to.addr, q.node)
	case q.in == "":
		return fmt.Sprintf("%s is an address of node %s itself, as no --in is given", q.from.addr, q.node)
	}
	return fmt.Sprintf("node %s forwards the packet", q.node)
}

// own returns the interface at which an end is on its node: a workload's, or "" for a process of the node.
func (w *world) own(e *end) string {
	if e.host() {
		return ""
	}
	return e.place.iface
}

// outside returns the interface between an end's node and the network.
func (w *world) outside(q *question, e *end, given, flag string) string {
	p := w.program(e.node)
	if given != "" {
		return given
	}
	if e.place != nil && !e.place.workload() {
		return w.ofEndpoint(q, e.place, p, flag)
	}
	var names []string
	for _, ep := range p.Endpoints {
		names = append(names, ep.Interfaces...)
	}
	names = slices.DeleteFunc(names, func(n string) bool { return n == ruleset.AllInterfaces })
	slices.Sort(names)
	if len(names) == 0 {
		return otherInterface
	}
	if len(names) > 1 {
		q.assume("packets between node %s and the network take interface %s, not %s (name another with %s)", e.node, names[0], some(names[1:]), flag)
	} else {
		q.assume("packets between node %s and the network take interface %s (name another with %s)", e.node, names[0], flag)
	}
	return names[0]
}

// ofEndpoint returns the interface of a host endpoint.
func (w *world) ofEndpoint(q *question, at *place, p *ruleset.Program, flag string) string {
	var names []string
	if ep := p.Endpoints[at.id]; ep != nil {
		names = ep.Interfaces
	}
	switch {
	case len(names) == 0:
		q.assume("%s has no interface of its own on node %s (see the warnings), so another endpoint's policies count, if any", at.id, at.node)
		return at.iface
	case names[0] == ruleset.AllInterfaces:
		q.assume("the packet takes an interface of node %s that no host endpoint names (name another with %s)", at.node, flag)
		return otherInterface
	case len(names) > 1:
		q.assume("of the interfaces of %s (%s) the packet takes %s (name another with %s)", at.id, some(names), names[0], flag)
	case names[0] == assumedInterface(at.id.Name):
		q.assume("%s is found on node %s by its address; the packet takes that interface", at.id, at.node)
	case at.iface == "":
		q.assume("%s is found on node %s by its address, on interface %s", at.id, at.node, names[0])
	}
	return names[0]
}
