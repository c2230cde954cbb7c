package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"

	"margay/ctl"
	"margay/dataplane/nft"
	"margay/node"
	"margay/ruleset"
)

// nodeFlags are what the agent takes from the command line; everything else is Felix's parameters.
type nodeFlags struct {
	configFile, stateDir string
}

func (f *nodeFlags) add(cmd *cobra.Command) {
	cmd.Flags().StringVar(&f.configFile, "config-file", "", "Felix's configuration file (default /etc/calico/felix.cfg, if it exists)")
	cmd.Flags().StringVar(&f.stateDir, "state-dir", node.DefaultStateDir, "where the agent keeps its files")
}

// options returns the agent's options but for the store.
func (f *nodeFlags) options() node.Options {
	return node.Options{
		Environ: os.Environ(), ConfigFile: f.configFile, StateDir: f.stateDir, Version: version,
		OpenStore: openForNode, OpenDataplane: openKernel, ReadLog: readLog,
		ReadCounters: nft.NewMeter(nft.Options{}).Read,
	}
}

func nodeCommand() *cobra.Command {
	var flags nodeFlags
	var cleanup bool
	cmd := &cobra.Command{
		Use:   "node",
		Short: "Run the agent of this host",
		Long: `Run the agent of this host: it follows the datastore and keeps the kernel's rules at what this host must enforce.

It reads Felix's parameters from the environment (FELIX_...), from a file and from FelixConfiguration resources. When it
stops, the rules stay in force; --cleanup takes them away.`,
		Example: "  FELIX_ETCDENDPOINTS=http://10.0.0.1:2379 FELIX_PROMETHEUSMETRICSENABLED=true margay node",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if cleanup {
				return cleanUp(cmd.Context(), flags.stateDir)
			}
			return runAgent(cmd.Context(), flags.options())
		},
	}
	flags.add(cmd)
	cmd.AddCommand(ctl.NewShowCommand(kernelCounters))
	cmd.Flags().BoolVar(&cleanup, "cleanup", false, "remove everything that the agent ever made on this host, and exit")
	return cmd
}

// runAgent runs the agent, if no other one runs on this host.
func runAgent(ctx context.Context, options node.Options) error {
	if err := claimHost(); err != nil {
		return err
	}
	return node.Run(ctx, options)
}

// kernelCounters returns what the kernel of this host enforces and counts.
func kernelCounters(ctx context.Context) ([]ruleset.Counter, error) {
	counters, err := nft.Counters(ctx, nft.Options{})
	return counters, rootNeeded(err)
}

// rootNeeded adds the remedy to what the kernel refuses.
func rootNeeded(err error) error {
	if errors.Is(err, os.ErrPermission) {
		return fmt.Errorf("%w (run this as root)", err)
	}
	return err
}

// lastRules returns the rules that margay-last-rules.service keeps for the next boot, which after a power failure would close
// a host that was opened for good. They belong to the usual state directory.
func lastRules(stateDir string) (path string, ok bool) {
	return filepath.Join(filepath.Dir(node.DefaultStateDir), "last.nft"), filepath.Clean(stateDir) == node.DefaultStateDir
}

// cleanUp removes the tables and the agent's files: the host is open afterwards. An agent that runs would close it again.
func cleanUp(ctx context.Context, stateDir string) error {
	if pid, runs := hostAgent(); runs {
		return fmt.Errorf("clean up: the agent of this host runs, process %d, and would put its rules back (stop it first, as by systemctl stop margay-node margay-standalone)", pid)
	} else if node.Running(stateDir) {
		return fmt.Errorf("clean up: the agent of %s runs and would put its rules back (stop it first)", stateDir)
	}
	if err := nft.Cleanup(ctx, nft.Options{}); err != nil {
		return rootNeeded(err)
	}
	if err := node.Forget(stateDir); err != nil {
		return err
	}
	if path, ok := lastRules(stateDir); ok {
		if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("remove the rules for the next boot: %w", err)
		}
	}
	fmt.Fprintf(os.Stderr, `removed tables inet margay, bridge margay and the agent's files in %s
Margay filters nothing on this host any more. The datastore is as it was: an agent that starts enforces it again. If none is to
run here, delete the host's endpoints and its Node: margay delete hostendpoint NAME; margay delete node NAME
`, stateDir)
	return nil
}

// A kernel is nft as the agent wants it.
type kernel struct{ *nft.Dataplane }

func openKernel(_ context.Context, log *slog.Logger) (node.Dataplane, error) {
	dp, err := nft.Open(nft.Options{Log: log})
	if err != nil {
		return nil, err
	}
	return kernel{dp}, nil
}

// Stats returns nft's counts in the agent's form.
func (k kernel) Stats() node.DataplaneStats {
	s := k.Dataplane.Stats()
	return node.DataplaneStats{
		Chains: s.Chains, Rules: s.Rules, Sets: s.Sets, Elements: s.Elements,
		Transactions: int(s.Transactions), Messages: int(s.Messages), Errors: int(s.Errors),
	}
}

func readLog(ctx context.Context, report func(node.PacketLog)) error {
	return nft.ReadLog(ctx, nft.Options{}, func(e nft.LogEntry) {
		report(node.PacketLog{
			slog.String("rule", e.Prefix), slog.String("in", e.In), slog.String("out", e.Out),
			slog.String("source", e.Src.String()), slog.String("destination", e.Dst.String()),
			slog.Int("protocol", int(e.Protocol)), slog.Int("source-port", int(e.SrcPort)),
			slog.Int("destination-port", int(e.DstPort)),
		})
	})
}
