package ctl

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"

	"github.com/spf13/cobra"

	v3 "margay/api/v3"
	"margay/store"
)

// patchFlags are the flags of patch.
type patchFlags struct {
	store     storeFlags
	namespace string
	patch     string
	form      string
}

func (c *cli) patchCommand() *cobra.Command {
	var f patchFlags
	cmd := &cobra.Command{
		Use:   "patch KIND NAME -p PATCH",
		Short: "Change fields of a resource",
		Long: "Change fields of a resource without naming the others. The patch is JSON or YAML: a partial resource (types\n" +
			"strategic and merge, where null removes a field and a list replaces a list), or a list of operations (type json,\n" +
			"RFC 6902).",
		Example: c.example(`$ patch gnp allow-ssh -p '{"spec":{"order":100}}'`,
			`$ patch gnp allow-ssh -t json -p '[{"op":"add","path":"/spec/ingress/0/destination/ports/-","value":2222}]'`),
		Args:              exactly(2),
		ValidArgsFunction: completeKind,
		RunE:              func(cmd *cobra.Command, args []string) error { return c.patch(cmd, &f, args) },
	}
	c.addStoreFlags(cmd, &f.store)
	flags := cmd.Flags()
	flags.StringVarP(&f.namespace, "namespace", "n", "", "namespace of the resource")
	flags.StringVarP(&f.patch, "patch", "p", "", "what to change, in JSON or YAML")
	flags.StringVarP(&f.form, "type", "t", "strategic", "form of the patch: strategic, json or merge")
	return cmd
}

func (c *cli) patch(cmd *cobra.Command, f *patchFlags, args []string) error {
	patch, err := parsePatch(f.form, f.patch)
	if err != nil {
		return err
	}
	keys, err := keysOf(args, f.namespace)
	if err != nil {
		return err
	}
	if err := refusal("patch", keys[0]); err != nil {
		return fmt.Errorf("hit error: %w", err)
	}
	ctx := cmd.Context()
	s, err := c.openForWork(ctx, f.store)
	if err != nil {
		return err
	}
	defer s.close()
	advice := newAdviser(ctx, s, []v3.Kind{keys[0].Kind})
	var doc v3.Document
	if err := s.retry(ctx, "", func() (err error) { doc, err = patchOne(ctx, s, keys[0], patch); return err }); err != nil {
		return fmt.Errorf("hit error: %w", err)
	}
	advice.docs = []v3.Document{doc}
	advice.print(ctx, c)
	fmt.Fprintf(c.env.Stdout, "Successfully patched 1 '%s' resource\n", keys[0].Kind)
	return nil
}

// patchOne changes one object and returns what it became.
func patchOne(ctx context.Context, s *session, key v3.Key, patch func(any) (any, error)) (v3.Document, error) {
	old, err := s.get(ctx, key)
	if err != nil {
		return v3.Document{}, err
	}
	doc, err := patched(old, patch)
	if err != nil {
		return v3.Document{}, err
	}
	r := doc.Object
	if got := v3.KeyOf(r); got != key {
		return v3.Document{}, fmt.Errorf("patch %s: it would become %s (kind, name and namespace cannot be changed)", key, got)
	}
	if revision := r.GetResourceVersion(); revision != old.GetResourceVersion() {
		return v3.Document{}, &store.Error{Key: key, Err: store.ErrConflict, Cause: fmt.Errorf(
			"resource version '%s' is out of date (latest: %s)", revision, old.GetResourceVersion())}
	}
	setOwned(r, old)
	if err := v3.Validate(r); err != nil {
		return v3.Document{}, err
	}
	_, err = s.update(ctx, r)
	return doc, err
}

// patched returns a resource with the patch applied, decoded as strictly as a manifest.
func patched(r v3.Resource, patch func(any) (any, error)) (v3.Document, error) {
	text, err := json.Marshal(r)
	if err != nil {
		return v3.Document{}, err
	}
	value, err := parseJSON(text)
	if err != nil {
		return v3.Document{}, err
	}
	if value, err = patch(value); err != nil {
		return v3.Document{}, err
	}
	if text, err = json.Marshal(value); err != nil {
		return v3.Document{}, err
	}
	docs, err := v3.Decode("", text)
	switch {
	case err != nil:
		return v3.Document{}, withoutPosition(err)
	case len(docs) != 1:
		return v3.Document{}, fmt.Errorf("patch %s: the result is %d resources", v3.KeyOf(r), len(docs))
	}
	return docs[0], nil
}

// withoutPosition removes document and line, which nobody sees, from errors about a patched resource.
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
