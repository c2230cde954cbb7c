package nft

import (
	"maps"
	"net/netip"
	"slices"

	"margay/ruleset"
)

// An image is a Program with the table that enforces it, kept together through changes: the table is always what Compile
// makes of the Program.
type image struct {
	program *ruleset.Program // its Sets are empty, see members
	limits  limits
	members map[ruleset.SetID]*memberSet
	trends  map[ruleset.SetID]trend
	turned  map[ruleset.SetID]struct{} // became mixed, or ceased to be that, see follow
	owners  owners
	items   map[ruleset.PolicyID][]*item
	askers  map[ruleset.SetID]map[*item]struct{} // items that looked for a set
	units   map[unitKey]*unit
	users   map[string]*usage // of sets, by name
	serial  uint64            // of the last line
	table   *Table
	leaving bool // the table is about to be one without IPVS
}

// A unitKey names a unit: the base, or an endpoint in one direction.
type unitKey struct {
	base bool
	id   ruleset.EndpointID
	dir  ruleset.Direction
}

// String returns a text that is different for different keys.
func (k unitKey) String() string { return k.dir.String() + " " + k.id.String() }

// usage says how many rules name a set. The table holds the sets that a rule names.
type usage struct {
	rules int
	set   *Set
}

// newImage returns the image of p. It keeps nothing that p may change later.
func newImage(p *ruleset.Program, lim limits) *image {
	im := &image{
		program: ruleset.NewProgram(), limits: lim, members: map[ruleset.SetID]*memberSet{},
		trends: map[ruleset.SetID]trend{}, turned: map[ruleset.SetID]struct{}{},
		items: map[ruleset.PolicyID][]*item{}, askers: map[ruleset.SetID]map[*item]struct{}{},
		units: map[unitKey]*unit{}, users: map[string]*usage{}, table: NewTable(),
	}
	im.follow(&ruleset.Delta{Policies: p.Policies, Profiles: p.Profiles})
	im.program.Settings = p.Settings
	maps.Copy(im.program.Endpoints, p.Endpoints)
	maps.Copy(im.program.Workloads, p.Workloads)
	maps.Copy(im.program.Policies, p.Policies)
	maps.Copy(im.program.Profiles, p.Profiles)
	for id, set := range p.Sets {
		im.members[id] = im.newMembers(id, set)
	}
	t := im.touch()
	t.record = nil
	t.endpoints()
	t.keepNamedSets()
	return im
}

// nextSerial returns a number that no line has.
func (im *image) nextSerial() uint64 {
	im.serial++
	return im.serial
}

// keepItem remembers an item.
func (im *image) keepItem(it *item) {
	im.items[it.key.owner] = append(im.items[it.key.owner], it)
	for _, id := range it.sets {
		if im.askers[id] == nil {
			im.askers[id] = map[*item]struct{}{}
		}
		im.askers[id][it] = struct{}{}
	}
}

// dropItems forgets the items of an owner.
func (im *image) dropItems(owner ruleset.PolicyID) {
	for _, it := range im.items[owner] {
		it.stale = true
		for _, id := range it.sets {
			if delete(im.askers[id], it); len(im.askers[id]) == 0 {
				delete(im.askers, id)
			}
		}
	}
	delete(im.items, owner)
}

// dropAskers forgets the items that looked for a set.
func (im *image) dropAskers(id ruleset.SetID) {
	for it := range im.askers[id] {
		im.dropItems(it.key.owner)
	}
}

// apply changes Program and table and returns the changes of the table. The work for a delta of members alone depends on
// nothing but these members, unless a set outgrows a limit.
func (im *image) apply(d *ruleset.Delta) []Change {
	t := im.touch()
	clear(im.turned)
	im.follow(d)
	for id, set := range d.Sets {
		switch m := im.members[id]; {
		case m == nil || set == nil || set.New != nil:
			t.renew(id, set)
		case im.fixes(m, set):
			t.put(im.replaced(m, set))
		default:
			t.changeMembers(m, set)
		}
	}
	for id := range im.turned {
		if m := im.members[id]; m != nil && !hasKey(t.renewed, id) && m.fixed != im.trends[id].mixed() && m.size() <= im.limits.members {
			t.put(im.replaced(m, &ruleset.SetDelta{}))
		}
	}
	t.delta = *d
	t.delta.Sets = nil
	im.program.Apply(&t.delta)
	if d.Settings != nil {
		for owner := range im.items {
			im.dropItems(owner)
		}
	}
	for id := range d.Policies {
		im.dropItems(id)
	}
	for name := range d.Profiles {
		im.dropItems(profileID(name))
	}
	t.direct = len(t.renewed) == 0 && len(t.reweighed) == 0 && t.delta.Empty()
	if !t.direct || len(t.remapped) > 0 {
		t.endpoints()
	}
	t.keepNamedSets()
	return t.changes()
}

// A touch changes the table of an image and remembers how the things that it changes were before.
type touch struct {
	*image
	before  *Table              // nil for what was not there; without the sets in record
	record  record              // elements
	counted map[string]struct{} // sets that rules came to name, or ceased to
	renewed map[ruleset.SetID]struct{}
	// What makes units stale, beside their items: what the delta has, the weight of members, maps
	// that came to have elements or ceased to.
	delta     ruleset.Delta // without sets
	reweighed map[*item]struct{}
	remapped  map[*unit]struct{}
	// direct: only members of sets changed, so that elements may lead elsewhere at once, see moves.
	direct bool
}

func (im *image) touch() *touch {
	return &touch{image: im, before: NewTable(), record: record{}, counted: map[string]struct{}{},
		renewed: map[ruleset.SetID]struct{}{}, reweighed: map[*item]struct{}{}, remapped: map[*unit]struct{}{}}
}

// setChain puts a chain into the table in place of the one of its name, or takes that away.
func (t *touch) setChain(name string, c *Chain) {
	old := t.table.Chains[name]
	if old == c || old != nil && c != nil && old.equal(c) {
		return
	}
	if _, ok := t.before.Chains[name]; !ok {
		t.before.Chains[name] = old
	}
	if t.table.Chains[name] = c; c == nil {
		delete(t.table.Chains, name)
	} else {
		t.countSets(c, 1)
	}
	if old != nil {
		t.countSets(old, -1)
	}
}

// countSets adds to the number of rules that name sets.
func (t *touch) countSets(c *Chain, n int) {
	for _, r := range c.Rules {
		for _, s := range r.uses {
			u := t.users[s.Name]
			if u == nil {
				u = &usage{}
				t.users[s.Name] = u
			}
			if u.rules += n; n > 0 {
				u.set = s
			}
			t.counted[s.Name] = struct{}{}
		}
	}
}

func (t *touch) setSet(name string, s *Set) {
	if _, ok := t.before.Sets[name]; !ok {
		t.before.Sets[name] = t.table.Sets[name]
	}
	if t.table.Sets[name] = s; s == nil {
		delete(t.table.Sets, name)
	}
}

// changeMembers changes a set and all maps that its members are in.
func (t *touch) changeMembers(m *memberSet, d *ruleset.SetDelta) {
	weight := m.weight
	changed := m.change(d)
	for _, side := range []struct {
		set    *Set
		family ruleset.Family
	}{{m.v4, ruleset.IPv4}, {m.v6, ruleset.IPv6}} {
		gone, come := changed.changed(side.set)
		for e := range m.followers {
			if family := e.family(); (family == ruleset.AnyFamily || family == side.family) && len(gone)+len(come) > 0 {
				e.change(t, prefixesOf(gone), prefixesOf(come))
			}
		}
	}
	t.record.merge(changed)
	if m.reformed(t.limits.members) {
		t.put(t.newMembers(m.id, m.content()))
	} else if m.weight != weight {
		maps.Copy(t.reweighed, t.askers[m.id])
	}
}

// put puts a set in the place of the one of its name.
func (t *touch) put(m *memberSet) {
	t.renewed[m.id] = struct{}{}
	t.dropAskers(m.id)
	t.members[m.id] = m
}

func prefixesOf(elements []Element) []netip.Prefix {
	out := make([]netip.Prefix, len(elements))
	for i, e := range elements {
		out[i] = e.prefix()
	}
	return out
}

// renew puts a set in place of the one of its name, or takes that away.
func (t *touch) renew(id ruleset.SetID, d *ruleset.SetDelta) {
	if d != nil && d.New != nil {
		t.put(t.newMembers(id, d.New))
		return
	}
	t.renewed[id] = struct{}{}
	t.dropAskers(id)
	delete(t.members, id)
}

// endpoints brings the units in line with the Program: it makes those that are missing or stale and removes those whose
// endpoint owns no interface any more.
func (t *touch) endpoints() {
	t.owners = ownersOf(t.program)
	for _, dir := range []ruleset.Direction{ruleset.Ingress, ruleset.Egress} {
		for id, ep := range t.owners.endpoints() {
			if key := (unitKey{id: id, dir: dir}); t.stale(key) {
				t.build(key, func(b *builder) { b.host(ep, dir) })
			}
		}
		for _, w := range t.owners.guests() {
			if key := (unitKey{id: w.ID, dir: dir}); t.stale(key) {
				t.build(key, func(b *builder) { b.guest(w, dir) })
			}
		}
	}
	if key := (unitKey{base: true}); t.stale(key) {
		t.build(key, func(b *builder) { b.base(t.owners) })
	}
	active := t.owners.active()
	for key := range t.units {
		if !key.base && !active[key.id] {
			t.build(key, func(*builder) {})
			delete(t.units, key)
		}
	}
}

// stale reports whether a unit is missing or was made from something that is not so any more.
func (t *touch) stale(key unitKey) bool {
	u := t.units[key]
	if u == nil || t.delta.Settings != nil || hasKey(t.remapped, u) {
		return true
	}
	if key.base && len(t.delta.Endpoints)+len(t.delta.Workloads) > 0 {
		return true
	}
	return hasKey(t.delta.Endpoints, key.id) || hasKey(t.delta.Workloads, key.id) || slices.ContainsFunc(u.items, func(it *item) bool {
		return it.stale || len(t.reweighed) > 0 && hasKey(t.reweighed, it)
	})
}

func hasKey[K comparable, V any](m map[K]V, k K) bool {
	_, ok := m[k]
	return ok
}

// build makes a unit anew and puts it in the place of what it was.
func (t *touch) build(key unitKey, f func(*builder)) {
	u := t.units[key]
	if u == nil {
		u = &unit{sets: map[string]*Set{}, groups: map[string]*group{}, stages: map[string]*stageState{}}
		t.units[key] = u
	}
	b := &builder{touch: t, unit: u, home: key, settings: &t.program.Settings, chains: map[string]*Chain{},
		sets: map[string]bool{}, groups: map[string]bool{}, staged: map[string]bool{}, ends: map[endKey]*chunk{},
		tiers: map[tierKey]tierState{}}
	f(b)
	for name, s := range u.stages {
		if !b.staged[name] {
			s.shorten(b, 0)
			delete(u.stages, name)
		}
	}
	for name, g := range u.groups {
		if !b.groups[name] {
			g.dissolve()
			delete(u.groups, name)
		}
	}
	maps.DeleteFunc(u.sets, func(name string, _ *Set) bool { return !b.sets[name] })
	for name := range u.chains {
		if b.chains[name] == nil {
			t.setChain(name, nil)
		}
	}
	u.chains = map[string]struct{}{}
	for name, c := range b.chains {
		t.setChain(name, c)
		u.chains[name] = struct{}{}
	}
	u.items, u.ends, u.tiers = b.used, b.ends, b.tiers
}

// keepNamedSets puts the sets that rules name into the table and takes the others away.
func (t *touch) keepNamedSets() {
	for id := range t.renewed {
		if m := t.members[id]; m != nil {
			for _, s := range m.sets() {
				if u := t.users[s.Name]; u != nil && u.set != s {
					u.set = s
					t.counted[s.Name] = struct{}{}
				}
			}
		}
	}
	for name := range t.counted {
		switch u := t.users[name]; {
		case u.rules == 0:
			delete(t.users, name)
			if t.table.Sets[name] != nil {
				t.setSet(name, nil)
			}
		case t.table.Sets[name] == nil || t.table.Sets[name] != u.set && !u.set.Constant:
			t.setSet(name, u.set)
		}
	}
}

// changes returns what the touched things became.
func (t *touch) changes() []Change {
	d := &differ{
		had: func(name string) bool {
			if was, ok := t.before.Chains[name]; ok {
				return was != nil
			}
			return t.table.Chains[name] != nil
		},
		has: func(name string) bool { return t.table.Chains[name] != nil },
	}
	for name, was := range t.before.Chains {
		d.chain(was, t.table.Chains[name])
	}
	for name, was := range t.before.Sets {
		if was != nil {
			was = t.record.restore(was)
		}
		d.set(was, t.table.Sets[name])
	}
	atOnce := t.direct && !t.record.moves() || t.apart()
	for s := range t.record {
		if _, ok := t.before.Sets[s.Name]; ok || t.table.Sets[s.Name] != s {
			continue
		}
		if gone, come := t.record.changed(s); atOnce {
			d.replace(s, gone, come)
		} else {
			d.elements(s, gone, come)
		}
	}
	return d.sorted()
}
