package node

import (
	"os"
	"path/filepath"
	"slices"
	"testing"

	v3 "margay/api/v3"
)

// TestForget: of a directory that is the wrong one, or has somebody else's files in it, only the agent's go, at a clean-up and
// when nothing of it is wanted any more.
func TestForget(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "state")
	k, err := openKeeper(dir)
	check(t, err)
	check(t, k.save(gnp("web"), nil))
	others := []string{"host-0123.json", "notes.json", "passwd"}
	for _, name := range append(others, socketName, ".kept-1") {
		check(t, os.WriteFile(filepath.Join(dir, name), nil, 0o600))
	}
	k, err = openKeeper(dir)
	check(t, err)
	check(t, k.dropExcept(map[v3.Key]bool{gnp("web"): true}))
	check(t, Forget(dir))
	var left []string
	entries, err := os.ReadDir(dir)
	check(t, err)
	for _, e := range entries {
		left = append(left, e.Name())
	}
	if !slices.Equal(left, others) {
		t.Errorf("left are %q, want %q", left, others)
	}
	for _, name := range others {
		check(t, os.Remove(filepath.Join(dir, name)))
	}
	check(t, Forget(dir))
	if _, err := os.Stat(dir); !os.IsNotExist(err) {
		t.Errorf("the empty directory: %v", err)
	}
	check(t, Forget(dir)) // again
}
