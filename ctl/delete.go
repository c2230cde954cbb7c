package ctl

import (
	"context"
	"errors"
	"fmt"

	"github.com/spf13/cobra"

	v3 "margay/api/v3"
	"margay/store"
)

// deleteFlags are the flags of delete.
type deleteFlags struct {
	input         inputFlags
	store         storeFlags
	skipNotExists bool
}

func (c *cli) deleteCommand() *cobra.Command {
	var f deleteFlags
	cmd := &cobra.Command{
		Use:               "delete [KIND NAME...]",
		Short:             "Delete resources",
		Long:              "Delete resources, by kind and name or by manifests that describe them.",
		Example:           c.example("$ delete globalnetworkpolicy allow-ssh allow-dns", "$ delete -f policy.yaml"),
		ValidArgsFunction: completeKind,
		RunE:              func(cmd *cobra.Command, args []string) error { return c.delete(cmd, &f, args) },
	}
	f.input.add(cmd)
	c.addStoreFlags(cmd, &f.store)
	c.addChangesFlag(cmd)
	cmd.Flags().BoolVarP(&f.skipNotExists, "skip-not-exists", "s", false, "resources that do not exist are no error")
	return cmd
}

func (c *cli) delete(cmd *cobra.Command, f *deleteFlags, args []string) error {
	docs, err := c.named(f.input, args)
	if err != nil {
		return err
	}
	o := outcome{kind: kindOf(docs), total: len(docs)}
	if len(docs) == 0 {
		return o.report(c.env.Stdout, verbDelete)
	}
	ctx := cmd.Context()
	s, err := c.openForWork(ctx, f.store)
	if err != nil {
		return err
	}
	defer s.close()
	advice := newAdviser(ctx, s, kindsOf(docs))
	o.each(docs, func(doc v3.Document) error { return c.deleteOne(ctx, s, doc.Object, f.skipNotExists) })
	advice.print(ctx, c)
	if o.handled > 0 {
		fmt.Fprintf(c.env.Stdout, "Successfully deleted %d %sresource(s)\n", o.handled, o.quoted())
	}
	return o.deleteErrors()
}

// named returns an object per key of the arguments, or what the manifests describe. Its objects need only have a name.
func (c *cli) named(f inputFlags, args []string) ([]v3.Document, error) {
	switch {
	case f.filename != "" && len(args) > 0:
		return nil, fmt.Errorf("both -f and %s are given (name the resources either way)", args[0])
	case f.filename != "":
		docs, err := c.load(f)
		if err != nil {
			return nil, err
		}
		for i := range docs {
			if err := setNamespace(&docs[i], f.namespace); err != nil {
				return nil, err
			}
		}
		return docs, nil
	case len(args) == 0:
		return nil, fmt.Errorf("no resources specified: name a manifest with -f, or a KIND and a NAME; kinds are%s", kindHelp())
	case len(args) == 1:
		if _, err := lookupKind(args[0]); err != nil {
			return nil, err
		}
		return nil, fmt.Errorf("%w (every resource must be named)", errNoName)
	}
	keys, err := keysOf(args, f.namespace)
	docs := make([]v3.Document, len(keys))
	for i, key := range keys {
		r := mustLookup(key.Kind).New()
		r.SetNamespace(key.Namespace)
		r.SetName(key.Name)
		docs[i].Object = r
	}
	return docs, err
}

// deleteOne deletes an object; a resourceVersion in its manifest must be the stored one.
func (c *cli) deleteOne(ctx context.Context, s *session, r v3.Resource, skipNotExists bool) error {
	key := v3.KeyOf(r)
	if err := refusal("delete", key); err != nil {
		return err
	}
	_, err := s.delete(ctx, key, store.Revision(r.GetResourceVersion()))
	switch {
	case err == nil:
		c.note("deleted", key)
	case errors.Is(err, store.ErrNotFound) && skipNotExists:
		c.note("absent", key)
		return nil
	}
	return err
}

func (o *outcome) deleteErrors() error {
	errs := make([]error, len(o.errs))
	for i, err := range o.errs {
		//lint:ignore ST1005 this is how calicoctl says it
		errs[i] = fmt.Errorf("Failed to delete %sresource: %w", o.quoted(), err)
	}
	return errors.Join(errs...)
}
