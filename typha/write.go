package typha

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"

	"github.com/klauspost/compress/zstd"

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

// ReportStatus implements store.Store for the host that the client is for. A report that is too long goes without the
// states of endpoints, and with the first of its faults and warnings.
func (c *Client) ReportStatus(ctx context.Context, s store.NodeStatus) error {
	key := v3.Key{Kind: v3.KindNode, Name: s.Node}
	if s.Node != c.cfg.Node {
		return unsupported("report status of", key)
	}
	report := statusReport{s, s.Heartbeat}
	pack, err := packReport(report)
	if err != nil {
		shorten(&report.Status)
		pack, err = packReport(report)
	}
	if err != nil {
		return fmt.Errorf("report status of %s: %w", key, err)
	}
	_, err = c.call(ctx, "report status of", request{Op: opReport, Key: key, Pack: pack})
	return err
}

// ReportEndpoints implements store.EndpointReporter for the host that the client is for.
func (c *Client) ReportEndpoints(ctx context.Context, node string, states map[v3.Key]store.EndpointState) error {
	key := v3.Key{Kind: v3.KindNode, Name: node}
	if node != c.cfg.Node {
		return unsupported("report endpoints of", key)
	}
	report := endpointsReport{Node: node, States: []endpointState{}}
	for endpoint, state := range states {
		report.States = append(report.States, endpointState{endpoint, state})
	}
	pack, err := packReport(report)
	if err != nil {
		return fmt.Errorf("report endpoints of %s: %w", key, err)
	}
	_, err = c.call(ctx, "report endpoints of", request{Op: opEndpoints, Key: key, Pack: pack})
	return err
}

// EndpointStatuses implements store.EndpointReporter; it is not supported.
func (c *Client) EndpointStatuses(context.Context) ([]store.EndpointStatus, error) {
	return nil, unsupported("list states of endpoints of", v3.Key{})
}

var _ store.EndpointReporter = (*Client)(nil)

// packReport packs the JSON of a report. It fails if that does not fit into a request.
func packReport(report any) ([]byte, error) {
	raw := mustJSON(report)
	if len(raw) > maxReport {
		return nil, fmt.Errorf("it has %d bytes, more than the %d that typha takes", len(raw), maxReport)
	}
	pack := append([]byte{0}, raw...)
	if len(raw) > maxClient/4 {
		pack = newPacker(zstd.SpeedFastest).append(nil, 0, raw) // not kept: it is large, and seldom needed
	}
	if len(pack) > maxClient/2 { // base64 and the rest of the request come to it
		return nil, fmt.Errorf("it has %d bytes when packed, more than the %d that typha takes", len(pack), maxClient/2)
	}
	return pack, nil
}

// shorten makes a status fit into a request. JSON takes up to six bytes for one of a text.
func shorten(s *store.NodeStatus) {
	const maxDetail, maxList = maxClient / 32, maxClient / 16
	if len(s.Detail) > maxDetail {
		s.Detail = s.Detail[:maxDetail] + "..."
	}
	s.Endpoints = nil
	for _, list := range []*[]string{&s.Faults, &s.Unused, &s.Warnings} {
		size := 0
		for i, text := range *list {
			if size += len(mustJSON(text)); size > maxList {
				*list = append(slices.Clone((*list)[:i]), fmt.Sprintf("and %d more", len(*list)-i))
				break
			}
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
