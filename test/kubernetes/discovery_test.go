package kubernetes_test

import (
	"context"
	"io"
	"net"
	"net/http"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"margay/lab"
)

// typhaSlice is what Kubernetes makes of the service of typha and its pods; a pod whose address begins with - is not ready.
func typhaSlice(name string, port int, endpoints map[string]string) object {
	var list []any
	for addr, node := range endpoints {
		bare, unready := strings.CutPrefix(addr, "-")
		list = append(list, object{"addresses": []any{bare}, "nodeName": node, "conditions": object{"ready": !unready}})
	}
	return object{"apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "addressType": "IPv4",
		"metadata":  object{"name": name, "namespace": "kube-system", "labels": object{"kubernetes.io/service-name": "calico-typha"}},
		"endpoints": list, "ports": []any{object{"name": "metrics", "port": 9093}, object{"name": "calico-typha", "port": port}}}
}

// applySlice does what the controller of EndpointSlices does.
func applySlice(w *world, slice object) {
	w.Helper()
	name := slice["metadata"].(object)["name"].(string)
	do(w, w.cluster, http.MethodPatch, "/apis/discovery.k8s.io/v1/namespaces/kube-system/endpointslices/"+name+"?fieldManager=test&force=true", slice)
}

// A forwarder passes on connections to a port of its host.
type forwarder struct {
	mu    sync.Mutex
	conns []net.Conn
}

func forward(t testing.TB, on *lab.Host, from, to string) *forwarder {
	t.Helper()
	l, err := on.Listen("tcp", from)
	if err != nil {
		t.Fatal(err)
	}
	f := &forwarder{}
	t.Cleanup(func() { l.Close(); f.cut() })
	go func() {
		for {
			in, err := l.Accept()
			if err != nil {
				return // closed
			}
			out, err := on.Dial(context.Background(), "tcp", to)
			if err != nil {
				in.Close()
				continue
			}
			f.mu.Lock()
			f.conns = append(f.conns, in, out)
			f.mu.Unlock()
			go func() { _, _ = io.Copy(in, out); in.Close() }()
			go func() { _, _ = io.Copy(out, in); out.Close() }()
		}
	}()
	return f
}

// cut ends all connections.
func (f *forwarder) cut() {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, c := range f.conns {
		c.Close()
	}
	f.conns = nil
}

// gauge reads a metric of typha on a host, -1 if there is none.
func gauge(from *lab.Host, addr, name string) float64 {
	resp, err := from.HTTPClient(5 * time.Second).Get("http://" + addr + ":9093/metrics")
	if err != nil {
		return -1
	}
	defer resp.Body.Close()
	text, _ := io.ReadAll(resp.Body)
	match := regexp.MustCompile(`(?m)^` + name + `(?:\{[^}]*\})? ([0-9.e+]+)$`).FindSubmatch(text)
	if match == nil {
		return -1
	}
	v, _ := strconv.ParseFloat(string(match[1]), 64)
	return v
}

// TestTyphaDiscovery: an agent finds typha by the endpoints of its service, those of its own node first, only ready ones; it
// finds another one when the one it had is gone, also while the API server is away; typha counts its like.
func TestTyphaDiscovery(t *testing.T) {
	w := newWorld(t)
	env := append(w.kubernetesEnv(), "TYPHA_DATASTORETYPE=kubernetes", "TYPHA_PROMETHEUSMETRICSENABLED=true", "TYPHA_HEALTHENABLED=true",
		"TYPHA_CONNECTIONREBALANCINGMODE=kubernetes", "TYPHA_K8SSERVICEPOLLINTERVALSECS=0.2", "TYPHA_SHUTDOWNTIMEOUTSECS=1",
		"TYPHA_MAXCONNECTIONSLOWERLIMIT=1", "TYPHA_MAXCONNECTIONSUPPERLIMIT=77")
	near := w.start(&w.other.Machine, env, "typha")
	w.start(&w.pod.Machine, env, "typha")
	clients := func(addr string) float64 { return gauge(w.master, addr, "typha_connections_streaming") }
	eventually(t, "both are up", func() bool { return clients(podAddr) == 0 && clients(otherAddr) == 0 })
	// A slice of a service of another name, and a pod that is not ready, must not be asked.
	way := forward(t, w.pod, ":5474", "127.0.0.1:5473")
	applySlice(w, typhaSlice("typha-1", 5473, map[string]string{otherAddr: "node-1", "-" + masterAddr: "node-1"}))
	applySlice(w, typhaSlice("typha-2", 5474, map[string]string{podAddr: "node-2"}))
	decoy := typhaSlice("decoy", 5473, map[string]string{masterAddr: "node-1"})
	decoy["metadata"].(object)["labels"] = object{"kubernetes.io/service-name": "other"}
	applySlice(w, decoy)

	w.startAgentOn(&w.node.Machine, "node-1", "KUBECONFIG="+w.cluster.Kubeconfig(), "FELIX_TYPHAK8SSERVICENAME=calico-typha")
	eventually(t, "the agent is with the typha of its node", func() bool { return clients(otherAddr) == 1 && clients(podAddr) == 0 })
	// Two nodes; three instances of which one is not ready: 1 + 1.2 x nodes / 2.
	limit := func(n string) func() bool {
		return func() bool { return strings.Contains(near.log.String(), "limit="+n+" instances=3") }
	}
	eventually(t, "typha knows how many there are", limit("1"))
	makeNode(t, w.cluster, "node-2", "172.15.0.101")
	makeNode(t, w.cluster, "node-3", "172.15.0.102")
	eventually(t, "typha's share of three nodes", limit("2"))

	// The first one goes: the agent is with the other one.
	near.kill()
	applySlice(w, typhaSlice("typha-1", 5473, nil))
	eventually(t, "the agent is with the other typha", func() bool { return clients(podAddr) == 1 })
	if out, err := w.margay(guide, "apply", "-f", "-"); err != nil {
		t.Fatalf("apply: %v\n%s", err, out)
	}
	eventually(t, "policy is in force", func() bool { return !w.scrapes(w.pod) })

	// The API server is away, and typha's connections break: what was found before still counts.
	w.cluster.StopServer()
	accepted := func() float64 { return gauge(w.master, podAddr, "typha_connections_accepted") }
	before := accepted()
	way.cut()
	eventually(t, "the agent is with typha again", func() bool { return accepted() > before && clients(podAddr) == 1 })
	if err := w.cluster.StartServer(t.Context()); err != nil {
		t.Fatal(err)
	}
}
