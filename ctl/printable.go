package ctl

import (
	"bytes"
	"fmt"
	"io"
	"strings"
	"sync"
	"unicode"
	"unicode/utf8"

	"margay/store"
)

// A printable is a writer for people. Names, labels and reports of nodes are written by others, not all of them through this
// program, and could hold what a terminal takes for orders: control characters other than newline and tab become \u001b and
// the like, which JSON reads as before; YAML writes none. A character may come in two writes.
type printable struct {
	to io.Writer

	mu   sync.Mutex
	part []byte // of a character
}

// printableOf returns w if it is one already.
func printableOf(w io.Writer) *printable {
	if p, ok := w.(*printable); ok {
		return p
	}
	return &printable{to: w}
}

// Write implements io.Writer.
func (p *printable) Write(b []byte) (int, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	text := append(p.part, b...)
	p.part = nil
	out := make([]byte, 0, len(text))
	for len(text) > 0 {
		if !utf8.FullRune(text) {
			p.part = bytes.Clone(text)
			break
		}
		r, size := utf8.DecodeRune(text)
		switch {
		case unprintable(r):
			out = fmt.Appendf(out, `\u%04x`, r)
		default:
			out = utf8.AppendRune(out, r)
		}
		text = text[size:]
	}
	if _, err := p.to.Write(out); err != nil {
		return 0, err
	}
	return len(b), nil
}

func unprintable(r rune) bool { return unicode.IsControl(r) && r != '\n' && r != '\t' }

// oneLine keeps a text of somebody else from looking like several lines or columns.
func oneLine(text string) string {
	return strings.Map(func(r rune) rune {
		if unicode.IsControl(r) {
			return ' '
		}
		return r
	}, text)
}

// readable makes each text of a report one line.
func readable(s store.NodeStatus) store.NodeStatus {
	for _, text := range []*string{&s.Node, &s.Detail, &s.Version, &s.Time} {
		*text = oneLine(*text)
	}
	for _, list := range [][]string{s.Faults, s.Unused, s.Warnings} {
		for i := range list {
			list[i] = oneLine(list[i])
		}
	}
	states := make(map[string]store.EndpointState, len(s.Endpoints))
	for name, state := range s.Endpoints {
		states[oneLine(name)] = store.EndpointState(oneLine(string(state)))
	}
	s.Endpoints = states
	return s
}
