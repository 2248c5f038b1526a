package agent

import (
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"jindan/analyze"
	"jindan/cmd/internal/cli"
	"jindan/cmd/internal/config"
	"jindan/cmd/internal/sink"
	"jindan/cmd/internal/sink/kafka"
	"jindan/cmd/internal/sink/nats"

	"golang.org/x/sys/unix"
)

// deliver opens the sinks of the configuration but for standard output. Nothing is connected yet: a receiver
// that is down is no reason not to watch. Nil without sinks.
func deliver(cfg *config.Config, host string, unwell func() string) (*sink.Delivery, error) {
	var outputs []sink.Output
	for i := range cfg.Sinks {
		c := &cfg.Sinks[i]
		if c.Type == "stdout" {
			continue
		}
		o, options := output(c)
		var err error
		if o.Sink, err = open(options); err != nil {
			return nil, fmt.Errorf("sink %s: %w", c.Name, err)
		}
		outputs = append(outputs, o)
	}
	if len(outputs) == 0 {
		return nil, nil
	}
	options := sink.Options{
		Spool:   sink.SpoolOptions{Path: filepath.Join(cfg.Spool.Dir, "spool.db"), MaxBytes: int64(cfg.Spool.MaxBytes)},
		Outputs: outputs, Host: host, Agent: "jindan/" + cli.Version, Heartbeat: cfg.Heartbeat, Repeat: cfg.Repeat, Unwell: unwell,
	}
	err := os.MkdirAll(cfg.Spool.Dir, 0o700)
	var d *sink.Delivery
	if err == nil {
		if d, err = sink.Start(options); err == nil {
			return d, nil
		}
	}
	// A disk that is full, or that nothing may be written to, is no reason not to tell.
	options.Spool.MaxBytes = min(options.Spool.MaxBytes, memorySpool)
	memory, failed := inMemory()
	if failed != nil {
		return nil, errors.Join(fmt.Errorf("spool.dir: %w", err), failed)
	}
	defer memory.Close()
	options.Spool.Path = memory.Name()
	if d, failed = sink.Start(options); failed != nil {
		return nil, errors.Join(fmt.Errorf("spool.dir: %w", err), failed)
	}
	return d, &spoolError{err}
}

// memorySpool is what waits in memory where there is no disk for it: 6,000 findings of 2.5 kB.
const memorySpool = 16 << 20

// spoolError says why findings wait in memory.
type spoolError struct{ err error }

func (e *spoolError) Error() string {
	return fmt.Sprintf("findings wait in memory, and are lost with the process: spool.dir: %v", e.err)
}

// inMemory is an empty file that is on no disk (memfd_create(2), Linux 3.17).
func inMemory() (*os.File, error) {
	fd, err := unix.MemfdCreate("jindan-spool", unix.MFD_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("memfd_create: %w", err)
	}
	return os.NewFile(uintptr(fd), fmt.Sprintf("/proc/self/fd/%d", fd)), nil
}

// direct is what goes to standard output: as its sink says, or as --output does. Nil: nothing goes there.
func direct(cfg *config.Config, format string, w io.Writer) (*sink.Direct, error) {
	for i := range cfg.Sinks {
		c := &cfg.Sinks[i]
		if c.Type != "stdout" {
			continue
		}
		o, _ := output(c)
		switch format {
		case "text":
			if len(o.Pseudonym) > 0 {
				return nil, fmt.Errorf("sink %s: text shows addresses and names as they are; use --output ndjson or ecs, or no pseudonymise", c.Name)
			}
		case "ndjson":
			o.Encoding = sink.Native
		case "ecs":
			o.Encoding = sink.ECS
		}
		return sink.NewDirect(w, o)
	}
	return nil, nil
}

// output is what all kinds of sink share, and the options of the kind itself.
func output(c *config.Sink) (o sink.Output, options any) {
	o = sink.Output{Name: c.Name, Encoding: sink.Encoding(c.Encoding), Filter: sink.Filter{Severity: c.Filter.Severity, Rules: c.Filter.Rules}}
	for _, x := range c.Filter.States {
		o.Filter.States = append(o.Filter.States, analyze.State(x))
	}
	if c.Pseudonymise != nil {
		o.Pseudonym = []byte(c.Pseudonymise.Key)
	}
	switch t := c.Target.(type) {
	case *config.File:
		options = sink.FileOptions{Path: t.Path, MaxSize: int64(t.RotateSize), Keep: t.RotateKeep}
	case *config.Journald:
		options = sink.JournaldOptions{}
	case *config.Syslog:
		x := sink.SyslogOptions{Facility: t.Facility, TLS: tlsOptions(t.TLS), MaxBytes: int(t.MaxBytes), JSON: c.Encoding != "text"}
		if !x.JSON {
			o.Encoding = sink.Native
		}
		if x.Network, x.Address = endpoint(t.Address); x.Network == "unix" {
			x.Network = "unixgram"
		}
		options = x
	case *config.OTLP:
		options = sink.OTLPOptions{Address: t.Endpoint, HTTP: httpOptions(t.Headers, t.TLS)}
	case *config.Alertmanager:
		headers := map[string]config.Secret{}
		if b := t.BasicAuth; b != nil { // RFC 7617
			pair := base64.StdEncoding.EncodeToString([]byte(b.User + ":" + string(b.Password)))
			headers["Authorization"] = config.Secret("Basic " + pair)
		}
		options = sink.AlertmanagerOptions{Address: t.URL, HTTP: httpOptions(headers, t.TLS)}
	case *config.Webhook:
		o.Batch = t.Batch
		options = sink.WebhookOptions{Address: t.URL, Format: t.Format, HTTP: httpOptions(t.Headers, t.TLS)}
	case *config.Fluent:
		x := sink.FluentOptions{Tag: t.Tag, TLS: tlsOptions(t.TLS)}
		if x.Network, x.Address = endpoint(t.Address); x.Network == "tls" {
			x.Network, x.TLS.Enable = "tcp", true
		}
		options = x
	case *config.Kafka:
		x := kafka.Options{Address: t.Brokers, Topic: t.Topic, TLS: tlsOptions(t.TLS)}
		x.TLS.Enable = t.TLS != nil
		if t.SASL != nil {
			x.SASL = kafka.SASL{Mechanism: strings.ToLower(t.SASL.Mechanism), User: t.SASL.User, Password: string(t.SASL.Password)}
		}
		options = x
	case *config.NATS:
		options = nats.Options{Address: t.URL, Subject: t.Subject, Credentials: t.CredentialsFile, TLS: tlsOptions(t.TLS)}
	}
	return o, options
}

// open makes a sink of its options.
func open(options any) (sink.Sink, error) {
	switch x := options.(type) {
	case sink.FileOptions:
		return sink.NewFile(x)
	case sink.JournaldOptions:
		return sink.NewJournald(x)
	case sink.SyslogOptions:
		return sink.NewSyslog(x)
	case sink.OTLPOptions:
		return sink.NewOTLP(x)
	case sink.AlertmanagerOptions:
		return sink.NewAlertmanager(x)
	case sink.WebhookOptions:
		return sink.NewWebhook(x)
	case sink.FluentOptions:
		return sink.NewFluent(x)
	case kafka.Options:
		return kafka.New(x)
	case nats.Options:
		return nats.New(x)
	}
	return nil, fmt.Errorf("there is no sink with %T", options)
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
