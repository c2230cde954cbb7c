package ctl

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	v3 "margay/api/v3"
	"margay/store"
)

// The verbs that report an outcome.
var (
	verbCreate   = verb{"create", "created"}
	verbApply    = verb{"apply", "applied"}
	verbReplace  = verb{"replace", "replaced"}
	verbValidate = verb{"validate", "validated"}
	verbDelete   = verb{"delete", "deleted"}
)

// maxAttempts is how often an update is tried when somebody else changes the object at the same time (spec 3.4).
const maxAttempts = 5

// writeFlags are the flags of create, apply and replace.
type writeFlags struct {
	input      inputFlags
	store      storeFlags
	skipExists bool
}

func (c *cli) addWriteFlags(cmd *cobra.Command, f *writeFlags) {
	f.input.add(cmd)
	c.addStoreFlags(cmd, &f.store)
	c.addChangesFlag(cmd)
}

func (c *cli) addChangesFlag(cmd *cobra.Command) {
	cmd.Flags().BoolVar(&c.changes, "changes", !c.silent(), "say on standard error what became of each object")
}

// A writer writes the objects of one command.
type writer struct {
	*session
	cli        *cli
	skipExists bool
	replaced   []replacement
}

// A replacement is an object of which apply found another version.
type replacement struct{ old, new v3.Resource }

// write runs create, apply or replace: one writes one object.
func (c *cli) write(cmd *cobra.Command, f *writeFlags, v verb, one func(*writer, context.Context, v3.Resource) error) error {
	if err := f.input.required(cmd); err != nil {
		return err
	}
	docs, err := c.load(f.input)
	if err != nil {
		return err
	}
	o := outcome{kind: kindOf(docs), total: len(docs)}
	o.errs = prepare(docs, f.input)
	if len(docs) == 0 || len(o.errs) > 0 {
		return o.report(c.env.Stdout, v)
	}
	ctx := cmd.Context()
	s, err := c.openForWork(ctx, f.store)
	if err != nil {
		return err
	}
	defer s.close()
	if err := s.initialise(ctx); err != nil {
		return err
	}
	advice := newAdviser(ctx, s, kindsOf(docs))
	w := &writer{session: s, cli: c, skipExists: f.skipExists}
	o.each(docs, func(doc v3.Document) error { return one(w, ctx, doc.Object) })
	advice.docs = docs
	if v == verbApply {
		advice.replaced = w.replaced
	}
	advice.print(ctx, c)
	return o.report(c.env.Stdout, v)
}

// each does something with every document and counts. It ends early only when the datastore does not answer.
func (o *outcome) each(docs []v3.Document, do func(v3.Document) error) {
	for i, doc := range docs {
		err := do(doc)
		if err == nil {
			o.ok()
			continue
		}
		o.fail(err)
		if left := len(docs) - i - 1; unreachable(err) && left > 0 {
			o.fail(fmt.Errorf("%d more not tried", left))
			return
		}
	}
}

// kindsOf returns the kinds of all documents.
func kindsOf(docs []v3.Document) []v3.Kind {
	out := make([]v3.Kind, len(docs))
	for i, doc := range docs {
		out[i] = v3.KeyOf(doc.Object).Kind
	}
	return out
}

// note says what became of an object.
func (c *cli) note(what string, key v3.Key) {
	if c.changes {
		fmt.Fprintln(c.env.Stderr, what, key)
	}
}

// create stores a new object; everything in its metadata that is the store's to decide is dropped (spec 3.3).
func (w *writer) create(ctx context.Context, r v3.Resource) error {
	key := v3.KeyOf(r)
	if err := refusal("create or apply", key); err != nil {
		return err
	}
	if revision := r.GetResourceVersion(); revision != "" {
		return &v3.FieldError{Key: key, Path: "metadata.resourceVersion", Value: revision,
			Reason: "field must not be set for a Create request", Remedy: "remove it, or use apply"}
	}
	setOwned(r, &metav1.ObjectMeta{})
	_, err := w.session.create(ctx, r)
	switch {
	case err == nil:
		w.cli.note("created", key)
	case errors.Is(err, store.ErrExists) && w.skipExists:
		w.cli.note("exists", key)
		return nil
	}
	return err
}

// apply creates an object or, where there is one, replaces its labels, annotations and spec.
func (w *writer) apply(ctx context.Context, r v3.Resource) error {
	given := r.GetResourceVersion()
	r.SetResourceVersion("")
	err := w.create(ctx, r)
	if !errors.Is(err, store.ErrExists) {
		return err
	}
	r.SetResourceVersion(given)
	return w.replace(ctx, r)
}

// replace gives an object new labels, annotations and spec. A resourceVersion in the manifest must be the stored one.
func (w *writer) replace(ctx context.Context, r v3.Resource) error {
	key, given := v3.KeyOf(r), r.GetResourceVersion()
	if err := refusal("apply or replace", key); err != nil {
		return err
	}
	return w.retry(ctx, given, func() error {
		old, usable, err := w.current(ctx, key)
		if err != nil {
			return err
		}
		if latest := old.GetResourceVersion(); given != "" && given != latest {
			return &store.Error{Key: key, Err: store.ErrConflict, Cause: fmt.Errorf("resource version '%s' is out of "+
				"date (latest: %s; read the object again, or remove metadata.resourceVersion)", given, latest)}
		}
		setOwned(r, old)
		// calicoctl writes the same again. A new revision should say that something is new.
		if usable && same(old, r) {
			w.cli.note("unchanged", key)
			return nil
		}
		if _, err := w.update(ctx, r); err != nil {
			return err
		}
		w.cli.note("configured", key)
		if usable {
			w.replaced = append(w.replaced, replacement{old, r})
		}
		return nil
	})
}

// current returns the stored object. If its value is not usable, only key and revision are known of it, with which it can
// be replaced all the same.
func (s *session) current(ctx context.Context, key v3.Key) (r v3.Resource, usable bool, err error) {
	r, err = s.get(ctx, key)
	if fault := (*store.Fault)(nil); errors.As(err, &fault) {
		r = mustLookup(key.Kind).New()
		r.SetNamespace(key.Namespace)
		r.SetName(key.Name)
		r.SetResourceVersion(string(fault.Revision))
		return r, false, nil
	}
	return r, true, err
}

// retry runs an update again while others change the object under it, unless the user named the version to change.
func (s *session) retry(ctx context.Context, given string, update func() error) error {
	for attempt := 1; ; attempt++ {
		err := update()
		if given != "" || attempt == maxAttempts || !errors.Is(err, store.ErrConflict) {
			return err
		}
		select {
		case <-ctx.Done():
			return err
		case <-time.After(time.Duration(attempt) * 50 * time.Millisecond):
		}
	}
}

// setOwned takes from another object all metadata but name, namespace, labels and annotations.
func setOwned(r v3.Resource, from metav1.Object) {
	r.SetResourceVersion(from.GetResourceVersion())
	r.SetUID(from.GetUID())
	r.SetCreationTimestamp(from.GetCreationTimestamp())
	r.SetGeneration(from.GetGeneration())
	r.SetDeletionTimestamp(from.GetDeletionTimestamp())
	r.SetDeletionGracePeriodSeconds(from.GetDeletionGracePeriodSeconds())
	r.SetOwnerReferences(from.GetOwnerReferences())
	r.SetFinalizers(from.GetFinalizers())
	r.SetManagedFields(from.GetManagedFields())
	r.SetSelfLink(from.GetSelfLink())
	r.SetGenerateName("")
}

// same reports whether two versions of an object say the same.
func same(a, b v3.Resource) bool {
	x, errX := json.Marshal(a)
	y, errY := json.Marshal(b)
	return errX == nil && errY == nil && string(x) == string(y)
}

// refusal returns the error for objects that people may not write: those that others manage (spec 1.12, 3.6).
func refusal(op string, key v3.Key) error {
	switch {
	case key.Kind == v3.KindClusterInformation:
		return &store.UnsupportedError{Op: op, Key: key, Reason: "resource is readonly"}
	case key.Kind == v3.KindNetworkPolicy && strings.HasPrefix(key.Name, "knp.default."):
		return &store.UnsupportedError{Op: op, Key: key,
			Reason: "kubernetes network policies must be managed through the kubernetes API"}
	}
	return nil
}
