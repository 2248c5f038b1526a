package detect

import (
	"testing"
	"time"

	"jindan/analyze"
	"jindan/analyze/flow"
	"jindan/capture"
)

// gateStates are those of the dump that is made every second.
var gateStates = capture.Listen.Mask() | capture.CloseWait.Mask() | capture.SynRecv.Mask() | capture.SynSent.Mask()

func (n *network) sample(at time.Duration, s capture.Sample) {
	n.obs = append(n.obs, capture.Observation{At: begin.Add(at), Kind: capture.KindSample, Sample: &s})
}

func (n *network) sockets(at time.Duration, states uint32, list ...capture.Socket) {
	n.sample(at, capture.Sample{Sockets: &capture.SocketTable{States: states, Sockets: list}})
}

func (n *network) counters(at time.Duration, set func(*capture.HostSample)) {
	h := &capture.HostSample{}
	set(h)
	n.sample(at, capture.Sample{Host: h})
}

func listener(addr string, queue, backlog uint32) capture.Socket {
	return capture.Socket{State: capture.Listen, Local: host(addr), RecvQ: queue, SendQ: backlog, Inode: 7, Cookie: 1}
}

// waits are k sockets in CLOSE_WAIT of a listener.
func waits(k int, server string, inode, recvQ uint32) (out []capture.Socket) {
	for i := range k {
		s := capture.Socket{State: capture.CloseWait, Local: host(server), Remote: host("10.0.9.9:" + itoa(30000+i)), RecvQ: recvQ, Cookie: uint64(100 + i)}
		if inode != 0 {
			s.Inode = inode + uint32(i)
		}
		out = append(out, s)
	}
	return out
}

func TestCloseWaitSockets(t *testing.T) {
	const server = "10.0.0.1:8080"
	fill := func(k int, inode, recvQ uint32) func(*network) {
		return func(n *network) {
			every(0, 60*sec, sec, func(at time.Duration, _ int) {
				list := []capture.Socket{listener("0.0.0.0:8080", 0, 64), {State: capture.SynSent, Local: host("10.0.0.1:40000"), Remote: host("10.0.3.1:1"), Cookie: 9}}
				if at >= 20*sec {
					list = append(list, waits(k, server, inode, recvQ)...)
				}
				n.sockets(at, gateStates, list...)
			})
			n.sample(45*sec, capture.Sample{Processes: &capture.ProcessSample{Processes: []capture.Process{
				{PID: 812, Name: "verifyd", Unit: "verifyd.service", Inodes: []uint32{500}}}}})
		}
	}
	class := func(want, process string) func(*testing.T, any) {
		return func(t *testing.T, f any) {
			if c := f.(CloseWait); c.Class != want || !c.Exact || c.Process != process || c.Waiting != 40 {
				t.Errorf("%+v", c)
			}
		}
	}
	play(t, newCloseWait, []scene{
		{name: "leak", make: fill(40, 500, 1), want: "warn service 10.0.0.1 8080", onset: 20 * sec, check: class(classLeak, "verifyd (pid 812) of verifyd.service")},
		{name: "unaccepted", make: fill(40, 0, 301), want: "error service 10.0.0.1 8080", onset: 20 * sec, check: class(classUnaccepted, "")},
		{name: "queued", make: fill(40, 500, 301), want: "error service 10.0.0.1 8080", onset: 20 * sec, check: class(classQueued, "verifyd (pid 812) of verifyd.service")},
		{name: "a leak, and then a fault in which nobody accepts", want: "warn service 10.0.0.1 8080", onset: 20 * sec,
			check: class(classLeak, "verifyd (pid 812) of verifyd.service"), make: func(n *network) {
				fill(40, 500, 1)(n)
				for i := range n.obs {
					if s := n.obs[i].Sample.Sockets; s != nil && n.obs[i].At >= begin.Add(40*sec) {
						starved := waits(60, server, 0, 301)
						for j := range starved {
							starved[j].Cookie, starved[j].Remote.Port = uint64(1000+j), uint16(40000+j)
						}
						s.Sockets = append(s.Sockets, starved...)
					}
				}
			}},
		{name: "whoever waited is taken up at last, and closed", want: "error service 10.0.0.1 8080", onset: 20 * sec, check: class(classUnaccepted, ""), make: func(n *network) {
			every(0, 60*sec, sec, func(at time.Duration, i int) {
				list := []capture.Socket{listener("0.0.0.0:8080", 0, 64)}
				switch {
				case at >= 20*sec && at < 40*sec:
					list = append(list, waits(40, server, 0, 301)...)
				case at >= 40*sec && i < 45:
					list = append(list, waits(40-8*(i-40), server, 500, 0)...)
				}
				n.sockets(at, gateStates, list...)
			})
		}},
		{name: "three for ever", make: fill(3, 500, 1)},
		{name: "answers that the network does not take", make: func(n *network) {
			fill(40, 500, 1)(n)
			for i := range n.obs {
				if t := n.obs[i].Sample.Sockets; t != nil {
					for j := range t.Sockets {
						if s := &t.Sockets[j]; s.State == capture.CloseWait {
							s.SendQ = 9000
						}
					}
				}
			}
		}},
		{name: "short ones", make: func(n *network) {
			every(0, 60*sec, sec, func(at time.Duration, i int) {
				list := waits(40, server, 500, 301)
				for j := range list {
					list[j].Cookie += uint64(i/4) * 1000 // gone after 4 s
				}
				n.sockets(at, gateStates, append(list, listener(server, 0, 64))...)
			})
		}},
		{name: "calls to a server", want: "warn upstream 10.0.0.1 10.0.3.1 389", onset: 5 * sec, make: func(n *network) {
			every(0, 60*sec, sec, func(at time.Duration, _ int) {
				var list []capture.Socket
				for i := 0; at >= 5*sec && i < 30; i++ {
					list = append(list, capture.Socket{State: capture.CloseWait, Local: host("10.0.0.1:" + itoa(40000+i)), Remote: host("10.0.3.1:389"), RecvQ: 1, Inode: 9, Cookie: uint64(i + 1)})
				}
				n.sockets(at, gateStates, list...)
			})
		}},
	})
}

func TestAcceptQueue(t *testing.T) {
	queue := func(length func(at time.Duration) uint32, overflows bool) func(*network) {
		return func(n *network) {
			every(0, 40*sec, sec, func(at time.Duration, i int) {
				n.sockets(at, gateStates, listener("0.0.0.0:8080", length(at), 64), capture.Socket{State: capture.SynSent, Local: host("10.0.0.1:1"), Remote: host("10.0.0.2:1")})
				n.counters(at+ms, func(h *capture.HostSample) {
					c := uint64(1000)
					if overflows && at > 12*sec {
						c += uint64(i) * 10
					}
					h.Set(capture.ListenOverflows, c)
				})
			})
		}
	}
	after := func(from time.Duration, k uint32) func(time.Duration) uint32 {
		return func(at time.Duration) uint32 {
			if at < from {
				return 0
			}
			return k
		}
	}
	play(t, newAcceptQueue, []scene{
		{name: "full", make: queue(after(10*sec, 65), true), want: "error service 10.0.0.1 8080", onset: 10 * sec, check: func(t *testing.T, f any) {
			if q := f.(AcceptQueue); q.Queue != 65 || q.Backlog != 64 || q.Overflows < 100 {
				t.Errorf("%+v", q)
			}
		}},
		{name: "full, nobody turned away", make: queue(after(10*sec, 65), false), want: "warn service 10.0.0.1 8080", onset: 10 * sec},
		{name: "one place left", make: queue(after(10*sec, 64), false)},
		{name: "a burst", make: queue(func(at time.Duration) uint32 {
			if at == 10*sec {
				return 65
			}
			return 0
		}, false)},
	})
}

func TestExhaustion(t *testing.T) {
	full := gateStates | capture.Established.Mask() | capture.TimeWait.Mask()
	ports := func(k, destinations int) func(*network) {
		return func(n *network) {
			n.counters(0, func(h *capture.HostSample) { h.PortRange = [2]uint16{33000, 33199} })
			every(sec, 30*sec, 5*sec, func(at time.Duration, _ int) {
				list := []capture.Socket{listener("10.0.0.1:33010", 0, 5)}
				for i := 0; at >= 10*sec && i < k; i++ {
					list = append(list, capture.Socket{State: capture.TimeWait, Local: host("10.0.0.1:" + itoa(33000+i%200)), Remote: host("10.0.3." + itoa(1+i%destinations) + ":80")})
				}
				n.sockets(at, full, list...)
			})
		}
	}
	// The kernel tells of drops from the sixth second on: old ones, and new ones each second.
	conntrack := func(count, old, drops uint64) func(*network) {
		return func(n *network) {
			every(0, 20*sec, sec, func(at time.Duration, i int) {
				n.sockets(at, gateStates, listener("10.0.0.1:80", 0, 5))
				n.counters(at+ms, func(h *capture.HostSample) {
					h.ConntrackMax, h.ConntrackCount = 1000, 100
					if at >= 5*sec {
						h.ConntrackCount = count
						h.Set(capture.ConntrackDrop, old+drops*uint64(i))
					}
				})
			})
		}
	}
	// A process of 64 descriptors, read every 10 s until some time; sockets and counters go on.
	files := func(until time.Duration, n int32) func(*network) {
		return func(net *network) {
			every(0, 300*sec, sec, func(at time.Duration, _ int) {
				net.sockets(at, gateStates, listener("10.0.0.1:80", 0, 5))
				net.counters(at+ms, func(h *capture.HostSample) { h.FilesMax, h.FilesOpen = 1000, 100 })
			})
			every(5*sec, until, 10*sec, func(at time.Duration, _ int) {
				net.sample(at, capture.Sample{Processes: &capture.ProcessSample{Processes: []capture.Process{{PID: 7, Name: "app", FDs: n, FDLimit: 65, Inodes: []uint32{9}}}}})
			})
		}
	}
	play(t, newExhaustion, []scene{
		{name: "ports", make: ports(200, 1), want: "error upstream 10.0.0.1 10.0.3.1 80", onset: 11 * sec},
		{name: "ports, many destinations", make: ports(200, 10)},
		{name: "conntrack", make: conntrack(900, 0, 0), want: "warn host 10.0.0.1", onset: 5*sec + ms},
		{name: "conntrack, packets refused", make: conntrack(1000, 0, 5), want: "error host 10.0.0.1", onset: 5*sec + ms},
		{name: "descriptors of a process", want: "error host 10.0.0.1", onset: 5 * sec, make: files(60*sec, 65)},
		{name: "descriptors that were read long ago", want: "error host 10.0.0.1", onset: 5 * sec, make: files(6*sec, 65)},
		{name: "descriptors, half of them", make: files(60*sec, 33)},
		{name: "conntrack, half full", make: conntrack(600, 0, 0)},
		{name: "conntrack, refusals of old that could not be read at first", make: conntrack(900, 1000, 0), want: "warn host 10.0.0.1", onset: 5*sec + ms},
	})
}

// What is known of a process's descriptors ends with the answers about it.
func TestExhaustionEnds(t *testing.T) {
	var n network
	every(0, 300*sec, sec, func(at time.Duration, _ int) {
		n.sockets(at, gateStates, listener("10.0.0.1:80", 0, 5))
		n.counters(at+ms, func(h *capture.HostSample) { h.FilesMax, h.FilesOpen = 1000, 100 })
	})
	n.sample(5*sec, capture.Sample{Processes: &capture.ProcessSample{Processes: []capture.Process{{PID: 7, Name: "app", FDs: 65, FDLimit: 65}}}})
	if fs := n.findings(t, newExhaustion(), ""); len(fs) != 1 || fs[0].State != analyze.Resolved {
		t.Errorf("%+v", features(fs))
	}
}

// A process near its limit is asked for every 5 s at first, so that a trouble of seconds is known to be over within seconds; one that stays
// there is asked for every 15 s.
func TestExhaustionAsks(t *testing.T) {
	d := newExhaustion()
	var asks []time.Duration
	begin := capture.Instant(1_700_000_000_000_000_000)
	asked := true
	for at := time.Duration(0); at < 120*sec; at += sec {
		if asked {
			d.(analyze.Sampler).Sample(begin.Add(at), &capture.Sample{Processes: &capture.ProcessSample{Processes: []capture.Process{{PID: 7, FDs: 65, FDLimit: 65, Inodes: []uint32{9}}}}})
		}
		asked = false
		d.Judge(&analyze.Window{Start: begin.Add(at), End: begin.Add(at + sec), First: begin, Ask: func(a analyze.Ask) {
			if len(a.Inodes) > 0 {
				asks, asked = append(asks, at), true
			}
		}}, func(analyze.Symptom) {})
	}
	longest := [2]time.Duration{}
	for i := 1; i < len(asks); i++ {
		late := 0
		if asks[i] > 60*sec {
			late = 1
		}
		longest[late] = max(longest[late], asks[i]-asks[i-1])
	}
	if longest[0] > 6*sec || len(asks) < 12 || asks[0] > 5*sec || longest[1] < 15*sec {
		t.Errorf("asked at %v", asks)
	}
}

func TestPortError(t *testing.T) {
	link := func(virtual bool, crc, missed uint64) func(*network) {
		return func(n *network) {
			every(0, 40*sec, sec, func(at time.Duration, i int) {
				n.sockets(at, gateStates, listener("10.0.0.1:80", 0, 5))
				n.counters(at+ms, func(h *capture.HostSample) {
					l := capture.Link{Name: "eth0", Virtual: virtual, Up: true, RxPackets: uint64(i) * 1000, RxCRC: 500, RxMissed: 9}
					if at > 10*sec {
						l.RxCRC += crc * uint64(i)
						l.RxMissed += missed * uint64(i)
					}
					h.Links = []capture.Link{l}
				})
			})
		}
	}
	play(t, newPortError, []scene{
		{name: "wrong checksums", make: link(false, 50, 0), want: "error host 10.0.0.1", onset: 10*sec + ms},
		{name: "few wrong checksums", make: link(false, 1, 0), want: "warn host 10.0.0.1", onset: 10*sec + ms},
		{name: "ring too small", make: link(false, 0, 50), want: "warn host 10.0.0.1", onset: 10*sec + ms},
		{name: "one in a thousand missed", make: link(false, 0, 1)},
		{name: "old errors", make: link(false, 0, 0)},
		{name: "no hardware", make: link(true, 50, 50)},
	})
}

func TestChange(t *testing.T) {
	play(t, newChange, []scene{
		{name: "a process began to listen", want: "info host 10.0.0.1", onset: 5 * sec, make: func(n *network) {
			every(0, 20*sec, sec, func(at time.Duration, _ int) { n.sockets(at, gateStates, listener("10.0.0.1:80", 0, 5)) })
			n.sample(5*sec, capture.Sample{Change: &capture.Change{Kind: capture.ChangeProcessStart, What: "nginx (pid 7)"}})
		}},
		{name: "software of last week", make: func(n *network) {
			n.sample(5*sec, capture.Sample{Change: &capture.Change{Kind: capture.ChangeSoftware, What: "/usr/sbin/nginx", When: begin.Add(-7 * 24 * time.Hour)}})
			n.counters(6*sec, func(*capture.HostSample) {})
		}},
		{name: "nothing", make: func(n *network) {
			n.counters(0, func(*capture.HostSample) {})
			n.counters(sec, func(*capture.HostSample) {})
		}},
	})
}

// Where procfs shows nothing, a process that has begun to listen would not be seen either: that nothing changed is not known.
func TestChangeUnseen(t *testing.T) {
	for _, seen := range []bool{false, true} {
		d, h := newChange().(*change), new(capture.HostSample)
		h.Links = []capture.Link{{Name: "eth0", Up: true}}
		if seen {
			h.Set(0, 1)
		}
		d.Sample(begin, &capture.Sample{Host: h})
		if got := d.Assess(nil).Assessable; got != seen {
			t.Errorf("counters were read: %v, assessable: %v", seen, got)
		}
	}
}

func TestPoolExhaustedSockets(t *testing.T) {
	full := gateStates | capture.Established.Mask()
	pool := func(queue, accepted func(at time.Duration) int) func(*network) {
		return func(n *network) {
			every(0, 40*sec, sec, func(at time.Duration, _ int) {
				list := []capture.Socket{listener("0.0.0.0:8080", uint32(queue(at)), 64)}
				for i := range accepted(at) + queue(at) {
					s := capture.Socket{State: capture.Established, Local: host("10.0.0.1:8080"), Remote: host("10.0.9.9:" + itoa(30000+i)), Cookie: uint64(i + 1)}
					if i < accepted(at) {
						s.Inode = uint32(i + 1)
						list = append(list, capture.Socket{State: capture.Established, Local: host("10.0.0.1:" + itoa(40000+i)), Remote: host("10.0.3.1:8080"),
							Inode: uint32(1000 + i), Cookie: uint64(1000 + i), HasInfo: true, Info: capture.TCPInfo{LastDataRecv: 5000}})
					} else if at >= 15*sec {
						s.State = capture.CloseWait
					}
					list = append(list, s)
				}
				n.sockets(at, full, list...)
			})
			n.sample(20*sec, capture.Sample{Processes: &capture.ProcessSample{Processes: []capture.Process{{PID: 812, Name: "verifyd", Threads: 17, Inodes: []uint32{1},
				Waits: []capture.ThreadWait{{Threads: 16, State: "S", Syscall: "recvfrom", Remote: host("10.0.3.1:8080"), Proto: capture.ProtoTCP}}}}}})
		}
	}
	from := func(start time.Duration, k int) func(time.Duration) int {
		return func(at time.Duration) int {
			if at < start {
				return 0
			}
			return k
		}
	}
	all := func(k int) func(time.Duration) int { return func(time.Duration) int { return k } }
	play(t, newPoolExhausted, []scene{
		{name: "all workers wait for one server", make: pool(from(10*sec, 40), all(16)), want: "error service 10.0.0.1 8080", onset: 10 * sec, check: func(t *testing.T, f any) {
			p := f.(PoolExhausted)
			if p.Level != 16 || p.Queued != 40 || p.OutboundPeer != "10.0.3.1" || p.Waits != "16 of 17 threads of verifyd (pid 812) wait on 10.0.3.1:8080" {
				t.Errorf("%+v", p)
			}
		}},
		{name: "idle connections", make: pool(all(0), all(500))},
		{name: "a queue that empties", make: pool(func(at time.Duration) int { return int(at/sec) % 2 * 40 }, all(16))},
	})
}

func TestDeadUpstreamSockets(t *testing.T) {
	opening := func(patience time.Duration) func(*network) {
		return func(n *network) {
			every(0, 40*sec, sec, func(at time.Duration, i int) {
				list := []capture.Socket{listener("10.0.0.1:80", 0, 5)}
				for k := 0; k <= i; k++ { // one call a second
					age := at - time.Duration(k)*sec
					if at >= 10*sec && k >= 10 && age < patience {
						list = append(list, capture.Socket{State: capture.SynSent, Local: host("10.0.0.1:" + itoa(40000+k)), Remote: host("10.0.3.1:443"),
							Cookie: uint64(k + 1), Retries: uint8(min(age/sec, 2)), Inode: 5})
					}
				}
				n.sockets(at, gateStates, list...)
			})
		}
	}
	play(t, newDeadUpstream, []scene{
		{name: "silent", make: opening(20 * sec), want: "warn upstream 10.0.0.1 10.0.3.1 443", onset: 10 * sec},
		{name: "slow to open", make: opening(2 * sec)},
	})
}

func TestRetransmissionSockets(t *testing.T) {
	full := gateStates | capture.Established.Mask()
	resend := func(each uint32, apart time.Duration) func(*network) {
		return func(n *network) {
			every(0, 120*sec, apart, func(at time.Duration, i int) {
				list := []capture.Socket{listener("10.0.0.1:80", 0, 5)}
				for k := range 20 {
					s := capture.Socket{State: capture.Established, Local: host("10.0.0.1:80"), Remote: host("10.0.9.9:" + itoa(30000+k)), Inode: 9, Cookie: uint64(k + 1),
						HasInfo: true, Info: capture.TCPInfo{DataSegsOut: uint32(i * 100), TotalRetrans: 7, SndMSS: 1448}}
					if at >= 60*sec {
						s.Info.TotalRetrans += each * uint32(i-int(60*sec/apart)+1)
					}
					list = append(list, s)
				}
				n.obs = append(n.obs, capture.Observation{At: begin.Add(at), Kind: capture.KindSample,
					Sample: &capture.Sample{Sockets: &capture.SocketTable{States: full, Info: true, Sockets: list}}})
			})
		}
	}
	play(t, newRetransmission, []scene{
		{name: "8 % sent again", make: resend(8, 5*sec), want: "warn path 10.0.0.1 10.0.9.9", onset: 55 * sec, check: func(t *testing.T, f any) {
			if r := f.(Retransmission); !r.Sampled || r.Flows != 20 || r.Share < 0.05 || r.Baseline != 55 {
				t.Errorf("%+v", r)
			}
		}},
		{name: "a dump every 20 s", make: resend(8, 20*sec), want: "warn path 10.0.0.1 10.0.9.9", onset: 40 * sec, check: func(t *testing.T, f any) {
			if r := f.(Retransmission); r.Baseline != 40 {
				t.Errorf("%+v", r)
			}
		}},
		{name: "1 % sent again", make: resend(1, 5*sec)},
	})
}

// A program without a descriptor to spare may close what it accepts: of the listener that turns clients away the descriptors are read.
func TestExhaustionLooksBehindListener(t *testing.T) {
	d := newExhaustion()
	now := capture.Instant(1_700_000_000_000_000_000)
	d.(analyze.Measurer).Measures()[0].(analyze.Sampler).Sample(now, &capture.Sample{Sockets: &capture.SocketTable{
		States: capture.Listen.Mask(), Sockets: []capture.Socket{listener("0.0.0.0:8080", 0, 64)}}})
	asks := func(server string, class flow.Class, side flow.Side) (out []uint32) {
		now = now.Add(time.Minute)
		d.Event(&flow.Event{Kind: flow.Reset, Class: class, Side: side, Conn: &flow.Conn{Server: host(server)}})
		d.Judge(&analyze.Window{Start: now, End: now.Add(sec), First: now, Ask: func(a analyze.Ask) { out = a.Inodes }}, func(analyze.Symptom) {})
		return out
	}
	if got := asks("10.0.0.1:8080", flow.ResetAbort, flow.Server); len(got) != 1 || got[0] != 7 {
		t.Errorf("it turned a client away: asked for %v", got)
	}
	for name, got := range map[string][]uint32{
		"the client cut it off":      asks("10.0.0.1:8080", flow.ResetAbort, flow.Client),
		"it refused":                 asks("10.0.0.1:8080", flow.ResetRefused, flow.Server),
		"nobody listens on it here":  asks("10.0.0.9:9090", flow.ResetAbort, flow.Server),
		"closed after a whole reply": asks("10.0.0.1:8080", flow.ResetComplete, flow.Server),
	} {
		if got != nil {
			t.Errorf("%s: asked for %v", name, got)
		}
	}
}
