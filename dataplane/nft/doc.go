// Package nft enforces a [ruleset.Program] with nftables, in one table: inet margay.
//
// [Compile] turns a Program into a [Table] and [Diff] two Tables into changes. Both are pure. A [Dataplane] sends changes
// to the kernel over netlink, every change in one transaction, and reads back what the kernel holds. No program is called
// and nothing outside the table is touched.
//
//	Program --flatten--> stages of lines --rules--> Table --Diff--> []Change --encode--> one netlink batch
//	                                                  ^
//	                              kernel --dump-------+
//
// # What a packet meets
//
//	base chain (hook input or output, policy accept, priority filter - 10)
//	  ct state established,related accept      a known flow costs one match
//	  iifname vmap @endpoints-in               -> jump in/eth0                    one chain per interface
//	  iifname @ifaces-... drop                 falling out of in/eth0 denies
//	  iifname "cali*" accept                   workloads are no host endpoints    only with an endpoint for "*"
//	  jump ingress/HostEndpoint/all, drop      the endpoint for all interfaces    only with an endpoint for "*"
//	in/eth0
//	  goto ingress/HostEndpoint/name
//	ingress/HostEndpoint/name
//	  ct state invalid drop, failsafes accept
//	  goto .../tier/first
//	.../tier/first                             the policies of the tier, their rules in order
//	  Allow: accept   Deny: drop   Pass: goto the next stage   Log: nflog
//	  end of tier: drop
//	.../profiles                               the last stage: the profiles, then drop
//
// The priority puts Margay before filters at the usual priority 0, so that what they accept was allowed here too and what
// they log is not what was denied here, and after connection tracking (-200), mangling (-150) and destination NAT (-100),
// so that policy sees the address and port of the process that answers. The policy of the base chains is accept because a
// host without an endpoint is not filtered. The output hook knows the interface that was chosen before destination NAT.
//
// No packet mark is read or written. What does not fit into one nft rule (a negated port in a rule without a protocol,
// addresses of two families) becomes several rules that do the same; see variants.
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
//   - An interface becomes an endpoint: a packet that began with the old rules may find the new element and jump into a
//     chain that is still empty for it. It falls out and goes on with the old rules after the map, which do not name the
//     interface yet. It gets the old verdict.
//   - An interface ceases to be an endpoint: one transaction empties its chain and takes the interface out of the rule
//     that denies what falls out; the element stays and a second transaction sweeps it. A packet with the old rules finds
//     the old chain, one with the new rules finds the empty one and goes on.
//   - Somebody flushes a chain of an endpoint: the packet falls out of it, back to the base chain, and is denied.
//   - Lists of addresses, ports and interfaces are constant sets whose name is a hash of what they hold. A rule with
//     another list names another set; the old rule keeps the old set, whose elements stay until no packet can see them.
//   - No name gets new content in the transaction that retires the old, except when the table as a whole is replaced
//     because somebody else changed what cannot be repaired in place (a hook, a flag, a constant set). Then the old and
//     the new base chains change places in one instant, and the new sets of intervals come with their rules.
//
// Of the up to three transactions of a call only one, with all the rules and the members of selectors, changes verdicts.
//
// A selector's set changes in place; every look-up sees it before or after the change. What is left: when one call changes
// several sets, or the members of a set and rules at once, a packet may see some of it before and some after. To avoid
// that, every set that changes would have to be copied.
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
// A deny rule behind the dispatch map that looks the interface up in a set with changing elements would lose packets of
// an interface that just became an endpoint. An element that leads straight to the endpoint's chain would let a packet
// with the old rules meet the old chain of the wrong endpoint when an interface changes hands.
package nft
