package typha

import (
	"encoding/json"
	"errors"
	"fmt"

	v3 "margay/api/v3"
	"margay/store"
)

// protocol is the version of everything in this file, frame.go and record.go. Both sides must have the same.
const protocol = 1

// A clientHello introduces a client.
type clientHello struct {
	Protocol int    `json:"protocol"`
	Node     string `json:"node"` // the host that it is for
	Version  string `json:"version,omitempty"`
}

// A serverHello answers it.
type serverHello struct {
	Protocol int    `json:"protocol"`
	Version  string `json:"version,omitempty"`
	// Kinds are those that the server follows.
	Kinds []v3.Kind `json:"kinds"`
}

// The modes of a follow.
const (
	modeSnapshot = "snapshot" // the whole state, then changes
	modeResume   = "resume"   // changes after a crumb or a revision that the client has
	modeNow      = "now"      // changes from now on
)

// A follow asks for the stream of changes.
type follow struct {
	Mode string `json:"mode"`
	// Generation and Seq name the last crumb that the client has, Revision the state after it. Without a generation the
	// revision alone says where to resume.
	Generation string         `json:"generation,omitempty"`
	Seq        uint64         `json:"seq,omitempty"`
	Revision   store.Revision `json:"revision,omitempty"`
	// Newest is, with modeSnapshot, the newest revision that the client ever had, from whatever server: it wants none
	// older.
	Newest store.Revision `json:"newest,omitempty"`
}

// An accepted answers a follow. With a Code it is a refusal: there is no stream, and the client may ask again.
type accepted struct {
	Code   code   `json:"code,omitempty"`
	Reason string `json:"reason,omitempty"`
	// Generation names the list of crumbs, Seq and Revision the one that the stream begins after.
	Generation string         `json:"generation,omitempty"`
	Seq        uint64         `json:"seq,omitempty"`
	Revision   store.Revision `json:"revision,omitempty"`
	// Chunks of a snapshot come first. The state that was asked for is complete with crumb Target.
	Chunks int    `json:"chunks,omitempty"`
	Target uint64 `json:"target,omitempty"`
	// Lost tells whether the store is followed at the crumb that the stream begins after.
	Lost status `json:"lost,omitzero"`
}

// A status tells that the server lost its store or has it back.
type status struct {
	Seq uint64 `json:"seq,omitempty"`
	// Code is "" when the store is followed.
	Code   code   `json:"code,omitempty"`
	Reason string `json:"reason,omitempty"`
}

// A bye is the last that a server says.
type bye struct {
	Reason string `json:"reason"`
}

// The operations of a request.
const (
	opGet        = "get"
	opPrevious   = "previous"
	opInitialise = "initialise"
	opRegister   = "register"  // creates the client's Node
	opReport     = "report"    // of the client's status, a statusReport
	opEndpoints  = "endpoints" // of the states of its endpoints, an endpointsReport
	opHostPods   = "hostpods"  // the pods on the network of the client's node, a list of them in the reply
)

// A request is one operation of package store.
type request struct {
	ID     uint64         `json:"id"`
	Op     string         `json:"op"`
	Key    v3.Key         `json:"key,omitzero"`
	Before store.Revision `json:"before,omitempty"`
	Value  []byte         `json:"value,omitempty"`
	Pack   []byte         `json:"pack,omitempty"` // of JSON, at most maxReport bytes
}

// A statusReport is what store.Store.ReportStatus takes.
type statusReport struct {
	Status    store.NodeStatus `json:"status"`
	Heartbeat *store.Heartbeat `json:"heartbeat,omitempty"` // of the status, whose JSON leaves it out
}

// An endpointsReport is what store.EndpointReporter.ReportEndpoints takes.
type endpointsReport struct {
	Node   string          `json:"node"`
	States []endpointState `json:"states"`
}

type endpointState struct {
	Key   v3.Key              `json:"key"`
	State store.EndpointState `json:"state"`
}

// A reply answers the request of the same ID: with a record, with pods, with a code, or, when there is nothing to say, with neither.
type reply struct {
	ID     uint64 `json:"id"`
	Code   code   `json:"code,omitempty"`
	Reason string `json:"reason,omitempty"`
	Record []byte `json:"record,omitempty"`
	// HostPods answer opHostPods.
	HostPods []v3.HostPod `json:"hostPods,omitempty"`
}

// A code stands for a sentinel of package store.
type code string

// The codes. What has none of its own is other.
const (
	codeOther        code = "other"
	codeNotFound     code = "not found"
	codeExists       code = "exists"
	codeConflict     code = "conflict"
	codeCompacted    code = "compacted"
	codeUnavailable  code = "unavailable"
	codeForbidden    code = "forbidden"
	codeNotSupported code = "not supported"
)

func sentinels() map[code]error {
	return map[code]error{
		codeNotFound: store.ErrNotFound, codeExists: store.ErrExists, codeConflict: store.ErrConflict,
		codeCompacted: store.ErrCompacted, codeUnavailable: store.ErrUnavailable, codeForbidden: store.ErrForbidden,
		codeNotSupported: store.ErrNotSupported,
	}
}

// codeOf returns what stands for an error, and the text that goes with it.
func codeOf(err error) (code, string) {
	reason := err.Error()
	var wrapped *store.Error
	if errors.As(err, &wrapped) {
		reason = ""
		if wrapped.Cause != nil {
			reason = wrapped.Cause.Error()
		}
	}
	for c, sentinel := range sentinels() {
		if errors.Is(err, sentinel) {
			return c, reason
		}
	}
	return codeOther, err.Error()
}

// errorOf is the error that a code and its text stand for, about an object that may be zero.
func errorOf(c code, reason string, key v3.Key) error {
	sentinel, ok := sentinels()[c]
	if !ok {
		return errors.New(reason)
	}
	err := &store.Error{Key: key, Err: sentinel}
	if reason != "" {
		err.Cause = errors.New(reason)
	}
	return err
}

// mustJSON encodes a message of this file; there is none that cannot be.
func mustJSON(message any) []byte {
	data, err := json.Marshal(message)
	if err != nil {
		panic(fmt.Sprintf("encode %T: %v", message, err))
	}
	return data
}

// messageFrame returns a frame with a message of this file.
func messageFrame(t frameType, message any) []byte { return appendFrame(nil, t, mustJSON(message)) }

// readMessage decodes a message of this file.
func readMessage[T any](data []byte) (T, error) {
	var message T
	if err := json.Unmarshal(data, &message); err != nil {
		return *new(T), fmt.Errorf("read message: %w", err)
	}
	return message, nil
}
