package sink

import (
	"context"
	"errors"
	"fmt"
	"net"
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
}

// NewSyslog returns the sink "syslog".
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

// Send writes the batch. A syslog receiver confirms nothing; over TCP the batch
// counts as accepted when the receiver's kernel has acknowledged all of it.
func (s *syslogSink) Send(ctx context.Context, batch []Message, out []Outcome) error {
	if err := s.open(ctx); err != nil {
		s.close()
		return fmt.Errorf("connect to syslog: %w", err)
	}
	err := s.write(batch, out)
	if err == nil && !s.datagram {
		if err = drained(ctx, s.conn); err == nil {
			for i := range out { // what could not be formatted stays rejected
				if out[i] == Retry {
					out[i] = Accepted
				}
			}
		}
	}
	if err != nil {
		s.close()
		return fmt.Errorf("write to syslog %s: %w", s.address, err)
	}
	return nil
}

// write formats and writes: datagrams one by one, a stream at once.
func (s *syslogSink) write(batch []Message, out []Outcome) error {
	s.b = s.b[:0]
	for i := range batch {
		var err error
		if s.m, err = s.format.format(s.m[:0], &batch[i]); err != nil {
			out[i] = Rejected
			continue
		}
		switch {
		case s.datagram:
			if _, err := s.conn.Write(s.m); err != nil {
				return err
			}
			out[i] = Accepted
		default:
			s.b = append(append(strconv.AppendInt(s.b, int64(len(s.m)), 10), ' '), s.m...)
		}
	}
	if s.datagram {
		return nil
	}
	_, err := s.conn.Write(s.b)
	return err
}

// Close closes the connection.
func (s *syslogSink) Close() error {
	s.close()
	return nil
}

// drainPoll is the pause between looks at the send queue. A delayed
// acknowledgement takes 40 ms on Linux, one that is not delayed microseconds.
const drainPoll = time.Millisecond
