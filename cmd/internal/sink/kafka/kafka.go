// Package kafka is the sink "kafka". It is a package of its own because its
// client weighs megabytes: import it where the sink is wanted.
package kafka

import (
	"context"
	"errors"
	"fmt"
	"net"
	"sync/atomic"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/sasl"
	"github.com/twmb/franz-go/pkg/sasl/plain"
	"github.com/twmb/franz-go/pkg/sasl/scram"

	"jindan/cmd/internal/sink"
)

// Options configures delivery to Kafka.
type Options struct {
	Address []string // brokers to begin with, host:port; default port 9092
	Topic   string   // default jindan
	TLS     sink.TLS
	SASL    SASL
}

// SASL are the credentials.
type SASL struct {
	Mechanism      string // plain, scram-sha-256 or scram-sha-512; empty = none
	User, Password string
}

func (s SASL) mechanism() (sasl.Mechanism, error) {
	switch s.Mechanism {
	case "plain":
		return plain.Auth{User: s.User, Pass: s.Password}.AsMechanism(), nil
	case "scram-sha-256":
		return scram.Auth{User: s.User, Pass: s.Password}.AsSha256Mechanism(), nil
	case "scram-sha-512":
		return scram.Auth{User: s.User, Pass: s.Password}.AsSha512Mechanism(), nil
	}
	return nil, fmt.Errorf("SASL mechanism %q: use plain, scram-sha-256 or scram-sha-512", s.Mechanism)
}

type kafka struct {
	options []kgo.Opt
	client  *kgo.Client
	refused atomic.Pointer[string] // why the newest connection could not be made; nil: it could
}

// OnBrokerConnect is called by the client. A record that waits in vain for a connection only tells that its time is over.
func (k *kafka) OnBrokerConnect(_ kgo.BrokerMetadata, _ time.Duration, _ net.Conn, err error) {
	if err == nil {
		k.refused.Store(nil)
		return
	}
	why := err.Error()
	k.refused.Store(&why)
}

// New returns the sink. The producer is idempotent and waits for all replicas in
// sync; the key of a message is the finding id, so that the states of a finding
// stay in order in one partition. It serves brokers from Kafka 0.11 on.
func New(o Options) (sink.Sink, error) {
	k, err := open(o)
	if err != nil {
		return nil, fmt.Errorf("sink kafka: %w", err)
	}
	return k, nil
}

func open(o Options) (*kafka, error) {
	if len(o.Address) == 0 {
		return nil, errors.New("give it the address of a broker")
	}
	if o.Topic == "" {
		o.Topic = "jindan"
	}
	opts := []kgo.Opt{kgo.SeedBrokers(o.Address...), kgo.DefaultProduceTopic(o.Topic), kgo.ClientID("jindan"),
		kgo.RequiredAcks(kgo.AllISRAcks()), kgo.ProducerBatchMaxBytes(2 << 20), // bodies are at most 1 MiB, here and in the batch
		kgo.MaxBufferedRecords(10_000),
		// Without it a record that was once sent waits for its answer however long the broker is away, and the outage
		// does not show in the status. What it costs are records stored twice, and their id tells which.
		kgo.AllowIdempotentProduceCancellation()}
	if o.TLS.Enabled() {
		t, err := o.TLS.Config()
		if err != nil {
			return nil, err
		}
		opts = append(opts, kgo.DialTLSConfig(t))
	}
	if o.SASL.Mechanism != "" {
		m, err := o.SASL.mechanism()
		if err != nil {
			return nil, err
		}
		opts = append(opts, kgo.SASL(m))
	}
	if err := kgo.ValidateOpts(opts...); err != nil {
		return nil, err
	}
	k := &kafka{}
	opts = append(opts, kgo.WithHooks(k))
	k.options = opts
	return k, nil
}

// Send produces the batch and waits for every acknowledgement.
func (k *kafka) Send(ctx context.Context, batch []sink.Message, out []sink.Outcome) error {
	if k.client == nil {
		c, err := kgo.NewClient(k.options...)
		if err != nil {
			return fmt.Errorf("connect to kafka: %w", err)
		}
		k.client = c
	}
	return sink.EachDistinct(batch, out, func(batch []sink.Message, out []sink.Outcome) error {
		records := make([]*kgo.Record, len(batch))
		at := make(map[*kgo.Record]int, len(batch))
		for i := range batch {
			m := &batch[i]
			records[i] = &kgo.Record{Key: []byte(m.ID), Value: m.Data, Timestamp: m.Time.Time(),
				Headers: []kgo.RecordHeader{{Key: "id", Value: []byte(m.Key())}, {Key: "kind", Value: []byte(m.Kind)}, {Key: "severity", Value: []byte(m.Severity)}}}
			at[records[i]] = i
		}
		var first error
		for _, r := range k.client.ProduceSync(ctx, records...) {
			switch {
			case r.Err == nil:
				out[at[r.Record]] = sink.Accepted
				continue
			case errors.Is(r.Err, kerr.MessageTooLarge), errors.Is(r.Err, kerr.InvalidRecord), errors.Is(r.Err, kerr.InvalidTimestamp):
				out[at[r.Record]] = sink.Rejected
			}
			if first == nil {
				first = r.Err
			}
		}
		if first == nil {
			return nil
		}
		if why := k.refused.Load(); why != nil && errors.Is(first, context.DeadlineExceeded) {
			return fmt.Errorf("connect to kafka: %s: %w", *why, first)
		}
		return fmt.Errorf("produce to kafka: %w", first)
	})
}

// Close gives up the connections.
func (k *kafka) Close() error {
	if k.client != nil {
		k.client.Close()
		k.client = nil
	}
	return nil
}
