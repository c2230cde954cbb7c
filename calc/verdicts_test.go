package calc

import (
	"net/netip"
	"strconv"
	"strings"
	"testing"

	v3 "margay/api/v3"
	"margay/ruleset"
)

// others are what rules of TestVerdicts may mean: a pod and a set in namespace red, a pod in blue, a host, nets.
const others = `kind: HostEndpoint
metadata: {name: ep, labels: {app: self}}
spec: {node: kubeadm-master, interfaceName: eth0, expectedIPs: [10.100.0.15, "fd64::15"],
  ports: [{name: http, protocol: TCP, port: 8080}, {name: sig, protocol: SCTP, port: 3868}, {name: sig, protocol: UDP, port: 3869}]}
---
kind: WorkloadEndpoint
metadata: {name: r, namespace: red, labels: {app: web}}
spec: {node: other, orchestrator: k8s, serviceAccountName: robot, ipNetworks: [10.1.0.1/32, "fd01::1/128"], profiles: [kns.red, ksa.red.robot],
  ports: [{name: http, protocol: TCP, port: 8000}]}
---
kind: WorkloadEndpoint
metadata: {name: b, namespace: blue, labels: {app: web}}
spec: {node: other, orchestrator: k8s, serviceAccountName: robot, ipNetworks: [10.1.0.2/32], profiles: [kns.blue]}
---
kind: HostEndpoint
metadata: {name: h1, labels: {app: host}}
spec: {node: other, interfaceName: eth0, expectedIPs: [10.100.0.16]}
---
kind: HostEndpoint
metadata: {name: unaddressed, labels: {app: host}}
spec: {node: other, interfaceName: eth1}
---
kind: NetworkSet
metadata: {name: s1, namespace: red, labels: {app: net}}
spec: {nets: [172.16.0.0/16]}
---
kind: GlobalNetworkSet
metadata: {name: g1, labels: {app: net, projectcalico.org/serviceaccount: robot}}
spec: {nets: [172.17.0.0/16, "fd17::/16"]}
---
kind: GlobalNetworkSet
metadata: {name: everything, labels: {app: any}}
spec: {nets: [0.0.0.0/0]}
---
kind: Profile
metadata: {name: kns.red}
spec: {labelsToApply: {pcns.env: prod, pcns.projectcalico.org/name: red}}
---
kind: Profile
metadata: {name: kns.blue}
spec: {labelsToApply: {pcns.env: test, pcns.projectcalico.org/name: blue}}
---
kind: Profile
metadata: {name: ksa.red.robot}
spec: {labelsToApply: {pcsa.role: scraper}}
`

// scraped reads "SCTP 10.1.0.1:1000 3868": protocol, source and, if it matters, its port, port of this host. The protocol
// may be ICMP, with its type in place of the port, or a number.
func scraped(t *testing.T, text string) *ruleset.Packet {
	t.Helper()
	words := strings.Fields(text)
	number, ok := v3.Protocol(words[0]).Number()
	p := &ruleset.Packet{In: "eth0", Protocol: number, Dst: addr("10.100.0.15"), SrcPort: 40000}
	if ap, err := netip.ParseAddrPort(words[1]); err == nil {
		p.Src, p.SrcPort = ap.Addr(), ap.Port()
	} else {
		p.Src = addr(words[1])
	}
	if p.Src.Is6() {
		p.Dst = addr("fd64::15")
	}
	n, err := strconv.ParseUint(words[2], 10, 16)
	switch {
	case !ok || err != nil:
		t.Fatalf("%q is no packet: %v", text, err)
	case ruleset.HasPorts(number):
		p.DstPort = uint16(n)
	default:
		p.SrcPort, p.ICMPType = 0, uint8(n)
	}
	return p
}

// TestVerdicts has what fields of a rule mean together, from the manifest to the verdict: for one Allow rule, which packets
// to the host pass and which do not. The rows are what a user may write: what is checked of a manifest accepts them.
func TestVerdicts(t *testing.T) {
	tests := []struct{ name, rule, pass, deny string }{
		// Ports.
		{"named and numeric are alternatives", `protocol: TCP, destination: {ports: [http, 80]}`, "TCP 1.1.1.1 80; TCP 1.1.1.1 8080", "TCP 1.1.1.1 81; UDP 1.1.1.1 8080"},
		{"a named port is one of its protocol", `protocol: SCTP, destination: {ports: [sig]}`, "SCTP 1.1.1.1 3868", "SCTP 1.1.1.1 3869; UDP 1.1.1.1 3869; TCP 1.1.1.1 3868"},
		{"a named port of any protocol", `destination: {ports: [sig]}`, "SCTP 1.1.1.1 3868; UDP 1.1.1.1 3869; SCTP fd99::1 3868", "UDP 1.1.1.1 3868; SCTP 1.1.1.1 3869; ICMP 1.1.1.1 8"},
		{"named notPorts win over numbers", `protocol: TCP, destination: {ports: ["8000:9000"], notPorts: [http]}`, "TCP 1.1.1.1 8000; TCP 1.1.1.1 9000", "TCP 1.1.1.1 8080; TCP 1.1.1.1 80"},
		{"numeric notPorts win over names", `protocol: TCP, destination: {ports: [http], notPorts: ["8080:8081"]}`, "", "TCP 1.1.1.1 8080"},
		{"named notPorts of any protocol", `destination: {notPorts: [sig, http]}`, "TCP 1.1.1.1 80; UDP 1.1.1.1 3868; ICMP 1.1.1.1 8", "SCTP 1.1.1.1 3868; UDP 1.1.1.1 3869; TCP 1.1.1.1 8080"},
		{"a named port that nobody declares", `protocol: TCP, destination: {ports: [gone]}`, "", "TCP 1.1.1.1 8080; TCP 1.1.1.1 80"},
		{"not a named port that nobody declares", `protocol: TCP, destination: {notPorts: [gone]}`, "TCP 1.1.1.1 8080", "UDP 1.1.1.1 80"},
		{"a named port is of what the selector selects", `protocol: TCP, destination: {selector: app == "web", ports: [http]}`, "", "TCP 1.1.1.1 8080; TCP 1.1.1.1 8000"},
		{"a named port of the source", `protocol: TCP, source: {ports: [http]}`, "TCP 10.1.0.1:8000 80", "TCP 10.1.0.1:8001 80; TCP 10.1.0.2:8000 80; TCP 1.1.1.1:8000 80"},
		{"notSelector beside a named port", `protocol: TCP, source: {notSelector: app == "web"}, destination: {notSelector: has(gone), ports: [http]}`, "TCP 1.1.1.1 8080", "TCP 10.1.0.1 8080; TCP 1.1.1.1 80"},

		// Protocols.
		{"SCTP by number", `protocol: 132, destination: {ports: [7]}`, "SCTP 1.1.1.1 7", "TCP 1.1.1.1 7; UDPLite 1.1.1.1 7"},
		{"UDPLite", `protocol: UDPLite`, "UDPLite 1.1.1.1 7", "UDP 1.1.1.1 7"},
		{"another protocol", `protocol: 47`, "47 1.1.1.1 0; 47 fd99::1 0", "TCP 1.1.1.1 47"},
		{"notProtocol ICMP, version 4", `ipVersion: 4, notProtocol: ICMP`, "TCP 1.1.1.1 7; 47 1.1.1.1 0", "ICMP 1.1.1.1 8; TCP fd99::1 7"},
		{"notProtocol ICMPv6, version 6", `ipVersion: 6, notProtocol: ICMPv6`, "TCP fd99::1 7", "ICMPv6 fd99::1 128; TCP 1.1.1.1 7"},
		{"notProtocol beside protocol", `protocol: TCP, notProtocol: UDP`, "TCP 1.1.1.1 7", "UDP 1.1.1.1 7"},
		{"notICMP", `protocol: ICMP, ipVersion: 4, notICMP: {type: 8}`, "ICMP 1.1.1.1 13", "ICMP 1.1.1.1 8; TCP 1.1.1.1 7"},
		{"icmp beside notICMP", `protocol: ICMPv6, ipVersion: 6, icmp: {type: 128}, notICMP: {type: 128, code: 1}`, "ICMPv6 fd99::1 128", "ICMPv6 fd99::1 129; ICMP 1.1.1.1 8"},

		// Families and nets.
		{"ipVersion", `ipVersion: 6`, "TCP fd99::1 7", "TCP 1.1.1.1 7"},
		{"0.0.0.0/0 is IPv4", `source: {nets: [0.0.0.0/0]}`, "TCP 1.1.1.1 7", "TCP fd99::1 7"},
		{"::/0 is IPv6", `source: {nets: ["::/0"]}`, "TCP fd99::1 7", "TCP 1.1.1.1 7"},
		{"::/0 but", `source: {nets: ["::/0"], notNets: ["fd99::/16"]}`, "TCP fd98::1 7", "TCP fd99::1 7; TCP 1.1.1.1 7"},
		{"halves in notNets", `source: {notNets: [0.0.0.0/1, 128.0.0.0/1]}`, "TCP fd99::1 7", "TCP 1.1.1.1 7; TCP 200.1.1.1 7"},
		{"notNets exclude nothing of the other version", `source: {notNets: [1.0.0.0/8]}`, "TCP fd99::1 7; TCP 2.1.1.1 7", "TCP 1.1.1.1 7"},
		{"notNets of the destination", `destination: {notNets: ["fd64::/16"]}`, "TCP 1.1.1.1 7", "TCP fd99::1 7"},
		{"nets and a selector", `source: {nets: [10.1.0.0/24], selector: app == "web", notNets: [10.1.0.2/32]}`, "TCP 10.1.0.1 7", "TCP 10.1.0.2 7; TCP 10.1.0.3 7; TCP fd01::1 7"},
		{"a set of /0", `source: {selector: app == "any"}`, "TCP 1.1.1.1 7; TCP 10.1.0.1 7", "TCP fd99::1 7"},
		{"a set of /0, not", `source: {notSelector: app == "any"}`, "TCP fd99::1 7", "TCP 1.1.1.1 7"},

		// Selectors.
		{"an empty selector", `source: {selector: ""}`, "TCP 1.1.1.1 7; TCP fd99::1 7", ""},
		{"all() is what is known", `source: {selector: all()}`, "TCP fd17::9 7; TCP fd01::1 7; TCP fd64::15 7", "TCP fd99::1 7"},
		{"!=, and labels that are not there", `source: {selector: app != "web" && app != "any"}`, "TCP 10.100.0.16 7; TCP 172.17.0.1 7; TCP 10.100.0.15 7", "TCP 10.1.0.1 7; TCP 1.1.1.1 7"},
		{"in nothing", `source: {selector: "app in {}"}`, "", "TCP 10.1.0.1 7; TCP 1.1.1.1 7"},
		{"not selected by in nothing", `source: {notSelector: "app in {}"}`, "TCP 10.1.0.1 7; TCP 1.1.1.1 7", ""},
		{"notSelector all()", `source: {notSelector: all()}`, "TCP fd99::1 7", "TCP 10.1.0.1 7; TCP 1.1.1.1 7"},
		{"a host endpoint without an address", `source: {selector: app == "host"}`, "TCP 10.100.0.16 7", "TCP 10.1.0.1 7; TCP 1.1.1.1 7"},

		// Namespaces and service accounts.
		{"global() is what has no namespace", `source: {namespaceSelector: global(), selector: 'app in {"net", "host", "web"}'}`, "TCP 172.17.0.1 7; TCP 10.100.0.16 7", "TCP 172.16.0.1 7; TCP 10.1.0.1 7"},
		{"global() but", `source: {namespaceSelector: global(), notSelector: app == "net"}`, "TCP 10.100.0.16 7; TCP fd64::15 7", "TCP 172.17.0.1 7; TCP fd17::1 7; TCP fd01::1 7; TCP fd99::1 7"},
		{"all() is what has one", `source: {namespaceSelector: all()}`, "TCP 172.16.0.1 7; TCP 10.1.0.1 7; TCP 10.1.0.2 7", "TCP 172.17.0.1 7; TCP 10.100.0.16 7; TCP 1.1.1.1 7"},
		{"by the name of the namespace", `source: {namespaceSelector: projectcalico.org/name == "red"}`, "TCP 172.16.0.1 7; TCP 10.1.0.1 7; TCP fd01::1 7", "TCP 10.1.0.2 7; TCP 172.17.0.1 7"},
		{"not another namespace is no namespace, too", `source: {namespaceSelector: env != "prod", selector: app != "any"}`, "TCP 10.1.0.2 7; TCP 10.100.0.16 7; TCP fd17::1 7", "TCP 10.1.0.1 7; TCP 172.16.0.1 7; TCP fd99::1 7"},
		{"names of service accounts, in any namespace", `source: {serviceAccounts: {names: [robot]}}`, "TCP 10.1.0.1 7; TCP 10.1.0.2 7; TCP 172.17.0.1 7", "TCP 10.100.0.16 7; TCP 1.1.1.1 7"},
		{"names of service accounts, in one", `source: {namespaceSelector: env == "prod", serviceAccounts: {names: [robot]}}`, "TCP 10.1.0.1 7", "TCP 10.1.0.2 7; TCP 172.16.0.1 7"},
		{"labels of service accounts", `source: {serviceAccounts: {selector: role == "scraper"}}`, "TCP 10.1.0.1 7", "TCP 10.1.0.2 7; TCP 172.17.0.1 7"},
		{"service accounts, selector and notSelector", `source: {serviceAccounts: {names: [robot, other]}, selector: app == "web", notSelector: projectcalico.org/namespace == "blue"}`, "TCP 10.1.0.1 7", "TCP 10.1.0.2 7; TCP 172.17.0.1 7"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			policy := gnp("p", "{action: Allow, "+test.rule+"}")
			policy = strings.Replace(policy, "spec: {", "spec: {selector: app == 'self', ", 1)
			if err := v3.Validate(parse(t, policy)[0]); err != nil {
				t.Errorf("nobody can write this: %v", err)
			}
			w := newWorld(t).apply(others, policy)
			for i, list := range []string{test.pass, test.deny} {
				for _, text := range strings.FieldsFunc(list, func(r rune) bool { return r == ';' }) {
					if v := w.fake.Verdict(scraped(t, text)); v.Allowed != (i == 0) {
						t.Errorf("%s: %+v", text, v)
					}
				}
			}
		})
	}
}
