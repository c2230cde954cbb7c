package ctl

import (
	"errors"
	"fmt"

	"github.com/spf13/cobra"

	v3 "margay/api/v3"
)

// deleteFlags are the flags of delete.
type deleteFlags struct {
	input         inputFlags
	store         storeFlags
	result        resultFlags
	wait          waitFlags
	skipNotExists bool
}

func (c *cli) deleteCommand() *cobra.Command {
	var f deleteFlags
	cmd := &cobra.Command{
		Use:               "delete [KIND NAME...]",
		Short:             "Delete resources",
		Long:              "Delete resources, by kind and name or by manifests that describe them.",
		Example:           c.example("$ delete globalnetworkpolicy allow-ssh allow-dns", "$ delete -f policy.yaml"),
		ValidArgsFunction: c.completeArgs,
		RunE:              func(cmd *cobra.Command, args []string) error { return c.delete(cmd, &f, args) },
	}
	f.input.add(cmd)
	c.addStoreFlags(cmd, &f.store)
	c.addChangesFlag(cmd)
	f.result.add(cmd)
	f.wait.add(cmd)
	cmd.Flags().BoolVarP(&f.skipNotExists, "skip-not-exists", "s", false, "resources that do not exist are no error")
	return cmd
}

func (c *cli) delete(cmd *cobra.Command, f *deleteFlags, args []string) error {
	if err := f.result.check(f.wait); err != nil {
		return err
	}
	docs, err := c.named(f.input, args)
	if wrong := (*namespaceError)(nil); errors.As(err, &wrong) {
		return deleteError(&outcome{kind: kindOf(docs)}, err)
	} else if err != nil {
		return err
	}
	o := outcome{kind: kindOf(docs), total: len(docs), dryRun: f.result.dryRun}
	if len(docs) == 0 {
		return o.report(c.env.Stdout, verbDelete)
	}
	w := &writer{cli: c, verb: verbDelete, mode: f.result.mode(), skipAbsent: f.skipNotExists, changes: changesOf(docs, verbDelete)}
	if f.result.dryRun == dryRunClient {
		w.pretend()
		return c.finishDelete(w, &o, f.result)
	}
	ctx := cmd.Context()
	if w.session, err = c.openForWork(ctx, f.store); err != nil {
		return err
	}
	defer w.session.close()
	advice := newAdviser(ctx, w.session, kindsOf(docs))
	w.run(ctx)
	err = c.finishDelete(w, &o, f.result)
	advice.print(ctx, c, w)
	c.foresee(ctx, w)
	return errors.Join(err, c.await(ctx, w, f.wait))
}

// finishDelete prints what was deleted. Unlike calicoctl it does not count what was not there.
func (c *cli) finishDelete(w *writer, o *outcome, f resultFlags) error {
	w.note(o)
	w.count(o)
	switch {
	case f.output != "":
		if err := f.print(c.env.Stdout, w.changes); err != nil {
			return err
		}
	case len(o.done) > 0:
		fmt.Fprintf(c.env.Stdout, "Successfully deleted %d %sresource(s)%s\n", len(o.done), o.quoted(), o.pretended())
		fallthrough
	default:
		if o.skipped > 0 {
			fmt.Fprintf(c.env.Stdout, "Skipped %d %sresource(s) that do not exist\n", o.skipped, o.quoted())
		}
	}
	errs := make([]error, len(o.errs))
	for i, err := range o.errs {
		errs[i] = deleteError(o, err)
	}
	return errors.Join(errs...)
}

func deleteError(o *outcome, err error) error {
	//lint:ignore ST1005 this is how calicoctl says it
	return fmt.Errorf("Failed to delete %sresource: %w", o.quoted(), err)
}

// named returns an object per key of the arguments, or what the manifests describe. Its objects need only have a name.
func (c *cli) named(f inputFlags, args []string) ([]v3.Document, error) {
	switch {
	case f.filename != "" && len(args) > 0:
		return nil, fmt.Errorf("both -f and %s are given (name the resources either way)", args[0])
	case f.filename != "":
		f.namesOnly = true
		docs, err := c.load(f)
		if err != nil {
			return nil, err
		}
		for i := range docs {
			if err := setNamespace(&docs[i], f.namespace); err != nil {
				return docs, err
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
		docs[i].Object = named(key)
	}
	return docs, err
}

// named returns an empty resource with a name.
func named(key v3.Key) v3.Resource {
	r := mustLookup(key.Kind).New()
	r.SetNamespace(key.Namespace)
	r.SetName(key.Name)
	return r
}
