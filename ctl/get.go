package ctl

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/spf13/cobra"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	v3 "margay/api/v3"
)

// getFlags are the flags of get.
type getFlags struct {
	input         inputFlags
	store         storeFlags
	output        string
	allNamespaces bool
	export        bool
	watch         bool
}

func (c *cli) getCommand() *cobra.Command {
	var f getFlags
	cmd := &cobra.Command{
		Use:   "get [KIND [NAME...]]",
		Short: "Print resources",
		Long: "Print all resources of a kind, those named, or those that manifests describe. What -o yaml and -o json print can\n" +
			"be applied again; --export leaves out what belongs to this datastore.",
		Example: c.example("$ get nodes", "$ get hostendpoints -o wide", "$ get gnp default-host -o yaml --export",
			"$ get np -A -o custom-columns=NAMESPACE,NAME,ORDER", "$ get hostendpoints --watch"),
		ValidArgsFunction: c.completeArgs,
		RunE:              func(cmd *cobra.Command, args []string) error { return c.get(cmd, &f, args) },
	}
	f.input.add(cmd)
	c.addStoreFlags(cmd, &f.store)
	flags := cmd.Flags()
	flags.StringVarP(&f.output, "output", "o", "ps",
		"ps, wide, yaml, json, name, custom-columns=A,B, go-template=T or go-template-file=F")
	flags.BoolVarP(&f.allNamespaces, "all-namespaces", "A", false, "of all namespaces")
	flags.BoolVarP(&f.allNamespaces, "all-namespaces-a", "a", false, "as -A")
	_ = flags.MarkHidden("all-namespaces-a")
	flags.BoolVarP(&f.watch, "watch", "w", false, "after what is there, print every change, until interrupted")
	flags.BoolVar(&f.export, "export", false, "leave out what belongs to this datastore, such as resourceVersion (calicoctl: only with a NAME)")
	return cmd
}

func (c *cli) get(cmd *cobra.Command, f *getFlags, args []string) error {
	if f.watch && f.export {
		return errors.New("both --watch and --export are given (watched objects are printed as they are)")
	}
	out, err := parseFormat(f.output, f.allNamespaces || f.input.namespace != "")
	if err != nil {
		return err
	}
	keys, err := c.getKeys(f, args)
	if err != nil {
		return getError(err)
	}
	s, err := c.openForWork(cmd.Context(), f.store)
	if err != nil {
		return getError(err)
	}
	defer s.close()
	out = s.inherit(cmd.Context(), out)
	if f.watch {
		return c.watch(cmd.Context(), s, keys, out)
	}
	results, errs := s.find(cmd.Context(), keys)
	if table, ok := out.(tableFormat); ok && table.wide && !c.silent() {
		table.states = s.endpointStates(cmd.Context(), keys)
		out = table
	}
	if printsAll(out) {
		c.tellUnknown(cmd.Context(), s, results)
	}
	if f.export {
		export(results)
		if !c.silent() {
			exportLists(results)
		}
	}
	if len(results) > 0 {
		if err := out.print(c.env.Stdout, results); err != nil {
			return err
		}
		if _, ok := out.(jsonFormat); ok && c.env.TTY {
			fmt.Fprintln(c.env.Stdout)
		}
	}
	return errors.Join(errs...)
}

// getError says what calicoctl says of an error that concerns the command as a whole.
func getError(err error) error {
	for _, plain := range []any{new(*inputError), new(*namespaceError), new(*stdoutError)} {
		if errors.As(err, plain) {
			return err
		}
	}
	if unreachable(err) {
		return err
	}
	return fmt.Errorf("failed to get resources: %w", err)
}

// printsAll reports whether a format prints whole objects.
func printsAll(f format) bool {
	switch f.(type) {
	case yamlFormat, jsonFormat:
		return true
	}
	return false
}

// tellUnknown warns of what is stored of single objects and not printed: who applies the output again would remove it.
func (c *cli) tellUnknown(ctx context.Context, s *session, results []any) {
	for _, result := range results {
		r, ok := result.(v3.Resource)
		if !ok || ctx.Err() != nil {
			continue
		}
		key := v3.KeyOf(r)
		if unknown := s.hidden(ctx, key); len(unknown) > 0 {
			c.warning("%s has fields that this version does not know and does not show: %s (patch and label keep them, "+
				"apply keeps those outside spec)", key, fieldNames(unknown))
		}
	}
}

// hidden returns the fields of an object that are stored and not printed.
func (s *session) hidden(ctx context.Context, key v3.Key) v3.Unknown {
	r, unknown, err := s.inspect(ctx, key)
	if err != nil || len(unknown) == 0 {
		return nil
	}
	tree, _, err := treeOf(r, nil)
	if err != nil {
		return nil
	}
	return slices.DeleteFunc(unknown, func(f v3.UnknownField) bool {
		_, err := find(tree, f.Path)
		return err == nil
	})
}

func fieldNames(unknown v3.Unknown) string {
	names := make([]string, len(unknown))
	for i, f := range unknown {
		names[i] = f.String()
	}
	return some(names)
}

// getKeys returns what to read. A key without a name stands for all of its kind, in its namespace if it has one.
func (c *cli) getKeys(f *getFlags, args []string) ([]v3.Key, error) {
	if f.allNamespaces && f.input.namespace != "" {
		return nil, &namespaceError{"cannot use both --namespace and --all-namespaces flags at the same time"}
	}
	var keys []v3.Key
	switch {
	case f.input.filename != "" || len(args) != 1:
		docs, err := c.named(f.input, args)
		if err != nil {
			return nil, err
		}
		for _, doc := range docs {
			keys = append(keys, v3.KeyOf(doc.Object))
		}
	default:
		var err error
		if keys, err = keysOf(args, f.input.namespace); err != nil {
			return nil, err
		}
	}
	if !f.allNamespaces {
		return keys, nil
	}
	for i := range keys {
		switch {
		case !mustLookup(keys[i].Kind).Namespaced:
			return nil, notNamespaced(keys[i].Kind)
		case keys[i].Name != "":
			return nil, &namespaceError{"cannot use --all-namespace flag for getting a single resource"}
		}
		keys[i].Namespace = ""
	}
	return keys, nil
}

// find reads the objects and listings. Stored values that do not decode are among the errors.
func (s *session) find(ctx context.Context, keys []v3.Key) (results []any, errs []error) {
	for _, key := range keys {
		if key.Name != "" {
			r, err := s.get(ctx, key)
			if err == nil {
				results = append(results, r)
				continue
			}
			if errs = append(errs, err); unreachable(err) {
				return results, errs
			}
			continue
		}
		found, err := s.list(ctx, key.Namespace, key.Kind)
		if err != nil {
			return results, append(errs, err)
		}
		for i := range found.Faults {
			errs = append(errs, &found.Faults[i])
		}
		if key.Kind == v3.KindTier {
			slices.SortStableFunc(found.Items, byTierOrder)
		}
		results = append(results, &list{
			TypeMeta: metav1.TypeMeta{Kind: string(key.Kind) + "List", APIVersion: v3.APIVersion},
			ListMeta: metav1.ListMeta{ResourceVersion: found.Revision.Short()},
			Items:    append([]v3.Resource{}, found.Items...),
		})
	}
	return results, errs
}

// byTierOrder orders tiers as they are evaluated, nil last.
func byTierOrder(a, b v3.Resource) int {
	x, y := a.(*v3.Tier).Spec.Order, b.(*v3.Tier).Spec.Order
	switch {
	case x == nil && y == nil:
		return 0
	case x == nil:
		return 1
	case y == nil || *x < *y:
		return -1
	case *x > *y:
		return 1
	}
	return 0
}

// export removes from single objects what only this datastore gives a meaning to.
func export(results []any) {
	for _, result := range results {
		r, ok := result.(v3.Resource)
		if !ok {
			continue
		}
		r.SetNamespace("")
		r.SetUID(types.UID(""))
		r.SetResourceVersion("")
		r.SetCreationTimestamp(metav1.Time{})
		r.SetDeletionTimestamp(nil)
		r.SetDeletionGracePeriodSeconds(nil)
	}
}

// exportLists does the same for lists, whose objects keep their namespaces: calicoctl prints lists as they are, which cannot
// be applied again once something has changed.
func exportLists(results []any) {
	for _, result := range results {
		l, ok := result.(*list)
		if !ok {
			continue
		}
		l.ResourceVersion = ""
		for _, r := range l.Items {
			r.SetUID("")
			r.SetResourceVersion("")
			r.SetCreationTimestamp(metav1.Time{})
		}
	}
}
