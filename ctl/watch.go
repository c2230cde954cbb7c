package ctl

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"unicode/utf8"

	v3 "margay/api/v3"
	"margay/store"
)

// What happened to an object, in kubectl's words.
const (
	eventAdded    = "ADDED"
	eventModified = "MODIFIED"
	eventDeleted  = "DELETED"
	eventError    = "ERROR"
)

// A watchEvent is what get --watch prints of one change, in yaml and json as kubectl --output-watch-events does.
type watchEvent struct {
	Type   string      `json:"type"`
	Object v3.Resource `json:"object"`
}

// eventColumn is the first of a table that is watched.
const eventColumn = "EVENT"

// A watch prints what is there and then every change. Its tables have a column more, because an object that is gone looks
// like one that changed.
type watch struct {
	cli    *cli
	format format
	keys   []v3.Key // without name: all of the kind, in the namespace if there is one
	known  map[v3.Key]v3.Resource
	widths []int
	kind   v3.Kind // of the table that is being printed
	lost   bool
}

// watch runs until the context ends, which is its normal end.
func (c *cli) watch(ctx context.Context, s *session, keys []v3.Key, out format) error {
	w := &watch{cli: c, format: out, keys: keys, known: map[v3.Key]v3.Resource{}}
	var kinds []v3.Kind
	for _, key := range keys {
		if !slices.Contains(kinds, key.Kind) {
			kinds = append(kinds, key.Kind)
		}
	}
	err := store.Follow(ctx, s.store, kinds, w.take)
	if ctx.Err() != nil {
		return nil
	}
	return s.explain(ctx, err)
}

// take prints one batch. An outage is told once; before anything was seen it ends the watch.
func (w *watch) take(b store.Batch) error {
	if b.Err != nil {
		if !b.InSync {
			return b.Err
		}
		if !w.lost {
			fmt.Fprintf(w.cli.env.Stderr, "%v; trying again\n", b.Err)
		}
		w.lost = true
		return nil
	}
	w.lost = false
	events := slices.DeleteFunc(slices.Clone(b.Events), func(e store.Event) bool { return !w.wanted(e.Key) })
	if len(w.known) == 0 {
		slices.SortStableFunc(events, func(x, y store.Event) int {
			return cmp.Or(cmp.Compare(x.Key.Kind, y.Key.Kind), cmp.Compare(x.Key.Namespace, y.Key.Namespace), cmp.Compare(x.Key.Name, y.Key.Name))
		})
	}
	var out []watchEvent
	for _, e := range events {
		if event, ok := w.event(e); ok {
			out = append(out, event)
		}
	}
	if len(out) == 0 {
		return nil
	}
	return w.print(w.cli.env.Stdout, out)
}

func (w *watch) wanted(key v3.Key) bool {
	return slices.ContainsFunc(w.keys, func(k v3.Key) bool {
		return k.Kind == key.Kind && (k.Name == "" || k.Name == key.Name) && (k.Namespace == "" || k.Namespace == key.Namespace)
	})
}

// event says what happened to an object; false for the end of one that was not known.
func (w *watch) event(e store.Event) (watchEvent, bool) {
	before, known := w.known[e.Key]
	switch {
	case e.Fault != nil:
		fmt.Fprintln(w.cli.env.Stderr, e.Fault)
		if !known {
			before = named(e.Key)
			w.known[e.Key] = before
		}
		return watchEvent{eventError, before}, true
	case e.Resource == nil:
		delete(w.known, e.Key)
		return watchEvent{eventDeleted, before}, known
	}
	w.known[e.Key] = e.Resource
	if known {
		return watchEvent{eventModified, e.Resource}, true
	}
	return watchEvent{eventAdded, e.Resource}, true
}

func (w *watch) print(out io.Writer, events []watchEvent) error {
	switch f := w.format.(type) {
	case tableFormat:
		return w.printTable(out, f, events)
	case jsonFormat:
		for _, e := range events {
			text, err := document(e)
			if err != nil {
				return err
			}
			if _, err := fmt.Fprintf(out, "%s\n", text); err != nil {
				return err
			}
		}
		return nil
	case yamlFormat:
		for _, e := range events {
			text, err := yamlDocument(e)
			if err != nil {
				return err
			}
			if _, err := fmt.Fprintf(out, "---\n%s", text); err != nil {
				return err
			}
		}
		return nil
	}
	return errors.New("--watch prints ps, wide, custom-columns, yaml or json")
}

// printTable prints a row per event, and headings when the kind is another than before. Columns become wider as needed.
func (w *watch) printTable(out io.Writer, f tableFormat, events []watchEvent) error {
	for len(events) > 0 {
		kind := v3.KeyOf(events[0].Object).Kind
		same := slices.IndexFunc(events, func(e watchEvent) bool { return v3.KeyOf(e.Object).Kind != kind })
		if same < 0 {
			same = len(events)
		}
		columns, err := f.columns(viewOf(kind))
		if err != nil {
			return err
		}
		var rows [][]string
		if w.kind != kind {
			heading := []string{eventColumn}
			for _, col := range columns {
				heading = append(heading, col.heading)
			}
			rows, w.kind, w.widths = append(rows, heading), kind, make([]int, len(heading))
		}
		for _, e := range events[:same] {
			row := []string{e.Type}
			for _, col := range columns {
				row = append(row, col.cell(e.Object))
			}
			rows = append(rows, row)
		}
		if err := w.printRows(out, rows); err != nil {
			return err
		}
		events = events[same:]
	}
	return nil
}

// printRows aligns as tables are aligned otherwise, with the widths of the rows before.
func (w *watch) printRows(out io.Writer, rows [][]string) error {
	for _, row := range rows {
		for i, cell := range row {
			w.widths[i] = max(w.widths[i], minWidth, utf8.RuneCountInString(cell)+padding)
		}
	}
	var b strings.Builder
	for _, row := range rows {
		for i, cell := range row {
			b.WriteString(cell + strings.Repeat(" ", w.widths[i]-utf8.RuneCountInString(cell)))
		}
		b.WriteString("\n")
	}
	_, err := io.WriteString(out, b.String())
	return err
}
