package recording

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"

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

// dense reports a line that would need far more memory than its length: no sample looks like that.
func dense(b []byte) bool {
	return bytes.Count(b, []byte("{"))+bytes.Count(b, []byte("null")) > maxObjects
}

// parse reads a line and checks what makes it usable.
func parse(b []byte, l *line) error {
	if dense(b) {
		return fmt.Errorf("holds more than %d objects", maxObjects)
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
