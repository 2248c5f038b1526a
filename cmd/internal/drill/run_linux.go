package drill

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"jindan/analyze"
	"jindan/cmd/internal/diagnose"
	"jindan/cmd/internal/report"
	"jindan/fixtures/lab"
	"jindan/rules"
)

// run is one run with what was seen at each capture point that something is expected of.
type run struct {
	truth   *lab.Truth
	seen    []seenAt     // the main point first
	agent   *lab.Verdict // of the live agent; nil: none ran
	sockets *lab.Verdict // of the agent without packets
}

type seenAt struct {
	point   string
	input   report.Input
	d       *analyze.Diagnosis
	verdict lab.Verdict
}

// maxAgain is how often a run is repeated that something else than the scenario disturbed.
const maxAgain = 3

// play plays a scenario and diagnoses its captures.
func (a Command) play(ctx context.Context, set *rules.Set, s lab.Scenario, seed uint64, f Options, phase func(string, time.Duration)) (*run, error) {
	dir := filepath.Join(f.Keep, fmt.Sprintf("%s-%d", s.ID, seed))
	if f.Keep == "" {
		var err error
		if dir, err = os.MkdirTemp("", "jindan-drill-"); err != nil {
			return nil, err
		}
		defer func() { _ = os.RemoveAll(dir) }()
	}
	var truth *lab.Truth
	for again := 0; ; again++ {
		var err error
		truth, err = lab.Run(ctx, s, lab.Options{Keep: dir, Seed: seed, Agent: f.Agent, Phase: phase,
			Log: func(format string, args ...any) { a.Log.Info().Msgf(format, args...) }})
		if err != nil {
			return nil, err
		}
		if truth.Disturbed == "" {
			break
		}
		if again == maxAgain {
			return nil, fmt.Errorf("%s, in each of %d runs; try fewer --jobs", truth.Disturbed, again+1)
		}
		a.Log.Warn().Msgf("%s, seed %d, is run again: %s", s.ID, seed, truth.Disturbed)
		if err := os.RemoveAll(dir); err != nil {
			return nil, err
		}
	}
	phase("diagnosing", 0)
	r, err := diagnoseRun(ctx, set, truth, dir)
	if err == nil {
		err = r.judgeAgents(ctx, set, truth, dir)
	}
	return r, err
}

// diagnoseRun diagnoses the captures of a run that something is expected of.
func diagnoseRun(ctx context.Context, set *rules.Set, truth *lab.Truth, dir string) (*run, error) {
	r := &run{truth: truth}
	points := []string{truth.Point}
	for p := range truth.Elsewhere {
		points = append(points, p)
	}
	slices.Sort(points[1:])
	for _, p := range points {
		d, got, err := diagnoseKept(ctx, set, filepath.Join(dir, p))
		if err != nil {
			return nil, err
		}
		r.seen = append(r.seen, seenAt{p, got, d, truth.JudgeCapture(p, d)})
	}
	return r, nil
}

// diagnoseKept diagnoses a capture or recording.
func diagnoseKept(ctx context.Context, set *rules.Set, name string) (*analyze.Diagnosis, report.Input, error) {
	in, err := diagnose.Open([]string{name})
	if err != nil {
		return nil, report.Input{}, err
	}
	defer in.Close()
	d, inErr, err := diagnose.Run(ctx, in, set, nil, func(*analyze.Finding) error { return nil })
	return d, in.Report(inErr), errors.Join(err, inErr)
}

// judgeRecordings replaces what the agents found by what set finds in their recordings, as far as there are any.
func (r *run) judgeRecordings(ctx context.Context, set *rules.Set, truth *lab.Truth, dir string) error {
	for _, kept := range []struct {
		name    string
		verdict **lab.Verdict
		judge   func(*analyze.Diagnosis) lab.Verdict
	}{
		{lab.RecordingName, &r.agent, func(d *analyze.Diagnosis) lab.Verdict { return truth.Judge(truth.Point, d) }},
		{lab.SocketsName, &r.sockets, truth.JudgeWeak},
	} {
		name := filepath.Join(dir, kept.name)
		if _, err := os.Stat(name); err != nil {
			continue // that agent did not run, or kept nothing
		}
		d, _, err := diagnoseKept(ctx, set, name)
		if err != nil {
			return err
		}
		v := kept.judge(d)
		*kept.verdict = &v
	}
	return nil
}

// judgeAgents holds what the agents found, if there were any, against what is expected, and what one of them found
// against the replay of its recording with set, unless that is nil.
func (r *run) judgeAgents(ctx context.Context, set *rules.Set, truth *lab.Truth, dir string) error {
	file := filepath.Join(dir, lab.SocketsFile)
	if _, err := os.Stat(file); err != nil {
		return nil // no agent ran
	}
	d, err := lab.ReadFindings(file)
	if err != nil {
		return err
	}
	v := truth.JudgeWeak(d)
	r.sockets = &v
	file = filepath.Join(dir, lab.AgentFile)
	if _, err := os.Stat(file); err != nil {
		return nil // the capture shows one direction only
	}
	if d, err = lab.ReadFindings(file); err != nil {
		return err
	}
	live := truth.Judge(truth.Point, d)
	if live.Named, err = lab.RootHistory(file); err != nil {
		return err
	}
	r.agent = &live
	if set == nil {
		return nil
	}
	same, err := replays(ctx, set, filepath.Join(dir, lab.RecordingName), file)
	if err == nil && !same {
		r.agent.Wrong = append(r.agent.Wrong, "the replay of the recording gives other records")
	}
	return err
}

// replays reports whether a recording gives the records that the agent wrote when it was made.
func replays(ctx context.Context, set *rules.Set, dir, file string) (bool, error) {
	want, err := os.ReadFile(file)
	if err != nil {
		return false, err
	}
	got, err := replay(ctx, set, dir)
	return bytes.Equal(got, want), err
}

// replay is what an agent writes, from its recording.
func replay(ctx context.Context, set *rules.Set, dir string) ([]byte, error) {
	in, err := diagnose.Open([]string{dir})
	if err != nil {
		return nil, err
	}
	defer in.Close()
	var out bytes.Buffer
	records := report.NewRecords(&out, false)
	d, inErr, err := diagnose.Run(ctx, in, set, nil, records.Finding)
	if err = errors.Join(err, inErr); err != nil {
		return nil, err
	}
	err = records.Diagnosis(d)
	return out.Bytes(), err
}

// record is the outcome of one run, the record of -o ndjson.
type record struct {
	Schema       string   `json:"schema"` // jindan.drill/v1
	Scenario     string   `json:"scenario"`
	Title        string   `json:"title"`
	Seed         uint64   `json:"seed"`
	Expected     string   `json:"expected"` // a rule; empty: nothing
	Roots        []string `json:"roots"`
	Consequences []string `json:"consequences"`
	Wrong        []string `json:"wrong"`           // what is not as expected
	False        int      `json:"false"`           // findings that must not be there
	First        float64  `json:"first_s"`         // from the fault to the first finding, s
	Root         float64  `json:"root_s"`          // to the right root, s
	Agent        string   `json:"agent,omitempty"` // roots that the live agent named
	AgentFirst   float64  `json:"agent_first_s,omitempty"`
	AgentRoot    float64  `json:"agent_root_s,omitempty"`
	AgentNamed   []string `json:"agent_named,omitempty"` // the roots that it named, one entry for each change of its mind
	AgentWrong   int      `json:"agent_wrong,omitempty"` // how many of them before the right one; -1: all
	Sockets      string   `json:"sockets,omitempty"`     // and without packets
	Error        string   `json:"error,omitempty"`       // the scenario could not be run
}

// record sums up a run; what is wrong at a further point counts as well.
func (r *run) record(s lab.Scenario, seed uint64) record {
	v := r.seen[0].verdict
	rec := record{Roots: v.Roots, Consequences: v.Consequences, Wrong: v.Wrong, False: v.False,
		First: v.First.Seconds(), Root: v.Root.Seconds()}
	for _, x := range r.seen[1:] {
		for _, w := range x.verdict.Wrong {
			rec.Wrong = append(rec.Wrong, x.point+": "+w)
		}
		rec.False += x.verdict.False
	}
	if v := r.agent; v != nil && s.Expect.Unseen {
		rec.Roots, rec.Consequences, rec.First, rec.Root = v.Roots, v.Consequences, v.First.Seconds(), v.Root.Seconds()
	}
	if v := r.agent; v != nil {
		rec.Agent = cmp.Or(strings.Join(v.Roots, ", "), "–")
		rec.AgentFirst, rec.AgentRoot = v.First.Seconds(), v.Root.Seconds()
		rec.AgentNamed = v.Named
		if len(v.Named) > 0 {
			rec.AgentWrong = r.truth.WrongFirst(v.Named)
		}
		for _, w := range v.Wrong {
			rec.Wrong = append(rec.Wrong, "agent: "+w)
		}
		rec.False += v.False
	}
	if v := r.sockets; v != nil {
		rec.Sockets = cmp.Or(strings.Join(v.Roots, ", "), "–")
		for _, w := range v.Wrong {
			rec.Wrong = append(rec.Wrong, "sockets only: "+w)
		}
		rec.False += v.False
	}
	rec.name(s, seed)
	return rec
}

func (r *record) name(s lab.Scenario, seed uint64) {
	r.Schema, r.Scenario, r.Title, r.Seed, r.Expected = "jindan.drill/v1", s.ID, s.Title, seed, s.Expect.Root
	for _, list := range []*[]string{&r.Roots, &r.Consequences, &r.Wrong} {
		if *list == nil {
			*list = []string{}
		}
	}
}
