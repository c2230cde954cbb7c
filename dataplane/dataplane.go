// Package dataplane declares what the node asks of whatever enforces policy on a host.
//
// Implementations: [margay/dataplane/nft] programs nftables, [margay/dataplane/fake] answers with ruleset.Eval.
package dataplane

import (
	"context"

	"margay/ruleset"
)

// A Dataplane enforces one Program on one host. Calls come from one goroutine.
//
// Each call changes the kernel in one transaction or, when it returns an error, not at all. After an error the
// dataplane's idea of the kernel is unknown: the caller calls Resync until it succeeds.
type Dataplane interface {
	// Resync makes the kernel enforce exactly p, whatever it holds now: it reads back what is there, computes the
	// difference and applies only that. It takes a copy of what it needs from p.
	Resync(ctx context.Context, p *ruleset.Program) error
	// Apply changes what the kernel enforces by d. It must follow a successful Resync.
	Apply(ctx context.Context, d *ruleset.Delta) error
	// Close releases connections. What the kernel enforces stays in force.
	Close() error
}
