package detect

import (
	"slices"
	"time"

	"jindan/analyze/flow"
	"jindan/analyze/measure"
	"jindan/analyze/stat"
	"jindan/capture"
)

// bigAnswers learns how large the answers to a DNS question are, so that an answer that never came has a
// size: the largest that the same server gave to the same question over UDP.
type bigAnswers struct {
	lookups *measure.Lookups
	servers measure.Subjects[capture.Addr, struct{}] // in recent, now or before
	newest  capture.Addr                             // of them
	recent  stat.Ring[answer]
}

// answer is one that came, or was waited for in vain.
type answer struct {
	q     measure.Question
	asked capture.Instant
	from  capture.Addr // the asking host
	lost  bool
}

// maxAnswers bounds the answers that are remembered one by one.
const maxAnswers = 2048

func newBigAnswers() bigAnswers {
	return bigAnswers{lookups: measure.NewLookups(), servers: measure.NewSubjects[capture.Addr, struct{}](measure.MaxPerDetector)}
}

func (b *bigAnswers) event(e *flow.Event) {
	d := e.DNS
	if d.Proto != capture.ProtoUDP {
		return
	}
	q := measure.QuestionOf(d)
	if q.Server != b.newest {
		b.newest = q.Server
		b.servers.Get(q.Server)
	}
	b.recent.Add(answer{q, d.First, d.Client.Addr, e.Kind == flow.DNSUnanswered}, maxAnswers)
}

// bigLoss counts big answers.
type bigLoss struct {
	lost     stat.Point
	sizes    measure.Sizes
	first    capture.Instant // first question whose answer was lost
	smallest int             // smallest of the sizes lost, IP length in bytes
}

// since counts the answers of more than size bytes that k's sender gave, or should have given, to
// k's receiver since they began to be lost, not much later than onset.
func (b *bigAnswers) since(k measure.Way, size int, onset capture.Instant) (l bigLoss) {
	if b.servers.Refused == 0 && b.servers.Peek(k.From) == nil {
		return l // nobody asks it
	}
	var big []*answer
	for a := range b.recent.All {
		if a.from != k.To || a.q.Server != k.From {
			continue
		}
		if have := b.lookups.Known.Peek(a.q); have != nil && int(have.First) > size {
			big = append(big, a)
		}
	}
	slices.SortStableFunc(big, func(a, b *answer) int { return int(max(min(a.asked-b.asked, 1), -1)) })
	begin, answered := len(big), 0
	for i := len(big) - 1; i >= 0 && answered < bigAnswerRun; i-- {
		if answered++; big[i].lost {
			begin, answered = i, 0
		}
	}
	for _, a := range big[begin:] {
		n := int(b.lookups.Known.Peek(a.q).First)
		i := flow.Bin(uint32(n))
		l.lost.Total++
		l.sizes.Sent[i]++
		if !a.lost {
			continue
		}
		if l.lost.Bad == 0 || n < l.smallest {
			l.smallest = n
		}
		l.lost.Bad++
		l.sizes.Lost[i]++
	}
	if l.lost.Bad > 0 {
		l.first = big[begin].asked
	}
	if l.lost.Bad < minBigAnswers && l.first < onset.Add(-bigAnswerLead) {
		return bigLoss{} // an accident long before
	}
	return l
}

// alike reports whether segments are lost as the answers are, which are as large. If not, it is not the path that loses them.
func (l *bigLoss) alike(segments stat.Point) bool {
	return segments.Share()*maxUnlike >= l.lost.Share()
}

const (
	// maxUnlike is how many times the share of the segments that of the answers may be: TCP repeats, and goes
	// slow. Proposal; lab, S1: 1.4 times.
	maxUnlike = 10
	// bigAnswerRun answers in a row mean that before them nothing was wrong.
	bigAnswerRun = 10
	// minBigAnswers lost ones are no accident.
	minBigAnswers = 3
)

// bigAnswerLead is how much earlier than the first missing TCP segment a lost answer may
// belong to the same fault: TCP shows a missing segment only when a later one gets through.
const bigAnswerLead = 5 * time.Second
