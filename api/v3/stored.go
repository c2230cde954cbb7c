package v3

import (
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"reflect"
	"strings"
)

// Encode returns an object as Calico stores it: JSON without resourceVersion, and in a policy the annotation that holds
// its name. Two objects that are equal have equal bytes.
func Encode(r Resource) ([]byte, error) {
	stored := shallowCopy(r)
	stored.SetResourceVersion("")
	stored.SetManagedFields(nil)
	stored.SetSelfLink("")
	if isPolicy(r) {
		name, err := json.Marshal(map[string]string{"name": r.GetName()})
		if err != nil {
			return nil, fmt.Errorf("encode name of %s: %w", KeyOf(r), err)
		}
		annotations := maps.Clone(r.GetAnnotations())
		if annotations == nil {
			annotations = map[string]string{}
		}
		annotations[annotationMetadata] = string(name)
		stored.SetAnnotations(annotations)
	}
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	if err := enc.Encode(stored); err != nil {
		return nil, fmt.Errorf("encode %s: %w", KeyOf(r), err)
	}
	return bytes.TrimSuffix(b.Bytes(), []byte("\n")), nil
}

// shallowCopy returns a copy whose metadata can be set without changing r.
func shallowCopy(r Resource) Resource {
	c := reflect.New(reflect.TypeOf(r).Elem())
	c.Elem().Set(reflect.ValueOf(r).Elem())
	return c.Interface().(Resource)
}

func isPolicy(r Resource) bool { return policySpecOf(r) != nil }

// DecodeStored returns the object of a value in the store. Unknown fields are tolerated, because newer releases may have
// written them, and those of a rule are named in its field Unknown; a wrong type, or anything that a rule could not be
// compiled from, is an error of type [Errors], so that it can never pass for an empty value. What older releases left out is
// completed.
//
// The name of a policy is that of its annotation, which the result no longer has; without the annotation a policy of
// the default tier loses the prefix "default." that releases before 3.29 stored.
func DecodeStored(kind Kind, data []byte) (Resource, error) {
	return decodeStored(kind, data, func(Resource) {})
}

// DecodeCustom is DecodeStored for a custom resource of Kubernetes, which kubectl may have written: a policy without types
// has those of the rule lists that are there, as Calico's admission policy has it, and not both.
func DecodeCustom(kind Kind, data []byte) (Resource, error) {
	return decodeStored(kind, data, func(r Resource) {
		if spec := policySpecOf(r); spec != nil && len(spec.Types) == 0 && !isDeletion(r) {
			spec.Types = typesByPresence(spec)
		}
	})
}

// isDeletion reports whether a staged policy stands for the deletion of another, which has no types.
func isDeletion(r Resource) bool {
	switch r := r.(type) {
	case *StagedGlobalNetworkPolicy:
		return r.Spec.StagedAction == StagedDelete
	case *StagedNetworkPolicy:
		return r.Spec.StagedAction == StagedDelete
	}
	return false
}

// typesByPresence is typesByRules by the lists that are there, be they empty.
func typesByPresence(spec *PolicySpec) []string {
	switch {
	case spec.Egress == nil:
		return []string{TypeIngress}
	case spec.Ingress == nil:
		return []string{TypeEgress}
	}
	return []string{TypeIngress, TypeEgress}
}

// policySpecOf returns what the policy kinds have in common, nil for other kinds.
func policySpecOf(r Resource) *PolicySpec {
	switch r := r.(type) {
	case *GlobalNetworkPolicy:
		return &r.Spec.PolicySpec
	case *NetworkPolicy:
		return &r.Spec
	case *StagedGlobalNetworkPolicy:
		return &r.Spec.PolicySpec
	case *StagedNetworkPolicy:
		return &r.Spec.PolicySpec
	}
	return nil
}

func decodeStored(kind Kind, data []byte, complete func(Resource)) (Resource, error) {
	info, ok := Lookup(kind)
	if !ok {
		return nil, Errors{{Key: Key{Kind: kind}, Reason: "kind is not known"}}
	}
	r, err := decodeJSON(info, data)
	if err != nil {
		return nil, err
	}
	if got := r.GetObjectKind().GroupVersionKind().Kind; got != string(kind) && got != "" {
		return nil, Errors{{Key: Key{Kind: kind}, Path: "kind", Value: printed(got), Reason: "value is of another kind than its key"}}
	}
	r.GetObjectKind().SetGroupVersionKind(info.New().GetObjectKind().GroupVersionKind())
	c := &check{key: KeyOf(r)}
	if isPolicy(r) {
		restoreName(c, r)
	}
	if r.GetName() == "" {
		c.fail("metadata.name", nil, "name is not specified", "")
	}
	complete(r)
	validateStored(c, r)
	if len(c.errs) > 0 {
		return nil, c.errs
	}
	return r, nil
}

// decodeJSON takes the fast way of encoding/json where that cannot go wrong. It is silent about keys without a value and
// terse about where a fault is, so in both cases the way of Decode is taken.
func decodeJSON(info Info, data []byte) (Resource, error) {
	r := info.New()
	if !bytes.Contains(data, []byte("null")) && decodeFast(r, data) == nil {
		return r, nil
	}
	trees, fault := parseJSON(data)
	if fault != nil {
		fault.Key, fault.Document = Key{Kind: info.Kind}, 0
		return nil, Errors{fault}
	}
	if len(trees) != 1 {
		return nil, Errors{{Key: Key{Kind: info.Kind}, Reason: fmt.Sprintf("value holds %d JSON values where one is wanted", len(trees))}}
	}
	c := newConverter("")
	c.strict = false
	meta := child(trees[0], "metadata")
	c.key = Key{info.Kind, textOf(child(meta, "namespace")), textOf(child(meta, "name"))}
	r = info.New()
	c.object(trees[0], r, place{})
	if len(c.errs) > 0 {
		return nil, c.errs
	}
	if err := MarkUnknown(r, data); err != nil {
		return nil, err
	}
	return r, nil
}

// decodeFast refuses unknown fields where there may be rules.
func decodeFast(r Resource, data []byte) error {
	if rulesOf(r) == nil {
		return json.Unmarshal(data, r)
	}
	d := json.NewDecoder(bytes.NewReader(data))
	d.DisallowUnknownFields()
	if err := d.Decode(r); err != nil {
		return err
	}
	if rest := bytes.TrimSpace(data[d.InputOffset():]); len(rest) > 0 {
		return fmt.Errorf("%d bytes follow the value", len(rest))
	}
	return nil
}

// restoreName undoes what Encode, or an older release, did to the name.
func restoreName(c *check, r Resource) {
	text, ok := r.GetAnnotations()[annotationMetadata]
	if !ok || text == "" {
		if tier := tierOf(r); tier == "" || tier == DefaultTier {
			r.SetName(strings.TrimPrefix(r.GetName(), DefaultTier+"."))
		}
		return
	}
	var meta struct {
		Name string `json:"name"`
	}
	if err := json.Unmarshal([]byte(text), &meta); err != nil {
		c.fail("metadata.annotations["+annotationMetadata+"]", text, "annotation is no JSON: "+err.Error(), "")
		return
	}
	if meta.Name != "" {
		r.SetName(meta.Name)
	}
	annotations := maps.Clone(r.GetAnnotations())
	delete(annotations, annotationMetadata)
	if len(annotations) == 0 {
		annotations = nil
	}
	r.SetAnnotations(annotations)
}

// tierOf returns the tier that a policy names, "" if it is no policy or names none.
func tierOf(r Resource) string {
	switch r := r.(type) {
	case *GlobalNetworkPolicy:
		return r.Spec.Tier
	case *NetworkPolicy:
		return r.Spec.Tier
	case *StagedGlobalNetworkPolicy:
		return r.Spec.Tier
	case *StagedNetworkPolicy:
		return r.Spec.Tier
	}
	return ""
}

// KeepStatus gives r the status of the version that it replaces, unless it has one of its own: manifests say what is
// wanted, and somebody else what is.
func KeepStatus(r, old Resource) {
	if now, ok := r.(*Untyped); ok {
		was := old.(*Untyped).Fields["status"]
		if now.Fields["status"] == nil && was != nil {
			now.Fields = maps.Clone(now.Fields)
			if now.Fields == nil {
				now.Fields = map[string]json.RawMessage{}
			}
			now.Fields["status"] = was
		}
		return
	}
	now := reflect.ValueOf(r).Elem().FieldByName("Status")
	if now.IsValid() && now.IsZero() {
		now.Set(reflect.ValueOf(old).Elem().FieldByName("Status"))
	}
}

// SameStatus reports whether two resources of one kind say the same in their status.
func SameStatus(a, b Resource) bool {
	if x, ok := a.(*Untyped); ok {
		return bytes.Equal(x.Fields["status"], b.(*Untyped).Fields["status"])
	}
	x, y := reflect.ValueOf(a).Elem().FieldByName("Status"), reflect.ValueOf(b).Elem().FieldByName("Status")
	return !x.IsValid() || reflect.DeepEqual(x.Interface(), y.Interface())
}

// CopyStoredName returns a stored value of a policy with the name that another one has, and with the annotation that holds
// it if that one has it.
func CopyStoredName(from, to []byte) ([]byte, error) {
	var trees [2]struct {
		object, meta, annotations map[string]any
	}
	for i, data := range [][]byte{from, to} {
		value, err := parseNumbers(data)
		if err != nil {
			return nil, fmt.Errorf("copy the name of a stored policy: %w", err)
		}
		trees[i].object, _ = value.(map[string]any)
		trees[i].meta, _ = trees[i].object["metadata"].(map[string]any)
		trees[i].annotations, _ = trees[i].meta["annotations"].(map[string]any)
	}
	was, is := trees[0], trees[1]
	is.meta["name"] = was.meta["name"]
	if text, ok := was.annotations[annotationMetadata]; ok {
		is.annotations[annotationMetadata] = text
	} else if delete(is.annotations, annotationMetadata); len(is.annotations) == 0 {
		delete(is.meta, "annotations")
	}
	return json.Marshal(is.object)
}
