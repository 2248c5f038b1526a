package measure

import (
	"math"
	"time"

	"jindan/analyze"
	"jindan/capture"
)

// goodput is how much gets through on a way: bytes acknowledged per second.
type goodput struct {
	Windows      int     // whole ones since the onset
	Rate, Before float64 // mean since the onset, and before it; before is 0 where that was not seen
	Spread       float64 // standard deviation of the windows, as a share of their mean
}

// goodput measures what has got through since onset, or since before that where each second lost something already, and before.
func (st *wayState) goodput(w *analyze.Window, onset capture.Instant) (g goodput) {
	n, now := st.n, w.End
	if w.Final { // the last is not whole
		n, now = n-1, w.Start
	}
	span := min(int(now.Sub(onset)/analyze.WindowLength), n-1) // nor is the first
	for span < n-1 && st.points[n-span-1].Bad > 0 && st.points[n-span-2].Bad > 0 {
		span++
	}
	if span < 1 {
		return g
	}
	var sum, squares float64
	for _, b := range st.acked[n-span : n] {
		sum += float64(b)
		squares += float64(b) * float64(b)
	}
	g.Windows, g.Rate = span, sum/float64(span)
	if g.Rate == 0 {
		return g
	}
	g.Spread = math.Sqrt(max(squares/float64(span)-g.Rate*g.Rate, 0)) / g.Rate
	past := now.Add(-time.Duration(span+1) * analyze.WindowLength).Sub(st.began)
	if past >= minPast {
		before := float64(st.All.acked) - sum
		for _, b := range st.acked[n:st.n] {
			before -= float64(b)
		}
		g.Before = max(before-float64(st.acked[n-span-1]), 0) / past.Seconds()
	}
	return g
}

// minPast is how long a way must have been seen before it lost something to say what gets through as a rule.
const minPast = 3 * time.Second

// Goodput is that of k, or of what k is part of, if that is steadier: what limits the rate may be shared.
func (ws *Ways) Goodput(w *analyze.Window, k Way, onset capture.Instant) (best goodput) {
	for _, wide := range k.widen() {
		st := ws.states[wide.Scope].Peek(wide)
		if st == nil {
			continue
		}
		if g := st.goodput(w, onset); best.Windows == 0 || g.Windows >= best.Windows && g.Spread < best.Spread {
			best = g
		}
	}
	return best
}
