package kube

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	coordinationv1 "k8s.io/api/coordination/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/validation"

	v3 "margay/api/v3"
	"margay/store"
)

// What an agent reports is in a Lease of its own, in one namespace. Leases are what Kubernetes has for signs of life: they
// are small, have a time to live (which readers keep: the server deletes nothing by itself), and are watched by hardly
// anybody, unlike ConfigMaps, whose every change goes to many programs. An agent needs no right but on Leases there. The
// report is an annotation, which bounds it to what fits there; the Lease belongs to the Node, with which it goes.

const (
	// annotationStatus holds the report as JSON.
	annotationStatus = "margay.io/status"
	// labelStatus marks the leases.
	labelStatus = "margay.io/report"
	// maxStatus is how many bytes a report may have: all annotations of an object have 256 KiB.
	maxStatus = 200 << 10
)

// A report is what is known of the lease of a node.
type report struct {
	version string // its resourceVersion
	owner   []metav1.OwnerReference
}

// ReportStatus implements store.Store.
func (s *Store) ReportStatus(ctx context.Context, status store.NodeStatus) error {
	if status.Node == "" {
		return errors.New("report status: the status names no node")
	}
	key := v3.Key{Kind: v3.KindNode, Name: status.Node}
	value, err := statusText(status)
	if err != nil {
		return fmt.Errorf("report status of %s: %w", key, err)
	}
	s.mu.Lock()
	known := s.reports[status.Node]
	s.mu.Unlock()
	for range maxAttempts {
		if known.version == "" {
			if known, err = s.findReport(ctx, status.Node, known.owner); err != nil {
				return s.fail(ctx, "report status of", key, err)
			}
		}
		raw, err := s.putReport(ctx, status, value, known)
		if hasCode(err, http.StatusConflict) || notFound(err) && known.version != "" {
			known.version = ""
			continue
		}
		if err != nil {
			return s.failReport(ctx, key, err)
		}
		var h head
		if err := json.Unmarshal(raw, &h); err != nil {
			return fmt.Errorf("report status of %s: %w", key, err)
		}
		known.version = h.Metadata.ResourceVersion
		s.mu.Lock()
		s.reports[status.Node] = known
		s.mu.Unlock()
		return nil
	}
	return &store.Error{Key: key, Err: store.ErrConflict, Cause: errors.New("its report keeps changing")}
}

// failReport says what to do about a namespace that is not there.
func (s *Store) failReport(ctx context.Context, key v3.Key, err error) error {
	if notFound(err) {
		return fmt.Errorf("report status of %s: %w (kubectl create namespace %s)", key, err, s.cfg.StatusNamespace)
	}
	return s.fail(ctx, "report status of", key, err)
}

// statusText returns a report as JSON. One that is too long loses the states of endpoints, then all but the first of its
// lists.
func statusText(status store.NodeStatus) (string, error) {
	text, err := json.Marshal(status)
	if len(text) > maxStatus {
		status.Endpoints = nil
		text, err = json.Marshal(status)
	}
	for keep := 256; err == nil && len(text) > maxStatus && keep > 0; keep /= 2 {
		for _, list := range []*[]string{&status.Faults, &status.Unused, &status.Warnings} {
			if len(*list) > keep {
				*list = append(slices.Clone((*list)[:keep]), fmt.Sprintf("and %d more", len(*list)-keep))
			}
		}
		text, err = json.Marshal(status)
	}
	if err == nil && len(text) > maxStatus {
		err = fmt.Errorf("the report has %d bytes, more than the %d that fit", len(text), maxStatus)
	}
	return string(text), err
}

func (s *Store) leases(name string) string {
	path := "/apis/coordination.k8s.io/v1/namespaces/" + s.cfg.StatusNamespace + "/leases"
	if name != "" {
		path += "/" + name
	}
	return path
}

// leaseName returns the name of a node's lease. What is no name in Kubernetes gets a hash.
func leaseName(node string) string {
	name := "margay." + node
	if len(validation.IsDNS1123Subdomain(name)) > 0 {
		sum := sha256.Sum256([]byte(node))
		name = "margay-" + hex.EncodeToString(sum[:16])
	}
	return name
}

// findReport reads the lease of a node, and the Node that it is to belong to.
func (s *Store) findReport(ctx context.Context, node string, owner []metav1.OwnerReference) (report, error) {
	raw, err := s.client.do(ctx, request{method: http.MethodGet, path: s.leases(leaseName(node))})
	if err != nil && !notFound(err) {
		return report{}, err
	}
	found := report{owner: owner}
	if err == nil {
		var h head
		if err := json.Unmarshal(raw, &h); err != nil {
			return report{}, err
		}
		found.version = h.Metadata.ResourceVersion
	}
	if owner == nil && checkKey(v3.Key{Kind: v3.KindNode, Name: node}) == nil {
		r, err := s.Get(ctx, v3.Key{Kind: v3.KindNode, Name: node})
		switch {
		case err == nil:
			found.owner = []metav1.OwnerReference{{APIVersion: "v1", Kind: "Node", Name: node, UID: r.GetUID()}}
		case !errors.Is(err, store.ErrNotFound):
			return report{}, err
		}
	}
	return found, nil
}

// putReport writes the lease.
func (s *Store) putReport(ctx context.Context, status store.NodeStatus, value string, known report) ([]byte, error) {
	now := metav1.NewMicroTime(time.Now())
	lease := coordinationv1.Lease{
		TypeMeta: metav1.TypeMeta{Kind: "Lease", APIVersion: "coordination.k8s.io/v1"},
		ObjectMeta: metav1.ObjectMeta{
			Name: leaseName(status.Node), Namespace: s.cfg.StatusNamespace, ResourceVersion: known.version, OwnerReferences: known.owner,
			Labels: map[string]string{labelStatus: "node"}, Annotations: map[string]string{annotationStatus: value},
		},
		Spec: coordinationv1.LeaseSpec{HolderIdentity: &status.Node, RenewTime: &now},
	}
	if status.TTLSeconds > 0 {
		ttl := int32(min(status.TTLSeconds, 1<<30))
		lease.Spec.LeaseDurationSeconds = &ttl
	}
	body, err := json.Marshal(lease)
	if err != nil {
		return nil, err
	}
	r := request{method: http.MethodPost, path: s.leases(""), query: queryOf(store.Commit), body: body}
	if known.version != "" {
		r.method, r.path = http.MethodPut, s.leases(lease.Name)
	}
	return s.client.do(ctx, r)
}

// Statuses implements store.Store. The result is ordered by node; a status that cannot be read says so in its Detail.
func (s *Store) Statuses(ctx context.Context) ([]store.NodeStatus, error) {
	byNode := map[string]store.NodeStatus{}
	query := url.Values{"labelSelector": {labelStatus + "=node"}}
	src := &source{id: "leases", group: "coordination.k8s.io/v1", plural: "leases", namespaced: true, query: query, served: true}
	_, err := s.pages(ctx, src, listing{
		namespace: s.cfg.StatusNamespace, restart: func() { clear(byNode) },
		each: func(raw []byte) {
			if status, ok := readReport(raw, time.Now()); ok {
				byNode[status.Node] = status
			}
		},
	})
	if err != nil {
		return nil, err
	}
	return slices.SortedFunc(maps.Values(byNode), func(a, b store.NodeStatus) int { return cmp.Compare(a.Node, b.Node) }), nil
}

// readReport returns what a lease says; false if it has run out.
func readReport(raw []byte, now time.Time) (status store.NodeStatus, ok bool) {
	var lease coordinationv1.Lease
	if err := json.Unmarshal(raw, &lease); err != nil {
		return status, false
	}
	if d, at := lease.Spec.LeaseDurationSeconds, lease.Spec.RenewTime; d != nil && at != nil &&
		now.After(at.Add(time.Duration(*d)*time.Second)) {
		return status, false
	}
	if err := json.Unmarshal([]byte(lease.Annotations[annotationStatus]), &status); err != nil {
		status = store.NodeStatus{Detail: fmt.Sprintf("its status cannot be read: %v", err)}
	}
	if lease.Spec.HolderIdentity != nil {
		status.Node = *lease.Spec.HolderIdentity
	}
	return status, strings.TrimSpace(status.Node) != ""
}
