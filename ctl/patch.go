package ctl

import (
	"errors"
	"fmt"

	"github.com/spf13/cobra"

	v3 "margay/api/v3"
)

// patchFlags are the flags of patch.
type patchFlags struct {
	store     storeFlags
	namespace string
	patch     string
	form      string
	result    resultFlags
	wait      waitFlags
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
		ValidArgsFunction: c.completeArgs,
		RunE:              func(cmd *cobra.Command, args []string) error { return c.patch(cmd, &f, args) },
	}
	c.addStoreFlags(cmd, &f.store)
	f.result.add(cmd)
	f.wait.add(cmd)
	flags := cmd.Flags()
	flags.StringVarP(&f.namespace, "namespace", "n", "", "namespace of the resource")
	flags.StringVarP(&f.patch, "patch", "p", "", "what to change, in JSON or YAML")
	flags.StringVarP(&f.form, "type", "t", "strategic", "form of the patch: strategic, json or merge")
	return cmd
}

func (c *cli) patch(cmd *cobra.Command, f *patchFlags, args []string) error {
	if err := f.result.check(f.wait); err != nil {
		return err
	}
	patch, err := parsePatch(f.form, f.patch)
	if err != nil {
		return err
	}
	keys, err := keysOf(args, f.namespace)
	if wrong := (*namespaceError)(nil); errors.As(err, &wrong) {
		return fmt.Errorf("hit error: %w", err)
	} else if err != nil {
		return err
	}
	if err := refusal("patch", keys[0]); err != nil {
		return fmt.Errorf("hit error: %w", err)
	}
	ctx := cmd.Context()
	w := &writer{cli: c, verb: verb{"patch", "patched"}, mode: f.result.mode(), pretending: f.result.dryRun == dryRunClient}
	if w.session, err = c.openForWork(ctx, f.store); err != nil {
		return err
	}
	defer w.session.close()
	advice := newAdviser(ctx, w.session, []v3.Kind{keys[0].Kind})
	if err := w.rewrite(ctx, keys[0], patch); err != nil {
		return fmt.Errorf("hit error: %w", err)
	}
	if f.result.output != "" {
		err = f.result.print(c.env.Stdout, w.changes)
	} else {
		o := outcome{dryRun: f.result.dryRun}
		fmt.Fprintf(c.env.Stdout, "Successfully patched 1 '%s' resource%s\n", keys[0].Kind, o.pretended())
	}
	advice.print(ctx, c, w)
	c.foresee(ctx, w)
	return errors.Join(err, c.await(ctx, w, f.wait))
}
