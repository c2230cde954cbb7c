package main

import (
	"encoding/json"
	"fmt"
	"math"
	"reflect"
	"strconv"
	"strings"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"

	v3 "margay/api/v3"
)

// A schema is what OpenAPI v3 and Kubernetes have for a value: JSONSchemaProps of apiextensions.k8s.io/v1, of which this is
// the part that is needed.
type schema struct {
	Description          string             `json:"description,omitempty"`
	Type                 string             `json:"type,omitempty"`
	Format               string             `json:"format,omitempty"`
	Nullable             bool               `json:"nullable,omitempty"`
	Default              any                `json:"default,omitempty"`
	Enum                 []any              `json:"enum,omitempty"`
	Pattern              string             `json:"pattern,omitempty"`
	Minimum              *float64           `json:"minimum,omitempty"`
	Maximum              *float64           `json:"maximum,omitempty"`
	MinLength            *int64             `json:"minLength,omitempty"`
	MaxLength            *int64             `json:"maxLength,omitempty"`
	MinItems             *int64             `json:"minItems,omitempty"`
	MaxItems             *int64             `json:"maxItems,omitempty"`
	MinProperties        *int64             `json:"minProperties,omitempty"`
	MaxProperties        *int64             `json:"maxProperties,omitempty"`
	Required             []string           `json:"required,omitempty"`
	Properties           map[string]*schema `json:"properties,omitempty"`
	AdditionalProperties *schema            `json:"additionalProperties,omitempty"`
	Items                *schema            `json:"items,omitempty"`
	AnyOf                []*schema          `json:"anyOf,omitempty"`
	IntOrString          bool               `json:"x-kubernetes-int-or-string,omitempty"`
	ListType             string             `json:"x-kubernetes-list-type,omitempty"`
	PreserveUnknown      bool               `json:"x-kubernetes-preserve-unknown-fields,omitempty"`
	Validations          []rule             `json:"x-kubernetes-validations,omitempty"`
}

// A rule is an expression in CEL, for which the value is self, and what is said when it is false.
type rule struct {
	Rule    string `json:"rule"`
	Message string `json:"message"`
}

// goDuration is what time.ParseDuration reads.
const goDuration = `^[+-]?(0|(([0-9]+(\.[0-9]*)?|\.[0-9]+)(ns|us|µs|μs|ms|s|m|h))+)$`

// A builder makes the schemas of one kind.
type builder struct{ texts texts }

func newBuilder(t texts) *builder { return &builder{t} }

// root returns the schema of a kind.
func (b *builder) root(t reflect.Type) *schema {
	if t == reflect.TypeFor[v3.Untyped]() {
		return untyped()
	}
	s := b.structure(t)
	s.Properties["metadata"] = &schema{Type: "object"}
	s.Required = []string{"metadata", "spec"}
	return s
}

// untyped is the schema of a kind of which nothing is known: what is there is kept.
func untyped() *schema {
	open := func() *schema { return &schema{Type: "object", PreserveUnknown: true} }
	return &schema{Type: "object", Properties: map[string]*schema{
		"apiVersion": {Type: "string"}, "kind": {Type: "string"}, "metadata": {Type: "object"}, "spec": open(), "status": open(),
	}}
}

func (b *builder) structure(t reflect.Type) *schema {
	s := &schema{Type: "object", Description: b.texts.of(t, ""), Properties: map[string]*schema{}}
	b.fields(s, t)
	if t == reflect.TypeFor[v3.BGPFilterRouteOperation]() { // exactly one is set
		s.MinProperties, s.MaxProperties = length(1), length(1)
	}
	return s
}

// fields adds the fields of a structure, and of those embedded in it.
func (b *builder) fields(s *schema, t reflect.Type) {
	s.Validations = append(s.Validations, rules(t.Name())...)
	for i := range t.NumField() {
		f := t.Field(i)
		name, _, _ := strings.Cut(f.Tag.Get("json"), ",")
		switch {
		case f.Anonymous && name == "" && f.Type == reflect.TypeFor[metav1.TypeMeta]():
			s.Properties["apiVersion"], s.Properties["kind"] = &schema{Type: "string"}, &schema{Type: "string"}
		case f.Anonymous && name == "":
			b.fields(s, f.Type)
		case f.Type == reflect.TypeFor[metav1.ObjectMeta](), name == "-":
		default:
			value := b.field(t, f)
			s.Properties[name] = value
			if required(f) {
				s.Required = append(s.Required, name)
			}
		}
	}
}

func required(f reflect.StructField) bool {
	for _, c := range v3.Constraints(f) {
		if c.Name == "required" || c.Name == "minitems" && f.Tag.Get("check") != "" {
			return true
		}
	}
	return false
}

// field returns the schema of a field: that of its type, narrowed by its tags.
func (b *builder) field(t reflect.Type, f reflect.StructField) *schema {
	s := b.value(f.Type)
	for _, c := range v3.Constraints(f) {
		constrain(s, f, c)
	}
	if text := b.texts.of(t, f.Name); text != "" {
		s.Description = text
	}
	s.Validations = append(s.Validations, rules(t.Name()+"."+f.Name)...)
	if s.Items != nil {
		s.Items.Validations = append(s.Items.Validations, rules(t.Name()+"."+f.Name+".item")...)
	}
	if preset, ok := f.Tag.Lookup("default"); ok {
		s.Default = presetOf(s, preset)
	}
	return s
}

// presetOf returns the value of a default tag.
func presetOf(s *schema, text string) any {
	if s.Type == "string" {
		return text
	}
	var v any
	if err := json.Unmarshal([]byte(text), &v); err != nil {
		panic(fmt.Sprintf("default %s: %v", text, err))
	}
	return v
}

// value returns the schema of a type, by what it looks like in JSON.
func (b *builder) value(t reflect.Type) *schema {
	switch t {
	case reflect.TypeFor[metav1.Duration]():
		return &schema{Type: "string", Pattern: goDuration}
	case reflect.TypeFor[metav1.Time]():
		return &schema{Type: "string", Format: "date-time", Nullable: true}
	case reflect.TypeFor[v3.Protocol]():
		return intOrText(1, 255, protocolText)
	case reflect.TypeFor[v3.Port]():
		s := intOrText(1, 65535, portText)
		s.MaxLength = length(15)
		return s
	case reflect.TypeFor[v3.DSCP]():
		return intOrText(0, 63, dscpText)
	case reflect.TypeFor[intstr.IntOrString]():
		return intOrText(1, 65535, "^"+portName+"$")
	}
	switch t.Kind() {
	case reflect.Pointer:
		return b.value(t.Elem())
	case reflect.String:
		return &schema{Type: "string"}
	case reflect.Bool:
		return &schema{Type: "boolean"}
	case reflect.Float64:
		return &schema{Type: "number"}
	case reflect.Slice:
		return &schema{Type: "array", Items: b.value(t.Elem())}
	case reflect.Map:
		return &schema{Type: "object", AdditionalProperties: b.value(t.Elem())}
	case reflect.Struct:
		return b.structure(t)
	}
	return integer(t)
}

// integer returns the schema of a whole number with the bounds of its type.
func integer(t reflect.Type) *schema {
	s := &schema{Type: "integer"}
	switch t.Kind() {
	case reflect.Int, reflect.Int64:
		s.Format = "int64"
	case reflect.Int32:
		s.Format = "int32"
	case reflect.Uint8:
		s.Minimum, s.Maximum = number(0), number(math.MaxUint8)
	case reflect.Uint16:
		s.Minimum, s.Maximum = number(0), number(math.MaxUint16)
	case reflect.Uint32:
		s.Format, s.Minimum, s.Maximum = "int64", number(0), number(math.MaxUint32)
	default:
		panic("no schema for " + t.String())
	}
	return s
}

// intOrText returns the schema of a whole number with bounds or a text with a pattern.
func intOrText(least, most float64, pattern string) *schema {
	return &schema{AnyOf: []*schema{{Type: "integer"}, {Type: "string"}}, IntOrString: true, Minimum: &least, Maximum: &most, Pattern: pattern}
}

func number(n float64) *float64 { return &n }

func length(n int64) *int64 { return &n }

// constrain narrows a schema by one rule. Rules for texts and numbers hold for the entries of a list (see api/v3/tags.go).
func constrain(s *schema, f reflect.StructField, c v3.Constraint) {
	switch c.Name {
	case "minitems":
		s.MinItems = count(c)
		return
	case "maxitems":
		s.MaxItems = count(c)
		return
	case "distinct":
		s.ListType = "set"
		return
	}
	optional := f.Type.Kind() == reflect.String && !required(f)
	if s.Type == "array" {
		s, optional = s.Items, false
	}
	if s.IntOrString && c.Name == "required" { // it has a pattern of its own
		return
	}
	if s.Type == "object" { // of a map the keys are meant, for which there is no schema
		return
	}
	switch c.Name {
	case "required":
		if s.Type == "string" {
			s.MinLength = length(1)
		}
	case "enum":
		s.Enum = options(s, c, optional)
	case "fold":
		s.Pattern = `^(?i:` + c.Arg + `)` + map[bool]string{true: "?"}[optional] + `$`
	case "min":
		n := float64(*count(c))
		s.Minimum = &n
	case "max":
		n := float64(*count(c))
		s.Maximum = &n
	case "maxlen":
		s.MaxLength = count(c)
	case "format":
		p := parsed(c.Arg)
		if p == "" {
			p = c.Pattern()
		}
		if p != "" {
			s.Pattern = orEmpty(p, optional)
		}
	default:
		panic("no schema for the rule " + c.Name)
	}
}

// orEmpty returns a pattern that admits the empty text as well, if that means the field is absent.
func orEmpty(pattern string, optional bool) string {
	if !optional {
		return pattern
	}
	return "^$|" + pattern
}

// options returns the values of an enum. An empty text is an absent one.
func options(s *schema, c v3.Constraint, optional bool) []any {
	var all []any
	for _, o := range strings.Split(c.Arg, "|") {
		if n, err := strconv.Atoi(o); err == nil && s.Type == "integer" {
			all = append(all, n)
		} else {
			all = append(all, o)
		}
	}
	if optional {
		all = append(all, "")
	}
	return all
}

func count(c v3.Constraint) *int64 {
	n, err := strconv.ParseInt(c.Arg, 10, 64)
	if err != nil {
		panic("rule " + c.Name + " without a number: " + c.Arg)
	}
	return &n
}
