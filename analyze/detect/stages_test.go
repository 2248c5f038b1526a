package detect

import (
	"container/heap"
	"fmt"
	"math"
	"math/rand/v2"
	"testing"
	"time"

	"jindan/analyze"
	"jindan/analyze/cause"
	"jindan/capture"
	"jindan/rules"
)

// site is a service whose clients ask again as soon as they are answered, simulated with the truth of each stage.
type site struct {
	n        *network
	rng      *rand.Rand
	workers  int  // 0: it takes up whatever comes
	thread   bool // one thread does all own work
	keep     bool // calls use connections that are kept open
	clients  int
	dns      time.Duration // means
	upstream time.Duration
	own      [2]time.Duration // before the calls and after
	to       time.Duration
	from     time.Duration
	port     uint16

	now     time.Duration
	agenda  agenda
	free    int
	queue   []func()
	running bool
	work    []func()
	spent   map[string]time.Duration
	asked   int
	kept    []keptCall
}

type keptCall struct {
	c   capture.Endpoint
	q   uint32 // both sides go on here
	srv uint32
}

type event struct {
	at time.Duration
	n  int
	f  func()
}

type agenda []event

func (a agenda) Len() int { return len(a) }
func (a agenda) Less(i, j int) bool {
	return a[i].at < a[j].at || a[i].at == a[j].at && a[i].n < a[j].n
}
func (a agenda) Swap(i, j int) { a[i], a[j] = a[j], a[i] }
func (a *agenda) Push(x any)   { *a = append(*a, x.(event)) }
func (a *agenda) Pop() any {
	x := (*a)[len(*a)-1]
	*a = (*a)[:len(*a)-1]
	return x
}

func (s *site) after(d time.Duration, f func()) {
	s.asked++
	heap.Push(&s.agenda, event{s.now + d, s.asked, f})
}

// draw is a time with that mean: a fixed part and a random one.
func (s *site) draw(mean time.Duration) time.Duration {
	return mean/2 + time.Duration(s.rng.ExpFloat64()*float64(mean)/2)
}

// owned does own work, and then f.
func (s *site) owned(d time.Duration, f func()) {
	since := s.now
	done := func() {
		s.spent[analyze.StageOwn] += s.now - since
		f()
	}
	if !s.thread {
		s.after(d, done)
		return
	}
	s.work = append(s.work, func() {
		s.after(d, func() {
			s.running = false
			done()
			s.next()
		})
	})
	s.next()
}

func (s *site) next() {
	if !s.running && len(s.work) > 0 {
		f := s.work[0]
		s.work, s.running = s.work[1:], true
		f()
	}
}

const siteHost = "192.0.2.1"

// client asks until the time is over.
func (s *site) client() {
	if s.now >= s.to {
		return
	}
	n, c, at := s.n, s.n.from("198.51.100.9"), s.now
	srv := capture.Endpoint{Addr: addr(siteHost), Port: s.port}
	q := n.open(at, c, srv)
	n.tcp(at+2*ms, c, srv, capture.ACK|capture.PSH, q, q, 100)
	s.after(2*ms, func() {
		arrived := s.now
		take := func() {
			s.spent[analyze.StageAccept] += s.now - arrived
			s.handle(func() {
				at := s.now
				n.tcp(at, srv, c, capture.ACK|capture.PSH|capture.FIN, q, q+100, 1000)
				n.tcp(at+ms, c, srv, capture.ACK|capture.FIN, q+100, q+1001, 0)
				n.tcp(at+ms+1, srv, c, capture.ACK, q+1001, q+101, 0)
				s.free++
				if len(s.queue) > 0 {
					f := s.queue[0]
					s.queue = s.queue[1:]
					s.free--
					f()
				}
				s.after(2*ms, s.client)
			})
		}
		if s.workers > 0 && s.free == 0 {
			s.queue = append(s.queue, take)
			return
		}
		s.free--
		take()
	})
}

// handle serves a request: own work, a name, a call, own work.
func (s *site) handle(done func()) {
	n := s.n
	s.owned(s.draw(s.own[0]), func() {
		d := s.draw(s.dns)
		n.query(s.now, siteHost, "203.0.113.53:53", "list.example", d, noError, 100)
		s.spent[analyze.StageDNS] += d
		s.after(d, func() {
			up := host("203.0.113.7:443")
			var k keptCall
			wait := time.Duration(0)
			if s.keep && len(s.kept) > 0 {
				k, s.kept = s.kept[0], s.kept[1:]
			} else {
				k.c = n.from(siteHost)
				k.q = n.open(s.now, k.c, up)
				k.srv, wait = k.q, ms
				s.spent[analyze.StageConnect] += ms
			}
			d := s.draw(s.upstream)
			s.spent[analyze.StageFirstByte] += d
			at := s.now + wait
			n.tcp(at, k.c, up, capture.ACK|capture.PSH, k.q, k.srv, 80)
			s.after(wait+d, func() {
				n.tcp(s.now, up, k.c, capture.ACK|capture.PSH, k.srv, k.q+80, 500)
				k.q, k.srv = k.q+80, k.srv+500
				if s.keep {
					s.kept = append(s.kept, k)
				} else {
					n.tcp(s.now+1, k.c, up, capture.ACK|capture.FIN, k.q, k.srv, 0)
					n.tcp(s.now+2, up, k.c, capture.ACK|capture.FIN, k.srv, k.q+1, 0)
					n.tcp(s.now+3, k.c, up, capture.ACK, k.q+1, k.srv+1, 0)
				}
				s.owned(s.draw(s.own[1]), done)
			})
		})
	})
}

func (s *site) run() {
	s.free, s.spent, s.now = s.workers, make(map[string]time.Duration), s.from
	for range s.clients {
		s.after(time.Duration(s.rng.Int64N(int64(20*ms))), s.client)
	}
	for len(s.agenda) > 0 {
		e := heap.Pop(&s.agenda).(event)
		s.now = e.at
		e.f()
	}
}

// tables is where the time of the requests to each port went.
func tables(t *testing.T, n *network, ports ...uint16) (out []*analyze.Stages) {
	t.Helper()
	n.asked = asked{}
	ds := All()
	n.run(t, ds, siteHost)
	for _, d := range ds {
		if d, ok := d.(*slowServer); ok {
			for _, p := range ports {
				out = append(out, d.where.Table(capture.Endpoint{Addr: addr(siteHost), Port: p}, 0))
			}
		}
	}
	return out
}

func share(t *analyze.Stages, stage string) (sum float64) {
	if t == nil {
		return math.NaN()
	}
	for _, x := range t.Stages {
		if x.Stage == stage {
			sum += x.Share
		}
	}
	return sum
}

// TestStages holds the shares against the truth of a simulation: however many requests there are at a time, in a pool, with a limit or
// without, on one thread.
func TestStages(t *testing.T) {
	for _, c := range []struct {
		name string
		site site
	}{
		{"pool", site{workers: 16}},
		{"pool, calls on connections that are kept", site{workers: 16, keep: true}},
		{"pool that works more than it waits", site{workers: 16, own: [2]time.Duration{10 * ms, 40 * ms}}},
		{"event loop", site{thread: true, own: [2]time.Duration{ms / 10, ms / 5}}},
		{"event loop without time to spare", site{thread: true, own: [2]time.Duration{ms / 4, ms / 2}}},
	} {
		for _, clients := range []int{1, 16, 200} {
			t.Run(fmt.Sprintf("%s, %d at a time", c.name, clients), func(t *testing.T) {
				s := c.site
				s.n, s.rng, s.clients, s.port = new(network), rand.New(rand.NewPCG(1, uint64(clients))), clients, 8080
				s.dns, s.upstream, s.to = 20*ms, 30*ms, 4*sec
				if s.thread && clients > 16 {
					s.to = sec
				}
				if s.own[0] == 0 {
					s.own = [2]time.Duration{3 * ms, 8 * ms}
				}
				s.run()
				var all time.Duration
				for _, d := range s.spent {
					all += d
				}
				got := tables(t, s.n, 8080)[0]
				for _, stage := range []string{analyze.StageAccept, analyze.StageDNS, analyze.StageConnect, analyze.StageFirstByte, analyze.StageOwn} {
					want := s.spent[stage].Seconds() / all.Seconds()
					if x := share(got, stage); math.Abs(x-want) > 0.1 {
						t.Errorf("%s: %.3f, in truth %.3f", stage, x, want)
					} else {
						t.Logf("%s: %.3f, in truth %.3f", stage, x, want)
					}
				}
			})
		}
	}
}

// TestStagesApart gives the calls of a host to the service that makes them.
func TestStagesApart(t *testing.T) {
	n := new(network)
	busy := site{n: n, rng: rand.New(rand.NewPCG(2, 1)), workers: 8, clients: 12, dns: 300 * ms, upstream: 5 * ms, own: [2]time.Duration{ms, ms}, from: 5 * sec, to: 12 * sec, port: 8080}
	calm := site{n: n, rng: rand.New(rand.NewPCG(2, 2)), workers: 8, clients: 1, dns: ms, upstream: 2 * ms, own: [2]time.Duration{ms, ms}, to: 5 * sec, port: 8080}
	calm.run() // the past: the two are in work at different times
	busy.run()
	every(ms, 12*sec, 40*ms, func(at time.Duration, _ int) { n.call(at, "198.51.100.10", siteHost+":9090", 4*ms) })
	// A job of the host that has nothing to do with either.
	every(3*ms, 12*sec, 90*ms, func(at time.Duration, _ int) { n.call(at, siteHost, "203.0.113.99:80", 30*ms) })
	got := tables(t, n, 8080, 9090)
	var all time.Duration
	for _, d := range calm.spent {
		all += d
	}
	for _, d := range busy.spent {
		all += d
	}
	for _, stage := range []string{analyze.StageAccept, analyze.StageDNS, analyze.StageOwn} {
		want := (calm.spent[stage] + busy.spent[stage]).Seconds() / all.Seconds()
		if x := share(got[0], stage); math.Abs(x-want) > 0.1 {
			t.Errorf("the service that asks: %s %.3f, in truth %.3f, %+v", stage, x, want, got[0])
		}
	}
	for _, x := range got[1].Stages {
		if x.Peer != "" && x.Share > 0.05 {
			t.Errorf("the service that calls nobody: %+v", x)
		}
	}
}

// TestStarvedBesideWell has two services on one host, of which one is starved by slow names and the other is well and calls somebody else:
// the chain is about the one.
func TestStarvedBesideWell(t *testing.T) {
	n := new(network)
	calm := site{n: n, rng: rand.New(rand.NewPCG(3, 1)), workers: 8, clients: 2, dns: 3 * ms, upstream: 5 * ms, own: [2]time.Duration{ms, 40 * ms}, to: 25 * sec, port: 8080}
	starved := calm
	starved.rng, starved.clients, starved.dns, starved.from, starved.to = rand.New(rand.NewPCG(3, 2)), 30, 2500*ms, 25*sec, 45*sec
	calm.run()
	starved.run()
	every(ms, 45*sec, 50*ms, func(at time.Duration, _ int) {
		n.call(at, "198.51.100.10", siteHost+":9090", 30*ms)
		n.call(at+4*ms, siteHost, "203.0.113.99:80", 20*ms)
	})
	set, err := rules.Load(Features())
	if err != nil {
		t.Fatal(err)
	}
	n.causes = cause.New(set)
	d := n.run(t, All(), siteHost)
	var slow, root *analyze.Finding
	for _, f := range d.Findings {
		if f.Severity != "info" && (f.Subject.Port == 9090 || f.Subject.Peer == "203.0.113.99") {
			t.Errorf("of the service that is well: %s %+v, %s", f.Rule, f.Subject, f.Summary.En)
		}
		if f.Rule == "slow-server" && f.Subject.Port == 8080 {
			slow = f
		}
		if f.Role == analyze.Root {
			root = f
		}
	}
	if slow == nil || slow.Role != analyze.Consequence || root == nil || root.Rule != "dns-delay" || len(d.Roots) != 1 {
		t.Fatalf("slow service %+v, roots %v", slow, d.Roots)
	}
	if f := slow.Features.(SlowServer); f.Stage != analyze.StageDNS || f.StageShare < 0.7 || f.StagePeer != "203.0.113.53" {
		t.Errorf("%+v", slow.Stages)
	}
	for _, s := range d.Steps {
		if s.Step == "stage-by-stage" && (s.Stages == nil || s.Stages.Port != 8080) {
			t.Errorf("%+v", s)
		}
	}
}
