package points

import (
	"cmp"
	"slices"
	"time"

	"jindan/capture"
)

// Border is a pair of neighbours between which connections end and others begin: a proxy. They are joined by time and volume, or those who ask behind
// it are those who are asked before it.
type Border struct {
	From, To        int
	Front, Back     int // connections on either side
	Joined          int
	Delay, DelayP99 float64        // s, from the opening of one to that of the other, by their own clocks
	OneAddress      bool           // it is asked at the address from which it asks
	Addrs           []capture.Addr // of the proxy
}

// leg is one connection, for borders.
type leg struct {
	pts   uint8
	ends  [2]capture.Endpoint
	first capture.Instant
	bytes [2]uint64
}

// maxLegs bounds the connections that are remembered for borders.
const maxLegs = 1 << 16

func appendLeg(legs []leg, c *conv) []leg {
	if c.proto != capture.ProtoTCP || !c.began || c.bytes == [2]uint64{} || len(legs) >= maxLegs {
		return legs
	}
	return append(legs, leg{c.pts, c.ends, c.first, c.bytes})
}

// apart looks whether two neighbours without a packet in common are the sides of a proxy.
func (a *Analysis) apart(p, q int) {
	var front, back []leg
	for _, l := range a.legs {
		switch {
		case l.pts>>p&1 != 0 && l.pts>>q&1 == 0:
			front = append(front, l)
		case l.pts>>q&1 != 0 && l.pts>>p&1 == 0:
			back = append(back, l)
		}
	}
	byTime := func(x, y leg) int { return cmp.Compare(x.first, y.first) }
	slices.SortFunc(front, byTime)
	slices.SortFunc(back, byTime)
	b := Border{From: p, To: q, Front: len(front), Back: len(back)}
	var lags []capture.Instant
	eachPair(front, back, -borderLate, borderLate, func(f, k int) bool {
		lags = append(lags, back[k].first-front[f].first)
		return len(lags) < maxPairsOfLegs
	})
	slices.Sort(lags)
	from, most := densest(lags)
	if most >= fewAnswered {
		// A proxy opens its connections the same time after those that it is asked by. By chance as many would begin another time after them.
		least := lags[from]
		before, _ := slices.BinarySearch(lags, least-capture.Instant(borderWidth))
		behind, _ := slices.BinarySearch(lags, least+2*capture.Instant(borderWidth))
		_, second := densest(lags[:before])
		_, third := densest(lags[behind:])
		if most > 2*max(second, third) {
			b.join(front, back, time.Duration(least), time.Duration(least)+borderWidth)
		}
	}
	b.address(front, back)
	if b.Joined*2 > min(b.Front, b.Back) || b.OneAddress {
		a.report.Borders = append(a.report.Borders, b)
	} else {
		a.report.Apart = append(a.report.Apart, [2]int{p, q})
	}
}

// address looks whether most connections behind are opened by whom those before are opened to, at about the same time. A proxy that keeps connections
// open, or lets several requests share one, is known by that alone.
func (b *Border) address(front, back []leg) {
	asked := make(map[capture.Addr]bool)
	for _, l := range front {
		asked[l.ends[1].Addr] = true
	}
	from := make(map[capture.Addr]bool)
	n := 0
	for _, l := range back {
		if a := l.ends[0].Addr; asked[a] {
			from[a] = true
			n++
		}
	}
	if n == 0 || 2*n <= len(back) || back[0].first > front[len(front)-1].first.Add(borderLate) || front[0].first > back[len(back)-1].first.Add(borderLate) {
		return
	}
	b.OneAddress = true
	for a := range from {
		b.addr(a)
	}
	slices.SortFunc(b.Addrs, capture.Addr.Compare)
}

// maxProxyAddrs bounds the addresses of a proxy that are remembered.
const maxProxyAddrs = 64

func (b *Border) addr(a capture.Addr) {
	if !slices.Contains(b.Addrs, a) && len(b.Addrs) < maxProxyAddrs {
		b.Addrs = append(b.Addrs, a)
	}
}

// densest is where most of the sorted lags are within borderWidth, and how many.
func densest(lags []capture.Instant) (from, most int) {
	for i, n := 0, 0; i < len(lags); i++ {
		for n < len(lags) && lags[n] <= lags[i]+capture.Instant(borderWidth) {
			n++
		}
		if n-i > most {
			from, most = i, n-i
		}
	}
	return from, most
}

// join joins each connection to one that began so much later.
func (b *Border) join(front, back []leg, least, most time.Duration) {
	joined, taken := make([]bool, len(front)), make([]bool, len(back))
	var delays Times
	eachPair(front, back, least, most, func(f, k int) bool {
		if !joined[f] && !taken[k] {
			joined[f], taken[k] = true, true
			b.Joined++
			b.addr(front[f].ends[1].Addr)
			b.addr(back[k].ends[0].Addr)
			delays.add(front[f].first, back[k].first.Sub(front[f].first).Seconds())
		}
		return true
	})
	b.Delay, b.DelayP99 = delays.Quantile(0.5), delays.Quantile(0.99)
}

// eachPair calls do for connections of two points, in the order of time, that may be the two sides of one that a proxy passes on: the second
// one begins so much later, and bears about as much. It ends where do says so.
func eachPair(front, back []leg, least, most time.Duration, do func(f, k int) bool) {
	begin := 0
	for i, f := range front {
		for begin < len(back) && back[begin].first < f.first.Add(least) {
			begin++
		}
		for k := begin; k < len(back) && back[k].first <= f.first.Add(most); k++ {
			if b := &back[k]; (b.ends[0].Addr != f.ends[0].Addr || b.ends[1] != f.ends[1]) && alike(b.bytes[0], f.bytes[0]) && alike(b.bytes[1], f.bytes[1]) &&
				!do(i, k) {
				return
			}
		}
	}
}

// alike: a proxy adds headers and ends TLS, whose handshake with certificates takes some kilobytes.
func alike(x, y uint64) bool {
	x, y = min(x, y), max(x, y)
	return y-x <= 8<<10+x/8
}

const (
	// borderLate is for clocks of the two sides that are not known to each other but set, and for a proxy that asks late.
	borderLate = 5 * time.Second
	// borderWidth is how much the time varies after which a proxy that is not overloaded opens its own connection.
	borderWidth = 10 * time.Millisecond
	// maxPairsOfLegs bounds the pairs of connections that are looked at.
	maxPairsOfLegs = 1 << 20
)
