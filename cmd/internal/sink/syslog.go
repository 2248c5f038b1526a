package sink

import (
	"context"
	"errors"
	"fmt"
	"net"
	"slices"
	"strconv"
	"time"
)

// SyslogOptions configures delivery by RFC 5424.
type SyslogOptions struct {
	Network  string // udp, tcp (default; octet counting, RFC 6587 §3.4.1), tls or unixgram
	Address  string // host or host:port, default ports 514, 601 and 6514; of a socket its path, default /dev/log
	TLS      TLS
	Facility string // default daemon
	JSON     bool   // behind the structured data "@cee: " and the encoded record where it fits, not the sentence
	MaxBytes int    // of a message; default 8192 (RFC 5425 §4.3.1); with udp never more than 2048 (RFC 5426 §3.2)
}

type syslogSink struct {
	stream
	format   *formatter
	datagram bool
	b, m     []byte
	tail     []byte // the last frames that were accepted, at most tailMost bytes
	lengths  []int  // of the frames in tail
}

// tailMost is how much of what a receiver may not have read is sent again, in bytes: twice what Linux holds for a receiver that
// has just connected (tcp_rmem, 128 KiB).
const tailMost = 256 << 10

// NewSyslog returns the sink "syslog". A syslog receiver confirms nothing. Over
// TCP a record counts as accepted when the receiver's kernel has acknowledged it,
// and when a connection fails its last 256 KiB are sent again, with the same ids:
// the receiver may have hung or died without reading them. What is lost is what a
// receiver has read and not stored, or left unread beyond that or when the agent
// ends; and over UDP any datagram that goes astray.
func NewSyslog(o SyslogOptions) (Sink, error) {
	s := &syslogSink{}
	if err := s.configure(o); err != nil {
		return nil, fmt.Errorf("sink syslog: %w", err)
	}
	return s, nil
}

func (s *syslogSink) configure(o SyslogOptions) error {
	port, most := "601", 8192
	s.network = o.Network
	switch o.Network {
	case "", "tcp":
		s.network = "tcp"
	case "tls":
		s.network = "tcp"
		o.TLS.Enable = true
	case "udp":
		port, most, s.datagram = "514", 2048, true
	case "unixgram":
		s.datagram = true
	default:
		return fmt.Errorf("network %q: use udp, tcp, tls or unixgram", o.Network)
	}
	if o.TLS.Enabled() {
		if s.network != "tcp" {
			return fmt.Errorf("TLS over %s does not exist: use network tls", s.network)
		}
		port = "6514"
		var err error
		if s.tls, err = o.TLS.Config(); err != nil {
			return err
		}
	}
	switch s.address = o.Address; {
	case s.network == "unixgram":
		if s.address == "" {
			s.address = "/dev/log"
		}
	case o.Address == "":
		return errors.New("give it an address, host:port")
	default:
		if _, _, err := net.SplitHostPort(o.Address); err != nil {
			s.address = net.JoinHostPort(o.Address, port)
		}
	}
	if o.MaxBytes > 0 && (o.Network != "udp" || o.MaxBytes < most) {
		most = o.MaxBytes
	}
	if most < 480 || most > 1<<16 { // RFC 5424 §6.1: every receiver takes 480; few take more than 64 KiB
		return fmt.Errorf("max bytes %d: use 480 to %d", most, 1<<16)
	}
	var err error
	s.format, err = newFormatter(o, most)
	return err
}

// Send writes the batch, behind what is in doubt of the connection before.
func (s *syslogSink) Send(ctx context.Context, batch []Message, out []Outcome) error {
	was := s.conn
	if err := s.open(ctx); err != nil {
		s.close()
		return fmt.Errorf("connect to syslog: %w", err)
	}
	var err error
	if s.datagram {
		err = s.datagrams(batch, out)
	} else {
		if s.conn != was && s.clean {
			s.tail, s.lengths = s.tail[:0], s.lengths[:0]
		}
		err = s.frames(ctx, batch, out, s.conn != was)
	}
	if err != nil {
		s.close()
		return fmt.Errorf("write to syslog %s: %w", s.address, err)
	}
	return nil
}

// datagrams writes one datagram per message.
func (s *syslogSink) datagrams(batch []Message, out []Outcome) error {
	for i := range batch {
		var err error
		if s.m, err = s.format.format(s.m[:0], &batch[i]); err != nil {
			out[i] = Rejected
			continue
		}
		if _, err := s.conn.Write(s.m); err != nil {
			return err
		}
		out[i] = Accepted
	}
	return nil
}

// frames writes the batch at once, on a new connection behind the tail, and waits for the receiver's kernel.
func (s *syslogSink) frames(ctx context.Context, batch []Message, out []Outcome, fresh bool) error {
	s.b = s.b[:0]
	if fresh {
		s.b = append(s.b, s.tail...)
	}
	news, frames := len(s.b), len(s.lengths)
	for i := range batch {
		var err error
		if s.m, err = s.format.format(s.m[:0], &batch[i]); err != nil {
			out[i] = Rejected
			continue
		}
		start := len(s.b)
		s.b = append(append(strconv.AppendInt(s.b, int64(len(s.m)), 10), ' '), s.m...)
		s.lengths = append(s.lengths, len(s.b)-start)
	}
	_, err := s.conn.Write(s.b)
	if err == nil {
		err = drained(ctx, s.conn)
	}
	if err != nil {
		s.lengths = s.lengths[:frames]
		return err
	}
	for i := range out { // what could not be formatted stays rejected
		if out[i] == Retry {
			out[i] = Accepted
		}
	}
	s.tail = append(s.tail, s.b[news:]...)
	drop, n := 0, 0
	for ; len(s.tail)-drop > tailMost; n++ {
		drop += s.lengths[n]
	}
	s.tail, s.lengths = slices.Delete(s.tail, 0, drop), slices.Delete(s.lengths, 0, n)
	return nil
}

// Close closes the connection.
func (s *syslogSink) Close() error {
	s.close()
	return nil
}

// drainPoll is the pause between looks at the send queue. A delayed
// acknowledgement takes 40 ms on Linux, one that is not delayed microseconds.
const drainPoll = time.Millisecond
