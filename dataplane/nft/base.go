package nft

import (
	"maps"
	"slices"
	"strconv"

	"golang.org/x/sys/unix"

	"margay/ruleset"
)

// Owners says which endpoint each interface belongs to.
type owners struct {
	named map[string]*ruleset.Endpoint
	// all is the endpoint for interfaces that are not named and no workload's; nil: they are not filtered.
	all *ruleset.Endpoint
}

// ownersOf returns the owners. A Program names every interface once; where two endpoints claim one, the first by ID has
// it, so that the result does not depend on the order of a map.
func ownersOf(p *ruleset.Program) owners {
	o := owners{named: map[string]*ruleset.Endpoint{}}
	ids := slices.SortedFunc(maps.Keys(p.Endpoints), func(a, b ruleset.EndpointID) int {
		return ruleset.PolicyID(a).Compare(ruleset.PolicyID(b))
	})
	for _, id := range ids {
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
	return o
}

// active returns the endpoints that own an interface.
func (o owners) active() map[ruleset.EndpointID]*ruleset.Endpoint {
	out := map[ruleset.EndpointID]*ruleset.Endpoint{}
	for _, ep := range o.named {
		out[ep.ID] = ep
	}
	if o.all != nil {
		out[o.all.ID] = o.all
	}
	return out
}

// A hook is where packets of one direction enter the table.
type hook struct {
	dir      ruleset.Direction
	chain    string
	number   uint32
	dispatch string // the map from interfaces to chains
	ifname   string
	metaKey  uint32
}

var hooks = [...]hook{
	{ruleset.Ingress, "input", unix.NF_INET_LOCAL_IN, "endpoints-in", "iifname", unix.NFT_META_IIFNAME},
	{ruleset.Egress, "output", unix.NF_INET_LOCAL_OUT, "endpoints-out", "oifname", unix.NFT_META_OIFNAME},
}

// base adds the base chains, what dispatches by interface, and what all endpoints share.
func (u *builder) base(o owners) {
	for i := range hooks {
		h := &hooks[i]
		c := &Chain{Name: h.chain, Base: &Base{Type: "filter", Hook: h.number, Priority: priority}}
		c.Rules = []*Rule{rule("ct state established,related accept", "",
			code{}.ctState(ctEstablished|ctRelated).verdict(nfAccept, ""))}
		if len(o.named) > 0 {
			c.Rules = append(c.Rules, u.dispatch(h, o)...)
		}
		if o.all != nil {
			c.Rules = append(c.Rules, u.wildcard(h, o.all)...)
		}
		u.unit.chains = append(u.unit.chains, c)
	}
	if u.settings.Reject && (len(o.named) > 0 || o.all != nil) {
		u.unit.chains = append(u.unit.chains, reject())
	}
}

// dispatch adds a chain per interface and returns the rules that lead there.
func (u *builder) dispatch(h *hook, o owners) []*Rule {
	names := slices.Sorted(maps.Keys(o.named))
	dispatch := newSet(h.dispatch, typeDispatch)
	var keys []Element
	for _, name := range names {
		chain := ifaceChain(h.dir, name)
		dispatch.Elements[Element{Key: ifaceKey(name), Jump: chain}] = struct{}{}
		keys = append(keys, Element{Key: ifaceKey(name)})
		u.unit.chains = append(u.unit.chains, &Chain{
			Name: chain, Comment: remark("interface " + name),
			Rules: []*Rule{jumpRule("goto", endpointChain(o.named[name].ID, h.dir))},
		})
	}
	u.unit.sets[dispatch.Name] = dispatch
	c := code{}.meta(h.metaKey, regFirst)
	enter := rule(h.ifname+" vmap @"+dispatch.Name, "", c.vmap(dispatch.Name))
	c = code{}.meta(h.metaKey, regFirst)
	which := strconv.Quote(names[0])
	if len(names) == 1 {
		c = c.cmp(unix.NFT_CMP_EQ, []byte(ifaceKey(names[0])))
	} else {
		set := u.constant("interfaces", typeIfaces, keys)
		which, c = "@"+set, c.lookup(set, false)
	}
	fell := rule(h.ifname+" "+which+" counter drop", "no verdict from the endpoint", c.counter().verdict(nfDrop, ""))
	return []*Rule{enter, fell}
}

// wildcard returns the rules for interfaces that no endpoint names.
func (u *builder) wildcard(h *hook, all *ruleset.Endpoint) []*Rule {
	var rules []*Rule
	for _, prefix := range u.settings.WorkloadPrefixes {
		if prefix == "" || len(prefix) > maxIface {
			continue
		}
		c := code{}.meta(h.metaKey, regFirst)
		rules = append(rules, rule(h.ifname+" "+strconv.Quote(prefix+"*")+" accept", "a workload's",
			c.cmp(unix.NFT_CMP_EQ, []byte(prefix)).verdict(nfAccept, "")))
	}
	return append(rules,
		jumpRule("jump", endpointChain(all.ID, h.dir)),
		rule("counter drop", "no verdict from the endpoint", code{}.counter().verdict(nfDrop, "")))
}

// reject returns the chain that answers denied packets.
func reject() *Chain {
	c := code{}.meta(unix.NFT_META_L4PROTO, regFirst).cmp(unix.NFT_CMP_EQ, []byte{ruleset.TCP})
	return &Chain{Name: rejectChain, Rules: []*Rule{
		rule("meta l4proto tcp reject with tcp reset", "", c.rejectTCP()),
		rule("reject with icmpx admin-prohibited", "", code{}.rejectProhibited()),
	}}
}

func logText(prefix string) string {
	return "log prefix " + strconv.Quote(prefix) + " group " + strconv.Itoa(LogGroup)
}
