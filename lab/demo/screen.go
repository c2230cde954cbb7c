package demo

import (
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// A style is a colour of the terminal, as the parameter of its escape sequence.
type style string

// The styles.
const (
	plain  style = ""
	bold   style = "1"
	dim    style = "2"
	green  style = "32"
	yellow style = "33"
	cyan   style = "36"
	alarm  style = "1;97;41"
)

// A screen is where the demo goes: a terminal, or a file that gets neither colour nor progress.
type screen struct {
	w      io.Writer
	live   bool // a terminal: progress lines come and go
	colour bool
	shown  bool // a progress line is there
}

func newScreen(w io.Writer, terminal bool, getenv func(string) string) *screen {
	live := terminal && getenv("TERM") != "dumb"
	return &screen{w: w, live: live, colour: live && getenv("NO_COLOR") == ""}
}

func isTerminal(w io.Writer) bool {
	f, ok := w.(*os.File)
	if !ok {
		return false
	}
	_, err := unix.IoctlGetTermios(int(f.Fd()), unix.TCGETS)
	return err == nil
}

func (s *screen) paint(st style, text string) string {
	if !s.colour || st == plain || text == "" {
		return text
	}
	return "\x1b[" + string(st) + "m" + text + "\x1b[0m"
}

// printf writes a line. What cannot be written is lost: there is nobody else to tell.
func (s *screen) printf(format string, args ...any) {
	s.clear()
	_, _ = fmt.Fprintf(s.w, format+"\n", args...)
}

// progress shows a line that stays until something else is written.
func (s *screen) progress(text string) {
	if !s.live {
		return
	}
	s.shown = true
	_, _ = fmt.Fprintf(s.w, "\r\x1b[K  %s", s.paint(dim, text+" ..."))
}

// clear takes the progress line away.
func (s *screen) clear() {
	if s.shown {
		_, _ = io.WriteString(s.w, "\r\x1b[K")
		s.shown = false
	}
}

func (s *screen) heading(text string) {
	s.printf("\n%s\n%s", s.paint(bold, text), s.paint(bold, strings.Repeat("=", len(text))))
}

func (s *screen) title(text string) { s.printf("\n%s", s.paint(bold, text)) }

func (s *screen) text(text string) { s.printf("%s", text) }

func (s *screen) command(line string) { s.printf("  %s", s.paint(cyan, "$ "+line)) }

// output shows what a command printed, long lines folded.
func (s *screen) output(text string) {
	for line := range strings.Lines(text) {
		s.printf("%s", fold(strings.TrimRight(line, " \n"), 82))
	}
}

// fold breaks a line between words, so that no part with its indent is longer than width if its words are not. A line
// that fits stays as it is.
func fold(line string, width int) string {
	if len(line)+2 <= width {
		return "  " + line
	}
	var out strings.Builder
	used := 0
	for _, word := range strings.Fields(line) {
		switch {
		case out.Len() == 0:
			out.WriteString("  " + word)
			used = 2 + len(word)
		case used+1+len(word) > width:
			out.WriteString("\n      " + word)
			used = 6 + len(word)
		default:
			out.WriteString(" " + word)
			used += 1 + len(word)
		}
	}
	return out.String()
}

// result closes a step.
func (s *screen) result(t *table, took time.Duration) {
	count, wrong := len(t.cells()), t.wrong()
	if wrong == 0 {
		s.printf("  %s; %.1f s", s.paint(green, fmt.Sprintf("all %d as expected, twice", count)), took.Seconds())
		return
	}
	s.printf("  %s, after %.1f s", s.paint(alarm, fmt.Sprintf("%d of %d wrong", wrong, count)), took.Seconds())
}

// The widths of the table: its first column, and the columns of a block, of which there are three.
const (
	labelWidth = 18
	blockWidth = 18
)

// table shows what is expected of both hosts, and what was seen on each.
func (s *screen) table(t *table) {
	s.printf("")
	var names []string
	for _, name := range []string{"expected", master, node0} {
		names = append(names, fmt.Sprintf("%*s", blockWidth, name))
	}
	s.row(dim, "", names)
	ports := ""
	for _, port := range inPorts() {
		ports += fmt.Sprintf("%*d", columnWidth(port), port)
	}
	s.row(dim, "from", []string{ports, ports, ports})
	s.rows(t.in)
	s.row(dim, "from the host to", nil)
	s.rows(t.out)
}

func (s *screen) rows(rows []row) {
	for _, r := range rows {
		s.row(plain, r.label, []string{s.block(r.cells[0], expected), s.block(r.cells[0], seen), s.block(r.cells[1], seen)})
	}
}

// row writes a line of the table. Blocks take up blockWidth on the screen.
func (s *screen) row(st style, label string, blocks []string) {
	line := s.paint(st, label)
	if len(blocks) > 0 {
		line += strings.Repeat(" ", max(0, labelWidth-len(label)))
	}
	for _, block := range blocks {
		line += "  " + s.paint(st, block)
	}
	s.printf("  %s", line)
}

// columnWidth is the width of the column of a port.
func columnWidth(port uint16) int {
	if port < 1000 {
		return 4
	}
	return 5
}

// block shows the cells of one block, each below its port, or below the last one if there is but one.
func (s *screen) block(cells []cell, word func(*cell) (string, style)) string {
	text := ""
	for i := range cells {
		width := blockWidth
		if len(cells) > 1 {
			width = columnWidth(inPorts()[i])
		}
		w, st := word(&cells[i])
		text += strings.Repeat(" ", max(0, width-len(w))) + s.paint(st, w)
	}
	return text
}

func expected(c *cell) (string, style) { return c.want.String(), dim }

// seen marks what is wrong so that it shows without colour as well.
func seen(c *cell) (string, style) {
	switch {
	case c.seen != c.want:
		return "!" + c.seen.String(), alarm
	case c.seen == silence:
		return c.seen.String(), yellow
	}
	return c.seen.String(), green
}
