package calc

import (
	"fmt"
	"net/netip"
	"slices"

	v3 "margay/api/v3"
	"margay/ruleset"
	"margay/selector"
)

// A compiler turns the rules of one policy or profile into those of a Program. It collects the sets that they use.
//
// Nothing that it cannot express widens what is allowed (the zero value denies): an Allow or Log rule that it does not
// fully understand matches nothing, a Deny rule matches as if the field in doubt were not there, and so does a Pass rule,
// which becomes Deny, for skipping it could reach an Allow below it. Stored values are checked before they come here, so
// this is the second line of defence.
type compiler struct {
	namespace string // of a NetworkPolicy
	blind     bool   // it is in doubt what the policy applies to, so no rule may allow
	parsed    parsed // what other policies have, too; nil: nothing is shared

	specs    []setSpec
	services []serviceKey
	warnings []string

	// Of the rule at hand.
	dir    ruleset.Direction
	path   string
	action ruleset.Action
	doubt  bool // a field could not be compiled
	never  bool // a list is empty, so nothing matches
}

// rules returns the compiled rules of a direction, one for each.
func (k *compiler) rules(path string, list []v3.Rule, dir ruleset.Direction) []ruleset.Rule {
	k.dir = dir
	compiled := slices.Grow([]ruleset.Rule(nil), len(list))
	for i := range list {
		k.path = fmt.Sprintf("%s[%d]", path, i)
		compiled = append(compiled, k.rule(&list[i]))
	}
	return compiled
}

func (k *compiler) rule(r *v3.Rule) ruleset.Rule {
	k.doubt, k.never = k.blind, false
	k.action = k.actionOf(r.Action)
	for _, field := range r.Unknown {
		k.fault(field, "the field is not known to this release")
	}
	out := ruleset.Rule{
		Action: k.action, Protocol: k.protocol("protocol", r.Protocol), NotProtocol: k.protocol("notProtocol", r.NotProtocol),
		ICMP: k.icmp("icmp", r.ICMP), NotICMP: k.icmp("notICMP", r.NotICMP),
	}
	specs := len(k.specs)
	out.Source = k.entity("source", &r.Source, out.Protocol)
	out.Destination = k.entity("destination", &r.Destination, out.Protocol)
	out.Family = k.family(r, &out)
	if r.Metadata != nil {
		out.Annotations = r.Metadata.Annotations
	}
	if r.HTTP != nil {
		k.warn("http", "is not enforced by the kernel: the rule matches whatever the request")
	}
	switch {
	case k.doubt && k.action == ruleset.Pass:
		out.Action = ruleset.Deny
	case k.never && k.action != ruleset.Deny, k.doubt && k.action != ruleset.Deny:
		k.specs = k.specs[:specs]
		return ruleset.Rule{Action: k.action, Source: ruleset.Entity{Nets: []netip.Prefix{}}, Annotations: out.Annotations}
	}
	return out
}

func (k *compiler) warn(field, text string) {
	k.warnings = append(k.warnings, fmt.Sprintf("%s.%s: %s", k.path, field, text))
}

// fault says that a field cannot be compiled.
func (k *compiler) fault(field, reason string) {
	k.doubt = true
	k.warn(field, fmt.Sprintf("%s; %s", reason, k.consequence()))
}

// empty says that a list has no entry, which is not the same as no list.
func (k *compiler) empty(field string) {
	k.never = true
	k.warn(field, "the list is empty; "+k.consequence()+" (remove the field if every value is meant)")
}

func (k *compiler) consequence() string {
	switch {
	case k.action == ruleset.Deny:
		return "the rule denies as if the field were not there"
	case k.action == ruleset.Pass && k.doubt:
		return "the rule denies instead of passing, as if the field were not there"
	}
	return "the rule matches nothing"
}

func (k *compiler) actionOf(text string) ruleset.Action {
	for _, a := range []ruleset.Action{ruleset.Allow, ruleset.Deny, ruleset.Pass, ruleset.Log} {
		if a.String() == text {
			return a
		}
	}
	k.warn("action", fmt.Sprintf("%q is unknown; the rule denies", text))
	return ruleset.Deny
}

func (k *compiler) protocol(field string, p *v3.Protocol) uint8 {
	if p == nil {
		return 0
	}
	n, ok := p.Number()
	if !ok {
		k.fault(field, fmt.Sprintf("%q is no protocol", *p))
		return 0
	}
	return n
}

func (k *compiler) icmp(field string, m *v3.ICMPFields) ruleset.ICMPMatch {
	if m == nil || m.Type == nil && m.Code == nil {
		return ruleset.ICMPMatch{}
	}
	inByte := func(n *int) bool { return n == nil || *n >= 0 && *n <= 255 }
	if m.Type == nil || !inByte(m.Type) || !inByte(m.Code) {
		k.fault(field, "a type from 0 to 254 is needed, a code is from 0 to 255")
		return ruleset.ICMPMatch{}
	}
	out := ruleset.ICMPMatch{HasType: true, Type: uint8(*m.Type)}
	if m.Code != nil {
		out.HasCode, out.Code = true, uint8(*m.Code)
	}
	return out
}

// family returns the only IP version in which the rule can match, if there is just one: ipVersion says so, or the
// protocol, or a list of nets that are all of one version. A negated list of the other version excludes nothing
// there.
func (k *compiler) family(r *v3.Rule, out *ruleset.Rule) ruleset.Family {
	if r.IPVersion != nil {
		if v := *r.IPVersion; v == 4 || v == 6 {
			return ruleset.Family(v)
		}
		k.fault("ipVersion", fmt.Sprintf("%d is neither 4 nor 6", *r.IPVersion))
	}
	switch out.Protocol {
	case ruleset.ICMP:
		return ruleset.IPv4
	case ruleset.ICMPv6:
		return ruleset.IPv6
	}
	for _, nets := range [][]netip.Prefix{out.Source.Nets, out.Destination.Nets} {
		if f := familyOf(nets); f != ruleset.AnyFamily {
			return f
		}
	}
	return ruleset.AnyFamily
}

func familyOf(nets []netip.Prefix) ruleset.Family {
	var only ruleset.Family
	for i, n := range nets {
		f := ruleset.FamilyOf(n.Addr())
		if i > 0 && f != only {
			return ruleset.AnyFamily
		}
		only = f
	}
	return only
}

func (k *compiler) entity(field string, e *v3.EntityRule, protocol uint8) ruleset.Entity {
	positive, negative := k.selectors(field, e)
	out := ruleset.Entity{
		Nets: k.nets(field, ".nets", e.Nets), NotNets: k.nets(field, ".notNets", e.NotNets),
		Ports:    k.ports(field, ".ports", portsOf{e.Ports, positive, protocol}),
		NotPorts: k.ports(field, ".notPorts", portsOf{e.NotPorts, positive, protocol}),
	}
	if e.Nets != nil && len(e.Nets) == 0 {
		k.empty(field + ".nets")
	}
	if e.Ports != nil && len(e.Ports) == 0 {
		k.empty(field + ".ports")
	}
	if e.Services != nil {
		k.service(field, e, &out)
	}
	if positive != nil {
		out.Sets = append(out.Sets, k.use(setSpec{sel: positive}))
	}
	if negative != nil {
		out.NotSets = []ruleset.SetID{k.use(setSpec{sel: negative})}
	}
	return out
}

// service adds the endpoints of a service: as a source of ingress their addresses, as a destination of egress what they
// answer on. That is behind the service's own address: rules see a packet after its destination was translated.
func (k *compiler) service(field string, e *v3.EntityRule, out *ruleset.Entity) {
	key := serviceKey{e.Services.Namespace, e.Services.Name}
	if key.namespace == "" {
		key.namespace = k.namespace
	}
	source, field := field == "source", field+".services"
	switch {
	case key.name == "" || key.namespace == "":
		k.fault(field, "a service needs a name and, but in a NetworkPolicy, a namespace")
	case source != (k.dir == ruleset.Ingress):
		k.fault(field, "a service can be the source of ingress and the destination of egress only")
	case !source && (e.Ports != nil || e.NotPorts != nil):
		k.fault(field, "a service has its own ports, so there can be no others")
	case source:
		k.services = append(k.services, key)
		out.Sets = append(out.Sets, k.use(setSpec{service: key}))
	default:
		k.services = append(k.services, key)
		out.Ports = &ruleset.Ports{Named: []ruleset.SetID{k.use(setSpec{service: key, withPorts: true})}}
	}
}

func (k *compiler) use(spec setSpec) ruleset.SetID {
	k.specs = append(k.specs, spec)
	return spec.id()
}

// nets returns nil for no list and for one that is empty or does not parse.
func (k *compiler) nets(field, list string, texts []string) []netip.Prefix {
	var nets []netip.Prefix
	for i, text := range texts {
		p, ok := parsePrefix(text)
		if !ok {
			k.fault(fmt.Sprintf("%s%s[%d]", field, list, i), fmt.Sprintf("%q is no network", text))
			return nil
		}
		nets = append(nets, p)
	}
	return nets
}

// portsOf are ports in a rule. Named ones are those of what the rule's positive selector selects, nil: of everything.
type portsOf struct {
	list     []v3.Port
	sel      *selector.Selector
	protocol uint8
}

// ports returns nil for no list and for one that is empty or faulty.
func (k *compiler) ports(field, name string, of portsOf) *ruleset.Ports {
	if len(of.list) == 0 {
		return nil
	}
	out := &ruleset.Ports{}
	for i, p := range of.list {
		switch {
		case p.Name != "":
			if of.sel == nil {
				of.sel = selector.All()
			}
			out.Named = append(out.Named, k.use(setSpec{sel: of.sel, port: p.Name, protocol: of.protocol}))
		case p.First == 0 || p.First > p.Last:
			k.fault(fmt.Sprintf("%s%s[%d]", field, name, i), fmt.Sprintf("%q is no port", p))
			return nil
		default:
			out.Ranges = append(out.Ranges, ruleset.PortRange{First: p.First, Last: p.Last})
		}
	}
	return out
}

// selectors returns what the address must be selected by and must not be selected by; nil: no matter.
//
// In a NetworkPolicy any selector limits the rule to the policy's own namespace, notSelector included, unless
// namespaceSelector says which namespaces are meant. There all() means what is in any namespace and global() what is in
// none.
func (k *compiler) selectors(field string, e *v3.EntityRule) (positive, negative *selector.Selector) {
	var parts []*selector.Selector
	accounts, hasAccounts := k.serviceAccounts(field, e.ServiceAccounts)
	scoped := e.Selector != "" || e.NotSelector != "" || hasAccounts
	switch {
	case e.NamespaceSelector != "":
		parts = append(parts, k.namespaces(field, e.NamespaceSelector)...)
	case k.namespace != "" && scoped:
		parts = append(parts, selector.Equal(labelNamespace, k.namespace))
	}
	parts = append(parts, accounts...)
	if sel := k.parse(field, ".selector", e.Selector); sel != nil {
		parts = append(parts, sel)
		if sel.IsAll() && len(parts) == 1 {
			k.warn(field+".selector", "all() matches the addresses of known endpoints and network sets only (remove it to match every address)")
		}
	}
	if len(parts) > 0 {
		if positive = selector.And(parts...); positive == nil {
			k.fault(field, "what it selects cannot be written as a selector")
		}
	}
	return positive, k.parse(field, ".notSelector", e.NotSelector)
}

// parse returns nil for no text and for one that does not parse.
func (k *compiler) parse(field, name, text string) *selector.Selector {
	if text == "" {
		return nil
	}
	sel, err := k.parsed.parse(text)
	if err != nil {
		k.fault(field+name, err.Error())
		return nil
	}
	return sel
}

// parsed are selectors by their text. Thousands of rules have a few hundred: so they are parsed, and kept, once.
type parsed map[string]*selector.Selector

func (p parsed) parse(text string) (*selector.Selector, error) {
	if sel := p[text]; sel != nil {
		return sel, nil
	}
	sel, err := selector.Parse(text)
	if p != nil && err == nil {
		p[text] = sel
	}
	return sel, err
}

func (k *compiler) namespaces(field, text string) []*selector.Selector {
	field += ".namespaceSelector"
	sel := k.parse(field, "", text)
	switch {
	case sel == nil:
		return nil
	case sel.IsGlobal():
		return []*selector.Selector{selector.Not(selector.Has(labelNamespace))}
	case sel.HasGlobal():
		k.fault(field, "global() cannot be combined with other selectors")
		return nil
	}
	return []*selector.Selector{sel.WithPrefix(namespacePrefix).WithAll(selector.Has(labelNamespace))}
}

// serviceAccounts returns the selectors of names and selector, and whether there is either.
func (k *compiler) serviceAccounts(field string, m *v3.ServiceAccountMatch) (parts []*selector.Selector, any bool) {
	if m == nil {
		return nil, false
	}
	field += ".serviceAccounts"
	if sel := k.parse(field, ".selector", m.Selector); sel != nil {
		parts = append(parts, sel.WithPrefix(serviceAccountPrefix))
	}
	switch names := selector.In(labelServiceAccount, m.Names...); {
	case m.Names == nil:
	case len(m.Names) == 0:
		k.empty(field + ".names")
	case names == nil:
		k.fault(field+".names", "a name holds quotes")
	default:
		parts = append(parts, names)
	}
	return parts, m.Selector != "" || m.Names != nil
}
