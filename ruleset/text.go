package ruleset

import (
	"fmt"
	"net/netip"
	"strconv"
	"strings"
)

// maxListed is how many of many addresses or ports a text names.
const maxListed = 6

// RuleText puts a rule in words, for people: Deny TCP from !(a == "b") to port 9091. Sets are called by their comments,
// which are selectors. Long lists are cut.
func (p *Program) RuleText(r *Rule) string {
	words := []string{r.Action.String()}
	add := func(format string, args ...any) { words = append(words, fmt.Sprintf(format, args...)) }
	if r.Family != AnyFamily && r.Protocol != ICMP && r.Protocol != ICMPv6 {
		add("IPv%d", r.Family)
	}
	if r.Protocol != 0 {
		add("%s", ProtocolText(r.Protocol))
	}
	if r.NotProtocol != 0 {
		add("!%s", ProtocolText(r.NotProtocol))
	}
	if r.ICMP.HasType {
		add("%s", r.ICMP)
	}
	if r.NotICMP.HasType {
		add("!(%s)", r.NotICMP)
	}
	if from := p.entityText(&r.Source); from != "" {
		add("from %s", from)
	}
	if to := p.entityText(&r.Destination); to != "" {
		add("to %s", to)
	}
	return strings.Join(words, " ")
}

// String returns "type 8" or "type 3 code 1".
func (m ICMPMatch) String() string {
	if m.HasCode {
		return fmt.Sprintf("type %d code %d", m.Type, m.Code)
	}
	return fmt.Sprintf("type %d", m.Type)
}

// ProtocolText returns the name of a protocol as policies spell it, or its number.
func ProtocolText(n uint8) string {
	switch n {
	case ICMP:
		return "ICMP"
	case TCP:
		return "TCP"
	case UDP:
		return "UDP"
	case ICMPv6:
		return "ICMPv6"
	case SCTP:
		return "SCTP"
	case UDPLite:
		return "UDPLite"
	}
	return "protocol " + strconv.Itoa(int(n))
}

func (p *Program) entityText(e *Entity) string {
	var words []string
	switch {
	case e.Nets != nil && len(e.Nets) == 0:
		words = append(words, "nothing")
	case e.Nets != nil:
		words = append(words, netsText(e.Nets))
	}
	if len(e.NotNets) > 0 {
		words = append(words, "!("+netsText(e.NotNets)+")")
	}
	for _, id := range e.Sets {
		words = append(words, p.SetText(id))
	}
	for _, id := range e.NotSets {
		words = append(words, "!("+p.SetText(id)+")")
	}
	if e.Ports != nil {
		words = append(words, p.portsText(e.Ports))
	}
	if e.NotPorts != nil {
		words = append(words, "!("+p.portsText(e.NotPorts)+")")
	}
	return strings.Join(words, " ")
}

// SetText returns what a set stands for.
func (p *Program) SetText(id SetID) string {
	if set := p.Sets[id]; set != nil && set.Comment != "" {
		return set.Comment
	}
	return "set " + string(id)
}

func netsText(nets []netip.Prefix) string {
	var texts []string
	for _, n := range nets {
		texts = append(texts, n.String())
	}
	return listed(texts, ",")
}

func (p *Program) portsText(ports *Ports) string {
	var numbers, parts []string
	for _, r := range ports.Ranges {
		if r.First == r.Last {
			numbers = append(numbers, strconv.Itoa(int(r.First)))
		} else {
			numbers = append(numbers, fmt.Sprintf("%d:%d", r.First, r.Last))
		}
	}
	if len(numbers) > 0 {
		parts = append(parts, "port "+listed(numbers, ","))
	}
	for _, id := range ports.Named {
		parts = append(parts, p.SetText(id))
	}
	if len(parts) == 0 {
		return "no port"
	}
	return listed(parts, " or ")
}

// listed joins texts, the first few of many.
func listed(texts []string, separator string) string {
	if len(texts) <= maxListed {
		return strings.Join(texts, separator)
	}
	return fmt.Sprintf("%s and %d more", strings.Join(texts[:maxListed], separator), len(texts)-maxListed)
}
