package v3

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"strconv"
	"strings"
	"unicode/utf8"

	"go.yaml.in/yaml/v3"
)

// A tree is one document of a file: the nodes carry lines of the file, and JSON and YAML look the same from here on.

// maxDepth bounds how deep documents nest, aliases included.
const maxDepth = 64

// A chunk is the text of one YAML document.
type chunk struct {
	text []byte
	line int // of its first line in the file, from 0
}

// parseFile returns the documents of a file. Those that do not parse are in the errors; the others are still returned,
// so that their faults are reported as well. index of an error counts documents that hold something, from 1.
func parseFile(data []byte) ([]*yaml.Node, Errors) {
	data = bytes.TrimPrefix(data, []byte("\ufeff"))
	if err := refuseBinary(data); err != nil {
		return nil, Errors{err}
	}
	trimmed := bytes.TrimLeft(data, " \t\r\n")
	if len(trimmed) > 0 && (trimmed[0] == '{' || trimmed[0] == '[') {
		trees, jsonErr := parseJSON(data)
		if jsonErr == nil {
			return trees, nil
		}
		// The flow style of YAML begins like JSON. Where it is neither, JSON was meant.
		if trees, errs := parseYAML(data); len(errs) == 0 {
			return trees, nil
		}
		return nil, Errors{jsonErr}
	}
	return parseYAML(data)
}

// refuseBinary refuses what is no text at all, before a parser says something stranger.
func refuseBinary(data []byte) *FieldError {
	for i := 0; i < len(data); {
		r, size := utf8.DecodeRune(data[i:])
		if r == utf8.RuneError && size == 1 || r == 0 {
			return &FieldError{
				Line:   1 + bytes.Count(data[:i], []byte("\n")),
				Reason: fmt.Sprintf("file is no text: byte 0x%02x at offset %d is not UTF-8 or not allowed", data[i], i),
				Remedy: "give a YAML or JSON file in UTF-8",
			}
		}
		i += size
	}
	return nil
}

// splitYAML cuts a file at its document markers, which stand at the beginning of a line wherever they occur (YAML 1.2,
// 9.1.2), also inside of block scalars. Every part can so be parsed alone, and a fault in one does not hide the next.
func splitYAML(data []byte) []chunk {
	var chunks []chunk
	start, startLine := 0, 0
	line := 0
	cut := func(end int) {
		if holdsSomething(data[start:end]) {
			chunks = append(chunks, chunk{data[start:end], startLine})
		}
	}
	for pos := 0; pos < len(data); line++ {
		next := pos + bytes.IndexByte(data[pos:], '\n') + 1
		if next == pos {
			next = len(data)
		}
		switch text := data[pos:next]; {
		case isMarker(text, "---"):
			// Directives belong to the document that the marker opens.
			if hasDirective(data[start:pos]) && !holdsSomething(data[start:pos]) {
				break
			}
			cut(pos)
			start, startLine = pos, line
		case isMarker(text, "..."):
			cut(pos)
			start, startLine = next, line+1
		}
		pos = next
	}
	cut(len(data))
	return chunks
}

func isMarker(line []byte, marker string) bool {
	rest, ok := bytes.CutPrefix(line, []byte(marker))
	return ok && (len(rest) == 0 || strings.IndexByte(" \t\r\n", rest[0]) >= 0)
}

func hasDirective(text []byte) bool {
	return bytes.HasPrefix(bytes.TrimLeft(text, " \t\r\n"), []byte("%"))
}

// holdsSomething reports whether a chunk has a line that is neither empty, comment, directive nor bare marker.
func holdsSomething(text []byte) bool {
	for line := range bytes.Lines(text) {
		if isMarker(line, "---") {
			line = line[3:]
		}
		line = bytes.TrimSpace(line)
		if len(line) > 0 && line[0] != '#' && line[0] != '%' {
			return true
		}
	}
	return false
}

func parseYAML(data []byte) ([]*yaml.Node, Errors) {
	var trees []*yaml.Node
	var errs Errors
	for i, c := range splitYAML(data) {
		var doc yaml.Node
		if err := yaml.Unmarshal(c.text, &doc); err != nil {
			errs = append(errs, yamlError(err, c, i+1))
			trees = append(trees, nil)
			continue
		}
		if doc.Kind != yaml.DocumentNode || len(doc.Content) != 1 {
			trees = append(trees, nil)
			continue
		}
		shiftLines(doc.Content[0], c.line)
		trees = append(trees, doc.Content[0])
	}
	return trees, errs
}

// shiftLines turns lines of the chunk into lines of the file. Aliases are not followed: their targets are in the tree.
func shiftLines(n *yaml.Node, by int) {
	n.Line += by
	for _, child := range n.Content {
		shiftLines(child, by)
	}
}

var yamlLine = lazily(`^yaml: (?:line (\d+): )?(.*)`)

func yamlError(err error, c chunk, document int) *FieldError {
	e := &FieldError{Document: document, Line: c.line + 1, Reason: err.Error()}
	if m := yamlLine.FindStringSubmatch(err.Error()); m != nil {
		e.Reason = "invalid YAML: " + m[2]
		if n, err := strconv.Atoi(m[1]); err == nil {
			e.Line = c.line + n
		}
	}
	if strings.Contains(e.Reason, "cannot start any token") {
		e.Remedy = "indent with blanks, not tabs, and quote values that begin with %, @ or `"
	}
	return e
}

// A jsonParser turns the tokens of encoding/json into YAML nodes, with lines.
type jsonParser struct {
	data []byte
	dec  *json.Decoder
	pos  int // up to here lines are counted
	line int // of pos, from 1
}

// parseJSON takes one value or several in a row.
func parseJSON(data []byte) ([]*yaml.Node, *FieldError) {
	p := &jsonParser{data: data, dec: json.NewDecoder(bytes.NewReader(data)), line: 1}
	p.dec.UseNumber()
	var trees []*yaml.Node
	for {
		n, err := p.value(0)
		if err == io.EOF {
			return trees, nil
		}
		if err != nil {
			return nil, p.fault(err, len(trees)+1)
		}
		trees = append(trees, n)
	}
}

func (p *jsonParser) fault(err error, document int) *FieldError {
	at := p.dec.InputOffset()
	reason := err.Error()
	if syntax, ok := err.(*json.SyntaxError); ok {
		at = syntax.Offset
	}
	if err == io.ErrUnexpectedEOF {
		reason, at = "it ends in the middle of a value", int64(len(p.data))
	}
	return &FieldError{
		Document: document,
		Line:     1 + bytes.Count(p.data[:min(at, int64(len(p.data)))], []byte("\n")),
		Reason:   "invalid JSON: " + reason,
	}
}

// lineOf returns the line of the token just read. Tokens hold no line breaks.
func (p *jsonParser) lineOf() int {
	end := int(p.dec.InputOffset())
	p.line += bytes.Count(p.data[p.pos:end], []byte("\n"))
	p.pos = end
	return p.line
}

// value returns io.EOF if there is no more value and depth is 0.
func (p *jsonParser) value(depth int) (*yaml.Node, error) {
	token, err := p.dec.Token()
	if err == io.EOF && depth > 0 {
		err = io.ErrUnexpectedEOF
	}
	if err != nil {
		return nil, err
	}
	if depth > maxDepth {
		return nil, errTooDeep
	}
	n := &yaml.Node{Kind: yaml.ScalarNode, Line: p.lineOf()}
	switch t := token.(type) {
	case json.Delim:
		return n, p.collection(n, t, depth)
	case string:
		n.Tag, n.Value, n.Style = "!!str", t, yaml.DoubleQuotedStyle
	case json.Number:
		n.Tag, n.Value = "!!int", t.String()
		if strings.ContainsAny(n.Value, ".eE") {
			n.Tag = "!!float"
		}
	case bool:
		n.Tag, n.Value = "!!bool", strconv.FormatBool(t)
	default:
		n.Tag, n.Value = "!!null", "null"
	}
	return n, nil
}

func (p *jsonParser) collection(n *yaml.Node, open json.Delim, depth int) error {
	n.Kind, n.Tag = yaml.MappingNode, "!!map"
	if open == '[' {
		n.Kind, n.Tag = yaml.SequenceNode, "!!seq"
	}
	for p.dec.More() {
		child, err := p.value(depth + 1)
		if err != nil {
			return err
		}
		n.Content = append(n.Content, child)
	}
	_, err := p.dec.Token()
	if err == io.EOF {
		err = io.ErrUnexpectedEOF
	}
	return err
}

var errTooDeep = fmt.Errorf("it nests deeper than %d levels", maxDepth)
