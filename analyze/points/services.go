package points

import (
	"slices"

	"jindan/capture"
)

// service is what connections are opened to.
type service struct {
	end   capture.Endpoint
	proto uint8
}

// asked is how a service fared at each point, to tell whether what does not reach a point would have passed it.
type asked struct {
	answered, seen [MaxPoints]uint32 // answered connections in the time of a point, and those that it saw
	way            [MaxPoints]uint8  // of one that many points saw
	wayLen         uint8
	vain           map[vainKey]*vain // those in vain
}

// vainKey tells requests in vain apart by the points that saw them, and by whether a reset was the answer.
type vainKey struct {
	pts     uint8
	refused bool
}

type vain struct {
	requests    uint64
	first, last capture.Instant
	times       []capture.Instant // of the first maxVain
	size        int
	conv        *conv // the first of them
}

const (
	maxServices = 4096
	// maxVain is how many requests in vain of a service are told by their time.
	maxVain = 1024
	// fewAnswered: so many answered connections must all have passed a point before others to the same service are missed there.
	fewAnswered = 3
)

// unheard counts as lost, or as refused, the requests of connections that a point saw nothing of, though all that were answered passed it.
func (a *Analysis) unheard() {
	for s, k := range a.services {
		if s == (service{}) {
			continue
		}
		for key, v := range k.vain {
			way := slices.DeleteFunc(slices.Clone(k.way[:k.wayLen]), func(p uint8) bool { return a.report.Points[p].Lacks&1 != 0 })
			last := -1
			for i, p := range way {
				if key.pts>>p&1 != 0 {
					last = i
				}
			}
			if last < 0 || last == len(way)-1 {
				continue
			}
			n := way[last+1]
			if k.answered[n] < fewAnswered || k.seen[n] < k.answered[n] {
				continue
			}
			if !a.covers(int(n), v.first) || !a.covers(int(n), v.last) {
				if e := a.edges[way[last]][n]; e != nil {
					e.Beyond += v.requests
				}
				continue
			}
			a.vain(way[last], n, v, key.refused)
		}
	}
}

// vain counts requests that got as far as one point and not to the next.
func (a *Analysis) vain(from, to uint8, v *vain, refused bool) {
	e := a.edge(from, to)
	e.In[bin(uint32(v.size))] += v.requests
	p, kind := a.pair(e, v.conv, 0), &e.Opening
	if v.conv.proto == capture.ProtoUDP {
		kind = &e.Datagrams
	}
	p.In += v.requests
	kind.In += v.requests
	if refused {
		e.Rejected += v.requests
		back := a.edge(to, from)
		back.resets(v.first, v.requests)
		a.pair(back, v.conv, 1).Resets += v.requests
		a.report.At[from].Resets -= min(a.report.At[from].Resets, v.requests) // which seemed to come from the end
		return
	}
	e.Requests += v.requests
	e.Lost[bin(uint32(v.size))] += v.requests
	p.Lost += v.requests
	kind.Lost += v.requests
	if e.First == 0 || v.first < e.First {
		e.First = v.first
	}
	for _, at := range v.times {
		e.series.add(at, bin(uint32(v.size)), counts{lost: 1, in: 1})
	}
}
