package kubernetes_test

import (
	"errors"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	v3 "margay/api/v3"
	"margay/store"
	"margay/store/etcd"
)

// TestWays goes through the same situations with agents that get them in other ways: nobody may see in packets which way it
// was. What Kubernetes has comes to etcd by kube-controllers; ClusterNetworkPolicy does not (as with the incumbent).
//
//	API server -------------------------> agent
//	API server -> typha ----------------> agent
//	API server -> kube-controllers -> etcd ----------> agent
//	API server -> kube-controllers -> etcd -> typha -> agent
func TestWays(t *testing.T) {
	c := newConformance(t)
	c.quick = true
	etcdEnv := c.startEtcd()
	for _, way := range []struct {
		name       string
		etcd, fans bool
	}{{"the API server", false, false}, {"typha", false, true}, {"etcd", true, false}, {"typha on etcd", true, true}} {
		t.Run(strings.ReplaceAll(way.name, " ", "-"), func(t *testing.T) {
			env, list := c.kubernetesEnv(), append(c.slowOrFast(way.fans || way.etcd), calicoSituations()...)
			c.policies = c.store
			if way.etcd {
				env, c.policies = etcdEnv, c.etcd
			} else {
				list = append(list, clusterSituations()[1], clusterSituations()[3])
			}
			stop := c.startWay(t, env, way.fans)
			defer stop()
			for _, s := range list {
				t.Run(strings.ReplaceAll(s.name, " ", "-"), func(t *testing.T) { c.run(t, s) })
			}
			t.Logf("%d steps, %d cells of which %d are open", c.count.steps, c.count.cells, c.count.open)
			c.count.steps, c.count.cells, c.count.open = 0, 0, 0
		})
	}
}

// slowOrFast returns those situations in which something different has to come a long way; none for the way of
// TestNetworkPolicies, which goes through all.
func (c *conformance) slowOrFast(other bool) []situation {
	var list []situation
	for _, s := range situations() {
		if other && slices.Contains([]string{
			"default deny both", "types follow from the rules", "match expressions", "namespace and pod selector in one peer are both asked for",
			"both ends have their say", "a range of ports", "a named port is each pod's own", "sctp", "from a block but for a part", "both families", "to pods",
			"labels of a pod change", "labels of a namespace change", "a finished pod's address is another one's",
		}, s.name) {
			list = append(list, s)
		}
	}
	return list
}

// startEtcd starts a datastore on etcd and what brings Kubernetes' objects to it, and returns what clients need to know.
func (c *conformance) startEtcd() []string {
	c.Helper()
	socket := filepath.Join(c.dir, "store.sock")
	c.start(&c.master.Machine, nil, "store", "--dir", filepath.Join(c.dir, "datastore"), "--socket", socket, "--listen", masterAddr+":2379")
	eventually(c, "the datastore", func() bool {
		s, err := etcd.Open(c.Context(), etcd.Config{Endpoints: []string{"unix://" + socket}})
		if err != nil || s.Initialise(c.Context()) != nil {
			return false
		}
		c.etcd = s
		return true
	})
	c.Cleanup(func() { c.etcd.Close() })
	c.startControllers(c.master, "DATASTORE_TYPE=etcdv3", "ETCD_ENDPOINTS=http://"+masterAddr+":2379", "AUTO_HOST_ENDPOINTS=disabled")
	return []string{"FELIX_DATASTORETYPE=etcdv3", "TYPHA_DATASTORETYPE=etcdv3", "ETCD_ENDPOINTS=http://" + masterAddr + ":2379"}
}

// startWay starts the agents, behind typha if it fans out, and returns what stops them. Rules in the kernel stay, as with
// any agent that stops.
func (c *conformance) startWay(t *testing.T, env []string, fans bool) (stop func()) {
	t.Helper()
	var running []*process
	if fans {
		running = append(running, c.start(&c.master.Machine, env, "typha"))
		env = []string{"FELIX_TYPHAADDR=" + masterAddr + ":5473"}
	}
	for _, name := range []string{"node-1", "node-2"} {
		running = append(running, c.startAgentOn(c.machines[name], name, env...))
	}
	return func() {
		for _, p := range running {
			p.kill()
		}
	}
}

// applyResource writes a manifest to the datastore of the agents, and takes it away again after the situation.
func (c *conformance) applyResource(text string) {
	c.Helper()
	manifest := c.read(text)
	manifest["apiVersion"] = v3.APIVersion
	encoded, err := encode(manifest)
	if err != nil {
		c.Fatal(err)
	}
	docs, err := v3.Decode("situation", encoded)
	if err != nil {
		c.Fatal(err)
	}
	r := docs[0].Object
	old, err := c.policies.Get(c.Context(), v3.KeyOf(r))
	switch {
	case errors.Is(err, store.ErrNotFound):
		_, err = c.policies.Create(c.Context(), r)
		c.undo = append(c.undo, func() {
			if _, err := c.policies.Delete(c.Context(), v3.KeyOf(r), ""); err != nil {
				c.Error(err)
			}
		})
	case err == nil:
		r.SetResourceVersion(old.GetResourceVersion())
		_, err = c.policies.Update(c.Context(), r)
	}
	if err != nil {
		c.Fatal(err)
	}
}
