package ctl

import (
	"errors"
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	v3 "margay/api/v3"
	"margay/store"
)

// labelFlags are the flags of label.
type labelFlags struct {
	store     storeFlags
	namespace string
	overwrite bool
	remove    bool
	result    resultFlags
	wait      waitFlags
}

func (c *cli) labelCommand() *cobra.Command {
	var f labelFlags
	cmd := &cobra.Command{
		Use:   "label KIND NAME KEY=VALUE | KEY --remove",
		Short: "Set or remove a label of a resource",
		Long:  "Set a label of a resource, or remove one. Policies and rules that select by it follow at once.",
		Example: c.example("$ label hostendpoint master.eth0 running-calico=true",
			"$ label globalnetworkset scrapers calico-prometheus-access --remove"),
		Args:              exactly(3),
		ValidArgsFunction: c.completeArgs,
		RunE:              func(cmd *cobra.Command, args []string) error { return c.label(cmd, &f, args) },
	}
	c.addStoreFlags(cmd, &f.store)
	f.result.add(cmd)
	f.wait.add(cmd)
	flags := cmd.Flags()
	flags.StringVarP(&f.namespace, "namespace", "n", "", "namespace of the resource")
	flags.BoolVar(&f.overwrite, "overwrite", false, "change the label if it has another value")
	flags.BoolVar(&f.remove, "remove", false, "remove the label")
	return cmd
}

func (c *cli) label(cmd *cobra.Command, f *labelFlags, args []string) error {
	if err := f.result.check(f.wait); err != nil {
		return err
	}
	change, err := parseLabel(f, args)
	if err != nil {
		return err
	}
	keys, err := keysOf(args[:2], f.namespace)
	if err != nil {
		return err
	}
	if err := refusal("label", keys[0]); err != nil {
		return err
	}
	ctx := cmd.Context()
	w := &writer{cli: c, verb: verb{"label", "labelled"}, mode: f.result.mode(), pretending: f.result.dryRun == dryRunClient}
	if w.session, err = c.openForWork(ctx, f.store); err != nil {
		return change.unread(err)
	}
	defer w.session.close()
	advice := newAdviser(ctx, w.session, []v3.Kind{keys[0].Kind})
	if err := change.explain(w.rewrite(ctx, keys[0], change.edit)); err != nil {
		return err
	}
	if f.result.output != "" {
		err = f.result.print(c.env.Stdout, w.changes)
	} else {
		o := outcome{dryRun: f.result.dryRun}
		fmt.Fprintf(c.env.Stdout, "Successfully %s%s\n", change.done, o.pretended())
	}
	if kind := keys[0].Kind; kind != v3.KindGlobalNetworkPolicy && kind != v3.KindNetworkPolicy { // whose labels select nothing
		advice.print(ctx, c, w)
	}
	c.foresee(ctx, w)
	return errors.Join(err, c.await(ctx, w, f.wait))
}

// A labelChange is what label is asked to do. Its words are the arguments as they were typed.
type labelChange struct {
	kind, name string
	key, value string
	overwrite  bool
	remove     bool
	done       string // what was done, for the user
}

func parseLabel(f *labelFlags, args []string) (*labelChange, error) {
	change := &labelChange{kind: args[0], name: args[1], key: args[2], overwrite: f.overwrite, remove: f.remove}
	if f.remove {
		return change, nil
	}
	if strings.Count(args[2], "=") != 1 {
		return nil, fmt.Errorf("invalid label %s", args[2])
	}
	change.key, change.value, _ = strings.Cut(args[2], "=")
	return change, nil
}

// A labelError says that the labels are not such that they can be changed as asked.
type labelError struct{ error }

// explain says what an error means for the label.
func (l *labelChange) explain(err error) error {
	read := (*readError)(nil)
	switch refused := (*labelError)(nil); {
	case err == nil:
		return nil
	case errors.As(err, &refused):
		return refused.error
	case errors.As(err, &read) && errors.Is(err, store.ErrNotFound):
		return fmt.Errorf("%s %s not found", l.kind, l.name)
	case errors.As(err, &read):
		return l.unread(err)
	}
	return fmt.Errorf("failed to update %s %s, label not changed: %w", l.kind, l.name, err)
}

// unread says that the object could not be read.
func (l *labelChange) unread(err error) error {
	if plain := (*stdoutError)(nil); errors.As(err, &plain) {
		return err
	}
	return fmt.Errorf("failed to get %s %s, error %w", l.kind, l.name, err)
}

// edit changes the label in the JSON value of an object.
func (l *labelChange) edit(tree any) (any, error) {
	meta, _ := tree.(map[string]any)["metadata"].(map[string]any)
	labels, _ := meta["labels"].(map[string]any)
	if labels == nil {
		labels = map[string]any{}
	}
	if err := l.change(labels); err != nil {
		return nil, &labelError{err}
	}
	meta["labels"] = labels
	return tree, nil
}

func (l *labelChange) change(labels map[string]any) error {
	old, exists := labels[l.key]
	switch {
	case l.remove && !exists:
		return fmt.Errorf("cannot remove label of %s %s, key %s does not exist", l.kind, l.name, l.key)
	case l.remove:
		delete(labels, l.key)
		l.done = fmt.Sprintf("removed label %s from %s %s", l.key, l.kind, l.name)
		return nil
	case exists && old != l.value && !l.overwrite:
		return fmt.Errorf("failed to update label of %s %s, key %s is already present. "+
			"please use '--overwrite' to set a new value", l.kind, l.name, l.key)
	case exists:
		l.done = fmt.Sprintf("updated label %s on %s %s", l.key, l.kind, l.name)
	default:
		l.done = fmt.Sprintf("set label %s on %s %s", l.key, l.kind, l.name)
	}
	labels[l.key] = l.value
	return nil
}
