package kube

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"time"

	v3 "margay/api/v3"
	"margay/store"
)

// The API server has no transactions over several objects. What must hold between objects is looked at before a write and
// again after it, in an order in which of two writes that contradict each other exactly one stands:
//
//	policy: the tier exists? -> create -> the tier exists, unmarked? else take the mark away, or the policy back
//	tier:   mark -> no policy? -> delete the version that has the mark, else take the mark away
//	pool:   no overlap? -> create -> no older one overlaps? else take the pool back
//
// A policy that the tier's deleter did not see was created after the mark, so that its creator sees the mark: it takes it
// away, and the version that is to be deleted is gone.

// annotationClosing marks a tier that is about to be deleted; its value is when.
const annotationClosing = "margay.io/closing"

// before checks what must hold for a resource to be written.
func (s *Store) before(ctx context.Context, r v3.Resource) error {
	for _, need := range store.Needs(r) {
		if _, _, _, err := s.read(ctx, need); err != nil {
			return err
		}
	}
	if pool, ok := r.(*v3.IPPool); ok && r.GetResourceVersion() == "" {
		return s.overlap(ctx, pool)
	}
	return nil
}

// after checks what must hold after a resource was created.
func (s *Store) after(ctx context.Context, r v3.Resource) error {
	if pool, ok := r.(*v3.IPPool); ok {
		return s.overlap(ctx, pool)
	}
	tier, ok := store.TierKey(r)
	if !ok || store.CheckDelete(tier) != nil {
		return nil // built-in tiers stay
	}
	_, it, _, err := s.read(ctx, tier)
	if err != nil || it.resource == nil || it.resource.GetAnnotations()[annotationClosing] == "" {
		return err
	}
	_, err = s.mark(ctx, tier, "", nil)
	return err
}

// overlap refuses a pool that has addresses in common with another: with an older one, if it is stored itself.
func (s *Store) overlap(ctx context.Context, pool *v3.IPPool) error {
	list, err := s.List(ctx, "", v3.KindIPPool)
	if err != nil {
		return err
	}
	for _, r := range list.Items {
		other := r.(*v3.IPPool)
		if other.Name == pool.Name || !pool.Overlaps(other) {
			continue
		}
		mine := store.Revision(pool.ResourceVersion)
		if mine == "" || s.Reached(mine, store.Revision(other.ResourceVersion)) {
			return store.PoolOverlap(pool, other)
		}
	}
	return nil
}

// closeTier makes sure that no policy is in a tier, and returns the version that may be deleted.
func (s *Store) closeTier(ctx context.Context, mode store.Mode, it item) (string, error) {
	version := it.version()
	if mode == store.Commit {
		var err error
		if version, err = s.mark(ctx, it.key, time.Now().UTC().Format(time.RFC3339), &version); err != nil {
			return "", err
		}
	}
	policy, err := s.policyIn(ctx, it.key.Name)
	if err == nil && policy == "" {
		return version, nil
	}
	if mode == store.Commit {
		// A mark that stays does no harm: whoever creates a policy takes it away.
		_, markErr := s.mark(ctx, it.key, "", &version)
		if err == nil && markErr != nil && !errors.Is(markErr, store.ErrConflict) {
			s.log.Warn("the mark of a deletion stays", "tier", it.key.Name, "error", markErr)
		}
	}
	if err != nil {
		return "", err
	}
	return "", store.TierNotEmpty(it.key, policy)
}

// policyIn returns a policy that is in a tier, as people know it, "" if there is none.
func (s *Store) policyIn(ctx context.Context, tier string) (string, error) {
	var kinds []v3.Kind
	for _, plural := range store.PolicyPlurals() {
		for _, info := range v3.Kinds() {
			if info.Plural == plural {
				kinds = append(kinds, info.Kind)
			}
		}
	}
	sources, err := s.sources(ctx, kinds)
	if err != nil {
		return "", contextual(ctx, err)
	}
	for _, src := range sources {
		if src.form == formDerived || !src.served {
			continue // those are in built-in tiers
		}
		found := ""
		_, err := s.pages(ctx, src, listing{restart: func() { found = "" }, each: func(raw []byte) {
			if found == "" && store.InTier(tier, raw) {
				it := decodeCustom(src, raw)
				found = src.plural + "/"
				if it.key.Namespace != "" {
					found += it.key.Namespace + "/"
				}
				found += it.key.Name
			}
		}})
		if err != nil || found != "" {
			return found, err
		}
	}
	return "", nil
}

// mark sets or, with "", removes the mark of a tier, of the version given or, if that is nil, of any; it returns the new
// version.
func (s *Store) mark(ctx context.Context, tier v3.Key, value string, version *string) (string, error) {
	var mark any
	if value != "" {
		mark = value
	}
	meta := map[string]any{"annotations": map[string]any{annotationClosing: mark}}
	if version != nil {
		meta["resourceVersion"] = *version
	}
	body, err := json.Marshal(map[string]any{"metadata": meta})
	if err != nil {
		return "", err
	}
	src, at, err := s.place(ctx, tier)
	if err != nil {
		return "", err
	}
	raw, err := s.client.do(ctx, request{method: http.MethodPatch, path: src.path("", at.name), query: queryOf(store.Commit), body: body})
	if notFound(err) {
		return "", store.NotFound(tier)
	}
	if err != nil {
		return "", s.fail(ctx, "delete", tier, err)
	}
	var h head
	err = json.Unmarshal(raw, &h)
	return h.Metadata.ResourceVersion, err
}
