package main

import (
	"context"
	"os"
	"os/signal"
	"syscall"

	"github.com/spf13/cobra"

	"margay/node"
	"margay/store"
	"margay/typha"
)

func typhaCommand() *cobra.Command {
	var configFile string
	cmd := &cobra.Command{
		Use:   "typha",
		Short: "Run the fan-out between the datastore and many agents",
		Long: `Run the fan-out: it watches the datastore once and serves any number of agents, which then need no connection and
no credentials of the datastore of their own (FELIX_TYPHAADDR).

It reads Typha's parameters from the environment (TYPHA_...) and from a file. Unless certificates are asked for, whoever
reaches its port can read all policy. When it is told to stop it sends its clients to other instances one by one; told
again, it stops at once.`,
		Example: "  TYPHA_ETCDENDPOINTS=http://10.0.0.1:2379 TYPHA_PROMETHEUSMETRICSENABLED=true margay typha",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			// The second signal has its usual effect.
			context.AfterFunc(cmd.Context(), func() { signal.Reset(os.Interrupt, syscall.SIGTERM) })
			return typha.Run(cmd.Context(), typha.Options{
				Environ: os.Environ(), ConfigFile: configFile, Version: version, OpenStore: openForTypha,
			})
		},
	}
	cmd.Flags().StringVar(&configFile, "config-file", "", "Typha's configuration file (default /etc/calico/typha.cfg, if it exists)")
	return cmd
}

// openForTypha connects typha to its store as an agent without typha.
func openForTypha(ctx context.Context, p *typha.Params) (store.Store, error) {
	return openForNode(ctx, node.StoreConfig{
		Type: p.DatastoreType, Endpoints: p.Endpoints, CAFile: p.EtcdCAFile, CertFile: p.EtcdCertFile, KeyFile: p.EtcdKeyFile,
		Username: p.Username, Password: p.Password,
	})
}

// openTypha connects the agent to typha.
func openTypha(c node.TyphaConfig) (store.Store, error) {
	return typha.Dial(typha.ClientConfig{
		Addresses: typha.Fixed(c.Address), Node: c.Node, Version: version, ReadTimeout: c.ReadTimeout, WriteTimeout: c.WriteTimeout,
		TLS: typha.TLSFiles{CA: c.CAFile, Cert: c.CertFile, Key: c.KeyFile, PeerCN: c.CN, PeerURISAN: c.URISAN},
	})
}
