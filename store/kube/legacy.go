package kube

import (
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"strings"

	"k8s.io/apimachinery/pkg/types"

	"margay/store/kube/convert"
)

// Objects of crd.projectcalico.org/v1 have the metadata of projectcalico.org/v3 as JSON in an annotation, all but what only
// the server can say: name, namespace, uid, resourceVersion. Their uid is the turned one of the resource. What of
// labels and annotations is Calico's is in both places.

// annotationMetadata is where that metadata is.
const annotationMetadata = "projectcalico.org/metadata"

// fromV1 returns the v3 form of an object of crd.projectcalico.org/v1.
func fromV1(raw []byte) ([]byte, error) {
	object, meta, err := parse(raw)
	if err != nil {
		return nil, err
	}
	object["apiVersion"] = "projectcalico.org/v3"
	if uid, ok := meta["uid"].(string); ok {
		meta["uid"] = string(convert.UID(types.UID(uid)))
	}
	annotations, _ := meta["annotations"].(map[string]any)
	text, ok := annotations[annotationMetadata].(string)
	if !ok {
		return json.Marshal(object)
	}
	_, kept, err := parse([]byte(`{"metadata":` + text + `}`))
	if err != nil {
		return nil, fmt.Errorf("annotation %s is no JSON object: %w", annotationMetadata, err)
	}
	delete(annotations, annotationMetadata)
	for _, field := range []string{"labels", "annotations"} {
		both, _ := meta[field].(map[string]any)
		more, _ := kept[field].(map[string]any)
		if both == nil {
			both = map[string]any{}
		}
		maps.Copy(both, more)
		if meta[field] = both; len(both) == 0 {
			delete(meta, field)
		}
	}
	for field, value := range kept {
		switch field {
		case "name", "namespace", "uid", "resourceVersion", "labels", "annotations", "managedFields", "generation", "selfLink":
		default:
			if value != nil {
				meta[field] = value
			}
		}
	}
	return json.Marshal(object)
}

// toV1 turns the v3 form of an object into that of crd.projectcalico.org/v1.
func toV1(object map[string]any) error {
	object["apiVersion"] = GroupV1
	meta, _ := object["metadata"].(map[string]any)
	kept := maps.Clone(meta)
	for _, field := range []string{"namespace", "uid", "resourceVersion", "managedFields", "generation", "selfLink"} {
		delete(kept, field)
	}
	if !namedInAnnotation(object["kind"]) {
		delete(kept, "name")
	}
	text, err := json.Marshal(kept)
	if err != nil {
		return err
	}
	annotations := ours(meta["annotations"])
	annotations[annotationMetadata] = string(text)
	outer := map[string]any{"name": meta["name"], "annotations": annotations}
	for _, field := range []string{"namespace", "resourceVersion", "finalizers"} {
		if value, ok := meta[field]; ok {
			outer[field] = value
		}
	}
	if labels := ours(meta["labels"]); len(labels) > 0 {
		outer["labels"] = labels
	}
	if uid, ok := meta["uid"].(string); ok {
		outer["uid"] = string(convert.UID(types.UID(uid)))
	}
	object["metadata"] = outer
	return nil
}

// namedInAnnotation reports whether objects of a kind have their name in the annotation, too: policies once had others.
func namedInAnnotation(kind any) bool {
	switch kind {
	case "GlobalNetworkPolicy", "NetworkPolicy", "StagedGlobalNetworkPolicy", "StagedNetworkPolicy":
		return true
	}
	return false
}

// ours returns what of labels or annotations is Calico's.
func ours(all any) map[string]any {
	m, _ := all.(map[string]any)
	out := map[string]any{}
	for key, value := range m {
		if strings.Contains(key, "projectcalico.org/") || strings.Contains(key, "operator.tigera.io/") {
			out[key] = value
		}
	}
	return out
}

// parse returns an object and its metadata, with numbers as they are spelt.
func parse(raw []byte) (object, meta map[string]any, err error) {
	d := json.NewDecoder(bytes.NewReader(raw))
	d.UseNumber()
	if err := d.Decode(&object); err != nil {
		return nil, nil, err
	}
	meta, ok := object["metadata"].(map[string]any)
	if !ok {
		return nil, nil, fmt.Errorf("it has no metadata")
	}
	return object, meta, nil
}
