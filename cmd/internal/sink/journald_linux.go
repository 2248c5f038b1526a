package sink

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// JournaldOptions configures delivery to systemd's journal.
type JournaldOptions struct {
	Path string // socket; default /run/systemd/journal/socket
}

// journald speaks the journal's native protocol
// (https://systemd.io/JOURNAL_NATIVE_PROTOCOL/).
type journald struct {
	path string
	conn *net.UnixConn
	b    []byte
}

// NewJournald returns the sink "journald".
func NewJournald(o JournaldOptions) (Sink, error) {
	if o.Path == "" {
		o.Path = "/run/systemd/journal/socket"
	}
	return &journald{path: o.Path}, nil
}

// Send writes one datagram per record; one that is too large for a datagram goes
// as a sealed memory file.
func (s *journald) Send(ctx context.Context, batch []Message, out []Outcome) error {
	if s.conn == nil {
		c, err := net.DialUnix("unixgram", nil, &net.UnixAddr{Name: s.path, Net: "unixgram"})
		if err != nil {
			return fmt.Errorf("connect to the journal: %w", err)
		}
		s.conn = c
	}
	deadline, _ := ctx.Deadline()
	_ = s.conn.SetWriteDeadline(deadline) // fails on a closed connection only, and then so does the write
	for i := range batch {
		var err error
		if s.b, err = journalEntry(s.b[:0], &batch[i]); err != nil {
			out[i] = Rejected
			continue
		}
		_, err = s.conn.Write(s.b)
		if errors.Is(err, unix.EMSGSIZE) || errors.Is(err, unix.ENOBUFS) {
			err = s.pass(s.b)
		}
		if err != nil {
			s.Close()
			return fmt.Errorf("write to the journal %s: %w", s.path, err)
		}
		out[i] = Accepted
	}
	return nil
}

// pass hands the entry over as a file descriptor. The journal takes a memory file
// only when it is sealed.
func (s *journald) pass(entry []byte) error {
	fd, err := unix.MemfdCreate("jindan-journal", unix.MFD_CLOEXEC|unix.MFD_ALLOW_SEALING)
	if err != nil {
		return fmt.Errorf("memfd_create: %w", err)
	}
	defer unix.Close(fd)
	for b := entry; len(b) > 0; {
		n, err := unix.Write(fd, b)
		if err != nil {
			return fmt.Errorf("write a memory file: %w", err)
		}
		b = b[n:]
	}
	if _, err := unix.FcntlInt(uintptr(fd), unix.F_ADD_SEALS, unix.F_SEAL_SHRINK|unix.F_SEAL_GROW|unix.F_SEAL_WRITE|unix.F_SEAL_SEAL); err != nil {
		return fmt.Errorf("seal a memory file: %w", err)
	}
	raw, err := s.conn.SyscallConn()
	if err != nil {
		return err
	}
	var sent error
	err = raw.Write(func(c uintptr) bool {
		sent = unix.Sendmsg(int(c), nil, unix.UnixRights(fd), nil, 0)
		return !errors.Is(sent, unix.EAGAIN)
	})
	return errors.Join(err, sent)
}

// Close closes the socket.
func (s *journald) Close() error {
	if s.conn != nil {
		s.conn.Close()
		s.conn = nil
	}
	return nil
}

// journalEntry appends the fields of an entry. The journal's own time is that of
// the arrival; the event time is JINDAN_TIME.
func journalEntry(b []byte, m *Message) ([]byte, error) {
	message, f, err := summarise(&m.Record)
	if err != nil {
		return b, err
	}
	field := func(name, value string) {
		switch {
		case value == "":
		case strings.Contains(value, "\n"):
			b = append(append(b, name...), '\n')
			b = binary.LittleEndian.AppendUint64(b, uint64(len(value)))
			b = append(append(b, value...), '\n')
		default:
			b = append(append(append(append(b, name...), '='), value...), '\n')
		}
	}
	field("MESSAGE", message)
	field("PRIORITY", strconv.Itoa(syslogSeverity[m.Severity]))
	field("SYSLOG_IDENTIFIER", "jindan")
	field("JINDAN_KIND", string(m.Kind))
	field("JINDAN_ID", m.ID)
	field("JINDAN_SEQ", strconv.FormatUint(m.Seq, 10))
	field("JINDAN_STATE", string(m.State))
	field("JINDAN_SEVERITY", m.Severity)
	field("JINDAN_RULE", m.Rule)
	field("JINDAN_TIME", m.Time.String())
	if f != nil {
		field("JINDAN_ROLE", string(f.Role))
		field("JINDAN_SUBJECT", f.Subject.Key())
	}
	field("JINDAN_RECORD", string(m.Data))
	return b, nil
}
