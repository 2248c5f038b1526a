package rules

import "testing"

// Each rule fires on what was measured in the rebuilt incident and stays quiet on what
// looks like it.
func TestThresholds(t *testing.T) {
	type f = map[string]any
	s := mustLoad(t)
	for _, c := range []struct {
		rule     string
		features f
		severity string // empty: quiet
	}{
		{"size-dependent-loss", f{"p_value": 1e-9, "big_loss": 0.9, "big_sent": 561, "small_sent": 90, "hit": 12, "flows": 21, "stalled_flows": 12, "stalled_share": 0.57}, "error"},
		{"size-dependent-loss", f{"p_value": 0.4, "big_loss": 0.006, "small_loss": 0.005, "big_sent": 4500, "small_sent": 700, "flows": 350}, ""}, // 0.5 % uniform loss
		{"size-dependent-loss", f{"p_value": 1e-9, "big_loss": 0.3, "small_loss": 0.2, "big_sent": 4500, "small_sent": 4500}, ""},                 // heavy, but of all sizes
		{"retransmission", f{"class": "data", "share": 0.46, "segments": 547, "retransmitted": 252, "flows": 20, "flows_total": 21}, "warn"},
		{"retransmission", f{"class": "data", "share": 0.05, "retransmitted": 300, "spurious": 290, "flows": 30, "chance": 0.008}, ""}, // reordering
		{"retransmission", f{"class": "syn", "share": 0.5, "retransmitted": 869}, "warn"},
		{"retransmission", f{"class": "syn", "share": 0.005, "retransmitted": 2}, ""},
		{"dns-unanswered", f{"queries": 170, "unanswered": 161, "share": 0.95}, "error"},
		{"dns-unanswered", f{"queries": 350, "unanswered": 2, "share": 0.006}, ""},
		{"dns-unanswered", f{"queries": 1114, "unanswered": 12, "share": 0.011, "chance": 0.99}, ""},                    // 0.5 % uniform loss
		{"dns-unanswered", f{"queries": 1000, "unanswered": 100, "share": 0.1, "chance": 0.0, "capture_loss": 0.1}, ""}, // the capture drops packets
		{"dns-unanswered", f{"queries": 3, "unanswered": 3, "tries": 18, "share": 1.0}, "error"},                        // one name, asked all the time
		{"dns-unanswered", f{"queries": 170, "unanswered": 170, "share": 1.0, "one_way": true}, ""},
		{"dns-delay", f{"answered": 200, "slow": 200, "p95": 2.6, "p99": 2.9, "lasting": 10.0}, "error"},
		{"dns-delay", f{"answered": 200, "slow": 20, "p95": 0.3, "lasting": 10.0}, "warn"},
		{"dns-delay", f{"answered": 200, "slow": 20, "p95": 0.3, "lasting": 0.4}, ""}, // the host stood still
		{"dns-delay", f{"answered": 200, "slow": 2, "p95": 0.02}, ""},                 // cold cache
		{"dns-errors", f{"answered": 1000, "errors": 50, "share": 0.05, "names": 9}, "error"},
		{"dns-errors", f{"answered": 1000, "nxdomain": 900}, ""},
		{"close-wait", f{"class": "STARVED", "waiting": 72, "share": 0.9, "median_age": 5.0, "growth": 2.0, "never_answered": 70}, "error"},
		{"close-wait", f{"class": "LEAK", "waiting": 130, "older": 100, "share": 0.6, "median_age": 20.0, "growth": 3.0, "clients_succeed": 1.0}, "warn"},
		{"close-wait", f{"class": "LEAK", "waiting": 3, "older": 3, "share": 0.5, "median_age": 7200.0, "plateau": 7200.0}, ""},            // two or three immortal ones
		{"close-wait", f{"class": "SLOW-HANDLER", "waiting": 20, "share": 0.5, "median_age": 2.5, "growth": 1.0, "never_answered": 0}, ""}, // uploads still written to disk
		{"pool-exhausted", f{"level": 16, "spread": 1, "plateau": 10.0, "outstanding": 81, "queued": 65, "outstanding_before": 2, "abandoned": 40}, "error"},
		{"pool-exhausted", f{"level": 16, "spread": 1, "plateau": 10.0, "outstanding": 81, "queued": 65, "outstanding_before": 2}, ""}, // nobody lost patience
		{"pool-exhausted", f{"level": 500, "outstanding": 0, "plateau": 60.0}, ""},                                                     // idle keep-alive
		{"abnormal-termination", f{"class": "LATE-ANSWER", "resets": 72, "connections": 600, "share": 0.12}, "warn"},
		{"abnormal-termination", f{"class": "ABORT", "resets": 72, "connections": 600, "share": 0.12, "share_before": 0.1}, ""},
		{"abnormal-termination", f{"class": "LB-IDLE", "resets": 9, "connections": 20, "share": 0.45, "by_client": 9, "clients": 1}, ""},
		{"abnormal-termination", f{"class": "LB-IDLE", "resets": 9, "connections": 20, "share": 0.45, "by_server": 9, "clients": 1}, "warn"},
		{"abnormal-termination", f{"class": "LB-IDLE", "resets": 4, "connections": 20, "share": 0.2, "by_server": 4, "clients": 4}, ""},
		{"dead-upstream", f{"class": "silent", "attempts": 60, "failed": 60, "share": 1.0, "syn_unanswered": 60, "syn_repeats": 144, "succeeded_before": 500}, "error"},
		{"dead-upstream", f{"class": "refused", "attempts": 229, "failed": 229, "refused": 229, "share": 1.0, "succeeded_before": 500, "lasting": 30.0}, "error"},
		{"dead-upstream", f{"class": "refused", "attempts": 30, "failed": 30, "refused": 30, "share": 1.0, "succeeded_before": 500, "lasting": 1.5}, "info"}, // restart
		{"dead-upstream", f{"class": "silent", "attempts": 5, "failed": 5, "share": 1.0, "syn_unanswered": 5, "lasting": 60.0}, "warn"},                      // never seen alive
		{"dead-upstream", f{"class": "hung", "attempts": 1000, "failed": 6, "share": 0.006}, ""},
		{"connection-refused", f{"class": "refused", "refused": 50, "attempts": 50, "share": 1.0, "served_before": 400, "lasting": 60.0}, "error"},
		{"connection-refused", f{"class": "silent", "unanswered": 50, "attempts": 50, "share": 1.0, "served_before": 400, "lasting": 60.0}, "error"},
		{"connection-refused", f{"class": "refused", "refused": 50, "attempts": 50, "share": 1.0, "served_before": 400, "lasting": 4.0}, "info"}, // restart
		{"connection-refused", f{"class": "refused", "refused": 50, "attempts": 50, "share": 1.0, "lasting": 60.0, "insisting": 1}, "info"},      // wrong port
		{"connection-refused", f{"class": "refused", "refused": 50, "attempts": 50, "share": 1.0, "lasting": 60.0, "clients": 1}, ""},            // scan
		{"path-cut", f{"peers": 3, "silent": 10.0, "sent": 90, "rate_before": 50.0}, "error"},
		{"path-cut", f{"peers": 1, "silent": 10.0, "sent": 90, "rate_before": 50.0}, ""},
		{"path-cut", f{"peers": 2, "silent": 10.0, "sent": 90, "rate_before": 50.0, "chance": 0.02}, ""}, // clients leave all the time
		{"surge", f{"class": "single", "rate": 300.0, "share": 0.89, "rate_next": 20.0, "unanswered": 500, "baseline": 25.0, "sources": 2, "sources_before": 1}, "error"},
		{"surge", f{"class": "spread", "rate": 44.0, "rate_before": 12.0, "unanswered": 500, "baseline": 25.0, "sources": 120, "sources_before": 120}, "error"},
		{"surge", f{"class": "spread", "rate": 44.0, "rate_before": 12.0, "baseline": 25.0, "sources": 120, "sources_before": 120}, "info"},                                  // the listener keeps up
		{"surge", f{"class": "spread", "rate": 44.0, "rate_before": 12.0, "unanswered": 500, "failed_before": 0.3, "baseline": 25.0, "sources": 9, "sources_before": 9}, ""}, // retries
		{"surge", f{"class": "single", "rate": 300.0, "share": 0.89, "rate_before": 290.0, "baseline": 30.0}, ""},                                                            // as busy as before
		{"surge", f{"class": "single", "rate": 20.0, "share": 1.0, "baseline": 30.0}, ""},
		{"slow-receiver", f{"zero_windows": 5, "longest": 4.0, "flows": 1, "flows_total": 20, "closed_share": 0.5}, "info"},
		{"slow-receiver", f{"zero_windows": 50, "longest": 4.0, "flows": 10, "flows_total": 20, "closed_share": 0.5}, "warn"},
		{"slow-server", f{"class": "called", "baseline": 20.0, "requests": 300, "answered": 300, "slow": 280, "flows": 280, "p95": 2.6, "p95_before": 0.02}, "warn"},
		{"slow-server", f{"class": "served", "baseline": 20.0, "requests": 300, "answered": 300, "p95": 30.0, "p95_before": 30.0}, ""}, // long poll
		{"backend-skew", f{"members": 4, "connections": 2000, "p_value": 0.5, "ratio": 1.1, "failed": 200, "failed_share": 0.4, "lasting": 20.0}, "warn"},
		{"backend-skew", f{"members": 4, "connections": 2000, "p_value": 0.5, "ratio": 1.1, "failed": 200, "failed_share": 0.4, "failed_others": 0.3, "lasting": 20.0}, ""}, // all of them fail
		{"backend-skew", f{"members": 4, "connections": 2000, "p_value": 0.5, "ratio": 1.1, "failed": 20, "failed_share": 0.4, "lasting": 2.0}, ""},                         // rolling restart
		{"backend-skew", f{"members": 4, "connections": 2000, "p_value": 1e-9, "ratio": 2.5}, "info"},
		{"capture-quality", f{"packets": 9749, "copies": 4896, "copy_share": 0.5}, "info"},
		{"capture-quality", f{"packets": 9749, "copies": 2, "mid_stream": 3}, ""},
	} {
		got, holds, err := s.Rule(c.rule).Eval(c.features)
		if got != c.severity || holds != (c.severity != "") || err != nil {
			t.Errorf("%s %v: %q, %v; want %q", c.rule, c.features, got, err, c.severity)
		}
	}
}
