package selector

// A Requirement is met by labels that hold Label, with exactly Value if HasValue.
type Requirement struct {
	Label, Value string
	HasValue     bool
}

// Requirements returns a list such that all labels which s matches meet at least one entry, for an index that wants to
// skip most selectors. ok is false if there is no such list, as for !has(a): then s has to be asked. An empty list with
// ok means that s matches nothing.
func (s *Selector) Requirements() (list []Requirement, ok bool) {
	if s == nil || s.root == nil {
		return nil, true
	}
	return s.root.requirements()
}

// WithAll returns the selector in which another one stands for every all(), for callers to whom "all" is less than
// everything: a namespaceSelector of all() means all that is in a namespace (spec 2.4).
func (s *Selector) WithAll(all *Selector) *Selector {
	if s == nil || s.root == nil || all == nil || all.root == nil {
		return nil
	}
	return newSelector(s.root.withAll(all.root))
}

func (n *node) requirements() ([]Requirement, bool) {
	switch n.op {
	case opNothing:
		return nil, true
	case opEqual, opIn:
		list := make([]Requirement, len(n.values))
		for i, value := range n.values {
			list[i] = Requirement{n.label, value, true}
		}
		return list, true
	case opHas, opContains, opStartsWith, opEndsWith:
		return []Requirement{{Label: n.label}}, true
	case opAnd:
		return n.cheapest()
	case opOr:
		var list []Requirement
		for _, operand := range n.operands {
			more, ok := operand.requirements()
			if !ok {
				return nil, false
			}
			list = append(list, more...)
		}
		return list, true
	}
	return nil, false
}

// cheapest returns the requirements of the operand of an and that fewest labels meet, as far as one can tell without
// knowing the labels: a value is taken to be much rarer than a name.
func (n *node) cheapest() (best []Requirement, found bool) {
	cost := func(list []Requirement) int {
		sum := 0
		for _, r := range list {
			if sum++; !r.HasValue {
				sum += 99
			}
		}
		return sum
	}
	for _, operand := range n.operands {
		list, ok := operand.requirements()
		if ok && (!found || cost(list) < cost(best)) {
			best, found = list, true
		}
	}
	return best, found
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
