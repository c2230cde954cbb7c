package node

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"time"

	"margay/ruleset"
)

// socketName is the name of the socket in the state directory at which the agent answers root on its host, see [agent.answer].
const socketName = "agent.sock"

// A snapshot is what the loop knows of the host at one moment. It is not changed any more.
type snapshot struct {
	Node string `json:"node"`
	// Program is what the kernel should enforce; nil before it does for the first time.
	Program    *ruleset.Program        `json:"program"`
	Interfaces map[string][]netip.Addr `json:"interfaces"`
	Warnings   []string                `json:"warnings,omitempty"`
	// Detail says what is wrong with the agent, as its readiness endpoint does.
	Detail string `json:"detail,omitempty"`
}

// snapshot is for the goroutine of the loop.
func (l *loop) snapshot() snapshot {
	s := snapshot{Interfaces: maps.Clone(l.known)}
	if l.programmed {
		s.Program = l.program.Clone()
	}
	return s
}

// answer serves GET /state, a snapshot as JSON for margay explain --live, on a unix socket that only root can open, until the
// context ends. Without it the agent does all the rest.
func (a *agent) answer(ctx context.Context, questions chan<- chan<- snapshot) {
	path := filepath.Join(a.options.StateDir, socketName)
	listener, err := listenUnix(path)
	if err != nil {
		a.log.Warn("questions of margay explain --live are not answered", "error", err)
		return
	}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /state", func(w http.ResponseWriter, r *http.Request) {
		reply := make(chan snapshot, 1)
		select {
		case questions <- reply:
		case <-r.Context().Done():
			return
		case <-ctx.Done():
			return
		}
		s := <-reply
		s.Node = a.host
		_, s.Detail = a.health.ready()
		_, _, s.Warnings = a.standing.get()
		w.Header().Set("Content-Type", "application/json")
		_ = json.NewEncoder(w).Encode(s) // the client is gone: nobody to tell
	})
	server := http.Server{Handler: mux, ReadHeaderTimeout: requestTimeout, WriteTimeout: requestTimeout, MaxHeaderBytes: 1 << 13}
	defer context.AfterFunc(ctx, func() { _ = server.Close() })()
	if err := server.Serve(listener); !errors.Is(err, http.ErrServerClosed) {
		a.log.Warn("questions of margay explain --live are not answered any more", "error", err)
	}
}

// Running reports whether an agent with this state directory runs; "" is DefaultStateDir.
func Running(stateDir string) bool {
	return answers(filepath.Join(cmp.Or(stateDir, DefaultStateDir), socketName))
}

func answers(path string) bool {
	conn, err := net.DialTimeout("unix", path, time.Second)
	if err == nil {
		_ = conn.Close()
	}
	return err == nil
}

// listenUnix listens at a path that nobody answers at.
func listenUnix(path string) (net.Listener, error) {
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return nil, err
	}
	if answers(path) {
		return nil, fmt.Errorf("listen at %s: another agent answers there (give each agent a state directory of its own)", path)
	}
	if err := os.Remove(path); err != nil && !os.IsNotExist(err) {
		return nil, err
	}
	listener, err := net.Listen("unix", path)
	if err != nil {
		return nil, err
	}
	if err := os.Chmod(path, 0o600); err != nil {
		_ = listener.Close()
		return nil, err
	}
	return listener, nil
}
