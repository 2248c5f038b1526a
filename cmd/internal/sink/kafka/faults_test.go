package kafka

import (
	"context"
	"encoding/json"
	"fmt"
	"net"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"

	"jindan/analyze"
	"jindan/capture"
	"jindan/cmd/internal/sink"
)

// gate is the listener of a broker that can be cut off and come back at the same address, with what it has stored.
type gate struct {
	mu       sync.Mutex
	listener net.Listener // nil: connections are refused
	deaf     bool         // the kernel accepts, nobody reads
	closed   bool
	address  net.Addr
	change   *sync.Cond
	conns    []net.Conn
}

func newGate(network, address string) (net.Listener, error) {
	l, err := net.Listen(network, address)
	if err != nil {
		return nil, err
	}
	g := &gate{listener: l, address: l.Addr()}
	g.change = sync.NewCond(&g.mu)
	return g, nil
}

func (g *gate) Addr() net.Addr { return g.address }

func (g *gate) Accept() (net.Conn, error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	for {
		for (g.listener == nil || g.deaf) && !g.closed {
			g.change.Wait()
		}
		if g.closed {
			return nil, net.ErrClosed
		}
		l := g.listener
		g.mu.Unlock()
		c, err := l.Accept()
		g.mu.Lock()
		switch {
		case err != nil: // cut off
		case g.deaf:
			defer c.Close() // held unread until the broker hears again
		default:
			g.conns = append(g.conns, c)
			return c, nil
		}
	}
}

func (g *gate) Close() error {
	g.cut()
	g.mu.Lock()
	defer g.mu.Unlock()
	g.closed = true
	g.change.Broadcast()
	return nil
}

// cut ends what there is, as a broker that is killed does.
func (g *gate) cut() {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.listener != nil {
		g.listener.Close()
		g.listener = nil
	}
	for _, c := range g.conns {
		c.Close()
	}
	g.conns = nil
}

// deafen cuts, and lets the kernel alone take connections.
func (g *gate) deafen() {
	g.cut()
	g.mu.Lock()
	g.deaf = true
	g.mu.Unlock()
	g.listen()
}

// mend ends every fault.
func (g *gate) mend() {
	g.mu.Lock()
	g.deaf = false
	up := g.listener != nil
	g.mu.Unlock()
	if !up {
		g.listen()
	}
	g.change.Broadcast()
}

func (g *gate) listen() {
	l, err := net.Listen("tcp", g.address.String())
	if err != nil {
		panic(err)
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	g.listener = l
	g.change.Broadcast()
}

// TestKafkaOutages: whatever befalls the broker, every record arrives, each finding's in order; what comes twice
// bears the same id.
func TestKafkaOutages(t *testing.T) {
	if testing.Short() {
		t.Skip("-short: waits for the client's own time limits, takes about 50 s")
	}
	for _, c := range []struct {
		name    string
		atStart bool
		fail    func(*gate)
	}{
		{"absent at start", true, (*gate).cut},
		{"killed mid-stream, and back", false, (*gate).cut},
		{"accepts and never reads, at start", true, (*gate).deafen},
		{"accepts and never reads, mid-stream", false, (*gate).deafen},
	} {
		t.Run(c.name, func(t *testing.T) {
			var g *gate
			broker, err := kfake.NewCluster(kfake.NumBrokers(1), kfake.SeedTopics(3, "jindan"), kfake.ListenFn(func(network, address string) (net.Listener, error) {
				l, err := newGate(network, address)
				g, _ = l.(*gate)
				return l, err
			}))
			if err != nil {
				t.Fatal(err)
			}
			defer broker.Close()
			k, err := New(Options{Address: broker.ListenAddrs()})
			if err != nil {
				t.Fatal(err)
			}
			d, err := sink.Start(sink.Options{Spool: sink.SpoolOptions{Path: filepath.Join(t.TempDir(), "spool")}, Outputs: []sink.Output{
				{Name: "kafka", Sink: k, Batch: 20, Timeout: 500 * time.Millisecond, MinWait: 10 * time.Millisecond, MaxWait: 100 * time.Millisecond}}})
			if err != nil {
				t.Fatal(err)
			}
			defer d.Close(context.Background())
			n := uint64(0)
			feed := func() { // 200 states of 7 findings
				for range 200 {
					n++
					f := &analyze.Finding{Schema: analyze.FindingSchema, ID: fmt.Sprintf("surge-%012x", n%7), Seq: n, Rule: "surge", State: analyze.Update,
						Severity: []string{"warn", "error"}[n%2], Time: capture.Instant(1_700_000_000_000_000_000 + n)}
					if err := d.Finding(f); err != nil {
						t.Fatal(err)
					}
				}
			}
			until := func(what string, ok func(sink.Status) bool) {
				t.Helper()
				for end := time.Now().Add(30 * time.Second); !ok(d.Status()[0]); time.Sleep(time.Millisecond) {
					if time.Now().After(end) {
						t.Fatalf("never: %s: %+v", what, d.Status()[0])
					}
				}
			}
			if !c.atStart {
				feed()
				until("a part is sent", func(s sink.Status) bool { return s.Sent > 0 })
			}
			c.fail(g)
			feed()
			until("the failure shows", func(s sink.Status) bool { return s.Retried >= 2 && !s.Connected && s.LastError != "" })
			g.mend()
			feed()
			until("all are passed", func(s sink.Status) bool { return s.Lag == 0 })
			if s := d.Status()[0]; s.Sent != n || s.Rejected != 0 || s.Dropped != 0 {
				t.Errorf("%d fed: %+v", n, s)
			}
			stored(t, broker.ListenAddrs(), n)
		})
	}
}

// stored holds what the broker has against n records.
func stored(t *testing.T, brokers []string, n uint64) {
	t.Helper()
	r, err := kgo.NewClient(kgo.SeedBrokers(brokers...), kgo.ConsumeTopics("jindan"), kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()))
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	ids, last, twice := map[uint64]string{}, map[string]uint64{}, 0
	for uint64(len(ids)) < n && ctx.Err() == nil {
		r.PollFetches(ctx).EachRecord(func(x *kgo.Record) {
			var f analyze.Finding
			if err := json.Unmarshal(x.Value, &f); err != nil {
				t.Error(err)
			}
			id := string(x.Headers[0].Value)
			if was, ok := ids[f.Seq]; ok {
				twice++
				if was != id {
					t.Errorf("record %d comes as %s and as %s", f.Seq, was, id)
				}
				return
			}
			if f.Seq < last[f.ID] {
				t.Errorf("%s: %d after %d", f.ID, f.Seq, last[f.ID])
			}
			ids[f.Seq], last[f.ID] = id, f.Seq
		})
	}
	if uint64(len(ids)) != n {
		t.Errorf("%d of %d records arrived", len(ids), n)
	}
	t.Logf("%d records, %d of them twice", len(ids), twice)
}
