package main

import (
	"cmp"
	"context"
	"fmt"
	"log/slog"
	"os"
	"strings"

	"github.com/spf13/cobra"

	"margay/controllers"
	"margay/ctl"
	"margay/node"
	"margay/store"
	"margay/store/kube"
)

// leaseName is the Lease over which instances of the controllers agree who leads, in the namespace of their pods.
const leaseName = "calico-kube-controllers"

func kubeControllersCommand() *cobra.Command {
	o := controllers.Options{Environ: os.Environ(), Version: version, OpenTarget: openDatastore, OpenSource: openSource, OpenElector: openElector}
	elect := true
	cmd := &cobra.Command{
		Use:   "kube-controllers",
		Short: "Run the controllers that keep the datastore in step with Kubernetes",
		Long: `Run the controllers. With etcd as the datastore they bring namespaces, service accounts, policies and labels of pods and
nodes from Kubernetes to it; with either datastore they keep automatic host endpoints and clean up after nodes that are gone.

They read KubeControllersConfiguration "default" and the environment (ENABLED_CONTROLLERS, DATASTORE_TYPE, AUTO_HOST_ENDPOINTS,
SYNC_NODE_LABELS, ...), which counts first, and write what is in force to its status. Several instances may run: one leads,
the others wait. Metrics are on port 9094 unless the configuration says otherwise.`,
		Example: "  DATASTORE_TYPE=kubernetes AUTO_HOST_ENDPOINTS=enabled KUBECONFIG=admin.conf margay kube-controllers",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if !elect {
				o.OpenElector = nil
			}
			return controllers.Run(cmd.Context(), o)
		},
	}
	cmd.Flags().StringVar(&o.StatusFile, "status-file", controllers.DefaultStatusFile, "file to write status information to, for check-status")
	cmd.Flags().Uint16Var(&o.HealthPort, "health-port", 0, "port to serve /liveness and /readiness on (0 to disable)")
	cmd.Flags().BoolVar(&elect, "leader-elect", true, "agree with other instances who leads, over Lease "+leaseName)
	cmd.AddCommand(checkStatusCommand())
	return cmd
}

func checkStatusCommand() *cobra.Command {
	var file string
	var live, ready bool
	cmd := &cobra.Command{
		Use:   "check-status",
		Short: "Say whether the controllers of this host or pod are ready, for probes",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := controllers.CheckStatus(file); err != nil {
				return err
			}
			fmt.Fprintln(cmd.OutOrStdout(), "Ready")
			return nil
		},
	}
	cmd.Flags().StringVarP(&file, "file", "f", controllers.DefaultStatusFile, "file to read with status information")
	cmd.Flags().BoolVarP(&ready, "ready", "r", false, "check readiness")
	cmd.Flags().BoolVar(&live, "live", false, "check liveness, which the status file does not tell from readiness")
	cmd.MarkFlagsOneRequired("ready", "live")
	return cmd
}

// openDatastore connects the controllers to the datastore, as agents are.
func openDatastore(ctx context.Context) (store.Store, error) {
	if controllers.Datastore(os.Environ()) == controllers.TypeKubernetes {
		return kubernetesFor(ctx, "kube-controllers", newLog())
	}
	get := func(name string) string { return cmp.Or(os.Getenv("CALICO_"+name), os.Getenv(name)) }
	var endpoints []string
	if text := get("ETCD_ENDPOINTS"); text != "" {
		endpoints = strings.Split(text, ",")
	}
	return openForNode(ctx, node.StoreConfig{
		Type: ctl.TypeEtcd, Endpoints: endpoints, CAFile: get("ETCD_CA_CERT_FILE"), CertFile: get("ETCD_CERT_FILE"),
		KeyFile: get("ETCD_KEY_FILE"), Username: get("ETCD_USERNAME"), Password: get("ETCD_PASSWORD"),
	})
}

func openSource(ctx context.Context) (store.Store, error) {
	return kubernetesFor(ctx, "kube-controllers", newLog())
}

func openElector(_ context.Context, log *slog.Logger) (controllers.Elector, error) {
	cfg := kubernetesConfig("kube-controllers", log)
	return kube.NewElector(cfg, kube.Lease{Namespace: podNamespace(), Name: leaseName, Identity: os.Getenv("POD_NAME")})
}

// podNamespace returns the namespace in which the program runs: as the pod's environment says, as its service account does,
// else where Calico is by default.
func podNamespace() string {
	if name := os.Getenv("POD_NAMESPACE"); name != "" {
		return name
	}
	name, _ := os.ReadFile("/var/run/secrets/kubernetes.io/serviceaccount/namespace")
	return cmp.Or(strings.TrimSpace(string(name)), kube.DefaultStatusNamespace)
}
