package kafka

import (
	"encoding/json"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kfake"

	"jindan/cmd/internal/sink"
	"jindan/cmd/internal/sink/tlstest"
)

// TestKafkaTLS: only a broker whose certificate is of a trusted authority, valid and of its name gets anything.
func TestKafkaTLS(t *testing.T) {
	a := tlstest.New(t)
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

// TestIntegrationKcat reads with librdkafka what the sink has written.
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
	defer k.Close()
	b := batch(50)
	if out, err := send(t, k, b, 20*time.Second); err != nil || count(out, sink.Accepted) != len(b) {
		t.Fatal(out, err)
	}
	// To the end of the topic, a JSON object a message.
	text, err := exec.CommandContext(t.Context(), kcat, "-b", broker.ListenAddrs()[0], "-C", "-t", "jindan", "-o", "beginning", "-e", "-q", "-J").Output()
	if err != nil {
		t.Fatal(err)
	}
	got := make(map[string]sink.Message)
	for _, m := range b {
		got[string(m.Data)] = m
	}
	for line := range strings.Lines(string(text)) {
		var x struct {
			Key, Payload string
			Headers      []string
			TS           int64
		}
		if err := json.Unmarshal([]byte(line), &x); err != nil {
			t.Fatal(err)
		}
		m, ok := got[x.Payload]
		if !ok {
			t.Errorf("unexpected or twice: %s", line)
			continue
		}
		delete(got, x.Payload)
		want := []string{"id", m.Key(), "kind", string(m.Kind), "severity", m.Severity}
		if x.Key != m.ID || strings.Join(x.Headers, " ") != strings.Join(want, " ") || x.TS != m.Time.Time().UnixMilli() {
			t.Errorf("%s, want key %s, headers %v", line, m.ID, want)
		}
	}
	if len(got) > 0 {
		t.Errorf("%d of %d messages are missing", len(got), len(b))
	}
}
