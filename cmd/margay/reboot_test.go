package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// TestReboot runs what margay-last-rules.service does when a host goes down and comes up: the rules are there before the agent
// is, which takes them over without a packet that gets through. (A packet or two may be lost: nft writes some of it in another way
// than the agent, which sets that right.)
func TestReboot(t *testing.T) {
	t.Parallel()
	if _, err := exec.LookPath("nft"); err != nil {
		if os.Getenv("MARGAY_REQUIRE_NFT") == "1" {
			t.Fatal(err)
		}
		t.Skip("needs the nft command")
	}
	w := framed(t)
	dir := t.TempDir()
	unit := func(field string) {
		t.Helper()
		line := fieldOf(t, "../../install/systemd/margay-last-rules.service", field+"=/bin/sh -c '")
		line = strings.ReplaceAll(strings.TrimSuffix(line, "'"), "/var/lib/margay", dir)
		w.must(w.host.Run(exec.Command("/bin/sh", "-c", line)))
	}
	unit("ExecStart") // the first start: there is nothing yet
	w.agent.stop()
	unit("ExecStop")
	w.must(w.host.Run(exec.Command("nft", "delete", "table", "inet", "margay"))) // the host is down
	unit("ExecStart")
	unit("ExecStart") // again: nothing is there twice
	probes := w.startTrains()
	w.startAgent()
	w.awaitReady()
	w.eventually(20*time.Second, "the kernel equals a fresh compile", func() error { return w.differs(w.program()) })
	if sent, arrived := probes.allowed.end(); arrived < sent*9/10 {
		t.Errorf("of %d probes that are allowed %d arrived", sent, arrived)
	}
	probes.denied.nonePasses()
	probes.never.nonePasses()

	w.agent.stop()
	w.cleanUp()
	unit("ExecStop")
	if _, err := os.Stat(filepath.Join(dir, "last.nft")); !os.IsNotExist(err) {
		t.Errorf("after cleanup there are rules for the next start: %v", err)
	}
}
