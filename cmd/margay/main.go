// Command margay is all of Margay in one binary: the first word says which part it plays (agent, store, CLI, demo). Called
// as calicoctl or kubectl-calico it is the CLI alone. The package wires the parts together and does nothing else.
package main

import (
	"context"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"

	"github.com/spf13/cobra"

	"margay/ctl"
)

// version and commit are set by the linker, see Makefile.
var (
	version = "dev"
	commit  = "unknown"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	os.Exit(ctl.Execute(ctx, rootCommand(filepath.Base(os.Args[0]))))
}

func isTerminal(f *os.File) bool {
	info, err := f.Stat()
	return err == nil && info.Mode()&os.ModeCharDevice != 0
}

// rootCommand returns the command for a program called name.
func rootCommand(name string) *cobra.Command {
	env := ctl.Env{
		Name: name, Version: version, Commit: commit,
		Stdin: os.Stdin, Stdout: os.Stdout, Stderr: os.Stderr, TTY: isTerminal(os.Stdout),
		Getenv: os.Getenv, OpenStore: openForCLI, Settings: settingsFor,
	}
	root := ctl.NewCommand(env)
	host := ctl.Host{Counters: kernelCounters, Try: tryKernel}
	if ctl.Incumbent(name) {
		root.AddCommand(ctl.NewNodeGroup(env, host))
		return root
	}
	node := nodeCommand()
	node.AddCommand(ctl.NewNodeCommands(env, host)...)
	for _, cmd := range ctl.InGroup(ctl.GroupRun, standaloneCommand(), node, storeCommand(), typhaCommand(), kubeControllersCommand(), demoCommand()) {
		root.AddCommand(ctl.WithoutGlobalFlags(cmd))
	}
	return root
}
