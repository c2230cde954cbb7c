package calc

import (
	"slices"

	"margay/selector"
)

// holders are the items by the labels that they have of their own or by force: name, value, items. It is the other way
// round than an index of selectors: from a selector that is new to the items that it can match.
type holders map[string]map[string]map[*item]struct{}

func (h holders) add(it *item) {
	it.eachOwn(func(name, value string) {
		if h[name] == nil {
			h[name] = map[string]map[*item]struct{}{}
		}
		if h[name][value] == nil {
			h[name][value] = map[*item]struct{}{}
		}
		h[name][value][it] = struct{}{}
	})
}

func (h holders) remove(it *item) {
	it.eachOwn(func(name, value string) {
		delete(h[name][value], it)
		if len(h[name][value]) == 0 {
			delete(h[name], value)
		}
		if len(h[name]) == 0 {
			delete(h, name)
		}
	})
}

// givers are the profiles by the labels that they give: name, value, profiles.
type givers map[string]map[string]map[*profile]struct{}

func (g givers) add(p *profile) {
	for name, value := range p.labels {
		if g[name] == nil {
			g[name] = map[string]map[*profile]struct{}{}
		}
		if g[name][value] == nil {
			g[name][value] = map[*profile]struct{}{}
		}
		g[name][value][p] = struct{}{}
	}
}

// remove forgets a profile that had these labels.
func (g givers) remove(p *profile, labels map[string]string) {
	for name, value := range labels {
		delete(g[name][value], p)
		if len(g[name][value]) == 0 {
			delete(g[name], value)
		}
		if len(g[name]) == 0 {
			delete(g, name)
		}
	}
}

// eachCandidate calls f with every item that a set can select, some of them twice. It goes through all items, once, only
// when a selector can match without any label.
func (c *Calc) eachCandidate(sets []*set, f func(*item, *set)) {
	var unbound []*set
	for _, s := range sets {
		requirements, ok := s.term.sel.Rarest(c.countHolders)
		if !ok {
			unbound = append(unbound, s)
		}
		giving := c.markGivers(c.inherited(s.term.sel))
		for _, r := range requirements {
			c.eachHolder(r, func(it *item) {
				if giving == 0 || it.inherits(giving) {
					f(it, s)
				}
			})
		}
	}
	if len(unbound) == 0 {
		return
	}
	for _, it := range c.items {
		for _, s := range unbound {
			f(it, s)
		}
	}
}

// selectsHolders reports whether sel selects exactly the items that have a label of their own with some value, and which.
func (c *Calc) selectsHolders(sel *selector.Selector) (selector.Requirement, bool) {
	list, ok := sel.Requirements()
	if !ok || len(list) != 1 || !list[0].HasValue || c.givers[list[0].Label] != nil {
		return selector.Requirement{}, false
	}
	switch r := list[0]; r.Label {
	case labelNamespace, labelOrchestrator, labelServiceAccount: // forced on some
		return r, false
	default:
		return r, sel.String() == selector.Equal(r.Label, r.Value).String()
	}
}

// inherited returns requirements of which every item that sel selects meets one, and by its profiles; nil if there are none.
// Profiles are few, so asking them is cheap, which an item's own labels are not when there are many items.
func (c *Calc) inherited(sel *selector.Selector) []selector.Requirement {
	list, ok := sel.Rarest(func(r selector.Requirement) int {
		if c.holders[r.Label] == nil {
			return 0
		}
		return 1
	})
	if !ok || slices.ContainsFunc(list, func(r selector.Requirement) bool { return c.holders[r.Label] != nil }) {
		return nil
	}
	return list
}

// markGivers marks the profiles that meet one of some requirements and returns the mark; 0: there are no requirements.
func (c *Calc) markGivers(any []selector.Requirement) (mark uint64) {
	if any == nil {
		return 0
	}
	c.marks++
	for _, r := range any {
		forValues(c.givers[r.Label], r, func(profiles map[*profile]struct{}) {
			for p := range profiles {
				p.mark = c.marks
			}
		})
	}
	return c.marks
}

// inherits reports whether a profile of the item has the mark.
func (it *item) inherits(mark uint64) bool {
	for _, p := range it.parents {
		if p.mark == mark {
			return true
		}
	}
	return false
}

// eachHolder calls f with the items that meet a requirement, by a label of their own or of a profile.
func (c *Calc) eachHolder(r selector.Requirement, f func(*item)) {
	forValues(c.holders[r.Label], r, func(items map[*item]struct{}) {
		for it := range items {
			f(it)
		}
	})
	forValues(c.givers[r.Label], r, func(profiles map[*profile]struct{}) {
		for p := range profiles {
			for it := range p.heirs {
				f(it)
			}
		}
	})
}

// countHolders returns how often eachHolder calls its function.
func (c *Calc) countHolders(r selector.Requirement) int {
	n := 0
	forValues(c.holders[r.Label], r, func(items map[*item]struct{}) { n += len(items) })
	forValues(c.givers[r.Label], r, func(profiles map[*profile]struct{}) {
		for p := range profiles {
			n += len(p.heirs)
		}
	})
	return n
}

// forValues calls f with what there is for the value of a requirement, or for every value.
func forValues[T any](byValue map[string]T, r selector.Requirement, f func(T)) {
	if r.HasValue {
		f(byValue[r.Value])
		return
	}
	for _, all := range byValue {
		f(all)
	}
}
