package ctl

import (
	"fmt"
	"io"

	"github.com/spf13/cobra"

	v3 "margay/api/v3"
	"margay/store"
)

// diffFlags are the flags of diff.
type diffFlags struct {
	input inputFlags
	store storeFlags
}

func (c *cli) diffCommand() *cobra.Command {
	var f diffFlags
	cmd := &cobra.Command{
		Use:   "diff -f FILE",
		Short: "Print which fields apply would change, and which connections that denies or allows",
		Long: "Print what apply would create or change, field by field: + is added, - is removed, ~ gets another value; then which\n" +
			"new connections would be denied or allowed from then on, at which endpoints, for whom and by what. (Known flows\n" +
			"stay.) Asked is about every port that rules name and one that none does, with a peer of each network set, network\n" +
			"and endpoint that rules tell apart and one that nothing knows. The same is in a dry run of every other command.\n\n" +
			"The datastore checks everything as it would for apply; nothing is written.\n\n" +
			"Exit code 0 says that nothing would change, 1 that something would, 2 that there was an error.",
		Example: c.example("$ diff -f policy.yaml", "$ diff -f policy.yaml || $ apply -f policy.yaml"),
		Args:    func(cmd *cobra.Command, args []string) error { return exitWith(2, onlyFlags(cmd, args)) },
		RunE:    func(cmd *cobra.Command, _ []string) error { return exitWith(2, c.diff(cmd, &f)) },
	}
	f.input.add(cmd)
	c.addStoreFlags(cmd, &f.store)
	return cmd
}

func (c *cli) diff(cmd *cobra.Command, f *diffFlags) error {
	if err := f.input.required(cmd); err != nil {
		return err
	}
	docs, err := c.load(f.input)
	if err != nil {
		return err
	}
	o := outcome{kind: kindOf(docs), total: len(docs), dryRun: dryRunServer}
	if o.errs = prepare(docs, f.input); len(o.errs) > 0 {
		return o.failure(verbDiff)
	}
	ctx := cmd.Context()
	w := &writer{cli: c, verb: verbApply, mode: store.DryRun, changes: changesOf(docs, verbApply)}
	if w.session, err = c.openForWork(ctx, f.store); err != nil {
		return err
	}
	defer w.session.close()
	advice := newAdviser(ctx, w.session, kindsOf(docs))
	w.seen = advice.list
	w.run(ctx)
	changed, err := w.writeDiff(c.env.Stdout)
	if err != nil {
		return err
	}
	advice.print(ctx, c, w)
	w.count(&o)
	if err := o.failure(verbDiff); err != nil {
		return err
	}
	if changed {
		flows, err := c.survey(ctx, w)
		if err != nil {
			return err
		}
		flows.write(c.env.Stdout)
		return &exitError{code: 1}
	}
	return nil
}

var verbDiff = verb{"compare", "compared"}

// writeDiff prints every object that would change, and reports whether there is one.
func (w *writer) writeDiff(out io.Writer) (changed bool, err error) {
	for _, c := range w.changes {
		if c.err != nil || c.state == stateUnchanged {
			continue
		}
		changed = true
		state := c.state
		var old v3.Resource
		if c.state == stateConfigured && c.old.broken {
			state = "configured (the stored value cannot be used)"
		} else if c.state == stateConfigured {
			old = c.old.Resource
		}
		fields, err := differences(old, c.result)
		if err != nil {
			return changed, err
		}
		fmt.Fprintf(out, "%s: %s\n", c.key, state)
		for _, d := range fields {
			fmt.Fprintf(out, "  %s\n", d)
		}
	}
	return changed, nil
}
