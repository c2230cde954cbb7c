package main

import (
	"bytes"
	"context"
	"debug/elf"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"

	"margay/test/kernel/plan"
)

// unpackers are the programs for modules that are compressed.
var unpackers = map[string]string{".ko": "cat", ".ko.xz": "xz -dc", ".ko.zst": "zstd -dc", ".ko.gz": "gzip -dc"}

// A loader puts modules in an archive, each behind what it needs. A package that was only unpacked has no modules.dep, so it asks the
// modules.
type loader struct {
	ctx   context.Context
	to    *archive
	plan  *plan.Plan
	files map[string]string // by name
	seen  map[string]bool
}

// modules adds the wanted modules.
func (a *archive) modules(ctx context.Context, dir string, p *plan.Plan) error {
	l := &loader{ctx: ctx, to: a, plan: p, files: map[string]string{}, seen: map[string]bool{}}
	err := filepath.WalkDir(dir, func(name string, d fs.DirEntry, err error) error {
		if base, ending, ok := strings.Cut(filepath.Base(name), "."); ok && err == nil && unpackers["."+ending] != "" {
			l.files[moduleName(base)] = name
		}
		return err
	})
	if err != nil {
		return err
	}
	if len(l.files) == 0 {
		return fmt.Errorf("modules: there are none below %s", dir)
	}
	for _, name := range strings.Fields(wanted) {
		if err := l.add(name); err != nil {
			return fmt.Errorf("module %s: %w", name, err)
		}
	}
	return nil
}

// moduleName: file names may have dashes where modules have underscores.
func moduleName(base string) string { return strings.ReplaceAll(base, "-", "_") }

func (l *loader) add(name string) error {
	name = moduleName(name)
	from := l.files[name]
	if l.seen[name] || from == "" {
		return nil
	}
	l.seen[name] = true
	content, err := l.unpack(from)
	if err != nil {
		return err
	}
	needs, err := dependencies(content)
	if err != nil {
		return err
	}
	for _, need := range needs {
		if err := l.add(need); err != nil {
			return err
		}
	}
	to := "modules/" + name + ".ko"
	l.plan.Modules = append(l.plan.Modules, "/"+to)
	return l.to.file(to, 0o644, content)
}

func (l *loader) unpack(file string) ([]byte, error) {
	_, ending, _ := strings.Cut(filepath.Base(file), ".")
	words := strings.Fields(unpackers["."+ending])
	cmd := exec.CommandContext(l.ctx, words[0], append(words[1:], file)...)
	cmd.Stderr = os.Stderr
	out, err := cmd.Output()
	if err != nil {
		return nil, fmt.Errorf("unpack %s: %w", file, err)
	}
	return out, nil
}

// dependencies reads the section in which a module says what it is.
func dependencies(module []byte) ([]string, error) {
	f, err := elf.NewFile(bytes.NewReader(module))
	if err != nil {
		return nil, err
	}
	info := f.Section(".modinfo")
	if info == nil {
		return nil, fmt.Errorf("it has no .modinfo")
	}
	text, err := info.Data()
	if err != nil {
		return nil, err
	}
	for entry := range strings.SplitSeq(string(text), "\x00") {
		if list, ok := strings.CutPrefix(entry, "depends="); ok {
			return slices.DeleteFunc(strings.Split(list, ","), func(s string) bool { return s == "" }), nil
		}
	}
	return nil, nil
}
