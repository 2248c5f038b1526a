package metric

import (
	"fmt"
	"strings"
)

// An Alert is a rule of Prometheus over the metrics.
type Alert struct {
	Name     string
	Expr     string
	For      string
	Severity string // critical: somebody is woken; warning: somebody looks in the morning
	Summary  string
	What     string // what to do
	Why      string // of the numbers
}

// Alerts are the rules of packaging/prometheus-rules.yaml.
var Alerts = []Alert{
	{
		Name: "JindanCauseOpen", Expr: `sum by (instance, rule) (jindan_roots_open{severity="error"}) > 0`, For: "30s", Severity: "critical",
		Summary: "{{ $labels.instance }}: {{ $labels.rule }} harms users",
		What:    "Ask the agent what to do first: jindan top on the host, or curl --unix-socket /run/jindan/jindan.sock http://jindan/findings.",
		Why:     "A cause is named after seconds; half a minute spares the page for what heals at once.",
	},
	{
		Name: "JindanAgentDown", Expr: `up{job="jindan"} == 0`, For: "2m", Severity: "warning",
		Summary: "{{ $labels.instance }}: the agent does not answer",
		What:    "systemctl status jindan; journalctl -u jindan. Name the scrape job jindan, or change this rule.",
		Why:     "An upgrade restarts it within seconds.",
	},
	{
		Name: "JindanAnalysisStandsStill", Expr: `jindan_window_age_seconds > 30`, For: "1m", Severity: "warning",
		Summary: "{{ $labels.instance }}: the newest judged second is {{ $value | humanizeDuration }} old",
		What:    "The agent ends an analysis that hangs by itself. If this lasts, the host has no processor time left: see CPUQuota= of the unit.",
		Why:     "A window is judged every second; sources may be set to speak every 10 s.",
	},
	{
		Name: "JindanAnalysisFailed", Expr: `increase(jindan_engine_failures_total[15m]) > 0`, For: "0s", Severity: "warning",
		Summary: "{{ $labels.instance }}: the analysis failed and began anew",
		What:    "The log names the recording that caused it. What was known before is lost; please report it.",
		Why:     "It never should.",
	},
	{
		Name: "JindanInputMissing", Expr: `jindan_input_up == 0`, For: "15m", Severity: "warning",
		Summary: "{{ $labels.instance }}: no {{ $labels.input }}; the steps that need them are not assessable",
		What:    "journalctl -u jindan says why: a right that is missing, an interface that is gone, a module that is not there.",
		Why:     "Interfaces go and come back within minutes. To watch without packets on purpose, silence this for the host.",
	},
	{
		Name: "JindanCaptureDrops",
		Expr: `rate(jindan_packets_dropped_total[5m]) > 0.01 * (rate(jindan_packets_total[5m]) + rate(jindan_packets_dropped_total[5m]))`,
		For:  "5m", Severity: "warning",
		Summary: "{{ $labels.instance }}: the capture misses {{ $value | humanize }} packets a second",
		What:    "Narrow capture.filter, or give the agent more processor time or memory (budget.*). Until then losses are judged with care.",
		Why:     "From 1 % on, what the capture misses hides what the network loses.",
	},
	{
		Name: "JindanSourceFails", Expr: `rate(jindan_source_failures_total[5m]) > 0`, For: "10m", Severity: "warning",
		Summary: "{{ $labels.instance }}: {{ $labels.source }} cannot be read",
		What:    "journalctl -u jindan says why.",
		Why:     "A single failure is a sample that is missing, no more.",
	},
	{
		Name: "JindanNotDelivered", Expr: `jindan_sink_lag > 0 and on (instance, sink) increase(jindan_sink_sent_total[10m]) == 0`,
		For: "10m", Severity: "warning",
		Summary: "{{ $labels.instance }}: {{ $value }} records wait for the sink {{ $labels.sink }}",
		What:    "Its receiver does not answer, or refuses. The spool keeps the records until it is full.",
		Why:     "A receiver that restarts is back sooner.",
	},
	{
		Name: "JindanRecordsLost",
		Expr: `increase(jindan_sink_dropped_total[15m]) > 0 or increase(jindan_sink_rejected_total[15m]) > 0 or increase(jindan_spool_lost_total[15m]) > 0 ` +
			`or increase(jindan_stdout_dropped_total[15m]) > 0`,
		For: "0s", Severity: "warning",
		Summary: "{{ $labels.instance }}: findings were lost on their way",
		What:    "The log says which and why: a full or damaged spool, a receiver that refuses a record, a reader that is too slow.",
		Why:     "Every loss is worth a look.",
	},
}

// Rules is the file of alert rules.
func Rules() []byte {
	var b strings.Builder
	b.WriteString("# Alert rules over the agent's /metrics, for Prometheus. Made from cmd/internal/metric: do not edit.\ngroups:\n  - name: jindan\n    rules:\n")
	for _, a := range Alerts {
		fmt.Fprintf(&b, "      # %s\n      - alert: %s\n        expr: %s\n        for: %s\n        labels: {severity: %s}\n", a.Why, a.Name, quote(a.Expr), a.For, a.Severity)
		fmt.Fprintf(&b, "        annotations:\n          summary: %s\n          description: %s\n", quote(a.Summary), quote(a.What))
	}
	return []byte(b.String())
}

// quote makes a single-quoted scalar of YAML.
func quote(s string) string { return "'" + strings.ReplaceAll(s, "'", "''") + "'" }
