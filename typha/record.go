package typha

import (
	"encoding/binary"
	"errors"
	"fmt"
	"strings"

	"github.com/klauspost/compress/zstd"

	v3 "margay/api/v3"
	"margay/store"
)

// A record is an event on the wire: an operation of one byte, then each field as a length and bytes:
//
//	put:    kind, namespace, name, revision, value as api/v3 encodes it
//	fault:  kind, namespace, name, revision, reason, value    the stored value cannot be used
//	faint:  kind, namespace, name, revision, reason           the same, without the value
//	delete: kind, namespace, name, revision
type record struct {
	op       operation
	key      v3.Key
	revision store.Revision
	reason   string
	value    []byte // not shared
}

type operation byte

const (
	opPut    operation = 1
	opFault  operation = 2
	opFaint  operation = 3
	opDelete operation = 4
)

var errRecord = errors.New("not a record of this protocol")

// recordOf returns the record of an event. A value that cannot be encoded or is too large for a frame becomes a fault:
// it must not stop the others.
func recordOf(e store.Event) record {
	r := record{key: e.Key, revision: e.Revision}
	switch {
	case e.Fault != nil:
		r.op, r.reason, r.value = opFault, e.Fault.Err.Error(), e.Fault.Value
		if r.value == nil || len(r.value) > maxValue {
			r.op, r.value = opFaint, nil
		}
	case e.Resource == nil:
		r.op = opDelete
	default:
		value, err := v3.Encode(e.Resource)
		if err == nil {
			value, err = v3.UnknownInRules(e.Resource).Graft(value)
		}
		if err == nil && len(value) > maxValue {
			err = fmt.Errorf("the value has %d bytes, more than the %d that typha passes on", len(value), maxValue)
		}
		r.op, r.value = opPut, value
		if err != nil {
			r.op, r.value, r.reason = opFaint, nil, err.Error()
		}
	}
	return r
}

// event returns the event of a record. What this program cannot decode is a fault, even where the server could.
func (r record) event() store.Event {
	e := store.Event{Key: r.key, Revision: r.revision}
	fault := func(err error) {
		e.Fault = &store.Fault{Key: r.key, Revision: r.revision, Value: r.value, Err: err}
	}
	switch r.op {
	case opPut:
		resource, err := v3.DecodeStored(r.key.Kind, r.value)
		if err == nil && v3.KeyOf(resource) != r.key {
			err = fmt.Errorf("the value is that of %s", v3.KeyOf(resource))
		}
		if err != nil {
			fault(err)
			break
		}
		resource.SetResourceVersion(string(r.revision))
		e.Resource = resource
	case opFault, opFaint:
		fault(errors.New(r.reason))
	}
	return e
}

// appendRecord appends the bytes of a record.
func appendRecord(b []byte, r record) []byte {
	b = append(b, byte(r.op))
	for _, field := range []string{string(r.key.Kind), r.key.Namespace, r.key.Name, string(r.revision)} {
		b = binary.AppendUvarint(b, uint64(len(field)))
		b = append(b, field...)
	}
	if r.op == opFault || r.op == opFaint {
		b = binary.AppendUvarint(b, uint64(len(r.reason)))
		b = append(b, r.reason...)
	}
	if r.op == opPut || r.op == opFault {
		b = binary.AppendUvarint(b, uint64(len(r.value)))
		b = append(b, r.value...)
	}
	return b
}

// decodeRecords returns the records that the bytes are. They share no memory with b.
func decodeRecords(b []byte) ([]record, error) {
	var records []record
	for len(b) > 0 {
		r, rest, err := decodeRecord(b)
		if err != nil {
			return nil, fmt.Errorf("record %d: %w", len(records), err)
		}
		records = append(records, r)
		b = rest
	}
	return records, nil
}

func decodeRecord(b []byte) (r record, rest []byte, err error) {
	r.op, b = operation(b[0]), b[1:]
	if r.op < opPut || r.op > opDelete {
		return record{}, nil, fmt.Errorf("%w: operation %d", errRecord, r.op)
	}
	text := func() string {
		var field []byte
		if err == nil {
			field, b, err = cutField(b)
		}
		return string(field)
	}
	r.key = v3.Key{Kind: v3.Kind(text()), Namespace: text(), Name: text()}
	r.revision = store.Revision(text())
	if r.op == opFault || r.op == opFaint {
		r.reason = text()
	}
	if err == nil && (r.op == opPut || r.op == opFault) {
		var value []byte
		value, b, err = cutField(b)
		r.value = append([]byte{}, value...)
	}
	if err != nil {
		return record{}, nil, err
	}
	return r, b, nil
}

// cutField cuts a length and as many bytes from b. A length has one encoding.
func cutField(b []byte) (field, rest []byte, err error) {
	n, size := binary.Uvarint(b)
	if size <= 0 || size > 1 && b[size-1] == 0 || n > uint64(len(b)-size) {
		return nil, nil, fmt.Errorf("%w: a field is cut off", errRecord)
	}
	b = b[size:]
	return b[:n], b[n:], nil
}

// The flags of a pack, the first byte of what chunks and crumbs hold.
const (
	flagZstd = 1 << iota // what follows is compressed
	flagMore             // of a crumb: the rest of the same change is in the next one
)

// A packer compresses. It is used by one goroutine at a time.
type packer struct{ encoder *zstd.Encoder }

// minPacked is the size from which on compressing is tried.
const minPacked = 256

func newPacker(level zstd.EncoderLevel) *packer {
	encoder, err := zstd.NewWriter(nil, zstd.WithEncoderLevel(level), zstd.WithEncoderConcurrency(1),
		zstd.WithWindowSize(1<<20), zstd.WithLowerEncoderMem(true))
	if err != nil {
		panic(fmt.Sprintf("make encoder: %v", err)) // the options are constants
	}
	return &packer{encoder}
}

// append appends the pack of raw to b, with the flags given and flagZstd where that made it smaller.
func (p *packer) append(b []byte, flags byte, raw []byte) []byte {
	start := len(b)
	b = append(b, flags)
	if len(raw) >= minPacked {
		b = p.encoder.EncodeAll(raw, b)
		if len(b)-start-1 < len(raw) {
			b[start] |= flagZstd
			return b
		}
		b = b[:start+1]
	}
	return append(b, raw...)
}

// An unpacker is the reverse of packers. It may be used by several goroutines.
type unpacker struct{ decoder *zstd.Decoder }

// newUnpacker returns one that unpacks at most limit bytes.
func newUnpacker(limit uint64) *unpacker {
	decoder, err := zstd.NewReader(nil, zstd.WithDecoderConcurrency(1), zstd.WithDecoderLowmem(true),
		zstd.WithDecoderMaxMemory(limit), zstd.WithDecoderMaxWindow(min(limit, 8<<20)))
	if err != nil {
		panic(fmt.Sprintf("make decoder: %v", err)) // the options are constants
	}
	return &unpacker{decoder}
}

// bytes returns what a pack holds, and its flags.
func (u *unpacker) bytes(pack []byte) ([]byte, byte, error) {
	if len(pack) == 0 || pack[0]&^(flagZstd|flagMore) != 0 {
		return nil, 0, fmt.Errorf("%w: unknown flags", errRecord)
	}
	flags, raw := pack[0], pack[1:]
	if flags&flagZstd == 0 {
		return raw, flags, nil
	}
	raw, err := u.decoder.DecodeAll(raw, nil)
	if err != nil {
		return nil, 0, fmt.Errorf("unpack: %w", err)
	}
	return raw, flags, nil
}

// records returns the records that a pack holds, and its flags.
func (u *unpacker) records(pack []byte) ([]record, byte, error) {
	raw, flags, err := u.bytes(pack)
	if err != nil {
		return nil, 0, err
	}
	records, err := decodeRecords(raw)
	return records, flags, err
}

// appendCrumb appends the payload of a crumb: its number (8 bytes), the revision after it (a length and bytes), a pack.
func appendCrumb(b []byte, seq uint64, revision store.Revision) []byte {
	b = binary.BigEndian.AppendUint64(b, seq)
	b = binary.AppendUvarint(b, uint64(len(revision)))
	return append(b, revision...)
}

// cutCrumb is the reverse of appendCrumb.
func cutCrumb(payload []byte) (seq uint64, revision store.Revision, pack []byte, err error) {
	if len(payload) < 8 {
		return 0, "", nil, fmt.Errorf("%w: a crumb is cut off", errRecord)
	}
	field, pack, err := cutField(payload[8:])
	if err != nil {
		return 0, "", nil, err
	}
	return binary.BigEndian.Uint64(payload), store.Revision(strings.Clone(string(field))), pack, nil
}
