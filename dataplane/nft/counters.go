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
	var v *view
	err := consistently(ctx, o, func(c *conn) (err error) {
		if v, err = c.frame(); err == nil {
			err = c.elements(v)
		}
		return err
	})
	if err != nil {
		return nil, err
	}
	sums := newSums()
	for _, r := range v.counted() {
		sums.add(r.subject, r.packets, r.bytes)
	}
	return sums.list(), nil
}

// sums adds counts up by subject, in the order in which subjects came.
type sums struct {
	index map[ruleset.Counter]int
	all   []ruleset.Counter
}

func newSums() *sums { return &sums{index: map[ruleset.Counter]int{}} }

func (s *sums) add(subject ruleset.Counter, packets, bytes uint64) {
	i := s.at(subject)
	s.all[i].Packets += packets
	s.all[i].Bytes += bytes
}

// at returns the place of a subject in all.
func (s *sums) at(subject ruleset.Counter) int {
	i, ok := s.index[subject]
	if !ok {
		i = len(s.all)
		s.index[subject] = i
		s.all = append(s.all, subject)
	}
	return i
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

// An identity tells what counts apart: a rule by its handle, or an element by the handle of its map and its key.
type identity struct {
	handle  uint64
	element string
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

// consistently has read read, again when what it reads changes meanwhile.
func consistently(ctx context.Context, o Options, read func(*conn) error) error {
	c, err := dial(o.NetNS)
	if err != nil {
		return fmt.Errorf("read counters: %w", err)
	}
	defer c.close()
	for try := 1; ; try++ {
		err := read(c)
		switch {
		case err == nil:
			return nil
		case ctx.Err() != nil:
			return ctx.Err()
		case !errors.Is(err, errInterrupted) || try == dumpTries:
			return fmt.Errorf("read counters: %w", err)
		}
	}
}

// frame reads chains and rules.
func (c *conn) frame() (*view, error) {
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
	return v, whileReading(err)
}

// whileReading is for errors of reading what was there a moment ago.
func whileReading(err error) error {
	if errors.Is(err, unix.ENOENT) {
		return errInterrupted
	}
	return err
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

// elements reads the elements that count.
func (c *conn) elements(v *view) error {
	handles, err := c.countedMaps(v)
	for name, handle := range handles {
		if err != nil {
			return err
		}
		err = c.eachElement(name, func(e []byte) { v.maps[name] = append(v.maps[name], v.countedElement(handle, e)) })
		slices.SortFunc(v.maps[name], func(a, b viewRule) int {
			return cmp.Or(a.id.Compare(b.id), cmp.Compare(a.index, b.index), strings.Compare(a.element, b.element))
		})
	}
	return err
}

// countedMaps returns the handles of the maps with elements that count, by name.
func (c *conn) countedMaps(v *view) (map[string]uint64, error) {
	if v.handle == 0 {
		return nil, nil
	}
	handles := map[string]uint64{}
	data := attrString(nil, unix.NFTA_SET_TABLE, TableName)
	err := c.request(message{typ: nftType(unix.NFT_MSG_GETSET), flags: unix.NLM_F_DUMP, data: data}, func(m *message) {
		if a := m.payload(); find(a, nftaSetExpr) != nil {
			handles[text(find(a, unix.NFTA_SET_NAME))] = long(find(a, nftaSetHandle))
		}
	})
	return handles, whileReading(err)
}

// eachElement calls f with what there is of each element of a set; it is valid during the call.
func (c *conn) eachElement(name string, f func([]byte)) error {
	data := attrString(attrString(nil, unix.NFTA_SET_ELEM_LIST_TABLE, TableName), unix.NFTA_SET_ELEM_LIST_SET, name)
	err := c.request(message{typ: nftType(unix.NFT_MSG_GETSETELEM), flags: unix.NLM_F_DUMP, data: data}, func(m *message) {
		for _, e := range attributes(find(m.payload(), unix.NFTA_SET_ELEM_LIST_ELEMENTS)) {
			f(e)
		}
	})
	return whileReading(err)
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
	var out []countedRule
	v.walk(func(at *ruleset.Counter, r *viewRule) {
		if r.counts && !r.silent(at) {
			out = append(out, countedRule{*r, r.subject(*at)})
		}
		for _, e := range v.maps[r.lookup] {
			if !e.silent(at) {
				out = append(out, countedRule{e, e.subject(*at)})
			}
		}
	})
	return out
}

// silent reports whether what a rule counts at a place is not shown: it stands for an enforced policy among staged ones.
func (r *viewRule) silent(at *ruleset.Counter) bool { return at.Staged && r.comment == "" }

// walk calls f with every rule and where it stands, those of a chain before those of the chains that it leads to.
func (v *view) walk(f func(at *ruleset.Counter, r *viewRule)) {
	seen := map[string]bool{}
	var visit func(name string)
	visit = func(name string) {
		c := v.chains[name]
		if c == nil || seen[name] {
			return
		}
		seen[name] = true
		at := v.place(name, nil)
		if !strings.Contains(c.comment, againRemark) {
			for i := range c.rules {
				f(&at, &c.rules[i])
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
		if s.Reason == ruleset.ServiceLoop {
			s.Stage = ruleset.Forward
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
	case "source is not the workload's", ownRemark:
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
	case ruleset.ServiceLoop.String():
		return ruleset.ServiceLoop, true
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
