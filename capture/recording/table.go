package recording

import (
	"bytes"
	"errors"
	"unsafe"

	"github.com/klauspost/compress/s2"

	"jindan/capture"
)

// A Ring keeps a socket table as the memory of its sockets, which holds no pointers, packed by s2: of 20,000 sockets a dump has
// 20 MB of JSON, 7 MB of memory, and some 1 MB packed, for most of it repeats. It never leaves the process so.
const (
	socketBytes = int(unsafe.Sizeof(capture.Socket{}))
	// tableChunk is how many sockets are packed at once: 0.3 MB, so that the packer's memory stays small.
	tableChunk = 1024

	tableInfo        = 1
	tableInterrupted = 2
	tableNil         = 4 // no list, rather than an empty one
)

var errTable = errors.New("a socket table in the flight recorder is damaged")

// memory is that of list.
func memory(list []capture.Socket) []byte {
	return unsafe.Slice((*byte)(unsafe.Pointer(unsafe.SliceData(list))), len(list)*socketBytes)
}

// packTable appends t to b: flags, states (4), number of sockets (4), length of the name (2), name; then chunks, each with its
// length (4). It returns scratch for the next call.
func packTable(b *bytes.Buffer, t *capture.SocketTable, scratch []byte) []byte {
	var flags byte
	if t.Info {
		flags |= tableInfo
	}
	if t.Interrupted {
		flags |= tableInterrupted
	}
	if t.Sockets == nil {
		flags |= tableNil
	}
	name := t.Netns[:min(len(t.Netns), 1<<16-1)]
	head := le.AppendUint32(le.AppendUint32(append(b.AvailableBuffer(), flags), t.States), uint32(len(t.Sockets)))
	b.Write(append(le.AppendUint16(head, uint16(len(name))), name...))
	for rest := t.Sockets; len(rest) > 0; {
		n := min(len(rest), tableChunk)
		if scratch == nil {
			scratch = make([]byte, s2.MaxEncodedLen(tableChunk*socketBytes))
		}
		packed := s2.Encode(scratch, memory(rest[:n]))
		b.Write(le.AppendUint32(b.AvailableBuffer(), uint32(len(packed))))
		b.Write(packed)
		rest = rest[n:]
	}
	return scratch
}

// unpackTable is the inverse of packTable.
func unpackTable(b []byte) (*capture.SocketTable, error) {
	flags, n, name := b[0], int(le.Uint32(b[5:])), int(le.Uint16(b[9:]))
	t := &capture.SocketTable{Netns: string(b[11 : 11+name]), States: le.Uint32(b[1:]), Info: flags&tableInfo != 0,
		Interrupted: flags&tableInterrupted != 0}
	if flags&tableNil != 0 {
		return t, nil
	}
	t.Sockets = make([]capture.Socket, n)
	b = b[11+name:]
	for rest := t.Sockets; len(rest) > 0; {
		chunk, size := memory(rest[:min(len(rest), tableChunk)]), int(le.Uint32(b))
		got, err := s2.Decode(chunk, b[4:4+size])
		if err != nil || len(got) != len(chunk) {
			return nil, errTable
		}
		b, rest = b[4+size:], rest[len(chunk)/socketBytes:]
	}
	return t, nil
}
