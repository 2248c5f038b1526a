package detect

import (
	"jindan/analyze/flow"
	"jindan/capture"
)

// bigAnswers learns how large the answers to a DNS question are, so that an answer that never came has a
// size: the largest that the same server gave to the same question.
type bigAnswers struct {
	sizes subjects[question, uint32] // IP length in bytes
	lost  []lostAnswer
}

type question struct {
	server capture.Addr
	name   uint64
	qtype  uint16
}

type lostAnswer struct {
	q     question
	asked capture.Instant
	from  capture.Addr // the asking host
}

// maxLostAnswers bounds the unanswered questions that are remembered.
const maxLostAnswers = 1024

func newBigAnswers() bigAnswers {
	return bigAnswers{sizes: newSubjects[question, uint32](maxPerDetector)}
}

func (b *bigAnswers) event(e *flow.Event) {
	d := e.DNS
	q := question{d.Server.Addr, d.NameHash, d.QType}
	switch e.Kind {
	case flow.DNSAnswer:
		if n := b.sizes.get(q); n != nil && d.Proto == capture.ProtoUDP {
			*n = max(*n, d.AnswerIPLen)
		}
	case flow.DNSUnanswered:
		if d.Proto != capture.ProtoUDP {
			return
		}
		if len(b.lost) == maxLostAnswers {
			copy(b.lost, b.lost[1:])
			b.lost = b.lost[:maxLostAnswers-1]
		}
		b.lost = append(b.lost, lostAnswer{q, d.First, d.Client.Addr})
	}
}

// unanswered counts the questions that k's receiver asked k's sender since shortly before onset and whose
// answer would have had more than size bytes, when the first of them was asked, and the smallest of
// these sizes.
func (b *bigAnswers) unanswered(k way, size int, onset capture.Instant) (n int, first capture.Instant, smallest int) {
	for i := range b.lost {
		u := &b.lost[i]
		if u.from != k.to || u.q.server != k.from || u.asked < onset.Add(-bigAnswerLead) {
			continue
		}
		if have := b.sizes.peek(u.q); have == nil || int(*have) <= size {
			continue
		} else if n == 0 || int(*have) < smallest {
			smallest = int(*have)
		}
		if n == 0 || u.asked < first {
			first = u.asked
		}
		n++
	}
	return n, first, smallest
}

// bigAnswerLead is how much earlier than the first missing TCP segment an unanswered question may
// belong to the same fault: TCP shows a missing segment only when a later one gets through.
const bigAnswerLead = 5e9 // ns
