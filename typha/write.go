package typha

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"

	v3 "margay/api/v3"
	"margay/store"
)

// Initialise implements store.Store: typha initialises its store.
func (c *Client) Initialise(ctx context.Context) error {
	_, err := c.call(ctx, "initialise", request{Op: opInitialise})
	return err
}

// Create implements store.Store for the Node of the host that the client is for, and for nothing else.
func (c *Client) Create(ctx context.Context, r v3.Resource) (v3.Resource, error) {
	key := v3.KeyOf(r)
	if key != (v3.Key{Kind: v3.KindNode, Name: c.cfg.Node}) {
		return nil, unsupported("create", key)
	}
	value, err := json.Marshal(r)
	if err != nil {
		return nil, fmt.Errorf("create %s: %w", key, err)
	}
	return c.resource(ctx, "create", request{Op: opRegister, Key: key, Value: value})
}

// ReportStatus implements store.Store for the host that the client is for. Of a long status the first faults are
// reported, and how many there are.
func (c *Client) ReportStatus(ctx context.Context, s store.NodeStatus) error {
	key := v3.Key{Kind: v3.KindNode, Name: s.Node}
	if s.Node != c.cfg.Node {
		return unsupported("report status of", key)
	}
	shorten(&s)
	_, err := c.call(ctx, "report status of", request{Op: opReport, Key: key, Status: &s})
	return err
}

// shorten makes a status fit into a frame. JSON takes up to six bytes for one of a text.
func shorten(s *store.NodeStatus) {
	const maxDetail, maxFaults = maxClient / 16, maxClient / 4
	if len(s.Detail) > maxDetail {
		s.Detail = s.Detail[:maxDetail] + "..."
	}
	size := 0
	for i, fault := range s.Faults {
		if size += len(mustJSON(fault)); size > maxFaults {
			s.Faults = append(slices.Clone(s.Faults[:i]), fmt.Sprintf("and %d more", len(s.Faults)-i))
			return
		}
	}
}

func unsupported(op string, key v3.Key) error {
	return &store.UnsupportedError{Op: op, Key: key, Reason: "typha is for reading (write to the datastore itself)"}
}

// Update implements store.Store; it is not supported.
func (c *Client) Update(_ context.Context, r v3.Resource) (v3.Resource, error) {
	return nil, unsupported("update", v3.KeyOf(r))
}

// Delete implements store.Store; it is not supported.
func (c *Client) Delete(_ context.Context, key v3.Key, _ store.Revision) (v3.Resource, error) {
	return nil, unsupported("delete", key)
}

// Inspect implements store.Store; it is not supported: typha passes on what this release knows.
func (c *Client) Inspect(_ context.Context, key v3.Key) (v3.Resource, v3.Unknown, error) {
	return nil, nil, unsupported("inspect", key)
}

// WriteAll implements store.Store; it is not supported.
func (c *Client) WriteAll(_ context.Context, _ store.Mode, writes []store.Write) []store.Result {
	results := make([]store.Result, len(writes))
	for i, w := range writes {
		results[i].Err = unsupported("write", v3.KeyOf(w.Resource))
	}
	return results
}

// LastChange implements store.Store; it is not supported.
func (c *Client) LastChange(context.Context, ...v3.Kind) (store.Revision, error) {
	return "", unsupported("find the last change of", v3.Key{})
}

// Statuses implements store.Store; it is not supported: what agents say goes to the store and not back.
func (c *Client) Statuses(context.Context) ([]store.NodeStatus, error) {
	return nil, unsupported("list statuses of", v3.Key{})
}
