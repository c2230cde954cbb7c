package kube

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"sync/atomic"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/util/flowcontrol"
)

// Bounds of requests.
const (
	maxBusy      = 8                // how often a request is repeated that the server was too busy for
	longestBusy  = 10 * time.Second // between two of these
	maxError     = 1 << 20          // bytes read of an error
	maxRead      = 1 << 30          // bytes read of an answer: a page of large objects
	fieldManager = "margay"
)

// A client makes requests.
type client struct {
	http    *http.Client
	base    *url.URL
	timeout time.Duration
	limit   flowcontrol.RateLimiter // nil: none
	closed  atomic.Bool
}

// A request is one of the API.
type request struct {
	method string
	path   string
	query  url.Values
	body   []byte
	accept string // "": JSON
}

// A statusError is an answer that says no.
type statusError struct {
	code   int
	reason metav1.StatusReason
	text   string
}

func (e *statusError) Error() string { return e.text }

// do makes a request and returns the answer's body. An answer that says no is a *statusError.
func (c *client) do(ctx context.Context, r request) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, c.timeout)
	defer cancel()
	resp, err := c.send(ctx, r)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(io.LimitReader(resp.Body, maxRead))
	if err != nil {
		return nil, fmt.Errorf("read the answer: %w", err)
	}
	return body, nil
}

// send makes a request, again when the server is too busy, and returns the answer, whose body is still to be read.
func (c *client) send(ctx context.Context, r request) (*http.Response, error) {
	for attempt := 1; ; attempt++ {
		resp, err := c.once(ctx, r)
		if err != nil {
			return nil, err
		}
		if resp.StatusCode < 300 {
			return resp, nil
		}
		text, _ := io.ReadAll(io.LimitReader(resp.Body, maxError))
		resp.Body.Close()
		if resp.StatusCode != http.StatusTooManyRequests || attempt == maxBusy {
			return nil, readStatus(resp, text)
		}
		seconds, _ := strconv.Atoi(resp.Header.Get("Retry-After"))
		pause := min(max(time.Duration(seconds)*time.Second, time.Duration(attempt)*100*time.Millisecond), longestBusy)
		select {
		case <-time.After(pause):
		case <-ctx.Done():
			return nil, readStatus(resp, text)
		}
	}
}

func (c *client) once(ctx context.Context, r request) (*http.Response, error) {
	if c.closed.Load() {
		return nil, errClosed
	}
	if c.limit != nil {
		if err := c.limit.Wait(ctx); err != nil {
			return nil, err
		}
	}
	u := *c.base
	u.Path, u.RawQuery = joinPath(u.Path, r.path), r.query.Encode()
	req, err := http.NewRequestWithContext(ctx, r.method, u.String(), bytes.NewReader(r.body))
	if err != nil {
		return nil, err
	}
	accept := "application/json"
	if r.accept != "" {
		accept = r.accept
	}
	req.Header.Set("Accept", accept)
	if r.body != nil {
		kind := "application/json"
		if r.method == http.MethodPatch {
			kind = "application/merge-patch+json"
		}
		req.Header.Set("Content-Type", kind)
	}
	return c.http.Do(req)
}

func joinPath(base, path string) string {
	for len(base) > 0 && base[len(base)-1] == '/' {
		base = base[:len(base)-1]
	}
	return base + path
}

// readStatus returns the error in an answer.
func readStatus(resp *http.Response, body []byte) *statusError {
	var status metav1.Status
	if json.Unmarshal(body, &status) == nil && status.Kind == "Status" && status.Message != "" {
		return &statusError{resp.StatusCode, status.Reason, status.Message}
	}
	text := string(bytes.TrimSpace(body[:min(len(body), 300)]))
	if text == "" {
		text = "no text"
	}
	return &statusError{resp.StatusCode, metav1.StatusReasonUnknown, fmt.Sprintf("the API server answers %s: %s", resp.Status, text)}
}
