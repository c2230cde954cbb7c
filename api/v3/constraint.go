package v3

import (
	"reflect"
)

// A Constraint is a rule about the values of a field, as a check tag or a schema tag holds it: see tags.go for the names.
// The two tags have one form. What a check tag says is all that Validate does about the field; a schema tag repeats for
// those who describe the kinds to others what Validate has code for, and a test holds it against that code.
type Constraint struct{ Name, Arg string }

// Constraints returns the rules of a field of a type of this package.
func Constraints(f reflect.StructField) []Constraint {
	return append(tagRules(f.Tag.Get("check")), tagRules(f.Tag.Get("schema"))...)
}

// Pattern returns the regular expression (RE2 syntax, anchored) of the texts that a rule "format" admits; "" if only a
// parser can tell.
func (r Constraint) Pattern() string {
	switch r.Arg {
	case "selector", "longSelector":
		return ""
	}
	if p := formatOf(r.Arg).pattern; p != nil {
		return p.String()
	}
	return ""
}
