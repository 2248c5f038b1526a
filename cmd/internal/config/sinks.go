package config

import (
	"reflect"
	"slices"
	"strings"
)

// Sink is a receiver of findings.
type Sink struct {
	Type         string        `yaml:"type" need:"1"`
	Name         string        `yaml:"name" is:"name"` // unique; default: the type
	Target       Target        `yaml:",inline"`
	Encoding     string        `yaml:"encoding"` // text, native, ecs or otlp, as far as the type allows; empty: the type has its own
	Filter       Filter        `yaml:"filter"`
	Pseudonymise *Pseudonymise `yaml:"pseudonymise"` // nil: addresses and names are sent as they are
}

// Filter chooses the findings that a sink gets.
type Filter struct {
	Severity string   `yaml:"severity" enum:"info warn error"` // this and above
	Rules    []string `yaml:"rules" is:"rule"`                 // none: all
	States   []string `yaml:"states" enum:"open update resolved"`
}

// Pseudonymise replaces addresses and names by keyed hashes (HMAC-SHA-256).
type Pseudonymise struct {
	KeyFile string `yaml:"key_file" is:"path" need:"1"`
	Key     Secret `yaml:"-"` // what KeyFile holds
}

// Target is the part of a sink that its type defines: a pointer to [Stdout], [File],
// [Journald], [Syslog], [OTLP], [Kafka], [NATS], [Alertmanager], [Webhook] or [Fluent].
type Target interface {
	check(d *decoder, path string)
}

// Stdout writes a line of JSON per finding to standard output.
type Stdout struct{}

// Journald writes to the systemd journal with fields of its own.
type Journald struct{}

// File writes a line of JSON per finding.
type File struct {
	Path       string `yaml:"path" is:"path" need:"1"`
	RotateSize Size   `yaml:"rotate_size" min:"64KiB" max:"100GiB"`
	RotateKeep int    `yaml:"rotate_keep" min:"0" max:"10000" unit:" files"`
}

// Syslog sends RFC 5424, over streams with octet counting (RFC 6587).
type Syslog struct {
	Address  string `yaml:"address" is:"syslog" need:"1"`
	Facility string `yaml:"facility" enum:"kern user mail daemon auth syslog lpr news uucp cron authpriv ftp local0 local1 local2 local3 local4 local5 local6 local7"`
	MaxBytes Size   `yaml:"max_bytes" min:"480B" max:"64KiB"` // of a message
	TLS      *TLS   `yaml:"tls"`
}

// OTLP sends OpenTelemetry logs over HTTP.
type OTLP struct {
	Endpoint string            `yaml:"endpoint" is:"url" need:"1"`
	Headers  map[string]Secret `yaml:"headers"`
	TLS      *TLS              `yaml:"tls"`
}

// Kafka writes to a topic.
type Kafka struct {
	Brokers []string `yaml:"brokers" is:"hostport" need:"1"`
	Topic   string   `yaml:"topic" is:"topic" need:"1"`
	SASL    *SASL    `yaml:"sasl"`
	TLS     *TLS     `yaml:"tls"` // nil: in clear
}

// SASL is how a Kafka client proves who it is.
type SASL struct {
	Mechanism    string `yaml:"mechanism" enum:"PLAIN SCRAM-SHA-256 SCRAM-SHA-512" need:"1"`
	User         string `yaml:"user" need:"1"`
	Password     Secret `yaml:"password"`
	PasswordFile string `yaml:"password_file" is:"path"`
}

// NATS publishes to a subject of a JetStream stream.
type NATS struct {
	URL             string `yaml:"url" is:"nats" need:"1"`
	Subject         string `yaml:"subject" is:"subject" need:"1"`
	CredentialsFile string `yaml:"credentials_file" is:"path"`
	TLS             *TLS   `yaml:"tls"`
}

// Alertmanager posts alerts (API v2).
type Alertmanager struct {
	URL       string     `yaml:"url" is:"url" need:"1"`
	BasicAuth *BasicAuth `yaml:"basic_auth"`
	TLS       *TLS       `yaml:"tls"`
}

// BasicAuth is HTTP basic authentication (RFC 7617).
type BasicAuth struct {
	User         string `yaml:"user" need:"1"`
	Password     Secret `yaml:"password"`
	PasswordFile string `yaml:"password_file" is:"path"`
}

// Webhook posts findings to a URL.
type Webhook struct {
	URL     string            `yaml:"url" is:"url" need:"1"`
	Headers map[string]Secret `yaml:"headers"`
	Format  string            `yaml:"format" enum:"json ndjson loki elastic"` // an array, a line per finding, Loki push, Elastic bulk
	Batch   int               `yaml:"batch" min:"1" max:"1000" unit:" findings"`
	TLS     *TLS              `yaml:"tls"`
}

// Fluent speaks the Fluentd forward protocol.
type Fluent struct {
	Address string `yaml:"address" is:"fluent" need:"1"`
	Tag     string `yaml:"tag" is:"tag"`
	TLS     *TLS   `yaml:"tls"`
}

// TLS is a client's side of TLS. The server's certificate is verified unless InsecureSkipVerify.
type TLS struct {
	CA                 string `yaml:"ca" is:"path"`                // PEM; empty: the system's
	Cert               string `yaml:"cert" is:"path"`              // PEM, the client's own chain
	Key                string `yaml:"key" is:"path"`               // PEM
	ServerName         string `yaml:"server_name" is:"servername"` // that the certificate must bear; empty: the address's
	InsecureSkipVerify bool   `yaml:"insecure_skip_verify"`
}

// sinkTypes in the order in which messages name them.
var sinkTypes = []string{"stdout", "file", "journald", "syslog", "otlp", "kafka", "nats", "alertmanager", "webhook", "fluent"}

// newSink is a sink of a type with its defaults.
func newSink(typ string) Sink {
	s := Sink{
		Type: typ, Name: typ, Encoding: "native",
		Filter: Filter{Severity: "info", States: []string{"open", "update", "resolved"}},
	}
	switch typ {
	case "stdout":
		s.Target = &Stdout{}
	case "file":
		s.Target = &File{RotateSize: 100 * MiB, RotateKeep: 7} // files; 40,000 findings each
	case "journald":
		s.Target = &Journald{}
	case "syslog":
		// Facility: system daemons (RFC 5424 §6.2.1). Bytes: what receivers should take (RFC 5425 §4.3.1).
		s.Target, s.Encoding = &Syslog{Facility: "daemon", MaxBytes: 8 * KiB}, "text"
	case "otlp":
		s.Target, s.Encoding = &OTLP{}, "otlp"
	case "kafka":
		s.Target = &Kafka{}
	case "nats":
		s.Target = &NATS{}
	case "alertmanager":
		s.Target, s.Encoding = &Alertmanager{}, ""
	case "webhook":
		s.Target = &Webhook{Format: "json", Batch: 100} // findings; 250 kB a request
	case "fluent":
		s.Target = &Fluent{Tag: "jindan"}
	}
	return s
}

// encodings that a sink type can carry; none: it has its own.
func encodings(typ string) []string {
	switch typ {
	case "alertmanager":
		return nil
	case "journald":
		return []string{"native"}
	case "otlp":
		return []string{"otlp"}
	case "syslog":
		return []string{"text", "native", "ecs", "otlp"}
	}
	return []string{"native", "ecs", "otlp"}
}

// sinks adds the sinks of one layer to those of the layers before; one of the same name takes the
// place of the earlier.
func (d *decoder) sinks(n *node, to *[]Sink) {
	if n.kind != sequence {
		d.fail(n.errorf("expected a list of sinks, found %s", n.quote()))
		return
	}
	if d.origin["sinks"] == nil {
		*to = []Sink{} // the built-in one stands only if nobody names any
	}
	d.origin["sinks"] = n
	here := map[string]bool{}
	for _, item := range n.items {
		if item.kind != mapping {
			d.fail(item.errorf("expected a mapping with the key \"type\", found %v", item.kind))
			continue
		}
		typ := item.get("type")
		if typ == nil {
			d.fail(item.errorf("a sink needs the key \"type\": %s", oneOf(sinkTypes)))
			continue
		}
		if typ.kind == broken {
			continue
		}
		if typ.kind != scalar || !slices.Contains(sinkTypes, typ.text) {
			d.fail(typ.errorf("expected %s, found %s%s", oneOf(sinkTypes), typ.quote(), Near(typ.text, sinkTypes)))
			continue
		}
		s := newSink(typ.text)
		if name := item.get("name"); name != nil && name.kind != broken && !d.scalar(name, &s.Name, `is:"name" need:"1"`) {
			continue
		}
		path := "sinks." + s.Name
		if here[s.Name] {
			d.fail(item.errorf("two sinks are named %q; give this one another \"name\"", s.Name))
			continue
		}
		here[s.Name] = true
		for p := range d.origin {
			if p == path || strings.HasPrefix(p, path+".") {
				delete(d.origin, p)
			}
		}
		d.origin[path] = item
		d.mapping(item, reflect.ValueOf(&s).Elem(), path, " of a "+s.Type+" sink")
		d.needed(item, reflect.ValueOf(&s).Elem(), "a "+s.Type+" sink")
		s.Name = strings.TrimPrefix(path, "sinks.")
		if i := slices.IndexFunc(*to, func(o Sink) bool { return o.Name == s.Name }); i >= 0 {
			(*to)[i] = s
		} else {
			*to = append(*to, s)
		}
	}
}

// check reads the files that s names, and holds its values against each other.
func (s *Sink) check(d *decoder) {
	path := "sinks." + s.Name
	if allowed := encodings(s.Type); len(allowed) == 0 && s.Encoding != "" {
		d.failAt(path+".encoding", "%s has an encoding of its own", s.Type)
	} else if len(allowed) > 0 && !slices.Contains(allowed, s.Encoding) {
		d.failAt(path+".encoding", "expected %s, found %s%s", oneOf(allowed), d.origin.at(path+".encoding").quote(), Near(s.Encoding, allowed))
	}
	if p := s.Pseudonymise; p != nil && p.KeyFile != "" {
		p.Key = d.secretFile(path + ".pseudonymise.key_file")
		// Shorter keys than the hash's output weaken the HMAC (RFC 2104 §3).
		if n := len(p.Key); n > 0 && n < 32 {
			d.failAt(path+".pseudonymise.key_file", "the key has %d bytes; at least 32 are needed (head -c 32 /dev/urandom | base64)", n)
		}
	}
	s.Target.check(d, path)
}

func (*Stdout) check(*decoder, string)   {}
func (*Journald) check(*decoder, string) {}
func (*File) check(*decoder, string)     {}

func (s *Syslog) check(d *decoder, path string) {
	d.tls(path, s.TLS, strings.HasPrefix(s.Address, "tls:"), s.Address, "an address tls://")
}

func (s *OTLP) check(d *decoder, path string) {
	d.tls(path, s.TLS, strings.HasPrefix(s.Endpoint, "https:"), s.Endpoint, "an endpoint https://")
}

func (s *Kafka) check(d *decoder, path string) {
	d.tls(path, s.TLS, true, "", "")
	if s.SASL == nil {
		return
	}
	s.SASL.Password = d.password(path+".sasl", s.SASL.Password, s.SASL.PasswordFile)
	if s.TLS == nil && s.SASL.Mechanism == "PLAIN" {
		d.warnAt(path+".sasl.mechanism", "without tls the password is sent in clear; add tls or use SCRAM-SHA-512")
	}
}

func (s *NATS) check(d *decoder, path string) {
	d.tls(path, s.TLS, strings.HasPrefix(s.URL, "tls:"), s.URL, "a URL tls://")
	if s.CredentialsFile != "" {
		d.secretFile(path + ".credentials_file")
	}
}

func (s *Alertmanager) check(d *decoder, path string) {
	https := strings.HasPrefix(s.URL, "https:")
	d.tls(path, s.TLS, https, s.URL, "a URL https://")
	if a := s.BasicAuth; a != nil {
		a.Password = d.password(path+".basic_auth", a.Password, a.PasswordFile)
		if !https && s.URL != "" {
			d.warnAt(path+".basic_auth", "without https the password is sent in clear")
		}
	}
}

func (s *Webhook) check(d *decoder, path string) {
	d.tls(path, s.TLS, strings.HasPrefix(s.URL, "https:"), s.URL, "a URL https://")
}

func (s *Fluent) check(d *decoder, path string) {
	d.tls(path, s.TLS, strings.HasPrefix(s.Address, "tls:"), s.Address, "an address tls://")
}
