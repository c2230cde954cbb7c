package selector

import (
	"fmt"
	"strings"
)

// The bounds of Parse. A selector in a manifest has at most 1024 characters, but one that is made from a
// Kubernetes NetworkPolicy may be longer.
const (
	maxLength = 64 << 10 // bytes of the text, and of the canonical form
	maxDepth  = 64       // nested brackets, and nested operations of the tree
	maxLabel  = 512      // bytes of a label's name
)

// A ParseError says why and where a text is no selector.
type ParseError struct {
	Offset int // in bytes, from 0
	Msg    string
}

// Error implements error.
func (e *ParseError) Error() string { return fmt.Sprintf("%s (at offset %d)", e.Msg, e.Offset) }

// Parse returns the selector that a text stands for, or a *ParseError. An empty text is all().
func Parse(text string) (*Selector, error) {
	p := &parser{text: text}
	root, err := p.parse()
	if err != nil {
		return nil, err
	}
	s := newSelector(root)
	if len(s.text) > maxLength {
		return nil, p.tooLong(len(s.text))
	}
	return s, nil
}

// A parser is the state of one Parse: a recursive descent over the grammar of selectors, a method for each rule.
type parser struct {
	text     string
	pos      int
	brackets int // open now
}

func (p *parser) parse() (*node, error) {
	if len(p.text) > maxLength {
		return nil, p.tooLong(len(p.text))
	}
	p.space()
	if p.atEnd() {
		return &node{op: opAll}, nil
	}
	root, err := p.or()
	if err != nil {
		return nil, err
	}
	if !p.atEnd() {
		return nil, p.trailing()
	}
	if root.depth > maxDepth {
		return nil, p.tooDeep()
	}
	return root, nil
}

// or parses and { "||" and }.
func (p *parser) or() (*node, error) { return p.group(opOr, "||", p.and) }

// and parses op { "&&" op }.
func (p *parser) and() (*node, error) { return p.group(opAnd, "&&", p.operation) }

func (p *parser) group(o op, separator string, operand func() (*node, error)) (*node, error) {
	var operands []*node
	for {
		n, err := operand()
		if err != nil {
			return nil, err
		}
		operands = append(operands, n)
		if p.space(); !p.take(separator) {
			return group(o, operands), nil
		}
	}
}

// operation parses { "!" } atom.
func (p *parser) operation() (*node, error) {
	negated := false
	for p.space(); p.take("!"); p.space() {
		negated = !negated
	}
	n, err := p.atom()
	if err != nil || !negated {
		return n, err
	}
	return negate(n), nil
}

// atom parses a group in brackets, a function or a comparison. The name of a function is one only right before its
// bracket: `all == "x"` compares the label all, and `all ()` is an error.
func (p *parser) atom() (*node, error) {
	switch {
	case p.atEnd():
		return nil, p.fail("unexpected end of string looking for op")
	case p.take("("):
		return p.bracketed()
	case p.take("all("):
		return p.function(&node{op: opAll}, "all(")
	case p.take("global("):
		return p.function(&node{op: opGlobal}, "global(")
	case p.take("has("):
		p.space()
		label, err := p.label()
		if err != nil {
			return nil, err
		}
		return p.function(&node{op: opHas, label: label}, "has(")
	}
	label, err := p.label()
	if err != nil {
		return nil, err
	}
	return p.comparison(label)
}

func (p *parser) bracketed() (*node, error) {
	if p.brackets++; p.brackets > maxDepth {
		return nil, p.tooDeep()
	}
	n, err := p.or()
	if err != nil {
		return nil, err
	}
	p.brackets--
	if !p.take(")") {
		return nil, p.expected(")")
	}
	return n, nil
}

func (p *parser) function(n *node, name string) (*node, error) {
	if p.space(); !p.take(")") {
		return nil, p.fail("no closing ')' after %s", name)
	}
	return n, nil
}

// comparison parses what follows a label.
func (p *parser) comparison(label string) (*node, error) {
	p.space()
	if p.atEnd() {
		return nil, p.fail("unexpected end of string looking for op")
	}
	o := p.comparator()
	switch o {
	case opNothing:
		return nil, p.unexpected(fmt.Sprintf("expected operator after label %q", label))
	case opIn, opNotIn:
		values, err := p.set()
		return &node{op: o, label: label, values: values}, err
	}
	p.space()
	value, err := p.quoted()
	return &node{op: o, label: label, values: []string{value}}, err
}

func (p *parser) comparator() op {
	switch {
	case p.take("=="):
		return opEqual
	case p.take("!="):
		return opNotEqual
	case p.takeWords("contains"):
		return opContains
	case p.takeWords("starts", "with"):
		return opStartsWith
	case p.takeWords("ends", "with"):
		return opEndsWith
	case p.takeWords("not", "in"):
		return opNotIn
	case p.takeWords("in"):
		return opIn
	}
	return opNothing
}

// set parses { strings }; a comma may follow the last one.
func (p *parser) set() ([]string, error) {
	if p.space(); !p.take("{") {
		return nil, p.fail("expected set literal")
	}
	var values []string
	for p.space(); p.peek() == '"' || p.peek() == '\''; p.space() {
		value, err := p.quoted()
		if err != nil {
			return nil, err
		}
		values = append(values, value)
		if p.space(); !p.take(",") {
			break
		}
	}
	if !p.take("}") {
		return nil, p.expected("}")
	}
	return sortedSet(values), nil
}

func (p *parser) quoted() (string, error) {
	quote := p.peek()
	if quote != '"' && quote != '\'' {
		return "", p.fail("expected string")
	}
	length := strings.IndexByte(p.text[p.pos+1:], quote)
	if length < 0 {
		return "", p.fail("unterminated string")
	}
	value := p.text[p.pos+1 : p.pos+1+length]
	p.pos += length + 2
	return value, nil
}

func (p *parser) label() (string, error) {
	end := p.pos
	for end < len(p.text) && isLabelByte(p.text[end]) {
		end++
	}
	label := p.text[p.pos:end]
	switch {
	case label == "":
		return "", p.unexpected("expected identifier")
	case len(label) > maxLabel:
		return "", p.fail("label too long: %d bytes, at most %d", len(label), maxLabel)
	}
	p.pos = end
	return label, nil
}

// space skips blanks and tabs. A newline is not white space.
func (p *parser) space() {
	for p.peek() == ' ' || p.peek() == '\t' {
		p.pos++
	}
}

// take moves behind a text if it is next.
func (p *parser) take(text string) bool {
	if !strings.HasPrefix(p.text[p.pos:], text) {
		return false
	}
	p.pos += len(text)
	return true
}

// takeWords moves behind words if they are next, with or without blanks between them, and end there.
func (p *parser) takeWords(words ...string) bool {
	start := p.pos
	for i, word := range words {
		if i > 0 {
			p.space()
		}
		if !p.take(word) {
			p.pos = start
			return false
		}
	}
	if isLabelByte(p.peek()) {
		p.pos = start
		return false
	}
	return true
}

// peek returns the next byte, 0 at the end. A byte 0 in the text is legal only in a string and ends up as an error
// elsewhere, like every other byte that begins nothing.
func (p *parser) peek() byte {
	if p.atEnd() {
		return 0
	}
	return p.text[p.pos]
}

func (p *parser) atEnd() bool { return p.pos >= len(p.text) }

func (p *parser) fail(format string, args ...any) error {
	return &ParseError{p.pos, fmt.Sprintf(format, args...)}
}

// unexpected is fail with msg, but half an operator is named as such.
func (p *parser) unexpected(msg string) error {
	for _, operator := range []string{"==", "&&", "||"} {
		if p.peek() == operator[0] && !strings.HasPrefix(p.text[p.pos:], operator) {
			msg = "expected " + operator
		}
	}
	return p.fail("%s", msg)
}

func (p *parser) expected(what string) error { return p.unexpected("expected " + what) }

func (p *parser) trailing() error {
	const shown = 40
	rest := p.text[p.pos:]
	if len(rest) > shown {
		rest = strings.ToValidUTF8(rest[:shown], "") + "..."
	}
	return p.unexpected("unexpected content at end of selector [" + rest + "]")
}

func (p *parser) tooLong(length int) error {
	return &ParseError{0, fmt.Sprintf("selector too long: %d bytes, at most %d", length, maxLength)}
}

func (p *parser) tooDeep() error { return p.fail("selector too deep: more than %d levels", maxDepth) }

func isLabel(s string) bool { return s != "" && len(s) <= maxLabel && all([]byte(s), isLabelByte) }

func isLabelByte(c byte) bool {
	return 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9' ||
		c == '_' || c == '.' || c == '/' || c == '-'
}
