package main

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"strings"

	"github.com/spf13/cobra"

	"margay/ctl"
	"margay/node"
	"margay/store"
	"margay/store/embed"
)

const defaultStoreDir = "/var/lib/margay/store"

// storeFlags say where the embedded store is and who reaches it.
type storeFlags struct {
	dir, socket string
	listen      []string
	tls         embed.TLSFiles
}

func (f *storeFlags) add(cmd *cobra.Command) {
	flags := cmd.Flags()
	flags.StringVar(&f.dir, "dir", defaultStoreDir, "data directory of the store")
	flags.StringVar(&f.socket, "socket", ctl.DefaultSocket, "unix socket for local clients")
	flags.StringSliceVar(&f.listen, "listen", []string{embed.DefaultListen}, "addresses for etcd clients, host:port")
	flags.StringVar(&f.tls.Cert, "tls-cert", "", "certificate for addresses beyond loopback")
	flags.StringVar(&f.tls.Key, "tls-key", "", "its key")
	flags.StringVar(&f.tls.ClientCA, "tls-client-ca", "", "CA whose certificates clients beyond loopback must show")
}

// start starts the store.
func (f *storeFlags) start(ctx context.Context, log *slog.Logger) (*embed.Server, error) {
	tls, err := embed.TLSConfig(f.tls)
	if err != nil {
		return nil, err
	}
	server, err := embed.Start(ctx, embed.Config{Dir: f.dir, Socket: f.socket, Listen: f.listen, TLS: tls, Log: log})
	return server, rootNeeded(err)
}

func storeCommand() *cobra.Command {
	var flags storeFlags
	cmd := &cobra.Command{
		Use:   "store",
		Short: "Run the embedded store alone, for this host and for others",
		Long: `Run the embedded store, an etcd of one member, without an agent. Agents and CLIs of other hosts reach it at the
addresses of --listen; unless certificates are asked for, whoever reaches one can change every policy.`,
		Example: "  margay store --listen 127.0.0.1:2379,10.0.0.1:2379 --tls-cert s.crt --tls-key s.key --tls-client-ca ca.crt",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			log := newLog()
			server, err := flags.start(cmd.Context(), log)
			if err != nil {
				return err
			}
			log.Info("store is ready", "dir", flags.dir, "socket", flags.socket, "addresses", addresses(server))
			return serve(cmd.Context(), server)
		},
	}
	flags.add(cmd)
	return cmd
}

// serve waits until the context ends or the server has stopped by itself, and closes it.
func serve(ctx context.Context, server *embed.Server) error {
	select {
	case <-ctx.Done():
		return server.Close()
	case <-server.Done():
		return fmt.Errorf("the store stopped by itself: %w", server.Close())
	}
}

func addresses(server *embed.Server) string {
	var out []string
	for _, a := range server.Addrs() {
		out = append(out, a.String())
	}
	return strings.Join(out, " ")
}

func newLog() *slog.Logger { return slog.New(slog.NewTextHandler(os.Stderr, nil)) }

func standaloneCommand() *cobra.Command {
	var agent nodeFlags
	var flags storeFlags
	cmd := &cobra.Command{
		Use:   "standalone",
		Short: "Run store and agent of this one machine in one process",
		Long: `Run the embedded store and the agent of this host in one process: all that one machine needs. It is safe to start:
nothing is filtered until a HostEndpoint of this host exists. When it stops, the rules stay in force.`,
		Example: "  margay standalone &\n  margay apply -f policy.yaml",
		Args:    cobra.NoArgs,
		RunE:    func(cmd *cobra.Command, _ []string) error { return standalone(cmd.Context(), flags, agent) },
	}
	agent.add(cmd)
	flags.add(cmd)
	return cmd
}

// standalone runs the agent on the store of the same process. Either one's end ends both.
func standalone(ctx context.Context, flags storeFlags, agent nodeFlags) error {
	log := newLog()
	server, err := flags.start(ctx, log)
	if err != nil {
		return err
	}
	log.Info("store is ready", "dir", flags.dir, "socket", flags.socket, "addresses", addresses(server))
	running, cancel := context.WithCancel(ctx)
	defer cancel()
	ended := make(chan error, 1)
	options := agent.options()
	options.OpenStore = func(context.Context, node.StoreConfig) (store.Store, error) { return server.Store(), nil }
	go func() { ended <- runAgent(running, options) }()
	select {
	case err = <-ended:
		_ = server.Close() // the agent's error is the news
		return err
	case <-server.Done():
		err = fmt.Errorf("the store stopped by itself: %w; the rules stay in force", server.Close())
	case <-ctx.Done():
	}
	cancel()
	<-ended
	if err == nil {
		err = server.Close()
	}
	return err
}
