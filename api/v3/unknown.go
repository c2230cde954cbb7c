package v3

import (
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strconv"
	"strings"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// An UnknownField is a field of a stored value that this package does not put there: another release or another program
// did.
type UnknownField struct {
	// Path holds the keys that lead to the field, and positions in lists in decimal.
	Path  []string
	Value json.RawMessage
}

// String returns the path as people write it: spec.ingress[2].newField.
func (f UnknownField) String() string {
	var b strings.Builder
	for i, step := range f.Path {
		_, err := strconv.Atoi(step)
		switch {
		case err == nil:
			b.WriteString("[" + step + "]")
		case strings.ContainsAny(step, "./"):
			b.WriteString("[" + step + "]")
		case i > 0:
			b.WriteString("." + step)
		default:
			b.WriteString(step)
		}
	}
	return b.String()
}

// Unknown are the unknown fields of one stored value, in the order of their paths. What is done with the fields that are
// known must leave them as they are.
type Unknown []UnknownField

// UnknownOf returns what of a stored value is not in r, which was decoded from it: fields without a place in the type,
// and the metadata that Default drops.
func UnknownOf(r Resource, stored []byte) (Unknown, error) {
	ours := shallowCopy(r)
	dropMeta(ours)
	if same, err := Encode(ours); err == nil && bytes.Equal(same, stored) {
		return nil, nil
	}
	value, err := parseNumbers(stored)
	if err != nil {
		return nil, fmt.Errorf("find unknown fields of %s: %w", KeyOf(r), err)
	}
	f := finder{converter: newConverter("")}
	if object, ok := value.(map[string]any); ok && isUntyped(r) {
		f.find(object["metadata"], reflect.TypeFor[metav1.ObjectMeta](), []string{"metadata"})
	} else {
		f.find(value, reflect.TypeOf(r), nil)
	}
	if isPolicy(r) {
		f.inAnnotation(value)
	}
	return f.found, f.err
}

func isUntyped(r Resource) bool {
	_, ok := r.(*Untyped)
	return ok
}

// Split returns the fields that are not below a key of the object, and those that are.
func (u Unknown) Split(key string) (outside, below Unknown) {
	for _, f := range u {
		if f.Path[0] == key {
			below = append(below, f)
		} else {
			outside = append(outside, f)
		}
	}
	return outside, below
}

// Graft puts the fields into a value that Encode returned. A field whose place is gone is left out; one that is there
// already is replaced.
func (u Unknown) Graft(encoded []byte) ([]byte, error) {
	if len(u) == 0 {
		return encoded, nil
	}
	value, err := parseNumbers(encoded)
	if err != nil {
		return nil, fmt.Errorf("add unknown fields: %w", err)
	}
	for _, f := range u {
		if err := f.graft(value); err != nil {
			return nil, fmt.Errorf("add unknown field %s: %w", f, err)
		}
	}
	return json.Marshal(value)
}

func (f UnknownField) graft(value any) error {
	last := len(f.Path) - 1
	for _, step := range f.Path[:last] {
		switch container := value.(type) {
		case map[string]any:
			value = container[step]
		case []any:
			i, err := strconv.Atoi(step)
			if err != nil || i < 0 || i >= len(container) {
				return nil
			}
			value = container[i]
		default:
			return nil
		}
	}
	object, ok := value.(map[string]any)
	switch {
	case !ok:
		return nil
	case f.Path[last] == annotationMetadata:
		return f.graftAnnotation(object)
	}
	object[f.Path[last]] = f.Value
	return nil
}

// graftAnnotation adds to the annotation that holds the name of a policy what else was in it.
func (f UnknownField) graftAnnotation(annotations map[string]any) error {
	text, _ := annotations[annotationMetadata].(string)
	var now, other map[string]json.RawMessage
	if err := json.Unmarshal([]byte(text), &now); err != nil {
		return err
	}
	if err := json.Unmarshal(f.Value, &other); err != nil {
		return err
	}
	maps.Copy(now, other)
	merged, err := json.Marshal(now)
	annotations[annotationMetadata] = string(merged)
	return err
}

func parseNumbers(data []byte) (value any, err error) {
	d := json.NewDecoder(bytes.NewReader(data))
	d.UseNumber()
	err = d.Decode(&value)
	return value, err
}

// A finder walks a value along the type that it was decoded into.
type finder struct {
	converter
	found Unknown
	err   error
}

func (f *finder) find(value any, t reflect.Type, path []string) {
	for t.Kind() == reflect.Pointer && !t.Implements(jsonUnmarshaler) {
		t = t.Elem()
	}
	if p := reflect.PointerTo(t); t.Implements(jsonUnmarshaler) || p.Implements(jsonUnmarshaler) || p.Implements(textUnmarshaler) {
		return
	}
	switch container := value.(type) {
	case map[string]any:
		for _, key := range slices.Sorted(maps.Keys(container)) {
			f.member(key, container[key], t, path)
		}
	case []any:
		if t.Kind() == reflect.Slice {
			for i, entry := range container {
				f.find(entry, t.Elem(), append(slices.Clip(path), strconv.Itoa(i)))
			}
		}
	}
}

func (f *finder) member(key string, value any, t reflect.Type, path []string) {
	switch t.Kind() {
	case reflect.Map:
		f.find(value, t.Elem(), append(slices.Clip(path), key))
	case reflect.Struct:
		known, ok := lookupFold(f.fieldsOf(t), key)
		switch {
		case !ok, len(path) == 1 && path[0] == "metadata" && !keptMeta(known.name):
			f.add(append(slices.Clip(path), key), value)
		default:
			f.find(value, t.FieldByIndex(known.index).Type, append(slices.Clip(path), known.name))
		}
	}
}

// keptMeta reports whether a field of metadata is one that this package reads and writes; see dropMeta.
func keptMeta(name string) bool {
	return slices.Contains([]string{"name", "namespace", "uid", "resourceVersion", "creationTimestamp", "labels", "annotations"}, name)
}

func (f *finder) add(path []string, value any) {
	text, err := json.Marshal(value)
	if err != nil {
		f.err = err
	}
	f.found = append(f.found, UnknownField{path, text})
}

// inAnnotation finds what the annotation that holds the name of a policy has beside the name.
func (f *finder) inAnnotation(value any) {
	for _, key := range []string{"metadata", "annotations"} {
		object, _ := value.(map[string]any)
		value = object[key]
	}
	annotations, _ := value.(map[string]any)
	text, _ := annotations[annotationMetadata].(string)
	var meta map[string]any
	if parsed, err := parseNumbers([]byte(text)); err == nil {
		meta, _ = parsed.(map[string]any)
	}
	if delete(meta, "name"); len(meta) > 0 {
		f.add([]string{"metadata", "annotations", annotationMetadata}, meta)
	}
}
