package nft

import (
	"maps"
	"slices"

	"margay/ruleset"
)

// An image is a Program with the table that enforces it, kept together through changes: the table is always what Compile
// makes of the Program.
type image struct {
	program *ruleset.Program // its Sets are empty, see members
	members map[ruleset.SetID]*memberSet
	owners  owners
	units   map[unitKey]*unit
	users   map[string]int // units that have a set
	table   *Table
}

// A unitKey names a unit: the base, or an endpoint in one direction.
type unitKey struct {
	base bool
	id   ruleset.EndpointID
	dir  ruleset.Direction
}

// newImage returns the image of p. It keeps nothing that p may change later.
func newImage(p *ruleset.Program) *image {
	im := &image{
		program: ruleset.NewProgram(), members: map[ruleset.SetID]*memberSet{}, units: map[unitKey]*unit{},
		users: map[string]int{}, table: NewTable(),
	}
	im.program.Settings = p.Settings
	maps.Copy(im.program.Endpoints, p.Endpoints)
	maps.Copy(im.program.Workloads, p.Workloads)
	maps.Copy(im.program.Policies, p.Policies)
	maps.Copy(im.program.Profiles, p.Profiles)
	t := im.touch()
	for id, set := range p.Sets {
		t.newMembers(id, set)
	}
	t.endpoints(func(unitKey) bool { return true })
	return im
}

func (im *image) kind(id ruleset.SetID) (ruleset.SetKind, bool) {
	m, ok := im.members[id]
	if !ok {
		return 0, false
	}
	return m.kindOf, true
}

// apply changes Program and table and returns the changes of the table. The work for a delta of members alone depends on
// nothing but these members.
func (im *image) apply(d *ruleset.Delta) []Change {
	t := im.touch()
	var changes []Change
	renewed := map[ruleset.SetID]bool{}
	for id, set := range d.Sets {
		if m := im.members[id]; m != nil && set != nil && set.New == nil {
			changes = append(changes, m.change(set)...)
			continue
		}
		renewed[id] = true
		t.dropMembers(id)
		if set != nil && set.New != nil {
			t.newMembers(id, set.New)
		}
	}
	rest := *d
	rest.Sets = nil
	im.program.Apply(&rest)
	if len(renewed) > 0 || !rest.Empty() {
		t.endpoints(func(key unitKey) bool {
			return d.Settings != nil || hasKey(d.Endpoints, key.id) || hasKey(d.Workloads, key.id) ||
				key.base && len(d.Endpoints)+len(d.Workloads) > 0 || im.units[key].uses(d, renewed)
		})
	}
	changes = append(changes, t.changes()...)
	sortChanges(changes)
	return changes
}

func hasKey[K comparable, V any](m map[K]V, k K) bool {
	_, ok := m[k]
	return ok
}

// uses reports whether the unit was made from something that the delta changes.
func (u *unit) uses(d *ruleset.Delta, sets map[ruleset.SetID]bool) bool {
	return u == nil || intersects(u.policies, d.Policies) || intersects(u.profiles, d.Profiles) || intersects(u.members, sets)
}

func intersects[K comparable, V, W any](a map[K]V, b map[K]W) bool {
	for k := range b {
		if hasKey(a, k) {
			return true
		}
	}
	return false
}

// A touch changes the table of an image and remembers how the things that it changes were before.
type touch struct {
	*image
	before *Table // nil for what was not there
}

func (im *image) touch() *touch { return &touch{im, NewTable()} }

func (t *touch) setChain(name string, c *Chain) {
	if _, ok := t.before.Chains[name]; !ok {
		t.before.Chains[name] = t.table.Chains[name]
	}
	if t.table.Chains[name] = c; c == nil {
		delete(t.table.Chains, name)
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

func (t *touch) newMembers(id ruleset.SetID, from *ruleset.Set) {
	m := newMemberSet(id, from)
	t.members[id] = m
	t.setSet(m.v4.Name, m.v4)
	t.setSet(m.v6.Name, m.v6)
}

func (t *touch) dropMembers(id ruleset.SetID) {
	if m := t.members[id]; m != nil {
		t.setSet(m.v4.Name, nil)
		t.setSet(m.v6.Name, nil)
		delete(t.members, id)
	}
}

// endpoints brings the units in line with the Program: it makes those that are missing or stale and removes those whose
// endpoint owns no interface any more.
func (t *touch) endpoints(stale func(unitKey) bool) {
	t.owners = ownersOf(t.program)
	made := map[unitKey]*unit{}
	build := func(key unitKey, f func(*builder)) {
		if t.units[key] == nil || stale(key) {
			b := t.builder(key)
			f(b)
			made[key] = b.unit
		}
	}
	for _, dir := range []ruleset.Direction{ruleset.Ingress, ruleset.Egress} {
		for id, ep := range t.owners.endpoints() {
			build(unitKey{id: id, dir: dir}, func(b *builder) { b.host(ep, dir) })
		}
		for _, w := range t.owners.workloads {
			build(unitKey{id: w.ID, dir: dir}, func(b *builder) { b.guest(w, dir) })
		}
	}
	build(unitKey{base: true}, func(b *builder) { b.base(t.owners) })
	active := t.owners.active()
	var gone []*unit
	for key, u := range t.units {
		if !key.base && !active[key.id] || made[key] != nil {
			gone = append(gone, u)
			delete(t.units, key)
		}
	}
	for key, u := range made {
		t.units[key] = u
	}
	t.replace(gone, slices.Collect(maps.Values(made)))
}

// replace takes the chains and sets of some units out of the table and puts those of others in.
func (t *touch) replace(gone, made []*unit) {
	for _, u := range gone {
		for _, c := range u.chains {
			t.setChain(c.Name, nil)
		}
	}
	for _, u := range made {
		for _, c := range u.chains {
			t.setChain(c.Name, c)
		}
		for name, s := range u.sets {
			if t.users[name]++; t.users[name] == 1 || !s.Constant {
				t.setSet(name, s)
			}
		}
	}
	for _, u := range gone {
		for name := range u.sets {
			if t.users[name]--; t.users[name] == 0 {
				t.setSet(name, nil)
				delete(t.users, name)
			}
		}
	}
}

// changes returns what the touched things became.
func (t *touch) changes() []Change {
	have, want := NewTable(), NewTable()
	for name, was := range t.before.Chains {
		if was != nil {
			have.Chains[name] = was
		}
		if is := t.table.Chains[name]; is != nil {
			want.Chains[name] = is
		}
	}
	for name, was := range t.before.Sets {
		if was != nil {
			have.Sets[name] = was
		}
		if is := t.table.Sets[name]; is != nil {
			want.Sets[name] = is
		}
	}
	return Diff(have, want)
}
