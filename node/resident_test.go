package node

import (
	"os"
	"strconv"
	"strings"
	"testing"
)

const someSmaps = `00400000-01526000 r-xp 00000000 fe:00 10003374                           /usr/bin/margay
Size:              17560 kB
Rss:               13576 kB
Anonymous:             0 kB
VmFlags: rd ex mr mw me sd
01526000-027ee000 r--p 01126000 fe:00 10003374                           /usr/bin/margay
Size:              19232 kB
Anonymous:             0 kB
VmFlags: rd mr mw me sd
027ee000-02897000 rw-p 023ee000 fe:00 10003374                           /usr/bin/margay
Anonymous:             0 kB
02897000-02899000 r--p 02497000 fe:00 10003374                           /usr/bin/margay
Anonymous:             8 kB
02899000-048e7000 rw-p 00000000 00:00 0
Anonymous:           144 kB
3522d3800000-3522da800000 r--p 00000000 00:00 0                          [anon: Go: heap]
Anonymous:             0 kB
7ffc1d43a000-7ffc1d45b000 r--p 00001000 fe:01 77                         /usr/lib/other one.so (deleted)
Anonymous:             0 kB
`

// TestOnlyUnchangedPagesOfTheProgramAreReleased: whatever was relocated, patched or is data is in no file.
func TestOnlyUnchangedPagesOfTheProgramAreReleased(t *testing.T) {
	all, err := readMappings(strings.NewReader(someSmaps))
	if err != nil || len(all) != 7 {
		t.Fatalf("%d mappings, %v", len(all), err)
	}
	for i, want := range []struct {
		path        string
		start       uintptr
		discardable bool
	}{
		{"/usr/bin/margay", 0x400000, true},
		{"/usr/bin/margay", 0x1526000, true},
		{"/usr/bin/margay", 0x27ee000, false},
		{"/usr/bin/margay", 0x2897000, false},
		{"", 0x2899000, false},
		{"", 0x3522d3800000, true}, // not of the program, see path
		{"/usr/lib/other one.so (deleted)", 0x7ffc1d43a000, true},
	} {
		if m := all[i]; m.path != want.path || m.start != want.start || m.discardable() != want.discardable {
			t.Errorf("mapping %d is %+v, discardable %v", i, m, m.discardable())
		}
	}
	for _, bad := range []string{"00400000 r-xp", "x-y r-xp 0 0 0", "\n"} {
		if _, err := readMappings(strings.NewReader(bad)); err == nil {
			t.Errorf("%q is read as a mapping", bad)
		}
	}
}

func TestProgramIsReleasedAndRunsOn(t *testing.T) {
	before := residentProgram(t)
	if err := releaseProgram(); err != nil {
		t.Fatal(err)
	}
	if after := residentProgram(t); after >= before {
		t.Errorf("%d kB of the program are resident, %d before", after, before)
	}
}

// residentProgram returns how much of the test's own file is resident, in kB.
func residentProgram(t *testing.T) int {
	t.Helper()
	program, err := os.Readlink("/proc/self/exe")
	if err != nil {
		t.Fatal(err)
	}
	smaps, err := os.ReadFile("/proc/self/smaps")
	if err != nil {
		t.Fatal(err)
	}
	sum, own := 0, false
	for line := range strings.Lines(string(smaps)) {
		if m, err := readMapping(line); err == nil {
			own = m.path == program+"\n"
		} else if fields := strings.Fields(line); own && fields[0] == "Rss:" {
			kib, err := strconv.Atoi(fields[1])
			if err != nil {
				t.Fatal(err)
			}
			sum += kib
		}
	}
	return sum
}
