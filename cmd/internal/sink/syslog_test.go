package sink

import (
	"context"
	"crypto/tls"
	"fmt"
	"net"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
	"unicode/utf8"

	"jindan/analyze"
	"jindan/cmd/internal/sink/sinktest"
)

func message(t testing.TB, f *analyze.Finding) *Message {
	t.Helper()
	r, err := FindingRecord(f)
	if err != nil {
		t.Fatal(err)
	}
	return &Message{r, r.Body}
}

func TestFormat(t *testing.T) {
	f, err := newFormatter(SyslogOptions{Facility: "local3"}, 8192)
	if err != nil {
		t.Fatal(err)
	}
	f.pid = "4711"
	x := aFinding(0, analyze.Open, "warn")
	x.Host = "web 01\n"
	x.Subject.Peer = `a"b]c\d`
	x.Title.En, x.Summary.En = "One", "two\nthree 진단"
	b, err := f.format(nil, message(t, x))
	if err != nil {
		t.Fatal(err)
	}
	want := `<156>1 2023-11-14T22:13:20.000000Z web_01_ jindan 4711 finding [jindan@32473 id="` + x.ID +
		`" seq="1" state="open" severity="warn" rule="dead-upstream" role="root" conf="high" kind="upstream" src="10.77.1.2" dst="a\"b\]c\\d" dpt="8443" onset="2023-11-14T22:13:15Z"] ` +
		"\xEF\xBB\xBFOne: two three 진단"
	if string(b) != want {
		t.Errorf("\n%s\n%s", b, want)
	}
	x.Summary.En = strings.Repeat("진", 5000)
	for _, most := range []int{480, 481, 482, 483, 2048} {
		f.most = most
		b, err := f.format(nil, message(t, x))
		if err != nil || len(b) > most || len(b) < most-3 || !utf8.Valid(b) {
			t.Errorf("%d bytes, the most is %d, valid %v, %v", len(b), most, utf8.Valid(b), err)
		}
	}
	x.Because = []string{strings.Repeat("x", 600)}
	f.most = 480
	if b, _ := f.format(nil, message(t, x)); len(b) > 480 || !strings.Contains(string(b), " finding - ") {
		t.Errorf("structured data too large: %d bytes %s", len(b), b)
	}
	f.json, f.most = true, 8192
	x.Summary.En = "short"
	m := message(t, x)
	b, _ = f.format(nil, m)
	_, after, ok := strings.Cut(string(b), "@cee: ")
	if !ok || after != string(m.Data) {
		t.Errorf("%s", b)
	}
}

var reFrame = regexp.MustCompile(`^<(\d{1,3})>1 (\S+) (\S+) (\S+) (\S+) (\S+) (-|\[(?:[^\]\\]|\\.)*\]) (.*)$`)

// FuzzFormat: whatever a finding holds, the message is RFC 5424 on one line within its bound.
func FuzzFormat(f *testing.F) {
	f.Add("h", "a]\"\\", "t\n\x00", "\xff\xfe진", uint16(600))
	f.Fuzz(func(t *testing.T, host, peer, title, summary string, most uint16) {
		if most < 480 {
			return
		}
		fm, err := newFormatter(SyslogOptions{}, int(most))
		if err != nil {
			t.Fatal(err)
		}
		x := aFinding(0, analyze.Open, "warn")
		x.Host, x.Subject.Peer, x.Title.En, x.Summary.En = host, peer, title, summary
		b, err := fm.format(nil, message(t, x))
		if err != nil {
			t.Fatal(err)
		}
		if len(b) > int(most) || !utf8.Valid(b) || !reFrame.Match(b) {
			t.Errorf("%d of %d bytes: %q", len(b), most, b)
		}
	})
}

// TestSyslogFaults: what goes wrong between us and a receiver over TCP and TLS.
func TestSyslogFaults(t *testing.T) {
	one := record(t, 0, analyze.Open, "warn")
	fails := func(t *testing.T, o SyslogOptions, word string) {
		t.Helper()
		k, err := NewSyslog(o)
		if err != nil {
			t.Fatal(err)
		}
		s, r := deliver(t, Output{Sink: k, Timeout: 300 * time.Millisecond})
		put(t, s, one)
		eventually(t, "retries", func() bool { return r.Status().Retried >= 2 })
		if st := r.Status(); st.Sent != 0 || st.Connected || st.Lag != 1 || !strings.Contains(st.LastError, word) {
			t.Errorf("want %q: %+v", word, st)
		}
	}
	a := sinktest.NewAuthority(t)
	a.Issue(t, "right", "127.0.0.1", time.Hour)
	a.Issue(t, "name", "other.example", time.Hour)
	a.Issue(t, "old", "127.0.0.1", -time.Hour)
	a.Issue(t, "client", "", time.Hour)
	secure := func(t *testing.T, cert string) string {
		l := listen(t)
		octetServer(t, tls.NewListener(l, a.Server(t, cert)), nil)
		return l.Addr().String()
	}
	trust := TLS{CA: a.Path("ca.crt")}
	t.Run("wrong name", func(t *testing.T) {
		fails(t, SyslogOptions{Network: "tls", Address: secure(t, "name"), TLS: trust}, "cannot validate certificate for 127.0.0.1")
	})
	t.Run("expired", func(t *testing.T) {
		fails(t, SyslogOptions{Network: "tls", Address: secure(t, "old"), TLS: trust}, "expired")
	})
	t.Run("unknown authority", func(t *testing.T) {
		fails(t, SyslogOptions{Network: "tls", Address: secure(t, "right")}, "unknown authority")
	})
	t.Run("no such host", func(t *testing.T) {
		fails(t, SyslogOptions{Address: "no-such-host.invalid:601"}, "no-such-host.invalid")
	})
	t.Run("never reads", func(t *testing.T) {
		l := listen(t)
		defer l.Close()
		go func() {
			for {
				c, err := l.Accept()
				if err != nil {
					return
				}
				c.(*net.TCPConn).SetReadBuffer(4096)
				defer c.Close()
			}
		}()
		k, err := NewSyslog(SyslogOptions{Address: l.Addr().String(), MaxBytes: 60000})
		if err != nil {
			t.Fatal(err)
		}
		s, r := deliver(t, Output{Sink: k, Timeout: 200 * time.Millisecond, Batch: 500})
		x := aFinding(0, analyze.Open, "warn")
		x.Summary.En = strings.Repeat("x", 50_000)
		big, _ := FindingRecord(x)
		for range 200 { // 10 MB: more than two kernels' buffers
			put(t, s, big)
		}
		eventually(t, "a timeout", func() bool { return r.Status().Retried >= 1 })
		if st := r.Status(); st.Lag == 0 || st.Connected {
			t.Errorf("%+v", st)
		}
	})
	t.Run("absent, then there, killed, and back", func(t *testing.T) {
		l := listen(t)
		addr := l.Addr().String()
		l.Close()
		k, err := NewSyslog(SyslogOptions{Address: addr})
		if err != nil {
			t.Fatal(err)
		}
		s, r := deliver(t, Output{Sink: k, Batch: 20})
		var seen [300]atomic.Int32
		each := func(_, m string) {
			var n int
			fmt.Sscanf(m[strings.Index(m, `seq="`)+5:], "%d", &n)
			seen[n-1].Add(1)
		}
		for i := range 100 {
			put(t, s, record(t, i, analyze.Open, "warn"))
		}
		eventually(t, "retries", func() bool { return r.Status().Retried >= 2 })
		for round := range 2 {
			if l, err = net.Listen("tcp", addr); err != nil {
				t.Fatal(err)
			}
			served := make(chan net.Conn, 8)
			octetServer(t, &keeping{l, served}, each)
			for i := range 100 {
				put(t, s, record(t, 100+round*100+i, analyze.Open, "warn"))
			}
			eventually(t, "everything is passed", func() bool { return r.Status().Lag == 0 })
			l.Close()
			(<-served).Close()
		}
		for i := range seen {
			if seen[i].Load() == 0 {
				t.Errorf("message %d never arrived", i)
			}
		}
	})
	for _, bad := range []SyslogOptions{{}, {Network: "sctp", Address: "h"}, {Address: "h", Facility: "x"}, {Address: "h", MaxBytes: 100},
		{Address: "h", TLS: TLS{CA: "/nowhere"}}, {Address: "h", TLS: TLS{Cert: "x"}}, {Network: "udp", Address: "h", TLS: trust}} {
		if _, err := NewSyslog(bad); err == nil {
			t.Errorf("%+v is taken", bad)
		}
	}
}

// keeping hands out the connections that it accepts, for closing.
type keeping struct {
	net.Listener
	conns chan net.Conn
}

func (k *keeping) Accept() (net.Conn, error) {
	c, err := k.Listener.Accept()
	if err == nil {
		k.conns <- c
	}
	return c, err
}

// TestSyslogTail: what was sent over a connection that is reset comes again on the next one, as far back as it is kept; after one that
// the receiver closed with nothing unread, only what is new.
func TestSyslogTail(t *testing.T) {
	for _, c := range []struct {
		name  string
		sent  int
		reset bool
	}{{"reset", 20, true}, {"reset after more than is kept", 600, true}, {"closed", 20, false}} {
		t.Run(c.name, func(t *testing.T) {
			l := listen(t)
			served := make(chan net.Conn, 2)
			var mu sync.Mutex
			got := map[string][]string{} // by connection
			octetServer(t, &keeping{l, served}, func(conn, m string) {
				mu.Lock()
				defer mu.Unlock()
				got[conn] = append(got[conn], m)
			})
			count := func(conn net.Conn) int {
				mu.Lock()
				defer mu.Unlock()
				return len(got[conn.RemoteAddr().String()])
			}
			k, err := NewSyslog(SyslogOptions{Address: l.Addr().String(), JSON: true})
			if err != nil {
				t.Fatal(err)
			}
			defer k.Close()
			send := func(from, n int) {
				t.Helper()
				var batch []Message
				for i := range n {
					r := record(t, from+i, analyze.Open, "warn")
					batch = append(batch, Message{r, r.Body})
				}
				ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
				defer cancel()
				out := make([]Outcome, n)
				if err := k.Send(ctx, batch, out); err != nil || slices.Contains(out, Retry) {
					t.Fatal(err)
				}
			}
			for at := 0; at < c.sent; at += 20 {
				send(at, 20)
			}
			first := <-served
			eventually(t, "all are read", func() bool { return count(first) == c.sent })
			if c.reset {
				first.(*net.TCPConn).SetLinger(0)
			}
			first.Close()
			send(c.sent, 1)
			second := <-served
			eventually(t, "the last is read", func() bool {
				mu.Lock()
				defer mu.Unlock()
				all := got[second.RemoteAddr().String()]
				return len(all) > 0 && strings.Contains(all[len(all)-1], fmt.Sprintf(`seq="%d"`, c.sent+1))
			})
			mu.Lock()
			defer mu.Unlock()
			before, after := got[first.RemoteAddr().String()], got[second.RemoteAddr().String()]
			again := after[:len(after)-1]
			if !slices.Equal(again, before[len(before)-len(again):]) {
				t.Error("what came again is not the end of what was sent")
			}
			size := func(all []string) (n int) {
				for _, m := range all {
					n += len(strconv.Itoa(len(m))) + 1 + len(m)
				}
				return n
			}
			switch n := size(again); {
			case !c.reset && n > 0, c.reset && size(before) <= tailMost && len(again) != c.sent,
				c.reset && size(before) > tailMost && (n > tailMost || n < tailMost-8192):
				t.Errorf("%d messages of %d bytes came again, %d of %d bytes were sent", len(again), n, c.sent, size(before))
			}
		})
	}
}
