package ctl

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/spf13/cobra"

	v3 "margay/api/v3"
)

// versionFlags are the flags of version.
type versionFlags struct {
	store  storeFlags
	poll   string
	client bool
}

func (c *cli) versionCommand() *cobra.Command {
	var f versionFlags
	cmd := &cobra.Command{
		Use:   "version",
		Short: "Print the version of this program and of the cluster",
		Long: "Print the version of this program, and what ClusterInformation in the datastore says of the cluster. Other commands\n" +
			"refuse a cluster of another release (major and minor) than the one this program follows, " + compatible + ", unless\n" +
			"--allow-version-mismatch is given.",
		Example: c.example("$ version", "$ version --client"),
		Args:    onlyFlags,
		RunE:    func(cmd *cobra.Command, _ []string) error { return c.version(cmd.Context(), &f) },
	}
	c.addStoreFlags(cmd, &f.store)
	cmd.Flags().StringVar(&f.poll, "poll", "", "print the cluster's version again whenever it changed, asking at this interval; 0 is once")
	cmd.Flags().BoolVar(&f.client, "client", false, "print the version of this program only")
	return cmd
}

func (c *cli) version(ctx context.Context, f *versionFlags) error {
	poll := time.Duration(0)
	if f.poll != "" {
		var err error
		if poll, err = time.ParseDuration(f.poll); err != nil || poll < 0 {
			return fmt.Errorf("invalid poll duration specified: %s", f.poll)
		}
	}
	c.versionLine("Client Version:", c.env.Version)
	c.versionLine("Git commit:", c.env.Commit)
	if f.client {
		return nil
	}
	s, err := c.open(ctx, f.store)
	if errors.Is(err, errNoStore) {
		fmt.Fprintln(c.env.Stdout, "Unable to detect installed Calico version")
		return nil
	} else if err != nil {
		return err
	}
	defer s.close()
	return c.clusterVersion(ctx, s, poll)
}

func (c *cli) versionLine(label, value string) {
	if value == "" {
		value = "unknown"
	}
	fmt.Fprintf(c.env.Stdout, "%-18s %s\n", label, value)
}

// clusterVersion prints version and type of the cluster, again when one changed if poll is not 0.
func (c *cli) clusterVersion(ctx context.Context, s *session, poll time.Duration) error {
	var last v3.ClusterInformationSpec
	first := true
	for {
		r, err := s.get(ctx, v3.Key{Kind: v3.KindClusterInformation, Name: v3.ClusterInformationName})
		if err != nil {
			err = fmt.Errorf("unable to retrieve Cluster Version or Type: %w", err)
			first = true
		} else {
			now := r.(*v3.ClusterInformation).Spec
			if first || now.CalicoVersion != last.CalicoVersion {
				c.versionLine("Cluster Version:", now.CalicoVersion)
			}
			if first || now.ClusterType != last.ClusterType {
				c.versionLine("Cluster Type:", now.ClusterType)
			}
			last, first = now, false
		}
		if poll == 0 {
			return err
		}
		if err != nil && ctx.Err() == nil {
			fmt.Fprintln(c.env.Stderr, err)
		}
		select {
		case <-ctx.Done():
		case <-time.After(poll):
		}
		if ctx.Err() != nil {
			return nil
		}
	}
}
