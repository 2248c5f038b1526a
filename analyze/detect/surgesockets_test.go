package detect

import (
	"testing"
	"time"

	"jindan/capture"
)

// hostSecond is what a host's counters gain in a second, and its sockets at the end of it.
type hostSecond struct {
	accepted, dropped, cookies uint64
	sockets                    []capture.Socket
}

// hostSeconds makes the samples of a minute: counters every second, and a dump of all sockets every third.
func hostSeconds(of func(i int) hostSecond) func(*network) { return hostMinutes(1, of) }

func hostMinutes(minutes int, of func(i int) hostSecond) func(*network) {
	return hostLate(minutes, nil, of)
}

// hostLate is hostMinutes on a host so busy that the samples of some seconds come late, by that part of a second.
func hostLate(minutes int, late map[int]float64, of func(i int) hostSecond) func(*network) {
	return func(n *network) {
		var accepted, dropped, cookies uint64 = 5000, 70, 3 // since the boot
		every(0, time.Duration(minutes)*60*sec, sec, func(at time.Duration, i int) {
			s := of(i)
			accepted, dropped, cookies = accepted+s.accepted, dropped+s.dropped, cookies+s.cookies
			part := late[i]
			at += time.Duration(part * float64(sec))
			next := of(i + 1)
			share := func(n uint64) uint64 { return uint64(part * float64(n)) }
			n.counters(at, func(h *capture.HostSample) {
				h.Addrs = []capture.Addr{addr("10.0.0.1")}
				h.Set(capture.PassiveOpens, accepted+share(next.accepted))
				h.Set(capture.ListenDrops, dropped+share(next.dropped))
				h.Set(capture.SyncookiesSent, cookies+share(next.cookies))
			})
			if i%3 == 2 || part > 0 {
				n.sockets(at+5*ms, capture.AllStates, append(s.sockets, listener("0.0.0.0:8080", 0, 64))...)
			}
		})
	}
}

// peers are k sockets of a listener with each of the clients.
func peers(state capture.SocketState, k, left int, clients ...string) (out []capture.Socket) {
	for _, c := range clients {
		for i := range k {
			out = append(out, capture.Socket{State: state, Local: host("10.0.0.1:8080"), Remote: host(c + ":" + itoa(30000+i)), TimerLeft: uint32(left)})
		}
	}
	return out
}

func TestSurgeSockets(t *testing.T) {
	users := make([]string, 20)
	for i := range users {
		users[i] = "203.0.113." + itoa(1+i)
	}
	const flooder = "192.0.2.66"
	// usual is 20 connections a second; the server closes first, so that a second leaves one of each user in TIME_WAIT.
	usual := func(i int) hostSecond {
		s := hostSecond{accepted: 20}
		for age := range min(i, 59) {
			s.sockets = append(s.sockets, peers(capture.TimeWait, 1, 60000-1000*age, users...)...)
		}
		return s
	}
	from := func(first int, then func(i int, s *hostSecond)) func(int) hostSecond {
		return func(i int) hostSecond {
			s := usual(i)
			if i >= first {
				then(i-first, &s)
			}
			return s
		}
	}
	since := func(first int, then func(i int, s *hostSecond)) func(*network) { return hostSeconds(from(first, then)) }
	queueFull := func(i int, s *hostSecond) {
		s.accepted = 0
		if i%4 == 0 {
			s.accepted = 81
		}
		s.dropped = uint64(320*min(i+1, 4) - 81) // three repetitions before it gives up
		s.sockets = append(s.sockets, peers(capture.Established, 78, 0, flooder)...)
		s.sockets = append(s.sockets, peers(capture.SynRecv, 1, 0, users[:3]...)...)
	}
	check := func(rate, before float64) func(*testing.T, any) {
		return func(t *testing.T, features any) {
			if f := features.(Surge); !f.Sampled || f.Class != classSingle || f.Share < 0.75 || f.Rate < rate*0.8 || f.Rate > rate*1.1 || f.RateBefore != before || f.ShareBefore != 0 {
				t.Errorf("%+v", f)
			}
		}
	}
	play(t, newSurge, []scene{
		{name: "the queue is full, and who is turned away asks again every second", want: "error source 10.0.0.1 192.0.2.66 8080", onset: 30 * sec,
			check: check(300, 20), make: since(31, queueFull)},
		{name: "the same, on a host too busy to look in time", want: "error source 10.0.0.1 192.0.2.66 8080", onset: 30*sec + 291*ms,
			check: check(400, 20), make: hostLate(1, map[int]float64{32: 0.7, 34: 0.8}, from(31, queueFull))},
		{name: "the server keeps up: one source, closed by the server", want: "warn source 10.0.0.1 192.0.2.66 8080", onset: 30 * sec,
			check: check(300, 20), make: since(31, func(i int, s *hostSecond) {
				s.accepted = 320
				s.sockets = append(s.sockets, peers(capture.TimeWait, 300, 59500, flooder)...)
			})},
		{name: "handshakes that are never completed", want: "warn source 10.0.0.1 192.0.2.66 8080", onset: 30 * sec,
			check: check(300, 20), make: since(31, func(i int, s *hostSecond) {
				s.accepted, s.cookies = 20, 320
				s.sockets = append(s.sockets, peers(capture.SynRecv, 64, 0, flooder)...)
			})},
		{name: "in the third minute of a greater demand", want: "warn source 10.0.0.1 192.0.2.66 8080", onset: 199 * sec,
			check: check(900, 80), make: hostMinutes(4, func(i int) hostSecond {
				s := usual(min(i, 30))
				if i >= 31 {
					s.accepted = 80
				}
				if i >= 200 {
					s.accepted = 980
					s.sockets = append(s.sockets, peers(capture.Established, 900, 0, flooder)...)
				}
				return s
			})},
		{name: "packets tell more", make: func(n *network) {
			since(31, func(i int, s *hostSecond) {
				s.accepted = 320
				s.sockets = append(s.sockets, peers(capture.Established, 78, 0, flooder)...)
			})(n)
			every(0, 60*sec, sec, func(at time.Duration, _ int) { n.call(at, "203.0.113.1", "10.0.0.1:8080", 5*ms) })
		}},

		{name: "a restart: everybody's connections go and come back", make: hostSeconds(func(i int) hostSecond {
			s := hostSecond{accepted: 1, sockets: peers(capture.Established, 25, 0, users...)} // 500
			if i >= 31 && i < 35 {
				s.accepted, s.sockets = 125, peers(capture.Established, 6*(i-30), 0, users...)
			}
			return s
		})},
		{name: "a restart behind a proxy", make: hostSeconds(func(i int) hostSecond {
			s := hostSecond{accepted: 1, sockets: peers(capture.Established, 500, 0, flooder)}
			if i >= 31 && i < 35 {
				s.accepted, s.sockets = 125, peers(capture.Established, 125*(i-30), 0, flooder)
			}
			return s
		})},
		{name: "a pool opens 50 connections at once", make: since(31, func(i int, s *hostSecond) {
			if i == 0 {
				s.accepted += 50
			}
			s.sockets = append(s.sockets, peers(capture.Established, 50, 0, flooder)...)
		})},
		{name: "demand grows", make: since(31, func(i int, s *hostSecond) {
			s.accepted = 100
			s.sockets = append(s.sockets, peers(capture.Established, 5, 0, users...)...)
		})},
		{name: "a proxy through which everybody comes, and demand grows", make: hostSeconds(func(i int) hostSecond {
			s := hostSecond{accepted: 20, sockets: peers(capture.Established, 4, 0, flooder)}
			if i >= 31 {
				s.accepted, s.sockets = 300, peers(capture.Established, 60, 0, flooder)
			}
			return s
		})},
		{name: "workers hang, and nobody comes more often", make: since(31, func(i int, s *hostSecond) {
			s.accepted = 20
			if i > 3 {
				s.accepted, s.dropped = 0, 80 // each four times
			}
			s.sockets = append(s.sockets, peers(capture.Established, 4, 0, users...)...)
		})},
		{name: "workers hang, and the only client, whose calls no dump had shown, tries three times as often", make: hostSeconds(func(i int) hostSecond {
			s := hostSecond{accepted: 20}
			if i >= 31 {
				s.accepted, s.sockets = 0, peers(capture.Established, 80, 0, flooder)
				s.dropped = uint64(60 * min(i-30, 4))
			}
			return s
		})},
		{name: "demand grows, users close first, and somebody opens a pool", make: since(31, func(i int, s *hostSecond) {
			s.accepted = 400
			s.sockets = append(s.sockets, peers(capture.Established, 50, 0, flooder)...)
		})},
		{name: "this host calls itself", make: since(31, func(i int, s *hostSecond) {
			s.accepted = 320
			s.sockets = append(s.sockets, peers(capture.Established, 78, 0, "10.0.0.1")...)
		})},
		{name: "a kernel whose drops are not known", make: func(n *network) {
			since(31, func(i int, s *hostSecond) {
				s.accepted = 320
				s.sockets = append(s.sockets, peers(capture.Established, 78, 0, flooder)...)
			})(n)
			for _, o := range n.obs {
				if o.Sample.Host != nil {
					o.Sample.Host.Has &^= 1 << capture.ListenDrops
				}
			}
		}},
	})
}
