package nft

import (
	"maps"
	"slices"
	"strconv"

	"golang.org/x/sys/unix"

	"margay/ruleset"
)

// Owners says what each interface is.
type owners struct {
	named map[string]*ruleset.Endpoint
	// all is the endpoint for interfaces that are not named; nil: they are not filtered.
	all *ruleset.Endpoint
	// workloads by their interface.
	workloads map[string]*ruleset.Workload
	// other are those of these interfaces, in order, whose name does not tell that they are a workload's.
	other   []string
	bridged bridged
}

// ownersOf returns the owners. A Program names every interface once; where two endpoints claim one, the first by ID has
// it, so that the result does not depend on the order of a map.
func ownersOf(p *ruleset.Program) owners {
	o := owners{named: map[string]*ruleset.Endpoint{}, workloads: map[string]*ruleset.Workload{}}
	for _, id := range sortedIDs(p.Endpoints) {
		ep := p.Endpoints[id]
		for _, name := range ep.Interfaces {
			switch {
			case name == ruleset.AllInterfaces:
				if o.all == nil {
					o.all = ep
				}
			case name == "" || len(name) > maxIface: // no interface has such a name
			case o.named[name] == nil:
				o.named[name] = ep
			}
		}
	}
	for _, id := range sortedIDs(p.Workloads) {
		w := p.Workloads[id]
		if w.Bridge != "" || w.Interface == "" || len(w.Interface) > maxIface || o.workloads[w.Interface] != nil {
			continue
		}
		o.workloads[w.Interface] = w
		if !p.Settings.IsWorkload(w.Interface) {
			o.other = append(o.other, w.Interface)
		}
	}
	slices.Sort(o.other)
	o.bridged = bridgedOf(p)
	return o
}

func sortedIDs[V any](m map[ruleset.EndpointID]V) []ruleset.EndpointID {
	return slices.SortedFunc(maps.Keys(m), func(a, b ruleset.EndpointID) int {
		return ruleset.PolicyID(a).Compare(ruleset.PolicyID(b))
	})
}

// endpoints returns the host endpoints that own an interface.
func (o owners) endpoints() map[ruleset.EndpointID]*ruleset.Endpoint {
	out := map[ruleset.EndpointID]*ruleset.Endpoint{}
	for _, ep := range o.named {
		out[ep.ID] = ep
	}
	if o.all != nil {
		out[o.all.ID] = o.all
	}
	return out
}

// active returns the IDs of the endpoints and workloads that own an interface.
func (o owners) active() map[ruleset.EndpointID]bool {
	out := map[ruleset.EndpointID]bool{}
	for id := range o.endpoints() {
		out[id] = true
	}
	for id := range o.guests() {
		out[id] = true
	}
	return out
}

// guests returns the workloads that packets can be from or to, by ID.
func (o owners) guests() map[ruleset.EndpointID]*ruleset.Workload {
	out := o.bridged.known()
	for _, w := range o.workloads {
		out[w.ID] = w
	}
	return out
}

// A way is one of the two interfaces of a packet.
type way struct {
	name      string // of its name
	index     string // of its index
	meta      uint32 // loads its name
	metaIndex uint32 // loads its index, 0 if there is none
}

func wayIn() way { return way{"iifname", "iif", unix.NFT_META_IIFNAME, unix.NFT_META_IIF} }

func wayOut() way { return way{"oifname", "oif", unix.NFT_META_OIFNAME, unix.NFT_META_OIF} }

// A condition is the beginning of a rule: text that ends in a space unless it is empty, code, and the sets that the code
// names.
type condition struct {
	text string
	code code
	uses []*Set
}

func (a condition) and(b condition) condition {
	return condition{a.text + b.text, append(append(code{}, a.code...), b.code...), slices.Concat(a.uses, b.uses)}
}

// then returns the rule that leaves by an exit when a matches.
func (a condition) then(x exit, comment string) *Rule {
	return rule(a.text+x.String(), comment, append(code{}, a.code...).verdict(x.verdict, x.chain), a.uses...)
}

// counted is then with a counter.
func (a condition) counted(x exit, comment string) *Rule {
	a.text, a.code = a.text+"counter ", append(code{}, a.code...).counter()
	return a.then(x, comment)
}

// jump returns the rule that enters a chain and goes on after it when that returns.
func (a condition) jump(chain string) *Rule {
	return rule(a.text+"jump "+chain, "", append(code{}, a.code...).verdict(unix.NFT_JUMP, chain), a.uses...)
}

// always is no condition.
func always() condition { return condition{} }

// ifKnown: the packet belongs to a flow that was allowed.
func ifKnown() condition {
	return condition{text: "ct state established,related ", code: code{}.ctState(ctEstablished | ctRelated)}
}

// ifInvalid: connection tracking calls the packet invalid.
func ifInvalid() condition {
	return condition{text: "ct state invalid ", code: code{}.ctState(ctInvalid)}
}

// ifTranslated: the destination of the flow was translated. That is a test of one bit; others are set beside it.
func ifTranslated() condition {
	return condition{text: "ct status dnat ", code: code{}.ctStatus(ctStatusDNAT)}
}

// exists: the packet has this interface, at this hook.
func (w way) exists() condition {
	c := code{}.meta(w.metaIndex, regFirst).cmp(unix.NFT_CMP_NEQ, make([]byte, 4))
	return condition{text: w.index + " != 0 ", code: c}
}

// begins: the name of the interface begins so.
func (w way) begins(prefix string) condition {
	c := code{}.meta(w.meta, regFirst).cmp(unix.NFT_CMP_EQ, []byte(prefix))
	return condition{text: w.name + " " + strconv.Quote(prefix+"*") + " ", code: c}
}

func (w way) beginsNot(prefix string) condition {
	c := code{}.meta(w.meta, regFirst).cmp(unix.NFT_CMP_NEQ, []byte(prefix))
	return condition{text: w.name + " != " + strconv.Quote(prefix+"*") + " ", code: c}
}

// isIn: the interface is one of those named, at least one. The set of them is constant: see the package comment.
func isIn(w way, names []string) condition {
	if len(names) == 1 {
		c := code{}.meta(w.meta, regFirst).cmp(unix.NFT_CMP_EQ, []byte(ifaceKey(names[0])))
		return condition{text: w.name + " " + strconv.Quote(names[0]) + " ", code: c}
	}
	set := interfaceSet(names)
	return condition{w.name + " @" + set.Name + " ", code{}.meta(w.meta, regFirst).lookup(set.Name, false), []*Set{set}}
}

// isNotIn: the interface is none of those named. Every interface is none of none.
func isNotIn(w way, names []string) condition {
	switch len(names) {
	case 0:
		return always()
	case 1:
		c := code{}.meta(w.meta, regFirst).cmp(unix.NFT_CMP_NEQ, []byte(ifaceKey(names[0])))
		return condition{text: w.name + " != " + strconv.Quote(names[0]) + " ", code: c}
	}
	set := interfaceSet(names)
	return condition{w.name + " != @" + set.Name + " ", code{}.meta(w.meta, regFirst).lookup(set.Name, true), []*Set{set}}
}

func interfaceSet(names []string) *Set {
	var keys []Element
	for _, name := range names {
		keys = append(keys, Element{Key: ifaceKey(name)})
	}
	return constant("interfaces", typeIfaces, keys)
}

// dispatch adds a chain per interface, named KIND/INTERFACE, and returns the rule that leads there.
func (u *builder) dispatch(kind, table string, w way, chains map[string][]*Rule) *Rule {
	for name, rules := range chains {
		u.addChain(ident(kind, name), "interface "+name, rules...)
	}
	return u.leads(kind, table, w, slices.Collect(maps.Keys(chains)))
}

// leads returns the rule that leads to a chain per interface, and adds its map. More than one rule may lead there.
func (u *builder) leads(kind, table string, w way, names []string) *Rule {
	m := u.unit.sets[table]
	if !u.sets[table] {
		elements := map[Element]struct{}{}
		for _, name := range names {
			elements[Element{Key: ifaceKey(name), Verdict: jumpTo(ident(kind, name))}] = struct{}{}
		}
		m = u.fill(table, typeDispatch, elements)
	}
	return rule(w.name+" vmap @"+m.Name, "", code{}.meta(w.meta, regFirst).vmap(m.Name), m)
}

// prefixes returns the prefixes of the names of workload interfaces. One that is too long begins no name.
func (u *builder) prefixes() []string { return prefixesOfWorkloads(u.settings) }

func prefixesOfWorkloads(s *ruleset.Settings) []string {
	return slices.DeleteFunc(slices.Clone(s.WorkloadPrefixes), func(p string) bool {
		return p == "" || len(p) > maxIface
	})
}

// noWorkload: the interface is no workload's.
func (u *builder) noWorkload(w way, o owners) condition {
	c := always()
	for _, prefix := range u.prefixes() {
		c = c.and(w.beginsNot(prefix))
	}
	if len(o.other) > 0 {
		c = c.and(isNotIn(w, o.other))
	}
	return c
}

// ifWorkload returns a rule per prefix, and one for names without, for packets by a workload's interface.
func (u *builder) ifWorkload(w way, o owners, f func(condition) *Rule) []*Rule {
	var rules []*Rule
	for _, prefix := range u.prefixes() {
		rules = append(rules, f(w.begins(prefix)))
	}
	if len(o.other) > 0 {
		rules = append(rules, f(isIn(w, o.other)))
	}
	return rules
}
