package demo

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strings"
	"time"
)

// patience is how long a probe waits for an answer. It is the initial time-out of a TCP connection, too (RFC 6298): each
// connection is one packet.
const patience = time.Second

// greeting is what the listeners of the demo say.
const greeting = "hello\n"

// An outcome is how an attempt ended.
type outcome uint8

// The outcomes. The zero value is none that is ever expected.
const (
	failed   outcome = iota // something else than an answer or silence, such as a refusal
	silence                 // no answer in time
	answered                // the right answer
)

// String returns the word that the table uses.
func (o outcome) String() string {
	return [...]string{failed: "err", silence: "no", answered: "yes"}[o]
}

// outcomeOf sorts an error. Only silence is the mark of a dropped packet.
func outcomeOf(err error) outcome {
	var netErr net.Error
	switch {
	case err == nil:
		return answered
	case errors.As(err, &netErr) && netErr.Timeout(), errors.Is(err, os.ErrDeadlineExceeded):
		return silence
	}
	return failed
}

// A probe is one attempt.
type probe func(context.Context) outcome

// probeTCP connects and reads the greeting.
func probeTCP(from, to station, port uint16) probe {
	return func(ctx context.Context) outcome { return exchange(ctx, from, "tcp", to.port(port).String()) }
}

// probeUDP sends a greeting and reads it back.
func probeUDP(from, to station, port uint16) probe {
	return func(ctx context.Context) outcome { return exchange(ctx, from, "udp", to.port(port).String()) }
}

// probeConnect connects and says nothing.
func probeConnect(from, to station, port uint16) probe {
	return func(ctx context.Context) outcome {
		conn, err := from.Dial(ctx, "tcp", to.port(port).String())
		if err == nil {
			_ = conn.Close()
		}
		return outcomeOf(err)
	}
}

func exchange(ctx context.Context, from station, network, address string) outcome {
	conn, err := from.Dial(ctx, network, address)
	if err != nil {
		return outcomeOf(err)
	}
	defer conn.Close()
	if deadline, ok := ctx.Deadline(); ok {
		if err := conn.SetDeadline(deadline); err != nil {
			return failed
		}
	}
	if network == "udp" {
		if _, err := io.WriteString(conn, greeting); err != nil {
			return failed
		}
	}
	answer := make([]byte, len(greeting))
	if _, err := io.ReadFull(conn, answer); err != nil {
		return outcomeOf(err)
	}
	if string(answer) != greeting {
		return failed
	}
	return answered
}

// probeMetrics scrapes a host's agent; the metrics must be those of that host.
func probeMetrics(from, to station) probe {
	return func(ctx context.Context) outcome {
		body, err := get(ctx, from, fmt.Sprintf("http://%s/metrics", to.port(portMetrics)))
		if err != nil {
			return outcomeOf(err)
		}
		if !bytes.Contains(body, fmt.Appendf(nil, "felix_host{host=%q} 1", to.Name())) {
			return failed
		}
		return answered
	}
}

// probeAgent asks an agent, on its own host, whether it is ready and follows the store.
func probeAgent(on station) probe {
	return func(ctx context.Context) outcome { return agentState(ctx, on) }
}

func agentState(ctx context.Context, on station) outcome {
	if _, err := get(ctx, on, fmt.Sprintf("http://127.0.0.1:%d/readiness", portHealth)); err != nil {
		return outcomeOf(err)
	}
	body, err := get(ctx, on, fmt.Sprintf("http://127.0.0.1:%d/metrics", portMetrics))
	if err != nil {
		return outcomeOf(err)
	}
	if !strings.Contains(string(body), "\nmargay_store_connected 1\n") {
		return failed
	}
	return answered
}

// get returns what a page says, or an error, also for a status other than 200.
func get(ctx context.Context, from station, url string) ([]byte, error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return nil, err
	}
	response, err := from.HTTPClient(patience).Do(request)
	if err != nil {
		return nil, err
	}
	defer response.Body.Close()
	if response.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("get %s: %s", url, response.Status)
	}
	return io.ReadAll(io.LimitReader(response.Body, 1<<20))
}
