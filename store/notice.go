package store

import (
	"context"

	v3 "margay/api/v3"
)

// Notifier is implemented by stores that show people what there is to know of an object where they look at it: in Kubernetes
// as its Events.
type Notifier interface {
	// Notify shows a notice. One that was shown before, by whomever, is shown as still so. ErrNotFound: the object is gone.
	Notify(ctx context.Context, n Notice) error
}

// A Notice is a warning about an object.
type Notice struct {
	Key v3.Key
	// ID tells the notices of an object apart: with the same ID it is the same notice, whatever its text is by now.
	ID string
	// Reason is one word in UpperCamelCase, for machines; Text is for people.
	Reason, Text string
	// Node whose agent has found it; "" if that does not matter.
	Node string
	// Over: it was so, and is no longer. Where nothing is shown of it, nothing need be.
	Over bool
}
