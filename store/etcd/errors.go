package etcd

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	v3 "margay/api/v3"
	"margay/store"
)

// fail turns what etcd's client said about an operation into an error of package store. ctx is the caller's; key is the
// object, zero if there are several.
func (s *Store) fail(ctx context.Context, op string, key v3.Key, err error) error {
	object := " resources"
	if key != (v3.Key{}) {
		object = " " + key.String()
	}
	if ctx.Err() != nil && errors.Is(ctx.Err(), context.Canceled) {
		return fmt.Errorf("%s%s: %w", op, object, ctx.Err())
	}
	code, text := codeOf(err)
	switch {
	case errors.Is(err, rpctypes.ErrCompacted), errors.Is(err, rpctypes.ErrFutureRev):
		return &store.Error{Key: key, Err: store.ErrCompacted, Cause: err}
	case isRefusal(code, err):
		return &store.Error{Err: store.ErrForbidden, Cause: errors.New(text)}
	case isOutage(code, err):
		return s.unavailable(text, err)
	case errors.Is(err, rpctypes.ErrTooManyRequests):
		return s.unavailable(text, err)
	case errors.Is(err, rpctypes.ErrRequestTooLarge), code == codes.ResourceExhausted && !errors.Is(err, rpctypes.ErrNoSpace):
		return fmt.Errorf("%s%s: %s (raise the etcd server's --max-request-bytes, or split the object)", op, object, text)
	case errors.Is(err, rpctypes.ErrNoSpace):
		return fmt.Errorf("%s%s: %s (compact and defragment etcd, then disarm its alarm, or raise its quota)", op, object, text)
	}
	return fmt.Errorf("%s%s: %w", op, object, err)
}

// unavailable says who did not answer, and why if that is known better than err tells it with text. It is a
// context.DeadlineExceeded when the servers can be reached and were too slow.
func (s *Store) unavailable(text string, err error) error {
	if why := s.whyNot(); why != "" {
		text, err = why, errors.New(why)
	} else if text == context.DeadlineExceeded.Error() {
		err = context.DeadlineExceeded
	}
	return &store.Error{Err: store.ErrUnavailable, Cause: &outage{s.endpoints, text, err}}
}

// An outage names the servers that did not answer.
type outage struct {
	endpoints, text string
	err             error
}

func (o *outage) Error() string {
	if o.text == context.DeadlineExceeded.Error() {
		return o.endpoints + " gave no answer in time"
	}
	return fmt.Sprintf("no answer from %s: %s", o.endpoints, o.text)
}

func (o *outage) Unwrap() error { return o.err }

// codeOf returns the gRPC code of an error and its text without gRPC's frame.
func codeOf(err error) (codes.Code, string) {
	var known rpctypes.EtcdError
	if errors.As(err, &known) {
		return known.Code(), known.Error()
	}
	if st, ok := status.FromError(err); ok {
		return st.Code(), st.Message()
	}
	return codes.Unknown, err.Error()
}

// fromReason returns the error whose text a server gave as its reason to end a watch.
func fromReason(err error) error {
	_, text, ok := strings.Cut(err.Error(), " desc = ")
	if _, is := status.FromError(err); !ok || is {
		return err
	}
	return rpctypes.Error(status.Error(codes.Unknown, text))
}

func isRefusal(code codes.Code, err error) bool {
	switch code {
	case codes.PermissionDenied, codes.Unauthenticated:
		return true
	}
	for _, refusal := range []error{rpctypes.ErrAuthFailed, rpctypes.ErrUserEmpty, rpctypes.ErrInvalidAuthToken} {
		if errors.Is(err, refusal) {
			return true
		}
	}
	return false
}

// isOutage reports whether a repetition may succeed when the servers or the network have recovered.
func isOutage(code codes.Code, err error) bool {
	switch code {
	case codes.Unavailable, codes.DeadlineExceeded, codes.Canceled, codes.Internal:
		return true
	}
	return errors.Is(err, context.DeadlineExceeded) || errors.Is(err, context.Canceled) || errors.Is(err, errClosed)
}
