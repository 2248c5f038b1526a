package rules

import (
	"slices"
	"strings"
	"testing"
)

// from is the rules that can follow from id, directly or not.
func from(s *Set, id string) []string {
	out := []string{id}
	for i := 0; i < len(out); i++ {
		for _, e := range s.Edges {
			if e.From.Rule == out[i] && !slices.Contains(out, e.To.Rule) {
				out = append(out, e.To.Rule)
			}
		}
	}
	return out[1:]
}

func TestCauses(t *testing.T) {
	s := mustLoad(t) // acyclic, known rules and classes: checked at load
	for root, effects := range map[string][]string{
		"size-dependent-loss": {"dns-unanswered", "dns-delay", "pool-exhausted", "close-wait", "abnormal-termination", "retransmission", "slow-server", "dead-upstream"},
		"dns-delay":           {"pool-exhausted", "close-wait", "abnormal-termination", "retransmission", "slow-server"},
		"dead-upstream":       {"pool-exhausted", "close-wait", "abnormal-termination", "retransmission", "slow-server"},
		"connection-refused":  {"dead-upstream"},
		"surge":               {"pool-exhausted", "close-wait", "abnormal-termination", "retransmission", "slow-server"},
		"path-cut":            {"dns-unanswered", "dead-upstream", "pool-exhausted", "close-wait", "retransmission"},
		"segment-delay":       {"slow-server", "dns-delay"},
		"segment-disorder":    {"retransmission"},
		"capture-quality":     {},
	} {
		got := from(s, root)
		for _, e := range effects {
			if !slices.Contains(got, e) {
				t.Errorf("%s leads to %v, not to %s", root, got, e)
			}
		}
		if len(effects) == 0 && len(got) > 0 {
			t.Errorf("%s leads to %v", root, got)
		}
	}
	// 47 of what one capture point shows, and eight of several points.
	if n := s.Links(); n > 55 {
		t.Errorf("%d links; direct mechanisms only, the engine composes the chains", n)
	}
	for _, e := range s.Edges {
		for _, sel := range []Selector{e.From, e.To} {
			// A leak has no cause but the program, and no effect until descriptors run out.
			if sel.Rule == "close-wait" && (len(sel.Classes) == 0 || slices.Contains(sel.Classes, "LEAK")) && e.To.Rule != "exhaustion" {
				t.Errorf("a leak takes part in %v to %v", e.From, e.To)
			}
		}
		if !strings.ContainsAny(e.Why.En, "0123456789(") || !strings.Contains(e.Why.Ko, "니다") {
			t.Errorf("%v to %v: why is %q", e.From, e.To, e.Why)
		}
		if e.SlackSource == "" || e.Slack < 0 {
			t.Errorf("%v to %v: slack %v from %q", e.From, e.To, e.Slack, e.SlackSource)
		}
	}
}

func TestEdge(t *testing.T) {
	s := mustLoad(t)
	edge := func(from, to string) *Edge {
		i := slices.IndexFunc(s.Edges, func(e *Edge) bool { return e.From.String() == from && e.To.String() == to })
		if i < 0 {
			t.Fatalf("no edge %s to %s", from, to)
		}
		return s.Edges[i]
	}
	type features = map[string]any
	for _, c := range []struct {
		from, to        string
		cause, effect   Party
		matches, proven bool
	}{
		{"size-dependent-loss", "retransmission[data]",
			Party{Rule: "size-dependent-loss", Features: features{"cliff": 1400}, Subject: nil},
			Party{Rule: "retransmission", Features: features{"class": "data", "mean_size": 1490.0}, Subject: nil}, true, true},
		{"size-dependent-loss", "retransmission[data]",
			Party{Rule: "size-dependent-loss", Features: features{"cliff": 1400}, Subject: nil},
			Party{Rule: "retransmission", Features: features{"class": "syn", "mean_size": 60.0}, Subject: nil}, false, false},
		{"dns-unanswered", "pool-exhausted",
			Party{Rule: "dns-unanswered", Features: features{}, Subject: features{"host": "10.77.2.2", "peer": "10.77.3.2", "port": uint16(53)}},
			Party{Rule: "pool-exhausted", Features: features{"outbound_kind": "dns", "outbound_peer": "10.77.3.2"}, Subject: features{"host": "10.77.2.2"}}, true, true},
		{"dns-unanswered", "pool-exhausted",
			Party{Rule: "dns-unanswered", Features: features{}, Subject: features{"peer": "10.77.3.3"}},
			Party{Rule: "pool-exhausted", Features: features{"outbound_kind": "dns", "outbound_peer": "10.77.3.2"}, Subject: nil}, true, false},
		{"dead-upstream", "abnormal-termination", // another rule
			Party{Rule: "surge"}, Party{Rule: "abnormal-termination"}, false, false},
		{"pool-exhausted", "close-wait[STARVED,STARVED-UNACCEPTED,STARVED-QUEUED,SLOW-HANDLER]",
			Party{Rule: "pool-exhausted", Features: nil, Subject: nil}, Party{Rule: "close-wait", Features: features{"class": "LEAK"}, Subject: nil}, false, false},
		{"pool-exhausted", "close-wait[STARVED,STARVED-UNACCEPTED,STARVED-QUEUED,SLOW-HANDLER]",
			Party{Rule: "pool-exhausted", Features: nil, Subject: nil},
			Party{Rule: "close-wait", Features: features{"class": "STARVED", "waiting": 72, "never_answered": 70}, Subject: nil}, true, true},
		{"pool-exhausted", "slow-server[served]",
			Party{Rule: "pool-exhausted", Features: nil, Subject: nil}, Party{Rule: "slow-server", Features: features{"class": "served"}, Subject: nil}, true, false},
		{"pool-exhausted", "slow-server[served]",
			Party{Rule: "surge", Features: nil, Subject: nil}, Party{Rule: "slow-server", Features: features{"class": "served"}, Subject: nil}, false, false},
	} {
		e := edge(c.from, c.to)
		matches, err := e.Matches(&c.cause, &c.effect)
		if matches != c.matches || err != nil {
			t.Errorf("%s to %s: Matches(%v, %v) = %v, %v", c.from, c.to, c.cause, c.effect, matches, err)
		}
		if !matches {
			continue
		}
		if result, err := e.Try(&c.cause, &c.effect); (result == Proven) != c.proven || err != nil {
			t.Errorf("%s to %s: Try(%v, %v) = %v, %v", c.from, c.to, c.cause, c.effect, result, err)
		}
	}
	if _, err := edge("pool-exhausted", "slow-server[served]").Matches(&Party{Rule: "pool-exhausted", Features: 3, Subject: nil}, &Party{Rule: "slow-server", Features: nil, Subject: nil}); err == nil {
		t.Error("features of a wrong type: no error")
	}
}
