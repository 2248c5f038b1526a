package sockets

import (
	"encoding/binary"
	"errors"
	"fmt"

	"jindan/capture"

	"golang.org/x/sys/unix"
)

// Sizes in bytes of structures of include/uapi/linux/inet_diag.h.
const (
	requestSize = 60 // struct inet_diag_req
	messageSize = 72 // struct inet_diag_msg
)

// requestKind asks for TCP sockets with a struct inet_diag_req, and is the kind of the answers too. Its
// successor, SOCK_DIAG_BY_FAMILY with inet_diag_req_v2, lists one address family at a time, and most of what
// a dump of few sockets costs is the kernel's walk over all of them: one walk instead of two.
const requestKind = 18 // TCPDIAG_GETSOCK; Linux 2.6.14

// Positions in inet_diag_req.
const (
	requestExt    = 3
	requestStates = 52
)

// Attributes of a reply (enum INET_DIAG_… of inet_diag.h).
const (
	attrInfo      = 2  // struct tcp_info
	attrSkMemInfo = 7  // an array of uint32, see skMemDrops
	attrCgroupID  = 21 // uint64; Linux 5.8, unasked
)

// skMemDrops is where SK_MEMINFO_DROPS stands in INET_DIAG_SKMEMINFO (sock_diag.h; Linux 4.6).
const skMemDrops = 8 * 4

var native = binary.NativeEndian

var (
	errShort     = errors.New("message shorter than an inet_diag_msg")
	errFamily    = errors.New("neither an IPv4 nor an IPv6 socket")
	errAttribute = errors.New("attribute longer than its message")
)

// decodeSocket reads an inet_diag_msg with its attributes into s. The bytes after a whole number of
// attributes, fewer than an attribute header, are padding.
func decodeSocket(b []byte, s *capture.Socket) error {
	if len(b) < messageSize {
		return errShort
	}
	*s = capture.Socket{
		State:     capture.SocketState(b[1]),
		Timer:     b[2],
		Retries:   b[3],
		Interface: native.Uint32(b[40:]),
		Cookie:    uint64(native.Uint32(b[44:])) | uint64(native.Uint32(b[48:]))<<32,
		TimerLeft: native.Uint32(b[52:]),
		RecvQ:     native.Uint32(b[56:]),
		SendQ:     native.Uint32(b[60:]),
		UID:       native.Uint32(b[64:]),
		Inode:     native.Uint32(b[68:]),
	}
	s.Local.Port, s.Remote.Port = binary.BigEndian.Uint16(b[4:]), binary.BigEndian.Uint16(b[6:])
	switch b[0] {
	case unix.AF_INET:
		s.Local.Addr, s.Remote.Addr = mapped(b[8:]), mapped(b[24:])
	case unix.AF_INET6: // those of a v4-mapped connection are mapped already
		s.Local.Addr, s.Remote.Addr = capture.Addr(b[8:24]), capture.Addr(b[24:40])
	default:
		return errFamily
	}
	for b = b[messageSize:]; len(b) >= unix.SizeofNlAttr; {
		n := int(native.Uint16(b))
		if n < unix.SizeofNlAttr || n > len(b) {
			return errAttribute
		}
		v := b[unix.SizeofNlAttr:n]
		switch native.Uint16(b[2:]) &^ (unix.NLA_F_NESTED | unix.NLA_F_NET_BYTEORDER) {
		case attrInfo:
			s.HasInfo = true
			decodeInfo(v, &s.Info)
		case attrSkMemInfo:
			if len(v) >= skMemDrops+4 {
				s.Drops = native.Uint32(v[skMemDrops:])
			}
		case attrCgroupID:
			if len(v) >= 8 {
				s.Cgroup = native.Uint64(v)
			}
		}
		b = b[min(align(n), len(b)):]
	}
	if s.State == capture.Listen {
		s.Info.Unacked = 0 // holds the accept queue, as RecvQ does (tcp_diag_get_info)
	}
	return nil
}

// mapped is the IPv4 address at the start of b as an IPv4-mapped one.
func mapped(b []byte) capture.Addr {
	return capture.Addr{10: 0xff, 11: 0xff, 12: b[0], 13: b[1], 14: b[2], 15: b[3]}
}

// align rounds up to NLMSG_ALIGNTO, which is also NLA_ALIGNTO.
func align(n int) int { return (n + unix.NLMSG_ALIGNTO - 1) &^ (unix.NLMSG_ALIGNTO - 1) }

// intake collects the sockets of one dump.
type intake struct {
	table     *capture.SocketTable
	seq       uint32 // messages of other requests are left over from a dump that failed
	max       int    // sockets to keep
	overCap   uint64 // sockets turned away by max
	malformed uint64 // messages that could not be read
}

// datagram reads the netlink messages of one datagram and reports whether they end the dump.
// A message that cannot be read costs itself only; a broken message header costs the datagram.
func (in *intake) datagram(b []byte) (done bool, err error) {
	for len(b) >= unix.SizeofNlMsghdr {
		n := native.Uint32(b)
		if n < unix.SizeofNlMsghdr || uint64(n) > uint64(len(b)) {
			in.malformed++
			return false, nil
		}
		kind, flags, seq := native.Uint16(b[4:]), native.Uint16(b[6:]), native.Uint32(b[8:])
		payload := b[unix.SizeofNlMsghdr:n]
		b = b[min(align(int(n)), len(b)):]
		if seq != in.seq {
			continue
		}
		if flags&unix.NLM_F_DUMP_INTR != 0 {
			in.table.Interrupted = true
		}
		switch kind {
		case unix.NLMSG_DONE, unix.NLMSG_ERROR:
			if len(payload) < 4 { // NLMSG_DONE needs none
				return true, nil
			}
			if errno := int32(native.Uint32(payload)); errno < 0 {
				return true, unix.Errno(-int64(errno))
			}
			return true, nil
		case requestKind:
			in.socket(payload)
		}
	}
	return false, nil
}

// socket adds the socket of one message to the table.
func (in *intake) socket(payload []byte) {
	n := len(in.table.Sockets)
	if n >= in.max {
		in.overCap++
		return
	}
	if n < cap(in.table.Sockets) {
		in.table.Sockets = in.table.Sockets[:n+1]
	} else {
		in.table.Sockets = append(in.table.Sockets, capture.Socket{})
	}
	if err := decodeSocket(payload, &in.table.Sockets[n]); err != nil {
		in.table.Sockets = in.table.Sockets[:n]
		in.malformed++
	}
}

// explain says what to do about an error of the kernel.
func explain(err error) error {
	switch {
	case errors.Is(err, unix.ENOENT), errors.Is(err, unix.EOPNOTSUPP):
		return fmt.Errorf("%w: the kernel has no tcp_diag; load it with modprobe tcp_diag", err)
	case errors.Is(err, unix.EAGAIN):
		return fmt.Errorf("no answer from the kernel within %v", answerWithin)
	}
	return err
}
