//go:build linux

package sockets

import (
	"errors"
	"os"
	"reflect"
	"slices"
	"strings"
	"testing"

	"jindan/capture"

	"golang.org/x/sys/unix"
)

// recorded is what Linux 6.18 on amd64 answered for the sockets of populate.
const recorded = "testdata/linux-6.18-amd64.bin"

// message is a netlink message.
func message(kind, flags uint16, seq uint32, payload []byte) []byte {
	b := make([]byte, unix.SizeofNlMsghdr, unix.SizeofNlMsghdr+align(len(payload)))
	native.PutUint32(b, uint32(unix.SizeofNlMsghdr+len(payload)))
	native.PutUint16(b[4:], kind)
	native.PutUint16(b[6:], flags)
	native.PutUint32(b[8:], seq)
	return append(b, append(slices.Clone(payload), make([]byte, align(len(payload))-len(payload))...)...)
}

func attribute(kind uint16, value []byte) []byte {
	b := make([]byte, unix.SizeofNlAttr, unix.SizeofNlAttr+align(len(value)))
	native.PutUint16(b, uint16(unix.SizeofNlAttr+len(value)))
	native.PutUint16(b[2:], kind)
	return append(b, append(slices.Clone(value), make([]byte, align(len(value))-len(value))...)...)
}

// diag is an inet_diag_msg of an IPv4 socket.
func diag(state capture.SocketState, attributes ...[]byte) []byte {
	b := make([]byte, messageSize)
	b[0], b[1] = unix.AF_INET, byte(state)
	return append(b, slices.Concat(attributes...)...)
}

func errnoOf(e unix.Errno) []byte { return native.AppendUint32(nil, uint32(-int32(e))) }

// A message that cannot be read costs no other one, a dump that changed meanwhile is kept and marked, and
// nothing behind its end is read.
func TestDatagram(t *testing.T) {
	good := message(requestKind, unix.NLM_F_MULTI, 7, diag(capture.CloseWait))
	done := message(unix.NLMSG_DONE, unix.NLM_F_MULTI, 7, errnoOf(0))
	for _, c := range []struct {
		name              string
		parts             [][]byte
		max               int
		sockets           int
		over, bad         uint64
		interrupted, done bool
		err               error
	}{
		{name: "two, more to come", parts: [][]byte{good, good}, max: 9, sockets: 2},
		{name: "end", parts: [][]byte{good, done, good}, max: 9, sockets: 1, done: true},
		{name: "end without payload", parts: [][]byte{message(unix.NLMSG_DONE, 0, 7, nil)}, max: 9, done: true},
		{name: "too short between good ones", parts: [][]byte{good, message(requestKind, 0, 7, make([]byte, 71)), good}, max: 9,
			sockets: 2, bad: 1},
		{name: "attribute too long", parts: [][]byte{good, message(requestKind, 0, 7,
			append(diag(capture.Listen), 200, 0, attrInfo, 0)), good}, max: 9, sockets: 2, bad: 1},
		{name: "attribute without length", parts: [][]byte{message(requestKind, 0, 7,
			append(diag(capture.Listen), 0, 0, attrInfo, 0)), good}, max: 9, sockets: 1, bad: 1},
		{name: "no IP family", parts: [][]byte{message(requestKind, 0, 7, make([]byte, 72)), good}, max: 9, sockets: 1, bad: 1},
		{name: "interrupted", parts: [][]byte{good, message(unix.NLMSG_DONE, unix.NLM_F_DUMP_INTR, 7, errnoOf(0))}, max: 9, sockets: 1,
			interrupted: true, done: true},
		{name: "another request's", parts: [][]byte{message(unix.NLMSG_DONE, unix.NLM_F_DUMP_INTR, 6, errnoOf(0)), good}, max: 9, sockets: 1},
		{name: "another kind", parts: [][]byte{message(unix.NLMSG_NOOP, 0, 7, nil), good}, max: 9, sockets: 1},
		{name: "cap", parts: [][]byte{good, good, good, done}, max: 1, sockets: 1, over: 2, done: true},
		{name: "refused", parts: [][]byte{message(unix.NLMSG_ERROR, 0, 7, errnoOf(unix.EPERM))}, max: 9, done: true, err: unix.EPERM},
		{name: "failed in the end", parts: [][]byte{good, message(unix.NLMSG_DONE, 0, 7, errnoOf(unix.ENOMEM))}, max: 9, sockets: 1,
			done: true, err: unix.ENOMEM},
		{name: "header cut", parts: [][]byte{good, good[:15]}, max: 9, sockets: 1},
		{name: "message cut", parts: [][]byte{good, good[:60]}, max: 9, sockets: 1, bad: 1},
		{name: "length 0", parts: [][]byte{make([]byte, 64)}, max: 9, bad: 1},
	} {
		t.Run(c.name, func(t *testing.T) {
			in := intake{table: new(capture.SocketTable), seq: 7, max: c.max}
			done, err := in.datagram(slices.Concat(c.parts...))
			if done != c.done || !errors.Is(err, c.err) {
				t.Errorf("done %v, error %v; want %v, %v", done, err, c.done, c.err)
			}
			if len(in.table.Sockets) != c.sockets || in.overCap != c.over || in.malformed != c.bad || in.table.Interrupted != c.interrupted {
				t.Errorf("%d sockets, %d over, %d malformed, interrupted %v; want %d, %d, %d, %v", len(in.table.Sockets), in.overCap,
					in.malformed, in.table.Interrupted, c.sockets, c.over, c.bad, c.interrupted)
			}
		})
	}
}

// What an older kernel does not return is 0, what a newer one adds is passed over, and nothing remains of the
// socket that was in the same place before.
func TestDecodeByLength(t *testing.T) {
	info := make([]byte, 280)
	for i := range info {
		info[i] = 0x5a
	}
	var whole capture.Socket
	must(t, decodeSocket(diag(capture.Established, attribute(attrInfo, info), attribute(attrCgroupID|unix.NLA_F_NESTED, info[:8]),
		attribute(attrSkMemInfo, info[:36]), attribute(9999, info[:3])), &whole))
	for v, i := reflect.ValueOf(whole.Info), 0; i < v.NumField(); i++ {
		if v.Field(i).IsZero() {
			t.Errorf("%s is not read", v.Type().Field(i).Name)
		}
	}
	if whole.Drops != 0x5a5a5a5a || whole.Cgroup != 0x5a5a5a5a5a5a5a5a {
		t.Errorf("drops %#x, cgroup %#x", whole.Drops, whole.Cgroup)
	}

	s := whole
	must(t, decodeSocket(diag(capture.Established, attribute(attrInfo, info[:104]), attribute(attrSkMemInfo, info[:32])), &s)) // Linux 3.10
	if want := uint32(0x5a5a5a5a); s.Info.RTT != want || s.Info.TotalRetrans != want || !s.HasInfo {
		t.Errorf("104 bytes: %+v", s.Info)
	}
	if s.Info.BytesAcked != 0 || s.Info.RcvWnd != 0 || s.Info.TotalRTO != 0 || s.Drops != 0 || s.Cgroup != 0 {
		t.Errorf("behind 104 bytes: %+v", s)
	}
	must(t, decodeSocket(diag(capture.TimeWait), &s))
	if s.HasInfo || s.Info != (capture.TCPInfo{}) {
		t.Errorf("without tcp_info: %+v", s.Info)
	}
}

func FuzzDecodeSocket(f *testing.F) {
	f.Add([]byte{})
	f.Add(diag(capture.Listen, attribute(attrSkMemInfo, make([]byte, 36)), attribute(attrCgroupID, make([]byte, 8))))
	for b := readRecorded(f); len(b) > 0; {
		n := native.Uint32(b)
		f.Add(b[unix.SizeofNlMsghdr:n])
		b = b[align(int(n)):]
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		var s capture.Socket
		dirty := capture.Socket{Cookie: 1, HasInfo: true, Info: capture.TCPInfo{RTT: 1, TotalRTO: 1}}
		err, again := decodeSocket(b, &s), decodeSocket(b, &dirty)
		if !errors.Is(again, err) {
			t.Fatalf("%v, then %v", err, again)
		}
		if err == nil && s != dirty {
			t.Fatalf("what was there before shows: %+v, %+v", s, dirty)
		}
		if !s.HasInfo && s.Info != (capture.TCPInfo{}) {
			t.Fatalf("tcp_info of nothing: %+v", s.Info)
		}
	})
}

func FuzzDatagram(f *testing.F) {
	f.Add(readRecorded(f))
	f.Add(slices.Concat(message(requestKind, 0, 1, diag(capture.CloseWait)), message(unix.NLMSG_DONE, unix.NLM_F_DUMP_INTR, 1, nil)))
	f.Add(message(unix.NLMSG_ERROR, 0, 1, errnoOf(unix.ENOENT)))
	f.Fuzz(func(t *testing.T, b []byte) {
		in := intake{table: new(capture.SocketTable), seq: 1, max: 3}
		done, err := in.datagram(b)
		if err != nil && !done {
			t.Fatalf("error in the middle: %v", err)
		}
		n := uint64(len(in.table.Sockets))
		if n > 3 || in.overCap > 0 && n < 3 || n+in.overCap+in.malformed > uint64(len(b)/unix.SizeofNlMsghdr) {
			t.Fatalf("%d bytes: %d sockets, %d over, %d malformed", len(b), n, in.overCap, in.malformed)
		}
	})
}

func readRecorded(t testing.TB) []byte {
	t.Helper()
	b, err := os.ReadFile(recorded)
	must(t, err)
	return b
}

// The recorded answer reads the same on every machine of its byte order.
func TestRecorded(t *testing.T) {
	in := intake{table: new(capture.SocketTable), seq: 1, max: MaxSockets}
	if _, err := in.datagram(readRecorded(t)); err != nil || in.malformed > 0 {
		t.Fatalf("%v, %d malformed", err, in.malformed)
	}
	var lines []string
	for i := range in.table.Sockets {
		s := &in.table.Sockets[i]
		if s.Local.Port == 7001 || s.Local.Port == 7003 || s.Remote.Port == 7010 {
			lines = append(lines, s.Local.String()+" "+s.State.String())
		}
		if s.Local.Port == 7001 && s.State == capture.Listen && (s.RecvQ != 2 || s.SendQ != 7) {
			t.Errorf("queue %d of %d, want 2 of 7", s.RecvQ, s.SendQ)
		}
		if s.Remote.Port == 7010 && (s.Info.TotalRetrans == 0 || s.Info.TotalRTO == 0 || s.Info.RcvWnd == 0 || s.Info.MinRTT == 0) {
			t.Errorf("retransmitting: %+v", s.Info)
		}
	}
	got := strings.Join(lines, ", ")
	for _, want := range []string{"127.0.0.1:7001 LISTEN", "127.0.0.1:7003 CLOSE_WAIT", "ESTABLISHED"} {
		if !strings.Contains(got, want) {
			t.Errorf("no %s in %s", want, got)
		}
	}
}
