package v3

import (
	"encoding/json"
	"fmt"
	"maps"
	"reflect"

	"go.yaml.in/yaml/v3"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// The kinds that are stored beside the others and have no type here: nothing is known of their fields.
const (
	KindBlockAffinity Kind = "BlockAffinity"
	KindLiveMigration Kind = "LiveMigration"
)

// UntypedKinds returns the kinds whose resources are of type [*Untyped]. They are not among [Kinds]; [Lookup] knows them.
func UntypedKinds() []Info {
	info := func(kind Kind, plural string, namespaced bool) Info {
		return Info{kind, plural, namespaced, func() Resource {
			return &Untyped{TypeMeta: metav1.TypeMeta{Kind: string(kind), APIVersion: APIVersion}}
		}}
	}
	return []Info{
		info(KindBlockAffinity, "blockaffinities", false),
		info(KindLiveMigration, "livemigrations", true),
	}
}

// An Untyped is an object of a kind without a type. What it holds beside its metadata is kept and not looked at.
type Untyped struct {
	metav1.TypeMeta
	metav1.ObjectMeta
	// Fields are the other keys of the object: spec, status.
	Fields map[string]json.RawMessage
}

// MarshalJSON implements json.Marshaler.
func (u *Untyped) MarshalJSON() ([]byte, error) {
	object := map[string]any{"kind": u.Kind, "apiVersion": u.APIVersion, "metadata": u.ObjectMeta}
	for key, value := range u.Fields {
		object[key] = value
	}
	return json.Marshal(object)
}

// UnmarshalJSON implements json.Unmarshaler.
func (u *Untyped) UnmarshalJSON(data []byte) error {
	var fields map[string]json.RawMessage
	if err := json.Unmarshal(data, &fields); err != nil {
		return err
	}
	for key, target := range map[string]any{"kind": &u.Kind, "apiVersion": &u.APIVersion, "metadata": &u.ObjectMeta} {
		if value, ok := fields[key]; ok {
			if err := json.Unmarshal(value, target); err != nil {
				return fmt.Errorf("%s: %w", key, err)
			}
		}
		delete(fields, key)
	}
	u.Fields = nil
	if len(fields) > 0 {
		u.Fields = maps.Clone(fields)
	}
	return nil
}

// object converts a mapping into a resource.
func (c *converter) object(n *yaml.Node, r Resource, at place) {
	v := reflect.ValueOf(r).Elem()
	switch {
	case v.Type() != reflect.TypeFor[Untyped]():
		c.structure(n, v, at)
	case n.Kind != yaml.MappingNode:
		c.wrongType(n, at.path, "a mapping")
	default:
		c.unmarshal(n, v, at)
	}
}
