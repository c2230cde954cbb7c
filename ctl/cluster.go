package ctl

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"
)

// clusterFlags are the flags of cluster diags. What calicoctl collects through kubectl does not exist without Kubernetes:
// the flags about it are taken and have no effect.
type clusterFlags struct {
	store                   storeFlags
	since, focusNodes       string
	maxLogs, maxParallelism int
	skipTempDirCleanup      bool
}

func (c *cli) clusterCommand() *cobra.Command {
	var f clusterFlags
	diags := &cobra.Command{
		Use:   "diags",
		Short: "Collect what the datastore and the nodes' reports tell, in a .tar.gz",
		Long: "Collect all resources of the datastore, stored values that cannot be used, what every node reports, and what the\n" +
			"agent of this host enforces, in calico-diagnostics-TIME.tar.gz in the current directory. Logs stay on the hosts:\n" +
			"collect them there, with node diags.",
		Example: c.example("$ cluster diags"),
		Args:    cobra.NoArgs,
		RunE:    func(cmd *cobra.Command, _ []string) error { return c.clusterDiags(cmd.Context(), f) },
	}
	c.addStoreFlags(diags, &f.store)
	flags := diags.Flags()
	flags.StringVar(&f.since, "since", "", "not used: no logs are collected")
	flags.IntVar(&f.maxLogs, "max-logs", 5, "not used: no logs are collected")
	flags.IntVar(&f.maxParallelism, "max-parallelism", 10, "not used: no logs are collected")
	flags.StringVar(&f.focusNodes, "focus-nodes", "", "not used: every node's report is collected")
	flags.BoolVar(&f.skipTempDirCleanup, "skip-temp-dir-cleanup", false, "not used: there is no temporary directory")
	return group(&cobra.Command{Use: "cluster", Short: "Find out about the cluster", Long: "Find out about the cluster as a whole."}, diags)
}

func (c *cli) clusterDiags(ctx context.Context, f clusterFlags) error {
	if err := f.check(); err != nil {
		return err
	}
	s, err := c.open(ctx, f.store)
	if err != nil {
		return err
	}
	defer s.close()
	fmt.Fprintln(c.env.Stdout, "==== Begin collecting diagnostics. ====")
	now := time.Now().UTC()
	root := "calico-diagnostics-" + now.Format("20060102_150405")
	b, err := newBundle(root+".tar.gz", root, now)
	if err != nil {
		return err
	}
	b.add("version", []byte(c.env.Version+" "+c.env.Commit+"\n"), nil)
	fmt.Fprintln(c.env.Stdout, "Collecting the datastore's content...")
	b.addStore(ctx, s)
	fmt.Fprintln(c.env.Stdout, "Collecting what the agent of this host enforces...")
	state, err := askAgent(ctx, c.env.AgentSocket)
	b.addJSON("agent.json", state, err)
	fmt.Fprintln(c.env.Stdout, "\n==== Producing a diagnostics bundle. ====")
	if err := b.close(); err != nil {
		return err
	}
	fmt.Fprintf(c.env.Stdout, "Diagnostic bundle created at ./%s\n", b.path)
	if s.down {
		return fmt.Errorf("the datastore did not answer: the bundle does not hold its content")
	}
	return nil
}

// check refuses values that calicoctl refuses.
func (f *clusterFlags) check() error {
	if f.since != "" {
		if d, err := time.ParseDuration(strings.TrimSpace(f.since)); err != nil || d < 0 {
			return fmt.Errorf("invalid duration for --since: %s", f.since)
		}
	}
	if f.maxLogs < 0 {
		return fmt.Errorf("invalid value for --max-logs: %d (it must not be negative)", f.maxLogs)
	}
	return nil
}
