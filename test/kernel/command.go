package main

import (
	"context"
	"fmt"
	"os/exec"
	"strings"
)

// command adds a program of this machine and the libraries that it loads, where they are here. It does nothing if there is none: the
// tests say what they need.
func (a *archive) command(ctx context.Context, name string) error {
	program, err := exec.LookPath(name)
	if err != nil {
		return nil
	}
	out, err := exec.CommandContext(ctx, "ldd", program).Output()
	if err != nil {
		return fmt.Errorf("libraries of %s: %w", program, err)
	}
	files := []string{program}
	for word := range strings.FieldsSeq(string(out)) { // name => /path (address), or /path (address)
		if strings.HasPrefix(word, "/") {
			files = append(files, word)
		}
	}
	for _, f := range files {
		if err := a.copy(strings.TrimPrefix(f, "/"), f); err != nil {
			return err
		}
	}
	return nil
}
