package ctl

import (
	"cmp"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"

	"margay/ruleset"
)

func (s service) compare(o service) int {
	return cmp.Or(cmp.Compare(s.protocol, o.protocol), compareBool(s.other, o.other), cmp.Compare(s.port, o.port))
}

func compareBool(a, b bool) int {
	switch {
	case a == b:
		return 0
	case b:
		return -1
	}
	return 1
}

// peersText names those of the ways' peers that are in the set.
func peersText(ways []way, in map[*peer]bool) string {
	var names, others []string
	anybody := false
	for i := range ways {
		p := ways[i].peer
		switch {
		case p.stranger:
			anybody = anybody || in[p]
		case in[p]:
			names = append(names, p.name)
		default:
			others = append(others, p.name)
		}
	}
	names, others = slices.Compact(names), slices.Compact(others)
	switch {
	case !anybody:
		return some(names)
	case len(others) > 0:
		return "everybody but " + some(others)
	}
	return "everybody"
}

// servicesText names services, those that no rule names by what they are not.
func (n *nodeSurvey) servicesText(turned []service) string {
	if len(turned) == len(n.services) {
		return "everything"
	}
	var parts []string
	for _, protocol := range []uint8{ruleset.TCP, ruleset.UDP} {
		if text := n.portsText(turned, protocol); text != "" {
			parts = append(parts, text)
		}
	}
	for _, s := range turned {
		switch {
		case s.protocol == ruleset.TCP || s.protocol == ruleset.UDP:
		case s.other:
			parts = append(parts, "other protocols")
		case s.port != 0:
			parts = append(parts, fmt.Sprintf("%s %d", ruleset.ProtocolText(s.protocol), s.port))
		default:
			parts = append(parts, ruleset.ProtocolText(s.protocol))
		}
	}
	return strings.Join(parts, "; ")
}

// portsText names the ports of one protocol.
func (n *nodeSurvey) portsText(turned []service, protocol uint8) string {
	var in, out []string
	all := false
	for _, s := range n.services {
		switch {
		case s.protocol != protocol:
		case !slices.Contains(turned, s) && !s.other:
			out = append(out, strconv.Itoa(int(s.port)))
		case slices.Contains(turned, s) && s.other:
			all = true
		case slices.Contains(turned, s):
			in = append(in, strconv.Itoa(int(s.port)))
		}
	}
	name := ruleset.ProtocolText(protocol)
	switch {
	case all && len(out) > 0:
		return name + " but " + somePorts(out)
	case all:
		return name
	case len(in) > 0:
		return name + " " + somePorts(in)
	}
	return ""
}

// somePorts lists more than some does: which ports is the question.
func somePorts(ports []string) string {
	const most = 20
	if len(ports) > most {
		return fmt.Sprintf("%s and %d more", strings.Join(ports[:most], ", "), len(ports)-most)
	}
	return strings.Join(ports, ", ")
}

// String returns - TCP 9091 from everybody (a rule of ...).
func (t *turn) String() string {
	sign, towards := "-", "from"
	if t.allowed {
		sign = "+"
	}
	if t.egress {
		towards = "to"
	}
	return fmt.Sprintf("%s %s %s %s, by %s", sign, t.services, towards, t.peers, t.by)
}

// write prints what turns round, ends with the same lines together: - is denied from now on, + is allowed.
func (s *survey) write(out io.Writer) {
	lines := map[string][]string{}
	var ends []string
	for i := range s.turns {
		t := &s.turns[i]
		if lines[t.at] == nil {
			ends = append(ends, t.at)
		}
		lines[t.at] = append(lines[t.at], "    "+t.String())
	}
	together := map[string][]string{}
	var texts []string
	for _, end := range ends {
		slices.SortFunc(lines[end], func(a, b string) int { return strings.Compare(b, a) })
		text := strings.Join(lines[end], "\n")
		if together[text] == nil {
			texts = append(texts, text)
		}
		together[text] = append(together[text], end)
	}
	switch {
	case s.nodes == 0:
		return
	case len(texts) == 0:
		fmt.Fprintln(out, "New connections: none that was allowed is denied, or the other way round")
	default:
		fmt.Fprintln(out, "New connections, - denied from then on, + allowed from then on:")
	}
	for _, text := range texts {
		fmt.Fprintf(out, "  %s\n%s\n", some(together[text]), text)
	}
	if ends := s.shells(); len(ends) > 0 {
		fmt.Fprintf(out, "  TCP 22 is ssh: do you still get in? (%s)\n", some(ends))
	}
	if s.looked < s.nodes {
		fmt.Fprintf(out, "  (%d of %d nodes were looked at, by name; explain -f FILE --with-store answers for others)\n", s.looked, s.nodes)
	}
	if s.partial {
		fmt.Fprintf(out, "  (not every port and peer was looked at: at most %d and %d at each node; explain answers for others)\n", surveyServices, surveyPeers)
	}
}

// shells returns the hosts whose port 22 is closed to somebody for whom it was open.
func (s *survey) shells() []string {
	var out []string
	for i := range s.turns {
		if s.turns[i].ssh {
			out = append(out, strings.TrimPrefix(s.turns[i].at, "ingress of "))
		}
	}
	return slices.Compact(out)
}
