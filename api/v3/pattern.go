package v3

import (
	"regexp"
	"sync"
)

// A pattern is a regular expression that is compiled when it is first asked: a command needs few of them, and all of them
// together took longer than any other package before main.
type pattern struct {
	text     string
	compiled func() *regexp.Regexp
}

func lazily(text string) *pattern {
	return &pattern{text, sync.OnceValue(func() *regexp.Regexp { return regexp.MustCompile(text) })}
}

// MatchString is that of regexp, as are the others.
func (p *pattern) MatchString(s string) bool { return p.compiled().MatchString(s) }

func (p *pattern) FindStringSubmatch(s string) []string { return p.compiled().FindStringSubmatch(s) }

func (p *pattern) String() string { return p.text }
