package demo

import (
	"fmt"
	"io/fs"
	"strings"
	"testing"
	"time"

	v3 "margay/api/v3"
)

// paper returns a screen that writes to a string.
func paper(interactive bool, env map[string]string) (*screen, *strings.Builder) {
	out := &strings.Builder{}
	return newScreen(out, interactive, func(name string) string { return env[name] }), out
}

// sample is a table after step 4 of the deny-list, with a refusal and a leak.
func sample() *table {
	cells := func(want, seen string) (out []cell) {
		words := map[string]outcome{"yes": answered, "no": silence, "err": failed}
		for i, word := range strings.Fields(want) {
			out = append(out, cell{want: words[word], seen: words[strings.Fields(seen)[i]]})
		}
		return out
	}
	return &table{
		in: []row{
			{"stranger", [2][]cell{cells("yes yes yes no", "yes yes yes yes"), cells("yes yes yes no", "yes yes err no")}},
			{"172.15.0.101", [2][]cell{cells("yes yes yes yes", "yes yes yes yes"), cells("yes yes yes yes", "yes yes yes yes")}},
		},
		out: []row{{"stranger 53 by UDP", [2][]cell{cells("yes", "yes"), cells("yes", "no")}}},
	}
}

func TestTablePlain(t *testing.T) {
	s, out := paper(false, nil)
	s.progress("is for terminals")
	s.table(sample())
	s.result(sample(), 1500*time.Millisecond)
	want := `
                                expected      kubeadm-master      kubeadm-node-0
  from                  22  80 8080 9091    22  80 8080 9091    22  80 8080 9091
  stranger             yes yes  yes   no   yes yes  yes !yes   yes yes !err   no
  172.15.0.101         yes yes  yes  yes   yes yes  yes  yes   yes yes  yes  yes
  from the host to
  stranger 53 by UDP                 yes                 yes                 !no
  3 of 18 wrong, after 1.5 s
`
	if out.String() != want {
		t.Errorf("got:\n%s\nwant:\n%s", out, want)
	}
	for line := range strings.Lines(out.String()) {
		if len(line) > 81 {
			t.Errorf("a line of %d characters: %s", len(line), line)
		}
	}
}

// With colour the text is the same.
func TestTableInColour(t *testing.T) {
	s, out := paper(true, nil)
	s.table(sample())
	text := out.String()
	for _, mark := range []string{"\x1b[1;97;41m!yes\x1b[0m", "\x1b[33mno\x1b[0m", "\x1b[32myes\x1b[0m"} {
		if !strings.Contains(text, mark) {
			t.Errorf("no %q in %q", mark, text)
		}
	}
	for _, code := range []string{dimCode, "\x1b[32m", "\x1b[33m", "\x1b[1;97;41m", "\x1b[0m"} {
		text = strings.ReplaceAll(text, code, "")
	}
	p, plainOut := paper(false, nil)
	p.table(sample())
	if text != plainOut.String() {
		t.Errorf("without codes:\n%s\nplain:\n%s", text, plainOut)
	}
}

const dimCode = "\x1b[2m"

func TestProgress(t *testing.T) {
	for _, c := range []struct {
		interactive bool
		env         map[string]string
		want        string
	}{
		{false, nil, "x\n"},
		{true, map[string]string{"TERM": "dumb"}, "x\n"},
		{true, map[string]string{"NO_COLOR": "1"}, "\r\x1b[K  a ...\r\x1b[K  b ...\r\x1b[Kx\n"},
		{true, nil, "\r\x1b[K  " + dimCode + "a ...\x1b[0m\r\x1b[K  " + dimCode + "b ...\x1b[0m\r\x1b[Kx\n"},
	} {
		s, out := paper(c.interactive, c.env)
		s.progress("a")
		s.progress("b")
		s.text("x")
		if out.String() != c.want {
			t.Errorf("%v: %q, want %q", c, out, c.want)
		}
	}
}

// Every file that a step names is there and decodes, every file is named, and what is wanted names clients that exist.
func TestScript(t *testing.T) {
	clients := strings.Join(everyone(), " ")
	used := map[string]bool{}
	for _, st := range script() {
		for _, args := range st.commands {
			if file := args[len(args)-1]; strings.HasSuffix(file, ".yaml") {
				used["guide/"+st.dir+"/"+file] = true
			}
		}
		if st.want == nil {
			continue
		}
		for _, name := range st.want.scrapers {
			if !strings.Contains(clients, name) {
				t.Errorf("%s: %s is nobody", st.title, name)
			}
		}
	}
	for name := range used {
		text, err := guide.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := v3.Decode(name, text); err != nil {
			t.Error(err)
		}
	}
	files, err := fs.Glob(guide, "guide/*/*")
	if err != nil || len(files) != len(used) {
		t.Errorf("there are %v, %v; used are %v", files, err, used)
	}
}

func TestFold(t *testing.T) {
	for _, c := range []struct{ line, want string }{
		{"", "  "},
		{"NAME   NODE", "  NAME   NODE"},
		{"one two three four five", "  one two three\n      four five"},
		{"a-word-too-long-for-it is whole", "  a-word-too-long-for-it\n      is whole"},
	} {
		if got := fold(c.line, 16); got != c.want {
			t.Errorf("fold(%q) = %q, want %q", c.line, got, c.want)
		}
	}
}

func TestTailBuffer(t *testing.T) {
	var b tailBuffer
	for i := range 100_000 {
		fmt.Fprintf(&b, "line %d\n", i)
	}
	if got := b.tail(2); got != "line 99998\nline 99999" {
		t.Errorf("tail %q", got)
	}
	if len(b.text) > 128<<10 {
		t.Errorf("%d bytes are kept", len(b.text))
	}
}
