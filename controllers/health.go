package controllers

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"text/tabwriter"
	"time"

	"margay/serve"
)

// DefaultStatusFile is where the state is written for exec probes.
const DefaultStatusFile = "/status/status.json"

// The parts that readiness is about.
const (
	componentStartup    = "Startup"
	componentDatastore  = "CalicoDatastore"
	componentKubernetes = "KubeAPIServer"
)

// liveDeadline is how long one round of work may take before the process counts as dead. Every request within it ends
// before.
const liveDeadline = 5 * time.Minute

// A condition is what is said of one part. Its form is that of the status file.
type condition struct {
	Ready  bool
	Reason string
}

// status is the status file.
type status struct {
	Readiness map[string]condition
}

// health collects what is said of the parts and answers probes. Methods may be called from several goroutines.
type health struct {
	file    string // "" for none
	log     *slog.Logger
	metrics *metrics

	mu         sync.Mutex
	components map[string]condition
	details    map[string]string // beside the components: who leads
	busySince  time.Time         // zero: waiting for work
}

func newHealth(file string, log *slog.Logger, m *metrics) *health {
	return &health{file: file, log: log, metrics: m, components: map[string]condition{}, details: map[string]string{}}
}

// set notes what is said of a part; err nil: it is ready.
func (h *health) set(component string, err error) {
	c := condition{Ready: err == nil}
	if err != nil {
		c.Reason = err.Error()
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	if was, known := h.components[component]; known && was == c {
		return
	}
	h.components[component] = c
	h.metrics.healthy.WithLabelValues(component).Set(number(c.Ready))
	h.write()
}

// forget takes a part out: nobody looks after it any more.
func (h *health) forget(component string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if _, known := h.components[component]; known {
		delete(h.components, component)
		h.metrics.healthy.DeleteLabelValues(component)
		h.write()
	}
}

// tell sets a detail that has no influence on readiness.
func (h *health) tell(name, text string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.details[name] = text
}

// write replaces the status file. Probes see the old or the new one.
func (h *health) write() {
	if h.file == "" {
		return
	}
	if err := writeFile(h.file, status{h.components}); err != nil {
		h.log.Warn("write status file", "error", err)
	}
}

func writeFile(path string, s status) error {
	data, err := json.Marshal(s)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	temporary := path + ".tmp"
	if err := os.WriteFile(temporary, data, 0o644); err != nil {
		return err
	}
	return os.Rename(temporary, path)
}

func (h *health) busy() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.busySince = time.Now()
}

func (h *health) idle() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.busySince = time.Time{}
}

func (h *health) live() bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.busySince.IsZero() || time.Since(h.busySince) < liveDeadline
}

func (h *health) ready() bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	return status{h.components}.err() == nil
}

// err says which parts are not ready; none at all are not ready, either.
func (s status) err() error {
	if len(s.Readiness) == 0 {
		return errors.New("nothing is known yet")
	}
	var reasons []string
	for _, name := range slices.Sorted(maps.Keys(s.Readiness)) {
		if c := s.Readiness[name]; !c.Ready {
			reasons = append(reasons, name+": "+c.Reason)
		}
	}
	if reasons != nil {
		return errors.New(strings.Join(reasons, "; "))
	}
	return nil
}

// maxStatusFile bounds what is read of the status file, in bytes.
const maxStatusFile = 1 << 20

// CheckStatus reads the status file of a running instance. nil: it is ready.
func CheckStatus(path string) error {
	data, err := serve.ReadBounded(path, maxStatusFile)
	if err != nil {
		return fmt.Errorf("read status file: %w", err)
	}
	var s status
	if err := json.Unmarshal(data, &s); err != nil {
		return fmt.Errorf("read status file %s: %w", path, err)
	}
	return s.err()
}

// table prints the parts as the agent's report has them.
func (h *health) table() []byte {
	live := h.live()
	h.mu.Lock()
	defer h.mu.Unlock()
	var out bytes.Buffer
	w := tabwriter.NewWriter(&out, 0, 0, 3, ' ', 0)
	fmt.Fprintln(w, "COMPONENT\tTIMEOUT\tLIVENESS\tREADINESS\tDETAIL")
	liveness := "reporting live"
	if !live {
		liveness = "timed out"
	}
	fmt.Fprintf(w, "engine\t%s\t%s\t-\t%s\n", liveDeadline, liveness, h.details["leader"])
	for _, name := range slices.Sorted(maps.Keys(h.components)) {
		readiness := "reporting ready"
		if !h.components[name].Ready {
			readiness = "reporting non-ready"
		}
		fmt.Fprintf(w, "%s\t-\t-\t%s\t%s\n", name, readiness, strings.ReplaceAll(h.components[name].Reason, "\n", " "))
	}
	_ = w.Flush() // a bytes.Buffer takes everything
	return out.Bytes()
}

// handler serves /liveness and /readiness.
func (h *health) handler() http.Handler {
	return serve.Probes(h.live, func() bool { return h.ready() && h.live() }, h.table)
}
