package main

import (
	"context"
	"fmt"
	"net/netip"
	"runtime"

	"golang.org/x/sys/unix"

	v3 "margay/api/v3"
	"margay/calc"
	"margay/dataplane/nft"
	"margay/ruleset"
)

// tried has a rule of every form that the kernel must take.
const tried = `
apiVersion: projectcalico.org/v3
kind: HostEndpoint
metadata: {name: tried, labels: {role: tried}}
spec: {node: tried, interfaceName: lo, expectedIPs: [127.0.0.1]}
---
apiVersion: projectcalico.org/v3
kind: GlobalNetworkSet
metadata: {name: tried, labels: {role: source}}
spec: {nets: [192.0.2.0/24, '2001:db8::/32']}
---
apiVersion: projectcalico.org/v3
kind: GlobalNetworkPolicy
metadata: {name: tried}
spec:
  selector: role == "tried"
  types: [Ingress, Egress]
  ingress:
  - {action: Log, protocol: TCP, destination: {ports: [22]}}
  - {action: Allow, protocol: TCP, source: {selector: role == "source"}, destination: {ports: [9091, '1000:2000']}}
  - {action: Deny, protocol: UDP, source: {notSelector: role == "source"}, destination: {notPorts: [53]}}
  - {action: Allow, protocol: ICMP, icmp: {type: 8, code: 0}}
  egress:
  - {action: Allow}
`

// tryKernel programs the rules of a small host into a network namespace of its own, which goes away with the thread that
// made it.
func tryKernel(ctx context.Context) error {
	program, err := triedProgram()
	if err != nil {
		return err
	}
	result := make(chan error)
	go func() {
		runtime.LockOSThread() // and never unlocked: the thread ends with the goroutine
		result <- tryHere(ctx, program)
	}()
	return <-result
}

func tryHere(ctx context.Context, program *ruleset.Program) error {
	if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
		return fmt.Errorf("make a network namespace: %w (root is needed)", err)
	}
	dp, err := nft.Open(nft.Options{})
	if err != nil {
		return err
	}
	defer func() { _ = dp.Close() }()
	if err := dp.Prepare(ctx); err != nil {
		return err
	}
	return dp.Resync(ctx, program)
}

// triedProgram returns what a host enforces on which nothing is but tried.
func triedProgram() (*ruleset.Program, error) {
	docs, err := v3.Decode("tried", []byte(tried))
	if err != nil {
		return nil, err
	}
	c := calc.New("tried")
	order := float64(v3.OrderDefaultTier)
	tier := &v3.Tier{Spec: v3.TierSpec{Order: &order, DefaultAction: v3.ActionDeny}}
	tier.Name = v3.DefaultTier
	c.Update(v3.Key{Kind: v3.KindTier, Name: tier.Name}, tier)
	for _, doc := range docs {
		v3.Default(doc.Object)
		c.Update(v3.KeyOf(doc.Object), doc.Object)
	}
	c.SetInterface("lo", []netip.Addr{netip.MustParseAddr("127.0.0.1")})
	program := ruleset.NewProgram()
	program.Apply(c.Flush())
	return program, nil
}
