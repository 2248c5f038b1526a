package detect

import (
	"slices"
	"strconv"
	"testing"
	"time"

	"jindan/analyze"
	"jindan/analyze/cause"
	"jindan/rules"
)

// pooled is a service of siteHost with so many workers, each of which makes one call for a request; clients leave after 3 s.
type pooled struct {
	port    uint16
	up      string // whom it calls; empty: all is own work
	workers int
	step    time.Duration // from request to request
	from    time.Duration // the first of them
	slow    time.Duration // since when a request takes 2 s, not 30 ms
}

func (p pooled) run(n *network, to time.Duration) {
	const patience = 3 * sec
	free := make([]time.Duration, p.workers)
	srv := host(siteHost + ":" + strconv.Itoa(int(p.port)))
	every(p.from, to, p.step, func(at time.Duration, _ int) {
		c := n.from("198.51.100.10")
		q := n.open(at, c, srv)
		asked := at + 2*ms
		n.tcp(asked, c, srv, 0x18, q, q, 100)
		n.tcp(asked+1, srv, c, 0x10, q, q+100, 0)
		w := slices.Index(free, slices.Min(free))
		begins, wait := max(asked+ms, free[w]), 30*ms
		if at >= p.slow {
			wait = 2 * sec
		}
		if p.up != "" {
			n.call(begins, siteHost, p.up, wait)
		}
		free[w] = begins + wait + 4*ms
		if free[w] < asked+patience {
			n.tcp(free[w], srv, c, 0x18, q, q+100, 1000)
			n.tcp(free[w]+ms, c, srv, 0x11, q+100, q+1000, 0)
			n.tcp(free[w]+2*ms, srv, c, 0x11, q+1000, q+101, 0)
			n.tcp(free[w]+3*ms, c, srv, 0x10, q+101, q+1001, 0)
			return
		}
		n.tcp(asked+patience, c, srv, 0x11, q+100, q, 0)
		n.tcp(asked+patience+ms, srv, c, 0x10, q, q+101, 0)
	})
}

// linked is what is found in n, and why.
func linked(t *testing.T, n *network) *analyze.Diagnosis {
	t.Helper()
	set, err := rules.Load(Features())
	if err != nil {
		t.Fatal(err)
	}
	n.causes = cause.New(set)
	return n.run(t, All(), siteHost)
}

// by finds the finding of a rule about a port, and a peer where it is not empty.
func by(d *analyze.Diagnosis, rule, peer string, port uint16) *analyze.Finding {
	for _, f := range d.Findings {
		if f.Rule == rule && f.Subject.Port == port && f.Subject.Peer == peer {
			return f
		}
	}
	return nil
}

// Two pools of one host, each of which waits for a server of its own: neither counts the calls of the other.
func TestPoolsApart(t *testing.T) {
	n := new(network)
	pooled{port: 8080, up: "203.0.113.7:443", workers: 4, step: 200 * ms, from: ms, slow: 20 * sec}.run(n, 40*sec)
	pooled{port: 9090, up: "203.0.113.8:443", workers: 6, step: 170 * ms, from: 50 * ms, slow: 20 * sec}.run(n, 40*sec)
	d := linked(t, n)
	for _, x := range []struct {
		port    uint16
		peer    string
		workers int
	}{{8080, "203.0.113.7", 4}, {9090, "203.0.113.8", 6}} {
		up, pool, served := by(d, "slow-server", x.peer, 443), by(d, "pool-exhausted", "", x.port), by(d, "slow-server", "", x.port)
		if up == nil || pool == nil || served == nil {
			t.Fatalf("%d: %v", x.port, d.Findings)
		}
		if f := pool.Features.(PoolExhausted); f.OutboundPeer != x.peer || f.Level != x.workers || f.OutboundShare < 0.7 {
			t.Errorf("%d: %d workers that wait for %s: %+v", x.port, x.workers, x.peer, f)
		}
		if up.Role != analyze.Root || !slices.Equal(pool.Because, []string{up.ID}) || slices.ContainsFunc(served.Because, func(id string) bool { return id != up.ID && id != pool.ID }) {
			t.Errorf("%d: %s is %s; the pool because of %v, the service of %v", x.port, up.ID, up.Role, pool.Because, served.Because)
		}
	}
}

// A job of the host calls a database that begins to refuse; a service beside it gets slow by its own work.
func TestJobBesideService(t *testing.T) {
	n := new(network)
	pooled{port: 8080, workers: 4, step: 100 * ms, from: ms, slow: 20 * sec}.run(n, 40*sec)
	every(70*ms, 40*sec, 330*ms, func(at time.Duration, _ int) {
		if at < 19*sec {
			n.call(at, siteHost, "203.0.113.9:5432", 20*ms)
		} else {
			n.refused(at, siteHost, "203.0.113.9:5432")
		}
	})
	d := linked(t, n)
	db, served := by(d, "dead-upstream", "203.0.113.9", 5432), by(d, "slow-server", "", 8080)
	if db == nil || served == nil {
		t.Fatalf("%v", d.Findings)
	}
	if db.Role != analyze.Root || slices.Contains(served.Because, db.ID) {
		t.Errorf("the database of the job is %s, the service slow because of %v", db.Role, served.Because)
	}
	if f := served.Features.(SlowServer); f.NotCalled != " 203.0.113.9 5432 203.0.113.9 0 " {
		t.Errorf("called, but not for the service: %q", f.NotCalled)
	}
	// The service calls it: then it may be the cause.
	n = new(network)
	pooled{port: 8080, up: "203.0.113.9:5432", workers: 4, step: 100 * ms, from: ms, slow: 20 * sec}.run(n, 40*sec)
	if served = by(linked(t, n), "slow-server", "", 8080); served == nil || served.Features.(SlowServer).NotCalled != "" {
		t.Errorf("%+v", served)
	}
}

// onOne are requests and answers on one connection from siteHost to a server, one at a time, until the server answers no more.
func onOne(n *network, up string, step, hung, to time.Duration) {
	c, s := n.from(siteHost), host(up)
	q := n.open(0, c, s)
	a := q
	every(10*ms, to, step, func(at time.Duration, _ int) {
		n.tcp(at, c, s, 0x18, q, a, 80)
		q += 80
		if at >= hung {
			n.tcp(at+ms, s, c, 0x10, a, q, 0)
			return
		}
		n.tcp(at+20*ms, s, c, 0x18, a, q, 400)
		a += 400
		n.tcp(at+21*ms, c, s, 0x10, q, a, 0)
	})
}

// A server that is called over one connection (gRPC) hangs, and the service that calls it with it: the server is the cause. A
// connection that nobody's requests wait for may be of a protocol whose turns are no requests.
func TestOneConnectionAwaited(t *testing.T) {
	n := new(network)
	pooled{port: 8080, workers: 4, step: 200 * ms, from: 5 * ms, slow: 20 * sec}.run(n, 40*sec)
	onOne(n, "203.0.113.7:50051", 200*ms, 20*sec, 40*sec)
	d := linked(t, n)
	up, served := by(d, "slow-server", "203.0.113.7", 50051), by(d, "slow-server", "", 8080)
	if up == nil || served == nil || up.Role != analyze.Root || !slices.Contains(served.Because, up.ID) {
		t.Fatalf("upstream %+v, service %+v", up, served)
	}
	if f := up.Features.(SlowServer); f.Awaited < 10 || f.AwaitedOf < f.Awaited {
		t.Errorf("%+v", f)
	}
	n = new(network)
	every(5*ms, 40*sec, 200*ms, func(at time.Duration, _ int) { n.call(at, "198.51.100.10", siteHost+":8080", 30*ms) })
	onOne(n, "203.0.113.7:50051", 200*ms, 20*sec, 40*sec)
	for _, f := range linked(t, n).Findings {
		if f.Severity != "info" {
			t.Errorf("%s %s", f.Rule, f.Summary.En)
		}
	}
}
