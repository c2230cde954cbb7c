package ctl

import (
	"fmt"
	"io"
	"strings"

	"margay/ruleset"
)

// A printer writes lines and keeps the first error.
type printer struct {
	w   io.Writer
	err error
}

func (p *printer) line(indent int, format string, args ...any) {
	if p.err == nil {
		_, p.err = fmt.Fprintf(p.w, strings.Repeat(" ", indent)+format+"\n", args...)
	}
}

func (p *printer) free() { p.line(0, "") }

func verdictWord(allowed bool) string {
	if allowed {
		return "ALLOWED"
	}
	return "DENIED"
}

// write prints the answer first, then the way; with allRules also the rules that were looked at and do not match.
func (e *explanation) write(w io.Writer, allRules bool) error {
	p := &printer{w: w}
	e.answer(p)
	p.free()
	p.line(0, "Packet  %s, the first of its flow", e.Packet.text())
	p.line(0, "From    %s", e.From.text())
	p.line(0, "To      %s", e.To.text())
	for i := range e.Hops {
		h := &e.Hops[i]
		p.free()
		h.write(p, allRules)
		if h.NearMiss != nil && h.Verdict.Allowed != e.Allowed {
			p.line(2, "%s", h.NearMiss.Text)
		}
	}
	for _, part := range []struct {
		title string
		lines []string
	}{{"Assumed:", e.Assumptions}, {"Warnings:", e.Warnings}} {
		if len(part.lines) == 0 {
			continue
		}
		p.free()
		p.line(0, "%s", part.title)
		for _, text := range part.lines {
			p.line(2, "%s", text)
		}
	}
	return p.err
}

// answer prints the verdict, and for each node that has a say what decided there. A denial is the fault of the nodes that
// deny: what others allow is not repeated.
func (e *explanation) answer(p *printer) {
	p.line(0, "%s", verdictWord(e.Allowed))
	for i := range e.Hops {
		h := &e.Hops[i]
		if h.Verdict.Allowed != e.Allowed {
			continue
		}
		p.line(2, "on node %s%s", h.Node, h.Verdict.place())
		p.line(4, "by %s", h.Verdict.By)
		switch {
		case h.NearMiss != nil:
			p.line(4, "%s", h.NearMiss.Text)
		case h.Verdict.Tier != "":
			p.line(4, "no single change of a label, of the port or of the order of policies would turn that round")
		}
	}
	if e.Pending == nil {
		return
	}
	if *e.Pending == e.Allowed {
		p.line(2, "The staged policies would not change that.")
		return
	}
	p.line(2, "With the staged policies in force: %s", verdictWord(*e.Pending))
	for i := range e.Hops {
		if h := &e.Hops[i]; h.Pending != nil && h.Pending.Allowed == *e.Pending && h.Verdict.Allowed != h.Pending.Allowed {
			p.line(4, "on node %s%s by %s", h.Node, h.Pending.place(), h.Pending.By)
		}
	}
}

// place says where a verdict was reached, or nothing.
func (v *verdictReport) place() string {
	if v.Endpoint == "" {
		return ""
	}
	return ", at the " + stageText(v.Stage, v.Direction, v.Endpoint)
}

// short is By without the text of a rule, for where that has been seen.
func (v *verdictReport) short() string {
	switch {
	case v.Policy != "":
		return fmt.Sprintf("rule %d of %s", *v.Rule, v.Policy)
	case v.Profile != "" && v.Rule != nil:
		return fmt.Sprintf("rule %d of profile %s", *v.Rule, v.Profile)
	}
	return v.By
}

// stageText names a stage: the normal one is what everybody means who names none.
func stageText(stage, direction, endpoint string) string {
	text := direction
	if stage != "normal" {
		text = stage + " " + text
	}
	if endpoint == "" {
		return text
	}
	return text + " of " + endpoint
}

func (r *packetReport) text() string {
	if r.ICMPType != nil {
		return fmt.Sprintf("%s type %d code %d, %s to %s", r.Protocol, *r.ICMPType, *r.ICMPCode, r.Source, r.Destination)
	}
	if r.DestinationPort == 0 {
		return fmt.Sprintf("%s, %s to %s", r.Protocol, r.Source, r.Destination)
	}
	return fmt.Sprintf("%s, %s port %d to %s port %d", r.Protocol, r.Source, r.SourcePort, r.Destination, r.DestinationPort)
}

func (r *endReport) text() string {
	text := r.Address + ", "
	if len(r.NetworkSets) > 0 {
		text += "in " + some(r.NetworkSets) + ", "
	}
	switch {
	case r.Endpoint != "":
		text += r.Endpoint + " on node " + r.Node
	case r.Node != "":
		text += "an address of node " + r.Node + " that no endpoint has"
	default:
		text += "no endpoint: nothing is enforced at this end"
	}
	return text
}

func (h *hopReport) write(p *printer, allRules bool) {
	way := ""
	switch {
	case h.In == "":
		way = "sent by a process, leaves by " + h.Out
	case h.Out == "":
		way = "comes in by " + h.In + ", to a process"
	default:
		way = "comes in by " + h.In + ", leaves by " + h.Out
	}
	p.line(0, "Node %s: %s", h.Node, way)
	for i := range h.Stages {
		h.Stages[i].write(p, allRules)
	}
	p.line(2, "%s by %s", verdictWord(h.Verdict.Allowed), h.Verdict.short())
	if h.Pending != nil && h.Pending.By != h.Verdict.By {
		p.line(2, "with the staged policies in force: %s by %s", verdictWord(h.Pending.Allowed), h.Pending.By)
	}
}

func (s *stageReport) write(p *printer, allRules bool) {
	if s.Endpoint == "" {
		return // nothing is looked at but what the verdict names
	}
	p.line(2, "%s", stageText(s.Stage, s.Direction, s.Endpoint))
	if s.Failsafes && (s.Verdict == nil || s.Verdict.Reason != ruleset.FailsafePort.String()) {
		p.line(4, "failsafe ports: it is none of them")
	}
	for i := range s.Tiers {
		s.Tiers[i].write(p, allRules)
	}
	if len(s.Tiers)+len(s.Profiles) == 0 && (s.Verdict == nil || s.Verdict.Reason == ruleset.NoPolicy.String()) {
		p.line(4, "no policy: passes on")
	}
	for i := range s.Profiles {
		s.Profiles[i].write(p, 4, "profile "+s.Profiles[i].Name, allRules)
	}
}

func (t *tierReport) write(p *printer, allRules bool) {
	if len(t.Policies) == 0 {
		p.line(4, "tier %s: not reached", t.Name)
	} else {
		p.line(4, "tier %s", t.Name)
	}
	for i := range t.Policies {
		name := t.Policies[i].Name
		if t.Policies[i].Staged {
			name += ", staged"
		}
		t.Policies[i].write(p, 6, name, allRules)
	}
	if len(t.NotReached) > 0 {
		p.line(6, "not reached: %s", some(t.NotReached))
	}
	if t.Passed {
		p.line(6, "passes on")
	}
}

func (r *policyReport) write(p *printer, indent int, name string, allRules bool) {
	matches := 0
	for _, rule := range r.Rules {
		if rule.Matches {
			matches++
		}
	}
	switch {
	case len(r.Rules) == 0:
		p.line(indent, "%s: has no rules for this direction", name)
	case matches == 0:
		p.line(indent, "%s: none of %s matches", name, count(len(r.Rules), "rule"))
	default:
		p.line(indent, "%s", name)
	}
	for _, rule := range r.Rules {
		switch {
		case rule.Decides && r.Staged:
			p.line(indent+2, "rule %d  %s  <- would decide", rule.Index, rule.Text)
		case rule.Decides:
			p.line(indent+2, "rule %d  %s  <- decides", rule.Index, rule.Text)
		case rule.Matches:
			p.line(indent+2, "rule %d  %s  <- matches, goes on", rule.Index, rule.Text)
		case allRules:
			p.line(indent+2, "rule %d  %s", rule.Index, rule.Text)
		}
	}
}

// count says how many there are.
func count(n int, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return fmt.Sprintf("%d %ss", n, what)
}
