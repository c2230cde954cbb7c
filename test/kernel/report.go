package main

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"strings"

	"margay/test/kernel/plan"
)

// A report passes on what the machine says and keeps what it means.
type report struct {
	to     io.Writer
	line   []byte
	failed []string
	done   bool
}

func newReport(to io.Writer) *report { return &report{to: to} }

// Write takes any part of the stream.
func (r *report) Write(b []byte) (int, error) {
	for _, part := range bytes.SplitAfter(b, []byte("\n")) {
		r.line = append(r.line, part...)
		if !bytes.HasSuffix(r.line, []byte("\n")) {
			continue
		}
		line := strings.TrimRight(string(r.line), "\r\n")
		r.line = r.line[:0]
		if name, ok := strings.CutPrefix(line, plan.Failed); ok {
			r.failed = append(r.failed, name)
		}
		r.done = r.done || line == plan.Done
		if _, err := fmt.Fprintln(r.to, line); err != nil {
			return 0, err
		}
	}
	return len(b), nil
}

// result returns what went wrong.
func (r *report) result() error {
	switch {
	case len(r.failed) > 0:
		return fmt.Errorf("failed: %s", strings.Join(r.failed, ", "))
	case !r.done:
		return errors.New("the virtual machine ended before its tests did (its last lines say why)")
	}
	return nil
}
