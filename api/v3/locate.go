package v3

import (
	"cmp"
	"errors"
	"slices"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v3"
)

// Locate returns err with file, document and line added to the faults of type *FieldError or Errors in it, found by
// their paths: the line of the field, or of what would contain it. Other errors are returned as they are.
func (d *Document) Locate(err error) error {
	var all Errors
	if errors.As(err, &all) {
		located := make(Errors, len(all))
		for i, e := range all {
			located[i] = d.locate(e)
		}
		sortByLine(located)
		return located
	}
	var one *FieldError
	if errors.As(err, &one) {
		return d.locate(one)
	}
	return err
}

func (d *Document) locate(e *FieldError) *FieldError {
	found := *e
	found.File, found.Document, found.Line = d.File, d.Index, d.lineOf(e.Path)
	return &found
}

// lineOf returns the line of the deepest part of a path that is in the document.
func (d *Document) lineOf(path string) int {
	line := d.Line
	n := target(d.node)
	for _, step := range splitPath(path) {
		key, value := findChild(n, step)
		if value == nil {
			break
		}
		line = key.Line
		if value.Kind == yaml.ScalarNode {
			line = value.Line
		}
		n = target(value)
	}
	return line
}

// findChild returns the nodes of one step: for an entry of a list both are the entry.
func findChild(n *yaml.Node, step string) (key, value *yaml.Node) {
	switch {
	case n == nil:
	case n.Kind == yaml.SequenceNode:
		if i, err := strconv.Atoi(step); err == nil && i >= 0 && i < len(n.Content) {
			return n.Content[i], n.Content[i]
		}
	case n.Kind == yaml.MappingNode:
		for i := 0; i+1 < len(n.Content); i += 2 {
			if strings.EqualFold(n.Content[i].Value, step) {
				return n.Content[i], n.Content[i+1]
			}
		}
	}
	return nil, nil
}

// splitPath cuts spec.ingress[2].action into its steps; what stands in brackets may hold dots.
func splitPath(path string) []string {
	var steps []string
	for path != "" {
		switch end := strings.IndexAny(path, ".["); {
		case end == 0 && path[0] == '[':
			inside, rest, _ := strings.Cut(path[1:], "]")
			steps = append(steps, inside)
			path = strings.TrimPrefix(rest, ".")
		case end < 0:
			return append(steps, path)
		default:
			steps = append(steps, path[:end])
			path = strings.TrimPrefix(path[end:], ".")
		}
	}
	return steps
}

// sortByLine orders faults as they stand in the file; those without a line come first.
func sortByLine(errs Errors) {
	slices.SortStableFunc(errs, func(a, b *FieldError) int { return cmp.Compare(a.Line, b.Line) })
}
