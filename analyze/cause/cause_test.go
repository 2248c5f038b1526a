package cause_test

import (
	"fmt"
	"slices"
	"strconv"
	"testing"
	"time"

	"jindan/analyze"
	"jindan/analyze/cause"
	"jindan/analyze/detect"
	"jindan/capture"
	"jindan/rules"
)

const t0 = capture.Instant(1_700_000_000 * int64(time.Second))

// finding of a rule whose first affected event was at after t0.
func finding(rule string, at time.Duration, s analyze.Subject, features any) *analyze.Finding {
	return &analyze.Finding{ID: rule + "/" + s.Key(), Rule: rule, Severity: "error", Subject: s, Onset: t0.Add(at),
		LastSeen: t0.Add(time.Minute), Features: features}
}

var (
	path     = analyze.Subject{Kind: "path", Host: "192.0.2.9", Peer: "198.51.100.2", Direction: "inbound"}
	resolver = analyze.Subject{Kind: "resolver", Host: "192.0.2.9", Peer: "198.51.100.2", Port: 53}
	service  = analyze.Subject{Kind: "service", Host: "192.0.2.9", Port: 4433}
	stranger = analyze.Subject{Kind: "service", Host: "203.0.113.77", Port: 4433}
)

func roles(fs []*analyze.Finding) (out []string) {
	for _, f := range fs {
		out = append(out, f.Rule+":"+string(f.Role))
	}
	return out
}

func TestLink(t *testing.T) {
	set, err := rules.Load(detect.Features())
	if err != nil {
		t.Fatal(err)
	}
	g := cause.New(set)
	loss := func(at time.Duration) *analyze.Finding {
		return finding("size-dependent-loss", at, path, detect.SizeLoss{Opened: 5, Cliff: 1400})
	}
	pool := func(at time.Duration, s analyze.Subject) *analyze.Finding {
		return finding("pool-exhausted", at, s, detect.PoolExhausted{OutboundPeer: path.Peer})
	}
	leak := finding("close-wait", time.Minute, service, detect.CloseWait{Class: "LEAK"})
	starved := finding("close-wait", 4*time.Second, service, detect.CloseWait{Class: "STARVED", Waiting: 20, NeverAnswered: 20})
	info := finding("capture-quality", 0, analyze.Subject{Kind: "capture"}, detect.CaptureQuality{})
	info.Severity = "info"

	for _, tc := range []struct {
		name string
		fs   []*analyze.Finding
		want []string
	}{
		{"a chain has one root", []*analyze.Finding{starved, pool(time.Second, service), finding("dns-unanswered", 0, resolver, detect.DNSUnanswered{}), loss(500 * time.Millisecond)},
			[]string{"close-wait:consequence", "pool-exhausted:consequence", "dns-unanswered:consequence", "size-dependent-loss:root"}},
		{"what comes later is no cause", []*analyze.Finding{loss(30 * time.Second), pool(time.Second, service), starved},
			[]string{"size-dependent-loss:independent", "pool-exhausted:root", "close-wait:consequence"}},
		{"what was there when the input began may show later", []*analyze.Finding{finding("dns-unanswered", 5*time.Second, resolver, detect.DNSUnanswered{}), pool(time.Second, service)},
			[]string{"dns-unanswered:root", "pool-exhausted:consequence"}},
		{"what was not there before begins when it shows", []*analyze.Finding{finding("dns-unanswered", 5*time.Second, resolver, detect.DNSUnanswered{Baseline: 20}), pool(time.Second, service)},
			[]string{"dns-unanswered:root", "pool-exhausted:root"}},
		{"another host is no consequence", []*analyze.Finding{loss(0), pool(time.Second, stranger)},
			[]string{"size-dependent-loss:root", "pool-exhausted:root"}},
		{"a leak is its own cause", []*analyze.Finding{loss(0), leak},
			[]string{"size-dependent-loss:root", "close-wait:root"}},
		{"information takes no part", []*analyze.Finding{info, pool(time.Second, service)},
			[]string{"capture-quality:independent", "pool-exhausted:root"}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			g.Link(tc.fs, analyze.Local{})
			if got := roles(tc.fs); !slices.Equal(got, tc.want) {
				t.Errorf("got %v, want %v", got, tc.want)
			}
			shuffled := slices.Clone(tc.fs)
			slices.Reverse(shuffled)
			g.Link(shuffled, analyze.Local{})
			if got := roles(tc.fs); !slices.Equal(got, tc.want) {
				t.Errorf("in reverse order: got %v, want %v", got, tc.want)
			}
		})
	}
}

func TestDiagnoseNamesEveryStep(t *testing.T) {
	set, err := rules.Load(detect.Features())
	if err != nil {
		t.Fatal(err)
	}
	d := cause.New(set).Diagnose(nil, nil)
	if len(d.Steps) != len(set.Steps) || len(d.Roots) != 0 {
		t.Fatalf("%d verdicts on %d steps, roots %v", len(d.Steps), len(set.Steps), d.Roots)
	}
	for _, s := range d.Steps {
		if s.Verdict != analyze.NotAssessable || s.Reason.En == "" || s.Reason.Ko == "" {
			t.Errorf("%s: %s, %+v", s.Step, s.Verdict, s.Reason)
		}
	}
}

// A finding keeps its id as long as its rule and subject are the same.
func TestFindingID(t *testing.T) {
	a := analyze.FindingID("close-wait", service)
	if b := analyze.FindingID("close-wait", service); a != b || a == analyze.FindingID("close-wait", stranger) {
		t.Errorf("ids %s %s", a, b)
	}
}

// BenchmarkLink links n findings of one host: its services and its upstreams in equal parts, all at once.
func BenchmarkLink(b *testing.B) {
	set, err := rules.Load(detect.Features())
	if err != nil {
		b.Fatal(err)
	}
	g := cause.New(set)
	for _, n := range []int{100, 1000, 2000, 10_000} {
		b.Run(strconv.Itoa(n), func(b *testing.B) {
			var fs []*analyze.Finding
			for i := range n {
				at := time.Duration(i) * time.Millisecond
				port := uint16(1 + i/6)
				here := analyze.Subject{Kind: "service", Host: "192.0.2.9", Port: port}
				there := analyze.Subject{Kind: "upstream", Host: "192.0.2.9", Peer: fmt.Sprintf("198.51.%d.%d", 100+i/1500, i/6%250), Port: port}
				fs = append(fs, [...]*analyze.Finding{
					finding("dead-upstream", at, there, detect.DeadUpstream{Class: "silent"}),
					finding("slow-server", at, there, detect.SlowServer{Class: "called"}),
					finding("slow-server", at, here, detect.SlowServer{Class: "served"}),
					finding("pool-exhausted", at, here, detect.PoolExhausted{OutboundPeer: there.Peer}),
					finding("close-wait", at, here, detect.CloseWait{Class: "STARVED", Waiting: 20, NeverAnswered: 20}),
					finding("abnormal-termination", at, here, detect.AbnormalTermination{Class: "ABORT"}),
				}[i%6])
			}
			for b.Loop() {
				g.Link(fs, analyze.Local{})
			}
		})
	}
}
