// Package nats is the sink "nats". It is a package of its own because its client
// weighs megabytes: import it where the sink is wanted.
package nats

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"jindan/cmd/internal/sink"
)

// Options configures delivery to a JetStream stream, which must exist and cover
// the subject.
type Options struct {
	Address     string // URL, e.g. nats://host:4222
	Subject     string // what a message is published under, with .KIND.SEVERITY appended; default jindan
	Credentials string // file with JWT and seed (nsc)
	TLS         sink.TLS
}

// window is how many messages may wait for their acknowledgement at once.
const window = 256

// connectWait is the most that a connection may take, of a Send that may take longer.
const connectWait = 5 * time.Second

type publisher struct {
	url, subject string
	options      []nats.Option
	conn         *nats.Conn
	js           jetstream.JetStream
}

// New returns the sink. Each message bears its record's key as Nats-Msg-Id: what
// is sent again within the stream's duplicate window (2 min by default) is stored once.
func New(o Options) (sink.Sink, error) {
	if o.Address == "" {
		return nil, errors.New("sink nats: give it the address of a server")
	}
	if o.Subject == "" {
		o.Subject = "jindan"
	}
	if strings.ContainsAny(o.Subject, " *>\t\r\n") {
		return nil, fmt.Errorf("sink nats: subject %q: wildcards cannot be published to", o.Subject)
	}
	// The runner retries: a connection that fails is given up at once.
	opts := []nats.Option{nats.Name("jindan"), nats.NoReconnect()}
	if o.Credentials != "" {
		opts = append(opts, nats.UserCredentials(o.Credentials))
	}
	if o.TLS.Enabled() {
		t, err := o.TLS.Config()
		if err != nil {
			return nil, fmt.Errorf("sink nats: %w", err)
		}
		opts = append(opts, nats.Secure(t))
	}
	return &publisher{url: o.Address, subject: o.Subject, options: opts}, nil
}

// connect makes a connection where there is none.
func (p *publisher) connect(ctx context.Context) error {
	if p.conn != nil && p.conn.IsConnected() {
		return nil
	}
	p.Close()
	wait := connectWait
	if end, ok := ctx.Deadline(); ok {
		wait = min(wait, time.Until(end))
	}
	c, err := nats.Connect(p.url, append(slices.Clip(p.options), nats.Timeout(wait))...)
	if err != nil {
		return err
	}
	js, err := jetstream.New(c, jetstream.WithPublishAsyncMaxPending(window))
	if err != nil {
		c.Close()
		return err
	}
	p.conn, p.js = c, js
	return nil
}

// Send publishes and waits for the stream's acknowledgements.
func (p *publisher) Send(ctx context.Context, batch []sink.Message, out []sink.Outcome) error {
	if err := p.connect(ctx); err != nil {
		return fmt.Errorf("connect to nats: %w", err)
	}
	return sink.EachDistinct(batch, out, func(batch []sink.Message, out []sink.Outcome) error {
		for len(batch) > 0 {
			n := min(window, len(batch))
			if err := p.publish(ctx, batch[:n], out[:n]); err != nil {
				return fmt.Errorf("publish to nats: %w", err)
			}
			batch, out = batch[n:], out[n:]
		}
		return nil
	})
}

func (p *publisher) publish(ctx context.Context, batch []sink.Message, out []sink.Outcome) error {
	var first error
	acks := make([]jetstream.PubAckFuture, len(batch))
	for i := range batch {
		m := &batch[i]
		msg := &nats.Msg{Subject: p.subject + "." + string(m.Kind) + "." + m.Severity, Data: m.Data, Header: nats.Header{}}
		msg.Header.Set(jetstream.MsgIDHeader, m.Key())
		ack, err := p.js.PublishMsgAsync(msg)
		if errors.Is(err, nats.ErrMaxPayload) {
			out[i] = sink.Rejected
		}
		if err != nil && first == nil {
			first = err
		}
		acks[i] = ack
	}
	for i, ack := range acks {
		if ack == nil {
			continue
		}
		select {
		case <-ack.Ok():
			out[i] = sink.Accepted
		case err := <-ack.Err():
			if first == nil {
				first = err
			}
		case <-ctx.Done():
			p.Close() // late acknowledgements would be taken for those of the next batch
			return ctx.Err()
		}
	}
	return first
}

// Close gives up the connection.
func (p *publisher) Close() error {
	if p.conn != nil {
		p.conn.Close()
		p.conn, p.js = nil, nil
	}
	return nil
}
