package v3

import (
	"iter"
	"reflect"
	"slices"
	"strings"
)

// This file knows which keys a struct takes, and which one was meant by a key that it does not take.

// A field is one key that a struct takes.
type field struct {
	name  string
	index []int
}

// fieldsOf returns the keys that a struct takes, those of inlined structs included.
func (c *converter) fieldsOf(t reflect.Type) map[string]field {
	if fields, ok := c.fields[t]; ok {
		return fields
	}
	fields := map[string]field{}
	for _, f := range reflect.VisibleFields(t) {
		name, _, _ := strings.Cut(f.Tag.Get("json"), ",")
		if f.Anonymous && name == "" || !f.IsExported() || name == "-" {
			continue
		}
		if name == "" {
			name = f.Name
		}
		if other, ok := fields[name]; ok && len(other.index) <= len(f.Index) {
			continue
		}
		if under(t, f) {
			continue
		}
		fields[name] = field{name, f.Index}
	}
	c.fields[t] = fields
	return fields
}

// under reports whether f lies in an embedded struct that has a key of its own.
func under(t reflect.Type, f reflect.StructField) bool {
	for i := 1; i < len(f.Index); i++ {
		outer := t.FieldByIndex(f.Index[:i])
		if name, _, _ := strings.Cut(outer.Tag.Get("json"), ","); name != "" {
			return true
		}
	}
	return false
}

// lookupFold finds a key as encoding/json does: as it is spelt, else in any case.
func lookupFold(fields map[string]field, key string) (field, bool) {
	if f, ok := fields[key]; ok {
		return f, true
	}
	for _, f := range fields {
		if strings.EqualFold(f.name, key) {
			return f, true
		}
	}
	return field{}, false
}

// Nearest returns the name that was probably meant by a word, "" if none is near.
func Nearest(word string, names iter.Seq[string]) string {
	best, distance := "", max(2, len(word)/4)+1
	if len(word) > 64 {
		return ""
	}
	for name := range names {
		d := editDistance(strings.ToLower(word), strings.ToLower(name))
		if d < distance || d == distance && best != "" && name < best {
			best, distance = name, d
		}
	}
	if distance >= len(word) {
		return ""
	}
	return best
}

// editDistance counts the bytes to insert, delete or replace (Levenshtein).
func editDistance(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			cost := diagonal
			if a[i] != b[j] {
				cost++
			}
			diagonal = row[j+1]
			row[j+1] = min(cost, row[j]+1, row[j+1]+1)
		}
	}
	return row[len(b)]
}

// within returns the fields of a struct that hold a key one level further down, as paths.
func (c *converter) within(t reflect.Type, key string) []string {
	var paths []string
	for name, f := range c.fieldsOf(t) {
		inner := t.FieldByIndex(f.index).Type
		for inner.Kind() == reflect.Pointer {
			inner = inner.Elem()
		}
		if inner.Kind() != reflect.Struct {
			continue
		}
		if found, ok := lookupFold(c.fieldsOf(inner), key); ok {
			paths = append(paths, name+"."+found.name)
		}
	}
	slices.Sort(paths)
	return paths
}
