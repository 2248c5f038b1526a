package kafka

import (
	"context"
	"net"
	"path/filepath"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"

	"jindan/cmd/internal/sink"
	"jindan/cmd/internal/sink/sinktest"
)

// TestKafkaOutages: whatever befalls the broker, every record arrives, each finding's in order; what comes twice
// bears the same id.
func TestKafkaOutages(t *testing.T) {
	if testing.Short() {
		t.Skip("-short: waits for the client's own time limits, takes about 40 s")
	}
	for _, o := range sinktest.Outages {
		t.Run(o.Name, func(t *testing.T) {
			t.Parallel()
			g, s := sinktest.NewGate(t), sinktest.NewStream(t)
			broker, err := kfake.NewCluster(kfake.NumBrokers(1), kfake.SeedTopics(3, "jindan"),
				kfake.ListenFn(func(string, string) (net.Listener, error) { return g, nil }))
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
			o.Run(t, g, sinktest.Delivery{Finding: d.Finding, Status: func() sinktest.Status {
				x := d.Status()[0]
				return sinktest.Status{Connected: x.Connected, LastError: x.LastError, Lag: x.Lag, Sent: x.Sent, Retried: x.Retried, Lost: x.Rejected + x.Dropped}
			}}, s)
			stored(t, broker.ListenAddrs(), s)
		})
	}
}

// stored holds what the broker has against a stream.
func stored(t *testing.T, brokers []string, s *sinktest.Stream) {
	t.Helper()
	r, err := kgo.NewClient(kgo.SeedBrokers(brokers...), kgo.ConsumeTopics("jindan"), kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()))
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	ctx, cancel := context.WithTimeout(context.Background(), sinktest.Wait)
	defer cancel()
	for s.Missing() > 0 && ctx.Err() == nil {
		r.PollFetches(ctx).EachRecord(func(x *kgo.Record) { s.Take(t, "", string(x.Headers[0].Value), x.Value) })
	}
	s.Done(t)
}
