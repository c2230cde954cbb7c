package params

import (
	"fmt"
	"strings"
)

// A ProblemKind sorts problems.
type ProblemKind uint8

// Bad: a value cannot be used. Unknown: no parameter has the name. Unused: this agent does not act on the parameter.
// Misplaced: the place may not set this parameter. Conflict: several places of one rank. Syntax: the file cannot be read.
const (
	Bad ProblemKind = iota
	Unknown
	Unused
	Misplaced
	Conflict
	Syntax
)

// String returns the kind in lower case, as logs have it.
func (k ProblemKind) String() string {
	return [...]string{"bad value", "unknown parameter", "unused parameter", "misplaced parameter", "conflict", "syntax"}[k]
}

// A Problem is something that a place says and that does not take effect.
type Problem struct {
	Kind    ProblemKind
	Name    string // of the parameter; "" if it is about no single one
	Origin  Origin
	Value   string // of Bad only; quoted, of bounded length, without secrets
	Reason  string
	Instead string // of Bad only: the text of the value that is in force
}

// String returns "environment FELIX_HEALTHPORT: HealthPort = "x": reason; in force: 9099".
func (p Problem) String() string {
	var b strings.Builder
	b.WriteString(p.Origin.String() + ": ")
	if p.Name != "" {
		b.WriteString(p.Name)
		if p.Value != "" {
			b.WriteString(" = " + p.Value)
		}
		b.WriteString(": ")
	}
	b.WriteString(p.Reason)
	if p.Instead != "" {
		b.WriteString("; in force: " + p.Instead)
	}
	return b.String()
}

// shown returns a value for people: a URL may carry a password.
func shown(f field, text string) string {
	if f.kind == "endpoints" && strings.Contains(text, "@") {
		return "(not shown)"
	}
	return bounded(text)
}

func bounded(text string) string { return fmt.Sprintf("%.80q", text) }
