package nft

import (
	"cmp"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// A dump is what the kernel holds.
type dump struct {
	table      *Table // nil: there is no table
	bridge     *Table // that of family bridge
	handles    map[string][]uint64
	generation uint32 // of all rules of the network namespace
}

// dumpTries bounds how often reading starts again because somebody changes rules meanwhile.
const dumpTries = 50

// dump reads the table, all of it from one generation.
func (c *conn) dump() (*dump, error) {
	for try := 1; ; try++ {
		d, err := c.dumpOnce()
		if err == nil || !errors.Is(err, errInterrupted) || try == dumpTries {
			return d, err
		}
	}
}

func (c *conn) dumpOnce() (*dump, error) {
	before, err := c.generation()
	if err != nil {
		return nil, err
	}
	d := &dump{generation: before, handles: map[string][]uint64{}}
	if d.table, err = (&reader{conn: c, dump: d}).read(); err != nil {
		return nil, err
	}
	if d.bridge, err = (&reader{conn: c, dump: &dump{handles: map[string][]uint64{}}, family: unix.NFPROTO_BRIDGE}).read(); err != nil {
		return nil, err
	}
	after, err := c.generation()
	if err == nil && after != before {
		err = errInterrupted
	}
	return d, err
}

func (c *conn) generation() (uint32, error) {
	var id uint32
	err := c.request(message{typ: nftType(unix.NFT_MSG_GETGEN), flags: unix.NLM_F_ACK}, func(m *message) {
		id = number(find(m.payload(), unix.NFTA_GEN_ID))
	})
	if err != nil {
		return 0, fmt.Errorf("read generation of nftables: %w (is nf_tables in the kernel, and are we root?)", err)
	}
	return id, nil
}

// A reader fills a dump.
type reader struct {
	*conn
	dump   *dump
	family byte   // 0: inet
	use    uint32 // objects in the table, as the kernel counts them
	bad    error  // the first thing that could not be understood
}

// read returns the table of the reader's family, nil if there is none.
func (r *reader) read() (*Table, error) {
	ok, err := r.table()
	if err != nil || !ok {
		return nil, err
	}
	for _, step := range []struct {
		what string
		get  uint16
		f    func([]attribute)
		data []byte
	}{
		{"chains", unix.NFT_MSG_GETCHAIN, r.chain, nil}, // the kernel lists those of all tables
		{"sets", unix.NFT_MSG_GETSET, r.set, attrString(nil, unix.NFTA_SET_TABLE, TableName)},
		{"rules", unix.NFT_MSG_GETRULE, r.rule, attrString(nil, unix.NFTA_RULE_TABLE, TableName)},
	} {
		if err := r.list(step.what, step.get, step.data, step.f); err != nil {
			return nil, err
		}
	}
	for _, s := range r.dump.table.Sets {
		if err := r.elements(s); err != nil {
			return nil, err
		}
	}
	t := r.dump.table
	if count := len(t.Chains) + len(t.Sets); t.Odd == "" && uint32(count) != r.use {
		t.Odd = fmt.Sprintf("%d objects that are neither chain nor set", int64(r.use)-int64(count))
	}
	return t, r.bad
}

// list asks for a dump and hands the attributes of every message to f.
func (r *reader) list(what string, get uint16, data []byte, f func([]attribute)) error {
	err := r.request(message{typ: nftType(get), flags: unix.NLM_F_DUMP, family: r.family, data: data}, func(m *message) { f(m.payload()) })
	if err != nil && !errors.Is(err, errInterrupted) {
		if errors.Is(err, unix.ENOENT) {
			return errInterrupted // it was there a moment ago
		}
		return fmt.Errorf("read %s: %w", what, err)
	}
	return err
}

// table reports whether the table exists.
func (r *reader) table() (bool, error) {
	data := attrString(nil, unix.NFTA_TABLE_NAME, TableName)
	err := r.request(message{typ: nftType(unix.NFT_MSG_GETTABLE), flags: unix.NLM_F_ACK, family: r.family, data: data}, func(m *message) {
		a := m.payload()
		r.dump.table = NewTable()
		r.use = number(find(a, unix.NFTA_TABLE_USE))
		if flags := number(find(a, unix.NFTA_TABLE_FLAGS)); flags != 0 {
			r.dump.table.Odd = fmt.Sprintf("flags %#x", flags)
		}
	})
	if errors.Is(err, unix.ENOENT) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("read table %s: %w", TableName, err)
	}
	return r.dump.table != nil, nil
}

// chainBase is the flag of a chain that has a hook (NFT_CHAIN_BASE), in an attribute that package unix does not know.
const (
	nftaChainFlags = 10
	chainBase      = 0x1
)

func (r *reader) chain(a []attribute) {
	if text(find(a, unix.NFTA_CHAIN_TABLE)) != TableName {
		return
	}
	c := &Chain{Name: text(find(a, unix.NFTA_CHAIN_NAME))}
	r.dump.table.Chains[c.Name] = c
	var ok bool
	if c.Comment, ok = commentOf(find(a, nftaChainUserData), udataChainComment); !ok {
		c.Odd = "user data"
	}
	flags := number(find(a, nftaChainFlags))
	if h := find(a, unix.NFTA_CHAIN_HOOK); h != nil {
		flags &^= chainBase
		hook := attrs(h)
		c.Base = &Base{
			Type: text(find(a, unix.NFTA_CHAIN_TYPE)), Hook: number(find(hook, unix.NFTA_HOOK_HOOKNUM)),
			Priority: int32(number(find(hook, unix.NFTA_HOOK_PRIORITY))),
			Drop:     number(find(a, unix.NFTA_CHAIN_POLICY)) == nfDrop,
		}
	}
	if flags != 0 {
		c.Odd = fmt.Sprintf("flags %#x", flags)
	}
}

func (r *reader) rule(a []attribute) {
	c := r.dump.table.Chains[text(find(a, unix.NFTA_RULE_CHAIN))]
	if c == nil || text(find(a, unix.NFTA_RULE_TABLE)) != TableName {
		return
	}
	rule, handle := readRule(a)
	c.Rules = append(c.Rules, rule)
	r.dump.handles[c.Name] = append(r.dump.handles[c.Name], handle)
}

func readRule(a []attribute) (*Rule, uint64) {
	rule := &Rule{code: canonical(find(a, unix.NFTA_RULE_EXPRESSIONS))}
	var ok bool
	if rule.Comment, ok = commentOf(find(a, unix.NFTA_RULE_USERDATA), udataRuleComment); !ok ||
		find(a, unix.NFTA_RULE_COMPAT) != nil {
		rule.code = "" // unlike any of ours
	}
	handle := find(a, unix.NFTA_RULE_HANDLE)
	if len(handle) != 8 {
		return rule, 0
	}
	return rule, binary.BigEndian.Uint64(handle)
}

func (r *reader) set(a []attribute) {
	if text(find(a, unix.NFTA_SET_TABLE)) != TableName {
		return
	}
	flags := number(find(a, unix.NFTA_SET_FLAGS))
	s := newSet(text(find(a, unix.NFTA_SET_NAME)), nil)
	r.dump.table.Sets[s.Name] = s
	var err error
	s.Type, err = typeOfKernel(number(find(a, unix.NFTA_SET_KEY_TYPE)), number(find(a, unix.NFTA_SET_KEY_LEN)),
		flags&setInterval != 0, flags&setMap != 0)
	if err != nil {
		s.Odd = err.Error()
		return
	}
	s.Constant = flags&setConstant != 0
	if e := find(a, nftaSetExpr); e != nil {
		if s.Counted = text(find(attrs(e), unix.NFTA_EXPR_NAME)) == counterExpr; !s.Counted {
			s.Odd = "an expression in every element"
			return
		}
	}
	s.Comment = s.commentIn(find(a, unix.NFTA_SET_USERDATA))
	s.Odd = s.oddity(a, flags)
}

// commentIn returns the comment in the user data of a set.
func (s *Set) commentIn(b []byte) string {
	for len(b) >= 2 && len(b) >= 2+int(b[1]) {
		if b[0] == udataSetComment {
			return text(b[2 : 2+int(b[1])])
		}
		b = b[2+int(b[1]):]
	}
	return ""
}

// oddity says what of a set in the kernel none of ours has, or "".
func (s *Set) oddity(a []attribute, flags uint32) string {
	switch {
	case flags != s.flags():
		return fmt.Sprintf("flags %#x", flags)
	case string(find(a, unix.NFTA_SET_USERDATA)) != string(s.userData()):
		return "user data"
	case s.Type.verdicts && number(find(a, unix.NFTA_SET_DATA_TYPE)) != unix.NFT_DATA_VERDICT:
		return "data type"
	case find(attrs(find(a, unix.NFTA_SET_DESC)), unix.NFTA_SET_DESC_SIZE) != nil:
		return "size"
	}
	for _, typ := range []uint16{unix.NFTA_SET_TIMEOUT, unix.NFTA_SET_GC_INTERVAL, unix.NFTA_SET_POLICY,
		unix.NFTA_SET_OBJ_TYPE, nftaSetExpressions} {
		if find(a, typ) != nil {
			return fmt.Sprintf("attribute %d", typ)
		}
	}
	return ""
}

// Attributes that package unix does not know (Linux 5.11).
const (
	nftaSetExpr        = 17
	nftaSetExpressions = 18
)

func (r *reader) elements(s *Set) error {
	data := attrString(attrString(nil, unix.NFTA_SET_ELEM_LIST_TABLE, TableName), unix.NFTA_SET_ELEM_LIST_SET, s.Name)
	var elements []Element
	texts := texts{}
	err := r.list("set "+s.Name, unix.NFT_MSG_GETSETELEM, data, func(a []attribute) {
		for _, e := range attributes(find(a, unix.NFTA_SET_ELEM_LIST_ELEMENTS)) {
			elements = append(elements, s.readElement(e, texts))
		}
	})
	if s.Type != nil && s.Type.interval {
		elements = pairEnds(elements)
	}
	s.elements = make(map[Element]struct{}, len(elements))
	for _, e := range elements {
		s.elements[e] = struct{}{}
	}
	// A hash that the kernel is resizing (rhashtable) is listed in two orders: what is there twice stands for what is missing.
	if len(s.elements) != len(elements) && err == nil {
		err = errInterrupted
	}
	return err
}

// pairEnds joins the first keys of intervals with the ends that follow.
func pairEnds(elements []Element) []Element {
	slices.SortFunc(elements, func(a, b Element) int {
		return cmp.Or(strings.Compare(a.Key, b.Key), oneIf(b.End)-oneIf(a.End))
	})
	var out []Element
	for _, e := range elements {
		if i := len(out) - 1; e.End && !e.Odd && i >= 0 && !out[i].End && out[i].Until == "" {
			out[i].Until = e.Key
			continue
		}
		out = append(out, e)
	}
	return out
}

// texts are comments and verdicts that many elements share.
type texts map[string]string

func (t texts) of(b []byte) string {
	s, ok := t[string(b)]
	if !ok {
		s = string(b)
		t[s] = s
	}
	return s
}

// readElement reads an element. There may be very many: it makes nothing but their keys.
func (s *Set) readElement(b []byte, shared texts) Element {
	var e Element
	for typ, data := range attributes(b) {
		switch typ {
		case unix.NFTA_SET_ELEM_KEY:
			e.Key = string(within(data, unix.NFTA_DATA_VALUE))
		case unix.NFTA_SET_ELEM_FLAGS:
			flags := number(data)
			e.End = flags&elementEnd != 0
			e.Odd = e.Odd || flags&^elementEnd != 0
		case unix.NFTA_SET_ELEM_DATA:
			e.Verdict = readVerdict(within(data, unix.NFTA_DATA_VERDICT), shared)
			e.Odd = e.Odd || e.Verdict == ""
		case unix.NFTA_SET_ELEM_USERDATA:
			text, ok := commentBytes(data, udataElementComment)
			e.Comment = shared.of(text)
			e.Odd = e.Odd || !ok
		case unix.NFTA_SET_ELEM_EXPR:
			e.Odd = e.Odd || !s.Counted || string(untilZero(within(data, unix.NFTA_EXPR_NAME))) != counterExpr
		default:
			e.Odd = true
		}
	}
	return e
}

// readVerdict returns "" for a verdict that none of ours is.
func readVerdict(b []byte, shared texts) verdict {
	switch int32(number(within(b, unix.NFTA_VERDICT_CODE))) {
	case nfAccept:
		return verdictAccept
	case nfDrop:
		return verdictDrop
	case unix.NFT_JUMP:
		var room [len(jumpPrefix) + 2*maxName]byte
		return verdict(shared.of(append(append(room[:0], jumpPrefix...), untilZero(within(b, unix.NFTA_VERDICT_CHAIN))...)))
	}
	return ""
}

// chainHandles reads the handles of a chain's rules. It fails when they are not the rules that we know.
func (c *conn) chainHandles(name string, want []*Rule) ([]uint64, error) {
	data := attrString(attrString(nil, unix.NFTA_RULE_TABLE, TableName), unix.NFTA_RULE_CHAIN, name)
	for try := 1; ; try++ {
		var handles []uint64
		same := true
		err := c.request(message{typ: nftType(unix.NFT_MSG_GETRULE), flags: unix.NLM_F_DUMP, data: data},
			func(m *message) {
				rule, handle := readRule(m.payload())
				same = same && len(handles) < len(want) && rule.equal(want[len(handles)])
				handles = append(handles, handle)
			})
		switch {
		case errors.Is(err, errInterrupted) && try < dumpTries:
			continue
		case err != nil:
			return nil, fmt.Errorf("read chain %s: %w", name, err)
		case !same || len(handles) != len(want):
			return nil, fmt.Errorf("chain %s is not as it was programmed (somebody else changed it)", name)
		}
		return handles, nil
	}
}
