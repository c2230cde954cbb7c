package node

import (
	"context"
	"errors"
	"log/slog"

	v3 "margay/api/v3"
	"margay/store"
)

// register makes the store usable and this host visible in it (calicoctl get nodes), as calico/node does when it starts
// without networking of its own: a Node with nothing but the name. It tries until it succeeds or the context
// ends; nothing waits for it.
func register(ctx context.Context, s store.Store, host string, log *slog.Logger) {
	retry := backoff{first: firstPause, last: lastPause}
	for {
		err := registerOnce(ctx, s, host)
		if err == nil || ctx.Err() != nil {
			return
		}
		pause := retry.step()
		log.Warn("this host is not registered in the store, trying again", "error", err, "pause", pause)
		if wait(ctx, pause) != nil {
			return
		}
	}
}

func registerOnce(ctx context.Context, s store.Store, host string) error {
	ctx, cancel := context.WithTimeout(ctx, storeTimeout)
	defer cancel()
	if err := s.Initialise(ctx); err != nil {
		return err
	}
	_, err := s.Get(ctx, v3.Key{Kind: v3.KindNode, Name: host})
	var stored *store.Fault
	// A Node that is there and cannot be read is named as a fault; it is not for the agent to replace it.
	if err == nil || errors.As(err, &stored) {
		return nil
	}
	if !errors.Is(err, store.ErrNotFound) {
		return err
	}
	info, _ := v3.Lookup(v3.KindNode)
	node := info.New()
	node.SetName(host)
	if _, err = s.Create(ctx, node); errors.Is(err, store.ErrExists) {
		return nil
	}
	return err
}
