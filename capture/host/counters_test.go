//go:build linux

package host

import (
	"os"
	"slices"
	"testing"

	"github.com/vishvananda/netns"

	"jindan/capture"
)

// The expected numbers were read in the files with the eye.
func TestCountersTestdata(t *testing.T) {
	c := NewCounters("testdata/proc", netns.None())
	defer c.Close()
	var h capture.HostSample
	for range 2 { // the second sample re-uses the open files
		c.Read(&h)
	}
	if f := c.Failures(); len(f) != 0 {
		t.Fatalf("failures: %v", f)
	}
	for i := range capture.CounterCount {
		if !h.Known(i) {
			t.Errorf("%v is unknown", i)
		}
	}
	for c, want := range map[capture.Counter]uint64{capture.ConntrackInsertFailed: 14, capture.ConntrackDrop: 10,
		capture.ConntrackEarlyDrop: 4, capture.SoftnetDropped: 0} {
		if h.Counters[c] != want {
			t.Errorf("%v = %d, want %d", c, h.Counters[c], want)
		}
	}
	if h.PortRange != [2]uint16{32768, 60999} || h.ConntrackMax != 262144 || h.TCPMemLimit != [3]uint64{287901, 383868, 575802} ||
		h.FilesMax != 2466177 || h.FilesOpen == 0 || h.TCPMemPages == 0 {
		t.Errorf("limits: %+v", h)
	}
}

func TestCountersBroken(t *testing.T) {
	c := NewCounters("testdata/broken", netns.None())
	defer c.Close()
	var h capture.HostSample
	h.Set(capture.ActiveOpens, 7) // of a sample before: must not remain
	for range 3 {
		c.Read(&h)
	}
	var failed []string
	for _, f := range c.Failures() {
		failed = append(failed, f.File)
	}
	want := []string{"net/snmp", "net/softnet_stat", "net/sockstat", "net/stat/nf_conntrack", "sys/net/netfilter/nf_conntrack_count",
		"sys/net/netfilter/nf_conntrack_max", "sys/fs/file-nr", "sys/net/ipv4/ip_local_port_range", "sys/net/ipv4/tcp_mem"}
	if !slices.Equal(failed, want) {
		t.Errorf("failures %v, want %v", failed, want)
	}
	if !h.Known(capture.TCPOrigDataSent) || h.Known(capture.ActiveOpens) || h.Known(capture.SoftnetProcessed) ||
		h.Counters[capture.ActiveOpens] != 0 || h.PortRange[0] != 0 || h.TCPMemLimit[0] != 0 {
		t.Errorf("sample of broken files: %+v", h)
	}
}

// What the kernel prints with 32 bits goes on growing behind the wrap.
func TestSoftnetWraps(t *testing.T) {
	p := softnet()
	var h capture.HostSample
	for _, step := range []struct {
		text string
		want uint64
	}{
		{"fffffff0 00000000 00000001\n00000010 00000000 00000000\n", 1 << 32},
		{"00000010 00000000 00000001\n00000010 00000000 00000000\n", 1<<32 + 32},
		{"00000020 00000000 00000001\n00000010 00000000 00000000\n", 1<<32 + 48},
		{"00000020 00000000 00000001\n", 1<<32 + 32 - 1<<32}, // a CPU less: begins anew
	} {
		if err := p.parse([]byte(step.text), &h); err != nil || h.Counters[capture.SoftnetProcessed] != step.want {
			t.Errorf("%q: %d, %v; want %d", step.text, h.Counters[capture.SoftnetProcessed], err, step.want)
		}
	}
}

// The files of this machine are understood, whatever its kernel.
func TestCountersHere(t *testing.T) {
	c := NewCounters("/proc", netns.None())
	defer c.Close()
	var h capture.HostSample
	c.Read(&h)
	for _, f := range c.Failures() {
		if !os.IsNotExist(f.Err) {
			t.Errorf("%s: %v", f.File, f.Err)
		}
	}
	if !h.Known(capture.OutSegs) || !h.Known(capture.TCPOrigDataSent) || h.FilesMax == 0 {
		t.Errorf("sample: %+v", h)
	}
	if n := testing.AllocsPerRun(100, func() { c.Read(&h) }); n > 0 && len(c.Failures()) == 0 {
		t.Errorf("%v allocations a sample", n)
	}
}

func BenchmarkCounters(b *testing.B) {
	c := NewCounters("/proc", netns.None())
	defer c.Close()
	var h capture.HostSample
	for b.Loop() {
		c.Read(&h)
	}
}

func BenchmarkLinks(b *testing.B) {
	l, err := NewLinks(netns.None())
	if err != nil {
		b.Fatal(err)
	}
	defer l.Close()
	var links []capture.Link
	for b.Loop() {
		if links, err = l.Read(links[:0]); err != nil {
			b.Fatal(err)
		}
	}
}
