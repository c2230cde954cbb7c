package ctl

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	v3 "margay/api/v3"
)

// A nameMigrator is a store that can rename what releases before 3.32 stored.
type nameMigrator interface {
	MigratePolicyNames(ctx context.Context) (int, error)
}

// datastoreCommand has what concerns a datastore as a whole.
func (c *cli) datastoreCommand() *cobra.Command {
	migrate := group(&cobra.Command{
		Use:   "migrate",
		Short: "Move the content of a datastore: lock, export, import, unlock",
		Long: "Move the content of a datastore to another one: lock the old one, export it, import the file into the new one,\n" +
			"let the agents use that, and unlock it. While a datastore is locked, agents keep the rules that they have.",
	}, c.exportCommand(), c.importCommand(),
		c.lockCommand("lock", "Lock the datastore: agents keep their rules and take no change", "Datastore locked."),
		c.lockCommand("unlock", "Unlock the datastore: agents take changes again", "Datastore unlocked."))
	return group(&cobra.Command{
		Use:   "datastore",
		Short: "Move a datastore's content, rename old policies",
		Long:  "Move the content of a datastore to another one, and rename policies that older releases stored.",
	}, migrate, c.migrateNamesCommand())
}

func (c *cli) lockCommand(name, short, done string) *cobra.Command {
	var f storeFlags
	cmd := &cobra.Command{
		Use:     name,
		Short:   short,
		Example: c.example("$ datastore migrate " + name),
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			ctx := cmd.Context()
			s, err := c.openForWork(ctx, f)
			if err != nil {
				return err
			}
			defer s.close()
			if name == "lock" {
				if err := s.initialise(ctx); err != nil {
					return err
				}
			}
			if err := c.setLock(ctx, s, name == "lock"); err != nil {
				return err
			}
			fmt.Fprintln(c.env.Stdout, done)
			return nil
		},
	}
	c.addStoreFlags(cmd, &f)
	return cmd
}

// clusterKey is the object that says whether the datastore is locked.
var clusterKey = v3.Key{Kind: v3.KindClusterInformation, Name: v3.ClusterInformationName}

// setLock sets what ClusterInformation says of the datastore, and leaves everything else in it.
func (c *cli) setLock(ctx context.Context, s *session, locked bool) error {
	w := &writer{session: s, cli: c, verb: verb{"update", "updated"}}
	err := w.rewrite(ctx, clusterKey, func(tree any) (any, error) {
		return mergePatch(tree, map[string]any{"spec": map[string]any{"datastoreReady": !locked}}), nil
	})
	if err != nil {
		return fmt.Errorf("update ClusterInformation: %w", err)
	}
	return nil
}

// locked reports whether ClusterInformation says so.
func (s *session) locked(ctx context.Context) (bool, error) {
	r, err := s.get(ctx, clusterKey)
	if err != nil {
		return false, fmt.Errorf("find out whether the datastore is locked: %w", err)
	}
	ready := r.(*v3.ClusterInformation).Spec.DatastoreReady
	return ready != nil && !*ready, nil
}

func (c *cli) migrateNamesCommand() *cobra.Command {
	var f storeFlags
	cmd := &cobra.Command{
		Use:   "migrate-policy-names",
		Short: "Store policies that releases before 3.32 stored as default.NAME under their names",
		Long: "Releases before 3.32 stored policies of the tier default as default.NAME and showed NAME. This stores them under\n" +
			"NAME. All the time they are in force. It can be run again at any time.",
		Example: c.example("$ datastore migrate-policy-names"),
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			s, err := c.openForWork(cmd.Context(), f)
			if err != nil {
				return err
			}
			defer s.close()
			migrator, ok := s.store.(nameMigrator)
			if !ok {
				return errors.New("migrate policy names: this datastore never had old names")
			}
			moved, err := within(cmd.Context(), s, migrator.MigratePolicyNames)
			fmt.Fprintf(c.env.Stdout, "Policy name migration complete, migrated %d policies.\n", moved)
			return err
		},
	}
	c.addStoreFlags(cmd, &f)
	return cmd
}

// exportedKinds are what an export holds, in the order in which they can be imported: what others need comes first, nodes
// before what names them. Profiles and WorkloadEndpoints are not among them: Kubernetes has its own.
func exportedKinds() []v3.Kind {
	return []v3.Kind{
		v3.KindIPPool, v3.KindBGPPeer, v3.KindTier, v3.KindGlobalNetworkPolicy, v3.KindStagedGlobalNetworkPolicy,
		v3.KindGlobalNetworkSet, v3.KindHostEndpoint, v3.KindKubeControllersConfiguration, v3.KindNetworkPolicy,
		v3.KindStagedNetworkPolicy, v3.KindStagedKubernetesNetworkPolicy, v3.KindNetworkSet, v3.KindNode,
		v3.KindBGPConfiguration, v3.KindFelixConfiguration, v3.KindIPReservation, v3.KindBGPFilter,
	}
}

// separator stands between the parts of an export.
const separator = "===\n"

func (c *cli) exportCommand() *cobra.Command {
	var f storeFlags
	cmd := &cobra.Command{
		Use:   "export",
		Short: "Print the content of the datastore for an import",
		Long: "Print the content of a locked datastore, in the form that import reads: resources in YAML, the ClusterInformation,\n" +
			"and records of addresses. Profiles and WorkloadEndpoints are left out, because Kubernetes has its own.",
		Example: c.example("$ datastore migrate export > datastore.yaml"),
		Args:    cobra.NoArgs,
		RunE:    func(cmd *cobra.Command, _ []string) error { return c.export(cmd.Context(), f) },
	}
	c.addStoreFlags(cmd, &f)
	return cmd
}

func (c *cli) export(ctx context.Context, f storeFlags) error {
	s, err := c.openForWork(ctx, f)
	if err != nil {
		return err
	}
	defer s.close()
	if locked, err := s.locked(ctx); err != nil {
		return err
	} else if !locked {
		return fmt.Errorf("datastore is not locked. Run the `%s datastore migrate lock` command in order to begin migration", c.env.Name)
	}
	e := &exporter{cli: c, session: s}
	if err := e.read(ctx); err != nil {
		return err
	}
	return e.write(c.env.Stdout)
}

// An exporter reads the content of a datastore.
type exporter struct {
	*session
	cli     *cli
	lists   []*list
	cluster v3.Resource
	ipam    ipamFile
	nodes   map[string]string // names in Kubernetes, of nodes that have another there
}

// read reads everything before anything is printed: half an export is none.
func (e *exporter) read(ctx context.Context) error {
	found, err := e.list(ctx, "", append(exportedKinds(), v3.KindProfile, v3.KindWorkloadEndpoint)...)
	if err != nil {
		return err
	}
	if len(found.Faults) > 0 {
		errs := make([]error, len(found.Faults))
		for i := range found.Faults {
			errs[i] = &found.Faults[i]
		}
		return fmt.Errorf("nothing is exported: %w", errors.Join(errs...))
	}
	e.nameNodes(found.Items)
	byKind := map[v3.Kind][]v3.Resource{}
	for _, r := range found.Items {
		key := v3.KeyOf(r)
		if kubernetesPolicy(key) {
			continue // Kubernetes has it
		}
		if unknown := e.hidden(ctx, key); len(unknown) > 0 {
			e.cli.warning("%s has fields that this version does not know, which are not exported: %s", key, fieldNames(unknown))
		}
		clean(r)
		e.rename(r)
		byKind[key.Kind] = append(byKind[key.Kind], r)
	}
	for _, kind := range exportedKinds() {
		e.lists = append(e.lists, &list{
			TypeMeta: metav1.TypeMeta{Kind: string(kind) + "List", APIVersion: v3.APIVersion},
			ListMeta: metav1.ListMeta{ResourceVersion: found.Revision.Short()},
			Items:    append([]v3.Resource{}, byKind[kind]...),
		})
	}
	e.tellLeftOut(byKind)
	if e.cluster, err = e.get(ctx, clusterKey); err != nil {
		return err
	}
	e.ipam, err = e.readIPAM(ctx)
	return err
}

// tellLeftOut warns of what an import into a datastore without Kubernetes would miss.
func (e *exporter) tellLeftOut(byKind map[v3.Kind][]v3.Resource) {
	profiles := slices.DeleteFunc(byKind[v3.KindProfile], func(r v3.Resource) bool { return r.GetName() == v3.ProfileDefaultAllow })
	if n, m := len(profiles), len(byKind[v3.KindWorkloadEndpoint]); n+m > 0 {
		e.cli.warning("%d Profile(s) and %d WorkloadEndpoint(s) are not exported: Kubernetes has its own", n, m)
	}
}

// nameNodes finds the names that nodes have in Kubernetes.
func (e *exporter) nameNodes(items []v3.Resource) {
	e.nodes = map[string]string{}
	for _, item := range items {
		node, ok := item.(*v3.Node)
		if !ok {
			continue
		}
		name := ""
		for _, ref := range node.Spec.OrchRefs {
			if ref.Orchestrator == "k8s" {
				name = ref.NodeName
			}
		}
		switch name {
		case "":
			e.cli.warning("Node %s names no node of Kubernetes (orchRefs): a Kubernetes datastore will not have it", node.Name)
		case node.Name:
		default:
			e.nodes[node.Name] = name
		}
	}
}

// rename gives nodes, and what names them, the names of Kubernetes.
func (e *exporter) rename(r v3.Resource) {
	switch r := r.(type) {
	case *v3.Node:
		r.Name = e.nodeName(r.Name)
	case *v3.HostEndpoint:
		r.Spec.Node = e.nodeName(r.Spec.Node)
	case *v3.FelixConfiguration, *v3.BGPConfiguration:
		if felix, ok := r.(*v3.FelixConfiguration); ok {
			capitalise(&felix.Spec)
		}
		if node, ok := strings.CutPrefix(r.GetName(), "node."); ok {
			r.SetName("node." + e.nodeName(node))
		}
	}
}

// capitalise corrects actions as very old releases stored them.
func capitalise(spec *v3.FelixConfigurationSpec) {
	for _, action := range []*string{&spec.DefaultEndpointToHostAction, &spec.IptablesFilterAllowAction,
		&spec.IptablesMangleAllowAction, &spec.IptablesFilterDenyAction} {
		if *action != "" {
			*action = strings.ToUpper((*action)[:1]) + strings.ToLower((*action)[1:])
		}
	}
}

func (e *exporter) nodeName(name string) string {
	if other, ok := e.nodes[name]; ok {
		return other
	}
	return name
}

// clean removes from an object what only its datastore gives a meaning to.
func clean(r v3.Resource) {
	r.SetUID("")
	r.SetResourceVersion("")
	r.SetCreationTimestamp(metav1.Time{})
	r.SetDeletionTimestamp(nil)
	r.SetDeletionGracePeriodSeconds(nil)
}

func (e *exporter) write(w io.Writer) error {
	for _, l := range e.lists {
		if err := (yamlFormat{}).print(w, []any{l}); err != nil {
			return err
		}
		fmt.Fprint(w, "---\n")
	}
	fmt.Fprint(w, separator)
	for i, part := range []any{e.cluster, e.ipam} {
		text, err := json.MarshalIndent(part, "", "  ")
		if err != nil {
			return err
		}
		if i > 0 {
			fmt.Fprint(w, separator)
		}
		if _, err := fmt.Fprintf(w, "%s\n", text); err != nil {
			return err
		}
	}
	return nil
}
