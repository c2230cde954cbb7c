package v3

import (
	"encoding"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"math"
	"reflect"
	"slices"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v3"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// Bounds of the conversion.
const (
	maxAliased = 100_000 // nodes that are reached through aliases, in one document
	maxFaults  = 200     // per file; what comes after them is not reported
)

// A converter fills Go values from a document, and says of every node that does not fit where it stands and why. It
// follows encoding/json where that is not in doubt (tags, inlined structs, keys in any case), and refuses where a wrong
// guess would change what a policy means: a key twice, a key without a value, a text where a number is wanted.
type converter struct {
	strict   bool // unknown and repeated keys are faults
	file     string
	document int
	key      Key
	errs     Errors
	aliased  int
	fields   map[reflect.Type]map[string]field
}

// A problem is what is wrong with a value. value is printed as check.fail does it.
type problem struct {
	value          any
	reason, remedy string
}

func (c *converter) fail(n *yaml.Node, path string, p problem) {
	if len(c.errs) > maxFaults {
		return
	}
	if len(c.errs) == maxFaults {
		path, p = "", problem{reason: "too many faults: what follows is not checked"}
	}
	c.errs = append(c.errs, &FieldError{
		File: c.file, Document: c.document, Line: n.Line, Key: c.key,
		Path: path, Value: printed(p.value), Reason: p.reason, Remedy: p.remedy,
	})
}

// A place is where a value is converted: its path, how deep it is nested, and whether an alias led there.
type place struct {
	path    string
	depth   int
	aliased bool
}

func (p place) key(name string) place {
	if p.path != "" {
		name = p.path + "." + name
	}
	return place{name, p.depth + 1, p.aliased}
}

func (p place) entry(key string) place {
	return place{p.path + "[" + key + "]", p.depth + 1, p.aliased}
}

// follow returns the node that n stands for, nil if a bound is exceeded.
func (c *converter) follow(n *yaml.Node, at *place) *yaml.Node {
	if at.depth > maxDepth {
		c.fail(n, at.path, problem{reason: errTooDeep.Error()})
		return nil
	}
	for n.Kind == yaml.AliasNode {
		n, at.aliased = n.Alias, true
	}
	if at.aliased {
		if c.aliased++; c.aliased > maxAliased {
			if c.aliased == maxAliased+1 {
				c.fail(n, at.path, problem{reason: fmt.Sprintf("aliases expand to more than %d values", maxAliased), remedy: "write the values out"})
			}
			return nil
		}
	}
	return n
}

var (
	jsonUnmarshaler = reflect.TypeFor[json.Unmarshaler]()
	textUnmarshaler = reflect.TypeFor[encoding.TextUnmarshaler]()
)

// value converts n into v, which can be set.
func (c *converter) value(n *yaml.Node, v reflect.Value, at place) {
	if n = c.follow(n, &at); n == nil {
		return
	}
	if isNull(n) {
		c.null(n, v, at)
		return
	}
	if v.Kind() == reflect.Pointer {
		v.Set(reflect.New(v.Type().Elem()))
		c.value(n, v.Elem(), at)
		return
	}
	if p := reflect.PointerTo(v.Type()); p.Implements(jsonUnmarshaler) || p.Implements(textUnmarshaler) {
		c.unmarshal(n, v, at)
		return
	}
	switch v.Kind() {
	case reflect.Struct:
		c.structure(n, v, at)
	case reflect.Map:
		c.mapping(n, v, at)
	case reflect.Slice:
		c.sequence(n, v, at)
	default:
		c.scalar(n, v, at)
	}
}

func isNull(n *yaml.Node) bool { return n.Kind == yaml.ScalarNode && n.ShortTag() == "!!null" }

// null converts a key without a value, which is an absent one. A text that is not there is not the empty text, which as a
// selector would match everything.
func (c *converter) null(n *yaml.Node, v reflect.Value, at place) {
	if v.Kind() == reflect.String {
		c.fail(n, at.path, problem{reason: "key has no value", remedy: `remove the key, or write "" for the empty text`})
		return
	}
	v.SetZero()
}

// isMatcher reports whether t is one of the structs in which a key without a value is refused: left out it matches everything.
func isMatcher(t reflect.Type) bool {
	switch t {
	case reflect.TypeFor[Rule](), reflect.TypeFor[EntityRule](), reflect.TypeFor[ICMPFields](),
		reflect.TypeFor[ServiceMatch](), reflect.TypeFor[ServiceAccountMatch](), reflect.TypeFor[HTTPMatch](),
		reflect.TypeFor[KubernetesIngressRule](), reflect.TypeFor[KubernetesEgressRule](), reflect.TypeFor[KubernetesPort](),
		reflect.TypeFor[KubernetesPeer](), reflect.TypeFor[BGPFilterRule]():
		return true
	}
	return false
}

// structure converts a mapping into a struct.
func (c *converter) structure(n *yaml.Node, v reflect.Value, at place) {
	if n.Kind != yaml.MappingNode {
		c.wrongType(n, at.path, "a mapping")
		return
	}
	fields := c.fieldsOf(v.Type())
	seen := map[string]int{}
	for _, e := range c.entries(n, at) {
		f, ok := lookupFold(fields, e.key.Value)
		if !ok {
			if c.strict {
				c.unknown(e, at, fields, c.within(v.Type(), e.key.Value))
			}
			continue
		}
		inside := at.key(f.name)
		inside.aliased = e.aliased
		if line, twice := seen[f.name]; twice && c.strict {
			c.duplicate(e, inside.path, line)
			continue
		}
		seen[f.name] = e.key.Line
		if isNull(e.value) && isMatcher(v.Type()) {
			c.fail(e.value, inside.path, problem{reason: "key has no value", remedy: "give it a value or remove the key"})
			continue
		}
		if isNull(e.value) && v.Type() == reflect.TypeFor[metav1.ObjectMeta]() {
			continue // tools write uid: null and the like
		}
		c.value(e.value, v.FieldByIndex(f.index), inside)
	}
}

// An entry is one key of a mapping with its value.
type entry struct {
	key, value *yaml.Node
	aliased    bool
}

// entries returns the keys of a mapping, and those that merge keys (<<) bring in unless they are there.
func (c *converter) entries(n *yaml.Node, at place) []entry {
	var own, merged []entry
	for i := 0; i+1 < len(n.Content); i += 2 {
		k, v := n.Content[i], n.Content[i+1]
		if k.Kind == yaml.AliasNode {
			k = k.Alias
		}
		if k.Kind == yaml.ScalarNode && k.ShortTag() == "!!merge" {
			merged = append(merged, c.merge(v, at)...)
			continue
		}
		if c.checkKey(k, at.path) {
			own = append(own, entry{k, v, at.aliased})
		}
	}
	for _, m := range merged {
		if !slices.ContainsFunc(own, func(e entry) bool { return strings.EqualFold(e.key.Value, m.key.Value) }) {
			own = append(own, m)
		}
	}
	return own
}

// merge returns the entries of what a merge key names: a mapping or a list of them.
func (c *converter) merge(n *yaml.Node, at place) []entry {
	at.depth++
	if n = c.follow(n, &at); n == nil {
		return nil
	}
	switch n.Kind {
	case yaml.MappingNode:
		return c.entries(n, at)
	case yaml.SequenceNode:
		var all []entry
		for _, child := range n.Content {
			all = append(all, c.merge(child, at)...)
		}
		return all
	}
	c.wrongType(n, at.path, "a mapping to merge")
	return nil
}

// checkKey reports whether a node can be the key of a mapping.
func (c *converter) checkKey(k *yaml.Node, path string) bool {
	if k.Kind != yaml.ScalarNode {
		c.fail(k, path, problem{reason: "key is " + describe(k) + " where a text is wanted"})
		return false
	}
	if tag := k.ShortTag(); tag == "!!str" && !looksBoolean(k) || tag == "!!int" && decimal.MatchString(k.Value) {
		return true
	}
	c.fail(k, path, problem{value: raw(k.Value), reason: "key is " + describe(k) + " where a text is wanted", remedy: "quote it: " + strconv.Quote(k.Value)})
	return false
}

// unknown reports a key that does not belong where it stands. within lists where it would.
func (c *converter) unknown(e entry, at place, fields map[string]field, within []string) {
	k, remedy := e.key, ""
	if near := Nearest(k.Value, maps.Keys(fields)); near != "" {
		remedy = "did you mean " + near + "?"
	} else if len(within) > 0 {
		remedy = "did you mean " + strings.Join(within, " or ") + "? Check the indentation"
	}
	c.fail(k, at.key(bounded(k.Value)).path, problem{value: shown(e.value), reason: "field in document is not recognized or is in the wrong location: " + bounded(k.Value), remedy: remedy})
}

func (c *converter) duplicate(e entry, path string, line int) {
	c.fail(e.key, path, problem{value: shown(e.value), reason: fmt.Sprintf("key is there twice, first in line %d", line), remedy: "remove one of them"})
}

// mapping converts a mapping into a map with text keys.
func (c *converter) mapping(n *yaml.Node, v reflect.Value, at place) {
	if n.Kind != yaml.MappingNode {
		c.wrongType(n, at.path, "a mapping")
		return
	}
	v.Set(reflect.MakeMapWithSize(v.Type(), len(n.Content)/2))
	seen := map[string]int{}
	for _, e := range c.entries(n, at) {
		inside := at.entry(e.key.Value)
		inside.aliased = e.aliased
		if line, twice := seen[e.key.Value]; twice && c.strict {
			c.duplicate(e, inside.path, line)
			continue
		}
		seen[e.key.Value] = e.key.Line
		elem := reflect.New(v.Type().Elem()).Elem()
		c.value(e.value, elem, inside)
		v.SetMapIndex(reflect.ValueOf(e.key.Value).Convert(v.Type().Key()), elem)
	}
}

func (c *converter) sequence(n *yaml.Node, v reflect.Value, at place) {
	if n.Kind != yaml.SequenceNode {
		c.wrongType(n, at.path, "a list")
		return
	}
	v.Set(reflect.MakeSlice(v.Type(), len(n.Content), len(n.Content)))
	for i, child := range n.Content {
		inside := at.entry(strconv.Itoa(i))
		if isNull(child) {
			c.fail(child, inside.path, problem{reason: "list entry has no value", remedy: "remove it"})
			continue
		}
		c.value(child, v.Index(i), inside)
	}
}

// unmarshal hands a value to a type that decodes itself.
func (c *converter) unmarshal(n *yaml.Node, v reflect.Value, at place) {
	data, err := c.json(n, at)
	if err == nil {
		err = json.Unmarshal(data, v.Addr().Interface())
	}
	if err == nil || errors.Is(err, errReported) {
		return
	}
	if e := (*valueError)(nil); errors.As(err, &e) {
		c.fail(n, at.path, problem{value: shown(n), reason: e.reason, remedy: e.remedy})
		return
	}
	if e := (*json.UnmarshalTypeError)(nil); errors.As(err, &e) {
		c.wrongType(n, at.path, wanted(e.Type))
		return
	}
	c.fail(n, at.path, problem{value: shown(n), reason: strings.TrimPrefix(err.Error(), "json: ")})
}

// errReported: the fault is in c.errs already.
var errReported = errors.New("fault is reported")

// json returns a node as JSON. What YAML 1.1 and YAML 1.2 read as different values has none.
func (c *converter) json(n *yaml.Node, at place) ([]byte, error) {
	if n = c.follow(n, &at); n == nil {
		return nil, errReported
	}
	switch n.Kind {
	case yaml.MappingNode:
		object := map[string]json.RawMessage{}
		for _, e := range c.entries(n, at) {
			data, err := c.json(e.value, at.key(e.key.Value))
			if err != nil {
				return nil, err
			}
			object[e.key.Value] = data
		}
		return json.Marshal(object)
	case yaml.SequenceNode:
		list := []json.RawMessage{}
		for i, child := range n.Content {
			data, err := c.json(child, at.entry(strconv.Itoa(i)))
			if err != nil {
				return nil, err
			}
			list = append(list, data)
		}
		return json.Marshal(list)
	}
	switch tag := n.ShortTag(); {
	case tag == "!!null":
		return []byte("null"), nil
	case tag == "!!bool":
		return []byte(strings.ToLower(n.Value)), nil
	case (tag == "!!int" || tag == "!!float") && json.Valid([]byte(n.Value)):
		return []byte(withoutFraction(n.Value)), nil
	case tag == "!!int" || tag == "!!float" || looksBoolean(n):
		c.fail(n, at.path, problem{value: raw(n.Value), reason: "value is " + describe(n) + " in a notation that is not read alike everywhere",
			remedy: "write it in decimal notation, or quote it: " + strconv.Quote(n.Value)})
		return nil, errReported
	}
	return json.Marshal(n.Value)
}

// decimal is an integer that YAML 1.1, YAML 1.2 and JSON read alike.
var decimal = lazily(`^-?(0|[1-9][0-9]*)$`)

// exact bounds the whole numbers that a float64 holds without loss.
const exact = 1 << 53

// withoutFraction returns a number without its fraction if that is zero: 80.0 and 8e1 are 80, as they are for calicoctl. Other numbers
// stay as they are.
func withoutFraction(text string) string {
	if decimal.MatchString(text) || !json.Valid([]byte(text)) {
		return text
	}
	f, err := strconv.ParseFloat(text, 64)
	if err != nil || f != math.Trunc(f) || math.Abs(f) >= exact {
		return text
	}
	return strconv.FormatInt(int64(f), 10)
}

// scalar converts a single value into a text, number or boolean.
func (c *converter) scalar(n *yaml.Node, v reflect.Value, at place) {
	if n.Kind != yaml.ScalarNode {
		c.wrongType(n, at.path, wanted(v.Type()))
		return
	}
	switch v.Kind() {
	case reflect.String:
		c.text(n, v, at)
	case reflect.Bool:
		c.boolean(n, v, at)
	case reflect.Int, reflect.Int8, reflect.Int16, reflect.Int32, reflect.Int64,
		reflect.Uint, reflect.Uint8, reflect.Uint16, reflect.Uint32, reflect.Uint64:
		c.integer(n, v, at)
	case reflect.Float32, reflect.Float64:
		c.float(n, v, at)
	default:
		panic(fmt.Sprintf("api/v3: field %s has type %v, which no document can fill", at.path, v.Type()))
	}
}

func (c *converter) text(n *yaml.Node, v reflect.Value, at place) {
	switch tag := n.ShortTag(); {
	case tag == "!!str" && !looksBoolean(n), tag == "!!timestamp":
		v.SetString(n.Value)
	case tag == "!!int" && decimal.MatchString(n.Value), tag == "!!bool" && (n.Value == "true" || n.Value == "false"):
		v.SetString(n.Value) // as calicoctl reads it; words and numbers that it would respell are refused
	case tag == "!!float" && keepsSpelling(n.Value):
		v.SetString(n.Value)
	default:
		c.fail(n, at.path, problem{value: raw(n.Value), reason: "value is " + describe(n) + " where a text is wanted", remedy: "quote it: " + strconv.Quote(n.Value)})
	}
}

// keepsSpelling reports whether calicoctl writes a fraction as it reads it, where a text is wanted.
func keepsSpelling(text string) bool {
	f, err := strconv.ParseFloat(text, 64)
	return err == nil && json.Valid([]byte(text)) && strconv.FormatFloat(f, 'g', -1, 64) == text
}

// looksBoolean reports whether a word without quotes is a boolean for the YAML 1.1 readers that Kubernetes tools use.
func looksBoolean(n *yaml.Node) bool {
	if n.Style&(yaml.SingleQuotedStyle|yaml.DoubleQuotedStyle|yaml.LiteralStyle|yaml.FoldedStyle|yaml.TaggedStyle) != 0 {
		return false
	}
	switch strings.ToLower(n.Value) {
	case "y", "n", "yes", "no", "on", "off", "true", "false":
		return true
	}
	return false
}

func (c *converter) boolean(n *yaml.Node, v reflect.Value, at place) {
	if n.ShortTag() != "!!bool" && !looksBoolean(n) {
		c.wrongType(n, at.path, "true or false")
		return
	}
	switch strings.ToLower(n.Value) {
	case "true", "yes", "on", "y":
		v.SetBool(true)
	default:
		v.SetBool(false)
	}
}

func (c *converter) integer(n *yaml.Node, v reflect.Value, at place) {
	if tag := n.ShortTag(); tag != "!!int" && tag != "!!float" {
		c.wrongType(n, at.path, "a whole number")
		return
	}
	text := withoutFraction(n.Value)
	if !decimal.MatchString(text) {
		c.fail(n, at.path, problem{value: raw(n.Value), reason: "value is no whole number in decimal notation"})
		return
	}
	var low, high string
	if v.CanUint() {
		u, err := strconv.ParseUint(text, 10, v.Type().Bits())
		if err == nil {
			v.SetUint(u)
			return
		}
		low, high = "0", strconv.FormatUint(math.MaxUint64>>(64-v.Type().Bits()), 10)
	} else {
		i, err := strconv.ParseInt(text, 10, v.Type().Bits())
		if err == nil {
			v.SetInt(i)
			return
		}
		largest := int64(math.MaxInt64) >> (64 - v.Type().Bits())
		low, high = strconv.FormatInt(-largest-1, 10), strconv.FormatInt(largest, 10)
	}
	c.fail(n, at.path, problem{value: raw(n.Value), reason: "number must be between " + low + " and " + high})
}

func (c *converter) float(n *yaml.Node, v reflect.Value, at place) {
	if tag := n.ShortTag(); tag != "!!int" && tag != "!!float" {
		c.wrongType(n, at.path, "a number")
		return
	}
	var f float64
	if err := json.Unmarshal([]byte(n.Value), &f); err != nil {
		c.fail(n, at.path, problem{value: raw(n.Value), reason: "value is no finite number in decimal notation"})
		return
	}
	v.SetFloat(f)
}

func (c *converter) wrongType(n *yaml.Node, path, want string) {
	c.fail(n, path, problem{value: shown(n), reason: "value is " + describe(n) + " where " + want + " is wanted"})
}

// shown returns the value of a node for an error, nil if it has parts.
func shown(n *yaml.Node) any {
	switch {
	case n.Kind != yaml.ScalarNode:
		return nil
	case n.ShortTag() == "!!str":
		return n.Value
	}
	return raw(n.Value)
}

func describe(n *yaml.Node) string {
	switch n.Kind {
	case yaml.MappingNode:
		return "a mapping"
	case yaml.SequenceNode:
		return "a list"
	}
	switch tag := n.ShortTag(); {
	case tag == "!!null":
		return "nothing"
	case tag == "!!bool", looksBoolean(n):
		return "a boolean"
	case tag == "!!int", tag == "!!float":
		return "a number"
	case tag != "!!str" && tag != "!!timestamp":
		return "a value with tag " + bounded(tag)
	}
	return "a text"
}

// wanted describes a Go type to somebody who writes a document.
func wanted(t reflect.Type) string {
	switch t.Kind() {
	case reflect.Bool:
		return "true or false"
	case reflect.String:
		return "a text"
	case reflect.Slice, reflect.Array:
		return "a list"
	case reflect.Struct, reflect.Map:
		return "a mapping"
	case reflect.Float32, reflect.Float64:
		return "a number"
	}
	return "a whole number"
}
