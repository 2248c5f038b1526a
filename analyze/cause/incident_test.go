package cause_test

import (
	"math"
	"slices"
	"testing"
	"time"

	"jindan/analyze"
	"jindan/analyze/cause"
	"jindan/analyze/detect"
	"jindan/rules"
)

// upstream is a call of the host to one of its peers.
func upstream(peer string) analyze.Subject {
	return analyze.Subject{Kind: "upstream", Host: "192.0.2.9", Peer: peer, Port: 443}
}

// Findings that explain each other are one incident, and so are visible starts of one fault; faults that have nothing to do with each other
// are several.
func TestIncidents(t *testing.T) {
	set, err := rules.Load(detect.Features())
	if err != nil {
		t.Fatal(err)
	}
	other := analyze.Subject{Kind: "service", Host: "192.0.2.9", Port: 22}
	dead := func(peer string, at time.Duration) *analyze.Finding {
		return finding("dead-upstream", at, upstream(peer), detect.DeadUpstream{Class: "silent"})
	}
	pool := func(at time.Duration) *analyze.Finding {
		return finding("pool-exhausted", at, service, detect.PoolExhausted{OutboundPeer: "198.51.100.2", OutboundKind: "tcp", OutboundShare: 1})
	}
	loss := func(peer string, at time.Duration) *analyze.Finding {
		s := path
		s.Peer = peer
		return finding("size-dependent-loss", at, s, detect.SizeLoss{Opened: 5, Cliff: 1400})
	}
	served := func(s analyze.Subject, at time.Duration) *analyze.Finding {
		return finding("slow-server", at, s, detect.SlowServer{Class: "served"})
	}
	early := dead("198.51.100.2", 0)
	early.LastSeen = t0.Add(5 * time.Second)
	for _, tc := range []struct {
		name string
		fs   []*analyze.Finding
		want []int // which of them belong together
	}{
		{"a chain", []*analyze.Finding{dead("198.51.100.2", 0), pool(time.Second)}, []int{0, 0}},
		{"two visible starts", []*analyze.Finding{loss("198.51.100.2", 0), loss("203.0.113.2", 3*time.Second)}, []int{0, 0}},
		{"two faults, half a minute apart", []*analyze.Finding{loss("198.51.100.2", 0), loss("203.0.113.2", 30*time.Second)}, []int{0, 1}},
		{"one that was over when the other began", []*analyze.Finding{early, dead("203.0.113.2", 8*time.Second)}, []int{0, 1}},
		{"two kinds of fault at once", []*analyze.Finding{dead("203.0.113.2", 0), finding("close-wait", 0, service, detect.CloseWait{Class: "LEAK"})}, []int{0, 1}},
		{"two services of a host at once", []*analyze.Finding{served(service, 0), served(other, 0)}, []int{0, 1}},
		{"two peers that refuse", []*analyze.Finding{finding("dead-upstream", 0, upstream("198.51.100.2"), detect.DeadUpstream{Class: "refused"}),
			finding("dead-upstream", time.Second, upstream("203.0.113.2"), detect.DeadUpstream{Class: "refused"})}, []int{0, 1}},
		{"two suspects of one effect", []*analyze.Finding{dead("198.51.100.2", 0), served(service, 2*time.Second), finding("dns-delay", time.Second, resolver, detect.DNSDelay{})},
			[]int{0, 0, 1}},
		{"a sign beside a fault of its host", []*analyze.Finding{finding("close-wait", 0, service, detect.CloseWait{Class: "STARVED"}),
			finding("dns-delay", 9*time.Second, resolver, detect.DNSDelay{Baseline: 0.01})}, []int{0, 0}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			for range 2 { // again, and the other way round
				cause.New(set).Link(tc.fs, analyze.Local{}, nil, math.MaxInt64)
				names := map[int]string{}
				for i, f := range tc.fs {
					if f.Incident == "" || names[tc.want[i]] != "" && names[tc.want[i]] != f.Incident {
						t.Errorf("%s is in %q, the first of %d is in %s", f.Rule, f.Incident, tc.want[i], names[tc.want[i]])
					}
					names[tc.want[i]] = f.Incident
				}
				if len(names) == 2 && names[0] == names[1] {
					t.Errorf("both in %s", names[0])
				}
				slices.Reverse(tc.fs)
				slices.Reverse(tc.want)
			}
		})
	}
}

// What comes back after it and its cause were well came back for another reason; what comes first in the aftermath of a cause is its effect.
func TestHealed(t *testing.T) {
	set, err := rules.Load(detect.Features())
	if err != nil {
		t.Fatal(err)
	}
	served := func(from, to time.Duration, state analyze.State) *analyze.Finding {
		f := finding("slow-server", from, service, detect.SlowServer{Class: "served"})
		f.LastSeen, f.Detected, f.State = t0.Add(to), f.Onset, state
		return f
	}
	slow := finding("dns-delay", 0, resolver, detect.DNSDelay{Baseline: 1})
	slow.LastSeen, slow.Detected, slow.State = t0.Add(20*time.Second), slow.Onset, analyze.Resolved
	earlier, again := served(time.Second, 19*time.Second, analyze.Resolved), served(30*time.Second, 40*time.Second, analyze.Open)
	cause.New(set).Link([]*analyze.Finding{slow, earlier, again}, analyze.Local{}, nil, math.MaxInt64)
	if earlier.Role != analyze.Consequence || again.Role != analyze.Root || earlier.Incident == again.Incident {
		t.Errorf("%s in %s, then %s in %s", earlier.Role, earlier.Incident, again.Role, again.Incident)
	}
	again.Incident = ""
	cause.New(set).Link([]*analyze.Finding{slow, again}, analyze.Local{}, nil, math.MaxInt64)
	if again.Role != analyze.Consequence {
		t.Errorf("10 s after the end of a cause, and never before: %s", again.Role)
	}
}

// An incident keeps its name while more is found, before and behind what was found first.
func TestIncidentKeepsItsName(t *testing.T) {
	set, err := rules.Load(detect.Features())
	if err != nil {
		t.Fatal(err)
	}
	g := cause.New(set)
	pool := finding("pool-exhausted", time.Second, service, detect.PoolExhausted{OutboundPeer: "198.51.100.2", OutboundKind: "tcp", OutboundShare: 1})
	fs := []*analyze.Finding{pool}
	for i, f := range []*analyze.Finding{pool,
		finding("dead-upstream", 0, upstream("198.51.100.2"), detect.DeadUpstream{Class: "silent"}),
		finding("close-wait", 4*time.Second, service, detect.CloseWait{Class: "STARVED", Waiting: 20, NeverAnswered: 20}),
	} {
		f.Detected = t0.Add(time.Duration(5+i) * time.Second)
		if i > 0 {
			fs = append(fs, f)
		}
		g.Link(fs, analyze.Local{}, nil, math.MaxInt64)
		if f.Incident != analyze.IncidentID(pool) {
			t.Errorf("with %s: %s, not %s", f.Rule, f.Incident, analyze.IncidentID(pool))
		}
	}
	list := analyze.Incidents(fs)
	if len(list) != 1 || list[0].State != analyze.Open || list[0].Begin != fs[1].Onset || !slices.Equal(list[0].Roots, []string{fs[1].ID}) ||
		!slices.Equal(list[0].Chain, []string{fs[1].ID, fs[0].ID, fs[2].ID}) {
		t.Errorf("%+v", list)
	}
}
