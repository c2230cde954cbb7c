package node

import (
	"os"
	"strings"
	"time"

	v3 "margay/api/v3"
	"margay/calc"
)

// untrackedInterval is how often it is looked again whether IPVS has its packets tracked while it has not: the kernel does not tell.
const untrackedInterval = time.Minute

// tracksIPVS reports whether connection tracking sees what IPVS balances: 1 where kube-proxy has set it, as it does at its start.
// Without IPVS in the kernel there is no such parameter.
func tracksIPVS() bool {
	text, err := os.ReadFile("/proc/sys/net/ipv4/vs/conntrack")
	return err != nil || strings.TrimSpace(string(text)) != "0"
}

// untracked warns of packets that are balanced and not tracked.
func (l *loop) untracked() []calc.Warning {
	if !l.program.Settings.IPVS || l.tracksIPVS == nil || l.tracksIPVS() {
		return nil
	}
	return []calc.Warning{{Key: v3.Key{Kind: v3.KindNode, Name: l.settings.now.FelixHostname},
		Text: "net.ipv4.vs.conntrack is 0: connection tracking does not see what IPVS balances, so that each packet of a flow, and each reply, has to be allowed by a rule (set it to 1, as kube-proxy does when it starts)"}}
}
