package main

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"sync"
	"syscall"

	"github.com/spf13/cobra"

	"margay/node"
	"margay/store"
	"margay/store/kube"
	"margay/typha"
)

func typhaCommand() *cobra.Command {
	var configFile string
	cmd := &cobra.Command{
		Use:   "typha",
		Short: "Run the fan-out between the datastore and many agents",
		Long: `Run the fan-out: it watches the datastore once and serves any number of agents, which then need no connection and
no credentials of the datastore of their own (FELIX_TYPHAADDR, or FELIX_TYPHAK8SSERVICENAME for a service of Kubernetes).

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
				Instances: countTyphas(),
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

// typhaPort is the name of the port of typha's service.
const typhaPort = "calico-typha"

// openTypha connects the agent to typha.
func openTypha(c node.TyphaConfig) (store.Store, error) {
	addresses := typha.Fixed(c.Address)
	if c.Address == "" {
		addresses = typha.Spread(findTypha(kube.Service{Namespace: c.Namespace, Name: c.Service, Port: typhaPort}, c.Node))
	}
	return typha.Dial(typha.ClientConfig{
		Addresses: addresses, Node: c.Node, Version: version, ReadTimeout: c.ReadTimeout, WriteTimeout: c.WriteTimeout,
		TLS: typha.TLSFiles{CA: c.CAFile, Cert: c.CertFile, Key: c.KeyFile, PeerCN: c.CN, PeerURISAN: c.URISAN},
	})
}

// instancesOf returns what asks the API server for what is behind services. It connects when it is asked first.
func instancesOf() func(context.Context, kube.Service) ([]kube.Instance, error) {
	open := sync.OnceValues(func() (*kube.Store, error) {
		return kube.Open(context.Background(), kubernetesConfig("discovery", newLog()))
	})
	return func(ctx context.Context, service kube.Service) ([]kube.Instance, error) {
		s, err := open()
		if err != nil {
			return nil, err
		}
		return s.Instances(ctx, service)
	}
}

// findTypha returns what finds the instances of typha that are ready, those of a node apart.
func findTypha(service kube.Service, node string) func(context.Context) (near, others []string, err error) {
	instances := instancesOf()
	return func(ctx context.Context) (near, others []string, err error) {
		all, err := instances(ctx, service)
		for _, i := range all {
			switch {
			case !i.Ready:
			case i.Node == node:
				near = append(near, i.Addr.String())
			default:
				others = append(others, i.Addr.String())
			}
		}
		if err == nil && len(near)+len(others) == 0 {
			err = fmt.Errorf("service %s/%s has no endpoint that is ready at a port %s (is typha running?)", service.Namespace, service.Name, service.Port)
		}
		return near, others, err
	}
}

// countTyphas returns what counts the instances of typha, ready or not.
func countTyphas() func(context.Context, *typha.Params) (int, error) {
	instances := instancesOf()
	return func(ctx context.Context, p *typha.Params) (int, error) {
		all, err := instances(ctx, kube.Service{Namespace: p.K8sNamespace, Name: p.K8sService, Port: p.K8sPort})
		return len(all), err
	}
}
