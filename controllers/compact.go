package controllers

import (
	"context"
	"time"

	v3 "margay/api/v3"
	"margay/store"
)

// A compacter is a store that keeps its history until it is told to forget it, as etcd does.
type compacter interface {
	Compact(ctx context.Context, before store.Revision) error
}

// compact has the datastore forget, every period, what was before the last time, so that whoever lost the connection for
// less than that goes on where it was.
func (d *daemon) compact(ctx context.Context, c compacter, period time.Duration) {
	before := store.Revision("")
	for ctx.Err() == nil {
		now, err := d.revision(ctx)
		if err == nil && before != "" {
			err = c.Compact(ctx, before)
		}
		if err == nil {
			before = now
		} else if ctx.Err() == nil {
			d.log.Warn("cannot compact the datastore, trying again", "error", err, "pause", period)
		}
		pause(ctx, period)
	}
}

// revision returns the one that the datastore has now.
func (d *daemon) revision(ctx context.Context) (store.Revision, error) {
	ctx, cancel := context.WithTimeout(ctx, writeTimeout)
	defer cancel()
	list, err := d.stores[target].List(ctx, "", v3.KindClusterInformation)
	if err != nil {
		return "", err
	}
	return list.Revision, nil
}
