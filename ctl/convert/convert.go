// Package convert turns manifests of other APIs into resources of projectcalico.org/v3: those of Calico's v1 API, which
// releases up to 2.6 used, and the NetworkPolicies of Kubernetes. It must not read files or a datastore.
//
//	text -> documents and items of lists -> kind -> one resource of v3 each
//
// What cannot be said in v3 is an error, and never left out: a rule without one of its matches would match more.
package convert

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"

	"go.yaml.in/yaml/v3"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	v3 "margay/api/v3"
)

// maxDepth bounds how deep a document nests, maxNodes how much it holds when aliases are written out.
const (
	maxDepth = 64
	maxNodes = 1_000_000
)

// Resources returns what a file means in v3: YAML with any number of documents, or JSON; lists are taken apart. Nothing is
// validated beyond what the conversion needs to know. file is for messages only.
func Resources(file string, data []byte) ([]v3.Resource, error) {
	if len(data) > v3.MaxFile {
		return nil, fmt.Errorf("%s: file has %d bytes, at most %d are read", file, len(data), v3.MaxFile)
	}
	decoder := yaml.NewDecoder(bytes.NewReader(data))
	var out []v3.Resource
	for n := 1; ; n++ {
		var doc yaml.Node
		err := decoder.Decode(&doc)
		if errors.Is(err, io.EOF) {
			break
		}
		if err == nil && len(doc.Content) > 0 {
			var more []v3.Resource
			more, err = document(doc.Content[0])
			out = append(out, more...)
		}
		if err != nil {
			return nil, fmt.Errorf("%s: document %d: %w", file, n, err)
		}
	}
	if len(out) == 0 {
		return nil, fmt.Errorf("%s: no resources specified", file)
	}
	return out, nil
}

// document converts one document.
func document(node *yaml.Node) ([]v3.Resource, error) {
	w := writer{}
	value, err := w.value(node, 0)
	if err != nil || value == nil {
		return nil, err
	}
	var out []v3.Resource
	for _, item := range items(value) {
		text, err := json.Marshal(item)
		if err != nil {
			return nil, err
		}
		r, err := object(text)
		if err != nil {
			return nil, err
		}
		out = append(out, r)
	}
	return out, nil
}

// items returns the objects of a document: the entries of a list, or of an object that is one.
func items(value any) []any {
	switch v := value.(type) {
	case []any:
		return v
	case map[string]any:
		kind, _ := v["kind"].(string)
		if list, ok := v["items"].([]any); ok && strings.HasSuffix(strings.ToLower(kind), "list") {
			return list
		}
	}
	return []any{value}
}

// A writer turns YAML into the values of encoding/json.
type writer struct{ nodes int }

func (w *writer) value(n *yaml.Node, depth int) (any, error) {
	if w.nodes++; w.nodes > maxNodes || depth > maxDepth {
		return nil, fmt.Errorf("line %d: it holds more than %d values, or nests deeper than %d levels", n.Line, maxNodes, maxDepth)
	}
	switch n.Kind {
	case yaml.AliasNode:
		return w.value(n.Alias, depth+1)
	case yaml.SequenceNode:
		list := make([]any, len(n.Content))
		for i, child := range n.Content {
			var err error
			if list[i], err = w.value(child, depth+1); err != nil {
				return nil, err
			}
		}
		return list, nil
	case yaml.MappingNode:
		return w.object(n, depth)
	}
	var value any
	if err := n.Decode(&value); err != nil {
		return nil, fmt.Errorf("line %d: %w", n.Line, err)
	}
	if n.ShortTag() == "!!timestamp" {
		return n.Value, nil
	}
	return value, nil
}

func (w *writer) object(n *yaml.Node, depth int) (any, error) {
	object := map[string]any{}
	for i := 0; i+1 < len(n.Content); i += 2 {
		key := n.Content[i]
		if key.Kind != yaml.ScalarNode || key.ShortTag() == "!!merge" {
			return nil, fmt.Errorf("line %d: key is no text", key.Line)
		}
		if _, twice := object[key.Value]; twice {
			return nil, fmt.Errorf("line %d: key %s is there twice", key.Line, key.Value)
		}
		value, err := w.value(n.Content[i+1], depth+1)
		switch {
		case err != nil:
			return nil, err
		case value == nil && key.Value != "creationTimestamp" && key.Value != "status":
			// A selector that is not there would match everything.
			return nil, fmt.Errorf("line %d: key %s has no value (give it one, or remove the key)", key.Line, key.Value)
		}
		object[key.Value] = value
	}
	return object, nil
}

// object converts one object.
func object(text []byte) (v3.Resource, error) {
	var meta metav1.TypeMeta
	if err := json.Unmarshal(text, &meta); err != nil {
		return nil, errors.New("the document is no object with apiVersion and kind")
	}
	switch {
	case meta.APIVersion == "networking.k8s.io/v1" && meta.Kind == "NetworkPolicy":
		return kubernetesPolicy(text)
	case meta.APIVersion == "networking.k8s.io/v1":
		return nil, fmt.Errorf("conversion for the k8s resource type '%s' is not supported", meta.Kind)
	case meta.APIVersion != "v1":
		return nil, fmt.Errorf("conversion from apiVersion '%s' is not supported (v1, or networking.k8s.io/v1)", meta.APIVersion)
	}
	return fromV1(meta.Kind, text)
}

// strictly decodes an object of which every key must be known.
func strictly(text []byte, into any) error {
	d := json.NewDecoder(bytes.NewReader(text))
	d.DisallowUnknownFields()
	if err := d.Decode(into); err != nil {
		reason := strings.TrimPrefix(err.Error(), "json: ")
		if field, ok := strings.CutPrefix(reason, "unknown field "); ok {
			reason = "field in document is not recognized or is in the wrong location: " + strings.Trim(field, `"`)
		}
		return errors.New(reason)
	}
	return nil
}

// meta returns the type and metadata of a resource of v3.
func meta(kind v3.Kind, name string) (metav1.TypeMeta, metav1.ObjectMeta) {
	return metav1.TypeMeta{Kind: string(kind), APIVersion: v3.APIVersion}, metav1.ObjectMeta{Name: name}
}
