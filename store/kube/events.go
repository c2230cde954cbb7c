package kube

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"net/http"
	"strings"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	v3 "margay/api/v3"
	"margay/store"
)

var _ store.Notifier = (*Store)(nil)

const (
	// eventSource is who says so, in the column From of kubectl describe.
	eventSource = "margay"
	// maxMessage is how long the text of an Event may be by events.k8s.io/v1, in bytes.
	maxMessage = 1024
	// eventHash is what is added to the name of an object to make that of an Event: a dot and 16 digits.
	eventHash = 17
)

// Notify implements store.Notifier with Events of the core group, which kubectl describe shows of any object. The name of an
// Event follows from what it is about, so that it is one for all who notice the same: instances that lead one after the
// other, or an object that is warned of again. The server forgets an Event some time after it was last shown. It needs leave
// to get the object, and to create and patch Events.
func (s *Store) Notify(ctx context.Context, n store.Notice) error {
	object, err := s.reference(ctx, n.Key)
	if err != nil {
		return err
	}
	now := metav1.Now()
	event := &corev1.Event{
		TypeMeta: metav1.TypeMeta{Kind: "Event", APIVersion: "v1"}, ObjectMeta: metav1.ObjectMeta{Name: eventName(n, object), Namespace: object.Namespace},
		InvolvedObject: *object, Type: corev1.EventTypeWarning, Reason: n.Reason, Message: shortMessage(n.Text),
		Source: corev1.EventSource{Component: eventSource, Host: n.Node}, FirstTimestamp: now, LastTimestamp: now, Count: 1,
	}
	if event.Namespace == "" {
		event.Namespace = metav1.NamespaceDefault // where Kubernetes has those of objects without one
	}
	path := "/api/v1/namespaces/" + event.Namespace + "/events"
	if n.Over {
		return s.showOver(ctx, path+"/"+event.Name, n)
	}
	err = s.send(ctx, http.MethodPost, path, event)
	if hasCode(err, http.StatusConflict) {
		err = s.showAgain(ctx, path+"/"+event.Name, event)
	}
	if err != nil {
		return s.fail(ctx, "tell of", n.Key, err)
	}
	return nil
}

// send makes a request with an object.
func (s *Store) send(ctx context.Context, method, path string, object any) error {
	body, err := json.Marshal(object)
	if err == nil {
		_, err = s.client.do(ctx, request{method: method, path: path, body: body})
	}
	return err
}

// showAgain brings an Event up to date. How often it was shown is what the server answers to that.
func (s *Store) showAgain(ctx context.Context, path string, event *corev1.Event) error {
	body, err := json.Marshal(map[string]any{
		"lastTimestamp": event.LastTimestamp, "message": event.Message, "source": event.Source, "type": event.Type,
	})
	if err != nil {
		return err
	}
	answer, err := s.client.do(ctx, request{method: http.MethodPatch, path: path, body: body})
	if err != nil {
		return err
	}
	var now corev1.Event
	if err := json.Unmarshal(answer, &now); err != nil {
		return fmt.Errorf("read an Event: %w", err)
	}
	return s.send(ctx, http.MethodPatch, path, map[string]any{"count": now.Count + 1})
}

// showOver has an Event say that it is history. Deleting it would need leave to delete those of others, too.
func (s *Store) showOver(ctx context.Context, path string, n store.Notice) error {
	err := s.send(ctx, http.MethodPatch, path, map[string]any{
		"lastTimestamp": metav1.Now(), "type": corev1.EventTypeNormal, "message": shortMessage("no agent says so any longer: " + n.Text),
	})
	if err == nil || notFound(err) { // the server has forgotten it
		return nil
	}
	return s.fail(ctx, "tell of", n.Key, err)
}

// shortMessage returns a text as an Event has it.
func shortMessage(text string) string {
	if len(text) <= maxMessage {
		return text
	}
	const rest = "... (margay status has it all)"
	return strings.ToValidUTF8(text[:maxMessage-len(rest)], "") + rest
}

// eventName returns the name of the object and a hash.
func eventName(n store.Notice, object *corev1.ObjectReference) string {
	sum := sha256.Sum256([]byte(strings.Join([]string{string(object.UID), n.Reason, n.ID}, "\x00")))
	name := strings.Trim(object.Name[:min(len(object.Name), 253-eventHash)], ".-")
	return name + "." + hex.EncodeToString(sum[:(eventHash-1)/2])
}

// reference says which object of the API server is meant by a key: that which the resource is made from.
func (s *Store) reference(ctx context.Context, key v3.Key) (*corev1.ObjectReference, error) {
	src, at, err := s.locate(ctx, key)
	if err != nil {
		return nil, err
	}
	gone := store.NotFound(key)
	if src == nil || !src.served {
		return nil, gone
	}
	raw, err := s.client.do(ctx, request{method: http.MethodGet, path: src.path(at.namespace, at.name)})
	if notFound(err) {
		return nil, gone
	}
	if err != nil {
		return nil, s.fail(ctx, "find", key, err)
	}
	var h struct {
		Metadata metav1.ObjectMeta `json:"metadata"`
	}
	if err := json.Unmarshal(raw, &h); err != nil {
		return nil, fmt.Errorf("find %s: %w", key, err)
	}
	return &corev1.ObjectReference{
		APIVersion: src.group, Kind: src.kindName(), Namespace: at.namespace, Name: at.name, UID: h.Metadata.UID,
		ResourceVersion: h.Metadata.ResourceVersion,
	}, nil
}

// kindName returns what the API server calls the objects of a source.
func (s *source) kindName() string {
	switch s.id {
	case idPods:
		return "Pod"
	case idNamespaces:
		return "Namespace"
	case idAccounts:
		return "ServiceAccount"
	case idSlices:
		return "EndpointSlice"
	case idPolicies:
		return "NetworkPolicy"
	case idClusterPolicies:
		return "ClusterNetworkPolicy"
	}
	return string(s.kind)
}
