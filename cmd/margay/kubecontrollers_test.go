package main

import (
	"fmt"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	v3 "margay/api/v3"
	"margay/lab"
)

// guideControllers is the guide's policy for kube-controllers as it is, for both approaches.
func guideControllers(approach string) string {
	const policy = `
apiVersion: projectcalico.org/v3
kind: NetworkPolicy
metadata:
  name: restrict-kube-controllers-prometheus
  namespace: calico-system
spec:
  selector: k8s-app == "calico-kube-controllers"
  order: 500
  types: [Ingress]
  ingress:
  - action: ACTION
    protocol: TCP
    source: {MATCH: calico-prometheus-access == "true"}
    destination: {ports: [9094]}
`
	if approach == "deny-list" {
		return strings.NewReplacer("ACTION", "Deny", "MATCH", "notSelector").Replace(policy)
	}
	return strings.NewReplacer("ACTION", "Allow", "MATCH", "selector").Replace(policy)
}

// correctedControllers is the policy of the same name in the examples.
func correctedControllers(t testing.TB, approach string) string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join("..", "..", "examples", approach, "06-kube-controllers-9094.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// The pods of a world with kube-controllers: they themselves, and one beside them.
const (
	controllersAddr = "10.66.0.2"
	neighbourAddr   = "10.66.0.3"
	controllerPods  = `
apiVersion: projectcalico.org/v3
kind: Profile
metadata: {name: kns.calico-system}
spec: {ingress: [{action: Allow}], egress: [{action: Allow}], labelsToApply: {pcns.projectcalico.org/name: calico-system}}
---
apiVersion: projectcalico.org/v3
kind: WorkloadEndpoint
metadata: {name: host--a-k8s-controllers-eth0, namespace: calico-system, labels: {k8s-app: calico-kube-controllers}}
spec: {node: host-a, orchestrator: k8s, pod: controllers, endpoint: eth0, interfaceName: cali0, ipNetworks: [10.66.0.2/32], profiles: [kns.calico-system]}
---
apiVersion: projectcalico.org/v3
kind: WorkloadEndpoint
metadata: {name: host--a-k8s-neighbour-eth0, namespace: calico-system, labels: {calico-prometheus-access: "%v"}}
spec: {node: host-a, orchestrator: k8s, pod: neighbour, endpoint: eth0, interfaceName: cali1, ipNetworks: [10.66.0.3/32], profiles: [kns.calico-system]}
`
)

// TestKubeControllersMetricsAreProtected runs the controllers in a pod in calico-system and protects their own metrics, 9094,
// in both ways of the guide, first as the guide has them, then corrected. Kubernetes is out of reach here: the controllers
// stand by, and serve their metrics.
func TestKubeControllersMetricsAreProtected(t *testing.T) {
	t.Parallel()
	for _, approach := range []string{"deny-list", "allow-list"} {
		t.Run(approach, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			neighbour := w.controllersWorld()
			check := func(when string, friend, stranger, beside bool) {
				t.Helper()
				for _, c := range []struct {
					from *lab.Machine
					open bool
				}{{&w.friend.Machine, friend}, {&w.other.Machine, stranger}, {&neighbour.Machine, beside}} {
					w.eventually(30*time.Second, fmt.Sprintf("%s: %s scrapes 9094: %v", when, c.from.Name(), c.open), func() error {
						if scrapesControllers(c.from) != c.open {
							return fmt.Errorf("it is otherwise")
						}
						return nil
					})
				}
			}
			check("before", true, true, true)
			w.awaitEnforced(w.apply(guideControllers(approach)))
			check("as the guide has it", false, false, false)
			w.apply(typhaFriends)
			w.awaitEnforced(w.apply(fmt.Sprintf(controllerPods, true)))
			// G2: what only denies opens nothing. G3: of all that have the label, only pods of the same namespace are meant.
			check("labelled, as the guide has it", false, false, approach == "allow-list")
			w.awaitEnforced(w.apply(correctedControllers(t, approach)))
			check("corrected", true, false, true)
			w.remove(v3.Key{Kind: v3.KindGlobalNetworkSet, Name: "friends"})
			w.awaitEnforced(w.apply(fmt.Sprintf(controllerPods, false)))
			check("without labels", false, false, false)
		})
	}
}

// controllersWorld starts the agent, and kube-controllers in a pod, and returns the pod beside it.
func (w *world) controllersWorld() *lab.Pod {
	w.Helper()
	pod, err := w.host.Pod("kube-controllers", lab.Cable{Interface: "cali0", Addrs: []netip.Addr{netip.MustParseAddr(controllersAddr)}})
	w.must(err)
	neighbour, err := w.host.Pod("neighbour", lab.Cable{Interface: "cali1", Addrs: []netip.Addr{netip.MustParseAddr(neighbourAddr)}})
	w.must(err)
	for _, h := range []*lab.Host{w.storeHost, w.friend, w.other} {
		w.must(h.AddRouteVia(netip.MustParseAddr(hostAddr), netip.MustParsePrefix("10.66.0.0/24")))
	}
	w.startAgent()
	w.awaitReady()
	w.awaitEnforced(w.apply(fmt.Sprintf(controllerPods, false)))
	status := filepath.Join(w.dir, "status", "status.json")
	w.start(&pod.Machine, []string{
		"DATASTORE_TYPE=etcdv3", "ETCD_ENDPOINTS=http://" + storeAddr + ":2379", "K8S_API_ENDPOINT=http://127.0.0.1:1", "POD_NAMESPACE=calico-system",
	}, "kube-controllers", "--health-port", "9440", "--status-file", status)
	w.eventually(30*time.Second, "kube-controllers serve their metrics", func() error {
		if !scrapesControllers(&neighbour.Machine) {
			return fmt.Errorf("they do not")
		}
		return nil
	})
	// Kubernetes is what is missing, and nothing else.
	w.eventually(30*time.Second, "check-status names what is missing", func() error {
		p := w.start(w.storeHost, nil, "kube-controllers", "check-status", "-r", "-f", status)
		<-p.done
		if out := p.log.String(); !strings.Contains(out, "KubeAPIServer: ") || strings.Contains(out, "CalicoDatastore") || p.ProcessState.ExitCode() == 0 {
			return fmt.Errorf("it ends with %d and says %q", p.ProcessState.ExitCode(), out)
		}
		return nil
	})
	return neighbour
}

// scrapesControllers reports whether a machine gets the controllers' metrics.
func scrapesControllers(from *lab.Machine) bool {
	code, body := get(from, "http://"+controllersAddr+":9094/metrics")
	return code == http.StatusOK && strings.Contains(body, "\nmargay_controllers_leader 0\n")
}
