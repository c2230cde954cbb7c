// Package ctl is the command line: it turns words and manifests into calls of a [store.Store] and prints the answers as
// calicoctl does: the same flags, tables, sentences, streams and exit codes. What it has to say beyond
// that (what became of each object, warnings) goes to standard error, so that scripts see what they always saw.
//
//	argv -> command -> load manifests -> check them all -> open store -> one request per object -> outcome -> advice
//	                   (input.go)                          (session.go)   (write.go)               (outcome.go) (advice.go)
//
// Nothing is written before the whole input was found good. The package must not know an implementation of the store,
// write to the process's own streams or read its environment: all of that comes in an [Env].
package ctl

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"margay/store"
)

// Where things are unless [Env] or a flag says otherwise.
const (
	DefaultConfigFile = "/etc/calico/calicoctl.cfg"
	DefaultSocket     = "/run/margay/store.sock"
	// DefaultAgentSocket is where the agent answers those who may be root on its host.
	DefaultAgentSocket = "/var/lib/margay/node/agent.sock"
)

// compatible is the release of the system whose store and wire format this build follows; calicoctl refuses to write
// to a cluster of another release.
const compatible = "v3.32"

// An Env is what a process gives the command line.
type Env struct {
	// Name is what the program was called as. The [Incumbent] names make it as silent as calicoctl.
	Name           string
	Stdin          io.Reader
	Stdout, Stderr io.Writer
	Getenv         func(string) string
	// OpenStore connects to a datastore. It need not wait until the datastore answers.
	OpenStore func(context.Context, StoreConfig) (store.Store, error)
	// Version as `version` prints it, with the v; Commit likewise.
	Version, Commit string
	// TTY says that Stdout is a terminal.
	TTY bool
	// ConfigFile replaces DefaultConfigFile, Socket DefaultSocket and AgentSocket DefaultAgentSocket, when not empty.
	ConfigFile, Socket, AgentSocket string
	// Settings returns the settings of a node, for explain.
	Settings SettingsFunc
}

// cli is what all commands share.
type cli struct {
	env           Env
	log           *slog.Logger
	logLevel      string
	context       string
	allowMismatch bool
	timeout       time.Duration
	changes       bool
}

// newCLI returns what commands share, with everything that env leaves open.
func newCLI(env Env) *cli {
	if env.ConfigFile == "" {
		env.ConfigFile = DefaultConfigFile
	}
	if env.Socket == "" {
		env.Socket = DefaultSocket
	}
	if env.AgentSocket == "" {
		env.AgentSocket = DefaultAgentSocket
	}
	env.Stdout, env.Stderr = printableOf(env.Stdout), printableOf(env.Stderr)
	return &cli{env: env, log: slog.New(slog.DiscardHandler)}
}

// NewCommand returns the root command with all verbs of calicoctl, and status. Run it with [Execute].
func NewCommand(env Env) *cobra.Command {
	c := newCLI(env)
	root := &cobra.Command{
		Use:                        c.env.Name,
		Short:                      "Label-based network policy for Linux hosts",
		Long:                       c.rootLong(),
		Example:                    c.rootExample(),
		SilenceUsage:               true,
		SilenceErrors:              true,
		SuggestionsMinimumDistance: 2,
		PersistentPreRunE:          func(*cobra.Command, []string) error { return c.startLog() },
	}
	root.SetIn(c.env.Stdin)
	root.SetOut(env.Stdout)
	root.SetErr(env.Stderr)
	root.SetFlagErrorFunc(func(cmd *cobra.Command, err error) error {
		err = fmt.Errorf("%w (see %s --help)", err, cmd.CommandPath())
		if cmd.Name() == "diff" {
			return exitWith(2, err)
		}
		return err
	})
	flags := root.PersistentFlags()
	flags.StringVarP(&c.logLevel, "log-level", "l", "panic", "`LEVEL`: panic, fatal, error, warn, info or debug")
	flags.StringVar(&c.context, "context", "", "`NAME` of the context of the kubeconfig, with a Kubernetes datastore")
	flags.BoolVar(&c.allowMismatch, "allow-version-mismatch", false, "work on a datastore of another release")
	root.AddGroup(c.groups()...)
	root.AddCommand(InGroup(GroupWrite, c.applyCommand(), c.createCommand(), c.replaceCommand(), c.patchCommand(), c.labelCommand(),
		c.deleteCommand())...)
	root.AddCommand(InGroup(GroupRead, c.validateCommand(), c.diffCommand(), c.getCommand(), c.statusCommand(), c.explainCommand())...)
	root.AddCommand(InGroup(GroupCare, c.versionCommand(), c.datastoreCommand(), c.convertCommand(), c.clusterCommand())...)
	root.AddCommand(absent("ipam", "Margay assigns no addresses (Calico's own calicoctl works on the same datastore)"))
	return root
}

// Execute runs the command and returns the exit code: 0, or after any error, which it prints, 1; diff alone has others.
func Execute(ctx context.Context, root *cobra.Command) int {
	err := root.ExecuteContext(ctx)
	if err == nil {
		return 0
	}
	code := 1
	if exit := (*exitError)(nil); errors.As(err, &exit) {
		if code = exit.code; exit.err == nil {
			return code
		}
	}
	w := root.ErrOrStderr()
	if plain := (*stdoutError)(nil); errors.As(err, &plain) {
		w = root.OutOrStdout()
	}
	fmt.Fprintln(printableOf(w), strings.TrimRight(err.Error(), "\n"))
	return code
}

// An exitError has an exit code of its own. Without err there is nothing to be said.
type exitError struct {
	code int
	err  error
}

func (e *exitError) Error() string {
	if e.err == nil {
		return ""
	}
	return e.err.Error()
}

func (e *exitError) Unwrap() error { return e.err }

// exitWith gives an error an exit code, unless it has one.
func exitWith(code int, err error) error {
	if exit := (*exitError)(nil); err == nil || errors.As(err, &exit) {
		return err
	}
	return &exitError{code, err}
}

// A stdoutError is one of the two errors that calicoctl prints on standard output.
type stdoutError struct{ error }

func (e *stdoutError) Unwrap() error { return e.error }

// startLog makes the logger that --log-level asks for.
func (c *cli) startLog() error {
	var level slog.Level
	switch strings.ToLower(c.logLevel) {
	case "panic", "fatal":
		return nil
	case "error":
		level = slog.LevelError
	case "warn", "warning":
		level = slog.LevelWarn
	case "info":
		level = slog.LevelInfo
	case "debug", "trace":
		level = slog.LevelDebug
	default:
		return fmt.Errorf("unknown log level: %s, expected one of: panic, fatal, error, warn, info, debug", c.logLevel)
	}
	c.log = slog.New(slog.NewTextHandler(c.env.Stderr, &slog.HandlerOptions{Level: level}))
	return nil
}

// silent reports whether only what calicoctl prints is wanted.
func (c *cli) silent() bool { return Incumbent(c.env.Name) }

// Incumbent reports whether a program of that name has to be calicoctl: alone or as kubectl's plugin.
func Incumbent(name string) bool { return name == "calicoctl" || name == "kubectl-calico" }

// example returns an example for a help text, with the program's name for $.
func (c *cli) example(lines ...string) string {
	text := "  " + strings.Join(lines, "\n  ")
	return strings.ReplaceAll(text, "$", c.env.Name)
}
