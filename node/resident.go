package node

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"golang.org/x/sys/unix"
)

// A mapping is a part of the address space.
type mapping struct {
	start, end uintptr
	perms      string
	path       string
	anonymous  bool // it holds pages that are not as they are in the file
}

// releaseProgram gives back the pages of the program's own file: starting touches most of a large binary, following the
// store a fifth of it. What is needed again comes back from the page cache, or the file. Memory that this process wrote to
// is left alone, whatever the layout of the binary.
func releaseProgram() error {
	program, err := os.Readlink("/proc/self/exe")
	if err != nil {
		return fmt.Errorf("release pages of the program: %w", err)
	}
	smaps, err := os.Open("/proc/self/smaps")
	if err != nil {
		return fmt.Errorf("release pages of the program: %w", err)
	}
	defer smaps.Close()
	mappings, err := readMappings(smaps)
	if err != nil {
		return fmt.Errorf("release pages of the program: %w", err)
	}
	var errs []error
	for _, m := range mappings {
		if m.path == program && m.discardable() {
			errs = append(errs, m.discard())
		}
	}
	return errors.Join(errs...)
}

// discardable reports whether the file has everything that is in the mapping, now and later.
func (m *mapping) discardable() bool {
	return (m.perms == "r-xp" || m.perms == "r--p") && !m.anonymous
}

func (m *mapping) discard() error {
	_, _, errno := unix.Syscall(unix.SYS_MADVISE, m.start, m.end-m.start, unix.MADV_DONTNEED)
	if errno != 0 {
		return fmt.Errorf("release %x-%x of the program: %w", m.start, m.end, errno)
	}
	return nil
}

// readMappings reads /proc/PID/smaps (proc(5)): a line with range, rights and file for each mapping, then its figures.
func readMappings(r io.Reader) ([]mapping, error) {
	var all []mapping
	lines := bufio.NewScanner(r)
	for lines.Scan() {
		line := lines.Text()
		name, rest, _ := strings.Cut(line, " ")
		switch {
		case !strings.HasSuffix(name, ":"):
			m, err := readMapping(line)
			if err != nil {
				return nil, err
			}
			all = append(all, m)
		case name == "Anonymous:" && len(all) > 0:
			all[len(all)-1].anonymous = strings.TrimSpace(rest) != "0 kB"
		}
	}
	return all, lines.Err()
}

// readMapping reads a line like "00400000-01526000 r-xp 00000000 fe:00 1234   /usr/bin/margay".
func readMapping(line string) (mapping, error) {
	var m mapping
	var offset, device, inode string
	if _, err := fmt.Sscanf(line, "%x-%x %s %s %s %s", &m.start, &m.end, &m.perms, &offset, &device, &inode); err != nil {
		return m, fmt.Errorf("read mapping %q: %w", line, err)
	}
	if at := strings.IndexByte(line, '/'); at >= 0 {
		m.path = line[at:]
	}
	return m, nil
}
