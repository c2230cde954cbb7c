package kubernetes_test

import (
	"encoding/json"
	"net/http"
	"net/netip"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	v3 "margay/api/v3"
	"margay/lab"
	"margay/store"
	"margay/store/kube"
)

// An event is as much of an Event as these tests look at.
type event struct {
	Metadata              struct{ Name string }
	InvolvedObject        struct{ Kind, Name string }
	Type, Reason, Message string
	Source                struct{ Component, Host string }
	Count                 int
	FirstTimestamp        time.Time
	LastTimestamp         time.Time
}

// eventsOf returns what kubectl describe shows of an object: the Events that have its uid.
func eventsOf(t testing.TB, w *world, path string) []event {
	t.Helper()
	var object struct {
		Metadata struct {
			UID string `json:"uid"`
		} `json:"metadata"`
	}
	if err := json.Unmarshal(do(t, w.cluster, http.MethodGet, path, nil), &object); err != nil {
		t.Fatal(err)
	}
	query := url.Values{"fieldSelector": {"involvedObject.uid=" + object.Metadata.UID}}
	return events(t, w, query.Encode())
}

// events returns what there is by a query.
func events(t testing.TB, w *world, query string) []event {
	t.Helper()
	var list struct{ Items []event }
	if err := json.Unmarshal(do(t, w.cluster, http.MethodGet, "/api/v1/events?"+query, nil), &list); err != nil {
		t.Fatal(err)
	}
	return list.Items
}

// defects are the guide's, as somebody applies them with kubectl who never sees a word of margay.
const defects = `
apiVersion: projectcalico.org/v3
kind: HostEndpoint
metadata: {name: node-1.eth0, labels: {running-calico: "true"}}
spec: {node: node-1, interfaceName: eth0, expectedIPs: [172.15.0.100]}
---
apiVersion: projectcalico.org/v3
kind: IPPool
metadata: {name: pods}
spec: {cidr: 10.65.0.0/16, natOutgoing: true}
---
apiVersion: projectcalico.org/v3
kind: GlobalNetworkPolicy
metadata: {name: restrict}
spec:
  selector: running-calico == "true"
  order: 500
  types: [Ingress]
  ingress:
  - {action: Allow, protocol: TCP, source: {selector: calico-prometheus-access == "true"}, destination: {ports: [9091]}}
---
apiVersion: projectcalico.org/v3
kind: NetworkPolicy
metadata: {name: controllers, namespace: default}
spec:
  selector: app == "web"
  types: [Ingress]
  ingress:
  - {action: Deny, protocol: TCP, source: {notSelector: calico-prometheus-access == "true"}, destination: {ports: [9094]}}
`

// kubectlApply does what kubectl apply --server-side does with manifests of projectcalico.org/v3.
func kubectlApply(t testing.TB, w *world, manifests string) {
	t.Helper()
	docs, err := v3.Decode("manifests", []byte(manifests))
	if err != nil {
		t.Fatal(err)
	}
	texts := strings.Split(manifests, "\n---\n")
	for i, d := range docs {
		key := v3.KeyOf(d.Object)
		info, _ := v3.Lookup(key.Kind)
		path := "/apis/projectcalico.org/v3/"
		if info.Namespaced {
			path += "namespaces/" + key.Namespace + "/"
		}
		if _, err := w.cluster.Do(t.Context(), http.MethodPatch, path+info.Plural+"/"+key.Name+"?fieldManager=kubectl&force=true", []byte(texts[i])); err != nil {
			t.Fatal(err)
		}
	}
}

// TestEvents: every defect of the guide is an Event of the object that has it, written by the one instance that leads; nobody
// but the controllers writes Events, and a second instance goes on where the first was.
func TestEvents(t *testing.T) {
	w := newWorld(t)
	pod, err := w.node.Pod("web", lab.Cable{Interface: "podweb", Addrs: []netip.Addr{netip.MustParseAddr("10.65.1.9")}})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = pod.Remove() }()
	if err := w.node.AddInterface("eth1", netip.MustParsePrefix("172.16.0.100/24")); err != nil {
		t.Fatal(err)
	}
	label := object{"calico-prometheus-access": "true"}
	podOn(t, w.cluster, podSpec{namespace: "default", name: "web", node: "node-1", ip: "10.65.1.9", labels: object{"app": "web"}})
	podOn(t, w.cluster, podSpec{namespace: "default", name: "scraper", node: "node-2", ip: "10.65.2.9", labels: label})
	podOn(t, w.cluster, podSpec{namespace: "default", name: "host-scraper", node: "node-1", ip: nodeAddr, hostNetwork: true, labels: label})
	w.startAgent()
	first := w.startControllers(w.master, "DATASTORE_TYPE=kubernetes", "AUTO_HOST_ENDPOINTS=disabled")
	kubectlApply(t, w, defects)

	const v3API = "/apis/projectcalico.org/v3/"
	restrict, controllers := v3API+"globalnetworkpolicies/restrict", v3API+"namespaces/default/networkpolicies/controllers"
	endpoint := v3API + "hostendpoints/node-1.eth0"
	shown := func(path, part string) {
		t.Helper()
		eventually(t, "an Event of "+path+" says "+part, func() bool {
			for _, e := range eventsOf(t, w, path) {
				if strings.Contains(e.Message, part) {
					t.Logf("%s %s %s/%s: %s", e.Type, e.Reason, e.InvolvedObject.Kind, e.InvolvedObject.Name, e.Message)
					return e.Type == "Warning" && e.Reason == "PolicyWarning" && e.Source.Host == "node-1" && e.Count > 0
				}
			}
			return false
		})
	}
	shown(controllers, "only Deny")                       // G2
	shown(controllers, "without a namespaceSelector")     // G3
	shown(endpoint, "no policy applies to egress")        // G4
	shown(restrict, "default/host-scraper has the label") // G5
	shown(endpoint, "eth1")                               // G6
	shown(restrict, "natOutgoing")                        // G7
	kubectlApply(t, w, replacement)                       // G1
	shown(restrict, "took the place of another policy of its name")

	// What the agent cannot use, and the API server cannot know: the selector.
	do(t, w.cluster, http.MethodPatch, v3API+"globalnetworkpolicies/restrict", object{"spec": object{"selector": "running-calico = 'true'"}})
	eventually(t, "an Event says that the policy is not in force", func() bool {
		return slices.ContainsFunc(eventsOf(t, w, restrict), func(e event) bool {
			return e.Reason == "NotInForce" && strings.Contains(e.Message, "selector")
		})
	})

	// What is shown again by another instance is the same Event.
	before := map[string]int{}
	for _, e := range eventsOf(t, w, restrict) {
		before[e.Metadata.Name] = e.Count
	}
	first.kill()
	w.startControllers(w.other, "DATASTORE_TYPE=kubernetes", "AUTO_HOST_ENDPOINTS=disabled")
	eventually(t, "another instance shows it again", func() bool {
		for _, e := range eventsOf(t, w, restrict) {
			if count, known := before[e.Metadata.Name]; known && e.Count == count+1 && e.LastTimestamp.After(e.FirstTimestamp) {
				return true
			}
		}
		return false
	})
	for _, e := range events(t, w, "") {
		if e.Source.Component != "margay" || e.InvolvedObject.Name == "" {
			t.Errorf("an Event is %+v", e)
		}
	}
	if n := len(events(t, w, "")); n > 15 {
		t.Errorf("there are %d Events", n)
	}
}

// TestEventIsOver: what no longer holds is history, to which nothing is added when there is none; it may begin again.
func TestEventIsOver(t *testing.T) {
	c := empty(t)
	s, err := kube.Open(t.Context(), kube.Config{Kubeconfig: c.Kubeconfig()})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	do(t, c, http.MethodPost, "/api/v1/namespaces", namespace("trap"))
	n := store.Notice{Key: v3.Key{Kind: v3.KindProfile, Name: "kns.trap"}, ID: "i", Reason: "PolicyWarning", Text: "it is a trap", Node: "n"}
	over, other := n, n
	over.Over, other.Over, other.ID = true, true, "never shown"
	for i, step := range []struct {
		tell store.Notice
		want string
	}{
		{over, ""}, {n, "Warning it is a trap"}, {over, "Normal no agent says so any longer: it is a trap"}, {over, "Normal no agent says so any longer: it is a trap"},
		{other, "Normal no agent says so any longer: it is a trap"}, {n, "Warning it is a trap"},
	} {
		if err := s.Notify(t.Context(), step.tell); err != nil {
			t.Fatal(err)
		}
		var list struct{ Items []event }
		if err := json.Unmarshal(do(t, c, http.MethodGet, "/api/v1/events?fieldSelector=involvedObject.name=trap", nil), &list); err != nil {
			t.Fatal(err)
		}
		got := ""
		for _, e := range list.Items {
			got += e.Type + " " + e.Message
		}
		if got != step.want {
			t.Errorf("step %d: %q, want %q", i, got, step.want)
		}
	}
}

// replacement is how the guide's Typha step takes the name of the policy for 9091.
const replacement = `
apiVersion: projectcalico.org/v3
kind: GlobalNetworkPolicy
metadata: {name: restrict}
spec:
  selector: running-calico == "true"
  order: 500
  types: [Ingress]
  ingress:
  - {action: Allow, protocol: TCP, source: {selector: calico-prometheus-access == "true"}, destination: {ports: [9093]}}
`
