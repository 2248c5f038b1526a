package sink

import (
	"bufio"
	"context"
	"io"
	"net"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"jindan/analyze"
)

// octetServer counts the octet-counted messages that it reads; each gets them with the connection that they came over.
func octetServer(t testing.TB, l net.Listener, each func(conn, m string)) *atomic.Int64 {
	n := new(atomic.Int64)
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer c.Close()
				r := bufio.NewReader(c)
				for {
					head, err := r.ReadString(' ')
					if err != nil {
						return
					}
					size, err := strconv.Atoi(strings.TrimSuffix(head, " "))
					if err != nil {
						t.Errorf("frame begins with %q", head)
						return
					}
					m := make([]byte, size)
					if _, err := io.ReadFull(r, m); err != nil {
						return
					}
					n.Add(1)
					if each != nil {
						each(c.RemoteAddr().String(), string(m))
					}
				}
			}()
		}
	}()
	return n
}

func listen(t testing.TB) net.Listener {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	return l
}

// BenchmarkFileAndSyslog delivers each finding to a file and over TCP at once.
func BenchmarkFileAndSyslog(b *testing.B) {
	l := listen(b)
	got := octetServer(b, l, nil)
	f, err := NewFile(FileOptions{Path: filepath.Join(b.TempDir(), "out")})
	if err != nil {
		b.Fatal(err)
	}
	s, err := NewSyslog(SyslogOptions{Address: l.Addr().String()})
	if err != nil {
		b.Fatal(err)
	}
	d, err := Start(Options{Spool: SpoolOptions{Path: filepath.Join(b.TempDir(), "spool"), MaxBytes: 256 << 20},
		Outputs: []Output{{Name: "file", Sink: f}, {Name: "syslog", Sink: s}}})
	if err != nil {
		b.Fatal(err)
	}
	x := aFinding(1, analyze.Update, "warn")
	b.ResetTimer()
	for i := range b.N {
		x.Seq = uint64(i)
		if err := d.Finding(x); err != nil {
			b.Fatal(err)
		}
		if i%1000 == 999 { // a burst beyond what may wait in memory would be cut
			flush(b, d.spool)
		}
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	if err := d.Close(ctx); err != nil {
		b.Fatal(err)
	}
	b.StopTimer()
	for _, st := range d.Status() {
		if st.Sent != uint64(b.N) || st.Dropped != 0 {
			b.Errorf("%+v", st)
		}
	}
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "findings/s")
	eventually(b, "the receiver has all", func() bool { return got.Load() == int64(b.N) })
}
