package v3

import (
	"fmt"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"
)

// A FieldError says what is wrong with one field of one object, and where it stands.
type FieldError struct {
	File     string // as given to Decode; "" if unknown
	Document int    // from 1; 0 if unknown
	Line     int    // from 1; 0 if unknown
	Key      Key    // what is known of it
	Path     string // spec.ingress[2].destination.ports[0]; "" for the whole object
	Value    string // as the document has it, strings quoted, of bounded length; "" if there is none
	Reason   string
	Remedy   string // "" if there is none
}

// maxValue bounds FieldError.Value, maxPath what Error prints of FieldError.Path, in bytes.
const (
	maxValue = 80
	maxPath  = 240
)

// Error returns "file: document 2, line 14: Kind(name): path = value: reason (remedy)", without the parts that are
// unknown.
func (e *FieldError) Error() string {
	var b strings.Builder
	part := func(s string) {
		if s == "" {
			return
		}
		if b.Len() > 0 {
			b.WriteString(": ")
		}
		b.WriteString(s)
	}
	part(e.File)
	part(e.position())
	if e.Key.Kind != "" {
		part(e.Key.String())
	}
	path := cut(e.Path, maxPath)
	if path != "" && e.Value != "" {
		path += " = "
	}
	part(path + e.Value)
	part(e.Reason)
	if e.Remedy != "" {
		b.WriteString(" (" + e.Remedy + ")")
	}
	return printable(b.String())
}

// printable escapes what would break the line or speak to a terminal: keys and reasons may hold anything.
func printable(s string) string {
	if strings.IndexFunc(s, notPrintable) < 0 {
		return s
	}
	var b strings.Builder
	for _, r := range s {
		if notPrintable(r) {
			b.WriteString(strings.Trim(strconv.QuoteRune(r), "'"))
		} else {
			b.WriteRune(r)
		}
	}
	return b.String()
}

func notPrintable(r rune) bool { return !unicode.IsPrint(r) }

func (e *FieldError) position() string {
	switch {
	case e.Document > 0 && e.Line > 0:
		return fmt.Sprintf("document %d, line %d", e.Document, e.Line)
	case e.Document > 0:
		return fmt.Sprintf("document %d", e.Document)
	case e.Line > 0:
		return fmt.Sprintf("line %d", e.Line)
	}
	return ""
}

// Errors are all faults that were found, in the order of the document. It is never empty when it is an error.
type Errors []*FieldError

// Error returns one line per fault.
func (e Errors) Error() string {
	lines := make([]string, len(e))
	for i, err := range e {
		lines[i] = err.Error()
	}
	return strings.Join(lines, "\n")
}

// Unwrap returns the faults.
func (e Errors) Unwrap() []error {
	errs := make([]error, len(e))
	for i, err := range e {
		errs[i] = err
	}
	return errs
}

// orNil returns e as an error, nil when it is empty.
func (e Errors) orNil() error {
	if len(e) == 0 {
		return nil
	}
	return e
}

// A check collects what is wrong with one object.
type check struct {
	key  Key
	errs Errors
}

// fail records a fault. value is printed as the document would have it: strings quoted, nil not at all.
func (c *check) fail(path string, value any, reason, remedy string) {
	c.errs = append(c.errs, &FieldError{Key: c.key, Path: path, Value: printed(value), Reason: reason, Remedy: remedy})
}

// failf is fail with a formatted reason and no remedy.
func (c *check) failf(path string, value any, format string, args ...any) {
	c.fail(path, value, fmt.Sprintf(format, args...), "")
}

// raw is a value that is printed as it is.
type raw string

// printed returns a value for FieldError.Value.
func printed(value any) string {
	switch v := value.(type) {
	case nil:
		return ""
	case string:
		return bounded(strconv.Quote(v))
	case raw:
		return bounded(string(v))
	case Port:
		if v.Name == "" && v.First == v.Last {
			return v.String()
		}
		return bounded(strconv.Quote(v.String()))
	case fmt.Stringer:
		return bounded(strconv.Quote(v.String()))
	}
	return bounded(fmt.Sprint(value))
}

// bounded cuts s to maxValue bytes.
func bounded(s string) string { return cut(s, maxValue) }

// cut shortens s to at most n bytes, at a rune boundary.
func cut(s string, n int) string {
	if len(s) <= n {
		return s
	}
	end := n - len("...")
	for end > 0 && !utf8.RuneStart(s[end]) {
		end--
	}
	return s[:end] + "..."
}

// index returns path[i].
func index(path string, i int) string { return path + "[" + strconv.Itoa(i) + "]" }
