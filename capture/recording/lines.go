package recording

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"path/filepath"
	"slices"

	"jindan/capture"
)

// errLong says that a line was passed over.
var errLong = fmt.Errorf("has more than %d MiB", maxLine>>20)

// lineReader reads lines of bounded length. Memory grows with what is really there.
type lineReader struct {
	r      *bufio.Reader
	buf    []byte
	offset int64 // of the line that next returned
	end    int64 // of what has been read
}

// next returns a line without its end, valid until the next call. io.ErrUnexpectedEOF comes with a last line that has
// no end; after errLong the next line can be read.
func (l *lineReader) next() ([]byte, error) {
	l.offset, l.buf = l.end, l.buf[:0]
	long := false
	for {
		piece, err := l.r.ReadSlice('\n')
		l.end += int64(len(piece))
		if long = long || len(l.buf)+len(piece) > maxLine; !long {
			l.buf = append(l.buf, piece...)
		}
		switch {
		case errors.Is(err, bufio.ErrBufferFull):
			continue
		case err == io.EOF && l.end > l.offset:
			return nil, io.ErrUnexpectedEOF
		case err != nil:
			return nil, err
		case long:
			l.buf = nil
			return nil, errLong
		}
		return l.buf[:len(l.buf)-1], nil
	}
}

// cheap are the arrays of fixed length: their elements take no memory of their own.
var cheap = [...]string{"Addr", "Counters", "PortRange", "TCPMemLimit", "SACK"}

// dense reports a line that would take far more memory than its length: encoding/json makes an element of whatever
// stands in an array, even where it reports the wrong type in the end. b need not be valid.
func dense(b []byte) bool {
	if len(b) < 2*maxElements { // "1,"
		return false
	}
	const (
		maxDepth = 32 // samples have 7
		object   = iota
		fixed
		array
	)
	var stack [maxDepth]uint8
	depth, elements := 0, 0
	var key []byte
	for i := 0; i < len(b); i++ {
		switch b[i] {
		case '"':
			from := i + 1
			for i++; i < len(b) && b[i] != '"'; i++ {
				if b[i] == '\\' {
					i++
				}
			}
			key = b[from:min(i, len(b))]
		case '{', '[':
			if depth++; depth == maxDepth {
				return true
			}
			stack[depth] = object
			if b[i] == '[' {
				stack[depth] = array
				if stack[depth-1] == fixed || slices.Contains(cheap[:], string(key)) {
					stack[depth] = fixed
				} else {
					elements++
				}
			}
		case '}', ']':
			depth = max(depth-1, 0)
		case ',':
			if stack[depth] == array {
				elements++
			}
		}
		if elements > maxElements {
			return true
		}
	}
	return false
}

// readLine reads the next usable line into r.line, or sets r.lerr.
func (r *Recording) readLine() {
	b, err := r.lines.next()
	switch {
	case err == errLong:
	case err == io.ErrUnexpectedEOF || err == io.EOF:
		r.lerr = io.EOF
		if err == io.ErrUnexpectedEOF || !r.whole {
			r.cut(SamplesFile, r.lines.offset)
		}
		return
	case err != nil:
		r.lerr = fmt.Errorf("read %s: %w", filepath.Join(r.dir, SamplesFile), err)
		return
	}
	r.size += len(b)
	var l line
	if err == nil {
		err = parse(b, &l)
	}
	expected := r.stats.Lines + 1
	r.stats.Lines++
	switch {
	case err != nil:
		r.broken("%v", err)
		return
	case r.whole:
		r.broken("comes after the end of the recording")
		return
	case l.N < expected:
		r.broken("is line %d, which was there before", l.N)
		return
	case l.N > expected:
		r.broken("is line %d, and those from line %d on are missing before it", l.N, expected)
		r.stats.Lines = l.N
	}
	r.whole = l.End != nil
	r.line = &l
}

// broken notes damage at the line just read.
func (r *Recording) broken(format string, args ...any) {
	r.stats.Damaged++
	if r.damage == nil {
		at := r.lines.offset
		r.damage = &DamageError{File: filepath.Join(r.dir, SamplesFile), Offset: at,
			What: fmt.Sprintf("the line at byte %d %s: the file is damaged there", at, fmt.Sprintf(format, args...))}
	}
}

// parse reads a line and checks what makes it usable.
func parse(b []byte, l *line) error {
	if dense(b) {
		return fmt.Errorf("holds more than %d elements", maxElements)
	}
	if err := json.Unmarshal(b, l); err != nil {
		return fmt.Errorf("cannot be read: %w", err)
	}
	things := 0
	for _, there := range []bool{l.Sample != nil, l.Reason != "", l.Packet != nil, l.Until != nil, l.Next != nil, l.End != nil} {
		if there {
			things++
		}
	}
	observation := l.Until == nil && l.Next == nil && l.End == nil
	switch {
	case things != 1:
		return fmt.Errorf("says %d things instead of one", things)
	case l.N == math.MaxUint64 || l.After == math.MaxUint64:
		return errors.New("has an impossible number")
	case observation && (l.At == nil || !possible(*l.At)) || l.Until != nil && !possible(*l.Until):
		return errors.New("has no possible time")
	case l.Reason != "" && lossReason(l.Reason) == capture.LossReasonCount:
		return fmt.Errorf("names an unknown reason of loss %q", l.Reason)
	case l.Packet != nil && (int(l.Packet.SACKs) > len(l.Packet.SACK) || l.Packet.Dir > capture.DirOther):
		return errors.New("holds an impossible packet")
	}
	return nil
}

// lossReason is the inverse of its String; LossReasonCount for a name that does not exist.
func lossReason(name string) capture.LossReason {
	for reason := range capture.LossReasonCount {
		if reason.String() == name {
			return reason
		}
	}
	return capture.LossReasonCount
}
