package points

import (
	"slices"

	"jindan/capture"
)

// Look is a capture that is looked at closer.
type Look struct {
	Point    int
	From, To int // its leg: these points and those between
	// Lead is how much later the aligned times of the leg are than those of the last of the Looks.
	Lead capture.Instant
}

// look chooses what is looked at closer: the point nearest to the services that shows nearly all connections. Where a proxy lies before it, what the
// leg before shows belongs to it: the two captures nearest to the proxy are what a capture on it would show.
func (r *Report) look() {
	n := len(r.Points)
	main := r.most(0, n-1, true)
	first, last := main, main
	for first > 0 && r.proxy(first-1) == nil {
		first--
	}
	for last < n-1 && r.proxy(last) == nil {
		last++
	}
	legs := []Look{{main, first, last, 0}}
	for p := first - 1; p >= 0; {
		to := p
		for p > 0 && r.proxy(p-1) == nil {
			p--
		}
		legs = slices.Insert(legs, 0, Look{Point: r.most(p, to, true), From: p, To: to})
		p--
	}
	for p := last + 1; p < n; {
		from := p
		for p < n-1 && r.proxy(p) == nil {
			p++
		}
		legs = append(legs, Look{Point: r.most(from, p, true), From: from, To: p})
		p++
	}
	if k := len(legs) - 1; k > 0 {
		legs[k].Point = r.most(legs[k].From, legs[k].To, false)
	}
	shift := func(l *Look) capture.Instant { return capture.Instant(r.Points[l.Point].Shift) }
	for k := len(legs) - 1; k >= 0; k-- {
		l := &legs[k]
		if l.Lead = shift(l); k == len(legs)-1 {
			continue
		}
		next := &legs[k+1]
		// Times by the clocks of the two captures, as they stand. A proxy that is not overloaded asks at once: what is more than that, or less
		// than nothing, is the clocks.
		ahead := capture.Instant(seconds(r.proxy(l.To).Delay)) + shift(l) - shift(next)
		if ahead >= 0 && ahead < capture.Instant(borderWidth) {
			ahead = 0
		}
		l.Lead += next.Lead - shift(next) - ahead
	}
	r.Looks = legs
}

// fewJoined: so many connections on both sides of a proxy are no accident, whatever its addresses.
const fewJoined = 10

// proxy is the one between a point and the next, if that is beyond doubt.
func (r *Report) proxy(p int) *Border {
	i := slices.IndexFunc(r.Borders, func(b Border) bool { return b.From == p && (b.Joined >= fewJoined || b.OneAddress) })
	if i < 0 {
		return nil
	}
	return &r.Borders[i]
}

// most is the last, or first, of some points that shows nearly as many connections as any of them.
func (r *Report) most(from, to int, last bool) (point int) {
	most := uint64(0)
	for p := from; p <= to; p++ {
		most = max(most, r.At[p].Conns)
	}
	point = -1
	for p := from; p <= to; p++ {
		if r.At[p].Conns*10 >= most*9 && (last || point < 0) {
			point = p
		}
	}
	return point
}

// Closer is what is looked at closer of the leg of a point.
func (r *Report) Closer(pt int) *Look {
	for i := range r.Looks {
		if l := &r.Looks[i]; pt >= l.From && pt <= l.To {
			return l
		}
	}
	return &r.Looks[len(r.Looks)-1]
}

// By is added to times of a capture that is looked at closer to make them those of the last one.
func (r *Report) By(l *Look) capture.Instant {
	return capture.Instant(r.Points[l.Point].Shift) - l.Lead
}

// Proxies are the addresses of the proxies between what is looked at closer.
func (r *Report) Proxies() (all []capture.Addr) {
	for _, l := range r.Looks[:len(r.Looks)-1] {
		all = append(all, r.proxy(l.To).Addrs...)
	}
	return all
}
