package ctl

import "github.com/spf13/cobra"

func (c *cli) applyCommand() *cobra.Command {
	var f writeFlags
	cmd := &cobra.Command{
		Use:   "apply -f FILE",
		Short: "Create resources, or replace those that exist",
		Long: "Create resources from manifests; where one exists already, its labels, annotations and spec become those of\n" +
			"the manifest: what the manifest leaves out is removed.\n\n" +
			"Nothing is written before every manifest was found good.",
		Example: c.example("$ apply -f policy.yaml", "cat policy.json | $ apply -f -", "$ apply -f policy.yaml --dry-run=server",
			"$ apply -f policy.yaml --wait"),
		Args: onlyFlags,
		RunE: func(cmd *cobra.Command, _ []string) error { return c.write(cmd, &f, verbApply) },
	}
	c.addWriteFlags(cmd, &f)
	return cmd
}
