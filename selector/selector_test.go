package selector

import (
	"errors"
	"strings"
	"testing"
)

func mustParse(t testing.TB, text string) *Selector {
	t.Helper()
	s, err := Parse(text)
	if err != nil {
		t.Fatalf("Parse(%q): %v", text, err)
	}
	return s
}

// The grammar of selectors, and what each form matches.
func TestCanonicalForm(t *testing.T) {
	for _, c := range []struct{ text, want string }{
		{``, `all()`},
		{" \t", `all()`},
		{`all()`, `all()`},
		{`all( )`, `all()`},
		{`(all())`, `all()`},
		{`global( )`, `global()`},
		{`has(a)`, `has(a)`},
		{"has( \ta )", `has(a)`},
		{`has(calico/k8s_NS-.1/role)`, `has(calico/k8s_NS-.1/role)`},
		{`a=='b'`, `a == "b"`},
		{`a == ""`, `a == ""`},
		{`a == '"'`, `a == '"'`},
		{`a == "'"`, `a == "'"`},
		{`a == "\"`, `a == "\"`},
		{`a == "ä € && \n {"`, `a == "ä € && \n {"`},
		{"a == 'x\ny'", "a == \"x\ny\""},
		{`a!="b"`, `a != "b"`},
		{`a contains"b"`, `a contains "b"`},
		{`a starts with "b"`, `a starts with "b"`},
		{"a starts \t with'b'", `a starts with "b"`},
		{`a startswith "b"`, `a starts with "b"`},
		{`a ends with "b"`, `a ends with "b"`},
		{`a endswith "b"`, `a ends with "b"`},
		{`a in {}`, `a in {}`},
		{`a in{"b"}`, `a in {"b"}`},
		{`a in { "c" , 'b',"c", }`, `a in {"b", "c"}`},
		{`a in {"'", '"'}`, `a in {'"', "'"}`},
		{`a notin {"b"}`, `a not in {"b"}`},
		{`a not   in { }`, `a not in {}`},
		{`!has(a)`, `!has(a)`},
		{`! ! has(a)`, `has(a)`},
		{`!!!has(a)`, `!has(a)`},
		{`!(!has(a))`, `has(a)`},
		{`!a == "b"`, `!a == "b"`},
		{`!(a == "b")`, `!a == "b"`},
		{`a == "1" && b == "2"`, `(a == "1" && b == "2")`},
		{`a=="1"||b=="2"&&!c=="3"`, `(a == "1" || (b == "2" && !c == "3"))`},
		{`(a == "1" || b == "2") && has(c)`, `((a == "1" || b == "2") && has(c))`},
		{`has(a) && (has(b) && has(c))`, `(has(a) && (has(b) && has(c)))`},
		{`((((has(a)))))`, `has(a)`},
		{`!(has(a) && has(b))`, `!(has(a) && has(b))`},
		{`all() && global()`, `(all() && global())`},
		// Words of the language are labels too.
		{`contains contains "x"`, `contains contains "x"`},
		{`in in {"in"}`, `in in {"in"}`},
		{`not not in {"x"}`, `not not in {"x"}`},
		{`all == "x"`, `all == "x"`},
		{`has != "x"`, `has != "x"`},
		{`global startswith "x"`, `global starts with "x"`},
		{`allx == "x"`, `allx == "x"`},
		{`1/2 == "x"`, `1/2 == "x"`},
		// The guide's.
		{`running-calico == "true"`, `running-calico == "true"`},
		{`calico-prometheus-access == "true"`, `calico-prometheus-access == "true"`},
	} {
		s := mustParse(t, c.text)
		if s.String() != c.want {
			t.Errorf("Parse(%q) = %s, want %s", c.text, s, c.want)
		}
		checkIdentity(t, s)
	}
}

// checkIdentity fails unless the canonical form stands for itself.
func checkIdentity(t *testing.T, s *Selector) {
	t.Helper()
	again, err := Parse(s.String())
	if err != nil || again.String() != s.String() || again.ID() != s.ID() {
		t.Errorf("Parse(%s) = %s, %v", s, again, err)
	}
}

func TestRefusals(t *testing.T) {
	for _, c := range []struct {
		text   string
		offset int
		msg    string
	}{
		{`a == "b`, 5, `unterminated string`},
		{`a in {'b}`, 6, `unterminated string`},
		{`a = "b"`, 2, `expected ==`},
		{`= "b"`, 0, `expected ==`},
		{`has(a) & has(b)`, 7, `expected &&`},
		{`has(a) | has(b)`, 7, `expected ||`},
		{`a & b`, 2, `expected &&`},
		{`(has(a) | has(b))`, 8, `expected ||`},
		{`a b`, 2, `expected operator after label "a"`},
		{`a && b`, 2, `expected operator after label "a"`},
		{`a inx {"b"}`, 2, `expected operator after label "a"`},
		{`a starts "b"`, 2, `expected operator after label "a"`},
		{"a not in\n{}", 8, `expected set literal`},
		{`all ()`, 4, `expected operator after label "all"`},
		{`has (a)`, 4, `expected operator after label "has"`},
		{`a == "x" && b "y"`, 14, `expected operator after label "b"`},
		{`has(a`, 5, `no closing ')' after has(`},
		{`has(a b)`, 6, `no closing ')' after has(`},
		{`all(`, 4, `no closing ')' after all(`},
		{`global(x)`, 7, `no closing ')' after global(`},
		{`a == b`, 5, `expected string`},
		{`a ==`, 4, `expected string`},
		{`a contains {"b"}`, 11, `expected string`},
		{`a in "b"`, 5, `expected set literal`},
		{`a in`, 4, `expected set literal`},
		{`a in {"b" "c"}`, 10, `expected }`},
		{`a in {,}`, 6, `expected }`},
		{`a in {"b",,}`, 10, `expected }`},
		{`a in {b}`, 6, `expected }`},
		{`(has(a)`, 7, `expected )`},
		{`(has(a) has(b))`, 8, `expected )`},
		{`a`, 1, `unexpected end of string looking for op`},
		{`!`, 1, `unexpected end of string looking for op`},
		{`has(a) &&`, 9, `unexpected end of string looking for op`},
		{`has(a) || `, 10, `unexpected end of string looking for op`},
		{`(`, 1, `unexpected end of string looking for op`},
		{`has(a) has(b)`, 7, `unexpected content at end of selector [has(b)]`},
		{`has(a))`, 6, `unexpected content at end of selector [)]`},
		{`a == "b"c`, 8, `unexpected content at end of selector [c]`},
		{"has(a)\n&& has(b)", 6, "unexpected content at end of selector [\n&& has(b)]"},
		{`has(a) ` + strings.Repeat("ä", 50), 7, `unexpected content at end of selector [` + strings.Repeat("ä", 20) + `...]`},
		{`%`, 0, `expected identifier`},
		{"\n", 0, `expected identifier`},
		{"all() && \n all()", 9, `expected identifier`},
		{`()`, 1, `expected identifier`},
		{`&& has(a)`, 0, `expected identifier`},
		{`'a' == "b"`, 0, `expected identifier`},
		{`has()`, 4, `expected identifier`},
		{`has('a')`, 4, `expected identifier`},
		{"ä == 'x'", 0, `expected identifier`},
		{`"a"`, 0, `expected identifier`},
		{`bad selector syntax`, 4, `expected operator after label "bad"`},
		{strings.Repeat("a", 513) + ` == "b"`, 0, `label too long: 513 bytes, at most 512`},
		{`has(` + strings.Repeat("a", 513) + `)`, 4, `label too long: 513 bytes, at most 512`},
		{strings.Repeat("(", 1000), 65, `selector too deep: more than 64 levels`},
		{strings.Repeat("!(", 65) + "all()" + strings.Repeat(")", 65), 130, `selector too deep: more than 64 levels`},
		{strings.Repeat(" ", 65537), 0, `selector too long: 65537 bytes, at most 65536`},
	} {
		s, err := Parse(c.text)
		var parseErr *ParseError
		if s != nil || !errors.As(err, &parseErr) || parseErr.Offset != c.offset || parseErr.Msg != c.msg {
			t.Errorf("Parse(%.80q) = %v, %v; want offset %d: %s", c.text, s, err, c.offset, c.msg)
		}
	}
}

func TestMatches(t *testing.T) {
	labels := Map{"a": "abc", "empty": "", "access": "true", "b": "x"}
	for _, c := range []struct {
		text string
		want bool
	}{
		{``, true},
		{`all()`, true},
		{`global()`, true},
		{`!all()`, false},
		{`has(a)`, true},
		{`has(empty)`, true},
		{`has(A)`, false},
		{`!has(none)`, true},
		{`a == "abc"`, true},
		{`a == "ab"`, false},
		{`empty == ""`, true},
		{`none == ""`, false},
		{`a != "abc"`, false},
		{`a != "x"`, true},
		{`none != "x"`, true}, // the label is absent
		{`!none == "x"`, true},
		{`!none != "x"`, false},
		{`a in {"x", "abc"}`, true},
		{`a in {"x"}`, false},
		{`a in {}`, false},
		{`none in {""}`, false},
		{`a not in {"x"}`, true},
		{`a not in {"abc", "x"}`, false},
		{`a not in {}`, true},
		{`none not in {"x"}`, true},
		{`none not in {}`, true},
		{`a contains "b"`, true},
		{`a contains ""`, true},
		{`a contains "ac"`, false},
		{`none contains ""`, false},
		{`a starts with "ab"`, true},
		{`a starts with "b"`, false},
		{`none starts with ""`, false},
		{`a ends with "bc"`, true},
		{`a ends with "b"`, false},
		{`none ends with ""`, false},
		{`has(a) && has(none)`, false},
		{`has(a) && has(b)`, true},
		{`has(none) || has(b)`, true},
		{`has(none) || has(none2)`, false},
		{`has(b) || has(none) && has(none)`, true},
		{`(has(b) || has(none)) && has(none)`, false},
		{`!has(none) && has(b)`, true},
		{`!(has(none) && has(b))`, true},
		{`!has(a) || has(a)`, true},
	} {
		if got := mustParse(t, c.text).Matches(labels); got != c.want {
			t.Errorf("%s: %v, want %v", c.text, got, c.want)
		}
	}
}

// IDs as recorded from the incumbent: equal selectors share one set with it, and names do not change with a release.
func TestID(t *testing.T) {
	for text, want := range map[string]string{
		``:                              "s:5y5I3VdRZfDU01O--xXAPx2yxCQQqMf0M6IWug",
		`! (has( b)||! has(a ))`:        "s:Iss0uCleLYv1GSv_pNm7hAO58kE9jAx1NKyG3Q",
		`! (a == "b"&&! c != "d")`:      "s:lh3haoY1ikTRkd4UZu0nWSaIBknYLPJLX16d-w",
		`!((has(b) || (! (has(a)))))  `: "s:Iss0uCleLYv1GSv_pNm7hAO58kE9jAx1NKyG3Q",
	} {
		if got := mustParse(t, text).ID(); got != want {
			t.Errorf("ID of %s = %s, want %s", text, got, want)
		}
	}
}

// A selector in doubt matches nothing, whatever is made of it.
func TestNothing(t *testing.T) {
	both := `'"`
	for name, s := range map[string]*Selector{
		"nil": nil, "zero": {}, "not nil": Not(nil), "not zero": Not(&Selector{}), "and nil": And(All(), nil),
		"and zero": And(&Selector{}), "prefix of nil": (*Selector)(nil).WithPrefix("x"), "has": Has(""),
		"has blank": Has("a b"), "has long": Has(strings.Repeat("a", 513)), "equal": Equal("a", both),
		"equal label": Equal("", "a"), "in": In("a", "b", both), "in label": In("ä"), "prefix": Has("a").WithPrefix("a b"),
	} {
		if s.Matches(Map{}) || s.Matches(Map{"a": "b", "x": both}) {
			t.Errorf("%s matches", name)
		}
		if s.String() != "!all()" || s.ID() != mustParse(t, "!all()").ID() {
			t.Errorf("%s is %s, %s", name, s, s.ID())
		}
		if s.IsAll() || s.IsGlobal() || s.HasGlobal() {
			t.Errorf("%s: all %v, global %v, has global %v", name, s.IsAll(), s.IsGlobal(), s.HasGlobal())
		}
	}
}

func TestConstructors(t *testing.T) {
	big := mustParse(t, `!(!(k == 'v' && has(t) || all()) && (a in {'b', 'c'}))`)
	for _, c := range []struct {
		got  *Selector
		want string
	}{
		{All(), `all()`},
		{And(), `all()`},
		{And(All(), All()), `all()`},
		{And(Has("a")), `has(a)`},
		{And(All(), Has("a")), `has(a)`},
		{And(Has("a"), All(), mustParse(t, "b == 'c' || has(d)")), `(has(a) && (b == "c" || has(d)))`},
		{And(Has("a"), mustParse(t, "global()")), `(has(a) && global())`},
		{Not(Has("a")), `!has(a)`},
		{Not(Not(Has("a"))), `has(a)`},
		{Not(mustParse(t, "has(a) && has(b)")), `!(has(a) && has(b))`},
		{Not(All()), `!all()`},
		{Equal("a", "b"), `a == "b"`},
		{Equal("a", `"`), `a == '"'`},
		{In("a", "c", "b", "c"), `a in {"b", "c"}`},
		{In("a"), `a in {}`},
		{All().WithPrefix("pcns."), `all()`},
		{Has("x").WithPrefix("pcns."), `has(pcns.x)`},
		{big.WithPrefix("p/"), `!(!((p/k == "v" && has(p/t)) || all()) && p/a in {"b", "c"})`},
		{big, `!(!((k == "v" && has(t)) || all()) && a in {"b", "c"})`}, // the original stays as it is
	} {
		if c.got.String() != c.want {
			t.Errorf("%s, want %s", c.got, c.want)
		}
		checkIdentity(t, c.got)
	}
}

func TestGlobal(t *testing.T) {
	for _, c := range []struct {
		text    string
		is, has bool
	}{
		{`global()`, true, true},
		{`  ( global()  )`, true, true},
		{`!!global()`, true, true},
		{`!global()`, false, true},
		{`has(a) || (has(b) && !global())`, false, true},
		{`global() && global()`, false, true},
		{`all()`, false, false},
		{`global == "global()"`, false, false},
	} {
		s := mustParse(t, c.text)
		if s.IsGlobal() != c.is || s.HasGlobal() != c.has {
			t.Errorf("%s: IsGlobal %v, HasGlobal %v", c.text, s.IsGlobal(), s.HasGlobal())
		}
	}
	if !All().IsAll() || mustParse(t, "global()").IsAll() || Has("all").IsAll() {
		t.Error("IsAll is wrong")
	}
}

// The deepest and the longest that Parse takes come back from their canonical form.
func TestBounds(t *testing.T) {
	deep := strings.Repeat("!(has(a) && ", 31) + "!has(b)" + strings.Repeat(")", 31)
	for _, text := range []string{
		deep,
		strings.Repeat("(", 64) + "all()" + strings.Repeat(")", 64),
		strings.Repeat("!", 65535-6) + "has(a)",
		"has(" + strings.Repeat("a", 512) + ")",
		"a == '" + strings.Repeat("x", 65536-8) + "'",
	} {
		checkIdentity(t, mustParse(t, text))
	}
	if s, err := Parse(strings.Repeat("a==''||", 9000) + "a==''"); err == nil {
		t.Errorf("a canonical form of %d bytes was accepted", len(s.String()))
	}
}

func TestMatchesAllocatesNothing(t *testing.T) {
	s := mustParse(t, `!(has(none) || x in {"1", "2"}) && a != "b" && (a contains "b" || a starts with "x") && all()`)
	labels := Map{"a": "abc", "x": "3"}
	if n := testing.AllocsPerRun(100, func() {
		if !s.Matches(labels) {
			t.Fatal("does not match")
		}
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

func BenchmarkMatches(b *testing.B) {
	s := mustParse(b, `running-calico == "true" && env in {"a", "b", "c"} && !has(exempt)`)
	labels := Map{"running-calico": "true", "env": "b"}
	b.ReportAllocs()
	for b.Loop() {
		if !s.Matches(labels) {
			b.Fatal("does not match")
		}
	}
}
