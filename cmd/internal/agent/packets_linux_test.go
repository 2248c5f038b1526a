package agent

import (
	"reflect"
	"slices"
	"strings"
	"testing"

	"jindan/analyze"
	"jindan/analyze/cause"
	"jindan/analyze/detect"
	"jindan/capture"
	"jindan/capture/decode"
	"jindan/capture/pcapfile"
	"jindan/cmd/internal/diagnose"
)

// needsPackets are the steps that only packets can rule out.
const needsPackets = "retransmission-by-point abnormal-termination dns-delay stage-by-stage load-balancer size-dependent-loss surge path-cut attack capture-quality evidence-set"

// TestPacketsUnseen shows the engine a healthy network, then takes its packets away and gives them back.
func TestPacketsUnseen(t *testing.T) {
	set, err := diagnose.Catalogue("")
	if err != nil {
		t.Fatal(err)
	}
	engine := func() *analyze.Engine {
		e, err := analyze.New(set, detect.All(), analyze.Options{Causes: cause.New(set)}, func(*analyze.Finding) error { return nil })
		if err != nil {
			t.Fatal(err)
		}
		return e
	}
	var at capture.Instant
	show := func(e *analyze.Engine, o capture.Observation) map[string]analyze.StepVerdict {
		if err := e.Observe(&capture.Batch{Obs: []capture.Observation{o}, Until: o.At}); err != nil {
			t.Fatal(err)
		}
		verdicts := make(map[string]analyze.StepVerdict)
		for _, s := range e.Diagnosis().Steps {
			verdicts[s.Step] = s
		}
		return verdicts
	}

	e := engine()
	f, err := pcapfile.Open("../../../fixtures/quiet-healthy/packets.pcap.zst", decode.New())
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	err = capture.Merge(t.Context(), []capture.Source{f}, 0, func(b *capture.Batch) error {
		at = max(at, b.Until)
		return e.Observe(b)
	})
	if err != nil {
		t.Fatal(err)
	}
	const why = "capture on eth0: no such device"
	before := show(e, noPackets(at, "eth0", ""))
	gone := show(e, noPackets(at+1, "eth0", why))
	back := show(e, noPackets(at+2, "eth0", ""))
	since := at.Time().Format("2006-01-02 15:04:05 UTC")
	cleared := 0
	for step, v := range gone {
		was := before[step]
		if !slices.Contains(strings.Fields(needsPackets), step) {
			if was.Verdict == analyze.RuledOut && v.Verdict == was.Verdict {
				continue
			}
			// Without sockets, "packets or sockets" means packets.
			if v.Verdict != analyze.NotAssessable {
				t.Errorf("%s: %+v, before %+v", step, v, was)
			}
			continue
		}
		want := "No packets since " + since + ": " + why + ". "
		if was.Verdict == analyze.RuledOut {
			want += "Until then: "
			cleared++
		}
		if v.Verdict != analyze.NotAssessable || v.Reason.En != want+was.Reason.En || !strings.HasPrefix(v.Reason.Ko, since+"부터") {
			t.Errorf("%s: %+v, want %q", step, v, want)
		}
		if !reflect.DeepEqual(back[step], was) {
			t.Errorf("%s again: %+v, before %+v", step, back[step], was)
		}
	}
	if cleared < 5 {
		t.Errorf("%d steps were ruled out before: that shows nothing", cleared)
	}

	never := show(engine(), noPackets(at, "packets", "not permitted: run as root, or with CAP_NET_RAW"))
	for step := range strings.FieldsSeq(needsPackets) {
		if v := never[step]; v.Verdict != analyze.NotAssessable || !strings.HasPrefix(v.Reason.En, "No packets: not permitted: run as root") {
			t.Errorf("%s: %+v", step, v)
		}
	}
}
