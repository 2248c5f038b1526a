package detect

import (
	"fmt"
	"math"
	"strings"

	"jindan/analyze"
	"jindan/analyze/flow"
	"jindan/analyze/points"
	"jindan/analyze/stat"
	"jindan/capture"
)

// Segment are the features of the rules of what lies between two capture points: segment-loss, segment-size-loss, segment-reset, segment-delay
// and segment-disorder.
type Segment struct {
	From      string  `json:"from"`
	To        string  `json:"to"`
	In        int     `json:"passed"`
	Lost      int     `json:"lost"`
	Share     float64 `json:"share"`
	Before    float64 `json:"before"`
	SinceIn   int     `json:"since_in"`
	SinceLost int     `json:"since_lost"`
	Absent    int     `json:"absent"`
	Open      int     `json:"open"`
	Cliff     int     `json:"cliff"`
	BigIn     int     `json:"big_in"`
	BigLost   int     `json:"big_lost"`
	BigLoss   float64 `json:"big_loss"`
	SmallIn   int     `json:"small_in"`
	SmallLost int     `json:"small_lost"`
	SmallLoss float64 `json:"small_loss"`
	PValue    float64 `json:"p_value"`
	Chance    float64 `json:"chance"`
	Missed    float64 `json:"missed"`
	Resets    int     `json:"resets"`
	Foreign   int     `json:"foreign"`
	AllResets int     `json:"all_resets"`
	Rejected  int     `json:"rejected"`
	ByMiss    float64 `json:"by_miss"`
	Timed     int     `json:"timed"`
	Median    float64 `json:"delay"`
	P99       float64 `json:"delay_p99"`
	Bound     float64 `json:"delay_bound"`
	Rose      float64 `json:"rose"`
	Usual     float64 `json:"delay_before"`
	Since     float64 `json:"delay_since"`
	Doubled   int     `json:"doubled"`
	Overtaken int     `json:"overtaken"`
	OddIn     int     `json:"odd_in"`
	Needless  int     `json:"needless"`
	Copies    int     `json:"copies"`
	Peers     int     `json:"peers"`
	PeersHit  int     `json:"peers_hit"`
	Lasting   float64 `json:"rose_for"`
	Part      string  `json:"part"`
	PartIn    int     `json:"part_in"`
	PartLost  int     `json:"part_lost"`
	PartHost  string  `json:"part_host"`
	PartPeer  string  `json:"part_peer"`
	Forgotten int     `json:"forgotten"`
	ForLost   int     `json:"forgotten_lost"`
	Idle      float64 `json:"idle"`
	CloseLoss float64 `json:"close_loss"`
	ApartLoss float64 `json:"apart_loss"`
	Spaced    float64 `json:"spaced"`
	Gap       float64 `json:"gap"`
	GapValue  float64 `json:"gap_p_value"`
	Pairs     string  `json:"pairs"`
	Segments  int     `json:"segments"`
	Apart     int     `json:"apart"`
}

// segments judges what the comparison of several capture points found, at the end of the run.
type segments struct{ rule string }

func newSegments(rule string) analyze.Detector { return segments{rule} }

func (d segments) Spec() analyze.Spec { return analyze.Spec{Rule: d.rule, Features: Segment{}} }

// Event is never called: one point does not show where something was lost.
func (d segments) Event(*flow.Event) {}

// Compares says that this looks at several points.
func (d segments) Compares() {}

func (d segments) Judge(w *analyze.Window, emit func(analyze.Symptom)) {
	if w.Points == nil || !w.Final {
		return
	}
	for _, e := range w.Points.Edges {
		f := SegmentOf(w.Points, e)
		onset, end, note := d.what(e, &f)
		if onset == 0 || d.narrower(w.Points, e, &f) {
			continue
		}
		// The points' times are those of the first one, and hosts may have other addresses there: findings bear those of the point that is looked at
		// closer.
		look := w.Points.Closer(e.From)
		subject := func(p *points.Pair) analyze.Subject {
			src, dst := p.At(look.Point)
			return analyze.Subject{Kind: analyze.SubjectSegment, Host: dst.String(), Peer: src.String(), Direction: "inbound", Segment: f.From + " → " + f.To}
		}
		f.Pairs = d.pairs(e, look.Point)
		onset -= look.Lead
		s := analyze.Symptom{Subject: subject(&e.Worst), Onset: onset, Features: f, Evidence: []analyze.Evidence{{At: onset, Note: note}}}
		if end != 0 {
			s.Until = end - look.Lead
		}
		emit(s)
	}
}

// pairs are those of hosts that what a rule looks for was met by: of a delay, all whose packets pass.
func (d segments) pairs(e *points.Edge, pt int) string {
	var all strings.Builder
	for i := range e.Pairs {
		p := &e.Pairs[i]
		n := p.Lost + p.Absent
		switch d.rule {
		case "segment-reset":
			n = p.Resets
		case "segment-delay", "segment-disorder":
			n = p.In
		}
		if n > 0 {
			src, dst := p.At(pt)
			fmt.Fprintf(&all, " %s>%s", src, dst)
		}
	}
	if all.Len() > 0 {
		all.WriteByte(' ')
	}
	return all.String()
}

// what tells since when something was, until when if it ended, and what.
func (d segments) what(e *points.Edge, f *Segment) (onset, end capture.Instant, note string) {
	switch d.rule {
	case "segment-reset":
		return e.ResetAt, 0, fmt.Sprintf("%d resets seen at %s that %s has not seen", f.Resets, f.To, f.From)
	case "segment-delay":
		return e.Delays.RoseAt, e.Delays.FellAt, fmt.Sprintf("%.1f ms from %s to %s, %.1f ms before", 1e3*f.Since, f.From, f.To, 1e3*f.Usual)
	case "segment-disorder":
		return e.OddAt, 0, fmt.Sprintf("%d packets doubled and %d overtaken between %s and %s", f.Doubled, f.Overtaken, f.From, f.To)
	}
	least := 0
	if d.rule == "segment-size-loss" {
		least = f.Cliff / points.BinBytes
	}
	c := e.Change(least, f.Lost > int(e.Lost.All()))
	return c.At, c.End, fmt.Sprintf("%d of %d segments from %s did not reach %s", f.Lost, f.In, f.From, f.To)
}

func (d segments) Assess(w *analyze.Window) analyze.Assessment {
	if w.Points == nil {
		return analyze.Assessment{Features: Segment{}}
	}
	var worst Segment
	for _, e := range w.Points.Edges {
		f := SegmentOf(w.Points, e)
		if worst.From == "" || d.bad(&f) > d.bad(&worst) {
			n, all := worst.Segments, worst.AllResets
			worst = f
			worst.Segments, worst.AllResets = n, all+f.AllResets
		}
		worst.Segments++
	}
	worst.Apart = w.Points.Blind()
	return analyze.Assessment{Assessable: worst.Segments > 0, Features: worst}
}

// bad orders segments by how little good can be said of them: much went wrong, or few were seen.
func (d segments) bad(f *Segment) float64 {
	switch d.rule {
	case "segment-reset":
		return float64(f.Resets+1) / float64(f.In+1)
	case "segment-delay":
		if f.Timed == 0 {
			return math.Inf(1)
		}
		return f.P99 + f.Bound
	case "segment-disorder":
		return float64(f.Doubled+f.Overtaken+f.Copies+1) / float64(f.In+1)
	}
	return max(float64(f.Lost+f.Absent+1)/float64(f.In+1), stat.Ratio(f.PartLost, f.PartIn))
}

// SegmentOf sums up what happened between two points.
func SegmentOf(r *points.Report, e *points.Edge) Segment {
	f := Segment{From: r.Points[e.From].Name, To: r.Points[e.To].Name, In: int(e.In.All()), Lost: int(e.Lost.All()), Absent: int(e.Absent.All()),
		Resets: int(e.Resets), Foreign: int(e.Foreign), Rejected: rejected(r, e), Peers: e.Peers, PeersHit: e.PeersHit}
	f.Doubled, f.Overtaken, f.Needless, f.Copies = int(e.Doubled), int(e.Reordered), int(e.Needless), int(e.Copies)
	if t := &e.Delays; t.Known {
		f.Timed, f.Median, f.P99, f.Bound, f.Usual, f.Since = t.N(), t.Median, t.P99, t.Bound, t.MedianBefore, t.MedianSince
		f.Rose, f.Lasting = f.Since-f.Usual, t.RoseFor.Seconds()
	}
	f.OddIn = int(e.OddIn)
	dir := e.Way
	to := &r.At[e.To]
	f.Missed = to.MissedOf(dir)
	lost := e.Lost
	complete := to.Missed == 0
	if complete {
		// Where the capture missed nothing that can be told, what is absent is lost.
		f.Lost, f.Absent = f.Lost+f.Absent, 0
		for i, n := range e.Absent {
			lost[i] += n
		}
	}
	f.Forgotten, f.ForLost, f.Idle = int(e.Forgotten), int(e.ForgottenLost), e.Idle.Seconds()
	open := e.Absent
	if complete {
		open = points.Sizes{}
	}
	f.Open = unexplained(&open, &e.Bare, to.MissShare(), points.Bins) + int(e.Beyond)
	change := e.Change(0, complete)
	f.Share, f.Before = change.Since.Rate(), change.Before.Rate()
	// What reached To, was missed there and sent again for another reason looks as if it had been lost before.
	f.Chance = stat.AtLeast(f.Lost, f.Lost+int(e.Again), min(to.MissShare(), 1))
	if e.Again == 0 && f.Lost > 0 {
		f.Chance = 0
	}
	for i := range r.At {
		f.AllResets += int(r.At[i].Resets)
	}
	f.ByMiss = stat.AtLeast(f.Resets, f.Resets+int(r.At[e.From].Resets)+f.AllResets, r.At[e.From].MissShare())
	f.part(r, e, complete)
	f.split(&e.In, &lost, func(cut int) int { return unexplained(&open, &e.Bare, to.MissShare(), cut) })
	f.spaced(e)
	if f.Cliff > 0 && change.Since.Lost > 0 {
		if big := e.Change(f.Cliff/points.BinBytes, complete); big.Since.Lost > 0 {
			f.SinceIn, f.SinceLost = int(big.Since.In), int(big.Since.Lost)
			f.BigLoss, f.SmallLoss = big.Since.Rate(), max(big.Smaller.Rate(), big.SmallerAbsent.Rate()-to.MissShare())
		}
	}
	return f
}

// spaced finds the time after the last that passed from which on less of the large packets is lost: that of the best likelihood.
func (f *Segment) spaced(e *points.Edge) {
	f.GapValue = 1
	best := math.Inf(-1)
	for g := 1; g < points.Gaps; g++ {
		near, far := e.Spaced(f.Cliff/points.BinBytes, g)
		if near.In == 0 || far.In == 0 {
			continue
		}
		if l := stat.LogLik(uint32(near.Lost), uint32(near.In)) + stat.LogLik(uint32(far.Lost), uint32(far.In)); l > best {
			best = l
			f.CloseLoss, f.ApartLoss, f.Gap = near.Rate(), far.Rate(), math.Ldexp(1e-6, g-1)
			f.Spaced = f.CloseLoss / max(f.ApartLoss, 1/float64(far.In))
			f.GapValue = stat.Fisher(uint32(near.Lost), uint32(near.In), uint32(far.Lost), uint32(far.In))
		}
	}
}

// unexplained is how many of the packets below a size that are absent are more than the capture misses: of those that nobody acknowledges, as many
// as of the others.
func unexplained(absent, bare *points.Sizes, missed float64, below int) int {
	return max(0, int(absent.Sum(0, below))-int(math.Ceil(float64(bare.Sum(0, below))*missed)))
}

// part finds what loses more than the rest by more than chance: connection requests and the answers to them, datagrams, or a pair of hosts.
func (f *Segment) part(r *points.Report, e *points.Edge, complete bool) {
	least := maxPartChance / float64(e.Peers+2) // so many were looked at
	look := func(name string, k points.Kind) {
		in, lost := int(k.In), int(k.Lost)
		if complete {
			lost += int(k.Absent)
		}
		if lost == 0 || lost*max(1, f.PartIn) <= f.PartLost*in || stat.Fisher(uint32(lost), uint32(in), uint32(max(0, f.Lost-lost)), uint32(max(0, f.In-in))) > least {
			return
		}
		f.Part, f.PartIn, f.PartLost = name, in, lost
	}
	if f.Share >= cut {
		return // nothing passed, whatever it was
	}
	look("udp", e.Datagrams)
	look("syn", e.Opening)
	if look("pair", points.Kind{In: e.Hit.In, Lost: e.Hit.Lost, Absent: e.Hit.Absent}); f.Part == "pair" {
		src, dst := e.Hit.At(r.Closer(e.From).Point)
		f.PartHost, f.PartPeer = dst.String(), src.String()
	}
}

// cut: a loss of nearly all, as cut_loss of segment-loss.
const cut = 0.9

// maxPartChance is the chance that one of the parts of a segment loses so much more than the rest: one false alarm in 1,000 segments.
const maxPartChance = 0.001

// narrower reports whether a segment inside of e, in the same direction, shows at least as much of the same: then that one is named.
func (d segments) narrower(r *points.Report, e *points.Edge, f *Segment) bool {
	n, rate := d.much(f)
	for _, o := range r.Edges {
		inside := o.From >= e.From && o.To <= e.To
		if e.From > e.To {
			inside = o.From <= e.From && o.To >= e.To
		}
		if o == e || !inside || (o.From < o.To) != (e.From < e.To) {
			continue
		}
		g := SegmentOf(r, o)
		if k, at := d.much(&g); k >= n && 2*at >= rate {
			return true
		}
	}
	return false
}

// much is how often a rule's fault was met on a segment, and on which share of the packets; of delay, by how much it rose.
func (d segments) much(f *Segment) (n int, rate float64) {
	switch d.rule {
	case "segment-reset":
		return f.Resets, 0
	case "segment-delay":
		return f.Timed, f.Rose
	case "segment-disorder":
		return f.Doubled + f.Overtaken, 0
	}
	return f.Lost, stat.Ratio(f.Lost, f.In)
}

// rejected is how many packets the resets of a segment refused: they came the other way.
func rejected(r *points.Report, e *points.Edge) int {
	for _, o := range r.Edges {
		if o.From == e.To && o.To == e.From {
			return int(o.Rejected)
		}
	}
	return 0
}

// split finds the size from which on more is lost: that of the best likelihood, of several the largest. Of the smaller ones those count as lost, too,
// that are absent, as open tells: most of them bear no data, and nobody sends them again.
func (f *Segment) split(in, lost *points.Sizes, open func(cut int) int) {
	f.PValue = 1
	best := math.Inf(-1)
	for cut := 1; cut < points.Bins; cut++ {
		bi, bl := uint32(in.Sum(cut, points.Bins)), uint32(lost.Sum(cut, points.Bins))
		si, known := uint32(in.Sum(0, cut)), uint32(lost.Sum(0, cut))
		sl := min(si, known+uint32(open(cut)))
		if bl == 0 || si == 0 {
			continue
		}
		if l := stat.LogLik(bl, bi) + stat.LogLik(sl, si); l >= best {
			best = l
			f.Cliff, f.PValue = cut*points.BinBytes, stat.Fisher(bl, bi, sl, si)
			f.BigIn, f.BigLost, f.SmallIn, f.SmallLost = int(bi), int(bl), int(si), int(known)
			f.BigLoss, f.SmallLoss = stat.Ratio(f.BigLost, f.BigIn), stat.Ratio(int(sl), f.SmallIn)
		}
	}
}
