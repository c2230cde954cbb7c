package ctl

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"

	"sigs.k8s.io/yaml"
)

// parsePatch returns the function that a patch is. Values are those of encoding/json, with json.Number.
func parsePatch(form, text string) (func(any) (any, error), error) {
	if text == "" {
		return nil, errors.New("no patch specified (give one with -p)")
	}
	data, err := yaml.YAMLToJSONStrict([]byte(text))
	if err != nil {
		return nil, fmt.Errorf("parse the patch: %w", err)
	}
	value, err := parseJSON(data)
	if err != nil {
		return nil, fmt.Errorf("parse the patch: %w", err)
	}
	switch form {
	case "json":
		return parseJSONPatch(value)
	case "strategic", "merge":
	default:
		return nil, fmt.Errorf("unknown patch type '%s', expected one of: strategic, json, merge", form)
	}
	if _, ok := value.(map[string]any); !ok {
		return nil, fmt.Errorf("parse the patch: a patch of type %s is a partial resource, not %s", form, data)
	}
	if form == "merge" {
		return func(target any) (any, error) { return mergePatch(target, value), nil }, nil
	}
	return func(target any) (any, error) { return strategicPatch(target, value) }, nil
}

// parseJSON reads exactly one JSON value and keeps numbers as they are written.
func parseJSON(data []byte) (any, error) {
	d := json.NewDecoder(bytes.NewReader(data))
	d.UseNumber()
	var value any
	if err := d.Decode(&value); err != nil {
		return nil, err
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return nil, errors.New("more than one value")
	}
	return value, nil
}

// mergePatch is the algorithm of RFC 7386 section 2. It may change target.
func mergePatch(target, patch any) any {
	fields, ok := patch.(map[string]any)
	if !ok {
		return patch
	}
	object, ok := target.(map[string]any)
	if !ok {
		object = map[string]any{}
	}
	for name, value := range fields {
		if value == nil {
			delete(object, name)
		} else {
			object[name] = mergePatch(object[name], value)
		}
	}
	return object
}

// strategicPatch is Kubernetes' strategic merge for types that name no merge keys, as those here do: mergePatch, and the
// directive "$patch": "replace" or "delete" in an object. Directives for lists are refused: lists are replaced.
func strategicPatch(target, patch any) (any, error) {
	fields, ok := patch.(map[string]any)
	if !ok {
		return patch, nil
	}
	object, ok := target.(map[string]any)
	if !ok {
		object = map[string]any{}
	}
	switch directive := fields["$patch"]; directive {
	case nil, "merge":
	case "replace":
		object = map[string]any{}
	case "delete":
		return map[string]any{}, nil
	default:
		return nil, fmt.Errorf("unknown directive $patch: %v in the patch (merge, replace or delete)", directive)
	}
	for name, value := range fields {
		switch {
		case name == "$patch":
		case name != "" && name[0] == '$':
			return nil, fmt.Errorf("directive %s in the patch is not supported: lists are replaced as a whole", name)
		case value == nil:
			delete(object, name)
		default:
			merged, err := strategicPatch(object[name], value)
			if err != nil {
				return nil, err
			}
			object[name] = merged
		}
	}
	return object, nil
}
