// Package ruleset says what one host must enforce, and what that means for a packet.
//
// A [Program] is the whole of it as a value: host endpoints and workloads, the policies that apply to them in order, the
// rules of those policies, and the address sets that the rules name. [Eval] takes a [Packet] on its way through a Program
// and is the specification: every back end must give the verdict that Eval gives. [Trace] says what was looked at on the
// way, [NearMiss] what would have had to be otherwise, [Preview] what would be if staged policies were enforced, [Pending] what
// they would decide about a packet. A [Delta] is the difference between two Programs.
//
//	calc --Delta--> dataplane/nft --one transaction--> kernel
//	        |
//	        +-----> Eval, Trace, NearMiss, Preview (explain, diff, tests)
//
// The package uses the standard library only. It does no I/O, reads no clock and logs nothing.
//
// # What a back end does at each hook
//
// The way of a packet in eval.go, hook by hook. A stage of an endpoint that has no tier in a direction is not there; that
// of an [Endpoint] for [AllInterfaces] is that of every interface that no endpoint names, with two exceptions: it has
// no Untracked stage, and its Normal stage is not for interfaces of workloads. "A workload's" is an interface that a
// Workload names, or whose name begins with one of Settings.WorkloadPrefixes.
//
// A Workload with a Bridge is not known by its interface but by its address: "in by" and "to" it are packets that come in by its
// bridge from one of Addrs, or leave by it to one. Addrs that two such workloads have are those of none. Its ports see to that:
//
//	ports of bridges, when a frame comes in (source) and leaves (destination), every packet
//	  its workload's address: on. Neighbour discovery (to it any, from it none but with a source of the link or none, and no
//	  134): on. Another port, and no workload's address: on, unless Settings.IsWorkload(port) and ClosePorts or there is a
//	  workload on a bridge. Between ports, one of them not Filtered: deny, but for neighbour discovery. Else deny.
//
//	prerouting, before connection tracking
//	  in by a workload's: no Workload names it: deny. Its source is neither one of Addrs nor, with AllowSpoofing, in
//	  Spoofable, nor link-local IPv6, nor :: of ICMPv6 to a link-local or multicast address: deny. For every packet.
//	  else Untracked ingress: failsafes of this direction by destination port and of the other one by source port leave the
//	  packet to tracking; Allow: notrack, and PreDNAT, Forward ingress and Normal ingress are skipped; Deny
//	prerouting, after tracking and before destination NAT
//	  established, related: on. PreDNAT ingress: invalid: deny; failsafes: on; Allow: Forward ingress and Normal ingress are
//	  skipped; Deny. In by a workload's, too.
//	input
//	  established, related: accept. In one of Settings.Tunnels that is not Proven, and from no host: deny. In by a
//	  workload's: ICMPv6 130, 131, 132, 133, 135, 136: accept; Normal egress of the Workload; then EndpointToHost. Else
//	  Normal ingress: invalid: deny; failsafes: accept; ICMPv6 130 to 136 and 143: accept; in a tunnel and from a host:
//	  accept; tiers; profiles; deny.
//	forward
//	  in or out by a workload's that no Workload names: deny. Established, related: accept. From or to an address of a workload
//	  on a bridge, but not by that bridge, or the address of several: deny. Neighbour discovery within a bridge: accept. Then,
//	  each of which must let the packet pass: Forward ingress of the interface that it came in by; not to ServiceNets; Normal
//	  egress of the workload there; Normal ingress of the workload that it goes to; Forward egress of the interface that it leaves by.
//	  Forward: invalid: deny; tiers; what no tier denies passes. A workload: invalid: deny; VXLAN and IPIP, egress only, unless
//	  allowed: deny; tiers; profiles; deny.
//	output, before connection tracking
//	  Untracked egress by the interface chosen before destination NAT, as above; Allow skips Normal egress
//	output
//	  established, related: accept. To a workload's: accept. Else Normal egress: as ingress, but a tunnel leads to a host.
//	  What was translated (the bit IPS_DST_NAT of the status, whatever other bits are set) has its final interface only in
//	  postrouting: there it is judged.
//
// With Settings.IPVS the kernel balances services itself (see [Packet].Balanced), between the input hook and this host's: what
// is for a service and not for a process here leaves the input hook, enters output as if it were sent here (Untracked egress is
// asked, too), and is gone. Such a packet is one that is passed on, from the interface that it came in by to the one that it leaves
// by, and meets what the forward hook has, PreDNAT with the address of the service included. What Untracked allowed of it is found
// out again, of a packet that is not tracked with the address that it then has. What this host sends is known by its source there, so
// what is delivered and claims to be from this host, or is from no address, is denied (see [Packet].Own).
//
// PreDNAT and Untracked walk tiers without their end: only a rule decides; ICMPv6 130 to 136 and 143 go the way of
// failsafes. They and the source of a workload are judged by the
// original destination, everything else by the translated one; the source is that before source NAT.
//
// Denied is answered instead of dropped if Settings.Reject, at every hook where the kernel can: not in postrouting, nor, with
// IPVS, on behalf of others than this host. The
// reports of a Log rule begin with [Settings.LogText] and are bounded by Settings.LogRate, per rule. Staged policies decide
// nothing. What they would decide is counted as [Pending] has it, for all packets of the Normal stage; in the others a back
// end may leave that out where it has no room. Sets that only they use need not be programmed otherwise.
package ruleset
