package ctl

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strconv"

	v3 "margay/api/v3"
	"margay/store"
)

// An edit changes the JSON value of one object: patch and label.
type edit func(any) (any, error)

// A held value stands in a document for a field that this program does not know: an edit can remove or replace it, but
// not look into it.
type held struct{ value json.RawMessage }

// MarshalJSON implements json.Marshaler.
func (h *held) MarshalJSON() ([]byte, error) { return h.value, nil }

// rewrite edits one object in the store, again while others change it under the edit. Fields that this program does not
// know stay where they are.
func (w *writer) rewrite(ctx context.Context, key v3.Key, do edit) error {
	for attempt := 1; ; attempt++ {
		c, err := w.edited(ctx, key, do)
		if err != nil {
			return err
		}
		w.changes = []*change{c}
		if w.pretending {
			c.state, c.result = stateConfigured, c.doc.Object
			return nil
		}
		w.run(ctx)
		switch {
		case c.state == stateUnknown:
			return fmt.Errorf("%w; it is not known whether the datastore has done it", c.err)
		case c.state == stateNotTried && ctx.Err() != nil:
			return errors.New("interrupted: nothing was written")
		case !errors.Is(c.err, store.ErrConflict) || attempt == maxAttempts:
			return c.err
		}
		backOff(ctx, attempt)
	}
}

// edited returns the change that an edit makes of what is stored now.
func (w *writer) edited(ctx context.Context, key v3.Key, do edit) (*change, error) {
	old, unknown, err := w.inspect(ctx, key)
	if err != nil {
		return nil, &readError{err}
	}
	tree, kept, err := treeOf(old, unknown)
	if err != nil {
		return nil, err
	}
	if tree, err = do(tree); err != nil {
		return nil, err
	}
	kept = append(kept, letGo(tree, nil)...)
	doc, err := decodeTree(key, tree)
	if err != nil {
		return nil, err
	}
	r := doc.Object
	if got := v3.KeyOf(r); got != key {
		return nil, fmt.Errorf("%s %s: it would become %s (kind, name and namespace cannot be changed)", w.verb.name, key, got)
	}
	if revision := r.GetResourceVersion(); revision != old.GetResourceVersion() {
		c := &change{key: key, given: revision, old: version{Resource: old}}
		return nil, outOfDate(key, revision, old.GetResourceVersion(), w.since(ctx, c))
	}
	setOwned(r, old)
	if err := v3.Validate(r); err != nil {
		return nil, err
	}
	c := &change{doc: doc, key: key, old: version{Resource: old}, unknown: kept, rewritten: true}
	return c, nil
}

// A readError says that the object to edit could not be read.
type readError struct{ error }

func (e *readError) Unwrap() error { return e.error }

// treeOf returns an object as JSON values, with the unknown fields held in their places, and those without a place.
func treeOf(r v3.Resource, unknown v3.Unknown) (tree any, loose v3.Unknown, err error) {
	text, err := json.Marshal(r)
	if err != nil {
		return nil, nil, err
	}
	if tree, err = parseJSON(text); err != nil {
		return nil, nil, err
	}
	loose = v3.Unknown{}
	for _, f := range unknown {
		last := len(f.Path) - 1
		parent, err := find(tree, f.Path[:last])
		if object, ok := parent.(map[string]any); ok && err == nil {
			object[f.Path[last]] = &held{f.Value}
		} else {
			loose = append(loose, f)
		}
	}
	return tree, loose, nil
}

// letGo takes the held fields out of a tree, and returns them with the places where they were.
func letGo(tree any, path []string) (out v3.Unknown) {
	switch v := tree.(type) {
	case map[string]any:
		for key, member := range v {
			at := append(slices.Clip(path), key)
			if h, ok := member.(*held); ok {
				out = append(out, v3.UnknownField{Path: at, Value: h.value})
				delete(v, key)
				continue
			}
			out = append(out, letGo(member, at)...)
		}
	case []any:
		for i := range v {
			out = append(out, letGo(v[i], append(slices.Clip(path), strconv.Itoa(i)))...)
		}
	}
	return out
}

// decodeTree decodes an object as strictly as a manifest.
func decodeTree(key v3.Key, tree any) (v3.Document, error) {
	text, err := json.Marshal(tree)
	if err != nil {
		return v3.Document{}, err
	}
	docs, err := v3.Decode("", text)
	switch {
	case err != nil:
		return v3.Document{}, withoutPosition(err)
	case len(docs) != 1:
		return v3.Document{}, fmt.Errorf("patch %s: the result is %d resources", key, len(docs))
	}
	return docs[0], nil
}

// withoutPosition removes document and line, which nobody sees, from errors about an edited resource.
func withoutPosition(err error) error {
	faults := v3.Errors(nil)
	if !errors.As(err, &faults) {
		return err
	}
	for _, fault := range faults {
		fault.Document, fault.Line = 0, 0
	}
	return faults
}
