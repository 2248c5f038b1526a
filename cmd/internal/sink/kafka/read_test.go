package kafka

import (
	"context"
	"encoding/json"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kfake"

	"jindan/cmd/internal/sink"
	"jindan/cmd/internal/sink/sinktest"
)

// TestKafkaTLS: only a broker whose certificate is of a trusted authority, valid and of its name gets anything.
func TestKafkaTLS(t *testing.T) {
	a := sinktest.NewAuthority(t)
	for _, c := range []struct {
		name, host string
		life       time.Duration
		trust      bool
		word       string // of the error; empty: none
	}{
		{"right", "127.0.0.1", time.Hour, true, ""},
		{"another name", "other.example", time.Hour, true, "cannot validate certificate for 127.0.0.1"},
		{"expired", "127.0.0.1", -time.Hour, true, "expired"},
		{"unknown authority", "127.0.0.1", time.Hour, false, "unknown authority"},
	} {
		t.Run(c.name, func(t *testing.T) {
			a.Issue(t, c.name, c.host, c.life)
			broker, err := kfake.NewCluster(kfake.NumBrokers(1), kfake.SeedTopics(1, "jindan"), kfake.TLS(a.Server(t, c.name)))
			if err != nil {
				t.Fatal(err)
			}
			defer broker.Close()
			o := Options{Address: broker.ListenAddrs(), TLS: sink.TLS{Enable: true}}
			if c.trust {
				o.TLS.CA = a.Path("ca.crt")
			}
			k, err := New(o)
			if err != nil {
				t.Fatal(err)
			}
			defer k.Close()
			if c.word == "" {
				if out, err := send(t, k, batch(3), 10*time.Second); err != nil || count(out, sink.Accepted) != 3 {
					t.Errorf("%v %v", out, err)
				}
				return
			}
			out, err := send(t, k, batch(3), time.Second)
			if err == nil || count(out, sink.Retry) != 3 || !strings.Contains(err.Error(), c.word) {
				t.Errorf("%v %v", out, err)
			}
		})
	}
}

// TestIntegrationKcat reads with librdkafka what the sink has made of the incident of 17 November: every state of every finding, with
// all its fields, under its id.
func TestIntegrationKcat(t *testing.T) {
	kcat, err := exec.LookPath("kcat")
	if err != nil {
		t.Skip("kcat is not installed: apt-get install kcat")
	}
	broker, err := kfake.NewCluster(kfake.NumBrokers(1), kfake.SeedTopics(3, "jindan"))
	if err != nil {
		t.Fatal(err)
	}
	defer broker.Close()
	k, err := New(Options{Address: broker.ListenAddrs()})
	if err != nil {
		t.Fatal(err)
	}
	d, err := sink.Start(sink.Options{Spool: sink.SpoolOptions{Path: filepath.Join(t.TempDir(), "spool")}, Outputs: []sink.Output{{Name: "kafka", Sink: k}}})
	if err != nil {
		t.Fatal(err)
	}
	sent := sinktest.Feed(t, d.Finding)
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	if err := d.Close(ctx); err != nil {
		t.Fatal(err)
	}
	// To the end of the topic, a JSON object a message.
	text, err := exec.CommandContext(t.Context(), kcat, "-b", broker.ListenAddrs()[0], "-C", "-t", "jindan", "-o", "beginning", "-e", "-q", "-J").Output()
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(text)) {
		var x struct {
			Key, Payload string
			Headers      []string
		}
		if err := json.Unmarshal([]byte(line), &x); err != nil {
			t.Fatal(err)
		}
		f := sent.Take(t, []byte(x.Payload))
		if f == nil {
			continue
		}
		if h := strings.Join(x.Headers, " "); x.Key != f.ID || !strings.Contains(h, "kind finding") || !strings.HasSuffix(h, "severity "+f.Severity) || !strings.HasPrefix(h, "id "+f.ID) {
			t.Errorf("key %s, headers %s, of %s %s", x.Key, h, f.ID, f.Severity)
		}
	}
	sent.Done(t)
}
