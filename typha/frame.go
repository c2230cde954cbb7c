package typha

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
)

// A frame is a length of four bytes, big endian, that counts what follows it; a type of one byte; the payload.
const headerSize = 5

// A frameType says what a frame holds.
type frameType byte

// The frames. A connection begins with a hello of each side.
const (
	frameHello    frameType = 1 // JSON: clientHello or serverHello
	frameFollow   frameType = 2 // from the client, JSON: follow. Answered by one frameAccepted
	frameAccepted frameType = 3 // from the server, JSON: accepted; chunks and crumbs follow
	frameChunk    frameType = 4 // from the server: part of a snapshot, a pack of records
	frameCrumb    frameType = 5 // from the server: a crumb, see appendCrumb
	frameStatus   frameType = 6 // from the server, JSON: status. It has a place in the order of crumbs
	framePing     frameType = 7 // from the server, 8 bytes that framePong returns
	framePong     frameType = 8
	frameRequest  frameType = 9  // from the client, JSON: request
	frameReply    frameType = 10 // from the server, JSON: reply
	frameBye      frameType = 11 // from the server, JSON: bye. It closes the connection after this
)

// Limits of payloads in bytes, by who sends them.
const (
	maxHello  = 4 << 10   // of a client, before anything is known of it
	maxClient = 64 << 10  // of a client
	maxServer = 32 << 20  // of the server; packed
	maxRaw    = 64 << 20  // of the server; unpacked
	maxReport = 1 << 20   // of what a client reports, unpacked
	maxValue  = 16 << 20  // of one stored value; etcd's own limit is 1.5 MiB
	allocStep = 64 << 10  // more than this is not allocated on the word of a header
	chunkSize = 256 << 10 // from which on a chunk or crumb is closed; unpacked
)

var errFrame = errors.New("not a frame of this protocol")

// appendFrame appends a frame to b.
func appendFrame(b []byte, t frameType, payload []byte) []byte {
	b = binary.BigEndian.AppendUint32(b, uint32(len(payload)+1))
	b = append(b, byte(t))
	return append(b, payload...)
}

// readFrame reads a frame whose payload has at most limit bytes. A longer one is refused before any of it is read.
func readFrame(r io.Reader, limit int) (frameType, []byte, error) {
	var header [headerSize]byte
	if _, err := io.ReadFull(r, header[:]); err != nil {
		return 0, nil, err
	}
	size := int64(binary.BigEndian.Uint32(header[:4])) - 1
	t := frameType(header[4])
	switch {
	case size < 0 || t < frameHello || t > frameBye:
		return 0, nil, fmt.Errorf("%w: length %d, type %d", errFrame, size+1, t)
	case size > int64(limit):
		return 0, nil, fmt.Errorf("%w: %d bytes of type %d, more than %d", errFrame, size, t, limit)
	}
	payload, err := readBody(r, int(size))
	if errors.Is(err, io.EOF) {
		err = io.ErrUnexpectedEOF
	}
	if err != nil {
		return 0, nil, err
	}
	return t, payload, nil
}

// readBody reads n bytes; memory grows with what arrives.
func readBody(r io.Reader, n int) ([]byte, error) {
	if n <= allocStep {
		b := make([]byte, n)
		_, err := io.ReadFull(r, b)
		return b, err
	}
	var b bytes.Buffer
	b.Grow(allocStep)
	if _, err := io.CopyN(&b, r, int64(n)); err != nil {
		return nil, err
	}
	return b.Bytes(), nil
}
