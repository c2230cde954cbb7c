package main

import (
	"github.com/spf13/cobra"

	"margay/lab/demo"
)

func demoCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "demo",
		Short: "Follow the guide, for real, on hosts made of network namespaces",
		Long: `Follow the guide "Secure Calico Prometheus endpoints", both approaches, on hosts made of network namespaces: a store,
one agent per host with its real metrics, and HTTP requests from every client after each step. It prints what should be
reachable and what was, fails if a cell is wrong, and leaves nothing behind. It needs root.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return demo.Run(cmd.Context(), demo.Options{Stdout: cmd.OutOrStdout()})
		},
	}
}
