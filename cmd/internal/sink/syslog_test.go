package sink

import (
	"context"
	"fmt"
	"net"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"
	"unicode/utf8"

	"jindan/analyze"
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

// TestSyslogOptions: what cannot work is refused at once.
func TestSyslogOptions(t *testing.T) {
	for _, bad := range []SyslogOptions{{}, {Network: "sctp", Address: "h"}, {Address: "h", Facility: "x"}, {Address: "h", MaxBytes: 100},
		{Address: "h", TLS: TLS{CA: "/nowhere"}}, {Address: "h", TLS: TLS{Cert: "x"}}, {Network: "udp", Address: "h", TLS: TLS{Enable: true}}} {
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
