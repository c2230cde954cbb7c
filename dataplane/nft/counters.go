package nft

import (
	"bytes"
	"cmp"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"iter"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"margay/ruleset"
)

// Counters reads what the rules of the table counted since each was put there, in the order in which packets meet them. No
// agent is needed: comments tell what rules and chains stand for. Rules that do the same for one rule of a policy (both IP
// versions, several ports, addresses in a map) count together. A packet that several neighbouring rules with the same action
// match may be counted by any of them, see stageBuilder. Without a table the result is empty.
func Counters(ctx context.Context, o Options) ([]ruleset.Counter, error) {
	v, err := readView(ctx, o)
	if err != nil {
		return nil, err
	}
	sums := newSums()
	for _, r := range v.counted() {
		sums.add(r.subject, r.packets, r.bytes)
	}
	return sums.list(), nil
}

// A Meter adds up what rules count, also when they are replaced, which Counters does not. What a rule counted between the
// last reading and its replacement is lost. Methods are for one goroutine.
type Meter struct {
	options Options
	table   uint64 // handle of the table that last is about
	last    map[identity]tally
	sums    *sums
}

// An identity tells what counts apart: a rule by its handle, or an element by the handle of its map and its key.
type identity struct {
	handle  uint64
	element string
}

type tally struct{ packets, bytes uint64 }

// NewMeter returns a Meter that begins with what the kernel has counted.
func NewMeter(o Options) *Meter {
	return &Meter{options: o, last: map[identity]tally{}, sums: newSums()}
}

// maxGone bounds how many counters of what is not programmed any more are kept.
const maxGone = 10_000

// Read returns the counters, each of which never decreases. What is not programmed any more stays as it was, unless there
// is too much of that: then all of it is forgotten.
func (m *Meter) Read(ctx context.Context) ([]ruleset.Counter, error) {
	v, err := readView(ctx, m.options)
	if err != nil {
		return nil, err
	}
	if v.handle != m.table {
		m.table = v.handle
		clear(m.last) // another table: handles begin anew
	}
	now := make(map[identity]tally, len(m.last))
	rules := v.counted()
	if len(m.sums.all) > len(rules)+maxGone {
		m.sums = m.sums.only(rules)
	}
	for _, r := range rules {
		was := m.last[r.identity]
		if r.packets < was.packets || r.bytes < was.bytes {
			was = tally{} // somebody reset the counter
		}
		m.sums.add(r.subject, r.packets-was.packets, r.bytes-was.bytes)
		now[r.identity] = tally{r.packets, r.bytes}
	}
	m.last = now
	return m.sums.list(), nil
}

// sums adds counts up by subject, in the order in which subjects came.
type sums struct {
	index map[ruleset.Counter]int
	all   []ruleset.Counter
}

func newSums() *sums { return &sums{index: map[ruleset.Counter]int{}} }

func (s *sums) add(subject ruleset.Counter, packets, bytes uint64) {
	i, ok := s.index[subject]
	if !ok {
		i = len(s.all)
		s.index[subject] = i
		s.all = append(s.all, subject)
	}
	s.all[i].Packets += packets
	s.all[i].Bytes += bytes
}

// only returns the sums of what some rules count.
func (s *sums) only(rules []countedRule) *sums {
	kept := newSums()
	for _, r := range rules {
		if _, done := kept.index[r.subject]; done {
			continue
		}
		var had ruleset.Counter
		if i, ok := s.index[r.subject]; ok {
			had = s.all[i]
		}
		kept.add(r.subject, had.Packets, had.Bytes)
	}
	return kept
}

func (s *sums) list() []ruleset.Counter {
	out := slices.Clone(s.all)
	slices.SortStableFunc(out, func(a, b ruleset.Counter) int {
		return cmp.Or(ruleset.PolicyID(a.Endpoint).Compare(ruleset.PolicyID(b.Endpoint)), cmp.Compare(a.Direction, b.Direction),
			cmp.Compare(b.Stage, a.Stage), oneIf(a.Staged)-oneIf(b.Staged))
	})
	return out
}

// A view is the part of the table that counts.
type view struct {
	handle uint64 // of the table; 0: there is none
	order  []string
	chains map[string]*viewChain
	maps   map[string][]viewRule // those with elements that count; an element is seen as a rule
	said   map[string]*said      // by comment
}

// said is what the comment of a rule or element says.
type said struct {
	comment string
	// Of a policy's or profile's rule:
	byRule bool
	id     ruleset.PolicyID
	index  int
	action ruleset.Action
}

// comment returns what the bytes of a comment say. Many rules and elements share one.
func (v *view) comment(b []byte) *said {
	if s := v.said[string(b)]; s != nil {
		return s
	}
	s := &said{comment: string(b)}
	s.id, s.index, s.action, s.byRule = readRemark(s.comment)
	v.said[s.comment] = s
	return s
}

type viewChain struct {
	comment string
	rules   []viewRule
	parents []string
}

// A viewRule is a rule as far as counting goes.
type viewRule struct {
	identity
	*said
	counts  bool
	packets uint64
	bytes   uint64
	verdict int32  // noVerdict if it has none
	target  string // a chain
	lookup  string // a map
	logs    bool
}

const noVerdict = 1 << 30

// Attributes that package unix does not know (Linux 4.16).
const (
	nftaTableHandle = 4
	nftaSetHandle   = 16
)

// A countedRule is a rule with what it counts.
type countedRule struct {
	viewRule
	subject ruleset.Counter
}

// readView reads chains and rules, again when they change meanwhile.
func readView(ctx context.Context, o Options) (*view, error) {
	c, err := dial(o.NetNS)
	if err != nil {
		return nil, fmt.Errorf("read counters: %w", err)
	}
	defer c.close()
	for try := 1; ; try++ {
		v, err := c.view()
		switch {
		case err == nil:
			return v, nil
		case ctx.Err() != nil:
			return nil, ctx.Err()
		case !errors.Is(err, errInterrupted) || try == dumpTries:
			return nil, fmt.Errorf("read counters: %w", err)
		}
	}
}

func (c *conn) view() (*view, error) {
	v := &view{chains: map[string]*viewChain{}, maps: map[string][]viewRule{}, said: map[string]*said{}}
	data := attrString(nil, unix.NFTA_TABLE_NAME, TableName)
	err := c.request(message{typ: nftType(unix.NFT_MSG_GETTABLE), flags: unix.NLM_F_ACK, data: data}, func(m *message) {
		v.handle = long(find(m.payload(), nftaTableHandle))
	})
	if errors.Is(err, unix.ENOENT) {
		return v, nil
	}
	if err != nil {
		return nil, fmt.Errorf("table %s: %w", TableName, err)
	}
	err = c.request(message{typ: nftType(unix.NFT_MSG_GETCHAIN), flags: unix.NLM_F_DUMP}, func(m *message) {
		v.addChain(m.payload())
	})
	if err != nil {
		return nil, err
	}
	data = attrString(nil, unix.NFTA_RULE_TABLE, TableName)
	err = c.request(message{typ: nftType(unix.NFT_MSG_GETRULE), flags: unix.NLM_F_DUMP, data: data}, func(m *message) {
		if len(m.data) >= sizeofNfgenmsg {
			v.addRule(m.data[sizeofNfgenmsg:])
		}
	})
	if err == nil {
		err = c.countedMaps(v)
	}
	if errors.Is(err, unix.ENOENT) {
		err = errInterrupted // the table was there a moment ago
	}
	return v, err
}

func (v *view) addChain(a []attribute) {
	if text(find(a, unix.NFTA_CHAIN_TABLE)) != TableName {
		return
	}
	comment, _ := commentOf(find(a, nftaChainUserData), udataChainComment)
	name := text(find(a, unix.NFTA_CHAIN_NAME))
	v.chains[name] = &viewChain{comment: comment}
	v.order = append(v.order, name)
}

// addRule reads the attributes of a rule. There are many: it makes no lists.
func (v *view) addRule(b []byte) {
	r := viewRule{verdict: noVerdict, said: v.comment(nil)}
	var chain *viewChain
	var name []byte
	for typ, data := range attributes(b) {
		switch typ {
		case unix.NFTA_RULE_TABLE:
			if string(untilZero(data)) != TableName {
				return
			}
		case unix.NFTA_RULE_CHAIN:
			name = untilZero(data)
			chain = v.chains[string(name)]
		case unix.NFTA_RULE_HANDLE:
			r.handle = long(data)
		case unix.NFTA_RULE_USERDATA:
			if len(data) >= 2 {
				r.said = v.comment(untilZero(data[2:]))
			}
		case unix.NFTA_RULE_EXPRESSIONS:
			for _, e := range attributes(data) {
				r.read(e)
			}
		}
	}
	if chain == nil {
		return
	}
	chain.rules = append(chain.rules, r)
	if to := v.chains[r.target]; to != nil {
		to.parents = append(to.parents, string(name))
	}
}

// countedMaps reads the maps with elements that count.
func (c *conn) countedMaps(v *view) error {
	handles := map[string]uint64{}
	data := attrString(nil, unix.NFTA_SET_TABLE, TableName)
	err := c.request(message{typ: nftType(unix.NFT_MSG_GETSET), flags: unix.NLM_F_DUMP, data: data}, func(m *message) {
		if a := m.payload(); find(a, nftaSetExpr) != nil {
			handles[text(find(a, unix.NFTA_SET_NAME))] = long(find(a, nftaSetHandle))
		}
	})
	for name, handle := range handles {
		if err != nil {
			return err
		}
		data := attrString(attrString(nil, unix.NFTA_SET_ELEM_LIST_TABLE, TableName), unix.NFTA_SET_ELEM_LIST_SET, name)
		err = c.request(message{typ: nftType(unix.NFT_MSG_GETSETELEM), flags: unix.NLM_F_DUMP, data: data}, func(m *message) {
			for _, e := range attributes(find(m.payload(), unix.NFTA_SET_ELEM_LIST_ELEMENTS)) {
				v.maps[name] = append(v.maps[name], v.countedElement(handle, e))
			}
		})
		slices.SortFunc(v.maps[name], func(a, b viewRule) int {
			return cmp.Or(a.id.Compare(b.id), cmp.Compare(a.index, b.index), strings.Compare(a.element, b.element))
		})
	}
	return err
}

func (v *view) countedElement(table uint64, b []byte) viewRule {
	r := viewRule{verdict: noVerdict, said: v.comment(nil)}
	r.handle = table
	for typ, data := range attributes(b) {
		switch typ {
		case unix.NFTA_SET_ELEM_KEY:
			r.element = string(data)
		case unix.NFTA_SET_ELEM_USERDATA:
			r.said = v.comment(untilZero(data[min(2, len(data)):]))
		case unix.NFTA_SET_ELEM_EXPR:
			r.read(data)
		case unix.NFTA_SET_ELEM_DATA:
			r.readVerdict(attrs(find(attrs(data), unix.NFTA_DATA_VERDICT)))
		}
	}
	return r
}

func (r *viewRule) readVerdict(verdict []attribute) {
	if code := find(verdict, unix.NFTA_VERDICT_CODE); code != nil {
		r.verdict = int32(number(code))
	}
	r.target = text(find(verdict, unix.NFTA_VERDICT_CHAIN))
}

// read takes in one expression.
func (r *viewRule) read(expression []byte) {
	var name, data []byte
	for typ, value := range attributes(expression) {
		switch typ {
		case unix.NFTA_EXPR_NAME:
			name = untilZero(value)
		case unix.NFTA_EXPR_DATA:
			data = value
		}
	}
	switch string(name) {
	case "counter":
		r.counts = true
		for typ, value := range attributes(data) {
			switch typ {
			case unix.NFTA_COUNTER_PACKETS:
				r.packets = long(value)
			case unix.NFTA_COUNTER_BYTES:
				r.bytes = long(value)
			}
		}
	case "log":
		r.logs = true
	case "immediate":
		r.readVerdict(attrs(find(attrs(find(attrs(data), unix.NFTA_IMMEDIATE_DATA)), unix.NFTA_DATA_VERDICT)))
	case "lookup":
		if a := attrs(data); find(a, unix.NFTA_LOOKUP_DREG) != nil {
			r.lookup = text(find(a, unix.NFTA_LOOKUP_SET))
		}
	}
}

// attributes yields what attrs returns.
func attributes(b []byte) iter.Seq2[uint16, []byte] {
	return func(yield func(uint16, []byte) bool) {
		for len(b) >= unix.SizeofNlAttr {
			n := int(binary.NativeEndian.Uint16(b))
			if n < unix.SizeofNlAttr || n > len(b) {
				return
			}
			typ := binary.NativeEndian.Uint16(b[2:]) &^ (unix.NLA_F_NESTED | unix.NLA_F_NET_BYTEORDER)
			if !yield(typ, b[unix.SizeofNlAttr:n]) {
				return
			}
			b = b[min((n+3)&^3, len(b)):]
		}
	}
}

func untilZero(b []byte) []byte {
	if i := bytes.IndexByte(b, 0); i >= 0 {
		return b[:i]
	}
	return b
}

// long reads a number of 8 bytes.
func long(b []byte) uint64 {
	if len(b) != 8 {
		return 0
	}
	return binary.BigEndian.Uint64(b)
}

// counted returns the rules that count, those of a chain before those of the chains that it leads to.
func (v *view) counted() []countedRule {
	n := 0
	for _, c := range v.chains {
		n += len(c.rules)
	}
	out := make([]countedRule, 0, n)
	seen := map[string]bool{}
	var visit func(name string)
	visit = func(name string) {
		c := v.chains[name]
		if c == nil || seen[name] {
			return
		}
		seen[name] = true
		at := v.place(name, nil)
		for _, r := range c.rules {
			if strings.Contains(c.comment, againRemark) {
				continue
			}
			silent := func(r *viewRule) bool { return at.Staged && r.comment == "" } // of an enforced policy
			if r.counts && !silent(&r) {
				out = append(out, countedRule{r, r.subject(at)})
			}
			for _, e := range v.maps[r.lookup] {
				if !silent(&e) {
					out = append(out, countedRule{e, e.subject(at)})
				}
			}
		}
		for _, r := range c.rules {
			visit(r.target)
		}
	}
	for _, name := range v.order {
		if len(v.chains[name].parents) == 0 {
			visit(name)
		}
	}
	for _, name := range v.order {
		visit(name)
	}
	return out
}

// place returns what a chain's comment says of where its rules stand. Of a chain that several endpoints share, and that
// names none, it is what those that lead there have in common.
func (v *view) place(name string, below []string) ruleset.Counter {
	c := v.chains[name]
	at, ok := readPlace(c.comment)
	if ok || slices.Contains(below, name) {
		return at
	}
	var common ruleset.Counter
	for i, parent := range c.parents {
		p := v.place(parent, append(below, name))
		if i == 0 {
			common = p
			continue
		}
		if p.Endpoint != common.Endpoint {
			common.Endpoint = ruleset.EndpointID{}
		}
		if p.Tier != common.Tier {
			common.Tier = ""
		}
	}
	if at.Tier != "" {
		common.Tier = at.Tier
	}
	return common
}

// readPlace reads the comment of a chain: Kind(name) stage ingress tier name. ok is false when it names no endpoint.
func readPlace(comment string) (at ruleset.Counter, ok bool) {
	before, tier, _ := strings.Cut(comment, " tier ")
	at.Tier = tier
	words := strings.Fields(before)
	for _, word := range words {
		switch word {
		case ruleset.Egress.String():
			at.Direction = ruleset.Egress
		case ruleset.Forward.String():
			at.Stage = ruleset.Forward
		case ruleset.PreDNAT.String():
			at.Stage = ruleset.PreDNAT
		case ruleset.Untracked.String():
			at.Stage = ruleset.Untracked
		case stagedRemark:
			at.Staged = true
		}
	}
	if len(words) == 0 {
		return at, false
	}
	id, ok := readID(words[0])
	at.Endpoint = ruleset.EndpointID(id)
	return at, ok
}

// subject returns what a rule counts that stands at a place.
func (r *viewRule) subject(at ruleset.Counter) ruleset.Counter {
	s := at
	s.Action = r.does()
	if r.byRule {
		s.Reason, s.Policy, s.Rule, s.Action = ruleset.PolicyRule, r.id, r.index, r.said.action
		if r.id.Kind == profileID("").Kind {
			s.Reason, s.Tier = ruleset.ProfileRule, ""
		}
		return s
	}
	tier, endOfTier := strings.CutPrefix(r.comment, tierRemark(""))
	profile, missing := strings.CutSuffix(r.comment, " is missing")
	switch {
	case endOfTier:
		if s.Reason, s.Tier = ruleset.EndOfTier, tier; s.Staged {
			s.Action = ruleset.Deny // by what it leads to, nothing is seen of that
		}
	case missing:
		s.Reason, s.Policy = ruleset.ProfileMissing, profileID(strings.TrimPrefix(profile, "profile "))
	default:
		var ok bool
		if s.Reason, ok = readCause(r.comment); !ok {
			s.Note = cmp.Or(r.comment, "a rule without a comment")
		}
	}
	return s
}

// readCause reads the comments of rules that come from no policy. What is not among them is shown as it is.
func readCause(comment string) (ruleset.Reason, bool) {
	comment, _, _ = strings.Cut(comment, ": ")
	switch comment {
	case noProfileRemark:
		return ruleset.NoProfile, true
	case "failsafe":
		return ruleset.FailsafePort, true
	case "invalid":
		return ruleset.FlowInvalid, true
	case "source is not the workload's":
		return ruleset.SpoofedSource, true
	case "VXLAN from a workload", "IPIP from a workload":
		return ruleset.TunnelPacket, true
	case "unknown workload interface":
		return ruleset.UnknownInterface, true
	case "neighbour discovery of a workload":
		return ruleset.PodDiscovery, true
	case discoveryRemark:
		return ruleset.HostDiscovery, true
	case hostTunnelRemark:
		return ruleset.HostTunnel, true
	case strangeTunnelRemark:
		return ruleset.StrangeTunnel, true
	case "host to own workload":
		return ruleset.ToOwnWorkload, true
	case "endpoint to host":
		return ruleset.EndpointToHost, true
	}
	return ruleset.NoProfile, false
}

// does returns what a rule without a remark does.
func (r *viewRule) does() ruleset.Action {
	switch {
	case r.logs && r.verdict == noVerdict:
		return ruleset.Log
	case r.verdict == nfAccept:
		return ruleset.Allow
	case r.verdict == nfDrop, r.target == rejectChain:
		return ruleset.Deny
	}
	return ruleset.Pass
}
