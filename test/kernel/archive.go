package main

import (
	"bufio"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
)

// An archive is a file system in the format that kernels unpack when they start: cpio, "new ASCII" (Documentation/driver-api/early-userspace/buffer-format.rst).
type archive struct {
	w     *bufio.Writer
	inode int
	made  map[string]bool // directories
}

func newArchive(w io.Writer) *archive {
	return &archive{w: bufio.NewWriterSize(w, 1<<20), made: map[string]bool{".": true}}
}

// file adds a file, and the directories above it.
func (a *archive) file(name string, mode fs.FileMode, content []byte) error {
	if err := a.dir(path.Dir(name)); err != nil {
		return err
	}
	return a.entry(name, 0o100000|uint32(mode.Perm()), content)
}

func (a *archive) dir(name string) error {
	if a.made[name] {
		return nil
	}
	a.made[name] = true
	if err := a.dir(path.Dir(name)); err != nil {
		return err
	}
	return a.entry(name, 0o040755, nil)
}

func (a *archive) entry(name string, mode uint32, content []byte) error {
	a.inode++
	// inode, mode, uid, gid, links, mtime, size, device and rdevice (two each), length of the name, checksum
	_, err := fmt.Fprintf(a.w, "070701%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%s\x00",
		a.inode, mode, 0, 0, 1, 0, len(content), 0, 0, 0, 0, len(name)+1, 0, name)
	if err == nil {
		err = a.pad(110 + len(name) + 1)
	}
	if err == nil {
		_, err = a.w.Write(content)
	}
	if err == nil {
		err = a.pad(len(content))
	}
	return err
}

// pad fills up to a multiple of four bytes.
func (a *archive) pad(written int) error {
	_, err := a.w.Write(make([]byte, -written&3))
	return err
}

func (a *archive) close() error {
	if err := a.entry("TRAILER!!!", 0, nil); err != nil {
		return err
	}
	return a.w.Flush()
}

// copy adds a file of this machine.
func (a *archive) copy(name, from string) error {
	info, err := os.Stat(from)
	if err != nil {
		return err
	}
	b, err := os.ReadFile(from)
	if err != nil {
		return err
	}
	return a.file(name, info.Mode(), b)
}

// sources adds the module that is the working directory, without what is built and recorded there.
func (a *archive) sources(to string) error {
	return filepath.WalkDir(".", func(name string, d fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case name == ".git" || name == "bin":
			return filepath.SkipDir
		case d.Type().IsRegular():
			return a.copy(path.Join(to, filepath.ToSlash(name)), name)
		}
		return nil
	})
}
