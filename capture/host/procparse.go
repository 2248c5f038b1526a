//go:build linux

package host

import (
	"bytes"
	"encoding/binary"
	"strings"
	"time"

	"jindan/capture"
)

// userHZ is the unit of times in /proc/PID/stat, in ticks a second: USER_HZ is 100 on amd64 and arm64 (proc(5), AT_CLKTCK).
const userHZ = 100

// stat is what is read of /proc/PID/stat and /proc/PID/task/TID/stat.
type stat struct {
	comm  string
	state string
	start time.Duration // since boot
}

// parseStat finds the fields behind the name, which may itself hold blanks and brackets.
func parseStat(b []byte) (stat, bool) {
	open, end := bytes.IndexByte(b, '('), bytes.LastIndexByte(b, ')')
	if open < 0 || end < open {
		return stat{}, false
	}
	s := stat{comm: strings.ToValidUTF8(string(b[open+1:end]), "?")}
	rest := b[end+1:]
	for n := 3; n <= 22; n++ { // fields as proc(5) numbers them
		var f []byte
		if f, rest = field(rest); len(f) == 0 {
			return stat{}, false
		}
		switch n {
		case 3:
			s.state = string(f[:1])
		case 22:
			ticks, ok := decimal(f)
			if !ok || ticks > 1<<53 { // 2.8 million years; no overflow below
				return stat{}, false
			}
			s.start = time.Duration(ticks%userHZ)*time.Second/userHZ + min(time.Duration(ticks/userHZ), 1<<33)*time.Second
		}
	}
	return s, true
}

// parseSyscall reads /proc/PID/task/TID/syscall: number and the first two arguments; false for a thread that runs, or waits
// outside a system call.
func parseSyscall(b []byte) (number, arg0, arg1 uint64, ok bool) {
	f, b := field(b)
	if number, ok = decimal(f); !ok {
		return 0, 0, 0, false
	}
	for _, arg := range []*uint64{&arg0, &arg1} {
		if f, b = field(b); !bytes.HasPrefix(f, []byte("0x")) {
			return 0, 0, 0, false
		}
		if *arg, ok = hexadecimal(f[2:]); !ok {
			return 0, 0, 0, false
		}
	}
	return number, arg0, arg1, true
}

// parseSocketLink reads what a descriptor's link says: socket:[INODE].
func parseSocketLink(b []byte) (inode uint32, ok bool) {
	b, found := bytes.CutPrefix(b, []byte("socket:["))
	b, closed := bytes.CutSuffix(b, []byte("]"))
	n, isNumber := decimal(b)
	return uint32(n), found && closed && isNumber && n < 1<<32
}

// parseFDLimit finds the soft limit of open files in /proc/PID/limits; 0: unlimited or unknown.
func parseFDLimit(b []byte) int32 {
	for len(b) > 0 {
		var l []byte
		l, b = line(b)
		if rest, is := bytes.CutPrefix(l, []byte("Max open files")); is {
			f, _ := field(rest)
			n, _ := decimal(f)
			return int32(min(n, 1<<31-1))
		}
	}
	return 0
}

// socketLine is what is read of a line of /proc/net/{tcp,tcp6,udp,udp6}.
type socketLine struct {
	local, remote capture.Endpoint
	state         capture.SocketState
	inode         uint32
}

// parseSocketLine reads one line (tcp4_seq_show in net/ipv4/tcp_ipv4.c and its kin); false for the heading and for
// what is malformed.
func parseSocketLine(b []byte) (s socketLine, ok bool) {
	for n := range 10 {
		var f []byte
		f, b = field(b)
		switch n {
		case 1:
			s.local, ok = hexEndpoint(f)
		case 2:
			s.remote, ok = hexEndpoint(f)
		case 3:
			var v uint64
			v, ok = hexadecimal(f)
			s.state, ok = capture.SocketState(v), ok && v < 1<<8
		case 9:
			var v uint64
			v, ok = decimal(f)
			s.inode, ok = uint32(v), ok && v < 1<<32
		default:
			ok = len(f) > 0
		}
		if !ok {
			return socketLine{}, false
		}
	}
	return s, true
}

// hexEndpoint reads ADDRESS:PORT: the address as 32-bit words in the order of the machine, the port as a number.
func hexEndpoint(b []byte) (e capture.Endpoint, ok bool) {
	addr, port, ok := bytes.Cut(b, []byte(":"))
	if !ok || len(port) != 4 || len(addr) != 8 && len(addr) != 32 {
		return e, false
	}
	p, ok := hexadecimal(port)
	e.Port = uint16(p)
	at := 0
	if len(addr) == 8 {
		e.Addr[10], e.Addr[11], at = 0xff, 0xff, 12
	}
	for i := 0; ok && i < len(addr); i, at = i+8, at+4 {
		var word uint64
		word, ok = hexadecimal(addr[i : i+8])
		binary.NativeEndian.PutUint32(e.Addr[at:], uint32(word))
	}
	return e, ok
}

// parseCgroup finds systemd unit and container id in /proc/PID/cgroup: "0::PATH" for cgroup v2, "N:name=systemd:PATH" and
// "N:CONTROLLER:PATH" for v1. An id is 64 hexadecimal digits at the end of a path element: docker-ID.scope, docker/ID,
// cri-containerd-ID.scope, …:cri-containerd:ID, crio-ID.scope, libpod-ID.scope, kubepods/…/ID.
func parseCgroup(b []byte) (unit, container string) {
	for len(b) > 0 {
		var l []byte
		l, b = line(b)
		parts := bytes.SplitN(l, []byte(":"), 3)
		if len(parts) < 3 {
			continue
		}
		systemd := len(parts[1]) == 0 || string(parts[1]) == "name=systemd"
		u := ""
		for element := range bytes.SplitSeq(parts[2], []byte("/")) {
			if id := containerID(element); id != "" {
				container, u = id, "" // a unit around the container is its runtime's
			} else if bytes.HasSuffix(element, []byte(".service")) || bytes.HasSuffix(element, []byte(".scope")) {
				u = strings.ToValidUTF8(string(element[:min(len(element), 255)]), "?") // NAME_MAX
			}
		}
		if systemd && u != "" {
			unit = u
		}
	}
	return unit, container
}

// idLen is the length of a container id: 256 bits in hexadecimal.
const idLen = 64

func containerID(element []byte) string {
	element = bytes.TrimSuffix(element, []byte(".scope"))
	if len(element) < idLen || bytes.Contains(element, []byte("conmon")) { // the monitor is outside the container
		return ""
	}
	prefix, id := element[:len(element)-idLen], element[len(element)-idLen:]
	for _, c := range id {
		if (c < '0' || c > '9') && (c < 'a' || c > 'f') {
			return ""
		}
	}
	if n := len(prefix); n > 0 && prefix[n-1] != '-' && prefix[n-1] != ':' {
		return ""
	}
	return string(id)
}
