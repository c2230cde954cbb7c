package ctl

import "github.com/spf13/cobra"

func (c *cli) replaceCommand() *cobra.Command {
	var f writeFlags
	cmd := &cobra.Command{
		Use:   "replace -f FILE",
		Short: "Replace resources that exist",
		Long: "Give resources that exist the labels, annotations and spec of manifests. With metadata.resourceVersion in a\n" +
			"manifest, the resource is replaced only if nobody changed it since.",
		Example: c.example("$ replace -f policy.yaml"),
		Args:    onlyFlags,
		RunE:    func(cmd *cobra.Command, _ []string) error { return c.write(cmd, &f, verbReplace) },
	}
	c.addWriteFlags(cmd, &f)
	return cmd
}
