package detect

import (
	"time"

	"jindan/analyze"
	"jindan/capture"
)

// lateRun is a kind of request that used to be answered in time, and from some moment on is late every time: one URL, one query
// of a service that is as fast as ever otherwise.
type lateRun struct {
	since, last capture.Instant // when the first and the newest of them began
	late, fast  uint32          // since then; an answer from a cache comes in time
	before      uint32          // answered in time until then
	of          uint32          // answers of the service until then
	least       time.Duration   // the shortest wait that has ended; 0: none has
}

const (
	// lateAsARule: a kind that is in time more than once in so many is not late as a rule.
	lateAsARule = 10
	// leastRun is how many of one kind in a row are no chance where 5 of 5 and more were in time before (at most 45 %, so 0.45^3).
	leastRun = 3
	// keepsAsking: who waits on purpose, for the next message of a queue, asks again only when he has got one, and hence so much less
	// often, of all requests of the service, than while there were messages. Who calls a slow URL does not know that it is slow.
	keepsAsking = 2
)

// lateAgain counts a request of the kind that began at at, and is late.
func (k *kind) lateAgain(at capture.Instant, answers uint32) {
	r := &k.run
	if r.late == 0 {
		*r = lateRun{since: at, before: k.fast, of: answers}
	}
	r.late++
	r.since, r.last = min(r.since, at), max(r.last, at)
}

// ended takes how long a late one waited.
func (r *lateRun) ended(wait time.Duration) {
	if r.late > 0 && (r.least == 0 || wait < r.least) {
		r.least = wait
	}
}

// inTime counts one that is answered in time.
func (r *lateRun) inTime() {
	if r.late == 0 {
		return
	}
	if r.fast++; lateAsARule*r.fast > r.late {
		*r = lateRun{}
	}
}

// lateKinds sums up the kinds that are late as a rule since some moment, if the rest of the service is well.
func (st *serverState) lateKinds(w *analyze.Window, f *SlowServer) (since capture.Instant) {
	now := st.total + uint32(len(st.overdue.Keys))
	var last capture.Instant
	of := uint32(0)
	x := SlowServer{}
	for i := range st.kinds.exact[:st.kinds.n] {
		r := &st.kinds.exact[i].run
		asked, all := r.late+r.fast, now-min(r.of, now)
		if r.late < leastRun || keepsAsking*float64(asked)*float64(r.of) < float64(r.before)*float64(all) {
			continue
		}
		x.KindLate += int(r.late)
		x.KindFast += int(r.fast)
		x.KindBefore += int(r.before)
		if r.least > 0 && (x.KindWait == 0 || r.least.Seconds() < x.KindWait) {
			x.KindWait = r.least.Seconds()
		}
		of = max(of, all)
		if last = max(last, r.last); since == 0 || r.since < since {
			since = r.since
		}
	}
	// Where most requests are late, or many of other kinds, it is the service that is slow.
	if n := x.KindLate + x.KindFast; n == 0 || 2*n > int(of) || f.Slow > 2*x.KindLate {
		return 0
	}
	if x.KindWait == 0 {
		x.KindWait = w.Params.Duration("slow_after").Seconds()
	}
	f.KindLate, f.KindFast, f.KindBefore, f.KindWait = x.KindLate, x.KindFast, x.KindBefore, x.KindWait
	f.KindOf, f.KindSpan = int(of), last.Sub(since).Seconds()
	f.KindShare = min(float64(x.KindLate)/float64(of), 1)
	return since
}
