package nft

import (
	"slices"
	"strings"

	"margay/ruleset"
)

// A stage is a list of lines that decides: its last line matches every packet. The stages of an endpoint follow each
// other as Eval walks: tiers, then profiles.
type stage struct {
	name   []string // appended to the endpoint's chain name
	chunks []*chunk
}

// An itemKey names an item: the rules of a policy or profile in one direction, as a tier has them, in one view.
type itemKey struct {
	owner      ruleset.PolicyID // profileID for a profile
	tier       string
	dir        ruleset.Direction
	beforeDNAT bool
	preview    bool // as if staged policies were enforced, to count what they decide
}

// An item is what a policy or profile becomes. Items are kept until something changes that they were made from, and are
// not changed.
type item struct {
	key    itemKey
	chunks []*chunk
	absent bool // there is no such policy or profile, or it does not count here
	staged bool // in a preview: of a staged policy
	stale  bool // not the item of its key any more
	sets   []ruleset.SetID
}

// flatten returns what Eval walks in one of its stages after the failsafes: a stage for each tier that decides anything.
// Lines behind one that matches everything are left out. How the stages become chains is decided elsewhere.
func (b *builder) flatten(s ruleset.Stage, w *ruleset.Walk, dir ruleset.Direction) walk {
	tiers := w.Tiers(dir)
	return walk{stages: b.tiersOf(s, tiers, false), staged: b.tiersOf(s, tiers[:b.lastStaged(tiers)], true)}
}

// A walk is the stages that decide, and those that count what staged policies would decide; none, if there are no staged
// policies.
type walk struct{ stages, staged []stage }

// followed returns the walk with one more stage that decides behind it.
func followed(w walk, s stage) walk {
	w.stages = append(w.stages, s)
	return w
}

// tiersOf returns a stage for each tier that decides anything.
func (b *builder) tiersOf(s ruleset.Stage, tiers []ruleset.Tier, preview bool) []stage {
	var stages []stage
	for _, tier := range tiers {
		if s == ruleset.PreDNAT || s == ruleset.Untracked {
			tier.EndPass = true
		}
		if s, ok := b.tier(tierKey{s, tier.Name, b.beforeDNAT, preview}, &tier); ok {
			s.chunks = reachable(s.chunks)
			stages = append(stages, s)
		}
	}
	return stages
}

// lastStaged returns the place behind the last tier with a staged policy that would decide something.
func (b *builder) lastStaged(tiers []ruleset.Tier) int {
	for i, tier := range slices.Backward(tiers) {
		if slices.ContainsFunc(tier.Policies, b.decidesStaged) {
			return i + 1
		}
	}
	return 0
}

// decidesStaged reports whether a policy is staged and would not only take another one away. The unit is made again when that
// changes: it uses the items of all policies of its tiers.
func (b *builder) decidesStaged(id ruleset.PolicyID) bool {
	policy := b.program.Policies[id]
	return policy != nil && policy.Staged && !policy.Deletes && !policy.Superseded
}

// A tierState is the items of a tier. Policies of an endpoint are never changed in place, so that a list at the same place
// is the same list.
type tierState struct {
	policies []ruleset.PolicyID
	items    []*item
}

type tierKey struct {
	stage      ruleset.Stage
	name       string
	beforeDNAT bool
	preview    bool
}

// tier reports ok false when no policy of the tier is enforced: then it decides nothing.
func (b *builder) tier(key tierKey, tier *ruleset.Tier) (s stage, ok bool) {
	s.name = []string{"tier", tier.Name}
	was := b.unit.tiers[key]
	if len(was.policies) != len(tier.Policies) || len(was.policies) > 0 && &was.policies[0] != &tier.Policies[0] {
		was = tierState{policies: tier.Policies, items: make([]*item, len(tier.Policies))}
	}
	b.tiers[key] = was
	for i, id := range tier.Policies {
		it := was.items[i]
		if it == nil || it.stale {
			it = b.item(itemKey{id, tier.Name, b.home.dir, key.beforeDNAT, key.preview})
			was.items[i] = it
		}
		b.used = append(b.used, it)
		if it.absent {
			continue
		}
		ok = true
		s.chunks = append(s.chunks, it.chunks...)
	}
	end := deny
	if tier.EndPass {
		end = next
	}
	comment := tierRemark(tier.Name)
	if key.preview && (tier.EndPass || b.lastStaged([]ruleset.Tier{*tier}) == 0) {
		comment = ""
	}
	s.chunks = append(s.chunks, b.end(comment, end))
	return s, ok
}

// profiles returns the stage after the last tier of Normal.
func (b *builder) profiles(names []string, dir ruleset.Direction) stage {
	s := stage{name: []string{"profiles"}}
	for _, name := range names {
		it := b.item(itemKey{owner: profileID(name), dir: dir, beforeDNAT: b.beforeDNAT})
		b.used = append(b.used, it)
		if it.absent {
			s.chunks = append(s.chunks, b.end("profile "+name+" is missing", deny))
			continue
		}
		s.chunks = append(s.chunks, it.chunks...)
	}
	s.chunks = reachable(append(s.chunks, b.end(noProfileRemark, deny)))
	return s
}

// end returns a chunk that decides, the same as before for the same arguments.
func (b *builder) end(comment string, o outcome) *chunk {
	key := endKey{comment, o}
	c := b.unit.ends[key]
	if c == nil {
		c = lastChunk(comment, o, b.nextSerial())
	}
	b.ends[key] = c
	return c
}

type endKey struct {
	comment string
	outcome outcome
}

// reachable cuts the chunks behind the first one that always decides.
func reachable(chunks []*chunk) []*chunk {
	for i, c := range chunks {
		if c.decides {
			return chunks[:i+1]
		}
	}
	return chunks
}

// item returns the item of a key.
func (b *builder) item(key itemKey) *item {
	for _, it := range b.items[key.owner] {
		if it.key == key {
			return it
		}
	}
	it := b.makeItem(key)
	b.keepItem(it)
	return it
}

func (b *builder) makeItem(key itemKey) *item {
	it := &item{key: key}
	var rules []ruleset.Rule
	if key.owner.Kind == profileID("").Kind {
		profile := b.program.Profiles[key.owner.Name]
		if it.absent = profile == nil; !it.absent {
			rules = profile.Rules(key.dir)
		}
	} else {
		policy := b.program.Policies[key.owner]
		it.absent = policy == nil || policy.Staged
		if key.preview {
			it.absent = policy == nil || policy.Superseded || policy.Deletes
			it.staged = policy != nil && policy.Staged
		}
		if !it.absent {
			rules = policy.Rules(key.dir)
		}
	}
	m := &lineMaker{builder: b, item: it, lines: make([]*line, 0, len(rules))}
	m.expander.sets = m
	for i := range rules {
		m.add(&rules[i], i)
	}
	it.chunks = slices.Clip(chunksOf(m.lines))
	slices.Sort(it.sets)
	it.sets = slices.Clone(slices.Compact(it.sets))
	return it
}

// A lineMaker makes the lines of an item.
type lineMaker struct {
	*builder
	item     *item
	lines    []*line
	room     []line // for lines that are kept: a policy's are kept together
	expander expander
	scratch  []service
}

// keep adds a line.
func (m *lineMaker) keep(l line) {
	if len(m.room) == cap(m.room) {
		m.room = make([]line, 0, max(1, cap(m.lines)-len(m.lines)))
	}
	l.to, l.serial, l.services = m.to(), m.nextSerial(), slices.Clone(l.services)
	m.room = append(m.room, l)
	m.lines = append(m.lines, &m.room[len(m.room)-1])
}

// find finds a set of the Program and remembers that the item asked for it.
func (m *lineMaker) find(id ruleset.SetID) *memberSet {
	if n := len(m.item.sets); n == 0 || m.item.sets[n-1] != id {
		m.item.sets = append(m.item.sets, id)
	}
	return m.members[id]
}

func (m *lineMaker) add(r *ruleset.Rule, index int) {
	if m.item.key.preview {
		m.addPreview(r, index)
		return
	}
	owner := m.item.key.owner
	o, prefix := deny, ""
	switch r.Action {
	case ruleset.Allow:
		o = accept
	case ruleset.Pass:
		if owner.Kind == profileID("").Kind { // means nothing there
			return
		}
		o = next
	case ruleset.Log:
		o, prefix = report, m.logPrefix(m.item.key.tier, owner)
	}
	comment := remark(ruleRemark(owner, index, r.Action))
	first := len(m.lines)
	for i, v := range m.expander.variants(r, m.to()) {
		l := m.newLine(v, o)
		if len(m.lines) > first && m.lines[len(m.lines)-1].join(&l) {
			continue
		}
		l.rule, l.first, l.comment, l.prefix = r, uint32(i), comment, prefix
		m.keep(l)
	}
}

// addPreview adds the lines of a rule that count. What an enforced policy decides only ends the walk, whatever it is. Rules of
// staged policies have an outcome of their own and, like those that pass, are laid out one by one, in order: no line
// overtakes another one that would count the packet.
func (m *lineMaker) addPreview(r *ruleset.Rule, index int) {
	o, comment := deny, ""
	switch {
	case r.Action == ruleset.Log:
		return
	case r.Action == ruleset.Pass:
		o = next
	case m.item.staged:
		o = accept
	}
	if m.item.staged {
		comment = remark(ruleRemark(m.item.key.owner, index, r.Action))
	}
	for i, v := range m.expander.variants(r, m.to()) {
		l := plainLine(v, o)
		if o == deny {
			l = m.newLine(v, o)
		}
		l.rule, l.first, l.comment = r, uint32(i), comment
		m.keep(l)
	}
}

// maxLogPrefix is the length of the longest prefix of a report (NF_LOG_PREFIXLEN less the final zero).
const maxLogPrefix = 127

// logPrefix returns the prefix of the reports of a policy's or profile's Log rules. If the configured one has
// no specifiers, tier and policy are appended: without them a report says nothing.
func (b *builder) logPrefix(tier string, id ruleset.PolicyID) string {
	text := b.settings.LogText(tier, id)
	if text == b.settings.LogPrefix {
		text = strings.TrimLeft(text+" "+tier+" "+id.String(), " ")
	}
	text = remark(text)
	return text[:min(len(text), maxLogPrefix-2)] + ": "
}
