package kube

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strconv"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	v3 "margay/api/v3"
	"margay/store"
	"margay/store/kube/convert"
)

// maxAttempts is how often a write is tried again because the object has changed meanwhile.
const maxAttempts = 10

// Create implements store.Store.
func (s *Store) Create(ctx context.Context, r v3.Resource) (v3.Resource, error) {
	result := s.create(ctx, store.Commit, r)
	return result.Resource, result.Err
}

// Update implements store.Store.
func (s *Store) Update(ctx context.Context, r v3.Resource) (v3.Resource, error) {
	result := s.update(ctx, store.Commit, store.Write{Op: store.Update, Resource: r})
	return result.Resource, result.Err
}

// Delete implements store.Store.
func (s *Store) Delete(ctx context.Context, key v3.Key, revision store.Revision) (v3.Resource, error) {
	result := s.delete(ctx, store.Commit, key, revision)
	return result.Resource, result.Err
}

func failed(err error) store.Result { return store.Result{Err: err} }

// refuseDerived refuses to write what is made from an object of Kubernetes.
func refuseDerived(op string, key v3.Key) error {
	id, _ := whereIs(key)
	reason := ""
	switch id {
	case "":
		return nil
	case idPods, "none":
		reason = "it is made from a pod (use kubectl, or write a HostEndpoint)"
		if key.Kind == v3.KindProfile {
			reason = "profiles are made from namespaces and service accounts (use kubectl)"
		}
	case idNamespaces, idAccounts:
		reason = "it is made from a namespace or a service account (use kubectl to change its labels)"
	case idNodes:
		if op == "update" {
			return nil
		}
		reason = "nodes belong to Kubernetes: their kubelets create them"
		if op == "delete" {
			reason = "nodes belong to Kubernetes (use kubectl delete node)"
		}
	case idPolicies:
		reason = "kubernetes network policies must be managed through the kubernetes API"
	case idClusterPolicies:
		reason = "cluster network policies must be managed through the kubernetes API"
	default:
		reason = "it is made from an object of Kubernetes"
	}
	return &store.UnsupportedError{Op: op, Key: key, Reason: reason}
}

// create creates an object, and takes it back if what it depends on turns out not to be as it must.
func (s *Store) create(ctx context.Context, mode store.Mode, r v3.Resource) store.Result {
	key := v3.KeyOf(r)
	prepared, err := store.PrepareCreate(r, time.Now())
	if err != nil {
		return failed(err)
	}
	if err := refuseDerived("create", key); err != nil {
		return failed(err)
	}
	src, at, err := s.place(ctx, key)
	if err != nil {
		return failed(err)
	}
	if err := s.before(ctx, prepared); err != nil {
		// That there is such an object already is the nearer reason.
		if _, _, _, other := s.read(ctx, key); other == nil && errors.As(err, new(v3.Errors)) {
			return failed(store.Exists(key))
		}
		return failed(err)
	}
	body, err := encode(src, prepared, nil)
	if err != nil {
		return failed(err)
	}
	raw, err := s.client.do(ctx, request{method: http.MethodPost, path: src.path(at.namespace, ""), query: queryOf(mode), body: body})
	if err != nil {
		return failed(s.failCreate(ctx, key, err))
	}
	result := s.outcome(src, key, raw, mode)
	if result.Err != nil || mode == store.DryRun {
		if result.Err == nil {
			result.Resource.SetResourceVersion("")
		}
		return result
	}
	if err := s.after(ctx, result.Resource); err != nil {
		return failed(errors.Join(err, s.takeBack(ctx, src, result.Resource)))
	}
	return s.status(ctx, src, prepared, result)
}

// failCreate is fail for a creation, of which "not found" means the namespace.
func (s *Store) failCreate(ctx context.Context, key v3.Key, err error) error {
	if notFound(err) {
		return fmt.Errorf("create %s: %w (kubectl create namespace %s)", key, err, key.Namespace)
	}
	return s.fail(ctx, "create", key, err)
}

// place returns where an object is written.
func (s *Store) place(ctx context.Context, key v3.Key) (*source, address, error) {
	src, at, err := s.locate(ctx, key)
	if err != nil {
		return nil, at, contextual(ctx, err)
	}
	if src == nil || !src.served {
		info, _ := v3.Lookup(key.Kind)
		return nil, at, fmt.Errorf("write %s: the cluster has no resource type %s (install the CustomResourceDefinitions: "+
			"kubectl apply --server-side -f install/crds)", key, info.Plural)
	}
	return src, at, nil
}

func queryOf(mode store.Mode) url.Values {
	q := url.Values{"fieldManager": {fieldManager}}
	if mode == store.DryRun {
		q.Set("dryRun", metav1.DryRunAll)
	}
	return q
}

// encode returns the JSON of a custom resource.
func encode(src *source, r v3.Resource, unknown v3.Unknown) ([]byte, error) {
	value, err := v3.Encode(r)
	if err == nil {
		value, err = unknown.Graft(value)
	}
	if err != nil {
		return nil, fmt.Errorf("encode %s: %w", v3.KeyOf(r), err)
	}
	object, meta, err := parse(value)
	if err != nil {
		return nil, fmt.Errorf("encode %s: %w", v3.KeyOf(r), err)
	}
	if annotations, ok := meta["annotations"].(map[string]any); ok {
		if delete(annotations, annotationMetadata); len(annotations) == 0 {
			delete(meta, "annotations")
		}
	}
	if version := r.GetResourceVersion(); version != "" {
		meta["resourceVersion"] = version
	}
	if src.form == formV1 {
		if err := toV1(object); err != nil {
			return nil, fmt.Errorf("encode %s: %w", v3.KeyOf(r), err)
		}
	}
	body, err := json.Marshal(object)
	if err != nil {
		return nil, fmt.Errorf("encode %s: %w", v3.KeyOf(r), err)
	}
	// What is going to be stored must be readable.
	if it := decodeCustom(src, body); it.fault != nil {
		return nil, fmt.Errorf("encode %s: what would be stored cannot be read: %w", v3.KeyOf(r), it.fault.Err)
	}
	return body, nil
}

// outcome returns the result of a write from the server's answer.
func (s *Store) outcome(src *source, key v3.Key, raw []byte, mode store.Mode) store.Result {
	it := s.decode(src, raw)
	switch {
	case it.fault != nil:
		return failed(it.fault)
	case it.key != key:
		return failed(fmt.Errorf("write %s: the API server answers with %s", key, it.key))
	case mode == store.DryRun:
		return store.Result{Resource: it.resource}
	}
	return store.Result{Resource: it.resource, Revision: s.note(src, it.resource.GetResourceVersion())}
}

// note takes note of the version of a write, and returns the revision that contains it and every earlier write.
func (s *Store) note(src *source, version string) store.Revision {
	n, err := strconv.ParseUint(version, 10, 64)
	s.mu.Lock()
	defer s.mu.Unlock()
	if err == nil {
		s.written[src.id] = max(s.written[src.id], n)
	}
	return s.written.revision()
}

// update replaces an object.
func (s *Store) update(ctx context.Context, mode store.Mode, u store.Write) store.Result {
	key := v3.KeyOf(u.Resource)
	if err := store.CheckUpdate(u.Resource); err != nil {
		return failed(err)
	}
	if err := refuseDerived("update", key); err != nil {
		return failed(err)
	}
	src, it, raw, err := s.read(ctx, key)
	if err != nil {
		return failed(err)
	}
	version := u.Resource.GetResourceVersion()
	if it.version() != version {
		return failed(&store.Error{Key: key, Err: store.ErrConflict})
	}
	if src.form == formDerived {
		return s.updateNode(ctx, mode, u.Resource.(*v3.Node), raw)
	}
	stored, err := storedValue(src, raw)
	if err != nil {
		stored = raw // what cannot be read is replaced
	}
	prepared, err := store.PrepareUpdate(u.Resource, stored, time.Now())
	if err != nil {
		return failed(err)
	}
	if err := s.before(ctx, prepared); err != nil {
		return failed(err)
	}
	kept, dropped := u.Unknown, v3.Unknown(nil)
	if kept == nil && it.fault == nil {
		all, err := v3.UnknownOf(it.resource, stored)
		if err != nil {
			return failed(err)
		}
		kept, dropped = all.Split("spec")
	}
	prepared.SetResourceVersion(version)
	body, err := encode(src, prepared, kept)
	if err != nil {
		return failed(err)
	}
	result := s.put(ctx, mode, target{src, key}, body)
	if result.Err == nil && mode == store.Commit {
		result = s.status(ctx, src, prepared, result)
	}
	if result.Err == nil {
		result.Dropped = dropped
		if mode == store.DryRun {
			result.Resource.SetResourceVersion(version)
		}
	}
	return result
}

// version returns the resourceVersion of what an item is of.
func (it item) version() string {
	if it.fault != nil {
		return string(it.fault.Revision)
	}
	return it.resource.GetResourceVersion()
}

// A target is a custom resource that a request is about, and the source that it is of.
type target struct {
	src *source
	key v3.Key
}

func (t target) path() string { return t.src.path(t.key.Namespace, t.key.Name) }

// put sends the new value of an object.
func (s *Store) put(ctx context.Context, mode store.Mode, t target, body []byte) store.Result {
	raw, err := s.client.do(ctx, request{method: http.MethodPut, path: t.path(), query: queryOf(mode), body: body})
	if notFound(err) {
		return failed(store.NotFound(t.key))
	}
	if err != nil {
		return failed(s.fail(ctx, "update", t.key, err))
	}
	return s.outcome(t.src, t.key, raw, mode)
}

// status writes the status of an object whose definition has it apart, in which case the server left it as it was.
func (s *Store) status(ctx context.Context, src *source, want v3.Resource, result store.Result) store.Result {
	if result.Err != nil || v3.SameStatus(want, result.Resource) {
		return result
	}
	c := want
	c.SetResourceVersion(result.Resource.GetResourceVersion())
	c.SetUID(result.Resource.GetUID())
	body, err := encode(src, c, nil)
	if err != nil {
		return failed(err)
	}
	key := v3.KeyOf(want)
	raw, err := s.client.do(ctx, request{
		method: http.MethodPut, path: src.path(key.Namespace, key.Name) + "/status", query: queryOf(store.Commit), body: body,
	})
	if notFound(err) {
		return result // the definition knows no status
	}
	if err != nil {
		return failed(s.fail(ctx, "update the status of", key, err))
	}
	return s.outcome(src, key, raw, store.Commit)
}

// updateNode writes what Calico's Node has of its own into annotations of the Kubernetes Node.
func (s *Store) updateNode(ctx context.Context, mode store.Mode, r *v3.Node, raw []byte) store.Result {
	key := v3.KeyOf(r)
	if err := v3.Validate(r); err != nil {
		return failed(err)
	}
	var node corev1.Node
	if err := json.Unmarshal(raw, &node); err != nil {
		return failed(fmt.Errorf("update %s: %w", key, err))
	}
	old := node.Annotations
	convert.SetNode(r, &node)
	changes := map[string]any{}
	for name := range old {
		if _, kept := node.Annotations[name]; !kept {
			changes[name] = nil
		}
	}
	for name, value := range node.Annotations {
		if old[name] != value {
			changes[name] = value
		}
	}
	body, err := json.Marshal(map[string]any{"metadata": map[string]any{
		"resourceVersion": node.ResourceVersion, "annotations": changes,
	}})
	if err != nil {
		return failed(fmt.Errorf("update %s: %w", key, err))
	}
	src := derivedSources(v3.KindNode)[0]
	raw, err = s.client.do(ctx, request{method: http.MethodPatch, path: src.path("", r.Name), query: queryOf(mode), body: body})
	if err != nil {
		return failed(s.fail(ctx, "update", key, err))
	}
	result := s.outcome(src, key, raw, mode)
	if result.Err == nil && mode == store.DryRun {
		result.Resource.SetResourceVersion(r.ResourceVersion)
	}
	return result
}

// delete removes an object.
func (s *Store) delete(ctx context.Context, mode store.Mode, key v3.Key, revision store.Revision) store.Result {
	if err := store.CheckDelete(key); err != nil {
		return failed(err)
	}
	if err := refuseDerived("delete", key); err != nil {
		return failed(err)
	}
	for range maxAttempts {
		src, it, _, err := s.read(ctx, key)
		if err != nil {
			return failed(err)
		}
		if revision != "" && it.version() != string(revision) {
			return failed(&store.Error{Key: key, Err: store.ErrConflict})
		}
		result := s.remove(ctx, mode, src, it)
		if !errors.Is(result.Err, store.ErrConflict) {
			return result
		}
	}
	return failed(&store.Error{Key: key, Err: store.ErrConflict, Cause: errors.New("it keeps changing")})
}

// remove deletes what was read, if it still is what it was.
func (s *Store) remove(ctx context.Context, mode store.Mode, src *source, it item) store.Result {
	version := it.version()
	if it.key.Kind == v3.KindTier {
		var err error
		if version, err = s.closeTier(ctx, mode, it); err != nil {
			return failed(err)
		}
	}
	deleted, err := s.deleteAt(ctx, mode, target{src, it.key}, version)
	if err != nil {
		return failed(err)
	}
	r := it.resource
	if r == nil {
		info, _ := v3.Lookup(it.key.Kind)
		r = info.New()
		r.SetNamespace(it.key.Namespace)
		r.SetName(it.key.Name)
		r.SetResourceVersion(version)
	}
	result := store.Result{Resource: r}
	if mode == store.Commit {
		result.Revision = s.note(src, deleted)
	}
	return result
}

// deleteAt deletes an object that has the version given, and returns the version of the deletion.
func (s *Store) deleteAt(ctx context.Context, mode store.Mode, t target, version string) (string, error) {
	options := metav1.DeleteOptions{
		TypeMeta:      metav1.TypeMeta{Kind: "DeleteOptions", APIVersion: "v1"},
		Preconditions: &metav1.Preconditions{ResourceVersion: &version},
	}
	if mode == store.DryRun {
		options.DryRun = []string{metav1.DryRunAll}
	}
	body, err := json.Marshal(options)
	if err != nil {
		return "", fmt.Errorf("delete %s: %w", t.key, err)
	}
	raw, err := s.client.do(ctx, request{method: http.MethodDelete, path: t.path(), body: body})
	if notFound(err) {
		return "", store.NotFound(t.key)
	}
	if err != nil {
		return "", s.fail(ctx, "delete", t.key, err)
	}
	var h head
	_ = json.Unmarshal(raw, &h) // a Status has no version
	if h.Metadata.ResourceVersion != "" || mode == store.DryRun {
		return h.Metadata.ResourceVersion, nil
	}
	return s.deletionOf(ctx, t, version)
}

// deletionOf returns the version at which an object was deleted, which had the version given: a watch on it from there on
// tells.
func (s *Store) deletionOf(ctx context.Context, t target, version string) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, s.client.timeout)
	defer cancel()
	resp, err := s.client.send(ctx, request{path: t.src.path(t.key.Namespace, ""), query: url.Values{
		"watch": {"1"}, "resourceVersion": {version}, "fieldSelector": {"metadata.name=" + t.key.Name},
	}})
	if hasCode(err, http.StatusGone) {
		return "", nil
	}
	if err != nil {
		return "", s.fail(ctx, "delete", t.key, err)
	}
	defer resp.Body.Close()
	for d := json.NewDecoder(resp.Body); ; {
		var e watchEvent
		if err := d.Decode(&e); err != nil {
			return "", s.fail(ctx, "delete", t.key, err)
		}
		var h head
		switch {
		case e.Type == eventError, json.Unmarshal(e.Object, &h) != nil:
			return "", nil
		case e.Type == eventDeleted:
			return h.Metadata.ResourceVersion, nil
		case bytes.Contains(e.Object, []byte(`"deletionTimestamp"`)):
			return h.Metadata.ResourceVersion, nil // somebody's finalizer keeps it for now
		}
	}
}

// takeBack deletes what was created just now.
func (s *Store) takeBack(ctx context.Context, src *source, r v3.Resource) error {
	_, err := s.deleteAt(ctx, store.Commit, target{src, v3.KeyOf(r)}, r.GetResourceVersion())
	if err != nil && !errors.Is(err, store.ErrNotFound) {
		return fmt.Errorf("take back %s: %w", v3.KeyOf(r), err)
	}
	return nil
}

// Initialise implements store.Store.
func (s *Store) Initialise(ctx context.Context) error {
	resources, err := store.Initial()
	if err != nil {
		return err
	}
	for _, r := range resources {
		_, err := s.Get(ctx, v3.KeyOf(r))
		var fault *store.Fault
		if err == nil || errors.As(err, &fault) {
			continue
		}
		if errors.Is(err, store.ErrNotFound) {
			_, err = s.Create(ctx, r)
		}
		switch {
		case err == nil, errors.Is(err, store.ErrExists): // somebody else initialises at the same time
		case errors.Is(err, store.ErrForbidden):
			return fmt.Errorf("initialise datastore: %w (it is for kube-controllers, or for who installs: agents need no such right)", err)
		default:
			return fmt.Errorf("initialise datastore: %w", err)
		}
	}
	return nil
}
