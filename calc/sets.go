package calc

import (
	"crypto/sha256"
	"encoding/base64"
	"fmt"
	"maps"
	"slices"

	v3 "margay/api/v3"
	"margay/ruleset"
	"margay/selector"
)

// A setSpec says what a set holds: the addresses of what a selector selects or, with a port name, their ports of that
// name and, unless it is 0, protocol. Or the endpoints of a service, by address or by address, protocol and port. Or hosts.
type setSpec struct {
	sel      *selector.Selector
	port     string
	protocol uint8

	service   serviceKey
	withPorts bool

	hosts bool // the addresses of Nodes
}

// id returns the name of the set. It depends on the canonical selector only, so that rules share sets.
func (s setSpec) id() ruleset.SetID {
	if s.hosts {
		return ruleset.Hosts
	}
	if s.service != (serviceKey{}) {
		sum := sha256.Sum224(fmt.Appendf(nil, "%s\x00%v", s.service, s.withPorts))
		return ruleset.SetID("v:" + base64.RawURLEncoding.EncodeToString(sum[:]))
	}
	if s.port == "" {
		return ruleset.SetID(s.sel.ID())
	}
	sum := sha256.Sum224(fmt.Appendf(nil, "%s\x00%s\x00%d", s.sel, s.port, s.protocol))
	return ruleset.SetID("n:" + base64.RawURLEncoding.EncodeToString(sum[:]))
}

func (s setSpec) comment() string {
	switch {
	case s.hosts:
		return "hosts of the cluster"
	case s.withPorts:
		return "service " + s.service.String()
	case s.service != (serviceKey{}):
		return "addresses of service " + s.service.String()
	case s.port == "":
		return s.sel.String()
	}
	return fmt.Sprintf("port %s of %s", s.port, s.sel)
}

// A set is in use by the rules of active policies and profiles. Its members are counted by the items that give them, so
// that one that goes leaves what another one still gives.
type set struct {
	id       ruleset.SetID
	kind     ruleset.SetKind
	port     string
	protocol uint8
	comment  string
	term     *term[*set] // nil: of a service or of hosts
	service  serviceKey

	users   int // policies and profiles
	owners  map[ruleset.Member]int32
	told    bool
	dead    bool                    // gone from the index
	changed map[ruleset.Member]bool // members that are not as told; the value is what was told
}

// exchangeSets makes a user that used the sets old use what specs say, and returns that.
func (c *Calc) exchangeSets(old []*set, specs []setSpec) []*set {
	var now []*set
	for _, spec := range specs {
		s := c.set(spec)
		if !slices.Contains(now, s) {
			s.users++
			now = append(now, s)
		}
	}
	for _, s := range old {
		if s.users--; s.users == 0 {
			c.unusedSets[s] = struct{}{}
		}
	}
	return now
}

func (c *Calc) set(spec setSpec) *set {
	id := spec.id()
	s := c.sets[id]
	if s == nil {
		s = &set{
			id: id, port: spec.port, protocol: spec.protocol, comment: spec.comment(), service: spec.service,
			owners: map[ruleset.Member]int32{}, changed: map[ruleset.Member]bool{},
		}
		if spec.port != "" || spec.withPorts {
			s.kind = ruleset.AddrPorts
		}
		if spec.sel != nil {
			s.term = &term[*set]{sel: spec.sel, use: s}
		}
		c.sets[id] = s
		c.newSets[s] = struct{}{}
	}
	return s
}

// give counts what an item gives to the set.
func (s *set) give(it *item) { it.eachMember(s, s.giveMember) }

// take undoes give.
func (s *set) take(it *item) { it.eachMember(s, s.takeMember) }

// exchange takes what an item gave and gives what it gives now. What stays costs little: a set may hold a long list.
func (s *set) exchange(old, now *item) {
	if s.kind != ruleset.Addrs {
		s.give(now)
		s.take(old)
		return
	}
	rest := old.addrs
	for _, addr := range now.addrs {
		for len(rest) > 0 && comparePrefixes(rest[0], addr) < 0 {
			s.takeMember(ruleset.Member{Prefix: rest[0]})
			rest = rest[1:]
		}
		if len(rest) > 0 && rest[0] == addr {
			rest = rest[1:]
			continue
		}
		s.giveMember(ruleset.Member{Prefix: addr})
	}
	for _, addr := range rest {
		s.takeMember(ruleset.Member{Prefix: addr})
	}
}

func (s *set) giveMember(m ruleset.Member) {
	if s.owners[m]++; s.owners[m] == 1 {
		s.note(m, false)
	}
}

func (s *set) takeMember(m ruleset.Member) {
	if s.owners[m]--; s.owners[m] == 0 {
		delete(s.owners, m)
		s.note(m, true)
	}
}

// note remembers that a member came or went; before tells whether it was there. A new set is told as a whole.
func (s *set) note(m ruleset.Member, before bool) {
	if !s.told {
		return
	}
	if _, noted := s.changed[m]; noted {
		delete(s.changed, m) // it is again as it was told
	} else {
		s.changed[m] = before
	}
}

// delta returns the members that came and went since they were told, nil if there are none.
func (s *set) delta() *ruleset.SetDelta {
	if len(s.changed) == 0 {
		return nil
	}
	d := &ruleset.SetDelta{}
	for m, told := range s.changed {
		if told {
			d.Remove = append(d.Remove, m)
		} else {
			d.Add = append(d.Add, m)
		}
	}
	slices.SortFunc(d.Add, ruleset.Member.Compare)
	slices.SortFunc(d.Remove, ruleset.Member.Compare)
	clear(s.changed)
	return d
}

// flushSets tells the sets that came, went or changed.
func (c *Calc) flushSets(d *ruleset.Delta) {
	c.dropUnusedSets(d)
	c.fillNewSets()
	c.matchTouchedItems()
	c.matchChangedServices()
	drain(c.newSets, func(s *set) {
		s.told = true
		members := slices.AppendSeq(make([]ruleset.Member, 0, len(s.owners)), maps.Keys(s.owners))
		d.Sets[s.id] = &ruleset.SetDelta{New: ruleset.NewSet(s.kind, s.comment, members...)}
	})
	drain(c.changedSets, func(s *set) {
		if delta := s.delta(); delta != nil && !s.dead {
			d.Sets[s.id] = delta
		}
	})
}

// dropUnusedSets leaves dead sets with the items that were in them: going through those would take as long as filling them did.
func (c *Calc) dropUnusedSets(d *ruleset.Delta) {
	drain(c.unusedSets, func(s *set) {
		if s.users > 0 {
			return
		}
		delete(c.sets, s.id)
		delete(c.newSets, s)
		if !s.told {
			return
		}
		d.Sets[s.id] = nil
		if s.term != nil {
			c.setIndex.remove(s.term)
		}
		*s = set{dead: true}
	})
}

// fillNewSets matches new sets with all items, but for those that are matched with every set next.
func (c *Calc) fillNewSets() {
	var selecting []*set
	sure := map[*set]bool{}
	for s := range c.newSets {
		if s.term != nil {
			c.setIndex.add(s.term)
			selecting = append(selecting, s)
			if r, is := c.selectsHolders(s.term.sel); is {
				sure[s], s.owners = true, make(map[ruleset.Member]int32, c.countHolders(r)) // most have one address
			}
		}
	}
	c.eachCandidate(selecting, func(it *item, s *set) {
		if it.touched || len(it.addrs) == 0 || slices.Contains(it.sets, s) || !sure[s] && !s.term.sel.Matches(&it.labels) {
			return
		}
		it.sets = append(slices.DeleteFunc(it.sets, func(o *set) bool { return o.dead }), s)
		s.give(it)
	})
}

// matchTouchedItems takes from the sets what items gave them and gives what they give now.
func (c *Calc) matchTouchedItems() {
	for key, old := range c.touched {
		var left []*set // those that the item was in, and is not any more as far as is known
		if old != nil {
			left, old.sets = old.sets, nil
		}
		if it := c.items[key]; it != nil {
			left = c.matchItem(it, old, left)
		}
		for _, s := range left {
			if !s.dead {
				s.take(old)
				c.changedSets[s] = struct{}{}
			}
		}
	}
	c.touched = map[v3.Key]*item{}
}

// matchItem finds the sets of an item, which was old in the sets before, and returns those of them that it is not in.
func (c *Calc) matchItem(it, old *item, before []*set) []*set {
	it.touched = false
	if len(it.addrs) == 0 {
		return before
	}
	c.setIndex.match(&it.labels, func(s *set) {
		it.sets = append(it.sets, s)
		c.changedSets[s] = struct{}{}
		if i := slices.Index(before, s); i >= 0 {
			before = slices.Delete(before, i, i+1)
			s.exchange(old, it)
		} else {
			s.give(it)
		}
	})
	return before
}
