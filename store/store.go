// Package store declares where resources are kept: one interface with revisions, implemented over etcd (store/etcd), an
// etcd embedded in the process (store/embed) and the Kubernetes API (store/kube). storetest is the test suite that every
// implementation passes.
package store

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"

	v3 "margay/api/v3"
)

// A Revision names a state of the store. It is opaque: only equality and "" (none) mean anything to callers.
type Revision string

// Short returns a revision for people. Where it holds a number for each of several parts of a store that is the highest.
func (r Revision) Short() string {
	highest, parts := uint64(0), strings.FieldsFunc(string(r), func(c rune) bool { return c == ';' || c == '=' })
	if len(parts) < 2 {
		return string(r)
	}
	for _, part := range parts {
		n, _ := strconv.ParseUint(part, 10, 64) // a name is no number
		highest = max(highest, n)
	}
	return strconv.FormatUint(highest, 10)
}

// The sentinel errors. Implementations wrap them in an [*Error] that names the object; ErrNotSupported in an
// [*UnsupportedError].
var (
	ErrNotFound     = errors.New("resource does not exist")
	ErrExists       = errors.New("resource already exists")
	ErrConflict     = errors.New("update conflict")
	ErrCompacted    = errors.New("revision is no longer available")
	ErrUnavailable  = errors.New("datastore is unavailable")
	ErrForbidden    = errors.New("connection is unauthorized")
	ErrNotSupported = errors.New("operation is not supported")
	ErrNotTried     = errors.New("not tried")

	errNoKey  = errors.New("key not found")
	errHasKey = errors.New("key exists")
)

// An Error says which object an operation failed on.
type Error struct {
	Key   v3.Key
	Err   error // one of the sentinels
	Cause error // nil, or what the back end said
}

// NotFound returns the error for an object that is not there. The cause is what calicoctl prints, whatever the datastore.
func NotFound(key v3.Key) error { return &Error{Key: key, Err: ErrNotFound, Cause: errNoKey} }

// Exists returns the error for an object that is there already, with the cause that calicoctl prints.
func Exists(key v3.Key) error { return &Error{Key: key, Err: ErrExists, Cause: errHasKey} }

// Error returns the text that calicoctl prints.
func (e *Error) Error() string {
	text := e.Err.Error()
	switch {
	case e.Key != (v3.Key{}) && e.Cause != nil:
		text += fmt.Sprintf(": %s with error: %v", e.Key, e.Cause)
	case e.Key != (v3.Key{}):
		text += ": " + e.Key.String()
	case e.Cause != nil:
		text += ": " + e.Cause.Error()
	}
	return text
}

// Unwrap returns both errors.
func (e *Error) Unwrap() []error { return []error{e.Err, e.Cause} }

// An UnsupportedError refuses an operation that no retry makes possible, such as deleting a built-in tier.
type UnsupportedError struct {
	Op     string // "create", "update" or "delete"
	Key    v3.Key
	Reason string
}

// Error returns the text that calicoctl prints.
func (e *UnsupportedError) Error() string {
	return fmt.Sprintf("operation %s is not supported on %s: %s", e.Op, e.Key, e.Reason)
}

// Unwrap returns ErrNotSupported.
func (e *UnsupportedError) Unwrap() error { return ErrNotSupported }

// A Store keeps resources. Methods are safe for concurrent use. Resources that go in or come out are not shared with
// the store. metadata.resourceVersion of a resource that comes out is the Revision of its last change.
//
// An operation gives up when its context ends; a store that cannot be reached answers [ErrUnavailable] no later than
// that, and never [ErrNotFound].
type Store interface {
	// Get returns one resource, ErrNotFound if there is none, or a *Fault if the stored value does not decode.
	Get(ctx context.Context, key v3.Key) (v3.Resource, error)
	// List returns all resources of the kinds, of one namespace if namespace is not "", as of one revision. Where every kind
	// counts its own, it is one in each kind.
	List(ctx context.Context, namespace string, kinds ...v3.Kind) (*List, error)
	// Watch delivers the changes of the kinds after revision from, in order and without gap.
	Watch(ctx context.Context, from Revision, kinds ...v3.Kind) Watcher
	// Create stores a new resource, with defaults and a fresh uid and creationTimestamp, or returns ErrExists.
	// metadata.resourceVersion must be empty. What does not validate is refused. A policy whose tier does not exist
	// gets ErrNotFound for that tier.
	Create(ctx context.Context, r v3.Resource) (v3.Resource, error)
	// Update replaces a resource whose last change is metadata.resourceVersion, or returns ErrConflict, or ErrNotFound.
	// uid and creationTimestamp stay what they were, and so do fields of the stored value that this program does not
	// know, but for those in spec. A stored value that does not decode can be replaced, too: its
	// revision is in the *Fault that Get returns.
	Update(ctx context.Context, r v3.Resource) (v3.Resource, error)
	// Delete removes a resource and returns what it was (of a value that does not decode, only its key and revision).
	// With a revision other than "" it must match, else ErrConflict. What belongs to a Node goes with it.
	Delete(ctx context.Context, key v3.Key, revision Revision) (v3.Resource, error)
	// Inspect is Get, and returns as well which fields of the stored value this program does not know.
	Inspect(ctx context.Context, key v3.Key) (v3.Resource, v3.Unknown, error)
	// WriteAll does several writes in the order given, each with the result that Create, Update or Delete alone would have,
	// but in as few requests as it can. A write that is refused does not keep the later ones from being done.
	// A store that takes one write with a request may do neighbours of one kind and operation at the same time. Once the
	// store does not answer, all that are left have that error, or ErrNotTried if they were not sent: of a write that was
	// sent and not answered it is not known whether it was done.
	WriteAll(ctx context.Context, mode Mode, writes []Write) []Result
	// LastChange returns the revision of the last change of the kinds, deletions included; "" if there never was one. Of
	// deletions whose history is compacted nothing is known.
	LastChange(ctx context.Context, kinds ...v3.Kind) (Revision, error)
	// Reached reports whether r is the revision goal or a later one. "" as a goal is always reached.
	Reached(r, goal Revision) bool
	// Previous returns the last version of the resource before revision that decodes, ErrNotFound if the object was
	// created with the value of that revision, or ErrCompacted if the history is gone.
	Previous(ctx context.Context, key v3.Key, before Revision) (v3.Resource, error)
	// Initialise creates ClusterInformation and the three tiers where they are missing. It is idempotent.
	Initialise(ctx context.Context) error
	// ReportStatus stores what a node says of itself; it disappears after the status's TTL unless reported again.
	ReportStatus(ctx context.Context, s NodeStatus) error
	// Statuses returns what the nodes said last.
	Statuses(ctx context.Context) ([]NodeStatus, error)
	// Close releases connections.
	Close() error
}

// Mode says whether writes are for real.
type Mode int

// With DryRun everything is checked by the store as it would be, and nothing is written.
const (
	Commit Mode = iota
	DryRun
)

// Op is what a write does.
type Op int

// The operations of the methods of the same names.
const (
	Create Op = iota
	Update
	Delete
)

// A Write is one of several writes.
type Write struct {
	Op Op
	// Resource as Create and Update want it. For Delete it says kind, namespace, name, and with a resourceVersion which
	// version is meant.
	Resource v3.Resource
	// Unknown are, of an Update, the fields to store that this program does not know, instead of what is kept of the
	// stored value. nil: keep; empty: none.
	Unknown v3.Unknown
}

// A Result is what became of a write.
type Result struct {
	// Resource as it is stored now, or, of a Delete, as it was. With DryRun a created one has no revision and an updated
	// one that of the version before.
	Resource v3.Resource
	// Revision of the write; "" with DryRun.
	Revision Revision
	// Dropped are, of an Update, the fields of spec that were stored, that this program does not know, and that are gone.
	Dropped v3.Unknown
	Err     error
}

// A List is the result of Store.List.
type List struct {
	Items    []v3.Resource // ordered by kind (as given), namespace, name
	Faults   []Fault       // stored values that do not decode
	Revision Revision      // Watch from here sees every later change
}

// A Fault is a stored value that cannot be used. As an error it names object and reason.
type Fault struct {
	Key      v3.Key
	Revision Revision // of the faulty value
	// Value is what is stored, as it is: the node reads from it what a stand-in that denies needs. nil: not known.
	Value []byte
	Err   error
}

// Error implements error.
func (f *Fault) Error() string {
	return fmt.Sprintf("stored value of %s is unusable: %v", f.Key, f.Err)
}

// Unwrap returns the reason.
func (f *Fault) Unwrap() error { return f.Err }

// An Event is one change. Exactly one of the following holds: Resource is the new value; Fault says why the new value
// cannot be used; both are nil and the object was deleted.
type Event struct {
	Key      v3.Key
	Revision Revision
	Resource v3.Resource
	Fault    *Fault
}

// A Watcher delivers events to one goroutine. Next blocks until there are events, and returns all of them up to one
// revision; or none, once after the watch was established or the connection was lost and is back, and when only
// Revision moved on. Its errors: ErrCompacted when the caller must List again (the watch is over); ErrUnavailable or
// ErrForbidden when the connection is lost or refused, after which the next call goes on where the watch was, so that
// nothing is missed; or the context's.
//
// [Follow] does all of this.
type Watcher interface {
	Next(ctx context.Context) ([]Event, error)
	// Revision is the one up to which every change has been delivered; at first the one given to Watch.
	Revision() Revision
	// Close ends the watch and frees what it holds.
	Close()
}

// NodeStatus is what an agent reports of itself.
type NodeStatus struct {
	Node string `json:"node"`
	// Enforced is the store's revision up to which every change is in the kernel.
	Enforced Revision `json:"enforced"`
	// Ready as the agent's readiness endpoint answers; Detail says why not.
	Ready  bool   `json:"ready"`
	Detail string `json:"detail,omitempty"`
	// Faults are the stored objects that cannot be used, as Kind(name): reason.
	Faults []string `json:"faults,omitempty"`
	// Unused are the parameters that are set for the node and that its agent does not act on, each with its origin.
	Unused []string `json:"unused,omitempty"`
	// Warnings are conflicts and traps in the policy of the node that are in force now, as Kind(name): text.
	Warnings []string `json:"warnings,omitempty"`
	// Endpoints are the states of the node's endpoints by Kind(namespace/name).
	Endpoints map[string]EndpointState `json:"endpoints,omitempty"`
	// Interfaces of the node that are no workload's, with their addresses beyond the link.
	Interfaces map[string][]string `json:"interfaces,omitempty"`
	// Version of the agent; Time of the report, RFC 3339.
	Version string `json:"version"`
	Time    string `json:"time"`
	// TTLSeconds after which the report disappears; 0: never.
	TTLSeconds int `json:"ttlSeconds,omitempty"`
	// Heartbeat, when not nil, is stored where the incumbent stores it, too, if the store is one that the incumbent uses.
	Heartbeat *Heartbeat `json:"-"`
}

// A Heartbeat says that an agent lives, in the incumbent's form.
type Heartbeat struct {
	Time          string  `json:"time"`   // of the report, RFC 3339
	UptimeSeconds float64 `json:"uptime"` // of the agent
	First         bool    `json:"first_update"`
}
