package kube

import (
	"context"
	"errors"

	v3 "margay/api/v3"
	"margay/store"
)

// writesAtOnce bounds how many requests of one WriteAll are under way.
const writesAtOnce = 16

// WriteAll implements store.Store. The API takes one object with a request. Neighbours of one kind with the same operation
// are written at the same time, some of them at once; everything else in its order.
func (s *Store) WriteAll(ctx context.Context, mode store.Mode, writes []store.Write) []store.Result {
	results := make([]store.Result, len(writes))
	for start := 0; start < len(writes); {
		end := cut(writes, start)
		err := s.writeTogether(ctx, mode, writes[start:end], results[start:end])
		start = end
		if err == nil {
			continue
		}
		for i, w := range writes[start:] {
			results[start+i].Err = notTried(w, err)
		}
		break
	}
	return results
}

// cut returns where the writes end that can be done together with the one at start.
func cut(writes []store.Write, start int) int {
	first := writes[start]
	seen := map[v3.Key]bool{}
	for i := start; i < len(writes); i++ {
		w := writes[i]
		key := v3.KeyOf(w.Resource)
		if i > start && (w.Op != first.Op || key.Kind != v3.KeyOf(first.Resource).Kind || seen[key] || key.Kind == v3.KindIPPool) {
			return i
		}
		seen[key] = true
	}
	return len(writes)
}

// writeTogether does writes that do not depend on each other. An error says that the server does not answer; it is in the
// results, too.
func (s *Store) writeTogether(ctx context.Context, mode store.Mode, writes []store.Write, results []store.Result) error {
	for start := 0; start < len(writes); start += writesAtOnce {
		end := min(start+writesAtOnce, len(writes))
		_ = each(end-start, writesAtOnce, func(i int) error {
			results[start+i] = s.write(ctx, mode, writes[start+i])
			return nil
		})
		for i := start; i < end; i++ {
			err := results[i].Err
			if !errors.Is(err, store.ErrUnavailable) && (err == nil || ctx.Err() == nil) {
				continue
			}
			for j, w := range writes[end:] {
				results[end+j].Err = notTried(w, err)
			}
			return err
		}
	}
	return nil
}

func (s *Store) write(ctx context.Context, mode store.Mode, w store.Write) store.Result {
	switch w.Op {
	case store.Create:
		return s.create(ctx, mode, w.Resource)
	case store.Update:
		return s.update(ctx, mode, w)
	case store.Delete:
		return s.delete(ctx, mode, v3.KeyOf(w.Resource), store.Revision(w.Resource.GetResourceVersion()))
	}
	panic("kube: the operation of a write is not known")
}

// notTried is the error of a write that was not sent.
func notTried(w store.Write, cause error) error {
	return &store.Error{Key: v3.KeyOf(w.Resource), Err: store.ErrNotTried, Cause: cause}
}
