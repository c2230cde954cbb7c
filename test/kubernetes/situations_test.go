package kubernetes_test

// closedX is namespace x without anything that comes in; from the nodes of its pods all is open all the same.
const closedX = `* > x/*: no`

// situations are what NetworkPolicy means in the API's own words.
func situations() []situation {
	return append(append(append(peers(), ports()...), blocks()...), changes()...)
}

// peers are about who is selected.
func peers() []situation {
	return []situation{
		{name: "default deny ingress", steps: []step{
			{`policy x/deny {podSelector: {}, policyTypes: [Ingress]}`, closedX},
		}},
		{name: "default deny egress", steps: []step{
			{`policy x/deny {podSelector: {}, policyTypes: [Egress]}`, `x/* > *: no`},
		}},
		{name: "default deny both", steps: []step{
			{`policy x/deny {podSelector: {}, policyTypes: [Ingress, Egress]}`, "* > x/*: no\nx/* > *: no"},
		}},
		{name: "types follow from the rules", steps: []step{
			{`policy x/out {podSelector: {matchLabels: {pod: a}}, egress: []}`, `* > x/a: no`},
			{`delete policy x/out
			policy x/out2 {podSelector: {matchLabels: {pod: a}}, egress: [{to: [{podSelector: {}}]}]}`, "* > x/a: no\nx/a > *: no\nx/a > x/b|x/c: yes"},
		}},
		{name: "a pod in no policy is open", steps: []step{
			{`policy x/only-a {podSelector: {matchLabels: {pod: a}}, policyTypes: [Ingress]}`, `* > x/a: no`},
		}},
		{name: "from pods of the same namespace", steps: []step{
			{`policy x/allow {podSelector: {matchLabels: {pod: a}}, ingress: [{from: [{podSelector: {matchLabels: {pod: b}}}]}]}`,
				"* > x/a: no\nx/b > x/a: yes"},
		}},
		{name: "from any pod of the namespace", steps: []step{
			{`policy x/allow {podSelector: {}, ingress: [{from: [{podSelector: {}}]}]}`, "* > x/*: no\nx/* > x/*: yes"},
		}},
		{name: "from a namespace", steps: []step{
			{`policy x/allow {podSelector: {}, ingress: [{from: [{namespaceSelector: {matchLabels: {team: ty}}}]}]}`, "* > x/*: no\ny/* > x/*: yes"},
		}},
		{name: "from every namespace", steps: []step{
			{`policy x/allow {podSelector: {}, ingress: [{from: [{namespaceSelector: {}}]}]}`, "outside|node-1|node-2 > x/*: no"},
		}},
		{name: "from a namespace by its name", steps: []step{
			{`policy x/allow {podSelector: {matchLabels: {pod: c}}, ingress: [{from: [{namespaceSelector: {matchLabels: {kubernetes.io/metadata.name: z}}}]}]}`,
				"* > x/c: no\nz/* > x/c: yes"},
		}},
		{name: "namespace and pod selector in one peer are both asked for", steps: []step{
			{`policy x/allow {podSelector: {}, ingress: [{from: [{namespaceSelector: {matchLabels: {team: ty}}, podSelector: {matchLabels: {pod: a}}}]}]}`,
				"* > x/*: no\ny/a > x/*: yes"},
		}},
		{name: "namespace and pod selector in two peers are alternatives", steps: []step{
			{`policy x/allow {podSelector: {}, ingress: [{from: [{namespaceSelector: {matchLabels: {team: ty}}}, {podSelector: {matchLabels: {pod: a}}}]}]}`,
				"* > x/*: no\ny/* > x/*: yes\nx/a > x/*: yes"},
		}},
		{name: "match expressions", steps: []step{
			{`policy x/allow {podSelector: {matchExpressions: [{key: pod, operator: In, values: [a, b]}]},
				ingress: [{from: [{namespaceSelector: {matchExpressions: [{key: team, operator: NotIn, values: [ty]}]}}]}]}`,
				"* > x/a|x/b: no\nx/*|z/* > x/a|x/b: yes"},
			{`label pod y/a {special: "yes"}
			policy x/allow {podSelector: {matchExpressions: [{key: pod, operator: In, values: [a, b]}]},
				ingress: [{from: [{namespaceSelector: {}, podSelector: {matchExpressions: [{key: special, operator: Exists}]}}]}]}`,
				"* > x/a|x/b: no\ny/a > x/a|x/b: yes"},
			{`policy x/allow {podSelector: {matchExpressions: [{key: pod, operator: In, values: [a, b]}]},
				ingress: [{from: [{namespaceSelector: {matchExpressions: [{key: team, operator: Exists}]}, podSelector: {matchExpressions: [{key: special, operator: DoesNotExist}]}}]}]}`,
				"* > x/a|x/b: no\nx/*|y/*|z/* > x/a|x/b: yes\ny/a > x/a|x/b: no"},
			{`policy x/allow {podSelector: {matchExpressions: [{key: pod, operator: NotIn, values: [a]}]},
				ingress: [{from: [{namespaceSelector: {matchExpressions: [{key: team, operator: DoesNotExist}]}}]}]}`,
				"* > x/b|x/c: no"},
		}},
		{name: "labels and expressions of one selector are all asked for", steps: []step{
			{`policy x/allow {podSelector: {}, ingress: [{from: [{namespaceSelector: {matchLabels: {team: ty}, matchExpressions: [{key: other, operator: Exists}]}}]}]}`, closedX},
			{`label namespace y {other: ""}`, "* > x/*: no\ny/* > x/*: yes"},
		}},
		{name: "an empty rule is for everybody", steps: []step{
			{`policy x/deny {podSelector: {}, policyTypes: [Ingress]}`, closedX},
			{`policy x/allow {podSelector: {}, ingress: [{}]}`, ``},
		}},
		{name: "policies add up", steps: []step{
			{`policy x/deny {podSelector: {}, policyTypes: [Ingress]}
			policy x/from-y {podSelector: {matchLabels: {pod: a}}, ingress: [{from: [{namespaceSelector: {matchLabels: {team: ty}}}]}]}
			policy x/from-z {podSelector: {}, ingress: [{from: [{namespaceSelector: {matchLabels: {team: tz}}}], ports: [{port: 81}]}]}`,
				"* > x/*: no\ny/* > x/a: yes\nz/* > x/* 81/tcp: yes"},
			{`delete policy x/from-z`, "* > x/*: no\ny/* > x/a: yes"},
			{`delete policy x/deny`, "* > x/a: no\ny/* > x/a: yes"},
			{`delete policy x/from-y`, ``},
		}},
		{name: "both ends have their say", steps: []step{
			{`policy x/in {podSelector: {matchLabels: {pod: a}}, ingress: [{from: [{namespaceSelector: {}}]}]}
			policy y/out {podSelector: {}, policyTypes: [Egress]}`, "outside|node-1|node-2 > x/a: no\ny/* > *: no"},
			{`policy y/out {podSelector: {}, policyTypes: [Egress], egress: [{to: [{namespaceSelector: {matchLabels: {team: tx}}, podSelector: {matchLabels: {pod: a}}}]}]}`,
				"outside|node-1|node-2 > x/a: no\ny/* > *: no\ny/* > x/a: yes"},
		}},
	}
}

// ports are about protocols and ports.
func ports() []situation {
	return []situation{
		{name: "a port", steps: []step{
			{`policy x/allow {podSelector: {}, ingress: [{ports: [{port: 81}]}]}`, "* > x/*: no\n* > x/* 81/tcp: yes"},
		}},
		{name: "a port and a peer", steps: []step{
			{`policy x/allow {podSelector: {}, ingress: [{ports: [{port: 80}], from: [{namespaceSelector: {matchLabels: {team: ty}}}]}]}`,
				"* > x/*: no\ny/* > x/* 80/tcp: yes"},
		}},
		{name: "several ports and protocols", steps: []step{
			{`policy x/allow {podSelector: {}, ingress: [{ports: [{port: 80, protocol: UDP}, {port: 81, protocol: TCP}]}]}`,
				"* > x/*: no\n* > x/* 81/tcp 80/udp: yes"},
		}},
		{name: "a protocol without ports", steps: []step{
			{`policy x/allow {podSelector: {}, ingress: [{ports: [{protocol: UDP}]}]}`, "* > x/*: no\n* > x/* 80/udp 53/udp: yes"},
		}},
		{name: "a range of ports", steps: []step{
			{`policy x/allow {podSelector: {}, ingress: [{ports: [{port: 80, endPort: 90}]}]}`, "* > x/*: no\n* > x/* 80/tcp 81/tcp: yes"},
			{`policy x/allow {podSelector: {}, ingress: [{ports: [{port: 81, endPort: 90}, {port: 50, endPort: 80, protocol: UDP}]}]}`,
				"* > x/*: no\n* > x/* 81/tcp 80/udp 53/udp: yes"},
		}},
		{name: "a named port is each pod's own", steps: []step{
			{`policy x/allow {podSelector: {}, ingress: [{ports: [{port: serve}]}]}`,
				"* > x/*: no\n* > x/a|x/c 80/tcp: yes\n* > x/b 81/tcp: yes"},
			{`policy x/allow {podSelector: {}, ingress: [{ports: [{port: serve}, {port: dns, protocol: UDP}], from: [{namespaceSelector: {matchLabels: {team: tz}}}]}]}`,
				"* > x/*: no\nz/* > x/a|x/c 80/tcp 53/udp: yes\nz/* > x/b 81/tcp 53/udp: yes"},
			{`policy x/allow {podSelector: {}, ingress: [{ports: [{port: dns}]}]}`, closedX},
		}},
		{name: "a named port on the way out is the other end's", steps: []step{
			{`policy x/out {podSelector: {}, policyTypes: [Egress], egress: [{ports: [{port: serve}], to: [{namespaceSelector: {matchLabels: {team: ty}}}]}]}`,
				"x/* > *: no\nx/* > y/a|y/c 80/tcp: yes\nx/* > y/b 81/tcp: yes"},
		}},
		{name: "two rules, two ports, two peers", steps: []step{
			{`policy x/allow {podSelector: {matchLabels: {pod: a}}, ingress: [
				{ports: [{port: 80}], from: [{namespaceSelector: {matchLabels: {team: ty}}}]},
				{ports: [{port: 81}], from: [{namespaceSelector: {matchLabels: {team: tz}}}]}]}`,
				"* > x/a: no\ny/* > x/a 80/tcp: yes\nz/* > x/a 81/tcp: yes"},
		}},
		{name: "sctp", sctp: true, steps: []step{
			{`policy x/allow {podSelector: {}, ingress: [{ports: [{port: 80, protocol: SCTP}]}]}`, "* > x/*: no\n* > x/* 80/sctp: yes"},
			{`policy x/allow {podSelector: {}, ingress: [{ports: [{port: 80, protocol: TCP}]}, {ports: [{protocol: SCTP}], from: [{namespaceSelector: {matchLabels: {team: tz}}}]}]}`,
				"* > x/*: no\n* > x/* 80/tcp: yes\nz/* > x/* 80/sctp 81/sctp: yes"},
		}},
		{name: "dns is allowed", steps: []step{
			{`policy x/out {podSelector: {}, policyTypes: [Egress], egress: [
				{to: [{namespaceSelector: {matchLabels: {team: tz}}, podSelector: {matchLabels: {pod: c}}}], ports: [{port: 53, protocol: UDP}, {port: 53}]}]}`,
				"x/* > *: no\nx/* > z/c 53/udp: yes"},
			{`policy x/out2 {podSelector: {matchLabels: {pod: a}}, policyTypes: [Egress], egress: [{to: [{podSelector: {}}], ports: [{port: 80}]}]}`,
				"x/* > *: no\nx/* > z/c 53/udp: yes\nx/a > x/b|x/c 80/tcp: yes"},
		}},
	}
}

// blocks are about addresses: those of pods on node-1 are in 10.65.1.0/24, on node-2 in 10.65.2.0/24; outside is 172.15.0.66,
// the nodes 172.15.0.100 and 101.
func blocks() []situation {
	return []situation{
		{name: "from a block", steps: []step{
			{`policy x/allow {podSelector: {}, ingress: [{from: [{ipBlock: {cidr: 172.15.0.64/26}}]}]}`, "* > x/*: no\noutside|node-1|node-2 > x/*: yes"},
		}},
		{name: "from a block but for a part", steps: []step{
			{`policy x/allow {podSelector: {}, ingress: [{from: [{ipBlock: {cidr: 172.15.0.0/24, except: [172.15.0.66/32]}}]}]}`, "* > x/*: no\nnode-1|node-2 > x/*: yes"},
			{`policy x/allow {podSelector: {}, ingress: [{from: [{ipBlock: {cidr: 0.0.0.0/0, except: [10.65.0.0/16, 172.15.0.96/28]}}]}]}`, "* > x/*: no\noutside > x/*: yes"},
			{`policy x/allow {podSelector: {}, ingress: [{from: [{ipBlock: {cidr: 0.0.0.0/0, except: [10.65.1.0/24]}}]}]}`,
				"*/a|*/b > x/*: no"},
		}},
		{name: "an exception of one block is in another", steps: []step{
			{`policy x/allow {podSelector: {}, ingress: [{from: [{ipBlock: {cidr: 10.65.0.0/16, except: [10.65.2.0/24]}}, {ipBlock: {cidr: 10.65.2.15/32}}]}]}`,
				"* > x/*: no\n*/a|*/b > x/*: yes\ny/c > x/*: yes"},
		}},
		{name: "to a block", steps: []step{
			{`policy x/out {podSelector: {matchLabels: {pod: a}}, policyTypes: [Egress], egress: [{to: [{ipBlock: {cidr: 172.15.0.0/24}}], ports: [{port: 80}]}]}`,
				"x/a > *: no\nx/a > outside 80/tcp: yes"},
			{`policy x/out {podSelector: {matchLabels: {pod: a}}, policyTypes: [Egress], egress: [{to: [{ipBlock: {cidr: 0.0.0.0/0, except: [172.15.0.0/24]}}]}]}`,
				"x/a > outside: no"},
		}},
		{name: "to pods", steps: []step{
			{`policy x/out {podSelector: {}, policyTypes: [Egress], egress: [{to: [{podSelector: {matchLabels: {pod: b}}}]}]}`, "x/* > *: no\nx/a|x/c > x/b: yes"},
			{`policy x/out {podSelector: {}, policyTypes: [Egress], egress: [{to: [{namespaceSelector: {matchLabels: {team: tz}}, podSelector: {matchLabels: {pod: b}}}, {ipBlock: {cidr: 172.15.0.66/32}}]}]}`,
				"x/* > *: no\nx/* > z/b|outside: yes"},
		}},
		{name: "both families", six: true, steps: []step{
			{`policy x/deny {podSelector: {}, policyTypes: [Ingress, Egress]}`, "* > x/*: no\nx/* > *: no"},
			{`policy x/allow {podSelector: {}, ingress: [{from: [{namespaceSelector: {matchLabels: {team: ty}}}], ports: [{port: 80}]}]}`,
				"* > x/*: no\nx/* > *: no\ny/* > x/* 80/tcp 80/tcp6: yes"},
			{`policy x/allow {podSelector: {}, ingress: [{from: [{ipBlock: {cidr: "fd00:65::/32", except: ["fd00:65:2::/64"]}}, {ipBlock: {cidr: 172.15.0.66/32}}]}]}`,
				"* > x/*: no\nx/* > *: no\ny/a|y/b|z/a|z/b > x/* 80/tcp6 80/udp6: yes\noutside > x/* 80/tcp 81/tcp 80/udp 53/udp: yes"},
			{`delete policy x/deny
			policy x/out {podSelector: {matchLabels: {pod: a}}, policyTypes: [Egress], egress: [{to: [{ipBlock: {cidr: "::/0", except: ["fd00:15::/64"]}}], ports: [{port: 80, protocol: UDP}]}]}`,
				"* > x/*: no\n*/a|*/b > x/* 80/tcp6 80/udp6: yes\noutside > x/* 80/tcp 81/tcp 80/udp 53/udp: yes\nx/a > *: no\nx/a > y/*|z/*|x/b|x/c 80/udp6: yes"},
		}},
		{name: "nodes are let in to their own pods only", steps: []step{
			{`policy x/deny {podSelector: {}, policyTypes: [Ingress]}
			policy y/deny {podSelector: {}, policyTypes: [Ingress]}`, "* > x/*|y/*: no"},
		}},
	}
}

// changes are about what changes under a policy.
func changes() []situation {
	const fromDone = `policy x/allow {podSelector: {}, ingress: [{from: [{namespaceSelector: {}, podSelector: {matchLabels: {done: "true"}}}]}]}`
	return []situation{
		{name: "a policy changes and goes", steps: []step{
			{`policy x/p {podSelector: {}, ingress: [{from: [{namespaceSelector: {matchLabels: {team: ty}}}]}]}`, "* > x/*: no\ny/* > x/*: yes"},
			{`policy x/p {podSelector: {}, ingress: [{from: [{namespaceSelector: {matchLabels: {team: tz}}}]}]}`, "* > x/*: no\nz/* > x/*: yes"},
			{`policy x/p {podSelector: {matchLabels: {pod: b}}, ingress: [{from: [{namespaceSelector: {matchLabels: {team: tz}}}]}]}`, "* > x/b: no\nz/* > x/b: yes"},
			{`policy x/p {podSelector: {matchLabels: {pod: b}}, policyTypes: [Egress], egress: []}`, "x/b > *: no"},
			{`delete policy x/p`, ``},
		}},
		{name: "labels of a pod change", steps: []step{
			{`policy x/allow {podSelector: {matchLabels: {guarded: "yes"}}, ingress: [{from: [{namespaceSelector: {}, podSelector: {matchLabels: {friend: "yes"}}}]}]}
			label pod x/a {guarded: "yes"}`, `* > x/a: no`},
			{`label pod y/c {friend: "yes"}`, "* > x/a: no\ny/c > x/a: yes"},
			{`label pod y/c {friend: "no"}`, `* > x/a: no`},
			{`label pod z/a {friend: "yes"}`, "* > x/a: no\nz/a > x/a: yes"},
			{`label pod x/a {guarded: null}`, ``},
		}},
		{name: "labels of a namespace change", steps: []step{
			{`policy x/allow {podSelector: {}, ingress: [{from: [{namespaceSelector: {matchLabels: {friend: "yes"}}}]}]}`, closedX},
			{`label namespace y {friend: "yes"}`, "* > x/*: no\ny/* > x/*: yes"},
			{`label namespace z {friend: "yes"}
			label namespace y {friend: null}`, "* > x/*: no\nz/* > x/*: yes"},
		}},
		{name: "a finished pod's address is another one's", steps: []step{
			{`delete pod y/b
			pod y/done y/b {done: "true"}
			` + fromDone, "* > x/*: no\ny/b > x/*: yes"},
			{`phase y/done Succeeded`, closedX},
			{`pod y/next y/b {next: "true"}
			policy y/next {podSelector: {matchLabels: {next: "true"}}, policyTypes: [Ingress]}
			policy y/done {podSelector: {matchLabels: {done: "true"}}, policyTypes: [Egress]}`, "* > x/*: no\n* > y/b: no"},
			{`label pod y/next {done: "true"}`, "* > x/*: no\n* > y/b: no\ny/b > *: no"},
			{`delete policy y/done`, "* > x/*: no\n* > y/b: no\ny/b > x/*: yes"},
		}},
		{name: "a failed pod's address is another one's", steps: []step{
			{`delete pod z/c
			pod z/done z/c {done: "true"}
			` + fromDone, "* > x/*: no\nz/c > x/*: yes"},
			{`phase z/done Failed
			pod z/next z/c {next: "true"}`, closedX},
		}},
	}
}

// clusterSituations are what ClusterNetworkPolicy means.
func clusterSituations() []situation {
	const subjectX = `subject: {namespaces: {matchLabels: {team: tx}}}`
	return []situation{
		{name: "admin denies what a NetworkPolicy allows", steps: []step{
			{`cluster deny {tier: Admin, priority: 10, ` + subjectX + `, ingress: [{name: not-y, action: Deny, from: [{namespaces: {matchLabels: {team: ty}}}]}]}`, `y/* > x/*: no`},
			{`policy x/allow {podSelector: {}, ingress: [{from: [{namespaceSelector: {}}]}]}`, "outside|node-1|node-2 > x/*: no\ny/* > x/*: no"},
		}},
		{name: "admin accepts what a NetworkPolicy denies", steps: []step{
			{`policy x/deny {podSelector: {}, policyTypes: [Ingress]}`, closedX},
			{`cluster accept {tier: Admin, priority: 10, ` + subjectX + `, ingress: [{action: Accept, from: [{pods: {namespaceSelector: {matchLabels: {team: ty}}, podSelector: {matchLabels: {pod: a}}}}], protocols: [{tcp: {destinationPort: {number: 80}}}]}]}`,
				"* > x/*: no\ny/a > x/* 80/tcp: yes"},
		}},
		{name: "baseline decides when nobody else does", steps: []step{
			{`cluster base {tier: Baseline, priority: 0, ` + subjectX + `, ingress: [{action: Deny, from: [{namespaces: {}}]}]}`, `x/*|y/*|z/* > x/*: no`},
			{`policy x/allow {podSelector: {matchLabels: {pod: a}}, ingress: [{from: [{namespaceSelector: {matchLabels: {team: tz}}}]}]}`,
				"x/*|y/*|z/* > x/*: no\n* > x/a: no\nz/* > x/a: yes"},
		}},
		{name: "pass leaves it to NetworkPolicy, then to the baseline", steps: []step{
			{`cluster a-pass {tier: Admin, priority: 1, ` + subjectX + `, ingress: [{action: Pass, from: [{namespaces: {matchLabels: {team: ty}}}]}]}
			cluster b-deny {tier: Admin, priority: 2, ` + subjectX + `, ingress: [{action: Deny, from: [{namespaces: {}}]}]}`, `x/*|z/* > x/*: no`},
			{`policy x/only-b {podSelector: {matchLabels: {pod: b}}, ingress: [{from: [{podSelector: {}}]}]}`, "x/*|z/* > x/*: no\n* > x/b: no"},
			{`cluster base {tier: Baseline, priority: 0, ` + subjectX + `, ingress: [{action: Deny, from: [{pods: {namespaceSelector: {matchLabels: {team: ty}}, podSelector: {matchLabels: {pod: c}}}}]}]}`,
				"x/*|z/* > x/*: no\n* > x/b: no\ny/c > x/*: no"},
		}},
		{name: "the lower priority counts first", steps: []step{
			{`cluster deny {tier: Admin, priority: 20, ` + subjectX + `, ingress: [{action: Deny, from: [{namespaces: {}}]}]}`, `x/*|y/*|z/* > x/*: no`},
			{`cluster accept {tier: Admin, priority: 10, ` + subjectX + `, ingress: [{action: Accept, from: [{namespaces: {matchLabels: {team: tz}}}]}]}`, `x/*|y/* > x/*: no`},
			{`cluster accept {tier: Admin, priority: 30, ` + subjectX + `, ingress: [{action: Accept, from: [{namespaces: {matchLabels: {team: tz}}}]}]}`, `x/*|y/*|z/* > x/*: no`},
			{`cluster deny {tier: Baseline, priority: 20, ` + subjectX + `, ingress: [{action: Deny, from: [{namespaces: {}}]}]}`, `x/*|y/* > x/*: no`},
		}},
		{name: "rules of a policy in their order", steps: []step{
			{`cluster p {tier: Admin, priority: 5, ` + subjectX + `, ingress: [{action: Accept, from: [{namespaces: {matchLabels: {team: ty}}}], protocols: [{tcp: {destinationPort: {range: {start: 80, end: 90}}}}]}, {action: Deny, from: [{namespaces: {matchLabels: {team: ty}}}]}]}`,
				"y/* > x/*: no\ny/* > x/* 80/tcp 81/tcp: yes"},
			{`cluster p {tier: Admin, priority: 5, ` + subjectX + `, ingress: [{action: Deny, from: [{namespaces: {matchLabels: {team: ty}}}]}, {action: Accept, from: [{namespaces: {}}]}]}`, `y/* > x/*: no`},
		}},
		{name: "egress to networks, pods and named ports", sctp: true, steps: []step{
			{`cluster p {tier: Admin, priority: 5, subject: {pods: {namespaceSelector: {matchLabels: {team: tx}}, podSelector: {matchLabels: {pod: a}}}}, egress: [
				{action: Accept, to: [{networks: [172.15.0.66/32]}], protocols: [{udp: {destinationPort: {number: 53}}}, {sctp: {destinationPort: {number: 81}}}]},
				{action: Accept, to: [{namespaces: {matchLabels: {team: tz}}}], protocols: [{destinationNamedPort: serve}]},
				{action: Deny, to: [{networks: [0.0.0.0/0]}]}]}`,
				"x/a > *: no\nx/a > outside 53/udp 81/sctp: yes\nx/a > z/a|z/c 80/tcp: yes\nx/a > z/b 81/tcp: yes"},
		}},
		{name: "what cannot be read denies, or accepts nothing", steps: []step{
			{`cluster p {tier: Admin, priority: 5, ` + subjectX + `, egress: [{action: Accept, to: [{nodes: {}}]}, {action: Deny, to: [{namespaces: {matchLabels: {team: tz}}}]}]}`, `x/* > z/*: no`},
			{`cluster p {tier: Admin, priority: 5, ` + subjectX + `, egress: [{action: Deny, to: [{domainNames: ["*.example.com"]}]}]}`, `x/* > *: no`},
		}},
	}
}

// calicoSituations are policies of projectcalico.org/v3 on the same pods.
func calicoSituations() []situation {
	return []situation{
		{name: "a tier before NetworkPolicy", steps: []step{
			{`policy x/deny {podSelector: {}, policyTypes: [Ingress]}`, closedX},
			{`calico {kind: Tier, metadata: {name: first}, spec: {order: 10}}
			calico {kind: GlobalNetworkPolicy, metadata: {name: lead}, spec: {tier: first, order: 20, selector: pod == "a", namespaceSelector: team == "tx", types: [Ingress],
				ingress: [{action: Allow, protocol: TCP, source: {selector: pod == "b", namespaceSelector: all()}, destination: {ports: [80]}}, {action: Pass}]}}`,
				"* > x/*: no\n*/b > x/a 80/tcp: yes"},
			{`calico {kind: GlobalNetworkPolicy, metadata: {name: lead}, spec: {tier: first, order: 20, selector: pod == "a", namespaceSelector: team == "tx", types: [Ingress],
				ingress: [{action: Deny, source: {notSelector: pod == "c"}}, {action: Allow}]}}`,
				"* > x/*: no\n*/c > x/a: yes"},
		}},
		{name: "order, sets and what is excepted", steps: []step{
			{`calico {kind: GlobalNetworkSet, metadata: {name: elsewhere, labels: {away: "yes"}}, spec: {nets: [172.15.0.64/28]}}
			calico {kind: NetworkPolicy, metadata: {name: late, namespace: x}, spec: {order: 2000, selector: all(), types: [Ingress, Egress], ingress: [{action: Deny}], egress: [{action: Deny}]}}
			calico {kind: NetworkPolicy, metadata: {name: early, namespace: x}, spec: {order: 10, selector: pod != "c", types: [Ingress, Egress],
				ingress: [{action: Allow, source: {selector: away == "yes", namespaceSelector: global()}}, {action: Allow, protocol: UDP, notProtocol: TCP, source: {notNets: [10.65.1.0/24]}, destination: {notPorts: [53]}}],
				egress: [{action: Allow, destination: {selector: away == "yes", namespaceSelector: global()}}]}}`,
				"* > x/*: no\nx/* > *: no\noutside > x/a|x/b: yes\nx/a|x/b > outside: yes\ny/c|z/c|node-1|node-2 > x/a|x/b 80/udp: yes"},
			{`calico {kind: GlobalNetworkSet, metadata: {name: elsewhere, labels: {away: "no"}}, spec: {nets: [172.15.0.64/28]}}`,
				"* > x/*: no\nx/* > *: no\ny/c|z/c|node-1|node-2|outside > x/a|x/b 80/udp: yes"},
		}},
		{name: "service accounts, and policies that are staged", steps: []step{
			{`calico {kind: NetworkPolicy, metadata: {name: accounts, namespace: x}, spec: {selector: all(), types: [Ingress], ingress: [{action: Allow, source: {serviceAccounts: {names: [default]}}}]}}
			calico {kind: StagedNetworkPolicy, metadata: {name: nothing, namespace: z}, spec: {selector: all(), types: [Ingress], ingress: [{action: Deny}]}}`,
				"* > x/*: no\nx/* > x/*: yes"},
		}},
	}
}
