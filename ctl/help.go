package ctl

import (
	"fmt"
	"slices"

	"github.com/spf13/cobra"
)

// The groups in which the root command's help lists commands.
const (
	GroupWrite = "write"
	GroupRead  = "read"
	GroupRun   = "run"
	GroupCare  = "care"
)

// groups returns the groups in the order of the help. calicoctl runs no part.
func (c *cli) groups() []*cobra.Group {
	out := []*cobra.Group{
		{ID: GroupWrite, Title: "Change what is stored:"},
		{ID: GroupRead, Title: "Check, look, find out:"},
		{ID: GroupCare, Title: "Look after a datastore and a host:"},
	}
	if !c.silent() {
		out = slices.Insert(out, 2, &cobra.Group{ID: GroupRun, Title: "Run the parts:"})
	}
	return out
}

// InGroup puts commands in a group of the help.
func InGroup(id string, commands ...*cobra.Command) []*cobra.Command {
	for _, cmd := range commands {
		cmd.GroupID = id
	}
	return commands
}

// rootLong says what the program is, and which datastore it talks to.
func (c *cli) rootLong() string {
	return fmt.Sprintf(`Network policy by labels for Linux hosts: manifests say who may reach what, the agent of every host enforces it.

Commands talk to the store of this host (margay standalone), unless ETCD_ENDPOINTS or another variable of calicoctl, the
file %s or -c FILE names another datastore.`, c.env.ConfigFile)
}

func (c *cli) rootExample() string {
	if c.silent() {
		return c.example("$ get nodes", "$ apply -f policy.yaml", "$ get hostendpoints -o wide")
	}
	return c.example(
		"$ standalone &                 # store and agent of this machine; filters nothing yet",
		"$ validate -f policy.yaml      # what is wrong with it",
		"$ diff -f policy.yaml          # what would change",
		"$ apply -f policy.yaml --wait  # returns when it is in force",
		"$ status                       # what every host says",
		"$ explain --from 10.0.0.9 --to host-1.eth0 --port 9091   # who decides about a connection")
}

// WithoutGlobalFlags leaves the flags of all commands out of the help of one for which they mean nothing.
func WithoutGlobalFlags(cmd *cobra.Command) *cobra.Command {
	help := cmd.HelpFunc()
	cmd.SetHelpFunc(func(cmd *cobra.Command, args []string) {
		for _, name := range []string{"allow-version-mismatch", "context", "log-level"} {
			if f := cmd.InheritedFlags().Lookup(name); f != nil {
				f.Hidden = true
			}
		}
		help(cmd, args)
	})
	return cmd
}
