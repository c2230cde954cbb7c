package main

import (
	"strings"
	"testing"

	"margay/node"
)

// TestOneAgent: a host has one agent, whatever state directories there are, and its rules are not taken away under it. The
// next one begins after the first was killed.
func TestOneAgent(t *testing.T) {
	t.Parallel()
	w := framed(t)
	for _, args := range [][]string{
		{"node", "--state-dir", w.dir + "/second"},
		{"node", "--cleanup", "--state-dir", w.dir + "/second"},
		{"standalone", "--state-dir", w.dir + "/second", "--dir", w.dir + "/etcd2", "--socket", w.dir + "/s2", "--listen", ""},
	} {
		p := w.start(w.host, nil, args...)
		<-p.done
		if p.ProcessState.ExitCode() != 1 || !strings.Contains(p.log.String(), "stop it first") {
			t.Errorf("%s beside an agent ended with %d: %s", args, p.ProcessState.ExitCode(), p.log)
		}
	}
	w.must(w.differs(w.program()))
	w.agent.kill()
	w.startAgent()
	w.awaitReady()
}

func TestLastRules(t *testing.T) {
	for _, c := range []struct {
		stateDir string
		want     bool
	}{{node.DefaultStateDir, true}, {node.DefaultStateDir + "/", true}, {"/tmp/x", false}} {
		if path, ok := lastRules(c.stateDir); ok != c.want || path != "/var/lib/margay/last.nft" {
			t.Errorf("%s: %s, %t", c.stateDir, path, ok)
		}
	}
}
