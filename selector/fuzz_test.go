package selector

import (
	"fmt"
	"regexp"
	"strings"
	"testing"

	"pgregory.net/rapid"
)

// The second implementation: it rewrites the text, over and over, each atom to T or F and each operation on those to its
// value, until one letter is left. It shares no code with the package and answers for canonical forms only.
var (
	stringPart = `("[^"]*"|'[^']*')`
	atoms      = regexp.MustCompile(`all\(\)|global\(\)|has\([^)]*\)|[\w./-]+ (==|!=|contains|starts with|ends with) ` + stringPart +
		`|[\w./-]+ (not )?in \{(` + stringPart + `(, )?)*\}`)
	negations  = regexp.MustCompile(`![TF]`)
	groups     = regexp.MustCompile(`\([TF]( (&&|\|\|) [TF])+\)`)
	stringOnly = regexp.MustCompile(stringPart)
)

func evalText(t testing.TB, text string, labels map[string]string) bool {
	text = atoms.ReplaceAllStringFunc(text, func(atom string) string { return letter(evalAtom(atom, labels)) })
	for len(text) > 1 {
		before := text
		text = negations.ReplaceAllStringFunc(text, func(s string) string { return letter(s == "!F") })
		text = groups.ReplaceAllStringFunc(text, func(s string) string {
			if strings.Contains(s, "&&") {
				return letter(!strings.Contains(s, "F"))
			}
			return letter(strings.Contains(s, "T"))
		})
		if text == before {
			t.Fatalf("cannot read %s", text)
		}
	}
	return text == "T"
}

func letter(b bool) string {
	if b {
		return "T"
	}
	return "F"
}

func evalAtom(atom string, labels map[string]string) bool {
	if atom == "all()" || atom == "global()" {
		return true
	}
	if name, ok := strings.CutPrefix(atom, "has("); ok {
		_, ok := labels[strings.TrimSuffix(name, ")")]
		return ok
	}
	name, rest, _ := strings.Cut(atom, " ")
	value, ok := labels[name]
	var list []string
	for _, quoted := range stringOnly.FindAllString(rest, -1) {
		list = append(list, quoted[1:len(quoted)-1])
	}
	in := false
	for _, s := range list {
		in = in || s == value
	}
	switch operator := strings.Fields(rest)[0]; operator {
	case "==", "in":
		return ok && in
	case "!=", "not":
		return !(ok && in)
	case "contains":
		return ok && strings.Contains(value, list[0])
	case "starts":
		return ok && strings.HasPrefix(value, list[0])
	case "ends":
		return ok && strings.HasSuffix(value, list[0])
	default:
		panic(fmt.Sprintf("operator %s of %s", operator, atom))
	}
}

// FuzzParse: an error exactly when there is no selector, an error that points into the text, and the canonical form
// stands for itself.
func FuzzParse(f *testing.F) {
	for _, seed := range []string{
		``, `all()`, `a == "b" && !has(c) || d not in {'e', "f",}`, `a starts with "b"`, `!(a contains '"')`, `a = "b"`, `((`,
		`global( )`, `contains contains "x"`, `has(a) & b`, "a in {", `!!a endswith ''`,
	} {
		f.Add(seed, "a", "b")
	}
	f.Fuzz(func(t *testing.T, text, name, value string) {
		s, err := Parse(text)
		if (s == nil) != (err != nil) {
			t.Fatalf("Parse = %v, %v", s, err)
		}
		if err != nil {
			if at := err.(*ParseError).Offset; at < 0 || at > len(text) {
				t.Fatalf("offset %d of %d", at, len(text))
			}
			return
		}
		checkIdentity(t, s)
		labels := Map{name: value, "a": "b", "d": "e"}
		if got, want := s.Matches(labels), evalText(t, s.String(), labels); got != want {
			t.Fatalf("%s with %q: %v, want %v", s, labels, got, want)
		}
	})
}

// expression draws a selector in one of its many spellings.
func expression(t *rapid.T, depth int) string {
	space := rapid.SampledFrom([]string{"", " ", "\t ", " "})
	pick := func(texts ...string) string { return rapid.SampledFrom(texts).Draw(t, "pick") }
	quoted := func() string { return pick(`""`, `'x'`, `"x"`, `"xy"`, `'yx'`, `'"'`, `"'"`, `"("`, `"&& T"`) }
	name := func() string { return pick("a", "b", "in", "has", "x/y.z-1_") }
	switch {
	case depth > 0 && rapid.Bool().Draw(t, "group"):
		parts := []string{expression(t, depth-1)}
		for range rapid.IntRange(0, 3).Draw(t, "more") {
			parts = append(parts, pick("&&", "||"), expression(t, depth-1))
		}
		return space.Draw(t, "s") + pick("", "!", "! !") + "(" + strings.Join(parts, space.Draw(t, "s")) + ")"
	case rapid.Bool().Draw(t, "set"):
		list := rapid.SliceOfN(rapid.Custom(func(*rapid.T) string { return quoted() }), 0, 4).Draw(t, "list")
		return pick("", "!") + name() + pick(" in", " notin", " not \tin") + "{" + strings.Join(list, pick(",", " , ")) + "}"
	case rapid.Bool().Draw(t, "plain"):
		return pick("", "!", "!!") + pick("all()", "global( )", "has(a)", "has( b )", "has(x/y.z-1_)")
	}
	return pick("", "!") + name() + pick("==", " != ", " contains", " starts with ", " startswith", " endswith") + quoted()
}

func TestAgainstSecondImplementation(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		text := expression(rt, 3)
		s, err := Parse(text)
		if err != nil {
			rt.Fatalf("Parse(%s): %v", text, err)
		}
		checkIdentity(t, s)
		labels := rapid.MapOf(rapid.SampledFrom([]string{"a", "b", "in", "has", "x/y.z-1_"}),
			rapid.SampledFrom([]string{"", "x", "xy", "yx", `"`, "'"})).Draw(rt, "labels")
		if got, want := s.Matches(Map(labels)), evalText(t, s.String(), labels); got != want {
			rt.Fatalf("%s with %v: %v, want %v", s, labels, got, want)
		}
	})
}
