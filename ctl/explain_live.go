package ctl

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"net"
	"net/http"
	"net/netip"
	"slices"
	"syscall"

	v3 "margay/api/v3"
	"margay/ruleset"
)

// maxLive bounds what an agent may answer, in bytes.
const maxLive = 1 << 30

// A liveState is what an agent tells of itself at GET /state on its socket.
type liveState struct {
	Node       string                  `json:"node"`
	Program    *ruleset.Program        `json:"program"`
	Interfaces map[string][]netip.Addr `json:"interfaces"`
	Warnings   []string                `json:"warnings,omitempty"`
	Detail     string                  `json:"detail,omitempty"`
}

// liveWorld asks the agent of this host.
func (c *cli) liveWorld(ctx context.Context, socket string) (*world, error) {
	ctx, cancel := context.WithTimeout(ctx, c.timeout)
	defer cancel()
	state, err := askLive(ctx, socket)
	if err != nil {
		return nil, err
	}
	return state.world(), nil
}

// askLive asks the agent of this host for what it enforces, which Program then is.
func askLive(ctx context.Context, socket string) (*liveState, error) {
	state, err := askAgent(ctx, socket)
	switch {
	case errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ECONNREFUSED):
		return nil, fmt.Errorf("ask the agent of this host: %w (no agent answers there: start it with margay node or margay standalone, or name its socket with --agent-socket)", err)
	case errors.Is(err, fs.ErrPermission):
		return nil, fmt.Errorf("ask the agent of this host: %w (run this as root)", err)
	case err != nil:
		return nil, fmt.Errorf("ask the agent of this host: %w", err)
	case state.Program == nil:
		return nil, errors.New("ask the agent of this host: it enforces nothing yet (see margay status)")
	}
	return state, nil
}

func askAgent(ctx context.Context, socket string) (*liveState, error) {
	client := http.Client{Transport: &http.Transport{
		DisableKeepAlives: true,
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return (&net.Dialer{}).DialContext(ctx, "unix", socket)
		},
	}}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://agent/state", nil)
	if err != nil {
		return nil, err
	}
	resp, err := client.Do(req)
	if err != nil {
		return nil, err
	}
	defer func() { _ = resp.Body.Close() }()
	if resp.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("%s answers %s", socket, resp.Status)
	}
	var state liveState
	if err := json.NewDecoder(io.LimitReader(resp.Body, maxLive)).Decode(&state); err != nil {
		return nil, fmt.Errorf("read the answer of %s: %w", socket, err)
	}
	return &state, nil
}

// unnamed returns the addresses beyond the link of the interfaces that an endpoint for all interfaces stands for.
func (s *liveState) unnamed() []netip.Addr {
	named := map[string]bool{}
	for _, ep := range s.Program.Endpoints {
		for _, name := range ep.Interfaces {
			named[name] = true
		}
	}
	var addrs []netip.Addr
	for _, name := range slices.Sorted(maps.Keys(s.Interfaces)) {
		for _, a := range s.Interfaces[name] {
			if !named[name] && !s.Program.IsWorkload(name) && a.IsGlobalUnicast() {
				addrs = append(addrs, a)
			}
		}
	}
	return addrs
}

// world is the host that the agent tells of: its endpoints, with the addresses of their interfaces.
func (s *liveState) world() *world {
	w := newWorld(nil)
	w.live, w.programs[s.Node] = true, s.Program
	for _, ep := range s.Program.Endpoints {
		p := place{id: ep.ID, node: s.Node}
		for _, name := range ep.Interfaces {
			p.iface = name
			if name == ruleset.AllInterfaces {
				p.addrs = append(p.addrs, s.unnamed()...)
			}
			p.addrs = append(p.addrs, s.Interfaces[name]...)
		}
		w.places = append(w.places, p)
	}
	for _, wl := range s.Program.Workloads {
		p := place{id: wl.ID, node: s.Node, addrs: wl.Addrs, iface: wl.Interface}
		if parts := v3.SplitEndpointName(wl.ID.Name); len(parts) == 4 {
			p.pod = parts[2]
		}
		w.places = append(w.places, p)
	}
	slices.SortFunc(w.places, func(a, b place) int {
		return compareKeys(keyOf(a.id), keyOf(b.id))
	})
	for _, addrs := range s.Interfaces {
		for _, a := range addrs {
			w.nodeAddrs[a] = s.Node
		}
	}
	w.notes = s.Warnings
	if s.Detail != "" {
		w.note("the agent says: %s", s.Detail)
	}
	return w
}
