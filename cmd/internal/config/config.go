// Package config reads the agent's configuration: built-in defaults, a YAML file, the drop-in
// directory jindan.d beside it, the environment and flags, each layer over the one before it.
// Mappings merge key by key and lists replace; only sinks add up, by name. Every mistake of every
// layer is reported, with its file, line and column, and so is where a value came from.
package config

import (
	"reflect"
	"time"
)

// Config is the agent's configuration. [Default] has the values of keys that nobody sets.
type Config struct {
	Capture   Capture   `yaml:"capture"`
	Sockets   Sockets   `yaml:"sockets"`
	Host      Host      `yaml:"host"`
	Netns     []string  `yaml:"netns" is:"netns"` // names in /run/netns, or "all"; none: the agent's own
	Local     string    `yaml:"local" is:"hosts"` // "this host" in findings, addresses and prefixes, separated by commas; unset: found out
	Rules     string    `yaml:"rules" is:"dir"`   // directory with rule files of one's own; empty: the built-in catalogue
	Budget    Budget    `yaml:"budget"`
	Recorder  Recorder  `yaml:"recorder"`
	Record    Record    `yaml:"record"`
	HTTP      HTTP      `yaml:"http"`
	Log       Log       `yaml:"log"`
	Heartbeat Duration  `yaml:"heartbeat" min:"10s" max:"1h"`   // between the signs of life that the sinks get
	Repeat    Duration  `yaml:"repeat_open" min:"1m" max:"24h"` // after which a finding that stays open is sent again
	Spool     Spool     `yaml:"spool"`
	Sinks     []Sink    `yaml:"sinks"`
	Read      Read      `yaml:"-"`
	origin    originMap // of every value that is no default
}

// Equal tells whether a and b have the same values, wherever they are from.
func Equal(a, b *Config) bool {
	x, y := *a, *b
	x.origin, y.origin = nil, nil
	return reflect.DeepEqual(x, y)
}

// Duration is a time in Go's notation, with a unit: 500ms, 10s, 1h30m.
type Duration = time.Duration

// Capture is the packet capture.
type Capture struct {
	Enabled    bool     `yaml:"enabled"`
	Interfaces []string `yaml:"interfaces" is:"interface"`             // names, or "any"
	Filter     string   `yaml:"filter"`                                // capture filter (pcap-filter(7)); empty: every packet
	SnapLength Size     `yaml:"snap_length" min:"96B" max:"256KiB"`    // of one packet
	RingSize   Size     `yaml:"ring_size" min:"1MiB" max:"1GiB"`       // of one kernel ring
	Fanout     int      `yaml:"fanout" min:"1" max:"64" unit:" rings"` // rings and reading threads an interface (PACKET_FANOUT)
}

// Sockets is the sampling of TCP sockets by sock_diag.
type Sockets struct {
	GateEvery  Duration `yaml:"gate_every" min:"100ms" max:"1m"` // counters, CLOSE_WAIT and LISTEN
	FullEvery  Duration `yaml:"full_every" min:"1s" max:"10m"`   // every socket, with tcp_info
	MaxSockets int      `yaml:"max_sockets" min:"1000" max:"5000000" unit:" sockets"`
}

// Host is the sampling of the host's counters and processes.
type Host struct {
	Every  Duration `yaml:"every" min:"100ms" max:"1m"`
	Procfs string   `yaml:"procfs" is:"dir" need:"1"` // where the host's procfs is mounted
}

// Budget is what the agent may take of the host. It samples less, and says so, before it
// exceeds it.
type Budget struct {
	CPU    Percent `yaml:"cpu" min:"1%" max:"1600%"` // of one CPU
	Memory Size    `yaml:"memory" min:"64MiB" max:"64GiB"`
}

// Recorder is the flight recorder: what preceded and followed a finding is kept.
type Recorder struct {
	Enabled  bool     `yaml:"enabled"`
	Keep     Duration `yaml:"keep" min:"1s" max:"10m"`           // before the finding
	After    Duration `yaml:"after" min:"0s" max:"10m"`          // after it
	MaxBytes Size     `yaml:"max_bytes" min:"1MiB" max:"16GiB"`  // in memory, so of one incident
	Dir      string   `yaml:"dir" is:"path" need:"1"`            // one directory an incident
	MaxTotal Size     `yaml:"max_total" min:"1MiB" max:"100TiB"` // of all incidents; the oldest give way
}

// Record limits 'jindan record'.
type Record struct {
	MaxBytes Size     `yaml:"max_bytes" min:"1MiB" max:"100TiB"`
	MaxTime  Duration `yaml:"max_time" min:"1s" max:"720h"`
}

// HTTP is where the agent answers: state, findings and metrics.
type HTTP struct {
	Listen string `yaml:"listen" is:"listen"` // path of a Unix socket, or ADDRESS:PORT; empty: nowhere
}

// Log is the agent's own log.
type Log struct {
	Level  string `yaml:"level" enum:"info warn error"`
	Format string `yaml:"format" enum:"text json"`
}

// Spool keeps on disk what a sink does not take.
type Spool struct {
	Dir      string `yaml:"dir" is:"path" need:"1"`
	MaxBytes Size   `yaml:"max_bytes" min:"1MiB" max:"1TiB"` // of all sinks; the oldest give way
}

// Default is the configuration of a host where nothing was configured. jindan.yaml says the same
// with the reasons, for users; a test holds the two together.
func Default() *Config {
	return &Config{
		Capture: Capture{
			Enabled:    true,
			Interfaces: []string{"any"}, // a fault may show on any interface
			SnapLength: 256,             // bytes; the headers, tunnelled ones too, and common DNS answers
			RingSize:   8 * MiB,         // 0.1 s of 300,000 packets/s at 256 bytes; all of it is resident
			Fanout:     1,               // rings; one thread reads 470,000 packets/s
		},
		Sockets: Sockets{
			GateEvery:  time.Second,      // 0.1-0.2 % of a CPU at 20,000 sockets
			FullEvery:  15 * time.Second, // 0.2 % of a CPU at 20,000 sockets
			MaxSockets: 200_000,          // sockets; 460 bytes each, 92 MB
		},
		Host: Host{
			Every:  time.Second, // the windows in which detectors judge are a second
			Procfs: "/proc",
		},
		Budget: Budget{
			CPU:    5,         // % of one CPU: a monitoring agent's usual share
			Memory: 256 * MiB, // ring, recorder and flow table with room for the rest
		},
		Recorder: Recorder{
			Enabled:  true,
			Keep:     30 * time.Second, // a cause precedes its finding by up to two windows of 10 s
			After:    10 * time.Second, // one window of 10 s
			MaxBytes: 64 * MiB,         // 30 s of 8,000 packets/s at 256 bytes
			Dir:      "/var/lib/jindan/incidents",
			MaxTotal: GiB, // 16 incidents of full size
		},
		Record: Record{
			MaxBytes: GiB,       // 4 million packets of 256 bytes
			MaxTime:  time.Hour, // a recording that was forgotten ends
		},
		HTTP: HTTP{
			Listen: "/run/jindan/jindan.sock", // access is what the file's mode allows, no port is open
		},
		Log:       Log{Level: "info", Format: "text"},
		Heartbeat: time.Minute,      // silence of two minutes tells a dead agent from a healthy host
		Repeat:    10 * time.Minute, // a receiver that lost its state knows again soon
		Spool: Spool{
			Dir:      "/var/lib/jindan/spool",
			MaxBytes: 256 * MiB, // 100,000 findings of 2.5 kB
		},
		Sinks: []Sink{newSink("stdout")}, // under systemd: the journal
	}
}
