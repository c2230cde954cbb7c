package node

import (
	"context"
	"encoding/json"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"margay/ruleset"
)

// state asks the agent over its socket.
func (r *rig) state() (snapshot, error) {
	client := http.Client{Transport: &http.Transport{DisableKeepAlives: true,
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return (&net.Dialer{}).DialContext(ctx, "unix", filepath.Join(r.options.StateDir, socketName))
		}}}
	var s snapshot
	resp, err := client.Get("http://agent/state")
	if err != nil {
		return s, err
	}
	defer resp.Body.Close()
	return s, json.NewDecoder(resp.Body).Decode(&s)
}

// The agent tells what it enforces, to root on its host alone.
func TestAnswer(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.fill()
	r.begin()
	r.untilReady()
	s, err := r.state()
	check(t, err)
	endpoint := ruleset.EndpointID{Kind: "HostEndpoint", Name: "h.eth0"}
	if s.Node != "h" || s.Program == nil || s.Program.Endpoints[endpoint] == nil || len(s.Interfaces["eth0"]) == 0 {
		t.Errorf("%+v", s)
	}
	info, err := os.Stat(filepath.Join(r.options.StateDir, socketName))
	check(t, err)
	if info.Mode().Perm() != 0o600 {
		t.Errorf("mode %v", info.Mode())
	}
	if other, err := listenUnix(filepath.Join(r.options.StateDir, socketName)); err == nil {
		other.Close()
		t.Error("a second agent takes the socket away")
	}
	if err := Run(t.Context(), r.options); err == nil || !strings.Contains(err.Error(), "stop it first") {
		t.Errorf("a second agent begins: %v", err)
	}
	r.stop()
	if _, err := r.state(); err == nil {
		t.Error("a stopped agent answers")
	}
}

// A socket that a killed agent left behind is no obstacle.
func TestAnswerAfterKill(t *testing.T) {
	path := filepath.Join(t.TempDir(), socketName)
	left, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	check(t, err)
	left.SetUnlinkOnClose(false)
	check(t, left.Close())
	listener, err := listenUnix(path)
	check(t, err)
	check(t, listener.Close())
}
