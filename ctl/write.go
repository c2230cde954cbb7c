package ctl

import (
	"encoding/json"
	"errors"
	"fmt"

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

// writeFlags are the flags of create, apply and replace.
type writeFlags struct {
	input      inputFlags
	store      storeFlags
	result     resultFlags
	wait       waitFlags
	skipExists bool
}

func (c *cli) addWriteFlags(cmd *cobra.Command, f *writeFlags) {
	f.input.add(cmd)
	c.addStoreFlags(cmd, &f.store)
	c.addChangesFlag(cmd)
	f.result.add(cmd)
	f.wait.add(cmd)
}

func (c *cli) addChangesFlag(cmd *cobra.Command) {
	cmd.Flags().BoolVar(&c.changes, "changes", !c.silent(), "say on standard error what became of each object")
}

// write runs create, apply or replace.
func (c *cli) write(cmd *cobra.Command, f *writeFlags, v verb) error {
	if err := f.input.required(cmd); err != nil {
		return err
	}
	if err := f.result.check(f.wait); err != nil {
		return err
	}
	docs, err := c.load(f.input)
	if err != nil {
		return err
	}
	o := outcome{kind: kindOf(docs), total: len(docs), dryRun: f.result.dryRun}
	o.errs = prepare(docs, f.input)
	if len(docs) == 0 || len(o.errs) > 0 {
		return o.report(c.env.Stdout, v)
	}
	w := &writer{cli: c, verb: v, mode: f.result.mode(), skipExists: f.skipExists, changes: changesOf(docs, v)}
	if f.result.dryRun == dryRunClient {
		w.pretend()
		c.warnAlone(docs)
		return c.finish(w, &o, f.result)
	}
	ctx := cmd.Context()
	if w.session, err = c.openForWork(ctx, f.store); err != nil {
		return err
	}
	defer w.session.close()
	if w.mode == store.Commit {
		if err := w.initialise(ctx); err != nil {
			return err
		}
	}
	advice := newAdviser(ctx, w.session, kindsOf(docs))
	w.seen = advice.list
	w.run(ctx)
	err = c.finish(w, &o, f.result)
	advice.print(ctx, c, w) // after what may be a thousand lines
	c.foresee(ctx, w)
	return errors.Join(err, c.await(ctx, w, f.wait))
}

// finish prints what became of the changes.
func (c *cli) finish(w *writer, o *outcome, f resultFlags) error {
	w.note(o)
	w.count(o)
	if f.output != "" {
		if err := f.print(c.env.Stdout, w.changes); err != nil {
			return err
		}
		return o.failure(w.verb)
	}
	return o.report(c.env.Stdout, w.verb)
}

// kindsOf returns the kinds of all documents.
func kindsOf(docs []v3.Document) []v3.Kind {
	out := make([]v3.Kind, len(docs))
	for i, doc := range docs {
		out[i] = v3.KeyOf(doc.Object).Kind
	}
	return out
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

// refusal returns the error for objects that people may not write: those that others manage.
func refusal(op string, key v3.Key) error {
	switch {
	case key.Kind == v3.KindClusterInformation:
		return &store.UnsupportedError{Op: op, Key: key, Reason: "resource is readonly"}
	case kubernetesPolicy(key):
		return &store.UnsupportedError{Op: op, Key: key,
			Reason: "kubernetes network policies must be managed through the kubernetes API"}
	}
	return nil
}

// withRevision is the refusal to create an object that has a resourceVersion.
func withRevision(key v3.Key, revision string) error {
	return &v3.FieldError{Key: key, Path: "metadata.resourceVersion", Value: revision,
		Reason: "field must not be set for a Create request", Remedy: "remove it, or use apply"}
}

// outOfDate is the conflict of a manifest that names another version than the one that is stored.
func outOfDate(key v3.Key, given, latest, since string) error {
	return &store.Error{Key: key, Err: store.ErrConflict, Cause: fmt.Errorf("resource version '%s' is out of "+
		"date (latest: %s%s; read the object again, or remove metadata.resourceVersion)", given, latest, since)}
}
