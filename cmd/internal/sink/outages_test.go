package sink

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"jindan/analyze"
	"jindan/cmd/internal/sink/sinktest"
)

// outageSinks are the sinks that reach their receiver over a stream, with a receiver each that hands what it gets to a stream of
// findings. Those with a library of their own are in its package.
var outageSinks = []struct {
	name   string
	http   bool
	open   func(address string, t TLS) (Sink, error)
	listen func(t *testing.T, g *sinktest.Gate, s *sinktest.Stream) (done func(testing.TB))
}{
	{"webhook", true, func(a string, t TLS) (Sink, error) {
		return NewWebhook(WebhookOptions{Address: web(a, t), HTTP: HTTP{TLS: t}})
	},
		func(t *testing.T, g *sinktest.Gate, s *sinktest.Stream) func(testing.TB) {
			behind(t, g, func(w http.ResponseWriter, body []byte) {
				var all []json.RawMessage
				if err := json.Unmarshal(body, &all); err != nil {
					t.Error(err)
				}
				for _, f := range all {
					s.Take(t, "", "", f)
				}
			})
			return s.Done
		}},
	{"webhook to Elasticsearch", true, func(a string, t TLS) (Sink, error) {
		return NewWebhook(WebhookOptions{Address: web(a, t), HTTP: HTTP{TLS: t}, Format: "elastic"})
	}, func(t *testing.T, g *sinktest.Gate, s *sinktest.Stream) func(testing.TB) {
		var mu sync.Mutex
		stored := map[string]bool{}
		behind(t, g, func(w http.ResponseWriter, body []byte) {
			mu.Lock()
			defer mu.Unlock()
			var items []string
			for pair := range slices.Chunk(strings.Split(strings.TrimSuffix(string(body), "\n"), "\n"), 2) {
				var action struct{ Create struct{ ID string } }
				if err := json.Unmarshal([]byte(strings.ReplaceAll(pair[0], `"_id"`, `"ID"`)), &action); err != nil || action.Create.ID == "" {
					t.Errorf("%v %s", err, pair[0])
				}
				id, status := action.Create.ID, http.StatusCreated
				if stored[id] {
					status = http.StatusConflict
				}
				stored[id] = true
				s.Take(t, "", id, []byte(pair[1]))
				items = append(items, fmt.Sprintf(`{"create":{"status":%d}}`, status))
			}
			fmt.Fprintf(w, `{"items":[%s]}`, strings.Join(items, ","))
		})
		return func(t testing.TB) {
			s.Done(t)
			mu.Lock()
			defer mu.Unlock()
			if len(stored) != s.Len() {
				t.Errorf("%d documents of %d states", len(stored), s.Len())
			}
		}
	}},
	{"otlp", true, func(a string, t TLS) (Sink, error) {
		return NewOTLP(OTLPOptions{Address: web(a, t), HTTP: HTTP{TLS: t}})
	},
		func(t *testing.T, g *sinktest.Gate, s *sinktest.Stream) func(testing.TB) {
			behind(t, g, func(w http.ResponseWriter, body []byte) {
				var q otlpRequest
				if err := json.Unmarshal(body, &q); err != nil {
					t.Error(err)
				}
				for _, l := range q.ResourceLogs[0].ScopeLogs[0].LogRecords {
					for _, a := range l.Attributes {
						if a.Key == "jindan.record" {
							s.Take(t, "", "", []byte(*a.Value.String))
						}
					}
				}
			})
			return s.Done
		}},
	{"alertmanager", true, func(a string, t TLS) (Sink, error) {
		return NewAlertmanager(AlertmanagerOptions{Address: web(a, t), HTTP: HTTP{TLS: t}})
	}, alerts},
	{"fluent", false, func(a string, t TLS) (Sink, error) { return NewFluent(FluentOptions{Address: a, TLS: t}) },
		func(t *testing.T, g *sinktest.Gate, s *sinktest.Stream) func(testing.TB) {
			go func() {
				for {
					c, err := g.Accept()
					if err != nil {
						return
					}
					go fluentServer(t, c, func(c chunk) {
						for _, e := range c.entries {
							body, err := json.Marshal(e[1])
							if err != nil {
								t.Error(err)
							}
							s.Take(t, "", "", body)
						}
					})
				}
			}()
			return s.Done
		}},
	{"syslog over TCP", false, func(a string, t TLS) (Sink, error) {
		return NewSyslog(SyslogOptions{Address: a, TLS: t, JSON: true})
	},
		func(t *testing.T, g *sinktest.Gate, s *sinktest.Stream) func(testing.TB) {
			octetServer(t, g, func(conn, m string) {
				_, body, _ := strings.Cut(m, "@cee: ")
				s.Take(t, conn, "", []byte(body)) // connections know nothing of each other
			})
			return s.Done
		}},
}

// web is the URL of an address.
func web(address string, t TLS) string {
	if t.Enabled() {
		return "https://" + address
	}
	return "http://" + address
}

// behind answers HTTP requests behind a gate.
func behind(t *testing.T, g *sinktest.Gate, answer func(http.ResponseWriter, []byte)) {
	s := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, q *http.Request) {
		if body, err := io.ReadAll(q.Body); err == nil { // else it was killed
			answer(w, body)
		}
	}))
	s.Listener.Close()
	s.Listener = g
	s.Start()
	t.Cleanup(s.Close)
}

// alerts is a receiver that keeps states, as Alertmanager does: of each finding one for every severity that it had, open or ended.
// The findings of a stream only grow worse, so what opens an ended one again is a request that came late.
func alerts(t *testing.T, g *sinktest.Gate, s *sinktest.Stream) func(testing.TB) {
	const open, ended = 1, 2
	var mu sync.Mutex
	known := map[string]*[3]int{} // by severity
	behind(t, g, func(_ http.ResponseWriter, body []byte) {
		mu.Lock()
		defer mu.Unlock()
		var all []alert
		if err := json.Unmarshal(body, &all); err != nil {
			t.Error(err)
		}
		for _, a := range all {
			id, severity := a.Labels["finding"], slices.Index(severities, a.Labels["severity"])
			end, err := time.Parse(time.RFC3339Nano, a.EndsAt)
			if err != nil || severity < 0 {
				t.Errorf("%v: %+v", err, a)
				continue
			}
			if known[id] == nil {
				known[id] = new([3]int)
			}
			now := open
			if !end.After(time.Now()) {
				now = ended
			}
			if k := known[id]; k[severity] == 0 && slices.Max(k[severity:]) > 0 {
				t.Errorf("%s was worse before it was %s", id, severities[severity])
			}
			known[id][severity] = max(known[id][severity], now)
		}
	})
	return func(t testing.TB) {
		mu.Lock()
		defer mu.Unlock()
		want := map[string]int{}
		s.Each(func(f *analyze.Finding) {
			want[f.ID] = open
			if f.State == analyze.Resolved {
				want[f.ID] = ended
			}
		})
		for id, w := range want {
			if k := known[id]; k == nil || k[2] != w || k[0] == open || k[1] == open {
				t.Errorf("%s: %v, want %d as an error and nothing else open", id, k, w)
			}
		}
	}
}

// TestOutages: whatever befalls a receiver, every record arrives, each finding's in order; what comes twice bears the same id; and
// another sink has everything while this one has not.
func TestOutages(t *testing.T) {
	if testing.Short() {
		t.Skip("-short: waits for the time limits of 30 outages, takes about 10 s")
	}
	for _, k := range outageSinks {
		t.Run(k.name, func(t *testing.T) {
			for _, o := range sinktest.Outages {
				t.Run(o.Name, func(t *testing.T) {
					t.Parallel()
					g, s := sinktest.NewGate(t), sinktest.NewStream(t)
					done := k.listen(t, g, s)
					under, err := k.open(g.Addr().String(), TLS{})
					if err != nil {
						t.Fatal(err)
					}
					dir := t.TempDir()
					beside, err := NewFile(FileOptions{Path: filepath.Join(dir, "records")})
					if err != nil {
						t.Fatal(err)
					}
					d, err := Start(Options{Spool: SpoolOptions{Path: filepath.Join(dir, "spool")}, Outputs: []Output{
						{Name: "under test", Sink: under, Batch: 20, Timeout: 300 * time.Millisecond, MinWait: 10 * time.Millisecond, MaxWait: 100 * time.Millisecond},
						{Name: "beside", Sink: beside}}})
					if err != nil {
						t.Fatal(err)
					}
					defer d.Close(context.Background())
					o.Run(t, g, sinktest.Delivery{Finding: d.Finding, Failing: func() {
						eventually(t, "the sink beside has all", func() bool { x := d.Status()[1]; return x.Lag == 0 && x.Sent == uint64(s.Len()) })
						if x := d.Status()[0]; x.Lag == 0 {
							t.Errorf("and so has the one that fails: %+v", x)
						}
					}, Status: func() sinktest.Status {
						x := d.Status()[0]
						return sinktest.Status{Connected: x.Connected, LastError: x.LastError, Lag: x.Lag, Sent: x.Sent, Retried: x.Retried, Lost: x.Rejected + x.Dropped}
					}}, s)
					done(t)
				})
			}
		})
	}
}

// TestUnreachable: a receiver whose name cannot be resolved, or whose certificate is not to be trusted, gets nothing, and the sink says
// why. It gets everything once it shows the certificate of the name that was asked for.
func TestUnreachable(t *testing.T) {
	a := sinktest.NewAuthority(t)
	a.Issue(t, "right", "127.0.0.1", time.Hour)
	a.Issue(t, "other", "other.example", time.Hour)
	a.Issue(t, "old", "127.0.0.1", -time.Hour)
	foreign := sinktest.NewAuthority(t)
	foreign.Issue(t, "right", "127.0.0.1", time.Hour)
	for _, k := range outageSinks {
		for _, c := range []struct {
			name, word string
			front      *tls.Config // what is shown at first; nil: the name cannot be resolved
		}{
			{"no such host", "no-such-host.invalid", nil},
			{"wrong name", "cannot validate certificate for 127.0.0.1", a.Server(t, "other")},
			{"expired", "expired", a.Server(t, "old")},
			{"unknown authority", "unknown authority", foreign.Server(t, "right")},
		} {
			t.Run(k.name+": "+c.name, func(t *testing.T) {
				t.Parallel()
				g, stream := sinktest.NewGate(t), sinktest.NewStream(t)
				done := k.listen(t, g, stream)
				address, trust := "no-such-host.invalid:6514", TLS{}
				var shown atomic.Pointer[tls.Config]
				if shown.Store(c.front); c.front != nil {
					address, trust = before(t, g, &shown), TLS{CA: a.Path("ca.crt")}
				}
				under, err := k.open(address, trust)
				if err != nil {
					t.Fatal(err)
				}
				d, err := Start(Options{Spool: SpoolOptions{Path: filepath.Join(t.TempDir(), "spool")}, Outputs: []Output{
					{Name: "x", Sink: under, Batch: 20, MinWait: 10 * time.Millisecond, MaxWait: 100 * time.Millisecond}}})
				if err != nil {
					t.Fatal(err)
				}
				given, stop := context.WithCancel(context.Background())
				stop()
				defer d.Close(given) // what a receiver without an address has not got stays in the spool
				for phase := range 3 {
					stream.Feed(t, phase, d.Finding)
				}
				eventually(t, "the failure shows", func() bool { return d.Status()[0].Retried >= 2 })
				n := uint64(stream.Len())
				if x := d.Status()[0]; x.Sent != 0 || x.Lag != n || x.Connected || !strings.Contains(x.LastError, c.word) || stream.Missing() != int(n) {
					t.Errorf("want %q: %+v", c.word, x)
				}
				if c.front == nil {
					return
				}
				shown.Store(a.Server(t, "right"))
				eventually(t, "all are passed", func() bool { return d.Status()[0].Lag == 0 })
				if x := d.Status()[0]; x.Sent != n || x.Rejected != 0 || x.Dropped != 0 {
					t.Errorf("%+v", x)
				}
				done(t)
			})
		}
	}
}

// before ends TLS before a gate, with the certificate that is shown at the time.
func before(t *testing.T, g *sinktest.Gate, shown *atomic.Pointer[tls.Config]) string {
	l := tls.NewListener(listen(t), &tls.Config{GetConfigForClient: func(*tls.ClientHelloInfo) (*tls.Config, error) { return shown.Load(), nil }})
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				if c.(*tls.Conn).Handshake() != nil {
					c.Close()
					return
				}
				sinktest.Relay(c, g.Addr().String())
			}()
		}
	}()
	return l.Addr().String()
}

// TestHTTPAnswers: what a receiver over HTTP refuses for now, or takes without saying so, comes again. What it takes in parts is in
// TestElasticPartial and TestOTLPPartialSuccess.
func TestHTTPAnswers(t *testing.T) {
	refuse := func(code int) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, q *http.Request) {
			w.Header().Set("Retry-After", "1")
			http.Error(w, "no", code)
		})
	}
	for _, k := range outageSinks {
		if !k.http {
			continue
		}
		for _, c := range []struct {
			name  string
			pause time.Duration // the least before the next request
			fault func(receiver http.Handler) http.Handler
		}{
			{"429 with Retry-After", time.Second, func(http.Handler) http.Handler { return refuse(http.StatusTooManyRequests) }},
			{"500, then fine", 0, func(http.Handler) http.Handler { return refuse(http.StatusInternalServerError) }},
			{"reset in the middle of the answer", 0, func(receiver http.Handler) http.Handler {
				return http.HandlerFunc(func(w http.ResponseWriter, q *http.Request) {
					receiver.ServeHTTP(httptest.NewRecorder(), q)
					c, _, err := w.(http.Hijacker).Hijack()
					if err != nil {
						t.Error(err)
						return
					}
					fmt.Fprint(c, "HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n{")
					c.(*net.TCPConn).SetLinger(0)
					c.Close()
				})
			}},
		} {
			t.Run(k.name+": "+c.name, func(t *testing.T) {
				t.Parallel()
				g, stream := sinktest.NewGate(t), sinktest.NewStream(t)
				done := k.listen(t, g, stream)
				receiver := httputil.NewSingleHostReverseProxy(&url.URL{Scheme: "http", Host: g.Addr().String()})
				fault := c.fault(receiver)
				const first, last = 2, 3 // requests that go wrong
				n, failed := 0, time.Time{}
				var one sync.Mutex
				front := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, q *http.Request) {
					one.Lock()
					defer one.Unlock()
					if n++; n > first && n <= last+1 && time.Since(failed) < c.pause {
						t.Errorf("request %d comes %v after a refusal", n, time.Since(failed))
					}
					if n < first || n > last {
						receiver.ServeHTTP(w, q)
						return
					}
					fault.ServeHTTP(w, q)
					failed = time.Now()
				}))
				defer front.Close()
				under, err := k.open(front.Listener.Addr().String(), TLS{})
				if err != nil {
					t.Fatal(err)
				}
				d, err := Start(Options{Spool: SpoolOptions{Path: filepath.Join(t.TempDir(), "spool")}, Outputs: []Output{
					{Name: "x", Sink: under, Batch: 20, MinWait: 10 * time.Millisecond, MaxWait: 2 * time.Second}}})
				if err != nil {
					t.Fatal(err)
				}
				defer d.Close(context.Background())
				for phase := range 3 {
					stream.Feed(t, phase, d.Finding)
				}
				eventually(t, "all are passed", func() bool { return d.Status()[0].Lag == 0 })
				if x := d.Status()[0]; x.Sent != uint64(stream.Len()) || x.Rejected != 0 || x.Dropped != 0 || x.Retried != last-first+1 || !x.Connected {
					t.Errorf("%+v", x)
				}
				done(t)
			})
		}
	}
}
