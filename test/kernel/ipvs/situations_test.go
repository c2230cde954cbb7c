package ipvs

import "golang.org/x/sys/unix"

// With connection tracking: a translated packet belongs to the flow that came in. What is passed on never comes to the hook forward,
// and to the input hook only before ip_vs; it is sent as if from this host, but keeps in postrouting the interface that it came by.
// It has no socket and no bit for a translated destination; what connection tracking remembers of it is where it was sent to. Replies
// are passed on as others are, and translated back behind the forward hook.
func tracked() []situation {
	return []situation{
		{name: "a service behind another interface", steps: []step{
			{does: in("wan", "client:40000", "vip:80", syn), seen: `
				prerouting -10: in=wan out=- from=client to=vip dport=80 was=vip wasport=80 new
				input -10: in=wan out=- from=client to=vip dport=80 was=vip wasport=80 new
				output -300: in=- out=lan from=client to=backend dport=8080 was=vip wasport=80 new
				output -10: in=- out=lan from=client to=backend dport=8080 was=vip wasport=80 new
				postrouting -10: in=wan out=lan from=client to=backend dport=8080 was=vip wasport=80 new`},
			{does: in("lan", "backend:8080", "client:40000", synAck), seen: `
				prerouting -10: in=lan out=- from=backend to=client was=vip wasport=80 established
				forward -10: in=lan out=wan from=backend to=client was=vip wasport=80 established
				postrouting -10: in=lan out=wan from=vip to=client was=vip wasport=80 established own`},
			{does: in("wan", "client:40000", "vip:80", ack), seen: `
				prerouting -10: in=wan out=- from=client to=vip dport=80 was=vip wasport=80 established
				input -10: in=wan out=- from=client to=vip dport=80 was=vip wasport=80 established
				output -300: in=- out=lan from=client to=backend dport=8080 was=vip wasport=80 established
				output -10: in=- out=lan from=client to=backend dport=8080 was=vip wasport=80 established
				postrouting -10: in=wan out=lan from=client to=backend dport=8080 was=vip wasport=80 established`},
		}},
		{name: "a node port", steps: []step{{does: in("wan", "client:40000", "node:30080", syn), seen: `
				prerouting -10: in=wan out=- from=client to=node dport=30080 was=node wasport=30080 new
				input -10: in=wan out=- from=client to=node dport=30080 was=node wasport=30080 new
				output -300: in=- out=lan from=client to=backend dport=8080 was=node wasport=30080 new
				output -10: in=- out=lan from=client to=backend dport=8080 was=node wasport=30080 new
				postrouting -10: in=wan out=lan from=client to=backend dport=8080 was=node wasport=30080 new`}}},
		{name: "no service of the host", steps: []step{{does: in("wan", "client:40000", "node:8080", syn), seen: `
				prerouting -10: in=wan out=- from=client to=node dport=8080 was=node wasport=8080 new
				input -10: in=wan out=- from=client to=node dport=8080 was=node wasport=8080 new
				input 101: in=wan out=- from=client to=node dport=8080 was=node wasport=8080 new`, tcp: `
				output -300: in=- out=wan from=node to=client invalid own socket
				output -10: in=- out=wan from=node to=client was=node wasport=8080 established own socket
				postrouting -10: in=- out=wan from=node to=client was=node wasport=8080 established own socket`}}},
		{name: "a service that is a process of the host", steps: []step{{does: in("wan", "client:40000", "vip:81", syn), seen: `
				prerouting -10: in=wan out=- from=client to=vip dport=81 was=vip wasport=81 new
				input -10: in=wan out=- from=client to=vip dport=81 was=vip wasport=81 new
				input 101: in=wan out=- from=client to=node dport=8080 was=vip wasport=81 new`, tcp: `
				output -300: in=- out=wan from=node to=client invalid own socket
				output -10: in=- out=wan from=vip to=client was=vip wasport=81 established own socket
				postrouting -10: in=- out=wan from=vip to=client was=vip wasport=81 established own socket`}}},
		// Twice before connection tracking: to the service, then to the destination.
		{name: "a process to a service elsewhere", steps: []step{{does: out("vip:80"), seen: `
				output -300: 2 packets in=- out=lan out=lo from=vip to=vip to=backend dport=80 dport=8080 was=vip wasport=80 new invalid own socket
				output -10: in=- out=lan from=vip to=backend dport=8080 was=vip wasport=80 new own socket
				postrouting -10: in=- out=lan from=vip to=backend dport=8080 was=vip wasport=80 new own socket`}}},
		{name: "a process to a service here", only: unix.IPPROTO_UDP, steps: []step{{does: out("vip:81"), seen: `
				prerouting -10: in=lo out=- from=vip to=node dport=8080 was=vip wasport=81 new own
				input -10: in=lo out=- from=vip to=node dport=8080 was=vip wasport=81 new own
				input 101: in=lo out=- from=vip to=node dport=8080 was=vip wasport=81 new own
				output -300: in=- out=lo from=vip to=vip dport=81 invalid own socket
				output -10: in=- out=lo from=vip to=node dport=8080 was=vip wasport=81 new own socket
				postrouting -10: in=- out=lo from=vip to=node dport=8080 was=vip wasport=81 new own socket`}}},
		{name: "a workload to another by a service", steps: []step{
			{does: in("cali1", "pod:40000", "vip:82", syn), seen: `
				prerouting -10: in=cali1 out=- from=pod to=vip dport=82 was=vip wasport=82 new
				input -10: in=cali1 out=- from=pod to=vip dport=82 was=vip wasport=82 new
				output -300: in=- out=cali2 from=pod to=mod dport=8080 was=vip wasport=82 new
				output -10: in=- out=cali2 from=pod to=mod dport=8080 was=vip wasport=82 new
				postrouting -10: in=cali1 out=cali2 from=pod to=mod dport=8080 was=vip wasport=82 new`},
			{does: in("cali2", "mod:8080", "pod:40000", synAck), seen: `
				prerouting -10: in=cali2 out=- from=mod to=pod was=vip wasport=82 established
				forward -10: in=cali2 out=cali1 from=mod to=pod was=vip wasport=82 established
				postrouting -10: in=cali2 out=cali1 from=vip to=pod was=vip wasport=82 established own`},
		}},
		{name: "a workload to itself by a service", steps: []step{{does: in("cali1", "pod:40000", "vip:83", syn), seen: `
				prerouting -10: in=cali1 out=- from=pod to=vip dport=83 was=vip wasport=83 new
				input -10: in=cali1 out=- from=pod to=vip dport=83 was=vip wasport=83 new
				output -300: in=- out=cali1 from=pod to=pod dport=8080 was=vip wasport=83 new
				output -10: in=- out=cali1 from=pod to=pod dport=8080 was=vip wasport=83 new
				postrouting -10: in=cali1 out=cali1 from=pod to=pod dport=8080 was=vip wasport=83 new`}}},
	}
}

// Without connection tracking: behind ip_vs packets are not tracked. What was sent to a service is new with every packet, and so is
// what answers.
func untracked() []situation {
	return []situation{
		{name: "a service behind another interface", only: unix.IPPROTO_UDP, steps: []step{
			{does: in("wan", "client:40000", "vip:80", 0), seen: `
				prerouting -10: in=wan out=- from=client to=vip dport=80 was=vip wasport=80 new
				input -10: in=wan out=- from=client to=vip dport=80 was=vip wasport=80 new
				output -300: in=- out=lan from=client to=backend dport=8080 untracked
				output -10: in=- out=lan from=client to=backend dport=8080 untracked
				postrouting -10: in=wan out=lan from=client to=backend dport=8080 untracked`},
			{does: in("lan", "backend:8080", "client:40000", 0), seen: `
				prerouting -10: in=lan out=- from=backend to=client was=client new
				forward -10: in=lan out=wan from=backend to=client was=client new
				postrouting -10: in=lan out=wan from=vip to=client untracked own`},
			{does: in("wan", "client:40000", "vip:80", 0), seen: `
				prerouting -10: in=wan out=- from=client to=vip dport=80 was=vip wasport=80 new
				input -10: in=wan out=- from=client to=vip dport=80 was=vip wasport=80 new
				output -300: in=- out=lan from=client to=backend dport=8080 untracked
				output -10: in=- out=lan from=client to=backend dport=8080 untracked
				postrouting -10: in=wan out=lan from=client to=backend dport=8080 untracked`},
		}},
		{name: "a service that is a process of the host", steps: []step{{does: in("wan", "client:40000", "vip:81", syn), seen: `
				prerouting -10: in=wan out=- from=client to=vip dport=81 was=vip wasport=81 new
				input -10: in=wan out=- from=client to=vip dport=81 was=vip wasport=81 new
				input 101: in=wan out=- from=client to=node dport=8080 untracked`, tcp: `
				output -300: in=- out=wan from=node to=client invalid own socket
				output -10: in=- out=wan from=vip to=client invalid own socket
				postrouting -10: in=- out=wan from=vip to=client invalid own socket`}}},
		{name: "a process to a service elsewhere", steps: []step{{does: out("vip:80"), seen: `
				output -300: 2 packets in=- out=lan out=lo from=vip to=vip to=backend dport=80 dport=8080 invalid untracked own socket
				output -10: in=- out=lan from=vip to=backend dport=8080 untracked own socket
				postrouting -10: in=- out=lan from=vip to=backend dport=8080 untracked own socket`}}},
		{name: "a workload to another by a service", steps: []step{
			{does: in("cali1", "pod:40000", "vip:82", syn), seen: `
				prerouting -10: in=cali1 out=- from=pod to=vip dport=82 was=vip wasport=82 new
				input -10: in=cali1 out=- from=pod to=vip dport=82 was=vip wasport=82 new
				output -300: in=- out=cali2 from=pod to=mod dport=8080 untracked
				output -10: in=- out=cali2 from=pod to=mod dport=8080 untracked
				postrouting -10: in=cali1 out=cali2 from=pod to=mod dport=8080 untracked`},
		}},
	}
}
