package ctl

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	v3 "margay/api/v3"
)

// A difference is a field in which two versions of an object differ: added, removed or another value. Values are JSON;
// "" stands for a field that is not there.
type difference struct{ path, was, is string }

// String returns spec.order: 100 -> 200; a field that came or went has a sign in front.
func (d difference) String() string {
	switch {
	case d.was == "":
		return "+ " + d.path + ": " + d.is
	case d.is == "":
		return "- " + d.path + ": " + d.was
	}
	return "~ " + d.path + ": " + d.was + " -> " + d.is
}

// differences returns what people would have to change in one version of an object to get the other. nil stands for an
// object that is not there. What only the store changes is left out.
func differences(was, is v3.Resource) ([]difference, error) {
	x, err := plainTree(was)
	if err != nil {
		return nil, err
	}
	y, err := plainTree(is)
	if err != nil {
		return nil, err
	}
	return compareObjects("", x, y), nil
}

// plainTree returns an object as JSON values, without what names it and what the store decides.
func plainTree(r v3.Resource) (map[string]any, error) {
	if r == nil {
		return nil, nil
	}
	text, err := json.Marshal(r)
	if err != nil {
		return nil, err
	}
	value, err := parseJSON(text)
	if err != nil {
		return nil, err
	}
	tree := value.(map[string]any)
	delete(tree, "kind")
	delete(tree, "apiVersion")
	if meta, ok := tree["metadata"].(map[string]any); ok {
		for _, key := range []string{"name", "namespace", "uid", "resourceVersion", "creationTimestamp", "generation", "managedFields"} {
			delete(meta, key)
		}
	}
	return tree, nil
}

func compareObjects(path string, was, is map[string]any) []difference {
	keys := map[string]bool{}
	for _, object := range []map[string]any{was, is} {
		for key := range object {
			keys[key] = true
		}
	}
	var out []difference
	for _, key := range slices.Sorted(maps.Keys(keys)) {
		x, inWas := was[key]
		y, inIs := is[key]
		out = append(out, compare(join2(path, key), member{x, inWas}, member{y, inIs})...)
	}
	return out
}

// join2 returns the path of a key in an object.
func join2(path, key string) string {
	switch {
	case strings.ContainsAny(key, "./[]"):
		return path + "[" + key + "]"
	case path == "":
		return key
	}
	return path + "." + key
}

// A member is a value, or that there is none.
type member struct {
	value any
	there bool
}

func (m member) text() string {
	if !m.there {
		return ""
	}
	return text(m.value)
}

// text is equal for equal values.
func text(v any) string {
	out, err := json.Marshal(v)
	if err != nil {
		return err.Error()
	}
	return string(out)
}

// empty reports whether a value says nothing: an object without content, or none at all. A list without content may say
// much: no failsafe ports.
func (m member) empty() bool {
	object, ok := m.value.(map[string]any)
	return !m.there || ok && len(object) == 0
}

func compare(path string, was, is member) []difference {
	x, xObject := was.value.(map[string]any)
	y, yObject := is.value.(map[string]any)
	u, uList := was.value.([]any)
	v, vList := is.value.([]any)
	switch {
	case xObject && yObject || xObject && !is.there || yObject && !was.there:
		return compareObjects(path, x, y)
	case uList && vList:
		return compareLists(path, u, v)
	case was.text() == is.text() || was.empty() && is.empty():
		return nil
	}
	return []difference{{path, was.text(), is.text()}}
}

// compareLists finds what the lists have in common, in order. Between that, entries that stand in for one another are
// compared in turn; the rest came or went.
func compareLists(path string, was, is []any) []difference {
	x, y := texts(was), texts(is)
	common := longest(x, y)
	var out []difference
	i, j := 0, 0
	for i < len(x) || j < len(y) {
		if len(common) > 0 && i < len(x) && j < len(y) && x[i] == common[0] && y[j] == common[0] {
			common, i, j = common[1:], i+1, j+1
			continue
		}
		gone := i < len(x) && (len(common) == 0 || x[i] != common[0])
		came := j < len(y) && (len(common) == 0 || y[j] != common[0])
		switch {
		case gone && came:
			out = append(out, compareEntries(path, entry{i, was[i]}, entry{j, is[j]})...)
			i, j = i+1, j+1
		case gone:
			out = append(out, difference{at(path, i), x[i], ""})
			i++
		default:
			out = append(out, difference{at(path, j), "", y[j]})
			j++
		}
	}
	return out
}

// An entry is a value of a list with its position.
type entry struct {
	at    int
	value any
}

// compareEntries compares entries of which one stands where the other was.
func compareEntries(path string, was, is entry) []difference {
	x, xObject := was.value.(map[string]any)
	y, yObject := is.value.(map[string]any)
	if xObject && yObject {
		return compareObjects(at(path, is.at), x, y)
	}
	return []difference{{at(path, is.at), text(was.value), text(is.value)}}
}

func at(path string, i int) string { return path + "[" + strconv.Itoa(i) + "]" }

func texts(list []any) []string {
	out := make([]string, len(list))
	for i, value := range list {
		out[i] = text(value)
	}
	return out
}

// maxCompared bounds the work of longest: beyond it only what the lists begin and end with counts as common.
const maxCompared = 4_000_000

// longest returns the longest common subsequence.
func longest(x, y []string) []string {
	head := 0
	for head < len(x) && head < len(y) && x[head] == y[head] {
		head++
	}
	tail := 0
	for tail < len(x)-head && tail < len(y)-head && x[len(x)-1-tail] == y[len(y)-1-tail] {
		tail++
	}
	middle := longestBetween(x[head:len(x)-tail], y[head:len(y)-tail])
	return slices.Concat(x[:head], middle, x[len(x)-tail:])
}

func longestBetween(x, y []string) []string {
	if len(x)*len(y) > maxCompared || len(x) == 0 || len(y) == 0 {
		return nil
	}
	width := len(y) + 1
	best := make([]int, (len(x)+1)*width)
	for i := len(x) - 1; i >= 0; i-- {
		for j := len(y) - 1; j >= 0; j-- {
			if x[i] == y[j] {
				best[i*width+j] = best[(i+1)*width+j+1] + 1
			} else {
				best[i*width+j] = max(best[(i+1)*width+j], best[i*width+j+1])
			}
		}
	}
	var out []string
	for i, j := 0, 0; i < len(x) && j < len(y); {
		switch {
		case x[i] == y[j]:
			out = append(out, x[i])
			i, j = i+1, j+1
		case best[(i+1)*width+j] >= best[i*width+j+1]:
			i++
		default:
			j++
		}
	}
	return out
}

// sentence puts differences in one line, the first few of many.
func sentence(all []difference) string {
	var lines []string
	for _, d := range all[:min(len(all), maxNamed)] {
		lines = append(lines, d.String())
	}
	if more := len(all) - maxNamed; more > 0 {
		lines = append(lines, fmt.Sprintf("and %d more", more))
	}
	return strings.Join(lines, "; ")
}
