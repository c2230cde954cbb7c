package controllers

import "context"

// An Elector lets one of several instances lead.
type Elector interface {
	// Run calls lead whenever this instance leads, with a context that ends when it no longer does or when ctx ends, and
	// gives leadership up, at once if it can, after lead has returned. It returns when ctx has ended.
	Run(ctx context.Context, lead func(ctx context.Context))
}

// alone is the elector of an instance that has no others beside it.
type alone struct{}

// Run implements Elector.
func (alone) Run(ctx context.Context, lead func(ctx context.Context)) { lead(ctx) }
