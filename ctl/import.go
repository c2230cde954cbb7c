package ctl

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	v3 "margay/api/v3"
	"margay/store"
)

func (c *cli) importCommand() *cobra.Command {
	var f storeFlags
	var filename string
	cmd := &cobra.Command{
		Use:   "import -f FILE",
		Short: "Store what export printed in an empty datastore",
		Long: "Store what export printed in a datastore without resources of its own. It is locked before and stays locked until\n" +
			"`datastore migrate unlock`.",
		Example: c.example("$ datastore migrate import -f datastore.yaml"),
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if filename == "" {
				return fmt.Errorf("%s needs a file that export printed: name it with -f", cmd.CommandPath())
			}
			return c.importFile(cmd.Context(), f, filename)
		},
	}
	c.addStoreFlags(cmd, &f)
	cmd.Flags().StringVarP(&filename, "filename", "f", "", "file that export printed, or - for standard input")
	return cmd
}

// An exported is the content of a file that export printed.
type exported struct {
	docs    []v3.Document
	cluster *v3.ClusterInformation
	ipam    ipamFile
}

func (c *cli) importFile(ctx context.Context, f storeFlags, filename string) error {
	file, err := c.readExport(filename)
	if err != nil {
		return err
	}
	// As for calicoctl the release of the datastore does not matter: it is new.
	s, err := c.open(ctx, f)
	if err != nil {
		return err
	}
	defer s.close()
	if err := s.checkEmpty(ctx); err != nil {
		return fmt.Errorf("datastore already has Calico resources: %w (delete them, or import into another datastore)", err)
	}
	if err := c.tryResources(ctx, s, file.docs); err != nil {
		return fmt.Errorf("failed to import v3 resources, nothing was imported: %w", err)
	}
	if err := s.initialise(ctx); err != nil {
		return err
	}
	if err := c.setLock(ctx, s, true); err != nil {
		return err
	}
	if err := c.importResources(ctx, s, file.docs); err != nil {
		return fmt.Errorf("failed to import v3 resources: %w", err)
	}
	if err := c.importCluster(ctx, s, file.cluster); err != nil {
		return err
	}
	if err := c.importIPAM(ctx, s, file.ipam.records()); err != nil {
		return err
	}
	fmt.Fprintln(c.env.Stdout, "Datastore information successfully imported. Point the agents at this datastore, then run "+
		"`"+c.env.Name+" datastore migrate unlock`.")
	return nil
}

// readExport reads a file and everything in it.
func (c *cli) readExport(filename string) (*exported, error) {
	data, err := c.readAll(filename)
	if err != nil {
		return nil, &inputError{[]error{err}}
	}
	parts := bytes.Split(data, []byte(separator))
	if len(parts) != 3 {
		return nil, fmt.Errorf("error while reading migration file: imported file: %s is improperly formatted. "+
			"Try recreating with '%s datastore migrate export'", filename, c.env.Name)
	}
	file := &exported{cluster: &v3.ClusterInformation{}}
	if file.docs, err = v3.Decode(filename, parts[0]); err != nil && !holdsNothing(err) {
		return nil, &inputError{[]error{err}}
	}
	if errs := prepare(file.docs, inputFlags{}); len(errs) > 0 {
		return nil, &inputError{errs}
	}
	if err := json.Unmarshal(parts[1], file.cluster); err != nil {
		return nil, fmt.Errorf("error reading exported cluster info for migration: %w", err)
	}
	if err := json.Unmarshal(parts[2], &file.ipam); err != nil {
		return nil, fmt.Errorf("failed to read IPAM resources: %w", err)
	}
	return file, nil
}

// readAll reads a file, or standard input, of at most v3.MaxFile bytes: a part of it would pass for the whole.
func (c *cli) readAll(filename string) ([]byte, error) {
	r := c.env.Stdin
	if filename == "-" {
		filename = "standard input"
	} else {
		file, err := os.Open(filename)
		if err != nil {
			return nil, err
		}
		defer func() { _ = file.Close() }()
		r = file
	}
	data, err := io.ReadAll(io.LimitReader(r, v3.MaxFile+1))
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", filename, err)
	}
	if len(data) > v3.MaxFile {
		return nil, fmt.Errorf("%s: file is too large, at most %d bytes are read", filename, v3.MaxFile)
	}
	return data, nil
}

// checkEmpty refuses a datastore in which somebody has written.
func (s *session) checkEmpty(ctx context.Context) error {
	found, err := s.list(ctx, "", exportedKinds()...)
	if err != nil {
		return err
	}
	initial, err := store.Initial()
	if err != nil {
		return err
	}
	for _, r := range found.Items {
		if s.cfg.Type == TypeKubernetes && ofKubernetes(v3.KeyOf(r)) {
			continue
		}
		if !slices.ContainsFunc(initial, func(i v3.Resource) bool { return v3.KeyOf(i) == v3.KeyOf(r) }) {
			return fmt.Errorf("found existing Calico %s", v3.KeyOf(r))
		}
	}
	if len(found.Faults) > 0 {
		return &found.Faults[0]
	}
	if ipam, ok := s.store.(ipamStore); ok {
		values, err := within(ctx, s, ipam.IPAM)
		if err == nil && len(values) > 0 {
			err = errors.New("found existing IPAM resources")
		}
		return err
	}
	return nil
}

// tryResources lets the datastore check everything first: half an import could not be repeated, as the datastore would not be
// empty any more.
func (c *cli) tryResources(ctx context.Context, s *session, docs []v3.Document) error {
	o := outcome{kind: kindOf(docs), total: len(docs), dryRun: dryRunServer}
	w := &writer{session: s, cli: c, verb: verbApply, mode: store.DryRun, changes: changesOf(docs, verbApply)}
	w.run(ctx)
	w.count(&o)
	if len(o.errs) == 0 {
		return nil
	}
	return o.errors(verbApply)
}

// ofKubernetes reports whether an object is there because Kubernetes has it: a node, or a policy of its own.
func ofKubernetes(key v3.Key) bool {
	return key.Kind == v3.KindNode || strings.HasPrefix(key.Name, v3.PrefixKubernetesPolicy) ||
		key.Kind == v3.KindGlobalNetworkPolicy && strings.HasPrefix(key.Name, "kcnp.")
}

func (c *cli) importResources(ctx context.Context, s *session, docs []v3.Document) error {
	if len(docs) == 0 {
		return nil
	}
	o := outcome{kind: kindOf(docs), total: len(docs)}
	w := &writer{session: s, cli: c, verb: verbApply, changes: changesOf(docs, verbApply)}
	w.run(ctx)
	w.count(&o)
	return o.report(c.env.Stdout, verbApply)
}

// importCluster takes over what identifies the cluster.
func (c *cli) importCluster(ctx context.Context, s *session, from *v3.ClusterInformation) error {
	w := &writer{session: s, cli: c, verb: verb{"update", "updated"}}
	err := w.rewrite(ctx, clusterKey, func(tree any) (any, error) {
		spec := map[string]any{"clusterGUID": from.Spec.ClusterGUID}
		if from.Spec.CalicoVersion != "" {
			spec["calicoVersion"] = from.Spec.CalicoVersion
		}
		return mergePatch(tree, map[string]any{"spec": spec}), nil
	})
	if err != nil {
		return fmt.Errorf("failed to update cluster information: %w", err)
	}
	return nil
}

func (c *cli) importIPAM(ctx context.Context, s *session, records []ipamRecord) error {
	if len(records) == 0 {
		return nil
	}
	fmt.Fprintln(c.env.Stdout, "Importing IPAM resources")
	ipam, ok := s.store.(ipamStore)
	if !ok {
		return fmt.Errorf("failed to import any IPAM resources: this datastore keeps no records of addresses (%d in the file)", len(records))
	}
	for i, r := range records {
		_, err := within(ctx, s, func(ctx context.Context) (struct{}, error) { return struct{}{}, ipam.CreateIPAM(ctx, r.Key, r.Value) })
		if err != nil {
			return fmt.Errorf("import IPAM resources: %d of %d are stored: %w", i, len(records), err)
		}
	}
	fmt.Fprintf(c.env.Stdout, "Successfully applied %d IPAM resource(s)\n", len(records))
	return nil
}
