package main

import (
	"bytes"
	"os"
	"regexp"
	"strings"
	"testing"
	"time"

	"jindan/analyze"
	"jindan/capture"
	"jindan/cmd/internal/report"

	"github.com/VictoriaMetrics/metrics"
)

// TestExposition: the series of one metric stand together behind one HELP and one TYPE, and each metric that the agent writes has a
// HELP of its own.
func TestExposition(t *testing.T) {
	var x exposition
	for _, ns := range []string{"a", "b"} {
		metrics.WriteCounterUint64(x.of("jindan_packets_total", "counter"), series("jindan_packets_total", []string{"netns", ns}), 1)
		metrics.WriteGaugeFloat64(x.of("jindan_sink_lag", "gauge"), series("jindan_sink_lag", []string{"sink", ns}), 2)
	}
	var b bytes.Buffer
	x.write(&b)
	const want = `# HELP jindan_packets_total Packets that the capture delivered.
# TYPE jindan_packets_total counter
jindan_packets_total{netns="a"} 1
jindan_packets_total{netns="b"} 1
# HELP jindan_sink_lag Records that wait for a sink.
# TYPE jindan_sink_lag gauge
jindan_sink_lag{sink="a"} 2
jindan_sink_lag{sink="b"} 2
`
	if b.String() != want {
		t.Errorf("%s", b.String())
	}
	source, err := os.ReadFile("api_linux.go")
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range regexp.MustCompile(`(?:gauge|counter)\("(\w+)"`).FindAllSubmatch(source, -1) {
		if help[string(m[1])] == "" {
			t.Errorf("%s has no HELP", m[1])
		}
	}
}

// TestEnded: what is over says since when, and how long it lasted.
func TestEnded(t *testing.T) {
	at := capture.Instant(time.Date(2023, 11, 17, 8, 0, 0, 0, time.Local).UnixNano())
	f := &analyze.Finding{Onset: at, LastSeen: at.Add(95 * time.Second)}
	if got := ended(report.English, f); got != "well since 08:01:35; it lasted 1m35s" {
		t.Error(got)
	}
	if got := ended(report.Korean, f); !strings.Contains(got, "08:01:35") || !strings.Contains(got, "1m35s") {
		t.Error(got)
	}
}
