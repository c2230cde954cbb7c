package kube

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	v3 "margay/api/v3"
	"margay/store"
)

// fail turns what became of a request into an error of package store. ctx is the caller's; key is the object, zero if
// there are several.
func (s *Store) fail(ctx context.Context, op string, key v3.Key, err error) error {
	object := " resources"
	if key != (v3.Key{}) {
		object = " " + key.String()
	}
	if errors.Is(ctx.Err(), context.Canceled) {
		return fmt.Errorf("%s%s: %w", op, object, ctx.Err())
	}
	var known *store.Error
	if errors.As(err, &known) {
		return err
	}
	var status *statusError
	if !errors.As(err, &status) {
		return &store.Error{Err: store.ErrUnavailable, Cause: &outage{s.client.base.Host, err}}
	}
	switch code := status.code; {
	case code == http.StatusUnauthorized || code == http.StatusForbidden:
		return &store.Error{Err: store.ErrForbidden, Cause: fmt.Errorf("%w (the cluster's RBAC rules or the credentials do not allow it)", err)}
	case code == http.StatusConflict && status.reason == metav1.StatusReasonAlreadyExists:
		return store.Exists(key)
	case code == http.StatusConflict:
		return &store.Error{Key: key, Err: store.ErrConflict}
	case code == http.StatusGone:
		return &store.Error{Key: key, Err: store.ErrCompacted, Cause: err}
	case code == http.StatusNotFound:
		return &store.Error{Key: key, Err: store.ErrNotFound, Cause: err}
	case code == http.StatusTooManyRequests || code >= 500:
		return &store.Error{Err: store.ErrUnavailable, Cause: &outage{s.client.base.Host, err}}
	}
	return fmt.Errorf("%s%s: %w", op, object, err)
}

// notFound reports whether the server says that there is no such object, or no such resource type.
func notFound(err error) bool { return hasCode(err, http.StatusNotFound) }

func hasCode(err error, code int) bool {
	var status *statusError
	return errors.As(err, &status) && status.code == code
}

// An outage names the server that did not answer.
type outage struct {
	server string
	err    error
}

// Error leaves out the URL that net/http puts before the reason.
func (o *outage) Error() string {
	reason := o.err
	var u *url.Error
	if errors.As(reason, &u) {
		reason = u.Err
	}
	return fmt.Sprintf("no answer from %s: %v", o.server, reason)
}

func (o *outage) Unwrap() error { return o.err }
