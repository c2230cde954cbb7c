package selector

import (
	"slices"
	"strings"
)

// An op is what a node of the tree does. The zero value matches nothing.
type op uint8

const (
	opNothing op = iota
	opAll
	opGlobal
	opHas
	opEqual
	opNotEqual
	opIn
	opNotIn
	opContains
	opStartsWith
	opEndsWith
	opNot
	opAnd
	opOr
)

// words are the comparisons as the canonical form spells them.
var words = [...]string{
	opEqual: "==", opNotEqual: "!=", opIn: "in", opNotIn: "not in",
	opContains: "contains", opStartsWith: "starts with", opEndsWith: "ends with",
}

// A node is one operation. Nodes are not changed once they are in a Selector.
type node struct {
	op       op
	label    string
	values   []string // one string to compare with, or for in and not in any number, sorted, each once
	operands []*node  // of not: one, of and, or: at least two
	depth    int      // how many operations that have operands are nested here, this one included
}

// negate returns !n. Two negations cancel out: !!a reads back as a.
func negate(n *node) *node {
	if n.op == opNot {
		return n.operands[0]
	}
	return &node{op: opNot, operands: []*node{n}, depth: n.depth + 1}
}

// group joins operands by and or or; one operand is itself.
func group(o op, operands []*node) *node {
	if len(operands) == 1 {
		return operands[0]
	}
	depth := 0
	for _, n := range operands {
		depth = max(depth, n.depth)
	}
	return &node{op: o, operands: operands, depth: depth + 1}
}

func (n *node) matches(labels Labels) bool {
	switch n.op {
	case opAll, opGlobal:
		return true
	case opNot:
		return !n.operands[0].matches(labels)
	case opAnd:
		for _, operand := range n.operands {
			if !operand.matches(labels) {
				return false
			}
		}
		return true
	case opOr:
		for _, operand := range n.operands {
			if operand.matches(labels) {
				return true
			}
		}
		return false
	}
	value, ok := labels.Get(n.label)
	return n.compare(value, ok)
}

// compare answers for one label. != and not in hold where the label is absent, the others do not.
func (n *node) compare(value string, present bool) bool {
	switch n.op {
	case opHas:
		return present
	case opEqual:
		return present && value == n.values[0]
	case opNotEqual:
		return !present || value != n.values[0]
	case opIn:
		return present && n.inSet(value)
	case opNotIn:
		return !present || !n.inSet(value)
	case opContains:
		return present && strings.Contains(value, n.values[0])
	case opStartsWith:
		return present && strings.HasPrefix(value, n.values[0])
	case opEndsWith:
		return present && strings.HasSuffix(value, n.values[0])
	}
	return false
}

func (n *node) inSet(value string) bool {
	_, found := slices.BinarySearch(n.values, value)
	return found
}

func (n *node) has(o op) bool {
	return n.op == o || slices.ContainsFunc(n.operands, func(operand *node) bool { return operand.has(o) })
}

func (n *node) withPrefix(prefix string) *node {
	renamed := *n
	if n.label != "" {
		renamed.label = prefix + n.label
	}
	renamed.operands = make([]*node, len(n.operands))
	for i, operand := range n.operands {
		renamed.operands[i] = operand.withPrefix(prefix)
	}
	return &renamed
}

// appendText appends the canonical form.
func (n *node) appendText(b []byte) []byte {
	switch n.op {
	case opAll:
		return append(b, "all()"...)
	case opGlobal:
		return append(b, "global()"...)
	case opHas:
		return append(append(append(b, "has("...), n.label...), ')')
	case opNot:
		return n.operands[0].appendText(append(b, '!'))
	case opAnd:
		return n.appendGroup(b, " && ")
	case opOr:
		return n.appendGroup(b, " || ")
	}
	b = append(append(b, n.label...), ' ')
	b = append(append(b, words[n.op]...), ' ')
	if n.op == opIn || n.op == opNotIn {
		return n.appendSet(b)
	}
	return appendQuoted(b, n.values[0])
}

func (n *node) appendGroup(b []byte, separator string) []byte {
	b = append(b, '(')
	for i, operand := range n.operands {
		if i > 0 {
			b = append(b, separator...)
		}
		b = operand.appendText(b)
	}
	return append(b, ')')
}

func (n *node) appendSet(b []byte) []byte {
	b = append(b, '{')
	for i, value := range n.values {
		if i > 0 {
			b = append(b, ", "...)
		}
		b = appendQuoted(b, value)
	}
	return append(b, '}')
}

func appendQuoted(b []byte, value string) []byte {
	quote := byte('"')
	if strings.Contains(value, `"`) {
		quote = '\''
	}
	return append(append(append(b, quote), value...), quote)
}
