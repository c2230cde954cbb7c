package ctl

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strconv"
	"strings"
)

// An operation is one step of a JSON patch (RFC 6902 section 4).
type operation struct {
	op         string
	path, from pointer
	value      any
}

// A pointer is a JSON pointer (RFC 6901), decoded: nil is the whole document.
type pointer []string

// parseJSONPatch reads the operations of a patch.
func parseJSONPatch(patch any) (func(any) (any, error), error) {
	steps, ok := patch.([]any)
	if !ok {
		return nil, errors.New("parse the patch: a patch of type json is a list of operations (RFC 6902)")
	}
	var operations []operation
	for i, step := range steps {
		o, err := parseOperation(step)
		if err != nil {
			return nil, fmt.Errorf("parse operation %d of the patch: %w", i, err)
		}
		operations = append(operations, o)
	}
	return func(target any) (any, error) {
		for i, o := range operations {
			var err error
			if target, err = o.apply(target); err != nil {
				return nil, fmt.Errorf("operation %d of the patch: %s %s: %w", i, o.op, o.path, err)
			}
		}
		return target, nil
	}, nil
}

func parseOperation(step any) (operation, error) {
	fields, ok := step.(map[string]any)
	if !ok {
		return operation{}, errors.New("not an object")
	}
	o := operation{value: fields["value"]}
	o.op, _ = fields["op"].(string)
	_, hasValue := fields["value"]
	var err error
	if o.path, err = parsePointer(fields["path"]); err != nil {
		return o, fmt.Errorf("path: %w", err)
	}
	switch o.op {
	case "add", "replace", "test":
		if !hasValue {
			return o, fmt.Errorf("%s without value", o.op)
		}
	case "remove":
	case "move", "copy":
		if o.from, err = parsePointer(fields["from"]); err != nil {
			return o, fmt.Errorf("from: %w", err)
		}
	default:
		return o, fmt.Errorf("unknown op %q (add, remove, replace, move, copy or test)", o.op)
	}
	return o, nil
}

func parsePointer(value any) (pointer, error) {
	text, ok := value.(string)
	switch {
	case !ok:
		return nil, errors.New("missing, or no string")
	case text == "":
		return nil, nil
	case text[0] != '/':
		return nil, fmt.Errorf("%q does not begin with /", text)
	}
	p := pointer(strings.Split(text[1:], "/"))
	for i := range p {
		p[i] = strings.NewReplacer("~1", "/", "~0", "~").Replace(p[i])
	}
	return p, nil
}

// String returns the text of the pointer.
func (p pointer) String() string {
	var b strings.Builder
	for _, token := range p {
		b.WriteString("/" + strings.NewReplacer("~", "~0", "/", "~1").Replace(token))
	}
	return b.String()
}

// apply returns the document after the operation. It may change the one it is given.
func (o operation) apply(doc any) (any, error) {
	switch o.op {
	case "add":
		return editAt(doc, o.path, adding(clone(o.value)))
	case "remove":
		return editAt(doc, o.path, removing)
	case "replace":
		return editAt(doc, o.path, replacing(clone(o.value)))
	case "test":
		found, err := find(doc, o.path)
		if err == nil && !equal(found, o.value) {
			err = errors.New("the value is another one")
		}
		return doc, err
	}
	found, err := find(doc, o.from)
	if err != nil {
		return nil, err
	}
	found = clone(found)
	if o.op == "move" {
		if len(o.path) > len(o.from) && slices.Equal(o.path[:len(o.from)], o.from) {
			return nil, fmt.Errorf("cannot move %s into itself", o.from)
		}
		if doc, err = editAt(doc, o.from, removing); err != nil {
			return nil, err
		}
	}
	return editAt(doc, o.path, adding(found))
}

// A rework replaces a container, an object or list, by one in which one member is different. For the whole document
// container is nil and token "".
type rework struct {
	object func(container map[string]any, token string) error
	list   func(container []any, token string) ([]any, error)
	whole  func() (any, error)
}

// editAt applies a rework to the container that path's last token is in.
func editAt(doc any, path pointer, c rework) (any, error) {
	if len(path) == 0 {
		return c.whole()
	}
	token := path[0]
	switch container := doc.(type) {
	case map[string]any:
		if len(path) == 1 {
			return container, c.object(container, token)
		}
		member, ok := container[token]
		if !ok {
			return nil, fmt.Errorf("there is no %s", token)
		}
		member, err := editAt(member, path[1:], c)
		container[token] = member
		return container, err
	case []any:
		if len(path) == 1 {
			return c.list(container, token)
		}
		i, err := position(token, len(container)-1)
		if err != nil {
			return nil, err
		}
		container[i], err = editAt(container[i], path[1:], c)
		return container, err
	}
	return nil, fmt.Errorf("%s is in neither an object nor a list", token)
}

func adding(value any) rework {
	return rework{
		object: func(o map[string]any, token string) error { o[token] = value; return nil },
		list: func(l []any, token string) ([]any, error) {
			if token == "-" {
				return append(l, value), nil
			}
			i, err := position(token, len(l))
			if err != nil {
				return nil, err
			}
			return slices.Insert(l, i, value), nil
		},
		whole: func() (any, error) { return value, nil },
	}
}

func replacing(value any) rework {
	return rework{
		object: func(o map[string]any, token string) error {
			if _, ok := o[token]; !ok {
				return fmt.Errorf("there is no %s", token)
			}
			o[token] = value
			return nil
		},
		list: func(l []any, token string) ([]any, error) {
			i, err := position(token, len(l)-1)
			if err == nil {
				l[i] = value
			}
			return l, err
		},
		whole: func() (any, error) { return value, nil },
	}
}

// removing is the rework of remove.
var removing = rework{
	object: func(o map[string]any, token string) error {
		if _, ok := o[token]; !ok {
			return fmt.Errorf("there is no %s", token)
		}
		delete(o, token)
		return nil
	},
	list: func(l []any, token string) ([]any, error) {
		i, err := position(token, len(l)-1)
		if err != nil {
			return nil, err
		}
		return slices.Delete(l, i, i+1), nil
	},
	whole: func() (any, error) { return nil, errors.New("cannot remove the whole resource") },
}

// find returns the value at path.
func find(doc any, path pointer) (any, error) {
	for _, token := range path {
		switch container := doc.(type) {
		case map[string]any:
			member, ok := container[token]
			if !ok {
				return nil, fmt.Errorf("there is no %s", token)
			}
			doc = member
		case []any:
			i, err := position(token, len(container)-1)
			if err != nil {
				return nil, err
			}
			doc = container[i]
		default:
			return nil, fmt.Errorf("%s is in neither an object nor a list", token)
		}
	}
	return doc, nil
}

// position reads an index of a list, at most last.
func position(token string, last int) (int, error) {
	i, err := strconv.Atoi(token)
	if err != nil || i < 0 || strconv.Itoa(i) != token {
		return 0, fmt.Errorf("%q is no index of a list", token)
	}
	if i > last {
		return 0, fmt.Errorf("index %d is beyond the end of the list", i)
	}
	return i, nil
}

// clone copies a value, so that two places of a document do not share one.
func clone(value any) any {
	switch v := value.(type) {
	case map[string]any:
		out := make(map[string]any, len(v))
		for key, member := range v {
			out[key] = clone(member)
		}
		return out
	case []any:
		out := make([]any, len(v))
		for i, member := range v {
			out[i] = clone(member)
		}
		return out
	}
	return value
}

// equal compares as RFC 6902 section 4.6 does: numbers by value.
func equal(a, b any) bool {
	switch x := a.(type) {
	case json.Number:
		y, ok := b.(json.Number)
		f, errF := x.Float64()
		g, errG := y.Float64()
		return ok && (x == y || errF == nil && errG == nil && f == g)
	case map[string]any:
		y, ok := b.(map[string]any)
		return ok && maps.EqualFunc(x, y, equal)
	case []any:
		y, ok := b.([]any)
		return ok && slices.EqualFunc(x, y, equal)
	}
	return reflect.DeepEqual(a, b)
}
