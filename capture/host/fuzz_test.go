//go:build linux

package host

import (
	"os"
	"path/filepath"
	"testing"

	"jindan/capture"
)

// FuzzCounters feeds every parser of counter files: no panic, and what fails or holds nothing sets nothing by accident.
func FuzzCounters(f *testing.F) {
	for _, dir := range []string{"testdata/proc", "testdata/broken"} {
		for i, name := range []string{"net/snmp", "net/netstat", "net/softnet_stat", "net/sockstat", "net/stat/nf_conntrack",
			"sys/net/netfilter/nf_conntrack_count", "sys/net/netfilter/nf_conntrack_max", "sys/fs/file-nr",
			"sys/net/ipv4/ip_local_port_range", "sys/net/ipv4/tcp_mem"} {
			if b, err := os.ReadFile(filepath.Join(dir, name)); err == nil {
				f.Add(uint8(i), b)
			}
		}
	}
	f.Fuzz(func(t *testing.T, kind uint8, b []byte) {
		files := NewCounters("", 0).files
		var h capture.HostSample
		if files[int(kind)%len(files)].parse(b, &h) == nil && len(b) == 0 {
			t.Errorf("an empty %s is understood", files[int(kind)%len(files)].name)
		}
		for c := range capture.CounterCount {
			if !h.Known(c) && h.Counters[c] != 0 {
				t.Errorf("%v has a value but is unknown", c)
			}
		}
		if h.Has>>capture.CounterCount != 0 {
			t.Errorf("bits of no counter: %x", h.Has)
		}
	})
}

// FuzzProcess feeds every parser of /proc/PID.
func FuzzProcess(f *testing.F) {
	for _, name := range []string{"stat", "syscall", "cgroup", "limits", "net/tcp", "net/tcp6", "net/udp"} {
		if b, err := os.ReadFile("/proc/self/" + name); err == nil {
			f.Add(b[:min(len(b), 4096)])
		}
	}
	f.Add([]byte("0 0x3 0x7f52dc9f1000 0x20000 0x0 0xffffffff 0x0 0x7ffd6d08fab8 0x7f52dcb6d2ad\n"))
	f.Add([]byte("812 (a ) b) S 1 1 1 0 -1 4194304 1 0 0 0 1 1 0 0 20 0 16 0 123456 1 1"))
	f.Add([]byte("socket:[4294967295]"))
	f.Add([]byte("   0: 0100007F:0035 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 4711 1 0 100 0 0 10 0"))
	f.Fuzz(func(t *testing.T, b []byte) {
		if s, ok := parseStat(b); ok && (s.start < 0 || len(s.state) == 0) {
			t.Errorf("stat %+v", s)
		}
		parseSyscall(b)
		parseSocketLink(b)
		if n := parseFDLimit(b); n < 0 {
			t.Errorf("limit %d", n)
		}
		parseSocketLine(b)
		if unit, id := parseCgroup(b); len(unit) > 3*255 || len(id) != 0 && len(id) != idLen {
			t.Errorf("unit %q, container %q", unit, id)
		}
	})
}
