// Package selector parses and evaluates label expressions, the one language by which policies choose endpoints and
// addresses.
//
//	text --Parse--> *Selector --Matches(labels)--> bool
//	                   |
//	                   +--String--> canonical text --ID--> name of the set of what it matches
//
// A Selector is a value: it never changes and may be shared between goroutines. The package does no I/O. It knows
// nothing of what labels are attached to; that global() means "things with no namespace" is for the caller, who asks
// IsGlobal.
package selector

import (
	"crypto/sha256"
	"encoding/base64"
	"slices"
	"strings"
	"sync/atomic"
)

// Labels is what a selector is evaluated against.
type Labels interface {
	// Get returns the value of a label and whether there is such a label.
	Get(name string) (string, bool)
}

// Map is the plain implementation of Labels.
type Map map[string]string

// Get implements Labels.
func (m Map) Get(name string) (string, bool) {
	value, ok := m[name]
	return value, ok
}

// A Selector is a parsed expression. A nil or zero Selector matches nothing, and so does all that is built from it.
type Selector struct {
	root *node // nil: matches nothing
	text string
	id   atomic.Pointer[string] // made when first asked for: most selectors are parsed only to see whether they can be
}

// nothing is the text of a selector that matches nothing.
const nothing = "!all()"

// newSelector returns the selector for a tree, nil for nil.
func newSelector(root *node) *Selector {
	if root == nil {
		return nil
	}
	return &Selector{root: root, text: string(root.appendText(nil))}
}

// idOf names a canonical form as Felix does: the prefix is part of what is hashed, so that kinds of IDs never clash.
func idOf(text string) string {
	sum := sha256.Sum224([]byte("s:" + text))
	return "s:" + base64.RawURLEncoding.EncodeToString(sum[:])
}

// Matches reports whether labels satisfy the selector. It does not allocate.
func (s *Selector) Matches(labels Labels) bool {
	return s != nil && s.root != nil && s.root.matches(labels)
}

// String returns the canonical form. [Parse] makes the same selector of it, unless the functions below put together
// something beyond the bounds of Parse.
func (s *Selector) String() string {
	if s == nil || s.root == nil {
		return nothing
	}
	return s.text
}

// ID returns a name for the canonical form that is short and safe in file and set names: "s:" and a SHA-224 in
// URL-safe base64. Selectors with equal IDs match the same labels.
func (s *Selector) ID() string {
	if s == nil || s.root == nil {
		return idOf(nothing)
	}
	if id := s.id.Load(); id != nil {
		return *id
	}
	id := idOf(s.text)
	s.id.Store(&id)
	return id
}

// IsAll reports whether the selector is exactly all().
func (s *Selector) IsAll() bool { return s != nil && s.root != nil && s.root.op == opAll }

// IsGlobal reports whether the selector is exactly global().
func (s *Selector) IsGlobal() bool { return s != nil && s.root != nil && s.root.op == opGlobal }

// HasGlobal reports whether global() occurs anywhere in the selector. It is legal only alone, and only as a rule's
// namespaceSelector; Matches takes it for all().
func (s *Selector) HasGlobal() bool { return s != nil && s.root != nil && s.root.has(opGlobal) }

// All returns all().
func All() *Selector { return newSelector(&node{op: opAll}) }

// And returns the selector that matches what all of sels match: nil if one of them is nil, all() if there are none.
func And(sels ...*Selector) *Selector {
	var operands []*node
	var only *Selector
	for _, s := range sels {
		if s == nil || s.root == nil {
			return nil
		}
		if s.root.op != opAll {
			operands, only = append(operands, s.root), s
		}
	}
	switch len(operands) {
	case 0:
		return All()
	case 1:
		return only
	}
	return newSelector(group(opAnd, operands))
}

// Not returns the selector that matches what s does not match, but nil for nil: a selector in doubt matches nothing
// however it is used.
func Not(s *Selector) *Selector {
	if s == nil || s.root == nil {
		return nil
	}
	return newSelector(negate(s.root))
}

// Has returns has(label), or nil if the label is none.
func Has(label string) *Selector {
	if !isLabel(label) {
		return nil
	}
	return newSelector(&node{op: opHas, label: label})
}

// Equal returns label == "value", or nil if the label is none or the value holds both kinds of quotes.
func Equal(label, value string) *Selector {
	if !isLabel(label) || !quotable(value) {
		return nil
	}
	return newSelector(&node{op: opEqual, label: label, values: []string{value}})
}

// In returns label in {values}, or nil if the label is none or a value holds both kinds of quotes.
func In(label string, values ...string) *Selector {
	if !isLabel(label) || !all(values, quotable) {
		return nil
	}
	return newSelector(&node{op: opIn, label: label, values: sortedSet(values)})
}

// WithPrefix returns the selector over labels whose names carry a prefix: has(x) with "pcns." becomes has(pcns.x).
func (s *Selector) WithPrefix(prefix string) *Selector {
	if s == nil || s.root == nil || !all([]byte(prefix), isLabelByte) {
		return nil
	}
	return newSelector(s.root.withPrefix(prefix))
}

func all[E any](list []E, ok func(E) bool) bool {
	return !slices.ContainsFunc(list, func(e E) bool { return !ok(e) })
}

// quotable reports whether a string can be written in a selector, which has no escapes.
func quotable(s string) bool { return !strings.Contains(s, `"`) || !strings.Contains(s, `'`) }

// sortedSet returns the values in order, each once.
func sortedSet(values []string) []string {
	sorted := slices.Clone(values)
	slices.Sort(sorted)
	return slices.Compact(sorted)
}
