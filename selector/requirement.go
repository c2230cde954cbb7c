package selector

// A Requirement is met by labels that hold Label, with exactly Value if HasValue.
type Requirement struct {
	Label, Value string
	HasValue     bool
}

// Requirements returns a list such that all labels which s matches meet at least one entry, for an index that wants to
// skip most selectors. ok is false if there is no such list, as for !has(a): then s has to be asked. An empty list with
// ok means that s matches nothing.
//
// Where there is a choice it takes the list that fewest labels meet, as far as one can tell without knowing the labels: a
// value is taken to be much rarer than a name.
func (s *Selector) Requirements() (list []Requirement, ok bool) {
	return s.Rarest(func(r Requirement) int {
		if r.HasValue {
			return 1
		}
		return 100
	})
}

// Rarest is [Selector.Requirements] for a caller who knows the labels: count says how many meet an entry.
func (s *Selector) Rarest(count func(Requirement) int) (list []Requirement, ok bool) {
	if s == nil || s.root == nil {
		return nil, true
	}
	list, _, ok = s.root.rarest(count)
	return list, ok
}

// WithAll returns the selector in which another one stands for every all(), for callers to whom "all" is less than
// everything: a namespaceSelector of all() means all that is in a namespace.
func (s *Selector) WithAll(all *Selector) *Selector {
	if s == nil || s.root == nil || all == nil || all.root == nil {
		return nil
	}
	return newSelector(s.root.withAll(all.root))
}

// rarest returns the requirements of a node and how many labels meet them.
func (n *node) rarest(count func(Requirement) int) (list []Requirement, sum int, ok bool) {
	switch n.op {
	case opNothing:
		return nil, 0, true
	case opEqual, opIn:
		list = make([]Requirement, 0, len(n.values))
		for _, value := range n.values {
			list = append(list, Requirement{n.label, value, true})
			sum += count(list[len(list)-1])
		}
		return list, sum, true
	case opHas, opContains, opStartsWith, opEndsWith:
		list = []Requirement{{Label: n.label}}
		return list, count(list[0]), true
	case opAnd:
		for _, operand := range n.operands {
			if more, n, found := operand.rarest(count); found && (!ok || n < sum) {
				list, sum, ok = more, n, true
			}
		}
		return list, sum, ok
	case opOr:
		for _, operand := range n.operands {
			more, n, found := operand.rarest(count)
			if !found {
				return nil, 0, false
			}
			list, sum = append(list, more...), sum+n
		}
		return list, sum, true
	}
	return nil, 0, false
}

func (n *node) withAll(all *node) *node {
	switch n.op {
	case opAll:
		return all
	case opNot:
		return negate(n.operands[0].withAll(all))
	case opAnd, opOr:
		operands := make([]*node, len(n.operands))
		for i, operand := range n.operands {
			operands[i] = operand.withAll(all)
		}
		return group(n.op, operands)
	}
	return n
}
