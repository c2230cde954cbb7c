package demo

import "slices"

// intro draws the hosts.
const intro = `
Every host is a network namespace of this machine, every cable a veth pair. Each of
the guide's two hosts runs a real agent that serves its own metrics on 9091, and all
follow one store. The manifests are the guide's (lab/demo/guide).

               kubeadm-master 10.100.0.15     kubeadm-node-0 10.100.0.16
               margay node                    margay node
                      | eth0                         | eth0
   +------------------+------------------------------+------------------+
   |                               switch                               |
   +---+---------------+---------------+---------------+------------+---+
       |               |               |               |            |
     store         stranger      prometheus-0          management subnets
  10.100.0.10     10.100.0.66     10.100.0.20    172.15.0.101   172.101.0.7
  margay store                                   172.15.0.102

After each step everybody tries everything, at once: 22 is a failsafe port, 80 and
8080 are ordinary ones, and a scrape of 9091 by HTTP must yield the metrics of that
very host. "yes" is an answer, "no" is silence for a second. What the two hosts can
reach is tried too. A step is done when all is as expected twice in a row. Commands
run on the store's host, with a configuration file that names the store.`

// The approaches of the guide are directories of guide.
const (
	denyList  = "deny-list"
	allowList = "allow-list"
)

// everyone is every client, by the names that the table uses.
func everyone() []string { return []string{stranger, prometheus, mgmt101, mgmt102, mgmtOther} }

// A want is what should be reachable, the same for both hosts.
type want struct {
	// ordinary: ports 80 and 8080 of the hosts answer, and the hosts reach such ports of others. Failsafe ports always do.
	ordinary bool
	scrapers []string // who reaches 9091
}

// in reports whether a port of the hosts should answer a client.
func (w want) in(client string, port uint16) bool {
	switch port {
	case portSSH:
		return true
	case portMetrics:
		return slices.Contains(w.scrapers, client)
	}
	return w.ordinary
}

// A step is what the reader of the guide does, and what should be reachable then.
type step struct {
	section  string // heading of a part that begins here
	title    string
	dir      string     // of the manifests
	commands [][]string // arguments of margay
	want     *want      // nil: nothing changes, nothing is checked
}

// script is the guide, step by step. Commands are the guide's, but for kubectl: a host has labels of its own.
func script() []step {
	return slices.Concat(
		[]step{{section: "Before", title: "Nothing is filtered: no host endpoint exists", want: allOpen()}},
		denySteps(), allowSteps())
}

func allOpen() *want                  { return &want{true, everyone()} }
func denied(except ...string) *want   { return &want{true, except} }
func failsafe(except ...string) *want { return &want{false, except} }

func denySteps() []step {
	return []step{
		{section: "Using a deny-list approach", title: "1. Create a default network policy to allow host traffic",
			dir: denyList, commands: apply("default-host-policy.yaml"), want: allOpen()},
		{title: "2. List the nodes on which Calico is running",
			dir: denyList, commands: [][]string{{"get", "nodes"}}},
		{title: "3. Create host endpoints for each Calico node: everything is reachable as before",
			dir: denyList, commands: apply("host-endpoints.yaml"), want: allOpen()},
		{title: "4. Restrict access to the Prometheus metrics port: 9091 is closed, nothing else is",
			dir: denyList, commands: apply("calico-prometheus-policy.yaml"), want: denied()},
		{title: "5. Grant access to the management subnets, by a global network set",
			dir: denyList, commands: apply("calico-prometheus-set.yaml"), want: denied(mgmt101, mgmt102, mgmtOther)},
		{title: "   Grant access to an endpoint, by a label",
			dir: denyList, commands: append(apply("prometheus-0.yaml"), addLabel()), want: denied(mgmt101, mgmt102, mgmtOther, prometheus)},
		{title: "   Take the label away: closed at once",
			dir: denyList, commands: [][]string{removeLabel()}, want: denied(mgmt101, mgmt102, mgmtOther)},
		{title: "   Take the set away",
			dir: denyList, commands: [][]string{removeSet()}, want: denied()},
		{title: "   Typha, a slip of the guide: this policy bears the name of step 4's and replaces it",
			dir: denyList, commands: apply("typha-prometheus-policy.yaml"), want: allOpen()},
		{title: "   Clean up, endpoints first: without policy they would deny",
			dir: denyList, commands: [][]string{
				{"delete", "-f", "host-endpoints.yaml"},
				{"delete", "-f", "typha-prometheus-policy.yaml"},
				{"delete", "-f", "default-host-policy.yaml"},
			}, want: allOpen()},
	}
}

func allowSteps() []step {
	return []step{
		{section: "Using an allow-list approach", title: "1. List the nodes on which Calico is running",
			dir: allowList, commands: [][]string{{"get", "nodes"}}},
		{title: "2. Create host endpoints for each Calico node: only failsafe ports answer, in and out",
			dir: allowList, commands: apply("host-endpoints.yaml"), want: failsafe()},
		{title: "3. Allow labelled sources to the Prometheus metrics port: nobody has the label yet",
			dir: allowList, commands: apply("calico-prometheus-policy.yaml"), want: failsafe()},
		{title: "4. Grant access to an endpoint, by a label",
			dir: allowList, commands: [][]string{addLabel()}, want: failsafe(prometheus)},
		{title: "   Grant access to one address, by a global network set",
			dir: allowList, commands: apply("calico-prometheus-set.yaml"), want: failsafe(prometheus, mgmt101)},
		{title: "   Take the label away",
			dir: allowList, commands: [][]string{removeLabel()}, want: failsafe(mgmt101)},
		{title: "   Take the set away",
			dir: allowList, commands: [][]string{removeSet()}, want: failsafe()},
		{title: "   Clean up: everything is reachable as before",
			dir: allowList, commands: [][]string{
				{"delete", "-f", "host-endpoints.yaml"},
				{"delete", "-f", "calico-prometheus-policy.yaml"},
				{"delete", "hostendpoint", "prometheus-0.eth0"},
			}, want: allOpen()},
	}
}

func apply(file string) [][]string { return [][]string{{"apply", "-f", file}} }

func addLabel() []string {
	return []string{"label", "hostendpoint", "prometheus-0.eth0", "calico-prometheus-access=true"}
}

func removeLabel() []string {
	return []string{"label", "hostendpoint", "prometheus-0.eth0", "calico-prometheus-access", "--remove"}
}

func removeSet() []string { return []string{"delete", "globalnetworkset", "calico-prometheus-set"} }
