package ctl

import (
	"fmt"
	"io"
	"strings"
)

// A verb names what a command does: "apply" and "applied".
type verb struct{ name, past string }

// An outcome counts what became of the resources of one command.
type outcome struct {
	kind    string // the kind of all of them, "" if mixed
	total   int
	handled int
	// first is how many were handled before the first error.
	first int
	errs  []error
}

func (o *outcome) ok() {
	o.handled++
	if len(o.errs) == 0 {
		o.first++
	}
}

func (o *outcome) fail(err error) { o.errs = append(o.errs, err) }

// report prints what was done and returns what was not (spec 3.5). Counts are what happened: calicoctl's "the first" is
// said only when it is so, and a failing replace is no partial success.
func (o *outcome) report(w io.Writer, v verb) error {
	switch {
	case o.total == 0:
		fmt.Fprintln(w, "No resources specified")
	case o.handled == 0:
		return fmt.Errorf("failed to %s %s: %w", v.name, o.subject(), o.errors(v))
	case len(o.errs) == 0:
		fmt.Fprintf(w, "Successfully %s %d %sresource(s)\n", v.past, o.handled, o.quoted())
	default:
		first := ""
		if o.first == o.handled {
			first = "the first "
		}
		fmt.Fprintf(w, "Partial success: %s %s%d out of %d %sresources:\n", v.past, first, o.handled, o.total, o.quoted())
		return fmt.Errorf("hit error: %w", o.errors(v))
	}
	return nil
}

// subject names what nothing was done to.
func (o *outcome) subject() string {
	if o.total == 1 {
		return o.quoted() + "resource"
	}
	return "any " + o.quoted() + "resources"
}

func (o *outcome) quoted() string {
	if o.kind == "" {
		return ""
	}
	return "'" + o.kind + "' "
}

// errors returns all errors as one, in brackets, a line each; the single error of a replace stands without.
func (o *outcome) errors(v verb) error {
	if v == verbReplace && len(o.errs) == 1 {
		return o.errs[0]
	}
	return bracketed(o.errs)
}

// bracketed is several errors, printed as calicoctl prints them, but a line each.
type bracketed []error

func (b bracketed) Error() string {
	lines := make([]string, len(b))
	for i, err := range b {
		lines[i] = err.Error()
	}
	return "[" + strings.Join(lines, "\n") + "]"
}

func (b bracketed) Unwrap() []error { return b }
