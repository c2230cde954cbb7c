// Package nft enforces a [ruleset.Program] with nftables, in one table, inet margay, and with workloads on bridges in another of
// family bridge, see Bridges.
//
// [Compile] turns a Program into a [Table] and [Diff] two Tables into changes. Both are pure. A [Dataplane] sends changes
// to the kernel over netlink, every change in one transaction, and reads back what the kernel holds. No program is called
// and nothing outside the table is touched.
//
//	Program --flatten--> stages of lines --cut--> chains and maps = Table --Diff--> []Change --encode--> netlink batches
//	                                                  ^
//	                              kernel --dump-------+
//
// # What a packet meets
//
//	raw-prerouting  -300  iifname vmap @untracked-in      Untracked of the endpoint: allow is notrack, deny is drop
//	raw-output      -300  oifname vmap @untracked-out     the same for what this host sends
//	input            -10  to a process
//	  iifname != "cali*" ct state established,related accept      a known flow costs one match
//	  iifname "cali*" goto guests                                 what workloads send to their host, see below
//	  iifname vmap @endpoints-in                                  -> in/eth0, a chain per interface, to the endpoint's chains
//	  iifname @interfaces-... drop                                falling out of in/eth0 denies
//	  jump ingress/HostEndpoint/all, drop                         the endpoint for all interfaces
//	forward          -10  passed on: all that are concerned must let it pass
//	  iifname != "cali*" oifname != "cali*" ct state established,related accept
//	  iifname, oifname "cali*" and not in @interfaces-... drop    unknown workloads, whatever the flow
//	  iifname vmap @workload-sources                              -> source/cali1: drop what is not from the workload's addresses
//	  ct state established,related accept
//	  iifname vmap @forward-in                                    host endpoints: return when the packet may pass
//	  ip daddr 10.96.0.0/12 drop                                  addresses of services (ServiceNets) that nobody has
//	  oifname vmap @forward-out                                   host endpoints again
//	  iifname vmap @workloads-from                                -> from/cali1: the workload's egress, then to-workloads
//	  goto to-workloads                                           oifname vmap @workloads-to: ingress, then accept
//	output           -10  from a process
//	  ct state established,related accept
//	  ct status dnat accept                                       judged in postrouting
//	  oifname vmap @endpoints-out ...                             as input
//	postrouting      -10
//	  ct status dnat goto redirected                              what a process sent and was sent elsewhere: as output
//
// guests checks the source as forward does, then: PreDNAT of the endpoint for all interfaces, neighbour discovery, the
// workload's egress, EndpointToHost. HostReturn and HostAccept are the same here: other tables are asked anyway.
//
// An endpoint's chains are ingress/KIND/NAME and egress/KIND/NAME, and .../STAGE behind it for other stages than Normal.
// They check what comes before policies (invalid packets, failsafes, tunnels) and call a chain per tier, .../tier/NAME,
// and the last, .../profiles. A rule there allows (accept, or what the place needs), denies, returns for the next tier, or
// reports. Base chains are there only if something needs them; their policy is accept because a host without an endpoint
// is not filtered.
//
// # What a stage becomes
//
// A stage of few rules is laid out as it was written. A longer one is cut, so that a packet asks the same number of things
// however many rules there are (see stageBuilder, group, list):
//
//	ip saddr . meta l4proto . th dport vmap @.../ports/ip/saddr/32     rules for an address and a port, hashed
//	ip saddr & 255.255.255.0 . ... vmap @.../ports/ip/saddr/24         the same for networks, a map for each length
//	meta l4proto . th dport vmap @.../ports                            -> .../tcp/80: what else there is for the port
//	...                                                                rules for every port; many of a kind are maps, too
//
// Elements of maps say in their comments which rule they stand for, and count for it. Where rules do not commute, where a
// rule passes to the next tier, and beyond limits (see limits) rules stay rules, in order: the table stays bounded, and a
// packet asks them all.
//
// The priority puts Margay before filters at the usual priority 0, so that what they accept was allowed here too and what
// they log is not what was denied here, and after connection tracking (-200), mangling (-150) and destination NAT (-100),
// so that policy sees the address and port of the process that answers. In postrouting it comes before source NAT (100).
//
// The stages before destination NAT, PreDNAT and Untracked, are walked there, too: connection tracking remembers where the
// packet was sent to (ct original), so there are two sets of chains for them, one for each of translated or not. Whether
// they allowed the packet is then known from the way that it takes through the chains, without a mark, and PreDNAT can
// answer what it denies. Only Untracked has to act before connection tracking, where it is walked for the first time;
// it is walked again because others keep packets away from connection tracking, too, and the kernel does with neighbour
// discovery. What that costs is per new flow and packet of an untracked one.
//
// The output hook knows the interface that was chosen before destination NAT, also behind it; the one by which a packet
// really leaves is known in postrouting, where denied packets cannot be answered and are dropped. So that is only for
// packets whose destination was translated; a packet that another table sends another way by its mark is judged by the
// interface that was chosen first. Packets that this host passes on have an incoming interface there (Linux 5.7).
//
// No packet mark is read or written. What does not fit into one nft rule (a negated port in a rule without a protocol,
// addresses of two families) becomes several rules that do the same; see variants. The kernel follows no more than 16
// chains into each other and refuses a table that leads deeper (EMLINK): tiers of Normal are called one after the other, but
// those of Forward, and of PreDNAT and Untracked for packets that are passed on, lead to each other, see stages.
//
// # Staged policies
//
// Where an endpoint has staged policies, the tiers up to the last of them are walked once more, before those that decide, in
// chains .../staged/tier/NAME: as if staged policies were enforced, with every end leading to the rules that decide. Only
// rules of staged policies, and the ends of tiers with them, have a comment and are read as counters; no line that counts is
// overtaken by another. In the normal stage of host endpoints these chains are cut as others are; elsewhere they are lists,
// and left out where so many stages lead to each other that the kernel would not follow. Without staged policies there is
// nothing of this in the table.
//
// # Bridges
//
// A workload on a bridge is known by its address. The table of family bridge, there while there is such a workload (or
// [ruleset.Settings].ClosePorts), makes sure that an address means one workload; CompileBridge makes it anew for every change of
// workloads, of constant sets and rules only, so that a packet meets the old or the new ones.
//
//	prerouting   -310  iifname "veth*" iifname != @interfaces-... drop        ports that are a workload's by name, and unknown
//	  iifname @interfaces-... goto sends        iifname . ip saddr, arp saddr ip, ip6 saddr, icmpv6 taddr @own..., else drop
//	  ip saddr @bridged-addresses4-... drop     the address of a workload, from another port; ARP and IPv6 alike
//	forward      -310  ports of a bridge that is not filtered: neighbour discovery, else drop
//	postrouting  -310  oifname @interfaces-... goto gets                      oifname . ip daddr @own..., ARP, neighbour discovery, else drop
//	  ip daddr @bridged-addresses4-... drop     the address of a workload, to another port
//
// So ports carry IPv4, IPv6 and ARP without VLAN tags, no broadcast and no multicast but neighbour discovery, and nothing from an
// address of the link but that; no router advertisement from a workload. In the inet table
//
//	iifname . ip saddr @bridged4-... goto guests, vmap @bridged-from4         -> from/cni0/10.66.0.2, to the workload's chains
//	oifname . ip daddr vmap @bridged-to4                                      -> to/cni0/10.66.0.2
//	iifname "veth1" drop                        what comes in by a port itself: frames to addresses that no bridge passes on
//	ip saddr @bridged-addresses4-... iifname . ip saddr != @bridged4-... drop  a workload's address, but not by its bridge, or that of
//	                                            several; the other end alike. What is left of neighbour discovery within a bridge passes
//
// The element of an address never changes its target, as that of an interface. What a bridge passes on has no incoming interface in
// postrouting; where its destination was translated, its source tells that it is a workload's. That from others on the bridge, to
// translated destinations on the same bridge, is judged there as what the host sends.
//
// Not supported: bridges that filter VLANs (ports closed to each other, the agent is not ready), and workloads of several bridges with
// equal addresses (nobody has them). Package node/pods says what the kernel must have.
//
// # IPVS
//
// Where the kernel balances services (IPVS), a packet for one is delivered to this host (the address is on an interface of it), taken
// out of the input hook at priority 99, and sent on as if from here: through output, where it has no incoming interface, and
// postrouting, where it has. Nothing in it tells the forward hook's packets from these, and they do not meet the forward hook; so all
// that is passed on is judged in postrouting then, once, and what is delivered behind IPVS, where its destination is the one that
// it gets. No mark is needed, and no guess from ports or addresses at what IPVS will take.
//
//	input             -10  iifname vmap @workload-sources         sources, while they are those of the sender: answers that pass IPVS
//	  iifname != "lo" fib daddr type local fib saddr type local drop  get the address of the service in the input and forward hooks
//	input-behind-ipvs 101  as input
//	forward           -10  iifname vmap @workload-sources
//	  meta iifkind "bridge" meta oifkind "bridge" goto passed-on  between ports: has no incoming interface in postrouting
//	  fib saddr type local goto passed-on                         what claims to be from this host
//	output            -10  as without
//	  fib saddr type != local jump sent-on-by-ipvs                accepts what no process sent: judged in postrouting
//	postrouting       -10
//	  iif != 0 fib saddr type != local goto passed-on             as forward, but nothing is answered
//	  ct status dnat goto redirected
//
// What this host sends is what is from its addresses, or from none: what the kernel sends itself has an interface in postrouting that
// looks like an incoming one (neighbour discovery, the outside of tunnels). So nobody else may send from them to where IPVS could take
// it (see [ruleset.Packet].Own); IPv4 has that checked by the kernel, unless accept_local is set.
//
// IPVS does not set the bit of the status that destination NAT sets. So stages before destination NAT ask connection tracking of every
// tracked packet where it was sent to. What is routed from one bridge to another is judged twice and counted twice.
//
// From judging in postrouting to judging in forward at once, a packet between the two would be judged in neither. So a table that
// leaves IPVS does both first, and then ceases to do the one (TestNoPacketIsBetweenPlaces).
//
// # Why a packet in flight is safe
//
// A transaction switches rules at one instant, and a packet keeps the generation of rules that it began with. The
// elements of sets and maps switch for all packets, those with the old rules included: of hash sets (dispatch maps,
// AddrPorts, protocols, failsafes) at the same instant, of sets of intervals a moment later, when the kernel has finished
// the transaction (seen on 6.18: some 100 microseconds in which a set that came with its rules holds nothing yet). So what
// must change together is in rules, and elements are there before a rule needs them:
//
//   - New sets of intervals come in a transaction of their own, before the one with the rules that name them.
//   - An element of a dispatch map leads to the chain of its interface and never changes its target. Which endpoint an
//     interface belongs to, and what the endpoint allows, are rules.
//   - What an element of another verdict map says changes with the rules: see differ.elements. When nothing but members of
//     sets changes, elements change at once, unless an address comes to be found in another map than before: see moves. So
//     they do when nothing else changes and no packet can meet two of them: see apart. Most changes of one policy are so, and
//     take the kernel a tenth of the time: it looks for loops, through all verdict maps, when rules change.
//   - An interface becomes an endpoint: a packet that began with the old rules may find the new element and jump into a
//     chain that is still empty for it. It falls out and goes on with the old rules after the map, which do not name the
//     interface yet. It gets the old verdict.
//   - An interface ceases to be an endpoint: one transaction empties its chain and takes the interface out of the rule
//     that denies what falls out; the element stays and a second transaction sweeps it. A packet with the old rules finds
//     the old chain, one with the new rules finds the empty one and goes on.
//   - A workload becomes known: its name is in a constant set that the new rules name; the old rules still deny.
//   - What Untracked decides early is decided again by the rules of the hook that gives the verdict: a packet that met old
//     rules before connection tracking and new ones behind it gets the new verdict, or the old one if that was to drop it.
//     No packet is judged in two other hooks: output leaves to postrouting what was translated.
//   - Somebody flushes a chain of an endpoint: the packet falls out of it, back to the base chain, and is denied, except
//     where returning means to go on: a tier, or a host endpoint in the forward hook, that is empty passes.
//   - Lists of addresses, ports and interfaces are constant sets whose name is a hash of what they hold. A rule with
//     another list names another set; the old rule keeps the old set, whose elements stay until no packet can see them.
//   - No name gets new content in the transaction that retires the old, except when the table as a whole is replaced
//     because somebody else changed what cannot be repaired in place (a hook, a flag, a constant set). Then the old and
//     the new base chains change places in one instant, and the new sets of intervals come with their rules.
//
// Of the up to three transactions of a call only one, with all the rules and the members of selectors, changes verdicts.
//
// A selector's set changes in place; every look-up sees it before or after the change. A packet that asks for it twice may see
// both. That shows only where members gain by one rule and lose by another (see trend): denied before by the last rule and
// afterwards by the first, it could pass by one between. So such a set is named by its members, and with others it is another
// set, which changes as rules do: two or three transactions, and work for the whole set and all who use it.
//
// What is left: such sets of more members than limits.members, and AddrPorts of as many, change in place, as copying takes too
// long. When one call changes several sets, the members of a set and rules at once, or puts members in the place of others of a
// set that is asked for both ends of a packet, a packet may see some of it before and some after. To avoid that, every set that
// changes would have to be copied.
//
// Look-ups in sets of intervals that change are exact from Linux 6.17 (and stable kernels with the same fix): before that a
// packet may miss an element while a prefix that covers it is being split or merged.
//
// # What was considered and left out
//
// google/nftables decodes expressions into structs and drops attributes that it does not know, so two rules that differ
// may compare equal; it also asks for an acknowledgement of every message. Here a rule is the bytes that the kernel
// reports for it (see canonical): equal bytes, equal rules.
//
// The sources of workloads could be checked before connection tracking. There, a hook more for every packet, and two
// generations of rules; here, a workload that guesses the ports and sequence numbers of others' flows can disturb what is
// remembered of them, but gets nothing through.
//
// PreDNAT could be walked before destination NAT. The stages after it would have to find out again whether it allowed the
// packet, as with Untracked, or need a mark; and a change would show packets two generations of rules.
//
// Denied packets could be answered before connection tracking, too (Linux 5.9). But the answers are then part of no flow
// that is known, and this host's own egress policy denies them.
//
// A deny rule behind the dispatch map that looks the interface up in a set with changing elements would lose packets of
// an interface that just became an endpoint. An element that leads straight to the endpoint's chain would let a packet
// with the old rules meet the old chain of the wrong endpoint when an interface changes hands.
package nft
