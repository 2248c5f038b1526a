package nats

import (
	"context"
	"fmt"
	"net"
	"os/exec"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"jindan/cmd/internal/sink"
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

// server starts nats-server with JetStream.
func server(t *testing.T, addr, dir string) (stop func()) {
	t.Helper()
	path, err := exec.LookPath("nats-server")
	if err != nil {
		t.Skip("nats-server is not in PATH: go install github.com/nats-io/nats-server/v2@v2.15.2")
	}
	_, port, _ := net.SplitHostPort(addr)
	cmd := exec.Command(path, "-js", "-sd", dir, "-a", "127.0.0.1", "-p", port)
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
		if c, err := nats.Connect("nats://" + addr); err == nil {
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

func TestIntegrationNATS(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	addr, dir := l.Addr().String(), t.TempDir()
	l.Close()
	p, err := New(Options{Address: "nats://" + addr})
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	if n, err := send(p, batch(3, 0)); n != 0 || err == nil {
		t.Errorf("absent at start: %d, %v", n, err)
	}
	stop := server(t, addr, dir)
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
	server(t, addr, dir)
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
			if n, err := send(p, batch(3, 0)); n != 0 || err == nil || time.Since(start) > 10*time.Second {
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
