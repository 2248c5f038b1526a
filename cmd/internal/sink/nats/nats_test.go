package nats

import (
	"context"
	"crypto/tls"
	"fmt"
	"net"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"jindan/cmd/internal/sink"
	"jindan/cmd/internal/sink/sinktest"
)

func batch(n, from int) (b []sink.Message) {
	for i := from; i < from+n; i++ {
		r := sink.Record{Kind: sink.KindFinding, ID: fmt.Sprintf("surge-%012x", i%7), Seq: uint64(i + 1), Severity: "warn", Time: 1_700_000_000_000_000_000}
		b = append(b, sink.Message{Record: r, Data: fmt.Appendf(nil, `{"seq":%d}`, i+1)})
	}
	return b
}

func send(p sink.Sink, b []sink.Message) (accepted int, err error) {
	ctx, cancel := context.WithTimeout(context.Background(), 3*time.Second)
	defer cancel()
	out := make([]sink.Outcome, len(b))
	err = p.Send(ctx, b, out)
	for _, o := range out {
		if o == sink.Accepted {
			accepted++
		}
	}
	return accepted, err
}

// server starts nats-server with JetStream, over TLS if cert, of a, is given.
func server(t *testing.T, addr, dir string, a *sinktest.Authority, cert string) (stop func()) {
	t.Helper()
	path, err := exec.LookPath("nats-server")
	if err != nil {
		t.Skip("nats-server is not in PATH: apt-get install nats-server")
	}
	_, port, _ := net.SplitHostPort(addr)
	args := []string{"-js", "-sd", dir, "-a", "127.0.0.1", "-p", port}
	var options []nats.Option
	if cert != "" {
		args = append(args, "-tls", "-tlscert", a.Path(cert+".crt"), "-tlskey", a.Path(cert+".key"))
		options = append(options, nats.Secure(&tls.Config{InsecureSkipVerify: true})) // to see that it is up
	}
	cmd := exec.Command(path, args...)
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	stopped := false
	stop = func() {
		if !stopped {
			stopped = true
			cmd.Process.Kill()
			cmd.Wait()
		}
	}
	t.Cleanup(stop)
	for range 500 {
		if c, err := nats.Connect("nats://"+addr, options...); err == nil {
			js, _ := jetstream.New(c)
			ctx, cancel := context.WithTimeout(context.Background(), time.Second)
			_, err := js.AccountInfo(ctx)
			cancel()
			c.Close()
			if err == nil {
				return stop
			}
		}
		time.Sleep(10 * time.Millisecond)
	}
	t.Fatal("nats-server does not come up")
	return nil
}

// free is an address of loopback at which nobody listens.
func free(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

// TestIntegrationNATSTLS: only a server whose certificate is of a trusted authority, valid and of its name gets anything.
func TestIntegrationNATSTLS(t *testing.T) {
	a := sinktest.NewAuthority(t)
	for _, c := range []struct {
		name, host string
		life       time.Duration
		trust      bool
		word       string // of the error
	}{
		{"right", "127.0.0.1", time.Hour, true, "no response from stream"}, // trusted: only the stream is missing
		{"name", "other.example", time.Hour, true, "cannot validate certificate for 127.0.0.1"},
		{"expired", "127.0.0.1", -time.Hour, true, "expired"},
		{"unknown", "127.0.0.1", time.Hour, false, "unknown authority"},
	} {
		t.Run(c.name, func(t *testing.T) {
			a.Issue(t, c.name, c.host, c.life)
			addr := free(t)
			server(t, addr, t.TempDir(), a, c.name)
			o := Options{Address: "nats://" + addr, TLS: sink.TLS{Enable: true}}
			if c.trust {
				o.TLS.CA = a.Path("ca.crt")
			}
			p, err := New(o)
			if err != nil {
				t.Fatal(err)
			}
			defer p.Close()
			if n, err := send(p, batch(3, 0)); n != 0 || err == nil || !strings.Contains(err.Error(), c.word) {
				t.Errorf("%d, %v", n, err)
			}
		})
	}
}

func TestIntegrationNATS(t *testing.T) {
	addr, dir := free(t), t.TempDir()
	p, err := New(Options{Address: "nats://" + addr})
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	if n, err := send(p, batch(3, 0)); n != 0 || err == nil {
		t.Errorf("absent at start: %d, %v", n, err)
	}
	stop := server(t, addr, dir, nil, "")
	if n, err := send(p, batch(3, 0)); n != 0 || err == nil {
		t.Errorf("no stream covers the subject: %d, %v", n, err)
	}
	c, err := nats.Connect("nats://" + addr)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	js, _ := jetstream.New(c)
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	if _, err := js.CreateStream(ctx, jetstream.StreamConfig{Name: "J", Subjects: []string{"jindan.>"}}); err != nil {
		t.Fatal(err)
	}
	for range 2 { // twice: the second time everything is a duplicate
		if n, err := send(p, batch(1000, 0)); n != 1000 || err != nil {
			t.Fatalf("%d, %v", n, err)
		}
	}
	stop()
	if n, err := send(p, batch(5, 1000)); n != 0 || err == nil {
		t.Errorf("killed: %d, %v", n, err)
	}
	server(t, addr, dir, nil, "")
	if n, err := send(p, batch(5, 1000)); n != 5 || err != nil {
		t.Errorf("back: %d, %v", n, err)
	}
	if c, err = nats.Connect("nats://" + addr); err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	js, _ = jetstream.New(c)
	s, err := js.Stream(ctx, "J")
	if err != nil {
		t.Fatal(err)
	}
	if n := s.CachedInfo().State.Msgs; n != 1005 {
		t.Errorf("the stream holds %d messages", n)
	}
	m, err := s.GetMsg(ctx, 1)
	if err != nil || m.Subject != "jindan.finding.warn" || string(m.Data) != `{"seq":1}` {
		t.Errorf("%v %+v", err, m)
	}
}

// TestIntegrationNATSIncident reads back from a stream what the sink has made of the incident of 17 November.
func TestIntegrationNATSIncident(t *testing.T) {
	addr := free(t)
	server(t, addr, t.TempDir(), nil, "")
	j := stream(t, addr)
	p, err := New(Options{Address: "nats://" + addr})
	if err != nil {
		t.Fatal(err)
	}
	d, err := sink.Start(sink.Options{Spool: sink.SpoolOptions{Path: filepath.Join(t.TempDir(), "spool")}, Outputs: []sink.Output{{Name: "nats", Sink: p}}})
	if err != nil {
		t.Fatal(err)
	}
	sent := sinktest.Feed(t, d.Finding)
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	if err := d.Close(ctx); err != nil {
		t.Fatal(err)
	}
	for seq := range uint64(len(sent)) {
		m, err := j.GetMsg(ctx, seq+1)
		if err != nil {
			t.Fatal(err)
		}
		if f := sent.Take(t, m.Data); f != nil && m.Subject != "jindan.finding."+f.Severity {
			t.Errorf("%s %s under %s", f.ID, f.Severity, m.Subject)
		}
	}
	sent.Done(t)
}

// stream makes the stream of a server.
func stream(t *testing.T, addr string) jetstream.Stream {
	t.Helper()
	c, err := nats.Connect("nats://" + addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	js, err := jetstream.New(c)
	if err != nil {
		t.Fatal(err)
	}
	s, err := js.CreateOrUpdateStream(t.Context(), jetstream.StreamConfig{Name: "J", Subjects: []string{"jindan.>"}})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// TestIntegrationNATSOutages: whatever befalls the server, all records arrive, once, each finding's in order.
func TestIntegrationNATSOutages(t *testing.T) {
	if testing.Short() {
		t.Skip("-short: waits for time limits, takes about 6 s")
	}
	for _, o := range sinktest.Outages {
		t.Run(o.Name, func(t *testing.T) {
			addr, dir := free(t), t.TempDir()
			stop := server(t, addr, dir, nil, "")
			stream(t, addr)
			g, s := sinktest.NewProxy(t, addr, func() { stop() }, func() { stop = server(t, addr, dir, nil, "") }), sinktest.NewStream(t)
			p, err := New(Options{Address: "nats://" + g.Addr().String()})
			if err != nil {
				t.Fatal(err)
			}
			d, err := sink.Start(sink.Options{Spool: sink.SpoolOptions{Path: filepath.Join(t.TempDir(), "spool")}, Outputs: []sink.Output{
				{Name: "nats", Sink: p, Batch: 20, Timeout: 500 * time.Millisecond, MinWait: 10 * time.Millisecond, MaxWait: 100 * time.Millisecond}}})
			if err != nil {
				t.Fatal(err)
			}
			defer d.Close(context.Background())
			o.Run(t, g, sinktest.Delivery{Finding: d.Finding, Status: func() sinktest.Status {
				x := d.Status()[0]
				return sinktest.Status{Connected: x.Connected, LastError: x.LastError, Lag: x.Lag, Sent: x.Sent, Retried: x.Retried, Lost: x.Rejected + x.Dropped}
			}}, s)
			j := stream(t, addr)
			n := j.CachedInfo().State.Msgs
			if n != uint64(s.Len()) {
				t.Errorf("the stream holds %d messages of %d", n, s.Len())
			}
			for seq := range n {
				m, err := j.GetMsg(t.Context(), seq+1)
				if err != nil {
					t.Fatal(err)
				}
				s.Take(t, "", m.Header.Get(jetstream.MsgIDHeader), m.Data)
			}
			s.Done(t)
		})
	}
}

func TestFaults(t *testing.T) {
	deaf, err := net.Listen("tcp", "127.0.0.1:0") // the kernel accepts, nobody reads
	if err != nil {
		t.Fatal(err)
	}
	defer deaf.Close()
	for name, address := range map[string]string{"absent": "127.0.0.1:1", "no such host": "no-such-host.invalid", "accepts and never reads": deaf.Addr().String()} {
		t.Run(name, func(t *testing.T) {
			p, err := New(Options{Address: "nats://" + address})
			if err != nil {
				t.Fatal(err)
			}
			defer p.Close()
			start := time.Now()
			if n, err := send(p, batch(3, 0)); n != 0 || err == nil || time.Since(start) > 4*time.Second {
				t.Errorf("%d, %v after %v", n, err, time.Since(start))
			}
		})
	}
}

func TestOptions(t *testing.T) {
	for _, bad := range []Options{{}, {Address: "h", Subject: "a.*"}, {Address: "h", TLS: sink.TLS{CA: "/nowhere"}}} {
		if _, err := New(bad); err == nil {
			t.Errorf("%+v is taken", bad)
		}
	}
}
