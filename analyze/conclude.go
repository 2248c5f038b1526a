package analyze

import (
	"math"
	"slices"

	"jindan/capture"
)

// Close judges the open window, ends the run and returns the diagnosis. Findings are
// written once more in their last state.
func (e *Engine) Close() (*Diagnosis, error) {
	if e.began {
		if err := e.release(e.clock.accept); err != nil {
			return nil, err
		}
		e.w.Final = true
		e.table.End()
		if err := e.seal(); err != nil {
			return nil, err
		}
	}
	assessed := e.assess()
	e.table.Close()
	e.link(clearOf(assessed), math.MaxInt64)
	for _, f := range e.findings {
		if f.State == Resolved && f.told == roleKey(f) {
			continue // its end was told
		}
		f.Coverage = e.findingCoverage()
		if f.State == Open {
			f.State = Update
		}
		e.write(f)
	}
	if e.err != nil {
		return nil, e.err
	}
	return e.diagnose(assessed), nil
}

// Diagnosis is the verdict on what was seen so far; of windows that are not over it knows nothing. To ask for it changes nothing: roles
// are those of the records.
func (e *Engine) Diagnosis() *Diagnosis {
	assessed := e.assess()
	return e.diagnose(assessed)
}

// cleared reports whether a rule has seen enough, up to this window, to be ruled out.
func (e *Engine) cleared(rule string) bool {
	for i, d := range e.detectors {
		for _, j := range e.judges[i] {
			if e.rules[j].ID == rule {
				w := e.w
				w.Params = e.rules[i].Params
				a := Assessed{Rule: e.rules[j], Assessment: d.Assess(&w)}
				if a.Clear() {
					a.OneSided = int(e.table.OneSided()) // looks at every connection
				}
				return a.Clear()
			}
		}
	}
	return false
}

// clearOf tells which rules are ruled out.
func clearOf(assessed map[string]Assessed) func(string) bool {
	return func(rule string) bool {
		a := assessed[rule]
		return a.Clear()
	}
}

// assess asks every detector what it has to say about its step.
func (e *Engine) assess() map[string]Assessed {
	e.meet()
	e.w.Local = e.local.get()
	e.w.Packets, e.w.Late, e.w.Lost = e.cov.Packets, e.cov.Late, &e.lost
	assessed, oneSided := make(map[string]Assessed), int(e.table.OneSided())
	for i, d := range e.detectors {
		if _, ok := d.(Comparer); ok && e.w.Points == nil {
			continue
		}
		w := e.w
		w.Params = e.rules[i].Params
		a := d.Assess(&w)
		for _, r := range e.judges[i] {
			assessed[e.rules[r].ID] = Assessed{e.rules[r], a, oneSided}
		}
	}
	return assessed
}

func (e *Engine) diagnose(assessed map[string]Assessed) *Diagnosis {
	d := &Diagnosis{}
	if e.o.Causes != nil {
		d = e.o.Causes.Diagnose(e.findings, assessed)
	}
	for i := range d.Steps {
		e.unseen(&d.Steps[i])
	}
	d.Schema, d.Time, d.Coverage, d.Findings = DiagnosisSchema, e.clock.stated(e.w.End), e.coverage(), e.stated(e.findings)
	return d
}

func (e *Engine) coverage() Coverage {
	c := e.cov
	s := &e.table.Stats
	c.Sources = e.o.Sources
	c.Connections, c.Copies, c.CaptureLoss = s.Conns, s.Copies, s.CaptureLost
	c.OneWay, c.MidStream, c.Evicted, c.OutOfWindow = s.OneWay, s.MidStream, s.Evicted, s.OutOfWindow
	c.DNS = e.table.DNSStats().Transactions
	c.Lost = make(map[string]uint64)
	for r, n := range e.lost {
		if n > 0 {
			c.Lost[capture.LossReason(r).String()] = n
		}
	}
	c.ClockSteps, c.Stray = e.clock.steps, e.clock.stray
	c.Refused = e.refused
	for k, n := range map[string]uint64{"connections": s.RefusedConns, "paths": s.RefusedPaths, "holes": s.MergedHoles,
		"dns": e.table.DNSStats().Evicted, "dns_streams": e.table.DNSStats().Streams} {
		if n > 0 {
			c.Refused[k] = n
		}
	}
	c.LocalBy = string(e.w.Local.By)
	c.Local, c.Locals = e.w.Local.String(), e.w.Local.List()
	return c
}

// stated returns fs with the times that observations stated.
func (e *Engine) stated(fs []*Finding) []*Finding {
	if e.clock.plain() {
		return fs
	}
	shown := make([]*Finding, len(fs))
	for i, f := range fs {
		g := *f
		c := &e.clock
		g.Time, g.Onset, g.Detected, g.LastSeen = c.stated(f.Time), c.stated(f.Onset), c.stated(f.Detected), c.stated(f.LastSeen)
		g.Evidence = slices.Clone(f.Evidence)
		for j := range g.Evidence {
			g.Evidence[j].At = c.stated(g.Evidence[j].At)
		}
		shown[i] = &g
	}
	return shown
}

// SubjectFields are the fields of s that texts and causal edges refer to (rules.SubjectFields).
func SubjectFields(s Subject) map[string]any {
	return map[string]any{"host": s.Host, "peer": s.Peer, "port": int(s.Port), "direction": s.Direction, "segment": s.Segment}
}
