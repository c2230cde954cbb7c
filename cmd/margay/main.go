// Command margay is all of Margay in one binary: the first word says which part it plays (agent, store, CLI, demo). Called
// as calicoctl or kubectl-calico it is the CLI alone. The package wires the parts together and does nothing else.
package main

import (
	"context"
	"os"
	"os/signal"
	"path/filepath"
	"runtime"
	"runtime/debug"
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

// collectLater puts the first garbage collection off until the heap has 16 MB, which most calls of the CLI never reach: at
// 4 MB it would be a tenth of what a get takes. From then on the heap grows as usual.
func collectLater() {
	usual := debug.SetGCPercent(400)
	runtime.AddCleanup(new(*byte), func(percent int) { debug.SetGCPercent(percent) }, usual)
}

// rootCommand returns the command for a program called name.
func rootCommand(name string) *cobra.Command {
	env := ctl.Env{
		Name: name, Version: version, Commit: commit,
		Stdin: os.Stdin, Stdout: os.Stdout, Stderr: os.Stderr, TTY: isTerminal(os.Stdout),
		Getenv: os.Getenv, OpenStore: openForCLI, Settings: settingsFor,
	}
	root := ctl.NewCommand(env)
	start := root.PersistentPreRunE
	root.PersistentPreRunE = func(cmd *cobra.Command, args []string) error {
		if cmd.GroupID != ctl.GroupRun {
			collectLater()
		}
		return start(cmd, args)
	}
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
