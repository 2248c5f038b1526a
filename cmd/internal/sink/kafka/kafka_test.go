package kafka

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"jindan/cmd/internal/sink"
)

func batch(n int) (b []sink.Message) {
	for i := range n {
		r := sink.Record{Kind: sink.KindFinding, ID: fmt.Sprintf("surge-%012x", i%7), Seq: uint64(i + 1), Severity: "warn", Time: 1_700_000_000_000_000_000}
		b = append(b, sink.Message{Record: r, Data: fmt.Appendf(nil, `{"seq":%d}`, i+1)})
	}
	return b
}

func send(t *testing.T, k sink.Sink, b []sink.Message, limit time.Duration) ([]sink.Outcome, error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), limit)
	defer cancel()
	out := make([]sink.Outcome, len(b))
	return out, k.Send(ctx, b, out)
}

func count(out []sink.Outcome, o sink.Outcome) (n int) {
	for _, x := range out {
		if x == o {
			n++
		}
	}
	return n
}

func TestKafka(t *testing.T) {
	c, err := kfake.NewCluster(kfake.NumBrokers(1), kfake.SeedTopics(3, "jindan"), kfake.EnableSASL(), kfake.Superuser("SCRAM-SHA-256", "agent", "secret"))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	o := Options{Address: c.ListenAddrs(), SASL: SASL{"scram-sha-256", "agent", "secret"}}
	k, err := New(o)
	if err != nil {
		t.Fatal(err)
	}
	defer k.Close()
	// A broker that falters once: the client retries under the same sequence numbers.
	faltered := 0
	c.ControlKey(int16(kmsg.Produce), func(q kmsg.Request) (kmsg.Response, error, bool) {
		if faltered++; faltered > 1 {
			return nil, nil, false
		}
		return nil, fmt.Errorf("connection cut"), true
	})
	b := batch(100)
	out, err := send(t, k, b, 20*time.Second)
	if err != nil || count(out, sink.Accepted) != 100 || faltered == 0 {
		t.Fatal(err, count(out, sink.Accepted), faltered)
	}
	auth, err := o.SASL.mechanism()
	if err != nil {
		t.Fatal(err)
	}
	r, err := kgo.NewClient(kgo.SeedBrokers(c.ListenAddrs()...), kgo.ConsumeTopics("jindan"), kgo.SASL(auth), kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()))
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	last, total := map[string]int{}, 0
	for total < 100 && ctx.Err() == nil {
		r.PollFetches(ctx).EachRecord(func(x *kgo.Record) {
			var seq int
			fmt.Sscanf(string(x.Value), `{"seq":%d}`, &seq)
			if seq <= last[string(x.Key)] {
				t.Errorf("%s: %d after %d", x.Key, seq, last[string(x.Key)])
			}
			last[string(x.Key)] = seq
			total++
			if len(x.Headers) != 3 || string(x.Headers[0].Value) != b[seq-1].Key() {
				t.Errorf("headers %v", x.Headers)
			}
		})
	}
	if total != 100 || len(last) != 7 {
		t.Errorf("%d records of %d findings", total, len(last))
	}
	// A message that the broker will never take.
	c.ControlKey(int16(kmsg.Produce), func(q kmsg.Request) (kmsg.Response, error, bool) {
		p := q.(*kmsg.ProduceRequest).ResponseKind().(*kmsg.ProduceResponse)
		for _, x := range q.(*kmsg.ProduceRequest).Topics {
			rt := kmsg.NewProduceResponseTopic()
			rt.Topic, rt.TopicID = x.Topic, x.TopicID
			for _, y := range x.Partitions {
				rp := kmsg.NewProduceResponseTopicPartition()
				rp.Partition, rp.ErrorCode = y.Partition, kerr.MessageTooLarge.Code
				rt.Partitions = append(rt.Partitions, rp)
			}
			p.Topics = append(p.Topics, rt)
		}
		return p, nil, true
	})
	if out, err := send(t, k, batch(1), 5*time.Second); err == nil || out[0] != sink.Rejected {
		t.Errorf("too large: %v %v", out, err)
	}
}

func TestKafkaFaults(t *testing.T) {
	c, err := kfake.NewCluster(kfake.NumBrokers(1), kfake.SeedTopics(1, "jindan"), kfake.EnableSASL(), kfake.Superuser("PLAIN", "agent", "secret"))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	for name, o := range map[string]Options{
		"absent":                {Address: []string{"127.0.0.1:1"}},
		"no such host":          {Address: []string{"no-such-host.invalid:9092"}},
		"wrong password":        {Address: c.ListenAddrs(), SASL: SASL{"plain", "agent", "wrong"}},
		"TLS to a plain broker": {Address: c.ListenAddrs(), TLS: sink.TLS{Enable: true}},
	} {
		t.Run(name, func(t *testing.T) {
			k, err := New(o)
			if err != nil {
				t.Fatal(err)
			}
			defer k.Close()
			start := time.Now()
			out, err := send(t, k, batch(3), time.Second)
			if err == nil || count(out, sink.Retry) != 3 || time.Since(start) > 3*time.Second {
				t.Errorf("%v %v after %v", out, err, time.Since(start))
			}
			if err != nil && strings.Contains(err.Error(), "wrong") && strings.Contains(err.Error(), "secret") {
				t.Errorf("a password in %v", err)
			}
		})
	}
	for _, bad := range []Options{{}, {Address: []string{"h"}, SASL: SASL{Mechanism: "gssapi"}}, {Address: []string{"h"}, TLS: sink.TLS{CA: "/nowhere"}}} {
		if _, err := New(bad); err == nil {
			t.Errorf("%+v is taken", bad)
		}
	}
}
