package kube

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"

	v3 "margay/api/v3"
	"margay/store"
)

// MigratePolicyNames stores policies of the default tier that releases before 3.32 stored as default.NAME under the name that
// people know them by, and returns how many it moved. Only clusters with crd.projectcalico.org/v1 objects can
// have such. The new object is made before the old one is deleted, so that the policy is in force all the time; for a moment
// it is there twice, which is the same as once. If there is a policy of that name already, it is the newer one: the old one
// is deleted.
func (s *Store) MigratePolicyNames(ctx context.Context) (moved int, err error) {
	sources, err := s.sources(ctx, []v3.Kind{
		v3.KindNetworkPolicy, v3.KindGlobalNetworkPolicy, v3.KindStagedNetworkPolicy, v3.KindStagedGlobalNetworkPolicy,
	})
	if err != nil {
		return 0, err
	}
	var faults []error
	for _, src := range sources {
		if src.form != formV1 || !src.served {
			continue
		}
		var old []legacyPolicy
		_, err := s.pages(ctx, src, listing{restart: func() { old = nil }, each: func(raw []byte) {
			if p, ok := oldName(src, raw); ok {
				old = append(old, p)
			}
		}})
		if err != nil {
			return moved, err
		}
		for _, p := range old {
			switch err := s.rename(ctx, src, p); {
			case errors.Is(err, store.ErrUnavailable), errors.Is(err, store.ErrForbidden), ctx.Err() != nil:
				return moved, err
			case err != nil:
				faults = append(faults, err)
			default:
				moved++
			}
		}
	}
	return moved, errors.Join(faults...)
}

// A legacyPolicy is stored under another name than its own.
type legacyPolicy struct {
	key     v3.Key // as it is stored
	version string
	object  map[string]any // as it is to be stored
}

// oldName returns a policy of the default tier whose name in the annotation is that of the object without the tier.
func oldName(src *source, raw []byte) (legacyPolicy, bool) {
	object, meta, err := parse(raw)
	if err != nil {
		return legacyPolicy{}, false
	}
	annotations, _ := meta["annotations"].(map[string]any)
	text, _ := annotations[annotationMetadata].(string)
	var own struct{ Name string }
	stored, _ := meta["name"].(string)
	namespace, _ := meta["namespace"].(string)
	spec, _ := object["spec"].(map[string]any)
	tier, _ := spec["tier"].(string)
	if json.Unmarshal([]byte(text), &own) != nil || own.Name == "" || stored != v3.DefaultTier+"."+own.Name ||
		tier != "" && tier != v3.DefaultTier {
		return legacyPolicy{}, false
	}
	p := legacyPolicy{key: v3.Key{Kind: src.kind, Namespace: namespace, Name: stored}, object: object}
	p.version, _ = meta["resourceVersion"].(string)
	for _, field := range []string{"uid", "resourceVersion", "creationTimestamp", "generation", "managedFields", "selfLink"} {
		delete(meta, field)
	}
	meta["name"] = own.Name
	object["apiVersion"], object["kind"] = src.group, string(src.kind)
	return p, true
}

// rename stores a policy under its name and deletes what it was.
func (s *Store) rename(ctx context.Context, src *source, p legacyPolicy) error {
	err := s.send(ctx, http.MethodPost, src.path(p.key.Namespace, ""), p.object)
	if err == nil || hasCode(err, http.StatusConflict) {
		err = s.send(ctx, http.MethodDelete, src.path(p.key.Namespace, p.key.Name), map[string]any{
			"kind": "DeleteOptions", "apiVersion": "v1", "preconditions": map[string]any{"resourceVersion": p.version},
		})
	}
	switch {
	case err == nil || notFound(err):
		return nil
	case hasCode(err, http.StatusConflict):
		return &store.Error{Key: p.key, Err: store.ErrConflict, Cause: fmt.Errorf("it was changed meanwhile; run the command again: %w", err)}
	}
	return s.fail(ctx, "rename", p.key, err)
}
