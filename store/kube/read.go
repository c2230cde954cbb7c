package kube

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"sync"

	v3 "margay/api/v3"
	"margay/store"
	"margay/store/kube/convert"
)

const (
	// pageSize is how many objects one request lists at most.
	pageSize = 500
	// maxLists is how often a list is begun again because the server dropped the state that its pages are of.
	maxLists = 3
	// listsAtOnce bounds how many resource types are listed at the same time.
	listsAtOnce = 4
)

// Get implements store.Store.
func (s *Store) Get(ctx context.Context, key v3.Key) (v3.Resource, error) {
	if builtIn(key) {
		return store.DefaultAllowProfile(), nil
	}
	_, it, _, err := s.read(ctx, key)
	switch {
	case err != nil:
		return nil, err
	case it.fault != nil:
		return nil, it.fault
	}
	return it.resource, nil
}

func builtIn(key v3.Key) bool {
	return key.Kind == v3.KindProfile && key.Name == v3.ProfileDefaultAllow
}

// read returns what is stored under a key, and where.
func (s *Store) read(ctx context.Context, key v3.Key) (*source, item, []byte, error) {
	src, name, err := s.locate(ctx, key)
	if err != nil {
		return nil, item{}, nil, err
	}
	none := store.NotFound(key)
	if src == nil || !src.served {
		return nil, item{}, nil, none
	}
	raw, err := s.client.do(ctx, request{method: http.MethodGet, path: src.path(name.namespace, name.name)})
	if notFound(err) {
		return nil, item{}, nil, none
	}
	if err != nil {
		return nil, item{}, nil, s.fail(ctx, "read", key, err)
	}
	it := s.decode(src, raw)
	if it.key != key { // a pod that is on another node than the name says, a policy of another tier
		return nil, item{}, nil, none
	}
	return src, it, raw, nil
}

// An address is where an object is among those of its source.
type address struct{ namespace, name string }

// locate returns the source and the name there of what a key stands for; no source if it can stand for nothing.
func (s *Store) locate(ctx context.Context, key v3.Key) (*source, address, error) {
	if err := checkKey(key); err != nil {
		return nil, address{}, err
	}
	sources, err := s.sources(ctx, []v3.Kind{key.Kind})
	if err != nil {
		return nil, address{}, err
	}
	id, at := whereIs(key)
	for _, src := range sources {
		if id == src.id || id == "" && src.form != formDerived {
			return src, at, nil
		}
	}
	return nil, at, nil
}

// whereIs returns the source that the object of a key is made from, "" for a custom resource, and its name there.
func whereIs(key v3.Key) (id string, at address) {
	at = address{key.Namespace, key.Name}
	switch key.Kind {
	case v3.KindNode:
		return idNodes, at
	case v3.KindServiceEndpoints:
		return idSlices, at
	case v3.KindWorkloadEndpoint:
		if parts := v3.SplitEndpointName(key.Name); len(parts) == 4 && parts[1] == v3.OrchestratorKubernetes {
			at.name = parts[2]
			return idPods, at
		}
		return "none", at
	case v3.KindProfile:
		if name, ok := strings.CutPrefix(key.Name, v3.PrefixNamespaceProfile); ok {
			return idNamespaces, address{"", name}
		}
		if rest, ok := strings.CutPrefix(key.Name, v3.PrefixServiceAccountProfile); ok {
			// A namespace has no dots.
			namespace, name, _ := strings.Cut(rest, ".")
			return idAccounts, address{namespace, name}
		}
		return "none", at
	case v3.KindNetworkPolicy:
		if name, ok := strings.CutPrefix(key.Name, v3.PrefixKubernetesPolicy); ok {
			return idPolicies, address{key.Namespace, name}
		}
	case v3.KindGlobalNetworkPolicy:
		for _, tier := range []string{v3.TierKubeAdmin, v3.TierKubeBaseline} {
			if name, ok := strings.CutPrefix(key.Name, convert.ClusterPolicyName(tier, "")); ok {
				return idClusterPolicies, address{"", name}
			}
		}
	}
	return "", at
}

// checkKey refuses what can be no object's key, before it becomes part of a path.
func checkKey(key v3.Key) error {
	info, ok := v3.Lookup(key.Kind)
	switch {
	case !ok:
		return fmt.Errorf("find %s: resource type %q is not supported", key, key.Kind)
	case key.Name == "":
		return fmt.Errorf("find %s: insufficient identifiers, missing 'Name'", key)
	case info.Namespaced && key.Namespace == "":
		return fmt.Errorf("find %s: namespace is not specified on namespaced resource", key)
	case !info.Namespaced && key.Namespace != "":
		return fmt.Errorf("find %s: namespace is specified on a resource of the cluster", key)
	}
	for _, part := range []string{key.Namespace, key.Name} {
		if strings.ContainsAny(part, "/%") || part == "." || part == ".." {
			return fmt.Errorf("find %s: a name has no slash or percent sign in Kubernetes", key)
		}
	}
	return nil
}

// List implements store.Store. The objects of each source are those of one version; those of different sources are not.
func (s *Store) List(ctx context.Context, namespace string, kinds ...v3.Kind) (*store.List, error) {
	sources, err := s.sources(ctx, kinds)
	if err != nil {
		return nil, contextual(ctx, err)
	}
	parts := make([][]item, len(sources))
	versions := make([]uint64, len(sources))
	err = each(len(sources), listsAtOnce, func(i int) (err error) {
		parts[i], versions[i], err = s.listItems(ctx, sources[i], namespace)
		return err
	})
	if err != nil {
		return nil, err
	}
	list, state := &store.List{}, vector{}
	for i, src := range sources {
		state[src.id] = versions[i]
		for _, it := range parts[i] {
			if it.fault != nil {
				list.Faults = append(list.Faults, *it.fault)
			} else {
				list.Items = append(list.Items, it.resource)
			}
		}
		parts[i] = nil
	}
	if slices.Contains(kinds, v3.KindProfile) {
		list.Items = append(list.Items, store.DefaultAllowProfile())
	}
	sortList(list, kinds)
	list.Revision = state.state()
	return list, nil
}

// contextual makes an error of discovery, which several callers may share, the caller's own.
func contextual(ctx context.Context, err error) error {
	if errors.Is(ctx.Err(), context.Canceled) {
		return ctx.Err()
	}
	return err
}

// each calls do for 0 to n-1, some at the same time, and returns the first error by number.
func each(n, atOnce int, do func(int) error) error {
	errs := make([]error, n)
	slots := make(chan struct{}, atOnce)
	var wg sync.WaitGroup
	for i := range n {
		slots <- struct{}{}
		wg.Go(func() {
			defer func() { <-slots }()
			errs[i] = do(i)
		})
	}
	wg.Wait()
	for _, err := range errs {
		if err != nil {
			return err
		}
	}
	return nil
}

// listItems lists a source, page by page: what is not kept of an object is gone before the next page comes.
func (s *Store) listItems(ctx context.Context, src *source, namespace string) ([]item, uint64, error) {
	if !src.served {
		return nil, 0, nil
	}
	if namespace != "" && !src.namespaced {
		namespace = ""
		if info, _ := v3.Lookup(src.kind); info.Namespaced {
			return nil, 0, nil
		}
	}
	var items []item
	version, err := s.pages(ctx, src, listing{namespace: namespace, restart: func() { items = nil }, each: func(raw []byte) {
		if it := s.decode(src, raw); it.key != (v3.Key{}) {
			items = append(items, it)
		}
	}})
	return items, version, err
}

// A listing says what to do with the objects of a source.
type listing struct {
	namespace string
	accept    string
	restart   func() // forget what came
	each      func(raw []byte)
}

// page is an answer to a list request.
type page struct {
	Metadata struct {
		ResourceVersion string `json:"resourceVersion"`
		Continue        string `json:"continue"`
	} `json:"metadata"`
	Items []json.RawMessage `json:"items"`
}

// pages lists a source and returns the version that the list is of.
func (s *Store) pages(ctx context.Context, src *source, l listing) (version uint64, err error) {
	for range maxLists {
		l.restart()
		version, err = s.tryPages(ctx, src, l)
		if !hasCode(err, http.StatusGone) {
			break
		}
	}
	switch {
	case err == nil:
		return version, nil
	case notFound(err):
		return 0, s.vanished(ctx, src)
	}
	return 0, s.fail(ctx, "list "+src.String()+" for", v3.Key{}, err)
}

// vanished is the error of a resource type that the server said it serves, and that it answers not found for: until it
// says otherwise, that is no empty list.
func (s *Store) vanished(ctx context.Context, src *source) error {
	if ctx.Err() != nil {
		return s.fail(ctx, "list", v3.Key{}, ctx.Err())
	}
	s.forget()
	return &store.Error{Err: store.ErrUnavailable, Cause: fmt.Errorf("the API server has no %s at the moment", src)}
}

func (s *Store) tryPages(ctx context.Context, src *source, l listing) (version uint64, err error) {
	query := url.Values{"limit": {strconv.Itoa(pageSize)}}
	maps.Copy(query, src.query)
	for {
		body, err := s.client.do(ctx, request{path: src.path(l.namespace, ""), query: query, accept: l.accept})
		if err != nil {
			return 0, err
		}
		var p page
		if err := json.Unmarshal(body, &p); err != nil {
			return 0, fmt.Errorf("read a list of %s: %w", src, err)
		}
		for _, raw := range p.Items {
			l.each(raw)
		}
		if p.Metadata.Continue == "" {
			if version, err = strconv.ParseUint(p.Metadata.ResourceVersion, 10, 64); err != nil {
				return 0, fmt.Errorf("read a list of %s: resourceVersion %q is no number", src, p.Metadata.ResourceVersion)
			}
			return version, nil
		}
		query.Set("continue", p.Metadata.Continue)
	}
}

// sortList sorts by kind as given, namespace, name.
func sortList(list *store.List, kinds []v3.Kind) {
	order := func(a, b v3.Key) int {
		return cmp.Or(
			cmp.Compare(slices.Index(kinds, a.Kind), slices.Index(kinds, b.Kind)),
			cmp.Compare(a.Namespace, b.Namespace), cmp.Compare(a.Name, b.Name))
	}
	slices.SortFunc(list.Items, func(a, b v3.Resource) int { return order(v3.KeyOf(a), v3.KeyOf(b)) })
	slices.SortFunc(list.Faults, func(a, b store.Fault) int { return order(a.Key, b.Key) })
}

// Inspect implements store.Store. What the server itself keeps in metadata is no unknown field.
func (s *Store) Inspect(ctx context.Context, key v3.Key) (v3.Resource, v3.Unknown, error) {
	if builtIn(key) {
		return store.DefaultAllowProfile(), nil, nil
	}
	src, it, raw, err := s.read(ctx, key)
	switch {
	case err != nil:
		return nil, nil, err
	case it.fault != nil:
		return nil, nil, it.fault
	case src.form == formDerived:
		return it.resource, nil, nil
	}
	value, err := storedValue(src, raw)
	if err != nil {
		return nil, nil, fmt.Errorf("inspect %s: %w", key, err)
	}
	unknown, err := v3.UnknownOf(it.resource, value)
	return it.resource, unknown, err
}

// storedValue returns a custom resource without what the server itself keeps in its metadata.
func storedValue(src *source, raw []byte) ([]byte, error) {
	var err error
	if src.form == formV1 {
		if raw, err = fromV1(raw); err != nil {
			return nil, err
		}
	}
	object, meta, err := parse(raw)
	if err != nil {
		return nil, err
	}
	for _, field := range []string{"managedFields", "generation", "selfLink", "deletionTimestamp", "deletionGracePeriodSeconds"} {
		delete(meta, field)
	}
	if annotations, ok := meta["annotations"].(map[string]any); ok {
		if delete(annotations, annotationMetadata); len(annotations) == 0 {
			delete(meta, "annotations")
		}
	}
	return json.Marshal(object)
}

// metadataOnly asks for lists of objects without spec and status.
const metadataOnly = "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1"

// LastChange implements store.Store. The server has no history: of deletions nothing is known.
func (s *Store) LastChange(ctx context.Context, kinds ...v3.Kind) (store.Revision, error) {
	sources, err := s.sources(ctx, kinds)
	if err != nil {
		return "", contextual(ctx, err)
	}
	highest := make([]uint64, len(sources))
	err = each(len(sources), listsAtOnce, func(i int) error {
		if !sources[i].served {
			return nil
		}
		_, err := s.pages(ctx, sources[i], listing{accept: metadataOnly, restart: func() { highest[i] = 0 }, each: func(raw []byte) {
			var h head
			if json.Unmarshal(raw, &h) == nil {
				n, _ := strconv.ParseUint(h.Metadata.ResourceVersion, 10, 64)
				highest[i] = max(highest[i], n)
			}
		}})
		return err
	})
	if err != nil {
		return "", err
	}
	last := vector{}
	for i, src := range sources {
		if highest[i] > 0 {
			last[src.id] = highest[i]
		}
	}
	return last.revision(), nil
}

// Previous implements store.Store. The API server gives no access to earlier versions.
func (s *Store) Previous(ctx context.Context, key v3.Key, _ store.Revision) (v3.Resource, error) {
	if err := ctx.Err(); err != nil {
		return nil, s.fail(ctx, "read an earlier version of", key, err)
	}
	return nil, &store.Error{Key: key, Err: store.ErrCompacted, Cause: errors.New("the Kubernetes API keeps no earlier versions")}
}
