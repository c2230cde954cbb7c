package ctl

import "github.com/spf13/cobra"

func (c *cli) createCommand() *cobra.Command {
	var f writeFlags
	cmd := &cobra.Command{
		Use:     "create -f FILE",
		Short:   "Create resources that do not exist yet",
		Long:    "Create resources from manifests. A resource that exists already is an error; the others are created.",
		Example: c.example("$ create -f policy.yaml", "$ create --skip-exists -f manifests/ -R"),
		Args:    onlyFlags,
		RunE:    func(cmd *cobra.Command, _ []string) error { return c.write(cmd, &f, verbCreate) },
	}
	c.addWriteFlags(cmd, &f)
	cmd.Flags().BoolVar(&f.skipExists, "skip-exists", false, "resources that exist already are no error and are left alone")
	return cmd
}
