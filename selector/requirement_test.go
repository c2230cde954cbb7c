package selector

import (
	"fmt"
	"reflect"
	"testing"
)

func TestRequirements(t *testing.T) {
	value := func(label, value string) Requirement { return Requirement{label, value, true} }
	name := func(label string) Requirement { return Requirement{Label: label} }
	tests := []struct {
		sel  string
		want []Requirement
		ok   bool
	}{
		{`a == "x"`, []Requirement{value("a", "x")}, true},
		{`a in {"y", "x"}`, []Requirement{value("a", "x"), value("a", "y")}, true},
		{`a in {}`, []Requirement{}, true},
		{`has(a)`, []Requirement{name("a")}, true},
		{`a contains "x"`, []Requirement{name("a")}, true},
		{`a starts with "x"`, []Requirement{name("a")}, true},
		{`a ends with "x"`, []Requirement{name("a")}, true},
		{`has(a) && b == "x"`, []Requirement{value("b", "x")}, true},
		{`!has(a) && has(b)`, []Requirement{name("b")}, true},
		{`a in {"x", "y"} && b == "z"`, []Requirement{value("b", "z")}, true},
		{`a == "x" || has(b)`, []Requirement{value("a", "x"), name("b")}, true},
		{`a == "x" || !has(b)`, nil, false},
		{`!has(a) && b != "x"`, nil, false},
		{`a != "x"`, nil, false},
		{`a not in {"x"}`, nil, false},
		{`!a == "x"`, nil, false},
		{`all()`, nil, false},
		{`global()`, nil, false},
		{``, nil, false},
	}
	for _, test := range tests {
		s, err := Parse(test.sel)
		if err != nil {
			t.Fatal(err)
		}
		if got, ok := s.Requirements(); !reflect.DeepEqual(got, test.want) || ok != test.ok {
			t.Errorf("Requirements of %q = %v, %v; want %v, %v", test.sel, got, ok, test.want, test.ok)
		}
	}
	if list, ok := (*Selector)(nil).Requirements(); len(list) != 0 || !ok {
		t.Error("a nil selector has requirements that labels can meet")
	}
}

// TestRequirementsAreNecessary checks for every pair of expressions joined either way, over every combination of labels,
// that what matches meets a requirement.
func TestRequirementsAreNecessary(t *testing.T) {
	atoms := []string{
		`a == "x"`, `a != "x"`, `a in {"x", "y"}`, `a not in {"x"}`, `a in {}`, `has(b)`, `!has(b)`, `b contains "x"`,
		`!(b == "y")`, `all()`, `!all()`, `b starts with "y"`,
	}
	for _, left := range atoms {
		for _, right := range atoms {
			for _, join := range []string{"&&", "||"} {
				checkNecessary(t, fmt.Sprintf("(%s) %s (%s)", left, join, right))
				checkNecessary(t, fmt.Sprintf("!((%s) %s (%s))", left, join, right))
			}
		}
	}
}

func checkNecessary(t *testing.T, text string) {
	s, err := Parse(text)
	if err != nil {
		t.Fatal(err)
	}
	list, ok := s.Requirements()
	for _, a := range []string{"", "x", "y"} {
		for _, b := range []string{"", "x", "y"} {
			labels := Map{}
			for name, value := range map[string]string{"a": a, "b": b} {
				if value != "" {
					labels[name] = value
				}
			}
			met := !ok
			for _, r := range list {
				value, has := labels[r.Label]
				met = met || has && (!r.HasValue || value == r.Value)
			}
			if s.Matches(labels) && !met {
				t.Errorf("%s matches %v, which meets none of %v", s, labels, list)
			}
		}
	}
}

func TestWithAll(t *testing.T) {
	tests := []struct{ sel, want string }{
		{`all()`, `has(ns)`},
		{`!all()`, `!has(ns)`},
		{`all() && a == "all()"`, `(has(ns) && a == "all()")`},
		{`has(a) || all()`, `(has(a) || has(ns))`},
		{`has(a)`, `has(a)`},
		{`global()`, `global()`},
	}
	for _, test := range tests {
		s, err := Parse(test.sel)
		if err != nil {
			t.Fatal(err)
		}
		if got := s.WithAll(Has("ns")).String(); got != test.want {
			t.Errorf("%s with has(ns) = %s, want %s", test.sel, got, test.want)
		}
	}
	if (*Selector)(nil).WithAll(All()) != nil || All().WithAll(nil) != nil {
		t.Error("nil does not stay nil")
	}
}
