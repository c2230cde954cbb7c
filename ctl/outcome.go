package ctl

import (
	"errors"
	"fmt"
	"io"
	"strings"

	v3 "margay/api/v3"
)

// maxListed is how many objects a partial success names.
const maxListed = 100

// A verb names what a command does: "apply" and "applied".
type verb struct{ name, past string }

// An outcome counts what became of the resources of one command.
type outcome struct {
	kind   string // the kind of all of them, "" if mixed
	dryRun string // as in resultFlags; "" is none
	total  int
	done   []v3.Key // handled, in order
	// first is how many were handled before the first error.
	first   int
	skipped int
	errs    []error
}

func (o *outcome) ok(key v3.Key) {
	o.done = append(o.done, key)
	if len(o.errs) == 0 {
		o.first++
	}
}

// skip counts a resource to which nothing had to be done.
func (o *outcome) skip() { o.skipped++ }

func (o *outcome) fail(err error) { o.errs = append(o.errs, err) }

// lost notes resources of which it is not known what became of them, and resources that were not tried. cause is the
// store's error, nil after an interruption.
func (o *outcome) lost(cause error, unknown, notTried []*change) {
	if len(unknown)+len(notTried) == 0 {
		return
	}
	if cause == nil {
		cause = errors.New("interrupted")
	}
	o.fail(cause)
	if len(unknown) > 0 {
		o.fail(fmt.Errorf("of %d it is not known whether the datastore has done it: %s", len(unknown), someChanges(unknown)))
	}
	if len(notTried) > 0 {
		o.fail(fmt.Errorf("%d not tried: %s", len(notTried), someChanges(notTried)))
	}
}

func someChanges(changes []*change) string {
	names := make([]string, len(changes))
	for i, c := range changes {
		names[i] = c.key.String()
	}
	return some(names)
}

// report prints what was done and returns what was not. Counts are what happened: calicoctl's "the first" is
// said only when it is so, a failing replace is no partial success, and what was done is named.
func (o *outcome) report(w io.Writer, v verb) error {
	switch {
	case o.total == 0:
		fmt.Fprintln(w, "No resources specified")
	case len(o.done) == 0:
	case len(o.errs) == 0:
		fmt.Fprintf(w, "Successfully %s %d %sresource(s)%s\n", v.past, len(o.done), o.quoted(), o.pretended())
	default:
		first := ""
		if o.first == len(o.done) {
			first = "the first "
		}
		fmt.Fprintf(w, "Partial success: %s %s%d out of %d %sresources%s:\n", v.past, first, len(o.done), o.total, o.quoted(), o.pretended())
		o.name(w)
	}
	return o.failure(v)
}

// name lists what was done.
func (o *outcome) name(w io.Writer) {
	for _, key := range o.done[:min(len(o.done), maxListed)] {
		fmt.Fprintf(w, "  %s\n", key)
	}
	if more := len(o.done) - maxListed; more > 0 {
		fmt.Fprintf(w, "  and %d more\n", more)
	}
}

// failure returns what was not done.
func (o *outcome) failure(v verb) error {
	switch {
	case len(o.errs) == 0:
		return nil
	case len(o.done) == 0:
		return fmt.Errorf("failed to %s %s: %w", v.name, o.subject(), o.errors(v))
	}
	return fmt.Errorf("hit error: %w", o.errors(v))
}

// pretended says that nothing was written.
func (o *outcome) pretended() string {
	switch o.dryRun {
	case dryRunClient:
		return " (dry run)"
	case dryRunServer:
		return " (server dry run)"
	}
	return ""
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
