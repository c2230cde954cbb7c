package nft

import (
	"fmt"
	"strings"

	"margay/ruleset"
)

// A trend counts the rules by which members of a set gain, and those by which they lose. While members come or go, a packet
// may ask for the set before that and again after it. If all rules have one trend, it gets the verdict of before or that of
// after. If not, it might be missed by the rule that is to deny it, and then be found by one that allows: see memberSet.fixed.
type trend struct{ gain, lose int }

func (t trend) mixed() bool { return t.gain > 0 && t.lose > 0 }

// follow counts the rules that a delta brings, and no more those that it takes away. It remembers sets that it makes mixed, or
// not mixed any more.
func (im *image) follow(d *ruleset.Delta) {
	for id, is := range d.Policies {
		if was := im.program.Policies[id]; was != nil {
			im.count(-1, was.Ingress, was.Egress)
		}
		if is != nil {
			im.count(1, is.Ingress, is.Egress)
		}
	}
	for name, is := range d.Profiles {
		if was := im.program.Profiles[name]; was != nil {
			im.count(-1, was.Ingress, was.Egress)
		}
		if is != nil {
			im.count(1, is.Ingress, is.Egress)
		}
	}
}

// count adds n for every set that rules ask for.
func (im *image) count(n int, lists ...[]ruleset.Rule) {
	for _, rules := range lists {
		for i := range rules {
			r := &rules[i]
			for _, e := range []*ruleset.Entity{&r.Source, &r.Destination} {
				im.lean(n, r.Action, e.Sets)
				im.lean(n, r.Action, named(e.Ports))
				im.lean(n, without(r.Action), e.NotSets)
				im.lean(n, without(r.Action), named(e.NotPorts))
			}
		}
	}
}

// without returns the action by which members gain or lose as by an action for what is not in the set.
func without(a ruleset.Action) ruleset.Action {
	switch a {
	case ruleset.Allow:
		return ruleset.Deny
	case ruleset.Deny:
		return ruleset.Allow
	}
	return a
}

func named(p *ruleset.Ports) []ruleset.SetID {
	if p == nil {
		return nil
	}
	return p.Named
}

// lean adds n for an action on the members of sets. What passing to the next tier leads to is not looked at.
func (im *image) lean(n int, a ruleset.Action, sets []ruleset.SetID) {
	for _, id := range sets {
		was := im.trends[id]
		is := was
		if a == ruleset.Allow || a == ruleset.Pass {
			is.gain += n
		}
		if a == ruleset.Deny || a == ruleset.Pass {
			is.lose += n
		}
		if im.trends[id] = is; is == (trend{}) {
			delete(im.trends, id)
		}
		if was.mixed() != is.mixed() {
			im.turned[id] = struct{}{}
		}
	}
}

// newMembers returns a set of the Program, fixed if that is mixed and has no more members than most.
func (im *image) newMembers(id ruleset.SetID, from *ruleset.Set) *memberSet {
	return newMemberSet(id, from, im.limits.members, im.trends[id].mixed())
}

// fixes reports whether a delta changes a set that is fixed, or becomes that.
func (im *image) fixes(m *memberSet, d *ruleset.SetDelta) bool {
	return m.fixed || im.trends[m.id].mixed() && m.size()-len(d.Remove) <= im.limits.members
}

// replaced returns a set with a delta applied, as another one.
func (im *image) replaced(m *memberSet, d *ruleset.SetDelta) *memberSet {
	from := m.content()
	for _, member := range d.Remove {
		from.Remove(member)
	}
	for _, member := range d.Add {
		from.Add(member)
	}
	return im.newMembers(m.id, from)
}

// size returns how many members there are.
func (m *memberSet) size() int {
	if m.kind == ruleset.AddrPorts {
		return m.v4.len() + m.v6.len()
	}
	return m.tree.Size()
}

// content returns the members.
func (m *memberSet) content() *ruleset.Set {
	from := ruleset.NewSet(m.kind, m.text)
	for p := range m.tree.All() {
		from.Add(ruleset.Member{Prefix: p})
	}
	if m.kind == ruleset.AddrPorts {
		for _, s := range m.sets() {
			for e := range s.elements {
				from.Add(addrPortMember(e))
			}
		}
	}
	return from
}

// fix makes the set fixed if it has no more members than most, and returns its ID, then another one for other members.
func (m *memberSet) fix(from *ruleset.Set, most int) ruleset.SetID {
	var text strings.Builder
	n := 0
	for _, member := range from.Members() {
		if m.usable(member) {
			fmt.Fprintln(&text, member.Prefix, member.Protocol, member.Port)
			n++
		}
	}
	if m.fixed = n <= most; !m.fixed {
		return m.id
	}
	return m.id + ruleset.SetID("\n"+text.String())
}
