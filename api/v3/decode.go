package v3

import (
	"fmt"
	"reflect"
	"strings"

	"go.yaml.in/yaml/v3"
)

// MaxFile bounds the input of Decode, in bytes.
const MaxFile = 64 << 20

// A Document is one object of a file, with what is needed to find the line of each of its fields.
type Document struct {
	File   string
	Index  int // of the document in the file, from 1; empty documents do not count
	Line   int // where the object begins
	Object Resource

	node *yaml.Node
}

// Decode returns the objects of a file: YAML with any number of documents, or JSON; a document may be an object, a list
// of objects, or an object of kind List or <Kind>List. Keys match in any case, as encoding/json does it, but every key
// must be known and be there once, and every value must have the type that is wanted. file is for messages only.
//
// The error is of type [Errors] and names all faults of the file. It is nil exactly when documents are returned: a file
// without any object is an error.
func Decode(file string, data []byte) ([]Document, error) {
	docs, err := DecodeEach(file, data)
	if err != nil {
		return nil, err
	}
	return docs, nil
}

// DecodeEach is Decode, but returns the objects without a fault beside the faults of the others: for who wants to say what
// else is wrong. When there is an error nothing may be done with any of them.
func DecodeEach(file string, data []byte) ([]Document, error) {
	if len(data) > MaxFile {
		return nil, Errors{{File: file, Reason: fmt.Sprintf("file has %d bytes, at most %d are read", len(data), MaxFile),
			Remedy: "split it"}}
	}
	d := &decoder{converter: newConverter(file)}
	trees, faults := parseFile(data)
	for _, e := range faults {
		e.File = file
	}
	for i, tree := range trees {
		if tree != nil {
			d.decodeDocument(tree, i+1)
		}
	}
	errs := append(faults, d.errs...)
	if len(errs) == 0 && len(d.docs) == 0 {
		errs = Errors{{File: file, Reason: "file holds no object"}}
	}
	if len(errs) > 0 {
		sortByLine(errs)
		return d.docs, errs
	}
	return d.docs, nil
}

func newConverter(file string) converter {
	return converter{strict: true, file: file, fields: map[reflect.Type]map[string]field{}}
}

// A decoder collects the objects of a file.
type decoder struct {
	converter
	docs []Document
}

func (d *decoder) decodeDocument(n *yaml.Node, index int) {
	d.document, d.aliased, d.key = index, 0, Key{}
	at := place{}
	if n = d.follow(n, &at); n == nil || isNull(n) {
		return
	}
	switch {
	case n.Kind == yaml.SequenceNode:
		d.items(n, at, "")
	case n.Kind != yaml.MappingNode:
		d.fail(n, "", problem{value: shown(n), reason: "document is " + describe(n) + " where an object or a list of objects is wanted"})
	default:
		d.objectOrList(n, at)
	}
}

func (d *decoder) objectOrList(n *yaml.Node, at place) {
	kind := textOf(child(n, "kind"))
	if kind == "List" {
		d.list(n, at, "")
		return
	}
	if item, ok := strings.CutSuffix(kind, "List"); ok {
		if _, known := Lookup(Kind(item)); known {
			d.list(n, at, Kind(item))
			return
		}
	}
	d.object(n, at, "")
}

// list decodes an object of kind List, whose items say what they are, or of a kind of its own, whose items need not.
func (d *decoder) list(n *yaml.Node, at place, kind Kind) {
	versions := []string{APIVersion}
	if kind == "" {
		versions = append(versions, "v1")
	}
	d.checkVersion(n, at, versions...)
	var items *yaml.Node
	for _, e := range d.entries(n, at) {
		switch strings.ToLower(e.key.Value) {
		case "items":
			items = e.value
		case "apiversion", "kind", "metadata":
		default:
			d.unknown(e, at, map[string]field{"items": {name: "items"}}, nil)
		}
	}
	if items == nil {
		d.fail(n, "items", problem{reason: "list has no items"})
		return
	}
	at = at.key("items")
	if items = d.follow(items, &at); items == nil || isNull(items) {
		return
	}
	if items.Kind != yaml.SequenceNode {
		d.wrongType(items, at.path, "a list")
		return
	}
	d.items(items, at, kind)
}

func (d *decoder) items(n *yaml.Node, at place, kind Kind) {
	for i, item := range n.Content {
		inside := at.entry(fmt.Sprint(i))
		if item = d.follow(item, &inside); item == nil {
			continue
		}
		d.key = Key{}
		if item.Kind != yaml.MappingNode {
			d.fail(item, inside.path, problem{value: shown(item), reason: "list entry is " + describe(item) + " where an object is wanted"})
			continue
		}
		d.object(item, inside, kind)
	}
}

// object decodes one resource. at names the place in a list; paths of the faults begin at the object, once its key says
// which one it is.
func (d *decoder) object(n *yaml.Node, at place, kind Kind) {
	meta := child(n, "metadata")
	d.key = Key{Kind(textOf(child(n, "kind"))), textOf(child(meta, "namespace")), textOf(child(meta, "name"))}
	if d.key.Kind == "" {
		d.key.Kind = kind
	}
	info, ok := Lookup(d.key.Kind)
	if !ok || kind != "" && d.key.Kind != kind {
		d.unknownKind(n, at, kind)
		return
	}
	if kind == "" || child(n, "apiVersion") != nil {
		d.checkVersion(n, at, APIVersion)
	}
	if d.key.Name != "" {
		at.path = ""
	}
	r := info.New()
	before := len(d.errs)
	d.converter.object(n, r, at)
	if len(d.errs) > before {
		return
	}
	r.GetObjectKind().SetGroupVersionKind(info.New().GetObjectKind().GroupVersionKind())
	d.docs = append(d.docs, Document{d.file, d.document, n.Line, r, n})
}

func (d *decoder) unknownKind(n *yaml.Node, at place, want Kind) {
	key := d.key
	d.key = Key{}
	kind := child(n, "kind")
	at = at.key("kind")
	switch {
	case want != "":
		d.fail(kind, at.path, problem{value: shown(kind), reason: "kind of an item does not fit the list", remedy: "write " + string(want)})
	case kind == nil:
		d.fail(n, at.path, problem{reason: "object has no kind", remedy: "add apiVersion: " + APIVersion + " and kind"})
	case key.Kind == "":
		d.wrongType(kind, at.path, "a text")
	default:
		remedy := ""
		if near := Nearest(string(key.Kind), kindNames); near != "" {
			remedy = "did you mean " + near + "?"
		}
		d.fail(kind, at.path, problem{value: kind.Value, reason: "kind is not known", remedy: remedy})
	}
}

// kindNames yields the kinds that a manifest can have.
func kindNames(yield func(string) bool) {
	for _, info := range Kinds() {
		if !yield(string(info.Kind)) {
			return
		}
	}
}

func (d *decoder) checkVersion(n *yaml.Node, at place, versions ...string) {
	at = at.key("apiVersion")
	version := child(n, "apiVersion")
	if version == nil {
		d.fail(n, at.path, problem{reason: "object has no apiVersion", remedy: "add apiVersion: " + versions[0]})
		return
	}
	for _, v := range versions {
		if textOf(version) == v {
			return
		}
	}
	d.fail(version, at.path, problem{value: shown(version), reason: "apiVersion is not known", remedy: "write " + versions[0]})
}

// child returns the value of a key of a mapping, in any case, nil if there is none. Merge keys are followed, up to a
// number of them that no honest document reaches.
func child(n *yaml.Node, key string) *yaml.Node {
	budget := 1000
	return find(n, key, &budget)
}

func find(n *yaml.Node, key string, budget *int) *yaml.Node {
	*budget--
	if n = target(n); n == nil || n.Kind != yaml.MappingNode || *budget < 0 {
		return nil
	}
	var merged []*yaml.Node
	for i := 0; i+1 < len(n.Content); i += 2 {
		k, v := n.Content[i], target(n.Content[i+1])
		switch {
		case strings.EqualFold(k.Value, key):
			return v
		case k.ShortTag() == "!!merge" && v.Kind == yaml.SequenceNode:
			merged = append(merged, v.Content...)
		case k.ShortTag() == "!!merge":
			merged = append(merged, v)
		}
	}
	for _, m := range merged {
		if found := find(m, key, budget); found != nil {
			return found
		}
	}
	return nil
}

func target(n *yaml.Node) *yaml.Node {
	for n != nil && n.Kind == yaml.AliasNode {
		n = n.Alias
	}
	return n
}

// textOf returns the text of a scalar, "" if n is none.
func textOf(n *yaml.Node) string {
	if n == nil || n.Kind != yaml.ScalarNode || isNull(n) {
		return ""
	}
	return n.Value
}
