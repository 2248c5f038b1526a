package main

import (
	"encoding/base64"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"jindan/analyze"
	"jindan/cmd/internal/config"
	"jindan/cmd/internal/sink"
	"jindan/cmd/internal/sink/kafka"
	"jindan/cmd/internal/sink/nats"
)

// deliver opens the sinks of the configuration but for standard output, which is the agent's own. Nothing is
// connected yet: a receiver that is down is no reason not to watch.
func deliver(cfg *config.Config, host string) (*sink.Delivery, error) {
	var outputs []sink.Output
	for i := range cfg.Sinks {
		c := &cfg.Sinks[i]
		if _, ok := c.Target.(*config.Stdout); ok {
			continue
		}
		s, batch, err := open(c)
		if err != nil {
			return nil, fmt.Errorf("sink %s: %w", c.Name, err)
		}
		var states []analyze.State
		for _, x := range c.Filter.States {
			states = append(states, analyze.State(x))
		}
		o := sink.Output{Name: c.Name, Sink: s, Encoding: sink.Encoding(c.Encoding), Batch: batch,
			Filter: sink.Filter{Severity: c.Filter.Severity, Rules: c.Filter.Rules, States: states}}
		if c.Pseudonymise != nil {
			o.Pseudonym = []byte(c.Pseudonymise.Key)
		}
		outputs = append(outputs, o)
	}
	if len(outputs) == 0 {
		return nil, nil
	}
	if err := os.MkdirAll(cfg.Spool.Dir, 0o700); err != nil {
		return nil, fmt.Errorf("spool.dir: %w", err)
	}
	return sink.Start(sink.Options{
		Spool:   sink.SpoolOptions{Path: filepath.Join(cfg.Spool.Dir, "spool.db"), MaxBytes: int64(cfg.Spool.MaxBytes)},
		Outputs: outputs, Host: host, Agent: "jindan/" + version, Heartbeat: cfg.Heartbeat, Repeat: cfg.Repeat,
	})
}

// open makes a sink, and says how many records it takes at a time; 0: as usual.
func open(c *config.Sink) (s sink.Sink, batch int, err error) {
	switch t := c.Target.(type) {
	case *config.File:
		s, err = sink.NewFile(sink.FileOptions{Path: t.Path, MaxSize: int64(t.RotateSize), Keep: t.RotateKeep})
	case *config.Journald:
		s, err = sink.NewJournald(sink.JournaldOptions{})
	case *config.Syslog:
		network, address := endpoint(t.Address)
		if network == "unix" {
			network = "unixgram"
		}
		s, err = sink.NewSyslog(sink.SyslogOptions{Network: network, Address: address, Facility: t.Facility, TLS: tlsOptions(t.TLS)})
	case *config.OTLP:
		s, err = sink.NewOTLP(sink.OTLPOptions{Address: t.Endpoint, HTTP: httpOptions(t.Headers, t.TLS)})
	case *config.Alertmanager:
		headers := map[string]config.Secret{}
		if b := t.BasicAuth; b != nil { // RFC 7617
			pair := base64.StdEncoding.EncodeToString([]byte(b.User + ":" + string(b.Password)))
			headers["Authorization"] = config.Secret("Basic " + pair)
		}
		s, err = sink.NewAlertmanager(sink.AlertmanagerOptions{Address: t.URL, HTTP: httpOptions(headers, t.TLS)})
	case *config.Webhook:
		format := t.Format
		if format == "json" {
			format = "array"
		}
		batch = t.Batch
		s, err = sink.NewWebhook(sink.WebhookOptions{Address: t.URL, Format: format, HTTP: httpOptions(t.Headers, t.TLS)})
	case *config.Fluent:
		network, address := endpoint(t.Address)
		o := sink.FluentOptions{Network: network, Address: address, Tag: t.Tag, TLS: tlsOptions(t.TLS)}
		if network == "tls" {
			o.Network, o.TLS.Enable = "tcp", true
		}
		s, err = sink.NewFluent(o)
	case *config.Kafka:
		o := kafka.Options{Address: t.Brokers, Topic: t.Topic, TLS: tlsOptions(t.TLS)}
		o.TLS.Enable = t.TLS != nil
		if t.SASL != nil {
			o.SASL = kafka.SASL{Mechanism: strings.ToLower(t.SASL.Mechanism), User: t.SASL.User, Password: string(t.SASL.Password)}
		}
		s, err = kafka.New(o)
	case *config.NATS:
		s, err = nats.New(nats.Options{Address: []string{t.URL}, Subject: t.Subject, Credentials: t.CredentialsFile, TLS: tlsOptions(t.TLS)})
	default:
		err = fmt.Errorf("there is no sink of type %q", c.Type)
	}
	return s, batch, err
}

// endpoint divides tcp://HOST:PORT, or unix:/PATH.
func endpoint(s string) (network, address string) {
	network, address, _ = strings.Cut(s, ":")
	return network, strings.TrimPrefix(address, "//")
}

func tlsOptions(t *config.TLS) sink.TLS {
	if t == nil {
		return sink.TLS{}
	}
	return sink.TLS{CA: t.CA, Cert: t.Cert, Key: t.Key, ServerName: t.ServerName, InsecureSkipVerify: t.InsecureSkipVerify}
}

func httpOptions(headers map[string]config.Secret, t *config.TLS) sink.HTTP {
	h := sink.HTTP{TLS: tlsOptions(t), Headers: map[string]string{}}
	for k, v := range headers {
		h.Headers[k] = string(v)
	}
	return h
}
